package queuetest

import (
	"math/big"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
)

// fifoChecks are given a FIFO queue.
var fifoChecks = []check{
	{"FIFO/order", fifoOrder},
	{"FIFO/order in a batch", fifoBatch},
	{"FIFO/several of a group at once", fifoSeveral},
	{"FIFO/group lock", fifoLock},
	{"FIFO/redelivery in order", fifoRedelivery},
	{"FIFO/redelivery up to one in flight", fifoUpTo},
	{"FIFO/deduplication", fifoDeduplication},
	{"FIFO/deduplication by content", fifoContent},
	{"FIFO/deduplication after delete", fifoDeduplicationAfterDelete},
	{"FIFO/sequence numbers", fifoSequence},
	{"FIFO/system attributes", fifoAttributes},
	{"FIFO/group required", fifoRequired},
	{"FIFO/group invalid", fifoInvalid},
	{"FIFO/delay of a message", fifoDelay},
	{"FIFO/redrive", fifoRedrive},
	{"FIFO/redrive to a standard queue", fifoRedriveStandard},
}

// in returns a message for a group, named after its body.
func in(group, body string) *sqs.SendMessageInput {
	return &sqs.SendMessageInput{MessageBody: &body, MessageGroupId: &group, MessageDeduplicationId: &body}
}

// drain receives and deletes n messages, and complains unless those of a group,
// which is the first letter of their bodies, come in the order of the digits.
func (q *queue) drain(n int) {
	last := make(map[byte]string)
	for end := time.Now().Add(patience); n > 0 && time.Now().Before(end); {
		for _, m := range q.receive(await(1)) {
			b := aws.ToString(m.Body)
			if before := last[b[0]]; b <= before {
				q.Errorf("received %s after %s", b, before)
			}
			last[b[0]] = b
			q.delete(m)
			n--
		}
	}
	if n != 0 {
		q.Errorf("%d messages have not come", n)
	}
}

func fifoOrder(q *queue) {
	for i := range 9 {
		for _, group := range []string{"a", "b", "c"} {
			q.put(in(group, group+strconv.Itoa(i)))
		}
	}
	q.drain(27)
}

func fifoBatch(q *queue) {
	es := entries("a0", "a1", "b0", "a2", "b1", "a3", "b2", "a4", "a5", "a6")
	for i, e := range es {
		es[i].MessageGroupId, es[i].MessageDeduplicationId = new((*e.MessageBody)[:1]), e.MessageBody
	}
	out := q.sendBatch(es)
	q.fates(ids(out.Successful, sentID), out.Failed, "0 1 2 3 4 5 6 7 8 9", "")
	for _, s := range out.Successful {
		if aws.ToString(s.SequenceNumber) == "" {
			q.Errorf("entry %s has no SequenceNumber", aws.ToString(s.Id))
		}
	}
	q.drain(10)
}

// fifoSeveral receives messages of one group together, in order.
func fifoSeveral(q *queue) {
	for _, body := range []string{"a0", "a1", "a2"} {
		q.put(in("a", body))
	}
	q.equal("what is received at once", strings.Join(bodies(q.receive(await(1))), " "), "a0 a1 a2")
}

// fifoLock holds one message of a group: the rest of it waits, other groups go on.
func fifoLock(q *queue) {
	for _, body := range []string{"a0", "a1", "b0", "b1"} {
		q.put(in(body[:1], body))
	}
	held := q.one()
	other := map[string]string{"a0": "b0", "b0": "a0"}[aws.ToString(held.Body)]
	q.equal("the second", aws.ToString(q.one().Body), other)
	q.none("both groups have a message in flight")
	q.delete(held)
	q.equal("the third", aws.ToString(q.one().Body), strings.Replace(aws.ToString(held.Body), "0", "1", 1))
	q.none("both groups have a message in flight again")
}

func fifoRedelivery(q *queue) {
	q.put(in("a", "a0"))
	q.put(in("a", "a1"))
	start := time.Now()
	q.equal("the first", aws.ToString(q.one(hide(1)).Body), "a0")
	again := q.one(await(5))
	q.within(start, time.Second, "received again")
	q.equal("the first again", aws.ToString(again.Body), "a0")
	q.hide(again, 0)
	q.drain(2)
}

