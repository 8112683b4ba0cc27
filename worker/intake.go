package worker

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"upwell/jobs"
)

// receive calls start for each message received, until ctx is done. Its error is
// errEmpty, that of a run that is parked, or what makes the source unusable.
func (w *Worker) receive(ctx context.Context, start func(*hold)) error {
	var failures, empties int
	for {
		if err := w.rest(ctx); err != nil {
			return err
		}
		n, each := w.reserve(ctx)
		if n == 0 {
			return nil // ctx is done
		}
		ms, err := w.request(ctx, n)
		w.room.settle(n, each, ms)
		for _, m := range ms {
			w.lastWork.Store(int64(m.Received.Sub(w.born)))
			w.observe(Event{Kind: Received, Message: m.ID, Delivery: &m})
			start(w.held.add(m))
		}
		switch {
		case ctx.Err() != nil:
			return nil //nolint:nilerr // to be told to stop is no failure, and err is no reason to ask again
		case err != nil:
			if failures++; w.hopeless(err) {
				return fmt.Errorf("receive: %w", err)
			}
			w.cfg.Log.WarnContext(ctx, "receive failed", "err", err, "failures", failures)
			sleep(ctx, backoff(failures))
		case len(ms) > 0:
			failures, empties = 0, 0
			w.received.Store(true)
		default:
			failures = 0
			w.received.Store(true)
			if empties++; w.cfg.ExitWhenEmpty && w.empty(ctx, empties) {
				return errEmpty
			}
		}
	}
}

// reserve waits until something can be sent, or may be, and there is room for it.
func (w *Worker) reserve(ctx context.Context) (n int, each int64) {
	for {
		most, look := w.lanes.wait(ctx)
		if most == 0 {
			return 0, 0
		}
		n, each = w.room.reserve(ctx, most)
		most, _ = w.lanes.room() // they may have closed meanwhile
		if n <= most || look {
			return n, each
		}
		w.room.settle(n-most, each, nil)
		if most > 0 {
			return most, each
		}
	}
}

// request asks for messages, and lingers when ctx ends meanwhile.
func (w *Worker) request(ctx context.Context, n int) ([]jobs.Message, error) {
	asking, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	stop := context.AfterFunc(ctx, func() {
		time.AfterFunc(linger, func() { cancel(context.Cause(ctx)) })
	})
	defer stop()
	return w.source.Receive(asking, n, hideFor)
}

// hopeless reports whether err will not pass: only what fails before anything
// has worked, and cannot be mended by waiting, stops a worker. Whatever breaks
// later is waited out, as the messages held are worth more than a clean exit.
func (w *Worker) hopeless(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && (e.Kind == Permanent || e.Kind == Unauthorized) && !w.received.Load()
}

// empty reports whether there is nothing left to do. Two empty answers in a row
// are needed before the queue is even asked, because its counts lag.
func (w *Worker) empty(ctx context.Context, empties int) bool {
	if empties < 2 {
		return false
	}
	if w.held.len() > 0 {
		w.lastWork.Store(int64(time.Since(w.born)))
		return false
	}
	empty, err := w.source.Empty(ctx)
	if err != nil && ctx.Err() == nil {
		w.cfg.Log.WarnContext(ctx, "queue not counted", "err", err)
	}
	if !empty || err != nil {
		w.lastWork.Store(int64(time.Since(w.born)))
		return false
	}
	return time.Since(w.born)-time.Duration(w.lastWork.Load()) >= w.cfg.EmptyFor
}

// backoff is exponential with full jitter, from up to 1s to up to a minute.
func backoff(n int) time.Duration {
	return rand.N(min(time.Minute, time.Second<<min(n-1, 6)))
}

// sleep waits for d or for the end of ctx.
func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
