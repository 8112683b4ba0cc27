package sqssim_test

import (
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"upwell/jobs/sqsqueue/sqssim"
)

// put sends messages named group:text to a FIFO queue.
func (w *world) put(url string, bodies ...string) (last *sqs.SendMessageOutput) {
	w.Helper()
	for _, b := range bodies {
		group, _, _ := strings.Cut(b, ":")
		out, err := w.c.SendMessage(w.Context(), &sqs.SendMessageInput{QueueUrl: &url, MessageBody: &b, MessageGroupId: &group})
		if err != nil {
			w.Fatal(err)
		}
		last = out
	}
	return last
}

func (w *world) want(url string, want string, opts ...receiveOption) []types.Message {
	w.Helper()
	ms := w.receive(url, append(opts, upTo(10))...)
	if got := strings.Join(bodies(ms), " "); got != want {
		w.Fatalf("received %q, want %q", got, want)
	}
	return ms
}

func fifo(t *testing.T, f func(t *testing.T, w *world, q string)) {
	t.Helper()
	virtual(t, sqssim.Config{Shuffle: true}, func(t *testing.T, w *world) {
		f(t, w, w.create("q.fifo", attrs{"FifoQueue": "true", "ContentBasedDeduplication": "true"}))
		w.balance()
	})
}

func TestGroups(t *testing.T) {
	fifo(t, func(_ *testing.T, w *world, q string) {
		w.put(q, "a:1", "b:1", "a:2", "a:3")
		w.want(q, "a:1 a:2 a:3 b:1", hide(5))
		w.put(q, "a:4", "c:1")
		w.want(q, "c:1", hide(60)) // a waits for what is in flight
		time.Sleep(5 * time.Second)
		ms := w.want(q, "a:1 a:2 a:3 a:4 b:1")

		// What was released is delivered, what is behind it in flight is not.
		w.check(w.change(q, ms[0].ReceiptHandle, 0))
		again := w.want(q, "a:1")

		// A group moves on when its first message is gone.
		w.check(w.delete(q, ms[1].ReceiptHandle))
		w.check(w.delete(q, ms[2].ReceiptHandle))
		w.put(q, "a:5")
		w.want(q, "")
		w.check(w.change(q, ms[3].ReceiptHandle, 0))
		w.want(q, "")
		w.check(w.delete(q, again[0].ReceiptHandle))
		w.want(q, "a:4 a:5")
	})
}

func TestGroupWakesReceivers(t *testing.T) {
	fifo(t, func(t *testing.T, w *world, q string) {
		w.put(q, "a:1")
		m := w.one(q)
		w.put(q, "a:2")
		var wg sync.WaitGroup
		start := time.Now()
		wg.Go(func() {
			w.want(q, "a:2", wait(20))
			if got := time.Since(start); got != 3*time.Second {
				t.Errorf("waited %v, want 3s", got)
			}
		})
		time.Sleep(3 * time.Second)
		w.check(w.delete(q, m.ReceiptHandle))
		wg.Wait()
	})
}

func TestFIFOReceipts(t *testing.T) {
	fifo(t, func(t *testing.T, w *world, q string) {
		w.put(q, "a:1")
		old := w.one(q, hide(1))
		time.Sleep(time.Second)
		err := w.delete(q, old.ReceiptHandle)
		wantCode(t, err, "InvalidParameterValue")
		if !strings.Contains(err.Error(), "The receipt handle has expired.") {
			t.Errorf("text is %v", err)
		}
		m := w.one(q)
		wantCode(t, w.delete(q, old.ReceiptHandle), "InvalidParameterValue")
		w.check(w.delete(q, m.ReceiptHandle))
		w.check(w.delete(q, m.ReceiptHandle))
	})
}

func TestDeduplication(t *testing.T) {
	fifo(t, func(t *testing.T, w *world, q string) {
		first := w.put(q, "a:1")
		time.Sleep(5*time.Minute - time.Nanosecond)
		again := w.put(q, "a:1")
		if *first.MessageId != *again.MessageId || *first.SequenceNumber != *again.SequenceNumber {
			t.Errorf("duplicate is %s %s, want %s %s", *again.MessageId, *again.SequenceNumber, *first.MessageId, *first.SequenceNumber)
		}
		// The id is remembered beyond the message.
		w.check(w.delete(q, w.one(q).ReceiptHandle))
		w.put(q, "a:1")
		w.none(q)
		time.Sleep(time.Nanosecond)
		next := w.put(q, "a:1")
		if *next.MessageId == *first.MessageId || *next.SequenceNumber <= *first.SequenceNumber {
			t.Errorf("sent after the window: %s %s, want a new message", *next.MessageId, *next.SequenceNumber)
		}
		m := w.one(q)
		if m.Attributes["SequenceNumber"] != *next.SequenceNumber || m.Attributes["MessageGroupId"] != "a" ||
			len(m.Attributes["MessageDeduplicationId"]) != 64 {
			t.Errorf("attributes = %v", m.Attributes)
		}

		send := func(group, id string) {
			_, err := w.c.SendMessage(t.Context(), &sqs.SendMessageInput{
				QueueUrl: &q, MessageBody: new(group + ":" + id), MessageGroupId: &group, MessageDeduplicationId: &id,
			})
			w.check(err)
		}
		before := w.Stats().Queues["q.fifo"].Sent
		send("b", "id")
		send("c", "id")
		if got := w.Stats().Queues["q.fifo"].Sent - before; got != 1 {
			t.Errorf("one id in two groups: %d sent, want 1", got)
		}
		w.check(w.set(q, attrs{"DeduplicationScope": "messageGroup", "FifoThroughputLimit": "perMessageGroupId"}))
		send("d", "id")
		send("e", "id")
		send("e", "id")
		if got := w.Stats().Queues["q.fifo"].Sent - before; got != 3 {
			t.Errorf("by group: %d sent, want 3", got)
		}
	})
}

