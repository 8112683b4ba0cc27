package sqssim

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"path"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"
)

const (
	account = "000000000000"

	// maxRequest bounds what is read of one request. A full batch is 1 MiB of
	// payload; JSON spells a character in at most six bytes, and the rest is
	// room for handles and names.
	maxRequest = 8 << 20
)

// A Config describes a server. The zero Config is usable.
type Config struct {
	// Region appears in queue ARNs. The default is us-east-1.
	Region string

	// InFlight is how many messages of one queue may be in flight. At the
	// limit a short poll of a standard queue fails with OverLimit; a long
	// poll, or any poll of a FIFO queue, finds nothing. The default is 120,000.
	InFlight int

	// Shuffle makes standard queues deliver in random order, as AWS is free
	// to do. By default they deliver roughly in the order of arrival.
	Shuffle bool

	// LenientReceipts says what a receipt may do on a standard queue when its
	// visibility timeout has passed and nobody else has received the message.
	// The documentation leaves it open. If false, DeleteMessage succeeds
	// without deleting and ChangeMessageVisibility fails with
	// MessageNotInflight. If true, DeleteMessage deletes and
	// ChangeMessageVisibility succeeds without effect, which is how AWS has
	// been seen to behave. After another receive an old receipt never does
	// anything.
	LenientReceipts bool

	// Latency is added to every request before it takes effect. The wait of a
	// long poll comes on top. The default is none.
	Latency time.Duration

	// Fault, if set, decides the fate of each well-formed request before it
	// takes effect. It is called concurrently, and may call the server's
	// methods.
	Fault func(op string, c Call) Fault
}

// A Call is what [Config.Fault] is told about a request.
type Call struct {
	// Queue is the name of the queue, empty for operations without one.
	Queue string

	// N counts the requests for this operation since the server began; the
	// first is 1. A client's retry is a request of its own.
	N int

	// Entries are the entries of a batch, or the one message of SendMessage,
	// DeleteMessage or ChangeMessageVisibility. They are nil otherwise.
	Entries []Entry
}

// An Entry is one message that a request is about.
type Entry struct {
	// ID is the entry's id in its batch, empty outside of batches.
	ID string

	// Body is the message's body. It is empty when a receipt's message no
	// longer exists.
	Body string
}

// A Fault is what goes wrong with one request. The zero Fault is none.
type Fault struct {
	// Apply says whether the operation takes effect all the same, when Err or
	// Drop hide its result, or FailEntry that of an entry.
	Apply bool

	// Err, if set, is answered in place of the result.
	Err *Error

	// Drop cuts the connection in place of an answer.
	Drop bool

	// Delay holds the answer back after the operation has taken effect.
	Delay time.Duration

	// FailEntry, if set, returns the failure to report for an entry of a
	// batch, or nil to let it pass.
	FailEntry func(Entry) *Error

	// Corrupt, if set, reports whether a received message should carry a
	// wrong MD5OfBody.
	Corrupt func(Message) bool
}

// A Server simulates SQS in one Region. It is created by [New], and safe for
// concurrent use.
type Server struct {
	cfg Config

	mu       sync.RWMutex // guards the table, never what is in it
	queues   map[string]*queue
	deleted  map[string]time.Time // names that may not be used again yet
	requests map[string]int       // by operation

	moves struct {
		sync.Mutex // held while messages are moved
		tasks      []*task
	}
	moving atomic.Int32 // how many tasks are running
}

// New returns a server without queues.
func New(cfg Config) *Server {
	cfg.Region = cmp.Or(cfg.Region, "us-east-1")
	cfg.InFlight = cmp.Or(cfg.InFlight, 120_000)
	return &Server{
		cfg:      cfg,
		queues:   map[string]*queue{},
		deleted:  map[string]time.Time{},
		requests: map[string]int{},
	}
}

// A request is a decoded call together with what surrounds it. One type serves
// all operations: a field means the same wherever it occurs, and a single
// message is the entry of a batch of one.
type request struct {
	entry
	Entries []entry

	QueueUrl, QueueName, QueueNamePrefix string
	Attributes, Tags                     map[string]string
	AttributeNames, TagKeys              []string
	MaxResults                           *int
	NextToken                            string

	MaxNumberOfMessages, WaitTimeSeconds *int
	MessageAttributeNames                []string
	MessageSystemAttributeNames          []string
	ReceiveRequestAttemptId              string

	SourceArn, DestinationArn, TaskHandle string
	MaxNumberOfMessagesPerSecond          *int

	http  *http.Request
	call  Call
	fault Fault
}

type entry struct {
	Id, ReceiptHandle                      string
	MessageBody                            string
	DelaySeconds, VisibilityTimeout        *int
	MessageGroupId, MessageDeduplicationId *string
	MessageAttributes                      map[string]Attribute
	MessageSystemAttributes                map[string]Attribute

	trace string // from a header of the HTTP request
}

type operation func(*Server, *request) (any, error)

var operations = map[string]operation{
	"CancelMessageMoveTask":        (*Server).cancelMove,
	"ChangeMessageVisibility":      on((*Server).change),
	"ChangeMessageVisibilityBatch": on((*Server).changeBatch),
	"CreateQueue":                  (*Server).createQueue,
	"DeleteMessage":                on((*Server).delete),
	"DeleteMessageBatch":           on((*Server).deleteBatch),
	"DeleteQueue":                  on((*Server).deleteQueue),
	"GetQueueAttributes":           on((*Server).attributes),
	"GetQueueUrl":                  (*Server).queueURL,
	"ListDeadLetterSourceQueues":   on((*Server).listSources),
	"ListMessageMoveTasks":         (*Server).listMoves,
	"ListQueues":                   (*Server).listQueues,
	"ListQueueTags":                on((*Server).listTags),
	"PurgeQueue":                   on((*Server).purge),
	"ReceiveMessage":               on((*Server).receive),
	"SendMessage":                  on((*Server).send),
	"SendMessageBatch":             on((*Server).sendBatch),
	"SetQueueAttributes":           on((*Server).setAttributes),
	"StartMessageMoveTask":         (*Server).startMove,
	"TagQueue":                     on((*Server).tag),
	"UntagQueue":                   on((*Server).untag),
}

