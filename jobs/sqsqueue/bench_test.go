package sqsqueue_test

import (
	"errors"
	"strings"
	"testing"

	"upwell/jobs"
	"upwell/jobs/sqsqueue"
)

// BenchmarkReceiveAck takes a message of 2 KB off the queue, in batches of ten;
// the other side of the wire is in it.
func BenchmarkReceiveAck(b *testing.B) {
	w := newWorld(b, setup{})
	out := make([]sqsqueue.Outgoing, 1000)
	for i := range out {
		out[i].Body = []byte(strings.Repeat("x", 2048))
	}
	b.ReportAllocs()
	for left := 0; b.Loop(); left-- {
		if left%10 != 0 {
			continue // one of the ten that the last round took
		}
		if left == 0 {
			b.StopTimer()
			if err := w.q.Send(b.Context(), out); err != nil {
				b.Fatal(err)
			}
			left = len(out)
			b.StartTimer()
		}
		ms, err := w.q.Receive(b.Context(), 10, hidden)
		if err != nil || len(ms) != 10 {
			b.Fatalf("Receive = %d messages, %v", len(ms), err)
		}
		if err := errors.Join(together(ms, func(m jobs.Message) error { return w.q.Ack(b.Context(), m) })...); err != nil {
			b.Fatal(err)
		}
	}
}
