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
)

// readDOCX returns what Word shows of a document when all its changes are
// accepted: deleted and hidden text is left out, the cells of a table row are
// separated by tabs, numbers of lists are written, and footnotes are at the end.
// Headers, footers and comments are left out.
func readDOCX(ctx context.Context, data []byte) (string, error) {
	if !bytes.HasPrefix(data, []byte("PK")) {
		return "", unreadablef("not a DOCX but %s; save it as .docx without a password", kind(data))
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
	dec := xml.NewDecoder(&unpacking{rc, a})
	dec.CharsetReader = charset.NewReaderLabel
	return dec, nil
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
	if err := dec.Decode(&list); err != nil {
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
	w := &words{dec: dec, numbers: numbers, out: new(strings.Builder), texts: make(map[note]string)}
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
		fmt.Fprintf(w.out, "\n[%d] %s\n", i+1, strings.TrimSpace(texts[n]))
	}
	return w.out.String(), nil
}
