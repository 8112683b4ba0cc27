package worker_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"upwell/jobs"
	"upwell/throttle"
	"upwell/worker"
	"upwell/worker/workertest"
)

// A setback is something that keeps a worker back.
type setback struct {
	limits func() *throttle.Set // default: no limit to speak of
	cfg    worker.Config
	setup  func(t *testing.T, tr *workertest.Trial, cfg *worker.Config)
	jobs   int // default 3,000; -1: setup sends them
}

// has has a worker kept back for a minute, and wants it to know by what.
func (tt setback) has(t *testing.T, want worker.Bound) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		tr := workertest.New(t)
		if tt.setup != nil {
			tt.setup(t, tr, &tt.cfg)
		}
		switch {
		case tt.jobs == 0:
			tr.Send(ids("j", 3000)...)
		case tt.jobs > 0:
			tr.Send(ids("j", tt.jobs)...)
		}
		limits := steady(1000)
		if tt.limits != nil {
			limits = tt.limits()
		}
		s, stop := start(t, tr, limits, tt.cfg)
		time.Sleep(65 * time.Second)
		stop()
		got := make(map[worker.Bound]int)
		for _, e := range s.of(worker.Sampled)[5:60] {
			got[e.Sample.Bound]++
		}
		if got[want] < 45 {
			t.Errorf("in 55 s it was %v, want %s nearly always", got, want)
		}
	})
}

// TestBoundOfTrouble has what is kept back by what fails, and by one of two lanes.
func TestBoundOfTrouble(t *testing.T) {
	fails := func(op workertest.Op) func(*testing.T, *workertest.Trial, *worker.Config) {
		return func(_ *testing.T, tr *workertest.Trial, _ *worker.Config) { tr.Fault(workertest.Every(1, op, false)) }
	}
	for name, tt := range map[string]struct {
		setback

		want worker.Bound
	}{
		"calls fail": {setback{cfg: worker.Config{Slots: 16, MaxAttempts: 100}, setup: func(_ *testing.T, tr *workertest.Trial, _ *worker.Config) {
			tr.Endpoint.Func = script(func(int, worker.Call) error { return workertest.Fail(worker.Transient, 500, 30*time.Second) })
		}}, worker.BoundErrors},
		"puts fail":     {setback{cfg: worker.Config{Slots: 16}, setup: fails(workertest.Put)}, worker.BoundStore},
		"receives fail": {setback{cfg: worker.Config{Slots: 64}, setup: fails(workertest.Receive)}, worker.BoundQueue},
		"money is slow": {setback{setup: func(t *testing.T, _ *workertest.Trial, cfg *worker.Config) {
			t.Helper()
			p := newTill(t, 0)
			p.slow, p.err = 20*time.Second, errors.New("it is on its way")
			cfg.Purse = p
		}}, worker.BoundBudget},
		"a budget is looked up slowly": {setback{setup: func(t *testing.T, _ *workertest.Trial, cfg *worker.Config) {
			t.Helper()
			p := newTill(t, 0)
			p.slow, p.err, p.unknown = 20*time.Second, errors.New("it is on its way"), true
			cfg.Purse = p
		}}, worker.BoundStore},
		"calls fail, and few jobs come at a time": {setback{cfg: worker.Config{Receivers: 1, MaxAttempts: 5}, setup: func(_ *testing.T, tr *workertest.Trial, _ *worker.Config) {
			tr.Queue.Latency = func(op workertest.Op) time.Duration {
				if op == workertest.Receive {
					return 500 * time.Millisecond
				}
				return 0
			}
			tr.Endpoint.Func = script(func(int, worker.Call) error { return workertest.Fail(worker.Transient, 500, 0) })
		}}, worker.BoundErrors},
		"one lane is closed and the other idle": {setback{jobs: -1, setup: func(_ *testing.T, tr *workertest.Trial, _ *worker.Config) {
			tr.Queue.Send(model("idle", "b"))
			for _, id := range ids("j", 300) {
				tr.Queue.Send(model(id, "a"))
			}
			tr.Endpoint.Func = script(func(_ int, c worker.Call) error {
				if c.Job.Model == "a" {
					return workertest.Fail(worker.Throttled, 429, 10*time.Minute)
				}
				return nil
			})
		}}, worker.BoundQuota},
	} {
		t.Run(name, func(t *testing.T) { tt.has(t, tt.want) })
	}
}

