package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"upwell/cmd/internal/awsconf"
	"upwell/cmd/internal/estimate"
	"upwell/cmd/internal/input"
	"upwell/cmd/internal/opener"
	"upwell/cmd/internal/progress"
	"upwell/infra/local"
	"upwell/jobs"
	"upwell/jobs/sqsqueue"
	"upwell/sink"
	"upwell/sink/s3sink"
	"upwell/sink/s3sink/s3sim"
	"upwell/worker"
	"upwell/worker/mantle/mantlesim"
)

// runCmd runs a file on this machine.
type runCmd struct {
	Input string `arg:"" placeholder:"INPUT" help:"${input_help}"`
	Dir   string `name:"output" short:"o" type:"path" placeholder:"DIR" help:"Folder for the results; needed, but for --estimate. Give the same one again to go on where a run was."`
	inputFlags
	schemaFlags
	endpointFlags
	paceFlags
	budgetFlags
	estimateFlags
	watchFlags

	RunName     string        `name:"run" placeholder:"NAME" env:"UPWELL_RUN" help:"Name of the run. Default: the file's name."`
	RetryFailed bool          `help:"Try jobs again that failed in an earlier run over the same folder."`
	Drain       time.Duration `default:"15m" env:"UPWELL_DRAIN" help:"How long calls in flight may go on after Ctrl-C. A second Ctrl-C ends them."`
	Simulate    bool          `help:"Use a simulated endpoint: nothing is sent anywhere, and nothing costs anything."`
	Quiet       bool          `short:"q" help:"No progress."`
}

// Run runs the file.
func (c *runCmd) Run(ctx context.Context, e env) error {
	if c.Dir == "" && !c.Estimate {
		return fail(exitUsage, errors.New("no folder for the results: name it with --output or -o"))
	}
	e = e.shows(c.JSON, c.Quiet)
	file, template, err := c.openInput(ctx, e, c.Input, written(c.Dir)...)
	if err != nil {
		return err
	}
	defer file.Close()
	if c.RunName == "" {
		c.RunName = file.Run()
	}
	if err := jobs.CheckRun(c.RunName); err != nil {
		return fail(exitUsage, fmt.Errorf("--run: %w", err))
	}
	if err := c.checkBudget(); err != nil {
		return fail(exitUsage, err)
	}
	if err := c.check(); err != nil {
		return err
	}
	s := session{env: e, file: file, dir: c.Dir, run: c.RunName, retryFailed: c.RetryFailed, quiet: c.Quiet, asJSON: c.JSON, budget: c.budgetFlags, watching: &c.watchFlags, verb: "run"}
	defer s.close()
	if s.schemas, err = c.read(); err == nil {
		err = s.schemas.join(template)
	}
	if err != nil {
		return fail(exitUsage, err)
	}
	var tally *estimate.Tally
	if c.Estimate {
		tally = estimate.NewTally()
	}
	if s.sum, err = checked(ctx, e, file, c.RunName, &s.schemas, tally); err != nil {
		return err
	}
	if c.Estimate {
		return c.estimate(ctx, e, tally)
	}
	if c.Simulate {
		s.sim = simulation(s.sum)
	}
	s.worker = func(stack *local.Stack) (worker.Endpoint, worker.Config, error) {
		if stack.Mantle != nil {
			c.BaseURL, c.Auth = stack.MantleURL+"/openai/v1", "key"
			e.getenv = func(string) string { return simulatedKey }
		}
		endpoint, err := c.endpoint(ctx, e, c.Slots, func() (aws.Config, error) { return awsconf.Load(ctx, awsconf.Options{Log: e.log}) })
		if err != nil {
			return nil, worker.Config{}, err
		}
		cfg := c.config(&c.endpointFlags, endpoint.Regions(), e)
		cfg.Drain = c.Drain
		return endpoint, cfg, nil
	}
	s.pace = &c.paceFlags
	end, err := s.do(ctx)
	if err != nil {
		return err
	}
	return s.conclude(end)
}

// written are the paths of what runs write to the folder dir, if there is one: no
// input, though they may lie in the folder that is.
func written(dir string) []string {
	if dir == "" {
		return nil
	}
	paths := []string{dir, filepath.Join(dir, objectsDir)}
	files, _ := os.ReadDir(dir) // there are none before the first run
	for _, f := range files {
		if strings.HasSuffix(f.Name(), outputName("")) || strings.HasSuffix(f.Name(), errorsName("")) {
			paths = append(paths, filepath.Join(dir, f.Name()))
		}
	}
	return paths
}

