package sqssim

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// reuse is how long the name of a deleted queue may not be used again, and how
// long a queue may not be purged again.
const reuse = time.Minute

// numbers are the queue attributes that are numbers, with their range.
var numbers = map[string]struct{ min, max, initial int }{
	"DelaySeconds":                  {0, 900, 0},
	"MaximumMessageSize":            {1 << 10, maxPayload, maxPayload},
	"MessageRetentionPeriod":        {60, 14 * 24 * 3600, 4 * 24 * 3600},
	"ReceiveMessageWaitTimeSeconds": {0, 20, 0},
	"VisibilityTimeout":             {0, 12 * 3600, 30},
}

// readOnly are the queue attributes that cannot be set.
var readOnly = []string{
	"ApproximateNumberOfMessages", "ApproximateNumberOfMessagesDelayed", "ApproximateNumberOfMessagesNotVisible",
	"CreatedTimestamp", "LastModifiedTimestamp", "QueueArn",
}

// settings are a queue's attributes: as they are reported, and what of them
// the queue works with.
type settings struct {
	raw map[string]string

	delay, retention, wait, hide time.Duration
	size                         int
	contentDedup, groupScope     bool
	redrive                      *redrivePolicy
}

type redrivePolicy struct {
	DeadLetterTargetArn string `json:"deadLetterTargetArn"`
	MaxReceiveCount     int    `json:"maxReceiveCount"`
}

// initial returns the attributes of a new queue.
func initial(fifo bool) map[string]string {
	raw := map[string]string{"SqsManagedSseEnabled": "true"}
	for name, n := range numbers {
		raw[name] = strconv.Itoa(n.initial)
	}
	if fifo {
		raw["FifoQueue"] = "true"
		raw["ContentBasedDeduplication"] = "false"
		raw["DeduplicationScope"] = "queue"
		raw["FifoThroughputLimit"] = "perQueue"
	}
	return raw
}

// configure returns the settings that changes make of raw.
func (s *Server) configure(arn string, raw, changes map[string]string) (settings, error) {
	raw = maps.Clone(raw)
	_, fifo := raw["FifoQueue"]
	for name, value := range changes {
		v, err := s.normalize(arn, fifo, name, value)
		if err != nil {
			return settings{}, err
		}
		if raw[name] = v; v == "" {
			delete(raw, name)
		}
	}
	if raw["FifoThroughputLimit"] == "perMessageGroupId" && raw["DeduplicationScope"] != "messageGroup" {
		return settings{}, badAttribute("FifoThroughputLimit")
	}
	number := func(name string) int { n, _ := strconv.Atoi(raw[name]); return n }
	duration := func(name string) time.Duration { return time.Duration(number(name)) * time.Second }
	set := settings{
		raw:          raw,
		delay:        duration("DelaySeconds"),
		retention:    duration("MessageRetentionPeriod"),
		wait:         duration("ReceiveMessageWaitTimeSeconds"),
		hide:         duration("VisibilityTimeout"),
		size:         number("MaximumMessageSize"),
		contentDedup: raw["ContentBasedDeduplication"] == "true",
		groupScope:   raw["DeduplicationScope"] == "messageGroup",
	}
	if policy, ok := raw["RedrivePolicy"]; ok {
		set.redrive = new(redrivePolicy)
		if err := json.Unmarshal([]byte(policy), set.redrive); err != nil {
			panic(err) // normalized above
		}
	}
	return set, nil
}

func badAttribute(name string) error {
	return errorf("InvalidAttributeValue", "Invalid value for the parameter %s.", name)
}

