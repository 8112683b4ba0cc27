package fleet_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"upwell/throttle"
	"upwell/throttle/fleet"
)

// Changes of one line that these tests have been seen to catch:
//
//   - Run: does not leave
//   - Exchange: warns each time, or never again; warns of its own end; comes too soon
//   - exchange: shares at each try; no beat; no second try
//   - interval: the same for many
//   - read: believes what is good in part; no members
//   - look: finds itself; takes nobody for gone, or everybody; forgets who was gone
//     before that is written
//   - shares: unknown rates count; its own does not; refusals of others do not, or
//     again each time
//   - leave: with a ctx that is done

// A board is a [fleet.Board] in memory. Faults happen to calls as they are told.
type board struct {
	took time.Duration // by each call, half of it before the call takes effect

	mu      sync.Mutex
	data    []byte
	version int
	reads   int
	writes  int
	lost    int // writes that came too late

	// fault, if set, decides a call's fate: whether it takes effect, and what it
	// returns. (true, err) is a write whose answer is lost on the way back.
	fault func(op string) (apply bool, err error)

	// before, if set, runs before a write takes effect: somebody else is quicker.
	before func()
}

func (b *board) wait(ctx context.Context) error {
	b.mu.Lock()
	half := b.took / 2
	b.mu.Unlock()
	select {
	case <-time.After(half):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (b *board) fate(op string) (apply bool, err error) {
	if b.fault == nil {
		return true, nil
	}
	return b.fault(op)
}

func (b *board) Read(ctx context.Context) (data []byte, version string, err error) {
	if err := b.wait(ctx); err != nil {
		return nil, "", err
	}
	b.mu.Lock()
	data, version = bytes.Clone(b.data), fmt.Sprint(b.version)
	if b.data == nil {
		version = ""
	}
	b.reads++
	_, err = b.fate("read")
	b.mu.Unlock()
	if err != nil {
		return nil, "", err
	}
	return data, version, b.wait(ctx)
}

func (b *board) Write(ctx context.Context, data []byte, version string) (ok bool, err error) {
	if err := b.wait(ctx); err != nil {
		return false, err
	}
	if b.before != nil {
		b.before()
	}
	b.mu.Lock()
	b.writes++
	apply, err := b.fate("write")
	at := ""
	if b.data != nil {
		at = fmt.Sprint(b.version)
	}
	switch {
	case !apply:
	case at != version:
		b.lost++
	default:
		b.data, ok = bytes.Clone(data), true
		b.version++
	}
	b.mu.Unlock()
	if err != nil {
		return false, err
	}
	return ok, b.wait(ctx)
}

func (b *board) set(data string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.data = []byte(data)
	b.version++
}

// tries is how many writes there were, in vain or not.
func (b *board) tries() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.writes
}

// members are the names on the board.
func (b *board) members(t *testing.T) []string {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	var r struct {
		Members map[string]struct{ Beat int64 }
	}
	if err := json.Unmarshal(b.data, &r); err != nil {
		t.Fatalf("record %s: %v", b.data, err)
	}
	return slices.Sorted(maps.Keys(r.Members))
}

// A pool is a [fleet.Pool] that remembers what it was told.
type pool struct {
	mu       sync.Mutex
	report   map[throttle.Lane]throttle.Report
	shares   map[throttle.Lane]throttle.Share
	fallback throttle.Share
	told     int
}

func (p *pool) Report() map[throttle.Lane]throttle.Report {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.report)
}

func (p *pool) Share(shares map[throttle.Lane]throttle.Share, fallback throttle.Share) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.shares, p.fallback = shares, fallback
	p.told++
}

func (p *pool) workers() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.fallback.Workers
}

func (p *pool) refused(n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.report[lane]
	r.Refusals += n
	p.report[lane] = r
}

var (
	lane  = throttle.Lane{Region: "us-west-2", Model: "org/m", Tier: "flex"}
	other = throttle.Lane{Region: "us-east-1", Model: "m", Tier: "default"}
)

func newPool(rate float64) *pool {
	return &pool{report: map[throttle.Lane]throttle.Report{lane: {Rate: rate}}}
}

// run starts a member, and returns how to end it, which waits until it has left.
func run(t *testing.T, id string, b fleet.Board, p fleet.Pool, log *slog.Logger) (leave func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		fleet.New(id, b, p, log).Run(ctx)
	}()
	return func() {
		cancel()
		<-done
	}
}

