package worker_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"upwell/jobs"
	"upwell/worker"
	"upwell/worker/workertest"
)

// Changes of one line that these tests have been seen to catch:
//
//   - fund: the reservation is not kept for the call, or not refunded
//   - afford: the money of another tier is taken for enough
//   - costOf: a lost call costs nothing, a refused one everything
//   - broke: an owing job is released, or waits for the end of the drain
//   - turnAway: news each time, no slower looks
//   - rest: no exit, or one while a call is in flight

// A till is a [worker.Purse] of one run, the other runs having no limit. It checks
// that it is used as it wants to be.
type till struct {
	t   *testing.T
	run string

	mu       sync.Mutex
	limit    jobs.USD
	spent    jobs.USD
	reserved jobs.USD
	out      int   // reservations
	err      error // of Reserve, instead of ErrParked
	slow     time.Duration
	unknown  bool // whether there is a budget
	settled  []string
}

func newTill(t *testing.T, limit jobs.USD) *till {
	t.Helper()
	return &till{t: t, run: "default", limit: limit}
}

func (p *till) Try(n worker.Need) (func(jobs.USD), bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n.Run == p.run && (!n.MostUSD.Known() || p.spent+p.reserved+n.MostUSD > p.limit+1e-9) {
		return nil, false
	}
	p.reserved += n.MostUSD
	p.out++
	var once sync.Once
	return func(spent jobs.USD) {
		fresh := false
		once.Do(func() { fresh = true })
		if !fresh {
			p.t.Error("a reservation was settled twice")
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		p.reserved -= n.MostUSD
		p.out--
		p.settled = append(p.settled, fmt.Sprintf("%.4g of %.4g", float64(spent), float64(n.MostUSD)))
		if !spent.Known() {
			spent = n.MostUSD
		}
		p.spent += spent
	}, true
}

func (p *till) Bounded(run string) bool { return run == p.run && !p.unknown }

func (p *till) Reserve(ctx context.Context, n worker.Need) (func(jobs.USD), error) {
	if settle, ok := p.Try(n); ok {
		return settle, nil
	}
	p.mu.Lock()
	slow, err := p.slow, p.err
	p.mu.Unlock()
	if err == nil {
		err = fmt.Errorf("%w: no money", worker.ErrParked)
	}
	select {
	case <-time.After(slow):
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	return nil, err
}

func (p *till) raise(limit jobs.USD) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.limit = limit
}

// done checks that nothing is set aside any more, and what was spent.
func (p *till) done(spent jobs.USD) {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.out != 0 || p.spent < spent-1e-9 || p.spent > spent+1e-9 {
		p.t.Errorf("%d reservations are not settled, and %v USD spent, want none and %v", p.out, p.spent, spent)
	}
}

// TestParked has money for ten of thirty jobs, and more an hour later.
func TestParked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := workertest.New(t)
		tr.Endpoint.Func = workertest.After(time.Second)
		p := newTill(t, 0.010)
		tr.Send(ids("j", 30)...)
		s, stop := start(t, tr, steady(1000), worker.Config{Purse: p, MaxAttempts: 1})
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		p.done(0.010)
		if got := len(s.of(worker.Stored)); got != 10 || tr.Queue.Len() != 20 || len(tr.Queue.Letters()) != 0 {
			t.Errorf("%d results, %d messages and %d letters when the money is spent, want 10, 20 and none", got, tr.Queue.Len(), len(tr.Queue.Letters()))
		}
		before := tr.Queue.Calls(workertest.Receive) + tr.Queue.Calls(workertest.Release)
		time.Sleep(time.Hour)
		if n := tr.Queue.Calls(workertest.Receive) + tr.Queue.Calls(workertest.Release) - before; n > 60*20*2+600 {
			t.Errorf("%d requests in an hour, want each of 20 messages looked at once or twice a minute", n)
		}
		if got := s.of(worker.Parked); len(got) != 1 || got[0].Key.Run != "default" || !errors.Is(got[0].Err, worker.ErrParked) {
			t.Errorf("events %+v, want one that the run is parked", got)
		}
		p.raise(1)
		time.Sleep(3 * time.Minute)
		stop()
		tr.Done(t)
		p.done(0.030)
		if n, u := tr.Endpoint.Total().Billed, len(s.of(worker.Unparked)); n != 30 || u != 1 {
			t.Errorf("%d calls billed, and %d events that the run goes on, want 30 and one", n, u)
		}
	})
}

