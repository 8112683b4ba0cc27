package main

import (
	"golang.org/x/term"

	"upwell/cmd/internal/progress"
)

// console returns where progress is shown, and log lines are written meanwhile: on a
// terminal as a block, and elsewhere as a line now and then.
func (e env) console() *progress.Console { return progress.NewConsole(e.stderr, e.terminal, e.getenv) }

// shows returns an env that shows progress as JSON, or not at all.
func (e env) shows(asJSON, quiet bool) env {
	switch {
	case quiet:
		e.stderr = e.console().Shows(progress.Quiet)
	case asJSON:
		e.stderr = e.console().Shows(progress.JSON)
	default:
		e.stderr = e.console()
	}
	return e
}

// toTerminal reports whether standard output is a terminal.
func toTerminal(e env) bool {
	return term.IsTerminal(int(e.stdout.Fd()))
}

// showing shows a line on a terminal until it is told to stop. Elsewhere it shows
// nothing.
func showing(e env, text func() string) (stop func()) { return e.console().Say(text) }
