package worker_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"upwell/jobs"
	"upwell/throttle"
	"upwell/worker"
	"upwell/worker/workertest"
)

// Changes of one line that these tests have been seen to catch:
//
//   - askAgain: a repair without findings, or one too many; no bound on an
//     extension, or two of them; a repair forgets the room, an extension the flaw
//   - paid.add: a turn counts for nothing, or everything as extra
//   - run: the wait of a job that is owed an answer ends with the drain
//   - turnedAway, judge: such a job is released
//   - past: an error line of another message counts, or none does
//   - deadLetter: the line is written again, or after the letter
//   - buryLetter: the body is not stored, or the letter does not say where

// wrong is an answer that is against its schema, and what the validator says.
func wrong(c worker.Call, n int) *worker.Error {
	e := truncated(c)
	e.Class, e.Findings, e.Err = jobs.SchemaFailed, fmt.Sprintf("finding %d", n), fmt.Errorf("reason %d", n)
	e.Answer.Text, e.Answer.Schema = fmt.Sprintf("wrong %d", n), "5c"
	return e
}

// short is an answer that ended at its limit.
func short(c worker.Call, limit int) *worker.Error {
	e := truncated(c)
	e.Limit = limit
	return e
}

// TestAgain has answers that are no good, and says what is asked next.
func TestAgain(t *testing.T) {
	flaw := func(n int) *worker.Flaw {
		return &worker.Flaw{Text: fmt.Sprint("wrong ", n), Findings: fmt.Sprint("finding ", n)}
	}
	type asked struct {
		Max  int
		Flaw *worker.Flaw
	}
	first := asked{}
	W := func(c worker.Call, n int) *worker.Error { return wrong(c, n) }
	S := func(limit int) func(worker.Call, int) *worker.Error {
		return func(c worker.Call, _ int) *worker.Error { return short(c, limit) }
	}
	busy := func(worker.Call, int) *worker.Error { return workertest.Fail(worker.Throttled, 429, 0) }
	broken := func(worker.Call, int) *worker.Error { return workertest.Fail(worker.Transient, 500, 0) }
	tooMuch := func(worker.Call, int) *worker.Error {
		return &worker.Error{Kind: worker.Permanent, Class: jobs.BadRequest, Status: 400, Err: errors.New("that is too much")}
	}
	unfit := func(c worker.Call, n int) *worker.Error {
		e := wrong(c, n)
		e.Findings = ""
		return e
	}
	for name, tc := range map[string]struct {
		repairs int
		options string
		errs    []func(worker.Call, int) *worker.Error
		asked   []asked
		class   jobs.Class // of the letter, or empty for a result
		record  [3]int     // billed calls, repairs, extensions
	}{
		"good at once":       {1, ``, nil, []asked{first}, "", [3]int{1, 0, 0}},
		"one repair":         {1, ``, []func(worker.Call, int) *worker.Error{W}, []asked{first, {0, flaw(1)}}, "", [3]int{2, 1, 0}},
		"one is not enough":  {1, ``, []func(worker.Call, int) *worker.Error{W, W}, []asked{first, {0, flaw(1)}}, jobs.SchemaFailed, [3]int{2, 1, 0}},
		"three":              {3, ``, []func(worker.Call, int) *worker.Error{W, W, W}, []asked{first, {0, flaw(1)}, {0, flaw(2)}, {0, flaw(3)}}, "", [3]int{4, 3, 0}},
		"four are too many":  {3, ``, []func(worker.Call, int) *worker.Error{W, W, W, W}, []asked{first, {0, flaw(1)}, {0, flaw(2)}, {0, flaw(3)}}, jobs.SchemaFailed, [3]int{4, 3, 0}},
		"none":               {-1, ``, []func(worker.Call, int) *worker.Error{W}, []asked{first}, jobs.SchemaFailed, [3]int{1, 0, 0}},
		"cannot go on":       {3, ``, []func(worker.Call, int) *worker.Error{unfit}, []asked{first}, jobs.SchemaFailed, [3]int{1, 0, 0}},
		"refused meanwhile":  {1, ``, []func(worker.Call, int) *worker.Error{W, busy, busy}, []asked{first, {0, flaw(1)}, {0, flaw(1)}, {0, flaw(1)}}, "", [3]int{2, 1, 0}},
		"broken meanwhile":   {1, ``, []func(worker.Call, int) *worker.Error{W, broken}, []asked{first, {0, flaw(1)}, {0, flaw(1)}}, "", [3]int{2, 1, 0}},
		"broken for good":    {1, `"max_attempts":2`, []func(worker.Call, int) *worker.Error{W, broken, broken}, []asked{first, {0, flaw(1)}, {0, flaw(1)}}, jobs.Exhausted, [3]int{1, 0, 0}},
		"more room":          {1, ``, []func(worker.Call, int) *worker.Error{S(500)}, []asked{first, {2000, nil}}, "", [3]int{2, 0, 1}},
		"once":               {1, ``, []func(worker.Call, int) *worker.Error{S(500), S(2000)}, []asked{first, {2000, nil}}, jobs.Truncated, [3]int{2, 0, 1}},
		"up to the ceiling":  {1, `"output_ceiling":900`, []func(worker.Call, int) *worker.Error{S(500)}, []asked{first, {900, nil}}, "", [3]int{2, 0, 1}},
		"at the ceiling":     {1, `"output_ceiling":500`, []func(worker.Call, int) *worker.Error{S(500)}, []asked{first}, jobs.Truncated, [3]int{1, 0, 0}},
		"the operator's":     {1, ``, []func(worker.Call, int) *worker.Error{S(30_000)}, []asked{first, {32768, nil}}, "", [3]int{2, 0, 1}},
		"no limit to raise":  {1, ``, []func(worker.Call, int) *worker.Error{S(0)}, []asked{first}, jobs.Truncated, [3]int{1, 0, 0}},
		"room, then repair":  {1, ``, []func(worker.Call, int) *worker.Error{S(500), W}, []asked{first, {2000, nil}, {2000, flaw(2)}}, "", [3]int{3, 1, 1}},
		"repair, then room":  {1, ``, []func(worker.Call, int) *worker.Error{W, S(500)}, []asked{first, {0, flaw(1)}, {2000, flaw(1)}}, "", [3]int{3, 1, 1}},
		"room is refused":    {1, ``, []func(worker.Call, int) *worker.Error{S(500), tooMuch}, []asked{first, {2000, nil}}, jobs.Truncated, [3]int{1, 0, 0}},
		"repair is refused":  {1, ``, []func(worker.Call, int) *worker.Error{W, tooMuch}, []asked{first, {0, flaw(1)}}, jobs.SchemaFailed, [3]int{1, 0, 0}},
		"neither is refused": {1, ``, []func(worker.Call, int) *worker.Error{func(c worker.Call, _ int) *worker.Error { e := truncated(c); e.Class = jobs.Refused; return e }}, []asked{first}, jobs.Refused, [3]int{1, 0, 0}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tr := workertest.New(t)
				tr.Queue.Send(jobs.Message{Body: workertest.Line("a", tc.options)})
				var got []asked
				tr.Endpoint.Func = script(func(n int, c worker.Call) error {
					got = append(got, asked{c.MaxOutput, c.Flaw})
					if n <= len(tc.errs) {
						return tc.errs[n-1](c, n)
					}
					return nil
				})
				run(t, tr, worker.Config{Repairs: tc.repairs, ExitWhenEmpty: true}, 4*time.Hour)
				tr.Done(t)
				if diff := cmp.Diff(tc.asked, got); diff != "" {
					t.Errorf("asked (-want +got):\n%s", diff)
				}
				checkRecord(t, tr, tc.class, tc.record)
			})
		})
	}
}

