package sqsqueue

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/aws/smithy-go"

	"upwell/jobs"
	"upwell/jobs/sdkerr"
	"upwell/worker"
)

const (
	// sendTries is how often a batch is sent before Send gives up: some ten
	// seconds of trouble in all.
	sendTries = 6

	// maxReason bounds the reason in a dead letter, in bytes. The error line
	// holds it whole.
	maxReason = 1024
)

// An Outgoing is a job to be queued.
type Outgoing struct {
	Body  []byte
	Again bool // it may have been queued before

	// Delay is how long nobody receives it, whole seconds up to 15 minutes. A FIFO
	// queue knows no such thing, and sends it at once. Default: the queue's own.
	Delay time.Duration

	// Attributes are others' than upwell's, at most nine.
	Attributes map[string]types.MessageAttributeValue

	// Trace is the trace that the job belongs to. What is not well-formed is left
	// out. Default: none.
	Trace  jobs.Trace
	header string // AWSTraceHeader that it came with, or empty

	// Group and Once are for FIFO queues: the group that the job belongs to, and
	// the name of this sending, of which SQS takes one within five minutes.
	// Default: the hash of the body, for both.
	Group, Once string
}

// weight is what a message may come to weigh, marked or not, against [MaxMessage].
func (o Outgoing) weight() int { return len(o.Body) + o.room() }

// room is what attributes may come to weigh, upwell's and others'.
func (o Outgoing) room() int {
	return attributeRoom + weigh(o.Attributes)
}

// weigh returns what attributes weigh, in bytes: all of their names, types and values.
func weigh(attrs map[string]types.MessageAttributeValue) int {
	n := 0
	for name, a := range attrs {
		n += len(name) + len(aws.ToString(a.DataType)) + len(aws.ToString(a.StringValue)) + len(a.BinaryValue)
	}
	return n
}

// attributeRoom is what upwell's attributes weigh on a message that is sent
// again: two names, types and numbers, rounded up.
const attributeRoom = 128

// Fits reports whether a body can be queued: not empty, not larger than SQS
// takes with the attributes that it may need one day, and made of the characters
// that SQS takes.
func Fits(body []byte) error { return Outgoing{Body: body}.fits() }

func (o Outgoing) fits() error {
	body := o.Body
	switch {
	case len(body) == 0:
		return fmt.Errorf("empty: SQS takes no message without a body")
	case o.weight() > MaxMessage:
		return fmt.Errorf("%d bytes: SQS takes at most %d for a job", len(body), MaxMessage-o.room())
	}
	if !utf8.Valid(body) {
		return errors.New("not UTF-8: SQS takes text only")
	}
	if i := bytes.IndexFunc(body, illegal); i >= 0 {
		return fmt.Errorf("byte %d is a control character that SQS does not take: write it as a \\u escape", i)
	}
	return nil
}

// Holds reports whether a body fits into a message of this queue, with the attributes
// that it may need one day. A queue may be set to take less than SQS does.
func (q *Queue) Holds(body []byte) bool { return len(body) <= q.largest-attributeRoom }

// illegal reports whether SQS refuses a message for a character: it takes those
// of XML 1.0.
func illegal(r rune) bool {
	return r < 0x20 && r != '\t' && r != '\n' && r != '\r' || r == 0xFFFE || r == 0xFFFF
}

// Send queues jobs, in as few requests as fit, one after the other. It tries
// again what may yet succeed; an entry whose request may or may not have been
// carried out is sent again marked, so that whoever receives the second one
// looks before paying. When it returns an error, some may have been queued.
func (q *Queue) Send(ctx context.Context, out []Outgoing) error {
	for len(out) > 0 {
		n := 0
		for size := 0; n < min(len(out), batchSize); n++ {
			if size += out[n].weight() + out[n].traced().weight(); n > 0 && size > MaxMessage {
				break
			}
		}
		if err := q.sendBatch(ctx, out[:n]); err != nil {
			return err
		}
		out = out[n:]
	}
	return nil
}

