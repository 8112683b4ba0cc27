package dashboard_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"upwell/cmd/internal/dashboard"
	"upwell/cmd/internal/progress"
	"upwell/jobs"
	"upwell/throttle"
	"upwell/worker"
)

// A viewer reads a stream as the page does.
type viewer struct {
	mu     sync.Mutex
	head   http.Header
	code   int
	kinds  []string
	state  map[string]json.RawMessage
	series map[string]map[string][]float64
	broken error // of writes from now on
}

func (v *viewer) Header() http.Header  { return v.head }
func (v *viewer) WriteHeader(code int) { v.code = code }
func (v *viewer) Flush()               {}

// Write takes an event. The handler writes each with one call.
func (v *viewer) Write(p []byte) (int, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.broken != nil {
		return 0, v.broken
	}
	name, data, ok := strings.Cut(strings.TrimPrefix(string(p), "event: "), "\ndata: ")
	if !ok {
		return len(p), nil // a comment, or how long to wait before coming back
	}
	v.kinds = append(v.kinds, name)
	v.merge(name == "full", []byte(strings.TrimSpace(data)))
	return len(p), nil
}

func (v *viewer) merge(full bool, data []byte) {
	var m struct {
		State map[string]json.RawMessage
		Tails map[string]map[string]json.RawMessage
	}
	if err := json.Unmarshal(data, &m); err != nil {
		panic(err)
	}
	if full {
		v.state, v.series = make(map[string]json.RawMessage), make(map[string]map[string][]float64)
	}
	maps.Copy(v.state, m.State)
	for name, t := range m.Tails {
		if v.series[name] == nil {
			v.series[name] = make(map[string][]float64)
		}
		var from int
		if err := json.Unmarshal(t["from"], &from); err != nil {
			panic(err)
		}
		for _, k := range []string{"rate", "answered", "refused"} {
			var tail []float64
			if err := json.Unmarshal(t[k], &tail); err != nil {
				panic(err)
			}
			v.series[name][k] = append(slices.Clone(v.series[name][k][:from]), tail...)
		}
	}
}

// shown is all that a viewer has, for comparison.
func (v *viewer) shown() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	for k, raw := range v.state {
		if string(raw) == "null" { // what was never there, and what is no more
			delete(v.state, k)
		}
	}
	text, err := json.MarshalIndent(map[string]any{"state": v.state, "series": v.series}, "", " ")
	if err != nil {
		panic(err)
	}
	return string(text)
}

func (v *viewer) heard() []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Clone(v.kinds)
}

// watch starts a viewer. done is closed when the stream is over.
func watch(ctx context.Context, d *dashboard.Dashboard) (v *viewer, done chan struct{}) {
	v, done = &viewer{head: make(http.Header), code: 200}, make(chan struct{})
	go func() {
		defer close(done)
		d.Handler().ServeHTTP(v, httptest.NewRequestWithContext(ctx, http.MethodGet, "http://localhost/api/events", nil))
	}()
	return v, done
}

// churn makes something of every kind happen.
func churn(m *progress.Meter, r *rand.Rand) {
	lane := throttle.Lane{Region: fmt.Sprint("r", r.IntN(3)), Model: "m", Tier: "flex"}
	k := jobs.Key{Run: "r", CustomID: fmt.Sprint(r.IntN(1000))}
	now := time.Now()
	switch r.IntN(6) {
	case 0:
		m.Observe(worker.Event{Kind: worker.RateChanged, At: now, Lane: lane, Rate: &throttle.State{Rate: r.Float64() * 20, Reason: "grew"}})
	case 1:
		m.Observe(worker.Event{Kind: worker.Buried, At: now, Key: k, Letter: &jobs.DeadLetter{Key: k, Class: jobs.Refused, Reason: "<no>"}})
	case 2:
		m.Observe(worker.Event{Kind: worker.Parked, At: now, Key: k, Err: context.Canceled})
	case 3:
		m.Observe(worker.Event{Kind: worker.Unparked, At: now, Key: k})
	case 4:
		m.Observe(worker.Event{Kind: worker.Sampled, At: now, Sample: &worker.Sample{Slots: 4, SlotsUsed: r.IntN(4), Bound: worker.BoundQuota, Lanes: map[throttle.Lane]throttle.State{lane: {Rate: r.Float64()}, {Region: "idle"}: {Rate: 5}}}})
	default:
		outcome := []throttle.Outcome{throttle.Accepted, throttle.Throttled, throttle.Unavailable, throttle.Unrelated}[r.IntN(4)]
		at := now.Add(-time.Duration(r.IntN(600)) * time.Millisecond) // events of many goroutines come a little late
		m.Observe(worker.Event{Kind: worker.Permitted, At: at, Key: k, Lane: lane})
		m.Observe(worker.Event{Kind: worker.Attempted, At: at, Key: k, Lane: lane, Outcome: outcome, Usage: jobs.Usage{InputTokens: 10}, CostUSD: 0.01})
		m.Observe(worker.Event{Kind: worker.Stored, At: at, Key: k})
	}
}

