package document

import (
	"fmt"
	"regexp"
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"
)

// The thresholds of the gate. They were set on 184 PDFs (the test files of pypdf,
// pdfminer.six, pdfplumber and fpdf, and manuals), read by pdftotext 22.12 and by
// the built-in reader; the figures are what was seen there.
const (
	// bare is how many letters and digits a page has that is a scan with a stamp
	// on it, such as "Page 3 of 12" or a Bates number, or less.
	bare = 40

	// noiseShare: one character in so many may be noise, which is what shows no
	// character. The worst good document had one in 250, from bullets in a font of
	// symbols; bad ones have one in three.
	noiseShare = 20

	// oddShare: one character in so many may be a sign that text has few of, such
	// as # or =. The most in good documents was one in 15, in a laboratory's
	// report; a font whose codes are taken for characters gives one in four.
	oddShare = 8

	// fewLetters is how many letters a text must have before statistics mean
	// anything.
	fewLetters = 200

	// longRun is how many letters together are no word. The longest words of
	// German law have 39 (Rechtsschutzversicherungsgesellschaften).
	longRun = 40
)

// metrics are counts of the characters of a text. Blanks are not counted, and of
// equal characters in a row, as in leaders and lines to sign on, only the first
// counts, with blanks between them or without. Noise always does.
type metrics struct {
	shown   int // all of them
	letters int
	digits  int
	odd     int // signs that text has few of
	noise   int // controls, private use, replacement characters, and codes of glyphs
	run     int // letters in words of longRun or more, in scripts with spaces
	latin   int // Latin letters
	vowels  int // of these
}

// glyphs matches the code of a glyph that has no character, as pdfminer and
// programs built on it write it into the text of PDFs that they make.
var glyphs = regexp.MustCompile(`\(cid:\d+\)`)

func measure(s string) (m metrics) {
	if codes := glyphs.FindAllStringIndex(s, -1); codes != nil {
		m.noise, m.shown = len(codes), len(codes)
		s = glyphs.ReplaceAllString(s, " ")
	}
	word, last := 0, rune(0)
	for _, c := range s {
		blank := unicode.IsSpace(c)
		if c == last && !blank && !noise(c) {
			continue
		}
		if !blank {
			last = c
		}
		m.rune(c)
		switch {
		case unicode.IsLetter(c) && !unicode.In(c, unspaced...):
			word++
			continue
		case unicode.Is(unicode.M, c):
			continue
		case word >= longRun:
			m.run += word
		}
		word = 0
	}
	if word >= longRun {
		m.run += word
	}
	return m
}

// unspaced are the scripts that write words without spaces.
var unspaced = []*unicode.RangeTable{
	unicode.Han, unicode.Hiragana, unicode.Katakana, unicode.Thai, unicode.Lao, unicode.Khmer, unicode.Myanmar, unicode.Tibetan,
}

func (m *metrics) rune(c rune) {
	switch {
	case unicode.IsSpace(c), unicode.Is(unicode.M, c), unicode.Is(unicode.Cf, c):
		return
	case noise(c):
		m.noise++
	case unicode.IsDigit(c):
		m.digits++
	case strings.ContainsRune("!\"#&*+<=>?@[\\]^_`{}~;", c):
		m.odd++
	case unicode.IsLetter(c):
		m.letters++
		if unicode.Is(unicode.Latin, c) {
			m.latin++
			if vowel(c) {
				m.vowels++
			}
		}
	}
	m.shown++
}

// noise reports whether a character shows nothing, or nothing that is known.
func noise(c rune) bool {
	return c == unicode.ReplacementChar || unicode.IsControl(c) && !unicode.IsSpace(c) || unicode.Is(unicode.Co, c)
}

// vowel reports whether a Latin letter is a vowel, with whatever accents. It does
// not matter that some are counted for one that are not in every language.
func vowel(c rune) bool {
	if c > unicode.MaxASCII {
		c = []rune(norm.NFD.String(string(c)))[0]
	}
	return strings.ContainsRune("aeiouyAEIOUYæøœıÆØŒ", c)
}

// judge says why the text of a PDF is of no use, or what is missing in it.
// Images is how many images the file has.
func judge(pages []string, images int) (warnings []string, err error) {
	var empty, noisy []int
	var m metrics
	for i, p := range pages {
		one := measure(p)
		if one.letters+one.digits < bare {
			empty = append(empty, i+1)
		}
		if one.useless() {
			noisy = append(noisy, i+1)
		}
		m.add(one)
	}
	switch {
	case m.shown == 0 && images > 0:
		return nil, unreadablef("no text in it: %s of images; scanned? run OCR first", pagesOf(len(pages)))
	case m.shown == 0:
		return nil, unreadablef("no text in it: %s; if they show some, it is drawn as shapes: run OCR first", pagesOf(len(pages)))
	case len(empty)*2 > len(pages) && images >= len(empty):
		return nil, unreadablef("images and hardly any text on %d of %s; scanned? run OCR first", len(empty), pagesOf(len(pages)))
	}
	if err := m.garbled(); err != nil {
		return nil, err
	}
	if len(noisy) > 0 {
		return nil, unreadablef("garbled: page %d of %d is not text%s; run OCR, or print it to a new PDF", noisy[0], len(pages), others(len(noisy)-1))
	}
	if m.noise > 0 {
		warnings = append(warnings, fmt.Sprintf("%d of %d characters could not be read", m.noise, m.shown))
	}
	if len(empty) > 0 && images > 0 {
		warnings = append(warnings, fmt.Sprintf("hardly any text on %s (page %d is the first); scanned?", pagesOf(len(empty)), empty[0]))
	}
	return warnings, nil
}

// useless reports whether a page is noise although the rest of its document may
// not be: an exhibit from elsewhere. The bounds are wider than those of whole
// documents, because a page may be full of formulas.
func (m *metrics) useless() bool {
	return m.shown >= fewLetters && (m.noise*4 > m.shown || m.odd*oddShare/2 > m.shown || m.latin >= fewLetters && m.vowels*5 < m.latin)
}

func (m *metrics) add(n metrics) {
	m.shown += n.shown
	m.letters += n.letters
	m.digits += n.digits
	m.odd += n.odd
	m.noise += n.noise
	m.run += n.run
	m.latin += n.latin
	m.vowels += n.vowels
}

// others says that there are n more.
func others(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf(", nor are %d others", n)
}

func pagesOf(n int) string {
	if n == 1 {
		return "1 page"
	}
	return fmt.Sprintf("%d pages", n)
}

// garbled says why a text that is there is not what a reader sees.
func (m *metrics) garbled() error {
	// Of the Latin letters of good documents, 29 % and more were vowels. Letters
	// that stand for others give some 15 %.
	const remedy = "its fonts do not say which characters they show; run OCR, or print it to a new PDF"
	switch {
	case m.noise*noiseShare > m.shown:
		return unreadablef("garbled: %d of %d characters are not text; %s", m.noise, m.shown, remedy)
	case m.shown >= fewLetters/2 && m.odd*oddShare > m.shown:
		return unreadablef("garbled: %d of %d characters are signs that text has few of; %s", m.odd, m.shown, remedy)
	case m.latin >= fewLetters && m.vowels*5 < m.latin:
		return unreadablef("garbled: %d of %d letters are vowels, which is of no language; %s", m.vowels, m.latin, remedy)
	case m.letters >= fewLetters && m.run*10 > m.letters:
		return unreadablef("garbled: words run together, %d of %d letters are in words of %d and more; install pdftotext, or run OCR", m.run, m.letters, longRun)
	}
	return nil
}
