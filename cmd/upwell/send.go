package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"upwell/cmd/internal/input"
	"upwell/cmd/internal/progress"
	"upwell/cmd/internal/traces"
	"upwell/cmd/internal/trail"
	"upwell/jobs"
	"upwell/jobs/sqsqueue"
	"upwell/sink"
	"upwell/sink/s3sink"
)

const (
	// handed is how many messages are handed over at a time: what one request takes.
	handed = 10

	// senders is how many batches are sent at once: with a 20 ms round trip, 16 of
	// ten messages make 8,000 a second, more than a disk gives out of JSON.
	senders = 16

	// heldBytes bounds the jobs under way: 16 MiB in messages, or a few of the
	// largest, which go to S3. It is no less than the largest.
	heldBytes = 64 << 20

	// maxJob is the most that a job may take, as it is stored or sent, in bytes: an
	// image of 20 MiB in base64, and a long prompt.
	maxJob = 32 << 20

	// stowTimeout bounds the storing of a job in S3, which goes on when a submit is
	// interrupted.
	stowTimeout = 2 * time.Minute
)

// A submission is a run on its way to the queue. First come the jobs that have never
// been sent, and last those in doubt, which may be in the queue already.
//
// A job in doubt is left out if it is settled. Else its message is marked, so that a
// worker looks it up before it pays, and it is held back: were it received while its
// twin is being answered by another worker, that one's result would not be there yet.
// With the twin being answered within the time that it is held back, it is found. What
// remains is a twin that is received as late as that, and by another worker: because
// none was running, or a backlog lay before it, and few other messages lie between the
// two, as the submit was killed near the input's end. So many jobs as were in doubt
// and in flight at once may be paid for twice then. On a FIFO queue the two are in one
// group, and SQS hands out the second when the first is gone.
type submission struct {
	env
	file    *input.File
	name    string // of the run
	schemas *schemas
	queue   *sqsqueue.Queue
	results *s3sink.Sink
	traces  *traces.Traces // nil for none
	to      string         // the queue's name or URL, for them

	// holdBack is how long after since jobs in doubt are held back. Since then nobody
	// else is sending.
	holdBack time.Duration
	since    time.Time

	// retryFailed sends what failed as well, of what is in doubt. anew says that doubts
	// are by the user's wish: a FIFO queue must not take what is sent for what was.
	retryFailed, anew bool

	asJSON bool // how it ended is told in JSON

	// What is stored. store alone changes it, one call at a time.
	checkpoint sink.Checkpoint
	version    string
	by         string

	lookUp  func(context.Context, jobs.Key) (settled bool, err error)
	total   int   // jobs of the run
	before  int64 // of them, dealt with before this process
	start   time.Time
	held    *semaphore.Weighted
	dealt   atomic.Int64 // jobs that are queued, or need not be
	queued  atomic.Int64 // by this process
	delayed atomic.Int64 // of those, held back
}

// A dispatch is a job on its way.
type dispatch struct {
	key   jobs.Key
	text  []byte
	doubt bool // whether it is in doubt
}

// run queues what is left of the run, and says so. existed says that it was submitted
// before.
func (s *submission) run(ctx context.Context, existed bool) error {
	at := s.checkpoint
	if !at.Complete.IsZero() {
		if s.asJSON {
			return s.encode(submitted{Run: s.name, Jobs: at.Count, Complete: at.Complete})
		}
		fmt.Fprintf(s.stdout, "run %s: all %d jobs were queued on %s; nothing to do (--again queues those without an answer)\n",
			s.name, at.Count, at.Complete.Local().Format(time.DateTime))
		return nil
	}
	if existed {
		fmt.Fprintf(s.stderr, "run %s was submitted before: of %d jobs, %d are not queued yet, and %d may be\n",
			s.name, at.Count, at.Count-at.Begun, at.Doubtful())
	}
	if err := s.do(ctx); err != nil {
		return s.stopped(ctx, err)
	}
	return s.conclude()
}

// do sends all that the checkpoint says is left.
func (s *submission) do(ctx context.Context) error {
	s.by, s.start, s.held = rand.Text(), time.Now(), semaphore.NewWeighted(heldBytes)
	from := s.checkpoint
	s.total = from.Count
	s.before = int64(from.Queued - from.Doubtful())
	s.dealt.Store(s.before)
	stop := progress.NewTask(s.step).Show(s.console())
	defer stop()
	if from.Queued < from.Count {
		err := s.pass(ctx, s.rest(from.Queued), trail.New(from.Queued, from.Count, func(ctx context.Context, queued, begun int) error {
			c := from
			c.Queued, c.Begun = queued, begun
			return s.store(ctx, c)
		}))
		if err != nil {
			return err
		}
	}
	from = s.checkpoint
	n := from.Doubtful()
	if n == 0 {
		return nil
	}
	if err := s.prepareLookUps(ctx, n); err != nil {
		return err
	}
	return s.pass(ctx, s.doubtful(from.Doubts), trail.New(0, n, func(ctx context.Context, queued, begun int) error {
		return s.store(ctx, from.Dealt(queued, begun))
	}))
}

