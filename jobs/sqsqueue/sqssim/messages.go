package sqssim

import (
	"crypto/md5"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

const (
	// maxPayload is the most that a message, or all messages of a batch, may
	// weigh: bodies plus the names, types and values of attributes.
	maxPayload = 1 << 20

	// sender is the SenderId of every message.
	sender = "AIDASIMULATEDSENDER00"

	legalChars = "the set of allowed characters is " +
		"#x9 | #xA | #xD | #x20 to #xD7FF | #xE000 to #xFFFD | #x10000 to #x10FFFF"
)

// An Attribute is the value of a message attribute.
type Attribute struct {
	// DataType is String, Number or Binary, or one of them with a label after
	// a dot.
	DataType string

	// StringValue is the value of a String or a Number.
	StringValue string `json:",omitempty"`

	// BinaryValue is the value of a Binary.
	BinaryValue []byte `json:",omitempty"`
}

func (a Attribute) binary() bool {
	kind, _, _ := strings.Cut(a.DataType, ".")
	return kind == "Binary"
}

// sent is the result of sending a message. Other operations on entries answer
// with the id alone.
type sent struct {
	Id                           string `json:",omitempty"`
	MessageId                    string `json:",omitempty"`
	MD5OfMessageBody             string `json:",omitempty"`
	MD5OfMessageAttributes       string `json:",omitempty"`
	MD5OfMessageSystemAttributes string `json:",omitempty"`
	SequenceNumber               string `json:",omitempty"`
}

func (s *Server) send(q *queue, r *request) (any, error) {
	if q.fifo && r.MessageGroupId == nil {
		return nil, missing("MessageGroupId")
	}
	if limit := q.limit(); r.weight() > limit {
		return nil, invalid("One or more parameters are invalid. Reason: Message must be shorter than %d bytes.", limit)
	}
	return q.send(&r.entry)
}

func (s *Server) sendBatch(q *queue, r *request) (any, error) {
	limit := q.limit()
	check := func() error {
		var total int
		for i := range r.Entries {
			e := &r.Entries[i]
			total += e.weight()
			if q.fifo && e.MessageGroupId == nil {
				return invalid("The request must contain the parameter MessageGroupId.")
			}
			if _, err := q.deduplication(e); err != nil {
				return err
			}
		}
		if total > maxPayload {
			return errorf("BatchRequestTooLong",
				"Batch requests cannot be longer than %d bytes. You have sent %d bytes.", maxPayload, total)
		}
		return nil
	}
	return r.batch("SendMessage", check, func(e *entry) (sent, error) {
		if e.weight() > limit {
			return sent{}, invalid(
				"One or more parameters cannot be validated. Reason: Message must be shorter than %d bytes.", limit)
		}
		return q.send(e)
	})
}

func (s *Server) delete(q *queue, r *request) (any, error) {
	return sent{}, q.delete(&r.entry)
}

func (s *Server) deleteBatch(q *queue, r *request) (any, error) {
	return r.batch("DeleteMessage", nil, func(e *entry) (sent, error) { return sent{}, q.delete(e) })
}

func (s *Server) change(q *queue, r *request) (any, error) {
	return sent{}, q.change(&r.entry)
}

func (s *Server) changeBatch(q *queue, r *request) (any, error) {
	return r.batch("ChangeMessageVisibility", nil, func(e *entry) (sent, error) { return sent{}, q.change(e) })
}

// batch checks r as a batch of name, then does each entry for itself. check
// finds what refuses the batch as a whole.
func (r *request) batch(name string, check func() error, do func(*entry) (sent, error)) (any, error) {
	switch n := len(r.Entries); {
	case n == 0:
		return nil, errorf("EmptyBatchRequest", "There should be at least one %sBatchRequestEntry in the request.", name)
	case n > 10:
		return nil, errorf("TooManyEntriesInBatchRequest",
			"Maximum number of entries per request are 10. You have sent %d.", n)
	}
	seen := map[string]bool{}
	for _, e := range r.Entries {
		if len(e.Id) == 0 || len(e.Id) > 80 || strings.ContainsFunc(e.Id, notNameRune) {
			return nil, errorf("InvalidBatchEntryId", "A batch entry id can only contain alphanumeric characters, "+
				"hyphens and underscores. It can be at most 80 letters long.")
		}
		if seen[e.Id] {
			return nil, errorf("BatchEntryIdsNotDistinct", "Id %s repeated.", e.Id)
		}
		seen[e.Id] = true
	}
	if check != nil {
		if err := check(); err != nil {
			return nil, err
		}
	}
	var out struct {
		Successful []sent
		Failed     []failure
	}
	for i := range r.Entries {
		e := &r.Entries[i]
		var fault *Error
		if r.fault.FailEntry != nil {
			fault = r.fault.FailEntry(r.call.Entries[i])
		}
		var res sent
		var err error
		if fault == nil || r.fault.Apply {
			res, err = do(e)
		}
		switch {
		case fault != nil:
			out.Failed = append(out.Failed, fault.failure(e.Id))
		case err != nil:
			out.Failed = append(out.Failed, asError(err).failure(e.Id))
		default:
			res.Id = e.Id
			out.Successful = append(out.Successful, res)
		}
	}
	return out, nil
}

func notNameRune(r rune) bool {
	return !(r == '-' || r == '_' || r < unicode.MaxASCII && (unicode.IsLetter(r) || unicode.IsDigit(r)))
}

// limit returns the most that a message of q may weigh. It takes q.mu.
func (q *queue) limit() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.set.size
}

