package worker_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"upwell/jobs"
	"upwell/worker"
	"upwell/worker/workertest"
)

// TestHeartbeats has one message wait for its lane, and another for its answer,
// for three hours, with a second worker idle beside.
func TestHeartbeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := workertest.New(t)
		tr.Send("a", "b")
		tr.Endpoint.Func = workertest.After(3 * time.Hour)
		limits := steady(1.0 / (3 * 60 * 60))
		cfg := worker.Config{AttemptTimeout: 4 * time.Hour}
		one, stopOne := start(t, tr, limits, cfg)
		time.Sleep(30 * time.Second)
		two, stopTwo := start(t, tr, limits, cfg)
		time.Sleep(7 * time.Hour)
		stopOne()
		stopTwo()
		tr.Done(t)
		if got := len(one.of(worker.Received)); got != 2 {
			t.Errorf("the first worker received %d messages, want 2", got)
		}
		if got := len(two.of(worker.Received)); got != 0 {
			t.Errorf("the second worker received %d messages that the first one held, want 0", got)
		}
	})
}

// TestCeiling has a message wait for longer than one delivery may last: it is
// given back in time, and its turn comes in a later delivery.
func TestCeiling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := workertest.New(t)
		tr.Send("a", "b")
		tr.Endpoint.Func = workertest.After(15 * time.Minute)
		s := newSubject(t, tr, steady(1.0/(13*60*60)), worker.Config{AttemptTimeout: 20 * time.Minute, ExitWhenEmpty: true})
		began := time.Now()
		s.runs(t.Context(), t, tr)
		tr.Done(t)
		if got := tr.Endpoint.Total().Calls; got != 2 {
			t.Errorf("%d calls, want 2", got)
		}
		released := s.of(worker.Released)
		if len(released) == 0 {
			t.Fatalf("nothing was released in %v of waiting", time.Since(began))
		}
		if got, want := released[0].At.Sub(began), 12*time.Hour-20*time.Minute-2*time.Minute; got != want {
			t.Errorf("released after %v, want %v, which leaves time for a call", got, want)
		}
	})
}

// TestLongestCall wants an answer that comes just before the ceiling stored and
// acknowledged in the delivery that asked for it.
func TestLongestCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := workertest.New(t)
		tr.Send("a")
		var j journal
		const wait = 6*time.Hour - 3*time.Minute // in back-off
		slow := workertest.After(6*time.Hour - time.Second)
		first := script(failing(1, workertest.Fail(worker.Transient, 500, wait)))
		tr.Endpoint.Func = j.note(func(ctx context.Context, c worker.Call) (worker.Answer, error) {
			if ans, err := first(ctx, c); err != nil {
				return ans, err
			}
			return slow(ctx, c)
		})
		s := run(t, tr, worker.Config{AttemptTimeout: 6 * time.Hour, ExitWhenEmpty: true}, 24*time.Hour)
		tr.Done(t)
		if got := len(s.of(worker.Received)); got != 1 {
			t.Errorf("received %d times, want once", got)
		}
	})
}

// TestStoringOutlastsTheDelivery has the sink fail across the ceiling. The message
// comes back, to the worker that still has its answer.
func TestStoringOutlastsTheDelivery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := workertest.New(t)
		tr.Send("a")
		slow := workertest.After(6*time.Hour - time.Second)
		first := script(failing(1, workertest.Fail(worker.Transient, 500, 6*time.Hour-3*time.Minute)))
		tr.Endpoint.Func = func(ctx context.Context, c worker.Call) (worker.Answer, error) {
			if ans, err := first(ctx, c); err != nil {
				return ans, err
			}
			return slow(ctx, c)
		}
		tr.Sink.Fault = workertest.Burst(30*time.Minute, workertest.Put, false)
		run(t, tr, worker.Config{AttemptTimeout: 6 * time.Hour, ExitWhenEmpty: true}, 24*time.Hour)
		tr.Done(t)
		if got := tr.Endpoint.Total().Calls; got != 2 {
			t.Errorf("%d calls, want the one that failed and the one that was paid for", got)
		}
	})
}

