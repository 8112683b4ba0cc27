package sqssim

import (
	"cmp"
	"maps"
	"slices"
	"time"
)

// Stats is what a server has done and what it holds.
type Stats struct {
	// Requests counts the well-formed requests of each operation, those that
	// failed included.
	Requests map[string]int

	// Queues has the queues by name. Deleted queues are gone from it.
	Queues map[string]QueueStats
}

// QueueStats are the messages of one queue. At any time
//
//	Sent + In == Visible + Delayed + InFlight + Deleted + Expired + Purged + Out
type QueueStats struct {
	// Visible, Delayed and InFlight are how many messages there are now.
	Visible, Delayed, InFlight int

	// Waiting is how many receives are in a long poll now.
	Waiting int

	// Sent counts accepted messages without duplicates, and Received
	// deliveries.
	Sent, Received int

	// Deleted, Expired and Purged count messages that are gone: deleted by a
	// receipt, past their retention, and purged.
	Deleted, Expired, Purged int

	// In and Out count messages that came from and went to other queues, by a
	// redrive policy or a move task.
	In, Out int
}

// Stats returns a snapshot of each queue; the snapshots are not of one moment.
func (s *Server) Stats() Stats {
	now := time.Now()
	s.advance(now)
	st := Stats{Queues: map[string]QueueStats{}}
	for _, q := range s.all() {
		q.mu.Lock()
		q.settle(now)
		c := q.stats
		c.Visible, c.Delayed, c.InFlight = q.count[Visible], q.count[Delayed], q.count[InFlight]
		c.Waiting = q.waiting
		q.mu.Unlock()
		st.Queues[q.name] = c
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	st.Requests = maps.Clone(s.requests)
	return st
}

// Messages returns copies of the messages of the queue called name, in order
// of arrival, without receiving them. It returns nil if there is no such queue.
func (s *Server) Messages(name string) []Message {
	now := time.Now()
	s.advance(now)
	q, err := s.byName(name)
	if err != nil {
		return nil
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.settle(now)
	msgs := make([]Message, 0, len(q.events))
	for _, m := range q.events {
		msgs = append(msgs, m.snapshot())
	}
	slices.SortFunc(msgs, func(a, b Message) int { return cmp.Compare(a.Sequence, b.Sequence) })
	return msgs
}
