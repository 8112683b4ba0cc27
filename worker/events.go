package worker

import (
	"time"

	"upwell/jobs"
	"upwell/throttle"
)

// An EventKind says what happened. The set is closed.
type EventKind int

// Kinds of events, in the order in which a message meets them.
const (
	Received  EventKind = iota // a message was received
	Permitted                  // a lane let an attempt start
	Attempted                  // an attempt ended; Err is nil if it was answered
	Escalated                  // a job moved up to the tier of Lane
	Stored                     // a result is stored, and it is this worker's
	Duplicate                  // the job had a result already; nothing was stored
	Buried                     // the job is dead-lettered
	Passed                     // the message was no job of its own: it asked for nothing, or its Parts are queued
	Released                   // the message was given back
	Lost                       // the delivery ended before the job was settled
	Paused                     // a lane closed because its credential or path is no good, or no connection can be had for a minute
	Resumed                    // it opened again
	Parked                     // the budget of a run, which Key names, has no room for its calls
	Unparked                   // it has room again
)

func (k EventKind) String() string {
	return [...]string{
		"received", "permitted", "attempted", "escalated", "stored", "duplicate", "buried", "passed", "released", "lost", "paused", "resumed",
		"parked", "unparked",
	}[k]
}

// An Event is something that happened to a message, a job or a lane. The fields
// that its kind has no use for are zero.
type Event struct {
	Kind    EventKind
	At      time.Time
	Message string        // id of the message
	Key     jobs.Key      // of the job
	Lane    throttle.Lane // of the attempt; Escalated: of the next one
	Waited  time.Duration // Permitted: for the lane
	Attempt jobs.Attempt  // Attempted
	Outcome throttle.Outcome
	Delay   time.Duration // Released: until it may be received again
	Err     error         // Attempted, Released, Lost, Paused, Parked: why
	Class   jobs.Class    // Buried
	Parts   int           // Passed: messages that were queued instead

	// Usage and CostUSD are what an attempt was billed: of Attempted, whether
	// or not the answer was any good.
	Usage   jobs.Usage
	CostUSD jobs.USD

	// Job is what an attempt was for: of Attempted. It is not to be changed, and not
	// to be kept.
	Job *jobs.Job
}

func (w *Worker) observe(e Event) {
	if w.cfg.Observe == nil {
		return
	}
	e.At = time.Now()
	w.cfg.Observe(e)
}
