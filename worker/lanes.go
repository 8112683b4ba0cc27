package worker

import (
	"cmp"
	"context"
	"sync"
	"time"

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

	// lookEvery is how often messages are asked for while no lane known has
	// room, a batch at a time. Those for closed lanes are given back, which
	// is a few requests a minute and costs them nothing.
	lookEvery = time.Minute
)

// lanes knows which lanes are in use, chooses among them, and keeps their lines.
type lanes struct {
	set   *throttle.Set
	space func() space // what the room still takes

	mu    sync.Mutex
	used  map[throttle.Lane]*lane
	asked time.Time // when there was last a reason to ask for messages
}

// A lane is a limiter and what the worker knows beside it.
type lane struct {
	throttle.Lane
	*throttle.Limiter

	// Guarded by lanes.mu.
	usedAt    time.Time // when a job last wanted it, or zero
	startedAt time.Time // when it last gave a permit
	line      []*place  // of those who wait for one, in order
	size      int64     // bytes of their messages
	crowdedAt time.Time // since when they are too many, or zero
	turn      time.Time // of the last one who was put off for that
	sentAway  bool      // somebody was, since a permit was last given

	mu       sync.Mutex
	pauses   int       // closures since a credential was last good
	closedAt time.Time // when the last of them began
	until    time.Time // and when it ends

	lostSince time.Time // since when there is no connection to be had, or zero
	lostAt    time.Time // when that was last said
	gone      bool      // it counts as paused for that

	demand demand
}

func newLanes(set *throttle.Set, space func() space) *lanes {
	return &lanes{set: set, space: space, used: make(map[throttle.Lane]*lane)}
}

// A load is how a lane looks to a newcomer, at one moment.
type load struct {
	wait  time.Duration // until it starts
	each  time.Duration // between two starts
	ahead int           // who start before it
	busy  float64       // seconds of the lane's rate that are in flight
	since time.Time     // when the lane last started anything
}

// slowest is the least rate that is reckoned with, in calls per second. A line of
// thousands is then expected to last for weeks, which a time.Duration can hold.
const slowest = 1e-3

// load returns how ln looks now. lanes.mu must be held.
func (ln *lane) load(now time.Time) load {
	s := ln.State()
	l := load{
		each:  time.Duration(float64(time.Second) / max(s.Rate, slowest)),
		ahead: len(ln.line),
		busy:  float64(s.InFlight) / max(s.Rate, slowest),
		since: ln.startedAt,
	}
	l.wait = max(0, s.ClosedUntil.Sub(now), ln.startedAt.Add(l.each).Sub(now)) + time.Duration(l.ahead)*l.each
	return l
}

// at returns when somebody starts who has that many ahead.
func (l load) at(ahead int) time.Duration { return l.wait - time.Duration(l.ahead-ahead)*l.each }

// compare orders lanes: first the one where a newcomer starts sooner, among those
// the one with less in flight, and among idle ones each in turn.
func (l load) compare(m load) int {
	return cmp.Or(cmp.Compare(l.wait, m.wait), cmp.Compare(l.busy, m.busy), l.since.Compare(m.since))
}

// best returns the lane for that model and tier where a newcomer should stand in
// line, among the Regions, and how it looks. ls.mu must be held.
func (ls *lanes) best(regions []string, model, tier string, now time.Time) (best *lane, least load) {
	for _, r := range regions {
		ln := ls.lane(throttle.Lane{Region: r, Model: model, Tier: tier})
		if l := ln.load(now); best == nil || l.compare(least) < 0 {
			best, least = ln, l
		}
	}
	return best, least
}

// lane returns the lane of that name. ls.mu must be held.
func (ls *lanes) lane(id throttle.Lane) *lane {
	ln, ok := ls.used[id]
	if !ok {
		ln = &lane{Lane: id, Limiter: ls.set.Limiter(id)}
		ls.used[id] = ln
	}
	return ln
}

// other reports whether there is a better lane for t than ln, which would let it
// into its line.
func (ls *lanes) other(t *task, ln *lane) bool {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	best, _ := ls.best(t.regions, t.job.Model, t.tiers[0], time.Now())
	most, _ := best.Room()
	return best != ln && most > 0
}

// wait waits until some lane has room in its line and returns for how many
// messages, up to a batch: none only if ctx is done. With nothing known about
// any lane, there is room.
//
// look says that no lane known has room, and that it is time to look whether
// there is work for another.
func (ls *lanes) wait(ctx context.Context) (most int, look bool) {
	for ctx.Err() == nil {
		most, again := ls.room()
		if most > 0 {
			return most, false
		}
		if ls.look() {
			return batch, true
		}
		// Not longer than a second, as a lane may open early.
		sleep(ctx, min(max(time.Until(again), 10*time.Millisecond), time.Second))
	}
	return 0, false
}

// look reports whether to ask for messages although no lane has room for them. A
// queue does not tell what its messages are for, so work for a lane that nobody
// has seen yet would wait for as long as those are closed that are known.
func (ls *lanes) look() bool {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	now := time.Now()
	if now.Sub(ls.asked) < lookEvery {
		return false
	}
	ls.asked = now
	return true
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
		most, again = batch, now
	}
	if most > 0 {
		ls.asked = now
	}
	return most, again
}

// refused closes the lane because the credential, or the path, of an attempt that
// left at start is no good. It returns until when, whether it was this attempt that did,
// and whether none had done so since a credential was last good.
func (ln *lane) refused(start time.Time, err error) (until time.Time, closed, first bool) {
	if until, closed, first = ln.pause(start); closed {
		ln.Close(until, err.Error()) // which tells others, and needs no lock
	}
	return until, closed, first
}

// pause notes that the lane is to be closed, as refused says.
func (ln *lane) pause(start time.Time) (until time.Time, closed, first bool) {
	ln.mu.Lock()
	defer ln.mu.Unlock()
	if start.Before(ln.closedAt) {
		return ln.until, false, false // it was in flight with the one that closed the lane
	}
	ln.closedAt = time.Now()
	ln.until = ln.closedAt.Add(min(firstPause<<min(ln.pauses, 10), longestPause))
	ln.pauses++
	return ln.until, true, ln.pauses == 1
}

// unreachable is how long no connection can be had before that counts as a pause of
// the lane's intake, which somebody should look at.
const unreachable = time.Minute

// lost notes that an attempt that left at start found no connection to the lane's
// Region. It reports whether that should be said, which is once a minute, whether it has
// lasted for so long that the lane counts as paused, and whether it has only just.
func (ln *lane) lost(start time.Time) (say, paused, first bool) {
	ln.mu.Lock()
	defer ln.mu.Unlock()
	now := time.Now()
	if ln.lostSince.IsZero() {
		ln.lostSince = now
	}
	first = !ln.gone && now.Sub(ln.lostSince) >= unreachable
	ln.gone = ln.gone || first
	if say = first || !start.Before(ln.lostAt.Add(time.Minute)); say {
		ln.lostAt = now
	}
	return say, ln.gone, first
}

// reached notes that an attempt had a connection, and reports whether the lane had
// been paused for want of one.
func (ln *lane) reached() bool {
	ln.mu.Lock()
	defer ln.mu.Unlock()
	was := ln.gone
	ln.lostSince, ln.gone = time.Time{}, false
	return was
}

// worked notes that an attempt that left at start got another answer than that its
// credential, or the path, is no good, and reports whether the lane had been closed for
// want of a good one.
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
