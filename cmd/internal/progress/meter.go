// Package progress turns the worker's events into what a person wants to see: a
// line while it runs, a table and a picture when it is done.
//
// A [Meter] is the one place that counts. It reads the event stream and keeps
// nothing else, in memory that does not grow with the run.
package progress

import (
	"fmt"
	"maps"
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

// A Bucket is a stretch of history.
type Bucket struct{ Answered, Refused int64 }

// A Meter counts events. Its methods may be called concurrently.
type Meter struct {
	mu      sync.Mutex
	c       Counts
	start   time.Time
	width   time.Duration // of a bucket
	history []Bucket
}

// NewMeter returns a Meter whose history begins now.
func NewMeter() *Meter {
	return &Meter{start: time.Now(), width: 250 * time.Millisecond, c: Counts{Classes: make(map[jobs.Class]int64)}}
}

// Observe counts an event. It is made for worker.Config.Observe.
func (m *Meter) Observe(e worker.Event) {
	m.mu.Lock()
	defer m.mu.Unlock()
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
	case worker.Duplicate:
		m.c.Duplicate++
	case worker.Buried:
		m.c.Buried++
		m.c.Classes[e.Class]++
	case worker.Passed:
		m.c.Passed++
	case worker.Released, worker.Lost:
		m.c.Released++
	case worker.Paused, worker.Parked:
		m.c.Paused = e.Err
	case worker.Resumed, worker.Unparked:
		m.c.Paused = nil
	}
}

// attempted counts the end of an attempt. m.mu must be held.
func (m *Meter) attempted(e worker.Event) {
	m.c.InFlight--
	m.c.Usage = m.c.Usage.Add(e.Usage)
	m.c.Cost = m.c.Cost.Add(e.CostUSD)
	b := m.bucket(e.At)
	switch e.Outcome {
	case throttle.Accepted:
		m.c.Answered++
		b.Answered++
		m.mended(e.Attempt.Turn)
	case throttle.Throttled:
		m.c.Refused++
		m.c.Throttled++
		b.Refused++
	case throttle.Unavailable:
		m.c.Refused++
		m.c.Unavailable++
		b.Refused++
	case throttle.Unrelated:
		m.c.Failed++
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

// bucket returns the bucket of that time. m.mu must be held.
func (m *Meter) bucket(at time.Time) *Bucket {
	i := int(at.Sub(m.start) / m.width)
	for i >= buckets {
		m.width *= 2
		for j := range (len(m.history) + 1) / 2 {
			b := m.history[2*j]
			if 2*j+1 < len(m.history) {
				b.Answered += m.history[2*j+1].Answered
				b.Refused += m.history[2*j+1].Refused
			}
			m.history[j] = b
		}
		m.history = m.history[:(len(m.history)+1)/2]
		i /= 2
	}
	for len(m.history) <= i {
		m.history = append(m.history, Bucket{})
	}
	return &m.history[i]
}

// Counts returns a copy of what has been counted.
func (m *Meter) Counts() Counts {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.c
	c.Classes = make(map[jobs.Class]int64, len(m.c.Classes))
	maps.Copy(c.Classes, m.c.Classes)
	c.Rate = m.rate(time.Now())
	return c
}

// rate is the answers per second over the window that ends now. m.mu must be held.
func (m *Meter) rate(now time.Time) float64 {
	span := max(min(window, now.Sub(m.start)), m.width)
	var n int64
	last := int(now.Sub(m.start) / m.width)
	for i := last; i >= 0 && i > last-int(span/m.width)-1; i-- {
		if i < len(m.history) {
			n += m.history[i].Answered
		}
	}
	return float64(n) / span.Seconds()
}

// History returns a copy of the history and the time each bucket stands for.
func (m *Meter) History() ([]Bucket, time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]Bucket(nil), m.history...), m.width
}

// Elapsed is the time since the history began.
func (m *Meter) Elapsed() time.Duration { return time.Since(m.start) }
