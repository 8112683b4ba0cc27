package worker_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"upwell/worker"
	"upwell/worker/workertest"
)

// TestCredentialGoesBadAndComesBack takes the key away for 30 minutes in the
// middle of a run.
func TestCredentialGoesBadAndComesBack(t *testing.T) {
	for _, status := range []int{401, 403, 404} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tr := workertest.New(t)
				tr.Send(ids("j", 200)...)
				// A queue that took no time would be asked anew before the probe is in line.
				tr.Queue.Latency = func(workertest.Op) time.Duration { return 20 * time.Millisecond }
				bad, good := time.Now().Add(20*time.Second), time.Now().Add(30*time.Minute)
				var j journal
				slow := workertest.After(5 * time.Second)
				tr.Endpoint.Func = j.note(func(ctx context.Context, c worker.Call) (worker.Answer, error) {
					if now := time.Now(); now.After(bad) && now.Before(good) {
						return worker.Answer{}, workertest.Fail(worker.Unauthorized, status, 0)
					}
					return slow(ctx, c)
				})
				const receivers = 3
				s, stop := start(t, tr, steady(1000), worker.Config{Slots: 10, Receivers: receivers, MaxAttempts: 1})
				time.Sleep(time.Until(bad.Add(2 * time.Minute)))
				tr.Check(t)
				receives := tr.Queue.Calls(workertest.Receive)
				for time.Until(good) > time.Minute {
					time.Sleep(7 * time.Second)
					if got := tr.Queue.Held(); got > receivers+2 {
						t.Errorf("%d messages held while the key is bad, want at most %d to probe with", got, receivers+2)
					}
				}
				tr.Check(t)
				// A probe a minute. Each receiver asks for one, and one or two may
				// ask again before it is in line.
				if got, most := tr.Queue.Calls(workertest.Receive)-receives, 28*(receivers+2); got > most {
					t.Errorf("%d receives in 27m of a bad key, want at most %d", got, most)
				}
				if got := j.between(bad.Add(2*time.Minute), good); got > 30 {
					t.Errorf("%d calls in 28m of a bad key, want one a minute", got)
				}
				if got := j.between(bad, bad.Add(2*time.Minute)); got > 20+10 {
					t.Errorf("%d calls when the key went bad, want at most those in flight and a few probes", got)
				}
				time.Sleep(10 * time.Minute)
				stop()
				tr.Done(t)
				if stored, dead := len(tr.Sink.Results()), len(tr.Queue.Letters()); stored != 200 || dead != 0 {
					t.Errorf("stored %d and dead-lettered %d, want 200 and 0", stored, dead)
				}
				if p, r := len(s.of(worker.Paused)), len(s.of(worker.Resumed)); p != 1 || r != 1 {
					t.Errorf("told %d times that it paused and %d that it resumed, want once each", p, r)
				}
			})
		})
	}
}

// TestCredentialIsMendedAndCallsFail has a credential be good again while calls fail
// otherwise: they are let in, and the worker says so.
func TestCredentialIsMendedAndCallsFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := workertest.New(t)
		tr.Send(ids("j", 50)...)
		mended := time.Now().Add(time.Minute)
		tr.Endpoint.Func = script(func(int, worker.Call) error {
			if time.Now().Before(mended) {
				return workertest.Fail(worker.Unauthorized, 401, 0)
			}
			return workertest.Fail(worker.Transient, 500, 0)
		})
		s, stop := start(t, tr, steady(1000), worker.Config{MaxAttempts: 100})
		time.Sleep(50 * time.Second)
		if p, r := len(s.of(worker.Paused)), len(s.of(worker.Resumed)); p != 1 || r != 0 {
			t.Errorf("with a bad credential told %d times that it paused and %d that it resumed, want once and never", p, r)
		}
		time.Sleep(3 * time.Minute)
		stop()
		if p, r := len(s.of(worker.Paused)), len(s.of(worker.Resumed)); p != 1 || r != 1 {
			t.Errorf("with a mended one told %d times that it paused and %d that it resumed, want once each", p, r)
		}
	})
}

// TestCredentialIsBadInOneLane has one lane unauthorized while another works.
func TestCredentialIsBadInOneLane(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := workertest.New(t)
		for _, id := range ids("j", 50) {
			tr.Queue.Send(model("bad-"+id, "bad"))
			tr.Queue.Send(model("good-"+id, "good"))
		}
		fixed := time.Now().Add(time.Hour)
		tr.Endpoint.Func = script(func(_ int, c worker.Call) error {
			if c.Job.Model == "bad" && time.Now().Before(fixed) {
				return workertest.Fail(worker.Unauthorized, 403, 0)
			}
			return nil
		})
		_, stop := start(t, tr, steady(5), worker.Config{Slots: 4, MaxAttempts: 1, MaxReceives: 2})
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		tr.Check(t)
		if got := len(tr.Sink.Results()); got != 50 {
			t.Errorf("after 10m there are %d results, want the 50 of the good lane", got)
		}
		time.Sleep(2 * time.Hour)
		stop()
		tr.Done(t)
		if got := len(tr.Sink.Results()); got != 100 {
			t.Errorf("%d results, want 100", got)
		}
	})
}

// TestDrainWithABadCredential wants nothing held back.
func TestDrainWithABadCredential(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := workertest.New(t)
		tr.Send(ids("j", 50)...)
		tr.Endpoint.Func = script(func(int, worker.Call) error { return workertest.Fail(worker.Unauthorized, 401, 0) })
		began := time.Now()
		run(t, tr, worker.Config{}, 10*time.Minute)
		if got := time.Since(began); got > 10*time.Minute+2*linger { // and as long again until the queue has noticed
			t.Errorf("Run ended after %v, want at once", got)
		}
		if got := tr.Queue.Len(); got != 50 {
			t.Errorf("%d messages queued, want 50", got)
		}
		if got := tr.Queue.Held(); got != 0 {
			t.Errorf("%d messages held after the drain, want 0", got)
		}
	})
}
