package mantle

import (
	"strings"
	"sync"
)

// The base paths of bedrock-mantle's OpenAI APIs.
const (
	pathV1       = "/v1"
	pathOpenAIV1 = "/openai/v1"
)

// DefaultPaths returns the base paths of models at bedrock-mantle, by the
// beginning of their names. The empty name stands for every other model.
//
// Sources: the model card of Grok 4.3 and the Responses API page in the Amazon
// Bedrock user guide for Grok and for the rest; users' reports for GPT-5 and
// Gemma 4.
func DefaultPaths() map[string]string {
	return map[string]string{
		"xai.grok-":      pathOpenAIV1,
		"openai.gpt-5":   pathOpenAIV1,
		"google.gemma-4": pathOpenAIV1,
		"":               pathV1,
	}
}

// routes knows each model's base path.
type routes struct {
	table map[string]string // by prefix; never modified

	mu      sync.Mutex
	flipped map[string]bool // models whose entry in table proved wrong
}

// path returns the model's base path as far as is known.
func (r *routes) path(model string) string {
	p := r.entry(model)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.flipped[model] {
		return otherPath(p)
	}
	return p
}

// flip is told that tried is not the model's path, and returns the one to try
// instead, or false if there is none. The model's path changes once at most;
// calls that were under way on the old one meanwhile are told the new one.
func (r *routes) flip(model, tried string) (string, bool) {
	p := r.entry(model)
	r.mu.Lock()
	defer r.mu.Unlock()
	if tried != p || otherPath(p) == "" {
		return "", false
	}
	r.flipped[model] = true
	return otherPath(p), true
}

// entry returns the table's path for the model.
func (r *routes) entry(model string) string {
	var path string
	longest := -1
	for prefix, p := range r.table {
		if len(prefix) > longest && strings.HasPrefix(model, prefix) {
			path, longest = p, len(prefix)
		}
	}
	return path
}

// otherPath returns the other of the two base paths, or nothing for a third.
func otherPath(p string) string {
	switch p {
	case pathV1:
		return pathOpenAIV1
	case pathOpenAIV1:
		return pathV1
	default:
		return ""
	}
}