// errHungUp means that there is nobody to answer, or that nobody shall be.
var errHungUp = errors.New("sqssim: connection dropped")

// ServeHTTP answers one SQS request. It panics with [http.ErrAbortHandler] to
// drop the connection when a fault asks for it or the client has gone.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	out, err := s.serve(r)
	if errors.Is(err, errHungUp) {
		panic(http.ErrAbortHandler)
	}
	h, status := w.Header(), http.StatusOK
	h.Set("Content-Type", "application/x-amz-json-1.0")
	h.Set("X-Amzn-RequestId", newUUID().String())
	if err != nil {
		e := asError(err)
		status, out = e.status(), e.body()
		h.Set("X-Amzn-Query-Error", e.query())
	}
	b, err := json.Marshal(out)
	if err != nil {
		panic(err) // results are plain data
	}
	h.Set("Content-Length", strconv.Itoa(len(b)))
	w.WriteHeader(status)
	if _, err := w.Write(b); err != nil {
		panic(http.ErrAbortHandler)
	}
}

// RoundTrip serves r in the calling goroutine, with no socket in between. A
// dropped connection is [io.ErrUnexpectedEOF]; when r's context is done, its
// cause is returned.
func (s *Server) RoundTrip(r *http.Request) (_ *http.Response, err error) {
	ctx := r.Context()
	if r.Body == nil {
		r = r.Clone(ctx)
		r.Body = http.NoBody
	}
	defer r.Body.Close()
	defer func() {
		if p := recover(); p == http.ErrAbortHandler {
			err = io.ErrUnexpectedEOF
		} else if p != nil {
			panic(p)
		}
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
	}()
	w := &response{header: http.Header{}}
	s.ServeHTTP(w, r)
	return &http.Response{
		Status: strconv.Itoa(w.status) + " " + http.StatusText(w.status), StatusCode: w.status,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: w.header, Body: io.NopCloser(&w.body),
		ContentLength: int64(w.body.Len()), Request: r,
	}, nil
}

// A response is an answer that stays in the process.
type response struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (w *response) Header() http.Header         { return w.header }
func (w *response) WriteHeader(status int)      { w.status = status }
func (w *response) Write(b []byte) (int, error) { return w.body.Write(b) }

func (s *Server) serve(r *http.Request) (any, error) {
	name, _ := strings.CutPrefix(r.Header.Get("X-Amz-Target"), "AmazonSQS.")
	op, ok := operations[name]
	if !ok || r.Method != http.MethodPost {
		return nil, errorf("UnknownOperationException", "The requested operation %q does not exist.", name)
	}
	in, err := decode(r)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.requests[name]++
	in.call.N = s.requests[name]
	s.mu.Unlock()

	if err := pause(r.Context(), s.cfg.Latency); err != nil {
		return nil, err
	}
	s.advance(time.Now())
	if s.cfg.Fault != nil {
		s.describe(in)
		in.fault = s.cfg.Fault(name, in.call)
	}
	f := in.fault
	var out any
	if f.Apply || f.Err == nil && !f.Drop {
		out, err = op(s, in)
	}
	if errors.Is(err, errHungUp) {
		return nil, err
	}
	if err := pause(r.Context(), f.Delay); err != nil {
		return nil, err
	}
	switch {
	case f.Drop:
		return nil, errHungUp
	case f.Err != nil:
		return nil, f.Err
	}
	return out, err
}

func decode(r *http.Request) (*request, error) {
	b, err := io.ReadAll(io.LimitReader(r.Body, maxRequest+1))
	switch {
	case err != nil:
		return nil, errHungUp
	case len(b) > maxRequest:
		return nil, errorf("RequestEntityTooLarge", "The request is longer than %d bytes.", maxRequest)
	}
	in := &request{http: r}
	if err := json.Unmarshal(b, in); err != nil || !utf8.Valid(b) {
		return nil, errorf("SerializationException", "The request is not valid JSON of this operation.")
	}
	if in.QueueUrl != "" {
		in.call.Queue = path.Base(in.QueueUrl)
	} else {
		in.call.Queue = in.QueueName
	}
	if trace := r.Header.Get("X-Amzn-Trace-Id"); trace != "" && in.MessageSystemAttributes == nil && in.MessageBody != "" {
		in.trace = trace
	}
	return in, nil
}

// describe fills in the entries of the call for [Config.Fault].
func (s *Server) describe(r *request) {
	entries := r.Entries
	if r.MessageBody != "" || r.ReceiptHandle != "" {
		entries = []entry{r.entry}
	}
	q, _ := s.byName(r.call.Queue)
	for _, e := range entries {
		body := e.MessageBody
		if q != nil && e.ReceiptHandle != "" {
			body = q.bodyOf(e.ReceiptHandle)
		}
		r.call.Entries = append(r.call.Entries, Entry{ID: e.Id, Body: body})
	}
}

// pause waits for d, or returns errHungUp when ctx is done first.
func pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return errHungUp
	}
}
