package mantle

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"upwell/jobs"
	"upwell/worker"
)

// A reply is what this package reads of an answer, of either API.
type reply struct {
	Model       string          `json:"model"`
	ServiceTier string          `json:"service_tier"`
	Error       json.RawMessage `json:"error"`
	Usage       *usage          `json:"usage"`

	// Responses
	Status     string `json:"status"`
	Incomplete struct {
		Reason string `json:"reason"`
	} `json:"incomplete_details"`
	Output []struct {
		Type    string `json:"type"`
		Content []struct {
			Type    string `json:"type"`
			Text    string `json:"text"`
			Refusal string `json:"refusal"`
		} `json:"content"`
	} `json:"output"`

	// Chat Completions
	Choices []struct {
		FinishReason string `json:"finish_reason"`
		Message      struct {
			Content      string            `json:"content"`
			Refusal      string            `json:"refusal"`
			ToolCalls    []json.RawMessage `json:"tool_calls"`
			FunctionCall json.RawMessage   `json:"function_call"`
		} `json:"message"`
	} `json:"choices"`
}

// usage has both APIs' names.
type usage struct {
	Input      int64   `json:"input_tokens"`
	Output     int64   `json:"output_tokens"`
	Prompt     int64   `json:"prompt_tokens"`
	Completion int64   `json:"completion_tokens"`
	InputMore  details `json:"input_tokens_details"`
	OutputMore details `json:"output_tokens_details"`
	PromptMore details `json:"prompt_tokens_details"`
	ChatMore   details `json:"completion_tokens_details"`
}

type details struct {
	Cached    int64 `json:"cached_tokens"`
	Reasoning int64 `json:"reasoning_tokens"`
}

func (u *usage) tokens() jobs.Usage {
	if u == nil {
		return jobs.Usage{}
	}
	return jobs.Usage{
		InputTokens:     max(u.Input, u.Prompt, 0),
		CachedTokens:    max(u.InputMore.Cached, u.PromptMore.Cached, 0),
		OutputTokens:    max(u.Output, u.Completion, 0),
		ReasoningTokens: max(u.OutputMore.Reasoning, u.ChatMore.Reasoning, 0),
	}
}

// A verdict is what is wrong with an answer that came with status 200. The zero
// verdict is: nothing.
type verdict struct {
	kind  worker.Kind
	class jobs.Class
	why   string // what happened, of any length, with the endpoint's words
	bare  string // the same without any words but ours; empty to make do with the rest
	fix   string // what to do about it, in ours

	findings string // of the validator, for the model
}

func transient(format string, args ...any) verdict {
	return verdict{kind: worker.Transient, why: fmt.Sprintf(format, args...)}
}

func permanent(class jobs.Class, why string) verdict {
	return verdict{kind: worker.Permanent, class: class, why: why}
}

var (
	truncated = ours(permanent(jobs.Truncated, "the answer ended at its limit of output tokens"))
	filtered  = ours(permanent(jobs.Refused, "the answer was withheld by the content filter"))
	empty     = ours(transient("empty answer"))
)

// ours is a verdict that quotes nobody.
func ours(v verdict) verdict {
	v.bare = v.why
	return v
}

func refusal(text string) verdict {
	v := permanent(jobs.Refused, "the model refused: "+text)
	v.bare = "the model refused"
	return v
}

// judge turns what came with a 2xx status into an answer or an error.
func (c *Client) judge(call worker.Call, o outline, f form, res *response) (worker.Answer, error) {
	var r reply
	// A value of an unexpected type is skipped, and the rest is read: a paid
	// answer is not lost to a field that nobody needs.
	err := json.Unmarshal(res.body, &r)
	if _, odd := errors.AsType[*json.UnmarshalTypeError](err); err != nil && !odd {
		return worker.Answer{}, c.judged(res, ours(transient("the answer is not JSON: %v", err)))
	}
	ans := worker.Answer{
		Response: jobs.Response{StatusCode: res.status, RequestID: c.idOf(res), Body: res.body},
		Model:    r.Model,
		Tier:     r.ServiceTier,
		Usage:    r.Usage.tokens(),
	}
	c.book(call, r.Usage != nil, &ans)
	text, acts, v := r.read(call.Job.URL)
	ans.Text = text
	ans.Schema = f.hash()
	if v.why == "" && f.json && !acts {
		if ans.Output, err = f.document(text); err != nil {
			v = f.violation(err)
		}
	}
	if v.why != "" {
		e := c.judged(res, v)
		if r.billed(v) {
			e.Answer = &ans
		}
		if o.goesOn(call.Job) {
			e.Findings = v.findings
		}
		if v.class == jobs.Truncated {
			e.Limit = cmp.Or(c.limit(call, o), int(ans.Usage.OutputTokens))
		}
		return worker.Answer{}, e
	}
	return ans, nil
}

