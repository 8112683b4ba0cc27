package worker_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"upwell/jobs"
	"upwell/worker"
	"upwell/worker/workertest"
)

// TestFaults has each operation fail, before or after it takes effect, now and
// then or for a minute, under work that meets every kind of end. Two workers
// follow one another, so that the second finds what the first left behind.
//
// The faults that may cost money are two, and testFault says how much.
func TestFaults(t *testing.T) {
	ops := []workertest.Op{
		workertest.Receive, workertest.Hide, workertest.Release, workertest.Ack, workertest.Bury, workertest.Empty,
		workertest.Put, workertest.PutError, workertest.Has, workertest.Failure, workertest.Complete,
	}
	for _, op := range ops {
		for _, apply := range []bool{false, true} {
			forms := map[string]func() workertest.Fault{
				"every third": func() workertest.Fault { return workertest.Every(3, op, apply) },
				"a minute":    func() workertest.Fault { return workertest.Burst(time.Minute, op, apply) },
			}
			for name, fault := range forms {
				t.Run(fmt.Sprintf("%s/applied=%v/%s", op, apply, name), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) { testFault(t, op, apply, fault()) })
				})
			}
		}
	}
}

func testFault(t *testing.T, op workertest.Op, apply bool, fault workertest.Fault) {
	t.Helper()
	tr := workertest.New(t)
	tr.Send(ids("j", 60)...)
	for range 5 {
		tr.Queue.Send(jobs.Message{Body: []byte(`{"custom_id":"`)})
		tr.Queue.Send(jobs.Message{Body: []byte(`{"custom_id":"no-url"}`)})
	}
	tr.Endpoint.Func = eventful()
	var hits atomic.Int64
	tr.Fault(func(op workertest.Op, what string) (bool, error) {
		apply, err := fault(op, what)
		if err != nil {
			hits.Add(1)
		}
		return apply, err
	})
	if op == workertest.Complete && apply {
		tr.Extra = 1000 // a lost answer cannot be had without another call
	}
	// Polls of 20s and messages that come back after 2m fall into step: without
	// the last setting a message may be lost by every third receive for hours.
	cfg := worker.Config{Slots: 12, Receivers: 2, MaxAttempts: 100, MaxReceives: 1000}
	run(t, tr, cfg, 150*time.Second)
	cfg.ExitWhenEmpty = true
	for range 3 { // even if there is nothing left, so that Empty is asked for each of its calls
		run(t, tr, cfg, 12*time.Hour)
	}
	tr.Done(t)
	if hits.Load() == 0 {
		t.Errorf("no %s failed, want some: the test tests nothing", op)
	}
	if op == workertest.Complete && apply {
		if got, most := tr.Endpoint.Total().Billed-60, int(hits.Load()); got > most {
			t.Errorf("%d calls beyond one for each job were billed, want at most the %d lost", got, most)
		}
	}
	if got := len(tr.Sink.Results()); got != 54 {
		t.Errorf("%d jobs have a result, want 54", got)
	}
	for _, l := range tr.Queue.Letters() {
		if l.Class != jobs.Truncated && l.Class != jobs.BadJob {
			t.Errorf("job %s is dead-lettered as %s: %s", l.Key, l.Class, l.Reason)
		}
	}
}

// eventful answers after 100 s, so that there are heartbeats. Every tenth job is
// answered in vain, and every fifth call of the first minutes is refused, so that
// messages are released and looked up.
func eventful() func(context.Context, worker.Call) (worker.Answer, error) {
	began := time.Now()
	var calls atomic.Int64
	slow := workertest.After(100 * time.Second)
	return func(ctx context.Context, c worker.Call) (worker.Answer, error) {
		if calls.Add(1)%5 == 0 && time.Since(began) < 20*time.Minute {
			return worker.Answer{}, workertest.Fail(worker.Throttled, 429, 20*time.Second)
		}
		ans, err := slow(ctx, c)
		if err == nil && c.Job.CustomID[len(c.Job.CustomID)-1] == '9' {
			return worker.Answer{}, truncated(c)
		}
		return ans, err
	}
}

