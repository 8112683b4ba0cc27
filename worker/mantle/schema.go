package mantle

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"upwell/jobs"
	"upwell/worker"
)

const (
	// maxSchemas bounds the compiled schemas that are kept. A run has one or a
	// few; only jobs that each bring their own come to more.
	maxSchemas = 256

	// maxFindings bounds what a schema error quotes, in bytes: enough for a
	// repair turn to act on, little enough for a dead letter's attributes.
	maxFindings = 2 << 10
)

// A form is what an answer has to be.
type form struct {
	json   bool    // JSON, and nothing else
	schema *schema // that satisfies this; nil for any
	send   []byte  // the schema to put into the request, or nil
}

// form finds out what the job wants its answer to be. Its error is a bad job.
func (c *Client) form(j *jobs.Job, o outline) (form, error) {
	if len(j.Schema) == 0 {
		return c.ownForm(j, o), nil
	}
	text, err := c.schemaOf(j)
	if err != nil {
		return form{}, badJob(err)
	}
	s, err := c.schemas.compile(text)
	if err != nil {
		return form{}, badJob(fmt.Errorf("the schema does not compile: %w", err))
	}
	f := form{json: true, schema: s}
	if o.format.unset(j.Body) && (o.text.unset(j.Body) || j.Body[o.text.at] == '{') {
		f.send = s.accepted(text, j.Model)
	}
	return f, nil
}

// ownForm is the form that the body asks for itself. A schema in it that does
// not compile here is left to the endpoint.
func (c *Client) ownForm(j *jobs.Job, o outline) form {
	if o.format.unset(j.Body) {
		return form{}
	}
	holder := o.format
	switch string(member(j.Body, holder, "type").of(j.Body)) {
	case `"json_object"`:
		return form{json: true}
	case `"json_schema"`:
		if j.URL == jobs.ChatCompletions {
			holder = member(j.Body, holder, "json_schema")
		}
		s, err := c.schemas.compile(member(j.Body, holder, "schema").of(j.Body))
		if err != nil {
			return form{json: true}
		}
		return form{json: true, schema: s}
	default:
		return form{}
	}
}

func (c *Client) schemaOf(j *jobs.Job) ([]byte, error) {
	if j.Schema[0] != '"' {
		return j.Schema, nil
	}
	var name string
	if err := json.Unmarshal(j.Schema, &name); err != nil {
		return nil, fmt.Errorf("the schema's name: %w", err)
	}
	text, ok := c.cfg.Schemas[name]
	if !ok {
		return nil, fmt.Errorf("there is no schema of the name %q", name)
	}
	return text, nil
}

func badJob(err error) error {
	return &worker.Error{Kind: worker.Permanent, Class: jobs.BadJob, Err: fmt.Errorf("mantle: %w", err)}
}

// document returns the JSON in an answer's text: all of it, or all of it that a
// single Markdown fence encloses, as models like to put one around JSON. Prose
// beside it is not taken off: who asked for JSON must be able to tell that the
// model did something else.
func (f form) document(text string) ([]byte, error) {
	doc := []byte(strings.TrimSpace(text))
	if inner, ok := unfence(doc); ok {
		doc = inner
	}
	if f.schema == nil {
		if !json.Valid(doc) {
			return nil, errors.New("the answer is not JSON")
		}
		return doc, nil
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(doc))
	if err != nil {
		return nil, fmt.Errorf("the answer is not JSON: %w", err)
	}
	return doc, f.schema.check(v)
}

// unfence takes off the Markdown fence that encloses all of text.
func unfence(text []byte) ([]byte, bool) {
	fence := []byte("```")
	text, ok := bytes.CutPrefix(text, fence)
	if !ok {
		return nil, false
	}
	_, text, opened := bytes.Cut(text, []byte("\n")) // the language is on the first line
	text, closed := bytes.CutSuffix(text, fence)
	return bytes.TrimSpace(text), opened && closed
}

// A schema is a compiled JSON Schema.
type schema struct {
	once     sync.Once
	compiled *jsonschema.Schema
	narrow   []byte // its text, without what xAI's models refuse
	err      error
}

