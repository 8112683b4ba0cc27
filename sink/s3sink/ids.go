package s3sink

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"sync"

	"upwell/sink"
)

// PutIDs stores a part of the index of what was submitted as a run, see
// [sink.IDsKey]. A part that is there already is written anew: it is the same,
// unless it was damaged. It tries for as long as [Sink.Put] does.
func (s *Sink) PutIDs(ctx context.Context, run, inputSHA256 string, part int, ids []string) error {
	body, err := sink.EncodeIDs(ids)
	if err != nil {
		return fmt.Errorf("s3 put: %w", err)
	}
	o := newObject(sink.IDsKey(s.prefix, run, inputSHA256, part), body)
	err = persist(ctx, func(ctx context.Context, _ int) error {
		in := s.input(o)
		in.ContentType, in.Body = new("application/gzip"), bytes.NewReader(o.body)
		_, err := s.client.PutObject(ctx, in)
		return s.explain("s3:PutObject", err)
	})
	return s.wrap("put", o.key, err)
}

// IDs yields the custom_ids that were submitted as the run of that manifest, in
// the order of the input. While one part of the index is read, the next one is
// fetched; no more is held. A manifest of an older upwell counts no parts, and keeps
// that when the same input is submitted again: there may be an index nevertheless.
// An error ends it; it is the last pair, names the part, and wraps
// [sink.ErrNoIndex] or [sink.ErrBadIndex] if that is the reason.
func (s *Sink) IDs(ctx context.Context, m sink.Manifest) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		parts := cmp.Or(m.IDParts, sink.IDParts(m.Count))
		if parts == 0 {
			yield("", fmt.Errorf("run %q: %w", m.Run, sink.ErrNoIndex))
			return
		}
		var fetching sync.WaitGroup
		defer fetching.Wait()
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		fetch := func(part int) <-chan idPart {
			c := make(chan idPart, 1)
			fetching.Go(func() { c <- s.idPart(ctx, m, part) })
			return c
		}
		next := fetch(0)
		for part := range parts {
			p := <-next
			if part+1 < parts {
				next = fetch(part + 1)
			}
			more, err := p.yield(yield)
			if err != nil {
				yield("", s.wrap("get", p.key, err))
			}
			if err != nil || !more {
				return
			}
		}
	}
}

// An idPart is a part of an index, or why there is none.
type idPart struct {
	key  string
	body []byte
	err  error
	want int // ids
}

func (s *Sink) idPart(ctx context.Context, m sink.Manifest, part int) idPart {
	p := idPart{key: sink.IDsKey(s.prefix, m.Run, m.InputSHA256, part), want: m.IDsIn(part)}
	p.body, p.err = s.read(ctx, p.key)
	switch {
	case !errors.Is(p.err, fs.ErrNotExist):
	case part == 0 && m.IDParts == 0:
		p.err = fmt.Errorf("run %q: %w", m.Run, sink.ErrNoIndex)
	default:
		p.err = fmt.Errorf("%w: %w", sink.ErrBadIndex, p.err)
	}
	return p
}

// yield yields the part's ids. It reports whether more are wanted.
func (p idPart) yield(yield func(string, error) bool) (more bool, err error) {
	if p.err != nil {
		return false, p.err
	}
	n := 0
	for id, err := range sink.DecodeIDs(p.body) {
		if err != nil {
			return false, fmt.Errorf("%w: %w", sink.ErrBadIndex, err)
		}
		if n++; n > p.want {
			break
		}
		if !yield(id, nil) {
			return false, nil
		}
	}
	if n != p.want {
		return false, fmt.Errorf("%w: it has not the %d ids that the manifest counts", sink.ErrBadIndex, p.want)
	}
	return true, nil
}