// checkRecord checks what is stored of job a.
func checkRecord(t *testing.T, tr *workertest.Trial, class jobs.Class, want [3]int) {
	t.Helper()
	r, ok := tr.Sink.Results()[key("a")]
	if class != "" {
		if r, ok = tr.Sink.Errors()[key("a")]; ok && r.Error.Code != class {
			t.Errorf("class %s, want %s", r.Error.Code, class)
		}
		if l := letter(t, tr); l.Class != class {
			t.Errorf("letter %s, want class %s", describe(l), class)
		}
		if r.Response == nil || r.Upwell.OutputText == "" || r.Upwell.MessageID != "m1" {
			t.Errorf("the error line has response %v, text %q and message %q, want what was answered, to which", r.Response, r.Upwell.OutputText, r.Upwell.MessageID)
		}
	}
	if !ok {
		t.Fatalf("no line of class %q", class)
	}
	u := r.Upwell
	if got := [3]int{u.Billed, u.Repairs, u.Extensions}; got != want {
		t.Errorf("%v billed calls, repairs and extensions, want %v", got, want)
	}
	if a := tr.Endpoint.Total(); a.Billed != u.Billed || a.Mending != u.Repairs+u.Extensions {
		t.Errorf("the endpoint billed %d calls, %d of them to mend; the record says %+v", a.Billed, a.Mending, u)
	}
	extra := u.Repairs + u.Extensions
	if u.Usage.InputTokens != int64(100*u.Billed) || u.CostUSD < 0.0009*jobs.USD(u.Billed) {
		t.Errorf("usage %+v for $%v, want that of %d calls", u.Usage, u.CostUSD, u.Billed)
	}
	switch {
	case extra == 0 && u.Extra != nil:
		t.Errorf("extra %+v, want none", u.Extra)
	case extra > 0 && (u.Extra.Usage.InputTokens != int64(100*extra) || u.Extra.CostUSD < 0.0009*jobs.USD(extra)):
		t.Errorf("extra %+v, want that of %d calls", u.Extra, extra)
	}
	var turns []jobs.Turn
	for _, at := range u.Attempts {
		if at.Turn != "" && at.Status == 200 {
			turns = append(turns, at.Turn)
		}
	}
	if len(turns) != extra {
		t.Errorf("attempts of turns %v, want %d", turns, extra)
	}
}

