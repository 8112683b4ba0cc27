package s3sink

import (
	"context"
	"fmt"
	"io"
	"iter"
	"net/http"
	"os"
	"path"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"upwell/jobs/sdkerr"
)

// A Folder is a place in a bucket for files that are made from runs. Unlike what a
// [Sink] stores, they may be replaced and removed. Its methods may be called
// concurrently. They give up after half a minute of trouble.
type Folder struct{ s *Sink }

// NewFolder returns a Folder of the objects beneath prefix, which may be empty.
func NewFolder(client *s3.Client, bucket, prefix string) Folder {
	return Folder{New(client, bucket, prefix)}
}

// Check reports why the bucket cannot be used, and what to do about it.
func (f Folder) Check(ctx context.Context) error { return f.s.Check(ctx) }

// Temp returns a file in the system's folder for temporary ones, for what is to be
// put. Where the system allows it, the file has no name any more, so that nothing
// stays behind when the process is killed.
func (f Folder) Temp() (*os.File, error) {
	tmp, err := os.CreateTemp("", "upwell-*.tmp")
	if err == nil {
		_ = os.Remove(tmp.Name())
	}
	return tmp, err
}

// Drop closes and removes what Temp returned.
func (f Folder) Drop(tmp *os.File) {
	tmp.Close()
	_ = os.Remove(tmp.Name())
}

// Put stores what was written to tmp under name, in the place of what is there, and
// drops tmp. S3 takes up to 5 GiB so.
func (f Folder) Put(ctx context.Context, name string, tmp *os.File) error {
	defer f.Drop(tmp)
	if _, err := tmp.Seek(0, io.SeekStart); err != nil {
		return err
	}
	key := f.key(name)
	_, err := f.s.client.PutObject(ctx, &s3.PutObjectInput{
		Bucket: &f.s.bucket, Key: &key, Body: tmp, ContentType: aws.String(contentTypeOf(name)),
	})
	return f.s.wrap("put", key, f.explain("s3:PutObject", err))
}

func contentTypeOf(name string) string {
	switch path.Ext(name) {
	case ".csv":
		return "text/csv"
	case ".jsonl":
		return "application/jsonl"
	case ".parquet":
		return "application/vnd.apache.parquet"
	default:
		return contentType
	}
}

// Names returns the names of all objects. An error ends it; it is the last pair.
func (f Folder) Names(ctx context.Context) iter.Seq2[string, error] {
	root := f.key("")
	return func(yield func(string, error) bool) {
		err := f.s.pages(ctx, root, "", func(page *s3.ListObjectsV2Output) bool {
			for _, o := range page.Contents {
				name := strings.TrimPrefix(aws.ToString(o.Key), root)
				if name != "" && !yield(name, nil) { // a console's empty folder has no name
					return false
				}
			}
			return true
		})
		if err != nil {
			yield("", err)
		}
	}
}

// Read returns an object. When there is none, the error wraps [io/fs.ErrNotExist].
func (f Folder) Read(ctx context.Context, name string) ([]byte, error) {
	return f.s.raw(ctx, f.key(name))
}

// Remove removes an object. That there is none is not an error.
func (f Folder) Remove(ctx context.Context, name string) error {
	key := f.key(name)
	_, err := f.s.client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &f.s.bucket, Key: &key})
	return f.s.wrap("delete", key, f.explain("s3:DeleteObject", err))
}

func (f Folder) key(name string) string {
	return strings.TrimPrefix(f.s.prefix+"/"+name, "/")
}

// explain is [Sink.explain] for objects that are not in a run.
func (f Folder) explain(action string, err error) error {
	if status(err) != http.StatusForbidden || sdkerr.Unsigned(err) != "" {
		return f.s.explain(action, err)
	}
	return fmt.Errorf("allow %s on %s/%s, and see that the credentials and the bucket belong together: %w", action, f.s.bucket, f.key("*"), brief(err))
}
