package integration

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"upwell/integration/fixture"
)

// limited has answers of a bounded length, and none that are truncated and asked for
// again: a call may cost 0.8 cents at most, and costs a twentieth of that.
var limited = []string{"UPWELL_MAX_OUTPUT_TOKENS=2000", "UPWELL_OUTPUT_CEILING=2000"}

// dearest is what such a call may cost, in dollars.
const dearest = 0.008

// A budget is what status says of one.
type budget struct {
	Limit    float64 `json:"limit_usd"`
	Spent    float64 `json:"spent_usd"`
	Presumed float64 `json:"presumed_usd"`
	Reserved float64 `json:"reserved_usd"`
	Parked   string  `json:"parked_since"`
}

// budget asks for the budget of a run. It may have failures.
func (s *stack) budget(t *testing.T, run string) budget {
	t.Helper()
	p := s.launch(t, "status", run, "--json")
	p.exits(t, 0)
	var r struct{ Budget *budget }
	if err := json.Unmarshal([]byte(p.stdout.String()), &r); err != nil || r.Budget == nil {
		t.Fatalf("status says %s (%v), want a budget", p.stdout.String(), err)
	}
	return *r.Budget
}

// within checks that no more is billed than the limit.
func (s *stack) within(t *testing.T, limit float64) {
	t.Helper()
	if c := s.counts(t); c.Cost > limit {
		t.Errorf("%v USD are billed, want at most the budget of %v", c.Cost, limit)
	}
}

// TestBudget parks a run that four workers are on, each with another number of calls
// at a time, and lets it go on with a larger budget: with one call for each job.
func TestBudget(t *testing.T) {
	lengthy(t, "it waits for a minute")
	t.Parallel()
	s := newStack(t, "--latency", "200ms")
	s.env = append(s.env, limited...)
	file, names := filepath.Join(t.TempDir(), "dear.jsonl"), fixture.IDs("job", 200)
	writeJobs(t, file, names)
	s.launch(t, "submit", file, "--budget", "0.05usd").exits(t, 0)
	if b := s.budget(t, "dear"); b.Limit != 0.05 || b.Spent != 0 || b.Parked != "" {
		t.Errorf("budget = %+v, want 5 cents, of which nothing is spent", b)
	}
	var workers []*process
	for _, slots := range []string{"1", "4", "16", "64"} {
		workers = append(workers, s.launch(t, "worker", "--slots", slots, "--start-rate", "50", "--exit-when-empty", "10s"))
	}
	for _, w := range workers {
		w.exits(t, 1)
		if said := w.stderr.String(); !strings.Contains(said, "upwell: run dear: parked: the budget of $0.0500 is used up") || !strings.Contains(said, "raise it with --budget") {
			t.Errorf("worker says %q, want that the run is parked, and what to do", tail(said))
		}
	}
	s.within(t, 0.05)
	cost, done := s.counts(t).Cost, len(s.stored(t, "dear"))
	b := s.budget(t, "dear")
	if math.Abs(b.Spent-cost) > 1e-6 || b.Reserved != 0 || b.Presumed != 0 || b.Parked == "" {
		t.Errorf("budget = %+v, want that it is parked with the %v USD spent that were billed", b, cost)
	}
	if cost < 0.05-dearest || done >= len(names) {
		t.Errorf("%v USD are spent for %d jobs, want nearly all of the budget, and some jobs left", cost, done)
	}
	if n := left(t, s.dead).Total(); n != 0 || left(t, s.queue).Total() != len(names)-done {
		t.Errorf("%d letters and %d messages left, want none and %d", n, left(t, s.queue).Total(), len(names)-done)
	}

	s.launch(t, "submit", file, "--budget", "$1").exits(t, 0)
	s.launch(t, "worker", "--start-rate", "50", "--exit-when-empty", "5s").exits(t, 0)
	s.balance(t, "dear", names, 0)
	if b := s.budget(t, "dear"); b.Parked != "" || math.Abs(b.Spent-s.counts(t).Cost) > 1e-6 {
		t.Errorf("budget = %+v, want that it is not parked, and the %v USD that were billed", b, s.counts(t).Cost)
	}
}

