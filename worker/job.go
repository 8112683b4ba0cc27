package worker

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"upwell/jobs"
	"upwell/throttle"
)

const (
	// keptAttempts bounds the attempts listed in a result. A job that meets a
	// thousand refusals keeps the first and the last of them.
	keptAttempts = 32

	// copyDelay is how long a copy of a job under way is put off at most, and
	// half of it at least: copies that came together must not come back together,
	// or all but one are put off again. It is looked up when it comes back.
	copyDelay = time.Minute

	// troubleDelay is how long a message is put off when it could be neither
	// looked up nor buried, because the sink or the queue is in trouble.
	troubleDelay = time.Minute
)

// A task is one message on its way to being settled.
type task struct {
	w *Worker
	h *hold
	m jobs.Message

	parcel Parcel   // what the message holds
	grown  int64    // bytes of the room beyond the message's own
	job    jobs.Job // with no more than a Key until it is read

	tiers   []string // the job's, from the one it has come to
	regions []string // where it may be sent

	attempts []jobs.Attempt
	counted  int       // attempts that count, earlier deliveries included
	failed   time.Time // when the first attempt failed
	last     *Error    // of the last attempt that failed
	next     request   // what the next attempt asks for
	paid     paid

	money    *reservation    // set aside for the next call, or nil
	stopping <-chan struct{} // closed when the worker is told to stop
}

// An ending is how a task ends: stored, buried or released.
type ending struct {
	answer *Answer          // to store
	region string           // where it came from
	letter *jobs.DeadLetter // to bury
	filed  bool             // the letter's error line is stored already
	delay  time.Duration    // to release
	why    error            // of a release
}

func released(d time.Duration, why error) ending { return ending{delay: d, why: why} }

// handle settles one message.
func (w *Worker) handle(ph phases, h *hold) {
	t := &task{w: w, h: h, m: h.m, counted: h.m.Attempts}
	defer func() { w.room.release(t.size()) }()
	defer w.held.remove(h)
	if w.known.owes(t.messageID()) || w.known.finished(t.messageID()) {
		t.ack(ph.settle)
		return
	}
	var err error
	t.parcel, err = w.open(h.m)
	t.job.Key = jobs.Key{Run: cmp.Or(t.parcel.Key.Run, w.cfg.Run), CustomID: t.parcel.Key.CustomID}
	switch {
	case err != nil:
		t.settle(ph.settle, t.bury(jobs.BadJob, w.misread(err)))
	case t.parcel.Text == nil && t.parcel.Fetch == nil:
		t.pass(ph)
	case t.parcel.named():
		t.once(ph)
	default:
		if end := t.read(ph.wait); end != nil {
			t.conclude(ph, *end)
			return
		}
		t.once(ph)
	}
}

// once has the job, whose Key is known, come to its end, unless another message for
// it is about to or has.
func (t *task) once(ph phases) {
	fresh, settledBefore := t.w.known.begin(t.job.Key)
	if !fresh {
		t.giveBack(ph, released(copyDelay/2+rand.N(copyDelay/2), errors.New("another message for the job is under way")))
		return
	}
	end, found := ending{}, false
	// Where one event is told in two messages, neither was delivered before. Beside a
	// fetch, a look-up is cheap.
	elsewhere := t.parcel.named() && t.parcel.Fetch != nil
	if settledBefore || t.m.Receives > 1 || t.m.Again || t.w.cfg.LookUp || elsewhere {
		if end, found = t.lookUp(ph); found && end.letter == nil {
			t.answered(ph.settle)
			t.w.known.end(t.job.Key, true)
			return
		}
	}
	if !found {
		end = t.run(ph)
	}
	if !end.settles() {
		// What is released may be received again at once, by ourselves, and
		// must not be taken for a copy.
		t.w.known.end(t.job.Key, false)
		t.conclude(ph, end)
		return
	}
	t.w.known.end(t.job.Key, t.conclude(ph, end))
}

// settles reports whether the job is settled by this end.
func (e *ending) settles() bool { return e.answer != nil || e.letter != nil }

