package pdftext_test

import (
	"bytes"
	"compress/lzw"
	"compress/zlib"
	"context"
	"encoding/ascii85"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"upwell/cmd/internal/document/pdftext"
)

const limit = 1 << 18

// pdf returns a file of a page with these instructions and of other objects, as
// "number: body". It has no table of its objects: the reader needs none.
func pdf(instructions string, objects ...string) []byte {
	return withContents(fmt.Sprintf("<</Length %d>>stream\n%s\nendstream", len(instructions), instructions), objects...)
}

func withContents(contents string, objects ...string) []byte {
	var b strings.Builder
	b.WriteString("%PDF-2.0\n")
	for _, o := range append([]string{
		"1: <</Type/Catalog/Pages 2 0 R>>",
		"2: <</Type/Pages/Count 1/Kids[3 0 R]/Resources<</Font<</F 4 0 R/W 5 0 R>>/XObject<</X 7 0 R>>>>>>",
		"3: <</Type/Page/Parent 2 0 R/Contents 6 0 R>>",
		"4: <</Type/Font/Subtype/Type1/BaseFont/Courier>>",
		"6: " + contents,
	}, objects...) {
		num, body, _ := strings.Cut(o, ": ")
		fmt.Fprintf(&b, "%s 0 obj\n%s\nendobj\n", num, body)
	}
	return []byte(b.String())
}

func deflate(s string) string {
	var b bytes.Buffer
	w := zlib.NewWriter(&b)
	fmt.Fprint(w, s)
	w.Close()
	return b.String()
}

func stream(dict, data string) string {
	return fmt.Sprintf("<<%s/Length %d>>stream\n%s\nendstream", dict, len(data), data)
}

