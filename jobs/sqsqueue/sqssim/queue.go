package sqssim

import (
	"container/heap"
	"context"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"sync"
	"time"
)

const (
	// maxHidden is how long a message may stay hidden after one receive, all
	// extensions included.
	maxHidden = 12 * time.Hour

	// window is how long FIFO queues remember deduplication ids and receive
	// attempts.
	window = 5 * time.Minute
)

// A State is where a message stands.
type State uint8

// The states of a message. Only visible messages are received.
const (
	Visible  State = iota
	Delayed        // sent, and not yet visible
	InFlight       // received, and hidden by its visibility timeout
)

// String returns the state's name.
func (s State) String() string { return [...]string{"visible", "delayed", "in flight"}[s] }

// A Message is a copy of a message, as [Server.Messages] and [Fault] see it.
type Message struct {
	// ID is the message id that the sender was given.
	ID string

	// Body and Attributes are what was sent. The map is shared and must not
	// be changed.
	Body       string
	Attributes map[string]Attribute

	// Group and DeduplicationID are empty unless they were sent; a FIFO queue
	// may also have derived DeduplicationID from the body.
	Group, DeduplicationID string

	// TraceHeader is the AWSTraceHeader sent with the message, if any.
	TraceHeader string

	// Sequence orders the messages of a queue by arrival.
	Sequence uint64

	// Receives counts deliveries, those from former queues included.
	Receives int

	// Sent and FirstReceived are times; the second is zero until it happens.
	Sent, FirstReceived time.Time

	// State is where the message stands, and Due when a delayed message or
	// one in flight becomes visible.
	State State
	Due   time.Time

	// Source is the ARN of the queue that a dead-letter queue has the message
	// from, if any.
	Source string
}

// A message is a live message. All of it is guarded by its queue's mutex.
type message struct {
	Message // without ID, which is made from id when somebody asks
	id      uuid
	md5     string // of the body

	here     int       // receives from this queue, for its redrive policy
	received time.Time // the last receive, from which maxHidden counts
	nonce    uint64    // of the last receipt
	changes  int       // of visibility; a changed receive cannot be attempted again

	wake  time.Time // the next event: end of delay or timeout, or expiry
	index int       // in the queue's heap

	line       *line
	prev, next *message // in line
	alone      line     // the line of a message on a standard queue
}

func (m *message) snapshot() Message {
	c := m.Message
	c.ID = m.id.String()
	return c
}

// A line is a sequence of messages that are delivered in order.
type line struct {
	first, last *message
	queued      bool // in the queue's ready ring
}

func (l *line) push(m *message) {
	m.line, m.prev, m.next = l, l.last, nil
	if l.last == nil {
		l.first = m
	} else {
		l.last.next = m
	}
	l.last = m
}

func (l *line) drop(m *message) {
	if m.prev == nil {
		l.first = m.next
	} else {
		m.prev.next = m.next
	}
	if m.next == nil {
		l.last = m.prev
	} else {
		m.next.prev = m.prev
	}
	m.line, m.prev, m.next = nil, nil, nil
}

// A queue is one SQS queue. Its methods require that mu is held, except where
// they say that they take it.
type queue struct {
	name, arn string // constant
	fifo      bool   // constant
	cfg       *Config

	mu       sync.Mutex
	set      settings
	tags     map[string]string
	created  time.Time
	modified time.Time
	purged   time.Time
	deleted  bool
	stats    QueueStats // the gauges in it are kept elsewhere

	live   map[uuid]*message
	events events           // of all live messages
	count  [3]int           // of live messages, by state
	groups map[string]*line // of FIFO queues; a group without messages has no line
	ready  ring[*line]      // lines that have been ready; some no longer are
	seq    uint64

	sends    memory[sent]    // by deduplication id
	attempts memory[attempt] // by receive request attempt id

	waiting int
	notify  chan struct{} // closed by wake; nil when nobody waits
}