// TestDrainMends has a worker told to stop while answers that are to be mended are
// in flight, or while their repairs wait: for a permit, for a lane that is closed,
// for a credential. What was paid for is kept.
func TestDrainMends(t *testing.T) {
	for name, second := range map[string]*worker.Error{
		"in flight":    nil,
		"refused":      workertest.Fail(worker.Throttled, 429, 0),
		"closed":       workertest.Fail(worker.Unavailable, 503, time.Minute),
		"unauthorized": workertest.Fail(worker.Unauthorized, 401, 0),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tr := workertest.New(t)
				tr.Send(ids("j", 20)...)
				s := script(func(n int, c worker.Call) error {
					switch {
					case n == 1:
						return wrong(c, 1)
					case n == 2 && second != nil:
						return second
					}
					return nil
				})
				tr.Endpoint.Func = func(ctx context.Context, c worker.Call) (worker.Answer, error) {
					time.Sleep(10 * time.Second)
					return s(ctx, c)
				}
				run(t, tr, worker.Config{Slots: 4, Drain: 5 * time.Minute}, 15*time.Second)
				if got := len(tr.Sink.Results()); got < 4 || got == 20 {
					t.Errorf("%d results after the drain, want those of the 4 or 8 that were sent", got)
				}
				if a := tr.Endpoint.Total(); a.Billed != 2*len(tr.Sink.Results()) {
					t.Errorf("%d billed calls for %d results, want two each", a.Billed, len(tr.Sink.Results()))
				}
				run(t, tr, worker.Config{ExitWhenEmpty: true}, time.Hour)
				tr.Done(t)
				if a := tr.Endpoint.Total(); a.Billed != 40 {
					t.Errorf("%d billed calls for 20 jobs, want 40", a.Billed)
				}
			})
		})
	}
}

// TestRepairIsNotPutOff has a crowded, slow line: jobs are put off, but not those
// whose first answer was paid for.
func TestRepairIsNotPutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := workertest.New(t)
		tr.Send(ids("j", 200)...)
		tr.Endpoint.Func = script(func(n int, c worker.Call) error {
			if n == 1 {
				return wrong(c, 1)
			}
			return nil
		})
		limits := throttle.NewSet(func(throttle.Lane) throttle.Config {
			return throttle.Config{StartRate: 0.1, MinRate: 0.1, MaxRate: 0.1}
		})
		s := newSubject(t, tr, limits, worker.Config{Slots: 40, ExitWhenEmpty: true})
		s.runs(t.Context(), t, tr)
		tr.Done(t)
		if a := tr.Endpoint.Total(); a.Billed != 400 {
			t.Errorf("%d billed calls for 200 jobs, want two each", a.Billed)
		}
		if got := len(s.of(worker.Released)); got == 0 {
			t.Error("nobody was put off: the test tests nothing")
		}
	})
}

