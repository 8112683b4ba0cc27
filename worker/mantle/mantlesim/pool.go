package mantlesim

import (
	"context"
	"math"
	"slices"
	"time"
)

// Why a call over capacity is refused, as the ledger names it.
const (
	overCalls  = "calls"  // the calls bucket is empty
	overTokens = "tpm"    // the tokens bucket is too low
	overSlots  = "conc"   // no slot and no place in the queue
	overWait   = "wait"   // waited for a slot as long as the script allows
	overTier   = "refuse" // the tier's own luck
	hungUp     = "gone"   // the client left
)

// A capacity applies a plan to every model's pool. Server.mu guards all of it.
type capacity struct {
	plan  plan
	start time.Time // of the plan; zero until the first call
	pools map[string]*pool
}

// A pool is what the calls to one model compete for.
type pool struct {
	gauges map[string]*gauge // by scope
	queue  []*ticket         // by rank, then by arrival
}

// A gauge is how much of one scope's limits is in use.
type gauge struct {
	limits        map[string]track
	calls, tokens bucket
	busy, queued  int
}

// A ticket is a call's claim on its pool.
type ticket struct {
	pool    *pool
	gauges  []*gauge // all that the call counts against
	tokens  float64  // taken at admission
	rank    int
	ready   chan struct{} // closed when a slot is granted
	granted bool
	patient time.Duration // time in the queue before it is refused
}

// seconds returns the plan's own time.
func (c *capacity) seconds(now time.Time) float64 { return now.Sub(c.start).Seconds() }

// set replaces the plan from now on. Buckets keep their level.
func (c *capacity) set(p plan, now time.Time) {
	for _, pl := range c.pools {
		for scope, g := range pl.gauges {
			g.fill(c.seconds(now))
			g.limits = p[scope]
			g.calls.last, g.tokens.last = 0, 0
		}
	}
	c.plan, c.start = p, now
	for _, pl := range c.pools {
		pl.grant(0)
	}
}

// ticket returns a claim on model's pool for a call on a tier that may cost so
// many tokens.
func (c *capacity) ticket(model, tier string, rank int, tokens float64) *ticket {
	p := c.pools[model]
	if p == nil {
		p = &pool{gauges: map[string]*gauge{}}
		c.pools[model] = p
	}
	t := &ticket{pool: p, rank: rank, tokens: tokens, ready: make(chan struct{})}
	scopes := []string{"", tier}
	if tier == "reserved" {
		scopes = scopes[1:] // a quota of its own
	}
	for _, scope := range scopes {
		if p.gauges[scope] == nil {
			p.gauges[scope] = &gauge{limits: c.plan[scope]}
		}
		t.gauges = append(t.gauges, p.gauges[scope])
	}
	return t
}

// admit takes what t needs from every gauge, or takes nothing and says why.
// Without a free slot, t is queued. Luck is a draw per gauge.
func (t *ticket) admit(x float64, luck func() float64) (refused string) {
	for _, g := range t.gauges {
		g.fill(x)
		switch {
		case g.limits[resRefuse].or(x, 0) > luck():
			return overTier
		case !g.calls.holds(1):
			return overCalls
		case !g.tokens.holds(t.tokens):
			return overTokens
		}
	}
	if !t.enqueue(x) {
		return overSlots
	}
	for _, g := range t.gauges {
		g.calls.level--
		g.tokens.level -= t.tokens
	}
	return ""
}

// enqueue puts t in line and serves the line: t may leave it at once with a
// slot. It reports false, and leaves no trace, if t would have to wait and the
// queue has no place.
func (t *ticket) enqueue(x float64) bool {
	p := t.pool
	i := len(p.queue)
	for i > 0 && p.queue[i-1].rank > t.rank {
		i--
	}
	p.queue = slices.Insert(p.queue, i, t)
	t.count(1)
	p.grant(x)
	if t.granted {
		return true
	}
	t.patient = math.MaxInt64
	for _, g := range t.gauges {
		if !g.free(x) && float64(g.queued) > g.limits[resQueue].or(x, 0) {
			t.leave()
			return false
		}
		if _, ok := g.limits[resSlots].at(x); ok {
			t.patient = min(t.patient, time.Duration(g.limits[resWait].or(x, queueWait)*float64(time.Second)))
		}
	}
	return true
}

