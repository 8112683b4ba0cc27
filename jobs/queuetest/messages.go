package queuetest

import (
	"crypto/md5"
	"encoding/binary"
	"encoding/hex"
	"hash"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
)

// largest is the most that a message or a batch may weigh, in bytes.
const largest = 1 << 20

var messageChecks = []check{
	{"Send, Receive, Delete", roundTrip},
	{"MD5/body", bodySum},
	{"MD5/attributes", attributesSum},
	{"system attributes", systemAttributes},
	{"system attributes/selected", selectedSystemAttributes},
	{"message attributes", messageAttributes},
	{"message attributes/selected", selectedMessageAttributes},
	{"message attributes/invalid", invalidAttributes},
	{"1 MiB", largestBody},
	{"1 MiB/exceeded", tooLarge},
	{"1 MiB/attributes count", tooLargeWithAttributes},
	{"characters", characters},
	{"characters/beyond 16 bits", farCharacters},
	{"characters/invalid", invalidCharacters},
	{"empty body", emptyBody},
	{"DelaySeconds", delay},
	{"DelaySeconds/of the queue", queueDelay},
	{"DelaySeconds/invalid", delayInvalid},
	{"MessageGroupId on a standard queue", fairGroup},
}

func roundTrip(q *queue) {
	sent := q.put(&sqs.SendMessageInput{MessageBody: new("hello")})
	m := q.one()
	q.equal("Body", aws.ToString(m.Body), "hello")
	q.equal("MessageId", aws.ToString(m.MessageId), aws.ToString(sent.MessageId))
	if aws.ToString(m.MessageId) == "" || aws.ToString(m.ReceiptHandle) == "" {
		q.Errorf("received %+v, want an id and a receipt", m)
	}
	q.none("it is in flight")
	q.delete(m)
	q.has(0, 0, 0)
	q.delete(m) // deleting twice is no error
}

func md5Of(s string) string {
	sum := md5.Sum([]byte(s))
	return hex.EncodeToString(sum[:])
}

func bodySum(q *queue) {
	const body = "größer\n" // its bytes count
	sent := q.put(&sqs.SendMessageInput{MessageBody: new(body)})
	q.equal("MD5OfMessageBody of a send", aws.ToString(sent.MD5OfMessageBody), md5Of(body))
	q.equal("MD5OfBody of a receive", aws.ToString(q.one().MD5OfBody), md5Of(body))
}

type userAttrs = map[string]types.MessageAttributeValue

func text(s string) types.MessageAttributeValue {
	return types.MessageAttributeValue{DataType: new("String"), StringValue: &s}
}

func number(s string) types.MessageAttributeValue {
	return types.MessageAttributeValue{DataType: new("Number"), StringValue: &s}
}

func binaryValue(b ...byte) types.MessageAttributeValue {
	return types.MessageAttributeValue{DataType: new("Binary"), BinaryValue: b}
}

// some is one attribute of each kind, out of order.
func some() userAttrs {
	labelled := text("x")
	labelled.DataType = new("String.label")
	return userAttrs{"z.text": text("größer"), "a.number": number("-1.5"), "m.bytes": binaryValue(0, 255, 10), "A.label": labelled}
}

// sumOf is the MD5 that the SQS developer guide describes: of each attribute, in
// order of names, its name, its type, a byte for its kind, and its value, all
// but the byte with their length in four bytes in front.
func sumOf(as userAttrs) string {
	h := md5.New()
	for _, name := range slices.Sorted(maps.Keys(as)) {
		a := as[name]
		field(h, name)
		field(h, aws.ToString(a.DataType))
		if a.BinaryValue != nil {
			h.Write([]byte{2})
			field(h, string(a.BinaryValue))
		} else {
			h.Write([]byte{1})
			field(h, aws.ToString(a.StringValue))
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}

func field(h hash.Hash, s string) {
	h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(s)))) //nolint:gosec // a few bytes
	h.Write([]byte(s))
}

