package worker

import (
	"context"
	"encoding/json"
	"sync/atomic"
	"time"

	"upwell/jobs"
)

// requests counts those under way that messages wait for, and tells of each that ends.
type requests struct {
	w            *Worker
	source, sink atomic.Int64
	retrying     atomic.Int64 // jobs whose call failed, and is soon made again
	full         atomic.Int64 // how long after the worker's birth a receive last brought all that it asked for
	failing      atomic.Bool  // the last receive has failed
}

// retry sleeps before a request is made again, which counts as waiting for it.
func (r *requests) retry(ctx context.Context, waiting *atomic.Int64, d time.Duration) {
	waiting.Add(1)
	defer waiting.Add(-1)
	sleep(ctx, d)
}

// watched times do, which is a request of that kind, and tells how it ended.
func (r *requests) watched(op Op, waiting *atomic.Int64, e Event, do func() error) {
	if waiting != nil {
		waiting.Add(1)
		defer waiting.Add(-1)
	}
	start := time.Now()
	e.Err = do()
	e.Kind, e.Op, e.Took = Requested, op, time.Since(start)
	r.w.observe(e)
}

// A watchedSource is a Source whose requests are told of.
type watchedSource struct {
	Source
	*requests
}

// Receive implements Source.
func (s watchedSource) Receive(ctx context.Context, n int, hide time.Duration) (ms []jobs.Message, err error) {
	start := time.Now()
	ms, err = s.Source.Receive(ctx, n, hide)
	now := time.Since(s.w.born)
	if ctx.Err() == nil {
		s.failing.Store(err != nil)
	}
	if err == nil && len(ms) == n {
		s.full.Store(int64(now))
	}
	s.w.observe(Event{Kind: Requested, Op: OpReceive, Took: time.Since(start), Parts: len(ms), Err: err})
	return ms, err
}

// Hide implements Source. No message waits for a heartbeat.
func (s watchedSource) Hide(ctx context.Context, m jobs.Message, d time.Duration) (err error) {
	s.watched(OpHide, nil, Event{Message: m.ID}, func() error { err = s.Source.Hide(ctx, m, d); return err })
	return err
}

// Release implements Source.
func (s watchedSource) Release(ctx context.Context, m jobs.Message, d time.Duration) (err error) {
	s.watched(OpRelease, &s.source, Event{Message: m.ID}, func() error { err = s.Source.Release(ctx, m, d); return err })
	return err
}

// Ack implements Source.
func (s watchedSource) Ack(ctx context.Context, m jobs.Message) (err error) {
	s.watched(OpAck, &s.source, Event{Message: m.ID}, func() error { err = s.Source.Ack(ctx, m); return err })
	return err
}

// Bury implements Source.
func (s watchedSource) Bury(ctx context.Context, m jobs.Message, l jobs.DeadLetter) (err error) {
	s.watched(OpBury, &s.source, Event{Message: m.ID, Key: l.Key}, func() error { err = s.Source.Bury(ctx, m, l); return err })
	return err
}

// Split implements Source.
func (s watchedSource) Split(ctx context.Context, m jobs.Message, bodies [][]byte) (err error) {
	s.watched(OpSplit, &s.source, Event{Message: m.ID}, func() error { err = s.Source.Split(ctx, m, bodies); return err })
	return err
}

// A watchedSink is a Sink whose requests are told of.
type watchedSink struct {
	Sink
	*requests
}

// Put implements Sink.
func (s watchedSink) Put(ctx context.Context, k jobs.Key, r jobs.Result) (stored bool, err error) {
	s.watched(OpPut, &s.sink, Event{Key: k}, func() error { stored, err = s.Sink.Put(ctx, k, r); return err })
	return stored, err
}

// PutError implements Sink.
func (s watchedSink) PutError(ctx context.Context, k jobs.Key, r jobs.Result) (err error) {
	s.watched(OpPutError, &s.sink, Event{Key: k}, func() error { err = s.Sink.PutError(ctx, k, r); return err })
	return err
}

// PutBody implements Sink.
func (s watchedSink) PutBody(ctx context.Context, k jobs.Key, message string, body []byte) (ref string, err error) {
	s.watched(OpPutBody, &s.sink, Event{Key: k, Message: message}, func() error { ref, err = s.Sink.PutBody(ctx, k, message, body); return err })
	return ref, err
}

// Has implements Sink.
func (s watchedSink) Has(ctx context.Context, k jobs.Key) (has bool, err error) {
	s.watched(OpHas, &s.sink, Event{Key: k}, func() error { has, err = s.Sink.Has(ctx, k); return err })
	return has, err
}

// Failure implements Sink.
func (s watchedSink) Failure(ctx context.Context, k jobs.Key) (r jobs.Result, ok bool, err error) {
	s.watched(OpFailure, &s.sink, Event{Key: k}, func() error { r, ok, err = s.Sink.Failure(ctx, k); return err })
	return r, ok, err
}

// Schema implements Sink.
func (s watchedSink) Schema(ctx context.Context, run, name string) (text json.RawMessage, ok bool, err error) {
	s.watched(OpSchema, &s.sink, Event{Key: jobs.Key{Run: run}}, func() error { text, ok, err = s.Sink.Schema(ctx, run, name); return err })
	return text, ok, err
}
