// Package worker moves messages to results.
//
// It receives messages from a [Source], makes attempts at an [Endpoint] as fast
// as each lane's limiter allows, and stores what comes back in a [Sink]. It is
// the only place that retries, and the only place that decides what a failure
// means for a job.
//
// # A message's life
//
//	room → received → (looked up) → line of its lane → slot → call → … → stored → acknowledged
//	                                                              └→ error line → dead letter → acknowledged
//	                                                              └→ released
//
// An [Opener] may find the job elsewhere. Then it is fetched before it stands in
// line, and waits for room for what it fetches. Or it finds that the message stands
// for several: those are queued, and it is acknowledged. See [Parcel].
//
// Room comes first: a message is only asked for when there is a place to hold
// it, because one received with nowhere to run would lose its visibility and be
// paid for twice. Room is counted in messages and in bytes, so memory depends
// on neither the queue nor the prompts. It holds half as many messages again as
// there are slots for calls: the others are on their way in or out, so that a
// slow queue or sink does not leave slots empty.
//
// A message that was delivered before is looked up in the sink before it is
// paid for again. A call that is refused for lack of room (429, 503, 529) is
// not an attempt: the job goes back to its lane's line. A lane that is closed
// for long sends its line away, and those messages are released until it opens.
// While every lane is closed nothing is received, but for a look once a minute
// whether there is work for a lane that nobody has seen yet.
//
// # Lanes
//
// A job stands in the line of the Region where it starts first, and changes to
// another's when that has become much shorter, so that the capacities of several
// Regions add up. It is sent to no Region that its own list or Config.Allow
// leaves out.
//
// It stays on the first of its tiers until that is out of capacity (503, 529)
// while the job's deadline is near; a quota that is used up (429) moves nothing
// up a tier. A job that waits for a lane holds neither a slot nor a permit, and
// its message no more of the room than leaves others some: what a slow lane
// cannot start for minutes is released until it can.
//
// # Money
//
// With a [Purse], what a call may cost at most is set aside before it is made. It
// is done last, with a slot and a permit in hand, so that no more is set aside than
// the calls in flight may cost. A job that finds no money gives both back, waits for
// the purse with neither, and stands in line again with the money in hand. One of a
// run that is parked is released, which costs it nothing; and when nothing else comes
// for a while, intake slows down to a look once a minute. A job that has been paid for
// and wants another call, to mend its answer, is held instead: it comes first when
// money comes back from calls in flight, and goes on when the budget is raised. When
// the worker stops before that, it is dead-lettered as what is wrong with its answer,
// which it keeps: it is never paid for twice unasked.
//
// # Parallelism
//
// [Worker.Run] starts every goroutine of this package and returns only when all
// have exited: a few that receive, one that sends heartbeats for all messages
// held, one that looks the lines through, and one for each message.
//
// # Stopping
//
// Three contexts end one after the other. Run's own context ends receiving and
// waiting: what has not been sent is released at once. The work context ends
// calls in flight, Config.Drain later. The settle context ends storing, a little
// later still, so that a paid-for answer is not abandoned between the endpoint
// and the sink.
//
// # Guarantees
//
// Every message ends stored and acknowledged, dead-lettered and acknowledged, or
// released; a message is acknowledged only after what it became is durable. A
// crash at any point costs repeated calls, at most those that were in flight,
// and never a lost job.
package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"upwell/jobs"
	"upwell/throttle"
)

const (
	// hideFor is how long a message stays hidden between heartbeats. When a
	// worker dies its messages return after at most this long.
	hideFor = 2 * time.Minute

	// beat is how often hideFor is renewed. A quarter of it leaves room to
	// lose two heartbeats in a row and still keep the message.
	beat = hideFor / 4

	// ceiling is how long SQS lets one delivery last, whatever the heartbeats:
	// 12 hours from its receipt.
	ceiling = 12 * time.Hour

	// settleTimeout bounds the calls that settle messages after the drain has
	// ended. It is their own budget, so that a drain cannot abandon an answer
	// between the endpoint and the sink.
	settleTimeout = 30 * time.Second

	// linger is how long a receive under way may go on when the worker stops.
	// A request that is cut off may have hidden ten messages already; one that
	// returns hands them over, and they are released. A busy queue answers
	// well within this, and an idle one has nothing to hide.
	linger = 500 * time.Millisecond

	// hush is how long what a drain gives back waits after that. The queue does
	// not notice at once that a receive was cut off: it would hand it what has
	// just come back, and hide that from everybody.
	hush = 500 * time.Millisecond
)

