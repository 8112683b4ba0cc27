package mantle_test

import (
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"upwell/jobs"
	"upwell/worker"
	"upwell/worker/mantle"
)

// Changes of one line that these tests have been seen to catch:
//
//   - an answer that is not stripped; a request id that is not scrubbed
//   - a session token that is not kept; the boundaries of base64 not left out
//   - redirects followed
//   - headers without a bound

// canary is a key like none that is known by how it begins.
const canary = "cnry/Zq7+Vt0~Jw5.Xk2=Hm9-Pd4_Rs8"

// session is an AWS session token, as long as they are.
var session = "FwoGZXIvYXdzE" + strings.Repeat("Qk9/Lm2+Vx7Z", 40) + "=="

func temporary() aws.CredentialsProvider {
	return credentials.NewStaticCredentialsProvider("ASIACANARYCANARY", "canary/secret+access/key0123456789abcdefg", session)
}

// shapes are ways to write what somebody was told.
var shapes = map[string]func(string) string{
	"as it is":   func(s string) string { return s },
	"in a query": url.QueryEscape,
	"in a path":  url.PathEscape,
	"in hex":     func(s string) string { return hex.EncodeToString([]byte(s)) },
	"in HEX":     func(s string) string { return fmt.Sprintf("%X", s) },
	"in base64":  func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) },
	"with more": func(s string) string {
		return base64.StdEncoding.EncodeToString([]byte("Authorization: Bearer " + s + "\r\nHost: x"))
	},
	"with less":    func(s string) string { return base64.URLEncoding.EncodeToString([]byte("x:" + s + "\n")) },
	"with slashes": func(s string) string { return strings.ReplaceAll(s, "/", `\/`) },
}

// told looks for what of a secret is in a text, in any of its shapes. Of base64, which
// has bits of what is beside it at its ends, the middle counts.
func told(text, secret string) string {
	for name, shape := range shapes {
		// The parts of a long token are not each a secret.
		s := shape(secret)
		for _, part := range []string{s[:len(s)/2], s[len(s)/4 : 3*len(s)/4], s[len(s)/2:]} {
			if strings.Contains(text, strings.TrimRight(part, "=")) {
				return name
			}
		}
	}
	return ""
}

// TestEchoes has an endpoint that says back all that it was told, in every place of
// every kind of answer. Neither the answer nor the error may tell it to others.
func TestEchoes(t *testing.T) {
	for who, cfg := range map[string]mantle.Config{
		"key":    {APIKey: canary},
		"bearer": {BearerToken: canary, BaseURL: "http://host.test/openai/v1"},
		"minted": {AWS: temporary(), Credentials: mantle.ShortTerm},
		"signed": {AWS: temporary(), Credentials: mantle.SigV4},
	} {
		for shape, write := range shapes {
			for kind, reply := range map[string]struct {
				status int
				body   string // with %s for the echo, in JSON
			}{
				"result":       {200, message("you are %s")},
				"model":        {200, strings.Replace(message("ok"), `{`, `{"model":"%s","service_tier":"%s",`, 1)},
				"metadata":     {200, strings.Replace(message("ok"), `{`, `{"metadata":{"%s":"%s"},`, 1)},
				"unauthorized": {401, `{"error":{"message":"bad key %s","code":"%s","type":"x"}}`},
				"internal":     {500, `{"error":{"message":"dump: {Authorization:[%s]}"}}`},
				"throttled":    {429, `{"error":{"code":"rate_limit_exceeded","message":"%s"}}`},
				"no JSON":      {200, `%s`},
				"page":         {502, `upstream said: Authorization=%s`},
				"failed":       {200, `{"status":"failed","error":{"code":"server_error","message":"%s"}}`},
				"odd status":   {200, `{"status":"%s"}`},
				"refused":      {200, `{"status":"completed","output":[{"type":"message","content":[{"type":"refusal","refusal":"%s"}]}],"usage":{"input_tokens":1,"output_tokens":1}}`},
				"redirect":     {307, `%s`},
			} {
				t.Run(who+"/"+shape+"/"+kind, func(t *testing.T) {
					var secret string
					cfg.HTTPClient = &http.Client{Transport: trip(func(req *http.Request) (*http.Response, error) {
						drain(req)
						if secret = strings.TrimPrefix(req.Header.Get("Authorization"), "Bearer "); who == "signed" {
							secret = req.Header.Get("X-Amz-Security-Token")
						}
						echo := write(secret)
						if shape != "with slashes" { // that is an escape of JSON
							text, _ := json.Marshal(echo)
							echo = string(text[1 : len(text)-1])
						}
						return answer(reply.status, strings.ReplaceAll(reply.body, "%s", echo),
							"X-Request-Id: "+write(secret), "Location: https://"+hex.EncodeToString([]byte(secret))+".example.org/"), nil
					})}
					cfg.Regions = []string{"us-west-2"}
					ans, err := newClient(t, cfg).Complete(t.Context(), call(t, jobs.Responses, prompt(grok)))
					said := []string{fmt.Sprintf("%+v %+v", ans, err)}
					for _, a := range []*worker.Answer{&ans, answerOf(err)} {
						if a != nil {
							said = append(said, string(a.Response.Body), a.Response.RequestID, a.Text)
						}
					}
					if e, ok := errors.AsType[*worker.Error](err); ok {
						said = append(said, e.RequestID, e.Findings)
					}
					if secret == "" {
						t.Fatal("nothing was told")
					}
					if how := told(strings.Join(said, " "), secret); how != "" {
						t.Errorf("%.200q tells the secret %s", said, how)
					}
					if kind == "result" && err == nil && !json.Valid(ans.Response.Body) {
						t.Errorf("the answer is %q, want JSON still", ans.Response.Body)
					}
				})
			}
		}
	}
}

