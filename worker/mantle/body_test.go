package mantle_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"upwell/jobs"
	"upwell/worker"
	"upwell/worker/mantle"
)

// sent returns the body that a call sends, and fails the test if its length or
// a second reading differs.
func sent(tb testing.TB, cfg mantle.Config, cl worker.Call) string {
	tb.Helper()
	var got []byte
	cfg.HTTPClient = &http.Client{Transport: trip(func(req *http.Request) (*http.Response, error) {
		got = drain(req)
		again, err := req.GetBody()
		if err != nil {
			tb.Fatalf("GetBody = %v, want nil", err)
		}
		// A small buffer crosses every seam between the pieces.
		replay, err := io.ReadAll(struct{ io.Reader }{iotestOneByte{again}})
		if err != nil || !bytes.Equal(replay, got) || req.ContentLength != int64(len(got)) {
			tb.Errorf("read %q, then %q (%v), of announced %d bytes", got, replay, err, req.ContentLength)
		}
		if ct := req.Header.Get("Content-Type"); ct != "application/json" {
			tb.Errorf("Content-Type = %q, want application/json", ct)
		}
		return answer(200, said), nil
	})}
	_, _ = newClient(tb, cfg).Complete(tb.Context(), cl)
	return string(got)
}

type iotestOneByte struct{ r io.Reader }

func (o iotestOneByte) Read(p []byte) (int, error) { return o.r.Read(p[:1]) }

const shape = `{"type":"object","properties":{"n":{"type":"integer"}},"required":["n"],"additionalProperties":false}`

func TestDefaults(t *testing.T) {
	format := `{"type":"json_schema","name":"answer","strict":true,"schema":` + shape + `}`
	chatFormat := `{"type":"json_schema","json_schema":{"name":"answer","strict":true,"schema":` + shape + `}}`
	for name, tc := range map[string]struct {
		url, body string
		tier      string
		max       int
		schema    bool
		want      string
	}{
		"nothing to add": {jobs.Responses, `{"model":"m" , "store":true}`, "", 0, false, `{"model":"m" , "store":true}`},
		"nothing, chat":  {jobs.ChatCompletions, `{"model":"m"}`, "", 0, false, `{"model":"m"}`},
		"all":            {jobs.Responses, `{"model":"m"}`, "flex", 100, false, `{"service_tier":"flex","store":false,"max_output_tokens":100,"model":"m"}`},
		"all, chat":      {jobs.ChatCompletions, `{"model":"m"}`, "flex", 100, false, `{"service_tier":"flex","max_completion_tokens":100,"model":"m"}`},
		"job's own":      {jobs.Responses, `{"model":"m","service_tier":"priority","store":true,"max_output_tokens":7}`, "flex", 100, false, `{"model":"m","service_tier":"priority","store":true,"max_output_tokens":7}`},
		"job's, chat":    {jobs.ChatCompletions, `{"model":"m","max_tokens":7}`, "", 100, false, `{"model":"m","max_tokens":7}`},
		"null and auto":  {jobs.Responses, `{"max_output_tokens": null,"store":null, "model":"m","service_tier" :"auto"}`, "flex", 100, false, `{"max_output_tokens": 100,"store":false, "model":"m","service_tier" :"flex"}`},
		"null tier":      {jobs.ChatCompletions, `{"service_tier":null,"model":"m","max_completion_tokens":null}`, "flex", 9, false, `{"service_tier":"flex","model":"m","max_completion_tokens":9}`},
		"auto, no tier":  {jobs.ChatCompletions, `{"service_tier":"auto","model":"m"}`, "", 0, false, `{"service_tier":"auto","model":"m"}`},
		"default tier":   {jobs.ChatCompletions, `{"model":"m"}`, "default", 0, false, `{"model":"m"}`},
		"auto, default":  {jobs.ChatCompletions, `{"model":"m","service_tier":"auto"}`, "default", 0, false, `{"model":"m","service_tier":"default"}`},
		"precision": {
			jobs.Responses, "{\n\t\"model\" : \"m\",  \"seed\":90071992547409931234567890, \"t\":1.10, \"x\":1E+2, \"u\":\"\\u00e9é\U0001F600\\n\",\"x\":0 }", "flex", 0, false,
			"{\"service_tier\":\"flex\",\"store\":false,\n\t\"model\" : \"m\",  \"seed\":90071992547409931234567890, \"t\":1.10, \"x\":1E+2, \"u\":\"\\u00e9é\U0001F600\\n\",\"x\":0 }",
		},
		"keys inside values": {jobs.Responses, `{"input":[{"service_tier":"x","content":"\"store\":true,{"}],"model":"m"}`, "flex", 0, false, `{"service_tier":"flex","store":false,"input":[{"service_tier":"x","content":"\"store\":true,{"}],"model":"m"}`},
		"escaped key":        {jobs.Responses, `{"model":"m","st\u006fre":true}`, "", 0, false, `{"model":"m","st\u006fre":true}`},
		"schema":             {jobs.Responses, `{"model":"m","store":true}`, "", 0, true, `{"text":{"format":` + format + `},"model":"m","store":true}`},
		"schema, chat":       {jobs.ChatCompletions, `{"model":"m"}`, "", 0, true, `{"response_format":` + chatFormat + `,"model":"m"}`},
		"schema into text":   {jobs.Responses, `{"model":"m","store":true,"text":{ "verbosity":"low"}}`, "", 0, true, `{"model":"m","store":true,"text":{"format":` + format + `, "verbosity":"low"}}`},
		"into empty text":    {jobs.Responses, `{"model":"m","store":true,"text":{ }}`, "", 0, true, `{"model":"m","store":true,"text":{"format":` + format + ` }}`},
		"into null format":   {jobs.Responses, `{"model":"m","store":true,"text":{"format":null}}`, "", 0, true, `{"model":"m","store":true,"text":{"format":` + format + `}}`},
		"into null text":     {jobs.Responses, `{"model":"m","store":true,"text":null}`, "", 0, true, `{"model":"m","store":true,"text":{"format":` + format + `}}`},
		"own format":         {jobs.Responses, `{"model":"m","store":true,"text":{"format":{"type":"json_object"}}}`, "", 0, true, `{"model":"m","store":true,"text":{"format":{"type":"json_object"}}}`},
		"own format, chat":   {jobs.ChatCompletions, `{"model":"m","response_format":{"type":"text"}}`, "", 0, true, `{"model":"m","response_format":{"type":"text"}}`},
		"null format, chat":  {jobs.ChatCompletions, `{"model":"m","response_format":null}`, "", 0, true, `{"model":"m","response_format":` + chatFormat + `}`},
	} {
		t.Run(name, func(t *testing.T) {
			cl := call(t, tc.url, tc.body)
			if tc.schema {
				cl.Job.Schema = json.RawMessage(shape)
			}
			cl.Lane.Tier = tc.tier
			got := sent(t, mantle.Config{BaseURL: "http://host/v1", MaxOutputTokens: tc.max}, cl)
			if got != tc.want {
				t.Errorf("sent\n%s\nwant\n%s", got, tc.want)
			}
			if !json.Valid([]byte(got)) {
				t.Errorf("sent %q, which is not JSON", got)
			}
		})
	}
}

