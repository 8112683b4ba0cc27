package throttle_test

import (
	"context"
	"errors"
	"math"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/time/rate"

	"upwell/throttle"
)

// Changes of one line that these tests have been seen to catch:
//
//   - done: a 503 does not cut
//   - blocked: only the time when the wait began counts (a low rate never grows)
//   - grow: grows with nobody in line; no maxStep; no max; does not double after
//     an outage, or doubles before an answer came; the slope follows the rate
//     alone, or the level alone
//   - cut: no min; old refusals cut; level follows each cut (an outage is
//     learned from); slow start goes on; an old answer proves a new rate
//   - cutTo of 0.99; doubling of 200 ms; climb of a second; fresh of 20 s
//   - Done and wake: the line is not told of a change

// An endpoint has a capacity of its own: a token bucket with half a second in it.
type endpoint struct {
	bucket *rate.Limiter
	took   time.Duration // an answer takes; a refusal takes 50 ms

	mu   sync.Mutex
	down bool
}

func newEndpoint(r float64, took time.Duration) *endpoint {
	return &endpoint{bucket: rate.NewLimiter(rate.Limit(r), int(math.Ceil(r/2))), took: took}
}

func (e *endpoint) setDown(down bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.down = down
}

func (e *endpoint) call() throttle.Outcome {
	e.mu.Lock()
	down := e.down
	e.mu.Unlock()
	switch {
	case down:
		time.Sleep(50 * ms)
		return throttle.Unavailable
	case !e.bucket.Allow():
		time.Sleep(50 * ms)
		return throttle.Throttled
	default:
		time.Sleep(e.took)
		return throttle.Accepted
	}
}

// load keeps n callers busy with the endpoint until stop is called, which waits
// for them.
func load(t *testing.T, l *throttle.Limiter, e *endpoint, n int) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var gone sync.WaitGroup
	for range n {
		gone.Go(func() {
			for {
				p, err := l.Acquire(ctx, throttle.Cost{})
				if err != nil {
					return
				}
				p.Done(throttle.Feedback{Outcome: e.call()})
			}
		})
	}
	return func() {
		cancel()
		gone.Wait()
	}
}

// calls returns what a limiter has had accepted and refused since before.
func calls(l *throttle.Limiter, before throttle.State) (accepted, refused float64) {
	s := l.State()
	return float64(s.Accepted - before.Accepted),
		float64(s.Throttled + s.Unavailable - before.Throttled - before.Unavailable)
}

func TestFindsTheCapacity(t *testing.T) {
	for _, tt := range []struct {
		name     string
		capacity float64
		took     time.Duration
		callers  int
		settle   time.Duration
		used     float64 // part of the capacity, at least
	}{
		{"50/s, quick", 50, time.Second, 100, 10 * time.Second, 0.9},
		{"50/s, slow", 50, 10 * time.Second, 800, 30 * time.Second, 0.9},
		{"200/s", 200, time.Second, 400, 20 * time.Second, 0.9},
		{"2/s", 2, 5 * time.Second, 30, 60 * time.Second, 0.75}, // a bucket of one call
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := throttle.New(throttle.Config{})
				stop := load(t, l, newEndpoint(tt.capacity, tt.took), tt.callers)
				time.Sleep(tt.settle)
				before := l.State()
				const span = 3 * time.Minute
				time.Sleep(span)
				accepted, refused := calls(l, before)
				_, all := calls(l, throttle.State{})
				stop()
				used := accepted / (tt.capacity * span.Seconds())
				t.Logf("%.1f %% used, %.2f %% refused, %v refused in all", 100*used, 100*refused/(accepted+refused), all)
				if used < tt.used {
					t.Errorf("%.1f %% of the capacity used, want %.0f %%", 100*used, 100*tt.used)
				}
				if refused > 0.03*accepted {
					t.Errorf("%v of %v calls refused, want 3 %%", refused, accepted+refused)
				}
			})
		})
	}
}

