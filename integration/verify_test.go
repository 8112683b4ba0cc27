package integration

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"upwell/integration/fixture"
	"upwell/jobs"
	"upwell/jobs/sqsqueue"
	"upwell/jobs/sqsqueue/sqssim"
	"upwell/sink"
	"upwell/sink/s3sink"
	"upwell/sink/s3sink/s3sim"
)

// Changes of one line that these tests have been seen to catch: the manifest is
// stored before the index; the index only by whoever creates the manifest; an
// account that does not balance exits 0; --queue is not asked; --input is not
// compared with the manifest; the folder is made when it is missing.

// A planted is something done to a folder of a run, and what verify must say.
type planted struct {
	name  string
	args  string // beside run and folder
	plant func(folder string) error
	says  []string
}

func lineOf(folder string, kind sink.Kind, id string) string {
	return filepath.Join(folder, kind.Key("", jobs.Key{Run: "nightly", CustomID: id}))
}

func remove(kind sink.Kind, id string) func(string) error {
	return func(folder string) error { return os.Remove(lineOf(folder, kind, id)) }
}

// copyTo copies the answer of a job to another place among the results.
func copyTo(name string) func(string) error {
	return func(folder string) error {
		text, err := os.ReadFile(lineOf(folder, sink.Results, "job-0003"))
		if err != nil {
			return err
		}
		to := filepath.Join(folder, sink.Results.Prefix("", "nightly"), name)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		return os.WriteFile(to, text, 0o644)
	}
}

// reindex replaces the index of a run.
func reindex(ids []string) func(string) error {
	return func(folder string) error {
		part, err := sink.EncodeIDs(ids)
		if err != nil {
			return err
		}
		found, err := filepath.Glob(filepath.Join(folder, "runs/nightly/ids/*/00000.jsonl.gz"))
		if err != nil || len(found) != 1 {
			return fmt.Errorf("%d parts of an index: %w", len(found), err)
		}
		if part == nil {
			return os.Remove(found[0])
		}
		return os.WriteFile(found[0], part, 0o644)
	}
}

func plantedIn(names []string) []planted {
	doubled := append([]string{"job-0003"}, names[:len(names)-1]...)
	return []planted{
		{"a result is deleted", "", remove(sink.Results, "job-0003"), []string{`missing +1$`, `results/.*/job-0003\.json  "job-0003"`, `next: run the same command again`}},
		{"an error is deleted", "", remove(sink.Errors, "job-0000"), []string{`missing +1$`, `"job-0000"`}},
		{"an id is doubled", "", reindex(doubled), []string{`double +1$`, `"job-0003"  \(submitted twice\)`, `unknown +1$`}},
		{"a result is doubled", "", copyTo("zz/job-0003.json"), []string{`double +1$`, `results/zz/job-0003\.json  "job-0003"  \(not in its place`}},
		{"an orphan", "", copyTo("fd/orphan.json"), []string{`double +1$`, `fd/orphan.json`}},
		{"a result of nobody", "", func(folder string) error {
			to := lineOf(folder, sink.Results, "nobody's")
			if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
				return err
			}
			return os.WriteFile(to, []byte(`{}`), 0o644)
		}, []string{`unknown +1$`, `"nobody's"  \(never submitted\)`}},
		{"a damaged line", "--read", func(folder string) error {
			return os.Truncate(lineOf(folder, sink.Results, "job-0003"), 20)
		}, []string{`damaged +1 of 40 lines read$`, `"job-0003"  \(it is not a line of JSON\)`}},
		{"a line of another shape", "--read", func(folder string) error {
			return os.WriteFile(lineOf(folder, sink.Results, "job-0003"), []byte(`{"upwell":{"finished":5}}`), 0o644)
		}, []string{`damaged +1 of 40 lines read$`, `"job-0003"  \(it is not a line of JSON\)`}},
		{"an empty line", "--read", func(folder string) error {
			return os.Truncate(lineOf(folder, sink.Results, "job-0003"), 0)
		}, []string{`damaged +1 of 40 lines read$`, `"job-0003"  \(it is empty\)`}},
		{"the index is deleted", "", func(folder string) error {
			return os.RemoveAll(filepath.Join(folder, "runs/nightly/ids"))
		}, nil},
		{"the index is short", "", reindex(names[1:]), nil},
	}
}