// TestReleaseAtTheCeiling has a lane closed until after the delivery must end.
// The queue polices it.
func TestReleaseAtTheCeiling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := workertest.New(t)
		tr.Send("a")
		tr.Endpoint.Func = script(func(n int, _ worker.Call) error {
			switch n {
			case 1:
				return workertest.Fail(worker.Transient, 500, 11*time.Hour+20*time.Minute)
			case 2:
				return workertest.Fail(worker.Unavailable, 503, 50*time.Minute)
			default:
				return nil
			}
		})
		run(t, tr, worker.Config{ExitWhenEmpty: true}, 24*time.Hour)
		tr.Done(t)
		if got := tr.Endpoint.Total().Calls; got != 3 {
			t.Errorf("%d calls, want 3", got)
		}
	})
}

// gone makes every heartbeat of a message find that the delivery is over, for as
// long as it lasts.
func gone(id string, lasting time.Duration) workertest.Fault {
	until := time.Now().Add(lasting)
	return func(op workertest.Op, what string) (bool, error) {
		if op == workertest.Hide && what == id && time.Now().Before(until) {
			return false, fmt.Errorf("hide: %w", worker.ErrGone)
		}
		return true, nil
	}
}

// TestLostBeforeTheCall wants a message that is somebody else's dropped: it is
// neither sent nor released.
func TestLostBeforeTheCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := workertest.New(t)
		tr.Queue.Fault = gone("m2", 90*time.Second)
		s, stop := start(t, tr, steady(1.0/(60*60)), worker.Config{})
		tr.Send("a")
		time.Sleep(time.Second)
		tr.Send("b") // which waits for an hour
		time.Sleep(90 * time.Second)
		synctest.Wait()
		lost := s.of(worker.Lost)
		if len(lost) != 1 || lost[0].Message != "m2" {
			t.Fatalf("lost %v, want m2", lost)
		}
		if got := tr.Queue.Calls(workertest.Release); got != 0 {
			t.Errorf("%d releases of a message that is somebody else's, want 0", got)
		}
		time.Sleep(3 * time.Hour)
		stop()
		tr.Done(t)
		if got := tr.Endpoint.Total().Calls; got != 2 {
			t.Errorf("%d calls, want 2", got)
		}
	})
}

// TestLostDuringTheCall wants the answer stored all the same. Another worker has
// the message meanwhile, and cannot know: it pays a second time, once.
func TestLostDuringTheCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := workertest.New(t)
		tr.Extra = 1
		tr.Send("a")
		tr.Endpoint.Func = workertest.After(10 * time.Minute)
		tr.Queue.Fault = gone("m1", time.Minute)
		one, stopOne := start(t, tr, steady(1000), worker.Config{})
		time.Sleep(time.Minute)
		synctest.Wait()
		two, stopTwo := start(t, tr, steady(1000), worker.Config{})
		time.Sleep(30 * time.Minute)
		stopOne()
		stopTwo()
		tr.Done(t)
		if got := len(one.of(worker.Stored)); got != 1 {
			t.Errorf("the first worker stored %d results, want 1", got)
		}
		if got := len(two.of(worker.Duplicate)); got != 1 {
			t.Errorf("the second worker met %d duplicates, want 1", got)
		}
	})
}

// TestLostAndFailed wants a message dropped whose call failed after the delivery
// was over: whoever has it now tries again.
func TestLostAndFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := workertest.New(t)
		tr.Send("a")
		slow := workertest.After(time.Minute)
		first := script(failing(1, workertest.Fail(worker.Transient, 500, 0)))
		tr.Endpoint.Func = func(ctx context.Context, c worker.Call) (worker.Answer, error) {
			if _, err := slow(ctx, c); err != nil {
				return worker.Answer{}, err
			}
			return first(ctx, c)
		}
		tr.Queue.Fault = gone("m1", 90*time.Second)
		s, stop := start(t, tr, steady(1000), worker.Config{})
		time.Sleep(90 * time.Second)
		synctest.Wait()
		if got := len(s.of(worker.Lost)); got != 1 {
			t.Errorf("%d deliveries lost, want 1", got)
		}
		if got := tr.Queue.Calls(workertest.Release); got != 0 {
			t.Errorf("%d releases, want 0", got)
		}
		time.Sleep(time.Hour)
		stop()
		tr.Done(t)
	})
}

