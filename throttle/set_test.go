package throttle_test

import (
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"upwell/throttle"
)

// Changes of one line that these tests have been seen to catch:
//
//   - Limiter: a new one each time; config is not asked
//   - States: a lane is left out

func TestSet(t *testing.T) {
	west := throttle.Lane{Region: "us-west-2", Model: "xai.grok-4.3", Tier: "flex"}
	east := throttle.Lane{Region: "us-east-1", Model: "xai.grok-4.3", Tier: "flex"}
	asked := make(map[throttle.Lane]int)
	set := throttle.NewSet(func(lane throttle.Lane) throttle.Config {
		asked[lane]++ // guarded by the set's lock
		if lane == west {
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
	if diff := cmp.Diff(map[throttle.Lane]int{west: 1, east: 1}, asked); diff != "" {
		t.Errorf("config asked (-want +got):\n%s", diff)
	}

	acquire(t, first)
	want := map[throttle.Lane]throttle.State{
		west: {Rate: 50, InFlight: 1, Reason: "start"},
		east: {Rate: 10, Reason: "start"},
	}
	if diff := cmp.Diff(want, set.States()); diff != "" {
		t.Errorf("States (-want +got):\n%s", diff)
	}
}

func TestSetWithDefaults(t *testing.T) {
	if got := throttle.NewSet(nil).Limiter(throttle.Lane{}).State().Rate; got != 10 {
		t.Errorf("rate = %v, want 10", got)
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
				Reason: "retry-after 20s",
			}).Error(),
			"closed until 2026-01-02T15:04:05Z: retry-after 20s",
		},
	} {
		if tt.got != tt.want {
			t.Errorf("String = %q, want %q", tt.got, tt.want)
		}
	}
}