// Each of these is a way in which real programs write "Hello world" or place it.
func TestText(t *testing.T) {
	const tf = "/F 10 Tf 100 700 Td "
	packed := ascii(deflate("BT " + tf + "(packed) Tj ET"))
	for _, c := range []struct {
		name string
		data []byte
		want string
	}{
		{"string", pdf("BT " + tf + "(Hello world) Tj ET"), "Hello world\n"},
		{"hex", pdf("BT " + tf + "<48656C6C6F2> Tj ET"), "Hello\n"},
		{"escapes", pdf("BT " + tf + `(\110\(i\)\\ \
there) Tj ET`), "H(i)\\ there\n"},
		{"array", pdf("BT " + tf + "[(Hel)20(lo)-600(wor)1(ld)] TJ ET"), "Hello world\n"},
		{"lines", pdf("BT " + tf + "12 TL (one) Tj T* (two) Tj (three) ' 0 0 (four) \" 0 -40 TD (five) Tj ET"), "one\ntwo\nthree\nfour\n\nfive\n"},
		{"unordered", pdf("BT " + tf + "0 -12 Td (second) Tj 0 12 Td (first) Tj ET"), "first\nsecond\n"},
		{"columns", pdf("BT " + tf + "(left) Tj 120 0 Td (right) Tj -120 -12 Td (more) Tj 120 0 Td (cells) Tj ET"), "left                right\nmore                cells\n"},
		{"raised", pdf("BT " + tf + "(x) Tj 4 Ts /F 7 Tf (2) Tj ET"), "x2\n"},
		{"bold twice", pdf("BT " + tf + "(Bold) Tj 0.3 0 Td (Bold) Tj ET"), "Bold\n"},
		{"set wide", pdf("BT " + tf + "3 Tc (HEADING) Tj ET"), "HEADING\n"},
		{"matrix", pdf("q 2 0 0 2 0 0 cm BT 1 0 0 1 10 10 Tm /F 5 Tf (a) Tj ET Q BT 1 0 0 1 20 8 Tm /F 5 Tf (b) Tj ET"), "a\nb\n"},
		{"turned", pdf("BT /F 10 Tf 0 1 -1 0 50 50 Tm (up) Tj 1 0 0 1 50 50 Tm (flat) Tj ET"), "flat\nup\n"},
		{"drawing", pdf("/X Do", "7: "+stream("/Subtype/Form/Resources<</Font<</G 4 0 R>>>>", "BT /G 9 Tf (in it) Tj ET")), "in it\n"},
		{"image", pdf("BI /W 1 /H 1 ID \x00 (BT Tj EI BT " + tf + "(after) Tj ET"), "after\n"},
		{"differences", pdf("BT /W 9 Tf (\x01\x02\x03\x04\x05) Tj ET", "5: <</Subtype/Type1/Encoding<</Differences[1/H/eacute/uni20AC/ffi/g77]>>>>"), "Hé€ffi\ufffd\n"},
		{"space without width", pdf("BT /W 9 Tf (a b) Tj ET", "5: <</Subtype/Type1/FirstChar 32/Widths[0]>>"), "a b\n"},
		{"Mac", pdf("BT /W 9 Tf (Stra\xa7e) Tj ET", "5: <</Subtype/TrueType/Encoding/MacRomanEncoding>>"), "Straße\n"},
		{"ToUnicode", pdf("BT /W 9 Tf <000100020003000400FF> Tj ET", "5: <</Subtype/Type0/Encoding/Identity-H/ToUnicode 8 0 R>>",
			"8: "+stream("", "1 beginbfchar <0001> <0048> endbfchar 2 beginbfrange <0002> <0003> <0069> <0004> <0004> [<D83DDE00>] endbfrange")), "Hij😀\ufffd\n"},
		{"UTF-16", pdf("BT /W 9 Tf <4E2D6587> Tj ET", "5: <</Subtype/Type0/Encoding/UniGB-UCS2-H>>"), "中文\n"},
		{"packed", withContents(stream("/Filter[/ASCII85Decode/FlateDecode]", packed)), "packed\n"},
		{"run length", withContents(stream("/Filter/RunLengthDecode", "\x19BT /F 9 Tf 99 99 Td (run) \xfe \x04Tj ET\x80")), "run\n"},
		{"parts", withContents("[8 0 R 9 0 R]", "8: "+stream("", "BT "+tf+"(in) Tj"), "9: "+stream("", "(two) Tj ET")), "intwo\n"},
		{"length elsewhere", withContents("<</Length 8 0 R>>stream\nBT "+tf+"(long) Tj ET\nendstream", "8: 44"), "long\n"},
		{"changed", pdf("BT "+tf+"(old) Tj ET", "6: "+stream("", "BT "+tf+"(new) Tj ET")), "new\n"},
		{"object stream", pdf("BT /W 9 Tf (\x01) Tj ET", "9: "+stream("/Type/ObjStm/N 1/First 5/Filter/FlateDecode", deflate("5 0  <</Subtype/Type1/Encoding<</Differences[1/A]>>>>"))), "A\n"},
		{"filled in", pdf("BT "+tf+"(Name:) Tj ET", "3: <</Type/Page/Parent 2 0 R/Contents 6 0 R/Annots[<</Subtype/Widget/Rect[200 700 300 720]/AP<</N 8 0 R>>>>]>>",
			"8: "+stream("/Subtype/Form/Resources<</Font<</G 4 0 R>>>>", "BT /G 10 Tf (Kovacs) Tj ET")), "Name:           Kovacs\n"},
		{"unbalanced", pdf("Q Q ET BT " + tf + "(still) Tj ) > ] } Tj"), "still\n"},
		{"no text", pdf("0 0 m 9 9 l S"), ""},
	} {
		pages, err := pdftext.Pages(t.Context(), c.data, limit)
		if err != nil || len(pages) != 1 || pages[0] != c.want {
			t.Errorf("%s: %q, %v, want %q", c.name, pages, err, c.want)
		}
	}
}

func ascii(s string) string {
	var b bytes.Buffer
	w := ascii85.NewEncoder(&b)
	fmt.Fprint(w, s)
	w.Close()
	return b.String() + "~>"
}

// compress/lzw differs from PDF's only in when a code becomes longer, which is not
// before the 255th new one.
func TestLZW(t *testing.T) {
	var b bytes.Buffer
	w := lzw.NewWriter(&b, lzw.MSB, 8)
	fmt.Fprint(w, "BT /F 9 Tf 9 9 Td (LZW LZW LZW LZW LZW LZW) Tj ET")
	w.Close()
	pages, err := pdftext.Pages(t.Context(), withContents(stream("/Filter/LZWDecode", b.String())), limit)
	if want := "LZW LZW LZW LZW LZW LZW\n"; err != nil || len(pages) != 1 || pages[0] != want {
		t.Errorf("Pages = %q, %v, want %q", pages, err, want)
	}
}

