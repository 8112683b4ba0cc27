package capacity

import "math"

// A gauge is how much of one scope's limits is in use.
type gauge struct {
	scope         string
	limits        *limits
	filled        float64 // seconds; negative if limits are new
	calls, tokens bucket
	growth        growth
	output        output
	busy, queued  int
}

func newGauge(p plan, scope string) *gauge {
	return &gauge{scope: scope, limits: p.limits(scope), filled: -1}
}

// fill brings all that time changes up to x seconds.
func (g *gauge) fill(x float64) {
	if x == g.filled {
		return
	}
	g.filled = x
	g.grow(x)
	depth := g.limits.or(resDepth, x, tokensDepth)
	g.tokens.fill(x, g.supply(resTokens, g.tokens.last, x, depth, 0))
	g.drain(x, depth)
}

// follow goes over to another plan, whose clock starts at x seconds.
func (g *gauge) follow(p plan, x float64) {
	g.fill(x)
	g.limits, g.filled = p.limits(g.scope), -1
	for _, b := range []*bucket{&g.calls, &g.tokens, &g.output.bucket} {
		b.last -= x
	}
	g.growth.tick = math.Floor(g.growth.tick - x)
	for i := range g.output.ends {
		g.output.ends[i].at -= x
	}
}

// refuses returns which budget is too low for a call that may use so many tokens.
func (g *gauge) refuses(tokens int) Reason {
	switch {
	case !g.calls.holds(1):
		return OverCalls
	case !g.tokens.holds(float64(tokens)):
		return OverTokens
	case g.output.limited && g.output.level <= slack:
		return OverOutput
	}
	return ""
}

// free reports whether g has a slot.
func (g *gauge) free(x float64) bool {
	n, ok := g.limits.amount(resSlots, x)
	return !ok || float64(g.busy+1) <= n*g.limits.ours(x)+slack
}

// available returns how much of r there is at x seconds, if there is a limit. What
// it asks of the buckets does not change what they admit.
func (g *gauge) available(r int, x float64) (amount float64, ok bool) {
	if _, grows := g.limits.growth(x); grows && r == resCalls {
		g.grow(x)
		return g.growth.rate, true
	}
	amount, ok = g.limits.amount(r, x)
	return amount * g.limits.ours(x), ok
}

// A supply is what flows into a bucket over a span of time.
type supply struct {
	limited bool    // otherwise there is no end of it
	rate    float64 // a second, at the span's end
	sum     float64 // over the span
	depth   float64 // seconds at that rate that the bucket holds
	least   float64 // that the bucket holds unless the rate is zero
	window  float64 // seconds; zero for a bucket
}

// supply returns that of r, an amount per minute or, of calls, per second. The
// share of others is taken as it is in the middle of the span.
func (g *gauge) supply(r int, from, x, depth, least float64) supply {
	amount, ok := g.limits.amount(r, x)
	if !ok {
		return supply{}
	}
	scale := 1.
	if r != resCalls {
		scale = 1. / 60
	}
	s := supply{limited: true, rate: amount * scale * g.limits.ours(x), depth: depth, least: least}
	if s.window = g.window(r, x); s.window == 0 {
		s.sum = g.limits[r].area(from, x) * scale * g.limits.ours((from+x)/2)
	}
	if !(s.sum <= math.MaxFloat64) { // nor NaN
		s.sum = math.MaxFloat64
	}
	return s
}

// window returns the length of the windows that r is counted in, zero for none.
func (g *gauge) window(r int, x float64) float64 {
	if w, ok := g.limits.amount(resWindow, x); ok && r != resOutput {
		return w
	}
	return 0
}

// slack absorbs rounding: a bucket that is this close to a whole call holds it,
// and a window that is this close has begun.
const slack = 1e-6

// A bucket is a budget that fills again. It starts full.
type bucket struct {
	limited bool
	level   float64 // what may be taken; in debt if negative
	cap     float64
	most    float64 // budget of the present window at its largest
	last    float64 // seconds of the last fill
	lot     int     // counts when the budget began anew: what was taken of an earlier lot is not given back
}

// fill takes in what has come since the last fill.
func (b *bucket) fill(x float64, s supply) {
	full := s.rate * s.depth
	if s.window > 0 {
		full = s.rate * s.window
	}
	room := full
	if s.rate > 0 {
		room = max(full, s.least)
	}
	switch {
	case !s.limited || !(room <= math.MaxFloat64): // infinite or NaN would spoil sums
		*b = bucket{last: x, lot: b.lot}
		return
	case !b.limited:
		b.level, b.most = room, full
		b.lot++
	case s.window > 0:
		b.level = room - b.spent(x, s.window, full)
	default:
		b.level, b.most = b.level+s.sum, full
	}
	b.limited, b.cap, b.last = true, room, x
	b.level = min(b.level, b.cap)
}

// spent returns what has been taken of the window at x seconds, whose budget is
// now full. What exceeded an earlier window's budget is owed by those after it;
// what was left of one is a negative amount, of which fill makes nothing.
func (b *bucket) spent(x, window, full float64) float64 {
	used := b.cap - b.level
	if n := index(x, window) - index(b.last, window); n > 0 {
		used -= b.most + (n-1)*full
		b.most = 0
		b.lot++
	}
	b.most = max(b.most, full)
	return used
}

// index returns how many windows are over at x seconds.
func index(x, window float64) float64 { return math.Floor((x + slack) / window) }

