package account_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"maps"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"upwell/jobs"
	"upwell/sink"
	"upwell/sink/account"
	"upwell/sink/s3sink"
)

// Changes of one line that these tests have been seen to catch: an error line of
// an answered job counts as failed; the queue is counted last, or not compared; a
// cut name is taken by its hash alone, or never; ids that come twice are not
// noticed; strays are not read, or all of them; a shard without ids is not listed;
// examples are not cut, or not sorted; a line is not verified in one of its ways;
// an error of any of the store's methods is dropped; temporary files stay.

var _ account.Store = (*s3sink.Sink)(nil)

const run = "q3"

// A store is a run in memory.
type store struct {
	manifest *sink.Manifest
	ids      []string
	objects  map[string]jobs.Result // by path
	text     map[string]string      // what some objects have instead, by path
	errs     map[string]error       // of reading some objects, by path
	size     int64                  // of each line, in bytes
	took     time.Duration          // by each read
	huge     string                 // the object that has a GiB
	failing  string                 // the method that returns errBroken
	listed   func()                 // called before each listing

	reads           atomic.Int64
	listing, most   atomic.Int64 // shards at once, now and at most
	reading, widest atomic.Int64 // lines at once, now and at most
}

var errBroken = errors.New("the store is broken")

func (s *store) broken(method string) error {
	if s.failing == method {
		return errBroken
	}
	return nil
}

// Manifest implements [account.Store].
func (s *store) Manifest(context.Context, string) (sink.Manifest, error) {
	if s.manifest == nil {
		return sink.Manifest{}, fs.ErrNotExist
	}
	return *s.manifest, s.broken("Manifest")
}

// IDs implements [account.Store].
func (s *store) IDs(context.Context, sink.Manifest) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for _, id := range s.ids {
			if !yield(id, nil) {
				return
			}
		}
		if err := s.broken("IDs"); err != nil {
			yield("", err)
		}
	}
}

// Shards implements [account.Store].
func (s *store) Shards(_ context.Context, _ string, kind sink.Kind) ([]byte, error) {
	found := make(map[byte]bool)
	for path := range s.objects {
		var shard byte
		if rest, ok := strings.CutPrefix(path, kind.Prefix("", run)); ok && rest[2] == '/' {
			_, _ = fmt.Sscanf(rest, "%x", &shard)
			found[shard] = true
		}
	}
	return slices.Collect(maps.Keys(found)), s.broken("Shards")
}

// ListShard implements [account.Store].
func (s *store) ListShard(_ context.Context, _ string, kind sink.Kind, shard byte) iter.Seq2[sink.Object, error] {
	folder := fmt.Sprintf("%s%02x/", kind.Prefix("", run), shard)
	return s.list("ListShard", func(path string) bool { return strings.HasPrefix(path, folder) })
}

// Strays implements [account.Store].
func (s *store) Strays(_ context.Context, _ string, kind sink.Kind) iter.Seq2[sink.Object, error] {
	prefix := kind.Prefix("", run)
	return s.list("Strays", func(path string) bool { return strings.HasPrefix(path, prefix) && path[len(prefix)+2] != '/' })
}

func (s *store) list(method string, wanted func(string) bool) iter.Seq2[sink.Object, error] {
	return func(yield func(sink.Object, error) bool) {
		s.most.Store(max(s.most.Load(), s.listing.Add(1)))
		defer s.listing.Add(-1)
		if s.listed != nil {
			s.listed()
		}
		var paths []string
		for path := range s.objects {
			if wanted(path) {
				paths = append(paths, path)
			}
		}
		slices.Sort(paths)
		for _, path := range paths {
			id, whole := sink.ID(path)
			o := sink.Object{Key: jobs.Key{Run: run, CustomID: id}, Whole: whole, Path: path, Size: s.size}
			if text, ok := s.text[path]; ok {
				o.Size = int64(len(text))
			}
			if path == s.huge {
				o.Size = 1 << 30
			}
			if !yield(o, nil) {
				return
			}
		}
		if err := s.broken(method); err != nil {
			yield(sink.Object{}, err)
		}
	}
}

// ReadObject implements [account.Store].
func (s *store) ReadObject(_ context.Context, o sink.Object) (jobs.Result, error) {
	s.reads.Add(1)
	s.widest.Store(max(s.widest.Load(), s.reading.Add(1)))
	defer s.reading.Add(-1)
	time.Sleep(s.took)
	if err := s.errs[o.Path]; err != nil {
		return jobs.Result{}, err
	}
	if text, ok := s.text[o.Path]; ok {
		return sink.Decode([]byte(text))
	}
	return s.objects[o.Path], s.broken("ReadObject")
}

