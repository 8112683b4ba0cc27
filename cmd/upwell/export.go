package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"upwell/cmd/internal/awsconf"
	"upwell/cmd/internal/progress"
	"upwell/sink"
	"upwell/sink/account"
	"upwell/sink/s3sink"
	"upwell/sink/table"
)

// exportCmd writes a run's lines as tables.
type exportCmd struct {
	RunName string `arg:"" name:"run" placeholder:"RUN" help:"Name of the run."`
	Output  string `name:"output" short:"o" required:"" placeholder:"FILE|DIR/|s3://…" help:"File to write, - for standard output, or folder (it exists, or ends in /), or place in a bucket, for files part-00000 and so on and _SUCCESS."`
	readFlags

	Format       string   `short:"f" enum:",jsonl,csv,parquet" default:"" placeholder:"FORMAT" help:"jsonl, csv or parquet. Default: what the file's name ends in."`
	Columns      []string `placeholder:"NAME=PATH:TYPE" help:"Columns to write, separated by commas; NAME and TYPE may be left out. Default: all of them, and for jsonl the stored lines as they are."`
	PartitionBy  []string `enum:"run,date" placeholder:"run,date" help:"Folders in Hive's layout, run=NAME/date=DAY: by run, by the day (UTC) that a job was finished, or both."`
	MaxFileMiB   int      `name:"max-file-mib" default:"0" placeholder:"256" help:"Begin a new file at about so many MiB, 4096 at most. A single FILE has no bound."`
	Unordered    bool     `help:"Write rows in the order of storage, which needs no index of the submitted ids, instead of that of the input."`
	AnsweredOnly bool     `help:"Leave out jobs that failed."`
	AllowPartial bool     `help:"Export what there is of a run that does not balance, or is not finished, and say so in _SUCCESS."`
	JSON         bool     `name:"json" help:"Say in JSON what was written, and show progress as JSON lines."`
	Quiet        bool     `short:"q" help:"No progress."`
}

// Help says what a table has.
func (c *exportCmd) Help() string {
	return `Writes each submitted job once, in the order of the input: its answer, or else the reason why it has none. The run's account is drawn
up before (see upwell verify); if a job is missing, nothing is written and the exit code is 1.

  upwell export nightly --bucket results -o nightly.parquet
  upwell export nightly --dir out -o nightly.csv --columns custom_id,status,risk=output.summary.risk:int64
  upwell export nightly --bucket results -o s3://lake/reviews/ --format parquet --partition-by run,date

Columns are custom_id and status (answered or failed); the fields of the run's JSON Schema, those of objects within as outer_inner, or
output_text and output when the run has no schema or several; then model, tier, region, input_tokens, cached_tokens, output_tokens,
reasoning_tokens, cost_usd, repairs, attempts, request_id, input_sha256, finished, run, error_code and error_message. A PATH is one of
these, or goes into the answer, as output.parties[0].name does. A TYPE is string, int64, double, bool, date, timestamp or json, or one of
them with [] for a list; by default it is what the schema says, or else string. A value that does not fit is an error that names the job.

jsonl without --columns has the stored lines byte for byte: OpenAI's output and error lines. In csv, null is the empty field.

A FILE appears when it is whole; a pipe or a device is written to as it is. A folder is whole when it has _SUCCESS: an export over an earlier one of the same run removes that
first, then the old files, and writes it anew at the end. With --partition-by run, each run=NAME has its own, so one table can have many
runs. It is read with, for example, DuckDB:

  select status, count(*) from read_parquet('reviews/**/*.parquet', hive_partitioning = true) group by all`
}

const (
	// exportWindow is how many lines are read at once: at 20 ms each, 128 make 6,000
	// a second.
	exportWindow = 128

	// exportBytes bounds the lines that are read and not yet written.
	exportBytes = 64 << 20

	// defaultFile is the size of a file in a folder, in MiB: what Athena and Spark
	// like to read, and not too much to write again.
	defaultFile = 256

	// maxFile leaves room for the last row group below the 5 GiB that S3 takes at
	// once.
	maxFile = 4096
)

