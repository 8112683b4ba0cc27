package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/alecthomas/kong"
	"github.com/aws/aws-sdk-go-v2/aws"

	"upwell/cmd/internal/awsconf"
	"upwell/cmd/internal/estimate"
	"upwell/cmd/internal/progress"
	"upwell/cmd/internal/protect"
	"upwell/sink"
	"upwell/sink/account"
	"upwell/sink/s3sink"
	"upwell/worker"
)

// workerCmd is the daemon.
type workerCmd struct {
	queueFlags
	storageFlags
	awsFlags
	endpointFlags
	paceFlags
	openerFlags
	budgetFlags
	watchFlags

	Fleet         bool          `group:"Pace:" env:"UPWELL_FLEET" help:"Share the account's capacity with the other workers on this bucket that have this flag, through an object in it: equal parts, and no more refusals than one worker has."`
	RunName       string        `name:"run" placeholder:"NAME" env:"UPWELL_RUN" help:"Run of jobs that name none, and the one whose account --exit-when-empty ends with. Default: default."`
	Drain         time.Duration `default:"85s" env:"UPWELL_DRAIN" help:"How long calls in flight may go on after SIGTERM. Give the platform's grace period 35s more."`
	LookUp        bool          `env:"UPWELL_LOOK_UP" help:"Look every job up in S3 before paying for it, not only those delivered before."`
	ExitWhenEmpty time.Duration `placeholder:"60s" env:"UPWELL_EXIT_WHEN_EMPTY" help:"Exit once the queue has held nothing for so long, for scheduled tasks: 0 when the account of --run balances and no job failed, else 1, also when all that is left waits for a larger budget."`
	PrintConfig   bool          `help:"Print the settings in force as a file for --config, without secrets, and exit."`
}

// Run works until ctx is done.
func (c *workerCmd) Run(ctx context.Context, e env, k *kong.Context) error {
	if err := c.checkBudget(); err != nil {
		return fail(exitUsage, err)
	}
	if c.Budget != "" && c.RunName == "" {
		return fail(exitUsage, errors.New("--budget is that of a run: give --run as well"))
	}
	if err := c.check(); err != nil {
		return err
	}
	if c.PrintConfig {
		return c.print(e, k)
	}
	tuneMemory(c.MaxMemory, e.getenv)
	crew, err := c.assemble(ctx, e)
	if err != nil {
		return err
	}
	defer crew.leave()
	e.log.InfoContext(ctx, "worker started", "version", version(), "queue", c.Queue, "bucket", c.Bucket, "slots", c.Slots, "dashboard", cmp.Or(crew.watch.url, off))
	context.AfterFunc(ctx, func() {
		e.log.Info("draining", "reason", context.Cause(ctx), "longest", c.Drain.String(), "in_flight", crew.watch.meter.Counts().InFlight) //nolint:sloglint // ctx is done
	})
	err = crew.worker.Run(ctx)
	n := crew.watch.meter.Counts()
	if werr := crew.watch.end(ctx, outcomeOf(ctx, err)); werr != nil {
		e.log.ErrorContext(ctx, "report not written", "err", werr)
	}
	e.log.Info("worker stopped", "stored", n.Stored, "dead_lettered", n.Buried, "answered_before", n.Duplicate, //nolint:sloglint // ctx is done
		"released", n.Released, "refused", n.Refused, "repairs", n.Repairs, "extensions", n.Extensions, "cost_usd", n.Cost.USD, "unpriced_calls", n.Cost.Unknown, "held_back_by", crew.watch.heldBack())
	if errors.Is(err, worker.ErrParked) {
		return fail(exitFailed, fmt.Errorf("%w; the jobs that are left wait in the queue", err))
	}
	if err != nil {
		return fail(exitConfig, err)
	}
	if c.ExitWhenEmpty > 0 && ctx.Err() == nil {
		return c.conclude(ctx, e, crew.results, n)
	}
	return nil
}

// conclude says how the run ended, for whoever scheduled the worker. Of a run that
// nothing says the jobs of, this worker knows only what it has done itself.
func (c *workerCmd) conclude(ctx context.Context, e env, results *s3sink.Sink, n progress.Counts) error {
	if c.RunName != "" {
		r, err := account.Check(ctx, results, c.RunName, account.Options{})
		if !errors.Is(err, sink.ErrNoIndex) {
			return c.judge(e, &r, err)
		}
		fmt.Fprintf(e.stderr, "upwell: nothing in the bucket says what the jobs of run %s are: what this worker has done itself is all that it knows\n", c.RunName)
	}
	if n.Buried > 0 {
		return fail(exitFailed, fmt.Errorf("%d jobs were dead-lettered: upwell dead list says why", n.Buried))
	}
	return nil
}

