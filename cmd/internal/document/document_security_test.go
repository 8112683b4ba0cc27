package document_test

import (
	"archive/zip"
	"bytes"
	"compress/flate"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"upwell/cmd/internal/document"
)

// Changes of one line that these tests have been seen to catch:
//
//   - no bound on what lies between two elements
//   - levels of lists beyond the ninth are kept
//   - HTML parsed without being reckoned

// most is how much memory a process may have used, in KiB, after it has read a bomb:
// the test program, the file, and what reading takes. An honest document of 64 MiB of
// XML takes as much.
const most = 450 << 10

// archive makes a zip file of names and contents.
func archive(t *testing.T, parts ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for i := 0; i < len(parts); i += 2 {
		w, err := z.Create(parts[i])
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(parts[i+1])); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// word makes a DOCX whose document has that body, beside other parts.
func word(t *testing.T, body string, parts ...string) []byte {
	t.Helper()
	return archive(t, append([]string{
		"word/document.xml", "<document><body>" + body + "</body></document>",
		"word/_rels/document.xml.rels", `<Relationships><Relationship Type="x/numbering" Target="numbering.xml"/>` +
			`<Relationship Type="x/styles" Target="styles.xml"/><Relationship Type="x/footnotes" Target="footnotes.xml"/></Relationships>`,
	}, parts...)...)
}

// liar makes a DOCX whose document claims to unpack to ten bytes, and does not.
func liar(t *testing.T) []byte {
	t.Helper()
	text := []byte("<document><p><t>" + strings.Repeat("word ", 20<<20))
	var packed bytes.Buffer
	f, err := flate.NewWriter(&packed, flate.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(text); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	w, err := z.CreateRaw(&zip.FileHeader{
		Name: "word/document.xml", Method: zip.Deflate, CRC32: crc32.ChecksumIEEE(text),
		CompressedSize64: uint64(packed.Len()), UncompressedSize64: 10,
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(packed.Bytes()); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// nested makes an archive in an archive, n times.
func nested(t *testing.T, n int) []byte {
	t.Helper()
	data := []byte("<document><p><t>at last</t></p></document>")
	for range n {
		data = archive(t, "word/document.xml", string(data))
	}
	return data
}

// vast is the header of a PNG of 131,071 pixels a side, and nothing else.
func vast() []byte {
	chunk := append([]byte("IHDR"), 0, 1, 0xff, 0xff, 0, 1, 0xff, 0xff, 8, 2, 0, 0, 0)
	b := binary.BigEndian.AppendUint32([]byte("\x89PNG\r\n\x1a\n"), uint32(len(chunk)-4))
	return binary.BigEndian.AppendUint32(append(b, chunk...), crc32.ChecksumIEEE(chunk))
}

func repeat(n int, format string) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, format, i)
	}
	return b.String()
}

// bombs are files that a stranger may send, each a few hundred KiB or less but for
// those of 15 MiB, and what is said of them. An empty text is for one that is read.
var bombs = map[string]struct {
	name, want string
	data       func(t *testing.T) []byte
}{
	"entities": {"a.docx", "damaged DOCX", func(t *testing.T) []byte {
		return archive(t, "word/document.xml", `<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">`+
			repeat(20, `<!ENTITY a%[1]d "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">`)+`]><document><p><t>&a19;</t></p></document>`)
	}},
	"an entity of a file": {"a.docx", "damaged DOCX", func(t *testing.T) []byte {
		return archive(t, "word/document.xml", `<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><document><p><t>&a;</t></p></document>`)
	}},
	"a small claim":  {"a.docx", "damaged DOCX", liar},
	"nested members": {"a.docx", "damaged DOCX", func(t *testing.T) []byte { return nested(t, 1000) }},
	"many members": {"a.docx", "an archive of 100000 files, want at most 10000", func(t *testing.T) []byte {
		var b bytes.Buffer
		z := zip.NewWriter(&b)
		for i := range 100_000 {
			if _, err := z.CreateHeader(&zip.FileHeader{Name: strconv.Itoa(i)}); err != nil {
				t.Fatal(err)
			}
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}},
	"attributes": {"a.docx", "an element or a text in it is longer than 2 MiB", func(t *testing.T) []byte {
		return word(t, "<p "+strings.Repeat(`a="" `, 12<<20)+"/>")
	}},
	"an attribute": {"a.docx", "an element or a text in it is longer than 2 MiB", func(t *testing.T) []byte {
		return word(t, "<p a='"+strings.Repeat("a", 60<<20)+"'/>")
	}},
	"paragraphs": {"a.docx", "it unpacks to more than 64 MiB", func(t *testing.T) []byte {
		return word(t, strings.Repeat("<p/>", 20<<20))
	}},
	"relationships": {"a.docx", "its styles, lists or relationships take more than 8 MiB", func(t *testing.T) []byte {
		return archive(t, "_rels/.rels", "<Relationships>"+strings.Repeat("<Relationship/>", 4<<20)+"</Relationships>", "word/document.xml", "<document/>")
	}},
	"notes": {"a.docx", "its numbering and notes come to more than 16 MiB", func(t *testing.T) []byte {
		return word(t, strings.Repeat(`<p><r><footnoteReference id="1"/></r></p>`, 100_000),
			"word/footnotes.xml", `<footnotes><footnote id="1"><p><r><t>`+strings.Repeat("word ", 300_000)+`</t></r></p></footnote></footnotes>`)
	}},
	"numbers": {"a.docx", "its numbering and notes come to more than 16 MiB", func(t *testing.T) []byte {
		return word(t, strings.Repeat(`<p><pPr><numPr><numId val="1"/></numPr></pPr></p>`, 100_000),
			"word/numbering.xml", `<numbering><abstractNum abstractNumId="1"><lvl ilvl="0"><start val="775"/><numFmt val="lowerLetter"/><lvlText val="`+
				strings.Repeat("%1", 500_000)+`"/></lvl></abstractNum><num numId="1"><abstractNumId val="1"/></num></numbering>`)
	}},
	"levels": {"a.docx", "", func(t *testing.T) []byte {
		return word(t, "<p><r><t>read</t></r></p>", "word/numbering.xml", `<numbering><abstractNum abstractNumId="1">`+repeat(80_000, `<lvl ilvl="%d"/>`)+`</abstractNum>`+
			repeat(50_000, `<num numId="%d"><abstractNumId val="1"/><lvlOverride/></num>`)+`</numbering>`)
	}},
	"open elements": {"a.html", "it is made of more than 1048576 parts", func(*testing.T) []byte {
		return []byte("<p>" + repeat(400, "<b a=%d>") + "</p>" + strings.Repeat("<p>x</p>", 100_000))
	}},
	"elements that close themselves": {"a.html", "it is made of more than 1048576 parts", func(*testing.T) []byte {
		return []byte("<p>" + repeat(400, "<b a=%d />") + "</p>" + strings.Repeat("<p>x</p>", 100_000))
	}},
	"ends of what is not open": {"a.html", "it is made of more than 1048576 parts", func(*testing.T) []byte {
		return []byte("<p>" + repeat(400, "<b a=%d>") + strings.Repeat("</i>", 400) + "</p>" + strings.Repeat("<p>x</p>", 100_000))
	}},
	"ends of blocks that are not open": {"a.html", "it is made of more than 1048576 parts", func(*testing.T) []byte {
		return []byte(strings.Repeat(repeat(20, "<b a=%d>")+strings.Repeat("<div>", 20)+strings.Repeat("</x>", 20)+strings.Repeat("</b>", 20)+strings.Repeat("</div>", 20), 20_000))
	}},
	"links in blocks": {"a.html", "it is made of more than 1048576 parts", func(*testing.T) []byte {
		return []byte(strings.Repeat(repeat(20, "<b a=%d>")+strings.Repeat("<div>", 20)+strings.Repeat("</b>", 20)+strings.Repeat("</div>", 20), 20_000))
	}},
	"elements": {"a.html", "it is made of more than 1048576 parts", func(*testing.T) []byte {
		return []byte(strings.Repeat("<p>", 5<<20))
	}},
	"attributes of HTML": {"a.html", "more than 1000 attributes", func(*testing.T) []byte {
		return []byte("<p " + repeat(1_500_000, "a%d ") + ">x")
	}},
	"depth": {"a.html", "cannot be parsed", func(*testing.T) []byte { return []byte(strings.Repeat("<div>", 100_000) + "x") }},
	"a roman number": {"a.html", "", func(*testing.T) []byte {
		return []byte(`<ol type="I" start="9223372036854775807"><li value="9223372036854775807">a<li>b<ol type="a" start="2000000000"><li>c</ol></ol>`)
	}},
	"pixels": {"a.png", "", func(*testing.T) []byte { return vast() }},
	"an image that is none": {"a.jpg", "damaged image", func(*testing.T) []byte {
		return append([]byte("\xff\xd8\xff\xe0\xff\xff"), make([]byte, 15<<20)...)
	}},
	"text of one line": {"a.txt", "16 MiB of text", func(*testing.T) []byte { return bytes.Repeat([]byte("a"), 16<<20+1) }},
}

// TestBombs reads each bomb in a process of its own, and looks at the most memory that
// this has had.
func TestBombs(t *testing.T) {
	if name := os.Getenv("DOCUMENT_TEST_BOMB"); name != "" {
		read(t, name)
		return
	}
	if testing.Short() {
		t.Skip("measures memory, of which the race detector takes as much again")
	}
	for name, b := range bombs {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestBombs$", "-test.v")
			cmd.Env = append(os.Environ(), "DOCUMENT_TEST_BOMB="+name)
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			m := regexp.MustCompile(`made (\d+) KiB, read with (\d+) KiB: (.*)`).FindSubmatch(out)
			if m == nil {
				t.Fatalf("it says %q", out)
			}
			made, _ := strconv.Atoi(string(m[1]))
			had, _ := strconv.Atoi(string(m[2]))
			if said := string(m[3]); b.want == "" && said != "<nil>" || !strings.Contains(said, b.want) {
				t.Errorf("Read = %s, want %q", said, b.want)
			}
			if had > max(most, made+most/2) {
				t.Errorf("%d MiB of memory, %d of them to make the bomb, want %d at most", had>>10, made>>10, most>>10)
			}
			t.Logf("%d MiB, %d of them to make it: %s", had>>10, made>>10, m[3])
		})
	}
}

func read(t *testing.T, name string) {
	t.Helper()
	b := bombs[name]
	data := b.data(t)
	made := peak(t)
	// It is memory that is measured: reading may take its time on a machine that is busy.
	_, err := (&document.Reader{PDFToText: document.Builtin, Timeout: 20 * time.Minute}).Read(t.Context(), b.name, data)
	if u, ok := errors.AsType[*document.UnreadableError](err); err != nil && !ok || ok && u.Name != b.name {
		t.Errorf("Read = %v, want an UnreadableError that names %s", err, b.name)
	}
	fmt.Printf("made %d KiB, read with %d KiB: %v\n", made, peak(t), err)
}

// peak returns the most memory that this process has had, in KiB.
func peak(t *testing.T) int {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Skip(err)
	}
	m := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(status)
	n, err := strconv.Atoi(string(m[1]))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestHonestHTML has pages that are not as tidy as they should be, and are read.
func TestHonestHTML(t *testing.T) {
	for name, text := range map[string]string{
		"a long table":     "<table>" + strings.Repeat("<tr><td><b>clause</b><td><a href=x>text</a></tr>", 50_000) + "</table>",
		"open paragraphs":  strings.Repeat("<p>a <i>word</i> or two<li>item", 50_000),
		"open fonts":       strings.Repeat("<font color=red>", 100) + strings.Repeat("<p>a paragraph</p>", 5_000),
		"anchors":          strings.Repeat("<a name=x><h2>title</h2><p>text", 10_000),
		"an image in line": `<p>text<img src="data:image/png;base64,` + strings.Repeat("AAAA", 1<<20) + `">`,
	} {
		if _, err := new(document.Reader).Read(t.Context(), "a.html", []byte(text)); err != nil {
			t.Errorf("%s: %v, want it read", name, err)
		}
	}
}
