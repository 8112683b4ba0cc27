package throttle_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"upwell/throttle"
)

// Changes of one line that these tests have been seen to catch:
//
//   - Acquire: the turn is not given back; waiting is not counted down; a wake-up
//     is not heard; the head's ctx is not heard
//   - takeTurn: a turn that came with a cancellation is kept, or taken
//   - try: evicting does not end; nobody is told
//   - closedErr: < patience; evicting is ignored
//   - Close: no probe is wanted; nobody is evicted
//   - evict: shut is not replaced; the head is not woken
//   - tell: not of each cut, or not of each reason; not one at a time
//   - Room: a probe in line is not counted; no case for a closed lane; the quota's
//     probe is forgotten
//   - Done: nothing is counted; the line is not told of a Retry-After, or of nothing
//     else, or that of one lane only
//   - Cancel: nobody is woken; in flight is not counted; its cost is lost; a probe
//     is taken for an answer
//   - Started: the mark stays
//   - flow: the bucket keeps its limit, or its burst; the pause after a cut follows
//     the rate alone, is none, or comes before the new rate; a later word shortens
//     an earlier one; no bound; a Retry-After counts for every outcome; a probe of
//     an earlier closure decides; an unrelated probe opens the lane; a probe that
//     lasts goes on probing
func acquire(t *testing.T, l *throttle.Limiter) throttle.Permit {
	t.Helper()
	p, err := l.Acquire(t.Context(), throttle.Cost{})
	if err != nil {
		t.Fatalf("Acquire = %v, want nil", err)
	}
	return p
}

// A departure is how one of a line got away.
type departure struct {
	at     time.Duration // since the line formed
	permit throttle.Permit
	err    error
}

// A line is callers of Acquire, in the order of their arrival.
type line struct {
	start  time.Time
	left   []departure // guarded by mu until all have gone
	cancel []context.CancelCauseFunc
	order  []int

	mu   sync.Mutex
	gone sync.WaitGroup
}

// stand puts n callers in line, one after the other. It must be called in a
// bubble, and takes no time.
func stand(t *testing.T, l *throttle.Limiter, n int) *line {
	t.Helper()
	ln := &line{start: time.Now(), left: make([]departure, n)}
	for i := range n {
		ctx, cancel := context.WithCancelCause(t.Context())
		ln.cancel = append(ln.cancel, cancel)
		ln.gone.Go(func() {
			p, err := l.Acquire(ctx, throttle.Cost{})
			ln.mu.Lock()
			defer ln.mu.Unlock()
			ln.left[i] = departure{time.Since(ln.start), p, err}
			ln.order = append(ln.order, i)
		})
		synctest.Wait()
	}
	return ln
}

// times waits for all to have gone and returns when each did.
func (ln *line) times() []time.Duration {
	ln.gone.Wait()
	var ds []time.Duration
	for _, d := range ln.left {
		ds = append(ds, d.at)
	}
	return ds
}

// count returns how many have gone.
func (ln *line) count() int {
	synctest.Wait()
	ln.mu.Lock()
	defer ln.mu.Unlock()
	return len(ln.order)
}

// about makes cmp.Diff forgive the last nanoseconds, which belong to the floats.
var about = cmp.Comparer(func(a, b time.Duration) bool { return (a - b).Abs() <= 2*time.Nanosecond })

// check reports where a line's times are not as wanted.
func check(t *testing.T, what string, got []time.Duration, want ...time.Duration) {
	t.Helper()
	if diff := cmp.Diff(want, got, about); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

const ms = time.Millisecond

// fixed is for a rate that nothing moves.
func fixed(rate float64) throttle.Config {
	return throttle.Config{StartRate: rate, MinRate: rate, MaxRate: rate}
}

// guided is for a rate that only a refusal moves, by half.
func guided(rate float64) throttle.Config {
	return throttle.Config{StartRate: rate, Guided: true}
}

func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := throttle.New(fixed(10))
		check(t, "leaving at 10/s", stand(t, l, 4).times(), 0, 100*ms, 200*ms, 300*ms)
		time.Sleep(50 * ms)
		check(t, "leaving after half a gap", stand(t, l, 2).times(), 50*ms, 150*ms)
	})
}

func TestDefaults(t *testing.T) {
	for _, tt := range []struct {
		config throttle.Config
		want   float64
	}{
		{throttle.Config{}, 5},
		{throttle.Config{Shared: true}, 1},
		{throttle.Config{Shared: true, StartRate: 3}, 3},
		{throttle.Config{StartRate: 3}, 3},
		{throttle.Config{StartRate: 1e6}, 10_000},
		{throttle.Config{StartRate: 0.01}, 0.05},
		{throttle.Config{MaxRate: 2}, 2},
		{throttle.Config{MinRate: 20}, 20},
	} {
		if got := throttle.New(tt.config).State().Rate; got != tt.want {
			t.Errorf("New(%+v) starts at %v, want %v", tt.config, got, tt.want)
		}
	}
}

