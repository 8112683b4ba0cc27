package mantle_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"upwell/jobs"
	"upwell/worker"
	"upwell/worker/mantle"
)

// message is a completed response that says text.
func message(text string) string {
	b, _ := json.Marshal(text)
	return `{"status":"completed","output":[{"type":"message","content":[{"type":"output_text","text":` + string(b) +
		`}]}],"usage":{"input_tokens":10,"output_tokens":5}}`
}

func chat(finish, message string) string {
	return fmt.Sprintf(`{"choices":[{"finish_reason":%s,"message":%s}],"usage":{"prompt_tokens":10,"completion_tokens":5}}`, finish, message)
}

func failed(code string) string {
	return `{"status":"failed","error":{"code":"` + code + `","message":"it went wrong"},"output":[],"usage":{"input_tokens":10,"output_tokens":5}}`
}

func TestJudge(t *testing.T) {
	const ok = worker.Kind(-1)
	for name, tc := range map[string]struct {
		api, body string
		kind      worker.Kind
		class     jobs.Class
		text      string // of the answer, or in the error
	}{
		"text":               {"r", message("hi"), ok, "", "hi"},
		"no status":          {"r", `{"output":[{"type":"message","content":[{"type":"output_text","text":"hi"}]}]}`, ok, "", "hi"},
		"odd fields":         {"r", `{"status":"completed","usage":[],"model":7,"output":[{"type":"message","content":[{"type":"output_text","text":"hi"}]}]}`, ok, "", "hi"},
		"reasoning apart":    {"r", `{"status":"completed","output":[{"type":"reasoning","content":[{"type":"reasoning_text","text":"hm"}]},{"type":"message","content":[{"type":"output_text","text":"hi"}]}]}`, ok, "", "hi"},
		"function call":      {"r", `{"status":"completed","output":[{"type":"function_call","name":"f","arguments":"{}"}]}`, ok, "", ""},
		"max output":         {"r", `{"status":"incomplete","incomplete_details":{"reason":"max_output_tokens"},"output":[{"type":"message","content":[{"type":"output_text","text":"h"}]}],"usage":{"input_tokens":10,"output_tokens":5}}`, worker.Permanent, jobs.Truncated, "limit of output tokens"},
		"filtered":           {"r", `{"status":"incomplete","incomplete_details":{"reason":"content_filter"}}`, worker.Permanent, jobs.Refused, "content filter"},
		"cut off somehow":    {"r", `{"status":"incomplete","incomplete_details":{"reason":"quota"}}`, worker.Transient, "", `"quota"`},
		"incomplete, null":   {"r", `{"status":"incomplete","incomplete_details":null}`, worker.Transient, "", "incomplete"},
		"refusal":            {"r", `{"status":"completed","output":[{"type":"message","content":[{"type":"refusal","refusal":"I will not"}]}]}`, worker.Permanent, jobs.Refused, "I will not"},
		"empty success":      {"r", `{"status":"completed","output":[],"usage":{"input_tokens":10,"output_tokens":0}}`, worker.Transient, "", "empty answer"},
		"blank":              {"r", message(" \n"), worker.Transient, "", "empty answer"},
		"cancelled":          {"r", `{"status":"cancelled"}`, worker.Transient, "", "cancelled"},
		"in progress":        {"r", `{"status":"in_progress","output":[{"type":"message","content":[{"type":"output_text","text":"h"}]}]}`, worker.Transient, "", "in_progress"},
		"queued":             {"r", `{"status":"queued"}`, worker.Transient, "", "queued"},
		"failed":             {"r", `{"status":"failed","error":null}`, worker.Transient, "", "failed in band"},
		"server error":       {"r", failed("server_error"), worker.Transient, "", "server_error: it went wrong"},
		"rate limit":         {"r", failed("rate_limit_exceeded"), worker.Throttled, "", "rate_limit_exceeded"},
		"slow down":          {"r", failed("slow_down"), worker.Unavailable, "", "slow_down"},
		"overloaded":         {"r", failed("server_is_overloaded"), worker.Unavailable, "", "overloaded"},
		"no capacity":        {"r", failed("insufficient_capacity"), worker.Unavailable, "", "capacity"},
		"invalid prompt":     {"r", failed("invalid_prompt"), worker.Permanent, jobs.BadRequest, "invalid_prompt"},
		"bad image":          {"r", failed("image_too_large"), worker.Permanent, jobs.BadRequest, "image_too_large"},
		"policy":             {"r", failed("image_content_policy_violation"), worker.Permanent, jobs.Refused, "policy"},
		"too long":           {"r", failed("context_length_exceeded"), worker.Permanent, jobs.ContextLength, "context_length"},
		"error, bare string": {"r", `{"status":"completed","error":"upstream fell over","output":[]}`, worker.Transient, "", "upstream fell over"},
		"error with text":    {"r", strings.Replace(message("hi"), `{"status"`, `{"error":{"code":"server_error"},"status"`, 1), worker.Transient, "", "server_error"},
		"broken JSON":        {"r", `{"status":"completed","output":[`, worker.Transient, "", "not JSON"},
		"no JSON":            {"r", `<html>welcome</html>`, worker.Transient, "", "not JSON"},
		"no object":          {"r", `[1]`, worker.Transient, "", "empty answer"},
		"nothing":            {"r", ``, worker.Transient, "", "not JSON"},
		"other API's answer": {"r", chat(`"stop"`, `{"content":"hi"}`), worker.Transient, "", "empty answer"},

		"chat":                  {"c", chat(`"stop"`, `{"content":"hi"}`), ok, "", "hi"},
		"chat, null finish":     {"c", chat(`null`, `{"content":"hi"}`), ok, "", "hi"},
		"chat, length":          {"c", chat(`"length"`, `{"content":"h"}`), worker.Permanent, jobs.Truncated, "limit of output tokens"},
		"chat, filter":          {"c", chat(`"content_filter"`, `{"content":"h"}`), worker.Permanent, jobs.Refused, "content filter"},
		"chat, refusal":         {"c", chat(`"stop"`, `{"content":null,"refusal":"no"}`), worker.Permanent, jobs.Refused, "refused: no"},
		"chat, empty":           {"c", chat(`"stop"`, `{"content":""}`), worker.Transient, "", "empty answer"},
		"chat, null":            {"c", chat(`"stop"`, `{"content":null}`), worker.Transient, "", "empty answer"},
		"chat, tool call":       {"c", chat(`"tool_calls"`, `{"content":null,"tool_calls":[{"id":"1"}]}`), ok, "", ""},
		"chat, function call":   {"c", chat(`"function_call"`, `{"content":null,"function_call":{"name":"f"}}`), ok, "", ""},
		"chat, null call":       {"c", chat(`"stop"`, `{"content":null,"function_call":null}`), worker.Transient, "", "empty answer"},
		"chat, no choices":      {"c", `{"choices":[]}`, worker.Transient, "", "empty answer"},
		"chat, aborted":         {"c", chat(`"abort"`, `{"content":"hi"}`), worker.Transient, "", `"abort"`},
		"chat, error":           {"c", `{"error":{"code":429,"message":"rate","type":"rate_limit_error"}}`, worker.Throttled, "", "429: rate"},
		"chat, second cut":      {"c", `{"choices":[{"finish_reason":"stop","message":{"content":"a"}},{"finish_reason":"length","message":{"content":"b"}}]}`, worker.Permanent, jobs.Truncated, ""},
		"chat, several choices": {"c", `{"choices":[{"finish_reason":"stop","message":{"content":"a"}},{"finish_reason":"stop","message":{"content":"b"}}]}`, ok, "", "a"},
	} {
		t.Run(name, func(t *testing.T) {
			url := map[string]string{"r": jobs.Responses, "c": jobs.ChatCompletions}[tc.api]
			c := newClient(t, mantle.Config{HTTPClient: always(200, tc.body, "x-amzn-requestid: id-1", "Retry-After: 3")})
			cl := call(t, url, prompt(grok))
			if tc.kind == ok {
				ans, err := c.Complete(t.Context(), cl)
				if err != nil || ans.Text != tc.text {
					t.Errorf("Complete = %q, %v, want %q", ans.Text, err, tc.text)
				}
				return
			}
			e := failure(t.Context(), t, c, cl)
			if e.Kind != tc.kind || e.Class != tc.class || !strings.Contains(e.Error(), tc.text) {
				t.Errorf("error %v %q %q, want %v %q %q", e.Kind, e.Class, e, tc.kind, tc.class, tc.text)
			}
			if e.Status != 200 || e.RequestID != "id-1" || e.RetryAfter.Seconds() != 3 {
				t.Errorf("status %d, request %q, retry after %v, want 200, id-1, 3s", e.Status, e.RequestID, e.RetryAfter)
			}
			if !json.Valid([]byte(tc.body)) {
				return
			}
			failed := strings.Contains(tc.body, `"error":{`) || strings.Contains(tc.body, `"error":"`) || strings.Contains(tc.body, `"failed"`)
			noRoom := e.Kind == worker.Throttled || e.Kind == worker.Unavailable
			if noRoom || failed && !strings.Contains(tc.body, `_tokens":10`) {
				if e.Answer != nil {
					t.Errorf("Answer = %+v, want none: nobody was billed", e.Answer)
				}
				return
			}
			if e.Answer == nil || string(e.Answer.Response.Body) != tc.body {
				t.Fatalf("Answer = %+v, want what was answered", e.Answer)
			}
			if strings.Contains(tc.body, `_tokens":10`) && e.Answer.Usage.InputTokens != 10 {
				t.Errorf("Usage = %+v, want what was used", e.Answer.Usage)
			}
		})
	}
}