// wantWorkers reports which pools believe in another number of workers.
func wantWorkers(t *testing.T, when string, want int, pools ...*pool) {
	t.Helper()
	for i, p := range pools {
		if got := p.workers(); got != want {
			t.Errorf("%s: member %d sees %d workers, want %d", when, i, got, want)
		}
	}
}

// soon is when each member has exchanged twice.
const soon = 35 * time.Second

func TestMembersSeeEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &board{took: 50 * time.Millisecond}
		one, two, three := newPool(10), newPool(20), newPool(0)
		leave1 := run(t, "one", b, one, nil)
		time.Sleep(time.Second)
		wantWorkers(t, "alone", 1, one)
		leave2 := run(t, "two", b, two, nil)
		time.Sleep(time.Second)
		wantWorkers(t, "a newcomer, at once", 2, two)
		time.Sleep(soon)
		wantWorkers(t, "soon", 2, one, two)
		leave3 := run(t, "three", b, three, nil)
		time.Sleep(soon)
		wantWorkers(t, "with a third", 3, one, two, three)
		want := throttle.Share{Workers: 3, Rate: 15, Interval: 15 * time.Second} // one knows nothing
		for i, p := range []*pool{one, two, three} {
			if diff := cmp.Diff(map[throttle.Lane]throttle.Share{lane: want}, p.shares); diff != "" {
				t.Errorf("shares of member %d (-want +got):\n%s", i, diff)
			}
			if want := (throttle.Share{Workers: 3, Interval: 15 * time.Second}); p.fallback != want {
				t.Errorf("fallback of member %d = %+v, want %+v", i, p.fallback, want)
			}
		}
		leave1()
		if got := b.members(t); !slices.Equal(got, []string{"three", "two"}) {
			t.Errorf("on the board after one has left: %q", got)
		}
		time.Sleep(soon / 2)
		wantWorkers(t, "after one has left", 2, two, three)
		leave2()
		leave3()
		if got := b.members(t); len(got) != 0 {
			t.Errorf("on the board after all have left: %q", got)
		}
	})
}

// Whoever does not leave is taken for gone after four intervals, and is there again
// when it is heard of.
func TestSilentMember(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &board{}
		one, two := newPool(10), newPool(10)
		m := fleet.New("two", b, two, nil)
		defer run(t, "one", b, one, nil)()
		time.Sleep(time.Second)
		m.Exchange(t.Context(), time.Now())
		silent := time.Now()
		for one.workers() == 1 {
			time.Sleep(time.Second)
		}
		for one.workers() == 2 {
			time.Sleep(time.Second)
		}
		if got := time.Since(silent); got < time.Minute || got > 100*time.Second {
			t.Errorf("taken for gone after %v, want a minute, and until the next exchange", got)
		}
		if got := b.members(t); !slices.Equal(got, []string{"one"}) {
			t.Errorf("on the board: %q, want one", got)
		}
		time.Sleep(time.Minute)
		m.Exchange(t.Context(), time.Now())
		time.Sleep(soon / 2)
		wantWorkers(t, "when it is back", 2, one, two)
	})
}

// A silent member stays gone for whoever has seen that, even if somebody else wrote
// in between.
func TestSilentMemberAndConflict(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &board{}
		one := newPool(10)
		fleet.New("two", b, newPool(10), nil).Exchange(t.Context(), time.Now())
		third := fleet.New("three", b, newPool(10), nil)
		m := fleet.New("one", b, one, nil)
		m.Exchange(t.Context(), time.Now())
		for range 5 {
			time.Sleep(15 * time.Second)
			b.before = func() {
				b.before = nil
				third.Exchange(t.Context(), time.Now())
			}
			m.Exchange(t.Context(), time.Now())
		}
		b.before = nil
		wantWorkers(t, "after 75s", 2, one)
		time.Sleep(15 * time.Second)
		m.Exchange(t.Context(), time.Now())
		wantWorkers(t, "after 90s", 2, one)
	})
}

