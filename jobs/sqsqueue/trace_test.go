package sqsqueue_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"upwell/jobs"
	"upwell/jobs/sqsqueue"
	"upwell/jobs/sqsqueue/sqssim"
)

const (
	parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	state  = "vendor=opaque,tenant@system=1"
	header = "Root=1-0af76519-16cd43dd8448eb211c80319c;Parent=b7ad6b7169203331;Sampled=1"
	other  = "Root=1-11111111-222222222222222222222222;Parent=3333333333333333;Sampled=0;Lineage=a87bd80c:1"
)

// submitted is what a message that is traced says.
var submitted = carried{parent, state, header}

// A carried is what a message carries of a trace.
type carried struct{ parent, state, header string }

func carriedBy(m sqssim.Message) carried {
	return carried{m.Attributes["traceparent"].StringValue, m.Attributes["tracestate"].StringValue, m.TraceHeader}
}

// sendTraced queues a message by the hands of somebody else, with that many attributes
// beside those of the trace.
func (w *world) sendTraced(body string, c carried, others int) {
	w.Helper()
	in := &sqs.SendMessageInput{QueueUrl: new(w.q.URL()), MessageBody: &body, MessageAttributes: make(map[string]types.MessageAttributeValue)}
	text := func(s string) types.MessageAttributeValue {
		return types.MessageAttributeValue{DataType: new("String"), StringValue: &s}
	}
	for i := range others {
		in.MessageAttributes[fmt.Sprint("z", i)] = text("x")
	}
	if c.parent != "" {
		in.MessageAttributes["traceparent"] = text(c.parent)
	}
	if c.state != "" {
		in.MessageAttributes["tracestate"] = text(c.state)
	}
	if c.header != "" {
		in.MessageSystemAttributes = map[string]types.MessageSystemAttributeValue{"AWSTraceHeader": {DataType: new("String"), StringValue: &c.header}}
	}
	if w.isFIFO() {
		in.MessageGroupId, in.MessageDeduplicationId = new("the-group"), &body
	}
	if _, err := w.client.SendMessage(w.Context(), in); err != nil {
		w.Fatal(err)
	}
}

func TestTraceIsSentAndReceived(t *testing.T) {
	everywhere(t, setup{}, func(t *testing.T, w *world) {
		want := jobs.Trace{Parent: parent, State: state}
		if err := w.q.Send(t.Context(), []sqsqueue.Outgoing{{Body: []byte("a"), Trace: want}, {Body: []byte("b")}}); err != nil {
			t.Fatal(err)
		}
		for _, m := range w.Messages(w.name) {
			if m.Body == "a" {
				if got := carriedBy(m); got != submitted || len(m.Attributes) != 2 {
					t.Errorf("queued with %+v, want %+v", got, submitted)
				}
			} else if len(m.Attributes) != 0 || m.TraceHeader != "" {
				t.Errorf("without a trace, the message has the attributes %v and the header %q", m.Attributes, m.TraceHeader)
			}
		}
		for _, m := range w.receive() {
			if string(m.Body) == "b" {
				want = jobs.Trace{}
			}
			if m.Trace != want {
				t.Errorf("%s received with %+v, want %+v", m.Body, m.Trace, want)
			}
		}
	})
}

// TestTraceLeavesDeduplicationAlone submits a job twice, in two traces.
func TestTraceLeavesDeduplicationAlone(t *testing.T) {
	virtual(t, setup{fifo: true}, func(t *testing.T, w *world) {
		for _, span := range []string{"1", "2"} {
			trace := jobs.Trace{Parent: parent[:36] + strings.Repeat(span, 16) + "-01"}
			if err := w.q.Send(t.Context(), []sqsqueue.Outgoing{{Body: []byte("a"), Trace: trace}}); err != nil {
				t.Fatal(err)
			}
		}
		if n := len(w.Messages(w.name)); n != 1 {
			t.Errorf("%d messages, want 1", n)
		}
	})
}

