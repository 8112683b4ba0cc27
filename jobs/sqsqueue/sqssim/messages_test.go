package sqssim_test

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"upwell/jobs/sqsqueue/sqssim"
)

func text(s string) types.MessageAttributeValue {
	return types.MessageAttributeValue{DataType: new("String"), StringValue: &s}
}

// The sums were recorded from AWS.
func TestAttributeMD5(t *testing.T) {
	binary := types.MessageAttributeValue{
		DataType:    new("Binary"),
		BinaryValue: []byte("traceparent\x1e00-774062d6c37081a5a0b9b5b88e30627c-2d2482211f6489da-01"),
	}
	hello := map[string]types.MessageAttributeValue{
		"Help.Me": text("Me"), "Hello": text("There"), "General": text("Kenobi"),
	}
	tests := []struct {
		attrs map[string]types.MessageAttributeValue
		ask   []string
		want  string // MD5OfMessageAttributes of the received message
		names int
	}{
		{map[string]types.MessageAttributeValue{"attr1": binary}, []string{"All"}, "8cbe4db156db8a94db8b801b7addb984", 1},
		{map[string]types.MessageAttributeValue{"Foo": text("Bar")}, []string{"Foo"}, "ae7155c6026991b6d54b11589678bf9c", 1},
		{hello, nil, "", 0},
		{hello, []string{"All"}, "4c360f3fdafd970e05fae2f149d997f5", 3},
		{hello, []string{".*"}, "4c360f3fdafd970e05fae2f149d997f5", 3},
		{hello, []string{"*"}, "4c360f3fdafd970e05fae2f149d997f5", 3},
		{hello, []string{"Foo", "Help"}, "", 0},
		{hello, []string{"Hello", "General"}, "fca026605781cb4126a1e9044df24232", 2},
		{hello, []string{"Foo", "Hello"}, "a311262e065454b75da111d535b8dacd", 1},
		{hello, []string{"Hel.*"}, "83fee93c1bcd8b9a5a923ffacdc636c7", 2},
	}
	w := newWorld(t, sqssim.Config{})
	q := w.create("q", nil)
	for _, tt := range tests {
		_, err := w.c.SendMessage(t.Context(), &sqs.SendMessageInput{
			QueueUrl: &q, MessageBody: new("msg"), MessageAttributes: tt.attrs,
		})
		w.check(err)
		m := w.one(q, func(in *sqs.ReceiveMessageInput) { in.MessageAttributeNames = tt.ask })
		got := ""
		if m.MD5OfMessageAttributes != nil {
			got = *m.MD5OfMessageAttributes
		}
		if got != tt.want || len(m.MessageAttributes) != tt.names {
			t.Errorf("%q: MD5 %q of %d attributes, want %q of %d", tt.ask, got, len(m.MessageAttributes), tt.want, tt.names)
		}
	}
}

func TestSystemAttributes(t *testing.T) {
	w := newWorld(t, sqssim.Config{})
	q := w.create("q", attrs{"VisibilityTimeout": "0"})
	const trace = "Root=1-5759e988-bd862e3fe1be46a994272793;Sampled=1"
	out, err := w.c.SendMessage(t.Context(), &sqs.SendMessageInput{
		QueueUrl: &q, MessageBody: new("a"), MessageGroupId: new("tenant-1"),
		MessageSystemAttributes: map[string]types.MessageSystemAttributeValue{
			"AWSTraceHeader": {DataType: new("String"), StringValue: new(trace)},
		},
	})
	w.check(err)
	if out.MD5OfMessageSystemAttributes == nil || out.MD5OfMessageAttributes != nil || out.SequenceNumber != nil {
		t.Errorf("SendMessage = %+v, want an MD5 of system attributes only", out)
	}
	ask := func(names ...types.MessageSystemAttributeName) map[string]string {
		t.Helper()
		return w.one(q, func(in *sqs.ReceiveMessageInput) { in.MessageSystemAttributeNames = names }).Attributes
	}
	if got := ask(); len(got) != 0 {
		t.Errorf("asked for nothing, got %v", got)
	}
	if got := ask("AWSTraceHeader", "MessageGroupId"); len(got) != 2 ||
		got["AWSTraceHeader"] != trace || got["MessageGroupId"] != "tenant-1" {
		t.Errorf("asked for two, got %v", got)
	}
	if got := ask("All"); len(got) != 6 {
		t.Errorf("asked for all, got %v", got)
	}
}

