package table_test

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"upwell/sink/table"
)

// answer is a stored line with that output.
func answer(output string) []byte {
	return []byte(`{"id":"batch_1","custom_id":"a","response":{"status_code":200,"request_id":"req_1","body":{"x":[1,{"y":"z"}]}},"error":null,` +
		`"upwell":{"run":"r","output":` + output + `,"output_text":"t","model":"m","tier":"","usage":{"input_tokens":5},"cost_usd":null,` +
		`"attempts":[{"n":1},{"n":2}],"repairs":0,"input_sha256":"","finished":"2026-11-24T23:30:00.5-01:00"}}` + "\n")
}

const failure = `{"id":"batch_1","custom_id":"b","response":null,"error":{"code":"schema","message":"no"},` +
	`"upwell":{"run":"r","output":"raw","output_text":"raw","model":"m","usage":{"input_tokens":5},"cost_usd":0.5,"attempts":[],"repairs":2,"input_sha256":"00","finished":"0001-01-01T00:00:00Z"}}`

// write encodes rows of lines.
func write(t *testing.T, columns []table.Column, format table.Format, rows ...func(*table.Table) (table.Row, error)) string {
	t.Helper()
	var b bytes.Buffer
	tab := table.New(columns)
	w, err := tab.Writer(&b, table.Encoding{Format: format})
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range rows {
		r, err := row(tab)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Write(r); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func answered(line string) func(*table.Table) (table.Row, error) {
	return func(t *table.Table) (table.Row, error) { return t.Row([]byte(line), true) }
}

func failed(line string) func(*table.Table) (table.Row, error) {
	return func(t *table.Table) (table.Row, error) { return t.Row([]byte(line), false) }
}

func choose(t *testing.T, specs ...string) []table.Column {
	t.Helper()
	columns, err := catalog(t, nil).Choose(specs)
	if err != nil {
		t.Fatal(err)
	}
	return columns
}

// TestRecord reads what every line records.
func TestRecord(t *testing.T) {
	columns := catalog(t, nil).Default()
	got := write(t, columns, table.JSONL, answered(string(answer(`{"a":1}`))), failed(failure))
	want := `{"custom_id":"a","status":"answered","output_text":"t","output":{"a":1},"model":"m","tier":null,"region":null,"input_tokens":5,"cached_tokens":null,` +
		`"output_tokens":null,"reasoning_tokens":null,"cost_usd":null,"repairs":0,"attempts":2,"request_id":"req_1","input_sha256":null,` +
		`"finished":"2026-11-25T00:30:00.500000Z","run":"r","error_code":null,"error_message":null}
{"custom_id":"b","status":"failed","output_text":null,"output":null,"model":"m","tier":null,"region":null,"input_tokens":5,"cached_tokens":null,` +
		`"output_tokens":null,"reasoning_tokens":null,"cost_usd":0.5,"repairs":2,"attempts":0,"request_id":null,"input_sha256":"00",` +
		`"finished":null,"run":"r","error_code":"schema","error_message":"no"}
`
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the rows differ (-want +got):\n%s", diff)
	}
}

// TestBare tells an answer of which the table has nothing.
func TestBare(t *testing.T) {
	columns := catalog(t, schema(`"a":{"type":"integer"},"b":{"type":"string"}`)).Default()
	for _, tt := range []struct {
		columns  []table.Column
		line     string
		answered bool
		want     bool
	}{
		{columns, string(answer(`{"a":1}`)), true, false},
		{columns, string(answer(`{"c":1}`)), true, true},
		{columns, string(answer(`null`)), true, true},
		{columns, failure, false, false},
		{choose(t, "custom_id"), string(answer(`null`)), true, false},
	} {
		tab := table.New(tt.columns)
		r, err := tab.Row([]byte(tt.line), tt.answered)
		if got := tab.Bare(r); err != nil || got != tt.want {
			t.Errorf("Bare(%s) = %v, %v, want %v", tt.line, got, err, tt.want)
		}
	}
}

func TestDay(t *testing.T) {
	tab := table.New(nil)
	for line, want := range map[string]string{string(answer("1")): "2026-11-25", failure: "", `{"custom_id":"c","upwell":{}}`: "", `{"upwell":{"finished":"soon"}}`: ""} {
		r, err := tab.Row([]byte(line), true)
		if err != nil || r.Day != want {
			t.Errorf("the day of %s is %q, %v, want %q", line, r.Day, err, want)
		}
	}
}

// TestLinesStay has lines that are written as they are, but for their breaks.
func TestLinesStay(t *testing.T) {
	line := string(answer(`{"n":1.10,"s":"<&>é\u00e9"}`))
	if got := write(t, nil, table.JSONL, answered(line), answered(strings.TrimSpace(line)), failed(failure)); got != line+line+failure+"\n" {
		t.Errorf("got %s", got)
	}
	if got, want := write(t, nil, table.JSONL, answered("{\n \"custom_id\":\r\n \"a\"}\n")), `{"custom_id":"a"}`+"\n"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	for _, broken := range []string{"", "{", `{"a":1} {"b":2}`, "null\x00"} {
		if r, err := table.New(nil).Row([]byte(broken), true); err == nil {
			t.Errorf("Row(%q) = %v, want an error", broken, r)
		}
	}
}

// TestValues has a value in a column of a type, as JSON and in CSV, or not.
func TestValues(t *testing.T) {
	const misfit = "misfit"
	for _, tt := range []struct{ typ, value, json, csv string }{
		{"string", `"a\n\u00e9\"<&>"`, `"a\n\u00e9\"<&>"`, "a\né\"<&>"},
		{"string", `""`, `""`, ""},
		{"string", `1.50`, `"1.50"`, "1.50"},
		{"string", `{"a":"b"}`, `"{\"a\":\"b\"}"`, `{"a":"b"}`},
		{"string", `true`, `"true"`, "true"},
		{"string", `null`, `null`, ""},
		{"int64", `-9223372036854775808`, `-9223372036854775808`, "-9223372036854775808"},
		{"int64", `1.0`, `1`, "1"},
		{"int64", `1e3`, `1000`, "1000"},
		{"int64", `-0`, `0`, "0"},
		{"int64", `9223372036854775808`, misfit, ""},
		{"int64", `1.5`, misfit, ""},
		{"int64", `1e400`, misfit, ""},
		{"int64", `1e18`, `1000000000000000000`, "1000000000000000000"},
		{"int64", `1000000000000000000.0`, `1000000000000000000`, "1000000000000000000"},
		{"int64", `-9223372036854775808.00e0`, `-9223372036854775808`, "-9223372036854775808"},
		{"int64", `9.223372036854775807E+18`, `9223372036854775807`, "9223372036854775807"},
		{"int64", `1200e-2`, `12`, "12"},
		{"int64", `0.001e3`, `1`, "1"},
		{"int64", `-0.0e-5`, `0`, "0"},
		{"int64", `0e400`, `0`, "0"},
		{"int64", `9.223372036854775808e18`, misfit, ""},
		{"int64", `1e19`, misfit, ""},
		{"int64", `1e9223372036854775807`, misfit, ""},
		{"int64", `1e99999999999999999999`, misfit, ""},
		{"int64", `1e-1`, misfit, ""},
		{"int64", `10.01e1`, misfit, ""},
		{"int64", `9007199254740993.5`, misfit, ""},
		{"int64", `"1"`, misfit, ""},
		{"int64", `true`, misfit, ""},
		{"int64", `[1]`, misfit, ""},
		{"int64", `null`, `null`, ""},
		{"double", `12345678901234567890.10`, `12345678901234567890.10`, "12345678901234567890.10"},
		{"double", `-1E-3`, `-1E-3`, "-1E-3"},
		{"double", `1e999`, misfit, ""},
		{"double", `"NaN"`, misfit, ""},
		{"bool", `true`, `true`, "true"},
		{"bool", `false`, `false`, "false"},
		{"bool", `1`, misfit, ""},
		{"bool", `"true"`, misfit, ""},
		{"date", `"2024-02-29"`, `"2024-02-29"`, "2024-02-29"},
		{"date", `"0001-01-01"`, `"0001-01-01"`, "0001-01-01"},
		{"date", `"2023-02-29"`, misfit, ""},
		{"date", `"2024-2-9"`, misfit, ""},
		{"date", `20240229`, misfit, ""},
		{"date", `""`, misfit, ""},
		{"timestamp", `"2026-11-24T10:00:00.123456789+01:00"`, `"2026-11-24T09:00:00.123456Z"`, "2026-11-24T09:00:00.123456Z"},
		{"timestamp", `"1969-12-31t23:59:59.5z"`, `"1969-12-31T23:59:59.500000Z"`, "1969-12-31T23:59:59.500000Z"},
		{"timestamp", `"2026-11-24"`, misfit, ""},
		{"timestamp", `1732442400`, misfit, ""},
		{"json", `{"b":[1.10,"x"]}`, `{"b":[1.10,"x"]}`, `{"b":[1.10,"x"]}`},
		{"json", `"s"`, `"s"`, `"s"`},
		{"json", `null`, `null`, ""},
		{"int64[]", `[1,null,2.0]`, `[1,null,2]`, "[1,null,2.0]"},
		{"int64[]", `[]`, `[]`, "[]"},
		{"int64[]", `null`, `null`, ""},
		{"int64[]", `[1.5]`, misfit, ""},
		{"int64[]", `1`, misfit, ""},
		{"date[]", `["2024-02-29"]`, `["2024-02-29"]`, `["2024-02-29"]`},
		{"string[]", `["a",1,{}]`, `["a","1","{}"]`, `["a",1,{}]`},
		{"json[]", `[{"a":1},[2]]`, `[{"a":1},[2]]`, `[{"a":1},[2]]`},
	} {
		tab := table.New(choose(t, "custom_id", "v=output.v:"+tt.typ))
		line := answer(`{"u":1,"v":` + tt.value + `}`)
		row, err := tab.Row(line, true)
		if e, ok := errors.AsType[*table.MisfitError](err); tt.json == misfit {
			if !ok || e.CustomID != "a" || e.Column.Name != "v" || !strings.Contains(err.Error(), "v=output.v:string") {
				t.Errorf("%s as %s: %v, %v, want an error that names job, column and remedy", tt.value, tt.typ, row, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s as %s: %v", tt.value, tt.typ, err)
			continue
		}
		if got, want := write(t, tab.Columns, table.JSONL, answered(string(line))), `{"custom_id":"a","v":`+tt.json+"}\n"; got != want {
			t.Errorf("%s as %s in JSON is %s, want %s", tt.value, tt.typ, got, want)
		}
		records, err := csv.NewReader(strings.NewReader(write(t, tab.Columns, table.CSV, answered(string(line))))).ReadAll()
		if diff := cmp.Diff([][]string{{"custom_id", "v"}, {"a", tt.csv}}, records); err != nil || diff != "" {
			t.Errorf("%s as %s in CSV: %v, differs (-want +got):\n%s", tt.value, tt.typ, err, diff)
		}
		if tt.typ != "json" && tt.typ != "json[]" { // Parquet must take what the others do
			write(t, tab.Columns, table.Parquet, answered(string(line)))
		}
	}
}

// TestPaths has paths to what is there, is not there, and cannot be there.
func TestPaths(t *testing.T) {
	line := string(answer(`{"a":[{"b":1},{"b":2},[3]],"s":"text","n":null,"c.d":{"e":4}}`))
	for spec, want := range map[string]string{
		"x=output.a[1].b": `2`, "x=output.a[9].b": `null`, "x=output.none.at.all": `null`, "x=output.n.b": `null`, "x=output.n[0]": `null`,
		`x=output["c.d"].e`: `4`, "x=output.a[2][0]": `3`, "x=response.body.x[1].y": `"z"`, "x=calls[1].n": `2`, "x=output:json": `{"a":[{"b":1},{"b":2},[3]],"s":"text","n":null,"c.d":{"e":4}}`,
	} {
		if !strings.Contains(spec, ":") && want != `"z"` {
			spec += ":json"
		}
		if got := write(t, choose(t, spec), table.JSONL, answered(line)); got != `{"x":`+want+"}\n" {
			t.Errorf("%s is %s, want %s", spec, got, want)
		}
	}
	for _, spec := range []string{"output.s.b", "output.s[0]", "output.a.b", "output.a[0][0]"} {
		_, err := table.New(choose(t, "output.n", spec)).Row([]byte(line), true)
		if err == nil || !strings.Contains(err.Error(), `job "a"`) || !strings.Contains(err.Error(), spec) {
			t.Errorf("the path %s leads to %v, want an error that names it", spec, err)
		}
		if _, err := table.New(choose(t, spec)).Row([]byte(line), false); err != nil {
			t.Errorf("the path %s in a failed job: %v, want null", spec, err)
		}
	}
}

// TestRequired has lines without what a table cannot be without.
func TestRequired(t *testing.T) {
	for line, isLine := range map[string]bool{`{}`: true, `{"custom_id":null}`: true, `[]`: false, `1`: false, `{`: false} {
		if r, err := table.New(choose(t, "id=custom_id")).Row([]byte(line), true); err == nil || errors.Is(err, table.ErrLine) == isLine {
			t.Errorf("Row(%s) = %v, %v, want an error, and ErrLine: %t", line, r, err, !isLine)
		}
	}
}

// TestOneColumnCSV has rows that are empty, and are no empty lines, which readers skip.
func TestOneColumnCSV(t *testing.T) {
	lines := []string{string(answer(`{"v":null}`)), string(answer(`{"v":"a"}`)), string(answer(`{"v":""}`)), failure}
	var rows []func(*table.Table) (table.Row, error)
	for _, line := range lines {
		rows = append(rows, answered(line))
	}
	if got, want := write(t, choose(t, "v=output.v"), table.CSV, rows[:3]...), "v\n\"\"\na\n\"\"\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestRowSize compares the memory that rows take with what they say.
func TestRowSize(t *testing.T) {
	numbers := `[` + strings.Repeat("1,", 100_000) + `1]`
	for typ, value := range map[string]string{"int64[]": numbers, "string[]": numbers, "json": numbers, "string": `"` + strings.Repeat("a", 200_000) + `"`} {
		tab := table.New(choose(t, "custom_id", "v=output.v:"+typ, "w=output:json"))
		line := answer(`{"v":` + value + `}`)
		rows, size := make([]table.Row, 20), 0
		before := heap()
		for i := range rows {
			var err error
			if rows[i], err = tab.Row(bytes.Clone(line), true); err != nil {
				t.Fatal(err)
			}
			size += rows[i].Size()
		}
		if got := int(heap() - before); got > size {
			t.Errorf("%s: rows that say %d bytes take %d", typ, size, got)
		}
		runtime.KeepAlive(rows)
	}
}

// heap returns how many bytes are in use.
func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func TestFormatOf(t *testing.T) {
	for name, want := range map[string]table.Format{"a.csv": table.CSV, "x/y.JSONL": table.JSONL, "b.c.parquet": table.Parquet, "csv": "", "a.xlsx": "", "": ""} {
		got, ok := table.FormatOf(name)
		if ok != (want != "") || ok && got != want {
			t.Errorf("FormatOf(%q) = %s, %v, want %s", name, got, ok, want)
		}
	}
	if w, err := table.New(nil).Writer(nil, table.Encoding{Format: "xlsx"}); err == nil {
		t.Errorf("Writer = %v, want an error", w)
	}
}

// FuzzRow makes rows of any line by any path and type. What fits comes out as JSON,
// and as the value that went in.
func FuzzRow(f *testing.F) {
	f.Add(`output.a[0]["b.c"]`, "int64", `{"a":[{"b.c":1}]}`)
	f.Add("output.a.b", "json", `{"a":{"b":1.10,"c":[]},"a":{"b":"x"}}`)
	f.Add("output", "json", `{"a":"\ud800","b":[[],{}]}`)
	f.Add("output.v", "timestamp[]", `{"v":["2026-11-24T10:00:00Z",null]}`)
	f.Add("response.body", "string", `[1,2`)
	f.Fuzz(func(t *testing.T, path, typ, output string) {
		columns, err := catalog(t, nil).Choose([]string{"v=" + path + ":" + typ})
		if err != nil {
			return
		}
		line := answer(output)
		tab := table.New(columns)
		r, err := tab.Row(line, true)
		if !json.Valid(line) && err == nil {
			t.Fatalf("Row(%s) = nil, want an error", line)
		}
		if err != nil {
			return
		}
		for _, format := range table.Formats {
			var b bytes.Buffer
			w, err := tab.Writer(&b, table.Encoding{Format: format})
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(w.Write(r), w.Close()); err != nil {
				t.Fatalf("%s: %v", format, err)
			}
			if format != table.JSONL {
				continue
			}
			var got struct{ V any }
			if err := decode(b.Bytes(), &got); err != nil {
				t.Fatalf("%s as %s is %s: %v", output, typ, b.Bytes(), err)
			}
			if want, ok := lookUp(t, line, path); ok && typ == "json" && !cmp.Equal(want, got.V) {
				t.Fatalf("%s of %s is %v, want %v", path, output, got.V, want)
			}
		}
	})
}

func decode(text []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	return d.Decode(v)
}

// lookUp goes a path of plain names the way of encoding/json.
func lookUp(t *testing.T, line []byte, path string) (any, bool) {
	t.Helper()
	var l struct{ Upwell struct{ Output any } }
	names, ok := strings.CutPrefix(path, "output")
	if err := decode(line, &l); err != nil || !ok || strings.ContainsAny(path, "[:") {
		return nil, false
	}
	v := l.Upwell.Output
	for name := range strings.SplitSeq(strings.TrimPrefix(names, "."), ".") {
		if names == "" {
			break
		}
		m, _ := v.(map[string]any)
		v = m[name]
	}
	return v, true
}

// TestTwoOfOneName has an object with two members of one name.
func TestTwoOfOneName(t *testing.T) {
	line := string(answer(`{"a":{"b":1,"c":2},"a":{"c":3}}`))
	got := write(t, choose(t, "output.a.b:int64", "output.a.c:int64"), table.JSONL, answered(line))
	if want := `{"a_b":null,"a_c":3}` + "\n"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// FuzzSchema makes columns of any schema. Each can be chosen by its name.
func FuzzSchema(f *testing.F) {
	f.Add(`{"properties":{"a":{"$ref":"#"},"b":{"anyOf":[{"type":"null"},{"$ref":"#/properties/c"}]},"c":{"items":{"enum":[1]}}}}`)
	f.Add(`{"type":["object"],"properties":{"":{},"a,b":true}}`)
	f.Add(`{"$ref":"#/$defs/a","$defs":{"a":{"$ref":"#/$defs/b"},"b":{"$ref":"#/$defs/a"}}}`)
	f.Fuzz(func(t *testing.T, text string) {
		c, err := table.NewCatalog(map[string]json.RawMessage{"s": json.RawMessage(text)})
		if err != nil {
			return
		}
		names := make(map[string]bool)
		for _, col := range c.Default() {
			if name := strings.ToLower(col.Name); names[name] {
				t.Errorf("two columns are called %q", name)
			} else {
				names[name] = true
			}
		}
		_, _ = table.New(c.Default()).Row(answer(text), true)
		_, _ = c.Choose([]string{"output.a.b[0]", "output.c"})
	})
}
