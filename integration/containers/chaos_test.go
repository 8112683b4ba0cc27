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
	"syscall"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"

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

// room is how many messages a worker of so many slots holds at most: as many as it makes
// calls for, and half as many again and a batch, whose answers are on their way.
func room(slots int) int { return slots + slots/2 + 10 }

// lostByKill is how many calls a kill repeats at most: those of all messages held.
var lostByKill = room(slots)

// pacing are the variables of such a worker.
func pacing() map[string]string {
	return map[string]string{"UPWELL_SLOTS": fmt.Sprint(slots), "UPWELL_START_RATE": fmt.Sprint(rate), "UPWELL_MAX_RATE": fmt.Sprint(rate)}
}

// enough is how many jobs keep so many workers busy for as long as faults are injected,
// and a while after.
func enough(workers int) int {
	return int(float64(workers*rate)*chaos.Seconds()) + aWhile(workers)
}

// aWhile is how many jobs keep so many workers busy for a while.
func aWhile(workers int) int { return workers * rate * 20 }

// few is how many workers are killed, or replaced, at least, however slow a machine is
// at starting others.
func few() int { return max(1, int(*chaos/(30*time.Second))) }

// TestChaosWorkersKilled kills one of four workers after the other, and others take their places.
func TestChaosWorkersKilled(t *testing.T) {
	chaotic(t)
	w := newWorld(t, local.Config{})
	stop := w.feed(t, aWhile(4))
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
	stop()
	w.finish(t)
	w.balance(t, fmt.Sprintf("%d kills", kills), kills*lostByKill)
}

// TestChaosWorkerPaused freezes a worker until its messages are somebody else's, who has paid
// for them again, and thaws it.
func TestChaosWorkerPaused(t *testing.T) {
	chaotic(t)
	w := newWorld(t, local.Config{})
	w.submit(t, 2*rate*40, 2<<10) // so few that the other is idle when the messages come back
	zombie := w.hire(t, pacing())
	eventually(t, "it to be at work", func() bool { return w.Mantle.Counts().Billed > 4*slots })
	// There is nobody else yet, so what is in flight when it is frozen are its own calls,
	// and nobody stores their answers.
	var unheard int
	eventually(t, "it to be frozen with calls in flight", func() bool {
		zombie.freeze(t)
		if unheard = w.Mantle.Counts().InFlight; unheard == 0 {
			zombie.thaw(t)
		}
		return unheard > 0
	})
	frozen := time.Now()
	other := w.hire(t, pacing())
	w.eventually(t, "another to take its messages and pay for them again", func() bool { return int(w.Mantle.Counts().Repeated) >= unheard })
	zombie.thaw(t)
	lasted := time.Since(frozen).Round(time.Second)
	w.finish(t)
	for _, b := range []*box{zombie, other} { // which end when they have nothing left to store
		b.signal(t, "TERM")
		if code := b.exits(t); code != 0 {
			t.Errorf("a worker that was told to stop ended with %d, want 0: %s", code, tail(b.log.String()))
		}
	}
	// It has come back to answers that another has paid for again.
	w.balance(t, fmt.Sprintf("1 pause of %v", lasted), lostByKill)
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
	const long = time.Minute
	w := newWorld(t, local.Config{})
	env := pacing()
	env["UPWELL_ATTEMPT_TIMEOUT"] = "45s"
	stop := w.feed(t, aWhile(2))
	for range 2 {
		w.hire(t, env)
	}
	for _, wire := range []*wire{w.sqs, w.s3, w.mantle} {
		w.underWay(t) // again, after the one before
		eventually(t, "a call to be in flight", func() bool { return w.Mantle.Counts().InFlight > 0 })
		wire.cutFor(t.Context(), m, long)
	}
	w.underWay(t)
	stop()
	w.finish(t)
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
	stop := w.feed(t, aWhile(2))
	for range 2 {
		w.hire(t, pacing())
	}
	for _, status := range []int64{503, 500} {
		w.underWay(t) // again, after the first
		before := refused.Load()
		answer.Store(status)
		<-time.After(time.Minute)
		eventually(t, "a hundred requests to be refused", func() bool { return refused.Load() >= before+100 })
		answer.Store(0)
	}
	w.underWay(t)
	stop()
	w.finish(t)
	w.balance(t, fmt.Sprintf("503 SlowDown and 500 for a minute each: %d requests", refused.Load()), 0)
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
	w.finish(t)
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
	stop := w.feed(t, aWhile(2))
	odd := w.hire(t, pacing())
	w.hire(t, pacing())
	odd.says(t, `"stored"`)
	clock := newClock(t, odd)
	ctx, cancel := context.WithTimeout(t.Context(), *chaos)
	defer cancel()
	jumps := []time.Duration{2 * time.Hour, -2 * time.Hour, 10 * time.Minute, -24 * time.Hour, 0, 400 * 24 * time.Hour, 0}
	n := 0
	for ; ctx.Err() == nil || n < len(jumps); n++ {
		jump, known := jumps[n%len(jumps)], len(odd.log.String())
		clock.set(t, jump)
		w.pause(ctx, 5*time.Second, 10*time.Second)
		// A jump lasts until the worker has done a job by that clock.
		eventually(t, fmt.Sprintf("the worker to store a result at a time that is off by %v", jump), func() bool {
			return stored(odd.log.since(known), time.Now().Add(jump))
		})
	}
	clock.set(t, 0)
	stop()
	w.finish(t)
	w.balance(t, fmt.Sprintf("%d jumps of up to 400 days", n), 0)
}

