package sqsqueue_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"upwell/jobs"
	"upwell/jobs/sqsqueue"
	"upwell/jobs/sqsqueue/sqssim"
	"upwell/worker"
)

func TestReceive(t *testing.T) {
	everywhere(t, setup{}, func(t *testing.T, w *world) {
		sent := time.Now()
		if err := w.q.Send(t.Context(), []sqsqueue.Outgoing{{Body: []byte("a")}, {Body: []byte("b"), Again: true}}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		got := w.receive()
		want := []jobs.Message{
			{Body: []byte("a"), Receives: 1, Sent: sent, Received: time.Now()},
			{Body: []byte("b"), Receives: 1, Sent: sent, Received: time.Now(), Again: true},
		}
		opts := cmp.Options{cmpopts.IgnoreFields(jobs.Message{}, "ID", "Receipt", "Origin"), cmpopts.EquateApproxTime(0)}
		if diff := cmp.Diff(want, got, opts); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
		time.Sleep(hidden)
		again := w.receive()
		for i := range want {
			want[i].Receives, want[i].Received = 2, time.Now()
		}
		if diff := cmp.Diff(want, again, opts); diff != "" {
			t.Errorf("second delivery: -want +got:\n%s", diff)
		}
		for i := range got {
			if got[i].ID == "" || got[i].ID != again[i].ID || got[i].Receipt == again[i].Receipt {
				t.Errorf("deliveries named %s, %s and %s, %s, want one message and two receipts",
					got[i].ID, got[i].Receipt, again[i].ID, again[i].Receipt)
			}
		}
	})
}

func TestReceiveHidesForWhatWasAsked(t *testing.T) {
	for ask, want := range map[time.Duration]time.Duration{
		0:                       time.Second, // not the queue's own 30s
		-time.Second:            time.Second,
		time.Nanosecond:         time.Second,
		90 * time.Second:        90 * time.Second,
		90*time.Second + 1:      91 * time.Second,
		24 * time.Hour:          12 * time.Hour,
		1500 * time.Millisecond: 2 * time.Second,
	} {
		virtual(t, setup{}, func(t *testing.T, w *world) {
			w.send("a")
			if _, err := w.q.Receive(t.Context(), 1, ask); err != nil {
				t.Fatal(err)
			}
			if got := time.Until(w.Messages("jobs")[0].Due); got != want {
				t.Errorf("Receive(…, %v) hides for %v, want %v", ask, got, want)
			}
		})
	}
}

func TestReceiveBatch(t *testing.T) {
	virtual(t, setup{}, func(t *testing.T, w *world) {
		w.send(slices.Repeat([]string{"a"}, 25)...)
		for _, step := range []struct{ ask, want int }{{1, 1}, {3, 3}, {10, 10}, {50, 10}, {10, 1}} {
			ms, err := w.q.Receive(t.Context(), step.ask, hidden)
			if err != nil || len(ms) != step.want {
				t.Errorf("Receive(%d) = %d messages, %v, want %d", step.ask, len(ms), err, step.want)
			}
		}
		if n := w.requests("ReceiveMessage"); n != 5 {
			t.Errorf("%d requests, want one for each call", n)
		}
	})
}

func TestReceiveWaits(t *testing.T) {
	for poll, want := range map[time.Duration]time.Duration{
		0: 20 * time.Second, 3 * time.Second: 3 * time.Second, time.Minute: 20 * time.Second,
	} {
		virtual(t, setup{cfg: sqsqueue.Config{Poll: poll}}, func(t *testing.T, w *world) {
			start := time.Now()
			if ms := w.receive(); len(ms) != 0 || time.Since(start) != want {
				t.Errorf("Poll %v: nothing came for %v, want %v", poll, time.Since(start), want)
			}
			start = time.Now()
			var sending sync.WaitGroup
			sending.Go(func() {
				time.Sleep(2 * time.Second)
				w.send("a")
			})
			if w.one(); time.Since(start) != 2*time.Second {
				t.Errorf("Poll %v: woke after %v, want 2s", poll, time.Since(start))
			}
			sending.Wait()
		})
	}
}

func TestCancelledReceiveSwallowsNothing(t *testing.T) {
	everywhere(t, setup{}, func(t *testing.T, w *world) {
		start := time.Now()
		ms, err := w.q.Receive(stopping(t.Context(), 5*time.Second), 10, hidden)
		if len(ms) != 0 || !errors.Is(err, context.Canceled) || time.Since(start) != 5*time.Second {
			t.Errorf("Receive = %d messages, %v after %v, want none, cancelled after 5s", len(ms), err, time.Since(start))
		}
		w.send("a")
		w.wantStats(1, 0)
		if m := w.one(); m.Receives != 1 {
			t.Errorf("%d receives, want 1", m.Receives)
		}
	})
}

// A damaged message costs neither itself nor the nine that came with it.
func TestDamagedMessage(t *testing.T) {
	var logged bytes.Buffer
	virtual(t, setup{cfg: sqsqueue.Config{Log: slog.New(slog.NewTextHandler(&logged, nil))}}, func(t *testing.T, w *world) {
		w.inject(func(string, sqssim.Call) sqssim.Fault {
			return sqssim.Fault{Corrupt: func(m sqssim.Message) bool { return m.Body == "3" && m.Receives == 1 }}
		})
		w.send("0", "1", "2", "3", "4", "5", "6", "7", "8", "9")
		start := time.Now()
		got := w.receive()
		if len(got) != 9 || slices.ContainsFunc(got, func(m jobs.Message) bool { return string(m.Body) == "3" }) {
			t.Errorf("Receive returned %d messages, want the nine that are whole", len(got))
		}
		w.wantStats(0, 10)
		m := w.one()
		if string(m.Body) != "3" || m.Receives != 2 {
			t.Errorf("then came %q with %d receives, want 3 with 2", m.Body, m.Receives)
		}
		if took := time.Since(start).Truncate(time.Second); took != 5*time.Second {
			t.Errorf("it came after %v, want 5s", took)
		}
		if got := logged.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, `msg="damaged message put off" message=`+m.ID) {
			t.Errorf("logged %q, want one line about %s", got, m.ID)
		}
	})
}

