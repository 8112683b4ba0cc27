package sqsqueue

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"upwell/jobs"
	"upwell/jobs/sdkerr"
	"upwell/worker"
)

// Unknown is the class of a letter that does not say its class: SQS moved it, after
// too many deliveries, or somebody else wrote it.
const Unknown jobs.Class = "unknown"

// A Letter is a message in the dead-letter queue.
type Letter struct {
	jobs.DeadLetter

	ID       string // of the message
	Body     []byte // of the message, as it is; not to be written to
	Model    string // that the job asks for, as far as the body can be read
	Sent     time.Time
	Receives int // deliveries so far, this one included

	m       jobs.Message
	from    *Queue
	removed bool
}

// Since returns when the first attempt failed, or when the letter was sent if it
// does not say.
func (l *Letter) Since() time.Time {
	if l.FirstFailed.IsZero() {
		return l.Sent
	}
	return l.FirstFailed
}

// Removed reports whether the letter has been redriven and is gone.
func (l *Letter) Removed() bool { return l.removed }

const (
	// letterHide is how long a letter is hidden while a scan goes on. Nobody
	// renews it: when a scan takes longer its first letters are seen again, and
	// known. It is also how long they stay hidden after a scan that was killed.
	letterHide = 5 * time.Minute

	// letterPoll is how long a receive waits. Any wait makes SQS ask all of its
	// servers, where a receive without asks some.
	letterPoll = time.Second

	// letterReaders is how many receives are under way at once.
	letterReaders = 8

	// letterEmpty is after how many receives in a row that bring nothing a reader
	// takes the queue to be read. The others have had as many by then. After a
	// pause, letters that have been seen are visible again, and may come before
	// what is new: they are something, for as long as it takes to hide them anew,
	// which letterHide is enough for.
	letterEmpty = 2

	// returnTimeout bounds giving the letters back when they are read, and
	// hurryTimeout when the scan was interrupted: somebody waits for the prompt.
	returnTimeout = 2 * time.Minute
	hurryTimeout  = 10 * time.Second
)

// A Survey says what a scan has seen.
type Survey struct {
	Letters int // read, each counted once

	// Elsewhere is about how many more letters another reader holds.
	Elsewhere int

	// Unread is about how many more letters could not be received, since SQS
	// lets only 120,000 be in flight. On a FIFO queue they wait behind others of
	// their group.
	Unread int

	// Damaged is how many more were received with damaged bodies only.
	Damaged int
}

// ErrStop is what a visitor of letters returns when it has seen enough.
var ErrStop = errors.New("stop reading letters")

// Letters reads the dead-letter queue once, from one end to the other, and calls
// visit with up to ten letters at a time, from several goroutines at once. A letter
// is hidden from the time it is read until the scan is over, and visible again
// then, unless [Queue.Redrive] has removed it. A scan keeps no more of it than its
// receipt. Letters that are sent after the scan began are passed over: they may be
// of jobs that it has redriven.
//
// Letters returns when everything has been read, when visit returns an error, or
// when ctx is done. In each case it first gives back what it holds.
func (q *Queue) Letters(ctx context.Context, visit func(context.Context, []*Letter) error) (Survey, error) {
	s := &scan{q: q.deadLetters(), visit: visit, held: make(map[string]jobs.Message), damaged: make(map[string]bool)}
	before, now, err := s.q.countsAt(ctx)
	if err != nil {
		return Survey{}, err
	}
	s.began = now.Add(time.Second) // it comes in whole seconds
	switch err = s.run(ctx); {
	case err == nil:
		err = s.survey(ctx, before)
	case errors.Is(err, ErrStop):
		err = nil // and there is no saying what else there is
	}
	return s.seen, errors.Join(err, s.giveBack(ctx))
}

// deadLetters returns the dead-letter queue as a queue to read from.
func (q *Queue) deadLetters() *Queue {
	d := &Queue{client: q.client, url: q.dead, poll: letterPoll, log: q.log}
	d.hides.send, d.deletes.send = d.sendHides, d.sendDeletes
	return d
}

// A scan is one reading of a dead-letter queue.
type scan struct {
	q     *Queue
	visit func(context.Context, []*Letter) error

	mu      sync.Mutex
	held    map[string]jobs.Message // by id, without bodies
	began   time.Time               // by SQS's clock
	damaged map[string]bool         // ids of those not received whole yet
	removed int
	seen    Survey
}

// run lets several readers read until there is nothing more, and returns the first
// error.
func (s *scan) run(ctx context.Context) error {
	reading, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var readers sync.WaitGroup
	for range letterReaders {
		readers.Go(func() {
			if err := s.read(reading); err != nil {
				stop(err)
			}
		})
	}
	readers.Wait()
	return context.Cause(reading)
}

