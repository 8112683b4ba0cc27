package opener_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"upwell/cmd/internal/opener"
	"upwell/jobs"
	"upwell/jobs/sqsqueue"
	"upwell/jobs/sqsqueue/sqssim"
	"upwell/sink"
	"upwell/sink/s3sink"
	"upwell/throttle"
	"upwell/worker"
	"upwell/worker/workertest"
)

// A system is real workers between the simulators of SQS and S3 and an endpoint that
// keeps books. It belongs in a bubble.
type system struct {
	*world

	queues   *sqssim.Server
	fault    atomic.Pointer[func(op string, c sqssim.Call) sqssim.Fault]
	endpoint *workertest.Endpoint
}

func newSystem(t *testing.T) *system {
	t.Helper()
	s := &system{world: newWorld(t), endpoint: &workertest.Endpoint{Func: workertest.After(time.Second)}}
	s.template()
	s.readFrom("s3://inbox")
	s.queues = sqssim.New(sqssim.Config{Latency: 10 * time.Millisecond, Fault: func(op string, c sqssim.Call) sqssim.Fault {
		if f := s.fault.Load(); f != nil {
			return (*f)(op, c)
		}
		return sqssim.Fault{}
	}})
	client := s.client(s.queues)
	for name, attrs := range map[string]map[string]string{"dead": nil, "jobs": nil} {
		if _, err := client.CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: &name, Attributes: attrs}); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func (s *system) client(rt http.RoundTripper) *sqs.Client {
	return sqsqueue.NewClient(aws.Config{
		Region: "us-east-1", Credentials: credentials.NewStaticCredentialsProvider("id", "secret", ""),
		HTTPClient: &http.Client{Transport: rt}, BaseEndpoint: new("http://sqs.test"),
	})
}

// post queues messages with an attribute of their sender's.
func (s *system) post(bodies ...string) {
	s.t.Helper()
	for _, body := range bodies {
		_, err := s.client(s.queues).SendMessage(s.t.Context(), &sqs.SendMessageInput{
			QueueUrl: new("http://sqs.test/000000000000/jobs"), MessageBody: &body,
			MessageAttributes: map[string]types.MessageAttributeValue{"ExtendedPayloadSize": {DataType: new("Number"), StringValue: new("300000")}},
		})
		if err != nil {
			s.t.Fatal(err)
		}
	}
}

// A plug is a connection that can be pulled.
type plug struct {
	http.RoundTripper

	pulled atomic.Bool
}

func (p *plug) RoundTrip(r *http.Request) (*http.Response, error) {
	if p.pulled.Load() {
		return nil, fmt.Errorf("%s: the plug is pulled", r.URL.Host)
	}
	res, err := p.RoundTripper.RoundTrip(r)
	if p.pulled.Load() {
		return nil, fmt.Errorf("%s: the plug was pulled", r.URL.Host)
	}
	return res, err
}

// work runs a worker until the queue is empty, or ctx is done.
func (s *system) work(ctx context.Context, queues http.RoundTripper) {
	s.t.Helper()
	q, err := sqsqueue.Open(ctx, s.client(queues), sqsqueue.Config{Queue: "jobs", Dead: "dead", Poll: 2 * time.Second})
	if err != nil {
		s.t.Fatal(err)
	}
	limits := throttle.NewSet(func(throttle.Lane) throttle.Config { return throttle.Config{StartRate: 1000} })
	w, err := worker.New(q, s.endpoint, s3sink.New(s.cfg.Client, "results", "team"), limits, worker.Config{
		Regions: []string{"here"}, Run: "nightly", ExitWhenEmpty: true, Drain: time.Second, Opener: opener.New(s.cfg),
	})
	if err != nil {
		s.t.Fatal(err)
	}
	if err := w.Run(ctx); err != nil {
		s.t.Errorf("Run = %v, want nil", err)
	}
}

// done checks that the jobs of these names have results, which were paid for once, and
// that nothing is left in either queue.
func (s *system) done(names ...string) {
	s.t.Helper()
	results := s3sink.New(s.cfg.Client, "results", "team")
	bills := s.endpoint.Accounts()
	for _, name := range names {
		k := jobs.Key{Run: "nightly", CustomID: name}
		r, err := results.Read(s.t.Context(), sink.Results, k)
		if err != nil || r.Upwell.OutputText != "answer to "+name || bills[k].Calls != 1 {
			s.t.Errorf("%s: answer %q, %v, after %d calls, want one after one", name, r.Upwell.OutputText, err, bills[k].Calls)
		}
	}
	for _, queue := range []string{"jobs", "dead"} {
		for _, m := range s.queues.Messages(queue) {
			s.t.Errorf("left in %s is %.200s, for %q", queue, m.Body, m.Attributes["upwell.reason"].StringValue)
		}
	}
	if n := len(bills); n != len(names) {
		s.t.Errorf("%d jobs were called for, want %d", n, len(names))
	}
}

