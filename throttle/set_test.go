package throttle_test

import (
	"context"
	"encoding/json"
	"math"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"upwell/throttle"
)

// Changes of one line that these tests have been seen to catch:
//
//   - Limiter: a new one each time; a new quota each time; config is not asked; a
//     new tier begins at the default whatever the quota
//   - quota: reserved capacity has none of its own, or one by the same name
//   - States: a lane is left out
//   - Levels: what is unknown, too; not what was let through; no tokens; walls of
//     which nothing is known
//   - usage: prompts are as estimated; answers are as long as they may be, or as the
//     last one, or never longer than the mean
//   - Done: the lines of other tiers are not told

func TestSet(t *testing.T) {
	west := throttle.Lane{Region: "us-west-2", Model: "xai.grok-4.3", Tier: "flex"}
	east := throttle.Lane{Region: "us-east-1", Model: "xai.grok-4.3", Tier: "flex"}
	asked := make(map[throttle.Lane]int)
	set := throttle.NewSet(func(lane throttle.Lane) throttle.Config {
		asked[lane]++ // guarded by the set's lock
		if lane.Region == west.Region {
			return throttle.Config{StartRate: 50}
		}
		return throttle.Config{}
	})
	if got := set.States(); len(got) != 0 {
		t.Errorf("States of an empty set = %v, want none", got)
	}

	first := set.Limiter(west)
	var gone sync.WaitGroup
	for range 8 {
		gone.Go(func() {
			if set.Limiter(west) != first {
				t.Errorf("Limiter(%v) is another one the second time", west)
			}
			if set.Limiter(east) == first {
				t.Errorf("Limiter(%v) is that of %v", east, west)
			}
			set.States()
		})
	}
	gone.Wait()
	if diff := cmp.Diff(map[throttle.Lane]int{west: 1, east: 1, {Region: "us-west-2", Model: "xai.grok-4.3"}: 1, {Region: "us-east-1", Model: "xai.grok-4.3"}: 1}, asked); diff != "" {
		t.Errorf("config asked (-want +got):\n%s", diff)
	}

	acquire(t, first)
	want := map[throttle.Lane]throttle.State{
		west: {Rate: 50, InFlight: 1, Reason: "start", Bound: throttle.Ramp},
		east: {Rate: 5, Reason: "start", Bound: throttle.Ramp},
	}
	if diff := cmp.Diff(want, set.States()); diff != "" {
		t.Errorf("States (-want +got):\n%s", diff)
	}
}

// What a Set tells is told beside what its lanes tell, and names them.
func TestSetObserve(t *testing.T) {
	own, told := 0, make(map[throttle.Lane]int)
	set := throttle.NewSet(func(l throttle.Lane) throttle.Config {
		if l.Tier == "flex" {
			return throttle.Config{OnChange: func(throttle.State) { own++ }}
		}
		return throttle.Config{}
	})
	set.Observe(func(l throttle.Lane, s throttle.State) {
		if s.Reason == "" {
			t.Errorf("told of %s: %+v, want a reason", l, s)
		}
		told[l]++
	})
	flex, other := throttle.Lane{Region: "r", Model: "m", Tier: "flex"}, throttle.Lane{Region: "r", Model: "m", Tier: "default"}
	for _, l := range []throttle.Lane{flex, other} {
		acquire(t, set.Limiter(l)).Done(throttle.Feedback{Outcome: throttle.Throttled})
	}
	if own == 0 || told[flex] != own || told[other] == 0 || len(told) != 2 {
		t.Errorf("told %d times by the lane's own settings and %v by the set, want the same for flex, and the other lane as well", own, told)
	}
}

func TestSetWithDefaults(t *testing.T) {
	if got := throttle.NewSet(nil).Limiter(throttle.Lane{}).State().Rate; got != 5 {
		t.Errorf("rate = %v, want 5", got)
	}
}

