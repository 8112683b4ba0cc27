package throttle

import (
	"sync"
	"time"
)

// A Set keeps one limiter for each lane, made when the lane is first asked for.
// The lanes of a model in a Region share their quota.
// All its methods may be called concurrently.
type Set struct {
	config func(Lane) Config

	mu     sync.Mutex
	told   func(Lane, State)
	lanes  map[Lane]*Limiter
	quotas map[Lane]*quota // by lanes without a tier, or of the tier reservedQuota
}

// NewSet returns an empty Set. config says how the limiter of a lane is made, and,
// asked for a lane without a tier, how its quota is; nil means with the defaults.
func NewSet(config func(Lane) Config) *Set {
	if config == nil {
		config = func(Lane) Config { return Config{} }
	}
	return &Set{config: config, lanes: make(map[Lane]*Limiter), quotas: make(map[Lane]*quota)}
}

// Observe has f told of each lane what [Config].OnChange would be told of it, as well.
// It concerns lanes that are first asked for afterwards.
func (s *Set) Observe(f func(Lane, State)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.told = f
}

// configFor returns the settings of a lane's limiter. s.mu must be held.
func (s *Set) configFor(lane Lane) Config {
	cfg := s.config(lane).withDefaults()
	own, told := cfg.OnChange, s.told
	switch {
	case told == nil:
	case own == nil:
		cfg.OnChange = func(state State) { told(lane, state) }
	default:
		cfg.OnChange = func(state State) { own(state); told(lane, state) }
	}
	return cfg
}

// Limiter returns the lane's limiter, always the same one.
func (s *Set) Limiter(lane Lane) *Limiter {
	s.mu.Lock()
	defer s.mu.Unlock()
	l, ok := s.lanes[lane]
	if !ok {
		q := s.quota(lane)
		q.mu.Lock()
		l = q.limiter(s.configFor(lane))
		q.mu.Unlock()
		s.lanes[lane] = l
	}
	return l
}

// reserved is the tier whose quota is its own, and reservedQuota that quota's name:
// with the tier's they would be taken for each other.
const reserved, reservedQuota = "reserved", "reserved quota"

// quota returns what the lane shares with others. s.mu must be held.
func (s *Set) quota(lane Lane) *quota {
	if lane.Tier == reserved {
		lane.Tier = reservedQuota
	} else {
		lane.Tier = ""
	}
	q, ok := s.quotas[lane]
	if !ok {
		q = &quota{flow: newFlow(s.config(lane).withDefaults())}
		s.quotas[lane] = q
	}
	return q
}

// States returns what is known of each lane.
func (s *Set) States() map[Lane]State {
	states := make(map[Lane]State)
	s.each(func(lane Lane, l *Limiter) { states[lane] = l.State() })
	return states
}

func (s *Set) each(f func(Lane, *Limiter)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for lane, l := range s.lanes {
		f(lane, l)
	}
}

// A Level is the last stable state of a lane, or of a quota, to begin with another
// time. Its zero value knows nothing.
type Level struct {
	Rate     float64 `json:"rate"`                // calls of mean cost per second, of all workers together
	InFlight int     `json:"in_flight,omitempty"` // the limit found, if that is what binds
	Tokens   float64 `json:"tokens,omitempty"`    // of a mean call
	Weight   float64 `json:"weight,omitempty"`    // of tokens against calls, 0 to 1
}

// Levels returns what is known of each lane, and of each quota under its lane without
// a tier, for [Config].Level of another time. What is not known is not there.
func (s *Set) Levels() map[Lane]Level {
	levels := make(map[Lane]Level)
	s.flows(func(lane Lane, f *flow) {
		if l := f.level(); l.Rate > 0 {
			levels[lane] = l
		}
	})
	return levels
}

// A Report is what a worker tells others of a lane, or of a quota.
type Report struct {
	Rate     float64 `json:"rate"`     // stable calls per second of all workers together; zero if unknown
	Refusals int64   `json:"refusals"` // that made this worker slow down, since it began
}

// Report returns what other workers should know of each lane and quota.
func (s *Set) Report() map[Lane]Report {
	reports := make(map[Lane]Report)
	s.flows(func(lane Lane, f *flow) { reports[lane] = f.report() })
	return reports
}

// A Share is what the workers that share a lane, or a quota, believe of it.
type Share struct {
	Workers  int           // that are there, this one included
	Rate     float64       // mean of what they report, this one included; zero if nobody knows
	Refused  bool          // another than this one was refused since the last exchange
	Interval time.Duration // between exchanges
}

// Share tells what others believe. The Set's part is an equal one. Lanes that are
// not in the map are shared by as many workers as fallback says.
func (s *Set) Share(shares map[Lane]Share, fallback Share) {
	s.flows(func(lane Lane, f *flow) {
		share, ok := shares[lane]
		if !ok {
			share = fallback
		}
		f.share(time.Now(), share)
	})
	s.each(func(_ Lane, l *Limiter) { l.wake() })
}

// flows calls f for each lane's own flow and each quota's, which it may change.
func (s *Set) flows(f func(Lane, *flow)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for lane, q := range s.quotas {
		q.mu.Lock()
		f(lane, q.flow)
		q.mu.Unlock()
	}
	for lane, l := range s.lanes {
		l.quota.mu.Lock()
		f(lane, l.pacer.tier)
		l.quota.mu.Unlock()
	}
}
