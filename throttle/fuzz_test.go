package throttle_test

import (
	"context"
	"errors"
	"math"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"upwell/throttle"
)

// A script is what happens to a limiter: each byte is one event.
type script struct {
	set      *throttle.Set
	l        *throttle.Limiter
	gone     sync.WaitGroup
	mu       sync.Mutex
	finished int
}

// call gets a permit, however often it is sent away, unless ctx is done.
func (s *script) call(ctx context.Context, c throttle.Cost, f throttle.Feedback, took time.Duration) {
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.finished++
	}()
	for {
		p, err := s.l.Acquire(ctx, c)
		if e, ok := errors.AsType[*throttle.ClosedError](err); ok {
			time.Sleep(time.Until(e.Until))
			continue
		}
		if err != nil {
			return
		}
		if took == 3100*ms {
			p.Cancel()
			return
		}
		time.Sleep(took)
		if took > 2500*ms {
			p = p.Started()
		}
		p.Done(f)
		return
	}
}

// FuzzLimiter holds a limiter to its promises whatever happens to it: the rate
// keeps its bounds, the counts add up, everybody gets through, and when all is well
// again the rate grows.
func FuzzLimiter(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{0, 0, 1, 2, 3, 4, 5, 6, 7})
	f.Add([]byte{1, 0, 0, 0, 1, 1, 9, 17, 5, 0, 0, 6, 0, 255, 128, 64})
	f.Add([]byte{2, 0, 5, 0, 7, 7, 0, 3, 7, 7, 0, 2, 0, 7, 4, 4, 12})
	f.Add([]byte{3, 0, 5, 0, 7, 7, 0, 3, 7, 7, 0, 2, 0, 7, 4, 4, 12, 13, 21})
	f.Add([]byte{4, 1, 1, 1, 1, 6, 6, 2, 2, 2, 7, 10, 7, 18, 7, 26, 9, 15, 15})
	f.Add([]byte{0x30}) // a level with one in flight, where rate and wall are both waited for
	f.Add([]byte{8, 8, 0, 0, 9, 15, 9, 15, 9, 15, 9, 15, 61, 15, 29, 15})
	f.Fuzz(func(t *testing.T, events []byte) {
		events = events[:min(len(events), 200)]
		var kind byte
		if len(events) > 0 {
			kind, events = events[0], events[1:]
		}
		synctest.Test(t, func(t *testing.T) {
			const minRate, maxRate = 1, 30
			cfg := throttle.Config{
				StartRate: 5, MinRate: minRate, MaxRate: maxRate,
				Guided: kind&3 == 1, Shared: kind&3 == 2, MaxInFlight: int(kind >> 2 & 3 * 2),
			}
			if kind&16 > 0 {
				cfg.Level = throttle.Level{Rate: 50, InFlight: int(kind >> 5), Tokens: 100, Weight: 0.5}
			}
			s := &script{set: throttle.NewSet(func(throttle.Lane) throttle.Config { return cfg })}
			s.l = s.set.Limiter(flex)
			callers := 0
			for _, e := range events {
				size := e >> 3 // 0 to 31
				long := func(unit time.Duration) time.Duration { return time.Duration(size) * unit }
				c := throttle.Cost{Input: int(size) * int(size), Output: int(size&1) * 1000}
				switch kind := e & 7; kind {
				case 0, 1, 2, 3:
					f := throttle.Feedback{Outcome: throttle.Outcome(kind), Used: throttle.Cost{Input: int(size & 4 * 10), Output: int(size & 8 * 10)}}
					if size%4 == 3 {
						f.RetryAfter = long(time.Second)
					}
					callers++
					s.gone.Go(func() { s.call(t.Context(), c, f, long(100*ms)) })
				case 4:
					callers++
					s.gone.Go(func() {
						ctx, cancel := context.WithTimeout(t.Context(), long(100*ms))
						defer cancel()
						s.call(ctx, c, throttle.Feedback{}, long(time.Second))
					})
				case 5:
					if size&1 == 0 {
						s.l.Close(time.Now().Add(long(time.Second)-4*time.Second), "test")
					} else {
						s.set.Share(of(int(size>>1&3), float64(size>>3*20)), throttle.Share{})
					}
				case 6:
					time.Sleep(long(50 * ms))
				case 7:
					time.Sleep(long(time.Second))
				}
				synctest.Wait()
				s.check(t, callers, minRate, maxRate)
			}
			through := make(chan struct{})
			go func() { s.gone.Wait(); close(through) }()
			select {
			case <-through:
			case <-time.After(4 * time.Hour): // 200 calls at 1/s, each of 16 times the mean at most, probes of 5 s and closures of 31 s
				t.Fatalf("after %v: still %+v, want nobody in line", events, s.l.State())
			}
			s.check(t, callers, minRate, maxRate)
			if st := s.l.State(); st.InFlight != 0 || st.Waiting != 0 {
				t.Errorf("after %v: %d in flight and %d waiting, want none", events, st.InFlight, st.Waiting)
			}
			time.Sleep(time.Until(s.l.State().ClosedUntil))
			s.set.Share(nil, throttle.Share{})
			before := s.l.State().Rate
			long := 3 * time.Minute
			if cfg.Guided {
				long = 16 * time.Minute
			}
			stop := load(t, s.l, newEndpoint(1e6, 10*ms), 4)
			time.Sleep(long)
			stop()
			if got := s.l.State(); got.Rate <= before && got.Rate < maxRate || math.IsNaN(got.Rate) {
				t.Errorf("after %v and %v of acceptance: from %v/s to %+v, want growth", events, long, before, got)
			}
		})
	})
}

func (s *script) check(t *testing.T, callers int, minRate, maxRate float64) {
	t.Helper()
	st := s.l.State()
	s.mu.Lock()
	finished := s.finished
	s.mu.Unlock()
	if !(st.Rate >= minRate && st.Rate <= maxRate) || !(st.Stable >= 0) || math.IsInf(st.Stable, 0) {
		t.Errorf("rate = %v, stable %v, want %v to %v", st.Rate, st.Stable, minRate, maxRate)
	}
	if st.InFlight < 0 || st.Waiting < 0 || st.InFlight+st.Waiting > callers-finished {
		t.Errorf("%d in flight and %d waiting, want %d at most", st.InFlight, st.Waiting, callers-finished)
	}
	if done := st.Accepted + st.Throttled + st.Unavailable + st.Unrelated; done > int64(finished) {
		t.Errorf("%d permits done by %d callers", done, finished)
	}
	if n, again := s.l.Room(); n < 0 || n == 0 && !again.After(time.Now()) {
		t.Errorf("Room = %d, again %v, want room or a later time", n, again)
	}
}