// check returns what the validator finds wrong with v, with a JSON pointer for
// each finding.
func (s *schema) check(v any) error {
	err := s.compiled.Validate(v)
	invalid, ok := errors.AsType[*jsonschema.ValidationError](err)
	if !ok {
		return err
	}
	var found strings.Builder
	for _, unit := range invalid.BasicOutput().Errors {
		if unit.Error != nil && found.Len() < maxFindings {
			fmt.Fprintf(&found, "; at %q: %s", unit.InstanceLocation, unit.Error)
		}
	}
	return errors.New("the answer is against the schema" + found.String())
}

// accepted returns text, the schema's own, as the model's API takes it.
func (s *schema) accepted(text []byte, model string) []byte {
	if strings.HasPrefix(model, "xai.") || strings.HasPrefix(model, "grok-") {
		return s.narrow
	}
	return text
}

// compileAll compiles the schemas that jobs may name.
func (c *Client) compileAll() error {
	for name, text := range c.cfg.Schemas {
		if _, err := c.schemas.compile(text); err != nil {
			return fmt.Errorf("mantle: config: schema %q: %w", name, err)
		}
	}
	return nil
}

// schemas compiles schemas, each once.
type schemas struct {
	mu     sync.Mutex
	byHash map[[sha256.Size]byte]*schema
}

func (c *schemas) compile(text []byte) (*schema, error) {
	s := c.entry(text)
	s.once.Do(func() {
		if s.compiled, s.err = compile(text); s.err == nil {
			s.narrow = narrow(nil, text)
		}
	})
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
	s := &schema{}
	c.byHash[hash] = s
	return s
}

func compile(text []byte) (*jsonschema.Schema, error) {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	const name = "job:///schema.json"
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	// Schemas come with jobs, from anybody: the loader that is built in would
	// read the files that a $ref names.
	c.UseLoader(jsonschema.SchemeURLLoader{})
	if err := c.AddResource(name, doc); err != nil {
		return nil, err
	}
	return c.Compile(name)
}

// xaiRefuses are the keywords that xAI's structured outputs do not take.
// Source: docs.x.ai, Structured Outputs; no source says what Bedrock makes of
// them. Answers are held to them all the same.
var xaiRefuses = []string{"minLength", "maxLength", "minItems", "maxItems", "minContains", "maxContains", "allOf"}

// literals are the keywords whose values are not schemas and hold none.
var literals = []string{"enum", "const", "default", "examples", "example", "required", "dependentRequired"}

// schemaMaps are the keywords whose values are schemas by a name of the author's, who
// may well call a property minLength.
var schemaMaps = []string{"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"}

// narrow appends schema to dst, without the keywords that xAI does not take.
// Order stays as it is: models write properties in the order of the schema.
func narrow(dst, schema []byte) []byte {
	return object(dst, schema, func(dst, key, value []byte) ([]byte, bool) {
		switch k := string(key); {
		case slices.Contains(xaiRefuses, k):
			return dst, false
		case slices.Contains(literals, k):
			return append(dst, value...), true
		case slices.Contains(schemaMaps, k):
			return object(dst, value, func(dst, _, value []byte) ([]byte, bool) { return narrow(dst, value), true }), true
		case value[0] == '[':
			return narrowAll(dst, value), true
		default:
			return narrow(dst, value), true
		}
	})
}

func narrowAll(dst, array []byte) []byte {
	dst = append(dst, '[')
	for v := range elements(array, 0) {
		if dst[len(dst)-1] != '[' {
			dst = append(dst, ',')
		}
		dst = narrow(dst, v.of(array))
	}
	return append(dst, ']')
}

// object appends the members of a JSON object that each appends and reports
// true for, or text as it is if it is no object.
func object(dst, text []byte, each func(dst, key, value []byte) ([]byte, bool)) []byte {
	if text[0] != '{' {
		return append(dst, text...)
	}
	dst = append(dst, '{')
	comma := false
	for key, v := range members(text, 0) {
		before := len(dst)
		if comma {
			dst = append(dst, ',')
		}
		dst = append(append(dst, quote(string(key))...), ':')
		var kept bool
		if dst, kept = each(dst, key, v.of(text)); !kept {
			dst = dst[:before]
			continue
		}
		comma = true
	}
	return append(dst, '}')
}
