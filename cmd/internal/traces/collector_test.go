package traces_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"upwell/cmd/internal/traces"
	"upwell/jobs"
	"upwell/jobs/sqsqueue"
	"upwell/jobs/sqsqueue/sqssim"
	"upwell/throttle"
	"upwell/worker"
	"upwell/worker/workertest"
)

// A request and an export may take their time, on a machine that is busy: one that is
// given up may have been taken all the same, and is told of as dropped.
const (
	patient  = "OTEL_EXPORTER_OTLP_TIMEOUT=600000"
	atLength = "OTEL_BSP_EXPORT_TIMEOUT=600000"
)

// A collecting speaks OTLP over HTTP.
type collecting struct {
	*httptest.Server

	answer func(http.ResponseWriter, *http.Request) // default: thanks

	mu       sync.Mutex
	payload  []byte // of all requests
	requests []*http.Request
	spans    []*tracepb.Span
	about    map[string]string // the resource
}

func newCollecting(t *testing.T) *collecting {
	t.Helper()
	c := &collecting{about: make(map[string]string)}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.take(t, r)
		if c.answer != nil {
			c.answer(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/x-protobuf")
	}))
	t.Cleanup(c.Close)
	return c
}

// take notes a request.
func (c *collecting) take(t *testing.T, r *http.Request) {
	t.Helper()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // cut off, by Shutdown
	}
	var in collector.ExportTraceServiceRequest
	if err := proto.Unmarshal(body, &in); err != nil {
		t.Errorf("a request that is none: %v", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.payload = append(c.payload, body...)
	c.requests = append(c.requests, r)
	for _, rs := range in.GetResourceSpans() {
		for _, a := range rs.GetResource().GetAttributes() {
			c.about[a.GetKey()] = a.GetValue().GetStringValue()
		}
		for _, ss := range rs.GetScopeSpans() {
			c.spans = append(c.spans, ss.GetSpans()...)
		}
	}
}

func (c *collecting) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.requests)
}

// TestCollector has jobs go from a submit through SQS and a worker, and looks at what
// the collector has been sent of it.
func TestCollector(t *testing.T) {
	for _, content := range []bool{false, true} {
		t.Run(fmt.Sprintf("content=%t", content), func(t *testing.T) {
			c := newCollecting(t)
			setenv(t, "OTEL_EXPORTER_OTLP_ENDPOINT="+c.URL, "OTEL_EXPORTER_OTLP_HEADERS=authorization=Bearer%20"+secret, patient, atLength,
				"OTEL_RESOURCE_ATTRIBUTES=deployment.environment.name=test", "OPENAI_API_KEY="+secret,
				fmt.Sprintf("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT=%t", content))
			throughSQS(t)
			c.look(t, content)
		})
	}
}

// throughSQS has two jobs submitted, answered and refused for good.
func throughSQS(t *testing.T) {
	t.Helper()
	client := sqsqueue.NewClient(aws.Config{
		Region: "us-east-1", Credentials: credentials.NewStaticCredentialsProvider("id", "secret", ""),
		HTTPClient: &http.Client{Transport: sqssim.New(sqssim.Config{})}, BaseEndpoint: new("http://sqs.test"),
	})
	for _, name := range []string{"jobs", "dead"} {
		if _, err := client.CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: &name}); err != nil {
			t.Fatal(err)
		}
	}
	queue, err := sqsqueue.Open(t.Context(), client, sqsqueue.Config{Queue: "jobs", Dead: "dead", Poll: time.Second})
	if err != nil {
		t.Fatal(err)
	}

	submit := newTraces(t)
	var out []sqsqueue.Outgoing
	var ends []func(error)
	for _, id := range []string{"good", "bad"} {
		carry, end := submit.Send(queue.URL(), jobs.Key{Run: "default", CustomID: id}, time.Now())
		ends = append(ends, end)
		out = append(out, sqsqueue.Outgoing{Trace: carry, Body: fmt.Appendf(nil,
			`{"custom_id":%q,"url":"/v1/responses","body":{"model":"m","input":%q}}`, id, prompt)})
	}
	err = queue.Send(t.Context(), out)
	for _, end := range ends {
		end(err)
	}
	if err := errors.Join(err, submit.Shutdown(t.Context())); err != nil {
		t.Fatal(err)
	}

	tr := newTraces(t)
	tr.SetQueue(queue.URL())
	results := &workertest.Sink{T: t}
	endpoint := &workertest.Endpoint{Func: func(_ context.Context, c worker.Call) (worker.Answer, error) {
		ans := workertest.Answer(c)
		ans.Text = answer
		if c.Job.CustomID == "bad" {
			return worker.Answer{}, &worker.Error{Kind: worker.Permanent, Class: jobs.SchemaFailed, Status: 200, Err: errors.New(reason + prompt), Answer: &ans}
		}
		return ans, nil
	}}
	w, err := worker.New(queue, endpoint, results, throttle.NewSet(nil), worker.Config{Regions: []string{"us-west-2"}, ExitWhenEmpty: true, Observe: tr.Observe})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.Run(t.Context()), tr.Shutdown(t.Context())); err != nil {
		t.Fatal(err)
	}
	if len(results.Results()) != 1 || len(results.Errors()) != 1 {
		t.Errorf("%d results and %d errors, want one of each", len(results.Results()), len(results.Errors()))
	}
}

