package mantlesim_test

import (
	"context"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"upwell/worker/mantle/mantlesim"
	"upwell/worker/mantle/mantlesim/capacity"
)

// hammer calls every millisecond for d and returns how many were admitted in
// each second. It needs latency zero.
func hammer(s *mantlesim.Server, d time.Duration, body string) (perSecond []int) {
	for start := time.Now(); time.Since(start) < d; time.Sleep(time.Millisecond) {
		second := int(time.Since(start) / time.Second)
		for len(perSecond) <= second {
			perSecond = append(perSecond, 0)
		}
		if post(s, responses, body).Code == 200 {
			perSecond[second]++
		}
	}
	return perSecond
}

func sum(n []int) (total int) {
	for _, v := range n {
		total += v
	}
	return total
}

func TestCallsPerSecond(t *testing.T) {
	for _, tc := range []struct {
		script string
		spans  []int // ends of spans, in seconds
		want   []int // admitted in each span
	}{
		{"calls=20", []int{1, 2, 30}, []int{40, 20, 560}}, // the bucket starts full: one second's worth
		{"calls=20 burst=3", []int{1, 10}, []int{80, 180}},
		{"0s calls=20; 4s calls=40; 8s calls=10", []int{4, 8, 12}, []int{100, 160, 40}},
		{"calls=0", []int{5}, []int{0}},
		{"0s calls=20; 2s calls=0; 4s calls=20", []int{2, 4, 6}, []int{60, 0, 40}},
		{"calls=10..30/10s", []int{10, 12}, []int{10 + 200, 60}},
		{"calls=20~10/8s", []int{4, 8}, []int{20 + 80 + 25, 80 - 25}}, // half a sine holds 10·8/π ≈ 25.5
		{"calls=40 other=0.25", []int{1, 5}, []int{60, 120}},
		{"0s other=0.5 calls=40; 3s other=0", []int{3, 6}, []int{80, 120}},
		{"2s calls=5", []int{2, 4}, []int{2000, 15}}, // no limit before it is named
		{"0s calls=5; 1s calls=inf; 2s calls=5", []int{1, 2, 4}, []int{10, 1000, 15}},
		{"calls=0.5", []int{10}, []int{6}}, // a bucket holds at least one call
		{"calls=20 window=5", []int{1, 5, 6}, []int{100, 0, 100}},
		{"calls=15 grow=0.5 floor=10", []int{1, 60, 100}, []int{20, 671, 588}}, // from 10 to 15 in about a minute
	} {
		synctest.Test(t, func(t *testing.T) {
			s := mantlesim.New(mantlesim.Config{Capacity: capacity.MustScript(tc.script)})
			time.Sleep(time.Hour) // the clock starts with the first call
			got := hammer(s, time.Duration(tc.spans[len(tc.spans)-1])*time.Second, grok("hi"))
			from := 0
			for i, to := range tc.spans {
				within(t, tc.script, float64(sum(got[from:to])), float64(tc.want[i]), 1)
				from = to
			}
		})
	}
}

func TestCapacityCanBeReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := mantlesim.New(mantlesim.Config{Capacity: capacity.MustScript("calls=10")})
		hammer(s, 2*time.Second, grok("hi"))
		if err := s.SetCapacity(capacity.MustScript("0s calls=30; 3s calls=0")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second / 2) // the level, empty, was kept; its clock runs
		got := hammer(s, 3*time.Second, grok("hi"))
		within(t, "half a second saved and the first second", float64(got[0]), 45, 1)
		within(t, "three seconds at 30", float64(sum(got)), 90, 1)
		if err := s.SetCapacity(capacity.Script{{Set: map[string]capacity.Flow{"cals": capacity.Constant(1)}}}); err == nil {
			t.Error("an unknown resource was accepted")
		}
	})
}

func TestModelsDoNotShareCapacity(t *testing.T) {
	s := mantlesim.New(mantlesim.Config{Capacity: capacity.MustScript("calls=0.001")})
	for _, model := range []string{"xai.grok-4.3", "xai.grok-4.6"} {
		body := `{"model":"` + model + `","input":"hi"}`
		if a, b := post(s, responses, body), post(s, responses, body); a.Code != 200 || b.Code != 429 {
			t.Errorf("%s: %d, %d; want 200, 429", model, a.Code, b.Code)
		}
	}
}

