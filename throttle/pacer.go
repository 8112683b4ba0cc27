package throttle

import "time"

// A Pacer is a [Limiter] without the waiting: whoever has it asks how long a call
// has to wait, and says what time it is. It serves simulations, which have a time
// of their own; everybody else wants a Limiter. A Pacer is not safe for concurrent
// use.
//
// It has two flows, since there are two kinds of refusal. A 429 is about the quota,
// which the on-demand tiers of a model share in a Region; a 503 or 529 is about
// the capacity of one tier. A call passes both, and each learns from its own.
type Pacer struct {
	quota, tier *flow
	usage       *usage
}

// A Start is a call that a Pacer has let start. Done takes it back.
type Start struct {
	quota, tier ticket
	estimate    Cost
	tokens      float64 // reserved
}

// NewPacer returns a Pacer. Its time begins with the first call.
func NewPacer(cfg Config) *Pacer {
	cfg = cfg.withDefaults()
	return &Pacer{quota: newFlow(cfg), tier: newFlow(cfg), usage: new(usage)}
}

// Wait returns how long a call of that cost has to wait, unless a call ends before:
// then ask again. Zero means that it may start now.
func (p *Pacer) Wait(now time.Time, c Cost) time.Duration {
	tokens := p.usage.reserve(c)
	return max(p.quota.wait(now, tokens), p.tier.wait(now, tokens))
}

// Start starts a call of that cost, whether or not it should wait.
func (p *Pacer) Start(now time.Time, c Cost) Start {
	tokens := p.usage.reserve(c)
	return Start{
		quota: p.quota.start(now, tokens), tier: p.tier.start(now, tokens),
		estimate: c, tokens: tokens,
	}
}

// Cancel takes back a call that was not made.
func (p *Pacer) Cancel(s Start) {
	p.quota.cancel(s.quota)
	p.tier.cancel(s.tier)
}

// Done ends a call. It reports whether those who wait should ask again at once.
func (p *Pacer) Done(now time.Time, s Start, f Feedback) (changed bool) {
	quota, tier := f, f
	switch f.Outcome {
	case Throttled:
		tier = Feedback{Outcome: Unrelated}
	case Unavailable:
		quota = Feedback{Outcome: Unrelated}
	default:
	}
	if f.Outcome == Accepted {
		p.usage.learn(s.estimate, f.Used)
	}
	if s.tokens > 0 && f.Used != (Cost{}) {
		back := s.tokens - float64(f.Used.Input+f.Used.Output)
		p.quota.meter.back(back)
		p.tier.meter.back(back)
	}
	a := p.quota.done(now, s.quota, quota)
	b := p.tier.done(now, s.tier, tier)
	return a || b
}

// share takes over what other workers believe of the lane, or of its quota.
func (f *flow) share(now time.Time, s Share) {
	f.ctl.share(s)
	f.retune(now)
}

// Share tells what the workers that share the account believe; see [Set.Share].
func (p *Pacer) Share(now time.Time, quota, tier Share) {
	p.quota.share(now, quota)
	p.tier.share(now, tier)
}

// Report returns what other workers should know; see [Set.Report].
func (p *Pacer) Report() (quota, tier Report) { return p.quota.report(), p.tier.report() }

// closed is when the later of the two flows opens.
func (p *Pacer) closed() time.Time {
	if p.quota.closed.After(p.tier.closed) {
		return p.quota.closed
	}
	return p.tier.closed
}

// probe is how the lane reopens: the flow that is the furthest from it decides.
func (p *Pacer) probe() probe { return max(p.quota.probe, p.tier.probe) }

// probeEnds is when whoever waits for a probe need not wait any more.
func (p *Pacer) probeEnds() time.Time {
	f := p.tier
	if p.quota.probe == underway {
		f = p.quota
	}
	return f.probedAt.Add(f.ctl.patience())
}

// decides returns the flow that people should be told about.
func (p *Pacer) decides(now time.Time) *flow {
	quota, tier := p.quota, p.tier
	switch {
	case p.closed().After(now) && p.closed().Equal(quota.closed), quota.probe > tier.probe:
		return quota
	case p.closed().After(now), tier.probe > quota.probe:
		return tier
	case tier.ctl.wall.hits >= believed, tier.ctl.pace() < quota.ctl.pace():
		return tier
	default:
		return quota
	}
}

// rate is the pace that both flows allow.
func (p *Pacer) rate() float64 { return min(p.quota.ctl.pace(), p.tier.ctl.pace()) }

// State returns what the Pacer knows. What only a Limiter counts is zero.
func (p *Pacer) State(now time.Time) State {
	f := p.decides(now)
	return State{
		Rate: p.rate(), Stable: f.ctl.stable().Rate, InFlight: p.tier.inFlight,
		ClosedUntil: p.closed(), Reason: f.reason(now), Binds: f.binds(), Bound: p.bound(now, f),
	}
}

// overdue is after how many cycles without a refusal it is no longer the capacity that
// keeps a lane back, but that the rate has not come up to it yet.
const overdue = 1.5

// bound returns what keeps the lane from starting more, if anybody waits; f decides.
func (p *Pacer) bound(now time.Time, f *flow) Bound {
	full := func(f *flow) bool { return f.most > 0 && f.inFlight >= f.most }
	kind := Capacity
	if f == p.quota {
		kind = Quota
	}
	switch {
	case now.Before(f.closed), f.probe != noProbe:
		return kind
	case full(p.quota), full(p.tier), now.Sub(f.ctl.wall.waitedAt) < fresh:
		return InFlight
	case p.rate() >= f.ctl.cfg.MaxRate:
		return MaxRate
	case f.ctl.cutAt.IsZero(), f.ctl.cycles > overdue:
		return Ramp
	default:
		return kind
	}
}
