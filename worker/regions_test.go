package worker_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"upwell/jobs"
	"upwell/throttle"
	"upwell/worker"
	"upwell/worker/workertest"
)

// TestRegions has jobs go where there is room, from the line of a Region that
// closes too.
func TestRegions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := workertest.New(t)
		tr.Send(ids("j", 40)...)
		var mu sync.Mutex
		served := make(map[string]int)
		tr.Endpoint.Func = func(_ context.Context, c worker.Call) (worker.Answer, error) {
			if c.Lane.Region == "full" {
				time.Sleep(time.Second) // until when others stand in line there
				return worker.Answer{}, workertest.Fail(worker.Unavailable, 503, time.Hour)
			}
			mu.Lock()
			defer mu.Unlock()
			served[c.Lane.Region]++
			return workertest.Answer(c), nil
		}
		s := newSubject(t, tr, steady(5), worker.Config{Regions: []string{"full", "a", "b"}, ExitWhenEmpty: true})
		began := time.Now()
		s.runs(t.Context(), t, tr)
		tr.Done(t)
		if got := tr.Endpoint.Total().Refused; got > 6 {
			t.Errorf("%d refusals, want at most the 6 of the first second", got)
		}
		if served["a"] < 15 || served["b"] < 15 {
			t.Errorf("served %v, want about 20 each", served)
		}
		if took := time.Since(began); took > time.Minute {
			t.Errorf("it took %v, want less than 1m: the full region was waited for", took)
		}
		for k, r := range tr.Sink.Results() {
			if r.Upwell.Region == "" || r.Upwell.Region == "full" {
				t.Errorf("job %s says it was served in %q", k, r.Upwell.Region)
			}
		}
	})
}

// TestIdleRegionsShareTheWork has jobs come one by one, and all at once, to Regions
// that are idle.
func TestIdleRegionsShareTheWork(t *testing.T) {
	for name, pause := range map[string]time.Duration{"one by one": 10 * time.Second, "at once": 0} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tr := workertest.New(t)
				var j journal
				tr.Endpoint.Func = j.note(workertest.After(time.Second))
				_, stop := start(t, tr, steady(1000), worker.Config{Regions: []string{"a", "b", "c"}})
				for _, id := range ids("j", 60) {
					tr.Send(id)
					time.Sleep(pause)
				}
				time.Sleep(time.Minute)
				stop()
				tr.Done(t)
				for _, r := range []string{"a", "b", "c"} {
					if got := len(j.in(r, "")); got < 10 || got > 30 {
						t.Errorf("%d calls in Region %s, want about 20 of 60", got, r)
					}
				}
			})
		})
	}
}

// TestRegionsAddUp has Regions of unlike rates and slow answers, so that the fast
// one has much in flight: that is no reason to wait for the slow one.
func TestRegionsAddUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := workertest.New(t)
		tr.Send(ids("j", 200)...)
		var j journal
		tr.Endpoint.Func = j.note(workertest.After(time.Minute))
		began := time.Now()
		s := newSubject(t, tr, paces(map[string]float64{"a": 2, "b": 0.5, "c": 0.01}),
			worker.Config{Regions: []string{"a", "b", "c"}, ExitWhenEmpty: true})
		s.runs(t.Context(), t, tr)
		tr.Done(t)
		last := j.calls[len(j.calls)-1].at.Sub(began)
		if last > 82*time.Second {
			t.Errorf("the last call began after %v, want 200 calls at 2.5 a second: 80s", last)
		}
		if got := len(j.in("c", "")); got == 0 {
			t.Errorf("no call in the slowest Region, want one or two")
		}
	})
}

// TestCallsInFlightAreNoLine has a Region with much in flight, and nobody in line,
// beside an idle one that starts a call in 20 s: no job waits for that one.
func TestCallsInFlightAreNoLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := workertest.New(t)
		var j journal
		answer := workertest.After(10 * time.Minute)
		tr.Endpoint.Func = j.note(func(ctx context.Context, c worker.Call) (worker.Answer, error) {
			if c.Lane.Region == "idle" {
				return workertest.Answer(c), nil
			}
			return answer(ctx, c)
		})
		_, stop := start(t, tr, paces(map[string]float64{"busy": 2, "idle": 0.05}), worker.Config{Regions: []string{"busy", "idle"}})
		for _, id := range ids("j", 250) {
			tr.Send(id)
			sent := time.Now()
			time.Sleep(time.Second)
			if at := j.of(id); len(at) != 1 {
				t.Errorf("job %s, sent %v, was called at %v, want at once", id, sent, at)
			}
		}
		time.Sleep(time.Hour)
		stop()
		tr.Done(t)
	})
}