// TestLostHeartbeatsDoNotPayTwice has every heartbeat fail for longer than a
// message stays hidden: the worker is handed the messages it is working on.
func TestLostHeartbeatsDoNotPayTwice(t *testing.T) {
	for _, fault := range []error{workertest.ErrInjected, fmt.Errorf("hide: %w", worker.ErrGone)} {
		t.Run(fault.Error(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tr := workertest.New(t)
				tr.Send(ids("j", 5)...)
				tr.Endpoint.Func = workertest.After(10 * time.Minute)
				tr.Queue.Fault = func(op workertest.Op, _ string) (bool, error) {
					if op == workertest.Hide {
						return false, fault
					}
					return true, nil
				}
				run(t, tr, worker.Config{ExitWhenEmpty: true}, 2*time.Hour)
				tr.Done(t)
				if got := tr.Endpoint.Total().Calls; got != 5 {
					t.Errorf("%d calls, want 5", got)
				}
			})
		})
	}
}

// TestPutIsNotGivenUp has the sink fail for an hour: the answers are paid for,
// and nowhere else.
func TestPutIsNotGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := workertest.New(t)
		tr.Send(ids("j", 5)...)
		tr.Fault(workertest.Burst(time.Hour, workertest.Put, false))
		run(t, tr, worker.Config{ExitWhenEmpty: true}, 2*time.Hour)
		tr.Done(t)
		if got := tr.Endpoint.Total().Calls; got != 5 {
			t.Errorf("%d calls, want 5", got)
		}
	})
}

// TestLetterOfAPaidAnswerIsNotGivenUp is the same for an answer that was paid
// for in vain.
func TestLetterOfAPaidAnswerIsNotGivenUp(t *testing.T) {
	for _, op := range []workertest.Op{workertest.PutError, workertest.Bury} {
		t.Run(string(op), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tr := workertest.New(t)
				tr.Send("a")
				tr.Endpoint.Func = func(_ context.Context, c worker.Call) (worker.Answer, error) {
					return worker.Answer{}, truncated(c)
				}
				tr.Fault(workertest.Burst(time.Hour, op, false))
				run(t, tr, worker.Config{ExitWhenEmpty: true}, 3*time.Hour)
				tr.Done(t)
				if got := len(tr.Queue.Letters()); got != 1 {
					t.Errorf("%d letters, want 1", got)
				}
			})
		})
	}
}

// TestAckOfALetterIsOwed has a message come back that is dead-lettered already:
// it is not called, and not buried, a second time.
func TestAckOfALetterIsOwed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := workertest.New(t)
		tr.Send("a")
		tr.Endpoint.Func = func(_ context.Context, c worker.Call) (worker.Answer, error) {
			return worker.Answer{}, truncated(c)
		}
		tr.Fault(workertest.Burst(5*time.Minute, workertest.Ack, false))
		run(t, tr, worker.Config{ExitWhenEmpty: true}, time.Hour)
		tr.Done(t)
		if calls, letters := tr.Endpoint.Total().Calls, len(tr.Queue.Letters()); calls != 1 || letters != 1 {
			t.Errorf("%d calls and %d letters, want 1 and 1", calls, letters)
		}
	})
}

// TestLetterThatCannotBeWrittenWaitsInTheQueue is what happens to the others:
// they make room for jobs that can be done.
func TestLetterThatCannotBeWrittenWaitsInTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := workertest.New(t)
		for range 40 { // more than there is room for
			tr.Queue.Send(jobs.Message{Body: []byte("not a job")})
		}
		tr.Send("a")
		tr.Fault(func(op workertest.Op, _ string) (bool, error) {
			if op == workertest.Bury {
				return false, errors.New("no permission")
			}
			return true, nil
		})
		run(t, tr, worker.Config{Slots: 4}, 5*time.Minute)
		if got := len(tr.Sink.Results()); got != 1 {
			t.Errorf("%d results, want 1", got)
		}
		if got := tr.Queue.Len(); got != 40 {
			t.Errorf("%d messages are queued, want 40", got)
		}
		tr.Fault(nil)
		run(t, tr, worker.Config{ExitWhenEmpty: true}, time.Hour)
		tr.Done(t)
	})
}
