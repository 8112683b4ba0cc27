package throttle

import (
	"time"

	"golang.org/x/time/rate"
)

const (
	// unit is how many tokens of the bucket a mean call takes, as rate.Limiter
	// counts in whole ones.
	unit = 1000

	// slack is how much of a second the bucket may save up. Timers fire late,
	// and what a late one loses must not be lost for good: with a bucket of one
	// call, 500 calls a second come out as 450.
	slack = 0.02

	// probePatience is how long the first attempt after a closure stands alone,
	// while nothing is known of how long refusals take. A refusal comes at once
	// and an answer may take minutes, so an attempt that has lasted this long
	// has been let in.
	probePatience = 5 * time.Second

	// maxClosed bounds what a Retry-After can do: a wrong clock at the other end
	// must not stop a lane for a day.
	maxClosed = time.Hour
)

// A probe is the one attempt that finds out whether a closed flow is open again.
type probe int

const (
	noProbe  probe = iota
	wanted         // the next attempt is the probe
	underway       // the probe is out, and everybody else waits for it
)

// A flow lets attempts through at the pace that its controller decides. It is what
// one kind of refusal is about: a quota, or the capacity of a tier. Its owner
// guards it.
type flow struct {
	ctl      controller
	meter    meter
	bucket   *rate.Limiter
	most     int // attempts in flight; zero for no bound
	inFlight int

	closed   time.Time // nothing starts before this
	why      string    // the reason closed was last moved
	probe    probe     // how the flow reopens
	probedAt time.Time // when the probe left
}

// A ticket is one attempt's part of a flow.
type ticket struct {
	mark  mark
	cost  float64
	probe time.Time // when it left, if it is one
}

func newFlow(cfg Config) *flow {
	f := &flow{ctl: newController(cfg), meter: newMeter(cfg.Level), most: cfg.MaxInFlight}
	f.bucket = rate.NewLimiter(rate.Limit(f.ctl.rate*unit), burst(f.ctl.rate))
	return f
}

// burst is the depth of the bucket at rate r: one call and the slack.
func burst(r float64) int { return unit + int(slack*r)*unit }

// wait returns how long an attempt that reserves so many tokens has to wait, unless
// something changes before. Zero means that it may start.
//
// A call larger than the bucket starts when that is full, and is paid for
// afterwards: the endpoint does the same, and what would be saved up for it
// beforehand has no room in a small budget there.
func (f *flow) wait(now time.Time, tokens float64) time.Duration {
	if w := f.closed.Sub(now); w > 0 {
		f.ctl.waitedAt = f.closed
		return w
	}
	if f.probe == underway {
		if w := f.probedAt.Add(f.ctl.patience()).Sub(now); w > 0 {
			f.ctl.waitedAt = now.Add(w)
			return w
		}
		f.probe = noProbe
	}
	if f.most > 0 && f.inFlight >= f.most {
		return time.Second
	}
	missing := min(f.meter.weigh(tokens)*unit, float64(f.bucket.Burst())) - f.bucket.TokensAt(now)
	if missing <= 0 { // only then is it the wall that stops us
		if !f.ctl.wall.room(now, f.inFlight, f.ctl.cycles) {
			return time.Second
		}
		return 0
	}
	w := max(time.Duration(missing/float64(f.bucket.Limit())*float64(time.Second)), time.Microsecond)
	f.ctl.waitedAt = now.Add(w)
	return w
}

// start lets an attempt start.
func (f *flow) start(now time.Time, tokens float64) ticket {
	t := ticket{cost: f.meter.weigh(tokens)}
	f.take(now, t.cost)
	t.mark = f.ctl.start(now, t.cost, f.inFlight, f.meter.send(tokens))
	f.retune(now)
	if f.probe == wanted {
		f.probe, f.probedAt, t.probe = underway, now, now
	}
	f.inFlight++
	return t
}

