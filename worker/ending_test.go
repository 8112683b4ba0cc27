package worker_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"upwell/jobs"
	"upwell/worker"
	"upwell/worker/workertest"
)

// letter returns the only dead letter, and checks the error line that goes with
// it.
func letter(t *testing.T, tr *workertest.Trial) jobs.DeadLetter {
	t.Helper()
	letters := tr.Queue.Letters()
	if len(letters) != 1 {
		t.Fatalf("%d letters, want 1", len(letters))
	}
	l := letters[0].DeadLetter
	if l.CustomID == "" {
		if got := len(tr.Sink.Errors()); got != 0 {
			t.Errorf("%d error lines for a job without a name, want 0", got)
		}
		return l
	}
	want := &jobs.Error{Code: l.Class, Message: l.Reason}
	if diff := cmp.Diff(want, tr.Sink.Errors()[l.Key].Error); diff != "" {
		t.Errorf("error line of %s (-want +got):\n%s", l.Key, diff)
	}
	return l
}

// describe spells out a letter, whose own String is its key's.
func describe(l jobs.DeadLetter) string {
	return fmt.Sprintf("%s of class %s after %d attempts, first at %v, status %d: %s",
		l.Key, l.Class, l.Attempts, l.FirstFailed, l.Status, l.Reason)
}

// deadline returns job a, which nobody wants an answer to after d from now.
func deadline(d time.Duration) jobs.Message {
	at, _ := time.Now().Add(d).UTC().MarshalText()
	return jobs.Message{Body: workertest.Line("a", `"deadline":"`+string(at)+`"`)}
}

func TestExpired(t *testing.T) {
	t.Run("before it was received", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			tr := workertest.New(t)
			tr.Queue.Send(deadline(-time.Second))
			run(t, tr, worker.Config{ExitWhenEmpty: true}, time.Hour)
			tr.Done(t)
			if l := letter(t, tr); l.Class != jobs.Expired || l.Attempts != 0 {
				t.Errorf("letter %s, want expired without an attempt", describe(l))
			}
			if got := tr.Endpoint.Total().Calls; got != 0 {
				t.Errorf("%d calls, want 0", got)
			}
		})
	})
	t.Run("in line", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			tr := workertest.New(t)
			_, stop := start(t, tr, steady(1.0/(60*60)), worker.Config{})
			tr.Send("first")
			time.Sleep(time.Second)
			began := time.Now()
			tr.Queue.Send(deadline(10 * time.Minute))
			time.Sleep(time.Hour)
			stop()
			tr.Done(t)
			if l := letter(t, tr); l.Class != jobs.Expired || l.FirstFailed.Sub(began) != 10*time.Minute {
				t.Errorf("letter %s, want expired 10m after %v", describe(l), began)
			}
		})
	})
	t.Run("in back-off", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			tr := workertest.New(t)
			tr.Queue.Send(deadline(10 * time.Minute))
			tr.Endpoint.Func = script(failing(1, workertest.Fail(worker.Transient, 500, time.Hour)))
			s := run(t, tr, worker.Config{ExitWhenEmpty: true}, 2*time.Hour)
			tr.Done(t)
			if l := letter(t, tr); l.Class != jobs.Expired || l.Attempts != 1 || l.Status != 500 {
				t.Errorf("letter %s, want expired after one attempt with status 500", describe(l))
			}
			if b := s.of(worker.Buried); len(b) != 1 || b[0].Letter.Class != jobs.Expired {
				t.Errorf("told of %+v, want one expired", b)
			}
		})
	})
	t.Run("not while it is answered", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			tr := workertest.New(t)
			tr.Queue.Send(deadline(10 * time.Second))
			tr.Endpoint.Func = workertest.After(time.Minute)
			run(t, tr, worker.Config{ExitWhenEmpty: true}, time.Hour)
			tr.Done(t)
			if got := len(tr.Sink.Results()); got != 1 {
				t.Errorf("%d results, want the answer that was paid for", got)
			}
		})
	})
	t.Run("not when it was answered before", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			tr := workertest.New(t)
			answered(t, tr, "a")
			m := deadline(-time.Second)
			m.Receives = 1
			tr.Queue.Send(m)
			run(t, tr, worker.Config{ExitWhenEmpty: true}, time.Hour)
			tr.Done(t)
			if got := len(tr.Queue.Letters()); got != 0 {
				t.Errorf("%d letters, want 0", got)
			}
		})
	})
}

