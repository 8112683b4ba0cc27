package table

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"regexp"
	"strings"
)

// Begin makes a target ready for an export of a run. It refuses with [ErrForeign]
// one that holds anything but an earlier export of that run. Of such a one, it first
// takes away what says that it is complete, and then its files.
func Begin(ctx context.Context, target Target, run string) error {
	empty, err := vet(ctx, target)
	if err != nil {
		return err
	}
	if !empty {
		if err := same(ctx, target, run); err != nil {
			return err
		}
	}
	note, err := json.Marshal(Success{Run: run, Partial: true})
	if err != nil {
		return err
	}
	if err := put(ctx, target, incompleteName, note); err != nil {
		return err
	}
	if err := target.Remove(ctx, successName); err != nil {
		return err
	}
	for name, err := range target.Names(ctx) {
		if err == nil && name != incompleteName {
			err = target.Remove(ctx, name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Finish says of a target that it is complete.
func Finish(ctx context.Context, target Target, s Success) error {
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	if err := put(ctx, target, successName, append(text, '\n')); err != nil {
		return err
	}
	return target.Remove(ctx, incompleteName)
}

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