func newTraces(t *testing.T) *traces.Traces {
	t.Helper()
	tr, err := traces.New(t.Context(), os.Getenv, "1.2.3")
	if err != nil || tr == nil {
		t.Fatalf("New = %v, %v, want traces", tr, err)
	}
	return tr
}

// look checks what has been collected of throughSQS.
func (c *collecting) look(t *testing.T, content bool) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	byTrace := make(map[string][]string)
	names := make(map[string]string)
	for _, s := range c.spans {
		names[string(s.GetSpanId())] = s.GetName()
	}
	for _, s := range c.spans {
		id := hex.EncodeToString(s.GetTraceId())
		byTrace[id] = append(byTrace[id], names[string(s.GetParentSpanId())]+" > "+s.GetName())
	}
	want := []string{" > send jobs", "process jobs > chat m", "process jobs > store", "send jobs > process jobs"}
	if len(byTrace) != 2 {
		t.Errorf("%d traces, want one for each job", len(byTrace))
	}
	for id, got := range byTrace {
		got = slices.DeleteFunc(got, func(s string) bool { return s == "process jobs > wait for permit" }) // there may have been one
		if slices.Sort(got); !slices.Equal(got, want) {
			t.Errorf("trace %s has %q, want %q", id, got, want)
		}
	}
	for k, v := range map[string]string{"service.name": "upwell", "service.version": "1.2.3", "deployment.environment.name": "test"} {
		if c.about[k] != v {
			t.Errorf("%s is %q, want %q", k, c.about[k], v)
		}
	}
	for _, r := range c.requests {
		if r.URL.Path != "/v1/traces" || r.Header.Get("Authorization") != "Bearer "+secret {
			t.Errorf("a request to %s with %q, want /v1/traces and what the environment says", r.URL.Path, r.Header.Get("Authorization"))
		}
	}
	for _, text := range []string{prompt, answer, reason} {
		if bytes.Contains(c.payload, []byte(text)) != content {
			t.Errorf("content is asked for: %t; %s is sent: %t", content, text, !content)
		}
	}
	if bytes.Contains(c.payload, []byte(secret)) {
		t.Error("the secret is among what is sent")
	}
}

// busy has n jobs received and stored, and returns how long that took.
func busy(tr *traces.Traces, n int) time.Duration {
	start := time.Now()
	for i := range n {
		m := jobs.Message{ID: fmt.Sprint(i), Received: time.Now()}
		tr.Observe(worker.Event{Kind: worker.Received, At: time.Now(), Message: m.ID, Delivery: &m})
		tr.Observe(worker.Event{Kind: worker.Stored, At: time.Now(), Message: m.ID})
	}
	return time.Since(start)
}

// TestCollectorTrouble has a collector that is not there, that never answers, and that
// refuses, beside work that is to go on all the same.
func TestCollectorTrouble(t *testing.T) {
	const (
		most    = 5 * time.Second // for an end within 200ms; less than it would take without
		never   = 2 * time.Minute // for work of milliseconds; a collector that is waited for takes more
		chances = 5               // on a machine that stands still for a while now and then
	)
	for _, tt := range []struct {
		name string
		url  func(*testing.T) string
	}{
		{"down", func(t *testing.T) string {
			l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			return "http://" + l.Addr().String()
		}},
		{"silent", func(t *testing.T) string {
			c := newCollecting(t)
			end := make(chan struct{})
			t.Cleanup(func() { close(end) }) // before the server is closed
			c.answer = func(_ http.ResponseWriter, r *http.Request) {
				select {
				case <-end:
				case <-r.Context().Done():
				}
			}
			return c.URL
		}},
		{"overloaded", func(t *testing.T) string {
			c := newCollecting(t)
			c.answer = func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) }
			return c.URL
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			setenv(t, "OTEL_EXPORTER_OTLP_ENDPOINT="+tt.url(t), "OTEL_BSP_SCHEDULE_DELAY=1")
			var ends []time.Duration
			for range chances {
				tr := newTraces(t)
				if took := busy(tr, 10_000); took > never {
					t.Errorf("10,000 jobs took %v, want no time", took)
				}
				ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
				start := time.Now()
				err := tr.Shutdown(ctx)
				ends = append(ends, time.Since(start))
				cancel()
				if err == nil {
					t.Error("Shutdown = nil, want an error")
				}
				if ends[len(ends)-1] <= most {
					return
				}
			}
			t.Errorf("Shutdown took %v, want about 200ms", ends)
		})
	}
}

