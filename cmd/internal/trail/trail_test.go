package trail_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"upwell/cmd/internal/trail"
)

// Changes of one line that these tests have been seen to catch: a job is let go before
// its checkpoint is stored; what is queued behind a gap counts as queued; the window
// never grows, or without bound; checkpoints are written only when sending waits;
// Close stores what Next let go of as queued; an interrupt breaks a write off.

// A world is a Trail whose every move is checked against what is stored.
type world struct {
	*testing.T
	trail *trail.Trail
	took  time.Duration // by each write
	end   int           // what Next has returned

	mu            sync.Mutex
	queued, begun int // as stored
	writes        int
	writing       bool
	most          int // jobs in doubt
	sent          map[int]bool
	err           error // of the next write
}

func newWorld(t *testing.T, from, to int, took time.Duration) *world {
	t.Helper()
	w := &world{T: t, took: took, queued: from, begun: from, sent: make(map[int]bool)}
	w.trail = trail.New(from, to, w.put)
	return w
}

func (w *world) put(ctx context.Context, queued, begun int) error {
	w.mu.Lock()
	if w.writing {
		w.Error("two writes at once")
	}
	w.writing = true
	w.mu.Unlock()
	select {
	case <-time.After(w.took):
	case <-ctx.Done():
		w.Errorf("a write was broken off: %v", context.Cause(ctx))
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.writing = false
	if w.err != nil {
		return w.err
	}
	if queued < w.queued || begun < w.end || queued > begun {
		w.Errorf("stored %d and %d after %d and %d", queued, begun, w.queued, w.begun)
	}
	for i := w.queued; i < queued; i++ {
		if !w.sent[i] {
			w.Fatalf("stored that %d are queued, and %d is not", queued, i)
		}
	}
	w.queued, w.begun = queued, begun
	w.writes++
	w.most = max(w.most, begun-queued)
	return nil
}

// next takes n jobs, and checks that they may be sent.
func (w *world) next(ctx context.Context, n int) (int, error) {
	first, err := w.trail.Next(ctx, n)
	w.mu.Lock()
	defer w.mu.Unlock()
	if err == nil && first+n > w.begun {
		w.Errorf("let go of %d to %d, and stored is %d", first, first+n, w.begun)
	}
	if err == nil {
		w.end = first + n
	}
	return first, err
}

func (w *world) done(first, n int) {
	w.mu.Lock()
	for i := range n {
		w.sent[first+i] = true
	}
	w.mu.Unlock()
	w.trail.Done(first, n)
}

// send sends all jobs, so many batches of ten at a time, each of which takes as long
// as took says. It returns how long that took.
func (w *world) send(total, senders int, took func() time.Duration) time.Duration {
	start := time.Now()
	slots := make(chan struct{}, senders)
	var wg sync.WaitGroup
	for left := total; left > 0; left -= 10 {
		n := min(10, left)
		slots <- struct{}{}
		first, err := w.next(w.Context(), n)
		if err != nil {
			w.Fatal(err)
		}
		wg.Go(func() {
			time.Sleep(took())
			w.done(first, n)
			<-slots
		})
	}
	wg.Wait()
	return time.Since(start)
}

// TestPace has checkpoints take longer and longer: sending does not wait for them, in
// the common case, and what is in doubt stays bounded in all.
func TestPace(t *testing.T) {
	const total = 100_003 // no whole number of batches
	for _, tt := range []struct {
		write  time.Duration
		most   int           // in doubt
		within time.Duration // 10 s of sending, and
		writes int
	}{
		{time.Millisecond, 1024, 100 * time.Millisecond, 310},
		{20 * time.Millisecond, 1024, 100 * time.Millisecond, 310},
		{100 * time.Millisecond, trail.MaxDoubt, 500 * time.Millisecond, 120},
		{time.Second, trail.MaxDoubt, 45 * time.Second, 60},
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, 1000, 1000+total, tt.write)
			took := w.send(total, 16, func() time.Duration { return 16 * time.Millisecond })
			if took > 10010*time.Millisecond+tt.within {
				t.Errorf("%v a write: took %v, want at most %v more than 10 s", tt.write, took, tt.within)
			}
			if w.most > tt.most || w.writes > tt.writes {
				t.Errorf("%v a write: %d jobs in doubt and %d writes, want at most %d and %d", tt.write, w.most, w.writes, tt.most, tt.writes)
			}
			if err := w.trail.Close(t.Context()); err != nil || w.queued != 1000+total || w.begun != 1000+total {
				t.Errorf("Close = %v and stores %d and %d, want all %d", err, w.queued, w.begun, 1000+total)
			}
		})
	}
}

