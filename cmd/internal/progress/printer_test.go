package progress_test

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"upwell/cmd/internal/progress"
	"upwell/jobs"
	"upwell/throttle"
	"upwell/worker"
)

var update = flag.Bool("update", false, "write the golden files anew")

func laneOf(region, model string) throttle.Lane {
	return throttle.Lane{Region: region, Model: model, Tier: "flex"}
}

var oregon = laneOf("us-west-2", "xai.grok-4.3")

// A scene is a run in a state.
type scene struct {
	name  string
	total int64
	play  func(m *progress.Meter)
}

// answer has so many jobs answered, evenly over that time.
func answer(m *progress.Meter, n int, over time.Duration, lanes ...throttle.Lane) {
	for i := range n {
		time.Sleep(over / time.Duration(n))
		m.Observe(worker.Event{Kind: worker.Permitted, At: time.Now(), Lane: lanes[i%len(lanes)]})
		m.Observe(worker.Event{
			Kind: worker.Attempted, At: time.Now(), Lane: lanes[i%len(lanes)], Outcome: throttle.Accepted,
			Usage: jobs.Usage{InputTokens: 3000, OutputTokens: 400}, CostUSD: 0.004,
		})
		m.Observe(worker.Event{Kind: worker.Stored, At: time.Now()})
	}
}

func refuse(m *progress.Meter, lane throttle.Lane, n int, o throttle.Outcome) {
	for range n {
		m.Observe(worker.Event{Kind: worker.Permitted, At: time.Now(), Lane: lane})
		m.Observe(worker.Event{Kind: worker.Attempted, At: time.Now(), Lane: lane, Outcome: o})
	}
}

func calling(m *progress.Meter, n int) {
	for range n {
		m.Observe(worker.Event{Kind: worker.Permitted, At: time.Now(), Lane: oregon})
	}
}

func stand(m *progress.Meter, bound worker.Bound, lanes map[throttle.Lane]throttle.State) {
	m.Observe(worker.Event{Kind: worker.Sampled, At: time.Now(), Sample: &worker.Sample{Bound: bound, Lanes: lanes}})
}

// TestStandstill has one lane and two runs keep a worker from its jobs, or not.
func TestStandstill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := progress.NewMeter()
		check := func(when, want string) {
			t.Helper()
			if got := fmt.Sprint(m.Standstill()); got != want {
				t.Errorf("%s: Standstill = %s, want %s", when, got, want)
			}
		}
		during := func(b worker.Bound) {
			for range 11 {
				time.Sleep(time.Second)
				stand(m, b, map[throttle.Lane]throttle.State{oregon: {Rate: 4}})
			}
		}
		park := func(kind worker.EventKind, run string) {
			m.Observe(worker.Event{Kind: kind, At: time.Now(), Key: jobs.Key{Run: run}, Err: fmt.Errorf("%w: all is spent", worker.ErrParked)})
		}
		check("at the beginning", "<nil>")
		park(worker.Parked, "a")
		during(worker.BoundQuota)
		check("one run is parked, and the other goes on", "<nil>")
		time.Sleep(time.Second)
		park(worker.Parked, "b")
		during(worker.BoundBudget)
		check("both are parked", "run a: parked: all is spent")
		park(worker.Unparked, "a")
		check("one is not any more", "run b: parked: all is spent")
		during(worker.BoundQuota)
		m.Observe(worker.Event{Kind: worker.Paused, At: time.Now(), Lane: oregon, Err: errors.New("401")})
		check("the key is no good", "lane "+oregon.String()+": 401")
		m.Observe(worker.Event{Kind: worker.Resumed, At: time.Now(), Lane: oregon})
		check("it is good again", "<nil>")
	})
}

