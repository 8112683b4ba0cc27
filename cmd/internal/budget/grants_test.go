package budget_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"upwell/cmd/internal/budget"
	"upwell/jobs"
	"upwell/worker"
)

// TestOthersHoldTheMoney does not take the run for parked while another worker's calls,
// long as they are, may bring back what a call needs.
func TestOthersHoldTheMoney(t *testing.T) {
	budgeted(t, 10, func(t *testing.T, b *board, p *budget.Purse) {
		q, end2 := open(t, "v", b)
		defer end2()
		var settles []func(jobs.USD)
		for {
			s, err := p.Reserve(t.Context(), need(0.33))
			if err != nil {
				break
			}
			settles = append(settles, s)
		}
		if len(settles) != 30 {
			t.Fatalf("%d calls of 0.33 USD, want 30", len(settles))
		}
		for range 20 { // ten minutes
			if _, err := q.Reserve(t.Context(), need(0.33)); err == nil || errors.Is(err, worker.ErrParked) {
				t.Fatalf("Reserve = %v, want an error that passes", err)
			}
			if r := b.look(); r.Parked != nil {
				t.Fatalf("the board says %+v, want that the run is not parked", r)
			}
			<-time.After(30 * time.Second)
		}
		for _, s := range settles {
			s(0.001)
		}
		<-time.After(time.Minute)
		settle, err := q.Reserve(t.Context(), need(0.33))
		if err != nil {
			t.Fatalf("Reserve = %v when the calls have ended, want money", err)
		}
		settle(0)
	})
}

// TestSpareOfALongCall keeps what mending an answer takes for as long as the call goes
// on, and nothing else.
func TestSpareOfALongCall(t *testing.T) {
	budgeted(t, 10, func(t *testing.T, b *board, p *budget.Purse) {
		q, end2 := open(t, "v", b)
		defer end2()
		settle := reserve(t, p, worker.Need{Run: "r", MostUSD: 0.2, SpareUSD: 0.6})
		<-time.After(2 * time.Minute)
		if got := b.look().granted(); got < 0.8-1e-9 || got > 0.8+1e-9 {
			t.Errorf("%v USD are granted two minutes into a call, want its 0.2 and the 0.6 for mending", got)
		}
		for {
			s, err := q.Reserve(t.Context(), need(0.1))
			if err != nil {
				break
			}
			s(0.1)
		}
		settle(0.2)
		settle, err := p.Reserve(t.Context(), worker.Need{Run: "r", MostUSD: 0.6, Owing: true})
		if err != nil {
			t.Fatalf("Reserve for who owes = %v, want the money that was kept", err)
		}
		settle(0.6)
	})
}

// TestKilled says what a worker that was killed has set aside, and settles it for who
// knows that it is dead.
func TestKilled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &board{t: t}
		b.set(10)
		l := &line{board: b}
		dead, end := open(t, "dead", l)
		for range 5 {
			if _, err := dead.Reserve(t.Context(), need(1)); err != nil {
				t.Fatal(err)
			}
		}
		l.kill()
		end()
		stranded := b.look().granted()
		s, err := budget.Look(t.Context(), b)
		if err != nil || s.SilentUSD != 0 {
			t.Errorf("Look = %+v, %v just after the kill, want nobody taken for silent", s, err)
		}
		<-time.After(3 * time.Hour)
		s, err = budget.Look(t.Context(), b)
		if err != nil || float64(s.SilentUSD) != stranded || !strings.Contains(s.String(), "they may have been killed") {
			t.Errorf("Look = %v, %v, want that %v USD are for who may have been killed", s, err, stranded)
		}
		p, stop := open(t, "w", b)
		defer stop()
		_, err = p.Reserve(t.Context(), need(8))
		if !errors.Is(err, worker.ErrParked) || !strings.Contains(err.Error(), "may have been killed") || !strings.Contains(err.Error(), "3h0m") {
			t.Errorf("Reserve = %v, want that the run is parked, and since when nothing was heard of the other", err)
		}
		lost, err := budget.Settle(t.Context(), b)
		if r := b.look(); err != nil || float64(lost) != stranded || r.granted() != 0 || r.Spent != stranded || r.Presumed != stranded {
			t.Errorf("Settle = %v, %v, and the board says %+v, want all %v USD spent", lost, err, r, stranded)
		}
		if lost, err = budget.Settle(t.Context(), b); err != nil || lost != 0 {
			t.Errorf("Settle = %v, %v when there is nothing, want neither", lost, err)
		}
	})
}

// A denial is an answer that the permission is missing.
type denial struct{}

func (denial) Error() string       { return "s3 get s3://b/state/budget/r.json: allow s3:GetObject" }
func (denial) HTTPStatusCode() int { return 403 }

// TestDenied has somebody look when a permission is missing, again and again.
func TestDenied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &board{t: t, fault: func(string) fault { return fault{err: denial{}} }}
		var log bytes.Buffer
		p := budget.New("w", func(string) budget.Board { return b }, slog.New(slog.NewTextHandler(&log, nil)))
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { p.Run(ctx) })
		for range 60 { // about a quarter of an hour
			if _, err := p.Reserve(t.Context(), need(1)); err == nil {
				t.Error("Reserve = nil, want an error")
			}
			<-time.After(10 * time.Second)
		}
		cancel()
		running.Wait()
		n := strings.Count(log.String(), "level=ERROR")
		if n < 10 || n > 17 || !strings.Contains(log.String(), "allow s3:GetObject") || strings.Contains(log.String(), "level=WARN") {
			t.Errorf("%d errors in a quarter of an hour, want about one a minute, with the permission:\n%s", n, log.String())
		}
	})
}

// A named board has a name.
type named struct{ *board }

func (named) String() string { return "s3://b/state/budget/r.json" }

// TestBadRecordIsNamed says which object is broken, and that workers must not write it
// meanwhile.
func TestBadRecordIsNamed(t *testing.T) {
	b := named{&board{t: t, text: `{"limit_usd":`}}
	for name, f := range map[string]func() error{
		"Look":   func() error { _, err := budget.Look(t.Context(), b); return err },
		"Set":    func() error { _, err := budget.Set(t.Context(), b, 1, free); return err },
		"Settle": func() error { _, err := budget.Settle(t.Context(), b); return err },
	} {
		if err := f(); err == nil || !strings.Contains(err.Error(), "s3://b/state/budget/r.json, is no good: stop the workers") {
			t.Errorf("%s = %v, want the object named, and what to do first", name, err)
		}
	}
}
