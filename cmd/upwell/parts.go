package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"upwell/cmd/internal/awsconf"
	"upwell/cmd/internal/budget"
	"upwell/cmd/internal/estimate"
	"upwell/infra/local"
	"upwell/jobs/sqsqueue"
	"upwell/sink/s3sink"
	"upwell/throttle"
	"upwell/throttle/fleet"
	"upwell/worker"
	"upwell/worker/mantle"
)

// endpointFlags say where calls go, as whom, and what they ask for.
type endpointFlags struct {
	Region          []string      `group:"Endpoint:" placeholder:"REGION" env:"UPWELL_REGION" help:"Regions to call, each with its own capacity. Default: AWS_REGION, or us-west-2."`
	AllowRegion     []string      `group:"Endpoint:" placeholder:"REGION" env:"UPWELL_ALLOW_REGION" help:"Regions in which data may be processed; no other is called, whatever --region and jobs say. Default: all."`
	BaseURL         string        `group:"Endpoint:" name:"base-url" placeholder:"URL" env:"UPWELL_BASE_URL,OPENAI_BASE_URL,AWS_BEDROCK_BASE_URL" help:"Call this endpoint instead, up to and including its version."`
	Auth            string        `group:"Endpoint:" enum:"auto,key,short-term,sigv4,none" default:"auto" env:"UPWELL_AUTH" help:"auto, key (OPENAI_API_KEY or AWS_BEARER_TOKEN_BEDROCK), short-term (keys made from AWS credentials), sigv4, or none."`
	BasePath        []string      `group:"Endpoint:" placeholder:"MODEL=PATH" env:"UPWELL_BASE_PATH" help:"Base path of the models whose name begins so, such as xai.=/openai/v1."`
	Tier            []string      `group:"Endpoint:" enum:"${tiers}" default:"default" env:"UPWELL_TIER" help:"Service tiers of jobs that name none: flex, default, priority, reserved."`
	MaxOutputTokens int           `group:"Endpoint:" default:"0" env:"UPWELL_MAX_OUTPUT_TOKENS" help:"Output limit of jobs that set none, in tokens. Set it where the model has a quota: without one its maximum is reserved."`
	OutputCeiling   int           `group:"Endpoint:" default:"0" env:"UPWELL_OUTPUT_CEILING" help:"Output tokens that a job may be given at most, when its answer was truncated and is tried once more with four times its limit. 0: 32768."`
	Repairs         int           `group:"Endpoint:" default:"1" env:"UPWELL_REPAIRS" help:"How often a model is asked to mend an answer that is against its schema: 0 to 3."`
	Redact          bool          `group:"Endpoint:" env:"UPWELL_REDACT" help:"Keep what the endpoint, the model and bad messages say out of errors and logs: it may quote prompts."`
	Prices          string        `group:"Endpoint:" type:"existingfile" placeholder:"FILE" env:"UPWELL_PRICES" help:"JSON file of prices, by model and tier, that come before the built-in ones; see worker/mantle/prices.json for the form."`
	AttemptTimeout  time.Duration `group:"Endpoint:" default:"15m" env:"UPWELL_ATTEMPT_TIMEOUT" help:"Longest that one call may take; a call given up on is paid for all the same."`
	HTTP1           bool          `group:"Endpoint:" name:"http1" env:"UPWELL_HTTP1" help:"Use HTTP/1.1, a connection for each call, where HTTP/2 is offered."`
}

