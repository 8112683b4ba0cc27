package mantle_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"upwell/integration/fixture"
	"upwell/jobs"
	"upwell/throttle"
	"upwell/worker"
	"upwell/worker/mantle"
)

const (
	grok = "xai.grok-4.3"
	oss  = "openai.gpt-oss-120b"

	said = `{"id":"resp_1","status":"completed","error":null,"model":"xai.grok-4.3","service_tier":"flex",
 "incomplete_details":null,"output":[{"type":"reasoning","content":null,"summary":[]},
 {"type":"message","content":[{"type":"output_text","text":"Hel"},{"type":"output_text","text":"lo é"}]}],
 "usage":{"input_tokens":1000,"output_tokens":300,"input_tokens_details":{"cached_tokens":400},"output_tokens_details":{"reasoning_tokens":50}}}`

	chatted = `{"id":"chat_1","model":"xai.grok-4.3","service_tier":"priority","choices":[{"index":0,"finish_reason":"stop",
 "message":{"role":"assistant","content":"Hello","refusal":null,"tool_calls":null}}],
 "usage":{"prompt_tokens":1000,"completion_tokens":300,"prompt_tokens_details":{"cached_tokens":400},"completion_tokens_details":{"reasoning_tokens":50}}}`
)

// A trip is an http.RoundTripper in this process.
type trip func(*http.Request) (*http.Response, error)

func (f trip) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// answer makes a response of headers as "Name: value" and a body.
func answer(status int, body string, headers ...string) *http.Response {
	h := http.Header{"Content-Type": {"application/json"}}
	for _, line := range headers {
		name, value, _ := strings.Cut(line, ": ")
		h.Set(name, value)
	}
	return &http.Response{
		StatusCode: status, ProtoMajor: 1, ProtoMinor: 1, Header: h,
		Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body)),
	}
}

// always answers every request the same.
func always(status int, body string, headers ...string) *http.Client {
	return &http.Client{Transport: trip(func(req *http.Request) (*http.Response, error) {
		drain(req)
		res := answer(status, body, headers...)
		res.Request = req
		return res, nil
	})}
}

func drain(req *http.Request) []byte {
	b, err := io.ReadAll(req.Body)
	if err != nil {
		panic(err)
	}
	return b
}

func newClient(tb testing.TB, cfg mantle.Config) *mantle.Client {
	tb.Helper()
	if cfg.APIKey == "" && cfg.AWS == nil && cfg.BaseURL == "" {
		cfg.APIKey = "test-key"
	}
	c, err := mantle.New(tb.Context(), cfg)
	if err != nil {
		tb.Fatalf("New = %v, want nil", err)
	}
	return c
}

// call makes a job of a body for an API, with an optional "upwell" object.
func call(tb testing.TB, url, body string, upwell ...string) worker.Call {
	tb.Helper()
	line := fmt.Sprintf(`{"custom_id":"a","method":"POST","url":%q,"body":%s}`, url, strings.Join(append([]string{body}, upwell...), `,"upwell":`))
	j, err := jobs.Parse([]byte(line), "run")
	if err != nil {
		tb.Fatalf("Parse(%s) = %v, want nil", line, err)
	}
	return worker.Call{Job: &j, Lane: throttle.Lane{Region: "us-west-2", Model: j.Model, Tier: j.Tier}}
}

func prompt(model string) string { return fmt.Sprintf(`{"model":%q,"input":"hi"}`, model) }

// failure makes a call that has to fail.
func failure(ctx context.Context, tb testing.TB, c *mantle.Client, cl worker.Call) *worker.Error {
	tb.Helper()
	ans, err := c.Complete(ctx, cl)
	e, ok := errors.AsType[*worker.Error](err)
	if !ok {
		tb.Fatalf("Complete = %+v, %v, want a *worker.Error", ans, err)
	}
	if !strings.HasPrefix(e.Error(), "mantle: ") {
		tb.Errorf("error %q does not name the package", e)
	}
	return e
}