// TestBound has a worker kept back by one thing after another.
func TestBound(t *testing.T) {
	refused := func(kind worker.Kind, status int) func(context.Context, worker.Call) (worker.Answer, error) {
		return script(func(int, worker.Call) error { return workertest.Fail(kind, status, 0) })
	}
	learned := func() *throttle.Set {
		return throttle.NewSet(func(throttle.Lane) throttle.Config { return throttle.Config{Level: throttle.Level{Rate: 10}} })
	}
	slow := func(op workertest.Op, d time.Duration) workertest.Latency {
		return func(o workertest.Op) time.Duration {
			if o == op {
				return d
			}
			return 0
		}
	}
	tests := map[worker.Bound]setback{
		worker.BoundRamp: {
			limits: func() *throttle.Set {
				return throttle.NewSet(func(throttle.Lane) throttle.Config { return throttle.Config{StartRate: 0.2} })
			},
			setup: func(_ *testing.T, tr *workertest.Trial, _ *worker.Config) {
				tr.Endpoint.Func = workertest.After(30 * time.Second)
			},
		},
		worker.BoundQuota: {
			limits: learned,
			setup: func(_ *testing.T, tr *workertest.Trial, _ *worker.Config) {
				tr.Endpoint.Func = refused(worker.Throttled, 429)
			},
		},
		worker.BoundCapacity: {
			limits: learned,
			setup: func(_ *testing.T, tr *workertest.Trial, _ *worker.Config) {
				tr.Endpoint.Func = refused(worker.Unavailable, 503)
			},
		},
		worker.BoundDeadline: {
			limits: learned, jobs: -1,
			setup: func(_ *testing.T, tr *workertest.Trial, _ *worker.Config) {
				for _, id := range ids("j", 300) {
					tr.Queue.Send(ladder(id, time.Now().Add(5*time.Hour), `["flex","default"]`))
				}
				tr.Endpoint.Func = refused(worker.Unavailable, 503)
			},
		},
		worker.BoundInFlight: {
			limits: func() *throttle.Set {
				return throttle.NewSet(func(throttle.Lane) throttle.Config {
					return throttle.Config{StartRate: 100, MaxInFlight: 2}
				})
			},
			setup: func(_ *testing.T, tr *workertest.Trial, _ *worker.Config) {
				tr.Endpoint.Func = workertest.After(10 * time.Second)
			},
		},
		worker.BoundMaxRate: {limits: func() *throttle.Set { return steady(5) }},
		worker.BoundCredential: {
			setup: func(_ *testing.T, tr *workertest.Trial, _ *worker.Config) {
				tr.Endpoint.Func = refused(worker.Unauthorized, 401)
			},
		},
		worker.BoundBudget: {
			setup: func(t *testing.T, _ *workertest.Trial, cfg *worker.Config) { t.Helper(); cfg.Purse = newTill(t, 0) },
		},
		worker.BoundSlots: {
			cfg: worker.Config{Slots: 4},
			setup: func(_ *testing.T, tr *workertest.Trial, _ *worker.Config) {
				tr.Endpoint.Func = workertest.After(10 * time.Second)
			},
		},
		worker.BoundMemory: {
			cfg: worker.Config{Bytes: 1 << 20}, jobs: -1,
			setup: func(_ *testing.T, tr *workertest.Trial, _ *worker.Config) {
				for _, id := range ids("j", 60) {
					tr.Queue.Send(jobs.Message{Body: []byte(strings.Replace(string(workertest.Line(id, "")), "{", "{"+strings.Repeat(" ", 300<<10), 1))})
				}
				tr.Endpoint.Func = workertest.After(10 * time.Second)
			},
		},
		worker.BoundQueue: {
			cfg: worker.Config{Receivers: 1},
			setup: func(_ *testing.T, tr *workertest.Trial, _ *worker.Config) {
				tr.Queue.Latency = slow(workertest.Receive, 500*time.Millisecond)
			},
		},
		worker.BoundStore: {
			cfg: worker.Config{Slots: 16},
			setup: func(_ *testing.T, tr *workertest.Trial, _ *worker.Config) {
				tr.Sink.Latency = slow(workertest.Put, 20*time.Second)
			},
		},
		worker.BoundEmpty: {jobs: 5},
	}
	for want, tt := range tests {
		t.Run(string(want), func(t *testing.T) { tt.has(t, want) })
	}
}

