// Package foreign recognises messages that are no jobs themselves and say where
// one is. It goes by their shape alone: a queue carries what was sent to it, and
// nobody configures who sends what.
//
// These are known, each as it is or wrapped by Amazon SNS:
//
//   - the pointer of an SQS Extended Client, ["class",{"s3BucketName":…,"s3Key":…}]
//     or the object alone, whatever the class is called: libraries in several
//     languages write them, and some rename the class,
//   - {"custom_id":…,"body_ref":"s3://bucket/key","upwell":{"run":…}}, which is
//     upwell's own: the object is the text of the whole job,
//   - an event notification of Amazon S3, with one object or several,
//   - an event of Amazon S3 from Amazon EventBridge,
//   - what S3 sends to see whether it may, which asks for nothing.
//
// Anything else is left to [jobs.Parse], which says what is wrong with it. The
// package reads text and fetches nothing.
package foreign

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"upwell/jobs"
	"upwell/jobs/skim"
)

// A Kind says what a message is. The set is closed.
type Kind int

// Kinds of messages.
const (
	Job       Kind = iota // a job, or nothing known: for [jobs.Parse]
	Pointer               // to the text of a job that a client of SQS keeps in S3
	Reference             // to the text of a job in S3
	Event                 // that there are new objects in S3, or none
)

// A Content is what a message says.
type Content struct {
	Kind Kind

	// Wrapped says that SNS put the message into one of its own.
	Wrapped bool

	// Text is the message without what SNS wrapped around it. It may share the
	// memory of the body.
	Text []byte

	// Object is what a Pointer or a Reference names.
	Object Object

	// Key is the job's as far as a Reference tells: either field may be empty.
	Key jobs.Key

	// Objects are those that an Event says were created. Other events of S3 have
	// none.
	Objects []Object

	// Parts has, of an Event with several Objects, an event for each of them, in
	// their order. It is empty otherwise.
	Parts [][]byte
}

// maxWraps is how often SNS may have wrapped a message. Once is usual, and twice
// is one topic that feeds another by way of a function.
const maxWraps = 4

// Read says what a message is. Its error is a [*jobs.FormatError], of a message
// that has one of the shapes and is wrong in it; Content.Key is filled in even
// then, as far as it could be read.
func Read(body []byte) (Content, error) {
	c := Content{Text: body}
	err := c.read(0)
	return c, err
}

// read says what the text is, which SNS has wrapped that often.
func (c *Content) read(wraps int) error {
	text := bytes.TrimLeft(c.Text, " \t\r\n")
	read := readerOf(text)
	if read == nil || !utf8.Valid(text) || !json.Valid(text) {
		return nil
	}
	return read(c, text, wraps)
}

// A reader reads a text of the one shape that it is for, which is valid JSON.
type reader func(c *Content, text []byte, wraps int) error

// readerOf returns the reader for the shape that text has, or nil for a job and
// for what is not known. text need not be valid.
func readerOf(text []byte) reader {
	if first, second := pair(text); second.End > 0 && text[first.At] == '"' && text[second.At] == '{' {
		return readPair
	}
	var k keys
	for m := range skim.Members(text, 0) {
		set := k.of(string(m.Key))
		if set == nil {
			continue
		}
		if *set = !m.Unset(text); k.body {
			return nil // a job, and what follows is its own affair
		}
	}
	switch {
	case k.bodyRef:
		return readReference
	case k.bucket, k.key:
		return readPointer
	case k.customID:
		return nil
	case k.records:
		return readRecords
	case k.event:
		return readTest
	case k.kind && (k.topic || k.message):
		return readWrapped
	case k.detailType, k.source && k.detail:
		return readEventBridge
	}
	return nil
}

// keys are those at the top of a message that tell what it is, and whether they are
// there and not null.
type keys struct {
	body, bodyRef, customID, bucket, key, records, event, kind, topic, message, source, detailType, detail bool
}

func (k *keys) of(name string) *bool {
	switch name {
	case "body":
		return &k.body
	case "body_ref":
		return &k.bodyRef
	case "custom_id":
		return &k.customID
	case "s3BucketName":
		return &k.bucket
	case "s3Key":
		return &k.key
	case "Records":
		return &k.records
	case "Event":
		return &k.event
	case "Type":
		return &k.kind
	case "TopicArn":
		return &k.topic
	case "Message":
		return &k.message
	case "source":
		return &k.source
	case "detail-type":
		return &k.detailType
	case "detail":
		return &k.detail
	}
	return nil
}

// pair returns the items of an array of two. Of anything else they are nowhere.
func pair(text []byte) (first, second skim.Span) {
	n := 0
	for v := range skim.Items(text, 0) {
		switch n++; n {
		case 1:
			first = v
		case 2:
			second = v
		default:
			return skim.Span{}, skim.Span{}
		}
	}
	return first, second
}

// readWrapped reads what SNS wrapped.
func readWrapped(c *Content, text []byte, wraps int) error {
	kind, err := str(text, 0, "Type", "Type")
	if err != nil {
		return err
	}
	switch kind {
	case "Notification":
	case "SubscriptionConfirmation":
		return bad("Type", "SNS asks for leave to send here, want a Notification: confirm the subscription at the SubscribeURL in this message; "+
			"with raw message delivery, what follows comes unwrapped")
	default:
		return bad("Type", "%.80q of SNS, want a Notification", kind)
	}
	inner, err := str(text, 0, "Message", "Message")
	switch {
	case err != nil:
		return err
	case wraps == maxWraps:
		return bad("Message", "wrapped by SNS more than %d times, want at most that", maxWraps)
	}
	c.Wrapped, c.Text = true, []byte(inner)
	err = c.read(wraps + 1)
	if e, ok := errors.AsType[*jobs.FormatError](err); ok {
		err = &jobs.FormatError{Field: strings.TrimSuffix("Message."+e.Field, "."), Reason: e.Reason}
	}
	return err
}

// str returns what the string says that the object at text[at:] has at a key. The
// error calls it by the name of field.
func str(text []byte, at int, key, field string) (string, error) {
	switch v := skim.Find(text, at, key); {
	case v.Unset(text):
		return "", bad(field, "missing, want a string")
	case text[v.At] != '"':
		return "", bad(field, "%.80s, want a string", v.Of(text))
	default:
		return skim.Unquote(v.Of(text)), nil
	}
}

func bad(field, format string, args ...any) error {
	return &jobs.FormatError{Field: field, Reason: fmt.Sprintf(format, args...)}
}
