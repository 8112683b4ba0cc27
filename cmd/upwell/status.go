package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"upwell/cmd/internal/awsconf"
	"upwell/cmd/internal/budget"
	"upwell/cmd/internal/progress"
	"upwell/jobs"
	"upwell/jobs/sqsqueue"
	"upwell/sink"
	"upwell/sink/s3sink"
)

// statusCmd says how far a run is.
type statusCmd struct {
	RunName string `arg:"" name:"run" placeholder:"RUN" help:"Name of the run."`
	Queue   string `placeholder:"QUEUE" env:"UPWELL_QUEUE" help:"SQS queue of jobs, by name or URL, to count what waits there."`
	storageFlags
	awsFlags

	Watch bool          `short:"w" help:"Show it again and again until the run is done."`
	Every time.Duration `default:"10s" help:"How often to look with --watch."`
	Exact bool          `help:"Read every result for tokens and cost, where a sample is read otherwise."`
	JSON  bool          `name:"json" help:"Print JSON: with --watch one object a line, for each look."`
	Quiet bool          `short:"q" help:"With --watch: print only how it is in the end."`
}

const (
	// sampled is how many results are read for the mean cost and tokens: a mean
	// of 200 is within a few percent for answers of one kind.
	sampled = 200

	// lately is how far back the rate looks. S3 tells times to the second.
	lately = 2 * time.Minute

	// etaLately is how far back an ETA looks: as far as nothing has changed, and no
	// farther.
	etaLately = 30 * time.Minute

	// readers is how many objects are read at once.
	readers = 32
)

// A report is what status prints.
type statusReport struct {
	Run       string    `json:"run"`
	Submitted int       `json:"submitted"`
	Created   time.Time `json:"created,omitzero"`

	Answered int                `json:"answered"`
	Failed   int                `json:"failed"`
	Classes  map[jobs.Class]int `json:"classes,omitempty"`
	Left     int                `json:"left"`
	Queue    *sqsqueue.Counts   `json:"queue,omitempty"`

	PerSecond  float64       `json:"per_second"`
	ETASeconds float64       `json:"eta_seconds,omitzero"` // at that rate
	ETA        *progress.ETA `json:"eta,omitempty"`        // by how the rate has moved in the last half an hour

	Usage jobs.Usage     `json:"usage"`
	Cost  progress.Spend `json:"cost"`
	Read  int            `json:"results_read"` // usage and cost are scaled up from these

	Budget *budget.Status `json:"budget,omitempty"`
}

// Run shows the status.
func (c *statusCmd) Run(ctx context.Context, e env) error {
	conf, err := awsconf.Load(ctx, awsconf.Options{Profile: c.Profile, Connections: readers, Log: e.log})
	if err != nil {
		return fail(exitConfig, err)
	}
	results, err := c.sink(ctx, conf)
	if err != nil {
		return err
	}
	var queue *sqsqueue.Queue
	if c.Queue != "" {
		if queue, err = sqsqueue.Open(ctx, sqsqueue.NewClient(conf), sqsqueue.Config{Queue: c.Queue, Dead: c.Queue}); err != nil {
			return fail(exitConfig, err)
		}
	}
	look := func() (statusReport, error) { return c.look(ctx, results, queue) }
	if !c.Watch {
		r, err := look()
		if ctx.Err() != nil {
			return fail(exitInterrupted, errors.New("interrupted"))
		}
		if err == nil {
			err = c.print(e, r)
		}
		if err != nil {
			return err
		}
		return r.outcome()
	}
	return c.watch(ctx, e, look)
}

// outcome is the exit code that the report deserves.
func (r *statusReport) outcome() error {
	if r.Left <= 0 && r.Failed > 0 {
		return &failure{code: exitFailed}
	}
	return nil
}