// TestParkedLooksSeldom has a long queue of parked jobs: it is not read again and
// again.
func TestParkedLooksSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := workertest.New(t)
		tr.Send(ids("j", 3000)...)
		_, stop := start(t, tr, steady(1000), worker.Config{Purse: newTill(t, 0)})
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		before := tr.Queue.Calls(workertest.Receive)
		time.Sleep(time.Hour)
		if n := tr.Queue.Calls(workertest.Receive) - before; n < 55 || n > 65 {
			t.Errorf("%d requests for messages in an hour, want one a minute", n)
		}
		stop()
		if n := tr.Endpoint.Total().Calls; n != 0 || tr.Queue.Len() != 3000 {
			t.Errorf("%d calls and %d messages left, want none and 3000", n, tr.Queue.Len())
		}
	})
}

// TestOtherRunsGoOn has a parked run among others' jobs, which have their pace.
func TestOtherRunsGoOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := workertest.New(t)
		tr.Endpoint.Func = workertest.After(time.Second)
		for i := range 400 {
			tr.Send(fmt.Sprint("parked ", i))
			tr.Queue.Send(jobs.Message{Body: workertest.Line(fmt.Sprint("other ", i), `"run":"other"`)})
		}
		s, stop := start(t, tr, steady(20), worker.Config{Purse: newTill(t, 0)})
		time.Sleep(30 * time.Second) // of which 20 are the lane's
		synctest.Wait()
		stored := s.of(worker.Stored)
		stop()
		if len(stored) != 400 || tr.Queue.Len() != 400 {
			t.Errorf("%d results and %d messages left, want all 400 of the other run", len(stored), tr.Queue.Len())
		}
	})
}

// TestMoneyIsWaitedForWithNothingInHand has a purse that takes its time for one run.
// There is one slot, and the other run has it.
func TestMoneyIsWaitedForWithNothingInHand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := workertest.New(t)
		tr.Endpoint.Func = workertest.After(time.Second)
		p := newTill(t, 0)
		p.slow = time.Minute
		tr.Send("waits")
		for i := range 50 {
			tr.Queue.Send(jobs.Message{Body: workertest.Line(fmt.Sprint("other ", i), `"run":"other"`)})
		}
		s, stop := start(t, tr, steady(1), worker.Config{Purse: p, Slots: 1})
		time.Sleep(55 * time.Second)
		synctest.Wait()
		if n := len(s.of(worker.Stored)); n < 49 {
			t.Errorf("%d results of the other run in 55 s, want one a second", n)
		}
		for _, st := range s.limits.States() {
			if st.InFlight > 1 || st.Waiting > 1 {
				t.Errorf("%d permits are out, and %d wait for one, want at most those of the other run", st.InFlight, st.Waiting)
			}
		}
		stop()
	})
}

// TestExitWhenParked ends a worker whose work is done but for what there is no money
// for, and no other.
func TestExitWhenParked(t *testing.T) {
	for name, n := range map[string]int{"few": 7, "many": 2000} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tr := workertest.New(t)
				tr.Endpoint.Func = workertest.After(5 * time.Minute)
				tr.Send(ids("j", n)...)
				p := newTill(t, 0.002)
				s := newSubject(t, tr, steady(1000), worker.Config{Purse: p, ExitWhenEmpty: true})
				began := time.Now()
				err := s.Run(t.Context())
				if took := time.Since(began); !errors.Is(err, worker.ErrParked) || took < 5*time.Minute || took > 6*time.Minute {
					t.Errorf("Run = %v after %v, want that the run is parked, soon after the two calls of 5m that there was money for", err, took)
				}
				tr.Check(t)
				p.done(0.002)
				if got := tr.Queue.Len(); got != n-2 || tr.Queue.Held() != 0 {
					t.Errorf("%d messages are left, and %d held, want %d and none", got, tr.Queue.Held(), n-2)
				}
			})
		})
	}
}

