package sqsqueue_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"upwell/jobs"
	"upwell/jobs/sqsqueue"
	"upwell/jobs/sqsqueue/sqssim"
)

// jobOf is the text of a job.
func jobOf(id string) string {
	return `{"custom_id":"` + id + `","url":"/v1/responses","body":{"model":"m","input":"hi"}}`
}

// bury puts letters of n jobs into the dead-letter queue, and returns their names in
// order.
func (w *world) bury(n int) (ids []string) {
	w.Helper()
	for i := range n {
		id := fmt.Sprintf("job-%04d", i)
		ids = append(ids, id)
		w.buryOne(jobOf(id), jobs.DeadLetter{Key: jobs.Key{Run: "r", CustomID: id}, Class: jobs.Truncated, FirstFailed: time.Now()})
	}
	return ids
}

func (w *world) buryOne(body string, l jobs.DeadLetter) {
	w.Helper()
	if err := w.q.Bury(w.Context(), jobs.Message{ID: rnd(), Body: []byte(body)}, l); err != nil {
		w.Fatalf("Bury = %v, want nil", err)
	}
}

var (
	rndMu sync.Mutex
	rndN  int
)

// rnd names a message as no other is.
func rnd() string {
	rndMu.Lock()
	defer rndMu.Unlock()
	rndN++
	return fmt.Sprint("m", rndN)
}

// scan reads all letters, and returns them by the order of their names.
func (w *world) scan() ([]*sqsqueue.Letter, sqsqueue.Survey) {
	w.Helper()
	var c collector
	s, err := w.q.Letters(w.Context(), c.visit)
	if err != nil {
		w.Errorf("Letters = %v, want nil", err)
	}
	if s.Letters != len(c.letters) {
		w.Errorf("%d letters visited, and %d counted", len(c.letters), s.Letters)
	}
	return c.letters, s
}

// A collector visits letters and keeps them.
type collector struct {
	mu      sync.Mutex
	letters []*sqsqueue.Letter
}

func (c *collector) visit(_ context.Context, ls []*sqsqueue.Letter) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.letters = append(c.letters, ls...)
	slices.SortFunc(c.letters, func(a, b *sqsqueue.Letter) int { return strings.Compare(a.CustomID, b.CustomID) })
	return nil
}

// seen returns what has been visited so far.
func (c *collector) seen() []*sqsqueue.Letter {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.letters
}

func (c *collector) ids() (ids []string) {
	for _, l := range c.letters {
		ids = append(ids, l.CustomID)
	}
	return ids
}

// wantLetters checks how many letters there are, all of them visible.
func (w *world) wantLetters(n int) {
	w.Helper()
	if got := w.Stats().Queues[w.dead]; got.Visible != n || got.InFlight != 0 || got.Delayed != 0 {
		w.Errorf("%d letters visible and %d in flight, want %d and none", got.Visible, got.InFlight, n)
	}
}

