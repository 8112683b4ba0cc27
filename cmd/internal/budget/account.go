package budget

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"upwell/worker"
)

const (
	// fresh is for how long a refusal is believed without asking again. It is a
	// little less than the minute in which a worker looks at parked jobs.
	fresh = 45 * time.Second

	// idleAfter is when a worker that makes no calls gives its grant back.
	idleAfter = 30 * time.Second

	// refresh is how old a grant becomes before a worker with calls in flight says
	// that it is still there, and silent how old one is whose worker may be dead. One
	// that is taken for dead and is not costs a run that is parked too early.
	refresh = 2 * tell
	silent  = 3 * refresh

	// often and seldom bound the time that a chunk should last: it is doubled when
	// it lasts shorter, and halved when it lasts longer.
	often  = 10 * time.Second
	seldom = time.Minute

	// firstChunk is how many calls a chunk is for at first, share the part of the
	// limit that it may become, and part that of the money left that one worker
	// takes at a time: the others shall find some.
	firstChunk = 4
	share      = 20
	part       = 4
)

// An account is what a worker knows of a run's budget, and does with it.
// Purse.mu guards it.
type account struct {
	run   string
	board Board

	known   bool // the board has been read
	limited bool // there was a budget on it

	// states are what the board may say of this worker: first what it said when it
	// was read last, then the writes since whose outcome nobody knows.
	states []state
	seq    int64 // of the latest write

	unreported money // spent, and not on the board
	presumed   money // the part of it that nobody saw a bill of
	reserved   money // set aside for calls
	calls      int   // that it is set aside for
	waiters    []*waiter

	unit     money // what the latest call needed
	spare    money // the part of that for mending answers
	chunk    money // to have beyond what is set aside
	got      money // of that, when it was asked for last
	refusal  *refusal
	unpriced bool // a call was turned away because nobody knows its price

	busy      bool // the record is being exchanged
	wanted    bool // it should be
	notBefore time.Time
	exchanged time.Time // when it was the last time
	topped    time.Time // when money was asked for the last time
	used      time.Time // when a call began or ended
	failures  int       // of the board, in a row

	complained time.Time // that the board may not be used, or zero
}

// A state is what the board says of this worker after a write of its.
type state struct {
	seq                int64  // zero for nothing
	granted            money  //
	reported, presumed money  // what the write added to what is spent
	version            string // of the record that the write is to replace
}

// A refusal says that the board had no room for a call.
type refusal struct {
	need money // what it needs
	at   time.Time
	err  error
}

// old reports whether the board should be asked again. What other workers hold may
// come back soon.
func (r *refusal) old(now time.Time) bool {
	if !r.parked() {
		return now.Sub(r.at) > moment
	}
	return now.Sub(r.at) > fresh
}

// parked reports whether nothing will come back by itself.
func (r *refusal) parked() bool { return errors.Is(r.err, worker.ErrParked) }

// A waiter is a call that waits for money.
type waiter struct {
	most     money // to set aside
	spare    money // to be there beside it, for those who owe
	owing    bool
	unpriced bool
	done     chan error // gets nil when the money is set aside, or why it will not be; holds one
}

// need is what has to be there for w.
func (w *waiter) need() money { return w.most + w.spare }

// free is what may be set aside: of all that may be on the board, the least.
func (a *account) free() money {
	least := a.states[0].granted
	for _, s := range a.states[1:] {
		least = min(least, s.granted+s.reported)
	}
	return least - a.unreported - a.reserved
}

// take sets money aside if it is there. Whoever owes nothing does not go before those
// who wait.
func (a *account) take(w *waiter, now time.Time) bool {
	switch {
	case !a.known, a.limited && w.unpriced:
		return false
	case a.limited && (!w.owing && len(a.waiters) > 0 || a.free() < w.need()):
		return false
	}
	a.give(w, now)
	return true
}

func (a *account) give(w *waiter, now time.Time) {
	a.reserved += w.most
	a.calls++
	a.used = now
	if !w.owing {
		a.unit, a.spare = w.need(), w.spare
	}
}

// wait puts w in line. Who owes comes first.
func (a *account) wait(w *waiter) {
	i := len(a.waiters)
	if w.owing {
		i = 0
		for i < len(a.waiters) && a.waiters[i].owing {
			i++
		}
	}
	a.waiters = slices.Insert(a.waiters, i, w)
}

