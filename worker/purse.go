package worker

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"upwell/jobs"
	"upwell/throttle"
)

// A Purse bounds what runs may cost: what a call may cost at most is set aside
// before it is made. All methods may be called concurrently.
//
// settle is to be called exactly once, with what the call did cost: nothing if it
// was not made or not billed, and an unknown amount if nobody can say, which then
// counts as all that was set aside.
type Purse interface {
	// Try sets the money aside if it is there. It is called with a slot and a
	// permit in hand, and does not wait.
	Try(n Need) (settle func(spent jobs.USD), ok bool)

	// Reserve waits a while until the money is there, as it may be on its way or
	// come back from calls in flight. Its error wraps [ErrParked] when there will
	// be none unless somebody does something about it, and tells what; any other
	// passes by itself.
	Reserve(ctx context.Context, n Need) (settle func(spent jobs.USD), err error)

	// Bounded reports whether the run is known to have a budget. As long as it is not,
	// whoever waits for its money waits for the budget to be looked up.
	Bounded(run string) bool
}

// A Need is what a call may cost.
type Need struct {
	Run     string
	MostUSD jobs.USD // at most; may be unknown

	// SpareUSD is about what another call may cost to mend the answer. It is not set
	// aside, but should be there beside it, for calls that owe.
	SpareUSD jobs.USD

	// Owing says that the job has cost something already, and has nothing to show
	// for it yet: it comes before others.
	Owing bool
}

// ErrParked is the error of a call that the budget of its run has no room for.
var ErrParked = errors.New("parked")

const (
	// parkDelay is how long a job of a parked run is put off at most, and half of it
	// at least. It costs a request or two each time.
	parkDelay = time.Minute

	// shortDelay is the same for a job whose run is only short of money, because
	// calls in flight hold it, or because nobody can tell at the moment.
	shortDelay = 10 * time.Second

	// churn is how many messages in a row are turned away for want of money before
	// intake slows down: so many are looked through for those of other runs.
	churn = 100

	// calm is how long nothing but turning away has to go on, at least, before a
	// worker that is to exit once its work is done finds that it is.
	calm = 10 * time.Second
)

// funds is what a worker knows about the money of runs, beside its Purse.
type funds struct {
	mu     sync.Mutex
	short  map[string]bool // runs whose last call found no money; true if parked
	parked error           // why the latest of them was, or nil when a call was made since
	since  time.Time       // of the last call, or the beginning

	turned  int            // messages turned away in a row
	pause   time.Duration  // between two looks, or zero
	next    time.Time      // when the next look is due
	waiting int            // owing jobs that are held until there is money
	asking  map[string]int // jobs of each run that wait for the purse
}

func newFunds() *funds { return &funds{short: make(map[string]bool), asking: make(map[string]int)} }

// begin starts the clock.
func (f *funds) begin() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.since = time.Now()
}

// isShort reports whether the calls of the run have to wait for money.
func (f *funds) isShort(run string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, ok := f.short[run]
	return ok
}

// lack notes that a call of the run found no money at once.
func (f *funds) lack(run string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.short[run]; !ok {
		f.short[run] = false
	}
}

// found notes that a call of the run found money, and reports whether the run had
// been parked.
func (f *funds) found(run string) (wasParked bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	wasParked = f.short[run]
	delete(f.short, run)
	return wasParked
}

// went notes that something else than money decided about a job.
func (f *funds) went() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.turned, f.pause, f.parked, f.since = 0, 0, nil, time.Now()
}

// turnAway notes that a job of the run is turned away, and reports whether it is news
// that the run is parked. When nothing else happens for long, looks become rarer, up
// to lookEvery, and to shortDelay while money is only short.
func (f *funds) turnAway(run string, why error) (news bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	rarest := shortDelay
	if errors.Is(why, ErrParked) {
		rarest = lookEvery
		news = !f.short[run]
		f.short[run], f.parked = true, fmt.Errorf("run %s: %w", run, why)
	}
	f.turned++
	if f.turned >= churn || f.pause > 0 && f.turned >= batch {
		f.turned = 0
		f.pause = min(max(2*f.pause, time.Second), rarest)
		f.next = time.Now().Add(f.pause)
	}
	return news
}

