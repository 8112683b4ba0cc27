package metrics_test

import (
	"fmt"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"upwell/cmd/internal/metrics"
	"upwell/jobs"
	"upwell/throttle"
	"upwell/worker"
)

func model(n int) throttle.Lane {
	return throttle.Lane{Region: "us-west-2", Model: fmt.Sprintf("model-%05d", n)}
}

// attempt is all that happens to a call of the lane.
func attempt(m *metrics.Metrics, id throttle.Lane) {
	m.Observe(worker.Event{Kind: worker.Permitted, At: at, Lane: id})
	m.Observe(worker.Event{
		Kind: worker.Attempted, At: at, Lane: id, Answer: &worker.Answer{}, Usage: jobs.Usage{InputTokens: 10, OutputTokens: 1}, CostUSD: 1,
	})
	m.Observe(failed2(id))
	m.Observe(worker.Event{Kind: worker.Closed, At: at, Lane: id, Rate: &throttle.State{}})
}

func failed2(id throttle.Lane) worker.Event {
	e := failed(throttle.Throttled, &worker.Error{Kind: worker.Throttled, Status: 429})
	e.Lane, e.At = id, at
	return e
}

func sampled(m *metrics.Metrics, lanes ...throttle.Lane) {
	states := make(map[throttle.Lane]throttle.State, len(lanes))
	for _, id := range lanes {
		states[id] = throttle.State{Rate: 2, InFlight: 1}
	}
	m.Observe(worker.Event{Kind: worker.Sampled, At: at, Sample: &worker.Sample{Lanes: states}})
}

var modelLabel = regexp.MustCompile(`model="([^"]*)"`)

// models returns which models there are series of, how many series, and the sum of
// those whose name begins with of.
func models(t *testing.T, m *metrics.Metrics, of string) (names map[string]int, sum float64) {
	t.Helper()
	names = make(map[string]int)
	for name, v := range series(t, m) {
		if found := modelLabel.FindStringSubmatch(name); found != nil {
			names[found[1]]++
		}
		if strings.HasPrefix(name, of) {
			sum += v
		}
	}
	return names, sum
}

// TestCardinality names ten thousand models.
func TestCardinality(t *testing.T) {
	m := metrics.New("")
	var all []throttle.Lane
	for n := range 10_000 {
		all = append(all, model(n))
	}
	for _, id := range all[:100] {
		attempt(m, id)
	}
	sampled(m, all...)
	for _, id := range all[100:] {
		attempt(m, id)
	}
	sampled(m, all...)

	const calls = 10_000
	names, sum := models(t, m, "upwell_attempts_total")
	if len(names) != 33 || names["other"] == 0 {
		t.Errorf("%d models have series, want 32 and other: %v", len(names), names)
	}
	if sum != 2*calls {
		t.Errorf("%v attempts counted, want %d", sum, 2*calls)
	}
	if _, sum := models(t, m, "upwell_lane_rate{"); sum != 2*10_000 {
		t.Errorf("the rates of all lanes add up to %v, want 20000", sum)
	}
	lines := strings.Count(scrape(t, m), "\n")
	if lines > 8_000 {
		t.Errorf("%d lines", lines)
	}
	t.Logf("%d lines of exposition", lines)
}

// TestNamesThatAreNoLabels shows that a lane is one of the others when its name cannot be
// a label, and when it is called as they are.
func TestNamesThatAreNoLabels(t *testing.T) {
	for _, name := range []string{"\xff\xfe", strings.Repeat("long", 100), "other"} {
		m := metrics.New("")
		id := throttle.Lane{Region: "other", Model: name, Tier: "other"}
		attempt(m, id)
		sampled(m, id)
		got, sum := models(t, m, "upwell_attempts_total")
		if len(got) != 1 || got["other"] == 0 || sum != 2 {
			t.Errorf("%.10q: %v, with %v attempts", name, got, sum)
		}
	}
}

// TestSlotsOfLanes shows that a lane keeps its counters when nobody uses it, until
// another one has a use for its place.
func TestSlotsOfLanes(t *testing.T) {
	m := metrics.New("")
	var all []throttle.Lane
	for n := range 32 {
		all = append(all, model(n))
		attempt(m, model(n))
	}
	sampled(m, all...)
	has := func(n int, name string) bool {
		t.Helper()
		for s := range series(t, m) {
			if strings.HasPrefix(s, name) && strings.Contains(s, model(n).Model) {
				return true
			}
		}
		return false
	}
	if !has(0, "upwell_lane_rate{") || !has(0, "upwell_cost_usd_total{") {
		t.Fatal("a lane in use is not shown")
	}
	sampled(m, all[1:]...)
	if has(0, "upwell_lane_rate{") || !has(0, "upwell_cost_usd_total{") {
		t.Error("an idle lane is to lose its gauges, and to keep its counters")
	}
	attempt(m, model(0)) // still its own
	sampled(m, all[1:]...)
	attempt(m, model(100))
	if names, _ := models(t, m, ""); names[model(0).Model] != 0 || names[model(100).Model] == 0 || names["other"] != 0 {
		t.Errorf("the idle lane is to make room for the new one: %v", names)
	}
	attempt(m, model(101))
	if names, _ := models(t, m, ""); names[model(101).Model] != 0 || names["other"] == 0 {
		t.Errorf("with all places in use a new lane is one of the others: %v", names)
	}
	if !has(1, "upwell_lane_rate{") || !has(1, "upwell_cost_usd_total{") {
		t.Error("a lane in use has lost its place")
	}
}

