package standin

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/json"
	"errors"
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

// Serve serves SQS, S3 and the endpoint, as arg, Settings in JSON, has it. It prints
// their URLs, and returns when the standard input ends, as it does with the parent.
func Serve(arg string) error {
	var set Settings
	if err := json.Unmarshal([]byte(arg), &set); err != nil {
		return err
	}
	script, err := capacity.ParseScript(set.Capacity)
	if err != nil {
		return err
	}
	model := mantlesim.New(mantlesim.Config{Capacity: script, Latency: mantlesim.Latency{Median: set.Call}, LedgerEntries: 1000})
	queues := sqssim.New(sqssim.Config{Latency: set.SQS})
	urls := make([]string, 0, 3)
	for _, h := range []struct {
		handler http.Handler
		hook    func(net.Conn, http.ConnState)
	}{
		{withStats(queues), nil},
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
	if _, err = os.Stdin.Read(make([]byte, 1)); errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// withStats adds what SQS does not have.
func withStats(queues *sqssim.Server) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/_stats" {
			_ = json.NewEncoder(w).Encode(queues.Stats())
			return
		}
		queues.ServeHTTP(w, r)
	})
}

// answer is in each answer of the endpoint, and in no prompt.
var answer = []byte(`"object":"response"`)

// A bucket is the least of S3 that a worker needs, and faster than files: it
// remembers when each result was first written and whether that was an answer, and
// refuses a second write if it is asked to. What workers know together it keeps.
type bucket struct {
	latency time.Duration

	mu     sync.Mutex
	stored map[string]time.Time
	boards map[string][]byte
	count  Stored
}

func (b *bucket) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/_times":
		_ = json.NewEncoder(w).Encode(b.times())
		return
	case "/_stored":
		b.mu.Lock()
		defer b.mu.Unlock()
		b.count.Keys = len(b.stored)
		_ = json.NewEncoder(w).Encode(b.count)
		return
	case "/_forget":
		b.mu.Lock()
		defer b.mu.Unlock()
		clear(b.stored)
		b.count = Stored{}
		return
	}
	data, err := io.ReadAll(r.Body)
	if err != nil {
		return // the client is gone
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
		b.board(w, r, data)
	case r.Method == http.MethodPut && there && r.Header.Get("If-None-Match") == "*":
		w.WriteHeader(http.StatusPreconditionFailed)
	case r.Method == http.MethodPut:
		if there {
			b.count.Doubled++
		} else {
			b.stored[r.URL.Path] = time.Now()
			if !bytes.Contains(data, answer) {
				b.count.Wrong++
			}
		}
		w.Header().Set("ETag", `"0"`)
	case r.Method == http.MethodHead && strings.Count(r.URL.Path, "/") > 1 && !there:
		w.WriteHeader(http.StatusNotFound)
	}
}

// board serves an object that workers read and replace. b.mu must be held.
func (b *bucket) board(w http.ResponseWriter, r *http.Request, data []byte) {
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
