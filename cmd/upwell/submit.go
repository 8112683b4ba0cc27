package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"time"

	"upwell/cmd/internal/awsconf"
	"upwell/cmd/internal/estimate"
	"upwell/cmd/internal/input"
	"upwell/jobs"
	"upwell/jobs/sqsqueue"
	"upwell/sink"
	"upwell/sink/s3sink"
)

// submitCmd queues a file as a run.
type submitCmd struct {
	Input string `arg:"" placeholder:"INPUT" help:"${input_help}"`
	inputFlags
	schemaFlags
	submitPlace
	awsFlags
	budgetFlags
	estimateFlags

	Prices      string        `group:"Estimate:" type:"existingfile" placeholder:"FILE" env:"UPWELL_PRICES" help:"JSON file of prices that come before the built-in ones, for the estimate."`
	RunName     string        `name:"run" placeholder:"NAME" env:"UPWELL_RUN" help:"Name of the run. Default: the file's name."`
	Again       bool          `help:"Of a run that was submitted before, queue the jobs that have neither an answer nor failed. What the run has is looked up or listed, whichever takes fewer requests to S3; jobs that still wait in the queue will be there twice."`
	RetryFailed bool          `help:"With --again: queue the jobs that failed as well."`
	HoldBack    time.Duration `default:"15m" env:"UPWELL_HOLD_BACK" help:"After a submit was killed, a few jobs may be queued a second time. How long that second message is held back, so that the first is answered by then: longer than a call takes, and 15m at most. FIFO queues hold nothing back."`
	DryRun      bool          `help:"Check the input, and queue nothing."`
	Quiet       bool          `short:"q" help:"No progress."`
}

// submitPlace says where queue and results are, as far as they are needed.
type submitPlace struct {
	Bucket    string `group:"Storage:" placeholder:"BUCKET" env:"UPWELL_BUCKET" help:"S3 bucket for results, or s3://bucket/prefix. Needed, but for --dry-run."`
	Prefix    string `group:"Storage:" placeholder:"PREFIX" env:"UPWELL_PREFIX" help:"Prefix of all keys in the bucket."`
	Queue     string `group:"Storage:" placeholder:"QUEUE" env:"UPWELL_QUEUE" help:"SQS queue of jobs, by name or URL. Needed, but for --dry-run and --estimate."`
	DeadQueue string `group:"Storage:" placeholder:"QUEUE" env:"UPWELL_DEAD_QUEUE" help:"Dead-letter queue. Default: the target of the queue's redrive policy."`
}

// given reports what is needed and not there.
func (c *submitCmd) given() error {
	switch {
	case c.DryRun:
		return nil
	case c.Bucket == "":
		return errors.New("no bucket: name it with --bucket or UPWELL_BUCKET")
	case c.Queue == "" && !c.Estimate:
		return errors.New("no queue: name it with --queue or UPWELL_QUEUE")
	default:
		return nil
	}
}

// Run submits the file.
func (c *submitCmd) Run(ctx context.Context, e env) error {
	if err := c.given(); err != nil {
		return fail(exitUsage, err)
	}
	e = e.shows(c.JSON, c.Quiet)
	c.profile = c.Profile
	file, template, err := c.openInput(ctx, e, c.Input)
	if err != nil {
		return err
	}
	defer file.Close()
	if c.RunName == "" {
		c.RunName = file.Run()
	}
	if err := c.check(); err != nil {
		return fail(exitUsage, err)
	}
	schemas, err := c.read()
	if err == nil {
		err = schemas.join(template)
	}
	if err != nil {
		return fail(exitUsage, err)
	}
	prices, err := pricesFor(c.Prices)
	if err != nil {
		return fail(exitUsage, err)
	}
	tally := estimate.NewTally()
	sum, err := checked(ctx, e, file, c.RunName, &schemas, tally)
	if err != nil {
		return err
	}
	if c.DryRun {
		if c.JSON {
			return json.NewEncoder(e.stdout).Encode(submitted{Run: c.RunName, Jobs: sum.Count, DryRun: true})
		}
		fmt.Fprintf(e.stdout, "%s: %d jobs, all good; nothing was queued\n", file.Name, sum.Count)
		return nil
	}
	conf, err := awsconf.Load(ctx, awsconf.Options{Profile: c.Profile, Connections: senders * handed, Log: e.log})
	if err != nil {
		return fail(exitConfig, err)
	}
	storage := storageFlags{Bucket: c.Bucket, Prefix: c.Prefix}
	results, err := storage.sink(ctx, conf)
	if err != nil {
		return err
	}
	outlook := c.expect(ctx, e, results, c.RunName, tally, prices, 0)
	if c.Estimate {
		return outlook.print(e.stdout, c.JSON)
	}
	jobQueue := queueFlags{Queue: c.Queue, DeadQueue: c.DeadQueue}
	queue, err := jobQueue.open(ctx, conf, e, 0)
	if err != nil {
		return err
	}
	m, existed, err := record(ctx, results, file, c.RunName, sum, &schemas, outlook.usd(tally.Tier), true)
	if err != nil {
		return err
	}
	if err := c.setBudget(ctx, e, results, c.RunName); err != nil { // before there are jobs to pay for
		return err
	}
	tracer, err := tracing(ctx, e)
	if err != nil {
		return err
	}
	defer sendTraces(ctx, e, tracer)
	s := submission{
		env: e, file: file, name: c.RunName, schemas: &schemas, queue: queue, results: results, traces: tracer, to: c.Queue,
		holdBack: c.HoldBack, retryFailed: c.RetryFailed, anew: c.Again, asJSON: c.JSON,
	}
	if err := c.resume(ctx, &s, m, existed); err != nil {
		return err
	}
	return s.run(ctx, existed)
}

