package workertest

import (
	"bytes"
	"container/heap"
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"upwell/jobs"
	"upwell/worker"
)

const (
	// poll is how long Receive waits for a message: SQS's longest.
	poll = 20 * time.Second

	// ceiling is how long one delivery may last: SQS's limit.
	ceiling = 12 * time.Hour
)

// A Queue is a [worker.Source] in memory, with the semantics of an SQS standard
// queue: at-least-once delivery, visibility, receipts that go stale, and a
// ceiling on how long one delivery may last. Where SQS documents two outcomes it
// has the less convenient one.
//
// It fails the test when a worker lets a message be hidden after it was given
// back or acknowledged, asks for more than the ceiling, buries a body that it
// changed, or acknowledges what is not durable.
type Queue struct {
	T       testing.TB
	Fault   Fault
	Latency Latency

	// Durable, if set, says whether what a message became would survive the
	// worker. It is asked at each acknowledgement, before the message goes.
	Durable func(m jobs.Message) error

	// Large says that a body leaves no room for what a letter says: it has to be
	// buried by reference.
	Large bool

	mu      sync.Mutex
	all     []*item // as sent, also those that are gone
	byID    map[string]*item
	live    int
	ready   []*item // in the order in which they became visible
	hidden  events  // when those in flight or delayed become visible
	letters []Letter
	calls   map[Op]int
	hiding  map[string]int   // Hides under way, by receipt
	ended   map[string]Op    // Release or Ack begun, by receipt
	changed chan struct{}    // closed and replaced when something became ready
	held    usage            // delivered, and the delivery is not over
	peak    usage            // the most of each ever held
	seq     int              // of receipts
	last    map[Op]time.Time // when each operation last began
}

type usage struct {
	messages int
	bytes    int64
}

// An item is a message and where it is.
type item struct {
	m        jobs.Message // as it will be delivered, but for the delivery's own fields
	spent    int          // attempts when it was sent
	state    state
	receipt  string // of the delivery under way, or empty
	received time.Time
	due      time.Time // when it becomes visible, if hidden
}

type state int

const (
	visible state = iota
	hidden
	gone
)

// A Letter is a message in the dead-letter queue.
type Letter struct {
	jobs.DeadLetter
	Message jobs.Message
}

// Send queues m and returns its id. Fields that a queue fills in are filled in;
// Receives counts from what m says, so that a test can send an old message.
func (q *Queue) Send(m jobs.Message) string {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.byID == nil {
		q.byID = make(map[string]*item)
	}
	m.ID = "m" + strconv.Itoa(len(q.all)+1)
	m.Sent = time.Now()
	it := &item{m: m, spent: m.Attempts}
	q.all, q.byID[m.ID] = append(q.all, it), it
	q.live++
	q.show(it)
	return m.ID
}

// show makes it visible. q.mu must be held.
func (q *Queue) show(it *item) {
	it.state, it.receipt = visible, ""
	q.ready = append(q.ready, it)
	if q.changed != nil {
		close(q.changed)
		q.changed = nil
	}
}

// hide keeps it hidden for d. q.mu must be held.
func (q *Queue) hide(it *item, d time.Duration) {
	it.state, it.due = hidden, time.Now().Add(d)
	heap.Push(&q.hidden, event{it.due, it})
}

// settle makes visible what is due. q.mu must be held.
func (q *Queue) settle(now time.Time) {
	for len(q.hidden) > 0 && !q.hidden[0].at.After(now) {
		e := heap.Pop(&q.hidden).(event)
		if e.it.state != hidden || !e.it.due.Equal(e.at) {
			continue // hidden anew since, or gone
		}
		if e.it.receipt != "" {
			q.over(e.it)
		}
		q.show(e.it)
	}
}

// over ends the delivery under way. q.mu must be held.
func (q *Queue) over(it *item) {
	it.receipt = ""
	q.held.messages--
	q.held.bytes -= int64(len(it.m.Body))
}

// Receive implements [worker.Source]. It waits up to 20s for the first message.
func (q *Queue) Receive(ctx context.Context, n int, d time.Duration) ([]jobs.Message, error) {
	if n < 1 || n > 10 {
		q.T.Errorf("Receive of %d messages, want 1 to 10", n)
	}
	apply, err := q.begin(Receive, "")
	if !apply {
		return nil, err
	}
	if err := q.Latency.half(ctx, Receive); err != nil {
		return nil, err
	}
	until := time.Now().Add(poll)
	for {
		ms, changed, wait := q.take(n, d)
		if len(ms) > 0 || time.Until(until) <= 0 {
			if lost := errors.Join(err, q.Latency.half(ctx, Receive)); lost != nil {
				return nil, lost // and ms stay hidden, which is how SQS has it
			}
			return ms, nil
		}
		t := time.NewTimer(min(wait, time.Until(until)))
		select {
		case <-changed:
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return nil, context.Cause(ctx)
		}
		t.Stop()
	}
}