// Others' refusals since the last exchange are told once.
func TestRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &board{}
		one, two := newPool(10), newPool(10)
		m1, m2 := fleet.New("one", b, one, nil), fleet.New("two", b, two, nil)
		exchange := func(m *fleet.Member, p *pool, want bool) {
			t.Helper()
			time.Sleep(15 * time.Second)
			m.Exchange(t.Context(), time.Now())
			if got := p.shares[lane].Refused; got != want {
				t.Errorf("Refused = %v, want %v", got, want)
			}
		}
		exchange(m1, one, false)
		exchange(m2, two, false)
		exchange(m1, one, false)
		two.refused(2)
		exchange(m1, one, false) // it has not been told
		exchange(m2, two, false) // its own are no news to it
		exchange(m1, one, true)
		exchange(m1, one, false)
		two.refused(1)
		exchange(m2, two, false)
		b.before = func() { b.before = nil; b.set(string(b.data)) } // and the exchange is tried again
		exchange(m1, one, true)
		exchange(m1, one, false)
	})
}

// Whoever writes second reads again, and nobody's entry is lost.
func TestConflict(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &board{took: 200 * time.Millisecond}
		var pools []*pool
		var gone sync.WaitGroup
		for i := range 4 {
			p := newPool(float64(i))
			pools = append(pools, p)
			gone.Go(func() { fleet.New(fmt.Sprint(i), b, p, nil).Exchange(t.Context(), time.Now()) })
		}
		gone.Wait()
		if got := b.members(t); len(got) != 4 || b.lost == 0 {
			t.Errorf("on the board after %d conflicts: %q, want all four", b.lost, got)
		}
		for i, p := range pools {
			if p.told != 1 {
				t.Errorf("member %d was told %d times in an exchange, want once", i, p.told)
			}
		}
	})
	synctest.Test(t, func(t *testing.T) { // and not for ever
		b := &board{before: nil}
		b.before = func() { b.set(`{"members":{}}`) }
		p := newPool(1)
		if again := fleet.New("one", b, p, nil).Exchange(t.Context(), time.Now()); again < 900*time.Millisecond || again > 1100*time.Millisecond {
			t.Errorf("again after %v, want about 1s, as the member is new", again)
		}
		if n := b.tries(); n != 4 {
			t.Errorf("%d tries, want 4", n)
		}
	})
}

// A board that fails loses nothing, and is talked about once.
func TestBoardFails(t *testing.T) {
	broken := errors.New("slow down")
	for name, fault := range map[string]func(op string) (bool, error){
		"read":           func(op string) (bool, error) { return true, map[string]error{"read": broken}[op] },
		"write":          func(op string) (bool, error) { return op != "write", map[string]error{"write": broken}[op] },
		"write's answer": func(op string) (bool, error) { return true, map[string]error{"write": broken}[op] },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var said bytes.Buffer
				b := &board{}
				one, two := newPool(10), newPool(20)
				leave1 := run(t, "one", b, one, slog.New(slog.NewTextHandler(&said, nil)))
				leave2 := run(t, "two", b, two, nil)
				time.Sleep(2 * soon)
				b.mu.Lock()
				b.fault = fault
				b.mu.Unlock()
				time.Sleep(time.Hour) // while a member may be silent for a minute
				wantWorkers(t, "meanwhile", 2, one, two)
				synctest.Wait()
				if got := strings.Count(said.String(), "\n"); got != 1 || !strings.Contains(said.String(), "slow down") || !strings.Contains(said.String(), "level=WARN") {
					t.Errorf("logged meanwhile, want one warning:\n%s", said.String())
				}
				b.mu.Lock()
				b.fault = nil
				b.mu.Unlock()
				for range 100 {
					time.Sleep(time.Second)
					wantWorkers(t, "afterwards", 2, one, two)
				}
				if got := b.members(t); len(got) != 2 {
					t.Errorf("on the board afterwards: %q, want both", got)
				}
				leave1()
				leave2()
				if got := strings.Count(said.String(), "\n"); got != 2 || !strings.Contains(said.String(), "fleet in reach again") {
					t.Errorf("logged in all, want two lines:\n%s", said.String())
				}
				if got := b.members(t); len(got) != 0 {
					t.Errorf("on the board when all have left: %q", got)
				}
			})
		})
	}
}

func TestLeaveFromABrokenBoard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &board{}
		leave := run(t, "one", b, newPool(1), nil)
		time.Sleep(time.Second)
		b.mu.Lock()
		b.took = time.Hour
		b.mu.Unlock()
		start := time.Now()
		leave()
		if got := time.Since(start); got != 3*time.Second {
			t.Errorf("left after %v, want 3s", got)
		}
	})
}

