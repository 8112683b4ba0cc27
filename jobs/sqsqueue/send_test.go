package sqsqueue_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/google/go-cmp/cmp"

	"upwell/jobs"
	"upwell/jobs/sqsqueue"
	"upwell/jobs/sqsqueue/sqssim"
	"upwell/worker"
)

// room is what Send keeps free beside a body for attributes.
const room = 128

// sized returns n jobs that take up bytes each, their room included.
func sized(n, bytes int) []sqsqueue.Outgoing {
	out := make([]sqsqueue.Outgoing, n)
	for i := range out {
		body := fmt.Sprintf("%06d", i)
		out[i].Body = []byte(body + strings.Repeat("x", bytes-room-len(body)))
	}
	return out
}

func TestSendPacks(t *testing.T) {
	const mib = sqsqueue.MaxMessage
	for name, tt := range map[string]struct {
		out  []sqsqueue.Outgoing
		want []int // entries of each request
	}{
		"none":                   {nil, nil},
		"one":                    {sized(1, 200), []int{1}},
		"ten":                    {sized(10, 200), []int{10}},
		"twenty-one":             {sized(21, 200), []int{10, 10, 1}},
		"largest":                {sized(3, mib), []int{1, 1, 1}},
		"two that just fit":      {sized(4, mib/2), []int{2, 2}},
		"two a byte too large":   {sized(3, mib/2+1), []int{1, 1, 1}},
		"eight that just fit":    {sized(17, mib/8), []int{8, 8, 1}},
		"a large one in between": {slices.Concat(sized(2, 200), sized(1, mib), sized(2, 300)), []int{2, 1, 2}},
	} {
		t.Run(name, func(t *testing.T) {
			virtual(t, setup{}, func(t *testing.T, w *world) {
				var got []int
				w.inject(func(_ string, c sqssim.Call) sqssim.Fault {
					got = append(got, len(c.Entries))
					return sqssim.Fault{}
				})
				if err := w.q.Send(t.Context(), tt.out); err != nil {
					t.Errorf("Send = %v, want nil", err)
				}
				if diff := cmp.Diff(tt.want, got); diff != "" {
					t.Errorf("entries of each request: -want +got:\n%s", diff)
				}
				queued := w.Messages("jobs")
				if len(queued) != len(tt.out) {
					t.Fatalf("%d messages queued, want %d", len(queued), len(tt.out))
				}
				for i, m := range queued {
					if m.Body != string(tt.out[i].Body) || len(m.Attributes) != 0 {
						t.Errorf("message %d is %.10q with attributes %v", i, m.Body, m.Attributes)
					}
				}
			})
		})
	}
}

// A batch at the limit stays within it when its answer is lost and every entry
// is marked.
func TestSendMarksWithinTheLimit(t *testing.T) {
	for _, n := range []int{1, 2, 10} {
		virtual(t, setup{}, func(t *testing.T, w *world) {
			w.inject(func(_ string, c sqssim.Call) sqssim.Fault { return sqssim.Fault{Drop: c.N == 1} })
			if err := w.q.Send(t.Context(), sized(n, sqsqueue.MaxMessage/n)); err != nil {
				t.Errorf("Send of %d = %v, want nil", n, err)
			}
			if got := w.requests("SendMessageBatch"); got != 2 {
				t.Errorf("%d requests, want 2", got)
			}
		})
	}
}

// A message of the largest size that Fits allows can still be given back with
// attempts.
func TestLargestMessageCanBeReleased(t *testing.T) {
	virtual(t, setup{}, func(t *testing.T, w *world) {
		out := sized(1, sqsqueue.MaxMessage)
		if err := sqsqueue.Fits(out[0].Body); err != nil {
			t.Errorf("Fits = %v, want nil", err)
		}
		if err := w.q.Send(t.Context(), out); err != nil {
			t.Fatal(err)
		}
		m := w.one()
		m.Attempts = 1 << 60
		if err := w.q.Release(t.Context(), m, 0); err != nil {
			t.Errorf("Release = %v, want nil", err)
		}
		if got := w.one(); got.Attempts != 1<<60 || string(got.Body) != string(out[0].Body) {
			t.Errorf("came back with %d attempts and %d bytes", got.Attempts, len(got.Body))
		}
	})
}

