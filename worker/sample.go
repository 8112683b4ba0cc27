package worker

import (
	"context"
	"sync"
	"time"

	"upwell/throttle"
)

// A Bound is what keeps a worker, or a lane, from doing more at the moment. The set
// is closed.
type Bound string

// Bounds, from the endpoint's to one's own.
const (
	BoundRamp       Bound = "ramp"       // the limiter feels its way up to the capacity: nothing was refused yet, or not for long
	BoundQuota      Bound = "quota"      // the account's quota: the endpoint answers 429
	BoundCapacity   Bound = "capacity"   // the tier has no more capacity: 503, 529
	BoundDeadline   Bound = "deadline"   // likewise, and jobs wait for it that may move up a tier when their deadline is near
	BoundInFlight   Bound = "in_flight"  // a limit of calls in flight, found or set
	BoundMaxRate    Bound = "max_rate"   // the highest rate that is allowed here
	BoundCredential Bound = "credential" // no good, or the path is not, or no connection can be had
	BoundBudget     Bound = "budget"     // of a run: used up, or set aside for calls in flight
	BoundSlots      Bound = "slots"      // every slot has a call in flight
	BoundMemory     Bound = "memory"     // the bytes that may be held
	BoundErrors     Bound = "errors"     // calls that fail otherwise than for lack of room, and are tried again
	BoundQueue      Bound = "queue"      // requests to the queue are slow, or fail
	BoundStore      Bound = "store"      // requests to the sink are slow, or fail
	BoundEmpty      Bound = "empty"      // nothing else: the queue hands out no more
	BoundDraining   Bound = "draining"   // the worker stops
)

// A Sample is how a worker stands at a moment. One is taken every second.
type Sample struct {
	Slots, SlotsUsed int   // calls that may be in flight, and are
	Most, Held       int   // messages that may be held, and are
	MostBytes, Bytes int64 // likewise, of bodies and of what was fetched

	Oldest      time.Duration // since the oldest message held was received
	WaitSource  int           // requests to the queue that messages wait for
	WaitSink    int           // and to the sink, or for what is fetched, budgets among it
	WaitMoney   int           // jobs held until there is money
	Lanes       map[throttle.Lane]throttle.State
	Bound       Bound         // what keeps the worker from doing more
	Lane        throttle.Lane // that it is about, if it is about one
	LaneWaiting int           // jobs in its line
}

// sampleEvery is how often a worker says how it stands.
const sampleEvery = time.Second

// sampling says how the worker stands, every second until ctx is done. The end of
// working is the beginning of the drain.
func (w *Worker) sampling(ctx, working context.Context) {
	t := time.NewTicker(sampleEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			w.observe(Event{Kind: Sampled, Sample: w.sample(working.Err() != nil)})
		}
	}
}

func (w *Worker) sample(draining bool) *Sample {
	s := &Sample{
		Slots: cap(w.slots), SlotsUsed: len(w.slots),
		Most: w.room.total, Held: w.held.len(),
		MostBytes: w.cfg.Bytes, Bytes: w.room.taken(),
		WaitSource: int(w.requests.source.Load()), WaitSink: int(w.requests.sink.Load()),
	}
	if t, ok := w.held.oldest(); ok {
		s.Oldest = time.Since(t)
	}
	held, unsure, broke := w.funds.binding(w.cfg.Purse)
	s.WaitMoney, s.WaitSink = held, s.WaitSink+unsure
	lanes := w.lanes.stand()
	s.Lanes = make(map[throttle.Lane]throttle.State, len(lanes))
	for id, ln := range lanes {
		s.Lanes[id] = ln.State
	}
	switch lane, ok := busiest(lanes); {
	case draining:
		s.Bound = BoundDraining
	case s.SlotsUsed == s.Slots:
		s.Bound = BoundSlots
	case ok:
		at := lanes[lane]
		s.Lane, s.LaneWaiting, s.Bound = lane, at.waiting, at.bound()
	case broke:
		s.Bound = BoundBudget
	default:
		s.Bound = w.insideBound(s)
	}
	return s
}

