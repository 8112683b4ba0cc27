package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"strconv"
	"time"

	"upwell/cmd/internal/dead"
	"upwell/cmd/internal/input"
	"upwell/cmd/internal/progress"
	"upwell/jobs"
	"upwell/sink"
	"upwell/sink/account"
)

// verifyCmd draws up the account of a run.
type verifyCmd struct {
	RunName string `arg:"" name:"run" placeholder:"RUN" help:"Name of the run."`
	readFlags

	Input string `placeholder:"INPUT" help:"What was submitted, with the same --template and --key if any, for a run without an index of its ids: one that upwell submit and upwell run did not start."`
	inputFlags
	Read  bool `help:"Read every line as well, and verify that it is JSON, of that job and run, with an answer or an error."`
	JSON  bool `name:"json" help:"Print JSON, and progress as JSON lines."`
	Quiet bool `short:"q" help:"No progress."`
}

// Help says what is compared.
func (c *verifyCmd) Help() string {
	return `Compares what was submitted with what is stored. The account balances, and the exit code is 0, when every submitted job has
a result, or an error line, or may still be in the queue (which other runs may share), and nothing is there twice or for a job that nobody submitted.

  upwell verify nightly --bucket results --queue jobs
  upwell verify nightly --dir out             # after upwell run nightly.jsonl -o out
  upwell verify nightly --bucket results --input nightly.jsonl --read

Names are listed, 1,000 to a request, and only --read reads answers. Memory stays at some tens of MiB for any number of jobs; the ids
take their size in the folder for temporary files (TMPDIR).`
}

// connections is how many requests verify has under way: listings and reads.
const connections = 96

// Run verifies the run.
func (c *verifyCmd) Run(ctx context.Context, e env) error {
	e = e.shows(c.JSON, c.Quiet)
	from, err := c.open(ctx, e, connections)
	if err != nil {
		return err
	}
	defer from.close()
	opts := account.Options{Read: c.Read, Progress: new(account.Progress)}
	if from.queue != nil {
		opts.Queued = func(ctx context.Context) (int, error) {
			n, err := from.queue.Counts(ctx)
			return n.Total(), err
		}
	}
	if c.Input != "" {
		c.profile = c.Profile
		file, _, err := c.openInput(ctx, e, c.Input, written(c.Dir)...)
		if err != nil {
			return err
		}
		defer file.Close()
		if opts.IDs, err = c.submitted(ctx, e, file, from); err != nil {
			return err
		}
	}
	stop := watch(e, opts.Progress, 0)
	report, err := account.Check(ctx, from, c.RunName, opts)
	stop()
	if err != nil {
		return noAccount(ctx, c.RunName, err)
	}
	if err := c.print(e, &report); err != nil {
		return err
	}
	if !report.Balanced() {
		return &failure{code: exitFailed}
	}
	return nil
}

// submitted returns the ids of the input file, after comparing it with what was
// submitted under that name, if anything was.
func (c *verifyCmd) submitted(ctx context.Context, e env, file *input.File, from reading) (iter.Seq2[string, error], error) {
	sum, err := inspect(ctx, e, file, c.RunName, func(jobs.Job, []byte) error { return nil }) // only its ids matter
	if ctx.Err() != nil {
		return nil, fail(exitInterrupted, errUnchanged)
	}
	if err != nil {
		return nil, failInput(err)
	}
	m, err := from.Manifest(ctx, c.RunName)
	switch {
	case err == nil && m.InputSHA256 != sum.SHA256:
		return nil, fail(exitUsage, fmt.Errorf("%s is not what run %q was submitted with: leave out --input, or give that file (%s)", file.Name, c.RunName, m.Input))
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return nil, fail(exitConfig, err)
	}
	return func(yield func(string, error) bool) {
		for item, err := range file.Jobs(c.RunName) {
			if !yield(item.Job.CustomID, err) {
				return
			}
		}
	}, nil
}

// noAccount says why there is no account of a run.
func noAccount(ctx context.Context, run string, err error) error {
	switch {
	case ctx.Err() != nil:
		return fail(exitInterrupted, errUnchanged)
	case errors.Is(err, sink.ErrNoIndex):
		return fail(exitConfig, fmt.Errorf("run %q: nothing here says what was submitted, so there is nothing to compare with: "+
			"correct the run's name, bucket or prefix, or give the file that was submitted with --input FILE", run))
	case errors.Is(err, sink.ErrBadIndex):
		return fail(exitFailed, err)
	default:
		return fail(exitConfig, err)
	}
}

// errUnchanged says what became of a check that was not finished.
var errUnchanged = errors.New("interrupted: a check only reads, so nothing has changed; run the same command again")

