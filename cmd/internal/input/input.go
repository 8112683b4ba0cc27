// Package input makes of what a user submits one checked OpenAI batch file, one job
// on a line.
//
// What is submitted is such a file already, or, with a template, documents or rows:
// a document, a folder or a glob of them, a table (CSV, JSON lines or Parquet), a
// folder of tables, any of these in S3, or standard input. Rows and documents become
// records, and the template makes a job of each.
//
// [Open] looks at what there is. [Check] reads it whole before anything is queued or
// paid for, makes the jobs, and reports everything that is wrong, by place; then
// [File.Jobs] yields the jobs, as often as asked. A plain or compressed batch file is
// read where it lies. Everything else is read once: Check writes its jobs to a
// temporary file, which has no name where the system allows that, so that a kill
// leaves nothing behind.
//
// Memory holds a fixed number of rows or documents and some bookkeeping, whatever the
// length of the input. The bookkeeping of a folder is the names in it; of a prefix in
// S3 it is nothing, as the bucket is listed twice instead.
//
// # Ids
//
// The custom_id of a job comes from its content's key, so that the same input gives
// the same ids again:
//
//	document                 its path in the folder, glob or prefix: 2026/msa.pdf
//	single document          its name: msa.pdf
//	row, with a key          the value of the key column, or several joined by /
//	row of a single table    row-1, row-2, …
//	row of one of many       2026/rows.csv#row-1, …
//
// [FitID] says what becomes of one that is too long.
package input

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/aws/aws-sdk-go-v2/service/s3"

	"upwell/cmd/internal/document"
	"upwell/cmd/internal/prompt"
	"upwell/jobs"
)

// maxLine bounds a line. A job may be as long as its image of 20 MiB in base64, and
// some text.
const maxLine = 32 << 20

// A Template makes jobs of records. Its methods may be called concurrently.
type Template interface {
	// Job returns the record's job, as one line of a batch file. The same record
	// gives the same bytes.
	Job(prompt.Record) ([]byte, error)

	// Key returns the columns whose values name a row's job, or none.
	Key() []string

	// Text returns what the jobs depend on beside their records.
	Text() string
}

// Options say how to read what is submitted. The zero value is for a batch file.
type Options struct {
	// Stdin is what "-" stands for.
	Stdin io.Reader

	// Template makes jobs of rows and documents. Nil: the input is a batch file.
	Template Template

	// Format says that the files are tables, and of which kind: csv, jsonl or
	// parquet. Default: what the names and contents of the files say.
	Format string

	// Delimiter separates the fields of a CSV. Default: the one of comma,
	// semicolon, tab and | that its first lines are consistent with.
	Delimiter rune

	// Key names the columns whose values name a row's job, in the place of the
	// template's.
	Key []string

	// SkipUnreadable leaves documents out that cannot be read, such as scans
	// without text. Default: they are faults of the input.
	SkipUnreadable bool

	// S3 returns the client for s3:// URLs. It is called for those only.
	S3 func(context.Context) (*s3.Client, error)

	// Documents reads documents. Default: the zero [document.Reader].
	Documents *document.Reader

	// Except are paths of files and folders of this machine that are no input though
	// they lie in the folder that is: the template, and where the results go. There
	// need be nothing at them.
	Except []string

	// Progress is told how far Check is. Default: one that [File.Progress] returns.
	Progress *Progress
}

// Progress says how far a [Check] is. It may be read at any time.
type Progress struct {
	Records atomic.Int64 // lines, rows or documents
	Bytes   atomic.Int64 // of the files, as they are stored
	Total   atomic.Int64 // of Bytes in the end; 0 when nobody knows
}

// A File is a batch file that can be read more than once, after [Check] has.
type File struct {
	Name     string // as the user called it, for messages
	Template string // the text of the template that made the jobs, or empty

	run      string
	path     string    // of the user's own batch file, or empty
	stream   io.Reader // a batch file that can be read once; Check does
	source   *source   // rows or documents, or nil
	spool    *spool    // what was made of stream or source, or nil
	progress *Progress
	closers  []io.Closer
}

// Open returns what arg names: the path of a file or of a folder, a glob, an s3://
// URL of an object, of a prefix or with a glob in it, or - for standard input.
//
// An error says what to give instead. Close releases what Open made.
func Open(ctx context.Context, arg string, opts Options) (_ *File, err error) {
	if opts.Progress == nil {
		opts.Progress = new(Progress)
	}
	f := &File{Name: arg, progress: opts.Progress}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	if arg == "-" {
		f.Name = "stdin"
	}
	st, err := find(ctx, arg, &opts)
	if err != nil {
		return nil, err
	}
	f.run = runOf(st)
	f.closers = append(f.closers, st)
	if opts.Template == nil {
		return f, f.openBatch(ctx, st)
	}
	f.Template = opts.Template.Text()
	f.source, err = newSource(ctx, st, opts)
	return f, err
}

