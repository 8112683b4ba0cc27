package sqssim_test

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/aws/smithy-go"
	"github.com/google/go-cmp/cmp"

	"upwell/jobs/sqsqueue/sqssim"
)

// A world is a server and the SDK's client of it.
type world struct {
	*testing.T
	*sqssim.Server
	c *sqs.Client
}

func newWorld(t *testing.T, cfg sqssim.Config) *world {
	t.Helper()
	s := sqssim.New(cfg)
	return &world{t, s, newClient("http://sqs.test", s)}
}

// newClient returns a client that does not retry.
func newClient(endpoint string, rt http.RoundTripper) *sqs.Client {
	return sqs.New(sqs.Options{
		Region:       "us-east-1",
		BaseEndpoint: new(endpoint),
		Credentials:  credentials.NewStaticCredentialsProvider("id", "secret", ""),
		HTTPClient:   &http.Client{Transport: rt},
		Retryer:      aws.NopRetryer{},
	})
}

// virtual runs f in a synctest bubble.
func virtual(t *testing.T, cfg sqssim.Config, f func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { f(t, newWorld(t, cfg)) })
}

type attrs = map[string]string

func (w *world) create(name string, a attrs) (url string) {
	w.Helper()
	out, err := w.c.CreateQueue(w.Context(), &sqs.CreateQueueInput{QueueName: &name, Attributes: a})
	if err != nil {
		w.Fatal(err)
	}
	return *out.QueueUrl
}

func (w *world) send(url string, bodies ...string) {
	w.Helper()
	for _, b := range bodies {
		if _, err := w.c.SendMessage(w.Context(), &sqs.SendMessageInput{QueueUrl: &url, MessageBody: &b}); err != nil {
			w.Fatal(err)
		}
	}
}

type receiveOption func(*sqs.ReceiveMessageInput)

func upTo(n int32) receiveOption {
	return func(in *sqs.ReceiveMessageInput) { in.MaxNumberOfMessages = n }
}

func wait(n int32) receiveOption { return func(in *sqs.ReceiveMessageInput) { in.WaitTimeSeconds = n } }

func hide(n int32) receiveOption {
	return func(in *sqs.ReceiveMessageInput) { in.VisibilityTimeout = n }
}

// receive takes messages with all of their attributes.
func (w *world) receive(url string, opts ...receiveOption) []types.Message {
	w.Helper()
	in := &sqs.ReceiveMessageInput{
		QueueUrl:                    &url,
		MessageAttributeNames:       []string{"All"},
		MessageSystemAttributeNames: []types.MessageSystemAttributeName{"All"},
	}
	for _, o := range opts {
		o(in)
	}
	out, err := w.c.ReceiveMessage(w.Context(), in)
	if err != nil {
		w.Fatal(err)
	}
	return out.Messages
}

// one receives exactly one message.
func (w *world) one(url string, opts ...receiveOption) types.Message {
	w.Helper()
	ms := w.receive(url, opts...)
	if len(ms) != 1 {
		w.Fatalf("received %d messages, want 1", len(ms))
	}
	return ms[0]
}

func (w *world) none(url string, opts ...receiveOption) {
	w.Helper()
	if ms := w.receive(url, opts...); len(ms) != 0 {
		w.Fatalf("received %q, want nothing", bodies(ms))
	}
}

func (w *world) delete(url string, receipt *string) error {
	_, err := w.c.DeleteMessage(w.Context(), &sqs.DeleteMessageInput{QueueUrl: &url, ReceiptHandle: receipt})
	return err
}

func (w *world) change(url string, receipt *string, seconds int32) error {
	_, err := w.c.ChangeMessageVisibility(w.Context(), &sqs.ChangeMessageVisibilityInput{
		QueueUrl: &url, ReceiptHandle: receipt, VisibilityTimeout: seconds,
	})
	return err
}

func (w *world) attributes(url string, names ...types.QueueAttributeName) attrs {
	w.Helper()
	out, err := w.c.GetQueueAttributes(w.Context(), &sqs.GetQueueAttributesInput{QueueUrl: &url, AttributeNames: names})
	if err != nil {
		w.Fatal(err)
	}
	return out.Attributes
}

func (w *world) set(url string, a attrs) error {
	_, err := w.c.SetQueueAttributes(w.Context(), &sqs.SetQueueAttributesInput{QueueUrl: &url, Attributes: a})
	return err
}