// send adds e's message to the queue. It takes q.mu.
func (q *queue) send(e *entry) (sent, error) {
	if err := e.check(q.fifo); err != nil {
		return sent{}, err
	}
	id, err := q.deduplication(e)
	if err != nil {
		return sent{}, err
	}
	trace := e.trace
	if a, ok := e.MessageSystemAttributes["AWSTraceHeader"]; ok {
		trace = a.StringValue
	}
	m := &message{
		id:  newUUID(),
		md5: sum(e.MessageBody),
		Message: Message{
			Body: e.MessageBody, Attributes: e.MessageAttributes, DeduplicationID: id, TraceHeader: trace,
		},
	}
	if e.MessageGroupId != nil {
		m.Group = *e.MessageGroupId
	}

	q.mu.Lock()
	defer q.mu.Unlock()
	if q.deleted {
		return sent{}, noQueue()
	}
	now := time.Now()
	q.settle(now)
	key := id
	if q.set.groupScope {
		key = m.Group + "\x00" + id
	}
	out := sent{
		MessageId:                    m.id.String(),
		MD5OfMessageBody:             m.md5,
		MD5OfMessageAttributes:       sumAttributes(e.MessageAttributes),
		MD5OfMessageSystemAttributes: sumAttributes(e.MessageSystemAttributes),
	}
	if first, ok := q.sends.get(key, now); q.fifo && ok {
		out.MessageId, out.SequenceNumber = first.MessageId, first.SequenceNumber
		return out, nil
	}
	delay := q.set.delay
	if e.DelaySeconds != nil && !q.fifo {
		delay = time.Duration(*e.DelaySeconds) * time.Second
	}
	m.Sent = now
	q.add(m, now, delay)
	q.stats.Sent++
	if q.fifo {
		out.SequenceNumber = sequenceNumber(m.Sequence)
		q.sends.put(key, out, now)
	}
	return out, nil
}

func (q *queue) delete(e *entry) error {
	if e.ReceiptHandle == "" {
		return missing("ReceiptHandle")
	}
	return q.acknowledge(e.ReceiptHandle)
}

func (q *queue) change(e *entry) error {
	switch {
	case e.ReceiptHandle == "":
		return missing("ReceiptHandle")
	case e.VisibilityTimeout == nil:
		return missing("VisibilityTimeout")
	}
	d, err := seconds("VisibilityTimeout", e.VisibilityTimeout, 43200, "Must be between 0 and 43200, if provided.")
	if err != nil {
		return err
	}
	return q.hide(e.ReceiptHandle, d)
}

