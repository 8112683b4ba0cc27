package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"upwell/cmd/internal/ordered"
	"upwell/cmd/internal/progress"
	"upwell/jobs"
	"upwell/jobs/skim"
	"upwell/sink"
	"upwell/sink/s3sink"
	"upwell/sink/table"
)

// counts is what was written.
type counts struct {
	answered, failed int
	bare             int   // answers of which no column has anything
	nulls            []int // by column
}

// rows writes a row for each job.
func (x *export) rows(ctx context.Context, parts *table.Parts) (n counts, err error) {
	n.nulls = make([]int, len(x.table.Columns))
	source := x.submitted
	if x.Unordered {
		source = x.stored
	}
	var done atomic.Int64
	stop := x.show(&done)
	defer stop()
	for r, err := range ordered.Map(ctx, source, ordered.Limits{Window: exportWindow, Bytes: exportBytes}, x.row) {
		if err != nil {
			return n, err
		}
		done.Add(1)
		if r.Line == nil {
			continue
		}
		if err := parts.Write(ctx, r); err != nil {
			return n, fail(exitConfig, err)
		}
		n.add(x.table, r)
	}
	return n, nil
}

func (n *counts) add(t *table.Table, r table.Row) {
	if r.Answered {
		n.answered++
	} else {
		n.failed++
	}
	if t.Bare(r) {
		n.bare++
	}
	for i := range n.nulls {
		if r.Null(i) {
			n.nulls[i]++
		}
	}
}

// A line is one that is to be read: that of a job, or one that a listing found.
type line struct {
	customID string
	kind     sink.Kind // of object
	object   s3sink.Object
}

// String names the line in an error.
func (l line) String() string {
	if l.object.Path != "" {
		return l.object.Path
	}
	return fmt.Sprintf("job %q", l.customID)
}

// submitted yields the jobs in the order of the input.
func (x *export) submitted(ctx context.Context) iter.Seq2[line, error] {
	return func(yield func(line, error) bool) {
		for id, err := range x.from.IDs(ctx, x.manifest) {
			if !yield(line{customID: id}, fail(exitConfig, err)) {
				return
			}
		}
	}
}

// listers is how many shards are listed at once. Each page has 1,000 lines, so a few
// keep all readers busy.
const listers = 8

// stored yields the lines in storage, several shards at a time.
func (x *export) stored(ctx context.Context) iter.Seq2[line, error] {
	return func(yield func(line, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		found := make(chan line) // the listers send; closed when they are done
		var listing sync.WaitGroup
		var err error
		listing.Go(func() {
			defer close(found)
			err = x.list(ctx, found)
		})
		defer listing.Wait()
		defer cancel()
		for l := range found {
			if !yield(l, nil) {
				return
			}
		}
		if err != nil {
			yield(line{}, fail(exitConfig, err))
		}
	}
}

// list sends what is stored.
func (x *export) list(ctx context.Context, found chan<- line) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(listers)
	for _, kind := range x.kinds() {
		shards, err := x.from.Shards(ctx, x.RunName, kind)
		if err != nil {
			return errors.Join(err, g.Wait())
		}
		for _, shard := range shards {
			g.Go(func() error { return x.listShard(ctx, kind, shard, found) })
		}
	}
	return g.Wait()
}

// kinds are the kinds of lines that are exported.
func (x *export) kinds() []sink.Kind {
	if x.AnsweredOnly {
		return []sink.Kind{sink.Results}
	}
	return []sink.Kind{sink.Results, sink.Errors}
}

func (x *export) listShard(ctx context.Context, kind sink.Kind, shard byte, found chan<- line) error {
	for o, err := range x.from.ListShard(ctx, x.RunName, kind, shard) {
		if err != nil {
			return err
		}
		if o.Key.CustomID == "" && !o.Whole {
			continue // no line: the account has it
		}
		select {
		case found <- line{kind: kind, object: o}:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// row reads a line and makes a row of it. It is empty where there is none to be
// written.
func (x *export) row(ctx context.Context, l line) (table.Row, int, error) {
	text, kind, err := x.read(ctx, l)
	switch {
	case errors.Is(err, sink.ErrLine):
		return table.Row{}, 0, fail(exitFailed, x.damaged(err))
	case err != nil:
		return table.Row{}, 0, fail(exitConfig, err)
	case text == nil:
		return table.Row{}, 0, nil
	}
	r, err := x.table.Row(text, kind == sink.Results)
	switch {
	case errors.Is(err, table.ErrLine):
		err = x.damaged(fmt.Errorf("%s: %w", l, err))
	case err == nil && !x.Unordered && r.CustomID != l.customID:
		err = x.damaged(fmt.Errorf("%s: the line in its place is of %q", l, r.CustomID))
	case err == nil && skim.Find(text, 0, lineHas[kind]).Unset(text):
		err = x.damaged(fmt.Errorf("%s: the line has no %s", l, lineHas[kind]))
	}
	return r, r.Size(), fail(exitFailed, err)
}

// lineHas is what a line of each kind has, and no other.
var lineHas = map[sink.Kind]string{sink.Results: "response", sink.Errors: "error"}

// damaged says where to find out more about a line that is not what its place says.
func (x *export) damaged(err error) error {
	return fmt.Errorf("%w: see upwell verify %s --read", err, x.RunName)
}

// read reads a line. There may be none: the job failed and only answers are wanted,
// an error line is history, or the job is missing, which the account knows.
func (x *export) read(ctx context.Context, l line) (text []byte, kind sink.Kind, err error) {
	key := jobs.Key{Run: x.RunName, CustomID: l.customID}
	switch {
	case x.Unordered:
		text, err := x.from.ReadStanding(ctx, l.kind, l.object)
		return text, l.kind, err
	case x.AnsweredOnly:
		text, err = x.from.ReadRaw(ctx, sink.Results, key)
		kind = sink.Results
	default:
		text, kind, err = x.from.Settled(ctx, key)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, kind, nil
	}
	return text, kind, err
}

// show shows how far the export is, until it is told to stop: how many jobs it has been
// through, whether they have a row or not.
func (x *export) show(done *atomic.Int64) (stop func()) {
	s := progress.Step{What: "writing", Unit: "jobs", Total: int64(x.manifest.Count)}
	if x.Unordered {
		s.Unit, s.Total = "rows", int64(x.report.Answered)
		if !x.AnsweredOnly {
			s.Total += int64(x.report.Failed)
		}
	}
	return progress.NewTask(func() progress.Step {
		now := s
		now.Done = done.Load()
		return now
	}).Show(x.console())
}
