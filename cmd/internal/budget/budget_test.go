package budget_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"upwell/cmd/internal/budget"
	"upwell/jobs"
	"upwell/worker"
)

// Changes of one line that these tests have been seen to catch:
//
//   - free: writes whose outcome nobody knows, what is spent, or what is set aside are
//     left out
//   - learn: a write that was done is not recognised, or one that may still be done is
//     forgotten; what was spent without a budget is counted later
//   - plan: this worker's own grant counts twice, or what is spent is not reported
//   - extra: one worker takes all, no end at the limit, no growth, nothing is given back
//   - take, wait: who needs little, or owes nothing, goes first
//   - hopeless: each call asks the board, or a refusal is believed for ever
//   - settling: a lost call costs nothing; Run: no farewell; conclude: waits go on in vain

func need(most jobs.USD) worker.Need { return worker.Need{Run: "r", MostUSD: most} }

// A ledger is the other end's: what calls are billed.
type ledger struct {
	t     *testing.T
	limit float64

	mu     sync.Mutex
	billed float64
}

func (l *ledger) bill(cost float64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.billed += cost; l.billed > l.limit+1e-6 {
		l.t.Errorf("%v USD are billed, want at most the limit of %v", l.billed, l.limit)
	}
}

func (l *ledger) sum() float64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.billed
}

// A spender makes calls until its run is parked.
type spender struct {
	ledger *ledger
	purse  *budget.Purse
	end    func()
	line   *line
	most   float64 // of the dearest call
	lose   float64 // share of calls whose bill is lost
	spare  float64 // what a call to mend an answer may cost, in calls
}

// call makes one call, whose price it draws, and reports whether there was money.
func (s *spender) call(ctx context.Context, r *rand.Rand) error {
	n := need(jobs.USD(s.most * (0.2 + 0.8*r.Float64())))
	n.Owing = r.IntN(10) == 0
	n.SpareUSD = jobs.USD(s.spare) * n.MostUSD
	settle, ok := s.purse.Try(n)
	if !ok {
		var err error
		if settle, err = s.purse.Reserve(ctx, n); err != nil {
			return err
		}
	}
	cost := float64(n.MostUSD) * r.Float64() * r.Float64()
	if r.IntN(20) == 0 {
		cost = float64(n.MostUSD)
	}
	s.ledger.bill(cost)
	<-time.After(time.Duration(50+r.IntN(4000)) * time.Millisecond)
	switch {
	case s.line.down(): // nobody is there any more
	case r.Float64() < s.lose:
		settle(jobs.UnknownUSD())
	default:
		settle(jobs.USD(cost))
	}
	return nil
}

// work has so many calls in flight, until the run has been parked for as long as that.
func (s *spender) work(ctx context.Context, seed uint64, calls int, long time.Duration) {
	var working sync.WaitGroup
	for i := range calls {
		working.Go(func() {
			r := rand.New(rand.NewPCG(seed, uint64(i)))
			since := time.Now()
			for time.Since(since) < long && !s.line.down() {
				if err := s.call(ctx, r); err == nil {
					since = time.Now()
				} else {
					<-time.After(time.Duration(5+r.IntN(20)) * time.Second)
				}
			}
		})
	}
	working.Wait()
}

// TestBound is the promise of this package, against random workers, calls, boards in
// bad weather and kills: the run is never billed more than its limit.
func TestBound(t *testing.T) {
	for seed := range uint64(60) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := rand.New(rand.NewPCG(seed, 7))
				limit := 1 + 50*r.Float64()*r.Float64()
				b := &board{t: t}
				b.set(jobs.USD(limit))
				bad := []float64{0, 0.1, 0.4}[seed%3]
				b.turn(weather(rand.New(rand.NewPCG(seed, 8)), bad))
				l := &ledger{t: t, limit: limit}
				most := limit * []float64{0.001, 0.02, 0.3}[seed/3%3]
				lose := []float64{0, 0.05}[seed/9%2]
				spare := []float64{0, 2}[seed%2]
				kill := seed/18%2 == 1
				all := make([]*spender, 4)
				var working sync.WaitGroup
				for i := range all {
					s := &spender{ledger: l, line: &line{board: b}, most: most, lose: lose, spare: spare}
					all[i] = s
					s.purse, s.end = open(t, fmt.Sprint("w", i), s.line)
					capacity := []int{1, 8, 40, 40}[r.IntN(4)]
					working.Go(func() { s.work(t.Context(), seed*4+uint64(i), capacity, 3*time.Minute) })
				}
				if kill {
					for _, s := range all[:2] {
						time.AfterFunc(time.Duration(r.IntN(40_000))*time.Millisecond, s.line.kill)
					}
				}
				working.Wait()
				b.turn(nil)
				for _, s := range all {
					s.end()
				}
				b.late.Wait()
				rec := b.look()
				if lost := rec.Limit - l.sum() - rec.Presumed - rec.granted(); lost > most*(1+spare)+1e-6 {
					t.Errorf("%v of %v USD were not spent, and %v are reserved: want less than a call needs, which is up to %v",
						lost, limit, rec.granted(), most*(1+spare))
				}
				switch granted := rec.granted(); {
				case !kill && granted > 0:
					t.Errorf("%v are still granted, want all given back", rec.Grants)
				case !kill && math.Abs(rec.Spent-rec.Presumed-l.sum()) > 1e-5 && lose == 0:
					t.Errorf("the board says %v USD spent, want the %v that were billed", rec.Spent, l.sum())
				case granted > limit*0.6+8*most:
					t.Errorf("two workers that were killed hold %v of %v USD, want a small part", granted, limit)
				}
			})
		})
	}
}