// holds reports whether n may be taken. More than the bucket can hold is
// admitted when it is full: the limit is on throughput, not on size.
func (b *bucket) holds(n float64) bool {
	return !b.limited || b.cap > 0 && b.level >= min(n, b.cap)-slack
}

// take takes n and returns the lot that it came from.
func (b *bucket) take(n float64) (lot int) {
	if b.limited {
		b.level -= n
	}
	return b.lot
}

// give returns n to a lot.
func (b *bucket) give(n float64, lot int) {
	if b.limited && b.lot == lot {
		b.level = min(b.level+n, b.cap)
	}
}

// A growth is what an endpoint has grown to.
type growth struct {
	on   bool
	rate float64 // calls a second that it admits
	mean float64 // of those admitted
	used float64 // calls admitted since tick
	tick float64 // whole seconds for which the law has been applied
}

const (
	meanOver = 10       // seconds over which use is averaged
	busyFrom = 0.7      // used part of the rate above which it grows
	decay    = 0.2 / 60 // part lost per second in which it does not grow

	// asleep is how many seconds nobody looks at it until it is taken to be back
	// at its floor: of its rate exp(-24) would be left.
	asleep = 2 * 60 * 60
)

// grow fills the bucket of calls. While the script lets it grow, it is filled at
// the rate of each second.
func (g *gauge) grow(x float64) {
	w := &g.growth
	if _, ok := g.limits.growth(x); !ok {
		w.on = false
		g.calls.fill(x, g.supply(resCalls, g.calls.last, x, g.limits.or(resBurst, x, callsDepth), 1))
		return
	}
	if !w.on || x-w.tick > asleep {
		*w = growth{on: true, tick: math.Floor(x)}
	}
	for next := w.tick + 1; next <= x; next++ {
		g.pour(next)
		if part, ok := g.limits.growth(next); ok {
			w.step(part)
		} else {
			*w = growth{on: true, tick: next} // lifted meanwhile
		}
	}
	g.pour(x)
}

// pour fills the bucket of calls at the rate grown to, within the bounds at x.
func (g *gauge) pour(x float64) {
	w := &g.growth
	w.rate = max(w.rate, g.limits.or(resFloor, x, growFloor))
	if most, ok := g.limits.amount(resCalls, x); ok {
		w.rate = min(w.rate, most*g.limits.ours(x))
	}
	g.calls.fill(x, supply{
		limited: true, rate: w.rate, sum: w.rate * max(0, x-g.calls.last),
		depth: g.limits.or(resBurst, x, callsDepth), least: 1, window: g.window(resCalls, x),
	})
}

// step applies the law to one more second.
func (w *growth) step(part float64) {
	w.mean += (w.used - w.mean) / meanOver
	w.used = 0
	w.tick++
	if w.mean > busyFrom*w.rate {
		w.rate += w.mean * (math.Pow(1+part, 1./60) - 1)
	} else {
		w.rate *= 1 - decay
	}
}

// An output is a bucket that the calls in progress drain while they generate.
type output struct {
	bucket
	rate float64 // tokens a second that flow out
	ends ends
}

// drain fills the bucket of output tokens, from one change of the outflow or of
// the script to the next.
func (g *gauge) drain(x, depth float64) {
	o := &g.output
	for {
		next := min(x, g.limits[resOutput].after(o.last))
		switch {
		case len(o.ends) > 0 && o.ends[0].at <= next:
			e := o.ends.pop()
			g.flow(e.at, depth)
			if o.rate -= e.rate; len(o.ends) == 0 {
				o.rate = 0 // without the rounding of sums
			}
		case next < x:
			g.flow(next, depth)
		default:
			g.flow(x, depth)
			return
		}
	}
}

func (g *gauge) flow(x, depth float64) {
	o := &g.output
	s := g.supply(resOutput, o.last, x, depth, 0)
	s.sum -= o.rate * (x - o.last)
	o.fill(x, s)
}

// start lets tokens flow out evenly from x seconds until end, and returns the
// rate. What the script never limits is not followed: the rate is then zero.
func (g *gauge) start(x, end, tokens float64) (rate float64) {
	switch {
	case len(g.limits[resOutput]) == 0:
		return 0
	case end <= x:
		g.output.take(tokens)
		return 0
	}
	rate = tokens / (end - x)
	g.output.change(rate, end)
	return rate
}

// change adds to the outflow until end.
func (o *output) change(rate, end float64) {
	o.rate += rate
	o.ends.push(ending{end, rate})
}

// An ending is when a part of an outflow ceases.
type ending struct{ at, rate float64 }

// ends are a binary heap, the earliest first.
type ends []ending

func (h *ends) push(e ending) {
	*h = append(*h, e)
	s, i := *h, len(*h)-1
	for i > 0 && s[(i-1)/2].at > e.at {
		s[i] = s[(i-1)/2]
		i = (i - 1) / 2
	}
	s[i] = e
}

func (h *ends) pop() ending {
	s, n := *h, len(*h)-1
	first, e := s[0], s[n]
	i := 0
	for {
		child := 2*i + 1
		if child+1 < n && s[child+1].at < s[child].at {
			child++
		}
		if child >= n || s[child].at >= e.at {
			break
		}
		s[i] = s[child]
		i = child
	}
	s[i] = e
	*h = s[:n]
	return first
}