// TestALineLeavesAStalledRegion has two Regions with a line each when one of them
// begins to refuse everything, and its limiter to slow down: those in its line
// are called in the other.
func TestALineLeavesAStalledRegion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := workertest.New(t)
		tr.Send(ids("j", 200)...)
		began := time.Now()
		tr.Endpoint.Func = script(func(_ int, c worker.Call) error {
			if c.Lane.Region == "stalls" && time.Since(began) > time.Second {
				return workertest.Fail(worker.Throttled, 429, 0)
			}
			return nil
		})
		limits := throttle.NewSet(func(l throttle.Lane) throttle.Config {
			if l.Region == "stalls" {
				return throttle.Config{StartRate: 5, MinRate: 0.001, MaxRate: 5}
			}
			return throttle.Config{StartRate: 5, MinRate: 5, MaxRate: 5}
		})
		s := newSubject(t, tr, limits, worker.Config{Regions: []string{"stalls", "steady"}, ExitWhenEmpty: true})
		s.runs(t.Context(), t, tr)
		tr.Done(t)
		// The last ones wait for the steady Region until they see that they gain.
		var last time.Time
		for _, r := range tr.Sink.Results() {
			if r.Upwell.Finished.After(last) {
				last = r.Upwell.Finished
			}
		}
		if got := last.Sub(began); got > time.Minute {
			t.Errorf("the last of 200 jobs was answered after %v, want about 40s at 5 a second", got)
		}
		if got := len(s.of(worker.Released)); got != 0 {
			t.Errorf("%d releases, want none: they change lines", got)
		}
	})
}

// TestALineStaysWhereItIs has the line of one Region move twice as fast as the
// other's, each as long as it should be until one rests for a moment: there is
// next to nothing to gain by a change.
func TestALineStaysWhereItIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := workertest.New(t)
		tr.Send(ids("j", 300)...)
		began := time.Now()
		var once sync.Once
		tr.Endpoint.Func = func(_ context.Context, c worker.Call) (ans worker.Answer, err error) {
			ans = workertest.Answer(c)
			if c.Lane.Region == "b" {
				once.Do(func() { ans, err = worker.Answer{}, workertest.Fail(worker.Throttled, 429, 10*time.Second) })
			}
			return ans, err
		}
		s := newSubject(t, tr, paces(map[string]float64{"a": 2, "b": 1}),
			worker.Config{Regions: []string{"a", "b"}, ExitWhenEmpty: true})
		s.runs(t.Context(), t, tr)
		tr.Done(t)
		if got := tr.Endpoint.Costs(); got > 303 {
			t.Errorf("300 jobs stood in %d lines, want one for each, and for the one refused another", got)
		}
		for k, r := range tr.Sink.Results() {
			if took := r.Upwell.Finished.Sub(began); took > 112*time.Second {
				t.Errorf("job %s was answered after %v, want 300 at 3 a second, and 10s that one line rested", k, took)
			}
		}
	})
}

// only returns a job for those Regions.
func only(id string, more string, regions ...string) jobs.Message {
	return jobs.Message{Body: workertest.Line(id, fmt.Sprintf(`"regions":["%s"]%s`, strings.Join(regions, `","`), more))}
}

