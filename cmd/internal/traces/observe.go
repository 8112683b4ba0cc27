package traces

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"upwell/jobs"
	"upwell/worker"
)

const (
	// shortestWait is what a wait for a permit must take to have a span.
	shortestWait = time.Millisecond

	// maxRequests is how many requests are told of that try to store one result: the
	// last of them.
	maxRequests = 8
)

// A request is one that stores a result, or an error line.
type request struct {
	op   worker.Op
	at   time.Time // when it ended
	took time.Duration
	err  error
}

// Observe tells of an event. It is made for worker.Config.Observe.
func (t *Traces) Observe(e worker.Event) {
	if t == nil {
		return
	}
	switch e.Kind {
	case worker.Received, worker.Permitted, worker.Attempted, worker.Escalated, worker.Stored, worker.Duplicate,
		worker.Buried, worker.Passed, worker.Released, worker.Lost, worker.Requested:
		t.mu.Lock()
		defer t.mu.Unlock()
		t.observe(e)
	default: // it is of no message
	}
}

// observe is Observe with t.mu held.
func (t *Traces) observe(e worker.Event) {
	switch e.Kind {
	case worker.Received:
		t.received(e)
	case worker.Requested:
		t.requested(e)
	case worker.Permitted:
		if span, ok := t.held.get(e.Message); ok && e.Waited >= shortestWait {
			t.child(span, "wait for permit", e.At.Add(-e.Waited), trace.SpanKindInternal, lane(e.Lane)).End(trace.WithTimestamp(e.At))
		}
	case worker.Attempted:
		if span, ok := t.held.get(e.Message); ok {
			t.attempted(span, e)
		}
	case worker.Escalated:
		if span, ok := t.held.get(e.Message); ok {
			span.AddEvent("escalated", trace.WithTimestamp(e.At), trace.WithAttributes(lane(e.Lane)...))
		}
	default:
		t.ended(e)
	}
}

// received begins the span of a delivery. t.mu must be held.
func (t *Traces) received(e worker.Event) {
	m := e.Delivery
	ctx := propagation.TraceContext{}.Extract(context.Background(), propagation.MapCarrier{
		"traceparent": m.Trace.Parent, "tracestate": m.Trace.State,
	})
	at := m.Received
	if at.IsZero() {
		at = e.At
	}
	_, span := t.tracer.Start(ctx, named("process", t.queue), trace.WithTimestamp(at), trace.WithSpanKind(trace.SpanKindConsumer))
	if old, ok := t.held.take(e.Message); ok {
		old.End(trace.WithTimestamp(at)) // nobody has told how it went
	}
	if !span.IsRecording() {
		return
	}
	attrs := append(messaging("process", t.queue),
		attribute.String(keyMessageID, e.Message), attribute.Int(keyBodySize, len(m.Body)), attribute.Int(keyReceives, m.Receives))
	if !m.Sent.IsZero() {
		attrs = append(attrs, attribute.Float64(keyQueued, max(at.Sub(m.Sent), 0).Seconds()))
	}
	span.SetAttributes(attrs...)
	if old, full := t.held.put(e.Message, span); full {
		old.End(trace.WithTimestamp(at))
	}
}

// requested notes a request that stores something, until the event that says which
// message it was for. t.mu must be held.
func (t *Traces) requested(e worker.Event) {
	switch e.Op {
	case worker.OpPut, worker.OpPutError:
		list, _ := t.puts.get(e.Key)
		if len(list) == maxRequests {
			list = list[1:]
		}
		t.puts.put(e.Key, append(list, request{e.Op, e.At, e.Took, e.Err}))
	case worker.OpAck: // of a message that was settled in an earlier delivery: any other is not held any more
		if span, ok := t.held.take(e.Message); ok {
			t.fail(span, e.Err)
			span.SetAttributes(attribute.String(keyEnd, "acknowledged"))
			span.End(trace.WithTimestamp(e.At))
		}
	default:
	}
}

// child begins a span within another. t.mu must be held.
func (t *Traces) child(of trace.Span, name string, at time.Time, kind trace.SpanKind, attrs []attribute.KeyValue) trace.Span {
	_, span := t.tracer.Start(trace.ContextWithSpan(context.Background(), of), name, trace.WithTimestamp(at), trace.WithSpanKind(kind))
	span.SetAttributes(attrs...) // as an option, they would be copied once more
	return span
}

// attempted tells of an attempt. t.mu must be held.
func (t *Traces) attempted(of trace.Span, e worker.Event) {
	attrs := append(lane(e.Lane),
		attribute.String(keyOperation, "chat"), attribute.String(keyProvider, "aws.bedrock"), attribute.Int(keyAttempt, e.Attempt.N))
	if e.Attempt.Turn != "" {
		attrs = append(attrs, attribute.String(keyTurn, string(e.Attempt.Turn)))
	}
	if e.Attempt.Status != 0 {
		attrs = append(attrs, attribute.Int(keyStatus, e.Attempt.Status))
	}
	if e.Attempt.RequestID != "" {
		attrs = append(attrs, attribute.String(keyRequestID, e.Attempt.RequestID))
	}
	if e.Answer != nil {
		attrs = answered(attrs, e)
	}
	if t.content {
		attrs = append(attrs, content(e)...)
	}
	span := t.child(of, named("chat", cut(e.Lane.Model, maxName)), e.Attempt.Started, trace.SpanKindClient, attrs)
	t.fail(span, e.Err)
	span.End(trace.WithTimestamp(e.At))
}

// ended ends the span of a delivery. t.mu must be held.
func (t *Traces) ended(e worker.Event) {
	puts, _ := t.puts.take(e.Key)
	span, ok := t.held.take(e.Message)
	if !ok {
		return
	}
	for _, r := range puts {
		s := t.child(span, "store", r.at.Add(-r.took), trace.SpanKindClient, []attribute.KeyValue{attribute.String(keyOp, string(r.op))})
		t.fail(s, r.err)
		s.End(trace.WithTimestamp(r.at))
	}
	attrs := make([]attribute.KeyValue, 0, 5)
	if e.Key != (jobs.Key{}) {
		attrs = append(attrs, job(e.Key)...)
	}
	attrs = append(attrs, attribute.String(keyEnd, e.Kind.String()))
	if e.Attempts > 0 {
		attrs = append(attrs, attribute.Int(keyAttempts, e.Attempts))
	}
	switch e.Kind {
	case worker.Buried:
		attrs = append(attrs, attribute.String(keyErrorType, string(e.Letter.Class)))
		span.SetStatus(codes.Error, t.text(string(e.Letter.Class), e.Letter.Reason))
	case worker.Released, worker.Lost:
		why := []attribute.KeyValue{attribute.Float64(keyDelay, e.Delay.Seconds())}
		if e.Err != nil {
			why = append(why, attribute.String(keyWhy, t.text(kindOf(e.Err), e.Err.Error())))
		}
		span.AddEvent(e.Kind.String(), trace.WithTimestamp(e.At), trace.WithAttributes(why...))
	default:
	}
	span.SetAttributes(attrs...)
	span.End(trace.WithTimestamp(e.At))
}