// insideBound returns what of the worker's own keeps it from doing more, when calls
// could be made and there are no jobs for them.
func (w *Worker) insideBound(s *Sample) Bound {
	retrying := int(w.requests.retrying.Load())
	if full, forBytes := w.room.full(); full {
		switch {
		case max(s.WaitSink, s.WaitSource, retrying) == 0:
		case s.WaitSink >= max(s.WaitSource, retrying):
			return BoundStore
		case s.WaitSource >= retrying:
			return BoundQueue
		default:
			return BoundErrors
		}
		if forBytes {
			return BoundMemory
		}
	}
	lately := time.Since(w.born) - 2*sampleEvery
	switch last := time.Duration(w.requests.full.Load()); {
	case w.requests.failing.Load():
		return BoundQueue
	case s.WaitSink > 0 && s.WaitSink == s.Held:
		return BoundStore
	case retrying > 0 && 2*retrying >= s.Held: // others have just come, or are tried again just now
		return BoundErrors
	case last > 0 && last > lately:
		return BoundQueue // it gives as many as it is asked for, and they are done faster than that
	default:
		return BoundEmpty
	}
}

// A stand is how a lane stands.
type stand struct {
	throttle.State
	waiting int  // in its line
	paused  bool // its credential is no good, or no connection can be had
	mayMove bool // somebody in the line may move up a tier when the deadline is near
	closed  bool // it has no room for anybody
	away    bool // and has sent somebody away who is not back yet
}

// stand returns how the lanes stand that work has come for of late.
func (ls *lanes) stand() map[throttle.Lane]stand {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	now := time.Now()
	all := make(map[throttle.Lane]stand, len(ls.used))
	for id, ln := range ls.used {
		if now.Sub(ln.usedAt) > inUse {
			continue
		}
		st := stand{State: ln.State(), waiting: len(ln.line), paused: ln.paused()}
		most, _ := ln.Room()
		st.closed = most == 0 && st.ClosedUntil.After(now)
		st.away = st.closed && (ln.sentAway || st.paused)
		for _, p := range ln.line {
			if st.mayMove = len(p.t.tiers) > 1 && !p.t.job.Deadline.IsZero(); st.mayMove {
				break
			}
		}
		all[id] = st
	}
	return all
}

// paused reports whether a person has to do something about the lane.
func (ln *lane) paused() bool {
	ln.mu.Lock()
	defer ln.mu.Unlock()
	return !ln.lostSince.IsZero() || ln.pauses > 0
}

// busiest returns the lane that most jobs wait for or, if none do, of those that are
// closed and have sent jobs away the one that a person has to do something about, or that
// opens last.
func busiest(lanes map[throttle.Lane]stand) (busiest throttle.Lane, ok bool) {
	var best stand
	for id, s := range lanes {
		if s.waiting == 0 && !s.away {
			continue
		}
		if !ok || s.binds(best) {
			busiest, best, ok = id, s, true
		}
	}
	return busiest, ok
}

// binds reports whether s rather than other is what keeps the worker back.
func (s *stand) binds(other stand) bool {
	switch {
	case s.waiting != other.waiting:
		return s.waiting > other.waiting
	case s.paused != other.paused:
		return s.paused
	default:
		return s.ClosedUntil.After(other.ClosedUntil)
	}
}

// bound returns what keeps the lane from starting more.
func (s *stand) bound() Bound {
	switch {
	case s.paused:
		return BoundCredential
	case s.Bound == throttle.Capacity && s.mayMove:
		return BoundDeadline
	case s.Bound == throttle.Shut:
		return BoundCredential
	default:
		return Bound(s.Bound)
	}
}

// shut knows which lanes are closed.
type shut struct {
	mu    sync.Mutex
	lanes map[throttle.Lane]bool
}

// turn notes whether the lane is closed, and reports whether that is news.
func (s *shut) turn(lane throttle.Lane, closed bool) (news bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lanes[lane] == closed {
		return false
	}
	if s.lanes == nil {
		s.lanes = make(map[throttle.Lane]bool)
	}
	if s.lanes[lane] = closed; !closed {
		delete(s.lanes, lane)
	}
	return true
}

// rateChanged tells what a lane's limiter has decided. It is called with locks of
// lanes held, and takes none of them.
func (w *Worker) rateChanged(lane throttle.Lane, s throttle.State) {
	e := Event{Kind: RateChanged, Lane: lane, Rate: &s}
	w.observe(e)
	closed := s.ClosedUntil.After(time.Now())
	if !w.shut.turn(lane, closed) {
		return
	}
	if e.Kind = Opened; closed {
		e.Kind = Closed
	}
	w.observe(e)
}
