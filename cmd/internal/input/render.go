package input

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"runtime"

	"upwell/cmd/internal/document"
	"upwell/cmd/internal/ordered"
	"upwell/cmd/internal/prompt"
	"upwell/jobs"
)

const (
	// pieceRows and pieceSize bound the rows that are rendered at a time: enough
	// to be worth a goroutine, few enough to keep every processor busy.
	pieceRows = 256
	pieceSize = 1 << 20

	// aheadBytes bounds what is rendered, or read of documents, and not yet taken.
	aheadBytes = 64 << 20

	// aheadDocuments is how many documents are under way at most. Those of S3 take
	// a round trip each; how many are read at once is bounded by [readers].
	aheadDocuments = 32
)

// A piece is what is rendered at a time: some rows, or a document.
type piece struct {
	rows     []made
	document *entry
}

// pieces yields all that there is, in order.
func (s *source) pieces(ctx context.Context) iter.Seq2[piece, error] {
	return func(yield func(piece, error) bool) {
		for e, err := range s.files(ctx) {
			if err != nil {
				yield(piece{}, err)
				return
			}
			if !s.tables {
				if !yield(piece{document: &e}, nil) {
					return
				}
				continue
			}
			if !s.rowPieces(ctx, e, yield) {
				return
			}
		}
	}
}

// rowPieces yields the rows of a table.
func (s *source) rowPieces(ctx context.Context, e entry, yield func(piece, error) bool) bool {
	var p piece
	size := 0
	for m, err := range s.rows(ctx, e) {
		if err != nil {
			yield(piece{}, err)
			return false
		}
		p.rows = append(p.rows, m)
		if size += m.size; len(p.rows) < pieceRows && size < pieceSize {
			continue
		}
		if !yield(p, nil) {
			return false
		}
		p, size = piece{}, 0
	}
	return len(p.rows) == 0 || yield(p, nil)
}

// An outcome is a job that was made of a record, or why none was.
type outcome struct {
	place    string
	line     []byte
	job      jobs.Job
	err      error
	blank    bool // a row with nothing in it
	warnings []string
}

// render makes the jobs of a source, several at a time, and takes them in order.
func (c *checker) render(ctx context.Context, out *spool) error {
	s := c.file.source
	lim := ordered.Limits{Window: 2 * runtime.GOMAXPROCS(0), Bytes: aheadBytes}
	if !s.tables {
		lim.Window = aheadDocuments
	}
	n := 0
	for made, err := range ordered.Map(ctx, s.pieces, lim, c.make) {
		if err != nil {
			return err
		}
		for _, o := range made {
			c.file.progress.Records.Add(1)
			if !c.good(s, o) {
				continue
			}
			n++
			if err := c.take(Line{N: n, Text: o.line, Place: o.place}, o.job, nil); err != nil {
				return err
			}
			if err := out.add(o.line, o.place); err != nil {
				return err
			}
		}
	}
	c.sum.Warnings = s.all()
	return nil
}

// good reports whether there is a job to take, after it noted what else there is to
// say.
func (c *checker) good(s *source, o outcome) bool {
	for _, w := range o.warnings {
		s.note(o.place, w)
	}
	unreadable, ok := errors.AsType[*document.UnreadableError](o.err)
	switch {
	case o.blank:
		s.left.rows++
	case ok && s.opts.SkipUnreadable:
		s.leave(o.place, unreadable.Reason)
	case ok:
		c.bad.unreadable = true
		c.report(o.place, badRow("%s", unreadable.Reason))
	case o.err != nil:
		c.report(o.place, o.err)
	default:
		return true
	}
	return false
}

// make makes the jobs of a piece, and says how many bytes they take.
func (c *checker) make(ctx context.Context, p piece) (out []outcome, size int, err error) {
	s := c.file.source
	if p.document == nil {
		out = make([]outcome, len(p.rows))
		for i, m := range p.rows {
			out[i] = c.job(s, m.Record, m.err)
			out[i].blank = m.blank
			size += m.size + len(out[i].line)
		}
		return out, size, nil
	}
	rec, warnings, err := s.record(ctx, *p.document)
	if err != nil && !ofDocument(ctx, err) {
		return nil, 0, err
	}
	o := c.job(s, rec, err)
	o.warnings = warnings
	return []outcome{o}, int(p.document.size) + len(o.line), nil
}

// ofDocument reports whether an error is of the one document, and not of the machine
// or of the network.
func ofDocument(ctx context.Context, err error) bool {
	_, unreadable := errors.AsType[*document.UnreadableError](err)
	_, bad := errors.AsType[*rowError](err)
	return ctx.Err() == nil && (unreadable || bad || errors.Is(err, fs.ErrNotExist))
}

// job makes the job of a record, unless err says that there is none.
func (c *checker) job(s *source, rec prompt.Record, err error) outcome {
	o := outcome{place: rec.Place, err: err}
	if err != nil || rec.ID == "" {
		return o
	}
	if o.line, o.err = s.opts.Template.Job(rec); o.err != nil {
		if e, ok := errors.AsType[*prompt.RecordError](o.err); ok {
			o.err = e.Err // the place is said anyway
		}
		return o
	}
	switch {
	case len(o.line) > maxLine:
		o.err = badRow("its job has %d MiB, and may have %d", len(o.line)>>20, maxLine>>20)
	case bytes.ContainsAny(o.line, "\n\t"):
		o.err = errors.New("its job is not on one line")
	default:
		o.job, o.err = jobs.Parse(o.line, c.run)
	}
	return o
}

// Records yields the records that jobs are made of, one after another, for looking at
// the first few. The first error ends it; it is the last pair.
func Records(ctx context.Context, arg string, opts Options) iter.Seq2[prompt.Record, error] {
	return func(yield func(prompt.Record, error) bool) {
		if opts.Template == nil {
			yield(prompt.Record{}, errors.New("records are made for a template: give one"))
			return
		}
		f, err := Open(ctx, arg, opts)
		if err != nil {
			yield(prompt.Record{}, err)
			return
		}
		defer f.Close()
		for p, err := range f.source.pieces(ctx) {
			if err != nil {
				yield(prompt.Record{}, err)
				return
			}
			if !f.source.each(ctx, p, yield) {
				return
			}
		}
	}
}

// each yields the records of a piece, and reports whether to go on.
func (s *source) each(ctx context.Context, p piece, yield func(prompt.Record, error) bool) bool {
	if p.document != nil {
		rec, _, err := s.record(ctx, *p.document)
		unreadable, ok := errors.AsType[*document.UnreadableError](err)
		switch {
		case ok && s.opts.SkipUnreadable:
			return true
		case ok:
			err = fmt.Errorf("%s: %s", rec.Place, unreadable.Reason)
		case ofDocument(ctx, err):
			err = fmt.Errorf("%s: %w", rec.Place, err)
		}
		return yield(rec, err) && err == nil
	}
	for _, m := range p.rows {
		if m.blank {
			continue
		}
		err := m.err
		if err != nil {
			err = fmt.Errorf("%s: %w", m.Place, err)
		}
		if !yield(m.Record, err) || err != nil {
			return false
		}
	}
	return true
}
