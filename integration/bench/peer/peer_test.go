package main

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

func TestTable(t *testing.T) {
	t.Parallel()
	rec := record{Connect: "v4", Runs: []run{
		{"cpu", "upwell", numbers{"cpu": 0.25}},
		{"cpu", "connect", numbers{"cpu": 0.8}},
		{"cpu", "upwell", numbers{"cpu": 0.2}},
		{"cpu", "connect", numbers{"cpu": 0.7}},
		{"cpu", "upwell", numbers{"cpu": 0.21}},
		{"cpu", "upwell", numbers{"cpu": 0.9, "others": 0.4}}, // disturbed
		{"hidden", "upwell", numbers{"seconds": 27, "refused": 20}},
		{"hidden", "connect", numbers{"seconds": 34, "refused": 5275}},
		{"hidden", "nack", numbers{"dead": 1726}},
		{"term", "upwell", numbers{"calls": 100}}, // and nobody to compare with
	}}
	rows := rec.rows()
	got := rec.table(rows)
	for _, want := range []string{
		"| on the same work | upwell | Redpanda Connect v4 |\n|---|---|---|\n",
		" | 0.21 ms (0.20–0.25) | 0.75 ms (0.70–0.80) |\n",
		" | 27.0 s | 34.0 s |\n| calls refused, same runs | 20 | 5,275 |\n",
		"(`reject_errored`, 5 receives) | 0 | 1,726 |\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("the table has no %q:\n%s", want, got)
		}
	}
	if n := strings.Count(got, "\n"); n != 2+5 {
		t.Errorf("the table has %d lines, want the head and five rows:\n%s", n, got)
	}

	picture := string(rec.draw(rows))
	d := xml.NewDecoder(strings.NewReader(picture))
	for {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("the picture is not XML: %v", err)
		}
	}
	for _, want := range []string{
		`width="112" height="13" rx="2" class="upwell"/>`, // 0.21 of 0.75, which is 400 wide
		`width="400" height="13" rx="2" class="connect"/>`,
		`>0.21 ms</text>`, `>5,275</text>`,
	} {
		if !strings.Contains(picture, want) {
			t.Errorf("the picture has no %s:\n%s", want, picture)
		}
	}
}

// TestSpent has a process use a processor for a while.
func TestSpent(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		t.Skip("the kernel has no /proc")
	}
	begun := time.Now()
	p, err := start(exec.CommandContext(t.Context(), "sh", "-c", "while :; do :; done"))
	if err != nil {
		t.Fatal(err)
	}
	defer p.kill()
	var s spending
	if err := until(t.Context(), time.Minute, p, func() (bool, error) {
		s, err = p.spent()
		return s.cpu >= 200*ms, err
	}); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begun) + 20*ms; s.cpu > took {
		t.Errorf("%v of processor time in %v, want no more than a single thread can use", s.cpu, took)
	}
	if s.peak < 100*kb || s.peak > 100<<20 {
		t.Errorf("a shell's peak memory is %d bytes, want some megabytes", s.peak)
	}
	p.kill()
	if p.alive() == nil {
		t.Error("a process that was killed is alive")
	}
}
