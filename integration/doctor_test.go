package integration

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// A complaint is what the doctor must say of one check.
type complaint struct{ check, status, found, fix string } // the last two are regular expressions

// TestDoctor examines upwell local, as it is and with one thing wrong at a time, and
// reads what is said to people and to programs.
func TestDoctor(t *testing.T) {
	t.Parallel()
	s := newStack(t, "--latency", "1ms", "--accept-key", "local")
	vars := make(map[string]string)
	for _, e := range s.env {
		name, value, _ := strings.Cut(e, "=")
		vars[name] = value
	}
	sqs, s3 := vars["AWS_ENDPOINT_URL_SQS"], vars["AWS_ENDPOINT_URL_S3"]
	for _, tt := range []struct {
		name string
		env  string // one variable more, or none
		args string
		code int
		want []complaint
	}{
		{name: "all is well", want: []complaint{
			{"credentials", "ok", "environment", ""},
			{"model", "ok", `xai\.grok-4\.3 answered in .* on default: \d+ tokens in, 16 out, \$0\.0000`, ""},
			{"bucket", "ok", `^s3://upwell: `, ""},
			{"permissions", "ok", `^15 tried`, ""},
		}},
		{name: "a prefix and tiers", args: "--bucket s3://upwell/team --tier flex,priority", want: []complaint{
			{"model flex", "ok", "on flex", ""}, {"model priority", "ok", "on priority", ""}, {"bucket", "ok", `^s3://upwell/team: `, ""},
		}},
		{name: "the wrong base path", env: "OPENAI_BASE_URL=" + s.mantle + "/v1", code: 3, want: []complaint{
			{"base path", "failure", "refused at /v1 as if the credentials were wrong", "^OPENAI_BASE_URL=http://.*/openai/v1$"},
		}},
		{name: "the wrong key", env: "OPENAI_API_KEY=sk-0123456789abcdef", code: 3, want: []complaint{{"model", "failure", "401", "this endpoint's"}}},
		{name: "no call", args: "--no-call", want: []complaint{{"model", "skipped", "--no-call", ""}}},
		{name: "another model", args: "--model xai.grok-9", code: 3, want: []complaint{{"model", "failure", "does not exist", "spelling"}}},
		{name: "no queue", args: "--queue jbos", code: 3, want: []complaint{{"queue", "failure", "there is no queue jbos", "create-queue"}, {"dead letters", "skipped", "not found", ""}}},
		{name: "no bucket", args: "--bucket bukcet", code: 3, want: []complaint{{"bucket", "failure", "there is no bucket bukcet", "aws s3 mb"}}},
		{name: "nobody there", env: "AWS_ENDPOINT_URL_S3=http://127.0.0.1:1", code: 3, want: []complaint{{"bucket", "failure", "refused", "check the URL"}}},
		{name: "no such profile", args: "--profile law", code: 3, want: []complaint{
			{"credentials", "failure", "law", "list-profiles"}, {"queue", "skipped", "no AWS credentials", ""}, {"model", "ok", "answered", ""},
		}},
		{name: "a permission is missing", env: "AWS_ENDPOINT_URL_SQS=" + front(t, sqs, refuse("DeleteMessageBatch")), code: 3, want: []complaint{
			{"permissions", "failure", "^refused: sqs:DeleteMessage on upwell-jobs$", `"Action":\["sqs:DeleteMessage"\],"Resource":"arn:aws:sqs:us-west-2:000000000000:upwell-jobs"`},
		}},
		{name: "a store without conditions", env: "AWS_ENDPOINT_URL_S3=" + front(t, s3, forget("If-None-Match")), args: "--prefix lenient", code: 3, want: []complaint{
			{"bucket", "failure", "ignores If-None-Match", "."},
		}},
		{name: "warnings alone", args: "--model openai.gpt-oss-20b", env: "OPENAI_BASE_URL=" + s.mantle + "/v1", want: []complaint{{"prices", "warning", "none for", "--prices"}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			args := append([]string{"doctor"}, strings.Fields(tt.args)...)
			env := append(slices.Clip(s.env), tt.env)
			p := examined(t, env, append(args, "--json")...)
			p.exits(t, tt.code)
			checkComplaints(t, p.stdout.String(), tt.want)
			if p.stderr.String() != "" {
				t.Errorf("standard error has %q, want nothing", p.stderr.String())
			}
			p = examined(t, env, args...)
			p.exits(t, tt.code)
			for _, w := range tt.want {
				mark := map[string]string{"ok": "✓", "warning": "!", "failure": "✗", "skipped": "-"}[w.status]
				if !regexp.MustCompile(`(?m)^` + mark + ` ` + w.check + ` +\S`).MatchString(p.stdout.String()) {
					t.Errorf("upwell doctor prints %s, want a line for %s with the mark %s", p.stdout.String(), w.check, mark)
				}
			}
			if strings.Contains(p.stdout.String(), "sk-0123456789abcdef") {
				t.Errorf("upwell doctor prints the key: %s", p.stdout.String())
			}
		})
	}
	if c := left(t, s.queue); c.Total() != 0 {
		t.Errorf("the queue has %+v after all examinations, want nothing in it", c)
	}
	if c := left(t, s.dead); c.Total() != 0 {
		t.Errorf("the dead-letter queue has %+v after all examinations, want nothing in it", c)
	}
	text, err := os.ReadFile(filepath.Join(s.dir, "state", "doctor.json"))
	if err != nil || string(text) != `{"upwell":"doctor"}`+"\n" {
		t.Errorf("the probe object holds %q, %v", text, err)
	}
	if _, err := os.Stat(filepath.Join(s.dir, "runs")); err == nil {
		t.Error("there are runs after all examinations, want none")
	}
}

