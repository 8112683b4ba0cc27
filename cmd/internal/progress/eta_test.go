package progress_test

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"upwell/cmd/internal/progress"
)

// A load is how jobs come to their end: so many a second at a time, in bursts of burst
// on average.
type load struct {
	name  string
	rate  func(*rand.Rand) func(t float64) float64
	burst float64 // 0 for one
	total int64
	from  float64 // the time from which on the capacity is what it is
}

func constant(rate float64) func(*rand.Rand) func(float64) float64 {
	return func(*rand.Rand) func(float64) float64 { return func(float64) float64 { return rate } }
}

// wavering is a rate with slow noise of its own: of a part around its mean, which is
// another after so many seconds.
func wavering(mean, part, seconds float64) func(*rand.Rand) func(float64) float64 {
	return func(r *rand.Rand) func(float64) float64 {
		x, last := r.NormFloat64(), 0.0
		return func(t float64) float64 {
			keep := math.Exp(-(t - last) / seconds)
			x, last = keep*x+math.Sqrt(1-keep*keep)*r.NormFloat64(), t
			return max(0, mean*(1+part*x))
		}
	}
}

func poisson(r *rand.Rand, mean float64) (n int64) {
	for limit, p := math.Exp(-mean), r.Float64(); p > limit; p *= r.Float64() {
		n++
	}
	return n
}

const step = 250 * time.Millisecond

// ends returns how many jobs come to their end in each step, until all have.
func (l load) ends(r *rand.Rand) (steps []int64) {
	rate := l.rate(r)
	for left := l.total; left > 0; {
		var n int64
		for range poisson(r, rate(float64(len(steps))*step.Seconds())*step.Seconds()/max(l.burst, 1)) {
			n += 1 + int64(math.Log(1-r.Float64())/math.Log(1-1/max(l.burst, 1+1e-9)))
		}
		n = min(n, left)
		steps, left = append(steps, n), left-n
	}
	return steps
}

// A verdict is how good ranges were.
type verdict struct{ looks, within, open, unknown, width float64 }

// judge looks at runs at some places between a tenth and nine tenths of the way.
func (l load) judge(runs int) (v verdict) {
	r := rand.New(rand.NewPCG(1, 2))
	for range runs {
		steps := l.ends(r)
		start := time.Time{}.Add(time.Hour)
		pace := progress.NewPace(start, 0)
		var done int64
		next := 0.1
		for i, n := range steps {
			at := start.Add(time.Duration(i+1) * step)
			done += n
			pace.Look(at, done)
			if float64(done) < next*float64(l.total) || at.Sub(start).Seconds() < l.from {
				continue
			}
			if next += 0.2; next > 1.1 {
				break
			}
			v.looks++
			left := time.Duration(len(steps)-1-i) * step
			eta := pace.ETA(l.total - done)
			if eta == nil {
				v.unknown++
				continue
			}
			soonest, latest := eta.Rounded()
			if latest == 0 {
				v.open++
				continue
			}
			if soonest <= left && left <= latest {
				v.within++
			}
			v.width += (latest - soonest).Seconds() / 2 / max(left.Seconds(), 1)
		}
	}
	known := v.looks - v.open - v.unknown
	v.within, v.width, v.open, v.unknown = v.within/known, v.width/known, v.open/v.looks, v.unknown/v.looks
	return v
}

