package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync"
	"time"

	"upwell/integration/bench/weather"
)

// errMissed is why the command fails when it has printed its tables.
var errMissed = errors.New("a target was missed")

const limiterUsage = `usage: go run ./integration/bench limiter [flags]

Plays an hour of each scenario in virtual time, nothing sleeps, and prints how the
limiter fares that upwell paces its calls with, beside the usual alternatives:

  used      admitted, as part of what the endpoint would have admitted
  warm      the same without the first 10 minutes, of fleets 30
  refused   429s and 503s, as part of all calls, from the first second on
  90 % in   time after a change until 90 % of the capacity is used; it is calm
            when less than 2 % is refused
  Jain      fairness between workers in the last third, 1 is perfect

All are means over the seeds. The same seeds give the same numbers. It exits 1 if
upwell misses a target.

  limiter -only up,down                     two of the scenarios
  limiter -alternatives=false               upwell alone
  limiter -picture limiter.png              draw what it does, also .svg
  limiter -trace outage -every 5s           what happened, line by line
  limiter -random 200 -base 1000            endpoints drawn at random instead
  limiter -trace random-1017                one of these

`

// A suite is what the command line asks for.
type suite struct {
	out          io.Writer
	only         string
	seeds        int
	base         uint64 // first seed
	alternatives bool
	random       int
	trace        string
	every        time.Duration
	picture      string
}

// limiter runs the command of that name.
func limiter(args []string, out io.Writer) error {
	s := suite{out: out}
	f := flag.NewFlagSet("limiter", flag.ContinueOnError)
	f.SetOutput(out)
	f.Usage = func() {
		fmt.Fprint(out, limiterUsage)
		f.PrintDefaults()
	}
	f.StringVar(&s.only, "only", "", "`names` of the scenarios to run, separated by commas")
	f.IntVar(&s.seeds, "seeds", 3, "runs of each scenario")
	f.Uint64Var(&s.base, "base", 1, "first `seed`; of random endpoints, the first endpoint")
	f.BoolVar(&s.alternatives, "alternatives", true, "run the alternatives, too")
	f.IntVar(&s.random, "random", 0, "run so `many` random endpoints, once each, instead of the scenarios")
	f.StringVar(&s.trace, "trace", "", "print one `scenario`'s first run line by line, and nothing else")
	f.DurationVar(&s.every, "every", 10*time.Second, "virtual time between the lines of a trace")
	f.StringVar(&s.picture, "picture", "", "draw ramp, steps and outage to this `file`, .png or .svg, and nothing else")
	if err := f.Parse(args); errors.Is(err, flag.ErrHelp) {
		return nil
	} else if err != nil {
		return err
	}
	switch {
	case f.NArg() > 0:
		return fmt.Errorf("unexpected %q", f.Arg(0))
	case s.seeds < 1 || s.every < time.Second:
		return errors.New("-seeds and -every have to be at least 1 and 1s")
	case s.picture != "":
		return picture(s.picture, s.base)
	case s.trace != "":
		return s.line()
	case s.random > 0:
		return s.lottery()
	default:
		return s.tables()
	}
}

// kinds returns upwell and, if they are asked for, the alternatives.
func (s *suite) kinds() []weather.Kind {
	kinds := []weather.Kind{weather.Upwell()}
	if s.alternatives {
		kinds = append(kinds, weather.Rivals()...)
	}
	return kinds
}

// choose returns those of the scenarios that are wanted.
func (s *suite) choose(all []weather.Scenario) (list []weather.Scenario) {
	for _, sc := range all {
		if s.only == "" || strings.Contains(","+s.only+",", ","+sc.Name+",") {
			list = append(list, sc)
		}
	}
	return list
}

// A row is a scenario and the results of its runs.
type row struct {
	weather.Scenario
	runs [][]weather.Result // by kind and seed; none of a kind that the scenario is not for
	left sync.WaitGroup     // runs
}

// mean returns that of a kind's runs.
func (r *row) mean(kind int) weather.Result { return weather.Mean(r.runs[kind]) }