func TestHide(t *testing.T) {
	everywhere(t, setup{}, func(t *testing.T, w *world) {
		w.send("a")
		m := w.one()
		for ask, want := range map[time.Duration]time.Duration{
			time.Nanosecond:    time.Second,
			59*time.Second + 1: time.Minute,
			time.Minute:        time.Minute,
			3*time.Hour - 1:    3 * time.Hour,
			5 * time.Hour:      5 * time.Hour,
		} {
			if err := w.q.Hide(t.Context(), m, ask); err != nil {
				t.Errorf("Hide(%v) = %v, want nil", ask, err)
			}
			if got := time.Until(w.Messages(w.name)[0].Due).Round(time.Second); got != want {
				t.Errorf("Hide(%v) hides for %v, want %v", ask, got, want)
			}
		}
		if err := w.q.Hide(t.Context(), m, 0); err != nil {
			t.Errorf("Hide(0) = %v, want nil", err)
		}
		w.wantStats(1, 0)
	})
}

// A delivery is over when its time is up, when somebody else has the message,
// and when the message is gone. Only of the first does SQS not always say so.
func TestDeliveryIsOver(t *testing.T) {
	for _, lenient := range []bool{false, true} {
		virtual(t, setup{lenient: lenient}, func(t *testing.T, w *world) {
			check := func(when string, err error, over bool) {
				t.Helper()
				if over != errors.Is(err, worker.ErrGone) || over != (err != nil) {
					t.Errorf("lenient %t, %s: %v, over %t", lenient, when, err, over)
				}
			}
			w.send("a")
			first := w.one()
			time.Sleep(hidden)
			check("Hide of an expired delivery", w.q.Hide(t.Context(), first, hidden), !lenient)
			w.wantStats(1, 0)

			second := w.one()
			check("Hide of a former delivery", w.q.Hide(t.Context(), first, hidden), true)
			check("Release of a former delivery", w.q.Release(t.Context(), first, 0), true)
			check("Ack of a former delivery", w.q.Ack(t.Context(), first), false)
			w.wantStats(0, 1)

			check("Ack", w.q.Ack(t.Context(), second), false)
			w.wantStats(0, 0)
			check("second Ack", w.q.Ack(t.Context(), second), false)
			check("Hide of what is gone", w.q.Hide(t.Context(), second, hidden), true)

			check("Hide of something else", w.q.Hide(t.Context(), jobs.Message{Receipt: "?"}, hidden), true)
			check("Ack of something else", w.q.Ack(t.Context(), jobs.Message{Receipt: "?"}), true)
		})
	}
}