// watch shows how far the check is, until it is told to stop. ids is how many there are
// to be read, or 0 when nobody knows.
func watch(e env, p *account.Progress, ids int) (stop func()) {
	const shards = 256
	return progress.NewTask(func() progress.Step {
		n, lines := p.IDs.Load(), p.Lines.Load()
		s := progress.Step{What: "comparing what is stored", Unit: "shards", Done: p.Shards.Load(), Total: shards, More: fmt.Sprintf("%d ids", n)}
		switch {
		case s.Done == 0 && lines == 0:
			return progress.Step{What: "reading the submitted ids", Unit: "ids", Done: n, Total: int64(ids)}
		case lines > 0:
			s.More += fmt.Sprintf(", %d lines read", lines)
		}
		return s
	}).Show(e.console())
}

func (c *verifyCmd) print(e env, r *account.Report) error {
	if c.JSON {
		return json.NewEncoder(e.stdout).Encode(struct {
			*account.Report
			Balanced bool `json:"balanced"`
		}{r, r.Balanced()})
	}
	fmt.Fprintf(e.stdout, "run %s", r.Run)
	if !r.Created.IsZero() {
		fmt.Fprintf(e.stdout, ", submitted %s", r.Created.Local().Format(time.DateTime))
	}
	fmt.Fprintln(e.stdout)
	progress.Table(e.stdout, accountRows(r))
	fmt.Fprintln(e.stdout, verdict(r))
	if r.Balanced() {
		return nil
	}
	for _, f := range findings(r, c.Dir != "") {
		f.print(e.stdout)
	}
	return nil
}

// verdict says whether the account balances. The queue may hold other runs' jobs.
func verdict(r *account.Report) string {
	switch {
	case !r.Balanced():
		return "the account does not balance"
	case r.StillQueued.Count > 0:
		return fmt.Sprintf("the account balances if %d of the %d messages in the queue are this run's", r.StillQueued.Count, *r.Queue)
	default:
		return "the account balances"
	}
}

// accountRows words the counts.
func accountRows(r *account.Report) []progress.Row {
	rows := []progress.Row{
		{Name: "submitted", Value: strconv.Itoa(r.Submitted)},
		{Name: "answered", Value: ratio(r.Answered, r.Submitted)},
		{Name: "failed", Value: strconv.Itoa(r.Failed)},
		{Name: "still queued", Value: strconv.Itoa(r.StillQueued.Count)},
		{Name: "missing", Value: strconv.Itoa(r.Missing.Count)},
		{Name: "double", Value: strconv.Itoa(r.Double.Count)},
		{Name: "unknown", Value: strconv.Itoa(r.Unknown.Count)},
	}
	if r.Read > 0 {
		rows = append(rows, progress.Row{Name: "damaged", Value: fmt.Sprintf("%d of %d lines read", r.Damaged.Count, r.Read)})
	}
	if r.Superseded.Count > 0 {
		rows = append(rows, progress.Row{Name: "superseded", Value: fmt.Sprintf("%d error lines of jobs that were answered after all", r.Superseded.Count)})
	}
	if r.Queue != nil {
		rows = append(rows, progress.Row{Name: "queue", Value: fmt.Sprintf("%d messages (all runs, approximately)", *r.Queue)})
	}
	return rows
}

// A finding is one thing that is wrong, and what to do about it.
type finding struct {
	account.Finding
	what, next string
}

// findings lists what is wrong. The advice for the folder of an upwell run is another.
func findings(r *account.Report, folder bool) []finding {
	resume := "submit the same input again with --again; what has an answer is not paid for twice"
	switch {
	case folder:
		resume = "run the same command again; what has an answer is not paid for twice"
	case r.Queue == nil:
		resume = "give --queue to count what waits there; if nothing does, " + resume
	default:
		resume = fmt.Sprintf("the queue has %d messages, which is not enough; look into the dead-letter queue, then %s", *r.Queue, resume)
	}
	return []finding{
		{r.Missing, "missing: neither a result nor an error is stored, where it should be", resume},
		{r.Double, "double", "compare the objects, and remove those that are not in their place; for an id that is submitted twice, submit the same input again"},
		{r.Unknown, "unknown: stored, and not of a job that was submitted", "see who else uses the name of this run; then remove them, or move them to a run of their own"},
		{r.Damaged, "damaged", "remove them, and " + resume},
	}
}

func (f finding) print(w io.Writer) {
	if f.Count == 0 {
		return
	}
	fmt.Fprintf(w, "\n%d %s\n", f.Count, f.what)
	for _, e := range f.Examples {
		fmt.Fprintf(w, "  %s", dead.Clean(e.Path))
		if e.CustomID != "" {
			fmt.Fprintf(w, "  %q", e.CustomID)
		}
		if e.Note != "" {
			fmt.Fprintf(w, "  (%s)", e.Note)
		}
		fmt.Fprintln(w)
	}
	if more := f.Count - len(f.Examples); more > 0 {
		fmt.Fprintf(w, "  … and %d more\n", more)
	}
	fmt.Fprintf(w, "  next: %s\n", f.next)
}