func TestAnswers(t *testing.T) {
	usage := jobs.Usage{InputTokens: 1000, CachedTokens: 400, OutputTokens: 300, ReasoningTokens: 50}
	for url, want := range map[string]worker.Answer{
		jobs.Responses: {
			Response: jobs.Response{StatusCode: 200, RequestID: "req_1", Body: json.RawMessage(said)},
			Text:     "Hello é", Model: grok, Tier: "flex", Usage: usage, CostUSD: (600*1.25 + 400*.2 + 300*2.5) * .5 / 1e6,
			Price: &jobs.Price{Input: 0.625, Cached: 0.10, Output: 1.25, AsOf: "2026-08-13"},
		},
		jobs.ChatCompletions: {
			Response: jobs.Response{StatusCode: 200, RequestID: "req_1", Body: json.RawMessage(chatted)},
			Text:     "Hello", Model: grok, Tier: "priority", Usage: usage, CostUSD: (600*1.25 + 400*.2 + 300*2.5) * 1.75 / 1e6,
			Price: &jobs.Price{Input: 2.1875, Cached: 0.35, Output: 4.375, AsOf: "2026-08-13"},
		},
	} {
		body := map[string]string{jobs.Responses: said, jobs.ChatCompletions: chatted}[url]
		c := newClient(t, mantle.Config{HTTPClient: always(200, body, "X-Request-Id: req_1")})
		got, err := c.Complete(t.Context(), call(t, url, prompt(grok)))
		if err != nil {
			t.Fatalf("Complete(%s) = %v, want nil", url, err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("Complete(%s) (-want +got):\n%s", url, d)
		}
	}
}

func TestWhereCallsGo(t *testing.T) {
	for name, tc := range map[string]struct {
		cfg        mantle.Config
		region     string
		url, model string
		want       string
	}{
		"grok":           {mantle.Config{}, "us-west-2", jobs.Responses, grok, "https://bedrock-mantle.us-west-2.api.aws/openai/v1/responses"},
		"grok chat":      {mantle.Config{}, "us-west-2", jobs.ChatCompletions, grok, "https://bedrock-mantle.us-west-2.api.aws/openai/v1/chat/completions"},
		"gpt-5":          {mantle.Config{}, "us-west-2", jobs.Responses, "openai.gpt-5.6", "https://bedrock-mantle.us-west-2.api.aws/openai/v1/responses"},
		"gemma":          {mantle.Config{}, "us-west-2", jobs.Responses, "google.gemma-4-27b", "https://bedrock-mantle.us-west-2.api.aws/openai/v1/responses"},
		"gpt-oss":        {mantle.Config{}, "us-west-2", jobs.ChatCompletions, oss, "https://bedrock-mantle.us-west-2.api.aws/v1/chat/completions"},
		"another Region": {mantle.Config{Regions: []string{"us-west-2", "us-east-1"}}, "us-east-1", jobs.Responses, grok, "https://bedrock-mantle.us-east-1.api.aws/openai/v1/responses"},
		"path override":  {mantle.Config{Paths: map[string]string{"xai.grok-4": "/beta/v2/"}}, "us-west-2", jobs.Responses, grok, "https://bedrock-mantle.us-west-2.api.aws/beta/v2/responses"},
		"base URL":       {mantle.Config{BaseURL: "http://localhost:8080/v1/"}, "anywhere", jobs.ChatCompletions, "m", "http://localhost:8080/v1/chat/completions"},
		"another vendor": {mantle.Config{BaseURL: "https://api.x.ai/v1", APIKey: "xai-key"}, "", jobs.Responses, "grok-4.3", "https://api.x.ai/v1/responses"},
		"own Region":     {mantle.Config{BaseURL: "https://bedrock-mantle.us-east-2.api.aws/openai/v1", APIKey: "k"}, "us-east-2", jobs.Responses, grok, "https://bedrock-mantle.us-east-2.api.aws/openai/v1/responses"},
	} {
		t.Run(name, func(t *testing.T) {
			var got string
			tc.cfg.HTTPClient = &http.Client{Transport: trip(func(req *http.Request) (*http.Response, error) {
				got = req.URL.String()
				return answer(200, said), nil
			})}
			cl := call(t, tc.url, prompt(tc.model))
			cl.Lane.Region = tc.region
			_, _ = newClient(t, tc.cfg).Complete(t.Context(), cl)
			if got != tc.want {
				t.Errorf("called %s, want %s", got, tc.want)
			}
		})
	}
}

func TestUnknownRegion(t *testing.T) {
	cl := call(t, jobs.Responses, prompt(grok))
	cl.Lane.Region = "eu-west-1"
	if e := failure(t.Context(), t, newClient(t, mantle.Config{}), cl); e.Kind != worker.Unauthorized {
		t.Errorf("Kind = %v, want unauthorized", e.Kind)
	}
}

func TestRegions(t *testing.T) {
	for _, tc := range []struct {
		cfg  mantle.Config
		want []string
	}{
		{mantle.Config{}, []string{"us-west-2"}},
		{mantle.Config{Regions: []string{"us-east-1", "us-east-2"}}, []string{"us-east-1", "us-east-2"}},
		{mantle.Config{BaseURL: "http://localhost/v1"}, []string{""}},
		{mantle.Config{BaseURL: "https://bedrock-mantle.us-east-2.api.aws/v1", APIKey: "k"}, []string{"us-east-2"}},
		{mantle.Config{BaseURL: "https://bedrock-runtime.us-east-1.amazonaws.com/openai/v1", APIKey: "k"}, []string{"us-east-1"}},
	} {
		if d := cmp.Diff(tc.want, newClient(t, tc.cfg).Regions()); d != "" {
			t.Errorf("Regions (-want +got):\n%s", d)
		}
	}
}

// A router answers like mantle for a model on one base path.
type router struct {
	mu    sync.Mutex
	right string
	calls map[string]int // by path
}

func (r *router) RoundTrip(req *http.Request) (*http.Response, error) {
	drain(req)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls[req.URL.Path]++
	if req.URL.Path == r.right {
		return answer(200, said), nil
	}
	return answer(400, `{"error":{"code":"validation_error","message":"model `+"`m`"+` isn't supported on this route","param":null,"type":"invalid_request_error"}}`), nil
}

func TestWrongRouteIsPutRightOnce(t *testing.T) {
	r := &router{right: "/openai/v1/responses", calls: map[string]int{}}
	c := newClient(t, mantle.Config{HTTPClient: &http.Client{Transport: r}})
	cl := call(t, jobs.Responses, prompt(oss))
	for range 3 {
		if _, err := c.Complete(t.Context(), cl); err != nil {
			t.Fatalf("Complete = %v, want nil", err)
		}
	}
	if d := cmp.Diff(map[string]int{"/v1/responses": 1, "/openai/v1/responses": 3}, r.calls); d != "" {
		t.Errorf("calls (-want +got):\n%s", d)
	}
}

// Calls that were under way when another one put the route right follow it.
func TestWrongRouteInParallel(t *testing.T) {
	r := &router{right: "/openai/v1/responses", calls: map[string]int{}}
	c := newClient(t, mantle.Config{HTTPClient: &http.Client{Transport: r}})
	var wg sync.WaitGroup
	for range 32 {
		cl := call(t, jobs.Responses, prompt(oss))
		wg.Go(func() {
			if _, err := c.Complete(t.Context(), cl); err != nil {
				t.Errorf("Complete = %v, want nil", err)
			}
		})
	}
	wg.Wait()
	if got := r.calls["/openai/v1/responses"]; got != 32 {
		t.Errorf("%d calls on the right path, want 32", got)
	}
}

func TestNoRightRoute(t *testing.T) {
	for name, tc := range map[string]struct {
		cfg  mantle.Config
		want map[string]int
	}{
		"default path": {mantle.Config{}, map[string]int{"/v1/responses": 1, "/openai/v1/responses": 3}},
		"base URL":     {mantle.Config{BaseURL: "http://host/v1"}, map[string]int{"/v1/responses": 3}},
		"own path":     {mantle.Config{Paths: map[string]string{"openai.gpt-oss": "/own"}}, map[string]int{"/own/responses": 3}},
		"other path":   {mantle.Config{Paths: map[string]string{"openai.gpt-oss": "/openai/v1"}}, map[string]int{"/v1/responses": 3, "/openai/v1/responses": 1}},
	} {
		t.Run(name, func(t *testing.T) {
			r := &router{right: "/none", calls: map[string]int{}}
			tc.cfg.HTTPClient = &http.Client{Transport: r}
			c := newClient(t, tc.cfg)
			for range 3 {
				e := failure(t.Context(), t, c, call(t, jobs.Responses, prompt(oss)))
				if e.Kind != worker.Unauthorized {
					t.Errorf("Kind = %v (%v), want unauthorized", e.Kind, e)
				}
			}
			if d := cmp.Diff(tc.want, r.calls); d != "" {
				t.Errorf("calls (-want +got):\n%s", d)
			}
		})
	}
}

func TestOneRequestPerCall(t *testing.T) {
	for _, status := range []int{302, 307, 408, 409, 429, 500, 503} {
		var calls atomic.Int32
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			calls.Add(1)
			w.Header().Set("X-Should-Retry", "true")
			w.Header().Set("Location", "/v1/elsewhere")
			w.WriteHeader(status)
		}))
		c := newClient(t, mantle.Config{BaseURL: srv.URL + "/v1"})
		_ = failure(t.Context(), t, c, call(t, jobs.Responses, prompt("m")))
		if calls.Load() != 1 {
			t.Errorf("status %d: %d requests, want 1", status, calls.Load())
		}
		srv.Close()
	}
}

