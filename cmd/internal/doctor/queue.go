package doctor

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"upwell/jobs/sqsqueue"
)

const (
	// shortestHide is the visibility timeout below which a message whose worker
	// has not begun to renew it yet may come back. A worker sets its own.
	shortestHide = 30 * time.Second

	// leastRetention and goodRetention are how long a queue should keep jobs: what
	// waits longer is gone without a trace. Four days is SQS's default; within a
	// day a slow lane or a weekend's outage is enough.
	leastRetention = 24 * time.Hour
	goodRetention  = 4 * 24 * time.Hour

	// goodReceives is the number of deliveries that a redrive policy should
	// allow. SQS counts one for each worker that dies, and moves the message
	// without a reason.
	goodReceives  = 10
	leastReceives = 3
)

// A verdict gathers what is to be said of one thing: the worst decides.
type verdict struct {
	status Status // OK if empty
	found  []string
	fixes  []string
}

func (v *verdict) add(s Status, fix, format string, args ...any) {
	if v.status != Failure {
		v.status = s
	}
	v.found = append(v.found, fmt.Sprintf(format, args...))
	if fix != "" {
		v.fixes = append(v.fixes, fix)
	}
}

// note notes the verdict, or that all is well.
func (v *verdict) note(x *exam, check, well string) {
	if v.status == "" {
		x.note(check, OK, well, "")
		return
	}
	x.note(check, v.status, strings.Join(v.found, "; "), strings.Join(v.fixes, "\n"))
}

// queues examines the queue and the dead-letter queue.
func (x *exam) queues(ctx context.Context, signed bool) {
	why := ""
	switch {
	case x.cfg.Queue == "":
		why = "no --queue"
	case !signed:
		why = "no AWS credentials"
	case x.cfg.AWS.Region == "":
		why = "no Region"
	}
	if why != "" {
		x.skip(why, checkQueue, checkSettings, checkDead)
		return
	}
	client := x.queueClient()
	q, attrs, ok := x.queue(ctx, client)
	if !ok {
		x.skip("the queue was not found", checkSettings, checkDead)
		return
	}
	var probing sync.WaitGroup
	probing.Go(func() { x.probeQueue(ctx, client, q) })
	if attrs == nil {
		x.skip("the queue's attributes may not be read", checkSettings)
	} else {
		x.settings(q, attrs)
	}
	x.deadLetters(ctx, client, q, attrs)
	probing.Wait()
}

// A place is a queue's URL, and what it says.
type place struct{ url, region, account, name string }

// newPlace reads a queue's URL. It knows the Region if the host has one.
func newPlace(raw string) place {
	p := place{url: raw, region: regionOf(raw)}
	if u, err := url.Parse(raw); err == nil {
		parts := strings.Split(strings.Trim(u.Path, "/"), "/")
		p.name = parts[len(parts)-1]
		if len(parts) > 1 {
			p.account = parts[len(parts)-2]
		}
	}
	return p
}

// arn returns the queue's name for policies; home is its Region if the URL has none.
func (p place) arn(home string) string {
	region := cmp.Or(p.region, home)
	return fmt.Sprintf("arn:%s:sqs:%s:%s:%s", partition(region), region, p.account, p.name)
}

// partition returns the part of AWS that a Region is in.
func partition(region string) string {
	switch {
	case strings.HasPrefix(region, "us-gov-"):
		return "aws-us-gov"
	case strings.HasPrefix(region, "cn-"):
		return "aws-cn"
	default:
		return "aws"
	}
}

// find returns the place of the queue with that name or URL.
func (x *exam) find(ctx context.Context, client *sqs.Client, name string) (place, error) {
	if strings.Contains(name, "://") {
		return newPlace(name), nil
	}
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	out, err := client.GetQueueUrl(ctx, &sqs.GetQueueUrlInput{QueueName: &name})
	x.weigh("sqs:GetQueueUrl", place{account: x.number(), name: name}.arn(x.cfg.AWS.Region), err)
	if err != nil {
		return place{}, err
	}
	return newPlace(aws.ToString(out.QueueUrl)), nil
}

