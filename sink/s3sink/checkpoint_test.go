package s3sink_test

import (
	"errors"
	"io/fs"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"upwell/sink"
	"upwell/sink/s3sink"
	"upwell/sink/s3sink/s3sim"
)

// Changes of one line that these tests have been seen to catch: no condition on the
// first write, or on later ones; a refused write is not looked at again; the version
// returned is the old one; a checkpoint that was removed is written anew.

// newSubmitter returns a sink in a new bucket whose writes have faults, by number.
func newSubmitter(t *testing.T, fault func(put int64) s3sim.Fault) *s3sink.Sink {
	t.Helper()
	var puts atomic.Int64
	sim := newSim(t, func(op, _, _ string) s3sim.Fault {
		if op != "PutObject" {
			return s3sim.Fault{}
		}
		return fault(puts.Add(1))
	})
	return newBucket(t, "http://s3.test", &http.Client{Transport: inProcess{sim}})
}

func at(queued int) sink.Checkpoint {
	return sink.Checkpoint{Run: "q3", Count: 100, Queued: queued, Begun: queued}
}

// TestCheckpoint has two processes write: the second one's first write stops the
// first one.
func TestCheckpoint(t *testing.T) {
	s := newSubmitter(t, func(int64) s3sim.Fault { return s3sim.Fault{} })
	if _, _, err := s.Checkpoint(t.Context(), "q3"); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("Checkpoint of nothing = %v, want %v", err, fs.ErrNotExist)
	}
	put := func(queued int, version string) string {
		t.Helper()
		next, err := s.PutCheckpoint(t.Context(), at(queued), version)
		if err != nil || next == "" || next == version {
			t.Fatalf("PutCheckpoint(%d, %q) = %q, %v, want another version", queued, version, next, err)
		}
		return next
	}
	first := put(1, "")
	if _, err := s.PutCheckpoint(t.Context(), at(2), ""); !errors.Is(err, s3sink.ErrOvertaken) {
		t.Errorf("PutCheckpoint where there is one = %v, want %v", err, s3sink.ErrOvertaken)
	}
	first = put(10, first)
	c, second, err := s.Checkpoint(t.Context(), "q3")
	if err != nil || c.Queued != 10 || second != first {
		t.Errorf("Checkpoint = %+v, %q, %v, want 10 queued and %q", c, second, err, first)
	}
	second = put(20, second)
	if _, err := s.PutCheckpoint(t.Context(), at(30), first); !errors.Is(err, s3sink.ErrOvertaken) || !strings.Contains(err.Error(), "team a+b/runs/q3/checkpoint.json") {
		t.Errorf("PutCheckpoint after somebody else's = %v, want %v, and where", err, s3sink.ErrOvertaken)
	}
	put(30, second)
	if c, _, err := s.Checkpoint(t.Context(), "q3"); err != nil || c.Queued != 30 {
		t.Errorf("Checkpoint = %+v, %v, want 30 queued", c, err)
	}
}

func TestCheckpointAnswers(t *testing.T) {
	for _, tt := range []struct {
		name  string
		fault s3sim.Fault
		err   string // part of it, or empty
	}{
		{"in trouble", s3sim.Fault{Status: 503, Code: "SlowDown"}, ""},
		{"answer lost", s3sim.Fault{Apply: true, Status: 500, Code: "InternalError"}, ""},
		{"connection lost", s3sim.Fault{Apply: true, Drop: true}, ""},
		{"a conflict", s3sim.Fault{Status: 409, Code: "ConditionalRequestConflict"}, ""},
		{"a conflict with itself", s3sim.Fault{Apply: true, Status: 409, Code: "ConditionalRequestConflict"}, ""},
		{"removed", s3sim.Fault{Status: 404, Code: "NoSuchKey"}, s3sink.ErrOvertaken.Error()},
		{"no bucket", s3sim.Fault{Status: 404, Code: "NoSuchBucket"}, "no such bucket"},
		{"not allowed", s3sim.Fault{Status: 403, Code: "AccessDenied"}, "allow s3:PutObject"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSubmitter(t, func(put int64) s3sim.Fault {
					if put == 2 {
						return tt.fault
					}
					return s3sim.Fault{}
				})
				version, err := s.PutCheckpoint(t.Context(), at(1), "")
				if err == nil {
					version, err = s.PutCheckpoint(t.Context(), at(2), version)
				}
				if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("PutCheckpoint = %v, want an error with %q", err, tt.err)
				}
				if err == nil {
					if _, err := s.PutCheckpoint(t.Context(), at(3), version); err != nil {
						t.Errorf("PutCheckpoint after it = %v, want nil", err)
					}
				}
			})
		})
	}
}

// TestCheckpointRefused has a write refused because of another's, which is gone when
// it is looked at.
func TestCheckpointRefused(t *testing.T) {
	s := newSubmitter(t, func(int64) s3sim.Fault { return s3sim.Fault{Status: 412, Code: "PreconditionFailed"} })
	if v, err := s.PutCheckpoint(t.Context(), at(1), ""); !errors.Is(err, s3sink.ErrOvertaken) {
		t.Errorf("PutCheckpoint = %q, %v, want %v", v, err, s3sink.ErrOvertaken)
	}
}

func TestDamagedCheckpoint(t *testing.T) {
	s := newSubmitter(t, func(int64) s3sim.Fault { return s3sim.Fault{} })
	if _, err := s.PutCheckpoint(t.Context(), sink.Checkpoint{Run: "q3", Count: 1, Begun: 2}, ""); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Checkpoint(t.Context(), "q3"); err == nil || !strings.Contains(err.Error(), "runs/q3/checkpoint.json: decode checkpoint") {
		t.Errorf("Checkpoint = %v, want it to name what is damaged", err)
	}
}

// A job is stored as it is, and again by whoever does not know that it is.
func TestPutJob(t *testing.T) {
	const large = `{"custom_id":"contracts/msa 42+é.pdf","body":{ "input":"\u0001" }}`
	s := newSubmitter(t, func(int64) s3sim.Fault { return s3sim.Fault{} })
	const want = "s3://" + bucket + "/team a+b/runs/q3/bodies/ac/contracts%2Fmsa%2042%2B%C3%A9.pdf.json"
	for range 2 {
		if ref, err := s.PutJob(t.Context(), job, []byte(large)); ref != want || err != nil {
			t.Errorf("PutJob = %s, %v, want %s", ref, err, want)
		}
	}
	if got, err := s.Body(t.Context(), want); string(got) != large || err != nil {
		t.Errorf("Body = %q, %v, want the job", got, err)
	}
}
