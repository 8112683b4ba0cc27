// Package input reads what a user submits: an OpenAI batch file, one job on a
// line.
//
// A file is read twice. [Check] reads it whole before anything is queued or
// paid for, and reports everything that is wrong with it, line by line; then
// [File.Jobs] yields its jobs. Neither keeps more than a line and a fixed amount
// of bookkeeping in memory, whatever the length of the file.
package input

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"upwell/jobs"
)

// maxLine bounds a line. It is well above what any queue takes, so that a line
// too long for the queue is reported with its own limit.
const maxLine = 32 << 20

// A File is a batch file that can be read more than once.
type File struct {
	Name string // as the user called it, for messages
	path string
	temp bool
}

// Open returns the file at path; "-" stands for stdin, which is copied to a
// temporary file first. Close removes that.
func Open(path string, stdin io.Reader) (*File, error) {
	if path == "-" {
		return spool(stdin)
	}
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, err
	case info.IsDir():
		return nil, fmt.Errorf("%s is a folder: want an OpenAI batch file, one JSON object on a line", path)
	}
	return &File{Name: path, path: path}, nil
}

func spool(r io.Reader) (*File, error) {
	tmp, err := os.CreateTemp("", "upwell-stdin-*.jsonl")
	if err != nil {
		return nil, err
	}
	f := &File{Name: "stdin", path: tmp.Name(), temp: true}
	_, err = io.Copy(tmp, r)
	if err = errors.Join(err, tmp.Close()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// Close releases what Open made.
func (f *File) Close() error {
	if f.temp {
		return os.Remove(f.path)
	}
	return nil
}

var notInRun = regexp.MustCompile(`[^A-Za-z0-9._-]+`)

// Run suggests a name for the run: the file's, without its extension.
func (f *File) Run() string {
	base := filepath.Base(f.Name)
	name := notInRun.ReplaceAllString(strings.TrimSuffix(base, filepath.Ext(base)), "-")
	if name = strings.Trim(name, ".-"); name == "" {
		return "default"
	}
	return name[:min(len(name), jobs.MaxRun)]
}

// A Line is one line of a file that is not blank.
type Line struct {
	N    int    // from 1
	Text []byte // without its end; valid until the next line
}

// Lines yields the file's lines. It stops at the first error, and after it.
func (f *File) Lines() iter.Seq2[Line, error] {
	return func(yield func(Line, error) bool) {
		r, err := os.Open(f.path)
		if err != nil {
			yield(Line{}, err)
			return
		}
		defer r.Close()
		s := bufio.NewScanner(r)
		s.Buffer(make([]byte, 64<<10), maxLine)
		for n := 1; s.Scan(); n++ {
			text := s.Bytes()
			if n == 1 {
				text = bytes.TrimPrefix(text, []byte("\ufeff"))
			}
			if text = bytes.TrimSpace(text); len(text) == 0 {
				continue
			}
			if !yield(Line{n, text}, nil) {
				return
			}
		}
		if err := s.Err(); err != nil {
			if errors.Is(err, bufio.ErrTooLong) {
				err = fmt.Errorf("a line is longer than %d MiB", maxLine>>20)
			}
			yield(Line{}, fmt.Errorf("%s: %w", f.Name, err))
		}
	}
}

// A Problem is something wrong with a line.
type Problem struct {
	Line   int
	Field  string // or empty
	Reason string
}

// An InvalidError lists what is wrong with a file.
type InvalidError struct {
	File     string
	Problems []Problem // the first of them, by line
	Total    int
}

func (e *InvalidError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %d lines cannot be submitted, so nothing was:", e.File, e.Total)
	if e.Total == 1 {
		b.Reset()
		fmt.Fprintf(&b, "%s: 1 line cannot be submitted, so nothing was:", e.File)
	}
	for _, p := range e.Problems {
		fmt.Fprintf(&b, "\n  %s:%d: ", e.File, p.Line)
		if p.Field != "" {
			b.WriteString(p.Field + ": ")
		}
		b.WriteString(p.Reason)
	}
	if more := e.Total - len(e.Problems); more > 0 {
		fmt.Fprintf(&b, "\n  … and %d more", more)
	}
	return b.String()
}

// listed is how many problems are listed.
const listed = 20

// A Summary is what Check learned about a file.
type Summary struct {
	Count  int
	Bytes  int64          // of the bodies
	SHA256 string         // of the lines, in hex
	Models map[string]int // jobs by model
}

// Check reads the whole file as jobs of the run, and returns an [*InvalidError]
// if any line is not one, is not of the run, has an id that an earlier line has,
// or of which fits, which is given the job as well, reports an error.
func Check(ctx context.Context, f *File, run string, fits func(jobs.Job, []byte) error) (Summary, error) {
	sum := Summary{Models: make(map[string]int)}
	bad := &InvalidError{File: f.Name}
	report := func(p Problem) {
		if bad.Total++; len(bad.Problems) < listed {
			bad.Problems = append(bad.Problems, p)
		}
	}
	ids := newDuplicates()
	defer ids.close()
	hash := sha256.New()
	for line, err := range f.Lines() {
		if err = errors.Join(err, context.Cause(ctx)); err != nil {
			return sum, err
		}
		hash.Write(line.Text)
		hash.Write([]byte{'\n'})
		job, p := check(line, run, fits)
		if p != nil {
			report(*p)
		}
		if job.CustomID != "" {
			if err := ids.add(job.CustomID, line.N); err != nil {
				return sum, err
			}
		}
		sum.Count++
		sum.Bytes += int64(len(job.Body))
		sum.Models[job.Model]++
	}
	sum.SHA256 = hex.EncodeToString(hash.Sum(nil))
	if err := f.reportDuplicates(ids, run, report); err != nil {
		return sum, err
	}
	switch {
	case bad.Total > 0:
		return sum, bad
	case sum.Count == 0:
		return sum, fmt.Errorf("%s: no jobs in it: want an OpenAI batch file, one JSON object on a line", f.Name)
	}
	return sum, nil
}

func check(line Line, run string, fits func(jobs.Job, []byte) error) (jobs.Job, *Problem) {
	job, err := jobs.Parse(line.Text, run)
	if err == nil {
		err = fits(job, line.Text)
	}
	if e, ok := errors.AsType[*jobs.FormatError](err); ok {
		return job, &Problem{line.N, e.Field, e.Reason}
	}
	if err != nil {
		return job, &Problem{line.N, "", err.Error()}
	}
	if job.Run != run {
		return job, &Problem{line.N, "upwell.run", fmt.Sprintf("%q, but this is run %q: name it with --run, or leave it out", job.Run, run)}
	}
	return job, nil
}

// reportDuplicates looks at the lines whose ids may be equal once more, as the
// bookkeeping knows hashes only.
func (f *File) reportDuplicates(ids *duplicates, run string, report func(Problem)) error {
	pairs, err := ids.pairs(listed)
	if err != nil || len(pairs) == 0 {
		return err
	}
	names := make(map[int]string)
	for _, p := range pairs {
		names[p.first], names[p.second] = "", ""
	}
	for line, err := range f.Lines() {
		if err != nil {
			return err
		}
		if _, wanted := names[line.N]; wanted {
			job, _ := jobs.Parse(line.Text, run) // a bad one is reported already
			names[line.N] = job.CustomID
		}
	}
	for _, p := range pairs {
		if names[p.first] == names[p.second] {
			report(Problem{p.second, "custom_id", fmt.Sprintf("%q is used on line %d: ids are unique in a run", names[p.first], p.first)})
		}
	}
	return nil
}

// An Item is a line and the job on it.
type Item struct {
	Line
	Job jobs.Job
}

// Jobs yields the file's jobs, after a [Check] found no fault with them. An error
// means that the file has changed since, or cannot be read any more.
func (f *File) Jobs(run string) iter.Seq2[Item, error] {
	return func(yield func(Item, error) bool) {
		for line, err := range f.Lines() {
			item := Item{Line: line}
			if err == nil {
				if item.Job, err = jobs.Parse(line.Text, run); err != nil {
					err = fmt.Errorf("%s:%d: changed since it was checked: %w", f.Name, line.N, err)
				}
			}
			if !yield(item, err) || err != nil {
				return
			}
		}
	}
}
