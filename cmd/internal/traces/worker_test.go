package traces_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"upwell/cmd/internal/traces"
	"upwell/jobs"
	"upwell/throttle"
	"upwell/worker"
	"upwell/worker/workertest"
)

// answers returns an endpoint that fails the n-th call for a job as errs say, each call
// in a second, and answers when there are no more.
func answers(errs ...func(worker.Call) error) func(context.Context, worker.Call) (worker.Answer, error) {
	var mu sync.Mutex
	n := 0
	return func(ctx context.Context, c worker.Call) (worker.Answer, error) {
		ans, err := workertest.After(time.Second)(ctx, c)
		mu.Lock()
		defer mu.Unlock()
		if n++; err == nil && n <= len(errs) {
			return worker.Answer{}, errs[n-1](c)
		}
		return ans, err
	}
}

func refuse(worker.Call) error { return workertest.Fail(worker.Throttled, 429, 2*time.Second) }
func shut(worker.Call) error   { return workertest.Fail(worker.Throttled, 429, 30*time.Minute) }
func spoil(worker.Call) error {
	return &worker.Error{Kind: worker.Permanent, Class: jobs.BadRequest, Status: 400, Err: errors.New(reason)}
}

func misshape(c worker.Call) error {
	return &worker.Error{
		Kind: worker.Permanent, Class: jobs.SchemaFailed, Status: 200, Findings: findings, Answer: new(workertest.Answer(c)), Err: errors.New(reason),
	}
}

// storing is how long it takes to store something.
const storing = 500 * time.Millisecond

// work sends a job and has a worker see it to its end. It returns the story, without
// its first line, which says how long the sending took.
func work(t *testing.T, f func(context.Context, worker.Call) (worker.Answer, error)) string {
	t.Helper()
	var story string
	synctest.Test(t, func(t *testing.T) {
		tr, got := traces.Recorded(false)
		trial := workertest.New(t)
		trial.Endpoint.Func = f
		trial.Sink.Latency = func(op workertest.Op) time.Duration {
			if op == workertest.Put || op == workertest.PutError {
				return storing
			}
			return 0
		}
		tr.SetQueue("jobs")
		carry, end := tr.Send("jobs", jobs.Key{Run: "default", CustomID: "a"}, time.Now())
		trial.Queue.Send(jobs.Message{Body: workertest.Line("a", ""), Trace: carry})
		end(nil)
		time.Sleep(time.Second) // in the queue
		w, err := worker.New(trial.Queue, trial.Endpoint, trial.Sink, throttle.NewSet(func(throttle.Lane) throttle.Config {
			return throttle.Config{StartRate: 100, MinRate: 100, MaxRate: 100}
		}), worker.Config{Regions: []string{"here"}, ExitWhenEmpty: true, Observe: tr.Observe})
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Run(t.Context()); err != nil {
			t.Errorf("Run = %v, want nil", err)
		}
		trial.Done(t)
		wantTrace(t, got.Ended())
		if messages, puts := tr.Holding(); messages+puts != 0 || len(got.Started()) != len(got.Ended()) {
			t.Errorf("%d messages, %d requests and %d spans are left over", messages, puts, len(got.Started())-len(got.Ended()))
		}
		_, story, _ = strings.Cut(brief(got.Ended()), "\n")
	})
	return story
}

// TestWorker tells what became of a job in the hands of the real worker.
func TestWorker(t *testing.T) {
	for _, tt := range []struct {
		name string
		f    func(context.Context, worker.Call) (worker.Answer, error)
		want string
	}{
		{"stored", answers(), `
    process jobs (consumer) 1s-2.5s
        chat m (client) 1s-2s
        store (client) 2s-2.5s
`},
		{"refused, then stored", answers(refuse), `
    process jobs (consumer) 1s-5.5s
        chat m (client) 1s-2s failed: throttled
        wait for permit (internal) 2s-4s
        chat m (client) 4s-5s
        store (client) 5s-5.5s
`},
		{"repaired", answers(misshape), `
    process jobs (consumer) 1s-3.5s
        chat m (client) 1s-2s failed: schema
        chat m (client) 2s-3s
        store (client) 3s-3.5s
`},
		{"buried", answers(spoil), `
    process jobs (consumer) 1s-2.5s failed: bad_request
        chat m (client) 1s-2s failed: bad_request
        store (client) 2s-2.5s
`},
		{"released and redelivered", answers(shut), `
    process jobs (consumer) 1s-2s
      ! released at 2s upwell.delay_seconds=1800 upwell.why=lane_closed
        chat m (client) 1s-2s failed: throttled
    process jobs (consumer) 30m2s-30m3.5s
        chat m (client) 30m2s-30m3s
        store (client) 30m3s-30m3.5s
`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := "\n" + work(t, tt.f)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}