// estimate says what the run would take. An earlier run over the same folder has left
// what it found there.
func (c *runCmd) estimate(ctx context.Context, e env, tally *estimate.Tally) error {
	prices, err := pricesFor(c.Prices)
	if err != nil {
		return fail(exitUsage, err)
	}
	var results *s3sink.Sink
	if _, err := os.Stat(filepath.Join(c.Dir, objectsDir, localBucket)); err == nil && c.Dir != "" {
		folder := readFlags{Dir: c.Dir}
		r, err := folder.open(ctx, e, readers)
		if err != nil {
			return err
		}
		defer r.close()
		results = r.Sink
	}
	return c.expect(ctx, e, results, c.RunName, tally, prices, c.MaxOutputTokens).print(e.stdout, c.JSON)
}

// simulation is an endpoint that has every model that the file asks for.
func simulation(sum input.Summary) *mantlesim.Config {
	sim := &mantlesim.Config{Latency: mantlesim.Latency{Median: 800 * time.Millisecond, Sigma: 0.5}}
	grok := mantlesim.DefaultModels()[0]
	for name := range sum.Models {
		model := grok
		model.ID = name
		sim.Models = append(sim.Models, model)
	}
	return sim
}

// A session is one run on this machine: a file goes through the worker by way of
// a queue in this process into a folder.
type session struct {
	env
	file        *input.File
	sum         input.Summary
	schemas     schemas
	verb        string // demo or run
	dir, run    string
	retryFailed bool
	quiet       bool
	asJSON      bool // how it ended is told in JSON
	budget      budgetFlags
	watching    *watchFlags
	sim         *mantlesim.Config // nil to call a real endpoint
	pace        *paceFlags
	worker      func(*local.Stack) (worker.Endpoint, worker.Config, error)

	watch   *watching // nil before work
	results *s3sink.Sink
	opener  worker.Opener // of bodies that are in S3
	stack   *local.Stack
	window  chan struct{}         // a token for each job queued and not settled
	skipped atomic.Int64          // jobs that an earlier run had settled
	parked  atomic.Pointer[error] // why there is no money for more calls, or nil
	unsaved error                 // why there is no report, or nil
	closers []func()              // in the order in which they were opened
}

// close lets go of all that the session holds. Until then its results can be looked at.
func (s *session) close() {
	for _, f := range slices.Backward(s.closers) {
		f()
	}
	s.closers = nil
}

// simulatedKey is what a simulated endpoint is called with.
const simulatedKey = "simulated"

// objectsDir is the folder, in that of a run, where the objects of the S3 in this
// process lie as plain files.
const objectsDir = "s3"

// An ending is how a session ended.
type ending struct {
	progress.Counts
	elapsed time.Duration
}

// do runs the session until every job is settled or ctx is done.
func (s *session) do(ctx context.Context) (end ending, err error) {
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return end, fail(exitUsage, err)
	}
	unlock, err := lockFolder(s.dir)
	if err != nil {
		return end, err
	}
	s.closers = append(s.closers, unlock)
	if err := s.claim(); err != nil {
		return end, fail(exitUsage, err)
	}
	// What the stack serves lasts longer than ctx: the drain still stores.
	serve := context.WithoutCancel(ctx)
	// Results are the user's, so they have to survive a power failure.
	s.stack, err = local.Start(serve, local.Config{S3: s3sim.Config{Dir: filepath.Join(s.dir, objectsDir), Sync: true, Log: s.log}, Mantle: s.sim})
	if err != nil {
		return end, fail(exitConfig, err)
	}
	s.closers = append(s.closers, func() { s.stack.Close() })
	queues, objects, err := furnish(serve, s.stack, s.pace.Slots)
	if err != nil {
		return end, fail(exitConfig, err)
	}
	queue, err := sqsqueue.Open(serve, queues, sqsqueue.Config{Queue: localQueue, Log: s.log})
	if err != nil {
		return end, err
	}
	s.results = s3sink.New(objects, localBucket, "")
	s.opener = opener.New(opener.Config{Client: objects, Bucket: localBucket, Run: s.run, Log: s.log})
	_, resumed, err := record(serve, s.results, s.file, s.run, s.sum, &s.schemas, 0, false)
	if err != nil {
		return end, err
	}
	if err := settleDead(serve, s.env, s.results, s.run); err != nil {
		return end, err
	}
	if err := s.budget.setBudget(serve, s.env, s.results, s.run); err != nil {
		return end, err
	}
	return s.work(ctx, queue, resumed)
}

