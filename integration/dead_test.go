package integration

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"upwell/integration/fixture"
	"upwell/jobs"
	"upwell/jobs/sqsqueue"
)

// TestDeadLetters has jobs fail in several ways, looks at them, and sends those back
// that can be mended.
func TestDeadLetters(t *testing.T) {
	t.Parallel()
	s := newStack(t, "--latency", "5ms")
	large := strings.Repeat("secret clause ", 75000) // with what a job says beside, it leaves no room for attributes
	file := filepath.Join(t.TempDir(), "q3.jsonl")
	var lines bytes.Buffer
	for _, id := range fixture.IDs("fine", 3) {
		fmt.Fprintf(&lines, "%s\n", fixture.Job(id, ""))
	}
	for _, id := range fixture.IDs("short", 4) {
		fmt.Fprintf(&lines, "%s\n", fixture.Job(id, `,"max_output_tokens":1`))
	}
	big := string(fixture.Job("large", `,"max_output_tokens":1,"instructions":"`+large[:sqsqueue.MaxMessage-500]+`"`))
	fmt.Fprintf(&lines, "%s\n", big)
	late := string(fixture.Job("late", ""))
	fmt.Fprintf(&lines, "%s,\"upwell\":{\"deadline\":\"2020-01-01T00:00:00Z\"}}\n", late[:len(late)-1])
	if err := os.WriteFile(file, lines.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	s.launch(t, "submit", file).exits(t, 0)
	s.launch(t, "worker", "--exit-when-empty=2s").exits(t, 1)
	if err := s.dead.Send(t.Context(), []sqsqueue.Outgoing{{Body: []byte(`{"custom_id":"a,foreign"}`)}}); err != nil {
		t.Fatal(err)
	}

	list := s.launch(t, "dead", "list")
	list.exits(t, 0)
	list.says(t, "standard output", list.stdout.String(), []string{
		`^7 dead letters in upwell-jobs-dead$`, `^  truncated  5$`, `^  expired    1$`, `^  unknown    1$`, `^truncated  q3   short-0003  200 .*limit of output tokens`, `^unknown    -    a,foreign .*not written by upwell$`,
	})
	if got := s.listed(t, "id=a,foreign,class=unknown"); got != "a,foreign" {
		t.Errorf("by an id with a comma: %s, want a,foreign", got)
	}
	if got, want := s.listed(t, "class=truncated,older=0s"), "large short-0000 short-0001 short-0002 short-0003"; got != want {
		t.Errorf("truncated: %s, want %s", got, want)
	}

	show := s.launch(t, "dead", "show", "q3/large", "--redact")
	show.exits(t, 0)
	show.says(t, "standard output", show.stdout.String(), []string{
		`^q3/large$`, `^  class +truncated$`, `^  body at +s3://upwell/runs/q3/letters/[0-9a-f]{2}/large.json$`, `^answered since: no$`, `^1 .* 200 `, `"max_output_tokens": 1`, `"instructions": "\(\d+ characters\)"`,
	})
	if out := show.stdout.String(); strings.Contains(out, "secret") || strings.Contains(out, "enforceable") {
		t.Errorf("dead show --redact prints the prompt: %.2000s", out)
	}
	raw := s.launch(t, "dead", "show", "large", "--body")
	raw.exits(t, 0)
	whole, err := jobs.InRun([]byte(big), "q3")
	if err != nil || raw.stdout.String() != string(whole)+"\n" {
		t.Errorf("dead show --body prints %d bytes, want the %d of the job: %v", len(raw.stdout.String()), len(whole)+1, err)
	}
	s.launch(t, "dead", "show", "nobody").exits(t, 1)

	dry := s.launch(t, "dead", "redrive", "--set", "max_output_tokens=8000", "--dry-run")
	dry.exits(t, 1)
	dry.says(t, "standard output", dry.stdout.String(), []string{
		`^7 dead letters to redrive$`, `^truncated: q3/\w+(-\d+)? would become$`, `^    "max_output_tokens": 8000`, `^would be left where they are: 2$`,
		`^  q3/late: its deadline passed`, `^  a,foreign: not a job: url`, `^nothing was sent$`,
	})
	if c := left(t, s.dead); c.Visible != 7 || c.Hidden != 0 {
		t.Errorf("dead-letter queue after a dry run: %+v, want 7 visible", c)
	}

	// Without the bucket, the large one cannot go.
	some := s.launch(t, "dead", "redrive", "--where", "class=truncated", "--set", "max_output_tokens=8000", "--bucket", "")
	some.exits(t, 1)
	some.says(t, "standard output", some.stdout.String(), []string{`^redriven: 4$`, `^left where they are: 1$`, `^  q3/large: its body is in the bucket: name that with --bucket$`})
	rest := s.launch(t, "dead", "redrive", "--where", "run=q3", "--set", "max_output_tokens=8000", "--set", "deadline=none")
	rest.exits(t, 0)
	rest.says(t, "standard output", rest.stdout.String(), []string{`^2 of 3 dead letters to redrive$`, `^redriven: 2$`})
	s.launch(t, "worker", "--exit-when-empty=2s").exits(t, 0)
	if diff := cmp.Diff([]string{"fine-0000", "fine-0001", "fine-0002", "large", "late", "short-0000", "short-0001", "short-0002", "short-0003"}, s.stored(t, "q3")); diff != "" {
		t.Errorf("results (-want +got):\n%s", diff)
	}
	if got := s.listed(t, ""); got != "a,foreign" {
		t.Errorf("letters at the end: %s, want a,foreign", got)
	}
	s.launch(t, "status", "q3").exits(t, 0) // nothing failed any more
}

// listed returns the names of the letters that there are, in order.
func (s *stack) listed(t *testing.T, where string) string {
	t.Helper()
	args := []string{"dead", "list", "--json"}
	if where != "" {
		args = append(args, "--where", where)
	}
	p := s.launch(t, args...)
	p.exits(t, 0)
	var names []string
	for line := range strings.Lines(p.stdout.String()) {
		var l struct {
			CustomID string `json:"custom_id"`
		}
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Errorf("%s: %v", line, err)
		}
		names = append(names, l.CustomID)
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

// TestDeadLimits asks for fewer letters than none.
func TestDeadLimits(t *testing.T) {
	t.Parallel()
	for _, args := range []string{"dead list --queue q --limit=-1", "dead redrive --queue q --limit=-3 --dry-run"} {
		p := launch(t, nil, strings.Fields(args)...)
		p.exits(t, 2)
		p.says(t, "standard error", p.stderr.String(), []string{`^upwell: --limit -[13], want a whole number from 1, or 0 for all$`})
	}
}

// TestDeadInterrupted interrupts a list in the middle: it reads no further, and the
// letters are back.
func TestDeadInterrupted(t *testing.T) {
	t.Parallel()
	s := newStack(t, "--sqs-latency", "20ms")
	var out []sqsqueue.Outgoing
	for _, id := range fixture.IDs("job", 400) {
		out = append(out, sqsqueue.Outgoing{Body: fixture.Job(id, "")})
	}
	if err := s.dead.Send(t.Context(), out); err != nil {
		t.Fatal(err)
	}
	receives := s.behind(t, "AWS_ENDPOINT_URL_SQS", operation("ReceiveMessage"))
	receives.shutAfter(6) // it is not done before it is interrupted
	p := s.launch(t, "dead", "list")
	eventually(t, "letters to be read", func() bool { return left(t, s.dead).Hidden > 50 })
	p.signal(t, syscall.SIGINT)
	receives.open()
	p.exits(t, 130)
	if c := left(t, s.dead); c.Visible != 400 {
		t.Errorf("after the interrupt: %+v, want 400 visible", c)
	}
	if _, n := receives.held(); n >= 40 {
		t.Errorf("%d requests for letters, want fewer than it takes to read all", n)
	}
}
