package worker

import (
	"slices"
	"time"

	"upwell/jobs"
)

// A demand is what a lane's answers and refusals say about it, beside the rate.
type demand struct {
	mean, dev time.Duration // of how long answers take; zero before the first
	refusedAt time.Time     // when the lane last refused for lack of room
	lackedAt  time.Time     // when the attempt left that found no capacity, or zero
	lacksTill time.Time     // until when there is none, by the endpoint's word
}

// served notes that an attempt that left at start was answered after took. Mean
// and mean deviation are smoothed as RFC 6298 does for round trips.
func (ln *lane) served(start time.Time, took time.Duration) {
	ln.mu.Lock()
	defer ln.mu.Unlock()
	d := &ln.demand
	if d.mean == 0 {
		d.mean, d.dev = took, took/2
	} else {
		d.dev += ((took - d.mean).Abs() - d.dev) / 4
		d.mean += (took - d.mean) / 8
	}
	if start.After(d.lackedAt) {
		d.lackedAt, d.lacksTill = time.Time{}, time.Time{}
	}
}

// turnedDown notes that an attempt that left at start was refused for lack of
// room. Only Unavailable says that there is none for anybody: a quota that is
// used up, Throttled, says that there is.
func (ln *lane) turnedDown(start time.Time, fail *Error) {
	ln.mu.Lock()
	defer ln.mu.Unlock()
	d, now := &ln.demand, time.Now()
	d.refusedAt = now
	switch {
	case start.Before(d.lackedAt):
	case fail.Kind == Unavailable:
		d.lackedAt, d.lacksTill = start, now.Add(fail.RetryAfter)
	default:
		d.lackedAt = time.Time{}
	}
}

// usual returns how long nearly all answers of the lane take: its mean and two
// mean deviations, which 95 % of answers keep if they are spread normally. It is
// zero before the first.
func (ln *lane) usual() time.Duration {
	ln.mu.Lock()
	defer ln.mu.Unlock()
	return ln.demand.mean + 2*ln.demand.dev
}

// lacks reports whether the lane is out of capacity: it was so the last time
// anybody tried, or is to be so for longer.
func (ln *lane) lacks(now time.Time) bool {
	ln.mu.Lock()
	defer ln.mu.Unlock()
	return !ln.demand.lackedAt.IsZero() || now.Before(ln.demand.lacksTill)
}

// outdated reports whether a permit that was given at that time is no longer good:
// the lane has closed or refused since. It was given at a rate that no longer
// holds, and the limiter would take a refusal of it for old news.
func (ln *lane) outdated(given time.Time) bool {
	if time.Now().Before(ln.State().ClosedUntil) {
		return true
	}
	ln.mu.Lock()
	defer ln.mu.Unlock()
	return given.Before(ln.demand.refusedAt)
}

// tiers returns the service tiers of a job, in order of preference.
func (w *Worker) tiers(j *jobs.Job) []string {
	switch {
	case j.Tier != "":
		return []string{j.Tier}
	case len(j.Tiers) > 0:
		return j.Tiers
	default:
		return w.cfg.Tiers
	}
}

// regions returns where the job may be sent.
func (w *Worker) regions(j *jobs.Job) []string {
	if j.Regions == nil {
		return w.cfg.Regions
	}
	return both(w.cfg.Regions, j.Regions)
}

// both returns those of a that are in b.
func both(a, b []string) []string {
	return slices.DeleteFunc(slices.Clone(a), func(s string) bool { return !slices.Contains(b, s) })
}

// slack returns how long a job may wait before its deadline is near: when less is
// left than Config.Escalate, or than the next tier needs. That is what its answers
// usually take and twice the wait in its line, as waits are reckoned from rates
// that move. It is false for a job that has no deadline or no other tier, or whose
// next tier is closed until then. ls.mu must be held.
func (ls *lanes) slack(t *task, now time.Time) (d time.Duration, ok bool) {
	deadline := t.job.Deadline
	if len(t.tiers) < 2 || deadline.IsZero() {
		return 0, false
	}
	next, l := ls.best(t.regions, t.job.Model, t.tiers[1], now)
	need := max(t.w.cfg.Escalate, 2*l.wait+next.usual())
	return deadline.Sub(now) - need, next.State().ClosedUntil.Before(deadline)
}

// mustClimb reports whether the job should move up a tier rather than wait for
// ln: its deadline is near, and ln is out of capacity. ls.mu must be held.
func (ls *lanes) mustClimb(t *task, ln *lane, now time.Time) bool {
	if len(t.tiers) < 2 || !ln.lacks(now) {
		return false
	}
	d, ok := ls.slack(t, now)
	return ok && d <= 0
}

// climb moves the job up a tier if it has to, for as long as this delivery lasts,
// and reports whether it did.
func (t *task) climb(ln *lane) bool {
	ls, now := t.w.lanes, time.Now()
	ls.mu.Lock()
	must := ls.mustClimb(t, ln, now)
	if must {
		t.tiers = t.tiers[1:]
		ln, _ = ls.best(t.regions, t.job.Model, t.tiers[0], now)
	}
	ls.mu.Unlock()
	if must {
		t.w.observe(Event{Kind: Escalated, Message: t.m.ID, Key: t.job.Key, Lane: ln.Lane})
	}
	return must
}

// putOff releases the job for d, but for no longer than until its deadline is
// near and it may have to move up a tier.
func (t *task) putOff(d time.Duration, why error) ending {
	ls := t.w.lanes
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if most, ok := ls.slack(t, time.Now()); ok && most > 0 {
		d = min(d, most)
	}
	return released(d, why)
}
