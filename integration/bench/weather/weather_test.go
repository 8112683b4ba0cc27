package weather_test

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"upwell/integration/bench/weather"
	"upwell/throttle"
	"upwell/worker/mantle/mantlesim/capacity"
)

// TestTargets holds the limiter to its targets in every scenario, as go run
// ./integration/bench limiter does. In short mode it leaves out what takes longest,
// and runs the rest once, which may miss by chance what the mean of three meets.
func TestTargets(t *testing.T) {
	seeds := 3
	if testing.Short() {
		seeds = 1
	}
	for _, s := range append(weather.Scenarios(), weather.Also()...) {
		t.Run(s.Name, func(t *testing.T) {
			if testing.Short() {
				if s.Workers > 16 || s.Nominal > 50 {
					t.Skip("takes seconds")
				}
				s.Target.Used -= 0.015
				s.Target.Refused *= 1.15
				s.Target.Back *= 2
				s.Target.Jain -= 0.05
			}
			t.Parallel()
			var runs []weather.Result
			for seed := range seeds {
				runs = append(runs, weather.Run(&s, weather.Upwell(), uint64(1+seed)))
			}
			r := weather.Mean(runs)
			text := fmt.Sprintf("%s: used %.1f %%, refused %.2f %%, back after %v, Jain %.3f", s.About, 100*r.Used, 100*r.Refused, r.Back, r.Jain)
			if missed := s.Target.Missed(r); missed != nil {
				t.Errorf("%s; missed %q of %+v", text, missed, s.Target)
			} else {
				t.Log(text)
			}
		})
	}
}

// TestSame shows that a run depends on nothing but its arguments.
func TestSame(t *testing.T) {
	few := weather.Scenario{
		Name: "fleet", Script: capacity.MustScript("calls=20 burst=5"), Nominal: 20, Workers: 8, Apart: 10 * time.Second, Fleet: true, Length: 20 * time.Minute,
	}
	kinds := []weather.Kind{weather.Upwell()}
	if !testing.Short() {
		kinds = append(kinds, weather.Rivals()...)
	}
	for _, kind := range kinds {
		for _, s := range []weather.Scenario{weather.Portrait(), weather.Random(3), few} {
			one, other := weather.Run(&s, kind, 7).Log, weather.Run(&s, kind, 7).Log
			for i := range one {
				if one[i] != other[i] {
					t.Errorf("%s, %s: two runs differ in second %d: %+v and %+v", kind.Name, s.Name, i, one[i], other[i])
					break
				}
			}
		}
	}
}

// steady sends at a fixed rate and remembers how its calls ended.
type steady struct {
	every   time.Duration
	next    time.Time
	ended   map[throttle.Outcome]int
	latency map[throttle.Outcome]time.Duration // in sum
}

func (l *steady) Admit(now time.Time, _ *weather.Call) (bool, time.Time) {
	if now.Before(l.next) {
		return false, l.next
	}
	l.next = now.Add(l.every)
	return true, now
}

func (l *steady) Done(now time.Time, c *weather.Call, o throttle.Outcome, _ time.Duration) {
	l.ended[o]++
	l.latency[o] += now.Sub(c.Sent)
}

func (l *steady) Rate() float64 { return 1 / l.every.Seconds() }

// at returns a kind that sends so many calls per second, and its last limiter.
func at(rate float64) (weather.Kind, **steady) {
	last := new(*steady)
	return weather.Kind{Name: "steady", New: func(*weather.Scenario, *rand.Rand) weather.Limiter {
		*last = &steady{
			every: time.Duration(float64(time.Second) / rate),
			ended: map[throttle.Outcome]int{}, latency: map[throttle.Outcome]time.Duration{},
		}
		return *last
	}}, last
}

