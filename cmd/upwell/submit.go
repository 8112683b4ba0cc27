package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"upwell/cmd/internal/awsconf"
	"upwell/cmd/internal/input"
	"upwell/jobs"
	"upwell/jobs/sqsqueue"
	"upwell/sink"
	"upwell/sink/s3sink"
)

// submitCmd queues a file as a run.
type submitCmd struct {
	Input string `arg:"" placeholder:"INPUT" help:"OpenAI batch file (JSONL), or - for standard input."`
	schemaFlags
	queueFlags
	storageFlags
	awsFlags

	RunName string `name:"run" placeholder:"NAME" env:"UPWELL_RUN" help:"Name of the run. Default: the file's name."`
	DryRun  bool   `help:"Check the file, and queue nothing."`
}

// senders is how many batches are sent at once: with a 20 ms round trip, 16 of
// ten messages make 8,000 a second, more than a disk gives out of JSON.
const senders = 16

// Run submits the file.
func (c *submitCmd) Run(ctx context.Context, e env) error {
	file, err := input.Open(c.Input, e.stdin)
	if err != nil {
		return fail(exitUsage, err)
	}
	defer file.Close()
	if c.RunName == "" {
		c.RunName = file.Run()
	}
	if err := jobs.CheckRun(c.RunName); err != nil {
		return fail(exitUsage, fmt.Errorf("--run: %w", err))
	}
	schemas, err := c.read()
	if err != nil {
		return fail(exitUsage, err)
	}
	sum, err := checked(ctx, file, c.RunName, &schemas)
	if err != nil {
		return err
	}
	if c.DryRun {
		fmt.Fprintf(e.stdout, "%s: %d jobs, all good; nothing was queued\n", file.Name, sum.Count)
		return nil
	}
	conf, err := awsconf.Load(ctx, awsconf.Options{Profile: c.Profile, Connections: senders})
	if err != nil {
		return fail(exitConfig, err)
	}
	queue, err := c.open(ctx, conf, e, 0)
	if err != nil {
		return err
	}
	results, err := c.sink(ctx, conf)
	if err != nil {
		return err
	}
	again, err := record(ctx, results, file, c.RunName, sum, &schemas)
	if err != nil {
		return err
	}
	if err := c.send(ctx, e, queue, file, sum.Count, again, &schemas); err != nil {
		return err
	}
	fmt.Fprintf(e.stdout, "run %s: %d jobs queued\nnext: upwell status %s --watch\n", c.RunName, sum.Count, c.RunName)
	return nil
}

// checked reads the whole file before anything is done with it.
func checked(ctx context.Context, file *input.File, run string, s *schemas) (input.Summary, error) {
	fits := func(job jobs.Job, line []byte) error {
		if err := s.check(job); err != nil {
			return err
		}
		text, err := dressed(job, line, run, s)
		if err != nil {
			return err
		}
		return sqsqueue.Fits(text)
	}
	sum, err := input.Check(ctx, file, run, fits)
	if ctx.Err() != nil {
		return sum, fail(exitInterrupted, errors.New("interrupted; nothing was queued"))
	}
	return sum, fail(exitUsage, err)
}

