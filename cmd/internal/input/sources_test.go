package input_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"upwell/cmd/internal/document"
	"upwell/cmd/internal/input"
	"upwell/cmd/internal/prompt"
	"upwell/jobs"
)

// template returns one whose prompts are what records hold, as JSON.
func template(tb testing.TB, key ...string) *prompt.Template {
	tb.Helper()
	front := "model: m\n"
	if len(key) > 0 {
		front += "key: [" + strings.Join(key, ", ") + "]\n"
	}
	tmpl, err := prompt.Parse("t.md", []byte("---\n"+front+"---\n{{json .}}"), nil)
	if err != nil {
		tb.Fatal(err)
	}
	return tmpl
}

// builtin reads PDFs as every machine does.
var builtin = &document.Reader{PDFToText: document.Builtin}

func anything(jobs.Job, []byte) error { return nil }

// checked opens and checks an input that has to be good.
func checked(tb testing.TB, arg string, opts input.Options) (*input.File, input.Summary) {
	tb.Helper()
	opts.Documents = builtin
	f, err := input.Open(tb.Context(), arg, opts)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := f.Close(); err != nil {
			tb.Errorf("Close = %v, want nil", err)
		}
	})
	sum, err := input.Check(tb.Context(), f, "r", anything)
	if err != nil {
		tb.Fatal(err)
	}
	return f, sum
}

// problems opens and checks an input that is bad, and returns what is said about it.
func problems(t *testing.T, arg string, opts input.Options) string {
	t.Helper()
	opts.Documents = builtin
	f, err := input.Open(t.Context(), arg, opts)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	_, err = input.Check(t.Context(), f, "r", anything)
	if err == nil {
		t.Fatalf("Check(%s) = nil, want an error", arg)
	}
	return err.Error()
}

// prompts returns the file's prompts by id, and the ids in order.
func prompts(t *testing.T, f *input.File) (ids []string, values map[string]map[string]any) {
	t.Helper()
	values = make(map[string]map[string]any)
	for item, err := range f.Jobs("r") {
		if err != nil {
			t.Fatal(err)
		}
		var body struct{ Input string }
		if err := json.Unmarshal(item.Job.Body, &body); err != nil {
			t.Fatal(err)
		}
		d := json.NewDecoder(strings.NewReader(body.Input))
		d.UseNumber()
		var v map[string]any
		if err := d.Decode(&v); err != nil {
			t.Fatalf("%s: %v", body.Input, err)
		}
		ids = append(ids, item.Job.CustomID)
		values[item.Job.CustomID] = v
	}
	return ids, values
}

// write writes files into a new folder, and returns its path.
func write(tb testing.TB, files map[string]string) string {
	tb.Helper()
	dir := filepath.Join(tb.TempDir(), "in")
	for name, text := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			tb.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			tb.Fatal(err)
		}
	}
	return dir
}

// TestTables reads what other programs wrote; see testdata/README.md.
func TestTables(t *testing.T) {
	contracts := map[string]map[string]any{
		"MSA-0042": {"contract_id": "MSA-0042", "party": "Müller & Söhne GmbH", "value €": "12.500,00", "note": "Kündigung:\n- 3 Monate\n- schriftlich"},
		"NDA-0007": {"contract_id": "NDA-0007", "party": `"Quoted" Ltd; London`, "value €": "0,99", "note": ""},
		"SOW-0100": {"contract_id": "SOW-0100", "party": "株式会社 山田", "value €": "-3", "note": "tabhere, comma, semicolon; done"},
		"LOI-0001": {"contract_id": "LOI-0001", "party": "Ärzte 😀", "value €": "7", "note": "last"},
	}
	for _, name := range []string{"calc.csv", "calc.csv.gz", "calc.csv.zst", "calc-utf16.csv", "excel.csv"} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join("testdata", name)
			f, sum := checked(t, path, input.Options{Template: template(t, "contract_id")})
			ids, got := prompts(t, f)
			if name == "excel.csv" { // LibreOffice drops the tab
				got["SOW-0100"]["note"] = strings.Replace(got["SOW-0100"]["note"].(string), "tab\there", "tabhere", 1)
			}
			if diff := cmp.Diff(contracts, got); diff != "" {
				t.Errorf("rows (-want +got):\n%s", diff)
			}
			if want := []string{"MSA-0042", "NDA-0007", "SOW-0100", "LOI-0001"}; !slices.Equal(ids, want) || sum.Count != 4 {
				t.Errorf("ids = %v, count %d, want %v in that order", ids, sum.Count, want)
			}
			var lines []string
			for line, err := range f.Lines() {
				if err != nil {
					t.Fatal(err)
				}
				lines = append(lines, strings.TrimPrefix(line.Place, path+":"))
			}
			if want := []string{"2", "5", "6", "7"}; !slices.Equal(lines, want) {
				t.Errorf("the rows are said to be at lines %v, want %v", lines, want)
			}
		})
	}
}

