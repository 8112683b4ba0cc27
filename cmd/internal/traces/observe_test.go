package traces_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"upwell/cmd/internal/traces"
	"upwell/jobs"
	"upwell/throttle"
	"upwell/worker"
)

// Changes of one line that these tests have been seen to catch:
//
//   - what the message carries is not looked at, or a send carries nothing
//   - a span ends when it is told of, and not when that happened
//   - content is there unasked: as an attribute, a status or the reason of an event
//   - what never ends, or is not sampled, is held; requests that store are kept
//   - ids of traces do not begin with the time
//   - a failure is logged each time, or with a header in it; Shutdown does not heed ctx

var (
	key  = jobs.Key{Run: "contracts", CustomID: "msa-0042"}
	flex = throttle.Lane{Region: "us-west-2", Model: "xai.grok-4.3", Tier: "flex"}
)

// Texts that no span may have in it unless it is asked for.
const (
	prompt   = "THE-PROMPT"
	answer   = "THE-ANSWER"
	findings = "THE-FINDINGS"
	reason   = "THE-REASON"
)

// tell writes what became of a trace: each span beneath its parent, in the order in
// which they began, with times from when the first did.
func tell(spans []sdktrace.ReadOnlySpan) string {
	spans = slices.Clone(spans)
	slices.SortStableFunc(spans, func(a, b sdktrace.ReadOnlySpan) int { return a.StartTime().Compare(b.StartTime()) })
	known := make(map[trace.SpanID]bool)
	for _, s := range spans {
		known[s.SpanContext().SpanID()] = true
	}
	var b strings.Builder
	var write func(parent trace.SpanID, indent string)
	write = func(parent trace.SpanID, indent string) {
		for _, s := range spans {
			p := s.Parent().SpanID()
			if !known[p] {
				p = trace.SpanID{}
			}
			if p != parent {
				continue
			}
			start := s.StartTime().Sub(spans[0].StartTime())
			fmt.Fprintf(&b, "%s%s (%s) %v-%v", indent, s.Name(), s.SpanKind(), start, start+s.EndTime().Sub(s.StartTime()))
			if st := s.Status(); st.Code == codes.Error {
				fmt.Fprintf(&b, " failed: %s", st.Description)
			}
			b.WriteByte('\n')
			for _, a := range s.Attributes() {
				if a.Key != "messaging.message.id" {
					fmt.Fprintf(&b, "%s  %s=%s\n", indent, a.Key, a.Value.String())
				}
			}
			for _, e := range s.Events() {
				fmt.Fprintf(&b, "%s  ! %s at %v", indent, e.Name, e.Time.Sub(spans[0].StartTime()))
				for _, a := range e.Attributes {
					fmt.Fprintf(&b, " %s=%s", a.Key, a.Value.String())
				}
				b.WriteByte('\n')
			}
			write(s.SpanContext().SpanID(), indent+"    ")
		}
	}
	write(trace.SpanID{}, "")
	return b.String()
}

