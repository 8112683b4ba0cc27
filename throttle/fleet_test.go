package throttle_test

import (
	"testing"
	"testing/synctest"
	"time"

	"upwell/throttle"
)

// Changes of one line that these tests have been seen to catch:
//
//   - share: nobody is there; a lone worker takes its own belief; guided believes;
//     an unknown rate or level is not divided; one refusal, or none, is enough; what
//     it knows counts even if higher; the rate is set if nobody is known; no bounds;
//     refusals count for ever; others' refusals are no news
//   - stable: one's own part, or without what has grown; report: no refusals
//   - lower: no fleet, no own refusals; margin: that of one, or no bound
//   - growth: no time for news; the calls of the others do not count; shared although
//     the others are known
//   - Share: nobody is woken; the flow is not retuned; no fallback

// member is a set of one lane that knows its level.
func member(level float64) (*throttle.Set, *throttle.Limiter) {
	set := throttle.NewSet(func(throttle.Lane) throttle.Config {
		return throttle.Config{Level: throttle.Level{Rate: level}}
	})
	return set, set.Limiter(flex)
}

// of is a share of the quota and of the tier.
func of(workers int, r float64) map[throttle.Lane]throttle.Share {
	s := throttle.Share{Workers: workers, Rate: r, Interval: 15 * time.Second}
	return map[throttle.Lane]throttle.Share{quota: s, flex: s}
}

// want reports where the rate in force is another, or what is believed of the quota.
func want(t *testing.T, when string, set *throttle.Set, r, belief float64) {
	t.Helper()
	if got := set.Limiter(flex).State().Rate; !near(got, r) {
		t.Errorf("%s: %v/s, want %v/s", when, got, r)
	}
	if got := set.Report()[quota].Rate; !near(got, belief) {
		t.Errorf("%s: believes in %v/s, want %v/s", when, got, belief)
	}
}

func TestShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		set := throttle.NewSet(nil)
		set.Limiter(flex)
		want(t, "alone", set, 5, 0)
		set.Share(nil, throttle.Share{Workers: 1})
		want(t, "the only one", set, 5, 0)
		set.Share(of(4, 0), throttle.Share{})
		want(t, "one of four that know nothing", set, 1.25, 0)
		set.Share(nil, throttle.Share{Workers: 4})
		want(t, "the same again", set, 1.25, 0)
		set.Share(map[throttle.Lane]throttle.Share{quota: {Workers: 4, Rate: 80}}, throttle.Share{Workers: 4})
		want(t, "one of four that know the quota", set, 1.25, 80) // its own tier is unknown still
		set.Share(of(4, 80), throttle.Share{})
		want(t, "one of four that know both", set, 20, 80)
		set.Share(of(4, 40), throttle.Share{})
		want(t, "one of four that know better", set, 10, 40)
		set.Share(of(8, 40), throttle.Share{})
		want(t, "one of eight", set, 5, 40)
		set.Share(nil, throttle.Share{Workers: 2})
		want(t, "one of two that know nothing any more", set, 20, 40)
		set.Share(nil, throttle.Share{})
		want(t, "the last one", set, 40, 40)
	})
	synctest.Test(t, func(t *testing.T) {
		set, l := member(80)
		set.Share(of(4, 80), throttle.Share{})
		set.Share(of(1, 80), throttle.Share{})
		want(t, "the last one that knows", set, 20, 80) // and takes its time
		stop := load(t, l, newEndpoint(1e6, ms), 20)
		time.Sleep(2 * time.Second)
		stop()
		if s := l.State(); s.Rate < 80 || s.Rate > 90 {
			t.Errorf("the last one, 2s later: %+v, want 80/s", s)
		}
		before := l.State()
		set.Share(of(1, 10), throttle.Share{})
		if got := l.State(); got != before {
			t.Errorf("told of its own belief: from %+v to %+v, want no change", before, got)
		}
	})
	synctest.Test(t, func(t *testing.T) { // a ramp knows no belief
		set := throttle.NewSet(func(throttle.Lane) throttle.Config { return guided(40) })
		set.Limiter(flex)
		set.Share(of(4, 80), throttle.Share{})
		want(t, "guided, one of four", set, 10, 0)
	})
	synctest.Test(t, func(t *testing.T) { // the bounds hold
		set := throttle.NewSet(func(throttle.Lane) throttle.Config { return throttle.Config{MinRate: 2, MaxRate: 10} })
		set.Limiter(flex)
		set.Share(of(1000, 0), throttle.Share{})
		want(t, "one of a thousand", set, 2, 0)
		set.Share(of(2, 1e6), throttle.Share{})
		if got := set.Limiter(flex).State().Rate; got != 10 {
			t.Errorf("part of a million: %v/s, want 10/s", got)
		}
	})
}

