package dead_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/google/go-cmp/cmp"

	"upwell/cmd/internal/dead"
	"upwell/jobs"
	"upwell/jobs/sqsqueue"
	"upwell/jobs/sqsqueue/sqssim"
	"upwell/throttle"
	"upwell/worker"
	"upwell/worker/workertest"
)

// A world is a worker's: queues, an endpoint whose answers end at the limit that a
// job sets, and a sink.
type world struct {
	*testing.T
	*workertest.Trial

	sqs *sqssim.Server
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{T: t, Trial: workertest.New(t), sqs: sqssim.New(sqssim.Config{Latency: 10 * time.Millisecond})}
	w.Endpoint.Func = func(_ context.Context, c worker.Call) (worker.Answer, error) {
		a := workertest.Answer(c)
		if strings.Contains(string(c.Job.Body), `"max_output_tokens":1}`) {
			return worker.Answer{}, &worker.Error{Kind: worker.Permanent, Class: jobs.Truncated, Status: 200, Answer: &a, Err: errors.New("too long")}
		}
		return a, nil
	}
	client := newClient(w.sqs)
	w.create(client, "dead", nil)
	w.create(client, "jobs", map[string]string{"RedrivePolicy": `{"deadLetterTargetArn":"arn:aws:sqs:us-east-1:000000000000:dead","maxReceiveCount":100}`})
	return w
}

func (w *world) create(client *sqs.Client, name string, attrs map[string]string) {
	w.Helper()
	if _, err := client.CreateQueue(w.Context(), &sqs.CreateQueueInput{QueueName: &name, Attributes: attrs}); err != nil {
		w.Fatal(err)
	}
}

func newClient(rt http.RoundTripper) *sqs.Client {
	return sqsqueue.NewClient(aws.Config{
		Region: "us-east-1", Credentials: credentials.NewStaticCredentialsProvider("id", "secret", ""),
		HTTPClient: &http.Client{Transport: rt}, BaseEndpoint: new("http://sqs.test"),
	})
}

func (w *world) open(rt http.RoundTripper) *sqsqueue.Queue {
	w.Helper()
	q, err := sqsqueue.Open(w.Context(), newClient(rt), sqsqueue.Config{Queue: "jobs", Poll: 2 * time.Second})
	if err != nil {
		w.Fatal(err)
	}
	return q
}

// submit queues jobs whose answers will be truncated.
func (w *world) submit(n int) (ids []string) {
	w.Helper()
	var out []sqsqueue.Outgoing
	for i := range n {
		ids = append(ids, fmt.Sprintf("job-%02d", i))
		out = append(out, sqsqueue.Outgoing{Body: fmt.Appendf(nil, `{"custom_id":%q,"url":"/v1/responses","body":{"model":"m","input":"hi","max_output_tokens":1}}`, ids[i])})
	}
	if err := w.open(w.sqs).Send(w.Context(), out); err != nil {
		w.Fatal(err)
	}
	return ids
}

// work runs a worker until the queue is empty.
func (w *world) work() {
	w.Helper()
	limits := throttle.NewSet(func(throttle.Lane) throttle.Config { return throttle.Config{StartRate: 1000} })
	wk, err := worker.New(w.open(w.sqs), w.Endpoint, w.Sink, limits, worker.Config{Regions: []string{"here"}, Run: "default", ExitWhenEmpty: true})
	if err != nil {
		w.Fatal(err)
	}
	if err := wk.Run(w.Context()); err != nil {
		w.Errorf("Run = %v, want nil", err)
	}
}

func plan(t *testing.T, where, set string) *dead.Plan {
	t.Helper()
	f, err := dead.ParseFilter(strings.Fields(where))
	if err != nil {
		t.Fatal(err)
	}
	c, err := dead.ParseChange(strings.Fields(set))
	if err != nil {
		t.Fatal(err)
	}
	return &dead.Plan{Filter: f, Change: c}
}

func (w *world) redrive(p *dead.Plan) dead.Summary {
	w.Helper()
	r := &dead.Redriver{Queue: w.open(w.sqs), Plan: p}
	sum, err := r.Run(w.Context())
	if err != nil {
		w.Errorf("redrive = %v, want nil", err)
	}
	return sum
}

// wantDone checks that each job has one result, which was paid for once, beside the
// call that ended it before.
func (w *world) wantDone(name string, ids []string) {
	w.Helper()
	results, bills := w.Sink.Results(), w.Endpoint.Accounts()
	for _, id := range ids {
		k := jobs.Key{Run: "default", CustomID: id}
		if _, ok := results[k]; !ok || bills[k].Billed != 2 {
			w.Errorf("%s: %s has a result: %v, and was billed %d calls, want one and 2: the truncated one and the other", name, id, ok, bills[k].Billed)
		}
	}
	for _, q := range []string{"jobs", "dead"} {
		if n := len(w.sqs.Messages(q)); n != 0 || len(results) != len(ids) {
			w.Errorf("%s: %d messages in %s and %d results, want none and %d", name, n, q, len(results), len(ids))
		}
	}
}

// Wherever a redrive is killed, and whether or not a worker comes between it and the
// next one, in the end each job has one result that was paid for once.
func TestRedriveIsSafe(t *testing.T) {
	for _, between := range []bool{false, true} {
		for _, applied := range []bool{false, true} {
			came := true
			for kill := 1; came; kill++ {
				name := fmt.Sprintf("worker between %v, applied %v, killed at request %d", between, applied, kill)
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t)
					ids := w.submit(23)
					w.work()
					p := plan(t, "class=truncated", "max_output_tokens=8000")
					came = w.killedRedrive(p, kill, applied)
					if between {
						w.work()
					}
					time.Sleep(5 * time.Minute) // what the dead one hid
					w.redrive(p)
					w.work()
					w.wantDone(name, ids)
				})
			}
		}
	}
}