// store stores a checkpoint.
func (s *submission) store(ctx context.Context, c sink.Checkpoint) (err error) {
	c.By, c.Updated = s.by, time.Now().UTC()
	if c.Queued == c.Count && len(c.Doubts) == 0 {
		c.Complete = c.Updated
	}
	if s.version, err = s.results.PutCheckpoint(ctx, c, s.version); err == nil {
		s.checkpoint = c
	}
	return err
}

// pass sends the jobs, several batches at a time, in step with the trail. Once ctx
// ends, or one cannot be sent, it sends no more than it has begun.
func (s *submission) pass(ctx context.Context, all iter.Seq2[dispatch, error], t *trail.Trail) error {
	running, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var g errgroup.Group
	g.SetLimit(senders)
	for batch, err := range batches(all) {
		if err == nil {
			err = s.sendSoon(running, &g, batch, t, stop)
		}
		if err != nil {
			stop(err)
			break
		}
	}
	_ = g.Wait() // it has told stop
	err := context.Cause(running)
	if closed := t.Close(ctx); err == nil {
		err = closed
	}
	return err
}

// sendSoon waits until the batch may be sent, and has g do it.
func (s *submission) sendSoon(ctx context.Context, g *errgroup.Group, batch []dispatch, t *trail.Trail, stop context.CancelCauseFunc) error {
	size := int64(0)
	for _, d := range batch {
		size += int64(len(d.text))
	}
	if err := s.held.Acquire(ctx, size); err != nil {
		return context.Cause(ctx)
	}
	first, err := t.Next(ctx, len(batch))
	if err != nil {
		s.held.Release(size)
		return err
	}
	g.Go(func() error {
		defer s.held.Release(size)
		// What is begun is ended, so that nobody has to wonder what became of it.
		if err := s.send(context.WithoutCancel(ctx), batch); err != nil {
			stop(err)
			return err
		}
		t.Done(first, len(batch))
		s.dealt.Add(int64(len(batch)))
		return nil
	})
	return nil
}

