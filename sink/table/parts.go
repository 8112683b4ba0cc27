package table

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"slices"
)

// A Target is where files end up: a folder, one single file, or a place in a
// bucket. Names have slashes between their elements, and no others than this
// package's.
type Target interface {
	// Temp returns a new file to write to, which [Target.Put] or [Target.Drop] takes
	// back.
	Temp() (*os.File, error)

	// Put stores what was written to f, in the place of what is there.
	Put(ctx context.Context, name string, f *os.File) error

	// Drop does away with f.
	Drop(f *os.File)

	// Names returns the names of all files. An error ends it; it is the last pair.
	Names(ctx context.Context) iter.Seq2[string, error]

	// Read returns a small file. If there is none, the error is an
	// [io/fs.ErrNotExist].
	Read(ctx context.Context, name string) ([]byte, error)

	// Remove removes a file. If there is none, that is not an error.
	Remove(ctx context.Context, name string) error
}

// A Layout says how rows are spread over files.
type Layout struct {
	Encoding

	// FileSize is about how large a file grows, in bytes; a Parquet file may be
	// larger by a row group. 0 means that there is one, whatever its size.
	FileSize int64

	// ByDate partitions the rows by [Row.Day].
	ByDate bool
}

// maxOpen is how many files may be open at once: the days of a run that is spread over
// three months. A Parquet file of thirty columns costs about a MiB of memory, whatever
// it holds of [Encoding.GroupSize].
const maxOpen = 100

// Parts writes rows into files of a target. It is not for concurrent use.
type Parts struct {
	Files int   // that were begun
	Bytes int64 // of the files that were put

	table  *Table
	target Target
	layout Layout
	open   []*part // the one used last is the last
	held   int     // the sum of what these hold back, in bytes
	limit  int     // of held
}

// A part is a file in the making.
type part struct {
	day  string
	name string
	file *os.File
	Writer
}

// NewParts returns Parts that write the table's rows into target.
func NewParts(t *Table, target Target, layout Layout) *Parts {
	if layout.GroupSize == 0 {
		layout.GroupSize = defaultGroup
	}
	p := &Parts{table: t, target: target, layout: layout, limit: layout.GroupSize}
	if layout.FileSize > 0 {
		p.layout.GroupSize = int(min(int64(layout.GroupSize), layout.FileSize))
	}
	return p
}

// Write writes a row.
func (p *Parts) Write(ctx context.Context, r Row) error {
	f, err := p.part(ctx, r)
	if err != nil {
		return err
	}
	before := f.Held()
	if err := f.Write(r); err != nil {
		return fmt.Errorf("%s: %w", f.name, err)
	}
	p.held += f.Held() - before
	if p.layout.FileSize > 0 && f.Size() >= p.layout.FileSize {
		return p.finish(ctx, f)
	}
	return p.relieve()
}

// relieve has the file that holds most write it, if all of them hold too much.
func (p *Parts) relieve() error {
	if p.held <= p.limit {
		return nil
	}
	f := slices.MaxFunc(p.open, func(a, b *part) int { return a.Held() - b.Held() })
	p.held -= f.Held()
	if err := f.Flush(); err != nil {
		return fmt.Errorf("%s: %w", f.name, err)
	}
	return nil
}

// part returns the file that the row belongs into.
func (p *Parts) part(ctx context.Context, r Row) (*part, error) {
	day := ""
	if p.layout.ByDate {
		day = r.Day
	}
	i := slices.IndexFunc(p.open, func(f *part) bool { return f.day == day })
	if i < 0 {
		return p.begin(ctx, day)
	}
	f := p.open[i]
	if last := len(p.open) - 1; i < last {
		p.open = append(slices.Delete(p.open, i, i+1), f)
	}
	return f, nil
}

// begin begins a file. If too many are open, the one that was not used for longest
// is finished.
func (p *Parts) begin(ctx context.Context, day string) (*part, error) {
	if len(p.open) == maxOpen {
		if err := p.finish(ctx, p.open[0]); err != nil {
			return nil, err
		}
	}
	tmp, err := p.target.Temp()
	if err != nil {
		return nil, err
	}
	f := &part{day: day, name: p.name(day), file: tmp}
	if f.Writer, err = p.table.Writer(tmp, p.layout.Encoding); err != nil {
		p.target.Drop(tmp)
		return nil, err
	}
	p.Files++
	p.open = append(p.open, f)
	p.held += f.Held()
	return f, nil
}

// unknownDay is what Hive calls the partition of rows whose value is not known.
const unknownDay = "__HIVE_DEFAULT_PARTITION__"

func (p *Parts) name(day string) string {
	name := fmt.Sprintf("part-%05d.%s", p.Files, p.layout.Format)
	switch {
	case !p.layout.ByDate:
		return name
	case day == "":
		day = unknownDay
	}
	return "date=" + day + "/" + name
}

// finish puts a file into its place.
func (p *Parts) finish(ctx context.Context, f *part) error {
	p.open = slices.DeleteFunc(p.open, func(o *part) bool { return o == f })
	p.held -= f.Held()
	if err := f.Close(); err != nil {
		p.target.Drop(f.file)
		return fmt.Errorf("%s: %w", f.name, err)
	}
	p.Bytes += f.Size()
	return p.target.Put(ctx, f.name, f.file)
}

// Close puts what is open into its place. If there were no rows at all, and no
// partitions, it puts a file without rows.
func (p *Parts) Close(ctx context.Context) error {
	if p.Files == 0 && !p.layout.ByDate {
		if _, err := p.begin(ctx, ""); err != nil {
			return err
		}
	}
	for len(p.open) > 0 {
		if err := p.finish(ctx, p.open[0]); err != nil {
			p.Discard()
			return err
		}
	}
	return nil
}

// Discard does away with what is open. After Close there is nothing.
func (p *Parts) Discard() {
	for _, f := range p.open {
		p.target.Drop(f.file)
	}
	p.open, p.held = nil, 0
}

// Names of what a dataset has beside its parts.
const (
	successName    = "_SUCCESS"
	incompleteName = "_INCOMPLETE"
)

// A Success is what is said of a dataset that is complete.
type Success struct {
	Run      string   `json:"run"`
	Format   Format   `json:"format"`
	Columns  []string `json:"columns,omitzero"`
	Rows     int      `json:"rows"`
	Answered int      `json:"answered"`
	Failed   int      `json:"failed"`
	Partial  bool     `json:"partial"` // of a run that does not balance, or is not finished
	Missing  int      `json:"missing,omitzero"`
	Files    int      `json:"files"`
	Bytes    int64    `json:"bytes"`
	Version  string   `json:"upwell"`
	Token    string   `json:"token,omitzero"` // of the export that is under way; only in _INCOMPLETE
}

// ErrForeign is the error of exporting to where something else is.
var ErrForeign = errors.New("choose an empty place, or one that an export of the same run was written to")
