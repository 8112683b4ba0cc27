package input

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"upwell/cmd/internal/prompt"
)

// A row is one of a table.
type row struct {
	n      int // from 1
	line   int // where it begins; 0 where there are no lines
	values map[string]any
	size   int // of the values, in bytes
}

// A rowError is something wrong with a row, or with the table as a whole. It is the
// user's to mend, unlike an error of reading.
type rowError struct {
	field  string // the column, or empty
	reason string
}

func (e *rowError) Error() string {
	if e.field == "" {
		return e.reason
	}
	return e.field + ": " + e.reason
}

func badRow(format string, args ...any) error { return &rowError{"", fmt.Sprintf(format, args...)} }

// column names a column, as the field at fault.
func column(name string) string { return "column " + strconv.Quote(name) }

// made is a record that was made of a row, or what is wrong with that: then the record
// has its place only.
type made struct {
	prompt.Record
	size  int  // of its values, in bytes
	blank bool // it has nothing in it, as some rows that spreadsheets write
	err   error
}

// rows yields the records of a table. What is wrong with a row is in its record; an
// error is one of reading, and ends it.
func (s *source) rows(ctx context.Context, e entry) iter.Seq2[made, error] {
	return func(yield func(made, error) bool) {
		err := s.table(ctx, e, func(rows iter.Seq2[row, error]) error {
			for r, err := range rows {
				m := made{Record: prompt.Record{Place: s.rowPlace(e, r)}, size: r.size}
				if bad, ok := errors.AsType[*rowError](err); ok {
					m.err = bad
				} else if err != nil {
					return fmt.Errorf("read %s: %w", s.place(e.path), err)
				} else if m.Values, m.blank = r.values, empty(r.values); !m.blank {
					m.ID, m.err = s.rowID(e, r)
				}
				if !yield(m, nil) {
					return errStop
				}
			}
			return nil
		})
		if err != nil && !errors.Is(err, errStop) {
			yield(made{}, err)
		}
	}
}

// empty reports whether all values are empty texts.
func empty(values map[string]any) bool {
	for _, v := range values {
		if v != "" {
			return false
		}
	}
	return true
}

func (s *source) rowPlace(e entry, r row) string {
	switch {
	case r.line > 0:
		return s.place(e.path) + ":" + strconv.Itoa(r.line)
	case r.n > 0:
		return s.place(e.path) + " row " + strconv.Itoa(r.n)
	default:
		return s.place(e.path)
	}
}

// rowID names a row's job.
func (s *source) rowID(e entry, r row) (string, error) {
	if len(s.opts.Key) == 0 {
		id := "row-" + strconv.Itoa(r.n)
		if s.several() {
			id = e.path + "#" + id
		}
		return FitID(id), nil
	}
	parts := make([]string, len(s.opts.Key))
	for i, name := range s.opts.Key {
		v, ok := r.values[name]
		if !ok {
			return "", missingColumn(name, r.values)
		}
		switch v := v.(type) {
		case string:
			parts[i] = v
		case json.Number:
			parts[i] = v.String()
		case bool:
			parts[i] = strconv.FormatBool(v)
		default:
			return "", &rowError{column(name), "a list or an object, and a key is text or a number"}
		}
		if parts[i] == "" {
			return "", &rowError{column(name), "empty, but it is the key: give every row one, or choose another column with --key"}
		}
		if strings.ContainsRune(parts[i], 0) {
			return "", &rowError{column(name), "contains a NUL character, and a key must not"}
		}
	}
	return FitID(strings.Join(parts, "/")), nil
}

// missingColumn is the error of a key that names no column.
func missingColumn[V any](name string, columns map[string]V) error {
	names := make([]string, 0, len(columns))
	for c := range columns {
		names = append(names, c)
	}
	slices.Sort(names)
	return noColumn(name, names)
}

func noColumn(name string, columns []string) error {
	return badRow("no column %q, which is the key (--key, or key: in the template): there are %s", name, listNames(columns))
}

// listNames lists column names for a message.
func listNames(names []string) string {
	const most = 20
	quoted := make([]string, 0, most)
	for _, n := range names[:min(len(names), most)] {
		quoted = append(quoted, strconv.Quote(n))
	}
	if len(names) > most {
		quoted = append(quoted, fmt.Sprintf("and %d more", len(names)-most))
	}
	return strings.Join(quoted, ", ")
}

