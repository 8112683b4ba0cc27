package s3sink

import (
	"context"
	"fmt"
	"path"
	"strings"

	"upwell/jobs"
	"upwell/sink"
)

// PutBody stores the body of a message whose dead letter has no room for it, in
// the place of any earlier one, and returns its s3 URL: see [sink.BodyKey]. It
// tries for as long as [Sink.Put] does.
func (s *Sink) PutBody(ctx context.Context, k jobs.Key, messageID string, body []byte) (ref string, err error) {
	o := newObject(sink.BodyKey(s.prefix, k, messageID), body)
	return s.uri(o.key), s.replace(ctx, o)
}

// Body returns what [Sink.PutBody] stored. References come from messages, which
// anybody who may send one can write: one that leads out of this sink's runs is
// refused. When there is nothing, the error wraps [fs.ErrNotExist].
func (s *Sink) Body(ctx context.Context, ref string) ([]byte, error) {
	key, ours := strings.CutPrefix(ref, s.uri(""))
	if !ours || !strings.HasPrefix(key, sink.Root(s.prefix)) || path.Clean(key) != key {
		return nil, fmt.Errorf("s3 get: %.200q is not in %s: name the bucket and prefix that the worker had", ref, s.uri(sink.Root(s.prefix)))
	}
	return s.raw(ctx, key)
}
