package workertest

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"upwell/jobs"
	"upwell/worker"
)

// A Trial is a queue, a sink and an endpoint, and what must hold among them
// whatever a worker between them does, and however many workers there are.
type Trial struct {
	Queue    *Queue
	Sink     *Sink
	Endpoint *Endpoint

	// Run is the run of jobs that name none. Default "default".
	Run string

	// Opener is the worker's, when messages are not all jobs themselves. What it
	// fetches is fetched once more for each message, when that is acknowledged.
	Opener worker.Opener

	// Extra is how many billed calls beyond one for each job the faults of
	// this trial excuse: answers that were lost on the way back, deliveries
	// that two workers had because a heartbeat could not arrive.
	Extra int

	fetch func(p worker.Parcel) ([]byte, error)

	mu   sync.Mutex
	jobs map[string]job // by id of the message; large bodies are slow to parse
}

// A job is what a message asks for.
type job struct {
	jobs.Key

	ok    bool     // it is one
	none  bool     // the message asks for nothing
	parts [][]byte // it stands for these
}

// jobOf returns the job of a message.
func (tr *Trial) jobOf(m jobs.Message) job {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	if tr.jobs == nil {
		tr.jobs = make(map[string]job)
	}
	j, known := tr.jobs[m.ID]
	if !known {
		j = tr.open(m)
		tr.jobs[m.ID] = j
	}
	return j
}

// open finds the job of a message as the worker should.
func (tr *Trial) open(m jobs.Message) job {
	if tr.Opener == nil {
		parsed, err := jobs.Parse(m.Body, tr.Run)
		return job{Key: parsed.Key, ok: err == nil}
	}
	p, err := tr.Opener.Open(m)
	named := jobs.Key{Run: cmp.Or(p.Key.Run, tr.Run), CustomID: p.Key.CustomID}
	if err == nil && p.Text == nil && p.Fetch == nil {
		return job{none: len(p.Parts) == 0, parts: p.Parts}
	}
	text := p.Text
	if err == nil && p.Fetch != nil {
		text, err = tr.fetch(p)
	}
	if err != nil {
		return job{Key: named}
	}
	parsed, err := jobs.Parse(text, named.Run)
	if p.Key.CustomID != "" && parsed.CustomID != p.Key.CustomID || p.Key.Run != "" && parsed.Run != p.Key.Run {
		return job{Key: named}
	}
	return job{Key: parsed.Key, ok: err == nil}
}

// queued reports whether all of these have been queued.
func (tr *Trial) queued(bodies [][]byte) bool {
	ms, _ := tr.Queue.messages()
	for _, body := range bodies {
		if !slices.ContainsFunc(ms, func(m jobs.Message) bool { return m.Again && bytes.Equal(m.Body, body) }) {
			return false
		}
	}
	return true
}

// New returns a Trial that reports to tb.
func New(tb testing.TB) *Trial {
	tb.Helper()
	tr := &Trial{Queue: &Queue{T: tb}, Sink: &Sink{T: tb}, Endpoint: &Endpoint{}, Run: "default"}
	tr.Queue.Durable = tr.durable
	tr.fetch = func(p worker.Parcel) ([]byte, error) { return p.Fetch(tb.Context()) }
	return tr
}

// Fault has f decide the fate of every operation of the trial.
func (tr *Trial) Fault(f Fault) {
	tr.Queue.Fault, tr.Sink.Fault, tr.Endpoint.Fault = f, f, f
}

// Send queues jobs, one for each custom_id.
func (tr *Trial) Send(ids ...string) {
	for _, id := range ids {
		tr.Queue.Send(jobs.Message{Body: Line(id, "")})
	}
}

// Line returns a job, with options such as `"max_attempts":2` for its "upwell"
// object.
func Line(id, options string) []byte {
	return fmt.Appendf(nil,
		`{"custom_id":%q,"url":"/v1/responses","body":{"model":"m","input":"about %s"},"upwell":{%s}}`, id, id, options)
}