// A letter says what Bury was told, and of others what can be seen.
func TestLetters(t *testing.T) {
	failed := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	const ref = "s3://b/team/runs/r/letters/00/d.json"
	everywhere(t, setup{maxReceive: 1}, func(t *testing.T, w *world) {
		full := jobs.DeadLetter{
			Key: jobs.Key{Run: "r", CustomID: "a"}, Class: jobs.BadRequest, Reason: "no such model",
			Status: 400, RequestID: "req-1", Attempts: 3, FirstFailed: failed,
		}
		w.buryOne(jobOf("a"), full)
		w.buryOne(jobOf(`b\u0001`), jobs.DeadLetter{Key: jobs.Key{Run: "r", CustomID: "b\x01"}, Class: jobs.Expired, FirstFailed: failed})
		w.buryOne(`{"custom_id":`, jobs.DeadLetter{Key: jobs.Key{Run: "r"}, Class: jobs.BadJob, FirstFailed: failed})
		w.buryOne("x", jobs.DeadLetter{Key: jobs.Key{Run: "r", CustomID: "d\x01"}, Class: jobs.Poison, BodyRef: ref, FirstFailed: failed})
		w.send(jobOf("moved"))
		w.one() // and let go, once more than SQS allows
		time.Sleep(hidden)
		w.receive()
		w.sendTo(w.dead, jobOf("foreign"), "elsewhere")
		w.sendTo(w.dead, `{"custom_id":"own","body_ref":"s3://other/prompts/1.json"}`, "elsewhere")

		got, survey := w.scan()
		want := []*sqsqueue.Letter{
			{DeadLetter: jobs.DeadLetter{Key: jobs.Key{Run: "r"}, Class: jobs.BadJob, FirstFailed: failed}, Body: []byte(`{"custom_id":`)},
			{DeadLetter: full, Body: []byte(jobOf("a")), Model: "m"},
			{DeadLetter: jobs.DeadLetter{Key: jobs.Key{Run: "r", CustomID: "b\x01"}, Class: jobs.Expired, FirstFailed: failed}, Body: []byte(jobOf(`b\u0001`)), Model: "m"},
			{
				DeadLetter: jobs.DeadLetter{Key: jobs.Key{Run: "r", CustomID: "d\x01"}, Class: jobs.Poison, FirstFailed: failed, BodyRef: ref},
				Body:       []byte(`{"custom_id":"d\u0001","body_ref":"` + ref + `"}`),
			},
			{DeadLetter: jobs.DeadLetter{Key: jobs.Key{CustomID: "foreign"}, Class: sqsqueue.Unknown, Reason: "not written by upwell"}, Body: []byte(jobOf("foreign")), Model: "m"},
			{
				DeadLetter: jobs.DeadLetter{Key: jobs.Key{CustomID: "moved"}, Class: sqsqueue.Unknown, Reason: "moved by SQS: delivered too often, and never settled"},
				Body:       []byte(jobOf("moved")), Model: "m",
			},
			{
				DeadLetter: jobs.DeadLetter{Key: jobs.Key{CustomID: "own"}, Class: sqsqueue.Unknown, Reason: "not written by upwell"},
				Body:       []byte(`{"custom_id":"own","body_ref":"s3://other/prompts/1.json"}`),
			},
		}
		if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(sqsqueue.Letter{}), cmpopts.IgnoreFields(sqsqueue.Letter{}, "ID", "Sent", "Receives")); diff != "" {
			t.Errorf("letters (-want +got):\n%s", diff)
		}
		for _, l := range got {
			if since := l.Since(); l.ID == "" || l.Sent.IsZero() || l.Class == sqsqueue.Unknown && since != l.Sent || l.Class != sqsqueue.Unknown && since != failed {
				t.Errorf("%s: id %q, sent %v, since %v", l.CustomID, l.ID, l.Sent, since)
			}
		}
		if survey != (sqsqueue.Survey{Letters: 7}) {
			t.Errorf("survey %+v, want 7 letters and no more", survey)
		}
		w.wantLetters(7)
	})
}

// sendTo sends a message without attributes, as anybody may.
func (w *world) sendTo(queue, body, group string) {
	w.Helper()
	in := &sqs.SendMessageInput{QueueUrl: new("http://sqs.test/000000000000/" + queue), MessageBody: &body}
	if strings.HasSuffix(queue, ".fifo") {
		in.MessageGroupId, in.MessageDeduplicationId = new(group+rnd()), new(rnd())
	}
	if _, err := w.client.SendMessage(w.Context(), in); err != nil {
		w.Fatal(err)
	}
}

// A scan sees each letter once, however many there are and however long it takes, and
// leaves all of them visible.
func TestLettersOfManyPages(t *testing.T) {
	const n = 437
	for _, slow := range []bool{false, true} {
		everywhere(t, setup{latency: 20 * time.Millisecond}, func(t *testing.T, w *world) {
			want := w.bury(n)
			var c collector
			start := time.Now()
			s, err := w.q.Letters(t.Context(), func(ctx context.Context, ls []*sqsqueue.Letter) error {
				if slow {
					time.Sleep(2 * time.Minute) // all are visible again before the end
				}
				return c.visit(ctx, ls)
			})
			if diff := cmp.Diff(want, c.ids()); diff != "" || err != nil || s.Letters != n {
				t.Errorf("Letters = %+v, %v, visited (-want +got):\n%s", s, err, diff)
			}
			if took := time.Since(start); !slow && took > 5*time.Second {
				t.Errorf("took %v, want less than 5s", took)
			}
			w.wantLetters(n)
		})
	}
}

