package mantle

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/bedrock"
	"github.com/openai/openai-go/v3/option"

	"upwell/worker"
)

// maxAnswer bounds how much of an answer is read, in bytes. The longest answer
// of Grok 4.3 is 131,072 tokens, which is below 1 MiB; encrypted reasoning and
// a gateway's additions have room.
const maxAnswer = 32 << 20

// maxHeaders bounds the headers of an answer, in bytes.
const maxHeaders = 256 << 10

// A Client makes calls to an endpoint. It implements [worker.Endpoint], and may
// be used by many goroutines.
type Client struct {
	cfg     Config // complete; never modified
	clients map[target]*openai.Client
	keys    *keyring // nil unless keys are made
	signer  *signer  // nil unless requests are signed

	vault   vault
	routes  routes
	schemas schemas
	density density
}

var _ worker.Endpoint = (*Client)(nil)

// A target is where a call may go.
type target struct{ region, path string }

// New returns a client. It gets AWS credentials once, if they are what is used,
// so that their absence is an error here rather than that of every job. ctx
// bounds this only. An error is the operator's to mend.
func New(ctx context.Context, cfg Config) (*Client, error) {
	if err := cfg.withDefaults(); err != nil {
		return nil, err
	}
	c := &Client{
		cfg:     cfg,
		clients: map[target]*openai.Client{},
		routes:  routes{table: cfg.Paths, flipped: map[string]bool{}},
		schemas: schemas{byHash: map[[32]byte]*schema{}},
		density: density{byModel: map[string]float64{}},
	}
	c.vault.keep(cfg.APIKey)
	if err := c.authenticate(ctx); err != nil {
		return nil, err
	}
	return c, c.connect(ctx)
}

// ErrCredentials is the error of [New] when there are no AWS credentials to make keys
// of, or to sign with.
var ErrCredentials = errors.New("nothing to call with")

// authenticate prepares what AWS credentials are used for.
func (c *Client) authenticate(ctx context.Context) error {
	switch c.cfg.Credentials {
	case ShortTerm:
		c.keys = &keyring{creds: c.cfg.AWS, ttl: c.cfg.KeyTTL, vault: &c.vault, keys: map[string]mintedKey{}}
	case SigV4:
		c.signer = &signer{creds: c.cfg.AWS, vault: &c.vault, service: c.cfg.SigningName, v4: v4.NewSigner()}
	default:
		return nil
	}
	if _, err := c.cfg.AWS.Retrieve(ctx); err != nil {
		why := strings.TrimPrefix(c.scrub(err.Error()), "failed to refresh cached credentials, ")
		return fmt.Errorf("mantle: %w: %s", ErrCredentials, why)
	}
	return nil
}

// connect makes a client for each place that calls may go to. All share their
// connections.
func (c *Client) connect(ctx context.Context) error {
	shared := c.cfg.transport()
	for _, t := range c.targets() {
		cfg := bedrock.Config{
			BaseURL: c.baseURL(t),
			// Left empty, it would be read from the environment. Where there is
			// none it has no effect.
			AWSRegion: cmp.Or(t.region, defaultRegion),
		}
		switch c.cfg.Credentials {
		case APIKey:
			cfg.APIKey = c.cfg.APIKey
		case ShortTerm:
			cfg.BedrockTokenProvider = func(ctx context.Context) (string, error) { return c.keys.key(ctx, t.region) }
		default:
			cfg.SkipAuth = true // a signature is added in send
		}
		client, err := bedrock.NewClient(ctx, cfg, option.WithHTTPClient(shared), option.WithMaxRetries(0))
		if err != nil {
			return fmt.Errorf("mantle: %s: %w", cfg.BaseURL, err)
		}
		c.clients[t] = &client
	}
	return nil
}

// targets lists where calls may go.
func (c *Client) targets() (all []target) {
	paths := []string{""}
	if c.cfg.BaseURL == "" {
		paths = []string{pathV1, pathOpenAIV1}
		for _, p := range c.cfg.Paths {
			if !slices.Contains(paths, p) {
				paths = append(paths, p)
			}
		}
	}
	for _, r := range c.cfg.Regions {
		for _, p := range paths {
			all = append(all, target{r, p})
		}
	}
	return all
}

