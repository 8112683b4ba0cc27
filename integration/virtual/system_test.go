// Package virtual tests upwell as a whole in virtual time: the real worker with the
// production adapters and the real SDKs against the three simulators, in a synctest
// bubble. Hours pass in milliseconds, over connections in memory. Each test ends by
// balancing the account: every job that was submitted has exactly one end, and was paid
// for once.
package virtual

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

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
	"upwell/throttle"
	"upwell/worker"
	"upwell/worker/mantle"
	"upwell/worker/mantle/mantlesim"
)

// runName is the run of all jobs.
const runName = "virtual"

// A system is the simulators and what they are told to do wrong. It polices, as
// it happens, what cannot be seen afterwards: that a message is deleted only
// when its end is durable (P2), and that what is stored stays (P3).
type system struct {
	t      *testing.T
	dir    string // of the bucket's files
	sqs    *sqssim.Server
	s3     *s3sim.Server
	mantle *mantlesim.Server
	hosts  map[string]*fixture.Listener

	mu     sync.Mutex
	stored map[string]string // sums of results by path, as first seen
}

// plan says how a system behaves. The zero plan is one without limit, latency
// or fault.
type plan struct {
	Mantle mantlesim.Config
	SQS    func(op string, c sqssim.Call) sqssim.Fault
	S3     func(op, key string) s3sim.Fault
}

// newSystem returns a system with its queues and its bucket. It belongs in a
// bubble.
func newSystem(t *testing.T, p plan) *system {
	t.Helper()
	dir := t.TempDir()
	s := &system{t: t, dir: filepath.Join(dir, fixture.Bucket), hosts: make(map[string]*fixture.Listener), stored: make(map[string]string)}
	s.sqs = sqssim.New(sqssim.Config{Region: fixture.Region, Fault: func(op string, c sqssim.Call) sqssim.Fault {
		if op == "DeleteMessageBatch" {
			s.policeDelete(c)
		}
		if p.SQS == nil {
			return sqssim.Fault{}
		}
		return p.SQS(op, c)
	}})
	var err error
	if s.s3, err = s3sim.New(s3sim.Config{Dir: dir, Fault: func(op, _, key string) s3sim.Fault {
		if p.S3 == nil {
			return s3sim.Fault{}
		}
		return p.S3(op, key)
	}}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.s3.Close() })
	s.mantle = mantlesim.New(p.Mantle)
	for name, h := range map[string]http.Handler{"sqs.test": http.HandlerFunc(s.serveSQS), "s3.test": http.HandlerFunc(s.serveS3), "mantle.test": s.mantle} {
		s.hosts[name] = fixture.Serve(t, &http.Server{Handler: h})
	}
	if err := os.Mkdir(s.dir, 0o755); err != nil { // a folder is a bucket
		t.Fatal(err)
	}
	s.createQueues()
	return s
}

func (s *system) createQueues() {
	s.t.Helper()
	client := s.machine().queues()
	if _, err := client.CreateQueue(s.t.Context(), &sqs.CreateQueueInput{QueueName: new(fixture.Dead)}); err != nil {
		s.t.Fatal(err)
	}
	_, err := client.CreateQueue(s.t.Context(), &sqs.CreateQueueInput{QueueName: new(fixture.Queue), Attributes: map[string]string{
		"RedrivePolicy": fmt.Sprintf(`{"deadLetterTargetArn":"arn:aws:sqs:%s:000000000000:%s","maxReceiveCount":100}`, fixture.Region, fixture.Dead),
	}})
	if err != nil {
		s.t.Fatal(err)
	}
}

