package worker_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"upwell/jobs"
	"upwell/worker"
	"upwell/worker/workertest"
)

// Changes of one line that these tests have been seen to catch:
//
//   - handle: a message that names its job is fetched for before the look-up; a copy
//     of a settled one is fetched for; the room of what was fetched is not returned
//   - fetch: a final error passes, or any other is final; poison is fetched for; a
//     wait for room outlives the drain
//   - read: the two names of a job are not compared; a run that the message names is
//     not its job's
//   - pass: acknowledged before the parts are queued; the parts are not marked
//   - answered: what a failed job refers to is removed, or before the acknowledgement
//   - room: nobody waits, receivers first, the too large one never or not alone, a
//     given room is kept by who has left

// A shelf is an Opener whose messages say what they are:
//
//	fetch NAME       the job is on the shelf
//	named NAME       likewise, and the message says which job it is
//	parts NAME …     several of the first kind
//	nothing
//	wrong NAME       it can never become a job, and is named
//
// Anything else is a job.
type shelf struct {
	t       *testing.T
	parting time.Duration                  // that a removal goes on for when all is gone
	took    time.Duration                  // for a fetch
	sized   bool                           // say what fetches will take
	fault   func(name string, n int) error // of the n-th fetch of name, from 1
	still   func(id string) bool           // whether the message is still queued; may be nil
	mu      sync.Mutex
	texts   map[string][]byte
	count   map[string]int    // fetches
	gone    map[string]int    // times forgotten
	begun   func(name string) // when a fetch begins; may be nil
}

func newShelf(t *testing.T, names ...string) *shelf {
	t.Helper()
	s := &shelf{t: t, texts: make(map[string][]byte), count: make(map[string]int), gone: make(map[string]int)}
	for _, name := range names {
		s.texts[name] = workertest.Line(name, "")
	}
	return s
}

// Open implements [worker.Opener].
func (s *shelf) Open(m jobs.Message) (worker.Parcel, error) {
	verb, name, _ := strings.Cut(string(m.Body), " ")
	switch verb {
	case "named":
		p := s.parcel(m.ID, name)
		p.Key = key(name)
		return p, nil
	case "fetch":
		return s.parcel(m.ID, name), nil
	case "parts":
		var p worker.Parcel
		for part := range strings.SplitSeq(name, " ") {
			p.Parts = append(p.Parts, []byte("fetch "+part))
		}
		return p, nil
	case "nothing":
		return worker.Parcel{}, nil
	case "wrong":
		return worker.Parcel{Key: jobs.Key{CustomID: name}}, &jobs.FormatError{Field: "body_ref", Reason: "want another"}
	default:
		return worker.Parcel{Text: m.Body}, nil
	}
}

func (s *shelf) parcel(id, name string) worker.Parcel {
	p := worker.Parcel{
		Fetch: func(ctx context.Context) ([]byte, error) { return s.fetch(ctx, name) },
		Forget: func(context.Context) error {
			defer time.Sleep(s.parting)
			return s.forget(id, name)
		},
	}
	if s.sized {
		p.Size = func(context.Context) (int64, error) {
			s.mu.Lock()
			defer s.mu.Unlock()
			return int64(len(s.texts[name])), nil
		}
	}
	return p
}

