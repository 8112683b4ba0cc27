package worker_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
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

// A journal notes when each call began.
type journal struct {
	mu    sync.Mutex
	calls []entry
}

type entry struct {
	id   string
	lane throttle.Lane
	at   time.Time
}

// note wraps f.
func (j *journal) note(f func(context.Context, worker.Call) (worker.Answer, error)) func(context.Context, worker.Call) (worker.Answer, error) {
	return func(ctx context.Context, c worker.Call) (worker.Answer, error) {
		j.mu.Lock()
		j.calls = append(j.calls, entry{c.Job.CustomID, c.Lane, time.Now()})
		j.mu.Unlock()
		return f(ctx, c)
	}
}

// of returns when the calls for a job began.
func (j *journal) of(id string) []time.Time {
	j.mu.Lock()
	defer j.mu.Unlock()
	var at []time.Time
	for _, e := range j.calls {
		if e.id == id {
			at = append(at, e.at)
		}
	}
	return at
}

// in returns the calls in lanes of that Region and tier, either of which may be
// empty for all.
func (j *journal) in(region, tier string) []entry {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(j.calls), func(e entry) bool {
		return region != "" && e.lane.Region != region || tier != "" && e.lane.Tier != tier
	})
}

// between counts the calls that began after from and before to.
func (j *journal) between(from, to time.Time) int {
	j.mu.Lock()
	defer j.mu.Unlock()
	n := 0
	for _, e := range j.calls {
		if e.at.After(from) && e.at.Before(to) {
			n++
		}
	}
	return n
}

// TestRefusalsCostNothing has every job refused 20 times, with a single attempt
// to spend.
func TestRefusalsCostNothing(t *testing.T) {
	for _, refusal := range []*worker.Error{
		workertest.Fail(worker.Throttled, 429, 0),
		workertest.Fail(worker.Throttled, 429, 10*time.Second), // waited for in line
		workertest.Fail(worker.Throttled, 429, 2*time.Minute),  // released
		workertest.Fail(worker.Unavailable, 503, 0),
		workertest.Fail(worker.Unavailable, 503, 30*time.Second),
		workertest.Fail(worker.Unavailable, 529, 0),
	} {
		t.Run(fmt.Sprintf("%d after %v", refusal.Status, refusal.RetryAfter), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tr := workertest.New(t)
				tr.Send("a", "b", "c")
				tr.Endpoint.Func = script(func(n int, _ worker.Call) error {
					if n <= 20 {
						return refusal
					}
					return nil
				})
				run(t, tr, worker.Config{MaxAttempts: 1, MaxReceives: 2, ExitWhenEmpty: true}, 100*time.Hour)
				tr.Done(t)
				if stored, dead := len(tr.Sink.Results()), len(tr.Queue.Letters()); stored != 3 || dead != 0 {
					t.Errorf("stored %d and dead-lettered %d, want 3 and 0", stored, dead)
				}
				if got := tr.Endpoint.Total(); got.Refused != 60 || got.Billed != 3 {
					t.Errorf("%d refused and %d billed, want 60 and 3", got.Refused, got.Billed)
				}
			})
		})
	}
}

// TestRetryAfterIsHonoured wants the next call neither early nor late, whether
// the job waits in line or in the queue.
func TestRetryAfterIsHonoured(t *testing.T) {
	for _, after := range []time.Duration{10 * time.Second, 40 * time.Minute} {
		t.Run(after.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tr := workertest.New(t)
				tr.Send("a")
				var j journal
				tr.Endpoint.Func = j.note(script(func(n int, _ worker.Call) error {
					if n == 1 {
						return workertest.Fail(worker.Throttled, 429, after)
					}
					return nil
				}))
				run(t, tr, worker.Config{ExitWhenEmpty: true}, 2*time.Hour)
				tr.Done(t)
				at := j.of("a")
				if len(at) != 2 {
					t.Fatalf("%d calls, want 2", len(at))
				}
				if got := at[1].Sub(at[0]); got < after || got > after+20*time.Millisecond {
					t.Errorf("the next call came %v after the refusal, want %v", got, after)
				}
			})
		})
	}
}

