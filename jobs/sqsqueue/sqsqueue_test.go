package sqsqueue_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	gocmp "github.com/google/go-cmp/cmp"

	"upwell/jobs"
	"upwell/jobs/sqsqueue"
	"upwell/jobs/sqsqueue/sqssim"
	"upwell/worker"
)

var _ worker.Source = (*sqsqueue.Queue)(nil)

// hidden is what tests ask of Receive.
const hidden = 2 * time.Minute

type attrs = map[string]string

// newClient returns the client of a worker, connected to rt.
func newClient(rt http.RoundTripper) *sqs.Client {
	return sqsqueue.NewClient(aws.Config{
		Region:       "us-east-1",
		Credentials:  credentials.NewStaticCredentialsProvider("id", "secret", ""),
		HTTPClient:   &http.Client{Transport: rt},
		BaseEndpoint: new("http://sqs.test"),
	})
}

// A setup is what a test asks of its world. The zero setup is a standard queue.
type setup struct {
	fifo       bool
	lenient    bool // see sqssim.Config.LenientReceipts
	maxReceive int  // of the redrive policy; default 5
	inFlight   int  // see sqssim.Config.InFlight
	latency    time.Duration
	shuffle    bool
	cfg        sqsqueue.Config // but for the names
}

// A world is a queue under test, its dead-letter queue, and the SQS they are in.
type world struct {
	*testing.T
	*sqssim.Server

	client     *sqs.Client
	q          *sqsqueue.Queue
	name, dead string

	mu    sync.Mutex
	fault func(op string, c sqssim.Call) sqssim.Fault
}

func newWorld(tb testing.TB, s setup) *world {
	tb.Helper()
	w := &world{name: "jobs", dead: "dead"}
	w.T, _ = tb.(*testing.T)
	w.Server = sqssim.New(sqssim.Config{
		LenientReceipts: s.lenient,
		InFlight:        s.inFlight,
		Latency:         s.latency,
		Shuffle:         s.shuffle,
		Fault: func(op string, c sqssim.Call) sqssim.Fault {
			w.mu.Lock()
			defer w.mu.Unlock()
			if w.fault == nil {
				return sqssim.Fault{}
			}
			return w.fault(op, c)
		},
	})
	w.client = newClient(w.Server)
	a := attrs{}
	if s.fifo {
		w.name, w.dead, a["FifoQueue"] = "jobs.fifo", "dead.fifo", "true"
	}
	w.create(tb, w.dead, a)
	w.create(tb, w.name, a)
	w.redrive(tb, cmp.Or(s.maxReceive, 5))
	s.cfg.Queue = w.name
	var err error
	if w.q, err = sqsqueue.Open(tb.Context(), w.client, s.cfg); err != nil {
		tb.Fatalf("Open(%q) = %v, want nil", w.name, err)
	}
	return w
}

// virtual runs f in a synctest bubble.
func virtual(t *testing.T, s setup, f func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { f(t, newWorld(t, s)) })
}

// everywhere runs f on all kinds of queues, and both where SQS forgives a
// receipt that has expired and where it does not.
func everywhere(t *testing.T, s setup, f func(t *testing.T, w *world)) {
	t.Helper()
	for _, lenient := range []bool{false, true} {
		for _, fifo := range []bool{false, true} {
			name := map[bool]string{false: "strict", true: "lenient"}[lenient] + map[bool]string{false: "/standard", true: "/fifo"}[fifo]
			t.Run(name, func(t *testing.T) {
				s.lenient, s.fifo = lenient, fifo
				virtual(t, s, f)
			})
		}
	}
}

func (w *world) create(tb testing.TB, name string, a attrs) {
	tb.Helper()
	if _, err := w.client.CreateQueue(tb.Context(), &sqs.CreateQueueInput{QueueName: &name, Attributes: a}); err != nil {
		tb.Fatal(err)
	}
}

// redrive has SQS move a message to the dead-letter queue that was received n
// times already.
func (w *world) redrive(tb testing.TB, n int) {
	tb.Helper()
	w.set(tb, "RedrivePolicy", policy(w.dead, n))
}

func (w *world) set(tb testing.TB, attribute, value string) {
	tb.Helper()
	w.setFor(tb, w.name, attribute, value)
}

