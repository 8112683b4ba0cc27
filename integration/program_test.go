// Package integration tests upwell as a whole, and only from outside of its packages: it
// runs the program itself, signals it and kills it. Tests end by balancing the account:
// every job that was submitted has exactly one end, and was paid for once. Package
// integration/virtual does the same in virtual time.
package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"upwell/integration/fixture"
	"upwell/jobs/sqsqueue"
	"upwell/worker/mantle/mantlesim"
)

// program is the path of the binary under test.
var program string

var long = flag.Bool("lengthy", false, "run the tests that take minutes, too")

// lengthy skips a test that takes minutes, unless it is asked for. Such tests kill, or
// wait for a budget, and are called so: .ci/run asks for them by that.
func lengthy(t *testing.T, why string) {
	t.Helper()
	if !*long {
		t.Skipf("%s: -lengthy runs it", why)
	}
}

func TestMain(m *testing.M) {
	os.Exit(testMain(m))
}

func testMain(m *testing.M) int {
	// Tests of processes wait for most of their time, so that more of them than
	// there are processors may run at once.
	if err := flag.Set("test.parallel", "8"); err != nil {
		panic(err)
	}
	flag.Parse()
	dir, err := os.MkdirTemp("", "upwell-integration-*")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	program = filepath.Join(dir, "upwell")
	build := exec.Command("go", "build", "-o", program, "upwell/cmd/upwell") //nolint:noctx // there is no test to stop it yet
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// patience bounds every wait of a process test: what takes longer is stuck.
const patience = 3 * time.Minute

// eventually waits until ok reports true.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("waited %v in vain: want %s", patience, what)
		}
	}
}

// A process is the program, running.
type process struct {
	cmd            *exec.Cmd
	stdout, stderr log
	ended          chan struct{}
}

// A log is what a process has written so far.
type log struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// Write implements io.Writer.
func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// launch starts the program with nothing but env in its environment. If it still
// runs when the test ends it is killed.
func launch(t *testing.T, env []string, args ...string) *process {
	t.Helper()
	return launchIn(t, "", env, args...)
}

// launchIn does so in a folder.
func launchIn(t *testing.T, dir string, env []string, args ...string) *process {
	t.Helper()
	p := &process{ended: make(chan struct{})}
	p.cmd = exec.CommandContext(t.Context(), program, args...)
	p.cmd.Dir = dir
	p.cmd.Env = append([]string{"HOME=" + t.TempDir(), "TMPDIR=" + t.TempDir(), "AWS_EC2_METADATA_DISABLED=true"}, env...)
	p.cmd.Stdout, p.cmd.Stderr = &p.stdout, &p.stderr
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var waiting sync.WaitGroup
	waiting.Go(func() {
		_ = p.cmd.Wait() // the state says it
		close(p.ended)
	})
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		waiting.Wait()
		if t.Failed() {
			t.Logf("upwell %s:\n%s%s", strings.Join(args, " "), tail(p.stdout.String()), tail(p.stderr.String()))
		}
	})
	return p
}

// tail returns the last lines of a text.
func tail(s string) string {
	lines := strings.SplitAfter(s, "\n")
	return strings.Join(lines[max(0, len(lines)-15):], "")
}

// wait returns the exit code, or -1 for a process that a signal ended.
func (p *process) wait(t *testing.T) int {
	t.Helper()
	select {
	case <-p.ended:
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(patience):
		t.Fatalf("upwell %s: not done after %v", p.cmd.Args[1], patience)
		return 0
	}
}

// exits waits for the process and verifies its exit code.
func (p *process) exits(t *testing.T, want int) {
	t.Helper()
	if got := p.wait(t); got != want {
		t.Errorf("upwell %s: exit code %d, want %d\n%s", strings.Join(p.cmd.Args[1:], " "), got, want, tail(p.stderr.String()))
	}
}

func (p *process) signal(t *testing.T, s os.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		t.Fatalf("Signal(%v) = %v, want nil", s, err)
	}
}

// A stack is a running upwell local.
type stack struct {
	env    []string // as it prints it
	mantle string   // URL
	dir    string   // of the bucket
	queue  *sqsqueue.Queue
	dead   *sqsqueue.Queue
}

var export = regexp.MustCompile(`[A-Z0-9_]+=\S+`)