// TestSmall says what to do about a budget that no call fits in.
func TestSmall(t *testing.T) {
	budgeted(t, 0.05, func(t *testing.T, _ *board, p *budget.Purse) {
		_, err := p.Reserve(t.Context(), need(0.1))
		if want := "less than one call may take, which is $0.10"; !errors.Is(err, worker.ErrParked) || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "--max-output-tokens") {
			t.Errorf("Reserve = %v, want %q, and what to do", err, want)
		}
	})
}

// TestRaise parks a run, and raises its budget.
func TestRaise(t *testing.T) {
	budgeted(t, 1, func(t *testing.T, b *board, p *budget.Purse) {
		for range 10 {
			settle, err := p.Reserve(t.Context(), need(0.1))
			if err != nil {
				t.Fatalf("Reserve = %v, want money", err)
			}
			settle(0.1)
		}
		_, err := p.Reserve(t.Context(), need(0.1))
		if !errors.Is(err, worker.ErrParked) || !strings.Contains(err.Error(), "raise it with --budget") {
			t.Fatalf("Reserve = %v, want that the run is parked, and what to do", err)
		}
		if r := b.look(); r.Parked == nil || r.Spent != 1 {
			t.Errorf("the board says %+v, want that the run is parked with 1 USD spent", r)
		}
		before := b.requests()
		for range 10 {
			if _, err := p.Reserve(t.Context(), need(0.1)); !errors.Is(err, worker.ErrParked) {
				t.Errorf("Reserve = %v, want that the run is parked", err)
			}
		}
		if n := b.requests() - before; n > 0 {
			t.Errorf("%d requests for ten calls within a moment, want what is known to do", n)
		}
		b.set(2)
		<-time.After(time.Minute)
		settle, err := p.Reserve(t.Context(), need(0.1))
		if err != nil {
			t.Fatalf("Reserve = %v a minute after the budget was raised, want money", err)
		}
		settle(0.1)
		if r := b.look(); r.Parked != nil {
			t.Errorf("the board says %+v, want that the run is not parked", r)
		}
	})
}

// TestCallsInFlight has the money bound by a call that costs little in the end: who
// needs it waits for that, and nobody is parked.
func TestCallsInFlight(t *testing.T) {
	budgeted(t, 1, func(t *testing.T, _ *board, p *budget.Purse) {
		settle := reserve(t, p, need(0.9))
		if _, ok := p.Try(need(0.9)); ok {
			t.Error("Try = true, want false as the money is set aside")
		}
		time.AfterFunc(5*time.Second, func() { settle(0.01) })
		start := time.Now()
		second, err := p.Reserve(t.Context(), need(0.9))
		if took := time.Since(start); err != nil || took < 4*time.Second || took > 6*time.Second {
			t.Fatalf("Reserve = %v after %v, want money after 5s", err, took)
		}
		_, err = p.Reserve(t.Context(), need(0.9))
		if err == nil || errors.Is(err, worker.ErrParked) {
			t.Errorf("Reserve = %v while a call that holds the money takes long, want an error that passes", err)
		}
		second(0.01)
	})
}