func TestDuckDBsParquet(t *testing.T) {
	n := func(s string) json.Number { return json.Number(s) }
	f, sum := checked(t, "testdata/duckdb.parquet", input.Options{Template: template(t, "id")})
	_, got := prompts(t, f)
	want := map[string]map[string]any{
		"MSA-0042": {
			"id": "MSA-0042", "amount": n("12500.00"), "n": n("-7"), "small": n("255"), "ratio": n("0.1"), "single": n("1.5"), "signed": true,
			"day": "2026-11-24", "local_time": "2026-11-24T09:30:00.25", "utc_time": "2026-11-24T09:30:00Z", "clock": "23:59:58.5",
			"uid": "0f0e0d0c-0b0a-0908-0706-050403020100", "tags": []any{"a", nil, "c"}, "address": map[string]any{"city": "Köln", "zip": n("50667")},
			"counts": map[string]any{"k": n("1"), "l": n("2")}, "grid": []any{[]any{n("1"), n("2")}, []any{}, []any{n("3")}},
			"extra": map[string]any{"a": []any{n("1.10"), nil}}, "raw": "/9g=", "span": "P1M2DT3S", "huge": n("123456789012345678901234567890.12"),
		},
		"NDA-0007": {
			"id": "NDA-0007", "amount": n("-0.05"), "n": n("9223372036854775807"), "small": n("0"), "ratio": n("1e+300"), "single": n("-2.25"), "signed": false,
			"day": "1969-12-31", "local_time": "1969-12-31T23:59:59", "utc_time": "2026-11-24T07:30:00.000001Z", "clock": "00:00:00",
			"uid": "ffffffff-ffff-ffff-ffff-ffffffffffff", "tags": []any{}, "address": map[string]any{"city": nil, "zip": nil},
			"counts": map[string]any{}, "grid": []any{}, "extra": "", "raw": "text", "span": "P0M0DT0S", "huge": n("-0.01"),
		},
		"SOW-0100": {
			"id": "SOW-0100", "amount": n("0.00"), "n": n("0"), "small": n("7"), "ratio": "NaN", "single": "+Inf", "signed": "",
			"day": "0001-01-01", "local_time": "2026-02-28T00:00:00", "utc_time": "", "clock": "12:00:00",
			"uid": "", "tags": []any{"x"}, "address": map[string]any{"city": "山田", "zip": n("1")},
			"counts": map[string]any{"z": nil}, "grid": []any{nil, []any{nil, n("4")}}, "extra": "s", "raw": "", "span": "", "huge": n("1.00"),
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
	if want := []string{"1 empty row left out"}; !slices.Equal(sum.Warnings, want) {
		t.Errorf("Warnings = %q, want %q", sum.Warnings, want)
	}
}

// TestOtherParquet reads several row groups, and what JavaScript wrote.
func TestOtherParquet(t *testing.T) {
	f, sum := checked(t, "testdata/groups.parquet", input.Options{Template: template(t)})
	ids, got := prompts(t, f)
	if sum.Count != 5000 || len(got) != 5000 || ids[4999] != "row-5000" {
		t.Fatalf("%d rows, the last is %s, want 5000", sum.Count, ids[len(ids)-1])
	}
	for i := range 5000 {
		want := map[string]any{"n": json.Number(fmt.Sprint(i)), "name": fmt.Sprint("row ", i), "pair": ""}
		if i%3 != 0 {
			want["pair"] = []any{json.Number(fmt.Sprint(i)), json.Number(fmt.Sprint(i + 1))}
		}
		if diff := cmp.Diff(want, got[fmt.Sprint("row-", i+1)]); diff != "" {
			t.Fatalf("row %d (-want +got):\n%s", i+1, diff)
		}
	}
	f, _ = checked(t, "testdata/hyparquet.parquet", input.Options{Template: template(t, "ok", "id")})
	ids, got = prompts(t, f)
	if want := []string{"true/a", "false/b", "true/c"}; !slices.Equal(ids, want) {
		t.Errorf("ids = %v, want %v", ids, want)
	}
	want := map[string]any{"id": "a", "n": json.Number("1"), "when": "2026-11-24T09:30:00.125Z", "extra": map[string]any{"x": []any{json.Number("1"), json.Number("2.5")}}, "ok": true}
	if diff := cmp.Diff(want, got["true/a"]); diff != "" {
		t.Errorf("row (-want +got):\n%s", diff)
	}
}

func TestJSONRows(t *testing.T) {
	dir := write(t, map[string]string{"rows.jsonl": "\ufeff{\"n\": 1.10, \"id\": 12345678901234567890, \"gone\": null}\n\n {\"id\":\"b\",\"more\":{\"x\":[null,1e3]}}\r\n{}\n"})
	f, sum := checked(t, filepath.Join(dir, "rows.jsonl"), input.Options{Template: template(t), Key: []string{"id"}})
	ids, got := prompts(t, f)
	if want := []string{"12345678901234567890", "b"}; !slices.Equal(ids, want) || len(sum.Warnings) != 1 {
		t.Errorf("ids = %v, warnings %q, want %v and one", ids, sum.Warnings, want)
	}
	want := map[string]any{"n": json.Number("1.10"), "id": json.Number("12345678901234567890"), "gone": ""}
	if diff := cmp.Diff(want, got[ids[0]]); diff != "" {
		t.Errorf("row (-want +got):\n%s", diff)
	}
}

// TestDelimiter looks at what the first lines agree with.
func TestDelimiter(t *testing.T) {
	for _, tt := range []struct{ text, flag, want string }{
		{"a,b\n1;2,3\n", "", `{"a":"1;2","b":"3"}`},
		{"a;b\n1,5;2,5\n", "", `{"a":"1,5","b":"2,5"}`},
		{"a\tb\n1,2\t3;4\n", "", `{"a":"1,2","b":"3;4"}`},
		{"a|b\n1|2\n", "", `{"a":"1","b":"2"}`},
		{"a, b;c\n1, 2;3\nx;y\n", "", `{"a, b":"1, 2","c":"3"}`}, // commas do not agree
		{"\"a;b\";c\n\"1;\n2\";3\n", "", `{"a;b":"1;\n2","c":"3"}`},
		{"sep=;\r\na;b,c\r\n1;2\r\n", "", `{"a":"1","b,c":"2"}`},
		{"a;b,c\n1;2\n", ",", "1 fields, and the header has 2"},
		{"a;b\n1;2\n", ";", `{"a":"1","b":"2"}`},
		{"a,b;c\n1,2\n", "", `{"a":"1","b;c":"2"}`}, // semicolons do not agree
		{"only\n1,2;3\n", "", "2 fields"},           // a comma, where nothing is known
		{"only\none\n", "", `{"only":"one"}`},
		{" a , b\n 1, 2\n", "", `{"a":" 1","b":" 2"}`},
	} {
		dir := write(t, map[string]string{"x.csv": tt.text})
		opts := input.Options{Template: template(t)}
		if tt.flag != "" {
			opts.Delimiter = rune(tt.flag[0])
		}
		var got string
		for rec, err := range input.Records(t.Context(), filepath.Join(dir, "x.csv"), opts) {
			b, _ := json.Marshal(rec.Values)
			if got = string(b); err != nil {
				got = err.Error()
			}
			break
		}
		if got != tt.want && !strings.Contains(got, tt.want) || got == "" {
			t.Errorf("%q: %s, want %s", tt.text, got, tt.want)
		}
	}
}

func TestFolderOfDocuments(t *testing.T) {
	dir := write(t, map[string]string{
		"b.txt": "second", "a.txt": "first", "a/z.md": "nested", "a-b/x.html": "<p>page</p>", "A.TXT": "capitals",
		".hidden.txt": "x", ".git/config.txt": "x", "notes.xlsx": "x", "a/data.bin": "x", "_SUCCESS": "", "_draft.txt": "a draft",
	})
	outside := filepath.Join(t.TempDir(), "secret.txt")
	if err := os.WriteFile(outside, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]string{"out.txt": outside, "loop": ".", "inside.txt": "a.txt", "dangling.txt": "nowhere"} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Skip(err)
		}
	}
	p := new(input.Progress)
	f, sum := checked(t, dir+"/", input.Options{Template: template(t), Progress: p})
	ids, got := prompts(t, f)
	want := []string{"A.TXT", "_draft.txt", "a-b/x.html", "a.txt", "a/z.md", "b.txt", "inside.txt"}
	if !slices.Equal(ids, want) || !slices.IsSorted(ids) {
		t.Errorf("ids = %q, want %q", ids, want)
	}
	if diff := cmp.Diff(map[string]any{"text": "nested", "name": "z.md", "path": "a/z.md", "type": "md", "size": json.Number("6")}, got["a/z.md"]); diff != "" {
		t.Errorf("record (-want +got):\n%s", diff)
	}
	said := strings.Join(sum.Warnings, "\n")
	for _, s := range []string{"left out 5 files", "a/data.bin (not of a type", "notes.xlsx", "out.txt (a link that leads out", "dangling.txt", "loop (a link to a folder)"} {
		if !strings.Contains(said, s) {
			t.Errorf("the warnings do not say %q:\n%s", s, said)
		}
	}
	if f.Run() != "in" || p.Records.Load() != 7 || p.Bytes.Load() == 0 || p.Bytes.Load() != p.Total.Load() {
		t.Errorf("run %q, progress %d records, %d of %d bytes, want in, 7 and all", f.Run(), p.Records.Load(), p.Bytes.Load(), p.Total.Load())
	}
}

