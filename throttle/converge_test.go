package throttle_test

import (
	"context"
	"fmt"
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
//   - grow: capacity that went unused is measured; no bound; cycles are not counted;
//     a call is worth the time since the last cut; byWall is ignored
//   - cycle: by time alone; doublings: by neither the answer, nor the wait for it
//   - done: an answer to an old attempt lets in; old refusals cut
//   - letIn: the streak goes on; refuse: no patience with the first attempt; each
//     refusal makes the streak longer; probes are no probing, or ever rarer; no
//     MinRate; no remembering; the dip lasts
//   - evidence: what was measured does not count; doubts do not count
//   - lower: shared margins for nobody; the level does not follow on the way back
//   - flow: each wait for the rate counts as none, or only as when it began; the
//     rate is not retuned at a start; no probe after a streak; a closed flow is not
//     waited for

// An endpoint has a capacity of its own: a token bucket with half a second in it.
type endpoint struct {
	bucket  *rate.Limiter
	took    time.Duration // an answer takes; a refusal takes 50 ms
	refusal throttle.Outcome

	mu   sync.Mutex
	down bool
}

func newEndpoint(r float64, took time.Duration) *endpoint {
	return &endpoint{bucket: rate.NewLimiter(rate.Limit(r), int(math.Ceil(r/2))), took: took, refusal: throttle.Throttled}
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
		return e.refusal
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
		{"50/s, quick", 50, time.Second, 100, 30 * time.Second, 0.95},
		{"50/s, slow", 50, 10 * time.Second, 800, 90 * time.Second, 0.95},
		{"200/s", 200, time.Second, 400, 40 * time.Second, 0.95},
		{"2/s", 2, 5 * time.Second, 30, 2 * time.Minute, 0.8}, // a bucket of one call
	} {
		t.Run(tt.name, func(t *testing.T) {
			if testing.Short() && tt.capacity > 100 {
				t.Skip("takes a while")
			}
			synctest.Test(t, func(t *testing.T) {
				l := throttle.New(throttle.Config{})
				stop := load(t, l, newEndpoint(tt.capacity, tt.took), tt.callers)
				time.Sleep(tt.settle)
				before := l.State()
				const span = 5 * time.Minute
				time.Sleep(span)
				accepted, refused := calls(l, before)
				_, all := calls(l, throttle.State{})
				stop()
				used := accepted / (tt.capacity * span.Seconds())
				t.Logf("%.1f %% used, %.2f %% refused, %v refused in all", 100*used, 100*refused/(accepted+refused), all)
				if used < tt.used {
					t.Errorf("%.1f %% of the capacity used, want %.0f %%", 100*used, 100*tt.used)
				}
				if refused > 0.01*accepted+2 {
					t.Errorf("%v of %v calls refused, want 1 %%", refused, accepted+refused)
				}
			})
		})
	}
}

// Two workers that know nothing of each other, and start apart, end up with equal
// shares. The second is refused before it has found anything, and a refusal in two
// minutes takes a quarter of an hour to make up for that.
func TestSharesTheCapacity(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a while")
	}
	synctest.Test(t, func(t *testing.T) {
		e := newEndpoint(50, time.Second)
		a, b := throttle.New(throttle.Config{Shared: true}), throttle.New(throttle.Config{Shared: true})
		stopA := load(t, a, e, 100)
		time.Sleep(time.Minute)
		stopB := load(t, b, e, 100)
		time.Sleep(25 * time.Minute)
		beforeA, beforeB := a.State(), b.State()
		const span = 15 * time.Minute
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
		if refusedA+refusedB > 0.01*sum {
			t.Errorf("%v of %v calls refused, want 1 %%", refusedA+refusedB, sum)
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
			if accepted < 0.9*60*capacity || refused > 0.02*accepted {
				t.Errorf("%v accepted and %v refused in a minute at %v/s, want 90 %% and 2 %%", accepted, refused, capacity)
			}
		}
		stop()
	})
}

// However long the endpoint was away, the lane is back within seconds: after the
// next probe, of which there is one in ten seconds.
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
			fell := l.State()
			e.setDown(false)
			time.Sleep(min(away, 10*time.Second) + 5*time.Second)
			got := l.State()
			time.Sleep(time.Minute)
			later := l.State()
			stop()
			if n := later.Accepted - got.Accepted; n < 0.9*50*60 {
				t.Errorf("%d accepted in the minute after an outage of %v and 15s, want 2700", n, away)
			}
			t.Logf("away for %v: %v refused, from %.1f/s to %.2f/s (%s), and back at %.1f/s", away, refused, before.Rate, fell.Rate, fell.Reason, got.Rate)
			if got.Rate < 0.8*50 {
				t.Errorf("15s after an outage of %v: %+v, want 40/s at least", away, got)
			}
			if fell.Reason != "probing" {
				t.Errorf("reason in an outage = %q, want probing", fell.Reason)
			}
			if limit := 60 + away.Seconds()/9; refused > limit { // a second's calls are under way when it begins
				t.Errorf("%v calls refused in an outage of %v, want at most %v", refused, away, limit)
			}
		})
	}
}