// number returns the account's number, or what stands for any.
func (x *exam) number() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return cmp.Or(x.account, "*")
}

func (x *exam) attributes(ctx context.Context, client *sqs.Client, q place) (map[string]string, error) {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	out, err := client.GetQueueAttributes(ctx, &sqs.GetQueueAttributesInput{
		QueueUrl: &q.url, AttributeNames: []types.QueueAttributeName{types.QueueAttributeNameAll},
	})
	x.weigh("sqs:GetQueueAttributes", q.arn(x.cfg.AWS.Region), err)
	if err != nil {
		return nil, err
	}
	return out.Attributes, nil
}

// queue finds the queue and reads its attributes, or returns nil for them if they may
// not be read.
func (x *exam) queue(ctx context.Context, client *sqs.Client) (q place, attrs map[string]string, ok bool) {
	q, err := x.find(ctx, client, x.cfg.Queue)
	if err == nil {
		attrs, err = x.attributes(ctx, client, q)
		x.mu.Lock()
		x.account, x.queueRegion = cmp.Or(x.account, q.account), cmp.Or(q.region, regionOfARN(attrs["QueueArn"]))
		x.mu.Unlock()
	}
	switch {
	case err == nil:
		fifo := ""
		if attrs["FifoQueue"] == "true" {
			fifo = ", FIFO: the jobs of a group come one batch after another"
		}
		x.ok(checkQueue, "%s, %s waiting, %s in flight%s", q.name,
			attrs["ApproximateNumberOfMessages"], attrs["ApproximateNumberOfMessagesNotVisible"], fifo)
		return q, attrs, true
	case absent(err):
		x.note(checkQueue, Failure, fmt.Sprintf("there is no queue %s in %s, or none that may be seen", x.cfg.Queue, x.cfg.AWS.Region),
			"correct --queue or AWS_REGION, or make one: aws sqs create-queue --queue-name "+cmp.Or(newPlace(x.cfg.Queue).name, "jobs")+" --attributes VisibilityTimeout=120")
	case denied(err) && q.url != "":
		x.note(checkQueue, Warning, q.name+": its attributes may not be read", "see permissions")
		return q, nil, true
	case denied(err):
		x.note(checkQueue, Failure, x.cfg.Queue+" may not be looked up", "see permissions, or give the queue's URL")
	default:
		found, fix := trouble(err)
		x.note(checkQueue, Failure, x.cfg.Queue+": "+found, fix)
	}
	return q, nil, false
}

// regionOfARN returns the Region in an ARN, or nothing.
func regionOfARN(arn string) string {
	if parts := strings.Split(arn, ":"); len(parts) > 3 {
		return parts[3]
	}
	return ""
}

// settings judges the queue's attributes.
func (x *exam) settings(q place, attrs map[string]string) {
	hide, keep := secondsIn(attrs["VisibilityTimeout"]), secondsIn(attrs["MessageRetentionPeriod"])
	size, _ := strconv.Atoi(attrs["MaximumMessageSize"])
	var v verdict
	var set []string
	if hide < shortestHide {
		v.add(Warning, "", "visibility timeout %s: others than workers give messages back too soon", duration(hide))
		set = append(set, "VisibilityTimeout=120")
	}
	if keep < goodRetention {
		status := Warning
		if keep < leastRetention {
			status = Failure
		}
		v.add(status, "", "retention %s: SQS deletes what waits longer, without a trace", duration(keep))
		set = append(set, "MessageRetentionPeriod=345600")
	}
	if size < sqsqueue.MaxMessage {
		v.add(Warning, "", "messages of %d KiB at most: larger jobs cannot be queued", size>>10)
		set = append(set, "MaximumMessageSize=1048576")
	}
	if len(set) > 0 {
		v.fixes = []string{"aws sqs set-queue-attributes --queue-url " + q.url + " --attributes " + strings.Join(set, ",")}
	}
	well := fmt.Sprintf("visibility %s, retention %s, messages up to %d KiB", duration(hide), duration(keep), size>>10)
	if key := attrs["KmsMasterKeyId"]; key != "" {
		well += ", encrypted with " + key + ": allow kms:Decrypt and kms:GenerateDataKey on it"
	}
	v.note(x, checkSettings, well)
}

