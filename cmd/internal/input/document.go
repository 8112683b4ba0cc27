package input

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"runtime"
	"unicode/utf8"

	"upwell/cmd/internal/document"
	"upwell/cmd/internal/prompt"
	"upwell/jobs"
)

// maxDocument bounds a document's file. It is held whole while it is read.
const maxDocument = 128 << 20

// readers is how many documents are read at the same time: one for each processor,
// and one more, as pdftotext takes a moment to start.
func readers() int { return runtime.GOMAXPROCS(0) + 1 }

// DocumentRecord returns the record of a document. path is its path or key, with /;
// size is that of its file, in bytes. Its values are those that a template may name:
//
//	text   the text; empty for an image
//	name   the last part of path
//	path   path
//	type   pdf, docx, txt, md, html, png or jpg
//	size   size
func DocumentRecord(id, place, p string, size int64, doc document.Document) prompt.Record {
	return prompt.Record{
		ID: id, Place: place, Image: doc.Image,
		Values: map[string]any{"text": doc.Text, "name": path.Base(p), "path": p, "type": doc.Type, "size": size},
	}
}

// FitID returns s if it can be a custom_id, and else as much of its beginning as can
// be followed by a tilde and a hash of all of it, which no other text has.
func FitID(s string) string {
	if len(s) <= jobs.MaxCustomID {
		return s
	}
	sum := sha256.Sum256([]byte(s))
	hash := hex.EncodeToString(sum[:16])
	cut := jobs.MaxCustomID - 1 - len(hash)
	for !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "~" + hash
}

// record reads a document.
func (s *source) record(ctx context.Context, e entry) (rec prompt.Record, warnings []string, err error) {
	place := s.place(e.path)
	rec.Place = place
	if !utf8.ValidString(e.path) {
		return rec, nil, &rowError{"", "its name is not UTF-8: give it another"}
	}
	if e.size > maxDocument {
		return rec, nil, &document.UnreadableError{Name: place, Reason: fmt.Sprintf("%d MiB, and a document may have %d: split it", e.size>>20, maxDocument>>20)}
	}
	// A document of S3 takes a round trip, so that more are loaded than read, but
	// no more than memory has room for. One is always allowed.
	weight := min(max(e.size, 1), aheadBytes)
	if err := s.loaded.Acquire(ctx, weight); err != nil {
		return rec, nil, context.Cause(ctx)
	}
	defer s.loaded.Release(weight)
	data, err := s.load(ctx, e)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return rec, nil, &document.UnreadableError{Name: place, Reason: "permission denied"}
	case err != nil:
		return rec, nil, err
	}
	select {
	case s.reading <- struct{}{}:
		defer func() { <-s.reading }()
	case <-ctx.Done():
		return rec, nil, context.Cause(ctx)
	}
	doc, err := s.opts.Documents.Read(ctx, e.path, data)
	if err != nil {
		return rec, nil, err
	}
	return DocumentRecord(FitID(e.path), place, e.path, int64(len(data)), doc), doc.Warnings, nil
}

func (s *source) load(ctx context.Context, e entry) ([]byte, error) {
	r, err := s.open(ctx, e)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	data := make([]byte, 0, e.size+1)
	in := io.LimitReader(counted{r, &s.opts.Progress.Bytes}, maxDocument+1)
	for {
		n, err := in.Read(data[len(data):cap(data)])
		data = data[:len(data)+n]
		switch {
		case errors.Is(err, io.EOF):
			return data, nil
		case err != nil:
			return nil, fmt.Errorf("read %s: %w", s.place(e.path), err)
		case len(data) == cap(data):
			data = append(data, 0)[:len(data)]
		}
	}
}