// look makes a report. It lists everything and reads little.
func (c *statusCmd) look(ctx context.Context, results *s3sink.Sink, queue *sqsqueue.Queue) (statusReport, error) {
	r := statusReport{Run: c.RunName, Classes: make(map[jobs.Class]int)}
	m, err := results.Manifest(ctx, c.RunName)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		// Jobs may come from elsewhere than upwell submit.
	case err != nil:
		return r, fail(exitConfig, err)
	default:
		r.Submitted, r.Created = m.Count, m.Created
	}
	sum := &tally{report: &r, past: progress.NewPast(time.Now().Add(-etaLately), time.Now())}
	if err := c.answers(ctx, results, sum); err != nil {
		return r, fail(exitConfig, err)
	}
	if err := c.failures(ctx, results, sum); err != nil {
		return r, fail(exitConfig, err)
	}
	if r.Budget, err = budget.Look(ctx, results.Board(budget.BoardName(c.RunName))); err != nil {
		return r, fail(exitConfig, err)
	}
	if r.Submitted == 0 && r.Answered == 0 && r.Failed == 0 {
		return r, fail(exitUsage, fmt.Errorf("run %q: there is no such run in this bucket", c.RunName))
	}
	if queue != nil {
		n, err := queue.Counts(ctx)
		if err != nil {
			return r, fail(exitConfig, err)
		}
		r.Queue = &n
	}
	sum.finish()
	if r.Budget != nil && r.Submitted > 0 && r.Left == 0 {
		r.Budget.ParkedSince, r.Budget.ParkedWhy = nil, "" // nothing waits for money
	}
	return r, nil
}

// A tally adds up stored lines.
type tally struct {
	mu     sync.Mutex
	report *statusReport
	recent int
	past   *progress.Pace // of answers and failures

	// Of error lines, all of which are read. What was paid for in vain was paid
	// for, also of jobs that have been answered since.
	failedUsage jobs.Usage
	failedCost  progress.Spend
}

func (t *tally) add(res jobs.Result) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.report.Read++
	t.report.Usage = t.report.Usage.Add(res.Upwell.Usage)
	t.report.Cost = t.report.Cost.Add(res.Upwell.CostUSD)
}

// spent adds what an error line has cost.
func (t *tally) spent(res jobs.Result) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.failedUsage = t.failedUsage.Add(res.Upwell.Usage)
	t.failedCost = t.failedCost.Add(res.Upwell.CostUSD)
}

// answers counts the results, and reads all or some of them.
func (c *statusCmd) answers(ctx context.Context, results *s3sink.Sink, sum *tally) error {
	since := time.Now().Add(-lately)
	g, reading := errgroup.WithContext(ctx)
	g.SetLimit(readers)
	var first, last time.Time
	for o, err := range results.List(ctx, c.RunName, sink.Results) {
		if err != nil {
			return errors.Join(err, g.Wait())
		}
		n := sum.report.Answered
		sum.report.Answered++
		sum.past.Ended(o.Modified)
		if o.Modified.After(since) {
			sum.recent++
		}
		if first.IsZero() || o.Modified.Before(first) {
			first = o.Modified
		}
		if o.Modified.After(last) {
			last = o.Modified
		}
		if c.Exact || n < sampled {
			g.Go(func() error {
				res, err := results.ReadObject(reading, o)
				if err == nil {
					sum.add(res)
				}
				return err
			})
		}
	}
	span := min(time.Since(first), lately).Seconds()
	if sum.recent > 0 && span > 0 {
		sum.report.PerSecond = float64(sum.recent) / span
	}
	return g.Wait()
}

// failures counts the error lines by class. An error line of a job that has been
// answered since is history.
func (c *statusCmd) failures(ctx context.Context, results *s3sink.Sink, sum *tally) error {
	g, reading := errgroup.WithContext(ctx)
	g.SetLimit(readers)
	for o, err := range results.List(ctx, c.RunName, sink.Errors) {
		if err != nil {
			return errors.Join(err, g.Wait())
		}
		g.Go(func() error {
			res, err := results.ReadObject(reading, o)
			if err != nil {
				return err
			}
			sum.spent(res)
			answered, err := results.Has(reading, jobs.Key{Run: c.RunName, CustomID: res.CustomID})
			if err != nil || answered {
				return err
			}
			sum.past.Ended(o.Modified)
			sum.mu.Lock()
			defer sum.mu.Unlock()
			sum.report.Failed++
			if res.Error != nil {
				sum.report.Classes[res.Error.Code]++
			}
			return nil
		})
	}
	return g.Wait()
}

