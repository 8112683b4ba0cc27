package throttle

import (
	"math"
	"time"
)

// A controller decides how fast a lane's calls may start. See the package comment
// for the idea; the constants were found with the scenarios of
// integration/bench/weather, which show what each of them trades.
//
// It is a pure state machine: it is told what happened and when, it has no clock
// and starts nothing. Its owner guards it. Rates are in calls of mean cost per
// second, and a cycle is the stretch of calls in which one refusal is wanted.
type controller struct {
	cfg    Config
	rate   float64
	level  float64 // the last stable rate; zero while the search goes on
	reason string  // why the rate is what it is
	cycles float64 // since the last cut

	// The flight of the last cut: attempts that started before it are old news.
	cutAt  time.Time
	first  time.Time // when the first attempt after it started
	proven bool      // an attempt after it was let in
	streak int       // cuts so far with nothing let in between

	// What was let in lately; see measured.
	sent     mark
	from     stretch // since the last refusal
	before   stretch // since the one before
	safe     float64 // the rate let in over the last quiet stretch
	doubt    float64 // how early refusals have come since
	wall     wall
	fleet    fleet
	raisedAt time.Time // guided: when the rate last changed

	startedAt time.Time // the last start
	waitedAt  time.Time // until when somebody had, or has, to wait for the rate
	began     time.Time // the first start of all
	took      float64   // mean seconds until an answer; zero before the first
	delay     float64   // mean seconds until a refusal; zero before the first
	episode   float64   // refusals since the present episode began
	price     float64   // mean refusals of an episode
}

// A mark is where a lane stood when an attempt started. The attempt carries it.
type mark struct {
	at       time.Time
	calls    int     // attempts started before
	cost     float64 // what those took, in mean calls
	inFlight int     // attempts in flight, this one not counted
	lean     float64 // see meter
}

// A stretch is what has been sent since a refusal.
type stretch struct {
	mark
	lost  float64 // cost of attempts refused since, that one included
	loses int     // and their number
}

const (
	// target is the share of calls whose refusal is the price of knowing the
	// capacity. Half of it comes on top where capacity moves or refusals are
	// late, and 0.6 % in all is what a lane may cost. Less would be slower to see
	// capacity rise: news of it comes after 1/target calls.
	target = 0.0043

	// minCycle is the shortest cycle. News about a minute is worth the same at
	// any rate: from 20 calls a second on, refusals become rarer than target.
	// Where refusals are slow to arrive a cycle is lateCycle times their delay,
	// as what has been sent meanwhile is sent.
	minCycle  = 11 * time.Second
	lateCycle = 3

	// Per cycle, the logarithm of the rate grows by steady, and after quickAfter
	// cycles without a refusal by quicken·(cycles-quickAfter)² on top: a refusal
	// that is overdue says that the capacity has risen. At 5 calls a second four
	// times the capacity is found within a minute. The shape is CUBIC's (RFC
	// 9438), with calls in the place of time.
	steady, quicken, quickAfter = 0.035, 1.8, 0.8

	// margin is what a refusal takes off the rate when it comes on time, and in
	// proportion when it comes before. It is what the rate grows by in a cycle,
	// so that the rate is right on average. early is added when the refusal
	// came early by calls, the sooner the more: the capacity has fallen.
	margin, early = 0.04, 0.14

	// After a cut the endpoint's budget is empty, and the next calls would be
	// refused for that alone. So nothing is sent for as long as it takes to send
	// pause calls, two seconds at most, and then the rate is lower by dip, which
	// ends after dipFor cycles.
	pause       = 5
	longPause   = 2.0
	dip, dipFor = 0.1, 0.25

	// A stretch of quiet cycles, by calls, proves the rate that was let in. A cut
	// does not go below that until refusals have come too early by doubtful
	// cycles in all: single refusals that have nothing to do with the rate would
	// otherwise add up to a deep cut.
	quiet, doubtful = 0.8, 4

	// enough is how many calls must have been let in between two refusals for
	// these to be two episodes. Well below 1/target, and above what is in flight
	// to a refusal.
	enough = 30

	// dearest is what an episode counts for at most in their mean price, and so how
	// many times longer a cycle becomes: a fall of the capacity takes many refusals
	// at once, and must not have its return noticed late. episodic is the weight of
	// the last episode in the mean.
	dearest, episodic = 6, 0.1

	// inARow is how many cuts with nothing let in between mean that there is
	// nothing to be had. Then one attempt goes out after minProbe, the next after
	// twice as long, up to maxProbe: an outage costs a refusal each ten seconds,
	// however long it is, and is over for us at most that long after its end.
	inARow             = 2
	minProbe, maxProbe = 500 * time.Millisecond, 10 * time.Second

	// In the search the rate doubles in fastest at best, but not within fewer
	// than perDoubling calls, as news comes with calls. Into the unknown it
	// doubles no sooner than an answer takes, since some capacities are used up
	// while answers are written; before the first answer came, no sooner than
	// twice the time that has been waited for it.
	fastest, perDoubling = 500 * time.Millisecond, 10

	// fresh is how lately somebody must have waited for the rate to grow: a
	// limit that nobody has touched says nothing about capacity.
	fresh = 2 * time.Second

	// recent is the weight of an attempt in the mean times of answers and refusals.
	recent = 0.05

	// Workers that share a lane and do not know of each other cut deeper, and
	// their cycles depend little on their rates: it is their own refusals that
	// make shares equal, as a larger share meets more of them. In a cycle that
	// is the same for all they would be quite equal, and slow ones refused too
	// often; in one of so many calls, refused rarely, and any split would be
	// stable. (10/rate)^0.3 is between. Their growth hardly quickens, as most of
	// the long waits for a refusal of one's own are chance.
	sharedMargin, sharedCycle   = 0.15, 50.0
	sharedSteady, sharedQuicken = 0.1, 0.1

	// guidedHold is how long AWS advises to stay at a rate before it is raised.
	guidedHold = 15 * time.Minute
)

