package worker

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"time"
)

const (
	// glance is how often the lines are looked through for those who should
	// stand elsewhere.
	glance = time.Second

	// patience is how long a job stays in a line, once in it, before it may
	// change to another Region's, and what it has to gain at least: rates are
	// learned, and a job that follows each of their moves is always last.
	patience = 5 * time.Second

	// enough is how much work a line may always hold, at its lane's rate. It
	// is more than anybody needs who is given another batch within seconds,
	// and keeps the lane busy while others of its jobs are put off.
	enough = 2 * time.Minute

	// shortestOff and longestOff bound how long a job is put off whose lane has
	// a crowded line. The first bounds how often its message goes to and fro,
	// and the second is the longest that SQS delays a message it is sent anew.
	shortestOff = 10 * time.Second
	longestOff  = 15 * time.Minute
)

// A place is a job's place in the line of a lane.
type place struct {
	t     *task
	ln    *lane                   // guarded by lanes.mu
	since time.Time               // guarded by lanes.mu
	leave context.CancelCauseFunc // sends the job away
}

var (
	errElsewhere = errors.New("another Region has room")
	errNear      = errors.New("the deadline is near and the tier is out of capacity")
)

// A crowdedError says that the line of a job's lane holds as much of the room as
// one may.
type crowdedError struct{ delay time.Duration } // until when to come back

func (*crowdedError) Error() string { return "the line of its lane is long enough" }

// join has t stand in the line where it starts first. ctx is the wait's, and ends
// as well when t should leave: its cause says why. The error is a *crowdedError.
func (ls *lanes) join(wait context.Context, t *task) (ctx context.Context, p *place, ln *lane, err error) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	now := time.Now()
	ln, l := ls.best(t.regions, t.job.Model, t.tiers[0], now)
	for _, r := range t.regions {
		other := ln.Lane
		other.Region = r
		ls.used[other].usedAt = now
	}
	if err := ln.crowded(l, l.ahead, now, ls.space()); err != nil {
		return nil, nil, ln, err
	}
	ctx, leave := context.WithCancelCause(wait)
	p = &place{t: t, since: now, leave: leave}
	ln.enter(p)
	return ctx, p, ln, nil
}

// leave takes p out of whatever line it is in. started is the lane that gave it a
// permit, or nil.
func (ls *lanes) leave(p *place, started *lane) {
	defer p.leave(nil)
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if started != nil {
		started.startedAt, started.sentAway = time.Now(), false
	}
	if i := slices.Index(p.ln.line, p); i >= 0 {
		p.ln.exit(i)
	}
}

// sendAway notes that the lane has sent a job away.
func (ls *lanes) sendAway(ln *lane) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	ln.sentAway = true
}

// enter puts p at the end of ln's line. lanes.mu must be held.
func (ln *lane) enter(p *place) {
	p.ln = ln
	ln.line = append(ln.line, p)
	ln.size += p.t.size()
}

// exit takes the i-th out of ln's line. lanes.mu must be held.
func (ln *lane) exit(i int) {
	ln.size -= ln.line[i].t.size()
	ln.line = slices.Delete(ln.line, i, i+1)
}

// watch looks the lines through until ctx is done.
func (ls *lanes) watch(ctx context.Context) {
	t := time.NewTicker(glance)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-t.C:
			ls.review(now)
		}
	}
}

// review sends those away who should stand elsewhere. It begins at the end of
// each line: the last have most to gain, and the first keep their place.
func (ls *lanes) review(now time.Time) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	room := ls.space()
	for _, ln := range ls.used {
		l := ln.load(now)
		if time.Duration(l.ahead)*l.each <= enough/2 {
			ln.crowdedAt = time.Time{}
		}
		for i, p := range slices.Backward(ln.line) {
			if ls.moves(p, l.at(i), now) {
				p.leave(errElsewhere)
				continue
			}
			var why error
			if ls.mustClimb(p.t, ln, now) {
				why = errNear
			} else if err := ln.crowded(l, i, now, room); err != nil {
				why, room = err, room.plus(p.t.size())
			}
			if why != nil {
				ln.exit(i)
				p.leave(why)
			}
		}
	}
}

// moves has p, who would wait that long where it is, stand in the line of another
// Region if it starts there in less than half the time. ls.mu must be held.
func (ls *lanes) moves(p *place, wait time.Duration, now time.Time) bool {
	if len(p.t.regions) < 2 || now.Sub(p.since) < patience {
		return false
	}
	other, l := ls.best(p.t.regions, p.t.job.Model, p.t.tiers[0], now)
	if other == p.ln || 2*l.wait+patience > wait {
		return false
	}
	p.ln.exit(slices.Index(p.ln.line, p))
	p.since = now
	other.enter(p) // so that the next one sees it there; the job itself joins anew
	return true
}

// crowded returns a *crowdedError when a job that has that many ahead should make
// room for others: when ln starts nothing of it for a while, and its line is
// longer, in messages or in bytes, than the room that is left. A single slow lane
// then has half of the room, two have two thirds, and when others need all of it,
// each keeps enough. It is how switches share a buffer among their ports (Choudhury
// and Hahne, Dynamic Queue Length Thresholds, 1998).
//
// The job stays away until it would be its turn, after the line and those who were
// put off before it, but for no longer than the lane has been crowded: one that was
// slow because of an outage is not waited for longer than that lasted. lanes.mu
// must be held.
func (ln *lane) crowded(l load, ahead int, now time.Time, room space) error {
	if time.Duration(ahead)*l.each <= enough || len(ln.line) <= room.messages && ln.size <= room.bytes {
		return nil
	}
	if ln.crowdedAt.IsZero() {
		ln.crowdedAt, ln.turn = now, now
	}
	most := min(max(now.Sub(ln.crowdedAt), shortestOff), longestOff)
	d := min(max(ln.turn.Sub(now), l.at(ahead))+l.each, most)
	ln.turn = now.Add(d)
	return &crowdedError{d/2 + rand.N(d/2)} // those who were sent away together must not return together
}
