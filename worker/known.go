package worker

import (
	"hash/maphash"
	"sync"

	"upwell/jobs"
)

// remembered is how many settled jobs are remembered: enough for the copies
// that SQS delivers by mistake, which come within minutes, at 16 bytes each.
// It is also how many messages are, that could not be acknowledged.
const remembered = 1 << 16

// known are the jobs this worker has under way or has lately settled. A second
// message for one of those is a copy: a standard queue may deliver a message
// twice, a user may submit a file twice. Copies of jobs under way are released,
// and those of settled ones looked up, so that neither is paid for again.
//
// A message that was settled and could not be acknowledged is known by its own
// id: it comes back, and is owed nothing but the acknowledgement. The look-up
// alone would not do, as it finds no job that ended as a dead letter.
//
// It remembers hashes. Two jobs with one hash cost a look-up or a delay, and
// nothing else.
type known struct {
	seed maphash.Seed

	mu     sync.Mutex
	active map[uint64]struct{}
	past   map[uint64]struct{}
	ring   []uint64 // of past, the oldest at next
	next   int
	owed   map[string]struct{} // ids of messages that are owed an acknowledgement
}

func newKnown() *known {
	return &known{
		seed: maphash.MakeSeed(), active: make(map[uint64]struct{}),
		past: make(map[uint64]struct{}), owed: make(map[string]struct{}),
	}
}

func (r *known) hash(k jobs.Key) uint64 { return maphash.Comparable(r.seed, k) }

// begin notes that the job is under way. ok is false if it was already;
// settled reports whether it was settled a while ago.
func (r *known) begin(k jobs.Key) (ok, settled bool) {
	h := r.hash(k)
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, busy := r.active[h]; busy {
		return false, false
	}
	r.active[h] = struct{}{}
	_, settled = r.past[h]
	return true, settled
}

// end notes that the job is no longer under way, and whether it is settled.
func (r *known) end(k jobs.Key, settled bool) {
	h := r.hash(k)
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.active, h)
	if _, ok := r.past[h]; ok || !settled {
		return
	}
	r.past[h] = struct{}{}
	if len(r.ring) < remembered {
		r.ring = append(r.ring, h)
		return
	}
	delete(r.past, r.ring[r.next])
	r.ring[r.next] = h
	r.next = (r.next + 1) % remembered
}

// owe notes whether the message, which is settled, is owed an acknowledgement.
func (r *known) owe(id string, owed bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case !owed:
		delete(r.owed, id)
	case len(r.owed) < remembered:
		r.owed[id] = struct{}{}
	}
}

func (r *known) owes(id string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, ok := r.owed[id]
	return ok
}
