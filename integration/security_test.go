package integration

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"upwell/integration/fixture"
	"upwell/jobs"
	"upwell/jobs/sqsqueue"
	"upwell/sink/s3sink"
)

// What infra/decisions/0015-threat-model.md claims of the whole program. Claims about
// one package are tested beside it, in files named *_security_test.go.

// Canaries are secrets that stand out in whatever they get into.
const (
	canaryKey     = "cnry/Zq7+Vt0Jw5Xk2Hm9Pd4Rs8=="
	canaryBearer  = "ABSKcnryTnVtYmVyT3duZXI6Zm9vYmFyYmF6cXV1eA"
	canarySecret  = "cnrySecret/wJalrXUtnFEMI+K7MDENGbPxRfiCYZ"
	canarySession = "FwoGZXIvYXdzEcnry/Qk9Lm2Vx7Zp3+Tt8Yy1Uu6Ww0QqRrSsDdFfGg=="
)

// An echo is an endpoint that says back what it is told, and remembers it.
type echo struct {
	*httptest.Server

	mode atomic.Pointer[string] // what becomes of every call, or "" for what the job's name begins with

	calls atomic.Int64

	mu   sync.Mutex
	told []string // values of Authorization and of session tokens
}

// newEcho starts one, beside another host to which it redirects.
func newEcho(t *testing.T) (e *echo, visitors *atomic.Int32) {
	t.Helper()
	e, visitors = new(echo), new(atomic.Int32)
	e.mode.Store(new(""))
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { visitors.Add(1) }))
	t.Cleanup(other.Close)
	e.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { e.serve(w, r, other.URL) }))
	t.Cleanup(e.Close)
	return e, visitors
}

func (e *echo) serve(w http.ResponseWriter, r *http.Request, other string) {
	var asked struct {
		Metadata struct {
			CustomID string `json:"custom_id"`
		}
	}
	_ = json.NewDecoder(r.Body).Decode(&asked)
	e.calls.Add(1)
	secret := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	if token := r.Header.Get("X-Amz-Security-Token"); token != "" {
		secret = token
	}
	e.mu.Lock()
	e.told = append(e.told, secret)
	e.mu.Unlock()
	mode := *e.mode.Load()
	if mode == "" {
		mode, _, _ = strings.Cut(asked.Metadata.CustomID, "-")
	}
	all := fmt.Sprintf("%s %v %s %s %s", secret, r.Header, base64.StdEncoding.EncodeToString([]byte("Bearer "+secret)), url.QueryEscape(secret), hex.EncodeToString([]byte(secret)))
	quoted, _ := json.Marshal(all)
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Request-Id", secret)
	w.Header().Set("Location", other+"/v1/responses?key="+url.QueryEscape(secret))
	switch mode {
	case "hang":
		<-r.Context().Done()
	case "redirect":
		w.WriteHeader(http.StatusTemporaryRedirect)
	case "denied":
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprintf(w, `{"error":{"message":%s,"code":"invalid_api_key"}}`, quoted)
	case "bad":
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprintf(w, `{"error":{"message":%s,"code":%s}}`, quoted, quoted)
	case "broken":
		w.WriteHeader(http.StatusInternalServerError)
		fmt.Fprintf(w, `{"error":{"message":%s}}`, quoted)
	case "page":
		w.WriteHeader(http.StatusBadGateway)
		_, _ = io.WriteString(w, all)
	case "garbage":
		_, _ = io.WriteString(w, all)
	case "refused":
		fmt.Fprintf(w, `{"status":"completed","output":[{"type":"message","content":[{"type":"refusal","refusal":%s}]}],"usage":{"input_tokens":1,"output_tokens":1}}`, quoted)
	default:
		fmt.Fprintf(w, `{"status":"completed","model":%s,"metadata":{"custom_id":%q,"said":%s},"output":[{"type":"message","content":[{"type":"output_text","text":%s}]}],"usage":{"input_tokens":1,"output_tokens":1}}`,
			quoted, asked.Metadata.CustomID, quoted, quoted)
	}
}

