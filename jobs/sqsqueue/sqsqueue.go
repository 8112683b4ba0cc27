// Package sqsqueue reads and writes an Amazon SQS queue of jobs and the
// dead-letter queue beside it.
//
// A [Queue] implements worker.Source. It speaks to SQS in batches: deletes and
// visibility changes that happen within a few milliseconds of each other share a
// request, and each caller still waits for its own entry's fate.
//
// # What a message carries
//
// The body is a job and nothing else. What SQS cannot keep for us travels in
// message attributes: upwell.attempts is the number of counted attempts already
// spent, and upwell.again says that the job may have been answered before: it is the
// id of the message that one which was sent anew continues, and 1 in others. A dead
// letter carries the body unchanged, or a reference to it, and the attributes named
// at [Queue.Bury].
//
// # Traces
//
// The trace that a job belongs to travels as W3C Trace Context in the message
// attributes traceparent and tracestate, and in X-Ray's form in the system attribute
// AWSTraceHeader. SQS takes ten message attributes, among which a system attribute
// does not count, nor does it weigh anything: where there is no room for the former,
// the latter alone carries the trace. Of a message that has both, traceparent says
// what the trace is. What is sent anew, split, buried or redriven stays in its trace.
// What is not well-formed is neither believed nor sent on, and without a trace there
// are no such attributes.
//
// # Dead letters
//
// [Queue.Letters] reads the dead-letter queue and [Queue.Redrive] sends jobs in it
// back. SQS has no way to look at a message without taking it, so a reader takes
// all, hides each until it has seen the last, and then gives them back. A job that
// is redriven is sent first and its letter deleted then, as with a release below.
//
// # Giving back
//
// SQS counts deliveries and moves a message to its dead-letter queue when there
// have been too many; it cannot tell a worker that died from one that politely
// gave the message back. So a release is a change of visibility only while few
// deliveries have been counted. After that, or when there are attempts to carry
// along, the message is sent again as a new one, with a count of zero, and the
// old one is deleted. If the worker dies in between there are two, both marked
// so that the second is looked up before it is paid for.
package sqsqueue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/aws/ratelimit"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
)

const (
	// MaxMessage is the most that one message, or one batch of them, may weigh:
	// body and attributes together, in bytes.
	MaxMessage = 1 << 20

	// batchSize is the most entries that one request carries.
	batchSize = 10

	// longPoll is the longest that SQS lets a receive wait.
	longPoll = 20 * time.Second
)

// NewClient returns an SQS client made for a busy worker: cfg with its retries
// freed of the SDK's quota, which a few hundred calls in trouble use up within
// a second, and with the check of message bodies left to [Queue.Receive], as
// the SDK drops ten messages for one that is damaged.
func NewClient(cfg aws.Config, opts ...func(*sqs.Options)) *sqs.Client {
	base := func(o *sqs.Options) {
		o.Protocol = protocol{o.Protocol}
		o.DisableMessageChecksumValidation = true
		o.Retryer = retry.NewStandard(func(s *retry.StandardOptions) {
			s.MaxAttempts = 5
			s.MaxBackoff = 5 * time.Second
			s.RateLimiter = ratelimit.None
		})
	}
	return sqs.NewFromConfig(cfg, append([]func(*sqs.Options){base}, opts...)...)
}

// Config names a queue.
type Config struct {
	// Queue is the queue's name or URL. Required.
	Queue string

	// Dead is the name or URL of the dead-letter queue. Default: the target of
	// the queue's own redrive policy.
	Dead string

	// MaxReceives is after how many deliveries the worker takes a message for
	// poison. A release starts a new count before half of them, or of what the
	// queue's redrive policy allows, are used up. Default 10.
	MaxReceives int

	// Poll is how long a receive waits for the first message. Default, and
	// most, 20s.
	Poll time.Duration

	// Log is told of damaged messages. Default: discard.
	Log *slog.Logger
}

// A Queue is a queue of jobs. All its methods may be called concurrently.
type Queue struct {
	client    *sqs.Client
	url, dead string
	renewAt   int // deliveries from which a release sends the message anew
	largest   int // what a message may weigh, in bytes
	poll      time.Duration
	log       *slog.Logger

	hides   batcher[types.ChangeMessageVisibilityBatchRequestEntry]
	deletes batcher[types.DeleteMessageBatchRequestEntry]
}

// Open finds the queues that cfg names and reads their attributes. Its errors
// say what to change.
func Open(ctx context.Context, client *sqs.Client, cfg Config) (*Queue, error) {
	q := &Queue{client: client, poll: cfg.Poll, log: cfg.Log}
	if q.poll == 0 || q.poll > longPoll {
		q.poll = longPoll
	}
	if q.log == nil {
		q.log = slog.New(slog.DiscardHandler)
	}
	q.hides.send, q.deletes.send = q.sendHides, q.sendDeletes
	var err error
	if q.url, err = find(ctx, client, cfg.Queue); err != nil {
		return nil, err
	}
	policy, err := q.settings(ctx)
	if err != nil {
		return nil, err
	}
	dead := cfg.Dead
	if dead == "" {
		dead = policy.target()
	}
	if dead == "" {
		return nil, fmt.Errorf("sqs: queue %s has no redrive policy: give it a dead-letter queue, or name one", cfg.Queue)
	}
	if q.dead, err = find(ctx, client, dead); err != nil {
		return nil, fmt.Errorf("dead-letter queue: %w", err)
	}
	limit := cfg.MaxReceives
	if limit == 0 {
		limit = 10
	}
	if policy.MaxReceiveCount > 0 {
		limit = min(limit, int(policy.MaxReceiveCount))
	}
	q.renewAt = limit/2 + 1
	return q, nil
}