func TestLineIsFair(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := throttle.New(fixed(500))
		ln := stand(t, l, 300)
		time.Sleep(100 * ms)
		late := stand(t, l, 300)
		ln.gone.Wait()
		if n := late.count(); n > 0 {
			t.Errorf("%d newcomers overtook the line", n)
		}
		late.gone.Wait()
		for _, order := range [][]int{ln.order, late.order} {
			for at, i := range order {
				if at != i {
					t.Fatalf("place %d went to caller %d: %v", at, i, order)
				}
			}
		}
	})
}

// Half of a call is saved up when the rate changes; the other half comes at the
// new rate.
func TestRaiseReachesTheLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		set := throttle.NewSet(func(throttle.Lane) throttle.Config { return guided(2) })
		l := set.Limiter(throttle.Lane{})
		set.Share(nil, throttle.Share{Workers: 2})
		acquire(t, l)
		ln := stand(t, l, 2)
		time.Sleep(500 * ms)
		set.Share(nil, throttle.Share{Workers: 1}) // the other one has left
		check(t, "leaving", ln.times(), 750*ms, 1250*ms)
	})
}

// What was saved up is gone, and so are five calls.
func TestCutReachesTheLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := throttle.New(guided(10))
		p := acquire(t, l)
		ln := stand(t, l, 3)
		time.Sleep(50 * ms)
		p.Done(throttle.Feedback{Outcome: throttle.Throttled})
		check(t, "leaving", ln.times(), 1250*ms, 1450*ms, 1650*ms)
	})
}

// At a low rate five calls are more than anybody should wait: two seconds will do.
func TestCutAtALowRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := throttle.New(guided(1))
		p := acquire(t, l)
		time.Sleep(time.Second)
		p.Done(throttle.Feedback{Outcome: throttle.Unavailable})
		check(t, "leaving", stand(t, l, 2).times(), 4*time.Second, 6*time.Second)
	})
}

// With reservations, the last of 100 callers at one a second would wait for 99
// seconds, whatever happens to the rate.
func TestNothingIsReserved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := throttle.New(throttle.Config{StartRate: 1, MaxRate: 100})
		var gone sync.WaitGroup
		start := time.Now()
		for range 100 {
			gone.Go(func() {
				p := acquire(t, l)
				time.Sleep(ms)
				p.Done(throttle.Feedback{})
			})
		}
		gone.Wait()
		// Up to 20/s the rate doubles in ten calls, which takes 14.2s in all, and
		// then in half a second.
		if got := time.Since(start).Seconds(); math.Abs(got-15.3) > 1.5 {
			t.Errorf("the last of 100 left after %.1fs, want about 15.3s", got)
		}
	})
}

func TestCancelledLeaveTheLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := throttle.New(fixed(10))
		acquire(t, l)
		ln := stand(t, l, 6)
		why := errors.New("draining")
		time.Sleep(50 * ms)
		for _, i := range []int{0, 2, 5} { // the head, one in the middle, the tail
			ln.cancel[i](why)
		}
		check(t, "leaving", ln.times(), 50*ms, 100*ms, 50*ms, 200*ms, 300*ms, 50*ms)
		for i, d := range ln.left {
			if want := i == 0 || i == 2 || i == 5; errors.Is(d.err, why) != want {
				t.Errorf("Acquire of caller %d = %v", i, d.err)
			}
		}
		if s := l.State(); s.InFlight != 4 || s.Waiting != 0 {
			t.Errorf("%d in flight and %d waiting, want 4 and 0", s.InFlight, s.Waiting)
		}
	})
}

func TestCancelledBeforehand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := throttle.New(fixed(10))
		why := errors.New("draining")
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(why)
		for range 100 { // as a select with two ready cases picks either
			if _, err := l.Acquire(ctx, throttle.Cost{}); !errors.Is(err, why) {
				t.Fatalf("Acquire = %v, want %v", err, why)
			}
		}
		check(t, "leaving", stand(t, l, 2).times(), 0, 100*ms)
	})
}

