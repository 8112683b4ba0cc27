package metrics

import (
	"context"
	"errors"

	"github.com/prometheus/client_golang/prometheus"

	"upwell/worker"
)

// A request is what is counted of one kind of request.
type request struct {
	total, failures prometheus.Counter
	took            prometheus.Observer // of those that did what they were to do
}

// newRequests returns the kinds of requests that there are events of, and the one that
// there are none of: to ask how many messages the queue holds.
func newRequests(in into) (events map[worker.Op]*request, counting *request) {
	events = make(map[worker.Op]*request)
	for _, side := range []struct {
		name, what string
		ops        []worker.Op
	}{
		{"queue", "the queue", []worker.Op{worker.OpReceive, worker.OpHide, worker.OpRelease, worker.OpAck, worker.OpBury, worker.OpSplit}},
		{"store", "the store, and for what messages refer to", []worker.Op{
			worker.OpPut, worker.OpPutError, worker.OpPutBody, worker.OpHas, worker.OpFailure, worker.OpSchema, worker.OpFetch,
		}},
	} {
		prefix := "upwell_" + side.name + "_request"
		total := in.counters(prefix+"s_total", "Requests to "+side.what+".", "op")
		failures := in.counters(prefix+"_failures_total", "Requests to "+side.what+", that failed. Those cut off by the worker's end are not among them.", "op")
		took := in.histograms(prefix+"_duration_seconds", "Duration of requests to "+side.what+", that did not fail, and of receives that brought messages.", requestBuckets, "op")
		for _, op := range side.ops {
			events[op] = &request{total.WithLabelValues(string(op)), failures.WithLabelValues(string(op)), took.WithLabelValues(string(op))}
		}
		if counting == nil {
			counting = &request{total: total.WithLabelValues("count"), failures: failures.WithLabelValues("count")}
		}
	}
	return events, counting
}

// count counts a request, and reports whether it did what it was to do. That a delivery
// is over, or a letter too large, is the queue's answer and not its failure.
func (r *request) count(err error) (good bool) {
	r.total.Inc()
	switch {
	case err == nil:
		return true
	case errors.Is(err, context.Canceled), errors.Is(err, worker.ErrGone), errors.Is(err, worker.ErrTooLarge):
	default:
		r.failures.Inc()
	}
	return false
}

// observe counts a request that ended. A receive that brought nothing has waited for
// messages, which says nothing about the queue.
func (r *request) observe(e *worker.Event) {
	if r.count(e.Err) && (e.Op != worker.OpReceive || e.Parts > 0) {
		r.took.Observe(e.Took.Seconds())
	}
}