func (s *scan) read(ctx context.Context) error {
	last := time.Now() // that there was anything new
	for empty := 0; empty < letterEmpty && ctx.Err() == nil; empty++ {
		letters, seen, err := s.receive(ctx)
		if err != nil {
			return err
		}
		if len(letters) > 0 || seen && time.Since(last) <= letterHide {
			empty = -1
		}
		if len(letters) == 0 {
			continue
		}
		err = s.visit(ctx, letters)
		s.forget(letters)
		if err != nil {
			return err
		}
		last = time.Now()
	}
	return nil
}

// receive returns letters that the scan has not seen yet, and reports whether some
// came that it has. It does not end with ctx: what SQS has handed out would stay
// hidden for nobody.
func (s *scan) receive(ctx context.Context) (letters []*Letter, seen bool, err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), sendTimeout)
	defer cancel()
	ms, damaged, err := s.q.receive(ctx, batchSize, letterHide)
	letters, seen = s.fresh(ms, damaged)
	for _, m := range damaged {
		_ = s.q.Hide(ctx, m, 0) // the next delivery is most likely whole
	}
	return letters, seen, err
}

// fresh notes what has been received. It returns what is new, and reports whether
// there was anything that is not.
func (s *scan) fresh(ms, damaged []jobs.Message) (letters []*Letter, seen bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range damaged {
		s.damaged[m.ID] = true
	}
	for _, m := range ms {
		delete(s.damaged, m.ID)
		_, known := s.held[m.ID]
		seen = seen || known
		s.held[m.ID] = jobs.Message{ID: m.ID, Receipt: m.Receipt} // the last receipt is the one that is good
		if !known && !m.Sent.After(s.began) {
			s.seen.Letters++
			letters = append(letters, s.q.letter(m))
		}
	}
	return letters, seen
}

// forget lets go of the letters that are gone.
func (s *scan) forget(letters []*Letter) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range letters {
		if l.removed {
			delete(s.held, l.ID)
			s.removed++
		}
	}
}

// survey finds out what has not been read. SQS's counts may be a while behind, so
// letters that were removed just now may still be among the hidden ones: what was
// hidden before there were any is then taken instead.
func (s *scan) survey(ctx context.Context, before Counts) error {
	after, err := s.q.Counts(ctx)
	if err != nil {
		return err
	}
	s.seen.Damaged = len(s.damaged)
	s.seen.Elsewhere = max(after.Hidden-len(s.held), 0)
	if s.removed > 0 {
		s.seen.Elsewhere = min(s.seen.Elsewhere, before.Hidden)
	}
	if left := after.Visible - len(s.damaged); left > 0 {
		return s.probe(ctx, left)
	}
	return nil
}

// probe finds out why about that many letters are visible and have not been read. SQS
// says that as many are in flight as it allows only to those who do not wait.
func (s *scan) probe(ctx context.Context, left int) error {
	hasty := &Queue{client: s.q.client, url: s.q.url}
	ms, damaged, err := hasty.receive(ctx, 1, letterHide)
	switch {
	case sdkerr.BareCode(err) == "OverLimit" || err == nil && fifo(s.q.url):
		s.seen.Unread = left
		err = nil
	case len(ms) > 0: // given back a moment ago
		s.seen.Elsewhere += left
	}
	for _, m := range append(ms, damaged...) {
		s.held[m.ID] = m
	}
	return err
}

