package main

import (
	"context"
	"fmt"
	"sync"
	"time"
)

const (
	// statusWidth is how wide a line that showing writes may be, in characters, and
	// showEvery how often it does.
	statusWidth = 70
	showEvery   = 200 * time.Millisecond

	// logEvery is how often reporting writes to a log.
	logEvery = 10 * time.Second
)

// showing shows a line on a terminal, five times a second, until it is told to stop.
// Nothing else may be written to standard error meanwhile. Elsewhere it shows nothing.
func showing(e env, text func() string) (stop func()) {
	if !e.terminal {
		return func() {}
	}
	end := ticking(showEvery, func() { fmt.Fprintf(e.stderr, "\r%-*s", statusWidth, text()) })
	return func() {
		end()
		fmt.Fprintf(e.stderr, "\r%*s\r", statusWidth, "")
	}
}

// reporting shows a line on a terminal, as showing does, and elsewhere logs it now and
// then, until it is told to stop.
func reporting(ctx context.Context, e env, what string, text func() string) (stop func()) {
	if e.terminal {
		return showing(e, text)
	}
	return ticking(logEvery, func() {
		e.log.InfoContext(ctx, what, "progress", text()) //nolint:sloglint // the caller's is constant
	})
}

// ticking calls do again and again until it is told to stop.
func ticking(every time.Duration, do func()) (stop func()) {
	done := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() {
		t := time.NewTicker(every)
		defer t.Stop()
		for {
			select {
			case <-done:
				return
			case <-t.C:
				do()
			}
		}
	})
	return func() { close(done); running.Wait() }
}
