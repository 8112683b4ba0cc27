package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/parquet-go/parquet-go"

	"upwell/sink/s3sink"
)

// TestNightly runs the README's example of a nightly job as it stands there, twice, and
// then on a day that has a job which cannot be answered.
func TestNightly(t *testing.T) {
	t.Parallel()
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("there is no bash")
	}
	s := newStack(t, "--latency", "20ms")
	dir := t.TempDir()
	files := etlFiles(t, dir)
	upload := func(day, text string) {
		t.Helper()
		put(t, s, "in/tickets/"+day+".csv", text)
	}
	nightly := func(day string, want int) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), bash, "nightly.sh", day)
		cmd.Dir = dir
		cmd.Env = append(append(os.Environ(), s.env...), "PATH="+filepath.Dir(program)+":"+os.Getenv("PATH"))
		out, _ := cmd.CombinedOutput()
		if got := cmd.ProcessState.ExitCode(); got != want {
			t.Fatalf("nightly.sh %s ended with %d, want %d:\n%s", day, got, want, out)
		}
		return string(out)
	}
	upload("2026-11-26", files["tickets.csv"])
	nightly("2026-11-26", 0)
	rows := lake(t, s, "2026-11-26")
	if len(rows) != 3 || rows[0].ID != "T-1041" || rows[2].ID != "T-1043" {
		t.Errorf("rows %+v, want three tickets in the order of the dump", rows)
	}
	for _, r := range rows {
		if !strings.Contains("billing access sales other", r.Topic) || r.Topic == "" {
			t.Errorf("ticket %s has topic %q, want one of the schema's", r.ID, r.Topic)
		}
	}
	calls := len(s.ledger(t))
	if out := nightly("2026-11-26", 0); !strings.Contains(out, "nothing to do") {
		t.Errorf("the second run said\n%s\nwant it to say that there is nothing to do", out)
	}
	if again := len(s.ledger(t)); again != calls || calls != 3 {
		t.Errorf("%d calls for 3 tickets, %d after the second run, want none more", calls, again)
	}

	upload("2026-11-27", files["tickets.csv"])
	control := `[{"kind":"refuse","match":"Acme"}]`
	s.control(t, "POST", "faults", strings.NewReader(control))
	out := nightly("2026-11-27", 1)
	if !strings.Contains(out, "upwell dead list says why") {
		t.Errorf("the run with refusals said\n%s\nwant where to look", out)
	}
	if rows := lake(t, s, "2026-11-27"); len(rows) > 0 {
		t.Errorf("%d rows of a run that failed were exported, want none", len(rows))
	}
}

// A ticketRow is a row of the exported table.
type ticketRow struct {
	ID    string `parquet:"custom_id"`
	Topic string `parquet:"topic,optional"`
}

// lake reads the exported partition of a day.
func lake(t *testing.T, s *stack, day string) (rows []ticketRow) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(s.dir, "lake", "tickets", "day="+day, "*.parquet"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		more, err := parquet.ReadFile[ticketRow](name)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		rows = append(rows, more...)
	}
	return rows
}

var etlBlock = regexp.MustCompile(`(?s)<!-- etl: (\S+) -->\n(.*?)\n<!-- /etl -->`)

// etlFiles writes the blocks of the README that are files into dir.
func etlFiles(t *testing.T, dir string) map[string]string {
	t.Helper()
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	files := make(map[string]string)
	for _, m := range etlBlock.FindAllStringSubmatch(string(readme), -1) {
		var text strings.Builder
		for line := range strings.Lines(m[2] + "\n") {
			text.WriteString(strings.TrimPrefix(line, "    "))
		}
		files[m[1]] = text.String()
		if err := os.WriteFile(filepath.Join(dir, m[1]), []byte(text.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if len(files) != 4 {
		t.Fatalf("the README has %d files for the example, want 4", len(files))
	}
	return files
}

// put stores an object in the stack's bucket.
func put(t *testing.T, s *stack, key, text string) {
	t.Helper()
	client := s3sink.NewClient(s.aws("AWS_ENDPOINT_URL_S3"))
	_, err := client.PutObject(t.Context(), &s3.PutObjectInput{Bucket: new(s.vars()["UPWELL_BUCKET"]), Key: &key, Body: strings.NewReader(text)})
	if err != nil {
		t.Fatal(fmt.Errorf("put %s: %w", key, err))
	}
}
