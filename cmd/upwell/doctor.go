package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"upwell/cmd/internal/awsconf"
	"upwell/cmd/internal/doctor"
)

// doctorCmd examines what a worker needs.
type doctorCmd struct {
	Queue     string `group:"Storage:" placeholder:"QUEUE" env:"UPWELL_QUEUE" help:"SQS queue of jobs to examine, by name or URL."`
	DeadQueue string `group:"Storage:" placeholder:"QUEUE" env:"UPWELL_DEAD_QUEUE" help:"Dead-letter queue. Default: the target of the queue's redrive policy."`
	Bucket    string `group:"Storage:" placeholder:"BUCKET" env:"UPWELL_BUCKET" help:"S3 bucket for results to examine, or s3://bucket/prefix."`
	Prefix    string `group:"Storage:" placeholder:"PREFIX" env:"UPWELL_PREFIX" help:"Prefix of all keys in the bucket."`
	awsFlags
	endpointFlags

	Model       string        `default:"xai.grok-4.3" placeholder:"MODEL" help:"Model that is to answer: xai.grok-4.3."`
	NoCall      bool          `help:"Do not call the model, which costs some thousandths of a cent."`
	CallTimeout time.Duration `default:"1m" help:"Longest that the model may take to answer."`
	JSON        bool          `name:"json" help:"Print a JSON list of {check, status, found, fix}; the status is ok, warning, failure or skipped."`
}

// Run examines, and fails if a worker would not work.
func (c *doctorCmd) Run(ctx context.Context, e env) error {
	cfg, err := c.config(ctx, e)
	if err != nil {
		return err
	}
	findings := doctor.Examine(ctx, cfg)
	if ctx.Err() != nil {
		return &failure{code: exitInterrupted}
	}
	if err := c.print(e, findings); err != nil {
		return err
	}
	if doctor.Count(findings, doctor.Failure) > 0 {
		return &failure{code: exitConfig}
	}
	return nil
}

// config says what to examine. What is wrong with the environment is the doctor's to
// find; an error is that of the command line.
func (c *doctorCmd) config(ctx context.Context, e env) (doctor.Config, error) {
	conf, awsErr := awsconf.Load(ctx, awsconf.Options{Profile: c.Profile, Log: e.log})
	settings, err := c.mantle(e, 0, func() (aws.Config, error) { return conf, awsErr })
	if f, ok := errors.AsType[*failure](err); ok && f.code == exitUsage {
		return doctor.Config{}, err
	}
	if len(c.AllowRegion) > 0 && len(settings.Regions) > 0 {
		settings.Regions = slices.DeleteFunc(slices.Clone(settings.Regions), func(r string) bool { return !slices.Contains(c.AllowRegion, r) })
		if len(settings.Regions) == 0 {
			return doctor.Config{}, fail(exitUsage, fmt.Errorf("--allow-region %s leaves none of the Regions to call: name one of them", strings.Join(c.AllowRegion, ",")))
		}
	}
	storage := storageFlags{Bucket: c.Bucket, Prefix: c.Prefix}
	bucket, prefix := storage.place()
	return doctor.Config{
		AWS: conf, AWSErr: awsErr, Profile: c.Profile, Mantle: settings, MantleErr: err,
		Model: c.Model, Tiers: c.Tier, Queue: c.Queue, Dead: c.DeadQueue, Bucket: bucket, Prefix: prefix,
		NoCall: c.NoCall, CallTimeout: c.CallTimeout, Getenv: e.getenv,
	}, nil
}

func (c *doctorCmd) print(e env, findings []doctor.Finding) error {
	if !c.JSON {
		return doctor.Print(e.stdout, findings)
	}
	return printJSON(e.stdout, findings)
}
