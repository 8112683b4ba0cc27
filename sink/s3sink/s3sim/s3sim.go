package s3sim

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/rclone/gofakes3"
	"github.com/rclone/gofakes3/signature"
)

// A Config says where a Server keeps its objects and how it behaves.
type Config struct {
	// Dir is the folder that holds the buckets. It is created if missing.
	// Required.
	Dir string

	// Keys maps access keys to secrets. If it is empty, requests need no
	// signature; otherwise they need a valid one by one of these keys.
	Keys map[string]string

	// Sync makes a write durable before it is acknowledged, so that it
	// survives a power failure. Deletes are not. Default: leave both to the
	// operating system.
	Sync bool

	// Latency is how long every request waits before anything else happens.
	// Default: none.
	Latency time.Duration

	// Fault, if set, decides the fate of each request. Op is the name S3 has
	// for the operation, such as PutObject or ListObjectsV2; bucket and key
	// are empty where the operation has none. It is called concurrently.
	Fault func(op, bucket, key string) Fault

	// Log receives internal errors, which clients see as 500 InternalError.
	// Default: discard.
	Log *slog.Logger
}

// A Fault is what goes wrong with a request. The zero Fault is none.
//
// Every fault comes in two forms. With Apply unset the request has no effect;
// with Apply set it is carried out in full and only its answer is replaced,
// which is the harder case for a client.
type Fault struct {
	// Apply carries the request out before its answer is lost.
	Apply bool

	// Status and Code are the answer, such as 503 and SlowDown. If only one
	// is set, the other follows from it.
	Status int
	Code   string

	// Drop closes the connection instead of answering. Over a connection used
	// before, net/http repeats a dropped GET or HEAD without being asked.
	Drop bool
}

// A Server is an S3 endpoint over a folder. Create it with [New].
type Server struct {
	cfg Config
	s3  http.Handler
	fs  *backend

	mu    sync.Mutex // held briefly, never during I/O
	stats map[string]int64
}

// New opens the folder cfg.Dir as an S3 endpoint. It removes the bodies that
// writers left half-written when they died.
func New(cfg Config) (*Server, error) {
	if cfg.Dir == "" {
		return nil, errors.New("s3sim: Dir is required")
	}
	if cfg.Latency < 0 {
		return nil, fmt.Errorf("s3sim: Latency is negative: %v", cfg.Latency)
	}
	fs, err := openBackend(cfg.Dir, cfg.Sync)
	if err != nil {
		return nil, fmt.Errorf("s3sim: %w", err)
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	api := gofakes3.New(fs, gofakes3.WithLogger(errorLog{cfg.Log}))
	return &Server{cfg: cfg, s3: api.Server(), fs: fs, stats: map[string]int64{}}, nil
}

// Close releases the folder. Requests that come later fail.
func (s *Server) Close() error { return s.fs.close() }

// Stats returns how many requests of each operation have come in, faults
// included.
func (s *Server) Stats() map[string]int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.stats)
}

// ServeHTTP answers one S3 request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	op, bucket, key := operation(r)
	s.mu.Lock()
	s.stats[op]++
	s.mu.Unlock()

	if !sleep(r.Context(), s.cfg.Latency) {
		answer(w, r, http.StatusServiceUnavailable, "RequestCanceled")
		return
	}
	var f Fault
	if s.cfg.Fault != nil {
		f = s.cfg.Fault(op, bucket, key)
	}
	if !f.Drop && f.Status == 0 && f.Code == "" {
		s.serve(w, r, op)
		return
	}
	if f.Apply {
		s.serve(void{}, r, op)
	}
	f.answer(w, r)
}

// serve carries out a request that no fault befell.
func (s *Server) serve(w http.ResponseWriter, r *http.Request, op string) {
	r = complete(r)
	if !s.authorized(w, r) {
		return
	}
	if op == "CopyObject" && (r.Header.Get("If-None-Match") != "" || r.Header.Get("If-Match") != "") {
		answer(w, r, http.StatusNotImplemented, "NotImplemented")
		return
	}
	// Of encryption the library refuses just this kind.
	if sse := "X-Amz-Server-Side-Encryption"; strings.HasPrefix(r.Header.Get(sse), "aws:kms") {
		r.Header.Del(sse)
		r.Header.Del(sse + "-Aws-Kms-Key-Id")
	}
	r, err := decode(w, r)
	if err != nil {
		answer(w, r, http.StatusBadRequest, "InvalidRequest")
		return
	}
	s.s3.ServeHTTP(w, r)
}

// complete returns a copy of r that may be changed, with what a request has
// when it comes from a network, but not from an in-process transport.
func complete(r *http.Request) *http.Request {
	r = r.WithContext(r.Context())
	r.Header = r.Header.Clone()
	if r.Host == "" {
		r.Host = r.URL.Host
	}
	if r.Body == nil {
		r.Body = http.NoBody
	}
	if r.Header.Get("Content-Length") == "" && r.ContentLength >= 0 {
		r.Header.Set("Content-Length", strconv.FormatInt(r.ContentLength, 10))
	}
	return r
}

// authorized checks the signature of r, and answers r if it is wrong. The
// library could do this too, but only over headers that are still as signed.
func (s *Server) authorized(w http.ResponseWriter, r *http.Request) bool {
	if len(s.cfg.Keys) == 0 {
		return true
	}
	code := signature.V4SignVerifyWithLookup(r, func(access string) (string, bool) {
		secret, ok := s.cfg.Keys[access]
		return secret, ok
	})
	if code == signature.ErrNone {
		return true
	}
	e := signature.GetAPIError(code)
	answer(w, r, e.HTTPStatusCode, e.Code)
	return false
}

// answer loses the answer to r in the way f asks for.
func (f Fault) answer(w http.ResponseWriter, r *http.Request) {
	if f.Drop {
		panic(http.ErrAbortHandler)
	}
	switch {
	case f.Status == 0:
		f.Status = gofakes3.ErrorCode(f.Code).Status()
	case f.Code != "":
	case f.Status == http.StatusServiceUnavailable:
		f.Code = "SlowDown"
	default:
		f.Code = "InternalError"
	}
	answer(w, r, f.Status, f.Code)
}

// answer writes an error in the form S3 gives it.
func answer(w http.ResponseWriter, r *http.Request, status int, code string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	if r.Method == http.MethodHead {
		return
	}
	body, err := xml.Marshal(struct {
		XMLName       xml.Name `xml:"Error"`
		Code, Message string
	}{Code: code, Message: http.StatusText(status)})
	if err == nil {
		_, _ = w.Write(append([]byte(xml.Header), body...))
	}
}

// sleep waits for d, and reports whether ctx lasted that long.
func sleep(ctx context.Context, d time.Duration) bool {
	if d == 0 {
		return true
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// A void is where an answer goes to be lost.
type void struct{}

func (void) Header() http.Header         { return http.Header{} }
func (void) Write(p []byte) (int, error) { return len(p), nil }
func (void) WriteHeader(int)             {}

// An errorLog passes on what the library thinks an error and nothing else.
type errorLog struct{ log *slog.Logger }

func (l errorLog) Print(level gofakes3.LogLevel, v ...any) {
	if level == gofakes3.LogErr {
		l.log.Error("s3 request failed", "error", fmt.Sprint(v...))
	}
}