func TestSendLimits(t *testing.T) {
	w := newWorld(t, sqssim.Config{})
	standard := w.create("q", nil)
	small := w.create("small", attrs{"MaximumMessageSize": "1024"})
	ordered := w.create("q.fifo", attrs{"FifoQueue": "true"})

	message := func(edit func(*sqs.SendMessageInput)) *sqs.SendMessageInput {
		in := &sqs.SendMessageInput{QueueUrl: &standard, MessageBody: new("a")}
		edit(in)
		return in
	}
	body := func(s string) *sqs.SendMessageInput {
		return message(func(in *sqs.SendMessageInput) { in.MessageBody = &s })
	}
	attr := func(name string, v types.MessageAttributeValue) *sqs.SendMessageInput {
		return message(func(in *sqs.SendMessageInput) {
			in.MessageAttributes = map[string]types.MessageAttributeValue{name: v}
		})
	}
	value := func(kind, s string) types.MessageAttributeValue {
		return types.MessageAttributeValue{DataType: &kind, StringValue: &s}
	}
	tests := []struct {
		name string
		in   *sqs.SendMessageInput
		want string // code; empty is success
	}{
		{"full", body(strings.Repeat("x", 1<<20)), ""},
		{"too long", body(strings.Repeat("x", 1<<20+1)), "InvalidParameterValue"},
		{"too long in bytes", body(strings.Repeat("ü", 1<<19) + "x"), "InvalidParameterValue"},
		{"attributes count", message(func(in *sqs.SendMessageInput) {
			in.MessageBody = new(strings.Repeat("x", 1<<20-10))
			in.MessageAttributes = map[string]types.MessageAttributeValue{"abc": value("String", "xx")}
		}), "InvalidParameterValue"},
		{"queue's own limit", message(func(in *sqs.SendMessageInput) {
			in.QueueUrl, in.MessageBody = &small, new(strings.Repeat("x", 1025))
		}), "InvalidParameterValue"},
		{"empty", body(""), "MissingParameter"},
		{"legal characters", body("\t\n\r \ud7ff\ue000\ufffd\U0010ffff"), ""},
		{"NUL", body("a\x00"), "InvalidMessageContents"},
		{"control", body("a\x1b[0m"), "InvalidMessageContents"},
		{"noncharacter", body("a\uffff"), "InvalidMessageContents"},
		{"attribute", attr("a-b_c.ü9", value("Number.float", "-1.5e3")), ""},
		{"attribute without value", attr("a", value("String", "")), "InvalidParameterValue"},
		{"attribute of the other kind", attr("a", value("Binary", "x")), "InvalidParameterValue"},
		{"attribute of unknown type", attr("a", value("Text", "x")), "InvalidParameterValue"},
		{"attribute without type", attr("a", value("", "x")), "InvalidParameterValue"},
		{"attribute not a number", attr("a", value("Number", "x")), "InvalidParameterValue"},
		{"attribute with NUL", attr("a", value("String", "\x00")), "InvalidParameterValue"},
		{"attribute name AWS", attr("aWs.x", value("String", "x")), "InvalidParameterValue"},
		{"attribute name Amazon", attr("Amazon.x", value("String", "x")), "InvalidParameterValue"},
		{"attribute name dot first", attr(".x", value("String", "x")), "InvalidParameterValue"},
		{"attribute name dot last", attr("x.", value("String", "x")), "InvalidParameterValue"},
		{"attribute name dots", attr("x..y", value("String", "x")), "InvalidParameterValue"},
		{"attribute name character", attr("x y", value("String", "x")), "InvalidParameterValue"},
		{"attribute name too long", attr(strings.Repeat("x", 257), value("String", "x")), "InvalidParameterValue"},
		{"eleven attributes", message(func(in *sqs.SendMessageInput) {
			in.MessageAttributes = map[string]types.MessageAttributeValue{}
			for i := range 11 {
				in.MessageAttributes[strconv.Itoa(i)] = value("String", "x")
			}
		}), "InvalidParameterValue"},
		{"system attribute", message(func(in *sqs.SendMessageInput) {
			in.MessageSystemAttributes = map[string]types.MessageSystemAttributeValue{
				"Other": {DataType: new("String"), StringValue: new("x")},
			}
		}), "InvalidParameterValue"},
		{"delay", message(func(in *sqs.SendMessageInput) { in.DelaySeconds = 901 }), "InvalidParameterValue"},
		{"negative delay", message(func(in *sqs.SendMessageInput) { in.DelaySeconds = -1 }), "InvalidParameterValue"},
		{"group", message(func(in *sqs.SendMessageInput) { in.MessageGroupId = new("a b") }), "InvalidParameterValue"},
		{"long group", message(func(in *sqs.SendMessageInput) { in.MessageGroupId = new(strings.Repeat("g", 129)) }), "InvalidParameterValue"},
		{"deduplication on a standard queue", message(func(in *sqs.SendMessageInput) { in.MessageDeduplicationId = new("d") }), "InvalidParameterValue"},
		{"no queue", message(func(in *sqs.SendMessageInput) { in.QueueUrl = new("http://sqs.test/000000000000/no") }), "AWS.SimpleQueueService.NonExistentQueue"},
		{"FIFO without group", message(func(in *sqs.SendMessageInput) {
			in.QueueUrl, in.MessageDeduplicationId = &ordered, new("d")
		}), "MissingParameter"},
		{"FIFO without deduplication", message(func(in *sqs.SendMessageInput) {
			in.QueueUrl, in.MessageGroupId = &ordered, new("g")
		}), "InvalidParameterValue"},
		{"FIFO with delay", message(func(in *sqs.SendMessageInput) {
			in.QueueUrl, in.MessageGroupId, in.MessageDeduplicationId, in.DelaySeconds = &ordered, new("g"), new("d"), 1
		}), "InvalidParameterValue"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			before := len(w.Messages("q"))
			_, err := w.c.SendMessage(t.Context(), tt.in)
			if tt.want == "" {
				if err != nil {
					t.Errorf("SendMessage = %v, want nil", err)
				}
				return
			}
			wantCode(t, err, tt.want)
			if n := len(w.Messages("q")); n != before {
				t.Error("a refused message is in the queue")
			}
		})
	}
	_, err := w.c.SendMessage(t.Context(), body("\x00"))
	wantType[*types.InvalidMessageContents](t, err)
}

