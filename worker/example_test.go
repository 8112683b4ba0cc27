package worker_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"upwell/jobs"
	"upwell/throttle"
	"upwell/worker"
	"upwell/worker/workertest"
)

func Example() {
	// The doubles stand for SQS, Amazon S3 and the endpoint.
	queue, sink, endpoint := new(workertest.Queue), new(workertest.Sink), new(workertest.Endpoint)
	queue.Send(jobs.Message{Body: []byte(`{"custom_id":"nda-1","url":"/v1/responses","body":{"model":"m","input":"…"}}`)})
	queue.Send(jobs.Message{Body: []byte(`{"custom_id":"nda-2","url":"/v1/embeddings","body":{"model":"m"}}`)})

	// Nothing more is sent after the second job: stop when both are settled.
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var settled sync.WaitGroup
	settled.Add(2)
	go func() { settled.Wait(); cancel() }()

	w, err := worker.New(queue, endpoint, sink, throttle.NewSet(nil), worker.Config{
		Regions: []string{"us-west-2"},
		Run:     "contracts",
		Drain:   time.Minute,
		Observe: func(e worker.Event) {
			if e.Kind == worker.Stored || e.Kind == worker.Buried {
				settled.Done()
			}
		},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := w.Run(ctx); err != nil {
		fmt.Println(err)
		return
	}
	for key, r := range sink.Results() {
		fmt.Println(key, "answered:", r.Upwell.OutputText)
	}
	for key, r := range sink.Errors() {
		fmt.Println(key, "failed:", r.Error.Message)
	}
	// Output:
	// contracts/nda-1 answered: answer to nda-1
	// contracts/nda-2 failed: not a job: url: "/v1/embeddings", want /v1/responses or /v1/chat/completions
}

// BenchmarkThroughput is what a job costs the worker itself: the endpoint answers
// at once, and the queue and the sink are in memory. An op is a job, and its
// share of the doubles is in it.
func BenchmarkThroughput(b *testing.B) {
	tr := workertest.New(b)
	tr.Queue.Durable = nil
	done := make(chan struct{})
	var mu sync.Mutex
	left := b.N
	w, err := worker.New(tr.Queue, tr.Endpoint, tr.Sink, steady(1e6), worker.Config{
		Regions: []string{"here"},
		Observe: func(e worker.Event) {
			if e.Kind != worker.Stored {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			if left--; left == 0 {
				close(done)
			}
		},
	})
	if err != nil {
		b.Fatal(err)
	}
	for i := range b.N {
		tr.Queue.Send(jobs.Message{Body: workertest.Line(fmt.Sprint(i), "")})
	}
	ctx, cancel := context.WithCancel(b.Context())
	var wg sync.WaitGroup
	b.ReportAllocs()
	b.ResetTimer()
	wg.Go(func() {
		if err := w.Run(ctx); err != nil {
			b.Errorf("Run = %v, want nil", err)
		}
	})
	<-done
	b.StopTimer()
	cancel()
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "jobs/s")
}
