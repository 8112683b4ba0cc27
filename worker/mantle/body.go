package mantle

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strconv"

	"upwell/jobs"
	"upwell/jobs/skim"
	"upwell/worker"
)

// segments is text in pieces, most of them slices of a job's body.
type segments [][]byte

func (s segments) size() (n int) {
	for _, b := range s {
		n += len(b)
	}
	return n
}

func (s segments) sha256() []byte {
	h := sha256.New()
	for _, b := range s {
		h.Write(b)
	}
	return h.Sum(nil)
}

// attach makes s the request's body, as often as it is wanted.
func (s segments) attach(req *http.Request) {
	req.ContentLength = int64(s.size())
	req.GetBody = func() (io.ReadCloser, error) { return &segmentReader{rest: s}, nil }
	req.Body = &segmentReader{rest: s}
}

// A segmentReader reads segments one after the other.
type segmentReader struct {
	rest segments
	at   int // in the first of rest
}

func (r *segmentReader) Read(p []byte) (n int, err error) {
	for n < len(p) && len(r.rest) > 0 {
		k := copy(p[n:], r.rest[0][r.at:])
		n, r.at = n+k, r.at+k
		if r.at == len(r.rest[0]) {
			r.rest, r.at = r.rest[1:], 0
		}
	}
	if n == 0 && len(r.rest) == 0 {
		return 0, io.EOF
	}
	return n, nil
}

func (r *segmentReader) Close() error { return nil }

// An outline says where a request's values are that this package looks at.
type outline struct {
	members int // of the body
	tier, store,
	text, // of the Responses API
	format, // text.format or response_format, depending on the API
	maxOutput, maxCompletion, maxTokens,
	talk skim.Span // input or messages, depending on the API
}

// outlineOf scans a job's body once. Of keys that are there twice, the last
// counts, as it does for every JSON parser in use.
func outlineOf(j *jobs.Job) (o outline) {
	responses := j.URL == jobs.Responses
	for m := range skim.Members(j.Body, 0) {
		v := m.Span
		o.members++
		switch string(m.Key) {
		case "service_tier":
			o.tier = v
		case "store":
			o.store = v
		case "max_output_tokens":
			o.maxOutput = v
		case "max_completion_tokens":
			o.maxCompletion = v
		case "max_tokens":
			o.maxTokens = v
		case "text":
			if responses {
				o.text, o.format = v, skim.Find(j.Body, v.At, "format")
			}
		case "response_format":
			if !responses {
				o.format = v
			}
		case "input":
			if responses {
				o.talk = v
			}
		case "messages":
			if !responses {
				o.talk = v
			}
		}
	}
	return o
}

// limit returns the most output tokens the job asks for, or zero.
func (o *outline) limit(j *jobs.Job) int {
	v := o.maxOutput
	if j.URL == jobs.ChatCompletions {
		if v = o.maxCompletion; v.Unset(j.Body) {
			v = o.maxTokens
		}
	}
	n, err := strconv.Atoi(string(v.Of(j.Body)))
	if err != nil || n < 0 {
		return 0 // the endpoint will say what is wrong with it
	}
	return n
}

// fill returns the call's request: the job's body with the operator's defaults
// for what it leaves open, and the form of the answer.
func (c *Client) fill(call worker.Call, o outline, f form) segments {
	j := call.Job
	e := editor{body: j.Body, empty: o.members == 0}
	// A body without a tier gets the default one from the endpoint, and some
	// other vendors' endpoints do not know the word.
	if t := call.Lane.Tier; t != "" && (o.tier.Unset(j.Body) && t != "default" || string(o.tier.Of(j.Body)) == `"auto"`) {
		e.set("service_tier", o.tier, quote(t))
	}
	if j.URL == jobs.Responses {
		if o.store.Unset(j.Body) {
			e.set("store", o.store, []byte("false"))
		}
		e.limit("max_output_tokens", o.maxOutput, call.MaxOutput, c.cfg.MaxOutputTokens)
	} else if o.maxTokens.Unset(j.Body) {
		e.limit("max_completion_tokens", o.maxCompletion, call.MaxOutput, c.cfg.MaxOutputTokens)
	} else if o.maxCompletion.Unset(j.Body) {
		e.limit("max_tokens", o.maxTokens, call.MaxOutput, 0)
	} else {
		e.limit("max_completion_tokens", o.maxCompletion, call.MaxOutput, 0)
	}
	if call.Flaw != nil {
		e.goOn(o.talk, call.Flaw)
	}
	if f.send != nil {
		e.form(j.URL, o, f.send)
	}
	return e.segments()
}

