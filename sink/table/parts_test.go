package table_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"upwell/sink/table"
)

// dated is a row that was finished on that day, counted from the end of October.
func dated(t *testing.T, tab *table.Table, id string, day int) table.Row {
	t.Helper()
	finished := time.Date(2026, 11, day, 0, 0, 0, 0, time.UTC).Format(time.RFC3339)
	r, err := tab.Row(fmt.Appendf(nil, `{"custom_id":%q,"upwell":{"finished":%q,"output_text":"%x"}}`, id, finished, sum(day)), true)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func folder(t *testing.T) (table.Folder, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "table")
	return table.NewFolder(dir), dir
}

// files lists what a target has.
func files(t *testing.T, target table.Target) (names []string) {
	t.Helper()
	for name, err := range target.Names(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// lineCount counts the lines of a file.
func lineCount(t *testing.T, file string) int {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(text), "\n")
}

func TestRolling(t *testing.T) {
	for _, format := range table.Formats {
		target, dir := folder(t)
		tab := table.New(choose(t, "custom_id", "note=output.note"))
		parts := table.NewParts(tab, target, table.Layout{Encoding: table.Encoding{Format: format}, FileSize: 256 << 10})
		for i := range 3000 {
			r, err := tab.Row(answer(fmt.Sprintf(`{"note":"%x"}`, sum(i))), true)
			if err != nil {
				t.Fatal(err)
			}
			if err := parts.Write(t.Context(), r); err != nil {
				t.Fatal(err)
			}
		}
		if err := parts.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		names := files(t, target)
		if len(names) < 2 || parts.Files != len(names) || names[0] != "part-00000."+string(format) {
			t.Errorf("%s: files are %v, want several, and Files to be %d", format, names, parts.Files)
		}
		var bytes int64
		for i, name := range names {
			info, err := os.Stat(filepath.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			bytes += info.Size()
			if last := i == len(names)-1; info.Size() > 600<<10 || info.Size() < 100<<10 && !last {
				t.Errorf("%s: %s has %d bytes, want about 256 Ki", format, name, info.Size())
			}
		}
		if bytes != parts.Bytes {
			t.Errorf("%s: Bytes = %d, want %d", format, parts.Bytes, bytes)
		}
	}
}

// sum is text that does not compress.
func sum(i int) []byte {
	b := make([]byte, 120)
	x := uint64(i)*2654435761 + 1
	for j := range b {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		b[j] = byte(x)
	}
	return b
}

// TestPartitions writes rows of 120 days, of which no more than 100 files may be open,
// and one row of no day.
func TestPartitions(t *testing.T) {
	target, dir := folder(t)
	tab := table.New(nil)
	parts := table.NewParts(tab, target, table.Layout{Encoding: table.Encoding{Format: table.JSONL}, ByDate: true})
	for i := range 360 {
		if err := parts.Write(t.Context(), dated(t, tab, fmt.Sprint(i), 1+i%120)); err != nil {
			t.Fatal(err)
		}
		if open, err := filepath.Glob(filepath.Join(dir, ".upwell-*")); err != nil || len(open) > 100 {
			t.Fatalf("%d files are open, want 100 at most", len(open))
		}
	}
	none, err := tab.Row([]byte(`{"custom_id":"x"}`), true)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(parts.Write(t.Context(), none), parts.Close(t.Context())); err != nil {
		t.Fatal(err)
	}
	lines := make(map[string]int)
	for _, name := range files(t, target) {
		lines[strings.Split(name, "/")[0]] += lineCount(t, filepath.Join(dir, name))
	}
	want := map[string]int{"date=__HIVE_DEFAULT_PARTITION__": 1}
	for day := 1; day <= 120; day++ {
		want[time.Date(2026, 11, day, 0, 0, 0, 0, time.UTC).Format("date=2006-01-02")] = 3
	}
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Errorf("lines by partition differ (-want +got):\n%s", diff)
	}
}

// TestManyDays keeps a file open for each day, however the days alternate, and bounds
// what all of them hold back together.
func TestManyDays(t *testing.T) {
	const days, rows, group = 60, 3000, 256 << 10
	for _, fileSize := range []int64{0, 16 << 20} {
		for _, format := range table.Formats {
			target, _ := folder(t)
			tab := table.New(choose(t, "custom_id", "output_text"))
			parts := table.NewParts(tab, target, table.Layout{Encoding: table.Encoding{Format: format, GroupSize: group}, ByDate: true, FileSize: fileSize})
			most := 0
			for i := range rows {
				if err := parts.Write(t.Context(), dated(t, tab, fmt.Sprint(i), 1+i*7%days)); err != nil {
					t.Fatal(err)
				}
				held, counted := parts.Held()
				if most = max(most, held); held != counted {
					t.Fatalf("%s: the files hold %d bytes, and %d are counted", format, held, counted)
				}
			}
			if most > group || most < group/2 {
				t.Errorf("%s: the files held %d bytes, want %d at most, and not much less", format, most, group)
			}
			if err := parts.Close(t.Context()); err != nil || parts.Files != days {
				t.Errorf("%s: Close = %v after %d files, want %d", format, err, parts.Files, days)
			}
			if _, counted := parts.Held(); counted != 0 {
				t.Errorf("%s: after Close %d bytes are counted, want none", format, counted)
			}
		}
	}
}

// TestOneDayAmongMany keeps the file open that is used all the time.
func TestOneDayAmongMany(t *testing.T) {
	target, _ := folder(t)
	tab := table.New(nil)
	parts := table.NewParts(tab, target, table.Layout{Encoding: table.Encoding{Format: table.JSONL}, ByDate: true})
	for i := range 120 {
		for _, day := range []int{1, 2 + i} {
			if err := parts.Write(t.Context(), dated(t, tab, fmt.Sprint(i), day)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := parts.Close(t.Context()); err != nil || parts.Files != 121 {
		t.Errorf("Close = %v after %d files, want 121", err, parts.Files)
	}
}

func TestNoRows(t *testing.T) {
	for format, want := range map[table.Format]string{table.JSONL: "", table.CSV: "custom_id\n"} {
		target, dir := folder(t)
		parts := table.NewParts(table.New(choose(t, "custom_id")), target, table.Layout{Encoding: table.Encoding{Format: format}})
		if err := parts.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join(dir, "part-00000."+string(format)))
		if err != nil || string(got) != want {
			t.Errorf("%s: a table without rows is %q, %v, want %q", format, got, err, want)
		}
	}
	target, _ := folder(t)
	parts := table.NewParts(table.New(choose(t, "custom_id")), target, table.Layout{Encoding: table.Encoding{Format: table.Parquet}})
	if err := parts.Close(t.Context()); err != nil || len(files(t, target)) != 1 {
		t.Errorf("Close = %v, and files %v, want one", err, files(t, target))
	}
}

// TestSingleFile has a file that appears when it is whole.
func TestSingleFile(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "out.jsonl")
	if err := os.WriteFile(file, []byte("old"), 0o644); err != nil {
		t.Fatal(err)
	}
	tab := table.New(nil)
	for _, finish := range []bool{false, true} {
		parts := table.NewParts(tab, table.File(file), table.Layout{Encoding: table.Encoding{Format: table.JSONL}})
		if err := parts.Write(t.Context(), dated(t, tab, "a", 1)); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(file); err != nil || string(got) != "old" {
			t.Errorf("the file is %q, %v before the end, want what was there", got, err)
		}
		if finish {
			if err := parts.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		parts.Discard()
		if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
			t.Errorf("the folder has %v, want one file", entries)
		}
	}
	if n := lineCount(t, file); n != 1 {
		t.Errorf("%d lines, want 1", n)
	}
}

func TestDataset(t *testing.T) {
	target, dir := folder(t)
	put := func(name string) {
		t.Helper()
		tmp, err := target.Temp()
		if err == nil {
			_, err = tmp.WriteString("x")
		}
		if err := errors.Join(err, target.Put(t.Context(), name, tmp)); err != nil {
			t.Fatal(err)
		}
	}
	begin := func(run string) *table.Dataset {
		t.Helper()
		set, err := table.Begin(t.Context(), target, run)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{"_INCOMPLETE"}, files(t, target)); diff != "" {
			t.Errorf("after Begin the files differ (-want +got):\n%s", diff)
		}
		return set
	}
	begin("q3")
	put("part-00000.csv")
	put("date=2026-11-01/part-00001.csv")
	left, err := target.Temp() // by a kill
	if err != nil {
		t.Fatal(err)
	}
	left.Close()
	set := begin("q3")
	if _, err := os.Stat(filepath.Join(dir, "date=2026-11-01")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the folder of a partition: %v, want it gone", err)
	}
	put("part-00000.csv")
	if err := set.Finish(t.Context(), table.Success{Run: "q3", Rows: 7}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"_SUCCESS", "part-00000.csv"}, files(t, target)); diff != "" {
		t.Errorf("after Finish the files differ (-want +got):\n%s", diff)
	}
	var s table.Success
	text, err := target.Read(t.Context(), "_SUCCESS")
	if err != nil || json.Unmarshal(text, &s) != nil || s.Run != "q3" || s.Rows != 7 {
		t.Errorf("_SUCCESS is %s, %v", text, err)
	}
	begin("q3")
}

