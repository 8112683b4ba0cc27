package mantle

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
)

// defaultRegion is where xai.grok-4.3 was offered first.
const defaultRegion = "us-west-2"

// Config holds a Client's settings. Every zero value stands for a default; at
// AWS's own hosts, credentials have to be given.
type Config struct {
	// Regions are the AWS Regions to call, each a lane's Region. Default
	// us-west-2, or the Region in BaseURL's host, if it has one.
	Regions []string

	// BaseURL replaces every Region's endpoint: all calls go there, whatever
	// the model. It ends with the API's version, such as
	// http://localhost:8080/v1, as OPENAI_BASE_URL does. Default none.
	BaseURL string

	// Paths are base paths by the beginning of a model's name; the longest
	// that fits counts. They come before [DefaultPaths]. Without effect when
	// BaseURL is set.
	Paths map[string]string

	// Credentials is the way to prove who calls. Default [Auto].
	Credentials Credentials

	// APIKey is a key for [APIKey]: a Bedrock key, or another vendor's when
	// BaseURL is another vendor's.
	APIKey string

	// BearerToken is a Bedrock key as well, the one that AWS's tools take from
	// AWS_BEARER_TOKEN_BEDROCK. It is used when APIKey is empty.
	BearerToken string

	// AWS provides AWS credentials for [SigV4] and [ShortTerm]. They are
	// cached until they expire.
	AWS aws.CredentialsProvider

	// Mint makes [Auto] prefer [ShortTerm] to [SigV4].
	Mint bool

	// SigningName is the service that SigV4 signatures are for. Default
	// bedrock-mantle, as in OpenAI's own libraries, or bedrock if BaseURL is at
	// bedrock-runtime. Some report that mantle accepts bedrock as well.
	SigningName string

	// KeyTTL is how long a short-term key is made for, at most 12 hours, which
	// is AWS's bound. Default an hour: a key is cheap to make, and a short life
	// limits what a leaked one is good for.
	KeyTTL time.Duration

	// MaxOutputTokens limits the answer of a job that sets no limit. Default
	// none. Set it: where a model has a quota, an unlimited request reserves
	// the model's maximum of it.
	MaxOutputTokens int

	// Redact keeps what the endpoint and the model say out of errors: they may
	// quote the prompt. What remains is the status, the code, and of a violated
	// schema the places and keywords.
	Redact bool

	// Prices come before [DefaultPrices]: a model that they name has their
	// prices and no other.
	Prices PriceList

	// MaxInFlight is how many calls are expected at a time. So many idle
	// connections are kept, that none is opened without need; it limits
	// nothing. Default 256.
	MaxInFlight int

	// HTTP1 rules out HTTP/2, so that every call has its own connection and a
	// connection lost is one answer lost.
	HTTP1 bool

	// HTTPClient replaces the client that the settings above describe, for
	// tests. It is not modified. Redirects are never followed.
	HTTPClient *http.Client
}

var regionName = regexp.MustCompile(`^[a-z]{2,8}(-[a-z0-9]+)+-[0-9]+$`)

// withDefaults checks c and fills it in.
func (c *Config) withDefaults() error {
	for _, check := range []func(*Config) error{
		(*Config).fixBaseURL, (*Config).fixRegions, (*Config).fixPaths,
		(*Config).fixNumbers, (*Config).fixPrices, (*Config).fixCredentials,
	} {
		if err := check(c); err != nil {
			return fmt.Errorf("mantle: config: %w", err)
		}
	}
	return nil
}

func (c *Config) fixBaseURL() error {
	if c.BaseURL = strings.TrimRight(strings.TrimSpace(c.BaseURL), "/"); c.BaseURL == "" {
		return nil
	}
	u, err := url.Parse(c.BaseURL)
	switch {
	case err != nil, u.Scheme != "http" && u.Scheme != "https", u.Host == "", u.User != nil, u.RawQuery != "", u.Fragment != "":
		return errors.New("base URL: want an http or https URL with a host and a path, and nothing else")
	case strings.HasSuffix(u.Path, "/responses"), strings.HasSuffix(u.Path, "/chat/completions"):
		return fmt.Errorf("base URL: %s names an API: end it with the version, such as /v1", u.Path)
	}
	return nil
}