// TestGoOn has the second call of a job: with more room, and with what was wrong.
func TestGoOn(t *testing.T) {
	flaw := &worker.Flaw{Text: `{"n":"é"}`, Findings: `at "/n": no`}
	const turns = `{"role":"assistant","content":"{\"n\":\"é\"}"},{"role":"user","content":"at \"/n\": no` +
		`\n\nAnswer again: with the whole corrected JSON document, and nothing else."}]`
	for name, tc := range map[string]struct {
		url, body string
		limit     int // the operator's
		max       int
		flaw      *worker.Flaw
		want      string
	}{
		"string":        {jobs.Responses, `{"model":"m","input": "a\"]" ,"store":true}`, 0, 0, flaw, `{"model":"m","input": [{"role":"user","content":"a\"]"},` + turns + ` ,"store":true}`},
		"list":          {jobs.Responses, `{"model":"m","store":true,"input":[{"a":"]"} ]}`, 0, 0, flaw, `{"model":"m","store":true,"input":[{"a":"]"} ,` + turns + `}`},
		"empty list":    {jobs.Responses, `{"model":"m","store":true,"input":[ ]}`, 0, 0, flaw, `{"model":"m","store":true,"input":[ ` + turns + `}`},
		"chat":          {jobs.ChatCompletions, `{"model":"m","messages":[{"role":"user","content":"a"}]}`, 0, 0, flaw, `{"model":"m","messages":[{"role":"user","content":"a"},` + turns + `}`},
		"room":          {jobs.Responses, `{"model":"m","store":true,"max_output_tokens":5}`, 9, 20, nil, `{"model":"m","store":true,"max_output_tokens":20}`},
		"room, default": {jobs.Responses, `{"model":"m","store":true}`, 9, 20, nil, `{"max_output_tokens":20,"model":"m","store":true}`},
		"room, chat":    {jobs.ChatCompletions, `{"model":"m","max_completion_tokens":5}`, 9, 20, nil, `{"model":"m","max_completion_tokens":20}`},
		"room, old":     {jobs.ChatCompletions, `{"model":"m","max_tokens":5}`, 9, 20, nil, `{"model":"m","max_tokens":20}`},
		"room, both":    {jobs.ChatCompletions, `{"model":"m","max_tokens":5,"max_completion_tokens":7}`, 9, 20, nil, `{"model":"m","max_tokens":5,"max_completion_tokens":20}`},
		"both":          {jobs.Responses, `{"model":"m","store":true,"max_output_tokens":5,"input":[]}`, 9, 20, flaw, `{"model":"m","store":true,"max_output_tokens":20,"input":[` + turns + `}`},
	} {
		t.Run(name, func(t *testing.T) {
			cl := call(t, tc.url, tc.body)
			cl.MaxOutput, cl.Flaw = tc.max, tc.flaw
			if got := sent(t, mantle.Config{MaxOutputTokens: tc.limit}, cl); got != tc.want {
				t.Errorf("sent\n%s\nwant\n%s", got, tc.want)
			}
		})
	}
}