// A mortal is a client that dies at its request of that number, before or after it
// has taken effect.
type mortal struct {
	http.RoundTripper

	at      int
	applied bool
	die     func()

	mu sync.Mutex
	n  int
}

func (m *mortal) RoundTrip(r *http.Request) (*http.Response, error) {
	m.mu.Lock()
	m.n++
	n := m.n
	m.mu.Unlock()
	if n < m.at {
		return m.RoundTripper.RoundTrip(r)
	}
	m.die()
	if n == m.at && m.applied {
		// Its context may have ended with the client, and the request was under way.
		if res, err := m.RoundTripper.RoundTrip(r.WithContext(context.WithoutCancel(r.Context()))); err == nil {
			_ = res.Body.Close()
		}
	}
	return nil, io.ErrUnexpectedEOF
}

func (w *world) killedRedrive(p *dead.Plan, at int, applied bool) (came bool) {
	ctx, die := context.WithCancel(w.Context())
	defer die()
	m := &mortal{RoundTripper: w.sqs, at: 1 << 30, applied: applied, die: die}
	r := &dead.Redriver{Queue: w.open(m), Plan: p}
	m.at = m.n + at
	_, _ = r.Run(ctx)
	return m.n >= m.at
}

func TestRedriver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		ids := w.submit(40)
		w.work()
		w.bury(`{"custom_id":"broken"`, jobs.DeadLetter{Key: jobs.Key{Run: "default"}, Class: jobs.BadJob})
		w.bury(`{"custom_id":"late","url":"/v1/responses","body":{"model":"m"},"upwell":{"deadline":"1999-01-01T00:00:00Z"}}`, jobs.DeadLetter{Class: jobs.Expired})

		p := plan(t, "", "max_output_tokens=8000")
		var told []int
		r := &dead.Redriver{Queue: w.open(w.sqs), Plan: plan(t, "class=truncated", "max_output_tokens=8000"), Limit: 15, Progress: func(n int) { told = append(told, n) }}
		sum, err := r.Run(t.Context())
		if diff := cmp.Diff(dead.Counts{jobs.Truncated: 15}, sum.Sent); diff != "" || err != nil || sum.Left != 0 || sum.Elsewhere != 0 || len(told) == 0 || told[len(told)-1] != 15 {
			t.Errorf("redriven %v of at most 15, left %d, survey %+v, told %v, %v", sum.Sent, sum.Left, sum.Survey, told, err)
		}
		sum = w.redrive(p)
		if diff := cmp.Diff(dead.Counts{jobs.Truncated: 25}, sum.Sent); diff != "" || sum.Left != 2 || len(sum.Reasons) != 2 || sum.Letters != 27 {
			t.Errorf("redriven %v of %d, left %v, want 25 truncated of 27, and 2 left", sum.Sent, sum.Letters, sum.Reasons)
		}
		for _, l := range sum.Reasons {
			if l.Why == nil || l.Letter.Body != nil {
				t.Errorf("%s is left for %v with a body of %d bytes, want a reason and no body", l.Letter.CustomID, l.Why, len(l.Letter.Body))
			}
		}
		w.work()
		if n := len(w.sqs.Messages("dead")); n != 2 {
			t.Errorf("%d letters, want the 2 that were left", n)
		}
		if got := len(w.Sink.Results()); got != len(ids) {
			t.Errorf("%d results, want %d", got, len(ids))
		}
	})
}

func (w *world) bury(body string, l jobs.DeadLetter) {
	w.Helper()
	if err := w.open(w.sqs).Bury(w.Context(), jobs.Message{Body: []byte(body)}, l); err != nil {
		w.Fatal(err)
	}
}

// A letter that would not fit beside the attributes that others gave it is left.
func TestRedriveWithoutRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		head, tail, origin := `{"custom_id":"a","url":"/v1/responses","body":{"model":"m","input":"`, `"}}`, strings.Repeat("t", 500)
		text := head + strings.Repeat("x", sqsqueue.MaxMessage-len(head+tail+"origin"+"String"+origin)) + tail
		_, err := newClient(w.sqs).SendMessage(t.Context(), &sqs.SendMessageInput{
			QueueUrl: new("http://sqs.test/000000000000/dead"), MessageBody: &text,
			MessageAttributes: map[string]types.MessageAttributeValue{"origin": {DataType: new("String"), StringValue: &origin}},
		})
		if err != nil {
			t.Fatal(err)
		}
		sum := w.redrive(plan(t, "", ""))
		if sum.Left != 1 || !strings.Contains(fmt.Sprint(sum.Reasons[0].Why), "SQS takes at most") {
			t.Errorf("redriven %v, left %v, want it left for its size", sum.Sent, sum.Reasons)
		}
	})
}

// A job that fails again while letters are redriven is not redriven once more: that
// would never end.
func TestRedriveOfWhatFailsAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.submit(30)
		w.work()
		limits := throttle.NewSet(nil)
		wk, err := worker.New(w.open(w.sqs), w.Endpoint, w.Sink, limits, worker.Config{Regions: []string{"here"}, Run: "default"})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		var working sync.WaitGroup
		working.Go(func() { _ = wk.Run(ctx) })
		sum := w.redrive(plan(t, "", ""))
		if sum.Sent.Total() < 30 || sum.Sent.Total() > 60 {
			t.Errorf("redriven %d, want 30, or little more", sum.Sent.Total())
		}
		time.Sleep(time.Minute)
		stop()
		working.Wait()
		if n := len(w.sqs.Messages("dead")); n != 30 {
			t.Errorf("%d letters, want all 30 back", n)
		}
	})
}
