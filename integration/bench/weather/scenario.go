package weather

import (
	"math"
	"time"

	"upwell/worker/mantle/mantlesim/capacity"
)

// A Scenario is an endpoint's capacity over time and the load on it.
type Scenario struct {
	Name, About string

	// Script is the endpoint's. Unit is the resource of it that binds, in which use
	// is counted: calls (the default), tpm, otpm or conc.
	Script capacity.Script
	Unit   string

	// Nominal is the capacity in calls per second as an operator would know it who
	// sets a fixed rate; Peak is the highest, if that is another.
	Nominal, Peak float64

	Length time.Duration // of the run; default 1h
	Warm   time.Duration // left out of UsedWarm; default 10m

	Workers int           // default 1
	Apart   time.Duration // between one joining and the next
	Fleet   bool          // they exchange what they know
	Lost    Span          // in which their board is out of reach

	Load  []Load        // default: a backlog from the beginning
	Late  time.Duration // mean of an exponential delay of refusals
	Wrong float64       // σ of the lognormal error of the client's estimate of tokens

	// Change is when something happens that takes time to follow, see Result.Back.
	Change time.Duration

	Target Target
}

// A Target is what the limiter under test has to reach in the mean of its runs. What
// is zero is not asked.
type Target struct {
	Used, Refused float64 // at least, at most; parts of one
	Jain          float64 // at least
	Back          time.Duration
}

// A Load is how many jobs come per second from then on, to all workers together:
// zero to be idle, infinity for a backlog.
type Load struct {
	From time.Duration
	Rate float64
}

// A Span is a time from and a time until.
type Span struct{ From, To time.Duration }

func (s Span) holds(t time.Duration) bool { return t >= s.From && t < s.To }

// After is how much of the run is left after its Change, and so the longest that
// Result.Back can be.
func (s *Scenario) After() time.Duration { return s.length() - s.Change }

func (s *Scenario) length() time.Duration { return or(s.Length, time.Hour) }

func (s *Scenario) warm() time.Duration { return or(s.Warm, 10*time.Minute) }

func (s *Scenario) unit() string { return or(s.Unit, "calls") }

func (s *Scenario) peak() float64 { return max(s.Peak, s.Nominal) }

func (s *Scenario) load() []Load {
	if s.Load == nil {
		return []Load{{0, math.Inf(1)}}
	}
	return s.Load
}

func or[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}

// last returns what the script last set a resource to before t, if it did.
func (s *Scenario) last(name string, t time.Duration) (f capacity.Flow, ok bool) {
	for _, step := range s.Script {
		if step.At > t {
			break
		}
		if v, set := step.Set[name]; set {
			f, ok = v, true
		}
	}
	return f, ok
}

// refused is the part of calls that the script refuses at t whatever the load.
func (s *Scenario) refused(t time.Duration) float64 {
	f, _ := s.last("refuse", t)
	return f.From
}

// ideal is what an endpoint that grows with its use would have grown to by t, had
// all it allowed been used from the beginning; zero of any other.
func (s *Scenario) ideal(t time.Duration) float64 {
	grow, ok := s.last("grow", t)
	if !ok {
		return 0
	}
	floor, _ := s.last("floor", t)
	most, _ := s.last("calls", t)
	return min(most.From, floor.From*math.Pow(1+grow.From, t.Minutes()))
}
