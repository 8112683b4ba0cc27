package worker_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"upwell/jobs"
	"upwell/worker"
	"upwell/worker/workertest"
)

// owes answers the job named owes against its schema, so that it wants mending.
func owes(_ context.Context, c worker.Call) (worker.Answer, error) {
	if c.Job.CustomID == "owes" {
		return worker.Answer{}, wrong(c, 1)
	}
	return workertest.Answer(c), nil
}

// TestLargeBesideWhoOwes fetches what is larger than the bound although a job is held
// for hours that waits for money, and others' jobs go on.
func TestLargeBesideWhoOwes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := sizedShelf(t, map[string]int{"large": 1100 << 10})
		tr := on(t, s)
		tr.Endpoint.Func = owes
		tr.Send("owes")
		sub, stop := start(t, tr, steady(1000), worker.Config{Purse: newTill(t, 0.001), Opener: keeping{s}, Bytes: 1 << 20})
		time.Sleep(time.Minute)
		tr.Queue.Send(jobs.Message{Body: []byte("fetch large")})
		time.Sleep(5 * time.Second)
		for i := range 50 {
			tr.Queue.Send(jobs.Message{Body: workertest.Line(fmt.Sprint("o", i), `"run":"other"`)})
		}
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		fetched := s.fetched("large")
		stored := len(sub.of(worker.Stored))
		stop()
		if fetched == 0 || stored != 50 {
			t.Errorf("%d fetches of what is large, and %d results, want some and the other run's 50", fetched, stored)
		}
	})
}

// goner is a queue whose deliveries are lost.
type goner struct{ *workertest.Queue }

func (goner) Hide(context.Context, jobs.Message, time.Duration) error {
	return fmt.Errorf("hide: %w", worker.ErrGone)
}

// TestLostDeliveryOfWhoOwes leaves a job to whoever has its message now.
func TestLostDeliveryOfWhoOwes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := workertest.New(t)
		tr.Endpoint.Func = owes
		tr.Send("owes")
		lost := 0
		w, err := worker.New(goner{tr.Queue}, tr.Endpoint, tr.Sink, steady(1000), worker.Config{
			Regions: []string{"here"}, Purse: newTill(t, 0.001),
			Observe: func(e worker.Event) {
				if e.Kind == worker.Lost {
					lost++
				}
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := w.Run(ctx); err != nil || lost == 0 || len(tr.Queue.Letters()) != 0 {
			t.Errorf("Run = %v, with %d deliveries lost and letters %+v, want one lost and no letter", err, lost, tr.Queue.Letters())
		}
	})
}

// TestParkedQueueIsNotChurned has a worker that is to exit look at a long parked queue
// at full speed for no longer than it takes to find out.
func TestParkedQueueIsNotChurned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := workertest.New(t)
		tr.Queue.Latency = func(workertest.Op) time.Duration { return 20 * time.Millisecond }
		tr.Send(ids("j", 20_000)...)
		s := newSubject(t, tr, steady(1000), worker.Config{Purse: newTill(t, 0), ExitWhenEmpty: true, EmptyFor: 10 * time.Minute, Slots: 16})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := s.Run(ctx); err != nil {
			t.Error(err)
		}
		if n := tr.Queue.Calls(workertest.Receive); n > 2000 {
			t.Errorf("%d requests for messages in the first minute, want those of ten seconds and a few", n)
		}
	})
}

// TestOneEventToldTwice looks a job up that was answered by another worker, although
// its message was never delivered before.
func TestOneEventToldTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShelf(t, "a")
		tr := on(t, s)
		for range 2 { // one worker after the other
			tr.Queue.Send(jobs.Message{Body: []byte("named a")})
			run(t, tr, worker.Config{Opener: keeping{s}}, time.Minute)
		}
		if n := tr.Endpoint.Total().Billed; n != 1 || tr.Queue.Len() != 0 {
			t.Errorf("%d calls billed and %d messages left, want one and none", n, tr.Queue.Len())
		}
	})
}

// TestUnpricedTier does not call a tier that nobody knows the price of with the money
// of another.
func TestUnpricedTier(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, p := climb(t, jobs.UnknownUSD(), func(c worker.Call) worker.Answer {
			t.Error("the tier without a price is called")
			return workertest.Answer(c)
		})
		parked := s.of(worker.Parked)
		if len(parked) == 0 || !errors.Is(parked[len(parked)-1].Err, worker.ErrParked) || !strings.Contains(fmt.Sprint(p.settled), "0 of 0.01") {
			t.Errorf("events %+v, settled %v, want that the run is parked, and flex's money refunded", parked, p.settled)
		}
	})
}

// TestDuplicatesKeepThePace has jobs that have results behind those of a parked run:
// they are acknowledged at full speed.
func TestDuplicatesKeepThePace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := workertest.New(t)
		others := func() {
			for i := range 600 {
				tr.Queue.Send(jobs.Message{Body: workertest.Line(fmt.Sprint("o", i), `"run":"other"`)})
			}
		}
		others()
		s, stop := start(t, tr, steady(1000), worker.Config{Purse: newTill(t, 0)})
		time.Sleep(time.Minute)
		tr.Send(ids("j", 120)...)
		time.Sleep(10 * time.Minute) // looks are rare now
		others()
		time.Sleep(15 * time.Minute)
		synctest.Wait()
		n := len(s.of(worker.Duplicate))
		stop()
		if n != 600 {
			t.Errorf("%d jobs that have a result are acknowledged, want 600", n)
		}
	})
}

// TestContinuationOfASettledMessage knows a message by the name that it keeps when it
// is sent anew, as what it refers to is gone.
func TestContinuationOfASettledMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShelf(t, "a")
		tr := on(t, s)
		tr.Queue.Send(jobs.Message{Body: []byte("fetch a"), Again: true, First: "m0"})
		_, stop := start(t, tr, steady(1000), worker.Config{Opener: s})
		time.Sleep(time.Minute)
		tr.Queue.Send(jobs.Message{Body: []byte("fetch a"), Again: true, First: "m0"})
		time.Sleep(10 * time.Minute)
		stop()
		if n := s.fetched("a"); n != 1 || len(tr.Queue.Letters()) != 0 || tr.Queue.Len() != 0 {
			t.Errorf("fetched %d times, letters %+v, and %d messages left, want once and none", n, tr.Queue.Letters(), tr.Queue.Len())
		}
	})
}
