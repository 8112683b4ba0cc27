package sqssim

import (
	"encoding/base64"
	"encoding/json"
	"slices"
	"time"
)

// keptTasks is how many tasks of one source are listed.
const keptTasks = 10

// A task moves messages out of a dead-letter queue. Like events, moves are
// carried out when somebody looks: the n-th is due n/rate after the start. All
// of it is guarded by the server's moves.
type task struct {
	id          string
	source      *queue
	destination string // ARN; empty is where each message came from
	rate        int    // messages per second; zero is all at once
	started     time.Time
	total       int // visible messages at the start
	moved       int
	status      string
	failure     string
}

const (
	running   = "RUNNING"
	completed = "COMPLETED"
	cancelled = "CANCELLED"
	failed    = "FAILED"
)

// handle names the task to clients while it runs.
func (t *task) handle() string {
	b, _ := json.Marshal(taskHandle{t.id, t.source.arn})
	return base64.StdEncoding.EncodeToString(b)
}

type taskHandle struct {
	TaskID    string `json:"taskId"`
	SourceARN string `json:"sourceArn"`
}

// due is when the next message is to be moved.
func (t *task) due() time.Time {
	if t.rate == 0 {
		return t.started
	}
	return t.started.Add(time.Duration(t.moved+1) * time.Second / time.Duration(t.rate))
}

// advance carries out the moves that are due, and returns when the next is,
// or zero.
func (s *Server) advance(now time.Time) (next time.Time) {
	if s.moving.Load() == 0 {
		return next
	}
	s.moves.Lock()
	defer s.moves.Unlock()
	for _, t := range s.moves.tasks {
		for t.status == running && !t.due().After(now) {
			s.move(t, now)
		}
		if t.status == running && (next.IsZero() || t.due().Before(next)) {
			next = t.due()
		}
	}
	return next
}

// end gives t its last status. The moves must be locked.
func (s *Server) end(t *task, status, failure string) {
	t.status, t.failure = status, failure
	s.moving.Add(-1)
}

// move moves one message, or ends t. The moves must be locked. A moved message
// is a new one: it has another id, no receives, and its full retention.
func (s *Server) move(t *task, now time.Time) {
	m, dst, why := s.detach(t, now)
	switch {
	case why != "":
		s.end(t, failed, why)
		return
	case m != nil:
		fresh := &message{id: newUUID(), md5: m.md5, Message: m.Message}
		fresh.Sent, fresh.FirstReceived, fresh.Receives, fresh.Source = now, time.Time{}, 0, ""
		dst.accept(fresh, now, "")
		t.moved++
	}
	if m == nil || t.moved == t.total {
		s.end(t, completed, "")
	}
}

// detach takes the next visible message off t's source and finds where it
// goes, or why it cannot go there.
func (s *Server) detach(t *task, now time.Time) (m *message, dst *queue, why string) {
	q := t.source
	q.mu.Lock()
	defer q.mu.Unlock()
	q.settle(now)
	if m = q.front(); m == nil || t.moved == t.total {
		return nil, nil, ""
	}
	arn := t.destination
	if arn == "" {
		arn = m.Source
	}
	switch dst = s.byARN(arn); {
	case arn == "":
		return nil, nil, "CouldNotDetermineMessageSource"
	case dst == nil:
		return nil, nil, queryCodes["QueueDoesNotExist"]
	}
	q.remove(m)
	q.stats.Out++
	return m, dst, ""
}

