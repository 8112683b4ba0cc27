package input

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"
	"strconv"
	"strings"

	"upwell/jobs"
)

// A Problem is something wrong with a line, a row or a document.
type Problem struct {
	Place  string // file:12, or the path of a document
	Field  string // of the job, or the column; or empty
	Reason string
}

// An InvalidError lists what is wrong with the input.
type InvalidError struct {
	File     string
	Problems []Problem // the first of them, by place
	Total    int

	noun       string // what is listed
	unreadable bool   // some are documents that can be left out
}

func (e *InvalidError) Error() string {
	noun := e.noun
	if e.Total == 1 {
		noun = strings.TrimSuffix(noun, "s")
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %d %s cannot be submitted, so nothing was:", e.File, e.Total, noun)
	for _, p := range e.Problems {
		fmt.Fprintf(&b, "\n  %s: ", p.Place)
		if p.Field != "" {
			b.WriteString(p.Field + ": ")
		}
		b.WriteString(p.Reason)
	}
	if more := e.Total - len(e.Problems); more > 0 {
		fmt.Fprintf(&b, "\n  … and %d more", more)
	}
	if e.unreadable {
		b.WriteString("\n--skip-unreadable leaves documents out that cannot be read")
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

	// Warnings say what was left out, one line each.
	Warnings []string
}

// Check reads everything as jobs of the run, and returns an [*InvalidError] if any
// line, row or document does not make one, is not of the run, has an id that an
// earlier one has, or if fits, which is given the job and its line, reports an error.
// Check calls fits for one job after another.
func Check(ctx context.Context, f *File, run string, fits func(jobs.Job, []byte) error) (Summary, error) {
	c := &checker{
		file: f, run: run, fits: fits, ids: newDuplicates(), hash: sha256.New(),
		sum: Summary{Models: make(map[string]int)},
		bad: &InvalidError{File: f.Name, noun: f.noun()},
	}
	defer c.ids.close()
	if err := c.read(ctx); err != nil {
		return c.sum, err
	}
	c.sum.SHA256 = hex.EncodeToString(c.hash.Sum(nil))
	if err := c.reportDuplicates(); err != nil {
		return c.sum, err
	}
	switch {
	case c.bad.Total > 0:
		return c.sum, c.bad
	case c.sum.Count == 0:
		return c.sum, fmt.Errorf("%s: no jobs in it: want %s", f.Name, f.wanted())
	}
	return c.sum, nil
}

// A checker draws up what there is to say about a file.
type checker struct {
	file *File
	run  string
	fits func(jobs.Job, []byte) error
	ids  *duplicates
	hash hash.Hash
	sum  Summary
	bad  *InvalidError
}

func (f *File) noun() string {
	switch {
	case f.source == nil:
		return "lines"
	case f.source.tables:
		return "rows"
	default:
		return "documents"
	}
}

func (f *File) wanted() string {
	switch {
	case f.source == nil:
		return "an OpenAI batch file, one JSON object on a line"
	case f.source.tables:
		return "a table with at least one row"
	default:
		return "at least one document that can be read"
	}
}

// read takes in every job that there is. What was read once is in the spool.
func (c *checker) read(ctx context.Context) error {
	f := c.file
	switch {
	case f.spool != nil || f.path != "":
		r, err := f.open(&f.progress.Bytes)
		if err != nil {
			return err
		}
		defer r.Close()
		return c.lines(ctx, r)
	case f.source != nil:
		return f.spooling(func(s *spool) error { return c.render(ctx, s) })
	default:
		return f.spooling(func(s *spool) error {
			return c.lines(ctx, io.TeeReader(f.stream, s))
		})
	}
}

// lines takes in the lines of a batch file.
func (c *checker) lines(ctx context.Context, r io.Reader) error {
	for line, err := range c.file.lines(r) {
		if err = errors.Join(err, context.Cause(ctx)); err != nil {
			return err
		}
		job, err := jobs.Parse(line.Text, c.run)
		if err := c.take(line, job, err); err != nil {
			return err
		}
		c.file.progress.Records.Add(1)
	}
	return nil
}

// take takes in one job; bad is what was wrong with its text.
func (c *checker) take(line Line, job jobs.Job, bad error) error {
	c.hash.Write(line.Text)
	c.hash.Write([]byte{'\n'})
	if err := c.verdict(line, job, bad); err != nil {
		c.report(c.file.at(line), err)
	}
	c.sum.Count++
	c.sum.Bytes += int64(len(job.Body))
	c.sum.Models[job.Model]++
	if job.CustomID == "" {
		return nil
	}
	return c.ids.add(job.CustomID, line.N)
}

func (c *checker) verdict(line Line, job jobs.Job, err error) error {
	if err == nil {
		err = c.fits(job, line.Text)
	}
	if err == nil && job.Run != c.run {
		err = &jobs.FormatError{Field: "upwell.run", Reason: fmt.Sprintf("%q, but this is run %q: name it with --run, or leave it out", job.Run, c.run)}
	}
	return err
}

// report adds what is wrong at a place to the list.
func (c *checker) report(place string, err error) {
	p := Problem{Place: place, Reason: err.Error()}
	if e, ok := errors.AsType[*jobs.FormatError](err); ok {
		p.Field, p.Reason = e.Field, e.Reason
	}
	if e, ok := errors.AsType[*rowError](err); ok {
		p.Field, p.Reason = e.field, e.reason
	}
	c.add(p)
}

func (c *checker) add(p Problem) {
	if c.bad.Total++; len(c.bad.Problems) < listed {
		c.bad.Problems = append(c.bad.Problems, p)
	}
}

// reportDuplicates looks at the lines whose ids may be equal once more, as the
// bookkeeping knows hashes only.
func (c *checker) reportDuplicates() error {
	pairs, total, err := c.ids.pairs(listed)
	if err != nil || len(pairs) == 0 {
		return err
	}
	type named struct{ id, place string }
	names := make(map[int]named)
	for _, p := range pairs {
		names[p.first], names[p.second] = named{}, named{}
	}
	for line, err := range c.file.Lines() {
		if err != nil {
			return err
		}
		if _, wanted := names[line.N]; wanted {
			job, _ := jobs.Parse(line.Text, c.run) // a bad one is reported already
			names[line.N] = named{job.CustomID, c.file.at(line)}
		}
	}
	c.bad.Total += total - len(pairs) // they hold for equal: two in 2^64 would be by chance
	for _, p := range pairs {
		first, second := names[p.first], names[p.second]
		if first.id != second.id {
			continue
		}
		where := fmt.Sprintf("on line %d", p.first)
		if c.file.source != nil {
			where = "at " + first.place
		}
		c.add(Problem{second.place, "custom_id", fmt.Sprintf("%q is used %s: ids are unique in a run", first.id, where)})
	}
	slices.SortStableFunc(c.bad.Problems, byPlace)
	return nil
}

// byPlace compares problems by file and line.
func byPlace(a, b Problem) int {
	fileA, lineA := lineOf(a.Place)
	fileB, lineB := lineOf(b.Place)
	return cmp.Or(strings.Compare(fileA, fileB), cmp.Compare(lineA, lineB))
}

// lineOf splits file:12. Without a line, all of it is the file.
func lineOf(place string) (file string, line int) {
	i := strings.LastIndexByte(place, ':')
	if line, err := strconv.Atoi(place[i+1:]); i >= 0 && err == nil {
		return place[:i], line
	}
	return place, 0
}
