package s3sim

import (
	"cmp"
	"context"
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/rclone/gofakes3"
)

// The reserved folder of a bucket and what it holds.
const (
	reserved = ".s3sim"
	metaDir  = reserved + "/meta"
	oddDir   = reserved + "/odd"
	tmpDir   = reserved + "/tmp"
)

// tick is the resolution of an object's time, coarse enough that file
// systems keep it and a record can be recognised by it.
const tick = time.Microsecond

// A bucket is a folder of objects.
type bucket struct {
	name string
	root *os.Root
	sync bool
	info fs.FileInfo  // the folder
	made fs.FileInfo  // the reserved one, as old as the bucket
	temp atomic.Int64 // numbers temporary files

	// tree is held shared while an object is put in its place, and alone while
	// empty folders or the bucket itself are removed. It is taken before an
	// object's own lock. Writers that come after the bucket's end see gone.
	tree sync.RWMutex
	gone bool

	// locks guard the objects, each the one that its slot names: shared while
	// body and metadata are opened, alone while they are replaced. No lock is
	// held while a body is read or written.
	locks [256]sync.RWMutex

	mu  sync.RWMutex        // held briefly, never during I/O
	odd map[string]struct{} // keys whose body is in oddDir
}

// A slot is where the object with one key may be found.
type slot struct {
	key   string
	plain string // its path, or empty if the key is none
	odd   string
	meta  string
	lock  *sync.RWMutex
}

// A manifest is the content of a metadata file. It describes the body that
// is there or about to be, and the one that it replaces.
type manifest struct {
	Key     string   `json:"key"`
	Objects []record `json:"objects"`
}

// A record describes one body. Size and Time, or Size and MD5, say which.
type record struct {
	Size   int64             `json:"size"`
	Time   time.Time         `json:"time"`
	MD5    string            `json:"md5"`
	Header map[string]string `json:"header,omitempty"`
}

func (r record) etag() string { return `"` + r.MD5 + `"` }

// openBucket opens the bucket in the folder name of dir, clears what dead
// writers left there, and learns the odd keys.
func openBucket(dir *os.Root, name string, sync bool) (*bucket, error) {
	if info, err := dir.Stat(name); absent(err) || err == nil && !info.IsDir() {
		return nil, gofakes3.BucketNotFound(name)
	}
	root, err := dir.OpenRoot(name)
	if absent(err) {
		return nil, gofakes3.BucketNotFound(name)
	} else if err != nil {
		return nil, err
	}
	b := &bucket{name: name, root: root, sync: sync, odd: map[string]struct{}{}}
	if err := b.load(); err != nil {
		return nil, errors.Join(err, root.Close())
	}
	return b, nil
}