// An Ack that comes late removes the message only where SQS is lenient; it never
// removes what somebody else is working on.
func TestLateAck(t *testing.T) {
	for lenient, left := range map[bool]int{false: 1, true: 0} {
		virtual(t, setup{lenient: lenient}, func(t *testing.T, w *world) {
			w.send("a")
			m := w.one()
			time.Sleep(hidden)
			if err := w.q.Ack(t.Context(), m); err != nil {
				t.Errorf("lenient %t: Ack = %v, want nil", lenient, err)
			}
			w.wantStats(left, 0)
		})
	}
	virtual(t, setup{fifo: true}, func(t *testing.T, w *world) {
		w.send("a")
		m := w.one()
		time.Sleep(hidden)
		if err := w.q.Ack(t.Context(), m); !errors.Is(err, worker.ErrGone) {
			t.Errorf("FIFO: Ack = %v, want ErrGone", err)
		}
	})
}

func TestHideEndsAtTheCeiling(t *testing.T) {
	everywhere(t, setup{}, func(t *testing.T, w *world) {
		w.send("a")
		m := w.one()
		for time.Since(m.Received) < 11*time.Hour+58*time.Minute {
			if err := w.q.Hide(t.Context(), m, hidden); err != nil {
				t.Fatalf("Hide after %v = %v, want nil", time.Since(m.Received), err)
			}
			time.Sleep(time.Minute)
		}
		err := w.q.Hide(t.Context(), m, hidden)
		if !errors.Is(err, worker.ErrGone) || !strings.Contains(err.Error(), "43200") {
			t.Errorf("Hide past the ceiling = %v, want ErrGone and why", err)
		}
		w.wantStats(0, 1)
		if err := w.q.Ack(t.Context(), m); err != nil {
			t.Errorf("Ack = %v, want nil: the delivery goes on until its time is up", err)
		}
		w.wantStats(0, 0)
	})
}

// give is a way of giving back a message that has been received, however often.
type give struct {
	receives, attempts int // of the delivery given back
	delay              time.Duration
	anew               bool
}

func TestRelease(t *testing.T) {
	const allowed = 5 // so that it is sent anew from the third delivery on
	for name, g := range map[string]give{
		"at once":                  {receives: 1},
		"later":                    {receives: 2, delay: 3 * time.Minute},
		"much later":               {receives: 2, delay: 3 * time.Hour},
		"received often":           {receives: 3, anew: true},
		"received often, later":    {receives: 4, delay: 90 * time.Second, anew: true},
		"with an attempt":          {receives: 1, attempts: 1, anew: true},
		"with attempts, later":     {receives: 2, attempts: 7, delay: 1500 * time.Millisecond, anew: true},
		"with attempts, for hours": {receives: 1, attempts: 2, delay: 3 * time.Hour, anew: true},
	} {
		t.Run(name, func(t *testing.T) {
			everywhere(t, setup{maxReceive: allowed}, func(t *testing.T, w *world) {
				fifo := strings.HasSuffix(w.name, ".fifo")
				w.send("a")
				m := w.one()
				for m.Receives < g.receives {
					time.Sleep(hidden)
					m = w.one()
				}
				sent := w.requests("SendMessage")
				m.Attempts += g.attempts
				start := time.Now()
				if err := w.q.Release(t.Context(), m, g.delay); err != nil {
					t.Errorf("Release = %v, want nil", err)
				}
				if anew := w.requests("SendMessage") > sent; anew != g.anew {
					t.Errorf("sent anew: %t, want %t", anew, g.anew)
				}
				if n := len(w.Messages(w.name)); n != 1 {
					t.Fatalf("%d messages, want 1", n)
				}
				var got jobs.Message
				for got.ID == "" {
					for _, m := range w.receive() {
						got = m
					}
				}
				delay := g.delay.Round(time.Second)
				switch {
				case g.anew && fifo:
					delay = 0
				case g.anew:
					delay = min(delay, 15*time.Minute)
				}
				if took := time.Since(start).Truncate(time.Second); took != delay {
					t.Errorf("received after %v, want %v", took, delay)
				}
				want := jobs.Message{Body: []byte("a"), Attempts: g.attempts, Receives: m.Receives + 1}
				if g.anew {
					want.Receives, want.Again = 1, true
				}
				if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(jobs.Message{}, "ID", "First", "Receipt", "Origin", "Sent", "Received")); diff != "" {
					t.Errorf("-want +got:\n%s", diff)
				}
			})
		})
	}
}

