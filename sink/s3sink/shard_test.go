package s3sink_test

import (
	"crypto/sha256"
	"fmt"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"upwell/jobs"
	"upwell/sink"
	"upwell/sink/s3sink"
	"upwell/sink/s3sink/s3sim"
)

// Changes of one line that these tests have been seen to catch: a line deeper in
// a shard is taken for one; a folder of capitals is a shard; folder marks are
// yielded; only the first page is; strays are looked for in the shards; an error
// is not yielded.

// inShard returns n ids of a shard.
func inShard(shard byte, n int) (ids []string) {
	for i := 0; len(ids) < n; i++ {
		if id := fmt.Sprint("job ", i); sha256.Sum256([]byte(id))[0] == shard {
			ids = append(ids, id)
		}
	}
	return ids
}

func (s testBucket) line(t *testing.T, id string) {
	t.Helper()
	s.place(t, sink.Results.Key("", jobs.Key{Run: "q3", CustomID: id}))
}

// place makes an object of one byte by hand, which takes less time than a request.
func (s testBucket) place(t *testing.T, key string) {
	t.Helper()
	name := filepath.Join(s.dir, root, key)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
}

// What is no line, or is not in its place, as shard 80 is that of msa-0042.
var (
	misplaced = []string{"80/_SUCCESS", "80/deeper/80/msa-0042.json", "80/msa%2D0042.json", "80/job.json", "80/msa-0042"}
	beside    = []string{"_SUCCESS", "msa-0042.json", "800/msa-0042.json", "8/0/msa-0042.json", "old/80/msa-0042.json", "AB/msa-0042.json"}
	marks     = []string{"", "80/", "old/"}
)

// clutter stores what should not be among a run's lines.
func (s testBucket) clutter(t *testing.T) {
	t.Helper()
	for _, name := range slices.Concat(misplaced, beside, marks) {
		body := []byte("x")
		if slices.Contains(marks, name) {
			body = nil
		}
		s.put(t, sink.Results.Prefix("", "q3")+name, body)
	}
	s.put(t, sink.Results.Prefix("", "q30")+"80/other", []byte("x"))
	s.put(t, sink.Errors.Prefix("", "q3")+"80/other", []byte("x"))
}

func TestListShard(t *testing.T) {
	s := newTestBucket(t, nil)
	s.clutter(t)
	long := strings.Repeat("long ", 99)
	ids := append(inShard(0x80, 1100), "msa-0042")
	for _, id := range append(inShard(0x81, 2), append(ids, long)...) {
		s.line(t, id)
	}
	got, strays, last := make(map[string]bool), make(map[string]bool), ""
	for o, err := range s.ListShard(t.Context(), "q3", sink.Results, 0x80) {
		if err != nil {
			t.Fatal(err)
		}
		if o.Path <= last || o.Size == 0 || o.Key.Run != "q3" {
			t.Errorf("%+v after %s, want it sorted by path, with run and size", o, last)
		}
		if last = o.Path; o.Whole {
			got[o.Key.CustomID] = true
		} else if o.Key.CustomID == "" {
			strays[strings.TrimPrefix(o.Path, root+sink.Results.Prefix("", "q3"))] = true
		}
	}
	slices.Sort(ids)
	if diff := cmp.Diff(ids, slices.Sorted(maps.Keys(got))); diff != "" {
		t.Errorf("lines (-want +got):\n%s", diff)
	}
	want := slices.Sorted(slices.Values(misplaced))
	if diff := cmp.Diff(want, slices.Sorted(maps.Keys(strays))); diff != "" {
		t.Errorf("strays (-want +got):\n%s", diff)
	}
}