// TestOwing lets a job that has been paid for go first.
func TestOwing(t *testing.T) {
	budgeted(t, 1, func(t *testing.T, _ *board, p *budget.Purse) {
		settle := reserve(t, p, need(0.9))
		var mu sync.Mutex
		var order []string
		var waiting sync.WaitGroup
		for i, name := range []string{"first", "owing"} {
			<-time.After(time.Second)
			waiting.Go(func() {
				s, err := p.Reserve(t.Context(), worker.Need{Run: "r", MostUSD: 0.9, Owing: i == 1})
				if err != nil {
					t.Errorf("Reserve for the %s = %v, want money", name, err)
					return
				}
				mu.Lock()
				order = append(order, name)
				mu.Unlock()
				<-time.After(time.Second)
				s(0)
			})
		}
		<-time.After(time.Second)
		settle(0)
		waiting.Wait()
		if got := fmt.Sprint(order); got != "[owing first]" {
			t.Errorf("money went to %s, want [owing first]", got)
		}
	})
}

// TestInTurn has somebody wait for more than there is: who needs little does not take
// it away.
func TestInTurn(t *testing.T) {
	budgeted(t, 1, func(t *testing.T, _ *board, p *budget.Purse) {
		var settles []func(jobs.USD)
		for _, most := range []jobs.USD{0.5, 0.4} {
			settle, err := p.Reserve(t.Context(), need(most))
			if err != nil {
				t.Fatal(err)
			}
			settles = append(settles, settle)
		}
		time.AfterFunc(5*time.Second, func() {
			settles[0](0)
			if _, ok := p.Try(need(0.05)); ok {
				t.Error("Try of a little = true while somebody waits for more, want each in turn")
			}
			settles[1](0)
		})
		settle, err := p.Reserve(t.Context(), need(0.9))
		if err != nil {
			t.Fatalf("Reserve = %v, want what comes back", err)
		}
		settle(0)
	})
}

// TestSpare leaves what it takes to mend an answer to those who have one to mend.
func TestSpare(t *testing.T) {
	budgeted(t, 1, func(t *testing.T, _ *board, p *budget.Purse) {
		n := worker.Need{Run: "r", MostUSD: 0.1, SpareUSD: 0.4}
		calls := 0
		for {
			settle, err := p.Reserve(t.Context(), n)
			if err != nil {
				if !errors.Is(err, worker.ErrParked) || !strings.Contains(err.Error(), "$0.50 are left") && !strings.Contains(err.Error(), "$0.40 are left") {
					t.Errorf("Reserve = %v, want that the run is parked, with as much left as mending takes", err)
				}
				break
			}
			settle(0.1)
			calls++
		}
		if calls != 6 {
			t.Errorf("%d calls of 0.1 USD, want 6: four more are for mending", calls)
		}
		settle, err := p.Reserve(t.Context(), worker.Need{Run: "r", MostUSD: 0.4, Owing: true})
		if err != nil {
			t.Fatalf("Reserve for who owes = %v, want money", err)
		}
		settle(0.2)
	})
}

// TestFragments has two workers with a part each of what one call needs: they do not
// hold on to it.
func TestFragments(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &board{t: t}
		b.set(1)
		var purses []*budget.Purse
		for i := range 2 {
			p, end := open(t, fmt.Sprint("w", i), b)
			defer end()
			purses = append(purses, p)
			for range 4 {
				settle, err := p.Reserve(t.Context(), need(0.05))
				if err != nil {
					t.Fatal(err)
				}
				settle(0.01)
			}
		}
		var err error
		for range 10 {
			var settle func(jobs.USD)
			if settle, err = purses[0].Reserve(t.Context(), need(0.9)); err == nil {
				settle(0)
				return
			}
			<-time.After(time.Minute)
		}
		t.Errorf("Reserve of 0.9 of the 0.92 USD left = %v, want money once the other worker is idle", err)
	})
}

// TestOutOfReach never spends without a grant, and never takes a broken board for the
// end of the budget.
func TestOutOfReach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &board{t: t}
		b.set(100)
		b.turn(func(string) fault { return fault{took: time.Millisecond, undone: true, err: errBoard} })
		p, end := open(t, "w", b)
		defer end()
		for range 5 {
			_, err := p.Reserve(t.Context(), need(0.1))
			if err == nil || errors.Is(err, worker.ErrParked) {
				t.Fatalf("Reserve = %v, want an error that passes", err)
			}
			<-time.After(time.Second)
		}
		b.turn(nil)
		<-time.After(time.Minute)
		settle, err := p.Reserve(t.Context(), need(0.1))
		if err != nil {
			t.Fatalf("Reserve = %v when the board is back, want money", err)
		}
		settle(0.1)

		// What is granted already may be spent, and no more.
		b.turn(func(string) fault { return fault{took: time.Millisecond, undone: true, err: errBoard} })
		granted, spent := b.look().granted(), 0.1
		for {
			settle, err := p.Reserve(t.Context(), need(0.1))
			if err != nil {
				break
			}
			settle(0.1)
			spent += 0.1
		}
		if spent > granted+0.1+1e-9 {
			t.Errorf("%v USD spent with the board out of reach, want the %v of the grant", spent, granted)
		}
		b.turn(nil)
	})
}