// An attempt is what a FIFO receive gave out, to give it out again.
type attempt struct {
	msgs    []*message
	nonces  []uint64
	changes []int
}

func newQueue(name, arn string, fifo bool, cfg *Config, now time.Time) *queue {
	return &queue{
		name: name, arn: arn, fifo: fifo, cfg: cfg, created: now, modified: now,
		tags: map[string]string{}, live: map[uuid]*message{}, groups: map[string]*line{},
	}
}

// add makes m the last message of the queue, visible after delay.
func (q *queue) add(m *message, now time.Time, delay time.Duration) {
	q.seq++
	m.Sequence, m.here, m.nonce, m.State = q.seq, 0, 0, Visible
	l := &m.alone
	if q.fifo {
		if l = q.groups[m.Group]; l == nil {
			l = new(line)
			q.groups[m.Group] = l
		}
	}
	l.push(m)
	q.live[m.id] = m
	q.count[Visible]++
	heap.Push(&q.events, m)
	if delay > 0 {
		q.put(m, Delayed, now.Add(delay))
	} else {
		q.put(m, Visible, time.Time{})
	}
}

// put gives m a state; due is when a message that is not visible becomes so.
func (q *queue) put(m *message, to State, due time.Time) {
	q.count[m.State]--
	q.count[to]++
	m.State, m.Due = to, due
	q.schedule(m)
	heap.Fix(&q.events, m.index)
	q.offer(m.line)
	if m.index == 0 {
		q.wake() // those who wait sleep until what was the next event
	}
}

func (q *queue) schedule(m *message) {
	m.wake = m.Sent.Add(q.set.retention)
	if m.State != Visible && m.Due.Before(m.wake) {
		m.wake = m.Due
	}
}

// reschedule finds every message's next event anew.
func (q *queue) reschedule() {
	for _, m := range q.events {
		q.schedule(m)
	}
	heap.Init(&q.events)
	q.wake()
}

// remove takes m out of the queue.
func (q *queue) remove(m *message) {
	full := q.count[InFlight] >= q.cfg.InFlight
	l := m.line
	l.drop(m)
	q.count[m.State]--
	heap.Remove(&q.events, m.index)
	delete(q.live, m.id)
	if q.fifo && l.first == nil {
		delete(q.groups, m.Group)
	}
	q.offer(l)
	if full {
		q.wake()
	}
}

// offer makes l ready if its first message is visible.
func (q *queue) offer(l *line) {
	if l.first == nil || l.first.State != Visible {
		return
	}
	if !l.queued {
		l.queued = true
		q.ready.push(l)
	}
	q.wake()
}

// wake lets every waiting receiver look again.
func (q *queue) wake() {
	if q.notify != nil {
		close(q.notify)
		q.notify = nil
	}
}

// settle carries out all events up to now.
func (q *queue) settle(now time.Time) {
	for len(q.events) > 0 && !q.events[0].wake.After(now) {
		m := q.events[0]
		if m.Sent.Add(q.set.retention).After(now) {
			q.put(m, Visible, time.Time{})
			continue
		}
		q.remove(m)
		q.stats.Expired++
	}
}

// front returns the message that is next to be received, or nil.
func (q *queue) front() *message {
	for q.ready.n > 0 {
		if m := (*q.ready.at(0)).first; m != nil && m.State == Visible {
			return m
		}
		q.ready.pop().queued = false
	}
	return nil
}

// take receives up to n visible messages and hides them for d. Messages that
// have been received as often as limit allows are removed instead, and
// returned as dead; a limit of zero is none.
func (q *queue) take(n, limit int, now time.Time, d time.Duration) (got, dead []*message) {
	n = min(n, q.cfg.InFlight-q.count[InFlight])
	for len(got) < n && q.ready.n > 0 {
		if q.cfg.Shuffle && !q.fifo {
			a, b := q.ready.at(0), q.ready.at(rand.IntN(q.ready.n))
			*a, *b = *b, *a
		}
		l := q.ready.pop()
		l.queued = false
		for m := l.first; m != nil && m.State == Visible && len(got) < n; {
			next := m.next
			if limit > 0 && m.here >= limit {
				q.remove(m)
				q.stats.Out++
				dead = append(dead, m)
			} else {
				m.Receives++
				m.here++
				m.received = now
				m.nonce = rand.Uint64()
				if m.FirstReceived.IsZero() {
					m.FirstReceived = now
				}
				q.put(m, InFlight, now.Add(d))
				got = append(got, m)
			}
			m = next
		}
	}
	q.stats.Received += len(got)
	return got, dead
}