func TestCutNamesInAShard(t *testing.T) {
	s := newTestBucket(t, nil)
	long := strings.Repeat("long ", 99)
	s.line(t, long)
	for o, err := range s.ListShard(t.Context(), "q3", sink.Results, sha256.Sum256([]byte(long))[0]) {
		if err != nil || o.Whole || !strings.HasPrefix(long, o.Key.CustomID) || o.Key.CustomID == "" || o.Path != s.Path(sink.Results, jobs.Key{Run: "q3", CustomID: long}) {
			t.Errorf("ListShard = %+v, %v, want the beginning of the long name", o, err)
		}
	}
}

func TestStrays(t *testing.T) {
	s := newTestBucket(t, nil)
	s.clutter(t)
	s.line(t, "msa-0042")
	want := slices.Clone(beside)
	for i := range 1100 { // more than a page of folders, and than a page in a folder
		want = append(want, fmt.Sprintf("zz/%04d.json", i), fmt.Sprintf("z%04d/msa-0042.json", i))
		for _, name := range want[len(want)-2:] {
			s.place(t, sink.Results.Prefix("", "q3")+name)
		}
	}
	var got []string
	for o, err := range s.Strays(t.Context(), "q3", sink.Results) {
		if err != nil || o.Whole || o.Key != (jobs.Key{Run: "q3"}) || o.Size != 1 {
			t.Fatalf("Strays yields %+v, %v, want no job", o, err)
		}
		got = append(got, strings.TrimPrefix(o.Path, root+sink.Results.Prefix("", "q3")))
	}
	slices.Sort(got)
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("strays (-want +got):\n%s", diff)
	}
}

func TestShards(t *testing.T) {
	s := newTestBucket(t, nil)
	s.clutter(t)
	for _, shard := range []byte{0x00, 0xab, 0xff} {
		s.line(t, inShard(shard, 1)[0])
	}
	got, err := s.Shards(t.Context(), "q3", sink.Results)
	if diff := cmp.Diff([]byte{0x00, 0x80, 0xab, 0xff}, got); err != nil || diff != "" {
		t.Errorf("Shards: %v; (-want +got):\n%s", err, diff)
	}
	if got, err := s.Shards(t.Context(), "none", sink.Results); len(got) != 0 || err != nil {
		t.Errorf("Shards of no run = %v, %v, want none", got, err)
	}
}

// TestShardListingsStop has each of them stop at its first object, and report
// trouble.
func TestShardListingsStop(t *testing.T) {
	deny := false
	s := newTestBucket(t, func(op, _, _ string) s3sim.Fault {
		if deny && op == "ListObjectsV2" {
			return s3sim.Fault{Status: 403, Code: "AccessDenied"}
		}
		return s3sim.Fault{}
	})
	s.clutter(t)
	objects := func() iter.Seq2[s3sink.Object, error] { return s.ListShard(t.Context(), "q3", sink.Results, 0x80) }
	strays := func() iter.Seq2[s3sink.Object, error] { return s.Strays(t.Context(), "q3", sink.Results) }
	for name, tt := range map[string]struct {
		list func() iter.Seq2[s3sink.Object, error]
		at   string
	}{"ListShard": {objects, "/80/"}, "Strays": {strays, "/results/"}, "Strays in a folder": {strays, "/old/"}} {
		if err := walk(tt.list(), tt.at); err != nil {
			t.Errorf("%s = %v, want nil", name, err)
		}
	}
	deny = true
	for name, list := range map[string]func() error{
		"ListShard": func() error { return walk(objects(), "none") },
		"Strays":    func() error { return walk(strays(), "none") },
		"Shards": func() error {
			_, err := s.Shards(t.Context(), "q3", sink.Results)
			return err
		},
	} {
		if err := list(); err == nil || !strings.Contains(err.Error(), "allow s3:ListBucket on bkt") {
			t.Errorf("%s = %v, want the permission it takes", name, err)
		}
	}
}

// walk goes through a listing up to an object whose path has part in it, or to the
// end, and returns the last error.
func walk(list iter.Seq2[s3sink.Object, error], part string) error {
	for o, err := range list {
		if err != nil || strings.Contains(o.Path, part) {
			return err
		}
	}
	return nil
}
