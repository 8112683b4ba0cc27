package capacity

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
	resCalls = iota
	resBurst
	resWindow
	resGrow
	resFloor
	resTokens
	resDepth
	resOutput
	resSlots
	resQueue
	resWait
	resOthers
	resRefuse
	resNoise
	resSlow
)

var names = [...]string{
	resCalls: "calls", resBurst: "burst", resWindow: "window", resGrow: "grow", resFloor: "floor",
	resTokens: "tpm", resDepth: "tpmburst", resOutput: "otpm",
	resSlots: "conc", resQueue: "queue", resWait: "wait",
	resOthers: "other", resRefuse: "refuse", resNoise: "noise", resSlow: "slow",
}

// tiers may stand before a resource's name.
var tiers = []string{"priority", "default", reserved, "flex"}

// reserved is the tier with a quota of its own.
const reserved = "reserved"

// Defaults, as Step explains them.
const (
	callsDepth  = 1  // burst
	tokensDepth = 60 // tpmburst
	growFloor   = 1  // floor

	// queueWait is the default of wait. AWS says only that a request "may be
	// briefly queued"; gateways report 503 after 10 to 20 s.
	queueWait = 20
)

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

// valid reports whether the amount is never negative, and finite if it moves.
func (f Flow) valid() bool {
	low, high := min(f.From, f.To), max(f.From, f.To)
	if f.Wave {
		low, high = f.From-math.Abs(f.To), f.From+math.Abs(f.To)
	}
	return low >= 0 && f.Over >= 0 && (high <= math.MaxFloat64 || f.Over == 0) // false for NaN
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
//	window    seconds: calls and tpm are not buckets but budgets of windows of
//	          that length, counted from the script's start; the amount times the
//	          length, of which what is left at the window's end is lost
//	grow      part per minute by which calls may grow: the endpoint admits what
//	          it has grown to, from floor up to calls, and grows while more than
//	          70 % of that is used (over 10 s), by the part of what is used;
//	          otherwise it loses 20 % a minute
//	floor     calls per second at which grow begins and below which it does not
//	          fall; default 1
//	tpm       tokens per minute, charged at admission with the input that is not
//	          cached plus the output limit; what was not used is given back
//	tpmburst  depth of the buckets of tpm and otpm in seconds; default 60
//	otpm      output tokens per minute, charged while they are generated; calls
//	          are refused while the bucket is empty or in debt
//	conc      calls that generate at the same time
//	queue     calls that may wait for a slot; default none
//	wait      seconds that a call waits before it is refused; default 20
//	other     share of calls, tpm, otpm and conc that other tenants take, 0 to 1
//	refuse    probability that a call is refused with its tier's status
//	noise     probability that a call is refused as over its quota, for no reason
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

// limits are what a script sets for one scope, by resource.
type limits [len(names)]track

// A plan is a script arranged for lookup: by scope, which is a tier, or "" for
// all on-demand tiers together.
type plan map[string]*limits

// plan checks the script and arranges it.
func (s Script) plan() (plan, error) {
	p := plan{}
	for i, step := range s {
		if step.At < 0 || i > 0 && step.At <= s[i-1].At {
			return nil, fmt.Errorf("script: step at %v is not after the one before", step.At)
		}
		for name, flow := range step.Set {
			scope, word, tiered := strings.Cut(name, ".")
			if !tiered {
				scope, word = "", name
			}
			r := slices.Index(names[:], word)
			if r < 0 || tiered && !slices.Contains(tiers, scope) {
				return nil, fmt.Errorf("script: no resource %q", name)
			}
			if !flow.valid() {
				return nil, fmt.Errorf("script: %s=%v is negative or infinite at times", name, flow)
			}
			l := p.limits(scope)
			p[scope] = l
			l[r] = append(l[r], segment{step.At.Seconds(), flow})
		}
	}
	return p, nil
}

// limits returns those of a scope; none, if the script does not name it.
func (p plan) limits(scope string) *limits {
	if l := p[scope]; l != nil {
		return l
	}
	return &limits{}
}

// amount returns that of r at x seconds, and whether it is a limit: it has been
// named and is not infinite.
func (l *limits) amount(r int, x float64) (amount float64, ok bool) {
	amount, ok = l[r].at(x)
	return amount, ok && amount <= math.MaxFloat64
}

// or is amount with a default.
func (l *limits) or(r int, x, def float64) float64 {
	if v, ok := l[r].at(x); ok {
		return v
	}
	return def
}

// growth returns by which part a minute calls may grow at x seconds, and whether
// that is limited.
func (l *limits) growth(x float64) (part float64, ok bool) {
	part, ok = l.amount(resGrow, x)
	return part, ok && l.or(resFloor, x, growFloor) <= math.MaxFloat64
}

// ours is the share of the capacity that other tenants leave.
func (l *limits) ours(x float64) float64 { return max(0, 1-l.or(resOthers, x, 0)) }

// A track is what one resource does over time. An empty one has no limit.
type track []segment

type segment struct {
	start float64 // seconds since the script's start
	flow  Flow
}

// find returns how many of the segments have begun at x seconds.
func (t track) find(x float64) int {
	if len(t) == 0 || x < t[0].start {
		return 0
	}
	if x >= t[len(t)-1].start {
		return len(t)
	}
	i, _ := slices.BinarySearchFunc(t, x, func(s segment, x float64) int {
		if s.start <= x {
			return -1
		}
		return 1
	})
	return i
}

// after returns when the first segment after x seconds begins.
func (t track) after(x float64) float64 {
	if i := t.find(x); i < len(t) {
		return t[i].start
	}
	return math.Inf(1)
}

// at returns the amount at x seconds, and whether there is one yet.
func (t track) at(x float64) (float64, bool) {
	i := t.find(x)
	if i == 0 {
		return 0, false
	}
	return t[i-1].flow.at(x - t[i-1].start), true
}

// area returns the integral from a to b seconds.
func (t track) area(a, b float64) (sum float64) {
	for i := max(t.find(a), 1) - 1; i < len(t); i++ {
		s := t[i]
		lo, hi := max(a, s.start), b
		if i+1 < len(t) {
			hi = min(b, t[i+1].start)
		}
		if lo >= b {
			break
		}
		sum += s.flow.area(hi-s.start) - s.flow.area(lo-s.start)
	}
	return sum
}
