package metrics_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"upwell/cmd/internal/budget"
	"upwell/cmd/internal/metrics"
	"upwell/jobs"
	"upwell/jobs/sqsqueue"
	"upwell/throttle"
	"upwell/worker"
)

var (
	at   = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	lane = throttle.Lane{Region: "us-west-2", Model: "xai.grok-4.3", Tier: "flex"}
)

// scrape returns what the handler serves.
func scrape(tb testing.TB, m *metrics.Metrics) string {
	tb.Helper()
	rec := httptest.NewRecorder()
	m.Handler().ServeHTTP(rec, httptest.NewRequestWithContext(tb.Context(), http.MethodGet, "/metrics", nil))
	if rec.Code != http.StatusOK {
		tb.Fatalf("%d: %s", rec.Code, rec.Body)
	}
	return rec.Body.String()
}

// series returns the values of all series but those of the process, of the Go runtime,
// and of histograms' buckets.
func series(tb testing.TB, m *metrics.Metrics) map[string]float64 {
	tb.Helper()
	all := make(map[string]float64)
	for line := range strings.Lines(scrape(tb, m)) {
		if strings.HasPrefix(line, "#") || strings.HasPrefix(line, "go_") || strings.HasPrefix(line, "process_") || strings.Contains(line, "_bucket{") {
			continue
		}
		line = strings.TrimSpace(line)
		i := strings.LastIndexByte(line, ' ')
		v, err := strconv.ParseFloat(line[i+1:], 64)
		if err != nil {
			tb.Fatalf("%s: %v", line, err)
		}
		all[line[:i]] = v
	}
	return all
}

// moved returns what do has changed, and what it has made appear that is not zero.
func moved(t *testing.T, m *metrics.Metrics, do func()) map[string]float64 {
	t.Helper()
	before := series(t, m)
	do()
	diff := series(t, m)
	for name, v := range diff {
		if v == before[name] {
			delete(diff, name)
		} else {
			diff[name] = v - before[name]
		}
	}
	return diff
}

const (
	ofLane = `{model="xai.grok-4.3",region="us-west-2",tier="flex"}`
	genAI  = `gen_ai_operation_name="chat",gen_ai_provider_name="aws.bedrock",gen_ai_request_model="xai.grok-4.3"`
)

// with labels a series of the lane with one more label. Labels are exposed in order.
func with(label, value string) string {
	labels := []string{`model="xai.grok-4.3"`, `region="us-west-2"`, `tier="flex"`, fmt.Sprintf(`%s="%s"`, label, value)}
	slices.Sort(labels)
	return "{" + strings.Join(labels, ",") + "}"
}

// refusal labels a refusal, kind and status in their places.
func refusal(kind, status string) string {
	return fmt.Sprintf(`upwell_refusals_total{kind="%s",model="xai.grok-4.3",region="us-west-2",status="%s",tier="flex"}`, kind, status)
}

// call names a series of the duration of calls.
func call(of, errorType string) string {
	return fmt.Sprintf(`gen_ai_client_operation_duration_seconds_%s{error_type="%s",%s,region="us-west-2",tier="flex"}`, of, errorType, genAI)
}

func usage(of, kind string) string {
	return fmt.Sprintf(`gen_ai_client_token_usage_%s{%s,gen_ai_token_type="%s",region="us-west-2",tier="flex"}`, of, genAI, kind)
}

// failed is the end of an attempt that came to nothing after a second and a half.
func failed(o throttle.Outcome, err *worker.Error) worker.Event {
	return worker.Event{Kind: worker.Attempted, Lane: lane, Outcome: o, Err: err, Attempt: jobs.Attempt{TookMS: 1500, Status: err.Status}}
}

