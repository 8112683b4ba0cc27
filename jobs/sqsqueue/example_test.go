package sqsqueue_test

import (
	"context"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"upwell/jobs/sqsqueue"
	"upwell/jobs/sqsqueue/sqssim"
)

// A job is queued, received, given back with the attempt that it has spent, and
// received again.
func Example() {
	ctx := context.Background()
	client := newClient(sqssim.New(sqssim.Config{}))
	for _, name := range []string{"jobs", "dead"} {
		if _, err := client.CreateQueue(ctx, &sqs.CreateQueueInput{QueueName: &name}); err != nil {
			fmt.Println(err)
		}
	}
	q, err := sqsqueue.Open(ctx, client, sqsqueue.Config{Queue: "jobs", Dead: "dead"})
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := q.Send(ctx, []sqsqueue.Outgoing{{Body: []byte(`{"custom_id":"msa-0042"}`)}}); err != nil {
		fmt.Println(err)
	}
	for range 2 {
		ms, err := q.Receive(ctx, 10, 2*time.Minute)
		if err != nil {
			fmt.Println(err)
		}
		for _, m := range ms {
			fmt.Println(string(m.Body), m.Receives, m.Attempts, m.Again)
			m.Attempts++
			if err := q.Release(ctx, m, 0); err != nil {
				fmt.Println(err)
			}
		}
	}
	// Output:
	// {"custom_id":"msa-0042"} 1 0 false
	// {"custom_id":"msa-0042"} 1 1 true
}
