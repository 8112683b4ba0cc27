package capacity

import (
	"math"
	"slices"
	"time"
)

// A Reason says why a call is refused, in a word for logs; empty if it is not.
type Reason string

// The reasons, each named after the resource of the script behind it.
const (
	OverCalls  Reason = "calls"  // the budget of calls is used up
	OverTokens Reason = "tpm"    // the budget of tokens is too low for this call
	OverOutput Reason = "otpm"   // the output tokens generated have used up their budget
	OverSlots  Reason = "conc"   // no slot and no place in the queue
	OverWait   Reason = "wait"   // waited for a slot as long as its patience lasts; callers say so, Admit never does
	Refused    Reason = "refuse" // the tier's own luck
	Noise      Reason = "noise"  // none at all
)

// A Capacity applies a script to the calls of every model.
type Capacity struct {
	plan  plan
	start time.Duration // of the plan
	now   time.Duration // the latest seen
	pools map[string]*pool
	order []*pool // by age, so that no run differs from another
}

// A pool is what the calls to one model compete for.
type pool struct {
	capacity *Capacity
	shared   *gauge
	gauges   []*gauge            // all
	tiers    map[string][]*gauge // those that a tier's calls count against, at most two
	queue    []*Claim            // by rank, then by arrival
	busy     int
}

// New returns a Capacity whose script starts at time zero. It returns an error
// if the script is not valid.
func New(script Script) (*Capacity, error) {
	p, err := script.plan()
	if err != nil {
		return nil, err
	}
	return &Capacity{plan: p, pools: map[string]*pool{}}, nil
}

// Set replaces the script: the new one starts now. Budgets keep what is left of
// them, calls their slots and places. Output tokens of calls that generate
// already are charged only if the old script named otpm, too.
func (c *Capacity) Set(script Script, now time.Duration) error {
	plan, err := script.plan()
	if err != nil {
		return err
	}
	x := c.seconds(now)
	c.plan, c.start = plan, c.now
	for _, p := range c.order {
		for _, g := range p.gauges {
			g.follow(plan, x)
		}
	}
	c.Serve(now)
	return nil
}

// Admit takes what cl needs from every limit it counts against, or takes
// nothing and says why. An admitted claim has a slot or, if it is Waiting, a
// place in the queue, until it is released. Luck draws from [0, 1), at most once
// for each set of limits. A claim that was refused or released may be admitted
// again; Admit panics if it was admitted and not released.
func (c *Capacity) Admit(now time.Duration, cl *Claim, luck func() float64) Reason {
	if cl.pool != nil {
		panic("capacity: a claim was admitted twice")
	}
	x := c.seconds(now)
	p := c.pool(cl.Model)
	cl.gauges, cl.slow = p.claimed(cl.Tier), 1
	for _, g := range cl.gauges {
		g.fill(x)
		refuse, noise := g.limits.or(resRefuse, x, 0), g.limits.or(resNoise, x, 0)
		if u := luck(); u < refuse {
			return Refused
		} else if u < refuse+noise {
			return Noise
		}
		if why := g.refuses(cl.Tokens); why != "" {
			return why
		}
		cl.slow *= g.limits.or(resSlow, x, 1)
	}
	if !p.enter(cl, x) {
		return OverSlots
	}
	for i, g := range cl.gauges {
		g.calls.take(1)
		g.growth.used++
		cl.lots[i] = g.tokens.take(float64(cl.Tokens))
	}
	return ""
}

// Serve gives free slots to those in the queues. Admit and Release do so by
// themselves; Serve is for limits that rise, which nobody notices otherwise.
func (c *Capacity) Serve(now time.Duration) {
	x := c.seconds(now)
	for _, p := range c.order {
		p.serve(x)
	}
}

// At returns how much of a resource calls to a model on a tier may have now, the
// share of other tenants taken off: the lower of the tier's own limit and the
// shared one. Without a tier it is the shared one. The resource is calls (a
// second; in an endpoint that grows, what it has grown to), tpm, otpm (both a
// minute) or conc; At panics on any other. Without a limit it returns infinity and
// false. To ask changes nothing.
func (c *Capacity) At(now time.Duration, model, tier, resource string) (amount float64, ok bool) {
	r := slices.Index(names[:], resource)
	if !slices.Contains(queried, r) {
		panic("capacity: no limit is named " + resource)
	}
	x := c.seconds(now)
	amount = math.Inf(1)
	for _, g := range c.pool(model).claimed(tier) {
		if n, limited := g.available(r, x); limited {
			amount, ok = min(amount, n), true
		}
	}
	return amount, ok
}

var queried = []int{resCalls, resTokens, resOutput, resSlots}

// Busy returns how many calls to a model hold a slot.
func (c *Capacity) Busy(model string) int {
	if p := c.pools[model]; p != nil {
		return p.busy
	}
	return 0
}

// seconds returns the script's own time.
func (c *Capacity) seconds(now time.Duration) float64 {
	c.now = max(c.now, now)
	return (c.now - c.start).Seconds()
}

func (c *Capacity) pool(model string) *pool {
	p := c.pools[model]
	if p == nil {
		p = &pool{capacity: c, shared: newGauge(c.plan, "")}
		p.gauges = []*gauge{p.shared}
		p.tiers = map[string][]*gauge{"": p.gauges}
		c.pools[model] = p
		c.order = append(c.order, p)
	}
	return p
}

// claimed returns what a tier's calls count against.
func (p *pool) claimed(tier string) []*gauge {
	list := p.tiers[tier]
	if list == nil {
		own := newGauge(p.capacity.plan, tier)
		if list = []*gauge{p.shared, own}; tier == reserved {
			list = list[1:]
		}
		p.gauges = append(p.gauges, own)
		p.tiers[tier] = list
	}
	return list
}

