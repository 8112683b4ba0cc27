package input

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/format"
)

// handed is how many rows the library is asked for at a time. One by one, each would
// cost a walk over all columns.
const handed = 64

// parquetRows yields the rows of a Parquet file, a page of each column at a time.
// See [leaf] for what becomes of their values.
func parquetRows(in io.ReaderAt, size int64, key []string) iter.Seq2[row, error] {
	return func(yield func(row, error) bool) {
		p := &parquetTable{yield: yield}
		if err := p.read(in, size, key); err != nil && !errors.Is(err, errStop) {
			yield(row{n: p.n}, err)
		}
	}
}

// A parquetTable reads a Parquet file.
type parquetTable struct {
	yield   func(row, error) bool
	columns []*node
	leaves  int
	n       int // rows so far
}

// read yields the rows. The library panics at some files that are damaged, and so
// that is an error of the file; a panic of the loop over the rows is none.
func (p *parquetTable) read(in io.ReaderAt, size int64, key []string) (err error) {
	file, err := p.open(in, size)
	if err != nil {
		return err
	}
	names := make([]string, len(p.columns))
	for i, c := range p.columns {
		names[i] = c.name
	}
	if err := checkColumns(names, key); err != nil {
		return err
	}
	for _, group := range file.RowGroups() {
		if err := p.group(group); err != nil {
			return err
		}
	}
	return nil
}

func damaged(err *error) {
	if r := recover(); r != nil {
		*err = badRow("it is damaged, or a kind of Parquet that cannot be read: %v", r)
	}
}

func (p *parquetTable) open(in io.ReaderAt, size int64) (file *parquet.File, err error) {
	defer damaged(&err)
	if err := checkFooter(in, size); err != nil {
		return nil, err
	}
	// The page index and the filters are for those who look for some rows.
	file, err = parquet.OpenFile(in, size, parquet.SkipPageIndex(true), parquet.SkipBloomFilters(true), parquet.ReadBufferSize(1<<20))
	if err != nil {
		return nil, badRow("%v", err)
	}
	for _, f := range file.Schema().Fields() {
		c := newNode(f, levels{}, &p.leaves)
		p.columns = append(p.columns, c)
	}
	return file, nil
}

// checkFooter reports what is wrong with the end of a file: its length, which the
// library takes as much memory for as it says.
func checkFooter(in io.ReaderAt, size int64) error {
	const end = 8 // the length, and the magic bytes again
	var b [end]byte
	if size < end+int64(len(parquetMagic)) {
		return badRow("%d bytes are no Parquet file: was it copied in full?", size)
	}
	if _, err := in.ReadAt(b[:], size-end); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if length := int64(binary.LittleEndian.Uint32(b[:])); length > size-end || string(b[4:7]) != parquetMagic[:3] {
		return badRow("it does not end like a Parquet file: was it copied in full?")
	}
	return nil
}

// group yields the rows of a row group.
func (p *parquetTable) group(group parquet.RowGroup) (err error) {
	rows, err := p.start(group)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.stop(rows)) }()
	batch := make([]parquet.Row, handed)
	made := make([]row, 0, handed)
	for {
		n, err := p.next(rows, batch)
		made = made[:0]
		var bad error
		for _, values := range batch[:n] {
			r, err := p.row(values)
			if err != nil {
				bad = err
				made = append(made, row{n: r.n})
				break
			}
			made = append(made, r)
		}
		for i, r := range made {
			if bad != nil && i == len(made)-1 {
				return bad
			}
			if !p.yield(r, nil) {
				return errStop
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case n == 0:
			return badRow("it is damaged: no rows where there have to be some")
		}
	}
}

func (p *parquetTable) start(group parquet.RowGroup) (rows parquet.Rows, err error) {
	defer damaged(&err)
	return group.Rows(), nil
}

func (p *parquetTable) stop(rows parquet.Rows) (err error) {
	defer damaged(&err)
	return rows.Close()
}

func (p *parquetTable) next(rows parquet.Rows, batch []parquet.Row) (n int, err error) {
	defer damaged(&err)
	return rows.ReadRows(batch)
}

// row assembles a row.
func (p *parquetTable) row(values parquet.Row) (r row, err error) {
	defer damaged(&err)
	p.n++
	r.n = p.n
	leaves := make([][]parquet.Value, p.leaves)
	for i, v := range values.Range {
		leaves[i] = v
	}
	r.values = make(map[string]any, len(p.columns))
	for _, c := range p.columns {
		v, err := c.value(leaves)
		if err != nil {
			return r, &rowError{column(c.name), err.Error()}
		}
		if v == nil {
			v = ""
		}
		r.values[c.name] = v
	}
	for _, v := range values {
		r.size += 8
		if k := v.Kind(); k == parquet.ByteArray || k == parquet.FixedLenByteArray {
			r.size += len(v.ByteArray())
		}
	}
	return r, nil
}

