package containers

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"io/fs"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/moby/moby/api/types/container"
	"github.com/testcontainers/testcontainers-go"

	"upwell/infra/local"
	"upwell/jobs"
	"upwell/jobs/sqsqueue"
	"upwell/sink"
	"upwell/sink/s3sink"
	"upwell/worker/mantle/mantlesim"
)

// Names of what every world has.
const (
	queueName  = "jobs"
	deadName   = "jobs-dead"
	bucketName = "bucket"
	runName    = "chaos"
	model      = "xai.grok-4.3"
)

// A world is three services on this machine, and wires by which containers reach
// them.
type world struct {
	*local.Stack
	dir             string // of the bucket
	sqs, s3, mantle *wire
	rng             *rand.Rand
	names           []string // custom_ids of its jobs
	crew            []*box   // all workers that there were
	queue           *sqsqueue.Queue
	puts            puts
}

// newWorld starts the services. Whoever's name is the same draws the same lots.
func newWorld(t *testing.T, cfg local.Config) *world {
	t.Helper()
	root := t.TempDir()
	name := fnv.New64a()
	_, _ = name.Write([]byte(t.Name()))
	w := &world{dir: filepath.Join(root, bucketName), rng: rand.New(rand.NewPCG(*seed, name.Sum64()))}
	cfg.SQS.Region, cfg.S3.Dir = local.Region, root
	if cfg.Mantle == nil {
		cfg.Mantle = &mantlesim.Config{}
	}
	if cfg.Mantle.Latency == (mantlesim.Latency{}) {
		cfg.Mantle.Latency = mantlesim.Latency{Median: time.Second, Sigma: 0.6}
	}
	cfg.Mantle.Seed = *seed
	var err error
	if w.Stack, err = local.Start(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.Close() })
	host := func(rawURL string) string { return strings.TrimPrefix(rawURL, "http://") }
	counted := httptest.NewServer(w.puts.count(w.S3))
	t.Cleanup(counted.Close)
	w.sqs, w.s3, w.mantle = newWire(t, host(w.SQSURL)), newWire(t, host(counted.URL)), newWire(t, host(w.MantleURL))
	own := func(url string) aws.Config {
		return aws.Config{Region: local.Region, BaseEndpoint: &url, Credentials: credentials.NewStaticCredentialsProvider(local.Key, local.Secret, "")}
	}
	w.queue = furnish(t, own(w.SQSURL), s3sink.NewClient(own(w.S3URL)))
	return w
}

// puts counts how often each object was stored.
type puts struct {
	mu  sync.Mutex
	n   map[string]int
	all int // results
}

// count returns a handler that counts what h stores.
func (p *puts) count(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPut {
			h.ServeHTTP(w, r)
			return
		}
		s := &status{ResponseWriter: w, code: http.StatusOK}
		h.ServeHTTP(s, r)
		if s.code == http.StatusOK {
			p.mu.Lock()
			defer p.mu.Unlock()
			if p.n == nil {
				p.n = make(map[string]int)
			}
			p.n[r.URL.Path]++
			if strings.HasPrefix(r.URL.Path, "/"+bucketName+"/"+sink.Results.Prefix("", runName)) {
				p.all++
			}
		}
	})
}

// total returns how often a result was stored, of whichever job.
func (p *puts) total() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.all
}

// results returns how often a job's result was stored.
func (p *puts) results(id string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.n["/"+bucketName+"/"+sink.Results.Key("", jobs.Key{Run: runName, CustomID: id})]
}

// A status notes the status of an answer.
type status struct {
	http.ResponseWriter
	code int
}

// WriteHeader implements http.ResponseWriter.
func (s *status) WriteHeader(code int) { s.code = code; s.ResponseWriter.WriteHeader(code) }

