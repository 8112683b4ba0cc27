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
	url     string // as the user wrote it
	name    string // that part of it before the pattern, without a slash at its end
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
		return nil, accessed(ctx, url, err)
	}
	base, pattern := splitGlob(key)
	if key != "" && !strings.HasSuffix(key, "/") { // a key may have in it what makes a glob
		dir, name := path.Split(key)
		folder := s3sink.NewFolder(client, bucket, dir)
		found, err := folder.Stat(ctx, name)
		if err == nil {
			return &objects{folder: folder, url: url, name: url, only: &entry{path: name, size: found.Size, version: found.ETag}}, nil
		}
		// Who may list only is not told that there is no such object.
		if !errors.Is(err, fs.ErrNotExist) && pattern == "" {
			return nil, accessed(ctx, url, err)
		}
	}
	if err := checkGlob(pattern); err != nil {
		return nil, err
	}
	o := &objects{folder: s3sink.NewFolder(client, bucket, base), url: url, name: "s3://" + path.Join(bucket, base), pattern: pattern}
	return o, accessed(ctx, url, o.folder.Check(ctx))
}

func (o *objects) list(ctx context.Context) iter.Seq2[entry, error] {
	if o.only != nil {
		return one(*o.only)
	}
	return func(yield func(entry, error) bool) {
		for f, err := range o.folder.Files(ctx) {
			if err != nil {
				yield(entry{}, accessed(ctx, o.url, err))
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
	place := o.place(e.path)
	r, err := o.folder.Open(ctx, s3sink.File{Name: e.path, Size: e.size, ETag: e.version})
	if err != nil {
		return nil, accessed(ctx, place, err)
	}
	return accessing{r, func(err error) error { return accessed(ctx, place, err) }}, nil
}

func (o *objects) title() string { return printable(o.url) }

func (o *objects) nothing() string {
	switch {
	case o.pattern != "":
		return "no object matches " + o.title()
	case strings.HasSuffix(o.url, "/"):
		return o.title() + " holds no files"
	default:
		return fmt.Sprintf("there is no object %s and nothing beneath it", o.title())
	}
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
