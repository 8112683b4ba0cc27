package document

import (
	"bytes"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/encoding/charmap"
	xunicode "golang.org/x/text/encoding/unicode"
)

// readText decodes a plain text. A file that is neither UTF-8 nor marked as UTF-16
// is taken for Windows-1252, which old Windows programs write.
func readText(data []byte) (Document, error) {
	if len(data) > maxText {
		return Document{}, unreadablef("%d MiB of text; no model takes that much, split it", len(data)>>20)
	}
	var doc Document
	switch {
	case bytes.HasPrefix(data, []byte{0xff, 0xfe}), bytes.HasPrefix(data, []byte{0xfe, 0xff}):
		s, err := xunicode.UTF16(xunicode.LittleEndian, xunicode.ExpectBOM).NewDecoder().Bytes(data)
		if err != nil {
			return Document{}, unreadablef("not UTF-16 as its byte order mark says: %v", err)
		}
		doc.Text = string(s)
	case bytes.IndexByte(data, 0) >= 0:
		return Document{}, unreadablef("not a text: it has NUL bytes and is %s; if it is UTF-16 without a byte order mark, save it as UTF-8", kind(data))
	case utf8.Valid(data):
		doc.Text = string(bytes.TrimPrefix(data, []byte("\ufeff")))
	default:
		s, err := charmap.Windows1252.NewDecoder().Bytes(data)
		if err != nil {
			return Document{}, unreadablef("not UTF-8, and not Windows-1252 either: %v", err)
		}
		doc.Text = string(s)
		doc.Warnings = []string{"not UTF-8: read as Windows-1252"}
	}
	doc.Text = strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(doc.Text)
	return doc, nil
}

// checkText refuses what is not a text although it could be decoded as one.
func checkText(s string) error {
	if len(s) > maxText {
		return unreadablef("%d MiB of text; no model takes that much, split it", len(s)>>20)
	}
	m := measure(s)
	switch {
	case m.letters == 0 && m.shown == 0:
		return unreadable("no text in it")
	case m.noise*noiseShare > m.shown:
		return unreadablef("not a text: %d of %d characters are control or replacement characters; check its encoding", m.noise, m.shown)
	}
	return nil
}

// tidy ends lines with \n and without spaces, replaces what only looks like a
// space, and leaves no more than one empty line together. It drops the controls
// that separate pages.
func tidy(s string) string {
	s = strings.NewReplacer("\r\n", "\n", "\r", "\n", "\f", "\n\n", "\u00a0", " ", "\u00ad", "").Replace(s)
	var b strings.Builder
	b.Grow(len(s))
	blank := 1
	for line := range strings.Lines(s) {
		line = strings.TrimRightFunc(line, unicode.IsSpace)
		if line == "" {
			blank++
			continue
		}
		if blank > 0 && b.Len() > 0 {
			b.WriteByte('\n')
		}
		blank = 0
		b.WriteString(line)
		b.WriteByte('\n')
	}
	return b.String()
}
