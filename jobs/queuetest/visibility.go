package queuetest

import (
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
)

var visibilityChecks = []check{
	{"visibility/expires", visibilityExpires},
	{"visibility/of the queue", visibilityOfQueue},
	{"visibility/extended", visibilityExtended},
	{"visibility/shortened", visibilityShortened},
	{"visibility/zero", visibilityZero},
	{"visibility/of one given back", visibilityOfVisible},
	{"visibility/invalid", visibilityInvalid},
	{"visibility/of one among several", visibilityOfOne},
	{"receipt/new with each receive", receiptsDiffer},
	{"receipt/old one does not delete", staleDelete},
	{"receipt/old one does not hide", staleHide},
	{"receipt/made up does not hide", madeUpHide},
	{"receipt/made up does not delete", madeUpDelete},
	{"receipt/of a deleted message", receiptOfDeleted},
}

func visibilityExpires(q *queue) {
	q.send("x")
	start := time.Now()
	q.one(hide(2))
	m := q.one(await(5))
	q.within(start, 2*time.Second, "received again")
	q.equal("ApproximateReceiveCount", m.Attributes["ApproximateReceiveCount"], "2")
}

func visibilityOfQueue(q *queue) {
	q.set(attrs{"VisibilityTimeout": "2"})
	q.send("x")
	start := time.Now()
	first, err := q.client.ReceiveMessage(q.Context(), &sqs.ReceiveMessageInput{QueueUrl: &q.url, WaitTimeSeconds: 5})
	q.must(err)
	q.same(first.Messages, "x")
	q.one(await(5))
	q.within(start, 2*time.Second, "received again")
}

// visibilityExtended renews a timeout before it is over, as a heartbeat does. The
// new one counts from then.
func visibilityExtended(q *queue) {
	q.send("x")
	m := q.one(hide(3))
	q.sleep(time.Second)
	extended := time.Now()
	q.hide(m, 4)
	q.one(await(10))
	q.within(extended, 4*time.Second, "received again")
}

func visibilityShortened(q *queue) {
	q.send("x")
	m := q.one(hide(600))
	shortened := time.Now()
	q.hide(m, 1)
	q.one(await(10))
	q.within(shortened, time.Second, "received again")
}

func visibilityZero(q *queue) {
	q.send("x")
	for want := range 3 {
		m := q.one()
		q.equal("ApproximateReceiveCount", m.Attributes["ApproximateReceiveCount"], strconv.Itoa(want+1))
		q.hide(m, 0)
		q.has(1, 0, 0)
	}
}

// visibilityOfVisible has a heartbeat come after its message was given back. Whether
// that is an error is left open; the message is anybody's.
func visibilityOfVisible(q *queue) {
	q.send("x")
	m := q.one()
	q.hide(m, 0)
	_ = q.tryHide(m.ReceiptHandle, 600)
	q.one()
}

func visibilityInvalid(q *queue) {
	q.send("x")
	m := q.one()
	for _, s := range []int32{-1, 43201} {
		q.refused(q.tryHide(m.ReceiptHandle, s), "hiding for "+strconv.Itoa(int(s)))
	}
	q.has(0, 1, 0)
}

func visibilityOfOne(q *queue) {
	q.send("a", "b", "c")
	ms := q.several(3)
	q.hide(ms[1], 0)
	q.equal("Body", aws.ToString(q.one().Body), aws.ToString(ms[1].Body))
	q.none("the others are hidden")
}

func receiptsDiffer(q *queue) {
	q.send("x")
	first := q.glance()
	if again := q.one(); aws.ToString(again.ReceiptHandle) == aws.ToString(first.ReceiptHandle) {
		q.Errorf("two receives have one receipt, want two")
	}
}

// staleDelete has one consumer delete a message that another has received since.
// Whether that is an error is left open; the message stays.
func staleDelete(q *queue) {
	q.send("x")
	old := q.one(hide(1))
	m := q.one(await(5))
	_, _ = q.client.DeleteMessage(q.Context(), &sqs.DeleteMessageInput{QueueUrl: &q.url, ReceiptHandle: old.ReceiptHandle})
	q.has(0, 1, 0)
	q.hide(m, 0)
	q.delete(q.one())
	q.has(0, 0, 0)
}

// staleHide has the one hide it in the same case, or show it.
func staleHide(q *queue) {
	q.send("x")
	old := q.one(hide(1))
	q.one(await(5))
	_ = q.tryHide(old.ReceiptHandle, 0)
	q.none("it belongs to whoever received it last")
}

func madeUpHide(q *queue) {
	q.refused(q.tryHide(new("made up"), 10), "hiding with a receipt that is none")
}

func madeUpDelete(q *queue) {
	_, err := q.client.DeleteMessage(q.Context(), &sqs.DeleteMessageInput{QueueUrl: &q.url, ReceiptHandle: new("made up")})
	typed[*types.ReceiptHandleIsInvalid](q, err, "deleting with a receipt that is none")
}

func receiptOfDeleted(q *queue) {
	q.send("x")
	m := q.one()
	q.delete(m)
	q.refused(q.tryHide(m.ReceiptHandle, 0), "showing a message that is deleted")
	q.none("it is deleted")
}