// newStack starts upwell local on free ports.
func newStack(t *testing.T, args ...string) *stack {
	t.Helper()
	dir := t.TempDir()
	free := []string{"local", "--sqs", "127.0.0.1:0", "--s3", "127.0.0.1:0", "--mantle", "127.0.0.1:0", "--sigma", "0", "--dir", dir}
	p := launch(t, nil, append(free, args...)...)
	eventually(t, "upwell local to say where it is", func() bool {
		select {
		case <-p.ended:
			t.Fatalf("upwell local has ended: %s", p.stderr.String())
		default:
		}
		return strings.Contains(p.stdout.String(), "/_sim/ledger")
	})
	s := &stack{dir: filepath.Join(dir, "upwell")}
	s.env = append(s.env, export.FindAllString(p.stdout.String(), -1)...)
	vars := s.vars()
	s.mantle = strings.TrimSuffix(vars["OPENAI_BASE_URL"], "/openai/v1")
	client := s.sqs()
	open := func(name string) *sqsqueue.Queue {
		q, err := sqsqueue.Open(t.Context(), client, sqsqueue.Config{Queue: name, Dead: name})
		if err != nil {
			t.Fatal(err)
		}
		return q
	}
	s.queue, s.dead = open(vars["UPWELL_QUEUE"]), open(vars["UPWELL_QUEUE"]+"-dead")
	return s
}

// vars are the variables that the stack asks for.
func (s *stack) vars() map[string]string {
	vars := make(map[string]string)
	for _, e := range s.env {
		name, value, _ := strings.Cut(e, "=")
		vars[name] = value
	}
	return vars
}

// aws returns the configuration of clients of the stack, with the endpoint that the
// variable names.
func (s *stack) aws(variable string) aws.Config {
	vars := s.vars()
	return aws.Config{
		Region: vars["AWS_REGION"], BaseEndpoint: new(vars[variable]), HTTPClient: &http.Client{Transport: fixture.Plain{RoundTripper: http.DefaultTransport}},
		Credentials: credentials.NewStaticCredentialsProvider(vars["AWS_ACCESS_KEY_ID"], vars["AWS_SECRET_ACCESS_KEY"], ""),
	}
}

func (s *stack) sqs() *sqs.Client { return sqsqueue.NewClient(s.aws("AWS_ENDPOINT_URL_SQS")) }

// launch starts the program with the environment that the stack asks for.
func (s *stack) launch(t *testing.T, args ...string) *process {
	t.Helper()
	return launch(t, s.env, args...)
}

// submit queues jobs of the run and waits until they are.
func (s *stack) submit(t *testing.T, run string, ids []string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), run+".jsonl")
	writeJobs(t, file, ids)
	s.launch(t, "submit", file).exits(t, 0)
}

func writeJobs(t *testing.T, file string, ids []string) {
	t.Helper()
	var lines bytes.Buffer
	for _, id := range ids {
		lines.Write(append(fixture.Job(id, ""), '\n'))
	}
	if err := os.WriteFile(file, lines.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}

// counts asks the endpoint what it has done.
func (s *stack) counts(t *testing.T) (c mantlesim.Counts) {
	t.Helper()
	if err := json.Unmarshal(s.control(t, http.MethodGet, "counts", nil), &c); err != nil {
		t.Fatal(err)
	}
	return c
}

// standstill is a capacity with which calls are in flight until there is another one: as
// long as a test looks at them.
const standstill = "conc=0 queue=1000 wait=3600"

// capacity gives the endpoint another one.
func (s *stack) capacity(t *testing.T, script string) {
	t.Helper()
	s.control(t, http.MethodPost, "capacity", strings.NewReader(script))
}

// slow has calls from that number on, counted from now, take so many times as long: work
// is not done before a kill, however late that comes.
func (s *stack) slow(t *testing.T, from, factor int) {
	t.Helper()
	s.control(t, http.MethodPost, "faults", strings.NewReader(fmt.Sprintf(`[{"kind": "slow", "first": %d, "factor": %d}]`, from, factor)))
}

// quick takes that back. Calls that are slow already stay so.
func (s *stack) quick(t *testing.T) {
	t.Helper()
	s.control(t, http.MethodPost, "faults", strings.NewReader("[]"))
}

// A sluice lets so many requests pass, and holds the others until it is opened: what is
// under way is not done before a test has seen it, however slow the machine is.
type sluice struct {
	mu      sync.Mutex
	left    int           // that may pass
	shut    chan struct{} // closed when it is opened; nil before it is shut
	waiting int           // requests that are held
	seen    int           // requests, since the beginning
}

func newSluice() *sluice { return &sluice{left: math.MaxInt} }

// shutAfter has so many more requests pass, and no others.
func (g *sluice) shutAfter(n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.left, g.shut = n, make(chan struct{})
}

// open lets all pass.
func (g *sluice) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.left = math.MaxInt
	close(g.shut)
}

// pass waits until a request may pass, and reports false if its client is gone first.
func (g *sluice) pass(ctx context.Context) bool {
	g.mu.Lock()
	g.seen++
	if g.left > 0 {
		g.left--
		g.mu.Unlock()
		return true
	}
	shut := g.shut
	g.waiting++
	g.mu.Unlock()
	defer func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.waiting--
	}()
	select {
	case <-shut:
		return true
	case <-ctx.Done():
		return false
	}
}