func attributesSum(q *queue) {
	as := some()
	sent := q.put(&sqs.SendMessageInput{MessageBody: new("x"), MessageAttributes: as})
	q.equal("MD5OfMessageAttributes of a send", aws.ToString(sent.MD5OfMessageAttributes), sumOf(as))
	m := q.glance()
	q.equal("MD5OfMessageAttributes of a receive", aws.ToString(m.MD5OfMessageAttributes), sumOf(as))
	// Of those that are received, not of those that there are.
	m = q.one(func(in *sqs.ReceiveMessageInput) { in.MessageAttributeNames = []string{"a.number"} })
	q.equal("MD5OfMessageAttributes of one", aws.ToString(m.MD5OfMessageAttributes), sumOf(userAttrs{"a.number": as["a.number"]}))
}

func systemAttributes(q *queue) {
	before := time.Now()
	q.send("x")
	after := time.Now()
	m := q.glance()
	q.equal("ApproximateReceiveCount", m.Attributes["ApproximateReceiveCount"], "1")
	// Clocks of two machines differ, but not by hours.
	for _, name := range []string{"SentTimestamp", "ApproximateFirstReceiveTimestamp"} {
		ms, err := strconv.ParseInt(m.Attributes[name], 10, 64)
		if at := time.UnixMilli(ms); err != nil || at.Before(before.Add(-time.Hour)) || at.After(after.Add(time.Hour)) {
			q.Errorf("%s is %q, want milliseconds since 1970 of about now", name, m.Attributes[name])
		}
	}
	if m.Attributes["SenderId"] == "" {
		q.Errorf("there is no SenderId")
	}
	again := q.one()
	q.equal("ApproximateReceiveCount of the second receive", again.Attributes["ApproximateReceiveCount"], "2")
	for _, name := range []string{"SentTimestamp", "ApproximateFirstReceiveTimestamp"} {
		q.equal(name+" of the second receive", again.Attributes[name], m.Attributes[name])
	}
}

func selectedSystemAttributes(q *queue) {
	q.send("x")
	m := q.glance(func(in *sqs.ReceiveMessageInput) {
		in.MessageSystemAttributeNames = []types.MessageSystemAttributeName{types.MessageSystemAttributeNameSentTimestamp}
	})
	if len(m.Attributes) != 1 || m.Attributes["SentTimestamp"] == "" {
		q.Errorf("got %q, want SentTimestamp alone", m.Attributes)
	}
	m = q.one(func(in *sqs.ReceiveMessageInput) { in.MessageSystemAttributeNames = nil })
	if len(m.Attributes) != 0 {
		q.Errorf("got %q, want none", m.Attributes)
	}
}

func messageAttributes(q *queue) {
	want := some()
	q.put(&sqs.SendMessageInput{MessageBody: new("x"), MessageAttributes: want})
	q.sameAttributes(q.one().MessageAttributes, want)
}

func (q *queue) sameAttributes(got, want userAttrs) {
	if len(got) != len(want) {
		q.Errorf("got attributes %q, want %q", slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want)))
	}
	for name, w := range want {
		g := got[name]
		q.equal("the type of "+name, aws.ToString(g.DataType), aws.ToString(w.DataType))
		q.equal("the text of "+name, aws.ToString(g.StringValue), aws.ToString(w.StringValue))
		q.equal("the bytes of "+name, string(g.BinaryValue), string(w.BinaryValue))
	}
}

func selectedMessageAttributes(q *queue) {
	all := some()
	q.put(&sqs.SendMessageInput{MessageBody: new("x"), MessageAttributes: all})
	for _, tt := range []struct{ ask, want []string }{
		{nil, nil},
		{[]string{"a.number", "none"}, []string{"a.number"}},
		{[]string{"m.*", "z.text"}, []string{"m.bytes", "z.text"}},
		{[]string{".*"}, []string{"A.label", "a.number", "m.bytes", "z.text"}},
	} {
		m := q.glance(func(in *sqs.ReceiveMessageInput) { in.MessageAttributeNames = tt.ask })
		if got := slices.Sorted(maps.Keys(m.MessageAttributes)); !slices.Equal(got, tt.want) {
			q.Errorf("asked for %q, got %q, want %q", tt.ask, got, tt.want)
		}
	}
}

