package mantle

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

const (
	// MaxSchema is the largest schema that is taken, in bytes. Schemas of a
	// thousand fields are a fifth of that.
	MaxSchema = 256 << 10

	// maxSchemas bounds the compiled schemas that are kept. A run has one or a
	// few; only jobs that each bring their own come to more.
	maxSchemas = 256

	// maxFindings bounds what a schema error quotes, in bytes: enough for a
	// repair turn to act on, little enough for a dead letter's attributes.
	maxFindings = 2 << 10

	// maxWork bounds the comparisons of an answer with a schema's parts: schemas
	// come from anybody, and one of a few lines can ask for 2^100. A list of
	// 20,000 objects takes some 60,000, and the bound is reached within about a
	// second.
	maxWork = 1 << 20
)

// CheckSchema reports what is wrong with a JSON Schema that jobs are to have. It
// may be of any draft from 4 to 2020-12, must be an object, and may refer to
// nothing outside of itself.
func CheckSchema(text []byte) error {
	return (&schema{}).compile(bytes.TrimSpace(text))
}

// A schema is a compiled JSON Schema.
type schema struct {
	once   sync.Once
	hash   string // SHA-256 of its text, in hexadecimal
	narrow []byte // its text, without what xAI's models refuse
	err    error

	mu       sync.Mutex // one check at a time, as they share the count
	compiled *jsonschema.Schema
	work     int // of the check under way
}

// errWork is the error of a check that takes too long.
var errWork = errors.New("to check the answer against the schema takes too many steps: its anyOf, oneOf and $ref multiply each other")

// check returns what the validator finds wrong with v.
func (s *schema) check(v any) (err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.work = 0
	defer func() {
		if r := recover(); r == errWork { //nolint:errorlint // it is the very value
			err = errWork
		} else if r != nil {
			panic(r)
		}
	}()
	return s.compiled.Validate(v)
}

// A finding is one thing that is wrong with an answer.
type finding struct {
	at      string // JSON pointer to where it is
	keyword string // of the schema that says so
	text    string // the validator's word, which may quote the answer
}

// findings lists what the validator has found, up to a length that fits anywhere.
func findings(err error) (all []finding) {
	invalid, ok := errors.AsType[*jsonschema.ValidationError](err)
	if !ok {
		return []finding{{text: err.Error()}}
	}
	size := 0
	for _, unit := range invalid.BasicOutput().Errors {
		if unit.Error == nil || size > maxFindings {
			continue
		}
		f := finding{unit.InstanceLocation, unit.KeywordLocation[strings.LastIndexByte(unit.KeywordLocation, '/')+1:], unit.Error.String()}
		size += len(f.at) + len(f.text)
		all = append(all, f)
	}
	return all
}

// accepted returns text, the schema's own, as the model's API takes it.
func (s *schema) accepted(text []byte, model string) []byte {
	if strings.HasPrefix(model, "xai.") || strings.HasPrefix(model, "grok-") {
		return s.narrow
	}
	return text
}

// schemas compiles schemas, each once.
type schemas struct {
	mu     sync.Mutex
	byHash map[[sha256.Size]byte]*schema
}

func (c *schemas) compile(text []byte) (*schema, error) {
	if len(text) > MaxSchema { // before anything is done with it
		return nil, fmt.Errorf("%d bytes long, want at most %d", len(text), MaxSchema)
	}
	s := c.entry(text)
	s.once.Do(func() { s.err = s.compile(text) })
	return s, s.err
}

func (c *schemas) entry(text []byte) *schema {
	hash := sha256.Sum256(text)
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.byHash[hash]; s != nil {
		return s
	}
	for old := range c.byHash {
		if len(c.byHash) < maxSchemas {
			break
		}
		delete(c.byHash, old) // any: who uses it still has it
	}
	s := &schema{hash: hex.EncodeToString(hash[:])}
	c.byHash[hash] = s
	return s
}

func (s *schema) compile(text []byte) error {
	switch {
	case len(text) > MaxSchema:
		return fmt.Errorf("%d bytes long, want at most %d", len(text), MaxSchema)
	case !bytes.HasPrefix(text, []byte("{")):
		return errors.New("not a JSON object, want a JSON Schema")
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return err
	}
	const name = "job:///schema.json"
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	c.AssertVocabs()
	c.RegisterVocabulary(&jsonschema.Vocabulary{URL: "urn:upwell:work", Compile: s.meter})
	c.UseLoader(nowhere{})
	if err := c.AddResource(name, doc); err != nil {
		return err
	}
	if s.compiled, err = c.Compile(name); err != nil {
		return unfit(err)
	}
	s.narrow = narrow(nil, text)
	return nil
}

// unfit words why a schema does not compile.
func unfit(err error) error {
	if load, ok := errors.AsType[*jsonschema.LoadURLError](err); ok {
		return load.Err
	}
	if bad, ok := errors.AsType[*jsonschema.SchemaValidationError](err); ok {
		last := finding{}
		for _, f := range findings(bad.Err) {
			last = f // the innermost
		}
		return fmt.Errorf("no JSON Schema: at %q: %s", last.at, last.text)
	}
	return err
}

// nowhere loads nothing. Schemas come with jobs, from anybody: the loader that is
// built in would read the files that a $ref names.
type nowhere struct{}

// Load implements [jsonschema.URLLoader].
func (nowhere) Load(url string) (any, error) {
	return nil, fmt.Errorf("it refers to %.200q: references must stay inside of the schema, as #/$defs/NAME does", url)
}

// meter has each comparison with a part of the schema counted.
func (s *schema) meter(_ *jsonschema.CompilerContext, part map[string]any) (jsonschema.SchemaExt, error) {
	m := &meter{s: s, alternatives: 1}
	for _, keyword := range []string{"allOf", "anyOf", "oneOf", "enum"} {
		list, _ := part[keyword].([]any)
		m.alternatives += len(list)
	}
	patterns, _ := part["patternProperties"].(map[string]any)
	m.patterns = len(patterns)
	return m, nil
}

// A meter counts the comparisons with one part of a schema.
type meter struct {
	s            *schema
	alternatives int // each compared with the value
	patterns     int // each compared with each of its properties
}

// Validate implements [jsonschema.SchemaExt].
func (m *meter) Validate(_ *jsonschema.ValidatorContext, v any) {
	object, _ := v.(map[string]any)
	if m.s.work += m.alternatives + m.patterns*len(object); m.s.work > maxWork {
		panic(errWork)
	}
}
