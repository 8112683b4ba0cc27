package mantle_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"upwell/jobs"
	"upwell/worker"
	"upwell/worker/mantle"
)

// ask makes a call that is answered with text.
func ask(t *testing.T, text, body, upwell string) (worker.Answer, error) {
	t.Helper()
	c := newClient(t, mantle.Config{
		HTTPClient: always(200, message(text)),
	})
	return c.Complete(t.Context(), call(t, jobs.Responses, body, upwell))
}

func TestOutput(t *testing.T) {
	inline := `{"schema":` + shape + `}`
	for name, tc := range map[string]struct{ text, want string }{
		"document":      {`{"n":1}`, `{"n":1}`},
		"as it is":      {" { \"n\" : 90071992547409931 }\n", `{ "n" : 90071992547409931 }`},
		"fence":         {"```json\n{\"n\":1}\n```", `{"n":1}`},
		"plain fence":   {"\n```\n{\"n\":\n1}\n```\n", "{\"n\":\n1}"},
		"one line":      {"```{\"n\":1}```", `{"n":1}`}, // which is no fence
		"a fence in it": {"Here it is: {\"n\":1,\"x\":\"use ```y```\"} or rather {\"n\":2}", `{"n":2}`},
		"beside fence":  {"Like\n```\n{\"x\":0}\n```\nthis: {\"n\":1}", `{"n":1}`},
		"prose":         {`Here it is: {"n":1}. I hope this helps.`, `{"n":1}`},
		"around fence":  {"Here:\n```json\n{\"n\":1}\n```\nI hope this helps [1].", `{"n":1}`},
		"cut fence":     {"```json\n{\"n\":1}", `{"n":1}`},
		"a reference":   {`As clause [3] says {sic}: {"n":1}`, `{"n":1}`},
		"one that fits": {"An example:\n```\n{\"x\":1}\n```\nAnd the answer:\n```\n{\"n\":2}\n```", `{"n":2}`},
	} {
		t.Run(name, func(t *testing.T) {
			ans, err := ask(t, tc.text, prompt(grok), inline)
			if err != nil || string(ans.Output) != tc.want || ans.Text != tc.text {
				t.Errorf("Complete = %q of %q, %v, want %q", ans.Output, ans.Text, err, tc.want)
			}
			if sum := sha256.Sum256([]byte(shape)); ans.Schema != hex.EncodeToString(sum[:]) {
				t.Errorf("Schema = %q, want the hash of %s", ans.Schema, shape)
			}
		})
	}
	if ans, err := ask(t, "Here: {\"n\":1}", prompt(grok), `{}`); err != nil || ans.Output != nil || ans.Schema != "" {
		t.Errorf("without a schema: output %q, schema %q, %v, want none", ans.Output, ans.Schema, err)
	}
}

func TestNoOutput(t *testing.T) {
	inline := `{"schema":` + shape + `}`
	const notJSON = "the answer is not JSON: want one JSON document, with nothing before or behind it"
	for name, tc := range map[string]struct{ text, upwell, want, findings string }{
		"against it":   {`{"n":"x","m":1}`, inline, `at "/n": got string, want integer`, "- at \"/n\": got string, want integer"},
		"elsewhere":    {`{}`, inline, `at ""`, "missing property"},
		"in a fence":   {"```\n{\"n\":\"x\"}\n```", inline, `at "/n"`, `at "/n"`},
		"in prose":     {`It is {"n":"x"}`, inline, `at "/n"`, `at "/n"`},
		"two fences":   {"```\n{\"n\":1}\n```\n```\n{\"n\":2}\n```", inline, notJSON, notJSON},
		"two values":   {`{"n":1}{"n":1}`, inline, notJSON, notJSON},
		"text":         {`no`, inline, notJSON, notJSON},
		"broken":       {`{"n":1`, inline, notJSON, notJSON},
		"braces":       {strings.Repeat("{", 10_000), inline, notJSON, notJSON},
		"a part of it": {`{"m":{"n":1},}`, inline, notJSON, notJSON},
		"unfinished":   {`{"m":{"n":1}`, inline, notJSON, notJSON},
		"a comment":    {"{\"m\": // the main one\n{\"n\":1}}", inline, notJSON, notJSON},
		"an example":   {"Like\n```\n{\"n\":0}\n```\nthis: {\"n\":1}", inline, notJSON, notJSON},
		"two wrong":    {`{"n":"x"} {"n":"xy"}`, inline, `at "/n": got string`, `at "/n": got string`},
		"huge number":  {`{"n":1e10000000}`, inline, "the number 1e10000000 is out of bounds", "out of bounds"},
		"deep":         {strings.Repeat("[", 300) + strings.Repeat("]", 300), inline, "nested deeper than 200 levels", "deeper"},
		"format":       {`"nodate"`, `{"schema":{"type":"string","format":"date"}}`, "date", "date"},
		"what is kept": {`"toolong"`, `{"schema":{"type":"string","maxLength":3}}`, "maxLength", "maxLength"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ask(t, tc.text, prompt(grok), tc.upwell)
			e, ok := errors.AsType[*worker.Error](err)
			if !ok || e.Kind != worker.Permanent || e.Class != jobs.SchemaFailed || !strings.Contains(e.Error(), tc.want) {
				t.Fatalf("Complete = %v, want a schema error with %q", err, tc.want)
			}
			if e.Answer == nil || e.Answer.Text != tc.text || e.Answer.Usage.OutputTokens != 5 || e.Answer.Output != nil {
				t.Errorf("Answer = %+v, want what was said and used, and no output", e.Answer)
			}
			if !strings.Contains(e.Findings, tc.findings) {
				t.Errorf("Findings = %q, want %q in them", e.Findings, tc.findings)
			}
		})
	}
}

