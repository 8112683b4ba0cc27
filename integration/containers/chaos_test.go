package containers

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"upwell/infra/local"
	"upwell/jobs/sqsqueue/sqssim"
	"upwell/sink/s3sink/s3sim"
	"upwell/worker/mantle/mantlesim"
	"upwell/worker/mantle/mantlesim/capacity"
)

var (
	chaos   = flag.Duration("chaos", 0, "how long the tests called TestChaos inject faults; they are skipped without")
	seed    = flag.Uint64("chaos.seed", 1, "what they draw their lots by")
	summary = flag.String("chaos.table", "", "file for the table of scenarios, if all pass")
)

// table has a row for each scenario.
var (
	tableMu sync.Mutex
	table   []account
)

func TestMain(m *testing.M) {
	// The tests wait for most of their time, so that more of them than there are
	// processors may run at once; but each has a handful of workers, and what they are
	// slow at for want of processors tells nothing of faults.
	if err := flag.Set("test.parallel", "5"); err != nil {
		panic(err)
	}
	flag.Parse()
	code := m.Run()
	if len(table) > 0 {
		text := report(table)
		fmt.Print(text)
		if *summary != "" && code == 0 {
			if err := os.WriteFile(*summary, []byte(text), 0o644); err != nil {
				fmt.Fprintln(os.Stderr, err)
				code = 1
			}
		}
	}
	os.Exit(code)
}

// hidden is how long the messages of a worker that was killed stay hidden.
const hidden = 2 * time.Minute

// chaotic begins a test that breaks what can break under workers in containers, in a
// world of its own, and balances the account: every job has one end, none is a dead
// letter, and no more calls are repeated than the scenario excuses.
func chaotic(t *testing.T) {
	t.Helper()
	lengthy(t)
	t.Parallel()
}

// lengthy skips a test unless it was said how long faults are injected.
func lengthy(t *testing.T) {
	t.Helper()
	engine(t)
	if *chaos == 0 {
		t.Skip("takes minutes: -chaos 2m says for how long faults are injected")
	}
	image(t)
}

// scenario words the name of a test.
func scenario(name string) string {
	name = strings.TrimPrefix(strings.TrimPrefix(name, "Test"), "Chaos")
	return strings.ToLower(capital.ReplaceAllString(name, " $0")[1:])
}

var capital = regexp.MustCompile(`[A-Z]`)

// report words the table.
func report(rows []account) string {
	slices.SortFunc(rows, func(a, b account) int { return strings.Compare(a.scenario, b.scenario) })
	var out strings.Builder
	out.WriteString("| scenario | faults | jobs | lost | doubled | repeated calls | wrong dead letters |\n|---|---|---|---|---|---|---|\n")
	for _, a := range rows {
		fmt.Fprintf(&out, "| %s | %s | %d | %d | %d | %d (≤ %d) | %d |\n",
			a.scenario, a.faults, a.jobs, a.lost, a.doubled, a.repeated, a.bound, a.dead)
	}
	return out.String()
}

// Most scenarios have workers of so many slots, that make so many calls a second at
// most.
const (
	slots = 16
	rate  = 8
)

// lostByKill is how many calls a kill repeats at most: those of all slots, and the
// answers that are on their way to the bucket, for which a worker has room for half as
// many again and a batch.
const lostByKill = slots + slots/2 + 10

// pacing are the variables of such a worker.
func pacing() map[string]string {
	return map[string]string{"UPWELL_SLOTS": fmt.Sprint(slots), "UPWELL_START_RATE": fmt.Sprint(rate), "UPWELL_MAX_RATE": fmt.Sprint(rate)}
}

// enough is how many jobs keep so many workers busy while faults are injected, and a
// while after.
func enough(workers int) int {
	return int(float64(workers*rate) * (*chaos + 30*time.Second).Seconds())
}