// Two cuts with nothing let in between stop all but single attempts, after half a
// second, a second, and so on up to ten.
func TestProbesOfAnOutage(t *testing.T) {
	for _, outcome := range []throttle.Outcome{throttle.Throttled, throttle.Unavailable} {
		synctest.Test(t, func(t *testing.T) {
			l := throttle.New(throttle.Config{StartRate: 100})
			var waits []time.Duration // between an end and the next start
			for range 10 {
				ended := time.Now()
				p := acquire(t, l)
				waits = append(waits, time.Since(ended))
				time.Sleep(200 * ms)
				p.Done(throttle.Feedback{Outcome: outcome})
			}
			const s = time.Second
			check(t, fmt.Sprintf("waits before probes of %v", outcome), waits[2:], s/2, s, 2*s, 4*s, 8*s, 10*s, 10*s, 10*s)
			if got := l.State(); got.Reason != "probing" || got.Rate < 40 || got.Rate > 60 {
				t.Errorf("after probes in vain: %+v, want probing, at half the rate: only the first cut says something about it", got)
			}
			time.Sleep(10 * time.Second)
			if n, _ := l.Room(); n != 1 {
				t.Errorf("Room = %d, want 1: the probe", n)
			}
			if got := l.State().Reason; got != "probing" {
				t.Errorf("reason when a probe may go = %q, want probing", got)
			}
			p := acquire(t, l)
			if n, again := l.Room(); n != 0 || time.Until(again) != time.Second { // no refusal has taken longer than 200 ms
				t.Errorf("Room with the probe underway = %d, in %v, want 0, in 1s", n, time.Until(again))
			}
			ln := stand(t, l, 2)
			time.Sleep(100 * ms)
			p.Done(throttle.Feedback{Outcome: throttle.Accepted})
			if at := ln.times(); at[0] != 100*ms || at[1] > 130*ms {
				t.Errorf("leaving after %v, want as soon as the probe is back", at)
			}
		})
	}
}

// A limit that nobody touches says nothing about capacity.
func TestGrowsOnlyWhileSomebodyWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := throttle.New(throttle.Config{StartRate: 10})
		for range 60 {
			p := acquire(t, l)
			time.Sleep(ms)
			p.Done(throttle.Feedback{})
			time.Sleep(time.Second)
		}
		if got := l.State().Rate; got != 10 {
			t.Errorf("rate after a minute without a line = %v, want 10", got)
		}
		// The second has to wait. Ten calls are a doubling, and a call is worth no
		// more however long ago the last one was.
		stand(t, l, 2).gone.Wait()
		want := 10 * math.Exp2(0.1)
		if got := l.State().Rate; !near(got, want) {
			t.Errorf("rate after a line = %v, want %v", got, want)
		}
		time.Sleep(2*time.Second + 1)
		acquire(t, l)
		if got := l.State().Rate; !near(got, want) {
			t.Errorf("rate long after the line = %v, want %v still", got, want)
		}
	})
}

func TestSearchDoubles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := throttle.New(throttle.Config{StartRate: 20, MaxRate: 1000})
		stop := load(t, l, newEndpoint(1e6, ms), 100)
		for _, want := range []float64{20, 40, 80, 160, 320, 640, 1000, 1000} {
			if got := l.State().Rate; math.Abs(got-want) > 0.15*want {
				t.Errorf("rate = %.1f, want %.1f", got, want)
			}
			time.Sleep(500 * ms)
		}
		stop()
	})
}

// Into the unknown the rate doubles no sooner than an answer takes.
func TestSearchWaitsForAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := throttle.New(throttle.Config{StartRate: 20, MaxRate: 1000})
		stop := load(t, l, newEndpoint(1e6, 4*time.Second), 5000)
		time.Sleep(4 * time.Second)
		want := l.State().Rate
		if want > 80 { // it doubles no sooner than twice the time it has waited
			t.Errorf("rate = %.1f before the first answer, want 80 at most", want)
		}
		for range 3 {
			time.Sleep(4 * time.Second)
			want *= 2
			if got := l.State().Rate; math.Abs(got-want) > 0.02*want {
				t.Errorf("rate = %.1f, want %.1f", got, want)
			}
		}
		stop()
	})
}

// At a call in ten seconds somebody waits all the time.
func TestLowRatesGrow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := throttle.New(throttle.Config{StartRate: 0.1})
		stop := load(t, l, newEndpoint(1e6, 4*time.Second), 10)
		time.Sleep(time.Minute)
		if got, want := l.State().Rate, 0.1*math.Exp2(0.6); got < want { // six calls
			t.Errorf("rate after a minute = %.2f, want %.2f at least", got, want)
		}
		stop()
	})
}

func TestBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := throttle.New(throttle.Config{StartRate: 10, MinRate: 2, MaxRate: 20})
		for range 10 {
			p := acquire(t, l)
			acquire(t, l).Done(throttle.Feedback{})
			p.Done(throttle.Feedback{Outcome: throttle.Unavailable})
		}
		if got := l.State().Rate; got != 2 {
			t.Errorf("rate after ten refusals = %v, want 2", got)
		}
		stop := load(t, l, newEndpoint(1e6, ms), 10)
		time.Sleep(10 * time.Minute)
		if got := l.State().Rate; got != 20 {
			t.Errorf("rate after ten minutes = %v, want 20", got)
		}
		stop()
	})
}
