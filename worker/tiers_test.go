package worker_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"upwell/jobs"
	"upwell/throttle"
	"upwell/worker"
	"upwell/worker/workertest"
)

// paces returns limiters that pace evenly and learn nothing, in calls per second
// by Region, model or tier: the first of the three that rates has.
func paces(rates map[string]float64) *throttle.Set {
	return throttle.NewSet(func(l throttle.Lane) throttle.Config {
		for _, name := range []string{l.Region, l.Model, l.Tier} {
			if r := rates[name]; r > 0 {
				return throttle.Config{StartRate: r, MinRate: r, MaxRate: r}
			}
		}
		return throttle.Config{StartRate: 1000, MinRate: 1000, MaxRate: 1000}
	})
}

// ladder returns a job with a deadline and tiers.
func ladder(id string, deadline time.Time, tiers string) jobs.Message {
	return jobs.Message{Body: workertest.Line(id, fmt.Sprintf(`"deadline":%q,"tiers":%s`, deadline.UTC().Format(time.RFC3339), tiers))}
}

// refuse has the calls on flex refused, each in turn by one of the errors and from
// then on by the last.
func refuse(errs ...*worker.Error) func(int, worker.Call) error {
	return func(n int, c worker.Call) error {
		if c.Lane.Tier != "flex" {
			return nil
		}
		return errs[min(n, len(errs))-1]
	}
}

// TestClimbs has a job on flex, refused in each way, and wants it to move up to
// default when its deadline is near, or not at all.
func TestClimbs(t *testing.T) {
	const both = `["flex","default"]`
	full := workertest.Fail(worker.Unavailable, 503, 0)
	rests := workertest.Fail(worker.Unavailable, 503, 10*time.Second)
	closes := workertest.Fail(worker.Unavailable, 529, 40*time.Minute)
	quota := workertest.Fail(worker.Throttled, 429, 0)
	quotaCloses := workertest.Fail(worker.Throttled, 429, 40*time.Minute)
	tests := []struct {
		name     string
		deadline time.Duration // from the start
		tiers    string
		escalate time.Duration
		errs     []*worker.Error
		after    time.Duration // when default is called; zero for never
		within   time.Duration // or so much later
	}{
		{"full", 2 * time.Hour, both, 0, []*worker.Error{full}, 105 * time.Minute, 5 * time.Second},
		{"rests", 2 * time.Hour, both, 0, []*worker.Error{rests}, 105 * time.Minute, 11 * time.Second},
		// Nothing is received while the only lane known is closed, but once a minute.
		{"closes", 2 * time.Hour, both, 0, []*worker.Error{closes}, 105 * time.Minute, time.Minute + 5*time.Second},
		{"an hour before", 2 * time.Hour, both, time.Hour, []*worker.Error{full}, time.Hour, 5 * time.Second},
		{"near from the start", 10 * time.Minute, both, 0, []*worker.Error{full}, time.Nanosecond, 5 * time.Second},
		{"near from the start, and closed", 10 * time.Minute, both, 0, []*worker.Error{closes}, time.Nanosecond, 5 * time.Second},
		{"quota, then full", 2 * time.Hour, both, 0, []*worker.Error{quota, quota, full}, 105 * time.Minute, 5 * time.Second},

		{"quota", 2 * time.Hour, both, 0, []*worker.Error{quota}, 0, 0},
		{"quota, near from the start", 10 * time.Minute, both, 0, []*worker.Error{quota}, 0, 0},
		{"quota closes", 2 * time.Hour, both, 0, []*worker.Error{quotaCloses}, 0, 0},
		{"full, then quota", 2 * time.Hour, both, 0, []*worker.Error{full, full, quota}, 0, 0},
		{"full, then quota closes", 2 * time.Hour, both, 0, []*worker.Error{full, quotaCloses}, 0, 0},
		{"one tier", 2 * time.Hour, `["flex"]`, 0, []*worker.Error{full}, 0, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tr := workertest.New(t)
				began := time.Now()
				tr.Queue.Send(ladder("a", began.Add(tt.deadline), tt.tiers))
				var j journal
				tr.Endpoint.Func = j.note(script(refuse(tt.errs...)))
				s := newSubject(t, tr, steady(0.2), worker.Config{Escalate: tt.escalate, ExitWhenEmpty: true})
				s.runs(t.Context(), t, tr)
				tr.Done(t)
				up := j.in("", "default")
				if tt.after == 0 {
					if l := tr.Queue.Letters(); len(up) != 0 || len(l) != 1 || l[0].Class != jobs.Expired {
						t.Errorf("%d calls on default and letters %v, want none and an expired job", len(up), l)
					}
					return
				}
				if len(up) != 1 {
					t.Fatalf("%d calls on default, want 1", len(up))
				}
				if got := up[0].at.Sub(began); got < tt.after-time.Second || got > tt.after+tt.within {
					t.Errorf("default was called after %v, want %v or up to %v more", got, tt.after, tt.within)
				}
				e := s.of(worker.Escalated)
				if want := (throttle.Lane{Region: "here", Model: "m", Tier: "default"}); len(e) != 1 || e[0].Lane != want || e[0].Key != key("a") {
					t.Errorf("events %v, want one for the job and the lane %v", e, want)
				}
				if got := tr.Sink.Results()[key("a")].Upwell.Tier; got != "default" {
					t.Errorf("it was served by tier %q, want default", got)
				}
			})
		})
	}
}

