package mantle_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"upwell/jobs"
	"upwell/worker"
	"upwell/worker/mantle"
)

// openAI is an error body as OpenAI writes it.
func openAI(code, kind, message string) string {
	return fmt.Sprintf(`{"error":{"code":%q,"message":%q,"param":null,"type":%q}}`, code, message, kind)
}

func TestStatuses(t *testing.T) {
	const (
		unauthorized, throttled, unavailable = worker.Unauthorized, worker.Throttled, worker.Unavailable
		transient, permanent                 = worker.Transient, worker.Permanent
	)
	for name, tc := range map[string]struct {
		status int
		body   string
		kind   worker.Kind
		class  jobs.Class
		want   string // in the error
	}{
		"429":                   {429, openAI("rate_limit_exceeded", "requests", "slow"), throttled, "", "429 Too Many Requests: rate_limit_exceeded: slow"},
		"429 AWS":               {429, `{"message":"Too many tokens, please wait before trying again.","__type":"com.amazon#ThrottlingException"}`, throttled, "", "ThrottlingException: Too many tokens"},
		"429 string":            {429, `{"error":"overloaded"}`, throttled, "", "overloaded"},
		"429 number":            {429, `{"error":{"code":429,"message":"m"}}`, throttled, "", "429: m"},
		"429 nested":            {429, `{"error":{"message":{"detail":"deep"}}}`, throttled, "", `{"detail":"deep"}`},
		"429 empty":             {429, ``, throttled, "", "429 Too Many Requests"},
		"429 slow down":         {429, openAI("slow_down", "", ""), throttled, "", "slow_down"},
		"429 no Flex capacity":  {429, openAI("resource_unavailable", "", "no capacity"), unavailable, "", "no capacity"},
		"429 overloaded":        {429, openAI("server_is_overloaded", "", ""), unavailable, "", "overloaded"},
		"503":                   {503, ``, unavailable, "", "503 Service Unavailable"},
		"503 rate":              {503, openAI("rate_limit_exceeded", "", ""), unavailable, "", ""},
		"529":                   {529, `{"error":{"type":"overloaded_error","message":"m"}}`, unavailable, "", "529: overloaded_error: m"},
		"500":                   {500, `{"detail":"boom"}`, transient, "", "boom"},
		"500 overloaded":        {500, openAI("overloaded", "", ""), unavailable, "", ""},
		"500 throttled":         {500, `{"__type":"ThrottlingException"}`, throttled, "", ""},
		"502 page":              {502, "<html><body>Bad Gateway</body></html>", transient, "", "502 Bad Gateway: an HTML page"},
		"504":                   {504, `upstream timed out`, transient, "", "upstream timed out"},
		"408":                   {408, ``, transient, "", "408"},
		"409":                   {409, ``, transient, "", "409"},
		"424":                   {424, `{"__type":"ModelErrorException"}`, transient, "", "ModelErrorException"},
		"401":                   {401, openAI("invalid_api_key", "invalid_request_error", "bad key"), unauthorized, "", "bedrock-mantle:CreateInference"},
		"401 wrong path":        {401, openAI("", "", "The security token included in the request is invalid."), unauthorized, "", "base path"},
		"403":                   {403, `{"message":"denied"}`, unauthorized, "", "bedrock-mantle:CallWithBearerToken"},
		"403 Berm":              {403, openAI("access_denied", "permission_denied_error", "Berm is not enabled for this account"), unauthorized, "", "Berm"},
		"404 Berm":              {404, openAI("", "", "Berm is not enabled for this account"), unauthorized, "", "Berm"},
		"400 denied":            {400, openAI("access_denied", "permission_denied_error", "x"), unauthorized, "", "access_denied"},
		"400 xAI key":           {400, `{"code":"Client specified an invalid argument","error":"Incorrect API key provided: xa***23."}`, unauthorized, "", "invalid argument: Incorrect API key"},
		"402":                   {402, `{"error":"no credit"}`, unauthorized, "", "no credit"},
		"403 xAI's guidelines":  {403, `{"code":"The caller does not have permission","error":"Content violates usage guidelines."}`, permanent, jobs.Refused, "guidelines"},
		"404 model":             {404, openAI("model_not_found", "", "The model `x` does not exist"), permanent, jobs.BadRequest, grok},
		"404 model, by text":    {404, `{"error":{"message":"model does not exist"}}`, permanent, jobs.BadRequest, grok},
		"404 page":              {404, `404 page not found`, unauthorized, "", "wrong endpoint path"},
		"404 empty":             {404, ``, unauthorized, "", "check the model's base path"},
		"405":                   {405, ``, unauthorized, "", "wrong endpoint path"},
		"400":                   {400, openAI("validation_error", "invalid_request_error", "Failed to deserialize the JSON body"), permanent, jobs.BadRequest, "deserialize"},
		"400 wrong API":         {400, openAI("", "", "The model 'x' does not support the '/v1/chat/completions' API"), permanent, jobs.BadRequest, "does not support"},
		"413":                   {413, ``, permanent, jobs.BadRequest, "413"},
		"422":                   {422, `{"detail":"missing field"}`, permanent, jobs.BadRequest, "missing field"},
		"418":                   {418, ``, permanent, jobs.BadRequest, "teapot"},
		"400 context code":      {400, openAI("context_length_exceeded", "", "m"), permanent, jobs.ContextLength, "context_length_exceeded"},
		"400 context text":      {400, openAI("", "", "This model's maximum context length is 8 tokens"), permanent, jobs.ContextLength, "maximum"},
		"400 xAI context":       {400, `{"error":"This model's maximum prompt length is 131072 but the request contains 200000 tokens."}`, permanent, jobs.ContextLength, "131072"},
		"413 too long":          {413, `{"message":"Input is too long for requested model."}`, permanent, jobs.ContextLength, "too long"},
		"400 too many tokens":   {400, `{"message":"Too many tokens, please wait before trying again."}`, throttled, "", "please wait"},
		"400 throttle code":     {400, `{"__type":"ThrottlingException","message":"Rate exceeded, input too long a queue"}`, throttled, "", ""},
		"400 content filter":    {400, openAI("content_filter", "", "m"), permanent, jobs.Refused, ""},
		"301":                   {301, ``, unauthorized, "", "redirected to elsewhere.test: "},
		"304":                   {304, ``, unauthorized, "", "304"},
		"error nobody foresaw":  {500, `{"error":[1,2]}`, transient, "", "500"},
		"error object of error": {500, `{"error":{"error":{"message":"deep"}}}`, transient, "", "deep"},
	} {
		t.Run(name, func(t *testing.T) {
			c := newClient(t, mantle.Config{HTTPClient: always(tc.status, tc.body, "x-request-id: req_9", "Retry-After: 7", "Location: https://elsewhere.test/?k=v")})
			e := failure(t.Context(), t, c, call(t, jobs.Responses, prompt(grok)))
			if e.Kind != tc.kind || e.Class != tc.class || !strings.Contains(e.Error(), tc.want) {
				t.Errorf("%v %q %q, want %v %q %q", e.Kind, e.Class, e, tc.kind, tc.class, tc.want)
			}
			if e.Status != tc.status || e.RequestID != "req_9" || e.RetryAfter != 7*time.Second || e.Answer != nil {
				t.Errorf("status %d, request %q, retry after %v, answer %v", e.Status, e.RequestID, e.RetryAfter, e.Answer)
			}
		})
	}
}

