// Package traces tells the story of each job as an OpenTelemetry trace, from the
// submit through the queue and the attempts to what is stored.
//
//	send QUEUE                 the submit
//	└ process QUEUE            a delivery of the message; others follow if it is given back
//	  ├ wait for permit        what an attempt waited for its lane, if it is a millisecond or more
//	  ├ chat MODEL             an attempt
//	  └ store                  a request to the bucket, for the result or the error line
//
// A [Traces] reads the worker's event stream, as logs and metrics do, and [Traces.Send]
// makes the context that travels with a message, see package sqsqueue for how. Spans
// go to a collector by OTLP over HTTP. There are none unless the environment asks for
// them, in OpenTelemetry's own words: see [New].
//
// # Content
//
// Spans have what the conventions for generative AI have of a call: model, tokens,
// status. They have the job's run and custom_id. They have no prompt, no answer and no
// text of an error or a reason, as these may quote both; of an error its kind is there.
// All of it is, cut to 8 KiB each, when OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT
// is true. That --redact keeps content out of errors and logs does not change what is
// asked for there: errors come as redacted as they are elsewhere, and prompts and
// answers come whole.
//
// # Bounds
//
// Spans wait in a queue of OTEL_BSP_MAX_QUEUE_SIZE (2048), and are dropped when it is
// full: a collector that is slow, or gone, costs neither memory nor time. How many were
// is said at the end. Of messages whose end is never told the oldest are let go.
package traces

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"upwell/jobs"
)

const (
	// heldSpans is how many messages are followed at a time: more than a worker holds.
	heldSpans = 1 << 14

	// farewell is the longest that Shutdown takes.
	farewell = 10 * time.Second
)

// A Traces makes spans. Nil makes none: all methods of a nil Traces do nothing. They
// may be called concurrently.
type Traces struct {
	provider *sdktrace.TracerProvider
	tracer   trace.Tracer
	exporter *exporter // nil if another was given
	content  bool      // whether prompts and answers are asked for

	mu    sync.Mutex
	queue string                       // that messages are received from, or empty
	held  *newest[string, trace.Span]  // of messages under way, by id
	puts  *newest[jobs.Key, []request] // of jobs that are about to be settled
}

// newTraces returns a Traces that makes its spans with p.
func newTraces(p *sdktrace.TracerProvider, version string, content bool) *Traces {
	return &Traces{
		provider: p, tracer: p.Tracer("upwell", trace.WithInstrumentationVersion(version)), content: content,
		held: newNewest[string, trace.Span](heldSpans), puts: newNewest[jobs.Key, []request](heldSpans),
	}
}

// SetQueue names the queue that messages come from, by name or URL. Until then, their
// spans do without.
func (t *Traces) SetQueue(name string) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.queue = nameOf(name)
}

// SetLog has failures to send spans logged there, one a minute at most. Until then,
// they are not.
func (t *Traces) SetLog(log *slog.Logger) {
	if t == nil || t.exporter == nil {
		return
	}
	t.exporter.log.Store(log)
}

// nameOf returns the name of the queue with that name or URL.
func nameOf(queue string) string { return queue[strings.LastIndexByte(queue, '/')+1:] }

// Send begins the trace of a job that is sent to the queue, of that name or URL, and
// returns what its message has to carry. end is to be called once it is sent, or is
// not. A trace that is not sampled is carried as well, so that the worker leaves it
// out too.
func (t *Traces) Send(queue string, k jobs.Key, at time.Time) (carry jobs.Trace, end func(error)) {
	if t == nil {
		return jobs.Trace{}, func(error) {}
	}
	queue = nameOf(queue)
	ctx, span := t.tracer.Start(context.Background(), named("send", queue), trace.WithNewRoot(), trace.WithTimestamp(at),
		trace.WithSpanKind(trace.SpanKindProducer), trace.WithAttributes(append(job(k), messaging("send", queue)...)...))
	carrier := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, carrier)
	return jobs.Trace{Parent: carrier.Get("traceparent"), State: carrier.Get("tracestate")}, func(err error) {
		t.fail(span, err)
		span.End()
	}
}

// fail marks the span as failed, unless err is nil.
func (t *Traces) fail(span trace.Span, err error) {
	if err == nil {
		return
	}
	kind := kindOf(err)
	span.SetAttributes(attribute.String(keyErrorType, kind))
	span.SetStatus(codes.Error, t.text(kind, err.Error()))
}

// text returns what may be said: a kind, or text that may quote what jobs say if that
// is asked for.
func (t *Traces) text(kind, text string) string {
	if t.content && text != "" {
		return cut(text, maxContent)
	}
	return kind
}

// Shutdown ends what is under way, and waits until all spans are sent, but no longer
// than 10s. Its error says that some are not.
func (t *Traces) Shutdown(ctx context.Context) error {
	if t == nil {
		return nil
	}
	t.mu.Lock()
	for span, ok := t.held.oldest(); ok; span, ok = t.held.oldest() {
		span.End()
	}
	t.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, farewell)
	defer cancel()
	err := t.provider.Shutdown(ctx)
	if t.exporter == nil {
		return err
	}
	if err != nil { // it is still at it: no longer
		err = errors.Join(err, t.exporter.Shutdown(context.WithoutCancel(ctx)))
	}
	return errors.Join(err, t.exporter.balance())
}
