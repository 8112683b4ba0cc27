package worker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"upwell/jobs"
)

// An Opener says what a message asks for that may not be a job itself, such as one
// that names an object in S3. All methods may be called concurrently.
type Opener interface {
	// Open looks at the message and at nothing else; it must be quick. An error
	// means that the message can never become a job: it is dead-lettered, and a
	// [*jobs.FormatError] says what was expected. The Parcel's Key says under
	// which name then, as far as it is known.
	Open(m jobs.Message) (Parcel, error)
}

// A Parcel is what a message turned out to hold: the text of a job, where to fetch
// one, several messages, or nothing. At most one of Text, Fetch and Parts is set;
// with none of them there is nothing to do, and the message is acknowledged.
type Parcel struct {
	// Text is the job, as [jobs.Parse] reads it.
	Text []byte

	// Fetch returns the job's text. Its error is final if it is a
	// [*jobs.FormatError], and the message is dead-lettered. Any other passes:
	// the message is given back for a minute. An [*Error] that is [Unauthorized]
	// is logged as one that a person has to do something about.
	Fetch func(ctx context.Context) ([]byte, error)

	// Size returns about how many bytes of memory Fetch takes at most, and its
	// errors mean what those of Fetch do. The message waits until there is room
	// for as many; what Fetch returned is what counts then. Nil when nobody
	// knows: the text is counted once it is there.
	Size func(ctx context.Context) (int64, error)

	// Key is the job's, as far as the message tells. A job with a whole Key is
	// looked up before it is fetched, always; and one whose text says another than
	// its message is none.
	Key jobs.Key

	// Parts are the bodies of the messages that this one stands for.
	Parts [][]byte

	// Forget removes what the message referred to. It is called once the job has
	// a result and the message is acknowledged, and not for a job that failed, as
	// its dead letter refers to it as well. Nil for nothing to remove.
	Forget func(ctx context.Context) error
}

// named reports whether the message tells which job it is for.
func (p *Parcel) named() bool { return p.Key.Run != "" && p.Key.CustomID != "" }

const (
	// fetchTimeout bounds Fetch, and Size. It is long enough for an object as
	// large as anybody has prompts, over a slow line, and for a document that
	// takes a while to be read.
	fetchTimeout = 5 * time.Minute

	// forgetTimeout bounds Forget: nobody depends on it.
	forgetTimeout = 30 * time.Second
)

// open returns what the message holds.
func (w *Worker) open(m jobs.Message) (Parcel, error) {
	switch {
	case len(m.Body) == 0:
		return Parcel{Text: []byte{}}, nil // no text would be nothing to do
	case w.cfg.Opener == nil:
		return Parcel{Text: m.Body}, nil
	}
	return w.cfg.Opener.Open(m)
}

// size is how many bytes of the room the message takes.
func (t *task) size() int64 { return int64(len(t.m.Body)) + t.grown }

// pass settles a message that is no job of its own: what it stands for is queued
// before it is acknowledged. Killed in between, there are two of each, and they are
// looked up before they are paid for.
func (t *task) pass(ph phases) {
	parts := t.parcel.Parts
	if len(parts) > 0 {
		if ph.wait.Err() != nil {
			t.giveBack(ph, released(0, context.Cause(ph.wait)))
			return
		}
		if err := t.w.source.Split(ph.settle, t.m, parts); err != nil {
			t.w.cfg.Log.WarnContext(ph.settle, "message not split", "message", t.m.ID, "parts", len(parts), "err", err)
			t.giveBack(ph, released(troubleDelay, err))
			return
		}
	}
	t.w.funds.went()
	t.w.observe(Event{Kind: Passed, Message: t.m.ID, Parts: len(parts)})
	t.ack(ph.settle)
}

