package worker

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"upwell/jobs"
	"upwell/throttle"
)

// A Source is a queue with at-least-once delivery.
// All methods may be called concurrently, and often are: an implementation may
// answer many calls with one request.
type Source interface {
	// Receive returns up to n messages and hides each from other consumers for
	// hide. It waits a while for the first one, and may return none and no
	// error. It must not swallow messages when ctx is done while it waits.
	Receive(ctx context.Context, n int, hide time.Duration) ([]jobs.Message, error)

	// Hide keeps m from other consumers for d from now. It is the heartbeat.
	// Its error wraps [ErrGone] when m is no longer this delivery's to hide.
	Hide(ctx context.Context, m jobs.Message, d time.Duration) error

	// Release gives m back: it may be received again once d has passed, with
	// m.Attempts carried along. Releasing costs m nothing, however often it
	// happens: a queue that counts deliveries must not hold this one against it.
	Release(ctx context.Context, m jobs.Message, d time.Duration) error

	// Ack removes m for good. Acknowledging twice is not an error.
	Ack(ctx context.Context, m jobs.Message) error

	// Bury puts m's body, unchanged, into the dead-letter queue with what is
	// known about its end. It is durable on return. m stays where it is: Ack
	// follows. Burying twice leaves two letters, which is no error.
	//
	// When the two do not fit into one letter its error wraps [ErrTooLarge], and
	// nothing is buried, unless l.BodyRef says where the body is: that goes
	// into the letter then.
	Bury(ctx context.Context, m jobs.Message, l jobs.DeadLetter) error

	// Split queues messages with these bodies in the place of m, each marked
	// Again, and with whatever else came with m. They are durable on return. m
	// stays where it is: Ack follows. After an error some may be queued; and
	// splitting twice leaves two of each, which is no error.
	Split(ctx context.Context, m jobs.Message, bodies [][]byte) error

	// Empty reports whether the queue holds no message at all, visible, hidden
	// or delayed.
	Empty(ctx context.Context) (bool, error)
}

// ErrGone is the error of settling a delivery that is no longer the caller's:
// its time ran out, and somebody else may have the message now.
var ErrGone = errors.New("the delivery is over")

// ErrTooLarge is the error of burying a message whose body leaves no room for what
// is known about its end.
var ErrTooLarge = errors.New("the body and what is known about its end do not fit into one letter")

// A Call is one attempt at a job: what to send, and in which lane.
type Call struct {
	Job  *jobs.Job // its Schema, if it has one, is an object
	Lane throttle.Lane

	// MaxOutput is how many output tokens the answer may have, in the place of
	// what the job says, or zero.
	MaxOutput int

	// Flaw is the answer that the model is to mend, or nil.
	Flaw *Flaw
}

// A Flaw is an answer that is not true to its schema, and why.
type Flaw struct {
	Text     string // what the model said
	Findings string // what the validator says to that, with JSON pointers
}

// An Answer is a call that got what it asked for.
type Answer struct {
	Response jobs.Response
	Text     string // what the model said
	Output   []byte // Text as JSON, when the job asked for JSON; else nil
	Schema   string // SHA-256, in hexadecimal, of the schema that Output was held to, or empty
	Model    string // as the endpoint reports it
	Tier     string // the tier that served, as the endpoint reports it
	Usage    jobs.Usage
	CostUSD  jobs.USD
	Price    *jobs.Price // that CostUSD was reckoned with, or nil
}

// An Endpoint makes attempts. It must not retry: attempts are counted, paced
// and recorded by the worker and nowhere else.
// All methods may be called concurrently.
type Endpoint interface {
	// Cost estimates what a call will take of its lane's capacity. It is
	// called before each attempt and must be quick.
	Cost(c Call) throttle.Cost

	// MostUSD is what a call may cost at most, or unknown if its price is. It is
	// called before each attempt if there is a [Purse], and must be quick.
	MostUSD(c Call) jobs.USD

	// Complete makes exactly one attempt. It returns nil only for an answer
	// that may be stored as a success: complete, not empty, not a refusal, and
	// true to the job's schema. An error is an [*Error]; any other is taken to
	// be [Transient].
	Complete(ctx context.Context, c Call) (Answer, error)
}

// A Sink stores results, one for each job. The first one stored stays.
// All methods may be called concurrently.
type Sink interface {
	// Put stores r durably before it returns nil. If the job has a result
	// already, that one stays, and Put reports false and no error.
	// It retries what a retry may mend.
	Put(ctx context.Context, k jobs.Key, r jobs.Result) (stored bool, err error)

	// PutError stores the error line of a job that will never have an answer.
	// A later one replaces it.
	PutError(ctx context.Context, k jobs.Key, r jobs.Result) error

	// Has reports whether the job has a result. Error lines do not count.
	Has(ctx context.Context, k jobs.Key) (bool, error)

	// Failure returns the error line of the job, and whether it has one.
	Failure(ctx context.Context, k jobs.Key) (r jobs.Result, ok bool, err error)

	// PutBody stores the body of the message of that id durably, for the dead
	// letter of the job, and returns an s3 URL for it. k may have no CustomID.
	PutBody(ctx context.Context, k jobs.Key, message string, body []byte) (ref string, err error)

	// Schema returns the JSON Schema of that name in the run's manifest, and
	// whether there is one.
	Schema(ctx context.Context, run, name string) (text json.RawMessage, ok bool, err error)
}

// A Kind says what an error means for the job and for the lane. The set is
// closed, and the worker acts on nothing else.
type Kind int

// Kinds of errors.
const (
	Transient    Kind = iota // try again, counting the attempt
	Throttled                // 429: try again when there is room, not counting it
	Unavailable              // 503, 529, no Flex capacity, no connection to be had: the same, and the lane rests
	Unauthorized             // 401, 403, wrong path: no job can succeed until a person acts
	Permanent                // never try again; Class says why
)

func (k Kind) String() string {
	switch k {
	case Transient:
		return "transient"
	case Throttled:
		return "throttled"
	case Unavailable:
		return "unavailable"
	case Unauthorized:
		return "unauthorized"
	case Permanent:
		return "permanent"
	default:
		return "unknown"
	}
}

// An Error is a failed attempt and what to do about it.
type Error struct {
	Kind       Kind
	Class      jobs.Class    // of the dead letter, when Kind is Permanent
	RetryAfter time.Duration // the endpoint's word, or zero
	Status     int           // HTTP status, or zero when there was no answer
	RequestID  string        // the endpoint's name for the call, or empty

	// Findings is what the validator found in Answer, in words for the model
	// that gave it. It is empty unless Class is SchemaFailed and the model can
	// be asked to mend its answer: see [Call.Flaw].
	Findings string

	// Limit is the number of output tokens that Answer ended at, as far as it is
	// known, when Class is Truncated: a higher one can be asked for with
	// [Call.MaxOutput]. Zero otherwise.
	Limit int

	// Answer is what was answered, and paid for, when the call succeeded as
	// HTTP and failed as an answer: truncated, refused, empty or against the
	// schema. Nil otherwise.
	Answer *Answer

	// Unsent says that nothing of the call has left, as there was no connection to
	// send it on: nobody can have billed it.
	Unsent bool

	// Err says what went wrong, in words fit for a log and a dead letter: no
	// secret, and no more of the endpoint's text than helps.
	Err error
}

func (e *Error) Error() string { return e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }
