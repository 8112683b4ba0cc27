package progress_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"upwell/cmd/internal/progress"
	"upwell/jobs"
	"upwell/throttle"
	"upwell/worker"
)

func attempt(m *progress.Meter, o throttle.Outcome) {
	m.Observe(worker.Event{Kind: worker.Permitted, At: time.Now()})
	m.Observe(worker.Event{
		Kind: worker.Attempted, At: time.Now(), Outcome: o,
		Usage: jobs.Usage{InputTokens: 100, OutputTokens: 10}, CostUSD: 0.001,
	})
}

func TestMeter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := progress.NewMeter()
		for range 60 * 20 { // a minute at 20/s
			time.Sleep(50 * time.Millisecond)
			attempt(m, throttle.Accepted)
			m.Observe(worker.Event{Kind: worker.Stored, At: time.Now()})
		}
		attempt(m, throttle.Throttled)
		attempt(m, throttle.Unavailable)
		attempt(m, throttle.Unrelated)
		m.Observe(worker.Event{Kind: worker.Buried, Letter: &jobs.DeadLetter{Class: jobs.Refused}})
		m.Observe(worker.Event{Kind: worker.Permitted})
		c := m.Counts()
		if c.Rate < 19 || c.Rate > 21 {
			t.Errorf("Rate = %.1f, want 20", c.Rate)
		}
		got := fmt.Sprint(c.Answered, c.Stored, c.Refused, c.Throttled, c.Unavailable, c.Failed, c.Buried, c.InFlight, c.Settled(), c.Classes)
		if want := "1200 1200 2 1 1 1 1 1 1201 map[refused:1]"; got != want {
			t.Errorf("Counts = %s, want %s", got, want)
		}
		if c.Usage.InputTokens != 120300 || c.Cost.USD < 1.2029 || c.Cost.USD > 1.2031 {
			t.Errorf("usage %+v, cost %v, want 120300 tokens in, 1.203", c.Usage, c.Cost.USD)
		}
	})
}

// TestSpend adds amounts, some of which nobody knows, and turns.
func TestSpend(t *testing.T) {
	m := progress.NewMeter()
	for i, d := range []jobs.USD{0.25, jobs.UnknownUSD(), 0, 0.5} {
		turn := []jobs.Turn{"", jobs.Repair, jobs.Repair, jobs.Extension}[i]
		m.Observe(worker.Event{Kind: worker.Attempted, At: time.Now(), Outcome: throttle.Accepted, CostUSD: d, Attempt: jobs.Attempt{Turn: turn}})
	}
	m.Observe(worker.Event{Kind: worker.Attempted, At: time.Now(), Outcome: throttle.Throttled, Attempt: jobs.Attempt{Turn: jobs.Repair}})
	c := m.Counts()
	if c.Cost != (progress.Spend{USD: 0.75, Unknown: 1}) || c.Repairs != 2 || c.Extensions != 1 {
		t.Errorf("cost %+v, %d repairs, %d extensions, want $0.75 and one unknown, 2 and 1", c.Cost, c.Repairs, c.Extensions)
	}
	for s, want := range map[progress.Spend]string{
		{}: "$0", {USD: 0.75}: "$0.75", {USD: 0.75, Unknown: 2}: "$0.75, and 2 calls of unknown price",
		{Unknown: 2}: "unknown: give the prices with --prices",
	} {
		if got := s.String(); got != want {
			t.Errorf("%+v is %q, want %q", s, got, want)
		}
	}
	if f := progress.SummaryJSON(c, 2*time.Second); f.Cost != c.Cost || f.Repairs != 2 || f.Throttled != 1 || f.MeanRate != 2 || f.Seconds != 2 {
		t.Errorf("SummaryJSON = %+v, want what the counts are, and 2 answers a second", f)
	}
	rows := fmt.Sprint(progress.Summary(c, time.Second))
	for _, want := range []string{"{calls for repairs 2}", "{calls with more room 1}", "{cost $0.75, and 1 calls of unknown price}"} {
		if !strings.Contains(rows, want) {
			t.Errorf("summary %s, want %s in it", rows, want)
		}
	}
}

// A history of any length has the same number of points, and loses nothing.
func TestHistoryIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := progress.NewMeter()
		const n = 10_000
		for range n {
			time.Sleep(time.Second)
			attempt(m, throttle.Accepted)
		}
		history, width := m.History()
		var sum int64
		for _, b := range history {
			sum += b.Answered
		}
		if len(history) > 512 || sum != n || time.Duration(len(history))*width < n*time.Second {
			t.Errorf("%d points of %v with %d answers, want at most 512 with %d over %ds", len(history), width, sum, n, n)
		}
	})
}

func TestPrinter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := progress.NewMeter()
		var out strings.Builder
		ctx, cancel := context.WithTimeout(t.Context(), 25*time.Second)
		defer cancel()
		p := progress.Printer{Out: &out, Total: 100, Done: func() int64 { return 40 }}
		go func() {
			for range 20 {
				time.Sleep(time.Second)
				attempt(m, throttle.Accepted)
				m.Observe(worker.Event{Kind: worker.Stored, At: time.Now()})
			}
		}()
		p.Run(ctx, m)
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		if len(lines) != 2 || !strings.HasPrefix(lines[0], "50/100 (50%) · 0.9/s") && !strings.HasPrefix(lines[0], "49/100 (49%)") || !strings.Contains(lines[0], "ETA") {
			t.Errorf("Run printed %q, want a line every ten seconds", lines)
		}
		if p.Facts(m).ETA == nil {
			t.Error("no ETA after 25 seconds, want one")
		}
		m.Observe(worker.Event{Kind: worker.Paused, Err: errors.New("the key is no good")})
		if line := p.Line(p.Facts(m)); !strings.Contains(line, "PAUSED: the key is no good") {
			t.Errorf("Line = %q, want it to say that it is paused and why", line)
		}
		if eta := p.Facts(m).ETA; eta != nil {
			t.Errorf("while it is paused: %v, want no ETA", eta)
		}
	})
}

func ExampleRamp() {
	var history []progress.Point
	for i := range 64 {
		history = append(history, progress.Point{Answered: int64(min(i, 32)) / 4, Refused: int64(i) / 63})
	}
	var out strings.Builder
	progress.Ramp(&out, history, time.Second, nil)
	for line := range strings.Lines(out.String()) {
		fmt.Println(strings.TrimRight(line, " \n"))
	}
	// Output:
	//       8 │                               ▄████████████████████████████████
	//         │                           ▄████████████████████████████████████
	//         │                       ▄████████████████████████████████████████
	//         │                   ▄████████████████████████████████████████████
	//         │               ▄████████████████████████████████████████████████
	//         │           ▄████████████████████████████████████████████████████
	//         │       ▄████████████████████████████████████████████████████████
	//       1 │   ▄████████████████████████████████████████████████████████████
	//         └────────────────────────────────────────────────────────────────
	//          0                                                           1m4s
	//   429s                                                                  1
}