// stored reports whether a log of JSON lines tells of a result that was stored at about
// that time.
func stored(log string, at time.Time) bool {
	for l := range strings.Lines(log) {
		var m struct {
			Time time.Time
			Msg  string
		}
		if json.Unmarshal([]byte(l), &m) == nil && m.Msg == "stored" && m.Time.Sub(at).Abs() < 4*time.Minute { // the least jump is of ten
			return true
		}
	}
	return false
}

// TestChaosMemoryRunsOut gives a worker less memory than its prompts take. The kernel kills it,
// again and again, until there is one with enough.
func TestChaosMemoryRunsOut(t *testing.T) {
	chaotic(t)
	// While these are at it no call is answered, so that what they hold can but grow,
	// however slow they are at it.
	w := newWorld(t, local.Config{Mantle: &mantlesim.Config{
		Latency: mantlesim.Latency{Median: 20 * time.Second},
		Faults:  []mantlesim.Fault{{Kind: mantlesim.Slow, Factor: 1000}},
	}})
	w.submit(t, 400, 250<<10)
	kills := 0
	for range 3 {
		victim := w.hire(t, map[string]string{"OPENAI_API_KEY": "victim", "UPWELL_SLOTS": "200", "UPWELL_START_RATE": "100", "UPWELL_MAX_RATE": "100", "UPWELL_MAX_HELD_MIB": "512"},
			func(h *container.HostConfig) { h.Memory, h.MemorySwap = 48<<20, 48<<20 })
		code := victim.exits(t)
		eventually(t, "the engine to say why the worker was killed", func() bool {
			state, err := victim.State(t.Context())
			if err != nil || code != 128+int(syscall.SIGKILL) {
				t.Fatalf("the worker ended with %d, %+v (%v), want it killed: %s", code, state, err, tail(victim.log.String()))
			}
			return state.OOMKilled // which the engine may hear of later than of the end
		})
		kills++
	}
	if err := w.Mantle.SetFaults(nil); err != nil {
		t.Fatal(err)
	}
	w.hire(t, map[string]string{"UPWELL_SLOTS": "200", "UPWELL_START_RATE": "50", "UPWELL_MAX_RATE": "50"},
		func(h *container.HostConfig) { h.Memory, h.MemorySwap = 256<<20, 256<<20 })
	w.finish(t)
	eventually(t, "the calls of the killed to end", func() bool { return w.Mantle.Counts().InFlight == 0 })
	inVain := 0 // all that the killed have called
	for _, e := range w.Mantle.Ledger() {
		if e.Billed && e.Key == keyID("victim") {
			inVain++
		}
	}
	w.balance(t, fmt.Sprintf("%d kills by the kernel, at 48 MiB", kills), inVain)
}

// TestChaosRollingRestart replaces four workers under load, one after the other.
func TestChaosRollingRestart(t *testing.T) {
	chaotic(t)
	w := newWorld(t, local.Config{Mantle: &mantlesim.Config{Latency: mantlesim.Latency{Median: 3 * time.Second, Sigma: 0.6}}})
	stop := w.feed(t, aWhile(4))
	var crew []*box
	env := pacing()
	env["UPWELL_SLOTS"] = "32"
	for range 4 {
		crew = append(crew, w.hire(t, env))
	}
	for _, b := range crew {
		b.says(t, `"stored"`)
	}
	began, n := time.Now(), 0
	for ; time.Since(began) < *chaos || n < few(); n++ {
		old := crew[n%4]
		crew[n%4] = w.hire(t, env)
		old.signal(t, "TERM")
		if code := old.exits(t); code != 0 {
			t.Errorf("a worker that was told to stop ended with %d, want 0: %s", code, tail(old.log.String()))
		}
	}
	stop()
	w.finish(t)
	w.balance(t, fmt.Sprintf("%d workers replaced", n), 0)
}

