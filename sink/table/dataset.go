package table

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// A Dataset is a [Target] that one export writes to. Another export that begins there
// takes it over.
type Dataset struct {
	Target
	note []byte // the text of its _INCOMPLETE, which no other export has
}

// Vet refuses with [ErrForeign] a target that holds anything but an earlier export of
// that run. It changes nothing.
func Vet(ctx context.Context, target Target, run string) error {
	empty, err := vet(ctx, target)
	if err != nil || empty {
		return err
	}
	return same(ctx, target, run)
}

// Begin makes a target ready for an export of a run, if [Vet] has nothing against it.
// It first takes away what says that an earlier one is complete, and then its files.
func Begin(ctx context.Context, target Target, run string) (*Dataset, error) {
	if err := Vet(ctx, target, run); err != nil {
		return nil, err
	}
	note, err := json.Marshal(Success{Run: run, Partial: true, Token: rand.Text()})
	if err != nil {
		return nil, err
	}
	if err := put(ctx, target, incompleteName, note); err != nil {
		return nil, err
	}
	if err := target.Remove(ctx, successName); err != nil {
		return nil, err
	}
	for name, err := range target.Names(ctx) {
		if err == nil && name != incompleteName {
			err = target.Remove(ctx, name)
		}
		if err != nil {
			return nil, err
		}
	}
	return &Dataset{target, note}, nil
}

// Put implements [Target]. It fails with [ErrTaken] when another export has begun.
func (d *Dataset) Put(ctx context.Context, name string, f *os.File) error {
	if err := d.verify(ctx); err != nil {
		d.Drop(f)
		return err
	}
	return d.Target.Put(ctx, name, f)
}

// verify returns an error unless no other export has begun here.
func (d *Dataset) verify(ctx context.Context) error {
	note, err := d.Read(ctx, incompleteName)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !bytes.Equal(note, d.note) {
		return ErrTaken
	}
	return err
}

// Finish says that the dataset is complete. If another export began at that moment,
// it takes that back.
func (d *Dataset) Finish(ctx context.Context, s Success) error {
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	if err := put(ctx, d, successName, append(text, '\n')); err != nil {
		return err
	}
	if err := d.verify(ctx); err != nil {
		return errors.Join(err, d.Remove(ctx, successName))
	}
	return d.Remove(ctx, incompleteName)
}

// ErrTaken is the error of writing to where another export has begun.
var ErrTaken = errors.New("another export is writing here: let it finish, or end it and run this one again")

// ours matches the names of what this package writes.
var ours = regexp.MustCompile(`^(date=[^/]+/)?part-\d{5,}\.(jsonl|csv|parquet)$|^` + successName + `$|^` + incompleteName + `$`)

// vet reports whether a target is empty. If there is anything that this package did
// not write, it returns an error.
func vet(ctx context.Context, target Target) (empty bool, err error) {
	empty = true
	for name, err := range target.Names(ctx) {
		switch {
		case err != nil:
			return false, err
		case !ours.MatchString(name) && !leftover(name):
			return false, fmt.Errorf("there is %s already: %w", name, ErrForeign)
		}
		empty = false
	}
	return empty, nil
}

// same verifies that what is in the target is an export of the run.
func same(ctx context.Context, target Target, run string) error {
	for _, name := range []string{successName, incompleteName} {
		text, err := target.Read(ctx, name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		var s Success
		if json.Unmarshal(text, &s) != nil || s.Run == "" {
			return fmt.Errorf("there is a %s of something else: %w", name, ErrForeign)
		}
		if s.Run != run {
			return fmt.Errorf("there is an export of run %q already: %w", s.Run, ErrForeign)
		}
		return nil
	}
	return fmt.Errorf("there are files, and neither %s nor %s says that they are an export: %w", successName, incompleteName, ErrForeign)
}

func put(ctx context.Context, target Target, name string, text []byte) error {
	f, err := target.Temp()
	if err != nil {
		return err
	}
	if _, err := f.Write(text); err != nil {
		target.Drop(f)
		return err
	}
	return target.Put(ctx, name, f)
}

// Beginning and end of the names of temporary files.
const (
	tempPrefix = ".upwell-"
	tempSuffix = ".tmp"
)

// leftover reports whether a name is that of a temporary file, which a killed export
// has left.
func leftover(name string) bool {
	base := filepath.Base(name)
	return strings.HasPrefix(base, tempPrefix) && strings.HasSuffix(base, tempSuffix)
}
