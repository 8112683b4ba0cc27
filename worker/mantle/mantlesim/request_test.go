package mantlesim_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"upwell/worker/mantle/mantlesim"
)

func TestBasePaths(t *testing.T) {
	s := mantlesim.New(mantlesim.Config{})
	for _, tc := range []struct {
		path, model string
		code        int
		says        string
	}{
		{"/openai/v1/responses", "xai.grok-4.3", 200, ""},
		{"/openai/v1/chat/completions", "xai.grok-4.3", 200, ""},
		{"/v1/responses", "xai.grok-4.3", 401, "Berm is not enabled for this account"},
		{"/v1/chat/completions", "xai.grok-4.6", 401, "permission_denied_error"},
		{"/openai/v1/responses", "openai.gpt-5.5", 200, ""},
		{"/openai/v1/chat/completions", "openai.gpt-5.5", 400, "does not support the '/openai/v1/chat/completions' API"},
		{"/v1/responses", "openai.gpt-5.5", 400, "isn't supported on this route"},
		{"/openai/v1/responses", "google.gemma-4-31b", 200, ""},
		{"/v1/responses", "google.gemma-4-31b", 400, "isn't supported on this route"},
		{"/v1/chat/completions", "openai.gpt-oss-120b", 200, ""},
		{"/v1/responses", "openai.gpt-oss-120b", 200, ""},
		{"/openai/v1/responses", "openai.gpt-oss-20b", 401, "The security token included in the request is invalid."},
		{"/v1/chat/completions", "moonshotai.kimi-k2.5", 200, ""},
		{"/openai/v1/chat/completions", "qwen.qwen3-32b", 400, "validation_error"},
		{"/openai/v1/responses", "us.xai.grok-4.3", 404, "does not exist"},
	} {
		a := post(s, tc.path, fmt.Sprintf(`{"model":%q,"input":"hi","messages":[{"role":"user","content":"hi"}]}`, tc.model))
		if a.Code != tc.code || !strings.Contains(a.Text, tc.says) {
			t.Errorf("%s on %s = %d %s, want %d %q", tc.model, tc.path, a.Code, a.Text, tc.code, tc.says)
		}
		if id := a.Header.Get("X-Request-Id"); !strings.HasPrefix(id, "req_") || id != a.Header.Get("X-Amzn-Requestid") {
			t.Errorf("request id %q", id)
		}
	}
	forbidden := mantlesim.New(mantlesim.Config{MisrouteStatus: 403})
	if a := post(forbidden, "/v1/responses", grok("hi")); a.Code != 403 {
		t.Errorf("MisrouteStatus 403 = %d", a.Code)
	}
	auth := []string{"Authorization", "Bearer k"}
	for _, path := range []string{"/v1/models", "/openai/v1/models"} {
		a := send(t.Context(), s, "GET", path, "", auth...)
		if n := len(at(a.decode(t), "data").([]any)); a.Code != 200 || n != len(mantlesim.DefaultModels()) {
			t.Errorf("%s = %d, %d models", path, a.Code, n)
		}
	}
	for path, want := range map[string]int{"/openai/v1/responses": 405, "/openai/v1/responses/resp_1": 404, "/other": 404, "/v1/embeddings": 404} {
		if a := send(t.Context(), s, "GET", path, "", auth...); a.Code != want {
			t.Errorf("GET %s = %d, want %d", path, a.Code, want)
		}
	}
}

