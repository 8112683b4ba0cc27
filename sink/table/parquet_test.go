package table_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/parquet-go/parquet-go"

	"upwell/sink/table"
)

// TestParquet reads values and their levels back. TestParquetReaders of the
// integration tests has libraries read them that are not the writer's.
func TestParquet(t *testing.T) {
	columns := choose(t, "status", "custom_id", "b=output.b:bool", "a=output.a:int64", "x=output.x:double", "d=output.d:date", "ts=output.ts:timestamp",
		"l=output.l:int64[]", "j=output.j:json", "model")
	var b bytes.Buffer
	tab := table.New(columns)
	w, err := tab.Writer(&b, table.Encoding{Format: table.Parquet, Meta: map[string]string{"upwell.run": "q3", "upwell.version": "v1"}, GroupSize: 300})
	if err != nil {
		t.Fatal(err)
	}
	for _, output := range []string{
		`{"a":-1,"b":true,"x":1.5,"d":"1969-12-31","ts":"1970-01-01T00:00:00.000001Z","l":[1,null,2],"j":{"k":1}}`,
		`{"l":[],"b":false}`,
		`{"l":null}`,
	} {
		r, err := tab.Row(answer(output), true)
		if err == nil {
			err = w.Write(r)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	f, err := parquet.OpenFile(bytes.NewReader(b.Bytes()), int64(b.Len()))
	if err != nil {
		t.Fatal(err)
	}
	if run, ok := f.Lookup("upwell.run"); !ok || run != "q3" {
		t.Errorf("the file says upwell.run = %q, want q3", run)
	}
	var names []string
	for _, field := range f.Schema().Fields() {
		names = append(names, field.Name())
	}
	if got, want := strings.Join(names, " "), "status custom_id b a x d ts l j model"; got != want {
		t.Errorf("the columns are %s, want %s", got, want)
	}
	want := []string{
		// column index, definition level, repetition level, value
		"0 0 0 answered, 1 0 0 a, 2 1 0 true, 3 1 0 -1, 4 1 0 1.5, 5 1 0 -1, 6 1 0 1, 7 3 0 1, 7 2 1 <null>, 7 3 1 2, 8 1 0 {\"k\":1}, 9 1 0 m",
		"0 0 0 answered, 1 0 0 a, 2 1 0 false, 3 0 0 <null>, 4 0 0 <null>, 5 0 0 <null>, 6 0 0 <null>, 7 1 0 <null>, 8 0 0 <null>, 9 1 0 m",
		"0 0 0 answered, 1 0 0 a, 2 0 0 <null>, 3 0 0 <null>, 4 0 0 <null>, 5 0 0 <null>, 6 0 0 <null>, 7 0 0 <null>, 8 0 0 <null>, 9 1 0 m",
	}
	if diff := cmp.Diff(want, levels(t, f)); diff != "" {
		t.Errorf("the values differ (-want +got):\n%s", diff)
	}
}

// TestRowGroups bounds the rows of a group by their bytes.
func TestRowGroups(t *testing.T) {
	var b bytes.Buffer
	tab := table.New(choose(t, "output.v"))
	w, err := tab.Writer(&b, table.Encoding{Format: table.Parquet, GroupSize: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	const n, size = 50, 200 << 10
	for i := range n {
		r, err := tab.Row(answer(fmt.Sprintf(`{"v":%q}`, strings.Repeat(fmt.Sprint(i%10), size))), true)
		if err == nil {
			err = w.Write(r)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	f, err := parquet.OpenFile(bytes.NewReader(b.Bytes()), int64(b.Len()))
	if err != nil {
		t.Fatal(err)
	}
	rows := int64(0)
	for _, g := range f.RowGroups() {
		rows += g.NumRows()
		if most := int64((1<<20 + 4<<20) / size); g.NumRows() > most {
			t.Errorf("a row group has %d rows of %d bytes, want %d at most", g.NumRows(), size, most)
		}
	}
	if rows != n {
		t.Errorf("%d rows, want %d", rows, n)
	}
}

// TestRowGroupsOfLists counts the items of lists, which take more memory than their
// text does.
func TestRowGroupsOfLists(t *testing.T) {
	var b bytes.Buffer
	tab := table.New(choose(t, "v=output.v:int64[]"))
	w, err := tab.Writer(&b, table.Encoding{Format: table.Parquet, GroupSize: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	const n, items = 10, 100_000
	for range n {
		before := w.Held()
		r, err := tab.Row(answer(`{"v":[`+strings.Repeat("1,", items-1)+`1]}`), true)
		if err == nil {
			err = w.Write(r)
		}
		if err != nil {
			t.Fatal(err)
		}
		if got := w.Held() - before; got > 0 && got < 24*items {
			t.Errorf("a row of %d items counts %d bytes, want 24 for each", items, got)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	f, err := parquet.OpenFile(bytes.NewReader(b.Bytes()), int64(b.Len()))
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range f.RowGroups() {
		if g.NumRows() > 2 {
			t.Errorf("a row group has %d rows of %d items, want 2 at most", g.NumRows(), items)
		}
	}
}

// levels returns the rows as text.
func levels(t *testing.T, f *parquet.File) (list []string) {
	t.Helper()
	for _, g := range f.RowGroups() {
		rows := g.Rows()
		buf := make([]parquet.Row, 1)
		for {
			n, err := rows.ReadRows(buf)
			if n == 1 {
				var cells []string
				for _, v := range buf[0] {
					cells = append(cells, fmt.Sprintf("%d %d %d %s", v.Column(), v.DefinitionLevel(), v.RepetitionLevel(), v))
				}
				list = append(list, strings.Join(cells, ", "))
			}
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := rows.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return list
}