// All are cancelled in the instant their tokens come.
func TestCancelledInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := throttle.New(fixed(10))
		acquire(t, l)
		ctx, cancel := context.WithTimeout(t.Context(), 500*ms)
		defer cancel()
		var got atomic.Int64
		var gone sync.WaitGroup
		for range 100 {
			gone.Go(func() {
				if _, err := l.Acquire(ctx, throttle.Cost{}); err == nil {
					got.Add(1)
				}
			})
		}
		gone.Wait()
		if n := got.Load(); n < 4 || n > 5 {
			t.Errorf("%d permits in half a second at 10/s, want 4 or 5", n)
		}
		time.Sleep(time.Second)
		check(t, "leaving afterwards", stand(t, l, 2).times(), 0, 100*ms)
	})
}

func TestRetryAfterKeepsTheLine(t *testing.T) {
	for _, outcome := range []throttle.Outcome{throttle.Throttled, throttle.Unavailable} {
		for _, after := range []time.Duration{1, 700 * ms, 15 * time.Second} {
			synctest.Test(t, func(t *testing.T) {
				l := throttle.New(guided(20))
				p := acquire(t, l)
				time.Sleep(time.Second)
				p.Done(throttle.Feedback{Outcome: outcome, RetryAfter: after})
				ln := stand(t, l, 3)
				if n, _ := l.Room(); n == 0 {
					t.Errorf("Room = 0, want some: the lane is back soon")
				}
				got := ln.times()
				first := max(after, 600*ms) // the pause of a cut
				check(t, fmt.Sprintf("leaving after %v, %v", outcome, after), got, first, first+100*ms, first+200*ms)
			})
		}
	}
}

func TestRetryAfterReachesTheLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := throttle.New(guided(10))
		p := acquire(t, l)
		ln := stand(t, l, 2)
		time.Sleep(50 * ms)
		p.Done(throttle.Feedback{Outcome: throttle.Throttled, RetryAfter: 10 * time.Second})
		check(t, "leaving", ln.times(), 10*time.Second+50*ms, 10*time.Second+250*ms)
	})
}

func TestLongRetryAfterSendsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := throttle.New(guided(1))
		p := acquire(t, l)
		ln := stand(t, l, 3)
		time.Sleep(100 * ms)
		until := time.Now().Add(15*time.Second + 1)
		p.Done(throttle.Feedback{Outcome: throttle.Throttled, RetryAfter: 15*time.Second + 1})
		late := stand(t, l, 2)
		check(t, "sent away", ln.times(), 100*ms, 100*ms, 100*ms)
		check(t, "newcomers sent away", late.times(), 0, 0)
		for _, d := range append(ln.left, late.left...) {
			e, ok := errors.AsType[*throttle.ClosedError](d.err)
			if !ok || !e.Until.Equal(until) || e.Reason != "Retry-After 15s" {
				t.Errorf("Acquire = %v, want closed until %v", d.err, until)
			}
		}
		if n, again := l.Room(); n != 0 || !again.Equal(until) {
			t.Errorf("Room = %d, %v, want 0, %v", n, again, until)
		}
		time.Sleep(time.Nanosecond) // and with 15 seconds left, it is worth to wait
		if n, _ := l.Room(); n == 0 {
			t.Errorf("Room = 0 with 15s to go, want some")
		}
		check(t, "leaving", stand(t, l, 1).times(), 15*time.Second)
	})
}

// Of several words on when to come back, the latest hour counts, up to a bound,
// whether they are about the quota or the tier.
func TestRetryAfterNeverShortens(t *testing.T) {
	for _, tt := range []struct {
		first, second, want time.Duration
	}{
		{10 * time.Second, 2 * time.Second, 10 * time.Second},
		{2 * time.Second, 10 * time.Second, 10 * time.Second},
		{5 * time.Second, time.Minute, time.Minute},
		{time.Minute, 5 * time.Second, time.Minute},
		{24 * time.Hour, 0, time.Hour},
		{0, math.MaxInt64, time.Hour},
		{-time.Second, -time.Hour, 0},
	} {
		for _, outcomes := range [][2]throttle.Outcome{
			{throttle.Throttled, throttle.Throttled},
			{throttle.Unavailable, throttle.Unavailable},
			{throttle.Unavailable, throttle.Throttled},
			{throttle.Throttled, throttle.Unavailable},
		} {
			synctest.Test(t, func(t *testing.T) {
				l := throttle.New(fixed(100))
				p, q, _ := acquire(t, l), acquire(t, l), acquire(t, l) // all there is at once
				time.Sleep(ms)
				p.Done(throttle.Feedback{Outcome: outcomes[0], RetryAfter: tt.first})
				ln := stand(t, l, 1)
				q.Done(throttle.Feedback{Outcome: outcomes[1], RetryAfter: tt.second})
				if got := max(0, time.Until(l.State().ClosedUntil)); got != tt.want {
					t.Errorf("%v: Retry-After %v, then %v: closed for %v, want %v", outcomes, tt.first, tt.second, got, tt.want)
				}
				if sent := tt.want > 15*time.Second; (ln.count() == 1 && ln.left[0].err != nil) != sent {
					t.Errorf("%v: Retry-After %v, then %v: sent away = %v, want %v", outcomes, tt.first, tt.second, !sent, sent)
				}
				ln.gone.Wait()
			})
		}
	}
}

