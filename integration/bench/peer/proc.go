package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A process is a program that is measured.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
	err  error         // of its end, valid then
}

func start(cmd *exec.Cmd) (*process, error) {
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{cmd: cmd, done: make(chan struct{})}
	go func() { // ends with the process, which stop and kill wait for
		defer close(p.done)
		p.err = cmd.Wait()
	}()
	return p, nil
}

// alive returns an error if the process has ended.
func (p *process) alive() error {
	select {
	case <-p.done:
		return fmt.Errorf("%s ended by itself: %w", p.cmd.Path, errors.Join(p.err, context.Canceled))
	default:
		return nil
	}
}

// stop asks the process to end, and returns how long it took.
func (p *process) stop() time.Duration {
	begun := time.Now()
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	<-p.done
	return time.Since(begun)
}

func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// tick is what the kernel counts processor time in: USER_HZ, which Linux does not
// change.
const tick = time.Second / 100

// A spending is what a process has used.
type spending struct {
	cpu  time.Duration // user and system
	peak int64         // resident memory, in bytes
}

// spent reads it from the kernel: utime and stime of /proc/PID/stat, and VmHWM of
// /proc/PID/status.
func (p *process) spent() (s spending, err error) {
	dir := fmt.Sprintf("/proc/%d/", p.cmd.Process.Pid)
	stat, err := os.ReadFile(dir + "stat")
	if err != nil {
		return s, err
	}
	// The name, in parentheses, may have spaces; utime is the 12th field after it.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	if len(fields) < 13 {
		return s, fmt.Errorf("%sstat has %d fields", dir, len(fields))
	}
	for _, f := range fields[11:13] {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return s, err
		}
		s.cpu += time.Duration(n) * tick
	}
	status, err := os.ReadFile(dir + "status")
	if err != nil {
		return s, err
	}
	for line := range strings.Lines(string(status)) {
		if kb, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(kb), "kB")), 10, 64)
			s.peak = n << 10
			return s, err
		}
	}
	return s, fmt.Errorf("%sstatus has no VmHWM", dir)
}
