package throttle

import (
	"context"
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// patience is how long a closed limiter keeps people in line rather than sending
// them away. A message given back and received again costs two queue requests and
// a delivery, which is worth it only for a real wait.
const patience = 15 * time.Second

// A quota is what the tiers of a model share in a Region, and their limiters with
// it.
type quota struct {
	mu    sync.Mutex
	flow  *flow
	usage usage
	lanes []*Limiter
}

// A Limiter paces the attempts of one lane.
// All its methods may be called concurrently.
type Limiter struct {
	config  Config
	turn    chan struct{} // one token: the head of the line. A blocked receive is served in the order of arrival
	timer   *time.Timer   // of whoever holds the turn
	changed chan struct{} // holds a token when the head should look again
	waiting atomic.Int64
	notify  sync.Mutex // held while OnChange runs

	quota *quota

	// Guarded by quota.mu.
	pacer    Pacer
	evicting bool          // closed by Close: nobody is kept in line, however short it is
	shut     chan struct{} // closed and replaced when all who wait should leave
	told     string        // the reason last told
	counts   [Unrelated + 1]int64
}

// New returns a Limiter of a lane that shares its quota with no other.
func New(cfg Config) *Limiter {
	cfg = cfg.withDefaults()
	return (&quota{flow: newFlow(cfg)}).limiter(cfg)
}

// limiter returns the limiter of another lane. q.mu must be held, or q be new. A tier
// of which nothing is known begins where half of the quota would be used.
func (q *quota) limiter(cfg Config) *Limiter {
	cfg.StartRate = min(max(cfg.StartRate, q.flow.ctl.level/2), cfg.MaxRate)
	l := &Limiter{
		config: cfg, quota: q,
		turn: make(chan struct{}, 1), timer: time.NewTimer(time.Hour),
		changed: make(chan struct{}, 1), shut: make(chan struct{}),
		pacer: Pacer{quota: q.flow, tier: newFlow(cfg), usage: &q.usage},
		told:  "start",
	}
	l.turn <- struct{}{}
	q.lanes = append(q.lanes, l)
	return l
}

// Acquire waits until an attempt of that cost may start, and returns the permit
// for it. The error is ctx's cause, or a [*ClosedError]: then the caller should
// come back after Until, and is free to do other things.
func (l *Limiter) Acquire(ctx context.Context, c Cost) (Permit, error) {
	l.waiting.Add(1)
	defer l.waiting.Add(-1)
	if err := l.takeTurn(ctx); err != nil {
		return Permit{}, err
	}
	defer func() { l.turn <- struct{}{} }()
	for {
		p, wait, err := l.try(c)
		if err != nil || wait <= 0 {
			return p, err
		}
		l.timer.Reset(wait)
		select {
		case <-l.timer.C:
		case <-l.changed:
		case <-ctx.Done():
			return Permit{}, context.Cause(ctx)
		}
	}
}

// takeTurn waits for the head of the line.
func (l *Limiter) takeTurn(ctx context.Context) error {
	for {
		l.quota.mu.Lock()
		shut, err := l.shut, l.closedErr(time.Now())
		l.quota.mu.Unlock()
		if err != nil {
			return err
		}
		select {
		case <-l.turn:
			if ctx.Err() == nil {
				return nil
			}
			l.turn <- struct{}{} // a select with two ready cases picks either
			return context.Cause(ctx)
		case <-shut:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// try takes a permit, or says how long the head of the line should wait before
// it asks again, unless l.changed tells it to ask sooner.
func (l *Limiter) try(c Cost) (p Permit, wait time.Duration, err error) {
	l.quota.mu.Lock()
	now := time.Now()
	if err := l.closedErr(now); err != nil {
		l.quota.mu.Unlock()
		return p, 0, err
	}
	if !now.Before(l.pacer.closed()) {
		l.evicting = false
	}
	if wait = l.pacer.Wait(now, c); wait > 0 {
		l.quota.mu.Unlock()
		return p, wait, nil
	}
	p = Permit{l: l, start: l.pacer.Start(now, c)}
	l.tell(now, l.pacer.rate())
	return p, 0, nil
}

// closedErr is the error for those who should not wait. quota.mu must be held.
func (l *Limiter) closedErr(now time.Time) error {
	until := l.pacer.closed()
	if left := until.Sub(now); left <= 0 || left <= patience && !l.evicting {
		return nil
	}
	return &ClosedError{Until: until, Reason: l.pacer.decides(now).why}
}

// Close sends everybody in line away and stops the lane until the given time, at
// most an hour from now, for a reason that people can read. It then reopens for a
// single attempt, and for the others once that one has not been refused.
//
// It is for what the rate cannot mend, such as a credential that is no longer
// good; whoever learns that from an attempt calls Close before Permit.Done.
func (l *Limiter) Close(until time.Time, reason string) {
	l.quota.mu.Lock()
	now := time.Now()
	l.evicting = true
	l.pacer.tier.probe = wanted
	l.pacer.tier.close(now, until, reason)
	l.evict(now)
	l.tell(now, math.Inf(1))
}

// evict sends the line away if it should not wait, and wakes its head in any case.
// quota.mu must be held.
func (l *Limiter) evict(now time.Time) {
	if l.closedErr(now) != nil {
		close(l.shut)
		l.shut = make(chan struct{})
	}
	l.wake()
}

// wake tells the head of the line to look again.
func (l *Limiter) wake() {
	select {
	case l.changed <- struct{}{}:
	default: // it has been told and has not looked yet
	}
}

// tell unlocks quota.mu, and tells of the rate if the reason for it is another than
// the last one told, or if it has fallen from before.
func (l *Limiter) tell(now time.Time, before float64) {
	if l.config.OnChange == nil {
		l.quota.mu.Unlock()
		return
	}
	s := l.state(now)
	news := s.Reason != l.told || s.Rate < before
	l.told = s.Reason
	l.quota.mu.Unlock()
	if news {
		l.notify.Lock()
		defer l.notify.Unlock()
		l.config.OnChange(s)
	}
}

// Room reports how many newcomers would be let into the line, and when to ask again
// if none. A lane that waits for its probe has room for that one alone.
func (l *Limiter) Room() (most int, again time.Time) {
	l.quota.mu.Lock()
	defer l.quota.mu.Unlock()
	now := time.Now()
	if l.closedErr(now) != nil {
		return 0, l.pacer.closed()
	}
	switch l.pacer.probe() {
	case underway:
		if end := l.pacer.probeEnds(); now.Before(end) {
			return 0, end
		}
	case wanted:
		return max(0, 1-int(l.waiting.Load())), now.Add(probePatience)
	default:
	}
	return math.MaxInt, now
}

// State returns a copy of what the limiter knows.
func (l *Limiter) State() State {
	l.quota.mu.Lock()
	defer l.quota.mu.Unlock()
	return l.state(time.Now())
}

// state is State with quota.mu held.
func (l *Limiter) state(now time.Time) State {
	s := l.pacer.State(now)
	s.Waiting = int(l.waiting.Load())
	if l.evicting && now.Before(s.ClosedUntil) {
		s.Bound = Shut
	}
	s.Accepted, s.Throttled = l.counts[Accepted], l.counts[Throttled]
	s.Unavailable, s.Unrelated = l.counts[Unavailable], l.counts[Unrelated]
	return s
}

// A Permit is leave to start one attempt at once. Done or Cancel must be called
// exactly once. The zero Permit stands for no limit at all.
type Permit struct {
	l     *Limiter
	start Start
}

// Started says that the attempt starts only now, as something else had to be waited
// for, and returns the permit to go on with. What the attempt meets would otherwise
// be taken for older news than it is.
func (p Permit) Started() Permit {
	now := time.Now()
	p.start.quota.mark.at, p.start.tier.mark.at = now, now
	return p
}

// Cancel gives the permit back: the attempt was not made.
func (p Permit) Cancel() {
	l := p.l
	if l == nil {
		return
	}
	l.quota.mu.Lock()
	defer l.quota.mu.Unlock()
	l.pacer.Cancel(p.start)
	for _, other := range l.quota.lanes {
		other.wake()
	}
}

// Done reports how the attempt ended.
//
// The attempts of one flight are answered together, so a burst of refusals is
// one event: an attempt that started before the last cut cannot cause another.
func (p Permit) Done(f Feedback) {
	l := p.l
	if l == nil {
		return
	}
	l.quota.mu.Lock()
	now := time.Now()
	before := l.pacer.rate()
	l.counts[f.Outcome]++
	if l.pacer.Done(now, p.start, f) || f.RetryAfter > 0 {
		for _, other := range l.quota.lanes {
			other.evict(now)
		}
	}
	l.tell(now, before)
}