// paceFlags say how much is done at once, and how fast.
type paceFlags struct {
	Slots       int           `group:"Pace:" default:"256" env:"UPWELL_SLOTS" help:"Calls in flight at most."`
	MaxMemory   int           `group:"Pace:" name:"max-held-mib" default:"64" env:"UPWELL_MAX_HELD_MIB" help:"MiB of prompts held at most."`
	StartRate   float64       `group:"Pace:" default:"0" env:"UPWELL_START_RATE" help:"Calls per second to begin with. 0: half the rate that an earlier worker found, or 5."`
	MaxRate     float64       `group:"Pace:" default:"0" env:"UPWELL_MAX_RATE" help:"Calls per second at most, in each lane; 0 for no bound."`
	MaxInFlight int           `group:"Pace:" default:"0" env:"UPWELL_MAX_IN_FLIGHT" help:"Calls in flight at most in each lane (Region, model and tier); 0 for no bound but --slots."`
	GuidedRamp  bool          `group:"Pace:" env:"UPWELL_GUIDED_RAMP" help:"Follow the ramp that AWS publishes instead of finding the capacity: halve on a refusal, hold for 15 minutes, raise by half."`
	Shared      bool          `group:"Pace:" env:"UPWELL_SHARED" help:"Others use the same account, and --fleet does not know of them: end up with an equal share, at the price of more refusals."`
	Escalate    time.Duration `group:"Pace:" default:"0" env:"UPWELL_ESCALATE" help:"How long before its deadline a job that finds no capacity moves up to its next tier. 0: as long as --attempt-timeout."`
	MaxAttempts int           `group:"Pace:" default:"5" env:"UPWELL_MAX_ATTEMPTS" help:"Attempts that may fail before a job is given up. A refusal for lack of capacity is not an attempt."`
}

// keyFrom returns the keys in the environment. OPENAI_API_KEY goes to the
// endpoint that OPENAI_BASE_URL or --base-url names; without one it is used only
// if it is a Bedrock key, as it might belong to somebody else.
func (f *endpointFlags) keyFrom(getenv func(string) string) (apiKey, bearer string) {
	apiKey = getenv("OPENAI_API_KEY")
	if f.BaseURL == "" && !strings.HasPrefix(apiKey, "bedrock-api-key-") && !strings.HasPrefix(apiKey, "ABSK") {
		apiKey = ""
	}
	return apiKey, getenv("AWS_BEARER_TOKEN_BEDROCK")
}

// endpoint returns the client that the flags describe. load is called only if
// AWS credentials or a Region are needed.
func (f *endpointFlags) endpoint(ctx context.Context, e env, inFlight int, load func() (aws.Config, error)) (*mantle.Client, error) {
	cfg, err := f.mantle(e, inFlight, load)
	if err != nil {
		return nil, err
	}
	c, err := mantle.New(ctx, cfg)
	if errors.Is(err, mantle.ErrCredentials) && f.Auth == "auto" {
		err = fmt.Errorf("%w; or set AWS_BEARER_TOKEN_BEDROCK to a Bedrock key, or OPENAI_API_KEY and OPENAI_BASE_URL", err)
	}
	return c, fail(exitConfig, err)
}

// mantle returns the client's settings.
func (f *endpointFlags) mantle(e env, inFlight int, load func() (aws.Config, error)) (mantle.Config, error) {
	cfg := mantle.Config{
		Regions: f.Region, BaseURL: f.BaseURL, MaxOutputTokens: f.MaxOutputTokens,
		MaxInFlight: inFlight, HTTP1: f.HTTP1, Redact: f.Redact, Paths: make(map[string]string),
	}
	for _, p := range f.BasePath {
		model, path, ok := strings.Cut(p, "=")
		if !ok {
			return cfg, fail(exitUsage, fmt.Errorf("--base-path %q: want MODEL=PATH", p))
		}
		cfg.Paths[model] = path
	}
	if f.Prices != "" {
		var err error
		if cfg.Prices, err = readPrices(f.Prices); err != nil {
			return cfg, fail(exitUsage, err)
		}
	}
	cfg.APIKey, cfg.BearerToken = f.keyFrom(e.getenv)
	return cfg, f.credentials(&cfg, load)
}

// credentials fills in who calls, and where if nobody has said.
func (f *endpointFlags) credentials(cfg *mantle.Config, load func() (aws.Config, error)) error {
	cfg.Credentials = mantle.Credentials(f.Auth)
	keyed := cfg.APIKey != "" || cfg.BearerToken != ""
	if f.Auth == "auto" && !keyed && cfg.BaseURL != "" && !strings.Contains(cfg.BaseURL, ".amazonaws.com") && !strings.Contains(cfg.BaseURL, ".api.aws") {
		cfg.Credentials = mantle.Anonymous // somebody else's endpoint, which AWS credentials are not for
		return nil
	}
	needsAWS := f.Auth == "short-term" || f.Auth == "sigv4" || f.Auth == "auto" && !keyed
	if !needsAWS && (len(cfg.Regions) > 0 || cfg.BaseURL != "") {
		return nil
	}
	conf, err := load()
	if err != nil {
		return fail(exitConfig, err)
	}
	if needsAWS {
		cfg.AWS = conf.Credentials
	}
	if len(cfg.Regions) == 0 && cfg.BaseURL == "" && conf.Region != "" {
		cfg.Regions = []string{conf.Region}
	}
	return nil
}

