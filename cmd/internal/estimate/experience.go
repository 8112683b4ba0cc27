package estimate

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"upwell/throttle/fleet"
	"upwell/worker"
)

// A Lesson is what answers of a kind have taken, all together. What came long ago
// counts less: when there are too many, all is halved.
//
// It is a storage type: fields may be added, and none may change its meaning.
type Lesson struct {
	Answers      float64 `json:"answers"`
	Bytes        float64 `json:"bytes"` // of the requests
	InputTokens  float64 `json:"input_tokens"`
	CachedTokens float64 `json:"cached_tokens"`
	OutputTokens float64 `json:"output_tokens"` // with the reasoning

	// Of repairs and extensions, which are calls beyond the first.
	MoreInput  float64 `json:"more_input_tokens"`
	MoreOutput float64 `json:"more_output_tokens"`

	Last time.Time `json:"last"` // when the last of them was learned
}

// ripe is how many answers a Lesson needs before it is believed, and full how many
// it remembers.
const (
	ripe = 10
	full = 20_000
)

// Ripe reports whether there are enough answers to go by.
func (l Lesson) Ripe() bool { return l.Answers >= ripe && l.Bytes > 0 }

// plus returns the two together.
func (l Lesson) plus(m Lesson) Lesson {
	sum := Lesson{
		l.Answers + m.Answers, l.Bytes + m.Bytes, l.InputTokens + m.InputTokens, l.CachedTokens + m.CachedTokens,
		l.OutputTokens + m.OutputTokens, l.MoreInput + m.MoreInput, l.MoreOutput + m.MoreOutput, later(l.Last, m.Last),
	}
	for sum.Answers > full {
		for _, v := range []*float64{
			&sum.Answers, &sum.Bytes, &sum.InputTokens, &sum.CachedTokens, &sum.OutputTokens, &sum.MoreInput, &sum.MoreOutput,
		} {
			*v /= 2
		}
	}
	return sum
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// kept is how many kinds the board holds. The one that nothing was learned of for
// longest goes first.
const kept = 200

// An Experience is what has been learned of each kind. It may be used concurrently.
type Experience struct {
	mu    sync.Mutex
	fresh map[Kind]Lesson // not on the board yet
}

// NewExperience returns one that nothing was learned with.
func NewExperience() *Experience { return &Experience{fresh: make(map[Kind]Lesson)} }

// Observe learns from what a worker does.
func (x *Experience) Observe(e worker.Event) {
	if e.Kind != worker.Attempted || e.Usage.InputTokens == 0 || e.Job == nil || len(e.Job.Body) == 0 {
		return
	}
	in, out := float64(e.Usage.InputTokens), float64(e.Usage.OutputTokens)
	l := Lesson{MoreInput: in, MoreOutput: out, Last: e.At}
	if e.Attempt.Turn == "" {
		l = Lesson{
			Answers: 1, Bytes: float64(len(e.Job.Body)), InputTokens: in, CachedTokens: float64(e.Usage.CachedTokens),
			OutputTokens: out, Last: e.At,
		}
	}
	kind := kindOf(e.Job)
	x.mu.Lock()
	defer x.mu.Unlock()
	x.fresh[kind] = x.fresh[kind].plus(l)
}

// Keep adds what was learned to the board once a minute until ctx is done, and then
// once more. It is no harm if that fails.
func (x *Experience) Keep(ctx context.Context, board fleet.Board, log *slog.Logger) {
	fleet.Save(ctx, func(ctx context.Context) error { return x.keep(ctx, board) }, func(err error) {
		log.WarnContext(ctx, "experience not kept", "err", err)
	})
}

// keep adds what was learned since the last time.
func (x *Experience) keep(ctx context.Context, board fleet.Board) error {
	x.mu.Lock()
	fresh := maps.Clone(x.fresh)
	clear(x.fresh)
	x.mu.Unlock()
	if len(fresh) == 0 {
		return nil
	}
	err := add(ctx, board, fresh)
	if err != nil { // next time
		x.mu.Lock()
		defer x.mu.Unlock()
		merge(x.fresh, fresh)
	}
	return err
}

func add(ctx context.Context, board fleet.Board, fresh map[Kind]Lesson) error {
	done, err := fleet.Update(ctx, board, func(data []byte) ([]byte, error) {
		all, err := decode(data)
		if err != nil {
			return nil, err
		}
		merge(all, fresh)
		return encode(all)
	})
	if err == nil && !done {
		err = errors.New("experience: others write all the time")
	}
	return err
}

func merge(into, from map[Kind]Lesson) {
	for kind, l := range from {
		into[kind] = into[kind].plus(l)
	}
}

// Recall returns what is on the board.
func Recall(ctx context.Context, board fleet.Board) (map[Kind]Lesson, error) {
	data, _, err := board.Read(ctx)
	if err != nil {
		return nil, err
	}
	return decode(data)
}

// A line is a Lesson as it is stored.
type line struct {
	Model    string `json:"model"`
	Template string `json:"template_sha256,omitzero"`
	Images   bool   `json:"images,omitzero"`
	Lesson
}

func encode(all map[Kind]Lesson) ([]byte, error) {
	lines := make([]line, 0, len(all))
	for kind, l := range all {
		lines = append(lines, line{kind.Model, kind.Template, kind.Images, l})
	}
	slices.SortFunc(lines, func(a, b line) int {
		return cmp.Or(b.Last.Compare(a.Last), cmp.Compare(a.Model, b.Model), cmp.Compare(a.Template, b.Template), cmp.Compare(a.Answers, b.Answers))
	})
	return json.Marshal(lines[:min(len(lines), kept)])
}

func decode(data []byte) (map[Kind]Lesson, error) {
	all := make(map[Kind]Lesson)
	if len(data) == 0 {
		return all, nil
	}
	var lines []line
	if err := json.Unmarshal(data, &lines); err != nil {
		return nil, fmt.Errorf("experience: %w", err)
	}
	for _, l := range lines {
		all[Kind{l.Model, l.Template, l.Images}] = l.Lesson
	}
	return all, nil
}
