package virtual

import (
	"context"
	"encoding/json"
	"fmt"
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
	"upwell/worker"
	"upwell/worker/mantle/mantlesim"
	"upwell/worker/mantle/mantlesim/capacity"
)

// TestLedger has answers of every bad kind at once, with refusals and deploys on top.
// What the records say was billed is what the endpoint billed, call by call and cent
// by cent.
func TestLedger(t *testing.T) {
	t.Parallel()
	for _, url := range []string{jobs.Responses, jobs.ChatCompletions} {
		t.Run(strings.TrimPrefix(url, "/v1/"), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSystem(t, plan{Mantle: mantlesim.Config{
					Capacity: capacity.MustScript("calls=15"),
					Latency:  mantlesim.Latency{Median: 8 * time.Second, Sigma: 0.3, Max: 60 * time.Second},
					Faults: []mantlesim.Fault{
						{Kind: mantlesim.Violate, P: 0.15},
						{Kind: mantlesim.Fence, P: 0.1},
						{Kind: mantlesim.Chatter, P: 0.1},
						{Kind: mantlesim.Truncate, P: 0.08},
						{Kind: mantlesim.Decline, P: 0.04},
						{Kind: mantlesim.Filter, P: 0.04},
						{Kind: mantlesim.Empty, P: 0.05},
						{Kind: mantlesim.Internal, P: 0.02},
					},
				}})
				names := fixture.IDs("law", 600)
				for i, id := range names {
					more := `,"max_output_tokens":2000`
					if url == jobs.ChatCompletions {
						more = `,"max_completion_tokens":2000`
					}
					if i%10 == 0 { // too little for most answers, and the retry has four times as much
						more = strings.Replace(more, "2000", "20", 1)
					}
					s.send(fixture.LawJob(url, id, more))
				}
				cfg := worker.Config{ExitWhenEmpty: true, MaxAttempts: 20, Repairs: 2, Drain: 10 * time.Minute}
				for range 3 {
					ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
					s.hire(cfg).run(ctx)
					cancel()
				}
				s.hire(cfg).run(t.Context())
				s.checkLedger(names)
			})
		})
	}
}

// checkLedger compares the records of jobs that have all ended with the ledger.
func (s *system) checkLedger(names []string) {
	s.t.Helper()
	results, failures := s.lines(sink.Results), s.lines(sink.Errors)
	var sum jobs.Record
	empties, kinds := 0, make(map[string]int)
	for _, id := range names {
		r, ok := results[id]
		if !ok {
			r, ok = failures[id]
		}
		if !ok {
			s.t.Errorf("job %s has neither a result nor an error", id)
			continue
		}
		u := r.Upwell
		sum.Billed, sum.Repairs, sum.Extensions = sum.Billed+u.Billed, sum.Repairs+u.Repairs, sum.Extensions+u.Extensions
		sum.Usage, sum.CostUSD = sum.Usage.Add(u.Usage), sum.CostUSD+u.CostUSD
		for _, a := range u.Attempts {
			if a.Error == "mantle: empty answer" && a.Turn == "" { // others count as repairs, or extensions
				empties++
			}
		}
		if r.Error == nil {
			s.checkLaw(id, r)
			kinds["answered"]++
		} else {
			kinds[string(r.Error.Code)]++
		}
	}
	c := s.mantle.Counts()
	if int64(sum.Billed) != c.Billed || int64(len(names)+sum.Repairs+sum.Extensions+empties) != c.Billed {
		s.t.Errorf("%d calls were billed; the records say %d: %d jobs, %d repairs, %d extensions, %d empty answers",
			c.Billed, sum.Billed, len(names), sum.Repairs, sum.Extensions, empties)
	}
	if sum.Usage.InputTokens != int64(c.Usage.Input) || sum.Usage.OutputTokens != int64(c.Usage.Output) || float64(sum.CostUSD)-c.Cost > 1e-9 || c.Cost-float64(sum.CostUSD) > 1e-9 {
		s.t.Errorf("%+v for $%v was billed; the records say %+v for $%v", c.Usage, c.Cost, sum.Usage, sum.CostUSD)
	}
	if sum.Repairs == 0 || sum.Extensions == 0 || empties == 0 || kinds["refused"] == 0 || kinds["answered"] < len(names)*8/10 {
		s.t.Errorf("%d repairs, %d extensions, %d empties, ends %v: want some of each, and most answered", sum.Repairs, sum.Extensions, empties, kinds)
	}
	s.t.Logf("%d jobs, %d billed calls: %d repairs, %d extensions, %d empty answers; ends %v", len(names), c.Billed, sum.Repairs, sum.Extensions, empties, kinds)
}