// brief is tell without attributes.
func brief(spans []sdktrace.ReadOnlySpan) string {
	var lines []string
	for line := range strings.Lines(tell(spans)) {
		if !strings.Contains(line, "=") || strings.Contains(line, "!") {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "")
}

// wantTrace checks that all spans are of one trace.
func wantTrace(t *testing.T, spans []sdktrace.ReadOnlySpan) {
	t.Helper()
	for _, s := range spans {
		if s.SpanContext().TraceID() != spans[0].SpanContext().TraceID() {
			t.Errorf("%s is of another trace than %s", s.Name(), spans[0].Name())
		}
	}
}

// A script sends events whose times are seconds from its start.
type script struct {
	*traces.Traces

	start time.Time
	m     jobs.Message
}

func newScript(tr *traces.Traces) *script {
	s := &script{Traces: tr, start: time.Now().Add(-time.Hour)}
	tr.SetQueue("https://sqs.us-west-2.amazonaws.com/123456789012/jobs")
	carry, end := tr.Send("jobs", key, s.start)
	end(nil)
	s.m = jobs.Message{ID: "m1", Body: []byte(prompt), Receives: 1, Sent: s.at(1), Trace: carry}
	return s
}

func (s *script) at(seconds float64) time.Time {
	return s.start.Add(time.Duration(seconds * float64(time.Second)))
}

func (s *script) received(at float64) {
	s.m.Received = s.at(at)
	s.Observe(worker.Event{Kind: worker.Received, At: s.at(at), Message: s.m.ID, Delivery: &s.m})
}

func (s *script) does(at float64, e worker.Event) {
	e.At = s.at(at)
	if e.Kind != worker.Requested || e.Op == worker.OpAck {
		e.Message = s.m.ID
	}
	if e.Kind != worker.Requested || e.Op != worker.OpAck {
		e.Key = key
	}
	s.Observe(e)
}

func (s *script) refused(from, to float64) {
	err := &worker.Error{Kind: worker.Throttled, Status: 429, RequestID: "req_1", Err: errors.New(reason)}
	s.does(to, worker.Event{
		Kind: worker.Attempted, Lane: flex, Outcome: throttle.Throttled, Err: err, Job: ask(),
		Attempt: jobs.Attempt{N: 1, Started: s.at(from), Status: 429, RequestID: "req_1", Error: reason},
	})
}

func ask() *jobs.Job {
	return &jobs.Job{Key: key, Body: []byte(`{"model":"xai.grok-4.3","input":"` + prompt + `"}`)}
}

func (s *script) answered(from, to float64) {
	s.does(to, worker.Event{
		Kind: worker.Attempted, Lane: flex, Outcome: throttle.Accepted, Job: ask(),
		Attempt: jobs.Attempt{N: 2, Started: s.at(from), Status: 200, RequestID: "req_2", Turn: jobs.Repair},
		Usage:   jobs.Usage{InputTokens: 100, CachedTokens: 40, OutputTokens: 20, ReasoningTokens: 5}, CostUSD: 0.0125,
		Answer: &worker.Answer{Text: answer, Model: "xai.grok-4.3-0815", Tier: "default"},
	})
}

func TestStory(t *testing.T) {
	tr, got := traces.Recorded(false)
	s := newScript(tr)
	s.received(3)
	s.does(3, worker.Event{Kind: worker.Permitted, Lane: flex})
	s.refused(3, 3.5)
	s.does(5.5, worker.Event{Kind: worker.Permitted, Lane: flex, Waited: 2 * time.Second})
	s.does(5.5, worker.Event{Kind: worker.Escalated, Lane: throttle.Lane{Region: "us-west-2", Model: "m", Tier: "default"}})
	s.answered(5.5, 9.5)
	s.does(10, worker.Event{Kind: worker.Requested, Op: worker.OpPut, Took: 250 * time.Millisecond, Err: errors.New("s3: " + answer)})
	s.does(11, worker.Event{Kind: worker.Requested, Op: worker.OpPut, Took: 125 * time.Millisecond})
	s.does(11, worker.Event{Kind: worker.Stored, Attempts: 2})
	s.does(12, worker.Event{Kind: worker.Requested, Op: worker.OpAck})
	spans := got.Ended()
	wantTrace(t, spans)
	story := tell(spans)
	const all = `send jobs (producer)`
	if !strings.HasPrefix(story, all) {
		t.Errorf("the story begins otherwise than with %q:\n%s", all, story)
	}
	_, story, _ = strings.Cut(story, "\n") // the end of a send is now
	want := `  upwell.run=contracts
  upwell.custom_id=msa-0042
  messaging.system=aws_sqs
  messaging.operation.name=send
  messaging.operation.type=send
  messaging.destination.name=jobs
    process jobs (consumer) 3s-11s
      messaging.system=aws_sqs
      messaging.operation.name=process
      messaging.operation.type=process
      messaging.destination.name=jobs
      messaging.message.body.size=10
      upwell.receives=1
      upwell.queued_seconds=2
      upwell.run=contracts
      upwell.custom_id=msa-0042
      upwell.end=stored
      upwell.attempts=2
      ! escalated at 5.5s gen_ai.request.model=m openai.request.service_tier=default cloud.region=us-west-2
        chat xai.grok-4.3 (client) 3s-3.5s failed: throttled
          gen_ai.request.model=xai.grok-4.3
          openai.request.service_tier=flex
          cloud.region=us-west-2
          gen_ai.operation.name=chat
          gen_ai.provider.name=aws.bedrock
          upwell.attempt=1
          http.response.status_code=429
          aws.request_id=req_1
          error.type=throttled
        wait for permit (internal) 3.5s-5.5s
          gen_ai.request.model=xai.grok-4.3
          openai.request.service_tier=flex
          cloud.region=us-west-2
        chat xai.grok-4.3 (client) 5.5s-9.5s
          gen_ai.request.model=xai.grok-4.3
          openai.request.service_tier=flex
          cloud.region=us-west-2
          gen_ai.operation.name=chat
          gen_ai.provider.name=aws.bedrock
          upwell.attempt=2
          upwell.turn=repair
          http.response.status_code=200
          aws.request_id=req_2
          gen_ai.usage.input_tokens=100
          gen_ai.usage.cache_read.input_tokens=40
          gen_ai.usage.output_tokens=20
          gen_ai.usage.reasoning.output_tokens=5
          gen_ai.response.model=xai.grok-4.3-0815
          openai.response.service_tier=default
          upwell.cost_usd=0.0125
        store (client) 9.75s-10s failed: _OTHER
          upwell.request=put
          error.type=_OTHER
        store (client) 10.875s-11s
          upwell.request=put
`
	if diff := cmp.Diff(want, story); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if messages, puts := tr.Holding(); messages+puts != 0 {
		t.Errorf("%d messages and %d requests are remembered, want none", messages, puts)
	}
}

// TestEnds has a delivery end in each way there is.
func TestEnds(t *testing.T) {
	letter := &jobs.DeadLetter{Key: key, Class: jobs.SchemaFailed, Reason: reason}
	for _, tt := range []struct {
		name string
		e    worker.Event
		want string
	}{
		{"duplicate", worker.Event{Kind: worker.Duplicate}, ""},
		{"buried", worker.Event{Kind: worker.Buried, Letter: letter}, " failed: schema"},
		{"passed", worker.Event{Kind: worker.Passed, Parts: 3}, ""},
		{
			"draining",
			worker.Event{Kind: worker.Released, Err: worker.ErrDraining},
			"\n      ! released at 4s upwell.delay_seconds=0 upwell.why=draining",
		},
		{
			"closed lane",
			worker.Event{Kind: worker.Released, Delay: time.Minute, Err: &throttle.ClosedError{Reason: reason}},
			"\n      ! released at 4s upwell.delay_seconds=60 upwell.why=lane_closed",
		},
		{
			"credential",
			worker.Event{Kind: worker.Released, Err: &worker.Error{Kind: worker.Unauthorized, Err: errors.New(reason)}},
			"\n      ! released at 4s upwell.delay_seconds=0 upwell.why=unauthorized",
		},
		{
			"lost",
			worker.Event{Kind: worker.Lost, Err: fmt.Errorf("%w: %s", worker.ErrGone, reason)},
			"\n      ! lost at 4s upwell.delay_seconds=0 upwell.why=delivery_over",
		},
		{"acknowledged", worker.Event{Kind: worker.Requested, Op: worker.OpAck}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tr, got := traces.Recorded(false)
			s := newScript(tr)
			s.received(3)
			s.does(4, tt.e)
			_, story, _ := strings.Cut(brief(got.Ended()), "\n")
			if want := "    process jobs (consumer) 3s-4s" + tt.want + "\n"; story != want {
				t.Errorf("got:\n%swant:\n%s", story, want)
			}
			wantTrace(t, got.Ended())
		})
	}
}

