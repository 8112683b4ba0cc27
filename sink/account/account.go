package account

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"upwell/jobs"
	"upwell/sink"
)

// A Store is where runs are. s3sink.Sink is one. Its methods may be called
// concurrently.
type Store interface {
	// Manifest returns the manifest of a run. When there is none, the error
	// wraps [fs.ErrNotExist].
	Manifest(ctx context.Context, run string) (sink.Manifest, error)

	// IDs yields the submitted ids. An error is the last pair.
	IDs(ctx context.Context, m sink.Manifest) iter.Seq2[string, error]

	// Shards returns the shards with anything in them, ListShard what is in one,
	// and Strays what is in none.
	Shards(ctx context.Context, run string, kind sink.Kind) ([]byte, error)
	ListShard(ctx context.Context, run string, kind sink.Kind, shard byte) iter.Seq2[sink.Object, error]
	Strays(ctx context.Context, run string, kind sink.Kind) iter.Seq2[sink.Object, error]

	// ReadObject returns a line that a listing found. Of what is no line, the error
	// wraps [sink.ErrLine], and of what is there no more, [fs.ErrNotExist].
	ReadObject(ctx context.Context, o sink.Object) (jobs.Result, error)

	// Path returns where the line of a job belongs.
	Path(kind sink.Kind, k jobs.Key) string
}

// Options say what is compared with what. The zero Options compare names in the
// store with the run's index.
type Options struct {
	// IDs are the ids that were submitted, for a run that has no index. Default:
	// the index.
	IDs iter.Seq2[string, error]

	// Queued, if set, counts the messages that wait in the queue. It is called
	// before anything is listed, so that a job which is answered meanwhile is
	// found in one place at least.
	Queued func(context.Context) (int, error)

	// Read has every line read as well, and verified: that it is one, of that
	// job and run, with an answer or an error.
	Read bool

	// Parallel is how many shards are listed at a time at most. Default: 16.
	Parallel int

	// Dir is where temporary files go. Default: the system's folder for them.
	Dir string

	// Progress, if set, is kept up to date.
	Progress *Progress
}

// A Progress says how far a check is. It may be read at any time.
type Progress struct {
	IDs    atomic.Int64 // read from the index
	Shards atomic.Int64 // compared, of 256
	Lines  atomic.Int64 // read
}

const (
	// defaultParallel hides the 50 ms or so that a page of a listing takes. S3
	// lists each shard on its own.
	defaultParallel = 16

	// held bounds the ids in memory, in bytes: 16 shards of a run of ten million.
	// The garbage collector makes two or three times as much of it.
	held = 16 << 20

	// readers is how many lines are read at once, and readBytes how many bytes
	// of them: answers are mostly a few KiB, and seldom a MiB.
	readers   = 64
	readBytes = 64 << 20

	// maxStrays is how many objects that are no line in its place are looked into.
	// Beyond, they are unknown.
	maxStrays = 1000
)

// kinds are the folders that are looked through. A result comes first, as it
// makes the error line history.
var kinds = [...]sink.Kind{sink.Results, sink.Errors}

// A check is one account in the making.
type check struct {
	store Store
	run   string
	opts  Options
	ids   *spill

	present [len(kinds)][shards]bool
	bytes   *semaphore.Weighted

	mu     sync.Mutex // held briefly
	report Report
	strays []sink.Object
}

// Check draws up the account of a run. When nothing says what was submitted, the
// error wraps [sink.ErrNoIndex], and when what says so is incomplete,
// [sink.ErrBadIndex].
func Check(ctx context.Context, store Store, run string, opts Options) (Report, error) {
	if opts.Parallel <= 0 {
		opts.Parallel = defaultParallel
	}
	if opts.Progress == nil {
		opts.Progress = new(Progress)
	}
	c := &check{store: store, run: run, opts: opts, bytes: semaphore.NewWeighted(readBytes), report: Report{Run: run}}
	err := c.do(ctx)
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return c.report, fmt.Errorf("account: %w", err)
	}
	return c.report, nil
}

func (c *check) do(ctx context.Context) (err error) {
	if c.opts.Queued != nil {
		n, err := c.opts.Queued(ctx)
		if err != nil {
			return err
		}
		c.report.Queue = &n
	}
	if c.ids, err = newSpill(c.opts.Dir); err != nil {
		return err
	}
	defer c.ids.close()
	if err := c.submitted(ctx); err != nil {
		return err
	}
	if err := c.compare(ctx); err != nil {
		return err
	}
	if err := c.explain(ctx); err != nil {
		return err
	}
	c.report.settleMissing()
	return nil
}

// submitted gathers the ids that were submitted.
func (c *check) submitted(ctx context.Context) error {
	m, err := c.store.Manifest(ctx, c.run)
	missing := errors.Is(err, fs.ErrNotExist)
	if err != nil && !missing {
		return err
	}
	ids := c.opts.IDs
	switch {
	case ids != nil:
	case missing:
		return fmt.Errorf("%w: %w", sink.ErrNoIndex, err)
	default:
		ids = c.store.IDs(ctx, m)
	}
	c.report.Created = m.Created
	c.report.Submitted, err = c.ids.fill(ctx, ids, c.opts.Progress)
	return err
}

// compare compares what is stored with what was submitted.
func (c *check) compare(ctx context.Context) error {
	for i, kind := range kinds {
		found, err := c.store.Shards(ctx, c.run, kind)
		if err != nil {
			return err
		}
		for _, shard := range found {
			c.present[i][shard] = true
		}
	}
	reading, ctx := errgroup.WithContext(ctx)
	reading.SetLimit(readers)
	comparing, within := errgroup.WithContext(ctx)
	comparing.SetLimit(c.parallel())
	read := func(kind int, o sink.Object, id string) {
		if c.opts.Read {
			reading.Go(func() error { return c.read(ctx, kinds[kind], o, id) })
		}
	}
	for i := range shards {
		comparing.Go(func() error {
			defer c.opts.Progress.Shards.Add(1)
			return c.compareShard(within, byte(i), read)
		})
	}
	comparing.Go(func() error { return c.gather(within) })
	err := comparing.Wait()
	if failed := reading.Wait(); failed != nil {
		return failed // and all else follows from it
	}
	return err
}

// parallel is how many shards may be in memory.
func (c *check) parallel() int {
	return max(1, min(c.opts.Parallel, held/(entrySize*max(1, c.ids.largest()))))
}

// add adds to the report.
func (c *check) add(part *Report) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.report.merge(part)
}