// Whatever SQS and the worker allow, a message that is only ever given back is
// never moved away, nor brought near the worker's own limit.
func TestReleaseCostsNothing(t *testing.T) {
	for _, allowed := range []int{1, 2, 3, 5, 100} {
		for fifo, releases := range map[bool]int{false: 1000, true: 100} {
			t.Run(fmt.Sprintf("%d/fifo=%t", allowed, fifo), func(t *testing.T) {
				t.Parallel()
				if testing.Short() {
					releases /= 10
				}
				virtual(t, setup{fifo: fifo, maxReceive: allowed}, func(t *testing.T, w *world) {
					w.send("a")
					for i := range releases {
						m := w.one()
						if m.Receives > max(1, min(allowed, 10)/2+1) || m.Attempts != 0 {
							t.Fatalf("release %d: %d receives and %d attempts", i, m.Receives, m.Attempts)
						}
						if err := w.q.Release(t.Context(), m, 0); err != nil {
							t.Fatalf("Release = %v, want nil", err)
						}
					}
					w.wantStats(1, 0)
					st := w.Stats().Queues
					if n := st[w.dead].In; n != 0 {
						t.Errorf("%d messages moved to the dead-letter queue", n)
					}
					if most := min(allowed, 10)/2 + 1; st[w.name].Sent != 1+releases/most {
						t.Errorf("sent %d times, want %d", st[w.name].Sent, 1+releases/most)
					}
				})
			})
		}
	}
}

// A worker's own limit may be lower than what the queue's policy allows, and the
// other way round.
func TestMaxReceives(t *testing.T) {
	for _, tt := range []struct{ worker, policy, renewAt int }{
		{0, 100, 6}, {4, 100, 3}, {100, 4, 3}, {1, 100, 1}, {20, 20, 11},
	} {
		virtual(t, setup{maxReceive: tt.policy, cfg: sqsqueue.Config{MaxReceives: tt.worker}}, func(t *testing.T, w *world) {
			w.send("a")
			m := w.one()
			for id := m.ID; m.ID == id; {
				if m.Receives > tt.renewAt {
					t.Fatalf("MaxReceives %d, maxReceiveCount %d: delivery %d, want a new message after %d", tt.worker, tt.policy, m.Receives, tt.renewAt)
				}
				last := m.Receives
				if err := w.q.Release(t.Context(), m, 0); err != nil {
					t.Fatal(err)
				}
				if m = w.one(); m.ID != id && last != tt.renewAt {
					t.Errorf("MaxReceives %d, maxReceiveCount %d: sent anew at delivery %d, want %d", tt.worker, tt.policy, last, tt.renewAt)
				}
			}
		})
	}
}