func TestGlobAndSingleDocument(t *testing.T) {
	dir := write(t, map[string]string{"2025/a.txt": "1", "2026/b.txt": "2", "2026/q1/c.txt": "3", "2026/q1/d.md": "4", "e[1].txt": "5", "table.csv": "a,b\n1,2\n"})
	for pattern, want := range map[string]string{
		"*/*.txt":       "2025/a.txt 2026/b.txt",
		"2026/*.txt":    "b.txt",
		"**/*.txt":      "2025/a.txt 2026/b.txt 2026/q1/c.txt e[1].txt",
		"2026/**":       "b.txt q1/c.txt q1/d.md",
		"2026/**/c.*":   "q1/c.txt",
		"20[2]5/?.txt":  "2025/a.txt",
		"2026/q1/d.md":  "d.md",
		"e[1].txt":      "e[1].txt", // there is a file of that name
		"2026/**/*.doc": "no file matches",
		"2026/[":        "syntax error",
	} {
		var got string
		opts := input.Options{Template: template(t), Documents: builtin}
		if f, err := input.Open(t.Context(), filepath.Join(dir, pattern), opts); err != nil {
			got = err.Error()
		} else if _, err := input.Check(t.Context(), f, "r", anything); err != nil {
			t.Fatal(err)
		} else {
			ids, _ := prompts(t, f)
			got = strings.Join(ids, " ")
			f.Close()
		}
		if got != want && (!strings.Contains(want, " ") || !strings.Contains(got, want)) {
			t.Errorf("%s: %s, want %s", pattern, got, want)
		}
	}
}