// policeDelete checks P2: whatever is about to be deleted has a durable result,
// a durable letter and error line, or a successor in the queue.
func (s *system) policeDelete(c sqssim.Call) {
	for _, e := range c.Entries {
		if e.Body == "" {
			continue // deleted before
		}
		j, err := jobs.Parse([]byte(e.Body), runName)
		if err == nil && s.exists(sink.Results, j.Key) {
			continue
		}
		same := func(m sqssim.Message) bool { return m.Body == e.Body }
		byReference := fmt.Sprintf(`{"custom_id":%q,"body_ref":"s3://`, j.CustomID)
		if slices.ContainsFunc(s.sqs.Messages(fixture.Dead), func(m sqssim.Message) bool { return same(m) || strings.HasPrefix(m.Body, byReference) }) {
			if j.CustomID != "" && !s.exists(sink.Errors, j.Key) {
				s.t.Errorf("message of job %s is deleted: it is buried and has no error line, want both", j.Key)
			}
			continue
		}
		if copies := s.sqs.Messages(c.Queue); slices.IndexFunc(copies, same) == lastIndex(copies, same) {
			s.t.Errorf("message of job %s is deleted: neither its result nor its letter is durable", j.Key)
		}
	}
}

func lastIndex(ms []sqssim.Message, f func(sqssim.Message) bool) int {
	for i, m := range slices.Backward(ms) {
		if f(m) {
			return i
		}
	}
	return -1
}

// hangUp is how long it takes a service to notice that its client has gone.
const hangUp = 200 * time.Millisecond

// serveSQS serves SQS. A poll goes on for a moment when whoever made it has gone,
// and what it receives then is hidden from everybody.
func (s *system) serveSQS(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.Context()))
	defer cancel()
	defer context.AfterFunc(r.Context(), func() {
		late := time.AfterFunc(hangUp, cancel)
		context.AfterFunc(ctx, func() { late.Stop() })
	})()
	s.sqs.ServeHTTP(w, r.WithContext(ctx))
}

// serveS3 serves S3 and checks P3: a result that is there does not change.
func (s *system) serveS3(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/"+string(sink.Results)+"/") {
		defer func() {
			path := strings.TrimPrefix(r.URL.Path, "/"+fixture.Bucket+"/")
			text, err := os.ReadFile(filepath.Join(s.dir, filepath.FromSlash(path)))
			if err != nil {
				return // a fault has kept it out
			}
			sum := sha256.Sum256(text)
			s.mu.Lock()
			defer s.mu.Unlock()
			if old, ok := s.stored[path]; ok && old != hex.EncodeToString(sum[:]) {
				s.t.Errorf("result %s was replaced, want the first to stay", path)
			}
			s.stored[path] = hex.EncodeToString(sum[:])
		}()
	}
	s.s3.ServeHTTP(w, r)
}

func (s *system) exists(k sink.Kind, key jobs.Key) bool {
	_, err := os.Stat(filepath.Join(s.dir, filepath.FromSlash(k.Key("", key))))
	return err == nil
}

// submit queues a job for each id, and does what upwell submit advises when it
// fails: it runs the same command again.
func (s *system) submit(ids []string) {
	s.t.Helper()
	q := s.machine().queue()
	out := make([]sqsqueue.Outgoing, len(ids))
	for i, id := range ids {
		out[i].Body = fixture.Job(id, "")
	}
	for q.Send(s.t.Context(), out) != nil {
		for i := range out {
			out[i].Again = true
		}
	}
}

// send queues one message.
func (s *system) send(body string) {
	s.t.Helper()
	if err := s.machine().queue().Send(s.t.Context(), []sqsqueue.Outgoing{{Body: []byte(body)}}); err != nil {
		s.t.Fatal(err)
	}
}

// A machine is where a process runs: its clients and its connections.
type machine struct {
	*system
	client *http.Client

	mu    sync.Mutex
	conns []net.Conn
	down  bool
}

var errUnplugged = errors.New("the machine is unplugged")

func (s *system) machine() *machine {
	m := &machine{system: s}
	t := &http.Transport{DialContext: m.dial, MaxIdleConnsPerHost: 1024}
	m.client = &http.Client{Transport: fixture.Plain{RoundTripper: t}}
	s.t.Cleanup(t.CloseIdleConnections)
	return m
}

func (m *machine) dial(ctx context.Context, _, addr string) (net.Conn, error) {
	host, _, _ := net.SplitHostPort(addr)
	c, err := m.hosts[host].DialContext(ctx, "", "")
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.down {
		_ = c.Close()
		return nil, errUnplugged
	}
	m.conns = append(m.conns, c)
	return c, nil
}