// TestETACoverage looks at runs whose capacity stays what it is, and at such whose
// capacity has changed.
func TestETACoverage(t *testing.T) {
	after := func(at, before, rate float64) func(*rand.Rand) func(float64) float64 {
		return func(*rand.Rand) func(float64) float64 {
			return func(t float64) float64 {
				if t < at {
					return before
				}
				return rate
			}
		}
	}
	ramp := func(*rand.Rand) func(float64) float64 {
		return func(t float64) float64 { return 2 + 18*min(t/60, 1) }
	}
	stall := func(*rand.Rand) func(float64) float64 {
		return func(t float64) float64 {
			if t > 200 && t < 260 {
				return 0
			}
			return 20
		}
	}
	for _, tt := range []struct {
		load
		within, width float64 // at least, and at most
	}{
		{load{name: "20/s at random", rate: constant(20), total: 12_000}, 0.95, 0.10},
		{load{name: "2/s at random", rate: constant(2), total: 1_200}, 0.92, 0.25},
		{load{name: "6 a minute", rate: constant(0.1), total: 200}, 0.90, 0.60},
		{load{name: "20/s in bursts of 10", rate: constant(20), burst: 10, total: 12_000}, 0.88, 0.30},
		{load{name: "20/s in bursts of 100", rate: constant(20), burst: 100, total: 12_000}, 0.86, 1},
		{load{name: "wavers by 20 % in 10 s", rate: wavering(20, 0.2, 10), total: 12_000}, 0.84, 0.25},
		{load{name: "wavers by 30 % in 60 s", rate: wavering(20, 0.3, 60), total: 24_000}, 0.65, 0.40},
		{load{name: "a ramp of 60 s", rate: ramp, total: 12_000, from: 20}, 0.93, 0.20},
		{load{name: "60 s after a drop", rate: after(300, 20, 8), total: 12_000, from: 360}, 0.92, 0.20},
		{load{name: "60 s after a stall", rate: stall, total: 12_000, from: 320}, 0.92, 0.50},
		{load{name: "10 s after a drop", rate: after(300, 20, 8), total: 12_000, from: 310}, 0.50, 0.25},
	} {
		v := tt.judge(300)
		t.Logf("%-24s within %.1f %%, ±%.1f %%, no end to it %.1f %%, unknown %.1f %%", tt.name, 100*v.within, 100*v.width, 100*v.open, 100*v.unknown)
		if v.within < tt.within || v.width > tt.width || v.open+v.unknown > 0.01 {
			t.Errorf("%s: %.1f %% are within ±%.1f %%, want %.0f %% within ±%.0f %%, and an end to it",
				tt.name, 100*v.within, 100*v.width, 100*tt.within, 100*tt.width)
		}
	}
}

// TestETA says what there is to be known of some pasts.
func TestETA(t *testing.T) {
	for _, tt := range []struct {
		name string
		ends func(second int) int64
		long int // seconds
		left int64
		want string
	}{
		{"nothing yet", func(int) int64 { return 0 }, 600, 100, "ETA unknown yet"},
		{"too soon", func(int) int64 { return 20 }, 3, 100, "ETA unknown yet"},
		{"three in an hour", func(s int) int64 { return int64(1 - min(s%1200, 1)) }, 3600, 100, "ETA unknown yet"},
		{"nothing left", func(int) int64 { return 20 }, 600, 0, "ETA unknown yet"},
		{"even", func(int) int64 { return 20 }, 600, 12_000, "ETA 9m30s–10m30s"},
		{"the end", func(int) int64 { return 20 }, 600, 20, "ETA 1s–2s"},
		{"a stall", func(s int) int64 { return 20 * int64(1-min(s/500, 1)) }, 560, 12_000, "ETA 10m30s or much more"},
		{"days", func(s int) int64 { return int64(1 - min(s%10, 1)) }, 3600, 60_000, "ETA 152h–183h"},
	} {
		start := time.Time{}.Add(time.Hour)
		p := progress.NewPace(start, 0)
		var done int64
		for s := range tt.long {
			done += tt.ends(s)
			p.Look(start.Add(time.Duration(s+1)*time.Second), done)
		}
		if got := p.ETA(tt.left).String(); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

// TestPace compares rates with counts, over a time in which points become coarser.
func TestPace(t *testing.T) {
	start := time.Time{}.Add(time.Hour)
	p := progress.NewPace(start, 1000)
	if p.PerSecond() != 0 {
		t.Errorf("PerSecond before a look = %v, want 0", p.PerSecond())
	}
	at, done := start, int64(1000)
	for i := range 20_000 {
		at, done = at.Add(step), done+10
		p.Look(at, done)
		if got := p.PerSecond(); got < 35 || got > 45 {
			t.Fatalf("PerSecond after %d looks = %.1f, want 40", i+1, got)
		}
	}
	p.Look(at, done+1000) // at the same time: there is nothing to be learned
	if got := p.PerSecond(); got < 35 || got > 45 {
		t.Errorf("PerSecond = %.1f, want 40", got)
	}
	seen := progress.NewPast(start, start.Add(4000*time.Second))
	for i := range 4000 {
		seen.Ended(start.Add(time.Duration(1000+i) * time.Second)) // some are in the future
	}
	seen.Ended(start.Add(-time.Second))
	if got := seen.PerSecond(); got < 0.8 || got > 1.2 {
		t.Errorf("PerSecond of one a second = %.1f", got)
	}
	if got := seen.ETA(3600).String(); got != "ETA 57m–1h5m" {
		t.Errorf("of one a second, 3600 more: %q", got)
	}
}