// TestContent looks for what jobs say in all that spans have.
func TestContent(t *testing.T) {
	for _, asked := range []bool{false, true} {
		tr, got := traces.Recorded(asked)
		s := newScript(tr)
		s.received(3)
		s.refused(3, 4)
		s.answered(4, 5)
		s.does(6, worker.Event{
			Kind: worker.Attempted, Lane: flex, Job: ask(), Attempt: jobs.Attempt{N: 3, Started: s.at(5), Error: findings},
			Err:    &worker.Error{Kind: worker.Permanent, Class: jobs.SchemaFailed, Findings: findings, Err: errors.New(findings)},
			Answer: &worker.Answer{Text: answer},
		})
		s.does(7, worker.Event{Kind: worker.Buried, Letter: &jobs.DeadLetter{Class: jobs.SchemaFailed, Reason: reason}})
		story := tell(got.Ended())
		for _, text := range []string{prompt, answer, findings, reason} {
			if strings.Contains(story, text) != asked {
				t.Errorf("content is asked for: %t; %s is there: %t", asked, text, !asked)
			}
		}
		if want := `gen_ai.input.messages=[{"role":"user","parts":[{"type":"text","content":"` + prompt + `"}]}]`; asked && !strings.Contains(story, want) {
			t.Errorf("no %s in\n%s", want, story)
		}
		if want := `gen_ai.output.messages=[{"role":"assistant","parts":[{"type":"text","content":"` + answer + `"}]}]`; asked && !strings.Contains(story, want) {
			t.Errorf("no %s in\n%s", want, story)
		}
	}
}