// checkLaw verifies that a result is a good answer, and says what an audit asks.
func (s *system) checkLaw(id string, r jobs.Result) {
	s.t.Helper()
	var out struct {
		Law   *string
		Years *int
	}
	if err := json.Unmarshal(r.Upwell.Output, &out); err != nil || out.Law == nil || *out.Law == "" || out.Years == nil {
		s.t.Errorf("job %s: output %s, %v, want what the schema asks for", id, r.Upwell.Output, err)
	}
	u := r.Upwell
	if u.Model == "" || u.Tier == "" || u.Region == "" || u.Price == nil || u.SchemaSHA256 == "" || u.InputSHA256 == "" || u.Version == "" || u.Usage.InputTokens == 0 {
		s.t.Errorf("job %s: %+v, want model, tier, Region, price, hashes, version and usage", id, u)
	}
	for _, a := range u.Attempts {
		if a.RequestID == "" {
			s.t.Errorf("job %s: attempt %+v, want the endpoint's name for it", id, a)
		}
	}
}

// TestDeathBetweenWrites unplugs the worker before and after each request that a dead
// letter takes. The next one ends what it began: one error line, a letter or two, and
// no second bill once the error line was written.
func TestDeathBetweenWrites(t *testing.T) {
	t.Parallel()
	for _, large := range []bool{false, true} {
		for _, w := range []struct {
			op, key string
			n       int // of the request of that kind
		}{
			{"PutObject", "/errors/", 1},
			{"SendMessage", "", 1},
			{"DeleteMessageBatch", "", 1},
			{"PutObject", "/letters/", 1},
		} {
			if w.key == "/letters/" && !large {
				continue
			}
			for _, applied := range []bool{false, true} {
				t.Run(fmt.Sprintf("large=%v/%s%s/applied=%v", large, w.op, w.key, applied), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						var mu sync.Mutex
						var die func() // nil before the victim lives, and after
						fatal := func(op, key string) bool {
							mu.Lock()
							defer mu.Unlock()
							hit := die != nil && op == w.op && strings.Contains(key, w.key)
							if hit { // once the request has been read
								time.AfterFunc(time.Millisecond, die)
								die = nil
							}
							return hit
						}
						s := newSystem(t, plan{
							Mantle: mantlesim.Config{Faults: []mantlesim.Fault{{Kind: mantlesim.Decline}}},
							SQS: func(op string, _ sqssim.Call) sqssim.Fault {
								return sqssim.Fault{Drop: fatal(op, ""), Apply: applied}
							},
							S3: func(op, key string) s3sim.Fault {
								return s3sim.Fault{Drop: fatal(op, key), Apply: applied}
							},
						})
						text := string(fixture.Job("doomed", ""))
						if large { // the letter's attributes will not fit
							text = string(fixture.Job("doomed", `,"note":"`+strings.Repeat("x", 1<<20-len(text)-200)+`"`))
						}
						s.send(text)
						victim := s.hire(worker.Config{Drain: time.Second})
						ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
						mu.Lock()
						die = func() { victim.machine.unplug(); cancel() }
						mu.Unlock()
						victim.run(ctx)
						mu.Lock()
						lives := die != nil
						mu.Unlock()
						if lives {
							t.Fatal("it never came to that request")
						}
						s.hire(untilEmpty).run(t.Context())
						again := 0
						if w.key == "/errors/" && !applied {
							again = 1 // nothing was written yet: the call was in flight
						}
						s.checkDoomed(large, again)
					})
				})
			}
		}
	}
}

// checkDoomed checks the end of the job "doomed".
func (s *system) checkDoomed(large bool, again int) {
	s.t.Helper()
	for _, m := range s.sqs.Messages(fixture.Queue) {
		s.t.Errorf("a message is still queued: %.100s", m.Body)
	}
	e, ok := s.lines(sink.Errors)["doomed"]
	if !ok || e.Error.Code != jobs.Refused || e.Response == nil || e.Upwell.Billed != 1 {
		s.t.Errorf("error line %+v, want refused, with the answer", e)
	}
	letters := s.sqs.Messages(fixture.Dead)
	if len(letters) == 0 || len(letters) > 2 {
		s.t.Errorf("%d letters, want one, or two if it died in between", len(letters))
	}
	for _, l := range letters {
		if class := l.Attributes["upwell.class"].StringValue; class != string(jobs.Refused) {
			s.t.Errorf("a letter of class %q, want refused", class)
		}
		if isRef := strings.HasPrefix(l.Body, `{"custom_id":"doomed","body_ref":"s3://`+fixture.Bucket+`/runs/`); isRef != large {
			s.t.Errorf("a letter with body %.100s, want a reference: %v", l.Body, large)
		}
	}
	if c := s.mantle.Counts(); c.Billed != int64(1+again) {
		s.t.Errorf("%d calls were billed, want %d", c.Billed, 1+again)
	}
}
