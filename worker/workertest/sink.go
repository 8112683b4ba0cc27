package workertest

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"sync"
	"testing"

	"upwell/jobs"
)

// A Sink is a [worker.Sink] in memory. The first result of a job stays.
//
// It fails the test when what it is given is not a line of an output file, or is
// filed under a key that is not its own.
type Sink struct {
	T       testing.TB
	Fault   Fault
	Latency Latency

	Schemas map[string]json.RawMessage // of every run, by name

	mu      sync.Mutex
	bodies  map[string][]byte
	results map[jobs.Key]jobs.Result
	errors  map[jobs.Key]jobs.Result
	told    map[jobs.Key]bool // a caller was told that its result is the one
	calls   map[Op]int
}

// Put implements [worker.Sink].
func (s *Sink) Put(ctx context.Context, k jobs.Key, r jobs.Result) (stored bool, err error) {
	s.police(k, r)
	if r.Response == nil || r.Error != nil {
		s.T.Errorf("Put of %s with response %v and error %v, want a response and no error", k, r.Response, r.Error)
	}
	err = s.do(ctx, Put, k, func() {
		if _, ok := s.results[k]; ok {
			return
		}
		if s.told[k] {
			s.T.Errorf("a second result of %s is stored", k)
		}
		s.results[k], stored = r, true
	})
	if err != nil {
		return false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.told[k] = s.told[k] || stored
	return stored, nil
}

// PutError implements [worker.Sink].
func (s *Sink) PutError(ctx context.Context, k jobs.Key, r jobs.Result) error {
	s.police(k, r)
	if r.Error == nil || r.Error.Code == "" || r.Error.Message == "" {
		s.T.Errorf("PutError of %s with %+v, want a code and a message", k, r.Error)
	}
	return s.do(ctx, PutError, k, func() { s.errors[k] = r })
}

// Failure implements [worker.Sink].
func (s *Sink) Failure(ctx context.Context, k jobs.Key) (r jobs.Result, ok bool, err error) {
	err = s.do(ctx, Failure, k, func() { r, ok = s.errors[k] })
	return r, ok && err == nil, err
}

// PutBody implements [worker.Sink].
func (s *Sink) PutBody(ctx context.Context, k jobs.Key, message string, body []byte) (ref string, err error) {
	ref = "s3://test/" + k.Run + "/" + cmp.Or(k.CustomID, message)
	err = s.do(ctx, PutBody, k, func() { s.bodies[ref] = bytes.Clone(body) })
	return ref, err
}

// Body returns what PutBody has stored, or nil.
func (s *Sink) Body(ref string) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bodies[ref]
}

// Schema implements [worker.Sink].
func (s *Sink) Schema(ctx context.Context, run, name string) (text json.RawMessage, ok bool, err error) {
	err = s.do(ctx, Schema, jobs.Key{Run: run, CustomID: name}, func() { text, ok = s.Schemas[name] })
	return text, ok && err == nil, err
}

// Has implements [worker.Sink].
func (s *Sink) Has(ctx context.Context, k jobs.Key) (has bool, err error) {
	err = s.do(ctx, Has, k, func() { _, has = s.results[k] })
	return has && err == nil, err
}

// police checks what holds for every line.
func (s *Sink) police(k jobs.Key, r jobs.Result) {
	if k.CustomID == "" || r.CustomID != k.CustomID || r.Upwell.Run != k.Run || r.ID != k.RequestID() {
		s.T.Errorf("result of %s/%s, id %s, filed under %s", r.Upwell.Run, r.CustomID, r.ID, k)
	}
	if r.Upwell.Finished.IsZero() || r.Upwell.InputSHA256 == "" {
		s.T.Errorf("result of %s does not say when and of what: %+v", k, r.Upwell)
	}
	if _, err := json.Marshal(r); err != nil {
		s.T.Errorf("result of %s: %v", k, err)
	}
}

// do runs an operation with s.mu held.
func (s *Sink) do(ctx context.Context, op Op, k jobs.Key, effect func()) error {
	s.mu.Lock()
	if s.calls == nil {
		s.calls, s.told = make(map[Op]int), make(map[jobs.Key]bool)
		s.bodies = make(map[string][]byte)
		s.results, s.errors = make(map[jobs.Key]jobs.Result), make(map[jobs.Key]jobs.Result)
	}
	s.calls[op]++
	s.mu.Unlock()
	apply, err := s.Fault.decide(op, k.String())
	if !apply {
		return err
	}
	if err := s.Latency.half(ctx, op); err != nil {
		return err
	}
	s.mu.Lock()
	effect()
	s.mu.Unlock()
	return errors.Join(err, s.Latency.half(ctx, op))
}

// Results returns what is stored.
func (s *Sink) Results() map[jobs.Key]jobs.Result {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.results)
}

// Errors returns the error lines.
func (s *Sink) Errors() map[jobs.Key]jobs.Result {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.errors)
}

// Calls reports how many calls of op there were.
func (s *Sink) Calls(op Op) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[op]
}

// stored reports whether the job has a result.
func (s *Sink) stored(k jobs.Key) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.results[k]
	return ok
}

// failed reports whether the job has an error line.
func (s *Sink) failed(k jobs.Key) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.errors[k]
	return ok
}
