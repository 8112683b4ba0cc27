// Package metrics turns the worker's events into Prometheus metrics.
//
// [Metrics] is one more reader of the event stream: what it exposes is counted from
// events and samples and nothing else. Names are those of OpenTelemetry's GenAI
// conventions where there are any, in their Prometheus form, and upwell_ otherwise.
//
// The number of series has a bound. Ops, outcomes, classes and bounds are closed sets;
// of lanes, which anybody who writes a job can name, [lanesKept] have series of their
// own and all others are one; no run and no custom_id is a label.
package metrics

import (
	"errors"
	"net/http"
	"runtime"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"upwell/cmd/internal/budget"
	"upwell/jobs"
	"upwell/jobs/sqsqueue"
	"upwell/throttle"
	"upwell/worker"
)

// scrapes is how many scrapes are served at once. Each holds a copy of all series
// while it is written; two Prometheus servers and a person make three.
const scrapes = 4

// Metrics are what a worker exposes. Its methods may be called concurrently.
type Metrics struct {
	registry *prometheus.Registry
	lanes    *lanes
	stand    *stand

	received, late      prometheus.Counter
	repairs, extensions prometheus.Counter
	escalations         prometheus.Counter
	age                 prometheus.Observer
	ends                map[worker.EventKind]prometheus.Counter
	letters             map[jobs.Class]prometheus.Counter
	otherLetters        prometheus.Counter
	bounds              map[worker.Bound]prometheus.Counter
	requests            map[worker.Op]*request
	counting            *request // asking how many messages the queue holds
}

// New returns Metrics in a registry of their own, together with those of the Go
// runtime and of the process.
func New(version string) *Metrics {
	m := &Metrics{registry: prometheus.NewRegistry(), stand: newStand()}
	m.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), m.stand)
	in := into{m.registry}
	in.gauges("upwell_build_info", "What the worker was built from. Always 1.", "version", "goversion").
		WithLabelValues(version, runtime.Version()).Set(1)
	m.lanes = newLanes(in)

	m.received = in.counter("upwell_messages_received_total", "Messages received.")
	m.age = in.histogram("upwell_message_age_seconds", "Age of messages when they were received, since they were first queued.", ageBuckets)
	m.ends = closed(in.counters("upwell_deliveries_total", "Deliveries that came to their end, by how: released is given back, lost is ended by the queue.", "end"), ends())
	letters := in.counters("upwell_dead_letters_total", "Jobs dead-lettered, by class.", "class")
	m.letters, m.otherLetters = closed(letters, own(classes())), letters.WithLabelValues(other)
	m.bounds = closed(in.counters("upwell_bound_seconds_total", "Time by what kept the worker from doing more.", "bound"), own(bounds()))
	m.repairs = in.counter("upwell_repairs_total", "Calls answered that were to mend an answer against its schema.")
	m.extensions = in.counter("upwell_extensions_total", "Calls answered that gave a truncated answer more room.")
	m.escalations = in.counter("upwell_escalations_total", "Jobs moved up to a dearer tier.")
	m.late = in.counter("upwell_heartbeats_late_total", "Heartbeats that were late, slow or failed, so that a message may return while it is worked on.")
	m.requests, m.counting = newRequests(in)
	return m
}

// Handler serves the metrics.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{MaxRequestsInFlight: scrapes})
}

// Queue takes over how many messages the queue holds. After an error the last known
// numbers stay, with the time they are from.
func (m *Metrics) Queue(c sqsqueue.Counts, err error) {
	m.counting.count(err)
	if err == nil {
		m.stand.queued(c)
	}
}

// Budget takes over the state of the budget of the worker's run, or nil if it has none.
func (m *Metrics) Budget(s *budget.Status) { m.stand.budgeted(s) }

// Observe counts an event. It is made for worker.Config.Observe.
func (m *Metrics) Observe(e worker.Event) {
	switch e.Kind {
	case worker.Received:
		m.received.Inc()
		if sent := e.Delivery.Sent; !sent.IsZero() {
			m.age.Observe(max(e.At.Sub(sent), 0).Seconds())
		}
	case worker.Permitted:
		m.lanes.lane(e.Lane).wait.Observe(e.Waited.Seconds())
	case worker.Attempted:
		m.attempted(&e)
	case worker.Escalated:
		m.escalations.Inc()
	case worker.Stored, worker.Duplicate, worker.Passed, worker.Lost:
		m.ends[e.Kind].Inc()
	case worker.Buried:
		m.ends[e.Kind].Inc()
		m.letter(e.Letter.Class).Inc()
	case worker.Released:
		m.ends[e.Kind].Inc()
		if errors.Is(e.Err, worker.ErrParked) {
			m.stand.park(e.Key.Run, e.At)
		}
	case worker.Requested:
		if r := m.requests[e.Op]; r != nil {
			r.observe(&e)
		}
	case worker.Late:
		m.late.Inc()
	case worker.Parked:
		m.stand.park(e.Key.Run, e.At)
	case worker.Unparked:
		m.stand.unpark(e.Key.Run)
	case worker.Paused, worker.Resumed:
		m.stand.pause(e.Lane, e.Kind == worker.Paused)
	case worker.Closed:
		m.lanes.lane(e.Lane).closures.Inc()
	case worker.Sampled:
		m.sampled(&e)
	case worker.RateChanged, worker.Opened: // the next sample has it, within a second
	}
}

// attempted counts the end of an attempt.
func (m *Metrics) attempted(e *worker.Event) {
	m.lanes.lane(e.Lane).attempted(e)
	if e.Outcome != throttle.Accepted {
		return
	}
	switch e.Attempt.Turn {
	case jobs.Repair:
		m.repairs.Inc()
	case jobs.Extension:
		m.extensions.Inc()
	}
}

func (m *Metrics) letter(c jobs.Class) prometheus.Counter {
	if n, ok := m.letters[c]; ok {
		return n
	}
	return m.otherLetters
}

// sampled takes over how the worker stands. Samples are a second apart.
func (m *Metrics) sampled(e *worker.Event) {
	if n, ok := m.bounds[e.Sample.Bound]; ok {
		n.Inc()
	}
	m.stand.take(e.At, e.Sample, m.lanes.sampled(e.Sample.Lanes))
}
