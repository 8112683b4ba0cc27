package pdftext

import "strings"

const (
	// maxGlyphs is a hundred times what a page of small print has.
	maxGlyphs = 1 << 20

	// maxForms is how deep drawings may be nested in each other, and maxStates how
	// deep states may be saved. Real ones stay below ten and below thirty.
	maxForms  = 12
	maxStates = 256

	// wideSet is what may be added to every character, in parts of the size, and
	// wideWord how many characters there are, where a word is set wide. That leaves
	// no gap, or the word would come apart. Some programs add more, to get to the
	// next cell of a table, and Ghostscript adds a space between two characters in
	// this way; less than kerned is no space.
	wideSet  = 0.5
	wideWord = 4
	kerned   = 0.15
)

// A matrix is [a b 0; c d 0; e f 1].
type matrix [6]float64

var identity = matrix{1, 0, 0, 1, 0, 0}

func (m matrix) mul(n matrix) matrix {
	return matrix{
		m[0]*n[0] + m[1]*n[2], m[0]*n[1] + m[1]*n[3],
		m[2]*n[0] + m[3]*n[2], m[2]*n[1] + m[3]*n[3],
		m[4]*n[0] + m[5]*n[2] + n[4], m[4]*n[1] + m[5]*n[3] + n[5],
	}
}

// A state is what the instructions of a page change as they go along.
type state struct {
	ctm                         matrix
	tm, line                    matrix
	font                        *font
	size, chars, words, leading float64
	scale, rise                 float64
}

func (s *state) reset() { *s = state{ctm: identity, tm: identity, line: identity, scale: 1} }

// An interpreter runs the instructions of a page and keeps what they show.
type interpreter struct {
	file   *file
	fonts  map[name]*font // of the resources that are in use
	state  state
	saved  []state
	glyphs []glyph
	space  bool // what was shown last was a space
	steps  int
}

// run runs instructions with the resources that they name.
func (in *interpreter) run(data []byte, resources dict, depth int) error {
	fonts := in.fonts
	in.fonts = make(map[name]*font)
	defer func() { in.fonts = fonts }()
	saved := len(in.saved)
	l := lexer{b: data}
	var args array
	for len(in.glyphs) < maxGlyphs {
		if in.steps++; in.steps%1024 == 0 && in.file.ctx.Err() != nil {
			return in.file.ctx.Err()
		}
		v, ok := l.next()
		if !ok {
			break
		}
		o, ok := v.(op)
		if !ok {
			if len(args) < 64 { // no instruction takes more than six
				args = append(args, v)
			}
			continue
		}
		switch o {
		case "BI":
			skipImage(&l)
		case "Do":
			if err := in.form(args, resources, depth); err != nil {
				return err
			}
		case "Tf":
			in.setFont(args, resources)
		case "q":
			if len(in.saved) < maxStates {
				in.saved = append(in.saved, in.state)
			}
		case "Q":
			if n := len(in.saved); n > saved {
				in.state = in.saved[n-1]
				in.saved = in.saved[:n-1]
			}
		default:
			in.text(o, args)
		}
		args = args[:0]
	}
	in.saved = in.saved[:saved]
	return nil
}

// skipImage skips an image among the instructions: BI, a dictionary, ID, bytes, EI.
func skipImage(l *lexer) {
	for {
		v, ok := l.next()
		if !ok {
			return
		}
		if v == op("ID") {
			break
		}
	}
	for ; l.i+2 < len(l.b); l.i++ {
		if blank(l.b[l.i]) && l.b[l.i+1] == 'E' && l.b[l.i+2] == 'I' && (l.i+3 == len(l.b) || blank(l.b[l.i+3])) {
			l.i += 3
			return
		}
	}
	l.i = len(l.b)
}

func (in *interpreter) setFont(args array, resources dict) {
	if len(args) != 2 {
		return
	}
	n, _ := args[0].(name)
	in.state.size, _ = args[1].(float64)
	ft, ok := in.fonts[n]
	if !ok {
		list, _ := in.file.get(resources["Font"]).(dict)
		ft = in.file.font(list[n])
		in.fonts[n] = ft
	}
	in.state.font = ft
}

// form runs a drawing that is kept apart, as if it stood here.
func (in *interpreter) form(args array, resources dict, depth int) error {
	if len(args) != 1 || depth >= maxForms {
		return nil
	}
	n, _ := args[0].(name)
	list, _ := in.file.get(resources["XObject"]).(dict)
	s, ok := in.file.get(list[n]).(*stream)
	if !ok || in.file.get(s.dict["Subtype"]) != name("Form") {
		return nil
	}
	return in.draw(s, resources, depth)
}