// Path implements [account.Store].
func (s *store) Path(kind sink.Kind, k jobs.Key) string { return kind.Key("", k) }

func path(kind sink.Kind, id string) string { return kind.Key("", jobs.Key{Run: run, CustomID: id}) }

func line(kind sink.Kind, id string) jobs.Result {
	r := jobs.Result{CustomID: id, Upwell: jobs.Record{Run: run}}
	if kind == sink.Errors {
		r.Error = &jobs.Error{Code: jobs.Refused}
		return r
	}
	r.Response = &jobs.Response{StatusCode: 200, Body: json.RawMessage("{}")}
	return r
}

// long is an id whose name is cut short, and twin one that is cut at the same
// place.
var (
	long = strings.Repeat("long ", 60)
	twin = strings.Repeat("long ", 70)
)

// newStore returns a run of 1,000 jobs and the long one, of which every tenth failed.
func newStore() *store {
	s := &store{manifest: &sink.Manifest{Run: run}, objects: make(map[string]jobs.Result), text: make(map[string]string), errs: make(map[string]error), size: 100}
	for i := range 1000 {
		s.ids = append(s.ids, fmt.Sprint("job ", i))
		if i%10 == 0 {
			s.add(sink.Errors, s.ids[i])
		} else {
			s.add(sink.Results, s.ids[i])
		}
	}
	s.ids = append(s.ids, long)
	s.add(sink.Results, long)
	return s
}

func (s *store) add(kind sink.Kind, id string) { s.objects[path(kind, id)] = line(kind, id) }

// check draws up the account, and verifies that nothing is left behind.
func check(t *testing.T, s *store, opts account.Options) (account.Report, error) {
	t.Helper()
	opts.Dir = t.TempDir()
	r, err := account.Check(t.Context(), s, run, opts)
	if left, _ := os.ReadDir(opts.Dir); len(left) > 0 {
		t.Errorf("%d files are left behind, want none", len(left))
	}
	return r, err
}

func TestBalanced(t *testing.T) {
	p := new(account.Progress)
	r, err := check(t, newStore(), account.Options{Read: true, Progress: p})
	want := account.Report{Run: run, Submitted: 1001, Answered: 901, Failed: 100, Read: 1001}
	if diff := cmp.Diff(want, r); err != nil || diff != "" || !r.Balanced() {
		t.Errorf("Check: %v; (-want +got):\n%s", err, diff)
	}
	if p.IDs.Load() != 1001 || p.Shards.Load() != 256 || p.Lines.Load() != 1001 {
		t.Errorf("progress %d, %d, %d, want 1001, 256, 1001", p.IDs.Load(), p.Shards.Load(), p.Lines.Load())
	}
}