// Of a record that is good in part nothing is believed.
func TestRecordGoodInPart(t *testing.T) {
	b, p := &board{}, newPool(10)
	b.set(`{"members":{"a":{"beat":1},"b":{"beat":"one"}}}`)
	fleet.New("me", b, p, nil).Exchange(t.Context(), time.Now())
	if got := b.members(t); !slices.Equal(got, []string{"me"}) {
		t.Errorf("on the board: %q, want me alone", got)
	}
	wantWorkers(t, "anew", 1, p)
}

// What a cancellation breaks off is no news.
func TestLeaveInAnExchange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var said bytes.Buffer
		b := &board{took: time.Second}
		leave := run(t, "one", b, newPool(1), slog.New(slog.NewTextHandler(&said, nil)))
		time.Sleep(500 * time.Millisecond)
		leave()
		if said.Len() > 0 {
			t.Errorf("logged, want nothing:\n%s", said.String())
		}
	})
}

func TestCorruptRecord(t *testing.T) {
	for _, data := range []string{"no JSON", "[]", "null", "{}", `{"members":{"x":{"lanes":{"no lane":{}}}}}`} {
		synctest.Test(t, func(t *testing.T) {
			b := &board{}
			b.set(data)
			one, two := newPool(10), newPool(20)
			fleet.New("one", b, one, nil).Exchange(t.Context(), time.Now())
			fleet.New("two", b, two, nil).Exchange(t.Context(), time.Now())
			if got := b.members(t); len(got) != 2 {
				t.Errorf("%s: then on the board: %q, want both", data, got)
			}
			wantWorkers(t, data, 2, two)
		})
	}
}

// The record is what the package's comment says.
func TestRecord(t *testing.T) {
	b := &board{}
	p := newPool(20.4)
	p.refused(3)
	m := fleet.New("me", b, p, nil)
	for range 7 {
		m.Exchange(t.Context(), time.Now())
	}
	const want = `{"members":{"me":{"beat":7,"lanes":{"us-west-2/org/m/flex":{"rate":20.4,"refusals":3}}}}}`
	if got := string(b.data); got != want {
		t.Errorf("record = %s, want %s", got, want)
	}
}

// What a fleet costs: two requests every 15 s and member, and less of many.
func TestRequests(t *testing.T) {
	for _, n := range []int{1, 2, 8, 40} {
		if testing.Short() && n > 8 {
			continue
		}
		synctest.Test(t, func(t *testing.T) {
			b := &board{took: 50 * time.Millisecond}
			var leave []func()
			var pools []*pool
			for i := range n {
				p := newPool(1)
				pools = append(pools, p)
				leave = append(leave, run(t, fmt.Sprint(i), b, p, nil))
				time.Sleep(time.Second)
			}
			time.Sleep(5 * time.Minute)
			b.mu.Lock()
			before, conflicts := b.reads+b.writes, b.lost
			b.mu.Unlock()
			time.Sleep(time.Hour)
			b.mu.Lock()
			requests, conflicts := b.reads+b.writes-before, b.lost-conflicts
			b.mu.Unlock()
			each := float64(requests) / 60 / float64(n)
			t.Logf("%d members: %.2f requests a minute each, %d conflicts in an hour", n, each, conflicts)
			if each > 9 || n > 30 && each > 7 || each < 2 {
				t.Errorf("%d members: %.2f requests a minute each, want 9 at most", n, each)
			}
			wantWorkers(t, "after an hour", n, pools...)
			for _, l := range leave {
				l()
			}
		})
	}
}

// Sets as pools: whatever each has believed, they end up with equal parts.
func TestSets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &board{}
		var sets []*throttle.Set
		for i := range 4 {
			set := throttle.NewSet(func(throttle.Lane) throttle.Config {
				return throttle.Config{Level: throttle.Level{Rate: float64(10 * (i + 1))}}
			})
			set.Limiter(lane)
			sets = append(sets, set)
			defer run(t, fmt.Sprint(i), b, set, nil)()
		}
		time.Sleep(5 * time.Minute)
		part := sets[0].Limiter(lane).State().Rate
		if part < 2.5 || part > 10 {
			t.Errorf("part of %v/s, want a quarter of 10/s to 40/s", part)
		}
		for _, set := range sets {
			if got := set.Limiter(lane).State().Rate; got < 0.99*part || got > 1.01*part {
				t.Errorf("parts of %v/s and %v/s, want equal ones", part, got)
			}
		}
	})
}
