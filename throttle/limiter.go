package throttle

import (
	"context"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

const (
	// patience is how long a closed limiter keeps people in line rather than
	// sending them away. A message given back and received again costs two
	// queue requests and a delivery, which is worth it only for a real wait.
	patience = 15 * time.Second

	// maxClosed bounds what a Retry-After can do: a wrong clock at the other
	// end must not stop a lane for a day.
	maxClosed = time.Hour

	// slack is how much of a second the bucket may save up. Timers fire late,
	// and what a late one loses must not be lost for good: with a bucket of one
	// token, 500 calls a second come out as 450.
	slack = 0.02

	// probePatience is how long the first attempt after a closure stands alone.
	// A refusal comes at once and an answer may take minutes, so an attempt that
	// has lasted this long has been let in.
	probePatience = 5 * time.Second
)

// A probe is the one attempt that finds out whether a closed lane is open again.
type probe int

const (
	noProbe  probe = iota
	wanted         // the next permit is the probe
	underway       // the probe is out, and everybody else waits for it
)

// Config holds a Limiter's settings. The zero value is ready to use.
type Config struct {
	// StartRate is the rate, in calls per second, before anything is known.
	// Default 10.
	StartRate float64

	// MinRate and MaxRate bound the rate, in calls per second. Defaults 0.05
	// (three calls a minute, below which a lane is as good as closed) and
	// 10,000 (above what one worker can send).
	MinRate, MaxRate float64

	// OnChange, if set, is told of each change of rate that has a reason. It is
	// called with no lock held, one call at a time.
	OnChange func(State)
}

func (c Config) withDefaults() Config {
	if c.MinRate == 0 {
		c.MinRate = 0.05
	}
	if c.MaxRate == 0 {
		c.MaxRate = 10_000
	}
	if c.StartRate == 0 {
		c.StartRate = 10
	}
	c.StartRate = min(max(c.StartRate, c.MinRate), c.MaxRate)
	return c
}

// A Limiter paces the attempts of one lane.
// All its methods may be called concurrently.
type Limiter struct {
	// turn holds one token: the head of the line. A blocked receive is served
	// in the order of arrival, which is what makes the line fair.
	turn  chan struct{}
	timer *time.Timer // of whoever holds the turn

	waiting atomic.Int64
	notify  sync.Mutex // held while OnChange runs
	config  Config

	mu       sync.Mutex
	bucket   *rate.Limiter
	ctl      controller
	closed   time.Time     // nothing starts before this
	why      string        // the reason closed was last moved
	evicting bool          // closed by Close: nobody is kept in line, however short it is
	probe    probe         // how the lane reopens after Close
	probedAt time.Time     // when the probe left
	changed  chan struct{} // holds a token when the head should look again
	shut     chan struct{} // closed and replaced when all who wait should leave
	inflight int
	counts   [Unrelated + 1]int64
}

// New returns a Limiter.
func New(cfg Config) *Limiter {
	cfg = cfg.withDefaults()
	l := &Limiter{
		turn:    make(chan struct{}, 1),
		timer:   time.NewTimer(time.Hour),
		config:  cfg,
		ctl:     newController(cfg),
		changed: make(chan struct{}, 1),
		shut:    make(chan struct{}),
	}
	l.bucket = rate.NewLimiter(rate.Limit(l.ctl.rate), burst(l.ctl.rate))
	l.turn <- struct{}{}
	return l
}

// burst is the depth of the bucket at rate r: one call and the slack.
func burst(r float64) int { return 1 + int(slack*r) }

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
		p, wait, err := l.try(time.Now(), c)
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
		l.mu.Lock()
		shut, err := l.shut, l.closedErr(time.Now())
		l.mu.Unlock()
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
func (l *Limiter) try(now time.Time, c Cost) (p Permit, wait time.Duration, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.closedErr(now); err != nil {
		return p, 0, err
	}
	if wait = l.closed.Sub(now); wait > 0 {
		return p, wait, nil
	}
	if l.evicting {
		l.evicting, l.probe = false, wanted
	}
	if l.probe == underway {
		if wait = l.probedAt.Add(probePatience).Sub(now); wait > 0 {
			return p, wait, nil
		}
		l.probe = noProbe
	}
	if !l.bucket.AllowN(now, 1) {
		missing := 1 - l.bucket.TokensAt(now)
		wait = max(time.Duration(missing/l.ctl.rate*float64(time.Second)), time.Microsecond)
		l.ctl.blocked(now.Add(wait))
		return p, wait, nil
	}
	p = Permit{l: l, start: now, cost: c, probe: l.probe == wanted}
	if p.probe {
		l.probe, l.probedAt = underway, now
	}
	l.inflight++
	return p, 0, nil
}

// closedErr is the error for those who should not wait. l.mu must be held.
func (l *Limiter) closedErr(now time.Time) error {
	if left := l.closed.Sub(now); left <= 0 || left <= patience && !l.evicting {
		return nil
	}
	return &ClosedError{Until: l.closed, Reason: l.why}
}

// Close sends everybody in line away and stops the lane until the given time, at
// most an hour from now, for a reason that people can read. It then reopens for a
// single attempt, and for the others once that one has not been refused.
//
// It is for what the rate cannot mend, such as a credential that is no longer
// good; whoever learns that from an attempt calls Close before Permit.Done.
func (l *Limiter) Close(until time.Time, reason string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.evicting, l.probe = true, noProbe
	l.closeUntil(until, reason)
}

// closeUntil moves the time the lane reopens, if it is later than the one set.
// l.mu must be held.
func (l *Limiter) closeUntil(until time.Time, reason string) {
	now := time.Now()
	if latest := now.Add(maxClosed); until.After(latest) {
		until = latest
	}
	if until.After(l.closed) && until.After(now) {
		l.closed, l.why = until, reason
	}
	l.wake()
	if l.closedErr(now) != nil {
		close(l.shut)
		l.shut = make(chan struct{})
	}
}

// wake tells the head of the line to look again.
func (l *Limiter) wake() {
	select {
	case l.changed <- struct{}{}:
	default: // it has been told and has not looked yet
	}
}

// Room reports whether a newcomer would be let into the line, and when to ask
// again if not. A lane that waits for its probe has room for that one alone.
func (l *Limiter) Room() (most int, again time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	switch {
	case l.closedErr(now) != nil:
		return 0, l.closed
	case l.probe == underway && now.Before(l.probedAt.Add(probePatience)):
		return 0, l.probedAt.Add(probePatience)
	case l.evicting || l.probe == wanted: // and its time has come
		return max(0, 1-int(l.waiting.Load())), now.Add(probePatience)
	default:
		return math.MaxInt, now
	}
}

// State returns a copy of what the limiter knows.
func (l *Limiter) State() State {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state()
}

func (l *Limiter) state() State {
	s := State{
		Rate: l.ctl.rate, InFlight: l.inflight, Waiting: int(l.waiting.Load()),
		ClosedUntil: l.closed, Reason: l.ctl.reason,
		Accepted: l.counts[Accepted], Throttled: l.counts[Throttled],
		Unavailable: l.counts[Unavailable], Unrelated: l.counts[Unrelated],
	}
	if time.Now().Before(l.closed) {
		s.Reason = "closed: " + l.why
	}
	return s
}

// A Permit is leave to start one attempt at once. Done must be called exactly
// once. The zero Permit stands for no limit at all.
type Permit struct {
	l     *Limiter
	start time.Time
	cost  Cost
	probe bool
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
	l.mu.Lock()
	now := time.Now()
	l.inflight--
	l.counts[f.Outcome]++
	before := l.ctl.rate
	told := l.ctl.done(now, p.start, f.Outcome)
	if p.probe && l.probe == underway && p.start.Equal(l.probedAt) { // not one of an earlier closure
		l.probe = noProbe
		if f.Outcome == Unrelated { // it says nothing, so the next one has to
			l.probe = wanted
		}
		l.wake()
	}
	if f.RetryAfter > 0 && (f.Outcome == Throttled || f.Outcome == Unavailable) {
		l.closeUntil(now.Add(f.RetryAfter), fmt.Sprintf("retry-after %v", f.RetryAfter.Round(time.Millisecond)))
	}
	if r := l.ctl.rate; r != before {
		l.bucket.SetLimitAt(now, rate.Limit(r))
		l.bucket.SetBurstAt(now, burst(r))
		l.wake()
	}
	told = told && l.config.OnChange != nil
	var state State
	if told {
		state = l.state()
	}
	l.mu.Unlock()
	if told {
		l.notify.Lock()
		defer l.notify.Unlock()
		l.config.OnChange(state)
	}
}