func (in *interpreter) draw(s *stream, resources dict, depth int) error {
	before := in.state
	defer func() { in.state = before }()
	if m, ok := numbers(in.file, s.dict["Matrix"]); ok {
		in.state.ctm = m.mul(in.state.ctm)
	}
	if own, ok := in.file.get(s.dict["Resources"]).(dict); ok {
		resources = own
	}
	return in.run(in.file.unpack(s), resources, depth+1)
}

// numbers returns the six numbers of a matrix.
func numbers(f *file, v any) (m matrix, ok bool) {
	list, _ := f.get(v).(array)
	if len(list) != len(m) {
		return m, false
	}
	for i := range m {
		m[i] = f.number(list[i], 0)
	}
	return m, true
}

// annotations shows what is filled in into the fields of a form.
func (in *interpreter) annotations(page dict) error {
	list, _ := in.file.get(page["Annots"]).(array)
	for _, v := range list {
		a, _ := in.file.get(v).(dict)
		const hidden = 2
		if int(in.file.number(a["F"], 0))&hidden != 0 || in.file.get(a["Subtype"]) != name("Widget") {
			continue
		}
		look, _ := in.file.get(a["AP"]).(dict)
		s, ok := in.file.get(look["N"]).(*stream)
		if !ok {
			continue // a button, whose looks are drawn
		}
		in.state.reset()
		rect, _ := in.file.get(a["Rect"]).(array)
		if len(rect) == 4 {
			in.state.ctm[4], in.state.ctm[5] = in.file.number(rect[0], 0), in.file.number(rect[1], 0)
		}
		if err := in.draw(s, nil, 0); err != nil {
			return err
		}
	}
	return nil
}

// text runs an instruction about text.
func (in *interpreter) text(o op, args array) {
	s := &in.state
	var x [6]float64
	for i, v := range args[:min(len(args), len(x))] {
		x[i], _ = v.(float64)
	}
	switch o {
	case "cm":
		s.ctm = matrix(x).mul(s.ctm)
	case "BT":
		s.tm, s.line = identity, identity
	case "Tm":
		s.tm, s.line = matrix(x), matrix(x)
	case "Td":
		s.move(x[0], x[1])
	case "TD":
		s.leading = -x[1]
		s.move(x[0], x[1])
	case "T*":
		s.move(0, -s.leading)
	case "Tc":
		s.chars = x[0]
	case "Tw":
		s.words = x[0]
	case "Tz":
		s.scale = x[0] / 100
	case "TL":
		s.leading = x[0]
	case "Ts":
		s.rise = x[0]
	case "Tj":
		in.show(args)
	case "TJ":
		if len(args) == 1 {
			list, _ := args[0].(array)
			in.show(list)
		}
	case "'":
		s.move(0, -s.leading)
		in.show(args)
	case "\"":
		s.words, s.chars = x[0], x[1]
		s.move(0, -s.leading)
		in.show(args[min(len(args), 2):])
	}
}

func (s *state) move(x, y float64) {
	s.line = matrix{1, 0, 0, 1, x, y}.mul(s.line)
	s.tm = s.line
}

// show keeps the glyphs of strings. A number among them moves what follows.
func (in *interpreter) show(list array) {
	s := &in.state
	for _, v := range list {
		switch v := v.(type) {
		case float64:
			s.tm = matrix{1, 0, 0, 1, -v / 1000 * s.size * s.scale, 0}.mul(s.tm)
		case string:
			if s.font == nil {
				s.font = in.file.font(nil)
			}
			chars := s.font.chars(v)
			wide := 0.0
			if extra := s.chars / s.size; extra < kerned || extra < wideSet && len(chars) >= wideWord {
				wide = max(0, extra)
			}
			for _, c := range chars {
				if len(in.glyphs) >= maxGlyphs {
					return
				}
				advance := (c.width*s.size + s.chars) * s.scale
				if c.space {
					advance += s.words * s.scale
				}
				in.add(c, wide)
				s.tm = matrix{1, 0, 0, 1, advance, 0}.mul(s.tm)
			}
		}
	}
}

// add keeps a character. A space is kept as a mark of what is shown after it: what
// it would cover on the page may be another cell. Wide is what is added to its
// width, in parts of the size.
func (in *interpreter) add(c char, wide float64) {
	if strings.TrimSpace(c.text) == "" {
		in.space = true
		return
	}
	s := &in.state
	at := matrix{s.size * s.scale, 0, 0, s.size, 0, s.rise}.mul(s.tm).mul(s.ctm)
	g := newGlyph(c.text, at, c.width+wide)
	g.space, in.space = in.space, false
	in.glyphs = append(in.glyphs, g)
}
