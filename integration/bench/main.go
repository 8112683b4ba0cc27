// Command bench measures the worker as its users run it: the program in a process
// of its own, and stand-ins for SQS, S3 and the endpoint in another.
//
//	go run ./integration/bench            all scenarios, some two minutes
//	go run ./integration/bench -only cpu  one of them
//	go run ./integration/bench limiter    the limiter alone, in virtual time; see -h
//
// It prints a table of what was measured and what is aimed at. Processor time and
// counts are steady from run to run; rates need a machine with nothing else to
// do, and two processors at least, as the stand-ins take one of them.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"text/tabwriter"
	"time"

	"upwell/integration/bench/internal/standin"
	"upwell/worker/mantle/mantlesim"
)

// A scenario is one measurement.
type scenario struct {
	name, about string
	jobs        int
	prompt      int // bytes
	set         standin.Settings
	flags       []string // of upwell worker
	rehearsed   bool     // the same has been done before, and what was learned is there
	viewed      bool     // somebody looks at the dashboard and the metrics

	// Of a comparison: how often it is made, and the flags and the program, if it is
	// another, of the side that nobody watches.
	pairs     int
	unwatched []string
	against   string

	judge func(outcome) []verdict
}

// An outcome is what was measured.
type outcome struct {
	jobs    int
	cpu     time.Duration // of the worker's process, user and system
	wall    time.Duration
	rss     int64 // peak, in bytes
	times   []float64
	counts  mantlesim.Counts
	refused int64
	ratios  []float64 // of a comparison: watched by unwatched
}

// A verdict is one line of the table.
type verdict struct {
	what, measured, target string
	ok                     bool
}

var scenarios = []scenario{
	{
		name: "cpu", about: "processor time per job, 2 KB prompts", jobs: 15_000, prompt: 2 << 10,
		set:   standin.Settings{Call: 20 * time.Millisecond, SQS: time.Millisecond, S3: time.Millisecond},
		flags: []string{"--slots=128", "--start-rate=10000"},
		judge: func(o outcome) []verdict {
			return []verdict{{"CPU per job", fmt.Sprintf("%.3f ms", o.perJob()), "≤ 0.30 ms", o.perJob() <= 0.30}}
		},
	},
	rate(256, 32_000), rate(400, 48_000),
	{
		name: "memory", about: "3,000 prompts of 250 KB, 2 s a call", jobs: 3000, prompt: 250 << 10,
		set:   standin.Settings{Call: 2 * time.Second, SQS: time.Millisecond, S3: time.Millisecond},
		flags: []string{"--slots=256", "--start-rate=10000"},
		judge: func(o outcome) []verdict {
			mb := float64(o.rss) / 1e6
			return []verdict{
				{"peak memory", fmt.Sprintf("%.0f MB", mb), "≤ 150 MB", mb <= 150},
				{"rate", fmt.Sprintf("%.0f/s", standin.Steady(o.times)), "(peer: 116/s at 643 MB)", true},
			}
		},
	},
	hidden("hidden", "from cold", false, 32),
	hidden("again", "with the level remembered", true, 26.5),
}

// hidden is a scenario that asks how soon a capacity that nobody told is used, and
// at what price.
func hidden(name, how string, rehearsed bool, seconds float64) scenario {
	return scenario{
		name: name, about: "5,000 jobs at a hidden 200 calls/s, " + how, jobs: 5000, prompt: 2 << 10, rehearsed: rehearsed,
		set:   standin.Settings{Call: 200 * time.Millisecond, SQS: time.Millisecond, S3: time.Millisecond, Capacity: "calls=200 burst=1"},
		flags: []string{"--slots=256"},
		judge: func(o outcome) []verdict {
			took := o.times[len(o.times)-1]
			share := float64(o.refused) / float64(o.jobs+int(o.refused))
			return []verdict{
				{"time from the first answer", fmt.Sprintf("%.1f s (ideal 25)", took), fmt.Sprintf("≤ %v s", seconds), took <= seconds},
				{"refusals", fmt.Sprintf("%d (%.2f %%)", o.refused, 100*share), "≤ 1 %", share <= 0.01},
				{"dead-lettered", fmt.Sprint(o.jobs - len(o.times)), "0", o.jobs == len(o.times)},
			}
		},
	}
}