// TestDeathOfADeadLetter kills the worker before and after each write that a dead
// letter takes. The job ends as a letter with its error line, and is paid for once
// if it was after the first write.
func TestDeathOfADeadLetter(t *testing.T) {
	for _, large := range []bool{false, true} {
		writes := []workertest.Op{workertest.Complete, workertest.PutError, workertest.Bury, workertest.Ack}
		if large {
			writes = []workertest.Op{workertest.Complete, workertest.PutError, workertest.Bury, workertest.PutBody, workertest.Bury, workertest.Ack}
		}
		for i, op := range writes {
			for _, applied := range []bool{false, true} {
				t.Run(fmt.Sprintf("large=%v/%d %s/%v", large, i, op, applied), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) { testDeath(t, large, writes[:i+1], applied) })
				})
			}
		}
	}
}

// testDeath kills a worker at the last of some writes.
func testDeath(t *testing.T, large bool, writes []workertest.Op, applied bool) {
	t.Helper()
	tr := workertest.New(t)
	tr.Send("a")
	tr.Queue.Large = large
	tr.Endpoint.Func = script(func(_ int, c worker.Call) error { return truncated(c) })
	var mu sync.Mutex
	alive := writes
	tr.Fault(func(op workertest.Op, _ string) (bool, error) {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case len(alive) == 0:
			return false, workertest.ErrInjected
		case op != alive[0]:
			return true, nil
		}
		if alive = alive[1:]; len(alive) > 0 {
			return true, nil
		}
		return applied, workertest.ErrInjected
	})
	run(t, tr, worker.Config{Drain: time.Second}, time.Minute)
	if len(alive) > 0 {
		t.Fatalf("it never came to %v", alive)
	}
	tr.Fault(nil)
	last := writes[len(writes)-1]
	if last == workertest.Complete && applied || last == workertest.PutError && !applied {
		tr.Extra = 1 // the call was in flight: nothing was written yet
	}
	run(t, tr, worker.Config{ExitWhenEmpty: true}, 13*time.Hour)
	tr.Done(t)
	if a := tr.Endpoint.Total(); a.Billed != 1+tr.Extra {
		t.Errorf("%d billed calls, want %d", a.Billed, 1+tr.Extra)
	}
	line, ok := tr.Sink.Errors()[key("a")]
	if !ok || line.Upwell.Billed != 1 || line.Response == nil {
		t.Errorf("error line %+v, want that of the one call that was paid for", line)
	}
	letters := tr.Queue.Letters()
	if len(letters) == 0 || len(letters) > 2 {
		t.Fatalf("%d letters, want one, or two if it died in between", len(letters))
	}
	for _, l := range letters {
		if l.Class != jobs.Truncated || l.Reason != "it ended at its token limit" || l.Attempts != 1 || l.Status != 200 || l.FirstFailed.IsZero() {
			t.Errorf("letter %s, want all that was known at the end", describe(l.DeadLetter))
		}
		if body := tr.Sink.Body(l.BodyRef); large && string(body) != string(l.Message.Body) {
			t.Errorf("the letter's body is %q at %q, want that of the message", body, l.BodyRef)
		}
	}
}

// TestTriedAgain has a job that has failed submitted once more, as another message:
// its error line does not keep it from being tried.
func TestTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := workertest.New(t)
		good := false
		tr.Endpoint.Func = script(func(_ int, c worker.Call) error {
			if !good {
				return truncated(c)
			}
			return nil
		})
		tr.Send("a")
		run(t, tr, worker.Config{ExitWhenEmpty: true}, time.Hour)
		good, tr.Extra = true, 1
		tr.Queue.Send(jobs.Message{Body: workertest.Line("a", ""), Again: true})
		run(t, tr, worker.Config{ExitWhenEmpty: true}, time.Hour)
		tr.Done(t)
		if len(tr.Sink.Results()) != 1 || len(tr.Queue.Letters()) != 1 {
			t.Errorf("%d results and %d letters, want one of each", len(tr.Sink.Results()), len(tr.Queue.Letters()))
		}
	})
}