func (s *shelf) fetch(ctx context.Context, name string) ([]byte, error) {
	s.mu.Lock()
	s.count[name]++
	n, text := s.count[name], s.texts[name]
	s.mu.Unlock()
	if s.begun != nil {
		s.begun(name)
	}
	select {
	case <-time.After(s.took):
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if s.fault != nil {
		if err := s.fault(name, n); err != nil {
			return nil, err
		}
	}
	if text == nil {
		return nil, &jobs.FormatError{Field: "body_ref", Reason: "nothing there"}
	}
	return text, nil
}

func (s *shelf) forget(id, name string) error {
	if s.still != nil && s.still(id) {
		s.t.Errorf("what message %s refers to is removed while it is queued, want it acknowledged first", id)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gone[name]++
	s.texts[name] = nil
	return nil
}

// fetched returns how often the text of that name was asked for by a worker.
func (s *shelf) fetched(name string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.count[name]
}

func (s *shelf) forgotten(name string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.gone[name]
}

// on returns a trial whose messages are opened by s. What the trial itself fetches
// is another matter than what workers do.
func on(t *testing.T, s *shelf) *workertest.Trial {
	t.Helper()
	tr := workertest.New(t)
	books := newShelf(t)
	s.mu.Lock()
	maps.Copy(books.texts, s.texts)
	s.mu.Unlock()
	tr.Opener, s.still = books, tr.Queue.Holds
	return tr
}

func post(tr *workertest.Trial, bodies ...string) {
	for _, b := range bodies {
		tr.Queue.Send(jobs.Message{Body: []byte(b)})
	}
}

// TestFetched has jobs that are elsewhere. Each is fetched once, answered as if it had
// come with the message, and what it was fetched from is removed.
func TestFetched(t *testing.T) {
	for _, sized := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			s := newShelf(t, "a", "b")
			s.sized = sized
			tr := on(t, s)
			post(tr, "fetch a", "named b", string(workertest.Line("c", "")))
			run(t, tr, worker.Config{Opener: s, ExitWhenEmpty: true}, time.Hour)
			tr.Done(t)
			if got := len(tr.Sink.Results()); got != 3 {
				t.Errorf("%d results, want 3", got)
			}
			for _, name := range []string{"a", "b"} {
				if f, g := s.fetched(name), s.forgotten(name); f != 1 || g != 1 {
					t.Errorf("%s was fetched %d times and removed %d times, want once each", name, f, g)
				}
				body := fmt.Sprintf(`{"model":"m","input":"about %s"}`, name)
				sum := sha256.Sum256([]byte(body))
				if got := tr.Sink.Results()[key(name)].Upwell.InputSHA256; got != hex.EncodeToString(sum[:]) {
					t.Errorf("the result of %s is of the input %s, want of what was fetched, %x", name, got, sum)
				}
			}
		})
	}
}

// TestFetchedButAnswered has messages delivered before whose jobs are answered. One
// that names its job needs no fetch to tell.
func TestFetchedButAnswered(t *testing.T) {
	for body, fetches := range map[string]int{"fetch a": 1, "named a": 0} {
		synctest.Test(t, func(t *testing.T) {
			s := newShelf(t, "a")
			tr := on(t, s)
			answered(t, tr, "a")
			tr.Queue.Send(jobs.Message{Body: []byte(body), Receives: 1})
			run(t, tr, worker.Config{Opener: s, ExitWhenEmpty: true}, time.Hour)
			tr.Done(t)
			if got := s.fetched("a"); got != fetches {
				t.Errorf("%s: fetched %d times, want %d", body, got, fetches)
			}
			if c, g := tr.Endpoint.Total().Calls, s.forgotten("a"); c != 0 || g != 1 {
				t.Errorf("%s: %d calls, removed %d times, want 0 and 1", body, c, g)
			}
		})
	}
}

// TestNeverAJob has messages that will never become one. Each ends as a letter with
// its own body, and an error line if it is known for which job.
func TestNeverAJob(t *testing.T) {
	for _, tt := range []struct {
		body, text string // of the message, and on the shelf
		reason     string
		line       jobs.Key // of the error line, if it has a CustomID
	}{
		{"wrong a", "", "body_ref: want another", key("a")},
		{"fetch gone", "", "body_ref: nothing there", jobs.Key{}},
		{"named gone", "", "body_ref: nothing there", key("gone")},
		{"fetch a", `{"custom_id":"x"}`, "url: ", key("x")},
		{"fetch a", `nonsense`, "not JSON", jobs.Key{}},
		{"named a", `{"custom_id":"a"}`, "url: ", key("a")},
		{"named a", string(workertest.Line("b", "")), `custom_id: "b", and "a" in the message`, key("a")},
		{"named a", string(workertest.Line("a", `"run":"other"`)), `upwell.run: "other", and "default" in the message`, key("a")},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := newShelf(t)
			if tt.text != "" {
				s.texts["a"] = []byte(tt.text)
			}
			tr := on(t, s)
			post(tr, tt.body)
			run(t, tr, worker.Config{Opener: s, ExitWhenEmpty: true}, time.Hour)
			tr.Done(t)
			letters := tr.Queue.Letters()
			if len(letters) != 1 || letters[0].Class != jobs.BadJob || !strings.Contains(letters[0].Reason, tt.reason) {
				t.Errorf("%s: letters %+v, want one of a bad job with the reason %q", tt.body, letters, tt.reason)
			}
			if _, ok := tr.Sink.Errors()[tt.line]; ok != (tt.line.CustomID != "") || len(tr.Sink.Errors()) > 1 {
				t.Errorf("%s: error lines %v, want one for %v if it has a name", tt.body, tr.Sink.Errors(), tt.line)
			}
			if n, g := tr.Endpoint.Total().Calls, s.forgotten("a"); n != 0 || g != 0 {
				t.Errorf("%s: %d calls, removed %d times, want neither: the letter refers to it", tt.body, n, g)
			}
		})
	}
}

