package s3sink_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"upwell/sink/s3sink"
	"upwell/sink/s3sink/s3sim"
)

// Changes of one line that these tests have been seen to catch: no condition on
// the first write, or on later ones; a version that is not the ETag; 409, or a
// 404 of the object, is an error; a 404 of the bucket is not; a refused write is
// not looked at again, or its absence an error; a Board of one name for all.

// newBoard returns a board in a new bucket.
func newBoard(t *testing.T, fault func(op, bucket, key string) s3sim.Fault) *s3sink.Board {
	t.Helper()
	sim := newSim(t, fault)
	return newBucket(t, "http://s3.test", &http.Client{Transport: inProcess{sim}}).Board("fleet")
}

// wantBoard checks what is on a board, and returns its version.
func wantBoard(t *testing.T, b *s3sink.Board, want string) (version string) {
	t.Helper()
	data, version, err := b.Read(t.Context())
	if string(data) != want || err != nil || (version == "") != (want == "") {
		t.Errorf("Read = %q, %q, %v, want %q", data, version, err, want)
	}
	return version
}

// write checks whether a write takes place.
func write(t *testing.T, b *s3sink.Board, data, version string, want bool) {
	t.Helper()
	if ok, err := b.Write(t.Context(), []byte(data), version); ok != want || err != nil {
		t.Errorf("Write(%q, %q) = %v, %v, want %v, nil", data, version, ok, err, want)
	}
}

func TestBoard(t *testing.T) {
	var keys sync.Map
	b := newBoard(t, func(op, _, key string) s3sim.Fault {
		if op == "PutObject" {
			keys.Store(key, true)
		}
		return s3sim.Fault{}
	})
	wantBoard(t, b, "")
	write(t, b, "one", "", true)
	write(t, b, "two", "", false)
	first := wantBoard(t, b, "one")
	write(t, b, "two", first, true)
	write(t, b, "three", first, false)
	write(t, b, "three", wantBoard(t, b, "two"), true)
	wantBoard(t, b, "three")
	keys.Range(func(key, _ any) bool {
		if key != "team a+b/state/fleet.json" {
			t.Errorf("written to %q, want team a+b/state/fleet.json", key)
		}
		return true
	})
}

func TestBoardAnswers(t *testing.T) {
	for _, tt := range []struct {
		name  string
		fault s3sim.Fault
		done  bool
		err   string // part of it, or empty
	}{
		{"another was first", s3sim.Fault{Status: 409, Code: "ConditionalRequestConflict"}, false, ""},
		{"removed", s3sim.Fault{Status: 404, Code: "NoSuchKey"}, false, ""},
		{"no bucket", s3sim.Fault{Status: 404, Code: "NoSuchBucket"}, false, "no such bucket"},
		{"not allowed", s3sim.Fault{Status: 403, Code: "AccessDenied"}, false, "team a+b/state/*"},
		{"answer lost", s3sim.Fault{Apply: true, Status: 500, Code: "InternalError"}, true, ""},
		{"a conflict with itself", s3sim.Fault{Apply: true, Status: 409, Code: "ConditionalRequestConflict"}, true, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var puts atomic.Int64
				b := newBoard(t, func(op, _, _ string) s3sim.Fault {
					if op == "PutObject" && puts.Add(1) == 2 {
						return tt.fault
					}
					return s3sim.Fault{}
				})
				write(t, b, "one", "", true)
				ok, err := b.Write(t.Context(), []byte("two"), wantBoard(t, b, "one"))
				if ok != tt.done || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
					t.Errorf("Write = %v, %v, want %v and an error with %q", ok, err, tt.done, tt.err)
				}
			})
		})
	}
}

// TestBoardThatIsRemovedMeanwhile has a write refused because of another's, which
// is gone when it is looked at.
func TestBoardThatIsRemovedMeanwhile(t *testing.T) {
	var puts atomic.Int64
	b := newBoard(t, func(op, _, _ string) s3sim.Fault {
		if op == "PutObject" && puts.Add(1) == 1 {
			return s3sim.Fault{Status: 412, Code: "PreconditionFailed"}
		}
		return s3sim.Fault{}
	})
	write(t, b, "one", "", false)
	write(t, b, "one", wantBoard(t, b, ""), true)
}

// TestBoardKeepsWhatEverybodyWrote has many add their line at once, some of whose
// answers are lost.
func TestBoardKeepsWhatEverybodyWrote(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var puts atomic.Int64
		b := newBoard(t, func(op, _, _ string) s3sim.Fault {
			if op == "PutObject" && puts.Add(1)%5 == 0 {
				return s3sim.Fault{Apply: true, Drop: true}
			}
			return s3sim.Fault{}
		})
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() { add(t, b, fmt.Sprintf("worker %d\n", i)) })
		}
		wg.Wait()
		data, _, err := b.Read(t.Context())
		lines := slices.Sorted(strings.Lines(string(data)))
		if err != nil || len(lines) != 8 || len(slices.Compact(lines)) != 8 {
			t.Errorf("the board has %q, %v, want 8 lines, each once", data, err)
		}
	})
}

// add adds a line to the board unless it is there.
func add(t *testing.T, b *s3sink.Board, line string) {
	t.Helper()
	for range 100 {
		data, version, err := b.Read(t.Context())
		if err != nil {
			t.Error(err)
			return
		}
		if strings.Contains(string(data), line) {
			return
		}
		if ok, err := b.Write(t.Context(), append(data, line...), version); ok || err != nil {
			if err != nil {
				t.Error(err)
			}
			return
		}
	}
	t.Errorf("%q was never written", line)
}
