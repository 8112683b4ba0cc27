package awsconf_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"upwell/cmd/internal/awsconf"
)

// TestNoRedirect has S3 and SQS send their callers elsewhere, with results, jobs and
// a session token. A change of one line that it has been seen to catch: the SDK's own
// client, which follows 307 and 308.
func TestNoRedirect(t *testing.T) {
	var visitors atomic.Int32
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { visitors.Add(1) }))
	defer other.Close()
	for name, c := range clients(t) {
		for _, status := range []int{301, 302, 303, 307, 308} {
			var calls atomic.Int32
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				calls.Add(1)
				http.Redirect(w, r, other.URL+r.URL.Path, status)
			}))
			cfg := aws.Config{
				Region: "us-east-1", BaseEndpoint: &srv.URL, HTTPClient: c, RetryMaxAttempts: 1,
				Credentials: credentials.NewStaticCredentialsProvider("id", "secret", "session"),
			}
			objects := s3.NewFromConfig(cfg, func(o *s3.Options) { o.UsePathStyle = true })
			queues := sqs.NewFromConfig(cfg)
			for what, err := range map[string]error{
				"put": func() error {
					_, err := objects.PutObject(t.Context(), &s3.PutObjectInput{Bucket: new("b"), Key: new("k"), Body: strings.NewReader("a result")})
					return err
				}(),
				"get": func() error {
					_, err := objects.GetObject(t.Context(), &s3.GetObjectInput{Bucket: new("b"), Key: new("k")})
					return err
				}(),
				"send": func() error {
					_, err := queues.SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: new(srv.URL + "/0/q"), MessageBody: new("a job")})
					return err
				}(),
			} {
				if err == nil || !strings.Contains(err.Error(), fmt.Sprint(status)) {
					t.Errorf("%s: %s answered %d = %v, want an error that says so", name, what, status, err)
				}
			}
			if calls.Load() != 3 {
				t.Errorf("%s: %d requests, want one for each of 3 calls", name, calls.Load())
			}
			srv.Close()
		}
	}
	if n := visitors.Load(); n != 0 {
		t.Errorf("%d requests at the other host, want none", n)
	}
}

// TestForeignClientsStay has a client that is not the SDK's, which is left as it is.
func TestForeignClientsStay(t *testing.T) {
	called := false
	c := awsconf.Steady(doer(func(*http.Request) (*http.Response, error) { called = true; return nil, http.ErrServerClosed }))
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://host.test", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := c.Do(req)
	if err == nil || !called {
		t.Errorf("Do = %v, called %t, want the client's own error", err, called)
	}
	if res != nil {
		res.Body.Close()
	}
}

type doer func(*http.Request) (*http.Response, error)

func (d doer) Do(r *http.Request) (*http.Response, error) { return d(r) }
