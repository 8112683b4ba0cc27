// Package document reads files as what a model can be given: text, or an image.
//
// A file's type is what its name ends with, and its bytes have to agree:
//
//	.txt .md       as they are; UTF-8, UTF-16 with a byte order mark, else Windows-1252
//	.html .htm     what a browser shows, without scripts and styles
//	.docx          what Word shows when all changes are accepted: list numbers, tables, footnotes
//	.pdf           by pdftotext, or by a smaller reader of this package's own
//	.png .jpg      the image itself, which must have a header that can be decoded
//
// Nothing is read half. A file without text, with text that is noise, or that is
// not what its name says is an [*UnreadableError], whose text says what to do. A
// PDF can be noise in many ways: a scan has images and no text, a font that does
// not say which characters its shapes are gives symbols, a careless producer
// gives words without spaces. All of these pass through gate.go, whichever
// program read them.
//
// What a PDF shows is what is read: if it was exported with tracked changes shown,
// the words that are struck out in it are words like all others.
package document

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path"
	"strings"
	"time"

	"upwell/cmd/internal/prompt"
)

// Builtin is the value of [Reader.PDFToText] that leaves PDFs to this package.
const Builtin = "builtin"

// maxText bounds the text of a document, and what is unpacked of it at once. Four
// bytes make about a token, and the largest context is a million tokens: what is
// longer than this could not be sent four times over.
const maxText = 16 << 20

// A Reader reads documents. The zero value is ready to use. All methods may be
// called concurrently.
type Reader struct {
	// PDFToText is the pdftotext program, of poppler or xpdf. If empty, it is
	// looked for in PATH, and PDFs are read without it if it is not there. If
	// [Builtin], it is never used.
	PDFToText string

	// Timeout is how long reading one document may take. Default one minute; the
	// slowest real ones, PDFs of thousands of pages, take some ten seconds.
	Timeout time.Duration
}

// A Document is a file as a model can be given it: it has a text or an image.
type Document struct {
	Type  string        // txt, md, html, docx, pdf, png or jpg
	Text  string        // UTF-8 with lines ended by \n; empty for an image
	Image *prompt.Image // nil for all others
	Pages int           // of a PDF; 0 if the type has none

	// Warnings say what may be missing or wrong in a document that is good
	// enough to be read.
	Warnings []string
}

// An UnreadableError says why a file is of no use to a model, and what to do.
// Reading the same bytes again does not help.
type UnreadableError struct {
	Name   string // of the file
	Reason string
}

func (e *UnreadableError) Error() string { return e.Name + ": " + e.Reason }

// Type returns the type of a file by the end of its name, which may be in
// capitals: txt, md, html, docx, pdf, png or jpg. It reports whether it is one
// that can be read.
func Type(name string) (string, bool) {
	switch ext := strings.TrimPrefix(strings.ToLower(path.Ext(name)), "."); ext {
	case "txt", "md", "html", "docx", "pdf", "png", "jpg":
		return ext, true
	case "htm":
		return "html", true
	case "jpeg":
		return "jpg", true
	default:
		return "", false
	}
}

// Read reads the document in data. The name decides its type and appears in
// errors. An error is an [*UnreadableError] if it is the document's, and another
// if ctx ended or pdftotext could not be run. The image of the document is data
// itself.
func (r *Reader) Read(ctx context.Context, name string, data []byte) (Document, error) {
	typ, ok := Type(name)
	if !ok {
		return Document{}, &UnreadableError{name, "not a type that can be read; txt, md, html, docx, pdf, png and jpg are"}
	}
	if len(data) == 0 {
		return Document{}, &UnreadableError{name, "the file is empty"}
	}
	timeout := cmp.Or(r.Timeout, time.Minute)
	limited, cancel := context.WithTimeoutCause(ctx, timeout, errSlow)
	defer cancel()
	doc, err := r.read(limited, typ, data)
	switch reason, isReason := errors.AsType[unreadable](err); {
	case err == nil:
		doc.Type = typ
		return doc, nil
	case ctx.Err() != nil:
		return Document{}, fmt.Errorf("%s: %w", name, context.Cause(ctx))
	case context.Cause(limited) == errSlow: //nolint:errorlint // it is not wrapped
		return Document{}, &UnreadableError{name, fmt.Sprintf("reading it took more than %v; save or print it anew, or split it", timeout)}
	case isReason:
		return Document{}, &UnreadableError{name, string(reason)}
	default:
		return Document{}, fmt.Errorf("%s: %w", name, err)
	}
}

var errSlow = errors.New("reading the document took too long")

// unreadable is the reason of an UnreadableError, before the name is known.
type unreadable string

func (u unreadable) Error() string { return string(u) }

func unreadablef(format string, args ...any) error {
	return unreadable(fmt.Sprintf(format, args...))
}

func (r *Reader) read(ctx context.Context, typ string, data []byte) (doc Document, err error) {
	switch typ {
	case "png", "jpg":
		return readImage(typ, data)
	case "pdf":
		return r.readPDF(ctx, data)
	case "docx":
		doc.Text, err = readDOCX(ctx, data)
	case "html":
		doc.Text, err = readHTML(data)
	default:
		doc, err = readText(data)
	}
	if err != nil {
		return Document{}, err
	}
	return doc, checkText(doc.Text)
}