func TestRetryAfterOfOtherOutcomes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := throttle.New(fixed(10))
		for _, o := range []throttle.Outcome{throttle.Accepted, throttle.Unrelated} {
			acquire(t, l).Done(throttle.Feedback{Outcome: o, RetryAfter: time.Hour})
			if s := l.State(); s.ClosedUntil.After(time.Now()) || s.Rate != 10 {
				t.Errorf("after %v with a Retry-After: %+v, want open, 10/s", o, s)
			}
		}
	})
}

func TestCloseSendsAllAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := throttle.New(fixed(1))
		acquire(t, l)
		ln := stand(t, l, 5000)
		time.Sleep(100 * ms)
		until := time.Now().Add(5 * time.Second) // short, but they go all the same
		l.Close(until, "401: no such key")
		for i, at := range ln.times() {
			e, ok := errors.AsType[*throttle.ClosedError](ln.left[i].err)
			if at != 100*ms || !ok || !e.Until.Equal(until) || e.Reason != "401: no such key" {
				t.Fatalf("caller %d left after %v with %v, want 100ms and closed until %v", i, at, ln.left[i].err, until)
			}
		}
		time.Sleep(5*time.Second - 1)
		if _, err := l.Acquire(t.Context(), throttle.Cost{}); err == nil {
			t.Errorf("Acquire a nanosecond early = nil, want closed")
		}
		time.Sleep(time.Nanosecond)
		check(t, "leaving", stand(t, l, 1).times(), 0)
	})
}

func TestCloseDuringALongerRetryAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := throttle.New(fixed(10))
		p := acquire(t, l)
		p.Done(throttle.Feedback{Outcome: throttle.Throttled, RetryAfter: 10 * time.Second})
		ln := stand(t, l, 3)
		l.Close(time.Now().Add(5*time.Second), "401")
		check(t, "sent away", ln.times(), 0, 0, 0)
		if got := time.Until(l.State().ClosedUntil); got != 10*time.Second {
			t.Errorf("closed for %v, want 10s: the endpoint's word still counts", got)
		}
		time.Sleep(10 * time.Second)
		ln = stand(t, l, 2)
		if n := ln.count(); n != 1 {
			t.Errorf("%d left, want 1: the probe", n)
		}
		ln.gone.Wait()
	})
}

func TestCloseIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := throttle.New(throttle.Config{})
		l.Close(time.Now().Add(48*time.Hour), "a wrong clock")
		if got := time.Until(l.State().ClosedUntil); got != time.Hour {
			t.Errorf("closed for %v, want 1h", got)
		}
	})
}

// Whoever asks while a closed lane may open: one goes, and the others wait for
// what becomes of it.
func TestProbe(t *testing.T) {
	for _, tt := range []struct {
		name string
		took time.Duration // zero for never
		done throttle.Feedback
		rate float64
		want []time.Duration
	}{
		{"accepted", time.Second, throttle.Feedback{Outcome: throttle.Accepted}, 10, []time.Duration{0, 1000 * ms, 1100 * ms, 1200 * ms}},
		{"unavailable", time.Second, throttle.Feedback{Outcome: throttle.Unavailable}, 5, []time.Duration{0, 2200 * ms, 2400 * ms, 2600 * ms}},
		{"unavailable for a while", time.Second, throttle.Feedback{Outcome: throttle.Unavailable, RetryAfter: 3 * time.Second}, 5, []time.Duration{0, 4000 * ms, 4200 * ms, 4400 * ms}},
		// A refusal that is about the quota says nothing about the tier, nor does what
		// is unrelated: the second is a probe as well, and lasts.
		{"throttled", time.Second, throttle.Feedback{Outcome: throttle.Throttled}, 5, []time.Duration{0, 2200 * ms, 7200 * ms, 7400 * ms}},
		{"throttled for a while", time.Second, throttle.Feedback{Outcome: throttle.Throttled, RetryAfter: 3 * time.Second}, 5, []time.Duration{0, 4000 * ms, 9000 * ms, 9200 * ms}},
		{"unrelated", time.Second, throttle.Feedback{Outcome: throttle.Unrelated}, 10, []time.Duration{0, 1000 * ms, 6000 * ms, 6100 * ms}},
		{"long", 0, throttle.Feedback{}, 10, []time.Duration{0, 5000 * ms, 5100 * ms, 5200 * ms}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := throttle.New(guided(10))
				l.Close(time.Now().Add(time.Minute), "401")
				time.Sleep(time.Minute)
				ln := stand(t, l, 4)
				if n := ln.count(); n != 1 {
					t.Fatalf("%d left at once, want 1", n)
				}
				if tt.took > 0 {
					time.Sleep(tt.took)
					ln.left[0].permit.Done(tt.done)
				}
				check(t, "leaving", ln.times(), tt.want...)
				if s := l.State(); s.Rate != tt.rate || s.Reason == "probing" {
					t.Errorf("%v/s, %s, want %v/s, and no probing any more", s.Rate, s.Reason, tt.rate)
				}
			})
		})
	}
}