func TestStrings(t *testing.T) {
	for _, tt := range []struct{ got, want string }{
		{throttle.Lane{Region: "us-west-2", Model: "m", Tier: "flex"}.String(), "us-west-2/m/flex"},
		{throttle.Accepted.String(), "accepted"},
		{throttle.Throttled.String(), "throttled"},
		{throttle.Unavailable.String(), "unavailable"},
		{throttle.Unrelated.String(), "unrelated"},
		{throttle.Outcome(7).String(), "Outcome(7)"},
		{
			(&throttle.ClosedError{
				Until:  time.Date(2026, 1, 2, 16, 4, 5, 0, time.FixedZone("", 3600)),
				Reason: "Retry-After 20s",
			}).Error(),
			"closed until 2026-01-02T15:04:05Z: Retry-After 20s",
		},
	} {
		if tt.got != tt.want {
			t.Errorf("String = %q, want %q", tt.got, tt.want)
		}
	}
}

// lanes of a set: two tiers of one model, reserved capacity of it, and what has
// nothing to do with these.
var (
	flex      = throttle.Lane{Region: "us-west-2", Model: "m", Tier: "flex"}
	standard  = throttle.Lane{Region: "us-west-2", Model: "m", Tier: "default"}
	reserved  = throttle.Lane{Region: "us-west-2", Model: "m", Tier: "reserved"}
	elsewhere = throttle.Lane{Region: "us-east-1", Model: "m", Tier: "flex"}
	another   = throttle.Lane{Region: "us-west-2", Model: "n", Tier: "flex"}
	quota     = throttle.Lane{Region: "us-west-2", Model: "m"}
)

// The tiers of a model share a quota in a Region, which a 429 is about; a 503 is
// about one tier.
func TestTiersShareTheQuota(t *testing.T) {
	for outcome, slower := range map[throttle.Outcome][]throttle.Lane{
		throttle.Throttled:   {flex, standard},
		throttle.Unavailable: {flex},
		throttle.Unrelated:   nil,
	} {
		synctest.Test(t, func(t *testing.T) {
			set := throttle.NewSet(func(throttle.Lane) throttle.Config { return guided(10) })
			want := make(map[throttle.Lane]float64)
			for _, lane := range []throttle.Lane{flex, standard, reserved, elsewhere, another} {
				set.Limiter(lane)
				want[lane] = 10
			}
			acquire(t, set.Limiter(flex)).Done(throttle.Feedback{Outcome: outcome})
			for _, lane := range slower {
				want[lane] = 5
			}
			got := make(map[throttle.Lane]float64)
			for lane, s := range set.States() {
				got[lane] = s.Rate
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("rates after %v of %v (-want +got):\n%s", outcome, flex, diff)
			}
		})
	}
	synctest.Test(t, func(t *testing.T) {
		set := throttle.NewSet(func(throttle.Lane) throttle.Config { return guided(10) })
		set.Limiter(flex)
		acquire(t, set.Limiter(reserved)).Done(throttle.Feedback{Outcome: throttle.Throttled})
		if got := set.Limiter(flex).State().Rate; got != 10 {
			t.Errorf("rate of %v after a 429 of reserved capacity = %v, want 10", flex, got)
		}
		if got := set.Limiter(reserved).State().Rate; got != 5 {
			t.Errorf("rate of %v after its 429 = %v, want 5", reserved, got)
		}
	})
}

// All tiers together send what the quota allows.
func TestTiersSpendTheQuota(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		set := throttle.NewSet(func(throttle.Lane) throttle.Config { return fixed(10) })
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		var sent [2]int
		var gone sync.WaitGroup
		for i, lane := range []throttle.Lane{flex, standard} {
			gone.Go(func() {
				for {
					p, err := set.Limiter(lane).Acquire(ctx, throttle.Cost{})
					if err != nil {
						return
					}
					sent[i]++
					p.Done(throttle.Feedback{})
				}
			})
		}
		gone.Wait()
		if all := sent[0] + sent[1]; all < 100 || all > 101 || sent[0] == 0 || sent[1] == 0 {
			t.Errorf("%v sent in 10s at 10/s, want 100 in all", sent)
		}
	})
}

