package s3sim

import (
	"context"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/rclone/gofakes3"
)

// A backend is what gofakes3 keeps its buckets and objects in. Its methods
// are those of [gofakes3.Backend], which describes them.
type backend struct {
	root *os.Root
	sync bool

	mu      sync.Mutex // held while a bucket is opened, created or deleted
	buckets map[string]*bucket
}

// openBackend opens dir, which it makes if need be, and the buckets in it.
func openBackend(dir string, sync bool) (*backend, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	s := &backend{root: root, sync: sync, buckets: map[string]*bucket{}}
	if _, err := s.all(); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

func (s *backend) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.root.Close()
	for _, b := range s.buckets {
		err = errors.Join(err, b.root.Close())
	}
	clear(s.buckets)
	return err
}

// bucket returns the bucket called name. It looks at the folder every time,
// since folders come and go by hand.
func (s *backend) bucket(name string) (*bucket, error) {
	if gofakes3.ValidateBucketName(name) != nil {
		return nil, gofakes3.BucketNotFound(name)
	}
	s.mu.Lock()
	b := s.buckets[name]
	s.mu.Unlock()
	if b != nil && b.in(s.root) {
		return b, nil
	}
	return s.reopen(name)
}

// reopen opens the bucket called name unless another goroutine just has.
func (s *backend) reopen(name string) (*bucket, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if b := s.buckets[name]; b != nil {
		if b.in(s.root) {
			return b, nil
		}
		_ = b.root.Close()
		delete(s.buckets, name)
	}
	b, err := openBucket(s.root, name, s.sync)
	if err == nil {
		s.buckets[name] = b
	}
	return b, err
}

// all returns the buckets there are.
func (s *backend) all() (all []*bucket, err error) {
	entries, err := fs.ReadDir(s.root.FS(), ".")
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		b, err := s.bucket(e.Name())
		if gofakes3.HasErrorCode(err, gofakes3.ErrNoSuchBucket) {
			continue
		} else if err != nil {
			return nil, err
		}
		all = append(all, b)
	}
	return all, nil
}

func (s *backend) ListBuckets(context.Context) (infos []gofakes3.BucketInfo, err error) {
	all, err := s.all()
	for _, b := range all {
		infos = append(infos, gofakes3.BucketInfo{Name: b.name, CreationDate: gofakes3.NewContentTime(b.made.ModTime())})
	}
	return infos, err
}

func (s *backend) CreateBucket(_ context.Context, name string) error {
	err := s.root.Mkdir(name, 0o755)
	if errors.Is(err, fs.ErrExist) {
		return gofakes3.ResourceError(gofakes3.ErrBucketAlreadyExists, name)
	}
	return err
}

func (s *backend) BucketExists(_ context.Context, name string) (bool, error) {
	_, err := s.bucket(name)
	if gofakes3.HasErrorCode(err, gofakes3.ErrNoSuchBucket) {
		return false, nil
	}
	return err == nil, err
}

func (s *backend) DeleteBucket(_ context.Context, name string) error {
	b, err := s.bucket(name)
	if err != nil {
		return err
	}
	b.tree.Lock()
	defer b.tree.Unlock()
	l, err := b.list("", "", "", 1)
	if err != nil {
		return err
	}
	if len(l.Contents) > 0 {
		return gofakes3.ResourceError(gofakes3.ErrBucketNotEmpty, name)
	}
	err = s.root.RemoveAll(name)
	b.gone = err == nil
	return err
}

func (s *backend) ListBucket(_ context.Context, name string, p *gofakes3.Prefix, page gofakes3.ListBucketPage) (*gofakes3.ObjectList, error) {
	b, err := s.bucket(name)
	if err != nil {
		return nil, err
	}
	if p == nil {
		p = &gofakes3.Prefix{}
	}
	return b.list(p.Prefix, p.Delimiter, page.Marker, int(page.MaxKeys))
}

func (s *backend) HeadObject(_ context.Context, name, key string) (*gofakes3.Object, error) {
	f, rec, err := s.open(name, key)
	if err != nil {
		return nil, err
	}
	_ = f.Close()
	return rec.object(key, http.NoBody), nil
}

