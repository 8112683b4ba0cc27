package sqssim_test

import (
	"net/http"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"upwell/integration/fixture"
	"upwell/jobs/queuetest"
	"upwell/jobs/sqsqueue"
	"upwell/jobs/sqsqueue/sqssim"
)

// TestConformance runs the checks that other servers are held to as well, over
// connections, with no deviation. They are in virtual time, and are pipes: on a machine
// that stands still for a while real timeouts are over before anybody looks.
func TestConformance(t *testing.T) {
	for name, cfg := range map[string]sqssim.Config{
		"default": {},
		"shuffle": {Shuffle: true},
		"lenient": {LenientReceipts: true},
	} {
		t.Run(name, func(t *testing.T) {
			queuetest.Virtual(t, func(t *testing.T) *sqs.Client {
				t.Helper()
				l := fixture.Serve(t, &http.Server{Handler: sqssim.New(cfg)})
				tr := &http.Transport{DialContext: l.DialContext, MaxIdleConnsPerHost: 64}
				t.Cleanup(tr.CloseIdleConnections)
				return sqsqueue.NewClient(aws.Config{
					Region:       "us-east-1",
					BaseEndpoint: new("http://sqs.test"),
					Credentials:  credentials.NewStaticCredentialsProvider("id", "secret", ""),
					HTTPClient:   &http.Client{Transport: fixture.Plain{RoundTripper: tr}},
				})
			})
		})
	}
}