func (w *world) check(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// balance checks that no message of any queue is unaccounted for.
func (w *world) balance() {
	w.Helper()
	for name, q := range w.Stats().Queues {
		live := q.Visible + q.Delayed + q.InFlight
		if q.Sent+q.In != live+q.Deleted+q.Expired+q.Purged+q.Out {
			w.Errorf("queue %s does not balance: %+v", name, q)
		}
		if n := len(w.Messages(name)); n != live {
			w.Errorf("queue %s has %d messages, want %d", name, n, live)
		}
	}
}

func bodies(ms []types.Message) []string {
	var out []string
	for _, m := range ms {
		out = append(out, *m.Body)
	}
	return out
}

// wantCode checks the code of an API error.
func wantCode(t *testing.T, err error, code string) {
	t.Helper()
	e, ok := errors.AsType[smithy.APIError](err)
	if !ok || e.ErrorCode() != code {
		t.Errorf("error is %v, want code %s", err, code)
	}
}

// wantType checks that the SDK recognised the error as an E.
func wantType[E error](t *testing.T, err error) {
	t.Helper()
	if _, ok := errors.AsType[E](err); !ok {
		var e E
		t.Errorf("error is %T: %v, want %T", err, err, e)
	}
}

const arn = "arn:aws:sqs:us-east-1:000000000000:"

func TestVisibility(t *testing.T) {
	virtual(t, sqssim.Config{}, func(t *testing.T, w *world) {
		q := w.create("q", nil)
		sent := time.Now()
		w.send(q, "a")
		time.Sleep(1500 * time.Millisecond)

		m := w.one(q)
		first := sent.Add(1500 * time.Millisecond).UnixMilli()
		want := attrs{
			"ApproximateFirstReceiveTimestamp": strconv.FormatInt(first, 10),
			"ApproximateReceiveCount":          "1",
			"SenderId":                         m.Attributes["SenderId"],
			"SentTimestamp":                    strconv.FormatInt(sent.UnixMilli(), 10),
		}
		if diff := cmp.Diff(want, m.Attributes); diff != "" {
			t.Errorf("attributes (-want +got):\n%s", diff)
		}

		time.Sleep(30*time.Second - time.Nanosecond)
		w.none(q)
		time.Sleep(time.Nanosecond)
		again := w.one(q, hide(5))
		if got := again.Attributes["ApproximateReceiveCount"]; got != "2" {
			t.Errorf("received %s times, want 2", got)
		}
		if got := again.Attributes["ApproximateFirstReceiveTimestamp"]; got != strconv.FormatInt(first, 10) {
			t.Errorf("first received at %s, want %d", got, first)
		}
		if *again.ReceiptHandle == *m.ReceiptHandle {
			t.Error("two receives have the same receipt")
		}
		time.Sleep(5 * time.Second)
		last := w.one(q)
		w.check(w.delete(q, last.ReceiptHandle))
		w.check(w.delete(q, last.ReceiptHandle))
		time.Sleep(time.Hour)
		w.none(q)
		if got := w.Stats().Queues["q"]; got != (sqssim.QueueStats{Sent: 1, Received: 3, Deleted: 1}) {
			t.Errorf("Stats = %+v", got)
		}
		w.balance()
	})
}

func TestChangeVisibility(t *testing.T) {
	virtual(t, sqssim.Config{}, func(t *testing.T, w *world) {
		q := w.create("q", nil)
		w.send(q, "a")
		m := w.one(q)
		for range 10 { // a heartbeat
			time.Sleep(29 * time.Second)
			w.check(w.change(q, m.ReceiptHandle, 30))
		}
		time.Sleep(29 * time.Second)
		w.none(q)
		w.check(w.change(q, m.ReceiptHandle, 0))
		m = w.one(q)

		// The new timeout counts from now, shorter or longer.
		w.check(w.change(q, m.ReceiptHandle, 10))
		time.Sleep(10 * time.Second)
		m = w.one(q)

		// The next receive has the queue's timeout again.
		time.Sleep(30*time.Second - time.Nanosecond)
		w.none(q)
		w.check(w.delete(q, w.one(q, wait(1)).ReceiptHandle))
		wantCode(t, w.change(q, m.ReceiptHandle, 1), "InvalidParameterValue")
	})
}

func TestTwelveHours(t *testing.T) {
	virtual(t, sqssim.Config{}, func(t *testing.T, w *world) {
		q := w.create("q", nil)
		w.send(q, "a")
		m := w.one(q)
		w.check(w.change(q, m.ReceiptHandle, 43200))
		time.Sleep(time.Second)
		err := w.change(q, m.ReceiptHandle, 43200)
		wantCode(t, err, "InvalidParameterValue")
		if !strings.Contains(err.Error(), "Total VisibilityTimeout for the message is beyond the limit [43200 seconds]") {
			t.Errorf("text is %v", err)
		}
		w.check(w.change(q, m.ReceiptHandle, 43199))

		// A refused extension leaves the timeout as it was.
		time.Sleep(6 * time.Hour)
		wantCode(t, w.change(q, m.ReceiptHandle, 6*3600), "InvalidParameterValue")
		time.Sleep(6*time.Hour - time.Second - time.Nanosecond)
		w.none(q)
		time.Sleep(time.Nanosecond)

		// The next receive begins twelve hours of its own.
		m = w.one(q)
		w.check(w.change(q, m.ReceiptHandle, 43200))
	})
}

func TestStaleReceipts(t *testing.T) {
	for _, lenient := range []bool{false, true} {
		t.Run("lenient="+strconv.FormatBool(lenient), func(t *testing.T) {
			virtual(t, sqssim.Config{LenientReceipts: lenient}, func(t *testing.T, w *world) {
				q := w.create("q", nil)
				w.send(q, "a")
				old := w.one(q, hide(10))
				time.Sleep(10 * time.Second)

				// The timeout has passed and nobody else has the message.
				err := w.change(q, old.ReceiptHandle, 100)
				if lenient {
					w.check(err)
				} else {
					wantType[*types.MessageNotInflight](t, err)
				}
				m := w.one(q, hide(10)) // still visible either way

				// Somebody else has it.
				w.check(w.delete(q, old.ReceiptHandle))
				wantCode(t, w.change(q, old.ReceiptHandle, 0), "InvalidParameterValue")
				if n := len(w.Messages("q")); n != 1 {
					t.Fatalf("%d messages after a delete with an old receipt, want 1", n)
				}

				time.Sleep(10 * time.Second)
				w.check(w.delete(q, m.ReceiptHandle))
				left := len(w.Messages("q"))
				if want := map[bool]int{false: 1, true: 0}[lenient]; left != want {
					t.Errorf("%d messages after a delete with an expired receipt, want %d", left, want)
				}
				if !lenient {
					m = w.one(q)
					w.check(w.change(q, m.ReceiptHandle, 0))
					wantType[*types.MessageNotInflight](t, w.change(q, m.ReceiptHandle, 1))
				}
				w.balance()
			})
		})
	}
}

func TestMalformedReceipts(t *testing.T) {
	virtual(t, sqssim.Config{}, func(t *testing.T, w *world) {
		q := w.create("q", nil)
		w.send(q, "a")
		good := *w.one(q).ReceiptHandle
		other := "B"
		if good[0] == 'B' {
			other = "C"
		}
		for _, bad := range []string{"garbage", good[:len(good)-4], good[1:] + "A", other + good[1:]} {
			wantType[*types.ReceiptHandleIsInvalid](t, w.delete(q, &bad))
			wantType[*types.ReceiptHandleIsInvalid](t, w.change(q, &bad, 1))
		}
		w.check(w.delete(q, &good))
	})
}

func TestDelay(t *testing.T) {
	virtual(t, sqssim.Config{}, func(t *testing.T, w *world) {
		q := w.create("q", attrs{"DelaySeconds": "10"})
		w.send(q, "queue's delay")
		_, err := w.c.SendMessage(t.Context(), &sqs.SendMessageInput{
			QueueUrl: &q, MessageBody: new("own delay"), DelaySeconds: 900,
		})
		w.check(err)
		if got := w.attributes(q, "ApproximateNumberOfMessagesDelayed"); got["ApproximateNumberOfMessagesDelayed"] != "2" {
			t.Errorf("delayed: %v, want 2", got)
		}
		time.Sleep(10*time.Second - time.Nanosecond)
		w.none(q)
		time.Sleep(time.Nanosecond)
		w.check(w.delete(q, w.one(q, upTo(10)).ReceiptHandle))
		time.Sleep(890 * time.Second)
		w.one(q)
	})
}

func TestRetention(t *testing.T) {
	virtual(t, sqssim.Config{}, func(t *testing.T, w *world) {
		q := w.create("q", attrs{"MessageRetentionPeriod": "60"})
		w.send(q, "a", "b")
		time.Sleep(59 * time.Second)
		w.send(q, "c")
		w.one(q) // a message in flight expires as well
		time.Sleep(time.Second)
		if got := w.Stats().Queues["q"]; got.Expired != 2 || got.Visible != 1 {
			t.Errorf("Stats = %+v, want 2 expired and 1 visible", got)
		}

		// A shorter or longer retention holds for what is there.
		w.check(w.set(q, attrs{"MessageRetentionPeriod": "120"}))
		time.Sleep(60 * time.Second)
		if n := len(w.Messages("q")); n != 1 {
			t.Errorf("%d messages, want 1", n)
		}
		w.check(w.set(q, attrs{"MessageRetentionPeriod": "60"}))
		if n := len(w.Messages("q")); n != 0 {
			t.Errorf("%d messages, want 0", n)
		}
		w.balance()
	})
}

func TestLongPoll(t *testing.T) {
	tests := []struct {
		name string
		wake func(w *world, q string, held *string) // runs while a receiver waits
		want time.Duration
	}{
		{"nothing", func(*world, string, *string) {}, 20 * time.Second},
		{"send", func(w *world, q string, _ *string) {
			time.Sleep(7 * time.Second)
			w.send(q, "a")
		}, 7 * time.Second},
		{"delayed send", func(w *world, q string, _ *string) {
			time.Sleep(3 * time.Second)
			_, err := w.c.SendMessage(w.Context(), &sqs.SendMessageInput{
				QueueUrl: &q, MessageBody: new("a"), DelaySeconds: 5,
			})
			w.check(err)
		}, 8 * time.Second},
		{"release", func(w *world, q string, held *string) {
			time.Sleep(4 * time.Second)
			w.check(w.change(q, held, 0))
		}, 4 * time.Second},
		{"shortened timeout", func(w *world, q string, held *string) {
			time.Sleep(4 * time.Second)
			w.check(w.change(q, held, 5))
		}, 9 * time.Second},
		{"unrelated change", func(w *world, q string, _ *string) {
			time.Sleep(time.Second)
			w.check(w.set(q, attrs{"MessageRetentionPeriod": "86400"}))
		}, 20 * time.Second},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			virtual(t, sqssim.Config{}, func(t *testing.T, w *world) {
				q := w.create("q", nil)
				w.send(q, "held")
				held := w.one(q, hide(60)).ReceiptHandle
				start := time.Now()
				var wg sync.WaitGroup
				wg.Go(func() {
					w.receive(q, wait(20))
					if got := time.Since(start); got != tt.want {
						t.Errorf("waited %v, want %v", got, tt.want)
					}
				})
				synctest.Wait()
				if got := w.Stats().Queues["q"].Waiting; got != 1 {
					t.Errorf("%d receivers wait, want 1", got)
				}
				tt.wake(w, q, held)
				wg.Wait()
			})
		})
	}
}

