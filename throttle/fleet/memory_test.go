package fleet_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"upwell/throttle"
	"upwell/throttle/fleet"
)

// Changes of one line that these tests have been seen to catch:
//
//   - Recall: an error if nothing was left
//   - Keep: no last time
//   - keep: writes nothing; other lanes are lost; no second try, or tries for ever

// known is a set that has found out a level of one lane and its quota.
func known(rate float64) *throttle.Set {
	set := throttle.NewSet(func(throttle.Lane) throttle.Config {
		return throttle.Config{Level: throttle.Level{Rate: rate, Tokens: 1000, Weight: 0.25}}
	})
	set.Limiter(lane)
	return set
}

// keep runs Keep, and returns how to end it.
func keep(t *testing.T, b fleet.Board, set *throttle.Set, log *slog.Logger) (end func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		fleet.Keep(ctx, b, set, log)
	}()
	return func() {
		cancel()
		<-done
	}
}

func TestKeepAndRecall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &board{}
		if got, err := fleet.Recall(t.Context(), b); len(got) != 0 || err != nil {
			t.Errorf("Recall of nothing = %v, %v, want nothing", got, err)
		}
		end := keep(t, b, throttle.NewSet(nil), slog.Default())
		time.Sleep(time.Hour)
		end()
		if n := b.tries(); n != 0 {
			t.Errorf("%d writes of a set that knows nothing, want none", n)
		}
		east, err := json.Marshal(map[string]any{"lanes": map[throttle.Lane]throttle.Level{other: {Rate: 3}, lane: {Rate: 1}}})
		if err != nil {
			t.Fatal(err)
		}
		b.set(string(east))
		set := known(8)
		end = keep(t, b, set, slog.Default())
		time.Sleep(time.Minute - 1)
		if n := b.tries(); n != 0 {
			t.Errorf("%d writes before a minute is over, want none", n)
		}
		time.Sleep(time.Second)
		quota := throttle.Lane{Region: lane.Region, Model: lane.Model}
		level := throttle.Level{Rate: 8, Tokens: 1000, Weight: 0.25}
		want := map[throttle.Lane]throttle.Level{other: {Rate: 3}, lane: level, quota: level}
		if got, err := fleet.Recall(t.Context(), b); err != nil || !cmp.Equal(got, want) {
			t.Errorf("Recall = %+v, %v, want %+v", got, err, want)
		}
		time.Sleep(59*time.Minute + 30*time.Second)
		if n := b.tries(); n != 60 {
			t.Errorf("%d writes in an hour, want 60", n)
		}
		s := throttle.Share{Workers: 2, Rate: 50}
		set.Share(map[throttle.Lane]throttle.Share{lane: s, quota: s}, s)
		end()
		if got, err := fleet.Recall(t.Context(), b); err != nil || got[quota].Rate != 50 {
			t.Errorf("Recall after the end = %+v, %v, want 50/s", got, err)
		}
	})
}

func TestKeepWithFaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // somebody else writes in between
		b := &board{}
		b.before = func() {
			b.before = nil
			b.set(`{"lanes":{"us-east-1/m/default":{"rate":3}}}`)
		}
		keep(t, b, known(8), slog.Default())()
		if got, err := fleet.Recall(t.Context(), b); err != nil || got[other].Rate != 3 || got[lane].Rate != 8 {
			t.Errorf("Recall after a conflict = %+v, %v, want both", got, err)
		}
	})
	synctest.Test(t, func(t *testing.T) { // all the time
		b := &board{}
		b.before = func() { b.set(`{}`) }
		keep(t, b, known(8), slog.Default())()
		if n := b.tries(); n != 4 {
			t.Errorf("%d tries, want 4", n)
		}
	})
	synctest.Test(t, func(t *testing.T) { // what is there is no good
		b := &board{}
		b.set("no JSON")
		if got, err := fleet.Recall(t.Context(), b); err == nil {
			t.Errorf("Recall of no JSON = %v, nil, want an error", got)
		}
		keep(t, b, known(7), slog.Default())()
		if got, err := fleet.Recall(t.Context(), b); err != nil || got[lane].Rate != 7 {
			t.Errorf("Recall of what replaced it = %+v, %v, want 7/s", got, err)
		}
	})
	synctest.Test(t, func(t *testing.T) { // the board fails
		var said bytes.Buffer
		b := &board{fault: func(string) (bool, error) { return false, errors.New("slow down") }}
		end := keep(t, b, known(8), slog.New(slog.NewTextHandler(&said, nil)))
		if _, err := fleet.Recall(t.Context(), b); err == nil {
			t.Error("Recall of a board that fails = nil, want an error")
		}
		time.Sleep(150 * time.Second)
		end()
		if got := strings.Count(said.String(), "levels not kept"); got != 2 {
			t.Errorf("logged, want two warnings:\n%s", said.String())
		}
	})
	synctest.Test(t, func(t *testing.T) { // or takes for ever
		b := &board{took: time.Hour}
		end := keep(t, b, known(8), slog.Default())
		start := time.Now()
		end()
		if got := time.Since(start); got != 3*time.Second {
			t.Errorf("the last write took %v, want 3s at most", got)
		}
	})
}
