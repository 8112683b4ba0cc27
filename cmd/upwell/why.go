package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"upwell/cmd/internal/health"
	"upwell/cmd/internal/progress"
	"upwell/worker"
)

// whyCmd asks a worker what holds it back.
type whyCmd struct {
	HTTP string `name:"http" default:"${http}" placeholder:"ADDR" env:"UPWELL_HTTP" help:"Address that the worker, the run or the demo serves its dashboard at; it says which when it starts. On one that asks for a token, that is taken from UPWELL_HTTP_TOKEN."`
	JSON bool   `name:"json" help:"Print JSON."`
}

// Help says what the shares are.
func (c *whyCmd) Help() string {
	return `Once a second a worker notes what keeps it from doing more: the account's quota, the tier's capacity, a limit of calls in flight, its own
slots, the queue, the store, a budget, a deadline, or nothing but an empty queue. The shares are of the last ten minutes, and of the whole time.`
}

// A reply is what a worker answers.
type reply struct {
	Verb    string    `json:"verb"`
	Run     string    `json:"run"`
	Started time.Time `json:"started"`

	Bound worker.Bound     `json:"bound"`
	Why   []progress.Share `json:"why"`
	Whole []progress.Share `json:"why_whole"`
	Error string           `json:"error"`
}

// Run asks.
func (c *whyCmd) Run(ctx context.Context, e env) error {
	if c.HTTP == off {
		return fail(exitUsage, errors.New("--http off serves nothing that could be asked: give the address of a worker that is watched"))
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	text, r, err := c.ask(ctx, e)
	switch {
	case err != nil:
		return fail(exitFailed, err)
	case c.JSON:
		_, err = fmt.Fprintln(e.stdout, strings.TrimSpace(string(text)))
		return err
	case len(r.Whole) == 0:
		_, err = fmt.Fprintln(e.stdout, "the worker has only just begun: ask again in a second")
		return err
	}
	fmt.Fprintf(e.stdout, "%s, at work since %s, at %s\n\n", clean(strings.TrimSpace("upwell "+r.Verb+" "+r.Run)), r.Started.Local().Format(time.DateTime), c.HTTP)
	if now := progress.Advice(r.Bound); r.Bound == "" {
		fmt.Fprintln(e.stdout, "right now: it is not at work any more")
	} else {
		fmt.Fprintf(e.stdout, "right now: %s\n  what would help: %s\n", now.What, now.Help)
	}
	fmt.Fprintln(e.stdout)
	if slices.Equal(r.Why, r.Whole) {
		fmt.Fprintln(e.stdout, "since it began it was held back by")
		printShares(e.stdout, r.Whole)
		return nil
	}
	fmt.Fprintln(e.stdout, "in the last ten minutes it was held back by")
	printShares(e.stdout, r.Why)
	fmt.Fprintln(e.stdout, "\nsince it began, by")
	printShares(e.stdout, r.Whole)
	return nil
}

// ask asks the worker, and returns its answer as it is as well.
func (c *whyCmd) ask(ctx context.Context, e env) (text []byte, r reply, err error) {
	status, text, err := health.Get(ctx, c.HTTP, "/api/why", e.getenv("UPWELL_HTTP_TOKEN"))
	if err != nil {
		return nil, r, err
	}
	err = json.Unmarshal(text, &r)
	switch {
	case status == http.StatusUnauthorized:
		err = errors.New("it asks for its token: set UPWELL_HTTP_TOKEN to the one that the worker has")
	case status != http.StatusOK && r.Error != "":
		err = errors.New(r.Error)
	case status != http.StatusOK || err != nil:
		err = fmt.Errorf("it answers %d, and not as a worker does", status)
	}
	return text, r, err
}

// printShares lists shares, the largest first, each with what would help.
func printShares(w io.Writer, shares []progress.Share) {
	for _, s := range shares {
		if s.Share < 0.005 {
			continue
		}
		fmt.Fprintf(w, "  %3.0f %%  %-10s  %s\n", 100*s.Share, s.Bound, s.What)
		if s.Share >= 0.1 && s.Bound != worker.BoundEmpty {
			fmt.Fprintf(w, "                     → %s\n", s.Help)
		}
	}
}

// heldBack words what has held the worker back over the whole time, in a line.
func (w *watching) heldBack() string {
	_, whole := w.meter.Why()
	var parts []string
	for _, s := range whole {
		if s.Share >= 0.05 {
			parts = append(parts, fmt.Sprintf("%s %.0f %%", s.Bound, 100*s.Share))
		}
	}
	if len(parts) == 0 {
		return "nothing"
	}
	return strings.Join(parts, ", ")
}

// outcomeOf words how a worker ended, for those who look at its page.
func outcomeOf(ctx context.Context, err error) string {
	switch {
	case errors.Is(err, worker.ErrParked):
		return "parked"
	case err != nil:
		return "failed"
	case ctx.Err() != nil:
		return "stopped"
	default:
		return "done"
	}
}
