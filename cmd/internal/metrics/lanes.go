package metrics

import (
	"cmp"
	"errors"
	"maps"
	"sync"
	"sync/atomic"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"

	"upwell/cmd/internal/progress"
	"upwell/jobs"
	"upwell/throttle"
	"upwell/worker"
)

const (
	// lanesKept is how many lanes have series of their own, as in the progress that
	// is shown. A lane has up to some 200, nearly all of them in the histograms.
	lanesKept = 32

	// longest is how many bytes a name may have and be a label. No model's name is
	// half as long.
	longest = 128
)

// What the GenAI conventions call what is called here. The endpoint's two paths are
// both a chat to them.
const (
	operation = "chat"
	provider  = "aws.bedrock"
)

// lanes knows which lanes have series of their own.
type lanes struct {
	attempts, refusals, tokens *prometheus.CounterVec
	cost, unpriced, closures   *prometheus.CounterVec
	wait, took, usage          *prometheus.HistogramVec

	table atomic.Pointer[table]
	mu    sync.Mutex // held while the table is replaced
}

// A table is the lanes there are. It is replaced, and never changed.
type table struct {
	own    map[throttle.Lane]*lane
	idle   map[throttle.Lane]bool // those of them that no work comes for any more
	others *lane                  // all that are not among own, or nil if there were none yet
}

func newLanes(in into) *lanes {
	ls := &lanes{
		attempts: in.counters("upwell_attempts_total", "Calls ended, by how: answered, throttled or unavailable for lack of room, failed.", "region", "model", "tier", "outcome"),
		refusals: in.counters("upwell_refusals_total", "Calls refused for lack of room, by kind and HTTP status; status none had no connection.", "region", "model", "tier", "kind", "status"),
		tokens:   in.counters("upwell_tokens_total", "Tokens billed, by kind: cached are part of input, and reasoning of output.", "region", "model", "tier", "kind"),
		cost:     in.counters("upwell_cost_usd_total", "Cost of calls whose price is known, in US dollars.", "region", "model", "tier"),
		unpriced: in.counters("upwell_unpriced_calls_total", "Calls billed whose price is not known.", "region", "model", "tier"),
		closures: in.counters("upwell_lane_closures_total", "Times that the lane closed.", "region", "model", "tier"),
		wait:     in.histograms("upwell_permit_wait_seconds", "Time that jobs waited for the permit to start a call.", waitBuckets, "region", "model", "tier"),
		took: in.histograms("gen_ai_client_operation_duration_seconds", "Duration of calls. error_type is empty for those that got what they asked for.", callBuckets,
			"gen_ai_operation_name", "gen_ai_provider_name", "region", "gen_ai_request_model", "tier", "error_type"),
		usage: in.histograms("gen_ai_client_token_usage", "Tokens of calls that were billed.", tokenBuckets,
			"gen_ai_operation_name", "gen_ai_provider_name", "region", "gen_ai_request_model", "tier", "gen_ai_token_type"),
	}
	ls.table.Store(&table{})
	return ls
}

// named returns the lane as its labels name it. A tier that is not named is the
// default one.
func named(id throttle.Lane) throttle.Lane {
	id.Tier = cmp.Or(id.Tier, "default")
	for _, s := range []string{id.Region, id.Model, id.Tier} {
		if len(s) > longest || !utf8.ValidString(s) {
			return progress.Others
		}
	}
	return id
}

// lane returns what is counted of the lane.
func (ls *lanes) lane(id throttle.Lane) *lane {
	id = named(id)
	t := ls.table.Load()
	if ln, ok := t.own[id]; ok {
		return ln
	}
	if t.others != nil && (id == progress.Others || len(t.own) == lanesKept && len(t.idle) == 0) {
		return t.others
	}
	return ls.add(id)
}

// add makes room for a lane that is not in the table: among those that have series of
// their own or, when all of these have work, with the others.
func (ls *lanes) add(id throttle.Lane) *lane {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	was := ls.table.Load()
	if ln, ok := was.own[id]; ok {
		return ln
	}
	now := &table{own: maps.Clone(was.own), idle: maps.Clone(was.idle), others: was.others}
	if now.own == nil {
		now.own = make(map[throttle.Lane]*lane)
	}
	if id != progress.Others && len(now.own) == lanesKept {
		for old := range now.idle {
			ls.forget(old)
			delete(now.own, old)
			delete(now.idle, old)
			break
		}
	}
	if id == progress.Others || len(now.own) == lanesKept {
		if now.others == nil {
			now.others = ls.make(progress.Others)
			ls.table.Store(now)
		}
		return now.others
	}
	ln := ls.make(id)
	now.own[id] = ln
	ls.table.Store(now)
	return ln
}

// forget removes the series of a lane.
func (ls *lanes) forget(id throttle.Lane) {
	mine := prometheus.Labels{"region": id.Region, "model": id.Model, "tier": id.Tier}
	for _, v := range []*prometheus.CounterVec{ls.attempts, ls.refusals, ls.tokens, ls.cost, ls.unpriced, ls.closures} {
		v.DeletePartialMatch(mine)
	}
	ls.wait.DeletePartialMatch(mine)
	mine = prometheus.Labels{"region": id.Region, "gen_ai_request_model": id.Model, "tier": id.Tier}
	ls.took.DeletePartialMatch(mine)
	ls.usage.DeletePartialMatch(mine)
}