// again lists the queued bodies, with a + for each that says it may be there
// twice.
func (w *world) again() []string {
	var got []string
	for _, m := range w.Messages(w.name) {
		body := m.Body
		if _, ok := m.Attributes["upwell.again"]; ok {
			body += "+"
		}
		got = append(got, body)
	}
	slices.Sort(got)
	return got
}

func TestSendFaults(t *testing.T) {
	outage := &sqssim.Error{Code: "InternalFailure", Status: 500}
	throttled := &sqssim.Error{Code: "RequestThrottled"}
	refused := &sqssim.Error{Code: "InvalidParameterValueException", Message: "no"}
	bad := func(err *sqssim.Error) func(sqssim.Entry) *sqssim.Error {
		return func(e sqssim.Entry) *sqssim.Error {
			if e.Body == "b" {
				return err
			}
			return nil
		}
	}
	for _, tt := range []struct {
		name  string
		fault sqssim.Fault
		times int   // how often it happens
		sizes []int // entries of each request
		want  []string
		err   string // empty for none
		kind  worker.Kind
	}{
		{"outage", sqssim.Fault{Err: outage}, 5, []int{3, 3, 3, 3, 3, 3}, []string{"a+", "b+", "c+"}, "", 0},
		{"outage, applied", sqssim.Fault{Err: outage, Apply: true}, 1, []int{3, 3}, []string{"a", "a+", "b", "b+", "c", "c+"}, "", 0},
		{"outage for good", sqssim.Fault{Err: outage}, 99, []int{3, 3, 3, 3, 3, 3}, nil, "sqs send: ", 0},
		{"throttled", sqssim.Fault{Err: throttled}, 2, []int{3, 3, 3}, []string{"a+", "b+", "c+"}, "", 0},
		{"throttled by KMS", sqssim.Fault{Err: &sqssim.Error{Code: "KmsThrottled"}}, 1, []int{3, 3}, []string{"a+", "b+", "c+"}, "", 0},
		{"dropped", sqssim.Fault{Drop: true}, 1, []int{3, 3}, []string{"a+", "b+", "c+"}, "", 0},
		{"answer lost", sqssim.Fault{Drop: true, Apply: true}, 1, []int{3, 3}, []string{"a", "a+", "b", "b+", "c", "c+"}, "", 0},
		{"refused", sqssim.Fault{Err: refused}, 99, []int{3}, nil, "sqs send: ", 0},
		{"denied", sqssim.Fault{Err: &sqssim.Error{Code: "AccessDenied"}}, 99, []int{3}, nil, "sqs send: ", worker.Unauthorized},
		{"no queue", sqssim.Fault{Err: &sqssim.Error{Code: "QueueDoesNotExist"}}, 99, []int{3}, nil, "sqs send: ", worker.Permanent},
		{"an entry", sqssim.Fault{FailEntry: bad(outage)}, 1, []int{3, 1}, []string{"a", "b+", "c"}, "", 0},
		{"an entry, applied", sqssim.Fault{FailEntry: bad(outage), Apply: true}, 2, []int{3, 1, 1}, []string{"a", "b", "b+", "b+", "c"}, "", 0},
		{"an entry for good", sqssim.Fault{FailEntry: bad(outage)}, 99, []int{3, 1, 1, 1, 1, 1}, []string{"a", "c"}, "sqs send: InternalFailure: ", 0},
		{"an entry refused", sqssim.Fault{FailEntry: bad(refused)}, 99, []int{3}, []string{"a", "c"}, "sqs send: InvalidParameterValue: no", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			virtual(t, setup{}, func(t *testing.T, w *world) {
				var sizes []int
				w.inject(func(_ string, c sqssim.Call) sqssim.Fault {
					if sizes = append(sizes, len(c.Entries)); len(sizes) > tt.times {
						return sqssim.Fault{}
					}
					return tt.fault
				})
				start := time.Now()
				err := w.q.Send(t.Context(), []sqsqueue.Outgoing{{Body: []byte("a")}, {Body: []byte("b")}, {Body: []byte("c")}})
				if tt.err == "" && err != nil || tt.err != "" && (err == nil || !strings.HasPrefix(err.Error(), tt.err)) {
					t.Errorf("Send = %v, want %q", err, tt.err)
				}
				if e, _ := errors.AsType[*worker.Error](err); (e != nil) != (tt.kind != 0) || e != nil && e.Kind != tt.kind {
					t.Errorf("Send = %v, want kind %v", err, tt.kind)
				}
				if diff := cmp.Diff(tt.sizes, sizes); diff != "" {
					t.Errorf("entries of each request: -want +got:\n%s", diff)
				}
				if diff := cmp.Diff(tt.want, w.again()); diff != "" {
					t.Errorf("queued: -want +got:\n%s", diff)
				}
				if took := time.Since(start); len(sizes) == 1 && took != 0 || took > 40*time.Second {
					t.Errorf("took %v for %d requests", took, len(sizes))
				}
			})
		})
	}
}