func answerOf(err error) *worker.Answer {
	if e, ok := errors.AsType[*worker.Error](err); ok {
		return e.Answer
	}
	return nil
}

// TestShortKeysAreNoSecrets has a key as for a simulator. It may be a word of the answer.
func TestShortKeysAreNoSecrets(t *testing.T) {
	c := newClient(t, mantle.Config{APIKey: "local", BaseURL: "http://host/v1", HTTPClient: always(200, message("the local law"))})
	if ans, err := c.Complete(t.Context(), call(t, jobs.Responses, prompt(grok))); err != nil || ans.Text != "the local law" {
		t.Errorf("Complete = %q, %v, want the answer as it is", ans.Text, err)
	}
}

// TestNoRedirect has an endpoint that sends its callers elsewhere. Nobody comes, with a
// key or without.
func TestNoRedirect(t *testing.T) {
	var visitors atomic.Int32
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		visitors.Add(1)
		_, _ = io.WriteString(w, said)
	}))
	defer other.Close()
	for who, cfg := range map[string]mantle.Config{
		"key":    {APIKey: canary},
		"minted": {AWS: temporary(), Credentials: mantle.ShortTerm, Regions: []string{"us-west-2"}},
		"signed": {AWS: temporary(), Credentials: mantle.SigV4, Regions: []string{"us-west-2"}},
	} {
		for _, status := range []int{301, 302, 303, 307, 308} {
			for _, to := range []string{other.URL + "/v1/responses", strings.TrimPrefix(other.URL, "http:") + "/v1/responses"} {
				var calls atomic.Int32
				srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
					calls.Add(1)
					w.Header().Set("Location", to)
					w.WriteHeader(status)
				}))
				cfg.BaseURL = srv.URL + "/v1"
				e := failure(t.Context(), t, newClient(t, cfg), call(t, jobs.Responses, prompt("m")))
				if e.Kind != worker.Unauthorized || calls.Load() != 1 || !strings.Contains(e.Error(), "redirected to "+strings.TrimPrefix(other.URL, "http://")) {
					t.Errorf("%s, %d to %s: %v %v after %d calls, want unauthorized after one, and where to", who, status, to, e.Kind, e, calls.Load())
				}
				srv.Close()
			}
		}
	}
	if n := visitors.Load(); n != 0 {
		t.Errorf("%d requests at the other host, want none", n)
	}
}

// flood writes until its reader is gone, and returns how much that was.
func flood(w io.Writer, block []byte) (n int64) {
	for n < 1<<30 {
		m, err := w.Write(block)
		if n += int64(m); err != nil {
			break
		}
	}
	return n
}

// TestFloods has an endpoint whose answers do not end. What is read of them is bounded,
// by their bytes once they are unpacked.
func TestFloods(t *testing.T) {
	block := []byte(strings.Repeat("0123456789abcdef", 4096))
	for name, tc := range map[string]struct {
		serve func(w http.ResponseWriter, wrote *atomic.Int64)
		most  int64 // that the other end could get rid of, with what its connection buffers
		want  string
	}{
		"a body": {func(w http.ResponseWriter, wrote *atomic.Int64) { wrote.Store(flood(w, block)) }, 64 << 20, "longer than 32 MiB"},
		"a gzip bomb": {func(w http.ResponseWriter, wrote *atomic.Int64) {
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			wrote.Store(flood(z, make([]byte, 1<<20)))
		}, 1 << 30, "longer than 32 MiB"},
		"a claim": {func(w http.ResponseWriter, wrote *atomic.Int64) {
			w.Header().Set("Content-Length", "9000000000000000000")
			wrote.Store(flood(w, block))
		}, 64 << 20, "longer than 32 MiB"},
		"headers": {func(w http.ResponseWriter, _ *atomic.Int64) {
			for i := range 10_000 {
				w.Header().Set(fmt.Sprintf("X-%d", i), strings.Repeat("h", 100))
			}
			_, _ = io.WriteString(w, said)
		}, 0, "server response headers exceeded 262144 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			var wrote atomic.Int64
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
				_, _ = io.Copy(io.Discard, req.Body)
				tc.serve(w, &wrote)
			}))
			c := newClient(t, mantle.Config{BaseURL: srv.URL + "/v1"})
			before := heap()
			e := failure(t.Context(), t, c, call(t, jobs.Responses, prompt(grok)))
			srv.Close() // waits for the handler
			if e.Kind != worker.Transient || !strings.Contains(e.Error(), tc.want) {
				t.Errorf("%v %v, want transient and %q", e.Kind, e, tc.want)
			}
			if n := wrote.Load(); n > tc.most {
				t.Errorf("the endpoint could write %d bytes, want at most %d", n, tc.most)
			}
			if held := int64(heap()) - int64(before); held > 1<<20 {
				t.Errorf("%d bytes are held afterwards, want none of it", held)
			}
		})
	}
}