func (w *world) setFor(tb testing.TB, queue, attribute, value string) {
	tb.Helper()
	_, err := w.client.SetQueueAttributes(tb.Context(), &sqs.SetQueueAttributesInput{
		QueueUrl: new("http://sqs.test/000000000000/" + queue), Attributes: attrs{attribute: value},
	})
	if err != nil {
		tb.Fatal(err)
	}
}

// inject has f decide each request's fate from now on.
func (w *world) inject(f func(op string, c sqssim.Call) sqssim.Fault) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fault = f
}

// requests counts the requests for op so far.
func (w *world) requests(op string) int { return w.Stats().Requests[op] }

// send queues the bodies as a submitter does.
func (w *world) send(bodies ...string) {
	w.Helper()
	var out []sqsqueue.Outgoing
	for _, b := range bodies {
		out = append(out, sqsqueue.Outgoing{Body: []byte(b)})
	}
	if err := w.q.Send(w.Context(), out); err != nil {
		w.Fatalf("Send = %v, want nil", err)
	}
}

// receive takes up to ten messages.
func (w *world) receive() []jobs.Message {
	w.Helper()
	ms, err := w.q.Receive(w.Context(), 10, hidden)
	if err != nil {
		w.Fatalf("Receive = %v, want nil", err)
	}
	return ms
}

// one receives exactly one message.
func (w *world) one() jobs.Message {
	w.Helper()
	ms := w.receive()
	if len(ms) != 1 {
		w.Fatalf("Receive returned %d messages, want 1", len(ms))
	}
	return ms[0]
}

// many queues n messages and receives them.
func (w *world) many(n int) []jobs.Message {
	w.Helper()
	var out []sqsqueue.Outgoing
	for i := range n {
		out = append(out, sqsqueue.Outgoing{Body: []byte(bodyOf(i))})
	}
	if err := w.q.Send(w.Context(), out); err != nil {
		w.Fatal(err)
	}
	var ms []jobs.Message
	for len(ms) < n {
		ms = append(ms, w.receive()...)
	}
	return ms
}

// together runs f for each message, all at once, and returns what each returned.
func together(ms []jobs.Message, f func(jobs.Message) error) []error {
	errs := make([]error, len(ms))
	var wg sync.WaitGroup
	for i, m := range ms {
		wg.Go(func() { errs[i] = f(m) })
	}
	wg.Wait()
	return errs
}

// wantStats checks what the queue holds; nothing in it may be delayed.
func (w *world) wantStats(visible, inFlight int) {
	w.Helper()
	got := w.Stats().Queues[w.name]
	if got.Visible != visible || got.Delayed != 0 || got.InFlight != inFlight {
		w.Errorf("%d visible, %d delayed and %d in flight, want %d, 0 and %d",
			got.Visible, got.Delayed, got.InFlight, visible, inFlight)
	}
}

func TestOpen(t *testing.T) {
	w := newWorld(t, setup{})
	w.create(t, "lone", nil)
	w.create(t, "other", nil)
	const base = "http://sqs.test/000000000000/"
	for _, tt := range []struct {
		name      string
		cfg       sqsqueue.Config
		url, dead string
		err       string
		kind      worker.Kind // of err; Transient if it is no worker.Error
	}{
		{name: "by name", cfg: sqsqueue.Config{Queue: "jobs"}, url: base + "jobs", dead: base + "dead"},
		{name: "by URL", cfg: sqsqueue.Config{Queue: base + "jobs"}, url: base + "jobs", dead: base + "dead"},
		{name: "dead named", cfg: sqsqueue.Config{Queue: "jobs", Dead: "other"}, url: base + "jobs", dead: base + "other"},
		{name: "dead by URL", cfg: sqsqueue.Config{Queue: "lone", Dead: base + "other"}, url: base + "lone", dead: base + "other"},
		{name: "nothing", err: "sqs: no queue: give its name or URL"},
		{name: "no policy", cfg: sqsqueue.Config{Queue: "lone"}, err: "sqs: queue lone has no redrive policy: give it a dead-letter queue, or name one"},
		{name: "no queue", cfg: sqsqueue.Config{Queue: "none"}, err: "sqs find queue none: ", kind: worker.Permanent},
		{name: "no queue at URL", cfg: sqsqueue.Config{Queue: base + "none"}, err: "sqs read attributes of " + base + "none: ", kind: worker.Permanent},
		{name: "no dead queue", cfg: sqsqueue.Config{Queue: "jobs", Dead: "none"}, err: "dead-letter queue: sqs find queue none: ", kind: worker.Permanent},
	} {
		t.Run(tt.name, func(t *testing.T) {
			q, err := sqsqueue.Open(t.Context(), w.client, tt.cfg)
			if tt.err != "" {
				e, _ := errors.AsType[*worker.Error](err)
				if err == nil || !strings.HasPrefix(err.Error(), tt.err) || (e != nil) != (tt.kind != worker.Transient) || e != nil && e.Kind != tt.kind {
					t.Errorf("Open = %v, want %v error %q…", err, tt.kind, tt.err)
				}
				return
			}
			if err != nil || q.URL() != tt.url || q.Dead() != tt.dead {
				t.Errorf("Open = %+v, %v, want %s and %s", q, err, tt.url, tt.dead)
			}
		})
	}
}