// Config holds a Worker's settings. Every field but Regions has a default.
type Config struct {
	// Regions are where calls may go, by the names the Endpoint knows. A job
	// goes to the one where it starts first. At least one is required.
	Regions []string

	// Allow lists the Regions in which data may be processed: those of Regions
	// that are not in it are never called. A job's own list narrows it further,
	// and a job that is left with none is dead-lettered. Default: all.
	Allow []string

	// Tiers are the service tiers of jobs that name none, in order of
	// preference. A job starts on the first, and moves up when that is out of
	// capacity and the job's deadline is near. Default: "default".
	Tiers []string

	// Escalate is how long before its deadline a job moves up. It does so
	// earlier if the next tier is known to take longer to answer. Default:
	// AttemptTimeout, which any call may last.
	Escalate time.Duration

	// Run is the run of jobs that name none. Default "default".
	Run string

	// Slots is how many calls may be in flight at once. Default 256.
	Slots int

	// Bytes bounds the bodies of the messages held. A single message larger
	// than that is held alone. Default 64 MiB.
	Bytes int64

	// Receivers is how many requests for messages run at once. Default: one
	// for every 32 slots, at least 2 and at most 32; each brings ten messages
	// in a round trip.
	Receivers int

	// MaxAttempts is how many counted attempts a job gets that does not say
	// for itself. Default 5.
	MaxAttempts int

	// Repairs is how often a model is asked to mend an answer that is against its
	// schema, each time with what the validator says: at most 3. Default 1; -1
	// for never.
	Repairs int

	// OutputCeiling is how many output tokens a job may be given, that does not
	// say for itself, when its answer was truncated: it is tried once more, with
	// four times its limit, but no more than this. Default 32,768.
	OutputCeiling int

	// Redact keeps what a message that is no job says out of errors and logs.
	// The endpoint has a setting of its own for what it quotes.
	Redact bool

	// Version is upwell's own, for the record. Default none.
	Version string

	// MaxReceives is how many deliveries a message may have before it is taken
	// for one that kills workers, and dead-lettered as poison. Deliveries that
	// end in a release do not count. Default 10.
	MaxReceives int

	// AttemptTimeout bounds one call. It must be longer than the longest
	// generation: a call given up on is paid for all the same. Default 15m,
	// which is what OpenAI advises for Flex.
	AttemptTimeout time.Duration

	// Drain is how long calls in flight may go on when Run is told to stop.
	// Storing what they answer may take half a minute more. Default 85s, so
	// that both fit in the 120s at most that Amazon ECS on Fargate gives a task
	// to stop.
	Drain time.Duration

	// LookUp says to look every job up before it is paid for, not only those
	// delivered before. It costs a request for each.
	LookUp bool

	// ExitWhenEmpty makes Run return once the queue holds nothing at all, and has
	// for as long as EmptyFor says: somebody may still be sending. Default: not
	// longer than it takes to be sure.
	ExitWhenEmpty bool
	EmptyFor      time.Duration

	// Opener finds the jobs in messages that are none themselves. Default: a
	// message's body is its job.
	Opener Opener

	// Purse bounds what runs may cost. Default: nothing does.
	Purse Purse

	// Log receives one line for each settled message. Default: discard.
	Log *slog.Logger

	// Observe, if set, is told of everything that happens. It is called from
	// many goroutines at once and must be quick.
	Observe func(Event)
}