// One connection lasts through calls that follow each other, whatever their
// status, and calls at the same time have one each. Where the end of a request is
// noticed 50 ms after its answer net/http gives a connection up, which is as may be on
// a machine that is busy: time is virtual here, and connections are pipes.
func TestConnectionsAreKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const parallel = 64
		var conns, calls atomic.Int32
		var together sync.WaitGroup
		together.Add(parallel)
		l := fixture.Serve(t, &http.Server{
			Handler: http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
				_, _ = io.Copy(io.Discard, req.Body)
				n := calls.Add(1)
				if n > 200 && n <= 200+parallel {
					together.Done()
					together.Wait()
				}
				if n%3 == 0 {
					w.WriteHeader(http.StatusTooManyRequests)
				}
				_, _ = io.WriteString(w, said)
			}),
			ConnState: func(_ net.Conn, s http.ConnState) {
				if s == http.StateNew {
					conns.Add(1)
				}
			},
		})
		std := http.DefaultTransport.(*http.Transport)
		tr := std.Clone()
		tr.DialContext = l.DialContext
		http.DefaultTransport = tr
		c := newClient(t, mantle.Config{BaseURL: "http://mantle.test/v1"})
		http.DefaultTransport = std
		for range 200 {
			_, _ = c.Complete(t.Context(), call(t, jobs.Responses, prompt("m")))
		}
		if got := conns.Load(); got != 1 {
			t.Errorf("%d connections for 200 calls in a row, want 1", got)
		}
		for range 4 {
			var wg sync.WaitGroup
			for range parallel {
				cl := call(t, jobs.Responses, prompt("m"))
				wg.Go(func() { _, _ = c.Complete(t.Context(), cl) })
			}
			wg.Wait()
			if got := conns.Load(); got != parallel {
				t.Errorf("%d connections for %d calls at a time, want as many", got, parallel)
			}
		}
		if got := calls.Load(); got != 200+4*parallel {
			t.Errorf("%d calls arrived, want all", got)
		}
	})
}

