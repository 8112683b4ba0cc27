package metrics

import (
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"upwell/cmd/internal/budget"
	"upwell/jobs"
	"upwell/jobs/sqsqueue"
	"upwell/throttle"
	"upwell/worker"
)

// parkedFor is how long a run counts as parked after its parking was last met with.
// While it is parked here, its jobs come about once a minute and are given back; those
// of a run that was purged, or that somebody else does, never come again.
const parkedFor = 15 * time.Minute

// A stand is what gauges show: how the worker stood at its last sample, and what the
// queue and the budget said when they were last asked. It is a collector, so that all
// of a sample is seen together, and a lane that a sample has no more is gone.
type stand struct {
	worker []gauge[worker.Sample]
	lane   []gauge[laneStand]
	budget []gauge[budget.Status]

	taken, parked, queue, queueTaken *prometheus.Desc

	mu     sync.Mutex
	now    figures
	paused map[throttle.Lane]bool // lanes that a person has to do something about
	runs   map[string]time.Time   // that are parked, and when that was last met with
}

// figures are what is shown.
type figures struct {
	at      time.Time // of the sample, or zero
	sample  worker.Sample
	lanes   map[throttle.Lane]laneStand
	parked  int // runs
	queue   sqsqueue.Counts
	queueAt time.Time // when it was asked, or zero
	budget  *budget.Status
}

// A laneStand is how a lane stands, or the sum of several.
type laneStand struct {
	rate, stable                      float64
	inFlight, waiting, closed, paused int
}

// A gauge is one figure of a T.
type gauge[T any] struct {
	desc *prometheus.Desc
	of   func(*T) float64
}

func gaugeOf[T any](of func(*T) float64, name, help string, labels ...string) gauge[T] {
	return gauge[T]{prometheus.NewDesc(name, help, labels, nil), of}
}

func newStand() *stand {
	return &stand{
		paused: make(map[throttle.Lane]bool), runs: make(map[string]time.Time),
		worker: []gauge[worker.Sample]{
			gaugeOf(func(s *worker.Sample) float64 { return float64(s.Slots) }, "upwell_slots", "Calls that may be in flight at once."),
			gaugeOf(func(s *worker.Sample) float64 { return float64(s.SlotsUsed) }, "upwell_slots_used", "Calls in flight."),
			gaugeOf(func(s *worker.Sample) float64 { return float64(s.Held) }, "upwell_held_messages", "Messages held."),
			gaugeOf(func(s *worker.Sample) float64 { return float64(s.Most) }, "upwell_held_messages_limit", "Messages that may be held."),
			gaugeOf(func(s *worker.Sample) float64 { return float64(s.Bytes) }, "upwell_held_bytes", "Bytes held of messages and of what was fetched for them."),
			gaugeOf(func(s *worker.Sample) float64 { return float64(s.MostBytes) }, "upwell_held_bytes_limit", "Bytes that may be held of messages and of what was fetched for them."),
			gaugeOf(func(s *worker.Sample) float64 { return s.Oldest.Seconds() }, "upwell_held_oldest_seconds", "Time since the oldest message held was received. A queue takes it away after 12 hours."),
			gaugeOf(func(s *worker.Sample) float64 { return float64(s.WaitSource) }, "upwell_queue_requests_waiting", "Requests to the queue under way that messages wait for."),
			gaugeOf(func(s *worker.Sample) float64 { return float64(s.WaitSink) }, "upwell_store_requests_waiting", "Requests to the store under way that messages wait for, and for what messages refer to."),
			gaugeOf(func(s *worker.Sample) float64 { return float64(s.WaitMoney) }, "upwell_jobs_waiting_for_budget", "Jobs held that have cost something, until their run's budget has room."),
			gaugeOf(func(s *worker.Sample) float64 { return truth(s.Bound == worker.BoundDraining) }, "upwell_draining", "1 while the worker stops and waits for calls in flight."),
		},
		lane: []gauge[laneStand]{
			ofLane(func(s *laneStand) float64 { return s.rate }, "upwell_lane_rate", "Calls per second that the limiter allows."),
			ofLane(func(s *laneStand) float64 { return s.stable }, "upwell_lane_stable_rate", "Calls per second that the limiter goes back to after a disturbance; 0 before that is known."),
			ofLane(func(s *laneStand) float64 { return float64(s.inFlight) }, "upwell_lane_in_flight", "Permits that are out: calls in flight, and those that wait for a slot to start in."),
			ofLane(func(s *laneStand) float64 { return float64(s.waiting) }, "upwell_lane_waiting", "Jobs waiting for a permit."),
			ofLane(func(s *laneStand) float64 { return float64(s.closed) }, "upwell_lane_closed", "1 while the lane starts nothing; of the lane other, how many do not."),
			ofLane(func(s *laneStand) float64 { return float64(s.paused) }, "upwell_lane_paused", "1 while the lane's credential or path is no good, or no connection could be had for a minute; of the lane other, how many there are of these."),
		},
		budget: []gauge[budget.Status]{
			gaugeOf(func(s *budget.Status) float64 { return usd(s.LimitUSD) }, "upwell_budget_limit_usd", "Budget of the worker's run, in US dollars."),
			gaugeOf(func(s *budget.Status) float64 { return usd(s.SpentUSD) }, "upwell_budget_spent_usd", "What the run has cost, all workers together, in US dollars."),
			gaugeOf(func(s *budget.Status) float64 { return usd(s.ReservedUSD) }, "upwell_budget_reserved_usd", "What is set aside for calls of the run, all workers together, in US dollars."),
			gaugeOf(func(s *budget.Status) float64 { return truth(s.ParkedSince != nil) }, "upwell_budget_parked", "1 while the budget has no room for another call."),
		},
		taken:      prometheus.NewDesc("upwell_sample_timestamp_seconds", "When the worker last said how it stands, which it does each second.", nil, nil),
		parked:     prometheus.NewDesc("upwell_runs_parked", "Runs whose jobs are given back, as their budget has no room.", nil, nil),
		queue:      prometheus.NewDesc("upwell_queue_messages", "Messages in the queue, by state: visible wait to be received, hidden are held by workers, delayed are not yet to be received.", []string{"state"}, nil),
		queueTaken: prometheus.NewDesc("upwell_queue_messages_timestamp_seconds", "When the queue last said how many messages it holds.", nil, nil),
	}
}

