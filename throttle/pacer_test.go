package throttle_test

import (
	"container/heap"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"golang.org/x/time/rate"

	"upwell/throttle"
)

// Changes of one line that these tests have been seen to catch:
//
//   - newController: the whole level; no bound; no wall. pace: dips if guided
//   - grow: guided learns as well; recovers beyond the level; outgrows the answers.
//     climb: each call after the first quarter of an hour
//   - cycle: no price; refuse: guided forgets when it was; episodes are not counted,
//     or begin with each refusal
//   - measured: not since the last refusal; idle time counts. letIn: nothing is
//     measured after an outage, or after a single cut in vain
//   - wall: never suspected; believed at once; not forgotten; no attempt beyond it;
//     its refusals are overlooked, or it is where none was; nobody waits for it
//   - meter: a level counts as one call; no largest, neither of a call nor in the
//     mean; no credit, a lasting, an endless or no negative one; lean or refusals
//     are ignored
//   - flow: a call waits for more than the bucket; no MaxInFlight; who waits for it
//     is not told
//   - Pacer: waits for one flow only; 429 is about the tier, or 503 about the quota;
//     nothing is given back to one of the flows

// A world is an endpoint, and callers who always have another call for it, on a
// clock of its own.
type world struct {
	now    time.Time
	pacer  *throttle.Pacer
	cost   func() throttle.Cost // of the next call; nil for none
	answer func(now time.Time, c throttle.Cost, inFlight int) (throttle.Feedback, time.Duration)

	flights  flights
	accepted int
	refused  int
	most     int // in flight
}

// A flight is a call that is out.
type flight struct {
	ends  time.Time
	start throttle.Start
	f     throttle.Feedback
}

type flights []flight

func (f flights) Len() int           { return len(f) }
func (f flights) Less(i, j int) bool { return f[i].ends.Before(f[j].ends) }
func (f flights) Swap(i, j int)      { f[i], f[j] = f[j], f[i] }
func (f *flights) Push(x any)        { *f = append(*f, x.(flight)) }
func (f *flights) Pop() any {
	last := (*f)[len(*f)-1]
	*f = (*f)[:len(*f)-1]
	return last
}

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func newWorld(cfg throttle.Config) *world {
	return &world{now: epoch, pacer: throttle.NewPacer(cfg)}
}

// run lets d pass.
func (w *world) run(d time.Duration) {
	end := w.now.Add(d)
	var c throttle.Cost
	have := false
	for w.now.Before(end) {
		for len(w.flights) > 0 && !w.flights[0].ends.After(w.now) {
			f := heap.Pop(&w.flights).(flight)
			w.pacer.Done(w.now, f.start, f.f)
			switch f.f.Outcome {
			case throttle.Accepted:
				w.accepted++
			case throttle.Throttled, throttle.Unavailable:
				w.refused++
			default:
			}
		}
		if !have && w.cost != nil {
			c, have = w.cost(), true
		}
		next := w.pacer.Wait(w.now, c)
		if next == 0 {
			s := w.pacer.Start(w.now, c)
			f, took := w.answer(w.now, c, len(w.flights))
			heap.Push(&w.flights, flight{w.now.Add(took), s, f})
			w.most, have = max(w.most, len(w.flights)), false
			continue
		}
		at := w.now.Add(next)
		if at.After(end) {
			at = end
		}
		if len(w.flights) > 0 && w.flights[0].ends.Before(at) {
			at = w.flights[0].ends
		}
		w.now = at
	}
}

// during returns what is accepted and refused while d passes.
func (w *world) during(d time.Duration) (accepted, refused float64) {
	a, r := w.accepted, w.refused
	w.run(d)
	return float64(w.accepted - a), float64(w.refused - r)
}

func (w *world) state() throttle.State { return w.pacer.State(w.now) }

var ok = throttle.Feedback{Outcome: throttle.Accepted}

// perSecond is an endpoint of so many calls a second, with a second's worth of
// budget. Answers take as long as took says, and refusals 50 ms.
func perSecond(r float64, took func() time.Duration) func(time.Time, throttle.Cost, int) (throttle.Feedback, time.Duration) {
	return refusing(throttle.Throttled, r, took)
}