// hasError reports whether the answer says that the call failed.
func (r *reply) hasError() bool { return len(r.Error) > 0 && !bytes.Equal(r.Error, []byte("null")) }

// billed reports whether an answer that is no good was paid for. One that says that
// there was no room never is, and one that failed in band is if it counts tokens.
func (r *reply) billed(v verdict) bool {
	if v.kind == worker.Throttled || v.kind == worker.Unavailable {
		return false
	}
	failed := r.hasError() || r.Status == "failed"
	return !failed || r.Usage.tokens() != jobs.Usage{}
}

// read returns what the model said, whether it asks for a tool to be called,
// which is an answer too, and what is wrong with it.
func (r *reply) read(api string) (text string, acts bool, v verdict) {
	if r.hasError() {
		return "", false, inBand(readError(r.Error))
	}
	if api == jobs.ChatCompletions {
		text, acts, v = r.readChat()
	} else {
		text, acts, v = r.readResponse()
	}
	if v.why == "" && strings.TrimSpace(text) == "" && !acts {
		v = empty
	}
	return text, acts, v
}

func (r *reply) readResponse() (text string, acts bool, v verdict) {
	switch r.Status {
	case "completed", "": // some gateways leave it out
	case "incomplete":
		v = cutOff(r.Incomplete.Reason)
	case "failed":
		v = transient("the call failed in band, without a reason")
	default:
		v = transient("the answer's status is %q", r.Status)
	}
	var said strings.Builder
	for _, item := range r.Output {
		acts = acts || item.Type == "function_call" || item.Type == "custom_tool_call"
		for _, part := range item.Content {
			switch {
			case part.Type == "refusal" && v.why == "":
				v = refusal(part.Refusal)
			case part.Type == "output_text":
				said.WriteString(part.Text)
			}
		}
	}
	return said.String(), acts, v
}

// cutOff judges an incomplete response by its reason.
func cutOff(reason string) verdict {
	switch reason {
	case "max_output_tokens":
		return truncated
	case "content_filter":
		return filtered
	default:
		return transient("the answer is incomplete: %q", reason)
	}
}

// readChat reads the first choice. If there are more, all must be sound.
func (r *reply) readChat() (text string, acts bool, v verdict) {
	for i, ch := range r.Choices {
		m := ch.Message
		if i == 0 {
			text = m.Content
			acts = len(m.ToolCalls) > 0 || len(m.FunctionCall) > 0 && !bytes.Equal(m.FunctionCall, []byte("null"))
		}
		switch {
		case v.why != "":
		case m.Refusal != "":
			v = refusal(m.Refusal)
		default:
			v = finished(ch.FinishReason)
		}
	}
	return text, acts, v
}

// finished judges a finish_reason. Those of other servers that mean stop are
// let through, and an unknown one is not.
func finished(reason string) verdict {
	switch reason {
	case "stop", "tool_calls", "function_call", "", "eos", "end_turn", "stop_sequence":
		return verdict{}
	case "length", "max_tokens":
		return truncated
	case "content_filter":
		return filtered
	default:
		return transient("the answer ended for the reason %q", reason)
	}
}

// inBand judges an error that came with a 2xx status, by its code.
func inBand(e apiError) verdict {
	v := verdict{kind: worker.Transient, why: "the call failed in band: " + e.String()}
	switch {
	case e.codeHas(throttleCodes...):
		v.kind = worker.Throttled
	case e.codeHas(capacityCodes...):
		v.kind = worker.Unavailable
	case e.codeHas(contextCodes...):
		v.kind, v.class = worker.Permanent, jobs.ContextLength
	case e.codeHas("policy", "contentfilter"):
		v.kind, v.class = worker.Permanent, jobs.Refused
	case slices.ContainsFunc([]string{"invalid", "image", "unsupported", "empty"}, func(p string) bool {
		return strings.HasPrefix(bare(e.Code), p)
	}):
		v.kind, v.class = worker.Permanent, jobs.BadRequest
	}
	return v
}