// TestMeasures compares what a run measures with what it has to be.
func TestMeasures(t *testing.T) {
	const minute = time.Minute
	backlog := weather.Load{From: 30 * minute, Rate: math.Inf(1)}
	for _, tc := range []struct {
		weather.Scenario
		script        string
		rate          float64
		used, refused float64 // percent
		margin        float64 // of both
	}{
		{script: "calls=10 burst=5", rate: 5, used: 50, refused: 0, margin: 0.1},
		{script: "calls=10 burst=5", rate: 20, used: 100, refused: 50, margin: 0.2},
		{script: "calls=10 window=60", rate: 20, used: 100, refused: 50, margin: 0.1},
		{script: "calls=20; 30m calls=5", rate: 5, used: 40, refused: 0, margin: 0.1},
		{script: "calls=10~5/15m", rate: 5, used: 50, refused: 0, margin: 0.1},
		{script: "calls=10; 30m refuse=1; 36m refuse=0", rate: 10, used: 100, refused: 10, margin: 0.1},
		{script: "calls=10 noise=0.1", rate: 5, used: 45, refused: 10, margin: 0.5},
		{script: "calls=10", rate: 10, used: 100, refused: 0, margin: 1, Scenario: weather.Scenario{
			Load: []weather.Load{{Rate: 3}, backlog},
		}},
		{script: "calls=10", rate: 5, used: 50, refused: 0, margin: 1, Scenario: weather.Scenario{
			Load: []weather.Load{{Rate: 0}, backlog},
		}},
		{script: "calls=10", rate: 2, used: 70, refused: 0, margin: 0.1, Scenario: weather.Scenario{ // 5 minutes each with 1 to 3, and 45 with 4
			Workers: 4, Apart: 5 * minute,
		}},
		{script: "tpm=1332000", rate: 5, used: 50, refused: 0, margin: 2, Scenario: weather.Scenario{Unit: "tpm"}},
		{script: "otpm=373200", rate: 5, used: 50, refused: 0, margin: 2, Scenario: weather.Scenario{Unit: "otpm"}},
		{script: "conc=135", rate: 5, used: 50, refused: 0, margin: 2, Scenario: weather.Scenario{Unit: "conc"}},
		{script: "conc=100 queue=50 wait=5", rate: 20, used: 100, refused: 63, margin: 2, Scenario: weather.Scenario{Unit: "conc"}},
	} {
		s := tc.Scenario
		s.Script, s.Nominal = capacity.MustScript(tc.script), 10
		kind, last := at(tc.rate)
		r := weather.Run(&s, kind, 1)
		if math.Abs(100*r.Used-tc.used) > tc.margin || math.Abs(100*r.Refused-tc.refused) > tc.margin {
			t.Errorf("%s at %v/s: used %.2f %%, refused %.2f %%; want %v and %v", tc.script, tc.rate, 100*r.Used, 100*r.Refused, tc.used, tc.refused)
		}
		if s.Workers > 1 {
			continue
		}
		sum, told := r.Log.Sum(0, time.Hour), *last
		refused := told.ended[throttle.Throttled] + told.ended[throttle.Unavailable]
		if int(sum.Refused) != refused || int(sum.Accepted) < told.ended[throttle.Accepted] {
			t.Errorf("%s at %v/s: %v refused and %v accepted, the limiter was told of %d and %d", tc.script, tc.rate,
				sum.Refused, sum.Accepted, refused, told.ended[throttle.Accepted])
		}
	}
}

// TestCodes shows which refusals are 429 and which 503, and how long each takes.
func TestCodes(t *testing.T) {
	for _, tc := range []struct {
		script string
		late   time.Duration
		want   throttle.Outcome
		mean   time.Duration // from sending to refusal
	}{
		{"calls=1", 0, throttle.Throttled, 50 * time.Millisecond},
		{"calls=1", 2 * time.Second, throttle.Throttled, 2050 * time.Millisecond},
		{"tpm=6000", 0, throttle.Throttled, 50 * time.Millisecond},
		{"otpm=6000 tpmburst=1", 0, throttle.Throttled, 50 * time.Millisecond},
		{"calls=100 noise=0.1", 0, throttle.Throttled, 50 * time.Millisecond},
		{"conc=10", 0, throttle.Unavailable, 50 * time.Millisecond},
		{"conc=1 queue=1000 wait=3", 0, throttle.Unavailable, 3050 * time.Millisecond},
		{"refuse=0.5", 0, throttle.Unavailable, 50 * time.Millisecond},
	} {
		s := weather.Scenario{Script: capacity.MustScript(tc.script), Late: tc.late, Length: 20 * time.Minute}
		kind, last := at(10)
		weather.Run(&s, kind, 1)
		got := *last
		for _, o := range []throttle.Outcome{throttle.Throttled, throttle.Unavailable} {
			if some := got.ended[o] > 0; some != (o == tc.want) {
				t.Errorf("%s: %d %v", tc.script, got.ended[o], o)
			}
		}
		mean := got.latency[tc.want] / time.Duration(max(1, got.ended[tc.want]))
		if d := mean - tc.mean; d.Abs() > tc.mean/10 {
			t.Errorf("%s late %v: refusals take %v in the mean, want %v", tc.script, tc.late, mean, tc.mean)
		}
	}
}

