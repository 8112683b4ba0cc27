package worker_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"upwell/jobs"
	"upwell/worker"
	"upwell/worker/workertest"
)

// TestLookUp has a job that was answered before. It is paid for again only if
// there was no reason to suspect it, and even then its first result stays.
func TestLookUp(t *testing.T) {
	tests := []struct {
		name string
		m    jobs.Message
		cfg  worker.Config
		has  int // look-ups
	}{
		{"delivered before", jobs.Message{Receives: 1}, worker.Config{}, 1},
		{"sent again", jobs.Message{Again: true}, worker.Config{}, 1},
		{"asked for", jobs.Message{}, worker.Config{LookUp: true}, 1},
		{"unsuspected", jobs.Message{}, worker.Config{}, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tr := workertest.New(t)
				answered(t, tr, "a")
				tt.m.Body = workertest.Line("a", "")
				tr.Queue.Send(tt.m)
				tt.cfg.ExitWhenEmpty = true
				s := run(t, tr, tt.cfg, time.Hour)
				tr.Done(t)
				if got := tr.Sink.Calls(workertest.Has); got != tt.has {
					t.Errorf("looked up %d times, want %d", got, tt.has)
				}
				if got, want := tr.Endpoint.Total().Calls, 1-tt.has; got != want {
					t.Errorf("%d calls, want %d", got, want)
				}
				if got := tr.Sink.Results()[key("a")].Response.RequestID; got != "" {
					t.Errorf("the result is that of call %s, want the first one", got)
				}
				if d, st := len(s.of(worker.Duplicate)), len(s.of(worker.Stored)); d != 1 || st != 0 {
					t.Errorf("told of %d duplicates and %d stored, want 1 and 0", d, st)
				}
			})
		})
	}
}

// TestLookUpOfAnUnansweredJob wants a redelivered job done.
func TestLookUpOfAnUnansweredJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := workertest.New(t)
		tr.Queue.Send(jobs.Message{Body: workertest.Line("a", ""), Receives: 3})
		run(t, tr, worker.Config{ExitWhenEmpty: true}, time.Hour)
		tr.Done(t)
		if has, calls := tr.Sink.Calls(workertest.Has), tr.Endpoint.Total().Calls; has != 1 || calls != 1 {
			t.Errorf("%d look-ups and %d calls, want 1 and 1", has, calls)
		}
	})
}

// TestLookUpIsNotSkipped has the sink unable to tell for half an hour: jobs that
// may have an answer wait, and the others go on.
func TestLookUpIsNotSkipped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := workertest.New(t)
		tr.Send("fresh")
		answered(t, tr, "answered")
		tr.Queue.Send(jobs.Message{Body: workertest.Line("answered", ""), Receives: 1})
		tr.Queue.Send(jobs.Message{Body: workertest.Line("unanswered", ""), Receives: 1})
		back := time.Now().Add(30 * time.Minute)
		var j journal
		tr.Endpoint.Func = j.note(workertest.After(0))
		tr.Sink.Fault = func(op workertest.Op, _ string) (bool, error) {
			if op == workertest.Has && time.Now().Before(back) {
				return false, errors.New("slow down")
			}
			return true, nil
		}
		run(t, tr, worker.Config{ExitWhenEmpty: true}, 2*time.Hour)
		tr.Done(t)
		if at := j.of("fresh"); len(at) != 1 || at[0].After(back) {
			t.Errorf("the fresh job was called at %v, want once before %v", at, back)
		}
		if at := j.of("answered"); len(at) != 0 {
			t.Errorf("the answered job was called at %v, want never", at)
		}
		if at := j.of("unanswered"); len(at) != 1 || at[0].Before(back) || at[0].After(back.Add(time.Minute)) {
			t.Errorf("the other job was called at %v, want once within a minute of %v", at, back)
		}
	})
}

// TestCopies sends a job twice: together, or the second once the first is
// settled. Neither message says that there is another.
func TestCopies(t *testing.T) {
	for _, apart := range []time.Duration{0, 5 * time.Second, 10 * time.Minute} {
		t.Run(apart.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tr := workertest.New(t)
				tr.Endpoint.Func = workertest.After(10 * time.Second)
				_, stop := start(t, tr, steady(1000), worker.Config{})
				tr.Send("a")
				time.Sleep(apart)
				tr.Send("a")
				time.Sleep(10 * time.Minute)
				stop()
				tr.Done(t)
				if got := tr.Endpoint.Total().Calls; got != 1 {
					t.Errorf("%d calls for a job that was sent twice, want 1", got)
				}
			})
		})
	}
}

// TestCopyOfAJobThatFailed wants a job that was dead-lettered, and is sent again,
// to have another chance.
func TestCopyOfAJobThatFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := workertest.New(t)
		refused := workertest.Fail(worker.Permanent, 400, 0)
		refused.Class = jobs.BadRequest
		tr.Endpoint.Func = script(failing(1, refused))
		_, stop := start(t, tr, steady(1000), worker.Config{})
		tr.Send("a")
		time.Sleep(time.Minute)
		tr.Send("a")
		time.Sleep(time.Minute)
		stop()
		if tr.Queue.Len() != 0 || len(tr.Sink.Results()) != 1 || len(tr.Queue.Letters()) != 1 {
			t.Errorf("%d queued, %d results, %d letters, want 0, 1, 1",
				tr.Queue.Len(), len(tr.Sink.Results()), len(tr.Queue.Letters()))
		}
	})
}