// An editor collects changes to a JSON object's text.
type editor struct {
	body    []byte
	empty   bool // the object has no members
	head    []byte
	changes []change
}

type change struct {
	skim.Span

	text []byte
}

// set gives a member a value. v is where its value is; the zero Span means
// that there is no such member.
func (e *editor) set(key string, v skim.Span, value []byte) {
	if v.End > 0 {
		e.changes = append(e.changes, change{v, value})
		return
	}
	e.head = append(append(append(e.head, '"'), key...), `":`...)
	e.head = append(append(e.head, value...), ',')
}

// limit sets a limit: most, or if there is no such, what the operator has for
// jobs that have none.
func (e *editor) limit(key string, v skim.Span, most, unset int) {
	if most == 0 && v.Unset(e.body) {
		most = unset
	}
	if most > 0 {
		e.set(key, v, strconv.AppendInt(nil, int64(most), 10))
	}
}

// goesOn reports whether the job's conversation can be gone on with: it is there,
// in a form that has a place for another turn.
func (o *outline) goesOn(j *jobs.Job) bool {
	if o.talk.End == 0 {
		return false
	}
	first := j.Body[o.talk.At]
	return first == '[' || first == '"' && j.URL == jobs.Responses
}

// goOn goes on with the conversation at v: the model's answer, and what is wrong
// with it. The request begins as it did, so that a prompt cache has it.
func (e *editor) goOn(v skim.Span, flaw *worker.Flaw) {
	const ask = "\n\nAnswer again: with the whole corrected JSON document, and nothing else."
	more := slices.Concat([]byte(`{"role":"assistant","content":`), quote(flaw.Text),
		[]byte(`},{"role":"user","content":`), quote(flaw.Findings+ask), []byte(`}]`))
	if e.body[v.At] == '"' {
		e.changes = append(e.changes,
			change{skim.Span{At: v.At, End: v.At}, []byte(`[{"role":"user","content":`)},
			change{skim.Span{At: v.End, End: v.End}, append([]byte(`},`), more...)})
		return
	}
	for range skim.Items(e.body, v.At) {
		more = append([]byte(","), more...)
		break
	}
	e.changes = append(e.changes, change{skim.Span{At: v.End - 1, End: v.End}, more})
}

// form asks for JSON that satisfies schema. The request asks for no form yet.
func (e *editor) form(api string, o outline, schema []byte) {
	if api == jobs.ChatCompletions {
		e.set("response_format", o.format, slices.Concat(
			[]byte(`{"type":"json_schema","json_schema":{"name":"answer","strict":true,"schema":`), schema, []byte(`}}`)))
		return
	}
	format := slices.Concat([]byte(`{"type":"json_schema","name":"answer","strict":true,"schema":`), schema, []byte(`}`))
	switch {
	case o.text.Unset(e.body):
		e.set("text", o.text, slices.Concat([]byte(`{"format":`), format, []byte(`}`)))
	case o.format.End > 0:
		e.set("format", o.format, format)
	default: // text is an object that lacks a format
		in := editor{body: e.body, empty: true}
		for range skim.Members(e.body, o.text.At) {
			in.empty = false
			break
		}
		in.set("format", skim.Span{}, format)
		at := o.text.At + 1
		e.changes = append(e.changes, change{skim.Span{At: at, End: at}, in.insertion()})
	}
}

// insertion returns the text that goes behind the opening brace.
func (e *editor) insertion() []byte {
	if e.empty {
		return bytes.TrimSuffix(e.head, []byte(","))
	}
	return e.head
}

func (e *editor) segments() segments {
	if len(e.head) > 0 {
		e.changes = append(e.changes, change{skim.Span{At: 1, End: 1}, e.insertion()})
	}
	slices.SortFunc(e.changes, func(a, b change) int { return a.At - b.At })
	var s segments
	at := 0
	for _, c := range e.changes {
		s = append(s, e.body[at:c.At], c.text)
		at = c.End
	}
	return append(s, e.body[at:])
}

func quote(s string) []byte {
	b, _ := json.Marshal(s) // a string always has a JSON form
	return b
}