// TestNoBudget asks once a minute, and nobody waits for that.
func TestNoBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &board{t: t}
		p, end := open(t, "w", b)
		defer end()
		spend := func(long time.Duration) {
			for range int(long / time.Second) {
				settle, err := p.Reserve(t.Context(), need(jobs.UnknownUSD()))
				if err != nil {
					t.Fatalf("Reserve = %v, want no limit", err)
				}
				<-time.After(time.Second)
				settle(0.25)
			}
		}
		spend(10 * time.Minute)
		if n := b.requests(); n < 9 || n > 11 {
			t.Errorf("%d requests in ten minutes without a budget, want one a minute", n)
		}
		// A budget that comes later is seen, and what was spent meanwhile is counted.
		if _, err := budget.Set(t.Context(), b, 200, func(context.Context) (jobs.USD, error) { return 150, nil }); err != nil {
			t.Fatal(err)
		}
		for range 70 {
			if settle, err := p.Reserve(t.Context(), need(0.25)); err == nil {
				<-time.After(time.Second)
				settle(0.25)
			}
		}
		<-time.After(20 * time.Second)
		if r := b.look(); r.Spent < 167.5 || r.Spent > 150+17.5+15.5 {
			t.Errorf("%v USD are spent a minute after a budget was set, want 150, the 17.50 since, and at most a minute more", r.Spent)
		}
		if _, err := p.Reserve(t.Context(), need(jobs.UnknownUSD())); !errors.Is(err, worker.ErrParked) || !strings.Contains(err.Error(), "--prices") {
			t.Errorf("Reserve of nobody knows how much = %v, want that the run is parked, and what to do", err)
		}
		settle, err := p.Reserve(t.Context(), need(0.25))
		if err != nil {
			t.Errorf("Reserve of a call whose price is known = %v, want money", err)
		} else {
			settle(0)
		}
	})
}

// TestRequests makes a call each tenth of a second for an hour: that takes few
// requests.
func TestRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &board{t: t}
		b.set(1000)
		p, end := open(t, "w", b)
		var calls sync.WaitGroup
		for range 36_000 {
			calls.Go(func() {
				settle, err := p.Reserve(t.Context(), need(0.1))
				if err != nil {
					t.Errorf("Reserve = %v, want money", err)
					return
				}
				<-time.After(time.Second)
				settle(0.005)
			})
			<-time.After(time.Second / 10)
		}
		calls.Wait()
		if n := b.requests(); n > 900 {
			t.Errorf("%d requests in an hour, want some twelve a minute", n)
		}
		if r := b.look(); r.Spent < 178 || r.granted() > 20 {
			t.Errorf("the board says %+v, want nearly all of the 180 USD spent reported, and a small grant", r)
		}
		end()
		if r := b.look(); math.Abs(r.Spent-180) > 1e-6 || len(r.Grants) > 0 {
			t.Errorf("the board says %+v, want 180 USD spent and nothing granted", r)
		}
	})
}

// TestIdle gives back what a worker without calls has no use for, while it runs.
func TestIdle(t *testing.T) {
	budgeted(t, 100, func(t *testing.T, b *board, p *budget.Purse) {
		settle := reserve(t, p, need(1))
		settle(0.5)
		<-time.After(2 * time.Minute)
		if r := b.look(); r.granted() != 0 || r.Spent != 0.5 {
			t.Errorf("the board says %+v after two idle minutes, want 0.5 USD spent and nothing granted", r)
		}
	})
}

// TestUncertain has nobody know whether money was given back, and needs it again: the
// next write says so, and nobody waits for long.
func TestUncertain(t *testing.T) {
	budgeted(t, 100, func(t *testing.T, b *board, p *budget.Purse) {
		reserve(t, p, need(0.1))(0)
		b.turn(func(op string) fault {
			if op == "write" {
				return fault{undone: true, err: errBoard}
			}
			return fault{}
		})
		<-time.After(50 * time.Second)
		b.turn(nil)
		start := time.Now()
		settle, err := p.Reserve(t.Context(), need(0.1))
		if err != nil || time.Since(start) > 5*time.Second {
			t.Fatalf("Reserve = %v after %v, want money within seconds", err, time.Since(start))
		}
		settle(0)
	})
}