// A probe that was let go on for so long that the lane opened, and closed again,
// says nothing about the next opening.
func TestProbeOfAnEarlierClosure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := throttle.New(fixed(10))
		l.Close(time.Now().Add(time.Second), "401")
		time.Sleep(time.Second)
		old := acquire(t, l)
		l.Close(time.Now().Add(time.Second), "401")
		time.Sleep(time.Second)
		if n, _ := l.Room(); n != 1 {
			t.Errorf("Room = %d, want 1: the next probe", n)
		}
		probe := acquire(t, l)
		ln := stand(t, l, 2)
		old.Done(throttle.Feedback{Outcome: throttle.Accepted})
		time.Sleep(200 * ms)
		if n := ln.count(); n != 0 {
			t.Errorf("%d left before the probe was back, want 0", n)
		}
		probe.Done(throttle.Feedback{Outcome: throttle.Accepted})
		check(t, "leaving", ln.times(), 200*ms, 300*ms)
	})
}

func TestProbeThatClosesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := throttle.New(fixed(10))
		for range 3 {
			l.Close(time.Now().Add(time.Second), "401")
			time.Sleep(time.Second)
			p := acquire(t, l)
			ln := stand(t, l, 2)
			l.Close(time.Now().Add(time.Second), "401")
			p.Done(throttle.Feedback{Outcome: throttle.Unrelated})
			check(t, "sent away", ln.times(), 0, 0)
		}
	})
}

func TestRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := throttle.New(fixed(0.1)) // a call in ten seconds
		room := func(when string, want int, wantAgain time.Duration) {
			t.Helper()
			n, again := l.Room()
			if got := time.Until(again); n != want || got != wantAgain {
				t.Errorf("Room %s = %d, in %v, want %d, in %v", when, n, got, want, wantAgain)
			}
		}
		room("of a new lane", math.MaxInt, 0)
		acquire(t, l)
		ln := stand(t, l, 1)
		room("with a line", math.MaxInt, 0)
		l.Close(time.Now().Add(time.Second), "401")
		room("of a closed lane", 0, time.Second)
		ln.gone.Wait()
		time.Sleep(time.Second)
		room("of a lane that waits for its probe", 1, 5*time.Second)
		ln = stand(t, l, 1)
		room("with the probe in line", 0, 5*time.Second)
		ln.gone.Wait()
		room("with the probe underway", 0, 5*time.Second)
		time.Sleep(2 * time.Second)
		room("with the probe underway for 2s", 0, 3*time.Second)
		ln.left[0].permit.Done(throttle.Feedback{Outcome: throttle.Unrelated})
		room("with another probe wanted", 1, 5*time.Second)
		p := acquire(t, l)
		time.Sleep(5 * time.Second)
		room("with a probe that lasts", math.MaxInt, 0)
		p.Done(throttle.Feedback{Outcome: throttle.Accepted})
		room("of an open lane", math.MaxInt, 0)
	})
}

// A burst of refusals is one event.
func TestOneFlightOneCut(t *testing.T) {
	for _, outcome := range []throttle.Outcome{throttle.Throttled, throttle.Unavailable} {
		synctest.Test(t, func(t *testing.T) {
			var changes []float64
			config := guided(100)
			config.OnChange = func(s throttle.State) { changes = append(changes, s.Rate) }
			l := throttle.New(config)
			ln := stand(t, l, 20)
			ln.gone.Wait()
			time.Sleep(time.Second)
			for _, d := range ln.left[:10] {
				d.permit.Done(throttle.Feedback{Outcome: outcome})
			}
			p := acquire(t, l)
			for _, d := range ln.left[10:] { // still of the same flight
				time.Sleep(ms)
				d.permit.Done(throttle.Feedback{Outcome: outcome})
			}
			p.Done(throttle.Feedback{Outcome: outcome}) // and this one is not
			if diff := cmp.Diff([]float64{50, 25}, changes, cmp.Comparer(near)); diff != "" {
				t.Errorf("rates after cuts by %v (-want +got):\n%s", outcome, diff)
			}
		})
	}
}