// A watch is a limiter that adds up the jobs it sends.
type watch struct {
	steady
	sum   throttle.Cost // really
	guess throttle.Cost
	n     int
}

func (l *watch) Admit(now time.Time, c *weather.Call) (bool, time.Time) {
	ok, again := l.steady.Admit(now, c)
	if ok {
		l.sum.Input += c.Used.Input
		l.sum.Output += c.Used.Output
		l.guess.Input += c.Cost.Input
		l.guess.Output += c.Cost.Output
		l.n++
	}
	return ok, again
}

// TestMeans compares the workload's means with the constants that are to be them.
func TestMeans(t *testing.T) {
	kind, last := at(100)
	steadily := kind.New
	var w *watch
	kind.New = func(s *weather.Scenario, rng *rand.Rand) weather.Limiter {
		w = &watch{steady: *steadily(s, rng).(*steady)}
		return w
	}
	s := weather.Scenario{Script: capacity.MustScript("calls=1000"), Length: time.Hour}
	weather.Run(&s, kind, 1)
	n := float64(w.n)
	for _, tc := range []struct {
		what      string
		got, want float64
	}{
		{"size", float64(w.guess.Input+w.guess.Output) / n, weather.MeanSize},
		{"tokens used", float64(w.sum.Input+w.sum.Output) / n, weather.MeanUsed},
		{"tokens generated", float64(w.sum.Output) / n, weather.MeanOutput},
		{"seconds", (*last).latency[throttle.Accepted].Seconds() / float64((*last).ended[throttle.Accepted]), weather.MeanTook},
	} {
		if math.Abs(tc.got/tc.want-1) > 0.005 {
			t.Errorf("mean %s of %d jobs = %.2f, want %v", tc.what, w.n, tc.got, tc.want)
		}
	}
}

// A pupil is a Member that counts what it sees on the board.
type pupil struct {
	steady
	failed, raced, wrote int
}

func (p *pupil) Exchange(now time.Time, b *weather.Board) time.Time {
	again := now.Add(10 * time.Second)
	for {
		data, version, err := b.Read(context.Background())
		if err != nil {
			p.failed++
			return again
		}
		if ok, err := b.Write(context.Background(), append(data, 'x'), version); err != nil {
			p.failed++
		} else if ok {
			p.wrote++
			return again
		}
		p.raced++
	}
}

// TestBoard shows that no write is lost unread, that who comes second within the
// time of a round trip is told so, and that the board may be out of reach.
func TestBoard(t *testing.T) {
	var all []*pupil
	kind := weather.Kind{New: func(*weather.Scenario, *rand.Rand) weather.Limiter {
		all = append(all, &pupil{steady: steady{every: time.Minute, ended: map[throttle.Outcome]int{}, latency: map[throttle.Outcome]time.Duration{}}})
		return all[len(all)-1]
	}}
	s := weather.Scenario{
		Script: capacity.MustScript("calls=10"), Workers: 2, Fleet: true,
		Lost: weather.Span{From: 10 * time.Minute, To: 20 * time.Minute},
	}
	weather.Run(&s, kind, 1)
	for i, p := range all {
		if p.wrote != 300 || p.failed != 60 || p.raced != 300*i {
			t.Errorf("member %d wrote %d times, failed %d and was late %d; want 300, 60 and %d", i, p.wrote, p.failed, p.raced, 300*i)
		}
	}
}

// TestRandom looks at what is drawn.
func TestRandom(t *testing.T) {
	const n = 300
	tokens, late, out := 0, 0, 0
	for seed := range uint64(n) {
		s := weather.Random(seed)
		if _, err := capacity.New(s.Script); err != nil {
			t.Fatalf("%s: %v", s.Name, err)
		}
		if s.Nominal < 0.2 || s.Peak > 150*2.5*2.5*3 {
			t.Errorf("%s: from %v to %v calls/s", s.Name, s.Nominal, s.Peak)
		}
		if s.Unit == "tpm" {
			tokens++
		}
		if s.Late > 0 {
			late++
		}
		for _, step := range s.Script {
			if step.Set["refuse"].From == 1 {
				out++
			}
		}
	}
	for what, share := range map[string][2]float64{"tokens": {float64(tokens), 0.5}, "late": {float64(late), 0.5}, "outage": {float64(out), 1. / 3}} {
		if math.Abs(share[0]/n-share[1]) > 0.1 {
			t.Errorf("%s: %v of %d, want %.2f of them", what, share[0], n, share[1])
		}
	}
}
