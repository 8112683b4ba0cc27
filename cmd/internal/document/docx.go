package document

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"

	"golang.org/x/net/html/charset"
)

const (
	// maxUnpacked bounds what is unpacked of a DOCX. XML packs at about ten to
	// one, so that this is a document of some thousand pages; what a zip bomb has
	// beyond it is never unpacked.
	maxUnpacked = 64 << 20

	// maxDepth bounds how deep the elements of a DOCX are nested. Word's own have
	// tens of levels, also with tables in tables in text boxes.
	maxDepth = 1000

	// maxMembers bounds the files in a DOCX, each of which takes some 300 bytes of
	// memory. Word's own have tens, and one for each image.
	maxMembers = 10_000

	// maxSheet bounds the parts that are decoded whole: relationships, styles and
	// numbering. Structs take ten times the room of their XML. A thousand lists of
	// nine levels are 5 MiB.
	maxSheet = 8 << 20

	// maxTag bounds what lies between two elements: an attribute of five bytes takes
	// some 250. No paragraph is as long, nor anything that Word writes.
	maxTag = 2 << 20
)

// readDOCX returns what Word shows of a document when all its changes are
// accepted: deleted and hidden text is left out, the cells of a table row are
// separated by tabs, numbers of lists are written, and footnotes are at the end.
// Headers, footers and comments are left out.
func readDOCX(ctx context.Context, data []byte) (string, error) {
	if !bytes.HasPrefix(data, []byte("PK")) {
		return "", unreadablef("not a DOCX but %s; save it as .docx without a password", kind(data))
	}
	// The archive's own count is not to be trusted, and each entry begins like this.
	if n := bytes.Count(data, []byte("PK\x01\x02")); n > maxMembers {
		return "", unreadablef("an archive of %d files, want at most %d; save it as .docx anew", n, maxMembers)
	}
	z, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return "", unreadablef("damaged DOCX: %v", err)
	}
	a := archive{ctx: ctx, parts: make(map[string]*zip.File, len(z.File)), left: maxUnpacked}
	for _, f := range z.File {
		a.parts[strings.TrimPrefix(f.Name, "/")] = f
	}
	text, err := a.document()
	if err == nil {
		return tidy(text), nil
	}
	if _, ok := errors.AsType[unreadable](err); ok {
		return "", err
	}
	return "", unreadablef("damaged DOCX: %v", err)
}

// An archive is the parts of a DOCX.
type archive struct {
	ctx   context.Context //nolint:containedctx // an archive lives as long as the call that reads it
	parts map[string]*zip.File
	left  int64 // bytes that may still be unpacked
	added int   // bytes of text that stand elsewhere in it: numbers of lists, and notes
}

// add counts text that is written where it does not stand. A line of a few thousand
// characters that every paragraph names would otherwise become any length.
func (a *archive) add(s string) error {
	if a.added += len(s); a.added > maxText {
		return unreadablef("its numbering and notes come to more than %d MiB; split it", maxText>>20)
	}
	return nil
}

// open returns a decoder of a part. It counts against the bound what is read.
func (a *archive) open(name string) (*xml.Decoder, error) {
	f, ok := a.parts[name]
	if !ok {
		return nil, fmt.Errorf("it has no %s", name)
	}
	rc, err := f.Open() // closing it does nothing: there is no file under it
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	dec := xml.NewDecoder(&tags{Reader: &unpacking{rc, a}})
	dec.CharsetReader = func(label string, in io.Reader) (io.Reader, error) {
		out, err := charset.NewReaderLabel(label, in)
		return &tags{Reader: out}, err // what was no < may be one now, and the other way round
	}
	return dec, nil
}

// tags reads XML with elements that are not too long. An < begins one, and stands
// nowhere else.
type tags struct {
	io.Reader

	n int // bytes since the last <
}

func (t *tags) Read(p []byte) (int, error) {
	n, err := t.Reader.Read(p)
	if i := bytes.LastIndexByte(p[:n], '<'); i >= 0 {
		t.n = n - i
	} else {
		t.n += n
	}
	if t.n > maxTag {
		return n, unreadablef("an element or a text in it is longer than %d MiB", maxTag>>20)
	}
	return n, err
}

type unpacking struct {
	io.Reader
	a *archive
}

func (u *unpacking) Read(p []byte) (int, error) {
	if err := u.a.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := u.Reader.Read(p)
	if u.a.left -= int64(n); u.a.left < 0 {
		return n, unreadablef("it unpacks to more than %d MiB; split it", maxUnpacked>>20)
	}
	return n, err
}

// related returns the parts that belong to one, or with an empty name to the
// whole, by what they are: officeDocument, styles, numbering, footnotes.
func (a *archive) related(name string) (map[string]string, error) {
	dir, file := path.Split(name)
	dec, err := a.open(dir + "_rels/" + file + ".rels")
	if err != nil {
		return nil, nil //nolint:nilerr // a part without a list has nothing related
	}
	var list struct {
		Relationship []struct {
			Type   string `xml:",attr"`
			Target string `xml:",attr"`
		}
	}
	if err := a.sheet(dec, &list); err != nil {
		return nil, err
	}
	parts := make(map[string]string)
	for _, r := range list.Relationship {
		target, whole := strings.CutPrefix(r.Target, "/")
		if !whole {
			target = path.Join(dir, r.Target)
		}
		parts[path.Base(r.Type)] = target
	}
	return parts, nil
}

// sheet decodes a part whole.
func (a *archive) sheet(dec *xml.Decoder, v any) error {
	before := a.left
	a.left = min(a.left, maxSheet)
	had := a.left
	err := dec.Decode(v)
	if a.left < 0 && before > maxSheet {
		return unreadablef("its styles, lists or relationships take more than %d MiB; save it as .docx anew", maxSheet>>20)
	}
	a.left = before - (had - a.left)
	return err
}

func (a *archive) document() (string, error) {
	root, err := a.related("")
	if err != nil {
		return "", err
	}
	name, ok := root["officeDocument"]
	if !ok {
		name = "word/document.xml"
	}
	if _, ok := a.parts[name]; !ok {
		return "", unreadable("a zip archive without a Word document in it")
	}
	parts, err := a.related(name)
	if err != nil {
		return "", err
	}
	numbers, err := a.numbering(parts["numbering"], parts["styles"])
	if err != nil {
		return "", err
	}
	w, err := a.words(name, numbers)
	if err != nil {
		return "", err
	}
	return a.withNotes(w, parts)
}

// words reads a part with text in it.
func (a *archive) words(name string, numbers *numbering) (*words, error) {
	dec, err := a.open(name)
	if err != nil {
		return nil, err
	}
	w := &words{dec: dec, add: a.add, numbers: numbers, out: new(strings.Builder), texts: make(map[note]string)}
	return w, w.children(w.element)
}

// withNotes returns the text of w and after it the notes that it refers to.
func (a *archive) withNotes(w *words, parts map[string]string) (string, error) {
	texts := make(map[note]string)
	for _, kind := range []string{"footnote", "endnote"} {
		name, ok := parts[kind+"s"]
		if !ok || !slices.ContainsFunc(w.notes, func(n note) bool { return n.kind == kind }) {
			continue
		}
		part, err := a.words(name, w.numbers)
		if err != nil {
			return "", err
		}
		maps.Copy(texts, part.texts)
	}
	for i, n := range w.notes {
		if err := a.add(texts[n]); err != nil {
			return "", err
		}
		fmt.Fprintf(w.out, "\n[%d] %s\n", i+1, strings.TrimSpace(texts[n]))
	}
	return w.out.String(), nil
}
