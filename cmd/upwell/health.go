package main

import (
	"context"
	"fmt"
	"time"

	"upwell/cmd/internal/health"
)

// healthCmd asks a worker how it is. An image that holds nothing but this program
// has nobody else to ask.
type healthCmd struct {
	HTTP  string `name:"http" default:"${http}" placeholder:"ADDR" env:"UPWELL_HTTP" help:"Address that the worker was told with --http."`
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
