package throttle

import (
	"maps"
	"sync"
)

// A Set keeps one limiter for each lane, made when the lane is first asked for.
// All its methods may be called concurrently.
type Set struct {
	config func(Lane) Config

	mu    sync.Mutex
	lanes map[Lane]*Limiter
}

// NewSet returns an empty Set. config says how the limiter of a lane is made;
// nil means with the defaults.
func NewSet(config func(Lane) Config) *Set {
	if config == nil {
		config = func(Lane) Config { return Config{} }
	}
	return &Set{config: config, lanes: make(map[Lane]*Limiter)}
}

// Limiter returns the lane's limiter, always the same one.
func (s *Set) Limiter(lane Lane) *Limiter {
	s.mu.Lock()
	defer s.mu.Unlock()
	l, ok := s.lanes[lane]
	if !ok {
		l = New(s.config(lane))
		s.lanes[lane] = l
	}
	return l
}

// States returns what is known of each lane.
func (s *Set) States() map[Lane]State {
	s.mu.Lock()
	lanes := maps.Clone(s.lanes)
	s.mu.Unlock()
	states := make(map[Lane]State, len(lanes))
	for lane, l := range lanes {
		states[lane] = l.State()
	}
	return states
}