// secretsTold returns the canaries, and what the endpoint was told.
func (e *echo) secretsTold() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	list := []string{canaryKey, canaryBearer, canarySecret, canarySession}
	for _, s := range e.told {
		if len(s) >= 16 && !strings.HasPrefix(s, "AWS4-HMAC") && !slices.Contains(list, s) {
			list = append(list, s)
		}
	}
	return list
}

// A corpus is what a program wrote, by where.
type corpus map[string]string

// folder adds every file beneath dir, and its name.
func (c corpus) folder(t *testing.T, dir string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		c[path] = path + "\n" + string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// page adds what is served at that URL, with its headers.
func (c corpus) page(t *testing.T, url string) {
	t.Helper()
	var header http.Header
	var text []byte
	eventually(t, url+" to be what a person would see", func() (ok bool) { // it may be kept waiting by what it asks
		var status int
		status, header, text = ask(t, http.MethodGet, url, "", nil)
		return status == http.StatusOK
	})
	c[url] = fmt.Sprintf("%s\n%v\n%s", url, header, text)
}

// messages adds those of a queue, with all that comes with them, and returns how many
// there were. They stay hidden.
func (c corpus) messages(t *testing.T, s *stack, name string) (n int) {
	t.Helper()
	client := s.sqs()
	q, err := client.GetQueueUrl(t.Context(), &sqs.GetQueueUrlInput{QueueName: &name})
	if err != nil {
		t.Fatal(err)
	}
	for {
		got, err := client.ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{
			QueueUrl: q.QueueUrl, MaxNumberOfMessages: 10, VisibilityTimeout: 600, MessageAttributeNames: []string{"All"},
			MessageSystemAttributeNames: []types.MessageSystemAttributeName{types.MessageSystemAttributeNameAll},
		})
		if err != nil {
			t.Fatal(err)
		}
		if len(got.Messages) == 0 {
			return n
		}
		for _, m := range got.Messages {
			var text strings.Builder
			text.WriteString(*m.Body)
			for k, v := range m.MessageAttributes {
				fmt.Fprintf(&text, "\n%s=%s%s", k, *v.StringValue, v.BinaryValue)
			}
			c["message "+*m.MessageId] = text.String() + fmt.Sprint(m.Attributes)
			n++
		}
	}
}

// process adds what one has written, and its command line.
func (c corpus) process(p *process) {
	what := strings.Join(p.cmd.Args[1:], " ")
	c["standard output of "+what] += p.stdout.String()
	c["standard error of "+what] += p.stderr.String()
}

// running adds what others on the machine see of a process.
func (c corpus) running(t *testing.T, p *process) {
	t.Helper()
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.cmd.Process.Pid))
	if err != nil {
		t.Skipf("no process list to look at: %v", err)
	}
	if !bytes.Contains(line, []byte("worker")) {
		t.Errorf("the process list has %q, want the command", line)
	}
	c["process list"] += string(line)
}

// tells fails the test for every place that tells one of the secrets, plain or written
// as in a URL, in hexadecimal, or in base64, where the middle of it counts.
func (c corpus) tells(t *testing.T, secrets []string) {
	t.Helper()
	for _, secret := range secrets {
		b64 := func(before string) string {
			text := base64.RawStdEncoding.EncodeToString([]byte(before + secret))
			return text[4 : len(text)-2]
		}
		for _, form := range []string{
			secret, secret[:len(secret)/2], secret[len(secret)/2:], url.QueryEscape(secret), url.PathEscape(secret),
			hex.EncodeToString([]byte(secret)), b64(""), b64("\x00"), b64("\x00\x00"),
		} {
			for where, text := range c {
				if i := strings.Index(text, form); i >= 0 {
					t.Errorf("%s tells a secret: %.300s", where, text[max(0, i-100):])
				}
			}
		}
	}
}

// modes are the names of jobs, and the class of their dead letters, or none.
var modes = map[string]jobs.Class{
	"ok-1": "", "bad-1": jobs.BadRequest, "broken-1": jobs.Exhausted, "page-1": jobs.Exhausted, "garbage-1": jobs.Exhausted, "refused-1": jobs.Refused,
}