func TestLongPollSeesExpiry(t *testing.T) {
	virtual(t, sqssim.Config{}, func(t *testing.T, w *world) {
		q := w.create("q", attrs{"ReceiveMessageWaitTimeSeconds": "20", "VisibilityTimeout": "12"})
		w.send(q, "a")
		start := time.Now()
		w.one(q)
		w.one(q) // waits by the queue's default until the timeout has passed
		if got := time.Since(start); got != 12*time.Second {
			t.Errorf("waited %v, want 12s", got)
		}
		w.check(w.set(q, attrs{"VisibilityTimeout": "60"}))
		time.Sleep(12 * time.Second)
		w.one(q)
		w.none(q)
		if got := time.Since(start); got != 44*time.Second {
			t.Errorf("returned after %v, want 44s", got)
		}
	})
}

func TestEveryPollerIsServed(t *testing.T) {
	virtual(t, sqssim.Config{}, func(t *testing.T, w *world) {
		q := w.create("q", nil)
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() { w.one(q, wait(20)) })
		}
		synctest.Wait()
		start := time.Now()
		for i := range 20 {
			w.send(q, strconv.Itoa(i))
		}
		wg.Wait()
		if got := time.Since(start); got != 0 {
			t.Errorf("took %v, want no time", got)
		}
		if got := w.Stats().Queues["q"]; got.InFlight != 20 || got.Waiting != 0 {
			t.Errorf("Stats = %+v, want 20 in flight and nobody waiting", got)
		}
	})
}

