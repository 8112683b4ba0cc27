package input

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"unicode/utf16"
	"unicode/utf8"
)

// A utf16Reader makes UTF-8 of UTF-16, whose byte order mark it reads first. Half of a
// surrogate pair becomes a byte that is not UTF-8, so that it is found where it stands.
type utf16Reader struct {
	in    *bufio.Reader
	order binary.ByteOrder
	next  uint16 // read ahead, if ahead
	ahead bool
	rest  []byte // decoded and not given out
}

// Read implements io.Reader.
func (u *utf16Reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for len(u.rest) == 0 {
		if err := u.fill(); err != nil {
			return 0, err
		}
	}
	n := copy(p, u.rest)
	u.rest = u.rest[n:]
	return n, nil
}

// fill decodes some text into rest.
func (u *utf16Reader) fill() error {
	if u.order == nil {
		mark, err := u.in.Peek(2)
		if err != nil {
			return err
		}
		u.order = binary.ByteOrder(binary.LittleEndian)
		if mark[0] == 0xfe {
			u.order = binary.BigEndian
		}
		_, _ = u.in.Discard(2)
	}
	u.rest = u.rest[:0]
	for len(u.rest) < 4096 {
		r, err := u.rune()
		if err != nil {
			if len(u.rest) > 0 && errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		if r < 0 {
			u.rest = append(u.rest, 0xff)
			continue
		}
		u.rest = utf8.AppendRune(u.rest, r)
	}
	return nil
}

// rune returns the next character, or -1 for half of one.
func (u *utf16Reader) rune() (rune, error) {
	first, err := u.unit()
	if err != nil || !utf16.IsSurrogate(rune(first)) {
		return rune(first), err
	}
	second, err := u.unit()
	if errors.Is(err, io.EOF) {
		return -1, nil
	}
	if err != nil {
		return 0, err
	}
	if r := utf16.DecodeRune(rune(first), rune(second)); r != utf8.RuneError {
		return r, nil
	}
	u.next, u.ahead = second, true
	return -1, nil
}

func (u *utf16Reader) unit() (uint16, error) {
	if u.ahead {
		u.ahead = false
		return u.next, nil
	}
	var b [2]byte
	if _, err := io.ReadFull(u.in, b[:]); err != nil {
		return 0, err
	}
	return u.order.Uint16(b[:]), nil
}