// A defect is something that is wrong with a run, and the counts that show it:
// answered, failed, superseded, missing, double, unknown, damaged.
var defects = []struct {
	name    string
	plant   func(*store)
	want    string
	example account.Example
}{
	{"an error that is history", func(s *store) { s.add(sink.Errors, "job 7") }, "901 100 1 0 0 0 0", account.Example{CustomID: "job 7", Path: path(sink.Errors, "job 7")}},
	{"a failed job that was answered after all", func(s *store) { s.add(sink.Results, "job 10") }, "902 99 1 0 0 0 0", account.Example{CustomID: "job 10", Path: path(sink.Errors, "job 10")}},
	{"a result is gone", func(s *store) { delete(s.objects, path(sink.Results, "job 7")) }, "900 100 0 1 0 0 0", account.Example{CustomID: "job 7", Path: path(sink.Results, "job 7")}},
	{"a result with a cut name is gone", func(s *store) { delete(s.objects, path(sink.Results, long)) }, "900 100 0 1 0 0 0", account.Example{CustomID: long, Path: path(sink.Results, long)}},
	{"an error is gone", func(s *store) { delete(s.objects, path(sink.Errors, "job 10")) }, "901 99 0 1 0 0 0", account.Example{CustomID: "job 10", Path: path(sink.Results, "job 10")}},
	{"an id twice", func(s *store) { s.ids = append(s.ids, "job 7") }, "901 100 0 0 1 0 0", account.Example{CustomID: "job 7", Path: path(sink.Results, "job 7"), Note: "submitted twice"}},
	{"an id three times", func(s *store) { s.ids = append(s.ids, "job 7", "job 7") }, "901 100 0 0 2 0 0", account.Example{CustomID: "job 7", Path: path(sink.Results, "job 7"), Note: "submitted twice"}},
	{"a result of nobody", func(s *store) { s.add(sink.Results, "stranger") }, "901 100 0 0 0 1 0", account.Example{CustomID: "stranger", Path: path(sink.Results, "stranger"), Note: "never submitted"}},
	{"an error of nobody", func(s *store) { s.add(sink.Errors, "stranger") }, "901 100 0 0 0 1 0", account.Example{CustomID: "stranger", Path: path(sink.Errors, "stranger"), Note: "never submitted"}},
	{"a cut name of nobody", func(s *store) { s.add(sink.Results, twin) }, "901 100 0 0 0 1 0", account.Example{CustomID: cut(twin) + "…", Path: path(sink.Results, twin), Note: "never submitted"}},
	{"a copy in another shard", func(s *store) {
		s.objects[copied("00/job%207.json")] = line(sink.Results, "job 7")
	}, "901 100 0 0 1 0 0", account.Example{CustomID: "job 7", Path: copied("00/job%207.json"), Note: "not in its place, " + path(sink.Results, "job 7")}},
	{"a copy beside the shards", func(s *store) {
		s.objects[copied("backup/x.json")] = line(sink.Errors, "job 10")
	}, "901 100 0 0 1 0 0", account.Example{CustomID: "job 10", Path: copied("backup/x.json"), Note: "not in its place, " + path(sink.Errors, "job 10")}},
	{"a copy with the hash of a cut name", func(s *store) {
		s.objects[odd(long)] = line(sink.Results, long)
	}, "901 100 0 0 1 0 0", account.Example{CustomID: long, Path: odd(long), Note: "not in its place, " + path(sink.Results, long)}},
	{"a stray of nobody", func(s *store) {
		s.objects[copied("00/x.json")] = line(sink.Results, "stranger")
	}, "901 100 0 0 0 1 0", account.Example{CustomID: "stranger", Path: copied("00/x.json"), Note: "not the name of a line"}},
	{"a stray of another run", func(s *store) {
		r := line(sink.Results, "job 7")
		r.Upwell.Run = "q2"
		s.objects[copied("00/x.json")] = r
	}, "901 100 0 0 0 1 0", account.Example{CustomID: "job 7", Path: copied("00/x.json"), Note: "not the name of a line"}},
	{"a stray that is no line", func(s *store) {
		s.objects[copied("_SUCCESS")] = jobs.Result{}
		s.text[copied("_SUCCESS")] = "<"
	}, "901 100 0 0 0 1 0", account.Example{Path: copied("_SUCCESS"), Note: "not the name of a line"}},
}

// cut is what a name has of a long id.
func cut(id string) string {
	id, _ = sink.ID(path(sink.Results, id))
	return id
}

// copied is a path among the results.
func copied(name string) string { return sink.Results.Prefix("", run) + name }

// odd is a name with the hash of id that another id would have, if it had that
// hash.
func odd(id string) string {
	at := path(sink.Results, id)
	return strings.Replace(at, "long", "lang", 1)
}

func counts(r account.Report) string {
	return fmt.Sprint(r.Answered, r.Failed, r.Superseded.Count, r.Missing.Count, r.Double.Count, r.Unknown.Count, r.Damaged.Count)
}

func TestDefects(t *testing.T) {
	for _, tt := range defects {
		s := newStore()
		tt.plant(s)
		r, err := check(t, s, account.Options{})
		if got := counts(r); err != nil || got != tt.want {
			t.Errorf("%s: counts %s, %v, want %s", tt.name, got, err, tt.want)
		}
		all := slices.Concat(r.Superseded.Examples, r.Missing.Examples, r.Double.Examples, r.Unknown.Examples, r.Damaged.Examples)
		if len(all) == 0 || all[0] != tt.example {
			t.Errorf("%s: examples %+v, want %+v", tt.name, all, tt.example)
		}
		if bad := !strings.HasSuffix(tt.want, " 0 0 0 0"); r.Balanced() == bad {
			t.Errorf("%s: Balanced = %v, want %v", tt.name, r.Balanced(), !bad)
		}
		if sum := r.Answered + r.Failed + r.Missing.Count; sum != 1001 || r.Submitted != len(s.ids) {
			t.Errorf("%s: answered, failed and missing add up to %d of %d submitted, want 1001", tt.name, sum, r.Submitted)
		}
	}
}

