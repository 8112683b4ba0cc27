package worker

import (
	"context"
	"errors"
	"time"

	"upwell/jobs"
)

// ackTries is how often a message is acknowledged before it is left to come back.
// Another worker may have it then, and one that does not find the job's result
// pays again for an answer that was no good.
const ackTries = 3

// settle makes the end of a task durable and then lets go of its message. It
// reports whether the job is settled for good.
func (t *task) settle(ctx context.Context, e ending) bool {
	switch {
	case e.answer != nil:
		return t.store(ctx, e)
	case e.letter != nil:
		return t.deadLetter(ctx, e.letter, e.filed)
	default:
		t.release(ctx, e.delay, e.why)
		return false
	}
}

// store stores the answer and acknowledges the message.
// If the worker dies in between, the next delivery finds the result.
func (t *task) store(ctx context.Context, e ending) bool {
	r := t.result(e.answer)
	r.Upwell.Region = e.region
	stored, err := t.put(ctx, r)
	if err != nil {
		t.w.cfg.Log.ErrorContext(ctx, "answer not stored, and it was paid for", "job", t.job.Key.String(), "err", err)
		t.release(ctx, troubleDelay, err)
		return false
	}
	kind := Stored
	if !stored {
		kind = Duplicate
	}
	t.w.observe(Event{Kind: kind, Message: t.m.ID, Key: t.job.Key, Result: &r, Attempts: len(t.attempts)})
	t.answered(ctx)
	return true
}

// put stores the result, and goes on trying until ctx is done: the answer is
// paid for, and nowhere else. The heartbeats go on meanwhile.
func (t *task) put(ctx context.Context, r jobs.Result) (stored bool, err error) {
	for failures := 1; ; failures++ {
		stored, err = t.w.sink.Put(ctx, t.job.Key, r)
		if err == nil || ctx.Err() != nil {
			return stored, err
		}
		t.w.cfg.Log.WarnContext(ctx, "result not stored yet", "job", t.job.Key.String(), "err", err, "failures", failures)
		t.w.requests.retry(ctx, &t.w.requests.sink, backoff(min(failures, 4))) // 8s at most, so that settleTimeout has room for some tries
	}
}

// deadLetter files the failure, buries the message and acknowledges it. A worker
// may die between any two of these: once the error line is there, whoever receives
// the message next finds it, and buries without paying again. Each step may be
// done twice: an error line replaces an earlier one, a body is stored in the same
// place, and a second letter is better than none.
func (t *task) deadLetter(ctx context.Context, l *jobs.DeadLetter, filed bool) bool {
	for failures := 1; ; failures++ {
		var err error
		if !filed {
			err = t.fileError(ctx, l)
			filed = err == nil
		}
		if filed {
			if err = t.buryLetter(ctx, l); err == nil {
				break
			}
		}
		t.w.cfg.Log.ErrorContext(ctx, "not dead-lettered yet", "job", t.job.Key.String(), "err", err, "failures", failures)
		// A job that cost nothing waits better in the queue. One that did would be
		// paid for again, unless its line is there.
		if filed || t.paid.calls == 0 || ctx.Err() != nil {
			t.release(ctx, troubleDelay, err)
			return false
		}
		t.w.requests.retry(ctx, &t.w.requests.sink, backoff(failures))
	}
	t.w.funds.went()
	t.w.observe(Event{Kind: Buried, Message: t.m.ID, Key: t.job.Key, Letter: l, Attempts: len(t.attempts)})
	t.ack(ctx)
	return true
}

// buryLetter writes the dead letter. A body that leaves no room for what is known
// about its end is stored in the sink first.
func (t *task) buryLetter(ctx context.Context, l *jobs.DeadLetter) error {
	err := t.w.source.Bury(ctx, t.m, *l)
	if !errors.Is(err, ErrTooLarge) {
		return err
	}
	if l.BodyRef, err = t.w.sink.PutBody(ctx, t.job.Key, t.m.ID, t.m.Body); err != nil {
		return err
	}
	return t.w.source.Bury(ctx, t.m, *l)
}

// fileError stores the error line of a job that has a name to file it under, with
// what was answered, if anything was: it was paid for.
func (t *task) fileError(ctx context.Context, l *jobs.DeadLetter) error {
	if t.job.CustomID == "" {
		return nil
	}
	r := t.result(t.paid.last)
	r.Error = &jobs.Error{Code: l.Class, Message: l.Reason}
	if n := len(t.attempts); n > 0 {
		r.Upwell.Region = t.attempts[n-1].Region
	}
	r.Upwell.MessageID, r.Upwell.CountedAttempts, r.Upwell.FirstFailed = t.messageID(), l.Attempts, l.FirstFailed.UTC()
	return t.w.sink.PutError(ctx, t.job.Key, r)
}

// release gives the message back with the attempts it has spent.
func (t *task) release(ctx context.Context, d time.Duration, why error) {
	t.h.end()
	if errors.Is(why, ErrGone) {
		t.w.observe(Event{Kind: Lost, Message: t.m.ID, Key: t.job.Key, Err: why, Attempts: len(t.attempts)})
		return
	}
	d = max(min(d, time.Until(t.m.Received.Add(ceiling))-hideFor/8), 0)
	m := t.m
	m.Attempts = t.counted
	err := t.w.source.Release(ctx, m, d)
	t.w.observe(Event{Kind: Released, Message: t.m.ID, Key: t.job.Key, Delay: d, Err: why})
	if err != nil {
		// It returns by itself when its visibility runs out.
		t.w.cfg.Log.WarnContext(ctx, "not released", "job", t.job.Key.String(), "err", err)
		return
	}
	t.w.cfg.Log.DebugContext(ctx, "released", "job", t.job.Key.String(), "why", why, "delay", d.Round(time.Millisecond).String())
}

// answered lets go of a message whose job has a result, and of what it refers to.
func (t *task) answered(ctx context.Context) {
	t.w.funds.went()
	if t.parcel.Fetch != nil {
		t.w.known.finish(t.messageID()) // before anything is gone that a copy would look for
	}
	if t.ack(ctx) {
		t.forget(ctx)
	}
}

// ack removes the message, and reports whether it is gone. One that stays is
// delivered again, to be found settled, and removed then.
func (t *task) ack(ctx context.Context) bool {
	t.h.end()
	err := t.w.source.Ack(ctx, t.m)
	for failures := 1; err != nil && failures < ackTries && !errors.Is(err, ErrGone) && ctx.Err() == nil; failures++ {
		t.w.requests.retry(ctx, &t.w.requests.source, backoff(failures))
		err = t.w.source.Ack(ctx, t.m)
	}
	t.w.known.owe(t.messageID(), err != nil)
	if err != nil {
		t.w.cfg.Log.WarnContext(ctx, "not acknowledged", "job", t.job.Key.String(), "err", err)
	}
	return err == nil
}