func TestAdviceForAnotherEndpoint(t *testing.T) {
	for status, want := range map[int]string{401: "API key", 404: "OPENAI_BASE_URL", 302: "OPENAI_BASE_URL"} {
		c := newClient(t, mantle.Config{BaseURL: "http://host/v1", HTTPClient: always(status, "", "Location: /x")})
		if e := failure(t.Context(), t, c, call(t, jobs.Responses, prompt("m"))); e.Kind != worker.Unauthorized || !strings.Contains(e.Error(), want) {
			t.Errorf("%d: %v %q, want %q", status, e.Kind, e, want)
		}
	}
}

func TestErrorTextIsBounded(t *testing.T) {
	long := strings.Repeat("é\n\t\x00", 1<<17)
	for _, body := range []string{long, `{"error":{"message":"` + strings.Repeat("é", 1<<17) + `"}}`} {
		c := newClient(t, mantle.Config{HTTPClient: always(400, body, "X-Request-Id: "+strings.Repeat("i", 5000))})
		e := failure(t.Context(), t, c, call(t, jobs.Responses, prompt(grok)))
		if n := len(e.Error()); n > 500 || strings.ContainsAny(e.Error(), "\n\x00\ufffd") || len(e.RequestID) > 128 {
			t.Errorf("error of %d bytes %.60q, request id of %d, want one short line", n, e, len(e.RequestID))
		}
	}
}

