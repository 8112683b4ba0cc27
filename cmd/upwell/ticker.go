package main

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// statusWidth is how wide a line that showing writes may be, in characters.
const statusWidth = 70

// showing shows a line on a terminal, five times a second, until it is told to stop.
// Nothing else may be written to standard error meanwhile. Elsewhere it shows nothing.
func showing(e env, text func() string) (stop func()) {
	if !e.terminal {
		return func() {}
	}
	done := make(chan struct{})
	var ticking sync.WaitGroup
	ticking.Go(func() {
		t := time.NewTicker(200 * time.Millisecond)
		defer t.Stop()
		for {
			select {
			case <-done:
				fmt.Fprintf(e.stderr, "\r%*s\r", statusWidth, "")
				return
			case <-t.C:
				fmt.Fprintf(e.stderr, "\r%-*s", statusWidth, text())
			}
		}
	})
	return func() { close(done); ticking.Wait() }
}

// logEvery is how often reporting writes to a log.
const logEvery = 10 * time.Second

// reporting shows a line on a terminal, as showing does, and elsewhere logs it now and
// then, until it is told to stop.
func reporting(ctx context.Context, e env, what string, text func() string) (stop func()) {
	if e.terminal {
		return showing(e, text)
	}
	done := make(chan struct{})
	var ticking sync.WaitGroup
	ticking.Go(func() {
		t := time.NewTicker(logEvery)
		defer t.Stop()
		for {
			select {
			case <-done:
				return
			case <-t.C:
				e.log.InfoContext(ctx, what, "progress", text()) //nolint:sloglint // the caller's is constant
			}
		}
	})
	return func() { close(done); ticking.Wait() }
}
