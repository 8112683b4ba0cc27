package pdftext

import (
	"bytes"
	"compress/zlib"
	"context"
	"encoding/ascii85"
	"errors"
	"io"
)

// maxUnpacked bounds what is unpacked of a file, all streams together, and
// maxStream what is unpacked of one of them and so the memory that it takes. The
// text of a page has some ten kilobytes of instructions, and a map some megabytes.
const (
	maxUnpacked = 256 << 20
	maxStream   = 32 << 20
)

// A file is a PDF whose objects were found.
type file struct {
	ctx     context.Context //nolint:containedctx // a file lives as long as the call that reads it
	objects map[int][]byte  // from the start of the object on
	catalog dict
	fonts   map[int]*font // that were read, by object number
	left    int           // bytes that may still be unpacked; negative when there were more
}

// A stream is a dictionary with data, packed as it is in the file.
type stream struct {
	dict dict
	data []byte
}

// open finds the objects of a file. A number that is used again means that the
// file was changed: the last one counts.
func open(ctx context.Context, data []byte) (*file, error) {
	f := &file{ctx: ctx, objects: make(map[int][]byte), fonts: make(map[int]*font), left: maxUnpacked}
	for i := 0; ctx.Err() == nil; {
		num, start := nextObject(data, i)
		if num < 0 {
			break
		}
		f.objects[num] = data[start:]
		v, size := parse(data[start:])
		i = start + size
		if err := f.note(v); err != nil {
			return nil, err
		}
	}
	for i := 0; ; {
		k := bytes.Index(data[i:], []byte("trailer"))
		if k < 0 {
			break
		}
		i += k + len("trailer")
		l := lexer{b: data[i:min(len(data), i+4096)]}
		v, _ := l.next()
		if d, ok := v.(dict); ok && d["Encrypt"] != nil {
			return nil, ErrEncrypted
		}
	}
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case f.left < 0:
		return nil, ErrTooLarge
	case f.catalog == nil:
		return nil, errors.New("damaged PDF: it has no catalog")
	}
	return f, nil
}

// nextObject returns the number of the next object after i and where it starts,
// or a negative number. An object is announced by "12 0 obj".
func nextObject(data []byte, i int) (num, start int) {
	for i < len(data) {
		k := bytes.Index(data[i:], []byte("obj"))
		if k < 0 {
			break
		}
		word := i + k
		i = word + len("obj")
		rest, ok := digitsBefore(data[:word])
		if !ok {
			continue
		}
		head, ok := digitsBefore(rest)
		if !ok {
			continue
		}
		l := lexer{b: rest[len(head):]}
		v, _ := l.next()
		if n, ok := v.(float64); ok && n < 1<<31 {
			return int(n), i
		}
	}
	return -1, 0
}

// digitsBefore returns b without the number at its end and the blanks after it.
func digitsBefore(b []byte) ([]byte, bool) {
	n := len(b)
	for n > 0 && blank(b[n-1]) {
		n--
	}
	end := n
	for n > 0 && '0' <= b[n-1] && b[n-1] <= '9' && end-n < 10 {
		n--
	}
	return b[:n], n < end
}

// parse returns the object at the start of b and its length.
func parse(b []byte) (any, int) {
	l := lexer{b: b}
	v, _ := l.next()
	if num, ok := v.(float64); ok { // it may be a reference
		at := l.i
		l.next()
		if r, _ := l.next(); r == op("R") {
			return ref{int(num)}, l.i
		}
		return v, at
	}
	d, ok := v.(dict)
	if !ok {
		return v, l.i
	}
	at := l.i
	if w, _ := l.next(); w != op("stream") {
		return d, at
	}
	l.at('\r')
	l.at('\n')
	start, end := l.i, l.i
	if n, ok := d["Length"].(float64); ok && n >= 0 && n < float64(len(b)-start) {
		end += int(n)
	}
	// The length may be wrong, or stand elsewhere in the file.
	if t := bytes.TrimLeft(b[end:min(len(b), end+32)], "\r\n \t"); end == start || !bytes.HasPrefix(t, []byte("endstream")) {
		k := bytes.Index(b[start:], []byte("endstream"))
		if k < 0 {
			k = len(b) - start
		}
		end = start + k
	}
	return &stream{d, b[start:end]}, end
}