// look reports whether to ask for messages now, which is always so unless all that
// comes is turned away: then somebody is told so once in a while.
func (f *funds) look() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	if f.pause == 0 {
		return true
	}
	if now.Before(f.next) {
		return false
	}
	f.next = now.Add(f.pause)
	return true
}

// idle returns how many jobs are held until there is money, and why nothing has been
// done for that long, if that is the reason.
func (f *funds) idle(long time.Duration) (held int, why error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if time.Since(f.since) < long {
		return 0, nil
	}
	return f.waiting, f.parked
}

// still reports whether nothing but turning away has gone on for so long.
func (f *funds) still(long time.Duration) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return time.Since(f.since) >= long
}

// binding reports how many owing jobs are held until there is money, how many jobs wait
// for p to look a budget up, and whether money is what keeps those that come from being
// tried.
func (f *funds) binding(p Purse) (held, unsure int, binds bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	turning := f.turned > 0 || f.pause > 0 || f.waiting > 0
	for run := range f.short {
		binds = binds || turning && p.Bounded(run)
	}
	for run, n := range f.asking {
		if p.Bounded(run) {
			binds = true
		} else {
			unsure += n
		}
	}
	return f.waiting, unsure, binds
}

// ask notes that n more jobs of the run wait for the purse, or as many fewer.
func (f *funds) ask(run string, n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.asking[run] += n; f.asking[run] == 0 {
		delete(f.asking, run)
	}
}

// hold notes that an owing job is held, or no longer.
func (f *funds) hold(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.waiting += n
}

// A reservation is money set aside for a task's next call.
type reservation struct {
	most   jobs.USD
	settle func(jobs.USD)
}

// need is what the task's next call may cost. A call with more room may cost as many
// times more, and a repair reads the answer and the findings beside the prompt.
func (t *task) need(c Call) Need {
	n := Need{Run: t.job.Run, MostUSD: t.w.endpoint.MostUSD(c), Owing: t.owing()}
	switch {
	case n.Owing:
	case t.w.endpoint.Cost(c).Output < t.ceiling():
		n.SpareUSD = roomier * n.MostUSD
	case t.w.cfg.Repairs > 0 && (len(t.job.Schema) > 0 || bytes.Contains(t.job.Body, []byte(`"json_schema"`))):
		n.SpareUSD = 2 * n.MostUSD
	}
	return n
}

// afford reports whether there is money for the call, and sets it aside.
func (t *task) afford(c Call) bool {
	if t.w.cfg.Purse == nil {
		return true
	}
	n := t.need(c)
	if m := t.money; m != nil && (m.most >= n.MostUSD || !m.most.Known() && !n.MostUSD.Known()) {
		return true
	}
	t.refund() // of a cheaper tier
	settle, ok := t.w.cfg.Purse.Try(n)
	if ok {
		t.money = &reservation{n.MostUSD, settle}
	}
	return ok
}

// fund waits until money for the next call is set aside. It holds neither a slot nor
// a permit meanwhile. It returns how the job ends if it does not get any; nil says to
// try on.
func (t *task) fund(wait context.Context) *ending {
	t.w.funds.lack(t.job.Run)
	lane := throttle.Lane{Region: t.regions[0], Model: t.job.Model, Tier: t.tiers[0]}
	n := t.need(t.next.call(t, lane))
	t.w.funds.ask(t.job.Run, 1)
	settle, err := t.w.cfg.Purse.Reserve(wait, n)
	t.w.funds.ask(t.job.Run, -1)
	switch {
	case err == nil:
		t.money = &reservation{n.MostUSD, settle}
		if t.w.funds.found(t.job.Run) {
			t.w.observe(Event{Kind: Unparked, Key: jobs.Key{Run: t.job.Run}})
		}
		return nil
	case wait.Err() != nil && !t.owing():
		return nil // try sees why
	case !n.MostUSD.Known() && errors.Is(err, ErrParked):
		err = fmt.Errorf("%w: model %s on tier %s", err, lane.Model, cmp.Or(lane.Tier, "default"))
	}
	return t.broke(wait, err)
}

