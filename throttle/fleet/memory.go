package fleet

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"

	"upwell/throttle"
)

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
	Save(ctx, func(ctx context.Context) error { return keep(ctx, board, set) }, func(err error) {
		log.WarnContext(ctx, "levels not kept", "err", err)
	})
}

func keep(ctx context.Context, board Board, set *throttle.Set) error {
	mine := set.Levels()
	if len(mine) == 0 {
		return nil
	}
	_, err := Update(ctx, board, func(data []byte) ([]byte, error) {
		var l levels
		_ = json.Unmarshal(data, &l) // what cannot be read is replaced
		if l.Lanes == nil {
			l.Lanes = make(map[throttle.Lane]throttle.Level)
		}
		maps.Copy(l.Lanes, mine)
		return json.Marshal(l)
	})
	return err // that others write all the time is no harm
}
