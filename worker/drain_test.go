package worker_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"upwell/jobs"
	"upwell/worker"
	"upwell/worker/workertest"
)

// linger is how long a receive under way may go on when the worker stops. The
// drain begins after it.
const linger = 500 * time.Millisecond

// deaf is an endpoint that does not notice when it is told to stop.
func deaf(d time.Duration) func(context.Context, worker.Call) (worker.Answer, error) {
	return func(_ context.Context, c worker.Call) (worker.Answer, error) {
		time.Sleep(d)
		return workertest.Answer(c), nil
	}
}

func TestDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := workertest.New(t)
		tr.Send(ids("j", 30)...)
		tr.Endpoint.Func = workertest.After(time.Minute)
		began := time.Now()
		go func() {
			time.Sleep(11 * time.Second)
			synctest.Wait()
			if got := tr.Queue.Visible(); got != 26 {
				t.Errorf("%d messages visible one second into the drain, want the 26 that were not sent", got)
			}
			if got := tr.Endpoint.InFlight(); got != 4 {
				t.Errorf("%d calls in flight, want the 4 that were", got)
			}
		}()
		run(t, tr, worker.Config{Slots: 4}, 10*time.Second)
		if got := time.Since(began); got != time.Minute {
			t.Errorf("Run ended after %v, want 1m, with the last call", got)
		}
		if got := tr.Queue.Last(workertest.Receive).Sub(began); got > 10*time.Second {
			t.Errorf("the last receive began %v after the start, want none after 10s", got)
		}
		if got := len(tr.Sink.Results()); got != 4 {
			t.Errorf("%d results, want the 4 that were paid for", got)
		}
		run(t, tr, worker.Config{ExitWhenEmpty: true}, time.Hour)
		tr.Done(t)
		if got := tr.Endpoint.Total().Calls; got != 30 {
			t.Errorf("%d calls for 30 jobs, want 30", got)
		}
	})
}

// TestDrainsOneAfterTheOther deploys a new worker every minute.
func TestDrainsOneAfterTheOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := workertest.New(t)
		tr.Send(ids("j", 100)...)
		tr.Endpoint.Func = workertest.After(40 * time.Second)
		for tr.Queue.Len() > 0 {
			run(t, tr, worker.Config{Slots: 10, Receivers: 3}, time.Minute)
		}
		tr.Done(t)
		if got := tr.Endpoint.Total(); got.Calls != 100 || got.Billed != 100 {
			t.Errorf("%d calls, %d billed, want 100 of each", got.Calls, got.Billed)
		}
	})
}

// TestDrainEnds has calls that outlast the drain: they are cut off, and their
// messages go back at once and uncounted.
func TestDrainEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := workertest.New(t)
		tr.Send(ids("j", 20)...)
		tr.Endpoint.Func = workertest.After(10 * time.Minute)
		began := time.Now()
		run(t, tr, worker.Config{Drain: 5 * time.Second, MaxAttempts: 1}, 70*time.Second)
		if got, want := time.Since(began), 70*time.Second+linger+5*time.Second; got != want {
			t.Errorf("Run ended after %v, want %v", got, want)
		}
		if got := tr.Queue.Visible(); got != 20 {
			t.Errorf("%d messages visible, want 20", got)
		}
		run(t, tr, worker.Config{MaxAttempts: 1, ExitWhenEmpty: true}, time.Hour)
		tr.Done(t)
	})
}

// TestAnAnswerAfterTheDrainIsStored has an answer arrive one second after its
// call was told to stop, and a sink that is slow, or fails for a while: there is
// still a budget to store it in.
func TestAnAnswerAfterTheDrainIsStored(t *testing.T) {
	tests := []struct {
		name    string
		latency time.Duration
		apply   *bool // of a fault that lasts for half of the budget, if there is one
	}{
		{name: "at once"},
		{name: "slow sink", latency: 20 * time.Second},
		{name: "failing sink", apply: new(false)},
		{name: "answer of the sink lost", apply: new(true)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tr := workertest.New(t)
				tr.Send(ids("j", 20)...)
				tr.Endpoint.Func = deaf(66 * time.Second)
				tr.Sink.Latency = func(workertest.Op) time.Duration { return tt.latency }
				if tt.apply != nil {
					tr.Sink.Fault = workertest.Burst(15*time.Second, workertest.Put, *tt.apply)
				}
				run(t, tr, worker.Config{Drain: 5 * time.Second}, time.Minute)
				tr.Done(t)
				if got := len(tr.Sink.Results()); got != 20 {
					t.Errorf("%d results, want 20", got)
				}
			})
		})
	}
}

