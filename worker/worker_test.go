package worker_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"upwell/jobs"
	"upwell/throttle"
	"upwell/worker"
	"upwell/worker/workertest"
)

// Mutations by hand: one-line changes, each of which breaks a promise, and the
// test that was seen to fail. Whoever changes the worker may want to try them
// again, and whoever adds an invariant to add one.
//
//	ack before put, ack before the letter      every trial (Queue.Durable)
//	letter before the error line               every trial (Queue.Durable)
//	refusals counted as attempts               RefusalsCostNothing, Faults
//	no heartbeat                               Heartbeats, Faults
//	heartbeat after release or ack             HeartbeatDoesNotOutliveTheDelivery
//	heartbeat or release past the ceiling      StoringOutlastsTheDelivery, ReleaseAtTheCeiling
//	ceiling not watched                        Ceiling
//	no look-up, or none when it fails          LookUp, LookUpIsNotSkipped
//	look-up after poison or the deadline       Poison, Expired, DrainDuringALookUp
//	copies in flight, or settled, not known    Copies, LostHeartbeatsDoNotPayTwice
//	wait inherits the work context             Drain
//	work inherits Run's context                Drain, DrainsOneAfterTheOther
//	settle on the work context                 DrainEnds, AnAnswerAfterTheDrainIsStored
//	no end to the drain, or to settling        DrainEnds, TheSinkFailsUntilTheEnd
//	a call cut off by the drain counts         DrainEnds
//	receives cut off at once                   DrainTakesTheMessagesUnderWay
//	slot held in back-off                      AJobThatWaitsHoldsNoSlot
//	release forgets attempts                   AttemptsSurviveARelease
//	Retry-After ignored                        RetryAfterIsHonoured, RetryAfterOfAFailureIsHonoured
//	sent into a lane that closed meanwhile     AJobInLineForASlotIsNotSentIntoAClosedLane
//	closed lane keeps its line                 AClosedLaneMakesRoom, Regions
//	intake goes on while lanes are closed      IntakeStopsWhileAllLanesAreClosed
//	a bad credential dead-letters              CredentialGoesBadAndComesBack
//	put, or the letter of a paid answer, once  PutIsNotGivenUp, LetterOfAPaidAnswerIsNotGivenUp
//	lost delivery released, or not told of     LostBeforeTheCall
//	a 429 moves up, or hides want of capacity  Climbs, AQuotaDoesNotHideWantOfCapacity
//	not moved up from the line, or when closed ALineInAnOutageClimbs, Climbs
//	moved up from a lane that answers          ALineThatIsServedDoesNotClimb
//	moved up into a closed tier, or past one   StaysWhereTheNextTierIsClosed, ClimbsEachRung
//	the next tier's line or answers forgotten  ClimbsInTimeForTheNextTier
//	put off past when the deadline is near     Climbs, NobodyIsPutOffPastTheDeadline
//	a job's own list, or Allow, forgotten      Residency, Allow
//	ties go to the first Region                IdleRegionsShareTheWork
//	the last start, or line, not in the wait   RegionsAddUp, ALineStaysWhereItIs
//	calls in flight taken for a line           CallsInFlightAreNoLine
//	no change of line, or one for nothing      ALineLeavesAStalledRegion, ALineStaysWhereItIs
//	no look while all are closed, or many      ALaneNobodyKnowsIsFound, IntakeStopsWhileAllLanesAreClosed
//	a slow lane's line grows, or is not cut    ASlowLaneLeavesRoom, ASlowLaneGivesRoomBack
//	a slow lane's line is cut too far          ASlowLaneGivesRoomBack, ALineStaysWhereItIs
//	a line's bytes not counted                 ALargeLineLeavesBytes
//	put off for too long, or too often         AShortOutagePutsNothingOffForLong, ASlowLaneLeavesRoom
//	a permit from before a refusal is used     APermitFromBeforeARefusalIsNotUsed
//	a place is not left                        every trial (Full)
//	room or bytes leak                         every trial (Full)
//	size of bodies not learned                 SmallMessagesComeInBatches, LargeMessagesAreHeldByFew