// After a pause, what has been seen is visible again and may come before what is new.
func TestLettersAfterAPause(t *testing.T) {
	virtual(t, setup{latency: 20 * time.Millisecond, shuffle: true}, func(t *testing.T, w *world) {
		const n = 1000
		want := w.bury(n)
		start := time.Now()
		var c collector
		s, err := w.q.Letters(t.Context(), func(ctx context.Context, ls []*sqsqueue.Letter) error {
			if err := c.visit(ctx, ls); err != nil || len(c.seen()) < n*9/10 {
				return err
			}
			time.Sleep(time.Until(start.Add(6 * time.Minute)))
			return nil
		})
		if diff := cmp.Diff(want, c.ids()); diff != "" || err != nil || s.Letters != n {
			t.Errorf("Letters = %+v, %v, visited (-want +got):\n%s", s, err, diff)
		}
		w.wantLetters(n)
	})
}

// A reader that only receives what it has seen ends all the same.
func TestLettersThatComeAgainAndAgain(t *testing.T) {
	virtual(t, setup{}, func(t *testing.T, w *world) {
		w.bury(1)
		var mu sync.Mutex
		var first []byte
		client := newClient(answering{w.Server, func(op string, body []byte) []byte {
			mu.Lock()
			defer mu.Unlock()
			switch {
			case op != "ReceiveMessage":
			case first == nil:
				first = body
			default:
				return first
			}
			return body
		}})
		q, err := sqsqueue.Open(t.Context(), client, sqsqueue.Config{Queue: "jobs"})
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		s, err := q.Letters(t.Context(), func(context.Context, []*sqsqueue.Letter) error { return nil })
		if took := time.Since(start); err != nil || s.Letters != 1 || took > 6*time.Minute {
			t.Errorf("Letters = %+v, %v after %v, want 1 letter within 6m", s, err, took)
		}
	})
}

// Letters that another reader holds are counted, and two readers that meet share the
// queue without a loss.
func TestLettersElsewhere(t *testing.T) {
	virtual(t, setup{}, func(t *testing.T, w *world) {
		all := w.bury(60)
		other, err := sqsqueue.Open(t.Context(), w.client, sqsqueue.Config{Queue: "dead", Dead: "jobs"})
		if err != nil {
			t.Fatal(err)
		}
		held, err := other.Receive(t.Context(), 7, time.Hour)
		if err != nil || len(held) != 7 {
			t.Fatalf("received %d, %v, want 7", len(held), err)
		}
		if _, s := w.scan(); s != (sqsqueue.Survey{Letters: 53, Elsewhere: 7}) {
			t.Errorf("survey %+v, want 53 letters and 7 elsewhere", s)
		}
		for _, m := range held {
			if err := other.Hide(t.Context(), m, 0); err != nil {
				t.Error(err)
			}
		}

		var one, two collector
		var wg sync.WaitGroup
		for _, c := range []*collector{&one, &two} {
			wg.Go(func() {
				s, err := w.q.Letters(t.Context(), func(ctx context.Context, ls []*sqsqueue.Letter) error {
					time.Sleep(100 * time.Millisecond)
					return c.visit(ctx, ls)
				})
				if err != nil || s.Letters+s.Elsewhere < 60 {
					t.Errorf("Letters = %+v, %v, want 60 in all", s, err)
				}
			})
		}
		wg.Wait()
		seen := slices.Concat(one.ids(), two.ids())
		slices.Sort(seen)
		if diff := cmp.Diff(all, slices.Compact(seen)); diff != "" {
			t.Errorf("two readers saw (-want +got):\n%s", diff)
		}
		w.wantLetters(60)
	})
}