// few is how many workers are killed, or replaced, at least, however slow a machine is
// at starting others.
func few() int { return max(1, int(*chaos/(30*time.Second))) }

// TestChaosWorkersKilled kills one of four workers after the other, and others take their places.
func TestChaosWorkersKilled(t *testing.T) {
	chaotic(t)
	w := newWorld(t, local.Config{})
	w.submit(t, enough(4), 2<<10)
	var crew []*box
	for range 4 {
		crew = append(crew, w.hire(t, pacing()))
	}
	began, kills := time.Now(), 0
	for ; time.Since(began) < *chaos || kills < few(); kills++ {
		w.pause(t.Context(), 3*time.Second, 12*time.Second)
		i := w.rng.IntN(len(crew))
		crew[i].signal(t, "KILL")
		crew[i] = w.hire(t, pacing())
	}
	w.outlasts(t)
	eventually(t, "all jobs to be done", w.done)
	w.balance(t, fmt.Sprintf("%d kills", kills), kills*lostByKill)
}

// TestChaosWorkerPaused freezes a worker until its messages are somebody else's, and thaws it.
func TestChaosWorkerPaused(t *testing.T) {
	chaotic(t)
	w := newWorld(t, local.Config{})
	w.submit(t, 2*rate*40, 2<<10) // so few that the other is idle when the messages come back
	zombie := w.hire(t, pacing())
	w.hire(t, pacing())
	eventually(t, "both to be at work", func() bool { return w.Mantle.Counts().Billed > 4*slots })
	c := engine(t)
	if _, err := c.ContainerPause(t.Context(), zombie.GetContainerID(), client.ContainerPauseOptions{}); err != nil {
		t.Fatal(err)
	}
	held := w.SQS.Stats().Queues[queueName].InFlight
	<-time.After(hidden + 20*time.Second)
	if _, err := c.ContainerUnpause(t.Context(), zombie.GetContainerID(), client.ContainerUnpauseOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all jobs to be done", w.done)
	// It has come back to answers that another has paid for again.
	w.balance(t, fmt.Sprintf("1 pause of %v", hidden+20*time.Second), lostByKill)
	if w.Mantle.Counts().Repeated == 0 {
		t.Errorf("none of %d messages held at the pause was answered twice, want some: else nobody took them: %s", held, tail(zombie.log.String()))
	}
}

// TestChaosNetworksCut resets all connections to one service after the other, and refuses new
// ones.
func TestChaosNetworksCut(t *testing.T) { cutNetworks(t, cut) }

// TestChaosNetworksSilent lets nothing pass to one service after the other, and tells nobody.
// Connections that were open then never say anything again.
func TestChaosNetworksSilent(t *testing.T) { cutNetworks(t, silent) }

func cutNetworks(t *testing.T, m mode) {
	t.Helper()
	chaotic(t)
	const long, between = time.Minute, 15 * time.Second
	w := newWorld(t, local.Config{})
	env := pacing()
	env["UPWELL_ATTEMPT_TIMEOUT"] = "45s"
	w.submit(t, 2*rate*int((3*(long+between)+30*time.Second).Seconds()), 2<<10)
	for range 2 {
		w.hire(t, env)
	}
	eventually(t, "work to be under way", func() bool { return w.Mantle.Counts().Billed > 4*slots })
	for _, wire := range []*wire{w.sqs, w.s3, w.mantle} {
		wire.cutFor(t.Context(), m, long)
		<-time.After(between)
	}
	w.outlasts(t)
	eventually(t, "all jobs to be done", w.done)
	// The calls in flight when the endpoint is cut off are billed, and their answers lost.
	// A minute without SQS loses no message, as they are hidden for two, and one without
	// S3 no answer.
	w.balance(t, fmt.Sprintf("%v without each of SQS, S3, mantle", long), 2*slots)
	for name, wire := range map[string]*wire{"SQS": w.sqs, "S3": w.s3, "mantle": w.mantle} {
		if wire.hits() == 0 {
			t.Errorf("no connection to %s was cut, want some", name)
		}
	}
}

// TestChaosStorageRefuses has S3 answer 503 SlowDown, then 500, for a minute each.
func TestChaosStorageRefuses(t *testing.T) {
	chaotic(t)
	var answer atomic.Int64
	var refused atomic.Int64
	w := newWorld(t, local.Config{S3: s3sim.Config{Fault: func(string, string, string) s3sim.Fault {
		status := int(answer.Load())
		if status == 0 {
			return s3sim.Fault{}
		}
		refused.Add(1)
		return s3sim.Fault{Status: status, Code: map[int]string{503: "SlowDown", 500: "InternalError"}[status]}
	}}})
	w.submit(t, 2*rate*int((3*time.Minute).Seconds()), 2<<10)
	for range 2 {
		w.hire(t, pacing())
	}
	eventually(t, "work to be under way", func() bool { return w.Mantle.Counts().Billed > 4*slots })
	for _, status := range []int64{503, 500} {
		answer.Store(status)
		<-time.After(time.Minute)
		answer.Store(0)
		<-time.After(10 * time.Second)
	}
	w.outlasts(t)
	eventually(t, "all jobs to be done", w.done)
	w.balance(t, fmt.Sprintf("503 SlowDown and 500 for a minute each: %d requests", refused.Load()), 0)
	if refused.Load() < 100 {
		t.Errorf("%d requests were refused, want hundreds", refused.Load())
	}
}

// TestChaosQueueRepeatsAndShuffles has SQS deliver one message of twenty again while it is held, and all
// of them in no order.
func TestChaosQueueRepeatsAndShuffles(t *testing.T) {
	chaotic(t)
	w := newWorld(t, local.Config{SQS: sqssim.Config{Shuffle: true}})
	repeats := &repeater{to: w.SQS, every: 20}
	twice := httptest.NewServer(repeats)
	defer twice.Close()
	w.sqs = newWire(t, strings.TrimPrefix(twice.URL, "http://"))
	w.submit(t, enough(3), 2<<10)
	for range 3 {
		w.hire(t, pacing())
	}
	eventually(t, "all jobs to be done", w.done)
	n := int(repeats.n.Load())
	// Both who have a message may be waiting for its answer.
	w.balance(t, fmt.Sprintf("%d messages delivered again", n), n)
	if n < len(w.names)/40 {
		t.Errorf("%d messages were delivered again, want about one of twenty", n)
	}
}

// A repeater is a queue that makes some messages visible again as soon as it has
// delivered them, as SQS is free to do.
type repeater struct {
	to    http.Handler
	every int64
	seen  atomic.Int64
	n     atomic.Int64 // messages made visible again
}

func (r *repeater) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if !strings.HasSuffix(req.Header.Get("X-Amz-Target"), ".ReceiveMessage") {
		r.to.ServeHTTP(w, req)
		return
	}
	asked, err := io.ReadAll(req.Body)
	if err != nil {
		return
	}
	again := req.Clone(req.Context())
	again.Body = io.NopCloser(strings.NewReader(string(asked)))
	rec := httptest.NewRecorder()
	r.to.ServeHTTP(rec, again)
	var got struct {
		Messages []struct{ ReceiptHandle string }
	}
	var asker struct{ QueueUrl string } //nolint:revive // as SQS spells it
	if json.Unmarshal(rec.Body.Bytes(), &got) == nil && json.Unmarshal(asked, &asker) == nil {
		for _, m := range got.Messages {
			if r.seen.Add(1)%r.every == 0 && r.show(req.Context(), asker.QueueUrl, m.ReceiptHandle) {
				r.n.Add(1)
			}
		}
	}
	maps.Copy(w.Header(), rec.Header())
	w.WriteHeader(rec.Code)
	_, _ = w.Write(rec.Body.Bytes())
}