func TestFIFOBatchIsRefusedWhole(t *testing.T) {
	fifo(t, func(t *testing.T, w *world, q string) {
		_, err := w.c.SendMessageBatch(t.Context(), &sqs.SendMessageBatchInput{
			QueueUrl: &q, Entries: []types.SendMessageBatchRequestEntry{
				{Id: new("a"), MessageBody: new("a"), MessageGroupId: new("g")},
				{Id: new("b"), MessageBody: new("b")},
			},
		})
		wantCode(t, err, "InvalidParameterValue")
		if n := len(w.Messages("q.fifo")); n != 0 {
			t.Errorf("%d messages, want 0", n)
		}
	})
}

func TestFIFOQueueDelay(t *testing.T) {
	virtual(t, sqssim.Config{}, func(t *testing.T, w *world) {
		q := w.create("q.fifo", attrs{"FifoQueue": "true", "ContentBasedDeduplication": "true", "DelaySeconds": "5"})
		w.put(q, "a:1")
		start := time.Now()
		w.want(q, "a:1", wait(20))
		if got := time.Since(start); got != 5*time.Second {
			t.Errorf("waited %v, want 5s", got)
		}
	})
}

func TestReceiveAttempt(t *testing.T) {
	fifo(t, func(t *testing.T, w *world, q string) {
		w.put(q, "a:1", "b:1", "c:1")
		attempt := func(id string, n int32) []types.Message {
			return w.receive(q, upTo(n), hide(60), func(in *sqs.ReceiveMessageInput) { in.ReceiveRequestAttemptId = &id })
		}
		first := attempt("x", 2)
		time.Sleep(50 * time.Second)
		again := attempt("x", 2)
		if !slices.Equal(bodies(first), bodies(again)) || *first[0].ReceiptHandle != *again[0].ReceiptHandle {
			t.Fatalf("second attempt received %q, want %q with the same receipts", bodies(again), bodies(first))
		}
		if got := w.Stats().Queues["q.fifo"].Received; got != 2 {
			t.Errorf("received %d, want 2: an attempt is one receive", got)
		}
		// The timeout began again.
		time.Sleep(59 * time.Second)
		w.want(q, "c:1")

		// A changed message ends it.
		w.check(w.change(q, first[0].ReceiptHandle, 60))
		if got := attempt("x", 2); len(got) != 0 {
			t.Errorf("attempt after a change received %q, want nothing", bodies(got))
		}
	})
}

func TestFIFORedrive(t *testing.T) {
	virtual(t, sqssim.Config{}, func(t *testing.T, w *world) {
		dlq := w.create("d.fifo", attrs{"FifoQueue": "true"})
		q := w.create("q.fifo", attrs{
			"FifoQueue": "true", "ContentBasedDeduplication": "true",
			"RedrivePolicy": `{"deadLetterTargetArn":"` + arn + `d.fifo","maxReceiveCount":1}`,
		})
		w.put(q, "a:1", "a:2")
		w.one(q)
		time.Sleep(30 * time.Second)
		w.want(q, "a:2") // in the receive that moves a:1 out of the way
		if m := w.one(dlq); *m.Body != "a:1" || m.Attributes["MessageGroupId"] != "a" {
			t.Errorf("dead letter is %s of group %s", *m.Body, m.Attributes["MessageGroupId"])
		}
		w.balance()
	})
}

func TestManyReceiversKeepOrder(t *testing.T) {
	fifo(t, func(t *testing.T, w *world, q string) {
		var (
			mu  sync.Mutex
			got = map[string][]string{}
			wg  sync.WaitGroup
		)
		for range 8 {
			wg.Go(func() {
				for {
					ms := w.receive(q, upTo(3), wait(20))
					if len(ms) == 0 {
						return
					}
					for _, m := range ms {
						group, n, _ := strings.Cut(*m.Body, ":")
						mu.Lock()
						got[group] = append(got[group], n)
						mu.Unlock()
						time.Sleep(time.Second)
						if err := w.delete(q, m.ReceiptHandle); err != nil {
							t.Error(err)
						}
					}
				}
			})
		}
		synctest.Wait()
		for _, n := range []string{"1", "2", "3", "4", "5", "6", "7"} {
			w.put(q, "a:"+n, "b:"+n, "c:"+n)
		}
		wg.Wait()
		for _, group := range []string{"a", "b", "c"} {
			if s := strings.Join(got[group], ""); s != "1234567" {
				t.Errorf("group %s arrived as %s", group, s)
			}
		}
	})
}