// TestLower takes back what is granted and not set aside.
func TestLower(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &board{t: t, lowered: true}
		b.set(100)
		p, end := open(t, "w", b)
		defer end()
		settle := reserve(t, p, need(1))
		b.set(0)
		<-time.After(20 * time.Second)
		if got := b.look().granted(); got != 1 {
			t.Errorf("%v USD are granted after the limit was lowered, want the 1 of the call in flight", got)
		}
		settle(0.2)
		<-time.After(20 * time.Second)
		if _, err := p.Reserve(t.Context(), need(0.1)); !errors.Is(err, worker.ErrParked) {
			t.Errorf("Reserve = %v, want that the run is parked", err)
		}
	})
}

// TestBadRecord spends nothing on the strength of a record that cannot be read.
func TestBadRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &board{t: t}
		b.text = `{"limit_usd":` // nobody else is there yet
		defer b.turn(nil)
		b.turn(func(string) fault { return fault{} })
		p, end := open(t, "w", b)
		defer end()
		if _, err := p.Reserve(t.Context(), need(1)); err == nil || !strings.Contains(err.Error(), "set the budget again") {
			t.Errorf("Reserve = %v, want what to do about the record", err)
		}
	})
}

func TestSet(t *testing.T) {
	b := &board{t: t, lowered: true, fault: func(string) fault { return fault{} }}
	asked := 0
	spent := func(context.Context) (jobs.USD, error) { asked++; return 1.5, nil }
	for _, limit := range []jobs.USD{2, 2, 10, 1} {
		s, err := budget.Set(t.Context(), b, limit, spent)
		if err != nil || s.LimitUSD != limit || s.SpentUSD != 1.5 {
			t.Errorf("Set(%v) = %+v, %v, want that limit and 1.5 spent", limit, s, err)
		}
		if l, err := budget.Look(t.Context(), b); err != nil || l.LimitUSD != limit {
			t.Errorf("Look = %+v, %v, want the limit %v", l, err, limit)
		}
	}
	if asked != 1 || b.writes != 3 {
		t.Errorf("asked %d times what the run has cost, and wrote %d times, want once and 3 times", asked, b.writes)
	}
	if s, err := budget.Look(t.Context(), &board{t: t}); s != nil || err != nil {
		t.Errorf("Look at no budget = %v, %v, want neither", s, err)
	}
}

// TestSetAtOnce has many set a budget, while others write: one of the limits stays,
// and what the run has cost is there once.
func TestSetAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &board{t: t}
		var setting sync.WaitGroup
		for i := range 6 {
			setting.Go(func() {
				if _, err := budget.Set(t.Context(), b, jobs.USD(10+i), func(context.Context) (jobs.USD, error) { return 3, nil }); err != nil {
					t.Error(err)
				}
			})
		}
		setting.Wait()
		if r := b.look(); r.Limit < 10 || r.Limit > 15 || r.Spent != 3 {
			t.Errorf("the board says %+v, want one of the limits and 3 USD spent", r)
		}
	})
}

func TestParseUSD(t *testing.T) {
	for s, want := range map[string]jobs.USD{
		"200usd": 200, "200 USD": 200, "$200": 200, "200": 200, " 0.25 usd ": 0.25, "USD 12.50": 12.5, "200$": 200, "0": 0,
	} {
		if got, err := budget.ParseUSD(s); err != nil || got != want {
			t.Errorf("ParseUSD(%q) = %v, %v, want %v", s, got, err, want)
		}
	}
	for _, s := range []string{"", "usd", "-1", "1e3", "200eur", "1,000", "1.", ".5", "NaN", "99999999999"} {
		if got, err := budget.ParseUSD(s); err == nil || !strings.Contains(err.Error(), "200usd") {
			t.Errorf("ParseUSD(%q) = %v, %v, want an error that shows how", s, got, err)
		}
	}
}

func TestStatusString(t *testing.T) {
	since := time.Date(2026, 3, 4, 5, 6, 7, 0, time.Local)
	for want, s := range map[string]budget.Status{
		"$12.40 of $200.00 (reserved $1.20)": {LimitUSD: 200, SpentUSD: 12.4, ReservedUSD: 1.2},
		"$0.0123 of $1.00 (reserved $0.00; $0.0100 of the spent is for calls whose bill nobody saw), parked since 2026-03-04 05:06:07: a call may cost $1.00": {
			LimitUSD: 1, SpentUSD: 0.0123, PresumedUSD: 0.01, ParkedSince: &since, ParkedWhy: "a call may cost $1.00",
		},
	} {
		if got := s.String(); got != want {
			t.Errorf("String = %q, want %q", got, want)
		}
	}
}