// broke decides about a job that there is no money for. One that owes is held: it is
// not given back, as whoever got it next would pay again for what it has cost. When
// the worker stops and there will be none, it ends as what was wrong with the answer
// it has.
func (t *task) broke(wait context.Context, why error) *ending {
	if t.w.funds.turnAway(t.job.Run, why) {
		t.w.observe(Event{Kind: Parked, Key: jobs.Key{Run: t.job.Run}, Err: why})
	}
	off, hopeless := shortDelay, (<-chan struct{})(nil)
	if errors.Is(why, ErrParked) {
		off, hopeless = parkDelay, t.stopping
	}
	off = off/2 + rand.N(off/2)
	if !t.owing() {
		return new(released(off, why))
	}
	t.w.funds.hold(1)
	defer t.w.funds.hold(-1)
	defer t.w.room.idle()()
	timer := time.NewTimer(off)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-wait.Done():
		if cause := context.Cause(wait); errors.Is(cause, ErrGone) {
			return new(released(0, cause)) // somebody else has it, and settles it
		}
	case <-hopeless:
	}
	class, reason := jobs.Exhausted, error(t.last)
	if t.next.because != nil {
		class, reason = t.next.because.Class, t.next.because
	}
	return new(t.bury(class, fmt.Sprintf("%v; another call was not made: %v", reason, why)))
}

// spend settles the reservation of a call that was made.
func (t *task) spend(ans Answer, fail *Error) {
	if t.money == nil {
		return
	}
	t.money.settle(costOf(ans, fail))
	t.money = nil
}

// costOf is what a call has cost. One that was lost, or given up, may have been
// billed: nobody knows. One that was refused is not, nor one that was never sent, or
// that the endpoint itself says it has failed at: it bills the tokens of answers. Its
// documentation says no more about that.
func costOf(ans Answer, fail *Error) jobs.USD {
	switch {
	case fail == nil:
		return ans.CostUSD
	case fail.Answer != nil:
		return fail.Answer.CostUSD
	case fail.Kind == Transient && !fail.Unsent && !failedThere(fail.Status):
		return jobs.UnknownUSD()
	default:
		return 0
	}
}

// failedThere reports whether a status says that a call was not answered. Those of a
// time that ran out, or of somebody in between, do not say what the model has done.
func failedThere(status int) bool {
	switch status {
	case http.StatusRequestTimeout, http.StatusBadGateway, http.StatusGatewayTimeout:
		return false
	default:
		return status >= http.StatusBadRequest
	}
}

// refund gives back what was set aside for a call that is not made.
func (t *task) refund() {
	if t.money != nil {
		t.money.settle(0)
		t.money = nil
	}
}

// rest waits while all that comes is turned away for want of money, so that a queue
// of parked jobs is looked at once in a while only. Its error is that of a worker
// that is to exit when its work is done, and has nothing to do but to wait for money.
func (w *Worker) rest(ctx context.Context) error {
	for ctx.Err() == nil {
		var done bool
		if w.cfg.ExitWhenEmpty {
			held, why := w.funds.idle(max(calm, w.cfg.EmptyFor))
			if done = why != nil; done && w.held.len() <= held {
				return why
			}
		}
		// One that is done asks for no more, until the last ones are back in the
		// queue; one that is to exit looks around for a while before it slows down.
		if !done && (w.cfg.ExitWhenEmpty && !w.funds.still(calm) || w.funds.look()) {
			return nil
		}
		sleep(ctx, time.Second/10)
	}
	return nil
}