// secondsIn reads an attribute in seconds.
func secondsIn(s string) time.Duration {
	n, _ := strconv.Atoi(s)
	return time.Duration(n) * time.Second
}

// deadLetters examines the redrive policy and the dead-letter queue. attrs are those
// of the queue, or nil.
func (x *exam) deadLetters(ctx context.Context, client *sqs.Client, q place, attrs map[string]string) {
	var policy struct {
		Target string      `json:"deadLetterTargetArn"`
		Count  json.Number `json:"maxReceiveCount"` // or a string with one, which Number takes
	}
	_ = json.Unmarshal([]byte(attrs["RedrivePolicy"]), &policy) // none is empty
	target := policy.Target[strings.LastIndexByte(policy.Target, ':')+1:]
	name := cmp.Or(x.cfg.Dead, target)
	fix := x.redrive(q, cmp.Or(x.cfg.Dead, q.name+"-dead"))
	if name == "" {
		if attrs == nil {
			x.skip("the queue's attributes may not be read: give --dead-queue", checkDead)
			return
		}
		x.note(checkDead, Failure, "the queue has no redrive policy, and no --dead-queue is named", fix)
		return
	}
	d, letters, ok := x.deadQueue(ctx, client, name, q, target == "")
	if !ok {
		return
	}
	var v verdict
	n, _ := strconv.Atoi(policy.Count.String())
	switch {
	case attrs == nil: // the policy may not be read
	case target == "":
		v.add(Warning, fix, "the queue has no redrive policy: SQS never takes out a message that nobody settles")
	case target != d.name:
		v.add(Warning, "--dead-queue "+target, "workers bury jobs in %s, and SQS moves them to %s", d.name, target)
	case n < leastReceives:
		v.add(Failure, x.redrive(q, target), "maxReceiveCount %d: %d workers that die, and SQS moves the job without a reason", n, n)
	case n < goodReceives:
		v.add(Warning, x.redrive(q, target), "maxReceiveCount %d: after as many workers that die SQS moves the job without a reason", n)
	}
	if keep, queued := secondsIn(letters["MessageRetentionPeriod"]), secondsIn(attrs["MessageRetentionPeriod"]); letters != nil && attrs != nil && keep <= queued {
		v.add(Warning, "aws sqs set-queue-attributes --queue-url "+d.url+" --attributes MessageRetentionPeriod=1209600",
			"retention of letters is %s and the queue's is %s: a letter that SQS moves keeps its age", duration(keep), duration(queued))
	}
	if !x.probeDead(ctx, client, d) {
		v.add(Failure, "see permissions", "nothing may be sent to %s", d.name)
	}
	well := d.name
	if n > 0 {
		well += fmt.Sprintf(", after %d deliveries", n)
	}
	if letters != nil {
		well += fmt.Sprintf(", retention %s, %s letters", duration(secondsIn(letters["MessageRetentionPeriod"])), letters["ApproximateNumberOfMessages"])
	}
	v.note(x, checkDead, well)
}

// deadQueue finds the dead-letter queue and reads its attributes, or returns nil for
// them if they may not be read.
func (x *exam) deadQueue(ctx context.Context, client *sqs.Client, name string, q place, loose bool) (d place, attrs map[string]string, ok bool) {
	d, err := x.find(ctx, client, name)
	if err == nil {
		attrs, err = x.attributes(ctx, client, d)
	}
	switch {
	case err == nil, denied(err) && d.url != "":
		return d, attrs, true
	case absent(err):
		fix := "aws sqs create-queue --queue-name " + cmp.Or(newPlace(name).name, name) + " --attributes MessageRetentionPeriod=1209600"
		if loose {
			fix += "\n" + x.redrive(q, name)
		}
		x.note(checkDead, Failure, "there is no queue "+name+", or none that may be seen", fix)
	case denied(err):
		x.note(checkDead, Failure, name+" may not be looked up", "see permissions, or give its URL with --dead-queue")
	default:
		found, fix := trouble(err)
		x.note(checkDead, Failure, name+": "+found, fix)
	}
	return d, nil, false
}