// Run exports the run.
func (c *exportCmd) Run(ctx context.Context, e env) error {
	layout, err := c.layout()
	if err != nil {
		return fail(exitUsage, err)
	}
	e = e.shows(c.JSON, c.Quiet || c.toStdout() && toTerminal(e)) // rows and progress do not go together
	from, err := c.open(ctx, e, exportWindow)
	if err != nil {
		return err
	}
	defer from.close()
	x := &export{exportCmd: c, env: e, from: from}
	if err := x.prepare(ctx, layout.Format); err != nil {
		return x.stopped(ctx, err)
	}
	if err := x.survey(ctx); err != nil {
		return x.stopped(ctx, err)
	}
	layout.Meta = map[string]string{"upwell.run": c.RunName, "upwell.version": version(), "upwell.partial": fmt.Sprint(x.partial)}
	return x.stopped(ctx, x.write(ctx, layout))
}

// layout returns what the flags say about files, as far as they make sense together.
func (c *exportCmd) layout() (l table.Layout, err error) {
	l.Format = table.Format(c.Format)
	if c.Format == "" {
		var ok bool
		if l.Format, ok = table.FormatOf(c.Output); !ok && c.Output == "-" {
			l.Format, ok = table.JSONL, true
		}
		if !ok {
			return l, fmt.Errorf("--format: want jsonl, csv or parquet, as the name %s does not say which", c.Output)
		}
	}
	switch by := strings.Join(c.PartitionBy, ","); by {
	case "", "run":
	case "date", "run,date":
		l.ByDate = true
	default:
		return l, fmt.Errorf("--partition-by %s: want run, date, or run,date", by)
	}
	switch single := c.single(); {
	case c.MaxFileMiB < 0 || c.MaxFileMiB > maxFile:
		return l, fmt.Errorf("--max-file-mib %d: want 1 to %d", c.MaxFileMiB, maxFile)
	case single && c.MaxFileMiB > 0:
		return l, fmt.Errorf("--max-file-mib is for many files: end %s in / to make a folder of it", c.Output)
	case single && len(c.PartitionBy) > 0:
		return l, fmt.Errorf("--partition-by makes folders: end %s in / to make one of it", c.Output)
	case !single:
		l.FileSize = int64(cmp.Or(c.MaxFileMiB, defaultFile)) << 20
	}
	return l, nil
}

// single reports whether the output is one file.
func (c *exportCmd) single() bool {
	if strings.HasPrefix(c.Output, "s3://") || strings.HasSuffix(c.Output, "/") || strings.HasSuffix(c.Output, string(filepath.Separator)) {
		return false
	}
	info, err := os.Stat(c.Output)
	return c.toStdout() || err != nil || !info.IsDir()
}

// toStdout reports whether the output is standard output.
func (c *exportCmd) toStdout() bool { return c.Output == "-" || c.Output == "/dev/stdout" }

// table returns the table that the flags and the run's schema make.
func (c *exportCmd) table(m sink.Manifest, format table.Format) (*table.Table, error) {
	if len(c.Columns) == 0 && format == table.JSONL {
		return table.New(nil), nil
	}
	catalog, err := table.NewCatalog(m.Schemas, c.PartitionBy...)
	if err != nil && len(c.Columns) == 0 {
		return nil, err
	}
	columns := catalog.Default(c.PartitionBy...)
	if len(c.Columns) > 0 {
		if columns, err = catalog.Choose(c.Columns); err != nil {
			return nil, fmt.Errorf("--columns: %w", err)
		}
	}
	for _, col := range columns {
		if slices.ContainsFunc(c.PartitionBy, func(by string) bool { return strings.EqualFold(by, col.Name) }) {
			return nil, fmt.Errorf("--columns: %s is in the names of the folders: call the column otherwise, as in other=%s", col.Name, col.Name)
		}
	}
	return table.New(columns), nil
}

