package prompt

import (
	"unicode"
	"unicode/utf8"
)

// Tokens returns about how many tokens text is. It needs no vocabulary: it cuts the
// text where tokenizers in use do (before a word, between a small letter and a
// capital, after three digits), and charges each piece what pieces of its script and
// length cost on average.
//
// The averages were taken from o200k. Against it the sum is off by, in percent, on
// texts of 30 to 150 KB each: English contracts +4 and handbook +3, German -1 and +4,
// Russian +2 and +4, Chinese +1 and +4, Go +3 and +6, JSON on a line +6 and indented
// -7, tables of numbers 0; and on what it was not fitted to, French +6, Portuguese
// +3, Japanese -1, Korean -7, Markdown -4. A page is off by up to 12. xAI publishes
// no vocabulary, and others' differ from o200k as well: the count is for estimates,
// and what was paid for is in the results.
func Tokens(text string) int {
	var t tally
	for len(text) > 0 {
		text = text[t.piece(text):]
	}
	return int(t.sum + t.slope()*float64(t.long) + 0.5)
}

// A tally is what the pieces of a text have come to.
type tally struct {
	sum float64 // tokens, but for what long words in Latin letters cost

	words, accented int // in Latin letters
	long            int // letters that those have beyond the first five
}

// slope is what a letter costs that makes a word longer. Vocabularies hold long
// English words whole, and cut those of other languages, which accents tell.
func (t *tally) slope() float64 {
	if t.accented*50 > t.words {
		return 0.16
	}
	return 0.075
}

// piece adds the first piece of text and returns its size in bytes.
func (t *tally) piece(text string) (size int) {
	r, n := utf8.DecodeRuneInString(text)
	cost := 1.0
	switch {
	case unicode.IsLetter(r):
		return t.word(text)
	case unicode.IsDigit(r):
		size = span(text, 3, unicode.IsDigit)
	case unicode.IsSpace(r):
		cost, size = space(text)
	case r >= utf8.RuneSelf: // such as a Chinese full stop, or a dash
		size = n
	default:
		cost, size = punctuation(text)
	}
	t.sum += cost
	return size
}

// punctuation returns the cost of the ASCII that is neither letter nor digit.
func punctuation(text string) (cost float64, size int) {
	size = span(text, len(text), isPunctuation)
	if next, _ := utf8.DecodeRuneInString(text[size:]); size == 1 && unicode.IsLetter(next) && next < utf8.RuneSelf {
		return 0.5, size // .Name is one token, and .Frobnicate begins with one
	}
	return 1 + 0.3*float64(max(0, size-2)), size + lineEnd(text[size:])
}

// space returns the cost of white space. One blank belongs to the word behind it.
func space(text string) (cost float64, size int) {
	size = span(text, len(text), unicode.IsSpace)
	next, _ := utf8.DecodeRuneInString(text[size:])
	switch {
	case text[:size] == " " && !unicode.IsDigit(next) && size < len(text):
		return 0, size
	case size > 1 && text[size-1] == ' ' && text[size-2] == '\n':
		return 1, size // the line's end, and a blank that belongs to the word
	case size > 1 && text[0] == '\n' && text[size-1] != '\n':
		return 2, size // the line's end, and the indentation
	}
	return 1, size
}

// lineEnd returns 1 if text begins with the end of a line and no indentation: it
// belongs to the punctuation before it.
func lineEnd(text string) int {
	if len(text) > 0 && text[0] == '\n' {
		return 1
	}
	return 0
}

// word adds the letters that text begins with, up to where a word begins in the middle
// of a name, and returns their size in bytes.
func (t *tally) word(text string) (size int) {
	first, n := utf8.DecodeRuneInString(text)
	size = n
	letters, capitals, strange := 1, 0, 0
	if unicode.IsUpper(first) {
		capitals = 1
	}
	for size < len(text) {
		r, n := utf8.DecodeRuneInString(text[size:])
		if !unicode.IsLetter(r) && !unicode.IsMark(r) || script(r) != script(first) {
			break
		}
		upper := unicode.IsUpper(r)
		if upper && capitals < letters {
			break
		}
		if upper {
			capitals++
		}
		if r >= utf8.RuneSelf {
			strange++
		}
		letters++
		size += n
	}
	kind := script(first)
	if kind != latin {
		t.sum += costOf(kind, float64(letters))
		return size
	}
	t.words++
	t.sum++
	if strange > 0 {
		t.accented++
		t.sum += 0.1
	}
	if capitals == letters && letters > 3 {
		t.sum += 0.3 * float64(letters-3)
	} else {
		t.long += max(0, letters-5)
	}
	return size
}

// costOf is what a word in other than Latin letters costs.
func costOf(s rune, letters float64) float64 {
	switch s {
	case han:
		return max(0.9, 0.7*letters)
	case kana:
		return max(0.9, 0.65*letters)
	case hangul:
		return max(1, 0.6*letters)
	case cyrillic:
		return 1 + 0.165*max(0, letters-3)
	default:
		return 1 + 0.3*max(0, letters-2)
	}
}

// Scripts, as far as they differ in cost.
const (
	latin = iota
	cyrillic
	han
	kana
	hangul
	other
)

func script(r rune) rune {
	switch {
	case r < utf8.RuneSelf, unicode.Is(unicode.Latin, r):
		return latin
	case unicode.Is(unicode.Cyrillic, r):
		return cyrillic
	case unicode.Is(unicode.Han, r):
		return han
	case unicode.In(r, unicode.Hiragana, unicode.Katakana):
		return kana
	case unicode.Is(unicode.Hangul, r):
		return hangul
	}
	return other
}

// isPunctuation reports whether r is ASCII and neither letter nor digit nor space.
func isPunctuation(r rune) bool {
	return r < utf8.RuneSelf && !unicode.IsLetter(r) && !unicode.IsDigit(r) && !unicode.IsSpace(r)
}

// span returns how many bytes of text, at most limit runes, satisfy is.
func span(text string, limit int, is func(rune) bool) int {
	n := 0
	for i, r := range text {
		if n == limit || !is(r) {
			return i
		}
		n++
	}
	return len(text)
}