// normalize checks one attribute of the queue arn and returns how it is kept;
// empty is not at all.
func (s *Server) normalize(arn string, fifo bool, name, value string) (string, error) {
	var choice []string
	switch name {
	case "Policy", "KmsMasterKeyId", "KmsDataKeyReusePeriodSeconds":
		return value, nil
	case "RedrivePolicy":
		return s.normalizeRedrive(arn, fifo, value)
	case "RedriveAllowPolicy":
		if value != "" && !json.Valid([]byte(value)) {
			return "", badAttribute(name)
		}
		return value, nil
	case "SqsManagedSseEnabled":
		choice = []string{"true", "false"}
	case "FifoQueue", "ContentBasedDeduplication", "DeduplicationScope", "FifoThroughputLimit":
		choice = map[string][]string{
			"FifoQueue":                 {"true"}, // there is no way back
			"ContentBasedDeduplication": {"true", "false"},
			"DeduplicationScope":        {"queue", "messageGroup"},
			"FifoThroughputLimit":       {"perQueue", "perMessageGroupId"},
		}[name]
		if !fifo {
			choice = nil
		}
	default:
		limit, ok := numbers[name]
		if !ok {
			break
		}
		n, err := strconv.Atoi(value)
		if err != nil || n < limit.min || n > limit.max {
			return "", badAttribute(name)
		}
		return strconv.Itoa(n), nil
	}
	if choice == nil {
		return "", errorf("InvalidAttributeName", "Unknown Attribute %s.", name)
	}
	for _, c := range choice {
		if strings.EqualFold(c, value) {
			return c, nil
		}
	}
	return "", badAttribute(name)
}

func (s *Server) normalizeRedrive(arn string, fifo bool, value string) (string, error) {
	if value == "" {
		return "", nil
	}
	refuse := func(reason string) (string, error) { return "", outOfRange("RedrivePolicy", value, reason) }
	var in struct {
		Target *string      `json:"deadLetterTargetArn"`
		Count  *json.Number `json:"maxReceiveCount"` // a number, or a string with one
	}
	switch err := json.Unmarshal([]byte(value), &in); {
	case err != nil:
		return refuse("Amazon SQS can't create the redrive policy, as it's in an unsupported format.")
	case in.Target == nil:
		return refuse("Redrive policy does not contain mandatory attribute: deadLetterTargetArn.")
	case in.Count == nil:
		return refuse("Redrive policy does not contain mandatory attribute: maxReceiveCount.")
	}
	n, err := strconv.Atoi(in.Count.String())
	if err != nil || n < 1 || n > 1000 {
		return refuse("Invalid value for maxReceiveCount: " + in.Count.String() + ", valid values are from 1 to 1000 both inclusive.")
	}
	if !strings.HasPrefix(*in.Target, "arn:aws:sqs:") {
		return refuse("Invalid value for deadLetterTargetArn.")
	}
	dlq := s.byARN(*in.Target)
	switch {
	case dlq == nil:
		return refuse("Dead letter target does not exist.")
	case dlq.fifo != fifo:
		return refuse("Dead-letter queue must be same type of queue as the source.")
	case !dlq.allows(arn):
		return refuse("Queue " + arn + " is not allowed to use the dead-letter queue.")
	}
	b, err := json.Marshal(redrivePolicy{*in.Target, n})
	return string(b), err
}

// allows reports whether the queue source may have q as its dead-letter queue.
// It takes q.mu.
func (q *queue) allows(source string) bool {
	q.mu.Lock()
	policy := q.set.raw["RedriveAllowPolicy"]
	q.mu.Unlock()
	var p struct {
		Permission string   `json:"redrivePermission"`
		Sources    []string `json:"sourceQueueArns"`
	}
	if policy == "" || json.Unmarshal([]byte(policy), &p) != nil {
		return true
	}
	return p.Permission == "allowAll" || p.Permission == "byQueue" && slices.Contains(p.Sources, source)
}

// on makes an operation of one that is about the queue in QueueUrl.
func on(do func(*Server, *queue, *request) (any, error)) operation {
	return func(s *Server, r *request) (any, error) {
		if r.QueueUrl == "" {
			return nil, missing("QueueUrl")
		}
		q, err := s.byName(r.call.Queue)
		if err != nil {
			return nil, err
		}
		return do(s, q, r)
	}
}

func (s *Server) byName(name string) (*queue, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if q := s.queues[name]; q != nil {
		return q, nil
	}
	return nil, noQueue()
}

// byARN returns the queue with that ARN, or nil.
func (s *Server) byARN(arn string) *queue {
	q, _ := s.byName(arn[strings.LastIndexByte(arn, ':')+1:])
	if q == nil || q.arn != arn {
		return nil
	}
	return q
}