// TestExitLooksAround does not exit before it has looked for other runs' jobs for a
// while.
func TestExitLooksAround(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := workertest.New(t)
		tr.Send(ids("j", 300)...)
		time.AfterFunc(8*time.Second, func() {
			tr.Queue.Send(jobs.Message{Body: workertest.Line("late", `"run":"other"`)})
		})
		s := newSubject(t, tr, steady(1000), worker.Config{Purse: newTill(t, 0), ExitWhenEmpty: true})
		if err := s.Run(t.Context()); !errors.Is(err, worker.ErrParked) || !strings.Contains(err.Error(), "run default") {
			t.Errorf("Run = %v, want that the run is parked, and which", err)
		}
		if n := len(s.of(worker.Stored)); n != 1 {
			t.Errorf("%d results, want that of the job that came after 8s", n)
		}
	})
}

// TestExitIsNotForTrouble does not take a purse that cannot tell for an empty one.
func TestExitIsNotForTrouble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := workertest.New(t)
		tr.Send("a")
		p := newTill(t, 0)
		p.err = errors.New("the board is broken")
		time.AfterFunc(10*time.Minute, func() { p.raise(1) })
		s := run(t, tr, worker.Config{Purse: p, ExitWhenEmpty: true}, time.Hour)
		tr.Done(t)
		if n := len(s.of(worker.Parked)); n != 0 {
			t.Errorf("%d events that the run is parked, want none: nobody knows", n)
		}
	})
}

// TestSettled says what each kind of end makes of what was set aside.
func TestSettled(t *testing.T) {
	answered := func(kind worker.Kind, class jobs.Class) error {
		e := workertest.Fail(kind, 200, 0)
		e.Class, e.Answer = class, &worker.Answer{CostUSD: 0.004}
		return e
	}
	unpriced := workertest.Answer(worker.Call{Job: &jobs.Job{Body: []byte(`{}`)}})
	unpriced.CostUSD = jobs.UnknownUSD()
	for name, tc := range map[string]struct {
		err  error
		ans  *worker.Answer
		want string
	}{
		"answered":          {nil, nil, "0.001 of 0.01"},
		"price unknown":     {nil, &unpriced, "NaN of 0.01"},
		"throttled":         {workertest.Fail(worker.Throttled, 429, 0), nil, "0 of 0.01"},
		"no capacity":       {workertest.Fail(worker.Unavailable, 503, 0), nil, "0 of 0.01"},
		"bad credential":    {workertest.Fail(worker.Unauthorized, 401, 0), nil, "0 of 0.01"},
		"bad request":       {&worker.Error{Kind: worker.Permanent, Class: jobs.BadRequest, Err: errors.New("no")}, nil, "0 of 0.01"},
		"refused":           {answered(worker.Permanent, jobs.Refused), nil, "0.004 of 0.01"},
		"empty answer":      {answered(worker.Transient, ""), nil, "0.004 of 0.01"},
		"connection lost":   {errors.New("reset"), nil, "NaN of 0.01"},
		"never sent":        {&worker.Error{Kind: worker.Transient, Unsent: true, Err: errors.New("connection refused")}, nil, "0 of 0.01"},
		"failed over there": {workertest.Fail(worker.Transient, 500, 0), nil, "0 of 0.01"},
		"gateway's time":    {workertest.Fail(worker.Transient, 504, 0), nil, "NaN of 0.01"},
		"gateway's trouble": {workertest.Fail(worker.Transient, 502, 0), nil, "NaN of 0.01"},
		"endpoint's time":   {workertest.Fail(worker.Transient, 408, 0), nil, "NaN of 0.01"},
		"no answer in 200":  {workertest.Fail(worker.Transient, 200, 0), nil, "NaN of 0.01"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tr := workertest.New(t)
				tr.Extra = 1 // an empty answer
				tr.Endpoint.Most = func(worker.Call) jobs.USD { return 0.01 }
				first := true
				tr.Endpoint.Func = func(_ context.Context, c worker.Call) (worker.Answer, error) {
					if first {
						first = false
						if tc.ans != nil {
							return *tc.ans, nil
						}
						if tc.err != nil {
							return worker.Answer{}, tc.err
						}
					}
					return workertest.Answer(c), nil
				}
				tr.Send("a")
				p := newTill(t, 10)
				run(t, tr, worker.Config{Purse: p}, 10*time.Minute)
				tr.Done(t)
				if len(p.settled) == 0 || p.settled[0] != tc.want || p.out != 0 {
					t.Errorf("settled %q, with %d left, want the first to be %q", p.settled, p.out, tc.want)
				}
			})
		})
	}
}