// target returns where the files go. The bucket, if it is one, has been seen to be
// there.
func (c *exportCmd) target(ctx context.Context, e env) (table.Target, error) {
	if url, ok := strings.CutPrefix(c.Output, "s3://"); ok {
		conf, err := awsconf.Load(ctx, awsconf.Options{Profile: c.Profile, Log: e.log})
		if err != nil {
			return nil, fail(exitConfig, err)
		}
		bucket, prefix, _ := strings.Cut(url, "/")
		folder := s3sink.NewFolder(s3sink.NewClient(conf), bucket, strings.Trim(prefix, "/")+c.runFolder())
		return folder, fail(exitConfig, folder.Check(ctx))
	}
	if c.single() {
		target, err := c.file(e)
		return target, fail(exitUsage, err)
	}
	dir := filepath.Join(c.Output, c.runFolder())
	if info, err := os.Stat(dir); err == nil && !info.IsDir() {
		return nil, fail(exitUsage, fmt.Errorf("%s is a file: leave out the / to replace it, or give the name of a folder", dir))
	}
	return table.NewFolder(dir), nil
}

// file returns the target that is one file. What a symbolic link leads to is replaced
// when the new one is whole, and what cannot be replaced is written to.
func (c *exportCmd) file(e env) (table.Target, error) {
	if c.toStdout() {
		return table.Stream{To: e.stdout.to}, nil
	}
	info, err := os.Stat(c.Output)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return c.newFile()
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		out, err := os.OpenFile(c.Output, os.O_WRONLY, 0)
		return table.Stream{To: out}, err
	default:
		path, err := filepath.EvalSymlinks(c.Output)
		return table.File(path), err
	}
}

// newFile returns the target of a file that there is not yet.
func (c *exportCmd) newFile() (table.Target, error) {
	if to, err := os.Readlink(c.Output); err == nil {
		return nil, fmt.Errorf("%s is a link to %s, which is not there: remove the link, or give the file's own name", c.Output, to)
	}
	_, err := os.Stat(filepath.Dir(c.Output))
	return table.File(c.Output), err
}

// runFolder returns the part of a path that partitions by run, or nothing.
func (c *exportCmd) runFolder() string {
	if !slices.Contains(c.PartitionBy, "run") {
		return ""
	}
	return "/run=" + hive(c.RunName)
}

// hive returns a value as Hive writes it in a path. It is always the name of one
// folder.
func hive(value string) string {
	var b strings.Builder
	for _, r := range []byte(value) {
		if r <= ' ' || r >= 0x7f || strings.IndexByte(`"#%'*/:=?\{}[]^`, r) >= 0 {
			fmt.Fprintf(&b, "%%%02X", r)
		} else {
			b.WriteByte(r)
		}
	}
	return b.String()
}

// An export is one call of the verb.
type export struct {
	*exportCmd
	env
	from     reading
	manifest sink.Manifest // the zero value if there is none
	table    *table.Table
	target   table.Target
	report   account.Report
	drawn    bool // there is a report
	partial  bool
}

// prepare does what can go wrong before the account is drawn up, which takes a while.
func (x *export) prepare(ctx context.Context, format table.Format) (err error) {
	if x.manifest, err = x.from.Manifest(ctx, x.RunName); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fail(exitConfig, err)
	}
	if x.table, err = x.exportCmd.table(x.manifest, format); err != nil {
		return fail(exitUsage, err)
	}
	if x.target, err = x.exportCmd.target(ctx, x.env); err != nil || x.single() {
		return err
	}
	return x.placed(table.Vet(ctx, x.target, x.RunName))
}

// placed says what is wrong with the place that the files go to.
func (x *export) placed(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, table.ErrForeign):
		return fail(exitUsage, fmt.Errorf("%s: %w", x.Output, err))
	default:
		return fail(exitConfig, fmt.Errorf("%s: %w", x.Output, err))
	}
}