func TestSecretsAreScrubbed(t *testing.T) {
	const key = "odd+key/of=nobody's-making"
	for text, secret := range map[string]string{
		key:                       key,
		"Bearer abcdefghijklmnop": "abcdefghijklmnop",
		"bedrock-api-key-YmVkcm9jay5hbWF6b25hd3MuY29tLz9BY3Rpb249Q2Fs==": "YmVkcm9jay5hbWF6b25hd3MuY29tLz9BY3Rpb249Q2Fs==",
		"AKIAIOSFODNN7EXAMPLE":                       "AKIAIOSFODNN7EXAMPLE",
		"ASIAIOSFODNN7EXAMPLE":                       "ASIAIOSFODNN7EXAMPLE",
		"X-Amz-Signature=0123456789abcdef":           "0123456789abcdef",
		"X-Amz-Security-Token: IQoJb3JpZ2luX2VjE":    "IQoJb3JpZ2luX2VjE",
		"SignedHeaders=host, Signature=fe5f80f77d5f": "fe5f80f77d5f",
		"Credential=somebody/20261101/us-west-2":     "somebody/20261101/us-west-2",
		"Authorization: dXNlcjpwYXNz":                "dXNlcjpwYXNz",
		`"authorization":"dXNlcjpwYXNz"`:             "dXNlcjpwYXNz",
		"x-api-key=dXNlcjpwYXNz":                     "dXNlcjpwYXNz",
		"sk-proj-abcdefghijklmnop":                   "proj-abcdefghijklmnop",
		"xai-abcdefghijklmnop":                       "abcdefghijklmnop",
		"http://somebody:hushhush@proxy.test/":       "somebody:hushhush",
	} {
		// At each of these a cut could leave a part of it.
		for _, before := range []int{0, 300, 340, 360, 370, 380, 390} {
			text := strings.Repeat("-", before) + " " + text + " after"
			body := openAI("bad", "bad", text)
			for name, hc := range map[string]*http.Client{
				"status":   always(400, body),
				"key":      always(401, body),
				"page":     always(500, text),
				"in band":  always(200, `{"status":"failed",`+body[1:]),
				"refusal":  always(200, fmt.Sprintf(`{"status":"completed","output":[{"type":"message","content":[{"type":"refusal","refusal":%q}]}]}`, text)),
				"transfer": {Transport: trip(func(*http.Request) (*http.Response, error) { return nil, errors.New(text) })},
			} {
				c := newClient(t, mantle.Config{APIKey: key, HTTPClient: hc})
				e := failure(t.Context(), t, c, call(t, jobs.Responses, prompt(grok)))
				for i := range len(secret) - 6 {
					if strings.Contains(e.Error(), secret[i:i+7]) {
						t.Fatalf("%s: the error tells %q of %q: %v", name, secret[i:i+7], text, e)
					}
				}
			}
		}
	}
}