// A message keeps what others wrote on it, binary values and its group included.
func TestReleaseKeepsAttributes(t *testing.T) {
	virtual(t, setup{}, func(t *testing.T, w *world) {
		in := &sqs.SendMessageInput{
			QueueUrl: new(w.q.URL()), MessageBody: new("a"), MessageGroupId: new("tenant-1"),
			MessageAttributes: map[string]types.MessageAttributeValue{
				"who":  {DataType: new("String.name"), StringValue: new("legal")},
				"blob": {DataType: new("Binary"), BinaryValue: []byte{0, 255}},
			},
		}
		if _, err := w.client.SendMessage(t.Context(), in); err != nil {
			t.Fatal(err)
		}
		first := w.Messages("jobs")[0].ID
		for attempts := 1; attempts <= 3; attempts++ {
			m := w.one()
			if anew := attempts > 1; m.Again != anew || (m.First == first) != anew || (m.ID == first) == anew {
				t.Errorf("message %q of the first, %q, again %t: want that it is known from delivery 2 on, and by that alone", m.ID, m.First, m.Again)
			}
			m.Attempts++
			if err := w.q.Release(t.Context(), m, 0); err != nil {
				t.Fatal(err)
			}
			got := w.Messages("jobs")[0]
			want := map[string]sqssim.Attribute{
				"who":             {DataType: "String.name", StringValue: "legal"},
				"blob":            {DataType: "Binary", BinaryValue: []byte{0, 255}},
				"upwell.attempts": {DataType: "Number", StringValue: strconv.Itoa(attempts)},
				"upwell.again":    {DataType: "String", StringValue: first},
			}
			if diff := cmp.Diff(want, got.Attributes); diff != "" || got.Group != "tenant-1" {
				t.Errorf("group %q; -want +got:\n%s", got.Group, diff)
			}
		}
	})
}

// SQS takes ten attributes. A message that comes with more than eight is given
// back, and the error says that the attempts were not carried along.
func TestReleaseWithoutRoomForAttributes(t *testing.T) {
	for n, carried := range map[int]bool{8: true, 9: false, 10: false} {
		virtual(t, setup{}, func(t *testing.T, w *world) {
			in := &sqs.SendMessageInput{
				QueueUrl: new(w.q.URL()), MessageBody: new("a"), MessageAttributes: map[string]types.MessageAttributeValue{},
			}
			for i := range n {
				in.MessageAttributes["a"+strconv.Itoa(i)] = types.MessageAttributeValue{DataType: new("String"), StringValue: new("v")}
			}
			if _, err := w.client.SendMessage(t.Context(), in); err != nil {
				t.Fatal(err)
			}
			m := w.one()
			m.Attempts++
			if err := w.q.Release(t.Context(), m, 0); (err == nil) != carried || errors.Is(err, worker.ErrGone) {
				t.Errorf("with %d attributes: Release = %v, carried %t", n, err, carried)
			}
			if m := w.one(); (m.Attempts == 1) != carried {
				t.Errorf("with %d attributes: %d attempts came back", n, m.Attempts)
			}
		})
	}
}

// When a message cannot be sent anew it is hidden all the same, and the error
// says that the attempts were not carried along.
func TestReleaseThatCannotSend(t *testing.T) {
	everywhere(t, setup{}, func(t *testing.T, w *world) {
		w.send("a")
		m := w.one()
		w.inject(func(op string, _ sqssim.Call) sqssim.Fault {
			if op == "SendMessage" {
				return sqssim.Fault{Err: &sqssim.Error{Code: "InternalFailure", Status: 500}}
			}
			return sqssim.Fault{}
		})
		m.Attempts++
		err := w.q.Release(t.Context(), m, time.Minute)
		if err == nil || !strings.HasPrefix(err.Error(), "sqs send anew: ") || errors.Is(err, worker.ErrGone) {
			t.Errorf("Release = %v, want an error about the sending", err)
		}
		if left := time.Until(w.Messages(w.name)[0].Due); left != time.Minute {
			t.Errorf("hidden for %v, want 1m", left)
		}
		time.Sleep(time.Minute)
		if m := w.one(); m.Receives != 2 || m.Attempts != 0 {
			t.Errorf("%d receives and %d attempts, want 2 and 0", m.Receives, m.Attempts)
		}
	})
}

// The answer to the sending is lost: there are two then, and both say so.
func TestReleaseSentTwice(t *testing.T) {
	everywhere(t, setup{}, func(t *testing.T, w *world) {
		fifo := strings.HasSuffix(w.name, ".fifo")
		w.send("a")
		m := w.one()
		w.inject(func(op string, c sqssim.Call) sqssim.Fault {
			return sqssim.Fault{Apply: true, Drop: op == "SendMessage" && c.N == 1}
		})
		m.Attempts = 3
		if err := w.q.Release(t.Context(), m, 0); err != nil {
			t.Errorf("Release = %v, want nil", err)
		}
		ms := w.receive()
		if want := map[bool]int{false: 2, true: 1}[fifo]; len(ms) != want {
			t.Errorf("%d messages, want %d", len(ms), want)
		}
		for _, m := range ms {
			if !m.Again || m.Attempts != 3 {
				t.Errorf("again %t with %d attempts, want true and 3", m.Again, m.Attempts)
			}
		}
	})
}