// TestContentIsCut has a prompt and an answer of a megabyte, and a custom_id as long.
func TestContentIsCut(t *testing.T) {
	const bound = 9 << 10 // with JSON around it
	long := strings.Repeat("é", 1<<19)
	tr, got := traces.Recorded(true)
	s := newScript(tr)
	s.received(3)
	job := &jobs.Job{Body: []byte(`{"messages":[{"role":"user","content":"` + long + `"}]}`)}
	s.does(4, worker.Event{
		Kind: worker.Attempted, Job: job, Answer: &worker.Answer{Text: long, Model: long, Tier: long},
		Lane: throttle.Lane{Model: long, Tier: long}, Err: errors.New(long),
	})
	s.m.ID = "m1"
	s.Observe(worker.Event{Kind: worker.Buried, Message: "m1", Key: jobs.Key{Run: "r", CustomID: long}, Letter: &jobs.DeadLetter{Reason: long}})
	for _, span := range got.Ended() {
		sizes := []int{len(span.Name()), len(span.Status().Description)}
		for _, a := range span.Attributes() {
			sizes = append(sizes, len(a.Value.String()))
		}
		if n := slices.Max(sizes); n > bound {
			t.Errorf("%.20s has a value of %d bytes, want at most %d", span.Name(), n, bound)
		}
	}
	if n := len(got.Ended()); n != 3 {
		t.Errorf("%d spans, want 3", n)
	}
}

// TestForgets has messages received whose ends are never told, and results stored of
// jobs that nobody has heard of.
func TestForgets(t *testing.T) {
	tr, got := traces.Recorded(false)
	tr.Hold(100)
	for i := range 1000 {
		id := fmt.Sprint(i)
		tr.Observe(worker.Event{Kind: worker.Received, At: time.Now(), Message: id, Delivery: &jobs.Message{ID: id}})
		tr.Observe(worker.Event{Kind: worker.Requested, Op: worker.OpPut, Key: jobs.Key{CustomID: id}})
	}
	if messages, puts := tr.Holding(); messages != 100 || puts != 100 || len(got.Ended()) != 900 {
		t.Errorf("%d messages and %d requests are remembered, and %d spans ended, want 100, 100 and 900", messages, puts, len(got.Ended()))
	}
	tr.Observe(worker.Event{Kind: worker.Received, At: time.Now(), Message: "999", Delivery: &jobs.Message{ID: "999"}})
	if messages, _ := tr.Holding(); messages != 100 || len(got.Ended()) != 901 {
		t.Errorf("after a second delivery %d messages are held and %d spans ended, want 100 and 901", messages, len(got.Ended()))
	}
	for range 50 {
		tr.Observe(worker.Event{Kind: worker.Requested, Op: worker.OpPut, Key: jobs.Key{CustomID: "999"}, Err: errors.New("x")})
	}
	tr.Observe(worker.Event{Kind: worker.Stored, Message: "999", Key: jobs.Key{CustomID: "999"}})
	if n := len(got.Ended()); n != 901+8+1 {
		t.Errorf("%d spans ended, want 901, eight requests, and the delivery", n)
	}
	if err := tr.Shutdown(t.Context()); err != nil || len(got.Ended()) != 910+99 {
		t.Errorf("Shutdown = %v, and %d spans ended, want all 1009", err, len(got.Ended()))
	}
}

// TestUnheardOf has events of a message that was never received.
func TestUnheardOf(t *testing.T) {
	tr, got := traces.Recorded(false)
	s := newScript(tr)
	s.refused(1, 2)
	s.does(3, worker.Event{Kind: worker.Permitted, Waited: time.Second})
	s.does(4, worker.Event{Kind: worker.Requested, Op: worker.OpPut})
	s.does(5, worker.Event{Kind: worker.Stored})
	if messages, puts := tr.Holding(); messages+puts != 0 || len(got.Ended()) != 1 {
		t.Errorf("%d messages and %d requests are remembered, and %d spans ended, want none but the send", messages, puts, len(got.Ended()))
	}
}