// simulatedMark is a file that says that the answers in a folder are made up.
const simulatedMark = ".upwell-simulated"

// claim keeps the answers of a simulated endpoint and those of a real one apart: a
// job that has either is not asked again.
func (s *session) claim() error {
	mark := filepath.Join(s.dir, simulatedMark)
	switch _, err := os.Stat(mark); {
	case err == nil && s.sim == nil:
		return fmt.Errorf("the answers in %s are made up, by --simulate: give another folder with -o", s.dir)
	case err == nil, !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if s.sim == nil {
		return nil
	}
	if _, err := os.Stat(filepath.Join(s.dir, objectsDir)); err == nil {
		return fmt.Errorf("the answers in %s are real, and --simulate would put made-up ones among them: give another folder with -o", s.dir)
	}
	return os.WriteFile(mark, nil, 0o644)
}

// work feeds the queue and works on it at the same time.
func (s *session) work(ctx context.Context, queue *sqsqueue.Queue, resumed bool) (end ending, err error) {
	endpoint, cfg, err := s.worker(s.stack)
	if err != nil {
		return end, err
	}
	working, done := context.WithCancel(ctx)
	defer done()
	learned := estimate.NewExperience()
	if s.watch, err = s.watching.listen(ctx, s.env, s.verb, s.run, localQueue, learned.Observe, s.follow(done)); err != nil {
		return end, err
	}
	s.closers = append(s.closers, func() { s.watch.leave(ctx) })
	s.watch.totals.Store(&progress.Totals{Jobs: int64(s.sum.Count)})
	s.window = make(chan struct{}, s.windowSize())
	cfg.Run, cfg.Opener = s.run, s.opener
	cfg.Log = slog.New(atLeast{cfg.Log.Handler(), slog.LevelWarn}) // the progress line says the rest
	cfg.Observe = s.watch.observe
	limits := s.pace.limits(ctx, s.env, s.results)
	money := purse(s.results, cfg.Log)
	cfg.Purse = money
	w, err := worker.New(queue, endpoint, s.results, limits, cfg)
	if err != nil {
		return end, fail(exitUsage, err)
	}
	unwatch, err := s.watch.start(ctx, watched{worker: w, queue: queue, results: s.results})
	if err != nil {
		return end, err
	}
	s.closers = append(s.closers, unwatch)
	if s.watch.url != "" && !s.quiet && !s.asJSON {
		fmt.Fprintf(s.stderr, "dashboard: %s\n", s.watch.url)
	}
	leave := alongside(ctx, s.env, s.results, limits, learned, money, false)
	defer leave()
	shown, hide := context.WithCancel(context.WithoutCancel(ctx))
	var showing, feeding sync.WaitGroup
	var fed error
	feeding.Go(func() {
		defer done()
		if fed = s.feed(working, queue, resumed); fed == nil {
			fed = s.finish(working, queue)
		}
	})
	if !s.quiet {
		showing.Go(func() { s.show(shown) })
	}
	stop := context.AfterFunc(ctx, s.explain)
	err = w.Run(working)
	stop()
	done()
	feeding.Wait()
	hide()
	showing.Wait()
	if !errors.Is(fed, context.Canceled) {
		err = errors.Join(err, fed)
	}
	end = ending{Counts: s.watch.meter.Counts(), elapsed: s.watch.meter.Elapsed()}
	s.unsaved = s.watch.end(ctx, s.outcome(ctx, err))
	return end, fail(exitConfig, err)
}

// follow returns what the session itself does about events: it stops when there is no
// money for more, and has another job queued for each that is settled.
func (s *session) follow(stop func()) func(worker.Event) {
	return func(ev worker.Event) {
		switch ev.Kind {
		case worker.Parked:
			if s.parked.CompareAndSwap(nil, &ev.Err) {
				stop() // what is in flight is waited for
			}
		case worker.Stored, worker.Buried:
			select {
			case <-s.window:
			default: // settled twice, because the first acknowledgement was lost
			}
		default:
		}
	}
}

// outcome words how the session ended, for those who look at its page.
func (s *session) outcome(ctx context.Context, err error) string {
	switch {
	case err != nil:
		return "failed"
	case s.parked.Load() != nil:
		return "parked"
	case ctx.Err() != nil:
		return "interrupted"
	default:
		return "done"
	}
}

// windowSize is how many jobs may be in the queue of this process and the worker
// together, as that queue is memory: enough to keep the worker busy, and no more
// than the prompts that the worker itself may hold, as far as their mean goes.
func (s *session) windowSize() int {
	mean := s.sum.Bytes/int64(s.sum.Count) + 1
	return max(4*handed, min(4*s.pace.Slots, int((int64(s.pace.MaxMemory)<<20)/mean)))
}

// finish waits until every job that was queued is settled.
func (s *session) finish(ctx context.Context, queue *sqsqueue.Queue) error {
	t := time.NewTicker(100 * time.Millisecond)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.C:
		}
		if len(s.window) > 0 {
			continue
		}
		if empty, err := queue.Empty(ctx); err != nil || empty {
			return err
		}
	}
}

