package dead

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"upwell/jobs"
	"upwell/jobs/foreign"
	"upwell/jobs/sqsqueue"
)

// Counts are numbers of letters by class.
type Counts map[jobs.Class]int

// Total is the number of letters of all classes.
func (c Counts) Total() (n int) {
	for _, k := range c {
		n += k
	}
	return n
}

// A Plan says which letters are meant and what becomes of them. Its methods may be
// called concurrently.
type Plan struct {
	Filter Filter
	Change Change

	// Body returns a body that is stored elsewhere. Nil when there is no bucket to
	// look in.
	Body func(ctx context.Context, ref string) ([]byte, error)
}

// Match reports whether the letter is meant. A letter whose body is stored
// elsewhere, and cannot be read, has no model.
func (p *Plan) Match(ctx context.Context, l *sqsqueue.Letter) bool {
	if p.Filter.asksModel() && l.BodyRef != "" && p.Body != nil {
		if body, err := p.Body(ctx, l.BodyRef); err == nil {
			j, _ := jobs.Parse(body, l.Run)
			l.Model = j.Model
		}
	}
	return p.Filter.Match(l)
}

// Text returns the body of the message that the letter was made of.
func (p *Plan) Text(ctx context.Context, l *sqsqueue.Letter) ([]byte, error) {
	switch {
	case l.BodyRef == "":
		return l.Body, nil
	case p.Body == nil:
		return nil, errors.New("its body is in the bucket: name that with --bucket")
	}
	return p.Body(ctx, l.BodyRef)
}

// Job returns the text of the job that the letter is to become again: changed, in
// the run that it failed in, and fit to be queued. A message that refers to its job
// goes back as it is, and cannot be changed. The error says why there is none.
func (p *Plan) Job(ctx context.Context, l *sqsqueue.Letter) ([]byte, error) {
	text, err := p.Text(ctx, l)
	if err != nil {
		return nil, err
	}
	if c, err := foreign.Read(text); err != nil {
		return nil, err
	} else if c.Kind != foreign.Job || c.Wrapped {
		return text, p.unchanged(l, text)
	}
	if text, err = p.Change.Apply(text); err != nil {
		return nil, err
	}
	// The worker that gets it may file jobs without a run elsewhere.
	if l.Run != "" && jobs.CheckRun(l.Run) == nil {
		if text, err = jobs.InRun(text, l.Run); err != nil {
			return nil, err
		}
	}
	j, err := jobs.Parse(text, l.Run)
	switch {
	case err != nil:
		return nil, err
	case !j.Deadline.IsZero() && time.Until(j.Deadline) <= 0:
		return nil, fmt.Errorf("its deadline passed on %s, and it would only expire again: --set deadline=24h, or --set deadline=none",
			j.Deadline.Format(time.RFC3339))
	}
	return text, l.Fits(text)
}

// unchanged reports what keeps a letter that is no job itself from going back.
func (p *Plan) unchanged(l *sqsqueue.Letter, text []byte) error {
	if len(p.Change.edits) > 0 {
		return errors.New("it is no job itself, but refers to one, which --set cannot change: redrive it without")
	}
	return l.Fits(text)
}

// A Leaving is a letter that stays where it is.
type Leaving struct {
	Letter *sqsqueue.Letter // without its body
	Why    error
}

// Leavings are letters that were chosen, and stay where they are. The first are named,
// and the others counted.
type Leavings struct {
	Left    int
	Reasons []Leaving
}

// examples is how many letters are named.
const examples = 20

// Add adds a letter, and drops its body.
func (l *Leavings) Add(letter *sqsqueue.Letter, why error) {
	l.Left++
	if len(l.Reasons) < examples {
		letter.Body = nil
		l.Reasons = append(l.Reasons, Leaving{letter, why})
	}
}

// A Summary says what became of letters.
type Summary struct {
	Sent Counts
	Leavings

	// Doubled is how many were sent and could not be removed: they will be found
	// again, and redriven again if somebody does, at the price of a look-up.
	Doubled int

	sqsqueue.Survey
}

// A Redriver sends letters back to the queue of jobs.
type Redriver struct {
	Queue *sqsqueue.Queue
	Plan  *Plan
	Limit int // of letters to send; 0 for no limit

	// Progress, if set, is told how many have been sent, by one goroutine at a
	// time.
	Progress func(sent int)

	mu       sync.Mutex
	sum      Summary
	reserved int
}

// Run redrives the letters that the plan chooses, and returns what became of them
// even with an error. It may be interrupted at any time and run again. It is to be
// called once.
func (r *Redriver) Run(ctx context.Context) (Summary, error) {
	r.sum.Sent = make(Counts)
	survey, err := r.Queue.Letters(ctx, r.visit)
	r.sum.Survey = survey
	return r.sum, err
}

// visit redrives what is chosen of the letters.
func (r *Redriver) visit(ctx context.Context, letters []*sqsqueue.Letter) error {
	var chosen []*sqsqueue.Letter
	var bodies [][]byte
	enough := false
	for _, l := range letters {
		if !r.Plan.Match(ctx, l) {
			continue
		}
		text, err := r.Plan.Job(ctx, l)
		stopped := context.Cause(ctx)
		if enough = errors.Is(stopped, sqsqueue.ErrStop); enough {
			break // another visit found none left, and those chosen here are among the others
		}
		if stopped != nil {
			return stopped
		}
		if err != nil {
			r.leave(l, err)
			continue
		}
		if enough = !r.reserve(); enough {
			break
		}
		chosen, bodies = append(chosen, l), append(bodies, text)
	}
	if len(chosen) > 0 {
		if err := r.send(ctx, chosen, bodies); err != nil {
			return err
		}
	}
	if enough {
		return sqsqueue.ErrStop
	}
	return nil
}

func (r *Redriver) send(ctx context.Context, chosen []*sqsqueue.Letter, bodies [][]byte) error {
	sent, err := r.Queue.Redrive(ctx, chosen, bodies)
	if !sent {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range chosen {
		r.sum.Sent[l.Class]++
		if !l.Removed() {
			r.sum.Doubled++
		}
	}
	if r.Progress != nil {
		r.Progress(r.sum.Sent.Total())
	}
	return nil
}

// reserve takes one of the letters that may be sent, and reports whether there
// was one.
func (r *Redriver) reserve() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.Limit > 0 && r.reserved >= r.Limit {
		return false
	}
	r.reserved++
	return true
}

func (r *Redriver) leave(l *sqsqueue.Letter, why error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sum.Add(l, why)
}
