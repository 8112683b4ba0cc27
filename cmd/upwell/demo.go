package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"upwell/cmd/internal/demo"
	"upwell/cmd/internal/input"
	"upwell/cmd/internal/progress"
	"upwell/infra/local"
	"upwell/sink"
	"upwell/worker"
	"upwell/worker/mantle"
	"upwell/worker/mantle/mantlesim"
	"upwell/worker/mantle/mantlesim/capacity"
)

// demoCmd is the whole of it on one machine.
type demoCmd struct {
	Dir      string `name:"output" short:"o" type:"path" default:"upwell-demo" placeholder:"DIR" help:"Folder for the results; what an earlier demo left there is removed."`
	Capacity string `default:"${demo_capacity}" placeholder:"SCRIPT" help:"Hidden capacity of the simulated endpoint over time, in calls a second."`
	Hold     bool   `help:"Keep the dashboard open when the demo is done, until Ctrl-C."`
	Quiet    bool   `short:"q" help:"No progress."`
	watchFlags
}

// demoCapacity is what the demo's endpoint can do: the limiter has to find it,
// follow it up and follow it down.
const demoCapacity = "0s calls=12 burst=1; 12s calls=24; 24s calls=10"

const (
	demoVerb = "demo"
	demoRun  = "contracts"
)

// Run runs the demo.
func (c *demoCmd) Run(ctx context.Context, e env) error {
	script, err := capacity.ParseScript(c.Capacity)
	if err != nil {
		return fail(exitUsage, fmt.Errorf("--capacity: %w", err))
	}
	if err := clearDemo(c.Dir); err != nil {
		return fail(exitUsage, err)
	}
	file, err := writeDemo(ctx, c.Dir)
	if err != nil {
		return fail(exitUsage, err)
	}
	e = e.shows(false, c.Quiet)
	s := session{env: e, file: file, dir: c.Dir, run: demoRun, quiet: c.Quiet, watching: &c.watchFlags, verb: demoVerb}
	defer s.close()
	s.sim = &mantlesim.Config{
		Capacity: script,
		Latency:  mantlesim.Latency{Median: 900 * time.Millisecond, Sigma: 0.5, Min: 200 * time.Millisecond, Max: 4 * time.Second, Correlation: 0.5},
	}
	s.pace = &paceFlags{Slots: 64, MaxMemory: 64, StartRate: 2, MaxAttempts: 5}
	s.worker = func(stack *local.Stack) (worker.Endpoint, worker.Config, error) {
		client, err := mantle.New(ctx, mantle.Config{
			Regions: []string{local.Region}, BaseURL: stack.MantleURL + "/openai/v1", APIKey: simulatedKey, MaxInFlight: s.pace.Slots,
		})
		cfg := s.pace.config(&endpointFlags{Tier: []string{"flex"}, AttemptTimeout: time.Minute}, []string{local.Region}, e)
		return client, cfg, err
	}
	if s.sum, err = checked(ctx, e, file, demoRun, &s.schemas, nil); err != nil {
		return err
	}
	fmt.Fprintf(e.stdout, "%d questions about %d contracts, to a simulated endpoint that does not say what it can take\n",
		s.sum.Count, len(demo.Contracts()))
	end, err := s.do(ctx)
	if err != nil {
		return err
	}
	err = c.conclude(&s, end, script)
	switch {
	case !c.Hold || ctx.Err() != nil:
	case s.watch.url == "":
		fmt.Fprintln(e.stderr, "upwell: --hold has nothing to keep open, as no dashboard is served")
	default:
		fmt.Fprintf(e.stdout, "the dashboard stays open until Ctrl-C:  %s\n", s.watch.url)
		<-ctx.Done()
	}
	return err
}

// conclude shows what happened.
func (c *demoCmd) conclude(s *session, end ending, script capacity.Script) error {
	history, width := s.watch.meter.History()
	fmt.Fprintln(s.stdout, "\nanswers per second (┄ what the endpoint would have taken)")
	progress.Ramp(s.stdout, history, width, func(at time.Duration) float64 { return callsAt(script, at) })
	fmt.Fprintln(s.stdout)
	if err := s.conclude(end); err != nil {
		return err
	}
	billed := s.stack.Mantle.Counts().Billed
	progress.Table(s.stdout, []progress.Row{
		{Name: "billed", Value: fmt.Sprintf("%d calls for %d jobs", billed, s.sum.Count)},
		{Name: "objects", Value: filepath.Join(c.Dir, objectsDir, localBucket, sink.Results.Prefix("", demoRun)) + "…"},
	})
	if billed != int64(s.sum.Count) {
		return fail(exitFailed, errors.New("calls and jobs do not match"))
	}
	fmt.Fprintf(s.stdout, "look at an answer:  head -1 %s\nmake a table:       upwell export %s --dir %s -o %s.csv\n",
		filepath.Join(c.Dir, outputName(demoRun)), demoRun, c.Dir, demoRun)
	return nil
}

// callsAt is what the script's endpoint takes in calls a second at that time, as
// far as its steps are level.
func callsAt(script capacity.Script, at time.Duration) (calls float64) {
	for _, step := range script {
		if flow, ok := step.Set["calls"]; ok && step.At <= at {
			calls = flow.From
		}
	}
	return calls
}

// demoMark is a file that says that a folder is a demo's, and may be emptied.
const demoMark = ".upwell-demo"

// clearDemo empties the folder of an earlier demo, and no other.
func clearDemo(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(entries) == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(dir, demoMark)); err != nil {
		return fmt.Errorf("%s holds something that is no demo's: name another folder with -o", dir)
	}
	return os.RemoveAll(dir)
}

// writeDemo writes the demo's jobs where a user's would be.
func writeDemo(ctx context.Context, dir string) (*input.File, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, demoMark), nil, 0o644); err != nil {
		return nil, err
	}
	path := filepath.Join(dir, demoRun+".jsonl")
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	for line := range demo.Lines("xai.grok-4.3", []string{"flex"}) {
		_, _ = f.Write(append(line, '\n')) // Close reports it
	}
	if err := f.Close(); err != nil {
		return nil, err
	}
	return input.Open(ctx, path, input.Options{})
}
