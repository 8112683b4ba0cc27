package weather

import (
	"math"
	"math/rand/v2"
	"time"

	"upwell/throttle"
	"upwell/worker/mantle/mantlesim/capacity"
)

// epoch is when every run begins: any date would do.
var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

const (
	// patience is the longest a worker waits before it asks its limiter again.
	patience = time.Second

	// instant is the shortest, or a limiter that names the present would stop time.
	instant = 100 * time.Microsecond

	// refusal is how long the endpoint takes to say no: a round trip and no work.
	// Each takes 0.7 to 1.3 times as long.
	refusal = 50 * time.Millisecond
)

// A sim is one run.
type sim struct {
	*Scenario
	kind     Kind
	now      time.Duration
	events   agenda[func()]
	endpoint *capacity.Capacity
	workers  []*worker
	board    Board
	free     []*Call // for reuse
	log      Log

	// Each with a seed of its own, so that kinds meet the same jobs and the same
	// luck as far as possible.
	jobs, luck, delays *rand.Rand
}

// Run plays a scenario.
func Run(s *Scenario, kind Kind, seed uint64) Result {
	endpoint, err := capacity.New(s.Script)
	if err != nil {
		panic(err)
	}
	r := &sim{Scenario: s, kind: kind, endpoint: endpoint, log: make(Log, s.length()/time.Second)}
	stream := func(n uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, n)) }
	r.jobs, r.luck, r.delays = stream(1), stream(2), stream(3)
	over := false
	r.at(s.length(), func() { over = true }) // before all else at that time, which the log does not reach
	for i := range max(1, s.Workers) {
		r.hire(i, stream(uint64(100+i)))
	}
	for i := range r.log {
		r.at(time.Duration(i)*time.Second+time.Second/2, func() { r.look(&r.log[i]) })
	}
	for _, l := range s.load() {
		r.at(l.From, func() { r.turnTo(l.Rate) })
	}
	for !over {
		var do func()
		r.now, do = r.events.pop()
		do()
	}
	return r.score()
}

// at has something done at a time.
func (r *sim) at(t time.Duration, do func()) {
	r.events.push(max(t, r.now), do)
}

// look writes down what a second is like in its middle.
func (r *sim) look(s *Second) {
	r.endpoint.Serve(r.now)
	s.Capacity, _ = r.endpoint.At(r.now, "", "", r.unit())
	switch r.unit() {
	case "tpm", "otpm":
		s.Capacity /= 60
	}
	s.Capacity *= 1 - r.refused(r.now)
	s.Ideal = r.ideal(r.now)
	demand := 0.
	for _, w := range r.workers {
		if !w.here {
			continue
		}
		demand += w.load
		s.Allowed += w.limiter.Rate()
		if l, ok := w.limiter.(Reasoner); ok && s.Reason == "" {
			s.Reason = l.Reason()
		}
	}
	s.Capacity = min(s.Capacity, demand)
}

// A worker has one limiter, and jobs.
type worker struct {
	*sim
	limiter  Limiter
	here     bool          // has joined
	load     float64       // jobs that come per second; infinite: there always is one
	waiting  int           // jobs that have come
	head     *Call         // next to be sent
	refused  agenda[*Call] // by when they may be sent again
	inflight int           // calls
	pool     int           // most jobs in hand
	wakeAt   time.Duration // when the limiter is asked next; zero: when a call ends
	wake     func()
	share    float64 // units admitted in the last third
	rng      *rand.Rand
}

// hire adds the worker that joins as number i.
func (r *sim) hire(i int, rng *rand.Rand) {
	w := &worker{sim: r, limiter: r.kind.New(r.Scenario, rng), pool: math.MaxInt, load: math.Inf(1), rng: rng}
	if r.kind.Pool > 0 {
		// 20 more, so that the smallest has room for chance.
		w.pool = 20 + int(r.kind.Pool*r.peak()*MeanTook/float64(max(1, r.Workers)))
	}
	w.wake = func() {
		if w.wakeAt == r.now {
			w.wakeAt = 0
			w.send()
		}
	}
	r.workers = append(r.workers, w)
	// A millisecond between those that join together: not even they begin at the
	// same instant.
	r.at(time.Duration(i)*(r.Apart+time.Millisecond), func() {
		w.here = true
		if m, ok := w.limiter.(Member); ok {
			w.exchange(m)
		} else {
			w.send()
		}
	})
}

// exchange lets a member read and write the board, now and ever after.
func (w *worker) exchange(m Member) {
	w.board.now, w.board.raced = w.now, false
	w.board.lost = w.Lost.holds(w.now)
	again := m.Exchange(epoch.Add(w.now), &w.board).Sub(epoch)
	w.at(max(again, w.now+patience), func() { w.exchange(m) })
	w.send()
}

// turnTo changes the load of all.
func (r *sim) turnTo(rate float64) {
	for _, w := range r.workers {
		w.load, w.waiting = rate/float64(len(r.workers)), 0
		w.arrive()
		w.send()
	}
}

// arrive lets jobs come to w as long as the load is what it is.
func (w *worker) arrive() {
	if load := w.load; load > 0 && !math.IsInf(load, 1) {
		w.at(w.now+seconds(w.rng.ExpFloat64()/load), func() {
			if w.load != load {
				return
			}
			w.waiting++
			w.send()
			w.arrive()
		})
	}
}

// send sends what may be sent, and sees to it that it is called again.
func (w *worker) send() {
	for w.here && w.inflight < w.pool {
		if w.head == nil {
			w.head = w.next()
		}
		if w.head == nil {
			if w.refused.len() > 0 {
				w.sleep(w.refused.first())
			}
			return
		}
		now := epoch.Add(w.now)
		ok, again := w.limiter.Admit(now, w.head)
		if !ok {
			w.sleep(again.Sub(epoch))
			return
		}
		c := w.head
		w.head = nil
		w.inflight++
		c.Sent, c.Attempts = now, c.Attempts+1
		w.second(w.now).Sent++
		w.submit(c)
	}
}

