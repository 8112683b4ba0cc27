package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/service/s3"

	"upwell/cmd/internal/awsconf"
	"upwell/cmd/internal/input"
	"upwell/cmd/internal/progress"
	"upwell/cmd/internal/prompt"
	"upwell/jobs"
	"upwell/sink/s3sink"
)

// inputHelp is the help of the argument that names what is submitted.
const inputHelp = "OpenAI batch file (JSONL, also as .gz or .zst); with --template a document, a table (CSV, JSONL, Parquet), or a folder, quoted glob or s3:// prefix of either; - for standard input."

// inputFlags say how to read what is submitted.
type inputFlags struct {
	Template string `group:"Input:" type:"existingfile" placeholder:"FILE" env:"UPWELL_TEMPLATE" help:"Template that makes a job of each document or row. Documents are .txt .md .html .docx .pdf .png .jpg, rows come from CSV, JSON lines or Parquet."`

	recordFlags
}

// recordFlags say how to read what a template is filled in with.
type recordFlags struct {
	Format         string   `group:"Input:" enum:",csv,jsonl,parquet" default:"" env:"UPWELL_FORMAT" help:"What the tables are: csv, jsonl or parquet. Default: what their names and contents say."`
	Delimiter      string   `group:"Input:" placeholder:"CHAR" env:"UPWELL_DELIMITER" help:"What separates the fields of a CSV: a character, or tab. Default: what its first lines agree with."`
	Key            []string `group:"Input:" placeholder:"COLUMN" sep:"none" env:"UPWELL_KEY" help:"Column whose value names a row's job. May be repeated: the values are joined by a slash. Default: the template's key, or the number of the row."`
	SkipUnreadable bool     `group:"Input:" env:"UPWELL_SKIP_UNREADABLE" help:"List documents that cannot be read, such as scans without text, and go on without them."`

	profile string // of AWS, for s3:// URLs; empty for the environment's
}

// readTemplate reads the template, if there is one to read.
func (f *inputFlags) readTemplate() (*prompt.Template, error) {
	if f.Template == "" {
		if f.Format != "" || f.Delimiter != "" || len(f.Key) > 0 || f.SkipUnreadable {
			return nil, fail(exitUsage, errors.New("--format, --delimiter, --key and --skip-unreadable are for rows and documents: give --template as well"))
		}
		return nil, nil //nolint:nilnil // a batch file has none
	}
	t, err := prompt.Open(f.Template)
	return t, fail(exitUsage, err)
}

// openInput opens what is to be submitted, with the template that makes jobs of it, or
// nil. AWS is asked for only for s3:// URLs. except are paths of what is no input.
func (f *inputFlags) openInput(ctx context.Context, e env, arg string, except ...string) (*input.File, *prompt.Template, error) {
	t, err := f.readTemplate()
	if err != nil {
		return nil, nil, err
	}
	opts, err := f.options(e, t)
	if err != nil {
		return nil, nil, err
	}
	opts.Except = append(opts.Except, except...)
	file, err := input.Open(ctx, arg, opts)
	if ctx.Err() != nil {
		return nil, nil, fail(exitInterrupted, errors.New("interrupted; nothing was queued"))
	}
	return file, t, failInput(err)
}

// failInput says whether an error of an input is one of the input itself, or of the
// way to it.
func failInput(err error) error {
	if _, ok := errors.AsType[*input.AccessError](err); ok {
		return fail(exitConfig, err)
	}
	return fail(exitUsage, err)
}

// records yields the records that arg holds for a template.
func (f *recordFlags) records(ctx context.Context, e env, arg string, t *prompt.Template) iter.Seq2[prompt.Record, error] {
	opts, err := f.options(e, t)
	if err != nil {
		return func(yield func(prompt.Record, error) bool) { yield(prompt.Record{}, err) }
	}
	return input.Records(ctx, arg, opts)
}

func (f *recordFlags) options(e env, t *prompt.Template) (input.Options, error) {
	opts := input.Options{Stdin: e.stdin, Format: f.Format, Key: f.Key, SkipUnreadable: f.SkipUnreadable, S3: f.objectStore}
	if t != nil {
		opts.Template, opts.Except = t, t.Files()
	}
	switch r, size := utf8.DecodeRuneInString(f.Delimiter); {
	case f.Delimiter == "":
	case f.Delimiter == "tab", f.Delimiter == `\t`:
		opts.Delimiter = '\t'
	case size != len(f.Delimiter), r == '"', r == '\r', r == '\n', r == utf8.RuneError:
		return opts, fail(exitUsage, fmt.Errorf("--delimiter %q: want one character, such as ; or tab", f.Delimiter))
	default:
		opts.Delimiter = r
	}
	return opts, nil
}

// inspect is [input.Check] with its progress shown, and then what was left out.
func inspect(ctx context.Context, e env, file *input.File, run string, fits func(jobs.Job, []byte) error) (input.Summary, error) {
	stop := progress.NewTask(func() progress.Step { return readSoFar(file.Progress()) }).Show(e.console())
	sum, err := input.Check(ctx, file, run, fits)
	stop()
	for _, w := range sum.Warnings {
		fmt.Fprintln(e.stderr, "upwell:", w)
	}
	return sum, err
}

// readSoFar words how far the input has been read: in bytes, as nobody knows how many
// jobs there will be.
func readSoFar(p *input.Progress) progress.Step {
	n, done, total := p.Records.Load(), p.Bytes.Load(), p.Total.Load()
	s := progress.Step{What: "checking the input", Unit: "jobs", Done: n}
	if total > 0 {
		unit, size := "kB", int64(1e3)
		if total >= 1e8 {
			unit, size = "MB", 1e6
		}
		s.Done, s.Total, s.Unit, s.More = done/size, (total+size-1)/size, unit, fmt.Sprintf("%d jobs", n)
	}
	return s
}

// fetchers is how many objects are read at the same time.
const fetchers = 32

// objectStore returns a client for the objects of an input.
func (f *recordFlags) objectStore(ctx context.Context) (*s3.Client, error) {
	conf, err := awsconf.Load(ctx, awsconf.Options{Profile: f.profile, Connections: fetchers})
	if err != nil {
		return nil, err
	}
	return s3sink.NewClient(conf), nil
}

// join adds the schema of a template to those of the run, as its jobs name it.
func (s *schemas) join(t *prompt.Template) error {
	if t == nil {
		return nil
	}
	name, text := t.Schema()
	if other, twice := s.byName[name]; twice && !bytes.Equal(other, text) {
		return fmt.Errorf("--schema %s: the template has another schema of that name: give one of them another name", name)
	}
	if name != "" {
		s.byName[name] = text
	}
	return nil
}