// TestSecretsStayWhereTheyAre takes the program through everything that can happen
// with secrets that stand out, at an endpoint that says them back, and looks for them
// in all that it has written.
func TestSecretsStayWhereTheyAre(t *testing.T) {
	t.Parallel()
	for who, auth := range map[string][]string{
		"key":        {"--auth", "key"},
		"bearer":     {"--auth", "key"},
		"short-term": {"--auth", "short-term", "--region", "us-west-2"},
		"sigv4":      {"--auth", "sigv4", "--region", "us-west-2"},
	} {
		t.Run(who, func(t *testing.T) {
			t.Parallel()
			s := newStack(t)
			endpoint, visitors := newEcho(t)
			s.env = append(s.env, "AWS_SECRET_ACCESS_KEY="+canarySecret, "AWS_SESSION_TOKEN="+canarySession, "OPENAI_BASE_URL="+endpoint.URL+"/v1",
				"AWS_BEARER_TOKEN_BEDROCK="+canaryBearer, "OPENAI_API_KEY="+canaryKey, "GOTRACEBACK=all")
			if who == "bearer" {
				s.env = append(s.env, "OPENAI_API_KEY=")
			}
			all := make(corpus)
			do := func(exit int, args ...string) {
				t.Helper()
				p := s.launch(t, args...)
				p.exits(t, exit)
				all.process(p)
			}
			worker := slices.Concat([]string{"worker", "--log-level", "debug", "--max-attempts", "2", "--slots", "8"}, auth)

			file := filepath.Join(t.TempDir(), "canary.jsonl")
			var lines bytes.Buffer
			for id := range modes {
				lines.Write(append(fixture.Job(id, ""), '\n'))
			}
			if err := os.WriteFile(file, lines.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
			do(0, "submit", file)

			// What nobody can work with stops intake, and gives every message back.
			for _, mode := range []string{"denied", "redirect"} {
				endpoint.mode.Store(&mode)
				p := s.launch(t, worker...)
				eventually(t, "intake to be paused", func() bool { return strings.Contains(p.stderr.String(), "intake paused") })
				all.running(t, p)
				p.signal(t, syscall.SIGTERM)
				p.exits(t, 0)
				all.process(p)
			}
			endpoint.mode.Store(new(""))
			do(1, append(worker, "--exit-when-empty=2s")...)
			for id, class := range modes {
				kind := "results"
				if class != "" {
					kind = "errors"
				}
				files, _ := filepath.Glob(filepath.Join(s.dir, "runs/canary", kind, "*", id+".json"))
				if len(files) != 1 {
					t.Errorf("%s has %d lines under %s, want one", id, len(files), kind)
				}
			}
			run := slices.Concat([]string{"run", file, "-o", filepath.Join(t.TempDir(), "out"), "--max-attempts", "2", "--log-level", "debug"}, auth)
			do(1, run...)
			all.folder(t, run[3])
			do(1, "status", "canary")
			do(0, "verify", "canary")
			do(0, "export", "canary", "-o", filepath.Join(t.TempDir(), "x.jsonl"))
			do(0, "dead", "list", "--json")
			do(0, "dead", "show", "canary/bad-1")
			do(1, "dead", "show", "nobody")
			do(0, append([]string{"worker", "--print-config"}, auth...)...)
			doctor := s.launch(t, append([]string{"doctor"}, auth...)...)
			doctor.wait(t)
			all.process(doctor)
			for _, args := range [][]string{{"worker", "--help"}, {"worker", "--api-key", "x"}, {"run", filepath.Join(t.TempDir(), "none"), "-o", t.TempDir()}} {
				p := s.launch(t, args...)
				p.wait(t)
				all.process(p)
			}
			// What a worker says when it is told to tell all. Its message stays hidden.
			writeJobs(t, file, []string{"hang-1"})
			do(0, "submit", file, "--run", "hang")
			calls := endpoint.calls.Load()
			flight, at := t.TempDir(), freePort(t)
			p := s.launch(t, append(worker, "--start-rate", "50", "--flight-dir", flight, "--http", at)...)
			eventually(t, "a call to be under way", func() bool { return endpoint.calls.Load() > calls })
			p.signal(t, syscall.SIGQUIT)
			eventually(t, "it to write down what it does", func() bool { return strings.Contains(p.stderr.String(), "flight recording written") })
			for _, path := range []string{"", "metrics", "api/snapshot", "api/why", "api/job?run=hang&id=hang-1"} {
				all.page(t, "http://"+at+"/"+path)
			}
			p.signal(t, syscall.SIGKILL)
			p.exits(t, -1)
			all.process(p)
			all.folder(t, flight)
			if n := all.messages(t, s, "upwell-jobs-dead"); n != len(modes)-1 {
				t.Errorf("%d dead letters, want %d", n, len(modes)-1)
			}
			all.messages(t, s, "upwell-jobs")
			all.folder(t, filepath.Dir(s.dir))
			if told := endpoint.secretsTold(); who == "short-term" && (len(told) < 5 || !strings.HasPrefix(told[4], "bedrock-api-key-")) {
				t.Errorf("the endpoint was told %q, want keys that were made", told)
			}
			all.tells(t, endpoint.secretsTold())
			if n := visitors.Load(); n != 0 {
				t.Errorf("%d requests where the endpoint redirects to, want none", n)
			}
		})
	}
}

// TestKeysComeFromTheEnvironment wants no flag that takes a secret, which would stand in
// the process list and in a shell's history.
func TestKeysComeFromTheEnvironment(t *testing.T) {
	t.Parallel()
	harmless := regexp.MustCompile(`^--(max-output-tokens|key|accept-key)$`) // tokens of a model; columns that name rows; what a simulator takes
	for _, verb := range []string{"demo", "run", "worker", "submit", "status", "export", "verify", "dead list", "dead show", "dead redrive", "doctor", "local"} {
		p := launch(t, nil, append(strings.Fields(verb), "--help")...)
		p.exits(t, 0)
		for _, flag := range regexp.MustCompile(`--[a-z0-9-]+`).FindAllString(p.stdout.String(), -1) {
			if regexp.MustCompile(`key|secret|token|password|credential`).MatchString(flag) && !harmless.MatchString(flag) {
				t.Errorf("upwell %s has %s, want secrets from the environment alone", verb, flag)
			}
		}
	}
}

// forgeries are messages of somebody who may send to the queue, and what their dead
// letters say.
func forgeries() map[string]string {
	body := `"method":"POST","url":"/v1/responses","body":{"model":"xai.grok-4.3","input":"hi"}`
	line := func(more string) string { return `{"custom_id":"f",` + body + more + `}` }
	option := func(o string) string { return line(`,"upwell":{` + o + `}`) }
	n := 0
	schema := func(o string) string { // what is found when a job is begun, one at a time for each name
		n++
		return strings.Replace(option(`"schema":`+o), `"f"`, fmt.Sprintf(`"f%d"`, n), 1)
	}
	ref := func(u string) string { return `{"custom_id":"f","body_ref":"` + u + `"}` }
	at := func(url string) string { return strings.Replace(line(""), `"/v1/responses"`, `"`+url+`"`, 1) }
	deep := strings.Repeat("[", 1000<<10)
	forged := map[string]string{
		// Objects that are not for this worker.
		ref("s3://private/secret.json"):                                   "body_ref: s3://private/secret.json is not among what this worker may read",
		ref("s3://inbox/secret.json"):                                     "not among what",
		ref("s3://inbox/docs2/secret.json"):                               "not among what",
		ref("s3://inbox/docs/../secret.json"):                             "want a key without . or ..",
		ref("s3://inbox/docs/%2e%2e/secret.json"):                         "there is no such object",
		ref("s3://inbox//docs/secret.json"):                               "not among what",
		ref("s3://inbox/docs/.././../private/secret.json"):                "want a key without . or ..",
		ref("s3://inbox@private/docs/secret.json"):                        "not among what",
		ref("s3://private@inbox/docs/secret.json"):                        "not among what",
		ref("s3://private/docs/secret.json?x=s3://inbox/docs/"):           "not among what",
		ref("s3://INBOX/docs/secret.json"):                                "not among what",
		ref("S3://inbox/docs/secret.json"):                                "want an s3 URL",
		ref("s3://ınbox/docs/secret.json"):                                "not among what",
		ref("s3://inbox/ｄocs/secret.json"):                                "not among what",
		ref(`s3://inbox\\private/docs/secret.json`):                       "not among what",
		ref("s3://169.254.169.254/latest/meta-data"):                      "not among what",
		ref("file:///etc/passwd"):                                         "want an s3 URL",
		ref("http://127.0.0.1/latest"):                                    "want an s3 URL",
		ref("s3:///docs/secret.json"):                                     "want the name of a bucket",
		ref(`s3://inbox/docs/\u0000`):                                     "want the key of an object",
		ref("s3://upwell/team/state/x.json"):                              "not among what",
		ref("s3://upwell/team2/runs/x"):                                   "not among what",
		pointerTo("private", "secret.json"):                               "s3Key: s3://private/secret.json is not among",
		pointerTo("inbox", "docs/../secret.json"):                         "want a key without . or ..",
		pointerTo("inbox/docs/..", "secret.json"):                         "want the name of a bucket",
		pointerTo("arn:aws:s3:us-west-2:1:accesspoint", "docs/secret"):    "not among what",
		createdIn("private", "secret.txt"):                                "want a job: give the worker --template",
		`{"custom_id":"f","body_ref":"s3://inbox/docs/bomb.json.gz"}`:     "not a job: not valid UTF-8 text",
		`{"custom_id":"f","body_ref":"s3://inbox/docs/huge.json"}`:        "4.0 MiB, want at most 1",
		`{"custom_id":"f","body_ref":"s3://inbox/docs/deep.json"}`:        "not JSON",
		`{"custom_id":"f","upwell":{"run":"../x"},"body_ref":"s3://a/b"}`: "upwell.run",

		// Names.
		option(`"run":"../../etc"`):                                     "upwell.run",
		option(`"run":"/etc"`):                                          "upwell.run",
		option(`"run":"a/b"`):                                           "upwell.run",
		option(`"run":"a\u0000b"`):                                      "upwell.run",
		option(`"run":"ｒun"`):                                           "upwell.run",
		option(`"run":"."`):                                             "upwell.run",
		option(`"run":"` + strings.Repeat("r", 129) + `"`):              "129 bytes long, want at most 128",
		strings.Replace(line(""), `"f"`, `"a\u0000b"`, 1):               "custom_id: contains a NUL",
		strings.Replace(line(""), `"f"`, `"\ud800"`, 1):                 "half of a surrogate pair",
		strings.Replace(line(""), `"f"`, `""`, 1):                       "custom_id: empty",
		`{"custom_id":"` + strings.Repeat("x", 513) + `",` + body + `}`: "513 bytes long, want at most 512",

		// Where calls go.
		at("https://evil.example/v1/responses"):     "url: ",
		at("//evil.example/v1/responses"):           "url: ",
		at("/v1/responses@evil.example"):            "url: ",
		at("/v1/responses?x=1"):                     "url: ",
		at("/v1/../admin"):                          "url: ",
		at(`/v1/responses\r\nX-Evil: 1`):            "url: ",
		at("/v1/Responses"):                         "url: ",
		strings.Replace(line(""), "POST", "GET", 1): "method: ",

		// What it costs.
		option(`"max_attempts":1000000000`):                              "upwell.max_attempts: 1000000000, want 1 to 100",
		option(`"max_attempts":1e99`):                                    "upwell.max_attempts",
		option(`"output_ceiling":9223372036854775807`):                   "upwell.output_ceiling: 9223372036854775807, want 1 to",
		option(`"output_ceiling":9223372036854775808`):                   "upwell.output_ceiling",
		option(`"deadline":"99999-01-01T00:00:00Z"`):                     "upwell.deadline",
		option(`"tiers":["gold"]`):                                       "upwell.tiers",
		option(`"max_attempts_":1`):                                      "unknown key",
		strings.Replace(line(""), `"input"`, `"stream":true,"input"`, 1): "body.stream",

		// What it takes to read them.
		deep: "exceeded max depth",
		`{"custom_id":"f","body":` + strings.Repeat(`{"a":`, 150<<10):                "exceeded max depth",
		`{"custom_id":"f",` + strings.Repeat(`"a":1,`, 150<<10):                      "not JSON",
		strings.Repeat("9", 1000<<10):                                                "a JSON number, want an object",
		schema(`{"$ref":"http://127.0.0.1:1/x.json"}`):                               "references must stay inside of the schema",
		schema(`{"$ref":"file:///etc/passwd"}`):                                      "references must stay inside of the schema",
		schema(`{"pattern":"` + strings.Repeat("(a?b?c?d?){1000}", 60) + `"}`):       "too large",
		schema(`{"multipleOf":1e1000000000}`):                                        "out of bounds",
		schema(strings.Repeat(`{"items":`, 5000) + `{}` + strings.Repeat(`}`, 5000)): "nested deeper than 100",
		schema(`{"enum":[` + strings.Repeat("1,", 100_000) + `1]}`):                  "more than 10000 values",
	}
	return forged
}

func pointerTo(bucket, key string) string {
	return fmt.Sprintf(`["software.amazon.payloadoffloading.PayloadS3Pointer",{"s3BucketName":%q,"s3Key":%q}]`, bucket, key)
}

func createdIn(bucket, key string) string {
	return fmt.Sprintf(`{"Records":[{"eventSource":"aws:s3","eventName":"ObjectCreated:Put","s3":{"bucket":{"name":%q},"object":{"key":%q}}}]}`, bucket, key)
}

// odd are names of jobs that are in order, however they look.
var odd = []string{
	"../../../../etc/passwd", "/etc/passwd", `..\..\x`, "a/../../b", "..", ".", "%2e%2e%2f", "con\r\nX-Evil: 1", "\x1b[31mred\x1b]0;title\x07", "\u202egnp.exe", "\u009b31m",
	"ｅｖｉｌ", "e\u0301", strings.Repeat("../", 170), "results/00/x.json", "?versionId=1", "#", " ", "~", "a\tb",
}

// TestForgedMessages has a queue that somebody else may send to. Each forgery ends as a
// dead letter that says why, nothing is read or written that should not be, no call is
// made for it, and the honest jobs among them are answered.
func TestForgedMessages(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	objects := s3sink.NewClient(s.aws("AWS_ENDPOINT_URL_S3"))
	const secret = "the-private-text"
	for bucket, keys := range map[string]map[string]string{
		"private": {"secret.json": secret, "secret.txt": secret, "docs/secret.json": secret},
		"inbox": {
			"secret.json": secret, "docs2/secret.json": secret, "docs/huge.json": strings.Repeat("x", 4<<20),
			"docs/deep.json": strings.Repeat("[", 900<<10), "docs/bomb.json.gz": "\x1f\x8b\x08\x00" + strings.Repeat("\xff", 1000),
		},
		"upwell": {"team/state/x.json": secret, "team2/runs/x": secret},
	} {
		_, _ = objects.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: &bucket}) // one is there
		for key, text := range keys {
			if _, err := objects.PutObject(t.Context(), &s3.PutObjectInput{Bucket: &bucket, Key: &key, Body: strings.NewReader(text)}); err != nil {
				t.Fatal(err)
			}
		}
	}
	before := make(corpus)
	before.folder(t, filepath.Dir(s.dir))

	forged := forgeries()
	var out []sqsqueue.Outgoing
	for body := range forged {
		out = append(out, sqsqueue.Outgoing{Body: []byte(body)})
	}
	for _, id := range odd {
		quoted, _ := json.Marshal(id)
		out = append(out, sqsqueue.Outgoing{Body: fmt.Appendf(nil, `{"custom_id":%s,"url":"/v1/responses","body":{"model":%q,"input":"x","metadata":{"custom_id":%s}}}`, quoted, fixture.Model, quoted)})
	}
	for _, m := range out {
		if err := s.queue.Send(t.Context(), []sqsqueue.Outgoing{m}); err != nil {
			t.Fatal(err)
		}
	}
	w := s.launch(t, "worker", "--prefix", "team", "--read-from", "s3://inbox/docs", "--max-object-mib", "1", "--exit-when-empty=2s", "--log-level", "debug", "--start-rate", "100")
	peak := 0
	eventually(t, "the worker to be done", func() bool {
		peak = max(peak, highWater(w))
		select {
		case <-w.ended:
			return true
		default:
			return false
		}
	})
	w.exits(t, 1)
	if peak == 0 || peak > 300<<10 {
		t.Errorf("the worker had %d MiB at most, want 1 to 300", peak>>10)
	}

	reasons := make(map[string]string)
	dead := make(corpus)
	dead.messages(t, s, "upwell-jobs-dead")
	for _, text := range dead {
		body, attributes, _ := strings.Cut(text, "\n")
		reasons[body] = attributes
		if strings.Contains(text, secret) {
			t.Errorf("a dead letter has what is private: %.300s", text)
		}
	}
	for body, want := range forged {
		if got, ok := reasons[body]; !ok || !strings.Contains(got, "upwell.class=bad_job") || !strings.Contains(got, want) {
			t.Errorf("%.150s: its letter (%t) says %.400s, want bad_job and %q", body, ok, got, want)
		}
	}
	if len(reasons) != len(forged) {
		t.Errorf("%d dead letters, want %d", len(reasons), len(forged))
	}

	// Of what was there, nothing has changed, and what is new is beneath the prefix.
	after := make(corpus)
	after.folder(t, filepath.Dir(s.dir))
	results := 0
	for path, text := range after {
		if old, ok := before[path]; ok {
			if old != text {
				t.Errorf("%s was written to", path)
			}
			continue
		}
		rel, err := filepath.Rel(s.dir, path)
		if strings.HasPrefix(rel, ".s3sim/") {
			continue // the server's own notes, named by a hash
		}
		if err != nil || !regexp.MustCompile(`^team/(state/[a-z.]+|runs/default/(results|errors|letters)/[0-9a-f]{2}/[A-Za-z0-9._%~-]+\.json)$`).MatchString(rel) {
			t.Errorf("%s was written, want nothing outside of the prefix", rel)
		}
		if strings.Contains(rel, "/results/") {
			results++
		}
		if strings.Contains(text, secret) {
			t.Errorf("%s has what is private", rel)
		}
	}
	if results != len(odd) {
		t.Errorf("%d results, want one for each of %d odd names", results, len(odd))
	}
	if n := s.counts(t).Billed; int(n) != len(odd) {
		t.Errorf("%d calls, want one for each of %d jobs in order", n, len(odd))
	}
	if bytes.Contains(s.control(t, http.MethodGet, "ledger", nil), []byte(secret)) {
		t.Error("the endpoint was sent what is private")
	}
	for line := range strings.Lines(w.stderr.String()) {
		if !strings.HasPrefix(line, "upwell: ") && !json.Valid([]byte(line)) { // the former is how the program ended
			t.Errorf("the log has the line %.200q, want one JSON object on each", line)
		}
	}
}

