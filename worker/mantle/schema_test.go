package mantle_test

import (
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
		Schemas:    map[string]json.RawMessage{"shape": json.RawMessage("\n" + shape + "\n")},
	})
	return c.Complete(t.Context(), call(t, jobs.Responses, body, upwell))
}

func TestOutput(t *testing.T) {
	inline, named := `{"schema":`+shape+`}`, `{"schema":"shape"}`
	for name, tc := range map[string]struct{ text, upwell, want string }{
		"document":    {`{"n":1}`, inline, `{"n":1}`},
		"named":       {`{"n":1}`, named, `{"n":1}`},
		"as it is":    {" { \"n\" : 90071992547409931 }\n", inline, `{ "n" : 90071992547409931 }`},
		"fence":       {"```json\n{\"n\":1}\n```", inline, `{"n":1}`},
		"plain fence": {"\n```\n{\"n\":\n1}\n```\n", inline, "{\"n\":\n1}"},
	} {
		t.Run(name, func(t *testing.T) {
			ans, err := ask(t, tc.text, prompt(grok), tc.upwell)
			if err != nil || string(ans.Output) != tc.want || ans.Text != tc.text {
				t.Errorf("Complete = %q of %q, %v, want %q", ans.Output, ans.Text, err, tc.want)
			}
		})
	}
}

func TestNoOutput(t *testing.T) {
	inline := `{"schema":` + shape + `}`
	for name, tc := range map[string]struct{ text, upwell, want string }{
		"against it":   {`{"n":"x","m":1}`, inline, `at "/n"`},
		"elsewhere":    {`{}`, inline, `at ""`},
		"named":        {`{"n":"x"}`, `{"schema":"shape"}`, `at "/n"`},
		"prose":        {`Here it is: {"n":1}`, inline, "not JSON"},
		"after fence":  {"```json\n{\"n\":1}\n```\nI hope this helps", inline, "not JSON"},
		"two fences":   {"```\n{\"n\":1}\n```\n```\n{\"n\":2}\n```", inline, "not JSON"},
		"cut fence":    {"```json\n{\"n\":1}", inline, "not JSON"},
		"two values":   {`{"n":1}{"n":1}`, inline, "not JSON"},
		"text":         {`no`, inline, "not JSON"},
		"format":       {`"nodate"`, `{"schema":{"type":"string","format":"date"}}`, "date"},
		"what is kept": {`"toolong"`, `{"schema":{"type":"string","maxLength":3}}`, "maxLength"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ask(t, tc.text, prompt(grok), tc.upwell)
			e, ok := errors.AsType[*worker.Error](err)
			if !ok || e.Kind != worker.Permanent || e.Class != jobs.SchemaFailed || !strings.Contains(e.Error(), tc.want) {
				t.Fatalf("Complete = %v, want a schema error with %q", err, tc.want)
			}
			if e.Answer == nil || e.Answer.Text != tc.text || e.Answer.Usage.OutputTokens != 5 {
				t.Errorf("Answer = %+v, want what was said and used", e.Answer)
			}
		})
	}
}

func TestFindingsAreBounded(t *testing.T) {
	_, err := ask(t, "["+strings.Repeat(`"not a number",`, 50_000)+"1]", prompt(grok), `{"schema":{"type":"array","items":{"type":"number"}}}`)
	if err == nil || len(err.Error()) > 2200 || !strings.Contains(err.Error(), `at "/0"`) {
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
		`{"schema":"nobody's"}`,
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