// TestDeliveredTwice has the first worker's acknowledgements lost, and then the worker.
// What has an answer is found, whatever its message looks like.
func TestDeliveredTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		s.cfg.DeletePayloads = true
		line := func(id string) []byte { return []byte(strings.Replace(job, `"a"`, `"`+id+`"`, 1)) }
		s.put("inbox", "p/1", line("one"))
		s.put("results", "team/runs/nightly/bodies/aa/two.json", line("two"))
		s.put("inbox", "three.txt", []byte("a contract"))
		s.post(pointer("inbox", "p/1"), strings.Replace(strings.Replace(reference("s3://results/team/runs/nightly/bodies/aa/two.json"), `"a"`, `"two"`, 1), "q3", "nightly", 1),
			event("inbox", "three.txt", ""), string(line("four")))
		s.fault.Store(new(func(op string, _ sqssim.Call) sqssim.Fault {
			if op == "DeleteMessageBatch" {
				return sqssim.Fault{Err: &sqssim.Error{Code: "ServiceUnavailable", Status: 503}}
			}
			return sqssim.Fault{}
		}))
		first := &plug{RoundTripper: s.queues}
		dying, die := context.WithCancel(t.Context())
		time.AfterFunc(time.Minute, func() { first.pulled.Store(true); die() })
		s.work(dying, first)
		if n := len(s.queues.Messages("jobs")); n != 4 {
			t.Errorf("%d messages are queued at the kill, want all 4", n)
		}
		s.fault.Store(nil)
		s.work(t.Context(), s.queues)
		s.done("one", "two", "s3://inbox/three.txt", "four")
	})
}

// TestKilledBetweenSplitAndAck kills a worker that has queued the parts of an event,
// before it is told so.
func TestKilledBetweenSplitAndAck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		var names, records []string
		for i := range 10 { // as many as one request takes
			key := fmt.Sprintf("docs/%02d.txt", i)
			s.put("inbox", key, []byte("contract "+key))
			records = append(records, record(event("inbox", key, "")))
			names = append(names, "s3://inbox/"+key)
		}
		whole := `{"Records":[` + strings.Join(records, ",") + `]}`
		s.post(whole)
		first := &plug{RoundTripper: s.queues}
		dying, die := context.WithCancel(t.Context())
		var once sync.Once
		s.fault.Store(new(func(op string, _ sqssim.Call) sqssim.Fault {
			if op != "SendMessageBatch" {
				return sqssim.Fault{}
			}
			once.Do(func() { first.pulled.Store(true); die() })
			return sqssim.Fault{Apply: true, Drop: true}
		}))
		s.work(dying, first)
		s.fault.Store(nil)
		queued := s.queues.Messages("jobs")
		if len(queued) != 11 || !slices.ContainsFunc(queued, func(m sqssim.Message) bool { return m.Body == whole }) {
			t.Errorf("%d messages are queued at the kill, want the parts, and the event that they come from", len(queued))
		}
		for _, m := range queued {
			if a := m.Attributes; m.Body != whole && (a["ExtendedPayloadSize"].StringValue != "300000" || a["upwell.again"].StringValue == "") {
				t.Errorf("the part %.80s has the attributes %v, want those of the whole, and marked", m.Body, a)
			}
		}
		s.work(t.Context(), s.queues)
		s.done(names...)
		if got := s.queues.Stats().Queues["jobs"].Sent; got < 21 {
			t.Errorf("%d messages were ever sent, want the event, its parts, and those once more", got)
		}
	})
}

// TestReleasedAsItCame has S3 refuse to be read from for a while: the message goes
// back and forth with its attributes, and nothing is lost.
func TestReleasedAsItCame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		s.put("inbox", "p/1", []byte(job))
		s.post(pointer("inbox", "p/1"))
		until := time.Now().Add(20 * time.Minute)
		s.instead = func(r *http.Request) (string, string) {
			if strings.Contains(r.URL.Path, "/inbox/") && time.Now().Before(until) {
				return "403", "AccessDenied"
			}
			return "", ""
		}
		time.AfterFunc(15*time.Minute, func() {
			for _, m := range s.queues.Messages("jobs") {
				if m.Body != pointer("inbox", "p/1") || m.Attributes["ExtendedPayloadSize"].StringValue != "300000" {
					t.Errorf("the message has become %s with %v, want it as it came", m.Body, m.Attributes)
				}
			}
		})
		s.work(t.Context(), s.queues)
		s.done("a")
		if time.Now().Before(until) {
			t.Error("done before S3 could be read")
		}
	})
}