// TestVerifyFolder plants defects in the folder of a run, one at a time.
func TestVerifyFolder(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "nightly.jsonl")
	names := fixture.IDs("job", 40)
	writeJobs(t, file, names)
	failing(t, file)
	first := filepath.Join(dir, "first")
	launch(t, nil, "run", file, "-o", first, "--simulate", "-q", "--start-rate", "100").exits(t, 1)
	for _, args := range []string{"", "--read"} {
		p := launch(t, nil, append([]string{"verify", "nightly", "--dir", first}, strings.Fields(args)...)...)
		p.exits(t, 0)
		p.says(t, "standard output", p.stdout.String(), []string{`submitted +40$`, `answered +39 of 40`, `failed +1$`, `missing +0$`, `^the account balances$`})
		p.says(t, "standard error", p.stderr.String(), nil)
	}
	for i, tt := range plantedIn(names) {
		out := filepath.Join(dir, fmt.Sprint(i))
		if err := os.CopyFS(out, os.DirFS(first)); err != nil {
			t.Fatal(err)
		}
		if err := tt.plant(filepath.Join(out, "s3/upwell")); err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		p := launch(t, nil, append([]string{"verify", "nightly", "--dir", out}, strings.Fields(tt.args)...)...)
		p.exits(t, 1)
		p.says(t, tt.name, p.stdout.String(), tt.says)
		if tt.says == nil {
			p.says(t, tt.name, p.stderr.String(), []string{`/runs/nightly/ids/[0-9a-f]{16}/00000\.jsonl\.gz: .*submit the same input again`})
			// And what it says helps.
			launch(t, nil, "run", file, "-o", out, "--simulate", "-q").exits(t, 1)
			launch(t, nil, "verify", "nightly", "--dir", out).exits(t, 0)
		}
	}
}