// finish works out what follows from the counts.
func (t *tally) finish() {
	r := t.report
	if r.Read > 0 && r.Read < r.Answered {
		scale := float64(r.Answered) / float64(r.Read)
		u := &r.Usage
		for _, n := range []*int64{&u.InputTokens, &u.CachedTokens, &u.OutputTokens, &u.ReasoningTokens} {
			*n = int64(float64(*n) * scale)
		}
		r.Cost.USD *= scale
		r.Cost.Unknown = int64(float64(r.Cost.Unknown) * scale)
	}
	r.Usage = r.Usage.Add(t.failedUsage)
	r.Cost = progress.Spend{USD: r.Cost.USD + t.failedCost.USD, Unknown: r.Cost.Unknown + t.failedCost.Unknown}
	switch {
	case r.Submitted > 0:
		r.Left = max(0, r.Submitted-r.Answered-r.Failed)
	case r.Queue != nil:
		r.Left = r.Queue.Total()
	}
	if r.Left > 0 && r.PerSecond > 0 {
		r.ETASeconds = float64(r.Left) / r.PerSecond
	}
	r.ETA = t.past.ETA(int64(r.Left))
}

// mayBeBack reports whether jobs that failed may have been sent back: they count as
// failed until they are answered.
func (r *statusReport) mayBeBack() bool { return r.Failed > 0 && r.Queue != nil && r.Queue.Total() > 0 }

func (c *statusCmd) print(e env, r statusReport) error {
	if c.JSON {
		return json.NewEncoder(e.stdout).Encode(r)
	}
	rows := r.rows()
	if r.Left > 0 {
		rows = append(rows, progress.Row{Name: "ETA", Value: strings.TrimPrefix(r.eta(), "ETA ")})
	}
	fmt.Fprintln(e.stdout, r.title())
	progress.Table(e.stdout, rows)
	return nil
}

func (r *statusReport) title() string {
	title := "run " + r.Run
	if !r.Created.IsZero() {
		title += ", submitted " + r.Created.Local().Format(time.DateTime)
	}
	return title
}

// rows are the lines of the table, without the ETA.
func (r *statusReport) rows() []progress.Row {
	about := ""
	if r.Read < r.Answered {
		about = fmt.Sprintf(" (from %d results; --exact reads all)", r.Read)
	}
	rows := []progress.Row{{Name: "answered", Value: ratio(r.Answered, r.Submitted)}, {Name: "failed", Value: fmt.Sprint(r.Failed)}}
	for _, class := range slices.Sorted(maps.Keys(r.Classes)) {
		rows = append(rows, progress.Row{Name: "  " + string(class), Value: fmt.Sprint(r.Classes[class])})
	}
	rows = append(rows, progress.Row{Name: "left", Value: fmt.Sprint(r.Left)})
	if r.Left == 0 && r.mayBeBack() {
		rows = append(rows, progress.Row{Name: "", Value: "some of the failed may be in the queue again"})
	}
	if q := r.Queue; q != nil {
		rows = append(rows, progress.Row{Name: "queue", Value: fmt.Sprintf("%d waiting, %d in flight, %d delayed (all runs, approximately)", q.Visible, q.Hidden, q.Delayed)})
	}
	rows = append(rows,
		progress.Row{Name: "rate", Value: fmt.Sprintf("%.1f/s over the last two minutes", r.PerSecond)},
		progress.Row{Name: "tokens", Value: fmt.Sprintf("%s in (%s cached), %s out%s", progress.Tokens(r.Usage.InputTokens),
			progress.Tokens(r.Usage.CachedTokens), progress.Tokens(r.Usage.OutputTokens), about)},
		progress.Row{Name: "cost", Value: r.Cost.String()})
	if r.Budget != nil {
		rows = append(rows, progress.Row{Name: "budget", Value: r.Budget.String()})
	}
	return rows
}

func ratio(n, of int) string {
	if of == 0 {
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("%d of %d (%.1f %%)", n, of, 100*float64(n)/float64(of))
}
