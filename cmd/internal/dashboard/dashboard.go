// Package dashboard is the page on which a person watches a run: what it does, how
// fast, what holds it back, what it costs and what has failed.
//
// It keeps no books. All it shows is a [progress.Snapshot] and what its [Config]
// asks for, taken once a second for all who look, and not at all while nobody does.
// The page is plain HTML, CSS and JavaScript from within the program, drawn with
// uPlot, fed by server-sent events, and asks no other host for anything.
//
// Whoever may see it is decided by [Config].Loopback and [Config].Token; see
// infra/decisions/0015-threat-model.md. Names, models and errors come from strangers:
// the page sets them as text and nothing else, and shows the characters that would
// alter how text is read.
package dashboard

import (
	"context"
	"log/slog"
	"net/http"
	"sync"

	"upwell/cmd/internal/budget"
	"upwell/cmd/internal/progress"
	"upwell/jobs"
	"upwell/jobs/sqsqueue"
)

// Config says what is shown, and to whom. Its functions may be nil, may be called
// concurrently, and but for Result must be quick.
type Config struct {
	Meter *progress.Meter

	Verb    string // demo, run or worker
	Run     string // or empty
	Version string

	Totals func() *progress.Totals // what the run is in all, or nil
	Queue  func() *sqsqueue.Counts // as last asked, or nil
	Budget func() *budget.Status   // as last asked, or nil

	// Result returns the result or error line that is stored for a job, and whether
	// there is one.
	Result func(ctx context.Context, k jobs.Key) (r jobs.Result, ok bool, err error)

	// Token is what a person has to know who wants to see the page, or empty on a
	// loopback address.
	Token string

	// Loopback says that the page is served on a loopback address and nowhere else.
	// Requests for any other host are refused, as they come from a page of a stranger
	// whose name was made to lead here.
	Loopback bool

	Log *slog.Logger // default: none
}

// A Dashboard serves the page. Its methods may be called concurrently.
type Dashboard struct {
	cfg   Config
	guard *guard
	looks chan struct{} // one for each job that is looked up

	mu      sync.Mutex
	last    *frame // or nil
	viewers int
	outcome string

	closed chan struct{} // by Close
	ended  chan struct{} // by End
	closes sync.Once
	ends   sync.Once
}

// New returns a Dashboard.
func New(cfg Config) *Dashboard {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Dashboard{
		cfg: cfg, guard: newGuard(cfg.Token, cfg.Loopback), looks: make(chan struct{}, mostLooks),
		closed: make(chan struct{}), ended: make(chan struct{}),
	}
}

// Handler serves the page at / and what it needs beneath. Errors are JSON beneath
// /api/, and text elsewhere.
func (d *Dashboard) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", d.page)
	for name, a := range assets() {
		mux.Handle("GET /"+name, a)
	}
	mux.Handle("GET /favicon.ico", asset("favicon.svg"))
	mux.HandleFunc("POST /login", d.guard.login)
	mux.HandleFunc("GET /api/events", d.events)
	mux.HandleFunc("GET /api/snapshot", d.snapshot)
	mux.HandleFunc("GET /api/job", d.job)
	mux.HandleFunc("GET /api/why", d.why)
	return d.guard.protect(mux)
}

// End tells the viewers how the run came to its end: done, interrupted, parked or the
// like. Their streams end, and their pages stay as they are then. What is shown
// afterwards is what the Meter knew at the first End.
func (d *Dashboard) End(outcome string) {
	d.ends.Do(func() {
		d.mu.Lock()
		d.outcome = outcome
		d.next()
		d.mu.Unlock()
		close(d.ended)
	})
}

// Close ends the viewers' streams. It is made for [http.Server.RegisterOnShutdown]:
// a server that shuts down waits for them.
func (d *Dashboard) Close() { d.closes.Do(func() { close(d.closed) }) }
