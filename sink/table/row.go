package table

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"time"
	"unsafe"

	"upwell/jobs/skim"
)

// A Table makes rows of lines. Its methods may be called concurrently.
type Table struct {
	Columns []Column

	answered, failed *plan // of the two kinds of lines
	finished         int   // the number of the hidden column that tells the day
}

// New returns a table of these columns. One without columns has rows that are the
// stored lines.
func New(columns []Column) *Table {
	t := &Table{Columns: columns, answered: new(plan), failed: new(plan), finished: len(columns)}
	for i, c := range columns {
		if c.way == status {
			continue
		}
		t.answered.add(c.at, i)
		if !c.answer {
			t.failed.add(c.at, i)
		}
	}
	for _, p := range []*plan{t.answered, t.failed} {
		p.add(path{member("upwell"), member("finished")}, t.finished)
	}
	return t
}

// A Row is a stored line and what its table has of it. It shares memory with the
// line.
type Row struct {
	CustomID string // as the line has it
	Line     []byte // one line of JSON, without its end
	Answered bool   // else it is the row of a failed job
	Day      string // of the job's end in UTC, as 2026-01-02; empty when not known
	cells    []Value
}

// Size is about how many bytes of memory the row takes. What was read to make it may
// have had as much room again as the line.
func (r Row) Size() int {
	n := 2 * len(r.Line)
	for _, v := range r.cells {
		n += int(unsafe.Sizeof(v)) + len(v.text)
	}
	return n
}

// ErrLine is the error of making a row of what is no line.
var ErrLine = errors.New("the stored line is not a JSON object")

// Row makes a row of a stored line, which must not change afterwards. A failed job's
// has null in the columns of the answer.
func (t *Table) Row(line []byte, answered bool) (Row, error) {
	line, err := oneLine(line)
	if err != nil {
		return Row{}, fmt.Errorf("%w: %w", ErrLine, err)
	}
	if kindOf(line) != "object" {
		return Row{}, fmt.Errorf("%w but %s", ErrLine, described(line))
	}
	found := make([][]byte, len(t.Columns)+1)
	plan := t.failed
	if answered {
		plan = t.answered
	}
	if err := plan.walk(line, found); err != nil {
		return Row{}, t.explain(line, err)
	}
	r := Row{CustomID: idOf(line), Line: line, Answered: answered, cells: make([]Value, len(t.Columns)), Day: day(found[t.finished])}
	for i, c := range t.Columns {
		if r.cells[i], err = c.cell(found[i], answered); err != nil {
			return Row{}, t.misfit(line, i, found[i])
		}
	}
	return r, nil
}

// Null reports whether the row has nothing in a column.
func (r Row) Null(column int) bool { return r.cells[column].Null() }

// Bare reports whether the row is of an answer, and all columns of the answer are
// null: it was not held to the schema that they come from.
func (t *Table) Bare(r Row) bool {
	bare := false
	for i, c := range t.Columns {
		if c.answer && !r.Null(i) {
			return false
		}
		bare = bare || c.answer
	}
	return bare && r.Answered
}

// day returns the day of a moment, if it is one and known.
func day(finished []byte) string {
	v, err := Timestamp.value(finished)
	if err != nil || string(finished) == zeroTime {
		return ""
	}
	return time.UnixMicro(v.n).UTC().Format(time.DateOnly)
}

// zeroTime is what package time makes of a moment that nobody has set.
const zeroTime = `"0001-01-01T00:00:00Z"`

var (
	answeredText = []byte(`"answered"`)
	failedText   = []byte(`"failed"`)
)

// cell returns the column's value, made of what was found at its path.
func (c Column) cell(raw []byte, answered bool) (Value, error) {
	switch {
	case c.way == status && answered:
		raw = answeredText
	case c.way == status:
		raw = failedText
	case c.way == blank && (string(raw) == `""` || string(raw) == zeroTime):
		return Value{}, nil
	case c.way == count:
		n := 0
		for range skim.Items(raw, 0) {
			n++
		}
		raw = strconv.AppendInt(nil, int64(n), 10)
	}
	v, err := c.Type.value(raw)
	if err == nil && v.Null() && c.required() {
		err = errMisfit
	}
	return v, err
}

// A MisfitError says that a column's type has no room for a value.
type MisfitError struct {
	CustomID string
	Column   Column
	Value    []byte // as JSON
}

// Error says what to do about it.
func (e *MisfitError) Error() string {
	return fmt.Sprintf("job %q: %s does not fit into column %s of type %s: choose the columns with --columns, and this one as %s",
		e.CustomID, excerpt(e.Value), e.Column.Name, e.Column.Type, e.Column.Name+"="+e.Column.source()+":string")
}

// excerpt says what a value is, and how it begins when that is not all too long.
func excerpt(v []byte) string {
	const most = 40
	if len(v) > most || bytes.ContainsAny(v, "{[") || len(v) == 0 {
		return described(v)
	}
	return described(v) + ", " + string(v) + ","
}

func (t *Table) misfit(line []byte, column int, value []byte) error {
	return &MisfitError{idOf(line), t.Columns[column], value}
}

// explain makes a misfit of a path that cannot be gone.
func (t *Table) explain(line []byte, err error) error {
	e, ok := errors.AsType[*unreachable](err)
	if !ok || e.column == t.finished {
		return fmt.Errorf("job %q: the stored line: %w", idOf(line), err)
	}
	c := t.Columns[e.column]
	return fmt.Errorf("job %q: column %s: the path %s goes on beneath %s: choose the columns with --columns, and end this one's path there",
		idOf(line), c.Name, c.source(), described(e.value))
}

// idOf returns the line's custom_id, or nothing.
func idOf(line []byte) string {
	if id := memberOf(line, "custom_id"); kindOf(id) == "string" {
		return skim.Unquote(id)
	}
	return ""
}
