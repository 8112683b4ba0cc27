package virtual

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"upwell/integration/fixture"
	"upwell/jobs"
	"upwell/jobs/sqsqueue/sqssim"
	"upwell/sink"
	"upwell/sink/s3sink/s3sim"
	"upwell/throttle"
	"upwell/worker"
	"upwell/worker/mantle/mantlesim"
	"upwell/worker/mantle/mantlesim/capacity"
)

// untilEmpty is a worker that stops when the queue holds nothing. A single
// attempt that counts makes a dead letter of a job: refusals must not count.
var untilEmpty = worker.Config{ExitWhenEmpty: true, MaxAttempts: 1}

func TestHiddenRate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t, plan{Mantle: mantlesim.Config{
			Capacity: capacity.MustScript("calls=2 burst=1"),
			Latency:  mantlesim.Latency{Median: 20 * time.Second},
		}})
		names := fixture.IDs("job", 1000)
		s.submit(names)
		start := time.Now()
		s.hire(untilEmpty).run(t.Context())
		s.check(account{IDs: names})
		// 500 s of calls and the last one's latency, and a quarter for finding the
		// rate, and that calls are counted, with few refusals: a budget of two calls
		// refuses what comes a little early.
		if took := time.Since(start); took > 11*time.Minute {
			t.Errorf("took %v, want at most 11m", took)
		}
		if c := s.mantle.Counts(); c.Refused429 > c.Calls/50 {
			t.Errorf("%d of %d calls were refused, want at most 2 %%", c.Refused429, c.Calls)
		}
	})
}

// TestLongCalls makes calls that outlast five visibility timeouts.
func TestLongCalls(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t, plan{Mantle: mantlesim.Config{Latency: mantlesim.Latency{Median: 5 * time.Minute}}}) // twice that on flex
		names := fixture.IDs("job", 100)
		s.submit(names)
		cfg := untilEmpty
		cfg.Tiers, cfg.Slots = []string{"flex"}, 40
		sh := s.hire(cfg)
		start := time.Now()
		sh.run(t.Context())
		s.check(account{IDs: names})
		if took := time.Since(start); took < 30*time.Minute || took > 32*time.Minute {
			t.Errorf("100 calls of 10m in 40 slots took %v, want 30m and little more", took)
		}
		if got := s.sqs.Stats().Queues[fixture.Queue].Received; got != 100 {
			t.Errorf("%d deliveries, want one for each of 100 jobs", got)
		}
		var cost float64
		for id, r := range s.lines(sink.Results) {
			cost += float64(r.Upwell.CostUSD)
			if r.Upwell.Tier != "flex" || len(r.Upwell.Attempts) != 1 || r.Upwell.Attempts[0].TookMS < 600_000 {
				t.Errorf("job %s: tier %q, attempts %v; want flex and one of 10m", id, r.Upwell.Tier, r.Upwell.Attempts)
			}
		}
		if billed := s.mantle.Counts().Cost; math.Abs(cost-billed) > billed/1e6 {
			t.Errorf("the results cost %v USD, want the %v that were billed", cost, billed)
		}
	})
}

// TestCeiling waits for longer than SQS lets a delivery last. A job is held in a
// line for hours; when its delivery nears its end it is given back and received
// anew, and nobody notices.
func TestCeiling(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t, plan{Mantle: mantlesim.Config{
			// Not a single call for 13 hours, then plenty.
			Capacity: capacity.MustScript("0s calls=0; 13h calls=20"),
			Latency:  mantlesim.Latency{Median: 5 * time.Second},
		}})
		names := fixture.IDs("job", 30)
		s.submit(names)
		sh := s.hire(untilEmpty)
		start := time.Now()
		sh.run(t.Context())
		s.check(account{IDs: names})
		if took := time.Since(start); took < 13*time.Hour || took > 14*time.Hour {
			t.Errorf("took %v, want 13h and less than another", took)
		}
		if n := sh.count(worker.Lost); n != 0 {
			t.Errorf("%d deliveries were lost, want each given back in time", n)
		}
		if got := sh.count(worker.Released); got != 30 {
			t.Errorf("%d messages were given back, want each of 30 once", got)
		}
		if got := s.sqs.Stats().Queues[fixture.Queue].Received; got != 60 {
			t.Errorf("%d deliveries, want 60: each message twice", got)
		}
	})
}