// survey finds out what there is to export, and refuses what is not all there.
func (x *export) survey(ctx context.Context) (err error) {
	opts := account.Options{Progress: new(account.Progress)}
	if x.from.queue != nil {
		opts.Queued = func(ctx context.Context) (int, error) {
			n, err := x.from.queue.Counts(ctx)
			return n.Total(), err
		}
	}
	stop := watch(x.env, opts.Progress, x.manifest.Count)
	x.report, err = account.Check(ctx, x.from, x.RunName, opts)
	stop()
	x.drawn = err == nil
	x.partial = err != nil || !x.report.Balanced() || x.report.StillQueued.Count > 0
	switch {
	case errors.Is(err, sink.ErrNoIndex):
		return x.unlisted(ctx)
	case err != nil && !(errors.Is(err, sink.ErrBadIndex) && x.Unordered && x.AllowPartial):
		return noAccount(ctx, x.RunName, err)
	case x.partial && !x.AllowPartial:
		return x.refuse()
	default:
		return nil
	}
}

// unlisted decides about a run of which nothing says what was submitted.
func (x *export) unlisted(ctx context.Context) error {
	if x.Unordered && x.AllowPartial {
		for _, kind := range []sink.Kind{sink.Results, sink.Errors} {
			if shards, err := x.from.Shards(ctx, x.RunName, kind); err != nil || len(shards) > 0 {
				return fail(exitConfig, err)
			}
		}
		return fail(exitUsage, fmt.Errorf("run %q: there is no such run in this bucket", x.RunName))
	}
	return fail(exitConfig, fmt.Errorf("run %q: nothing here says what was submitted, so nobody can tell whether all of it is there: correct the run's name, "+
		"bucket or prefix, or export what is stored with --unordered --allow-partial", x.RunName))
}

// refuse says why a run is not exported.
func (x *export) refuse() error {
	r, w := &x.report, x.stderr
	fmt.Fprintf(w, "run %s\n", x.RunName)
	progress.Table(w, accountRows(r))
	for _, f := range findings(r, x.Dir != "") {
		f.print(w)
	}
	if r.StillQueued.Count > 0 {
		return fail(exitFailed, fmt.Errorf("%d jobs of run %s are still queued: wait for them (upwell status %s --watch), or export what there is with --allow-partial; nothing was written",
			r.StillQueued.Count, x.RunName, x.RunName))
	}
	return fail(exitFailed, errors.New("the account does not balance: see above what to do, or export what there is with --allow-partial; nothing was written"))
}

// stopped says what became of an export that was not finished.
func (x *export) stopped(ctx context.Context, err error) error {
	if err == nil || ctx.Err() == nil {
		return err
	}
	if _, ok := x.target.(table.Stream); ok {
		return fail(exitInterrupted, errors.New("interrupted: what was written is not complete; run the same command again to write it anew"))
	}
	if x.single() {
		return fail(exitInterrupted, errors.New("interrupted; nothing was written, and what was there before still is: run the same command again"))
	}
	return fail(exitInterrupted, errors.New("interrupted: without _SUCCESS, what was written is not complete; run the same command again to write it anew"))
}

// write writes the table, and says how much it was.
func (x *export) write(ctx context.Context, layout table.Layout) error {
	start := time.Now()
	if err := x.begin(ctx); err != nil {
		return err
	}
	parts := table.NewParts(x.table, x.target, layout)
	defer parts.Discard()
	n, err := x.rows(ctx, parts)
	if err != nil {
		return err
	}
	if err := x.agrees(n); err != nil {
		return fail(exitFailed, err)
	}
	if err := parts.Close(ctx); err != nil {
		return fail(exitConfig, err)
	}
	if folder, ok := x.target.(*table.Dataset); ok {
		if err := folder.Finish(ctx, x.success(n, parts, layout)); err != nil {
			return fail(exitConfig, err)
		}
	}
	return x.conclude(n, parts, time.Since(start))
}

// begin makes a folder ready. A single file is not there until it is whole, and
// what was there before stays until then.
func (x *export) begin(ctx context.Context) error {
	if x.single() {
		return nil
	}
	folder, err := table.Begin(ctx, x.target, x.RunName)
	x.target = folder
	return x.placed(err)
}

