// Package jobs defines the unit of work: what a job is, how a queue carries
// it, and what is known about it once it is settled.
//
// A job travels as
//
//	Message → Job → Attempt… → Result or DeadLetter
//
// A [Message] is one delivery and a [Job] is what it asks for: a line of an
// OpenAI batch file, sent to the endpoint as it stands. The same job may be
// delivered more than once; its [Key], which is made of its run and its
// custom_id, never changes, so the Key names everything that must happen once.
//
// A [Result] is what is stored: a line of an OpenAI batch output file with one
// more object, "upwell", that says what the line has no room for. A job that
// will never have an answer ends as a [DeadLetter], which names a [Class] and a
// reason; its result is an OpenAI error line.
//
// The package is the module's vocabulary. It imports nothing but the standard
// library, and everything else may import it.
package jobs

import (
	"encoding/json"
	"time"
)

// A Key names a job for its whole life: in the queue, in the logs, and in the
// place its result is stored under.
type Key struct {
	Run      string // jobs submitted together share one
	CustomID string // the caller's name for the job, any text; unique in its run
}

// String returns run/custom_id, for logs. It is not a path: see package sink
// for how a Key is stored.
func (k Key) String() string { return k.Run + "/" + k.CustomID }

// The APIs a job may ask for, as its url names them.
const (
	Responses       = "/v1/responses"
	ChatCompletions = "/v1/chat/completions"
)

// A Job is one inference request. [Parse] makes one; its fields are not to be
// changed afterwards, and Body and Schema share memory with the message.
type Job struct {
	Key

	URL   string          // [Responses] or [ChatCompletions]
	Model string          // the body's model
	Body  json.RawMessage // the request, byte for byte as it was submitted

	// Tier is the body's service_tier, or empty. A job that names one there
	// gets that tier and no other.
	Tier string

	// Tiers are the service tiers to try, in order, or nil for the operator's.
	Tiers []string

	// Regions are the only ones the job may be sent to, or nil for all of the
	// operator's.
	Regions []string

	// Deadline is when an answer is no longer wanted. Zero means never.
	Deadline time.Time

	// Schema is a JSON Schema that the answer must satisfy: an object, or a
	// string that names one of the run's. Nil for none.
	Schema json.RawMessage

	// MaxAttempts is how many counted attempts the job gets. Zero means the
	// operator's number.
	MaxAttempts int

	// OutputCeiling is how many output tokens the job may be given when its
	// answer was truncated at the body's own limit. Zero means the operator's
	// number.
	OutputCeiling int

	// TemplateSHA256 names the template that the body was made with, in
	// hexadecimal, or is empty.
	TemplateSHA256 string
}

// A Message is one delivery of a job.
type Message struct {
	ID       string // names the message, whatever the delivery
	Body     []byte // not to be written to
	Receipt  string // names this delivery
	Receives int    // deliveries so far, this one included

	// Sent is when the message was first queued and Received when this
	// delivery began. Queues bound how long a delivery may last from there.
	Sent, Received time.Time

	// Attempts is how many counted attempts earlier deliveries have spent.
	Attempts int

	// First is the id of the message that this one continues, for a queue that
	// gives messages back by sending them anew. Empty when it continues none.
	First string

	// Again says that the job may have been answered before, although this
	// message was never delivered: it was submitted again or redriven.
	Again bool

	// Trace ties the message to the trace in which its job was submitted. Zero for
	// none, or for one that is no good. The worker looks at none of it.
	Trace Trace

	// Origin is whatever the source wants to remember of the delivery. Nobody
	// else looks at it.
	Origin any
}

// A Trace is a place in a distributed trace, in the words of W3C Trace Context.
type Trace struct {
	Parent string // traceparent
	State  string // tracestate, or empty
}

// An Attempt is one call to the endpoint for a job.
type Attempt struct {
	N         int       `json:"n"` // 1 for the first of this delivery
	Started   time.Time `json:"started"`
	TookMS    int64     `json:"took_ms"`
	Status    int       `json:"status,omitzero"` // HTTP status, or zero when there was no answer
	Region    string    `json:"region,omitzero"`
	Tier      string    `json:"tier,omitzero"`
	RequestID string    `json:"request_id,omitzero"`
	Error     string    `json:"error,omitzero"`

	// Turn is what the call was for when it was not the first of its kind.
	Turn Turn `json:"turn,omitzero"`
}

// A Turn is what another call for a job is for, after one that was answered badly.
type Turn string

// The turns there are.
const (
	Repair    Turn = "repair"    // to mend an answer that is against its schema
	Extension Turn = "extension" // to give a truncated answer more room
)

// Usage counts the tokens of one answer.
type Usage struct {
	InputTokens     int64 `json:"input_tokens"`
	CachedTokens    int64 `json:"cached_tokens"` // the part of InputTokens served from the prompt cache
	OutputTokens    int64 `json:"output_tokens"`
	ReasoningTokens int64 `json:"reasoning_tokens"` // the part of OutputTokens spent on reasoning
}

// Add returns the sum of u and v.
func (u Usage) Add(v Usage) Usage {
	return Usage{
		u.InputTokens + v.InputTokens, u.CachedTokens + v.CachedTokens,
		u.OutputTokens + v.OutputTokens, u.ReasoningTokens + v.ReasoningTokens,
	}
}
