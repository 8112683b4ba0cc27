package s3sink_test

import (
	"errors"
	"io/fs"
	"strings"
	"testing"

	"upwell/jobs"
	"upwell/sink"
)

// TestRawLines reads the line that a job ended with, by its name and by a listing.
func TestRawLines(t *testing.T) {
	s := newBucket(t, "http://s3.test", inProcessClient(t))
	long, longer := strings.Repeat("é", 200), strings.Repeat("é", 201) // cut short in their names
	for _, id := range []string{"both", "answered", "failed", long, longer} {
		k := jobs.Key{Run: "q3", CustomID: id}
		r := result(id)
		r.CustomID = id
		if id == "both" || id == "answered" || id == longer {
			if _, err := s.Put(t.Context(), k, r); err != nil {
				t.Fatal(err)
			}
		}
		if id != "answered" {
			r.Error = &jobs.Error{Code: jobs.Expired, Message: "late"}
			if err := s.PutError(t.Context(), k, r); err != nil {
				t.Fatal(err)
			}
		}
	}
	want := map[string]sink.Kind{"both": sink.Results, "answered": sink.Results, "failed": sink.Errors, long: sink.Errors, longer: sink.Results}
	for id, kind := range want {
		k := jobs.Key{Run: "q3", CustomID: id}
		line, got, err := s.Settled(t.Context(), k)
		if err != nil || got != kind {
			t.Errorf("Settled(%.9s) is of %s, %v, want %s", id, got, err, kind)
		}
		again, err := s.ReadRaw(t.Context(), kind, k)
		r, decodeErr := sink.Decode(line)
		if err != nil || decodeErr != nil || r.CustomID != id || string(again) != string(line) {
			t.Errorf("ReadRaw(%.9s) = %s, %v, want %s", id, again, err, line)
		}
	}
	standing := make(map[string]sink.Kind)
	for _, kind := range []sink.Kind{sink.Results, sink.Errors} {
		for o, err := range s.List(t.Context(), "q3", kind) {
			if err != nil {
				t.Fatal(err)
			}
			line, err := s.ReadStanding(t.Context(), kind, o)
			if err != nil {
				t.Fatal(err)
			}
			if line == nil {
				continue
			}
			r, err := sink.Decode(line)
			if old, ok := standing[r.CustomID]; ok || err != nil {
				t.Errorf("%.9s stands in %s and %s, %v", r.CustomID, old, kind, err)
			}
			standing[r.CustomID] = kind
		}
	}
	for id, kind := range want {
		if standing[id] != kind {
			t.Errorf("%.9s stands in %q, want %s", id, standing[id], kind)
		}
	}
	if _, _, err := s.Settled(t.Context(), jobs.Key{Run: "q3", CustomID: "none"}); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "errors/") {
		t.Errorf("Settled of no job = %v, want one that says that it does not exist", err)
	}
}

// TestMisplaced lists lines in the place of another job's.
func TestMisplaced(t *testing.T) {
	s := newBucket(t, "http://s3.test", inProcessClient(t))
	long, longer := strings.Repeat("é", 200), strings.Repeat("é", 201) // their names begin alike
	for _, ids := range [][2]string{{"place", "other"}, {long, longer}} {
		r := result(ids[1])
		r.CustomID = ids[1]
		k := jobs.Key{Run: "q3", CustomID: ids[0]}
		if _, err := s.Put(t.Context(), k, r); err != nil {
			t.Fatal(err)
		}
		r.Error = &jobs.Error{Code: jobs.Expired, Message: "late"}
		if err := s.PutError(t.Context(), k, r); err != nil {
			t.Fatal(err)
		}
	}
	for _, kind := range []sink.Kind{sink.Results, sink.Errors} {
		n := 0
		for o, err := range s.List(t.Context(), "q3", kind) {
			if err != nil {
				t.Fatal(err)
			}
			if line, err := s.ReadStanding(t.Context(), kind, o); !errors.Is(err, sink.ErrLine) || !strings.Contains(err.Error(), o.Path) {
				t.Errorf("ReadStanding(%s) = %s, %v, want an error that names the object", o.Path, line, err)
			}
			n++
		}
		if n != 2 {
			t.Errorf("%d objects among the %s, want 2", n, kind)
		}
	}
}
