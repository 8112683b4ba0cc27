package progress

import (
	"cmp"
	"errors"
	"slices"
	"strings"
	"time"

	"upwell/jobs"
	"upwell/throttle"
	"upwell/worker"
)

// Facts are what a Printer shows, as it writes them in JSON. Names are those of a
// [Snapshot].
type Facts struct {
	At          time.Time            `json:"at"`
	Seconds     float64              `json:"seconds"`       // since it began
	Jobs        int64                `json:"jobs,omitzero"` // in all, or none when nobody knows
	Done        int64                `json:"done"`          // of them, those of before with them
	Before      int64                `json:"before,omitzero"`
	Stored      int64                `json:"stored"`
	Failed      int64                `json:"failed"`
	Classes     map[jobs.Class]int64 `json:"classes,omitempty"`
	Rate        float64              `json:"rate"` // answers a second of late
	InFlight    int64                `json:"in_flight"`
	Refused     int64                `json:"refused"`
	Throttled   int64                `json:"throttled"`
	Unavailable int64                `json:"unavailable"`
	Errors      int64                `json:"errors"`
	Usage       jobs.Usage           `json:"usage"`
	Cost        Spend                `json:"cost"`
	CostInAll   float64              `json:"cost_in_all_usd,omitzero"` // when all is done, if what is left costs as much
	Budget      float64              `json:"budget_usd,omitzero"`
	ETA         *ETA                 `json:"eta,omitempty"` // none while nobody knows, or it is paused
	Lanes       []LaneFacts          `json:"lanes"`
	Bound       worker.Bound         `json:"bound,omitzero"` // what keeps it from doing more
	Paused      string               `json:"paused,omitzero"`

	answered int64 // attempts
	parked   bool  // that is why it is paused
}

// LaneFacts are those of a lane.
type LaneFacts struct {
	Name        string    `json:"name"`
	Rate        float64   `json:"rate"` // attempts a second that the limiter allows
	InFlight    int       `json:"in_flight"`
	Waiting     int       `json:"waiting"`
	ClosedUntil time.Time `json:"closed_until,omitzero"` // in the future
	Reason      string    `json:"reason"`                // why the rate is what it is
	answered    int64
}

// enough is how many jobs there have to be before their mean says what the others cost.
const enough = 20

// Facts returns what there is to be shown of a meter.
func (p Printer) Facts(m *Meter) Facts {
	c := m.Counts()
	f := Facts{
		At: time.Now().UTC(), Seconds: m.Elapsed().Seconds(), Jobs: p.Total, Done: c.Settled(),
		Stored: c.Stored, Failed: c.Buried, Classes: c.Classes, Rate: c.Rate, InFlight: c.InFlight,
		Refused: c.Refused, Throttled: c.Throttled, Unavailable: c.Unavailable, Errors: c.Failed,
		Usage: c.Usage, Cost: c.Cost, Lanes: m.laneFacts(), Bound: m.boundOfLate(), answered: c.Answered,
	}
	if p.Done != nil {
		f.Before = p.Done()
		f.Done += f.Before
	}
	if p.Budget != nil {
		f.Budget = p.Budget()
	}
	if c.Paused != nil {
		f.Paused = first(strings.TrimPrefix(c.Paused.Error(), worker.ErrParked.Error()+": "), reasonKept)
		f.parked = errors.Is(c.Paused, worker.ErrParked)
	}
	if left := f.left(); left > 0 {
		if f.Paused == "" && f.Bound != worker.BoundDraining {
			f.ETA = m.ETA(left)
		}
		if n := c.Settled(); n >= enough && c.Cost.Unknown == 0 {
			f.CostInAll = c.Cost.USD * float64(n+left) / float64(n)
		}
	}
	return f
}

// left is how many jobs are left, or 0 when nobody knows.
func (f *Facts) left() int64 { return max(0, f.Jobs-f.Done) }

// boundOfLate returns what has kept the worker from doing more for most of the last ten
// seconds, or nothing when it is not at work. What does so this very second changes too
// often to be read.
func (m *Meter) boundOfLate() worker.Bound {
	if m.Bound() == "" {
		return ""
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if shares := m.why.shares(time.Now().Add(-window)); len(shares) > 0 {
		return shares[0].Bound
	}
	return m.sample.Bound
}

// laneFacts returns the lanes that have done or do something, those with the most
// answers first.
func (m *Meter) laneFacts() []LaneFacts {
	m.mu.Lock()
	defer m.mu.Unlock()
	now, lanes := time.Now(), make([]LaneFacts, 0, len(m.lanes))
	for id, ln := range m.lanes {
		if id == (throttle.Lane{}) {
			continue // of an event that is about no lane
		}
		s := ln.state
		f := LaneFacts{Name: strings.TrimPrefix(id.String(), "/"), Rate: s.Rate, InFlight: s.InFlight, Waiting: s.Waiting, Reason: s.Reason, answered: ln.answered}
		if s.ClosedUntil.After(now) {
			f.ClosedUntil = s.ClosedUntil
		}
		lanes = append(lanes, f)
	}
	slices.SortFunc(lanes, func(a, b LaneFacts) int {
		return cmp.Or(cmp.Compare(b.answered, a.answered), strings.Compare(a.Name, b.Name))
	})
	return lanes
}

// A Final is how it ended, in JSON.
type Final struct {
	Seconds     float64              `json:"seconds"`
	Stored      int64                `json:"stored"`
	Duplicate   int64                `json:"duplicate,omitzero"` // answered before
	Failed      int64                `json:"failed"`
	Classes     map[jobs.Class]int64 `json:"classes,omitempty"`
	Repairs     int64                `json:"repairs,omitzero"`
	Extensions  int64                `json:"extensions,omitzero"`
	Refused     int64                `json:"refused"`
	Throttled   int64                `json:"throttled"`
	Unavailable int64                `json:"unavailable"`
	Errors      int64                `json:"errors"`
	Usage       jobs.Usage           `json:"usage"`
	Cost        Spend                `json:"cost"`
	MeanRate    float64              `json:"mean_rate"` // answers a second
}

// SummaryJSON returns what [Summary] has, for JSON.
func SummaryJSON(c Counts, elapsed time.Duration) Final {
	f := Final{
		Seconds: elapsed.Seconds(), Stored: c.Stored, Duplicate: c.Duplicate, Failed: c.Buried, Classes: c.Classes,
		Repairs: c.Repairs, Extensions: c.Extensions, Refused: c.Refused, Throttled: c.Throttled, Unavailable: c.Unavailable,
		Errors: c.Failed, Usage: c.Usage, Cost: c.Cost,
	}
	if f.Seconds > 0 {
		f.MeanRate = float64(c.Answered) / f.Seconds
	}
	return f
}
