package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/aws/aws-sdk-go-v2/service/s3"

	"upwell/cmd/internal/awsconf"
	"upwell/infra/local"
	"upwell/jobs/sqsqueue"
	"upwell/sink/s3sink"
	"upwell/sink/s3sink/s3sim"
)

// readFlags say where a run that is to be read was stored: in a bucket, or in the
// folder of an upwell run.
type readFlags struct {
	Bucket string `group:"Storage:" placeholder:"BUCKET" env:"UPWELL_BUCKET" help:"S3 bucket with the results, or s3://bucket/prefix."`
	Prefix string `group:"Storage:" placeholder:"PREFIX" env:"UPWELL_PREFIX" help:"Prefix of all keys in the bucket."`
	Dir    string `group:"Storage:" name:"dir" type:"path" placeholder:"DIR" help:"Folder of an upwell run, in the place of bucket and queue."`
	Queue  string `group:"Storage:" placeholder:"QUEUE" env:"UPWELL_QUEUE" help:"SQS queue of jobs, by name or URL, to count what waits there."`
	awsFlags
}

// A reading is where the results of runs are read from.
type reading struct {
	*s3sink.Sink
	queue *sqsqueue.Queue // nil for none
	close func()
}

// open finds what the flags say, for so many requests at a time. Close it when
// done.
func (f *readFlags) open(ctx context.Context, e env, connections int) (reading, error) {
	switch {
	case f.Dir != "":
		return f.openFolder(ctx, e, connections)
	case f.Bucket == "":
		return reading{}, fail(exitUsage, errors.New("where are the results? give --bucket, or --dir with the folder of an upwell run"))
	}
	conf, err := awsconf.Load(ctx, awsconf.Options{Profile: f.Profile, Connections: connections, Log: e.log})
	if err != nil {
		return reading{}, fail(exitConfig, err)
	}
	r := reading{close: func() {}}
	storage := storageFlags{Bucket: f.Bucket, Prefix: f.Prefix}
	if r.Sink, err = storage.sink(ctx, conf); err != nil || f.Queue == "" {
		return r, err
	}
	r.queue, err = sqsqueue.Open(ctx, sqsqueue.NewClient(conf), sqsqueue.Config{Queue: f.Queue, Dead: f.Queue, Log: e.log})
	return r, fail(exitConfig, err)
}

// openFolder serves the objects of an upwell run from this process, and keeps
// other processes out of the folder meanwhile.
func (f *readFlags) openFolder(ctx context.Context, e env, connections int) (reading, error) {
	objects := filepath.Join(f.Dir, objectsDir)
	if info, err := os.Stat(filepath.Join(objects, localBucket)); err != nil || !info.IsDir() {
		return reading{}, fail(exitUsage, fmt.Errorf("%s is not the folder of an upwell run: give the one that its -o named, or --bucket", f.Dir))
	}
	unlock, err := lockFolder(f.Dir)
	if err != nil {
		return reading{}, err
	}
	stack, err := local.Start(ctx, local.Config{S3: s3sim.Config{Dir: objects, Log: e.log}})
	if err != nil {
		unlock()
		return reading{}, fail(exitConfig, err)
	}
	client := s3sink.NewClient(localAWS(connections), func(o *s3.Options) { o.BaseEndpoint = &stack.S3URL })
	return reading{
		Sink:  s3sink.New(client, localBucket, ""),
		close: func() { _ = stack.Close(); unlock() },
	}, nil
}
