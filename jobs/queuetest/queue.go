package queuetest

import (
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/aws/smithy-go"
)

const (
	// patience is how long a message or a count may take to come that is due.
	// It is far more than any server needs, and is only spent on failures.
	patience = 10 * time.Second

	// slack is how much sooner than asked a timeout may end: clocks are read at
	// different moments, and some servers count in milliseconds.
	slack = 50 * time.Millisecond
)

type attrs = map[string]string

// A queue is a queue under test and what a check does with it. Its methods end
// the check when the server refuses what they ask.
type queue struct {
	reporter
	client    *sqs.Client
	name, url string
}

func newName() string { return "conformance-" + rand.Text() }

// create returns a new queue, which is deleted when the check is over.
func (q *queue) create(name string, attributes attrs) *queue {
	out, err := q.client.CreateQueue(q.Context(), &sqs.CreateQueueInput{QueueName: &name, Attributes: attributes})
	q.must(err)
	q.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(q.Context()), patience)
		defer cancel()
		_, _ = q.client.DeleteQueue(ctx, &sqs.DeleteQueueInput{QueueUrl: out.QueueUrl}) // the check may have
	})
	return &queue{reporter: q.reporter, client: q.client, name: name, url: aws.ToString(out.QueueUrl)}
}

func (q *queue) must(err error) {
	if err != nil {
		q.Fatalf("%v", err)
	}
}

// typed complains unless err is an E.
func typed[E error](q *queue, err error, doing string) {
	if _, ok := errors.AsType[E](err); !ok {
		q.Errorf("%s: got %v, want %T", doing, err, *new(E))
	}
}

// refused complains unless err is an answer that blames the sender. Of most
// faults of a sender SQS's model has no type, and servers spell the codes in
// several ways.
func (q *queue) refused(err error, doing string) {
	e, ok := errors.AsType[smithy.APIError](err)
	if !ok || e.ErrorCode() == "InternalFailure" || e.ErrorFault() == smithy.FaultServer {
		q.Errorf("%s: got %v, want it refused", doing, err)
	}
}

// coded complains unless err is an answer with that code, which some spell with a
// prefix or a suffix.
func (q *queue) coded(err error, code, doing string) {
	e, ok := errors.AsType[smithy.APIError](err)
	if !ok || strings.TrimPrefix(strings.TrimSuffix(e.ErrorCode(), "Exception"), "AWS.SimpleQueueService.") != code {
		q.Errorf("%s: got %v, want %s", doing, err, code)
	}
}

func (q *queue) send(bodies ...string) {
	for _, b := range bodies {
		q.put(&sqs.SendMessageInput{MessageBody: &b})
	}
}

func (q *queue) put(in *sqs.SendMessageInput) *sqs.SendMessageOutput {
	out, err := q.trySend(in)
	q.must(err)
	return out
}

func (q *queue) trySend(in *sqs.SendMessageInput) (*sqs.SendMessageOutput, error) {
	in.QueueUrl = &q.url
	return q.client.SendMessage(q.Context(), in)
}

// A receiving changes what is asked of a receive, which by default is ten
// messages with all their attributes, at once, hidden for half a minute.
type receiving func(*sqs.ReceiveMessageInput)

func upTo(n int32) receiving { return func(in *sqs.ReceiveMessageInput) { in.MaxNumberOfMessages = n } }

func hide(s int32) receiving { return func(in *sqs.ReceiveMessageInput) { in.VisibilityTimeout = s } }

func await(s int32) receiving { return func(in *sqs.ReceiveMessageInput) { in.WaitTimeSeconds = s } }

func (q *queue) tryReceive(with ...receiving) ([]types.Message, error) {
	in := &sqs.ReceiveMessageInput{
		QueueUrl: &q.url, MaxNumberOfMessages: 10, VisibilityTimeout: 30,
		MessageAttributeNames:       []string{"All"},
		MessageSystemAttributeNames: []types.MessageSystemAttributeName{types.MessageSystemAttributeNameAll},
	}
	for _, w := range with {
		w(in)
	}
	out, err := q.client.ReceiveMessage(q.Context(), in)
	if err != nil {
		return nil, err
	}
	return out.Messages, nil
}

func (q *queue) receive(with ...receiving) []types.Message {
	ms, err := q.tryReceive(with...)
	q.must(err)
	return ms
}

// one waits for a message and returns it. It takes no others.
func (q *queue) one(with ...receiving) types.Message {
	for end := time.Now().Add(patience); ; {
		ms := q.receive(append([]receiving{upTo(1), await(1)}, with...)...)
		switch {
		case len(ms) == 1:
			return ms[0]
		case len(ms) > 1:
			q.Fatalf("received %d messages, want at most 1", len(ms))
		case time.Now().After(end):
			q.Fatalf("received nothing for %v, want a message", patience)
		}
	}
}

