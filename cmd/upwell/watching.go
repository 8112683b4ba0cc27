package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"upwell/cmd/internal/budget"
	"upwell/cmd/internal/dashboard"
	"upwell/cmd/internal/flight"
	"upwell/cmd/internal/health"
	"upwell/cmd/internal/metrics"
	"upwell/cmd/internal/progress"
	"upwell/cmd/internal/traces"
	"upwell/jobs"
	"upwell/jobs/sqsqueue"
	"upwell/sink"
	"upwell/sink/s3sink"
	"upwell/worker"
)

// watchFlags say how a worker can be watched.
type watchFlags struct {
	HTTP   string `group:"Watching:" name:"http" default:"${http}" placeholder:"ADDR" env:"UPWELL_HTTP" help:"Serve the dashboard, /metrics, /healthz and /readyz at this address; off for nowhere. Where ${http} is taken, a free port is. On an address that others reach, the dashboard asks for the token in UPWELL_HTTP_TOKEN, and is not served without."`
	Report string `group:"Watching:" type:"path" placeholder:"FILE" env:"UPWELL_REPORT" help:"Save what the dashboard shows at the end as one HTML file, which needs nothing else."`
	Flight string `group:"Watching:" name:"flight-dir" placeholder:"DIR" env:"UPWELL_FLIGHT_DIR" help:"Folder for what the flight recorder writes on SIGQUIT, and when a heartbeat is late; off for none. Default: the folder for temporary files."`
}

const (
	// defaultHTTP is where a worker is watched unless it is said otherwise.
	defaultHTTP = "127.0.0.1:9464"

	// off is the value of flags that turn something off.
	off = "off"

	// shortestToken is how short a token may be: nobody guesses 16 characters drawn by
	// lot.
	shortestToken = 16

	// askEvery is how often the queue and the budget are asked how they stand. SQS's
	// counts are a minute old anyway.
	askEvery = 15 * time.Second

	// farewell is how long the server may take to say how it ended to those who look.
	farewell = 2 * time.Second
)

// token returns what the dashboard asks for, or nothing.
func (f *watchFlags) token(e env) (string, error) {
	token := e.getenv("UPWELL_HTTP_TOKEN")
	if token != "" && len(token) < shortestToken {
		return "", fmt.Errorf("UPWELL_HTTP_TOKEN: want %d characters at least, drawn by lot: openssl rand -hex 16", shortestToken)
	}
	return token, nil
}

var errDraining = errors.New("the worker is draining")

// A watching is all that listens to a worker: it counts, and serves what it has counted.
type watching struct {
	env
	flags     *watchFlags
	verb, run string
	meter     *progress.Meter
	metrics   *metrics.Metrics
	traces    *traces.Traces // nil for none
	listeners []func(worker.Event)
	board     *dashboard.Dashboard // once it is started
	url       string               // of the dashboard, or empty

	on     watched
	queue  atomic.Pointer[sqsqueue.Counts]
	budget atomic.Pointer[budget.Status]
	totals atomic.Pointer[progress.Totals]
}

// listen returns what listens to a worker of that verb on that queue, and to a run if it
// has one. more are told of each event as well.
func (f *watchFlags) listen(ctx context.Context, e env, verb, run, queue string, more ...func(worker.Event)) (*watching, error) {
	w := &watching{env: e, flags: f, verb: verb, run: run, meter: progress.NewMeter(), metrics: metrics.New(version())}
	var err error
	if w.traces, err = tracing(ctx, e); err != nil {
		return nil, err
	}
	w.traces.SetQueue(queue)
	w.listeners = append([]func(worker.Event){w.meter.Observe, w.metrics.Observe}, more...)
	if w.traces != nil {
		w.listeners = append(w.listeners, w.traces.Observe)
	}
	return w, nil
}

// observe tells all who listen. It is made for worker.Config.Observe.
func (w *watching) observe(e worker.Event) {
	for _, listen := range w.listeners {
		listen(e)
	}
}

// A watched is what is watched.
type watched struct {
	worker  *worker.Worker
	queue   *sqsqueue.Queue
	results *s3sink.Sink
}