func near(a, b float64) bool { return math.Abs(a-b) <= 1e-9*max(math.Abs(a), math.Abs(b)) }

func TestState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := throttle.New(guided(10))
		want := throttle.State{Rate: 10, Reason: "start", Bound: throttle.Ramp}
		state := func() {
			t.Helper()
			synctest.Wait()
			if diff := cmp.Diff(want, l.State(), cmp.Comparer(near)); diff != "" {
				t.Errorf("State (-want +got):\n%s", diff)
			}
		}
		state()
		ln := stand(t, l, 6)
		want.InFlight, want.Waiting = 1, 5
		state()
		ln.gone.Wait()
		want.InFlight, want.Waiting = 6, 0
		state()
		time.Sleep(10 * time.Second)

		ln.left[0].permit.Done(throttle.Feedback{Outcome: throttle.Accepted})
		want.InFlight, want.Accepted = 5, 1
		state()
		ln.left[1].permit.Done(throttle.Feedback{Outcome: throttle.Unrelated})
		want.InFlight, want.Unrelated = 4, 1
		state()
		ln.left[2].permit.Done(throttle.Feedback{Outcome: throttle.Throttled})
		want.InFlight, want.Throttled, want.Rate, want.Reason, want.Bound = 3, 1, 5, "cut: 429", throttle.Quota
		state()
		ln.left[3].permit.Done(throttle.Feedback{Outcome: throttle.Throttled})
		want.InFlight, want.Throttled = 2, 2
		state()
		acquire(t, l).Done(throttle.Feedback{Outcome: throttle.Unavailable, RetryAfter: 1500 * ms})
		want.Unavailable, want.Reason, want.Bound = 1, "closed: Retry-After 1.5s", throttle.Capacity
		want.ClosedUntil = time.Now().Add(1500 * ms)
		state()
		time.Sleep(1500 * ms)
		want.Reason, want.Bound = "cut: 429", throttle.Quota // the quota and the tier are at 5/s both
		state()
		acquire(t, l).Done(throttle.Feedback{Outcome: throttle.Unavailable})
		want.Unavailable, want.Rate, want.Reason, want.Bound = 2, 2.5, "cut: no capacity", throttle.Capacity
		state()
		l.Close(time.Now().Add(time.Minute), "401")
		want.ClosedUntil, want.Reason, want.Bound = time.Now().Add(time.Minute), "closed: 401", throttle.Shut
		state()
		time.Sleep(time.Minute)
		want.Reason, want.Bound = "probing", throttle.Capacity
		state()
		acquire(t, l).Done(throttle.Feedback{Outcome: throttle.Accepted})
		want.Accepted, want.Reason = 2, "cut: no capacity"
		state()
	})
}

// OnChange may ask for the state and for room, and never runs twice at a time.
func TestOnChange(t *testing.T) {
	var l *throttle.Limiter
	var running, calls, refusals atomic.Int64
	config := fixed(1e6)
	config.OnChange = func(s throttle.State) {
		if n := running.Add(1); n != 1 {
			t.Errorf("OnChange runs %d times at once", n)
		}
		calls.Add(1)
		l.State()
		l.Room()
		time.Sleep(10 * time.Microsecond)
		if s.Reason == "start" {
			t.Error("OnChange(start), want news")
		}
		running.Add(-1)
	}
	l = throttle.New(config)
	var gone sync.WaitGroup
	for i := range 8 {
		gone.Go(func() {
			for n := range 50 {
				l.Close(time.Now().Add(100*time.Microsecond), fmt.Sprint(i, n))
				if p, err := l.Acquire(t.Context(), throttle.Cost{}); err == nil {
					p.Done(throttle.Feedback{Outcome: throttle.Throttled, RetryAfter: time.Microsecond})
					refusals.Add(1)
				}
			}
		})
	}
	gone.Wait()
	if n := calls.Load(); n < 100 || n > 3*400 {
		t.Errorf("OnChange called %d times for 400 closures and %d refusals, want 100 to 1200", n, refusals.Load())
	}
}

func TestZeroPermit(_ *testing.T) {
	for _, o := range []throttle.Outcome{throttle.Accepted, throttle.Throttled} {
		throttle.Permit{}.Done(throttle.Feedback{Outcome: o, RetryAfter: time.Hour})
	}
	throttle.Permit{}.Started().Done(throttle.Feedback{})
	throttle.Permit{}.Cancel()
}

