package worker_test

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"upwell/throttle"
	"upwell/worker"
	"upwell/worker/workertest"
)

// TestExitWhenEmpty has a message that somebody else holds, and does not settle:
// it is waited for.
func TestExitWhenEmpty(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := workertest.New(t)
		tr.Send("a", "b")
		if ms, err := tr.Queue.Receive(t.Context(), 1, 10*time.Minute); len(ms) != 1 || err != nil {
			t.Fatalf("Receive = %v, %v, want a message", ms, err)
		}
		began := time.Now()
		run(t, tr, worker.Config{ExitWhenEmpty: true}, time.Hour)
		tr.Done(t)
		if got := time.Since(began); got < 10*time.Minute || got > 12*time.Minute {
			t.Errorf("Run ended after %v, want soon after 10m", got)
		}
	})
}

// TestExitWhenEmptyWaits has calls under way, and a queue that cannot say.
func TestExitWhenEmptyWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := workertest.New(t)
		tr.Send("a")
		tr.Endpoint.Func = workertest.After(10 * time.Minute)
		tr.Queue.Fault = workertest.Burst(5*time.Minute, workertest.Empty, false)
		began := time.Now()
		run(t, tr, worker.Config{ExitWhenEmpty: true}, time.Hour)
		tr.Done(t)
		if got := time.Since(began); got < 15*time.Minute || got > 17*time.Minute {
			t.Errorf("Run ended after %v, want soon after 15m", got)
		}
	})
}

// TestEmptyFor has jobs come late, one of them while another is under way: the wait
// begins anew with each.
func TestEmptyFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := workertest.New(t)
		tr.Endpoint.Func = workertest.After(2 * time.Minute)
		began := time.Now()
		for _, late := range []struct {
			id string
			by time.Duration
		}{{"first", 50 * time.Second}, {"second", 210 * time.Second}} {
			time.AfterFunc(late.by, func() { tr.Send(late.id) })
		}
		run(t, tr, worker.Config{ExitWhenEmpty: true, EmptyFor: time.Minute}, time.Hour)
		tr.Done(t)
		// The second ends at 330 s, and is seen to be under way until a poll before that.
		if got := time.Since(began); got < 370*time.Second || got > 430*time.Second {
			t.Errorf("Run ended after %v, want about a minute after the last call, at 390s", got)
		}
	})
}

// TestStart wants what nobody can wait out reported at the start, and only there.
func TestStart(t *testing.T) {
	permanent := &worker.Error{Kind: worker.Permanent, Err: errors.New("no such queue")}
	unauthorized := &worker.Error{Kind: worker.Unauthorized, Err: errors.New("access denied")}
	tests := []struct {
		name  string
		err   error
		after int // receives that work
		fatal bool
	}{
		{"permanent at the start", permanent, 0, true},
		{"unauthorized at the start", unauthorized, 0, true},
		{"transient at the start", errors.New("connection refused"), 0, false},
		{"throttled at the start", &worker.Error{Kind: worker.Throttled, Err: errors.New("slow down")}, 0, false},
		{"permanent later", permanent, 3, false},
		{"unauthorized later", unauthorized, 3, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tr := workertest.New(t)
				tr.Send(ids("j", 50)...)
				began := time.Now()
				calls := 0
				tr.Queue.Fault = func(op workertest.Op, _ string) (bool, error) {
					if op != workertest.Receive {
						return true, nil
					}
					if calls++; calls > tt.after && time.Since(began) < 10*time.Minute {
						return false, tt.err
					}
					return true, nil
				}
				s := newSubject(t, tr, steady(1000), worker.Config{Receivers: 1, Slots: 4, ExitWhenEmpty: true})
				err := s.Run(t.Context())
				if tt.fatal {
					if !errors.Is(err, tt.err) || !strings.HasPrefix(err.Error(), "receive: ") {
						t.Errorf("Run = %v, want receive: %v", err, tt.err)
					}
					if got := time.Since(began); got > time.Second {
						t.Errorf("Run ended after %v, want at once", got)
					}
					return
				}
				if err != nil {
					t.Errorf("Run = %v, want nil", err)
				}
				tr.Done(t)
				if calls > 500 {
					t.Errorf("%d receives in ten bad minutes, want a pause between them", calls)
				}
			})
		})
	}
}

func TestConfig(t *testing.T) {
	here := []string{"here"}
	tests := []struct {
		name string
		cfg  worker.Config
		err  string // part of it, or empty
	}{
		{"defaults", worker.Config{Regions: here}, ""},
		{"one slot", worker.Config{Regions: here, Slots: 1}, ""},
		{"no region", worker.Config{}, "no region"},
		{"slots", worker.Config{Regions: here, Slots: -1}, "negative"},
		{"bytes", worker.Config{Regions: here, Bytes: -1}, "negative"},
		{"receivers", worker.Config{Regions: here, Receivers: -1}, "negative"},
		{"attempts", worker.Config{Regions: here, MaxAttempts: -1}, "negative"},
		{"receives", worker.Config{Regions: here, MaxReceives: -1}, "negative"},
		{"timeout", worker.Config{Regions: here, AttemptTimeout: -1}, "negative"},
		{"escalate", worker.Config{Regions: here, Escalate: -1}, "negative"},
		{"allowed", worker.Config{Regions: here, Allow: []string{"there", "here"}}, ""},
		{"not allowed", worker.Config{Regions: here, Allow: []string{"there"}}, "no region of [here] is allowed: Allow lists [there]"},
		{"drain", worker.Config{Regions: here, Drain: -1}, "negative"},
		{"long timeout", worker.Config{Regions: here, AttemptTimeout: 7 * time.Hour}, "at most 6h"},
		{"run", worker.Config{Regions: here, Run: "a/b"}, "run: "},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tr := workertest.New(t)
			w, err := worker.New(tr.Queue, tr.Endpoint, tr.Sink, throttle.NewSet(nil), tt.cfg)
			switch {
			case tt.err == "" && (err != nil || w == nil):
				t.Errorf("New = %v, %v, want a worker", w, err)
			case tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)):
				t.Errorf("New = %v, want an error with %q", err, tt.err)
			}
		})
	}
}