// leave takes w out of the line, and reports whether it was still there.
func (a *account) leave(w *waiter) bool {
	i := slices.Index(a.waiters, w)
	if i < 0 {
		return false
	}
	a.waiters = slices.Delete(a.waiters, i, i+1)
	return true
}

// serve gives what there is to those who wait, in their order.
func (a *account) serve(now time.Time) {
	for a.known && len(a.waiters) > 0 {
		w := a.waiters[0]
		switch {
		case a.limited && w.unpriced:
			a.unpriced = true
			w.done <- errNoPrice
		case a.limited && a.free() < w.need():
			return
		default:
			a.give(w, now)
			w.done <- nil
		}
		a.waiters = a.waiters[1:]
	}
}

// dismiss sends away those who wait for more than the board had, if no call is in
// flight that may bring money back, and all but a few if there is.
func (a *account) dismiss() {
	keep := a.crowd()
	a.waiters = slices.DeleteFunc(a.waiters, func(w *waiter) bool {
		switch {
		case a.calls == 0 && w.need() >= a.refusal.need:
			w.done <- a.refusal.err
		case a.calls > 0 && !w.owing && keep <= 0:
			w.done <- errShort
		default:
			keep--
			return false
		}
		return true
	})
}

// crowd is how many may wait for what calls in flight bring back: each brings back
// enough for about one.
func (a *account) crowd() int { return max(1, a.calls/4) }

// hopeless returns why there is no use in waiting, or nil.
func (a *account) hopeless(w *waiter, now time.Time) error {
	switch r := a.refusal; {
	case a.known && a.limited && w.unpriced:
		a.unpriced = true
		return errNoPrice
	case r == nil || r.old(now):
		return nil
	case a.calls == 0 && w.need() >= r.need:
		return r.err
	case a.calls > 0 && !w.owing && len(a.waiters) >= a.crowd():
		return errShort
	}
	return nil
}

// learn takes over what is on the board, which has that version.
func (a *account) learn(id string, r *record, version string) {
	a.known = true
	if r == nil {
		// What was spent until now is nobody's business.
		a.limited, a.refusal = false, nil
		a.states, a.unreported, a.presumed = []state{{}}, 0, 0
		return
	}
	a.limited = true
	e := r.Grants[id]
	for _, s := range a.states[1:] {
		if s.seq == e.Seq && s.seq != a.states[0].seq {
			a.confirm(s)
			return
		}
	}
	if e.Seq != a.states[0].seq { // somebody has edited the record
		a.seq = max(a.seq, e.Seq)
		a.states = []state{{seq: e.Seq, granted: e.USD}}
	}
	// A write for another version cannot happen any more.
	a.states = slices.DeleteFunc(a.states, func(s state) bool { return s.version != "" && s.version != version })
}

// confirm notes that s is on the board.
func (a *account) confirm(s state) {
	a.unreported -= s.reported
	a.presumed -= s.presumed
	a.states = []state{{seq: s.seq, granted: s.granted}}
}

// plan writes into r what this worker wants it to say, and reports whether that is
// anything new. The write is among the states then.
func (a *account) plan(id string, r *record, version string, leaving bool, now time.Time) bool {
	mine := a.states[0]
	s := state{granted: a.reserved + a.extra(a.funds(id, r, now), leaving, now), reported: a.unreported, presumed: a.presumed, version: version}
	news := a.post(r, s.granted > a.reserved, now) || a.calls > 0 && now.Sub(r.Grants[id].At) >= refresh
	if !news && len(a.states) == 1 && s.granted == mine.granted && s.reported == 0 && (!leaving || mine.seq == 0) {
		return false
	}
	r.Spent += s.reported
	r.Presumed += s.presumed
	if leaving && s.granted == 0 && s.reported == 0 {
		delete(r.Grants, id)
	} else {
		a.seq++
		s.seq = a.seq
		r.Grants[id] = grant{s.granted, s.seq, now.UTC().Truncate(time.Second)}
	}
	a.states = append(a.states, s)
	return true
}

// funds are what a board has for a worker.
type funds struct {
	limit money
	pool  money // neither spent nor granted to others, nor what it has in use itself

	others money // granted to workers that are there
	lost   money // granted to workers that have been silent for long
	since  time.Time
}

func (a *account) funds(id string, r *record, now time.Time) funds {
	f := funds{limit: r.Limit}
	f.lost, f.since = r.silent(id, now)
	all := r.granted() - r.Grants[id].USD
	f.others, f.pool = all-f.lost, r.Limit-r.Spent-all-a.unreported-a.reserved
	return f
}