func TestCancelledPollTakesNothing(t *testing.T) {
	virtual(t, sqssim.Config{}, func(t *testing.T, w *world) {
		q := w.create("q", nil)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			_, err := w.c.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{QueueUrl: &q, WaitTimeSeconds: 20})
			if !errors.Is(err, context.Canceled) {
				t.Errorf("ReceiveMessage = %v, want %v", err, context.Canceled)
			}
		})
		synctest.Wait()
		cancel()
		w.send(q, "a")
		wg.Wait()
		if got := w.Stats().Queues["q"]; got.Received != 0 || got.Visible != 1 || got.Waiting != 0 {
			t.Errorf("Stats = %+v, want nothing received", got)
		}
	})
}

func TestInFlightLimit(t *testing.T) {
	virtual(t, sqssim.Config{InFlight: 3}, func(t *testing.T, w *world) {
		q := w.create("q", nil)
		w.send(q, "a", "b", "c", "d", "e")
		ms := w.receive(q, upTo(10), hide(60))
		if len(ms) != 3 {
			t.Fatalf("received %q, want 3 messages", bodies(ms))
		}
		_, err := w.c.ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{QueueUrl: &q})
		wantType[*types.OverLimit](t, err)

		start := time.Now()
		w.none(q, wait(5))
		if got := time.Since(start); got != 5*time.Second {
			t.Errorf("a long poll at the limit took %v, want 5s", got)
		}
		var wg sync.WaitGroup
		wg.Go(func() { w.one(q, wait(20), upTo(10)) })
		time.Sleep(2 * time.Second)
		w.check(w.delete(q, ms[0].ReceiptHandle))
		wg.Wait()
		if got := time.Since(start); got != 7*time.Second {
			t.Errorf("received after %v, want 7s", got)
		}
	})
}