// URL returns the URL of the queue.
func (q *Queue) URL() string { return q.url }

// FIFO reports whether the queue keeps its messages in order.
func (q *Queue) FIFO() bool { return fifo(q.url) }

// Dead returns the URL of the dead-letter queue.
func (q *Queue) Dead() string { return q.dead }

// find returns the URL of the queue with that name or URL.
func find(ctx context.Context, client *sqs.Client, name string) (string, error) {
	if name == "" {
		return "", errors.New("sqs: no queue: give its name or URL")
	}
	if u, err := url.Parse(name); err == nil && u.Scheme != "" && u.Host != "" {
		return name, nil
	}
	out, err := client.GetQueueUrl(ctx, &sqs.GetQueueUrlInput{QueueName: &name})
	if err != nil {
		return "", wrap("find queue "+name, err)
	}
	return *out.QueueUrl, nil
}

type redrivePolicy struct {
	DeadLetterTargetArn string  `json:"deadLetterTargetArn"`
	MaxReceiveCount     integer `json:"maxReceiveCount"`
}

// target returns the name of the dead-letter queue.
func (p redrivePolicy) target() string {
	return p.DeadLetterTargetArn[strings.LastIndexByte(p.DeadLetterTargetArn, ':')+1:]
}

// An integer is a JSON number, or a string of one: policies have been written
// both ways.
type integer int

func (n *integer) UnmarshalJSON(text []byte) error {
	v, err := strconv.Atoi(strings.Trim(string(text), `"`))
	*n = integer(v)
	return err
}

// settings reads how the queue is set up: its redrive policy, and into q what its
// messages may weigh.
func (q *Queue) settings(ctx context.Context) (p redrivePolicy, err error) {
	attrs, err := q.attributes(ctx, types.QueueAttributeNameRedrivePolicy, types.QueueAttributeNameMaximumMessageSize)
	if err != nil {
		return p, err
	}
	q.largest = MaxMessage
	if n, err := strconv.Atoi(attrs[string(types.QueueAttributeNameMaximumMessageSize)]); err == nil && n > 0 {
		q.largest = min(n, MaxMessage)
	}
	if text := attrs[string(types.QueueAttributeNameRedrivePolicy)]; text != "" {
		if err := json.Unmarshal([]byte(text), &p); err != nil {
			return p, fmt.Errorf("sqs: redrive policy of %s: %w", q.url, err)
		}
	}
	return p, nil
}

func (q *Queue) attributes(ctx context.Context, names ...types.QueueAttributeName) (map[string]string, error) {
	attrs, _, err := q.attributesAt(ctx, names...)
	return attrs, err
}

// attributesAt also returns what time it was by SQS's clock, to the second, or by
// ours if SQS does not say.
func (q *Queue) attributesAt(ctx context.Context, names ...types.QueueAttributeName) (map[string]string, time.Time, error) {
	out, err := q.client.GetQueueAttributes(ctx, &sqs.GetQueueAttributesInput{QueueUrl: &q.url, AttributeNames: names})
	if err != nil {
		return nil, time.Time{}, wrap("read attributes of "+q.url, err)
	}
	now, ok := awsmiddleware.GetServerTime(out.ResultMetadata)
	if !ok {
		now = time.Now()
	}
	return out.Attributes, now, nil
}

// Counts is how many messages a queue holds. SQS counts approximately: the
// numbers may lag by a minute.
type Counts struct {
	Visible int // waiting to be received
	Hidden  int // received, and neither deleted nor given back
	Delayed int // not yet to be received
}

// Total is the number of messages in any state.
func (c Counts) Total() int { return c.Visible + c.Hidden + c.Delayed }

// Counts asks SQS how many messages the queue holds.
func (q *Queue) Counts(ctx context.Context) (Counts, error) {
	c, _, err := q.countsAt(ctx)
	return c, err
}

func (q *Queue) countsAt(ctx context.Context) (Counts, time.Time, error) {
	attrs, now, err := q.attributesAt(ctx, types.QueueAttributeNameApproximateNumberOfMessages,
		types.QueueAttributeNameApproximateNumberOfMessagesNotVisible,
		types.QueueAttributeNameApproximateNumberOfMessagesDelayed)
	if err != nil {
		return Counts{}, now, err
	}
	n := func(name types.QueueAttributeName) int {
		v, _ := strconv.Atoi(attrs[string(name)])
		return v
	}
	return Counts{
		Visible: n(types.QueueAttributeNameApproximateNumberOfMessages),
		Hidden:  n(types.QueueAttributeNameApproximateNumberOfMessagesNotVisible),
		Delayed: n(types.QueueAttributeNameApproximateNumberOfMessagesDelayed),
	}, now, nil
}

// Empty implements worker.Source.
func (q *Queue) Empty(ctx context.Context) (bool, error) {
	c, err := q.Counts(ctx)
	return err == nil && c.Total() == 0, err
}

// seconds rounds up, so that nothing becomes visible early.
func seconds(d time.Duration) int32 {
	return int32(min(max(d+time.Second-1, 0)/time.Second, 12*60*60))
}