// What cannot be in flight cannot be read, and is said to be there.
func TestLettersBeyondTheLimit(t *testing.T) {
	virtual(t, setup{inFlight: 40}, func(t *testing.T, w *world) {
		w.bury(60)
		if _, s := w.scan(); s != (sqsqueue.Survey{Letters: 40, Unread: 20}) {
			t.Errorf("survey %+v, want 40 letters and 20 unread", s)
		}
		w.wantLetters(60)
	})
	virtual(t, setup{fifo: true}, func(t *testing.T, w *world) {
		for i := range 25 {
			_, err := w.client.SendMessage(t.Context(), &sqs.SendMessageInput{
				QueueUrl: new("http://sqs.test/000000000000/dead.fifo"), MessageBody: new("x"), MessageGroupId: new("one"), MessageDeduplicationId: new(fmt.Sprint(i)),
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		if _, s := w.scan(); s != (sqsqueue.Survey{Letters: 10, Unread: 15}) {
			t.Errorf("survey %+v, want 10 letters and 15 behind them", s)
		}
		w.wantLetters(25)
	})
}

// A letter that is damaged on the way is read when it comes whole; one that never
// does is counted.
func TestDamagedLetters(t *testing.T) {
	for _, times := range []int{1, 1000} {
		virtual(t, setup{}, func(t *testing.T, w *world) {
			w.bury(12)
			var left atomic.Int32
			left.Store(int32(times))
			w.inject(func(string, sqssim.Call) sqssim.Fault {
				return sqssim.Fault{Corrupt: func(m sqssim.Message) bool {
					return strings.Contains(m.Body, "job-0003") && left.Add(-1) >= 0
				}}
			})
			got, s := w.scan()
			want := sqsqueue.Survey{Letters: 12}
			if times > 1 {
				want = sqsqueue.Survey{Letters: 11, Damaged: 1}
			}
			if len(got) != want.Letters || s != want {
				t.Errorf("damaged %d times: survey %+v, want %+v", times, s, want)
			}
			w.wantLetters(12)
		})
	}
}

// However a scan ends, it gives back what it holds, and soon.
func TestLettersStop(t *testing.T) {
	errVisit := errors.New("visitor")
	errSignal := errors.New("signal")
	for _, tt := range []struct {
		name     string
		visitor  error // of the visitor, at the third visit
		cancel   bool  // instead
		want     error
		atMost   time.Duration
		delay    time.Duration // of what SQS answers to a receive
		refusing bool          // SQS takes nothing back
	}{
		{name: "enough", visitor: sqsqueue.ErrStop, atMost: 2 * time.Second},
		{name: "an error", visitor: errVisit, want: errVisit, atMost: 2 * time.Second},
		{name: "a signal", cancel: true, want: errSignal, atMost: 2 * time.Second},
		{name: "a signal while SQS answers", cancel: true, want: errSignal, atMost: 3 * time.Second, delay: time.Second},
		{name: "a signal, and SQS in trouble", cancel: true, want: errSignal, atMost: 15 * time.Second, refusing: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			virtual(t, setup{latency: 20 * time.Millisecond}, func(t *testing.T, w *world) {
				w.bury(300)
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				w.inject(func(op string, _ sqssim.Call) sqssim.Fault {
					if op == "ReceiveMessage" {
						return sqssim.Fault{Delay: tt.delay}
					}
					return sqssim.Fault{}
				})
				var mu sync.Mutex
				visits := 0
				var at time.Time
				s, err := w.q.Letters(ctx, func(context.Context, []*sqsqueue.Letter) error {
					mu.Lock()
					defer mu.Unlock()
					if visits++; visits != 3 {
						return nil
					}
					if at = time.Now(); tt.cancel {
						cancel(errSignal)
					}
					if tt.refusing {
						w.inject(func(op string, _ sqssim.Call) sqssim.Fault {
							if op == "ChangeMessageVisibilityBatch" {
								return sqssim.Fault{Err: &sqssim.Error{Code: "ServiceUnavailable", Status: 503}}
							}
							return sqssim.Fault{}
						})
					}
					return tt.visitor
				})
				if !errors.Is(err, tt.want) || s.Elsewhere != 0 || s.Unread != 0 {
					t.Errorf("Letters = %+v, %v, want %v and nothing said of the rest", s, err, tt.want)
				}
				if took := time.Since(at); took > tt.atMost {
					t.Errorf("returned after %v, want %v at most", took, tt.atMost)
				}
				if tt.refusing {
					if !strings.Contains(err.Error(), "letters stay hidden for up to 5m0s") {
						t.Errorf("Letters = %v, want it to say that letters stay hidden", err)
					}
					time.Sleep(5 * time.Minute)
				}
				w.wantLetters(300)
			})
		})
	}
}

// Letters that come while a scan goes on are for the next one.
func TestLettersThatComeMeanwhile(t *testing.T) {
	virtual(t, setup{}, func(t *testing.T, w *world) {
		w.bury(10)
		late := 0
		s, err := w.q.Letters(t.Context(), func(context.Context, []*sqsqueue.Letter) error {
			time.Sleep(1500 * time.Millisecond)
			if late++; late > 50 {
				t.Fatal("the scan does not end")
			}
			w.buryOne(jobOf(fmt.Sprint("late", late)), jobs.DeadLetter{Class: jobs.Expired}) //nolint:contextcheck // the test's, not the visit's
			return nil
		})
		if err != nil || s.Letters != 10 || late != 1 {
			t.Errorf("Letters = %+v, %v with %d late ones, want 10 and 1", s, err, late)
		}
		w.wantLetters(11)
	})
}

// redriveAll sends every letter back as it is.
func redriveAll(ctx context.Context, q *sqsqueue.Queue) error {
	_, err := q.Letters(ctx, func(ctx context.Context, ls []*sqsqueue.Letter) error {
		var bodies [][]byte
		for _, l := range ls {
			bodies = append(bodies, l.Body)
		}
		_, err := q.Redrive(ctx, ls, bodies)
		return err
	})
	return err
}

func TestRedrive(t *testing.T) {
	everywhere(t, setup{}, func(t *testing.T, w *world) {
		// The jobs have been queued before, within the five minutes in which a FIFO
		// queue takes no body twice.
		for i := range 25 {
			w.send(jobOf(fmt.Sprint(i)))
		}
		for n := 0; n < 25; {
			for _, m := range w.receive() {
				n++
				m.Attempts = 4
				err := errors.Join(w.q.Bury(t.Context(), m, jobs.DeadLetter{Class: jobs.Exhausted, Attempts: 4}), w.q.Ack(t.Context(), m))
				if err != nil {
					t.Fatal(err)
				}
			}
		}
		groups := groupsOf(w.Messages(w.dead))
		if err := redriveAll(t.Context(), w.q); err != nil {
			t.Errorf("redrive = %v, want nil", err)
		}
		w.wantLetters(0)
		w.wantStats(25, 0)
		if diff := cmp.Diff(groups, groupsOf(w.Messages(w.name))); diff != "" {
			t.Errorf("groups (-dead +redriven):\n%s", diff)
		}
		for _, m := range w.receive() {
			if !m.Again || m.Attempts != 0 || m.Receives != 1 {
				t.Errorf("%s: again %v, %d attempts, %d receives, want true, 0 and 1", m.Body, m.Again, m.Attempts, m.Receives)
			}
		}
	})
}

// groupsOf returns the groups of messages by their bodies.
func groupsOf(ms []sqssim.Message) map[string]string {
	groups := make(map[string]string)
	for _, m := range ms {
		groups[m.Body] = m.Group
	}
	return groups
}

// Wherever a redrive is killed, doing it again leaves each job in the queue, and
// marked, and no letter.
func TestRedriveKilledBetweenRequests(t *testing.T) {
	const n = 23
	for _, fifo := range []bool{false, true} {
		for _, applied := range []bool{false, true} {
			done := false
			for kill := 1; !done; kill++ {
				name := fmt.Sprintf("fifo=%v/applied=%v/%d", fifo, applied, kill)
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t, setup{fifo: fifo})
					ids := w.bury(n)
					done = !w.killRedrive(kill, applied)
					time.Sleep(5 * time.Minute) // what was hidden is not given back by anybody
					if err := redriveAll(t.Context(), w.q); err != nil {
						t.Errorf("%s: redrive again = %v, want nil", name, err)
					}
					w.wantLetters(0)
					w.wantJobs(name, ids)
				})
			}
		}
	}
}