// TestAJobThatWaitsHoldsNoSlot has one slot, and a job that waits for its lane or
// backs off: another lane's job is called at once.
func TestAJobThatWaitsHoldsNoSlot(t *testing.T) {
	for _, fail := range []*worker.Error{
		workertest.Fail(worker.Throttled, 429, 10*time.Second),
		workertest.Fail(worker.Unavailable, 503, 10*time.Minute),
		workertest.Fail(worker.Transient, 500, 10*time.Minute),
	} {
		t.Run(fmt.Sprint(fail.Status), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tr := workertest.New(t)
				tr.Queue.Send(model("waits", "one"))
				tr.Queue.Send(model("known", "two")) // so that intake goes on for this lane
				var j journal
				tr.Endpoint.Func = j.note(script(func(n int, c worker.Call) error {
					if n == 1 && c.Job.CustomID == "waits" {
						return fail
					}
					return nil
				}))
				_, stop := start(t, tr, steady(1000), worker.Config{Slots: 1})
				time.Sleep(5 * time.Second)
				tr.Queue.Send(model("goes", "two"))
				sent := time.Now()
				time.Sleep(time.Second)
				synctest.Wait()
				if got := tr.Endpoint.InFlight(); got != 0 {
					t.Errorf("%d calls in flight while the job waits, want 0", got)
				}
				time.Sleep(time.Hour)
				stop()
				tr.Done(t)
				if at := j.of("goes"); len(at) != 1 || at[0].Sub(sent) > 100*time.Millisecond {
					t.Errorf("the other job, sent %v, was called at %v, want at once", sent, at)
				}
			})
		})
	}
}

// TestAClosedLaneMakesRoom has one lane closed for long, with more jobs than
// there is room for: they are given back until it opens, and the other lane's
// jobs, which were sent later, use the room.
func TestAClosedLaneMakesRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := workertest.New(t)
		tr.Queue.Send(model("known", "two")) // nobody can tell which lanes the jobs in a queue are for
		for _, id := range ids("closed", 30) {
			tr.Queue.Send(model(id, "one"))
		}
		for _, id := range ids("open", 30) {
			tr.Queue.Send(model(id, "two"))
		}
		opens := time.Now().Add(30 * time.Minute)
		tr.Endpoint.Func = script(func(_ int, c worker.Call) error {
			if left := time.Until(opens); c.Job.Model == "one" && left > 0 {
				return workertest.Fail(worker.Unavailable, 503, left)
			}
			return nil
		})
		s, stop := start(t, tr, steady(2), worker.Config{Slots: 4})
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		tr.Check(t)
		if got := len(tr.Sink.Results()); got != 31 {
			t.Errorf("after 5m there are %d results, want the 31 of the open lane", got)
		}
		if got := tr.Queue.Held(); got != 0 {
			t.Errorf("after 5m %d messages are held, want 0", got)
		}
		time.Sleep(time.Hour)
		stop()
		tr.Done(t)
		if got := len(s.of(worker.Released)); got < 30 || got > 60 {
			t.Errorf("%d releases, want one for each job of the closed lane or little more", got)
		}
	})
}

// TestAJobInLineForASlotIsNotSentIntoAClosedLane has one slot and a refusal that
// closes the lane while others, already permitted, wait for the slot.
func TestAJobInLineForASlotIsNotSentIntoAClosedLane(t *testing.T) {
	for _, fail := range []*worker.Error{
		workertest.Fail(worker.Throttled, 429, 30*time.Minute),
		workertest.Fail(worker.Unauthorized, 401, 0),
	} {
		t.Run(fmt.Sprint(fail.Status), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tr := workertest.New(t)
				tr.Send(ids("j", 10)...)
				var j journal
				slow := workertest.After(10 * time.Second)
				var once sync.Once
				tr.Endpoint.Func = j.note(func(ctx context.Context, c worker.Call) (worker.Answer, error) {
					ans, err := slow(ctx, c)
					once.Do(func() { err = fail })
					return ans, err
				})
				began := time.Now()
				run(t, tr, worker.Config{Slots: 1, ExitWhenEmpty: true}, 4*time.Hour)
				tr.Done(t)
				// The refusal comes after 10 s, and the lane is closed for 5 s at least.
				if got := j.between(began.Add(9*time.Second), began.Add(14*time.Second)); got != 0 {
					t.Errorf("%d calls into the closed lane, want 0", got)
				}
			})
		})
	}
}

