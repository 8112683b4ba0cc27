package ordered_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"upwell/cmd/internal/ordered"
)

// numbers yields 0 to n-1, and then err if there is one.
func numbers(n int, err error) func(context.Context) iter.Seq2[int, error] {
	return func(context.Context) iter.Seq2[int, error] {
		return func(yield func(int, error) bool) {
			for i := range n {
				if !yield(i, nil) {
					return
				}
			}
			if err != nil {
				yield(0, err)
			}
		}
	}
}

// took is how long work on i takes: less for some than for those before.
func took(i int) time.Duration { return time.Duration(1+(i*7)%10) * time.Millisecond }

// collect returns what Map yields.
func collect[Out any](seq iter.Seq2[Out, error]) (got []Out, err error) {
	for v, err := range seq {
		if err != nil {
			return got, err
		}
		got = append(got, v)
	}
	return got, nil
}

func TestOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		got, err := collect(ordered.Map(t.Context(), numbers(1000, nil), ordered.Limits{Window: 50, Bytes: 1 << 20}, func(_ context.Context, i int) (string, int, error) {
			time.Sleep(took(i))
			return fmt.Sprint(i), 1, nil
		}))
		var want []string
		for i := range 1000 {
			want = append(want, fmt.Sprint(i))
		}
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("Map: %v, differs (-want +got):\n%s", err, diff)
		}
		// 5.5 ms each, 50 at a time, and a slow one now and then holds up the rest.
		if d := time.Since(start); d > 300*time.Millisecond {
			t.Errorf("it took %v, want it to be done in parallel", d)
		}
	})
}

// TestLimits counts what is under way and what waits, while nobody takes it.
func TestLimits(t *testing.T) {
	for _, tt := range []struct {
		window, bytes, size, most int
	}{
		{10, 1 << 20, 1, 12}, // one more is in the loop's hand, and one waits to enter the window
		{100, 1000, 100, 20}, // ten of that size, after a start of eight
		{100, 1000, 5000, 9}, // one at a time, after that start
		{1, 1000, 1, 3},
	} {
		synctest.Test(t, func(t *testing.T) {
			var begun, most int64
			var started, taken atomic.Int64
			for _, err := range ordered.Map(t.Context(), numbers(300, nil), ordered.Limits{Window: tt.window, Bytes: tt.bytes}, func(context.Context, int) (int, int, error) {
				started.Add(1)
				time.Sleep(time.Millisecond)
				return 0, tt.size, nil
			}) {
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Second) // all that may be under way is, and is done
				begun = started.Load()
				most = max(most, begun-taken.Load())
				taken.Add(1)
			}
			if begun != 300 || most > int64(tt.most) {
				t.Errorf("window %d, %d bytes of %d each: %d begun, %d at once, want 300 and %d at most", tt.window, tt.bytes, tt.size, begun, most, tt.most)
			}
		})
	}
}

// TestLargeOnes has answers that grow after many small ones, and fall again.
func TestLargeOnes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit = 10_000
		size := func(i int) int {
			if 200 <= i && i < 300 {
				return 1000
			}
			return 10
		}
		var held, most atomic.Int64
		start := time.Now()
		for i, err := range ordered.Map(t.Context(), numbers(2000, nil), ordered.Limits{Window: 64, Bytes: limit}, func(_ context.Context, i int) (int, int, error) {
			time.Sleep(10 * time.Millisecond)
			for n := held.Add(int64(size(i))); n > most.Load(); {
				most.Store(n)
			}
			return i, size(i), nil
		}) {
			if err != nil {
				t.Fatal(err)
			}
			held.Add(-int64(size(i)))
		}
		// The first large ones come as a surprise: a window of them.
		if m := most.Load(); m > 64*1000+limit {
			t.Errorf("%d bytes were held", m)
		}
		if d := time.Since(start); d > 2*time.Second {
			t.Errorf("it took %v, want the window to open again after large answers", d)
		}
	})
}

func TestErrors(t *testing.T) {
	bad := errors.New("bad")
	do := func(_ context.Context, i int) (int, int, error) {
		if i == 30 {
			return 0, 1, bad
		}
		return i, 1, nil
	}
	lim := ordered.Limits{Window: 10, Bytes: 100}
	for name, seq := range map[string]iter.Seq2[int, error]{
		"of do": ordered.Map(t.Context(), numbers(100, nil), lim, do),
		"of in": ordered.Map(t.Context(), numbers(30, bad), lim, do),
	} {
		got, err := collect(seq)
		want := make([]int, 30)
		for i := range want {
			want[i] = i
		}
		if !errors.Is(err, bad) || !slices.Equal(got, want) {
			t.Errorf("an error %s: %d values and %v, want 30 and the error", name, len(got), err)
		}
	}
}

// TestEndOfIn has an error of do while in waits for more.
func TestEndOfIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bad := errors.New("bad")
		in := func(ctx context.Context) iter.Seq2[int, error] {
			return func(yield func(int, error) bool) {
				if yield(1, nil) {
					<-ctx.Done()
				}
			}
		}
		_, err := collect(ordered.Map(t.Context(), in, ordered.Limits{Window: 10, Bytes: 100}, func(context.Context, int) (int, int, error) {
			return 0, 1, bad
		}))
		if !errors.Is(err, bad) {
			t.Errorf("Map ends with %v, want the error", err)
		}
	})
}

// TestEnd ends the context, and leaves the loop: nothing may go on.
func TestEnd(t *testing.T) {
	why := errors.New("enough")
	for _, leave := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			var running atomic.Int64
			n, last := 0, error(nil)
			for _, err := range ordered.Map(ctx, numbers(1000, nil), ordered.Limits{Window: 10, Bytes: 1000}, func(ctx context.Context, _ int) (int, int, error) {
				running.Add(1)
				defer running.Add(-1)
				select {
				case <-time.After(time.Second):
				case <-ctx.Done():
				}
				return 0, 1, nil
			}) {
				if last = err; err != nil {
					continue
				}
				if n++; n == 20 && leave {
					break
				} else if n == 20 {
					cancel(why)
				}
			}
			if running.Load() > 0 {
				t.Errorf("%d pieces of work go on", running.Load())
			}
			if !leave && !errors.Is(last, why) {
				t.Errorf("the last pair has %v after %d, want the cause of the end", last, n)
			}
			cancel(nil)
		})
	}
}
