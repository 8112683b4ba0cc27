package worker_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"upwell/jobs"
	"upwell/throttle"
	"upwell/worker"
	"upwell/worker/workertest"
)

// TestALaneNobodyKnowsIsFound has the only lane known closed for an hour, and then
// work for another.
func TestALaneNobodyKnowsIsFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := workertest.New(t)
		for _, id := range ids("closed", 30) {
			tr.Queue.Send(model(id, "one"))
		}
		opens := time.Now().Add(time.Hour)
		var j journal
		tr.Endpoint.Func = j.note(script(func(_ int, c worker.Call) error {
			if left := time.Until(opens); c.Job.Model == "one" && left > 0 {
				return workertest.Fail(worker.Unavailable, 503, left)
			}
			return nil
		}))
		s, stop := start(t, tr, steady(1000), worker.Config{MaxReceives: 2})
		time.Sleep(10 * time.Minute)
		for _, id := range ids("new", 30) {
			tr.Queue.Send(model(id, "two"))
		}
		sent, before := time.Now(), tr.Queue.Calls(workertest.Receive)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		tr.Check(t)
		for _, id := range ids("new", 30) {
			if at := j.of(id); len(at) != 1 || at[0].Sub(sent) > 70*time.Second {
				t.Errorf("job %s, sent %v, was called at %v, want within about a minute", id, sent, at)
			}
		}
		if got := tr.Queue.Calls(workertest.Receive) - before; got > 60 {
			t.Errorf("%d receives in two minutes, want a batch for each three jobs or a poll of 20s at most", got)
		}
		time.Sleep(2 * time.Hour)
		stop()
		tr.Done(t)
		if got := len(s.of(worker.Released)); got > 60 {
			t.Errorf("%d releases of 30 jobs whose lane was closed, want one or two each", got)
		}
	})
}

// TestASlowLaneLeavesRoom has up to a thousand jobs of a lane that starts one in
// ten seconds ahead of two hundred of a fast one.
func TestASlowLaneLeavesRoom(t *testing.T) {
	for slots, n := range map[int]int{8: 300, 256: 1000} {
		t.Run(fmt.Sprint(slots), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tr := workertest.New(t)
				for _, id := range ids("slow", n) {
					tr.Queue.Send(model(id, "slow"))
				}
				for _, id := range ids("fast", 200) {
					tr.Queue.Send(model(id, "fast"))
				}
				began := time.Now()
				s := newSubject(t, tr, paces(map[string]float64{"slow": 0.1, "fast": 10}), worker.Config{Slots: slots, ExitWhenEmpty: true})
				s.runs(t.Context(), t, tr)
				tr.Done(t)
				var fast, slow time.Duration
				for k, r := range tr.Sink.Results() {
					if took := r.Upwell.Finished.Sub(began); k.CustomID[0] == 'f' {
						fast = max(fast, took)
					} else {
						slow = max(slow, took)
					}
				}
				if fast > 25*time.Second {
					t.Errorf("the fast lane was done after %v, want 20s, which it takes alone, or little more", fast)
				}
				if alone := time.Duration(n) * 10 * time.Second; slow > alone+alone/20 {
					t.Errorf("the slow lane was done after %v, want %v, which it takes alone, or little more", slow, alone)
				}
				// The first delays are 10 s, and then grow with the time the lane has been slow.
				if got := len(s.of(worker.Released)); got > 20*n {
					t.Errorf("%d releases of %d jobs, want at most 20 each", got, n)
				}
			})
		})
	}
}

// TestASlowLaneGivesRoomBack has a slow lane that has filled its part of the room
// when another comes that needs some of it, or all.
func TestASlowLaneGivesRoomBack(t *testing.T) {
	for _, tt := range []struct{ fast, inFlight, waiting int }{
		{30, 30, 30},
		{100, 63, 3}, // of 64 slots; and what the slow lane starts in two minutes, but for what it has
	} {
		t.Run(fmt.Sprint(tt.fast), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tr := workertest.New(t)
				for _, id := range ids("slow", 200) {
					tr.Queue.Send(model(id, "slow"))
				}
				answer := workertest.After(10 * time.Minute)
				tr.Endpoint.Func = func(ctx context.Context, c worker.Call) (worker.Answer, error) {
					if c.Job.Model == "slow" {
						return workertest.Answer(c), nil
					}
					return answer(ctx, c)
				}
				s, stop := start(t, tr, paces(map[string]float64{"slow": 0.05, "fast": 10}), worker.Config{Slots: 64, Receivers: 1})
				time.Sleep(time.Minute)
				if got := tr.Queue.Held(); got < 40 || got > 65 {
					t.Errorf("%d messages of the slow lane held in a room for 106, want about half", got)
				}
				for _, id := range ids("fast", tt.fast) {
					tr.Queue.Send(model(id, "fast"))
				}
				slow := s.limits.Limiter(throttle.Lane{Region: "here", Model: "slow", Tier: "default"})
				for range 60 {
					time.Sleep(time.Second)
					if got := slow.State().Waiting; got < tt.waiting {
						t.Errorf("%d jobs left in the slow lane's line, want %d", got, tt.waiting)
					}
				}
				if got := tr.Endpoint.InFlight(); got < tt.inFlight {
					t.Errorf("%d calls in flight a minute later, want %d", got, tt.inFlight)
				}
				time.Sleep(5 * time.Hour)
				stop()
				tr.Done(t)
			})
		})
	}
}

