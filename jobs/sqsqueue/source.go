package sqsqueue

import (
	"cmp"
	"context"
	"crypto/md5" //nolint:gosec // what SQS uses to check a body for damage
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"time"
	"unsafe"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"upwell/jobs"
	"upwell/jobs/sdkerr"
	"upwell/worker"
)

// Message attributes of upwell's own: the first two of a job, and all but the
// second of a dead letter.
const (
	attrAttempts    = "upwell.attempts"
	attrAgain       = "upwell.again"
	attrClass       = "upwell.class"
	attrReason      = "upwell.reason"
	attrStatus      = "upwell.status"
	attrRequestID   = "upwell.request_id"
	attrRun         = "upwell.run"
	attrCustomID    = "upwell.custom_id"
	attrFirstFailed = "upwell.first_failed"
)

// origin is what a message remembers of its delivery.
type origin struct {
	attributes map[string]types.MessageAttributeValue
	attempts   int // counted before this delivery
	group      string
	header     string // AWSTraceHeader, if it is one
	moved      bool   // by SQS, from another queue
}

// Receive implements worker.Source. A message whose body was damaged on the way
// is put off for a moment and not returned; the others of its batch are.
func (q *Queue) Receive(ctx context.Context, n int, hide time.Duration) ([]jobs.Message, error) {
	ms, damaged, err := q.receive(ctx, n, hide)
	for _, m := range damaged {
		q.log.WarnContext(ctx, "damaged message put off", "message", m.ID)
		_ = q.Hide(ctx, m, damagedDelay) // if that fails, it comes back by itself
	}
	return ms, err
}

// receive makes one request, and returns the messages whose bodies were damaged
// on the way apart from the others.
func (q *Queue) receive(ctx context.Context, n int, hide time.Duration) (whole, damaged []jobs.Message, err error) {
	out, err := q.client.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{
		QueueUrl:            &q.url,
		MaxNumberOfMessages: int32(min(n, batchSize)),
		VisibilityTimeout:   max(seconds(hide), 1), // the SDK does not send a zero
		WaitTimeSeconds:     seconds(q.poll),
		MessageSystemAttributeNames: []types.MessageSystemAttributeName{
			types.MessageSystemAttributeNameApproximateReceiveCount,
			types.MessageSystemAttributeNameSentTimestamp,
			types.MessageSystemAttributeNameMessageGroupId,
			types.MessageSystemAttributeNameDeadLetterQueueSourceArn,
			types.MessageSystemAttributeNameAWSTraceHeader,
		},
		MessageAttributeNames: []string{"All"},
	})
	if err != nil {
		return nil, nil, wrap("receive", err)
	}
	now := time.Now()
	whole = make([]jobs.Message, 0, len(out.Messages))
	for _, m := range out.Messages {
		if msg := message(m, now); intact(msg.Body, m.MD5OfBody) {
			whole = append(whole, msg)
		} else {
			damaged = append(damaged, msg)
		}
	}
	return whole, damaged, nil
}

// damagedDelay is how long a damaged message is put off: damage happens on the
// way, and the next delivery is most likely whole.
const damagedDelay = 5 * time.Second

func intact(body []byte, sum *string) bool {
	if sum == nil {
		return true
	}
	got := md5.Sum(body) //nolint:gosec // likewise
	return hex.EncodeToString(got[:]) == *sum
}

func message(m types.Message, now time.Time) jobs.Message {
	receives, _ := strconv.Atoi(m.Attributes[string(types.MessageSystemAttributeNameApproximateReceiveCount)])
	sent, _ := strconv.ParseInt(m.Attributes[string(types.MessageSystemAttributeNameSentTimestamp)], 10, 64)
	o := &origin{attributes: m.MessageAttributes, group: m.Attributes[string(types.MessageSystemAttributeNameMessageGroupId)]}
	o.attempts, _ = strconv.Atoi(aws.ToString(m.MessageAttributes[attrAttempts].StringValue))
	mark, again := m.MessageAttributes[attrAgain]
	first := ""
	if aws.ToString(mark.DataType) == "String" {
		first = aws.ToString(mark.StringValue)
	}
	var trace jobs.Trace
	trace, o.header = traceOf(m)
	_, o.moved = m.Attributes[string(types.MessageSystemAttributeNameDeadLetterQueueSourceArn)]
	return jobs.Message{
		ID: aws.ToString(m.MessageId), Receipt: aws.ToString(m.ReceiptHandle), Body: bytesOf(aws.ToString(m.Body)),
		Receives: receives, Sent: time.UnixMilli(sent), Received: now,
		Attempts: o.attempts, First: first, Again: again, Trace: trace, Origin: o,
	}
}

// bytesOf returns the bytes of s in place: a message may be a megabyte, and a
// worker holds hundreds. Nobody writes to a message's body.
func bytesOf(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }

// originOf returns what m remembers, or nothing for a message made elsewhere.
func originOf(m jobs.Message) origin {
	if o, ok := m.Origin.(*origin); ok {
		return *o
	}
	return origin{}
}

// Hide implements worker.Source.
func (q *Queue) Hide(ctx context.Context, m jobs.Message, d time.Duration) error {
	return q.hides.do(ctx, types.ChangeMessageVisibilityBatchRequestEntry{
		ReceiptHandle: &m.Receipt, VisibilityTimeout: seconds(d),
	})
}

// Ack implements worker.Source.
func (q *Queue) Ack(ctx context.Context, m jobs.Message) error {
	return q.deletes.do(ctx, types.DeleteMessageBatchRequestEntry{ReceiptHandle: &m.Receipt})
}