func TestValidation(t *testing.T) {
	s := mantlesim.New(mantlesim.Config{MaxBody: 100_000, RejectKeywords: mantlesim.XAIUnsupported})
	schema := func(schema string) string {
		return `,"text":{"format":{"type":"json_schema","name":"x","schema":` + schema + `}}`
	}
	for _, tc := range []struct {
		name, path, body, param string
		code                    int
	}{
		{"no body", responses, ``, "", 400},
		{"no JSON", responses, `{"model":`, "", 400},
		{"no object", responses, `["model"]`, "", 400},
		{"null", responses, `null`, "", 400},
		{"trailing", responses, grok("hi") + "x", "", 400},
		{"model type", responses, `{"model":5}`, "", 400},
		{"no model", responses, `{"input":"hi"}`, "model", 400},
		{"no input", responses, `{"model":"xai.grok-4.3"}`, "input", 400},
		{"input number", responses, `{"model":"xai.grok-4.3","input":7}`, "input", 400},
		{"messages for responses", responses, `{"model":"xai.grok-4.3","messages":[{"role":"user","content":"x"}]}`, "input", 400},
		{"no messages", chat, grok("hi"), "messages", 400},
		{"no messages at all", chat, `{"model":"xai.grok-4.3","messages":[]}`, "messages", 400},
		{"no role", chat, `{"model":"xai.grok-4.3","messages":[{"content":"x"}]}`, "messages.role", 400},
		{"stream", responses, grok("hi", `,"stream":true`), "stream", 400},
		{"background", responses, grok("hi", `,"background":true`), "background", 400},
		{"previous", responses, `{"previous_response_id":"resp_1","input":"x"}`, "previous_response_id", 400},
		{"n", chat, grokChat("hi", `,"n":2`), "n", 400},
		{"tier", responses, grok("hi", `,"service_tier":"gold"`), "service_tier", 400},
		{"reserved", responses, grok("hi", `,"service_tier":"reserved"`), "service_tier", 400},
		{"max 0", responses, grok("hi", `,"max_output_tokens":0`), "max_output_tokens", 400},
		{"max fraction", responses, grok("hi", `,"max_output_tokens":1.5`), "", 400},
		{"max huge", responses, grok("hi", `,"max_output_tokens":2000000`), "max_output_tokens", 400},
		{"chat max", chat, grokChat("hi", `,"max_tokens":-1`), "max_tokens", 400},
		{"chat max completion", chat, grokChat("hi", `,"max_completion_tokens":0`), "max_completion_tokens", 400},
		{"effort", responses, grok("hi", `,"reasoning":{"effort":"xhigh"}`), "reasoning.effort", 400},
		{"chat effort", chat, grokChat("hi", `,"reasoning_effort":"extreme"`), "reasoning_effort", 400},
		{"format", responses, grok("hi", `,"text":{"format":{"type":"xml"}}`), "text.format.type", 400},
		{"schema missing", responses, grok("hi", `,"text":{"format":{"type":"json_schema","name":"x"}}`), "text.format.schema", 400},
		{"schema name", responses, grok("hi", `,"text":{"format":{"type":"json_schema","schema":{}}}`), "text.format.name", 400},
		{"schema list", responses, grok("hi", schema(`[]`)), "text.format.schema", 400},
		{"schema null", responses, grok("hi", schema(`null`)), "text.format.schema", 400},
		{"keyword", responses, grok("hi", schema(`{"properties":{"a":{"items":{"minLength":2}}}}`)), "text.format.schema", 400},
		{"keyword as a name", responses, grok("hi", schema(`{"type":"object","properties":{"minLength":{"const":{"allOf":1}}}}`)), "", 200},
		{"chat schema", chat, grokChat("hi", `,"response_format":{"type":"json_schema"}`), "response_format.json_schema.name", 400},
		{"chat keyword", chat, grokChat("hi", `,"response_format":{"type":"json_schema","json_schema":{"name":"x","schema":{"allOf":[]}}}`), "response_format.json_schema.schema", 400},
		{"too large", responses, grok(strings.Repeat("x", 100_000)), "", 413},
		{"everything", responses, grok("hi", `,"instructions":"be brief","service_tier":"auto","max_output_tokens":10000,"reasoning":{"effort":"none"},"text":{"format":{"type":"text"}},"store":false,"stream":false,"unknown":{"x":1}`), "", 200},
		{"chat everything", chat, grokChat("hi", `,"max_completion_tokens":9000,"reasoning_effort":"high","response_format":{"type":"json_object"}`), "", 200},
	} {
		a := post(s, tc.path, tc.body)
		param, _ := at(a.decode(t), "error", "param").(string)
		if a.Code != tc.code || param != tc.param {
			t.Errorf("%s = %d %s, want %d with param %q", tc.name, a.Code, a.Text, tc.code, tc.param)
		}
		if a.Code == 400 && (a.code(t) == "" || at(a.decode(t), "error", "type") == "" || at(a.decode(t), "error", "message") == "") {
			t.Errorf("%s: incomplete error %s", tc.name, a.Text)
		}
	}
	if a := post(s, responses, `{"model":`); a.code(t) != "validation_error" || !strings.Contains(a.Text, "Failed to deserialize the JSON body into") {
		t.Errorf("malformed body = %s", a.Text)
	}
	if n := s.Counts(); n.Billed != 3 || n.Answered != 3 {
		t.Errorf("counts = %+v, want 3 billed", n)
	}
	ignoring := mantlesim.New(mantlesim.Config{})
	if a := post(ignoring, responses, grok("hi", schema(`{"type":"string","minLength":2}`))); a.Code != 200 {
		t.Errorf("keywords are refused by default: %s", a.Text)
	}
}

