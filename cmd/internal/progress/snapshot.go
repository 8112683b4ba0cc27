package progress

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"upwell/jobs"
	"upwell/jobs/sqsqueue"
	"upwell/worker"
)

// A Snapshot is all that a Meter knows at a moment, for whoever shows it. It is
// written as JSON; fields may be added.
type Snapshot struct {
	At      time.Time `json:"at"`
	Started time.Time `json:"started"`

	Received   int64            `json:"received"`
	Answered   int64            `json:"answered"` // attempts
	Refused    int64            `json:"refused"`
	Throttled  int64            `json:"throttled"`   // the refused ones: 429
	Unready    int64            `json:"unavailable"` // and 503, 529
	Errors     int64            `json:"errors"`      // attempts that failed otherwise
	Stored     int64            `json:"stored"`      // jobs
	Duplicate  int64            `json:"duplicate"`
	Failed     int64            `json:"failed"`
	Settled    int64            `json:"settled"`
	Released   int64            `json:"released"`
	Escalated  int64            `json:"escalated"`
	Repairs    int64            `json:"repairs"`
	Extensions int64            `json:"extensions"`
	InFlight   int64            `json:"in_flight"`
	Rate       float64          `json:"rate"` // answers a second of late
	Usage      jobs.Usage       `json:"usage"`
	Cost       Spend            `json:"cost"`
	Paused     string           `json:"paused,omitzero"` // why intake is paused or a run parked
	ETA        *ETA             `json:"eta,omitempty"`   // of what is left, where that is known
	Worker     *Stand           `json:"worker,omitempty"`
	Lanes      []Lane           `json:"lanes"`
	Why        []Share          `json:"why"`       // of the last ten minutes
	WhyWhole   []Share          `json:"why_whole"` // of the whole time
	Failures   []Class          `json:"failures"`
	News       []News           `json:"news"`
	Width      float64          `json:"width"` // seconds that a point of a series stands for
	Series     Series           `json:"series"`
	Queue      *sqsqueue.Counts `json:"queue,omitempty"`
	Totals     *Totals          `json:"totals,omitempty"`
}

// Totals are what a run is in all, where that is known.
type Totals struct {
	Jobs   int64 `json:"jobs"`
	Before int64 `json:"before"` // that an earlier run had settled
}

// A Stand is how the worker stands.
type Stand struct {
	Slots     int     `json:"slots"`
	SlotsUsed int     `json:"slots_used"`
	Most      int     `json:"most"` // messages that may be held
	Held      int     `json:"held"`
	MostBytes int64   `json:"most_bytes"`
	Bytes     int64   `json:"bytes"`
	Oldest    float64 `json:"oldest"` // seconds since the oldest one held was received
	Money     int     `json:"money"`  // jobs held until there is money
	Bound     string  `json:"bound"`
}

// A Lane is what is known of a lane.
type Lane struct {
	Name        string    `json:"name"`
	Region      string    `json:"region"`
	Model       string    `json:"model"`
	Tier        string    `json:"tier"`
	Rate        float64   `json:"rate"`   // attempts a second that the limiter allows
	Stable      float64   `json:"stable"` // and goes back to after a disturbance; zero before it is known
	InFlight    int       `json:"in_flight"`
	Waiting     int       `json:"waiting"`
	ClosedUntil time.Time `json:"closed_until,omitzero"` // in the future
	Reason      string    `json:"reason"`                // why the rate is what it is
	Binds       string    `json:"binds"`                 // what is limited, as far as that is known
	Answered    int64     `json:"answered"`
	Throttled   int64     `json:"throttled"`
	Unready     int64     `json:"unavailable"`
	Errors      int64     `json:"errors"`
	PerSecond   float64   `json:"per_second"` // answers of late
	Series      Series    `json:"series"`
}

// A Series is history as columns, from the beginning on; each place stands for
// Snapshot.Width seconds.
type Series struct {
	Rate     []float64 `json:"rate"`     // attempts a second that the limiter allowed
	Answered []int64   `json:"answered"` // in that time
	Refused  []int64   `json:"refused"`
}

