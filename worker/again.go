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
	repairs   int  // asked for so far
	extended  bool // once
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
		return true
	case jobs.Truncated:
		most := min(fail.Limit*roomier, t.ceiling())
		if t.next.extended || most <= fail.Limit {
			return false
		}
		t.next.turn, t.next.extended, t.next.maxOutput = jobs.Extension, true, most
		return true
	default:
		return false
	}
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
	usage, extra               jobs.Usage
	cost, extraCost            jobs.USD
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
	p.extra, p.extraCost = p.extra.Add(a.Usage), p.extraCost+a.CostUSD
}

func (p *paid) enter(r *jobs.Record) {
	r.Usage, r.CostUSD = p.usage, p.cost
	r.Billed, r.Repairs, r.Extensions = p.calls, p.repairs, p.extensions
	if p.repairs+p.extensions > 0 {
		r.ExtraUsage, r.ExtraCostUSD = &p.extra, &p.extraCost
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
	text, err := t.w.schemas.find(wait, t.w, schemaName{t.job.Run, name})
	switch {
	case err != nil:
		return new(released(0, err))
	case text == nil:
		return new(t.bury(jobs.BadJob, fmt.Sprintf("upwell.schema: the manifest of run %s has no schema %q: submit the run with --schema", t.job.Run, name)))
	}
	t.job.Schema = text
	return nil
}

// maxSchemas bounds the schemas that are remembered.
const maxSchemas = 64

type schemaName struct{ run, name string }

// schemas remembers what the schemas of runs say, which never changes.
type schemas struct {
	turn chan struct{} // taken while the sink is asked, so that hundreds of jobs ask once

	mu     sync.Mutex
	byName map[schemaName]json.RawMessage
}

func newSchemas() *schemas {
	return &schemas{turn: make(chan struct{}, 1), byName: make(map[schemaName]json.RawMessage)}
}

// find returns the schema, or nil if the run has none of that name. It asks until
// ctx is done, whose cause is its error.
func (s *schemas) find(ctx context.Context, w *Worker, n schemaName) (json.RawMessage, error) {
	if text := s.get(n); text != nil {
		return text, nil
	}
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if text := s.get(n); text != nil {
		return text, nil
	}
	for failures := 1; ; failures++ {
		text, ok, err := w.sink.Schema(ctx, n.run, n.name)
		switch {
		case err == nil && !ok:
			return nil, nil
		case err == nil:
			s.put(n, text)
			return text, nil
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		}
		w.cfg.Log.WarnContext(ctx, "schema not read", "run", n.run, "schema", n.name, "err", err)
		sleep(ctx, backoff(failures))
	}
}

func (s *schemas) get(n schemaName) json.RawMessage {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.byName[n]
}

func (s *schemas) put(n schemaName, text json.RawMessage) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for old := range s.byName {
		if len(s.byName) < maxSchemas {
			break
		}
		delete(s.byName, old)
	}
	s.byName[n] = text
}