// judge words the account of the run.
func (c *workerCmd) judge(e env, r *account.Report, err error) error {
	if err != nil {
		return fail(exitConfig, err)
	}
	said := fmt.Sprintf("run %s: %d of %d jobs answered, %d failed", c.RunName, r.Answered, r.Submitted, r.Failed)
	switch {
	case !r.Balanced():
		return fail(exitFailed, fmt.Errorf("%s; the queue is empty, and the account does not balance: upwell verify %s says what is missing or double", said, c.RunName))
	case r.Failed > 0:
		return fail(exitFailed, fmt.Errorf("%s: upwell dead list says why, and upwell dead redrive --where run=%s sends them back", said, c.RunName))
	}
	_, err = fmt.Fprintln(e.stdout, said)
	return err
}

// lastPoll is how long a receive waits when the worker is to exit once the queue is
// empty: two of them are what it takes to be sure. Where there is time, a twelfth of
// that does.
const lastPoll = 2 * time.Second

// A crew is a worker and what goes with it.
type crew struct {
	worker  *worker.Worker
	results *s3sink.Sink
	watch   *watching
	leave   func() // ends what accompanies the worker
}

// assemble makes a worker of the flags, and starts what accompanies it.
func (c *workerCmd) assemble(ctx context.Context, e env) (*crew, error) {
	conf, err := awsconf.Load(ctx, awsconf.Options{Profile: c.Profile, Connections: c.Slots, Log: e.log})
	if err != nil {
		return nil, fail(exitConfig, err)
	}
	endpoint, err := c.endpoint(ctx, e, c.Slots, func() (aws.Config, error) { return conf, nil })
	if err != nil {
		return nil, err
	}
	var poll time.Duration
	if c.ExitWhenEmpty > 0 {
		poll = max(lastPoll, c.ExitWhenEmpty/12)
	}
	queue, err := c.open(ctx, conf, e, poll)
	if err != nil {
		return nil, err
	}
	results, err := c.sink(ctx, conf)
	if err != nil {
		return nil, err
	}
	if err := c.setBudget(ctx, e, results, c.RunName); err != nil {
		return nil, err
	}
	learned := estimate.NewExperience()
	watch, err := c.listen(ctx, e, "worker", c.RunName, c.Queue, learned.Observe)
	if err != nil {
		return nil, err
	}
	cfg := c.config(&c.endpointFlags, endpoint.Regions(), e)
	cfg.Run, cfg.Drain, cfg.LookUp = c.RunName, c.Drain, c.LookUp
	cfg.ExitWhenEmpty, cfg.EmptyFor = c.ExitWhenEmpty > 0, c.ExitWhenEmpty
	cfg.Observe = watch.observe
	bucket, prefix := c.place()
	if cfg.Opener, err = c.opener(e, s3sink.NewClient(conf), bucket, prefix, c.RunName); err != nil {
		return nil, err
	}
	limits := c.limits(ctx, e, results)
	money := purse(results, e.log)
	cfg.Purse = money
	w, err := worker.New(queue, endpoint, results, limits, cfg)
	if err != nil {
		return nil, fail(exitUsage, err)
	}
	unwatch, err := watch.start(ctx, watched{worker: w, queue: queue, results: results})
	if err != nil {
		return nil, err
	}
	leave := alongside(ctx, e, results, limits, learned, money, c.Fleet, func(ctx context.Context) {
		protect.Keep(ctx, protect.Config{Agent: e.getenv("ECS_AGENT_URI"), Held: w.Held, Log: e.log})
	})
	return &crew{w, results, watch, func() { leave(); unwatch(); watch.leave(ctx) }}, nil
}

// print writes the settings in force, as --config takes them. There is no secret among
// them: those come from the environment alone, and only which there are is said.
func (c *workerCmd) print(e env, k *kong.Context) error {
	text, err := json.MarshalIndent(inForce(k), "", "  ")
	_, werr := fmt.Fprintln(e.stdout, string(text))
	apiKey, bearer := c.keyFrom(e.getenv)
	for _, secret := range []struct{ name, value string }{
		{"OPENAI_API_KEY", apiKey}, {"AWS_BEARER_TOKEN_BEDROCK", bearer}, {"UPWELL_HTTP_TOKEN", e.getenv("UPWELL_HTTP_TOKEN")},
	} {
		if secret.value != "" {
			fmt.Fprintf(e.stderr, "%s is set\n", secret.name)
		}
	}
	return errors.Join(err, werr)
}