// TestOwedAnswer has money for the first call of a job, and none for the repair: it
// is held, and mended when there is some.
func TestOwedAnswer(t *testing.T) {
	for _, tc := range []struct {
		name   string
		raise  bool
		class  jobs.Class
		billed int
	}{{"raised", true, "", 2}, {"stopped", false, jobs.SchemaFailed, 1}} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tr := workertest.New(t)
				tr.Endpoint.Func = func(_ context.Context, c worker.Call) (worker.Answer, error) {
					if c.Flaw == nil {
						return worker.Answer{}, wrong(c, 1)
					}
					return workertest.Answer(c), nil
				}
				tr.Send("a")
				p := newTill(t, 0.001)
				s, stop := start(t, tr, steady(1000), worker.Config{Purse: p})
				time.Sleep(time.Hour)
				synctest.Wait()
				if !tr.Queue.Holds("m1") || len(s.of(worker.Released)) > 0 {
					t.Error("the message is not held, want it to be until there is money")
				}
				if tc.raise {
					p.raise(1)
					time.Sleep(2 * time.Minute)
				}
				began := time.Now()
				stop()
				if took := time.Since(began); took > 2*time.Second {
					t.Errorf("the drain took %v, want it not to wait for money", took)
				}
				tr.Done(t)
				if n := tr.Endpoint.Total().Billed; n != tc.billed {
					t.Errorf("%d calls billed, want %d", n, tc.billed)
				}
				letters := tr.Queue.Letters()
				if tc.class == "" {
					if len(letters) != 0 || len(s.of(worker.Stored)) != 1 {
						t.Errorf("letters %+v, want a result", letters)
					}
					return
				}
				if len(letters) != 1 || letters[0].Class != tc.class || !strings.Contains(letters[0].Reason, "no money") {
					t.Errorf("letters %+v, want one of class %s that says why", letters, tc.class)
				}
				k := jobs.Key{Run: "default", CustomID: "a"}
				if r, ok, err := tr.Sink.Failure(t.Context(), k); !ok || err != nil || r.Response == nil {
					t.Errorf("error line %+v, %v, want one with the answer that was paid for", r, err)
				}
			})
		})
	}
}

// TestExitWithAnOwedAnswer does not wait for money when it is to exit.
func TestExitWithAnOwedAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := workertest.New(t)
		tr.Endpoint.Func = func(_ context.Context, c worker.Call) (worker.Answer, error) { return worker.Answer{}, wrong(c, 1) }
		tr.Send("a")
		s := newSubject(t, tr, steady(1000), worker.Config{Purse: newTill(t, 0.001), ExitWhenEmpty: true})
		began := time.Now()
		if err := s.Run(t.Context()); !errors.Is(err, worker.ErrParked) || time.Since(began) > time.Minute {
			t.Errorf("Run = %v after %v, want that the run is parked, soon", err, time.Since(began))
		}
		tr.Done(t)
	})
}

// TestDearerTier sets more aside when a job moves up a tier.
func TestDearerTier(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := workertest.New(t)
		tr.Endpoint.Most = func(c worker.Call) jobs.USD {
			if c.Lane.Tier == "flex" {
				return 0.01
			}
			return 0.03
		}
		tr.Endpoint.Func = func(_ context.Context, c worker.Call) (worker.Answer, error) {
			if c.Lane.Tier == "flex" {
				return worker.Answer{}, workertest.Fail(worker.Unavailable, 503, 0)
			}
			return workertest.Answer(c), nil
		}
		tr.Queue.Send(jobs.Message{Body: workertest.Line("a", fmt.Sprintf(
			`"tiers":["flex","default"],"deadline":%q`, time.Now().Add(30*time.Minute).Format(time.RFC3339)))})
		p := newTill(t, 1)
		run(t, tr, worker.Config{Purse: p}, time.Hour)
		tr.Done(t)
		last := p.settled[len(p.settled)-1]
		if last != "0.001 of 0.03" || p.settled[0] != "0 of 0.01" {
			t.Errorf("settled %q, want flex's and then the other tier's", p.settled)
		}
		p.done(0.001)
	})
}