// furnish makes the queues and the bucket.
func furnish(t *testing.T, conf aws.Config, objects *s3.Client) *sqsqueue.Queue {
	t.Helper()
	queues := sqsqueue.NewClient(conf)
	dead, err := queues.CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: aws.String(deadName)})
	if err != nil {
		t.Fatal(err)
	}
	attrs, err := queues.GetQueueAttributes(t.Context(), &sqs.GetQueueAttributesInput{QueueUrl: dead.QueueUrl, AttributeNames: []types.QueueAttributeName{types.QueueAttributeNameQueueArn}})
	if err == nil {
		_, err = queues.CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: aws.String(queueName), Attributes: map[string]string{
			"RedrivePolicy": fmt.Sprintf(`{"deadLetterTargetArn":%q,"maxReceiveCount":100}`, attrs.Attributes["QueueArn"]),
		}})
	}
	if err == nil {
		_, err = objects.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: aws.String(bucketName)})
	}
	if err != nil {
		t.Fatal(err)
	}
	queue, err := sqsqueue.Open(t.Context(), queues, sqsqueue.Config{Queue: queueName})
	if err != nil {
		t.Fatal(err)
	}
	return queue
}

// plan names n more jobs of the world, and returns their texts, whose prompts are of that
// many bytes.
func (w *world) plan(n, size int) [][]byte {
	lines := make([][]byte, n)
	for i := range lines {
		id := fmt.Sprintf("job-%05d", len(w.names))
		w.names = append(w.names, id)
		lines[i] = line(id, strings.Repeat("Is this clause enforceable? ", max(1, size/28)))
	}
	return lines
}

// submit queues n jobs.
func (w *world) submit(t *testing.T, n, size int) {
	t.Helper()
	if err := w.send(t.Context(), n, size); err != nil {
		t.Fatal(err)
	}
}

func (w *world) send(ctx context.Context, n, size int) error {
	out := make([]sqsqueue.Outgoing, n)
	for i, body := range w.plan(n, size) {
		out[i].Body = body
	}
	return w.queue.Send(ctx, out)
}

// feed keeps about n jobs waiting to be received, until what it returns is called. So
// there is work for as long as faults are injected, whatever a machine takes for that,
// and little is left then.
func (w *world) feed(t *testing.T, n int) (stop func()) {
	t.Helper()
	const size = 2 << 10
	w.submit(t, n, size)
	ctx, cancel := context.WithCancel(t.Context())
	var feeding sync.WaitGroup
	feeding.Go(func() {
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			if gone := n - w.SQS.Stats().Queues[queueName].Visible; gone > n/4 {
				if err := w.send(context.WithoutCancel(ctx), gone, size); err != nil { // all that have a name
					t.Errorf("no more jobs can be queued: %v", err)
					return
				}
			}
		}
	})
	end := func() { cancel(); feeding.Wait() }
	t.Cleanup(end)
	return func() {
		t.Helper()
		end()
		w.outlasts(t)
	}
}

// write writes a file of n jobs, and returns the folder that it is in.
func (w *world) write(t *testing.T, n int) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, runName+".jsonl"), bytes.Join(w.plan(n, 28), []byte("\n")), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

// line returns a job's text.
func line(id, prompt string) []byte {
	return fmt.Appendf(nil, `{"custom_id":%q,"method":"POST","url":"/v1/responses","body":{"model":%q,"input":%q,"max_output_tokens":6000,"metadata":{"custom_id":%q}},"upwell":{"run":%q}}`,
		id, model, prompt, id, runName)
}

// env are the variables that a worker in this world gets. There is nothing else that
// it is told.
func (w *world) env() map[string]string {
	return map[string]string{
		"AWS_REGION": local.Region, "AWS_ACCESS_KEY_ID": local.Key, "AWS_SECRET_ACCESS_KEY": local.Secret, "AWS_EC2_METADATA_DISABLED": "true",
		"AWS_ENDPOINT_URL_SQS": "http://" + w.sqs.address(), "AWS_ENDPOINT_URL_S3": "http://" + w.s3.address(),
		"OPENAI_BASE_URL": "http://" + w.mantle.address() + "/openai/v1", "OPENAI_API_KEY": "local",
		"UPWELL_QUEUE": queueName, "UPWELL_BUCKET": bucketName,
	}
}

