package document_test

import (
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"upwell/cmd/internal/document"
)

// docx returns a DOCX of parts, as "name: content".
func docx(t *testing.T, parts ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for _, p := range parts {
		name, content, _ := strings.Cut(p, ": ")
		w, err := z.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(w, content)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func body(s string) string {
	return `word/document.xml: <w:document xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main" xmlns:mc="m"><w:body>` + s + `</w:body></w:document>`
}

const rels = `word/_rels/document.xml.rels: <Relationships><Relationship Type="x/numbering" Target="numbering.xml"/><Relationship Type="x/styles" Target="/word/styles.xml"/><Relationship Type="x/endnotes" Target="endnotes.xml"/></Relationships>`

// para is a paragraph of a list, or of none.
func para(num, level int, s string) string {
	return fmt.Sprintf(`<w:p><w:pPr><w:numPr><w:ilvl w:val="%d"/><w:numId w:val="%d"/></w:numPr></w:pPr><w:r><w:t>%s</w:t></w:r></w:p>`, level, num, s)
}

// What Word shows, in the cases that no fixture has.
func TestDOCX(t *testing.T) {
	const numbering = `word/numbering.xml: <w:numbering xmlns:w="w">
		<w:abstractNum w:abstractNumId="0">
			<w:lvl w:ilvl="0"><w:start w:val="1"/><w:numFmt w:val="upperRoman"/><w:lvlText w:val="Article %1"/></w:lvl>
			<w:lvl w:ilvl="1"><w:start w:val="1"/><w:numFmt w:val="decimal"/><w:pStyle w:val="Clause"/><w:lvlText w:val="%1.%2"/><w:isLgl/></w:lvl>
			<w:lvl w:ilvl="2"><w:start w:val="3"/><w:numFmt w:val="lowerLetter"/><w:lvlText w:val="(%3)"/></w:lvl>
		</w:abstractNum>
		<w:abstractNum w:abstractNumId="1"><w:lvl w:ilvl="0"><w:numFmt w:val="bullet"/><w:lvlText w:val=""/></w:lvl></w:abstractNum>
		<w:abstractNum w:abstractNumId="2"><w:numStyleLink w:val="Outline"/></w:abstractNum>
		<w:num w:numId="1"><w:abstractNumId w:val="0"/></w:num>
		<w:num w:numId="2"><w:abstractNumId w:val="1"/></w:num>
		<w:num w:numId="3"><w:abstractNumId w:val="0"/><w:lvlOverride w:ilvl="0"><w:startOverride w:val="7"/></w:lvlOverride></w:num>
		<w:num w:numId="4"><w:abstractNumId w:val="2"/></w:num></w:numbering>`
	const styles = `word/styles.xml: <w:styles xmlns:w="w">
		<w:style w:styleId="Clause"><w:pPr><w:numPr><w:numId w:val="1"/></w:numPr></w:pPr></w:style>
		<w:style w:styleId="Sub"><w:basedOn w:val="Clause"/></w:style>
		<w:style w:styleId="Loop"><w:basedOn w:val="Loop"/></w:style>
		<w:style w:styleId="Outline"><w:pPr><w:numPr><w:numId w:val="1"/></w:numPr></w:pPr></w:style></w:styles>`
	const p, q = `<w:p><w:r><w:t>`, `</w:t></w:r></w:p>`
	for _, c := range []struct{ name, body, want string }{
		{
			"levels", para(1, 0, "a") + para(1, 1, "b") + para(1, 1, "c") + para(1, 2, "d") + para(1, 2, "e") + para(1, 0, "f") + para(1, 1, "g") + para(1, 2, "h"),
			"Article I a\n1.1 b\n1.2 c\n(c) d\n(d) e\nArticle II f\n2.1 g\n(c) h\n",
		},
		{"deep first", para(1, 1, "a"), "1.1 a\n"},
		{"begins anew", para(1, 0, "a") + para(3, 0, "b") + para(3, 0, "c") + para(1, 0, "d"), "Article I a\nArticle VII b\nArticle VIII c\nArticle IX d\n"},
		{"linked", para(4, 0, "a"), "Article I a\n"},
		{"bullet", para(2, 0, "a"), "• a\n"},
		{"no list", para(0, 0, "a") + para(99, 0, "b") + para(1, 12, "c"), "a\nb\nc\n"},
		{"style", `<w:p><w:pPr><w:pStyle w:val="Clause"/></w:pPr><w:r><w:t>a</w:t></w:r></w:p><w:p><w:pPr><w:pStyle w:val="Loop"/></w:pPr><w:r><w:t>b</w:t></w:r></w:p>`, "1.1 a\nb\n"},
		{"hidden", p + `see</w:t></w:r><w:r><w:rPr><w:vanish/></w:rPr><w:t>no</w:t></w:r><w:r><w:rPr><w:vanish w:val="0"/></w:rPr><w:t>n` + q, "seen\n"},
		{"joined", `<w:p><w:pPr><w:rPr><w:del/></w:rPr></w:pPr><w:r><w:t>one </w:t></w:r></w:p>` + para(1, 0, "two"), "one two\n"},
		{"all deleted", `<w:p><w:pPr><w:numPr><w:numId w:val="1"/></w:numPr><w:rPr><w:del/></w:rPr></w:pPr><w:del><w:r><w:delText>x</w:delText></w:r></w:del></w:p>` + para(1, 1, "a"), "1.1 a\n"},
		{"moved", `<w:p><w:moveFrom><w:r><w:t>no</w:t></w:r></w:moveFrom><w:moveTo><w:r><w:t>yes</w:t></w:r></w:moveTo></w:p>`, "yes\n"},
		{"table", `<w:tbl><w:tr><w:tc>` + p + `a` + q + p + `b` + q + `</w:tc><w:tc>` + p + `c` + q + `</w:tc></w:tr><w:tr><w:trPr><w:del/></w:trPr><w:tc>` + p + `no` + q +
			`</w:tc></w:tr><w:tr><w:tc><w:tbl><w:tr><w:tc>` + p + `in` + q + `</w:tc><w:tc>` + p + `ner` + q + `</w:tc></w:tr></w:tbl></w:tc><w:tc><w:p/></w:tc></w:tr></w:tbl>`, "a b\tc\nin ner\n"},
		{"breaks", p + `a</w:t><w:tab/><w:t>b</w:t><w:br/><w:t>c</w:t><w:noBreakHyphen/><w:t>d</w:t><w:softHyphen/><w:t>e` + q, "a\tb\nc-de\n"},
		{
			"symbols", p + `yes </w:t><w:sym w:font="Wingdings" w:char="F0FE"/><w:t> no </w:t><w:sym w:font="Wingdings" w:char="00A8"/><w:t> § </w:t><w:sym w:font="Times" w:char="00A7"/><w:sym w:font="MS Gothic" w:char="2612"/><w:sym w:font="Symbol" w:char="F0B7"/><w:t>` + q,
			"yes ☒ no ◻ § §☒•\n",
		},
		{
			"symbols that are not known", p + strings.Repeat("word ", 400) + `</w:t><w:sym w:font="Wingdings 2" w:char="F0FE"/><w:sym w:font="Wingdings" w:char="F0FF"/><w:sym w:font="X" w:char="zz"/><w:sym w:font="X"/><w:t>|` + q,
			strings.Repeat("word ", 400) + "\ufffd\ufffd\ufffd\ufffd|\n",
		},
		{"fields", `<w:p><w:r><w:fldChar/><w:instrText>PAGE</w:instrText></w:r><w:fldSimple w:instr="X"><w:r><w:t>7</w:t></w:r></w:fldSimple><w:hyperlink><w:r><w:t> link</w:t></w:r></w:hyperlink><w:sdt><w:sdtPr><w:t>no</w:t></w:sdtPr><w:sdtContent><w:r><w:t> box</w:t></w:r></w:sdtContent></w:sdt></w:p>`, "7 link box\n"},
		{"alternatives", `<w:p><w:r><mc:AlternateContent><mc:Choice><w:t>new</w:t></mc:Choice><mc:Choice><w:t>other</w:t></mc:Choice><mc:Fallback><w:t>old</w:t></mc:Fallback></mc:AlternateContent></w:r></w:p>`, "new\n"},
		{"only a fallback", `<w:p><w:r><mc:AlternateContent><mc:Fallback><w:t>old</w:t></mc:Fallback></mc:AlternateContent></w:r></w:p>`, "old\n"},
		{"endnote", `<w:p><w:r><w:t>a</w:t><w:endnoteReference w:id="5"/></w:r></w:p>`, "a[1]\n\n[1] the end\n"},
	} {
		doc, err := new(document.Reader).Read(t.Context(), "a.docx", docx(t, body(c.body), rels, numbering, styles,
			`word/endnotes.xml: <w:endnotes xmlns:w="w"><w:endnote w:id="4">`+p+`no`+q+`</w:endnote><w:endnote w:id="5">`+p+`the end`+q+`</w:endnote></w:endnotes>`))
		if err != nil || doc.Text != c.want {
			t.Errorf("%s: %q, %v, want %q", c.name, doc.Text, err, c.want)
		}
	}
}

// The main part is where the package says, which Office 365 uses.
func TestDOCXMainPart(t *testing.T) {
	main := strings.Replace(body(`<w:p><w:r><w:t>here</w:t></w:r></w:p>`), "document.xml", "document2.xml", 1)
	data := docx(t, main, `_rels/.rels: <Relationships><Relationship Type="http://x/officeDocument" Target="/word/document2.xml"/></Relationships>`)
	doc, err := new(document.Reader).Read(t.Context(), "a.docx", data)
	if err != nil || doc.Text != "here\n" {
		t.Errorf("Read = %q, %v", doc.Text, err)
	}
}

type zeros byte

func (z zeros) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(z)
	}
	return len(p), nil
}