// TestSentAnew has a job whose end is on file, and whose message has another id since.
func TestSentAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := workertest.New(t)
		tr.Send("a")
		tr.Endpoint.Func = script(func(_ int, c worker.Call) error { return truncated(c) })
		tr.Queue.Fault = workertest.Burst(time.Hour, workertest.Bury, false)
		run(t, tr, worker.Config{Drain: time.Second}, 10*time.Minute)
		line := tr.Sink.Errors()[key("a")]
		if line.Upwell.MessageID != "m1" || len(tr.Queue.Letters()) != 0 {
			t.Fatalf("error line of message %q and %d letters, want that of m1 and none", line.Upwell.MessageID, len(tr.Queue.Letters()))
		}
		tr.Queue.Send(jobs.Message{Body: workertest.Line("a", ""), Again: true, First: "m1"}) // and the first one is deleted
		run(t, tr, worker.Config{ExitWhenEmpty: true}, 3*time.Hour)
		tr.Done(t)
		if a := tr.Endpoint.Total(); a.Calls != 1 {
			t.Errorf("%d calls, want the first alone", a.Calls)
		}
	})
}

// TestNamedSchema has jobs that name a schema of their run, which cannot be read for a
// while, and one that names none. Another run's manifest, which is never to be read,
// holds nobody up.
func TestNamedSchema(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := workertest.New(t)
		tr.Sink.Schemas = map[string]json.RawMessage{"law": json.RawMessage(`{"type":"object"}`)}
		for _, id := range ids("bad", 5) {
			tr.Queue.Send(jobs.Message{Body: workertest.Line(id, `"run":"bad","schema":"law"`)})
		}
		for _, id := range ids("j", 50) {
			tr.Queue.Send(jobs.Message{Body: workertest.Line(id, `"schema":"law"`)})
		}
		tr.Queue.Send(jobs.Message{Body: workertest.Line("other", `"schema":"none"`)})
		began := time.Now()
		tr.Sink.Fault = func(op workertest.Op, what string) (bool, error) {
			if op == workertest.Schema && (strings.HasPrefix(what, "bad/") || time.Since(began) < time.Minute) {
				return false, workertest.ErrInjected
			}
			return true, nil
		}
		tr.Endpoint.Func = func(_ context.Context, c worker.Call) (worker.Answer, error) {
			if string(c.Job.Schema) != `{"type":"object"}` {
				t.Errorf("job %s has schema %s, want the run's", c.Job.Key, c.Job.Schema)
			}
			return workertest.Answer(c), nil
		}
		run(t, tr, worker.Config{}, 10*time.Minute)
		tr.Check(t)
		if got, left := len(tr.Sink.Results()), tr.Queue.Len(); got != 50 || left != 5 {
			t.Errorf("%d results and %d messages, want 50, and the 5 of the other run", got, left)
		}
		const want = `upwell.schema: the manifest of run default has no schema "none": submit the run with --schema`
		if l := letter(t, tr); l.Class != jobs.BadJob || l.Reason != want {
			t.Errorf("letter %s, want bad_job: %s", describe(l), want)
		}
		if got := tr.Sink.Calls(workertest.Schema); got > 56+5*11+10 {
			t.Errorf("the sink was asked %d times, want once for each job in the first minute, and then once for each run and for each job of the bad one", got)
		}
	})
}

// TestRedactedBadJob has a message that is no job, and says what nobody may read.
func TestRedactedBadJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := workertest.New(t)
		tr.Queue.Send(jobs.Message{Body: []byte(`{"custom_id":"a","url":"Clause 7 of the Zorblax merger","body":{}}`)})
		run(t, tr, worker.Config{ExitWhenEmpty: true, Redact: true}, time.Hour)
		const want = "not a job: url: not what is wanted there (redacted)"
		if l := letter(t, tr); l.Reason != want {
			t.Errorf("reason %q, want %q", l.Reason, want)
		}
	})
}

func TestTooManyRepairs(t *testing.T) {
	tr := workertest.New(t)
	_, err := worker.New(tr.Queue, tr.Endpoint, tr.Sink, steady(1), worker.Config{Regions: []string{"here"}, Repairs: 4})
	if err == nil || errors.Is(err, worker.ErrTooLarge) {
		t.Errorf("New = %v, want an error", err)
	}
}
