package queuetest

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
)

var deadChecks = []check{
	{"redrive", redrive},
	{"redrive/exactly one", redriveOnce},
	{"redrive/DeadLetterQueueSourceArn", deadSource},
	{"redrive/policy as text", redrivePolicyText},
	{"ListDeadLetterSourceQueues", deadSources},
	{"StartMessageMoveTask", moveTask},
	{"StartMessageMoveTask/of no dead-letter queue", moveTaskRefused},
}

func policy(arn string, receives int) string {
	return fmt.Sprintf(`{"deadLetterTargetArn":%q,"maxReceiveCount":%d}`, arn, receives)
}

// dead returns a dead-letter queue for q, whose messages move there instead of
// being received more often than that.
func (q *queue) dead(receives int) *queue {
	d := q.create(newName(), nil)
	q.set(attrs{"RedrivePolicy": policy(d.arn(), receives)})
	return d
}

// exhaust receives a message of q as often as is allowed, and once more.
func (q *queue) exhaust(receives int) {
	for n := range receives {
		m := q.one()
		q.equal("ApproximateReceiveCount", m.Attributes["ApproximateReceiveCount"], strconv.Itoa(n+1))
		q.hide(m, 0)
	}
	if ms := q.receive(await(1)); len(ms) > 0 {
		q.Errorf("received %q, want nothing after %d receives", bodies(ms), receives)
	}
}

func redrive(q *queue) {
	d := q.dead(2)
	as := some()
	sent := q.put(&sqs.SendMessageInput{MessageBody: new("x"), MessageAttributes: as})
	q.exhaust(2)
	m := d.one()
	q.equal("Body", aws.ToString(m.Body), "x")
	q.equal("MessageId", aws.ToString(m.MessageId), aws.ToString(sent.MessageId))
	q.sameAttributes(m.MessageAttributes, as)
	q.has(0, 0, 0)
}

// redriveOnce has several receivers ask for a message that is due to be moved.
func redriveOnce(q *queue) {
	d := q.dead(1)
	q.sendBatch(entries("a", "b", "c"))
	q.hideBatch(0, receipts(q.several(3))...)
	for range 3 {
		q.none("they have been received once")
	}
	q.same(d.several(3), "a", "b", "c")
	d.none("each is there once")
	d.has(0, 3, 0)
	q.has(0, 0, 0)
}

func deadSource(q *queue) {
	d := q.dead(1)
	q.send("x")
	q.exhaust(1)
	q.equal("DeadLetterQueueSourceArn", d.one().Attributes["DeadLetterQueueSourceArn"], q.arn())
}

// redrivePolicyText has the number of receives as a text, which SQS takes too.
func redrivePolicyText(q *queue) {
	d := q.create(newName(), nil)
	q.set(attrs{"RedrivePolicy": fmt.Sprintf(`{"deadLetterTargetArn":%q,"maxReceiveCount":"1"}`, d.arn())})
	q.send("x")
	q.exhaust(1)
	d.one()
}

func deadSources(q *queue) {
	d := q.dead(3)
	other := q.create(newName(), attrs{"RedrivePolicy": policy(d.arn(), 5)})
	want := slices.Sorted(slices.Values([]string{q.url, other.url}))
	var got []string
	q.eventually(func() bool {
		out, err := q.client.ListDeadLetterSourceQueues(q.Context(), &sqs.ListDeadLetterSourceQueuesInput{QueueUrl: &d.url})
		q.must(err)
		got = slices.Sorted(slices.Values(out.QueueUrls))
		return slices.Equal(got, want)
	}, func() { q.Errorf("the sources are %q, want %q", got, want) })
}

func moveTask(q *queue) {
	d := q.dead(1)
	q.send("a", "b")
	q.hideBatch(0, receipts(q.several(2))...)
	q.none("they have been received once")
	d.has(2, 0, 0)
	arn := d.arn()
	task, err := q.client.StartMessageMoveTask(q.Context(), &sqs.StartMessageMoveTaskInput{SourceArn: &arn})
	q.must(err)
	if aws.ToString(task.TaskHandle) == "" {
		q.Errorf("there is no TaskHandle")
	}
	q.same(q.several(2), "a", "b")
	d.has(0, 0, 0)
	var last types.ListMessageMoveTasksResultEntry
	q.eventually(func() bool {
		out, err := q.client.ListMessageMoveTasks(q.Context(), &sqs.ListMessageMoveTasksInput{SourceArn: &arn})
		q.must(err)
		if len(out.Results) != 1 {
			q.Fatalf("there are %d tasks, want 1", len(out.Results))
		}
		last = out.Results[0]
		return aws.ToString(last.Status) == "COMPLETED"
	}, func() { q.Errorf("the task is %s, want COMPLETED", aws.ToString(last.Status)) })
	if last.ApproximateNumberOfMessagesMoved != 2 {
		q.Errorf("%d messages were moved, want 2", last.ApproximateNumberOfMessagesMoved)
	}
	if at := time.UnixMilli(last.StartedTimestamp); time.Since(at).Abs() > time.Hour {
		q.Errorf("the task was started at %v, want about now", at)
	}
}

func moveTaskRefused(q *queue) {
	arn := q.arn()
	_, err := q.client.StartMessageMoveTask(q.Context(), &sqs.StartMessageMoveTaskInput{SourceArn: &arn})
	q.refused(err, "moving messages of a queue that is no dead-letter queue")
}