func (b *bucket) load() (err error) {
	if b.info, err = b.root.Stat("."); err != nil {
		return err
	}
	for _, dir := range []string{metaDir, oddDir, tmpDir} {
		if err := b.root.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	// Its own entries never change, so this folder keeps its first time.
	if b.made, err = b.root.Stat(reserved); err != nil {
		return err
	}
	stale, err := fs.ReadDir(b.root.FS(), tmpDir)
	if err != nil {
		return err
	}
	for _, e := range stale {
		if err := b.root.Remove(tmpDir + "/" + e.Name()); err != nil {
			return err
		}
	}
	return fs.WalkDir(b.root.FS(), oddDir, b.learn)
}

// learn remembers the key whose body is the odd file p.
func (b *bucket) learn(p string, e fs.DirEntry, err error) error {
	if err != nil || e.IsDir() {
		return err
	}
	m, err := b.manifest(metaDir + strings.TrimPrefix(p, oddDir))
	if b.slot(m.Key).odd == p {
		b.odd[m.Key] = struct{}{}
	}
	return err
}

// in reports whether b is still the folder of its name in dir.
func (b *bucket) in(dir *os.Root) bool {
	info, err := dir.Stat(b.name)
	return err == nil && os.SameFile(info, b.info)
}

// slot returns the slot of key.
func (b *bucket) slot(key string) slot {
	sum := sha256.Sum256([]byte(key))
	name := hex.EncodeToString(sum[:])
	name = "/" + name[:2] + "/" + name[2:]
	return slot{key: key, plain: plain(key), odd: oddDir + name, meta: metaDir + name, lock: &b.locks[sum[0]]}
}

// plain returns the path that key spells, or nothing if it spells none that
// an object may have.
func plain(key string) string {
	p, err := filepath.Localize(key)
	if err != nil || key == "." || strings.HasPrefix(key+"/", reserved+"/") {
		return ""
	}
	return p
}

// body returns the path of the body in s, whether or not it exists.
func (b *bucket) body(s slot) string {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if _, odd := b.odd[s.key]; odd || s.plain == "" {
		return s.odd
	}
	return s.plain
}

// A found is the open body of an object and what its metadata file says.
type found struct {
	*os.File
	size int64
	time time.Time
	recs []record
}

// find opens the object in s. s.lock must be held.
func (b *bucket) find(s slot) (*found, error) {
	f, err := b.root.Open(b.body(s))
	if absent(err) {
		return nil, gofakes3.KeyNotFound(s.key)
	} else if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = gofakes3.KeyNotFound(s.key)
	}
	var m manifest
	if err == nil {
		m, err = b.manifest(s.meta)
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return &found{f, info.Size(), info.ModTime(), m.Objects}, nil
}

// manifest reads a metadata file. One that is missing or damaged is empty.
func (b *bucket) manifest(name string) (manifest, error) {
	data, err := b.root.ReadFile(name)
	if absent(err) {
		return manifest{}, nil
	} else if err != nil {
		return manifest{}, err
	}
	var m manifest
	if json.Unmarshal(data, &m) != nil {
		return manifest{}, nil //nolint:nilerr // damaged is as good as missing
	}
	return m, nil
}

// describe returns the record that fits the body of f, and makes one up if
// none does.
func (f *found) describe() (record, error) {
	for _, r := range f.recs {
		if r.Size == f.size && r.Time.Equal(f.time) {
			return r, nil
		}
	}
	h := md5.New()
	if _, err := io.Copy(h, io.NewSectionReader(f, 0, f.size)); err != nil {
		return record{}, err
	}
	sum := hex.EncodeToString(h.Sum(nil))
	for _, r := range f.recs {
		if r.Size == f.size && r.MD5 == sum { // copied or touched since
			r.Time = f.time
			return r, nil
		}
	}
	return record{Size: f.size, Time: f.time, MD5: sum}, nil
}

// open opens the object key.
func (b *bucket) open(key string) (*os.File, record, error) {
	s := b.slot(key)
	s.lock.RLock()
	f, err := b.find(s)
	s.lock.RUnlock()
	if err != nil {
		return nil, record{}, err
	}
	rec, err := f.describe()
	if err != nil {
		_ = f.Close()
		return nil, record{}, err
	}
	return f.File, rec, nil
}

// receive writes body to a temporary file, in full or not at all. A size of
// -1 is unknown.
func (b *bucket) receive(body io.Reader, size int64) (tmp string, rec record, err error) {
	h := md5.New()
	n := int64(0)
	tmp, err = b.write(func(f io.Writer) (err error) {
		buf := buffers.Get().(*[]byte)
		defer buffers.Put(buf)
		n, err = io.CopyBuffer(io.MultiWriter(f, h), body, *buf)
		if err == nil && size >= 0 && n != size {
			err = gofakes3.ErrIncompleteBody
		}
		return err
	})
	return tmp, record{Size: n, MD5: hex.EncodeToString(h.Sum(nil))}, err
}

// buffers spare each small object the allocation of a large buffer.
var buffers = sync.Pool{New: func() any { return new(make([]byte, 32<<10)) }}

// write makes a temporary file of what fill writes, and removes it if that
// goes wrong.
func (b *bucket) write(fill func(io.Writer) error) (tmp string, err error) {
	tmp = tmpDir + "/" + strconv.FormatInt(b.temp.Add(1), 10)
	f, err := b.root.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return "", err
	}
	err = fill(f)
	if err == nil && b.sync {
		err = f.Sync()
	}
	if err = cmp.Or(err, f.Close()); err != nil {
		_ = b.root.Remove(tmp)
	}
	return tmp, err
}

// replace makes the file tmp the body of the object in s, if the conditions
// of the request with ctx allow it. It sets the time in rec.
func (b *bucket) replace(ctx context.Context, s slot, tmp string, rec *record) error {
	b.tree.RLock()
	defer b.tree.RUnlock()
	if b.gone {
		return gofakes3.BucketNotFound(b.name)
	}
	s.lock.Lock()
	defer s.lock.Unlock()

	old, exists, err := b.current(s)
	if err != nil {
		return err
	}
	if err := gofakes3.CheckWriteConditions(ctx, exists, old.MD5); err != nil {
		return err
	}
	rec.Time = time.Now().UTC().Truncate(tick)
	if rec.Time.Equal(old.Time) {
		rec.Time = rec.Time.Add(tick) // so that the two can be told apart
	}
	if err := b.root.Chtimes(tmp, rec.Time, rec.Time); err != nil {
		return err
	}
	m := manifest{Key: s.key, Objects: []record{*rec}}
	if exists {
		m.Objects = append(m.Objects, old) // still true until the body follows
	}
	if err := b.annotate(s, m); err != nil {
		return err
	}
	return b.install(s, tmp)
}

