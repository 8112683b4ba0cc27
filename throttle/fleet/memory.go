package fleet

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"time"

	"upwell/throttle"
)

// keepEvery is how often levels are written: a worker that is killed has lost what
// it learned in a minute.
const keepEvery = time.Minute

// levels is what a board of levels holds.
type levels struct {
	Lanes map[throttle.Lane]throttle.Level `json:"lanes"`
}

// Recall returns the levels that an earlier worker left on the board; none if there
// was no such worker.
func Recall(ctx context.Context, board Board) (map[throttle.Lane]throttle.Level, error) {
	data, _, err := board.Read(ctx)
	if err != nil || len(data) == 0 {
		return nil, err
	}
	var l levels
	if err := json.Unmarshal(data, &l); err != nil {
		return nil, fmt.Errorf("remembered levels: %w", err)
	}
	return l.Lanes, nil
}

// Keep writes the set's levels to the board once a minute until ctx is done, and
// then once more. What other workers remember of other lanes stays. It is no harm
// if it fails: the next worker then begins where this one did.
func Keep(ctx context.Context, board Board, set *throttle.Set, log *slog.Logger) {
	t := time.NewTicker(keepEvery)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			if err := keep(ctx, board, set); err != nil && ctx.Err() == nil {
				log.WarnContext(ctx, "levels not kept", "err", err)
			}
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), farewell)
			defer cancel()
			_ = keep(last, board, set) // nobody is left to be told
			return
		}
	}
}

func keep(ctx context.Context, board Board, set *throttle.Set) error {
	mine := set.Levels()
	if len(mine) == 0 {
		return nil
	}
	for range tries {
		data, version, err := board.Read(ctx)
		if err != nil {
			return err
		}
		var l levels
		_ = json.Unmarshal(data, &l) // what cannot be read is replaced
		if l.Lanes == nil {
			l.Lanes = make(map[throttle.Lane]throttle.Level)
		}
		maps.Copy(l.Lanes, mine)
		if data, err = json.Marshal(l); err != nil {
			return err
		}
		if ok, err := board.Write(ctx, data, version); ok || err != nil {
			return err
		}
	}
	return nil
}