// agrees verifies that what was written is what the account has. Of a run that
// is not finished there may be more by now.
func (x *export) agrees(n counts) error {
	want := x.report.Answered
	if !x.AnsweredOnly {
		want += x.report.Failed
	}
	if got := n.answered + n.failed; got < want || got > want && !x.partial {
		return fmt.Errorf("%d rows were read, but the account has %d jobs: the run changed in the meantime, so the export is not finished; run the same command again", got, want)
	}
	return nil
}

func (x *export) success(n counts, parts *table.Parts, layout table.Layout) table.Success {
	s := table.Success{
		Run: x.RunName, Format: layout.Format, Rows: n.answered + n.failed, Answered: n.answered, Failed: n.failed,
		Partial: x.partial, Files: parts.Files, Bytes: parts.Bytes, Version: version(),
	}
	if x.partial && !x.AnsweredOnly {
		s.Missing = max(0, x.manifest.Count-s.Rows) // 0 when nobody knows
	}
	for _, c := range x.table.Columns {
		s.Columns = append(s.Columns, c.Name)
	}
	return s
}

// exported is how it ended, in JSON.
type exported struct {
	Run      string  `json:"run"`
	Output   string  `json:"output"`
	Rows     int     `json:"rows"`
	Answered int     `json:"answered"`
	Failed   int     `json:"failed"`
	Bytes    int64   `json:"bytes"`
	Files    int     `json:"files"`
	Seconds  float64 `json:"seconds"`
	Partial  bool    `json:"partial"`
	Why      string  `json:"why_partial,omitzero"`
}

// conclude prints the last line.
func (x *export) conclude(n counts, parts *table.Parts, took time.Duration) error {
	out := x.stderr
	if !x.toStdout() {
		out = x.stdout
	}
	rows := n.answered + n.failed
	if x.JSON {
		end := exported{x.RunName, x.Output, rows, n.answered, n.failed, parts.Bytes, parts.Files, took.Seconds(), x.partial, ""}
		if x.partial {
			end.Why = x.reservation()
		}
		x.warn(n)
		return json.NewEncoder(out).Encode(end)
	}
	fmt.Fprintf(out, "run %s: %d rows (%d answered, %d failed), %s in %s, %.1f s, %.0f rows/s: %s\n",
		x.RunName, rows, n.answered, n.failed, mebibytes(parts.Bytes), files(parts.Files), took.Seconds(), float64(rows)/took.Seconds(), x.Output)
	if x.partial {
		fmt.Fprintln(out, x.reservation())
	}
	x.warn(n)
	return nil
}

// reservation says why a partial export is one.
func (x *export) reservation() string {
	switch {
	case x.manifest.Version == 0:
		return "this may not be all of the run: nothing here says how many jobs were submitted"
	case !x.drawn:
		return fmt.Sprintf("this may not be all of the run: %d jobs were submitted, and nothing here says which", x.manifest.Count)
	case x.report.Missing.Count+x.report.StillQueued.Count == 0:
		return fmt.Sprintf("no job is missing, but the account does not balance: see upwell verify %s", x.RunName)
	default:
		return fmt.Sprintf("this is not all of the run: %d jobs were submitted", x.manifest.Count)
	}
}

// warn says what may not have been meant.
func (x *export) warn(n counts) {
	if len(x.Columns) == 0 && n.bare > 0 {
		fmt.Fprintf(x.stderr, "upwell: %d answers have none of the schema's fields: see what they are with --columns custom_id,output_text\n", n.bare)
	}
	for i, c := range x.table.Columns {
		if rows := n.answered + n.failed; len(x.Columns) > 0 && rows > 0 && n.nulls[i] == rows {
			fmt.Fprintf(x.stderr, "upwell: column %s is null in every row: is its path right?\n", c.Name)
		}
	}
}

func files(n int) string {
	if n == 1 {
		return "1 file"
	}
	return fmt.Sprintf("%d files", n)
}

func mebibytes(n int64) string {
	if n < 1<<20 {
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
}