func TestTokensAreReturned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// A bucket of 10,000 tokens. A call reserves 1 + 4000 and uses about 150.
		s := mantlesim.New(mantlesim.Config{Capacity: capacity.MustScript("tpm=10000"), Latency: steady(time.Second)})
		body := grok("hi", `,"max_output_tokens":4000`)
		var wg sync.WaitGroup
		codes := make([]int, 3)
		for i := range codes {
			wg.Go(func() {
				time.Sleep(time.Duration(i) * time.Millisecond)
				codes[i] = post(s, responses, body).Code
			})
		}
		wg.Wait()
		if !slices.Equal(codes, []int{200, 200, 429}) {
			t.Fatalf("while both reservations stand: %v, want 200 200 429", codes)
		}
		spent := s.Counts().Usage
		if spent.Output == 0 || spent.Output > 2000 {
			t.Fatalf("usage %+v is not what this test needs", spent)
		}
		for i := range 2 { // what was not used is back: two more fit
			wg.Go(func() { codes[i] = post(s, responses, body).Code })
		}
		wg.Wait()
		if codes[0] != 200 || codes[1] != 200 {
			t.Errorf("after the reservations were settled: %v, want 200 200", codes[:2])
		}
		if e := s.Ledger(); e[0].Reason != "tpm" || e[0].Status != 429 {
			t.Errorf("first to end: %+v, want the refusal by tpm", e[0])
		}
	})
}

// An unset limit reserves the model's maximum.
func TestUnsetLimitReservesTheMaximum(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := mantlesim.New(mantlesim.Config{Capacity: capacity.MustScript("tpm=200000"), Latency: steady(time.Second)})
		var wg sync.WaitGroup
		defer wg.Wait()
		wg.Go(func() { post(s, responses, grok("hi")) }) // takes 131,073 of 200,000
		synctest.Wait()
		if got := post(s, responses, grok("hi")).Code; got != 429 {
			t.Errorf("a second maximum = %d, want 429", got)
		}
	})
}

// Throughput is limited, not size: what exceeds the bucket is admitted by a full
// one, and leaves it in debt.
func TestCallLargerThanTheBucket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := mantlesim.New(mantlesim.Config{Capacity: capacity.MustScript("tpm=600"), Output: mantlesim.Size{Median: 100}})
		long := make([]byte, 4500*10)
		for i := range long {
			long[i] = "word "[i%5]
		}
		if got := post(s, responses, grok(string(long), `,"max_output_tokens":5000`)).Code; got != 200 {
			t.Fatalf("first = %d, want 200", got)
		}
		used := float64(s.Counts().Usage.Input + s.Counts().Usage.Output)
		refused := time.Now()
		for post(s, responses, grok("hi", `,"max_output_tokens":200`)).Code != 200 {
			time.Sleep(time.Second)
		}
		// The debt, and then the new call's own reservation, at 10 tokens/s.
		within(t, "seconds in debt", time.Since(refused).Seconds(), (used-600+201)/10, 2)
	})
}

func TestCachedInputIsNotCharged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := mantlesim.New(mantlesim.Config{Capacity: capacity.MustScript("tpm=3300"), CacheTokens: 100})
		long := make([]byte, 9000) // 2000 tokens
		for i := range long {
			long[i] = "word "[i%5]
		}
		body := grok(string(long), `,"max_output_tokens":900`)
		if got := post(s, responses, body).Code; got != 200 {
			t.Fatalf("first = %d", got)
		}
		a := post(s, responses, body)
		if a.Code != 200 || at(a.decode(t), "usage", "input_tokens_details", "cached_tokens") != 2000. {
			t.Errorf("second = %d %s, want 200 with 2000 cached", a.Code, a.Text)
		}
	})
}

// Output tokens count while they are generated: the bucket of 600 is empty after
// 30 s, and full enough again once the client has hung up and 10 s have passed.
func TestOutputIsChargedAsItComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := mantlesim.New(mantlesim.Config{
			Capacity: capacity.MustScript("otpm=600"), Latency: steady(100 * time.Second), Output: mantlesim.Size{Median: 3000},
		})
		ctx, cancel := context.WithTimeout(t.Context(), 31*time.Second)
		defer cancel()
		first := start(ctx, s, grok("hi", `,"reasoning":{"effort":"none"}`))
		time.Sleep(29 * time.Second)
		late, stop := context.WithCancel(t.Context())
		second := start(late, s, grok("hi", `,"max_output_tokens":1`))
		time.Sleep(1500 * time.Millisecond)
		a := post(s, responses, grok("hi"))
		if msg, _ := at(a.decode(t), "error", "message").(string); a.Code != 429 || !strings.Contains(msg, "tokens") {
			t.Errorf("with the bucket empty = %d %q, want 429 about tokens", a.Code, msg)
		}
		if n := s.Counts(); n.Reasons["otpm"] != 1 || n.InFlight != 2 {
			t.Errorf("counts = %+v, want two in flight and one refusal by otpm", n)
		}
		<-first
		time.Sleep(10 * time.Second)
		start(late, s, grok("hi"))
		if n := s.Counts(); n.Reasons["otpm"] != 1 || n.InFlight != 2 {
			t.Errorf("counts = %+v, want no further refusal", n)
		}
		stop()
		<-second
	})
}

