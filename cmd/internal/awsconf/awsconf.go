// Package awsconf loads the AWS configuration that everybody expects, from the
// usual variables, files and roles, and makes of it clients that are fit for a
// busy worker.
//
// The HTTP client under them differs from the SDK's in three ways.
//
// It keeps as many idle connections as there are slots, where the SDK keeps ten for
// each host and closes the others.
//
// It follows no redirect. The SDK's own takes a body wherever a 307 or 308 sends it,
// and bodies are jobs and results; nothing could come of it, as a signature is good
// for one host only.
//
// And it hides a method of request bodies from net/http that the two disagree about:
// the SDK closes a body as soon as it has an answer's headers, net/http then finds
// the body closed while it looks for its end, and tears down the connection under
// the answer that is being read. The SDK retries without a word; of a receive, the
// first answer's messages stay hidden until their visibility runs out. On a fast
// link that happened to one receive in two hundred (aws-sdk-go-v2 issues 1825 and
// 2737).
//
// Where there are no credentials, the error of whatever needs some says what to do,
// and what the SDK has to say beside its errors goes to the program's log.
package awsconf

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/smithy-go/logging"
)

// Options are what the program's own flags say. Empty fields leave the choice to
// the environment.
type Options struct {
	Region  string
	Profile string

	// Connections is how many idle connections to keep to each service.
	// Default 64.
	Connections int

	// Log is told at level debug what the SDK would write to standard error: that it
	// goes another way to credentials, or reads an object that has no checksum.
	// Default: nobody is.
	Log *slog.Logger
}

// Load returns the AWS configuration. It honours AWS_CA_BUNDLE.
func Load(ctx context.Context, o Options) (aws.Config, error) {
	cfg, err := config.LoadDefaultConfig(ctx,
		config.WithHTTPClient(client(o.Connections)), // a buildable one: any other is refused beside AWS_CA_BUNDLE
		config.WithRegion(o.Region),
		config.WithSharedConfigProfile(o.Profile),
		config.WithLogger(logger(o.Log)))
	profile := cmp.Or(o.Profile, os.Getenv("AWS_PROFILE"))
	if _, ok := errors.AsType[config.SharedConfigProfileNotExistError](err); ok {
		err = &CredentialsError{Err: err, Help: Advice(err, profile)}
	}
	if err != nil {
		return aws.Config{}, fmt.Errorf("aws configuration: %w", err)
	}
	cfg.HTTPClient = Steady(cfg.HTTPClient)
	cfg.Credentials = advised{cfg.Credentials, profile}
	return cfg, nil
}

func logger(log *slog.Logger) logging.Logger {
	if log == nil {
		return logging.Nop{}
	}
	return logging.LoggerFunc(func(_ logging.Classification, format string, args ...any) {
		log.Debug("aws sdk", "message", fmt.Sprintf(format, args...))
	})
}

// advised are credentials whose lack is told with what to do about it.
type advised struct {
	aws.CredentialsProvider
	profile string
}

// Retrieve implements aws.CredentialsProvider.
func (a advised) Retrieve(ctx context.Context) (aws.Credentials, error) {
	creds, err := a.CredentialsProvider.Retrieve(ctx)
	if err != nil && ctx.Err() == nil {
		err = &CredentialsError{Err: err, Help: Advice(err, a.profile)}
	}
	return creds, err
}

// A CredentialsError says that there are no AWS credentials.
type CredentialsError struct {
	Err  error  // why
	Help string // what to do
}

// Error leaves out what the SDK's last resort says at length.
func (e *CredentialsError) Error() string {
	why := strings.TrimPrefix(e.Err.Error(), "failed to refresh cached credentials, ")
	why, _, _ = strings.Cut(why, ", operation error ")
	return "no AWS credentials: " + why + ": " + e.Help
}

// Unwrap returns why there are none.
func (e *CredentialsError) Unwrap() error { return e.Err }

// Advice says how to get credentials after err. An empty profile is the default one.
func Advice(err error, profile string) string {
	text := err.Error()
	switch {
	case strings.Contains(text, "SSO") || strings.Contains(text, "token has expired"):
		return "aws sso login --profile " + cmp.Or(profile, "NAME")
	case strings.Contains(text, "shared config profile"):
		return "correct --profile or AWS_PROFILE: aws configure list-profiles"
	default:
		return "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give the task or instance a role"
	}
}

// Client returns the HTTP client alone, for a configuration made by hand.
func Client(connections int) aws.HTTPClient { return Steady(client(connections)) }

func client(connections int) *awshttp.BuildableClient {
	return awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) {
		t.MaxIdleConns = 0 // no bound over all hosts
		t.MaxIdleConnsPerHost = cmp.Or(connections, 64)
		t.IdleConnTimeout = 90 * time.Second
	})
}

// Steady returns a client that keeps its connections, and if c is one of the SDK's own
// stays where it is sent; see the package comment.
func Steady(c aws.HTTPClient) aws.HTTPClient {
	if b, ok := c.(*awshttp.BuildableClient); ok {
		c = &http.Client{
			Transport: b.GetTransport(), Timeout: b.GetTimeout(),
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}
	}
	return steady{c}
}

type steady struct{ inner aws.HTTPClient }

// Do implements aws.HTTPClient.
func (s steady) Do(r *http.Request) (*http.Response, error) {
	if r.Body != nil && r.Body != http.NoBody {
		r2 := *r
		r2.Body = plainBody{r.Body}
		r = &r2
	}
	return s.inner.Do(r)
}

// plainBody hides the body's WriteTo.
type plainBody struct{ io.ReadCloser }
