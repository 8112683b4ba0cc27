package capacity_test

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"upwell/worker/mantle/mantlesim/capacity"
)

// hidden returns the Capacity of a script.
func hidden(tb testing.TB, script string) *capacity.Capacity {
	tb.Helper()
	c, err := capacity.New(capacity.MustScript(script))
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

// at is a time in seconds.
func at(seconds float64) time.Duration { return time.Duration(math.Round(seconds * 1e9)) }

// average is luck that is neither good nor bad.
func average() float64 { return 0.5 }

// within fails unless got is want give or take a margin.
func within(t *testing.T, what string, got, want, margin float64) {
	t.Helper()
	if !(math.Abs(got-want) <= margin) { // NaN is not
		t.Errorf("%s = %v, want %v±%v", what, got, want, margin)
	}
}

// try makes a call that is over at once, and returns why it is refused.
func try(c *capacity.Capacity, now time.Duration, cl capacity.Claim) capacity.Reason {
	why := c.Admit(now, &cl, average)
	cl.Release(now, cl.Tokens)
	return why
}

// expect fails unless a call that is over at once is refused for that reason.
func expect(t *testing.T, c *capacity.Capacity, seconds float64, cl capacity.Claim, want capacity.Reason) {
	t.Helper()
	if why := try(c, at(seconds), cl); why != want {
		t.Errorf("after %v s: %q, want %q", seconds, why, want)
	}
}

// enter admits a claim, which must not be refused.
func enter(t *testing.T, c *capacity.Capacity, seconds float64, cl *capacity.Claim) *capacity.Claim {
	t.Helper()
	if why := c.Admit(at(seconds), cl, average); why != "" {
		t.Fatalf("after %v s: refused by %q", seconds, why)
	}
	return cl
}

// hammer calls every millisecond between two times in seconds, and returns how
// many calls were admitted.
func hammer(c *capacity.Capacity, from, to float64) (admitted int) {
	for now := at(from); now < at(to); now += time.Millisecond {
		if try(c, now, capacity.Claim{}) == "" {
			admitted++
		}
	}
	return admitted
}

func TestCalls(t *testing.T) {
	for _, tc := range []struct {
		script string
		until  []float64 // seconds
		want   []int     // calls admitted up to there, each from the one before
	}{
		{"calls=20", []float64{1, 2, 30}, []int{40, 20, 560}}, // it starts with one second's worth
		{"calls=20 burst=3", []float64{1, 10}, []int{80, 180}},
		{"0s calls=20; 4s calls=40; 8s calls=10", []float64{4, 8, 12}, []int{100, 160, 40}},
		{"calls=0", []float64{5}, []int{0}},
		{"0s calls=20; 2s calls=0; 4s calls=20", []float64{2, 4, 6}, []int{60, 0, 40}},
		{"calls=10..30/10s", []float64{10, 12}, []int{10 + 200, 60}},
		{"calls=20~10/8s", []float64{4, 8}, []int{20 + 80 + 25, 80 - 25}}, // half a sine holds 10·8/π ≈ 25.5
		{"calls=40 other=0.25", []float64{1, 5}, []int{60, 120}},
		{"2s calls=5", []float64{2, 4}, []int{2000, 15}}, // no limit before it is named
		{"0s calls=5; 1s calls=inf; 2s calls=5", []float64{1, 2, 4}, []int{10, 1000, 15}},
		{"calls=0.5", []float64{10}, []int{6}}, // a bucket holds at least one call

		{"calls=20 window=10", []float64{1, 10, 11, 20, 21}, []int{200, 0, 200, 0, 200}},
		{"calls=0.25 window=10", []float64{10, 20}, []int{2, 2}}, // the half call is lost
		{"calls=0.05 window=10", []float64{10, 20, 30}, []int{1, 0, 1}},
		{"0s calls=20 window=10; 5s calls=10; 12s calls=30", []float64{5, 10, 12, 20}, []int{200, 0, 100, 200}},
		{"0s calls=20 window=10; 5s calls=30", []float64{5, 10, 20}, []int{200, 100, 300}},
		{"calls=20~10/10s window=10", []float64{10, 20}, []int{300, 300}}, // as much as its best moment allows
		{"calls=40 other=0.5 window=10", []float64{10}, []int{200}},
		{"0s calls=20; 3s window=5; 5s window=inf", []float64{3, 5, 6}, []int{80, 80, 20}}, // what the bucket lacked was taken
	} {
		c := hidden(t, tc.script)
		from := 0.
		for i, to := range tc.until {
			within(t, tc.script, float64(hammer(c, from, to)), float64(tc.want[i]), 1)
			from = to
		}
	}
}

// A bucket that holds less than a call saves for one all the same.
func TestBucketHoldsACall(t *testing.T) {
	c := hidden(t, "0s calls=0.5; 1s calls=2")
	expect(t, c, 0, capacity.Claim{}, "")
	expect(t, c, 1.24, capacity.Claim{}, capacity.OverCalls)
	expect(t, c, 1.26, capacity.Claim{}, "")
}

// The budget of a window that nobody used is not there in the next.
func TestWindowIsLost(t *testing.T) {
	c := hidden(t, "calls=20 window=10")
	within(t, "late in the third window", float64(hammer(c, 29, 30)), 200, 0)
	within(t, "at once in the fourth", float64(hammer(c, 30, 30.5)), 200, 0)
	within(t, "in the rest of it", float64(hammer(c, 30.5, 40)), 0, 0)
}

// Windows begin at multiples of their length, on the nanosecond.
func TestWindowBegins(t *testing.T) {
	c := hidden(t, "calls=10 window=0.1")
	for i := range 1000 {
		now := time.Duration(i) * 100 * time.Millisecond
		if a, b := try(c, now, capacity.Claim{}), try(c, now+99*time.Millisecond, capacity.Claim{}); a != "" || b != capacity.OverCalls {
			t.Fatalf("window %d: %q, %q; want one call", i, a, b)
		}
	}
}

func TestWindowOfTokens(t *testing.T) {
	c := hidden(t, "tpm=600 window=60")
	a := enter(t, c, 0, &capacity.Claim{Tokens: 500})
	b := enter(t, c, 1, &capacity.Claim{Tokens: 100})
	expect(t, c, 2, capacity.Claim{Tokens: 1}, capacity.OverTokens)
	a.Release(at(3), 200)
	expect(t, c, 4, capacity.Claim{Tokens: 301}, capacity.OverTokens)
	expect(t, c, 5, capacity.Claim{Tokens: 300}, "")
	expect(t, c, 60, capacity.Claim{Tokens: 500}, "")
	b.Release(at(61), 0) // an earlier window's tokens
	expect(t, c, 62, capacity.Claim{Tokens: 101}, capacity.OverTokens)
	expect(t, c, 62, capacity.Claim{Tokens: 100}, "")

	// What is larger than a window needs a whole one, and is owed by the next.
	expect(t, c, 119, capacity.Claim{Tokens: 1300}, capacity.OverTokens)
	expect(t, c, 120, capacity.Claim{Tokens: 1300}, "")
	expect(t, c, 180, capacity.Claim{}, capacity.OverTokens)
	expect(t, c, 240, capacity.Claim{Tokens: 501}, capacity.OverTokens)
	expect(t, c, 240, capacity.Claim{Tokens: 500}, "")
	expect(t, c, 300, capacity.Claim{Tokens: 1300}, "")
	expect(t, c, 420, capacity.Claim{Tokens: 501}, capacity.OverTokens) // a window that nobody used has paid its part
	expect(t, c, 420, capacity.Claim{Tokens: 500}, "")
}

func TestTokens(t *testing.T) {
	c := hidden(t, "tpm=600")
	a := enter(t, c, 0, &capacity.Claim{Tokens: 400})
	expect(t, c, 0, capacity.Claim{Tokens: 201}, capacity.OverTokens)
	a.Release(at(0), 100)
	expect(t, c, 0, capacity.Claim{Tokens: 500}, "")
	expect(t, c, 9.9, capacity.Claim{Tokens: 100}, capacity.OverTokens)
	expect(t, c, 10, capacity.Claim{Tokens: 100}, "")

	// Throughput is limited, not size: a full bucket admits what it cannot hold.
	expect(t, c, 69, capacity.Claim{Tokens: 6000}, capacity.OverTokens)
	expect(t, c, 70, capacity.Claim{Tokens: 6000}, "")
	expect(t, c, 609, capacity.Claim{}, capacity.OverTokens)
	expect(t, c, 610, capacity.Claim{}, "")

	// What is given back does not make the bucket overflow.
	c = hidden(t, "tpm=600")
	a = enter(t, c, 0, &capacity.Claim{Tokens: 400})
	a.Release(at(50), 0)
	expect(t, c, 50, capacity.Claim{Tokens: 600}, "")
	expect(t, c, 50, capacity.Claim{Tokens: 1}, capacity.OverTokens)

	// What a call took while there was no limit is not given back to one.
	c = hidden(t, "5s tpm=600")
	a = enter(t, c, 0, &capacity.Claim{Tokens: 500})
	expect(t, c, 5, capacity.Claim{Tokens: 600}, "")
	a.Release(at(6), 0)
	expect(t, c, 6, capacity.Claim{Tokens: 11}, capacity.OverTokens)

	c = hidden(t, "tpm=600 tpmburst=10")
	expect(t, c, 0, capacity.Claim{Tokens: 100}, "")
	expect(t, c, 0, capacity.Claim{Tokens: 1}, capacity.OverTokens)
}

// A law is the reference for grow, told of every second's calls.
type law struct{ rate, mean, grow, floor, calls float64 }

func (l *law) second(used int) {
	l.mean += (float64(used) - l.mean) / 10
	if l.mean > 0.7*l.rate {
		l.rate += l.mean * (math.Pow(1+l.grow, 1./60) - 1)
	} else {
		l.rate -= l.rate * 0.2 / 60
	}
	l.rate = min(max(l.rate, l.floor), l.calls)
}

// Whatever the load, and however seldom somebody looks, calls follow the law.
func TestGrowFollowsTheLaw(t *testing.T) {
	const script = "grow=0.5 floor=2 calls=30 burst=2"
	looked, blind := hidden(t, script), hidden(t, script)
	want := law{rate: 2, grow: 0.5, floor: 2, calls: 30}
	rng := rand.New(rand.NewPCG(1, 2))
	top := 0.
	for second := range 7200 {
		used := 0
		load := []float64{1, 0.5, 0, 0.9}[second/600%4] * 40 * rng.Float64()
		for i := range int(load) {
			now := at(float64(second) + float64(i)/load)
			why := try(looked, now, capacity.Claim{})
			if other := try(blind, now, capacity.Claim{}); other != why {
				t.Fatalf("after %v, looked at: %q, not looked at: %q", now, why, other)
			}
			if why == "" {
				used++
			}
		}
		want.second(used)
		got, ok := looked.At(at(float64(second+1)), "", "", "calls")
		if !ok || math.Abs(got-want.rate) > 1e-9 {
			t.Fatalf("after %d s: %v, %v; want %v", second+1, got, ok, want.rate)
		}
		top = max(top, got)
	}
	within(t, "the highest", top, 30, 0)
}

func TestGrow(t *testing.T) {
	calls := func(c *capacity.Capacity, seconds float64) float64 {
		n, _ := c.At(at(seconds), "", "", "calls")
		return n
	}
	c := hidden(t, "grow=0.5 floor=4 calls=20")
	within(t, "at first", calls(c, 0), 4, 0)
	within(t, "unused", calls(c, 600), 4, 0)
	hammer(c, 600, 660)
	within(t, "after a minute of use", calls(c, 660), 5.6, 0.4) // half more, but for the time its mean takes
	hammer(c, 660, 720)
	within(t, "after two minutes", calls(c, 720), 5.6*1.5, 0.6)
	hammer(c, 720, 1200)
	within(t, "at its limit", calls(c, 1200), 20, 0)
	within(t, "admitted at its limit", float64(hammer(c, 1200, 1210)), 200, 1)
	start := calls(c, 1220) // the mean of its use has fallen far enough
	within(t, "after five minutes of rest", calls(c, 1520), start*math.Pow(1-0.2/60, 300), 1e-9)
	within(t, "in the end", calls(c, 3600), 4, 0)
	hammer(c, 3600, 3700)
	within(t, "after a day's rest", calls(c, 90000), 4, 0)
	within(t, "admitted after it", float64(hammer(c, 90000, 90001)), 8, 1)
	within(t, "after a century's rest, at once", calls(c, 9e9), 4, 0)

	c = hidden(t, "grow=0.5 floor=4 calls=20 other=0.5")
	hammer(c, 0, 600)
	within(t, "beside others", calls(c, 600), 10, 0)

	c = hidden(t, "0s grow=0.5 calls=20; 500s grow=inf; 510s grow=1")
	within(t, "the floor by default", calls(c, 0), 1, 0)
	hammer(c, 0, 500)
	within(t, "lifted", calls(c, 505), 20, 0)
	within(t, "from the start again", calls(c, 510), 1, 0)

	// Windows and grow together: the budget is what it has grown to.
	c = hidden(t, "grow=0.5 floor=4 window=10 calls=20")
	within(t, "in a window", float64(hammer(c, 0, 1)), 40, 0)
}

// usedUp is what a call meets that would begin now.
func usedUp(c *capacity.Capacity, seconds float64) bool {
	return try(c, at(seconds), capacity.Claim{}) == capacity.OverOutput
}

func TestOutput(t *testing.T) {
	turns := func(c *capacity.Capacity, low bool, seconds float64) {
		t.Helper()
		if a, b := usedUp(c, seconds-0.01), usedUp(c, seconds+0.01); a == low || b != low {
			t.Errorf("around %v s: refused %v, then %v; want %v then", seconds, a, b, low)
		}
	}
	// A bucket of 600, filled with 10 a second and drained with 30.
	c := hidden(t, "otpm=600")
	a := enter(t, c, 0, &capacity.Claim{})
	a.Generate(0, 3000, 100*time.Second)
	turns(c, true, 30)
	turns(c, false, 100+140)
	a.Release(at(300), 0) // when generation has long been over
	expect(t, c, 301, capacity.Claim{}, "")

	// What is not generated is not charged.
	c = hidden(t, "otpm=600")
	a = enter(t, c, 0, &capacity.Claim{})
	a.Generate(0, 3000, 100*time.Second)
	a.Release(at(50), 0)
	turns(c, false, 50+40)
	if held, endings := c.Held(); held != 0 || endings == 0 {
		t.Errorf("%d held, %d endings before the end", held, endings)
	}
	if usedUp(c, 101); len(slices.DeleteFunc(c.Levels(), func(v float64) bool { return v == 0 || v >= 100 })) != 0 {
		t.Errorf("levels at rest = %v", c.Levels())
	}

	// A claim that is used again has forgotten what it generated.
	c = hidden(t, "otpm=600")
	a = enter(t, c, 0, &capacity.Claim{})
	a.Generate(0, 3000, 100*time.Second)
	a.Release(at(1), 0)
	enter(t, c, 2, a).Release(at(3), 0)
	if levels := c.Levels(); levels[3] != 0 {
		t.Errorf("levels = %v, want an outflow of 0", levels)
	}

	// Two that overlap; the bucket is full, and does not overflow, until the first.
	c = hidden(t, "otpm=600")
	a, b := enter(t, c, 0, &capacity.Claim{}), enter(t, c, 0, &capacity.Claim{})
	a.Generate(at(1000), 4000, 100*time.Second)
	b.Generate(at(1010), 1000, 50*time.Second)
	turns(c, true, 1010+300./50)
	turns(c, false, 1100+(4000+1000-1000-600)/10)

	// At once; a shallow bucket; a limit that comes while tokens flow; other tenants.
	c = hidden(t, "otpm=600 tpmburst=10")
	enter(t, c, 0, &capacity.Claim{}).Generate(0, 200, 0)
	turns(c, false, 10)
	c = hidden(t, "20s otpm=600 tpmburst=10")
	enter(t, c, 0, &capacity.Claim{}).Generate(0, 900, 30*time.Second)
	turns(c, true, 20+100/20)
	turns(c, false, 30+10)
	c = hidden(t, "otpm=1200 other=0.5 window=60") // windows are not for output
	enter(t, c, 0, &capacity.Claim{}).Generate(0, 3000, 100*time.Second)
	turns(c, true, 30)

	// A new script goes on where the old one was.
	c = hidden(t, "otpm=600")
	enter(t, c, 0, &capacity.Claim{}).Generate(0, 3000, 100*time.Second)
	if err := c.Set(capacity.MustScript("otpm=1200"), at(20)); err != nil {
		t.Fatal(err)
	}
	turns(c, true, 20+200/10)
	turns(c, false, 100+30)
}

// Against a reference that knows all generations and goes through them in order.
func TestOutputIsExact(t *testing.T) {
	type span struct{ from, to, tokens float64 }
	rng := rand.New(rand.NewPCG(3, 4))
	c := hidden(t, "otpm=6000 tpmburst=5")
	var spans []span
	level := func(x float64) float64 {
		edges := []float64{0, x}
		for _, s := range spans {
			edges = append(edges, min(s.from, x), min(s.to, x))
		}
		slices.Sort(edges)
		level := 500.
		for i := range edges[1:] {
			lo, hi := edges[i], edges[i+1]
			level += 100 * (hi - lo)
			for _, s := range spans {
				level -= s.tokens / (s.to - s.from) * max(0, min(hi, s.to)-max(lo, s.from))
			}
			level = min(level, 500)
		}
		return level
	}
	refused := 0
	now := 0.
	for range 400 {
		now += rng.ExpFloat64() * 2
		want := level(now)
		if math.Abs(want) < 1e-3 {
			continue
		}
		var cl capacity.Claim
		why := c.Admit(at(now), &cl, average)
		if (why == capacity.OverOutput) != (want < 0) {
			t.Fatalf("after %v s with %v tokens: %q", now, want, why)
		}
		if why != "" {
			refused++
			continue
		}
		s := span{now, now + 1 + 20*rng.Float64(), float64(rng.IntN(800))}
		cl.Generate(at(now), int(s.tokens), at(s.to-s.from))
		spans = append(spans, s)
	}
	if refused < 50 || refused > 350 {
		t.Errorf("%d of 400 refused: it tells nothing", refused)
	}
}

func TestLuck(t *testing.T) {
	c := hidden(t, "refuse=0.1 noise=0.003 flex.noise=0.2 calls=1e9")
	rng := rand.New(rand.NewPCG(5, 6))
	got := map[string]map[capacity.Reason]float64{"default": {}, "flex": {}}
	const n = 400_000
	for tier, reasons := range got {
		for i := range n {
			cl := capacity.Claim{Tier: tier}
			reasons[c.Admit(at(float64(i)), &cl, rng.Float64)]++
			cl.Release(at(float64(i)), 0)
		}
	}
	within(t, "refused", got["default"][capacity.Refused], 0.1*n, 1000)
	within(t, "noise", got["default"][capacity.Noise], 0.003*n, 150)
	within(t, "flex: refused", got["flex"][capacity.Refused], 0.1*n, 1000)
	within(t, "flex: noise", got["flex"][capacity.Noise], (0.003+0.897*0.2)*n, 1500)

	// Noise costs nothing.
	c = hidden(t, "noise=0.5 calls=1 tpm=60")
	unlucky, lucky := func() float64 { return 0.49 }, func() float64 { return 0.5 }
	for range 10 {
		if why := c.Admit(0, &capacity.Claim{Tokens: 60}, unlucky); why != capacity.Noise {
			t.Errorf("unlucky: %q", why)
		}
	}
	if why := c.Admit(0, &capacity.Claim{Tokens: 60}, lucky); why != "" {
		t.Errorf("lucky: %q", why)
	}
}

// queued enters a claim at time zero that notes its name when it gets a slot out of the queue.
func queued(t *testing.T, c *capacity.Capacity, cl capacity.Claim, name string, served *[]string) *capacity.Claim {
	t.Helper()
	cl.Granted = func(now time.Duration) { *served = append(*served, name+" "+now.String()) }
	return enter(t, c, 0, &cl)
}

func TestSlots(t *testing.T) {
	c := hidden(t, "conc=2 queue=2 wait=7.5 calls=5")
	var served []string
	a, b := queued(t, c, capacity.Claim{}, "a", &served), queued(t, c, capacity.Claim{}, "b", &served)
	d, e := queued(t, c, capacity.Claim{}, "d", &served), queued(t, c, capacity.Claim{}, "e", &served)
	if a.Waiting() || b.Waiting() || !d.Waiting() || !e.Waiting() || d.Patience() != 7500*time.Millisecond {
		t.Errorf("waiting: %v %v %v %v for %v", a.Waiting(), b.Waiting(), d.Waiting(), e.Waiting(), d.Patience())
	}
	expect(t, c, 0, capacity.Claim{}, capacity.OverSlots)
	expect(t, c, 0, capacity.Claim{}, capacity.OverSlots)
	if n := c.Busy(""); n != 2 {
		t.Errorf("%d busy, want 2", n)
	}
	a.Release(at(1), 0)
	a.Release(at(1), 0) // a second time
	if d.Waiting() || !e.Waiting() || c.Busy("") != 2 {
		t.Errorf("after one release: %v, %v, %d busy", d.Waiting(), e.Waiting(), c.Busy(""))
	}
	e.Release(at(2), 0) // gives up its place
	b.Release(at(3), 0)
	d.Release(at(4), 0)
	if want := []string{"d 1s"}; !slices.Equal(served, want) || c.Busy("") != 0 {
		t.Errorf("served %q, %d busy; want %q, 0", served, c.Busy(""), want)
	}
	// Of 5 calls 4 were taken: those without a place took none.
	c = hidden(t, "calls=5 burst=1 conc=1")
	a = enter(t, c, 0, &capacity.Claim{})
	for range 9 {
		expect(t, c, 0, capacity.Claim{}, capacity.OverSlots)
	}
	a.Release(0, 0)
	for range 4 {
		expect(t, c, 0, capacity.Claim{}, "")
	}
	expect(t, c, 0, capacity.Claim{}, capacity.OverCalls)
}

func TestPatience(t *testing.T) {
	for script, want := range map[string]time.Duration{
		"conc=0 queue=1":                                    20 * time.Second,
		"conc=0 queue=1 wait=0":                             0,
		"conc=0 queue=1 wait=inf":                           math.MaxInt64,
		"conc=0 queue=1 wait=5 flex.wait=1":                 5 * time.Second, // flex has no slots of its own to wait for
		"conc=0 queue=1 wait=5 flex.wait=1 flex.conc=9":     time.Second,
		"flex.queue=1 flex.wait=3 flex.conc=0 conc=9":       3 * time.Second,
		"reserved.conc=0 conc=0 queue=1 slow=2 flex.slow=3": 20 * time.Second,
	} {
		cl := enter(t, hidden(t, script), 0, &capacity.Claim{Tier: "flex"})
		if !cl.Waiting() || cl.Patience() != want {
			t.Errorf("%s: waiting %v for %v, want %v", script, cl.Waiting(), cl.Patience(), want)
		}
	}
}

func TestSlow(t *testing.T) {
	c := hidden(t, "0s slow=2 flex.slow=3; 5s slow=1")
	if a, b, d := enter(t, c, 0, &capacity.Claim{}), enter(t, c, 0, &capacity.Claim{Tier: "flex"}), enter(t, c, 5, &capacity.Claim{Tier: "flex"}); a.Slow() != 2 || b.Slow() != 6 || d.Slow() != 3 {
		t.Errorf("slow %v, %v, %v; want 2, 6, 3", a.Slow(), b.Slow(), d.Slow())
	}
}

// Lower ranks go first, then those that came first; a call that waits for its own
// tier's slot holds up nobody.
func TestQueueOrder(t *testing.T) {
	c := hidden(t, "conc=1 queue=9 flex.conc=9 flex.queue=9")
	var served []string
	first := enter(t, c, 0, &capacity.Claim{})
	var line []*capacity.Claim
	for _, who := range []capacity.Claim{{Tier: "flex", Rank: 2}, {Rank: 1}, {Tier: "priority"}, {Rank: 1}} {
		line = append(line, queued(t, c, who, string(rune('a'+len(line))), &served))
	}
	first.Release(at(1), 0)
	for second, i := range []int{2, 1, 3, 0} {
		line[i].Release(at(float64(second+2)), 0)
	}
	if want := []string{"c 1s", "b 2s", "d 3s", "a 4s"}; !slices.Equal(served, want) {
		t.Errorf("served %q, want %q", served, want)
	}

	c = hidden(t, "conc=2 queue=9 flex.conc=1 flex.queue=9")
	a := enter(t, c, 0, &capacity.Claim{Tier: "flex"})
	b := enter(t, c, 0, &capacity.Claim{Tier: "flex"})
	d := enter(t, c, 0, &capacity.Claim{Rank: 5})
	if a.Waiting() || !b.Waiting() || d.Waiting() {
		t.Errorf("waiting %v, %v, %v; want only the second", a.Waiting(), b.Waiting(), d.Waiting())
	}
	d.Release(0, 0)
	if !b.Waiting() {
		t.Error("a slot of another tier was taken for its own")
	}
	a.Release(0, 0)
	if b.Waiting() {
		t.Error("the tier's own slot was not given on")
	}
}

// A limit that rises serves the queue when somebody looks.
func TestServe(t *testing.T) {
	c := hidden(t, "0s conc=0 queue=9; 10s conc=1; 20s conc=2 other=0.5; 30s conc=2.9")
	var served []string
	for i := range 4 {
		queued(t, c, capacity.Claim{Model: string(rune('a' + i%2))}, string(rune('a'+i)), &served)
	}
	for second := range 50 {
		c.Serve(at(float64(second)))
	}
	if want := []string{"a 10s", "b 10s"}; !slices.Equal(served, want) {
		t.Errorf("served %q, want %q", served, want)
	}
	served = nil
	if err := c.Set(capacity.MustScript("0s conc=1; 5s conc=2"), at(60)); err != nil {
		t.Fatal(err)
	}
	c.Serve(at(64))
	c.Serve(at(65))
	if want := []string{"c 1m5s", "d 1m5s"}; !slices.Equal(served, want) {
		t.Errorf("served %q, want %q", served, want)
	}
}

// Models are served in the order in which they were first called: no run differs
// from another.
func TestServeIsRepeatable(t *testing.T) {
	c := hidden(t, "conc=0 queue=1")
	var served, want []string
	for i := range 26 {
		name := string(rune('z' - i))
		queued(t, c, capacity.Claim{Model: name}, name, &served)
		want = append(want, name+" 1s")
	}
	if err := c.Set(nil, at(1)); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(served, want) {
		t.Errorf("served %q, want %q", served, want)
	}
}

func TestGrantedMayGenerate(t *testing.T) {
	c := hidden(t, "conc=1 queue=1 otpm=60")
	a := enter(t, c, 0, &capacity.Claim{})
	b := enter(t, c, 0, &capacity.Claim{})
	b.Granted = func(now time.Duration) { b.Generate(now, 120, 0) } // set late
	a.Release(at(1), 0)
	b.Release(at(2), 0)
	expect(t, c, 60, capacity.Claim{}, capacity.OverOutput)
	expect(t, c, 62, capacity.Claim{}, "")
}

func TestSet(t *testing.T) {
	c := hidden(t, "calls=10 window=60")
	within(t, "a window's worth", float64(hammer(c, 50, 51)), 600, 0)
	for _, bad := range []capacity.Script{
		{{Set: map[string]capacity.Flow{"cals": capacity.Constant(1)}}},
		{{Set: map[string]capacity.Flow{"calls": capacity.Constant(-1)}}},
		{{At: 1}, {At: 1}},
	} {
		if err := c.Set(bad, at(52)); err == nil {
			t.Errorf("%v was accepted", bad)
		}
		if _, err := capacity.New(bad); err == nil {
			t.Errorf("%v was accepted", bad)
		}
	}
	if err := c.Set(capacity.MustScript("0s calls=10 window=60; 30s calls=20"), at(55)); err != nil {
		t.Fatal(err)
	}
	within(t, "budget kept", float64(hammer(c, 55, 84)), 0, 0)
	within(t, "the new script's step", float64(hammer(c, 85, 86)), 600, 0)
	within(t, "the rest of its minute", float64(hammer(c, 86, 115)), 0, 0)
	within(t, "its second minute", float64(hammer(c, 115, 116)), 1200, 200) // 1000 calls fit into a second of hammering

	c = hidden(t, "grow=1 floor=1 calls=50")
	hammer(c, 0, 200.5)
	before, _ := c.At(at(200.5), "", "", "calls")
	if err := c.Set(capacity.MustScript("grow=1 floor=1 calls=50"), at(200.5)); err != nil {
		t.Fatal(err)
	}
	after, _ := c.At(at(200.5), "", "", "calls")
	within(t, "what it has grown to", after, before, 1)
	hammer(c, 200.5, 210.5)
	later, _ := c.At(at(210.5), "", "", "calls")
	within(t, "ten seconds on", later, before*math.Pow(2, 10./60), 0.3)

	c = hidden(t, "calls=5")
	expect(t, c, 0, capacity.Claim{}, "")
	if err := c.Set(capacity.MustScript("calls=0"), 0); err != nil {
		t.Fatal(err)
	}
	expect(t, c, 0, capacity.Claim{}, capacity.OverCalls)
}

func TestTiersAndModels(t *testing.T) {
	one := capacity.Claim{Model: "m"}
	tier := func(name string) capacity.Claim { return capacity.Claim{Model: "m", Tier: name} }
	c := hidden(t, "calls=3 flex.calls=1 reserved.calls=1")
	for _, tc := range []struct {
		cl   capacity.Claim
		want capacity.Reason
	}{
		{tier("flex"), ""},
		{tier("flex"), capacity.OverCalls}, // by its own limit: the shared one has two left
		{tier("reserved"), ""},
		{tier("reserved"), capacity.OverCalls},
		{tier("priority"), ""},
		{one, ""},
		{one, capacity.OverCalls},
		{tier("default"), capacity.OverCalls},
		{capacity.Claim{Model: "other", Tier: "default"}, ""},
	} {
		expect(t, c, 0, tc.cl, tc.want)
	}
}

func TestAt(t *testing.T) {
	c := hidden(t, "0s calls=20 tpm=6000 other=0.25 flex.conc=4 flex.calls=5 reserved.otpm=60; 10s calls=0..10/10s; 30s calls=inf")
	for _, tc := range []struct {
		seconds        float64
		tier, resource string
		want           float64
		ok             bool
	}{
		{0, "", "calls", 15, true},
		{0, "flex", "calls", 5, true},
		{0, "default", "calls", 15, true},
		{0, "reserved", "calls", 0, false},
		{0, "reserved", "otpm", 60, true},
		{0, "", "tpm", 4500, true},
		{0, "", "conc", 0, false},
		{0, "flex", "conc", 4, true},
		{12, "flex", "calls", 1.5, true},
		{18, "flex", "calls", 5, true},
		{30, "", "calls", 0, false},
		{30, "flex", "calls", 5, true},
	} {
		got, ok := c.At(at(tc.seconds), "m", tc.tier, tc.resource)
		if ok != tc.ok || ok && math.Abs(got-tc.want) > 1e-9 {
			t.Errorf("At(%v s, %q, %q) = %v, %v; want %v, %v", tc.seconds, tc.tier, tc.resource, got, ok, tc.want, tc.ok)
		}
	}
}

// A time before the latest counts as the latest.
func TestTimeDoesNotGoBack(t *testing.T) {
	c := hidden(t, "calls=1")
	expect(t, c, 10, capacity.Claim{}, "")
	expect(t, c, 5, capacity.Claim{}, capacity.OverCalls)
	expect(t, c, 10.9, capacity.Claim{}, capacity.OverCalls)
	expect(t, c, 11, capacity.Claim{}, "")
}

func TestMistakesPanic(t *testing.T) {
	c := hidden(t, "conc=2 queue=9")
	held := enter(t, c, 0, &capacity.Claim{})
	working := enter(t, c, 0, &capacity.Claim{})
	working.Generate(0, 1, 0)
	waits := enter(t, c, 0, &capacity.Claim{})
	for name, mistake := range map[string]func(){
		"admitted twice":    func() { c.Admit(0, held, average) },
		"generates twice":   func() { working.Generate(0, 1, 0) },
		"waits, generates":  func() { waits.Generate(0, 1, 0) },
		"never admitted":    func() { new(capacity.Claim).Generate(0, 1, 0) },
		"unknown resource":  func() { c.At(0, "", "", "cals") },
		"resource, no rate": func() { c.At(0, "", "", "burst") },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			mistake()
		}()
	}
	held.Release(0, 0)
	enter(t, c, 0, held).Release(0, 0) // the same claim again
	working.Release(0, 0)
	enter(t, c, 0, working).Release(0, 0)
	waits.Release(0, 0)
	if held, _ := c.Held(); held != 0 {
		t.Errorf("%d held in the end", held)
	}
}

