// Package progress turns the worker's events into what a person wants to see: a
// line while it runs, a table and a picture when it is done.
//
// A [Meter] is the one place that counts. It reads the event stream and keeps
// nothing else, in memory that does not grow with the run: history gets coarser, of
// failures the newest are kept, and of jobs those that are under way.
package progress

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"upwell/jobs"
	"upwell/throttle"
	"upwell/worker"
)

const (
	// buckets is how many points of history are kept. When they are full, two
	// neighbours become one and each stands for twice the time.
	buckets = 512

	// lanesKept is how many lanes have numbers of their own. Messages name models, so
	// that there could be any number of lanes; all others are one.
	lanesKept = 32

	// window is how far back the present rate looks: long enough to be steady
	// at a call a second, short enough to show a change while one watches.
	window = 10 * time.Second
)

// Counts is what a Meter has counted.
type Counts struct {
	Received, Released        int64
	Answered, Refused, Failed int64 // attempts: answered; no room; anything else
	Throttled, Unavailable    int64 // the refused ones: 429; 503 and 529
	Stored, Duplicate, Buried int64 // messages settled: a result, one there was already, a dead letter
	Passed                    int64 // messages settled that were no jobs of their own
	Escalated                 int64 // jobs that moved up a tier
	Repairs, Extensions       int64 // answered calls that were to mend an answer, or gave one more room
	InFlight                  int64
	Classes                   map[jobs.Class]int64 // of the buried
	Usage                     jobs.Usage
	Cost                      Spend
	Rate                      float64 // answers per second of late
	Paused                    error   // why intake is paused or a run parked, or nil
}

// Settled is how many messages have come to their end.
func (c Counts) Settled() int64 { return c.Stored + c.Duplicate + c.Buried }

// A Spend is a sum of amounts, some of which may not be known. The zero value is
// none.
type Spend struct {
	USD     float64 `json:"usd"`              // of those that are known
	Unknown int64   `json:"unknown,omitzero"` // number of those that are not
}

// Add returns the sum with an amount more.
func (s Spend) Add(d jobs.USD) Spend {
	if d.Known() {
		return Spend{s.USD + float64(d), s.Unknown}
	}
	return Spend{s.USD, s.Unknown + 1}
}

// String words the sum.
func (s Spend) String() string {
	switch {
	case s.Unknown == 0:
		return Dollars(s.USD)
	case s.USD == 0:
		return "unknown: give the prices with --prices"
	default:
		return fmt.Sprintf("%s, and %d calls of unknown price", Dollars(s.USD), s.Unknown)
	}
}

// A Meter counts events. Its methods may be called concurrently.
type Meter struct {
	mu      sync.Mutex
	c       Counts
	start   time.Time
	width   time.Duration // of a point
	all     series
	late    tally              // of answers
	paused  map[string]pausing // by lane or run
	lanes   map[throttle.Lane]*laneMeter
	why     reasons
	failed  failures
	jobs    map[string]*underway // by message
	news    ring[News]
	sample  worker.Sample
	sampled time.Time
}

// A laneMeter is what is counted of a lane.
type laneMeter struct {
	series
	late                                     tally // of answers
	state                                    throttle.State
	answered, throttled, unavailable, failed int64
	seen                                     time.Time // when it was last heard of
}

// A pausing is why a lane or a run is paused, and since when.
type pausing struct {
	err error
	at  time.Time
}

// NewMeter returns a Meter whose history begins now.
func NewMeter() *Meter {
	return &Meter{
		start: time.Now(), width: 250 * time.Millisecond, c: Counts{Classes: make(map[jobs.Class]int64)},
		lanes: make(map[throttle.Lane]*laneMeter), jobs: make(map[string]*underway), paused: make(map[string]pausing),
		why: newReasons(), failed: make(failures), news: ring[News]{most: newsKept},
	}
}