// check reports flags that make no sense.
func (c *submitCmd) check() error {
	if err := jobs.CheckRun(c.RunName); err != nil {
		return fmt.Errorf("--run: %w", err)
	}
	if err := c.checkBudget(); err != nil {
		return err
	}
	switch {
	case c.RetryFailed && !c.Again:
		return errors.New("--retry-failed goes with --again: upwell dead redrive sends failed jobs back as well")
	case c.HoldBack < 0 || c.HoldBack > maxHoldBack:
		return fmt.Errorf("--hold-back %s: want 0 to %s, which is the longest that SQS takes", c.HoldBack, maxHoldBack)
	}
	return nil
}

// maxHoldBack is the longest delay of a message.
const maxHoldBack = 15 * time.Minute

// resume finds out where the submitting of a run goes on. existed says that the
// manifest was there: of a run that an older upwell submitted, which kept no
// checkpoint, all jobs may be queued.
func (c *submitCmd) resume(ctx context.Context, s *submission, m sink.Manifest, existed bool) error {
	at, version, err := s.results.Checkpoint(ctx, m.Run)
	switch {
	case err == nil && at.InputSHA256 == m.InputSHA256 && at.Count == m.Count:
		if at = at.Resumed(); at.Complete.IsZero() { // who sent what is in doubt may have sent it just now
			s.since = time.Now()
		}
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return fail(exitConfig, err)
	default: // there is none, or one of another input, whose manifest is gone
		at = sink.Checkpoint{Run: m.Run, InputSHA256: m.InputSHA256, Count: m.Count}
		if existed && (err == nil || !m.Checkpoint) {
			at.Queued, at.Begun, at.Doubts = m.Count, m.Count, []sink.Doubt{{From: 0, To: m.Count}}
		}
	}
	if c.Again {
		if at.Doubts, at.Complete = nil, (time.Time{}); at.Queued > 0 {
			at.Doubts = []sink.Doubt{{From: 0, To: at.Queued}}
		}
	}
	s.checkpoint, s.version = at, version
	return nil
}

// checked reads the whole file before anything is done with it, and adds its jobs to
// the tally, if there is one.
func checked(ctx context.Context, e env, file *input.File, run string, s *schemas, tally *estimate.Tally) (input.Summary, error) {
	fits := func(job jobs.Job, line []byte) error {
		if tally != nil {
			tally.Add(job, s.of(job))
		}
		if err := s.check(job); err != nil {
			return err
		}
		text, err := dressed(job, line, run, s)
		switch {
		case err != nil:
			return err
		case len(text) > maxJob:
			return fmt.Errorf("%d bytes: a job takes at most %d, with the run's name in it", len(text), maxJob)
		case len(text) > sqsqueue.MaxMessage/2: // it may be stored, and what is sent refers to it
			return nil
		}
		return sqsqueue.Fits(text)
	}
	sum, err := inspect(ctx, e, file, run, fits)
	if ctx.Err() != nil {
		return sum, fail(exitInterrupted, errors.New("interrupted; nothing was queued: run the same command again"))
	}
	return sum, failInput(err)
}

// record stores what is submitted, and returns what is stored then, and whether it was
// before. usd is what it is expected to cost, or zero, and checkpointed says that a
// checkpoint is kept.
//
// The index of ids comes before the manifest, and the manifest before any job. So
// where there is a manifest there is a whole index, and whatever a kill left
// undone is done when the same input is submitted again.
func record(ctx context.Context, results *s3sink.Sink, file *input.File, run string, sum input.Summary, s *schemas, usd float64, checkpointed bool) (stored sink.Manifest, existed bool, err error) {
	m := sink.Manifest{
		Run: run, Created: time.Now().UTC(), Count: sum.Count, Input: filepath.Base(file.Name), InputSHA256: sum.SHA256,
		IDParts: sink.IDParts(sum.Count), Models: slices.Sorted(maps.Keys(sum.Models)),
		Template: file.Template, Schemas: s.byName, Checkpoint: checkpointed, EstimateUSD: usd,
	}
	stored, err = results.Manifest(ctx, run)
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
		return stored, true, fail(exitUsage, fmt.Errorf("run %q exists, with %d jobs of %s, submitted %s, and the input, the template or the schemas differ: choose another name with --run",
			run, stored.Count, stored.Input, stored.Created.Format(time.DateTime)))
	case ctx.Err() != nil:
		return stored, false, fail(exitInterrupted, errors.New("interrupted; nothing was queued: run the same command again"))
	}
	return stored, !stored.Created.Equal(m.Created), fail(exitConfig, err)
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