// show makes a message visible.
func (r *repeater) show(ctx context.Context, queue, receipt string) bool {
	body, _ := json.Marshal(map[string]any{"QueueUrl": queue, "ReceiptHandle": receipt, "VisibilityTimeout": 0}) // strings and a number
	req := httptest.NewRequestWithContext(ctx, http.MethodPost, "/", strings.NewReader(string(body)))
	req.Header.Set("X-Amz-Target", "AmazonSQS.ChangeMessageVisibility")
	req.Header.Set("Content-Type", "application/x-amz-json-1.0")
	rec := httptest.NewRecorder()
	r.to.ServeHTTP(rec, req)
	return rec.Code == http.StatusOK
}

// TestChaosClocksJump moves the wall clock of one of two workers forth and back, by hours.
func TestChaosClocksJump(t *testing.T) {
	chaotic(t)
	w := newWorld(t, local.Config{S3: s3sim.Config{Keys: map[string]string{local.Key: local.Secret}}}) // which looks at dates
	w.submit(t, enough(2), 2<<10)
	odd := w.hire(t, pacing())
	w.hire(t, pacing())
	eventually(t, "both to be at work", func() bool { return w.Mantle.Counts().Billed > 4*slots })
	clock := newClock(t, odd)
	ctx, stop := context.WithTimeout(t.Context(), *chaos)
	defer stop()
	jumps := []time.Duration{2 * time.Hour, -2 * time.Hour, 10 * time.Minute, -24 * time.Hour, 0, 400 * 24 * time.Hour, 0}
	n := 0
	for ; ctx.Err() == nil; n++ {
		clock.set(t, jumps[n%len(jumps)])
		w.pause(ctx, 5*time.Second, 10*time.Second)
	}
	clock.set(t, 0)
	w.outlasts(t)
	eventually(t, "all jobs to be done", w.done)
	w.balance(t, fmt.Sprintf("%d jumps of up to 400 days", n), 0)
	ahead, behind := times(odd.log.String())
	if time.Until(ahead) < time.Hour || time.Since(behind) < time.Hour {
		t.Errorf("the log's times are from %v to %v, want some of the future and of the past: the clock did not jump", behind, ahead)
	}
}

