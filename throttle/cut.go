package throttle

import "time"

// done notes how an attempt ended. It reports whether that made a cut, and for how
// long nothing should then be sent but a probe at the end of it.
func (c *controller) done(now time.Time, m mark, cost float64, o Outcome) (cut bool, stop time.Duration) {
	took := now.Sub(m.at).Seconds()
	switch o {
	case Accepted:
		mean(&c.took, took, recent)
		if !m.at.Before(c.cutAt) {
			if c.streak > 0 && c.from.at.IsZero() { // back from an outage, and measured anew
				c.from = stretch{mark: m}
			}
			c.letIn()
		}
		return false, 0
	case Throttled, Unavailable:
		mean(&c.delay, took, recent)
		c.episode++
		c.wall.refused(m.inFlight)
		if m.at.Before(c.cutAt) {
			if !m.at.Before(c.from.at) {
				c.lose(cost)
			}
			return false, 0
		}
		return true, c.refuse(now, m, cost, o)
	default:
		return false, 0
	}
}

// letIn notes that an attempt since the last cut was let in.
func (c *controller) letIn() { c.proven, c.streak = true, 0 }

// refuse notes a refusal that is news, and returns for how long to stop.
func (c *controller) refuse(now time.Time, m mark, cost float64, o Outcome) (stop time.Duration) {
	c.reason = "cut: 429"
	if o == Unavailable {
		c.reason = "cut: no capacity"
	}
	if m.at.After(c.first) && now.Sub(c.first) >= c.patience() {
		c.letIn() // the first attempt since the cut would have been refused by now
	}
	if !c.proven {
		c.streak++
	}
	switch rate, calls := c.measured(m, cost); {
	case c.cfg.Guided:
		c.rate, c.raisedAt = c.rate/2, now
	case c.episodeEnds(calls) && c.wall.hit(m.inFlight):
		c.reason = c.wall.reason(c.reason)
	case c.streak >= inARow: // which says nothing about the rate
		c.reason = "probing"
		stop = min(minProbe<<min(c.streak-inARow, 10), maxProbe)
	default:
		c.lower(rate, calls)
	}
	c.rate = max(c.rate, c.cfg.MinRate)
	c.remember(m, o)
	c.lose(cost)
	c.cutAt, c.startedAt, c.first, c.proven, c.cycles = now, now, time.Time{}, false, 0
	return stop
}

// episodeEnds reports whether this refusal begins another episode than the last,
// and books the price of that one.
func (c *controller) episodeEnds(calls int) bool {
	if !c.proven || calls < enough {
		return false
	}
	if c.level > 0 { // the search is dearer than what follows
		c.price += (min(c.episode, dearest) - c.price) * episodic
	}
	c.episode = 0
	return true
}

// lower cuts the rate, after so many calls were let in at the rate measured.
func (c *controller) lower(measured float64, calls int) {
	old := c.rate
	c.fleet.refusals++
	switch {
	case c.fleet.known():
		c.rate *= 1 - c.fleet.margin()
	case c.uncoordinated() && c.level > 0:
		c.rate *= 1 - sharedMargin
	default:
		c.rate = c.evidence(measured, calls)
	}
	switch {
	case c.level == 0, c.proven && (calls >= enough || old >= c.level):
		c.level = c.rate
	case c.proven: // refused on the way back, and too soon to say where it ends
		c.level = (c.level + c.rate) / 2
	}
}

// evidence returns the rate that is right by all that is known when no one else
// uses the lane. The rate was refused, so it is too high; what was measured was
// let in, so it is not, but for the dip after cuts.
func (c *controller) evidence(measured float64, calls int) float64 {
	soon := max(0, 1-float64(calls)*target)
	rate := min(c.rate*(1-margin*min(1, c.cycles)-early*soon), (c.rate+measured*(1+dip/2))/2)
	if c.doubt += soon; c.proven && soon <= 1-quiet {
		c.safe, c.doubt = measured, 0
	}
	if c.doubt < doubtful {
		rate = max(rate, min(c.rate, c.safe))
	}
	return rate
}

// measured returns the rate at which calls were let in since the refusal before
// the last, and how many were since the last. The endpoint's budget was empty then,
// and it is now but for less than what the refused call costs, so that this is its
// capacity, whatever the size of the budget; it is less only where the budget was
// full for a while in between.
func (c *controller) measured(m mark, cost float64) (rate float64, calls int) {
	since := c.before
	switch {
	case !since.at.IsZero():
	case !c.from.at.IsZero():
		since = c.from
	case c.level > 0: // capacity went unused
		return c.rate, m.calls
	default:
		since.at = c.began
	}
	calls = m.calls - c.from.calls - c.from.loses
	seconds := m.at.Sub(since.at).Seconds()
	if calls <= 0 || seconds <= 0 {
		return 0, calls
	}
	return max(0, m.cost+cost-since.cost-since.lost) / seconds, calls
}

// remember makes m the beginning of the next stretch. Refusals with nothing let in
// between are one and the same. A quota that is used up is so until it is filled
// again, and that time counts; an endpoint that was away says nothing.
func (c *controller) remember(m mark, o Outcome) {
	switch {
	case c.streak > 0 && o == Unavailable:
		c.from, c.before = stretch{}, stretch{}
	case c.proven || c.from.at.IsZero():
		c.before, c.from = c.from, stretch{mark: m}
	}
}

func (c *controller) lose(cost float64) {
	for _, s := range []*stretch{&c.from, &c.before} {
		s.lost += cost
		s.loses++
	}
}