// refusing is perSecond with another refusal.
func refusing(outcome throttle.Outcome, r float64, took func() time.Duration) func(time.Time, throttle.Cost, int) (throttle.Feedback, time.Duration) {
	b := rate.NewLimiter(rate.Limit(r), int(math.Ceil(r)))
	return func(now time.Time, _ throttle.Cost, _ int) (throttle.Feedback, time.Duration) {
		if !b.AllowN(now, 1) {
			return throttle.Feedback{Outcome: outcome}, 50 * ms
		}
		return ok, took()
	}
}

// seeds is how many a test of chance should try: so many, or one if there is no time.
func seeds(n uint64) uint64 {
	if testing.Short() {
		return 1
	}
	return n
}

func always(d time.Duration) func() time.Duration { return func() time.Duration { return d } }

// between returns random times, log-uniformly.
func between(r *rand.Rand, low, high time.Duration) func() time.Duration {
	return func() time.Duration {
		return time.Duration(float64(low) * math.Pow(float64(high)/float64(low), r.Float64()))
	}
}

// settledAt returns a world that has found out by such refusals that a second has
// room for r calls.
func settledAt(t *testing.T, outcome throttle.Outcome, r float64) *world {
	t.Helper()
	w := newWorld(throttle.Config{MaxRate: 100})
	w.answer = refusing(outcome, r, always(time.Second))
	w.run(5 * time.Minute)
	if s := w.state(); math.Abs(s.Rate-r) > 0.15*r || math.Abs(s.Stable-r) > 0.15*r {
		t.Fatalf("after 5m at %v/s: %+v", r, s)
	}
	return w
}

// land lets all calls that are out end.
func (w *world) land() {
	for len(w.flights) > 0 {
		f := heap.Pop(&w.flights).(flight)
		w.now = f.ends
		w.pacer.Done(w.now, f.start, f.f)
	}
}

// A refusal of an attempt that started before the last cut was on its way then.
func TestOldNews(t *testing.T) {
	for _, outcome := range []throttle.Outcome{throttle.Throttled, throttle.Unavailable} {
		w := settledAt(t, outcome, 20)
		w.land()
		var flight []throttle.Start
		for range 10 {
			w.now = w.now.Add(50 * ms)
			flight = append(flight, w.pacer.Start(w.now, throttle.Cost{}))
		}
		before := w.state()
		w.now = w.now.Add(ms)
		w.pacer.Done(w.now, flight[0], throttle.Feedback{Outcome: outcome})
		cut := w.state()
		if cut.Rate >= before.Rate || cut.Rate < before.Rate/2 {
			t.Errorf("%v: cut from %v to %v, want lower, and not by half", outcome, before.Rate, cut.Rate)
		}
		for _, s := range flight[1:] {
			w.now = w.now.Add(ms)
			w.pacer.Done(w.now, s, throttle.Feedback{Outcome: outcome})
			cut.InFlight--
			if got := w.state(); got != cut {
				t.Errorf("after old news of %v: %+v, want %+v", outcome, got, cut)
			}
		}
	}
}

// Timeouts, resets and answers that take minutes say nothing about room, whenever
// they come.
func TestUnrelated(t *testing.T) {
	worlds := map[string]func() *world{
		"in the search": func() *world {
			w := newWorld(throttle.Config{MaxRate: 100})
			w.answer = perSecond(1000, always(10*ms))
			w.run(time.Second)
			return w
		},
		"later": func() *world { return settledAt(t, throttle.Throttled, 20) },
	}
	for name, begin := range worlds {
		for _, f := range []throttle.Feedback{ok, {Outcome: throttle.Unrelated}} {
			w := begin()
			w.land()
			last := w.state()
			w.answer = func(time.Time, throttle.Cost, int) (throttle.Feedback, time.Duration) {
				return f, 3 * time.Minute
			}
			for range 20 {
				w.run(10 * time.Second)
				got := w.state()
				if got.Rate < last.Rate || got.ClosedUntil.After(w.now) {
					t.Fatalf("%s, slow and %v: from %+v to %+v, want no cut", name, f.Outcome, last, got)
				}
				last = got
			}
		}
	}
}

// sizes are tokens of calls that differ a hundredfold.
func sizes(r *rand.Rand) func() throttle.Cost {
	return func() throttle.Cost {
		return throttle.Cost{Input: int(100 * math.Pow(100, r.Float64()))}
	}
}