func TestWordsThatOnlySoundSecretStay(t *testing.T) {
	const text = "Credential should be scoped to correct service: 'bedrock-mantle'; the task-list-of-things has no signature"
	c := newClient(t, mantle.Config{HTTPClient: always(401, openAI("", "", text))})
	if e := failure(t.Context(), t, c, call(t, jobs.Responses, prompt(grok))); !strings.Contains(e.Error(), text) {
		t.Errorf("error %q, want it to quote %q", e, text)
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 11, 5, 12, 0, 0, 0, time.UTC)
	in := func(d time.Duration) string { return now.Add(d).Format(http.TimeFormat) }
	for _, tc := range []struct {
		header string
		want   time.Duration
	}{
		{"Retry-After: 20", 20 * time.Second},
		{"Retry-After: 1.5", 1500 * time.Millisecond},
		{"Retry-After: " + in(90*time.Second), 90 * time.Second},
		{"Retry-After: " + in(-90*time.Second), 0},
		{"Retry-After: " + in(240*time.Hour), time.Hour},
		{"Retry-After: " + now.Add(time.Minute).Format(time.RFC850), time.Minute},
		{"Retry-After: 86400", time.Hour},
		{"Retry-After: 1e999", time.Hour},
		{"Retry-After: -5", 0},
		{"Retry-After: NaN", 0},
		{"Retry-After: soon", 0},
		{"Retry-After: ", 0},
		{"Retry-After-Ms: 250", 250 * time.Millisecond},
		{"Retry-After-Ms: 1e12", time.Hour},
		{"Retry-After-Ms: 250|Retry-After: 2", 2 * time.Second},
		{"Date: " + in(-time.Hour) + "|Retry-After: " + in(time.Minute-time.Hour), time.Minute},
	} {
		h := http.Header{}
		for line := range strings.SplitSeq(tc.header, "|") {
			name, value, _ := strings.Cut(line, ": ")
			h.Set(name, value)
		}
		if got := mantle.RetryAfter(h, now); got != tc.want {
			t.Errorf("RetryAfter(%s) = %v, want %v", tc.header, got, tc.want)
		}
	}
}

func FuzzRetryAfter(f *testing.F) {
	for _, s := range []string{"1", "-1", "1e400", "Inf", "NaN", "Thu, 05 Nov 2026 12:00:00 GMT", "0x1p-2", "99999999999999999999"} {
		f.Add(s, s, s)
	}
	f.Fuzz(func(t *testing.T, after, ms, date string) {
		h := http.Header{"Retry-After": {after}, "Retry-After-Ms": {ms}, "Date": {date}}
		if d := mantle.RetryAfter(h, time.Unix(0, 0)); d < 0 || d > time.Hour {
			t.Errorf("RetryAfter(%q, %q, %q) = %v, want 0 to 1h", after, ms, date, d)
		}
	})
}

// raw serves connections by hand.
func raw(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			serve(conn)
			_ = conn.Close()
		}
	}()
	return "http://" + l.Addr().String() + "/v1"
}

