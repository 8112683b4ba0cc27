package integration

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"upwell/integration/fixture"
)

// TestTerminate stops a worker with a hundred calls in flight, which go on until another
// one has the rest.
func TestTerminate(t *testing.T) {
	t.Parallel()
	s := newStack(t, "--latency", "2s", "--capacity", standstill)
	names := fixture.IDs("job", 130)
	s.submit(t, "deploy", names)
	first := s.launch(t, "worker", "--slots", "100", "--start-rate", "200", "--drain", "10m")
	eventually(t, "100 calls in flight", func() bool { return s.counts(t).InFlight == 100 })
	first.signal(t, syscall.SIGTERM)
	eventually(t, "the 30 messages that were not sent to be given back", func() bool { return left(t, s.queue).Visible == 30 })
	second := s.launch(t, "worker", "--start-rate", "200", "--exit-when-empty=2s")
	eventually(t, "the other 30 calls in flight", func() bool { return s.counts(t).InFlight == 130 })
	if hasEnded(first) {
		t.Error("the first worker has ended, want it to wait for its calls")
	}
	s.capacity(t, "conc=inf")
	first.exits(t, 0)
	if n := len(s.stored(t, "deploy")); n < 100 {
		t.Errorf("%d results when the first worker has ended, want the 100 it had in flight", n)
	}
	second.exits(t, 0)
	s.balance(t, "deploy", names, 0)
}

// TestKill kills one of two workers in the middle of their work. Its messages
// return when their visibility runs out, which is what this test waits for.
func TestKill(t *testing.T) {
	lengthy(t, "it waits for two minutes")
	t.Parallel()
	s := newStack(t, "--latency", "300ms")
	names := fixture.IDs("job", 2000)
	s.submit(t, "kill", names)
	worker := []string{"worker", "--slots", "64", "--start-rate", "60", "--max-rate", "100", "--exit-when-empty=2s"}
	s.slow(t, 701, 200) // a minute, until the victim is dead
	victim, survivor := s.launch(t, worker...), s.launch(t, worker...)
	eventually(t, "a third of the work to be done, and more calls in flight than the survivor makes", func() bool {
		c := s.counts(t)
		return c.Billed >= 700 && c.InFlight > 64
	})
	victim.signal(t, syscall.SIGSTOP) // so that nothing moves while it is counted
	stored := len(s.stored(t, "kill"))
	c := s.counts(t)
	victim.signal(t, syscall.SIGKILL)
	victim.exits(t, -1)
	s.quick(t)
	if c.Billed > 1800 || c.InFlight == 0 {
		t.Fatalf("%d calls billed and %d in flight at the kill, want it in the middle", c.Billed, c.InFlight)
	}
	eventually(t, "the victim's messages to come back, and to be worked on", func() bool { return left(t, s.queue).Total() == 0 })
	survivor.exits(t, 0)
	// In flight is what was sent and is not stored yet: an answer on its way
	// from the worker to S3 is lost as well.
	s.balance(t, "kill", names, c.InFlight+int(c.Billed)-stored)
}

// TestKeyRevoked takes the key away in the middle of a run, and gives it back.
func TestKeyRevoked(t *testing.T) {
	t.Parallel()
	s := newStack(t, "--latency", "200ms", "--accept-key", "local")
	names := fixture.IDs("job", 400)
	s.submit(t, "revoked", names)
	answers := s.behind(t, "OPENAI_BASE_URL", calls)
	answers.shutAfter(150) // it is not done before the key is gone
	w := s.launch(t, "worker", "--slots", "32", "--start-rate", "50", "--max-rate", "50", "--exit-when-empty=2s", "--max-attempts", "1")
	eventually(t, "work to be under way", func() bool { return s.counts(t).Billed >= 100 })
	s.control(t, "POST", "keys", strings.NewReader(`["another"]`))
	answers.open()
	eventually(t, "intake to be paused", func() bool { return strings.Contains(w.stderr.String(), "intake paused") })
	eventually(t, "every message to be back in the queue, but for one or two to try with", func() bool {
		c := left(t, s.queue)
		return c.Hidden <= 3 && c.Total() == len(names)-len(s.stored(t, "revoked"))
	})
	if c := s.counts(t); c.InFlight > 3 {
		t.Errorf("%d calls in flight after the pause, want none but one or two to try with", c.InFlight)
	}
	if !strings.Contains(w.stderr.String(), "check the API key") {
		t.Errorf("the log does not say what to fix, want it to: %s", tail(w.stderr.String()))
	}
	s.control(t, "POST", "keys", strings.NewReader(`["local"]`))
	w.exits(t, 0)
	s.balance(t, "revoked", names, 0)
}