// TestSampling has a submit leave out a job, and the worker sample all.
func TestSampling(t *testing.T) {
	submit, sent := traces.Recorded(false, sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.NeverSample())))
	carry, end := submit.Send("jobs", key, time.Now())
	end(nil)
	if len(sent.Ended()) != 0 || !strings.HasSuffix(carry.Parent, "-00") {
		t.Errorf("%d spans, and %q is carried, want none, and a trace that is not sampled", len(sent.Ended()), carry.Parent)
	}
	tr, got := traces.Recorded(false, sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.AlwaysSample())))
	s := newScript(tr)
	before := len(got.Ended())
	s.m.Trace = carry
	s.received(1)
	if messages, _ := tr.Holding(); messages != 0 {
		t.Errorf("%d messages are held of a job that is left out, want none", messages)
	}
	s.answered(1, 2)
	s.does(3, worker.Event{Kind: worker.Requested, Op: worker.OpPut})
	s.does(3, worker.Event{Kind: worker.Stored})
	messages, puts := tr.Holding()
	if n := len(got.Ended()) - before; n != 0 || messages+puts != 0 {
		t.Errorf("%d spans, %d messages and %d requests of a job that is left out, want none", n, messages, puts)
	}
	s.m.Trace = jobs.Trace{} // nobody has decided
	s.received(1)
	s.does(3, worker.Event{Kind: worker.Stored})
	if n := len(got.Ended()) - before; n != 1 {
		t.Errorf("%d spans of a job that nobody has decided about, want 1", n)
	}
}

func TestSendFails(t *testing.T) {
	tr, got := traces.Recorded(false)
	_, end := tr.Send("http://sqs.test/000000000000/jobs.fifo", key, time.Now())
	end(errors.New(reason))
	span := got.Ended()[0]
	if span.Name() != "send jobs.fifo" || span.Status().Code != codes.Error || strings.Contains(tell(got.Ended()), reason) {
		t.Errorf("got:\n%swant a send that failed, without the reason", tell(got.Ended()))
	}
}

// TestXRayIDs wants ids of traces to begin with the time.
func TestXRayIDs(t *testing.T) {
	tr, _ := traces.Recorded(false)
	seen := make(map[string]bool)
	for range 1000 {
		before := time.Now().Unix()
		carry, end := tr.Send("jobs", key, time.Now())
		end(nil)
		var at int64
		if _, err := fmt.Sscanf(carry.Parent, "00-%08x", &at); err != nil || at < before || at > time.Now().Unix() {
			t.Fatalf("%q begins with %d (%v), want the time", carry.Parent, at, err)
		}
		seen[carry.Parent[3:35]] = true
	}
	if len(seen) != 1000 {
		t.Errorf("%d traces have %d ids", 1000, len(seen))
	}
}

func TestNil(t *testing.T) {
	var tr *traces.Traces
	tr.SetQueue("jobs")
	tr.SetLog(nil)
	tr.Observe(worker.Event{Kind: worker.Received})
	carry, end := tr.Send("jobs", key, time.Now())
	end(errors.New("x"))
	if err := tr.Shutdown(t.Context()); err != nil || carry != (jobs.Trace{}) {
		t.Errorf("Shutdown = %v, and %+v is carried, want nothing", err, carry)
	}
}

// BenchmarkObserve is what the events of a job cost that is answered at once. An op is
// a job: six events.
func BenchmarkObserve(b *testing.B) {
	for _, on := range []bool{false, true} {
		b.Run(map[bool]string{false: "off", true: "on"}[on], func(b *testing.B) {
			var tr *traces.Traces
			if on {
				tr = traces.Discarding()
			}
			m := &jobs.Message{ID: "m1", Body: []byte(prompt), Receives: 1, Sent: time.Now(), Received: time.Now(), Trace: jobs.Trace{
				Parent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
			}}
			job := ask()
			answer := &worker.Answer{Text: answer, Model: "xai.grok-4.3-0815", Tier: "default"}
			at := time.Now()
			b.ReportAllocs()
			for b.Loop() {
				tr.Observe(worker.Event{Kind: worker.Received, At: at, Message: "m1", Delivery: m})
				tr.Observe(worker.Event{Kind: worker.Permitted, At: at, Message: "m1", Key: key, Lane: flex})
				tr.Observe(worker.Event{
					Kind: worker.Attempted, At: at, Message: "m1", Key: key, Lane: flex, Job: job, Answer: answer,
					Attempt: jobs.Attempt{N: 1, Started: at, Status: 200, RequestID: "req_2"},
				})
				tr.Observe(worker.Event{Kind: worker.Requested, At: at, Op: worker.OpPut, Key: key, Took: time.Millisecond})
				tr.Observe(worker.Event{Kind: worker.Stored, At: at, Message: "m1", Key: key, Attempts: 1})
				tr.Observe(worker.Event{Kind: worker.Requested, At: at, Op: worker.OpAck, Message: "m1"})
			}
		})
	}
}