// all returns the queues by name.
func (s *Server) all() []*queue {
	s.mu.RLock()
	defer s.mu.RUnlock()
	qs := slices.Collect(maps.Values(s.queues))
	slices.SortFunc(qs, func(a, b *queue) int { return strings.Compare(a.name, b.name) })
	return qs
}

func (r *request) url(name string) string {
	return "http://" + cmp.Or(r.http.Host, r.http.URL.Host) + "/" + account + "/" + name
}

type queueURL struct{ QueueUrl string }

func (s *Server) createQueue(r *request) (any, error) {
	name := r.QueueName
	base, fifo := strings.CutSuffix(name, ".fifo")
	switch {
	case name == "":
		return nil, missing("QueueName")
	case base == "" || len(name) > 80 || strings.ContainsFunc(base, notNameRune),
		fifo && !strings.EqualFold(r.Attributes["FifoQueue"], "true"):
		return nil, invalid("Can only include alphanumeric characters, hyphens, or underscores. 1 to 80 in length")
	case !fifo && strings.EqualFold(r.Attributes["FifoQueue"], "true"):
		return nil, invalid("The name of a FIFO queue can only include alphanumeric characters, " +
			"hyphens, or underscores, must end with .fifo suffix and be 1 to 80 in length.")
	}
	arn := "arn:aws:sqs:" + s.cfg.Region + ":" + account + ":" + name
	set, err := s.configure(arn, initial(fifo), r.Attributes)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	fresh := newQueue(name, arn, fifo, &s.cfg, now)
	fresh.set = set
	maps.Copy(fresh.tags, r.Tags)

	s.mu.Lock()
	old := s.queues[name]
	recently := now.Before(s.deleted[name].Add(reuse))
	if old == nil && !recently {
		s.queues[name] = fresh
	}
	s.mu.Unlock()
	switch {
	case old != nil:
		old.mu.Lock()
		defer old.mu.Unlock()
		for _, name := range slices.Sorted(maps.Keys(r.Attributes)) {
			if set.raw[name] != old.set.raw[name] {
				return nil, errorf("QueueNameExists",
					"A queue already exists with the same name and a different value for attribute %s", name)
			}
		}
	case recently:
		return nil, errorf("QueueDeletedRecently",
			"You must wait 60 seconds after deleting a queue before you can create another with the same name.")
	}
	return queueURL{r.url(name)}, nil
}

func (s *Server) deleteQueue(q *queue, _ *request) (any, error) {
	now := time.Now()
	s.mu.Lock()
	if s.queues[q.name] == q {
		delete(s.queues, q.name)
	}
	maps.DeleteFunc(s.deleted, func(_ string, at time.Time) bool { return !now.Before(at.Add(reuse)) })
	s.deleted[q.name] = now
	s.mu.Unlock()
	q.mu.Lock()
	defer q.mu.Unlock()
	q.deleted = true
	q.wake()
	return struct{}{}, nil
}

func (s *Server) queueURL(r *request) (any, error) {
	q, err := s.byName(r.QueueName)
	if err != nil {
		return nil, err
	}
	return queueURL{r.url(q.name)}, nil
}

func (s *Server) purge(q *queue, _ *request) (any, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := time.Now()
	if now.Before(q.purged.Add(reuse)) {
		return nil, errorf("PurgeQueueInProgress",
			"Only one PurgeQueue operation on %s is allowed every 60 seconds.", q.name)
	}
	q.purged = now
	q.settle(now)
	for len(q.events) > 0 {
		q.remove(q.events[len(q.events)-1])
		q.stats.Purged++
	}
	return struct{}{}, nil
}