// failing has the first job of a file fail.
func failing(t *testing.T, file string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	failed := strings.Replace(string(text), `"input":`, `"max_output_tokens":1,"input":`, 1)
	if err := os.WriteFile(file, []byte(failed), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestVerifyRefuses asks for what there is no account of.
func TestVerifyRefuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file, other, out := filepath.Join(dir, "nightly.jsonl"), filepath.Join(dir, "other.jsonl"), filepath.Join(dir, "out")
	writeJobs(t, file, fixture.IDs("job", 3))
	writeJobs(t, other, fixture.IDs("job", 4))
	launch(t, nil, "run", file, "-o", out, "--simulate", "-q").exits(t, 0)
	for _, tt := range []struct {
		args string
		code int
		says string
	}{
		{"verify", 2, `<run>`},
		{"verify nightly", 2, `--bucket, or --dir`},
		{"verify nightly --dir " + dir, 2, `is not the folder of an upwell run`},
		{"verify nightly --dir " + filepath.Join(dir, "none"), 2, `is not the folder of an upwell run`},
		{"verify never --dir " + out, 3, `nothing to compare with.*--input FILE`},
		{"verify nightly --dir " + out + " --input " + other, 2, `other\.jsonl is not what run "nightly" was submitted with`},
		{"verify nightly --dir " + out + " --input " + filepath.Join(dir, "none"), 2, `none`},
	} {
		p := launch(t, nil, strings.Fields(tt.args)...)
		p.exits(t, tt.code)
		p.says(t, "standard error", p.stderr.String(), []string{tt.says})
		p.says(t, "standard output", p.stdout.String(), nil)
	}
	if _, err := os.Stat(filepath.Join(dir, "none")); err == nil {
		t.Error("verify made a folder, want it not to")
	}
	launch(t, nil, "verify", "nightly", "--dir", out, "--input", file).exits(t, 0)
	if err := os.Remove(filepath.Join(out, "s3/upwell/runs/nightly/manifest.json")); err != nil {
		t.Fatal(err)
	}
	launch(t, nil, "verify", "nightly", "--dir", out).exits(t, 3)
	launch(t, nil, "verify", "nightly", "--dir", out, "--input", file).exits(t, 0)
	launch(t, nil, "verify", "nightly", "--dir", out, "--input", other).exits(t, 1)
}

// TestVerifyQueue follows a run from its queueing to its end.
func TestVerifyQueue(t *testing.T) {
	t.Parallel()
	s := newStack(t, "--latency", "1ms")
	names := fixture.IDs("job", 25)
	s.submit(t, "nightly", names)
	type account struct {
		Submitted, Answered int
		StillQueued         struct{ Count int } `json:"still_queued"`
		Missing             struct{ Count int }
		Queue               *int
		Balanced            bool
	}
	verify := func(code int, env ...string) (a account, text string) {
		for _, form := range [][]string{nil, {"--json"}} {
			p := launch(t, append(s.env, env...), append([]string{"verify", "nightly"}, form...)...)
			p.exits(t, code)
			if form == nil {
				text = p.stdout.String()
			} else if err := json.Unmarshal([]byte(p.stdout.String()), &a); err != nil {
				t.Errorf("--json prints %s: %v", p.stdout.String(), err)
			}
		}
		return a, text
	}
	a, text := verify(0)
	if !strings.HasSuffix(text, "\nthe account balances if 25 of the 25 messages in the queue are this run's\n") {
		t.Errorf("before: %s, want a balance under a condition", text)
	}
	if a.Submitted != 25 || a.StillQueued.Count != 25 || a.Queue == nil || *a.Queue != 25 || !a.Balanced || !strings.Contains(text, "25 messages (all runs, approximately)") {
		t.Errorf("before: %+v and %s, want 25 still queued", a, text)
	}
	if a, text := verify(1, "UPWELL_QUEUE="); a.Missing.Count != 25 || a.Queue != nil || a.Balanced || !strings.Contains(text, "next: give --queue") {
		t.Errorf("without a queue: %+v and %s, want 25 missing, and the advice to give one", a, text)
	}
	s.launch(t, "worker", "--exit-when-empty=2s", "--start-rate", "100").exits(t, 0)
	if a, text := verify(0); a.Answered != 25 || *a.Queue != 0 || !a.Balanced || !strings.HasSuffix(text, "\nthe account balances\n") {
		t.Errorf("after: %+v and %s, want 25 answered", a, text)
	}
	if err := os.Remove(lineOf(s.dir, sink.Results, "job-0003")); err != nil {
		t.Fatal(err)
	}
	if a, text := verify(1); a.Missing.Count != 1 || a.StillQueued.Count != 0 || !strings.Contains(text, "the queue has 0 messages") {
		t.Errorf("with a result gone: %+v and %s, want 1 missing", a, text)
	}
	file := filepath.Join(t.TempDir(), "nightly.jsonl")
	writeJobs(t, file, names)
	s.launch(t, "submit", file, "--again").exits(t, 0)
	s.launch(t, "worker", "--exit-when-empty=2s", "--start-rate", "100").exits(t, 0)
	verify(0)
	s.balance(t, "nightly", names, 1)
}

// A trap kills a process at one of its writes, before that takes effect, or after
// it has and before anything is answered.
type trap struct {
	at    int64 // the number of the write
	after bool

	writes  atomic.Int64
	victim  chan *os.Process // once it is launched
	once    sync.Once
	handled chan struct{}
}

// here counts a write, and reports whether this is the one. The process does not
// move any more then.
func (tr *trap) here() bool {
	if tr.writes.Add(1) != tr.at {
		return false
	}
	_ = (<-tr.victim).Signal(syscall.SIGSTOP)
	return true
}

// watch notes when the trapped request has been handled. It takes in each request
// whole first, as a process that does not move sends no more of it.
func (tr *trap) watch(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		before := tr.writes.Load()
		defer func() {
			if before < tr.at && tr.writes.Load() >= tr.at {
				tr.once.Do(func() { close(tr.handled) })
			}
		}()
		h.ServeHTTP(w, r)
	})
}

// TestSubmitKilled kills upwell submit at each of its writes: the index, the
// manifest, the checkpoint, three batches of jobs, and the checkpoint again. Submitting
// again makes the run whole.
func TestSubmitKilled(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "nightly.jsonl")
	writeJobs(t, file, fixture.IDs("job", 25))
	for at := int64(1); at <= 7; at++ {
		for _, after := range []bool{false, true} {
			t.Run(fmt.Sprintf("write %d, after %v", at, after), func(t *testing.T) {
				t.Parallel()
				submitKilled(t, file, &trap{at: at, after: after, victim: make(chan *os.Process, 1), handled: make(chan struct{})})
			})
		}
	}
}

