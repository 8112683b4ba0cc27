package s3sink_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go"

	"upwell/sink"
	"upwell/sink/s3sink"
	"upwell/sink/s3sink/s3sim"
)

// A lackError is that of a source of credentials that has none.
type lackError struct{}

func (lackError) Error() string {
	return "no AWS credentials: no EC2 IMDS role found: set AWS_PROFILE"
}

// refused is what STS says to whoever may not assume a role.
var refused = &smithy.OperationError{
	ServiceID: "STS", OperationName: "AssumeRole", Err: &smithy.GenericAPIError{Code: "NoSuchBucket", Message: "nor a role"},
}

// A reply answers every request in the same way.
type reply func(*http.Request) (*http.Response, error)

func (f reply) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// answers replies with a status and a text, and the headers that S3 adds.
func answers(status int, text string) reply {
	return func(r *http.Request) (*http.Response, error) {
		res := answer(r, status, "", "")
		res.Header.Set("X-Amz-Id-2", "MDAwhost")
		if r.Method != http.MethodHead {
			res.Body, res.ContentLength = io.NopCloser(strings.NewReader(text)), int64(len(text))
		}
		return res, nil
	}
}

func says(code, message string) string {
	return "<Error><Code>" + code + "</Code><Message>" + message + "</Message></Error>"
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

// hangs replies with nothing, ever.
func hangs(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, r.Context().Err()
}

// is reports whether an error is, or wraps, one of type E.
func is[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}

func reading(err error) aws.CredentialsProviderFunc {
	return func(context.Context) (aws.Credentials, error) { return aws.Credentials{}, err }
}

// TestErrorsSayWhatToDo has the errors of a user's first hour, in full: what is wrong
// and what to do, and then the cause without the SDK's account of itself. The cause
// is still there for programs.
func TestErrorsSayWhatToDo(t *testing.T) {
	const list = "allow s3:ListBucket on my-bucket, and see that the credentials and the bucket belong together"
	const noRegion = "no Region: set AWS_REGION, or region in the profile"
	const noName = " is no name of a Region: correct AWS_REGION, or region in the profile"
	region := func(name string) func(*s3.Options) { return func(o *s3.Options) { o.Region = name } }
	lacking := func(err error) func(*s3.Options) {
		return func(o *s3.Options) { o.Credentials = aws.NewCredentialsCache(reading(err)) }
	}
	check := func(ctx context.Context, c *s3.Client) error { return s3sink.New(c, "my-bucket", "team").Check(ctx) }
	late := func(ctx context.Context, c *s3.Client) error {
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		return check(ctx, c)
	}
	read := func(ctx context.Context, c *s3.Client) error {
		_, err := s3sink.New(c, "my-bucket", "team").Read(ctx, sink.Results, job)
		return err
	}
	open := func(ctx context.Context, c *s3.Client) error {
		_, err := s3sink.NewFolder(c, "my-bucket", "in").Open(ctx, s3sink.File{Name: "a", ETag: "e"})
		return err
	}
	put := func(ctx context.Context, c *s3.Client) error {
		_, err := s3sink.New(c, "my-bucket", "team").Put(ctx, job, result("one"))
		return err
	}
	place := "s3://my-bucket/" + sink.Results.Key("team", job) + ": "
	for _, tt := range []struct {
		name  string
		reply reply
		opt   func(*s3.Options)
		do    func(context.Context, *s3.Client) error
		want  string
		as    func(error) bool
	}{
		{"no Region", nil, region(""), check, "s3 check s3://my-bucket: " + noRegion, is[*smithy.OperationError]},
		{"no Region for a put", nil, region(""), put, "s3 put " + place + noRegion, nil},
		{"a Region with a blank", nil, region("us west"), check, `s3 check s3://my-bucket: "us west"` + noName, is[*smithy.OperationError]},
		{"a Region with a line", nil, region("us_west_2"), check, `s3 check s3://my-bucket: "us_west_2"` + noName, nil},
		{"a Region that is none", noHost, region("us-wst-2"), check, "s3 check s3://my-bucket: the host is not known to DNS: check the Region's name, and the network's DNS: lookup my-bucket.s3.us-wst-2.amazonaws.com on 10.0.0.2:53: no such host", is[*net.DNSError]},
		{"no connection", fails(errors.New("connection refused")), nil, check, `s3 check s3://my-bucket: S3 cannot be reached: check the network, AWS_REGION and AWS_ENDPOINT_URL_S3: Head "https://my-bucket.s3.us-west-2.amazonaws.com/": dial tcp: connection refused`, is[*net.OpError]},
		{"no credentials", nil, lacking(lackError{}), check, "s3 check s3://my-bucket: no AWS credentials: no EC2 IMDS role found: set AWS_PROFILE", is[lackError]},
		{"a role that is refused", nil, lacking(refused), check, "s3 check s3://my-bucket: " + refused.Error(), is[smithy.APIError]},
		{"no bucket", answers(404, ""), nil, check, "s3 check s3://my-bucket: there is no such bucket: create it, or correct its name: NotFound", is[*awshttp.ResponseError]},
		{"no bucket to read", answers(404, says("NoSuchBucket", "The specified bucket does not exist")), nil, read, "s3 get " + place + "there is no such bucket: create it, or correct its name: NoSuchBucket: The specified bucket does not exist (request REQ1)", is[smithy.APIError]},
		{"denied", answers(403, ""), nil, check, "s3 check s3://my-bucket: " + list + ": Forbidden (request REQ1)", is[*awshttp.ResponseError]},
		{"denied to read", answers(403, says("AccessDenied", "Access Denied")), nil, open, "s3 get s3://my-bucket/in/a: allow s3:GetObject on my-bucket/in/*, and see that the credentials and the bucket belong together: AccessDenied (request REQ1)", is[smithy.APIError]},
		{"expired", answers(400, says("ExpiredToken", "The provided token has expired.")), nil, read, "s3 get " + place + "the AWS credentials have expired: ExpiredToken: The provided token has expired. (request REQ1)", is[smithy.APIError]},
		{"replaced", answers(412, says("PreconditionFailed", "At least one condition did not hold")), nil, open, "s3 get s3://my-bucket/in/a: it has been replaced since it was listed: start again: PreconditionFailed: At least one condition did not hold (request REQ1)", is[smithy.APIError]},
		{"a proxy", answers(502, "<html>a gateway</p>"), nil, read, "s3 get " + place + "status 502: error while deserializing xml error response : XML syntax error on line 1: element <html> closed by </p> (request REQ1)", is[*awshttp.ResponseError]},
		{"a proxy's HEAD", answers(502, ""), nil, check, "s3 check s3://my-bucket: BadGateway (request REQ1)", is[*awshttp.ResponseError]},
		{"too late", hangs, nil, late, "s3 check s3://my-bucket: context deadline exceeded", func(err error) bool { return errors.Is(err, context.DeadlineExceeded) }},
		{"options", nil, func(o *s3.Options) { o.UsePathStyle, o.UseAccelerate = true, true }, check, "s3 check s3://my-bucket: Path-style addressing cannot be used with S3 Accelerate", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cfg := newFake(t).config()
				cfg.BaseEndpoint, cfg.HTTPClient = nil, &http.Client{Transport: tt.reply}
				client := s3sink.NewClient(cfg, func(o *s3.Options) {
					if tt.opt != nil {
						tt.opt(o)
					}
				})
				err := tt.do(t.Context(), client)
				if err == nil || err.Error() != tt.want {
					t.Errorf("%v\nwant %s", err, tt.want)
				}
				if tt.as != nil && !tt.as(err) {
					t.Errorf("%v has not its cause", err)
				}
			})
		})
	}
}

// TestErrorsOfTheSimulator has the same of answers as a server gives them.
func TestErrorsOfTheSimulator(t *testing.T) {
	denied := false
	sim := newSim(t, func(string, string, string) s3sim.Fault {
		if denied {
			return s3sim.Fault{Status: 403, Code: "AccessDenied"}
		}
		return s3sim.Fault{}
	})
	cfg := newFake(t).config()
	cfg.Credentials = aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
		return aws.Credentials{AccessKeyID: "AKID", SecretAccessKey: "secret"}, nil
	})
	cfg.HTTPClient = &http.Client{Transport: inProcess{sim}}
	s := s3sink.New(s3sink.NewClient(cfg), "none", "")
	for _, want := range []string{
		"s3 check s3://none: there is no such bucket: create it, or correct its name: NotFound",
		"s3 check s3://none: allow s3:ListBucket on none, and see that the credentials and the bucket belong together: Forbidden",
	} {
		if err := s.Check(t.Context()); err == nil || err.Error() != want {
			t.Errorf("Check = %v, want %s", err, want)
		}
		denied = true
	}
}