// enter puts cl in line and serves the line: cl may leave it at once with a slot.
// It reports false, and leaves no trace, if cl would have to wait and the queue
// has no place.
func (p *pool) enter(cl *Claim, x float64) bool {
	i := len(p.queue)
	for i > 0 && p.queue[i-1].Rank > cl.Rank {
		i--
	}
	p.queue = slices.Insert(p.queue, i, cl)
	cl.count(1)
	cl.pool, cl.state, cl.patience = p, arriving, math.MaxInt64
	p.serve(x)
	if cl.state == holding {
		return true
	}
	for _, g := range cl.gauges {
		if !g.free(x) && float64(g.queued) > g.limits.or(resQueue, x, 0) {
			p.leave(cl)
			cl.pool = nil
			return false
		}
		if _, ok := g.limits.amount(resSlots, x); ok {
			cl.patience = min(cl.patience, duration(g.limits.or(resWait, x, queueWait)))
		}
	}
	cl.state = waiting
	return true
}

// leave takes cl out of the line.
func (p *pool) leave(cl *Claim) {
	i := slices.Index(p.queue, cl)
	p.queue = slices.Delete(p.queue, i, i+1)
	cl.count(-1)
}

// serve gives free slots to those in line, in their order. A call that waits for
// its own tier's limit does not hold up those behind it.
func (p *pool) serve(x float64) {
	var full *gauge // found in this pass
	p.queue = slices.DeleteFunc(p.queue, func(cl *Claim) bool {
		for _, g := range cl.gauges {
			if g == full || !g.free(x) {
				full = g
				return false
			}
		}
		cl.hold()
		return true
	})
}

// duration is that many seconds, or the longest there is.
func duration(seconds float64) time.Duration {
	if d := seconds * float64(time.Second); d < math.MaxInt64 {
		return time.Duration(d)
	}
	return math.MaxInt64
}

// A Claim is one call's part of a Capacity. The caller fills in the fields before
// Admit, and leaves them alone until Release.
type Claim struct {
	Model  string
	Tier   string // empty: the claim counts against the shared limits alone
	Rank   int    // place in the queue; lower goes first
	Tokens int    // charged to tpm at admission: what the call may use at most

	// Granted, if set, is called when a claim that was Waiting gets its slot. It
	// may call Generate, but nothing else of the Capacity or its claims. It may be
	// set after Admit, too.
	Granted func(now time.Duration)

	pool     *pool // nil: the claim holds nothing
	state    state
	gauges   []*gauge      // all that the call counts against
	lots     [2]int        // by gauge, which lot the tokens were taken from
	rates    [2]float64    // by gauge, of output while the call generates
	end      time.Duration // of generation
	patience time.Duration
	slow     float64
}

// A state is how far a claim has come that is in a pool.
type state int

const (
	arriving state = iota // not yet admitted
	waiting
	holding // a slot
	generating
)

// Waiting reports whether the claim stands in the queue.
func (cl *Claim) Waiting() bool { return cl.pool != nil && cl.state == waiting }

// Patience is how long after its admission a claim that still waits is to be
// released, and its call refused with [OverWait].
func (cl *Claim) Patience() time.Duration { return cl.patience }

// Slow is the script's multiplier of latency at the time of admission.
func (cl *Claim) Slow() float64 { return cl.slow }

// Generate tells that the claim's call begins to generate so many output tokens
// and will be done in the time took. They are charged to otpm evenly over that
// time, or as far as that has come when the claim is released. Generate panics if
// the claim has no slot, or generates already.
func (cl *Claim) Generate(now time.Duration, output int, took time.Duration) {
	if cl.pool == nil || cl.state != holding {
		panic("capacity: a claim generates without a slot, or twice")
	}
	cl.state = generating
	c := cl.pool.capacity
	x := c.seconds(now)
	if cl.end = c.now + took; cl.end < c.now {
		cl.end = math.MaxInt64
	}
	for i, g := range cl.gauges {
		g.fill(x)
		cl.rates[i] = g.start(x, (cl.end - c.start).Seconds(), float64(output))
	}
}

// Release ends the claim: its slot or its place in the queue goes to the next,
// and of the Tokens charged only those used stay charged. Releasing a claim that
// holds nothing does nothing.
func (cl *Claim) Release(now time.Duration, used int) {
	p := cl.pool
	if p == nil {
		return
	}
	x := p.capacity.seconds(now)
	for i, g := range cl.gauges {
		g.fill(x)
		g.tokens.give(float64(cl.Tokens-used), cl.lots[i])
		if cl.rates[i] > 0 && cl.end > p.capacity.now {
			g.output.change(-cl.rates[i], (cl.end - p.capacity.start).Seconds())
		}
		if cl.state != waiting {
			g.busy--
		}
	}
	if cl.state == waiting {
		p.leave(cl)
	} else {
		p.busy--
	}
	cl.pool, cl.rates = nil, [2]float64{}
	p.serve(x)
}

// count adds n to the calls queued.
func (cl *Claim) count(n int) {
	for _, g := range cl.gauges {
		g.queued += n
	}
}

// hold gives cl, which stands in line, a slot.
func (cl *Claim) hold() {
	cl.count(-1)
	for _, g := range cl.gauges {
		g.busy++
	}
	cl.pool.busy++
	waited := cl.state == waiting
	cl.state = holding
	if waited && cl.Granted != nil {
		cl.Granted(cl.pool.capacity.now)
	}
}
