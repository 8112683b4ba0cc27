package sqsqueue_test

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"upwell/jobs"
	"upwell/jobs/sqsqueue/sqssim"
	"upwell/worker"
)

// settling are the calls that share requests.
var settling = map[string]struct {
	op string
	do func(ctx context.Context, w *world, m jobs.Message) error
}{
	"Ack":  {"DeleteMessageBatch", func(ctx context.Context, w *world, m jobs.Message) error { return w.q.Ack(ctx, m) }},
	"Hide": {"ChangeMessageVisibilityBatch", func(ctx context.Context, w *world, m jobs.Message) error { return w.q.Hide(ctx, m, time.Hour) }},
}

// settled is how many messages a call of settling has had its effect on.
func (w *world) settled(call string) int {
	n := 0
	for _, m := range w.Messages(w.name) {
		if time.Until(m.Due) > 30*time.Minute {
			n++
		}
	}
	if call == "Ack" {
		return w.Stats().Queues[w.name].Deleted
	}
	return n
}

func TestBatches(t *testing.T) {
	for name, call := range settling {
		for _, tt := range []struct{ calls, requests int }{{1, 1}, {10, 1}, {11, 2}, {1000, 100}} {
			t.Run(name+"/"+strconv.Itoa(tt.calls), func(t *testing.T) {
				virtual(t, setup{latency: 20 * time.Millisecond}, func(t *testing.T, w *world) {
					ms := w.many(tt.calls)
					start := time.Now()
					errs := together(ms, func(m jobs.Message) error { return call.do(t.Context(), w, m) })
					if err := errors.Join(errs...); err != nil {
						t.Errorf("%s = %v, want nil", name, err)
					}
					if n := w.requests(call.op); n != tt.requests {
						t.Errorf("%d requests for %d calls, want %d", n, tt.calls, tt.requests)
					}
					if n := w.settled(name); n != tt.calls {
						t.Errorf("%d of %d calls had their effect", n, tt.calls)
					}
					// A full batch waits for nobody, and no batch for another.
					want := 20 * time.Millisecond
					if tt.calls%10 != 0 {
						want += 10 * time.Millisecond
					}
					if took := time.Since(start); took != want {
						t.Errorf("took %v, want %v", took, want)
					}
				})
			})
		}
	}
}

// Calls that trickle in share a request with those of the next ten milliseconds.
func TestBatchGathers(t *testing.T) {
	virtual(t, setup{}, func(t *testing.T, w *world) {
		ms := w.many(30)
		start := time.Now()
		var wg sync.WaitGroup
		for i, m := range ms {
			wg.Go(func() {
				time.Sleep(time.Duration(i) * 2 * time.Millisecond)
				if err := w.q.Ack(t.Context(), m); err != nil {
					t.Errorf("Ack = %v, want nil", err)
				}
				if waited := time.Since(start) - time.Duration(i)*2*time.Millisecond; waited > 10*time.Millisecond {
					t.Errorf("call %d waited %v, want 10ms at most", i, waited)
				}
			})
		}
		wg.Wait()
		// Of five or six calls each: the call at the tenth millisecond may be early
		// or late.
		if n := w.requests("DeleteMessageBatch"); n < 5 || n > 6 {
			t.Errorf("%d requests for 30 calls in 58ms, want 5 or 6", n)
		}
	})
}

// Each caller gets its own entry's error, whatever happens to the others.
func TestEntryErrors(t *testing.T) {
	for name, call := range settling {
		t.Run(name, func(t *testing.T) {
			virtual(t, setup{}, func(t *testing.T, w *world) {
				ms := w.many(10)
				bad := map[string]sqssim.Error{
					bodyOf(2): {Code: "InvalidParameterValueException", Message: "two"},
					bodyOf(5): {Code: "AccessDenied", Message: "five"},
					bodyOf(9): {Code: "SomethingElse", Message: "nine"},
				}
				w.inject(func(string, sqssim.Call) sqssim.Fault {
					return sqssim.Fault{FailEntry: func(e sqssim.Entry) *sqssim.Error {
						if err, ok := bad[e.Body]; ok {
							return &err
						}
						return nil
					}}
				})
				for i, err := range together(ms, func(m jobs.Message) error { return call.do(t.Context(), w, m) }) {
					body := string(ms[i].Body)
					want, ok := bad[body]
					if ok != (err != nil) || ok && !strings.HasSuffix(err.Error(), want.Message) {
						t.Errorf("%s of %q = %v, want %q", name, body, err, want.Message)
					}
					if e, _ := errors.AsType[*worker.Error](err); errors.Is(err, worker.ErrGone) != (want.Message == "two") ||
						(e != nil && e.Kind == worker.Unauthorized) != (want.Message == "five") {
						t.Errorf("%s of %q = %v, which means something else", name, body, err)
					}
				}
				if n := w.requests(call.op); n != 1 {
					t.Errorf("%d requests, want 1: it is no use to ask again", n)
				}
				if n := w.settled(name); n != 7 {
					t.Errorf("%d entries had their effect, want 7", n)
				}
			})
		})
	}
}

