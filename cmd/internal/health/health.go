// Package health answers the probes of whatever runs a worker: whether the process
// lives, and whether it takes jobs.
package health

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// hung is how long a worker may go without a turn of the loop that turns once a
// second. It is longer than any pause of the machine that a heartbeat survives, so
// that a worker is not killed which would have come back in time.
const hung = time.Minute

// ErrIdle is why a worker is not ready that has not begun, or has ended.
var ErrIdle = errors.New("the worker is not at work: it is about to start, or has ended")

// A Worker is what is asked.
type Worker struct {
	// Pulse returns when the worker's loop last turned, or the zero time if it is not
	// at work.
	Pulse func() time.Time

	// Ready returns why the worker takes no jobs, or nil if it does.
	Ready func() error
}

// Handler serves /healthz, which fails when the loop hangs that keeps the worker's
// messages hidden, so that it should be restarted, and /readyz, which fails while it takes no jobs: it starts, drains, or
// its intake is paused. Both say why. A worker that only waits for its endpoint to
// take it back is healthy: a restart would mend nothing.
func Handler(w Worker) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(rw http.ResponseWriter, _ *http.Request) {
		var err error
		if p := w.Pulse(); !p.IsZero() && time.Since(p) > hung {
			err = fmt.Errorf("the worker hangs: no heartbeat was looked after since %s", p.UTC().Format(time.RFC3339))
		}
		answer(rw, err)
	})
	mux.HandleFunc("GET /readyz", func(rw http.ResponseWriter, _ *http.Request) {
		err := w.Ready()
		if err == nil && w.Pulse().IsZero() {
			err = ErrIdle
		}
		answer(rw, err)
	})
	return mux
}

func answer(rw http.ResponseWriter, err error) {
	rw.Header().Set("Content-Type", "text/plain; charset=utf-8")
	rw.Header().Set("Cache-Control", "no-store")
	if err != nil {
		rw.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprintln(rw, err)
		return
	}
	fmt.Fprintln(rw, "ok")
}

// Ask gets a path of the worker that serves at addr, and returns what it says. Its
// error is what the worker says is wrong, or why it cannot be asked.
func Ask(ctx context.Context, addr, path string) (string, error) {
	status, text, err := Get(ctx, addr, path, "")
	said := strings.TrimSpace(string(text))
	switch {
	case err != nil:
		return "", err
	case status == http.StatusServiceUnavailable:
		return "", fmt.Errorf("%d %s: %s", status, http.StatusText(status), said)
	case status != http.StatusOK:
		return "", fmt.Errorf("%s answers %d, and not as a worker does", addr, status)
	}
	return said, nil
}

// mostSaid bounds what is read of an answer.
const mostSaid = 1 << 20

// Get gets a path of the worker that serves at addr, and returns the HTTP status and the
// body of its answer. An address without a host, or with one that means all of them, is one
// of this machine. The token goes with the request, unless it is empty.
func Get(ctx context.Context, addr, path, token string) (status int, text []byte, err error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return 0, nil, fmt.Errorf("address %q: want host:port, such as 127.0.0.1:9464", addr)
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(host, port)+path, nil)
	if err != nil {
		return 0, nil, err
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}} // no proxy: it is this machine
	res, err := client.Do(req)
	if err != nil {
		return 0, nil, fmt.Errorf("%w: is there a worker at %s? it logs its dashboard's address when it starts", err, addr)
	}
	defer res.Body.Close()
	text, err = io.ReadAll(io.LimitReader(res.Body, mostSaid))
	return res.StatusCode, text, err
}