// held returns how many requests wait, and of how many there have been.
func (g *sluice) held() (waiting, seen int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.waiting, g.seen
}

// behind puts a sluice before a service, for what is launched from now on. It holds the
// answers to the requests that concern it, but for those that say no: what is asked for
// has been done by then.
func (s *stack) behind(t *testing.T, variable string, concerns func(*http.Request) bool) *sluice {
	t.Helper()
	g := newSluice()
	to, err := url.Parse(s.vars()[variable])
	if err != nil {
		t.Fatal(err)
	}
	path := to.Path
	to.Path = ""
	at := front(t, to.String(), func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !concerns(r) {
				h.ServeHTTP(w, r)
				return
			}
			answer := httptest.NewRecorder()
			h.ServeHTTP(answer, r.WithContext(context.WithoutCancel(r.Context())))
			if answer.Code < 300 && !g.pass(r.Context()) {
				return
			}
			maps.Copy(w.Header(), answer.Header())
			w.WriteHeader(answer.Code)
			_, _ = w.Write(answer.Body.Bytes()) // a client that has gone misses nothing
		})
	})
	s.env = append(slices.Clip(s.env), variable+"="+at+path)
	return g
}

// calls are the requests to the endpoint, all of them.
func calls(*http.Request) bool { return true }

// operation returns a function that knows the requests of an operation of SQS's.
func operation(name string) func(*http.Request) bool {
	return func(r *http.Request) bool { return r.Header.Get("X-Amz-Target") == "AmazonSQS."+name }
}

// ledger returns the endpoint's calls.
func (s *stack) ledger(t *testing.T) (list []mantlesim.Entry) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(s.control(t, http.MethodGet, "ledger", nil)))
	for {
		var e mantlesim.Entry
		if err := d.Decode(&e); errors.Is(err, io.EOF) {
			return list
		} else if err != nil {
			t.Fatal(err)
		}
		list = append(list, e)
	}
}

// control speaks to the endpoint's control API.
func (s *stack) control(t *testing.T, method, what string, body io.Reader) []byte {
	t.Helper()
	status, _, text := ask(t, method, s.mantle+"/_sim/"+what, "", body)
	if status >= 300 {
		t.Fatalf("%s %s = %s, want success: %s", method, what, http.StatusText(status), text)
	}
	return text
}

// ask makes a request, with a token unless that is empty, and returns the status, headers and
// body of its answer.
func ask(t *testing.T, method, url, token string, body io.Reader) (status int, header http.Header, text []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err = io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, res.Header, text
}

// left counts a queue's messages in any state.
func left(t *testing.T, q *sqsqueue.Queue) sqsqueue.Counts {
	t.Helper()
	c, err := q.Counts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// stored returns the custom_ids of a run's results, as they lie in the bucket.
func (s *stack) stored(t *testing.T, run string) []string {
	t.Helper()
	return storedIn(t, filepath.Join(s.dir, "runs", run, "results"))
}

func storedIn(t *testing.T, dir string) (ids []string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*", "*.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		var line struct {
			CustomID string `json:"custom_id"`
			Response struct {
				Body struct{ Metadata map[string]string }
			}
		}
		if err := json.Unmarshal(text, &line); err != nil {
			t.Fatalf("%s: %v", f, err)
		}
		if got := line.Response.Body.Metadata["custom_id"]; got != line.CustomID {
			t.Errorf("%s holds the answer for %q, want that for %q", f, got, line.CustomID)
		}
		ids = append(ids, line.CustomID)
	}
	slices.Sort(ids)
	return ids
}

// balance verifies that a run is done, and what it cost: one billed call for
// each job, and extra at most beyond.
func (s *stack) balance(t *testing.T, run string, ids []string, extra int) {
	t.Helper()
	if got := s.stored(t, run); !slices.Equal(got, ids) {
		t.Errorf("%d results, want each of %d jobs to have one", len(got), len(ids))
	}
	if c := left(t, s.queue); c.Total() != 0 {
		t.Errorf("queue: %+v, want nothing left", c)
	}
	if c := left(t, s.dead); c.Total() != 0 {
		t.Errorf("dead-letter queue: %+v, want nothing in it", c)
	}
	c := s.counts(t)
	if c.Billed < int64(len(ids)) || c.Billed > int64(len(ids)+extra) || c.Repeated > int64(extra) {
		t.Errorf("%d billed calls, %d of them repeated, want %d and %d more at most", c.Billed, c.Repeated, len(ids), extra)
	}
}