// Whoever may not read a queue is told so by every operation; a parameter that
// SQS does not take is no delivery that is over.
func TestWhatAnErrorMeans(t *testing.T) {
	ops := map[string]func(w *world, m jobs.Message) error{
		"Open": func(w *world, _ jobs.Message) error {
			_, err := sqsqueue.Open(w.Context(), w.client, sqsqueue.Config{Queue: w.name})
			return err
		},
		"Receive": func(w *world, _ jobs.Message) error {
			_, err := w.q.Receive(w.Context(), 1, hidden)
			return err
		},
		"Hide":    func(w *world, m jobs.Message) error { return w.q.Hide(w.Context(), m, hidden) },
		"Ack":     func(w *world, m jobs.Message) error { return w.q.Ack(w.Context(), m) },
		"Release": func(w *world, m jobs.Message) error { return w.q.Release(w.Context(), m, 0) },
		"Release with attempts": func(w *world, m jobs.Message) error {
			m.Attempts++
			return w.q.Release(w.Context(), m, 0)
		},
		"Bury": func(w *world, m jobs.Message) error { return w.q.Bury(w.Context(), m, jobs.DeadLetter{}) },
		"Send": func(w *world, m jobs.Message) error {
			return w.q.Send(w.Context(), []sqsqueue.Outgoing{{Body: m.Body}})
		},
		"Empty": func(w *world, _ jobs.Message) error {
			_, err := w.q.Empty(w.Context())
			return err
		},
	}
	for code, kind := range map[string]worker.Kind{
		"AccessDeniedException":          worker.Unauthorized,
		"KMS.AccessDeniedException":      worker.Unauthorized,
		"ExpiredTokenException":          worker.Unauthorized,
		"InvalidSecurity":                worker.Unauthorized,
		"QueueDoesNotExist":              worker.Permanent,
		"InvalidAddress":                 worker.Permanent,
		"InvalidParameterValueException": worker.Transient,
		"MissingParameter":               worker.Transient,
	} {
		t.Run(code, func(t *testing.T) {
			virtual(t, setup{}, func(t *testing.T, w *world) {
				w.send("a")
				m := w.one()
				w.inject(func(string, sqssim.Call) sqssim.Fault { return sqssim.Fault{Err: &sqssim.Error{Code: code}} })
				for op, do := range ops {
					err := do(w, m)
					got := worker.Transient
					if e, ok := errors.AsType[*worker.Error](err); ok {
						got = e.Kind
					}
					if err == nil || got != kind || errors.Is(err, worker.ErrGone) {
						t.Errorf("%s = %v error %v, want %v", op, got, err, kind)
					}
				}
			})
		})
	}
}