// deduplication returns the deduplication id of e, empty on a standard queue.
// It takes q.mu.
func (q *queue) deduplication(e *entry) (string, error) {
	switch {
	case !q.fifo && e.MessageDeduplicationId != nil:
		return "", outOfRange("MessageDeduplicationId", *e.MessageDeduplicationId,
			"The request include parameter that is not valid for this queue type.")
	case !q.fifo:
		return "", nil
	case e.MessageDeduplicationId != nil:
		return *e.MessageDeduplicationId, nil
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.set.contentDedup {
		return "", invalid(
			"The queue should either have ContentBasedDeduplication enabled or MessageDeduplicationId provided explicitly")
	}
	h := sha256.Sum256([]byte(e.MessageBody))
	return hex.EncodeToString(h[:]), nil
}

// check finds what is wrong with e as a message to send, its weight aside.
func (e *entry) check(fifo bool) error {
	if e.MessageBody == "" {
		return missing("MessageBody")
	}
	if c, bad := illegal(e.MessageBody); bad {
		return errorf("InvalidMessageContents",
			"Invalid binary character '#x%X' was found in the message body, %s", c, legalChars)
	}
	if _, err := seconds("DelaySeconds", e.DelaySeconds, 900, "DelaySeconds must be >= 0 and <= 900."); err != nil {
		return err
	}
	if fifo && e.DelaySeconds != nil && *e.DelaySeconds != 0 {
		return outOfRange("DelaySeconds", *e.DelaySeconds,
			"The request include parameter that is not valid for this queue type.")
	}
	for name, id := range map[string]*string{
		"MessageGroupId": e.MessageGroupId, "MessageDeduplicationId": e.MessageDeduplicationId,
	} {
		if id != nil && !token(*id) {
			return outOfRange(name, *id, name+" can only include alphanumeric and punctuation characters. 1 to 128 in length.")
		}
	}
	if len(e.MessageAttributes) > 10 {
		return invalid("Number of message attributes [%d] exceeds the allowed maximum [10].", len(e.MessageAttributes))
	}
	for _, name := range slices.Sorted(maps.Keys(e.MessageAttributes)) {
		if err := e.MessageAttributes[name].check(name); err != nil {
			return err
		}
	}
	for name, a := range e.MessageSystemAttributes {
		if name != "AWSTraceHeader" || a.DataType != "String" || a.StringValue == "" {
			return invalid("Message system attribute %q is invalid. Only AWSTraceHeader, a String, is supported.", name)
		}
	}
	return nil
}

func (a Attribute) check(name string) error {
	if err := checkAttributeName(name); err != nil {
		return err
	}
	kind, _, _ := strings.Cut(a.DataType, ".")
	switch {
	case a.DataType == "":
		return invalid("Message (user) attribute '%s' must contain a non-empty attribute type.", name)
	case len(a.DataType) > 256 || kind != "String" && kind != "Number" && kind != "Binary":
		return invalid("The type of message (user) attribute '%s' is invalid. "+
			"You must use only the following supported type prefixes: Binary, Number, String.", name)
	case a.binary() && (len(a.BinaryValue) == 0 || a.StringValue != ""),
		!a.binary() && (a.StringValue == "" || len(a.BinaryValue) != 0):
		return invalid("Message (user) attribute '%s' must contain a non-empty value of type '%s'.", name, kind)
	}
	if c, bad := illegal(a.StringValue); bad {
		return invalid("Invalid binary character '#x%X' was found in the message attribute '%s' value, %s",
			c, name, legalChars)
	}
	if kind == "Number" {
		if _, err := strconv.ParseFloat(a.StringValue, 64); err != nil {
			return invalid("Can't cast the value of message (user) attribute '%s' to a number.", name)
		}
	}
	return nil
}

func checkAttributeName(name string) error {
	lower := strings.ToLower(name)
	switch {
	case name == "" || len(name) > 256:
		return invalid("Message (user) attribute name must be 1 to 256 characters long.")
	case strings.HasPrefix(lower, "aws.") || strings.HasPrefix(lower, "amazon."):
		return invalid("Message (user) attribute name '%s' starts with a reserved prefix.", name)
	case strings.HasPrefix(name, ".") || strings.HasSuffix(name, ".") || strings.Contains(name, ".."):
		return invalid("Message (user) attribute name '%s' has a misplaced period.", name)
	case strings.ContainsFunc(name, func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("_-.", r)
	}):
		return invalid("Message (user) attribute name '%s' has an invalid character.", name)
	}
	return nil
}

// weight is how much of the payload limits e takes.
func (e *entry) weight() int {
	n := len(e.MessageBody)
	for name, a := range e.MessageAttributes {
		n += len(name) + len(a.DataType) + len(a.StringValue) + len(a.BinaryValue)
	}
	return n
}

