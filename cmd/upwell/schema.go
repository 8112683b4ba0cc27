package main

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"upwell/jobs"
	"upwell/jobs/skim"
	"upwell/worker/mantle"
)

// schemaFlags say what the answers of a run have to be.
type schemaFlags struct {
	Schema []string `placeholder:"[NAME=]FILE" sep:"none" env:"UPWELL_SCHEMA" help:"JSON Schema that answers must satisfy. A FILE alone is for all jobs that have none; with NAME= it is for those that name it. May be repeated."`
}

// schemas are the JSON Schemas of a run.
type schemas struct {
	byName map[string]json.RawMessage
	rest   string // the name of the one for jobs that have none, or empty

	good map[[sha256.Size]byte]bool // those that jobs bring themselves
}

// read reads the files.
func (f *schemaFlags) read() (schemas, error) {
	s := schemas{byName: make(map[string]json.RawMessage), good: make(map[[sha256.Size]byte]bool)}
	for _, flag := range f.Schema {
		name, path, named := strings.Cut(flag, "=")
		if !named {
			path = flag
			name = strings.TrimSuffix(filepath.Base(path), filepath.Ext(path))
			if s.rest != "" {
				return s, fmt.Errorf("--schema %s: %q is for all jobs already: give the others a name, as NAME=FILE", flag, s.rest)
			}
			s.rest = name
		}
		if _, twice := s.byName[name]; twice || name == "" {
			return s, fmt.Errorf("--schema %s: want one file for each name", flag)
		}
		text, err := os.ReadFile(path)
		if err == nil {
			err = mantle.CheckSchema(text)
		}
		if err != nil {
			return s, fmt.Errorf("--schema %s: %w", flag, err)
		}
		s.byName[name] = text
	}
	return s, nil
}

// remembered is how many schemas that jobs bring themselves are remembered as good.
const remembered = 256

// check reports what is wrong with the schema of a job.
func (s *schemas) check(j jobs.Job) error {
	text := []byte(j.Schema)
	if len(text) == 0 {
		return nil
	}
	if text[0] == '"' {
		var name string
		if err := json.Unmarshal(text, &name); err != nil {
			return &jobs.FormatError{Field: "upwell.schema", Reason: err.Error()}
		}
		if _, ok := s.byName[name]; !ok {
			return &jobs.FormatError{Field: "upwell.schema", Reason: fmt.Sprintf("%.80q, but the run has no schema of that name: give it with --schema NAME=FILE", name)}
		}
		return nil
	}
	sum := sha256.Sum256(text)
	if s.good[sum] {
		return nil
	}
	if err := mantle.CheckSchema(text); err != nil {
		return &jobs.FormatError{Field: "upwell.schema", Reason: err.Error()}
	}
	if len(s.good) == remembered {
		clear(s.good)
	}
	s.good[sum] = true
	return nil
}

// give returns the job's text with the run's schema in it, if it is to have that.
func (s *schemas) give(j jobs.Job, text []byte) ([]byte, error) {
	if s.rest == "" || len(j.Schema) > 0 {
		return text, nil
	}
	name, err := json.Marshal(s.rest)
	if err != nil {
		return nil, err
	}
	return jobs.Set(text, []string{"upwell", "schema"}, name)
}

// of returns the schema that the answer of a job will be held to, or nil.
func (s *schemas) of(j jobs.Job) []byte {
	name := s.rest
	switch {
	case len(j.Schema) == 0:
	case j.Schema[0] == '"':
		name = skim.Unquote(j.Schema)
	default:
		return j.Schema
	}
	return s.byName[name]
}
