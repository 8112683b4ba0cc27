package dead

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"upwell/jobs/skim"
)

// A Style says how JSON is printed.
type Style struct {
	// Longest is how many characters of a string are printed; 0 for all.
	Longest int

	// Ends keeps the end of a longer string as well: a third of what is printed.
	Ends bool

	// Redact leaves out what strings say, but for those that name something of
	// the API's: whose text it is cannot be known.
	Redact bool
}

// plain are the keys whose values are no text of anybody's.
var plain = []string{
	"custom_id", "method", "url", "model", "role", "type", "effort", "reasoning_effort", "service_tier", "tier", "tiers", "regions",
	"run", "deadline", "template_sha256", "status", "finish_reason", "object", "body_ref",
}

// Print returns a JSON value on indented lines, its keys in their order and its
// numbers as they are. Text that is not JSON is quoted.
func (s Style) Print(text []byte) string {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	p := printer{style: s, d: d}
	if !json.Valid(text) || p.value("", "\n") != nil {
		return s.str("", string(text))
	}
	return p.b.String()
}

type printer struct {
	style Style
	d     *json.Decoder
	b     strings.Builder
}

// value prints the next value, which has the key and begins on a line that newline
// leads to.
func (p *printer) value(key, newline string) error {
	t, err := p.d.Token()
	if err != nil {
		return err
	}
	switch v := t.(type) {
	case json.Delim:
		return p.group(key, v, newline)
	case string:
		p.b.WriteString(p.style.str(key, v))
	case nil:
		p.b.WriteString("null")
	default:
		fmt.Fprint(&p.b, v)
	}
	return nil
}

// group prints an object or a list, whose values have the list's key.
func (p *printer) group(key string, open json.Delim, newline string) error {
	p.b.WriteString(open.String())
	inner := newline + "  "
	n := 0
	for ; p.d.More(); n++ {
		if n > 0 {
			p.b.WriteByte(',')
		}
		p.b.WriteString(inner)
		k := key
		if open == '{' {
			t, err := p.d.Token()
			if err != nil {
				return err
			}
			k = fmt.Sprint(t)
			p.b.WriteString(quoted(k) + ": ")
		}
		if err := p.value(k, inner); err != nil {
			return err
		}
	}
	if n > 0 {
		p.b.WriteString(newline)
	}
	end, err := p.d.Token()
	if err == nil {
		fmt.Fprint(&p.b, end)
	}
	return err
}

// str prints a string that has the key.
func (s Style) str(key, value string) string {
	switch n := utf8.RuneCountInString(value); {
	case s.Redact && !slices.Contains(plain, key):
		return fmt.Sprintf("\"(%d characters)\"", n)
	case s.Longest > 0 && n > s.Longest && s.Ends:
		text, tail := []rune(value), s.Longest/3
		head := s.Longest - tail
		return fmt.Sprintf("%s … %d characters … %s", quoted(string(text[:head])), n-s.Longest, quoted(string(text[n-tail:])))
	case s.Longest > 0 && n > s.Longest:
		return quoted(string([]rune(value)[:s.Longest])) + fmt.Sprintf("… (%d characters)", n)
	}
	return quoted(value)
}

// quoted returns s as a JSON string that is safe on a terminal.
func quoted(s string) string { return Clean(skim.Quote(s)) }

// Clean returns s on one line and without what a terminal might obey.
func Clean(s string) string { return strings.Map(visible, s) }

func visible(r rune) rune {
	if !unicode.IsPrint(r) {
		return '·'
	}
	return r
}

// Redacted returns a reason without what it quotes.
func Redacted(reason string) string { return quotation.ReplaceAllString(reason, `"…"`) }

var quotation = regexp.MustCompile(`"(?:[^"\\]|\\.)*"?`)