func submitKilled(t *testing.T, file string, tr *trap) { //nolint:thelper // a test itself
	objects, err := s3sim.New(s3sim.Config{Dir: t.TempDir(), Fault: func(op, _, key string) s3sim.Fault {
		if op == "PutObject" && strings.HasPrefix(key, "runs/") && tr.here() {
			return s3sim.Fault{Apply: tr.after, Drop: true}
		}
		return s3sim.Fault{}
	}})
	if err != nil {
		t.Fatal(err)
	}
	queues := sqssim.New(sqssim.Config{Region: fixture.Region, Fault: func(op string, _ sqssim.Call) sqssim.Fault {
		if op == "SendMessageBatch" && tr.here() {
			return sqssim.Fault{Apply: tr.after, Drop: true}
		}
		return sqssim.Fault{}
	}})
	s3URL, sqsURL := httptest.NewServer(tr.watch(objects)), httptest.NewServer(tr.watch(queues))
	t.Cleanup(func() { s3URL.Close(); sqsURL.Close() })
	supply(t, s3URL.URL, sqsURL.URL)
	env := []string{
		"AWS_ENDPOINT_URL_S3=" + s3URL.URL, "AWS_ENDPOINT_URL_SQS=" + sqsURL.URL, "AWS_REGION=" + fixture.Region,
		"AWS_ACCESS_KEY_ID=local", "AWS_SECRET_ACCESS_KEY=local", "UPWELL_QUEUE=" + fixture.Queue, "UPWELL_DEAD_QUEUE=" + fixture.Dead, "UPWELL_BUCKET=" + fixture.Bucket,
	}
	p := launch(t, env, "submit", file)
	tr.victim <- p.cmd.Process
	select {
	case <-tr.handled:
	case <-p.ended:
		t.Fatalf("upwell submit has ended before write %d: %s", tr.at, p.stderr.String())
	}
	p.signal(t, syscall.SIGKILL)
	p.exits(t, -1)

	v := launch(t, env, "verify", "nightly")
	got, manifest := v.wait(t), tr.at > 2 || tr.at == 2 && tr.after
	if got == 2 || manifest == (got == 3) || strings.Contains(v.stderr.String(), "damaged") {
		t.Errorf("verify after the kill: exit code %d, want 3 without a manifest, and with it an account: %s", got, v.stderr.String())
	}
	launch(t, env, "submit", file).exits(t, 0)
	v = launch(t, env, "verify", "nightly")
	v.exits(t, 0)
	v.says(t, "standard output", v.stdout.String(), []string{`still queued +25$`})

	jobs, marked := make(map[string]int), 0
	for _, m := range queues.Messages(fixture.Queue) {
		jobs[m.Body]++
		if _, again := m.Attributes["upwell.again"]; again {
			marked++
		}
	}
	for body, n := range jobs {
		if n > 2 {
			t.Errorf("%d messages of a job, want at most two: %s", n, body)
		}
	}
	if n := len(queues.Messages(fixture.Queue)); len(jobs) != 25 || n > 25+marked || tr.at <= 3 && !tr.after && marked > 0 || tr.at == 7 && tr.after && n > 25 {
		t.Errorf("%d messages for %d jobs, %d of them marked, want 25 jobs and none twice that was not in doubt", n, len(jobs), marked)
	}
}

// supply makes a queue and a bucket.
func supply(t *testing.T, s3URL, sqsURL string) {
	t.Helper()
	conf := aws.Config{Region: fixture.Region, Credentials: credentials.NewStaticCredentialsProvider("local", "local", "")}
	objects := s3sink.NewClient(conf, func(o *s3.Options) { o.BaseEndpoint = &s3URL })
	if _, err := objects.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: new(fixture.Bucket)}); err != nil {
		t.Fatal(err)
	}
	queues := sqsqueue.NewClient(conf, func(o *sqs.Options) { o.BaseEndpoint = &sqsURL })
	for _, name := range []string{fixture.Queue, fixture.Dead} {
		if _, err := queues.CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: &name}); err != nil {
			t.Fatal(err)
		}
	}
}
