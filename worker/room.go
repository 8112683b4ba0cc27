package worker

import (
	"context"
	"slices"
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

// room bounds what is held at once: messages, and the bytes of their bodies and of
// what is fetched for them.
//
// Nobody knows how large a message is before it has come, so room is reserved
// for the largest seen lately and corrected afterwards. The bytes held may
// therefore exceed the bound by what one batch for each receiver can bring.
//
// What is fetched for a message is known beforehand, and waits until it fits. Those
// who wait for it come before receivers, or small messages would keep a large one
// out for ever, and get their room in the order in which they asked. Each asks
// once, so that nobody waits for room who holds some that he was given so; and one
// too large to fit at all gets its room when everybody else who holds a message
// waits for room as well, or for what may take hours: see idle.
type room struct {
	turn chan struct{} // one receiver at a time gathers room

	mu      sync.Mutex
	free    int   // messages there is room for
	bytes   int64 // bytes there is room for; negative when the guess was low
	guess   int64 // size of a body not yet seen: the largest of late, decaying
	total   int   // free when nothing is held
	held    int64 // bytes of what is held, with what was fetched for it
	idling  int   // messages held whose jobs wait for what may take hours
	growing []*growth
	changed chan struct{}
}

// A growth is a message held that waits for room for more bytes.
type growth struct {
	bytes int64
	given chan struct{} // closed when they are
}

// A space is what there is room for.
type space struct {
	messages int
	bytes    int64
}

// plus returns s and the room of one message of that size.
func (s space) plus(bytes int64) space {
	return space{s.messages + 1, s.bytes + bytes}
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
	if len(r.growing) > 0 {
		return 0
	}
	if r.free > 0 && r.free == r.total-r.idling {
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
		r.held += size
		// A sixteenth at a time, so that a few small ones do not make it
		// forget the large.
		r.guess = max(size, r.guess-r.guess/16, 1<<10)
	}
	r.admit()
	r.mu.Unlock()
	r.signal()
}

// release returns the room of one message, which takes that many bytes.
func (r *room) release(bytes int64) {
	r.mu.Lock()
	r.free++
	r.bytes += bytes
	r.held -= bytes
	r.admit()
	r.mu.Unlock()
	r.signal()
}

// grow waits for room for more bytes of a message that is held. It may be called
// once for each. Without an error they are taken; the error is the cause of ctx.
func (r *room) grow(ctx context.Context, bytes int64) error {
	g := &growth{bytes: bytes, given: make(chan struct{})}
	r.mu.Lock()
	r.growing = append(r.growing, g)
	r.admit()
	r.mu.Unlock()
	select {
	case <-g.given:
		return nil
	case <-ctx.Done():
	}
	r.mu.Lock()
	i := slices.Index(r.growing, g)
	if i >= 0 {
		r.growing = slices.Delete(r.growing, i, i+1)
	} else {
		r.bytes += bytes // given in the same moment
		r.held -= bytes
	}
	r.admit()
	r.mu.Unlock()
	r.signal()
	return context.Cause(ctx)
}

// idle notes that a message is held whose job owes, and waits for money, or for a lane
// that is closed: it may do so for hours, and must not keep out the one too large for
// the bound. It is to be told when that is over.
func (r *room) idle() (over func()) {
	r.idles(1)
	return func() { r.idles(-1) }
}

func (r *room) idles(n int) {
	r.mu.Lock()
	r.idling += n
	r.admit()
	r.mu.Unlock()
	r.signal()
}

// correct takes so many bytes more, or returns them if there are fewer than none.
func (r *room) correct(bytes int64) {
	r.mu.Lock()
	r.bytes -= bytes
	r.held += bytes
	r.admit()
	r.mu.Unlock()
	r.signal()
}

// admit gives room to those who have waited longest. r.mu must be held.
func (r *room) admit() {
	for len(r.growing) > 0 {
		g := r.growing[0]
		alone := r.total-r.free-r.idling == len(r.growing)
		if g.bytes > r.bytes && !alone {
			return
		}
		r.bytes -= g.bytes
		r.held += g.bytes
		r.growing = slices.Delete(r.growing, 0, 1)
		close(g.given)
	}
}

func (r *room) signal() {
	select {
	case r.changed <- struct{}{}:
	default: // whoever gathers will look again anyway
	}
}

// full reports whether there is room for no message, and whether that is for want of
// bytes.
func (r *room) full() (full, forBytes bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.fits() == 0, r.free > 0 && r.total > r.free
}

// taken returns the bytes of what is held.
func (r *room) taken() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.held
}