func TestHTTP2AndHTTP1(t *testing.T) {
	for _, h1 := range []bool{false, true} {
		protos := make(chan string, 1)
		srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			protos <- req.Proto
			_, _ = io.WriteString(w, said)
		}))
		srv.EnableHTTP2 = true
		srv.StartTLS()
		// The certificate is nobody's but the server's own, so the client's
		// transport is taken apart rather than trusted.
		std := http.DefaultTransport.(*http.Transport)
		http.DefaultTransport = func() http.RoundTripper {
			tr := std.Clone()
			tr.TLSClientConfig = srv.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
			tr.TLSClientConfig.NextProtos = nil
			tr.TLSHandshakeTimeout = 0 // a machine may stand still for as long
			return tr
		}()
		c := newClient(t, mantle.Config{BaseURL: srv.URL + "/v1", HTTP1: h1})
		http.DefaultTransport = std
		if _, err := c.Complete(t.Context(), call(t, jobs.Responses, prompt("m"))); err != nil {
			t.Fatalf("Complete = %v, want nil", err)
		}
		want := "HTTP/2.0"
		if h1 {
			want = "HTTP/1.1"
		}
		if got := <-protos; got != want {
			t.Errorf("HTTP1 %t: %s, want %s", h1, got, want)
		}
		srv.Close()
	}
}

