package table

import (
	"unsafe"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/compress/zstd"
)

const (
	// defaultGroup is the default of [Encoding.GroupSize]: enough for readers to
	// skip by, and to compress well.
	defaultGroup = 64 << 20

	// batchRows and batchSize bound the rows that are handed over at a time. One
	// by one, each would cost a walk over all columns.
	batchRows = 256
	batchSize = 4 << 20
)

// A parquetWriter writes Parquet, a row group at a time.
type parquetWriter struct {
	table   *Table
	out     *counter
	file    *parquet.GenericWriter[any]
	rows    []parquet.Row // the batch
	batched int           // size of the batch, in bytes
	grouped int           // size of the rows handed over since the last row group
	limit   int           // of grouped
}

// valueSize is what a value takes in a batch, in bytes beside its text. In the
// library's buffers it takes less.
const valueSize = int(unsafe.Sizeof(parquet.Value{}))

func (t *Table) parquet(out *counter, enc Encoding) *parquetWriter {
	options := []parquet.WriterOption{
		parquet.NewSchema("row", t.parquetSchema()),
		parquet.Compression(&zstd.Codec{Level: zstd.SpeedDefault}),
		parquet.DataPageVersion(1),
		parquet.DefaultEncoding(&parquet.Plain),
		parquet.CreatedBy("upwell", enc.Meta["upwell.version"], ""),
	}
	for k, v := range enc.Meta {
		options = append(options, parquet.KeyValueMetadata(k, v))
	}
	w := &parquetWriter{table: t, out: out, file: parquet.NewGenericWriter[any](out, options...), limit: enc.GroupSize}
	if w.limit == 0 {
		w.limit = defaultGroup
	}
	return w
}

// inOrder is a group whose fields are in the order of the columns; the library's own
// sorts them by name.
type inOrder struct {
	parquet.Group
	fields []parquet.Field
}

// Fields implements parquet.Node.
func (g inOrder) Fields() []parquet.Field { return g.fields }

func (t *Table) parquetSchema() parquet.Node {
	g := inOrder{Group: make(parquet.Group)}
	for _, c := range t.Columns {
		g.Group[c.Name] = c.node()
	}
	byName := make(map[string]parquet.Field)
	for _, f := range g.Group.Fields() {
		byName[f.Name()] = f
	}
	for _, c := range t.Columns {
		g.fields = append(g.fields, byName[c.Name])
	}
	return g
}

// node returns the column as Parquet has it.
func (c Column) node() parquet.Node {
	n := c.Type.Kind.node()
	if c.few && c.Type.Kind == String {
		n = parquet.Encoded(n, &parquet.RLEDictionary)
	}
	switch {
	case c.Type.List:
		return parquet.Optional(parquet.List(parquet.Optional(n)))
	case c.required():
		return parquet.Required(n)
	default:
		return parquet.Optional(n)
	}
}

func (k Kind) node() parquet.Node {
	switch k {
	case Int64:
		return parquet.Int(64)
	case Double:
		return parquet.Leaf(parquet.DoubleType)
	case Bool:
		return parquet.Leaf(parquet.BooleanType)
	case Date:
		return parquet.Date()
	case Timestamp:
		return parquet.Timestamp(parquet.Microsecond)
	default:
		return parquet.String() // not all readers know the JSON type
	}
}

// Write adds the row to the batch.
func (w *parquetWriter) Write(r Row) error {
	values, size := w.table.values(r)
	row := make(parquet.Row, 0, values)
	for i, c := range w.table.Columns {
		row = c.append(row, i, r.cells[i])
	}
	w.rows = append(w.rows, row)
	if w.batched += size; len(w.rows) < batchRows && w.batched < batchSize {
		return nil
	}
	return w.hand()
}

// values returns how many values a row has, and about how many bytes they take. An
// empty list is a value, as null is.
func (t *Table) values(r Row) (n, size int) {
	for i, c := range t.Columns {
		v := r.cells[i]
		if size += len(v.text); c.Type.List {
			n += max(1, int(v.n))
			size += len(v.raw) // of which the text of its items is a part
		} else {
			n++
		}
	}
	return n, size + n*valueSize
}

// append appends what the column at index i has of a row.
func (c Column) append(row parquet.Row, i int, v Value) parquet.Row {
	switch {
	case v.Null():
		return append(row, parquet.NullValue().Level(0, 0, i))
	case c.required():
		return append(row, c.Type.Kind.parquet(v).Level(0, 0, i))
	case !c.Type.List:
		return append(row, c.Type.Kind.parquet(v).Level(0, 1, i))
	case v.n == 0:
		return append(row, parquet.NullValue().Level(0, 1, i))
	}
	repeated := 0
	for item := range c.Type.items(v) {
		p, defined := parquet.NullValue(), 2
		if !item.Null() {
			p, defined = c.Type.Kind.parquet(item), 3
		}
		row = append(row, p.Level(repeated, defined, i))
		repeated = 1
	}
	return row
}

// parquet returns a value that is not null.
func (k Kind) parquet(v Value) parquet.Value {
	switch k {
	case Int64, Timestamp:
		return parquet.Int64Value(v.n)
	case Double:
		return parquet.DoubleValue(v.f)
	case Bool:
		return parquet.BooleanValue(v.n == 1)
	case Date:
		return parquet.Int32Value(int32(v.n))
	default:
		return parquet.ByteArrayValue([]byte(v.text))
	}
}

// hand hands the batch over, and ends the row group if it is large enough.
func (w *parquetWriter) hand() error {
	if err := w.give(); err != nil || w.grouped < w.limit {
		return err
	}
	return w.end()
}

// give gives the batch to the library.
func (w *parquetWriter) give() error {
	if _, err := w.file.WriteRows(w.rows); err != nil {
		return err
	}
	w.grouped += w.batched
	clear(w.rows)
	w.rows, w.batched = w.rows[:0], 0
	return nil
}

// end ends the row group.
func (w *parquetWriter) end() error {
	w.grouped = 0
	return w.file.Flush()
}

// Held counts the rows of the batch and those of the row group.
func (w *parquetWriter) Held() int { return w.batched + w.grouped }

// Flush ends the row group with the batch.
func (w *parquetWriter) Flush() error {
	if err := w.give(); err != nil {
		return err
	}
	return w.end()
}

func (w *parquetWriter) Size() int64 { return w.out.n }

func (w *parquetWriter) Close() error {
	if err := w.give(); err != nil {
		return err
	}
	return w.file.Close()
}
