// Package estimate says what a run will take before anything is paid for: tokens,
// money on each service tier, and time.
//
// A [Tally] reads the jobs. What they will be answered with nobody knows, but jobs
// of one kind, which is a model and a template, are much alike: an [Experience]
// remembers what earlier answers of a kind have taken, and lies in the bucket
// beside the runs. A trial of a hundred jobs therefore makes the estimate of the
// other 19,900 a good one; without any, prompts are counted by a rule of thumb, and
// answers by their limit.
package estimate

import (
	"bytes"
	"encoding/json"

	"upwell/cmd/internal/prompt"
	"upwell/jobs"
	"upwell/jobs/skim"
)

// A Kind is what jobs have in common that are much alike.
type Kind struct {
	Model    string
	Template string // SHA-256, in hexadecimal, or empty
	Images   bool   // whose bytes and tokens have little to do with each other
}

// kindOf returns the kind of a job.
func kindOf(j *jobs.Job) Kind {
	return Kind{j.Model, j.TemplateSHA256, bytes.Contains(j.Body, imageStart)}
}

// imageStart is what an image in a request begins with.
var imageStart = []byte(`"data:image/`)

const (
	// counted is how many jobs of a kind have their tokens counted, one after the
	// other, before only one in thinned is: their sizes vary, and their tokens per
	// byte do not.
	counted = 1000
	thinned = 50

	// maxKinds is how many kinds are told apart. The others count as one.
	maxKinds = 1000
)

// A Load is what the jobs of a kind ask for.
type Load struct {
	Jobs   int
	Bytes  int64 // of the requests
	Images int

	sampledBytes, sampledTokens int64
	schemas                     int64 // tokens of the schemas that go along, which are in no request yet
	limits                      int64 // sum of the output limits of those that have one
	unlimited                   int   // how many have none
}

// Tokens is about how many tokens the prompts have, by the rule of thumb, their schemas
// included. It does not count images.
func (l Load) Tokens() int64 {
	if l.sampledBytes == 0 {
		return 0
	}
	return int64(float64(l.sampledTokens)*float64(l.Bytes)/float64(l.sampledBytes)) + l.schemas
}

// A Tally is what the jobs of a run ask for, by their kind. It may not be used
// concurrently.
type Tally struct {
	Loads map[Kind]*Load
	Tier  string // that the first job begins on, or empty if it does not say

	bySchema map[string]int // tokens of schemas that were met
}

// NewTally returns a Tally of no jobs.
func NewTally() *Tally { return &Tally{Loads: make(map[Kind]*Load), bySchema: make(map[string]int)} }

// Add reads a job. schema is what its answer will be held to, or nil: it becomes a part
// of the prompt.
func (t *Tally) Add(j jobs.Job, schema []byte) {
	if len(t.Loads) == 0 {
		if t.Tier = j.Tier; len(j.Tiers) > 0 {
			t.Tier = j.Tiers[0]
		}
	}
	l := t.load(kindOf(&j))
	l.Jobs++
	l.Bytes += int64(len(j.Body))
	if limit := limitOf(j); limit > 0 {
		l.limits += limit
	} else {
		l.unlimited++
	}
	if l.Jobs <= counted || l.Jobs%thinned == 0 {
		tokens, images := read(j.Body)
		l.sampledBytes += int64(len(j.Body))
		l.sampledTokens += int64(tokens)
		l.Images += images
	}
	l.schemas += int64(t.schema(schema))
}

// load returns the load of a kind.
func (t *Tally) load(kind Kind) *Load {
	if t.Loads[kind] == nil && len(t.Loads) >= maxKinds {
		kind.Template = ""
	}
	l := t.Loads[kind]
	if l == nil {
		l = new(Load)
		t.Loads[kind] = l
	}
	return l
}

// maxSchemas is how many schemas are remembered. Jobs mostly share a few.
const maxSchemas = 256

// schema returns how many tokens a schema has.
func (t *Tally) schema(text []byte) int {
	if len(text) == 0 {
		return 0
	}
	n, ok := t.bySchema[string(text)]
	if !ok {
		if len(t.bySchema) >= maxSchemas {
			clear(t.bySchema)
		}
		n = prompt.Tokens(string(text))
		t.bySchema[string(text)] = n
	}
	return n
}

// limitOf returns how many output tokens the body lets the answer have, or zero.
func limitOf(j jobs.Job) int64 {
	names := []string{"max_output_tokens"}
	if j.URL == jobs.ChatCompletions {
		names = []string{"max_completion_tokens", "max_tokens"}
	}
	for _, name := range names {
		var n int64
		if m := skim.Find(j.Body, 0, name); m.End > 0 && json.Unmarshal(m.Of(j.Body), &n) == nil && n > 0 {
			return n
		}
	}
	return 0
}

// read counts the tokens of all text in a JSON value, and the images.
func read(value []byte) (tokens, images int) {
	if len(value) == 0 {
		return 0, 0
	}
	add := func(v []byte) {
		t, i := read(v)
		tokens, images = tokens+t, images+i
	}
	switch value[0] {
	case '{':
		for m := range skim.Members(value, 0) {
			add(m.Of(value))
		}
	case '[':
		for item := range skim.Items(value, 0) {
			add(item.Of(value))
		}
	case '"':
		if bytes.HasPrefix(value, imageStart) {
			return 0, 1
		}
		return prompt.Tokens(skim.Unquote(value)), 0
	}
	return tokens, images
}
