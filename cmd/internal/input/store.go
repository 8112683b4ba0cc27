package input

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// An entry is a file of a store.
type entry struct {
	path    string // in the store, with /; of a single file its name
	size    int64
	version string // of an object, so that no other one is read in its place
	why     string // why it is no file, or empty
}

// A store is where the files of an input are. Its methods may be called concurrently.
type store interface {
	// list yields the files in the order of their paths. An error ends it.
	list(ctx context.Context) iter.Seq2[entry, error]

	open(ctx context.Context, e entry) (io.ReadCloser, error)

	// place is the path as the user would write it. That of the empty path has no
	// pattern in it.
	place(path string) string

	// title is what the user called the whole of it.
	title() string

	// nothing says that list yields nothing.
	nothing() string

	// several reports whether it may hold more than one file.
	several() bool

	// local returns the path of a file of this machine that can be read again and
	// again, or nothing.
	local(e entry) string

	io.Closer
}

// find returns the store that arg names.
func find(ctx context.Context, arg string, opts *Options) (store, error) {
	switch {
	case arg == "":
		return nil, errors.New("no input: name a file, a folder, an s3:// URL, or - for standard input")
	case arg == "-":
		return &stream{name: "stdin", r: opts.Stdin}, nil
	case strings.HasPrefix(arg, "s3://"):
		return findObjects(ctx, arg, opts)
	}
	info, err := os.Stat(arg)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if base, pattern := splitGlob(filepath.ToSlash(arg)); pattern != "" {
			return newFolder(cmp.Or(base, "."), base, pattern, opts.Except)
		}
		return nil, err
	case err != nil:
		return nil, err
	case info.IsDir():
		return newFolder(arg, cmp.Or(strings.TrimRight(filepath.ToSlash(arg), "/"), "/"), "", opts.Except)
	case !info.Mode().IsRegular(): // a pipe, such as a shell's <(…), can be read once
		r, err := os.Open(arg)
		return &stream{name: arg, r: r}, err
	}
	return &single{path: arg, size: info.Size()}, nil
}

// A single is one file of this machine.
type single struct {
	path string
	size int64
}

func (s *single) list(context.Context) iter.Seq2[entry, error] {
	return one(entry{path: filepath.Base(s.path), size: s.size})
}

func one(e entry) iter.Seq2[entry, error] {
	return func(yield func(entry, error) bool) { yield(e, nil) }
}

func (s *single) open(context.Context, entry) (io.ReadCloser, error) { return os.Open(s.path) }
func (s *single) place(string) string                                { return printable(s.path) }
func (s *single) title() string                                      { return printable(s.path) }
func (s *single) nothing() string                                    { return "nothing is at " + s.title() }
func (s *single) several() bool                                      { return false }
func (s *single) local(entry) string                                 { return s.path }
func (s *single) Close() error                                       { return nil }

// A stream is a file that can be read once.
type stream struct {
	name string
	r    io.Reader
}

func (s *stream) list(context.Context) iter.Seq2[entry, error] { return one(entry{path: s.name}) }

func (s *stream) open(context.Context, entry) (io.ReadCloser, error) {
	return io.NopCloser(s.r), nil
}
func (s *stream) place(string) string { return printable(s.name) }
func (s *stream) title() string       { return printable(s.name) }
func (s *stream) nothing() string     { return "nothing is at " + s.title() }
func (s *stream) several() bool       { return false }
func (s *stream) local(entry) string  { return "" }

// Close implements io.Closer. Standard input is not closed.
func (s *stream) Close() error {
	if c, ok := s.r.(io.Closer); ok && s.name != "stdin" {
		return c.Close()
	}
	return nil
}

// A folder is a folder of this machine, with all that is beneath it, or what of that
// a glob matches. Hidden files are none of it, and links are not followed out of it.
type folder struct {
	root    *os.Root
	name    string // as the user wrote it, but for the pattern
	pattern string // or empty
	except  []fs.FileInfo
}

// newFolder opens the folder dir. except are the paths of what is none of it; there
// may be nothing at them.
func newFolder(dir, name, pattern string, except []string) (*folder, error) {
	if err := checkGlob(pattern); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(filepath.FromSlash(dir))
	if err != nil {
		return nil, err
	}
	f := &folder{root: root, name: name, pattern: pattern}
	for _, p := range except {
		if info, err := os.Stat(p); err == nil {
			f.except = append(f.except, info)
		}
	}
	return f, nil
}

func (f *folder) list(ctx context.Context) iter.Seq2[entry, error] {
	return func(yield func(entry, error) bool) { f.walk(ctx, ".", yield) }
}