func TestContextWindow(t *testing.T) {
	s := mantlesim.New(mantlesim.Config{Models: []mantlesim.Model{{ID: "tiny", Base: "/v1", APIs: []string{"responses"}, Context: 1000, MaxOutput: 800}}})
	body := func(tokens, limit int) string {
		return fmt.Sprintf(`{"model":"tiny","input":%q,"max_output_tokens":%d}`, strings.Repeat("x", tokens*9/2), limit)
	}
	for _, tc := range []struct{ input, max, code int }{{900, 100, 200}, {900, 101, 400}, {1001, 1, 400}} {
		a := post(s, "/v1/responses", body(tc.input, tc.max))
		if a.Code != tc.code || tc.code == 400 && a.code(t) != "context_length_exceeded" {
			t.Errorf("%d + %d = %d %s", tc.input, tc.max, a.Code, a.Text)
		}
	}
	// Without a limit of its own, an answer ends where the window does.
	s = mantlesim.New(mantlesim.Config{Models: []mantlesim.Model{{ID: "tiny", Base: "/v1", APIs: []string{"responses"}, Context: 1000, MaxOutput: 800}}, Output: mantlesim.Size{Median: 500}})
	v := post(s, "/v1/responses", fmt.Sprintf(`{"model":"tiny","input":%q}`, strings.Repeat("x", 4050))).decode(t)
	if at(v, "status") != "incomplete" || at(v, "usage", "total_tokens") != 1000. {
		t.Errorf("at the window's end: %v", v)
	}
}

// sigV4 returns the headers of a signed request.
func sigV4(id, region, service string) []string {
	return []string{
		"Authorization", "AWS4-HMAC-SHA256 Credential=" + id + "/20000101/" + region + "/" + service + "/aws4_request, SignedHeaders=host;x-amz-date, Signature=" + strings.Repeat("ab", 32),
		"X-Amz-Date", "20000101T000000Z",
	}
}

// shortTerm returns a Bedrock API key as AWS's generators make them.
func shortTerm(id, region string, at time.Time, ttl time.Duration) string {
	u := fmt.Sprintf("bedrock.amazonaws.com/?Action=CallWithBearerToken&X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=%s%%2F20000101%%2F%s%%2Fbedrock%%2Faws4_request&X-Amz-Date=%s&X-Amz-Expires=%d&X-Amz-SignedHeaders=host&X-Amz-Signature=%s&Version=1",
		id, region, at.UTC().Format("20060102T150405Z"), int(ttl.Seconds()), strings.Repeat("0", 64))
	return "bedrock-api-key-" + base64.StdEncoding.EncodeToString([]byte(u))
}