// TestTrickle works for most of a day at two calls an hour, far below what the
// limiter goes down to.
func TestTrickle(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t, plan{Mantle: mantlesim.Config{
			Capacity: capacity.MustScript("calls=0.0006"),
			Latency:  mantlesim.Latency{Median: 10 * time.Minute},
		}})
		names := fixture.IDs("job", 40)
		s.submit(names)
		sh := s.hire(untilEmpty)
		start := time.Now()
		sh.run(t.Context())
		s.check(account{IDs: names})
		if took := time.Since(start); took < 17*time.Hour || took > 20*time.Hour {
			t.Errorf("took %v, want the 18h03m that 39 more calls take, and little more", took)
		}
		if n := sh.count(worker.Lost); n != 0 {
			t.Errorf("%d deliveries were lost, want each given back in time", n)
		}
	})
}

// TestBadWeather has refusals of all kinds, and an outage. None of it is a job's
// fault, so a job's only attempt may still be ahead of it.
func TestBadWeather(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		refusal mantlesim.Refusal
		faults  []mantlesim.Fault
	}{
		{name: "no word", faults: []mantlesim.Fault{
			{Kind: mantlesim.Unavailable, After: 45 * time.Second, Until: 4 * time.Minute},
			{Kind: mantlesim.AWSError, P: 0.004},
			{Kind: mantlesim.StringError, P: 0.004},
			{Kind: mantlesim.NestedError, P: 0.004},
			{Kind: mantlesim.Overloaded, P: 0.004},
		}},
		{name: "retry-after", refusal: mantlesim.Refusal{RetryAfter: 5 * time.Second, Unavailable: 0.2, Overloaded: 0.2}, faults: []mantlesim.Fault{
			{Kind: mantlesim.Unavailable, After: 45 * time.Second, Until: 4 * time.Minute, RetryAfter: 45 * time.Second},
		}},
		{name: "retry-after as a date", refusal: mantlesim.Refusal{RetryAfter: 20 * time.Second, RetryDate: true, Delay: 300 * time.Millisecond}, faults: []mantlesim.Fault{
			{Kind: mantlesim.Throttle, After: 45 * time.Second, Until: 3 * time.Minute},
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSystem(t, plan{Mantle: mantlesim.Config{
					Capacity: capacity.MustScript("0s calls=10 burst=1; 20s calls=3; 6m calls=3..20/2m conc=60 queue=10"),
					Latency:  mantlesim.Latency{Median: 6 * time.Second, Sigma: 0.5},
					Refusal:  tt.refusal, Faults: tt.faults,
				}})
				names := fixture.IDs("job", 400)
				s.submit(names)
				start := time.Now()
				s.hire(untilEmpty).run(t.Context())
				s.check(account{IDs: names})
				c := s.mantle.Counts()
				if c.Status[429]+c.Status[503] == 0 || len(c.Faults) == 0 {
					t.Errorf("no refusals (%v), want many", c.Status)
				}
				if took := time.Since(start); took > 20*time.Minute {
					t.Errorf("took %v, want at most 20m: the weather is bad for six", took)
				}
			})
		})
	}
}

// TestRetryAfter wants the endpoint to be left alone for as long as it asks.
func TestRetryAfter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const rest = 50 * time.Second
		s := newSystem(t, plan{Mantle: mantlesim.Config{
			Latency: mantlesim.Latency{Median: 5 * time.Second},
			Faults:  []mantlesim.Fault{{Kind: mantlesim.Unavailable, After: 10 * time.Second, Until: 6 * time.Minute, RetryAfter: rest}},
		}})
		names := fixture.IDs("job", 300)
		s.submit(names)
		s.hire(untilEmpty).run(t.Context())
		s.check(account{IDs: names})
		var until time.Time
		for _, e := range s.mantle.Ledger() {
			// A refusal takes no time, and a call that was on its way is excused.
			if e.Received.Before(until) && e.Received.After(until.Add(time.Second-rest)) {
				t.Errorf("a call came %v before the endpoint wanted one", until.Sub(e.Received))
			}
			if e.Fault != "" {
				until = e.Answered.Add(rest)
			}
		}
		if until.IsZero() {
			t.Error("nothing was refused: the test tests nothing")
		}
	})
}

// badAnswers are the answers that come with status 200 and are none, and what
// they end as.
var badAnswers = []struct {
	kind  string
	class jobs.Class
}{
	{mantlesim.Truncate, jobs.Truncated},
	{mantlesim.Decline, jobs.Refused},
	{mantlesim.Filter, jobs.Refused},
	{mantlesim.Violate, jobs.SchemaFailed},
	{mantlesim.Empty, jobs.Exhausted},
	{mantlesim.Failed, jobs.Exhausted},
	{mantlesim.Garbage, jobs.Exhausted},
	{mantlesim.Cut, jobs.Exhausted},
}

