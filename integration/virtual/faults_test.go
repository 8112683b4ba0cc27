package virtual

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"upwell/integration/fixture"
	"upwell/jobs"
	"upwell/jobs/sqsqueue/sqssim"
	"upwell/sink/s3sink/s3sim"
	"upwell/worker"
	"upwell/worker/mantle/mantlesim"
	"upwell/worker/mantle/mantlesim/capacity"
)

// A form is one of the ways in which a request can go wrong. Those that are
// applied are the hard ones: it happened, and whoever asked was told otherwise.
type form struct {
	name    string
	applied bool
	drop    bool // the connection, instead of an error
}

var forms = []form{
	{"refused", false, false},
	{"never arrived", false, true},
	{"applied and denied", true, false},
	{"answer lost", true, true},
}

// A schedule says whether the n-th request, counted from 1, goes wrong, if the
// first was made so long ago.
type schedule struct {
	name string
	hits func(n int64, since time.Duration) bool
}

var schedules = []schedule{
	{"every third", func(n int64, _ time.Duration) bool { return n%3 == 0 }},
	{"for a minute", func(_ int64, since time.Duration) bool { return since < time.Minute }},
}

// Numbers of jobs in a fault's run, by what becomes of them.
const (
	sound  = 60
	doomed = 6 // the model refuses them: they end as dead letters, and are paid for
	shaky  = 8 // their first call fails in a way that counts
)

// faultTable says what each operation's faults cost.
//
// A sound job that is met twice is looked up, so it is paid for once whatever
// happens between the queue, the worker and the sink. A doomed one leaves an error
// line: its message, when it comes back, brings another letter at most, but a copy
// of it is another message, and brings another bill as well. And a paid answer that
// is lost on its way back from the endpoint has to be bought again.
var faultTable = []struct {
	op string

	// extra is how many more calls answered jobs may cost, given how many
	// answers were lost. again and letters are how many calls and letters dead
	// ones may.
	extra          func(lost int) int
	again, letters int
}{
	{op: "ReceiveMessage"},
	{op: "SendMessageBatch", again: doomed, letters: doomed}, // copies
	{op: "SendMessage", again: doomed, letters: sent},        // copies, and letters sent twice
	{op: "DeleteMessageBatch", letters: doomed},              // the next worker has them again
	{op: "ChangeMessageVisibilityBatch"},
	{op: "PutObject"},
	{op: "HeadObject"},
	{op: "Complete", extra: func(lost int) int { return lost }},
}

// sent is how often letters may be sent beyond the first time: the SDK tries
// five times, and the worker with it until the minute is over.
const sent = 20 * doomed

// batches are the operations whose entries fail one by one, too.
var batches = []string{"SendMessageBatch", "DeleteMessageBatch", "ChangeMessageVisibilityBatch"}

func TestFaults(t *testing.T) {
	t.Parallel()
	for _, tt := range faultTable {
		for _, sched := range schedules {
			for _, f := range forms {
				t.Run(fmt.Sprintf("%s/%s/%s", tt.op, sched.name, f.name), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						in := &injector{op: tt.op, form: f, schedule: sched}
						in.run(t, account{Again: tt.again, Letters: tt.letters}, tt.extra)
					})
				})
			}
			if slices.Contains(batches, tt.op) {
				for _, applied := range []bool{false, true} {
					t.Run(fmt.Sprintf("%s/%s/entries applied=%v", tt.op, sched.name, applied), func(t *testing.T) {
						synctest.Test(t, func(t *testing.T) {
							in := &injector{op: tt.op, form: form{applied: applied}, schedule: sched, entries: true}
							in.run(t, account{Again: tt.again, Letters: tt.letters}, tt.extra)
						})
					})
				}
			}
		}
	}
}

// An injector makes the requests of one operation go wrong.
type injector struct {
	op       string
	form     form
	schedule schedule
	entries  bool // every second entry of a batch, rather than the batch

	from      time.Time // of the faults; set before any request that counts
	n, struck atomic.Int64
}