// TestRunOfTheMessage has a job that names no run and a message that does.
func TestRunOfTheMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShelf(t, "a")
		tr := on(t, s)
		tr.Run = "other"
		post(tr, "named a") // which says it is of run default
		run(t, tr, worker.Config{Opener: s, Run: "other", ExitWhenEmpty: true}, time.Hour)
		tr.Done(t)
		if _, ok := tr.Sink.Results()[key("a")]; !ok {
			t.Errorf("results %v, want one in run default, as the message says", tr.Sink.Results())
		}
	})
}

// TestRefersToAFailedJob wants what a dead letter refers to kept.
func TestRefersToAFailedJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShelf(t, "a")
		tr := on(t, s)
		refused := workertest.Fail(worker.Permanent, 400, 0)
		refused.Class = jobs.BadRequest
		tr.Endpoint.Func = script(failing(1, refused))
		post(tr, "fetch a")
		run(t, tr, worker.Config{Opener: s, ExitWhenEmpty: true}, time.Hour)
		tr.Done(t)
		if n, g := len(tr.Queue.Letters()), s.forgotten("a"); n != 1 || g != 0 {
			t.Errorf("%d letters, removed %d times, want 1 and 0", n, g)
		}
	})
}

// TestFetchFails has fetches fail in ways that pass. They cost the job nothing, and
// what a person has to mend is logged so.
func TestFetchFails(t *testing.T) {
	forbidden := &worker.Error{Kind: worker.Unauthorized, Err: errors.New("access denied: allow s3:GetObject")}
	for _, tt := range []struct {
		err   error
		level string
	}{{errors.New("slow down"), "WARN"}, {fmt.Errorf("s3: %w", forbidden), "ERROR"}} {
		for _, body := range []string{"fetch a", "named a"} {
			synctest.Test(t, func(t *testing.T) {
				s := newShelf(t, "a")
				s.fault = func(_ string, n int) error {
					if n <= 20 {
						return tt.err
					}
					return nil
				}
				tr := on(t, s)
				post(tr, body)
				var log bytes.Buffer
				start := time.Now()
				run(t, tr, worker.Config{Opener: s, ExitWhenEmpty: true, MaxAttempts: 1, Log: slog.New(slog.NewTextHandler(&log, nil))}, 5*time.Hour)
				tr.Done(t)
				if took := time.Since(start); len(tr.Sink.Results()) != 1 || took < 20*time.Minute || took > 25*time.Minute {
					t.Errorf("%s: %d results after %v, want one after 20 minutes", body, len(tr.Sink.Results()), took)
				}
				if want := "level=" + tt.level + " msg=\"job not fetched\""; strings.Count(log.String(), want) != 20 {
					t.Errorf("%s: the log has %d lines with %q, want 20:\n%.500s", body, strings.Count(log.String(), want), want, log.String())
				}
			})
		}
	}
}

// TestPoisonIsNotFetched has a message that may have stopped workers: what it refers
// to may be why.
func TestPoisonIsNotFetched(t *testing.T) {
	for _, body := range []string{"fetch a", "named a"} {
		synctest.Test(t, func(t *testing.T) {
			s := newShelf(t, "a")
			tr := on(t, newShelf(t)) // which cannot tell the job of the first either
			tr.Queue.Send(jobs.Message{Body: []byte(body), Receives: 3})
			run(t, tr, worker.Config{Opener: s, MaxReceives: 3, ExitWhenEmpty: true}, time.Hour)
			tr.Done(t)
			if l := tr.Queue.Letters(); len(l) != 1 || l[0].Class != jobs.Poison || s.fetched("a") != 0 {
				t.Errorf("%s: letters %+v, %d fetches, want one of poison and none", body, l, s.fetched("a"))
			}
		})
	}
}

// TestNothingToDo wants a message acknowledged that asks for nothing.
func TestNothingToDo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShelf(t)
		tr := on(t, s)
		post(tr, "nothing", "nothing")
		sub := run(t, tr, worker.Config{Opener: s, ExitWhenEmpty: true}, time.Hour)
		tr.Done(t)
		if n := len(sub.of(worker.Passed)); n != 2 || len(tr.Queue.Letters()) != 0 {
			t.Errorf("%d passed and %d letters, want 2 and none", n, len(tr.Queue.Letters()))
		}
	})
}

