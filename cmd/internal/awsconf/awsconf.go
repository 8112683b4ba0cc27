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
package awsconf

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
)

// Options are what the program's own flags say. Empty fields leave the choice to
// the environment.
type Options struct {
	Region  string
	Profile string

	// Connections is how many idle connections to keep to each service.
	// Default 64.
	Connections int
}

// Load returns the AWS configuration. It honours AWS_CA_BUNDLE.
func Load(ctx context.Context, o Options) (aws.Config, error) {
	cfg, err := config.LoadDefaultConfig(ctx,
		config.WithHTTPClient(client(o.Connections)), // a buildable one: any other is refused beside AWS_CA_BUNDLE
		config.WithRegion(o.Region),
		config.WithSharedConfigProfile(o.Profile))
	if err != nil {
		return aws.Config{}, fmt.Errorf("aws configuration: %w", err)
	}
	cfg.HTTPClient = Steady(cfg.HTTPClient)
	return cfg, nil
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