func TestOtherLimits(t *testing.T) {
	w := newWorld(t, sqssim.Config{})
	q := w.create("q", nil)
	w.send(q, "a")
	ctx := t.Context()
	receipt := w.one(q).ReceiptHandle
	receive := func(o receiveOption) error {
		in := &sqs.ReceiveMessageInput{QueueUrl: &q}
		o(in)
		_, err := w.c.ReceiveMessage(ctx, in)
		return err
	}
	create := func(name string, a attrs) error {
		_, err := w.c.CreateQueue(ctx, &sqs.CreateQueueInput{QueueName: &name, Attributes: a})
		return err
	}
	redrive := func(policy string) error { return w.set(q, attrs{"RedrivePolicy": policy}) }
	w.create("fifo.fifo", attrs{"FifoQueue": "true"})
	w.create("closed", attrs{"RedriveAllowPolicy": `{"redrivePermission":"denyAll"}`})
	_, unknown := w.c.GetQueueAttributes(ctx, &sqs.GetQueueAttributesInput{
		QueueUrl: &q, AttributeNames: []types.QueueAttributeName{"Colour"},
	})
	tests := []struct {
		name string
		err  error
		want string
	}{
		{"no messages", receive(upTo(-1)), "InvalidParameterValue"},
		{"eleven messages", receive(upTo(11)), "InvalidParameterValue"},
		{"wait", receive(wait(21)), "InvalidParameterValue"},
		{"negative wait", receive(wait(-1)), "InvalidParameterValue"},
		{"timeout", receive(hide(43201)), "InvalidParameterValue"},
		{"change", w.change(q, receipt, 43201), "InvalidParameterValue"},
		{"negative change", w.change(q, receipt, -1), "InvalidParameterValue"},
		{"queue name", create("a b", nil), "InvalidParameterValue"},
		{"long queue name", create(strings.Repeat("q", 81), nil), "InvalidParameterValue"},
		{"FIFO by name alone", create("a.fifo", nil), "InvalidParameterValue"},
		{"FIFO by attribute alone", create("a", attrs{"FifoQueue": "true"}), "InvalidParameterValue"},
		{"FIFO attribute of a standard queue", create("a", attrs{"ContentBasedDeduplication": "true"}), "InvalidAttributeName"},
		{"attribute value", create("a", attrs{"DelaySeconds": "901"}), "InvalidAttributeValue"},
		{"attribute not a number", create("a", attrs{"DelaySeconds": "x"}), "InvalidAttributeValue"},
		{"attribute name", create("a", attrs{"Colour": "red"}), "InvalidAttributeName"},
		{"read-only attribute", w.set(q, attrs{"QueueArn": "x"}), "InvalidAttributeName"},
		{"retention", w.set(q, attrs{"MessageRetentionPeriod": "59"}), "InvalidAttributeValue"},
		{"unknown attribute", unknown, "InvalidAttributeName"},
		{"redrive format", redrive("x"), "InvalidParameterValue"},
		{"redrive without target", redrive(`{"maxReceiveCount":1}`), "InvalidParameterValue"},
		{"redrive without count", redrive(`{"deadLetterTargetArn":"` + arn + `q"}`), "InvalidParameterValue"},
		{"redrive count", redrive(`{"deadLetterTargetArn":"` + arn + `q","maxReceiveCount":0}`), "InvalidParameterValue"},
		{"redrive target", redrive(`{"deadLetterTargetArn":"q","maxReceiveCount":1}`), "InvalidParameterValue"},
		{"redrive to nowhere", redrive(`{"deadLetterTargetArn":"` + arn + `no","maxReceiveCount":1}`), "InvalidParameterValue"},
		{"redrive to FIFO", redrive(`{"deadLetterTargetArn":"` + arn + `fifo.fifo","maxReceiveCount":1}`), "InvalidParameterValue"},
		{"redrive refused", redrive(`{"deadLetterTargetArn":"` + arn + `closed","maxReceiveCount":1}`), "InvalidParameterValue"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { wantCode(t, tt.err, tt.want) })
	}
}