func readPrices(path string) (mantle.PriceList, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return mantle.PriceList{}, err
	}
	prices, err := mantle.ParsePrices(text)
	if err != nil {
		err = fmt.Errorf("%s: %w", path, err)
	}
	return prices, err
}

// check names the setting that makes no sense. Other settings than these have limits
// where they are used.
func (f *paceFlags) check() error {
	for _, s := range []struct {
		flag         string
		value, least float64
	}{
		{"--slots", float64(f.Slots), 1},
		{"--max-held-mib", float64(f.MaxMemory), 1},
		{"--start-rate", f.StartRate, 0},
		{"--max-rate", f.MaxRate, 0},
		{"--max-in-flight", float64(f.MaxInFlight), 0},
		{"--escalate", f.Escalate.Seconds(), 0},
		{"--max-attempts", float64(f.MaxAttempts), 1},
	} {
		if !(s.value >= s.least) || math.IsInf(s.value, 0) {
			return fail(exitUsage, fmt.Errorf("%s %v: want %v or more", s.flag, s.value, s.least))
		}
	}
	return nil
}

// limits returns the limiters of all lanes. They begin at the levels that an earlier
// worker left in the sink, if one did.
func (f *paceFlags) limits(ctx context.Context, e env, results *s3sink.Sink) *throttle.Set {
	var levels map[throttle.Lane]throttle.Level
	if f.StartRate == 0 && !f.GuidedRamp {
		var err error
		if levels, err = fleet.Recall(ctx, results.Board(levelsBoard)); err != nil {
			e.log.WarnContext(ctx, "levels not recalled", "err", err)
		}
	}
	return throttle.NewSet(func(lane throttle.Lane) throttle.Config {
		return throttle.Config{
			StartRate: f.StartRate, MaxRate: f.MaxRate, MaxInFlight: f.MaxInFlight,
			Level: levels[lane], Shared: f.Shared, Guided: f.GuidedRamp,
		}
	})
}

// Names of the objects that workers keep beside the runs.
const (
	levelsBoard = "levels"
	fleetBoard  = "fleet"
)

// alongside runs what accompanies a worker: keeping its levels and what it learns from
// answers, its part in budgets, and in a fleet if there is one, and more. It returns when the
// worker may start, and a function that ends all of it.
func alongside(ctx context.Context, e env, results *s3sink.Sink, limits *throttle.Set, learned *estimate.Experience, money *budget.Purse, inFleet bool, more ...func(context.Context)) (end func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx)) // a drain is still work
	var running sync.WaitGroup
	running.Go(func() { fleet.Keep(ctx, results.Board(levelsBoard), limits, e.log) })
	running.Go(func() { learned.Keep(ctx, results.Board(experienceBoard), e.log) })
	running.Go(func() { money.Run(ctx) })
	for _, accompany := range more {
		running.Go(func() { accompany(ctx) })
	}
	if inFleet {
		m := fleet.New(rand.Text(), results.Board(fleetBoard), limits, e.log)
		m.Exchange(ctx, time.Now()) // or it would begin as if it were alone
		running.Go(func() { m.Run(ctx) })
	}
	return func() { cancel(); running.Wait() }
}

// config returns the worker's settings that both flags make.
func (f *paceFlags) config(ep *endpointFlags, regions []string, e env) worker.Config {
	return worker.Config{
		Regions: regions, Allow: ep.AllowRegion, Tiers: ep.Tier, Escalate: f.Escalate,
		Slots: f.Slots, Bytes: int64(f.MaxMemory) << 20,
		MaxAttempts: f.MaxAttempts, AttemptTimeout: ep.AttemptTimeout, Log: e.log,
		Repairs: cmp.Or(ep.Repairs, -1), OutputCeiling: ep.OutputCeiling, Redact: ep.Redact, Version: version(),
	}
}