// TestChanges has what a viewer pieces together be what a newcomer is shown, at any
// moment of ten minutes in which the points of the history become wider twice.
func TestChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := progress.NewMeter()
		d := newDashboard(dashboard.Config{Meter: m, Loopback: true, Run: "r"})
		ctx, cancel := context.WithCancel(t.Context())
		v, done := watch(ctx, d)
		r := rand.New(rand.NewPCG(1, 2))
		longest, shrunk := 0, false // a history in which nothing happens
		for range 600 {
			for range r.IntN(20) {
				time.Sleep(time.Millisecond)
				churn(m, r)
			}
			time.Sleep(time.Until(time.Now().Truncate(time.Second).Add(time.Second))) // the viewer is told now
			synctest.Wait()
			late, gone := watch(ctx, d)
			synctest.Wait()
			if n := len(v.series["idle//"]["rate"]); n > longest {
				longest = n
			} else if n < longest {
				shrunk = true
			}
			if diff := cmp.Diff(late.shown(), v.shown()); diff != "" {
				t.Fatalf("after %v, a newcomer is shown what somebody is not who was there (-want +got):\n%s", time.Since(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)), diff)
			}
			kinds := late.heard()
			if len(kinds) != 1 || kinds[0] != "full" {
				t.Fatalf("a newcomer was sent %v, want full", kinds)
			}
			late.mu.Lock()
			late.broken = context.Canceled
			late.mu.Unlock()
			select { // a viewer who is gone is noticed at the next write
			case <-gone:
				t.Fatal("a viewer left before anything was sent to it")
			default:
			}
			if r.IntN(10) == 0 {
				time.Sleep(time.Second)
				<-gone
			}
		}
		if !shrunk {
			t.Error("the history of the idle lane never had fewer points than before: too little happens here")
		}
		kinds := v.heard()
		if full := len(slices.DeleteFunc(slices.Clone(kinds), func(k string) bool { return k != "full" })); full != 1 || len(kinds) < 600 {
			t.Errorf("%d events, %d of them full; want one a second, and the first full", len(kinds), full)
		}
		cancel()
		<-done
	})
}

// TestOneSnapshotForAll takes one a second, however many look, and none when nobody
// does.
func TestOneSnapshotForAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var taken atomic.Int64
		d := newDashboard(dashboard.Config{Loopback: true, Totals: func() *progress.Totals { taken.Add(1); return nil }})
		time.Sleep(time.Hour)
		if n := taken.Load(); n != 0 {
			t.Errorf("%d snapshots were taken for nobody", n)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var all []chan struct{}
		var viewers []*viewer
		for range 16 {
			v, done := watch(ctx, d)
			viewers, all = append(viewers, v), append(all, done)
			time.Sleep(37 * time.Millisecond) // they come when they like
		}
		time.Sleep(10 * time.Second)
		if n := taken.Load(); n < 10 || n > 11 {
			t.Errorf("%d snapshots for 16 viewers in 10s and a half, want one a second", n)
		}
		for i, v := range viewers {
			if n := len(v.heard()); n < 10 || n > 11 {
				t.Errorf("viewer %d was sent %d events in ten seconds, want one a second", i, n)
			}
		}
		cancel()
		for _, done := range all {
			<-done
		}
		before := taken.Load()
		time.Sleep(time.Hour)
		if n := taken.Load() - before; n != 0 {
			t.Errorf("%d snapshots were taken after all had left", n)
		}
	})
}