// openBatch opens what is a batch file already.
func (f *File) openBatch(ctx context.Context, st store) error {
	for e, err := range st.list(ctx) {
		if err != nil {
			return err
		}
		if st.several() {
			return fmt.Errorf("%s is a folder or several files: %s", f.Name, needsTemplate)
		}
		if p := st.local(e); p != "" {
			f.path = p
			r, err := os.Open(p)
			if err != nil {
				return err
			}
			defer r.Close()
			f.progress.Total.Store(e.size)
			_, err = f.batch(r, e.path)
			return err
		}
		r, err := st.open(ctx, e)
		if err != nil {
			return err
		}
		f.closers = append(f.closers, r)
		f.progress.Total.Store(e.size)
		f.stream, err = f.batch(counted{r, &f.progress.Bytes}, e.path)
		return err
	}
	return fmt.Errorf("%s: %s", st.nothing(), needsTemplate)
}

const needsTemplate = "give --template FILE, which makes a job of each row or document, or name an OpenAI batch file, one JSON object on a line"

// batch returns the text of a batch file, or an error if it is something else.
func (f *File) batch(r io.Reader, name string) (io.Reader, error) {
	text, err := expand(r)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.Name, err)
	}
	head, _ := text.Peek(sniffed) // what fails here fails again
	what := kindOf(name)
	switch found := sniff(head); {
	case found != "" && found != formatJSONL:
		what = found
	case found == formatJSONL && !rowsNotJobs(head):
		return text, nil
	case found == formatJSONL:
		what = formatJSONL
	case what == formatJSONL: // a bad line of it will be reported as such
		return text, nil
	}
	if what == "" {
		return text, nil
	}
	return nil, fmt.Errorf("%s is %s: %s", f.Name, a(what), needsTemplate)
}

// Close releases what Open and Check made.
func (f *File) Close() error {
	var err error
	for _, c := range slices.Backward(f.closers) {
		err = errors.Join(err, c.Close())
	}
	f.closers = nil
	return err
}

// Progress says how far the [Check] of the file is.
func (f *File) Progress() *Progress { return f.progress }

var notInRun = regexp.MustCompile(`[^A-Za-z0-9._-]+`)

// Run suggests a name for the run: the file's, without its extension, or the
// folder's.
func (f *File) Run() string { return f.run }

func runOf(st store) string {
	p, remote := strings.CutPrefix(st.place(""), "s3://")
	if abs, err := filepath.Abs(p); err == nil && !remote { // . and .. are names too
		p = abs
	}
	base := filepath.Base(p)
	if !st.several() {
		base = plainName(base)
		base = strings.TrimSuffix(base, filepath.Ext(base))
	}
	name := strings.Trim(notInRun.ReplaceAllString(base, "-"), ".-")
	if name == "" {
		return "default"
	}
	return name[:min(len(name), jobs.MaxRun)]
}

// A Line is one line of a file that is not blank.
type Line struct {
	N     int    // from 1
	Text  []byte // without its end; valid until the next line
	Place string // of the record that it was made of; empty where the user wrote the line
}

// at says where a line is, for messages.
func (f *File) at(l Line) string {
	if l.Place != "" {
		return l.Place
	}
	return fmt.Sprintf("%s:%d", f.Name, l.N)
}

// Lines yields the file's lines, after [Check] has read it. It stops at the first
// error, and after it.
func (f *File) Lines() iter.Seq2[Line, error] {
	return func(yield func(Line, error) bool) {
		r, err := f.open(new(atomic.Int64))
		if err != nil {
			yield(Line{}, err)
			return
		}
		defer r.Close()
		for line, err := range f.lines(r) {
			if !yield(line, err) {
				return
			}
		}
	}
}

// open returns the text of the file, for lines, and counts the bytes that are read of
// the user's own.
func (f *File) open(n *atomic.Int64) (io.ReadCloser, error) {
	switch {
	case f.spool != nil:
		return f.spool.open()
	case f.path == "":
		return nil, fmt.Errorf("%s: not checked yet", f.Name)
	}
	r, err := os.Open(f.path)
	if err != nil {
		return nil, err
	}
	text, err := expand(counted{r, n})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", f.Name, err), r.Close())
	}
	return closing{text, func() error { return errors.Join(text.Close(), r.Close()) }}, nil
}

// closing is a reader with something to do at its end.
type closing struct {
	io.Reader
	close func() error
}

// Close implements io.Closer.
func (c closing) Close() error { return c.close() }

// lines yields the lines of text. Those of a source end with their place.
func (f *File) lines(text io.Reader) iter.Seq2[Line, error] {
	return func(yield func(Line, error) bool) {
		s := bufio.NewScanner(text)
		s.Buffer(make([]byte, 64<<10), maxLine+maxPlace)
		for n := 1; s.Scan(); n++ {
			line := Line{N: n, Text: s.Bytes()}
			if f.source != nil {
				line.Text, line.Place = splitPlace(line.Text)
			} else if n == 1 {
				line.Text = bytes.TrimPrefix(line.Text, []byte(utf8BOM))
			}
			if line.Text = bytes.TrimSpace(line.Text); len(line.Text) == 0 {
				continue
			}
			if !yield(line, nil) {
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
					err = fmt.Errorf("%s: changed since it was checked: %w", f.at(line), err)
				}
			}
			if !yield(item, err) || err != nil {
				return
			}
		}
	}
}
