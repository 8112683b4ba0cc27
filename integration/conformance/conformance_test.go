package conformance_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"upwell/integration/conformance"
)

// A record is a test that keeps what it is told.
type record struct {
	testing.TB
	errors, logs []string
}

func (r *record) Errorf(format string, args ...any) {
	r.errors = append(r.errors, fmt.Sprintf(format, args...))
}

func (r *record) Logf(format string, args ...any) {
	r.logs = append(r.logs, fmt.Sprintf(format, args...))
}

func TestVerdicts(t *testing.T) {
	passes := func(*conformance.T) {}
	fails := func(x *conformance.T) {
		x.Errorf("first %d", 1)
		x.Fatalf("second")
		x.Errorf("third")
	}
	listed := map[string]string{"check": "it is slow"}
	for _, tt := range []struct {
		name       string
		run        func(*conformance.T)
		deviations map[string]string
		errors     string
		logs       string
	}{
		{"passes", passes, nil, "", ""},
		{"fails", fails, nil, "first 1|second", ""},
		{"passes, listed", passes, listed, "passes, and is listed as a deviation (it is slow): take it off the list", ""},
		{"fails, listed", fails, listed, "", "deviates as listed: it is slow|first 1|second"},
		{"fails, listed without reason", fails, map[string]string{"check": ""}, "is listed as a deviation without a reason", ""},
		{"fails, another listed", fails, map[string]string{"other": "it is slow"}, "first 1|second", ""},
	} {
		r := &record{TB: t}
		conformance.Examine(r, conformance.Check{Name: "check", Run: tt.run}, tt.deviations)
		if got := plain(r.errors); got != tt.errors {
			t.Errorf("%s: errors %q, want %q", tt.name, got, tt.errors)
		}
		if got := plain(r.logs); got != tt.logs {
			t.Errorf("%s: logs %q, want %q", tt.name, got, tt.logs)
		}
	}
}

// plain joins lines, without the places that they begin with.
func plain(lines []string) string {
	lines = strings.Split(strings.Join(lines, "\n"), "\n")
	for i, l := range lines {
		if where, text, ok := strings.Cut(l, ": "); ok && strings.HasPrefix(where, "conformance_test.go:") {
			lines[i] = text
		}
	}
	return strings.Join(lines, "|")
}

func TestNames(t *testing.T) {
	a, b := conformance.Check{Name: "a"}, conformance.Check{Name: "b"}
	for _, tt := range []struct {
		checks     []conformance.Check
		deviations map[string]string
		want       string
	}{
		{[]conformance.Check{a, b}, map[string]string{"b": "why"}, ""},
		{[]conformance.Check{a, b, a}, nil, "there are two checks called a"},
		{[]conformance.Check{a}, map[string]string{"c": "why"}, "c is listed as a deviation, and there is no such check"},
	} {
		if got := strings.Join(conformance.Misnamed(tt.checks, tt.deviations), "|"); got != tt.want {
			t.Errorf("Misnamed(%v, %v) = %q, want %q", tt.checks, tt.deviations, got, tt.want)
		}
	}
}

// TestAllAtOnce has checks wait for each other, more of them than there may be
// tests in parallel.
func TestAllAtOnce(t *testing.T) {
	const n = 20
	var all sync.WaitGroup
	all.Add(n)
	met := make(chan struct{})
	go func() { all.Wait(); close(met) }()
	checks := make([]conformance.Check, n)
	for i := range checks {
		checks[i] = conformance.Check{Name: fmt.Sprint(i), Run: func(x *conformance.T) {
			all.Done()
			select {
			case <-met:
			case <-time.After(time.Minute):
				x.Errorf("waited in vain for the others")
			}
		}}
	}
	conformance.Run(t, checks, nil)
	select {
	case <-met:
	default:
		t.Error("Run returned before the checks were done")
	}
}
