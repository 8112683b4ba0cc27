package dashboard_test

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"upwell/cmd/internal/dashboard"
	"upwell/cmd/internal/metrics"
	"upwell/cmd/internal/progress"
	"upwell/jobs"
	"upwell/throttle"
	"upwell/worker"
)

// An idler is somebody who looks and keeps nothing but the number of messages.
type idler struct {
	http.ResponseWriter

	messages int
}

func (v *idler) Write(p []byte) (int, error) {
	v.messages += bytes.Count(p, []byte("\n\n"))
	return len(p), nil
}

// Unwrap has the recorder beneath flushed, and take no deadlines.
func (v *idler) Unwrap() http.ResponseWriter { return deadlines{v.ResponseWriter} }

type deadlines struct{ http.ResponseWriter }

func (deadlines) Flush()                           {}
func (deadlines) SetWriteDeadline(time.Time) error { return nil }

// oneJob tells the events of a job, as a worker tells them. Every fiftieth fails.
func oneJob(n int, tell func(worker.Event)) {
	key := jobs.Key{Run: "hour", CustomID: fmt.Sprintf("job-%07d", n)}
	lane := throttle.Lane{Region: "us-west-2", Model: fmt.Sprintf("model-%d", n%50), Tier: "flex"}
	message := fmt.Sprintf("message-%d", n)
	now := time.Now()
	tell(worker.Event{Kind: worker.Received, At: now, Message: message, Delivery: &jobs.Message{ID: message, Sent: now, Received: now}})
	tell(worker.Event{Kind: worker.Permitted, At: now, Message: message, Key: key, Lane: lane})
	tell(worker.Event{
		Kind: worker.Attempted, At: now, Message: message, Key: key, Lane: lane, Attempt: jobs.Attempt{N: 1, Started: now, Status: 200},
		Usage: jobs.Usage{InputTokens: 100, OutputTokens: 10}, CostUSD: 0.001,
	})
	end := worker.Event{Kind: worker.Stored, At: now, Message: message, Key: key, Attempts: 1, Result: &jobs.Result{CustomID: key.CustomID}}
	if n%50 == 0 {
		end = worker.Event{Kind: worker.Buried, At: now, Message: message, Key: key, Attempts: 1, Letter: &jobs.DeadLetter{Key: key, Class: jobs.Refused, Reason: "no " + key.CustomID}}
	}
	tell(worker.Event{Kind: worker.Requested, At: now, Message: message, Key: key, Op: worker.OpPut, Took: time.Millisecond})
	tell(end)
	tell(worker.Event{Kind: worker.Requested, At: now, Message: message, Op: worker.OpAck, Took: time.Millisecond})
	if n%97 == 0 {
		tell(worker.Event{Kind: worker.RateChanged, At: now, Lane: lane, Rate: &throttle.State{Rate: float64(n % 30), Reason: "grew"}})
	}
}

// TestAnHour has a worker of 50 jobs a second and fifty models watched for an hour, and
// wants it to hold no more at its end than after ten minutes.
func TestAnHour(t *testing.T) {
	if testing.Short() {
		t.Skip("measures memory")
	}
	synctest.Test(t, func(t *testing.T) {
		meter, counts := progress.NewMeter(), metrics.New("v")
		tell := func(e worker.Event) { meter.Observe(e); counts.Observe(e) }
		d := dashboard.New(dashboard.Config{Meter: meter, Verb: "worker", Loopback: true})
		ctx, leave := context.WithCancel(t.Context())
		req := httptest.NewRequestWithContext(ctx, http.MethodGet, "http://localhost/api/events", nil)
		v := &idler{ResponseWriter: httptest.NewRecorder()}
		var looking sync.WaitGroup
		looking.Go(func() { d.Handler().ServeHTTP(v, req) })
		held := func() uint64 {
			var m runtime.MemStats
			runtime.GC()
			runtime.GC()
			runtime.ReadMemStats(&m)
			return m.HeapAlloc
		}
		var early uint64
		const each = 50
		for second := range 3600 {
			for i := range each {
				oneJob(second*each+i, tell)
			}
			tell(worker.Event{Kind: worker.Sampled, At: time.Now(), Sample: &worker.Sample{
				Slots: 64, SlotsUsed: second % 64, Bound: worker.BoundQuota, Lanes: map[throttle.Lane]throttle.State{{Region: "us-west-2", Model: "model-1", Tier: "flex"}: {Rate: 10}},
			}})
			time.Sleep(time.Second)
			synctest.Wait()
			if second == 600 {
				early = held()
			}
		}
		late := held()
		leave()
		looking.Wait()
		if v.messages < 3500 {
			t.Errorf("the viewer got %d messages in an hour, want one a second", v.messages)
		}
		s := meter.Snapshot(nil)
		if s.Settled != 3600*each || len(s.Lanes) > 33 || len(s.News) > 200 || len(s.Failures) != 1 || len(s.Failures[0].Examples) > 5 || len(s.Series.Rate) > 512 {
			t.Errorf("%d settled, %d lanes, %d news, %d points, failures %+v: want all jobs, and bounds kept", s.Settled, len(s.Lanes), len(s.News), len(s.Series.Rate), s.Failures)
		}
		t.Logf("%.2f MB after ten minutes, %.2f after an hour and %d jobs", float64(early)/1e6, float64(late)/1e6, s.Settled)
		if late > early+1e6 {
			t.Errorf("grown from %.2f to %.2f MB, want at most 1 MB more", float64(early)/1e6, float64(late)/1e6)
		}
	})
}
