package mantle

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"net/url"
	"strings"
	"sync"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

const (
	// maxSchemas and maxKept bound the compiled schemas that are kept, by their
	// number and by about how many bytes they take. A run has one or a few; only
	// jobs that each bring their own come to more.
	maxSchemas = 256
	maxKept    = 64 << 20

	// maxFindings bounds what a schema error quotes, in bytes, and maxFinding each
	// place and reason in it: enough for a repair turn to act on, little enough for
	// a dead letter's attributes.
	maxFindings = 2 << 10
	maxFinding  = 300
)

// CheckSchema reports what is wrong with a JSON Schema that jobs are to have. It
// may be of any draft from 4 to 2020-12, must be an object, and may refer to
// nothing outside of itself.
func CheckSchema(text []byte) error {
	return (&schema{}).compile(bytes.TrimSpace(text))
}

// A schema is a compiled JSON Schema.
type schema struct {
	once     sync.Once
	hash     string // SHA-256 of its text, in hexadecimal
	narrow   []byte // its text, without what xAI's models refuse
	compiled *jsonschema.Schema
	names    map[string]bool // of properties
	program  int             // instructions of its regular expressions
	err      error
}

// check returns what the validator finds wrong with v.
func (s *schema) check(v any) (err error) {
	if err := (&bound{depth: maxAnswerDepth}).check(v, 0); err != nil {
		return err
	}
	if (&estimate{known: make(map[meeting]int)}).of(s.compiled, spotOf(v)) > maxWork {
		return errWork
	}
	defer rescue(&err)
	return s.compiled.Validate(v)
}

// rescue makes an error of a panic: the validator's faults are one job's matter, and
// no reason to stop the others.
func rescue(err *error) {
	if r := recover(); r != nil {
		*err = fmt.Errorf("the validator failed: %.200v", r)
	}
}

// A finding is one thing that is wrong with an answer.
type finding struct {
	at      string // JSON pointer to where it is
	keyword string // of the schema that says so
	text    string // the validator's word, which may quote the answer
}

// findings lists what the validator has found, up to a length that fits anywhere. Of
// what is wrong because of something within, only that is listed.
func findings(err error) (all []finding) {
	invalid, ok := errors.AsType[*jsonschema.ValidationError](err)
	if !ok {
		return []finding{{text: err.Error()}}
	}
	size := 0
	for unit := range leaves(*invalid.DetailedOutput()) {
		f := finding{
			shorten(unit.InstanceLocation, maxFinding),
			unit.KeywordLocation[strings.LastIndexByte(unit.KeywordLocation, '/')+1:],
			shorten(unit.Error.String(), maxFinding),
		}
		if size += len(f.at) + len(f.text); size > maxFindings && len(all) > 0 {
			break
		}
		all = append(all, f)
	}
	return all
}

// leaves yields the errors that have no others as their reason.
func leaves(unit jsonschema.OutputUnit) iter.Seq[jsonschema.OutputUnit] {
	return func(yield func(jsonschema.OutputUnit) bool) {
		if len(unit.Errors) == 0 && unit.Error != nil {
			yield(unit)
			return
		}
		for _, within := range unit.Errors {
			for leaf := range leaves(within) {
				if !yield(leaf) {
					return
				}
			}
		}
	}
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
	size   int // about how many bytes they take
}

func (c *schemas) compile(text []byte) (*schema, error) {
	if len(text) > MaxSchema { // before anything is done with it
		return nil, tooLong(text)
	}
	s := c.entry(text)
	s.once.Do(func() {
		s.err = s.compile(text)
		c.mu.Lock()
		defer c.mu.Unlock()
		c.size += 200 * s.program
	})
	return s, s.err
}

func tooLong(text []byte) error {
	return fmt.Errorf("%d bytes long, want at most %d", len(text), MaxSchema)
}

func (c *schemas) entry(text []byte) *schema {
	hash := sha256.Sum256(text)
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.byHash[hash]; s != nil {
		return s
	}
	if len(c.byHash) >= maxSchemas || c.size > maxKept {
		clear(c.byHash) // who uses one still has it
		c.size = 0
	}
	c.size += 40 * len(text) // when compiled
	s := &schema{hash: hex.EncodeToString(hash[:])}
	c.byHash[hash] = s
	return s
}

func (s *schema) compile(text []byte) (err error) {
	switch {
	case len(text) > MaxSchema:
		return tooLong(text)
	case !bytes.HasPrefix(text, []byte("{")):
		return errors.New("not a JSON object, want a JSON Schema")
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return err
	}
	if err := (&bound{parts: maxParts, depth: maxDepth}).check(doc, 0); err != nil {
		return err
	}
	defer rescue(&err)
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	c.UseLoader(nowhere{})
	patterns := patterns{byText: make(map[string]*pattern)}
	c.UseRegexpEngine(patterns.compile)
	if err := c.AddResource(schemaName, doc); err != nil {
		return err
	}
	if s.compiled, err = c.Compile(schemaName); err != nil {
		return cmp.Or(patterns.err, unfit(err)) // the validator does not say what is wrong with one
	}
	s.program = patterns.program
	s.narrow, s.names = narrow(nil, text), make(map[string]bool)
	properties(doc, s.names)
	return nil
}

// properties adds to names what the properties in a schema are called.
func properties(v any, names map[string]bool) {
	switch v := v.(type) {
	case map[string]any:
		for key, m := range v {
			if named, ok := m.(map[string]any); ok && key == "properties" {
				for name := range named {
					names[name] = true
				}
			}
			properties(m, names)
		}
	case []any:
		for _, item := range v {
			properties(item, names)
		}
	}
}

// schemaName is what the validator calls a schema.
const schemaName = "job:///schema.json"

// unfit words why a schema does not compile.
func unfit(err error) error {
	if load, ok := errors.AsType[*jsonschema.LoadURLError](err); ok {
		return load.Err
	}
	if bad, ok := errors.AsType[*jsonschema.SchemaValidationError](err); ok {
		if found := findings(bad.Err); len(found) > 0 {
			return fmt.Errorf("no JSON Schema: at %q: %s", found[0].at, found[0].text)
		}
	}
	return errors.New(strings.ReplaceAll(err.Error(), schemaName, ""))
}

// nowhere loads nothing. Schemas come with jobs, from anybody: the loader that is
// built in would read the files that a $ref names.
type nowhere struct{}

// Load implements [jsonschema.URLLoader].
func (nowhere) Load(to string) (any, error) {
	if u, err := url.Parse(to); err == nil {
		to = u.Redacted()
	}
	return nil, fmt.Errorf("it refers to %.200q: references must stay inside of the schema, as #/$defs/NAME does, and $schema be one of the drafts from 4 to 2020-12", to)
}