// TestParts has a message stand for several, while its queue is in trouble. Those of
// a split that failed half-way, or whose answer was lost, are looked up.
func TestParts(t *testing.T) {
	names := ids("p", 25)
	for name, fault := range map[string]workertest.Fault{
		"as it should":    nil,
		"not split":       workertest.Burst(5*time.Minute, workertest.Split, false),
		"split, not told": workertest.Burst(5*time.Minute, workertest.Split, true),
		"not gone":        workertest.Burst(5*time.Minute, workertest.Ack, false),
		"gone, not told":  workertest.Burst(5*time.Minute, workertest.Ack, true),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newShelf(t, names...)
				tr := on(t, s)
				tr.Queue.Fault = fault
				tr.Endpoint.Func = workertest.After(10 * time.Second)
				post(tr, "parts "+strings.Join(names, " "))
				sub := run(t, tr, worker.Config{Opener: s, ExitWhenEmpty: true}, 5*time.Hour)
				tr.Done(t)
				if r, c := len(tr.Sink.Results()), tr.Endpoint.Total().Calls; r != 25 || c != 25 {
					t.Errorf("%d results of %d calls, want 25 of as many", r, c)
				}
				passed := sub.of(worker.Passed)
				if len(passed) != 1 || passed[0].Parts != 25 {
					t.Errorf("passed %+v, want one message of 25 parts", passed)
				}
			})
		})
	}
}

// TestKilledBetweenSplitAndAck finds the parts that another worker has queued, and
// answered for the most part, and the message that they come from.
func TestKilledBetweenSplitAndAck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		names := ids("p", 10)
		s := newShelf(t, names...)
		tr := on(t, s)
		for i, name := range names {
			if i > 2 {
				answered(t, tr, name)
			}
			tr.Queue.Send(jobs.Message{Body: []byte("fetch " + name), Again: true})
		}
		tr.Queue.Send(jobs.Message{Body: []byte("parts " + strings.Join(names, " ")), Receives: 1})
		s.fault = nil
		run(t, tr, worker.Config{Opener: keeping{s}, ExitWhenEmpty: true}, 5*time.Hour)
		tr.Done(t)
		if c := tr.Endpoint.Total().Calls; c != 3 {
			t.Errorf("%d calls, want one for each of the 3 that had no answer", c)
		}
	})
}

// keeping is an Opener that removes nothing.
type keeping struct{ *shelf }

func (k keeping) Open(m jobs.Message) (worker.Parcel, error) {
	p, err := k.shelf.Open(m)
	p.Forget = nil
	return p, err
}

// An echo is a queue that delivers each message once more when it is gone, as SQS may.
type echo struct {
	*workertest.Queue

	mu   sync.Mutex
	seen []jobs.Message
}

func (e *echo) Receive(ctx context.Context, n int, d time.Duration) ([]jobs.Message, error) {
	e.mu.Lock()
	for i, m := range e.seen {
		if !e.Holds(m.ID) {
			e.seen = append(e.seen[:i:i], e.seen[i+1:]...)
			e.mu.Unlock()
			m.Received = time.Now()
			return []jobs.Message{m}, nil
		}
	}
	e.mu.Unlock()
	ms, err := e.Queue.Receive(ctx, n, d)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.seen = append(e.seen, ms...)
	return ms, err
}

// TestCopyOfAForgottenMessage delivers messages once more when they are settled and
// what they referred to is gone, or is about to be.
func TestCopyOfAForgottenMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShelf(t, "a", "b")
		s.parting = time.Minute // longer than a poll
		tr := on(t, s)
		post(tr, "fetch a", "named b", "fetch gone")
		q := &echo{Queue: tr.Queue}
		w, err := worker.New(q, tr.Endpoint, tr.Sink, steady(1000), worker.Config{Regions: []string{"here"}, Opener: s, ExitWhenEmpty: true})
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		tr.Done(t)
		if len(q.seen) != 0 {
			t.Errorf("%d messages did not come twice: the test tests nothing", len(q.seen))
		}
		if n := len(tr.Queue.Letters()); n != 1 {
			t.Errorf("%d letters, want one, of the job that is not there", n)
		}
		if a, b, c := s.fetched("a"), s.fetched("b"), s.fetched("gone"); a != 1 || b != 1 || c != 1 {
			t.Errorf("fetched %d, %d and %d times, want once each", a, b, c)
		}
	})
}