// A closure for lack of capacity, or by hand, is one tier's; what is said about the
// quota reaches those who wait in all.
func TestClosureOfATier(t *testing.T) {
	for _, tt := range []struct {
		name   string
		close  func(*throttle.Limiter, throttle.Permit)
		blocks bool
	}{
		{"503", func(_ *throttle.Limiter, p throttle.Permit) {
			p.Done(throttle.Feedback{Outcome: throttle.Unavailable, RetryAfter: time.Minute})
		}, false},
		{"by hand", func(l *throttle.Limiter, p throttle.Permit) {
			l.Close(time.Now().Add(time.Minute), "401")
			p.Done(throttle.Feedback{Outcome: throttle.Unrelated})
		}, false},
		{"429", func(_ *throttle.Limiter, p throttle.Permit) {
			p.Done(throttle.Feedback{Outcome: throttle.Throttled, RetryAfter: time.Minute})
		}, true},
	} {
		synctest.Test(t, func(t *testing.T) {
			set := throttle.NewSet(func(throttle.Lane) throttle.Config { return guided(2) })
			p := acquire(t, set.Limiter(flex))
			waiting := stand(t, set.Limiter(standard), 2)
			tt.close(set.Limiter(flex), p)
			if _, err := set.Limiter(flex).Acquire(t.Context(), throttle.Cost{}); err == nil {
				t.Errorf("%s: Acquire of the tier = nil, want closed", tt.name)
			}
			want := []time.Duration{500 * ms, 1000 * ms}
			if tt.blocks {
				want = []time.Duration{0, 0} // sent away
			}
			check(t, tt.name+": another tier left after", waiting.times(), want...)
			for _, d := range waiting.left {
				if (d.err != nil) != tt.blocks {
					t.Errorf("%s: Acquire of another tier = %v, want an error: %v", tt.name, d.err, tt.blocks)
				}
			}
		})
	}
}

// What one set has learned, another begins with.
func TestLevels(t *testing.T) {
	var saved []byte
	synctest.Test(t, func(t *testing.T) {
		set := throttle.NewSet(nil)
		if got := set.Levels(); len(got) != 0 {
			t.Errorf("Levels of an empty set = %v, want none", got)
		}
		set.Limiter(elsewhere)
		stop := load(t, set.Limiter(flex), newEndpoint(20, time.Second), 50)
		time.Sleep(3 * time.Minute)
		stop()
		levels := set.Levels()
		if got := levels[quota].Rate; len(levels) != 2 || math.Abs(got-20) > 2 {
			t.Errorf("Levels = %+v, want 20/s of the quota, and something of %v", levels, flex)
		}
		if got := levels[flex].Rate; got < 20 { // it was never refused
			t.Errorf("level of %v = %v/s, want more than 20/s", flex, got)
		}
		for lane, level := range levels {
			if level.InFlight != 0 || level.Tokens != 0 {
				t.Errorf("level of %v = %+v, want no limit in flight, and nothing of tokens", lane, level)
			}
		}
		var err error
		if saved, err = json.Marshal(levels); err != nil {
			t.Fatal(err)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		var levels map[throttle.Lane]throttle.Level
		if err := json.Unmarshal(saved, &levels); err != nil {
			t.Fatal(err)
		}
		set := throttle.NewSet(func(lane throttle.Lane) throttle.Config { return throttle.Config{StartRate: 1000, Level: levels[lane]} })
		l := set.Limiter(flex)
		level := levels[quota].Rate
		if s := l.State(); !near(s.Rate, level/2) {
			t.Errorf("starts at %v, want half of %v", s.Rate, level)
		}
		stop := load(t, l, newEndpoint(20, time.Second), 50)
		time.Sleep(2 * time.Second)
		if s := l.State(); s.Rate < level || s.Throttled > 0 {
			t.Errorf("after 2s: %+v, want %v/s and none refused", s, level)
		}
		stop()
	})
}

// Of tokens, a level remembers what calls take: twice the estimate of a prompt, and
// of the answer what it has, whatever it may have.
func TestLevelOfTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		set := throttle.NewSet(func(throttle.Lane) throttle.Config { return throttle.Config{StartRate: 100, MaxRate: 100} })
		l := set.Limiter(flex)
		for i := range 2000 {
			p, err := l.Acquire(t.Context(), throttle.Cost{Input: 1000, Output: 4000})
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * ms)
			p.Done(throttle.Feedback{Used: throttle.Cost{Input: 2000, Output: 200 + 200*(i%2)}}) // 300 on average
		}
		acquire(t, l).Done(throttle.Feedback{Outcome: throttle.Throttled})
		got := set.Levels()[quota]
		if math.Abs(got.Tokens-2300) > 50 || got.Weight != 0.5 {
			t.Errorf("level = %+v, want 2300 tokens a call", got)
		}
	})
}