func TestBatchLimits(t *testing.T) {
	w := newWorld(t, sqssim.Config{})
	q := w.create("q", nil)
	ctx := t.Context()
	send := func(ids string, body string) error {
		in := &sqs.SendMessageBatchInput{QueueUrl: &q, Entries: []types.SendMessageBatchRequestEntry{}}
		if ids != "" {
			for id := range strings.SplitSeq(ids, ",") {
				in.Entries = append(in.Entries, types.SendMessageBatchRequestEntry{Id: &id, MessageBody: &body})
			}
		}
		_, err := w.c.SendMessageBatch(ctx, in)
		return err
	}
	wantType[*types.EmptyBatchRequest](t, send("", "x"))
	wantType[*types.TooManyEntriesInBatchRequest](t, send("0,1,2,3,4,5,6,7,8,9,a", "x"))
	wantType[*types.BatchEntryIdsNotDistinct](t, send("a,b,a", "x"))
	wantType[*types.InvalidBatchEntryId](t, send("a,b c", "x"))
	wantType[*types.InvalidBatchEntryId](t, send(strings.Repeat("a", 81), "x"))
	wantType[*types.BatchRequestTooLong](t, send("a,b", strings.Repeat("x", 1<<19+1)))
	if got := w.Stats().Queues["q"].Sent; got != 0 {
		t.Errorf("refused batches sent %d messages", got)
	}
	w.check(send("a,b", strings.Repeat("x", 1<<19)))

	_, err := w.c.DeleteMessageBatch(ctx, &sqs.DeleteMessageBatchInput{QueueUrl: &q, Entries: []types.DeleteMessageBatchRequestEntry{}})
	wantType[*types.EmptyBatchRequest](t, err)
	_, err = w.c.ChangeMessageVisibilityBatch(ctx, &sqs.ChangeMessageVisibilityBatchInput{
		QueueUrl: &q, Entries: []types.ChangeMessageVisibilityBatchRequestEntry{},
	})
	wantType[*types.EmptyBatchRequest](t, err)
}

