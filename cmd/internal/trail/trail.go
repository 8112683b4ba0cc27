// Package trail keeps the checkpoint of a run ahead of the sending of its jobs.
//
// Whoever sends jobs may be killed at any moment, and whoever goes on has to know
// which jobs are queued, which are not, and which may be. So the checkpoint that is
// stored names two jobs, queued and begun: all before the first are queued, and none
// from the second on has ever been sent. A [Trail] lets go of jobs in their order, and
// of none that the stored checkpoint does not allow; they may be queued in any order.
// It writes the next checkpoint while the jobs that the last one allows are under way,
// so that sending mostly does not wait.
//
// What is in between is in doubt after a kill, and costs a look-up and a second message
// each. That is at most a window of jobs: small in the beginning, doubled each time
// that sending had to wait for a checkpoint, and never above [MaxDoubt].
//
// # Ownership
//
// One goroutine calls [Trail.Next] and, at last, [Trail.Close]; any may call
// [Trail.Done]. At most one write is under way, in a goroutine that Close waits for.
package trail

import (
	"context"
	"sync"
	"time"
)

const (
	// MaxDoubt is the most jobs that may be in doubt: what 16,000 jobs a second take
	// for a write of a quarter of a second.
	MaxDoubt = 4096

	// firstWindow is how many may be in the beginning. It is several times what all
	// senders have under way, so that there is a write for every 350 jobs or so, which
	// is 35 requests to SQS.
	firstWindow = 1024

	// writeTimeout bounds a write, which outlives the interrupt of a submit: whether
	// one that is broken off took place, nobody knows.
	writeTimeout = 2 * time.Minute
)

// A Trail lets go of the jobs from one number to another.
type Trail struct {
	put      func(ctx context.Context, queued, begun int) error
	from, to int // the first, and the first that is not among them

	writes sync.WaitGroup

	mu      sync.Mutex
	queued  int         // all before this are
	done    map[int]int // ends of what is queued beyond, by its beginning
	handed  int         // the first that Next has not returned
	begun   int         // as stored
	window  int
	writing bool
	failed  error         // of the last write
	moved   chan struct{} // closed and replaced when a write has ended
}

// New returns a Trail of the jobs from one number to another, of which none has been
// sent. put stores a checkpoint; it is called by one goroutine at a time, and its error
// ends the Trail.
func New(from, to int, put func(ctx context.Context, queued, begun int) error) *Trail {
	return &Trail{
		put: put, from: from, to: to, queued: from, handed: from, begun: from,
		done: make(map[int]int), window: firstWindow, moved: make(chan struct{}),
	}
}

// Next lets go of the next n jobs, at most 1,024, and returns the number of the first. It
// waits until the stored checkpoint allows it, or ctx ends. No job is let go then.
func (t *Trail) Next(ctx context.Context, n int) (first int, err error) {
	waited := false
	for {
		t.mu.Lock()
		t.write(ctx, t.handed+n > t.begun)
		if err = t.failed; err == nil && t.handed+n <= t.begun {
			first, t.handed = t.handed, t.handed+n
			t.mu.Unlock()
			return first, nil
		}
		if !waited && t.writing && t.begun > t.from {
			waited = true
			t.window = min(2*t.window, MaxDoubt)
		}
		moved := t.moved
		t.mu.Unlock()
		if err != nil {
			return 0, err
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
}

// write begins to write the next checkpoint, if half of what the last one allows is
// used up, or sending waits, and there is one to write. t.mu must be held.
func (t *Trail) write(ctx context.Context, waiting bool) {
	queued, begun := t.queued, min(t.to, t.queued+t.window)
	low := waiting || t.handed+t.window/2 >= t.begun
	if t.writing || t.failed != nil || begun <= t.begun || !low {
		return
	}
	t.writing = true
	t.writes.Go(func() {
		err := t.store(ctx, queued, begun)
		t.mu.Lock()
		defer t.mu.Unlock()
		t.writing, t.failed = false, err
		if err == nil {
			t.begun = begun
		}
		t.wake()
	})
}

func (t *Trail) store(ctx context.Context, queued, begun int) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), writeTimeout)
	defer cancel()
	return t.put(ctx, queued, begun)
}

// wake has Next look again. t.mu must be held.
func (t *Trail) wake() {
	close(t.moved)
	t.moved = make(chan struct{})
}

// Done notes that the n jobs from the first on are queued.
func (t *Trail) Done(first, n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.done[first] = first + n
	for {
		end, ok := t.done[t.queued]
		if !ok {
			break
		}
		delete(t.done, t.queued)
		t.queued = end
	}
	t.wake() // there may be a checkpoint to write now
}

// Close stores how far the jobs are that Next let go of, after the last Done. It is
// exact, with nothing in doubt, when all of them were done. ctx may have ended.
func (t *Trail) Close(ctx context.Context) error {
	t.writes.Wait()
	t.mu.Lock()
	queued, handed, err := t.queued, t.handed, t.failed
	t.mu.Unlock()
	if err != nil {
		return err
	}
	return t.store(ctx, queued, handed)
}