var (
	_ worker.Source   = (*workertest.Queue)(nil)
	_ worker.Sink     = (*workertest.Sink)(nil)
	_ worker.Endpoint = (*workertest.Endpoint)(nil)
)

// steady returns limiters that pace evenly and learn nothing, so that what a
// test sees is the worker's doing.
func steady(perSecond float64) *throttle.Set {
	return throttle.NewSet(func(throttle.Lane) throttle.Config {
		return throttle.Config{StartRate: perSecond, MinRate: perSecond, MaxRate: perSecond}
	})
}

// A subject is a worker under test and what it reported.
type subject struct {
	*worker.Worker

	bytes  int64
	limits *throttle.Set

	mu     sync.Mutex
	events []worker.Event
}

func newSubject(t *testing.T, tr *workertest.Trial, limits *throttle.Set, cfg worker.Config) *subject {
	t.Helper()
	s := &subject{bytes: cmp.Or(cfg.Bytes, 64<<20), limits: limits}
	if cfg.Regions == nil {
		cfg.Regions = []string{"here"}
	}
	cfg.Observe = func(e worker.Event) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.events = append(s.events, e)
	}
	w, err := worker.New(tr.Queue, tr.Endpoint, tr.Sink, limits, cfg)
	if err != nil {
		t.Fatalf("New(%+v) = %v, want nil", cfg, err)
	}
	s.Worker = w
	return s
}

// idle checks that nobody is left in the limiters.
func (s *subject) idle(t *testing.T) {
	t.Helper()
	for lane, st := range s.limits.States() {
		if st.InFlight != 0 || st.Waiting != 0 {
			t.Errorf("lane %s has %d permits out and %d in line, want none", lane, st.InFlight, st.Waiting)
		}
	}
}

// of returns the events of a kind.
func (s *subject) of(kind worker.EventKind) []worker.Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(func(yield func(worker.Event) bool) {
		for _, e := range s.events {
			if e.Kind == kind && !yield(e) {
				return
			}
		}
	})
}

// runs runs the worker until ctx is done, and checks that it let go of
// everything.
func (s *subject) runs(ctx context.Context, t *testing.T, tr *workertest.Trial) {
	t.Helper()
	if err := s.Run(ctx); err != nil {
		t.Errorf("Run = %v, want nil", err)
	}
	if err := s.Full(s.bytes); err != nil {
		t.Errorf("after Run there is %v, want all of it", err)
	}
	if n := tr.Endpoint.InFlight(); n != 0 {
		t.Errorf("after Run %d calls are in flight, want 0", n)
	}
	tr.Check(t)
}

// run runs a new worker for d, or until it stops by itself, and drains it.
func run(t *testing.T, tr *workertest.Trial, cfg worker.Config, d time.Duration) *subject {
	t.Helper()
	s := newSubject(t, tr, steady(1000), cfg)
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	s.runs(ctx, t, tr)
	s.idle(t)
	return s
}

// start runs a new worker until stop, which waits for its end.
func start(t *testing.T, tr *workertest.Trial, limits *throttle.Set, cfg worker.Config) (s *subject, stop func()) {
	t.Helper()
	s = newSubject(t, tr, limits, cfg)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { s.runs(ctx, t, tr) })
	return s, func() {
		t.Helper()
		cancel()
		wg.Wait()
	}
}

// ids returns n custom_ids.
func ids(prefix string, n int) []string {
	s := make([]string, n)
	for i := range s {
		s[i] = fmt.Sprintf("%s%03d", prefix, i)
	}
	return s
}

func key(id string) jobs.Key { return jobs.Key{Run: "default", CustomID: id} }

// model returns a job for a model of its own, and with it a lane of its own.
func model(id, name string) jobs.Message {
	return jobs.Message{Body: fmt.Appendf(nil, `{"custom_id":%q,"url":"/v1/responses","body":{"model":%q,"input":"x"}}`, id, name)}
}

