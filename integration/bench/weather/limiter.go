package weather

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"upwell/throttle"
)

// A Limiter paces one worker's calls in virtual time. One goroutine uses it, and
// times do not decrease.
type Limiter interface {
	// Admit reports whether c may be sent now, and sends it if so; if not, when to
	// ask again.
	Admit(now time.Time, c *Call) (ok bool, again time.Time)

	// Done reports how a call that was admitted ended. After an accepted one, c is
	// another job's.
	Done(now time.Time, c *Call, o throttle.Outcome, retryAfter time.Duration)

	// Rate is what it allows now, in calls per second, for pictures; zero if it
	// does not pace by rate.
	Rate() float64
}

// A Reasoner is a Limiter that can say in words why its rate is what it is.
type Reasoner interface{ Reason() string }

// A Member is a Limiter that learns from the others of its fleet.
type Member interface {
	Limiter

	// Exchange is called when the worker joins and at each time it returns.
	Exchange(now time.Time, board *Board) (again time.Time)
}

// A Kind is a way of pacing that scenarios are run with.
type Kind struct {
	Name string

	// New returns the limiter of one of the scenario's workers. Its randomness
	// comes from rng alone, which it may keep.
	New func(s *Scenario, rng *rand.Rand) Limiter

	// Backoff is the longest that a refused job waits on its own, whatever the
	// limiter says: full jitter under a second that doubles with each attempt.
	// Zero: the limiter alone decides.
	Backoff time.Duration

	// Pool is how many jobs a worker has in hand at most, as a multiple of those in
	// flight at the scenario's peak. A job keeps its place during its backoff.
	// Zero: no limit.
	Pool float64

	// Fleet says that its limiters are Members in scenarios that have a fleet. A
	// kind without plays the same scenario uncoordinated.
	Fleet bool
}

// A Board is the one object that a fleet's members share: read whole, and replaced
// only by who has read what is there. It is s3sink's as far as members can tell.
type Board struct {
	lost  bool // out of reach now
	data  []byte
	count int // of writes, which is the version

	// An exchange is over in an instant of virtual time, so nobody could come
	// between its read and its write. Instead its first write is too late if
	// another was made shortly before.
	now, wrote time.Duration // of this exchange, of the last write
	raced      bool          // it has been too late already
}

// roundTrip is how long a member takes from its read to its write: two requests
// to S3.
const roundTrip = 100 * time.Millisecond

// errLost is what a Board out of reach returns.
var errLost = errors.New("weather: the board is out of reach")

// Read returns what was written last and its version; nothing at first.
func (b *Board) Read(context.Context) (data []byte, version string, err error) {
	if b.lost {
		return nil, "", errLost
	}
	return b.data, b.version(), nil
}

// Write replaces the version that was read and reports whether it did: not if
// somebody else has, since.
func (b *Board) Write(_ context.Context, data []byte, version string) (ok bool, err error) {
	switch {
	case b.lost:
		return false, errLost
	case version != b.version():
		return false, nil
	case !b.raced && b.count > 0 && b.now-b.wrote < roundTrip:
		b.raced = true
		return false, nil
	}
	b.data, b.wrote = slices.Clone(data), b.now
	b.count++
	return true, nil
}

func (b *Board) version() string {
	if b.count == 0 {
		return ""
	}
	return strconv.Itoa(b.count)
}