func scenes() []scene {
	one := func(s throttle.State) map[throttle.Lane]throttle.State {
		return map[throttle.Lane]throttle.State{oregon: s}
	}
	return []scene{
		{"the start", 800, func(*progress.Meter) {}},
		{"a ramp", 800, func(m *progress.Meter) {
			answer(m, 60, 12*time.Second, oregon)
			calling(m, 9)
			stand(m, worker.BoundRamp, one(throttle.State{Rate: 9.5, InFlight: 9, Waiting: 55, Reason: "grew"}))
		}},
		{"under way", 20_000, func(m *progress.Meter) {
			answer(m, 6200, 310*time.Second, oregon)
			refuse(m, oregon, 12, throttle.Throttled)
			refuse(m, oregon, 1, throttle.Unavailable)
			calling(m, 34)
			stand(m, worker.BoundQuota, one(throttle.State{Rate: 22.5, InFlight: 34, Waiting: 222, Reason: "cut: 429"}))
		}},
		{"closed", 800, func(m *progress.Meter) {
			answer(m, 60, 30*time.Second, oregon)
			refuse(m, oregon, 4, throttle.Unavailable)
			stand(m, worker.BoundCapacity, one(throttle.State{Rate: 0.5, Waiting: 64, Reason: "closed: Retry-After", ClosedUntil: time.Now().Add(90 * time.Second)}))
		}},
		{"paused", 800, func(m *progress.Meter) {
			answer(m, 60, 30*time.Second, oregon)
			m.Observe(worker.Event{Kind: worker.Paused, At: time.Now(), Lane: oregon, Err: errors.New("401: the key\x1b[2J is no good: 键 make another one, or sign in to the account again")})
			stand(m, worker.BoundCredential, one(throttle.State{Rate: 4, Waiting: 64}))
		}},
		{"parked", 800, func(m *progress.Meter) {
			answer(m, 60, 30*time.Second, oregon)
			m.Observe(worker.Event{Kind: worker.Parked, At: time.Now(), Err: fmt.Errorf("%w: $0.24 of the $0.25 are spent", worker.ErrParked)})
			stand(m, worker.BoundBudget, one(throttle.State{Rate: 4}))
		}},
		{"failures", 800, func(m *progress.Meter) {
			answer(m, 60, 30*time.Second, oregon)
			for range 7 {
				m.Observe(worker.Event{Kind: worker.Buried, At: time.Now(), Letter: &jobs.DeadLetter{Class: jobs.Refused}})
			}
			stand(m, worker.BoundEmpty, one(throttle.State{Rate: 4, InFlight: 3}))
		}},
		{"several lanes", 800, func(m *progress.Meter) {
			lanes := map[throttle.Lane]throttle.State{}
			var all []throttle.Lane
			for i, region := range []string{"us-west-2", "us-east-1", "us-east-2", "eu-west-1", "ap-southeast-2", "eu-north-1"} {
				lane := laneOf(region, []string{"xai.grok-4.3", "openai.gpt-oss-120b-with-a-rather-long-name\r\n模型"}[i%2])
				lanes[lane], all = throttle.State{Rate: 4 * float64(i), InFlight: i, Waiting: 10 * i, Reason: "grew"}, append(all, lane)
			}
			answer(m, 300, 60*time.Second, all...)
			stand(m, worker.BoundSlots, lanes)
		}},
		{"the end", 800, func(m *progress.Meter) {
			answer(m, 760, 38*time.Second, oregon)
			stand(m, worker.BoundDraining, one(throttle.State{Rate: 4}))
		}},
		{"nobody knows how many", 0, func(m *progress.Meter) { answer(m, 60, 30*time.Second, oregon) }},
	}
}

// show has a printer show the scene on a terminal, and returns what is seen, while it
// lasts and in the end.
func (s scene) show(t *testing.T, out *screen, colour bool) (during, after string) {
	t.Helper()
	m := progress.NewMeter()
	s.play(m)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	c := &progress.Console{Out: out, Mode: progress.Block, Size: out.size, Colour: colour}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		progress.Printer{Out: c, Total: s.total, Done: func() int64 { return 40 * min(s.total, 1) }, Budget: func() float64 { return 20 }}.Run(ctx, m)
	}()
	synctest.Wait()
	out.clean()
	during = out.String()
	cancel()
	<-ended
	out.clean()
	return during, out.String()
}

// TestBlock compares what is seen of some states on some terminals with a golden file.
func TestBlock(t *testing.T) {
	var got strings.Builder
	for _, width := range []int{40, 80, 120} {
		for _, s := range scenes() {
			synctest.Test(t, func(t *testing.T) {
				out := newScreen(t, width)
				during, after := s.show(t, out, false)
				fmt.Fprintf(&got, "-- %s, %d --\n%s", s.name, width, during)
				if after != during {
					fmt.Fprintf(&got, "  in the end\n%s", after)
				}
				if out.colours > 0 {
					t.Errorf("%s: %d colours, want none", s.name, out.colours)
				}
			})
		}
	}
	const golden = "testdata/blocks.txt"
	if *update {
		if err := os.WriteFile(golden, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got.String(), "\n")); diff != "" {
		t.Errorf("blocks (-want +got):\n%s", diff)
	}
}

