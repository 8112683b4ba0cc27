package sink_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"upwell/sink"
)

// Changes of one line that these tests have been seen to catch: what may be queued is
// taken for queued, or for never sent; doubts that are being sent are forgotten, or
// come first; a checkpoint that skips jobs is taken.

var (
	noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	one  = sink.Doubt{From: 10, To: 20}
)

func checkpoint(queued, begun int, doubts ...sink.Doubt) sink.Checkpoint {
	return sink.Checkpoint{Version: sink.Version, Run: "q3", InputSHA256: "00ff", Count: 100, By: "me", Updated: noon, Queued: queued, Begun: begun, Doubts: doubts}
}

func TestCheckpoint(t *testing.T) {
	want := checkpoint(40, 60, one)
	in := want
	in.Version = 0
	b, err := in.Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := sink.DecodeCheckpoint(b)
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("DecodeCheckpoint: %v; (-want +got):\n%s", err, diff)
	}
	if s := string(b); strings.Contains(s, "complete") {
		t.Errorf("Encode = %s, want nothing of an end", s)
	}
}

func TestResumed(t *testing.T) {
	for _, tt := range []struct {
		name      string
		from, now sink.Checkpoint
	}{
		{"nothing sent", checkpoint(0, 0), checkpoint(0, 0)},
		{"the first sent", checkpoint(0, 5), checkpoint(5, 5, sink.Doubt{From: 0, To: 5})},
		{"exact", checkpoint(40, 40, one), checkpoint(40, 40, one)},
		{"killed again", checkpoint(40, 60, one), checkpoint(60, 60, one, sink.Doubt{From: 40, To: 60})},
	} {
		if diff := cmp.Diff(tt.now, tt.from.Resumed()); diff != "" {
			t.Errorf("%s: Resumed (-want +got):\n%s", tt.name, diff)
		}
	}
}

// TestDealt deals with two doubts of ten and five jobs.
func TestDealt(t *testing.T) {
	two := sink.Doubt{From: 30, To: 35}
	for _, tt := range []struct {
		queued, begun int
		want          []sink.Doubt
	}{
		{0, 0, []sink.Doubt{one, two}},
		{0, 1, []sink.Doubt{{From: 11, To: 20}, two, {From: 10, To: 11}}},
		{1, 1, []sink.Doubt{{From: 11, To: 20}, two}},
		{2, 12, []sink.Doubt{{From: 32, To: 35}, {From: 12, To: 20}, {From: 30, To: 32}}},
		{10, 10, []sink.Doubt{two}},
		{10, 12, []sink.Doubt{{From: 32, To: 35}, {From: 30, To: 32}}},
		{12, 15, []sink.Doubt{{From: 32, To: 35}}},
		{15, 15, nil},
	} {
		before := checkpoint(40, 40, one, two)
		c := before.Dealt(tt.queued, tt.begun)
		if diff := cmp.Diff(tt.want, c.Doubts); diff != "" || c.Doubtful() != 15-tt.queued || c.Queued != 40 {
			t.Errorf("Dealt(%d, %d): %d doubtful of %d queued (-want +got):\n%s", tt.queued, tt.begun, c.Doubtful(), c.Queued, diff)
		}
		if diff := cmp.Diff([]sink.Doubt{one, two}, before.Doubts); diff != "" {
			t.Errorf("Dealt(%d, %d) has changed what it was called on (-want +got):\n%s", tt.queued, tt.begun, diff)
		}
	}
}

func TestDamagedCheckpoint(t *testing.T) {
	for _, s := range []string{
		``, `{`, `{"run":"q3"}`, `{"version":2,"count":9}`,
		`{"version":1,"count":9,"queued":-1,"begun":3}`,
		`{"version":1,"count":9,"queued":4,"begun":3}`,
		`{"version":1,"count":9,"queued":4,"begun":10}`,
		`{"version":1,"count":9,"queued":4,"begun":4,"doubts":[{"from":2,"to":5}]}`,
		`{"version":1,"count":9,"queued":4,"begun":4,"doubts":[{"from":2,"to":2}]}`,
		`{"version":1,"count":9,"queued":4,"begun":4,"doubts":[{"from":-1,"to":3}]}`,
	} {
		if c, err := sink.DecodeCheckpoint([]byte(s)); err == nil {
			t.Errorf("DecodeCheckpoint(%s) = %+v, want an error", s, c)
		}
	}
	if _, err := sink.DecodeCheckpoint([]byte(`{"version":1,"count":9,"queued":4,"begun":9,"doubts":[{"from":2,"to":4},{"from":0,"to":1}]}`)); err != nil {
		t.Errorf("DecodeCheckpoint of a good one = %v, want nil", err)
	}
}