func newController(cfg Config) controller {
	c := controller{cfg: cfg, rate: cfg.StartRate, reason: "start", price: 1, fleet: alone}
	if r := cfg.Level.Rate; r > 0 && !cfg.Guided {
		c.level = min(r, cfg.MaxRate)
		c.rate = max(c.level/2, cfg.MinRate)
		if n := cfg.Level.InFlight; n > 0 {
			c.wall.limit, c.wall.hits = float64(n), believed
		}
	}
	return c
}

// pace is the rate in force: lower than c.rate while a cut is fresh.
func (c *controller) pace() float64 {
	if c.cfg.Guided || c.rate < c.level || c.cutAt.IsZero() {
		return c.rate
	}
	return max(c.rate*(1-dip*max(0, 1-c.cycles/dipFor)), c.cfg.MinRate)
}

// start notes that an attempt of that cost starts, and returns its mark.
func (c *controller) start(now time.Time, cost float64, inFlight int, lean float64) mark {
	c.grow(now)
	m := c.sent
	m.at, m.inFlight, m.lean = now, inFlight, lean
	c.sent.calls++
	c.sent.cost += cost
	if c.began.IsZero() {
		c.began = now
	}
	if c.first.IsZero() {
		c.first = now
	}
	c.wall.start(inFlight)
	return m
}

// grow raises the rate for one more call.
func (c *controller) grow(now time.Time) {
	dt := now.Sub(c.startedAt).Seconds()
	c.startedAt = now
	byRate, byWall := now.Sub(c.waitedAt) <= fresh, now.Sub(c.wall.waitedAt) <= fresh
	if !byRate && !byWall {
		c.from, c.before = stretch{}, stretch{} // capacity went unused: nothing is measured
		return
	}
	if c.cfg.Guided {
		c.climb(now)
		return
	}
	x := c.cycle(dt)
	switch unknown := c.doublings(now, dt); {
	case byWall || c.streak >= inARow: // the rate is not what stops us
	case c.level == 0:
		c.rate *= math.Exp2(unknown)
	case c.rate < c.level:
		c.rate = min(c.rate*math.Exp2(min(dt/fastest.Seconds(), 1./perDoubling)), c.level)
		c.reason = "recovering"
	default:
		c.rate *= math.Exp(min(c.growth()*x, unknown*math.Ln2))
	}
	if c.level > 0 && c.rate >= c.level {
		c.cycles += x
		c.reason = c.wall.reason("grew")
	}
	c.rate = min(c.rate, c.cfg.MaxRate)
}

// growth is how fast the logarithm of the rate grows, per cycle.
func (c *controller) growth() float64 {
	late := max(0, c.cycles-quickAfter)
	if c.uncoordinated() {
		return sharedSteady + sharedQuicken*late*late
	}
	return steady + quicken*late*late
}

// uncoordinated reports whether there are others of whom nothing is known.
func (c *controller) uncoordinated() bool { return c.cfg.Shared && !c.fleet.known() }

// cycle is what part of a cycle one call is, that starts dt seconds after the last.
func (c *controller) cycle(dt float64) float64 {
	if c.uncoordinated() {
		return dt / max(sharedCycle*math.Pow(10/c.rate, 0.3), minCycle.Seconds())
	}
	floor := max(minCycle.Seconds(), lateCycle*c.delay, c.fleet.cycle())
	return min(target*c.fleet.calls()/c.price, dt/floor)
}

// doublings is how many doublings of the rate one call is worth in unknown country.
func (c *controller) doublings(now time.Time, dt float64) float64 {
	d := fastest.Seconds()
	switch {
	case c.took > 0:
		d = max(d, c.took)
	case !c.began.IsZero():
		d = max(d, 2*now.Sub(c.began).Seconds())
	}
	return min(dt/d, 1./perDoubling)
}

// climb raises the rate by half when it was held for long enough.
func (c *controller) climb(now time.Time) {
	if c.raisedAt.IsZero() {
		c.raisedAt = now
	}
	if now.Sub(c.raisedAt) >= guidedHold {
		c.rate, c.raisedAt, c.reason = min(c.rate*1.5, c.cfg.MaxRate), now, "raised by half after 15m"
	}
}

// patience is how long an attempt must last to count as let in: an answer may
// take minutes, and a refusal takes no longer than others did.
func (c *controller) patience() time.Duration {
	if c.delay == 0 {
		return probePatience
	}
	return time.Duration(min(max(3*c.delay, 1), 30) * float64(time.Second))
}

// stable is what to begin with another time.
func (c *controller) stable() Level {
	if c.level == 0 {
		return Level{}
	}
	return Level{Rate: max(c.level, c.rate*(1-margin)) * c.fleet.workers, InFlight: c.wall.known()}
}

// mean moves a running mean towards x. Zero means that there is none yet.
func mean(m *float64, x, weight float64) {
	if *m == 0 {
		*m = x
	}
	*m += (x - *m) * weight
}