// TestEvents holds each kind of event to exactly what it moves.
func TestEvents(t *testing.T) {
	key := jobs.Key{Run: "spring", CustomID: "msa-0042"}
	answer := &worker.Answer{}
	answered := worker.Event{
		Kind: worker.Attempted, Lane: lane, Attempt: jobs.Attempt{TookMS: 1500, Status: 200}, Answer: answer,
		Usage: jobs.Usage{InputTokens: 1000, CachedTokens: 300, OutputTokens: 200, ReasoningTokens: 50}, CostUSD: 0.25,
	}
	billed := func(m map[string]float64) map[string]float64 {
		maps.Copy(m, map[string]float64{
			"upwell_tokens_total" + with("kind", "input"): 1000, "upwell_tokens_total" + with("kind", "cached"): 300,
			"upwell_tokens_total" + with("kind", "output"): 200, "upwell_tokens_total" + with("kind", "reasoning"): 50,
			usage("count", "input"): 1, usage("sum", "input"): 1000, usage("count", "output"): 1, usage("sum", "output"): 200,
			"upwell_cost_usd_total" + ofLane: 0.25,
		})
		return m
	}
	good := func() map[string]float64 {
		return billed(map[string]float64{"upwell_attempts_total" + with("outcome", "answered"): 1, call("count", ""): 1, call("sum", ""): 1.5})
	}
	and := func(m map[string]float64, name string) map[string]float64 { m[name] = 1; return m }
	repaired, extended, unpriced := answered, answered, answered
	repaired.Attempt.Turn, extended.Attempt.Turn = jobs.Repair, jobs.Extension
	unpriced.CostUSD = jobs.UnknownUSD()
	priceless := and(good(), "upwell_unpriced_calls_total"+ofLane)
	delete(priceless, "upwell_cost_usd_total"+ofLane)
	bad := answered
	bad.Err = &worker.Error{Kind: worker.Permanent, Class: jobs.SchemaFailed, Answer: answer, Err: errors.New("no")}
	requested := func(op worker.Op, parts int, err error) worker.Event {
		return worker.Event{Kind: worker.Requested, Op: op, Took: 250 * time.Millisecond, Parts: parts, Err: err}
	}
	request := func(side string, op worker.Op, more ...string) map[string]float64 {
		m := map[string]float64{fmt.Sprintf(`upwell_%s_requests_total{op="%s"}`, side, op): 1}
		for _, s := range more {
			v := 1.0
			if s == "duration_seconds_sum" {
				v = 0.25
			}
			m[fmt.Sprintf(`upwell_%s_request_%s{op="%s"}`, side, s, op)] = v
		}
		return m
	}
	took := []string{"duration_seconds_count", "duration_seconds_sum"}
	sample := &worker.Sample{
		Slots: 100, SlotsUsed: 7, Most: 120, Held: 9, MostBytes: 1 << 20, Bytes: 1 << 10, Oldest: 90 * time.Second,
		WaitSource: 2, WaitSink: 3, WaitMoney: 4, Bound: worker.BoundQuota,
		Lanes: map[throttle.Lane]throttle.State{lane: {Rate: 12.5, Stable: 20, InFlight: 7, Waiting: 5, ClosedUntil: at.Add(time.Minute)}},
	}
	stands := map[string]float64{
		"upwell_slots": 100, "upwell_slots_used": 7, "upwell_held_messages_limit": 120, "upwell_held_messages": 9,
		"upwell_held_bytes_limit": 1 << 20, "upwell_held_bytes": 1 << 10, "upwell_held_oldest_seconds": 90,
		"upwell_queue_requests_waiting": 2, "upwell_store_requests_waiting": 3, "upwell_jobs_waiting_for_budget": 4,
		"upwell_lane_rate" + ofLane: 12.5, "upwell_lane_stable_rate" + ofLane: 20, "upwell_lane_in_flight" + ofLane: 7,
		"upwell_lane_waiting" + ofLane: 5, "upwell_lane_closed" + ofLane: 1,
		`upwell_bound_seconds_total{bound="quota"}`: 1, "upwell_sample_timestamp_seconds": float64(at.Unix()),
	}
	one := func(name string) map[string]float64 { return map[string]float64{name: 1} }
	none := map[string]float64{}
	tests := []struct {
		name string
		e    worker.Event
		want map[string]float64
	}{
		{"received", worker.Event{Kind: worker.Received, Delivery: &jobs.Message{Sent: at.Add(-time.Minute)}}, map[string]float64{
			"upwell_messages_received_total": 1, "upwell_message_age_seconds_count": 1, "upwell_message_age_seconds_sum": 60,
		}},
		{"received, sent nobody knows when", worker.Event{Kind: worker.Received, Delivery: &jobs.Message{}}, one("upwell_messages_received_total")},
		{"permitted", worker.Event{Kind: worker.Permitted, Lane: lane, Waited: 2 * time.Second}, map[string]float64{
			"upwell_permit_wait_seconds_count" + ofLane: 1, "upwell_permit_wait_seconds_sum" + ofLane: 2,
		}},
		{"answered", answered, good()},
		{"repair", repaired, and(good(), "upwell_repairs_total")},
		{"extension", extended, and(good(), "upwell_extensions_total")},
		{"unknown price", unpriced, priceless},
		{"answered badly", bad, billed(map[string]float64{
			"upwell_attempts_total" + with("outcome", "answered"): 1, call("count", "schema"): 1, call("sum", "schema"): 1.5,
		})},
		{"throttled", failed(throttle.Throttled, &worker.Error{Kind: worker.Throttled, Status: 429}), map[string]float64{
			"upwell_attempts_total" + with("outcome", "throttled"): 1, refusal("throttled", "429"): 1, call("count", "throttled"): 1, call("sum", "throttled"): 1.5,
		}},
		{"unavailable", failed(throttle.Unavailable, &worker.Error{Kind: worker.Unavailable, Status: 529}), map[string]float64{
			"upwell_attempts_total" + with("outcome", "unavailable"): 1, refusal("unavailable", "529"): 1, call("count", "unavailable"): 1, call("sum", "unavailable"): 1.5,
		}},
		{"no connection", failed(throttle.Unavailable, &worker.Error{Kind: worker.Unavailable}), map[string]float64{
			"upwell_attempts_total" + with("outcome", "unavailable"): 1, refusal("unavailable", "none"): 1, call("count", "unavailable"): 1, call("sum", "unavailable"): 1.5,
		}},
		{"failed", failed(throttle.Unrelated, &worker.Error{Kind: worker.Transient, Status: 500}), map[string]float64{
			"upwell_attempts_total" + with("outcome", "failed"): 1, call("count", "transient"): 1, call("sum", "transient"): 1.5,
		}},
		{"of a class that nobody knows", failed(throttle.Unrelated, &worker.Error{Kind: worker.Permanent, Class: "new"}), map[string]float64{
			"upwell_attempts_total" + with("outcome", "failed"): 1, call("count", "other"): 1, call("sum", "other"): 1.5,
		}},
		{"escalated", worker.Event{Kind: worker.Escalated, Lane: lane}, one("upwell_escalations_total")},
		{"stored", worker.Event{Kind: worker.Stored, Key: key}, one(`upwell_deliveries_total{end="stored"}`)},
		{"duplicate", worker.Event{Kind: worker.Duplicate, Key: key}, one(`upwell_deliveries_total{end="duplicate"}`)},
		{"buried", worker.Event{Kind: worker.Buried, Key: key, Letter: &jobs.DeadLetter{Class: jobs.Truncated}}, map[string]float64{
			`upwell_deliveries_total{end="dead_lettered"}`: 1, `upwell_dead_letters_total{class="truncated"}`: 1,
		}},
		{"buried, of a class that nobody knows", worker.Event{Kind: worker.Buried, Letter: &jobs.DeadLetter{Class: "new"}}, map[string]float64{
			`upwell_deliveries_total{end="dead_lettered"}`: 1, `upwell_dead_letters_total{class="other"}`: 1,
		}},
		{"passed", worker.Event{Kind: worker.Passed}, one(`upwell_deliveries_total{end="passed"}`)},
		{"released", worker.Event{Kind: worker.Released, Key: key}, one(`upwell_deliveries_total{end="released"}`)},
		{"lost", worker.Event{Kind: worker.Lost, Key: key}, one(`upwell_deliveries_total{end="lost"}`)},
		{"rate changed", worker.Event{Kind: worker.RateChanged, Lane: lane, Rate: &throttle.State{}}, none},
		{"closed", worker.Event{Kind: worker.Closed, Lane: lane, Rate: &throttle.State{}}, one("upwell_lane_closures_total" + ofLane)},
		{"opened", worker.Event{Kind: worker.Opened, Lane: lane, Rate: &throttle.State{}}, none},
		{"paused", worker.Event{Kind: worker.Paused, Lane: lane}, none}, // the next sample shows these; see TestStand
		{"resumed", worker.Event{Kind: worker.Resumed, Lane: lane}, none},
		{"parked", worker.Event{Kind: worker.Parked, Key: key}, none},
		{"unparked", worker.Event{Kind: worker.Unparked, Key: key}, none},
		{"late", worker.Event{Kind: worker.Late}, one("upwell_heartbeats_late_total")},
		{"sampled", worker.Event{Kind: worker.Sampled, Sample: sample}, stands},
		{"receive", requested(worker.OpReceive, 3, nil), request("queue", worker.OpReceive, took...)},
		{"receive, of nothing", requested(worker.OpReceive, 0, nil), request("queue", worker.OpReceive)},
		{"receive, failed", requested(worker.OpReceive, 0, errors.New("no")), request("queue", worker.OpReceive, "failures_total")},
		{"receive, cut off", requested(worker.OpReceive, 0, fmt.Errorf("stop: %w", context.Canceled)), request("queue", worker.OpReceive)},
		{"hide", requested(worker.OpHide, 0, nil), request("queue", worker.OpHide, took...)},
		{"hide, too late", requested(worker.OpHide, 0, fmt.Errorf("gone: %w", worker.ErrGone)), request("queue", worker.OpHide)},
		{"hide, timed out", requested(worker.OpHide, 0, context.DeadlineExceeded), request("queue", worker.OpHide, "failures_total")},
		{"release", requested(worker.OpRelease, 0, nil), request("queue", worker.OpRelease, took...)},
		{"ack", requested(worker.OpAck, 0, nil), request("queue", worker.OpAck, took...)},
		{"bury", requested(worker.OpBury, 0, nil), request("queue", worker.OpBury, took...)},
		{"bury, too large", requested(worker.OpBury, 0, worker.ErrTooLarge), request("queue", worker.OpBury)},
		{"split", requested(worker.OpSplit, 0, nil), request("queue", worker.OpSplit, took...)},
		{"put", requested(worker.OpPut, 0, nil), request("store", worker.OpPut, took...)},
		{"put, failed", requested(worker.OpPut, 0, errors.New("no")), request("store", worker.OpPut, "failures_total")},
		{"put_error", requested(worker.OpPutError, 0, nil), request("store", worker.OpPutError, took...)},
		{"put_body", requested(worker.OpPutBody, 0, nil), request("store", worker.OpPutBody, took...)},
		{"has", requested(worker.OpHas, 0, nil), request("store", worker.OpHas, took...)},
		{"failure", requested(worker.OpFailure, 0, nil), request("store", worker.OpFailure, took...)},
		{"schema", requested(worker.OpSchema, 0, nil), request("store", worker.OpSchema, took...)},
		{"fetch", requested(worker.OpFetch, 0, nil), request("store", worker.OpFetch, took...)},
		{"an op that nobody knows", requested("new", 0, nil), none},
	}
	covered := make(map[worker.EventKind]bool)
	for _, tt := range tests {
		covered[tt.e.Kind] = true
		t.Run(tt.name, func(t *testing.T) {
			m := metrics.New("1.2.3")
			tt.e.At = at
			if diff := cmp.Diff(tt.want, moved(t, m, func() { m.Observe(tt.e) })); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
	for k := worker.Received; k <= worker.Sampled; k++ {
		if !covered[k] {
			t.Errorf("nothing says what %v moves", k)
		}
	}
}

func TestBuild(t *testing.T) {
	name := fmt.Sprintf(`upwell_build_info{goversion="%s",version="1.2.3"}`, runtime.Version())
	if got := series(t, metrics.New("1.2.3"))[name]; got != 1 {
		t.Errorf("%s is %v", name, got)
	}
}

// TestStand shows what a sample tells of lanes and runs beside what is in it.
func TestStand(t *testing.T) {
	m := metrics.New("")
	now := at
	sampled := func(lanes ...throttle.Lane) map[string]float64 {
		now = now.Add(time.Second)
		states := make(map[throttle.Lane]throttle.State)
		for _, id := range lanes {
			states[id] = throttle.State{Rate: 1}
		}
		m.Observe(worker.Event{Kind: worker.Sampled, At: now, Sample: &worker.Sample{Lanes: states, Bound: worker.BoundDraining}})
		return series(t, m)
	}
	check := func(what string, got map[string]float64, name string, want float64) {
		t.Helper()
		if v, ok := got[name]; !ok || v != want {
			t.Errorf("%s: %s is %v (%v), want %v", what, name, v, ok, want)
		}
	}
	paused, parked := "upwell_lane_paused"+ofLane, "upwell_runs_parked"

	check("at first", sampled(lane), paused, 0)
	check("at first", sampled(lane), "upwell_draining", 1)
	m.Observe(worker.Event{Kind: worker.Paused, Lane: lane, At: now})
	check("paused", sampled(lane), paused, 1)
	if got := sampled(); got[paused] != 0 || got["upwell_lane_rate"+ofLane] != 0 {
		t.Error("a lane is shown that the sample has not")
	}
	check("paused, and back", sampled(lane), paused, 1)
	m.Observe(worker.Event{Kind: worker.Resumed, Lane: lane, At: now})
	check("resumed", sampled(lane), paused, 0)

	spring := jobs.Key{Run: "spring"}
	m.Observe(worker.Event{Kind: worker.Parked, Key: spring, At: now})
	m.Observe(worker.Event{Kind: worker.Parked, Key: jobs.Key{Run: "fall"}, At: now})
	check("two parked", sampled(), parked, 2)
	m.Observe(worker.Event{Kind: worker.Unparked, Key: jobs.Key{Run: "fall"}, At: now})
	check("one parked", sampled(), parked, 1)
	now = now.Add(10 * time.Minute)
	m.Observe(worker.Event{Kind: worker.Released, Key: spring, At: now, Err: fmt.Errorf("run spring: %w", worker.ErrParked)})
	now = now.Add(10 * time.Minute)
	check("its jobs still come", sampled(), parked, 1)
	now = now.Add(6 * time.Minute)
	check("they come no more", sampled(), parked, 0)
}

func TestQueueAndBudget(t *testing.T) {
	m := metrics.New("")
	got := moved(t, m, func() { m.Queue(sqsqueue.Counts{Visible: 5, Hidden: 3, Delayed: 2}, nil) })
	if asked := got["upwell_queue_messages_timestamp_seconds"]; time.Since(time.UnixMilli(int64(asked*1e3))).Abs() > time.Minute {
		t.Errorf("asked at %v", asked)
	}
	delete(got, "upwell_queue_messages_timestamp_seconds")
	want := map[string]float64{
		`upwell_queue_messages{state="visible"}`: 5, `upwell_queue_messages{state="hidden"}`: 3, `upwell_queue_messages{state="delayed"}`: 2,
		`upwell_queue_requests_total{op="count"}`: 1,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("queue: -want +got:\n%s", diff)
	}
	want = map[string]float64{`upwell_queue_requests_total{op="count"}`: 1, `upwell_queue_request_failures_total{op="count"}`: 1}
	if diff := cmp.Diff(want, moved(t, m, func() { m.Queue(sqsqueue.Counts{}, errors.New("no")) })); diff != "" {
		t.Errorf("queue, failed: -want +got:\n%s", diff)
	}
	want = map[string]float64{"upwell_budget_limit_usd": 200, "upwell_budget_spent_usd": 150, "upwell_budget_reserved_usd": 2.5, "upwell_budget_parked": 1}
	status := budget.Status{LimitUSD: 200, SpentUSD: 150, ReservedUSD: 2.5, ParkedSince: &at}
	if diff := cmp.Diff(want, moved(t, m, func() { m.Budget(&status) })); diff != "" {
		t.Errorf("budget: -want +got:\n%s", diff)
	}
	m.Budget(nil)
	if _, ok := series(t, m)["upwell_budget_limit_usd"]; ok {
		t.Error("a budget is shown where there is none")
	}
}