// What one knows is replaced by the mean of what all know, unless it has been
// refused twice since it told them: then by the lower of the two.
func TestShareAfterRefusals(t *testing.T) {
	for _, tt := range []struct {
		refusals int
		mean     float64
		want     float64 // zero for its own belief
	}{{0, 60, 60}, {1, 60, 60}, {2, 60, 0}, {3, 60, 0}, {2, 10, 10}} {
		synctest.Test(t, func(t *testing.T) {
			set, l := member(40)
			set.Share(of(2, 40), throttle.Share{})
			for range tt.refusals {
				stop := load(t, l, newEndpoint(1e6, ms), 1)
				time.Sleep(time.Second)
				stop()
				acquire(t, l).Done(throttle.Feedback{Outcome: throttle.Throttled})
			}
			own := set.Report()[quota]
			if own.Refusals != int64(tt.refusals) || tt.refusals > 0 && own.Rate >= 40 {
				t.Errorf("Report = %+v, want %d refusals, and less than 40/s after one", own, tt.refusals)
			}
			set.Share(of(2, tt.mean), throttle.Share{})
			got := set.Report()[quota].Rate
			switch {
			case tt.want == 0 && (got > own.Rate || got < 0.9*own.Rate):
				t.Errorf("after %d refusals: believes in %v/s, want its own %v/s", tt.refusals, got, own.Rate)
			case tt.want > 0 && !near(got, tt.want):
				t.Errorf("after %d refusals: believes in %v/s, want %v/s", tt.refusals, got, tt.want)
			}
			set.Share(of(2, tt.mean), throttle.Share{})
			if got := set.Report()[quota].Rate; !near(got, tt.mean) {
				t.Errorf("at the next exchange: believes in %v/s, want %v/s", got, tt.mean)
			}
		})
	}
}

// One of a fleet gives up for the others what it can, but not more than 30 %.
func TestCutInAFleet(t *testing.T) {
	for _, tt := range []struct {
		workers int
		cut     float64
	}{{2, 0.08}, {5, 0.20}, {7, 0.28}, {8, 0.3}, {100, 0.3}} {
		synctest.Test(t, func(t *testing.T) {
			set, l := member(100)
			set.Share(of(tt.workers, 100), throttle.Share{})
			for range 300 { // more than a cycle, and slowly
				time.Sleep(2 * time.Second)
				acquire(t, l).Done(throttle.Feedback{})
			}
			acquire(t, l).Done(throttle.Feedback{Outcome: throttle.Throttled})
			if got, want := set.Report()[quota].Rate, 100*(1-tt.cut); got < 0.999*want || got > 1.001*want {
				t.Errorf("one of %d, after a refusal: believes in %v/s, want %v/s", tt.workers, got, want)
			}
		})
	}
}

// A share that is larger than before reaches those who wait, in all lanes.
func TestShareReachesTheLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		set, l := member(2)
		set.Share(of(20, 2), throttle.Share{})
		acquire(t, l)
		ln := stand(t, l, 1)
		time.Sleep(2 * time.Second) // a fifth of a call
		set.Share(of(2, 2), throttle.Share{})
		check(t, "leaving", ln.times(), 2800*ms)
	})
}

// A fleet together wants a refusal in a cycle, so that the cycle of one is as much
// shorter as there are members; and it is longer when nobody can have heard yet.
func TestGrowthInAFleet(t *testing.T) {
	grown := func(workers int, perWorker float64, interval time.Duration, refused, shared bool) float64 {
		var got float64
		synctest.Test(t, func(t *testing.T) {
			set := throttle.NewSet(func(throttle.Lane) throttle.Config {
				return throttle.Config{Level: throttle.Level{Rate: perWorker * float64(workers)}, MaxRate: 20 * perWorker, Shared: shared}
			})
			l := set.Limiter(flex)
			s := throttle.Share{Workers: workers, Rate: perWorker * float64(workers), Interval: interval}
			set.Share(map[throttle.Lane]throttle.Share{quota: s, flex: s}, s)
			stop := load(t, l, newEndpoint(1e6, ms), 20)
			for range 6 {
				time.Sleep(10 * time.Second)
				s.Rate, s.Refused = set.Report()[quota].Rate, refused // others believe what this one does
				set.Share(map[throttle.Lane]throttle.Share{quota: s, flex: s}, s)
			}
			stop()
			got = l.State().Rate / perWorker
		})
		return got
	}
	quick, slow, held := grown(4, 20, time.Second, false, false), grown(4, 20, 15*time.Second, false, false), grown(4, 20, time.Second, true, false)
	if got := grown(4, 20, time.Second, false, true); !near(got, quick) { // now that something is known of the others
		t.Errorf("growth in a minute by %.2f if shared, want %.2f as well", got, quick)
	}
	t.Logf("in a minute: %.3f with exchanges each second, %.3f each 15s, %.3f with refusals of others", quick, slow, held)
	if quick < 10 { // more than five cycles of 11s
		t.Errorf("growth in a minute by %.2f, want 10 at least: nobody is refused", quick)
	}
	// At a call a second it is calls that a cycle takes: 230 of all together.
	if many, few := grown(16, 1, time.Second, false, false), grown(2, 1, time.Second, false, false); many < 1.5*few {
		t.Errorf("growth in a minute by %.3f of 16 workers, and by %.3f of two, want much more", many, few)
	}
	if slow > 1.2 { // not two cycles
		t.Errorf("growth in a minute by %.3f with an exchange each 15s, want 1.2 at most: somebody may have been refused", slow)
	}
	if held < 1.05 || held > 0.75*quick {
		t.Errorf("growth in a minute by %.2f with others refused, want much less than %.2f", held, quick)
	}
}