// A script has the n-th call for each job, from 1, answered by f.
func script(f func(n int, c worker.Call) error) func(context.Context, worker.Call) (worker.Answer, error) {
	var mu sync.Mutex
	calls := make(map[jobs.Key]int)
	return func(_ context.Context, c worker.Call) (worker.Answer, error) {
		mu.Lock()
		calls[c.Job.Key]++
		n := calls[c.Job.Key]
		mu.Unlock()
		if err := f(n, c); err != nil {
			return worker.Answer{}, err
		}
		return workertest.Answer(c), nil
	}
}

// truncated is the failure of a call that was answered, and billed, in vain.
func truncated(c worker.Call) *worker.Error {
	return &worker.Error{
		Kind: worker.Permanent, Class: jobs.Truncated, Status: 200, RequestID: "req_1",
		Answer: new(workertest.Answer(c)), Err: errors.New("it ended at its token limit"),
	}
}

func TestEveryJobEndsOnce(t *testing.T) {
	for _, workers := range []int{1, 3} {
		t.Run(fmt.Sprint(workers), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tr := workertest.New(t)
				tr.Send(ids("j", 600)...)
				tr.Endpoint.Func = mixed
				var wg sync.WaitGroup
				for range workers {
					wg.Go(func() {
						run(t, tr, worker.Config{Slots: 32, Receivers: 5, ExitWhenEmpty: true}, 4*time.Hour)
					})
				}
				wg.Wait()
				tr.Done(t)
				stored, failed := len(tr.Sink.Results()), len(tr.Queue.Letters())
				if stored != 540 || failed != 60 {
					t.Errorf("stored %d and dead-lettered %d, want 540 and 60", stored, failed)
				}
			})
		})
	}
}

// mixed takes between 1 and 40 s, and for every tenth job it is in vain.
func mixed(ctx context.Context, c worker.Call) (worker.Answer, error) {
	n := c.Job.CustomID[len(c.Job.CustomID)-1] - '0'
	if _, err := workertest.After(time.Second+time.Duration(n)*4*time.Second)(ctx, c); err != nil {
		return worker.Answer{}, err
	}
	if n == 9 {
		return worker.Answer{}, truncated(c)
	}
	return workertest.Answer(c), nil
}

func TestEventsOfAJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := workertest.New(t)
		tr.Send("a")
		tr.Endpoint.Func = script(func(n int, _ worker.Call) error {
			if n == 1 {
				return workertest.Fail(worker.Throttled, 429, 0)
			}
			return nil
		})
		s := run(t, tr, worker.Config{ExitWhenEmpty: true}, time.Hour)
		var got []worker.EventKind
		for _, e := range s.events {
			if e.Message != "" && e.Kind != worker.Requested {
				got = append(got, e.Kind)
			}
		}
		want := []worker.EventKind{
			worker.Received, worker.Permitted, worker.Attempted, worker.Permitted, worker.Attempted, worker.Stored,
		}
		if !slices.Equal(got, want) {
			t.Errorf("events %v, want %v", got, want)
		}
	})
}

func TestSlotsAndRoomAreFilledAndNotExceeded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := workertest.New(t)
		tr.Send(ids("j", 300)...)
		tr.Endpoint.Func = workertest.After(20 * time.Second)
		began := time.Now()
		run(t, tr, worker.Config{Slots: 20, Receivers: 4, ExitWhenEmpty: true}, time.Hour)
		tr.Done(t)
		if got := tr.Endpoint.Peak(); got != 20 {
			t.Errorf("at most %d calls were in flight, want 20", got)
		}
		if got, _ := tr.Queue.Peak(); got > 40 {
			t.Errorf("at most %d messages were held, want no more than 20 + 20/2 + 10", got)
		}
		// 300 calls of 20s in 20 slots take 300s; the rest is looking twice
		// whether the queue is empty.
		if got := time.Since(began); got > 345*time.Second {
			t.Errorf("it took %v, want at most 5m45s: slots were left empty", got)
		}
	})
}
