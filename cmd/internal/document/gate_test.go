package document

import (
	"strings"
	"testing"
)

const english = "Claims for defects expire thirty-six months after delivery. The period for replaced goods begins anew. " +
	"Drawings and samples remain the property of Brindlecote. The supplier keeps them secret and returns them when the order is complete. "

// shift is what a viewer of a font without a table takes for text: codes of glyphs
// as characters. In most fonts, they are 29 apart.
func shift(s string) string {
	return strings.Map(func(c rune) rune {
		if c > ' ' && c < 127 {
			return c - 29
		}
		return c
	}, s)
}

// The gate keeps noise out and lets documents of all kinds through.
func TestJudge(t *testing.T) {
	german := strings.Repeat("Rechtsschutzversicherungsgesellschaften haften nach Rindfleischetikettierungsgesetz. ", 6)
	for _, c := range []struct {
		name   string
		pages  []string
		images int
		reason string // or empty
		warn   string
	}{
		{name: "English", pages: []string{english + english}},
		{name: "Polish", pages: []string{strings.Repeat("Zażółć gęślą jaźń, chrząszcz brzmi w trzcinie. Źdźbło trawy. ", 8)}},
		{name: "German", pages: []string{german}},
		{name: "Vietnamese", pages: []string{strings.Repeat("Các bên thỏa thuận ký kết hợp đồng này với những điều khoản sau đây. ", 6)}},
		{name: "Greek", pages: []string{strings.Repeat("Οι αξιώσεις παραγράφονται μετά από τριάντα έξι μήνες. ", 8)}},
		{name: "Chinese", pages: []string{strings.Repeat("本合同自双方签字盖章之日起生效，有效期为三年，任何一方不得擅自变更或者解除", 8)}},
		{name: "Thai", pages: []string{strings.Repeat("สัญญาฉบับนี้มีผลบังคับใช้นับแต่วันที่ทั้งสองฝ่ายได้ลงนาม", 8)}},
		{name: "Korean", pages: []string{strings.Repeat("한국토지주택공사경기지역본부장은 계약을 체결한다. ", 20)}},
		{name: "sums", pages: []string{strings.Repeat("$ 1,234.56 | (12.3 %) | -4,567.89 | ", 20)}},
		{name: "leaders", pages: []string{strings.Repeat("Scope . . . . . . . . . . . . . . . . . . . . 1\nName: ______________________\n", 10)}},
		{name: "short", pages: []string{"Terminated."}},
		{name: "bullets", pages: []string{strings.Repeat("\uf0b7 "+english, 5)}, warn: "5 of"},
		{name: "empty page", pages: []string{english, "", english}},
		{name: "scanned page", pages: []string{english, "", english}, images: 1, warn: "hardly any text on 1 page (page 2 is the first); scanned?"},

		{name: "scan", pages: []string{"", "", ""}, images: 3, reason: "no text in it: 3 pages of images; scanned? run OCR first"},
		{name: "shapes", pages: []string{""}, reason: "no text in it: 1 page; if they show some, it is drawn as shapes"},
		{name: "stamped scan", pages: []string{"MSA-000123 Page 1 of 3", "MSA-000124 Page 2 of 3", "MSA-000125 Page 3 of 3"}, images: 3, reason: "images and hardly any text on 3 of 3 pages"},
		{name: "cover", pages: []string{english, "p. 2", "p. 3"}, images: 2, reason: "images and hardly any text on 2 of 3 pages"},
		{name: "replaced", pages: []string{english + strings.Repeat("\ufffd", 20)}, reason: "garbled: 20 of 216 characters are not text"},
		{name: "controls", pages: []string{english + strings.Repeat("\x01\x02", 10)}, reason: "garbled: 20 of"},
		{name: "private", pages: []string{english + strings.Repeat("\ue001\ue002", 10)}, reason: "garbled: 20 of"},
		{name: "codes", pages: []string{english + strings.Repeat("(cid:23)(cid:5) ", 10)}, reason: "garbled: 20 of"},
		{name: "shifted", pages: []string{shift(english + english)}, reason: "garbled: "},
		{name: "letters of nothing", pages: []string{strings.Repeat("Wkh vxssolhu nhhsv wkhp vhfuhw. ", 10)}, reason: "letters are vowels, which is of no language"},
		{name: "run together", pages: []string{strings.ReplaceAll(english+english, " ", "")}, reason: "words run together"},
		{name: "one page of noise", pages: []string{english, english, strings.Repeat("\ufffdx", 150), english, english, strings.Repeat(english, 40)}, reason: "garbled: page 3 of 6 is not text; run OCR"},
	} {
		warnings, err := judge(c.pages, c.images)
		got := ""
		if err != nil {
			got = err.Error()
		}
		if (got == "") != (c.reason == "") || !strings.Contains(got, c.reason) {
			t.Errorf("%s: %q, want %q", c.name, got, c.reason)
		}
		if w := strings.Join(warnings, "; "); (w == "") != (c.warn == "") || !strings.Contains(w, c.warn) {
			t.Errorf("%s: warnings %q, want %q", c.name, w, c.warn)
		}
	}
}