// walk yields what is beneath a folder in the order of paths, which is the order of
// the names in each folder, if those of folders end with a slash.
func (f *folder) walk(ctx context.Context, dir string, yield func(entry, error) bool) bool {
	inside, err := fs.ReadDir(f.root.FS(), dir)
	if err = errors.Join(err, context.Cause(ctx)); err != nil {
		return yield(entry{}, err)
	}
	name := func(d fs.DirEntry) string {
		if d.IsDir() {
			return d.Name() + "/"
		}
		return d.Name()
	}
	slices.SortFunc(inside, func(a, b fs.DirEntry) int { return cmp.Compare(name(a), name(b)) })
	for _, d := range inside {
		if strings.HasPrefix(d.Name(), ".") {
			continue
		}
		p := path.Join(dir, d.Name())
		if d.IsDir() {
			if f.excepted(d) {
				if f.deep() && !yield(entry{path: p, why: notInput}, nil) {
					return false
				}
				continue
			}
			if !f.walk(ctx, p, yield) {
				return false
			}
			continue
		}
		if !matches(f.pattern, p) {
			continue
		}
		if e, err := f.entry(p, d); !yield(e, err) || err != nil {
			return false
		}
	}
	return true
}

// notInput is why a file or folder is left out that the command names as something
// else.
const notInput = "of the template or of the results"

// excepted reports whether the command names a folder as something else.
func (f *folder) excepted(d fs.DirEntry) bool {
	if len(f.except) == 0 {
		return false
	}
	info, err := d.Info()
	return err == nil && f.isExcept(info)
}

func (f *folder) isExcept(info fs.FileInfo) bool {
	return slices.ContainsFunc(f.except, func(other fs.FileInfo) bool { return os.SameFile(info, other) })
}

// deep reports whether what lies in folders may match.
func (f *folder) deep() bool {
	return f.pattern == "" || f.pattern == "**" || strings.Contains(f.pattern, "/")
}

func (f *folder) entry(p string, d fs.DirEntry) (entry, error) {
	e := entry{path: p}
	link := d.Type()&fs.ModeSymlink != 0
	stat := d.Info
	if link {
		stat = func() (fs.FileInfo, error) { return f.root.Stat(p) }
	}
	info, err := stat()
	switch {
	case err != nil && link:
		return entry{path: p, why: "a link that leads out of the folder, or nowhere"}, nil
	case err != nil:
		return e, err
	case info.IsDir():
		e.why = "a link to a folder"
	case !info.Mode().IsRegular():
		e.why = "not a file"
	case f.isExcept(info):
		e.why = notInput
	}
	e.size = info.Size()
	return e, nil
}

func (f *folder) open(_ context.Context, e entry) (io.ReadCloser, error) {
	return f.root.Open(filepath.FromSlash(e.path))
}
func (f *folder) place(p string) string { return printable(path.Join(f.name, p)) }
func (f *folder) title() string         { return f.place(f.pattern) }
func (f *folder) nothing() string {
	if f.pattern != "" {
		return "no file matches " + f.title()
	}
	return f.title() + " holds no files"
}
func (f *folder) several() bool      { return true }
func (f *folder) local(entry) string { return "" }

// Close implements io.Closer.
func (f *folder) Close() error { return f.root.Close() }

// splitGlob splits a path before the first part of it that has a *, ? or [ in it.
// Without one the pattern is empty.
func splitGlob(p string) (base, pattern string) {
	i := strings.IndexAny(p, "*?[")
	if i < 0 {
		return p, ""
	}
	cut := strings.LastIndexByte(p[:i], '/') + 1
	if base = strings.TrimRight(p[:cut], "/"); base == "" && cut > 0 {
		base = "/"
	}
	return base, p[cut:]
}

func checkGlob(pattern string) error {
	for part := range strings.SplitSeq(pattern, "/") {
		if _, err := path.Match(part, ""); err != nil {
			return fmt.Errorf("%s: %w", pattern, err)
		}
	}
	return nil
}

// matches reports whether a pattern that checkGlob likes matches a path. A part ** of
// it stands for any number of folders. The empty pattern matches all.
func matches(pattern, p string) bool {
	if pattern == "" {
		return true
	}
	first, rest, more := strings.Cut(pattern, "/")
	name, below, deeper := strings.Cut(p, "/")
	if first == "**" {
		if !more {
			return true
		}
		return matches(rest, p) || deeper && matches(pattern, below)
	}
	if ok, _ := path.Match(first, name); !ok || more != deeper {
		return false
	}
	return !more || matches(rest, below)
}
