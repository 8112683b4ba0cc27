package capacity

// Levels returns what is left of every budget, and every rate that is summed up.
func (c *Capacity) Levels() (levels []float64) {
	for _, p := range c.order {
		for _, g := range p.gauges {
			levels = append(levels, g.calls.level, g.tokens.level, g.output.level, g.output.rate, g.growth.rate, g.growth.mean)
		}
	}
	return levels
}

// Held returns how many slots and places every set of limits counts, and how
// many endings are still to come.
func (c *Capacity) Held() (held, endings int) {
	for _, p := range c.order {
		held += len(p.queue)
		for _, g := range p.gauges {
			held += g.busy + g.queued
			endings += len(g.output.ends)
		}
	}
	return held, endings
}
