package mantlesim

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/http"
	"slices"
)

// An apiError is an answer in the shape of OpenAI's errors.
type apiError struct {
	status                     int
	code, kind, message, param string
}

func (e *apiError) Error() string { return e.code + ": " + e.message }

func (e *apiError) reply() reply {
	var param any
	if e.param != "" {
		param = e.param
	}
	return jsonReply(e.status, map[string]any{"error": map[string]any{
		"code": e.code, "message": e.message, "type": e.kind, "param": param,
	}})
}

// asAPIError returns err as the *apiError that every refusal is.
func asAPIError(err error) *apiError {
	e, ok := errors.AsType[*apiError](err)
	if !ok {
		panic(err)
	}
	return e
}

func invalid(code, param, message string) error {
	return &apiError{status: 400, code: code, kind: "invalid_request_error", message: message, param: param}
}

// A request is a body of either API. Fields that neither reads are not decoded.
type request struct {
	Model        string           `json:"model"`
	Input        any              `json:"input"`
	Instructions string           `json:"instructions"`
	Messages     []map[string]any `json:"messages"`

	Tier         *string  `json:"service_tier"`
	MaxOutput    *int     `json:"max_output_tokens"`
	MaxTokens    *int     `json:"max_tokens"`
	MaxCompleted *int     `json:"max_completion_tokens"`
	N            *int     `json:"n"`
	Temperature  *float64 `json:"temperature"`
	TopP         *float64 `json:"top_p"`

	Reasoning struct {
		Effort *string `json:"effort"`
	} `json:"reasoning"`
	ReasoningEffort *string `json:"reasoning_effort"`

	Text struct {
		Format *format `json:"format"`
	} `json:"text"`
	ResponseFormat *struct {
		Type   string  `json:"type"`
		Schema *format `json:"json_schema"`
	} `json:"response_format"`

	Stream     bool           `json:"stream"`
	Background bool           `json:"background"`
	Previous   string         `json:"previous_response_id"`
	Store      *bool          `json:"store"`
	Include    []string       `json:"include"`
	Metadata   map[string]any `json:"metadata"`

	// Worked out by validate.
	api     string
	model   *Model
	tier    string // served
	max     int    // output tokens
	effort  string // "" for a model that does not reason
	schema  any    // decoded, with json.Number; nil for prose
	prompt  prompt
	input   int // tokens
	prefix  []uint64
	imposed bool // the limit is the request's own
}

// A format asks for JSON.
type format struct {
	Type   string          `json:"type"`
	Name   string          `json:"name"`
	Schema json.RawMessage `json:"schema"`
}

// decode reads a body. The error is worded as mantle's.
func decode(body []byte) (*request, error) {
	q := new(request)
	err := json.Unmarshal(body, q)
	if trimmed := bytes.TrimLeft(body, " \t\r\n"); err == nil && trimmed[0] != '{' {
		err = fmt.Errorf("invalid type: expected a JSON object")
	}
	if err != nil {
		return q, &apiError{status: 400, code: "validation_error", kind: "invalid_request_error", message: "Failed to deserialize the JSON body into the target type: " + err.Error()}
	}
	return q, nil
}

// validate checks q as a call of base+"/"+api and works out what it means.
func (s *Server) validate(q *request, base, api string) error {
	q.api = api
	if q.Model == "" && q.Previous == "" {
		return invalid("missing_required_parameter", "model", "Missing required parameter: 'model'.")
	}
	i := slices.IndexFunc(s.cfg.Models, func(m Model) bool { return m.ID == q.Model })
	if i < 0 && q.Model != "" {
		return &apiError{status: 404, code: "model_not_found", kind: "invalid_request_error", message: "The model '" + q.Model + "' does not exist", param: "model"}
	}
	if q.Previous != "" {
		return invalid("previous_response_not_found", "previous_response_id", "Previous response with id '"+q.Previous+"' not found.")
	}
	q.model = &s.cfg.Models[i]
	if err := q.model.check(base, api, s.cfg.MisrouteStatus); err != nil {
		return err
	}
	for _, step := range []func() error{q.checkModes, q.checkTier, q.checkMax, q.checkEffort, func() error { return q.checkFormat(s.cfg.RejectKeywords) }, q.checkPrompt} {
		if err := step(); err != nil {
			return err
		}
	}
	q.prefix = s.cache.prefixes(q)
	return nil
}