// TestFolderOfTables has ids that say which file a row is of.
func TestFolderOfTables(t *testing.T) {
	dir := write(t, map[string]string{
		"b.csv": "x,y\n1,2\n3,4\n", "a/c.jsonl": `{"x":5}`, "_temporary/d.csv": "x\n9\n", ".e.csv": "x\n9\n", "_SUCCESS": "",
	})
	f, sum := checked(t, dir, input.Options{Template: template(t)})
	ids, _ := prompts(t, f)
	if want := []string{"a/c.jsonl#row-1", "b.csv#row-1", "b.csv#row-2"}; !slices.Equal(ids, want) {
		t.Errorf("ids = %q, want %q", ids, want)
	}
	if len(sum.Warnings) != 1 || !strings.Contains(sum.Warnings[0], "_temporary/d.csv (named _") {
		t.Errorf("Warnings = %q, want one about the folder with _", sum.Warnings)
	}
	dir = write(t, map[string]string{"part-00000": "x,y\n1,2\n", "part-00001": "x,y\n3,4\n", "notes.jsonl": "{}"})
	f, _ = checked(t, dir, input.Options{Template: template(t), Format: "csv"})
	if ids, _ := prompts(t, f); !slices.Equal(ids, []string{"part-00000#row-1", "part-00001#row-1"}) {
		t.Errorf("ids = %q, want those of the parts", ids)
	}
}