// Entries that fail through SQS's fault are sent again, and only those.
func TestEntriesAreRetried(t *testing.T) {
	for name, call := range settling {
		for _, apply := range []bool{false, true} {
			for _, tt := range []struct {
				times int
				ok    bool
			}{{1, true}, {2, true}, {3, false}} {
				t.Run(name+"/"+strconv.FormatBool(apply)+"/"+strconv.Itoa(tt.times), func(t *testing.T) {
					virtual(t, setup{}, func(t *testing.T, w *world) {
						ms := w.many(10)
						failing := []string{bodyOf(0), bodyOf(4), bodyOf(9)}
						var sizes []int
						w.inject(func(op string, c sqssim.Call) sqssim.Fault {
							if op == call.op {
								sizes = append(sizes, len(c.Entries))
							}
							return sqssim.Fault{Apply: apply, FailEntry: func(e sqssim.Entry) *sqssim.Error {
								gone := e.Body == "" // applied before, and the simulator no longer knows it
								if len(sizes) <= tt.times && (gone || slices.Contains(failing, e.Body)) {
									return &sqssim.Error{Code: "InternalError", Message: "of " + e.Body, Status: 500}
								}
								return nil
							}}
						})
						for i, err := range together(ms, func(m jobs.Message) error { return call.do(t.Context(), w, m) }) {
							ok := tt.ok || !slices.Contains(failing, string(ms[i].Body))
							if ok != (err == nil) {
								t.Errorf("%s of %q = %v, want ok %t", name, ms[i].Body, err, ok)
							}
						}
						if want := append([]int{10}, slices.Repeat([]int{3}, min(tt.times, 2))...); !slices.Equal(sizes, want) {
							t.Errorf("entries sent: %v, want %v", sizes, want)
						}
						if n := w.settled(name); tt.ok && n != 10 {
							t.Errorf("%d of 10 had their effect", n)
						}
					})
				})
			}
		}
	}
}

// An error of a whole request is everybody's.
func TestRequestErrors(t *testing.T) {
	for name, call := range settling {
		t.Run(name, func(t *testing.T) {
			virtual(t, setup{}, func(t *testing.T, w *world) {
				ms := w.many(10)
				w.inject(func(string, sqssim.Call) sqssim.Fault {
					return sqssim.Fault{Err: &sqssim.Error{Code: "InternalFailure", Message: "sorry", Status: 500}}
				})
				for _, err := range together(ms, func(m jobs.Message) error { return call.do(t.Context(), w, m) }) {
					if err == nil || !strings.Contains(err.Error(), "sorry") || errors.Is(err, worker.ErrGone) {
						t.Errorf("%s = %v, want SQS's own error", name, err)
					}
				}
				if n := w.requests(call.op); n != 5 {
					t.Errorf("%d requests, want 5 tries", n)
				}
			})
		})
	}
}

// A caller may leave, the one that filled the batch included; what it asked for
// happens all the same.
func TestCallerLeaves(t *testing.T) {
	for name, call := range settling {
		for _, n := range []int{1, 9, 10} {
			t.Run(name+"/"+strconv.Itoa(n), func(t *testing.T) {
				virtual(t, setup{latency: 5 * time.Second}, func(t *testing.T, w *world) {
					ms := w.many(n)
					start := time.Now()
					ctx := stopping(t.Context(), time.Second)
					for _, err := range together(ms, func(m jobs.Message) error { return call.do(ctx, w, m) }) {
						if !errors.Is(err, errStopped) {
							t.Errorf("%s = %v, want the cause %v", name, err, errStopped)
						}
					}
					if took := time.Since(start); took != time.Second {
						t.Errorf("callers returned after %v, want 1s", took)
					}
					time.Sleep(5 * time.Second)
					if got := w.settled(name); got != n {
						t.Errorf("%d of %d had their effect", got, n)
					}
				})
			})
		}
	}
}

// A caller that has left does not take the others with it.
func TestOneCallerLeaves(t *testing.T) {
	virtual(t, setup{latency: 5 * time.Second}, func(t *testing.T, w *world) {
		ms := w.many(3)
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		if err := w.q.Ack(gone, ms[0]); !errors.Is(err, context.Canceled) {
			t.Errorf("Ack = %v, want cancelled", err)
		}
		if err := errors.Join(together(ms[1:], func(m jobs.Message) error { return w.q.Ack(t.Context(), m) })...); err != nil {
			t.Errorf("Ack = %v, want nil", err)
		}
		synctest.Wait()
		if n, left := w.requests("DeleteMessageBatch"), len(w.Messages("jobs")); n != 1 || left != 0 {
			t.Errorf("%d requests and %d messages left, want 1 and none", n, left)
		}
	})
}

// A request that hangs is given up after half a minute, and no later batch waits
// for it.
func TestRequestHangs(t *testing.T) {
	virtual(t, setup{}, func(t *testing.T, w *world) {
		ms := w.many(2)
		w.inject(func(_ string, c sqssim.Call) sqssim.Fault {
			if len(c.Entries) == 1 && c.Entries[0].Body == string(ms[0].Body) {
				return sqssim.Fault{Delay: time.Hour}
			}
			return sqssim.Fault{}
		})
		start := time.Now()
		var wg sync.WaitGroup
		wg.Go(func() {
			err := w.q.Hide(t.Context(), ms[0], hidden)
			if took := time.Since(start); !errors.Is(err, context.DeadlineExceeded) || took != 30*time.Second+10*time.Millisecond {
				t.Errorf("Hide = %v after %v, want it given up after 30s", err, took)
			}
		})
		time.Sleep(time.Second)
		if err := w.q.Hide(t.Context(), ms[1], hidden); err != nil {
			t.Errorf("Hide = %v, want nil", err)
		}
		if took := time.Since(start); took != time.Second+10*time.Millisecond {
			t.Errorf("the second call took until %v, want 1.01s", took)
		}
		wg.Wait()
	})
}