// retake repeats an earlier receive whose messages are all as it left them.
func (q *queue) retake(a attempt, now time.Time, d time.Duration) []*message {
	for i, m := range a.msgs {
		if q.live[m.id] != m || m.State != InFlight || m.nonce != a.nonces[i] || m.changes != a.changes[i] {
			return nil
		}
	}
	for _, m := range a.msgs {
		q.put(m, InFlight, now.Add(d))
	}
	return a.msgs
}

func newAttempt(msgs []*message) attempt {
	a := attempt{msgs: msgs}
	for _, m := range msgs {
		a.nonces = append(a.nonces, m.nonce)
		a.changes = append(a.changes, m.changes)
	}
	return a
}

// find returns the message that handle was given out for, or nil, and whether
// no later receipt has replaced it.
func (q *queue) find(handle string) (m *message, current bool, err error) {
	r, err := parseReceipt(handle)
	if err != nil {
		return nil, false, err
	}
	m = q.live[r.id]
	return m, m != nil && m.nonce == r.nonce && uint32(m.Receives) == r.count, nil
}

// bodyOf returns the body of handle's message. It takes q.mu.
func (q *queue) bodyOf(handle string) string {
	q.mu.Lock()
	defer q.mu.Unlock()
	if m, _, _ := q.find(handle); m != nil {
		return m.Body
	}
	return ""
}

// acknowledge deletes handle's message. It takes q.mu.
func (q *queue) acknowledge(handle string) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.settle(time.Now())
	m, current, err := q.find(handle)
	switch {
	case err != nil:
		return err
	case m == nil:
		return nil
	case q.fifo && (!current || m.State != InFlight):
		return outOfRange("ReceiptHandle", handle, "The receipt handle has expired.")
	case !current, m.State != InFlight && !q.cfg.LenientReceipts:
		return nil
	}
	q.remove(m)
	q.stats.Deleted++
	return nil
}

// hide makes handle's message visible in d from now. It takes q.mu.
func (q *queue) hide(handle string, d time.Duration) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := time.Now()
	q.settle(now)
	m, current, err := q.find(handle)
	switch {
	case err != nil:
		return err
	case !current:
		return outOfRange("ReceiptHandle", handle,
			"Message does not exist or is not available for visibility timeout change.")
	case m.State != InFlight && q.cfg.LenientReceipts:
		return nil
	case m.State != InFlight:
		return errorf("MessageNotInflight", "The message referred to isn't in flight.")
	case now.Add(d).After(m.received.Add(maxHidden)):
		return outOfRange("VisibilityTimeout", int(d.Seconds()),
			"Total VisibilityTimeout for the message is beyond the limit [43200 seconds]")
	}
	m.changes++
	q.put(m, InFlight, now.Add(d))
	q.settle(now)
	return nil
}

// await blocks until something may have changed, until is over, or ctx is
// done. It takes q.mu back and forth: held when called, held on return.
func (q *queue) await(ctx context.Context, until time.Time) {
	if len(q.events) > 0 && q.events[0].wake.Before(until) {
		until = q.events[0].wake
	}
	if q.notify == nil {
		q.notify = make(chan struct{})
	}
	changed := q.notify
	q.waiting++
	q.mu.Unlock()
	defer func() { q.mu.Lock(); q.waiting-- }()

	t := time.NewTimer(time.Until(until))
	defer t.Stop()
	select {
	case <-changed:
	case <-t.C:
	case <-ctx.Done():
	}
}