// TestAnyWidth shows each state on terminals of any width: no line is wider than they
// are, with colours and without.
func TestAnyWidth(t *testing.T) {
	for _, width := range []int{1, 2, 3, 7, 12, 19, 26, 33, 47, 59, 64, 71, 93, 101, 139} {
		for _, s := range scenes() {
			synctest.Test(t, func(t *testing.T) {
				out := newScreen(t, width)
				during, after := s.show(t, out, width%2 == 0)
				for line := range strings.Lines(during + after) {
					if n := len([]rune(strings.TrimSuffix(line, "\n"))); n >= width && width > 1 {
						t.Errorf("%s at %d: line of %d: %q", s.name, width, n, line)
					}
				}
			})
		}
	}
}

// TestLinesMeanwhile logs while a block is shown, in whole lines and in parts of them.
func TestLinesMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := newScreen(t, 60)
		c := &progress.Console{Out: out, Mode: progress.Block, Size: out.size}
		log := slog.New(slog.NewTextHandler(c, nil))
		fmt.Fprintln(c, "before")
		m := progress.NewMeter()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		go func() {
			for i := range 10 {
				time.Sleep(1100 * time.Millisecond)
				log.Warn("rather long, so that it takes more than the one line that there is", "n", i)
				fmt.Fprint(c, "part ")
				time.Sleep(700 * time.Millisecond)
				fmt.Fprintf(c, "one\nand part two of %d", i)
				time.Sleep(10 * time.Millisecond)
				fmt.Fprintf(c, "\n")
				attempt(m, throttle.Accepted)
				m.Observe(worker.Event{Kind: worker.Stored, At: time.Now()})
			}
			fmt.Fprint(c, "the last, without an end")
		}()
		progress.Printer{Out: c, Total: 10}.Run(ctx, m)
		fmt.Fprintln(c)
		fmt.Fprintln(c, "after")
		got := strings.Split(out.String(), "\n")
		if got[0] != "before" || got[len(got)-2] != "after" || !strings.HasPrefix(got[len(got)-3], "the last, without an end") {
			t.Errorf("screen %q, want it to begin with before, and to end with what came last", got)
		}
		all := strings.Join(got, "\n")
		if n := strings.Count(all, "10/10"); n != 1 {
			t.Errorf("%d blocks are to be seen, want the last:\n%s", n, all)
		}
		for i := range 10 {
			if one := fmt.Sprintf("one line that there is\" n=%d\npart one\nand part two of %d\n", i, i); !strings.Contains(all, one) {
				t.Errorf("no %q in\n%s", one, all)
			}
		}
	})
}

// TestResize makes a terminal narrower and wider again while a block is on it.
func TestResize(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := newScreen(t, 120)
		c := &progress.Console{Out: out, Mode: progress.Block, Size: out.size}
		fmt.Fprintln(c, "before")
		m := progress.NewMeter()
		scenes()[2].play(m)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		go func() {
			for _, width := range []int{90, 47, 30, 120} {
				time.Sleep(3100 * time.Millisecond)
				out.narrow(width)
			}
		}()
		progress.Printer{Out: c, Total: 20_000}.Run(ctx, m)
		got := out.String()
		if !strings.HasPrefix(got, "before\n") || strings.Count(got, "6200/20000") != 1 {
			t.Errorf("screen after some sizes, want one block:\n%s", got)
		}
		out.clean()
	})
}

// TestPlainAndJSON compares lines for logs, and for scripts, with the facts.
func TestPlainAndJSON(t *testing.T) {
	for _, mode := range []progress.Mode{progress.Plain, progress.JSON, progress.Quiet} {
		synctest.Test(t, func(t *testing.T) {
			var out strings.Builder
			c := (&progress.Console{Out: &out}).Shows(mode)
			m := progress.NewMeter()
			ctx, cancel := context.WithTimeout(t.Context(), 35*time.Second)
			defer cancel()
			go func() {
				answer(m, 600, 30*time.Second, oregon)
				stand(m, worker.BoundQuota, map[throttle.Lane]throttle.State{oregon: {Rate: 22.5, Reason: "cut: 429"}})
			}()
			progress.Printer{Out: c, Total: 1000, Budget: func() float64 { return 20 }}.Run(ctx, m)
			lines := strings.SplitAfter(out.String(), "\n")
			lines = lines[:len(lines)-1]
			want := 3
			if mode == progress.Quiet {
				want = 0
			}
			if len(lines) != want {
				t.Fatalf("%d lines in 35 seconds, want %d: %q", len(lines), want, lines)
			}
			switch mode {
			case progress.Plain:
				if got := lines[1]; !strings.HasPrefix(got, "400/1000 (40%) · 20.") && !strings.HasPrefix(got, "399/1000") || !strings.Contains(got, " · $1.60 of $20.00 · ETA 25s–") {
					t.Errorf("line %q, want 400 of 1000, at $1.60, and an ETA from 25s on", got)
				}
			case progress.JSON:
				for _, line := range lines {
					var f progress.Facts
					if err := json.Unmarshal([]byte(line), &f); err != nil || f.Jobs != 1000 || f.Done == 0 || f.Usage.InputTokens != 3000*f.Stored || f.Budget != 20 || f.Cost.USD == 0 {
						t.Errorf("line %s (%v), want the facts", line, err)
					}
				}
			case progress.Block, progress.Quiet:
			}
		})
	}
}