// times returns the latest and the earliest time in a log of JSON lines.
func times(log string) (latest, earliest time.Time) {
	earliest = time.Now()
	for l := range strings.Lines(log) {
		var m struct{ Time time.Time }
		if json.Unmarshal([]byte(l), &m) != nil || m.Time.IsZero() {
			continue
		}
		if m.Time.After(latest) {
			latest = m.Time
		}
		if m.Time.Before(earliest) {
			earliest = m.Time
		}
	}
	return latest, earliest
}

// TestChaosMemoryRunsOut gives a worker less memory than its prompts take. The kernel kills it,
// again and again, until there is one with enough.
func TestChaosMemoryRunsOut(t *testing.T) {
	chaotic(t)
	w := newWorld(t, local.Config{Mantle: &mantlesim.Config{Latency: mantlesim.Latency{Median: 20 * time.Second}}})
	w.submit(t, 400, 250<<10)
	kills := 0
	for range 3 {
		victim := w.hire(t, map[string]string{"UPWELL_SLOTS": "200", "UPWELL_START_RATE": "100", "UPWELL_MAX_RATE": "100", "UPWELL_MAX_HELD_MIB": "512"},
			func(h *container.HostConfig) { h.Memory, h.MemorySwap = 48<<20, 48<<20 })
		victim.exits(t)
		state, err := victim.State(t.Context())
		if err != nil || !state.OOMKilled {
			t.Fatalf("the worker ended with %+v (%v), want it killed for its memory: %s", state, err, tail(victim.log.String()))
		}
		kills++
	}
	inVain := int(w.Mantle.Counts().Calls) - w.settled() // all that the killed have called and not stored
	w.hire(t, map[string]string{"UPWELL_SLOTS": "200", "UPWELL_START_RATE": "50", "UPWELL_MAX_RATE": "50"},
		func(h *container.HostConfig) { h.Memory, h.MemorySwap = 256<<20, 256<<20 })
	eventually(t, "all jobs to be done", w.done)
	w.balance(t, fmt.Sprintf("%d kills by the kernel, at 48 MiB", kills), inVain)
}