// TestEndlessHeaders has a server that never ends its headers, which net/http's own
// would not do.
func TestEndlessHeaders(t *testing.T) {
	var wrote atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		_, _ = io.Copy(io.Discard, req.Body)
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\n")
		wrote.Store(flood(conn, []byte(strings.Repeat("X-Header: value\r\n", 4096))))
	}))
	e := failure(t.Context(), t, newClient(t, mantle.Config{BaseURL: srv.URL + "/v1"}), call(t, jobs.Responses, prompt(grok)))
	srv.Close()
	if e.Kind != worker.Transient || !strings.Contains(e.Error(), "exceeded 262144 bytes") || wrote.Load() > 32<<20 {
		t.Errorf("%v %v after %d bytes, want transient after 256 KiB and what a connection buffers", e.Kind, e, wrote.Load())
	}
}

// A timed is a context whose time is over when the test says so: that of a clock may be
// over before the request has got there.
type timed struct {
	context.Context //nolint:containedctx // it is one

	over chan struct{}
}

func (c timed) Done() <-chan struct{} { return c.over }

func (c timed) Err() error {
	select {
	case <-c.over:
		return context.DeadlineExceeded
	default:
		return nil
	}
}

// TestTrickle has answers that come a byte at a time, for ever. The attempt's time ends
// them, wherever they are.
func TestTrickle(t *testing.T) {
	for _, headers := range []bool{false, true} {
		gone := make(chan struct{})
		attempt := timed{context.Background(), make(chan struct{})}
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			defer close(gone)
			_, _ = io.Copy(io.Discard, req.Body) // or the server does not see that the client is gone
			tick := time.NewTicker(time.Millisecond)
			defer tick.Stop()
			if headers { // do not come
				close(attempt.over)
				<-req.Context().Done()
			}
			for i := 0; req.Context().Err() == nil; i++ {
				_, _ = io.WriteString(w, " ")
				_ = http.NewResponseController(w).Flush()
				if i == 20 {
					close(attempt.over)
				}
				<-tick.C
			}
		}))
		e := failure(attempt, t, newClient(t, mantle.Config{BaseURL: srv.URL + "/v1"}), call(t, jobs.Responses, prompt(grok)))
		if e.Kind != worker.Transient || !errors.Is(e, context.DeadlineExceeded) {
			t.Errorf("%v %v, want transient, and that the time was over", e.Kind, e)
		}
		<-gone // the connection is given up as well
		srv.Close()
	}
}

// TestPanic ends a process in the middle of a call, with all that Go can say about it.
func TestPanic(t *testing.T) {
	if os.Getenv("MANTLE_TEST_PANIC") != "" {
		for _, cfg := range []mantle.Config{
			{APIKey: os.Getenv("MANTLE_TEST_PANIC")}, {AWS: temporary(), Credentials: mantle.ShortTerm}, {AWS: temporary(), Credentials: mantle.SigV4},
		} {
			inside := make(chan struct{})
			cfg.HTTPClient = &http.Client{Transport: trip(func(req *http.Request) (*http.Response, error) {
				close(inside)
				if cfg.Credentials == mantle.SigV4 {
					panic(http.ErrAbortHandler) // the others wait, and are in the dump
				}
				<-req.Context().Done()
				return nil, req.Context().Err()
			})}
			c := newClient(t, cfg)
			cl := call(t, jobs.Responses, prompt(grok))
			go func() { _, _ = c.Complete(t.Context(), cl) }()
			<-inside
		}
		select {}
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestPanic$")
	cmd.Env = append(os.Environ(), "MANTLE_TEST_PANIC="+canary, "GOTRACEBACK=all")
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "goroutine") || !strings.Contains(string(out), "Complete") {
		t.Fatalf("%v: %s, want a dump of goroutines", err, out)
	}
	for _, secret := range []string{canary, session, "canary/secret+access/key0123456789abcdefg"} {
		if how := told(string(out), secret); how != "" {
			t.Errorf("the dump tells a secret %s: %s", how, out)
		}
	}
}