// start serves what is seen of the worker, until the function that it returns is
// called. It says where.
func (w *watching) start(ctx context.Context, on watched) (end func(), err error) {
	w.on = on
	if err := w.checkReport(); err != nil {
		return nil, err
	}
	running, stop := context.WithCancel(context.WithoutCancel(ctx)) // a drain is still watched
	var parts sync.WaitGroup
	ends := func() { stop(); parts.Wait() }
	if err := w.record(running, &parts, on); err != nil {
		stop()
		return nil, err
	}
	l, token, err := w.bind(ctx)
	if err != nil {
		ends()
		return nil, err
	}
	w.board = dashboard.New(dashboard.Config{
		Meter: w.meter, Verb: w.verb, Run: w.run, Version: version(),
		Totals: w.totals.Load, Queue: w.queue.Load, Budget: w.budget.Load,
		Result: on.result, Token: token, Loopback: l != nil && loopback(l.Addr()), Log: w.log,
	})
	if l == nil {
		return ends, nil
	}
	parts.Go(func() { w.asking(running) })
	srv := &http.Server{Handler: w.handler(ctx, on), ReadHeaderTimeout: 5 * time.Second}
	srv.RegisterOnShutdown(w.board.Close)
	parts.Go(func() { _ = srv.Serve(l) }) // it ends by Shutdown or Close, which say nothing new
	if w.url = address(l.Addr()); token == "" && !loopback(l.Addr()) {
		w.url = ""
		w.log.WarnContext(ctx, "dashboard not served, as others reach its address: set UPWELL_HTTP_TOKEN", "http", l.Addr().String())
	}
	return func() {
		leaving, cancel := context.WithTimeout(running, farewell)
		defer cancel()
		if srv.Shutdown(leaving) != nil {
			_ = srv.Close()
		}
		ends()
	}, nil
}

// checkReport finds out whether the report can be written, while nothing is lost by it.
func (w *watching) checkReport() error {
	path := w.flags.Report
	if path == "" {
		return nil
	}
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return fail(exitUsage, fmt.Errorf("--report %s: that is a folder: name a file", path))
	}
	out, err := newLines(path)
	if wrong, ok := errors.AsType[*fs.PathError](err); ok {
		err = wrong.Err // the path of the file in the making is nobody's
	}
	if err != nil {
		return fail(exitUsage, fmt.Errorf("--report %s: %w", path, err))
	}
	out.abandon()
	return nil
}

// handler serves the dashboard, the metrics and the probes.
func (w *watching) handler(ctx context.Context, on watched) http.Handler {
	mux := http.NewServeMux()
	probes := health.Handler(health.Worker{Pulse: on.worker.Pulse, Ready: func() error {
		if ctx.Err() != nil {
			return errDraining
		}
		return w.meter.Standstill()
	}})
	mux.Handle("/healthz", probes)
	mux.Handle("/readyz", probes)
	mux.Handle("GET /metrics", w.metrics.Handler())
	mux.Handle("/", w.board.Handler())
	return mux
}

// bind returns where to serve, or nil for nowhere, and the token. Nobody has asked for the
// default address, so that it is no error if that cannot be had.
func (w *watching) bind(ctx context.Context) (l net.Listener, token string, err error) {
	at := w.flags.HTTP
	if at == off || at == "" {
		return nil, "", nil
	}
	if token, err = w.flags.token(w.env); err != nil {
		return nil, "", fail(exitUsage, err)
	}
	var lc net.ListenConfig
	if l, err = lc.Listen(ctx, "tcp", at); err != nil && at == defaultHTTP {
		if l, err = lc.Listen(ctx, "tcp", "127.0.0.1:0"); err != nil {
			w.log.WarnContext(ctx, "dashboard not served", "err", err)
			return nil, "", nil
		}
	}
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, "", fail(exitConfig, fmt.Errorf("--http %s: another process has that port: give another one, 0 for any that is free, or off", at))
	}
	if err != nil {
		return nil, "", fail(exitConfig, fmt.Errorf("--http %s: %w: want host:port, such as %s, or off", at, err, defaultHTTP))
	}
	return l, token, nil
}

// loopback reports whether nobody but this machine reaches the address.
func loopback(a net.Addr) bool {
	tcp, ok := a.(*net.TCPAddr)
	return ok && tcp.IP.IsLoopback()
}

// address returns the URL at which a person on this machine opens it.
func address(a net.Addr) string {
	tcp, ok := a.(*net.TCPAddr)
	if !ok || tcp.IP.IsUnspecified() {
		_, port, _ := net.SplitHostPort(a.String()) // it listens there
		return "http://" + net.JoinHostPort("localhost", port) + "/"
	}
	return "http://" + a.String() + "/"
}

