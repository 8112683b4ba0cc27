package mantlesim

import (
	"context"
	"time"

	"upwell/worker/mantle/mantlesim/capacity"
)

// hungUp is the reason, beside those of package capacity, of a call whose client
// left.
const hungUp = "gone"

// A room is the hidden capacity and its clock. Server.mu guards it.
type room struct {
	*capacity.Capacity
	start time.Time // of the script; zero until the first call
}

// at returns the room's own time.
func (r *room) at(now time.Time) time.Duration { return now.Sub(r.start) }

// open starts the clock if it does not run.
func (r *room) open(now time.Time) {
	if r.start.IsZero() {
		r.start = now
	}
}

// admit claims room for a call, or takes none and says why. Server.mu must be
// held.
func (s *Server) admit(c *call, q *request, now time.Time) (refused capacity.Reason) {
	cl := &capacity.Claim{Model: q.Model, Tier: q.tier, Rank: s.cfg.Tiers[q.tier].Rank, Tokens: q.input - c.cached + q.max}
	if refused = s.room.Admit(s.room.at(now), cl, c.rng.Float64); refused != "" {
		return refused
	}
	c.room, c.claim = s.room, cl
	if cl.Waiting() {
		c.ready = make(chan struct{})
		cl.Granted = func(time.Duration) { close(c.ready) }
	}
	return ""
}

// recheck is how often a queued call looks at the script itself, because a limit
// that rises wakes nobody.
const recheck = 100 * time.Millisecond

// await returns once c has a slot, or why it never will.
func (s *Server) await(ctx context.Context, c *call) (refused capacity.Reason) {
	if c.ready == nil {
		return ""
	}
	for start := time.Now(); ; {
		left := c.claim.Patience() - time.Since(start)
		timer := time.NewTimer(min(recheck, left))
		select {
		case <-c.ready:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
		s.mu.Lock()
		c.room.Serve(c.room.at(time.Now()))
		granted := !c.claim.Waiting()
		s.mu.Unlock()
		switch {
		case granted:
			return ""
		case ctx.Err() != nil:
			return hungUp
		case left <= recheck:
			return capacity.OverWait
		}
	}
}

// work tells the room what c, which has a slot, is going to generate.
func (s *Server) work(c *call, output int, took time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.claim.Generate(c.room.at(time.Now()), output, took)
}

// release gives back what c has claimed but for the tokens used.
func (s *Server) release(c *call, used int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.claim.Release(c.room.at(time.Now()), used)
}
