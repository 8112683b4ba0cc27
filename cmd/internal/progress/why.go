package progress

import (
	"cmp"
	"slices"
	"time"

	"upwell/worker"
)

// whyFor is how far back Why looks: long enough for a share to mean something, and
// short enough to be about the present.
const whyFor = 10 * time.Minute

// A Share is a part of the time in which the worker was kept from doing more by the
// same.
type Share struct {
	Bound   worker.Bound `json:"bound"`
	Seconds float64      `json:"seconds"`
	Share   float64      `json:"share"` // of the time looked at
	What    string       `json:"what"`
	Help    string       `json:"help"`
}

// reasons are what has kept the worker from doing more, second by second.
type reasons struct {
	lately ring[reason]
	total  map[worker.Bound]int64 // samples of the whole run
	all    int64
}

type reason struct {
	at    time.Time
	bound worker.Bound
}

func newReasons() reasons {
	return reasons{lately: ring[reason]{most: int(whyFor / time.Second)}, total: make(map[worker.Bound]int64)}
}

func (r *reasons) add(at time.Time, b worker.Bound) {
	r.lately.add(reason{at, b})
	r.total[b]++
	r.all++
}

// shares returns what accounts for the time since then, the largest part first.
func (r *reasons) shares(since time.Time) []Share {
	n := make(map[worker.Bound]int64)
	var all int64
	for _, one := range r.lately.newest() {
		if one.at.Before(since) {
			break
		}
		n[one.bound]++
		all++
	}
	return split(n, all)
}

// split words counts of samples, which are one a second.
func split(n map[worker.Bound]int64, all int64) []Share {
	shares := make([]Share, 0, len(n))
	for b, k := range n {
		advice := Advice(b)
		shares = append(shares, Share{b, float64(k), float64(k) / float64(all), advice.What, advice.Help})
	}
	slices.SortFunc(shares, func(a, b Share) int { return cmp.Or(cmp.Compare(b.Seconds, a.Seconds), cmp.Compare(a.Bound, b.Bound)) })
	return shares
}

// Why returns what has kept the worker from doing more in the last ten minutes, and in
// the whole time, the largest part first. Both are empty before the first second.
func (m *Meter) Why() (lately, whole []Share) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.why.shares(time.Now().Add(-whyFor)), split(m.why.total, m.why.all)
}

// A Counsel is what a person should know about a bound.
type Counsel struct{ What, Help string }

// Advice returns what a person should know about a bound.
func Advice(b worker.Bound) Counsel { return advices[b] }

var advices = map[worker.Bound]Counsel{ //nolint:gochecknoglobals // a table
	worker.BoundRamp: {
		"the limiter feels its way up to the capacity: nothing was refused yet, or not for long",
		"time: from cold it takes a minute or so, after a cut longer the slower the lane; the level found is remembered, and --start-rate begins higher",
	},
	worker.BoundQuota: {
		"the account's quota for the model: calls beyond it are refused with 429",
		"ask AWS for a higher quota, add Regions with --region, or set --max-output-tokens where the quota is in tokens",
	},
	worker.BoundCapacity: {
		"the service tier has no more capacity: calls beyond it are refused with 503 or 529",
		"wait for a quieter time, add Regions with --region, or another tier with --tier flex,default",
	},
	worker.BoundDeadline: {
		"the first tier is out of capacity, and jobs stay on it until their deadline is near",
		"move up earlier with a larger --escalate, or give the jobs an earlier deadline or a faster first tier; it costs more",
	},
	worker.BoundInFlight: {
		"a limit of calls in flight: one that the endpoint has, or --max-in-flight",
		"raise --max-in-flight if it is set; if not, the endpoint refuses more at once, and shorter answers are what helps",
	},
	worker.BoundMaxRate: {
		"the highest rate that --max-rate allows",
		"raise --max-rate, or leave it out: the limiter finds the capacity by itself",
	},
	worker.BoundCredential: {
		"calls are not let in at all: a credential or path is no good, or no connection can be had",
		"look for \"intake paused\" or \"endpoint out of reach\" in the log, and run upwell doctor",
	},
	worker.BoundBudget: {
		"the budget of the run is used up, or set aside for calls in flight",
		"raise --budget; jobs wait in the queue and lose nothing meanwhile",
	},
	worker.BoundSlots: {
		"every slot has a call in flight",
		"raise --slots: a slot costs some 50 KiB and the prompt; or start more workers with --fleet",
	},
	worker.BoundMemory: {
		"the bytes of prompts that may be held",
		"raise --max-held-mib, as far as the machine has memory",
	},
	worker.BoundErrors: {
		"calls fail otherwise than for lack of room, and are tried again after a while",
		"look at the failed attempts of a job on the page, and in upwell_attempts_total{outcome=\"failed\"}; upwell doctor tries a call",
	},
	worker.BoundQueue: {
		"the queue hands out jobs no faster, or its requests fail",
		"look for failed receives in the log and in upwell_queue_request_duration_seconds; run the worker in the queue's Region",
	},
	worker.BoundStore: {
		"the store takes results no faster, or its requests fail",
		"look at upwell_store_request_duration_seconds; run the worker in the bucket's Region",
	},
	worker.BoundEmpty: {
		"nothing: the queue hands out no more jobs",
		"submit more; if jobs wait in it all the same, upwell status RUN --queue QUEUE tells whether others hold them",
	},
	worker.BoundDraining: {
		"the worker is stopping, and waits for calls in flight",
		"nothing",
	},
}