func TestGrokGetsNoKeywordItRefuses(t *testing.T) {
	in := `{"type":"object","properties":{"minLength":{"type":"string","minLength":3,"pattern":"a\"b"},
		"b":{"type":"array","items":{"maxLength":2,"type":"string"},"minItems":1,"maxItems":9,"contains":{"const":"x"},"minContains":1,"maxContains":2},
		"c":{"anyOf":[{"maxLength":1,"type":"string"},{"type":"null"}]},"d":{"enum":[{"maxLength":1}],"default":{"allOf":[]}}},
		"allOf":[{"required":["b"]}],"$defs":{"maxItems":{"maxItems":1}},"required":["minLength"],"additionalProperties":false}`
	want := `{"type":"object","properties":{"minLength":{"type":"string","pattern":"a\"b"},` +
		`"b":{"type":"array","items":{"type":"string"},"contains":{"const":"x"}},` +
		`"c":{"anyOf":[{"type":"string"},{"type":"null"}]},"d":{"enum":[{"maxLength":1}],"default":{"allOf":[]}}},` +
		`"$defs":{"maxItems":{}},"required":["minLength"],"additionalProperties":false}`
	if got := string(mantle.Narrow([]byte(in))); got != want {
		t.Errorf("Narrow =\n%s\nwant\n%s", got, want)
	}
	for model, kept := range map[string]bool{grok: false, "grok-4.3": false, oss: true} {
		cl := call(t, jobs.Responses, prompt(model))
		cl.Job.Schema = json.RawMessage(`{"type":"string","maxLength":3}`)
		if got := sent(t, mantle.Config{}, cl); strings.Contains(got, "maxLength") != kept {
			t.Errorf("%s: sent %s, want maxLength: %t", model, got, kept)
		}
	}
}

func FuzzDefaults(f *testing.F) {
	f.Add(`{"model":"m","input":"x\\"}`, true)
	f.Add(`{"service_tier":null,"model":"m","text":{"a":1},"store":null}`, false)
	var got []byte
	c := newClient(f, mantle.Config{BaseURL: "http://host/v1", MaxOutputTokens: 5, HTTPClient: &http.Client{
		Transport: trip(func(req *http.Request) (*http.Response, error) {
			got = drain(req)
			return answer(200, said), nil
		}),
	}})
	f.Fuzz(func(t *testing.T, body string, chat bool) {
		url := jobs.Responses
		if chat {
			url = jobs.ChatCompletions
		}
		line := `{"custom_id":"a","url":"` + url + `","body":` + body + `,"upwell":{"schema":` + shape + `}}`
		j, err := jobs.Parse([]byte(line), "run")
		if err != nil || string(j.Body) != body {
			return
		}
		cl := worker.Call{Job: &j}
		cl.Lane.Tier = "flex"
		_, _ = c.Complete(t.Context(), cl)
		var before, after map[string]json.RawMessage
		_ = json.Unmarshal(j.Body, &before)
		if err := json.Unmarshal(got, &after); err != nil {
			t.Fatalf("sent %q: %v", got, err)
		}
		for k, v := range before {
			if open := string(v) == "null" || string(v) == `"auto"` || k == "text"; !open && string(after[k]) != string(v) {
				t.Errorf("%s = %s, want %s", k, after[k], v)
			}
		}
		if after["service_tier"] == nil || string(after["service_tier"]) == "null" {
			t.Errorf("sent %s without a tier", got)
		}
	})
}