// killRedrive redrives, and dies at the request of that number, before or after it
// has taken effect. It reports whether it came to that.
func (w *world) killRedrive(at int, applied bool) (killed bool) {
	requests := 0
	ctx, die := context.WithCancel(w.Context())
	defer die()
	w.inject(func(string, sqssim.Call) sqssim.Fault {
		if requests++; requests < at {
			return sqssim.Fault{}
		}
		die() // so that nobody waits; no later request takes effect
		killed = true
		return sqssim.Fault{Drop: true, Apply: applied && requests == at}
	})
	_ = redriveAll(ctx, w.q)
	w.inject(nil)
	return killed
}

// wantJobs checks that each job is in the queue at least once, marked.
func (w *world) wantJobs(name string, ids []string) {
	w.Helper()
	var got []string
	for _, m := range w.Messages(w.name) {
		if m.Attributes["upwell.again"].StringValue != "1" {
			w.Errorf("%s: %s is not marked", name, m.Body)
		}
		j, _ := jobs.Parse([]byte(m.Body), "")
		got = append(got, j.CustomID)
	}
	slices.Sort(got)
	if diff := cmp.Diff(ids, slices.Compact(got)); diff != "" {
		w.Errorf("%s: jobs (-want +got):\n%s", name, diff)
	}
}