func TestDamagedLines(t *testing.T) {
	job, failed := path(sink.Results, "job 7"), path(sink.Errors, "job 10")
	for name, plant := range map[string]func(*store){
		"it is not a line of JSON":     func(s *store) { s.text[job] = `{"a` },
		"it is not a line of JSON ":    func(s *store) { s.text[job] = `[]` },
		"it is not a line of JSON  ":   func(s *store) { s.text[job] = `{"upwell":{"finished":"today"}}` },
		"it is not a line of JSON   ":  func(s *store) { s.text[job] = `{"upwell":{"finished":5}}` },
		"it is not a line of JSON    ": func(s *store) { s.text[job] = "\n" },
		"it is empty":                  func(s *store) { s.text[job], s.errs[job] = "", errBroken },
		"it was removed meanwhile":     func(s *store) { s.errs[job] = fmt.Errorf("get: %w", fs.ErrNotExist) },
		`it is the line of "job 8"`:    func(s *store) { s.objects[job] = line(sink.Results, "job 8") },
		`it is of run "q2"`:            func(s *store) { r := line(sink.Results, "job 7"); r.Upwell.Run = "q2"; s.objects[job] = r },
		"it has no answer":             func(s *store) { r := line(sink.Results, "job 7"); r.Response.Body = nil; s.objects[job] = r },
		"it has no answer ":            func(s *store) { s.objects[job] = line(sink.Errors, "job 7") },
		"it has no answer  ": func(s *store) {
			r := line(sink.Results, "job 7")
			r.Error = &jobs.Error{Code: jobs.Refused}
			s.objects[job] = r
		},
		"it has no error": func(s *store) { s.objects[failed] = line(sink.Results, "job 10") },
	} {
		s := newStore()
		plant(s)
		r, err := check(t, s, account.Options{Read: true})
		if got, want := counts(r), "901 100 0 0 0 0 1"; err != nil || got != want || r.Balanced() {
			t.Errorf("%s: counts %s, %v, want %s and no balance", name, got, err, want)
			continue
		}
		if e := r.Damaged.Examples[0]; e.Note != strings.TrimSpace(name) || e.Path != job && e.Path != failed || !strings.HasPrefix(e.CustomID, "job ") {
			t.Errorf("example %+v, want that %s", e, name)
		}
		if r, err := check(t, s, account.Options{}); err != nil || !r.Balanced() || r.Read != 0 {
			t.Errorf("%s: %d lines read, %v, want none unless asked for", name, r.Read, err)
		}
	}
}

func TestQueue(t *testing.T) {
	for _, tt := range []struct {
		queued   int
		want     string // missing and still queued
		balanced bool
	}{{0, "3 0", false}, {2, "3 0", false}, {3, "0 3", true}, {90, "0 3", true}} {
		s := newStore()
		s.ids = append(s.ids, "a", "b", "c")
		r, err := check(t, s, account.Options{Queued: func(context.Context) (int, error) { return tt.queued, nil }})
		got := fmt.Sprint(r.Missing.Count, r.StillQueued.Count)
		if err != nil || got != tt.want || r.Balanced() != tt.balanced || *r.Queue != tt.queued {
			t.Errorf("with %d in the queue: %s, %v, balanced %v, want %s and %v", tt.queued, got, err, r.Balanced(), tt.want, tt.balanced)
		}
	}
	broken := func(context.Context) (int, error) { return 0, errBroken }
	if _, err := check(t, newStore(), account.Options{Queued: broken}); !errors.Is(err, errBroken) {
		t.Errorf("Check = %v, want %v", err, errBroken)
	}
}

// TestAnswersMeanwhile has a job answered between two looks: it must be seen in
// one of them.
func TestAnswersMeanwhile(t *testing.T) {
	s := newStore()
	delete(s.objects, path(sink.Results, "job 7"))
	listed := false
	s.listed = func() { listed = true }
	r, err := check(t, s, account.Options{Parallel: 1, Queued: func(context.Context) (int, error) {
		if listed {
			return 0, nil // it has been answered
		}
		return 1, nil
	}})
	if err != nil || !r.Balanced() {
		t.Errorf("Check = %+v, %v, want a balance", r, err)
	}
}

func TestIDsFromElsewhere(t *testing.T) {
	s := newStore()
	ids := s.ids
	s.manifest, s.ids = nil, nil
	if _, err := check(t, s, account.Options{}); !errors.Is(err, sink.ErrNoIndex) {
		t.Errorf("Check without a manifest = %v, want %v", err, sink.ErrNoIndex)
	}
	given := func(yield func(string, error) bool) {
		for _, id := range ids {
			if !yield(id, nil) {
				return
			}
		}
	}
	if r, err := check(t, s, account.Options{IDs: given}); err != nil || !r.Balanced() || r.Submitted != 1001 {
		t.Errorf("Check = %+v, %v, want a balance of 1001", r, err)
	}
}