// Two workers that know nothing of each other, and start apart, end up with equal
// shares.
func TestSharesTheCapacity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEndpoint(50, time.Second)
		a, b := throttle.New(throttle.Config{}), throttle.New(throttle.Config{})
		stopA := load(t, a, e, 100)
		time.Sleep(time.Minute)
		stopB := load(t, b, e, 100)
		time.Sleep(2 * time.Minute)
		beforeA, beforeB := a.State(), b.State()
		const span = 5 * time.Minute
		time.Sleep(span)
		gotA, refusedA := calls(a, beforeA)
		gotB, refusedB := calls(b, beforeB)
		stopA()
		stopB()
		sum := gotA + gotB
		t.Logf("shares of %.3f and %.3f of %.1f %%, %.2f %% refused", gotA/sum, gotB/sum,
			100*sum/(50*span.Seconds()), 100*(refusedA+refusedB)/sum)
		if share := gotA / sum; math.Abs(share-0.5) > 0.15 {
			t.Errorf("shares of %.2f and %.2f, want within 30 %% of a half", share, 1-share)
		}
		if used := sum / (50 * span.Seconds()); used < 0.85 {
			t.Errorf("%.1f %% of the capacity used, want 85 %%", 100*used)
		}
		if refusedA+refusedB > 0.05*sum {
			t.Errorf("%v of %v calls refused, want 5 %%", refusedA+refusedB, sum)
		}
	})
}

func TestFollowsTheCapacity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, e := throttle.New(throttle.Config{}), newEndpoint(50, time.Second)
		stop := load(t, l, e, 300)
		for _, capacity := range []float64{50, 5, 100} {
			e.bucket.SetLimit(rate.Limit(capacity))
			time.Sleep(5 * time.Minute)
			before := l.State()
			time.Sleep(time.Minute)
			accepted, refused := calls(l, before)
			t.Logf("%.1f/s of %v/s, %v refused", accepted/60, capacity, refused)
			if accepted < 0.8*60*capacity || refused > 0.05*accepted {
				t.Errorf("%v accepted and %v refused in a minute at %v/s, want 80 %% and 5 %%", accepted, refused, capacity)
			}
		}
		stop()
	})
}

// However long the endpoint was away, and however far the rate fell meanwhile,
// the lane is back within two minutes.
func TestOutageIsNotLearned(t *testing.T) {
	for _, away := range []time.Duration{time.Second, 10 * time.Second, 2 * time.Minute, time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			l, e := throttle.New(throttle.Config{}), newEndpoint(50, time.Second)
			stop := load(t, l, e, 100)
			time.Sleep(time.Minute)
			before := l.State()
			e.setDown(true)
			time.Sleep(away)
			_, refused := calls(l, before)
			e.setDown(false)
			fell := l.State().Rate
			time.Sleep(2 * time.Minute)
			got := l.State().Rate
			stop()
			t.Logf("away for %v: %v refused, from %.1f/s to %.2f/s, and back at %.1f/s", away, refused, before.Rate, fell, got)
			if got < 35 {
				t.Errorf("2m after an outage of %v: %.2f/s, want 35/s at least", away, got)
			}
			if limit := 20 + away.Seconds()/10; refused > limit {
				t.Errorf("%v calls refused in an outage of %v, want at most %v", refused, away, limit)
			}
		})
	}
}

// A limit that nobody touches says nothing about capacity.
func TestGrowsOnlyWhileSomebodyWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := throttle.New(throttle.Config{StartRate: 10})
		for range 60 {
			acquire(t, l).Done(throttle.Feedback{})
			time.Sleep(time.Second)
		}
		if got := l.State().Rate; got != 10 {
			t.Errorf("rate after a minute without a line = %v, want 10", got)
		}
		ln := stand(t, l, 2)
		ln.gone.Wait() // the second had to wait
		ln.left[0].permit.Done(throttle.Feedback{})
		if got, want := l.State().Rate, 10*math.Sqrt2; !near(got, want) { // one observation is worth a second
			t.Errorf("rate after a line = %v, want %v", got, want)
		}
		time.Sleep(2*time.Second + 1)
		ln.left[1].permit.Done(throttle.Feedback{})
		if got, want := l.State().Rate, 10*math.Sqrt2; !near(got, want) {
			t.Errorf("rate long after the line = %v, want %v still", got, want)
		}
	})
}

func TestSlowStartDoubles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := throttle.New(throttle.Config{StartRate: 10, MaxRate: 1000})
		stop := load(t, l, newEndpoint(1e6, ms), 100)
		time.Sleep(2 * ms) // the first answer stands for a second
		for _, want := range []float64{14.1, 28.3, 56.6, 113.1, 226.3, 452.5, 905.1, 1000, 1000} {
			if got := l.State().Rate; math.Abs(got-want) > 0.03*want {
				t.Errorf("rate = %.1f, want %.1f", got, want)
			}
			time.Sleep(2 * time.Second)
		}
		stop()
	})
}