// A letter whose removal fails is left, and says so.
func TestRedriveThatCannotRemove(t *testing.T) {
	virtual(t, setup{}, func(t *testing.T, w *world) {
		w.bury(3)
		w.inject(func(op string, _ sqssim.Call) sqssim.Fault {
			return sqssim.Fault{FailEntry: func(e sqssim.Entry) *sqssim.Error {
				if op == "DeleteMessageBatch" && strings.Contains(e.Body, "job-0001") {
					return &sqssim.Error{Code: "InternalError", Status: 500}
				}
				return nil
			}}
		})
		_, err := w.q.Letters(t.Context(), func(ctx context.Context, ls []*sqsqueue.Letter) error {
			sent, err := w.q.Redrive(ctx, ls, [][]byte{[]byte("a"), []byte("b"), []byte("c")})
			for i, l := range ls {
				if !sent || err == nil || l.Removed() != (i != 1) {
					t.Errorf("Redrive = %v, %v, removed %s: %v", sent, err, l.CustomID, l.Removed())
				}
			}
			return nil
		})
		if err != nil {
			t.Errorf("Letters = %v, want nil", err)
		}
		w.wantLetters(1)
		w.wantStats(3, 0)
	})
}

// A job stays in its group, whatever becomes of its text.
func TestRedriveKeepsTheGroup(t *testing.T) {
	virtual(t, setup{fifo: true}, func(t *testing.T, w *world) {
		_, err := w.client.SendMessage(t.Context(), &sqs.SendMessageInput{
			QueueUrl: new("http://sqs.test/000000000000/jobs.fifo"), MessageBody: new(jobOf("a")), MessageGroupId: new("g7"), MessageDeduplicationId: new("d"),
		})
		if err != nil {
			t.Fatal(err)
		}
		m := w.one()
		if err := errors.Join(w.q.Bury(t.Context(), m, jobs.DeadLetter{}), w.q.Ack(t.Context(), m)); err != nil {
			t.Fatal(err)
		}
		_, err = w.q.Letters(t.Context(), func(ctx context.Context, ls []*sqsqueue.Letter) error {
			_, err := w.q.Redrive(ctx, ls, [][]byte{[]byte("changed")})
			return err
		})
		if err != nil {
			t.Errorf("redrive = %v, want nil", err)
		}
		if diff := cmp.Diff(map[string]string{"changed": "g7"}, groupsOf(w.Messages(w.name))); diff != "" {
			t.Errorf("groups (-want +got):\n%s", diff)
		}
	})
}

