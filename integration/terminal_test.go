package integration

import (
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"

	"upwell/integration/fixture"
)

// A pty is the program on a terminal of 100 columns, which script(1) makes.
type pty struct {
	*process
	keys io.WriteCloser
}

// onTerminal starts the program on a terminal, in a folder.
func onTerminal(t *testing.T, dir string, env []string, args ...string) pty {
	t.Helper()
	script, err := exec.LookPath("script")
	if err != nil {
		t.Skip("no script(1) here, which makes a terminal")
	}
	p := pty{process: &process{ended: make(chan struct{})}}
	p.cmd = exec.CommandContext(t.Context(), script, "-qefc", "stty cols 100 rows 30; exec "+program+" "+strings.Join(args, " "), "/dev/null")
	p.cmd.Dir = dir
	p.cmd.Env = append([]string{"HOME=" + t.TempDir(), "TMPDIR=" + t.TempDir(), "PATH=/usr/bin:/bin", "SHELL=/bin/sh", "TERM=xterm", "AWS_EC2_METADATA_DISABLED=true"}, env...)
	p.cmd.Stdout, p.cmd.Stderr = &p.stdout, &p.stderr
	if p.keys, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var waiting sync.WaitGroup
	waiting.Go(func() {
		_ = p.cmd.Wait() // the state says it
		close(p.ended)
	})
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill() // the terminal hangs up
		waiting.Wait()
	})
	return p
}

// interrupt types Ctrl-C.
func (p pty) interrupt(t *testing.T) {
	t.Helper()
	if _, err := p.keys.Write([]byte{3}); err != nil {
		t.Fatal(err)
	}
}

var (
	sequence = regexp.MustCompile(`^\x1b\[([0-9;]*)([A-Za-z])`)
	colour   = regexp.MustCompile(`\x1b\[[0-9;]*m`)
)

// screen returns the lines that are to be seen after all that was written, and where
// the cursor is. A line is as wide as it likes.
func (p pty) screen(t *testing.T) (lines []string, row, col int) {
	t.Helper()
	cells := [][]rune{nil}
	for rest := p.stdout.String(); rest != ""; {
		if m := sequence.FindStringSubmatch(rest); m != nil {
			rest = rest[len(m[0]):]
			switch n, _ := strconv.Atoi(m[1]); m[2] {
			case "A":
				row = max(0, row-n)
			case "K":
				cells[row] = cells[row][:min(col, len(cells[row]))]
			case "J":
				cells[row] = cells[row][:min(col, len(cells[row]))]
				cells = cells[:row+1]
			case "m":
			default:
				t.Errorf("sequence %q, want none but those of a block", m[0])
			}
			continue
		}
		r, n := utf8.DecodeRuneInString(rest)
		switch rest = rest[n:]; r {
		case '\r':
			col = 0
		case '\n':
			if row++; row == len(cells) {
				cells = append(cells, nil)
			}
		default:
			for len(cells[row]) <= col {
				cells[row] = append(cells[row], ' ')
			}
			cells[row][col] = r
			col++
		}
	}
	for _, line := range cells {
		lines = append(lines, string(line))
	}
	return lines, row, col
}

// blocks is how many blocks with a bar the lines have.
func blocks(lines []string) (n int) {
	for _, l := range lines {
		if strings.HasPrefix(l, "▕") {
			n++
		}
	}
	return n
}

// TestRunOnTerminal runs a file on a terminal, and stops it with Ctrl-C.
func TestRunOnTerminal(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	writeJobs(t, filepath.Join(dir, "jobs.jsonl"), fixture.IDs("job", 2000))
	p := onTerminal(t, dir, nil, "run", "jobs.jsonl", "-o", "out", "--simulate", "--slots", "4", "--http", "off", "--flight-dir", "off")
	redrawn := regexp.MustCompile(`\x1b\[\d+A.*▏ +\d+ %\S*  [1-9]\d*/2000`)
	eventually(t, "a block that is drawn again", func() bool { return redrawn.MatchString(colour.ReplaceAllString(p.stdout.String(), "")) })
	eventually(t, "one block, and the cursor at the beginning of a line", func() bool { // not while half of it is written
		lines, _, col := p.screen(t)
		return blocks(lines) == 1 && col == 0
	})
	p.interrupt(t)
	p.exits(t, 130)
	lines, row, col := p.screen(t)
	all := strings.Join(lines, "\n")
	if blocks(lines) != 1 || row != len(lines)-1 || col != 0 {
		t.Errorf("the cursor is in column %d of line %d, want one block, and it at the end:\n%s", col, row, all)
	}
	for _, want := range []string{`interrupted: waiting for \d calls in flight`, `▏ +\d+ %  \d+/2000  stopped after `, `interrupted with \d+ jobs left: run the same command again`} {
		if !regexp.MustCompile(want).MatchString(all) {
			t.Errorf("no %q on the screen:\n%s", want, all)
		}
	}
}

