package fleet

import (
	"context"
	"time"
)

// saveEvery is how often something is saved: a worker that is killed has lost what it
// learned in a minute.
const saveEvery = time.Minute

// Save calls save once a minute until ctx is done, and then once more, for a few
// seconds at most. failed is told of its errors, but not of the last one's: nobody is
// left to be told.
func Save(ctx context.Context, save func(context.Context) error, failed func(error)) {
	t := time.NewTicker(saveEvery)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			if err := save(ctx); err != nil && ctx.Err() == nil {
				failed(err)
			}
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), farewell)
			defer cancel()
			_ = save(last)
			return
		}
	}
}

// Update replaces what is on the board by what change makes of it. When somebody else
// has written meanwhile, it tries again with what is there then, a few times; done is
// false, and there is no error, if somebody always had.
func Update(ctx context.Context, board Board, change func(data []byte) ([]byte, error)) (done bool, err error) {
	for range tries {
		data, version, err := board.Read(ctx)
		if err != nil {
			return false, err
		}
		if data, err = change(data); err != nil {
			return false, err
		}
		if done, err := board.Write(ctx, data, version); done || err != nil {
			return done, err
		}
	}
	return false, nil
}
