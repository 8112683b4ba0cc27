package queuetest

import (
	"slices"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
)

var batchChecks = []check{
	{"SendMessageBatch", sendBatch},
	{"SendMessageBatch/partial failure", sendBatchPartial},
	{"SendMessageBatch/invalid parameters", sendBatchInvalid},
	{"SendMessageBatch/1 MiB together", sendBatchLargest},
	{"SendMessageBatch/BatchRequestTooLong", sendBatchTooLong},
	{"DeleteMessageBatch", deleteBatch},
	{"DeleteMessageBatch/bad receipt", deleteBatchPartial},
	{"ChangeMessageVisibilityBatch", hideBatch},
	{"ChangeMessageVisibilityBatch/partial failure", hideBatchPartial},
	{"batch/empty", batchEmpty},
	{"batch/too many", batchTooMany},
	{"batch/same id twice", batchSameIDs},
	{"batch/invalid id", batchInvalidID},
}

type outgoing = types.SendMessageBatchRequestEntry

// entries has an entry for each body; the ids are "0", "1" and so on.
func entries(bodies ...string) []outgoing {
	es := make([]outgoing, len(bodies))
	for i, b := range bodies {
		es[i] = outgoing{Id: new(strconv.Itoa(i)), MessageBody: &b}
	}
	return es
}

func (q *queue) trySendBatch(es []outgoing) (*sqs.SendMessageBatchOutput, error) {
	return q.client.SendMessageBatch(q.Context(), &sqs.SendMessageBatchInput{QueueUrl: &q.url, Entries: es})
}

func (q *queue) sendBatch(es []outgoing) *sqs.SendMessageBatchOutput {
	out, err := q.trySendBatch(es)
	q.must(err)
	return out
}

func (q *queue) deleteBatch(receipts ...string) *sqs.DeleteMessageBatchOutput {
	es := make([]types.DeleteMessageBatchRequestEntry, len(receipts))
	for i, r := range receipts {
		es[i] = types.DeleteMessageBatchRequestEntry{Id: new(strconv.Itoa(i)), ReceiptHandle: &r}
	}
	out, err := q.client.DeleteMessageBatch(q.Context(), &sqs.DeleteMessageBatchInput{QueueUrl: &q.url, Entries: es})
	q.must(err)
	return out
}

func (q *queue) hideBatch(seconds int32, receipts ...string) *sqs.ChangeMessageVisibilityBatchOutput {
	es := make([]types.ChangeMessageVisibilityBatchRequestEntry, len(receipts))
	for i, r := range receipts {
		es[i] = types.ChangeMessageVisibilityBatchRequestEntry{Id: new(strconv.Itoa(i)), ReceiptHandle: &r, VisibilityTimeout: seconds}
	}
	out, err := q.client.ChangeMessageVisibilityBatch(q.Context(), &sqs.ChangeMessageVisibilityBatchInput{QueueUrl: &q.url, Entries: es})
	q.must(err)
	return out
}

func receipts(ms []types.Message) []string {
	all := make([]string, len(ms))
	for i, m := range ms {
		all[i] = aws.ToString(m.ReceiptHandle)
	}
	return all
}

// fates complains unless those entries of a batch succeeded, and those failed
// by a fault of the sender's.
func (q *queue) fates(ok []*string, failed []types.BatchResultErrorEntry, wantOK, wantFailed string) {
	var good, bad []string
	for _, id := range ok {
		good = append(good, aws.ToString(id))
	}
	for _, f := range failed {
		bad = append(bad, aws.ToString(f.Id))
		if aws.ToString(f.Code) == "" || !f.SenderFault {
			q.Errorf("entry %s failed with code %q, sender's fault %v, want a code and true", aws.ToString(f.Id), aws.ToString(f.Code), f.SenderFault)
		}
	}
	slices.Sort(good)
	slices.Sort(bad)
	q.equal("the entries that succeeded", strings.Join(good, " "), wantOK)
	q.equal("the entries that failed", strings.Join(bad, " "), wantFailed)
}

func ids[E any](es []E, id func(E) *string) (all []*string) {
	for _, e := range es {
		all = append(all, id(e))
	}
	return all
}

func sentID(e types.SendMessageBatchResultEntry) *string      { return e.Id }
func deletedID(e types.DeleteMessageBatchResultEntry) *string { return e.Id }
func hiddenID(e types.ChangeMessageVisibilityBatchResultEntry) *string {
	return e.Id
}