// levels are the definition and repetition levels of a node: how often the path to it
// is optional or repeated, and how often it is repeated.
type levels struct{ defined, repeated int }

// A node is a column, or a part of a nested one.
type node struct {
	name string
	levels
	optional, repeats bool
	first             int // the leftmost of its leaves
	fields            []*node
	list, object      bool // a LIST or MAP in Parquet's three floors
	leaf              func(parquet.Value) (any, error)
}

// newNode returns the node of a field; leaves counts the leaves to its left.
func newNode(f parquet.Field, above levels, leaves *int) *node {
	n := &node{name: f.Name(), levels: above, first: *leaves, optional: f.Optional(), repeats: f.Repeated()}
	if n.optional || n.repeats {
		n.defined++
	}
	if n.repeats {
		n.repeated++
	}
	if f.Leaf() {
		*leaves++
		n.leaf = leafOf(f.Type())
		return n
	}
	for _, child := range f.Fields() {
		n.fields = append(n.fields, newNode(child, n.levels, leaves))
	}
	if t := f.Type().LogicalType(); t != nil && len(n.fields) == 1 && n.fields[0].repeats {
		_, n.list = t.Value.(*format.ListType)
		_, isMap := t.Value.(*format.MapType)
		n.object = isMap && len(n.fields[0].fields) == 2
	}
	return n
}

// value assembles what leaves hold of one instance of n.
func (n *node) value(leaves [][]parquet.Value) (any, error) {
	if n.repeats {
		items, err := n.items(leaves)
		return items, err
	}
	return n.single(leaves)
}

// items assembles the instances of a node that repeats.
func (n *node) items(leaves [][]parquet.Value) ([]any, error) {
	items := []any{}
	if len(leaves[n.first]) == 0 || leaves[n.first][0].DefinitionLevel() < n.defined {
		return items, nil
	}
	rest := append([][]parquet.Value(nil), leaves...)
	one := make([][]parquet.Value, len(leaves))
	for len(rest[n.first]) > 0 {
		for i, values := range rest {
			cut := min(1, len(values))
			for cut < len(values) && values[cut].RepetitionLevel() > n.repeated {
				cut++
			}
			one[i], rest[i] = values[:cut], values[cut:]
		}
		item, err := n.single(one)
		if err != nil {
			return nil, err
		}
		items = append(items, item)
	}
	return items, nil
}

// single assembles one instance of n, or nil for null.
func (n *node) single(leaves [][]parquet.Value) (any, error) {
	if len(leaves[n.first]) == 0 {
		return nil, errors.New("the file is damaged: a value is missing")
	}
	switch v := leaves[n.first][0]; {
	case n.optional && v.DefinitionLevel() < n.defined:
		return nil, nil //nolint:nilnil // null is a value
	case n.leaf != nil && v.IsNull():
		return nil, nil //nolint:nilnil // as above
	case n.leaf != nil:
		return n.leaf(v)
	case n.list:
		return n.elements(leaves)
	case n.object:
		return n.pairs(leaves)
	}
	object := make(map[string]any, len(n.fields))
	for _, f := range n.fields {
		v, err := f.value(leaves)
		if err != nil {
			return nil, err
		}
		object[f.name] = v
	}
	return object, nil
}

// elements assembles a LIST: its one field repeats, and has one field, the element. In
// old files that one is missing, or the repeated group is the element itself.
func (n *node) elements(leaves [][]parquet.Value) (any, error) {
	repeated := n.fields[0]
	items, err := repeated.items(leaves)
	if err != nil || len(repeated.fields) != 1 || repeated.name == "array" || repeated.name == n.name+"_tuple" {
		return items, err
	}
	for i, item := range items {
		items[i] = item.(map[string]any)[repeated.fields[0].name]
	}
	return items, nil
}

// pairs assembles a MAP as an object, as JSON has it.
func (n *node) pairs(leaves [][]parquet.Value) (any, error) {
	repeated := n.fields[0]
	items, err := repeated.items(leaves)
	if err != nil {
		return nil, err
	}
	object := make(map[string]any, len(items))
	for _, item := range items {
		pair := item.(map[string]any)
		object[fmt.Sprint(pair[repeated.fields[0].name])] = pair[repeated.fields[1].name]
	}
	return object, nil
}
