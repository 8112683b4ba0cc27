package mantle

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"upwell/jobs"
	"upwell/worker"
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
	s, err := c.schemas.compile(j.Schema)
	if err != nil {
		return form{}, badJob(fmt.Errorf("upwell.schema: %w", err))
	}
	f := form{json: true, schema: s}
	if o.format.unset(j.Body) && (o.text.unset(j.Body) || j.Body[o.text.at] == '{') {
		f.send = s.accepted(j.Schema, j.Model)
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

func badJob(err error) error {
	return &worker.Error{Kind: worker.Permanent, Class: jobs.BadJob, Err: fmt.Errorf("mantle: %w", err)}
}

// hash returns the SHA-256 of the schema that answers are held to, or "".
func (f form) hash() string {
	if f.schema == nil {
		return ""
	}
	return f.schema.hash
}

// errNoDocument is the error of an answer that is not one JSON document.
var errNoDocument = errors.New("the answer is not JSON: want one JSON document, with nothing before or behind it")

// document returns the JSON in an answer's text. That is all of it, as it should
// be. As models like to put a Markdown fence around JSON, or a sentence before it,
// such text is searched for documents, and if one and only one is what was asked
// for, that is the answer: nothing is guessed, and output_text keeps the whole. The
// error is that of the document, if there is but one.
func (f form) document(text string) ([]byte, error) {
	all := documents([]byte(text))
	var found []byte
	var last error
	good := 0
	for _, doc := range all {
		if err := f.check(doc); err != nil {
			last = err
			continue
		}
		found = doc
		good++
	}
	switch {
	case good == 1:
		return found, nil
	case len(all) == 1:
		return nil, last
	default:
		return nil, errNoDocument
	}
}

func (f form) check(doc []byte) error {
	if f.schema == nil {
		return nil // it is JSON
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(doc))
	if err != nil {
		return err
	}
	return f.schema.check(v)
}

// most is how many places in a text are tried for the beginning of a document.
const most = 64

// documents returns the JSON documents in text: all of it if it is one, else what
// stands in its Markdown fences, else the objects and arrays in its prose.
func documents(text []byte) [][]byte {
	text = bytes.TrimSpace(text)
	if json.Valid(text) {
		return [][]byte{text}
	}
	if all, has := fenced(text); has {
		return all
	}
	return inProse(text)
}

var fence = []byte("```")

// fenced returns the documents in text's Markdown fences, and whether it has any
// fence.
func fenced(text []byte) (all [][]byte, has bool) {
	for range most {
		_, rest, opened := bytes.Cut(text, fence)
		if !opened {
			break
		}
		has = true
		inner, after, _ := bytes.Cut(rest, fence)
		if line := bytes.IndexByte(inner, '\n'); line >= 0 { // the language is on the first line
			inner = inner[line:]
		}
		if inner = bytes.TrimSpace(inner); json.Valid(inner) {
			all = append(all, inner)
		}
		text = after
	}
	return all, has
}

// inProse returns the objects and arrays in text.
func inProse(text []byte) (all [][]byte) {
	for range most {
		at := bytes.IndexAny(text, "{[")
		if at < 0 {
			break
		}
		text = text[at:]
		var doc json.RawMessage
		if json.NewDecoder(bytes.NewReader(text)).Decode(&doc) != nil {
			text = text[1:]
			continue
		}
		all = append(all, text[:len(doc):len(doc)])
		text = text[len(doc):]
	}
	return all
}

// violation is the verdict on an answer that is not of its form.
func violation(err error) verdict {
	if errors.Is(err, errWork) {
		return permanent(jobs.BadJob, "upwell.schema: "+err.Error())
	}
	v := permanent(jobs.SchemaFailed, "")
	if errors.Is(err, errNoDocument) {
		v.why, v.bare, v.findings = err.Error(), err.Error(), err.Error()
		return v
	}
	var why, bare, list strings.Builder
	for _, f := range findings(err) {
		fmt.Fprintf(&why, "; at %q: %s", f.at, f.text)
		fmt.Fprintf(&bare, "; at %q: %s", f.at, f.keyword)
		fmt.Fprintf(&list, "\n- at %q: %s", f.at, f.text)
	}
	const what = "the answer is against the schema"
	v.why, v.bare, v.findings = what+why.String(), what+bare.String(), what+":"+list.String()
	return v
}