func TestPoison(t *testing.T) {
	tests := []struct {
		name     string
		receives int // before
		answered bool
		poison   bool
	}{
		{"the last delivery allowed", 3, false, false},
		{"one too many", 4, false, true},
		{"one too many, but answered", 4, true, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tr := workertest.New(t)
				if tt.answered {
					answered(t, tr, "a")
				}
				tr.Queue.Send(jobs.Message{Body: workertest.Line("a", ""), Receives: tt.receives})
				run(t, tr, worker.Config{MaxReceives: 4, ExitWhenEmpty: true}, time.Hour)
				tr.Done(t)
				if !tt.poison {
					if got := len(tr.Queue.Letters()); got != 0 {
						t.Errorf("%d letters, want 0", got)
					}
					return
				}
				if l := letter(t, tr); l.Class != jobs.Poison || !strings.Contains(l.Reason, "delivered 5 times") {
					t.Errorf("letter %s, want poison after 5 deliveries", describe(l))
				}
				if got := tr.Endpoint.Total().Calls; got != 0 {
					t.Errorf("%d calls, want 0", got)
				}
			})
		})
	}
}

func TestBadJobs(t *testing.T) {
	tests := []struct {
		name, body string
		id         string // to file the failure under
		reason     string
	}{
		{"empty", "", "", "empty"},
		{"not JSON", "hello", "", "not JSON"},
		{"half", `{"custom_id":"a"`, "", "ends in the middle"},
		{"two jobs", `{"custom_id":"a"}{"custom_id":"b"}`, "", "more text after"},
		{"no name", `{"url":"/v1/responses","body":{"model":"m"}}`, "", "custom_id: missing"},
		{"empty name", `{"custom_id":"","url":"/v1/responses","body":{"model":"m"}}`, "", "custom_id: empty"},
		{"unknown key", string(workertest.Line("a", `"priority":1`)), "a", "upwell.priority: unknown key"},
		{"unknown tier", string(workertest.Line("a", `"tiers":["cheap"]`)), "a", "upwell.tiers"},
		{"bad run", string(workertest.Line("a", `"run":"../x"`)), "a", "upwell.run"},
		{"unknown url", `{"custom_id":"a","url":"/v1/embeddings","body":{"model":"m"}}`, "a", `url: "/v1/embeddings"`},
		{"no body", `{"custom_id":"a","url":"/v1/responses"}`, "a", "not a job: body: "},
		{"empty body", `{"custom_id":"a","url":"/v1/responses","body":{}}`, "a", "body.model: missing"},
		{"stream", `{"custom_id":"a","url":"/v1/responses","body":{"model":"m","stream":true}}`, "a", "body.stream"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tr := workertest.New(t)
				tr.Queue.Send(jobs.Message{Body: []byte(tt.body)})
				run(t, tr, worker.Config{ExitWhenEmpty: true}, time.Hour)
				tr.Done(t)
				l := letter(t, tr)
				if l.Class != jobs.BadJob || l.CustomID != tt.id || !strings.Contains(l.Reason, tt.reason) {
					t.Errorf("letter %s, want a bad job %q because of %q", describe(l), tt.id, tt.reason)
				}
				if got := tr.Endpoint.Total().Calls; got != 0 {
					t.Errorf("%d calls, want 0", got)
				}
			})
		})
	}
}

// TestPermanent wants the endpoint's verdict passed on, and what was answered
// kept, as it was paid for.
func TestPermanent(t *testing.T) {
	for _, class := range []jobs.Class{jobs.BadRequest, jobs.ContextLength, jobs.Refused, jobs.SchemaFailed, jobs.Truncated} {
		for _, paid := range []bool{false, true} {
			t.Run(string(class)+map[bool]string{true: " paid"}[paid], func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { testPermanent(t, class, paid) })
			})
		}
	}
}