// illegal returns the first character of s that XML 1.0 does not allow.
func illegal(s string) (c rune, bad bool) {
	for _, c := range s {
		if c < 0x20 && c != '\t' && c != '\n' && c != '\r' || c == 0xfffe || c == 0xffff {
			return c, true
		}
	}
	return 0, false
}

// token reports whether s can be a message group or deduplication id.
func token(s string) bool {
	return len(s) > 0 && len(s) <= 128 && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' })
}

// seconds converts a parameter of 0 to limit seconds; nil is 0.
func seconds(name string, v *int, limit int, rule string) (time.Duration, error) {
	switch {
	case v == nil:
		return 0, nil
	case *v < 0 || *v > limit:
		return 0, outOfRange(name, *v, rule)
	}
	return time.Duration(*v) * time.Second, nil
}

func sum(s string) string {
	h := md5.Sum([]byte(s))
	return hex.EncodeToString(h[:])
}

// sumAttributes is AWS's MD5 of message attributes: for each by name, the name,
// the type, a byte that says which kind of value, and the value, all with
// their length in front. It is empty if there are none.
func sumAttributes(attrs map[string]Attribute) string {
	if len(attrs) == 0 {
		return ""
	}
	h := md5.New()
	for _, name := range slices.Sorted(maps.Keys(attrs)) {
		a := attrs[name]
		field(h, name)
		field(h, a.DataType)
		if a.binary() {
			h.Write([]byte{2})
			field(h, string(a.BinaryValue))
		} else {
			h.Write([]byte{1})
			field(h, a.StringValue)
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}

func field(h hash.Hash, s string) {
	h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(s))))
	h.Write([]byte(s))
}

// sequenceNumber spells n in the 20 digits of a SequenceNumber.
func sequenceNumber(n uint64) string { return fmt.Sprintf("1%019d", n) }

// A delivery is a received message on the wire.
type delivery struct {
	Attributes             map[string]string `json:",omitempty"`
	Body, MD5OfBody        string
	MD5OfMessageAttributes string               `json:",omitempty"`
	MessageAttributes      map[string]Attribute `json:",omitempty"`
	MessageId              string
	ReceiptHandle          string
}

// taken is what is copied of a message while its queue is locked.
type taken struct {
	Message
	md5, handle string
}

func (s *Server) receive(q *queue, r *request) (any, error) {
	n := 1
	if r.MaxNumberOfMessages != nil {
		if n = *r.MaxNumberOfMessages; n < 1 || n > 10 {
			return nil, outOfRange("MaxNumberOfMessages", n, "Must be between 1 and 10, if provided.")
		}
	}
	hide, err := seconds("VisibilityTimeout", r.VisibilityTimeout, 43200, "Must be between 0 and 43200, if provided.")
	if err != nil {
		return nil, err
	}
	wait, err := seconds("WaitTimeSeconds", r.WaitTimeSeconds, 20, "Must be >= 0 and <= 20, if provided.")
	if err != nil {
		return nil, err
	}
	q.mu.Lock()
	if r.VisibilityTimeout == nil {
		hide = q.set.hide
	}
	if r.WaitTimeSeconds == nil {
		wait = q.set.wait
	}
	q.mu.Unlock()
	got, err := s.poll(r, q, n, hide, wait)
	if err != nil {
		return nil, err
	}
	var out struct {
		Messages []delivery `json:",omitempty"`
	}
	for _, t := range got {
		d := delivery{
			Body: t.Body, MD5OfBody: t.md5, MessageId: t.ID, ReceiptHandle: t.handle,
			Attributes:        r.systemAttributes(&t.Message, q.fifo),
			MessageAttributes: r.userAttributes(t.Attributes),
		}
		d.MD5OfMessageAttributes = sumAttributes(d.MessageAttributes)
		if r.fault.Corrupt != nil && r.fault.Corrupt(t.Message) {
			d.MD5OfBody = sum(t.md5)
		}
		out.Messages = append(out.Messages, d)
	}
	return out, nil
}