func TestNothingIsAllocated(t *testing.T) {
	c := hidden(t, "calls=1e6 tpm=1e12 otpm=1e12 conc=50 queue=1000 grow=9 floor=1e6 flex.calls=1e6")
	line := make([]capacity.Claim, 200)
	now, i := time.Duration(0), 0
	n := testing.AllocsPerRun(10_000, func() {
		cl := &line[i%len(line)]
		now, i = now+time.Millisecond, i+1
		cl.Release(now, cl.Tokens/2)
		*cl = capacity.Claim{Model: "m", Tier: "flex", Tokens: 100}
		if why := c.Admit(now, cl, average); why != "" {
			t.Errorf("refused by %q", why)
		}
		if !cl.Waiting() {
			cl.Generate(now, 50, 80*time.Millisecond)
		}
	})
	if n != 0 {
		t.Errorf("%v allocations a call, want none", n)
	}
}

func BenchmarkCall(b *testing.B) {
	for name, script := range map[string]string{
		"calls": "calls=1000", "tokens": "tpm=1e7", "output": "otpm=1e7", "slots": "conc=1000 queue=50",
		"window": "calls=1000 window=60", "grow": "calls=1000 grow=0.5 floor=500",
	} {
		b.Run(name, func(b *testing.B) {
			c := hidden(b, script)
			line := make([]capacity.Claim, 1000) // in flight
			now, i := time.Duration(0), 0
			b.ReportAllocs()
			for b.Loop() {
				cl := &line[i%len(line)]
				now, i = now+900*time.Microsecond, i+1
				cl.Release(now, cl.Tokens/2)
				*cl = capacity.Claim{Model: "m", Tier: "default", Tokens: 100}
				if c.Admit(now, cl, average) == "" && !cl.Waiting() {
					cl.Generate(now, 50, time.Duration(900+i%200)*time.Millisecond)
				}
			}
		})
	}
}