func TestSendStops(t *testing.T) {
	virtual(t, setup{}, func(t *testing.T, w *world) {
		w.inject(func(string, sqssim.Call) sqssim.Fault { return sqssim.Fault{Drop: true} })
		ctx := stopping(t.Context(), time.Millisecond)
		if err := w.q.Send(ctx, []sqsqueue.Outgoing{{Body: []byte("a")}}); !errors.Is(err, errStopped) {
			t.Errorf("Send = %v, want the cause %v", err, errStopped)
		}
	})
}

// On a FIFO queue a job is known by its body: a second copy within five minutes
// is no copy, whether the answer was lost or it was submitted twice.
func TestSendFIFO(t *testing.T) {
	virtual(t, setup{fifo: true}, func(t *testing.T, w *world) {
		w.inject(func(op string, c sqssim.Call) sqssim.Fault {
			return sqssim.Fault{Apply: true, Drop: op == "SendMessageBatch" && c.N == 1}
		})
		w.send("a", "b")
		w.send("b", "c")
		if diff := cmp.Diff([]string{"a", "b", "c"}, w.again()); diff != "" {
			t.Errorf("queued: -want +got:\n%s", diff)
		}
		for _, m := range w.Messages(w.name) {
			if m.Group == "" || m.Group != m.DeduplicationID {
				t.Errorf("%q has group %q and deduplication id %q, want both the same", m.Body, m.Group, m.DeduplicationID)
			}
		}
		if n := len(w.receive()); n != 3 {
			t.Errorf("received %d at once, want 3: no job waits for another", n)
		}
	})
}

// Jobs may share their attributes, and each is marked for itself.
func TestSendWithAttributes(t *testing.T) {
	virtual(t, setup{}, func(t *testing.T, w *world) {
		shared := map[string]types.MessageAttributeValue{"who": {DataType: new("String"), StringValue: new("legal")}}
		err := w.q.Send(t.Context(), []sqsqueue.Outgoing{{Body: []byte("a"), Attributes: shared, Again: true}, {Body: []byte("b"), Attributes: shared}})
		if diff := cmp.Diff([]string{"a+", "b"}, w.again()); err != nil || diff != "" {
			t.Errorf("Send = %v, queued (-want +got):\n%s", err, diff)
		}
		for _, m := range w.Messages(w.name) {
			if m.Attributes["who"].StringValue != "legal" {
				t.Errorf("%s has attributes %v, want who", m.Body, m.Attributes)
			}
		}
	})
}