// TestNoFindings has requests to which no turn can be added.
func TestNoFindings(t *testing.T) {
	for _, body := range []string{`{"model":"m"}`, `{"model":"m","input":null}`, `{"model":"m","messages":[]}`} {
		_, err := ask(t, "no", body, `{"schema":`+shape+`}`)
		if e, ok := errors.AsType[*worker.Error](err); !ok || e.Findings != "" {
			t.Errorf("%s: %v, want an error without findings", body, err)
		}
	}
}

func TestFindingsAreBounded(t *testing.T) {
	_, err := ask(t, "["+strings.Repeat(`"not a number",`, 50_000)+"1]", prompt(grok), `{"schema":{"type":"array","items":{"type":"number"}}}`)
	if e, ok := errors.AsType[*worker.Error](err); !ok || len(e.Findings) > 4000 || len(err.Error()) > 2200 || !strings.Contains(err.Error(), `at "/0"`) {
		t.Errorf("Complete = %d bytes, want the first findings in at most 2,200: %.300v", len(fmt.Sprint(err)), err)
	}
}

func TestOwnFormat(t *testing.T) {
	own := `{"type":"json_schema","name":"x","schema":` + shape + `}`
	for name, tc := range map[string]struct {
		url, body, text string
		ok              bool
		output          string
	}{
		"json_object":         {jobs.Responses, `{"model":"m","text":{"format":{"type":"json_object"}}}`, ` {"a":1}`, true, `{"a":1}`},
		"json_object, prose":  {jobs.Responses, `{"model":"m","text":{"format":{"type":"json_object"}}}`, `Here: {"a":1}`, false, ""},
		"json_object, fence":  {jobs.Responses, `{"model":"m","text":{"format":{"type":"json_object"}}}`, "Here:\n```\n{\"a\":1}\n```", true, `{"a":1}`},
		"json_object broken":  {jobs.Responses, `{"model":"m","text":{"format":{"type":"json_object"}}}`, `{"a":`, false, ""},
		"json_schema":         {jobs.Responses, `{"model":"m","text":{"format":` + own + `}}`, `{"n":1}`, true, `{"n":1}`},
		"json_schema against": {jobs.Responses, `{"model":"m","text":{"format":` + own + `}}`, `{"n":"1"}`, false, ""},
		"chat":                {jobs.ChatCompletions, `{"model":"m","response_format":{"type":"json_schema","json_schema":{"schema":` + shape + `}}}`, `{"n":1}`, true, `{"n":1}`},
		"chat against":        {jobs.ChatCompletions, `{"model":"m","response_format":{"type":"json_schema","json_schema":{"schema":` + shape + `}}}`, `{"m":1}`, false, ""},
		"not ours to compile": {jobs.Responses, `{"model":"m","text":{"format":{"type":"json_schema","schema":{"pattern":"(?=a)"}}}}`, `{"m":1}`, true, `{"m":1}`},
		"text":                {jobs.Responses, `{"model":"m","text":{"format":{"type":"text"}}}`, `{"n":1}`, true, ""},
		"the other API's key": {jobs.Responses, `{"model":"m","response_format":{"type":"json_object"}}`, `hi`, true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			b, _ := json.Marshal(tc.text)
			body := message(tc.text)
			if tc.url == jobs.ChatCompletions {
				body = chat(`"stop"`, `{"content":`+string(b)+`}`)
			}
			ans, err := newClient(t, mantle.Config{HTTPClient: always(200, body)}).Complete(t.Context(), call(t, tc.url, tc.body))
			if (err == nil) != tc.ok || string(ans.Output) != tc.output {
				t.Errorf("Complete = %q, %v, want %q, success %t", ans.Output, err, tc.output, tc.ok)
			}
		})
	}
}