// TestHeartbeatDoesNotOutliveTheDelivery has heartbeats that take long, and ends
// deliveries in the middle of them. The queue polices the order.
func TestHeartbeatDoesNotOutliveTheDelivery(t *testing.T) {
	const slow = 10 * time.Second // from the first beat on, at 30s
	ends := map[string]error{
		"acknowledged": nil,
		"released":     workertest.Fail(worker.Throttled, 429, 30*time.Minute),
		"dead letter":  &worker.Error{Kind: worker.Permanent, Class: jobs.BadRequest, Err: fmt.Errorf("no")},
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tr := workertest.New(t)
				tr.Send(ids("j", 20)...)
				tr.Queue.Latency = func(op workertest.Op) time.Duration {
					if op == workertest.Hide {
						return slow
					}
					return 0
				}
				first := script(func(n int, _ worker.Call) error {
					if n == 1 {
						return end
					}
					return nil
				})
				tr.Endpoint.Func = func(ctx context.Context, c worker.Call) (worker.Answer, error) {
					var n int
					if _, err := fmt.Sscanf(c.Job.CustomID, "j%d", &n); err != nil {
						t.Errorf("custom_id %q: %v", c.Job.CustomID, err)
					}
					if _, err := workertest.After(25*time.Second+time.Duration(n)*time.Second)(ctx, c); err != nil {
						return worker.Answer{}, err
					}
					return first(ctx, c)
				}
				run(t, tr, worker.Config{ExitWhenEmpty: true}, 4*time.Hour)
				tr.Done(t)
				if tr.Queue.Calls(workertest.Hide) == 0 {
					t.Error("there were no heartbeats, want some: the test tests nothing")
				}
			})
		})
	}
}

// TestAStuckHeartbeatIsGivenUp wants a message settled although its heartbeat
// gets no answer.
func TestAStuckHeartbeatIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := workertest.New(t)
		tr.Send("a")
		tr.Queue.Latency = func(op workertest.Op) time.Duration {
			if op == workertest.Hide {
				return 10 * time.Hour
			}
			return 0
		}
		tr.Endpoint.Func = workertest.After(40 * time.Second)
		began := time.Now()
		run(t, tr, worker.Config{}, 90*time.Second)
		tr.Done(t)
		if got := tr.Queue.Last(workertest.Ack).Sub(began); got > 61*time.Second {
			t.Errorf("acknowledged after %v, want within 1m: a beat after the heartbeat began", got)
		}
	})
}

// TestPulse asks a worker how many messages it holds and whether it is alive: before
// it begins, at work, while it drains, and at the end.
func TestPulse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := workertest.New(t)
		tr.Send("a", "b")
		tr.Endpoint.Func = workertest.After(time.Minute)
		s := newSubject(t, tr, steady(10), worker.Config{})
		if got := s.Pulse(); !got.IsZero() || s.Held() != 0 {
			t.Errorf("before Run: pulse %v, %d held, want none", got, s.Held())
		}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { s.runs(ctx, t, tr); close(done) }()
		time.Sleep(30*time.Second + time.Millisecond)
		check := func(when string, held int) {
			t.Helper()
			if age := time.Since(s.Pulse()); age > time.Second || s.Held() != held {
				t.Errorf("%s: pulse %v ago, %d held, want a second at most, and %d", when, age, s.Held(), held)
			}
		}
		check("at work", 2)
		stop()
		time.Sleep(15 * time.Second)
		check("draining", 2)
		<-done
		if got := s.Pulse(); !got.IsZero() || s.Held() != 0 {
			t.Errorf("at the end: pulse %v, %d held, want none", got, s.Held())
		}
	})
}