func TestStoreThatBreaks(t *testing.T) {
	for _, method := range []string{"Manifest", "IDs", "Shards", "ListShard", "Strays", "ReadObject"} {
		s := newStore()
		s.failing = method
		if r, err := check(t, s, account.Options{Read: true}); !errors.Is(err, errBroken) {
			t.Errorf("Check with a broken %s = %+v, %v, want %v", method, r, err, errBroken)
		}
	}
	s := newStore()
	s.failing = "ReadObject"
	s.objects[copied("00/x.json")] = jobs.Result{}
	if _, err := check(t, s, account.Options{}); !errors.Is(err, errBroken) {
		t.Errorf("Check with a stray that cannot be read = %v, want %v", err, errBroken)
	}
}

func TestInterrupted(t *testing.T) {
	s := newStore()
	ctx, cancel := context.WithCancelCause(t.Context())
	s.listed = func() { cancel(errBroken) }
	if _, err := account.Check(ctx, s, run, account.Options{Dir: t.TempDir(), Read: true}); !errors.Is(err, errBroken) {
		t.Errorf("Check = %v, want the cause", err)
	}
	if _, err := account.Check(ctx, newStore(), run, account.Options{Dir: t.TempDir()}); !errors.Is(err, errBroken) {
		t.Errorf("Check = %v, want the cause", err)
	}
}

// TestExamplesAreTheFirst looks at what is kept of many findings, whatever order
// they come in.
func TestExamplesAreTheFirst(t *testing.T) {
	var first []account.Example
	for range 5 {
		s := newStore()
		for i := range 300 {
			s.add(sink.Results, fmt.Sprint("stranger ", i))
			s.ids = append(s.ids, fmt.Sprint("lost ", i))
		}
		for i := range 1500 {
			s.objects[copied(fmt.Sprintf("zzz/%04d", i))] = jobs.Result{}
		}
		r, err := check(t, s, account.Options{})
		if got, want := counts(r), "901 100 0 300 0 1800 0"; err != nil || got != want {
			t.Fatalf("counts %s, %v, want %s", got, err, want)
		}
		if n := s.reads.Load(); n != 1000 {
			t.Errorf("%d strays were read, want the first 1000", n)
		}
		if !slices.IsSortedFunc(r.Unknown.Examples, func(a, b account.Example) int { return strings.Compare(a.Path, b.Path) }) {
			t.Errorf("examples are not in the order of their paths: %+v", r.Unknown.Examples)
		}
		all := slices.Concat(r.Missing.Examples, r.Unknown.Examples)
		if first == nil {
			first = all
		}
		if diff := cmp.Diff(first, all); len(all) != 40 || diff != "" {
			t.Errorf("%d examples, other ones than before (-before +now):\n%s", len(all), diff)
		}
	}
}

func TestParallel(t *testing.T) {
	s := newStore()
	if _, err := check(t, s, account.Options{Parallel: 1}); err != nil || s.most.Load() != 1 {
		t.Errorf("%d shards were listed at once (%v), want 1", s.most.Load(), err)
	}
}

// TestReadsAreBounded has lines of which two fill what may be in memory.
func TestReadsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore()
		s.size, s.took = 32<<20, time.Millisecond
		r, err := check(t, s, account.Options{Read: true})
		if err != nil || r.Read != 1001 || s.widest.Load() != 2 {
			t.Errorf("%d lines were read, %d at once (%v), want 1001, 2 at once", r.Read, s.widest.Load(), err)
		}
	})
}

func TestShardsOfStrangersOnly(t *testing.T) {
	s := newStore()
	s.ids = s.ids[:0]
	if r, err := check(t, s, account.Options{}); err != nil || r.Unknown.Count != 1001 {
		t.Errorf("Check = %+v, %v, want 1001 unknown", r, err)
	}
}

// TestHugeObjectsAreNotRead has a line, and a stray, that are larger than any.
func TestHugeObjectsAreNotRead(t *testing.T) {
	for _, p := range []string{path(sink.Results, "job 7"), copied("00/x.json")} {
		s := newStore()
		s.objects[p], s.errs[p], s.huge = line(sink.Results, "job 7"), errBroken, p
		r, err := check(t, s, account.Options{Read: true})
		if err != nil || r.Damaged.Count+r.Unknown.Count != 1 {
			t.Errorf("%s: counts %s, %v, want it to be damaged or unknown", p, counts(r), err)
		}
	}
}