// TestStaysOnItsTier has jobs that nothing may move up, whatever flex says.
func TestStaysOnItsTier(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := workertest.New(t)
		soon := time.Now().Add(10 * time.Minute).UTC().Format(time.RFC3339)
		tr.Send("no deadline")
		tr.Queue.Send(jobs.Message{Body: fmt.Appendf(nil,
			`{"custom_id":"pinned","url":"/v1/responses","body":{"model":"m","service_tier":"flex"},"upwell":{"deadline":%q}}`, soon)})
		var j journal
		tr.Endpoint.Func = j.note(script(refuse(workertest.Fail(worker.Unavailable, 503, 0))))
		s := newSubject(t, tr, steady(0.2), worker.Config{Tiers: []string{"flex", "default"}})
		ctx, cancel := context.WithTimeout(t.Context(), 6*time.Hour)
		defer cancel()
		s.runs(ctx, t, tr)
		if got := len(j.in("", "default")) + len(s.of(worker.Escalated)); got != 0 {
			t.Errorf("%d calls and events of default, want none", got)
		}
		if got := len(j.in("", "flex")); got < 1000 {
			t.Errorf("%d calls on flex, want one every 5 s", got)
		}
	})
}

// TestClimbsEachRung has three tiers, the first two of which are full.
func TestClimbsEachRung(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := workertest.New(t)
		tr.Queue.Send(ladder("a", time.Now().Add(10*time.Minute), `["flex","default","priority"]`))
		tr.Endpoint.Func = script(func(_ int, c worker.Call) error {
			if c.Lane.Tier != "priority" {
				return workertest.Fail(worker.Unavailable, 503, 0)
			}
			return nil
		})
		run(t, tr, worker.Config{ExitWhenEmpty: true}, time.Hour)
		tr.Done(t)
		r := tr.Sink.Results()[key("a")].Upwell
		var tiers []string
		for _, a := range r.Attempts {
			tiers = append(tiers, a.Tier)
		}
		if got := fmt.Sprint(tiers); got != "[flex default priority]" || r.Tier != "priority" {
			t.Errorf("attempts on %s, served by %q, want [flex default priority] and priority", got, r.Tier)
		}
	})
}

