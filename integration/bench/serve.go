package main

import (
	"context"
	"crypto/md5"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sort"
	"strings"
	"sync"
	"time"

	"upwell/jobs/sqsqueue/sqssim"
	"upwell/worker/mantle/mantlesim"
	"upwell/worker/mantle/mantlesim/capacity"
)

// settings are what the stand-ins of one scenario are told, on the command line
// of the process that serves them, in JSON.
type settings struct {
	SQS, S3, Call time.Duration // time added to each request
	Capacity      string        // of the endpoint; see capacity.ParseScript
}

// serve serves SQS, S3 and the endpoint until it is killed. It prints their URLs.
func serve(arg string) error {
	var set settings
	if err := json.Unmarshal([]byte(arg), &set); err != nil {
		return err
	}
	script, err := capacity.ParseScript(set.Capacity)
	if err != nil {
		return err
	}
	model := mantlesim.New(mantlesim.Config{Capacity: script, Latency: mantlesim.Latency{Median: set.Call}, LedgerEntries: 1000})
	urls := make([]string, 0, 3)
	for _, h := range []struct {
		handler http.Handler
		hook    func(net.Conn, http.ConnState)
	}{
		{sqssim.New(sqssim.Config{Latency: set.SQS}), nil},
		{&bucket{latency: set.S3, stored: make(map[string]time.Time), boards: make(map[string][]byte)}, nil},
		{model, model.ConnState},
	} {
		l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		srv := &http.Server{Handler: h.handler, ConnState: h.hook, ReadHeaderTimeout: time.Minute}
		go func() { _ = srv.Serve(l) }() // until the process is killed
		urls = append(urls, "http://"+l.Addr().String())
	}
	fmt.Println(strings.Join(urls, " "))
	_, err = os.Stdin.Read(make([]byte, 1)) // ends with the parent
	return err
}

// A bucket is the least of S3 that a worker needs, and faster than files: it
// remembers when each result was first written, and refuses a second write. What
// workers know together it keeps.
type bucket struct {
	latency time.Duration

	mu     sync.Mutex
	stored map[string]time.Time
	boards map[string][]byte
}

func (b *bucket) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/_times":
		_ = json.NewEncoder(w).Encode(b.times())
		return
	case "/_forget":
		b.mu.Lock()
		defer b.mu.Unlock()
		clear(b.stored)
		return
	}
	if b.latency > 0 {
		t := time.NewTimer(b.latency)
		defer t.Stop()
		select {
		case <-t.C:
		case <-r.Context().Done():
			return
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	_, there := b.stored[r.URL.Path]
	switch {
	case strings.Contains(r.URL.Path, "/state/"):
		b.board(w, r)
	case r.Method == http.MethodPut && there && r.Header.Get("If-None-Match") == "*":
		w.WriteHeader(http.StatusPreconditionFailed)
	case r.Method == http.MethodPut:
		b.stored[r.URL.Path] = time.Now()
		w.Header().Set("ETag", `"0"`)
	case r.Method == http.MethodHead && strings.Count(r.URL.Path, "/") > 1 && !there:
		w.WriteHeader(http.StatusNotFound)
	}
}

// board serves an object that workers read and replace. b.mu must be held.
func (b *bucket) board(w http.ResponseWriter, r *http.Request) {
	old, there := b.boards[r.URL.Path]
	etag := func(data []byte) string { return fmt.Sprintf("%q", fmt.Sprintf("%x", md5.Sum(data))) }
	match := r.Header.Get("If-Match")
	switch {
	case r.Method == http.MethodGet && !there:
		w.WriteHeader(http.StatusNotFound)
		_, _ = io.WriteString(w, "<Error><Code>NoSuchKey</Code></Error>")
	case r.Method == http.MethodGet:
		w.Header().Set("ETag", etag(old))
		_, _ = w.Write(old)
	case there && r.Header.Get("If-None-Match") == "*", match != "" && match != etag(old):
		w.WriteHeader(http.StatusPreconditionFailed)
		_, _ = io.WriteString(w, "<Error><Code>PreconditionFailed</Code></Error>")
	default:
		data, err := io.ReadAll(r.Body)
		if err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		b.boards[r.URL.Path] = data
		w.Header().Set("ETag", etag(data))
	}
}

// times returns when keys were written, in order, in seconds since the first.
func (b *bucket) times() []float64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := make([]time.Time, 0, len(b.stored))
	for _, t := range b.stored {
		all = append(all, t)
	}
	sort.Slice(all, func(i, j int) bool { return all[i].Before(all[j]) })
	times := make([]float64, len(all))
	for i, t := range all {
		times[i] = t.Sub(all[0]).Seconds()
	}
	return times
}