// TestALargeLineLeavesBytes is the same for bytes: a few large messages of a slow
// lane are all that fits.
func TestALargeLineLeavesBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := workertest.New(t)
		large := func(id, name string) {
			tr.Queue.Send(jobs.Message{Body: fmt.Appendf(nil,
				`{"custom_id":%q,"url":"/v1/responses","body":{"model":%q,"input":%q}}`, id, name, strings.Repeat("x", 20<<10))})
		}
		for _, id := range ids("slow", 60) {
			large(id, "slow")
		}
		for _, id := range ids("fast", 20) {
			large(id, "fast")
		}
		began := time.Now()
		s := newSubject(t, tr, paces(map[string]float64{"slow": 0.01, "fast": 10}), worker.Config{Bytes: 400 << 10, Receivers: 2, ExitWhenEmpty: true})
		s.runs(t.Context(), t, tr)
		tr.Done(t)
		for k, r := range tr.Sink.Results() {
			if took := r.Upwell.Finished.Sub(began); k.CustomID[0] == 'f' && took > time.Minute {
				t.Errorf("job %s was done after %v, want at most a minute", k, took)
			}
		}
	})
}

// TestAShortOutagePutsNothingOffForLong has a queue whose only lane is slow for a
// while: its jobs are not away for longer than that lasted.
func TestAShortOutagePutsNothingOffForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := workertest.New(t)
		tr.Send(ids("j", 300)...)
		began := time.Now()
		s := newSubject(t, tr, steady(0.02), worker.Config{Slots: 10, ExitWhenEmpty: true})
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		s.runs(ctx, t, tr)
		released := s.of(worker.Released)
		if len(released) < 280 {
			t.Errorf("%d releases, want most jobs put off", len(released))
		}
		for _, e := range released {
			if lasted := e.At.Sub(began); e.Delay > max(lasted, 10*time.Second) || e.Delay > 15*time.Minute {
				t.Errorf("a job was put off for %v, %v after the lane was first slow", e.Delay, lasted)
			}
		}
	})
}

// TestAPermitFromBeforeARefusalIsNotUsed has one slot, and others that have their
// permit and wait for it when the call there is refused: the next call comes with
// a permit given since, at the rate that holds now.
func TestAPermitFromBeforeARefusalIsNotUsed(t *testing.T) {
	for _, fail := range []*worker.Error{nil, workertest.Fail(worker.Throttled, 429, 0), workertest.Fail(worker.Unavailable, 503, 0)} {
		t.Run(fmt.Sprint(fail), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tr := workertest.New(t)
				tr.Send(ids("j", 12)...)
				var j journal
				var once sync.Once
				answer := workertest.After(9 * time.Second)
				tr.Endpoint.Func = j.note(func(ctx context.Context, c worker.Call) (worker.Answer, error) {
					ans, err := answer(ctx, c)
					once.Do(func() {
						if fail != nil {
							err = fail
						}
					})
					return ans, err
				})
				s := newSubject(t, tr, steady(0.5), worker.Config{Slots: 1, ExitWhenEmpty: true})
				s.runs(t.Context(), t, tr)
				s.idle(t)
				tr.Done(t)
				// Permits are given after 0, 2, 4, … s, and the refusal comes after
				// 9 s; the limiter may take a moment more to recover from it.
				want, most := 9*time.Second, 9*time.Second
				if fail != nil {
					want, most = 10*time.Second, 15*time.Second
				}
				if got := j.calls[1].at.Sub(j.calls[0].at); got < want || got > most {
					t.Errorf("the second call began %v after the first, want %v to %v", got, want, most)
				}
			})
		})
	}
}