// TestUnevenBatches has batches end in any order.
func TestUnevenBatches(t *testing.T) {
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 0))
			w := newWorld(t, 0, 9000, time.Duration(random.IntN(100))*time.Millisecond)
			w.send(9000, 16, func() time.Duration { return time.Duration(rand.IntN(1000)) * time.Millisecond })
			if w.most > trail.MaxDoubt {
				t.Errorf("%d jobs in doubt, want at most %d", w.most, trail.MaxDoubt)
			}
			if err := w.trail.Close(t.Context()); err != nil || w.queued != 9000 {
				t.Errorf("Close = %v and stores %d, want 9000", err, w.queued)
			}
		})
	}
}

// TestStuckBatch has one batch take very long: the others go on for as long as the
// doubt is bounded, and then wait for it.
func TestStuckBatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 0, 20_000, time.Millisecond)
		var n atomic.Int64
		took := w.send(20_000, 16, func() time.Duration {
			if n.Add(1) == 1 {
				return time.Hour
			}
			return time.Millisecond
		})
		if w.most > trail.MaxDoubt || took < time.Hour || took > time.Hour+5*time.Second {
			t.Errorf("%d jobs in doubt, took %v, want at most %d and little more than an hour", w.most, took, trail.MaxDoubt)
		}
	})
}

// TestGap closes a Trail of which one batch was never queued.
func TestGap(t *testing.T) {
	w := newWorld(t, 0, 100, 0)
	for i := range 4 {
		first, err := w.next(t.Context(), 10)
		if err != nil {
			t.Fatal(err)
		}
		if i != 1 {
			w.done(first, 10)
		}
	}
	if err := w.trail.Close(t.Context()); err != nil || w.queued != 10 || w.begun != 40 {
		t.Errorf("Close = %v and stores %d and %d, want 10 and 40", err, w.queued, w.begun)
	}
}

// TestInterrupted ends while a checkpoint is being written, and must not break that
// off; what is stored at last is exact.
func TestInterrupted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 0, 10_000, time.Second)
		ctx, cancel := context.WithCancelCause(t.Context())
		defer cancel(nil)
		why := errors.New("enough")
		sent := 0
		for {
			if sent > 0 {
				time.AfterFunc(2*time.Second, func() { cancel(why) })
			}
			first, err := w.next(ctx, 10)
			if err != nil {
				if !errors.Is(err, why) {
					t.Errorf("Next = %v, want %v", err, why)
				}
				break
			}
			w.done(first, 10)
			sent = first + 10
			time.Sleep(10 * time.Millisecond)
		}
		if err := w.trail.Close(ctx); err != nil || w.queued != sent || w.begun != sent || sent == 0 {
			t.Errorf("Close = %v and stores %d and %d, want %d", err, w.queued, w.begun, sent)
		}
	})
}

// TestBrokenStore ends at the first checkpoint that cannot be stored.
func TestBrokenStore(t *testing.T) {
	w := newWorld(t, 0, 10_000, 0)
	first, err := w.next(t.Context(), 10)
	if err != nil {
		t.Fatal(err)
	}
	w.done(first, 10)
	w.mu.Lock()
	w.err = errors.New("broken")
	w.mu.Unlock()
	for range 1000 {
		if first, err = w.next(t.Context(), 10); err != nil {
			break
		}
		w.done(first, 10)
	}
	if !errors.Is(err, w.err) || w.begun != 1024 {
		t.Errorf("Next = %v with %d stored, want %v and 1024", err, w.begun, w.err)
	}
	if err := w.trail.Close(t.Context()); !errors.Is(err, w.err) {
		t.Errorf("Close = %v, want %v", err, w.err)
	}
}
