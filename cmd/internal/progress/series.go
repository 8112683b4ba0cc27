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

// per returns what happened per second over the last stretch, as far as there is
// history.
func (s *series) per(elapsed, width, stretch time.Duration, of func(Point) int64) float64 {
	span := max(min(stretch, elapsed), width)
	last := int(elapsed / width)
	var n int64
	for i := last; i >= 0 && i > last-int(span/width)-1; i-- {
		if i < len(s.points) {
			n += of(s.points[i])
		}
	}
	return float64(n) / span.Seconds()
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