// TestChaosFleetOfEight has eight workers share one account. It runs by itself, as what
// they use of it is measured: against what a ninth does at the same time that is told its
// part, and nobody else's share of this machine.
func TestChaosFleetOfEight(t *testing.T) {
	lengthy(t)
	const calls, workers = 40, 8 // a second, which nobody is told; and those who share them
	hiddenCapacity, err := capacity.ParseScript(fmt.Sprintf("0s calls=%d", calls))
	if err != nil {
		t.Fatal(err)
	}
	w, yard := newWorld(t, local.Config{Mantle: &mantlesim.Config{Capacity: hiddenCapacity}}), newWorld(t, local.Config{})
	part := fmt.Sprint(calls / workers)
	stop, stopYard := w.feed(t, calls*20), yard.feed(t, calls/workers*20)
	yard.hire(t, map[string]string{"UPWELL_SLOTS": "64", "UPWELL_START_RATE": part, "UPWELL_MAX_RATE": part})
	for i := range workers {
		w.hire(t, map[string]string{"UPWELL_FLEET": "true", "UPWELL_SLOTS": "64", "OPENAI_API_KEY": fleetKey(i)})
		if i > 0 {
			continue
		}
		// The first finds the capacity, and the others come to share it. If all search at
		// once, what they find is a matter of luck, and it takes them long to find more. On
		// a machine where one alone cannot make so many calls nobody waits for long.
		hired := time.Now()
		eventually(t, "the first to find the capacity", func() bool {
			s := w.sharing(yard, workers, time.Now().Add(-10*time.Second))
			return s.used >= 0.9 && s.used <= 1.2 && s.refused <= 0.03 || time.Since(hired) > 2*time.Minute
		})
	}
	// They have to find the capacity and their parts of it, and may have to again when the
	// machine has stood still: all the calls that piled up come at once then, and most are
	// refused. What is wanted is one stretch of time, with all of them there, at which they
	// have.
	stretch := *chaos / 2
	var s sharing
	began := time.Now().Add(time.Minute) // or the table would have what they lost by the search
	for good := false; !good; good = s.good() && s.from.After(began) {
		if time.Since(began) > stretch+patience {
			t.Fatalf("in all this time there was no stretch of %v at which the fleet shared the capacity: lastly %s", stretch, s)
		}
		<-time.After(time.Second)
		s = w.sharing(yard, workers, time.Now().Add(-stretch))
	}
	stop()
	stopYard()
	w.finish(t)
	yard.finish(t)
	for _, b := range w.crew {
		b.signal(t, "TERM")
		if code := b.exits(t); code != 0 {
			t.Errorf("a worker ended with %d, want 0", code)
		}
	}
	w.balance(t, s.String(), 0)
}

// sharing is what the workers of a fleet made of a capacity.
type sharing struct {
	from    time.Time // until now
	workers int
	used    float64 // of what they would do that know their parts
	refused float64 // of their calls
	most    int     // calls that one of them had answered
	least   int
}

// sharing looks at what became of calls since then. A worker in the yard knows its part.
func (w *world) sharing(yard *world, workers int, from time.Time) sharing {
	told := 0
	for _, e := range yard.Mantle.Ledger() {
		if e.Status == http.StatusOK && e.Answered.After(from) {
			told++
		}
	}
	answered, refusals := make(map[string]int), 0
	for i := range workers {
		answered[keyID(fleetKey(i))] = 0
	}
	for _, e := range w.Mantle.Ledger() {
		switch {
		case e.Answered.Before(from):
		case e.Status == http.StatusOK:
			answered[e.Key]++
		default:
			refusals++
		}
	}
	counts := slices.Sorted(maps.Values(answered))
	all := 0
	for _, n := range counts {
		all += n
	}
	return sharing{
		from: from, workers: len(counts), most: counts[len(counts)-1], least: counts[0],
		used: float64(all) / float64(workers*told), refused: float64(refusals) / float64(all+refusals),
	}
}

// fleetKey is the key by which a worker's calls are known from the others'.
func fleetKey(i int) string { return fmt.Sprint("worker-", i) }

// good reports whether they share. How much is used, and how evenly, depends on the
// machine; the table has what was measured. Workers that do not share, or lose their
// parts, use far less.
func (s sharing) good() bool {
	return s.used >= 0.7 && !math.IsInf(s.used, 0) && s.refused <= 0.03 && s.most <= 3*s.least
}

func (s sharing) String() string {
	return fmt.Sprintf("%d workers use %.1f %% of what there is, %.1f %% of calls refused, the busiest did %.2f times the work of the idlest",
		s.workers, 100*s.used, 100*s.refused, float64(s.most)/float64(s.least))
}
