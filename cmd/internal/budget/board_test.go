package budget_test

import (
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"upwell/cmd/internal/budget"
	"upwell/jobs"
	"upwell/worker"
)

var errBoard = errors.New("the board is broken")

// A board is a [budget.Board] in memory. Its versions are its texts, so that a text
// that comes back brings its version back, as S3's hashes do. It fails the test when
// what is granted and spent is more than the limit.
type board struct {
	t *testing.T

	// fault decides about an operation: how long it takes, whether it is done, how
	// much later than its answer, and whether it fails.
	fault func(op string) fault // guarded by mu

	mu            sync.Mutex
	text          string
	reads, writes int
	lowered       bool // the limit may be below what is granted
	late          sync.WaitGroup
}

type fault struct {
	took, late time.Duration
	undone     bool
	err        error
}

func (b *board) decide(op string) fault {
	b.mu.Lock()
	f := b.fault
	b.mu.Unlock()
	if f == nil {
		return fault{took: 20 * time.Millisecond}
	}
	return f(op)
}

// turn changes the board's faults.
func (b *board) turn(f func(op string) fault) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fault = f
}

func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (b *board) Read(ctx context.Context) ([]byte, string, error) {
	f := b.decide("read")
	if err := wait(ctx, f.took); err != nil {
		return nil, "", err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.reads++
	return []byte(b.text), b.text, f.err
}

func (b *board) Write(ctx context.Context, data []byte, version string) (bool, error) {
	f := b.decide("write")
	if err := wait(ctx, f.took); err != nil {
		return false, err
	}
	ok := false
	switch {
	case f.late > 0: // of a request that is still under way when whoever made it has gone
		b.late.Go(func() {
			<-time.After(f.late)
			b.replace(data, version)
		})
	case !f.undone:
		ok = b.replace(data, version)
	}
	return ok && f.err == nil, f.err
}

func (b *board) replace(data []byte, version string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.writes++
	if b.text != version {
		return false
	}
	b.text = string(data)
	if r := b.record(); !b.lowered && r.Limit > 0 && r.Spent+r.granted() > r.Limit+1e-9 {
		b.t.Errorf("%s adds up to more than the limit", data)
	}
	return true
}

// A record is what these tests read of the board.
type record struct {
	Limit    float64 `json:"limit_usd"`
	Spent    float64 `json:"spent_usd"`
	Presumed float64 `json:"presumed_usd"`
	Grants   map[string]struct {
		USD float64 `json:"usd"`
	} `json:"grants"`
	Parked *struct{ Why string } `json:"parked"`
}

func (r record) granted() (sum float64) {
	for _, g := range r.Grants {
		sum += g.USD
	}
	return sum
}

// record reads the board. b.mu must be held.
func (b *board) record() (r record) {
	if err := json.Unmarshal([]byte(b.text), &r); err != nil && b.text != "" {
		b.t.Errorf("the board says %q: %v", b.text, err)
	}
	return r
}

func (b *board) look() record {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.record()
}

func (b *board) requests() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.reads + b.writes
}

// set sets a budget for a run that has cost nothing yet.
func (b *board) set(limit jobs.USD) {
	b.t.Helper()
	if _, err := budget.Set(b.t.Context(), b, limit, free); err != nil {
		b.t.Fatal(err)
	}
}

func free(context.Context) (jobs.USD, error) { return 0, nil }

// A line is a worker's connection to the board, which can be cut for good: to the
// rest of the world that is a kill.
type line struct {
	*board

	mu  sync.Mutex
	cut bool
}

func (l *line) down() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cut
}

func (l *line) kill() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = true
}

func (l *line) Read(ctx context.Context) ([]byte, string, error) {
	if l.down() {
		return nil, "", errBoard
	}
	return l.board.Read(ctx)
}

func (l *line) Write(ctx context.Context, data []byte, version string) (bool, error) {
	if l.down() {
		return false, errBoard
	}
	return l.board.Write(ctx, data, version)
}

// weather is what befalls a board's requests.
func weather(r *rand.Rand, bad float64) func(string) fault {
	var mu sync.Mutex
	return func(op string) fault {
		mu.Lock()
		defer mu.Unlock()
		f := fault{took: time.Duration(1+r.IntN(200)) * time.Millisecond}
		if r.Float64() >= bad {
			return f
		}
		f.err = errBoard
		switch r.IntN(4) {
		case 0:
			f.undone = true
		case 1:
			f.late = time.Duration(r.IntN(20_000)) * time.Millisecond
		case 2:
			f.took, f.undone = time.Minute, true // longer than anybody waits
		}
		if op == "read" {
			f.late = 0
		}
		return f
	}
}

// open returns a purse that runs until end is called.
func open(t *testing.T, id string, b budget.Board) (p *budget.Purse, end func()) {
	t.Helper()
	p = budget.New(id, func(run string) budget.Board {
		if run != "r" {
			t.Errorf("the board of run %q is asked for, want r", run)
		}
		return b
	}, nil)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var running sync.WaitGroup
	running.Go(func() { p.Run(ctx) })
	return p, func() { cancel(); running.Wait() }
}

// budgeted runs f in a bubble of time, with a run that has a budget of so many USD and
// a worker's purse.
func budgeted(t *testing.T, usd jobs.USD, f func(t *testing.T, b *board, p *budget.Purse)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := &board{t: t}
		b.set(usd)
		p, end := open(t, "w", b)
		defer end()
		f(t, b, p)
	})
}

// reserve sets money aside that has to be there.
func reserve(t *testing.T, p *budget.Purse, n worker.Need) (settle func(jobs.USD)) {
	t.Helper()
	settle, err := p.Reserve(t.Context(), n)
	if err != nil {
		t.Fatal(err)
	}
	return settle
}