// TestTheSinkFailsUntilTheEnd has nothing stored within the budget, or so it is
// said. Run ends all the same, and the message comes back; an answer that was
// stored after all is found.
func TestTheSinkFailsUntilTheEnd(t *testing.T) {
	for _, stored := range []bool{false, true} {
		t.Run(map[bool]string{false: "not stored", true: "stored"}[stored], func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tr := workertest.New(t)
				tr.Send(ids("j", 5)...)
				if !stored {
					tr.Extra = 5 // there is nothing left of the answers
				}
				tr.Endpoint.Func = workertest.After(30 * time.Second)
				tr.Sink.Fault = workertest.Burst(time.Hour, workertest.Put, stored)
				began := time.Now()
				run(t, tr, worker.Config{Drain: 40 * time.Second}, 10*time.Second)
				if got, want := time.Since(began), 10*time.Second+linger+40*time.Second+30*time.Second; got != want {
					t.Errorf("Run ended after %v, want %v", got, want)
				}
				tr.Sink.Fault = nil
				run(t, tr, worker.Config{ExitWhenEmpty: true}, time.Hour)
				tr.Done(t)
			})
		})
	}
}

// TestDrainTakesTheMessagesUnderWay has a drain begin while the queue answers: a
// request cut off then would leave ten messages hidden from everybody.
func TestDrainTakesTheMessagesUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := workertest.New(t)
		tr.Send(ids("j", 10)...)
		tr.Queue.Latency = func(op workertest.Op) time.Duration {
			if op == workertest.Receive {
				return 400 * time.Millisecond
			}
			return 0
		}
		run(t, tr, worker.Config{}, 300*time.Millisecond)
		if got := tr.Queue.Visible(); got != 10 {
			t.Errorf("%d messages visible after the drain, want 10", got)
		}
		if got := tr.Endpoint.Total().Calls; got != 0 {
			t.Errorf("%d calls after the drain began, want 0", got)
		}
	})
}

// TestDrainDuringALookUp has a message that cannot be looked up when the drain
// begins: it is given back at once, and not taken for poison or expired unseen.
func TestDrainDuringALookUp(t *testing.T) {
	for _, m := range []jobs.Message{
		{Body: workertest.Line("a", ""), Receives: 50},
		{Body: workertest.Line("a", `"deadline":"1999-01-01T00:00:00Z"`), Receives: 1},
		{Body: workertest.Line("a", ""), Again: true},
	} {
		synctest.Test(t, func(t *testing.T) {
			tr := workertest.New(t)
			tr.Queue.Send(m)
			answered(t, tr, "a")
			// The release shows before it is answered, to our own receivers too.
			tr.Queue.Latency = func(op workertest.Op) time.Duration {
				if op == workertest.Release {
					return 20 * time.Millisecond
				}
				return 0
			}
			tr.Sink.Fault = func(op workertest.Op, _ string) (bool, error) {
				if op == workertest.Has {
					return false, errors.New("slow down")
				}
				return true, nil
			}
			run(t, tr, worker.Config{}, time.Minute)
			if got := tr.Queue.Visible(); got != 1 {
				t.Errorf("%d messages visible after the drain, want 1", got)
			}
			tr.Sink.Fault = nil
			run(t, tr, worker.Config{ExitWhenEmpty: true}, time.Hour)
			tr.Done(t)
			if got := tr.Endpoint.Total().Calls; got != 0 {
				t.Errorf("%d calls for a job that has a result, want 0", got)
			}
		})
	}
}

// answered gives a job a result, as if by an earlier worker.
func answered(t *testing.T, tr *workertest.Trial, id string) {
	t.Helper()
	r := jobs.Result{
		ID: key(id).RequestID(), CustomID: id, Response: &jobs.Response{StatusCode: 200},
		Upwell: jobs.Record{Run: "default", InputSHA256: "00", Finished: time.Now()},
	}
	if stored, err := tr.Sink.Put(t.Context(), key(id), r); !stored || err != nil {
		t.Fatalf("Put = %v, %v, want true, nil", stored, err)
	}
}
