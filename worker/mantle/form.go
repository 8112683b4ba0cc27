package mantle

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"upwell/jobs"
	"upwell/jobs/skim"
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
		return form{}, c.badJob(fmt.Errorf("upwell.schema: %w", err))
	}
	f := form{json: true, schema: s}
	if o.format.Unset(j.Body) && (o.text.Unset(j.Body) || j.Body[o.text.At] == '{') {
		f.send = s.accepted(j.Schema, j.Model)
	}
	return f, nil
}

// ownForm is the form that the body asks for itself. A schema in it that does
// not compile here is left to the endpoint.
func (c *Client) ownForm(j *jobs.Job, o outline) form {
	if o.format.Unset(j.Body) {
		return form{}
	}
	holder := o.format
	switch string(skim.Find(j.Body, holder.At, "type").Of(j.Body)) {
	case `"json_object"`:
		return form{json: true}
	case `"json_schema"`:
		if j.URL == jobs.ChatCompletions {
			holder = skim.Find(j.Body, holder.At, "json_schema")
		}
		if holder.End == 0 {
			return form{json: true}
		}
		s, err := c.schemas.compile(skim.Find(j.Body, holder.At, "schema").Of(j.Body))
		if err != nil {
			return form{json: true}
		}
		return form{json: true, schema: s}
	default:
		return form{}
	}
}

func (c *Client) badJob(err error) error {
	return &worker.Error{Kind: worker.Permanent, Class: jobs.BadJob, Err: errors.New("mantle: " + c.quote(err.Error(), maxQuote))}
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
// for, that is the answer; output_text keeps the whole. Without a schema to tell, only
// a fence will do. The error is that of the largest document.
func (f form) document(text string) ([]byte, error) {
	whole := bytes.TrimSpace([]byte(text))
	if json.Valid(whole) {
		if err := f.check(whole); err != nil {
			return nil, err
		}
		return whole, nil
	}
	var found, largest []byte
	var wrong error
	good := 0
	for _, doc := range f.documents(whole) {
		err := f.check(doc)
		switch {
		case err == nil:
			found = doc
			good++
		case len(doc) > len(largest):
			largest, wrong = doc, err
		}
	}
	switch {
	case good == 1:
		return found, nil
	case good == 0 && wrong != nil:
		return nil, wrong
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

// searched is how many fences, and how many brackets outside of them, are looked at.
const searched = 64

// documents returns the JSON documents in text: what stands in its Markdown fences
// and, if there is a schema to tell answers from examples, the objects and arrays
// outside of those.
func (f form) documents(text []byte) (all [][]byte) {
	var outside [][]byte
	for range searched {
		before, inner, after, ok := fence(text)
		if !ok {
			break
		}
		if json.Valid(inner) {
			all = append(all, inner)
		}
		outside = append(outside, before)
		text = after
	}
	if f.schema == nil {
		return all
	}
	for _, prose := range append(outside, text) {
		all = append(all, inProse(prose)...)
	}
	return all
}

// fenceLine is a line that begins or ends a fence.
var fenceLine = regexp.MustCompile("(?m)^[ \t]*```.*$")

// fence returns what the first Markdown fence in text encloses, what is before it, and
// what comes after.
func fence(text []byte) (before, inner, after []byte, ok bool) {
	lines := fenceLine.FindAllIndex(text, 2)
	if len(lines) < 2 {
		return nil, nil, nil, false
	}
	first, last := lines[0], lines[1]
	return text[:first[0]], bytes.TrimSpace(text[first[1]:last[0]]), text[last[1]:], true
}

// inProse returns the objects and arrays in text. One that is broken is passed over
// whole: what is inside of it is a part of an answer, and no answer.
func inProse(text []byte) (all [][]byte) {
	for range searched {
		at := bytes.IndexAny(text, "{[")
		if at < 0 {
			break
		}
		text = text[at:]
		end := skim.End(text, 0)
		if doc := text[:end:end]; json.Valid(doc) {
			all = append(all, doc)
		}
		text = text[end:]
	}
	return all
}

// violation is the verdict on an answer that is not of its form.
func (f form) violation(err error) verdict {
	if errors.Is(err, errWork) {
		return ours(permanent(jobs.BadJob, err.Error()))
	}
	v := permanent(jobs.SchemaFailed, "")
	if errors.Is(err, errNoDocument) {
		v.why, v.bare, v.findings = err.Error(), err.Error(), err.Error()
		return v
	}
	var why, bare, list strings.Builder
	for _, found := range findings(err) {
		fmt.Fprintf(&why, "; at %q: %s", found.at, found.text)
		fmt.Fprintf(&bare, "; at %q: %s", f.anonymous(found.at), found.keyword)
		fmt.Fprintf(&list, "\n- at %q: %s", found.at, found.text)
	}
	const what = "the answer is against the schema"
	v.why, v.bare, v.findings = what+why.String(), what+bare.String(), what+":"+list.String()
	return v
}

// anonymous returns a JSON pointer with a star for each key that the model chose.
func (f form) anonymous(pointer string) string {
	tokens := strings.Split(pointer, "/")
	for i, t := range tokens {
		if _, err := strconv.Atoi(t); err != nil && t != "" && (f.schema == nil || !f.schema.names[unescaped.Replace(t)]) {
			tokens[i] = "*"
		}
	}
	return strings.Join(tokens, "/")
}

var unescaped = strings.NewReplacer("~1", "/", "~0", "~")
