// Command peer does the same work with upwell and with Redpanda Connect, the nearest
// program that users glue together for it, and compares what each needed.
//
//	go run ./integration/bench/peer            all of it, some twelve minutes
//	go run ./integration/bench/peer -only cpu  one scenario
//	go run ./integration/bench/peer -load integration/bench/peer/peer.json -picture peer.svg
//
// The first run builds Redpanda Connect, which takes three to seven minutes on two
// processors.
//
// # How
//
// Both run as processes of their own, one after the other and in turns, against the
// same stand-ins for SQS, S3 and the endpoint in a third process: the same jobs, the
// same latencies, the same number of calls in flight. Scenarios that measure time,
// processor time or memory are alone on the machine; those that only count calls
// (a deploy, a kill) run side by side. Counts come from the stand-ins, processor
// time (user and system) and peak memory (VmHWM) from /proc/PID when the queue is
// empty. Of several runs the median is given, and the least and the most. A run
// during which others used more than a tenth of the machine is repeated, and left out
// in the end if there is a better one; not where the endpoint's limit sets the time.
//
// # Redpanda Connect's configuration
//
// It is connect.yaml, the best of what was tried with its documented settings: eight
// SQS inputs in place of one, as many threads as upwell has slots, long polls, a
// retry processor without an end around the http processor, and a switch that sends
// what the endpoint will never answer to the dead-letter queue. The http processor
// costs what openai_chat_completion does, can tell a refusal from a bad request, and
// is not under the enterprise licence. What it does in other set-ups that are common
// has its own rows: nack.yaml has no retry processor.
//
// # What favours whom
//
// Where the endpoint has no limit upwell is told so (--start-rate): by default it
// begins with five calls a second and looks for the limit, and Connect with all its
// threads. In the scenario "hidden" it is told nothing.
//
// Connect stores the endpoint's answer as it came. Upwell judges it (truncated,
// refused, empty, against a schema), prices it and writes a line of OpenAI's batch
// format with the account of all attempts, under a condition, so that the first
// answer stays. Its time per job has all of that. Connect is built with no more
// components than these need, has metrics and its server off, and has more threads
// than it would have by default, two.
//
// The stand-ins speak HTTP/1.1 without TLS. Over HTTP/2, where an endpoint offers it,
// Connect's calls would share connections as upwell's do; without it, each of its
// new connections costs a TLS handshake as well, which is not measured. The time of a
// call is constant, and the hidden capacity too: what moves is in the command
// "limiter" of the folder above. The scenarios are upwell's own choice.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"upwell/integration/bench/internal/standin"
)

// A record is what a run of this command has measured.
type record struct {
	Finished time.Time `json:"finished"`
	CPUs     int       `json:"cpus"`
	Connect  string    `json:"connect"` // its version
	Runs     []run     `json:"runs"`
}

// A run is one program doing one scenario once.
type run struct {
	Scenario string  `json:"scenario"`
	Program  string  `json:"program"`
	Numbers  numbers `json:"numbers"`
}

func main() {
	if len(os.Args) == 3 && os.Args[1] == "serve" {
		if err := standin.Serve(os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, "peer:", err)
			os.Exit(1)
		}
		return
	}
	var o options
	flag.StringVar(&o.only, "only", "", "`names` of the scenarios to run, separated by commas")
	flag.IntVar(&o.rounds, "rounds", 3, "`times` that the scenarios about time are run")
	flag.DurationVar(&o.patience, "patience", 30*time.Second, "how `long` to wait, before each run, for others to leave the machine alone")
	flag.StringVar(&o.save, "save", "", "keep what was measured in this `file`")
	flag.StringVar(&o.load, "load", "", "measure nothing, take what was kept in this `file`")
	flag.StringVar(&o.picture, "picture", "", "draw it to this `file`, in SVG")
	flag.Parse()
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt)
	defer cancel()
	if err := o.main(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "peer:", err)
		os.Exit(1)
	}
}

