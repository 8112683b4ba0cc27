package queuetest

import (
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
)

var queueChecks = []check{
	{"CreateQueue/attributes", createAttributes},
	{"CreateQueue/defaults", createDefaults},
	{"CreateQueue/again", createAgain},
	{"CreateQueue/QueueNameExists", createDifferent},
	{"CreateQueue/invalid name", createInvalidName},
	{"CreateQueue/invalid attribute", createInvalidAttribute},
	{"GetQueueUrl", queueURL},
	{"ListQueues", listQueues},
	{"QueueDoesNotExist", noQueue},
	{"SetQueueAttributes", setAttributes},
	{"SetQueueAttributes/invalid", setInvalid},
	{"SetQueueAttributes/invalid RedrivePolicy", setInvalidRedrive},
	{"GetQueueAttributes/selected", selectedAttributes},
	{"GetQueueAttributes/counts", counts},
	{"PurgeQueue", purge},
	{"PurgeQueue/again", purgeAgain},
}

func createAttributes(q *queue) {
	want := attrs{
		"VisibilityTimeout": "17", "DelaySeconds": "3", "MessageRetentionPeriod": "3600", "ReceiveMessageWaitTimeSeconds": "4",
		"MaximumMessageSize": "2048",
	}
	got := q.create(newName(), want).attributes()
	for name, value := range want {
		q.equal(name, got[name], value)
	}
}

func createDefaults(q *queue) {
	got := q.attributes()
	for name, value := range (attrs{
		"VisibilityTimeout": "30", "DelaySeconds": "0", "MessageRetentionPeriod": "345600", "ReceiveMessageWaitTimeSeconds": "0",
		"MaximumMessageSize": "1048576", "ApproximateNumberOfMessages": "0",
	}) {
		q.equal(name, got[name], value)
	}
	arn := got["QueueArn"]
	if !strings.HasPrefix(arn, "arn:aws:sqs:") || !strings.HasSuffix(arn, ":"+q.name) {
		q.Errorf("QueueArn is %q, want arn:aws:sqs:REGION:ACCOUNT:%s", arn, q.name)
	}
	q.equal("the name in the URL", base(q.url), q.name)
}

func createAgain(q *queue) {
	a := attrs{"VisibilityTimeout": "17"}
	first := q.create(newName(), a)
	q.equal("the URL of a queue made twice", q.create(first.name, a).url, first.url)
	q.equal("the URL of a queue made again without attributes", q.create(first.name, nil).url, first.url)
}

func createDifferent(q *queue) {
	_, err := q.client.CreateQueue(q.Context(), &sqs.CreateQueueInput{
		QueueName: &q.name, Attributes: attrs{"VisibilityTimeout": "31"},
	})
	typed[*types.QueueNameExists](q, err, "making a queue again with another attribute")
}

func createInvalidName(q *queue) {
	for _, name := range []string{"not a name", strings.Repeat("x", 81), newName() + ".fifo"} {
		_, err := q.client.CreateQueue(q.Context(), &sqs.CreateQueueInput{QueueName: &name})
		q.refused(err, "making a queue called "+name)
	}
}

func createInvalidAttribute(q *queue) {
	for name, value := range (attrs{"VisibilityTimeout": "43201", "MessageRetentionPeriod": "59", "DelaySeconds": "no"}) {
		_, err := q.client.CreateQueue(q.Context(), &sqs.CreateQueueInput{QueueName: new(newName()), Attributes: attrs{name: value}})
		typed[*types.InvalidAttributeValue](q, err, "making a queue whose "+name+" is "+value)
	}
}

func queueURL(q *queue) {
	out, err := q.client.GetQueueUrl(q.Context(), &sqs.GetQueueUrlInput{QueueName: &q.name})
	q.must(err)
	q.equal("QueueUrl", aws.ToString(out.QueueUrl), q.url)
}

func listQueues(q *queue) {
	other := q.create(q.name+"-other", nil)
	q.create(newName(), nil)
	want := []string{q.url, other.url}
	var got []string
	q.eventually(func() bool {
		out, err := q.client.ListQueues(q.Context(), &sqs.ListQueuesInput{QueueNamePrefix: &q.name})
		q.must(err)
		got = slices.Sorted(slices.Values(out.QueueUrls))
		return slices.Equal(got, want)
	}, func() { q.Errorf("queues that begin with a name: got %q, want %q", got, want) })
}