// TestForeign has folders that Begin must leave alone.
func TestForeign(t *testing.T) {
	other, err := json.Marshal(table.Success{Run: "q4"})
	if err != nil {
		t.Fatal(err)
	}
	own, err := json.Marshal(table.Success{Run: "q3"})
	if err != nil {
		t.Fatal(err)
	}
	for what, tree := range map[string]map[string]string{
		"a file":            {"letter.txt": ""},
		"a file beside":     {"_SUCCESS": string(own), "part-00000.csv": "", "letter.txt": ""},
		"a deep file":       {"_SUCCESS": string(own), "a/part-00000.csv": ""},
		"somebody's parts":  {"part-00000.parquet": ""},
		"an empty _SUCCESS": {"_SUCCESS": "", "part-00000.parquet": ""},
		"another run":       {"_SUCCESS": string(other), "part-00000.parquet": ""},
		"Spark's":           {"_SUCCESS": "", "part-00000-0b6c.snappy.parquet": ""},
	} {
		target, dir := folder(t)
		for name, text := range tree {
			file := filepath.Join(dir, name)
			if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if err := table.Vet(t.Context(), target, "q3"); !errors.Is(err, table.ErrForeign) {
			t.Errorf("%s: Vet = %v, want ErrForeign", what, err)
		}
		if _, err := table.Begin(t.Context(), target, "q3"); !errors.Is(err, table.ErrForeign) {
			t.Errorf("%s: Begin = %v, want ErrForeign", what, err)
		}
		if got := files(t, target); len(got) != len(tree) {
			t.Errorf("%s: there is %v after Begin, want what was there", what, got)
		}
	}
}

// steps is a target that notes what is put and removed, and fails at one step.
type steps struct {
	table.Folder
	list *[]string
	fail int // the step that fails; -1 for none
}

var errStep = errors.New("no more")

func (s steps) step(what string) error {
	if len(*s.list) == s.fail {
		return errStep
	}
	*s.list = append(*s.list, what)
	return nil
}

// TestNeverAMixture exports over an earlier export, and fails at each step in turn.
// At no time may there be a _SUCCESS beside files of two exports, or of half of one.
func TestNeverAMixture(t *testing.T) {
	for fail := 0; ; fail++ {
		target, dir := folder(t)
		overwrite(t, target, "old")
		var list []string
		err := overwriteWith(t, steps{target, &list, fail}, "new")
		if _, statErr := os.Stat(filepath.Join(dir, "_SUCCESS")); statErr == nil {
			texts := make(map[string]bool)
			parts, _ := filepath.Glob(filepath.Join(dir, "part-*"))
			for _, p := range parts {
				text, err := os.ReadFile(p)
				if err != nil {
					t.Fatal(err)
				}
				texts[string(text)] = true
			}
			if len(parts) != 2 || len(texts) != 1 {
				t.Errorf("after step %d there are %v of %v beside _SUCCESS", fail, parts, texts)
			}
		}
		overwrite(t, target, "again") // what failed can be repeated
		if err == nil {
			if fail < 7 {
				t.Errorf("an export took %d steps: %v", fail, list)
			}
			return
		}
	}
}

func overwrite(t *testing.T, target table.Target, text string) {
	t.Helper()
	if err := overwriteWith(t, target, text); err != nil {
		t.Fatal(err)
	}
}

func overwriteWith(t *testing.T, target table.Target, text string) error {
	t.Helper()
	set, err := table.Begin(t.Context(), target, "q3")
	if err != nil {
		return err
	}
	for i := range 2 {
		if err := putText(t, set, i, text); err != nil {
			return err
		}
	}
	return set.Finish(t.Context(), table.Success{Run: "q3"})
}

func putText(t *testing.T, target table.Target, part int, text string) error {
	t.Helper()
	tmp, err := target.Temp()
	if err != nil {
		return err
	}
	if _, err := tmp.WriteString(text); err != nil {
		return err
	}
	return target.Put(t.Context(), fmt.Sprintf("part-%05d.csv", part), tmp)
}

// TestTwoAtOnce begins an export while another one is under way, which must notice
// and leave nothing.
func TestTwoAtOnce(t *testing.T) {
	for _, again := range []string{"begun", "finished"} {
		target, dir := folder(t)
		first, err := table.Begin(t.Context(), target, "q3")
		if err == nil {
			err = putText(t, first, 0, "first")
		}
		if err != nil {
			t.Fatal(err)
		}
		second, err := table.Begin(t.Context(), target, "q3")
		if err == nil && again == "finished" {
			err = second.Finish(t.Context(), table.Success{Run: "q3"})
		}
		if err != nil {
			t.Fatal(err)
		}
		before := files(t, target)
		if err := putText(t, first, 1, "first"); !errors.Is(err, table.ErrTaken) {
			t.Errorf("another has %s: Put = %v, want ErrTaken", again, err)
		}
		if err := first.Finish(t.Context(), table.Success{Run: "q3"}); !errors.Is(err, table.ErrTaken) {
			t.Errorf("another has %s: Finish = %v, want ErrTaken", again, err)
		}
		if diff := cmp.Diff(before, files(t, target)); diff != "" {
			t.Errorf("another has %s: the files in %s differ (-want +got):\n%s", again, dir, diff)
		}
	}
}

// late is a target where another export begins just before _SUCCESS is put. As those
// of a bucket, its temporary files are elsewhere.
type late struct {
	table.Folder
	tmp string
}

func (l late) Temp() (*os.File, error) { return os.CreateTemp(l.tmp, "") }

func (l late) Put(ctx context.Context, name string, f *os.File) error {
	if name == "_SUCCESS" {
		if _, err := table.Begin(ctx, l.Folder, "q3"); err != nil {
			return err
		}
	}
	return l.Folder.Put(ctx, name, f)
}

func TestTakenAtTheLastMoment(t *testing.T) {
	target, _ := folder(t)
	if err := overwriteWith(t, late{target, t.TempDir()}, "first"); !errors.Is(err, table.ErrTaken) {
		t.Errorf("Finish = %v, want ErrTaken", err)
	}
	if diff := cmp.Diff([]string{"_INCOMPLETE"}, files(t, target)); diff != "" {
		t.Errorf("the files differ (-want +got):\n%s", diff)
	}
}

// TestStream writes to what stays where and what it is.
func TestStream(t *testing.T) {
	file, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for range 2 {
		tab := table.New(nil)
		parts := table.NewParts(tab, table.Stream{To: file}, table.Layout{Encoding: table.Encoding{Format: table.JSONL}})
		if err := errors.Join(parts.Write(t.Context(), dated(t, tab, "a", 1)), parts.Close(t.Context())); err != nil {
			t.Fatal(err)
		}
		parts.Discard()
	}
	if n := lineCount(t, file.Name()); n != 2 {
		t.Errorf("%d lines, want 2", n)
	}
}

func (s steps) Put(ctx context.Context, name string, f *os.File) error {
	if err := s.step("put " + name); err != nil {
		s.Drop(f)
		return err
	}
	return s.Folder.Put(ctx, name, f)
}

// Names lists what sorts last first, as nobody promises an order.
func (s steps) Names(ctx context.Context) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		var names []string
		for name, err := range s.Folder.Names(ctx) {
			if err != nil {
				yield("", err)
				return
			}
			names = append(names, name)
		}
		for _, name := range slices.Backward(names) {
			if !yield(name, nil) {
				return
			}
		}
	}
}

func (s steps) Remove(ctx context.Context, name string) error {
	if err := s.step("remove " + name); err != nil {
		return err
	}
	return s.Folder.Remove(ctx, name)
}