// rate is a scenario that asks how much of its slots a worker uses when a round
// trip to SQS and S3 takes 20 ms.
func rate(slots, jobs int) scenario {
	const call = 200 * time.Millisecond
	return scenario{
		name: fmt.Sprintf("rate%d", slots), about: fmt.Sprintf("%d slots, 200 ms calls, 20 ms to SQS and S3", slots),
		jobs: jobs, prompt: 1 << 10,
		set:   standin.Settings{Call: call, SQS: 20 * time.Millisecond, S3: 20 * time.Millisecond},
		flags: []string{fmt.Sprintf("--slots=%d", slots), "--start-rate=10000"},
		judge: func(o outcome) []verdict {
			ideal := float64(slots) / call.Seconds()
			got := standin.Steady(o.times)
			fresh := float64(o.counts.NewConnections) / float64(o.counts.Calls)
			return []verdict{
				{"jobs/s", fmt.Sprintf("%.0f (%.1f %% of %.0f)", got, 100*got/ideal, ideal), "≥ 95 %", got >= 0.95*ideal},
				{"new connections", fmt.Sprintf("%.2f %% of %d calls", 100*fresh, o.counts.Calls), "≤ 1 %", fresh <= 0.01},
			}
		},
	}
}

func main() {
	if len(os.Args) == 3 && os.Args[1] == "serve" {
		if err := standin.Serve(os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		return
	}
	if len(os.Args) > 1 && os.Args[1] == "limiter" {
		if err := limiter(os.Args[2:], os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		return
	}
	against := flag.String("against", "", "another upwell, which the watched scenario compares with")
	only := flag.String("only", "", "names of the scenarios to run, separated by commas")
	flag.Parse()
	if err := bench(context.Background(), *only, *against); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func bench(ctx context.Context, only, against string) error {
	dir, err := os.MkdirTemp("", "upwell-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	program := filepath.Join(dir, "upwell")
	build := exec.CommandContext(ctx, "go", "build", "-o", program, "upwell/cmd/upwell")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return fmt.Errorf("build: %w", err)
	}
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "scenario\tmeasure\tmeasured\ttarget\t")
	for _, s := range append(scenarios, comparisons(against)...) {
		if only != "" && !strings.Contains(","+only+",", ","+s.name+",") {
			continue
		}
		fmt.Fprintf(os.Stderr, "%s: %s\n", s.name, s.about)
		o, err := s.run(ctx, program)
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		for _, v := range s.judge(o) {
			mark := "met"
			if !v.ok {
				mark = "MISSED"
			}
			fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", s.about, v.what, v.measured, v.target, mark)
		}
	}
	return table.Flush()
}

// run makes one measurement, or a comparison of several.
func (s scenario) run(ctx context.Context, program string) (outcome, error) {
	if s.pairs > 0 {
		return s.compare(ctx, program)
	}
	return s.measure(ctx, program)
}

// measure makes one measurement.
func (s scenario) measure(ctx context.Context, program string) (o outcome, err error) {
	at, err := standin.Start(ctx, s.set)
	if err != nil {
		return o, err
	}
	defer at.Stop()
	if s.rehearsed {
		if _, err := s.work(ctx, program, at); err != nil {
			return o, fmt.Errorf("rehearsal: %w", err)
		}
		if err := at.Forget(ctx); err != nil {
			return o, err
		}
	}
	return s.work(ctx, program, at)
}

// work has a worker do the scenario's jobs.
func (s scenario) work(ctx context.Context, program string, at *standin.Servers) (o outcome, err error) {
	if err := at.Fill(ctx, standin.Jobs{N: s.jobs, Prompt: s.prompt, Receives: 100}); err != nil {
		return o, fmt.Errorf("fill the queue: %w", err)
	}
	before, err := at.Counts(ctx)
	if err != nil {
		return o, err
	}
	args := append([]string{
		"worker", "--queue=jobs", "--bucket=results", "--exit-when-empty=2s", "--log-level=warn", "--region=us-west-2",
		"--base-url=" + at.Model + "/openai/v1",
	}, s.flags...)
	if s.viewed {
		addr, err := freeAddr(ctx)
		if err != nil {
			return o, err
		}
		args = append(args, "--http="+addr)
		viewing, stop := context.WithCancel(ctx)
		var viewer sync.WaitGroup
		viewer.Go(func() { view(viewing, addr) })
		defer viewer.Wait()
		defer stop()
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(os.Environ(), at.Env()...)
	cmd.Stderr = os.Stderr
	start := time.Now()
	if err := cmd.Run(); err != nil {
		return o, fmt.Errorf("worker: %w", err)
	}
	usage, _ := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	o = outcome{
		jobs: s.jobs, wall: time.Since(start), rss: usage.Maxrss << 10,
		cpu: cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(),
	}
	if o.times, err = at.Times(ctx); err != nil {
		return o, err
	}
	if o.counts, err = at.Counts(ctx); err != nil {
		return o, err
	}
	o.refused = standin.Refused(o.counts) - standin.Refused(before)
	if len(o.times) != s.jobs {
		return o, fmt.Errorf("%d results of %d jobs", len(o.times), s.jobs)
	}
	return o, nil
}