// examined runs the doctor. It gives a service ten seconds to answer, which a busy machine
// may take: then it is run again.
func examined(t *testing.T, env []string, args ...string) (p *process) {
	t.Helper()
	eventually(t, "everything to answer in time", func() bool {
		p = launch(t, env, args...)
		p.wait(t)
		return !strings.Contains(p.stdout.String(), "no answer ") && !strings.Contains(p.stdout.String(), "deadline exceeded")
	})
	return p
}

// checkComplaints verifies what is said of some checks, and that all others are not
// failures.
func checkComplaints(t *testing.T, text string, want []complaint) {
	t.Helper()
	var list []struct{ Check, Status, Found, Fix string }
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		t.Fatalf("upwell doctor --json prints %q: %v", text, err)
	}
	met := 0
	for _, f := range list {
		var w *complaint
		for i := range want {
			if want[i].check == f.Check {
				w, met = &want[i], met+1
			}
		}
		switch {
		case w == nil && f.Status == "failure":
			t.Errorf("%s: failure %q, want none", f.Check, f.Found)
		case w != nil && (w.status != f.Status || !regexp.MustCompile(w.found).MatchString(f.Found) || !regexp.MustCompile(w.fix).MatchString(f.Fix)):
			t.Errorf("%s: %s %q, fix %q, want %+v", f.Check, f.Status, f.Found, f.Fix, *w)
		}
	}
	if met != len(want) || len(list) < 14 {
		t.Errorf("%d findings, of them %d that are wanted, want 14 or more and %d", len(list), met, len(want))
	}
}

// front serves what is at a URL, with change in front of it, and returns its own URL.
func front(t *testing.T, to string, change func(http.Handler) http.Handler) string {
	t.Helper()
	u, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(change(&httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(u)
			r.Out.Host = r.In.Host // which the signature is for
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { // of a client that was killed, mostly
			w.WriteHeader(http.StatusBadGateway)
		},
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// refuse answers an operation of SQS's as IAM does when it is not allowed.
func refuse(op string) func(http.Handler) http.Handler {
	return func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("X-Amz-Target") != "AmazonSQS."+op {
				h.ServeHTTP(w, r)
				return
			}
			w.Header().Set("X-Amzn-Query-Error", "AccessDenied;Sender")
			w.WriteHeader(http.StatusForbidden)
			_, _ = w.Write([]byte(`{"__type":"com.amazon.coral.service#AccessDeniedException","message":"not authorized to perform: sqs:deletemessage"}`))
		})
	}
}

// forget drops a header.
func forget(header string) func(http.Handler) http.Handler {
	return func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			r.Header.Del(header)
			h.ServeHTTP(w, r)
		})
	}
}
