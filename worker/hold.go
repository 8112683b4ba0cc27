package worker

import (
	"context"
	"errors"
	"sync"
	"time"

	"upwell/jobs"
)

// tardy is how late, or how slow, a heartbeat has to be for somebody to look into it:
// half of the beats could be so, and no message would be lost yet.
const tardy = beat / 2

// A hold is one message that this worker keeps hidden from the others.
type hold struct {
	m    jobs.Message
	next time.Time // when the next heartbeat is due; guarded by holds.mu

	// turn is taken while a heartbeat is under way, and guards what follows. It
	// is a channel because a mutex is no place to wait for a request.
	turn  chan struct{}
	ended bool        // settled or lost: no heartbeat may follow
	lost  bool        // the delivery turned out to be over
	lose  func(error) // told so; nil for nobody
}

// end stops the heartbeats and waits for the one under way: one that came after
// a release would hide the message again.
func (h *hold) end() {
	h.turn <- struct{}{}
	h.ended = true
	<-h.turn
}

// onLost has f told when the delivery turns out to be over.
func (h *hold) onLost(f func(error)) {
	h.turn <- struct{}{}
	defer func() { <-h.turn }()
	if h.lose = f; h.lost {
		f(ErrGone)
	}
}

// holds are the messages held by one worker.
type holds struct {
	mu  sync.Mutex
	all map[*hold]struct{}
}

func newHolds() *holds { return &holds{all: make(map[*hold]struct{})} }

func (s *holds) add(m jobs.Message) *hold {
	h := &hold{m: m, next: m.Received.Add(beat), turn: make(chan struct{}, 1)}
	s.mu.Lock()
	s.all[h] = struct{}{}
	s.mu.Unlock()
	return h
}

func (s *holds) remove(h *hold) {
	s.mu.Lock()
	delete(s.all, h)
	s.mu.Unlock()
}

func (s *holds) len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.all)
}

// due returns the holds whose heartbeat is due, and marks it as sent. late is how long
// the first of them has been.
func (s *holds) due(now time.Time) (due []*hold, late time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for h := range s.all {
		if !h.next.After(now) {
			late = max(late, now.Sub(h.next))
			h.next = now.Add(beat)
			due = append(due, h)
		}
	}
	return due, late
}

// oldest returns when the message was received that has been held for longest.
func (s *holds) oldest() (t time.Time, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for h := range s.all {
		if r := h.m.Received; !ok || r.Before(t) {
			t, ok = r, true
		}
	}
	return t, ok
}

// heartbeats keeps every held message hidden until ctx is done.
func (w *Worker) heartbeats(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	t := time.NewTicker(beat / 30)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-t.C:
			due, late := w.held.due(now)
			for _, h := range due {
				wg.Go(func() { w.heartbeat(ctx, h) })
			}
			if late > tardy {
				wg.Go(func() { w.observe(Event{Kind: Late, Message: due[0].m.ID, Took: late}) }) // which may take a while
			}
			w.pulse.Store(int64(now.Sub(w.born))) // after the lock, which a worker that hangs may hold
		}
	}
}

func (w *Worker) heartbeat(ctx context.Context, h *hold) {
	h.turn <- struct{}{}
	defer func() { <-h.turn }()
	// The queue refuses a heartbeat that would reach past its ceiling, and
	// with it the delivery; its clock started a little before ours.
	d := min(hideFor, time.Until(h.m.Received.Add(ceiling))-hideFor/8)
	if h.ended || d <= 0 {
		return
	}
	// One that takes longer than a beat must not keep the message from being
	// settled.
	beating, cancel := context.WithTimeout(ctx, beat)
	defer cancel()
	start := time.Now()
	err := w.source.Hide(beating, h.m, d)
	if took := time.Since(start); (took > tardy || err != nil && !errors.Is(err, ErrGone)) && ctx.Err() == nil {
		w.observe(Event{Kind: Late, Message: h.m.ID, Took: took, Err: err})
	}
	switch {
	case err == nil || ctx.Err() != nil:
	case errors.Is(err, ErrGone):
		w.cfg.Log.WarnContext(ctx, "delivery lost", "message", h.m.ID, "err", err)
		h.ended, h.lost = true, true
		if h.lose != nil {
			h.lose(ErrGone)
		}
	default:
		w.cfg.Log.WarnContext(ctx, "heartbeat failed", "message", h.m.ID, "err", err)
	}
}