// Reserved capacity has a quota of its own, and both are known by a name of their own.
func TestNamesOfQuotas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, lane := range []throttle.Lane{flex, reserved} {
			set := throttle.NewSet(nil)
			l := set.Limiter(lane)
			stop := load(t, l, newEndpoint(20, time.Second), 50)
			time.Sleep(3 * time.Minute)
			stop()
			known := 0
			for _, r := range set.Report() {
				if r.Rate > 0 && r.Refusals > 0 {
					known++
				}
			}
			if known != 1 || len(set.Report()) != 2 {
				t.Errorf("%v: Report = %+v, want the quota's rate, and a lane of which nothing is known", lane, set.Report())
			}
		}
	})
}

func TestLaneText(t *testing.T) {
	for lane, want := range map[throttle.Lane]string{
		flex: "us-west-2/m/flex", {Model: "org/model", Tier: "flex"}: "org/model/flex",
	} {
		if got := lane.String(); got != want {
			t.Errorf("%#v reads %q, want %q", lane, got, want)
		}
	}
	for _, lane := range []throttle.Lane{
		{},
		flex, quota,
		{Region: "us-west-2", Model: "org/model/of/parts", Tier: "flex"},
		{Region: "us-west-2", Model: "/", Tier: ""},
		{Model: "org/model", Tier: "flex"},
	} {
		text, err := json.Marshal(map[throttle.Lane]int{lane: 1})
		if err != nil {
			t.Fatal(err)
		}
		var got map[throttle.Lane]int
		if err := json.Unmarshal(text, &got); err != nil || got[lane] != 1 || len(got) != 1 {
			t.Errorf("%s read back as %v, %v, want %+v", text, got, err, lane)
		}
	}
	for _, text := range []string{"", "us-west-2", "us-west-2/flex"} {
		lane := flex
		if err := lane.UnmarshalText([]byte(text)); err == nil || lane != flex {
			t.Errorf("UnmarshalText(%q) = %v, lane %+v, want an error", text, err, lane)
		}
	}
}

// A tier of which nothing is known begins where half of the quota would be used.
func TestNewTier(t *testing.T) {
	set := throttle.NewSet(func(lane throttle.Lane) throttle.Config {
		if lane == quota {
			return throttle.Config{Level: throttle.Level{Rate: 40}}
		}
		return throttle.Config{MaxRate: 30}
	})
	if got := set.Limiter(flex).State().Rate; got != 20 {
		t.Errorf("a tier of a quota of 40/s starts at %v/s, want 20/s", got)
	}
	if got := set.Limiter(elsewhere).State().Rate; got != 5 {
		t.Errorf("a tier of an unknown quota starts at %v/s, want 5/s", got)
	}
}