// TestSample has a worker hold messages of a known size, and drain.
func TestSample(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := workertest.New(t)
		tr.Send(ids("j", 40)...)
		tr.Endpoint.Func = workertest.After(time.Minute)
		s, stop := start(t, tr, steady(1000), worker.Config{Slots: 8})
		time.Sleep(30*time.Second + time.Millisecond)
		samples := s.of(worker.Sampled)
		got := samples[len(samples)-1].Sample
		size := int64(len(workertest.Line("j000", "")))
		if n := int64(got.Held); got.Slots != 8 || got.SlotsUsed != 8 || got.Held != 22 || got.Most != 22 || got.Bytes != n*size ||
			got.Oldest < 29*time.Second || got.Oldest > 30*time.Second || len(got.Lanes) != 1 {
			t.Errorf("after half a minute %+v, want 8 slots used, 22 messages of %d bytes held for 30s", got, size)
		}
		time.AfterFunc(20*time.Second, stop)
		time.Sleep(25 * time.Second)
		samples = s.of(worker.Sampled)
		if got := samples[len(samples)-1].Sample; got.Bound != worker.BoundDraining || got.Held != 8 {
			t.Errorf("while it drains %+v, want eight calls waited for", got)
		}
		time.Sleep(time.Minute)
		if n := len(s.of(worker.Sampled)); n > 62 {
			t.Errorf("%d samples, want none after the end", n)
		}
	})
}

// TestRequestsAreTold counts the requests that a job takes, and those that fail.
func TestRequestsAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := workertest.New(t)
		tr.Send("good", "bad", "ugly")
		tr.Fault(workertest.Every(2, workertest.Put, false))
		tr.Endpoint.Func = script(func(_ int, c worker.Call) error {
			if c.Job.CustomID == "bad" {
				return truncated(c)
			}
			return nil
		})
		s := run(t, tr, worker.Config{ExitWhenEmpty: true, LookUp: true}, time.Hour)
		tr.Done(t)
		got, failed := make(map[worker.Op]int), make(map[worker.Op]int)
		for _, e := range s.of(worker.Requested) {
			got[e.Op]++
			if e.Err != nil {
				failed[e.Op]++
			}
		}
		for op, want := range map[worker.Op]int{worker.OpHas: 3, worker.OpPut: 3, worker.OpPutError: 1, worker.OpBury: 1, worker.OpAck: 3} {
			if got[op] != want {
				t.Errorf("%d requests %s, want %d: %v", got[op], op, want, got)
			}
		}
		if failed[worker.OpPut] != 1 || len(failed) != 1 {
			t.Errorf("requests that failed: %v, want one put", failed)
		}
		stored := s.of(worker.Stored)
		if len(stored) != 2 || stored[0].Result == nil || stored[0].Attempts != 1 {
			t.Errorf("stored %+v, want what was stored", stored)
		}
	})
}

// TestLateHeartbeat has the queue take twenty seconds for a heartbeat, once.
func TestLateHeartbeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := workertest.New(t)
		tr.Send("a")
		first := true
		tr.Queue.Latency = func(op workertest.Op) time.Duration {
			if op == workertest.Hide && first {
				first = false // of the two halves of a request
				return 40 * time.Second
			}
			return 0
		}
		tr.Endpoint.Func = workertest.After(3 * time.Minute)
		s := run(t, tr, worker.Config{ExitWhenEmpty: true}, time.Hour)
		late := s.of(worker.Late)
		if len(late) != 1 || late[0].Took != 20*time.Second || late[0].Err != nil {
			t.Errorf("late heartbeats: %+v, want one of 20s", late)
		}
	})
}

// TestLaneCloses has an endpoint that asks for a minute of quiet, once.
func TestLaneCloses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := workertest.New(t)
		tr.Send(ids("j", 5)...)
		tr.Endpoint.Func = script(func(n int, c worker.Call) error {
			if n == 1 && c.Job.CustomID == "j000" {
				return workertest.Fail(worker.Throttled, 429, time.Minute)
			}
			return nil
		})
		s, stop := start(t, tr, throttle.NewSet(nil), worker.Config{})
		time.Sleep(5 * time.Minute)
		stop()
		closed, opened := s.of(worker.Closed), s.of(worker.Opened)
		if len(closed) != 1 || len(opened) != 1 || !closed[0].Rate.ClosedUntil.After(closed[0].At.Add(50*time.Second)) || opened[0].At.Sub(closed[0].At) < time.Minute {
			t.Errorf("closed %+v, opened %+v, want each once, a minute apart", closed, opened)
		}
		if changed := s.of(worker.RateChanged); len(changed) == 0 || changed[0].Rate == nil || changed[0].Lane != closed[0].Lane {
			t.Errorf("rate changed %+v, want its state", changed)
		}
	})
}