// hits decides about one more request.
func (in *injector) hits(op string) bool {
	if op != in.op || in.from.IsZero() || !in.schedule.hits(in.n.Add(1), time.Since(in.from)) {
		return false
	}
	in.struck.Add(1)
	return true
}

func (in *injector) sqs(op string, _ sqssim.Call) sqssim.Fault {
	internal := &sqssim.Error{Code: "InternalFailure", Message: "injected", Status: 500}
	switch {
	case !in.hits(op):
		return sqssim.Fault{}
	case in.entries:
		return sqssim.Fault{Apply: in.form.applied, FailEntry: func(e sqssim.Entry) *sqssim.Error {
			if strings.Contains(e.ID, "1") || strings.Contains(e.ID, "4") || e.ID == "0" {
				return internal
			}
			return nil
		}}
	case in.form.drop:
		return sqssim.Fault{Apply: in.form.applied, Drop: true}
	default:
		return sqssim.Fault{Apply: in.form.applied, Err: internal}
	}
}

func (in *injector) s3(op, _ string) s3sim.Fault {
	switch {
	case !in.hits(op):
		return s3sim.Fault{}
	case in.form.drop:
		return s3sim.Fault{Apply: in.form.applied, Drop: true}
	default:
		return s3sim.Fault{Apply: in.form.applied, Status: 503}
	}
}

// endpoint returns the same for the endpoint, in its own terms.
func (in *injector) endpoint() []mantlesim.Fault {
	faults := []mantlesim.Fault{
		{Kind: mantlesim.Decline, Match: `"custom_id":"doomed`},
		{Kind: mantlesim.Internal, Match: `"custom_id":"shaky`, Times: shaky},
	}
	if in.op != "Complete" {
		return faults
	}
	kind := mantlesim.Internal
	if in.form.drop {
		kind = mantlesim.Reset
	}
	f := mantlesim.Fault{Kind: kind, Applied: in.form.applied, Match: `"custom_id":"(sound|shaky)`}
	if in.schedule.name == "every third" {
		f.P = 1. / 3
	} else {
		f.Until = time.Minute
	}
	return append(faults, f)
}

// run works on jobs of all sorts with one worker after the other, while requests
// go wrong, and balances the account.
func (in *injector) run(t *testing.T, want account, extra func(lost int) int) {
	t.Helper()
	s := newSystem(t, plan{SQS: in.sqs, S3: in.s3, Mantle: mantlesim.Config{
		Capacity: capacity.MustScript("calls=4"),
		Latency:  mantlesim.Latency{Median: 8 * time.Second, Sigma: 0.3},
		Faults:   in.endpoint(),
	}})
	in.from = time.Now()
	dead := fixture.IDs("doomed", doomed)
	names := slices.Concat(fixture.IDs("sound", sound), dead, fixture.IDs("shaky", shaky))
	want.IDs, want.Dead = names, make(map[string]jobs.Class)
	for _, id := range dead {
		want.Dead[id] = jobs.Refused
	}
	s.submit(names)
	// Two deploys, so that messages are given back, come again and are looked
	// up; with counted attempts among them, which are carried along.
	cfg := worker.Config{ExitWhenEmpty: true, MaxAttempts: 50, Slots: 12}
	for range 2 {
		ctx, cancel := context.WithTimeout(t.Context(), 7*time.Second)
		s.hire(cfg).run(ctx)
		cancel()
	}
	s.hire(cfg).run(t.Context())
	// A minute of trouble, and a visibility timeout or two.
	if took := time.Since(in.from); took > 15*time.Minute {
		t.Errorf("took %v, want at most 15m", took)
	}

	lost := int(in.struck.Load())
	if in.op == "Complete" {
		lost = int(s.mantle.Counts().Faults[mantlesim.Reset] + s.mantle.Counts().Faults[mantlesim.Internal])
	}
	if lost == 0 {
		t.Errorf("no request of %s went wrong: the test tests nothing", in.op)
	}
	if extra != nil && in.form.applied {
		want.Extra = extra(lost)
	}
	s.check(want)
}

