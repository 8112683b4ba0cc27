package worker

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"

	"upwell/jobs"
)

// roomier is how much longer an answer may become that was truncated: a limit that
// was too low is seldom so by little, and what is not used costs nothing.
const roomier = 4

// A request is what a task's next attempt asks for beyond its job. The zero value is
// the job as it is.
type request struct {
	turn      jobs.Turn
	maxOutput int
	flaw      *Flaw
	repairs   int    // asked for so far
	extended  bool   // once
	because   *Error // what was wrong with the answer before
}

func (r *request) call(t *task, ln *lane) Call {
	return Call{Job: &t.job, Lane: ln.Lane, MaxOutput: r.maxOutput, Flaw: r.flaw}
}

// askAgain reports whether an answer that is no good as it is should be mended by
// another call, and prepares that. A repair keeps the room that an extension gave,
// and an extension what a repair asked for.
func (t *task) askAgain(fail *Error) bool {
	switch fail.Class {
	case jobs.SchemaFailed:
		if fail.Findings == "" || t.next.repairs >= t.w.cfg.Repairs {
			return false
		}
		t.next.repairs++
		t.next.turn, t.next.flaw = jobs.Repair, &Flaw{Text: fail.Answer.Text, Findings: fail.Findings}
	case jobs.Truncated:
		most := min(fail.Limit*roomier, t.ceiling())
		if t.next.extended || most <= fail.Limit {
			return false
		}
		t.next.turn, t.next.extended, t.next.maxOutput = jobs.Extension, true, most
	default:
		return false
	}
	t.next.because = fail
	return true
}

// verdict returns the class and the reason of a failure for good. When a call that was
// to mend an answer is refused for what it asks, such as more room than the model has,
// the job ends as what was wrong with that answer.
func (t *task) verdict(fail *Error) (jobs.Class, string) {
	if why := t.next.because; why != nil && fail.Answer == nil {
		return why.Class, fmt.Sprintf("%v; the %s was refused: %v", why, t.next.turn, fail)
	}
	return fail.Class, fail.Error()
}

// ceiling is how many output tokens the job may be given at most.
func (t *task) ceiling() int {
	if t.job.OutputCeiling > 0 {
		return t.job.OutputCeiling
	}
	return t.w.cfg.OutputCeiling
}

// owing reports whether something was paid for that no record tells yet: an answer
// that is to be mended, or one in vain before another attempt. Such a job is not given
// back while there is hope: whoever got it next would not know, and would pay for what
// can be mended once more.
func (t *task) owing() bool { return t.paid.calls > 0 }

// paid is what a task has been billed.
type paid struct {
	calls, repairs, extensions int
	usage                      jobs.Usage
	cost                       jobs.USD
	extra                      jobs.Extra
	last                       *Answer // the latest that is no good
}

func (p *paid) add(a *Answer, turn jobs.Turn) {
	p.calls++
	p.usage, p.cost = p.usage.Add(a.Usage), p.cost+a.CostUSD
	switch turn {
	case jobs.Repair:
		p.repairs++
	case jobs.Extension:
		p.extensions++
	default:
		return
	}
	p.extra = jobs.Extra{Usage: p.extra.Usage.Add(a.Usage), CostUSD: p.extra.CostUSD + a.CostUSD}
}

func (p *paid) enter(r *jobs.Record) {
	r.Usage, r.CostUSD = p.usage, p.cost
	r.Billed, r.Repairs, r.Extensions = p.calls, p.repairs, p.extensions
	if p.repairs+p.extensions > 0 {
		r.Extra = &p.extra
	}
}

// findSchema puts the schema that the job names in the place of its name, and returns
// how the job ends if that cannot be.
func (t *task) findSchema(wait context.Context) *ending {
	if len(t.job.Schema) == 0 || t.job.Schema[0] != '"' {
		return nil
	}
	var name string
	if err := json.Unmarshal(t.job.Schema, &name); err != nil {
		return new(t.bury(jobs.BadJob, fmt.Sprintf("upwell.schema: %v", err)))
	}
	text, err := t.w.schemas.find(wait, t.w.sink, schemaName{t.job.Run, name})
	switch {
	case wait.Err() != nil:
		return new(released(0, context.Cause(wait)))
	case err != nil:
		t.w.cfg.Log.WarnContext(wait, "schema not read", "job", t.job.Key.String(), "err", err)
		return new(released(troubleDelay, err))
	case text == nil:
		return new(t.bury(jobs.BadJob, fmt.Sprintf("upwell.schema: the manifest of run %s has no schema %.80q: submit the run with --schema", t.job.Run, name)))
	}
	t.job.Schema = text
	return nil
}

// maxSchemas bounds the schemas that are remembered.
const maxSchemas = 64

type schemaName struct{ run, name string }

// schemas remembers what the schemas of runs say, which never changes.
type schemas struct {
	mu     sync.Mutex
	byName map[schemaName]*namedSchema
}

// A namedSchema is a schema, or who finds out what it says.
type namedSchema struct {
	turn chan struct{} // taken while the sink is asked, so that hundreds of jobs ask once
	text json.RawMessage
}

func newSchemas() *schemas { return &schemas{byName: make(map[schemaName]*namedSchema)} }

// find returns the schema, or nil if the run has none of that name.
func (s *schemas) find(ctx context.Context, from Sink, n schemaName) (json.RawMessage, error) {
	named := s.entry(n)
	select {
	case named.turn <- struct{}{}:
		defer func() { <-named.turn }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if named.text != nil {
		return named.text, nil
	}
	text, ok, err := from.Schema(ctx, n.run, n.name)
	if err == nil && ok {
		named.text = text
	}
	return named.text, err
}

func (s *schemas) entry(n schemaName) *namedSchema {
	s.mu.Lock()
	defer s.mu.Unlock()
	named := s.byName[n]
	if named == nil {
		if len(s.byName) >= maxSchemas {
			clear(s.byName) // who waits for one still has it
		}
		named = &namedSchema{turn: make(chan struct{}, 1)}
		s.byName[n] = named
	}
	return named
}