func (q *request) checkModes() error {
	switch {
	case q.Stream:
		return invalid("unsupported_value", "stream", "stream is not simulated; send stream:false")
	case q.Background:
		return invalid("unsupported_value", "background", "background is not simulated; send background:false")
	case q.N != nil && *q.N != 1:
		return invalid("unsupported_value", "n", "only n=1 is supported")
	}
	return nil
}

func (q *request) checkTier() error {
	q.tier = "default"
	if q.Tier == nil || *q.Tier == "auto" {
		return nil
	}
	q.tier = *q.Tier
	switch {
	case q.tier == "reserved" && !q.model.Reserved:
		return invalid("unsupported_service_tier", "service_tier", "service_tier 'reserved' is not supported for model '"+q.Model+"'")
	case !slices.Contains([]string{"default", "flex", "priority", "reserved"}, q.tier):
		return invalid("invalid_value", "service_tier", "Invalid value: '"+q.tier+"'. Supported values are: 'auto', 'default', 'flex', 'priority' and 'reserved'.")
	}
	return nil
}

func (q *request) checkMax() error {
	q.max = q.model.MaxOutput
	limits := map[string]*int{"max_tokens": q.MaxTokens, "max_completion_tokens": q.MaxCompleted}
	if q.api == "responses" {
		limits = map[string]*int{"max_output_tokens": q.MaxOutput}
	}
	for name, n := range limits {
		switch {
		case n == nil:
			continue
		case *n < 1:
			return invalid("integer_below_min_value", name, "Invalid '"+name+"': integer below minimum value. Expected a value >= 1.")
		case *n > q.model.Context:
			return invalid("integer_above_max_value", name, "Invalid '"+name+"': larger than the model's context window.")
		}
		q.max, q.imposed = *n, true
	}
	return nil
}

func (q *request) checkEffort() error {
	asked, param := q.ReasoningEffort, "reasoning_effort"
	if q.api == "responses" {
		asked, param = q.Reasoning.Effort, "reasoning.effort"
	}
	q.effort = q.model.Effort
	if asked == nil || q.model.Efforts == nil {
		return nil
	}
	q.effort = *asked
	if !slices.Contains(q.model.Efforts, q.effort) {
		return invalid("unsupported_value", param, fmt.Sprintf("Unsupported value: '%s'. Supported values are: %q.", q.effort, q.model.Efforts))
	}
	return nil
}

// checkFormat finds the schema of the answer, in the place where q's API has it.
func (q *request) checkFormat(reject []string) error {
	kind, param, f := "", "text.format", q.Text.Format
	if q.api == "responses" && f != nil {
		kind = f.Type
	}
	if q.api != "responses" {
		f, param = nil, "response_format"
		if q.ResponseFormat != nil {
			kind, f = q.ResponseFormat.Type, q.ResponseFormat.Schema
		}
	}
	switch kind {
	case "", "text":
		return nil
	case "json_object":
		q.schema = map[string]any{"type": "object", "required": []any{"answer"}, "properties": map[string]any{"answer": map[string]any{"type": "string"}}}
		return nil
	case "json_schema":
	default:
		return invalid("invalid_value", param+".type", "Invalid value: '"+kind+"'. Supported values are: 'text', 'json_object' and 'json_schema'.")
	}
	if q.api != "responses" {
		param += ".json_schema"
	}
	if f == nil || f.Name == "" {
		return invalid("missing_required_parameter", param+".name", "Missing required parameter: '"+param+".name'.")
	}
	d := json.NewDecoder(bytes.NewReader(f.Schema))
	d.UseNumber()
	var schema map[string]any
	if err := d.Decode(&schema); err != nil || schema == nil {
		return invalid("invalid_json_schema", param+".schema", "Invalid schema for response_format '"+f.Name+"': schema must be a JSON object.")
	}
	if word := findKeyword(schema, reject); word != "" {
		return invalid("invalid_json_schema", param+".schema", "Invalid schema for response_format '"+f.Name+"': '"+word+"' is not permitted.")
	}
	q.schema = schema
	return nil
}

