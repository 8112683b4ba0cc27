package weather

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"upwell/worker/mantle/mantlesim/capacity"
)

// pace is how often the capacity of a random endpoint changes: often beside the
// minute in which it wanders fastest.
const pace = 5 * time.Second

// Random returns an endpoint drawn at random, an hour of 1 to 150 calls/s with a
// bucket of 0.7 to 60 s (both log-uniform). Half are limited in tokens, with
// estimates up to 30 % wrong. All wander, as an Ornstein-Uhlenbeck process of the
// logarithm does (σ up to 0.2, time constant 1 to 15 min); up to two steps change
// them by 0.4 to 2.5; a third follow a sine besides; half refuse up to 2 s late in
// the mean, half refuse up to 0.2 % for no reason, and a third have an outage of 20
// to 120 s.
func Random(seed uint64) Scenario {
	rng := rand.New(rand.NewPCG(seed, 0))
	between := func(lo, hi float64) float64 { return lo + (hi-lo)*rng.Float64() }
	log := func(lo, hi float64) float64 { return lo * math.Exp(rng.Float64()*math.Log(hi/lo)) }
	chance := func(p float64) bool { return rng.Float64() < p }

	base, burst := log(1, 150), log(0.7, 60)
	s := Scenario{Name: fmt.Sprint("random-", seed), Target: target(97, 1)}
	first := map[string]capacity.Flow{"burst": capacity.Constant(burst)}
	limit, worth := "calls", 1.
	if chance(0.5) {
		s.Unit, s.Wrong = "tpm", between(0, 0.3)
		limit, worth = "tpm", tpm(1)
		first = map[string]capacity.Flow{"tpmburst": capacity.Constant(burst)}
	}
	sd, tau := between(0, 0.2), between(60, 900)
	type jump struct {
		at time.Duration
		by float64
	}
	var jumps []jump
	for range rng.IntN(3) {
		jumps = append(jumps, jump{seconds(between(600, 3400)), log(0.4, 2.5)})
	}
	swing, period, phase := 0., 1., 0.
	if chance(1. / 3) {
		swing, period, phase = between(0.1, 0.5), between(300, 1800), between(0, 2*math.Pi)
	}
	if chance(0.5) {
		s.Late = seconds(between(0, 2))
	}
	if chance(0.5) {
		first["noise"] = capacity.Constant(between(0, 0.002))
	}
	var out Span
	if chance(1. / 3) {
		out.From = seconds(between(600, 3300)).Truncate(pace)
		out.To = out.From + seconds(between(20, 120)).Round(pace)
	}

	x := sd * rng.NormFloat64()
	keep := math.Exp(-pace.Seconds() / tau)
	for t := time.Duration(0); t < s.length(); t += pace {
		c := base * math.Exp(x) * (1 + swing*math.Sin(phase+2*math.Pi*t.Seconds()/period))
		for _, j := range jumps {
			if t >= j.at {
				c *= j.by
			}
		}
		step := capacity.Step{At: t, Set: map[string]capacity.Flow{limit: capacity.Constant(c * worth)}}
		if t == 0 {
			maps.Copy(step.Set, first)
			s.Nominal = c
		}
		if t == out.From && out.To > 0 {
			step.Set["refuse"] = capacity.Constant(1)
		}
		if t == out.To && out.To > 0 {
			step.Set["refuse"] = capacity.Constant(0)
		}
		s.Script = append(s.Script, step)
		s.Peak = max(s.Peak, c)
		x = keep*x + sd*math.Sqrt(1-keep*keep)*rng.NormFloat64()
	}
	s.About = fmt.Sprintf("%.3g calls/s as %s, bucket %.2g s", base, limit, burst)
	return s
}

// Quantile returns the q-quantile of a measure of results.
func Quantile(all []Result, q float64, of func(Result) float64) float64 {
	v := make([]float64, len(all))
	for i, r := range all {
		v[i] = of(r)
	}
	slices.Sort(v)
	return v[int(math.Round(q*float64(len(v)-1)))]
}
