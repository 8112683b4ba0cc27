package dashboard

import (
	"fmt"
	"testing"
	"time"

	"upwell/cmd/internal/progress"
	"upwell/throttle"
	"upwell/worker"
)

// BenchmarkFrame is what a second costs while somebody looks, however many do: histories
// are full, of four lanes.
func BenchmarkFrame(b *testing.B) {
	m := progress.NewMeter()
	began := time.Now()
	lanes := make(map[throttle.Lane]throttle.State)
	for i := range 4 {
		lanes[throttle.Lane{Region: fmt.Sprint("us-west-", i), Model: "xai.grok-4.3", Tier: "flex"}] = throttle.State{Rate: 20}
	}
	for i := range 4 * 500 {
		at := began.Add(time.Duration(i) * 250 * time.Millisecond / 4)
		for l, s := range lanes {
			s.Rate += float64(i%7) / 7
			m.Observe(worker.Event{Kind: worker.RateChanged, At: at, Lane: l, Rate: &s})
			m.Observe(worker.Event{Kind: worker.Attempted, At: at, Lane: l, Outcome: throttle.Accepted})
		}
	}
	d := New(Config{Meter: m})
	b.ReportAllocs()
	for b.Loop() {
		d.mu.Lock()
		d.next()
		d.mu.Unlock()
	}
	b.ReportMetric(float64(len(d.last.full)), "B-full")
}