// TestBadAnswers is P9, over both APIs.
func TestBadAnswers(t *testing.T) {
	t.Parallel()
	const schema = `{"type":"object","properties":{"risk":{"type":"string"}},"required":["risk"],"additionalProperties":false}`
	for _, tt := range []struct{ url, input, format string }{
		{jobs.Responses, `"input":"hi"`, `"text":{"format":{"type":"json_schema","name":"a","strict":true,"schema":` + schema + `}}`},
		{jobs.ChatCompletions, `"messages":[{"role":"user","content":"hi"}]`, `"response_format":{"type":"json_schema","json_schema":{"name":"a","strict":true,"schema":` + schema + `}}`},
	} {
		t.Run(strings.TrimPrefix(tt.url, "/v1/"), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var faults []mantlesim.Fault
				for _, bad := range badAnswers {
					faults = append(faults, mantlesim.Fault{Kind: bad.kind, Match: `"custom_id":"` + bad.kind + `"`})
				}
				s := newSystem(t, plan{Mantle: mantlesim.Config{Latency: mantlesim.Latency{Median: time.Second}, Faults: faults}})
				want := make(map[string]jobs.Class)
				for _, bad := range badAnswers {
					want[bad.kind] = bad.class
					s.send(fmt.Sprintf(`{"custom_id":%q,"url":%q,"body":{"model":%q,"metadata":{"custom_id":%[1]q},%[4]s,%[5]s}}`, bad.kind, tt.url, fixture.Model, tt.input, tt.format))
				}
				// The job's own schema, which the request does not carry.
				want["violate.own"] = jobs.SchemaFailed
				s.send(fmt.Sprintf(`{"custom_id":"violate.own","url":%q,"body":{"model":%q,%s},"upwell":{"schema":{"type":"array"}}}`, tt.url, fixture.Model, tt.input+`,"text":{"format":{"type":"text"}},"response_format":{"type":"text"}`))
				s.hire(worker.Config{ExitWhenEmpty: true, MaxAttempts: 3}).run(t.Context())
				if got := s.letters(); len(got) != len(want) {
					t.Errorf("letters %v, want %v", got, want)
				}
				failures := s.lines(sink.Errors)
				for id, class := range want {
					r := failures[id]
					if r.Error == nil || r.Error.Code != class || s.letters()[id] != class {
						t.Errorf("%s ended as the line %+v and the letter %q, want %s", id, r.Error, s.letters()[id], class)
					}
					if paid := class != jobs.Exhausted; paid && (r.Response == nil || r.Upwell.Usage.OutputTokens == 0) {
						t.Errorf("%s: the answer is not kept, want it in the error line: it was paid for", id)
					}
				}
				if got := s.lines(sink.Results); len(got) != 0 {
					t.Errorf("%d bad answers are stored as results, want none", len(got))
				}
				if n := len(s.sqs.Messages(fixture.Queue)); n != 0 {
					t.Errorf("%d messages are left, want none", n)
				}
			})
		})
	}
}

// TestBadMessages sends what is no job at all.
func TestBadMessages(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t, plan{})
		bodies := []string{
			`hello`, `{}`, `[]`, `{"custom_id":"a"}`, `{"custom_id":"b","url":"/v1/embeddings","body":{"model":"m"}}`,
			`{"custom_id":"c","url":"/v1/responses","body":{"model":"m"},"upwell":{"colour":"red"}}`,
			`{"custom_id":"d","url":"/v1/responses","body":{}}`,
		}
		for _, b := range bodies {
			s.send(b)
		}
		s.hire(untilEmpty).run(t.Context())
		var got []string
		for _, m := range s.sqs.Messages(fixture.Dead) {
			got = append(got, m.Body)
			if class := m.Attributes["upwell.class"].StringValue; class != string(jobs.BadJob) {
				t.Errorf("letter of %s is %q, want %q", m.Body, class, jobs.BadJob)
			}
		}
		slices.Sort(got)
		slices.Sort(bodies)
		if !slices.Equal(got, bodies) {
			t.Errorf("letters %q, want %q", got, bodies)
		}
		if n := len(s.lines(sink.Errors)); n != 4 {
			t.Errorf("%d error lines, want one for each of the 4 that have a name", n)
		}
		if c := s.mantle.Counts(); c.Calls != 0 {
			t.Errorf("%d calls, want none", c.Calls)
		}
	})
}

