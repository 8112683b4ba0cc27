package flight_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"upwell/cmd/internal/flight"
	"upwell/worker"
)

// A safeBuffer is a log that may be read while it is written to.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// TestRecordings has a recorder asked for a recording, and meet two late heartbeats,
// of which the second says no more than the first.
func TestRecordings(t *testing.T) {
	dir := t.TempDir()
	log := &safeBuffer{}
	var pulse atomic.Pointer[time.Time]
	r, err := flight.Start(flight.Config{
		Dir: dir, State: func(w io.Writer) { fmt.Fprintln(w, "the limiter was cut") },
		Pulse: func() time.Time {
			if p := pulse.Load(); p != nil {
				return *p
			}
			return time.Time{}
		},
		Log: slog.New(slog.NewTextHandler(log, nil)),
	})
	if err != nil {
		t.Fatalf("Start = %v, want nil", err)
	}
	ask := make(chan os.Signal, 1)
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { r.Run(ctx, ask) })
	defer running.Wait()
	defer stop()

	written := func(n int) []string {
		t.Helper()
		const patience = 5 * time.Minute // for a machine that has much else to do
		deadline := time.Now().Add(patience)
		for strings.Count(log.String(), "flight recording written") < n {
			if time.Now().After(deadline) {
				t.Fatalf("after %v the log has %s, want %d recordings", patience, log, n)
			}
			time.Sleep(10 * time.Millisecond)
		}
		files, err := filepath.Glob(filepath.Join(dir, "*"))
		if err != nil || len(files) != 2*n {
			t.Fatalf("files %v, %v, want two for each of %d recordings", files, err, n)
		}
		return files
	}

	ask <- syscall.SIGQUIT
	for _, name := range written(1) {
		content, err := os.ReadFile(name)
		info, serr := os.Stat(name)
		if err != nil || serr != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v, mode %v, want one that only this user reads", name, err, serr, info.Mode())
		}
		switch filepath.Ext(name) {
		case ".trace":
			if !bytes.HasPrefix(content, []byte("go 1.")) {
				t.Errorf("%s begins with %.16q, want an execution trace", name, content)
			}
		case ".txt":
			for _, want := range []string{"why: asked to by quit", "the limiter was cut", "goroutine ", "flight.(*Recorder).Run"} {
				if !strings.Contains(string(content), want) {
					t.Errorf("%s has no %q in it:\n%.2000s", name, want, content)
				}
			}
		}
		if !strings.Contains(log.String(), name) {
			t.Errorf("the log does not name %s:\n%s", name, log)
		}
	}

	r.Observe(worker.Event{Kind: worker.Stored})
	r.Observe(worker.Event{Kind: worker.Late, Took: 17 * time.Second})
	written(2)
	if !strings.Contains(log.String(), "a heartbeat was late, by 17s") {
		t.Errorf("the log says %s, want why", log)
	}
	r.Observe(worker.Event{Kind: worker.Late, Took: 18 * time.Second})
	ask <- syscall.SIGQUIT // which comes after it, as one waits for the other
	ask <- syscall.SIGQUIT
	ask <- syscall.SIGQUIT
	written(5)
	if strings.Contains(log.String(), "18s") {
		t.Errorf("the log says %s, want no second recording of late heartbeats within minutes", log)
	}
}

// TestOneRecorder wants the second to say that there is one.
func TestOneRecorder(t *testing.T) {
	cfg := flight.Config{Dir: t.TempDir()}
	r, err := flight.Start(cfg)
	if err != nil {
		t.Fatalf("Start = %v, want nil", err)
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	defer r.Run(ctx, nil)
	if _, err := flight.Start(cfg); err == nil {
		t.Error("Start of a second one = nil, want an error")
	}
	cfg.Dir = filepath.Join(cfg.Dir, "none")
	if _, err := flight.Start(cfg); err == nil || !strings.Contains(err.Error(), "want a folder") {
		t.Errorf("Start in no folder = %v, want an error that says so", err)
	}
}