// Observe counts an event. It is made for worker.Config.Observe.
func (m *Meter) Observe(e worker.Event) {
	if e.Kind == worker.Requested {
		return // nothing here is about single requests
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.count(e)
	m.follow(e)
	if n, ok := newsOf(e); ok {
		m.news.add(n)
	}
}

// count adds the event to the counts. m.mu must be held.
func (m *Meter) count(e worker.Event) {
	switch e.Kind {
	case worker.Received:
		m.c.Received++
	case worker.Permitted:
		m.c.InFlight++
	case worker.Attempted:
		m.attempted(e)
	case worker.Escalated:
		m.c.Escalated++
	case worker.Stored:
		m.c.Stored++
		m.all.at(m.point(e.At)).Settled++
	case worker.Duplicate:
		m.c.Duplicate++
		m.all.at(m.point(e.At)).Settled++
	case worker.Buried:
		m.c.Buried++
		m.c.Classes[e.Letter.Class]++
		m.failed.add(e)
		m.all.at(m.point(e.At)).Settled++
	case worker.Passed:
		m.c.Passed++
	case worker.Released, worker.Lost:
		m.c.Released++
	case worker.Paused:
		m.paused["lane "+e.Lane.String()] = pausing{e.Err, e.At}
	case worker.Resumed:
		delete(m.paused, "lane "+e.Lane.String())
	case worker.Parked:
		m.paused["run "+e.Key.Run] = pausing{e.Err, e.At}
	case worker.Unparked:
		delete(m.paused, "run "+e.Key.Run)
	case worker.RateChanged:
		m.rated(m.lane(e.Lane, e.At), *e.Rate, e.At)
		m.allowed(e.At)
	case worker.Sampled:
		m.stand(e)
	default: // no number is of these
	}
}

// attempted counts the end of an attempt. m.mu must be held.
func (m *Meter) attempted(e worker.Event) {
	m.c.InFlight--
	m.c.Usage = m.c.Usage.Add(e.Usage)
	m.c.Cost = m.c.Cost.Add(e.CostUSD)
	ln, i := m.lane(e.Lane, e.At), m.point(e.At)
	all, own := m.all.at(i), ln.at(i)
	switch e.Outcome {
	case throttle.Accepted:
		m.c.Answered++
		ln.answered++
		m.late.add(e.At.Sub(m.start))
		ln.late.add(e.At.Sub(m.start))
		all.Answered++
		own.Answered++
		m.mended(e.Attempt.Turn)
	case throttle.Throttled, throttle.Unavailable:
		if m.c.Refused++; e.Outcome == throttle.Throttled {
			m.c.Throttled++
			ln.throttled++
		} else {
			m.c.Unavailable++
			ln.unavailable++
		}
		all.Refused++
		own.Refused++
	case throttle.Unrelated:
		m.c.Failed++
		ln.failed++
	}
}

// mended counts a call that was answered by what it was for. m.mu must be held.
func (m *Meter) mended(turn jobs.Turn) {
	switch turn {
	case jobs.Repair:
		m.c.Repairs++
	case jobs.Extension:
		m.c.Extensions++
	}
}

// Others is the lane that stands for those that have no numbers of their own.
var Others = throttle.Lane{Region: "other", Model: "other", Tier: "other"} //nolint:gochecknoglobals // a constant

// forgotten is how long a lane must not have been heard of for another to take its place.
const forgotten = 10 * time.Minute

// lane returns what is counted of the lane. m.mu must be held.
func (m *Meter) lane(id throttle.Lane, at time.Time) *laneMeter {
	ln, ok := m.lanes[id]
	if !ok && len(m.lanes) >= lanesKept && !m.makeRoom(at) {
		id = Others
		ln, ok = m.lanes[id]
	}
	if !ok {
		ln = &laneMeter{}
		m.lanes[id] = ln
	}
	ln.seen = at
	return ln
}

// makeRoom adds a lane that has not been heard of for long to the others, and reports
// whether there was one. m.mu must be held.
func (m *Meter) makeRoom(at time.Time) bool {
	for id, ln := range m.lanes {
		if id != Others && at.Sub(ln.seen) > forgotten {
			delete(m.lanes, id)
			return true
		}
	}
	return false
}

// stand takes over a sample. m.mu must be held.
func (m *Meter) stand(e worker.Event) {
	m.sample, m.sampled = *e.Sample, e.At
	m.why.add(e.At, e.Sample.Bound)
	for id, s := range e.Sample.Lanes {
		m.rated(m.lane(id, e.At), s, e.At)
	}
	m.allowed(e.At)
}

// rated takes over how a lane's limiter stands. m.mu must be held.
func (m *Meter) rated(ln *laneMeter, s throttle.State, at time.Time) {
	ln.state = s
	ln.rate(m.point(at), s.Rate)
}

// allowed notes what the limiters of all lanes that work allow together. m.mu must be
// held.
func (m *Meter) allowed(at time.Time) {
	var sum float64
	for id, other := range m.lanes {
		if id != Others && at.Sub(other.seen) <= forgotten && (other.answered > 0 || other.state.InFlight > 0) { // of others it is that of any of them
			sum += other.state.Rate
		}
	}
	m.all.rate(m.point(at), sum)
}

// point returns the index of the point of that time, and makes room for it. m.mu must
// be held.
func (m *Meter) point(at time.Time) int {
	i := max(int(at.Sub(m.start)/m.width), 0)
	for i >= buckets {
		m.width *= 2
		m.all.halve()
		for _, ln := range m.lanes {
			ln.halve()
		}
		i /= 2
	}
	return i
}

// Counts returns a copy of what has been counted.
func (m *Meter) Counts() Counts {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.counts(time.Now())
}

// counts is Counts with m.mu held.
func (m *Meter) counts(now time.Time) Counts {
	c := m.c
	c.Classes = maps.Clone(m.c.Classes)
	c.Rate = m.late.rate(now.Sub(m.start))
	_, c.Paused = m.longestPaused(func(error) bool { return true })
	return c
}

// longestPaused returns which lane or run, of those that count, has been paused or parked
// for the longest, and why. m.mu must be held.
func (m *Meter) longestPaused(counts func(why error) bool) (what string, why error) {
	var since time.Time
	for name, p := range m.paused {
		if counts(p.err) && (since.IsZero() || p.at.Before(since)) {
			what, since, why = name, p.at, p.err
		}
	}
	return what, why
}

// Standstill returns why the worker takes no jobs, or nil if it does. A run that is parked
// holds only its own jobs up, as long as there are others.
func (m *Meter) Standstill() error {
	late := m.boundOfLate()
	m.mu.Lock()
	defer m.mu.Unlock()
	what, why := m.longestPaused(func(why error) bool { return late == worker.BoundBudget || !errors.Is(why, worker.ErrParked) })
	if why == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", what, why)
}

// History returns a copy of the history and the time each point stands for.
func (m *Meter) History() ([]Point, time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.all.points), m.width
}

// Started is when the history began.
func (m *Meter) Started() time.Time { return m.start }

// Elapsed is the time since the history began.
func (m *Meter) Elapsed() time.Duration { return time.Since(m.start) }