func (q *Queue) sendBatch(ctx context.Context, out []Outgoing) error {
	todo := make([]types.SendMessageBatchRequestEntry, len(out))
	for i, o := range out {
		todo[i] = q.entry(i, o)
	}
	var err error
	for try := range sendTries {
		if try > 0 {
			if !pause(ctx, rand.N(500*time.Millisecond<<try)) {
				return context.Cause(ctx)
			}
		}
		var failed []types.BatchResultErrorEntry
		if failed, err = q.sendOnce(ctx, todo); err != nil {
			if final(err) {
				return err
			}
			for i := range todo {
				mark(&todo[i])
			}
			continue
		}
		if todo, err = remaining(todo, failed); len(todo) == 0 {
			return err
		}
	}
	return err
}

// sendOnce makes one request, without the SDK's own retries: they would repeat a
// request whose answer was lost without marking it.
func (q *Queue) sendOnce(ctx context.Context, entries []types.SendMessageBatchRequestEntry) ([]types.BatchResultErrorEntry, error) {
	out, err := q.client.SendMessageBatch(ctx, &sqs.SendMessageBatchInput{QueueUrl: &q.url, Entries: entries},
		func(o *sqs.Options) { o.RetryMaxAttempts = 1; o.Retryer = aws.NopRetryer{} })
	if err != nil {
		return nil, wrap("send", err)
	}
	return out.Failed, nil
}

// final reports whether sending again would bring the same answer.
func final(err error) bool {
	api, answered := errors.AsType[smithy.APIError](err)
	return answered && retry.IsErrorRetryables(retry.DefaultRetryables).IsErrorRetryable(err) != aws.TrueTernary &&
		!strings.Contains(api.ErrorCode(), "Thrott") // KMS has its own
}

// remaining returns the entries to send again, marked because SQS does not say
// how far it got, or the error of one that never will be accepted.
func remaining(sent []types.SendMessageBatchRequestEntry, failed []types.BatchResultErrorEntry) ([]types.SendMessageBatchRequestEntry, error) {
	var todo []types.SendMessageBatchRequestEntry
	var err error
	for _, f := range failed {
		err = fmt.Errorf("sqs send: %s: %s", aws.ToString(f.Code), aws.ToString(f.Message))
		if f.SenderFault {
			return nil, err
		}
		for _, e := range sent {
			if aws.ToString(e.Id) == aws.ToString(f.Id) {
				mark(&e)
				todo = append(todo, e)
			}
		}
	}
	return todo, err
}

func (q *Queue) entry(i int, o Outgoing) types.SendMessageBatchRequestEntry {
	t := o.traced()
	attrs := t.enter(maps.Clone(o.Attributes), maxAttributes-1, q.largest-len(o.Body)-attributeRoom) // as mark adds to them
	e := types.SendMessageBatchRequestEntry{
		Id: aws.String(strconv.Itoa(i)), MessageBody: aws.String(string(o.Body)), MessageAttributes: attrs, MessageSystemAttributes: t.system(),
	}
	if fifo(q.url) {
		sum := sha256.Sum256(o.Body)
		name := hex.EncodeToString(sum[:])
		// A group of its own: jobs do not depend on each other.
		e.MessageGroupId, e.MessageDeduplicationId = new(cmp.Or(o.Group, name)), new(cmp.Or(o.Once, name))
	}
	if o.Delay > 0 && !fifo(q.url) {
		e.DelaySeconds = min(seconds(o.Delay), maxDelay)
	}
	if o.Again {
		mark(&e)
	}
	return e
}

func mark(e *types.SendMessageBatchRequestEntry) {
	if e.MessageAttributes == nil {
		e.MessageAttributes = make(map[string]types.MessageAttributeValue, 1)
	}
	e.MessageAttributes[attrAgain] = number(1)
}

func fifo(queue string) bool { return strings.HasSuffix(queue, ".fifo") }