func TestAuthorization(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		short := shortTerm("AKID", "us-west-2", start, time.Hour)
		s := mantlesim.New(mantlesim.Config{Region: "us-west-2", Keys: []string{"k1", "AKID"}, CheckShortTerm: true})
		bearer := func(key string) []string { return []string{"Authorization", "Bearer " + key} }
		check := func(when string, cases map[string]struct {
			header []string
			code   int
		},
		) {
			t.Helper()
			for name, tc := range cases {
				a := send(context.Background(), s, http.MethodPost, responses, grok("hi"), tc.header...)
				if a.Code != tc.code || tc.code != 200 && (a.code(t) != "access_denied" || at(a.decode(t), "error", "type") != "authentication_error") {
					t.Errorf("%s: %s = %d %s, want %d", when, name, a.Code, a.Text, tc.code)
				}
			}
		}
		type cases = map[string]struct {
			header []string
			code   int
		}
		check("at first", cases{
			"known key":      {bearer("k1"), 200},
			"unknown key":    {bearer("k2"), 401},
			"none":           {nil, 401},
			"empty":          {bearer(""), 401},
			"basic":          {[]string{"Authorization", "Basic k1"}, 401},
			"short term":     {bearer(short), 200},
			"other signer":   {bearer(shortTerm("OTHER", "us-west-2", start, time.Hour)), 401},
			"wrong region":   {bearer(shortTerm("AKID", "us-east-1", start, time.Hour)), 401},
			"too long":       {bearer(shortTerm("AKID", "us-west-2", start, 13*time.Hour)), 401},
			"no base64":      {bearer("bedrock-api-key-%%%"), 401},
			"no url":         {bearer("bedrock-api-key-" + base64.StdEncoding.EncodeToString([]byte("hello"))), 401},
			"signed":         {sigV4("AKID", "us-west-2", "bedrock-mantle"), 200},
			"signed bedrock": {sigV4("AKID", "us-west-2", "bedrock"), 200},
			"signed runtime": {sigV4("AKID", "us-west-2", "bedrock-runtime"), 401},
			"signed unknown": {sigV4("NOBODY", "us-west-2", "bedrock"), 401},
			"signed region":  {sigV4("AKID", "us-east-2", "bedrock"), 401},
			"signed no date": {sigV4("AKID", "us-west-2", "bedrock")[:2], 401},
		})
		time.Sleep(time.Hour)
		check("an hour later", cases{"short term": {bearer(short), 401}, "known key": {bearer("k1"), 200}})
		s.SetKeys([]string{})
		check("revoked", cases{"known key": {bearer("k1"), 401}, "signed": {sigV4("AKID", "us-west-2", "bedrock"), 401}})
		s.SetKeys([]string{"k2"})
		check("replaced", cases{"old": {bearer("k1"), 401}, "new": {bearer("k2"), 200}})
		s.SetKeys(nil)
		check("any", cases{"whatever": {bearer("zzz"), 200}})
		s.Reset()
		check("reset", cases{"known": {bearer("k1"), 200}, "whatever": {bearer("zzz"), 401}})

		for _, e := range s.Ledger() {
			if strings.Contains(fmt.Sprintf("%+v", e), "zzz") || len(e.Key) != 8 {
				t.Errorf("the ledger shows a secret, or no hash: %+v", e)
			}
		}
	})
	forbidding := mantlesim.New(mantlesim.Config{Keys: []string{}, DeniedStatus: 403})
	if a := post(forbidding, responses, grok("hi")); a.Code != 403 {
		t.Errorf("DeniedStatus 403 = %d", a.Code)
	}
	if a := send(t.Context(), forbidding, "GET", "/v1/models", "", "Authorization", "Bearer k"); a.Code != 403 {
		t.Errorf("models = %d", a.Code)
	}
	lenient := mantlesim.New(mantlesim.Config{})
	if a := send(t.Context(), lenient, "POST", responses, grok("hi"), "Authorization", "Bearer bedrock-api-key-x"); a.Code != 200 {
		t.Errorf("an undecoded short-term key = %d", a.Code)
	}
}