// play runs scenarios with each kind and each of so many seeds, as many runs at
// once as there are processors, and passes on the rows in order.
func play(list []weather.Scenario, kinds []weather.Kind, base uint64, seeds int, pass func(*row)) {
	rows := make([]*row, len(list))
	for i, sc := range list {
		rows[i] = &row{Scenario: sc}
		for _, k := range kinds {
			n := seeds
			if sc.Fleet && !k.Fleet {
				n = 0 // it would do the same as without
			}
			rows[i].runs = append(rows[i].runs, make([]weather.Result, n))
			rows[i].left.Add(n)
		}
	}
	tasks := make(chan func()) // closed by who sends
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(tasks)
		for _, r := range rows {
			for k, kind := range kinds {
				for seed := range r.runs[k] {
					tasks <- func() {
						r.runs[k][seed] = weather.Run(&r.Scenario, kind, base+uint64(seed))
						r.runs[k][seed].Log = nil // hundreds of them are much memory
						r.left.Done()
					}
				}
			}
		}
	})
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for t := range tasks {
				t()
			}
		})
	}
	for _, r := range rows {
		r.left.Wait()
		pass(r)
	}
	wg.Wait()
}

// tables prints one of upwell with targets, one without, and one of all kinds.
func (s *suite) tables() error {
	kinds := s.kinds()
	with, without := s.choose(weather.Scenarios()), s.choose(weather.Also())
	if len(with)+len(without) == 0 {
		return fmt.Errorf("no scenario %q", s.only)
	}
	const head = "%-11s %-53s %7s %7s %8s %8s %6s"
	fmt.Fprintf(s.out, head+"  target\n", "name", "scenario", "used", "warm", "refused", "90 % in", "Jain")
	missed := false
	var rows []*row
	play(append(with, without...), kinds, s.base, s.seeds, func(r *row) {
		res := r.mean(0)
		verdict := ""
		if len(rows) == len(with) && len(with) > 0 {
			fmt.Fprintln(s.out, "\nalso, without a target")
		}
		if rows = append(rows, r); len(rows) <= len(with) {
			verdict = "met"
			if m := r.Target.Missed(res); m != nil {
				missed, verdict = true, "MISSED: "+strings.Join(m, ", ")
			}
		}
		about := r.About
		if res.Ideal > 0 {
			about += fmt.Sprintf(" (%.1f of ideal)", 100*res.Ideal)
		}
		if res.Calm > 0 {
			about += fmt.Sprintf(" (calm after %.0f s)", res.Calm.Seconds())
		}
		text := fmt.Sprintf(head+"  %-26s %s", r.Name, about, percent(res.Used, 1), percent(res.UsedWarm, 1),
			percent(res.Refused, 2), after(r.Scenario, res), jain(r.Scenario, res), goal(r.Target), verdict)
		fmt.Fprintln(s.out, strings.TrimRight(text, " "))
	})
	if len(kinds) > 1 {
		s.compare(kinds, rows)
	}
	if missed {
		return errMissed
	}
	return nil
}

// compare prints what all kinds made of the same scenarios.
func (s *suite) compare(kinds []weather.Kind, rows []*row) {
	line := func(name string, cell func(kind int) string) {
		var text strings.Builder
		fmt.Fprintf(&text, "%-11s", name)
		for k := range kinds {
			fmt.Fprintf(&text, " %-19s", cell(k))
		}
		fmt.Fprintln(s.out, strings.TrimRight(text.String(), " "))
	}
	fmt.Fprintln(s.out, "\nused / refused in %, time to 90 %; only upwell has fleets")
	line("name", func(k int) string { return kinds[k].Name })
	for _, r := range rows {
		line(r.Name, func(k int) string {
			if len(r.runs[k]) == 0 {
				return ""
			}
			res := r.mean(k)
			text := fmt.Sprintf("%.1f / %.1f", 100*res.Used, 100*res.Refused)
			if r.Change > 0 {
				text += ", " + after(r.Scenario, res)
			}
			return text
		})
	}
}

func percent(part float64, digits int) string { return fmt.Sprintf("%.*f %%", digits, 100*part) }

// after is how long the change took to follow, never if it was not.
func after(sc weather.Scenario, r weather.Result) string {
	switch {
	case sc.Change == 0:
		return ""
	case r.Back > sc.After()*9/10: // in some run or other
		return "never"
	default:
		return fmt.Sprintf("%.0f s", r.Back.Seconds())
	}
}

func jain(sc weather.Scenario, r weather.Result) string {
	if sc.Workers < 2 {
		return ""
	}
	return fmt.Sprintf("%.3f", r.Jain)
}

