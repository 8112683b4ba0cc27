package jobs

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"time"
)

// A Result is the settled outcome of a job as it is stored: an OpenAI batch
// output line when Error is nil, an error line otherwise.
//
// It is a storage type: fields may be added, and none may change its meaning.
type Result struct {
	ID       string    `json:"id"` // see [Key.RequestID]
	CustomID string    `json:"custom_id"`
	Response *Response `json:"response"`
	Error    *Error    `json:"error"`
	Upwell   Record    `json:"upwell"`
}

// A Response is what the endpoint answered.
type Response struct {
	StatusCode int             `json:"status_code"`
	RequestID  string          `json:"request_id"`
	Body       json.RawMessage `json:"body"`
}

// An Error says why there is no answer.
type Error struct {
	Code    Class  `json:"code"`
	Message string `json:"message"`
}

// A Record is what upwell knows of a settled job beyond OpenAI's line. With the
// line it answers who was sent what, when, by what and for how much.
type Record struct {
	Run        string          `json:"run"`
	Output     json.RawMessage `json:"output,omitzero"` // the answer as JSON, when a schema was asked for
	OutputText string          `json:"output_text,omitzero"`
	Model      string          `json:"model"`
	Tier       string          `json:"tier,omitzero"` // the tier that served, as the endpoint says
	Region     string          `json:"region,omitzero"`

	// Usage and CostUSD are of all calls that were billed for the job; Extra is
	// the part of them that went into repairs and extensions, if there were any.
	Usage   Usage  `json:"usage"`
	CostUSD USD    `json:"cost_usd"`
	Extra   *Extra `json:"extra,omitzero"`
	Price   *Price `json:"price,omitzero"` // that the last of them was booked at

	Attempts   []Attempt `json:"attempts"`
	Billed     int       `json:"billed_calls"`        // calls that were answered, well or badly, and so paid for
	Repairs    int       `json:"repairs"`             // calls that asked to mend an answer against its schema
	Extensions int       `json:"extensions,omitzero"` // calls that gave a truncated answer more room

	InputSHA256    string    `json:"input_sha256"`             // of the request as the job has it
	SchemaSHA256   string    `json:"schema_sha256,omitzero"`   // of the schema that the answer was held to
	TemplateSHA256 string    `json:"template_sha256,omitzero"` // of the template that the request was made with
	Version        string    `json:"version,omitzero"`         // of upwell
	Finished       time.Time `json:"finished"`

	// Of an error line only: the message whose end it is, and what its dead
	// letter says beside the reason.
	MessageID       string    `json:"message_id,omitzero"`
	CountedAttempts int       `json:"counted_attempts,omitzero"`
	FirstFailed     time.Time `json:"first_failed,omitzero"`
}

// Extra is what was paid for beyond the calls that were asked for.
type Extra struct {
	Usage   Usage `json:"usage"`
	CostUSD USD   `json:"cost_usd"`
}

// Letter returns the dead letter that belongs to an error line.
func (r Result) Letter() DeadLetter {
	l := DeadLetter{
		Key: Key{Run: r.Upwell.Run, CustomID: r.CustomID}, Class: r.Error.Code, Reason: r.Error.Message,
		Attempts: r.Upwell.CountedAttempts, FirstFailed: r.Upwell.FirstFailed,
	}
	for _, a := range r.Upwell.Attempts {
		if a.Error != "" {
			l.Status, l.RequestID = a.Status, a.RequestID
		}
	}
	return l
}

// RequestID returns the id of the job's line in an output file. It is made of
// the key alone, so that writing a result again writes the same line.
func (k Key) RequestID() string {
	sum := sha256.Sum256([]byte(k.Run + "\x00" + k.CustomID))
	return "batch_req_" + hex.EncodeToString(sum[:12])
}

// A Class says what kind of end a dead letter came to. The set is closed:
// programs may act on a Class, never on a reason's text.
type Class string

// Classes of dead letters.
const (
	BadRequest    Class = "bad_request"    // the endpoint refused the request for what it says
	BadJob        Class = "bad_job"        // the message is not a job
	ContextLength Class = "context_length" // the prompt is longer than the model takes
	Refused       Class = "refused"        // the model declined to answer
	SchemaFailed  Class = "schema"         // the answer does not satisfy the job's schema
	Truncated     Class = "truncated"      // the answer ended at its token limit
	Expired       Class = "expired"        // the deadline passed before an answer
	Poison        Class = "poison"         // delivered again and again, and never settled
	Exhausted     Class = "exhausted"      // every counted attempt failed
)

// A DeadLetter is a job that will never have an answer.
type DeadLetter struct {
	Key         // empty when the message has none
	Class       Class
	Reason      string
	Status      int       // of the last answer, or zero
	RequestID   string    // of the last answer, or empty
	Attempts    int       // counted attempts, all deliveries together
	FirstFailed time.Time // when the first attempt failed, or the letter was written

	// BodyRef is where the message's body is stored, as an s3 URL, when it does
	// not fit into a letter beside what is known about its end. Else empty.
	BodyRef string
}
