package capacity_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"upwell/worker/mantle/mantlesim/capacity"
)

// A crowd makes random calls and keeps account of them.
type crowd struct {
	*testing.T
	*capacity.Capacity
	rng      *rand.Rand
	now      time.Duration
	held     []*capacity.Claim // with a slot
	waiting  []*capacity.Claim
	admitted []time.Duration
	charged  int // tokens used by calls that are over, and taken by those that are not
	script   string
}

var models, tiers = []string{"m", "n"}, []string{"", "default", "flex", "priority", "reserved", "gold"}

// call makes a call.
func (c *crowd) call(cl capacity.Claim, luck func() float64) {
	p := &cl
	p.Granted = func(now time.Duration) {
		i := slices.Index(c.waiting, p)
		if i < 0 {
			c.Fatalf("%s: a claim was served that did not wait", c.script)
		}
		c.waiting = slices.Delete(c.waiting, i, i+1)
		c.start(p, now)
	}
	if why := c.Admit(c.now, p, luck); why != "" {
		if p.Waiting() {
			c.Fatalf("%s: refused by %q, and waits", c.script, why)
		}
		return
	}
	c.admitted = append(c.admitted, c.now)
	c.charged += p.Tokens
	if p.Waiting() {
		c.waiting = append(c.waiting, p)
	} else {
		c.start(p, c.now)
	}
}

func (c *crowd) start(p *capacity.Claim, now time.Duration) {
	c.held = append(c.held, p)
	if c.rng.IntN(8) > 0 {
		p.Generate(now, c.rng.IntN(3000), time.Duration(c.rng.ExpFloat64()*1e10))
	}
}

// end ends a call, if there is one, of those with a slot or those without.
func (c *crowd) end(of *[]*capacity.Claim) {
	if len(*of) == 0 {
		return
	}
	i := c.rng.IntN(len(*of))
	p := (*of)[i]
	*of = slices.Delete(*of, i, i+1)
	used := c.rng.IntN(p.Tokens + 1)
	c.charged -= p.Tokens - used
	p.Release(c.now, used)
}

// check compares the account with what the Capacity says, and looks for numbers
// that are none.
func (c *crowd) check() {
	c.Helper()
	busy := 0
	for _, m := range models {
		busy += c.Busy(m)
		for _, tier := range tiers {
			for _, r := range []string{"calls", "tpm", "otpm", "conc"} {
				if n, ok := c.At(c.now, m, tier, r); ok != (n <= math.MaxFloat64) || n < 0 || n != n {
					c.Fatalf("%s: after %v, %s of %q = %v, %v", c.script, c.now, r, tier, n, ok)
				}
			}
		}
	}
	if busy != len(c.held) {
		c.Fatalf("%s: after %v, %d calls busy, want %d", c.script, c.now, busy, len(c.held))
	}
	for _, p := range c.waiting {
		if !p.Waiting() || p.Patience() < 0 {
			c.Fatalf("%s: a claim in the queue: waiting %v, for %v", c.script, p.Waiting(), p.Patience())
		}
	}
	for _, level := range c.Levels() {
		if math.IsNaN(level) || math.IsInf(level, 0) {
			c.Fatalf("%s: after %v, levels %v", c.script, c.now, c.Levels())
		}
	}
}

// disperse ends all calls. Nothing may be held then.
func (c *crowd) disperse() {
	c.Helper()
	for len(c.waiting)+len(c.held) > 0 {
		c.end(&c.waiting)
		c.end(&c.held)
	}
	c.check()
	if held, _ := c.Held(); held != 0 {
		c.Fatalf("%s: %d slots or places leaked", c.script, held)
	}
}

// Whatever the script and the calls, no level is lost in arithmetic, no slot
// leaks, and the account is right.
func FuzzCapacity(f *testing.F) {
	for seed, script := range []string{
		"calls=20~10/60s conc=1..5/2m queue=9; 1m tpm=inf otpm=1e4", "grow=0.5 floor=2 calls=30 window=60 tpm=1e5",
		"noise=0.1 refuse=0.2 flex.calls=1 flex.conc=2 flex.queue=3", "calls=1e308 burst=1e308 tpm=1e308 tpmburst=inf otpm=1e308",
		"grow=inf floor=inf; 5s grow=1e300 calls=1e308 other=0..1/1m", "window=1e-300 calls=5; 1m window=0; 2m window=inf tpm=5",
		"otpm=6000; 30s otpm=0; 1m otpm=inf; 2m otpm=600", "conc=inf queue=inf wait=inf other=1 slow=inf burst=inf calls=0",
		"0s grow=1; 10s grow=inf; 20s grow=2 floor=0 calls=0; 1h floor=5 calls=1e9", "reserved.conc=1 reserved.queue=1 conc=0 queue=3 wait=1e300",
	} {
		f.Add(script, uint64(seed))
	}
	f.Fuzz(func(t *testing.T, text string, seed uint64) {
		script, err := capacity.ParseScript(text)
		if err != nil {
			return
		}
		c := &crowd{T: t, Capacity: hidden(t, text), rng: rand.New(rand.NewPCG(seed, 0)), script: text}
		steps := []time.Duration{0, 1, time.Millisecond, time.Second, time.Minute, time.Hour, 1000 * time.Hour}
		for range 300 {
			if step := steps[c.rng.IntN(len(steps))]; c.rng.IntN(3) > 0 || step < time.Minute {
				c.now += time.Duration(c.rng.Float64() * float64(step))
			}
			switch c.rng.IntN(12) {
			case 0, 1:
				c.end(&c.held)
			case 2:
				c.end(&c.waiting)
			case 3:
				c.Serve(c.now)
			case 4:
				if c.rng.IntN(5) == 0 {
					if err := c.Set(script, c.now); err != nil {
						t.Fatal(err)
					}
				}
			default:
				c.call(capacity.Claim{
					Model: models[c.rng.IntN(2)], Tier: tiers[c.rng.IntN(6)], Rank: c.rng.IntN(3), Tokens: c.rng.IntN(200_000),
				}, c.rng.Float64)
			}
			c.check()
		}
		c.disperse()
	})
}