func invalidAttributes(q *queue) {
	eleven := userAttrs{}
	for i := range 11 {
		eleven["a"+strconv.Itoa(i)] = text("x")
	}
	noType := text("x")
	noType.DataType = new("Text")
	for what, as := range map[string]userAttrs{
		"eleven attributes":       eleven,
		"an empty value":          {"a": text("")},
		"a number that is none":   {"a": number("ten")},
		"a type that is none":     {"a": noType},
		"a reserved name":         {"AWS.a": text("x")},
		"a name with a space":     {"a b": text("x")},
		"a name of two dots":      {"a..b": text("x")},
		"a value that is no text": {"a": text("\x01")},
	} {
		_, err := q.trySend(&sqs.SendMessageInput{MessageBody: new("x"), MessageAttributes: as})
		q.refused(err, "sending "+what)
	}
	q.has(0, 0, 0)
}

func largestBody(q *queue) {
	want := strings.Repeat("0123456789abcdef", largest/16)
	q.send(want)
	m := q.one()
	if aws.ToString(m.Body) != want {
		q.Errorf("received %d bytes, want the %d that were sent", len(aws.ToString(m.Body)), len(want))
	}
	q.equal("MD5OfBody", aws.ToString(m.MD5OfBody), md5Of(want))
}

func tooLarge(q *queue) {
	_, err := q.trySend(&sqs.SendMessageInput{MessageBody: new(strings.Repeat("x", largest+1))})
	q.coded(err, "InvalidParameterValue", "sending more than 1 MiB")
	// It is bytes that count, not characters.
	_, err = q.trySend(&sqs.SendMessageInput{MessageBody: new(strings.Repeat("ö", largest/2+1))})
	q.refused(err, "sending more than 1 MiB in fewer characters")
	q.has(0, 0, 0)
}

func tooLargeWithAttributes(q *queue) {
	in := func(n int) *sqs.SendMessageInput {
		body := strings.Repeat("x", largest-len("name")-len("String")-n)
		return &sqs.SendMessageInput{MessageBody: &body, MessageAttributes: userAttrs{"name": text("0123456789")}}
	}
	_, err := q.trySend(in(9))
	q.refused(err, "sending more than 1 MiB with the attributes")
	q.put(in(10))
}

func characters(q *queue) {
	q.carries("tab\t newline\n return\r \" \\ / <&> \u007f \u0085 \u2028 ü \ud7ff \ue000 \ufffd")
}

func farCharacters(q *queue) { q.carries("\U00010000 😀 \U0010ffff") }

// carries complains unless a body arrives as it was sent.
func (q *queue) carries(want string) {
	q.send(want)
	m := q.one()
	q.equal("Body", aws.ToString(m.Body), want)
	q.equal("MD5OfBody", aws.ToString(m.MD5OfBody), md5Of(want))
}

func invalidCharacters(q *queue) {
	for _, bad := range []string{"\x00", "\x01", "\x0b", "\x1f", "\ufffe", "\uffff"} {
		_, err := q.trySend(&sqs.SendMessageInput{MessageBody: new("a" + bad + "b")})
		typed[*types.InvalidMessageContents](q, err, "sending "+strconv.QuoteToASCII(bad))
	}
	q.has(0, 0, 0)
}

func emptyBody(q *queue) {
	_, err := q.trySend(&sqs.SendMessageInput{MessageBody: new("")})
	q.refused(err, "sending nothing")
}

func delay(q *queue) {
	start := time.Now()
	q.put(&sqs.SendMessageInput{MessageBody: new("x"), DelaySeconds: 2})
	q.one(await(5))
	q.within(start, 2*time.Second, "received")
}

func queueDelay(q *queue) {
	d := q.create(newName(), attrs{"DelaySeconds": "2"})
	start := time.Now()
	d.send("x")
	d.one(await(5))
	q.within(start, 2*time.Second, "received")
}

func delayInvalid(q *queue) {
	for _, s := range []int32{-1, 901} {
		_, err := q.trySend(&sqs.SendMessageInput{MessageBody: new("x"), DelaySeconds: s})
		q.refused(err, "sending with a delay of "+strconv.Itoa(int(s)))
	}
}

// fairGroup has groups on a standard queue, which are to be kept, and lock
// nothing.
func fairGroup(q *queue) {
	for _, body := range []string{"a", "b"} {
		q.put(&sqs.SendMessageInput{MessageBody: &body, MessageGroupId: new("tenant")})
	}
	ms := q.several(2)
	q.same(ms, "a", "b")
	for _, m := range ms {
		q.equal("MessageGroupId", m.Attributes["MessageGroupId"], "tenant")
	}
}
