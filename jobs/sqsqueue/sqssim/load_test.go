package sqssim_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"upwell/integration/fixture"
	"upwell/jobs/sqsqueue/sqssim"
)

// A batch of n messages, numbered from first.
func batchOf(q string, first, n int, pad string) *sqs.SendMessageBatchInput {
	in := &sqs.SendMessageBatchInput{QueueUrl: &q}
	for i := range n {
		in.Entries = append(in.Entries, types.SendMessageBatchRequestEntry{
			Id: new(strconv.Itoa(i)), MessageBody: new(strconv.Itoa(first+i) + pad),
		})
	}
	return in
}

func deletes(q string, ms []types.Message) *sqs.DeleteMessageBatchInput {
	in := &sqs.DeleteMessageBatchInput{QueueUrl: &q}
	for i, m := range ms {
		in.Entries = append(in.Entries, types.DeleteMessageBatchRequestEntry{
			Id: new(strconv.Itoa(i)), ReceiptHandle: m.ReceiptHandle,
		})
	}
	return in
}

// TestConservation sends, receives, forgets, gives back, deletes late and
// deletes twice, and expects each message deleted exactly once.
func TestConservation(t *testing.T) {
	const senders, receivers, each = 6, 12, 150
	virtual(t, sqssim.Config{Shuffle: true, InFlight: 200}, func(t *testing.T, w *world) {
		ctx := t.Context()
		q := w.create("q", attrs{"VisibilityTimeout": "10"})
		var deletions atomic.Int64
		deleted := make([]atomic.Int32, senders*each)
		var wg sync.WaitGroup
		for s := range senders {
			wg.Go(func() {
				for i := 0; i < each; i += 10 {
					out, err := w.c.SendMessageBatch(ctx, batchOf(q, s*each+i, 10, ""))
					if err != nil || len(out.Successful) != 10 {
						t.Errorf("SendMessageBatch = %v, %v", out, err)
					}
					time.Sleep(rand.N(time.Second))
				}
			})
		}
		for range receivers {
			wg.Go(func() {
				for deletions.Load() < senders*each {
					var late []*string
					for _, m := range w.receive(q, upTo(10), wait(5)) {
						n, err := strconv.Atoi(*m.Body)
						if err != nil {
							t.Error(err)
						}
						switch rand.IntN(5) {
						case 0: // forgotten
						case 1:
							err = w.change(q, m.ReceiptHandle, 0)
						case 2:
							late = append(late, m.ReceiptHandle)
						default:
							deleted[n].Add(1)
							deletions.Add(1)
							err = errors.Join(w.delete(q, m.ReceiptHandle), w.delete(q, m.ReceiptHandle))
						}
						if err != nil {
							t.Error(err)
						}
					}
					time.Sleep(10 * time.Second)
					for _, receipt := range late { // by now it has expired, or is somebody else's
						if err := w.delete(q, receipt); err != nil {
							t.Error(err)
						}
					}
				}
			})
		}
		wg.Wait()
		for n := range deleted {
			if got := deleted[n].Load(); got != 1 {
				t.Errorf("message %d was deleted %d times", n, got)
			}
		}
		got := w.Stats().Queues["q"]
		if got.Sent != senders*each || got.Deleted != senders*each || got.Waiting != 0 {
			t.Errorf("Stats = %+v", got)
		}
		w.balance()
	})
}

// BenchmarkLoopback counts messages that are sent, received and deleted in
// batches of ten over real connections, the SDK's side included.
func BenchmarkLoopback(b *testing.B) {
	for _, backlog := range []int{0, 100_000} {
		b.Run(fmt.Sprintf("backlog=%d", backlog), func(b *testing.B) {
			s := sqssim.New(sqssim.Config{})
			srv := httptest.NewServer(s)
			defer srv.Close()
			tr := &http.Transport{MaxIdleConnsPerHost: 64, DialContext: (&net.Dialer{}).DialContext}
			defer tr.CloseIdleConnections()
			c := newClient(srv.URL, fixture.Plain{RoundTripper: tr})
			ctx := b.Context()
			out, err := c.CreateQueue(ctx, &sqs.CreateQueueInput{QueueName: new("q")})
			if err != nil {
				b.Fatal(err)
			}
			q := *out.QueueUrl
			pad := strings.Repeat("x", 512)
			inside := newClient(srv.URL, s)
			for i := 0; i < backlog; i += 10 {
				if _, err := inside.SendMessageBatch(ctx, batchOf(q, i, 10, pad)); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportAllocs()
			b.ResetTimer()
			b.SetParallelism(4)
			start := time.Now()
			var n atomic.Int64
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := c.SendMessageBatch(ctx, batchOf(q, 0, 10, pad)); err != nil {
						b.Error(err)
					}
					got, err := c.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{QueueUrl: &q, MaxNumberOfMessages: 10})
					if err != nil {
						b.Error(err)
					} else if len(got.Messages) > 0 {
						if _, err := c.DeleteMessageBatch(ctx, deletes(q, got.Messages)); err != nil {
							b.Error(err)
						}
						n.Add(int64(len(got.Messages)))
					}
				}
			})
			b.ReportMetric(float64(n.Load())/time.Since(start).Seconds(), "msg/s")
		})
	}
}