// A Class is what failed for the same reason.
type Class struct {
	Class    jobs.Class `json:"class"`
	Count    int64      `json:"count"`
	Examples []Failure  `json:"examples"` // the newest first
}

// Snapshot returns what is known now. t says what the run is in all, or is nil.
func (m *Meter) Snapshot(t *Totals) Snapshot {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	c := m.counts(now)
	s := Snapshot{
		At: now, Started: m.start, Totals: t,
		Received: c.Received, Answered: c.Answered, Refused: c.Refused, Throttled: c.Throttled, Unready: c.Unavailable, Errors: c.Failed,
		Stored: c.Stored, Duplicate: c.Duplicate, Failed: c.Buried, Settled: c.Settled(), Released: c.Released, Escalated: c.Escalated,
		Repairs: c.Repairs, Extensions: c.Extensions, InFlight: c.InFlight, Rate: c.Rate, Usage: c.Usage, Cost: c.Cost,
		Lanes: m.laneList(now), Why: m.why.shares(now.Add(-whyFor)), WhyWhole: split(m.why.total, m.why.all),
		Failures: m.failureList(), News: m.news.newest(), Width: m.width.Seconds(), Series: m.all.columns(),
	}
	if c.Paused != nil {
		s.Paused = first(c.Paused.Error(), reasonKept)
	}
	if t != nil {
		s.ETA = m.eta(now, t.Jobs-t.Before-s.Settled)
	}
	if !m.sampled.IsZero() {
		w := &m.sample
		s.Worker = &Stand{w.Slots, w.SlotsUsed, w.Most, w.Held, w.MostBytes, w.Bytes, w.Oldest.Seconds(), w.WaitMoney, string(w.Bound)}
	}
	return s
}

// laneList returns the lanes, those with the most answers first. m.mu must be held.
func (m *Meter) laneList(now time.Time) []Lane {
	lanes := make([]Lane, 0, len(m.lanes))
	for id, ln := range m.lanes {
		s := ln.state
		l := Lane{
			Name: id.String(), Region: id.Region, Model: id.Model, Tier: id.Tier,
			Rate: s.Rate, Stable: s.Stable, InFlight: s.InFlight, Waiting: s.Waiting, Reason: s.Reason, Binds: s.Binds,
			Answered: ln.answered, Throttled: ln.throttled, Unready: ln.unavailable, Errors: ln.failed,
			PerSecond: ln.late.rate(now.Sub(m.start)),
			Series:    ln.columns(),
		}
		if s.ClosedUntil.After(now) {
			l.ClosedUntil = s.ClosedUntil
		}
		lanes = append(lanes, l)
	}
	slices.SortFunc(lanes, func(a, b Lane) int { return cmp.Or(cmp.Compare(b.Answered, a.Answered), cmp.Compare(a.Name, b.Name)) })
	return lanes
}

// failureList returns what has failed, the most frequent first. m.mu must be held.
func (m *Meter) failureList() []Class {
	classes := make([]Class, 0, len(m.failed))
	for _, class := range slices.Sorted(maps.Keys(m.failed)) {
		classes = append(classes, Class{class, m.c.Classes[class], m.failed[class].newest()})
	}
	slices.SortStableFunc(classes, func(a, b Class) int { return cmp.Compare(b.Count, a.Count) })
	return classes
}

func (s *series) columns() Series {
	n := len(s.points)
	c := Series{make([]float64, n), make([]int64, n), make([]int64, n)}
	for i, p := range s.points {
		c.Rate[i], c.Answered[i], c.Refused[i] = p.Rate, p.Answered, p.Refused
	}
	return c
}

// Bound returns what keeps the worker from doing more right now, or nothing when it is
// not at work.
func (m *Meter) Bound() worker.Bound {
	m.mu.Lock()
	defer m.mu.Unlock()
	if time.Since(m.sampled) > 5*time.Second { // there is a sample a second
		return ""
	}
	return m.sample.Bound
}

// Sample returns how the worker stood last, and when that was.
func (m *Meter) Sample() (worker.Sample, time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.sample, m.sampled
}