// TestUnacknowledged has nothing deleted for ten minutes. The worker knows what
// it has settled: what comes back is owed an acknowledgement, and nothing else,
// even if it left no result to be found.
func TestUnacknowledged(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		in := &injector{op: "DeleteMessageBatch", schedule: schedule{hits: func(_ int64, since time.Duration) bool { return since < 10*time.Minute }}}
		s := newSystem(t, plan{SQS: in.sqs, Mantle: mantlesim.Config{Latency: mantlesim.Latency{Median: 5 * time.Second}, Faults: in.endpoint()}})
		in.from = time.Now()
		dead := fixture.IDs("doomed", doomed)
		want := account{IDs: slices.Concat(fixture.IDs("sound", sound), dead), Dead: make(map[string]jobs.Class)}
		for _, id := range dead {
			want.Dead[id] = jobs.Refused
		}
		s.submit(want.IDs)
		s.hire(untilEmpty).run(t.Context())
		s.check(want)
	})
}

// TestSentTwice loses the answer to a request that queues jobs. The copies that
// the next request makes are met by a worker that knows nothing of the first
// ones, when those have been answered.
func TestSentTwice(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		in := &injector{
			op: "SendMessageBatch", form: form{applied: true, drop: true},
			schedule: schedule{hits: func(n int64, _ time.Duration) bool { return n == 1 }},
		}
		s := newSystem(t, plan{SQS: in.sqs, Mantle: mantlesim.Config{Latency: mantlesim.Latency{Median: time.Second}}})
		in.from = time.Now()
		names := fixture.IDs("job", 10)
		s.submit(names)
		if n := len(s.sqs.Messages(fixture.Queue)); n != 20 {
			t.Fatalf("%d messages, want each of 10 jobs twice", n)
		}
		// One after the other, so that the first worker meets no copy.
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		first := s.hire(worker.Config{Bytes: 1})
		first.run(ctx)
		second := s.hire(untilEmpty)
		second.run(t.Context())
		if a, b := first.count(worker.Stored), second.count(worker.Duplicate); a == 0 || b < a {
			t.Errorf("%d jobs answered first, and %d copies found to be, want some and as many", a, b)
		}
		s.check(account{IDs: names})
	})
}

// TestLateAnswers has heartbeats fail while calls last, so that another worker
// is given the same jobs and answers them, too. That is paid for twice, and
// cannot be helped; but the first answer stays, whoever comes second and by
// whichever way it is written.
func TestLateAnswers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		in := &injector{op: "ChangeMessageVisibilityBatch", schedule: schedule{hits: func(_ int64, since time.Duration) bool { return since < 4*time.Minute }}}
		var mu sync.Mutex
		puts := make(map[string]int)
		s := newSystem(t, plan{
			SQS: in.sqs,
			S3: func(op, key string) s3sim.Fault {
				if op != "PutObject" || !strings.HasSuffix(key, "0.json") {
					return s3sim.Fault{}
				}
				mu.Lock()
				defer mu.Unlock()
				if puts[key]++; puts[key]%2 == 1 {
					return s3sim.Fault{Status: 503} // the next try is made in another way
				}
				return s3sim.Fault{}
			},
			Mantle: mantlesim.Config{Latency: mantlesim.Latency{Median: 6 * time.Minute}},
		})
		in.from = time.Now()
		names := fixture.IDs("job", 60)
		s.submit(names)
		first, second := s.hire(untilEmpty), s.hire(untilEmpty)
		var working sync.WaitGroup
		working.Go(func() { first.run(t.Context()) })
		time.Sleep(time.Minute) // the first has them all by now
		working.Go(func() { second.run(t.Context()) })
		working.Wait()
		n := first.count(worker.Duplicate) + second.count(worker.Duplicate)
		if n == 0 {
			t.Error("no job was answered twice: the test tests nothing")
		}
		s.check(account{IDs: names, Extra: n})
	})
}