// feed queues the jobs that have no result yet, as fast as they are settled.
func (s *session) feed(ctx context.Context, queue *sqsqueue.Queue, resumed bool) error {
	var batch []sqsqueue.Outgoing
	var sent []func(error) // of their traces
	flush := func() error {
		err := queue.Send(ctx, batch)
		for _, end := range sent {
			end(err)
		}
		batch, sent = batch[:0], sent[:0]
		return err
	}
	for item, err := range s.file.Jobs(s.run) {
		if err != nil {
			return err
		}
		if resumed {
			skip, err := settled(ctx, s.results, item.Job.Key, s.retryFailed)
			if err != nil {
				return err
			}
			if skip {
				s.skip()
				continue
			}
		}
		select {
		case s.window <- struct{}{}:
		default: // full: what waits here would never be settled
			if err := flush(); err != nil {
				return err
			}
			select {
			case s.window <- struct{}{}:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		body, err := stowed(ctx, queue, s.results, item.Job.Key, outgoing(item, s.run, &s.schemas))
		if err != nil {
			return err
		}
		trace, end := s.watch.traces.Send(localQueue, item.Job.Key, time.Now()) //nolint:contextcheck // each job has a trace of its own
		sent = append(sent, end)
		if batch = append(batch, sqsqueue.Outgoing{Body: body, Trace: trace}); len(batch) == handed {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	return flush()
}

// skip notes a job that an earlier run had settled.
func (s *session) skip() {
	s.watch.totals.Store(&progress.Totals{Jobs: int64(s.sum.Count), Before: s.skipped.Add(1)})
}

func (s *session) show(ctx context.Context) {
	progress.Printer{Out: s.console(), Total: int64(s.sum.Count), Done: s.skipped.Load, Budget: s.limit}.Run(ctx, s.watch.meter)
}

// limit returns what the run may cost, or 0 when nobody has said.
func (s *session) limit() float64 {
	if b := s.watch.budget.Load(); b != nil && b.LimitUSD.Known() {
		return float64(b.LimitUSD)
	}
	return 0
}

// explain says what an interrupt does.
func (s *session) explain() {
	n := s.watch.meter.Counts().InFlight
	if s.asJSON {
		fmt.Fprintf(s.stderr, "{\"interrupted\":true,\"in_flight\":%d}\n", n)
		return
	}
	rest := "the same command goes on with the rest; "
	if s.verb == demoVerb {
		rest = ""
	}
	fmt.Fprintf(s.stderr, "interrupted: waiting for %d calls in flight, which are paid for\n%sCtrl-C again abandons them\n", n, rest)
}

// conclude writes the output files and the summary.
func (s *session) conclude(end ending) error {
	answered, failed, err := s.assemble()
	if err != nil {
		return fail(exitConfig, err)
	}
	if s.asJSON {
		if err := s.encode(end, answered, failed); err != nil {
			return fail(exitConfig, err)
		}
		return s.ended(s.left(answered, failed))
	}
	fmt.Fprintf(s.stdout, "run %s: %d of %d jobs answered, %d failed\n", s.run, answered, s.sum.Count, failed)
	progress.Table(s.stdout, append(progress.Summary(end.Counts, end.elapsed), progress.Row{Name: "held back by", Value: s.watch.heldBack()}))
	fmt.Fprintf(s.stdout, "  answers  %s\n", filepath.Join(s.dir, outputName(s.run)))
	if failed > 0 {
		fmt.Fprintf(s.stdout, "  errors   %s\n", filepath.Join(s.dir, errorsName(s.run)))
	}
	if s.sim != nil && s.verb != demoVerb {
		fmt.Fprintln(s.stdout, "  the answers are made up, by --simulate: for real ones give another folder")
	}
	return s.ended(s.left(answered, failed))
}

// encode writes the summary as JSON.
func (s *session) encode(end ending, answered, failed int) error {
	errorsFile := ""
	if failed > 0 {
		errorsFile = filepath.Join(s.dir, errorsName(s.run))
	}
	return json.NewEncoder(s.stdout).Encode(struct {
		Run      string `json:"run"`
		Jobs     int    `json:"jobs"`
		Answered int    `json:"answered"` // in all, by earlier runs with it
		Lost     int    `json:"failed_in_all"`
		Left     int    `json:"left"`
		Answers  string `json:"answers"`
		Errors   string `json:"errors_file,omitzero"`
		HeldBack string `json:"held_back_by"`
		progress.Final
	}{
		s.run, s.sum.Count, answered, failed, s.sum.Count - answered - failed,
		filepath.Join(s.dir, outputName(s.run)), errorsFile, s.watch.heldBack(), progress.SummaryJSON(end.Counts, end.elapsed),
	})
}

// ended returns err, or that there is no report, which is said in any case.
func (s *session) ended(err error) error {
	switch {
	case s.unsaved == nil:
		return err
	case err == nil:
		return s.unsaved
	}
	fmt.Fprintln(s.stderr, "upwell:", s.unsaved)
	return err
}

// left says what is left, and returns the exit code.
func (s *session) left(answered, failed int) error {
	switch why := s.parked.Load(); {
	case answered+failed < s.sum.Count && why != nil:
		fmt.Fprintf(s.stderr, "upwell: run %s: %v; %d jobs are left, and the same command goes on with them then\n", s.run, *why, s.sum.Count-answered-failed)
		return &failure{code: exitFailed}
	case answered+failed < s.sum.Count && s.verb == demoVerb:
		fmt.Fprintf(s.stderr, "upwell: interrupted with %d jobs left: another demo begins anew\n", s.sum.Count-answered-failed)
		return &failure{code: exitInterrupted}
	case answered+failed < s.sum.Count:
		fmt.Fprintf(s.stderr, "upwell: interrupted with %d jobs left: run the same command again to go on\n", s.sum.Count-answered-failed)
		return &failure{code: exitInterrupted}
	case failed > 0:
		fmt.Fprintf(s.stderr, "upwell: %d of %d jobs failed, and %s says why: --retry-failed tries them again\n", failed, s.sum.Count, filepath.Join(s.dir, errorsName(s.run)))
		return &failure{code: exitFailed}
	default:
		return nil
	}
}

func outputName(run string) string { return run + ".output.jsonl" }
func errorsName(run string) string { return run + ".errors.jsonl" }

// assemble writes the stored lines into two files, in the order of the input, as
// OpenAI's batch API gives them.
func (s *session) assemble() (answered, failed int, err error) {
	output, err := newLines(filepath.Join(s.dir, outputName(s.run)))
	if err != nil {
		return 0, 0, err
	}
	defer output.abandon()
	errs, err := newLines(filepath.Join(s.dir, errorsName(s.run)))
	if err != nil {
		return 0, 0, err
	}
	defer errs.abandon()
	root, err := os.OpenRoot(filepath.Join(s.dir, objectsDir, localBucket))
	if err != nil {
		return 0, 0, err
	}
	defer root.Close()
	for item, err := range s.file.Jobs(s.run) {
		if err != nil {
			return 0, 0, err
		}
		done, err := output.copy(root, sink.Results.Key("", item.Job.Key))
		if err == nil && !done {
			_, err = errs.copy(root, sink.Errors.Key("", item.Job.Key))
		}
		if err != nil {
			return 0, 0, err
		}
	}
	return output.n, errs.n, errors.Join(output.commit(), errs.commit())
}
