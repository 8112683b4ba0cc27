// Package fleet lets workers that share an account agree on what each may send.
//
// The law of the matter is in the comment of package throttle: workers that know
// nothing of each other need refusals to stay fair, and the more the slower they
// are. So a worker tells the others two numbers for each lane, on one small
// [Board]: the rate that it believes all of them may send together, and how often
// it had to slow down. Each takes the mean of the beliefs and sends an equal part
// of it, and knows whether anybody was refused lately. Nobody leads, and nobody
// waits for anybody: a worker that cannot reach the board goes on with what it
// last heard.
//
// # The record
//
// The board holds one JSON object:
//
//	{"members":{"<id>":{"beat":7,"lanes":{"us-west-2/xai.grok-4.3/":{"rate":20.4,"refusals":3}}}}}
//
// A member counts its beat up at each exchange. Who has not seen it change for a
// while removes the member; no clock but one's own is involved.
package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"upwell/throttle"
)

const (
	// shortest is the least time between two exchanges of a member, but for its
	// first few: two requests, eight a minute.
	shortest = 15 * time.Second

	// perSecond is how many exchanges a second a board should have to bear at
	// most. With more members each comes less often, or they would be in each
	// other's way: a conditional write takes some 50 ms.
	perSecond = 2

	// silence is how many intervals a member may be silent before it is taken for
	// gone. Its part is unused until then, and if it comes back, used twice until
	// the others have heard of it.
	silence = 4

	// tries is how often an exchange is tried again at once when somebody else
	// wrote in between.
	tries = 4

	// farewell bounds the time to leave.
	farewell = 3 * time.Second
)

// A Board is one small object that several workers read and replace.
type Board interface {
	// Read returns the object and its version. An object that does not exist
	// has no data and no version, and is no error.
	Read(ctx context.Context) (data []byte, version string, err error)

	// Write replaces the object if its version is still the one given, and
	// reports false and no error if it is not.
	Write(ctx context.Context, data []byte, version string) (ok bool, err error)
}

// A Pool is what a fleet shares out; [throttle.Set] is one. Its methods may be
// called concurrently.
type Pool interface {
	Report() map[throttle.Lane]throttle.Report
	Share(shares map[throttle.Lane]throttle.Share, fallback throttle.Share)
}

// A Member is one worker's part of a fleet.
type Member struct {
	id    string
	board Board
	pool  Pool
	log   *slog.Logger
	beat  int64
	since time.Time // when this member first exchanged

	seen  map[string]sight        // of the other members
	heard map[throttle.Lane]int64 // refusals of the others, at the last exchange
	lost  bool                    // the board could not be reached
}

// A sight is when another member's beat was last seen to change.
type sight struct {
	beat int64
	at   time.Time
}

// record is what is on the board.
type record struct {
	Members map[string]entry `json:"members"`
}

// entry is one member's.
type entry struct {
	Beat  int64                             `json:"beat"`
	Lanes map[throttle.Lane]throttle.Report `json:"lanes"`
}

// New returns a Member with a name that no other has. A nil log discards.
func New(id string, board Board, pool Pool, log *slog.Logger) *Member {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Member{
		id: id, board: board, pool: pool, log: log,
		seen: make(map[string]sight), heard: make(map[throttle.Lane]int64),
	}
}

// Run exchanges until ctx is done, and then leaves. It returns when it has left.
func (m *Member) Run(ctx context.Context) {
	for {
		t := time.NewTimer(m.Exchange(ctx, time.Now()))
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			m.leave(ctx)
			return
		}
	}
}

// Exchange tells the others what this worker believes and takes over what they do.
// It returns when to do so again. What goes wrong is logged: the worker then goes
// on with what it knows.
func (m *Member) Exchange(ctx context.Context, now time.Time) (again time.Duration) {
	workers, err := m.exchange(ctx, now)
	switch {
	case ctx.Err() != nil:
	case err != nil && !m.lost:
		m.log.WarnContext(ctx, "fleet out of reach", "err", err)
	case err == nil && m.lost:
		m.log.InfoContext(ctx, "fleet in reach again", "workers", workers)
	}
	m.lost = err != nil
	every := m.every(workers, now)
	return every - every/10 + rand.N(every/5) // or all would come at once
}