func TestDOCXHostile(t *testing.T) {
	var bomb bytes.Buffer
	z := zip.NewWriter(&bomb)
	w, err := z.Create("word/document.xml")
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(w, "<document><p><t>")
	if _, err := io.CopyN(w, zeros('x'), 100<<20); err != nil {
		t.Fatal(err)
	}
	z.Close()
	for _, c := range []struct {
		name string
		data []byte
		want string
	}{
		{"bomb", bomb.Bytes(), "a text in it is longer than 2 MiB"},
		{"deep", docx(t, body(strings.Repeat("<w:p>", 100_000))), "nested more than 1000 deep"},
		{"unclosed", docx(t, body("<w:p>")), "damaged DOCX"},
		{"entities", docx(t, `word/document.xml: <!DOCTYPE x [<!ENTITY a "aaaa">]><document><p><t>&a;</t></p></document>`), "damaged DOCX"},
		{"numbering", docx(t, body(""), rels, `word/numbering.xml: <w:numbering xmlns:w="w"><`), "damaged DOCX"},
		{"not XML", docx(t, "word/document.xml: %PDF-1.4"), "no text in it"},
	} {
		_, err := new(document.Reader).Read(t.Context(), "a.docx", c.data)
		u, ok := errors.AsType[*document.UnreadableError](err)
		if !ok || !strings.Contains(u.Reason, c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

// A drain does not wait for a large document.
func TestDOCXCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := new(document.Reader).Read(ctx, "contract.docx", fixture(t, "contract.docx"))
	if _, ok := errors.AsType[*document.UnreadableError](err); ok || !errors.Is(err, context.Canceled) {
		t.Errorf("Read = %v, want %v", err, context.Canceled)
	}
}
