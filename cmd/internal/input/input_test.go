package input_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"upwell/cmd/internal/input"
	"upwell/jobs"
)

func job(id, more string) string {
	return fmt.Sprintf(`{"custom_id":%q,"method":"POST","url":"/v1/responses","body":{"model":"m","input":"x"}%s}`, id, more)
}

func file(t *testing.T, lines ...string) *input.File {
	t.Helper()
	path := filepath.Join(t.TempDir(), "batch one.jsonl")
	if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")), 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := input.Open(t.Context(), path, input.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func fits(_ jobs.Job, b []byte) error {
	if len(b) > 1000 {
		return errors.New("too long for the queue")
	}
	return nil
}

func TestCheckCounts(t *testing.T) {
	f := file(t, "\ufeff"+job("a", ""), "", "  "+job("b", "")+"\r", job("../../x", ""), job("a/b", ""), job("😀", ""), job(strings.Repeat("i", 300), ""))
	sum, err := input.Check(t.Context(), f, "r", fits)
	if err != nil || sum.Count != 6 || sum.Models["m"] != 6 || len(sum.SHA256) != 64 {
		t.Fatalf("Check = %+v, %v, want 6 jobs of model m", sum, err)
	}
	var ids []string
	for item, err := range f.Jobs("r") {
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, fmt.Sprint(item.N, item.Job.CustomID))
	}
	if len(ids) != 6 || ids[0] != "1a" || ids[1] != "3b" || ids[2] != "4../../x" {
		t.Errorf("Jobs = %q, want six of them by line", ids)
	}
	if got := f.Run(); got != "batch-one" {
		t.Errorf("Run = %q, want batch-one", got)
	}
}

func TestCheckNamesLineAndField(t *testing.T) {
	f := file(t,
		job("a", ""), // 1
		"not json",
		strings.Replace(job("b", ""), `"custom_id":"b",`, "", 1),
		job("a", ""), // 4: as on line 1
		job("c", `,"upwell":{"tyers":["flex"]}`),
		strings.Replace(job("d", ""), "/v1/responses", "/v1/embeddings", 1),
		strings.Replace(job("e", ""), `{"model":"m","input":"x"}`, `""`, 1),
		job("f", `,"upwell":{"run":"other"}`),
		strings.Replace(job("g", ""), `"x"`, `"`+strings.Repeat("x", 1000)+`"`, 1),
		job("h", "")+job("i", ""),
		job("a", ""), // 11: a third time
		strings.Replace(job("j", ""), `"m"`, `"m","stream":true`, 1),
	)
	_, err := input.Check(t.Context(), f, "r", fits)
	bad, ok := errors.AsType[*input.InvalidError](err)
	if !ok {
		t.Fatalf("Check = %v, want an *InvalidError", err)
	}
	want := map[int]string{
		2: "", 3: "custom_id", 4: "custom_id", 5: "upwell.tyers", 6: "url", 7: "body", 8: "upwell.run", 9: "", 10: "", 11: "custom_id", 12: "body.stream",
	}
	last := 0
	for _, p := range bad.Problems {
		line, _ := strconv.Atoi(strings.TrimPrefix(p.Place, f.Name+":"))
		if line <= last {
			t.Errorf("line %d is listed after line %d", line, last)
		}
		last = line
		field, expected := want[line]
		if !expected || p.Field != field {
			t.Errorf("%s, field %q: %s; want field %q", p.Place, p.Field, p.Reason, field)
		}
		delete(want, line)
	}
	if len(want) > 0 || bad.Total != 11 {
		t.Errorf("not reported: %v; total %d, want 11", want, bad.Total)
	}
	if !strings.Contains(err.Error(), f.Name+":4: custom_id: \"a\" is used on line 1") {
		t.Errorf("the error does not say where the id was used before:\n%v", err)
	}
}

func TestCheckListsTheFirstProblems(t *testing.T) {
	lines := make([]string, 100)
	for i := range lines {
		lines[i] = "nonsense"
	}
	_, err := input.Check(t.Context(), file(t, lines...), "r", fits)
	if err == nil || strings.Count(err.Error(), "\n") != 21 || !strings.Contains(err.Error(), "… and 80 more") {
		t.Errorf("Check = %v, want twenty problems and a count of the rest", err)
	}
}

func TestOpen(t *testing.T) {
	if _, err := input.Open(t.Context(), filepath.Dir(file(t, job("a", "")).Name), input.Options{}); err == nil || !strings.Contains(err.Error(), "folder") {
		t.Errorf("Open(folder) = %v, want an error that says so", err)
	}
	f, err := input.Open(t.Context(), "-", input.Options{Stdin: strings.NewReader(job("a", "") + "\n")})
	if err != nil {
		t.Fatal(err)
	}
	sum, err := input.Check(t.Context(), f, "r", fits)
	if err != nil || sum.Count != 1 || f.Run() != "stdin" {
		t.Errorf("Check(-) = %+v, %v in run %s, want one job in run stdin", sum, err, f.Run())
	}
	if err := f.Close(); err != nil {
		t.Errorf("Close = %v, want nil", err)
	}
	if _, err := input.Check(t.Context(), file(t, "", " "), "r", fits); err == nil {
		t.Error("Check of an empty file = nil, want an error")
	}
}
