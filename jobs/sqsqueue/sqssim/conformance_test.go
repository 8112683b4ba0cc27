package sqssim_test

import (
	"context"
	"net"
	"net/http"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

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
				l := make(pipes)
				srv := &http.Server{Handler: sqssim.New(cfg)}
				served := make(chan struct{})
				go func() { _ = srv.Serve(l); close(served) }()
				tr := &http.Transport{DialContext: l.dial, MaxIdleConnsPerHost: 64}
				t.Cleanup(func() {
					tr.CloseIdleConnections()
					_ = srv.Close()
					<-served
				})
				return sqsqueue.NewClient(aws.Config{
					Region:       "us-east-1",
					BaseEndpoint: new("http://sqs.test"),
					Credentials:  credentials.NewStaticCredentialsProvider("id", "secret", ""),
					HTTPClient:   &http.Client{Transport: plain{tr}},
				})
			})
		})
	}
}

// Pipes are a listener of connections within a bubble.
type pipes chan net.Conn

func (p pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	near, far := net.Pipe()
	select {
	case p <- far:
		return near, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (p pipes) Accept() (net.Conn, error) {
	if c, ok := <-p; ok {
		return c, nil
	}
	return nil, net.ErrClosed
}

func (p pipes) Close() error   { close(p); return nil }
func (p pipes) Addr() net.Addr { return &net.UnixAddr{Name: "sqs", Net: "pipe"} }