// What is counted shows in which calls are refused.
func TestBinds(t *testing.T) {
	const mean = 9900 / 4.605 // of sizes
	for _, tt := range []struct {
		want   string
		tokens float64 // per second
		calls  float64
	}{
		{"tokens", 20 * mean, math.Inf(1)},
		{"calls", math.Inf(1), 20},
	} {
		for seed := range seeds(5) {
			r := rand.New(rand.NewPCG(seed, 1))
			w := newWorld(throttle.Config{})
			w.cost = sizes(r)
			tokens := rate.NewLimiter(rate.Limit(tt.tokens), int(min(tt.tokens, 1e9)))
			calls := rate.NewLimiter(rate.Limit(tt.calls), int(min(tt.calls, 1e9)))
			w.answer = func(now time.Time, c throttle.Cost, _ int) (throttle.Feedback, time.Duration) {
				if tokens.TokensAt(now) < float64(c.Input) || calls.TokensAt(now) < 1 {
					return throttle.Feedback{Outcome: throttle.Throttled}, 50 * ms
				}
				tokens.AllowN(now, c.Input)
				calls.AllowN(now, 1)
				return throttle.Feedback{Outcome: throttle.Accepted, Used: c}, 2 * time.Second
			}
			if got := w.state().Binds; got != "" {
				t.Errorf("a new lane is bound by %q, want nothing known", got)
			}
			w.run(20 * time.Minute)
			accepted, refused := w.during(20 * time.Minute)
			if got := w.state().Binds; got != tt.want {
				t.Errorf("seed %d: bound by %q, want %q", seed, got, tt.want)
			}
			t.Logf("%s: %.1f%% used, %.2f%% refused", tt.want, accepted/240, 100*refused/accepted)
			if used := accepted / (20 * 1200); used < 0.9 || refused > 0.015*accepted {
				t.Errorf("%s, seed %d: %.1f %% used, %v of %v refused, want 90 %% and 1.5 %%", tt.want, seed, 100*used, refused, accepted)
			}
		}
	}
}

// weighed returns a lane that knows that tokens are counted, that calls have a
// thousand and that estimates of prompts are right.
func weighed(r float64) (p *throttle.Pacer, now time.Time) {
	cfg := fixed(r)
	cfg.Level = throttle.Level{Rate: r, Tokens: 1000, Weight: 1}
	p, now = throttle.NewPacer(cfg), epoch
	c := throttle.Cost{Input: 1000}
	for range 10 {
		p.Done(now, p.Start(now, c), throttle.Feedback{Used: c})
		now = now.Add(time.Hour)
	}
	return p, now
}

// Nothing is weighed before a few answers have shown what calls take.
func TestFewAnswers(t *testing.T) {
	cfg := fixed(1)
	cfg.Level = throttle.Level{Rate: 1, Tokens: 1000, Weight: 1}
	p, now := throttle.NewPacer(cfg), epoch
	c := throttle.Cost{Input: 5000, Output: 100_000}
	for i := range 10 {
		s := p.Start(now, c)
		if got := p.Wait(now, c); got != time.Second {
			t.Errorf("after %d answers a call waits %v, want 1s", i, got)
		}
		now = now.Add(time.Hour)
		p.Done(now, s, throttle.Feedback{Used: throttle.Cost{Input: 5000, Output: 50}})
	}
	p.Start(now, c)
	if got := p.Wait(now, c); got < 4*time.Second || got > 5050*ms {
		t.Errorf("after ten answers a call waits %v, want the 5s that it takes", got)
	}
}