// sizedShelf has texts of so many bytes, and says so.
func sizedShelf(t *testing.T, bytes map[string]int) *shelf {
	t.Helper()
	s := newShelf(t)
	s.sized, s.took = true, time.Second
	for name, n := range bytes {
		s.texts[name] = sized(name, n).Body
	}
	return s
}

// memory counts the bytes that are fetched, or being fetched, for jobs that have no
// result yet.
type memory struct {
	s    *shelf
	tr   *workertest.Trial
	mu   sync.Mutex
	now  int
	most int
	over []string // fetched while others were, beyond the bound
}

func (m *memory) watch(bound int) {
	m.s.begun = func(name string) {
		m.s.mu.Lock()
		n := len(m.s.texts[name])
		m.s.mu.Unlock()
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.now > 0 && m.now+n > bound {
			m.over = append(m.over, name)
		}
		m.now += n
		m.most = max(m.most, m.now)
	}
	answer := m.tr.Endpoint.Func
	m.tr.Endpoint.Func = func(ctx context.Context, c worker.Call) (worker.Answer, error) {
		ans, err := answer(ctx, c)
		m.s.mu.Lock()
		n := len(m.s.texts[c.Job.CustomID])
		m.s.mu.Unlock()
		m.mu.Lock()
		defer m.mu.Unlock()
		m.now -= n
		return ans, err
	}
}

// TestFetchedBytesAreBounded fetches far more than there is room for. Small messages
// keep coming meanwhile, and one of the texts is too large for the bound.
func TestFetchedBytesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const bound = 4 << 20
		sizes := make(map[string]int)
		for i, name := range ids("f", 40) {
			sizes[name] = 200<<10 + i*30<<10
		}
		sizes["huge"] = 9 << 20
		s := sizedShelf(t, sizes)
		tr := on(t, s)
		tr.Endpoint.Func = workertest.After(20 * time.Second)
		m := &memory{s: s, tr: tr}
		m.watch(bound)
		for i, name := range ids("f", 40) {
			if i == 5 {
				post(tr, "fetch huge")
			}
			tr.Queue.Send(sized("s"+name, 20<<10))
			post(tr, "fetch "+name)
		}
		run(t, tr, worker.Config{Opener: keeping{s}, Bytes: bound, Receivers: 2, ExitWhenEmpty: true}, 10*time.Hour)
		tr.Done(t)
		if got := len(tr.Sink.Results()); got != 81 {
			t.Errorf("%d results, want 81", got)
		}
		if len(m.over) != 0 || m.most < 9<<20-100 {
			t.Errorf("%d KiB were held at most, and %v came on top of others beyond the bound, want the huge one alone", m.most>>10, m.over)
		}
	})
}

// TestLargeFetchIsNotStarved has a steady stream of small messages that would never
// leave enough room for a large one.
func TestLargeFetchIsNotStarved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := sizedShelf(t, map[string]int{"large": 900 << 10})
		tr := on(t, s)
		tr.Endpoint.Func = workertest.After(5 * time.Second)
		for _, id := range ids("j", 200) {
			tr.Queue.Send(sized(id, 40<<10))
		}
		post(tr, "fetch large")
		for _, id := range ids("k", 600) {
			tr.Queue.Send(sized(id, 40<<10))
		}
		var at time.Duration
		start := time.Now()
		s.begun = func(string) { at = time.Since(start) }
		run(t, tr, worker.Config{Opener: keeping{s}, Bytes: 1 << 20, Receivers: 2, ExitWhenEmpty: true}, 10*time.Hour)
		tr.Done(t)
		if at == 0 || at > 2*time.Minute {
			t.Errorf("the large one was fetched after %v of %v, want soon after it came, in the first minute", at, time.Since(start))
		}
	})
}