func TestTwoWorkers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t, plan{Mantle: mantlesim.Config{
			Capacity: capacity.MustScript("calls=8"), Latency: mantlesim.Latency{Median: 10 * time.Second, Sigma: 0.5},
		}})
		names := fixture.IDs("job", 1200)
		s.submit(names)
		shifts := []*shift{s.hire(untilEmpty), s.hire(untilEmpty)}
		var working sync.WaitGroup
		for _, sh := range shifts {
			working.Go(func() { sh.run(t.Context()) })
		}
		working.Wait()
		s.check(account{IDs: names})
		a, b := shifts[0].count(worker.Stored), shifts[1].count(worker.Stored)
		if a+b != 1200 || min(a, b) < 300 {
			t.Errorf("the workers stored %d and %d, want 1200 in all and no less than 300", a, b)
		}
	})
}

// TestDeploys stops one worker after the other with calls in flight, and with
// receives in flight that have hidden messages already.
func TestDeploys(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t, plan{
			Mantle: mantlesim.Config{
				Capacity: capacity.MustScript("calls=10"), Latency: mantlesim.Latency{Median: 30 * time.Second, Sigma: 0.3, Max: 100 * time.Second},
			},
			SQS: func(op string, _ sqssim.Call) sqssim.Fault {
				if op == "ReceiveMessage" {
					return sqssim.Fault{Delay: 300 * time.Millisecond}
				}
				return sqssim.Fault{}
			},
		})
		names := fixture.IDs("job", 600)
		s.submit(names)
		for range 3 {
			ctx, cancel := context.WithTimeout(t.Context(), 25*time.Second)
			sh := s.hire(untilEmpty)
			stopped := make(chan time.Time, 1)
			context.AfterFunc(ctx, func() {
				if n := s.mantle.Counts().InFlight; n < 50 {
					t.Errorf("%d calls in flight when told to stop, want many", n)
				}
				stopped <- time.Now()
			})
			sh.run(ctx)
			cancel()
			if d := time.Since(<-stopped); d > 100*time.Second {
				t.Errorf("a drain took %v, want no longer than the calls in flight", d)
			}
			// Whatever it had and did not send is back, at once and not hidden.
			if n := s.sqs.Stats().Queues[fixture.Queue].InFlight; n != 0 {
				t.Errorf("%d messages are hidden after a drain, want none", n)
			}
		}
		s.hire(untilEmpty).run(t.Context())
		s.check(account{IDs: names})
	})
}

// TestAttemptsTravel counts the attempts of jobs that go through the hands of
// several workers.
func TestAttemptsTravel(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t, plan{Mantle: mantlesim.Config{Faults: []mantlesim.Fault{{Kind: mantlesim.Internal}}}})
		names := fixture.IDs("job", 30)
		s.submit(names)
		want := account{IDs: names, Dead: make(map[string]jobs.Class)}
		cfg := worker.Config{ExitWhenEmpty: true, MaxAttempts: 7}
		for _, d := range []time.Duration{3 * time.Second, 5 * time.Second, time.Hour} {
			ctx, cancel := context.WithTimeout(t.Context(), d)
			s.hire(cfg).run(ctx)
			cancel()
		}
		calls := make(map[string]int)
		for _, e := range s.mantle.Ledger() {
			calls[e.Job]++
		}
		for _, id := range names {
			if want.Dead[id] = jobs.Exhausted; calls[id] != 7 {
				t.Errorf("job %s had %d attempts, want 7, whoever made them", id, calls[id])
			}
		}
		s.check(want)
	})
}

// TestShortDrain gives calls less time than they take. Those are paid for in
// vain, and no others.
func TestShortDrain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t, plan{Mantle: mantlesim.Config{Latency: mantlesim.Latency{Median: 30 * time.Second}}})
		names := fixture.IDs("job", 200)
		s.submit(names)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		cfg := untilEmpty
		cfg.Slots, cfg.Drain = 50, 5*time.Second
		cut := s.hire(cfg)
		cut.run(ctx)
		synctest.Wait() // until the endpoint has noticed
		inFlight := int(s.mantle.Counts().Gone)
		if took := time.Since(deadlineOf(ctx)); took > 6*time.Second {
			t.Errorf("the drain took %v, want its 5s", took)
		}
		s.hire(untilEmpty).run(t.Context())
		if inFlight == 0 || inFlight > 50 {
			t.Errorf("%d calls were given up, want 1 to 50", inFlight)
		}
		s.check(account{IDs: names, Extra: inFlight})
	})
}

func deadlineOf(ctx context.Context) time.Time {
	d, _ := ctx.Deadline()
	return d
}

