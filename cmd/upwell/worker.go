package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"upwell/cmd/internal/awsconf"
	"upwell/cmd/internal/progress"
	"upwell/worker"
)

// workerCmd is the daemon.
type workerCmd struct {
	queueFlags
	storageFlags
	awsFlags
	endpointFlags
	paceFlags

	Fleet         bool          `group:"Pace:" env:"UPWELL_FLEET" help:"Share the account's capacity with the other workers on this bucket that have this flag, through an object in it: equal parts, and no more refusals than one worker has."`
	DefaultRun    string        `default:"default" env:"UPWELL_DEFAULT_RUN" help:"Run of jobs that name none."`
	Drain         time.Duration `default:"85s" env:"UPWELL_DRAIN" help:"How long calls in flight may go on after SIGTERM. Give the platform's grace period 35s more."`
	LookUp        bool          `env:"UPWELL_LOOK_UP" help:"Look every job up in S3 before paying for it, not only those delivered before."`
	ExitWhenEmpty bool          `env:"UPWELL_EXIT_WHEN_EMPTY" help:"Exit once the queue holds nothing, for scheduled tasks."`
	PrintConfig   bool          `help:"Print the settings in force, and exit."`
}

// Run works until ctx is done.
func (c *workerCmd) Run(ctx context.Context, e env) error {
	if c.PrintConfig {
		return c.print(e)
	}
	tuneMemory(c.MaxMemory, e.getenv)
	w, meter, end, err := c.assemble(ctx, e)
	if err != nil {
		return err
	}
	defer end()
	e.log.InfoContext(ctx, "worker started", "version", version(), "queue", c.Queue, "bucket", c.Bucket, "slots", c.Slots)
	context.AfterFunc(ctx, func() {
		e.log.Info("draining", "reason", context.Cause(ctx), "longest", c.Drain.String(), "in_flight", meter.Counts().InFlight) //nolint:sloglint // ctx is done
	})
	err = w.Run(ctx)
	n := meter.Counts()
	e.log.Info("worker stopped", "stored", n.Stored, "dead_lettered", n.Buried, "answered_before", n.Duplicate, //nolint:sloglint // ctx is done
		"released", n.Released, "refused", n.Refused, "repairs", n.Repairs, "extensions", n.Extensions, "cost_usd", n.Cost.USD, "unpriced_calls", n.Cost.Unknown)
	if err != nil {
		return fail(exitConfig, err)
	}
	if c.ExitWhenEmpty && n.Buried > 0 {
		return fail(exitFailed, fmt.Errorf("%d jobs were dead-lettered: upwell dead list says why", n.Buried))
	}
	return nil
}

// lastPoll is how long a receive waits when the worker is to exit once the queue is
// empty: two of them are what it takes to be sure.
const lastPoll = 2 * time.Second

// assemble makes a worker of the flags, and starts what accompanies it until end.
func (c *workerCmd) assemble(ctx context.Context, e env) (w *worker.Worker, meter *progress.Meter, end func(), err error) {
	conf, err := awsconf.Load(ctx, awsconf.Options{Profile: c.Profile, Connections: c.Slots})
	if err != nil {
		return nil, nil, nil, fail(exitConfig, err)
	}
	endpoint, err := c.endpoint(ctx, e, c.Slots, func() (aws.Config, error) { return conf, nil })
	if err != nil {
		return nil, nil, nil, err
	}
	var poll time.Duration
	if c.ExitWhenEmpty {
		poll = lastPoll
	}
	queue, err := c.open(ctx, conf, e, poll)
	if err != nil {
		return nil, nil, nil, err
	}
	results, err := c.sink(ctx, conf)
	if err != nil {
		return nil, nil, nil, err
	}
	meter = progress.NewMeter()
	cfg := c.config(&c.endpointFlags, endpoint.Regions(), e)
	cfg.Run, cfg.Drain, cfg.LookUp, cfg.ExitWhenEmpty = c.DefaultRun, c.Drain, c.LookUp, c.ExitWhenEmpty
	cfg.Observe = meter.Observe
	limits := c.limits(ctx, e, results)
	if w, err = worker.New(queue, endpoint, results, limits, cfg); err != nil {
		return nil, nil, nil, fail(exitUsage, err)
	}
	return w, meter, alongside(ctx, e, results, limits, c.Fleet), nil
}

// print writes the settings in force. There is no secret among them: keys come
// from the environment alone, and only whether they are there is said.
func (c *workerCmd) print(e env) error {
	apiKey, bearer := c.keyFrom(e.getenv)
	text, err := json.MarshalIndent(struct {
		Queue, DeadQueue, Bucket, Prefix, Profile string
		Endpoint                                  endpointFlags
		Pace                                      paceFlags
		DefaultRun, Drain                         string
		LookUp, ExitWhenEmpty, Fleet              bool
		APIKeySet, BearerTokenSet                 bool
	}{
		c.Queue, c.DeadQueue, c.Bucket, c.Prefix, c.Profile, c.endpointFlags, c.paceFlags,
		c.DefaultRun, c.Drain.String(), c.LookUp, c.ExitWhenEmpty, c.Fleet, apiKey != "", bearer != "",
	}, "", "  ")
	_, werr := fmt.Fprintln(e.stdout, string(text))
	return errors.Join(err, werr)
}