func (c *Client) baseURL(t target) string {
	if c.cfg.BaseURL != "" {
		return c.cfg.BaseURL
	}
	return "https://bedrock-mantle." + t.region + ".api.aws" + t.path
}

// Regions returns the Regions that calls may go to: at least one, which may be
// empty if a base URL is set that is in none.
func (c *Client) Regions() []string { return slices.Clone(c.cfg.Regions) }

// Complete implements [worker.Endpoint]. Its error is a [*worker.Error] that
// wraps the cause of ctx's end if that was the reason.
func (c *Client) Complete(ctx context.Context, call worker.Call) (worker.Answer, error) {
	o := outlineOf(call.Job)
	f, err := c.form(call.Job, o)
	if err != nil {
		return worker.Answer{}, err
	}
	t, ok := c.target(call)
	if !ok {
		return worker.Answer{}, c.noRegion(call.Lane)
	}
	body := c.fill(call, o, f)
	res, err := c.send(ctx, t, call, body)
	if err == nil && res.offRoute() && c.cfg.BaseURL == "" {
		if t.path, ok = c.routes.flip(call.Job.Model, t.path); ok {
			res, err = c.send(ctx, t, call, body)
		}
	}
	switch {
	case err != nil:
		return worker.Answer{}, c.failed(ctx, err)
	case res.status/100 != 2:
		c.disown(t.region, res.status)
		return worker.Answer{}, c.refused(call, res)
	default:
		return c.judge(call, o, f, res)
	}
}

// target returns where the call goes.
func (c *Client) target(call worker.Call) (target, bool) {
	region := call.Lane.Region
	known := slices.Contains(c.cfg.Regions, region)
	if c.cfg.BaseURL == "" {
		return target{region, c.routes.path(call.Job.Model)}, known
	}
	if !known {
		region = c.cfg.Regions[0]
	}
	return target{region, ""}, true
}

// disown drops a key that was not accepted: its credentials may have ended.
func (c *Client) disown(region string, status int) {
	if c.keys != nil && (status == http.StatusUnauthorized || status == http.StatusForbidden) {
		c.keys.drop(region)
	}
}

// send makes one HTTP request and reads what is answered, whatever the status.
func (c *Client) send(ctx context.Context, t target, call worker.Call, body segments) (*response, error) {
	var res *http.Response
	var line connecting
	err := c.clients[t].Post(line.watched(ctx), strings.TrimPrefix(call.Job.URL, "/v1/"), nil, nil,
		option.WithResponseInto(&res),
		option.WithMiddleware(func(req *http.Request, next option.MiddlewareNext) (*http.Response, error) {
			// The library would copy a body of its own.
			body.attach(req)
			req.Header.Set("Content-Type", "application/json")
			if c.signer != nil {
				if err := c.signer.sign(req, t.region, body); err != nil {
					return nil, err
				}
			}
			res, err := next(req)
			if res != nil {
				res.Body = http.MaxBytesReader(nil, res.Body, maxAnswer)
			}
			return res, err
		}))
	if res == nil {
		return nil, line.judge(err)
	}
	// A status of 400 or above is an error too, and says more than the error.
	defer res.Body.Close()
	text, err := read(res)
	if err != nil && res.StatusCode < http.StatusBadRequest {
		return nil, err
	}
	out := &response{status: res.StatusCode, header: res.Header, body: c.vault.strip(text)}
	if out.status >= http.StatusBadRequest {
		out.said = readError(out.body)
	}
	return out, nil
}

// read reads a body into a buffer of its size, if the size is known and not
// suspicious.
func read(res *http.Response) ([]byte, error) {
	var buf bytes.Buffer
	if n := res.ContentLength; n > 0 && n <= 1<<20 {
		buf.Grow(int(n) + bytes.MinRead) // room to see the end
	}
	_, err := buf.ReadFrom(io.Reader(res.Body))
	return buf.Bytes(), err
}
