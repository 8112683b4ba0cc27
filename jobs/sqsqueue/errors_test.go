package sqsqueue_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/smithy-go"

	"upwell/jobs/sqsqueue"
	"upwell/jobs/sqsqueue/sqssim"
	"upwell/worker"
)

// A lackError is that of a source of credentials that has none.
type lackError struct{}

func (lackError) Error() string {
	return "no AWS credentials: no EC2 IMDS role found: set AWS_PROFILE"
}

// A reply answers every request in the same way.
type reply func(*http.Request) (*http.Response, error)

func (f reply) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// answers replies with a status and a text.
func answers(status int, text string) reply {
	return func(r *http.Request) (*http.Response, error) {
		return &http.Response{
			StatusCode: status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
			Header: http.Header{"X-Amzn-Requestid": {"REQ1"}, "Content-Type": {"application/x-amz-json-1.0"}},
			Body:   io.NopCloser(strings.NewReader(text)), ContentLength: int64(len(text)), Request: r,
		}, nil
	}
}

// fails replies with nothing: the connection cannot be made.
func fails(err error) reply {
	return func(*http.Request) (*http.Response, error) {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: err}
	}
}

// noHost is the answer of a name server that does not know the host of a request.
func noHost(r *http.Request) (*http.Response, error) {
	return fails(&net.DNSError{Err: "no such host", Name: r.URL.Hostname(), Server: "10.0.0.2:53", IsNotFound: true})(r)
}

// is reports whether an error is, or wraps, one of type E.
func is[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}

// TestErrorsSayWhatToDo has the errors of a user's first hour, in full: what is wrong
// and what to do, and then the cause without the SDK's account of itself. The cause
// is still there for programs.
func TestErrorsSayWhatToDo(t *testing.T) {
	const (
		url      = "https://sqs.us-west-2.amazonaws.com/123456789012/jobs"
		noRegion = "no Region: set AWS_REGION, or region in the profile"
		noName   = " is no name of a Region: correct AWS_REGION, or region in the profile"
		denial   = `{"__type":"com.amazon.coral.service#AccessDeniedException","message":"User: arn:aws:iam::123456789012:user/me is not authorized to perform: sqs:getqueueurl"}`
	)
	keys := credentials.NewStaticCredentialsProvider("id", "secret", "")
	none := aws.NewCredentialsCache(aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
		return aws.Credentials{}, lackError{}
	}))
	for _, tt := range []struct {
		name   string
		region string
		keys   aws.CredentialsProvider
		reply  reply
		queue  string
		want   string
		as     func(error) bool
	}{
		{"no Region", "", keys, nil, "jobs", "sqs find queue jobs: " + noRegion, is[*smithy.OperationError]},
		{"no Region for a URL", "", keys, nil, url, "sqs read attributes of " + url + ": " + noRegion, is[*smithy.OperationError]},
		{"a Region with a blank", "us west", keys, nil, "jobs", `sqs find queue jobs: "us west"` + noName, is[*smithy.OperationError]},
		{"a Region with a line", "us_west_2", keys, noHost, "jobs", `sqs find queue jobs: "us_west_2"` + noName, is[*smithy.OperationError]},
		{"a Region that is none", "us-wst-2", keys, noHost, "jobs", "sqs find queue jobs: the host is not known to DNS: check the Region's name, and the network's DNS: lookup sqs.us-wst-2.amazonaws.com on 10.0.0.2:53: no such host", is[*net.DNSError]},
		{"no connection", "us-west-2", keys, fails(errors.New("connection refused")), "jobs", `sqs find queue jobs: SQS cannot be reached: check the network, AWS_REGION and AWS_ENDPOINT_URL_SQS: Post "https://sqs.us-west-2.amazonaws.com/": dial tcp: connection refused`, is[*net.OpError]},
		{"no credentials", "us-west-2", none, nil, "jobs", "sqs find queue jobs: no AWS credentials: no EC2 IMDS role found: set AWS_PROFILE", is[lackError]},
		{"denied", "us-west-2", keys, answers(400, denial), "jobs", "sqs find queue jobs: AccessDeniedException: User: arn:aws:iam::123456789012:user/me is not authorized to perform: sqs:getqueueurl", is[*worker.Error]},
		{"a proxy", "us-west-2", keys, answers(502, "<html>a gateway</html>"), "jobs", "sqs find queue jobs: status 502: deserialization failed, failed to decode response body, invalid character '<' looking for beginning of value", is[*awshttp.ResponseError]},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client := sqsqueue.NewClient(aws.Config{Region: tt.region, Credentials: tt.keys, HTTPClient: &http.Client{Transport: tt.reply}})
				_, err := sqsqueue.Open(t.Context(), client, sqsqueue.Config{Queue: tt.queue})
				if err == nil || err.Error() != tt.want {
					t.Errorf("Open = %v\nwant %s", err, tt.want)
				}
				if !tt.as(err) {
					t.Errorf("%v has not its cause", err)
				}
			})
		})
	}
}

// TestNoSuchQueue has what SQS says of a queue that is not there, in its three ways.
func TestNoSuchQueue(t *testing.T) {
	const advice = "there is no such queue: correct its name, or AWS_REGION, or create it"
	const base = "http://sqs.test/000000000000/"
	w := newWorld(t, setup{})
	for _, tt := range []struct {
		cfg  sqsqueue.Config
		code string // of SQS's answer, if not the simulator's own
		want string
	}{
		{sqsqueue.Config{Queue: "none"}, "", "sqs find queue none: " + advice},
		{sqsqueue.Config{Queue: base + "none"}, "", "sqs read attributes of " + base + "none: " + advice},
		{sqsqueue.Config{Queue: "jobs", Dead: "none"}, "", "dead-letter queue: sqs find queue none: " + advice},
		{sqsqueue.Config{Queue: "jobs"}, "AWS.SimpleQueueService.NonExistentQueue", "sqs find queue jobs: " + advice},
		{sqsqueue.Config{Queue: "jobs"}, "InvalidAddress", "sqs find queue jobs: " + advice},
	} {
		w.inject(func(string, sqssim.Call) sqssim.Fault {
			if tt.code == "" {
				return sqssim.Fault{}
			}
			return sqssim.Fault{Err: &sqssim.Error{Code: tt.code, Message: "words about it"}}
		})
		_, err := sqsqueue.Open(t.Context(), w.client, tt.cfg)
		if err == nil || err.Error() != tt.want {
			t.Errorf("Open(%+v) = %v, want %s", tt.cfg, err, tt.want)
		}
		if e, ok := errors.AsType[*worker.Error](err); !ok || e.Kind != worker.Permanent || !is[smithy.APIError](err) {
			t.Errorf("Open(%+v) = %v, want it permanent, with SQS's answer", tt.cfg, err)
		}
	}
}