func TestOpenReadsThePolicy(t *testing.T) {
	for _, tt := range []struct {
		count string // as the policy has it
		err   string
	}{
		{count: `2`},
		{count: `"2"`},
		{count: `"two"`, err: "sqs: redrive policy of http://sqs.test/000000000000/jobs: "},
	} {
		t.Run(tt.count, func(t *testing.T) {
			w := newWorld(t, setup{})
			client := newClient(rewriting{w.Server, `\"maxReceiveCount\":5`, `\"maxReceiveCount\":` + strings.ReplaceAll(tt.count, `"`, `\"`)})
			q, err := sqsqueue.Open(t.Context(), client, sqsqueue.Config{Queue: "jobs"})
			if tt.err != "" {
				if err == nil || !strings.HasPrefix(err.Error(), tt.err) {
					t.Errorf("Open = %v, want %q…", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			// Two deliveries are allowed, so the second release must not be one of
			// visibility only.
			w.q = q
			w.send("a")
			for receives := 1; receives <= 2; receives++ {
				m := w.one()
				if m.Receives != receives {
					t.Errorf("delivery %d says %d", receives, m.Receives)
				}
				if err := q.Release(t.Context(), m, 0); err != nil {
					t.Errorf("Release = %v, want nil", err)
				}
			}
			if m := w.one(); m.Receives != 1 || !m.Again {
				t.Errorf("after two releases: %d receives, again %t, want 1 and true", m.Receives, m.Again)
			}
		})
	}
}

// rewriting is a transport that changes what it reads.
type rewriting struct {
	http.RoundTripper

	old, new string
}

func (t rewriting) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := t.RoundTripper.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	b = bytes.ReplaceAll(b, []byte(t.old), []byte(t.new))
	resp.Body, resp.ContentLength = io.NopCloser(bytes.NewReader(b)), int64(len(b))
	return resp, err
}

// The SDK allows a client some hundred retries and then fails at the first
// trouble.
func TestRetriesHaveNoQuota(t *testing.T) {
	virtual(t, setup{}, func(t *testing.T, w *world) {
		start := time.Now()
		w.inject(func(string, sqssim.Call) sqssim.Fault {
			if time.Since(start) < time.Second {
				return sqssim.Fault{Err: &sqssim.Error{Code: "InternalFailure", Status: 500}}
			}
			return sqssim.Fault{}
		})
		for _, err := range together(make([]jobs.Message, 300), func(jobs.Message) error {
			_, err := w.q.Counts(t.Context())
			return err
		}) {
			if err != nil {
				t.Fatalf("Counts = %v, want nil", err)
			}
		}
		if took := time.Since(start); took < time.Second || took > 20*time.Second {
			t.Errorf("took %v, want a few seconds", took)
		}
	})
}

func TestCounts(t *testing.T) {
	virtual(t, setup{}, func(t *testing.T, w *world) {
		check := func(want sqsqueue.Counts) {
			t.Helper()
			got, err := w.q.Counts(t.Context())
			if diff := gocmp.Diff(want, got); diff != "" || err != nil {
				t.Errorf("Counts = %v; -want +got:\n%s", err, diff)
			}
			if total := want.Visible + want.Hidden + want.Delayed; got.Total() != total {
				t.Errorf("Total = %d, want %d", got.Total(), total)
			}
			if empty, err := w.q.Empty(t.Context()); err != nil || empty != (want == sqsqueue.Counts{}) {
				t.Errorf("Empty = %t, %v with %+v", empty, err, want)
			}
		}
		check(sqsqueue.Counts{})
		w.set(t, "DelaySeconds", "60")
		w.send("a", "b", "c")
		check(sqsqueue.Counts{Delayed: 3})
		time.Sleep(time.Minute)
		check(sqsqueue.Counts{Visible: 3})
		m, err := w.q.Receive(t.Context(), 1, hidden)
		if err != nil || len(m) != 1 {
			t.Fatalf("Receive(1) = %d messages, %v", len(m), err)
		}
		w.set(t, "DelaySeconds", "30")
		w.send("d")
		check(sqsqueue.Counts{Visible: 2, Hidden: 1, Delayed: 1})
		for _, m := range append(m, w.receive()...) {
			if err := w.q.Ack(t.Context(), m); err != nil {
				t.Fatal(err)
			}
		}
		check(sqsqueue.Counts{Delayed: 1})
		time.Sleep(30 * time.Second)
		last := w.one()
		check(sqsqueue.Counts{Hidden: 1})
		if err := w.q.Ack(t.Context(), last); err != nil {
			t.Fatal(err)
		}
		check(sqsqueue.Counts{})
	})
}

// bodyOf returns a body for the i-th job.
func bodyOf(i int) string { return "job " + strconv.Itoa(i) }

func policy(dead string, n int) string {
	return `{"deadLetterTargetArn":"arn:aws:sqs:us-east-1:000000000000:` + dead + `","maxReceiveCount":` + strconv.Itoa(n) + `}`
}

var errStopped = errors.New("stopped")

// stopping returns a context that ends after d, with a cause of its own.
func stopping(ctx context.Context, d time.Duration) context.Context {
	ctx, cancel := context.WithCancelCause(ctx)
	time.AfterFunc(d, func() { cancel(errStopped) })
	return ctx
}
