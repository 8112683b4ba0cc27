package traces

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"time"

	"go.opentelemetry.io/otel/trace"
)

// An ids draws ids of traces that X-Ray takes as well: they begin with the time, in
// seconds since 1970.
type ids struct{}

// NewIDs implements trace.IDGenerator of the SDK.
func (g ids) NewIDs(ctx context.Context) (id trace.TraceID, span trace.SpanID) {
	binary.BigEndian.PutUint32(id[:4], uint32(time.Now().Unix()))
	binary.BigEndian.PutUint32(id[4:8], rand.Uint32())
	binary.BigEndian.PutUint64(id[8:], rand.Uint64())
	return id, g.NewSpanID(ctx, id)
}

// NewSpanID implements trace.IDGenerator of the SDK.
func (ids) NewSpanID(context.Context, trace.TraceID) (span trace.SpanID) {
	for !span.IsValid() {
		binary.BigEndian.PutUint64(span[:], rand.Uint64())
	}
	return span
}