// A job that is held back is received not a moment before its time, and on a FIFO
// queue, which knows no such thing, at once.
func TestSendDelays(t *testing.T) {
	for name, tt := range map[string]struct {
		fifo  bool
		delay time.Duration
		after time.Duration
	}{
		"whole seconds":    {false, time.Minute, time.Minute},
		"part of a second": {false, 90*time.Second + 1, 91 * time.Second},
		"too long":         {false, time.Hour, 15 * time.Minute},
		"FIFO":             {true, time.Minute, 0},
	} {
		t.Run(name, func(t *testing.T) {
			virtual(t, setup{fifo: tt.fifo}, func(t *testing.T, w *world) {
				err := w.q.Send(t.Context(), []sqsqueue.Outgoing{{Body: []byte("held"), Delay: tt.delay, Again: true}, {Body: []byte("plain")}})
				if err != nil {
					t.Fatal(err)
				}
				if tt.after > 0 {
					time.Sleep(tt.after - time.Nanosecond)
					if c, err := w.q.Counts(t.Context()); err != nil || c != (sqsqueue.Counts{Visible: 1, Delayed: 1}) {
						t.Errorf("Counts = %+v, %v just before, want one delayed", c, err)
					}
					time.Sleep(time.Nanosecond)
				}
				if c, err := w.q.Counts(t.Context()); err != nil || c.Visible != 2 {
					t.Errorf("Counts = %+v, %v after %v, want both visible", c, err, tt.after)
				}
			})
		})
	}
}

// A queue may take less than SQS does, and then says so.
func TestHolds(t *testing.T) {
	for size, largest := range map[string]int{"": sqsqueue.MaxMessage, "1024": 1024, "262144": 262144} {
		w := newWorld(t, setup{})
		if size != "" {
			w.set(t, "MaximumMessageSize", size)
		}
		q, err := sqsqueue.Open(t.Context(), w.client, sqsqueue.Config{Queue: w.name})
		if err != nil {
			t.Fatal(err)
		}
		body := []byte(strings.Repeat("x", largest-room))
		if !q.Holds(body) || q.Holds(append(body, 'x')) {
			t.Errorf("a queue of %q: Holds = %t with %d bytes and %t with one more, want the first only", size, q.Holds(body), len(body), q.Holds(append(body, 'x')))
		}
		if err := q.Send(t.Context(), []sqsqueue.Outgoing{{Body: body, Again: true}}); err != nil {
			t.Errorf("a queue of %q: Send of what it holds = %v, want nil", size, err)
		}
	}
}

func TestReference(t *testing.T) {
	got := sqsqueue.Reference(jobs.Key{Run: "q3", CustomID: "a\"<é\uffff"}, "s3://b/runs/q3/bodies/00/a.json")
	want := `{"custom_id":"a\"\u003cé\uffff","body_ref":"s3://b/runs/q3/bodies/00/a.json","upwell":{"run":"q3"}}`
	if string(got) != want {
		t.Errorf("Reference = %s, want %s", got, want)
	}
	if err := sqsqueue.Fits(got); err != nil {
		t.Errorf("Fits(%s) = %v, want nil", got, err)
	}
}