// A pace is calls and tokens of a random script, both a second.
type pace struct{ start, calls, tokens float64 }

// randomScript returns one with steps of level amounts, what it lets in, and how
// much its buckets hold, of calls and of tokens, before they fill.
func randomScript(rng *rand.Rand, window float64) (script string, paces []pace, calls, tokens float64) {
	var b strings.Builder
	start := 0.
	for i := range 6 {
		others := float64(rng.IntN(2)) / 4
		rate, tpm := float64(rng.IntN(12))/2, float64(rng.IntN(6))*1000
		fmt.Fprintf(&b, "%vs calls=%v tpm=%v other=%v conc=%d queue=%d ", start, rate, tpm, others, rng.IntN(30), rng.IntN(5))
		paces = append(paces, pace{start, rate * (1 - others), tpm * (1 - others) / 60})
		if i == 0 {
			burst, depth := float64(1+rng.IntN(3)), float64(10+rng.IntN(90))
			fmt.Fprintf(&b, "burst=%v tpmburst=%v window=%v ", burst, depth, window)
			if rng.IntN(2) == 0 {
				fmt.Fprintf(&b, "grow=%v floor=%v ", 5*rng.Float64(), rng.IntN(4))
			}
			calls, tokens = max(1, paces[0].calls*burst), paces[0].tokens*depth
		}
		b.WriteString("; ")
		start += float64(5 + rng.IntN(100))
	}
	return b.String(), paces, calls, tokens
}

// let returns what has been let in between two times.
func let(paces []pace, from, to float64) (calls, tokens float64) {
	for i, p := range paces {
		end := to
		if i+1 < len(paces) {
			end = min(to, paces[i+1].start)
		}
		if span := end - max(from, p.start); span > 0 {
			calls, tokens = calls+span*p.calls, tokens+span*p.tokens
		}
	}
	return calls, tokens
}

// best returns the highest pace between two times.
func best(paces []pace, from, to float64) (calls, tokens float64) {
	for i, p := range paces {
		if p.start < to && (i+1 == len(paces) || paces[i+1].start > from) {
			calls, tokens = max(calls, p.calls), max(tokens, p.tokens)
		}
	}
	return calls, tokens
}

// No more is admitted than came in and was there; of tokens one call more, since
// a full bucket admits what it cannot hold.
func TestNeverMoreThanCapacity(t *testing.T) {
	const most = 4000 // tokens of a call
	total := 0
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 7))
		text, paces, calls, tokens := randomScript(rng, 0)
		c := &crowd{T: t, Capacity: hidden(t, text), rng: rng, script: text}
		for c.now < 10*time.Minute {
			c.now += time.Duration(rng.ExpFloat64() * 1e8)
			switch rng.IntN(4) {
			case 0:
				c.end(&c.held)
			default:
				c.call(capacity.Claim{Model: "m", Rank: rng.IntN(3), Tokens: rng.IntN(most)}, average)
			}
			mayCalls, mayTokens := let(paces, 0, c.now.Seconds())
			if n := float64(len(c.admitted)); n > calls+mayCalls+1e-3 {
				t.Fatalf("%s: after %v, %v calls, want %v + %v at most", text, c.now, n, calls, mayCalls)
			}
			if n := float64(c.charged); n > tokens+mayTokens+most {
				t.Fatalf("%s: after %v, %v tokens, want %v + %v at most", text, c.now, n, tokens, mayTokens)
			}
		}
		c.disperse()
		total += len(c.admitted)
	}
	if total < 40_000 {
		t.Errorf("%d calls admitted: it tells nothing", total)
	}
}

// In no window are there more calls than its budget, at its best moment.
func TestNeverMoreThanAWindow(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 8))
		window := float64(5 + rng.IntN(60))
		text, paces, _, _ := randomScript(rng, window)
		c := &crowd{T: t, Capacity: hidden(t, text), rng: rng, script: text}
		for c.now < 10*time.Minute {
			c.now += time.Duration(rng.ExpFloat64() * 1e8)
			c.call(capacity.Claim{Model: "m", Tokens: rng.IntN(400)}, average)
			c.end(&c.held)
		}
		count := map[int]float64{}
		for _, at := range c.admitted {
			count[int(at.Seconds()/window)]++
		}
		for i, n := range count {
			if calls, _ := best(paces, float64(i)*window, float64(i+1)*window); n > calls*window {
				t.Fatalf("%s: %v calls in window %d, want %v at most", text, n, i, calls*window)
			}
		}
	}
}