// hire starts a worker as a container of the image, with variables of its own beside
// those of the world.
func (w *world) hire(t *testing.T, env map[string]string, shape ...func(*container.HostConfig)) *box {
	t.Helper()
	vars := w.env()
	maps.Copy(vars, env)
	b := launch(t, testcontainers.ContainerRequest{Env: vars}, shape...)
	w.crew = append(w.crew, b)
	b.says(t, workerStarted) // or a signal could find a process that has no ear for it yet
	return b
}

// workerStarted is what a worker says when it begins.
const workerStarted = `"worker started"`

// launch starts a container of the image under test, from which this machine can be
// reached.
func launch(t *testing.T, req testcontainers.ContainerRequest, shape ...func(*container.HostConfig)) *box {
	t.Helper()
	req.Image = image(t)
	req.HostConfigModifier = func(h *container.HostConfig) {
		strict(h)
		h.ExtraHosts = []string{hostName + ":host-gateway"}
		for _, f := range shape {
			f(h)
		}
	}
	return start(t, req)
}

// outlasts verifies that work is left when the faults have ended.
func (w *world) outlasts(t *testing.T) {
	t.Helper()
	if w.done() {
		t.Errorf("all of %d jobs were done before the faults had ended, want some to be left", len(w.names))
	}
}

// eventually waits until ok reports true. It gives up when there was no progress for as
// long as it is patient: nobody knows how long all the work takes.
func (w *world) eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	progress := int64(-1)
	for deadline := time.Now(); !ok(); <-tick.C {
		if n := int64(w.puts.total()) + w.Mantle.Counts().Billed; n > progress {
			progress, deadline = n, time.Now().Add(patience)
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited %v without any progress: want %s", patience, what)
		}
	}
}

// finish waits until all jobs are done.
func (w *world) finish(t *testing.T) {
	t.Helper()
	w.eventually(t, "all jobs to be done", w.done)
}

// underWay waits until calls are made and results stored, from now on.
func (w *world) underWay(t *testing.T) {
	t.Helper()
	calls, results := w.Mantle.Counts().Billed, w.puts.total()
	eventually(t, "work to be under way", func() bool {
		return w.Mantle.Counts().Billed > calls+4*slots && w.puts.total() > results+4*slots
	})
}

// keyID is how the endpoint's ledger names the calls of workers with that key.
func keyID(key string) string {
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:4])
}

// done reports whether every job has its end and nothing is queued.
func (w *world) done() bool {
	st := w.SQS.Stats().Queues[queueName]
	return st.Visible+st.Delayed+st.InFlight == 0 && w.settled() >= len(w.names)
}

// settled counts the jobs that have an end.
func (w *world) settled() int {
	n := 0
	for _, kind := range []sink.Kind{sink.Results, sink.Errors} {
		_ = filepath.WalkDir(filepath.Join(w.dir, filepath.FromSlash(kind.Prefix("", runName))), func(path string, _ fs.DirEntry, err error) error {
			if err == nil && strings.HasSuffix(path, ".json") {
				n++
			}
			return nil // there is no folder before the first
		})
	}
	return n
}

// An account is what became of a world's jobs.
type account struct {
	scenario string
	faults   string // that were injected
	jobs     int
	lost     int // jobs without an end
	doubled  int // jobs with more than one, or whose result was stored twice
	repeated int // billed calls beyond one for each job
	bound    int // how many of these are excused
	dead     int // dead letters, none of which is right
	queued   int // messages that are left
}

// balance makes the account of a world whose work is done, and verifies it.
func (w *world) balance(t *testing.T, faults string, bound int) {
	t.Helper()
	q := w.SQS.Stats().Queues[queueName]
	w.settle(t, w.ids(t, sink.Results), w.ids(t, sink.Errors), account{
		faults: faults, bound: bound, queued: q.Visible + q.Delayed + q.InFlight, dead: len(w.SQS.Messages(deadName)),
	})
}