// send queues the jobs of a batch that are not settled.
func (s *submission) send(ctx context.Context, batch []dispatch) error {
	ready := make([]*sqsqueue.Outgoing, len(batch))
	g, preparing := errgroup.WithContext(ctx)
	for i, d := range batch {
		if !d.doubt && s.queue.Holds(d.text) {
			ready[i] = &sqsqueue.Outgoing{Body: d.text}
			continue
		}
		g.Go(func() (err error) {
			ready[i], err = s.prepare(preparing, d)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	out := make([]sqsqueue.Outgoing, 0, len(batch))
	sent := make([]func(error), 0, len(batch)) // of their traces
	for i, o := range ready {
		if o == nil {
			continue
		}
		trace, end := s.traces.Send(s.to, batch[i].key, time.Now()) //nolint:contextcheck // each job has a trace of its own
		o.Trace = trace
		out, sent = append(out, *o), append(sent, end)
	}
	err := s.queue.Send(ctx, out)
	for _, end := range sent {
		end(err)
	}
	if err != nil {
		return err
	}
	s.queued.Add(int64(len(out)))
	for _, o := range out {
		if o.Delay > 0 {
			s.delayed.Add(1)
		}
	}
	return nil
}

// prepare returns the message of a job that takes more than sending it, or nil if it
// is settled.
func (s *submission) prepare(ctx context.Context, d dispatch) (*sqsqueue.Outgoing, error) {
	var o sqsqueue.Outgoing
	if d.doubt {
		done, err := s.lookUp(ctx, d.key)
		if done || err != nil {
			return nil, err
		}
		o.Again = true
		if s.anew {
			o.Once = rand.Text()
		}
		if !s.queue.FIFO() {
			o.Delay = max(0, s.holdBack-time.Since(s.since))
		}
	}
	var err error
	o.Body, err = stowed(ctx, s.queue, s.results, d.key, d.text)
	return &o, err
}

// stowed returns the message of a job: its text, or where in S3 that is stored when a
// message has no room for it. It is stored first.
func stowed(ctx context.Context, queue *sqsqueue.Queue, results *s3sink.Sink, k jobs.Key, text []byte) ([]byte, error) {
	if queue.Holds(text) {
		return text, nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, stowTimeout, fmt.Errorf("S3 has not taken it within %v", stowTimeout))
	defer cancel()
	ref, err := results.PutJob(ctx, k, text)
	return sqsqueue.Reference(k, ref), err
}

// rest yields the jobs from one number on.
func (s *submission) rest(from int) iter.Seq2[dispatch, error] {
	return func(yield func(dispatch, error) bool) {
		n := 0
		for item, err := range s.file.Jobs(s.name) {
			if n++; err == nil && n <= from {
				continue
			}
			if err == nil && n > s.total {
				break
			}
			if !yield(s.dispatch(item, false), err) || err != nil {
				return
			}
		}
		if n != s.total {
			yield(dispatch{}, s.changed())
		}
	}
}

// doubtful yields the jobs in the doubts, in their order. It reads the input once for
// each time that they go back in it, which is as often as jobs in doubt were killed.
func (s *submission) doubtful(doubts []sink.Doubt) iter.Seq2[dispatch, error] {
	return func(yield func(dispatch, error) bool) {
		for len(doubts) > 0 {
			n, back := -1, false
			for item, err := range s.file.Jobs(s.name) {
				if n++; err == nil && n < doubts[0].From {
					continue
				}
				if !yield(s.dispatch(item, true), err) || err != nil {
					return
				}
				if n+1 < doubts[0].To {
					continue
				}
				doubts = doubts[1:]
				if back = len(doubts) == 0 || doubts[0].From <= n; back {
					break
				}
			}
			if !back {
				yield(dispatch{}, s.changed())
				return
			}
		}
	}
}

func (s *submission) changed() error {
	return fmt.Errorf("%s: changed since it was checked: it had %d jobs", s.file.Name, s.total)
}

func (s *submission) dispatch(item input.Item, doubt bool) dispatch {
	return dispatch{item.Job.Key, outgoing(item, s.name, s.schemas), doubt}
}

// outgoing returns the text of a job as it goes into the queue.
func outgoing(item input.Item, run string, s *schemas) []byte {
	text, err := dressed(item.Job, item.Text, run, s)
	if err != nil { // it was checked
		text = item.Text
	}
	return bytes.Clone(text)
}

// dressed returns the text of a job with its run's name on it, and the run's schema
// if it has none, as SQS takes it.
func dressed(job jobs.Job, text []byte, run string, s *schemas) ([]byte, error) {
	text, err := s.give(job, text)
	if err != nil {
		return nil, err
	}
	text, err = jobs.InRun(text, run)
	return sqsqueue.Escape(text), err
}

// batches groups jobs as they fit into one request.
func batches(all iter.Seq2[dispatch, error]) iter.Seq2[[]dispatch, error] {
	return func(yield func([]dispatch, error) bool) {
		var batch []dispatch
		size := 0
		for d, err := range all {
			if err != nil {
				yield(nil, err)
				return
			}
			if len(batch) == handed || len(batch) > 0 && size+len(d.text) > sqsqueue.MaxMessage {
				if !yield(batch, nil) {
					return
				}
				batch, size = nil, 0
			}
			batch = append(batch, d)
			size += len(d.text)
		}
		if len(batch) > 0 {
			yield(batch, nil)
		}
	}
}

// step says how far it is.
func (s *submission) step() progress.Step {
	return progress.Step{What: "queueing", Unit: "jobs", Done: s.dealt.Load(), Total: int64(s.total)}
}

// submitted is how it ended, in JSON.
type submitted struct {
	Run       string    `json:"run"`
	Jobs      int       `json:"jobs"`               // of the run
	Queued    int64     `json:"queued"`             // now
	HeldBack  int64     `json:"held_back,omitzero"` // of those, as they may be in the queue twice
	Seconds   float64   `json:"seconds"`
	PerSecond float64   `json:"per_second"`
	Complete  time.Time `json:"complete,omitzero"` // when all were queued, if they were before
	DryRun    bool      `json:"dry_run,omitzero"`
}

func (s *submission) encode(v submitted) error { return json.NewEncoder(s.stdout).Encode(v) }

// conclude says how it ended.
func (s *submission) conclude() error {
	queued, took := s.queued.Load(), time.Since(s.start)
	if s.asJSON {
		return s.encode(submitted{
			Run: s.name, Jobs: s.total, Queued: queued, HeldBack: s.delayed.Load(),
			Seconds: took.Seconds(), PerSecond: float64(queued) / max(took.Seconds(), 1e-3),
		})
	}
	pace := fmt.Sprintf("in %s (%.0f/s)", progress.Duration(took), float64(queued)/max(took.Seconds(), 1e-3))
	if int(queued) == s.total {
		fmt.Fprintf(s.stdout, "run %s: %d jobs queued %s\n", s.name, s.total, pace)
	} else {
		fmt.Fprintf(s.stdout, "run %s: all %d jobs are queued or settled, %d of them were queued now, %s\n", s.name, s.total, queued, pace)
	}
	if n := s.delayed.Load(); n > 0 {
		fmt.Fprintf(s.stdout, "%d that may be in the queue twice are held back for up to %s, and looked up before they are paid for\n", n, s.holdBack)
	}
	fmt.Fprintf(s.stdout, "next: upwell status %s --watch\n", s.name)
	return nil
}

// stopped says how it ended too early.
func (s *submission) stopped(ctx context.Context, err error) error {
	code := exitConfig
	switch {
	case errors.Is(err, s3sink.ErrOvertaken):
		return fail(exitUsage, fmt.Errorf("%w: let it finish, or stop it and run the same command again", err))
	case ctx.Err() != nil:
		code, err = exitInterrupted, errors.New("interrupted")
	}
	return fail(code, fmt.Errorf("%w after %d of %d jobs were queued: run the same command again to queue the rest; what is queued or answered is not paid for twice",
		err, s.dealt.Load(), s.total))
}