func TestToolCallIsNotHeldToTheSchema(t *testing.T) {
	c := newClient(t, mantle.Config{HTTPClient: always(200, `{"status":"completed","output":[{"type":"function_call","name":"f"}]}`)})
	if ans, err := c.Complete(t.Context(), call(t, jobs.Responses, prompt(grok), `{"schema":`+shape+`}`)); err != nil || ans.Output != nil {
		t.Errorf("Complete = %q, %v, want no output and no error", ans.Output, err)
	}
}

func TestBadSchemaMakesNoCall(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret.json")
	if err := os.WriteFile(secret, []byte(`{"type":"number"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, upwell := range []string{
		`{"schema":{"type":"thing"}}`,
		`{"schema":{"description":"` + strings.Repeat("x", mantle.MaxSchema) + `"}}`,
		`{"schema":{"pattern":"(?=a)"}}`,
		`{"schema":{"$ref":"file://` + secret + `"}}`,
		`{"schema":{"$ref":"http://127.0.0.1:1/x.json"}}`,
	} {
		c := newClient(t, mantle.Config{HTTPClient: &http.Client{Transport: trip(func(*http.Request) (*http.Response, error) {
			t.Errorf("%s: a call was made", upwell)
			return answer(200, said), nil
		})}})
		e := failure(t.Context(), t, c, call(t, jobs.Responses, prompt(grok), upwell))
		if e.Kind != worker.Permanent || e.Class != jobs.BadJob {
			t.Errorf("%s: %v %q, want permanent bad_job", upwell, e.Kind, e.Class)
		}
	}
}

// TestHostileSchemas has what CheckSchema is to refuse, in words that help.
func TestHostileSchemas(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret.json")
	if err := os.WriteFile(secret, []byte(`{"type":"number"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct{ text, want string }{
		"a file":          {`{"$ref":"file://` + secret + `"}`, `it refers to "file://` + secret + `": references must stay inside`},
		"a file, deep":    {`{"properties":{"a":{"items":{"$ref":"file:///etc/passwd#/x"}}}}`, `"file:///etc/passwd"`},
		"an id of a file": {`{"$id":"file:///etc/","$ref":"passwd"}`, `"file:///etc/passwd"`},
		"a host":          {`{"$ref":"https://example.org/x.json"}`, `"https://example.org/x.json"`},
		"a metaschema":    {`{"$schema":"https://example.org/schema","type":"object"}`, `"https://example.org/schema"`},
		"too long":        {`{"description":"` + strings.Repeat("x", mantle.MaxSchema) + `"}`, "262162 bytes long, want at most 262144"},
		"no object":       {`[]`, "not a JSON object"},
		"no JSON":         {`{"type":`, "EOF"},
		"no schema":       {`{"type":"thing"}`, `no JSON Schema: at "/type": `},
		"deep":            {strings.Repeat(`{"items":`, 2000) + `{}` + strings.Repeat(`}`, 2000), "nested deeper than 100 levels"},
		"wide":            {`{"allOf":[` + strings.Repeat(`{},`, 20_000) + `{}]}`, "more than 10000 values"},
		"a huge number":   {`{"multipleOf":1e10000000}`, "the number 1e10000000 is out of bounds"},
		"many digits":     {`{"maximum":` + strings.Repeat("9", 2000) + `}`, "out of bounds"},
		"a huge pattern":  {`{"pattern":"` + strings.Repeat(`(a?b?c?d?){1000}`, 60) + `"}`, "too large: its repetitions multiply each other"},
		"a long pattern":  {`{"pattern":"` + strings.Repeat(`a`, 2000) + `"}`, "2000 bytes long, want at most 1000"},
		"no pattern":      {`{"pattern":"(?=a)"}`, `the pattern "(?=a)": error parsing regexp`},
		"a password":      {`{"$ref":"https://me:hunter2@example.org/x.json"}`, `"https://me:xxxxx@example.org/x.json"`},
	} {
		t.Run(name, func(t *testing.T) {
			if err := mantle.CheckSchema([]byte(tc.text)); err == nil || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "loading") {
				t.Errorf("CheckSchema = %v, want %q", err, tc.want)
			}
		})
	}
	for _, good := range []string{
		shape, "\n" + shape + "\n", `{"$schema":"http://json-schema.org/draft-07/schema#","type":"object"}`,
		`{"$defs":{"a":{"type":"string"}},"properties":{"b":{"$ref":"#/$defs/a"}}}`,
	} {
		if err := mantle.CheckSchema([]byte(good)); err != nil {
			t.Errorf("CheckSchema(%s) = %v, want nil", good, err)
		}
	}
}

// TestCheckIsBounded has schemas that ask for more comparisons than anybody can make,
// by themselves or together with an answer. None is begun.
func TestCheckIsBounded(t *testing.T) {
	chain := func(link string) string {
		var defs strings.Builder
		for i := range 60 {
			fmt.Fprintf(&defs, `"d%d":`+link+`,`, i, i+1, i+1)
		}
		return `"$defs":{` + defs.String() + `"d60":{"type":"integer"}}`
	}
	nested := func(open, end string) string { return strings.Repeat(open, 60) + `1` + strings.Repeat(end, 60) }
	numbers := func(n int) string { return strings.Trim(strings.Repeat("50000,", n), ",") }
	for name, tc := range map[string]struct{ schema, answer string }{
		"by itself":      {`{"$ref":"#/$defs/d0",` + chain(`{"anyOf":[{"$ref":"#/$defs/d%d"},{"$ref":"#/$defs/d%d"}]}`) + `}`, `{"x":1}`},
		"denied":         {`{"not":{"$ref":"#/$defs/d0"},` + chain(`{"dependencies":{"a":{"$ref":"#/$defs/d%d"},"b":{"$ref":"#/$defs/d%d"}}}`) + `}`, `{"a":1,"b":2}`},
		"with nested":    {`{"$ref":"#/$defs/x","$defs":{"x":{"anyOf":[{"properties":{"a":{"$ref":"#/$defs/x"}},"required":["b"]},{"properties":{"a":{"$ref":"#/$defs/x"}},"required":["b"]}]}}}`, nested(`{"a":`, `}`)},
		"with contained": {`{"not":{"$ref":"#/$defs/r"},"$defs":{"r":{"type":"array","items":{"$ref":"#/$defs/r"},"contains":{"$ref":"#/$defs/r"}}}}`, nested(`[`, `]`)},
		"enumerated":     {`{"items":{"enum":[` + numbers(4000) + `]}}`, `[` + numbers(1000) + `]`},
		"patterns":       {`{"patternProperties":{"(a?b?c?d?){400}":{},"x":{}}}`, `{"` + strings.Repeat("ab", 200_000) + `":1}`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ask(t, tc.answer, prompt(grok), `{"schema":`+tc.schema+`}`)
			e, ok := errors.AsType[*worker.Error](err)
			if !ok || e.Class != jobs.BadJob || !strings.Contains(e.Error(), "too many steps") || e.Answer == nil || e.Findings != "" {
				t.Errorf("Complete = %v, want a bad job for too many steps, with its answer", err)
			}
		})
	}
}

// TestHonestWorkIsDone has large answers, and schemas that refer to themselves.
func TestHonestWorkIsDone(t *testing.T) {
	tree := `{"$ref":"#/$defs/n","$defs":{"n":{"type":"object","properties":{"v":{"type":"integer"},"next":{"anyOf":[{"$ref":"#/$defs/n"},{"type":"null"}]}},"required":["v"],"additionalProperties":false}}}`
	for name, tc := range map[string]struct{ schema, answer string }{
		"many objects": {`{"type":"array","items":` + shape + `}`, `[` + strings.Repeat(`{"n":1},`, 20_000) + `{"n":2}]`},
		"a long list":  {tree, strings.Repeat(`{"v":1,"next":`, 150) + `null` + strings.Repeat(`}`, 150)},
		"extensible":   {`{"properties":{"a":{"$ref":"#"}},"additionalProperties":{"$ref":"#"}}`, strings.Repeat(`{"a":`, 100) + `1` + strings.Repeat(`}`, 100)},
		"unique":       {`{"uniqueItems":true,"items":{"enum":["a","b","c"]}}`, `["a","b","c"]`},
		"a pattern":    {`{"items":{"pattern":"^[a-z]+(-[a-z]+)*$"}}`, `[` + strings.Repeat(`"who-may-terminate",`, 5000) + `"x"]`},
	} {
		t.Run(name, func(t *testing.T) {
			if ans, err := ask(t, tc.answer, prompt(grok), `{"schema":`+tc.schema+`}`); err != nil || string(ans.Output) != tc.answer {
				t.Errorf("Complete = %d bytes, %v, want the answer", len(ans.Output), err)
			}
		})
	}
}

// TestRedact has errors that quote the endpoint, the model and a proxy.
func TestRedact(t *testing.T) {
	const secret = "Clause 7 of the Zorblax merger"
	for name, tc := range map[string]struct {
		status int
		body   string
		want   string
	}{
		"endpoint": {400, `{"error":{"code":"invalid_prompt","message":"cannot read ` + secret + `"}}`, "mantle: 400 Bad Request: invalid_prompt"},
		"odd code": {400, `{"error":{"code":"` + secret + `","message":"x"}}`, "mantle: 400 Bad Request"},
		"page":     {502, `<html>` + secret, "mantle: 502 Bad Gateway"},
		"refusal":  {200, `{"status":"completed","output":[{"content":[{"type":"refusal","refusal":"` + secret + `"}]}]}`, "mantle: the model refused"},
		"schema":   {200, message(`{"n":"` + secret + `"}`), `mantle: the answer is against the schema; at "/n": type`},
		"a key":    {200, message(`{"` + secret + `":1,"n":1}`), `mantle: the answer is against the schema; at "": additionalProperties`},
		"no JSON":  {200, message(secret), "mantle: the answer is not JSON: want one JSON document, with nothing before or behind it"},
		"failed":   {200, `{"status":"failed","error":{"code":"server_error","message":"` + secret + `"}}`, "mantle: status 200"},
		"odd end":  {200, `{"status":"incomplete","incomplete_details":{"reason":"` + secret + `"}}`, "mantle: status 200"},
		"cut":      {200, `{"status":"incomplete","incomplete_details":{"reason":"max_output_tokens"},"output":[]}`, "mantle: the answer ended at its limit of output tokens"},
	} {
		t.Run(name, func(t *testing.T) {
			c := newClient(t, mantle.Config{HTTPClient: always(tc.status, tc.body), Redact: true})
			e := failure(t.Context(), t, c, call(t, jobs.Responses, prompt(grok), `{"schema":`+shape+`}`))
			if e.Error() != tc.want {
				t.Errorf("error %q, want %q", e, tc.want)
			}
		})
	}
}

// TestRedactPointers has the model choose a key, and what is beneath it is wrong.
func TestRedactPointers(t *testing.T) {
	c := newClient(t, mantle.Config{HTTPClient: always(200, message(`{"known":[{"Jane Doe":1}]}`)), Redact: true})
	e := failure(t.Context(), t, c, call(t, jobs.Responses, prompt(grok),
		`{"schema":{"properties":{"known":{"items":{"additionalProperties":{"type":"string"}}}}}}`))
	const want = `mantle: the answer is against the schema; at "/known/0/*": type`
	if e.Error() != want || !strings.Contains(e.Findings, "/known/0/Jane Doe") {
		t.Errorf("error %q with findings %q, want %q, and the model told all", e, e.Findings, want)
	}
}

// TestFindingIsBounded has one finding of half a megabyte.
func TestFindingIsBounded(t *testing.T) {
	_, err := ask(t, `"`+strings.Repeat("x", 500_000)+`"`, prompt(grok), `{"schema":{"enum":["a"],"pattern":"^a"}}`)
	if e, ok := errors.AsType[*worker.Error](err); !ok || len(e.Findings) > 3000 || len(e.Error()) > 3000 {
		t.Errorf("%d bytes of findings, %d of text, want 3,000 at most", len(e.Findings), len(e.Error()))
	}
}

func TestSchemaCache(t *testing.T) {
	c := newClient(t, mantle.Config{HTTPClient: always(200, message("7"))})
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for n := range mantle.MaxSchemas / 2 {
				// Each goroutine has some schemas of its own and some of everybody's.
				upwell := fmt.Sprintf(`{"schema":{"type":"integer","maximum":%d}}`, 7+n+i%2*10_000)
				if _, err := c.Complete(t.Context(), call(t, jobs.Responses, prompt(grok), upwell)); err != nil {
					t.Errorf("Complete = %v, want nil", err)
				}
			}
		})
	}
	wg.Wait()
	if _, err := c.Complete(t.Context(), call(t, jobs.Responses, prompt(grok), `{"schema":{"type":"integer","maximum":6}}`)); err == nil {
		t.Error("Complete = nil, want the schema's own verdict, not a neighbour's")
	}
	if n := mantle.SchemasKept(c); n > mantle.MaxSchemas {
		t.Errorf("%d schemas are kept, want at most %d", n, mantle.MaxSchemas)
	}
}
