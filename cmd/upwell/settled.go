package main

import (
	"context"
	"errors"
	"hash/maphash"
	"io/fs"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"upwell/jobs"
	"upwell/sink"
	"upwell/sink/s3sink"
)

// settled reports whether the job has an answer, or has failed for good, which does
// not count if that is to be retried.
func settled(ctx context.Context, results *s3sink.Sink, k jobs.Key, retryFailed bool) (bool, error) {
	has, err := results.Has(ctx, k)
	if err != nil || has || retryFailed {
		return has, err
	}
	_, err = results.Read(ctx, sink.Errors, k)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// prepareLookUps chooses how so many jobs are looked up: one by one, or in listings of
// all that is settled, whichever takes fewer requests.
func (s *submission) prepareLookUps(ctx context.Context, doubtful int) error {
	const page, shards = 1000, 256
	if doubtful < s.total/page+shards {
		s.lookUp = func(ctx context.Context, k jobs.Key) (bool, error) {
			return settled(ctx, s.results, k, s.retryFailed)
		}
		return nil
	}
	kinds := []sink.Kind{sink.Results, sink.Errors}
	if s.retryFailed {
		kinds = kinds[:1]
	}
	r, err := listSettled(ctx, s.results, s.name, kinds)
	s.lookUp = func(_ context.Context, k jobs.Key) (bool, error) {
		return slices.ContainsFunc(kinds, func(kind sink.Kind) bool { return r.has(s.results.Path(kind, k)) }), nil
	}
	return err
}

// A roll is a set of paths, by their hashes: 8 bytes for each, and one in a million
// rolls of five million paths takes another path for one of its own.
type roll struct {
	seed   maphash.Seed
	hashes []uint64 // sorted
}

func (r *roll) has(path string) bool {
	_, found := slices.BinarySearch(r.hashes, maphash.String(r.seed, path))
	return found
}

// listSettled returns where the lines of a run's jobs are.
func listSettled(ctx context.Context, results *s3sink.Sink, run string, kinds []sink.Kind) (*roll, error) {
	r := &roll{seed: maphash.MakeSeed()}
	var mu sync.Mutex // for r.hashes
	g, listing := errgroup.WithContext(ctx)
	g.SetLimit(senders)
	for _, kind := range kinds {
		shards, err := results.Shards(ctx, run, kind)
		if err != nil {
			return nil, errors.Join(err, g.Wait())
		}
		for _, shard := range shards {
			g.Go(func() error {
				var hashes []uint64
				for o, err := range results.ListShard(listing, run, kind, shard) {
					if err != nil {
						return err
					}
					hashes = append(hashes, maphash.String(r.seed, o.Path))
				}
				mu.Lock()
				defer mu.Unlock()
				r.hashes = append(r.hashes, hashes...)
				return nil
			})
		}
	}
	err := g.Wait()
	slices.Sort(r.hashes)
	return r, err
}
