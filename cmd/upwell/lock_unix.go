//go:build unix

package main

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
)

// lock takes the file at path for this process, and returns how to let go of it.
// The system does so too when the process ends, however it ends. The error is errInUse
// if another has it. A file that may only be read can be taken.
func lock(path string) (func(), error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if errors.Is(err, fs.ErrPermission) {
		f, err = os.Open(path)
	}
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			err = errInUse
		}
		return nil, err
	}
	return func() { _ = f.Close() }, nil
}