func TestFits(t *testing.T) {
	for _, tt := range []struct{ name, body, err string }{
		{"empty", "", "empty: SQS takes no message without a body"},
		{"short", "a", ""},
		{"largest", strings.Repeat("a", sqsqueue.MaxMessage-room), ""},
		{"too large", strings.Repeat("a", sqsqueue.MaxMessage-room+1), "1048449 bytes: SQS takes at most 1048448 for a job"},
		{"white space", "\t\r\n é 😀 \u007f", ""},
		{"NUL", "abc\x00", "byte 3 is a control character that SQS does not take: write it as a \\u escape"},
		{"escape", "é\x1b", "byte 2 is a control character that SQS does not take: write it as a \\u escape"},
		{"noncharacter", "\uffff", "byte 0 is a control character that SQS does not take: write it as a \\u escape"},
		{"replacement character", "\ufffd", ""},
		{"Latin-1", "caf\xe9", "not UTF-8: SQS takes text only"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := ""
			if err := sqsqueue.Fits([]byte(tt.body)); err != nil {
				got = err.Error()
			}
			if got != tt.err {
				t.Errorf("Fits = %q, want %q", got, tt.err)
			}
			w := newWorld(t, setup{})
			err := w.q.Send(t.Context(), []sqsqueue.Outgoing{{Body: []byte(tt.body), Again: true}})
			if ms := w.Messages("jobs"); tt.err == "" && (err != nil || len(ms) != 1 || ms[0].Body != tt.body) {
				t.Errorf("Send = %v, queued %d, want it queued as it is", err, len(ms))
			}
		})
	}
}

// What SQS does not take is spelt otherwise, and nothing else is touched.
func TestEscape(t *testing.T) {
	for _, text := range []string{`{"a":"é😀"}`, "{\"a\":\"x\uffffy\ufffez\ufffd\"}"} {
		got := sqsqueue.Escape([]byte(text))
		var was, is map[string]string
		if err := errors.Join(json.Unmarshal([]byte(text), &was), json.Unmarshal(got, &is)); err != nil || was["a"] != is["a"] {
			t.Errorf("Escape(%q) = %q, %v, want the same JSON", text, got, err)
		}
		if err := sqsqueue.Fits(got); err != nil {
			t.Errorf("Escape(%q) = %q: %v", text, got, err)
		}
	}
}

func TestBury(t *testing.T) {
	failed := time.Date(2026, 3, 1, 13, 0, 0, 0, time.FixedZone("", 3600))
	full := jobs.DeadLetter{
		Key:   jobs.Key{Run: "r", CustomID: "c"},
		Class: jobs.BadRequest, Reason: "no such model", Status: 400, RequestID: "req-1", Attempts: 3, FirstFailed: failed,
	}
	with := func(change func(*jobs.DeadLetter)) jobs.DeadLetter {
		l := full
		change(&l)
		return l
	}
	all := map[string]string{
		"upwell.class": "bad_request", "upwell.reason": "no such model", "upwell.status": "400", "upwell.request_id": "req-1",
		"upwell.attempts": "3", "upwell.run": "r", "upwell.custom_id": "c", "upwell.first_failed": "2026-03-01T12:00:00Z",
	}
	but := func(name, value string) map[string]string {
		m := maps.Clone(all)
		if m[name] = value; value == "" {
			delete(m, name)
		}
		return m
	}
	for name, tt := range map[string]struct {
		letter jobs.DeadLetter
		want   map[string]string
	}{
		"all of it":     {full, all},
		"no run":        {with(func(l *jobs.DeadLetter) { l.Run = "" }), but("upwell.run", "")},
		"no custom_id":  {with(func(l *jobs.DeadLetter) { l.CustomID = "" }), but("upwell.custom_id", "")},
		"no answer":     {with(func(l *jobs.DeadLetter) { l.Status = 0 }), but("upwell.status", "")},
		"no request id": {with(func(l *jobs.DeadLetter) { l.RequestID = "" }), but("upwell.request_id", "")},
		"no reason":     {with(func(l *jobs.DeadLetter) { l.Reason = "" }), but("upwell.reason", "")},
		"no attempts":   {with(func(l *jobs.DeadLetter) { l.Attempts = 0 }), but("upwell.attempts", "0")},
		"control characters": {
			with(func(l *jobs.DeadLetter) { l.CustomID, l.Reason = "a\x00b", "one\ntwo\x1b[31m\ufffe." }),
			func() map[string]string {
				m := but("upwell.custom_id", "a b")
				m["upwell.reason"] = "one\ntwo [31m ."
				return m
			}(),
		},
		"a name that is 0": {with(func(l *jobs.DeadLetter) { l.CustomID = "0" }), but("upwell.custom_id", "0")},
		"long reason":      {with(func(l *jobs.DeadLetter) { l.Reason = strings.Repeat("x", 1024) }), but("upwell.reason", strings.Repeat("x", 1024))},
		"longer reason":    {with(func(l *jobs.DeadLetter) { l.Reason = strings.Repeat("x", 1025) }), but("upwell.reason", strings.Repeat("x", 1021)+"…")},
		"cut at a whole character": {
			with(func(l *jobs.DeadLetter) { l.Reason = "xx" + strings.Repeat("😀", 300) }),
			but("upwell.reason", "xx"+strings.Repeat("😀", 254)+"…"),
		},
	} {
		t.Run(name, func(t *testing.T) {
			everywhere(t, setup{}, func(t *testing.T, w *world) {
				w.send(`{"custom_id":"c"}`)
				m := w.one()
				if err := w.q.Bury(t.Context(), m, tt.letter); err != nil {
					t.Errorf("Bury = %v, want nil", err)
				}
				w.wantStats(0, 1) // it stays: Ack follows
				letter := w.letter()
				if letter.Body != `{"custom_id":"c"}` {
					t.Errorf("body is %q", letter.Body)
				}
				if diff := cmp.Diff(tt.want, values(t, letter)); diff != "" {
					t.Errorf("-want +got:\n%s", diff)
				}
			})
		})
	}
}