func testPermanent(t *testing.T, class jobs.Class, paid bool) {
	t.Helper()
	tr := workertest.New(t)
	tr.Queue.Send(jobs.Message{Body: workertest.Line("a", `"run":"nightly"`)})
	tr.Endpoint.Func = func(_ context.Context, c worker.Call) (worker.Answer, error) {
		e := &worker.Error{Kind: worker.Permanent, Class: class, Status: 418, RequestID: "req_x", Err: errors.New("because")}
		if paid {
			e.Answer = new(workertest.Answer(c))
			e.Answer.Response.Body = json.RawMessage(`{"partial":1.0}`)
		}
		return worker.Answer{}, e
	}
	run(t, tr, worker.Config{ExitWhenEmpty: true}, time.Hour)
	tr.Done(t)
	if got := tr.Endpoint.Total().Calls; got != 1 {
		t.Errorf("%d calls, want 1", got)
	}
	k := jobs.Key{Run: "nightly", CustomID: "a"}
	got := letter(t, tr)
	want := jobs.DeadLetter{
		Key: k, Class: class, Reason: "because", Status: 418, RequestID: "req_x", Attempts: 1, FirstFailed: time.Now(),
	}
	got.FirstFailed = want.FirstFailed
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("letter (-want +got):\n%s", diff)
	}
	line := tr.Sink.Errors()[k]
	if !paid {
		if line.Response != nil || line.Upwell.CostUSD != 0 {
			t.Errorf("error line has response %v for $%v, want none", line.Response, line.Upwell.CostUSD)
		}
		return
	}
	if line.Response == nil || string(line.Response.Body) != `{"partial":1.0}` {
		t.Errorf("error line has response %+v, want what was answered", line.Response)
	}
	if line.Upwell.CostUSD != 0.001 || line.Upwell.Usage.OutputTokens != 10 || line.Upwell.OutputText != "answer to a" {
		t.Errorf("error line says %+v, want the cost, the usage and the text", line.Upwell)
	}
}

// TestResult wants everything in its place.
func TestResult(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := workertest.New(t)
		tr.Queue.Send(jobs.Message{Body: workertest.Line("a", `"run":"nightly"`)})
		tr.Endpoint.Func = func(_ context.Context, c worker.Call) (worker.Answer, error) {
			time.Sleep(1500 * time.Millisecond)
			ans := workertest.Answer(c)
			ans.Output, ans.Model, ans.Tier = []byte(`{"x":1}`), "m-2026", "flex"
			return ans, nil
		}
		began := time.Now().UTC()
		run(t, tr, worker.Config{ExitWhenEmpty: true}, time.Hour)
		tr.Done(t)
		k := jobs.Key{Run: "nightly", CustomID: "a"}
		body := json.RawMessage(`{"model":"m","input":"about a"}`)
		want := jobs.Result{
			ID: k.RequestID(), CustomID: "a",
			Response: &jobs.Response{StatusCode: 200, RequestID: "req_a", Body: body},
			Upwell: jobs.Record{
				Run: "nightly", Output: json.RawMessage(`{"x":1}`), OutputText: "answer to a", Model: "m-2026", Tier: "flex",
				Region: "here", Usage: jobs.Usage{InputTokens: 100, OutputTokens: 10}, CostUSD: 0.001,
				Attempts: []jobs.Attempt{{
					N: 1, Started: began, TookMS: 1500, Status: 200, Region: "here", Tier: "default", RequestID: "req_a",
				}},
				Billed:      1,
				InputSHA256: "02a3ee1a5bdc7a2b6cf6a7a5dcb5b5d2a0f7b1b9d9f3c2d5b1f8a1a3d0d9c8e7",
				Finished:    began.Add(1500 * time.Millisecond),
			},
		}
		got := tr.Sink.Results()[k]
		want.Upwell.InputSHA256 = got.Upwell.InputSHA256
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("result (-want +got):\n%s", diff)
		}
	})
}