// Bury implements worker.Source. The letter's attributes are upwell.class,
// upwell.reason, upwell.status, upwell.request_id, upwell.attempts, upwell.run,
// upwell.custom_id and upwell.first_failed; empty ones are left out, and the
// reason is shortened: the error line in the sink has all of it. The trace goes with
// them, see the package comment. When body and
// attributes do not fit into a message, as far as SQS says what its limit is, the
// error wraps [worker.ErrTooLarge], and nothing is sent. A letter with a BodyRef
// has that in the place of the body.
func (q *Queue) Bury(ctx context.Context, m jobs.Message, l jobs.DeadLetter) error {
	body := string(m.Body)
	if l.BodyRef != "" {
		body = reference{CustomID: l.CustomID, BodyRef: l.BodyRef}.text()
	}
	attrs, weight := letterAttributes(l)
	if weight += len(body); weight > MaxMessage {
		return fmt.Errorf("sqs bury: %d bytes with its attributes, and SQS takes %d: %w", weight, MaxMessage, worker.ErrTooLarge)
	}
	t := tracedOf(m)
	attrs = t.enter(attrs, maxAttributes, q.largest-len(body)) // the queue's limit, as that of the other is not known
	in := &sqs.SendMessageInput{QueueUrl: &q.dead, MessageBody: &body, MessageAttributes: attrs, MessageSystemAttributes: t.system()}
	if fifo(q.dead) {
		group := originOf(m).group
		if group == "" {
			group = m.ID
		}
		in.MessageGroupId, in.MessageDeduplicationId = &group, &m.ID
	}
	_, err := q.client.SendMessage(ctx, in)
	if l.BodyRef == "" && sdkerr.BareCode(err) == "InvalidParameterValue" {
		// The queue's own limit may be lower than SQS's, and that is how it says so.
		return fmt.Errorf("sqs bury: %w: %w", worker.ErrTooLarge, brief(err))
	}
	return wrap("bury", err)
}

// letterAttributes returns what a letter says beside its body, and what that
// weighs.
func letterAttributes(l jobs.DeadLetter) (attrs map[string]types.MessageAttributeValue, weight int) {
	attrs = make(map[string]types.MessageAttributeValue, 8)
	for _, a := range []struct{ name, value string }{
		{attrClass, string(l.Class)},
		{attrRun, l.Run},
		{attrCustomID, l.CustomID},
		{attrAttempts, strconv.Itoa(l.Attempts)},
		{attrFirstFailed, l.FirstFailed.UTC().Format(time.RFC3339)},
		{attrStatus, strconv.Itoa(l.Status)},
		{attrRequestID, l.RequestID},
		{attrReason, shorten(l.Reason)},
	} {
		value := strings.Map(legal, a.value)
		if value == "" || value == "0" && a.name == attrStatus {
			continue
		}
		weight += len(a.name) + len("String") + len(value)
		attrs[a.name] = types.MessageAttributeValue{DataType: aws.String("String"), StringValue: &value}
	}
	return attrs, weight
}

// A reference is the body of a letter or of a message whose own is stored elsewhere.
type reference struct {
	CustomID string `json:"custom_id,omitzero"`
	BodyRef  string `json:"body_ref"`
	Upwell   *inRun `json:"upwell,omitempty"`
}

type inRun struct {
	Run string `json:"run"`
}

func (r reference) text() string {
	b, err := json.Marshal(r)
	if err != nil {
		panic(err) // strings can be encoded
	}
	return escapes.Replace(string(b))
}

// Reference returns the body of a message that stands for a job which is stored at
// ref, an s3 URL, because a message has no room for it:
//
//	{"custom_id":"msa-0042","body_ref":"s3://bucket/key","upwell":{"run":"contracts"}}
func Reference(k jobs.Key, ref string) []byte {
	return []byte(reference{CustomID: k.CustomID, BodyRef: ref, Upwell: &inRun{k.Run}}.text())
}

// escapes spells the characters that JSON lets stand and SQS does not take.
var escapes = strings.NewReplacer("\ufffe", `\ufffe`, "\uffff", `\uffff`)

// Escape returns the text of a job with those characters in it that SQS does not take,
// and JSON lets stand within strings, spelt as escapes. It means the same.
func Escape(text []byte) []byte {
	if !bytes.Contains(text, []byte("\ufffe")) && !bytes.Contains(text, []byte("\uffff")) {
		return text
	}
	return []byte(escapes.Replace(string(text)))
}

func legal(r rune) rune {
	if illegal(r) {
		return ' '
	}
	return r
}

// shorten cuts a reason to what a dead letter has room for, at a whole character.
func shorten(s string) string {
	if len(s) <= maxReason {
		return s
	}
	return strings.ToValidUTF8(s[:maxReason-len("…")], "") + "…"
}

// pause waits for d and reports whether ctx was still going then.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