// conclude brings the message to that end, and reports whether its job is settled
// for good.
func (t *task) conclude(ph phases, e ending) bool {
	if !e.settles() {
		t.giveBack(ph, e)
		return false
	}
	settled := t.settle(ph.settle, e)
	if settled && t.parcel.Fetch != nil {
		t.w.known.finish(t.messageID())
	}
	return settled
}

// misread words the error of a message that is no job.
func (w *Worker) misread(err error) string {
	if f, ok := errors.AsType[*jobs.FormatError](err); ok && w.cfg.Redact {
		return (&jobs.FormatError{Field: f.Field, Reason: "not what is wanted there (redacted)"}).Error()
	}
	return err.Error()
}

// giveBack releases the message, when the worker stops only after it has stopped
// receiving.
func (t *task) giveBack(ph phases, e ending) {
	if ph.wait.Err() != nil {
		<-ph.quiet
	}
	t.settle(ph.settle, e)
}

// lookUp reports whether the job needs no call, and how it ends then: with no
// more than an acknowledgement if it has a result, and with the letter that is
// still to be buried if this very message has come to its end before. A sink that
// cannot tell is asked until ctx is done: to go on without an answer could mean to
// pay twice.
func (t *task) lookUp(ph phases) (end ending, found bool) {
	for failures := 1; ; failures++ {
		has, letter, err := t.past(ph.wait)
		switch {
		case err == nil && has:
			t.w.observe(Event{Kind: Duplicate, Message: t.m.ID, Key: t.job.Key})
			return end, true
		case err == nil:
			return ending{letter: letter, filed: true}, letter != nil
		case ph.wait.Err() != nil:
			return end, false // run releases it
		}
		t.w.cfg.Log.WarnContext(ph.wait, "look-up failed", "job", t.job.Key.String(), "err", err)
		t.w.requests.retry(ph.wait, &t.w.requests.sink, backoff(failures))
	}
}

// past returns what earlier deliveries have made of the job: a result, or the dead
// letter of this message. An error line of another message does not count: somebody
// wants the job to be tried again.
func (t *task) past(ctx context.Context) (answered bool, letter *jobs.DeadLetter, err error) {
	if answered, err = t.w.sink.Has(ctx, t.job.Key); err != nil || answered {
		return answered, nil, err
	}
	r, ok, err := t.w.sink.Failure(ctx, t.job.Key)
	if err != nil || !ok || r.Error == nil || r.Upwell.MessageID != t.messageID() {
		return false, nil, err
	}
	return false, new(r.Letter()), nil
}

// messageID names the message for its whole life, however often it was sent anew.
func (t *task) messageID() string { return cmp.Or(t.m.First, t.m.ID) }

// run makes attempts until one succeeds or none can.
func (t *task) run(ph phases) ending {
	if ph.wait.Err() != nil {
		return released(0, context.Cause(ph.wait)) // it may not even have been looked up
	}
	if t.job.Body == nil {
		if end := t.read(ph.wait); end != nil {
			return *end
		}
	}
	if len(t.regions) == 0 {
		return t.bury(jobs.BadJob, fmt.Sprintf("upwell.regions allows %s, and this worker may use %s: no Region is among both",
			strings.Join(t.job.Regions, ", "), strings.Join(t.w.cfg.Regions, ", ")))
	}
	if t.m.Receives > t.w.cfg.MaxReceives {
		return t.poison()
	}
	if end := t.findSchema(ph.wait); end != nil {
		return *end
	}
	t.stopping = ph.wait.Done()
	defer t.refund()
	end := t.try(ph.wait, ph.work, false)
	if end == nil { // a drain waits for the rest, as for a call in flight
		end = t.try(ph.work, ph.work, true)
	}
	return *end
}

// try makes attempts until the job ends. Unless late says that this is known, it
// returns nil when something was paid for that is to be mended, or tried again.
func (t *task) try(until, work context.Context, late bool) *ending {
	wait, stop := t.waiting(until)
	defer stop()
	for {
		if d := t.job.Deadline; !d.IsZero() && !time.Now().Before(d) {
			return new(t.bury(jobs.Expired, "the deadline passed before an answer: "+d.Format(time.RFC3339)))
		}
		if wait.Err() != nil {
			return new(released(0, context.Cause(wait)))
		}
		if end := t.attempt(wait, work); end != nil {
			return end
		}
		if t.owing() && !late {
			return nil
		}
	}
}

