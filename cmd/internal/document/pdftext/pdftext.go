// Package pdftext reads the text of PDFs, for machines without pdftotext.
//
// It is made for text that came from a word processor: it knows fonts by what they
// say of themselves (ToUnicode, Encoding, Differences), never by their outlines,
// and lays the words of a page out as they stand there, columns side by side.
// What it does not know it shows as U+FFFD, so that a caller can tell noise from
// text. It does not decrypt, and it does not read scripts from right to left.
//
// A PDF comes from strangers and may be made to harm. Therefore nothing in it is
// believed that could be counted: not the table of where its objects are, which is
// often wrong anyhow (the file is searched for them instead), and not lengths and
// sizes. All recursion has a limit, all that is unpacked counts against one, and
// every loop that a file can make long looks at the context.
//
// github.com/ledongthuc/pdf was here before. It allocates as many table entries as
// a file says it has, and the process dies of it; it never returns from an object
// stream that claims enough objects; and it recurses without end where a stream's
// length stands in that stream. None of these can be stopped from outside.
package pdftext

import (
	"context"
	"errors"
	"fmt"
	"unicode/utf8"
)

// ErrEncrypted says that a file is encrypted, with or without a password.
var ErrEncrypted = errors.New("encrypted PDF")

// ErrTooLarge says that a file has more text than the caller wants, or unpacks to
// more than any document.
var ErrTooLarge = errors.New("too much text in the PDF")

// maxPages is ten times the pages of the longest documents.
const maxPages = 100_000

// Pages returns the text of each page of the PDF in data, of at most limit bytes
// together. The pages before an end of ctx are lost.
func Pages(ctx context.Context, data []byte, limit int) ([]string, error) {
	f, err := open(ctx, data)
	if err != nil {
		return nil, err
	}
	list := f.pages()
	if len(list) == 0 {
		return nil, errors.New("damaged PDF: it has no pages")
	}
	var pages []string
	for i, p := range list {
		text, err := f.text(p)
		if err != nil {
			return nil, fmt.Errorf("page %d: %w", i+1, err)
		}
		if limit -= len(text); limit < 0 {
			return nil, ErrTooLarge
		}
		pages = append(pages, text)
	}
	return pages, nil
}

// A page is what is needed to read one.
type page struct {
	dict      dict
	resources dict
}

// pages returns the pages in the order of the page tree.
func (f *file) pages() []page {
	seen := make(map[int]bool)
	var list []page
	var walk func(v any, resources dict, depth int)
	walk = func(v any, resources dict, depth int) {
		if r, ok := v.(ref); ok {
			if seen[r.num] {
				return
			}
			seen[r.num] = true
		}
		d, ok := f.get(v).(dict)
		if !ok || depth > maxDepth || len(list) >= maxPages || f.ctx.Err() != nil {
			return
		}
		if own, ok := f.get(d["Resources"]).(dict); ok {
			resources = own
		}
		kids, ok := f.get(d["Kids"]).(array)
		if !ok {
			list = append(list, page{d, resources})
			return
		}
		for _, k := range kids {
			walk(k, resources, depth+1)
		}
	}
	walk(f.catalog["Pages"], nil, 0)
	return list
}

// text returns the text of a page.
func (f *file) text(p page) (string, error) {
	in := &interpreter{file: f, fonts: make(map[name]*font)}
	in.state.reset()
	if err := in.run(f.contents(p.dict["Contents"]), p.resources, 0); err != nil {
		return "", err
	}
	if err := in.annotations(p.dict); err != nil {
		return "", err
	}
	if f.left < 0 {
		return "", ErrTooLarge
	}
	s := layout(in.glyphs)
	if !utf8.ValidString(s) {
		return "", errors.New("text that is not UTF-8") // a bug: all of it is made of runes
	}
	return s, f.ctx.Err()
}

// contents returns the instructions of a page, which may be in several streams.
func (f *file) contents(v any) []byte {
	switch v := f.get(v).(type) {
	case *stream:
		return f.unpack(v)
	case array:
		var all []byte
		for _, part := range v {
			if s, ok := f.get(part).(*stream); ok {
				all = append(append(all, f.unpack(s)...), '\n')
			}
			if f.left < 0 {
				break
			}
		}
		return all
	}
	return nil
}