func sendBatch(q *queue) {
	es := entries("a", "b", "c")
	es[1].MessageAttributes = some()
	out := q.sendBatch(es)
	q.fates(ids(out.Successful, sentID), out.Failed, "0 1 2", "")
	sent := make(map[string]string)
	for _, s := range out.Successful {
		i, _ := strconv.Atoi(aws.ToString(s.Id))
		body := aws.ToString(es[i].MessageBody)
		sent[body] = aws.ToString(s.MessageId)
		q.equal("MD5OfMessageBody of "+body, aws.ToString(s.MD5OfMessageBody), md5Of(body))
		if body == "b" {
			q.equal("MD5OfMessageAttributes of b", aws.ToString(s.MD5OfMessageAttributes), sumOf(es[1].MessageAttributes))
		}
	}
	ms := q.several(3)
	q.same(ms, "a", "b", "c")
	for _, m := range ms {
		body := aws.ToString(m.Body)
		q.equal("MessageId of "+body, aws.ToString(m.MessageId), sent[body])
		if body == "b" {
			q.sameAttributes(m.MessageAttributes, es[1].MessageAttributes)
		}
	}
}

func sendBatchPartial(q *queue) {
	out := q.sendBatch(entries("a", "bad\x01", "c"))
	q.fates(ids(out.Successful, sentID), out.Failed, "0 2", "1")
	q.same(q.several(2), "a", "c")
	q.none("the other was refused")
}

func sendBatchInvalid(q *queue) {
	es := entries("a", "b", "c")
	es[0].DelaySeconds = 901
	es[1].MessageAttributes = userAttrs{"n": number("ten")}
	out := q.sendBatch(es)
	q.fates(ids(out.Successful, sentID), out.Failed, "2", "0 1")
	q.same(q.several(1), "c")
	q.none("the others were refused")
}

func sendBatchLargest(q *queue) {
	half := strings.Repeat("x", largest/2)
	out := q.sendBatch(entries(half, half))
	q.fates(ids(out.Successful, sentID), out.Failed, "0 1", "")
	q.same(q.several(2), half, half)
}

func sendBatchTooLong(q *queue) {
	half := strings.Repeat("x", largest/2)
	_, err := q.trySendBatch(entries(half, half+"x"))
	typed[*types.BatchRequestTooLong](q, err, "a batch of more than 1 MiB")
	q.has(0, 0, 0)
}

func deleteBatch(q *queue) {
	q.sendBatch(entries("a", "b", "c"))
	out := q.deleteBatch(receipts(q.several(3))...)
	q.fates(ids(out.Successful, deletedID), out.Failed, "0 1 2", "")
	q.has(0, 0, 0)
}

func deleteBatchPartial(q *queue) {
	q.send("a", "b")
	rs := receipts(q.several(2))
	out := q.deleteBatch(rs[0], "made up", rs[1])
	q.fates(ids(out.Successful, deletedID), out.Failed, "0 2", "1")
	q.has(0, 0, 0)
}

func hideBatch(q *queue) {
	q.sendBatch(entries("a", "b", "c"))
	rs := receipts(q.several(3))
	out := q.hideBatch(0, rs[:2]...)
	q.fates(ids(out.Successful, hiddenID), out.Failed, "0 1", "")
	q.has(2, 1, 0)
	q.several(2)
	q.none("one is still hidden")
}

func hideBatchPartial(q *queue) {
	q.send("a", "b")
	rs := receipts(q.several(2))
	out := q.hideBatch(0, "made up", rs[0])
	q.fates(ids(out.Successful, hiddenID), out.Failed, "1", "0")
	out = q.hideBatch(43201, rs[1])
	q.fates(ids(out.Successful, hiddenID), out.Failed, "", "0")
	q.has(1, 1, 0)
}

func batchEmpty(q *queue) {
	_, err := q.trySendBatch([]outgoing{})
	typed[*types.EmptyBatchRequest](q, err, "sending none")
	_, err = q.client.DeleteMessageBatch(q.Context(), &sqs.DeleteMessageBatchInput{
		QueueUrl: &q.url, Entries: []types.DeleteMessageBatchRequestEntry{},
	})
	typed[*types.EmptyBatchRequest](q, err, "deleting none")
}

func batchTooMany(q *queue) {
	_, err := q.trySendBatch(entries("0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10"))
	typed[*types.TooManyEntriesInBatchRequest](q, err, "sending eleven")
	q.has(0, 0, 0)
}

func batchSameIDs(q *queue) {
	es := entries("a", "b")
	es[1].Id = es[0].Id
	_, err := q.trySendBatch(es)
	typed[*types.BatchEntryIdsNotDistinct](q, err, "an id twice")
	q.has(0, 0, 0)
}

func batchInvalidID(q *queue) {
	for _, id := range []string{"", "a b", "a.b", strings.Repeat("x", 81)} {
		es := entries("a")
		es[0].Id = &id
		_, err := q.trySendBatch(es)
		typed[*types.InvalidBatchEntryId](q, err, "the id "+strconv.Quote(id))
	}
	q.has(0, 0, 0)
}