func TestAnswerOfAnyStatus2xx(t *testing.T) {
	c := newClient(t, mantle.Config{HTTPClient: always(201, said)})
	ans, err := c.Complete(t.Context(), call(t, jobs.Responses, prompt(grok)))
	if err != nil || ans.Response.StatusCode != http.StatusCreated {
		t.Errorf("Complete = %d, %v, want 201, nil", ans.Response.StatusCode, err)
	}
}

// FuzzAnswer has anything come with status 200, to a job with a schema. Whatever is
// taken for an answer is JSON that satisfies it, or asks for a tool.
func FuzzAnswer(f *testing.F) {
	for _, text := range []string{`{"n":1}`, "```json\n{\"n\":1}\n```", `Here: {"n":1}.`, `{"n":"x"}`, "```", "[[[[", `{"n":1}{"n":2}`, "``` ``` ```{\"n\":1}"} {
		f.Add(message(text), true)
		f.Add(chat(`"stop"`, `{"content":`+string(quoted(text))+`}`), false)
	}
	f.Add(failed("server_error"), true)
	f.Add(`{"status":"incomplete","incomplete_details":{"reason":"max_output_tokens"},"output":[]}`, true)
	f.Add(chat(`"length"`, `{"content":"{"}`), false)
	f.Add(chat(`"tool_calls"`, `{"content":null,"tool_calls":[{}]}`), false)
	f.Add(`{"choices":[{"message":{"refusal":"no"}}],"usage":{"prompt_tokens":-1}}`, false)
	schema, err := jsonschema.UnmarshalJSON(strings.NewReader(shape))
	if err != nil {
		f.Fatal(err)
	}
	compiler := jsonschema.NewCompiler()
	if err := compiler.AddResource("shape.json", schema); err != nil {
		f.Fatal(err)
	}
	valid := compiler.MustCompile("shape.json")
	f.Fuzz(func(t *testing.T, body string, responses bool) {
		url := map[bool]string{true: jobs.Responses, false: jobs.ChatCompletions}[responses]
		c := newClient(t, mantle.Config{HTTPClient: always(200, body)})
		ans, err := c.Complete(t.Context(), call(t, url, prompt(grok), `{"schema":`+shape+`}`))
		if err != nil {
			e, ok := errors.AsType[*worker.Error](err)
			if !ok || e.Kind == worker.Permanent && e.Class == "" || len(e.Error()) > 4<<10 {
				t.Errorf("%q: error %#v, want one with a kind, of a length to be stored", body, err)
			}
			return
		}
		if ans.Output == nil {
			if !strings.Contains(body, "call") {
				t.Errorf("%q is an answer without output, and asks for no tool", body)
			}
			return
		}
		doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(ans.Output))
		if err != nil || valid.Validate(doc) != nil || !strings.Contains(ans.Text, string(ans.Output)) {
			t.Errorf("%q is an answer with output %q of text %q", body, ans.Output, ans.Text)
		}
	})
}

func quoted(s string) []byte {
	b, _ := json.Marshal(s)
	return b
}