// host returns the service and the Region in BaseURL's host, if it is one of
// Bedrock's public ones.
func (c *Config) host() (service, region string) {
	u, err := url.Parse(c.BaseURL)
	if err != nil {
		return "", ""
	}
	parts := strings.Split(strings.ToLower(u.Hostname()), ".")
	if len(parts) > 3 && (parts[0] == "bedrock-mantle" || parts[0] == "bedrock-runtime") && regionName.MatchString(parts[1]) {
		return parts[0], parts[1]
	}
	return "", ""
}

func (c *Config) fixRegions() error {
	c.Regions = slices.Clone(c.Regions)
	_, at := c.host()
	switch {
	case len(c.Regions) == 0 && c.BaseURL != "":
		c.Regions = []string{at}
	case len(c.Regions) == 0:
		c.Regions = []string{defaultRegion}
	case at != "" && !slices.Equal(c.Regions, []string{at}):
		return fmt.Errorf("regions: %s, but the base URL is in %s", strings.Join(c.Regions, ", "), at)
	}
	for i, r := range c.Regions {
		if slices.Contains(c.Regions[:i], r) {
			return fmt.Errorf("regions: %s is there twice", r)
		}
		if !regionName.MatchString(r) && (r != "" || c.BaseURL == "") {
			return fmt.Errorf("regions: %q, want a Region such as us-west-2", r)
		}
	}
	return nil
}

func (c *Config) fixPaths() error {
	paths := DefaultPaths()
	for model, p := range c.Paths {
		if !strings.HasPrefix(p, "/") || strings.ContainsAny(p, "?# ") {
			return fmt.Errorf("paths: %q for %q, want a path such as /v1", p, model)
		}
		paths[model] = strings.TrimRight(p, "/")
	}
	c.Paths = paths
	return nil
}

func (c *Config) fixNumbers() error {
	if c.MaxInFlight < 0 || c.MaxOutputTokens < 0 {
		return fmt.Errorf("max in flight %d, max output tokens %d: want no negative number", c.MaxInFlight, c.MaxOutputTokens)
	}
	c.MaxInFlight = cmp.Or(c.MaxInFlight, 256)
	c.KeyTTL = cmp.Or(c.KeyTTL, time.Hour)
	if service, _ := c.host(); service == "bedrock-runtime" {
		c.SigningName = cmp.Or(c.SigningName, "bedrock")
	}
	c.SigningName = cmp.Or(c.SigningName, "bedrock-mantle")
	return checkTTL(c.KeyTTL)
}

func (c *Config) fixPrices() error {
	c.Prices = c.Prices.Known()
	return nil
}

// transport returns an HTTP client for hundreds of requests in flight that wait
// for minutes.
func (c *Config) transport() *http.Client {
	client := &http.Client{}
	if c.HTTPClient != nil {
		*client = *c.HTTPClient
	} else {
		client.Transport = c.newTransport()
	}
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return client
}

func (c *Config) newTransport() http.RoundTripper {
	std, ok := http.DefaultTransport.(*http.Transport)
	if !ok {
		return http.DefaultTransport // wrapped by the program, for its own reasons
	}
	t := std.Clone()
	// The bound over all hosts is 100 in the default transport, and would close
	// the connections that the bound per host means to keep.
	t.MaxIdleConns, t.MaxIdleConnsPerHost = 0, c.MaxInFlight
	// An answer has some 1 KB of headers. The default is 10 MiB, for each slot.
	t.MaxResponseHeaderBytes = maxHeaders
	// The headers of an answer that is not streamed come when it is finished.
	t.ResponseHeaderTimeout = 0
	// Finds HTTP/2 connections that died without a word within 45 s: each
	// carries many answers that are paid for.
	t.HTTP2 = &http.HTTP2Config{SendPingTimeout: 30 * time.Second, PingTimeout: 15 * time.Second}
	if c.HTTP1 {
		t.Protocols = new(http.Protocols)
		t.Protocols.SetHTTP1(true)
		if t.TLSClientConfig != nil {
			t.TLSClientConfig.NextProtos = nil // a clone offers HTTP/2 if the original did
		}
	}
	return t
}
