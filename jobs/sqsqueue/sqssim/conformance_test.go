package sqssim_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"upwell/jobs/queuetest"
	"upwell/jobs/sqsqueue"
	"upwell/jobs/sqsqueue/sqssim"
)

// TestConformance runs the checks that other servers are held to as well, over
// a socket, with no deviation.
func TestConformance(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for real timeouts")
	}
	for name, cfg := range map[string]sqssim.Config{
		"default": {},
		"shuffle": {Shuffle: true},
		"lenient": {LenientReceipts: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := httptest.NewServer(sqssim.New(cfg))
			t.Cleanup(srv.Close)
			tr := srv.Client().Transport.(*http.Transport)
			tr.MaxIdleConnsPerHost = 64
			queuetest.Run(t, queuetest.Server{Client: func(opts ...func(*sqs.Options)) *sqs.Client {
				return sqsqueue.NewClient(aws.Config{
					Region:       "us-east-1",
					BaseEndpoint: &srv.URL,
					Credentials:  credentials.NewStaticCredentialsProvider("id", "secret", ""),
					HTTPClient:   &http.Client{Transport: plain{tr}},
				}, opts...)
			}})
		})
	}
}
