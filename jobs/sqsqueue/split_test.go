package sqsqueue_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"upwell/jobs/sqsqueue/sqssim"
)

// sendWith queues a message with attributes of others.
func (w *world) sendWith(body string, names ...string) {
	w.Helper()
	in := &sqs.SendMessageInput{QueueUrl: new(w.q.URL()), MessageBody: &body, MessageAttributes: make(map[string]types.MessageAttributeValue)}
	for _, name := range names {
		in.MessageAttributes[name] = types.MessageAttributeValue{DataType: new("String"), StringValue: new(name + "'s")}
	}
	if strings.HasSuffix(w.q.URL(), ".fifo") {
		in.MessageGroupId, in.MessageDeduplicationId = new("the-group"), new("once")
	}
	if _, err := w.client.SendMessage(w.Context(), in); err != nil {
		w.Fatal(err)
	}
}

func bodies(n int) (list [][]byte) {
	for i := range n {
		list = append(list, fmt.Appendf(nil, "part %02d", i))
	}
	return list
}

// TestSplit wants the parts queued before the message goes, marked, and with what
// came with it.
func TestSplit(t *testing.T) {
	everywhere(t, setup{}, func(t *testing.T, w *world) {
		names := []string{"a", "b", "c", "d", "e", "f", "g", "h", "i", "traceparent"} // as many as SQS takes
		w.sendWith("whole", names...)
		m := w.receive()[0]
		before := w.requests("SendMessageBatch")
		if err := w.q.Split(t.Context(), m, bodies(23)); err != nil {
			t.Fatal(err)
		}
		if n := w.requests("SendMessageBatch") - before; n != 3 {
			t.Errorf("%d requests for 23 parts, want 3", n)
		}
		var got []string
		for _, q := range w.Messages(w.name) {
			if q.Body == "whole" {
				continue
			}
			got = append(got, q.Body)
			a := q.Attributes
			if a["upwell.again"].StringValue != "1" || a["a"].StringValue != "a's" || len(a) != 10 {
				t.Errorf("%s has the attributes %v, want it marked, and nine that came with the message", q.Body, a)
			}
			if w.isFIFO() && q.Group != "the-group" {
				t.Errorf("%s is of group %q, want that of the message", q.Body, q.Group)
			}
		}
		slices.Sort(got)
		if len(got) != 23 || got[22] != "part 22" {
			t.Errorf("queued are %q, want the 23 parts", got)
		}
		if err := w.q.Ack(t.Context(), m); err != nil || len(w.Messages(w.name)) != 23 {
			t.Errorf("Ack = %v, and %d messages are left, want 23", err, len(w.Messages(w.name)))
		}
	})
}

func (w *world) isFIFO() bool { return strings.HasSuffix(w.name, ".fifo") }

// TestSplitTwice is a worker that is killed between the two steps. A FIFO queue has no
// part twice, and any other has them marked.
func TestSplitTwice(t *testing.T) {
	everywhere(t, setup{}, func(t *testing.T, w *world) {
		w.sendWith("whole", "a")
		m := w.receive()[0]
		for range 2 {
			if err := w.q.Split(t.Context(), m, bodies(3)); err != nil {
				t.Fatal(err)
			}
		}
		want := 1 + 6
		if w.isFIFO() {
			want = 1 + 3
		}
		if got := len(w.Messages(w.name)); got != want {
			t.Errorf("%d messages after splitting into 3 twice, want %d", got, want)
		}
	})
}

// TestSplitFails has SQS refuse a part, or break down. The message stays.
func TestSplitFails(t *testing.T) {
	everywhere(t, setup{}, func(t *testing.T, w *world) {
		w.sendWith("whole")
		m := w.receive()[0]
		w.inject(func(op string, _ sqssim.Call) sqssim.Fault {
			if op == "SendMessageBatch" {
				return sqssim.Fault{Err: &sqssim.Error{Code: "ServiceUnavailable", Status: 503}}
			}
			return sqssim.Fault{}
		})
		if err := w.q.Split(t.Context(), m, bodies(3)); err == nil {
			t.Error("Split = nil while SQS is out of order")
		}
		w.inject(nil)
		if err := w.q.Split(t.Context(), m, [][]byte{[]byte("fine"), {0x01}}); err == nil {
			t.Error("Split = nil with a part that SQS does not take")
		}
		if ms := w.Messages(w.name); !slices.ContainsFunc(ms, func(q sqssim.Message) bool { return q.Body == "whole" }) {
			t.Errorf("queued are %v, want the message among them", ms)
		}
	})
}