// TestStaysWhereTheNextTierIsClosed has default closed until after the deadline.
func TestStaysWhereTheNextTierIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := workertest.New(t)
		tr.Queue.Send(ladder("a", time.Now().Add(30*time.Minute), `["flex","default"]`))
		began := time.Now()
		tr.Endpoint.Func = script(func(_ int, c worker.Call) error {
			if c.Lane.Tier == "flex" && time.Since(began) < 25*time.Minute {
				return workertest.Fail(worker.Unavailable, 503, 0)
			}
			return nil
		})
		s := newSubject(t, tr, steady(0.2), worker.Config{ExitWhenEmpty: true})
		s.limits.Limiter(throttle.Lane{Region: "here", Model: "m", Tier: "default"}).Close(began.Add(40*time.Minute), "test")
		s.runs(t.Context(), t, tr)
		tr.Done(t)
		if got := tr.Sink.Results()[key("a")].Upwell.Tier; got != "flex" {
			t.Errorf("it was served by tier %q, want flex, which is open again in time", got)
		}
	})
}

// TestALineInAnOutageClimbs has many jobs in the line of a lane that is full and
// tried once in 100 s: when the deadline is near, none waits for its turn to hear
// so.
func TestALineInAnOutageClimbs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := workertest.New(t)
		near := time.Now().Add(time.Hour)
		for _, id := range ids("j", 40) {
			tr.Queue.Send(ladder(id, near.Add(15*time.Minute), `["flex","default"]`))
		}
		var j journal
		tr.Endpoint.Func = j.note(script(refuse(workertest.Fail(worker.Unavailable, 503, 0))))
		s := newSubject(t, tr, paces(map[string]float64{"flex": 0.01}), worker.Config{ExitWhenEmpty: true})
		s.runs(t.Context(), t, tr)
		tr.Done(t)
		up := j.in("", "default")
		if len(up) != 40 {
			t.Fatalf("%d calls on default, want 40", len(up))
		}
		if first, last := up[0].at.Sub(near), up[39].at.Sub(near); first < 0 || last > 3*time.Second {
			t.Errorf("default was called from %v to %v after the deadline was near, want within 3s", first, last)
		}
		if got := len(j.in("", "flex")); got > 40 {
			t.Errorf("%d calls on flex, want at most 40", got)
		}
	})
}

// TestALineThatIsServedDoesNotClimb has jobs in the line of a lane that was full
// once and answers again: however near their deadlines, they stay.
func TestALineThatIsServedDoesNotClimb(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := workertest.New(t)
		for _, id := range ids("j", 40) {
			tr.Queue.Send(ladder(id, time.Now().Add(16*time.Minute), `["flex","default"]`))
		}
		var calls atomic.Int64
		tr.Endpoint.Func = script(func(int, worker.Call) error {
			if calls.Add(1) == 1 {
				return workertest.Fail(worker.Unavailable, 503, 0)
			}
			return nil
		})
		s := newSubject(t, tr, paces(map[string]float64{"flex": 0.1}), worker.Config{ExitWhenEmpty: true})
		s.runs(t.Context(), t, tr)
		tr.Done(t)
		if got := len(s.of(worker.Escalated)); got != 0 {
			t.Errorf("%d jobs moved up, want none", got)
		}
	})
}

// TestAQuotaDoesNotHideWantOfCapacity has flex closed for want of capacity, by its
// own word, and a call that left a little later refused for the quota.
func TestAQuotaDoesNotHideWantOfCapacity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := workertest.New(t)
		began := time.Now()
		tr.Queue.Send(ladder("a", began.Add(30*time.Minute), `["flex","default"]`))
		tr.Queue.Send(ladder("b", began.Add(30*time.Minute), `["flex","default"]`))
		var calls atomic.Int64
		tr.Endpoint.Func = func(_ context.Context, c worker.Call) (worker.Answer, error) {
			n := calls.Add(1)
			time.Sleep(3 * time.Second)
			switch n {
			case 1:
				return worker.Answer{}, workertest.Fail(worker.Unavailable, 503, 50*time.Minute)
			case 2:
				return worker.Answer{}, workertest.Fail(worker.Throttled, 429, 0)
			default:
				return workertest.Answer(c), nil
			}
		}
		s := newSubject(t, tr, steady(1), worker.Config{ExitWhenEmpty: true})
		s.runs(t.Context(), t, tr)
		tr.Done(t)
		if got := len(s.of(worker.Escalated)); got != 2 {
			t.Errorf("%d jobs moved up, want both", got)
		}
	})
}