// What a call has reserved and not used is taken off the next one's cost, up to a
// whole call.
func TestUnusedIsGivenBack(t *testing.T) {
	c := throttle.Cost{Input: 1000}
	for _, tt := range []struct {
		name string
		used []int // by each of as many calls
		want [2]time.Duration
	}{
		{"all", []int{1000}, [2]time.Duration{time.Second, time.Second}},
		{"half", []int{500}, [2]time.Duration{500 * ms, time.Second}},
		{"twice half", []int{500, 500}, [2]time.Duration{time.Second, time.Second}},
		{"next to nothing, four times", []int{1, 1, 1, 1}, [2]time.Duration{3 * time.Second, time.Second}},
		{"twice as many", []int{2000}, [2]time.Duration{time.Second, 2 * time.Second}}, // as the bucket has no room for two
		{"unknown", []int{0}, [2]time.Duration{time.Second, time.Second}},
	} {
		p, now := weighed(1)
		var out []throttle.Start
		for range tt.used {
			out = append(out, p.Start(now, c))
		}
		for i, s := range out {
			p.Done(now, s, throttle.Feedback{Used: throttle.Cost{Input: tt.used[i]}})
		}
		// What is learned of estimates is for another test.
		for i, want := range tt.want {
			est := c
			if u := tt.used[0]; u > 0 {
				est = throttle.Cost{Output: 1000}
			}
			got := p.Wait(now, est)
			if (got - want).Abs() > 20*ms {
				t.Errorf("%s used: call %d after that waits %v, want %v", tt.name, i, got, want)
			}
			now = now.Add(got)
			p.Start(now, est)
		}
	}
}

// More than one call's is lost, even on a call that is larger.
func TestUnusedIsLost(t *testing.T) {
	p, now := weighed(1)
	var out []throttle.Start
	for range 4 {
		out = append(out, p.Start(now, throttle.Cost{Input: 1000}))
	}
	for _, s := range out {
		p.Done(now, s, throttle.Feedback{Used: throttle.Cost{Input: 1}})
	}
	now = now.Add(time.Minute)
	p.Start(now, throttle.Cost{Output: 3000})
	if got := p.Wait(now, throttle.Cost{Output: 1000}); (got - 2*time.Second).Abs() > 50*ms {
		t.Errorf("after a call of three times the mean, and much unused before, the next waits %v, want 2s", got)
	}
}

// A wrong estimate costs what two hundred calls do, at most, and goes at once.
func TestHugeCall(t *testing.T) {
	for _, huge := range []int{200_000, 1e9, math.MaxInt} {
		p, now := weighed(10)
		if got := p.Wait(now, throttle.Cost{Input: huge}); got != 0 {
			t.Errorf("a call of %d tokens waits %v for a full bucket, want 0", huge, got)
		}
		p.Start(now, throttle.Cost{Input: huge})
		got := p.Wait(now, throttle.Cost{Input: 1000})
		if got < 19*time.Second || got > 20*time.Second {
			t.Errorf("after a call of %d tokens the next waits %v, want 20s", huge, got)
		}
		now = now.Add(got)
		p.Start(now, throttle.Cost{Input: 1000})
		if got := p.Wait(now, throttle.Cost{Input: 1000}); got < 80*ms || got > 100*ms {
			t.Errorf("after a call of %d tokens the usual ones come each %v, want about 100ms still", huge, got)
		}
	}
}

// slots is an endpoint with room for n calls, which take as long as took says.
func slots(n *int, took func() time.Duration) func(time.Time, throttle.Cost, int) (throttle.Feedback, time.Duration) {
	busy := flights{}
	return func(now time.Time, _ throttle.Cost, _ int) (throttle.Feedback, time.Duration) {
		for len(busy) > 0 && !busy[0].ends.After(now) {
			heap.Pop(&busy)
		}
		if len(busy) >= *n {
			return throttle.Feedback{Outcome: throttle.Unavailable}, 50 * ms
		}
		d := took()
		heap.Push(&busy, flight{ends: now.Add(d)})
		return ok, d
	}
}

func TestWall(t *testing.T) {
	for seed := range seeds(5) {
		n := 20
		w := newWorld(throttle.Config{})
		w.answer = slots(&n, between(rand.New(rand.NewPCG(seed, 2)), 2*time.Second, 10*time.Second))
		w.run(15 * time.Minute)
		for _, want := range []int{20, 40} {
			n = want
			if want == 40 {
				w.run(10 * time.Minute)
			}
			w.most = 0
			accepted, refused := w.during(10 * time.Minute)
			s := w.state()
			t.Logf("%d slots, seed %d: %v accepted, %v refused, at most %d in flight, %+v", n, seed, accepted, refused, w.most, s)
			if s.Binds != "in flight" {
				t.Errorf("%d slots, seed %d: bound by %q, want in flight", n, seed, s.Binds)
			}
			if w.most < n || w.most > n+2 {
				t.Errorf("%d slots, seed %d: %d in flight at most, want %d, and one or two that are refused", n, seed, w.most, n)
			}
			if refused > 0.03*accepted {
				t.Errorf("%d slots, seed %d: %v of %v refused, want 3 %%", n, seed, refused, accepted)
			}
			if used := accepted * 4.97 / (600 * float64(n)); used < 0.9 {
				t.Errorf("%d slots, seed %d: %.2f used, want 0.9", n, seed, used)
			}
		}
	}
}