// What a stranger can put into a file costs a bounded time, which the test's own is enough for, and no
// crash. The first four ended or stopped a reader that was here before.
func TestHostile(t *testing.T) {
	bomb := deflate(deflate(strings.Repeat("(", 1<<26)))
	for _, c := range []struct {
		name string
		data []byte
		err  error // nil if any will do, or none
	}{
		{"size of the table", []byte(string(pdf("")) + "9 0 obj\n<</Type/XRef/Size 200000000000/W[1 4 1]/Root 1 0 R/Length 0>>stream\nendstream\nendobj\nstartxref\n0\n%%EOF"), nil},
		{"endless object stream", pdf("", "9: "+stream("/Type/ObjStm/N 999999999999999/First 4", "7 0 99")), nil},
		{"length in itself", pdf("", "9: <</Type/ObjStm/N 1/First 4/Length 8 0 R>>stream\n8 0 99\nendstream"), nil},
		{"unfinished string", pdf("", "9: "+stream("/Type/ObjStm/N 1/First 4", "5 0 <</A<4")), nil},
		{"bomb", withContents(stream("/Filter[/FlateDecode/FlateDecode]", bomb)), pdftext.ErrTooLarge},
		{"bomb of objects", pdf("", "9: "+stream("/Type/ObjStm/N 1/First 4/Filter[/FlateDecode/FlateDecode]", bomb)), pdftext.ErrTooLarge},
		{"nested arrays", pdf(strings.Repeat("[", 1<<23) + " Tj"), nil},
		{"nested dictionaries", pdf("", "9: "+strings.Repeat("<</A", 1<<22)), nil},
		{"nested states", pdf(strings.Repeat("q ", 1<<20)), nil},
		{"drawing in itself", pdf("/X Do", "7: "+stream("/Subtype/Form", strings.Repeat("/X Do ", 2))), nil},
		{"pages in a circle", pdf("", "2: <</Type/Pages/Kids[2 0 R 2 0 R]>>"), nil},
		{"references in a circle", pdf("", "6: 8 0 R", "8: 6 0 R"), nil},
		{"ranges", pdf("BT /W 9 Tf <0001> Tj ET", "5: <</Subtype/Type0/ToUnicode 8 0 R/DescendantFonts[<</W[0 1e300 500 -1e300 65535 500]>>]>>",
			"8: "+stream("", strings.Repeat("<0000> <FFFFFFFF> <0041> endbfrange ", 20_000))), nil},
		{"numbers", pdf("BT /F 1e308 Tf 1e308 1e308 Td 1e308 Tc (a) Tj 0 Tf (b) Tj /F NaN Tf (c) Tj ET"), nil},
		{"too much text", pdf("BT /F 9 Tf " + strings.Repeat("(aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab) Tj 0 -9 Td ", 8_000)), pdftext.ErrTooLarge},
		{"encrypted", append(pdf(""), "trailer<</Encrypt 9 0 R/Root 1 0 R>>"...), pdftext.ErrEncrypted},
		{"encrypted stream", pdf("", "9: "+stream("/Type/XRef/Encrypt 8 0 R", "")), pdftext.ErrEncrypted},
	} {
		_, err := pdftext.Pages(t.Context(), c.data, limit)
		if c.err != nil && !errors.Is(err, c.err) {
			t.Errorf("%s: %v, want %v", c.name, err, c.err)
		}
	}
}

// Drawings in drawings multiply: 50^12 runs of a page. The end of the context is
// looked for all along.
func TestDeadline(t *testing.T) {
	data := pdf(strings.Repeat("/X Do ", 50), "7: "+stream("/Subtype/Form", strings.Repeat("/X Do ", 50)))
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := pdftext.Pages(ctx, data, limit); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Pages = %v, want %v", err, context.DeadlineExceeded)
	}
}

// A file that is cut off anywhere, or damaged, is an error or a shorter text.
func TestCutOff(t *testing.T) {
	read := func(data []byte) {
		if pages, err := pdftext.Pages(t.Context(), data, limit); (err == nil) != (len(pages) > 0) {
			t.Errorf("%d pages and %v", len(pages), err)
		}
	}
	for _, name := range []string{"contract.pdf", "browser.pdf", "two-column.pdf"} {
		data, err := os.ReadFile(filepath.Join("..", "testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(data); i += len(data)/40 + 1 {
			read(data[:i])
			changed := bytes.Clone(data)
			changed[i] ^= 0x55
			read(changed)
		}
	}
}

func FuzzPages(f *testing.F) {
	files, err := filepath.Glob("../testdata/*.pdf")
	if err != nil || len(files) == 0 {
		f.Fatal(files, err)
	}
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add(pdf("BT /W 9 Tf [<0001>-200(a)] TJ ET", "5: <</Subtype/Type0/ToUnicode 8 0 R>>", "8: "+stream("", "<0000> <FFFF> <0041> endbfrange")))
	f.Fuzz(func(t *testing.T, data []byte) {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		pages, err := pdftext.Pages(ctx, data, limit)
		if err == nil && len(pages) == 0 {
			t.Error("neither pages nor an error")
		}
	})
}