// TestResidency has jobs that must stay in Region b, which is in every kind of
// trouble for an hour, while a and c have nothing to do: no call leaves b.
func TestResidency(t *testing.T) {
	deadline := func(d time.Duration) string {
		return fmt.Sprintf(`,"tiers":["flex","default"],"deadline":%q`, time.Now().Add(d).UTC().Format(time.RFC3339))
	}
	for _, fail := range []*worker.Error{
		workertest.Fail(worker.Unavailable, 503, 0),
		workertest.Fail(worker.Unavailable, 503, 10*time.Second),
		workertest.Fail(worker.Unavailable, 529, 30*time.Minute),
		workertest.Fail(worker.Throttled, 429, 0),
		workertest.Fail(worker.Throttled, 429, 10*time.Second),
		workertest.Fail(worker.Throttled, 429, 30*time.Minute),
		workertest.Fail(worker.Transient, 500, 0),
		workertest.Fail(worker.Unauthorized, 401, 0),
	} {
		t.Run(fmt.Sprintf("%d after %v", fail.Status, fail.RetryAfter), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tr := workertest.New(t)
				for i := range 30 {
					tr.Queue.Send(only(fmt.Sprint("b", i), "", "b"))
					tr.Queue.Send(only(fmt.Sprint("b-climbs", i), deadline(30*time.Minute), "b", "elsewhere"))
					tr.Queue.Send(only(fmt.Sprint("ab", i), "", "b", "a"))
					tr.Send(fmt.Sprint("any", i))
				}
				var j journal
				began := time.Now()
				tr.Endpoint.Func = j.note(script(func(_ int, c worker.Call) error {
					if c.Lane.Region == "b" && time.Since(began) < time.Hour {
						return fail
					}
					return nil
				}))
				s := newSubject(t, tr, paces(map[string]float64{"b": 0.2}), worker.Config{
					Regions: []string{"a", "b", "c"}, Slots: 20, MaxAttempts: 1000, ExitWhenEmpty: true,
				})
				s.runs(t.Context(), t, tr)
				tr.Done(t)
				for _, e := range j.calls {
					home, _, _ := strings.Cut(strings.TrimRight(e.id, "0123456789"), "-")
					if home != "any" && !strings.Contains(home, e.lane.Region) {
						t.Errorf("job %s was sent to Region %s", e.id, e.lane.Region)
					}
				}
				for i := range 30 {
					if r := tr.Sink.Results()[key(fmt.Sprint("b", i))]; r.Upwell.Region != "b" {
						t.Errorf("job b%d was answered in %q, want b", i, r.Upwell.Region)
					}
				}
			})
		})
	}
}

// TestAllow has an operator's list beside the jobs' own.
func TestAllow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := workertest.New(t)
		tr.Send("any")
		tr.Queue.Send(only("narrowed", "", "a", "b"))
		tr.Queue.Send(only("forbidden", "", "a", "eu-central-1"))
		var j journal
		tr.Endpoint.Func = j.note(func(_ context.Context, c worker.Call) (worker.Answer, error) { return workertest.Answer(c), nil })
		s := newSubject(t, tr, steady(1), worker.Config{
			Regions: []string{"a", "b", "c"}, Allow: []string{"b", "c", "d"}, ExitWhenEmpty: true,
		})
		s.runs(t.Context(), t, tr)
		tr.Done(t)
		if got := len(j.in("a", "")); got != 0 {
			t.Errorf("%d calls in a Region that is not allowed, want none", got)
		}
		if got := tr.Sink.Results()[key("narrowed")].Upwell.Region; got != "b" {
			t.Errorf("the job for a and b was answered in %q, want b", got)
		}
		l := tr.Queue.Letters()
		const reason = "upwell.regions allows a, eu-central-1, and this worker may use b, c: no Region is among both"
		if len(l) != 1 || l[0].Key != key("forbidden") || l[0].Class != jobs.BadJob || l[0].Reason != reason {
			t.Errorf("letters %+v, want one bad_job that says: %s", l, reason)
		}
	})
}

// TestAnsweredElsewhereIsNoBadJob has a job that this worker may not send anywhere
// and that another, which may, has answered.
func TestAnsweredElsewhereIsNoBadJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := workertest.New(t)
		tr.Queue.Send(only("x", "", "b"))
		s := newSubject(t, tr, steady(1), worker.Config{Regions: []string{"b"}, ExitWhenEmpty: true})
		s.runs(t.Context(), t, tr)
		again := only("x", "", "b")
		again.Again = true
		tr.Queue.Send(again)
		s = newSubject(t, tr, steady(1), worker.Config{Regions: []string{"a"}, ExitWhenEmpty: true})
		s.runs(t.Context(), t, tr)
		tr.Done(t)
		if l := tr.Queue.Letters(); len(l) != 0 {
			t.Errorf("letters %+v, want none", l)
		}
	})
}
