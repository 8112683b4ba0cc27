package mantlesim

import (
	"bytes"
	"encoding/json"
	"math"
	"strings"
	"time"
)

// An output is what the model made of a request, in the words of neither API.
type output struct {
	text    string
	decline string // refusal, instead of text
	reason  string // it is incomplete: "max_output_tokens", "content_filter"
	failed  bool
	empty   bool
	usage   Usage
	length  float64 // standard normal draw that sized it
}

// compose generates an answer to q, spoilt as f says.
func (s *Server) compose(c *call, q *request, f Fault) output {
	o := output{length: c.rng.NormFloat64()}
	o.usage = Usage{Input: q.input, Cached: c.cached}
	each := s.write(&o, c, q, f)
	o.usage.Reasoning = s.reason(q.effort, o.length)
	o.usage.Output = o.usage.Reasoning + tokens(len(o.text)+len(o.decline), each)
	limit := q.max
	if f.Kind == Truncate {
		limit = min(limit, max(1, o.usage.Output-tokens(len(o.text), each)/2-1))
	}
	switch {
	case f.Kind == Empty:
		o.text, o.empty, o.usage.Output, o.usage.Reasoning = "", true, 0, 0
	case f.Kind == Failed:
		o.text, o.failed = "", true
	case f.Kind == Filter:
		o.text, o.reason = "", "content_filter"
		o.usage.Output = o.usage.Reasoning + 1
	case o.usage.Output > limit || f.Kind == Truncate:
		o.cut(limit, each)
	}
	return o
}

// reason draws the tokens spent on reasoning.
func (s *Server) reason(effort string, length float64) int {
	return int(float64(s.cfg.Reasoning[effort]) * math.Exp(s.cfg.Output.Sigma*length))
}

// write fills in the words and returns their bytes per token.
func (s *Server) write(o *output, c *call, q *request, f Fault) float64 {
	if f.Kind == Decline {
		o.decline = "I can't help with that request."
		return proseBytes
	}
	if q.schema != nil {
		g := &generator{root: q.schema, src: newSource(q.prompt.parts, schemaSample), rng: c.rng}
		doc := g.value(q.schema, spot{})
		if f.Kind != Violate || violate(doc, q.schema) {
			o.text = wrapped(marshal(doc), f.Kind)
			return jsonBytes
		}
	}
	o.text = newSource(q.prompt.parts, proseSample).prose(s.cfg.Output.draw(o.length), c.rng)
	return proseBytes
}

// wrapped puts JSON where models that are not held to it put it.
func wrapped(doc, kind string) string {
	switch kind {
	case Fence:
		return "```json\n" + doc + "\n```"
	case Chatter:
		return "Here is the JSON you asked for:\n\n" + doc + "\n\nLet me know if you need anything else [1]."
	default:
		return doc
	}
}

// violate takes a required property away, if the schema itself requires one.
// Otherwise prose will do: it is no JSON.
func violate(doc, s any) bool {
	m, ok := doc.(map[string]any)
	required := stringsOf(s.(schema), "required")
	if !ok || len(required) == 0 {
		return false
	}
	delete(m, required[0])
	return true
}

// cut ends the answer at its output limit.
func (o *output) cut(limit int, each float64) {
	o.reason = "max_output_tokens"
	o.usage.Output = limit
	o.usage.Reasoning = min(o.usage.Reasoning, limit)
	o.text = clip(o.text, int(float64(limit-o.usage.Reasoning)*each))
	o.decline = ""
}

func marshal(v any) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic(err) // only what JSON itself brought in
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// render words o as an answer of q's API.
func (o *output) render(c *call, q *request) reply {
	if q.api == "responses" {
		return jsonReply(200, o.response(c, q))
	}
	if o.failed { // chat has no status to say so
		return jsonReply(200, map[string]any{"error": serverError})
	}
	return jsonReply(200, o.completion(c, q))
}

var serverError = map[string]any{"code": "server_error", "message": "An error occurred while processing your request."}

type cachedTokens struct {
	Cached int `json:"cached_tokens"`
}

type reasoningTokens struct {
	Reasoning int `json:"reasoning_tokens"`
}

// response is a Response object of the Responses API, with the fields that
// clients read.
type response struct {
	ID         string         `json:"id"`
	Object     string         `json:"object"`
	Created    int64          `json:"created_at"`
	Status     string         `json:"status"`
	Background bool           `json:"background"`
	Error      any            `json:"error"`
	Incomplete any            `json:"incomplete_details"`
	Instruct   *string        `json:"instructions"`
	MaxOutput  *int           `json:"max_output_tokens"`
	Metadata   map[string]any `json:"metadata"`
	Model      string         `json:"model"`
	Output     []any          `json:"output"`
	Parallel   bool           `json:"parallel_tool_calls"`
	Previous   *string        `json:"previous_response_id"`
	Reasoning  any            `json:"reasoning"`
	Temp       float64        `json:"temperature"`
	TopP       float64        `json:"top_p"`
	Tier       string         `json:"service_tier"`
	Store      bool           `json:"store"`
	ToolChoice string         `json:"tool_choice"`
	Tools      []any          `json:"tools"`
	Usage      *responseUsage `json:"usage"`
}