// every is the time until the next exchange. A new member comes back sooner: those
// who start together should hear of each other before each has found the capacity
// for itself.
func (m *Member) every(workers int, now time.Time) time.Duration {
	if m.since.IsZero() {
		m.since = now
	}
	young := max(now.Sub(m.since), time.Duration(workers)*time.Second)
	return min(young, interval(workers))
}

// interval is how often each of so many members exchanges.
func interval(workers int) time.Duration {
	return max(shortest, time.Duration(workers)*time.Second/perSecond)
}

// exchange returns how many members there are.
func (m *Member) exchange(ctx context.Context, now time.Time) (workers int, err error) {
	shared := false
	for range tries {
		r, version, err := m.read(ctx)
		if err != nil {
			return len(m.seen) + 1, err
		}
		m.look(&r, now)
		workers = len(r.Members) + 1
		if !shared { // once: the second time the others' news would be no news
			m.pool.Share(m.shares(r, m.pool.Report()))
			m.beat++
			shared = true
		}
		r.Members[m.id] = entry{Beat: m.beat, Lanes: m.pool.Report()}
		if ok, err := m.write(ctx, r, version); ok || err != nil {
			return workers, err
		}
	}
	return workers, nil // the others have written, and so will this one the next time
}

func (m *Member) read(ctx context.Context) (r record, version string, err error) {
	data, version, err := m.board.Read(ctx)
	if err != nil {
		return r, "", fmt.Errorf("read the fleet's record: %w", err)
	}
	if len(data) > 0 {
		if err := json.Unmarshal(data, &r); err != nil {
			m.log.WarnContext(ctx, "the fleet's record was no good and begins anew", "err", err)
			r = record{}
		}
	}
	if r.Members == nil {
		r.Members = make(map[string]entry)
	}
	return r, version, nil
}

func (m *Member) write(ctx context.Context, r record, version string) (ok bool, err error) {
	data, err := json.Marshal(r)
	if err != nil {
		return false, fmt.Errorf("write the fleet's record: %w", err)
	}
	if ok, err = m.board.Write(ctx, data, version); err != nil {
		return false, fmt.Errorf("write the fleet's record: %w", err)
	}
	return ok, nil
}

// look removes from r this member, and those that have been silent for too long.
func (m *Member) look(r *record, now time.Time) {
	delete(r.Members, m.id)
	for id := range m.seen { // not those removed below, as that may have to be done again
		if _, ok := r.Members[id]; !ok {
			delete(m.seen, id)
		}
	}
	for id, e := range r.Members {
		last, ok := m.seen[id]
		switch {
		case !ok || last.beat != e.Beat || m.lost: // others may have found the board out of reach as well
			m.seen[id] = sight{e.Beat, now}
		case now.Sub(last.at) > silence*interval(len(r.Members)+1):
			delete(r.Members, id)
		}
	}
}

// shares returns what the others in r and this member believe of each lane.
func (m *Member) shares(r record, mine map[throttle.Lane]throttle.Report) (shares map[throttle.Lane]throttle.Share, fallback throttle.Share) {
	workers := len(r.Members) + 1
	fallback = throttle.Share{Workers: workers, Interval: interval(workers)}
	shares = make(map[throttle.Lane]throttle.Share)
	for lane, own := range mine {
		s := fallback
		var sum, known float64
		var refusals int64
		add := func(rep throttle.Report) {
			if rep.Rate > 0 {
				sum += rep.Rate
				known++
			}
		}
		add(own)
		for _, id := range slices.Sorted(maps.Keys(r.Members)) { // or sums would differ in their last digits
			rep := r.Members[id].Lanes[lane]
			add(rep)
			refusals += rep.Refusals
		}
		if known > 0 {
			s.Rate = sum / known
		}
		s.Refused = refusals > m.heard[lane]
		m.heard[lane] = refusals
		shares[lane] = s
	}
	return shares, fallback
}

// leave takes this member off the board, so that the others need not wait to see
// that it is gone.
func (m *Member) leave(ctx context.Context) {
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), farewell, errors.New("the fleet's board is slow"))
	defer cancel()
	for range tries {
		r, version, err := m.read(ctx)
		if err != nil {
			return
		}
		delete(r.Members, m.id)
		if ok, err := m.write(ctx, r, version); ok || err != nil {
			return
		}
	}
}
