package mantlesim

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Resources, as [Step] explains them.
const (
	resCalls  = "calls"
	resBurst  = "burst"
	resTokens = "tpm"
	resDepth  = "tpmburst"
	resSlots  = "conc"
	resQueue  = "queue"
	resWait   = "wait"
	resOthers = "other"
	resRefuse = "refuse"
	resSlow   = "slow"
)

// queueWait is the default of "wait". AWS says only that a request "may be briefly
// queued"; gateways report 503 after 10 to 20 s.
const queueWait = 20

var resources = []string{resCalls, resBurst, resTokens, resDepth, resSlots, resQueue, resWait, resOthers, resRefuse, resSlow}

// A Flow is an amount that depends on the time since its step.
type Flow struct {
	From, To float64
	Over     time.Duration // zero: From for good
	Wave     bool          // swing To around From, once per Over
}

// Constant returns a flow of v.
func Constant(v float64) Flow { return Flow{From: v} }

// Ramp returns a flow that moves from one amount to another in a straight line
// and stays there.
func Ramp(from, to float64, over time.Duration) Flow { return Flow{From: from, To: to, Over: over} }

// Sine returns a flow that starts at mid, rises first, and swings by amplitude.
func Sine(mid, amplitude float64, period time.Duration) Flow {
	return Flow{From: mid, To: amplitude, Over: period, Wave: true}
}

// at returns the amount x seconds after the step.
func (f Flow) at(x float64) float64 {
	over := f.Over.Seconds()
	switch {
	case over == 0:
		return f.From
	case f.Wave:
		return f.From + f.To*math.Sin(2*math.Pi*x/over)
	default:
		return f.From + (f.To-f.From)*min(x/over, 1)
	}
}

// area returns the integral of the amount over the first x seconds.
func (f Flow) area(x float64) float64 {
	over := f.Over.Seconds()
	switch {
	case over == 0:
		return f.From * x
	case f.Wave:
		return f.From*x + f.To*over/(2*math.Pi)*(1-math.Cos(2*math.Pi*x/over))
	default:
		r := min(x, over)
		return f.From*r + (f.To-f.From)*r*r/(2*over) + f.To*(x-r)
	}
}

func (f Flow) valid() bool {
	low := min(f.From, f.To)
	if f.Wave {
		low = f.From - math.Abs(f.To)
	}
	return low >= 0 && f.Over >= 0 // false for NaN
}

// String returns the flow as ParseScript reads it.
func (f Flow) String() string {
	n := func(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }
	switch {
	case f.Over == 0:
		return n(f.From)
	case f.Wave:
		return n(f.From) + "~" + n(f.To) + "/" + f.Over.String()
	default:
		return n(f.From) + ".." + n(f.To) + "/" + f.Over.String()
	}
}

// A Step sets resources from a moment on. What it does not name goes on as it
// was, and a resource that was never named has no limit:
//
//	calls     admitted per second
//	burst     depth of the calls bucket in seconds; default 1
//	tpm       tokens per minute, charged at admission with the input that is not
//	          cached plus the output limit; what was not used is given back
//	tpmburst  depth of the tokens bucket in seconds; default 60
//	conc      calls that generate at the same time
//	queue     calls that may wait for a slot; default none
//	wait      seconds that a call waits before it is refused; default 20
//	other     share of calls, tpm and conc that other tenants take, 0 to 1
//	refuse    probability that a call is refused with its tier's status
//	slow      multiplier of latency; default 1
//
// With a tier and a dot before it ("flex.calls") a resource holds for that tier
// alone, beside the shared one.
type Step struct {
	At  time.Duration // since the script's start
	Set map[string]Flow
}

// A Script is a capacity over time: steps in ascending order.
type Script []Step