// waiting returns the context of the task's waits: it ends with ctx, at the job's
// deadline, when the delivery is lost, and in time before the queue ends it.
func (t *task) waiting(ctx context.Context) (context.Context, func()) {
	until := t.m.Received.Add(ceiling - t.w.cfg.AttemptTimeout - hideFor)
	if d := t.job.Deadline; !d.IsZero() && d.Before(until) {
		until = d
	}
	ctx, lose := context.WithCancelCause(ctx)
	t.h.onLost(lose)
	ctx, stop := context.WithDeadlineCause(ctx, until, errCeiling)
	return ctx, func() { stop(); lose(nil) }
}

// attempt makes one attempt, and returns nil if there should be another.
func (t *task) attempt(wait, work context.Context) *ending {
	ln, permit, end := t.start(wait)
	if ln == nil {
		return end
	}
	start := time.Now()
	ans, err := t.call(work, t.next.call(t, ln.Lane))
	<-t.w.slots
	fail := t.book(ln.Lane, start, ans, err)
	t.spend(ans, fail)
	if fail == nil || fail.Answer != nil {
		ln.served(start, time.Since(start))
	}
	t.letIn(work, ln, start, fail)
	if fail == nil {
		permit.Done(throttle.Feedback{Outcome: throttle.Accepted, Used: used(ans.Usage)})
		return &ending{answer: &ans, region: ln.Region}
	}
	return t.judge(wait, work, ln, permit, start, fail)
}

// letIn tells that calls go through again where they had not: to the endpoint, or past
// its door.
func (t *task) letIn(ctx context.Context, ln *lane, start time.Time, fail *Error) {
	if fail != nil && fail.Status == 0 {
		return
	}
	if ln.reached() {
		t.w.observe(Event{Kind: Resumed, Lane: ln.Lane})
		t.w.cfg.Log.InfoContext(ctx, "endpoint reached again", "lane", ln.String())
	}
	if (fail == nil || fail.Kind != Unauthorized) && ln.worked(start) {
		t.w.observe(Event{Kind: Resumed, Lane: ln.Lane})
		t.w.cfg.Log.InfoContext(ctx, "credential accepted again", "lane", ln.String())
	}
}

// start waits until a call may start: for a permit, a slot and the money. Without a
// lane, there is none, and the job comes to that end, or tries again if it is nil.
func (t *task) start(wait context.Context) (*lane, throttle.Permit, *ending) {
	if t.money == nil && t.w.funds.isShort(t.job.Run) {
		return nil, throttle.Permit{}, t.fund(wait)
	}
	asked := time.Now()
	ln, permit, err := t.permit(wait)
	if err != nil {
		t.w.funds.went()
		return nil, permit, t.turnedAway(wait, ln, err)
	}
	if !t.slot(wait, ln) {
		permit.Cancel()
		return nil, permit, nil
	}
	if !t.afford(t.next.call(t, ln.Lane)) {
		permit.Cancel()
		<-t.w.slots
		return nil, permit, t.fund(wait)
	}
	t.w.funds.went()
	t.w.observe(Event{Kind: Permitted, Message: t.m.ID, Key: t.job.Key, Lane: ln.Lane, Waited: time.Since(asked)})
	return ln, permit.Started(), nil
}

// permit waits in the line of the best lane.
func (t *task) permit(wait context.Context) (*lane, throttle.Permit, error) {
	ctx, p, ln, err := t.w.lanes.join(wait, t)
	if err != nil {
		return ln, throttle.Permit{}, err
	}
	permit, err := ln.Acquire(ctx, t.w.endpoint.Cost(t.next.call(t, ln.Lane)))
	if err != nil {
		t.w.lanes.leave(p, nil)
		return ln, permit, err
	}
	t.w.lanes.leave(p, ln)
	return ln, permit, nil
}