// storageFlags say where queue and results are.
type storageFlags struct {
	Bucket string `group:"Storage:" required:"" placeholder:"BUCKET" env:"UPWELL_BUCKET" help:"S3 bucket for results, or s3://bucket/prefix."`
	Prefix string `group:"Storage:" placeholder:"PREFIX" env:"UPWELL_PREFIX" help:"Prefix of all keys in the bucket."`
}

type queueFlags struct {
	Queue     string `group:"Storage:" required:"" placeholder:"QUEUE" env:"UPWELL_QUEUE" help:"SQS queue of jobs, by name or URL."`
	DeadQueue string `group:"Storage:" placeholder:"QUEUE" env:"UPWELL_DEAD_QUEUE" help:"Dead-letter queue. Default: the target of the queue's redrive policy."`
}

// sink returns the sink, after checking that it can be reached.
func (f *storageFlags) sink(ctx context.Context, conf aws.Config) (*s3sink.Sink, error) {
	bucket, prefix := f.place()
	s := s3sink.New(s3sink.NewClient(conf), bucket, prefix)
	return s, fail(exitConfig, s.Check(ctx))
}

// place returns the bucket and the prefix, which may be given together.
func (f *storageFlags) place() (bucket, prefix string) {
	bucket, prefix = f.Bucket, f.Prefix
	if rest, ok := strings.CutPrefix(bucket, "s3://"); ok {
		var path string
		bucket, path, _ = strings.Cut(rest, "/")
		prefix = strings.Trim(path+"/"+prefix, "/")
	}
	return bucket, prefix
}

// open finds the queue. poll is how long a receive waits; 0 means as long as SQS
// lets it.
func (f *queueFlags) open(ctx context.Context, conf aws.Config, e env, poll time.Duration) (*sqsqueue.Queue, error) {
	q, err := sqsqueue.Open(ctx, sqsqueue.NewClient(conf), sqsqueue.Config{Queue: f.Queue, Dead: f.DeadQueue, Poll: poll, Log: e.log})
	return q, fail(exitConfig, err)
}

// awsFlags choose AWS's own configuration.
type awsFlags struct {
	Profile string `group:"Storage:" placeholder:"NAME" help:"AWS profile. Default: AWS_PROFILE."`
}

// localAWS is the configuration of clients that talk to a local stack.
func localAWS(connections int) aws.Config {
	return aws.Config{
		Region: local.Region, HTTPClient: awsconf.Client(connections),
		Credentials: credentials.NewStaticCredentialsProvider(local.Key, local.Secret, ""),
	}
}

// Names of what a local stack has from the start.
const (
	localQueue  = "upwell-jobs"
	localDead   = "upwell-jobs-dead"
	localBucket = "upwell"
)

// furnish makes the queues and the bucket, and returns clients for them.
func furnish(ctx context.Context, stack *local.Stack, connections int) (*sqs.Client, *s3.Client, error) {
	conf := localAWS(connections)
	queues := sqsqueue.NewClient(conf, func(o *sqs.Options) { o.BaseEndpoint = &stack.SQSURL })
	objects := s3sink.NewClient(conf, func(o *s3.Options) { o.BaseEndpoint = &stack.S3URL })
	dead, err := queues.CreateQueue(ctx, &sqs.CreateQueueInput{
		QueueName: aws.String(localDead), Attributes: map[string]string{"MessageRetentionPeriod": "1209600"}, // longer than the queue's
	})
	if err != nil {
		return nil, nil, err
	}
	attrs, err := queues.GetQueueAttributes(ctx, &sqs.GetQueueAttributesInput{QueueUrl: dead.QueueUrl, AttributeNames: []types.QueueAttributeName{types.QueueAttributeNameQueueArn}})
	if err != nil {
		return nil, nil, err
	}
	policy := fmt.Sprintf(`{"deadLetterTargetArn":%q,"maxReceiveCount":100}`, attrs.Attributes["QueueArn"])
	_, err = queues.CreateQueue(ctx, &sqs.CreateQueueInput{
		QueueName: aws.String(localQueue), Attributes: map[string]string{"RedrivePolicy": policy, "VisibilityTimeout": "120"},
	})
	if err != nil {
		return nil, nil, err
	}
	if _, err := objects.HeadBucket(ctx, &s3.HeadBucketInput{Bucket: aws.String(localBucket)}); err == nil {
		return queues, objects, nil
	}
	_, err = objects.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: aws.String(localBucket)})
	return queues, objects, err
}
