package worker

import (
	"fmt"

	"upwell/jobs"
	"upwell/throttle"
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

func (r *request) call(t *task, lane throttle.Lane) Call {
	return Call{Job: &t.job, Lane: lane, MaxOutput: r.maxOutput, Flaw: r.flaw}
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