func TestNoWall(t *testing.T) {
	for seed := range seeds(10) {
		w := newWorld(throttle.Config{})
		w.answer = perSecond(20, between(rand.New(rand.NewPCG(seed, 3)), 500*ms, 20*time.Second))
		for range 40 {
			w.run(time.Minute)
			if s := w.state(); s.Binds == "in flight" {
				t.Errorf("seed %d: in flight binds after %v: %+v", seed, w.now.Sub(epoch), s)
				break
			}
		}
		if s := w.state(); s.Binds != "calls" {
			t.Errorf("seed %d: bound by %q, want calls", seed, s.Binds)
		}
	}
}

// An endpoint that counts calls by the minute lets all in at first and none at last,
// and what it lets in is its level all the same.
func TestWindows(t *testing.T) {
	for _, perMinute := range []int{60, 300, 3000} {
		if testing.Short() && perMinute > 1000 {
			continue
		}
		w := newWorld(throttle.Config{})
		window, left := time.Time{}, 0
		w.answer = func(now time.Time, _ throttle.Cost, _ int) (throttle.Feedback, time.Duration) {
			if m := now.Truncate(time.Minute); !m.Equal(window) {
				window, left = m, perMinute
			}
			if left == 0 {
				return throttle.Feedback{Outcome: throttle.Throttled}, 50 * ms
			}
			left--
			return ok, time.Second
		}
		w.run(10 * time.Minute)
		accepted, refused := w.during(20 * time.Minute)
		want := float64(perMinute) / 60
		t.Logf("%d a minute: %.1f%% used, %v refused, %+v", perMinute, 100*accepted/float64(20*perMinute), refused, w.state())
		// At 50 a second the rate quickens within a window, and this is not to be had.
		if s := w.state(); perMinute < 1000 && math.Abs(s.Stable-want) > 0.15*want {
			t.Errorf("%d a minute: stable at %.2f/s, want %.2f/s", perMinute, s.Stable, want)
		}
		if accepted < 0.9*float64(20*perMinute) || refused > 0.015*accepted+10 {
			t.Errorf("%d a minute: %v accepted and %v refused in 20 minutes", perMinute, accepted, refused)
		}
	}
}

// What was stable at another time is nearly reached within seconds.
func TestBeginsWithALevel(t *testing.T) {
	w := newWorld(throttle.Config{Level: throttle.Level{Rate: 50}})
	w.answer = perSecond(55, always(time.Second))
	if s := w.state(); s.Rate != 25 || s.Stable != 50 {
		t.Errorf("starts with %+v, want 25/s, and 50 stable", s)
	}
	for w.state().Reason != "grew" && w.now.Sub(epoch) < time.Minute {
		w.run(10 * ms)
		if s := w.state(); s.Rate > 50.1 {
			t.Fatalf("after %v: %+v, want 50/s, and then slowly", w.now.Sub(epoch), s)
		}
	}
	if got := w.now.Sub(epoch); got > time.Second {
		t.Errorf("back after %v, want a second", got)
	}
	w.run(time.Second)
	if s := w.state(); s.Rate < 49 || s.Rate > 55 {
		t.Errorf("after 2s: %+v, want 50/s", s)
	}
	if w.refused > 0 {
		t.Errorf("%d refused, want none", w.refused)
	}
}

func TestLevelMuchTooHigh(t *testing.T) {
	for _, took := range []time.Duration{time.Second, 20 * time.Second} {
		w := newWorld(throttle.Config{Level: throttle.Level{Rate: 500}})
		w.answer = perSecond(50, always(took))
		w.run(time.Minute)
		first := w.refused
		accepted, refused := w.during(2 * time.Minute)
		t.Logf("answers after %v: %d refused in the first minute, %v and %v later, %+v", took, first, refused, accepted, w.state())
		if first > 150 {
			t.Errorf("%d refused in the first minute, want 150 at most", first)
		}
		if accepted < 0.9*50*120 || refused > 0.02*accepted {
			t.Errorf("%v accepted and %v refused in the next two, want 90 %% and 2 %%", accepted, refused)
		}
	}
}

