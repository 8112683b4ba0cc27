package main

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	// noise is the share of the processors that others may use during a run before
	// it is repeated. Half of it is the kernel's own, for packets on loopback.
	noise = 0.10

	// tries bounds how often a disturbed run is repeated. The least disturbed counts.
	tries = 3
)

// A usage is processor time since the machine began.
type usage struct {
	at   time.Time
	all  time.Duration // in use by anybody, taken by the hypervisor included
	ours time.Duration // by this process and its children that have ended
}

// used reads it, from /proc/stat and the kernel's account of this process.
func used() (u usage, err error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return u, err
	}
	u.at = time.Now()
	line, _, _ := strings.Cut(string(text), "\n")
	fields := strings.Fields(line) // cpu user nice system idle iowait irq softirq steal …
	if len(fields) < 9 {
		return u, fmt.Errorf("/proc/stat begins with %q", line)
	}
	for _, i := range []int{1, 2, 3, 6, 7, 8} {
		n, err := strconv.ParseInt(fields[i], 10, 64)
		if err != nil {
			return u, err
		}
		u.all += time.Duration(n) * tick
	}
	for _, who := range []int{syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN} {
		var r syscall.Rusage
		if err := syscall.Getrusage(who, &r); err != nil {
			return u, err
		}
		u.ours += time.Duration(r.Utime.Nano() + r.Stime.Nano())
	}
	return u, nil
}

// others is the share of the processors that was used since, and not by us.
func (u usage) others(since usage) float64 {
	all := float64(u.at.Sub(since.at)) * float64(runtime.NumCPU())
	return max(0, float64(u.all-since.all-(u.ours-since.ours))) / all
}

// quiet waits until others leave the machine alone for a second, but no longer than
// patience.
func quiet(ctx context.Context, patience time.Duration) error {
	for end := time.Now().Add(patience); time.Now().Before(end); {
		before, err := used()
		if err != nil {
			return err
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		after, err := used()
		if err != nil || after.others(before) < noise {
			return err
		}
	}
	return nil
}

// undisturbed runs a scenario on a quiet machine, and again if it did not stay so.
func (o *options) undisturbed(ctx context.Context, p program, s *scenario) (best numbers, err error) {
	for range tries {
		if err := quiet(ctx, o.patience); err != nil {
			return nil, err
		}
		before, err := used()
		if err != nil {
			return nil, err
		}
		n, err := s.run(ctx, p)
		if err != nil {
			return nil, err
		}
		after, err := used()
		if err != nil {
			return nil, err
		}
		n["others"] = after.others(before)
		if best == nil || n["others"] < best["others"] {
			best = n
		}
		if best["others"] < noise {
			break
		}
		fmt.Fprintf(os.Stderr, "%s, %s: others used %.0f %% of the machine\n", s.name, p.name, 100*n["others"])
	}
	return best, nil
}