func ofLane(of func(*laneStand) float64, name, help string) gauge[laneStand] {
	return gaugeOf(of, name, help, "region", "model", "tier")
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func usd(d jobs.USD) float64 { return float64(d) }

// take takes over a sample. seen has the lanes of it by the labels they have.
func (s *stand) take(at time.Time, sample *worker.Sample, seen map[throttle.Lane][]throttle.Lane) {
	s.mu.Lock()
	defer s.mu.Unlock()
	lanes := make(map[throttle.Lane]laneStand, len(seen))
	for label, ids := range seen {
		var sum laneStand
		for _, id := range ids {
			st := sample.Lanes[id]
			sum.rate += st.Rate
			sum.stable += st.Stable
			sum.inFlight += st.InFlight
			sum.waiting += st.Waiting
			sum.closed += int(truth(st.ClosedUntil.After(at)))
			sum.paused += int(truth(s.paused[id]))
		}
		lanes[label] = sum
	}
	maps.DeleteFunc(s.runs, func(_ string, met time.Time) bool { return at.Sub(met) > parkedFor })
	s.now.at, s.now.sample, s.now.lanes, s.now.parked = at, *sample, lanes, len(s.runs)
	s.now.sample.Lanes = nil // nobody else's to keep
}

// pause notes whether the lane is paused. There are no more of them than the worker
// keeps itself.
func (s *stand) pause(id throttle.Lane, paused bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if paused {
		s.paused[id] = true
	} else {
		delete(s.paused, id)
	}
}

func (s *stand) park(run string, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.runs[run] = at
}

func (s *stand) unpark(run string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.runs, run)
}

func (s *stand) queued(c sqsqueue.Counts) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now.queue, s.now.queueAt = c, time.Now()
}

func (s *stand) budgeted(b *budget.Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.now.budget = b; b != nil {
		s.now.budget = new(*b)
	}
}

// figures returns what there is to show. What it leads to is replaced, and never
// changed.
func (s *stand) figures() figures {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now
}

// Describe implements prometheus.Collector.
func (s *stand) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range slices.Concat(descs(s.worker), descs(s.lane), descs(s.budget), []*prometheus.Desc{s.taken, s.parked, s.queue, s.queueTaken}) {
		ch <- d
	}
}

func descs[T any](gauges []gauge[T]) (all []*prometheus.Desc) {
	for _, g := range gauges {
		all = append(all, g.desc)
	}
	return all
}

// Collect implements prometheus.Collector. It holds no lock while it writes: whoever
// observes would wait for whoever scrapes.
func (s *stand) Collect(ch chan<- prometheus.Metric) {
	f := s.figures()
	if !f.at.IsZero() {
		show(ch, s.worker, &f.sample)
		for id, ln := range f.lanes {
			show(ch, s.lane, &ln, id.Region, id.Model, id.Tier)
		}
		set(ch, s.taken, unix(f.at))
		set(ch, s.parked, float64(f.parked))
	}
	if !f.queueAt.IsZero() {
		set(ch, s.queue, float64(f.queue.Visible), "visible")
		set(ch, s.queue, float64(f.queue.Hidden), "hidden")
		set(ch, s.queue, float64(f.queue.Delayed), "delayed")
		set(ch, s.queueTaken, unix(f.queueAt))
	}
	if f.budget != nil {
		show(ch, s.budget, f.budget)
	}
}

func unix(t time.Time) float64 { return float64(t.UnixMilli()) / 1e3 }

func show[T any](ch chan<- prometheus.Metric, gauges []gauge[T], of *T, labels ...string) {
	for _, g := range gauges {
		set(ch, g.desc, g.of(of), labels...)
	}
}

func set(ch chan<- prometheus.Metric, d *prometheus.Desc, v float64, labels ...string) {
	ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}