func TestBatchPartialFailure(t *testing.T) {
	virtual(t, sqssim.Config{}, func(t *testing.T, w *world) {
		ctx := t.Context()
		q := w.create("q", attrs{"MaximumMessageSize": "1024"})
		sent, err := w.c.SendMessageBatch(ctx, &sqs.SendMessageBatchInput{
			QueueUrl: &q, Entries: []types.SendMessageBatchRequestEntry{
				{Id: new("good"), MessageBody: new("a")},
				{Id: new("bad"), MessageBody: new("\x01")},
				{Id: new("long"), MessageBody: new(strings.Repeat("x", 1025))},
				{Id: new("late"), MessageBody: new("b"), DelaySeconds: 9},
			},
		})
		w.check(err)
		wantBatch(t, ids(sent.Successful, func(e types.SendMessageBatchResultEntry) *string { return e.Id }), sent.Failed,
			"good,late", "bad:InvalidMessageContents,long:InvalidParameterValue")

		a := w.one(q, hide(5))
		time.Sleep(9 * time.Second)
		b, again := w.one(q), w.one(q)
		if *b.Body != "a" || *again.Body != "b" {
			t.Fatalf("received %s and %s, want a and b", *b.Body, *again.Body)
		}
		changed, err := w.c.ChangeMessageVisibilityBatch(ctx, &sqs.ChangeMessageVisibilityBatchInput{
			QueueUrl: &q, Entries: []types.ChangeMessageVisibilityBatchRequestEntry{
				{Id: new("stale"), ReceiptHandle: a.ReceiptHandle, VisibilityTimeout: 1},
				{Id: new("long"), ReceiptHandle: b.ReceiptHandle, VisibilityTimeout: 43201},
				{Id: new("good"), ReceiptHandle: b.ReceiptHandle, VisibilityTimeout: 1},
				{Id: new("garbage"), ReceiptHandle: new("x"), VisibilityTimeout: 1},
			},
		})
		w.check(err)
		wantBatch(t, ids(changed.Successful, func(e types.ChangeMessageVisibilityBatchResultEntry) *string { return e.Id }), changed.Failed,
			"good", "stale:InvalidParameterValue,long:InvalidParameterValue,garbage:ReceiptHandleIsInvalid")
		time.Sleep(time.Second)
		changed, err = w.c.ChangeMessageVisibilityBatch(ctx, &sqs.ChangeMessageVisibilityBatchInput{
			QueueUrl: &q, Entries: []types.ChangeMessageVisibilityBatchRequestEntry{
				{Id: new("over"), ReceiptHandle: b.ReceiptHandle, VisibilityTimeout: 1},
			},
		})
		w.check(err)
		wantBatch(t, nil, changed.Failed, "", "over:MessageNotInflight")

		deleted, err := w.c.DeleteMessageBatch(ctx, &sqs.DeleteMessageBatchInput{
			QueueUrl: &q, Entries: []types.DeleteMessageBatchRequestEntry{
				{Id: new("stale"), ReceiptHandle: a.ReceiptHandle},
				{Id: new("garbage"), ReceiptHandle: new("x")},
				{Id: new("good"), ReceiptHandle: again.ReceiptHandle},
			},
		})
		w.check(err)
		wantBatch(t, ids(deleted.Successful, func(e types.DeleteMessageBatchResultEntry) *string { return e.Id }), deleted.Failed,
			"stale,good", "garbage:ReceiptHandleIsInvalid")
		if ms := w.Messages("q"); len(ms) != 1 || ms[0].Body != "a" {
			t.Errorf("left: %v, want a", ms)
		}
	})
}