type options struct {
	only, save, load, picture string
	rounds                    int
	patience                  time.Duration
}

func (o *options) main(ctx context.Context) error {
	var rec record
	var err error
	if o.load != "" {
		text, err := os.ReadFile(o.load)
		if err != nil {
			return err
		}
		if err := json.Unmarshal(text, &rec); err != nil {
			return fmt.Errorf("%s: %w", o.load, err)
		}
	} else if rec, err = o.measure(ctx); err != nil {
		return err
	}
	if o.save != "" {
		text, err := json.MarshalIndent(rec, "", "\t")
		if err != nil {
			return err
		}
		if err := os.WriteFile(o.save, append(text, '\n'), 0o644); err != nil {
			return err
		}
	}
	rows := rec.rows()
	fmt.Print(rec.table(rows))
	if o.picture != "" {
		return os.WriteFile(o.picture, rec.draw(rows), 0o644)
	}
	return nil
}

// measure runs what is wanted.
func (o *options) measure(ctx context.Context) (rec record, err error) {
	dir, err := os.MkdirTemp("", "upwell-peer-")
	if err != nil {
		return rec, err
	}
	defer os.RemoveAll(dir)
	p, err := build(ctx, dir)
	if err != nil {
		return rec, err
	}
	rec = record{CPUs: runtime.NumCPU(), Connect: p.versions}
	both := []program{p.upwell, p.connect}

	// Each round has every scenario of which the time counts, and begins with the
	// other program than the last.
	for round := range o.rounds {
		for _, s := range []*scenario{&cpu, &rate, &hidden} {
			for _, prog := range both {
				if err := o.once(ctx, &rec, prog, s); err != nil {
					return rec, err
				}
			}
		}
		if round == 0 { // steady, or long
			for _, s := range []*scenario{&memory, &known} {
				for _, prog := range both {
					if err := o.once(ctx, &rec, prog, s); err != nil {
						return rec, err
					}
				}
			}
			if err := o.once(ctx, &rec, p.nack, &hidden); err != nil {
				return rec, err
			}
		}
		slices.Reverse(both)
	}
	if err := o.together(ctx, &rec, p); err != nil {
		return rec, err
	}
	rec.Finished = time.Now().UTC().Truncate(time.Second)
	return rec, nil
}

// together runs the scenarios that mostly wait, and of which only counts are kept.
func (o *options) together(ctx context.Context, rec *record, p programs) error {
	g, ctx := errgroup.WithContext(ctx)
	runs := []run{{"term", "upwell", nil}, {"term", "connect", nil}, {"term20", "connect", nil}, {"kill", "upwell", nil}, {"kill", "connect", nil}}
	parts := make([]record, len(runs))
	for i, r := range runs {
		prog := p.upwell
		if r.Program == "connect" {
			prog = p.connect
		}
		s := map[string]*scenario{"term": &term, "term20": &termShort, "kill": &crash}[r.Scenario]
		g.Go(func() error { return o.once(ctx, &parts[i], prog, s) })
	}
	err := g.Wait()
	for _, part := range parts {
		rec.Runs = append(rec.Runs, part.Runs...)
	}
	return err
}

// once runs a scenario if it is wanted, and adds what it measured to the record.
func (o *options) once(ctx context.Context, rec *record, p program, s *scenario) error {
	if o.only != "" && !strings.Contains(","+o.only+",", ","+s.name+",") {
		return nil
	}
	play := s.run
	if !s.robust {
		play = func(ctx context.Context, p program) (numbers, error) { return o.undisturbed(ctx, p, s) }
	}
	n, err := play(ctx, p)
	if err != nil {
		return fmt.Errorf("%s, %s: %w", s.name, p.name, err)
	}
	text, err := json.Marshal(n)
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "%s, %s: %s\n", s.name, p.name, text)
	rec.Runs = append(rec.Runs, run{s.name, p.name, n})
	return nil
}
