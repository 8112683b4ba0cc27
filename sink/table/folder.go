package table

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
)

// A Folder is a [Target] on disk. Its files appear whole under their names.
type Folder struct{ dir string }

// NewFolder returns a Folder of files in dir, which is made when there is the first
// one.
func NewFolder(dir string) Folder { return Folder{dir} }

// Temp implements [Target].
func (d Folder) Temp() (*os.File, error) {
	if err := os.MkdirAll(d.dir, 0o755); err != nil {
		return nil, err
	}
	return temp(d.dir)
}

func temp(dir string) (*os.File, error) {
	return os.OpenFile(filepath.Join(dir, tempPrefix+rand.Text()+tempSuffix), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o666)
}

// Put implements [Target].
func (d Folder) Put(_ context.Context, name string, f *os.File) error {
	path := filepath.Join(d.dir, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		drop(f)
		return err
	}
	return move(f, path)
}

// move gives f its name, once its bytes would survive a power failure.
func move(f *os.File, path string) error {
	err := errors.Join(f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}

// Drop implements [Target].
func (d Folder) Drop(f *os.File) { drop(f) }

func drop(f *os.File) {
	_ = f.Close()
	_ = os.Remove(f.Name())
}

// Names implements [Target].
func (d Folder) Names(context.Context) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		err := filepath.WalkDir(d.dir, func(path string, e fs.DirEntry, err error) error {
			if e == nil && errors.Is(err, fs.ErrNotExist) {
				return nil // there is no folder yet
			}
			if err != nil || e.IsDir() {
				return err
			}
			name, err := filepath.Rel(d.dir, path)
			if err == nil && !yield(filepath.ToSlash(name), nil) {
				return fs.SkipAll
			}
			return err
		})
		if err != nil {
			yield("", err)
		}
	}
}

// Read implements [Target].
func (d Folder) Read(_ context.Context, name string) ([]byte, error) {
	return os.ReadFile(filepath.Join(d.dir, name))
}

// Remove implements [Target]. A folder of a partition goes with its last file.
func (d Folder) Remove(_ context.Context, name string) error {
	path := filepath.Join(d.dir, filepath.FromSlash(name))
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if dir := filepath.Dir(path); dir != filepath.Clean(d.dir) {
		_ = os.Remove(dir) // or it is not empty
	}
	return nil
}

// A File is a [Target] that has place for one file. Whatever its name, it is put
// where the File is. It is for [Parts] alone: there is no place for what [Begin] and
// [Finish] write.
type File string

// Temp implements [Target].
func (f File) Temp() (*os.File, error) { return temp(filepath.Dir(string(f))) }

// Put implements [Target].
func (f File) Put(_ context.Context, _ string, tmp *os.File) error { return move(tmp, string(f)) }

// Drop implements [Target].
func (f File) Drop(tmp *os.File) { drop(tmp) }

// Names implements [Target]: there are none.
func (f File) Names(context.Context) iter.Seq2[string, error] {
	return func(func(string, error) bool) {}
}

// Read implements [Target].
func (f File) Read(_ context.Context, name string) ([]byte, error) {
	return nil, fmt.Errorf("%s: %w", name, fs.ErrNotExist)
}

// Remove implements [Target].
func (f File) Remove(context.Context, string) error { return nil }

// A Stream is a [Target] as a [File] is, for what is written to rather than replaced:
// a pipe, a device, or standard output. It has what was written so far, whatever
// becomes of the rest, and stays open.
type Stream struct {
	File
	To *os.File
}

// Temp implements [Target].
func (s Stream) Temp() (*os.File, error) { return s.To, nil }

// Put implements [Target].
func (s Stream) Put(context.Context, string, *os.File) error { return nil }

// Drop implements [Target].
func (s Stream) Drop(*os.File) {}
