package pdftext

import "io"

// An lzw undoes the LZW of PDF. It is not that of compress/lzw: a code becomes one
// bit longer one code earlier.
type lzw struct {
	data  []byte
	bit   int
	width int
	table [4096]struct { // what a code adds to another
		before int16
		last   byte
		size   int
	}
	used    int
	before  int // the code before, or -1
	pending []byte
}

const (
	lzwClear = 256
	lzwEnd   = 257
)

func newLZW(data []byte) *lzw {
	z := &lzw{data: data}
	for i := range 256 {
		z.table[i].last, z.table[i].before, z.table[i].size = byte(i), -1, 1
	}
	z.clear()
	return z
}

func (z *lzw) clear() { z.used, z.width, z.before = 258, 9, -1 }

func (z *lzw) Read(p []byte) (int, error) {
	for len(z.pending) == 0 {
		if !z.step() {
			return 0, io.EOF
		}
	}
	n := copy(p, z.pending)
	z.pending = z.pending[n:]
	return n, nil
}

// step decodes one code, and returns false at the end.
func (z *lzw) step() bool {
	code := 0
	for range z.width {
		if z.bit/8 >= len(z.data) {
			return false
		}
		code = code<<1 | int(z.data[z.bit/8]>>(7-z.bit%8)&1)
		z.bit++
	}
	switch {
	case code == lzwEnd:
		return false
	case code == lzwClear:
		z.clear()
		return true
	case z.before < 0 && code > 255, code > z.used, z.used >= len(z.table) && code >= z.used:
		return false
	case z.before < 0:
		z.pending = []byte{byte(code)}
	case code < z.used:
		z.pending = z.expand(code)
		z.add(z.pending[0])
	default: // the code that is only now made
		s := z.expand(z.before)
		z.add(s[0])
		z.pending = append(s, s[0])
	}
	z.before = code
	return true
}

func (z *lzw) add(last byte) {
	if z.used >= len(z.table) {
		return
	}
	e := &z.table[z.used]
	e.before, e.last, e.size = int16(z.before), last, z.table[z.before].size+1
	z.used++
	if z.used+1 >= 1<<z.width && z.width < 12 {
		z.width++
	}
}

func (z *lzw) expand(code int) []byte {
	out := make([]byte, z.table[code].size, z.table[code].size+1)
	for i := len(out) - 1; i >= 0; i-- {
		out[i] = z.table[code].last
		code = int(z.table[code].before)
	}
	return out
}
