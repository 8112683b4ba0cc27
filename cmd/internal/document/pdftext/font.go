package pdftext

import (
	"strings"
	"unicode/utf16"

	"golang.org/x/text/encoding/charmap"
)

// unknown is shown for a code whose character is not known.
const unknown = "\ufffd"

// maxMapped bounds the entries of the tables of a font, also of those that are
// written again. A font has at most 65,536 codes.
const maxMapped = 1 << 17

// A font says what the codes of a string show and how wide they are.
type font struct {
	wide    bool // codes have two bytes
	unicode bool // and are UTF-16
	mapped  map[int]string
	simple  [256]string // of one byte, for those that are not mapped
	widths  map[int]float64
	width   float64 // of all other codes, in thousandths of the size
}

// font returns the font of a name in resources.
func (f *file) font(v any) *font {
	r, shared := v.(ref)
	if known, ok := f.fonts[r.num]; shared && ok {
		return known
	}
	d, _ := f.get(v).(dict)
	ft := &font{widths: make(map[int]float64), width: 500}
	if s, ok := f.get(d["ToUnicode"]).(*stream); ok {
		ft.mapped = f.toUnicode(f.unpack(s))
	}
	if d["Subtype"] == name("Type0") {
		f.composite(ft, d)
	} else {
		f.encoding(ft, d)
		f.simpleWidths(ft, d)
	}
	if shared {
		f.fonts[r.num] = ft
	}
	return ft
}

// composite reads what is special about a font with codes of two bytes.
func (f *file) composite(ft *font, d dict) {
	ft.wide = true
	if n, ok := f.get(d["Encoding"]).(name); ok {
		ft.unicode = strings.Contains(string(n), "UCS2") || strings.Contains(string(n), "UTF16")
	}
	list, _ := f.get(d["DescendantFonts"]).(array)
	if len(list) == 0 {
		return
	}
	below, _ := f.get(list[0]).(dict)
	ft.width = f.number(below["DW"], 1000)
	w, _ := f.get(below["W"]).(array)
	room := maxMapped
	for i := 0; i+1 < len(w) && room > 0; {
		first := f.number(w[i], 0)
		if each, ok := f.get(w[i+1]).(array); ok { // 10 [500 600]
			for k, x := range each {
				ft.widths[int(first)+k] = f.number(x, ft.width)
			}
			room -= len(each)
			i += 2
			continue
		}
		if i+2 >= len(w) {
			break
		}
		x := f.number(w[i+2], ft.width) // 10 20 500
		for c := max(0, int(first)); c <= min(int(f.number(w[i+1], 0)), 0xffff) && room > 0; c++ {
			ft.widths[c] = x
			room--
		}
		i += 3
	}
}

func (f *file) simpleWidths(ft *font, d dict) {
	scale := 1.0
	if m, ok := f.get(d["FontMatrix"]).(array); ok && len(m) == 6 { // of fonts made of drawings
		scale = f.number(m[0], 0.001) * 1000
	}
	list, _ := f.get(d["Widths"]).(array)
	first := int(f.number(d["FirstChar"], 0))
	for i, w := range list {
		ft.widths[first+i] = f.number(w, 0) * scale
	}
	base, _ := f.get(d["BaseFont"]).(name)
	if strings.Contains(string(base), "Courier") {
		ft.width = 600
	}
}

// encoding finds the characters of a font with codes of one byte.
func (f *file) encoding(ft *font, d dict) {
	var base name
	var differences array
	switch e := f.get(d["Encoding"]).(type) {
	case name:
		base = e
	case dict:
		base, _ = f.get(e["BaseEncoding"]).(name)
		differences, _ = f.get(e["Differences"]).(array)
	}
	table := charmap.Windows1252
	if base == "MacRomanEncoding" {
		table = charmap.Macintosh
	}
	for i := range ft.simple {
		ft.simple[i] = string(table.DecodeByte(byte(i)))
	}
	if base == "" || base == "StandardEncoding" {
		for i, s := range standard {
			ft.simple[i] = s
		}
	}
	code := 0
	for _, v := range differences {
		switch v := f.get(v).(type) {
		case float64:
			code = int(v)
		case name:
			if 0 <= code && code < len(ft.simple) {
				ft.simple[code] = glyphText(string(v))
			}
			code++
		}
	}
}

// toUnicode reads a table of codes and what they show.
func (f *file) toUnicode(data []byte) map[int]string {
	m := make(map[int]string)
	l := lexer{b: data}
	var args array
	for room := maxMapped; f.ctx.Err() == nil && room > 0; {
		v, ok := l.next()
		if !ok {
			break
		}
		o, ok := v.(op)
		if !ok {
			if args = append(args, v); len(args) > maxMapped {
				break
			}
			continue
		}
		switch o {
		case "endbfchar":
			for i := 0; i+1 < len(args); i += 2 {
				if to, ok := args[i+1].(string); ok {
					m[code(args[i])] = utf16Text(to, 0)
				}
				room--
			}
		case "endbfrange":
			for i := 0; i+2 < len(args); i += 3 {
				room -= mapRange(m, code(args[i]), min(code(args[i+1]), 0xffff), args[i+2])
			}
		}
		args = args[:0]
	}
	return m
}

// mapRange maps codes to the characters from v on, and returns how many.
func mapRange(m map[int]string, from, to int, v any) int {
	for c := from; c <= to; c++ {
		switch v := v.(type) {
		case string:
			m[c] = utf16Text(v, c-from)
		case array:
			if c-from < len(v) {
				if s, ok := v[c-from].(string); ok {
					m[c] = utf16Text(s, 0)
				}
			}
		}
	}
	return max(1, to-from+1)
}

// code returns the number that the bytes of a string are.
func code(v any) int {
	s, _ := v.(string)
	n := 0
	for i := range min(len(s), 4) {
		n = n<<8 | int(s[i])
	}
	return n
}

// utf16Text decodes s after adding to its last unit.
func utf16Text(s string, add int) string {
	if len(s) == 1 {
		s = "\x00" + s
	}
	units := make([]uint16, 0, len(s)/2)
	for i := 0; i+1 < len(s); i += 2 {
		units = append(units, uint16(s[i])<<8|uint16(s[i+1]))
	}
	if len(units) > 0 {
		units[len(units)-1] += uint16(add)
	}
	return string(utf16.Decode(units))
}

// A char is one code of a string, as it is shown.
type char struct {
	text  string
	width float64 // in parts of the font's size
	space bool    // it is the code 32 of one byte, to which word spacing is added
}

// chars returns what a string shows.
func (ft *font) chars(s string) []char {
	var out []char
	step := 1
	if ft.wide {
		step = 2
	}
	for i := 0; i+step <= len(s); i += step {
		c := code(s[i : i+step])
		w, ok := ft.widths[c]
		if !ok {
			w = ft.width
		}
		out = append(out, char{ft.text(c, s[i:i+step]), w / 1000, step == 1 && c == ' '})
	}
	return out
}

func (ft *font) text(c int, raw string) string {
	if s, ok := ft.mapped[c]; ok && s != "" {
		return s
	}
	switch {
	case ft.unicode:
		return utf16Text(raw, 0)
	case ft.wide:
		return unknown
	}
	return ft.simple[c]
}