// TestDearerTierInLine has a job that has waited for the money of a tier, and moves up
// before it can be called: that money is not enough.
func TestDearerTierInLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, p := climb(t, 0.03, workertest.Answer)
		got := fmt.Sprint(p.settled)
		if n := len(s.of(worker.Stored)); n != 1 || !strings.HasSuffix(got, "0 of 0.01 0.001 of 0.03]") {
			t.Errorf("%d results, and settled %s: want one, flex's money refunded, and then the other tier's", n, got)
		}
		p.done(0.001)
	})
}

// climb has a job wait for the money of flex, which is 0.01 a call, and move up before
// it can be called, to a tier that costs next and answers so.
func climb(t *testing.T, next jobs.USD, answer func(worker.Call) worker.Answer) (*subject, *till) {
	t.Helper()
	tr := workertest.New(t)
	tr.Endpoint.Most = func(c worker.Call) jobs.USD {
		if c.Lane.Tier == "flex" {
			return 0.01
		}
		return next
	}
	tr.Endpoint.Func = func(_ context.Context, c worker.Call) (worker.Answer, error) {
		if c.Lane.Tier == "flex" {
			return worker.Answer{}, workertest.Fail(worker.Unavailable, 503, 3*time.Hour)
		}
		return answer(c), nil
	}
	p := newTill(t, 0)
	line := func(run string, deadline time.Duration) []byte {
		return workertest.Line("a", fmt.Sprintf(`"run":%q,"tiers":["flex","default"],"deadline":%q`,
			run, time.Now().Add(deadline).Format(time.RFC3339)))
	}
	tr.Queue.Send(jobs.Message{Body: line("default", 20*time.Minute)})
	s, stop := start(t, tr, steady(1000), worker.Config{Purse: p})
	time.Sleep(2 * time.Minute) // the run is short of money now
	tr.Queue.Send(jobs.Message{Body: line("other", 10*time.Hour)})
	time.Sleep(5 * time.Minute) // flex is closed, and the deadline near
	p.raise(1)
	time.Sleep(3 * time.Minute)
	stop()
	return s, p
}

// TestUnknownPrice says which model nobody knows the price of.
func TestUnknownPrice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := workertest.New(t)
		tr.Endpoint.Most = func(worker.Call) jobs.USD { return jobs.UnknownUSD() }
		tr.Send("a")
		s, stop := start(t, tr, steady(1000), worker.Config{Purse: newTill(t, 1)})
		time.Sleep(time.Minute)
		stop()
		got := s.of(worker.Parked)
		if len(got) != 1 || !strings.HasSuffix(got[0].Err.Error(), "model m on tier default") || tr.Endpoint.Total().Calls != 0 {
			t.Errorf("events %+v, and %d calls, want one that names model and tier, and none", got, tr.Endpoint.Total().Calls)
		}
	})
}

// TestMoneyComesBack refunds a job that gets its money and is turned away all the
// same, as its lane has closed meanwhile.
func TestMoneyComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := workertest.New(t)
		tr.Endpoint.Func = func(context.Context, worker.Call) (worker.Answer, error) {
			return worker.Answer{}, workertest.Fail(worker.Unavailable, 503, time.Hour)
		}
		p := newTill(t, 0)
		tr.Send("a")
		_, stop := start(t, tr, steady(1000), worker.Config{Purse: p})
		time.Sleep(2 * time.Minute) // the run is short of money now
		tr.Queue.Send(jobs.Message{Body: workertest.Line("b", `"run":"other"`)})
		time.Sleep(2 * time.Minute) // and the lane closed
		p.raise(0.001)
		time.Sleep(5 * time.Minute)
		stop()
		p.done(0)
		if n := len(p.settled); n < 2 || tr.Endpoint.Total().Calls != 1 {
			t.Errorf("%d reservations were made, and %d calls, want some that came back, and the call of the other run", n, tr.Endpoint.Total().Calls)
		}
	})
}