// take books a cost that nobody waits for.
func (f *flow) take(now time.Time, cost float64) {
	for n := int(cost * unit); n > 0; {
		k := min(n, f.bucket.Burst())
		f.bucket.ReserveN(now, k)
		n -= k
	}
}

// retune takes over the controller's pace.
func (f *flow) retune(now time.Time) {
	r := f.ctl.pace()
	f.bucket.SetLimitAt(now, rate.Limit(r*unit))
	if b := burst(r); b != f.bucket.Burst() {
		f.bucket.SetBurstAt(now, b)
	}
}

// done ends an attempt. It reports whether those who wait should look again.
func (f *flow) done(now time.Time, t ticket, fb Feedback) (changed bool) {
	f.inFlight--
	changed = f.most > 0 || f.ctl.wall.hits >= believed
	if f.isProbe(t) {
		f.probe, changed = noProbe, true
		if fb.Outcome == Unrelated { // it says nothing, so the next one has to
			f.probe = wanted
		}
	}
	refused := fb.Outcome == Throttled || fb.Outcome == Unavailable
	if refused {
		f.meter.refused(t.mark.lean)
	}
	if cut, stop := f.ctl.done(now, t.mark, t.cost, fb.Outcome); cut {
		f.retune(now)
		saved := max(f.bucket.TokensAt(now)/unit, 0)
		f.take(now, saved+min(pause, longPause*f.ctl.pace()))
		if stop > 0 {
			f.close(now, now.Add(stop), f.ctl.reason)
			f.probe = wanted
		}
	}
	if refused && fb.RetryAfter > 0 {
		f.close(now, now.Add(fb.RetryAfter), "Retry-After "+fb.RetryAfter.Round(time.Millisecond).String())
	}
	return changed
}

// isProbe reports whether t is the probe that is out, and not one of an earlier
// closure.
func (f *flow) isProbe(t ticket) bool {
	return f.probe == underway && t.probe.Equal(f.probedAt)
}

// cancel takes back an attempt that was not made.
func (f *flow) cancel(t ticket) {
	f.inFlight--
	f.ctl.lose(t.cost)
	f.meter.credit = min(f.meter.credit+t.cost, 1)
	if f.isProbe(t) {
		f.probe = wanted
	}
}

// close moves the time the flow reopens, if it is later than the one set, and at
// most an hour from now.
func (f *flow) close(now, until time.Time, reason string) {
	if latest := now.Add(maxClosed); until.After(latest) {
		until = latest
	}
	if until.After(f.closed) && until.After(now) {
		f.closed, f.why = until, reason
	}
}

// reason returns why the rate is what it is.
func (f *flow) reason(now time.Time) string {
	switch {
	case now.Before(f.closed) && f.why != "probing":
		return "closed: " + f.why
	case f.probe != noProbe:
		return "probing"
	default:
		return f.ctl.reason
	}
}

// level is what to begin with another time: the stable rate or, of a flow that has
// refused nothing yet, the rate that it let through.
func (f *flow) level() Level {
	l := f.ctl.stable()
	if l.Rate == 0 && f.ctl.took > 0 {
		l.Rate = f.ctl.rate * f.ctl.fleet.workers
	}
	if l.Rate > 0 {
		l.Weight, l.Tokens = f.meter.weight, f.meter.tokens
	}
	return l
}

// binds names what is limited, once refusals have told.
func (f *flow) binds() string {
	switch {
	case f.ctl.level == 0:
		return ""
	case f.ctl.wall.hits >= believed:
		return "in flight"
	case f.meter.tokens > 0 && f.meter.weight > 0.75:
		return "tokens"
	case f.meter.tokens == 0 || f.meter.weight < 0.25:
		return "calls"
	default: // one or the other
		return ""
	}
}

// report returns what other workers should know.
func (f *flow) report() Report {
	return Report{Rate: f.ctl.stable().Rate, Refusals: f.ctl.fleet.refusals}
}
