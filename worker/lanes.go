package worker

import (
	"context"
	"sync"
	"time"

	"upwell/jobs"
	"upwell/throttle"
)

const (
	// firstPause and longestPause bound how long a lane stays closed after its
	// credential was refused. It doubles in between: a key that is being
	// rotated is back within seconds, and one that a person has to replace is
	// tried once a minute, which costs nothing, as refusals are not billed.
	firstPause   = 5 * time.Second
	longestPause = time.Minute

	// inUse is how long a lane counts as one of those that work comes for,
	// after a job last asked for it. It outlasts every closure.
	inUse = 90 * time.Minute
)

// lanes knows which lanes are in use, and chooses among them.
type lanes struct {
	set     *throttle.Set
	regions []string

	mu   sync.Mutex
	used map[throttle.Lane]*lane
}

// A lane is a limiter and what the worker knows beside it.
type lane struct {
	throttle.Lane
	*throttle.Limiter

	usedAt time.Time // guarded by lanes.mu

	mu       sync.Mutex
	pauses   int       // closures since a credential was last good
	closedAt time.Time // when the last of them began
	until    time.Time // and when it ends
}

func newLanes(set *throttle.Set, regions []string) *lanes {
	return &lanes{set: set, regions: regions, used: make(map[throttle.Lane]*lane)}
}

// pick returns the lane where a job for that model and tier should stand in
// line: the one with the shortest wait, among the Regions.
func (ls *lanes) pick(model, tier string) *lane {
	best := ls.get(throttle.Lane{Region: ls.regions[0], Model: model, Tier: tier})
	if len(ls.regions) == 1 {
		return best
	}
	least := load(best)
	for _, r := range ls.regions[1:] {
		ln := ls.get(throttle.Lane{Region: r, Model: model, Tier: tier})
		if l := load(ln); l < least {
			best, least = ln, l
		}
	}
	return best
}

// load is how many seconds of the lane's rate are spoken for.
func load(ln *lane) float64 {
	s := ln.State()
	wait := max(0, time.Until(s.ClosedUntil).Seconds())
	return wait + float64(s.InFlight+s.Waiting)/s.Rate
}

func (ls *lanes) get(id throttle.Lane) *lane {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	ln, ok := ls.used[id]
	if !ok {
		ln = &lane{Lane: id, Limiter: ls.set.Limiter(id)}
		ls.used[id] = ln
	}
	ln.usedAt = time.Now()
	return ln
}

// wait waits until some lane has room in its line and returns for how many
// messages, up to a batch: none only if ctx is done. With nothing known about
// any lane, there is room.
func (ls *lanes) wait(ctx context.Context) int {
	for ctx.Err() == nil {
		most, again := ls.room()
		if most > 0 {
			return most
		}
		// Not longer than a second, as a lane may open early.
		sleep(ctx, min(max(time.Until(again), 10*time.Millisecond), time.Second))
	}
	return 0
}

func (ls *lanes) room() (most int, again time.Time) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	now := time.Now()
	again = now.Add(time.Hour)
	known := false
	for _, ln := range ls.used {
		if now.Sub(ln.usedAt) > inUse {
			continue
		}
		known = true
		n, at := ln.Room()
		most = max(most, min(n, batch))
		if at.Before(again) {
			again = at
		}
	}
	if !known {
		return batch, now
	}
	return most, again
}

// refused closes the lane because the credential, or the path, of an attempt that
// left at start is no good. It returns until when, and whether that is news.
func (ln *lane) refused(start time.Time, err error) (until time.Time, news bool) {
	ln.mu.Lock()
	defer ln.mu.Unlock()
	if start.Before(ln.closedAt) {
		return ln.until, false // it was in flight with the one that closed the lane
	}
	ln.closedAt = time.Now()
	ln.until = ln.closedAt.Add(min(firstPause<<min(ln.pauses, 10), longestPause))
	ln.pauses++
	ln.Close(ln.until, err.Error())
	return ln.until, ln.pauses == 1
}

// worked notes that an attempt that left at start got an answer that only a good
// credential gets, and reports whether the lane had been closed for want of one.
func (ln *lane) worked(start time.Time) bool {
	ln.mu.Lock()
	defer ln.mu.Unlock()
	if start.Before(ln.closedAt) {
		return false // the credential was still good then
	}
	was := ln.pauses > 0
	ln.pauses = 0
	return was
}

// tier returns the service tier a job starts with.
func (w *Worker) tier(j *jobs.Job) string {
	switch {
	case j.Tier != "":
		return j.Tier
	case len(j.Tiers) > 0:
		return j.Tiers[0]
	default:
		return w.cfg.Tiers[0]
	}
}