func TestStdin(t *testing.T) {
	rows := []byte("id,x\nr1,2\nr2,4\n")
	var squeezed bytes.Buffer
	z := gzip.NewWriter(&squeezed)
	_, _ = z.Write(rows)
	z.Close()
	parquet, err := os.ReadFile("testdata/hyparquet.parquet")
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		text   []byte
		format string
		jobs   int
	}{
		"csv": {rows, "", 2}, "csv.gz": {squeezed.Bytes(), "csv", 2}, "jsonl": {[]byte("{\"id\":1}\n{\"id\":2}\n{\"id\":3}"), "", 3},
		"jsonl, named": {[]byte("{\"id\":1}\n"), "jsonl", 1}, "parquet": {parquet, "", 3}, "parquet, named": {parquet, "parquet", 3},
	} {
		t.Run(name, func(t *testing.T) {
			f, sum := checked(t, "-", input.Options{Template: template(t, "id"), Format: tt.format, Stdin: bytes.NewReader(tt.text)})
			if ids, _ := prompts(t, f); len(ids) != tt.jobs || sum.Count != tt.jobs || f.Run() != "stdin" {
				t.Errorf("ids = %q in run %s, want %d in stdin", ids, f.Run(), tt.jobs)
			}
		})
	}
}

// TestBatchFiles reads a batch file as it is compressed, and knows it by its content.
func TestBatchFiles(t *testing.T) {
	text := job("a", "") + "\n" + job("b", "") + "\n"
	var squeezed bytes.Buffer
	z := gzip.NewWriter(&squeezed)
	_, _ = z.Write([]byte(text))
	z.Close()
	want := ""
	for _, name := range []string{"batch.jsonl", "batch.jsonl.gz", "batch", "batch.txt"} {
		content := text
		if name != "batch.jsonl" {
			content = squeezed.String()
		}
		path := filepath.Join(write(t, map[string]string{name: content}), name)
		p := new(input.Progress)
		f, sum := checked(t, path, input.Options{Progress: p})
		if want == "" {
			want = sum.SHA256
		}
		if sum.Count != 2 || sum.SHA256 != want || f.Run() != "batch" || p.Bytes.Load() != int64(len(content)) || p.Total.Load() != int64(len(content)) {
			t.Errorf("%s: %+v in run %s, %d of %d bytes, want 2 jobs in run batch, %d, and the same hash", name, sum, f.Run(), p.Bytes.Load(), p.Total.Load(), len(content))
		}
		f, sum = checked(t, "-", input.Options{Stdin: strings.NewReader(content)})
		if n := len(slices.Collect(maps.Keys(jobsOf(t, f)))); n != 2 || sum.SHA256 != want {
			t.Errorf("%s as standard input: %d jobs, want 2 and the same hash", name, n)
		}
	}
}

func jobsOf(t *testing.T, f *input.File) map[string]string {
	t.Helper()
	all := make(map[string]string)
	for item, err := range f.Jobs("r") {
		if err != nil {
			t.Fatal(err)
		}
		all[item.Job.CustomID] = string(item.Text)
	}
	return all
}