// Attributes of others go with a job, as many as there is room for beside ours.
func TestRedriveKeepsAttributes(t *testing.T) {
	virtual(t, setup{}, func(t *testing.T, w *world) {
		in := &sqs.SendMessageInput{
			QueueUrl: new("http://sqs.test/000000000000/dead"), MessageBody: new(jobOf("a")), MessageAttributes: map[string]types.MessageAttributeValue{
				"traceparent": {DataType: new("String"), StringValue: new(parent)}, "blob": {DataType: new("Binary.gz"), BinaryValue: []byte{0, 255}},
				"upwell.attempts": {DataType: new("Number"), StringValue: new("7")}, "upwell.again": {DataType: new("String"), StringValue: new("m1")},
			},
		}
		many := &sqs.SendMessageInput{QueueUrl: in.QueueUrl, MessageBody: new(jobOf("b")), MessageAttributes: make(map[string]types.MessageAttributeValue)}
		for i := range 10 {
			many.MessageAttributes[fmt.Sprint("a", i)] = types.MessageAttributeValue{DataType: new("Number"), StringValue: new("1")}
		}
		for _, in := range []*sqs.SendMessageInput{in, many} {
			if _, err := w.client.SendMessage(t.Context(), in); err != nil {
				t.Fatal(err)
			}
		}
		if err := redriveAll(t.Context(), w.q); err != nil {
			t.Errorf("redrive = %v, want nil", err)
		}
		got := make(map[string]map[string]sqssim.Attribute)
		for _, m := range w.Messages(w.name) {
			got[m.Body] = m.Attributes
		}
		again := sqssim.Attribute{DataType: "Number", StringValue: "1"}
		want := map[string]map[string]sqssim.Attribute{
			jobOf("a"): {"traceparent": {DataType: "String", StringValue: parent}, "blob": {DataType: "Binary.gz", BinaryValue: []byte{0, 255}}, "upwell.again": again},
			jobOf("b"): {"upwell.again": again},
		}
		for i := range 9 {
			want[jobOf("b")][fmt.Sprint("a", i)] = again
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("attributes (-want +got):\n%s", diff)
		}
		w.wantLetters(0)
	})
}