// note looks at an object for what is to be known of all of them.
func (f *file) note(v any) error {
	switch v := v.(type) {
	case dict:
		if v["Type"] == name("Catalog") && v["Pages"] != nil {
			f.catalog = v
		}
	case *stream:
		switch v.dict["Type"] {
		case name("XRef"):
			if v.dict["Encrypt"] != nil {
				return ErrEncrypted
			}
		case name("ObjStm"):
			return f.expand(v)
		}
	}
	return nil
}

// expand adds the objects in an object stream.
func (f *file) expand(s *stream) error {
	data := f.unpack(s)
	first, ok := s.dict["First"].(float64)
	if !ok || first < 0 || first > float64(len(data)) {
		return nil
	}
	l := lexer{b: data[:int(first)]}
	for f.ctx.Err() == nil {
		num, ok1 := l.next()
		offset, ok2 := l.next()
		if !ok1 || !ok2 {
			break
		}
		n, ok1 := num.(float64)
		o, ok2 := offset.(float64)
		if !ok1 || !ok2 || o < 0 || first+o >= float64(len(data)) || n < 0 || n >= 1<<31 {
			continue
		}
		body := data[int(first+o):]
		f.objects[int(n)] = body
		if bytes.Contains(body[:min(len(body), 4096)], []byte("/Catalog")) {
			v, _ := parse(body)
			if d, ok := v.(dict); ok {
				f.note(d) //nolint:errcheck // it fails for streams only
			}
		}
	}
	return nil
}

// get returns the object that v refers to, or v itself.
func (f *file) get(v any) any {
	for range 8 { // references to references are rare, and may go in circles
		r, ok := v.(ref)
		if !ok {
			return v
		}
		b, ok := f.objects[r.num]
		if !ok {
			return nil
		}
		v, _ = parse(b)
	}
	return nil
}

// number returns the number that v is or refers to, or def.
func (f *file) number(v any, def float64) float64 {
	if x, ok := f.get(v).(float64); ok {
		return x
	}
	return def
}

// unpack returns the data of a stream, or what of it is intact. It is nil if the
// stream is an image or packed in a way that is not known.
func (f *file) unpack(s *stream) []byte {
	filters, ok := f.get(s.dict["Filter"]).(array)
	if !ok {
		if n := f.get(s.dict["Filter"]); n != nil {
			filters = array{n}
		}
	}
	data := s.data
	for _, filter := range filters {
		n, _ := f.get(filter).(name)
		var r io.Reader
		switch n {
		case "FlateDecode", "Fl":
			z, err := zlib.NewReader(bytes.NewReader(data))
			if err != nil {
				return nil
			}
			r = z
		case "LZWDecode", "LZW":
			r = newLZW(data)
		case "ASCII85Decode", "A85":
			r = ascii85.NewDecoder(bytes.NewReader(clean85(data)))
		case "ASCIIHexDecode", "AHx":
			l := lexer{b: data}
			r = bytes.NewReader([]byte(l.hex()))
		case "RunLengthDecode", "RL":
			r = bytes.NewReader(runs(data, min(f.left, maxStream)))
		case "Crypt":
			continue
		default:
			return nil
		}
		// Half a stream is better than none: the gate of the caller sees what is
		// missing, if it matters.
		limit := min(f.left, maxStream)
		data, _ = io.ReadAll(io.LimitReader(r, int64(limit)+1))
		if f.left -= len(data); len(data) > limit {
			f.left = -1
		}
		if f.left < 0 || f.ctx.Err() != nil {
			return nil
		}
	}
	return data
}

// clean85 cuts data down to what encoding/ascii85 takes.
func clean85(data []byte) []byte {
	data = bytes.TrimPrefix(bytes.TrimSpace(data), []byte("<~"))
	if i := bytes.IndexByte(data, '~'); i >= 0 {
		data = data[:i]
	}
	return bytes.Map(func(r rune) rune {
		if r >= '!' && r <= 'u' || r == 'z' {
			return r
		}
		return -1
	}, data)
}

// runs undoes run-length encoding, up to a limit and a little more.
func runs(data []byte, limit int) []byte {
	var out []byte
	for i := 0; i < len(data) && data[i] != 128 && len(out) <= limit; {
		n := int(data[i])
		i++
		if n < 128 {
			end := min(len(data), i+n+1)
			out = append(out, data[i:end]...)
			i = end
		} else if i < len(data) {
			out = append(out, bytes.Repeat(data[i:i+1], 257-n)...)
			i++
		}
	}
	return out
}