func (c Config) withDefaults() (Config, error) {
	set := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	set(&c.Slots, 256)
	set(&c.Receivers, min(max(c.Slots/32, 2), 32))
	set(&c.MaxAttempts, 5)
	set(&c.MaxReceives, 10)
	set(&c.Repairs, 1)
	c.Repairs = max(c.Repairs, 0)
	set(&c.OutputCeiling, 32<<10)
	if c.Bytes == 0 {
		c.Bytes = 64 << 20
	}
	if c.AttemptTimeout == 0 {
		c.AttemptTimeout = 15 * time.Minute
	}
	if c.Escalate == 0 {
		c.Escalate = c.AttemptTimeout
	}
	if c.Drain == 0 {
		c.Drain = 85 * time.Second
	}
	if len(c.Tiers) == 0 {
		c.Tiers = []string{"default"}
	}
	if c.Run == "" {
		c.Run = "default"
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	given := c.Regions
	if len(c.Allow) > 0 {
		c.Regions = both(given, c.Allow)
	}
	switch {
	case len(given) == 0:
		return c, errors.New("worker: no region: name at least one")
	case len(c.Regions) == 0:
		return c, fmt.Errorf("worker: no region of %v is allowed: Allow lists %v", given, c.Allow)
	case c.Slots < 0, c.Bytes < 0, c.Receivers < 0, c.MaxAttempts < 0, c.MaxReceives < 0, c.OutputCeiling < 0, c.AttemptTimeout < 0, c.Escalate < 0, c.Drain < 0, c.EmptyFor < 0:
		return c, errors.New("worker: a setting is negative")
	case c.Repairs > 3:
		return c, fmt.Errorf("worker: %d repairs: want at most 3, as a model that fails so often will fail again", c.Repairs)
	case c.AttemptTimeout > ceiling/2:
		return c, fmt.Errorf("worker: attempt timeout %v: want at most %v, as a delivery ends after %v", c.AttemptTimeout, ceiling/2, ceiling)
	}
	if err := jobs.CheckRun(c.Run); err != nil {
		return c, fmt.Errorf("worker: run: %w", err)
	}
	return c, nil
}

// A Worker moves messages from a Source to a Sink.
type Worker struct {
	source   Source
	endpoint Endpoint
	sink     Sink
	lanes    *lanes
	cfg      Config

	room  *room
	slots chan struct{} // one token for each call in flight
	held  *holds
	known *known // jobs under way or lately settled

	schemas *schemas // that jobs name
	funds   *funds

	requests *requests
	shut     shut

	received atomic.Bool  // the source has answered at least once
	born     time.Time    // by the monotonic clock, as others jump
	pulse    atomic.Int64 // how long after born heartbeats were last looked after
	lastWork atomic.Int64 // how long after born the source was last known to hold a message
}

// New returns a Worker. It starts nothing; see [Worker.Run].
func New(src Source, ep Endpoint, sink Sink, limits *throttle.Set, cfg Config) (*Worker, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	room := newRoom(cfg.Slots+cfg.Slots/2+batch, cfg.Bytes)
	w := &Worker{
		endpoint: ep, cfg: cfg,
		lanes: newLanes(limits, room.left),
		room:  room,
		slots: make(chan struct{}, cfg.Slots),
		held:  newHolds(), born: time.Now(),
		known: newKnown(), schemas: newSchemas(), funds: newFunds(),
	}
	w.requests = &requests{w: w}
	w.source, w.sink = watchedSource{src, w.requests}, watchedSink{sink, w.requests}
	limits.Observe(w.rateChanged)
	return w, nil
}

// Run works until ctx is done, then drains: it receives no more, releases what
// has not been sent, lets calls in flight go on for up to Config.Drain and stores
// what they answer. It returns nil after a drain or when the queue is empty and
// Config.ExitWhenEmpty is set, and an error only if the source was unusable from
// the start, or, with ExitWhenEmpty, one that wraps [ErrParked] if all that is left
// waits for money. It may be called once.
func (w *Worker) Run(ctx context.Context) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	work, abort := context.WithCancelCause(context.WithoutCancel(ctx))
	defer abort(nil)
	settle, giveUp := context.WithCancelCause(context.WithoutCancel(ctx))
	defer giveUp(nil)
	quiet := make(chan struct{})
	phases := phases{wait: ctx, work: work, settle: settle, quiet: quiet}

	var beats, messages, receivers sync.WaitGroup
	beating, stopBeating := context.WithCancel(settle)
	defer stopBeating()
	beats.Go(func() { w.heartbeats(beating) })
	beats.Go(func() { w.lanes.watch(beating) })
	if cfg := w.cfg; cfg.Observe != nil {
		beats.Go(func() { w.sampling(beating, ctx) })
	}
	var failed error
	var once sync.Once
	w.lastWork.Store(int64(time.Since(w.born)))
	w.funds.begin()
	for range w.cfg.Receivers {
		receivers.Go(func() {
			if err := w.receive(ctx, func(h *hold) { messages.Go(func() { w.handle(phases, h) }) }); err != nil {
				once.Do(func() { failed = err })
				stop(err)
			}
		})
	}
	receivers.Wait()
	stop(ErrDraining)
	calm := time.AfterFunc(hush, func() { close(quiet) })
	defer calm.Stop()

	drain := time.AfterFunc(w.cfg.Drain, func() { abort(ErrDraining) })
	defer drain.Stop()
	last := time.AfterFunc(w.cfg.Drain+settleTimeout, func() { giveUp(ErrDraining) })
	defer last.Stop()
	messages.Wait()
	stopBeating()
	beats.Wait()
	w.pulse.Store(0)
	if errors.Is(failed, errEmpty) {
		return nil
	}
	return failed
}

// Held returns how many messages the worker holds: those received, and neither
// settled nor released yet. It may be called at any time.
func (w *Worker) Held() int { return w.held.len() }

// Pulse returns when the worker last looked whether a heartbeat is due. It does so
// once a second while Run runs, so that one which is long ago tells of a worker that
// hangs. Before Run and after it is the zero time. It may be called at any time.
func (w *Worker) Pulse() time.Time {
	if n := w.pulse.Load(); n != 0 {
		return w.born.Add(time.Duration(n))
	}
	return time.Time{}
}

// phases are the three contexts that end one after the other; see the package
// comment.
type phases struct {
	wait   context.Context //nolint:containedctx // a bundle of parameters, gone when the message is settled
	work   context.Context //nolint:containedctx // likewise
	settle context.Context //nolint:containedctx // likewise

	// quiet is closed when nobody receives any more, and the queue knows it.
	// What a drain gives back waits for that, or our own receivers, lingering,
	// would take it again.
	quiet <-chan struct{}
}

var (
	// ErrDraining is the cause of a wait or call cut short because the worker
	// is stopping.
	ErrDraining = errors.New("worker is draining")

	errEmpty   = errors.New("the queue is empty")
	errCeiling = errors.New("held for as long as the queue allows")
)
