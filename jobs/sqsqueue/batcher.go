package sqsqueue

import (
	"context"
	"sync"
	"time"
)

const (
	// gather is how long the first entry of a batch waits for company. Nobody
	// waits for the call that it settles, so this costs nothing but a little
	// room, and turns ten requests into one.
	gather = 10 * time.Millisecond

	// sendTimeout bounds a batch, retries included. It belongs to all callers
	// together, so no single one's context may end it.
	sendTimeout = 30 * time.Second
)

// A batcher turns calls for single entries into requests of up to ten. Many
// requests may be under way at once.
type batcher[E any] struct {
	send func(ctx context.Context, entries []E) []error // one error for each entry

	mu      sync.Mutex
	filling *group[E] // nil when nobody waits for company
}

// A group is the entries of one request.
type group[E any] struct {
	entries []E
	timer   *time.Timer // runs flush, and is all that does
	errs    []error     // written before done is closed
	done    chan struct{}
}

// do sends the entry with whatever else comes along, and returns its own error.
// If ctx ends first the entry is sent all the same.
func (b *batcher[E]) do(ctx context.Context, e E) error {
	b.mu.Lock()
	g := b.filling
	if g == nil {
		g = &group[E]{done: make(chan struct{}), entries: make([]E, 0, batchSize)}
		b.filling = g
		g.timer = time.AfterFunc(gather, func() { b.flush(context.WithoutCancel(ctx), g) })
	}
	i := len(g.entries)
	g.entries = append(g.entries, e)
	if len(g.entries) == batchSize {
		b.filling = nil
		if g.timer.Stop() { // else it has fired, and flush waits for b.mu
			g.timer.Reset(0)
		}
	}
	b.mu.Unlock()
	select {
	case <-g.done:
		return g.errs[i]
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// flush sends g. It runs once, and in no caller's goroutine: any of them may
// want to go first.
func (b *batcher[E]) flush(ctx context.Context, g *group[E]) {
	b.mu.Lock()
	if b.filling == g {
		b.filling = nil
	}
	b.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	g.errs = b.send(ctx, g.entries)
	close(g.done)
}
