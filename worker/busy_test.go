package worker_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"upwell/worker"
	"upwell/worker/workertest"
)

// TestSlotsStayBusy has a queue and a sink that are 20 ms away and calls of
// 200 ms. A slot that was held from the request for a message to its deletion
// would be idle for a quarter of the time.
func TestSlotsStayBusy(t *testing.T) {
	const call, trip, ramp, span = 200 * time.Millisecond, 20 * time.Millisecond, time.Second, 4 * time.Second
	for _, slots := range []int{64, 256, 400} {
		t.Run(fmt.Sprint(slots), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tr := workertest.New(t)
				tr.Queue.Latency = func(workertest.Op) time.Duration { return trip }
				tr.Sink.Latency = tr.Queue.Latency
				tr.Endpoint.Func = workertest.After(call)
				tr.Send(ids("j", 2*slots*int((ramp+span)/call))...)
				_, stop := start(t, tr, steady(100_000), worker.Config{Slots: slots})
				time.Sleep(ramp)
				before := tr.Endpoint.Total().Calls
				time.Sleep(span)
				calls, ideal := tr.Endpoint.Total().Calls-before, slots*int(span/call)
				if calls < ideal*95/100 {
					t.Errorf("%d calls in %v, want at least 95 %% of %d", calls, span, ideal)
				}
				t.Logf("%d slots: %.1f %% busy", slots, 100*float64(calls)/float64(ideal))
				stop()
			})
		})
	}
}