// unplug cuts all connections for good. To the rest of the world it is the same
// as a kill.
func (m *machine) unplug() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.down = true
	for _, c := range m.conns {
		_ = c.Close()
	}
}

func (m *machine) config() aws.Config {
	return aws.Config{Region: fixture.Region, HTTPClient: m.client, Credentials: credentials.NewStaticCredentialsProvider("id", "secret", "")}
}

func (m *machine) queues() *sqs.Client {
	return sqsqueue.NewClient(m.config(), func(o *sqs.Options) { o.BaseEndpoint = new("http://sqs.test") })
}

func (m *machine) queue() *sqsqueue.Queue {
	m.t.Helper()
	q, err := sqsqueue.Open(m.t.Context(), m.queues(), sqsqueue.Config{Queue: fixture.Queue})
	if err != nil {
		m.t.Fatal(err)
	}
	return q
}

// A shift is one worker's work, from its start to its end.
type shift struct {
	machine *machine
	worker  *worker.Worker
	limits  *throttle.Set

	mu     sync.Mutex
	events map[worker.EventKind]int
}

// hire returns a worker on a machine of its own. Of cfg, what a system has only
// one of is filled in.
func (s *system) hire(cfg worker.Config) *shift {
	s.t.Helper()
	m := s.machine()
	endpoint, err := mantle.New(s.t.Context(), mantle.Config{
		Regions: []string{fixture.Region}, BaseURL: "http://mantle.test/openai/v1", APIKey: "key", HTTPClient: m.client, MaxOutputTokens: 4096,
	})
	if err != nil {
		s.t.Fatal(err)
	}
	results := s3sink.New(s3sink.NewClient(m.config(), func(o *s3.Options) { o.BaseEndpoint = new("http://s3.test") }), fixture.Bucket, "")
	sh := &shift{machine: m, limits: throttle.NewSet(nil), events: make(map[worker.EventKind]int)}
	cfg.Regions, cfg.Run, cfg.Version = endpoint.Regions(), runName, "test"
	cfg.Observe = func(e worker.Event) {
		sh.mu.Lock()
		defer sh.mu.Unlock()
		sh.events[e.Kind]++
	}
	if sh.worker, err = worker.New(m.queue(), endpoint, results, sh.limits, cfg); err != nil {
		s.t.Fatal(err)
	}
	return sh
}

// run works until ctx is done, or the queue is empty if it was hired so.
func (sh *shift) run(ctx context.Context) {
	if err := sh.worker.Run(ctx); err != nil {
		sh.machine.t.Errorf("Run = %v, want nil", err)
	}
}

// count returns how often something happened.
func (sh *shift) count(k worker.EventKind) int {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return sh.events[k]
}

// An account is what must hold of a system whose work is done.
type account struct {
	IDs  []string              // of all jobs submitted
	Dead map[string]jobs.Class // those that end as dead letters

	// Extra is how many billed calls are excused beyond one for each job that
	// is answered. Again and Letters are how many calls and letters are, beyond
	// one for each job that is dead.
	Extra, Again, Letters int
}

// check balances the account: P1, P3, P4 and P5. P2 and half of P3 are policed
// as it happens.
func (s *system) check(want account) {
	s.t.Helper()
	for _, m := range s.sqs.Messages(fixture.Queue) {
		s.t.Errorf("a message is still queued, %v, want none: %s", m.State, m.Body)
	}
	results, failures := s.lines(sink.Results), s.lines(sink.Errors)
	letters := s.letters()
	for _, id := range want.IDs {
		r, answered := results[id]
		e, failed := failures[id]
		class, doomed := want.Dead[id]
		switch {
		case doomed && (answered || !failed || e.Error == nil || e.Error.Code != class || letters[id] != class):
			s.t.Errorf("job %s: answered %v, error line %v, letter %q; want a %s error line and letter", id, answered, e.Error, letters[id], class)
		case !doomed && (!answered || failed || letters[id] != ""):
			s.t.Errorf("job %s: answered %v, error line %v, letter %q; want an answer", id, answered, failed, letters[id])
		case !doomed:
			s.checkResult(id, r)
		}
		delete(results, id)
		delete(failures, id)
	}
	for _, id := range slices.Concat(slices.Collect(maps.Keys(results)), slices.Collect(maps.Keys(failures))) {
		s.t.Errorf("there is a line for %q, which nobody submitted", id)
	}
	if n := len(s.sqs.Messages(fixture.Dead)); n > len(want.Dead)+want.Letters {
		s.t.Errorf("%d letters for %d dead jobs, want at most %d more", n, len(want.Dead), want.Letters)
	}
	s.checkBills(want)
}

