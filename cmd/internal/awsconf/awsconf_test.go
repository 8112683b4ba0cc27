package awsconf_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"upwell/cmd/internal/awsconf"
	"upwell/jobs"
	"upwell/jobs/sqsqueue"
	"upwell/jobs/sqsqueue/sqssim"
)

const (
	// strandable is enough messages for the SDK's own client to strand some 200
	// of them on an idle machine.
	strandable = 40_000

	// slots is how many connections the program's client keeps, unless told
	// otherwise: more than receivers and deletes make use of at a time.
	slots     = 256
	receivers = 8

	// enough is how long it may take to receive and delete them all on a busy
	// machine. Messages stay hidden for longer, so that none comes twice.
	enough = 15 * time.Minute
	hidden = time.Hour
)

// clients are those that the package makes.
func clients(t *testing.T) map[string]aws.HTTPClient {
	t.Helper()
	t.Setenv("AWS_REGION", "us-east-1")
	t.Setenv("AWS_CONFIG_FILE", filepath.Join(t.TempDir(), "none"))
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", filepath.Join(t.TempDir(), "none"))
	cfg, err := awsconf.Load(t.Context(), awsconf.Options{Connections: slots})
	if err != nil {
		t.Fatal(err)
	}
	return map[string]aws.HTTPClient{"Load": cfg.HTTPClient, "Client": awsconf.Client(slots)}
}

// A writerTo is a body like the SDK's, whose WriteTo is what must not be used.
type writerTo struct {
	*strings.Reader
	t *testing.T
}

func (w writerTo) WriteTo(io.Writer) (int64, error) {
	w.t.Error("net/http used the body's WriteTo, want it hidden")
	return 0, io.EOF
}

func (w writerTo) Close() error { return nil }

func TestBodiesArePlain(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) }))
	defer srv.Close()
	for name, c := range clients(t) {
		body := writerTo{strings.NewReader("hello"), t}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, srv.URL, body)
		if err != nil {
			t.Fatal(err)
		}
		req.ContentLength = 5
		res, err := c.Do(req)
		if err != nil {
			t.Fatalf("%s: Do = %v, want nil", name, err)
		}
		got, err := io.ReadAll(res.Body)
		res.Body.Close()
		if string(got) != "hello" || err != nil {
			t.Errorf("%s: the body arrived as %q, %v, want hello", name, got, err)
		}
		if req.Body != io.ReadCloser(body) {
			t.Errorf("%s: the caller's request was changed, want it left alone", name)
		}
	}
}

// TestConnectionsAreKept makes as many requests at a time as there are slots, in
// one round after the other. The SDK's own client keeps ten connections.
func TestConnectionsAreKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // where time stands still while a connection is waited for, and none is given up
		for name, c := range clients(t) {
			var opened atomic.Int64
			var round sync.WaitGroup // nobody is answered before everybody has asked
			srv := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
				round.Done()
				round.Wait()
			}))
			srv.Config.ConnState = func(_ net.Conn, state http.ConnState) {
				if state == http.StateNew {
					opened.Add(1)
				}
			}
			srv.Start()
			for range 4 {
				round.Add(slots)
				var asking sync.WaitGroup
				for range slots {
					asking.Go(func() { get(t, c, srv.URL) })
				}
				asking.Wait()
			}
			// A connection that comes back a moment late is made up for by a new one.
			if n := opened.Load(); n > slots+slots/4 {
				t.Errorf("%s: %d connections for 4 rounds of %d requests, want those of the first", name, n, slots)
			}
			srv.Close()
		}
	})
}

func get(t *testing.T, c aws.HTTPClient, url string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Error(err)
		return
	}
	res, err := c.Do(req)
	if err != nil {
		t.Error(err)
		return
	}
	_, _ = io.Copy(io.Discard, res.Body)
	res.Body.Close()
}

// TestNothingIsStranded receives and deletes tens of thousands of messages over
// real connections, and wants each on its first delivery: a message whose answer
// is lost on the way stays hidden, and nobody would know for minutes.
func TestNothingIsStranded(t *testing.T) {
	if testing.Short() {
		t.Skip("moves 40,000 messages")
	}
	q := newQueue(t, awsconf.Client(slots))
	q.fill(t)
	start := time.Now()
	q.empty(t)
	st := q.sim.Stats()
	if n := st.Queues["jobs"]; n.Received != strandable || n.Deleted != strandable || n.InFlight+n.Visible != 0 {
		t.Errorf("%+v, want each of %d messages received once and deleted", n, strandable)
	}
	// One request for ten messages, and a few that found fewer.
	if n := st.Requests["ReceiveMessage"]; n > strandable/10*11/10 {
		t.Errorf("%d requests to receive %d messages, want about a tenth as many", n, strandable)
	}
	if c := q.connections.Load(); c > slots {
		t.Errorf("%d connections, want at most the %d that are kept", c, slots)
	}
	t.Logf("received and deleted %d messages in %v", strandable, time.Since(start).Round(time.Millisecond))
}

// TestPlainClientStrands shows the fault that the package is there for, where
// this machine shows it at all.
func TestPlainClientStrands(t *testing.T) {
	if testing.Short() {
		t.Skip("moves 40,000 messages")
	}
	q := newQueue(t, awshttp.NewBuildableClient())
	q.fill(t)
	q.empty(t)
	st := q.sim.Stats().Queues["jobs"]
	t.Logf("%d messages stranded, %d connections", st.InFlight, q.connections.Load())
	if st.InFlight == 0 {
		t.Skip("none stranded here: the fault depends on timing")
	}
}

