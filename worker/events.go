package worker

import (
	"time"

	"upwell/jobs"
	"upwell/throttle"
)

// An EventKind says what happened. The set is closed.
type EventKind int

// Kinds of events. Those of messages come first, in the order in which one meets
// them; then those of lanes and runs; then those of the worker itself.
const (
	Received  EventKind = iota // a message was received
	Permitted                  // a lane let an attempt start
	Attempted                  // an attempt ended: answered, refused for lack of room, or failed, as Outcome and Err say
	Escalated                  // a job moved up to the tier of Lane
	Stored                     // a result is stored, and it is this worker's
	Duplicate                  // the job had a result already; nothing was stored
	Buried                     // the job is dead-lettered
	Passed                     // the message was no job of its own: it asked for nothing, or its Parts are queued
	Released                   // the message was given back
	Lost                       // the delivery ended before the job was settled

	RateChanged // a lane's rate has another reason, or was cut
	Closed      // a lane starts nothing for a while
	Opened      // it does so again
	Paused      // a lane closed because its credential or path is no good, or no connection can be had for a minute
	Resumed     // it opened again
	Parked      // the budget of a run, which Key names, has no room for its calls
	Unparked    // it has room again

	Requested // a request to the source or the sink ended: Op says which
	Late      // a heartbeat was late or slow, by Took, or failed
	Sampled   // a second is over: Sample says how the worker stands
)

var kindNames = [...]string{
	"received", "permitted", "attempted", "escalated", "stored", "duplicate", "buried", "passed", "released", "lost",
	"rate changed", "closed", "opened", "paused", "resumed", "parked", "unparked",
	"requested", "late", "sampled",
}

func (k EventKind) String() string { return kindNames[k] }

// An Event is something that happened to a message, a job, a lane or the worker. It is
// all that anybody is told: logs, metrics, traces and what people look at are made of
// events and keep no other books. The fields that its kind has no use for are zero.
// What its pointers lead to is not to be changed, and not to be kept.
type Event struct {
	Kind    EventKind
	At      time.Time
	Message string        // id of the message
	Key     jobs.Key      // of the job
	Lane    throttle.Lane // of the attempt, or of what changed; Escalated: of the next attempt
	Waited  time.Duration // Permitted: for the lane
	Attempt jobs.Attempt  // Attempted
	Outcome throttle.Outcome
	Delay   time.Duration // Released: until it may be received again; Paused: until the next try
	Err     error         // Attempted, Released, Lost, Paused, Parked, Requested, Late: why
	Parts   int           // Passed: messages that were queued instead; Requested: messages received

	// Usage and CostUSD are what an attempt was billed: of Attempted, whether
	// or not the answer was any good.
	Usage   jobs.Usage
	CostUSD jobs.USD

	Delivery *jobs.Message    // Received
	Job      *jobs.Job        // Attempted: what the attempt was for
	Answer   *Answer          // Attempted: what was answered and billed, good or bad, or nil
	Result   *jobs.Result     // Stored, and Duplicate if an answer was too late: what was to be stored
	Letter   *jobs.DeadLetter // Buried
	Attempts int              // Stored, Duplicate, Buried, Lost: attempts of this delivery, at most those that are kept

	Rate   *throttle.State // RateChanged, Closed, Opened: of the lane
	Op     Op              // Requested
	Took   time.Duration   // Requested: how long; Late: by how much
	Sample *Sample         // Sampled
}

// An Op is a request that the worker makes of its [Source], its [Sink] or its
// [Opener].
type Op string

// The requests there are.
const (
	OpReceive  Op = "receive"
	OpHide     Op = "hide" // a heartbeat
	OpRelease  Op = "release"
	OpAck      Op = "ack"
	OpBury     Op = "bury"
	OpSplit    Op = "split"
	OpPut      Op = "put"
	OpPutError Op = "put_error"
	OpPutBody  Op = "put_body"
	OpHas      Op = "has"
	OpFailure  Op = "failure"
	OpSchema   Op = "schema"
	OpFetch    Op = "fetch"
)

// observe tells everybody who listens. The worker's own log is the first of them.
func (w *Worker) observe(e Event) {
	w.record(&e)
	if w.cfg.Observe == nil {
		return
	}
	e.At = time.Now()
	w.cfg.Observe(e)
}