// TestDrops has a collector be slower than the work, and wants every span either sent or
// told of as dropped.
func TestDrops(t *testing.T) {
	c := newCollecting(t)
	ready := make(chan struct{})
	c.answer = func(http.ResponseWriter, *http.Request) { <-ready }
	setenv(t, "OTEL_EXPORTER_OTLP_ENDPOINT="+c.URL, "OTEL_BSP_SCHEDULE_DELAY=1", "OTEL_BSP_MAX_QUEUE_SIZE=8", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE=4", patient, atLength)
	tr := newTraces(t)
	busy(tr, 100)
	close(ready)
	err := tr.Shutdown(t.Context())
	var dropped int
	if err != nil {
		_, _ = fmt.Sscanf(err.Error(), "%d of 100 spans were dropped", &dropped)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if dropped == 0 || len(c.spans)+dropped != 100 {
		t.Errorf("%d spans sent, and Shutdown = %v, want it to tell of the others of 100", len(c.spans), err)
	}
}

// TestRefusedExports has a collector refuse, and repeat what it has been sent.
func TestRefusedExports(t *testing.T) {
	c := newCollecting(t)
	c.answer = func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprintf(w, "not with %q", r.Header.Get("Authorization"))
	}
	setenv(t, "OTEL_EXPORTER_OTLP_ENDPOINT="+c.URL, "OTEL_EXPORTER_OTLP_HEADERS=authorization=Bearer%20"+secret, "OTEL_BSP_SCHEDULE_DELAY=1", patient, atLength)
	tr := newTraces(t)
	var log bytes.Buffer
	tr.SetLog(slog.New(slog.NewTextHandler(&log, nil)))
	start := time.Now()
	for c.count() < 3 && time.Since(start) < 5*time.Minute {
		busy(tr, 1)
		time.Sleep(time.Millisecond)
	}
	err := tr.Shutdown(t.Context())
	if err == nil || !strings.Contains(err.Error(), "401") || strings.Contains(err.Error(), secret) {
		t.Errorf("Shutdown = %v, want the status, and no secret", err)
	}
	most := 1 + int(time.Since(start)/time.Minute) // one a minute
	said := log.String()
	if n := strings.Count(said, "\n"); c.count() < 3 || n < 1 || n > most || strings.Contains(said, secret) || !strings.Contains(said, "[redacted]") {
		t.Errorf("%d refusals logged, of %d:\n%swant %d at most, and one at least, without the secret", n, c.count(), said, most)
	}
}

// TestFailuresAreLoggedOnceAMinute fails every second for three minutes.
func TestFailuresAreLoggedOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		e := traces.Exporting(failing{}, slog.New(slog.NewTextHandler(&log, nil)))
		spans := tracetest.SpanStubs{{}, {}}.Snapshots()
		for range 150 {
			if err := e.ExportSpans(t.Context(), spans); err != nil {
				t.Errorf("ExportSpans = %v, want nil: the SDK would print it", err)
			}
			time.Sleep(time.Second)
		}
		said := log.String()
		if strings.Count(said, "\n") != 3 || !strings.Contains(said, "spans=2 ") || strings.Count(said, "spans=120 ") != 2 {
			t.Errorf("logged:\n%swant three lines, of 2, 120 and 120 spans", said)
		}
		if strings.Contains(said, strings.Repeat("x", 600)) {
			t.Error("the collector's text is logged in full")
		}
	})
}

type failing struct{}

func (failing) ExportSpans(context.Context, []sdktrace.ReadOnlySpan) error {
	return errors.New(strings.Repeat("x", 1<<20))
}
func (failing) Shutdown(context.Context) error { return nil }