func (s *Server) attributes(q *queue, r *request) (any, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.settle(time.Now())
	attrs := maps.Clone(q.set.raw)
	attrs["QueueArn"] = q.arn
	attrs["CreatedTimestamp"] = strconv.FormatInt(q.created.Unix(), 10)
	attrs["LastModifiedTimestamp"] = strconv.FormatInt(q.modified.Unix(), 10)
	attrs["ApproximateNumberOfMessages"] = strconv.Itoa(q.count[Visible])
	attrs["ApproximateNumberOfMessagesNotVisible"] = strconv.Itoa(q.count[InFlight])
	attrs["ApproximateNumberOfMessagesDelayed"] = strconv.Itoa(q.count[Delayed])
	for _, name := range r.AttributeNames {
		_, number := numbers[name]
		if !number && !slices.Contains(readOnly, name) && !slices.Contains([]string{
			"All", "Policy", "RedrivePolicy", "RedriveAllowPolicy", "KmsMasterKeyId", "KmsDataKeyReusePeriodSeconds",
			"SqsManagedSseEnabled", "FifoQueue", "ContentBasedDeduplication", "DeduplicationScope", "FifoThroughputLimit",
		}, name) {
			return nil, errorf("InvalidAttributeName", "Unknown Attribute %s.", name)
		}
	}
	if !slices.Contains(r.AttributeNames, "All") {
		maps.DeleteFunc(attrs, func(name, _ string) bool { return !slices.Contains(r.AttributeNames, name) })
	}
	return struct {
		Attributes map[string]string `json:",omitempty"`
	}{attrs}, nil
}

func (s *Server) setAttributes(q *queue, r *request) (any, error) {
	q.mu.Lock()
	old := q.set.raw
	q.mu.Unlock()
	set, err := s.configure(q.arn, old, r.Attributes)
	if err != nil {
		return nil, err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	now := time.Now()
	q.settle(now)
	q.set, q.modified = set, now
	q.reschedule()
	q.settle(now)
	return struct{}{}, nil
}

func (s *Server) tag(q *queue, r *request) (any, error) {
	return q.retag(func(tags map[string]string) { maps.Copy(tags, r.Tags) })
}

func (s *Server) untag(q *queue, r *request) (any, error) {
	return q.retag(func(tags map[string]string) {
		for _, key := range r.TagKeys {
			delete(tags, key)
		}
	})
}

func (q *queue) retag(edit func(map[string]string)) (any, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	tags := maps.Clone(q.tags)
	edit(tags)
	if len(tags) > 50 {
		return nil, invalid("Too many tags added for queue %s.", q.name)
	}
	q.tags = tags
	return struct{}{}, nil
}

func (s *Server) listTags(q *queue, _ *request) (any, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return struct {
		Tags map[string]string `json:",omitempty"`
	}{maps.Clone(q.tags)}, nil
}

func (s *Server) listQueues(r *request) (any, error) {
	urls, next, err := r.page(s.all(), func(q *queue) bool { return strings.HasPrefix(q.name, r.QueueNamePrefix) })
	return struct {
		QueueUrls []string `json:",omitempty"`
		NextToken string   `json:",omitempty"`
	}{urls, next}, err
}

func (s *Server) listSources(dlq *queue, r *request) (any, error) {
	urls, next, err := r.page(s.all(), func(q *queue) bool { return q.redrivesTo(dlq) })
	return struct {
		QueueUrls []string `json:"queueUrls"`
		NextToken string   `json:",omitempty"`
	}{urls, next}, err
}

// redrivesTo reports whether dlq is q's dead-letter queue. It takes q.mu.
func (q *queue) redrivesTo(dlq *queue) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.set.redrive != nil && q.set.redrive.DeadLetterTargetArn == dlq.arn
}

// page returns the URLs of those queues that r's page has, and the token of
// the next page. A token is the last name of the page before.
func (r *request) page(qs []*queue, match func(*queue) bool) (urls []string, next string, err error) {
	limit := 1000
	if r.MaxResults != nil {
		if limit = *r.MaxResults; limit < 1 || limit > 1000 {
			return nil, "", outOfRange("MaxResults", limit, "Must be between 1 and 1000.")
		}
	}
	after, err := base64.StdEncoding.DecodeString(r.NextToken)
	if err != nil {
		return nil, "", invalid("Invalid or expired next token.")
	}
	urls = []string{}
	last := ""
	for _, q := range qs {
		if q.name <= string(after) || !match(q) {
			continue
		}
		if len(urls) == limit {
			return urls, base64.StdEncoding.EncodeToString([]byte(last)), nil
		}
		urls = append(urls, r.url(q.name))
		last = q.name
	}
	return urls, "", nil
}