// TestChaosRollingRestart replaces four workers under load, one after the other.
func TestChaosRollingRestart(t *testing.T) {
	chaotic(t)
	w := newWorld(t, local.Config{Mantle: &mantlesim.Config{Latency: mantlesim.Latency{Median: 3 * time.Second, Sigma: 0.6}}})
	w.submit(t, enough(4), 2<<10)
	var crew []*box
	env := pacing()
	env["UPWELL_SLOTS"] = "32"
	for range 4 {
		crew = append(crew, w.hire(t, env))
	}
	eventually(t, "all to be at work", func() bool { return w.Mantle.Counts().Billed > 64 })
	began, n := time.Now(), 0
	for ; time.Since(began) < *chaos || n < few(); n++ {
		old := crew[n%4]
		crew[n%4] = w.hire(t, env)
		old.signal(t, "TERM")
		if code := old.exits(t); code != 0 {
			t.Errorf("a worker that was told to stop ended with %d, want 0: %s", code, tail(old.log.String()))
		}
	}
	w.outlasts(t)
	eventually(t, "all jobs to be done", w.done)
	w.balance(t, fmt.Sprintf("%d workers replaced", n), 0)
}

// TestChaosFleetOfEight has eight workers share one account. It runs by itself, as what
// they use of it is measured.
func TestChaosFleetOfEight(t *testing.T) {
	lengthy(t)
	const calls = 40 // a second, which nobody is told
	hiddenCapacity, err := capacity.ParseScript(fmt.Sprintf("0s calls=%d", calls))
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, local.Config{Mantle: &mantlesim.Config{Capacity: hiddenCapacity}})
	const ramp = 90 * time.Second // until they have found the capacity and their parts of it
	w.submit(t, calls*int((ramp+*chaos+30*time.Second).Seconds()), 2<<10)
	var crew []*box
	for range 8 {
		crew = append(crew, w.hire(t, map[string]string{"UPWELL_FLEET": "true", "UPWELL_SLOTS": "64"}))
	}
	<-time.After(ramp)
	before := w.Mantle.Counts()
	began := time.Now()
	<-time.After(*chaos)
	after, took := w.Mantle.Counts(), time.Since(began)
	eventually(t, "all jobs to be done", w.done)
	var least, most float64 = math.Inf(1), 0
	for _, b := range crew {
		b.signal(t, "TERM")
		if code := b.exits(t); code != 0 {
			t.Errorf("a worker ended with %d, want 0", code)
		}
		n := field(t, b.log.String(), "worker stopped", "stored")
		least, most = min(least, n), max(most, n)
	}
	refusals := func(c mantlesim.Counts) int64 { return c.Refused429 + c.Refused503 + c.Refused529 }
	used := float64(after.Answered-before.Answered) / (calls * took.Seconds())
	refused := float64(refusals(after)-refusals(before)) / float64(after.Calls-before.Calls)
	w.balance(t, fmt.Sprintf("8 workers use %.1f %% of what there is, %.1f %% of calls refused, the busiest did %.2f times the work of the idlest", 100*used, 100*refused, most/least), 0)
	// How much is used, and how evenly, depends on the machine; the table has what was
	// measured. Workers that do not share, or lose their parts, use far less.
	if used < 0.7 || refused > 0.03 || most > 3*least {
		t.Errorf("the fleet uses %.3f of the capacity, is refused %.3f of its calls, and does between %v and %v jobs each, want at least 0.7, at most 0.03, and no more than three times as many", used, refused, least, most)
	}
}
