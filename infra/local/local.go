// Package local puts the three simulators on loopback ports of this process:
// SQS in memory, S3 over a folder, and the model endpoint.
//
// It is what upwell's demo, its run and its tests use in the place of AWS. They
// speak to it through the production adapters and the real protocols, so there
// is no local mode anywhere else.
//
// # Ownership
//
// [Start] opens the listeners and one goroutine serves each. [Stack.Close] ends
// them and waits.
package local

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"upwell/jobs/sqsqueue/sqssim"
	"upwell/sink/s3sink/s3sim"
	"upwell/worker/mantle/mantlesim"
)

// Region is the Region that everything here is in, and Key and Secret are
// credentials that it takes. They are no secret: nothing outside this machine
// can use them.
const (
	Region = "us-west-2"
	Key    = "local"
	Secret = "local"
)

// Config says what to serve. The zero Config is not usable: S3 needs a folder.
type Config struct {
	SQS sqssim.Config
	S3  s3sim.Config

	// Mantle is the simulated endpoint, or nil for none.
	Mantle *mantlesim.Config

	// SQSAddr, S3Addr and MantleAddr are where to listen. Default: a free port
	// of 127.0.0.1.
	SQSAddr, S3Addr, MantleAddr string
}

// A Stack is the running simulators, and the URLs to reach them at.
type Stack struct {
	SQS    *sqssim.Server
	S3     *s3sim.Server
	Mantle *mantlesim.Server // nil if not asked for

	SQSURL, S3URL, MantleURL string

	servers []*http.Server
	serving sync.WaitGroup
}

// Start serves what cfg asks for. Close it when done: the end of ctx does not
// stop it.
func Start(ctx context.Context, cfg Config) (*Stack, error) {
	s := &Stack{SQS: sqssim.New(cfg.SQS)}
	var err error
	if s.S3, err = s3sim.New(cfg.S3); err != nil {
		return nil, fmt.Errorf("local: %w", err)
	}
	s.SQSURL, err = s.listen(ctx, cfg.SQSAddr, s.SQS, nil)
	if err == nil {
		s.S3URL, err = s.listen(ctx, cfg.S3Addr, s.S3, nil)
	}
	if err == nil && cfg.Mantle != nil {
		s.Mantle = mantlesim.New(*cfg.Mantle)
		s.MantleURL, err = s.listen(ctx, cfg.MantleAddr, s.Mantle, s.Mantle.ConnState)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("local: %w", err), s.Close())
	}
	return s, nil
}

// listen serves h at addr and returns its URL.
func (s *Stack) listen(ctx context.Context, addr string, h http.Handler, hook func(net.Conn, http.ConnState)) (string, error) {
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return "", err
	}
	srv := &http.Server{Handler: h, ConnState: hook, ReadHeaderTimeout: time.Minute}
	s.servers = append(s.servers, srv)
	s.serving.Go(func() { _ = srv.Serve(l) })
	return "http://" + l.Addr().String(), nil
}

// Close stops serving and cuts what is still under way.
func (s *Stack) Close() error {
	var errs []error
	for _, srv := range s.servers {
		errs = append(errs, srv.Close())
	}
	s.serving.Wait()
	return errors.Join(append(errs, s.S3.Close())...)
}