func TestLevelOfAWall(t *testing.T) {
	w := newWorld(throttle.Config{Level: throttle.Level{Rate: 4, InFlight: 20}})
	n := 20
	w.answer = slots(&n, always(5*time.Second))
	if s := w.state(); s.Binds != "in flight" {
		t.Errorf("starts with %+v, want it to know what binds", s)
	}
	for range 20 {
		w.run(time.Minute)
		if s := w.state(); s.Binds != "in flight" || w.most > n+2 {
			t.Errorf("after %v %d in flight at most, %+v, want the level to be believed", w.now.Sub(epoch), w.most, s)
		}
	}
	if w.refused > 60 {
		t.Errorf("%d refused in 20 minutes, want 60 at most", w.refused)
	}
	guided := newWorld(throttle.Config{StartRate: 5, Guided: true, Level: throttle.Level{Rate: 400}})
	if s := guided.state(); s.Rate != 5 {
		t.Errorf("guided: starts with %+v, want 5/s whatever the level", s)
	}
	if s := newWorld(throttle.Config{MaxRate: 10, Level: throttle.Level{Rate: 50}}).state(); s.Rate != 5 || s.Stable != 10 {
		t.Errorf("a level above the bound: starts with %+v, want half the bound", s)
	}
	if s := newWorld(throttle.Config{MinRate: 10, Level: throttle.Level{Rate: 12}}).state(); s.Rate != 10 {
		t.Errorf("half a level below the bound: starts with %+v, want the bound", s)
	}
}

// AWS's ramp: half at a refusal, and by half more after a quarter of an hour.
func TestGuided(t *testing.T) {
	p, now := throttle.NewPacer(throttle.Config{StartRate: 4, MaxRate: 10, Guided: true}), epoch
	rate := func(what string, want float64) {
		t.Helper()
		if got := p.State(now).Rate; !near(got, want) {
			t.Errorf("rate %s = %v, want %v", what, got, want)
		}
	}
	// send sends for d, with somebody waiting all the time.
	send := func(d time.Duration, f throttle.Feedback) {
		for end := now.Add(d); ; {
			w := p.Wait(now, throttle.Cost{})
			if w == 0 {
				p.Done(now, p.Start(now, throttle.Cost{}), f)
				continue
			}
			if now = now.Add(w); now.After(end) {
				now = end
				return
			}
		}
	}
	send(15*time.Minute-time.Second, ok)
	rate("a second early", 4)
	send(2*time.Second, ok)
	rate("after 15 minutes", 6)
	send(15*time.Minute-3*time.Second, ok)
	rate("before another 15", 6)
	send(4*time.Second, throttle.Feedback{Outcome: throttle.Unrelated})
	rate("after another 15", 9)
	send(15*time.Minute, ok)
	rate("at the bound", 10)
	send(10*time.Minute, ok)

	for _, outcome := range []throttle.Outcome{throttle.Throttled, throttle.Unavailable} {
		s := p.Start(now, throttle.Cost{})
		now = now.Add(time.Second)
		p.Done(now, s, throttle.Feedback{Outcome: outcome})
		rate("after "+outcome.String(), 5)
	}
	send(14*time.Minute+50*time.Second, ok)
	rate("in the 15 minutes after that", 5)
	send(11*time.Second, ok)
	rate("and then", 7.5)
	for range 20 { // in a row, which would be probed otherwise
		s := p.Start(now, throttle.Cost{})
		now = now.Add(time.Second)
		p.Done(now, s, throttle.Feedback{Outcome: throttle.Throttled})
	}
	rate("after twenty refusals", max(7.5*math.Pow(0.5, 20), 0.05))
	if s := p.State(now); s.Reason != "cut: 429" || s.ClosedUntil.After(now) {
		t.Errorf("after twenty refusals: %+v, want no closure", s)
	}
}

