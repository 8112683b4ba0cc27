package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"upwell/cmd/internal/progress"
)

// watch looks again and again until the run is done.
func (c *statusCmd) watch(ctx context.Context, e env, look func() (statusReport, error)) error {
	screen := progress.NewConsole(e.stdout, toTerminal(e), e.getenv)
	live := screen.Mode == progress.Block && !c.JSON && !c.Quiet
	for {
		r, err := look()
		switch {
		case ctx.Err() != nil:
			return c.unwatched(screen)
		case err != nil:
			screen.End()
			return err
		}
		switch done := r.Left <= 0 && !r.mayBeBack(); {
		case done && live:
			screen.Draw(r.sheet())
			screen.End()
			return r.outcome()
		case done:
			if err := c.print(e, r); err != nil {
				return err
			}
			return r.outcome()
		case c.JSON && !c.Quiet:
			err = c.print(e, r)
		case !live && !c.Quiet:
			_, err = fmt.Fprintln(e.stdout, time.Now().Format(time.TimeOnly), r.line())
		}
		if err != nil {
			return err
		}
		if !c.wait(ctx, func() {
			if live {
				screen.Draw(r.sheet())
			}
		}) {
			return c.unwatched(screen)
		}
	}
}

// wait waits until it is time for the next look, and has what there is drawn meanwhile:
// the terminal may change its size. It reports whether ctx is not done.
func (c *statusCmd) wait(ctx context.Context, draw func()) bool {
	t := time.NewTicker(time.Second)
	defer t.Stop()
	over := time.After(c.Every)
	for {
		draw()
		select {
		case <-ctx.Done():
			return false
		case <-over:
			return true
		case <-t.C:
		}
	}
}

// unwatched says what an interrupt does.
func (c *statusCmd) unwatched(screen *progress.Console) error {
	screen.End()
	return fail(exitInterrupted, fmt.Errorf("interrupted: only the watching ends, and the run goes on; watch it again with upwell status %s --watch", c.RunName))
}

// sheet is what is drawn on a terminal.
func (r *statusReport) sheet() progress.Sheet {
	s := progress.Sheet{Title: r.title(), Done: int64(r.Answered + r.Failed), Total: int64(r.Submitted), Rows: r.rows()}
	switch {
	case r.Left <= 0:
	case s.Total > 0:
		s.Next = r.eta()
	default:
		s.Rows = append(s.Rows, progress.Row{Name: "ETA", Value: strings.TrimPrefix(r.eta(), "ETA ")})
	}
	return s
}

// eta words how long what is left will take.
func (r *statusReport) eta() string {
	if r.parked() {
		return "ETA unknown: parked"
	}
	return r.ETA.String()
}

// parked reports whether the run waits for money.
func (r *statusReport) parked() bool { return r.Budget != nil && r.Budget.ParkedSince != nil }

// line words the report for one line.
func (r *statusReport) line() string {
	parts := []string{fmt.Sprintf("%d answered", r.Answered)}
	if r.Submitted > 0 {
		parts[0] = fmt.Sprintf("%d/%d (%d%%)", r.Answered+r.Failed, r.Submitted, 100*(r.Answered+r.Failed)/r.Submitted)
	}
	parts = append(parts, fmt.Sprintf("%.1f/s", r.PerSecond))
	if r.Failed > 0 {
		var classes []string
		for _, class := range slices.Sorted(maps.Keys(r.Classes)) {
			classes = append(classes, fmt.Sprintf("%s: %d", class, r.Classes[class]))
		}
		parts = append(parts, fmt.Sprintf("%d failed (%s)", r.Failed, strings.Join(classes, ", ")))
	}
	if q := r.Queue; q != nil {
		parts = append(parts, fmt.Sprintf("queue %d waiting, %d in flight", q.Visible, q.Hidden))
	}
	parts = append(parts, progress.Tokens(r.Usage.InputTokens+r.Usage.OutputTokens)+" tokens", r.Cost.String())
	if r.Budget != nil {
		parts = append(parts, "budget "+r.Budget.String())
	}
	if r.Left > 0 {
		parts = append(parts, r.eta())
	}
	return clean(strings.Join(parts, " · "))
}
