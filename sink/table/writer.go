package table

import (
	"bufio"
	"encoding/csv"
	"fmt"
	"io"
	"slices"
	"strings"

	"upwell/jobs/skim"
)

// A Format is a form of files.
type Format string

// The formats.
const (
	JSONL   Format = "jsonl"
	CSV     Format = "csv"
	Parquet Format = "parquet"
)

// Formats are all formats.
var Formats = []Format{JSONL, CSV, Parquet}

// FormatOf returns the format that the name of a file ends in.
func FormatOf(name string) (Format, bool) {
	i := strings.LastIndexByte(name, '.')
	f := Format(strings.ToLower(name[i+1:]))
	return f, i >= 0 && slices.Contains(Formats, f)
}

// A Writer encodes the rows of one file. It is not for concurrent use.
type Writer interface {
	// Write encodes a row. It may keep it, but not beyond Close.
	Write(r Row) error

	// Size is how large the file is so far, in bytes, but for what is held back
	// to be compressed.
	Size() int64

	// Held is how many bytes of memory that takes, about.
	Held() int

	// Flush writes what is held back. A Parquet file has a row group of it.
	Flush() error

	// Close writes what is left. It does not close the file.
	Close() error
}

// An Encoding is what a file is like beside its rows.
type Encoding struct {
	Format Format

	// Meta is what a Parquet file says of itself.
	Meta map[string]string

	// GroupSize bounds the rows that a Parquet writer holds, in bytes before
	// compression: a row group. [Parts] hold no more in all their files together.
	// Default: 64 MiB.
	GroupSize int
}

// Writer returns a writer of the table's rows to w.
func (t *Table) Writer(w io.Writer, enc Encoding) (Writer, error) {
	out := &counter{w: w}
	switch enc.Format {
	case JSONL:
		return &jsonWriter{table: t, out: out, buf: bufio.NewWriterSize(out, bufferSize)}, nil
	case CSV:
		return t.csv(out)
	case Parquet:
		return t.parquet(out, enc), nil
	default:
		return nil, fmt.Errorf("unknown format %q: want one of %v", enc.Format, Formats)
	}
}

const bufferSize = 64 << 10

// A counter counts what is written.
type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n += int64(n)
	return n, err
}

// A jsonWriter writes JSON lines.
type jsonWriter struct {
	table *Table
	out   *counter
	buf   *bufio.Writer
	line  []byte
	names [][]byte // of the columns, as JSON and with a colon
}

func (w *jsonWriter) Write(r Row) error {
	line := r.Line
	if len(w.table.Columns) > 0 {
		w.line = w.object(w.line[:0], r)
		line = w.line
	}
	if _, err := w.buf.Write(line); err != nil {
		return err
	}
	return w.buf.WriteByte('\n')
}

// object appends the row as a flat object.
func (w *jsonWriter) object(dst []byte, r Row) []byte {
	if w.names == nil {
		for _, c := range w.table.Columns {
			w.names = append(w.names, []byte(skim.Quote(c.Name)+":"))
		}
	}
	dst = append(dst, '{')
	for i, c := range w.table.Columns {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = c.Type.append(append(dst, w.names[i]...), r.cells[i])
	}
	return append(dst, '}')
}

func (w *jsonWriter) Size() int64  { return w.out.n + int64(w.buf.Buffered()) }
func (w *jsonWriter) Held() int    { return w.buf.Buffered() }
func (w *jsonWriter) Flush() error { return w.buf.Flush() }
func (w *jsonWriter) Close() error { return w.buf.Flush() }

// A csvWriter writes CSV.
type csvWriter struct {
	table *Table
	out   *counter
	buf   *bufio.Writer // which csv uses as its own, as it is large enough
	csv   *csv.Writer
	cells []string
}

func (t *Table) csv(out *counter) (*csvWriter, error) {
	buf := bufio.NewWriterSize(out, bufferSize)
	w := &csvWriter{table: t, out: out, buf: buf, csv: csv.NewWriter(buf), cells: make([]string, len(t.Columns))}
	return w, w.csv.Write(names(t.Columns))
}

func (w *csvWriter) Write(r Row) error {
	for i, c := range w.table.Columns {
		w.cells[i] = c.Type.format(r.cells[i])
	}
	if len(w.cells) == 1 && w.cells[0] == "" {
		_, err := w.buf.WriteString("\"\"\n") // readers skip an empty line
		return err
	}
	return w.csv.Write(w.cells)
}

func (w *csvWriter) Size() int64  { return w.out.n + int64(w.buf.Buffered()) }
func (w *csvWriter) Held() int    { return w.buf.Buffered() }
func (w *csvWriter) Close() error { return w.Flush() }

func (w *csvWriter) Flush() error {
	w.csv.Flush()
	return w.csv.Error()
}