// All answers to the sending are lost. The next release carries what it knows, and
// a FIFO queue does not take it for a copy of the first.
func TestReleaseAfterLostAnswers(t *testing.T) {
	everywhere(t, setup{}, func(t *testing.T, w *world) {
		w.send("a")
		m := w.one()
		w.inject(func(op string, c sqssim.Call) sqssim.Fault {
			return sqssim.Fault{Apply: true, Drop: op == "SendMessage" && c.N <= 5}
		})
		m.Attempts = 1
		if err := w.q.Release(t.Context(), m, time.Minute); err == nil {
			t.Error("Release = nil, want an error")
		}
		time.Sleep(time.Minute)
		for _, old := range w.receive() {
			if old.ID == m.ID {
				old.Attempts = 2
				if err := w.q.Release(t.Context(), old, 0); err != nil {
					t.Errorf("second Release = %v, want nil", err)
				}
			}
		}
		most := ""
		for _, m := range w.Messages(w.name) {
			most = max(most, m.Attributes["upwell.attempts"].StringValue)
		}
		if most != "2" {
			t.Errorf("%s attempts carried along, want 2", most)
		}
	})
}

// Every fault of the operations that a worker depends on, in both forms: it did
// not happen, and it happened and the answer was lost.
func TestFaultsAreOutlived(t *testing.T) {
	ops := map[string]func(w *world, m jobs.Message) error{
		"DeleteMessageBatch":           func(w *world, m jobs.Message) error { return w.q.Ack(w.Context(), m) },
		"ChangeMessageVisibilityBatch": func(w *world, m jobs.Message) error { return w.q.Hide(w.Context(), m, time.Hour) },
		"SendMessage":                  func(w *world, m jobs.Message) error { return w.q.Bury(w.Context(), m, jobs.DeadLetter{}) },
		"ReceiveMessage": func(w *world, _ jobs.Message) error {
			w.send("b")
			for {
				ms, err := w.q.Receive(w.Context(), 10, hidden)
				if len(ms) > 0 || err != nil {
					return err
				}
			}
		},
		"GetQueueAttributes": func(w *world, _ jobs.Message) error {
			_, err := w.q.Empty(w.Context())
			return err
		},
	}
	done := map[string]func(w *world) bool{
		"DeleteMessageBatch":           func(w *world) bool { return len(w.Messages("jobs")) == 0 },
		"ChangeMessageVisibilityBatch": func(w *world) bool { return time.Until(w.Messages("jobs")[0].Due) > 50*time.Minute },
		"SendMessage":                  func(w *world) bool { return len(w.Messages("dead")) >= 1 },
		"ReceiveMessage":               func(w *world) bool { return w.Stats().Queues["jobs"].InFlight == 2 },
		"GetQueueAttributes":           func(*world) bool { return true },
	}
	for name, fault := range map[string]sqssim.Fault{
		"outage":    {Err: &sqssim.Error{Code: "InternalFailure", Status: 500}},
		"throttled": {Err: &sqssim.Error{Code: "RequestThrottled"}},
		"dropped":   {Drop: true},
	} {
		for op, do := range ops {
			for _, apply := range []bool{false, true} {
				t.Run(name+"/"+op+"/"+strconv.FormatBool(apply), func(t *testing.T) {
					virtual(t, setup{}, func(t *testing.T, w *world) {
						w.send("a")
						m := w.one()
						left := 3
						w.inject(func(got string, _ sqssim.Call) sqssim.Fault {
							if got != op || left == 0 {
								return sqssim.Fault{}
							}
							left--
							f := fault
							f.Apply = apply
							return f
						})
						if err := do(w, m); err != nil || left != 0 {
							t.Errorf("%v with %d faults left, want nil and none", err, left)
						}
						if !done[op](w) {
							t.Errorf("not done: %+v", w.Stats())
						}
					})
				})
			}
		}
	}
}