// sampled notes which lanes work comes for, and returns how those stand that have
// series: of others, the sum.
func (ls *lanes) sampled(states map[throttle.Lane]throttle.State) (seen map[throttle.Lane][]throttle.Lane) {
	seen = make(map[throttle.Lane][]throttle.Lane, min(len(states), lanesKept+1))
	for id := range states {
		label := ls.lane(id).id
		seen[label] = append(seen[label], id)
	}
	ls.mu.Lock()
	defer ls.mu.Unlock()
	was := ls.table.Load()
	idle := make(map[throttle.Lane]bool)
	for id := range was.own {
		if _, ok := seen[id]; !ok {
			idle[id] = true
		}
	}
	if !maps.Equal(idle, was.idle) {
		ls.table.Store(&table{own: was.own, idle: idle, others: was.others})
	}
	return seen
}

// A lane is what is counted of one lane, looked up once.
type lane struct {
	id       throttle.Lane // as its labels name it
	all      *lanes
	outcomes map[throttle.Outcome]prometheus.Counter
	wait     prometheus.Observer
	took     prometheus.Observer // of calls that got what they asked for

	input, cached, output, reasoning prometheus.Counter
	inputs, outputs                  prometheus.Observer // by call
	cost, unpriced, closures         prometheus.Counter
}

// make returns a lane whose counters are zero, and there.
func (ls *lanes) make(id throttle.Lane) *lane {
	r, m, t := id.Region, id.Model, id.Tier
	outcomes := make(map[throttle.Outcome]prometheus.Counter)
	for o, label := range map[throttle.Outcome]string{
		throttle.Accepted: "answered", throttle.Throttled: "throttled", throttle.Unavailable: "unavailable", throttle.Unrelated: "failed",
	} {
		outcomes[o] = ls.attempts.WithLabelValues(r, m, t, label)
	}
	tokens := func(kind string) prometheus.Counter { return ls.tokens.WithLabelValues(r, m, t, kind) }
	return &lane{
		id: id, all: ls, outcomes: outcomes,
		wait: ls.wait.WithLabelValues(r, m, t), took: ls.took.WithLabelValues(operation, provider, r, m, t, ""),
		input: tokens("input"), cached: tokens("cached"), output: tokens("output"), reasoning: tokens("reasoning"),
		inputs:  ls.usage.WithLabelValues(operation, provider, r, m, t, "input"),
		outputs: ls.usage.WithLabelValues(operation, provider, r, m, t, "output"),
		cost:    ls.cost.WithLabelValues(r, m, t), unpriced: ls.unpriced.WithLabelValues(r, m, t), closures: ls.closures.WithLabelValues(r, m, t),
	}
}

// attempted counts the end of an attempt.
func (ln *lane) attempted(e *worker.Event) {
	if n, ok := ln.outcomes[e.Outcome]; ok {
		n.Inc()
	}
	took := ln.took
	if e.Err != nil {
		took = ln.all.took.WithLabelValues(operation, provider, ln.id.Region, ln.id.Model, ln.id.Tier, errorType(e.Err))
	}
	took.Observe(float64(e.Attempt.TookMS) / 1e3)
	if e.Outcome == throttle.Throttled || e.Outcome == throttle.Unavailable {
		ln.all.refusals.WithLabelValues(ln.id.Region, ln.id.Model, ln.id.Tier, e.Outcome.String(), refusedWith(e.Attempt.Status)).Inc()
	}
	if e.Answer != nil {
		ln.billed(e.Usage)
	}
	switch {
	case !e.CostUSD.Known():
		ln.unpriced.Inc()
	case e.CostUSD > 0:
		ln.cost.Add(float64(e.CostUSD))
	}
}

// billed counts the tokens of a call. A number below zero is the endpoint's mistake.
func (ln *lane) billed(u jobs.Usage) {
	in, out := float64(max(u.InputTokens, 0)), float64(max(u.OutputTokens, 0))
	ln.input.Add(in)
	ln.output.Add(out)
	ln.cached.Add(float64(max(u.CachedTokens, 0)))
	ln.reasoning.Add(float64(max(u.ReasoningTokens, 0)))
	ln.inputs.Observe(in)
	ln.outputs.Observe(out)
}

// refusedWith returns the label of a refusal's status.
func refusedWith(status int) string {
	switch status {
	case 0:
		return "none"
	case 429:
		return "429"
	case 503:
		return "503"
	case 529:
		return "529"
	default:
		return other
	}
}

// errorType returns what the conventions call error.type: the class of the dead letter
// where the call is never tried again, else the kind of the error.
func errorType(err error) string {
	e, ok := errors.AsType[*worker.Error](err)
	switch {
	case !ok:
		return worker.Transient.String()
	case e.Kind != worker.Permanent:
		return e.Kind.String()
	}
	for _, c := range classes() {
		if c == e.Class {
			return string(c)
		}
	}
	return other
}
