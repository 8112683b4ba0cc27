package traces

import (
	"context"
	"log/slog"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
)

// Recorded returns a Traces whose spans are kept, and where.
func Recorded(content bool, opts ...sdktrace.TracerProviderOption) (*Traces, *tracetest.SpanRecorder) {
	r := tracetest.NewSpanRecorder()
	opts = append([]sdktrace.TracerProviderOption{sdktrace.WithSpanProcessor(r), sdktrace.WithIDGenerator(ids{})}, opts...)
	return newTraces(sdktrace.NewTracerProvider(opts...), "test", content), r
}

// Hold bounds what t follows.
func (t *Traces) Hold(most int) { t.held.most, t.puts.most = most, most }

// Holding returns how many messages and requests t remembers.
func (t *Traces) Holding() (messages, puts int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.held.entries), len(t.puts.entries)
}

// Discarding returns a Traces whose spans go nowhere, by way of a batch as in earnest.
func Discarding() *Traces {
	return newTraces(sdktrace.NewTracerProvider(sdktrace.WithBatcher(nowhere{}), sdktrace.WithIDGenerator(ids{})), "test", false)
}

type nowhere struct{}

func (nowhere) ExportSpans(context.Context, []sdktrace.ReadOnlySpan) error { return nil }
func (nowhere) Shutdown(context.Context) error                             { return nil }

// Exporting returns what e is wrapped in, with failures logged to log.
func Exporting(e sdktrace.SpanExporter, log *slog.Logger, secrets ...string) sdktrace.SpanExporter {
	x := &exporter{SpanExporter: e, secrets: secrets}
	x.log.Store(log)
	return x
}