// TestHealth probes a worker: at work, without a good key, and while it drains.
func TestHealth(t *testing.T) {
	t.Parallel()
	s := newStack(t, "--latency", "300ms", "--accept-key", "local")
	addr := freePort(t)
	probe := func(args ...string) (int, string) {
		return s.asked(t, append([]string{"health", "--http", addr}, args...)...)
	}
	if code, said := probe(); code != 1 || !strings.Contains(said, "refused") {
		t.Errorf("upwell health without a worker = %d, %q, want 1 and why", code, said)
	}
	s.submit(t, "health", fixture.IDs("job", 2000)) // more than it can do
	w := s.launch(t, "worker", "--http", addr, "--slots", "4", "--start-rate", "4", "--max-rate", "4", "--drain", "10m")
	ready := func(want string) func() bool {
		return func() bool { _, said := probe("--ready"); return strings.Contains(said, want) }
	}
	eventually(t, "it to be ready", ready("ok"))
	s.launch(t, "worker", "--http", addr).exits(t, 3) // the port is taken
	s.control(t, "POST", "keys", strings.NewReader(`["another"]`))
	eventually(t, "it to say what is wrong with the key", ready("check the API key"))
	if code, said := probe(); code != 0 {
		t.Errorf("upwell health while intake is paused = %d, %q, want 0: a restart mends nothing", code, said)
	}
	s.control(t, "POST", "keys", strings.NewReader(`["local"]`))
	eventually(t, "it to be ready again", ready("ok"))
	s.control(t, "POST", "faults", strings.NewReader(`[{"kind": "hang"}]`)) // it drains until it is seen to
	before := s.counts(t).Calls
	eventually(t, "calls that hang", func() bool { return s.counts(t).Calls > before })
	w.signal(t, syscall.SIGTERM)
	eventually(t, "it to say that it drains", ready("draining"))
	w.signal(t, syscall.SIGKILL)
	w.exits(t, -1)
}

// TestRunInterrupted presses Ctrl-C again and again.
func TestRunInterrupted(t *testing.T) {
	t.Parallel()
	s := newStack(t, "--latency", "700ms")
	dir := t.TempDir()
	file, out := filepath.Join(dir, "nightly.jsonl"), filepath.Join(dir, "out")
	names := fixture.IDs("job", 240)
	writeJobs(t, file, names)
	args := []string{"run", file, "-o", out, "--slots", "24", "--start-rate", "30", "--max-rate", "40"}
	answers := s.behind(t, "OPENAI_BASE_URL", calls)
	for range 3 {
		answers.shutAfter(40) // it is not done before it is interrupted
		before := s.counts(t).Billed
		p := s.launch(t, args...)
		eventually(t, "some calls to be billed", func() bool { return s.counts(t).Billed >= before+20 })
		p.signal(t, os.Interrupt)
		eventually(t, "it to say what it waits for", func() bool { return strings.Contains(p.stderr.String(), "interrupted: waiting for") })
		answers.open()
		p.exits(t, 130)
		if c, n := s.counts(t), len(storedIn(t, filepath.Join(out, "s3/upwell/runs/nightly/results"))); int(c.Billed) != n || c.InFlight != 0 {
			t.Errorf("%d calls billed, %d in flight and %d results after an interrupt, want as many results as calls", c.Billed, c.InFlight, n)
		}
	}
	s.launch(t, args...).exits(t, 0)
	if c := s.counts(t); c.Billed != 240 || c.Gone != 0 {
		t.Errorf("%d calls billed and %d given up, want 240 and none", c.Billed, c.Gone)
	}
	checkOutput(t, filepath.Join(out, "nightly.output.jsonl"), names)

	// And once more: nothing is left to do.
	s.launch(t, args...).exits(t, 0)
	if c := s.counts(t); c.Calls != c.Billed || c.Billed != 240 {
		t.Errorf("%d calls after a run that was done, want 240 as before", c.Calls)
	}
}

