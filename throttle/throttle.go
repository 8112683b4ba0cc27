// Package throttle decides when the next attempt may start, and learns from
// how each one ends.
//
// Capacity belongs to a [Lane]: one model at one service tier in one Region.
// Each lane has a [Limiter], and a [Set] keeps them. Whoever wants to make an
// attempt acquires a [Permit], which may take a while, makes the attempt at
// once, and tells the permit how it ended:
//
//	p, err := limiter.Acquire(ctx, cost)
//	…one call…
//	p.Done(throttle.Feedback{Outcome: throttle.Throttled, RetryAfter: after})
//
// # Waiting
//
// A limiter paces with [rate.Limiter], but nobody waits inside one: its
// reservations are fixed when they are made, so a rate that changes later
// reaches only newcomers. Here waiters stand in line for a turn, the one at
// the head alone asks for a token, and it asks again whenever the rate changes.
// A raise, a cut and a pause therefore reach everybody who already waits, and
// those who wait hold nothing.
//
// When the endpoint says to stay away for longer than anybody should stand in
// line, the limiter is closed: all who wait, and all who come, get a
// [*ClosedError] that says until when, and can do something else meanwhile.
//
// # Learning
//
// The rate follows additive increase and multiplicative decrease (Chiu and
// Jain, 1989): it doubles until the first refusal, and from then on grows by a
// fixed part of what was refused and is cut by a fixed factor. An outage, in
// which everything is refused, cuts as deep as it lasts and is not learned from:
// the rate then doubles back to where it was. See controller.
//
// The package knows nothing of queues, HTTP or models. Time comes from package
// time, so a test runs it under [testing/synctest] through hours in
// milliseconds.
package throttle

import (
	"fmt"
	"time"
)

// A Lane is what has its own capacity, its own limiter and its own statistics.
type Lane struct {
	Region string // of the endpoint
	Model  string
	Tier   string // service tier
}

// String returns the lane's parts with slashes, for logs and labels.
func (l Lane) String() string { return l.Region + "/" + l.Model + "/" + l.Tier }

// A Cost is what an attempt takes of a lane's capacity, in tokens, beside
// being one call.
type Cost struct {
	Input  int // tokens of the prompt
	Output int // tokens of the answer: at most, before the call; really, after it
}

// An Outcome is what an attempt says about the lane's capacity.
type Outcome int

// Outcomes.
const (
	Accepted    Outcome = iota // there was room
	Throttled                  // refused: more than our share (429)
	Unavailable                // refused: the endpoint is out of capacity (503, 529)
	Unrelated                  // failed, or was given up, for reasons that say nothing about room
)

func (o Outcome) String() string {
	switch o {
	case Accepted:
		return "accepted"
	case Throttled:
		return "throttled"
	case Unavailable:
		return "unavailable"
	case Unrelated:
		return "unrelated"
	default:
		return fmt.Sprintf("Outcome(%d)", int(o))
	}
}

// Feedback is how an attempt ended.
type Feedback struct {
	Outcome Outcome

	// RetryAfter is the endpoint's word on when to come back: nothing starts
	// in this lane for at least that long. Zero when it said nothing.
	RetryAfter time.Duration

	// Used is what an accepted attempt really took. Zero when unknown.
	Used Cost
}

// A ClosedError says that a lane will start nothing for a while.
type ClosedError struct {
	Until  time.Time
	Reason string // such as "retry-after 20s"
}

func (e *ClosedError) Error() string {
	return fmt.Sprintf("closed until %s: %s", e.Until.UTC().Format(time.RFC3339), e.Reason)
}

// State is what a limiter knows, for people to look at.
type State struct {
	Rate        float64   // calls per second it allows now
	InFlight    int       // permits that are out
	Waiting     int       // callers in line
	ClosedUntil time.Time // nothing starts before; in the past when open
	Reason      string    // why the rate is what it is, such as "cut: 429"

	Accepted, Throttled, Unavailable, Unrelated int64 // permits done, by outcome
}