// read reads the job, and fetches its text first if that is elsewhere. It returns
// how the message ends when there is no job.
func (t *task) read(ctx context.Context) *ending {
	text := t.parcel.Text
	if t.parcel.Fetch != nil {
		var end *ending
		if text, end = t.fetch(ctx); end != nil {
			return end
		}
	}
	job, err := jobs.Parse(text, cmp.Or(t.parcel.Key.Run, t.w.cfg.Run))
	if err == nil {
		err = t.parcel.agrees(job.Key)
	}
	if err != nil {
		if t.parcel.Key.CustomID != "" {
			job.Key = t.job.Key // whatever the text says
		}
		t.job = job
		return new(t.bury(jobs.BadJob, t.w.misread(err)))
	}
	t.job, t.tiers, t.regions = job, t.w.tiers(&job), t.w.regions(&job)
	return nil
}

// agrees reports what keeps a job of that Key from being the one that the message is
// for.
func (p *Parcel) agrees(k jobs.Key) error {
	switch {
	case p.Key.CustomID != "" && p.Key.CustomID != k.CustomID:
		return &jobs.FormatError{Field: "custom_id", Reason: fmt.Sprintf("%.80q, and %.80q in the message that refers to it: want the same", k.CustomID, p.Key.CustomID)}
	case p.Key.Run != "" && p.Key.Run != k.Run:
		return &jobs.FormatError{Field: "upwell.run", Reason: fmt.Sprintf("%.80q, and %.80q in the message that refers to it: want the same", k.Run, p.Key.Run)}
	}
	return nil
}

// fetch returns the job's text, or how the message ends that has none. What it
// fetches may be what stops workers, so a message that did before is not fetched for
// again.
func (t *task) fetch(ctx context.Context) ([]byte, *ending) {
	if t.m.Receives > t.w.cfg.MaxReceives {
		return nil, new(t.poison())
	}
	wait, stop := t.waiting(ctx)
	defer stop()
	text, err := t.fetchInRoom(wait)
	final, ok := errors.AsType[*jobs.FormatError](err)
	switch {
	case err == nil:
		return text, nil
	case wait.Err() != nil:
		return nil, new(released(0, context.Cause(wait)))
	case ok && t.w.known.finished(t.messageID()):
		return nil, new(released(0, errors.New("another delivery was settled meanwhile")))
	case ok:
		return nil, new(t.bury(jobs.BadJob, t.w.misread(final)))
	}
	log := t.w.cfg.Log.WarnContext
	if e, ok := errors.AsType[*Error](err); ok && e.Kind == Unauthorized {
		log = t.w.cfg.Log.ErrorContext
	}
	log(wait, "job not fetched", "message", t.m.ID, "job", t.job.Key.String(), "err", err)
	return nil, new(released(troubleDelay, err))
}

// fetchInRoom fetches the text when there is room for it.
func (t *task) fetchInRoom(wait context.Context) (text []byte, err error) {
	if t.parcel.Size != nil {
		size, err := within(wait, t.parcel.Size)
		if err != nil {
			return nil, err
		}
		if err := t.w.room.grow(wait, size); err != nil {
			return nil, err
		}
		t.grown = size
	}
	t.w.requests.watched(OpFetch, &t.w.requests.sink, Event{Message: t.m.ID, Key: t.job.Key}, func() error {
		text, err = within(wait, t.parcel.Fetch)
		return err
	})
	more := int64(len(text)) - t.grown
	t.grown += more
	t.w.room.correct(more)
	return text, err
}

// within calls f, bounded in time.
func within[T any](ctx context.Context, f func(context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, fetchTimeout, fmt.Errorf("not fetched within %v", fetchTimeout))
	defer cancel()
	return f(ctx)
}

// forget removes what an answered message referred to.
func (t *task) forget(ctx context.Context) {
	if t.parcel.Forget == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, forgetTimeout)
	defer cancel()
	if err := t.parcel.Forget(ctx); err != nil {
		t.w.cfg.Log.WarnContext(ctx, "what the message referred to is not removed", "job", t.job.Key.String(), "err", err)
	}
}