// The bound holds, and whoever waits for it leaves when a call ends.
func TestMaxInFlight(t *testing.T) {
	cfg := fixed(1000)
	cfg.MaxInFlight = 7
	w := newWorld(cfg)
	w.answer = func(time.Time, throttle.Cost, int) (throttle.Feedback, time.Duration) { return ok, 300 * ms }
	accepted, _ := w.during(10 * time.Second)
	if w.most != 7 || accepted < 7*32 {
		t.Errorf("%d in flight at most, %v accepted in 10s, want 7 and 231", w.most, accepted)
	}
	p, now := throttle.NewPacer(cfg), epoch
	var out []throttle.Start
	for range 7 {
		now = now.Add(ms)
		if wait := p.Wait(now, throttle.Cost{}); wait > 0 {
			t.Errorf("call %d waits %v, want 0", len(out), wait)
		}
		out = append(out, p.Start(now, throttle.Cost{}))
	}
	if p.Wait(now.Add(time.Second), throttle.Cost{}) == 0 {
		t.Error("an eighth call may start, want 7 at most")
	}
	if !p.Done(now, out[0], throttle.Feedback{Outcome: throttle.Unrelated}) {
		t.Error("Done = false, want those who wait to be told")
	}
}

// Capacity that has grown is found in doublings that each last as long as an answer.
func TestGrowthWaitsForAnswers(t *testing.T) {
	w := newWorld(throttle.Config{MaxRate: 400})
	w.answer = perSecond(20, always(30*time.Second))
	w.run(20 * time.Minute)
	w.answer = perSecond(1e6, always(30*time.Second))
	last := w.state().Rate
	for end := w.now.Add(8 * time.Minute); last < 200 && w.now.Before(end); {
		w.run(15 * time.Second)
		got := w.state().Rate
		if got > 1.05*math.Sqrt2*last {
			t.Errorf("grew from %.1f/s to %.1f/s in half the time of an answer, want %.1f/s at most", last, got, math.Sqrt2*last)
		}
		last = got
	}
	if last < 200 {
		t.Errorf("grew to %.1f/s, want 200/s at least", last)
	}
}

// Workers that know nothing of each other grow slowly however long they are not
// refused, and cut deeper.
func TestShared(t *testing.T) {
	w := newWorld(throttle.Config{Shared: true, Level: throttle.Level{Rate: 20}})
	w.answer = perSecond(1e6, always(100*ms))
	w.run(2 * time.Second)
	w.run(30 * time.Second)
	if s := w.state(); s.Rate < 20*1.05 || s.Rate > 20*1.2 {
		t.Errorf("from 20/s to %v/s in half a minute, want 5 %% to 20 %%", s.Rate)
	}
	w.run(2 * time.Minute)
	if s := w.state(); s.Rate < 20*1.1 {
		t.Errorf("from 20/s to %v/s in two and a half, want 10 %% at least", s.Rate)
	}
	w.land()
	before := w.state().Stable
	s := w.pacer.Start(w.now, throttle.Cost{})
	w.now = w.now.Add(ms)
	w.pacer.Done(w.now, s, throttle.Feedback{Outcome: throttle.Throttled})
	if got := w.state().Rate; got > 0.9*before || got < 0.6*before {
		t.Errorf("cut from %v/s to %v/s, want 10 %% to 40 %%", before, got)
	}
}

// Capacity that is another than before is found, by either kind of refusal, and
// whether calls went on meanwhile or not.
func TestAnotherCapacity(t *testing.T) {
	for _, outcome := range []throttle.Outcome{throttle.Throttled, throttle.Unavailable} {
		for _, idle := range []time.Duration{0, time.Hour} {
			for _, r := range []float64{1, 2, 5, 10, 15, 60} {
				if testing.Short() && r > 10 {
					continue
				}
				w := settledAt(t, outcome, 20)
				w.land()
				w.now = w.now.Add(idle)
				w.answer = refusing(outcome, r, always(time.Second))
				w.run(4 * time.Minute)
				accepted, refused := w.during(5 * time.Minute)
				if accepted < 0.85*300*r || refused > 0.015*accepted+2 {
					t.Errorf("%v, from 20/s to %v/s after %v: %v accepted and %v refused in five minutes, %+v", outcome, r, idle, accepted, refused, w.state())
				}
			}
		}
	}
}