// fifoUpTo gives back the first and the last of three that were received together:
// the last waits for the one between.
func fifoUpTo(q *queue) {
	for _, body := range []string{"a0", "a1", "a2"} {
		q.put(in("a", body))
	}
	ms := q.receive(await(1))
	if len(ms) != 3 {
		q.Fatalf("received %q at once, want three", bodies(ms))
	}
	q.hide(ms[2], 0)
	q.none("two before it are in flight")
	q.hide(ms[0], 0)
	q.equal("what is received", strings.Join(bodies(q.receive(await(1))), " "), "a0")
	q.none("the second is in flight, and before the third")
}

func fifoDeduplication(q *queue) {
	first := q.put(in("a", "a0"))
	second := in("a", "a1")
	second.MessageDeduplicationId = new("a0")
	q.put(second)
	m := q.one()
	q.equal("Body", aws.ToString(m.Body), "a0")
	q.equal("MessageId", aws.ToString(m.MessageId), aws.ToString(first.MessageId))
	q.has(0, 1, 0)
}

func fifoContent(q *queue) {
	_, err := q.trySend(&sqs.SendMessageInput{MessageBody: new("x"), MessageGroupId: new("a")})
	q.refused(err, "sending without a deduplication id")
	q.set(attrs{"ContentBasedDeduplication": "true"})
	for _, body := range []string{"a0", "a0", "a1"} {
		q.put(&sqs.SendMessageInput{MessageBody: &body, MessageGroupId: new("a")})
	}
	q.has(2, 0, 0)
	q.drain(2)
}

func fifoDeduplicationAfterDelete(q *queue) {
	q.put(in("a", "a0"))
	q.delete(q.one())
	q.put(in("a", "a0"))
	q.none("its id is remembered for five minutes")
	q.has(0, 0, 0)
}

func fifoSequence(q *queue) {
	last := new(big.Int)
	for i := range 5 {
		sent := q.put(in("a", "a"+strconv.Itoa(i)))
		s := aws.ToString(sent.SequenceNumber)
		n, ok := new(big.Int).SetString(s, 10)
		if !ok || n.Cmp(last) <= 0 {
			q.Fatalf("SequenceNumber is %q after %v, want a greater number", s, last)
		}
		last = n
		if m := q.one(); m.Attributes["SequenceNumber"] != s {
			q.Errorf("SequenceNumber is %q where received, %q where sent", m.Attributes["SequenceNumber"], s)
		} else {
			q.delete(m)
		}
	}
}

func fifoAttributes(q *queue) {
	q.put(in("group", "x"))
	m := q.one()
	q.equal("MessageGroupId", m.Attributes["MessageGroupId"], "group")
	q.equal("MessageDeduplicationId", m.Attributes["MessageDeduplicationId"], "x")
	got := q.attributes()
	q.equal("FifoQueue", got["FifoQueue"], "true")
	q.equal("ContentBasedDeduplication", got["ContentBasedDeduplication"], "false")
}

func fifoRequired(q *queue) {
	_, err := q.trySend(&sqs.SendMessageInput{MessageBody: new("x"), MessageDeduplicationId: new("x")})
	q.refused(err, "sending without a group")
	q.has(0, 0, 0)
}

func fifoInvalid(q *queue) {
	for what, bad := range map[string]string{"a space in it": "a b", "129 characters": strings.Repeat("x", 129)} {
		_, err := q.trySend(&sqs.SendMessageInput{MessageBody: new("x"), MessageDeduplicationId: new("x"), MessageGroupId: &bad})
		q.refused(err, "sending with a group of "+what)
	}
	q.has(0, 0, 0)
}

func fifoDelay(q *queue) {
	m := in("a", "a0")
	m.DelaySeconds = 1
	_, err := q.trySend(m)
	q.refused(err, "delaying a single message")
	q.has(0, 0, 0)
}

func fifoRedrive(q *queue) {
	d := q.create(newName()+".fifo", attrs{"FifoQueue": "true"})
	q.set(attrs{"RedrivePolicy": policy(d.arn(), 1)})
	q.put(in("a", "a0"))
	q.put(in("a", "a1"))
	q.hide(q.one(), 0)
	q.equal("the next", aws.ToString(q.one(await(2)).Body), "a1")
	dead := d.one()
	q.equal("the dead one", aws.ToString(dead.Body), "a0")
	q.equal("its group", dead.Attributes["MessageGroupId"], "a")
}

func fifoRedriveStandard(q *queue) {
	d := q.create(newName(), nil)
	q.refused(q.trySet("RedrivePolicy", policy(d.arn(), 1)), "a standard dead-letter queue for a FIFO queue")
}