// TestRunKilled does the same the hard way.
func TestRunKilled(t *testing.T) {
	t.Parallel()
	s := newStack(t, "--latency", "700ms")
	dir := t.TempDir()
	file, out := filepath.Join(dir, "nightly.jsonl"), filepath.Join(dir, "out")
	names := fixture.IDs("job", 240)
	writeJobs(t, file, names)
	args := []string{"run", file, "-o", out, "--slots", "24", "--start-rate", "30", "--max-rate", "40"}
	results := filepath.Join(out, "s3/upwell/runs/nightly/results")
	var all int
	for range 3 {
		s.slow(t, 41, 1000) // it is not done before it is killed
		before := s.counts(t).Billed
		p := s.launch(t, args...)
		eventually(t, "some calls to be billed", func() bool { return s.counts(t).Billed >= before+40 })
		p.signal(t, syscall.SIGSTOP) // so that nothing moves while it is counted
		stored := len(storedIn(t, results))
		c := s.counts(t)
		p.signal(t, os.Kill)
		p.exits(t, -1)
		// Its slots, and what may be on its way to the folder.
		if lost := c.InFlight + int(c.Billed) - stored - all; lost > 24+24/2+10 {
			t.Errorf("%d calls were sent and are not stored at the kill, want no more than a worker of 24 slots holds", lost)
		}
		all = c.InFlight + int(c.Billed) - stored
		eventually(t, "the endpoint to be idle", func() bool { return s.counts(t).InFlight == 0 })
	}
	s.quick(t)
	s.launch(t, args...).exits(t, 0)
	if c := s.counts(t); c.Billed < 240 || c.Billed > int64(240+all) {
		t.Errorf("%d calls billed, want 240 and at most the %d more that were lost at the kills", c.Billed, all)
	}
	checkOutput(t, filepath.Join(out, "nightly.output.jsonl"), names)
}

// checkOutput verifies that a file has the answers to all jobs, in their order.
func checkOutput(t *testing.T, file string, ids []string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for line := range bytes.Lines(text) {
		var l struct {
			CustomID string `json:"custom_id"`
			Response struct{ Body struct{ Status string } }
		}
		if err := json.Unmarshal(line, &l); err != nil || l.Response.Body.Status != "completed" {
			t.Errorf("%s: line of %q has the status %q (%v), want completed", file, l.CustomID, l.Response.Body.Status, err)
		}
		got = append(got, l.CustomID)
	}
	if !slices.Equal(got, ids) {
		t.Errorf("%s has %d lines, want those of %d jobs in the order of the input", file, len(got), len(ids))
	}
}

// TestSecondInterrupt ends at once, without waiting for calls in flight.
func TestSecondInterrupt(t *testing.T) {
	t.Parallel()
	s := newStack(t, "--latency", "10m")
	dir := t.TempDir()
	file := filepath.Join(dir, "jobs.jsonl")
	writeJobs(t, file, fixture.IDs("job", 3))
	p := s.launch(t, "run", file, "-o", filepath.Join(dir, "out"))
	eventually(t, "calls in flight", func() bool { return s.counts(t).InFlight == 3 })
	p.signal(t, os.Interrupt)
	eventually(t, "it to say what it waits for", func() bool { return strings.Contains(p.stderr.String(), "3 calls in flight") })
	p.signal(t, os.Interrupt)
	p.exits(t, 130)
	if !strings.Contains(p.stderr.String(), "upwell: ended at once: calls in flight are abandoned") {
		t.Errorf("it says %q, want that it ends at once", p.stderr.String())
	}
}

