package s3sink

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"

	"upwell/jobs"
	"upwell/sink"
)

// ReadRaw returns the stored line of a job as it is, byte for byte. When there is
// none, the error wraps [fs.ErrNotExist].
func (s *Sink) ReadRaw(ctx context.Context, kind sink.Kind, k jobs.Key) ([]byte, error) {
	return s.raw(ctx, kind.Key(s.prefix, k))
}

// Settled returns the line that a job ended with: its result, or else its error
// line. It costs a GET for an answered job and two for a failed one. When there is
// neither, the error wraps [fs.ErrNotExist].
func (s *Sink) Settled(ctx context.Context, k jobs.Key) (line []byte, kind sink.Kind, err error) {
	line, err = s.ReadRaw(ctx, sink.Results, k)
	if !errors.Is(err, fs.ErrNotExist) {
		return line, sink.Results, err
	}
	line, err = s.ReadRaw(ctx, sink.Errors, k)
	return line, sink.Errors, err
}

// ReadStanding returns the line that a listing found, if it stands. An error line
// does not when the job has a result as well: it is history then, and nil is
// returned. That costs a HEAD more for each error line. When the line is not of the job
// that its place is for, the error wraps [sink.ErrLine].
func (s *Sink) ReadStanding(ctx context.Context, kind sink.Kind, o Object) (line []byte, err error) {
	if line, err = s.raw(ctx, o.Path); err != nil {
		return nil, err
	}
	k, err := s.keyOf(kind, o, line)
	if err != nil {
		return nil, s.wrap("get", o.Path, err)
	}
	if kind == sink.Results {
		return line, nil
	}
	answered, err := s.Has(ctx, k)
	if err != nil || answered {
		return nil, err
	}
	return line, nil
}

// keyOf returns the job that the line in an object is of, if it is in its place.
func (s *Sink) keyOf(kind sink.Kind, o Object, line []byte) (jobs.Key, error) {
	var r struct {
		CustomID string `json:"custom_id"`
	}
	if err := json.Unmarshal(line, &r); err != nil {
		return jobs.Key{}, fmt.Errorf("%w: %w", sink.ErrLine, err)
	}
	k := jobs.Key{Run: o.Key.Run, CustomID: r.CustomID}
	if kind.Key(s.prefix, k) != o.Path {
		return jobs.Key{}, fmt.Errorf("%w of this place: it is of job %q", sink.ErrLine, r.CustomID)
	}
	return k, nil
}

func (s *Sink) raw(ctx context.Context, key string) ([]byte, error) {
	b, err := s.read(ctx, key)
	return b, s.wrap("get", key, err)
}