// TestDrainDuringFetches stops a worker with fetches under way, and others that wait
// for room. run checks that the room is whole again.
func TestDrainDuringFetches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sizes := make(map[string]int)
		for _, name := range ids("f", 30) {
			sizes[name] = 1 << 20
		}
		s := sizedShelf(t, sizes)
		s.took = 30 * time.Second
		tr := on(t, s)
		for name := range sizes {
			post(tr, "fetch "+name)
		}
		start := time.Now()
		sub := run(t, tr, worker.Config{Opener: keeping{s}, Bytes: 4 << 20, Receivers: 1}, 10*time.Second)
		if took := time.Since(start); took > 12*time.Second {
			t.Errorf("the drain took %v, want no wait for fetches: nothing has been paid for", took-10*time.Second)
		}
		if n, r := tr.Queue.Len(), len(sub.of(worker.Released)); n != 30 || r < 5 {
			t.Errorf("%d messages are queued and %d were given back, want 30 and some", n, r)
		}
		s.took = time.Second
		run(t, tr, worker.Config{Opener: keeping{s}, Bytes: 4 << 20, ExitWhenEmpty: true}, 10*time.Hour)
		tr.Done(t)
		if c := tr.Endpoint.Total().Calls; c != 30 {
			t.Errorf("%d calls for 30 jobs", c)
		}
	})
}

// TestDrainDuringWaitsForRoom stops a worker whose calls in flight hold all of the
// room: those who wait for it are given back at once.
func TestDrainDuringWaitsForRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sizes := make(map[string]int)
		for _, name := range ids("f", 10) {
			sizes[name] = 1 << 20
		}
		s := sizedShelf(t, sizes)
		tr := on(t, s)
		tr.Endpoint.Func = workertest.After(time.Minute)
		for name := range sizes {
			post(tr, "fetch "+name)
		}
		start := time.Now()
		sub := run(t, tr, worker.Config{Opener: keeping{s}, Bytes: 4<<20 + 512<<10, Receivers: 1}, 30*time.Second) // by when no receive has any room
		back := sub.of(worker.Released)
		for _, e := range back {
			if after := e.At.Sub(start); after > 32*time.Second {
				t.Errorf("a message was given back after %v, want it at once when the worker stops, at 30s", after)
			}
		}
		if len(back) == 0 || len(back)+len(tr.Sink.Results()) < 5 {
			t.Errorf("%d were given back and %d answered, want some of both: the test tests nothing", len(back), len(tr.Sink.Results()))
		}
	})
}

// TestStuckFetch wants a fetch given up that does not end.
func TestStuckFetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShelf(t, "a")
		s.took = time.Hour
		tr := on(t, s)
		post(tr, "fetch a")
		s.begun = func(string) {
			if s.fetched("a") > 3 {
				s.took = 0
			}
		}
		start := time.Now()
		run(t, tr, worker.Config{Opener: s, ExitWhenEmpty: true}, 5*time.Hour)
		tr.Done(t)
		if took := time.Since(start); len(tr.Sink.Results()) != 1 || took > 20*time.Minute {
			t.Errorf("%d results after %v, want one after three times 6 minutes", len(tr.Sink.Results()), took)
		}
	})
}

// TestFetchFaults is TestFaults with jobs that are elsewhere, and fetches that fail.
func TestFetchFaults(t *testing.T) {
	for _, op := range []workertest.Op{
		workertest.Receive, workertest.Hide, workertest.Release, workertest.Ack, workertest.Bury, workertest.Split,
		workertest.Put, workertest.PutError, workertest.Has, workertest.Failure,
	} {
		for _, apply := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/applied=%v", op, apply), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					names := ids("j", 60)
					s := newShelf(t, names...)
					s.took, s.sized = 10*time.Second, true
					s.fault = func(name string, n int) error {
						if n == 1 && name[len(name)-1] == '5' {
							return errors.New("slow down")
						}
						return nil
					}
					tr := on(t, s)
					for i := 0; i < 60; i += 3 {
						post(tr, "fetch "+names[i], "named "+names[i+1])
					}
					post(tr, "parts "+names[2]+" "+names[5]+" "+names[8], "nothing", "fetch missing", "wrong it")
					tr.Endpoint.Func = eventful()
					tr.Fault(workertest.Every(3, op, apply))
					cfg := worker.Config{Slots: 12, Receivers: 2, MaxAttempts: 100, MaxReceives: 1000, Opener: keeping{s}}
					run(t, tr, cfg, 150*time.Second)
					cfg.ExitWhenEmpty = true
					run(t, tr, cfg, 12*time.Hour)
					tr.Done(t)
					// Of those answered, the ones whose names end in 9 are not.
					if r, l := len(tr.Sink.Results()), len(tr.Queue.Letters()); r < 37 || l < 2 {
						t.Errorf("%d results and %d letters, want at least 37 and 2", r, l)
					}
				})
			})
		}
	}
}