// record starts the flight recorder, if there is to be one.
func (w *watching) record(ctx context.Context, parts *sync.WaitGroup, on watched) error {
	dir := w.flags.Flight
	switch dir {
	case off:
		return nil
	case "":
		dir = os.TempDir()
	}
	r, err := flight.Start(flight.Config{Dir: dir, State: w.state, Pulse: on.worker.Pulse, Log: w.log})
	switch {
	case err != nil && w.flags.Flight == "": // nobody has asked for it
		w.log.WarnContext(ctx, "no flight recorder", "err", err)
		return nil
	case err != nil:
		return fail(exitConfig, fmt.Errorf("--flight-dir: %w", err))
	}
	w.listeners = append(w.listeners, r.Observe) // the worker has not begun
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGQUIT)
	parts.Go(func() {
		defer signal.Stop(asked)
		r.Run(ctx, asked)
	})
	return nil
}

// state writes how the worker stands and what was decided lately, the newest first.
func (w *watching) state(out io.Writer) {
	progress.Table(out, progress.Summary(w.meter.Counts(), w.meter.Elapsed()))
	sample, at := w.meter.Sample()
	text, err := json.MarshalIndent(sample, "", "  ")
	if err != nil {
		text = []byte(err.Error())
	}
	fmt.Fprintf(out, "\nat %s\n%s\n\nheld back in the last ten minutes by\n", at.UTC().Format(time.RFC3339), text)
	lately, _ := w.meter.Why()
	printShares(out, lately)
	fmt.Fprintln(out, "\ndecisions")
	for _, n := range w.meter.News() {
		fmt.Fprintln(out, clean(n.String()))
	}
}

// ask asks the queue and the budget how they stand.
func (w *watching) ask(ctx context.Context) {
	if n, err := w.on.queue.Counts(ctx); err == nil {
		w.queue.Store(&n)
		w.metrics.Queue(n, nil)
	} else if ctx.Err() == nil {
		w.metrics.Queue(n, err)
	}
	if w.run == "" {
		return
	}
	if b, err := budget.Look(ctx, w.on.results.Board(budget.BoardName(w.run))); err == nil && b != nil {
		w.budget.Store(b)
		w.metrics.Budget(b)
	}
}

// asking asks now and then, until ctx is done.
func (w *watching) asking(ctx context.Context) {
	t := time.NewTicker(askEvery)
	defer t.Stop()
	for {
		w.ask(ctx)
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// result returns what is stored of a job.
func (on watched) result(ctx context.Context, k jobs.Key) (r jobs.Result, ok bool, err error) {
	for _, kind := range []sink.Kind{sink.Results, sink.Errors} {
		r, err = on.results.Read(ctx, kind, k)
		if !errors.Is(err, fs.ErrNotExist) {
			return r, err == nil, err
		}
	}
	return r, false, nil
}

// end says how it ended to those who look, and saves the report if there is to be one.
func (w *watching) end(ctx context.Context, outcome string) error {
	if w.url != "" || w.flags.Report != "" { // somebody sees it
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), farewell)
		w.ask(ctx)
		cancel()
	}
	w.board.End(outcome)
	if w.flags.Report == "" {
		return nil
	}
	out, err := newLines(w.flags.Report)
	if err != nil {
		return fail(exitConfig, fmt.Errorf("--report: %w", err))
	}
	defer out.abandon()
	out.n = 1
	if err = w.board.Report(out.w); err == nil {
		err = out.commit()
	}
	if err != nil {
		return fail(exitConfig, fmt.Errorf("--report: %w", err))
	}
	return nil
}

// leave lets go of what listens: traces are sent.
func (w *watching) leave(ctx context.Context) { sendTraces(ctx, w.env, w.traces) }

// tracing returns what makes traces, or nil if nobody has asked for them.
func tracing(ctx context.Context, e env) (*traces.Traces, error) {
	t, err := traces.New(ctx, e.getenv, version())
	if err != nil {
		return nil, fail(exitUsage, err)
	}
	t.SetLog(e.log)
	return t, nil
}

// sendTraces sends what has not been sent yet, also when ctx is done.
func sendTraces(ctx context.Context, e env, t *traces.Traces) {
	if err := t.Shutdown(context.WithoutCancel(ctx)); err != nil {
		e.log.WarnContext(ctx, "traces not sent", "err", err)
	}
}