// checkResult verifies that a result is one whole answer to its own job.
func (s *system) checkResult(id string, r jobs.Result) {
	s.t.Helper()
	var body struct {
		Status   string
		Metadata map[string]string
	}
	if r.Response == nil || r.Error != nil || r.Response.StatusCode != http.StatusOK {
		s.t.Errorf("result of %s = %+v, want a response with status 200 and no error", id, r)
		return
	}
	err := json.Unmarshal(r.Response.Body, &body)
	if err != nil || body.Status != "completed" || body.Metadata["custom_id"] != id || r.Upwell.OutputText == "" {
		s.t.Errorf("result of %s is %q for %q with %d bytes of text (%v), want a completed answer for itself",
			id, body.Status, body.Metadata["custom_id"], len(r.Upwell.OutputText), err)
	}
}

// checkBills verifies P4.
func (s *system) checkBills(want account) {
	s.t.Helper()
	var extra, again int
	for _, id := range want.IDs {
		more := s.mantle.Billed(id) - 1
		if _, doomed := want.Dead[id]; doomed {
			again += max(more, 0)
			continue
		}
		if more < 0 {
			s.t.Errorf("job %s was answered and not billed", id)
		}
		extra += more
	}
	if extra > want.Extra || again > want.Again {
		s.t.Errorf("%d calls for answered jobs and %d for dead ones were paid for in vain, want at most %d and %d",
			extra, again, want.Extra, want.Again)
	}
	if n := s.mantle.Counts().InFlight; n != 0 {
		s.t.Errorf("%d calls are in flight, want none", n)
	}
}

// lines returns what is stored, by custom_id, and verifies where.
func (s *system) lines(k sink.Kind) map[string]jobs.Result {
	s.t.Helper()
	found := make(map[string]jobs.Result)
	root := filepath.Join(s.dir, filepath.FromSlash(k.Prefix("", runName)))
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		r, err := sink.Decode(text)
		if err != nil {
			return err
		}
		if _, twice := found[r.CustomID]; twice {
			s.t.Errorf("job %s is stored in two places, want one", r.CustomID)
		}
		rel, err := filepath.Rel(s.dir, path)
		if want := k.Key("", jobs.Key{Run: runName, CustomID: r.CustomID}); filepath.ToSlash(rel) != want {
			s.t.Errorf("job %s is stored under %s, want %s", r.CustomID, rel, want)
		}
		found[r.CustomID] = r
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.t.Fatal(err)
	}
	return found
}

// letters returns the classes of the dead letters by custom_id, and verifies
// that each carries its job unchanged.
func (s *system) letters() map[string]jobs.Class {
	s.t.Helper()
	classes := make(map[string]jobs.Class)
	for _, m := range s.sqs.Messages(fixture.Dead) {
		id := m.Attributes["upwell.custom_id"].StringValue
		classes[id] = jobs.Class(m.Attributes["upwell.class"].StringValue)
		if j, err := jobs.Parse([]byte(m.Body), runName); err != nil || j.CustomID != id {
			s.t.Errorf("letter of %q has the body %s (%v), want its job", id, m.Body, err)
		}
		if m.Attributes["upwell.reason"].StringValue == "" {
			s.t.Errorf("letter of %q gives no reason", id)
		}
	}
	return classes
}