// giveBack makes the letters visible again that are still held.
func (s *scan) giveBack(ctx context.Context) error {
	limit := returnTimeout
	if ctx.Err() != nil {
		limit = hurryTimeout
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
	defer cancel()
	entries := make([]types.ChangeMessageVisibilityBatchRequestEntry, 0, len(s.held))
	for _, m := range s.held {
		entries = append(entries, types.ChangeMessageVisibilityBatchRequestEntry{ReceiptHandle: &m.Receipt})
	}
	errs := make([]error, len(entries))
	var returning sync.WaitGroup
	for i := range letterReaders {
		returning.Go(func() {
			for at := i * batchSize; at < len(entries); at += letterReaders * batchSize {
				copy(errs[at:], s.q.sendHides(ctx, entries[at:min(at+batchSize, len(entries))]))
			}
		})
	}
	returning.Wait()
	errs = slices.DeleteFunc(errs, func(err error) bool {
		return err == nil || errors.Is(err, worker.ErrGone) // which is somebody else's by now
	})
	if len(errs) == 0 {
		return nil
	}
	return fmt.Errorf("%d letters stay hidden for up to %v, as they could not be given back: %w", len(errs), letterHide, errs[0])
}

// letter reads what a message says about the end of a job.
func (q *Queue) letter(m jobs.Message) *Letter {
	o := originOf(m)
	says := func(name string) string { return aws.ToString(o.attributes[name].StringValue) }
	l := &Letter{
		DeadLetter: jobs.DeadLetter{
			Key:   jobs.Key{Run: says(attrRun), CustomID: says(attrCustomID)},
			Class: jobs.Class(says(attrClass)), Reason: says(attrReason), RequestID: says(attrRequestID),
		},
		ID: m.ID, Body: m.Body, Sent: m.Sent, Receives: m.Receives,
		m: jobs.Message{ID: m.ID, Receipt: m.Receipt, Trace: m.Trace, Origin: m.Origin}, from: q,
	}
	l.Status, _ = strconv.Atoi(says(attrStatus))
	l.Attempts, _ = strconv.Atoi(says(attrAttempts))
	l.FirstFailed, _ = time.Parse(time.RFC3339, says(attrFirstFailed))
	if l.Class == "" {
		l.Class, l.Reason = Unknown, "not written by upwell"
		if o.moved {
			l.Reason = "moved by SQS: delivered too often, and never settled"
		}
	}
	l.readBody()
	return l
}

// stored is what references to bodies that the worker stored look like. Others are
// a job's own.
var stored = regexp.MustCompile(`^s3://[^/]+/(.+/)?runs/[^/]+/letters/`)

// readBody adds what the body knows better: in an attribute a custom_id may have
// lost characters, and a letter of somebody else has none.
func (l *Letter) readBody() {
	var r reference
	if len(l.Body) < 4096 && json.Unmarshal(l.Body, &r) == nil && stored.MatchString(r.BodyRef) {
		l.BodyRef = r.BodyRef
		if r.CustomID != "" {
			l.CustomID = r.CustomID
		}
		return
	}
	j, _ := jobs.Parse(l.Body, l.Run)
	if j.CustomID != "" {
		l.Key = j.Key
	}
	l.Model = j.Model
}

// Redrive sends each body to the queue and then removes the letter that it belongs
// to, which must be one that a scan of this queue is visiting. Attributes of others
// go with it, and the trace that it belongs to. The jobs are marked, so that
// whoever receives one looks before paying: killed in between, there are two
// of a job, and they may be redriven again as if they had not been. When sending
// fails Redrive reports false and removes no letter, though some jobs may have been
// sent. An error beside true is of letters that could not be removed: see
// [Letter.Removed].
func (q *Queue) Redrive(ctx context.Context, letters []*Letter, bodies [][]byte) (sent bool, err error) {
	out := make([]Outgoing, len(letters))
	for i, l := range letters {
		out[i] = l.outgoing(bodies[i])
	}
	if err := context.Cause(ctx); err != nil && !errors.Is(err, ErrStop) { // which leaves these to be sent
		return false, err
	}
	// From here on, an interruption would only make doubles.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), sendTimeout)
	defer cancel()
	if err := q.Send(ctx, out); err != nil {
		return false, err
	}
	for chunk := range slices.Chunk(letters, batchSize) {
		entries := make([]types.DeleteMessageBatchRequestEntry, len(chunk))
		for i, l := range chunk {
			entries[i].ReceiptHandle = &l.m.Receipt
		}
		for i, e := range chunk[0].from.sendDeletes(ctx, entries) {
			chunk[i].removed = e == nil
			err = errors.Join(err, e)
		}
	}
	return true, err
}

// Fits reports whether a body can be queued in the place of the letter, see [Fits],
// with the attributes that others gave it.
func (l *Letter) Fits(body []byte) error { return l.outgoing(body).fits() }

// outgoing is the job that the letter becomes with that body.
func (l *Letter) outgoing(body []byte) Outgoing {
	o := originOf(l.m)
	return Outgoing{
		Body: body, Again: true, Attributes: foreign(o.attributes), Trace: l.m.Trace, header: o.header,
		Group: o.group, Once: l.ID + "." + digest(body),
	}
}

// maxForeign is how many attributes of others a message keeps, as one is ours.
const maxForeign = maxAttributes - 1

// foreign returns the attributes that are neither upwell's nor of a trace, the first
// by name of too many.
func foreign(attrs map[string]types.MessageAttributeValue) map[string]types.MessageAttributeValue {
	others := maps.Clone(attrs)
	maps.DeleteFunc(others, func(name string, _ types.MessageAttributeValue) bool {
		return strings.HasPrefix(name, "upwell.") || name == attrTraceparent || name == attrTracestate
	})
	for _, name := range slices.Sorted(maps.Keys(others))[min(len(others), maxForeign):] {
		delete(others, name)
	}
	return others
}

// digest names a body within what SQS takes as a deduplication id, beside the id
// of a message.
func digest(body []byte) string {
	sum := sha256.Sum256(bytes.TrimSpace(body))
	return hex.EncodeToString(sum[:])
}
