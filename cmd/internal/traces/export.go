package traces

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

const (
	// sayEvery is how often a failure is logged at most.
	sayEvery = time.Minute

	// maxSaid bounds what is logged of an error, in bytes: it quotes the collector.
	maxSaid = 512
)

// An exporter tells of failures itself. The SDK would write each to standard error.
type exporter struct {
	sdktrace.SpanExporter

	secrets []string // that no error may have in it
	log     atomic.Pointer[slog.Logger]
	ended   atomic.Int64 // spans that are to be exported
	seen    atomic.Int64 // of them, those that an export began of

	mu    sync.Mutex
	said  time.Time // when a failure was last logged
	lost  int       // spans since then
	error error     // of the last export that failed
}

// ExportSpans implements sdktrace.SpanExporter. Its error is nil.
func (e *exporter) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	e.seen.Add(int64(len(spans)))
	err := e.SpanExporter.ExportSpans(ctx, spans)
	if err != nil {
		err = scrubbed{err, e.secrets}
	}
	if lost := e.note(err, len(spans)); lost > 0 {
		if log := e.log.Load(); log != nil {
			log.WarnContext(ctx, "traces not sent", "spans", lost, "err", err)
		}
	}
	return nil
}

// note keeps account of how an export ended. It returns the number of spans to log as
// lost, or none if it is not the time.
func (e *exporter) note(err error, spans int) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err == nil {
		return 0
	}
	e.error = err
	if e.lost += spans; !e.said.IsZero() && time.Since(e.said) < sayEvery {
		return 0
	}
	lost := e.lost
	e.said, e.lost = time.Now(), 0
	return lost
}

// balance says, when no more spans end, which of them were not sent that was not logged
// yet: those of the last exports, and those that none came to.
func (e *exporter) balance() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	var err error
	if e.lost > 0 {
		err = fmt.Errorf("%d spans: %w", e.lost, e.error)
	}
	if n := e.ended.Load() - e.seen.Load(); n > 0 {
		err = errors.Join(err, fmt.Errorf("%d of %d spans were dropped, as the collector is slower than the work: "+
			"raise OTEL_BSP_MAX_QUEUE_SIZE, or trace a part of the jobs with OTEL_TRACES_SAMPLER=parentbased_traceidratio", n, e.ended.Load()))
	}
	return err
}

// A counter counts the spans that end. The SDK keeps to itself how many it drops.
type counter struct{ *exporter }

// OnStart implements sdktrace.SpanProcessor.
func (counter) OnStart(context.Context, sdktrace.ReadWriteSpan) {}

// OnEnd implements sdktrace.SpanProcessor.
func (c counter) OnEnd(sdktrace.ReadOnlySpan) { c.ended.Add(1) }

// Shutdown implements sdktrace.SpanProcessor. The exporter is shut down by another.
func (counter) Shutdown(context.Context) error { return nil }

// ForceFlush implements sdktrace.SpanProcessor.
func (counter) ForceFlush(context.Context) error { return nil }

// A scrubbed is an error without secrets, and not too long.
type scrubbed struct {
	err     error
	secrets []string
}

func (s scrubbed) Error() string {
	text := s.err.Error()
	for _, secret := range s.secrets {
		text = strings.ReplaceAll(text, secret, "[redacted]")
	}
	return cut(text, maxSaid)
}