// TestDemo runs what a newcomer runs first. It balances its own account.
func TestDemo(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "demo")
	p := launch(t, nil, "demo", "-q", "-o", dir)
	p.exits(t, 0)
	if want := "312 of 312 jobs answered, 0 failed"; !strings.Contains(p.stdout.String(), want) {
		t.Errorf("upwell demo says %s, want %q in it", tail(p.stdout.String()), want)
	}
	text, err := os.ReadFile(filepath.Join(dir, "contracts.output.jsonl"))
	if n := bytes.Count(text, []byte("\n")); err != nil || n != 312 {
		t.Errorf("%d answers (%v), want 312", n, err)
	}
}

// TestOneFolderOneRun keeps two processes out of one folder.
func TestOneFolderOneRun(t *testing.T) {
	t.Parallel()
	s := newStack(t, "--latency", "1ms", "--capacity", standstill)
	dir := t.TempDir()
	file, out := filepath.Join(dir, "jobs.jsonl"), filepath.Join(dir, "out")
	writeJobs(t, file, fixture.IDs("job", 3))
	first := s.launch(t, "run", file, "-o", out)
	eventually(t, "a call in flight", func() bool { return s.counts(t).InFlight > 0 })
	s.launch(t, "run", file, "-o", out).exits(t, 2)
	s.capacity(t, "conc=inf")
	first.exits(t, 0)
	if c := s.counts(t); c.Billed != 3 {
		t.Errorf("%d calls billed, want 3", c.Billed)
	}
}

// badInput are files that are refused before anything is paid for.
var badInput = []struct {
	name, text string
	want       []string // in what is said
}{
	{"not JSON", "{\"custom_id\":\"a\"\n", []string{"bad.jsonl:1:", "not JSON"}},
	{"second line not JSON", string(fixture.Job("a", "")) + "\nhello\n", []string{"bad.jsonl:2:", "not JSON"}},
	{"an array", "[1,2]\n", []string{"bad.jsonl:1:", "want an object"}},
	{"no custom_id", `{"url":"/v1/responses","body":{"model":"m"}}`, []string{"bad.jsonl:1:", "custom_id"}},
	{"empty custom_id", string(fixture.Job("", "")), []string{"bad.jsonl:1:", "custom_id"}},
	{"number as custom_id", `{"custom_id":7,"url":"/v1/responses","body":{"model":"m"}}`, []string{"bad.jsonl:1:", "custom_id", "want a string"}},
	{"duplicate", string(fixture.Job("a", "")) + "\n\n" + string(fixture.Job("b", "")) + "\n" + string(fixture.Job("a", "")), []string{"bad.jsonl:4:", `"a" is used on line 1`}},
	{"custom_id too long", string(fixture.Job(strings.Repeat("x", 513), "")), []string{"bad.jsonl:1:", "custom_id", "512"}},
	{"unknown key", `{"custom_id":"a","url":"/v1/responses","body":{"model":"m"},"upwell":{"tier":"flex"}}`, []string{"bad.jsonl:1:", "upwell.tier", "unknown key"}},
	{"another run", `{"custom_id":"a","url":"/v1/responses","body":{"model":"m"},"upwell":{"run":"../x"}}`, []string{"bad.jsonl:1:", "upwell.run"}},
	{"unknown url", `{"custom_id":"a","url":"/v1/embeddings","body":{"model":"m"}}`, []string{"bad.jsonl:1:", "url", "/v1/responses"}},
	{"wrong method", `{"custom_id":"a","method":"GET","url":"/v1/responses","body":{"model":"m"}}`, []string{"bad.jsonl:1:", "method"}},
	{"no body", `{"custom_id":"a","url":"/v1/responses"}`, []string{"bad.jsonl:1:", "body"}},
	{"empty body", `{"custom_id":"a","url":"/v1/responses","body":{}}`, []string{"bad.jsonl:1:", "body.model"}},
	{"stream", string(fixture.Job("a", `,"stream":true`)), []string{"bad.jsonl:1:", "body.stream"}},
	{"body over the limit", string(fixture.Job("a", `,"x":"`+strings.Repeat("y", 32<<20)+`"`)), []string{"bad.jsonl:1:", "bytes", "at most"}},
	{"nothing", "\n\n", []string{"no jobs"}},
}