// TestBudgetAndKills kills two of four workers in the middle. What they had is not
// spent by anybody else, so the budget holds; raised, the run comes to its end.
func TestBudgetAndKills(t *testing.T) {
	lengthy(t, "it waits for three minutes")
	t.Parallel()
	s := newStack(t, "--latency", "500ms", "--capacity", "calls=40")
	s.env = append(s.env, limited...)
	file, names := filepath.Join(t.TempDir(), "killed.jsonl"), fixture.IDs("job", 600)
	writeJobs(t, file, names)
	const limit = 0.16 // of 0.25 or so that all of it costs
	s.launch(t, "submit", file, "--budget", fmt.Sprint(limit)).exits(t, 0)
	answers := s.behind(t, "OPENAI_BASE_URL", calls)
	var workers []*process
	for _, slots := range []string{"2", "8", "32", "64"} {
		workers = append(workers, s.launch(t, "worker", "--slots", slots, "--start-rate", "20"))
	}
	lost := 0
	for i, n := range []int64{80, 160} {
		answers.shutAfter(120) // the money is not spent before the kill
		eventually(t, "some of the work to be done", func() bool { return s.counts(t).Billed > n })
		victim := workers[2+i]
		victim.signal(t, syscall.SIGSTOP)
		held, _ := answers.held()
		lost += s.counts(t).InFlight + held
		victim.signal(t, syscall.SIGKILL)
		victim.exits(t, -1)
		s.within(t, limit)
		answers.open()
	}
	eventually(t, "the run to be parked", func() bool { return s.budget(t, "killed").Parked != "" })
	eventually(t, "the calls in flight to end", func() bool { return s.counts(t).InFlight == 0 })
	s.within(t, limit)
	b, c := s.budget(t, "killed"), s.counts(t)
	if b.Spent+b.Reserved > limit+1e-9 || b.Reserved == 0 || c.Cost < limit/2 {
		t.Errorf("budget = %+v, and %v USD billed, want the grants of the killed workers reserved, and the rest spent", b, c.Cost)
	}
	if n := left(t, s.dead).Total(); n != 0 {
		t.Errorf("%d letters, want none", n)
	}
	// A worker that is told so raises it. The others go on as well, unless all is done
	// when they look again.
	workers = append(workers, s.launch(t, "worker", "--run", "killed", "--budget", "2usd", "--start-rate", "20"))
	var looked time.Time // reading them all takes a while
	eventually(t, "all jobs to have a result", func() bool {
		if time.Since(looked) < time.Second {
			return false
		}
		looked = time.Now()
		return len(s.stored(t, "killed")) == len(names)
	})
	for _, i := range []int{0, 1, 4} {
		workers[i].signal(t, os.Interrupt)
		workers[i].exits(t, 0)
	}
	s.balance(t, "killed", names, lost+10) // and what was on its way to S3
	s.within(t, 2)
}

// TestRunBudget stops a run on this machine when its budget is used up, with what it
// has written out.
func TestRunBudget(t *testing.T) {
	t.Parallel()
	s := newStack(t, "--latency", "50ms")
	s.env = append(s.env, limited...)
	dir := t.TempDir()
	file, out := filepath.Join(dir, "local.jsonl"), filepath.Join(dir, "out")
	names := fixture.IDs("job", 100)
	writeJobs(t, file, names)
	shortest := patience
	for _, limit := range []string{"0.015usd", "0.02 USD", "$0.025"} {
		start := time.Now()
		p := s.launch(t, "run", file, "-o", out, "--start-rate", "100", "--budget", limit)
		p.exits(t, 1)
		shortest = min(shortest, time.Since(start))
		if said := p.stderr.String(); !strings.Contains(said, "raise it with --budget") || !strings.Contains(said, "the same command goes on") {
			t.Errorf("run says %q, want why it stopped and how to go on", tail(said))
		}
		var usd float64
		if _, err := fmt.Sscanf(strings.Trim(limit, "$usdUSD "), "%g", &usd); err != nil {
			t.Fatal(err)
		}
		s.within(t, usd)
		text, err := os.ReadFile(filepath.Join(out, "local.output.jsonl"))
		if n := bytes.Count(text, []byte("\n")); err != nil || n == 0 || int64(n) != s.counts(t).Billed {
			t.Errorf("%d answers (%v), want each of the %d that were paid for", n, err, s.counts(t).Billed)
		}
	}
	start := time.Now()
	s.launch(t, "run", file, "-o", out, "--start-rate", "100", "--budget", "1usd").exits(t, 0)
	// Who waits for money looks for it once a minute.
	if took := time.Since(start); shortest > took+30*time.Second {
		t.Errorf("three runs took %v and more, and one with money %v: want each to stop when there is none", shortest, took)
	}
	checkOutput(t, filepath.Join(out, "local.output.jsonl"), names)
	if c := s.counts(t); c.Billed != 100 || c.Repeated != 0 {
		t.Errorf("%d calls billed, %d of them again, want 100 and none", c.Billed, c.Repeated)
	}
}

