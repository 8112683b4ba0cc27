package s3sink

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"upwell/jobs"
	"upwell/jobs/sdkerr"
	"upwell/sink"
)

// ErrOvertaken is the error of writing a checkpoint that somebody else has written
// since: two are submitting one run.
var ErrOvertaken = errors.New("another process is submitting this run")

// Checkpoint returns the checkpoint of a run, and its version for
// [Sink.PutCheckpoint]. When there is none, the error wraps [io/fs.ErrNotExist].
func (s *Sink) Checkpoint(ctx context.Context, run string) (c sink.Checkpoint, version string, err error) {
	key := sink.CheckpointKey(s.prefix, run)
	b, version, err := s.get(ctx, key)
	if err == nil {
		c, err = sink.DecodeCheckpoint(b)
	}
	return c, version, s.wrap("get", key, err)
}

// PutCheckpoint stores a checkpoint in the place of that version, or where there is
// none when it is empty, and returns its own. When there is another, the error wraps
// [ErrOvertaken]. It tries for as long as [Sink.Put] does, and recognises a write
// whose answer was lost.
func (s *Sink) PutCheckpoint(ctx context.Context, c sink.Checkpoint, version string) (string, error) {
	body, err := c.Encode()
	if err != nil {
		return "", fmt.Errorf("s3 put: %w", err)
	}
	o := newObject(sink.CheckpointKey(s.prefix, c.Run), body)
	stored := ""
	err = persist(ctx, func(ctx context.Context, _ int) (err error) {
		stored, err = s.putVersion(ctx, o, version)
		return err
	})
	if err == nil && stored == "" {
		err = ErrOvertaken
	}
	return stored, s.wrap("put", o.key, err)
}

// putVersion makes one round of the tries to put o in the place of a version, and
// returns its own, or nothing when there is another.
func (s *Sink) putVersion(ctx context.Context, o object, version string) (string, error) {
	in := s.input(o)
	if version == "" {
		in.IfNoneMatch = new("*")
	} else {
		in.IfMatch = &version
	}
	out, err := s.client.PutObject(ctx, in)
	switch {
	case err == nil:
		return aws.ToString(out.ETag), nil
	case sdkerr.Code(err) == "NoSuchKey": // removed
		return "", nil
	case status(err) != http.StatusPreconditionFailed:
		return "", s.explain("s3:PutObject", err)
	}
	head, err := s.client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &s.bucket, Key: &o.key})
	switch {
	case status(err) == http.StatusNotFound:
		return "", nil
	case err != nil:
		return "", s.explain("s3:GetObject", err)
	case head.Metadata[sumKey] != o.hex():
		return "", nil
	}
	return aws.ToString(head.ETag), nil
}

// PutJob stores a job, as [jobs.Parse] reads it, that a message has no room for, in
// the place of what is there, and returns its s3 URL: see [sink.JobKey]. It tries for
// as long as [Sink.Put] does.
func (s *Sink) PutJob(ctx context.Context, k jobs.Key, text []byte) (ref string, err error) {
	o := newObject(sink.JobKey(s.prefix, k), text)
	return s.uri(o.key), s.replace(ctx, o)
}