func TestNoise(t *testing.T) {
	s := mantlesim.New(mantlesim.Config{Capacity: capacity.MustScript("noise=0.2 refuse=0.1")})
	for range 1000 {
		if a := post(s, responses, grok("hi")); a.Code == 429 && a.code(t) != "rate_limit_exceeded" {
			t.Fatalf("noise = %s", a.Text)
		}
	}
	n := s.Counts()
	within(t, "noise", float64(n.Reasons["noise"]), 200, 50)
	within(t, "refused by the tier", float64(n.Reasons["refuse"]), 100, 40)
	if n.Refused429 != n.Reasons["noise"] || n.Refused503 != n.Reasons["refuse"] || n.Answered+n.Refused429+n.Refused503 != 1000 {
		t.Errorf("counts = %+v", n)
	}
}

// start makes a call in the background and sends its status.
func start(ctx context.Context, s *mantlesim.Server, body string) chan int {
	c := make(chan int, 1)
	go func() { c <- postContext(ctx, s, responses, body).Code }()
	synctest.Wait()
	return c
}

func TestSlotsAndQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := mantlesim.New(mantlesim.Config{Capacity: capacity.MustScript("conc=2 queue=1 wait=60"), Latency: steady(10 * time.Second)})
		begin := time.Now()
		a, b := start(t.Context(), s, grok("a")), start(t.Context(), s, grok("b"))
		queued := start(t.Context(), s, grok("c"))
		if got := post(s, responses, grok("d")).Code; got != 503 {
			t.Errorf("with the queue full = %d, want 503", got)
		}
		<-a
		<-b
		within(t, "two slots", time.Since(begin).Seconds(), 10, 0)
		<-queued
		within(t, "queued", time.Since(begin).Seconds(), 20, 0)
		if n := s.Counts(); n.Answered != 3 || n.Reasons["conc"] != 1 || n.PeakInFlight != 4 || n.InFlight != 0 {
			t.Errorf("counts = %+v", n)
		}
	})
}

func TestQueueWaitEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := mantlesim.New(mantlesim.Config{Capacity: capacity.MustScript("conc=1 queue=9 wait=5 tpm=1e6"), Latency: steady(time.Minute)})
		first := start(t.Context(), s, grok("a"))
		begin := time.Now()
		if got := post(s, responses, grok("b")).Code; got != 503 {
			t.Errorf("= %d, want 503", got)
		}
		within(t, "patience", time.Since(begin).Seconds(), 5, 0.1)
		if <-first != 200 {
			t.Error("the call with the slot was disturbed")
		}
		if n := s.Counts(); n.Reasons["wait"] != 1 || n.Billed != 1 {
			t.Errorf("counts = %+v", n)
		}
	})
}

func TestLeavingTheQueueGivesUpThePlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := mantlesim.New(mantlesim.Config{Capacity: capacity.MustScript("conc=1 queue=1 wait=60"), Latency: steady(10 * time.Second)})
		first := start(t.Context(), s, grok("a"))
		ctx, cancel := context.WithCancel(t.Context())
		second := start(ctx, s, grok("b"))
		cancel()
		<-second
		third := start(t.Context(), s, grok("c"))
		if <-first != 200 || <-third != 200 {
			t.Error("the freed place was not given on")
		}
		if n := s.Counts(); n.Gone != 1 || n.Billed != 2 {
			t.Errorf("counts = %+v", n)
		}
	})
}

