package s3sim_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"upwell/sink/s3sink"
	"upwell/sink/s3sink/s3sim"
	"upwell/sink/sinktest"
)

// TestConformance runs the checks that other servers are held to as well, with
// no deviation: over plain HTTP, where checksums are headers, and over TLS,
// where the SDK sends them behind the body.
func TestConformance(t *testing.T) {
	for name, serve := range map[string]func(http.Handler) *httptest.Server{
		"http": httptest.NewServer, "https": httptest.NewTLSServer,
	} {
		t.Run(name, func(t *testing.T) {
			if testing.Short() && name == "https" {
				t.Skip("differs in few checks")
			}
			sim, err := s3sim.New(s3sim.Config{Dir: t.TempDir(), Keys: map[string]string{"AKLOCAL": "secret"}})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = sim.Close() })
			srv := serve(sim)
			t.Cleanup(srv.Close)
			srv.Client().Transport.(*http.Transport).MaxIdleConnsPerHost = 64
			sinktest.Run(t, sinktest.Server{Client: func(opts ...func(*s3.Options)) *s3.Client {
				return s3sink.NewClient(aws.Config{
					Region:       "us-east-1",
					BaseEndpoint: &srv.URL,
					Credentials:  credentials.NewStaticCredentialsProvider("AKLOCAL", "secret", ""),
					HTTPClient:   srv.Client(),
				}, opts...)
			}})
		})
	}
}