// TestRunBudgetAfterAKill counts as spent what a run that was killed had set aside, and
// says so.
func TestRunBudgetAfterAKill(t *testing.T) {
	t.Parallel()
	s := newStack(t, "--latency", "1s")
	s.slow(t, 31, 600) // it is not done before it is killed
	s.env = append(s.env, limited...)
	dir := t.TempDir()
	file, out := filepath.Join(dir, "local.jsonl"), filepath.Join(dir, "out")
	names := fixture.IDs("job", 100)
	writeJobs(t, file, names)
	p := s.launch(t, "run", file, "-o", out, "--start-rate", "20", "--budget", "5usd")
	eventually(t, "some of the work to be done", func() bool { return s.counts(t).Billed > 20 })
	p.signal(t, syscall.SIGKILL)
	p.exits(t, -1)
	s.quick(t)
	p = s.launch(t, "run", file, "-o", out, "--start-rate", "100")
	p.exits(t, 0)
	if said := p.stderr.String(); !strings.Contains(said, "were set aside by a worker that was killed count as spent in the budget of run local") {
		t.Errorf("run says %q, want what became of the money that was set aside", tail(said))
	}
	checkOutput(t, filepath.Join(out, "local.output.jsonl"), names)
}

// TestBudgetOfALateComer counts what a run has cost before it had a budget.
func TestBudgetOfALateComer(t *testing.T) {
	t.Parallel()
	s := newStack(t, "--latency", "5ms")
	s.env = append(s.env, limited...)
	file := filepath.Join(t.TempDir(), "late.jsonl")
	writeJobs(t, file, fixture.IDs("job", 30))
	s.launch(t, "submit", file).exits(t, 0)
	s.launch(t, "worker", "--start-rate", "100", "--exit-when-empty", "1s").exits(t, 0)
	s.launch(t, "submit", file, "--budget", "5").exits(t, 0)
	if b, c := s.budget(t, "late"), s.counts(t); math.Abs(b.Spent-c.Cost) > 1e-6 || c.Cost == 0 {
		t.Errorf("budget = %+v, want the %v USD that were billed before", b, c.Cost)
	}
}

// TestBadBudget is refused before anything is done.
func TestBadBudget(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "a.jsonl")
	writeJobs(t, file, fixture.IDs("job", 1))
	for want, args := range map[string][]string{
		`--budget: "200eur"`: {"submit", file, "--queue", "none", "--bucket", "none", "--budget", "200eur"},
		`--budget: "-5"`:     {"run", file, "-o", filepath.Join(dir, "out"), "--simulate", "--budget=-5"},
		"give --run as well": {"worker", "--queue", "none", "--bucket", "none", "--budget", "5"},
	} {
		p := launch(t, nil, args...)
		p.exits(t, 2)
		if !strings.Contains(p.stderr.String(), want) {
			t.Errorf("%s says %q, want %q in it", slices.Concat([]string{"upwell"}, args), p.stderr.String(), want)
		}
	}
}
