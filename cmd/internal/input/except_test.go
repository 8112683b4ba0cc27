package input_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"upwell/cmd/internal/input"
)

// TestExcept has the template and the results of an earlier run be no input though they
// lie in the folder that is, by whatever name, and says so.
func TestExcept(t *testing.T) {
	dir := write(t, map[string]string{
		"a.txt": "a contract", "sub/b.txt": "another", "review.md": "---", "sub/playbook.md": "rules",
		"results/r.output.jsonl": "{}", "results/s3/upwell/x.txt": "x", "r.errors.jsonl": "{}",
	})
	t.Chdir(dir)
	if err := os.Symlink("review.md", "link.md"); err != nil {
		t.Skip(err)
	}
	except := []string{"review.md", filepath.Join(dir, "sub", "playbook.md"), filepath.Join(dir, "results"), "r.errors.jsonl", "not there"}
	for arg, want := range map[string]struct{ ids, said string }{
		".":      {"a.txt sub/b.txt", "left out 5 files: link.md (of the template or of the results), r.errors.jsonl (of the template or of the results), results (of"},
		dir:      {"a.txt sub/b.txt", "sub/playbook.md (of the template"},
		"**/*.*": {"a.txt sub/b.txt", "results (of the template"},
		"*.txt":  {"a.txt", ""},
	} {
		f, sum := checked(t, arg, input.Options{Template: template(t), Except: except})
		if ids, _ := prompts(t, f); !slices.Equal(ids, strings.Fields(want.ids)) {
			t.Errorf("%s: ids = %q, want %s", arg, ids, want.ids)
		}
		if said := strings.Join(sum.Warnings, "\n"); !strings.Contains(said, want.said) || want.said == "" && said != "" {
			t.Errorf("%s: warnings %q, want %q in them", arg, said, want.said)
		}
	}
	got := problems(t, "sub/*.md", input.Options{Template: template(t), Except: except})
	if !strings.Contains(got, "sub/*.md holds nothing that can be read, only 1 file: playbook.md (of the template") {
		t.Errorf("%s\nwant the file, and why it is left out", got)
	}
}

// TestNothingThere calls what is not there what the user called it, and no folder.
func TestNothingThere(t *testing.T) {
	t.Chdir(write(t, map[string]string{"contracts/a.pdf": "x", "rows[1].csv": "id\n1\n", "data [v2]/x.jsonl": job("a", ""), "mixed/deep/b.pdf": "x", "mixed/c.csv": "x"}))
	if err := os.Mkdir("empty", 0o755); err != nil {
		t.Fatal(err)
	}
	for arg, want := range map[string]string{
		"nothing*.jsonl":          "no file matches nothing*.jsonl: give --template",
		"nothing*.jsonl with":     "no file matches nothing*.jsonl: want documents",
		"*.xyz with":              "no file matches *.xyz: want",
		"contracts/*.xyz with":    "no file matches contracts/*.xyz: want",
		"contracts/**/*.xyz with": "no file matches contracts/**/*.xyz: want",
		"empty":                   "empty holds no files: give --template",
		"empty/ with":             "empty holds no files: want",
		"contracts/*":             "contracts/* is a folder or several files: give --template",
		"mixed with":              "the glob 'mixed/**/*.pdf'",
	} {
		opts := input.Options{}
		bare, with := strings.CutSuffix(arg, " with")
		if with {
			opts.Template = template(t)
		}
		if got := problems(t, bare, opts); !strings.Contains(got, want) {
			t.Errorf("%s: %s\nwant %q in it", arg, got, want)
		}
	}
	// The glob that is offered matches the file that it is offered for.
	f, err := input.Open(t.Context(), "mixed/**/*.pdf", input.Options{Template: template(t)})
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
}

// TestRunOfBrackets names a run after the file even if its name looks like a glob.
func TestRunOfBrackets(t *testing.T) {
	dir := write(t, map[string]string{"rows[1].csv": "id\n1\n", "data [v2]/x.csv": "id\n1\n", "v1.2/y.csv": "id\n1\n"})
	for arg, want := range map[string]string{"rows[1].csv": "rows-1", "data [v2]/x.csv": "x", "data [v2]": "data-v2", "v1.2": "v1.2", "v1.2/*.csv": "v1.2", "v1.2/..": "in", "rows[[]1*": "in"} {
		f, err := input.Open(t.Context(), dir+"/"+arg, input.Options{Template: template(t)})
		if err != nil {
			t.Errorf("%s: %v", arg, err)
			continue
		}
		if f.Run() != want {
			t.Errorf("%s: run %s, want %s", arg, f.Run(), want)
		}
		f.Close()
	}
}

// TestDuplicatesAreCounted has the first of many duplicates be listed, and all counted.
func TestDuplicatesAreCounted(t *testing.T) {
	var lines []string
	for range 2 {
		for i := range 500 {
			lines = append(lines, job("id"+strings.Repeat("x", i), ""))
		}
	}
	_, err := input.Check(t.Context(), file(t, lines...), "r", anything)
	if err == nil {
		t.Fatal("Check = nil, want an error")
	}
	text := err.Error()
	for _, want := range []string{"500 lines cannot be submitted", ":501: custom_id", "… and 480 more", ":520: custom_id"} {
		if !strings.Contains(text, want) {
			t.Errorf("%s\nwant %q in it", text, want)
		}
	}
	if strings.Contains(text, ":521:") {
		t.Errorf("%s\nwant the first twenty only", text)
	}
}