var receiveChecks = []check{
	{"receive/nothing", receiveNothing},
	{"receive/limits", receiveLimits},
	{"receive/up to ten", receiveTen},
	{"receive/concurrently", receiveConcurrently},
	{"long poll/waits", pollWaits},
	{"long poll/wakes on send", pollWakesOnSend},
	{"long poll/wakes on expiry", pollWakesOnExpiry},
	{"long poll/wakes on visibility 0", pollWakesOnRelease},
	{"long poll/wakes on visibility 1", pollWakesOnShortened},
	{"long poll/wakes on end of delay", pollWakesOnDelay},
	{"long poll/of the queue", pollOfQueue},
}

func receiveNothing(q *queue) {
	start := time.Now()
	q.none("nothing was sent")
	q.within(start, 0, "answered")
}

func receiveLimits(q *queue) {
	q.send("x")
	for what, with := range map[string]receiving{
		"11 messages":               upTo(11),
		"-1 messages":               upTo(-1),
		"a wait of 21 seconds":      await(21),
		"a visibility of over 12 h": hide(43201),
		"a visibility of -1":        hide(-1),
		"all of them":               func(in *sqs.ReceiveMessageInput) { upTo(11)(in); hide(43201)(in); await(21)(in) },
	} {
		_, err := q.tryReceive(with)
		q.refused(err, "receiving with "+what)
	}
	q.has(1, 0, 0)
}

func receiveTen(q *queue) {
	all := []string{"0", "1", "2", "3", "4", "5", "6", "7", "8", "9"}
	q.sendBatch(entries(all...))
	q.send("10", "11")
	if ms := q.receive(upTo(3)); len(ms) == 0 || len(ms) > 3 {
		q.Errorf("received %d messages, want 1 to 3", len(ms))
	} else {
		ms = append(ms, q.several(12-len(ms))...)
		q.same(ms, append(all, "10", "11")...)
	}
}

// receiveConcurrently has several receivers share messages: each gets its own.
func receiveConcurrently(q *queue) {
	const batches, receivers = 10, 8
	var want []string
	for i := range batches {
		var bodies []string
		for j := range 10 {
			bodies = append(bodies, strconv.Itoa(10*i+j))
		}
		want = append(want, bodies...)
		q.sendBatch(entries(bodies...))
	}
	var (
		mu  sync.Mutex
		got []types.Message
		wg  sync.WaitGroup
	)
	for range receivers {
		wg.Go(func() {
			for {
				ms, err := q.tryReceive(await(1))
				if err != nil {
					q.Errorf("%v", err)
				}
				if len(ms) == 0 {
					return
				}
				mu.Lock()
				got = append(got, ms...)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	slices.Sort(want)
	q.same(got, want...)
}

func pollWaits(q *queue) {
	start := time.Now()
	if ms := q.receive(await(2)); len(ms) > 0 {
		q.Errorf("received %q, want nothing", bodies(ms))
	}
	q.within(start, 2*time.Second, "answered")
}

// during does something half a second into a long poll of ten seconds, and
// complains unless that ends it within five.
func (q *queue) during(do func()) {
	var poll sync.WaitGroup
	start := time.Now()
	poll.Go(func() {
		ms, err := q.tryReceive(await(10))
		if err != nil || len(ms) != 1 {
			q.Errorf("received %q, %v, want a message", bodies(ms), err)
		}
		if took := time.Since(start); took < 500*time.Millisecond-slack || took > 5*time.Second {
			q.Errorf("the poll ended after %v, want 0.5 s or a little more", took)
		}
	})
	q.sleep(500 * time.Millisecond)
	do()
	poll.Wait()
}

func pollWakesOnSend(q *queue) {
	q.during(func() {
		if _, err := q.trySend(&sqs.SendMessageInput{MessageBody: new("x")}); err != nil {
			q.Errorf("%v", err)
		}
	})
}

func pollWakesOnRelease(q *queue) {
	q.send("x")
	m := q.one()
	q.during(func() {
		if err := q.tryHide(m.ReceiptHandle, 0); err != nil {
			q.Errorf("%v", err)
		}
	})
}

// pollWakesOnShortened has a poll that began when nothing was due for minutes.
func pollWakesOnShortened(q *queue) {
	q.send("x")
	m := q.one(hide(600))
	q.during(func() {
		if err := q.tryHide(m.ReceiptHandle, 1); err != nil {
			q.Errorf("%v", err)
		}
	})
}

func pollWakesOnDelay(q *queue) {
	q.during(func() {
		if _, err := q.trySend(&sqs.SendMessageInput{MessageBody: new("x"), DelaySeconds: 1}); err != nil {
			q.Errorf("%v", err)
		}
	})
}

func pollWakesOnExpiry(q *queue) {
	q.send("x")
	start := time.Now()
	q.one(hide(2))
	if ms := q.receive(await(10)); len(ms) != 1 {
		q.Errorf("received %q, want a message", bodies(ms))
	}
	if took := time.Since(start); took < 2*time.Second-slack || took > 6*time.Second {
		q.Errorf("the poll ended %v after the receive, want about 2 s", took)
	}
}

func pollOfQueue(q *queue) {
	q.set(attrs{"ReceiveMessageWaitTimeSeconds": "2"})
	start := time.Now()
	// A wait of zero is not sent by the SDK, so it is the queue's that counts.
	if _, err := q.client.ReceiveMessage(q.Context(), &sqs.ReceiveMessageInput{QueueUrl: &q.url}); err != nil {
		q.Errorf("%v", err)
	}
	q.within(start, 2*time.Second, "answered")
}
