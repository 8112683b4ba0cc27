// Package flight keeps the last seconds of what the program does, and writes them to
// files when somebody should look into it: when it is asked to, when a heartbeat was
// late, and when the loop that looks after them hangs.
//
// A recording is two files beside each other. The .trace is an execution trace of Go,
// for go tool trace: which goroutine ran when, and what the others waited for. The .txt
// says why it was made, how the worker stood, what its limiters have decided lately,
// and where each goroutine is. Neither holds a prompt, an answer or a key; reasons of
// refusals and the names of jobs are in the .txt.
package flight

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/pprof"
	"runtime/trace"
	"time"

	"upwell/worker"
)

const (
	// lasts is how much of the trace is kept at least: what led to a late heartbeat
	// began with it, half a minute before, or is going on still. A busy worker fills
	// mostBytes in less, and keeps what fits.
	lasts     = 15 * time.Second
	mostBytes = 16 << 20

	// hung is how long the worker's loop must not have turned for a recording to be
	// made of that; see [health.Handler], which gives up after a minute.
	hung = 30 * time.Second

	// apart and most bound the recordings that are made unasked: a machine that is too
	// slow is so for hours, and says the same each time.
	apart = 5 * time.Minute
	most  = 5
)

// Config says what to record, and where.
type Config struct {
	// Dir is the folder of the files, which must exist. Required.
	Dir string

	// State writes how the worker stands and what was decided lately.
	State func(io.Writer)

	// Pulse returns when the worker's loop last turned, or the zero time if it is
	// not at work; nil if there is none.
	Pulse func() time.Time

	// Log is told the names of the files. Default: discard.
	Log *slog.Logger
}

// A Recorder records. There can be one in a process, as Go has one flight recorder.
type Recorder struct {
	cfg  Config
	fr   *trace.FlightRecorder
	late chan string // why; written to by Observe, read by Run
}

// Start begins to record.
func Start(cfg Config) (*Recorder, error) {
	if info, err := os.Stat(cfg.Dir); err != nil || !info.IsDir() {
		return nil, errors.Join(fmt.Errorf("%s: want a folder", cfg.Dir), err)
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	fr := trace.NewFlightRecorder(trace.FlightRecorderConfig{MinAge: lasts, MaxBytes: mostBytes})
	if err := fr.Start(); err != nil {
		return nil, err
	}
	return &Recorder{cfg: cfg, fr: fr, late: make(chan string, 1)}, nil
}

// Observe notes a late heartbeat. It is made for worker.Config.Observe.
func (r *Recorder) Observe(e worker.Event) {
	if e.Kind != worker.Late {
		return
	}
	select {
	case r.late <- fmt.Sprintf("a heartbeat was late, by %v", e.Took.Round(time.Millisecond)):
	default: // one is being looked into
	}
}

// Run writes a recording when it should, and whenever ask brings something, until ctx
// is done. Then it stops recording.
func (r *Recorder) Run(ctx context.Context, ask <-chan os.Signal) {
	defer r.fr.Stop()
	look := time.NewTicker(5 * time.Second)
	defer look.Stop()
	var last time.Time
	made := 0
	unasked := func(why string) {
		if made < most && (last.IsZero() || time.Since(last) >= apart) {
			last, made = time.Now(), made+1
			r.record(ctx, why)
		}
	}
	for {
		select {
		case <-ctx.Done():
			return
		case s := <-ask:
			r.record(ctx, "asked to by "+s.String())
		case why := <-r.late:
			unasked(why)
		case <-look.C:
			if p := r.pulse(); !p.IsZero() && time.Since(p) > hung {
				unasked(fmt.Sprintf("the worker hangs: no heartbeat was looked after for %v", time.Since(p).Round(time.Second)))
			}
		}
	}
}

func (r *Recorder) pulse() time.Time {
	if r.cfg.Pulse == nil {
		return time.Time{}
	}
	return r.cfg.Pulse()
}

// record writes a recording, and logs where.
func (r *Recorder) record(ctx context.Context, why string) {
	name := filepath.Join(r.cfg.Dir, fmt.Sprintf("upwell-%s-%d", time.Now().UTC().Format("20060102T150405.000"), os.Getpid()))
	err := errors.Join(r.write(name+".txt", func(w io.Writer) error { return r.text(w, why) }), r.write(name+".trace", func(w io.Writer) error {
		_, err := r.fr.WriteTo(w)
		return err
	}))
	if err != nil {
		r.cfg.Log.ErrorContext(ctx, "flight recording not written", "why", why, "err", err)
		return
	}
	r.cfg.Log.WarnContext(ctx, "flight recording written", "why", why, "state", name+".txt", "trace", name+".trace")
}

// write makes a file that only this user can read, and that was not there before.
func (r *Recorder) write(name string, content func(io.Writer) error) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(content(f), f.Close())
}

// text writes what a person can read.
func (r *Recorder) text(w io.Writer, why string) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "upwell flight recording, %s\nwhy: %s\n\n", time.Now().UTC().Format(time.RFC3339Nano), why)
	if r.cfg.State != nil {
		r.cfg.State(&b)
	}
	fmt.Fprint(&b, "\ngoroutines\n\n")
	err := pprof.Lookup("goroutine").WriteTo(&b, 2)
	_, werr := b.WriteTo(w)
	return errors.Join(err, werr)
}