// TestClimbsInTimeForTheNextTier has a next tier that is known to take longer than
// Config.Escalate: by its answers, or by its line.
func TestClimbsInTimeForTheNextTier(t *testing.T) {
	for name, tt := range map[string]struct {
		takes time.Duration // an answer of default
		line  int           // jobs that always wait for default, which calls one in 10 s
		after time.Duration // when ours moves up, before its deadline
	}{
		"known to be quick": {time.Second, 0, time.Minute},
		"slow answers":      {8 * time.Minute, 0, 8 * time.Minute},
		"a long line":       {time.Second, 30, 10 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tr := workertest.New(t)
				for _, id := range ids("known", 40) {
					tr.Send(id)
				}
				var j journal
				answer := workertest.After(tt.takes)
				tr.Endpoint.Func = j.note(func(ctx context.Context, c worker.Call) (worker.Answer, error) {
					if c.Lane.Tier == "flex" {
						return worker.Answer{}, workertest.Fail(worker.Unavailable, 503, 0)
					}
					return answer(ctx, c)
				})
				limits := paces(map[string]float64{"flex": 0.5, "default": 0.1})
				s, stop := start(t, tr, limits, worker.Config{Escalate: time.Minute, Tiers: []string{"default"}})
				time.Sleep(time.Hour)
				deadline := time.Now().Add(20 * time.Minute).Truncate(time.Second)
				tr.Queue.Send(ladder("a", deadline, `["flex","default"]`))
				tr.Send(ids("line", tt.line)...)
				for i := 0; time.Until(deadline) > 0; i++ {
					time.Sleep(10 * time.Second)
					if tt.line > 0 {
						tr.Send(fmt.Sprint("next", i))
					}
				}
				time.Sleep(time.Hour)
				stop()
				tr.Done(t)
				e := s.of(worker.Escalated)
				if len(e) != 1 {
					t.Fatalf("%d jobs moved up, want 1", len(e))
				}
				// It is refused, and asks itself whether to move up, every 2 s. One job
				// more or less in the line that moment is 20 s.
				if got := deadline.Sub(e[0].At); (got - tt.after).Abs() > 25*time.Second {
					t.Errorf("it moved up %v before its deadline, want %v", got, tt.after)
				}
			})
		})
	}
}

// TestNobodyIsPutOffPastTheDeadline has a full lane with a crowded line, and jobs
// whose deadline is near when they come: they are moved up, not put off.
func TestNobodyIsPutOffPastTheDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := workertest.New(t)
		tr.Endpoint.Func = script(refuse(workertest.Fail(worker.Unavailable, 503, 0)))
		for _, id := range ids("patient", 100) {
			tr.Queue.Send(jobs.Message{Body: workertest.Line(id, `"tiers":["flex"]`)})
		}
		s, stop := start(t, tr, paces(map[string]float64{"flex": 0.02}), worker.Config{Slots: 10})
		time.Sleep(2 * time.Hour)
		for _, id := range ids("near", 100) {
			tr.Queue.Send(ladder(id, time.Now().Add(10*time.Minute), `["flex","default"]`))
		}
		time.Sleep(2 * time.Minute) // one until a limiter that probes is looked past
		if got := len(s.of(worker.Escalated)); got != 100 {
			t.Errorf("%d jobs moved up within two minutes, want 100", got)
		}
		stop()
		if got := len(tr.Sink.Results()); got != 100 {
			t.Errorf("%d results, want 100", got)
		}
	})
}
