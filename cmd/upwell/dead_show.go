package main

import (
	"context"
	"fmt"
	"io"
	"path"
	"strconv"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"upwell/cmd/internal/dead"
	"upwell/cmd/internal/progress"
	"upwell/jobs"
	"upwell/jobs/sqsqueue"
	"upwell/sink"
	"upwell/sink/s3sink"
)

// deadShowCmd shows a dead letter.
type deadShowCmd struct {
	ID string `arg:"" placeholder:"ID" help:"The job's custom_id, or RUN/custom_id, or the message's id."`
	deadFlags

	Body   bool `xor:"body" help:"Print the body as it is, and nothing else."`
	Redact bool `xor:"body" env:"UPWELL_REDACT" help:"Leave out what prompts and answers say."`
}

// shown is how many letters of one name are shown. More than one is rare: a job that
// was redriven while its letter could not be removed.
const shown = 3

// Run shows it.
func (c *deadShowCmd) Run(ctx context.Context, e env) error {
	queue, results, err := c.open(ctx, e)
	if err != nil {
		return err
	}
	plan, err := (&whereFlags{}).plan(results, nil)
	if err != nil {
		return err
	}
	var mu sync.Mutex
	var found []*sqsqueue.Letter
	survey, err := queue.Letters(ctx, func(_ context.Context, letters []*sqsqueue.Letter) error {
		mu.Lock()
		defer mu.Unlock()
		for _, l := range letters {
			if len(found) < shown && dead.Named(l, c.ID) {
				found = append(found, l)
			}
		}
		return nil
	})
	if err != nil {
		return scanned(ctx, err)
	}
	for _, l := range found {
		if err := c.show(ctx, e, plan, results, l); err != nil {
			return err
		}
	}
	if len(found) == 0 {
		missed(e.stderr, survey)
		return fail(exitFailed, fmt.Errorf("no letter named %q among %d in %s", c.ID, survey.Letters, path.Base(queue.Dead())))
	}
	return nil
}

func (c *deadShowCmd) show(ctx context.Context, e env, plan *dead.Plan, results *s3sink.Sink, l *sqsqueue.Letter) error {
	body, unread := plan.Text(ctx, l)
	if c.Body {
		if unread == nil {
			_, unread = fmt.Fprintf(e.stdout, "%s\n", body)
		}
		return fail(exitConfig, unread)
	}
	fmt.Fprintln(e.stdout, dead.Name(l))
	progress.Table(e.stdout, c.rows(l))
	if results != nil {
		if err := c.stored(ctx, e.stdout, results, l); err != nil {
			return fail(exitConfig, err)
		}
	}
	text := dead.Style{Redact: c.Redact}.Print(body)
	if unread != nil {
		text = "not read: " + unread.Error()
	}
	_, err := fmt.Fprintf(e.stdout, "\nbody:\n%s\n", text)
	return err
}

// rows are what the letter itself says.
func (c *deadShowCmd) rows(l *sqsqueue.Letter) []progress.Row {
	var rows []progress.Row
	for _, r := range []progress.Row{
		{Name: "class", Value: string(l.Class)},
		{Name: "reason", Value: c.reason(l.Reason)},
		{Name: "status", Value: nonZero(l.Status)},
		{Name: "request id", Value: l.RequestID},
		{Name: "counted attempts", Value: strconv.Itoa(l.Attempts)},
		{Name: "model", Value: l.Model},
		{Name: "first failed", Value: stamp(l.FirstFailed)},
		{Name: "message", Value: fmt.Sprintf("%s, sent %s, received %d times", l.ID, stamp(l.Sent), l.Receives)},
		{Name: "body at", Value: l.BodyRef},
	} {
		if r.Value != "" && r.Value != "-" {
			rows = append(rows, progress.Row{Name: r.Name, Value: dead.Clean(r.Value)})
		}
	}
	return rows
}

func (c *deadShowCmd) reason(s string) string {
	if c.Redact {
		return withheld
	}
	return s
}

// stored shows what the bucket knows of the job.
func (c *deadShowCmd) stored(ctx context.Context, w io.Writer, results *s3sink.Sink, l *sqsqueue.Letter) error {
	if inRun := jobs.CheckRun(l.Run) == nil; !inRun || l.CustomID == "" { // a letter may be anybody's
		fmt.Fprintln(w, "\nin the bucket: nothing to look for, as the letter names no job of a run")
		return nil
	}
	answered, err := results.Has(ctx, l.Key)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "\nanswered since: %s\n", map[bool]string{true: "yes", false: "no"}[answered])
	line, ok, err := results.Failure(ctx, l.Key)
	if err != nil || !ok {
		return err
	}
	fmt.Fprintf(w, "error line: s3://%s\n", path.Join(c.place(), sink.Errors.Key(c.Prefix, l.Key)))
	c.printLine(w, line)
	return nil
}

// place is the bucket, with what prefix it was named with.
func (c *deadShowCmd) place() string { return strings.TrimPrefix(c.Bucket, "s3://") }

// printLine prints an error line: what it has cost, its attempts, what was answered.
func (c *deadShowCmd) printLine(w io.Writer, line jobs.Result) {
	cost := progress.Spend{}.Add(line.Upwell.CostUSD)
	progress.Table(w, []progress.Row{
		{Name: "finished", Value: stamp(line.Upwell.Finished)},
		{Name: "calls", Value: fmt.Sprintf("%d billed, of them %d repairs and %d with more room", line.Upwell.Billed, line.Upwell.Repairs, line.Upwell.Extensions)},
		{Name: "tokens", Value: fmt.Sprintf("%d in, %d out", line.Upwell.Usage.InputTokens, line.Upwell.Usage.OutputTokens)},
		{Name: "cost", Value: cost.String()},
	})
	if line.Error != nil {
		fmt.Fprintf(w, "  reason    %s\n", dead.Clean(c.reason(line.Error.Message)))
	}
	if len(line.Upwell.Attempts) > 0 {
		t := tabwriter.NewWriter(w, 2, 0, 2, ' ', 0)
		fmt.Fprintln(t, "\nATTEMPT\tSTARTED\tTOOK\tSTATUS\tREGION\tTIER\tFOR\tERROR")
		for _, a := range line.Upwell.Attempts {
			took := time.Duration(a.TookMS) * time.Millisecond
			fmt.Fprintf(t, "%d\t%s\t%v\t%s\t%s\t%s\t%s\t%s\n", a.N, stamp(a.Started), took, dash(nonZero(a.Status)), dash(a.Region), dash(a.Tier), dash(string(a.Turn)), dead.Clean(c.reason(a.Error)))
		}
		t.Flush()
	}
	if line.Response != nil && len(line.Response.Body) > 0 {
		fmt.Fprintf(w, "\nanswer:\n%s\n", dead.Style{Redact: c.Redact}.Print(line.Response.Body))
	}
}
