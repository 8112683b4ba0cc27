package s3sink

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"iter"
	"net/http"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"upwell/jobs"
	"upwell/sink"
)

// Has reports whether the job has a result. Error lines do not count. Unlike
// the writing methods it gives up after half a minute of trouble.
func (s *Sink) Has(ctx context.Context, k jobs.Key) (bool, error) {
	key := sink.Results.Key(s.prefix, k)
	_, err := s.client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &s.bucket, Key: &key})
	if status(err) == http.StatusNotFound {
		return false, nil
	}
	return err == nil, s.wrap("head", key, s.explain("s3:GetObject", err))
}

// Failure returns the error line of the job, and whether it has one. One that is
// damaged says nothing, and counts as none.
func (s *Sink) Failure(ctx context.Context, k jobs.Key) (r jobs.Result, ok bool, err error) {
	r, err = s.Read(ctx, sink.Errors, k)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, sink.ErrLine) {
		return jobs.Result{}, false, nil
	}
	return r, err == nil, err
}

// Schema returns the JSON Schema of that name in the run's manifest, and whether
// there is one.
func (s *Sink) Schema(ctx context.Context, run, name string) (text json.RawMessage, ok bool, err error) {
	m, err := s.Manifest(ctx, run)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	text, ok = m.Schemas[name]
	return text, ok && err == nil, err
}

// Read returns the stored line of a job. When there is none, the error wraps
// [fs.ErrNotExist].
func (s *Sink) Read(ctx context.Context, kind sink.Kind, k jobs.Key) (jobs.Result, error) {
	return s.line(ctx, kind.Key(s.prefix, k))
}

// ReadObject returns the line that a listing found.
func (s *Sink) ReadObject(ctx context.Context, o Object) (jobs.Result, error) {
	return s.line(ctx, o.Path)
}

func (s *Sink) line(ctx context.Context, key string) (jobs.Result, error) {
	b, err := s.raw(ctx, key)
	if err != nil {
		return jobs.Result{}, err
	}
	r, err := sink.Decode(b)
	return r, s.wrap("get", key, err)
}

// Manifest returns the manifest of a run. When there is none, the error wraps
// [fs.ErrNotExist].
func (s *Sink) Manifest(ctx context.Context, run string) (sink.Manifest, error) {
	key := sink.ManifestKey(s.prefix, run)
	b, err := s.raw(ctx, key)
	if err != nil {
		return sink.Manifest{}, err
	}
	m, err := sink.DecodeManifest(b)
	return m, s.wrap("get", key, err)
}

// readTries is how often an object is read that breaks off in the middle, as
// the SDK only retries up to an answer's beginning.
const readTries = 3

func (s *Sink) read(ctx context.Context, key string) ([]byte, error) {
	b, _, err := s.get(ctx, key)
	return b, err
}

// get returns an object and its ETag. When there is none, the error is
// [fs.ErrNotExist].
func (s *Sink) get(ctx context.Context, key string) (b []byte, etag string, err error) {
	for range readTries {
		var out *s3.GetObjectOutput
		out, err = s.client.GetObject(ctx, &s3.GetObjectInput{Bucket: &s.bucket, Key: &key})
		if _, ok := errors.AsType[*types.NoSuchKey](err); ok {
			return nil, "", fs.ErrNotExist
		}
		if err != nil {
			return nil, "", s.explain("s3:GetObject", err)
		}
		b, err = io.ReadAll(out.Body)
		out.Body.Close()
		if err == nil || ctx.Err() != nil {
			etag = aws.ToString(out.ETag)
			break
		}
	}
	return b, etag, err
}

// An Object is a stored line, as a listing knows it.
type Object = sink.Object

// List returns the lines of a run, in no useful order. What is stored among
// them and is no line is passed over. An error ends the listing; it is the last
// pair, and its Object is empty.
func (s *Sink) List(ctx context.Context, run string, kind sink.Kind) iter.Seq2[Object, error] {
	prefix := kind.Prefix(s.prefix, run)
	return func(yield func(Object, error) bool) {
		err := s.pages(ctx, prefix, "", func(page *s3.ListObjectsV2Output) bool {
			for _, c := range page.Contents {
				if o, ok := listed(run, c); ok && !yield(o, nil) {
					return false
				}
			}
			return true
		})
		if err != nil {
			yield(Object{}, err)
		}
	}
}

func listed(run string, c types.Object) (Object, bool) {
	if c.Key == nil || c.Size == nil || c.LastModified == nil {
		return Object{}, false
	}
	id, whole := sink.ID(*c.Key)
	return Object{
		Key: jobs.Key{Run: run, CustomID: id}, Whole: whole,
		Path: *c.Key, Size: *c.Size, Modified: *c.LastModified,
	}, id != "" || whole
}