func TestOrder(t *testing.T) {
	all := []string{"0", "1", "2", "3", "4", "5", "6", "7", "8", "9"}
	for _, shuffle := range []bool{false, true} {
		w := newWorld(t, sqssim.Config{Shuffle: shuffle})
		q := w.create("q", nil)
		w.send(q, all...)
		got := bodies(w.receive(q, upTo(10)))
		if slices.Equal(got, all) == shuffle { // one in 3,628,800 by chance
			t.Errorf("shuffle=%t: received %q", shuffle, got)
		}
		slices.Sort(got)
		if !slices.Equal(got, all) {
			t.Errorf("shuffle=%t: received %q, want each once", shuffle, got)
		}
	}
}

// Messages keep their order while the queue grows and shrinks.
func TestOrderOfMany(t *testing.T) {
	virtual(t, sqssim.Config{}, func(t *testing.T, w *world) { // or those that were received come back
		q := w.create("q", nil)
		var sent, got []string
		for i := range 200 {
			for range 1 + i%4 {
				sent = append(sent, strconv.Itoa(len(sent)))
				w.send(q, sent[len(sent)-1])
			}
			if i%3 == 0 {
				got = append(got, bodies(w.receive(q, upTo(5)))...)
			}
		}
		for len(got) < len(sent) {
			got = append(got, bodies(w.receive(q, upTo(10)))...)
		}
		if !slices.Equal(got, sent) {
			t.Errorf("received %q", got)
		}
	})
}

func TestRedrive(t *testing.T) {
	for _, count := range []string{"2", `"2"`} {
		virtual(t, sqssim.Config{}, func(t *testing.T, w *world) {
			dlq := w.create("dlq", nil)
			q := w.create("q", attrs{
				"RedrivePolicy":          `{"deadLetterTargetArn":"` + arn + `dlq","maxReceiveCount":` + count + `}`,
				"MessageRetentionPeriod": "3600",
			})
			w.send(q, "poison")
			sent := time.Now()
			for range 2 {
				w.one(q)
				time.Sleep(30 * time.Second)
			}
			if got := w.Stats().Queues["dlq"].Visible; got != 0 {
				t.Fatalf("moved after the last timeout, not by the next receive")
			}
			w.send(q, "fine")
			if got := *w.one(q, upTo(10)).Body; got != "fine" {
				t.Errorf("received %q, want fine", got)
			}
			m := w.one(dlq)
			want := attrs{
				"ApproximateReceiveCount":  "3",
				"DeadLetterQueueSourceArn": arn + "q",
				"SentTimestamp":            strconv.FormatInt(sent.UnixMilli(), 10),
			}
			for name, v := range want {
				if m.Attributes[name] != v {
					t.Errorf("%s = %q, want %q", name, m.Attributes[name], v)
				}
			}
			if got := w.attributes(q, "RedrivePolicy")["RedrivePolicy"]; got !=
				`{"deadLetterTargetArn":"`+arn+`dlq","maxReceiveCount":2}` {
				t.Errorf("RedrivePolicy = %s", got)
			}
			out, err := w.c.ListDeadLetterSourceQueues(t.Context(), &sqs.ListDeadLetterSourceQueuesInput{QueueUrl: &dlq})
			if err != nil || !slices.Equal(out.QueueUrls, []string{q}) {
				t.Errorf("ListDeadLetterSourceQueues = %v, %v, want %s", out, err, q)
			}
			w.balance()
		})
	}
}