// glance receives a message and gives it back.
func (q *queue) glance(with ...receiving) types.Message {
	m := q.one(with...)
	q.hide(m, 0)
	return m
}

// several waits for n messages in as many receives as that takes.
func (q *queue) several(n int) (ms []types.Message) {
	for end := time.Now().Add(patience); len(ms) < n; {
		ms = append(ms, q.receive(await(1))...)
		if time.Now().After(end) {
			break
		}
	}
	if len(ms) != n {
		q.Fatalf("received %d messages %.200q, want %d", len(ms), bodies(ms), n)
	}
	return ms
}

// none complains if there is a message to be received.
func (q *queue) none(why string) {
	if ms := q.receive(); len(ms) > 0 {
		q.Errorf("received %.200q, want nothing: %s", bodies(ms), why)
	}
}

func (q *queue) delete(m types.Message) {
	_, err := q.client.DeleteMessage(q.Context(), &sqs.DeleteMessageInput{QueueUrl: &q.url, ReceiptHandle: m.ReceiptHandle})
	q.must(err)
}

func (q *queue) hide(m types.Message, seconds int32) {
	q.must(q.tryHide(m.ReceiptHandle, seconds))
}

func (q *queue) tryHide(receipt *string, seconds int32) error {
	_, err := q.client.ChangeMessageVisibility(q.Context(), &sqs.ChangeMessageVisibilityInput{
		QueueUrl: &q.url, ReceiptHandle: receipt, VisibilityTimeout: seconds,
	})
	return err
}

func (q *queue) set(attributes attrs) {
	for name, value := range attributes {
		q.must(q.trySet(name, value))
	}
}

func (q *queue) trySet(name, value string) error {
	_, err := q.client.SetQueueAttributes(q.Context(), &sqs.SetQueueAttributesInput{QueueUrl: &q.url, Attributes: attrs{name: value}})
	return err
}

func (q *queue) attributes(names ...types.QueueAttributeName) attrs {
	if names == nil {
		names = []types.QueueAttributeName{types.QueueAttributeNameAll}
	}
	out, err := q.client.GetQueueAttributes(q.Context(), &sqs.GetQueueAttributesInput{QueueUrl: &q.url, AttributeNames: names})
	q.must(err)
	return out.Attributes
}

func (q *queue) arn() string {
	return q.attributes(types.QueueAttributeNameQueueArn)["QueueArn"]
}

// has waits until as many messages are visible, hidden and delayed.
func (q *queue) has(visible, hidden, delayed int) {
	want := [3]string{strconv.Itoa(visible), strconv.Itoa(hidden), strconv.Itoa(delayed)}
	var got [3]string
	q.eventually(func() bool {
		a := q.attributes()
		got = [3]string{
			a["ApproximateNumberOfMessages"], a["ApproximateNumberOfMessagesNotVisible"], a["ApproximateNumberOfMessagesDelayed"],
		}
		return got == want
	}, func() { q.Errorf("%q messages are visible, hidden and delayed, want %q", got, want) })
}

// eventually waits for ok, and calls failed if it never is. Where something has
// gone wrong before it does not wait.
func (q *queue) eventually(ok func() bool, failed func()) {
	for end := time.Now().Add(patience); !ok(); {
		if q.Failed() || time.Now().After(end) {
			failed()
			return
		}
		q.sleep(100 * time.Millisecond)
	}
}

func (q *queue) sleep(d time.Duration) {
	select {
	case <-time.After(d):
	case <-q.Context().Done():
	}
}

// within complains unless what began at start has taken about d.
func (q *queue) within(start time.Time, d time.Duration, what string) {
	if took := time.Since(start); took < d-slack || took > d+patience/2 {
		q.Errorf("%s after %v, want about %v", what, took, d)
	}
}

func bodies(ms []types.Message) []string {
	all := make([]string, len(ms))
	for i, m := range ms {
		all[i] = aws.ToString(m.Body)
	}
	return all
}

// same complains unless the messages have those bodies, in any order.
func (q *queue) same(ms []types.Message, want ...string) {
	got := slices.Sorted(slices.Values(bodies(ms)))
	slices.Sort(want)
	if !slices.Equal(got, want) {
		q.Errorf("received %.200q, want %.200q", got, want)
	}
}

func (q *queue) equal(what, got, want string) {
	if got != want {
		q.Errorf("%s is %.200q, want %.200q", what, got, want)
	}
}

// base returns the name of the queue that a URL is for.
func base(url string) string { return url[strings.LastIndexByte(url, '/')+1:] }