// What a refusal cost is won back in half a minute, in equal steps.
func TestClimbsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := throttle.New(throttle.Config{StartRate: 100})
		acquire(t, l).Done(throttle.Feedback{Outcome: throttle.Throttled})
		stop := load(t, l, newEndpoint(1e6, ms), 10)
		for i := range 7 {
			if got, want := l.State().Rate, 70+5*float64(i); math.Abs(got-want) > 0.2 {
				t.Errorf("rate %ds after the refusal = %.2f, want %.0f", 5*i, got, want)
			}
			time.Sleep(5 * time.Second)
		}
		stop()
	})
}

// At a call in ten seconds, an answer that takes four comes when nobody has begun
// to wait for a while, and somebody waits all the same.
func TestLowRatesGrow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := throttle.New(throttle.Config{StartRate: 0.1})
		stop := load(t, l, newEndpoint(1e6, 4*time.Second), 10)
		time.Sleep(time.Minute)
		if got := l.State().Rate; got < 0.3 {
			t.Errorf("rate after a minute = %.2f, want 0.3 at least", got)
		}
		stop()
	})
}

func TestBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := throttle.New(throttle.Config{StartRate: 10, MinRate: 2, MaxRate: 20})
		for range 10 {
			acquire(t, l).Done(throttle.Feedback{Outcome: throttle.Unavailable})
		}
		if got := l.State().Rate; got != 2 {
			t.Errorf("rate after ten refusals = %v, want 2", got)
		}
		stop := load(t, l, newEndpoint(1e6, ms), 10)
		time.Sleep(5 * time.Minute)
		if got := l.State().Rate; got != 20 {
			t.Errorf("rate after five minutes = %v, want 20", got)
		}
		stop()
	})
}

// A script is what happens to a limiter: each byte is one event.
type script struct {
	l        *throttle.Limiter
	gone     sync.WaitGroup
	mu       sync.Mutex
	finished int
}

// call gets a permit, however often it is sent away, unless ctx is done.
func (s *script) call(ctx context.Context, f throttle.Feedback, took time.Duration) {
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.finished++
	}()
	for {
		p, err := s.l.Acquire(ctx, throttle.Cost{})
		if e, ok := errors.AsType[*throttle.ClosedError](err); ok {
			time.Sleep(time.Until(e.Until))
			continue
		}
		if err != nil {
			return
		}
		time.Sleep(took)
		p.Done(f)
		return
	}
}

// FuzzLimiter holds a limiter to its promises whatever happens to it: the rate
// keeps its bounds, the counts add up, and everybody gets through.
func FuzzLimiter(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{0, 1, 2, 3, 4, 5, 6, 7})
	f.Add([]byte{0, 0, 0, 1, 1, 9, 17, 5, 0, 0, 6, 0, 255, 128, 64})
	f.Add([]byte{0, 5, 0, 7, 7, 0, 3, 7, 7, 0, 2, 0, 7, 4, 4, 12})
	f.Fuzz(func(t *testing.T, events []byte) {
		events = events[:min(len(events), 200)]
		synctest.Test(t, func(t *testing.T) {
			const minRate, maxRate = 1, 100
			s := &script{l: throttle.New(throttle.Config{StartRate: 5, MinRate: minRate, MaxRate: maxRate})}
			callers := 0
			for _, e := range events {
				size := e >> 3 // 0 to 31
				long := func(unit time.Duration) time.Duration { return time.Duration(size) * unit }
				switch kind := e & 7; kind {
				case 0, 1, 2, 3:
					f := throttle.Feedback{Outcome: throttle.Outcome(kind)}
					if size%4 == 3 {
						f.RetryAfter = long(time.Second)
					}
					callers++
					s.gone.Go(func() { s.call(t.Context(), f, long(100*ms)) })
				case 4:
					callers++
					s.gone.Go(func() {
						ctx, cancel := context.WithTimeout(t.Context(), long(100*ms))
						defer cancel()
						s.call(ctx, throttle.Feedback{}, long(time.Second))
					})
				case 5:
					s.l.Close(time.Now().Add(long(time.Second)-4*time.Second), "test")
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
			case <-time.After(2 * time.Hour): // 200 calls at 1/s, probes of 5 s and closures of 31 s
				t.Fatalf("after %v: still %+v, want nobody in line", events, s.l.State())
			}
			s.check(t, callers, minRate, maxRate)
			if st := s.l.State(); st.InFlight != 0 || st.Waiting != 0 {
				t.Errorf("after %v: %d in flight and %d waiting, want none", events, st.InFlight, st.Waiting)
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
	if st.Rate < minRate || st.Rate > maxRate {
		t.Errorf("rate = %v, want %v to %v", st.Rate, minRate, maxRate)
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