// turnedAway decides what becomes of a job that had to leave the line of ln, and
// returns nil if it should stand in line again.
func (t *task) turnedAway(wait context.Context, ln *lane, err error) *ending {
	crowded, long := errors.AsType[*crowdedError](err)
	closed, shut := errors.AsType[*throttle.ClosedError](err)
	var off time.Duration
	switch {
	case long:
		off = crowded.delay
	case shut:
		off = time.Until(closed.Until)
	case !errors.Is(err, errNear):
		return nil // it goes elsewhere, or run sees why
	}
	switch {
	case t.climb(ln):
	case t.owing():
		t.idle(wait, off)
	case long, shut && !t.w.lanes.other(t, ln):
		t.w.lanes.sendAway(ln)
		return new(t.putOff(off, err))
	}
	return nil
}

// idle waits with a job that owes until its lane may be open.
func (t *task) idle(wait context.Context, d time.Duration) {
	defer t.w.room.idle()()
	sleep(wait, d)
}

// slot waits for a slot, and reports whether the call may still start: the wait
// may have ended meanwhile, or the permit may be no good any more.
func (t *task) slot(wait context.Context, ln *lane) bool {
	given := time.Now()
	select {
	case t.w.slots <- struct{}{}:
	case <-wait.Done():
		return false
	}
	if wait.Err() != nil || ln.outdated(given) {
		<-t.w.slots
		return false
	}
	return true
}

// call makes the call, bounded in time.
func (t *task) call(work context.Context, c Call) (Answer, error) {
	ctx, cancel := context.WithTimeoutCause(work, t.w.cfg.AttemptTimeout,
		fmt.Errorf("no answer within %v", t.w.cfg.AttemptTimeout))
	defer cancel()
	return t.w.endpoint.Complete(ctx, c)
}

// book records an attempt and returns its failure, or nil.
func (t *task) book(ln throttle.Lane, start time.Time, ans Answer, err error) *Error {
	n := 1
	if len(t.attempts) > 0 {
		n = t.attempts[len(t.attempts)-1].N + 1
	}
	at := jobs.Attempt{
		N: n, Started: start.UTC(), TookMS: time.Since(start).Milliseconds(), Region: ln.Region, Tier: ln.Tier,
		Status: ans.Response.StatusCode, RequestID: ans.Response.RequestID, Turn: t.next.turn,
	}
	var fail *Error
	billed := &ans
	outcome := throttle.Accepted
	if err != nil {
		fail = asError(err)
		billed = fail.Answer
		t.paid.last = cmp.Or(fail.Answer, t.paid.last)
		if outcome = outcomeOf(fail); fail.Unsent {
			outcome = throttle.Unrelated // nobody has refused it
		}
		at.Status, at.RequestID, at.Error = fail.Status, fail.RequestID, fail.Error()
		if t.failed.IsZero() {
			t.failed = time.Now()
		}
		t.last = fail
	}
	e := Event{
		Kind: Attempted, Message: t.m.ID, Key: t.job.Key, Lane: ln, Attempt: at, Outcome: outcome, Err: err,
		Job: &t.job,
	}
	if billed != nil {
		t.paid.add(billed, t.next.turn)
		e.Usage, e.CostUSD, e.Answer = billed.Usage, billed.CostUSD, billed
	}
	if len(t.attempts) == keptAttempts {
		t.attempts = slices.Delete(t.attempts, keptAttempts/2, keptAttempts/2+1)
	}
	t.attempts = append(t.attempts, at)
	t.w.observe(e)
	return fail
}

// judge decides what a failure means for the lane and for the job, and returns
// nil if there should be another attempt.
func (t *task) judge(wait, work context.Context, ln *lane, permit throttle.Permit, start time.Time, fail *Error) *ending {
	f := throttle.Feedback{Outcome: outcomeOf(fail), RetryAfter: fail.RetryAfter}
	if fail.Answer != nil {
		f.Used = used(fail.Answer.Usage)
	}
	if fail.Kind == Unauthorized {
		until, closed, first := ln.refused(start, fail)
		permit.Done(f)
		if first {
			t.w.observe(Event{Kind: Paused, Lane: ln.Lane, Err: fail, Delay: time.Until(until)})
		}
		if closed { // said each time, for whoever looks now
			t.w.cfg.Log.ErrorContext(work, "intake paused", "lane", ln.String(), "err", fail, "next_try", until.UTC().Format(time.RFC3339))
		}
		if t.owing() {
			t.idle(wait, time.Until(until))
			return nil
		}
		return new(released(time.Until(until), fail))
	}
	permit.Done(f)
	switch fail.Kind {
	case Throttled, Unavailable:
		if fail.Unsent {
			t.lost(work, ln, start, fail)
			return nil
		}
		ln.turnedDown(start, fail)
		if fail.Kind == Unavailable {
			t.climb(ln)
		}
		return nil // the limiter, not the job, pays for a refusal
	case Permanent:
		if t.askAgain(fail) {
			return nil
		}
		t.counted++
		return new(t.bury(t.verdict(fail)))
	default:
	}
	if work.Err() != nil {
		return new(released(0, context.Cause(work))) // cut off by us
	}
	t.counted++
	if most := cmp.Or(t.job.MaxAttempts, t.w.cfg.MaxAttempts); t.counted >= most {
		return new(t.bury(jobs.Exhausted, fmt.Sprintf("attempt %d of %d: %v", t.counted, most, fail)))
	}
	t.w.requests.retry(wait, &t.w.requests.retrying, max(backoff(t.counted), fail.RetryAfter))
	return nil
}

