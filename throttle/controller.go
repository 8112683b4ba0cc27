package throttle

import (
	"math"
	"time"
)

const (
	// doubling is how long the rate takes to double before the first refusal.
	// An answer takes seconds and a refusal does not, so this is slow enough to
	// hear of a refusal before the rate has run far past it.
	doubling = 2 * time.Second

	// climb is how long additive increase takes to win back what one cut lost:
	// long, as each refusal is a wasted call, and short enough to follow a
	// capacity that moves within minutes.
	climb = 30 * time.Second

	// cutTo is what a refusal leaves of the rate. With additive increase any
	// value below 1 lets workers that share a lane drift to equal shares; 0.7
	// is what CUBIC (RFC 9438) and AWS's adaptive retry mode use.
	cutTo = 0.7

	// fresh is how lately somebody must have waited for the rate to grow: a
	// limit that nobody has touched says nothing about capacity.
	fresh = 2 * time.Second

	// maxStep bounds the time that one observation may account for.
	maxStep = time.Second
)

// A controller decides the rate. It is a pure state machine: it is told what
// happened and when, it has no clock and starts nothing. Its owner guards it.
type controller struct {
	rate     float64 // calls per second
	min, max float64
	reason   string

	slowStart bool      // no refusal yet: the rate doubles
	level     float64   // the rate at the last cut that followed an accepted attempt
	cutAt     time.Time // when the rate was last cut
	proven    bool      // an attempt that started since then was accepted
	grownAt   time.Time // up to when growth has been accounted for
	waitedAt  time.Time // until when somebody had, or has, to wait
}

func newController(c Config) controller {
	return controller{rate: c.StartRate, min: c.MinRate, max: c.MaxRate, slowStart: true, reason: "start"}
}

// blocked notes that somebody has to wait for the rate until then. At a low rate
// that is longer than fresh.
func (c *controller) blocked(until time.Time) { c.waitedAt = until }

// done notes how an attempt ended that was started at start. It reports whether
// the rate changed for a reason worth telling; c.reason is the reason.
func (c *controller) done(now, start time.Time, o Outcome) bool {
	switch o {
	case Accepted:
		c.proven = c.proven || !start.Before(c.cutAt)
		c.grow(now)
		return false
	case Throttled:
		return c.cut(now, start, "cut: 429")
	case Unavailable:
		return c.cut(now, start, "cut: capacity")
	default:
		return false
	}
}

// grow accounts for the time since it was last called. Below the level, the steps
// are equal, which is what makes shares equal; above it the capacity has moved,
// and they grow with the rate.
func (c *controller) grow(now time.Time) {
	dt := min(now.Sub(c.grownAt), maxStep)
	c.grownAt = now
	if now.Sub(c.waitedAt) > fresh {
		return
	}
	double := math.Exp2(dt.Seconds() / doubling.Seconds())
	switch floor := c.level * cutTo; {
	case c.slowStart:
		c.rate *= double
	case c.proven && c.rate < floor:
		c.rate = min(c.rate*double, floor)
	default:
		c.rate += max(c.level, c.rate) * (1 - cutTo) * dt.Seconds() / climb.Seconds()
	}
	c.rate, c.reason = min(c.rate, c.max), "grew"
}

// cut lowers the rate, unless the refused attempt is old news.
//
// Cuts with nothing accepted in between are an outage, which says nothing about
// the level to come back to: that stays, or an outage of seconds would cost
// hours. A rate below the first cut's doubles again as in the beginning.
func (c *controller) cut(now, start time.Time, reason string) bool {
	if start.Before(c.cutAt) {
		return false
	}
	if c.slowStart || c.proven {
		c.level = c.rate
	}
	c.rate = max(c.rate*cutTo, c.min)
	c.slowStart, c.proven = false, false
	c.cutAt, c.grownAt, c.reason = now, now, reason
	return true
}