// leave takes t out of the line if it stands there.
func (t *ticket) leave() {
	if i := slices.Index(t.pool.queue, t); i >= 0 {
		t.pool.queue = slices.Delete(t.pool.queue, i, i+1)
		t.count(-1)
	}
}

// count adds n to the calls queued.
func (t *ticket) count(n int) {
	for _, g := range t.gauges {
		g.queued += n
	}
}

// grant gives free slots to those in line, in their order. A call that waits for
// its own tier's limit does not hold up those behind it.
func (p *pool) grant(x float64) {
	var full *gauge // found in this pass
	p.queue = slices.DeleteFunc(p.queue, func(t *ticket) bool {
		for _, g := range t.gauges {
			if g == full || !g.free(x) {
				full = g
				return false
			}
		}
		for _, g := range t.gauges {
			g.busy++
			g.queued--
		}
		t.granted = true
		close(t.ready)
		return true
	})
}

// release ends t's claim: the slot or the place in the queue is free again, and
// of the tokens taken only those used stay taken.
func (t *ticket) release(x, used float64) {
	for _, g := range t.gauges {
		g.fill(x)
		g.tokens.level = min(g.tokens.level+t.tokens-used, g.tokens.cap)
		if t.granted {
			g.busy--
		}
	}
	t.leave()
	t.pool.grant(x)
}

// free reports whether g has a slot.
func (g *gauge) free(x float64) bool {
	n, ok := g.limits[resSlots].at(x)
	return !ok || float64(g.busy+1) <= n*g.ours(x)+slack
}

// ours is the share of the capacity that other tenants leave.
func (g *gauge) ours(x float64) float64 { return max(0, 1-g.limits[resOthers].or(x, 0)) }

// fill brings the buckets up to x seconds. The share of others is taken as it
// is in the middle of the time passed.
func (g *gauge) fill(x float64) {
	g.calls.fill(g.limits[resCalls], x, 1, g.limits[resBurst].or(x, 1), g.ours, 1)
	g.tokens.fill(g.limits[resTokens], x, 1./60, g.limits[resDepth].or(x, 60), g.ours, 0)
}

// slack absorbs rounding: a bucket that is this close to a whole call holds it.
const slack = 1e-6

// A bucket is a token bucket whose rate is a track. It starts full.
type bucket struct {
	limited bool
	level   float64
	cap     float64
	last    float64 // seconds of the last fill
}

// fill adds what the track, scaled to seconds, has let in since the last fill.
func (b *bucket) fill(t track, x, scale, depth float64, ours func(float64) float64, least float64) {
	amount, ok := t.at(x)
	rate := amount * scale * ours(x)
	b.cap = rate * depth
	if rate > 0 {
		b.cap = max(b.cap, least)
	}
	switch {
	case !ok || !(b.cap <= math.MaxFloat64): // infinite or NaN would spoil sums
		b.level, ok = 0, false
	case !b.limited:
		b.level = b.cap
	case x > b.last:
		b.level += t.area(b.last, x) * scale * ours((b.last+x)/2)
	}
	b.limited, b.last = ok, x
	b.level = min(b.level, b.cap)
}

// holds reports whether n may be taken. More than the bucket can hold is
// admitted when it is full: the limit is on throughput, not on size.
func (b *bucket) holds(n float64) bool {
	return !b.limited || b.cap > 0 && b.level >= min(n, b.cap)-slack
}

// recheck is how often a queued call looks at the script itself, because a limit
// that rises wakes nobody.
const recheck = 100 * time.Millisecond

// await returns once t has a slot, or why it never will.
func (s *Server) await(ctx context.Context, t *ticket) (refused string) {
	select {
	case <-t.ready:
		return ""
	default:
	}
	for start := time.Now(); ; {
		left := t.patient - time.Since(start)
		timer := time.NewTimer(min(recheck, left))
		select {
		case <-t.ready:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
		s.mu.Lock()
		t.pool.grant(s.capacity.seconds(time.Now()))
		granted := t.granted
		s.mu.Unlock()
		switch {
		case granted:
			return ""
		case ctx.Err() != nil:
			return hungUp
		case left <= recheck:
			return overWait
		}
	}
}