// findKeyword returns the first of words that v uses as a schema keyword. The
// names of properties and definitions are not keywords.
func findKeyword(v any, words []string) string {
	var subs []any
	switch v := v.(type) {
	case []any:
		subs = v
	case map[string]any:
		for _, w := range words {
			if _, ok := v[w]; ok {
				return w
			}
		}
		for k, sub := range v {
			named, ok := sub.(map[string]any)
			if ok && slices.Contains([]string{"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"}, k) {
				subs = slices.AppendSeq(subs, maps.Values(named))
			} else if k != "enum" && k != "const" {
				subs = append(subs, sub)
			}
		}
	}
	for _, sub := range subs {
		if w := findKeyword(sub, words); w != "" {
			return w
		}
	}
	return ""
}

// checkPrompt gathers the text and checks it against the context window.
func (q *request) checkPrompt() error {
	param := "input"
	q.prompt.api = q.api
	if q.api == "responses" {
		q.prompt.add(q.Instructions)
		q.prompt.take(q.Input)
	} else {
		param = "messages"
		for _, m := range q.Messages {
			if _, ok := m["role"].(string); !ok {
				return invalid("missing_required_parameter", "messages.role", "Missing required parameter: 'messages[].role'.")
			}
			q.prompt.take(m["content"])
		}
	}
	if q.prompt.err != nil {
		return q.prompt.err
	}
	if !q.prompt.any {
		return invalid("missing_required_parameter", param, "Missing required parameter: '"+param+"' must be a string or a list of messages.")
	}
	q.Input, q.Messages = nil, nil
	q.input = q.prompt.tokens()
	need := q.input
	if q.imposed {
		need += q.max
	}
	if need > q.model.Context {
		return invalid("context_length_exceeded", param, fmt.Sprintf("This model's maximum context length is %d tokens. However, your request needs %d tokens.", q.model.Context, need))
	}
	q.max = min(q.max, q.model.Context-q.input)
	return nil
}

// job returns the caller's own name for a call.
func (q *request) job(h http.Header) string {
	if job := h.Get("X-Upwell-Job"); job != "" {
		return job
	}
	job, _ := q.Metadata["custom_id"].(string)
	return job
}

// Tokens per piece of a prompt or an answer.
const (
	proseBytes = 4.5  // bytes per token; English measures 4.9 with o200k
	jsonBytes  = 2.77 // bytes per token; JSON with o200k
	imageCost  = 1000 // tokens of an image; no formula is published
)

func tokens(bytes int, each float64) int { return int(math.Ceil(float64(bytes) / each)) }

// A prompt is the text of a request.
type prompt struct {
	api    string
	parts  []string
	images int
	any    bool
	err    error // the first thing that is wrong with an image
}

func (p *prompt) add(s string) {
	if s != "" {
		p.parts = append(p.parts, s)
	}
}

// take gathers text from content in any of its shapes: a string, a list of
// messages, a list of parts.
func (p *prompt) take(v any) {
	switch v := v.(type) {
	case string:
		p.any = true
		p.add(v)
	case []any:
		for _, item := range v {
			p.take(item)
		}
	case map[string]any:
		p.any = true
		if isImage(v) {
			p.images++
			if p.err == nil {
				p.err = checkImage(v, p.api)
			}
		}
		for _, key := range []string{"content", "text", "output"} {
			if v[key] != nil {
				p.take(v[key])
			}
		}
	}
}

func (p *prompt) tokens() int {
	n := 0
	for _, s := range p.parts {
		n += len(s)
	}
	return tokens(n, proseBytes) + imageCost*p.images
}