// A permit given back is as if it had not been given.
func TestCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		config := fixed(1)
		config.MaxInFlight = 1
		l := throttle.New(config)
		c := throttle.Cost{Input: 1000}
		for range 10 { // or nothing would be weighed yet
			p, err := l.Acquire(t.Context(), c)
			if err != nil {
				t.Fatal(err)
			}
			p.Done(throttle.Feedback{Used: c})
		}
		time.Sleep(time.Second)
		for range 3 {
			p, err := l.Acquire(t.Context(), c)
			if err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			time.AfterFunc(100*ms, p.Cancel)
			p, err = l.Acquire(t.Context(), c)
			if got := time.Since(start); err != nil || got != 100*ms {
				t.Errorf("Acquire after a permit was given back = %v after %v, want it at once", err, got)
			}
			p.Cancel()
		}
		want := throttle.State{Rate: 1, Reason: "start", Bound: throttle.MaxRate, Accepted: 10}
		if diff := cmp.Diff(want, l.State()); diff != "" {
			t.Errorf("State (-want +got):\n%s", diff)
		}
		time.Sleep(10 * time.Second)
		acquire(t, l).Cancel()
		acquire(t, l)
	})
	synctest.Test(t, func(t *testing.T) { // a probe
		l := throttle.New(fixed(10))
		l.Close(time.Now().Add(time.Second), "401")
		time.Sleep(time.Second)
		p := acquire(t, l)
		ln := stand(t, l, 2)
		time.Sleep(500 * ms)
		p.Cancel()
		time.Sleep(500 * ms)
		if n := ln.count(); n != 1 {
			t.Errorf("%d left when the probe was given back, want 1: another probe", n)
		}
		ln.gone.Wait()
	})
}

// Whoever waits for a limit in flight leaves when a call ends, and not before.
func TestInFlightWakesTheLine(t *testing.T) {
	for name, config := range map[string]throttle.Config{
		"configured": {StartRate: 100, MaxInFlight: 2},
		"remembered": {StartRate: 100, Level: throttle.Level{Rate: 200, InFlight: 2}},
	} {
		synctest.Test(t, func(t *testing.T) {
			l := throttle.New(config)
			p, q := acquire(t, l), acquire(t, l)
			ln := stand(t, l, 2)
			time.Sleep(300 * ms)
			p.Done(throttle.Feedback{})
			time.Sleep(400 * ms)
			q.Done(throttle.Feedback{Outcome: throttle.Unrelated})
			check(t, name+": leaving", ln.times(), 300*ms, 700*ms)
		})
	}
}

// What counts is when an attempt really starts.
func TestStarted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := throttle.New(guided(100))
		p, q, r := acquire(t, l), acquire(t, l), acquire(t, l)
		time.Sleep(time.Second)
		p.Done(throttle.Feedback{Outcome: throttle.Throttled})
		time.Sleep(time.Second)
		q.Done(throttle.Feedback{Outcome: throttle.Throttled})
		if got := l.State().Rate; got != 50 {
			t.Errorf("rate after old news = %v, want 50", got)
		}
		r = r.Started()
		time.Sleep(time.Second)
		r.Done(throttle.Feedback{Outcome: throttle.Throttled})
		if got := l.State().Rate; got != 25 {
			t.Errorf("rate after news = %v, want 25", got)
		}
	})
}

// However long nobody came, what leaves at once is one call and 2 % of a second.
func TestBurst(t *testing.T) {
	for _, tt := range []struct {
		rate float64
		want int
	}{{0.05, 1}, {1, 1}, {10, 1}, {49, 1}, {50, 2}, {100, 3}, {1000, 21}, {10_000, 201}} {
		synctest.Test(t, func(t *testing.T) {
			l := throttle.New(fixed(tt.rate))
			time.Sleep(time.Hour)
			ctx, cancel := context.WithCancel(t.Context())
			var got atomic.Int64
			var gone sync.WaitGroup
			for range 300 {
				gone.Go(func() {
					if _, err := l.Acquire(ctx, throttle.Cost{}); err == nil {
						got.Add(1)
					}
				})
			}
			synctest.Wait()
			if n := int(got.Load()); n != tt.want {
				t.Errorf("%d left at once at %v/s, want %d", n, tt.rate, tt.want)
			}
			cancel()
			gone.Wait()
		})
	}
}