func TestRedriveWakesTheDeadLetterQueue(t *testing.T) {
	virtual(t, sqssim.Config{}, func(t *testing.T, w *world) {
		dlq := w.create("dlq", nil)
		q := w.create("q", attrs{
			"RedrivePolicy":     `{"deadLetterTargetArn":"` + arn + `dlq","maxReceiveCount":1}`,
			"VisibilityTimeout": "5",
		})
		w.send(q, "a", "b")
		start := time.Now()
		var wg sync.WaitGroup
		wg.Go(func() {
			w.receive(dlq, wait(20), upTo(10))
			if got := time.Since(start); got != 5*time.Second {
				t.Errorf("dead letter arrived after %v, want 5s", got)
			}
		})
		w.receive(q, upTo(10))
		w.none(q, wait(20))
		if got := time.Since(start); got != 20*time.Second {
			t.Errorf("receive returned after %v, want 20s", got)
		}
		wg.Wait()
		w.balance()
	})
}

func TestQueues(t *testing.T) {
	virtual(t, sqssim.Config{Region: "eu-west-1"}, func(t *testing.T, w *world) {
		ctx := t.Context()
		q := w.create("a-1", attrs{"DelaySeconds": "5"})
		if q != "http://sqs.test/000000000000/a-1" {
			t.Errorf("QueueUrl = %s", q)
		}
		for _, name := range []string{"a-2", "a-3", "b"} {
			w.create(name, nil)
		}
		w.create("a-1", nil)
		w.create("a-1", attrs{"DelaySeconds": "5"})
		_, err := w.c.CreateQueue(ctx, &sqs.CreateQueueInput{QueueName: new("a-1"), Attributes: attrs{"DelaySeconds": "6"}})
		wantType[*types.QueueNameExists](t, err)

		got, err := w.c.GetQueueUrl(ctx, &sqs.GetQueueUrlInput{QueueName: new("a-1")})
		if err != nil || *got.QueueUrl != q {
			t.Errorf("GetQueueUrl = %v, %v, want %s", got, err, q)
		}
		_, err = w.c.GetQueueUrl(ctx, &sqs.GetQueueUrlInput{QueueName: new("c")})
		wantType[*types.QueueDoesNotExist](t, err)
		wantCode(t, err, "AWS.SimpleQueueService.NonExistentQueue")

		var names []string
		pages := sqs.NewListQueuesPaginator(w.c, &sqs.ListQueuesInput{QueueNamePrefix: new("a"), MaxResults: new(int32(2))})
		n := 0
		for ; pages.HasMorePages(); n++ {
			page, err := pages.NextPage(ctx)
			w.check(err)
			for _, url := range page.QueueUrls {
				names = append(names, url[strings.LastIndex(url, "/")+1:])
			}
		}
		if want := []string{"a-1", "a-2", "a-3"}; !slices.Equal(names, want) || n != 2 {
			t.Errorf("listed %q in %d pages, want %q in 2", names, n, want)
		}

		created := strconv.FormatInt(time.Now().Unix(), 10)
		time.Sleep(time.Minute)
		w.check(w.set(q, attrs{"VisibilityTimeout": "45", "Policy": "{}"}))
		want := attrs{
			"ApproximateNumberOfMessages": "0", "ApproximateNumberOfMessagesDelayed": "0",
			"ApproximateNumberOfMessagesNotVisible": "0", "CreatedTimestamp": created, "DelaySeconds": "5",
			"LastModifiedTimestamp": strconv.FormatInt(time.Now().Unix(), 10), "MaximumMessageSize": "1048576",
			"MessageRetentionPeriod": "345600", "Policy": "{}", "QueueArn": "arn:aws:sqs:eu-west-1:000000000000:a-1",
			"ReceiveMessageWaitTimeSeconds": "0", "SqsManagedSseEnabled": "true", "VisibilityTimeout": "45",
		}
		if diff := cmp.Diff(want, w.attributes(q, "All")); diff != "" {
			t.Errorf("attributes (-want +got):\n%s", diff)
		}
		if got := w.attributes(q, "DelaySeconds", "QueueArn"); len(got) != 2 || got["DelaySeconds"] != "5" {
			t.Errorf("attributes by name = %v", got)
		}
		if got := w.attributes(q); len(got) != 0 {
			t.Errorf("no attributes asked for, got %v", got)
		}
		w.check(w.set(q, attrs{"Policy": ""}))
		if got := w.attributes(q, "Policy"); len(got) != 0 {
			t.Errorf("policy after its removal: %v", got)
		}
	})
}