// noQueue asks every operation that a worker uses for a queue that is not there.
func noQueue(q *queue) {
	ctx, url, name := q.Context(), q.url+"-not", new(q.name+"-not")
	_, err := q.client.GetQueueUrl(ctx, &sqs.GetQueueUrlInput{QueueName: name})
	typed[*types.QueueDoesNotExist](q, err, "GetQueueUrl")
	_, err = q.client.GetQueueAttributes(ctx, &sqs.GetQueueAttributesInput{QueueUrl: &url})
	typed[*types.QueueDoesNotExist](q, err, "GetQueueAttributes")
	_, err = q.client.SendMessage(ctx, &sqs.SendMessageInput{QueueUrl: &url, MessageBody: new("x")})
	typed[*types.QueueDoesNotExist](q, err, "SendMessage")
	_, err = q.client.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{QueueUrl: &url})
	typed[*types.QueueDoesNotExist](q, err, "ReceiveMessage")
	_, err = q.client.SendMessageBatch(ctx, &sqs.SendMessageBatchInput{
		QueueUrl: &url, Entries: []types.SendMessageBatchRequestEntry{{Id: new("a"), MessageBody: new("x")}},
	})
	typed[*types.QueueDoesNotExist](q, err, "SendMessageBatch")
}

func setAttributes(q *queue) {
	q.set(attrs{"VisibilityTimeout": "41", "MaximumMessageSize": "1024"})
	got := q.attributes()
	q.equal("VisibilityTimeout", got["VisibilityTimeout"], "41")
	q.equal("MaximumMessageSize", got["MaximumMessageSize"], "1024")
	q.equal("MessageRetentionPeriod, which was not set,", got["MessageRetentionPeriod"], "345600")
	_, err := q.trySend(&sqs.SendMessageInput{MessageBody: new(strings.Repeat("x", 1025))})
	q.coded(err, "InvalidParameterValue", "sending more than MaximumMessageSize")
	q.send(strings.Repeat("x", 1024))
}

func setInvalid(q *queue) {
	typed[*types.InvalidAttributeValue](q, q.trySet("VisibilityTimeout", "43201"), "a VisibilityTimeout of over 12 hours")
	typed[*types.InvalidAttributeName](q, q.trySet("NoSuchAttribute", "1"), "an attribute that there is not")
}

func setInvalidRedrive(q *queue) {
	q.refused(q.trySet("RedrivePolicy", "{"), "a RedrivePolicy that is no JSON")
	q.refused(q.trySet("RedrivePolicy", policy(q.arn()+"-not", 3)), "a dead-letter queue that there is not")
	q.refused(q.trySet("RedrivePolicy", policy(q.create(newName(), nil).arn(), 0)), "a dead-letter queue after no receive")
}

func selectedAttributes(q *queue) {
	got := q.attributes(types.QueueAttributeNameVisibilityTimeout, types.QueueAttributeNameQueueArn)
	if len(got) != 2 || got["VisibilityTimeout"] != "30" || got["QueueArn"] == "" {
		q.Errorf("got %q, want VisibilityTimeout and QueueArn alone", got)
	}
}

func counts(q *queue) {
	q.has(0, 0, 0)
	q.send("a", "b", "c")
	q.put(&sqs.SendMessageInput{MessageBody: new("later"), DelaySeconds: 60})
	q.has(3, 0, 1)
	m := q.one()
	q.has(2, 1, 1)
	q.delete(m)
	q.has(2, 0, 1)
}

func purge(q *queue) {
	q.send("a", "b")
	q.put(&sqs.SendMessageInput{MessageBody: new("later"), DelaySeconds: 60})
	q.one()
	_, err := q.client.PurgeQueue(q.Context(), &sqs.PurgeQueueInput{QueueUrl: &q.url})
	q.must(err)
	q.has(0, 0, 0)
	q.send("after")
	q.same(q.several(1), "after")
}

func purgeAgain(q *queue) {
	_, err := q.client.PurgeQueue(q.Context(), &sqs.PurgeQueueInput{QueueUrl: &q.url})
	q.must(err)
	_, err = q.client.PurgeQueue(q.Context(), &sqs.PurgeQueueInput{QueueUrl: &q.url})
	typed[*types.PurgeQueueInProgress](q, err, "purging again within a minute")
}
