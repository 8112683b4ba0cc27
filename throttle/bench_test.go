package throttle_test

import (
	"testing"

	"upwell/throttle"
)

// unlimited lets calls pass as fast as they come.
var unlimited = throttle.Config{StartRate: 1e9, MaxRate: 1e9}

func BenchmarkAcquireDone(b *testing.B) {
	l := throttle.New(unlimited)
	ctx := b.Context()
	b.ReportAllocs()
	for b.Loop() {
		p, err := l.Acquire(ctx, throttle.Cost{})
		if err != nil {
			b.Fatal(err)
		}
		p.Done(throttle.Feedback{})
	}
}

func BenchmarkAcquireDoneContended(b *testing.B) {
	l := throttle.New(unlimited)
	ctx := b.Context()
	b.ReportAllocs()
	b.SetParallelism(256)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			p, err := l.Acquire(ctx, throttle.Cost{})
			if err != nil {
				b.Error(err)
				return
			}
			p.Done(throttle.Feedback{})
		}
	})
}

func TestAcquireAllocatesNothing(t *testing.T) {
	l := throttle.New(unlimited)
	got := testing.AllocsPerRun(1000, func() {
		p, err := l.Acquire(t.Context(), throttle.Cost{})
		if err != nil {
			t.Fatal(err)
		}
		p.Done(throttle.Feedback{})
	})
	if got != 0 {
		t.Errorf("Acquire and Done allocate %v times, want 0", got)
	}
}
