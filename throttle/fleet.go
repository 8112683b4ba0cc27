package throttle

import "time"

const (
	// fleetMargin is the deepest cut that one worker of a fleet makes by itself.
	// What the whole fleet should give up after a refusal is margin, so that one
	// that alone hears of it gives up as much for the others as it can. Deeper
	// cuts would make shares uneven until the next exchange.
	fleetMargin = 0.3

	// fleetNews is how many exchanges fit in a cycle: by then all have heard of
	// the refusals of the last one.
	fleetNews = 5
)

// A fleet is what a controller knows of the workers that share its lane.
type fleet struct {
	workers  float64
	refusals int64         // own cuts so far
	heard    int64         // own cuts at the last exchange
	interval time.Duration // between exchanges
}

var alone = fleet{workers: 1}

// known reports whether there are others.
func (f *fleet) known() bool { return f.workers > 1 }

// calls is what the fleet sends while this worker sends a call, less what its
// refusals cost more than those of a single worker.
func (f *fleet) calls() float64 {
	if !f.known() {
		return 1
	}
	return f.workers / max(1, margin*f.workers/fleetMargin)
}

// margin is how deep this worker cuts after a refusal of its own.
func (f *fleet) margin() float64 { return min(margin*f.workers, fleetMargin) }

// cycle is the shortest cycle, in seconds, in which news gets around.
func (f *fleet) cycle() float64 {
	if !f.known() {
		return 0
	}
	return fleetNews * f.interval.Seconds()
}

// share takes over what the fleet believes.
//
// Each worker's belief is what all of them may send together, and it sends its
// part. A worker that has been refused several times since the last exchange knows
// better than the mean of what was written down before.
func (c *controller) share(s Share) {
	old := c.fleet.workers
	c.fleet.workers, c.fleet.interval = float64(max(s.Workers, 1)), s.Interval
	part := s.Rate / c.fleet.workers
	switch {
	case c.cfg.Guided, s.Rate <= 0 || s.Workers <= 1 && old == 1:
		c.rate *= old / c.fleet.workers
		c.level *= old / c.fleet.workers
	case c.fleet.refusals-c.fleet.heard >= 2:
		c.level = min(c.rate, part)
	default:
		c.level = part
	}
	if c.level > 0 && c.streak < inARow && c.fleet.known() {
		c.rate = c.level
	}
	c.rate = min(max(c.rate, c.cfg.MinRate), c.cfg.MaxRate)
	c.fleet.heard = c.fleet.refusals
	if s.Refused {
		c.cycles = min(c.cycles, quickAfter)
	}
}
