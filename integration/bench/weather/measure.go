package weather

import (
	"math"
	"time"

	"upwell/throttle"
)

// A Second is what one second of a run was like.
type Second struct {
	Capacity float64 // units per second, but no more than jobs came; see Scenario.Unit
	Ideal    float64 // calls per second that an endpoint that grows could have grown to
	Admitted float64 // units
	Accepted float64 // calls
	Sent     float64 // calls
	Refused  float64 // refusals that arrived
	Allowed  float64 // calls per second, by all limiters together
	Reason   string  // for that, as the first worker gives it
}

// A Log is a run by the second.
type Log []Second

// Sum adds up the seconds of a span, but for Reason.
func (l Log) Sum(from, to time.Duration) (sum Second) {
	a := min(int(from/time.Second), len(l))
	b := min(int(to/time.Second), len(l))
	for i := a; i < b; i++ {
		s := &l[i]
		sum.Capacity += s.Capacity
		sum.Ideal += s.Ideal
		sum.Admitted += s.Admitted
		sum.Accepted += s.Accepted
		sum.Sent += s.Sent
		sum.Refused += s.Refused
		sum.Allowed += s.Allowed
	}
	return sum
}

// A Result is what came of a run, or the mean of several.
type Result struct {
	Used     float64 // admitted as part of the capacity
	UsedWarm float64 // the same after the warm-up
	Refused  float64 // as part of all attempts
	Jain     float64 // fairness of workers over the last third; 1 is perfect, 1/n one has all
	Ideal    float64 // admitted as part of what the endpoint could have grown to, if it grows

	// Back is how long after the Change until at least 90 % of the capacity was
	// used for a window. If capacity had fallen, Calm is how long until less than
	// 2 % of the calls were refused for a window.
	Back, Calm time.Duration

	Log Log // nil in a mean
}

// second returns where to count what happens at t.
func (r *sim) second(t time.Duration) *Second { return &r.log[t/time.Second] }

// credit counts a call that has been admitted, in units, and returns how many.
func (r *sim) credit(c *Call, took time.Duration) (amount float64) {
	s := r.second(r.now)
	s.Accepted++
	switch r.unit() {
	case "calls":
		s.Admitted++
		return 1
	case "tpm":
		amount = tokens(c.Used)
		s.Admitted += amount
		return amount
	case "otpm":
		r.spread(float64(c.Used.Output), took)
		return float64(c.Used.Output)
	case "conc":
		r.spread(took.Seconds(), took)
		return took.Seconds()
	default:
		panic("weather: no unit " + r.Unit)
	}
}

func tokens(c throttle.Cost) float64 { return float64(c.Input + c.Output) }

// spread counts an amount evenly over a time from now on.
func (r *sim) spread(amount float64, took time.Duration) {
	rate := amount / took.Seconds()
	end := min(r.now+took, r.length())
	for t := r.now; t < end; {
		next := min(t.Truncate(time.Second)+time.Second, end)
		r.second(t).Admitted += rate * (next - t).Seconds()
		t = next
	}
}

// score measures a run that is over.
func (r *sim) score() Result {
	whole, warm := r.log.Sum(0, r.length()), r.log.Sum(r.warm(), r.length())
	res := Result{
		Used:     whole.Admitted / whole.Capacity,
		UsedWarm: warm.Admitted / warm.Capacity,
		Refused:  whole.Refused / max(1, whole.Sent),
		Log:      r.log,
	}
	if whole.Ideal > 0 {
		res.Ideal = whole.Admitted / whole.Ideal
	}
	if r.Change > 0 {
		res.Back, res.Calm = r.back()
	}
	sum, squares := 0., 0.
	for _, w := range r.workers {
		sum += w.share
		squares += w.share * w.share
	}
	if squares > 0 {
		res.Jain = sum * sum / squares / float64(len(r.workers))
	}
	return res
}

// back measures Result.Back and Result.Calm.
func (r *sim) back() (back, calm time.Duration) {
	const step = time.Second
	after := r.log.Sum(r.Change+5*step, r.Change+6*step).Capacity
	w := window(r.unit(), after)
	until := func(good func(Second) bool) time.Duration {
		for t := r.Change; t+w <= r.length(); t += step {
			if good(r.log.Sum(t, t+w)) {
				return t - r.Change
			}
		}
		return r.After()
	}
	back = until(func(s Second) bool { return s.Admitted >= 0.9*s.Capacity })
	if after < r.log.Sum(r.Change-5*step, r.Change-4*step).Capacity {
		calm = until(func(s Second) bool { return s.Refused < 0.02*s.Sent })
	}
	return back, calm
}

// window is how long a window has to be so that chance alone does not decide
// whether it holds 90 % of its capacity: 10 s, or longer where 20 calls take
// longer, or where a few large calls make up much of the tokens.
func window(unit string, capacity float64) time.Duration {
	switch unit {
	case "calls":
		return seconds(math.Ceil(clip(20/capacity, 10, 60)))
	case "conc":
		return 10 * time.Second
	default:
		return 20 * time.Second
	}
}

// Mean returns the mean of results, without a Log.
func Mean(all []Result) (mean Result) {
	n := float64(len(all))
	var back, calm float64
	for _, r := range all {
		mean.Used += r.Used / n
		mean.UsedWarm += r.UsedWarm / n
		mean.Refused += r.Refused / n
		mean.Jain += r.Jain / n
		mean.Ideal += r.Ideal / n
		back += r.Back.Seconds() / n
		calm += r.Calm.Seconds() / n
	}
	mean.Back, mean.Calm = seconds(back), seconds(calm)
	return mean
}

// Missed returns which parts of a target a result misses, in words; none if it
// meets the target.
func (t Target) Missed(r Result) (missed []string) {
	if r.Used < t.Used {
		missed = append(missed, "used")
	}
	if t.Refused > 0 && r.Refused > t.Refused {
		missed = append(missed, "refused")
	}
	if t.Back > 0 && r.Back > t.Back {
		missed = append(missed, "back")
	}
	if r.Jain < t.Jain {
		missed = append(missed, "Jain")
	}
	return missed
}