// take delivers up to n visible messages. With none, it returns a channel that
// closes when there may be one, and how long it is until the next is due.
func (q *Queue) take(n int, d time.Duration) (ms []jobs.Message, changed <-chan struct{}, wait time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := time.Now()
	q.settle(now)
	for len(q.ready) > 0 && len(ms) < n {
		it := q.ready[0]
		q.ready = q.ready[1:]
		if it.state != visible {
			continue
		}
		q.seq++
		it.receipt, it.received = "r"+strconv.Itoa(q.seq), now
		it.m.Receives++
		q.hide(it, d)
		q.held.messages++
		q.held.bytes += int64(len(it.m.Body))
		q.peak = usage{max(q.peak.messages, q.held.messages), max(q.peak.bytes, q.held.bytes)}
		m := it.m
		m.Receipt, m.Received = it.receipt, now
		ms = append(ms, m)
	}
	if q.changed == nil {
		q.changed = make(chan struct{})
	}
	wait = poll
	if len(q.hidden) > 0 {
		wait = q.hidden[0].at.Sub(now)
	}
	return ms, q.changed, wait
}

// Hide implements [worker.Source].
func (q *Queue) Hide(ctx context.Context, m jobs.Message, d time.Duration) error {
	q.mu.Lock()
	if op, ok := q.ended[m.Receipt]; ok {
		q.T.Errorf("message %s hidden after its %s began", m.ID, op)
	}
	if q.hiding == nil {
		q.hiding = make(map[string]int)
	}
	q.hiding[m.Receipt]++
	q.mu.Unlock()
	defer func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		if q.hiding[m.Receipt]--; q.hiding[m.Receipt] == 0 {
			delete(q.hiding, m.Receipt)
		}
	}()
	return q.do(ctx, Hide, m, func(it *item) error {
		if err := q.deliveredAs(it, m, d); err != nil {
			return err
		}
		q.hide(it, d)
		return nil
	})
}

// Release implements [worker.Source]. The delivery is taken off the count, and
// the message says Again instead: that is how an adapter whose queue counts
// deliveries has to give a message back.
func (q *Queue) Release(ctx context.Context, m jobs.Message, d time.Duration) error {
	q.ending(Release, m)
	return q.do(ctx, Release, m, func(it *item) error {
		if err := q.deliveredAs(it, m, d); err != nil {
			return err
		}
		q.over(it)
		it.m.Attempts, it.m.Again = m.Attempts, true
		it.m.Receives--
		if d > 0 {
			q.hide(it, d)
		} else {
			q.show(it)
		}
		return nil
	})
}

// Ack implements [worker.Source].
func (q *Queue) Ack(ctx context.Context, m jobs.Message) error {
	q.ending(Ack, m)
	return q.do(ctx, Ack, m, func(it *item) error {
		if it.state == gone {
			return nil
		}
		if err := q.deliveredAs(it, m, 0); err != nil {
			return err
		}
		if q.Durable != nil {
			q.mu.Unlock() // Durable asks for the letters
			err := q.Durable(m)
			q.mu.Lock()
			if err != nil {
				q.T.Errorf("message %s acknowledged: %v", m.ID, err)
			}
		}
		q.over(it)
		it.state = gone
		q.live--
		return nil
	})
}

// Bury implements [worker.Source].
func (q *Queue) Bury(ctx context.Context, m jobs.Message, l jobs.DeadLetter) error {
	return q.do(ctx, Bury, m, func(it *item) error {
		if !bytes.Equal(m.Body, it.m.Body) {
			q.T.Errorf("message %s buried with body %q, want it unchanged: %q", m.ID, m.Body, it.m.Body)
		}
		if l.Class == "" || l.Reason == "" || l.FirstFailed.IsZero() {
			q.T.Errorf("message %s buried with class %q, reason %q and time %v, want all of them", m.ID, l.Class, l.Reason, l.FirstFailed)
		}
		if q.Large && l.BodyRef == "" {
			return worker.ErrTooLarge
		}
		q.letters = append(q.letters, Letter{l, m})
		return nil
	})
}

// Split implements [worker.Source].
func (q *Queue) Split(ctx context.Context, m jobs.Message, bodies [][]byte) error {
	return q.do(ctx, Split, m, func(*item) error {
		if len(bodies) < 2 {
			q.T.Errorf("message %s split into %d, want two or more", m.ID, len(bodies))
		}
		q.mu.Unlock() // Send takes it
		defer q.mu.Lock()
		for _, body := range bodies {
			q.Send(jobs.Message{Body: body, Again: true})
		}
		return nil
	})
}