// TestIntakeStopsWhileAllLanesAreClosed wants no request for messages that could
// not be sent, but for those under way, and one a minute for a lane that nobody
// knows yet.
func TestIntakeStopsWhileAllLanesAreClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := workertest.New(t)
		tr.Send(ids("j", 100)...)
		opens := time.Now().Add(30 * time.Minute)
		slow := workertest.After(10 * time.Second)
		tr.Endpoint.Func = func(ctx context.Context, c worker.Call) (worker.Answer, error) {
			ans, err := slow(ctx, c)
			if left := time.Until(opens); left > 0 {
				return worker.Answer{}, workertest.Fail(worker.Throttled, 429, left)
			}
			return ans, err
		}
		_, stop := start(t, tr, steady(1000), worker.Config{Slots: 20, Receivers: 3})
		time.Sleep(9 * time.Second) // all receivers wait for room, which the refusals make
		before := tr.Queue.Calls(workertest.Receive)
		time.Sleep(time.Until(opens.Add(-16 * time.Second))) // a shorter wait is spent in line
		synctest.Wait()
		tr.Check(t)
		if got := tr.Queue.Calls(workertest.Receive) - before; got > 30 {
			t.Errorf("%d receives in half an hour while every lane was closed, want one a minute", got)
		}
		if got := tr.Queue.Held(); got != 0 {
			t.Errorf("%d messages held while every lane was closed, want 0", got)
		}
		time.Sleep(5 * time.Minute)
		stop()
		tr.Done(t)
	})
}

// TestTiers has a job's own tier, its list of tiers and the operator's.
func TestTiers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := workertest.New(t)
		tr.Send("operator")
		tr.Queue.Send(jobs.Message{Body: workertest.Line("list", `"tiers":["priority","default"]`)})
		tr.Queue.Send(jobs.Message{Body: []byte(
			`{"custom_id":"own","url":"/v1/responses","body":{"model":"m","service_tier":"reserved"}}`)})
		run(t, tr, worker.Config{Tiers: []string{"flex", "default"}, ExitWhenEmpty: true}, time.Hour)
		tr.Done(t)
		for id, want := range map[string]string{"operator": "flex", "list": "priority", "own": "reserved"} {
			if got := tr.Sink.Results()[key(id)].Upwell.Tier; got != want {
				t.Errorf("job %s was served by tier %q, want %q", id, got, want)
			}
		}
	})
}

// TestOutOfReach has no connection to be had for ten minutes. That is no job's fault: it
// spends no attempt and moves nothing up a tier, and it is said once a minute.
func TestOutOfReach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := workertest.New(t)
		began := time.Now()
		for i := range 20 {
			tr.Queue.Send(ladder(fmt.Sprintf("job%02d", i), began.Add(time.Hour), `["flex","default"]`))
		}
		gone := workertest.Fail(worker.Unavailable, 0, 0)
		gone.Unsent = true
		var j journal
		tr.Endpoint.Func = j.note(func(_ context.Context, c worker.Call) (worker.Answer, error) {
			if time.Since(began) < 10*time.Minute {
				return worker.Answer{}, gone
			}
			return workertest.Answer(c), nil
		})
		var log strings.Builder
		got := run(t, tr, worker.Config{
			MaxAttempts: 1, Escalate: 2 * time.Hour, ExitWhenEmpty: true, Slots: 1,
			Log: slog.New(slog.NewTextHandler(&log, nil)),
		}, 2*time.Hour)
		tr.Done(t)
		if stored, dead := len(tr.Sink.Results()), len(tr.Queue.Letters()); stored != 20 || dead != 0 {
			t.Errorf("stored %d and dead-lettered %d, want 20 and 0", stored, dead)
		}
		if n := len(j.in("", "default")); n > 0 {
			t.Errorf("%d calls on default, want none: what is out of reach is not out of capacity", n)
		}
		warned, failed := strings.Count(log.String(), `msg="endpoint out of reach"`), strings.Count(log.String(), `msg="intake paused"`)
		if warned != 1 || failed < 2 || failed > 10 {
			t.Errorf("it was warned of %d times and then said %d times in ten minutes, want once, and then once a minute at most:\n%s", warned, failed, log.String())
		}
		for _, e := range got.of(worker.Attempted) {
			if e.Err != nil && e.Outcome != throttle.Unrelated {
				t.Errorf("an attempt without a connection counts as %v, want that nobody refused it", e.Outcome)
			}
		}
		for _, e := range got.of(worker.Sampled) {
			if at := e.At.Sub(began); at > 5*time.Second && at < 9*time.Minute && e.Sample.Bound != worker.BoundCredential {
				t.Errorf("after %v the worker is held back by %q, want %q, which says that no connection can be had", at, e.Sample.Bound, worker.BoundCredential)
				break
			}
		}
		paused, resumed := got.of(worker.Paused), got.of(worker.Resumed)
		if len(paused) != 1 || paused[0].At.Sub(began) < time.Minute || paused[0].Err == nil || len(resumed) != 1 {
			t.Errorf("paused %v and resumed %v, want once each, after a minute", paused, resumed)
		}
	})
}