// TestWatchOnTerminal watches a run on a terminal, stops watching, and sees the end of
// it.
func TestWatchOnTerminal(t *testing.T) {
	t.Parallel()
	s := newStack(t, "--latency", "20ms")
	s.submit(t, "watched", fixture.IDs("job", 60))
	args := []string{"status", "watched", "--watch", "--every", "500ms"}
	p := onTerminal(t, "", s.env, args...)
	eventually(t, "a sheet that is drawn again", func() bool { return strings.Count(p.stdout.String(), "/60") > 2 })
	p.interrupt(t)
	p.exits(t, 130)
	lines, row, col := p.screen(t)
	all := strings.Join(lines, "\n")
	if blocks(lines) != 1 || row != len(lines)-1 || col != 0 || strings.Contains(all, "^C") {
		t.Errorf("the cursor is in column %d of line %d, want one sheet, and it at the end:\n%s", col, row, all)
	}
	if want := "the run goes on; watch it again with upwell status watched --watch"; !strings.Contains(all, want) {
		t.Errorf("no %q on the screen:\n%s", want, all)
	}
	p = onTerminal(t, "", s.env, args...)
	lined := s.launch(t, args...)
	eventually(t, "a line", func() bool { return strings.Contains(lined.stdout.String(), " 0/60 (0%) · 0.0/s · ") })
	s.launch(t, "worker", "--exit-when-empty=2s", "--start-rate", "20", "--http", "off").exits(t, 0)
	p.exits(t, 0)
	if lines, _, _ := p.screen(t); blocks(lines) != 1 || !strings.Contains(lines[1], "100 %  60/60") {
		t.Errorf("screen in the end, want one sheet with all of it:\n%s", strings.Join(lines, "\n"))
	}
	lined.exits(t, 0)
	if out := lined.stdout.String(); !strings.Contains(out, "answered  60 of 60 (100.0 %)") || strings.Contains(out, "\x1b") {
		t.Errorf("lines %q, want the table in the end, and nothing for terminals", out)
	}
}

// TestForScripts asks verbs for JSON, and for silence.
func TestForScripts(t *testing.T) {
	t.Parallel()
	s := newStack(t, "--latency", "20ms")
	dir := t.TempDir()
	file := filepath.Join(dir, "scripted.jsonl")
	writeJobs(t, file, fixture.IDs("job", 30))
	object := func(want string, args ...string) {
		t.Helper()
		p := s.launch(t, args...)
		p.exits(t, 0)
		var v map[string]any
		d := json.NewDecoder(strings.NewReader(p.stdout.String()))
		if err := d.Decode(&v); err != nil || d.More() || hurried(p.stderr.String()) != "" {
			t.Fatalf("%s: %v, stdout %q, stderr %q, want one object and silence", args[0], err, p.stdout.String(), p.stderr.String())
		}
		for pair := range strings.FieldsSeq(want) {
			name, value, _ := strings.Cut(pair, "=")
			if got := fmt.Sprint(v[name]); got != value {
				t.Errorf("%s: %s is %s, want %s in %s", args[0], name, got, value, p.stdout.String())
			}
		}
	}
	object("jobs=30 dry_run=true", "submit", file, "--dry-run", "--json")
	object("run=scripted jobs=30 queued=30", "submit", file, "--json")
	s.launch(t, "submit", file, "--json", "-q").exits(t, 0)
	s.launch(t, "worker", "--exit-when-empty=2s", "--start-rate", "100", "--http", "off").exits(t, 0)
	object("answered=30 left=0", "status", "scripted", "--watch", "--json")
	object("submitted=30 answered=30 balanced=true", "verify", "scripted", "--json")
	object("rows=30 answered=30 failed=0 files=1 partial=false", "export", "scripted", "-o", filepath.Join(dir, "out.csv"), "--json", "--log-level", "error")
	quiet := s.launch(t, "verify", "scripted", "--quiet")
	quiet.exits(t, 0)
	if !strings.Contains(quiet.stdout.String(), "the account balances") || quiet.stderr.String() != "" {
		t.Errorf("verify --quiet: stdout %q, stderr %q, want the account and nothing else", quiet.stdout.String(), quiet.stderr.String())
	}
}