// lost tells that no connection to the lane's Region can be had.
func (t *task) lost(ctx context.Context, ln *lane, start time.Time, why *Error) {
	say, paused, first := ln.lost(start)
	if first {
		t.w.observe(Event{Kind: Paused, Lane: ln.Lane, Err: why})
	}
	switch {
	case say && paused:
		t.w.cfg.Log.ErrorContext(ctx, "intake paused", "lane", ln.String(), "err", why, "for_want_of", "a connection")
	case say:
		t.w.cfg.Log.WarnContext(ctx, "endpoint out of reach", "lane", ln.String(), "err", why)
	}
}

func used(u jobs.Usage) throttle.Cost {
	return throttle.Cost{Input: int(u.InputTokens), Output: int(u.OutputTokens)}
}

func asError(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	return &Error{Kind: Transient, Err: err}
}

// outcomeOf says what a failure tells the limiter. A call that was answered,
// however badly, found room; one that was refused for what it says may have been
// so before anybody looked for room.
func outcomeOf(e *Error) throttle.Outcome {
	switch {
	case e.Kind == Throttled:
		return throttle.Throttled
	case e.Kind == Unavailable:
		return throttle.Unavailable
	case e.Answer != nil:
		return throttle.Accepted
	default:
		return throttle.Unrelated
	}
}

func (t *task) bury(c jobs.Class, reason string) ending {
	return ending{letter: t.letter(c, reason)}
}

func (t *task) poison() ending {
	return t.bury(jobs.Poison, fmt.Sprintf(
		"delivered %d times and never settled: it may have stopped the workers that had it", t.m.Receives))
}

func (t *task) letter(c jobs.Class, reason string) *jobs.DeadLetter {
	l := &jobs.DeadLetter{Key: t.job.Key, Class: c, Reason: reason, Attempts: t.counted, FirstFailed: t.failed}
	if l.FirstFailed.IsZero() {
		l.FirstFailed = time.Now()
	}
	if t.last != nil {
		l.Status, l.RequestID = t.last.Status, t.last.RequestID
	}
	return l
}

// result is the stored form of the task's end, but for what only the end knows. a
// is the answer that goes with it, or nil.
func (t *task) result(a *Answer) jobs.Result {
	body := []byte(t.job.Body)
	if body == nil {
		body = t.m.Body // no job: then of what came in its place
	}
	sum := sha256.Sum256(body)
	r := jobs.Result{
		ID: t.job.RequestID(), CustomID: t.job.CustomID,
		Upwell: jobs.Record{
			Run: t.job.Run, Model: t.job.Model, Attempts: t.attempts,
			InputSHA256: hex.EncodeToString(sum[:]), TemplateSHA256: t.job.TemplateSHA256,
			Version: t.w.cfg.Version, Finished: time.Now().UTC(),
		},
	}
	t.paid.enter(&r.Upwell)
	if a != nil {
		r.Response = &a.Response
		r.Upwell.Output, r.Upwell.OutputText = a.Output, a.Text
		r.Upwell.Tier, r.Upwell.SchemaSHA256, r.Upwell.Price = a.Tier, a.Schema, a.Price
		r.Upwell.Model = cmp.Or(a.Model, t.job.Model)
	}
	return r
}