// Attributes of others take room, in a message and in a batch.
func TestRedriveOfLargeAttributes(t *testing.T) {
	virtual(t, setup{}, func(t *testing.T, w *world) {
		const weight = len("text"+"String") + 200_000
		for i := range 8 {
			_, err := w.client.SendMessage(t.Context(), &sqs.SendMessageInput{
				QueueUrl: new("http://sqs.test/000000000000/dead"), MessageBody: new(fmt.Sprint(i)),
				MessageAttributes: map[string]types.MessageAttributeValue{"text": {DataType: new("String"), StringValue: new(strings.Repeat("x", 200_000))}},
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		most := bytes.Repeat([]byte("x"), sqsqueue.MaxMessage-room-weight)
		_, err := w.q.Letters(t.Context(), func(ctx context.Context, ls []*sqsqueue.Letter) error {
			bodies := make([][]byte, len(ls))
			for i, l := range ls {
				bodies[i] = l.Body
				if fits, not := l.Fits(most), l.Fits(append(most, 'x')); fits != nil || not == nil {
					t.Errorf("Fits = %v and, with a byte more, %v, want nil and an error", fits, not)
				}
			}
			bodies[0] = most
			_, err := w.q.Redrive(ctx, ls, bodies)
			return err
		})
		if err != nil {
			t.Errorf("redrive = %v, want nil", err)
		}
		w.wantLetters(0)
		w.wantStats(8, 0)
	})
}

// On a FIFO queue, a letter that was redriven and could not be removed is redriven
// with another change at once.
func TestRedriveOfAnotherBody(t *testing.T) {
	virtual(t, setup{fifo: true}, func(t *testing.T, w *world) {
		w.bury(1)
		w.inject(func(op string, _ sqssim.Call) sqssim.Fault {
			return sqssim.Fault{Drop: op == "DeleteMessageBatch"}
		})
		for _, body := range []string{"one", "one", "other"} {
			_, err := w.q.Letters(t.Context(), func(ctx context.Context, ls []*sqsqueue.Letter) error {
				sent, err := w.q.Redrive(ctx, ls, [][]byte{[]byte(body)})
				if !sent || err == nil {
					t.Errorf("Redrive of %s = %v, %v, want that it was sent and not removed", body, sent, err)
				}
				return nil
			})
			if err != nil {
				t.Errorf("Letters = %v, want nil", err)
			}
		}
		if diff := cmp.Diff([]string{"one+", "other+"}, w.again()); diff != "" {
			t.Errorf("queued (-want +got):\n%s", diff)
		}
	})
}

// Whoever is interrupted while a job is sent still removes its letter, and begins
// with no other.
func TestRedriveInterrupted(t *testing.T) {
	for _, after := range []time.Duration{0, 10 * time.Millisecond} { // while sending, and while removing
		virtual(t, setup{latency: 20 * time.Millisecond}, func(t *testing.T, w *world) {
			w.bury(200)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			w.inject(func(op string, _ sqssim.Call) sqssim.Fault {
				if op == "SendMessageBatch" {
					time.AfterFunc(after, cancel)
					return sqssim.Fault{Delay: after / 2}
				}
				return sqssim.Fault{}
			})
			if err := redriveAll(ctx, w.q); !errors.Is(err, context.Canceled) {
				t.Errorf("redrive = %v, want %v", err, context.Canceled)
			}
			sent := len(w.Messages(w.name))
			if sent == 0 || sent == 200 {
				t.Errorf("%d sent, want some", sent)
			}
			w.wantLetters(200 - sent)
		})
	}
}

// An answering is a transport that answers what it likes to some operations.
type answering struct {
	http.RoundTripper

	answer func(op string, body []byte) []byte
}

func (t answering) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := t.RoundTripper.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	b = t.answer(strings.TrimPrefix(r.Header.Get("X-Amz-Target"), "AmazonSQS."), b)
	resp.Body, resp.ContentLength = io.NopCloser(bytes.NewReader(b)), int64(len(b))
	return resp, err
}

// SQS's counts are behind: letters that were removed are not another reader's.
func TestRemovedLettersAreNotElsewhere(t *testing.T) {
	virtual(t, setup{}, func(t *testing.T, w *world) {
		w.bury(30)
		counts := 0
		client := newClient(answering{w.Server, func(op string, body []byte) []byte {
			if op != "GetQueueAttributes" || !bytes.Contains(body, []byte("NotVisible")) {
				return body
			}
			if counts++; counts == 1 {
				return body
			}
			return bytes.ReplaceAll(body, []byte(`NotVisible":"0"`), []byte(`NotVisible":"30"`))
		}})
		q, err := sqsqueue.Open(t.Context(), client, sqsqueue.Config{Queue: "jobs"})
		if err != nil {
			t.Fatal(err)
		}
		s, err := q.Letters(t.Context(), func(ctx context.Context, ls []*sqsqueue.Letter) error {
			bodies := make([][]byte, len(ls))
			for i, l := range ls {
				bodies[i] = l.Body
			}
			_, err := q.Redrive(ctx, ls, bodies)
			return err
		})
		if err != nil || s != (sqsqueue.Survey{Letters: 30}) || counts != 2 {
			t.Errorf("Letters = %+v, %v after %d counts, want 30 letters and none elsewhere", s, err, counts)
		}
	})
}

// A receive may bring nothing although there is something.
func TestLettersAfterEmptyReceives(t *testing.T) {
	virtual(t, setup{}, func(t *testing.T, w *world) {
		w.bury(12)
		var mu sync.Mutex
		receives := 0
		client := newClient(held{w.Server, &mu, &receives})
		q, err := sqsqueue.Open(t.Context(), client, sqsqueue.Config{Queue: "jobs"})
		if err != nil {
			t.Fatal(err)
		}
		s, err := q.Letters(t.Context(), func(context.Context, []*sqsqueue.Letter) error { return nil })
		if err != nil || s != (sqsqueue.Survey{Letters: 12}) {
			t.Errorf("Letters = %+v, %v, want 12 letters", s, err)
		}
	})
}

// held is a transport whose first receives bring nothing.
type held struct {
	http.RoundTripper

	mu       *sync.Mutex
	receives *int
}

func (t held) RoundTrip(r *http.Request) (*http.Response, error) {
	t.mu.Lock()
	receive := r.Header.Get("X-Amz-Target") == "AmazonSQS.ReceiveMessage"
	if receive {
		*t.receives++
	}
	n := *t.receives
	t.mu.Unlock()
	if !receive || n > 8 {
		return t.RoundTripper.RoundTrip(r)
	}
	return &http.Response{
		Status: "200 OK", StatusCode: http.StatusOK, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"Content-Type": {"application/x-amz-json-1.0"}}, Body: io.NopCloser(strings.NewReader("{}")), ContentLength: 2, Request: r,
	}, nil
}