// ParseScript reads steps separated by semicolons or newlines. A step is a time
// and settings; the time may be missing from the first. A setting is a resource
// and an amount: a number, a ramp "from..to/duration" or a sine
// "mid~amplitude/period". "inf" lifts a limit.
//
//	0s calls=20 flex.refuse=0.1; 15s calls=40; 30s calls=10..60/2m conc=100 queue=50
//	tpm=2e6 calls=20~10/60s
func ParseScript(text string) (Script, error) {
	var script Script
	for part := range strings.FieldsFuncSeq(text, func(r rune) bool { return r == ';' || r == '\n' }) {
		words := strings.Fields(part)
		if len(words) == 0 {
			continue
		}
		step := Step{Set: map[string]Flow{}}
		if !strings.Contains(words[0], "=") {
			at, err := time.ParseDuration(words[0])
			if err != nil {
				return nil, fmt.Errorf("script: %w", err)
			}
			step.At, words = at, words[1:]
		}
		for _, w := range words {
			name, amount, _ := strings.Cut(w, "=")
			flow, err := parseFlow(amount)
			if err != nil {
				return nil, fmt.Errorf("script: %s: %w", w, err)
			}
			step.Set[name] = flow
		}
		script = append(script, step)
	}
	_, err := script.plan()
	return script, err
}

// MustScript is like ParseScript but panics if text is not a script.
func MustScript(text string) Script {
	script, err := ParseScript(text)
	if err != nil {
		panic(err)
	}
	return script
}

func parseFlow(text string) (f Flow, err error) {
	amounts, over, shaped := strings.Cut(text, "/")
	if shaped {
		if f.Over, err = time.ParseDuration(over); err != nil {
			return f, err
		}
		if f.Over == 0 {
			return f, fmt.Errorf("no duration in %q", text)
		}
	}
	from, to, ramp := strings.Cut(amounts, "..")
	if !ramp {
		from, to, f.Wave = strings.Cut(amounts, "~")
	}
	if f.From, err = strconv.ParseFloat(from, 64); err != nil {
		return f, err
	}
	if shaped != (ramp || f.Wave) {
		return f, fmt.Errorf("%q is neither an amount, from..to/duration nor mid~amplitude/period", text)
	}
	if shaped {
		f.To, err = strconv.ParseFloat(to, 64)
	}
	return f, err
}

// String returns the script as ParseScript reads it.
func (s Script) String() string {
	var b strings.Builder
	for i, step := range s {
		if i > 0 {
			b.WriteString("; ")
		}
		b.WriteString(step.At.String())
		for _, name := range slices.Sorted(maps.Keys(step.Set)) {
			b.WriteString(" " + name + "=" + step.Set[name].String())
		}
	}
	return b.String()
}

// A plan is a script arranged for lookup: by scope ("" for all on-demand tiers
// together, else a tier), then by resource.
type plan map[string]map[string]track

// plan checks the script and arranges it.
func (s Script) plan() (plan, error) {
	p := plan{}
	for i, step := range s {
		if step.At < 0 || i > 0 && step.At <= s[i-1].At {
			return nil, fmt.Errorf("script: step at %v is not after the one before", step.At)
		}
		for name, flow := range step.Set {
			scope, res, tiered := strings.Cut(name, ".")
			if !tiered {
				scope, res = "", name
			}
			if _, ok := DefaultTiers()[scope]; tiered && !ok || !slices.Contains(resources, res) {
				return nil, fmt.Errorf("script: no resource %q", name)
			}
			if !flow.valid() {
				return nil, fmt.Errorf("script: %s=%v is negative at times", name, flow)
			}
			if p[scope] == nil {
				p[scope] = map[string]track{}
			}
			p[scope][res] = append(p[scope][res], segment{step.At.Seconds(), flow})
		}
	}
	return p, nil
}

// A track is what one resource does over time. An empty one has no limit.
type track []segment

type segment struct {
	start float64 // seconds since the script's start
	flow  Flow
}

// at returns the amount at x seconds, and whether there is one yet.
func (t track) at(x float64) (float64, bool) {
	for _, s := range slices.Backward(t) {
		if x >= s.start {
			return s.flow.at(x - s.start), true
		}
	}
	return 0, false
}

// or is at with a default.
func (t track) or(x, def float64) float64 {
	if v, ok := t.at(x); ok {
		return v
	}
	return def
}

// area returns the integral from a to b seconds.
func (t track) area(a, b float64) (sum float64) {
	for i, s := range t {
		lo, hi := max(a, s.start), b
		if i+1 < len(t) {
			hi = min(b, t[i+1].start)
		}
		if lo < hi {
			sum += s.flow.area(hi-s.start) - s.flow.area(lo-s.start)
		}
	}
	return sum
}