func TestTraceReceived(t *testing.T) {
	for _, tt := range []struct {
		name string
		sent carried
		want jobs.Trace
	}{
		{"none", carried{}, jobs.Trace{}},
		{"W3C", carried{parent: parent, state: state}, jobs.Trace{Parent: parent, State: state}},
		{"X-Ray", carried{header: header}, jobs.Trace{Parent: parent}},
		{"both", carried{parent, "", other}, jobs.Trace{Parent: parent}},
		{"X-Ray without a parent", carried{header: "Root=1-0af76519-16cd43dd8448eb211c80319c"}, jobs.Trace{}},
		{"X-Ray that leaves it open", carried{header: "Root=1-0af76519-16cd43dd8448eb211c80319c;Parent=b7ad6b7169203331;Sampled=?"}, jobs.Trace{Parent: parent}},
		{"X-Ray that is not sampled", carried{header: other}, jobs.Trace{Parent: "00-11111111222222222222222222222222-3333333333333333-00"}},
		{"malformed W3C and X-Ray", carried{"00-x", state, header}, jobs.Trace{Parent: parent}},
		{"malformed state", carried{parent, "no state", ""}, jobs.Trace{Parent: parent}},
		{"all malformed", carried{"00-" + parent, state, "Root=0"}, jobs.Trace{}},
		{"zero", carried{"00-00000000000000000000000000000000-b7ad6b7169203331-01", "", ""}, jobs.Trace{}},
		{"a version to come", carried{"01" + parent[2:] + "-more", "", ""}, jobs.Trace{Parent: parent}},
		{"a flag to come", carried{parent[:53] + "ff", "", ""}, jobs.Trace{Parent: parent[:53] + "03"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			virtual(t, setup{}, func(t *testing.T, w *world) {
				w.sendTraced("a", tt.sent, 0)
				if got := w.one().Trace; got != tt.want {
					t.Errorf("trace %+v, want %+v", got, tt.want)
				}
			})
		})
	}
}

// anew has the message sent again, in each way that there is, and returns what the new
// one is like.
var anew = map[string]func(*testing.T, *world) sqssim.Message{
	"release": func(t *testing.T, w *world) sqssim.Message {
		t.Helper()
		m := w.one()
		m.Attempts++ // to be carried
		if err := w.q.Release(t.Context(), m, 0); err != nil {
			t.Fatal(err)
		}
		return w.Messages(w.name)[0]
	},
	"split": func(t *testing.T, w *world) sqssim.Message {
		t.Helper()
		if err := w.q.Split(t.Context(), w.one(), [][]byte{[]byte("part")}); err != nil {
			t.Fatal(err)
		}
		ms := w.Messages(w.name)
		return ms[slices.IndexFunc(ms, func(m sqssim.Message) bool { return m.Body == "part" })]
	},
	"bury": func(t *testing.T, w *world) sqssim.Message {
		t.Helper()
		if err := w.q.Bury(t.Context(), w.one(), letterOf("a")); err != nil {
			t.Fatal(err)
		}
		return w.Messages(w.dead)[0]
	},
	"redrive": func(t *testing.T, w *world) sqssim.Message {
		t.Helper()
		m := w.one()
		if err := w.q.Bury(t.Context(), m, letterOf("a")); err != nil {
			t.Fatal(err)
		}
		if err := w.q.Ack(t.Context(), m); err != nil {
			t.Fatal(err)
		}
		if err := redriveAll(t.Context(), w.q); err != nil {
			t.Fatal(err)
		}
		return w.Messages(w.name)[0]
	},
}

func letterOf(id string) jobs.DeadLetter {
	return jobs.DeadLetter{Key: jobs.Key{Run: "r", CustomID: id}, Class: jobs.Exhausted, Reason: "status 500", Status: 500, RequestID: "req", Attempts: 3}
}

func TestTraceStays(t *testing.T) {
	for _, tt := range []struct {
		name       string
		sent, want carried
	}{
		{"none", carried{}, carried{}},
		{"W3C", carried{parent, state, ""}, submitted},
		{"X-Ray", carried{header: header}, carried{parent, "", header}},
		{"both, and they differ", carried{parent, state, other}, carried{parent, state, other}},
		{"X-Ray without a parent", carried{header: "Root=1-0af76519-16cd43dd8448eb211c80319c;Sampled=1"}, carried{header: "Root=1-0af76519-16cd43dd8448eb211c80319c;Sampled=1"}},
		{"malformed", carried{"00-4bf9", state, "Root=2-x"}, carried{}},
		{"malformed state", carried{parent, "=", header}, carried{parent, "", header}},
	} {
		for how, again := range anew {
			t.Run(tt.name+"/"+how, func(t *testing.T) {
				everywhere(t, setup{}, func(t *testing.T, w *world) {
					w.sendTraced("a", tt.sent, 0)
					if got := carriedBy(again(t, w)); got != tt.want {
						t.Errorf("%+v became %+v, want %+v", tt.sent, got, tt.want)
					}
				})
			})
		}
	}
}