// extra is what to have beyond what is set aside, out of what there is.
func (a *account) extra(f funds, leaving bool, now time.Time) money {
	limit, pool := f.limit, f.pool
	unit, waiting := a.unit, money(0)
	for _, w := range a.waiters {
		waiting += w.most
	}
	if len(a.waiters) > 0 {
		unit = a.waiters[0].need()
	}
	if len(a.waiters) > 0 && pool < unit {
		a.refuse(f, unit, now)
	}
	switch idle := len(a.waiters) == 0 && now.Sub(a.used) > idleAfter; {
	case leaving, a.calls == 0 && (idle || pool < unit):
		return 0 // somebody else may make a whole of it
	case idle, pool < unit: // the answers of calls in flight may want mending
		return max(0, min(a.spare, pool, a.states[0].granted-a.unreported-a.reserved))
	}
	a.refusal = nil
	if len(a.waiters) > 0 || a.low() {
		switch lasted := now.Sub(a.topped); {
		case a.topped.IsZero():
			a.chunk = firstChunk * unit
		case lasted < often:
			a.chunk *= 2
		case lasted > seldom:
			a.chunk /= 2
		}
		a.topped = now
	}
	a.chunk = max(min(a.chunk, limit/share), unit)
	extra := max(min(a.chunk+waiting, pool/part), unit)
	a.got = min(a.chunk, extra)
	return extra
}

// refuse notes that the board has no room for a call: for the moment, if what workers
// that are there hold would do.
func (a *account) refuse(f funds, need money, now time.Time) {
	a.refusal = &refusal{need, now, errOthers}
	if f.pool+f.others >= need {
		return
	}
	held := ""
	if f.lost > 0 {
		held = fmt.Sprintf(" (%v more are reserved for workers that may have been killed, the first of which was last heard of %v ago)",
			f.lost, now.Sub(f.since).Round(time.Second))
	}
	if f.limit < need {
		a.refusal.err = fmt.Errorf("%w: the budget of %v is less than one call may take, which is %v: raise it with --budget, or bound answers with --max-output-tokens",
			worker.ErrParked, f.limit, need)
		return
	}
	a.refusal.err = fmt.Errorf("%w: the budget of %v is used up: %v are left, and a call may take %v%s: raise it with --budget",
		worker.ErrParked, f.limit, max(f.pool, 0), need, held)
}

// post says on the record that the run is parked, or that it is no longer, and
// reports whether that is news.
func (a *account) post(r *record, granted bool, now time.Time) bool {
	why := ""
	switch {
	case a.unpriced:
		why = "a model has no known price: give --prices"
	case a.refusal != nil && a.refusal.at.Equal(now) && a.refusal.parked() && a.calls == 0:
		why = fmt.Sprintf("a call may take %v", a.refusal.need)
	}
	a.unpriced = false
	switch {
	case why != "" && r.Parked == nil:
		r.Parked = &parking{now.UTC().Truncate(time.Second), why}
		return true
	case why == "" && granted && r.Parked != nil:
		r.Parked = nil
		return true
	}
	return false
}

// low reports whether money should be asked for before it runs out.
func (a *account) low() bool { return a.limited && a.refusal == nil && a.free() < a.got/2 }

// due reports whether the record should be exchanged although nobody waits for it: so
// that others see what is spent, that a changed limit is seen, and that what is not
// used is given back.
func (a *account) due(now time.Time) bool {
	since := now.Sub(a.exchanged)
	switch {
	case !a.known || a.busy || a.wanted:
		return false
	case !a.limited:
		return since >= look && a.used.After(a.exchanged)
	case a.unreported > 0 || a.calls > 0 || len(a.states) > 1:
		return since >= tell
	default:
		return a.states[0].granted > 0 && now.Sub(a.used) > idleAfter && since >= tell
	}
}

// idle reports whether there is nothing left to know about it.
func (a *account) idle(now time.Time) bool {
	return !a.busy && a.calls == 0 && len(a.waiters) == 0 && a.unreported == 0 &&
		len(a.states) == 1 && a.states[0].granted == 0 && now.Sub(a.used) > forget
}

var (
	errNoPrice = fmt.Errorf("%w: it has a budget, and nobody knows what this call costs: give --prices", worker.ErrParked)
	errShort   = errors.New("calls in flight hold the money of the run")
	errOthers  = errors.New("calls of other workers hold the money of the run")
)
