package sqssim_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/aws/smithy-go"

	"upwell/jobs/sqsqueue/sqssim"
)

// Each fault in both forms, on each operation that settles a message.
func TestFaults(t *testing.T) {
	throttled := &sqssim.Error{Code: "RequestThrottled", Message: "Slow down."}
	faults := []struct {
		name  string
		fault sqssim.Fault
		check func(t *testing.T, err error)
	}{
		{"throttled", sqssim.Fault{Err: throttled}, wantType[*types.RequestThrottled]},
		{"outage", sqssim.Fault{Err: &sqssim.Error{Code: "InternalFailure", Status: 500}}, func(t *testing.T, err error) {
			wantCode(t, err, "InternalFailure")
			if e, _ := errors.AsType[smithy.APIError](err); e == nil || e.ErrorFault() != smithy.FaultServer {
				t.Errorf("%v is not the server's fault", err)
			}
		}},
		{"dropped", sqssim.Fault{Drop: true}, func(t *testing.T, err error) {
			if _, ok := errors.AsType[smithy.APIError](err); err == nil || ok {
				t.Errorf("error is %v, want a broken connection", err)
			}
		}},
	}
	ops := []struct {
		name    string
		do      func(w *world, q string, receipt *string) error
		applied func(sqssim.QueueStats) bool
	}{
		{"SendMessage", func(w *world, q string, _ *string) error {
			_, err := w.c.SendMessage(w.Context(), &sqs.SendMessageInput{QueueUrl: &q, MessageBody: new("b")})
			return err
		}, func(s sqssim.QueueStats) bool { return s.Sent == 2 }},
		{"ReceiveMessage", func(w *world, q string, _ *string) error {
			_, err := w.c.ReceiveMessage(w.Context(), &sqs.ReceiveMessageInput{QueueUrl: &q, WaitTimeSeconds: 20})
			return err
		}, func(s sqssim.QueueStats) bool { return s.Received == 2 }},
		{"ChangeMessageVisibility", func(w *world, q string, receipt *string) error {
			return w.change(q, receipt, 0)
		}, func(s sqssim.QueueStats) bool { return s.Visible == 1 }},
		{"DeleteMessage", func(w *world, q string, receipt *string) error {
			return w.delete(q, receipt)
		}, func(s sqssim.QueueStats) bool { return s.Deleted == 1 }},
	}
	for _, f := range faults {
		for _, op := range ops {
			for _, apply := range []bool{false, true} {
				name := f.name + "/" + op.name
				if apply {
					name += "/applied"
				}
				t.Run(name, func(t *testing.T) {
					armed := false
					cfg := sqssim.Config{Fault: func(name string, _ sqssim.Call) sqssim.Fault {
						if !armed || name != op.name {
							return sqssim.Fault{}
						}
						fault := f.fault
						fault.Apply = apply
						return fault
					}}
					virtual(t, cfg, func(t *testing.T, w *world) {
						q := w.create("q", attrs{"VisibilityTimeout": "10"})
						w.send(q, "a")
						m := w.one(q)
						armed = true
						f.check(t, op.do(w, q, m.ReceiptHandle))
						if got := op.applied(w.Stats().Queues["q"]); got != apply {
							t.Errorf("applied: %t, want %t", got, apply)
						}
						w.balance()
					})
				})
			}
		}
	}
}

func TestFaultySDKRetry(t *testing.T) {
	s := sqssim.New(sqssim.Config{Fault: func(op string, c sqssim.Call) sqssim.Fault {
		return sqssim.Fault{Apply: true, Drop: op == "SendMessage" && c.N == 1}
	}})
	w := &world{t, s, newClient("http://sqs.test", s)}
	q := w.create("q", nil)
	retrying := sqs.New(w.c.Options(), func(o *sqs.Options) { o.Retryer = retry.NewStandard() })
	_, err := retrying.SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: &q, MessageBody: new("a")})
	w.check(err)
	if n := len(w.Messages("q")); n != 2 {
		t.Errorf("%d messages after a lost answer and a retry, want 2", n)
	}
}

