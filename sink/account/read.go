package account

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/sync/errgroup"

	"upwell/jobs"
	"upwell/sink"
)

// maxLine is more than any line has: what is larger is not read.
const maxLine = 32 << 20

// read reads and verifies the line o of a job.
func (c *check) read(ctx context.Context, kind sink.Kind, o sink.Object, id string) error {
	r, reason, err := c.line(ctx, o)
	if err != nil {
		return err
	}
	if reason == "" {
		reason = c.flaw(kind, r, id)
	}
	part := &Report{Read: 1}
	if reason != "" {
		part.Damaged.add(Example{CustomID: id, Path: o.Path, Note: reason})
	}
	c.add(part)
	c.opts.Progress.Lines.Add(1)
	return nil
}

// line returns a line, or why it cannot be one. An error is that of reading.
func (c *check) line(ctx context.Context, o sink.Object) (r jobs.Result, reason string, err error) {
	switch {
	case o.Size == 0:
		return r, "it is empty", nil
	case o.Size > maxLine:
		return r, fmt.Sprintf("it has %d bytes, more than any line", o.Size), nil
	}
	if err := c.bytes.Acquire(ctx, o.Size); err != nil {
		return r, "", err
	}
	defer c.bytes.Release(o.Size)
	r, err = c.store.ReadObject(ctx, o)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return r, "it was removed meanwhile", nil
	case errors.Is(err, sink.ErrLine): // the text that was read, and not reading it
		return r, "it is not a line of JSON", nil
	}
	return r, "", err
}

// flaw returns what is wrong with the line of a job, or nothing.
func (c *check) flaw(kind sink.Kind, r jobs.Result, id string) string {
	answered := r.Response != nil && len(r.Response.Body) > 0 && r.Error == nil
	switch {
	case r.CustomID != id:
		return fmt.Sprintf("it is the line of %q", r.CustomID)
	case r.Upwell.Run != c.run:
		return fmt.Sprintf("it is of run %q", r.Upwell.Run)
	case kind == sink.Results && !answered:
		return "it has no answer"
	case kind == sink.Errors && r.Error == nil:
		return "it has no error"
	default:
		return ""
	}
}

// gather gathers what lies beside the shards.
func (c *check) gather(ctx context.Context) error {
	for _, kind := range kinds {
		for o, err := range c.store.Strays(ctx, c.run, kind) {
			if err != nil {
				return err
			}
			c.stray(o)
		}
	}
	return nil
}

// stray notes an object that is no line in its place.
func (c *check) stray(o sink.Object) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.strays) < maxStrays {
		c.strays = append(c.strays, o)
		return
	}
	c.report.Unknown.add(Example{Path: o.Path, Note: notALine})
}

// explain looks into the strays.
func (c *check) explain(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(readers)
	for _, o := range c.strays {
		g.Go(func() error {
			r, reason, err := c.line(ctx, o)
			if err != nil {
				return err
			}
			ours := reason == "" && r.Upwell.Run == c.run
			if ours {
				ours, err = c.ids.has(r.CustomID)
			}
			c.blame(o, r, ours)
			return err
		})
	}
	return g.Wait()
}

// blame reports a stray: that it is the line r of a job that was submitted, or
// that it is not.
func (c *check) blame(o sink.Object, r jobs.Result, ours bool) {
	part := new(Report)
	e := Example{CustomID: r.CustomID, Path: o.Path}
	if ours {
		e.Note = "not in its place, " + c.store.Path(kindOf(r), c.key(r.CustomID))
		part.Double.add(e)
	} else {
		e.Note = notALine
		part.Unknown.add(e)
	}
	c.add(part)
}

// notALine is what is said of an object that no job could have.
const notALine = "not the name of a line"

// kindOf returns where a line belongs.
func kindOf(r jobs.Result) sink.Kind {
	if r.Error != nil {
		return sink.Errors
	}
	return sink.Results
}
