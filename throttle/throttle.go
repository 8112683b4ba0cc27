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
// # What is known, and what is not
//
// Nobody says what a lane's capacity is, whether it is counted in calls, in tokens
// or in calls in flight, or when it changes. It shows itself only by refusals, so
// some calls have to be refused for it to be known. A limiter spends half a per
// cent of its calls on that, and the art is to learn the most from each:
//
//   - The first refusal ends the search, in which the rate doubles.
//   - From then on the rate creeps up, by 4 % in the 230 calls in which one
//     refusal is wanted (a cycle), and a refusal takes back as much. When a
//     refusal is overdue the capacity has risen, and the rate quickens; when it is
//     early the capacity has fallen, and the cut is deeper.
//   - Between two refusals the endpoint's budget was used up and no more, so what
//     was let in meanwhile is the capacity. A cut goes half the way there, if
//     that is further, and not below what a whole cycle without a refusal has
//     proved.
//   - A refusal of a call that started before the last cut is old news. Two cuts
//     with nothing let in between mean that there is nothing to be had: all stop,
//     a single probe goes out now and then, and when one is let in the rate is
//     back at its last stable level within seconds.
//
// A 429 is about the quota, which the tiers of a model share; a 503 or 529 is about
// the capacity of one tier. Each lane passes two such controllers, and each learns
// from its own refusals alone. Answers that are slow say nothing, as a model may
// think for minutes; nor do timeouts and resets. A Retry-After is a minimum.
//
// What is counted shows in which calls are refused. A limiter weighs calls by a mix
// of one and their tokens, and moves the mix towards tokens when refusals follow
// more tokens than usual (see meter). If refusals begin at the same number in
// flight time and again, and no call beyond it is ever let in, that number is what
// is limited (see wall).
//
// Others may use the same account. [Config].Shared is for when nothing is known of
// them, and [Set.Share] for when it is; see upwell/throttle/fleet.
//
// # Waiting
//
// A flow paces with [rate.Limiter], but nobody waits inside one: its reservations
// are fixed when they are made, so a rate that changes later reaches only
// newcomers. Here waiters stand in line for a turn, the one at the head alone asks
// whether it may start, and it asks again whenever there is more room. A raise, a
// cut and a pause therefore reach everybody who already waits, and those who wait
// hold nothing.
//
// When the endpoint says to stay away for longer than anybody should stand in
// line, the limiter is closed: all who wait, and all who come, get a
// [*ClosedError] that says until when, and can do something else meanwhile.
//
// # Layout
//
// A controller decides the rate of one flow; a flow paces by it; a [Pacer] is the two
// flows of a lane; all of them are pure, with time as a parameter. A [Limiter] adds
// the line, the lock and the clock. The package knows nothing of queues, HTTP or
// models. Time comes from package time, so a test runs it under
// [testing/synctest] through hours in milliseconds, and a simulation runs a Pacer
// without.
package throttle

import (
	"fmt"
	"strings"
	"time"
)

// A Lane is what has its own capacity, its own limiter and its own statistics.
type Lane struct {
	Region string // of the endpoint
	Model  string
	Tier   string // service tier
}

// String returns the lane's parts with slashes, for logs and labels. An endpoint that
// is in no Region has two.
func (l Lane) String() string { return strings.TrimPrefix(l.text(), "/") }

func (l Lane) text() string { return l.Region + "/" + l.Model + "/" + l.Tier }

// MarshalText returns REGION/MODEL/TIER, so that a lane can be a key in JSON.
func (l Lane) MarshalText() ([]byte, error) { return []byte(l.text()), nil }

// UnmarshalText reads what MarshalText wrote. The model may have slashes of its own.
func (l *Lane) UnmarshalText(text []byte) error {
	region, rest, ok := strings.Cut(string(text), "/")
	i := strings.LastIndexByte(rest, '/')
	if !ok || i < 0 {
		return fmt.Errorf("lane %q: want REGION/MODEL/TIER", text)
	}
	*l = Lane{Region: region, Model: rest[:i], Tier: rest[i+1:]}
	return nil
}

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
	Reason string // such as "Retry-After 20s"
}

func (e *ClosedError) Error() string {
	return fmt.Sprintf("closed until %s: %s", e.Until.UTC().Format(time.RFC3339), e.Reason)
}

// A Bound is what keeps a lane from starting more attempts. The set is closed.
type Bound string

// Bounds.
const (
	Ramp     Bound = "ramp"      // the rate is on its way up: nothing has been refused yet, or not for long
	Quota    Bound = "quota"     // refusals for more than our share (429)
	Capacity Bound = "capacity"  // refusals for lack of capacity (503, 529)
	InFlight Bound = "in_flight" // a limit of attempts in flight, found or set
	MaxRate  Bound = "max_rate"  // the highest rate allowed by [Config]
	Shut     Bound = "closed"    // [Limiter.Close]
)

// State is what a limiter knows, for people to look at.
type State struct {
	Rate        float64   // calls of mean cost per second that it allows now
	Stable      float64   // the rate it goes back to after a disturbance; zero before it is known
	InFlight    int       // permits that are out
	Waiting     int       // callers in line
	ClosedUntil time.Time // nothing starts before; in the past when open
	Reason      string    // why the rate is what it is, such as "grew" or "cut: 429"
	Binds       string    // what is limited, as far as that is known: calls, tokens, or attempts in flight
	Bound       Bound     // what keeps it from starting more, if anybody waits

	Accepted, Throttled, Unavailable, Unrelated int64 // permits done, by outcome
}

// Config holds a Limiter's settings. The zero value is ready to use.
type Config struct {
	// StartRate is the rate, in calls per second, before anything is known.
	// Default 5: low enough that a small capacity is not run over, and 200 is
	// reached in seconds where answers are quick. If Shared, 1.
	StartRate float64

	// MinRate and MaxRate bound the rate, in calls of mean cost per second.
	// Defaults 0.05 (three calls a minute, below which a lane is as good as
	// closed) and 10,000 (above what one worker can send).
	MinRate, MaxRate float64

	// MaxInFlight bounds the attempts in flight. Default: no bound.
	MaxInFlight int

	// Level is what [Set.Levels] returned another time. The rate then starts at
	// half of it and is back there within seconds, unless refusals say otherwise.
	Level Level

	// Shared says that other workers use the same account and that nobody
	// coordinates them; see [Set.Share] for those that are. The rate then
	// follows what makes shares equal, at the price of more refusals the lower
	// the rate of each worker is: 0.3 % at 5 calls a second, 2.5 % at 0.3.
	Shared bool

	// Guided follows the ramp that AWS publishes to the letter, instead of
	// learning: a refusal halves the rate, and after 15 minutes without a change
	// it is raised by half.
	Guided bool

	// OnChange, if set, is told when the reason for the rate is another, and of
	// each cut, one call at a time. It may ask for State and Room; whatever else it
	// asked of the Limiter would wait for it to return.
	OnChange func(State)
}

func (c Config) withDefaults() Config {
	set := func(v *float64, d float64) {
		if *v == 0 {
			*v = d
		}
	}
	set(&c.MinRate, 0.05)
	set(&c.MaxRate, 10_000)
	if c.Shared {
		set(&c.StartRate, 1)
	}
	set(&c.StartRate, 5)
	c.StartRate = min(max(c.StartRate, c.MinRate), c.MaxRate)
	return c
}
