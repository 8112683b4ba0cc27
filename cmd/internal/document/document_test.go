package document_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"image"
	"image/png"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"upwell/cmd/internal/document"
)

var update = flag.Bool("update", false, "write testdata/golden anew")

func fixture(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// golden compares got with a file of testdata/golden.
func golden(t *testing.T, name, got string, same func(a, b string) string) {
	t.Helper()
	file := filepath.Join("testdata", "golden", name+".txt")
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := same(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", name, diff)
	}
}

func exactly(a, b string) string  { return cmp.Diff(a, b) }
func theWords(a, b string) string { return cmp.Diff(strings.Fields(a), strings.Fields(b)) }

var texts = []string{"contract.docx", "pandoc.docx", "contract.html", "pandoc.html", "windows-1252.txt", "utf-16.txt"}

var pdfs = []string{"contract.pdf", "browser.pdf", "two-column.pdf", "ghostscript.pdf"}

// What is read of files that real programs wrote: their words, in their order,
// with the structure that matters to a lawyer.
func TestGolden(t *testing.T) {
	r := &document.Reader{PDFToText: document.Builtin}
	for _, name := range append(texts, pdfs...) {
		doc, err := r.Read(t.Context(), name, fixture(t, name))
		if err != nil {
			t.Error(err)
			continue
		}
		if typ, _ := document.Type(name); doc.Type != typ || doc.Image != nil {
			t.Errorf("%s: type %s, image %v", name, doc.Type, doc.Image)
		}
		golden(t, name, doc.Text, exactly)
	}
}

func pdftotext(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("pdftotext"); err != nil {
		t.Skip("pdftotext is not installed")
	}
}

func TestGoldenPDFToText(t *testing.T) {
	pdftotext(t)
	for _, name := range append(pdfs, "restricted.pdf") {
		doc, err := new(document.Reader).Read(t.Context(), name, fixture(t, name))
		if err != nil {
			t.Error(err)
			continue
		}
		golden(t, name+".pdftotext", doc.Text, theWords)
	}
}

// The two readers of PDFs are interchangeable: the same words, but for one in a
// hundred, whoever wrote the
// file.
func TestReadersAgree(t *testing.T) {
	pdftotext(t)
	for _, name := range pdfs {
		data := fixture(t, name)
		a, err := new(document.Reader).Read(t.Context(), name, data)
		if err != nil {
			t.Fatal(err)
		}
		b, err := (&document.Reader{PDFToText: document.Builtin}).Read(t.Context(), name, data)
		if err != nil {
			t.Fatal(err)
		}
		wa, wb := words(a.Text), words(b.Text)
		total, found := 0, 0
		for w, n := range wa {
			total += n
			found += min(n, wb[w])
		}
		t.Logf("%s: pdftotext %d words, of which the built-in reader has %d", name, total, found)
		if a.Pages != b.Pages || a.Pages == 0 {
			t.Errorf("%s: pages %d and %d", name, a.Pages, b.Pages)
		}
		if total < 100 || found*100 < total*99 {
			t.Errorf("%s: %d of %d words", name, found, total)
		}
	}
}

func words(s string) map[string]int {
	m := make(map[string]int)
	for w := range strings.FieldsFuncSeq(s, func(c rune) bool { return strings.ContainsRune(" \n\t.,()[]“”’", c) }) {
		m[w]++
	}
	return m
}

// A tracked deletion is not part of the contract, an insertion is; Word's second
// form of a text box is not a second one; clause numbers are not in the text of the
// file and have to be counted.
func TestWordDetails(t *testing.T) {
	doc, err := new(document.Reader).Read(t.Context(), "contract.docx", fixture(t, "contract.docx"))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{"thirty (30)", "waives"} {
		if strings.Contains(doc.Text, s) {
			t.Errorf("deleted text %q is there", s)
		}
	}
	for s, n := range map[string]int{
		"within forty-five (45) days of the invoice.": 1,
		"this offer ends on 30 June 2025":             1,
		"\n2.1 Brindlecote pays":                      1,
		"\n(b) damage":                                1,
		"Objective Ø 40 mm\t1–99\t€ 412.50\n":         1,
		"(“Tavenor”).[1]\n":                           1,

		"\n[1] Registered at the Landesgericht für Zivilrechtssachen Graz.\n": 1,
	} {
		if got := strings.Count(doc.Text, s); got != n {
			t.Errorf("%q is there %d times, want %d", s, got, n)
		}
	}
}

// A document that is of no use is refused by name and with what to do, by both
// readers. None is ever sent as noise.
func TestUnreadable(t *testing.T) {
	zip := "PK\x05\x06" + strings.Repeat("\x00", 18)
	for _, c := range []struct {
		name string
		data []byte
		want string // of the built-in reader
		also string // of pdftotext, if that says something else
	}{
		{name: "scanned.pdf", want: "no text in it: 2 pages of images; scanned? run OCR first"},
		{name: "encrypted.pdf", want: "encrypted; pdftotext reads it if", also: "encrypted with a password; remove it first"},
		{name: "garbled.pdf", want: "garbled: "},
		{name: "garbled-wide.pdf", want: "garbled: "},
		{name: "empty.pdf", data: []byte{}, want: "the file is empty"},
		{name: "text.pdf", data: []byte("hello"), want: "not a PDF but something else"},
		{name: "image.pdf", data: fixture(t, "page.png"), want: "not a PDF but a PNG image"},
		{name: "cut.pdf", data: fixture(t, "contract.pdf")[:500], want: "damaged PDF", also: "damaged PDF"},
		{name: "a.docx", data: []byte("hello"), want: "not a DOCX but something else"},
		{name: "old.docx", data: []byte("\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"), want: "an Office document of the old format, or one with a password; save it as .docx"},
		{name: "cut.docx", data: fixture(t, "contract.docx")[:3000], want: "damaged DOCX"},
		{name: "other.docx", data: []byte(zip), want: "a zip archive without a Word document"},
		{name: "blank.txt", data: []byte(" \n\t\n"), want: "no text in it"},
		{name: "binary.txt", data: []byte("\x7fELF\x02\x01\x00\x00"), want: "not a text: it has NUL bytes"},
		{name: "controls.md", data: []byte("ab\x01\x02\x03\x04cd"), want: "4 of 8 characters are control or replacement characters"},
		{name: "blank.html", data: []byte("<html><script>alert(1)</script><p> </p>"), want: "no text in it"},
		{name: "a.png", data: fixture(t, "page.jpg"), want: "not a png image but a JPEG image"},
		{name: "a.jpg", data: []byte("GIF89a"), want: "not a jpg image but a GIF image"},
		{name: "cut.png", data: fixture(t, "page.png")[:20], want: "damaged image"},
		{name: "cut.jpeg", data: fixture(t, "page.jpg")[:30], want: "damaged image"},
		{name: "big.png", data: append(fixture(t, "page.png"), make([]byte, 20<<20)...), want: "an image of 20.0 MiB; at most 20 MiB"},
		{name: "a.xlsx", data: []byte("PK"), want: "not a type that can be read; txt, md,"},
		{name: "README", data: []byte("x"), want: "not a type that can be read"},
	} {
		if c.data == nil {
			c.data = fixture(t, c.name)
		}
		check := func(r *document.Reader, want string) {
			t.Helper()
			doc, err := r.Read(t.Context(), "in/"+c.name, c.data)
			u, ok := errors.AsType[*document.UnreadableError](err)
			if !ok || u.Name != "in/"+c.name || !strings.Contains(u.Reason, want) {
				t.Errorf("Read(%s) = %v, want %q", c.name, err, want)
			}
			if doc.Text != "" || doc.Image != nil {
				t.Errorf("Read(%s) returned something beside its error", c.name)
			}
		}
		check(&document.Reader{PDFToText: document.Builtin}, c.want)
		if _, err := exec.LookPath("pdftotext"); err == nil {
			want := c.also
			if want == "" {
				want = c.want
			}
			check(new(document.Reader), want)
		}
	}
}

func TestType(t *testing.T) {
	for name, want := range map[string]string{
		"a.txt": "txt", "b/c.MD": "md", "x.htm": "html", "x.HTML": "html", "a.b.docx": "docx", "a.PDF": "pdf", "a.png": "png", "a.jpeg": "jpg", "a.JPG": "jpg",
		"a.doc": "", "pdf": "", ".pdf": "pdf", "a.pdf/": "", "": "",
	} {
		if got, ok := document.Type(name); got != want || ok != (want != "") {
			t.Errorf("Type(%q) = %q, %v, want %q", name, got, ok, want)
		}
	}
}

func TestTexts(t *testing.T) {
	for _, c := range []struct {
		name, data, want, warning string
	}{
		{"a.txt", "\ufeffone\r\ntwo\rthree", "one\ntwo\nthree", ""},
		{"a.md", "# Straße\n", "# Straße\n", ""},
		{"a.txt", "Stra\xdfe \x80 5", "Straße € 5", "not UTF-8: read as Windows-1252"},
		{"a.txt", "\xfe\xff\x00h\x00i\xd8\x3d\xde\x00", "hi😀", ""},
		{"a.txt", "\xff\xfeh\x00\r\x00\n\x00i\x00", "h\ni", ""},
	} {
		doc, err := new(document.Reader).Read(t.Context(), c.name, []byte(c.data))
		if err != nil || doc.Text != c.want || strings.Join(doc.Warnings, "; ") != c.warning {
			t.Errorf("Read(%q) = %q, %q, %v, want %q, %q", c.data, doc.Text, doc.Warnings, err, c.want, c.warning)
		}
	}
}

// What a browser shows, and nothing of what it does not.
func TestHTML(t *testing.T) {
	for _, c := range []struct{ data, want string }{
		{"<title>no</title><style>p{}</style><p>one\n  two<p>three<script>x</script>", "one two\n\nthree\n"},
		{"a<br>b<div>c</div>d", "a\nb\nc\nd\n"},
		{"<table><tr><th>a<th>b<tr><td><p>1</p><p>2</p><td>3</table>x", "a\tb\n1 2\t3\n\nx\n"},
		{"<table><tr><td><table><tr><td>in<td>ner</table><td>out</table>", "in\tner\n\n\tout\n"},
		{"&eacute;&nbsp;&lt;b&gt; &#8364;", "é <b> €\n"},
		{"<ol><li>a<li><p>b<ul><li>c</ul></ol>d", "1. a\n2. b\n\n- c\n\nd\n"},
		{"<ol type=a start=3><li>x<li value=27>y</ol><ol type=I><li>z<li>z<li>z<li>z</ol>", "c. x\naa. y\n\nI. z\nII. z\nIII. z\nIV. z\n"},
		{"<pre>a  b\n  c</pre>", "a  b\n  c\n"},
		{"<p hidden>no</p><p style='display: none'>no</p><noscript>no</noscript>yes", "yes\n"},
		{"<meta charset=iso-8859-1><p>Stra\xdfe", "Straße\n"},
		{"\xff\xfe<\x00p\x00>\x00h\x00i\x00", "hi\n"},
		{"\xef\xbb\xbf<meta charset=windows-1251><p>ß", "ß\n"}, // the mark wins
	} {
		doc, err := new(document.Reader).Read(t.Context(), "a.html", []byte(c.data))
		if err != nil || doc.Text != c.want {
			t.Errorf("Read(%q) = %q, %v, want %q", c.data, doc.Text, err, c.want)
		}
	}
}

func TestImage(t *testing.T) {
	for name, typ := range map[string]string{"page.png": "image/png", "page.jpg": "image/jpeg"} {
		data := fixture(t, name)
		doc, err := new(document.Reader).Read(t.Context(), name, data)
		if err != nil || doc.Image == nil {
			t.Fatalf("Read(%s) = %+v, %v", name, doc, err)
		}
		if doc.Image.Type != typ || !bytes.Equal(doc.Image.Data, data) || doc.Text != "" {
			t.Errorf("%s: %s of %d bytes, text %q", name, doc.Image.Type, len(doc.Image.Data), doc.Text)
		}
	}
	var b bytes.Buffer
	if err := png.Encode(&b, image.NewGray(image.Rect(0, 0, 1, 1))); err != nil {
		t.Fatal(err)
	}
	none := bytes.Replace(b.Bytes(), []byte("IHDR\x00\x00\x00\x01"), []byte("IHDR\x00\x00\x00\x00"), 1)
	if _, err := new(document.Reader).Read(t.Context(), "a.png", none); err == nil {
		t.Error("an image without a width was taken")
	}
}

// One Reader serves all slots of a worker.
func TestConcurrent(t *testing.T) {
	r := &document.Reader{}
	var wg sync.WaitGroup
	for range 4 {
		for _, name := range append(texts, pdfs...) {
			data := fixture(t, name)
			wg.Go(func() {
				first, err := r.Read(t.Context(), name, data)
				if err != nil {
					t.Error(err)
				}
				again, err := r.Read(t.Context(), name, data)
				if err != nil || again.Text != first.Text {
					t.Errorf("%s differs from itself: %v", name, err)
				}
			})
		}
	}
	wg.Wait()
}

func TestCancelled(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("shutting down")
	cancel(why)
	for _, r := range []*document.Reader{{}, {PDFToText: document.Builtin}} {
		_, err := r.Read(ctx, "contract.pdf", fixture(t, "contract.pdf"))
		if _, ok := errors.AsType[*document.UnreadableError](err); ok || !errors.Is(err, why) {
			t.Errorf("Read = %v, want the cause", err)
		}
	}
}

func FuzzRead(f *testing.F) {
	for i, name := range []string{"contract.docx", "pandoc.docx", "contract.html", "utf-16.txt", "page.png", "page.jpg"} {
		data, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint8(i), data)
	}
	names := []string{"a.docx", "a.html", "a.txt", "a.png", "a.jpg"}
	f.Fuzz(func(t *testing.T, kind uint8, data []byte) {
		doc, err := new(document.Reader).Read(t.Context(), names[int(kind)%len(names)], data)
		if err == nil && (doc.Text == "") == (doc.Image == nil) {
			t.Errorf("neither text nor image: %+v", doc)
		}
	})
}
