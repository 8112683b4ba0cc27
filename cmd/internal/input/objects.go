package input

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"path"
	"strings"

	"upwell/sink/s3sink"
)

// objects are those beneath a prefix in S3, or what of them a glob matches, or a
// single one.
type objects struct {
	folder  s3sink.Folder
	name    string // as the user wrote it, without a slash at its end
	pattern string // or empty
	only    *entry // nil for a prefix
}

// findObjects returns what an s3:// URL names: the object, if there is one of that
// key, and else the prefix.
func findObjects(ctx context.Context, url string, opts *Options) (store, error) {
	bucket, key, _ := strings.Cut(strings.TrimPrefix(url, "s3://"), "/")
	if bucket == "" || opts.S3 == nil {
		return nil, fmt.Errorf("%s: want s3://BUCKET/KEY or s3://BUCKET/PREFIX/", url)
	}
	client, err := opts.S3(ctx)
	if err != nil {
		return nil, err
	}
	base, pattern := splitGlob(key)
	if err := checkGlob(pattern); err != nil {
		return nil, err
	}
	o := &objects{name: "s3://" + path.Join(bucket, base), pattern: pattern}
	if pattern == "" && key != "" && !strings.HasSuffix(key, "/") {
		dir, name := path.Split(key)
		o.folder = s3sink.NewFolder(client, bucket, dir)
		found, err := o.folder.Stat(ctx, name)
		if err == nil {
			o.only = &entry{path: name, size: found.Size, version: found.ETag}
			return o, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	o.folder = s3sink.NewFolder(client, bucket, base)
	return o, o.folder.Check(ctx)
}

func (o *objects) list(ctx context.Context) iter.Seq2[entry, error] {
	if o.only != nil {
		return one(*o.only)
	}
	return func(yield func(entry, error) bool) {
		for f, err := range o.folder.Files(ctx) {
			if err != nil {
				yield(entry{}, err)
				return
			}
			if hidden(f.Name) || strings.HasSuffix(f.Name, "/") || !matches(o.pattern, f.Name) {
				continue // a console makes folders of empty objects
			}
			if !yield(entry{path: f.Name, size: f.Size, version: f.ETag}, nil) {
				return
			}
		}
	}
}

// hidden reports whether a part of the path begins with a dot.
func hidden(p string) bool { return strings.HasPrefix(p, ".") || strings.Contains(p, "/.") }

func (o *objects) open(ctx context.Context, e entry) (io.ReadCloser, error) {
	return o.folder.Open(ctx, s3sink.File{Name: e.path, Size: e.size, ETag: e.version})
}

func (o *objects) place(p string) string {
	if o.only != nil {
		return printable(o.name)
	}
	return printable(o.name + "/" + p)
}
func (o *objects) several() bool      { return o.only == nil }
func (o *objects) local(entry) string { return "" }

// Close implements io.Closer.
func (o *objects) Close() error { return nil }