func TestLostConnections(t *testing.T) {
	request := func(c net.Conn) {
		req, err := http.ReadRequest(bufio.NewReader(c))
		if err == nil {
			_, _ = io.Copy(io.Discard, req.Body)
		}
	}
	for name, tc := range map[string]struct {
		serve  func(net.Conn)
		want   string
		kind   worker.Kind
		status int
	}{
		"closed": {request, "closed without an answer", worker.Transient, 0},
		"reset":  {func(c net.Conn) { request(c); _ = c.(*net.TCPConn).SetLinger(0) }, "reset", worker.Transient, 0},
		"cut": {func(c net.Conn) {
			request(c)
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n%s", `{"status":`)
		}, "broke off", worker.Transient, 0},
		"cut chunk": {func(c net.Conn) {
			request(c)
			fmt.Fprint(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n{")
		}, "broke off", worker.Transient, 0},
		"cut error": {func(c net.Conn) {
			request(c)
			fmt.Fprint(c, "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 4\r\nContent-Length: 500\r\n\r\n{")
		}, "429", worker.Throttled, 429},
		"garbage": {func(c net.Conn) { request(c); fmt.Fprint(c, "SSH-2.0-OpenSSH\r\n") }, "malformed", worker.Transient, 0},
	} {
		t.Run(name, func(t *testing.T) {
			c := newClient(t, mantle.Config{BaseURL: raw(t, tc.serve)})
			e := failure(t.Context(), t, c, call(t, jobs.Responses, prompt("m")))
			if e.Unsent {
				t.Error("Unsent = true, want false: the request was sent")
			}
			if e.Kind != tc.kind || e.Status != tc.status || !strings.Contains(e.Error(), tc.want) || strings.Contains(e.Error(), "http://") {
				t.Errorf("%v %d %q, want %v %d %q", e.Kind, e.Status, e, tc.kind, tc.status, tc.want)
			}
		})
	}
	t.Run("refused", func(t *testing.T) {
		srv := httptest.NewServer(nil)
		srv.Close()
		e := failure(t.Context(), t, newClient(t, mantle.Config{BaseURL: srv.URL + "/v1"}), call(t, jobs.Responses, prompt("m")))
		if e.Kind != worker.Unavailable || !strings.Contains(e.Error(), "refused") || !e.Unsent {
			t.Errorf("%v %q, unsent %v, want unavailable, refused, unsent", e.Kind, e, e.Unsent)
		}
	})
	t.Run("no handshake", func(t *testing.T) {
		url := strings.Replace(raw(t, func(c net.Conn) { fmt.Fprint(c, "not TLS\r\n\r\n") }), "http:", "https:", 1)
		if e := failure(t.Context(), t, newClient(t, mantle.Config{BaseURL: url}), call(t, jobs.Responses, prompt("m"))); !e.Unsent {
			t.Errorf("%v %q, want unsent", e.Kind, e)
		}
	})
	t.Run("a transport that does not tell", func(t *testing.T) {
		c := newClient(t, mantle.Config{HTTPClient: &http.Client{Transport: trip(func(*http.Request) (*http.Response, error) {
			return nil, errors.New("lost")
		})}})
		if e := failure(t.Context(), t, c, call(t, jobs.Responses, prompt(grok))); e.Unsent {
			t.Errorf("%v %q, want that it may have been sent", e.Kind, e)
		}
	})
}

// endless never ends, and counts what is read of it.
type endless struct{ read int }

func (e *endless) Read(p []byte) (int, error) { e.read += len(p); return len(p), nil }
func (e *endless) Close() error               { return nil }

func TestAnswersAreBounded(t *testing.T) {
	for _, status := range []int{200, 500} {
		body := &endless{}
		c := newClient(t, mantle.Config{HTTPClient: &http.Client{Transport: trip(func(*http.Request) (*http.Response, error) {
			res := answer(status, "")
			res.Body, res.ContentLength = body, -1
			return res, nil
		})}})
		e := failure(t.Context(), t, c, call(t, jobs.Responses, prompt(grok)))
		if e.Kind != worker.Transient || body.read > 80<<20 {
			t.Errorf("%d: %v after %d bytes, want transient after 32 MiB", status, e, body.read)
		}
		if status == 200 && !strings.Contains(e.Error(), "32 MiB") {
			t.Errorf("error %q, want the bound", e)
		}
	}
}

// hang answers when the request is given up: never, for all that concerns us.
var hang = &http.Client{Transport: trip(func(req *http.Request) (*http.Response, error) {
	<-req.Context().Done()
	return nil, context.Cause(req.Context())
})}

func TestGivingUp(t *testing.T) {
	drained := errors.New("the worker is draining")
	synctest.Test(t, func(t *testing.T) {
		c := newClient(t, mantle.Config{HTTPClient: hang})
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Minute, func() { cancel(drained) })
		e := failure(ctx, t, c, call(t, jobs.Responses, prompt(grok)))
		if e.Kind != worker.Transient || !errors.Is(e, drained) {
			t.Errorf("%v %v, want transient, with the cause", e.Kind, e)
		}

		start := time.Now()
		ctx, stop := context.WithTimeout(t.Context(), 15*time.Minute)
		defer stop()
		e = failure(ctx, t, c, call(t, jobs.Responses, prompt(grok)))
		if e.Kind != worker.Transient || !errors.Is(e, context.DeadlineExceeded) || time.Since(start) != 15*time.Minute {
			t.Errorf("%v %v after %v, want transient, deadline, 15m", e.Kind, e, time.Since(start))
		}
	})
}

// An answer that stops half way is given up with its headers already here.
func TestGivingUpWhileReading(t *testing.T) {
	started := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		_, _ = io.Copy(io.Discard, req.Body)
		_, _ = io.WriteString(w, `{"status":`)
		_ = http.NewResponseController(w).Flush()
		close(started)
		<-req.Context().Done()
	}))
	defer srv.Close()
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("enough")
	go func() { <-started; cancel(stop) }()
	e := failure(ctx, t, newClient(t, mantle.Config{BaseURL: srv.URL + "/v1"}), call(t, jobs.Responses, prompt("m")))
	if !errors.Is(e, stop) {
		t.Errorf("Complete = %v, want the cause", e)
	}
}