func (s *backend) GetObject(_ context.Context, name, key string, want *gofakes3.ObjectRangeRequest) (*gofakes3.Object, error) {
	f, rec, err := s.open(name, key)
	if err != nil {
		return nil, err
	}
	// The last n bytes of an object that has fewer are all of it.
	if want != nil && want.FromEnd && want.End > rec.Size {
		want = &gofakes3.ObjectRangeRequest{FromEnd: true, End: rec.Size}
	}
	r, err := want.Range(rec.Size)
	if err == nil && r != nil {
		_, err = f.Seek(r.Start, io.SeekStart)
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	n := rec.Size
	if r != nil {
		n = r.Length
	}
	o := rec.object(key, struct {
		io.Reader
		io.Closer
	}{io.LimitReader(f, n), f})
	o.Range = r
	return o, nil
}

// open opens the object key of the bucket called name.
func (s *backend) open(name, key string) (*os.File, record, error) {
	b, err := s.bucket(name)
	if err != nil {
		return nil, record{}, err
	}
	return b.open(key)
}

func (s *backend) PutObject(ctx context.Context, name, key string, header map[string]string, body io.Reader, size int64) (gofakes3.PutObjectResult, error) {
	_, err := s.put(ctx, name, key, header, body, size)
	return gofakes3.PutObjectResult{}, err
}

func (s *backend) CopyObject(ctx context.Context, srcName, srcKey, name, key string, header map[string]string) (gofakes3.CopyObjectResult, error) {
	f, src, err := s.open(srcName, srcKey)
	if err != nil {
		return gofakes3.CopyObjectResult{}, err
	}
	defer f.Close()
	// A copy has its source's checksum, which the library leaves behind.
	for k, v := range src.Header {
		if strings.HasPrefix(k, checksumPrefix) {
			header[k] = v
		}
	}
	rec, err := s.put(ctx, name, key, header, f, src.Size)
	return gofakes3.CopyObjectResult{ETag: rec.etag(), LastModified: gofakes3.NewContentTime(rec.Time)}, err
}

// put stores an object, once its body has come in whole and its checksum has
// been found right.
func (s *backend) put(ctx context.Context, name, key string, header map[string]string, body io.Reader, size int64) (record, error) {
	b, err := s.bucket(name)
	if err != nil {
		return record{}, err
	}
	if !utf8.ValidString(key) {
		return record{}, gofakes3.ErrInvalidURI
	}
	tmp, rec, err := b.receive(body, size)
	if err != nil {
		return record{}, err
	}
	rec.Header = map[string]string{}
	maps.Copy(rec.Header, header)
	delete(rec.Header, "Last-Modified") // the file's own time
	sum, value, err := trailerSum(ctx)
	if sum != "" {
		rec.Header[sum] = value
	}
	if err == nil {
		err = b.replace(ctx, b.slot(key), tmp, &rec)
	}
	if err != nil {
		_ = b.root.Remove(tmp)
	}
	return rec, err
}

func (s *backend) DeleteObject(_ context.Context, name, key string) (gofakes3.ObjectDeleteResult, error) {
	b, err := s.bucket(name)
	if err == nil {
		err = b.delete(key)
	}
	return gofakes3.ObjectDeleteResult{}, err
}

func (s *backend) DeleteMulti(_ context.Context, name string, keys ...string) (gofakes3.MultiDeleteResult, error) {
	var res gofakes3.MultiDeleteResult
	b, err := s.bucket(name)
	if err != nil {
		return res, err
	}
	for _, key := range keys {
		if err := b.delete(key); err != nil {
			e := gofakes3.ErrorResultFromError(err)
			e.Key = key
			res.Error = append(res.Error, e)
			continue
		}
		res.Deleted = append(res.Deleted, gofakes3.ObjectID{Key: key})
	}
	return res, nil
}

// object returns r in the library's terms.
func (r record) object(key string, body io.ReadCloser) *gofakes3.Object {
	meta := map[string]string{"Content-Type": "binary/octet-stream"} // as S3 if none is given
	maps.Copy(meta, r.Header)
	meta["Last-Modified"] = r.Time.UTC().Format(http.TimeFormat)
	sum, _ := hex.DecodeString(r.MD5)
	return &gofakes3.Object{Name: key, Metadata: meta, Size: r.Size, Contents: body, Hash: sum}
}