func TestDeleteQueue(t *testing.T) {
	virtual(t, sqssim.Config{}, func(t *testing.T, w *world) {
		ctx := t.Context()
		q := w.create("q", nil)
		w.send(q, "a")
		w.one(q)
		var wg sync.WaitGroup
		wg.Go(func() {
			_, err := w.c.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{QueueUrl: &q, WaitTimeSeconds: 20})
			wantType[*types.QueueDoesNotExist](t, err)
		})
		synctest.Wait()
		start := time.Now()
		_, err := w.c.DeleteQueue(ctx, &sqs.DeleteQueueInput{QueueUrl: &q})
		w.check(err)
		wg.Wait()
		if got := time.Since(start); got != 0 {
			t.Errorf("a receiver learned of the deletion after %v, want at once", got)
		}
		_, err = w.c.SendMessage(ctx, &sqs.SendMessageInput{QueueUrl: &q, MessageBody: new("a")})
		wantType[*types.QueueDoesNotExist](t, err)
		if w.Messages("q") != nil {
			t.Error("messages of a deleted queue")
		}
		_, err = w.c.CreateQueue(ctx, &sqs.CreateQueueInput{QueueName: new("q")})
		wantType[*types.QueueDeletedRecently](t, err)
		time.Sleep(time.Minute)
		w.create("q", nil)
		w.none(q)
	})
}

func TestPurge(t *testing.T) {
	virtual(t, sqssim.Config{}, func(t *testing.T, w *world) {
		ctx := t.Context()
		q := w.create("q", nil)
		w.send(q, "a", "b", "c")
		w.one(q)
		_, err := w.c.PurgeQueue(ctx, &sqs.PurgeQueueInput{QueueUrl: &q})
		w.check(err)
		if got := w.Stats().Queues["q"]; got.Purged != 3 || got.Visible+got.InFlight != 0 {
			t.Errorf("Stats = %+v, want 3 purged", got)
		}
		_, err = w.c.PurgeQueue(ctx, &sqs.PurgeQueueInput{QueueUrl: &q})
		wantType[*types.PurgeQueueInProgress](t, err)
		w.send(q, "d")
		if got := *w.one(q).Body; got != "d" {
			t.Errorf("received %q, want d", got)
		}
		w.balance()
	})
}

func TestTags(t *testing.T) {
	w := newWorld(t, sqssim.Config{})
	ctx := t.Context()
	out, err := w.c.CreateQueue(ctx, &sqs.CreateQueueInput{QueueName: new("q"), Tags: attrs{"a": "1"}})
	w.check(err)
	q := out.QueueUrl
	_, err = w.c.TagQueue(ctx, &sqs.TagQueueInput{QueueUrl: q, Tags: attrs{"b": "2", "c": "3"}})
	w.check(err)
	_, err = w.c.UntagQueue(ctx, &sqs.UntagQueueInput{QueueUrl: q, TagKeys: []string{"c", "d"}})
	w.check(err)
	tags, err := w.c.ListQueueTags(ctx, &sqs.ListQueueTagsInput{QueueUrl: q})
	w.check(err)
	if want := (attrs{"a": "1", "b": "2"}); !maps.Equal(tags.Tags, want) {
		t.Errorf("tags = %v, want %v", tags.Tags, want)
	}
}