// settle completes an account by what is stored, verifies it and enters it in the table.
func (w *world) settle(t *testing.T, results, failures map[string]int, a account) {
	t.Helper()
	var twice []string
	a.scenario, a.jobs = scenario(t.Name()), len(w.names)
	for _, id := range w.names {
		switch n := results[id] + failures[id]; {
		case n == 0:
			a.lost++
		case n > 1 || w.puts.results(id) > 1:
			a.doubled++
		}
		if n := w.Mantle.Billed(id); n > 1 {
			a.repeated += n - 1
			twice = append(twice, id)
		} else if n == 0 && results[id] > 0 {
			t.Errorf("job %s was answered and not billed", id)
		}
	}
	if n := len(results) + len(failures); n > a.jobs {
		t.Errorf("%d jobs have an end, want the %d that were submitted", n, a.jobs)
	}
	if a.lost > 0 || a.doubled > 0 || a.dead > 0 || len(failures) > 0 || a.queued > 0 {
		t.Errorf("of %d jobs %d are lost, %d doubled, %d dead-lettered, %d failed, %d still queued, want none; -chaos.seed %d draws the same lots",
			a.jobs, a.lost, a.doubled, a.dead, len(failures), a.queued, *seed)
	}
	if a.repeated > a.bound {
		t.Errorf("%d calls were repeated, want %d at most: %s", a.repeated, a.bound, w.story(twice))
	}
	tableMu.Lock()
	defer tableMu.Unlock()
	table = append(table, a)
}

// story tells what is known of some jobs, the first of them in detail.
func (w *world) story(ids []string) string {
	var out strings.Builder
	fmt.Fprintf(&out, "%d of them", len(ids))
	for _, id := range ids[:min(len(ids), 3)] {
		for _, e := range w.Mantle.Ledger() {
			if e.Job == id {
				fmt.Fprintf(&out, "\n%s: call %d from %s to %s: status %d %s%s", id, e.Seq, e.Received.Format(time.StampMilli), e.Answered.Format(time.StampMilli), e.Status, e.Reason, e.Fault)
			}
		}
		text, _ := os.ReadFile(filepath.Join(w.dir, filepath.FromSlash(sink.Results.Key("", jobs.Key{Run: runName, CustomID: id})))) // it may be lost
		if r, err := sink.Decode(text); err == nil {
			for _, a := range r.Upwell.Attempts {
				fmt.Fprintf(&out, "\n%s: attempt %d at %s: status %d %s", id, a.N, a.Started, a.Status, a.Error)
			}
		}
		for _, b := range w.crew {
			for l := range strings.Lines(b.log.String()) {
				if strings.Contains(l, id) {
					out.WriteString("\n" + b.GetContainerID()[:8] + ": " + strings.TrimSpace(l))
				}
			}
		}
	}
	return out.String()
}

// ids returns how often each job is stored, and verifies that each is whole.
func (w *world) ids(t *testing.T, kind sink.Kind) map[string]int {
	t.Helper()
	found := make(map[string]int)
	root := filepath.Join(w.dir, filepath.FromSlash(kind.Prefix("", runName)))
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		found[check(t, path, text)]++
		return nil
	})
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return found
}

// check verifies that a stored result is the whole answer to its own job, and returns
// the job's name.
func check(t *testing.T, where string, text []byte) string {
	t.Helper()
	r, err := sink.Decode(text)
	if err != nil {
		t.Errorf("%s: %v", where, err)
		return ""
	}
	var body struct {
		Status   string
		Metadata map[string]string
	}
	if r.Response != nil {
		if err := json.Unmarshal(r.Response.Body, &body); err != nil || body.Status != "completed" || body.Metadata["custom_id"] != r.CustomID || r.Upwell.OutputText == "" {
			t.Errorf("%s is %q for %q (%v), want a completed answer for %q", where, body.Status, body.Metadata["custom_id"], err, r.CustomID)
		}
	}
	if want := sink.Results.Key("", jobs.Key{Run: runName, CustomID: r.CustomID}); r.Response != nil && !strings.HasSuffix(filepath.ToSlash(where), want) {
		t.Errorf("%s is the place of another job than %q", where, r.CustomID)
	}
	return r.CustomID
}

// pause waits a random time.
func (w *world) pause(ctx context.Context, least, most time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(least + time.Duration(w.rng.Int64N(int64(most-least)))):
	}
}
