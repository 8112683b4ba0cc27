package worker

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"

	"upwell/jobs"
)

// findSchema puts the schema that the job names in the place of its name, and returns
// how the job ends if that cannot be.
func (t *task) findSchema(wait context.Context) *ending {
	if len(t.job.Schema) == 0 || t.job.Schema[0] != '"' {
		return nil
	}
	var name string
	if err := json.Unmarshal(t.job.Schema, &name); err != nil {
		return new(t.bury(jobs.BadJob, fmt.Sprintf("upwell.schema: %v", err)))
	}
	text, err := t.w.schemas.find(wait, t.w.sink, schemaName{t.job.Run, name})
	switch {
	case wait.Err() != nil:
		return new(released(0, context.Cause(wait)))
	case err != nil:
		t.w.cfg.Log.WarnContext(wait, "schema not read", "job", t.job.Key.String(), "err", err)
		return new(released(troubleDelay, err))
	case text == nil:
		return new(t.bury(jobs.BadJob, fmt.Sprintf("upwell.schema: the manifest of run %s has no schema %.80q: submit the run with --schema", t.job.Run, name)))
	}
	t.job.Schema = text
	return nil
}

// maxSchemas bounds the schemas that are remembered.
const maxSchemas = 64

type schemaName struct{ run, name string }

// schemas remembers what the schemas of runs say, which never changes.
type schemas struct {
	mu     sync.Mutex
	byName map[schemaName]*namedSchema
}

// A namedSchema is a schema, or who finds out what it says.
type namedSchema struct {
	turn chan struct{} // taken while the sink is asked, so that hundreds of jobs ask once
	text json.RawMessage
}

func newSchemas() *schemas { return &schemas{byName: make(map[schemaName]*namedSchema)} }

// find returns the schema, or nil if the run has none of that name.
func (s *schemas) find(ctx context.Context, from Sink, n schemaName) (json.RawMessage, error) {
	named := s.entry(n)
	select {
	case named.turn <- struct{}{}:
		defer func() { <-named.turn }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if named.text != nil {
		return named.text, nil
	}
	text, ok, err := from.Schema(ctx, n.run, n.name)
	if err == nil && ok {
		named.text = text
	}
	return named.text, err
}

func (s *schemas) entry(n schemaName) *namedSchema {
	s.mu.Lock()
	defer s.mu.Unlock()
	named := s.byName[n]
	if named == nil {
		if len(s.byName) >= maxSchemas {
			clear(s.byName) // who waits for one still has it
		}
		named = &namedSchema{turn: make(chan struct{}, 1)}
		s.byName[n] = named
	}
	return named
}