// poll receives up to n messages, and waits for the first of them. It takes
// nothing once r's context is done.
func (s *Server) poll(r *request, q *queue, n int, hide, wait time.Duration) (got []taken, err error) {
	deadline := time.Now().Add(wait)
	for done := false; !done; {
		now := time.Now()
		until := s.advance(now)
		if until.IsZero() || until.After(deadline) {
			until = deadline
		}
		q.mu.Lock()
		switch {
		case r.http.Context().Err() != nil:
			err = errHungUp
		case q.deleted:
			err = noQueue()
		}
		if err != nil {
			q.mu.Unlock()
			return nil, err
		}
		q.settle(now)
		full := q.count[InFlight] >= s.cfg.InFlight
		msgs, dead, dlq := s.next(r, q, n, now, hide)
		for _, m := range msgs {
			got = append(got, taken{m.snapshot(), m.md5, m.handle()})
		}
		done = len(got) > 0 || !now.Before(deadline)
		switch {
		case done && len(got) == 0 && full && !q.fifo && wait == 0:
			err = errorf("OverLimit", "The maximum number of messages in flight [%d] has been reached.", s.cfg.InFlight)
		case !done && len(dead) == 0:
			q.await(r.http.Context(), until)
		}
		q.mu.Unlock()
		for _, m := range dead {
			dlq.accept(m, now, q.arn)
		}
	}
	return got, err
}

// next takes what r can have now. Dead messages belong into dlq. q.mu must be
// held.
func (s *Server) next(r *request, q *queue, n int, now time.Time, hide time.Duration) (got, dead []*message, dlq *queue) {
	attempt := r.ReceiveRequestAttemptId
	if attempt != "" && q.fifo {
		if a, ok := q.attempts.get(attempt, now); ok {
			if got := q.retake(a, now, hide); got != nil {
				return got, nil, nil
			}
		}
	}
	limit := 0
	if q.set.redrive != nil {
		if dlq = s.byARN(q.set.redrive.DeadLetterTargetArn); dlq != nil {
			limit = q.set.redrive.MaxReceiveCount
		}
	}
	got, dead = q.take(n, limit, now, hide)
	if attempt != "" && q.fifo && len(got) > 0 {
		q.attempts.put(attempt, newAttempt(got), now)
	}
	return got, dead, dlq
}

// accept adds a message from the queue with the ARN source, for which q is the
// dead-letter queue. Its age is kept, except on a FIFO queue. It takes q.mu.
func (q *queue) accept(m *message, now time.Time, source string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	m.Source = source
	if q.fifo {
		m.Sent = now
	}
	q.add(m, now, 0)
	q.stats.In++
}

// systemAttributes returns those attributes of m that r asks for.
func (r *request) systemAttributes(m *Message, fifo bool) map[string]string {
	names := slices.Concat(r.MessageSystemAttributeNames, r.AttributeNames)
	if len(names) == 0 {
		return nil
	}
	attrs := map[string]string{
		"SenderId":                         sender,
		"SentTimestamp":                    millis(m.Sent),
		"ApproximateReceiveCount":          strconv.Itoa(m.Receives),
		"ApproximateFirstReceiveTimestamp": millis(m.FirstReceived),
		"MessageGroupId":                   m.Group,
		"MessageDeduplicationId":           m.DeduplicationID,
		"AWSTraceHeader":                   m.TraceHeader,
		"DeadLetterQueueSourceArn":         m.Source,
	}
	if fifo {
		attrs["SequenceNumber"] = sequenceNumber(m.Sequence)
	}
	all := slices.Contains(names, "All")
	maps.DeleteFunc(attrs, func(name, value string) bool {
		return value == "" || !all && !slices.Contains(names, name)
	})
	return attrs
}

func millis(t time.Time) string { return strconv.FormatInt(t.UnixMilli(), 10) }

// userAttributes returns those of attrs that r asks for.
func (r *request) userAttributes(attrs map[string]Attribute) map[string]Attribute {
	wanted := map[string]Attribute{}
	for name, a := range attrs {
		if slices.ContainsFunc(r.MessageAttributeNames, func(pattern string) bool {
			prefix, wild := strings.CutSuffix(pattern, ".*")
			return pattern == name || pattern == "All" || pattern == "*" || wild && strings.HasPrefix(name, prefix)
		}) {
			wanted[name] = a
		}
	}
	return wanted
}
