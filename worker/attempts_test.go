package worker_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"upwell/jobs"
	"upwell/worker"
	"upwell/worker/workertest"
)

// failing is a script that fails the first n calls of every job.
func failing(n int, err *worker.Error) func(int, worker.Call) error {
	return func(i int, _ worker.Call) error {
		if i <= n {
			return err
		}
		return nil
	}
}

func TestBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := workertest.New(t)
		tr.Send("a")
		var j journal
		tr.Endpoint.Func = j.note(script(failing(12, workertest.Fail(worker.Transient, 500, 0))))
		run(t, tr, worker.Config{MaxAttempts: 20, ExitWhenEmpty: true}, time.Hour)
		tr.Done(t)
		at := j.of("a")
		if len(at) != 13 {
			t.Fatalf("%d calls, want 13", len(at))
		}
		longest := time.Duration(0)
		for i := range at[1:] {
			most := min(time.Minute, time.Second<<i)
			gap := at[i+1].Sub(at[i])
			if longest = max(longest, gap); gap > most {
				t.Errorf("attempt %d came %v after the one before, want at most %v", i+2, gap, most)
			}
		}
		if longest < time.Second { // the odds are one in 10^9
			t.Errorf("the longest back-off was %v, want seconds", longest)
		}
	})
}

// TestRetryAfterOfAFailureIsHonoured is for a 500 that says when to come back.
func TestRetryAfterOfAFailureIsHonoured(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := workertest.New(t)
		tr.Send("a")
		var j journal
		tr.Endpoint.Func = j.note(script(failing(1, workertest.Fail(worker.Transient, 500, 5*time.Minute))))
		run(t, tr, worker.Config{ExitWhenEmpty: true}, time.Hour)
		tr.Done(t)
		if at := j.of("a"); len(at) != 2 || at[1].Sub(at[0]) != 5*time.Minute {
			t.Errorf("calls at %v, want two, 5m apart", at)
		}
	})
}

func TestExhausted(t *testing.T) {
	tests := []struct {
		name    string
		options string
		spent   int // by earlier deliveries
		calls   int
		letter  int // attempts it says
	}{
		{"worker's number", "", 0, 3, 3},
		{"job's own number", `"max_attempts":2`, 0, 2, 2},
		{"some spent before", "", 2, 1, 3},
		{"all spent before", "", 3, 1, 4}, // a letter could not be written, or was sent back
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tr := workertest.New(t)
				tr.Queue.Send(jobs.Message{Body: workertest.Line("a", tt.options), Attempts: tt.spent})
				tr.Endpoint.Func = script(failing(1000, workertest.Fail(worker.Transient, 500, 0)))
				run(t, tr, worker.Config{MaxAttempts: 3, ExitWhenEmpty: true}, time.Hour)
				tr.Done(t)
				if got := tr.Endpoint.Total().Calls; got != tt.calls {
					t.Errorf("%d calls, want %d", got, tt.calls)
				}
				letters := tr.Queue.Letters()
				if len(letters) != 1 {
					t.Fatalf("%d letters, want 1", len(letters))
				}
				l := letters[0]
				if l.Class != jobs.Exhausted || l.Attempts != tt.letter || l.Status != 500 || l.RequestID != "req_500" {
					t.Errorf("letter %s, want exhausted after %d attempts with status 500", describe(l.DeadLetter), tt.letter)
				}
				if e := tr.Sink.Errors()[key("a")].Error; e == nil || e.Code != jobs.Exhausted || e.Message != l.Reason {
					t.Errorf("error line says %+v, want what the letter says", e)
				}
			})
		})
	}
}

// TestAttemptsSurviveARelease has a job fail, be released and fail again: two
// attempts in two deliveries. What releases it is a closed lane or a drain.
func TestAttemptsSurviveARelease(t *testing.T) {
	t.Run("closed lane", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			tr := workertest.New(t)
			tr.Send("a")
			tr.Endpoint.Func = script(func(n int, _ worker.Call) error {
				if n%2 == 0 {
					return workertest.Fail(worker.Throttled, 429, 30*time.Minute)
				}
				return workertest.Fail(worker.Transient, 500, 0)
			})
			run(t, tr, worker.Config{MaxAttempts: 2, ExitWhenEmpty: true}, 2*time.Hour)
			tr.Done(t)
			if got := tr.Endpoint.Total(); got.Counted != 2 || got.Refused != 1 {
				t.Errorf("%d calls counted and %d refused, want 2 and 1", got.Counted, got.Refused)
			}
		})
	})
	t.Run("drain", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			tr := workertest.New(t)
			tr.Send("a")
			tr.Endpoint.Func = script(failing(1000, workertest.Fail(worker.Transient, 500, 10*time.Minute)))
			cfg := worker.Config{MaxAttempts: 2}
			began := time.Now()
			run(t, tr, cfg, time.Minute) // during the back-off
			if got := time.Since(began); got > time.Minute+time.Second {
				t.Errorf("Run ended after %v, want 1m: a back-off was waited for", got)
			}
			if got := tr.Queue.Visible(); got != 1 {
				t.Errorf("%d messages are visible after the drain, want 1", got)
			}
			cfg.ExitWhenEmpty = true
			run(t, tr, cfg, time.Hour)
			tr.Done(t)
			if got := tr.Endpoint.Total().Counted; got != 2 {
				t.Errorf("%d calls counted, want 2", got)
			}
		})
	})
}

// TestAttemptTimeout wants a call cut off, and counted.
func TestAttemptTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := workertest.New(t)
		tr.Send("a")
		tr.Endpoint.Func = workertest.After(2 * time.Hour)
		began := time.Now()
		run(t, tr, worker.Config{AttemptTimeout: time.Hour, MaxAttempts: 1, ExitWhenEmpty: true}, 12*time.Hour)
		tr.Done(t)
		letters := tr.Queue.Letters()
		if len(letters) != 1 || letters[0].Class != jobs.Exhausted {
			t.Fatalf("letters %v, want one, exhausted", letters)
		}
		if got := letters[0].FirstFailed.Sub(began); got != time.Hour {
			t.Errorf("the call was cut off after %v, want 1h", got)
		}
	})
}

// TestAttemptsAreListed wants the history in the result, bounded.
func TestAttemptsAreListed(t *testing.T) {
	for _, refusals := range []int{2, 100} {
		t.Run(fmt.Sprint(refusals), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tr := workertest.New(t)
				tr.Send("a")
				tr.Endpoint.Func = script(failing(refusals, workertest.Fail(worker.Throttled, 429, time.Second)))
				run(t, tr, worker.Config{ExitWhenEmpty: true}, time.Hour)
				tr.Done(t)
				got := tr.Sink.Results()[key("a")].Upwell.Attempts
				if want := min(refusals+1, 32); len(got) != want {
					t.Fatalf("%d attempts listed, want %d", len(got), want)
				}
				first, last := got[0], got[len(got)-1]
				if first.N != 1 || first.Status != 429 || first.Error == "" || first.Region != "here" || first.Tier != "default" {
					t.Errorf("first attempt %+v, want number 1, refused with 429", first)
				}
				if last.N != refusals+1 || last.Status != 200 || last.Error != "" || last.RequestID != "req_a" {
					t.Errorf("last attempt %+v, want number %d, answered", last, refusals+1)
				}
			})
		})
	}
}
