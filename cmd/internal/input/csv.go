package input

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"errors"
	"io"
	"iter"
	"slices"
	"strings"
	"unicode/utf8"
)

const (
	// delimiters are looked for in this order, and the first of equals wins.
	delimiters = ",;\t|"

	// examined is how many rows at the beginning of a CSV decide on its delimiter.
	examined = 50
)

// csvRows yields the rows of a CSV after its header. Values are texts. The delimiter 0
// stands for the one that fits.
func csvRows(in *bufio.Reader, delimiter rune, key []string) iter.Seq2[row, error] {
	return func(yield func(row, error) bool) {
		c, err := newCSV(in, delimiter, key)
		if err != nil {
			yield(row{line: 1}, err)
			return
		}
		for n := 1; ; n++ {
			r, err := c.next()
			if errors.Is(err, io.EOF) {
				return
			}
			r.n = n
			if !yield(r, err) || c.over {
				return
			}
		}
	}
}

// A csvTable reads a CSV.
type csvTable struct {
	in      bounded
	records *csv.Reader
	columns []string
	skipped int  // lines before the header
	last    int  // line of the last record
	over    bool // what follows cannot be told
}

func newCSV(in *bufio.Reader, delimiter rune, key []string) (*csvTable, error) {
	in, err := decode(in)
	if err != nil {
		return nil, err
	}
	c := &csvTable{in: bounded{r: in}}
	head, _ := in.Peek(sniffed) // what fails here fails again
	if sep, line := excelSeparator(head); sep != 0 {
		_, _ = in.Discard(line)
		head, _ = in.Peek(sniffed)
		c.skipped = 1
		if delimiter == 0 {
			delimiter = sep
		}
	}
	if !bytes.ContainsRune(head, '\n') && bytes.ContainsRune(head, '\r') {
		return nil, badRow("its lines end with CR alone: save it with the line ends of this century (LF or CR LF)")
	}
	if delimiter == 0 {
		if delimiter = delimiterOf(head); delimiter == 0 {
			delimiter = ','
		}
	}
	c.records = csv.NewReader(&c.in)
	c.records.Comma = delimiter
	c.records.FieldsPerRecord = -1 // a wrong number gets a better message here
	c.records.ReuseRecord = true
	return c, c.header(key)
}

func (c *csvTable) header(key []string) error {
	fields, _, err := c.read()
	switch {
	case errors.Is(err, io.EOF):
		return badRow("no header: the first line of a CSV names its columns")
	case err != nil:
		return err
	}
	for i, name := range fields {
		if !utf8.ValidString(name) {
			return badRow("column %d: %s", i+1, notText(name))
		}
		c.columns = append(c.columns, strings.TrimSpace(strings.Clone(name)))
	}
	return checkColumns(c.columns, key)
}

// read returns the fields of the next record, and the line on which it begins, also
// beside an error.
func (c *csvTable) read() (fields []string, line int, err error) {
	c.in.left = maxLine
	fields, err = c.records.Read()
	if err == nil {
		c.last, _ = c.records.FieldPos(0)
		return fields, c.skipped + c.last, nil
	}
	c.over = true
	line = c.skipped + c.last + 1
	e, ok := errors.AsType[*csv.ParseError](err)
	switch {
	case errors.Is(err, errTooLong):
		err = badRow("longer than %d MiB: is there a quote that is not closed?", maxLine>>20)
	case !ok:
	case errors.Is(e.Err, csv.ErrBareQuote):
		line = c.skipped + e.StartLine
		err = badRow("byte %d: a quote inside of a field: put the field in quotes, and double those inside", e.Column)
	default:
		line = c.skipped + e.StartLine
		err = badRow("a quote that is opened in this row is not closed well (line %d, byte %d): double the quotes inside of a field", c.skipped+e.Line, e.Column)
	}
	return nil, line, err
}

// next returns the next row. Its line is right also beside an error.
func (c *csvTable) next() (row, error) {
	fields, line, err := c.read()
	r := row{line: line}
	if err != nil {
		return r, err
	}
	if len(fields) != len(c.columns) {
		return r, badRow("%d fields, and the header has %d", len(fields), len(c.columns))
	}
	r.values = make(map[string]any, len(fields))
	for i, v := range fields {
		if !utf8.ValidString(v) {
			return r, &rowError{column(c.columns[i]), notText(v)}
		}
		r.values[c.columns[i]] = v
		r.size += len(v)
	}
	return r, nil
}

// excelSeparator returns the delimiter that the first line names, in Excel's way, and
// the length of that line.
func excelSeparator(head []byte) (sep rune, length int) {
	line, _, ok := bytes.Cut(head, []byte("\n"))
	if !ok || !bytes.HasPrefix(line, []byte("sep=")) {
		return 0, 0
	}
	text := bytes.TrimRight(line[len("sep="):], "\r")
	if r, size := utf8.DecodeRune(text); size == len(text) && size > 0 {
		return r, len(line) + 1
	}
	return 0, 0
}

// delimiterOf returns the delimiter that cuts the first rows into the same number of
// fields, two or more; of several the one that makes most of them. If there is none,
// it is the one that makes most of the header, or 0 if none makes two.
func delimiterOf(head []byte) rune {
	whole := len(head) < sniffed
	var best rune
	var most int
	var steady bool
	for _, d := range delimiters {
		fields, same := cut(head, whole, d)
		if fields < 2 || steady && !same || (same == steady && fields <= most) {
			continue
		}
		best, most, steady = d, fields, same
	}
	return best
}

// cut returns the number of fields in the header, and whether the rows have as many.
func cut(head []byte, whole bool, delimiter rune) (fields int, same bool) {
	r := csv.NewReader(bytes.NewReader(head))
	r.Comma, r.FieldsPerRecord, r.ReuseRecord = delimiter, -1, true
	var counts []int
	for len(counts) < examined {
		record, err := r.Read()
		if err != nil {
			if !errors.Is(err, io.EOF) && whole {
				counts = append(counts, -1)
			}
			break
		}
		counts = append(counts, len(record))
	}
	if !whole && len(counts) > 1 && len(counts) < examined {
		counts = counts[:len(counts)-1] // it may be cut off
	}
	if len(counts) == 0 {
		return 0, false
	}
	return counts[0], !slices.ContainsFunc(counts, func(n int) bool { return n != counts[0] })
}

// errTooLong is the error of reading more than a row may have.
var errTooLong = errors.New("too long")

// bounded reads no more than left bytes.
type bounded struct {
	r    io.Reader
	left int
}

// Read implements io.Reader.
func (b *bounded) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errTooLong
	}
	n, err := b.r.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}

// decode returns the text as UTF-8 without a byte order mark, which says how it is
// encoded. Without one it is UTF-8.
func decode(in *bufio.Reader) (*bufio.Reader, error) {
	head, _ := in.Peek(sniffed) // what fails here fails again
	switch {
	case bytes.HasPrefix(head, []byte(utf8BOM)):
		_, _ = in.Discard(len(utf8BOM))
		return in, nil
	case bytes.HasPrefix(head, []byte("\xff\xfe")), bytes.HasPrefix(head, []byte("\xfe\xff")):
		return bufio.NewReaderSize(&utf16Reader{in: in}, sniffed), nil
	case bytes.IndexByte(head, 0) >= 0:
		return nil, badRow("it is not text, or UTF-16 without a byte order mark: save it as UTF-8")
	}
	return in, nil
}
