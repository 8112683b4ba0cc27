// Package conformance runs the checks of a suite against a server, and holds
// what the server is known to do differently against a list.
//
// All checks of a suite run at once, however few processors there are, since
// most of them wait: for a timeout of the server's to pass, or for an answer.
// Each is reported as a test of its own and can be chosen with -run.
//
// # Known deviations
//
// A check that is listed is performed and must fail. If it passes, the list is
// out of date, and that is reported: nobody else would notice.
//
// # Ownership
//
// A check runs in a goroutine of its own, which its test starts and waits for.
package conformance

import (
	"context"
	"fmt"
	"path"
	"runtime"
	"strings"
	"sync"
	"testing"
)

// atOnce is how many checks run at a time: few enough that no answer waits
// long for the processor, and more than would be waiting for a server's clock.
const atOnce = 32

// A Check is one thing that a server has to do.
type Check struct {
	// Name is unique in its suite.
	Name string

	// Run performs the check. It must not depend on other checks or disturb
	// them.
	Run func(*T)
}

// Run performs the checks, and returns when all are done. The keys of
// deviations are the names of those that are known to fail, the values say why.
func Run(t *testing.T, checks []Check, deviations map[string]string) {
	t.Helper()
	for _, complaint := range misnamed(checks, deviations) {
		t.Error(complaint)
	}
	slots := make(chan struct{}, atOnce)
	t.Run("conformance", func(t *testing.T) {
		for _, c := range checks {
			t.Run(c.Name, func(t *testing.T) {
				// The work begins before Parallel, which lets only as many
				// tests go on as there are processors.
				x := &T{t: t}
				var done sync.WaitGroup
				done.Go(func() {
					slots <- struct{}{}
					defer func() { <-slots }()
					c.Run(x)
				})
				t.Parallel()
				done.Wait()
				reason, listed := deviations[c.Name]
				x.judge(t, reason, listed)
			})
		}
	})
}

// misnamed returns what is wrong with the names in a suite and a list.
func misnamed(checks []Check, deviations map[string]string) (complaints []string) {
	known := make(map[string]bool)
	for _, c := range checks {
		if known[c.Name] {
			complaints = append(complaints, fmt.Sprintf("there are two checks called %s", c.Name))
		}
		known[c.Name] = true
	}
	for name := range deviations {
		if !known[name] {
			complaints = append(complaints, fmt.Sprintf("%s is listed as a deviation, and there is no such check", name))
		}
	}
	return complaints
}

// A T is what a check reports to. It does not fail the check's test by itself,
// since the check may be one that has to fail.
type T struct {
	t testing.TB

	mu       sync.Mutex
	findings []string
}

// Context is done just before the functions given to Cleanup are called.
func (x *T) Context() context.Context { return x.t.Context() }

// Cleanup has f called when the check is over, the last first.
func (x *T) Cleanup(f func()) { x.t.Cleanup(f) }

// Errorf notes what is wrong and goes on. It may be called concurrently.
func (x *T) Errorf(format string, args ...any) { x.note(format, args) }

// Fatalf notes what is wrong and ends the check. Only the check's own goroutine
// may call it.
func (x *T) Fatalf(format string, args ...any) {
	x.note(format, args)
	runtime.Goexit()
}

// Failed reports whether anything has been found wrong.
func (x *T) Failed() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return len(x.findings) > 0
}

func (x *T) note(format string, args []any) {
	finding := place() + ": " + fmt.Sprintf(format, args...)
	x.mu.Lock()
	defer x.mu.Unlock()
	x.findings = append(x.findings, finding)
}

// judge tells tb what the check has found.
func (x *T) judge(tb testing.TB, reason string, listed bool) {
	tb.Helper()
	x.mu.Lock()
	defer x.mu.Unlock()
	switch {
	case !listed:
		for _, f := range x.findings {
			tb.Errorf("%s", f)
		}
	case reason == "":
		tb.Errorf("is listed as a deviation without a reason")
	case len(x.findings) == 0:
		tb.Errorf("passes, and is listed as a deviation (%s): take it off the list", reason)
	default:
		tb.Logf("deviates as listed: %s\n%s", reason, strings.Join(x.findings, "\n"))
	}
}

// place returns where Errorf or Fatalf was called, and from where that was, up
// to the check.
func place() string {
	pcs := make([]uintptr, 16)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(4, pcs)]) // without note and its caller
	var calls []string
	for {
		f, more := frames.Next()
		if strings.Contains(f.Function, ".Run.func") || strings.HasPrefix(f.Function, "sync.") {
			break
		}
		calls = append(calls, fmt.Sprintf("%s:%d", path.Base(f.File), f.Line))
		if !more {
			break
		}
	}
	return strings.Join(calls, " from ")
}