// TestTraceGivesWay has attributes of others, which have no other way to travel, take
// the places of the trace's.
func TestTraceGivesWay(t *testing.T) {
	noState, headerOnly := carried{parent, "", header}, carried{header: header}
	for _, tt := range []struct {
		how    string
		others int
		want   carried
		all    int // attributes then
	}{
		{"release", 6, submitted, 10}, // and two of ours
		{"release", 7, noState, 10},
		{"release", 8, headerOnly, 10},
		{"split", 7, submitted, 10}, // and one of ours
		{"split", 8, noState, 10},
		{"bury", 8, submitted, 10}, // eight of ours, and none of others
	} {
		t.Run(fmt.Sprint(tt.how, tt.others), func(t *testing.T) {
			virtual(t, setup{}, func(t *testing.T, w *world) {
				w.sendTraced("a", submitted, min(tt.others, 8))
				m := anew[tt.how](t, w)
				if got := carriedBy(m); got != tt.want || len(m.Attributes) != tt.all {
					t.Errorf("%d attributes and %+v, want %d and %+v", len(m.Attributes), got, tt.all, tt.want)
				}
			})
		})
	}
	virtual(t, setup{}, func(t *testing.T, w *world) {
		all := make(map[string]types.MessageAttributeValue)
		for i := range 9 {
			all[fmt.Sprint("a", i)] = types.MessageAttributeValue{DataType: new("String"), StringValue: new("x")}
		}
		out := sqsqueue.Outgoing{Body: []byte("a"), Again: true, Attributes: all, Trace: jobs.Trace{Parent: parent, State: state}}
		if err := w.q.Send(t.Context(), []sqsqueue.Outgoing{out}); err != nil {
			t.Fatal(err)
		}
		if got := carriedBy(w.Messages(w.name)[0]); got != headerOnly || len(all) != 9 {
			t.Errorf("beside nine others: %+v, want %+v, and the caller's map as it was", got, headerOnly)
		}
	})
}