// TestNeedsTemplate has everything else say what to give.
func TestNeedsTemplate(t *testing.T) {
	dir := write(t, map[string]string{
		"a.csv": "x\n1\n", "b.txt": "text", "c.parquet": "PAR1", "d": "%PDF-1.7", "e.jsonl": `{"x":1}` + "\n", "f.xlsx": "PK\x03\x04", "only/x.txt": "x",
	})
	for _, name := range []string{"a.csv", "b.txt", "c.parquet", "d", "e.jsonl", "f.xlsx", "only", "*.txt", ""} {
		_, err := input.Open(t.Context(), filepath.Join(dir, name), input.Options{})
		if err == nil || !strings.Contains(err.Error(), "give --template FILE") {
			t.Errorf("Open(%s) = %v, want an error that says to give a template", name, err)
		}
	}
	if _, err := input.Open(t.Context(), filepath.Join(dir, "none"), input.Options{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Open of nothing = %v, want one that says that it does not exist", err)
	}
}

// TestProblems has each fault say where it is, and what is wanted.
func TestProblems(t *testing.T) {
	for name, tt := range map[string]struct {
		file, text string
		key        string
		want       []string
	}{
		"ragged":            {"x.csv", "a,b\n1,2\n3\n\"4\n4\",5\n6,7,8\n", "", []string{"2 rows cannot", "x.csv:3: 1 fields, and the header has 2", "x.csv:6: 3 fields"}},
		"after Excel's sep": {"x.csv", "sep=;\na;b\n1\n\"2\n", "", []string{"x.csv:3: 1 fields", "x.csv:4: a quote that is opened"}},
		"not UTF-8":         {"x.csv", "a,b\n1,2\n3,M\xfcller\n", "", []string{`1 row cannot`, `x.csv:3: column "b": character 2 is not UTF-8 (byte 0xFC)`}},
		"UTF-16, unmarked":  {"x.csv", "a\x00,\x00b\x00\n\x00", "", []string{"x.csv:1: ", "UTF-16"}},
		"half a pair":       {"x.csv", "\xff\xfea\x00,\x00b\x00\n\x001\x00,\x00\x3d\xd8x\x00\n\x00", "", []string{`x.csv:2: column "b": character 1 is not UTF-8`}},
		"no header":         {"x.csv", "\n", "", []string{"x.csv:1: no header"}},
		"empty file":        {"x.csv", "", "", []string{"x.csv: the file is empty"}},
		"only a header":     {"x.csv", "a,b\n", "", []string{"no jobs in it: want a table"}},
		"column unnamed":    {"x.csv", "a,,b\n1,2,3\n", "", []string{"x.csv:1: column 2 has no name"}},
		"column twice":      {"x.csv", "a,b,a\n1,2,3\n", "", []string{`x.csv:1: columns 1 and 3 are both named "a"`}},
		"quote":             {"x.csv", "a,b\n1,2\n3,4 \"x\"\n5,6\n", "", []string{"x.csv:3: byte 5: a quote inside of a field"}},
		"quote, open":       {"x.csv", "a,b\n1,2\n3,\"4\n5,6\n", "", []string{"x.csv:3: a quote that is opened in this row"}},
		"CR":                {"x.csv", "a,b\r1,2\r", "", []string{"x.csv:1: its lines end with CR alone"}},
		"duplicate":         {"x.csv", "id,b\nk,1\n\"l\nl\",2\nk,3\n", "id", []string{`x.csv:5: custom_id: "k" is used at `, "x.csv:2: ids are unique"}},
		"key empty":         {"x.csv", "id,b\n,1\n", "id", []string{`x.csv:2: column "id": empty, but it is the key`}},
		"no key":            {"x.csv", "b,c\n1,2\n3,4\n", "id", []string{"1 row cannot", `x.csv:1: no column "id"`, `there are "b", "c"`}},
		"JSON key":          {"x.jsonl", "{\"id\":[1]}\n{\"b\":1}\n", "id", []string{`x.jsonl:1: column "id": a list`, `x.jsonl:2: no column "id"`, `there are "b"`}},
		"JSON":              {"x.jsonl", "{\"a\":1}\n[1]\n{\"a\":\n\nnull\n{} {}\n{\"a\":\"\xff\"}\n", "", []string{"5 rows", "x.jsonl:2: a JSON array, want an object", "x.jsonl:3: not JSON: it ends in the middle", "x.jsonl:5: a JSON null", "x.jsonl:6: more text", "x.jsonl:7: character 7 is not UTF-8"}},
		"JSON array":        {"x.jsonl", "[{\"a\":1}]\n", "", []string{"x.jsonl:1: a JSON array, want an object"}},
		"not Parquet":       {"x.parquet", "a,b\n1,2\n", "", []string{"x.parquet: it is not a Parquet file"}},
		"half of one":       {"x.parquet", "PAR1 and no more", "", []string{"x.parquet: it does not end like a Parquet file"}},
		"spreadsheet":       {"x.xlsx", "PK\x03\x04 and more", "", []string{"x.xlsx: it is a ZIP or Office file, not a table"}},
		"no idea":           {"x.dat", "some text\nand more\n", "", []string{"x.dat: it is not clear what it is: give --format"}},
		"document":          {"x.pdf", "no PDF", "", []string{"1 document cannot", "x.pdf: ", "--skip-unreadable"}},
	} {
		t.Run(name, func(t *testing.T) {
			opts := input.Options{Template: template(t)}
			if tt.key != "" {
				opts.Key = []string{tt.key}
			}
			got := problems(t, filepath.Join(write(t, map[string]string{tt.file: tt.text}), tt.file), opts)
			for _, want := range tt.want {
				if !strings.Contains(got, want) {
					t.Errorf("%s\nwant %q in it", got, want)
				}
			}
		})
	}
}

// TestQuoteOfAFile has a quote that is never closed not take in a whole file.
func TestQuoteOfAFile(t *testing.T) {
	if testing.Short() {
		t.Skip("it reads 42 MB")
	}
	path := filepath.Join(write(t, map[string]string{"x.csv": "a,b\n1,\"" + strings.Repeat("no end\n", 6<<20)}), "x.csv")
	if got := problems(t, path, input.Options{Template: template(t)}); !strings.Contains(got, "x.csv:2: longer than 32 MiB") {
		t.Errorf("%s\nwant the row, and why", got)
	}
}

// TestWindowsText is refused as it is, rather than guessed at.
func TestWindowsText(t *testing.T) {
	got := problems(t, "testdata/calc-windows.csv", input.Options{Template: template(t)})
	if !strings.Contains(got, "calc-windows.csv:1: column 3: character 7 is not UTF-8 (byte 0x80): save the file as UTF-8") {
		t.Errorf("%s\nwant line, column and byte", got)
	}
}

// TestBothKinds has no folder with documents and tables guess.
func TestBothKinds(t *testing.T) {
	dir := write(t, map[string]string{"a.pdf": "x", "b.csv": "x"})
	got := problems(t, dir, input.Options{Template: template(t)})
	for _, want := range []string{"both documents (1 file: a.pdf) and tables (1 file: b.csv)", "/*.pdf'"} {
		if !strings.Contains(got, want) {
			t.Errorf("%s\nwant %q in it", got, want)
		}
	}
	if got := problems(t, write(t, map[string]string{"a.doc": "x"}), input.Options{Template: template(t)}); !strings.Contains(got, "nothing that can be read, only 1 file: a.doc") {
		t.Errorf("%s\nwant the file named", got)
	}
}

func TestSkipUnreadable(t *testing.T) {
	files := map[string]string{"good.txt": "text"}
	for i := range 30 {
		files[fmt.Sprintf("bad%02d.png", i)] = "not an image"
	}
	dir := write(t, files)
	opts := input.Options{Template: template(t), SkipUnreadable: true}
	f, sum := checked(t, dir, opts)
	if ids, _ := prompts(t, f); !slices.Equal(ids, []string{"good.txt"}) {
		t.Errorf("ids = %q, want the good one", ids)
	}
	if len(sum.Warnings) != 21 || !strings.Contains(sum.Warnings[0], "bad00.png: left out: ") || !strings.Contains(sum.Warnings[20], "10 more documents") {
		t.Errorf("Warnings = %q, want twenty and a count", sum.Warnings)
	}
	opts.SkipUnreadable = false
	if got := problems(t, dir, opts); !strings.Contains(got, "30 documents cannot be submitted") || !strings.Contains(got, "bad00.png: ") || strings.Count(got, "bad00") != 1 {
		t.Errorf("%s\nwant 30 documents, each named once", got)
	}
}

// TestSkipDenied leaves out what this user may not read.
func TestSkipDenied(t *testing.T) {
	dir := write(t, map[string]string{"good.txt": "text", "mine.txt": "text"})
	path := filepath.Join(dir, "mine.txt")
	if err := os.Chmod(path, 0); err != nil {
		t.Fatal(err)
	}
	if f, err := os.Open(path); err == nil {
		_ = f.Close()
		t.Skip("this user may read everything")
	}
	opts := input.Options{Template: template(t), SkipUnreadable: true}
	_, sum := checked(t, dir, opts)
	if sum.Count != 1 || len(sum.Warnings) != 1 || !strings.Contains(sum.Warnings[0], "mine.txt: left out: permission denied") {
		t.Errorf("%d jobs, Warnings = %q, want one of each, and why", sum.Count, sum.Warnings)
	}
	opts.SkipUnreadable = false
	if got := problems(t, dir, opts); !strings.Contains(got, "mine.txt: permission denied") || !strings.Contains(got, "--skip-unreadable") {
		t.Errorf("%s\nwant the file named, and what to do", got)
	}
}

// TestNotes has what may be wrong with documents be said, and not of all of them.
func TestNotes(t *testing.T) {
	files := make(map[string]string)
	for i := range 25 {
		files[fmt.Sprintf("%02d.txt", i)] = "M\xfcller, in Windows-1252"
	}
	_, sum := checked(t, write(t, files), input.Options{Template: template(t)})
	if sum.Count != 25 || len(sum.Warnings) != 21 || !strings.Contains(sum.Warnings[0], "00.txt: ") || sum.Warnings[20] != "… and 5 more warnings like these" {
		t.Errorf("%d jobs, Warnings = %q, want 25, and twenty and a count", sum.Count, sum.Warnings)
	}
}

// TestTemplateProblems names the record where the template does not fit.
func TestTemplateProblems(t *testing.T) {
	tmpl, err := prompt.Parse("t.md", []byte("---\nmodel: m\n---\n{{.party}} {{.value}}"), nil)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(write(t, map[string]string{"x.csv": "party,worth\nA,1\nB,2\n"}), "x.csv")
	got := problems(t, path, input.Options{Template: tmpl})
	if !strings.Contains(got, "2 rows cannot") || !strings.Contains(got, "x.csv:2: ") || strings.Count(got, path+":2") != 1 || !strings.Contains(got, "value") {
		t.Errorf("%s\nwant the place once, and the column", got)
	}
}

// TestNothingIsLeft has no temporary file with a name, before or after.
func TestNothingIsLeft(t *testing.T) {
	path := filepath.Join(write(t, map[string]string{"x.csv": "a,b\n1,2\n"}), "x.csv")
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	for name, open := range map[string]func() (*input.File, error){
		"table": func() (*input.File, error) {
			return input.Open(t.Context(), path, input.Options{Template: template(t)})
		},
		"stdin": func() (*input.File, error) {
			return input.Open(t.Context(), "-", input.Options{Stdin: strings.NewReader(job("a", ""))})
		},
	} {
		f, err := open()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := input.Check(t.Context(), f, "r", anything); err != nil {
			t.Fatal(err)
		}
		if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
			t.Errorf("%s: a kill would leave %v", name, left)
		}
		if n := len(jobsOf(t, f)); n != 1 {
			t.Errorf("%s: %d jobs, want 1", name, n)
		}
		f.Close()
	}
}