// letter returns the one letter in the dead-letter queue.
func (w *world) letter() sqssim.Message {
	w.Helper()
	letters := w.Messages(w.dead)
	if len(letters) != 1 {
		w.Fatalf("%d dead letters, want 1", len(letters))
	}
	return letters[0]
}

// values returns the attributes of a letter, which are all strings.
func values(t *testing.T, m sqssim.Message) map[string]string {
	t.Helper()
	got := map[string]string{}
	for name, a := range m.Attributes {
		if got[name] = a.StringValue; a.DataType != "String" || !utf8.ValidString(a.StringValue) {
			t.Errorf("attribute %s is %q of type %s, want text", name, a.StringValue, a.DataType)
		}
	}
	return got
}

// A letter says all that is known about a job's end, or is not sent.
func TestBuryLargeBody(t *testing.T) {
	letter := jobs.DeadLetter{
		Key: jobs.Key{Run: "run", CustomID: "id"}, Class: jobs.Poison, Reason: strings.Repeat("r", 2000),
		Attempts: 12, FirstFailed: time.Unix(0, 0),
	}
	weigh := func(name, value string) int { return len(name) + len("String") + len(value) }
	weight := weigh("upwell.class", "poison") + weigh("upwell.run", "run") + weigh("upwell.custom_id", "id") + weigh("upwell.attempts", "12") +
		weigh("upwell.first_failed", "1970-01-01T00:00:00Z") + weigh("upwell.reason", strings.Repeat("r", 1024))
	const names = "attempts class custom_id first_failed reason run"
	for _, tt := range []struct {
		name  string
		size  int
		limit int // of the queue, when it is not SQS's
		ref   string
		body  string // of the letter, when it has a ref
		err   bool   // it is too large
		other bool   // there is another error
	}{
		{name: "just fits", size: sqsqueue.MaxMessage - weight},
		{name: "one byte too many", size: sqsqueue.MaxMessage - weight + 1, err: true},
		{name: "largest message", size: sqsqueue.MaxMessage, err: true},
		{name: "fits the queue", size: 4096 - weight, limit: 4096},
		{name: "too large for the queue", size: 4096 - weight + 1, limit: 4096, err: true},
		{
			name: "stored", size: sqsqueue.MaxMessage, ref: "s3://b/team/runs/run/letters/00/id.json",
			body: `{"custom_id":"id","body_ref":"s3://b/team/runs/run/letters/00/id.json"}`,
		},
		{name: "stored, and still too large for the queue", size: 1, limit: 1024, ref: "s3://b/k", other: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, setup{})
			if tt.limit > 0 {
				w.setFor(t, w.dead, "MaximumMessageSize", strconv.Itoa(tt.limit))
			}
			l, body := letter, strings.Repeat("b", tt.size)
			l.BodyRef = tt.ref
			err := w.q.Bury(t.Context(), jobs.Message{Body: []byte(body)}, l)
			if tt.err || tt.other {
				if n := len(w.Messages(w.dead)); err == nil || errors.Is(err, worker.ErrTooLarge) != tt.err || n != 0 {
					t.Errorf("Bury = %v and left %d letters, want none, and %v: %v", err, n, worker.ErrTooLarge, tt.err)
				}
				if tt.limit == 0 && w.requests("SendMessage") != 0 {
					t.Error("Bury sent what SQS does not take")
				}
				return
			}
			if err != nil {
				t.Fatalf("Bury = %v, want nil", err)
			}
			want := body
			if tt.ref != "" {
				want = tt.body
			}
			got := w.letter()
			if got.Body != want {
				t.Errorf("the letter has a body of %d bytes, %.80q, want %.80q", len(got.Body), got.Body, want)
			}
			if got := strings.ReplaceAll(strings.Join(slices.Sorted(maps.Keys(values(t, got))), " "), "upwell.", ""); got != names {
				t.Errorf("attributes %q, want %q", got, names)
			}
		})
	}
}