// Each entry of a batch has a delay of its own, within SQS's bounds, and none on a
// FIFO queue.
func TestBatchDelays(t *testing.T) {
	virtual(t, sqssim.Config{}, func(t *testing.T, w *world) {
		for _, tt := range []struct{ name, ok, bad string }{
			{"q", "none,least,most", "over:InvalidParameterValue,under:InvalidParameterValue"},
			{"q.fifo", "none", "least:InvalidParameterValue,most:InvalidParameterValue,over:InvalidParameterValue,under:InvalidParameterValue"},
		} {
			entries := []types.SendMessageBatchRequestEntry{
				{Id: new("none")},
				{Id: new("least"), DelaySeconds: 1},
				{Id: new("most"), DelaySeconds: 900},
				{Id: new("over"), DelaySeconds: 901},
				{Id: new("under"), DelaySeconds: -1},
			}
			a := attrs{}
			for i := range entries {
				entries[i].MessageBody = entries[i].Id
				if tt.name == "q.fifo" {
					a = attrs{"FifoQueue": "true"}
					entries[i].MessageGroupId, entries[i].MessageDeduplicationId = entries[i].Id, entries[i].Id
				}
			}
			q := w.create(tt.name, a)
			sent, err := w.c.SendMessageBatch(t.Context(), &sqs.SendMessageBatchInput{QueueUrl: &q, Entries: entries})
			w.check(err)
			wantBatch(t, ids(sent.Successful, func(e types.SendMessageBatchResultEntry) *string { return e.Id }), sent.Failed, tt.ok, tt.bad)
			if tt.name == "q.fifo" {
				continue
			}
			for _, step := range []struct {
				sleep time.Duration
				want  string
			}{{0, "none"}, {time.Second, "least"}, {899*time.Second - 1, ""}, {1, "most"}} {
				time.Sleep(step.sleep)
				if got := strings.Join(bodies(w.receive(q, hide(43200), upTo(10))), ","); got != step.want {
					t.Errorf("after another %v received %q, want %q", step.sleep, got, step.want)
				}
			}
		}
	})
}

func ids[E any](entries []E, id func(E) *string) (out []string) {
	for _, e := range entries {
		out = append(out, *id(e))
	}
	return out
}

func wantBatch(t *testing.T, ok []string, bad []types.BatchResultErrorEntry, wantOK, wantBad string) {
	t.Helper()
	var failed []string
	for _, e := range bad {
		failed = append(failed, *e.Id+":"+*e.Code)
		if !e.SenderFault || e.Message == nil {
			t.Errorf("entry %s: no message, or not the sender's fault", *e.Id)
		}
	}
	if got := strings.Join(ok, ","); got != wantOK {
		t.Errorf("successful: %s, want %s", got, wantOK)
	}
	if got := strings.Join(failed, ","); got != wantBad {
		t.Errorf("failed: %s, want %s", got, wantBad)
	}
}

func TestMessages(t *testing.T) {
	virtual(t, sqssim.Config{}, func(t *testing.T, w *world) {
		q := w.create("q", nil)
		w.send(q, "a", "b")
		_, err := w.c.SendMessage(t.Context(), &sqs.SendMessageInput{
			QueueUrl: &q, MessageBody: new("c"), DelaySeconds: 60, MessageGroupId: new("g"),
			MessageAttributes: map[string]types.MessageAttributeValue{"k": text("v")},
		})
		w.check(err)
		now := time.Now()
		m := w.one(q)
		ms := w.Messages("q")
		if len(ms) != 3 {
			t.Fatalf("%d messages, want 3", len(ms))
		}
		a, c := ms[0], ms[2]
		if a.ID != *m.MessageId || a.Body != "a" || a.State != sqssim.InFlight || a.Receives != 1 ||
			!a.Due.Equal(now.Add(30*time.Second)) || !a.FirstReceived.Equal(now) || !a.Sent.Equal(now) {
			t.Errorf("first message is %+v", a)
		}
		if ms[1].State != sqssim.Visible || ms[1].Receives != 0 || !ms[1].FirstReceived.IsZero() {
			t.Errorf("second message is %+v", ms[1])
		}
		if c.State != sqssim.Delayed || c.Group != "g" || c.Attributes["k"].StringValue != "v" {
			t.Errorf("third message is %+v", c)
		}
		if got := fmt.Sprint(a.State, ms[1].State, c.State); got != "in flight visible delayed" {
			t.Errorf("states print as %q", got)
		}
	})
}