// The environment is read by the program, never by this package.
func TestEnvironmentIsIgnored(t *testing.T) {
	for name, value := range map[string]string{
		"OPENAI_API_KEY": "sk-environment", "OPENAI_ADMIN_KEY": "sk-admin-environment", "OPENAI_BASE_URL": "http://environment.invalid/v1",
		"OPENAI_ORG_ID": "org-environment", "OPENAI_PROJECT_ID": "proj-environment", "OPENAI_CUSTOM_HEADERS": "X-Environment: 1",
		"AWS_BEARER_TOKEN_BEDROCK": "bedrock-api-key-environment", "AWS_BEDROCK_BASE_URL": "http://environment.invalid/v1",
		"AWS_REGION": "not a region", "AWS_DEFAULT_REGION": "eu-central-1", "AWS_PROFILE": "environment",
		"AWS_ACCESS_KEY_ID": "AKIAENVIRONMENT", "AWS_SECRET_ACCESS_KEY": "environment", "AWS_SESSION_TOKEN": "environment",
	} {
		t.Setenv(name, value)
	}
	for name, cfg := range map[string]mantle.Config{
		"key":       {APIKey: "mine"},
		"base URL":  {BaseURL: "http://host.test/v1", APIKey: "mine"},
		"anonymous": {BaseURL: "http://host.test/v1"},
		"signed":    {AWS: static("AKIAMINE"), Regions: []string{"us-east-1"}},
		"minted":    {AWS: static("AKIAMINE"), Mint: true},
	} {
		t.Run(name, func(t *testing.T) {
			var req *http.Request
			cfg.HTTPClient = &http.Client{Transport: trip(func(r *http.Request) (*http.Response, error) {
				req = r
				return answer(200, said), nil
			})}
			c := newClient(t, cfg)
			cl := call(t, jobs.Responses, prompt(grok))
			cl.Lane.Region = c.Regions()[0]
			if _, err := c.Complete(t.Context(), cl); err != nil {
				t.Fatalf("Complete = %v, want nil", err)
			}
			text := fmt.Sprint(req.URL, req.Header)
			for _, leak := range []string{"environment", "ENVIRONMENT", "Environment", "eu-central-1", "not a region"} {
				if strings.Contains(text, leak) {
					t.Errorf("the request has %q of the environment: %s", leak, text)
				}
			}
			if name == "anonymous" && req.Header.Get("Authorization") != "" {
				t.Errorf("Authorization = %q, want none", req.Header.Get("Authorization"))
			}
		})
	}
}

func TestConfigErrors(t *testing.T) {
	for name, tc := range map[string]struct {
		cfg  mantle.Config
		want string
	}{
		"nothing":              {mantle.Config{}, "credentials: none given"},
		"key kind without key": {mantle.Config{Credentials: mantle.APIKey}, "no API key"},
		"sigv4 without AWS":    {mantle.Config{Credentials: mantle.SigV4}, "needs AWS credentials"},
		"sigv4 nowhere":        {mantle.Config{Credentials: mantle.SigV4, AWS: static("AKIA"), BaseURL: "http://host/v1"}, "needs a Region"},
		"anonymous at AWS":     {mantle.Config{Credentials: mantle.Anonymous}, "none given"},
		"unknown kind":         {mantle.Config{Credentials: "password"}, `"password"`},
		"key with newline":     {mantle.Config{APIKey: "secret\nsecret"}, "white space"},
		"region":               {mantle.Config{APIKey: "k", Regions: []string{"Oregon"}}, `"Oregon"`},
		"empty region":         {mantle.Config{APIKey: "k", Regions: []string{""}}, `want a Region`},
		"region twice":         {mantle.Config{APIKey: "k", Regions: []string{"us-east-1", "us-east-1"}}, "twice"},
		"other region":         {mantle.Config{APIKey: "k", BaseURL: "https://bedrock-mantle.us-east-2.api.aws/v1", Regions: []string{"us-east-1"}}, "the base URL is in us-east-2"},
		"base URL":             {mantle.Config{BaseURL: "localhost:8080"}, "base URL"},
		"user in base URL":     {mantle.Config{BaseURL: "http://me:secret@host/v1"}, "base URL"},
		"query in base URL":    {mantle.Config{BaseURL: "http://host/v1?k=secret"}, "base URL"},
		"API in base URL":      {mantle.Config{BaseURL: "http://host/v1/responses"}, "end it with the version"},
		"insecure AWS":         {mantle.Config{APIKey: "k", BaseURL: "http://bedrock-mantle.us-east-2.api.aws/v1"}, "HTTPS"},
		"path":                 {mantle.Config{APIKey: "k", Paths: map[string]string{"m": "v1"}}, `"v1"`},
		"key life":             {mantle.Config{APIKey: "k", KeyTTL: 13 * time.Hour}, "13h"},
		"negative":             {mantle.Config{APIKey: "k", MaxOutputTokens: -1}, "negative"},
		"AWS credentials":      {mantle.Config{AWS: broken("no profile")}, "no profile"},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := mantle.New(t.Context(), tc.cfg)
			if err == nil || !strings.Contains(err.Error(), tc.want) || !strings.HasPrefix(err.Error(), "mantle: ") {
				t.Errorf("New = %v, %v, want an error with %q", c, err, tc.want)
			}
			if err != nil && strings.Contains(err.Error(), "secret") {
				t.Errorf("the error tells the secret: %v", err)
			}
		})
	}
}
