package progress

import (
	"sync"
	"time"
)

// pacePoints is how many points of a Pace are kept. When they are full, two neighbours
// become one.
const pacePoints = 1024

// paceLeast is how long a Pace is looked at before it says how long something will
// take: what goes on in this process is steady soon.
const paceLeast = 4 * time.Second

// A Pace is how fast something comes on, as a counter that is looked at now and then
// says. Its methods may be called concurrently.
type Pace struct {
	mu     sync.Mutex
	start  time.Time
	width  time.Duration // of a point
	points []int64       // how much was done in each
	before int64         // what was done at the start
	done   int64
	last   time.Time
}

// NewPace returns a Pace of what was at done at that time.
func NewPace(at time.Time, done int64) *Pace {
	return &Pace{start: at, last: at, width: 250 * time.Millisecond, before: done, done: done}
}

// NewPast returns a Pace of what came to its end between two times, which [Pace.Ended]
// tells. The pace begins with the first end.
func NewPast(since, now time.Time) *Pace {
	p := NewPace(since, 0)
	for p.last, p.width = now, time.Second; now.Sub(since)/p.width >= pacePoints; {
		p.width *= 2
	}
	p.points = make([]int64, int(now.Sub(since)/p.width))
	return p
}

// Ended notes an end at that time, if it is one of those that the Pace is about.
func (p *Pace) Ended(at time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if i := int(at.Sub(p.start) / p.width); !at.Before(p.start) && i < len(p.points) {
		p.points[i]++
		p.done++
	}
}

// Look notes how much is done at that time. Between two looks it came on evenly.
func (p *Pace) Look(at time.Time, done int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	from, to := p.last.Sub(p.start), at.Sub(p.start)
	if to <= from {
		return
	}
	for to/p.width >= pacePoints {
		p.halve()
	}
	for len(p.points) <= int(to/p.width) {
		p.points = append(p.points, 0)
	}
	given, all := int64(0), done-p.done
	for i := int(from / p.width); i <= int(to/p.width); i++ {
		upTo := all
		if end := time.Duration(i+1) * p.width; end < to {
			upTo = int64(float64(all) * float64(end-from) / float64(to-from))
		}
		p.points[i] += upTo - given
		given = upTo
	}
	p.last, p.done = at, done
}

// halve has each point stand for twice the time. p.mu must be held.
func (p *Pace) halve() {
	n := (len(p.points) + 1) / 2
	for i := range n {
		sum := p.points[2*i]
		if 2*i+1 < len(p.points) {
			sum += p.points[2*i+1]
		}
		p.points[i] = sum
	}
	p.points, p.width = p.points[:n], 2*p.width
}

// PerSecond returns how much was done a second of late.
func (p *Pace) PerSecond() float64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	span := min(window, p.last.Sub(p.start))
	if span < p.width {
		if s := p.last.Sub(p.start).Seconds(); s > 0 {
			return float64(p.done-p.before) / s
		}
		return 0
	}
	over := int(p.last.Sub(p.start) / p.width) // points that are over
	n := min(int(span/p.width), over)
	var sum int64
	for i := over - n; i < over && i < len(p.points); i++ {
		sum += p.points[i]
	}
	return float64(sum) / (float64(n) * p.width.Seconds())
}

// ETA returns how long so much more will take, or nil when nobody can know, or nothing
// is left.
func (p *Pace) ETA(left int64) *ETA {
	p.mu.Lock()
	defer p.mu.Unlock()
	over := int(p.last.Sub(p.start) / p.width)
	if left <= 0 || p.last.Sub(p.start) < paceLeast {
		return nil
	}
	points := p.points[:min(over, len(p.points))]
	for len(points) > 0 && points[0] == 0 {
		points = points[1:]
	}
	return forecast(points, p.width, paceLeast, left, 0)
}