// TestTraceTakesNoRoom wants all that fits without a trace to fit with one.
func TestTraceTakesNoRoom(t *testing.T) {
	for _, limit := range []int{sqsqueue.MaxMessage, 4096} {
		virtual(t, setup{}, func(t *testing.T, w *world) {
			for _, name := range []string{w.name, w.dead} {
				w.setFor(t, name, "MaximumMessageSize", fmt.Sprint(limit))
			}
			q, err := sqsqueue.Open(t.Context(), w.client, sqsqueue.Config{Queue: w.name})
			if err != nil {
				t.Fatal(err)
			}
			w.q = q
			weight := len("traceparent"+"String"+parent) + len("tracestate"+"String"+state)
			for _, tt := range []struct {
				spare int
				want  carried
			}{
				{0, carried{header: header}},
				{weight - 1, carried{parent, "", header}},
				{weight, submitted},
			} {
				body := []byte(strings.Repeat("x", limit-room-tt.spare))
				if !q.Holds(body) {
					t.Fatalf("%d bytes do not fit without a trace", len(body))
				}
				err := q.Send(t.Context(), []sqsqueue.Outgoing{{Body: body, Trace: jobs.Trace{Parent: parent, State: state}}})
				if err != nil {
					t.Fatalf("Send = %v with %d bytes to spare, want nil", err, tt.spare)
				}
				m := w.one()
				if got := carriedBy(w.Messages(w.name)[0]); got != tt.want {
					t.Errorf("limit %d, %d bytes to spare: %+v, want %+v", limit, tt.spare, got, tt.want)
				}
				m.Attempts++
				if err := q.Release(t.Context(), m, 0); err != nil {
					t.Errorf("limit %d, %d bytes to spare: Release = %v, want nil", limit, tt.spare, err)
				}
				if err := q.Ack(t.Context(), w.one()); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// TestBuriedTraceTakesNoRoom buries a body that its letter has just room for.
func TestBuriedTraceTakesNoRoom(t *testing.T) {
	virtual(t, setup{}, func(t *testing.T, w *world) {
		w.sendTraced("a", submitted, 0)
		m := w.one()
		for n := sqsqueue.MaxMessage; ; n-- {
			m.Body = []byte(strings.Repeat("x", n))
			if err := w.q.Bury(t.Context(), m, letterOf("a")); err == nil {
				break
			}
		}
		if got, want := carriedBy(w.Messages(w.dead)[0]), (carried{header: header}); got != want {
			t.Errorf("the largest that fits is buried with %+v, want %+v", got, want)
		}
	})
}

// TestTraceInBatches wants no batch to outgrow SQS by the traces in it.
func TestTraceInBatches(t *testing.T) {
	virtual(t, setup{}, func(t *testing.T, w *world) {
		long := "k=" + strings.Repeat("v", 500)
		var out []sqsqueue.Outgoing
		for range 10 {
			body := []byte(strings.Repeat("x", sqsqueue.MaxMessage/10-room))
			out = append(out, sqsqueue.Outgoing{Body: body, Trace: jobs.Trace{Parent: parent, State: long}})
		}
		if err := w.q.Send(t.Context(), out); err != nil {
			t.Fatalf("Send = %v, want nil", err)
		}
		if n := w.requests("SendMessageBatch"); n != 2 || len(w.Messages(w.name)) != 10 {
			t.Errorf("%d requests for %d messages, want 2 for 10", n, len(w.Messages(w.name)))
		}
	})
}

// TestMalformedTraceIsNotSent is about what callers have.
func TestMalformedTraceIsNotSent(t *testing.T) {
	virtual(t, setup{}, func(t *testing.T, w *world) {
		for i, trace := range []jobs.Trace{
			{Parent: "\x01"},
			{State: state},
			{Parent: strings.ToUpper(parent), State: state},
			{Parent: parent[:54]},
			{Parent: "ff" + parent[2:]},
			{Parent: parent + "-00"},
			{Parent: parent + "0"},
		} {
			if err := w.q.Send(t.Context(), []sqsqueue.Outgoing{{Body: fmt.Append(nil, i), Trace: trace}}); err != nil {
				t.Errorf("Send with %q = %v, want nil", trace, err)
			}
		}
		for _, m := range w.Messages(w.name) {
			if carriedBy(m) != (carried{}) {
				t.Errorf("message %s carries %+v, want nothing", m.Body, carriedBy(m))
			}
		}
	})
}

// TestTraceOfMovedMessage is of one that SQS itself moves to the dead-letter queue.
func TestTraceOfMovedMessage(t *testing.T) {
	virtual(t, setup{maxReceive: 1}, func(t *testing.T, w *world) {
		w.sendTraced(jobOf("a"), submitted, 0)
		w.one()
		time.Sleep(hidden)
		w.receive() // moves it
		if err := redriveAll(t.Context(), w.q); err != nil {
			t.Fatal(err)
		}
		ms := w.Messages(w.name)
		if len(ms) != 1 || carriedBy(ms[0]) != submitted {
			t.Errorf("redriven are %v, want one message with %+v", ms, submitted)
		}
	})
}

func FuzzXRay(f *testing.F) {
	for _, s := range []string{header, other, "Root=1-0af76519-16cd43dd8448eb211c80319c", ";;", "Root=" + parent, parent} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, ok := sqsqueue.FromXRay(s)
		if p != "" {
			if !ok || sqsqueue.ValidParent(p) != p {
				t.Errorf("%q became %q, which is no traceparent", s, p)
			}
			h := sqsqueue.ToXRay(p)
			if back, ok := sqsqueue.FromXRay(h); !ok || back != p {
				t.Errorf("%q became %q and %q, and then %q", s, p, h, back)
			}
		}
		if p := sqsqueue.ValidParent(s); p != "" {
			if sqsqueue.ValidParent(p) != p {
				t.Errorf("%q became %q, which is not stable", s, p)
			}
			back, ok := sqsqueue.FromXRay(sqsqueue.ToXRay(p))
			if !ok || back[:53] != p[:53] || (back[54]-'0') != (p[54]-'0')&1 {
				t.Errorf("%q came back as %q", p, back)
			}
		}
	})
}