func goal(t weather.Target) string {
	if t == (weather.Target{}) {
		return ""
	}
	text := fmt.Sprintf("≥ %.4g, ≤ %.2g", 100*t.Used, 100*t.Refused)
	if t.Back > 0 {
		text += fmt.Sprintf(", ≤ %.0f s", t.Back.Seconds())
	}
	if t.Jain > 0 {
		text += fmt.Sprintf(", J ≥ %.2f", t.Jain)
	}
	return text
}

// lottery runs random endpoints, and prints how many are well used.
func (s *suite) lottery() error {
	kinds := s.kinds()
	list := make([]weather.Scenario, s.random)
	for i := range list {
		list[i] = weather.Random(s.base + uint64(i))
	}
	all := make([][]weather.Result, len(kinds))
	play(list, kinds, s.base, 1, func(r *row) {
		for k := range kinds {
			all[k] = append(all[k], r.mean(k))
		}
		res := r.mean(0)
		if m := r.Target.Missed(res); m != nil && s.random <= 1000 {
			fmt.Fprintf(s.out, "%-12s %-40s used %s, refused %s\n", r.Name, r.About, percent(res.Used, 1), percent(res.Refused, 2))
		}
	})
	fmt.Fprintf(s.out, "\n%d random endpoints\n%-13s %9s %11s   %-26s %-24s\n", s.random, "", "97 % / 1 %", "95 % / 1.5 %",
		"used: p5, p25, median", "refused: median, p95, max")
	for k, kind := range kinds {
		met := func(used, refused float64) string {
			n := 0
			for _, r := range all[k] {
				if r.Used >= used && r.Refused <= refused {
					n++
				}
			}
			return percent(float64(n)/float64(s.random), 0)
		}
		q := func(part float64, digits int, of func(weather.Result) float64) string {
			return percent(weather.Quantile(all[k], part, of), digits)
		}
		used := func(r weather.Result) float64 { return r.Used }
		refused := func(r weather.Result) float64 { return r.Refused }
		fmt.Fprintf(s.out, "%-13s %9s %11s   %7s %7s %7s    %7s %7s %7s\n", kind.Name, met(0.97, 0.01), met(0.95, 0.015),
			q(0.05, 1, used), q(0.25, 1, used), q(0.5, 1, used), q(0.5, 2, refused), q(0.95, 2, refused), q(1, 2, refused))
	}
	return nil
}

// line prints one run of upwell, a line at a time.
func (s *suite) line() error {
	var sc weather.Scenario
	var seed uint64
	if n, err := fmt.Sscanf(s.trace, "random-%d", &seed); n == 1 && err == nil {
		sc = weather.Random(seed)
	} else {
		s.only, seed = s.trace, s.base
		list := s.choose(append(append(weather.Scenarios(), weather.Also()...), weather.Portrait()))
		if len(list) != 1 {
			return fmt.Errorf("no scenario %q", s.trace)
		}
		sc = list[0]
	}
	res := weather.Run(&sc, weather.Upwell(), seed)
	unit := "calls/s"
	switch sc.Unit {
	case "tpm", "otpm":
		unit = "tokens/s"
	case "conc":
		unit = "slots"
	}
	fmt.Fprintf(s.out, "# %s, seed %d\n# capacity and used in %s, the others in calls: allowed per second, sent and refused since the last line\n",
		sc.About, seed, unit)
	fmt.Fprintf(s.out, "%8s %10s %10s %10s %7s %8s  %s\n", "time", "capacity", "used", "allowed", "sent", "refused", "reason")
	n := s.every.Seconds()
	for t := time.Duration(0); t+s.every <= time.Duration(len(res.Log))*time.Second; t += s.every {
		sum := res.Log.Sum(t, t+s.every)
		fmt.Fprintf(s.out, "%8s %10.2f %10.2f %10.2f %7.0f %8.0f  %s\n", t+s.every, sum.Capacity/n, sum.Admitted/n, sum.Allowed/n,
			sum.Sent, sum.Refused, res.Log[(t+s.every)/time.Second-1].Reason)
	}
	fmt.Fprintf(s.out, "# used %s, refused %s\n", percent(res.Used, 2), percent(res.Refused, 2))
	return nil
}