// Empty implements [worker.Source].
func (q *Queue) Empty(ctx context.Context) (bool, error) {
	apply, err := q.begin(Empty, "")
	if err = errors.Join(err, q.Latency.half(ctx, Empty), q.Latency.half(ctx, Empty)); !apply || err != nil {
		return false, err
	}
	return q.Len() == 0, nil
}

// begin counts the operation and decides its fate.
func (q *Queue) begin(op Op, what string) (apply bool, err error) {
	q.mu.Lock()
	if q.calls == nil {
		q.calls, q.last = make(map[Op]int), make(map[Op]time.Time)
	}
	q.calls[op]++
	q.last[op] = time.Now()
	q.mu.Unlock()
	return q.Fault.decide(op, what)
}

// ending notes that the delivery of m is about to end, and that nothing may
// hide it from now on.
func (q *Queue) ending(op Op, m jobs.Message) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.hiding[m.Receipt] > 0 {
		q.T.Errorf("%s of message %s began while it was being hidden", op, m.ID)
	}
	if q.ended == nil {
		q.ended = make(map[string]Op)
	}
	q.ended[m.Receipt] = op
}

// do runs an operation on m's item, with q.mu held.
func (q *Queue) do(ctx context.Context, op Op, m jobs.Message, effect func(*item) error) error {
	apply, err := q.begin(op, m.ID)
	if !apply {
		return err
	}
	if err := q.Latency.half(ctx, op); err != nil {
		return err
	}
	if err := q.locked(m, effect); err != nil {
		return err
	}
	return errors.Join(err, q.Latency.half(ctx, op))
}

func (q *Queue) locked(m jobs.Message, effect func(*item) error) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.settle(time.Now())
	return effect(q.byID[m.ID])
}

// deliveredAs reports whether it is in flight as m, and may be for another d.
func (q *Queue) deliveredAs(it *item, m jobs.Message, d time.Duration) error {
	switch {
	case it.state != hidden || it.receipt != m.Receipt:
		return fmt.Errorf("message %s, receipt %s: %w", m.ID, m.Receipt, worker.ErrGone)
	case time.Now().Add(d).After(it.received.Add(ceiling)):
		q.T.Errorf("message %s to be hidden for another %v, %v after its delivery", m.ID, d, time.Since(it.received))
		return fmt.Errorf("message %s: beyond the ceiling: %w", m.ID, worker.ErrGone)
	}
	return nil
}

// Holds reports whether the message of that id is still queued, visible or not.
func (q *Queue) Holds(id string) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	it := q.byID[id]
	return it != nil && it.state != gone
}

// Len reports how many messages there are, visible or not.
func (q *Queue) Len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.live
}

// Visible reports how many messages could be received now.
func (q *Queue) Visible() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.settle(time.Now())
	n := 0
	for _, it := range q.ready {
		if it.state == visible {
			n++
		}
	}
	return n
}

// Held reports how many messages are with a consumer.
func (q *Queue) Held() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.settle(time.Now())
	return q.held.messages
}

// Peak reports the most messages, and the most bytes of bodies, that were ever
// with consumers at once.
func (q *Queue) Peak() (messages int, bytes int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.peak.messages, q.peak.bytes
}

// Calls reports how many calls of op there were.
func (q *Queue) Calls(op Op) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.calls[op]
}

// Last reports when op was last called.
func (q *Queue) Last(op Op) time.Time {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.last[op]
}

// Letters returns the dead letters, in the order they were written.
func (q *Queue) Letters() []Letter {
	q.mu.Lock()
	defer q.mu.Unlock()
	return append([]Letter(nil), q.letters...)
}

// messages returns every message ever sent, and whether it is still queued.
func (q *Queue) messages() (ms []jobs.Message, queued []bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, it := range q.all {
		ms, queued = append(ms, it.m), append(queued, it.state != gone)
	}
	return ms, queued
}

// sentWith reports how many attempts the message had spent when it was sent.
func (q *Queue) sentWith(id string) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.byID[id].spent
}

// events is a heap, the earliest first. An event is void when its item was hidden
// anew since.
type events []event

type event struct {
	at time.Time
	it *item
}

func (e events) Len() int           { return len(e) }
func (e events) Less(i, j int) bool { return e[i].at.Before(e[j].at) }
func (e events) Swap(i, j int)      { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)        { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	old := *e
	last := old[len(old)-1]
	*e = old[:len(old)-1]
	return last
}
