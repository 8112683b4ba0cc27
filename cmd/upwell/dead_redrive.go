package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"sync"
	"sync/atomic"

	"upwell/cmd/internal/dead"
	"upwell/jobs"
	"upwell/jobs/sqsqueue"
)

// deadRedriveCmd sends dead letters back.
type deadRedriveCmd struct {
	deadFlags
	whereFlags

	Set    []string `sep:"none" placeholder:"KEY=VALUE" help:"Change the jobs: max_output_tokens, tier, model, effort, max_attempts, output_ceiling, deadline (a time, 24h or none), or a path such as body.temperature=0 or upwell.tiers=[\"flex\"]."`
	Limit  int      `placeholder:"N" help:"Redrive so many letters at most; 0 for all."`
	DryRun bool     `help:"Say what would become of the letters, and do nothing."`
	Redact bool     `env:"UPWELL_REDACT" help:"Leave out what prompts say."`
}

// Run redrives them.
func (c *deadRedriveCmd) Run(ctx context.Context, e env) error {
	if err := checkLimit(c.Limit); err != nil {
		return err
	}
	plan, err := c.plan(nil, c.Set)
	switch {
	case err != nil:
		return err
	case c.Queue == "":
		return fail(exitUsage, errors.New("no queue: name the queue of jobs, which letters go back to, with --queue"))
	}
	queue, results, err := c.open(ctx, e)
	if err != nil {
		return err
	}
	if queue.URL() == queue.Dead() {
		return fail(exitUsage, fmt.Errorf("%s is named as both the queue of jobs and its dead-letter queue", path.Base(queue.URL())))
	}
	if results != nil {
		plan.Body = results.Body
	}
	trial := &redriveTrial{plan: plan, each: c.DryRun, counts: make(dead.Counts), examples: make(map[jobs.Class]example)}
	survey, err := queue.Letters(ctx, trial.visit)
	if err != nil {
		return scanned(ctx, err)
	}
	matched := trial.counts.Total()
	printCounts(e.stdout, matching(matched, survey.Letters)+" to redrive", trial.counts)
	if c.DryRun || matched == 0 {
		missed(e.stderr, survey)
		return trial.print(e, c.Redact)
	}
	// Of what fails again meanwhile, no more is sent than there was before.
	if c.Limit == 0 || c.Limit > matched {
		c.Limit = matched
	}
	return c.redrive(ctx, e, &dead.Redriver{Queue: queue, Plan: plan, Limit: c.Limit})
}

func (c *deadRedriveCmd) redrive(ctx context.Context, e env, r *dead.Redriver) error {
	var sent atomic.Int64
	r.Progress = func(n int) { sent.Store(int64(n)) }
	stop := showing(e, func() string { return fmt.Sprintf("%d/%d redriven", sent.Load(), r.Limit) })
	sum, err := r.Run(ctx)
	stop()
	return c.report(ctx, e, sum, err)
}

func (c *deadRedriveCmd) report(ctx context.Context, e env, sum dead.Summary, err error) error {
	printCounts(e.stdout, fmt.Sprintf("redriven: %d", sum.Sent.Total()), sum.Sent)
	printLeavings(e.stdout, "left where they are", sum.Leavings, c.Redact)
	if sum.Doubled > 0 {
		fmt.Fprintf(e.stderr, "%d of them could not be removed from the dead-letter queue: redriven again, they are looked up and not paid for twice\n", sum.Doubled)
	}
	missed(e.stderr, sum.Survey)
	switch {
	case ctx.Err() != nil:
		return fail(exitInterrupted, errors.New("interrupted: run the same command again to redrive the rest; what has an answer is not paid for twice"))
	case err != nil:
		return fail(exitConfig, fmt.Errorf("%w: run the same command again to redrive the rest; what has an answer is not paid for twice", err))
	case sum.Left > 0:
		return &failure{code: exitFailed}
	}
	return nil
}

func printLeavings(w io.Writer, title string, all dead.Leavings, redact bool) {
	if all.Left == 0 {
		return
	}
	fmt.Fprintf(w, "%s: %d\n", title, all.Left)
	for _, left := range all.Reasons {
		why := left.Why.Error()
		if redact {
			why = dead.Redacted(why)
		}
		fmt.Fprintf(w, "  %s: %s\n", dead.Name(left.Letter), dead.Clean(why))
	}
	if more := all.Left - len(all.Reasons); more > 0 {
		fmt.Fprintf(w, "  and %d more\n", more)
	}
}

// An example is what one letter would become.
type example struct {
	name string
	text []byte
}

// A redriveTrial counts what would be redriven. If each is set it tries every letter,
// and keeps an example of each class.
type redriveTrial struct {
	plan *dead.Plan
	each bool

	mu       sync.Mutex
	counts   dead.Counts
	examples map[jobs.Class]example
	leavings dead.Leavings
}

func (t *redriveTrial) visit(ctx context.Context, letters []*sqsqueue.Letter) error {
	for _, l := range letters {
		if !t.plan.Match(ctx, l) {
			continue
		}
		var text []byte
		var err error
		if t.each {
			text, err = t.plan.Job(ctx, l)
		}
		t.add(l, text, err)
	}
	return nil
}

func (t *redriveTrial) add(l *sqsqueue.Letter, text []byte, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.counts[l.Class]++
	if err != nil {
		t.leavings.Add(l, err)
		return
	}
	if _, ok := t.examples[l.Class]; !ok && t.each {
		t.examples[l.Class] = example{dead.Name(l), text}
	}
}

// excerpt is how much of a string is printed of what a letter would become.
const excerpt = 60

func (t *redriveTrial) print(e env, redact bool) error {
	if !t.each {
		return nil
	}
	for _, class := range dead.Classes {
		if ex, ok := t.examples[class]; ok {
			fmt.Fprintf(e.stdout, "\n%s: %s would become\n%s\n", class, ex.name, dead.Style{Longest: excerpt, Redact: redact}.Print(ex.text))
		}
	}
	printLeavings(e.stdout, "\nwould be left where they are", t.leavings, redact)
	fmt.Fprintln(e.stdout, "\nnothing was sent")
	if t.leavings.Left > 0 {
		return &failure{code: exitFailed}
	}
	return nil
}
