// Package ordered does work in parallel and hands out what comes of it in the order
// of what went in.
//
// It is for many small reads whose order matters and whose answers differ in size:
// so many are under way at a time, but fewer when they are large.
package ordered

import (
	"context"
	"iter"
	"sync"
)

// Limits bound what is under way and what waits to be handed out.
type Limits struct {
	Window int // pieces of work
	Bytes  int // of what comes of them
}

// Map calls do for each element of in(ctx), and yields what it returns, in the order of
// in. do also says how many bytes that takes; they count until the next one is asked
// for. The first error ends it, be it of in, of do or of ctx; it is the last pair.
//
// As nobody knows an answer's size before it is there, Map expects the next ones to be
// about as large as the largest of late, and in the beginning an eighth of all bytes.
// One piece of work is always allowed.
//
// Map runs in and do in goroutines of its own, and waits for them before it returns.
// Their context ends when the loop over what it yields does.
func Map[In, Out any](ctx context.Context, in func(context.Context) iter.Seq2[In, error], lim Limits, do func(context.Context, In) (Out, int, error)) iter.Seq2[Out, error] {
	return func(yield func(Out, error) bool) {
		m := &mapping[In, Out]{
			do:     do,
			queue:  make(chan chan outcome[Out], lim.Window),
			budget: budget{limit: lim.Bytes, guess: lim.Bytes / 8, freed: make(chan struct{}, 1)},
		}
		working, cancel := context.WithCancel(ctx)
		defer m.running.Wait()
		defer cancel()
		m.running.Go(func() { m.feed(working, in(working)) })
		for next := range m.queue {
			o := <-next
			if !yield(o.out, o.err) || o.err != nil {
				return
			}
			m.budget.give(o.size)
		}
		if ctx.Err() != nil {
			var none Out
			yield(none, context.Cause(ctx))
		}
	}
}

type outcome[Out any] struct {
	out  Out
	size int
	err  error
}

type mapping[In, Out any] struct {
	do func(context.Context, In) (Out, int, error)

	// queue has a channel for each piece of work, in order. feed sends and closes.
	queue   chan chan outcome[Out]
	budget  budget
	running sync.WaitGroup
}

// feed starts the work, as far as the limits allow.
func (m *mapping[In, Out]) feed(ctx context.Context, in iter.Seq2[In, error]) {
	defer close(m.queue)
	for item, err := range in {
		done := make(chan outcome[Out], 1)
		if err == nil && !m.budget.take(ctx) {
			return
		}
		select {
		case m.queue <- done:
		case <-ctx.Done():
			return
		}
		if err != nil {
			done <- outcome[Out]{err: err}
			return
		}
		m.running.Go(func() {
			out, size, err := m.do(ctx, item)
			m.budget.learn(size)
			done <- outcome[Out]{out, size, err}
		})
	}
}

// A budget bounds bytes whose number is known only after the fact. One goroutine
// takes from it.
type budget struct {
	limit int
	freed chan struct{} // has a token when there may be more room

	mu      sync.Mutex
	known   int // bytes of what is done and not given back
	unknown int // pieces of work under way
	guess   int // bytes of one
}

// memory is how many answers it takes to forget most of a large one.
const memory = 64

// take waits for room, and reports whether ctx lasted until then.
func (b *budget) take(ctx context.Context) bool {
	for !b.try() {
		select {
		case <-b.freed:
		case <-ctx.Done():
			return false
		}
	}
	return ctx.Err() == nil
}

func (b *budget) try() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.known+b.unknown > 0 && b.known+(b.unknown+1)*b.guess > b.limit {
		return false
	}
	b.unknown++
	return true
}

// learn says how large the outcome of a piece of work is.
func (b *budget) learn(size int) {
	b.mu.Lock()
	b.unknown--
	b.known += size
	b.guess = max(size, b.guess-(b.guess-size)/memory)
	b.mu.Unlock()
	b.wake()
}

// give gives back what was handed out and is not needed any more.
func (b *budget) give(size int) {
	b.mu.Lock()
	b.known -= size
	b.mu.Unlock()
	b.wake()
}

func (b *budget) wake() {
	select {
	case b.freed <- struct{}{}:
	default:
	}
}