// current returns the record of the object in s, if there is one. s.lock must
// be held.
func (b *bucket) current(s slot) (rec record, exists bool, err error) {
	f, err := b.find(s)
	if gofakes3.HasErrorCode(err, gofakes3.ErrNoSuchKey) {
		return record{}, false, nil
	} else if err != nil {
		return record{}, false, err
	}
	defer f.Close()
	rec, err = f.describe()
	return rec, true, err
}

// annotate replaces the metadata file of s. s.lock must be held.
func (b *bucket) annotate(s slot, m manifest) error {
	tmp, err := b.write(func(f io.Writer) error { return json.NewEncoder(f).Encode(m) })
	if err != nil {
		return err
	}
	if err = b.rename(tmp, s.meta); err != nil {
		_ = b.root.Remove(tmp)
	}
	return err
}

// install moves the file tmp to where the body of s belongs: to its path, or
// if that cannot be had, among the odd ones. s.lock must be held.
func (b *bucket) install(s slot, tmp string) error {
	p := b.body(s)
	err := b.rename(tmp, p)
	if err != nil && p == s.plain {
		p = s.odd
		err = b.rename(tmp, p)
	}
	if err == nil && p == s.odd {
		b.mu.Lock()
		b.odd[s.key] = struct{}{}
		b.mu.Unlock()
	}
	return err
}

// rename moves a file to a path whose folders may be missing. b.tree must be
// held.
func (b *bucket) rename(from, to string) error {
	err := b.root.Rename(from, to)
	made := errors.Is(err, fs.ErrNotExist)
	if made {
		if err = b.root.MkdirAll(filepath.Dir(to), 0o755); err == nil {
			err = b.root.Rename(from, to)
		}
	}
	if err == nil && b.sync {
		err = b.flush(filepath.Dir(to), made)
	}
	return err
}

// flush makes the entries of a folder durable, and with up those of the
// folders above it.
func (b *bucket) flush(dir string, up bool) error {
	for ; ; dir = filepath.Dir(dir) {
		f, err := b.root.Open(dir)
		if err != nil {
			return err
		}
		if err := cmp.Or(f.Sync(), f.Close()); err != nil || !up || dir == "." {
			return err
		}
	}
}

// delete removes an object and the folders that only it needed.
func (b *bucket) delete(key string) error {
	s := b.slot(key)
	err := b.remove(s)
	if strings.Contains(s.plain, string(filepath.Separator)) {
		b.prune(s)
	}
	return err
}

// remove deletes the object in s, if there is one. The metadata goes last,
// since it tells whose body an odd one is.
func (b *bucket) remove(s slot) error {
	s.lock.Lock()
	defer s.lock.Unlock()
	for _, p := range []string{s.plain, s.odd, s.meta} {
		if p == "" {
			continue
		}
		info, err := b.root.Lstat(p)
		if absent(err) || err == nil && info.IsDir() {
			continue
		}
		if err := b.root.Remove(p); err != nil {
			return err
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.odd, s.key)
	return nil
}

// prune removes the folders above the path of s that are empty.
func (b *bucket) prune(s slot) {
	b.tree.Lock()
	defer b.tree.Unlock()
	for p := filepath.Dir(s.plain); p != "."; p = filepath.Dir(p) {
		if info, err := b.root.Lstat(p); err != nil || !info.IsDir() || b.root.Remove(p) != nil {
			return
		}
	}
}

// absent reports whether err says that there is no such file, for whichever
// reason: not there, beneath a file, or too long to be there.
func absent(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) ||
		errors.Is(err, syscall.ENAMETOOLONG)
}

// names returns the objects and, with a slash at their end, the folders in
// dir, which is empty or ends in a slash, sorted as keys sort. It leaves out
// those that keep refuses.
//
// An os.Root examines every entry of a folder it opens, in vain for most
// pages of a listing. So the folder is opened by its path, and used if it is
// the one that the root knows.
func (b *bucket) names(dir string, keep func(key string) bool) ([]string, error) {
	p := filepath.Clean("./" + dir)
	known, err := b.root.Stat(p)
	if absent(err) || err == nil && !known.IsDir() {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	f, err := os.Open(filepath.Join(b.root.Name(), p))
	if absent(err) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !os.SameFile(info, known) {
		return nil, err
	}
	entries, err := f.ReadDir(-1)
	var keys []string
	for _, e := range entries {
		key := dir + e.Name()
		if !e.IsDir() && !e.Type().IsRegular() || plain(key) == "" {
			continue
		}
		if e.IsDir() {
			key += "/"
		}
		if keep(key) {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys, err
}
