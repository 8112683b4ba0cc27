package worker

import (
	"context"
	"sync"
	"time"

	"upwell/jobs"
)

const (
	// batch is the most messages that one request to SQS can carry.
	batch = 10

	// gather is how long a receiver waits for a full batch of room once there
	// is some. It costs a fraction of a call's latency and saves most of the
	// requests that would otherwise ask for a message or two.
	gather = 10 * time.Millisecond

	// firstGuess is how large a body is taken to be before one has been seen:
	// SQS's old limit, and a quarter of the present one.
	firstGuess = 256 << 10
)

// room bounds what is held at once: messages, and the bytes of their bodies.
//
// Nobody knows how large a message is before it has come, so room is reserved
// for the largest seen lately and corrected afterwards. The bytes held may
// therefore exceed the bound by what one batch for each receiver can bring.
type room struct {
	turn chan struct{} // one receiver at a time gathers room

	mu      sync.Mutex
	free    int   // messages there is room for
	bytes   int64 // bytes there is room for; negative when the guess was low
	guess   int64 // size of a body not yet seen: the largest of late, decaying
	total   int   // free when nothing is held
	changed chan struct{}
}

// A space is what there is room for.
type space struct {
	messages int
	bytes    int64
}

// plus returns s and the room of one message.
func (s space) plus(m jobs.Message) space {
	return space{s.messages + 1, s.bytes + int64(len(m.Body))}
}

// left returns what is neither taken nor asked for.
func (r *room) left() space {
	r.mu.Lock()
	defer r.mu.Unlock()
	return space{r.free, r.bytes}
}

func newRoom(messages int, bytes int64) *room {
	return &room{
		turn: make(chan struct{}, 1), free: messages, total: messages, bytes: bytes,
		guess: firstGuess, changed: make(chan struct{}, 1),
	}
}

// reserve waits for room for a message and then, briefly, for a batch. It
// returns how many messages there is room for, up to most: none only if ctx is
// done.
func (r *room) reserve(ctx context.Context, most int) (n int, each int64) {
	select {
	case r.turn <- struct{}{}:
		defer func() { <-r.turn }()
	case <-ctx.Done():
		return 0, 0
	}
	var full <-chan time.Time // runs from when there is any room at all
	for ctx.Err() == nil {
		free := r.available()
		if free > 0 && full == nil {
			full = time.After(gather)
		}
		if free >= most {
			return r.take(most)
		}
		select {
		case <-ctx.Done():
		case <-r.changed:
		case <-full:
			if n, each := r.take(most); n > 0 {
				return n, each
			}
			full = nil
		}
	}
	return 0, 0
}

// available reports how many messages there is room for.
func (r *room) available() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.fits()
}

// fits is available with r.mu held.
func (r *room) fits() int {
	if r.free == r.total {
		return max(1, min(r.free, int(r.bytes/r.guess))) // the one too large for the bound is held alone
	}
	return max(0, min(r.free, int(r.bytes/r.guess)))
}

// take reserves room for up to most messages of the size guessed.
func (r *room) take(most int) (n int, each int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n = min(most, r.fits())
	r.free -= n
	r.bytes -= int64(n) * r.guess
	return n, r.guess
}

// settle replaces what was reserved for n messages by what came.
func (r *room) settle(n int, each int64, got []jobs.Message) {
	r.mu.Lock()
	r.free += n - len(got)
	r.bytes += int64(n) * each
	for _, m := range got {
		size := int64(len(m.Body))
		r.bytes -= size
		// A sixteenth at a time, so that a few small ones do not make it
		// forget the large.
		r.guess = max(size, r.guess-r.guess/16, 1<<10)
	}
	r.mu.Unlock()
	r.signal()
}

// release returns the room of one message.
func (r *room) release(m jobs.Message) {
	r.mu.Lock()
	r.free++
	r.bytes += int64(len(m.Body))
	r.mu.Unlock()
	r.signal()
}

func (r *room) signal() {
	select {
	case r.changed <- struct{}{}:
	default: // whoever gathers will look again anyway
	}
}