// A limit that a script raises lets the queue move within a tenth of a second,
// one raised by hand at once.
func TestRisingLimitServesTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := mantlesim.New(mantlesim.Config{Capacity: capacity.MustScript("0s conc=1 queue=9 wait=600; 30s conc=2"), Latency: steady(100 * time.Second)})
		begin := time.Now()
		start(t.Context(), s, grok("a"))
		second, third := start(t.Context(), s, grok("b")), start(t.Context(), s, grok("c"))
		<-second
		within(t, "second", time.Since(begin).Seconds(), 130, 0.1)
		<-third
		within(t, "third", time.Since(begin).Seconds(), 200, 0.1)

		s.Reset()
		begin = time.Now()
		start(t.Context(), s, grok("a"))
		second = start(t.Context(), s, grok("b"))
		time.Sleep(3 * time.Second)
		if err := s.SetCapacity(capacity.MustScript("conc=5")); err != nil {
			t.Error(err)
		}
		<-second
		within(t, "by hand", time.Since(begin).Seconds(), 103, 0)
	})
}

func TestTiersShareAndHaveTheirOwn(t *testing.T) {
	flex, priority := `,"service_tier":"flex"`, `,"service_tier":"priority"`
	synctest.Test(t, func(t *testing.T) {
		s := mantlesim.New(mantlesim.Config{Capacity: capacity.MustScript("calls=10 flex.calls=2")})
		if got := sum(hammer(s, 10*time.Second, grok("hi", flex))); got < 21 || got > 22 {
			t.Errorf("flex admitted %d in 10 s, want 2 + 20", got)
		}
		s.Reset()
		got := 0
		for range 30 { // all at once: the shared bucket of 10 decides
			for _, tier := range []string{"", flex, priority} {
				if post(s, responses, grok("hi", tier)).Code == 200 {
					got++
				}
			}
		}
		if got != 10 {
			t.Errorf("three tiers together admitted %d at once, want 10", got)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		s := mantlesim.New(mantlesim.Config{Capacity: capacity.MustScript("calls=0 reserved.calls=3")})
		reserved := `{"model":"openai.gpt-5.5","input":"hi","service_tier":"reserved"}`
		if a, b := sum(hammer(s, time.Second, reserved)), post(s, responses, `{"model":"openai.gpt-5.5","input":"hi"}`).Code; a < 5 || b != 429 {
			t.Errorf("reserved admitted %d beside a shared quota of 0 (%d), want 5 or 6 and 429", a, b)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		s := mantlesim.New(mantlesim.Config{
			Capacity: capacity.MustScript("flex.refuse=0.3 slow=2"), Latency: steady(time.Second),
			Tiers: map[string]mantlesim.Tier{"flex": {Latency: 5, Status: 429}},
		})
		refused := 0
		for range 400 {
			begin := time.Now()
			a := post(s, responses, grok("hi", flex))
			if a.Code == 429 && a.code(t) == "capacity_unavailable" {
				refused++
			} else {
				within(t, "flex latency", time.Since(begin).Seconds(), 10, 0)
			}
		}
		within(t, "flex refusals", float64(refused), 120, 40)
		begin := time.Now()
		a := post(s, responses, grok("hi", priority))
		within(t, "priority latency", time.Since(begin).Seconds(), 1.6, 0)
		if got := at(a.decode(t), "service_tier"); got != "priority" {
			t.Errorf("served %v", got)
		}
		if n := s.Counts(); n.Cost == 0 || n.Reasons["refuse"] != int64(refused) {
			t.Errorf("counts = %+v", n)
		}
	})
}

// Priority goes ahead in the queue, but while it waits for a slot of its own tier
// it holds nobody up.
func TestQueueOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := mantlesim.New(mantlesim.Config{Capacity: capacity.MustScript("conc=1 queue=9 wait=999"), Latency: steady(10 * time.Second)})
		start(t.Context(), s, grok("a"))
		var calls []chan int
		for _, tier := range []string{"flex", "default", "priority"} {
			calls = append(calls, start(t.Context(), s, grok("hi", `,"service_tier":"`+tier+`"`)))
		}
		for _, c := range calls {
			<-c
		}
		var order []string
		for _, e := range s.Ledger() {
			order = append(order, e.Served)
		}
		if want := []string{"default", "priority", "default", "flex"}; !slices.Equal(order, want) {
			t.Errorf("answered %v, want %v", order, want)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		s := mantlesim.New(mantlesim.Config{Capacity: capacity.MustScript("conc=2 priority.conc=1 queue=9 priority.queue=9"), Latency: steady(time.Second)})
		begin := time.Now()
		start(t.Context(), s, grok("a", `,"service_tier":"priority"`))
		waiting := start(t.Context(), s, grok("b", `,"service_tier":"priority"`))
		post(s, responses, grok("c"))
		within(t, "default beside priority", time.Since(begin).Seconds(), 1, 0)
		<-waiting
		within(t, "second priority", time.Since(begin).Seconds(), 1.6, 0)
	})
}

