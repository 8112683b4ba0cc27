package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"upwell/cmd/internal/health"
)

// healthCmd asks a worker how it is. An image that holds nothing but this program
// has nobody else to ask.
type healthCmd struct {
	HTTP  string `name:"http" default:"127.0.0.1:9464" placeholder:"ADDR" env:"UPWELL_HTTP" help:"Address that the worker was told with --http."`
	Ready bool   `help:"Ask whether it takes jobs, and not only whether it lives."`
}

// Run asks.
func (c *healthCmd) Run(ctx context.Context, e env) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	path := "/healthz"
	if c.Ready {
		path = "/readyz"
	}
	said, err := health.Ask(ctx, c.HTTP, path)
	if err != nil {
		return fail(exitFailed, err)
	}
	_, err = fmt.Fprintln(e.stdout, said)
	return err
}

var errDraining = errors.New("the worker is draining")

// serveHealth answers probes at addr until the returned function is called. Why the
// worker takes no jobs is asked of c, and of ctx, whose end is the drain's beginning.
func serveHealth(ctx context.Context, addr string, c *crew) (end func(), err error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fail(exitConfig, fmt.Errorf("--http: %w", err))
	}
	h := health.Handler(health.Worker{Pulse: c.worker.Pulse, Ready: func() error {
		if ctx.Err() != nil {
			return errDraining
		}
		return c.meter.Counts().Paused
	}})
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second}
	ended := make(chan struct{})
	go func() { _ = srv.Serve(l); close(ended) }()
	return func() { _ = srv.Close(); <-ended }, nil
}
