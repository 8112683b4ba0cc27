package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"upwell/jobs"
	"upwell/worker"
)

// other is the label of what has none of its own.
const other = "other"

// The buckets of histograms, in their base units. Those of the GenAI metrics are the
// convention's: the ones of calls go on to 22 minutes with the same step, as an answer
// of the Flex tier may take a quarter of an hour.
var ( //nolint:gochecknoglobals // constants
	callBuckets  = prometheus.ExponentialBuckets(0.01, 2, 18)
	tokenBuckets = prometheus.ExponentialBuckets(1, 4, 14)

	// A permit comes at once, when the pace allows it, or when a closed lane opens.
	waitBuckets = []float64{0.001, 0.01, 0.1, 0.5, 1, 2, 5, 10, 30, 60, 300, 1800}

	// A request takes milliseconds within a Region, and seconds when it is tried again.
	requestBuckets = []float64{0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30}

	// A queue keeps messages for up to two weeks.
	ageBuckets = []float64{1, 10, 60, 300, 900, 3600, 3 * 3600, 6 * 3600, 12 * 3600, 24 * 3600, 4 * 24 * 3600, 14 * 24 * 3600}
)

// ends are what the ends of a delivery are called.
func ends() map[worker.EventKind]string {
	return map[worker.EventKind]string{
		worker.Stored: "stored", worker.Duplicate: "duplicate", worker.Buried: "dead_lettered",
		worker.Passed: "passed", worker.Released: "released", worker.Lost: "lost",
	}
}

func classes() []jobs.Class {
	return []jobs.Class{
		jobs.BadRequest, jobs.BadJob, jobs.ContextLength, jobs.Refused, jobs.SchemaFailed,
		jobs.Truncated, jobs.Expired, jobs.Poison, jobs.Exhausted,
	}
}

func bounds() []worker.Bound {
	return []worker.Bound{
		worker.BoundRamp, worker.BoundQuota, worker.BoundCapacity, worker.BoundDeadline, worker.BoundInFlight,
		worker.BoundMaxRate, worker.BoundCredential, worker.BoundBudget, worker.BoundSlots, worker.BoundMemory, worker.BoundErrors,
		worker.BoundQueue, worker.BoundStore, worker.BoundEmpty, worker.BoundDraining,
	}
}

// own labels each of a set with itself.
func own[T ~string](set []T) map[T]string {
	labels := make(map[T]string, len(set))
	for _, v := range set {
		labels[v] = string(v)
	}
	return labels
}

// closed returns the counters of a closed set. They are there, and zero, from the
// beginning: or else the first of a kind would be no increase.
func closed[T comparable](vec *prometheus.CounterVec, labels map[T]string) map[T]prometheus.Counter {
	set := make(map[T]prometheus.Counter, len(labels))
	for v, label := range labels {
		set[v] = vec.WithLabelValues(label)
	}
	return set
}

// into makes metrics and registers them.
type into struct{ to prometheus.Registerer }

func (in into) counters(name, help string, labels ...string) *prometheus.CounterVec {
	v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	in.to.MustRegister(v)
	return v
}

func (in into) counter(name, help string) prometheus.Counter {
	return in.counters(name, help).WithLabelValues()
}

func (in into) gauges(name, help string, labels ...string) *prometheus.GaugeVec {
	v := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels)
	in.to.MustRegister(v)
	return v
}

func (in into) histograms(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	v := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, labels)
	in.to.MustRegister(v)
	return v
}

func (in into) histogram(name, help string, buckets []float64) prometheus.Observer {
	return in.histograms(name, help, buckets).WithLabelValues()
}
