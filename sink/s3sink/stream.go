package s3sink

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"net/http"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// A File is an object of a [Folder], as a listing knows it.
type File struct {
	Name string // in the folder
	Size int64
	ETag string // of its content
}

// Files returns all objects, in the order of their names. An error ends it; it is the
// last pair.
func (f Folder) Files(ctx context.Context) iter.Seq2[File, error] {
	root := f.key("")
	return func(yield func(File, error) bool) {
		err := f.s.pages(ctx, root, "", func(page *s3.ListObjectsV2Output) bool {
			for _, o := range page.Contents {
				name := strings.TrimPrefix(aws.ToString(o.Key), root)
				if name != "" && !yield(File{name, aws.ToInt64(o.Size), aws.ToString(o.ETag)}, nil) {
					return false
				}
			}
			return true
		})
		if err != nil {
			yield(File{}, err)
		}
	}
}

// Stat returns the object of that name. When there is none, the error wraps
// [fs.ErrNotExist].
func (f Folder) Stat(ctx context.Context, name string) (File, error) {
	key := f.key(name)
	head, err := f.s.client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &f.s.bucket, Key: &key})
	if status(err) == http.StatusNotFound {
		return File{}, f.s.wrap("head", key, fs.ErrNotExist)
	}
	if err != nil {
		return File{}, f.s.wrap("head", key, f.explain("s3:GetObject", err))
	}
	return File{name, aws.ToInt64(head.ContentLength), aws.ToString(head.ETag)}, nil
}

// Open returns the content of a file, to be read once and closed. A connection that
// breaks off in the middle is made again, where it did, a few times in a row. An object
// that is replaced meanwhile, or was since the listing, is an error, as half of each
// would be neither. When there is none, the error wraps [fs.ErrNotExist].
func (f Folder) Open(ctx context.Context, file File) (io.ReadCloser, error) {
	o := &opened{folder: f, file: file, get: func(from int64) (*s3.GetObjectOutput, error) { return f.from(ctx, file, from) }}
	out, err := o.get(0)
	if err != nil {
		return nil, err
	}
	o.body = out.Body
	return o, nil
}

// from returns what a file has from a byte on.
func (f Folder) from(ctx context.Context, file File, at int64) (*s3.GetObjectOutput, error) {
	key := f.key(file.Name)
	in := &s3.GetObjectInput{Bucket: &f.s.bucket, Key: &key}
	if file.ETag != "" {
		in.IfMatch = &file.ETag
	}
	if at > 0 {
		in.Range = new(fmt.Sprintf("bytes=%d-", at))
	}
	out, err := f.s.client.GetObject(ctx, in)
	_, missing := errors.AsType[*types.NoSuchKey](err)
	_, archived := errors.AsType[*types.InvalidObjectState](err)
	switch {
	case missing:
		err = fs.ErrNotExist
	case archived:
		err = fmt.Errorf("it is archived: restore it first: %w", brief(err))
	case status(err) == http.StatusPreconditionFailed:
		err = fmt.Errorf("it has been replaced since it was listed: start again: %w", brief(err))
	default:
		err = f.explain("s3:GetObject", err)
	}
	return out, f.s.wrap("get", key, err)
}

// opened is the content of a file that is being read.
type opened struct {
	folder Folder
	file   File
	get    func(from int64) (*s3.GetObjectOutput, error)
	body   io.ReadCloser
	at     int64 // bytes read
	broken int   // times in a row that nothing came
}

// Read implements io.Reader.
func (o *opened) Read(p []byte) (int, error) {
	for {
		n, err := o.body.Read(p)
		o.at += int64(n)
		if n > 0 {
			o.broken = 0
			return n, nil // an error comes again
		}
		if err == nil || errors.Is(err, io.EOF) && (o.file.Size == 0 || o.at >= o.file.Size) {
			return n, err
		}
		if o.broken++; o.broken >= readTries || o.file.ETag == "" {
			return 0, o.folder.s.wrap("get", o.folder.key(o.file.Name), err)
		}
		out, err := o.get(o.at)
		if err != nil {
			return 0, err
		}
		o.body.Close()
		o.body = out.Body
	}
}

// Close implements io.Closer.
func (o *opened) Close() error { return o.body.Close() }