// TestStoringOutlastsTheDrain has S3 fail while the drain ends. What was answered
// by then is stored all the same.
func TestStoringOutlastsTheDrain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		s := newSystem(t, plan{
			Mantle: mantlesim.Config{Latency: mantlesim.Latency{Median: 10 * time.Second}},
			S3: func(op, _ string) s3sim.Fault {
				if since := time.Since(start); op == "PutObject" && since > 12*time.Second && since < 40*time.Second {
					return s3sim.Fault{Status: 503}
				}
				return s3sim.Fault{}
			},
		})
		names := fixture.IDs("job", 100)
		s.submit(names)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		cfg := untilEmpty
		cfg.Slots, cfg.Drain = 30, 15*time.Second // which ends at 35 s
		s.hire(cfg).run(ctx)
		if n := s.mantle.Counts().Billed - int64(len(s.lines(sink.Results))); n != 0 {
			t.Errorf("%d answers were paid for and are not stored, want none", n)
		}
		s.hire(untilEmpty).run(t.Context())
		s.check(account{IDs: names})
	})
}

// TestKilledWorker cuts a worker off from everything in the middle of its work,
// which for the others is the same as killing it.
func TestKilledWorker(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t, plan{Mantle: mantlesim.Config{Latency: mantlesim.Latency{Median: 7 * time.Second, Sigma: 0.5}}})
		names := fixture.IDs("job", 1000)
		s.submit(names)
		cfg := worker.Config{ExitWhenEmpty: true, Slots: 64}
		victim, survivor := s.hire(cfg), s.hire(cfg)
		dying, die := context.WithCancel(t.Context())
		var inFlight int
		time.AfterFunc(20*time.Second, func() {
			inFlight = s.mantle.Counts().InFlight
			victim.machine.unplug()
			die()
		})
		start := time.Now()
		var working sync.WaitGroup
		working.Go(func() { victim.run(dying) })
		survivor.run(t.Context())
		took := time.Since(start)
		working.Wait()
		if inFlight == 0 {
			t.Fatal("no call was in flight at the kill, want some")
		}
		s.check(account{IDs: names, Extra: inFlight})
		if took > 5*time.Minute {
			t.Errorf("took %v, want the 2m until the victim's messages return, and the work", took)
		}
	})
}

// TestRevokedKey takes the key away for ten minutes: P7.
func TestRevokedKey(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t, plan{Mantle: mantlesim.Config{Latency: mantlesim.Latency{Median: 5 * time.Second}}})
		names := fixture.IDs("job", 500)
		s.submit(names)
		time.AfterFunc(10*time.Second, func() { s.mantle.SetKeys([]string{}) })
		time.AfterFunc(5*time.Minute, func() {
			if n := s.sqs.Stats().Queues[fixture.Queue]; n.InFlight > 10 {
				t.Errorf("%d messages are hidden while no call can succeed, want a few to try with", n.InFlight)
			}
		})
		time.AfterFunc(10*time.Minute, func() { s.mantle.SetKeys(nil) })
		cfg := untilEmpty
		cfg.Slots = 16
		sh := s.hire(cfg)
		start := time.Now()
		sh.run(t.Context())
		s.check(account{IDs: names})
		if p, r := sh.count(worker.Paused), sh.count(worker.Resumed); p != 1 || r != 1 {
			t.Errorf("paused %d times and resumed %d, want once each", p, r)
		}
		if refused := s.mantle.Counts().Status[401]; refused > 16+30 {
			t.Errorf("%d calls with the revoked key, want those in flight and a few a minute at most", refused)
		}
		if took := time.Since(start); took > 14*time.Minute {
			t.Errorf("took %v, want to be back at work within a minute of the key", took)
		}
	})
}

// TestLimiterBalances wants every permit back.
func TestLimiterBalances(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t, plan{Mantle: mantlesim.Config{Capacity: capacity.MustScript("calls=5"), Latency: mantlesim.Latency{Median: time.Second}}})
		names := fixture.IDs("job", 600)
		s.submit(names)
		sh := s.hire(untilEmpty)
		sh.run(t.Context())
		s.check(account{IDs: names})
		st := sh.limits.States()[throttle.Lane{Region: fixture.Region, Model: fixture.Model, Tier: "default"}]
		if st.Accepted != 600 || st.InFlight != 0 || st.Waiting != 0 || st.Rate > 10 {
			t.Errorf("limiter: %+v, want 600 accepted, nobody in line and a rate near 5", st)
		}
	})
}