// What a pointer names may hold characters that SQS takes only as escapes, and
// it may name nothing at all.
func TestBuryPointers(t *testing.T) {
	for id, want := range map[string]string{
		"":                  `{"body_ref":"s3://b/k"}`,
		"a\x01\ufffe\uffff": `{"custom_id":"a\u0001\ufffe\uffff","body_ref":"s3://b/k"}`,
	} {
		w := newWorld(t, setup{})
		if err := w.q.Bury(t.Context(), jobs.Message{Body: []byte("x")}, jobs.DeadLetter{Key: jobs.Key{CustomID: id}, BodyRef: "s3://b/k"}); err != nil {
			t.Errorf("Bury(%q) = %v, want nil", id, err)
			continue
		}
		if got := w.letter().Body; got != want {
			t.Errorf("the letter of %q is %s, want %s", id, got, want)
		}
	}
}

// A letter in a FIFO queue has its job's group, and burying again within five
// minutes changes nothing.
func TestBuryFIFO(t *testing.T) {
	virtual(t, setup{fifo: true}, func(t *testing.T, w *world) {
		w.send("a")
		m := w.one()
		for range 2 {
			if err := w.q.Bury(t.Context(), m, jobs.DeadLetter{}); err != nil {
				t.Errorf("Bury = %v, want nil", err)
			}
		}
		if got := w.letter(); got.DeduplicationID != m.ID || got.Group != w.Messages(w.name)[0].Group {
			t.Errorf("letter has group %q and deduplication id %q", got.Group, got.DeduplicationID)
		}
	})
	// The message comes from a standard queue, where it has no group.
	virtual(t, setup{}, func(t *testing.T, w *world) {
		w.create(t, "dead.fifo", attrs{"FifoQueue": "true"})
		q, err := sqsqueue.Open(t.Context(), w.client, sqsqueue.Config{Queue: "jobs", Dead: "dead.fifo"})
		if err != nil {
			t.Fatal(err)
		}
		w.send("a")
		m := w.one()
		if err := q.Bury(t.Context(), m, jobs.DeadLetter{}); err != nil {
			t.Errorf("Bury = %v, want nil", err)
		}
		if got := w.Messages("dead.fifo"); len(got) != 1 || got[0].Group != m.ID {
			t.Errorf("letters %+v, want one with its id as group", got)
		}
	})
}