func TestRefusals(t *testing.T) {
	over := capacity.MustScript("calls=0")
	for name, tc := range map[string]struct {
		refusal mantlesim.Refusal
		code    int
		kind    string
		header  string
	}{
		"default":    {mantlesim.Refusal{}, 429, "rate_limit_error", ""},
		"seconds":    {mantlesim.Refusal{RetryAfter: 2500 * time.Millisecond}, 429, "rate_limit_error", "3"},
		"date":       {mantlesim.Refusal{RetryAfter: time.Minute, RetryDate: true}, 429, "rate_limit_error", "Sat, 01 Jan 2000 00:01:01 GMT"},
		"status":     {mantlesim.Refusal{Quota: 503}, 503, "service_unavailable_error", ""},
		"unavail":    {mantlesim.Refusal{Unavailable: 1}, 503, "service_unavailable_error", ""},
		"overloaded": {mantlesim.Refusal{Overloaded: 1}, 529, "overloaded_error", ""},
	} {
		synctest.Test(t, func(t *testing.T) {
			tc.refusal.Delay = time.Second
			s := mantlesim.New(mantlesim.Config{Capacity: over, Refusal: tc.refusal})
			begin := time.Now()
			a := post(s, responses, grok("hi"))
			within(t, "delay", time.Since(begin).Seconds(), 1, 0)
			if kind := at(a.decode(t), "error", "type"); a.Code != tc.code || kind != tc.kind || a.Header.Get("Retry-After") != tc.header {
				t.Errorf("%s: %d %v %q, want %d %s %q", name, a.Code, kind, a.Header.Get("Retry-After"), tc.code, tc.kind, tc.header)
			}
		})
	}
	s := mantlesim.New(mantlesim.Config{Capacity: over, Refusal: mantlesim.Refusal{Unavailable: 0.25, Overloaded: 0.25}})
	for range 1000 {
		post(s, responses, grok("hi"))
	}
	n := s.Counts()
	within(t, "429", float64(n.Refused429), 500, 80)
	within(t, "503", float64(n.Refused503), 250, 60)
	within(t, "529", float64(n.Refused529), 250, 60)
}

func TestLatency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := mantlesim.New(mantlesim.Config{
			Latency: mantlesim.Latency{Median: 10 * time.Second, Sigma: 0.8, Min: 2 * time.Second, Max: 60 * time.Second, Correlation: 0.9},
			Output:  mantlesim.Size{Median: 100, Sigma: 0.8},
		})
		var took, size []float64
		for range 1000 {
			begin := time.Now()
			a := post(s, responses, grok("hi", `,"reasoning":{"effort":"none"}`))
			took = append(took, time.Since(begin).Seconds())
			size = append(size, at(a.decode(t), "usage", "output_tokens").(float64))
		}
		within(t, "correlation of logarithms", correlation(took, size), 0.9, 0.1)
		slices.Sort(took)
		within(t, "median", took[500], 10, 1)
		within(t, "lower sixth", took[159], 10*math.Exp(-0.8), 1)
		within(t, "least", took[0], 2, 0.5)
		within(t, "most", took[999], 60, 10)
	})
}

func correlation(x, y []float64) float64 {
	var sx, sy, sxx, syy, sxy float64
	for i := range x {
		a, b := math.Log(x[i]), math.Log(y[i])
		sx, sy, sxx, syy, sxy = sx+a, sy+b, sxx+a*a, syy+b*b, sxy+a*b
	}
	n := float64(len(x))
	return (n*sxy - sx*sy) / math.Sqrt((n*sxx-sx*sx)*(n*syy-sy*sy))
}

func TestHangingUp(t *testing.T) {
	for _, free := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			s := mantlesim.New(mantlesim.Config{Capacity: capacity.MustScript("conc=1"), Latency: steady(time.Hour), FreeAbandoned: free})
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			begin := time.Now()
			a := postContext(ctx, s, responses, grok("hi"))
			within(t, "waited", time.Since(begin).Minutes(), 1, 0)
			n := s.Counts()
			if !a.Broken || n.Gone != 1 || n.Answered != 0 || n.InFlight != 0 || (n.Billed == 1) == free || (n.Cost > 0) == free {
				t.Errorf("free %v: broken %v, %+v", free, a.Broken, n)
			}
			start(t.Context(), s, grok("next"))
			if got := s.Counts(); got.InFlight != 1 {
				t.Error("the slot was not given back")
			}
		})
	}
}