// highWater returns the most memory that a process has had, in KiB, or zero when it is
// gone.
func highWater(p *process) int {
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	m := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(status)
	if m == nil {
		return 0
	}
	n, _ := strconv.Atoi(string(m[1]))
	return n
}

// obeyed matches what a terminal may obey: all controls but the end of a line and tabs
// of tables, those of one byte and of two, and what reorders text.
var obeyed = regexp.MustCompile(`[\x00-\x08\x0b-\x1f\x7f\x{80}-\x{9f}\x{202a}-\x{202e}\x{2066}-\x{2069}]`)

// TestTerminalIsNotObeyed has names and answers with escape sequences in them, and looks
// at what each verb prints.
func TestTerminalIsNotObeyed(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	const evil = "id-\x1b[2J\x1b]0;owned\x07\n{\"level\":\"ERROR\",\"msg\":\"forged\"}\r\u009b31m\u202e"
	quoted, _ := json.Marshal(evil)
	file := filepath.Join(t.TempDir(), "evil.jsonl")
	var lines bytes.Buffer
	for _, more := range []string{"", `,"max_output_tokens":1`} {
		fmt.Fprintf(&lines, `{"custom_id":%s,"url":"/v1/responses","body":{"model":%q,"input":%s,"metadata":{"custom_id":%s}%s}}`+"\n", strings.Replace(string(quoted), "id-", "id-"+strconv.Itoa(len(more)), 1), fixture.Model, quoted, quoted, more)
	}
	if err := os.WriteFile(file, lines.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	s.launch(t, "submit", file).exits(t, 0)
	// Documents that nobody can read, whose names are in what is said of them.
	folder, template := t.TempDir(), filepath.Join(t.TempDir(), "t.md")
	if err := os.WriteFile(template, fmt.Appendf(nil, "---\nmodel: %s\n---\n{{.text}}", fixture.Model), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"\x1b[2J.pdf", "\u009b31m\u202e.docx", "\r\nforged.png"} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	check := func(p *process) {
		t.Helper()
		for where, text := range map[string]string{"standard output": p.stdout.String(), "standard error": p.stderr.String()} {
			if i := obeyed.FindStringIndex(text); i != nil {
				t.Errorf("upwell %s prints %q on %s", strings.Join(p.cmd.Args[1:], " "), text[max(0, i[0]-80):min(len(text), i[1]+80)], where)
			}
			for line := range strings.Lines(text) {
				if strings.HasPrefix(line, `{"level":"ERROR","msg":"forged"`) {
					t.Errorf("upwell %s has a line that a job's name made", p.cmd.Args[1])
				}
			}
		}
	}
	w := s.launch(t, "worker", "--exit-when-empty=2s", "--log-level", "debug", "--log-format", "text", "--output-ceiling", "1", "--region", "us-west-2")
	w.exits(t, 1)
	check(w)
	for _, args := range [][]string{
		{"status", "evil"},
		{"verify", "evil"},
		{"dead", "list"},
		{"dead", "show", "--all"},
		{"dead", "redrive", "--dry-run"},
		{"run", file, "-o", filepath.Join(t.TempDir(), "out"), "--output-ceiling", "1"},
		{"run", folder, "--template", template, "-o", filepath.Join(t.TempDir(), "out")},
		{"submit", folder, "--template", template, "--dry-run"},
	} {
		p := s.launch(t, args...)
		p.wait(t)
		check(p)
	}
}

// TestOutputsStayInTheirFolder has links in the folder that results go to, which lead
// out of it.
func TestOutputsStayInTheirFolder(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	victim := t.TempDir()
	precious := filepath.Join(victim, "precious")
	if err := os.WriteFile(precious, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "linked.jsonl")
	writeJobs(t, file, fixture.IDs("job", 3))
	out := t.TempDir()
	for _, name := range []string{"s3/upwell/runs/linked/results", "linked.output.jsonl"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(out, name)), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(victim, filepath.Join(out, "s3/upwell/runs/linked/results")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(precious, filepath.Join(out, "linked.output.jsonl")); err != nil {
		t.Fatal(err)
	}
	p := s.launch(t, "run", file, "-o", out, "--quiet")
	eventually(t, "the run to have said something, or ended", func() bool {
		select {
		case <-p.ended:
			return true
		default:
			return p.stderr.String() != ""
		}
	})
	_ = p.cmd.Process.Kill()
	<-p.ended
	entries, err := os.ReadDir(victim)
	if err != nil || len(entries) != 1 {
		t.Errorf("%d files where the link leads, %v, want the one that was there", len(entries), err)
	}
	if text, err := os.ReadFile(precious); err != nil || string(text) != "precious" {
		t.Errorf("a file that a link led to has %q, %v, want it as it was", text, err)
	}

	// Without links: files that their owner alone may write to.
	clean := filepath.Join(t.TempDir(), "clean")
	s.launch(t, "run", file, "-o", clean, "--quiet").exits(t, 0)
	table := filepath.Join(t.TempDir(), "x.csv")
	s.launch(t, "export", "linked", "--dir", clean, "-o", table, "--format", "csv").exits(t, 0)
	for _, dir := range []string{clean, filepath.Dir(table)} {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			info, err := d.Info()
			if err == nil && info.Mode().Perm()&0o022 != 0 || err == nil && !d.IsDir() && info.Mode().Perm()&0o111 != 0 {
				t.Errorf("%s has the mode %v, want its owner alone to write, and no program", path, info.Mode())
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if info, err := os.Stat(table); err != nil || info.Size() == 0 {
		t.Errorf("the table: %v, %v, want it written", info, err)
	}
}