// TestProtocol looks at the bytes, where the SDK may be forgiving.
func TestProtocol(t *testing.T) {
	s := sqssim.New(sqssim.Config{})
	c := http.Client{Transport: s}
	call := func(method, target, body string) (status int, header http.Header, answer string) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), method, "http://localhost:9324/", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("X-Amz-Target", target)
		res, err := c.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		if res.Header.Get("x-amzn-RequestId") == "" || res.Header.Get("Content-Type") != "application/x-amz-json-1.0" {
			t.Errorf("%s: header is %v", target, res.Header)
		}
		return res.StatusCode, res.Header, string(b)
	}
	if _, _, got := call("POST", "AmazonSQS.CreateQueue", `{"QueueName":"q"}`); got != `{"QueueUrl":"http://localhost:9324/000000000000/q"}` {
		t.Errorf("CreateQueue = %s", got)
	}
	status, _, got := call("POST", "AmazonSQS.ReceiveMessage", `{"QueueUrl":"http://elsewhere/42/q"}`)
	if status != 200 || got != `{}` {
		t.Errorf("ReceiveMessage = %d %s, want 200 {}", status, got)
	}
	call("POST", "AmazonSQS.SendMessage", `{"QueueUrl":"q","MessageBody":"a"}`)
	_, _, got = call("POST", "AmazonSQS.ReceiveMessage", `{"QueueUrl":"q","AttributeNames":["ApproximateReceiveCount"]}`)
	if !strings.Contains(got, `"Attributes":{"ApproximateReceiveCount":"1"}`) {
		t.Errorf("attributes asked for the old way: %s", got)
	}
	errs := []struct{ method, op, in, kind, query string }{
		{"POST", "ReceiveMessage", `{"QueueUrl":"http://localhost/0/x"}`, "com.amazonaws.sqs#QueueDoesNotExist", "AWS.SimpleQueueService.NonExistentQueue;Sender"},
		{"POST", "ReceiveMessage", `{}`, "com.amazon.coral.service#MissingRequiredParameterException", "MissingParameter;Sender"},
		{"POST", "CreateQueue", `{"QueueName":"ü"}`, "com.amazon.coral.service#InvalidParameterValueException", "InvalidParameterValue;Sender"},
		{"POST", "CreateQueue", `{`, "com.amazon.coral.service#SerializationException", "SerializationException;Sender"},
		{"POST", "CreateQueue", `{"QueueName":1}`, "com.amazon.coral.service#SerializationException", "SerializationException;Sender"},
		{"POST", "CreateQueue", "{\"QueueName\":\"\xff\"}", "com.amazon.coral.service#SerializationException", "SerializationException;Sender"},
		{"POST", "MakeCoffee", `{}`, "com.amazon.coral.service#UnknownOperationException", "UnknownOperationException;Sender"},
		{"GET", "ListQueues", `{}`, "com.amazon.coral.service#UnknownOperationException", "UnknownOperationException;Sender"},
	}
	for _, e := range errs {
		status, h, got := call(e.method, "AmazonSQS."+e.op, e.in)
		if status != 400 || h.Get("x-amzn-query-error") != e.query || !strings.Contains(got, `"__type":"`+e.kind+`","message":"`) {
			t.Errorf("%s %s = %d %s %s, want %s %s", e.op, e.in, status, h.Get("x-amzn-query-error"), got, e.query, e.kind)
		}
	}
	want := map[string]int{"CreateQueue": 2, "SendMessage": 1, "ReceiveMessage": 4}
	if got := s.Stats().Requests; !maps.Equal(got, want) {
		t.Errorf("requests = %v, want %v", got, want)
	}
}
