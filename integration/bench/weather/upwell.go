package weather

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"upwell/throttle"
	"upwell/throttle/fleet"
)

// Upwell is the limiter under test, package throttle's, as a worker has it that
// knows nothing of the endpoint. Its workers know that there are others: they are a
// fleet where the scenario has one.
func Upwell() Kind {
	return Kind{Name: "upwell", Fleet: true, New: func(s *Scenario, rng *rand.Rand) Limiter {
		l := upwell{Pacer: throttle.NewPacer(throttle.Config{Shared: s.Workers > 1 && !s.Fleet}), now: epoch}
		if !s.Fleet {
			return &l
		}
		m := &member{upwell: l, every: 15 * time.Second, rng: rng}
		m.fleet = fleet.New(fmt.Sprintf("%016x", rng.Uint64()), m, m, nil)
		return m
	}}
}

// An upwell is a throttle.Pacer as a Limiter.
type upwell struct {
	*throttle.Pacer
	now time.Time // the latest it has been told
}

// Admit implements Limiter.
func (l *upwell) Admit(now time.Time, c *Call) (ok bool, again time.Time) {
	l.now = now
	if wait := l.Wait(now, c.Cost); wait > 0 {
		return false, now.Add(wait)
	}
	c.start = l.Start(now, c.Cost)
	return true, now
}

// Done implements Limiter.
func (l *upwell) Done(now time.Time, c *Call, o throttle.Outcome, retryAfter time.Duration) {
	l.now = now
	f := throttle.Feedback{Outcome: o, RetryAfter: retryAfter}
	if o == throttle.Accepted {
		f.Used = c.Used
	}
	l.Pacer.Done(now, c.start, f)
}

// Rate implements Limiter.
func (l *upwell) Rate() float64 { return l.State(l.now).Rate }

// Reason implements Reasoner.
func (l *upwell) Reason() string {
	s := l.State(l.now)
	if s.Binds == "" {
		return s.Reason
	}
	return s.Reason + " (" + s.Binds + ")"
}

// A member is an upwell in a fleet: the Pool of a fleet.Member, of two lanes, the
// quota's and the tier's.
type member struct {
	upwell
	*Board // of the exchange under way
	fleet  *fleet.Member
	every  time.Duration // between exchanges
	rng    *rand.Rand
}

var (
	quota = throttle.Lane{Region: "somewhere", Model: "some"}
	tier  = throttle.Lane{Region: "somewhere", Model: "some", Tier: "default"}
)

// Exchange implements Member. It comes back when fleet.Member would, but by its own
// luck, so that a run can be repeated.
func (m *member) Exchange(now time.Time, b *Board) (again time.Time) {
	m.upwell.now, m.Board = now, b
	m.fleet.Exchange(context.Background(), now)
	return now.Add(seconds(m.every.Seconds() * (0.9 + 0.2*m.rng.Float64())))
}

// Report implements fleet.Pool. Rates are rounded, to about a thousandth of a call
// per second, so that their sum is exact and does not depend on the order of a map.
func (m *member) Report() map[throttle.Lane]throttle.Report {
	q, t := m.Pacer.Report()
	q.Rate, t.Rate = math.Round(q.Rate*1024)/1024, math.Round(t.Rate*1024)/1024
	return map[throttle.Lane]throttle.Report{quota: q, tier: t}
}

// Share implements fleet.Pool.
func (m *member) Share(shares map[throttle.Lane]throttle.Share, fallback throttle.Share) {
	m.every = fallback.Interval
	m.Pacer.Share(m.upwell.now, shares[quota], shares[tier])
}