// TestTask shows work with two steps, the second of which has a known end.
func TestTask(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		step := func() progress.Step {
			if d := int64(time.Since(start) / time.Second); d < 30 {
				return progress.Step{What: "reading ids", Unit: "ids", Done: 100 * d}
			}
			return progress.Step{What: "comparing", Unit: "shards", Done: int64(time.Since(start)/time.Second) - 30, Total: 256, More: "3000 ids"}
		}
		out := newScreen(t, 80)
		var lines, objects strings.Builder
		task := progress.NewTask(step)
		stop := task.Show(&progress.Console{Out: out, Mode: progress.Block, Size: out.size})
		others := []func(){
			progress.NewTask(step).Show(&progress.Console{Out: &lines}),
			progress.NewTask(step).Show(&progress.Console{Out: &objects, Mode: progress.JSON}),
			progress.NewTask(step).Show(&progress.Console{Out: newScreen(t, 80), Mode: progress.Quiet}),
		}
		for _, tt := range []struct {
			after time.Duration
			want  string
		}{
			{20 * time.Second, "2000 ids\nreading ids · 100 ids/s\n"},
			{90 * time.Second, "▕███████▋                         ▏  23 %  60/256 shards  ETA 2m30s–4m20s\ncomparing · 1.0 shards/s · 3000 ids\n"},
		} {
			time.Sleep(tt.after - time.Since(start) + 300*time.Millisecond)
			synctest.Wait()
			if diff := cmp.Diff(tt.want, out.String()); diff != "" {
				t.Errorf("screen after %v (-want +got):\n%s", tt.after, diff)
			}
		}
		stop()
		for _, stop := range others {
			stop()
		}
		if got := out.String(); got != "" {
			t.Errorf("screen in the end %q, want it clean", got)
		}
		got := strings.Split(lines.String(), "\n")
		if len(got) != 10 || got[1] != "reading ids: 2000 ids · 100 ids/s" || got[0] != "reading ids: 1000 ids · 100 ids/s" || got[8] != "comparing: 60/256 shards (23%) · 1.0 shards/s · 3000 ids · ETA 2m30s–4m20s" {
			t.Errorf("lines %q, want one every ten seconds", got)
		}
		var f progress.TaskFacts
		if err := json.NewDecoder(strings.NewReader(objects.String())).Decode(&f); err != nil || f.Done != 1000 || f.What != "reading ids" || f.Rate != 100 {
			t.Errorf("object %+v (%v), want 1000 ids at 100 a second", f, err)
		}
	})
}

// TestNewConsole asks the environment what to show.
func TestNewConsole(t *testing.T) {
	for _, tt := range []struct {
		terminal     bool
		term, colour string
		mode         progress.Mode
		coloured     bool
	}{
		{false, "xterm", "", progress.Plain, false},
		{true, "dumb", "", progress.Plain, false},
		{true, "xterm", "", progress.Block, true},
		{true, "xterm", "1", progress.Block, false},
	} {
		getenv := func(name string) string { return map[string]string{"TERM": tt.term, "NO_COLOR": tt.colour}[name] }
		c := progress.NewConsole(&strings.Builder{}, tt.terminal, getenv)
		if c.Mode != tt.mode || c.Colour != tt.coloured {
			t.Errorf("%+v: mode %d, colour %t", tt, c.Mode, c.Colour)
		}
		if again := progress.NewConsole(c, true, getenv); again != c {
			t.Errorf("a Console over a Console is another one")
		}
	}
}
