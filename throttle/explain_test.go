package throttle_test

import (
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"upwell/throttle"
)

// reasonsHeard are the reasons that OnChange has told.
type reasonsHeard struct {
	mu      sync.Mutex
	reasons []string
}

func (h *reasonsHeard) add(s throttle.State) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !slices.Contains(h.reasons, s.Reason) {
		h.reasons = append(h.reasons, s.Reason)
	}
}

// take returns the reasons told since the last time, each once.
func (h *reasonsHeard) take() (reasons []string) {
	synctest.Wait()
	h.mu.Lock()
	defer h.mu.Unlock()
	reasons, h.reasons = h.reasons, nil
	return reasons
}

// What people are told, from the first call on, and what State says.
func TestReasons(t *testing.T) {
	for _, refusal := range []struct {
		outcome throttle.Outcome
		text    string
	}{{throttle.Throttled, "cut: 429"}, {throttle.Unavailable, "cut: no capacity"}} {
		synctest.Test(t, func(t *testing.T) {
			var heard reasonsHeard
			l := throttle.New(throttle.Config{OnChange: heard.add})
			e := newEndpoint(10, 200*ms)
			e.refusal = refusal.outcome
			// reasons compares what was told since the last time, each once.
			reasons := func(when string, want ...string) {
				t.Helper()
				got := heard.take()
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("%v: reasons told %s (-want +got):\n%s", refusal.outcome, when, diff)
				}
				if s := l.State(); len(want) > 0 && !slices.Contains(want, s.Reason) {
					t.Errorf("%v: %s State says %q, want one of %q", refusal.outcome, when, s.Reason, want)
				}
			}
			stop := load(t, l, e, 20)
			time.Sleep(2 * time.Second)
			reasons("in the search")
			time.Sleep(20 * time.Second)
			reasons("when it is over", refusal.text, "grew")
			e.setDown(true)
			time.Sleep(10 * time.Second)
			if told := heard.take(); !slices.Contains(told, "probing") {
				t.Errorf("reasons told in an outage: %q, want probing among them", told)
			}
			reasons("later in it")
			e.setDown(false)
			time.Sleep(10 * time.Second)
			stop()
			if told := heard.take(); slices.Contains(told, "probing") || !slices.Contains(told, "grew") {
				t.Errorf("reasons told after it: %q, want grew, and no probing", told)
			}
			acquire(t, l).Done(throttle.Feedback{Outcome: refusal.outcome, RetryAfter: 5 * time.Second})
			reasons("when told to wait", "closed: Retry-After 5s")
			time.Sleep(5 * time.Second)
			stop = load(t, l, e, 20)
			time.Sleep(500 * ms)
			reasons("after that", refusal.text, "grew")
			l.Close(time.Now().Add(time.Minute), "401")
			reasons("by whoever closes", "closed: 401")
			stop()
			time.Sleep(time.Minute)
			p := acquire(t, l)
			reasons("when it may be over", "probing")
			time.Sleep(ms)
			p.Done(throttle.Feedback{})
			if told := heard.take(); len(told) != 1 || told[0] == "probing" {
				t.Errorf("reasons told when it is over: %q, want another than probing", told)
			}
		})
	}
	synctest.Test(t, func(t *testing.T) {
		var heard reasonsHeard
		l := throttle.New(throttle.Config{Level: throttle.Level{Rate: 20}, OnChange: heard.add})
		load(t, l, newEndpoint(1e6, ms), 3)()
		stop := load(t, l, newEndpoint(1e6, ms), 3)
		time.Sleep(5 * time.Second)
		stop()
		if diff := cmp.Diff([]string{"recovering", "grew"}, heard.take()); diff != "" {
			t.Errorf("reasons told from a level on (-want +got):\n%s", diff)
		}
	})
}