// A queue is a simulated queue over real connections.
type queue struct {
	sim         *sqssim.Server
	queue       *sqsqueue.Queue
	connections atomic.Int64
}

func newQueue(t *testing.T, client aws.HTTPClient) *queue {
	t.Helper()
	q := &queue{sim: sqssim.New(sqssim.Config{})}
	srv := httptest.NewUnstartedServer(q.sim)
	srv.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			q.connections.Add(1)
		}
	}
	srv.Start()
	t.Cleanup(srv.Close)
	cfg := aws.Config{Region: "us-east-1", HTTPClient: client, Credentials: credentials.NewStaticCredentialsProvider("id", "secret", "")}
	c := sqsqueue.NewClient(cfg, func(o *sqs.Options) { o.BaseEndpoint = &srv.URL })
	if _, err := c.CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: new("jobs")}); err != nil {
		t.Fatal(err)
	}
	var err error
	if q.queue, err = sqsqueue.Open(t.Context(), c, sqsqueue.Config{Queue: "jobs", Dead: "jobs", Poll: time.Second}); err != nil {
		t.Fatal(err)
	}
	return q
}

// fill queues the messages, of some 2 KB each.
func (q *queue) fill(t *testing.T) {
	t.Helper()
	text := strings.Repeat("All of the parties agree. ", 80)
	var sending sync.WaitGroup
	for part := range receivers {
		sending.Go(func() {
			var out []sqsqueue.Outgoing
			for i := range strandable / receivers {
				out = append(out, sqsqueue.Outgoing{Body: fmt.Appendf(nil, "%d.%d %s", part, i, text)})
			}
			if err := q.queue.Send(t.Context(), out); err != nil {
				t.Errorf("Send = %v, want nil", err)
			}
		})
	}
	sending.Wait()
	// A message whose sending was in doubt is there twice.
	if n := q.sim.Stats().Queues["jobs"].Sent; n < strandable {
		t.Fatalf("%d messages sent, want %d", n, strandable)
	}
}

// empty receives and deletes messages until there is none to be received.
func (q *queue) empty(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), enough)
	defer cancel()
	var receiving, deleting sync.WaitGroup
	for range receivers {
		receiving.Go(func() {
			for q.sim.Stats().Queues["jobs"].Visible > 0 {
				ms, err := q.queue.Receive(ctx, 10, hidden)
				if err != nil {
					t.Errorf("Receive = %v, want nil", err)
					return
				}
				for _, m := range ms {
					if m.Receives != 1 {
						t.Errorf("message %s: delivery %d, want the first", m.ID, m.Receives)
					}
					deleting.Go(func() { q.ack(ctx, t, m) })
				}
			}
		})
	}
	receiving.Wait()
	deleting.Wait()
}

func (q *queue) ack(ctx context.Context, t *testing.T, m jobs.Message) {
	t.Helper()
	if err := q.queue.Ack(ctx, m); err != nil {
		t.Errorf("Ack(%s) = %v, want nil", m.ID, err)
	}
}

// TestNoCredentials has everything that needs credentials say what to do where there are
// none, and the SDK say nothing on standard error.
func TestNoCredentials(t *testing.T) {
	none := filepath.Join(t.TempDir(), "none")
	for name, value := range map[string]string{
		"AWS_REGION": "us-east-1", "AWS_CONFIG_FILE": none, "AWS_SHARED_CREDENTIALS_FILE": none, "AWS_PROFILE": "",
		"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_EC2_METADATA_DISABLED": "",
	} {
		t.Setenv(name, value)
	}
	// An instance without a role, as the SDK asks it.
	imds := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }))
	defer imds.Close()
	t.Setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", imds.URL)

	var log bytes.Buffer
	cfg, err := awsconf.Load(t.Context(), awsconf.Options{Log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	if err != nil {
		t.Fatal(err)
	}
	_, err = sqs.NewFromConfig(cfg).ListQueues(t.Context(), nil)
	const want = "no AWS credentials: no EC2 IMDS role found: set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give the task or instance a role"
	if err == nil || !strings.HasSuffix(err.Error(), want) {
		t.Errorf("ListQueues = %v, want an error that ends in %q", err, want)
	}
	if got := log.String(); !strings.Contains(got, "level=DEBUG") || !strings.Contains(got, "IMDSv1") {
		t.Errorf("the log has %q, want at level debug that the SDK falls back to IMDSv1", got)
	}

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var lack *awsconf.CredentialsError
	if _, err := cfg.Credentials.Retrieve(ctx); err == nil || errors.As(err, &lack) {
		t.Errorf("Retrieve = %v when nobody waits any more, want that", err)
	}

	_, err = awsconf.Load(t.Context(), awsconf.Options{Profile: "lwa"})
	if !errors.As(err, &lack) || lack.Help != "correct --profile or AWS_PROFILE: aws configure list-profiles" {
		t.Errorf("Load = %v of a profile that there is not, want what to correct", err)
	}
}

func TestAdvice(t *testing.T) {
	for text, want := range map[string]string{
		"refresh cached SSO token failed": "aws sso login --profile law",
		"the SSO session is invalid":      "aws sso login --profile law",
		"ExpiredToken: token has expired": "aws sso login --profile law",

		"no role is associated with the instance": "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give the task or instance a role",
	} {
		if got := awsconf.Advice(errors.New(text), "law"); got != want {
			t.Errorf("Advice(%q) = %q, want %q", text, got, want)
		}
	}
	if got := awsconf.Advice(errors.New("SSO"), ""); !strings.HasSuffix(got, " NAME") {
		t.Errorf("Advice without a profile = %q, want that one is to be named", got)
	}
}