// TestViewersAreBounded has one too many come, and come again when there is room.
func TestViewersAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDashboard(dashboard.Config{Loopback: true})
		ctx, cancel := context.WithCancel(t.Context())
		one, leave := context.WithCancel(ctx)
		_, left := watch(one, d)
		var all []chan struct{}
		for range 15 {
			_, done := watch(ctx, d)
			all = append(all, done)
		}
		synctest.Wait()
		if rw := get(t, d.Handler(), "/api/events"); rw.Code != 503 || !strings.Contains(rw.Body.String(), "16 pages") {
			t.Errorf("the seventeenth gets %d: %s, want 503 and why", rw.Code, rw.Body)
		}
		if rw := get(t, d.Handler(), "/api/snapshot"); rw.Code != 200 {
			t.Errorf("a snapshot is %d then, want 200", rw.Code)
		}
		leave()
		<-left
		v, done := watch(ctx, d)
		synctest.Wait()
		if v.code != 200 || len(v.heard()) != 1 {
			t.Errorf("after one has left the next gets %d and %v, want to be let in", v.code, v.heard())
		}
		cancel()
		for _, done := range append(all, done) {
			<-done
		}
	})
}

// TestEnd tells all viewers, and those who come later, how it ended.
func TestEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := progress.NewMeter()
		d := newDashboard(dashboard.Config{Meter: m, Loopback: true})
		v, done := watch(t.Context(), d)
		time.Sleep(2500 * time.Millisecond)
		m.Observe(worker.Event{Kind: worker.Stored, At: time.Now()})
		d.End("done")
		<-done
		if got := fmt.Sprint(v.heard()); got != "[full change change change end]" {
			t.Errorf("the viewer was sent %s, want the last change and the end", got)
		}
		if got := string(v.state["outcome"]) + string(v.state["settled"]); got != `"done"1` {
			t.Errorf("the viewer was shown %s, want \"done\" and the last job", got)
		}
		m.Observe(worker.Event{Kind: worker.Stored, At: time.Now()})
		d.End("interrupted")
		time.Sleep(time.Minute)
		late, done := watch(t.Context(), d)
		<-done
		if got := fmt.Sprint(late.heard()) + string(late.state["outcome"]) + string(late.state["settled"]); got != `[full end]"done"1` {
			t.Errorf("who comes later was sent %s, want how it was at the end", got)
		}
	})
}

// patience is how long what takes no time may take on a machine that has much else to
// do. It is spent only when a test fails.
const patience = 5 * time.Minute

// TestServerShutsDown has a server that shuts down not wait for viewers.
func TestServerShutsDown(t *testing.T) {
	d := newDashboard(dashboard.Config{Loopback: true})
	var viewing sync.WaitGroup
	h := d.Handler()
	s := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		viewing.Add(1)
		defer viewing.Done()
		h.ServeHTTP(rw, r)
	}))
	s.Config.RegisterOnShutdown(d.Close)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+"/api/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := s.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if got := res.Header.Get("Content-Type"); got != "text/event-stream" {
		t.Errorf("Content-Type is %q, want text/event-stream", got)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := s.Config.Shutdown(ctx); err != nil {
		t.Errorf("Shutdown = %v, want nil: the stream goes on", err)
	}
	viewing.Wait()
}

// TestViewerGone has a viewer noticed that hangs up.
func TestViewerGone(t *testing.T) {
	d := newDashboard(dashboard.Config{Loopback: true})
	gone := make(chan struct{}, 1)
	h := d.Handler()
	s := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		h.ServeHTTP(rw, r)
		gone <- struct{}{}
	}))
	defer s.Close()
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+"/api/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := s.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	cancel()
	select {
	case <-gone:
	case <-time.After(patience):
		t.Errorf("the handler goes on %v after the viewer has hung up", patience)
	}
}