func TestFailEntry(t *testing.T) {
	for _, apply := range []bool{false, true} {
		cfg := sqssim.Config{Fault: func(op string, _ sqssim.Call) sqssim.Fault {
			if !strings.HasSuffix(op, "Batch") {
				return sqssim.Fault{}
			}
			return sqssim.Fault{Apply: apply, FailEntry: func(e sqssim.Entry) *sqssim.Error {
				if e.Body != "b" {
					return nil
				}
				return &sqssim.Error{Code: "InternalError", Message: "id " + e.ID, Status: 500}
			}}
		}}
		virtual(t, cfg, func(t *testing.T, w *world) {
			ctx := t.Context()
			q := w.create("q", nil)
			sent, err := w.c.SendMessageBatch(ctx, &sqs.SendMessageBatchInput{
				QueueUrl: &q, Entries: []types.SendMessageBatchRequestEntry{
					{Id: new("0"), MessageBody: new("a")}, {Id: new("1"), MessageBody: new("b")},
				},
			})
			w.check(err)
			if len(sent.Successful) != 1 || len(sent.Failed) != 1 || *sent.Failed[0].Code != "InternalError" ||
				sent.Failed[0].SenderFault || *sent.Failed[0].Message != "id 1" {
				t.Errorf("SendMessageBatch = %+v", sent)
			}
			if n := len(w.Messages("q")); n != map[bool]int{false: 1, true: 2}[apply] {
				t.Errorf("apply=%t: %d messages", apply, n)
			}
			if !apply {
				w.send(q, "b")
			}
			ms := w.receive(q, upTo(10))
			del := &sqs.DeleteMessageBatchInput{QueueUrl: &q}
			for i, m := range ms {
				del.Entries = append(del.Entries, types.DeleteMessageBatchRequestEntry{
					Id: new(string(rune('x' + i))), ReceiptHandle: m.ReceiptHandle,
				})
			}
			deleted, err := w.c.DeleteMessageBatch(ctx, del)
			w.check(err)
			if len(deleted.Successful) != 1 || len(deleted.Failed) != 1 || *deleted.Failed[0].Id != "y" {
				t.Errorf("DeleteMessageBatch = %+v", deleted)
			}
			if n := len(w.Messages("q")); n != map[bool]int{false: 1, true: 0}[apply] {
				t.Errorf("apply=%t: %d messages left", apply, n)
			}
		})
	}
}

func TestCorrupt(t *testing.T) {
	w := newWorld(t, sqssim.Config{Fault: func(string, sqssim.Call) sqssim.Fault {
		return sqssim.Fault{Corrupt: func(m sqssim.Message) bool { return m.Body == "b" && m.Receives == 1 }}
	}})
	q := w.create("q", attrs{"VisibilityTimeout": "0"})
	w.send(q, "a", "b", "c")
	in := &sqs.ReceiveMessageInput{QueueUrl: &q, MaxNumberOfMessages: 10}
	_, err := w.c.ReceiveMessage(t.Context(), in)
	if err == nil || !strings.Contains(err.Error(), "invalid checksum") {
		t.Errorf("ReceiveMessage = %v, want a checksum error", err)
	}
	out, err := w.c.ReceiveMessage(t.Context(), in)
	if err != nil || len(out.Messages) != 3 {
		t.Errorf("second receive = %v, %v, want all three", out, err)
	}
}

func TestCall(t *testing.T) {
	var calls []sqssim.Call
	w := newWorld(t, sqssim.Config{Fault: func(op string, c sqssim.Call) sqssim.Fault {
		if op == "DeleteMessage" || op == "CreateQueue" {
			calls = append(calls, c)
		}
		return sqssim.Fault{}
	}})
	q := w.create("q", nil)
	w.send(q, "a")
	m := w.one(q)
	w.check(w.delete(q, m.ReceiptHandle))
	w.check(w.delete(q, m.ReceiptHandle))
	if len(calls) != 3 || calls[0].Queue != "q" || calls[0].Entries != nil ||
		calls[1].N != 1 || calls[1].Queue != "q" || calls[1].Entries[0] != (sqssim.Entry{Body: "a"}) ||
		calls[2].N != 2 || calls[2].Entries[0] != (sqssim.Entry{}) {
		t.Errorf("calls = %+v", calls)
	}
}