func TestBadInput(t *testing.T) {
	t.Parallel()
	for _, tt := range badInput {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			file, out := filepath.Join(dir, "bad.jsonl"), filepath.Join(dir, "out")
			if err := os.WriteFile(file, []byte(tt.text), 0o644); err != nil {
				t.Fatal(err)
			}
			for _, args := range [][]string{
				{"run", file, "-o", out, "--simulate"},
				{"submit", file, "--queue", "none", "--bucket", "none"}, // never asked
			} {
				p := launch(t, nil, args...)
				p.exits(t, 2)
				for _, want := range tt.want {
					if !strings.Contains(p.stderr.String(), want) {
						t.Errorf("upwell %s says %q, want %q in it", args[0], p.stderr.String(), want)
					}
				}
			}
			if _, err := os.Stat(out); err == nil {
				t.Errorf("%s was made, want nothing of a file that is refused", out)
			}
		})
	}
}

// TestOddInput sends what is unusual and allowed: names that would be paths, and
// bodies that must arrive as they are.
func TestOddInput(t *testing.T) {
	t.Parallel()
	s := newStack(t, "--latency", "1ms")
	dir := t.TempDir()
	file, out := filepath.Join(dir, "odd.jsonl"), filepath.Join(dir, "deep", "out")
	names := []string{
		"../../x", "a/b", "/etc/passwd", "..", ".", ".hidden", "~", "-rf", `a\b`, "a b", "a%2Fb", "😀", "Ä", "A\u0308", "é\u202e",
		"C:\\x", "con", "x\ny", `"quoted"`, "<&>", strings.Repeat("z", 300), strings.Repeat("😀", 100), "UPPER", "upper",
	}
	// The job says all that upwell would otherwise fill in, so that not a byte
	// of the body may change: not the numbers beyond 2^53, not the spaces.
	const more = `, "store" : false,"service_tier":"default","max_output_tokens":99000, "x":[9007199254740993, 1.10, 1E+2, 12345678901234567890123],"y":"é\u00e9\/"`
	var lines bytes.Buffer
	want := make(map[string]bool)
	for _, id := range names {
		line := fixture.Job("%", more)
		quoted, err := json.Marshal(id)
		if err != nil {
			t.Fatal(err)
		}
		line = bytes.ReplaceAll(line, []byte(`"%"`), quoted)
		lines.Write(append(line, "\r\n"...))
		body := line[bytes.Index(line, []byte(`"body":`))+len(`"body":`) : len(line)-1]
		sum := sha256.Sum256(body)
		want[hex.EncodeToString(sum[:])] = true
	}
	if err := os.WriteFile(file, lines.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	before := tree(t, dir)
	s.launch(t, "run", file, "-o", out).exits(t, 0)
	checkOutput(t, filepath.Join(out, "odd.output.jsonl"), names)
	for _, e := range s.ledger(t) {
		if !want[e.BodySHA] {
			t.Errorf("a body arrived that nobody sent: call %d of job %q", e.Seq, e.Job)
		}
		delete(want, e.BodySHA)
	}
	if len(want) != 0 {
		t.Errorf("%d bodies did not arrive as they were sent, want all", len(want))
	}
	stored := storedIn(t, filepath.Join(out, "s3/upwell/runs/odd/results"))
	slices.Sort(names)
	if !slices.Equal(stored, names) {
		t.Errorf("stored %q, want %q", stored, names)
	}
	for _, path := range tree(t, dir) {
		if !slices.Contains(before, path) && path != filepath.Join(dir, "deep") && !strings.HasPrefix(path, out) {
			t.Errorf("%s was made, want nothing outside of %s", path, out)
		}
	}
}

// tree lists everything beneath a folder.
func tree(t *testing.T, dir string) (paths []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		paths = append(paths, path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

// TestExitCodes meets each code once where the other tests do not.
func TestExitCodes(t *testing.T) {
	t.Parallel()
	s := newStack(t, "--latency", "1ms", "--accept-key", "local")
	dir := t.TempDir()
	good, failing := filepath.Join(dir, "good.jsonl"), filepath.Join(dir, "failing.jsonl")
	writeJobs(t, good, fixture.IDs("job", 2))
	line := string(fixture.Job("a", "")) + "\n" + strings.ReplaceAll(string(fixture.Job("b", "")), fixture.Model, "no.such-model")
	if err := os.WriteFile(failing, []byte(line), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		want int
		env  []string
		args []string
	}{
		{"all answered", 0, nil, []string{"run", good, "-o", filepath.Join(dir, "a")}},
		{"one failed", 1, nil, []string{"run", failing, "-o", filepath.Join(dir, "b")}},
		{"one failed before", 1, nil, []string{"run", failing, "-o", filepath.Join(dir, "b")}},
		{"submit", 0, nil, []string{"submit", failing}},
		{"worker that buries", 1, nil, []string{"worker", "--exit-when-empty=2s"}},
		{"submit again", 0, nil, []string{"submit", failing}},
		{"status of a run with failures", 1, nil, []string{"status", "failing"}},
		{"another file under that name", 2, nil, []string{"submit", good, "--run", "failing"}},
		{"status of no run", 2, nil, []string{"status", "never"}},
		{"no file", 2, nil, []string{"run", filepath.Join(dir, "missing.jsonl"), "-o", dir}},
		{"no such flag", 2, nil, []string{"worker", "--speed", "11"}},
		{"negative slots", 2, nil, []string{"worker", "--slots", "-1"}},
		{"no queue", 3, nil, []string{"worker", "--queue", "missing"}},
		{"no bucket", 3, nil, []string{"worker", "--bucket", "missing"}},
		{"no credentials", 3, []string{"AWS_ACCESS_KEY_ID=", "AWS_SECRET_ACCESS_KEY="}, []string{"worker"}},
		{"no key", 3, []string{"OPENAI_API_KEY=", "OPENAI_BASE_URL="}, []string{"worker", "--auth", "key"}},
	} {
		p := launch(t, slices.Concat(s.env, tt.env), tt.args...)
		if got := p.wait(t); got != tt.want {
			t.Errorf("%s: exit code %d, want %d: %s", tt.name, got, tt.want, tail(p.stderr.String()))
		}
		if tt.want > 1 && !strings.Contains(p.stderr.String(), "upwell: ") {
			t.Errorf("%s: says %q, want a line of upwell's", tt.name, p.stderr.String())
		}
		if strings.Contains(p.stderr.String(), "panic") || strings.Contains(p.stderr.String(), "goroutine ") {
			t.Errorf("%s: a panic: %s", tt.name, p.stderr.String())
		}
	}
}

// TestStatus follows a run from its queueing to its end.
func TestStatus(t *testing.T) {
	t.Parallel()
	s := newStack(t, "--latency", "20ms")
	names := fixture.IDs("job", 40)
	s.submit(t, "followed", names)
	type report struct {
		Submitted, Answered, Failed, Left int
		Cost                              struct{ USD float64 }
		Queue                             struct{ Visible int }
	}
	look := func() (r report) {
		p := s.launch(t, "status", "followed", "--json")
		p.exits(t, 0)
		if err := json.Unmarshal([]byte(p.stdout.String()), &r); err != nil {
			t.Fatalf("%v in %s", err, p.stdout.String())
		}
		return r
	}
	if got, want := look(), (report{Submitted: 40, Left: 40, Queue: struct{ Visible int }{40}}); got != want {
		t.Errorf("status before = %+v, want %+v", got, want)
	}
	s.launch(t, "worker", "--exit-when-empty=2s", "--start-rate", "100").exits(t, 0)
	got := look()
	if got.Answered != 40 || got.Left != 0 || got.Queue.Visible != 0 || got.Cost.USD <= 0 {
		t.Errorf("status after = %+v, want 40 answered at some cost and nothing left", got)
	}
	if billed := s.counts(t).Cost; got.Cost.USD < billed*0.999 || got.Cost.USD > billed*1.001 {
		t.Errorf("status says %v USD, want the %v that were billed", got.Cost.USD, billed)
	}
	s.balance(t, "followed", names, 0)
}