// What was saved up at a high rate is not spent at a low one, and a rate that has
// grown has the slack it needs.
func TestBurstFollowsTheRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		set := throttle.NewSet(func(throttle.Lane) throttle.Config { return guided(100) })
		l := set.Limiter(throttle.Lane{})
		p := acquire(t, l)
		time.Sleep(time.Second)
		for range 3 { // to 12.5/s
			p.Done(throttle.Feedback{Outcome: throttle.Throttled})
			time.Sleep(time.Second)
			p = acquire(t, l)
		}
		p.Done(throttle.Feedback{Outcome: throttle.Unrelated})
		time.Sleep(time.Second)
		ln := stand(t, l, 4)
		if n := ln.count(); n != 1 {
			t.Errorf("%d left at once at %.1f/s, want 1", n, l.State().Rate)
		}
		ln.gone.Wait()
	})
	synctest.Test(t, func(t *testing.T) {
		set := throttle.NewSet(func(throttle.Lane) throttle.Config { return guided(100) })
		l := set.Limiter(throttle.Lane{})
		set.Share(nil, throttle.Share{Workers: 10})
		time.Sleep(time.Second)
		set.Share(nil, throttle.Share{Workers: 1})
		time.Sleep(time.Second)
		ln := stand(t, l, 4)
		if n := ln.count(); n != 3 {
			t.Errorf("%d left at once at %.0f/s, want 3", n, l.State().Rate)
		}
		ln.gone.Wait()
	})
}

func TestAccuracy(t *testing.T) {
	for _, rate := range []float64{0.5, 50, 500, 2000} {
		synctest.Test(t, func(t *testing.T) {
			l := throttle.New(fixed(rate))
			ctx, cancel := context.WithCancel(t.Context())
			span := time.Duration(max(5, 200/rate) * float64(time.Second))
			var got atomic.Int64
			var gone sync.WaitGroup
			for range 64 {
				gone.Go(func() {
					for {
						p, err := l.Acquire(ctx, throttle.Cost{})
						if err != nil {
							return
						}
						got.Add(1)
						p.Done(throttle.Feedback{})
					}
				})
			}
			time.Sleep(span)
			cancel()
			gone.Wait()
			// The burst comes on top.
			want := rate*span.Seconds() + 1 + rate*0.02
			if n := float64(got.Load()); math.Abs(n-want) > 0.01*want {
				t.Errorf("%v calls in %v at %v/s, want %v", n, span, rate, want)
			}
		})
	}
}

func TestThousandsInLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := throttle.New(fixed(1000))
		start := time.Now()
		var gone sync.WaitGroup
		for range 10_000 {
			gone.Go(func() { acquire(t, l).Done(throttle.Feedback{}) })
		}
		gone.Wait()
		if got := time.Since(start).Seconds(); math.Abs(got-9.979) > 0.002 { // 21 left at once
			t.Errorf("10000 left at 1000/s in %.3fs, want 9.979s", got)
		}
	})
}

// A hard landing for all the select statements: everything at once, in real time.
func TestConcurrentUse(t *testing.T) {
	for _, guided := range []bool{false, true} {
		config := throttle.Config{StartRate: 1e6, MinRate: 1e4, MaxRate: 1e6, Guided: guided, MaxInFlight: 8, OnChange: func(throttle.State) {}}
		set := throttle.NewSet(func(throttle.Lane) throttle.Config { return config })
		lanes := []*throttle.Limiter{set.Limiter(throttle.Lane{Tier: "flex"}), set.Limiter(throttle.Lane{Tier: "default"})}
		var gone sync.WaitGroup
		for i := range 16 {
			gone.Go(func() {
				l := lanes[i%2]
				for n := range 200 {
					ctx, cancel := context.WithTimeout(t.Context(), time.Duration(n%7)*50*time.Microsecond)
					p, err := l.Acquire(ctx, throttle.Cost{Input: n})
					cancel()
					if err == nil {
						p.Done(throttle.Feedback{Outcome: throttle.Outcome((i + n) % 4), Used: throttle.Cost{Input: i}})
					}
					if n%50 == 0 {
						l.Close(time.Now().Add(50*time.Microsecond), "test")
						set.Share(nil, throttle.Share{Workers: 1 + n%3, Rate: 1e5})
					}
					l.Room()
					set.Levels()
					set.Report()
					if s := l.State(); s.InFlight < 0 || s.InFlight > 8 || s.Waiting < 0 || s.Waiting > 8 {
						t.Errorf("State = %+v, want at most 8 in flight and waiting", s)
					}
				}
			})
		}
		gone.Wait()
		for _, l := range lanes {
			if s := l.State(); s.InFlight != 0 || s.Waiting != 0 {
				t.Errorf("State = %+v, want none in flight or waiting", s)
			}
		}
	}
}
