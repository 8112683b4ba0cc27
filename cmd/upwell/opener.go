package main

import (
	"errors"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/service/s3"

	"upwell/cmd/internal/opener"
	"upwell/cmd/internal/prompt"
)

// openerFlags say what becomes of messages that refer to objects in S3.
type openerFlags struct {
	Template       string   `group:"Messages:" type:"existingfile" placeholder:"FILE" env:"UPWELL_TEMPLATE" help:"Template that makes a job of each document that S3 tells the queue of: .txt .md .html .docx .pdf .png .jpg."`
	ReadFrom       []string `group:"Messages:" placeholder:"S3-URL" env:"UPWELL_READ_FROM" help:"Place such as s3://bucket/prefix that messages may refer to: documents, payloads of the SQS Extended Client, bodies. Give it for each. The worker's own runs may always be read."`
	MaxObjectMiB   int      `group:"Messages:" name:"max-object-mib" default:"32" env:"UPWELL_MAX_OBJECT_MIB" help:"Largest object that is read, in MiB."`
	DeletePayloads bool     `group:"Messages:" env:"UPWELL_DELETE_PAYLOADS" help:"Delete the payload of an SQS Extended Client from S3 once its job has a result. If such a message comes to another worker a second time, as SQS may have it, that one dead-letters it."`
}

// opener returns what the flags describe, for a worker with that storage.
func (f *openerFlags) opener(e env, objects *s3.Client, bucket, prefix, run string) (*opener.Opener, error) {
	if f.MaxObjectMiB < 1 {
		return nil, fail(exitUsage, fmt.Errorf("--max-object-mib %d, want at least 1", f.MaxObjectMiB))
	}
	cfg := opener.Config{
		Client: objects, Bucket: bucket, Prefix: prefix, Run: run,
		MaxObject: int64(f.MaxObjectMiB) << 20, DeletePayloads: f.DeletePayloads, Log: e.log,
	}
	for _, text := range f.ReadFrom {
		place, err := opener.ParsePlace(text)
		if err != nil {
			return nil, fail(exitUsage, fmt.Errorf("--read-from %w", err))
		}
		cfg.ReadFrom = append(cfg.ReadFrom, place)
	}
	if f.Template != "" {
		if len(f.ReadFrom) == 0 {
			return nil, fail(exitUsage, errors.New("--template is for documents that S3 tells of: say with --read-from where they may lie"))
		}
		var err error
		if cfg.Template, err = prompt.Open(f.Template); err != nil {
			return nil, fail(exitUsage, err)
		}
	}
	return opener.New(cfg), nil
}