func TestLatency(t *testing.T) {
	virtual(t, sqssim.Config{Latency: 20 * time.Millisecond, Fault: func(op string, _ sqssim.Call) sqssim.Fault {
		if op == "DeleteMessage" {
			return sqssim.Fault{Delay: time.Minute}
		}
		return sqssim.Fault{}
	}}, func(t *testing.T, w *world) {
		q := w.create("q", nil)
		start := time.Now()
		w.none(q, wait(5))
		if got := time.Since(start); got != 5020*time.Millisecond {
			t.Errorf("empty long poll took %v, want 5.02s", got)
		}
		start = time.Now()
		w.send(q, "a")
		m := w.one(q)
		if got := time.Since(start); got != 40*time.Millisecond {
			t.Errorf("send and receive took %v, want 40ms", got)
		}

		// A request whose client has gone before it arrives has no effect.
		ctx, cancel := context.WithTimeout(t.Context(), 19*time.Millisecond)
		defer cancel()
		_, err := w.c.SendMessage(ctx, &sqs.SendMessageInput{QueueUrl: &q, MessageBody: new("b")})
		if !errors.Is(err, context.DeadlineExceeded) || len(w.Messages("q")) != 1 {
			t.Errorf("SendMessage = %v and %d messages, want a timeout and 1", err, len(w.Messages("q")))
		}

		// A delayed answer is of an operation that took effect at once.
		start = time.Now()
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := w.delete(q, m.ReceiptHandle); err != nil {
				t.Error(err)
			}
			if got := time.Since(start); got != time.Minute+20*time.Millisecond {
				t.Errorf("delete took %v, want 1m0.02s", got)
			}
		})
		time.Sleep(30 * time.Millisecond)
		if n := len(w.Messages("q")); n != 0 {
			t.Errorf("%d messages while the answer is held back, want 0", n)
		}
		wg.Wait()
	})
}

// A real connection is dropped without a trace of an answer.
func TestDroppedConnection(t *testing.T) {
	s := sqssim.New(sqssim.Config{Fault: func(op string, _ sqssim.Call) sqssim.Fault {
		return sqssim.Fault{Apply: true, Drop: op == "SendMessage"}
	}})
	srv := httptest.NewServer(s)
	defer srv.Close()
	w := &world{t, s, newClient(srv.URL, http.DefaultTransport)}
	q := w.create("q", nil)
	if want := srv.URL + "/000000000000/q"; q != want {
		t.Errorf("QueueUrl = %s, want %s", q, want)
	}
	_, err := w.c.SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: &q, MessageBody: new("a")})
	if err == nil {
		t.Error("SendMessage succeeded on a dropped connection")
	}
	if got := *w.one(q).Body; got != "a" {
		t.Errorf("received %q, want a", got)
	}
}

// A poller that hangs up on a real connection does not take what comes later.
func TestHangUp(t *testing.T) {
	s := sqssim.New(sqssim.Config{})
	srv := httptest.NewServer(s)
	defer srv.Close()
	w := &world{t, s, newClient(srv.URL, http.DefaultTransport)}
	q := w.create("q", nil)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		err := error(nil)
		for err == nil { // a poll is over after 20s, which may pass before anybody looks
			_, err = w.c.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{QueueUrl: &q, WaitTimeSeconds: 20})
		}
		if !errors.Is(err, context.Canceled) {
			t.Errorf("ReceiveMessage = %v, want it canceled", err)
		}
	})
	waiting := func(n int) {
		const patience = 5 * time.Minute // for a machine that has much else to do
		for end := time.Now().Add(patience); s.Stats().Queues["q"].Waiting != n; {
			if time.Now().After(end) {
				t.Fatalf("never saw %d waiting in %v", n, patience)
			}
			<-time.After(10 * time.Millisecond)
		}
	}
	waiting(1)
	cancel()
	wg.Wait()
	waiting(0)
	w.send(q, "a")
	w.one(q)
}
