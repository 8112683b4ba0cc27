package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
)

// errInUse says that another process has the folder.
var errInUse = errors.New("is in use by another upwell: let that end, or give another folder")

// lockFolder keeps other processes out of the folder of a run, until the function that it
// returns is called.
func lockFolder(dir string) (unlock func(), err error) {
	unlock, err = lock(filepath.Join(dir, ".upwell.lock"))
	switch {
	case errors.Is(err, errInUse):
		return nil, fail(exitUsage, fmt.Errorf("%s %w", dir, err))
	case err != nil:
		return nil, fail(exitUsage, fmt.Errorf("%s cannot be worked in: %w", dir, err))
	}
	return unlock, nil
}

// lines is a file in the making. It appears under its name when it is whole, and
// not at all when it would be empty.
type lines struct {
	path string
	f    *os.File // nil once committed or abandoned
	w    *bufio.Writer
	n    int
}

func newLines(path string) (*lines, error) {
	if err := ignoreMissing(os.Remove(path + ".tmp")); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path+".tmp", os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666) // never what a link refers to
	if err != nil {
		return nil, err
	}
	return &lines{path: path, f: f, w: bufio.NewWriter(f)}, nil
}

// copy appends the line stored under name, and reports whether there is one.
func (l *lines) copy(root *os.Root, name string) (bool, error) {
	f, err := root.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	l.n++
	_, err = io.Copy(l.w, f)
	return true, err
}

func (l *lines) commit() error {
	err := errors.Join(l.w.Flush(), l.f.Close())
	l.f = nil
	if err != nil || l.n == 0 {
		return errors.Join(err, os.Remove(l.path+".tmp"), ignoreMissing(os.Remove(l.path)))
	}
	return os.Rename(l.path+".tmp", l.path)
}

// abandon removes what was not committed.
func (l *lines) abandon() {
	if l.f != nil {
		_ = l.f.Close()
		_ = os.Remove(l.path + ".tmp")
	}
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// atLeast is a handler that passes only what is severe.
type atLeast struct {
	slog.Handler
	level slog.Level
}

// Enabled implements slog.Handler.
func (h atLeast) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level }
