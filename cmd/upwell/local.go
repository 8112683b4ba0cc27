package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"upwell/infra/local"
	"upwell/jobs/sqsqueue/sqssim"
	"upwell/sink/s3sink/s3sim"
	"upwell/worker/mantle/mantlesim"
	"upwell/worker/mantle/mantlesim/capacity"
)

// localCmd serves the simulators on loopback.
type localCmd struct {
	Dir        string        `type:"path" default:"upwell-local" placeholder:"DIR" help:"Folder for the objects of S3, one plain file each."`
	SQSAddr    string        `name:"sqs" default:"127.0.0.1:9324" placeholder:"ADDR" help:"Address of SQS; port 0 takes a free one."`
	S3Addr     string        `name:"s3" default:"127.0.0.1:9000" placeholder:"ADDR" help:"Address of S3."`
	MantleAddr string        `name:"mantle" default:"127.0.0.1:9400" placeholder:"ADDR" help:"Address of the simulated endpoint."`
	Capacity   string        `placeholder:"SCRIPT" help:"Hidden capacity over time, such as '0s calls=20; 30s calls=40 conc=100 tpm=2e6'. Default: no limit."`
	Latency    time.Duration `default:"800ms" help:"Median time that an answer takes."`
	Sigma      float64       `default:"0.5" help:"Spread of that time: sigma of its lognormal distribution."`
	Faults     string        `type:"existingfile" placeholder:"FILE" help:"JSON list of scripted faults of the endpoint."`
	Key        []string      `name:"accept-key" placeholder:"KEY" help:"API keys that the endpoint accepts. Default: any."`
	SQSLatency time.Duration `name:"sqs-latency" help:"Added to each request to SQS."`
	S3Latency  time.Duration `name:"s3-latency" help:"Added to each request to S3."`
	Seed       uint64        `help:"Seed of all that is drawn by lot."`
}

// Run serves until ctx is done.
func (c *localCmd) Run(ctx context.Context, e env) error {
	cfg, err := c.config()
	if err != nil {
		return fail(exitUsage, err)
	}
	stack, err := local.Start(ctx, cfg)
	if err != nil {
		return fail(exitConfig, fmt.Errorf("%w: is a port taken? port 0 takes a free one", err))
	}
	defer stack.Close()
	if _, _, err := furnish(ctx, stack, 4); err != nil {
		return fail(exitConfig, err)
	}
	key := local.Key
	if len(c.Key) > 0 {
		key = c.Key[0]
	}
	fmt.Fprintf(e.stdout, `# in another shell, for upwell and any AWS client:
export AWS_ENDPOINT_URL_SQS=%s AWS_ENDPOINT_URL_S3=%s OPENAI_BASE_URL=%s/openai/v1
export AWS_REGION=%s AWS_ACCESS_KEY_ID=%s AWS_SECRET_ACCESS_KEY=%s OPENAI_API_KEY=%s
export UPWELL_QUEUE=%s UPWELL_BUCKET=%s
# then, for example: upwell submit FILE.jsonl && upwell worker
# what the endpoint was asked and billed: %s/_sim/counts and /_sim/ledger
`, stack.SQSURL, stack.S3URL, stack.MantleURL, local.Region, local.Key, local.Secret, key, localQueue, localBucket, stack.MantleURL)
	<-ctx.Done()
	return nil
}

func (c *localCmd) config() (local.Config, error) {
	sim := &mantlesim.Config{Seed: c.Seed, Latency: mantlesim.Latency{Median: c.Latency, Sigma: c.Sigma}}
	if len(c.Key) > 0 {
		sim.Keys = c.Key
	}
	var err error
	if sim.Capacity, err = capacity.ParseScript(c.Capacity); err != nil {
		return local.Config{}, fmt.Errorf("--capacity: %w", err)
	}
	if c.Faults != "" {
		text, err := os.ReadFile(c.Faults)
		if err != nil {
			return local.Config{}, err
		}
		err = json.Unmarshal(text, &sim.Faults)
		if err == nil {
			err = mantlesim.CheckFaults(sim.Faults)
		}
		if err != nil {
			return local.Config{}, fmt.Errorf("%s: %w", c.Faults, err)
		}
	}
	return local.Config{
		SQS: sqssim.Config{Region: local.Region, Latency: c.SQSLatency}, S3: s3sim.Config{Dir: c.Dir, Latency: c.S3Latency},
		Mantle: sim, SQSAddr: c.SQSAddr, S3Addr: c.S3Addr, MantleAddr: c.MantleAddr,
	}, nil
}