// redrive is the command that gives a queue a redrive policy.
func (x *exam) redrive(q place, dead string) string {
	d := place{account: q.account, region: q.region, name: dead}
	if strings.Contains(dead, "://") {
		d = newPlace(dead)
	}
	policy := fmt.Sprintf(`{"deadLetterTargetArn":%q,"maxReceiveCount":"100"}`, d.arn(x.cfg.AWS.Region))
	return fmt.Sprintf(`aws sqs set-queue-attributes --queue-url %s --attributes '{"RedrivePolicy":%q}'`, q.url, policy)
}

// madeUp is a receipt that no queue ever gave.
const madeUp = "upwell-doctor"

// errTaken is the error of a probe that was carried out.
var errTaken = errors.New("an invalid request was carried out: this is not AWS's SQS")

// probeQueue asks whether the actions that a worker takes on its queue are allowed,
// with requests that nobody can carry out.
func (x *exam) probeQueue(ctx context.Context, client *sqs.Client, q place) {
	arn := q.arn(x.cfg.AWS.Region)
	probe := func(action string, ask func(context.Context) error) {
		ctx, cancel := context.WithTimeout(ctx, stepTimeout)
		defer cancel()
		x.weigh(action, arn, ask(ctx))
	}
	probe("sqs:ReceiveMessage", func(ctx context.Context) error {
		out, err := client.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{
			QueueUrl: &q.url, MaxNumberOfMessages: 11, VisibilityTimeout: 43201, WaitTimeSeconds: 21, // each of them one too many
		})
		return taken(err, err == nil && len(out.Messages) > 0)
	})
	probe("sqs:SendMessage", func(ctx context.Context) error { return send(ctx, client, q) })
	probe("sqs:DeleteMessage", func(ctx context.Context) error {
		out, err := client.DeleteMessageBatch(ctx, &sqs.DeleteMessageBatchInput{
			QueueUrl: &q.url, Entries: []types.DeleteMessageBatchRequestEntry{{Id: aws.String("doctor"), ReceiptHandle: aws.String(madeUp)}},
		})
		if err != nil {
			return err
		}
		return entry(out.Failed)
	})
	probe("sqs:ChangeMessageVisibility", func(ctx context.Context) error {
		out, err := client.ChangeMessageVisibilityBatch(ctx, &sqs.ChangeMessageVisibilityBatchInput{
			QueueUrl: &q.url, Entries: []types.ChangeMessageVisibilityBatchRequestEntry{
				{Id: aws.String("doctor"), ReceiptHandle: aws.String(madeUp), VisibilityTimeout: 43201},
			},
		})
		if err != nil {
			return err
		}
		return entry(out.Failed)
	})
}

// probeDead reports whether letters may be sent, as far as can be told.
func (x *exam) probeDead(ctx context.Context, client *sqs.Client, d place) bool {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	return x.weigh("sqs:SendMessage", d.arn(x.cfg.AWS.Region), send(ctx, client, d))
}

// send sends a message that SQS cannot take: it has a character that is not allowed,
// and too long a delay.
func send(ctx context.Context, client *sqs.Client, q place) error {
	e := types.SendMessageBatchRequestEntry{
		Id: aws.String("doctor"), DelaySeconds: 901,
		MessageBody: aws.String("upwell doctor asks whether it may send, and nobody should see this\x01"),
	}
	if strings.HasSuffix(q.name, ".fifo") {
		e.MessageGroupId, e.MessageDeduplicationId = aws.String("doctor"), aws.String("doctor")
	}
	out, err := client.SendMessageBatch(ctx, &sqs.SendMessageBatchInput{QueueUrl: &q.url, Entries: []types.SendMessageBatchRequestEntry{e}})
	if err != nil {
		return err
	}
	return taken(entry(out.Failed), len(out.Successful) > 0)
}

func taken(err error, carriedOut bool) error {
	if carriedOut {
		return errTaken
	}
	return err
}