// checkColumns reports what is wrong with the columns of a table, the key's among
// them.
func checkColumns(columns, key []string) error {
	at := make(map[string]int)
	for i, name := range columns {
		if name == "" {
			return badRow("column %d has no name: give it one in the header, or remove it", i+1)
		}
		if first, twice := at[name]; twice {
			return badRow("columns %d and %d are both named %q: rename one in the header", first, i+1, name)
		}
		at[name] = i + 1
	}
	for _, name := range key {
		if at[name] == 0 {
			return noColumn(name, columns)
		}
	}
	return nil
}

// table opens a file as a table and gives its rows to use.
func (s *source) table(ctx context.Context, e entry, use func(iter.Seq2[row, error]) error) error {
	file, err := s.open(ctx, e)
	if err != nil {
		return err
	}
	defer file.Close()
	in, err := expand(counted{file, &s.opts.Progress.Bytes})
	if _, lost := errors.AsType[*AccessError](err); lost {
		return err
	}
	if err != nil {
		return use(ends(badRow("%v", err)))
	}
	defer in.Close()
	head, err := in.Peek(sniffed)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, bufio.ErrBufferFull) {
		return use(ends(err))
	}
	if len(head) == 0 {
		return use(ends(badRow("the file is empty")))
	}
	kind, err := s.tableKind(e, head)
	if err != nil {
		return use(ends(err))
	}
	switch kind {
	case formatJSONL:
		return use(jsonRows(in))
	case formatParquet:
		return s.parquet(file, in, use)
	default:
		delimiter := s.opts.Delimiter
		if delimiter == 0 && strings.HasSuffix(strings.ToLower(plainName(e.path)), ".tsv") {
			delimiter = '\t'
		}
		return use(csvRows(in.Reader, delimiter, s.opts.Key))
	}
}

// tableKind says what a table is: what --format, its name or else its text says, if
// that can be.
func (s *source) tableKind(e entry, head []byte) (string, error) {
	found := sniff(head)
	named := cmp.Or(s.opts.Format, kindOf(e.path))
	kind := cmp.Or(named, found, formatCSV)
	switch {
	case named == "" && found == "" && s.opts.Delimiter == 0 && delimiterOf(head) == 0 && !bytes.HasPrefix(head, []byte("\xff\xfe")):
		return "", badRow("it is not clear what it is: give --format csv, jsonl or parquet, or a name that says so")
	case found == formatParquet && s.opts.Format == "":
		return formatParquet, nil
	case found == formatDocument || found != "" && a(found) == found:
		return "", badRow("it is %s, not a table: want %s", a(found), readable)
	case kind == formatParquet && found != formatParquet:
		return "", badRow("it is not a Parquet file: those begin with %s", parquetMagic)
	case kind != formatParquet && found == formatParquet:
		return "", badRow("it is a Parquet file, not %s", kind)
	}
	return kind, nil
}

// ends yields what keeps a table from being read.
func ends(err error) iter.Seq2[row, error] {
	return func(yield func(row, error) bool) { yield(row{}, err) }
}

// parquet gives the rows of a Parquet file to use. Its end comes first, so that it has
// to be a file of this machine.
func (s *source) parquet(file io.Reader, in *text, use func(iter.Seq2[row, error]) error) error {
	if local, ok := file.(*os.File); ok {
		magic := make([]byte, len(parquetMagic))
		info, err := local.Stat()
		if err == nil && info.Mode().IsRegular() {
			_, err = local.ReadAt(magic, 0)
		}
		if err == nil && string(magic) == parquetMagic { // or it is compressed as a whole
			return use(parquetRows(countedAt{local, &s.opts.Progress.Bytes}, info.Size(), s.opts.Key))
		}
	}
	tmp, err := tempFile()
	if err != nil {
		return err
	}
	defer func() { _ = dropTemp(tmp) }()
	size, err := io.Copy(tmp, in)
	if err != nil {
		return use(ends(err))
	}
	return use(parquetRows(tmp, size, s.opts.Key))
}

// notText says where text is not UTF-8.
func notText(s string) string {
	n := 0
	for i, r := range s {
		if n++; r == utf8.RuneError && !strings.HasPrefix(s[i:], "\ufffd") {
			return fmt.Sprintf("character %d is not UTF-8 (byte 0x%02X): save the file as UTF-8", n, s[i])
		}
	}
	return "not UTF-8"
}