// Release implements worker.Source; see the package comment for how. A message
// that is sent anew can be delayed by 15 minutes at most, which is SQS's limit,
// and on a FIFO queue not at all, so there it is done only when it must be. One
// that came with more than eight attributes, those of its trace not counted, has no
// room for ours: it is hidden for d, and the error says so.
func (q *Queue) Release(ctx context.Context, m jobs.Message, d time.Duration) error {
	o := originOf(m)
	if m.Attempts == o.attempts && m.Receives < q.renewAt {
		return q.Hide(ctx, m, d)
	}
	attrs := make(map[string]types.MessageAttributeValue, len(o.attributes)+2)
	maps.Copy(attrs, o.attributes)
	attrs[attrAttempts] = number(m.Attempts)
	attrs[attrAgain] = types.MessageAttributeValue{DataType: aws.String("String"), StringValue: aws.String(cmp.Or(m.First, m.ID))}
	t := tracedOf(m)
	attrs = t.enter(attrs, maxAttributes, q.largest-len(m.Body))
	in := &sqs.SendMessageInput{
		QueueUrl: &q.url, MessageBody: aws.String(string(m.Body)), MessageAttributes: attrs, MessageSystemAttributes: t.system(),
	}
	if o.group != "" {
		in.MessageGroupId = &o.group
	}
	if fifo(q.url) {
		in.MessageDeduplicationId = aws.String(m.ID + "." + strconv.Itoa(m.Receives))
	} else {
		in.DelaySeconds = min(seconds(d), maxDelay)
	}
	if _, err := q.client.SendMessage(ctx, in); err != nil {
		// Better a delivery too many on the count than a message in doubt.
		return errors.Join(wrap("send anew", err), q.Hide(ctx, m, d))
	}
	return q.Ack(ctx, m)
}

// Split implements worker.Source. On a FIFO queue the parts belong to m's group, and
// are named after m, so that splitting it again within five minutes leaves no double.
func (q *Queue) Split(ctx context.Context, m jobs.Message, bodies [][]byte) error {
	o := originOf(m)
	out := make([]Outgoing, len(bodies))
	for i, body := range bodies {
		out[i] = Outgoing{
			Body: body, Again: true, Attributes: foreign(o.attributes), Trace: m.Trace, header: o.header,
			Group: o.group, Once: m.ID + "." + strconv.Itoa(i),
		}
	}
	return q.Send(ctx, out)
}

// maxDelay is the longest that SQS delays a new message, in seconds.
const maxDelay = 15 * 60

func (q *Queue) sendHides(ctx context.Context, es []types.ChangeMessageVisibilityBatchRequestEntry) []error {
	return settled(len(es), func(todo []int) ([]types.BatchResultErrorEntry, error) {
		entries := make([]types.ChangeMessageVisibilityBatchRequestEntry, len(todo))
		for i, k := range todo {
			entries[i] = es[k]
			entries[i].Id = aws.String(strconv.Itoa(k))
		}
		out, err := q.client.ChangeMessageVisibilityBatch(ctx, &sqs.ChangeMessageVisibilityBatchInput{QueueUrl: &q.url, Entries: entries})
		if err != nil {
			return nil, wrap("hide", err)
		}
		return out.Failed, nil
	})
}

func (q *Queue) sendDeletes(ctx context.Context, es []types.DeleteMessageBatchRequestEntry) []error {
	return settled(len(es), func(todo []int) ([]types.BatchResultErrorEntry, error) {
		entries := make([]types.DeleteMessageBatchRequestEntry, len(todo))
		for i, k := range todo {
			entries[i] = es[k]
			entries[i].Id = aws.String(strconv.Itoa(k))
		}
		out, err := q.client.DeleteMessageBatch(ctx, &sqs.DeleteMessageBatchInput{QueueUrl: &q.url, Entries: entries})
		if err != nil {
			return nil, wrap("delete", err)
		}
		return out.Failed, nil
	})
}

// entryTries is how often an entry is sent whose failure is SQS's fault.
const entryTries = 3

// settled sends n entries, by their indexes, and those again that failed through
// no fault of ours. It returns the error of each.
func settled(n int, send func(todo []int) ([]types.BatchResultErrorEntry, error)) []error {
	errs := make([]error, n)
	todo := make([]int, n)
	for i := range todo {
		todo[i] = i
	}
	for range entryTries {
		failed, err := send(todo)
		for _, i := range todo {
			errs[i] = err
		}
		if err != nil {
			return errs
		}
		todo = todo[:0]
		for _, f := range failed {
			i, err := strconv.Atoi(aws.ToString(f.Id))
			if err != nil || i < 0 || i >= n {
				continue
			}
			errs[i] = refusal(f)
			if !f.SenderFault {
				todo = append(todo, i)
			}
		}
		if len(todo) == 0 {
			return errs
		}
	}
	return errs
}

// refusal says what the failure of an entry means for its delivery. SQS has no
// code for a receipt that is no longer good: it is an invalid parameter, and an
// entry of ours has no other that could be.
func refusal(f types.BatchResultErrorEntry) error {
	code := aws.ToString(f.Code)
	err := fmt.Errorf("sqs: %s: %s", code, aws.ToString(f.Message))
	switch bare := sdkerr.Bare(code); bare {
	case "MessageNotInflight", "ReceiptHandleIsInvalid", "InvalidParameterValue":
		return fmt.Errorf("%w: %w", worker.ErrGone, err)
	default:
		return meaning(bare, err)
	}
}

func number(n int) types.MessageAttributeValue {
	return types.MessageAttributeValue{DataType: aws.String("Number"), StringValue: aws.String(strconv.Itoa(n))}
}