// events is a heap of messages by their next event.
type events []*message

func (e events) Len() int { return len(e) }

func (e events) Less(i, j int) bool {
	if c := e[i].wake.Compare(e[j].wake); c != 0 {
		return c < 0
	}
	return e[i].Sequence < e[j].Sequence
}

func (e events) Swap(i, j int) {
	e[i], e[j] = e[j], e[i]
	e[i].index, e[j].index = i, j
}

func (e *events) Push(x any) {
	m := x.(*message)
	m.index = len(*e)
	*e = append(*e, m)
}

func (e *events) Pop() any {
	old := *e
	m := old[len(old)-1]
	old[len(old)-1] = nil
	*e = old[:len(old)-1]
	return m
}

// A ring is a first-in, first-out queue in a circular buffer.
type ring[T any] struct {
	buf     []T
	head, n int
}

// at returns the i-th element from the front.
func (r *ring[T]) at(i int) *T { return &r.buf[(r.head+i)%len(r.buf)] }

func (r *ring[T]) push(v T) {
	if r.n == len(r.buf) {
		buf := make([]T, max(16, 2*r.n))
		copy(buf[copy(buf, r.buf[r.head:]):], r.buf[:r.head])
		r.buf, r.head = buf, 0
	}
	r.n++
	*r.at(r.n - 1) = v
}

func (r *ring[T]) pop() T {
	p := r.at(0)
	v := *p
	*p = *new(T)
	r.head = (r.head + 1) % len(r.buf)
	r.n--
	return v
}

// A memory is a map that forgets after window.
type memory[V any] struct {
	m     map[string]V
	order ring[remembered]
}

type remembered struct {
	key string
	at  time.Time
}

func (m *memory[V]) get(key string, now time.Time) (V, bool) {
	for m.order.n > 0 && !m.order.at(0).at.Add(window).After(now) {
		delete(m.m, m.order.pop().key)
	}
	v, ok := m.m[key]
	return v, ok
}

// put remembers v; a key that is still remembered is forgotten no later.
func (m *memory[V]) put(key string, v V, now time.Time) {
	if m.m == nil {
		m.m = map[string]V{}
	}
	if _, ok := m.m[key]; !ok {
		m.order.push(remembered{key, now})
	}
	m.m[key] = v
}

type uuid [16]byte

func newUUID() (u uuid) {
	binary.BigEndian.PutUint64(u[:], rand.Uint64())
	binary.BigEndian.PutUint64(u[8:], rand.Uint64())
	u[6] = u[6]&0x0f | 0x40 // version 4
	u[8] = u[8]&0x3f | 0x80 // the variant of RFC 9562
	return u
}

func (u uuid) String() string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])
}

// A receipt names one delivery of a message. Its handle ends in a checksum,
// so that a handle from elsewhere is told from one that has expired.
type receipt struct {
	id    uuid
	count uint32
	nonce uint64
}

const receiptSize = 16 + 4 + 8 + 4

func (m *message) handle() string {
	b := make([]byte, 0, receiptSize)
	b = append(b, m.id[:]...)
	b = binary.BigEndian.AppendUint32(b, uint32(m.Receives))
	b = binary.BigEndian.AppendUint64(b, m.nonce)
	b = binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b))
	return base64.StdEncoding.EncodeToString(b)
}

func parseReceipt(handle string) (r receipt, err error) {
	b, err := base64.StdEncoding.DecodeString(handle)
	if err != nil || len(b) != receiptSize ||
		crc32.ChecksumIEEE(b[:receiptSize-4]) != binary.BigEndian.Uint32(b[receiptSize-4:]) {
		return r, errorf("ReceiptHandleIsInvalid", "The input receipt handle %q is not a valid receipt handle.", handle)
	}
	r.id = uuid(b[:16])
	r.count = binary.BigEndian.Uint32(b[16:])
	r.nonce = binary.BigEndian.Uint64(b[20:])
	return r, nil
}