func (s *Server) startMove(r *request) (any, error) {
	if r.SourceArn == "" {
		return nil, missing("SourceArn")
	}
	src := s.byARN(r.SourceArn)
	rate := 0
	if r.MaxNumberOfMessagesPerSecond != nil {
		rate = *r.MaxNumberOfMessagesPerSecond
	}
	switch {
	case src == nil:
		return nil, noResource("SourceArn")
	case !slices.ContainsFunc(s.all(), func(q *queue) bool { return q.redrivesTo(src) }):
		return nil, invalid("Source queue must be configured as a Dead Letter Queue.")
	case r.DestinationArn != "" && s.byARN(r.DestinationArn) == nil:
		return nil, noResource("DestinationArn")
	case r.DestinationArn == r.SourceArn:
		return nil, invalid("Source queue arn and destination queue arn cannot be the same.")
	case rate < 0 || rate > 500 || rate == 0 && r.MaxNumberOfMessagesPerSecond != nil:
		return nil, outOfRange("MaxNumberOfMessagesPerSecond", rate, "Must be between 1 and 500, if provided.")
	}
	now := time.Now()
	src.mu.Lock()
	src.settle(now)
	total := src.count[Visible]
	src.mu.Unlock()

	t := &task{
		id: newUUID().String(), source: src, destination: r.DestinationArn,
		rate: rate, started: now, total: total, status: running,
	}
	s.moves.Lock()
	same := 0
	for i, old := range slices.Backward(s.moves.tasks) {
		if old.source != src {
			continue
		}
		if old.status == running {
			s.moves.Unlock()
			return nil, invalid("There is already a task running. " +
				"Only one active task is allowed for a source queue arn at a given time.")
		}
		if same++; same == keptTasks {
			s.moves.tasks = slices.Delete(s.moves.tasks, i, i+1)
		}
	}
	s.moves.tasks = append(s.moves.tasks, t)
	s.moving.Add(1)
	s.moves.Unlock()

	s.advance(now)
	for _, q := range s.all() {
		q.mu.Lock()
		q.wake() // waiting receivers must learn when the next move is due
		q.mu.Unlock()
	}
	return struct{ TaskHandle string }{t.handle()}, nil
}

func (s *Server) cancelMove(r *request) (any, error) {
	var h taskHandle
	b, err := base64.StdEncoding.DecodeString(r.TaskHandle)
	if err != nil || json.Unmarshal(b, &h) != nil {
		return nil, invalid("Value for parameter TaskHandle is invalid.")
	}
	if s.byARN(h.SourceARN) == nil {
		return nil, noResource("SourceArn")
	}
	s.moves.Lock()
	defer s.moves.Unlock()
	i := slices.IndexFunc(s.moves.tasks, func(t *task) bool { return t.id == h.TaskID })
	if i < 0 {
		return nil, errorf("ResourceNotFoundException", "Task does not exist.")
	}
	t := s.moves.tasks[i]
	if t.status != running {
		return nil, invalid("Only active tasks can be cancelled.")
	}
	s.end(t, cancelled, "")
	return struct{ ApproximateNumberOfMessagesMoved int }{t.moved}, nil
}

// A listedTask is a task on the wire.
type listedTask struct {
	TaskHandle                        string `json:",omitempty"`
	Status                            string
	SourceArn                         string
	DestinationArn                    string `json:",omitempty"`
	MaxNumberOfMessagesPerSecond      int    `json:",omitempty"`
	ApproximateNumberOfMessagesMoved  int
	ApproximateNumberOfMessagesToMove int
	FailureReason                     string `json:",omitempty"`
	StartedTimestamp                  int64
}

func (s *Server) listMoves(r *request) (any, error) {
	limit := 1
	if r.MaxResults != nil {
		if limit = *r.MaxResults; limit < 1 || limit > keptTasks {
			return nil, outOfRange("MaxResults", limit, "Must be between 1 and 10, if provided.")
		}
	}
	src := s.byARN(r.SourceArn)
	if src == nil {
		return nil, noResource("SourceArn")
	}
	s.moves.Lock()
	defer s.moves.Unlock()
	var out struct{ Results []listedTask }
	for _, t := range slices.Backward(s.moves.tasks) {
		if t.source != src || len(out.Results) == limit {
			continue
		}
		l := listedTask{
			Status: t.status, SourceArn: src.arn, DestinationArn: t.destination,
			MaxNumberOfMessagesPerSecond:      t.rate,
			ApproximateNumberOfMessagesMoved:  t.moved,
			ApproximateNumberOfMessagesToMove: t.total,
			FailureReason:                     t.failure, StartedTimestamp: t.started.UnixMilli(),
		}
		if t.status == running {
			l.TaskHandle = t.handle()
		}
		out.Results = append(out.Results, l)
	}
	return out, nil
}