type responseUsage struct {
	Input         int             `json:"input_tokens"`
	InputDetails  cachedTokens    `json:"input_tokens_details"`
	Output        int             `json:"output_tokens"`
	OutputDetails reasoningTokens `json:"output_tokens_details"`
	Total         int             `json:"total_tokens"`
}

func (o *output) response(c *call, q *request) response {
	r := response{
		ID: "resp_" + hexID(c.rng, 24), Object: "response", Created: time.Now().Unix(), Status: "completed",
		MaxOutput: q.MaxOutput, Metadata: q.Metadata, Model: q.Model, Output: []any{}, Parallel: true,
		Temp: orDefault(q.Temperature, 0.7), TopP: orDefault(q.TopP, 0.95), // Grok's defaults
		Tier: c.Served, Store: orDefault(q.Store, true), ToolChoice: "auto", Tools: []any{},
	}
	if r.Metadata == nil {
		r.Metadata = map[string]any{}
	}
	r.Reasoning = map[string]any{"effort": q.effort, "summary": nil}
	if q.effort == "" {
		r.Reasoning = nil
	}
	u := o.usage
	r.Usage = &responseUsage{u.Input, cachedTokens{u.Cached}, u.Output, reasoningTokens{u.Reasoning}, u.Input + u.Output}
	switch {
	case o.failed:
		r.Status, r.Error, r.Usage = "failed", serverError, nil
		return r
	case o.reason != "":
		r.Status, r.Incomplete = "incomplete", map[string]any{"reason": o.reason}
	}
	r.Output = o.items(c, q, r.Status)
	return r
}

func orDefault[T any](p *T, def T) T {
	if p != nil {
		return *p
	}
	return def
}

// items are the parts of a Response's output: reasoning, then the message.
func (o *output) items(c *call, q *request, status string) []any {
	items := []any{}
	if o.usage.Reasoning > 0 {
		item := map[string]any{"id": "rs_" + hexID(c.rng, 24), "type": "reasoning", "summary": []any{}}
		for _, extra := range q.Include {
			if extra == "reasoning.encrypted_content" {
				item["encrypted_content"] = hexID(c.rng, min(4*o.usage.Reasoning, 4096))
			}
		}
		items = append(items, item)
	}
	part := map[string]any{"type": "output_text", "text": o.text, "annotations": []any{}, "logprobs": []any{}}
	if o.decline != "" {
		part = map[string]any{"type": "refusal", "refusal": o.decline}
	} else if o.empty || o.text == "" {
		return items
	}
	return append(items, map[string]any{"id": "msg_" + hexID(c.rng, 24), "type": "message", "status": status, "role": "assistant", "content": []any{part}})
}

// completion is a ChatCompletion object.
type completion struct {
	ID          string    `json:"id"`
	Object      string    `json:"object"`
	Created     int64     `json:"created"`
	Model       string    `json:"model"`
	Choices     []choice  `json:"choices"`
	Tier        string    `json:"service_tier"`
	Fingerprint *string   `json:"system_fingerprint"`
	Usage       chatUsage `json:"usage"`
}

type choice struct {
	Index    int     `json:"index"`
	Message  message `json:"message"`
	Logprobs any     `json:"logprobs"`
	Finish   string  `json:"finish_reason"`
}

type message struct {
	Role        string  `json:"role"`
	Content     *string `json:"content"`
	Refusal     *string `json:"refusal"`
	Annotations []any   `json:"annotations"`
}

type chatUsage struct {
	Prompt            int             `json:"prompt_tokens"`
	Completion        int             `json:"completion_tokens"`
	Total             int             `json:"total_tokens"`
	PromptDetails     cachedTokens    `json:"prompt_tokens_details"`
	CompletionDetails reasoningTokens `json:"completion_tokens_details"`
}

func (o *output) completion(c *call, q *request) completion {
	m := message{Role: "assistant", Content: &o.text, Annotations: []any{}}
	if o.decline != "" {
		m.Content, m.Refusal = nil, &o.decline
	}
	finish := "stop"
	switch o.reason {
	case "max_output_tokens":
		finish = "length"
	case "content_filter":
		finish, m.Content = o.reason, nil
	}
	u := o.usage
	return completion{
		ID: "chatcmpl-" + hexID(c.rng, 16), Object: "chat.completion", Created: time.Now().Unix(), Model: q.Model,
		Choices: []choice{{Message: m, Finish: finish}}, Tier: c.Served,
		Usage: chatUsage{u.Input, u.Output, u.Input + u.Output, cachedTokens{u.Cached}, reasoningTokens{u.Reasoning}},
	}
}
