package sqssim_test

import (
	"context"
	"fmt"
	"net/http"

	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"upwell/jobs/sqsqueue/sqssim"
)

// The SDK talks to a server in its own process. The answer to the first send is
// lost, the SDK sends again, and the message is there twice.
func Example() {
	srv := sqssim.New(sqssim.Config{
		Fault: func(op string, c sqssim.Call) sqssim.Fault {
			lost := op == "SendMessage" && c.N == 1
			return sqssim.Fault{Apply: true, Drop: lost}
		},
	})
	client := sqs.New(sqs.Options{
		Region:       "us-east-1",
		BaseEndpoint: new("http://sqs.local"),
		Credentials:  credentials.NewStaticCredentialsProvider("id", "secret", ""),
		HTTPClient:   &http.Client{Transport: srv},
	})
	ctx := context.Background()
	q, err := client.CreateQueue(ctx, &sqs.CreateQueueInput{QueueName: new("jobs")})
	if err != nil {
		fmt.Println(err)
		return
	}
	_, err = client.SendMessage(ctx, &sqs.SendMessageInput{QueueUrl: q.QueueUrl, MessageBody: new("job 1")})
	fmt.Println(*q.QueueUrl, err)
	for _, m := range srv.Messages("jobs") {
		fmt.Println(m.Body, m.State)
	}
	// Output:
	// http://sqs.local/000000000000/jobs <nil>
	// job 1 visible
	// job 1 visible
}