// record stores what is submitted, and reports whether it has been
// before: then every job may be queued, or answered, already.
//
// The index of ids comes before the manifest, and the manifest before any job. So
// where there is a manifest there is a whole index, and whatever a kill left
// undone is done when the same input is submitted again.
func record(ctx context.Context, results *s3sink.Sink, file *input.File, run string, sum input.Summary, s *schemas) (again bool, err error) {
	m := sink.Manifest{
		Run: run, Created: time.Now().UTC(), Count: sum.Count, Input: filepath.Base(file.Name), InputSHA256: sum.SHA256,
		IDParts: sink.IDParts(sum.Count), Models: slices.Sorted(maps.Keys(sum.Models)),
		Schemas: s.byName,
	}
	stored, err := results.Manifest(ctx, run)
	if err == nil && !stored.Same(m) {
		err = s3sink.ErrOtherRun
	}
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		if err = index(ctx, results, file, m); err == nil {
			stored, err = results.PutManifest(ctx, m)
		}
	}
	switch {
	case errors.Is(err, s3sink.ErrOtherRun):
		return false, fail(exitUsage, fmt.Errorf("run %q exists, with %d jobs of %s, submitted %s, and the input or the schemas differ: choose another name with --run",
			run, stored.Count, stored.Input, stored.Created.Format(time.DateTime)))
	case ctx.Err() != nil:
		return false, fail(exitInterrupted, errors.New("interrupted; nothing was queued"))
	}
	return !stored.Created.Equal(m.Created), fail(exitConfig, err)
}

// index stores the ids of the run, in the order of the file. It holds one part of
// them.
func index(ctx context.Context, results *s3sink.Sink, file *input.File, m sink.Manifest) error {
	var ids []string
	part := 0
	for item, err := range file.Jobs(m.Run) {
		if err != nil {
			return err
		}
		if ids = append(ids, item.Job.CustomID); len(ids) < m.IDsIn(part) {
			continue
		}
		if err := results.PutIDs(ctx, m.Run, m.InputSHA256, part, ids); err != nil {
			return err
		}
		ids, part = ids[:0], part+1
	}
	if len(ids) > 0 || part != m.IDParts {
		return fmt.Errorf("%s: changed since it was checked: it had %d jobs", file.Name, m.Count)
	}
	return nil
}

// send queues the jobs, several batches at a time.
func (c *submitCmd) send(ctx context.Context, e env, queue *sqsqueue.Queue, file *input.File, total int, again bool, s *schemas) error {
	if again {
		fmt.Fprintf(e.stderr, "run %s was submitted before: jobs that have an answer will not be paid for again\n", c.RunName)
	}
	g, sending := errgroup.WithContext(ctx)
	g.SetLimit(senders)
	var batch []sqsqueue.Outgoing
	var queued atomic.Int64
	stop := showing(e, func() string { return fmt.Sprintf("%d/%d queued", queued.Load(), total) })
	defer stop()
	flush := func() {
		full := batch
		batch = nil
		g.Go(func() error { return queue.Send(sending, full) })
	}
	for item, err := range file.Jobs(c.RunName) {
		if err != nil || sending.Err() != nil {
			_ = g.Wait()
			return c.stopped(ctx, queued.Load(), total, err)
		}
		batch = append(batch, outgoing(item, c.RunName, again, s))
		if len(batch) == handed {
			flush()
		}
		queued.Add(1)
	}
	flush()
	if err := g.Wait(); err != nil {
		return c.stopped(ctx, queued.Load(), total, err)
	}
	return nil
}

// handed is how many messages are handed over at a time: what one request takes.
const handed = 10

func (c *submitCmd) stopped(ctx context.Context, queued int64, total int, err error) error {
	code := exitConfig
	if ctx.Err() != nil {
		code, err = exitInterrupted, errors.New("interrupted")
	}
	return fail(code, fmt.Errorf("%w after some %d of %d jobs were queued: run the same command again to queue the rest; what has an answer is not paid for twice",
		err, queued, total))
}

// outgoing is a job on its way to the queue.
func outgoing(item input.Item, run string, again bool, s *schemas) sqsqueue.Outgoing {
	text, err := dressed(item.Job, item.Text, run, s)
	if err != nil { // it was checked
		text = item.Text
	}
	return sqsqueue.Outgoing{Body: bytes.Clone(text), Again: again}
}

// dressed returns the text of a job with its run's name on it, and the run's schema
// if it has none.
func dressed(job jobs.Job, text []byte, run string, s *schemas) ([]byte, error) {
	text, err := s.give(job, text)
	if err != nil {
		return nil, err
	}
	return jobs.InRun(text, run)
}