// TestSameInputSameHash has a run go on when the same is submitted again, and not when
// anything of it is another.
func TestSameInputSameHash(t *testing.T) {
	files := make(map[string]string)
	for i := range 200 {
		files[fmt.Sprintf("%d/%d.txt", i%7, i)] = fmt.Sprint("text ", i)
	}
	dir := write(t, files)
	_, first := checked(t, dir, input.Options{Template: template(t)})
	for range 3 {
		if _, again := checked(t, dir+"/.", input.Options{Template: template(t)}); again.SHA256 != first.SHA256 || again.Count != 200 {
			t.Errorf("the hash is %s of %d jobs, want %s again", again.SHA256, again.Count, first.SHA256)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "0", "0.txt"), []byte("another"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, other := checked(t, dir, input.Options{Template: template(t)}); other.SHA256 == first.SHA256 {
		t.Error("the hash of another text is the same")
	}
}

func TestFitID(t *testing.T) {
	long := strings.Repeat("ü", 256) // 512 bytes
	if input.FitID(long) != long {
		t.Error("an id that fits was changed")
	}
	a, b := input.FitID(long+"a"), input.FitID(long+"b")
	if a == b || a != input.FitID(long+"a") || len(a) > jobs.MaxCustomID || len(a) < jobs.MaxCustomID-4 {
		t.Errorf("FitID = %q and %q, want two of nearly %d bytes", a, b, jobs.MaxCustomID)
	}
	for _, id := range []string{a, b} {
		if _, err := jobs.Parse([]byte(job(id, "")), "r"); err != nil {
			t.Errorf("%q: %v", id, err)
		}
	}
}

// TestRecordsStop has no more read than is looked at.
func TestRecordsStop(t *testing.T) {
	dir := write(t, map[string]string{"x.csv": "a,b\n1,2\n3,4\n5\n"})
	var got []string
	for rec, err := range input.Records(t.Context(), filepath.Join(dir, "x.csv"), input.Options{Template: template(t)}) {
		if err != nil {
			got = append(got, err.Error())
			continue
		}
		got = append(got, rec.ID)
	}
	if len(got) != 3 || got[1] != "row-2" || !strings.Contains(got[2], "x.csv:4: 1 fields") {
		t.Errorf("Records = %q, want two and an error with its place", got)
	}
}