// next returns the job to send next: one that was refused, if its backoff is
// over, or a new one.
func (w *worker) next() *Call {
	if w.refused.len() > 0 && w.refused.first() <= w.now {
		_, c := w.refused.pop()
		return c
	}
	switch {
	case w.inflight+w.refused.len() >= w.pool:
		return nil
	case w.waiting > 0:
		w.waiting--
	case !math.IsInf(w.load, 1):
		return nil
	}
	c := w.job()
	c.worker = w
	c.draw(w.jobs, w.Wrong)
	return c
}

// sleep has the limiter asked again at t.
func (w *worker) sleep(t time.Duration) {
	t = min(max(t, w.now+instant), w.now+patience)
	if w.wakeAt == 0 || t < w.wakeAt {
		w.wakeAt = t
		w.at(t, w.wake)
	}
}

// job returns a Call for a new job.
func (r *sim) job() *Call {
	if n := len(r.free); n > 0 {
		c := r.free[n-1]
		r.free = r.free[:n-1]
		return c
	}
	c := &Call{}
	c.begin = func(time.Duration) { r.begin(c) }
	c.ended = func() { r.ended(c) }
	c.giveUp = func() {
		if c.claim.Waiting() && c.until == r.now {
			c.claim.Release(r.now, 0)
			r.refuse(c, capacity.OverWait)
		}
	}
	c.claim.Granted = c.begin
	return c
}

// submit is the endpoint's side of a call.
func (r *sim) submit(c *Call) {
	if why := r.endpoint.Admit(r.now, &c.claim, r.luck.Float64); why != "" {
		r.refuse(c, why)
		return
	}
	if !c.claim.Waiting() {
		r.begin(c)
	} else if p := c.claim.Patience(); p < r.length() {
		c.until = r.now + p
		r.at(c.until, c.giveUp)
	}
}

// refuse answers that there is no room, with the status that mantlesim has for
// the reason.
func (r *sim) refuse(c *Call, why capacity.Reason) {
	switch why {
	case capacity.OverSlots, capacity.OverWait, capacity.Refused:
		c.outcome = throttle.Unavailable // 503
	default:
		c.outcome = throttle.Throttled // 429
	}
	d := seconds(refusal.Seconds() * (0.7 + 0.6*r.delays.Float64()))
	if r.Late > 0 {
		d += seconds(r.Late.Seconds() * r.delays.ExpFloat64())
	}
	r.at(r.now+d, c.ended)
}

// begin lets c generate, in its slot.
func (r *sim) begin(c *Call) {
	took := seconds(c.took.Seconds() * c.claim.Slow())
	c.claim.Generate(r.now, c.Used.Output, took)
	c.outcome = throttle.Accepted
	amount := r.credit(c, took)
	if r.now >= r.length()*2/3 {
		c.worker.share += amount
	}
	r.at(r.now+took, c.ended)
}

// ended is the client's side of an answer or a refusal.
func (r *sim) ended(c *Call) {
	w, o := c.worker, c.outcome
	w.inflight--
	if o == throttle.Accepted {
		c.claim.Release(r.now, c.Used.Input+c.Used.Output)
	} else {
		r.second(r.now).Refused++
	}
	w.limiter.Done(epoch.Add(r.now), c, o, 0)
	if o == throttle.Accepted {
		r.free = append(r.free, c)
	} else {
		w.refused.push(r.now+w.backoff(c), c)
	}
	w.send()
}

// backoff is how long a refused job waits on its own.
func (w *worker) backoff(c *Call) time.Duration {
	if w.kind.Backoff == 0 {
		return 0
	}
	return seconds(w.rng.Float64() * min(w.kind.Backoff.Seconds(), math.Exp2(float64(c.Attempts-1))))
}

// An agenda holds what is to happen, the earliest first; of those at the same time,
// the one that was pushed first. It is a binary heap.
type agenda[T any] struct {
	heap []entry[T]
	turn int // pushes so far
}

type entry[T any] struct {
	at   time.Duration
	turn int
	what T
}

func (e *entry[T]) before(f *entry[T]) bool { return e.at < f.at || e.at == f.at && e.turn < f.turn }

func (a *agenda[T]) len() int { return len(a.heap) }

// first is when the first happens.
func (a *agenda[T]) first() time.Duration { return a.heap[0].at }

func (a *agenda[T]) push(at time.Duration, what T) {
	a.turn++
	e := entry[T]{at, a.turn, what}
	a.heap = append(a.heap, e)
	s, i := a.heap, len(a.heap)-1
	for i > 0 && e.before(&s[(i-1)/2]) {
		s[i] = s[(i-1)/2]
		i = (i - 1) / 2
	}
	s[i] = e
}

// pop takes out the first.
func (a *agenda[T]) pop() (time.Duration, T) {
	n := len(a.heap) - 1
	top, e := a.heap[0], a.heap[n]
	a.heap[n] = entry[T]{} // for the garbage collector
	a.heap = a.heap[:n]
	if n > 0 {
		a.sink(e)
	}
	return top.at, top.what
}

// sink fills the gap at the top.
func (a *agenda[T]) sink(e entry[T]) {
	s, i := a.heap, 0
	for {
		child := 2*i + 1
		if child+1 < len(s) && s[child+1].before(&s[child]) {
			child++
		}
		if child >= len(s) || !s[child].before(&e) {
			break
		}
		s[i] = s[child]
		i = child
	}
	s[i] = e
}
