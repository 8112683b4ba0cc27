package worker

import (
	"hash/maphash"
	"sync"

	"upwell/jobs"
)

// remembered is how many settled jobs are remembered: enough for the copies
// that SQS delivers by mistake, which come within minutes, at 16 bytes each.
// It is also how many messages are, that had their job elsewhere, and that could
// not be acknowledged.
const remembered = 1 << 16

// known are the jobs this worker has under way or has lately settled. A second
// message for one of those is a copy: a standard queue may deliver a message
// twice, a user may submit a file twice. Copies of jobs under way are released,
// and those of settled ones looked up, so that neither is paid for again.
//
// A message that was settled and could not be acknowledged is known by its own
// id: it comes back, and is owed nothing but the acknowledgement. The look-up
// alone would not do, as it finds no job that ended as a dead letter. A settled
// message that had its job elsewhere is known by its id as well: what it refers to
// may be gone when a copy comes, and nobody could tell then which job that was.
//
// Of jobs it remembers hashes: two with one hash cost a look-up or a delay, and
// nothing else. Of messages it remembers the ids, as one taken for another would be
// lost.
type known struct {
	seed maphash.Seed

	mu     sync.Mutex
	active map[uint64]struct{}
	past   recent[uint64]      // jobs
	done   recent[string]      // ids of messages that had their job elsewhere
	owed   map[string]struct{} // ids of messages that are owed an acknowledgement
}

func newKnown() *known {
	return &known{
		seed: maphash.MakeSeed(), active: make(map[uint64]struct{}), owed: make(map[string]struct{}),
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
	return true, r.past.has(h)
}

// end notes that the job is no longer under way, and whether it is settled.
func (r *known) end(k jobs.Key, settled bool) {
	h := r.hash(k)
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.active, h)
	if settled {
		r.past.add(h)
	}
}

// finish notes that a message is settled that had its job elsewhere.
func (r *known) finish(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.done.add(id)
}

// finished reports whether finish noted the message a while ago.
func (r *known) finished(id string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.done.has(id)
}

// recent is what was added last. The zero value is nothing.
type recent[T comparable] struct {
	all  map[T]struct{}
	ring []T // the oldest at next
	next int
}

func (r *recent[T]) has(v T) bool {
	_, ok := r.all[v]
	return ok
}

func (r *recent[T]) add(v T) {
	if r.has(v) {
		return
	}
	if r.all == nil {
		r.all = make(map[T]struct{})
	}
	r.all[v] = struct{}{}
	if len(r.ring) < remembered {
		r.ring = append(r.ring, v)
		return
	}
	delete(r.all, r.ring[r.next])
	r.ring[r.next] = v
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