// TestTiers shows that the default tier is one lane, named or not.
func TestTiers(t *testing.T) {
	m := metrics.New("")
	a, b := model(1), model(1)
	b.Tier = "default"
	attempt(m, a)
	attempt(m, b)
	sampled(m, a, b)
	got := series(t, m)
	const of = `{model="model-00001",region="us-west-2",tier="default"}`
	if got["upwell_cost_usd_total"+of] != 2 || got["upwell_lane_rate"+of] != 4 {
		t.Errorf("cost %v and rate %v, want 2 and 4", got["upwell_cost_usd_total"+of], got["upwell_lane_rate"+of])
	}
}

// TestScrapedWhileObserving scrapes while events of every kind come from many sides.
func TestScrapedWhileObserving(t *testing.T) {
	m := metrics.New("")
	const sides, rounds = 8, 200
	var observing, scraping sync.WaitGroup
	done := make(chan struct{})
	for range 2 {
		scraping.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
					scrape(t, m)
				}
			}
		})
	}
	for side := range sides {
		observing.Go(func() {
			for n := range rounds {
				id := model((side*rounds + n) % 50)
				attempt(m, id)
				m.Observe(worker.Event{Kind: worker.Received, At: at, Delivery: &jobs.Message{Sent: at.Add(-time.Minute)}})
				m.Observe(worker.Event{Kind: worker.Requested, At: at, Op: worker.OpPut, Took: time.Millisecond})
				m.Observe(worker.Event{Kind: worker.Paused, At: at, Lane: id})
				m.Observe(worker.Event{Kind: worker.Parked, At: at, Key: jobs.Key{Run: id.Model}})
				sampled(m, id, model(n%50))
				m.Observe(worker.Event{Kind: worker.Resumed, At: at, Lane: id})
				m.Observe(worker.Event{Kind: worker.Unparked, At: at, Key: jobs.Key{Run: id.Model}})
				m.Observe(worker.Event{Kind: worker.Stored, At: at})
			}
		})
	}
	observing.Wait()
	close(done)
	scraping.Wait()
	got := series(t, m)
	for _, name := range []string{`upwell_deliveries_total{end="stored"}`, "upwell_messages_received_total", `upwell_store_requests_total{op="put"}`} {
		if got[name] != sides*rounds {
			t.Errorf("%s is %v, want %d", name, got[name], sides*rounds)
		}
	}
	if names, _ := models(t, m, ""); len(names) > 33 {
		t.Errorf("%d models have series", len(names))
	}
}

func BenchmarkObserve(b *testing.B) {
	for _, e := range []worker.Event{
		{Kind: worker.Received, At: at, Delivery: &jobs.Message{Sent: at.Add(-time.Minute)}},
		{Kind: worker.Permitted, At: at, Lane: lane, Waited: time.Second},
		{Kind: worker.Attempted, At: at, Lane: lane, Answer: &worker.Answer{}, Usage: jobs.Usage{InputTokens: 1000, OutputTokens: 100}, CostUSD: 0.001},
		failed2(lane),
		{Kind: worker.Requested, At: at, Op: worker.OpPut, Took: 20 * time.Millisecond},
		{Kind: worker.Stored, At: at},
		{Kind: worker.Sampled, At: at, Sample: &worker.Sample{Lanes: map[throttle.Lane]throttle.State{lane: {Rate: 1}}}},
	} {
		name := e.Kind.String()
		if e.Outcome == throttle.Throttled {
			name = "refused"
		}
		b.Run(name, func(b *testing.B) {
			m := metrics.New("")
			b.ReportAllocs()
			for b.Loop() {
				m.Observe(e)
			}
		})
	}
	b.Run("job", func(b *testing.B) { // the events of one that is answered at once
		m := metrics.New("")
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			delivery, answer := &jobs.Message{Sent: at.Add(-time.Minute)}, &worker.Answer{}
			for pb.Next() {
				m.Observe(worker.Event{Kind: worker.Received, At: at, Delivery: delivery})
				m.Observe(worker.Event{Kind: worker.Permitted, At: at, Lane: lane})
				m.Observe(worker.Event{Kind: worker.Attempted, At: at, Lane: lane, Answer: answer, Usage: jobs.Usage{InputTokens: 1000, OutputTokens: 100}, CostUSD: 0.001})
				m.Observe(worker.Event{Kind: worker.Requested, At: at, Op: worker.OpPut, Took: 20 * time.Millisecond})
				m.Observe(worker.Event{Kind: worker.Stored, At: at})
				m.Observe(worker.Event{Kind: worker.Requested, At: at, Op: worker.OpAck, Took: 20 * time.Millisecond})
			}
		})
	})
	b.Run("scrape", func(b *testing.B) {
		m := metrics.New("")
		for n := range 32 {
			attempt(m, model(n))
		}
		for b.Loop() {
			scrape(b, m)
		}
	})
}
