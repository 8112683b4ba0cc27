package progress

import "time"

// A Point is a stretch of history.
type Point struct {
	Answered, Refused int64   // attempts
	Settled           int64   // messages that came to their end; of all lanes together
	Rate              float64 // attempts per second that the limiter allowed at its end
}

// Add returns two neighbours as one.
func (p Point) add(next Point) Point {
	return Point{p.Answered + next.Answered, p.Refused + next.Refused, p.Settled + next.Settled, next.Rate}
}

// A series is history, in points of equal width.
type series struct{ points []Point }

// at returns the i-th point. Those before it that nothing happened in have the rate
// that was allowed before.
func (s *series) at(i int) *Point {
	for len(s.points) <= i {
		var p Point
		if n := len(s.points); n > 0 {
			p.Rate = s.points[n-1].Rate
		}
		s.points = append(s.points, p)
	}
	return &s.points[i]
}

// rate notes the rate that is allowed from the i-th point on.
func (s *series) rate(i int, perSecond float64) {
	s.at(i)
	for ; i < len(s.points); i++ { // events of many goroutines may come a little late
		s.points[i].Rate = perSecond
	}
}

// halve has each point stand for twice the time.
func (s *series) halve() {
	n := (len(s.points) + 1) / 2
	for i := range n {
		p := s.points[2*i]
		if 2*i+1 < len(s.points) {
			p = p.add(s.points[2*i+1])
		}
		s.points[i] = p
	}
	s.points = s.points[:n]
}

// A tally counts what happened in each of the last seconds. The zero value is ready.
type tally struct {
	seconds [int(window/time.Second) + 1]int64 // by second, the present one with them
	last    int64                              // second that was last counted in
}

// add counts one at that time since the beginning.
func (t *tally) add(at time.Duration) {
	t.turn(at)
	t.seconds[t.last%int64(len(t.seconds))]++
}

// turn makes room for the seconds that have passed.
func (t *tally) turn(at time.Duration) {
	now := int64(at / time.Second)
	for n := int64(len(t.seconds)); now > t.last; t.last++ {
		if now-t.last > n {
			t.last = now - n
		}
		t.seconds[(t.last+1)%n] = 0
	}
}

// rate returns how many there were a second, over the window of whole seconds that are
// over, as far as there have been any.
func (t *tally) rate(at time.Duration) float64 {
	t.turn(at)
	n := min(int64(at/time.Second), int64(len(t.seconds)-1))
	if n == 0 {
		return 0
	}
	var sum int64
	for i := range n {
		sum += t.seconds[(t.last-1-i+int64(len(t.seconds)))%int64(len(t.seconds))]
	}
	return float64(sum) / float64(n)
}

// A ring keeps the newest of what is added, up to most.
type ring[T any] struct {
	most  int
	items []T // from next on the oldest come first
	next  int
}

func (r *ring[T]) add(item T) {
	if len(r.items) < r.most {
		r.items = append(r.items, item)
		return
	}
	r.items[r.next] = item
	r.next = (r.next + 1) % r.most
}

// newest returns a copy, the newest first.
func (r *ring[T]) newest() []T {
	out := make([]T, 0, len(r.items))
	for i := range r.items {
		out = append(out, r.items[(r.next+len(r.items)-1-i)%len(r.items)])
	}
	return out
}