// durable reports why m must not be acknowledged yet: promise 2.
func (tr *Trial) durable(m jobs.Message) error {
	j := tr.jobOf(m)
	switch {
	case j.none, j.ok && tr.Sink.stored(j.Key):
		return nil
	case j.parts != nil && !tr.queued(j.parts):
		return errors.New("not all that it stands for is queued")
	case j.parts != nil:
		return nil
	}
	for _, l := range tr.Queue.Letters() {
		if l.Message.ID != m.ID {
			continue
		}
		if j.CustomID != "" && !tr.Sink.failed(j.Key) {
			return errors.New("it is buried, and has no error line")
		}
		return nil
	}
	return errors.New("neither its result nor its letter is durable")
}

// Check verifies every promise that can be seen from outside of the worker. It
// may be called at any time, and is to be called after every step.
//
// Promises 2 and 3 are policed by the doubles as it happens.
func (tr *Trial) Check(tb testing.TB) {
	tb.Helper()
	letters := make(map[string]Letter)
	for _, l := range tr.Queue.Letters() {
		letters[l.Message.ID] = l
	}
	tr.checkEnds(tb, letters)
	tr.checkBills(tb)
	tr.checkLetters(tb, letters)
}

// Done is Check, and that nothing is left to do.
func (tr *Trial) Done(tb testing.TB) {
	tb.Helper()
	tr.Check(tb)
	if n := tr.Queue.Len(); n != 0 {
		tb.Errorf("%d messages are still queued, want 0", n)
	}
}

// checkEnds verifies promise 1: a message that is no longer queued ended in
// exactly one way.
func (tr *Trial) checkEnds(tb testing.TB, letters map[string]Letter) {
	tb.Helper()
	ms, queued := tr.Queue.messages()
	sent := make(map[jobs.Key]int) // messages for a job, of which one may fail and another not
	for _, m := range ms {
		sent[tr.jobOf(m).Key]++
	}
	for i, m := range ms {
		if queued[i] {
			continue
		}
		j := tr.jobOf(m)
		stored := j.ok && tr.Sink.stored(j.Key)
		_, buried := letters[m.ID]
		if j.none || j.parts != nil {
			if buried {
				tb.Errorf("message %s is buried, want it passed", m.ID)
			}
			continue
		}
		if !stored && !buried || stored && buried && sent[j.Key] == 1 {
			tb.Errorf("message %s of job %s is gone: stored %v, buried %v, want one of the two", m.ID, j.Key, stored, buried)
		}
	}
}

// checkBills verifies promise 4: one billed call for each job, but for those that
// mend an answer, and for Extra.
func (tr *Trial) checkBills(tb testing.TB) {
	tb.Helper()
	extra := 0
	for k, a := range tr.Endpoint.Accounts() {
		once := a.Billed - a.Mending
		if once <= 1 {
			continue
		}
		extra += once - 1
		if tr.Extra == 0 {
			tb.Errorf("job %s was paid for %d times, want once", k, once)
		}
	}
	if extra > tr.Extra {
		tb.Errorf("%d billed calls beyond one for each job, want at most %d", extra, tr.Extra)
	}
}

// checkLetters verifies promise 5: refusals for lack of room are nobody's
// attempts. No letter and no message in the queue counts more attempts than
// have failed, and none is exhausted by less.
func (tr *Trial) checkLetters(tb testing.TB, letters map[string]Letter) {
	tb.Helper()
	accounts := tr.Endpoint.Accounts()
	for id, l := range letters {
		a := accounts[l.Key]
		if spent := l.Attempts - tr.Queue.sentWith(id); spent > a.Counted {
			tb.Errorf("job %s is dead-lettered after %d attempts, of which %d count; %d were refused", l.Key, spent, a.Counted, a.Refused)
		}
		if l.Class == jobs.Exhausted && a.Counted == 0 {
			tb.Errorf("job %s is exhausted by no attempt that counts", l.Key)
		}
	}
	ms, queued := tr.Queue.messages()
	for i, m := range ms {
		j := tr.jobOf(m)
		if spent := m.Attempts - tr.Queue.sentWith(m.ID); queued[i] && spent > accounts[j.Key].Counted {
			tb.Errorf("job %s carries %d attempts, want at most the %d that count", j.Key, spent, accounts[j.Key].Counted)
		}
	}
}
