package mantlesim_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"upwell/worker/mantle/mantlesim"
)

// clauses is what a contract review would ask for.
const clauses = `{
	"type": "object", "additionalProperties": false,
	"required": ["governing_law", "notice_days", "termination", "auto_renewal", "risk", "parties", "effective_date"],
	"properties": {
		"governing_law": {"type": "string", "description": "the law that governs the agreement"},
		"notice_days": {"type": "integer", "minimum": 0, "description": "days of notice to terminate"},
		"termination": {"type": ["string", "null"]},
		"auto_renewal": {"type": "boolean"},
		"risk": {"enum": ["low", "medium", "high"]},
		"parties": {"type": "array", "minItems": 2, "items": {"type": "string"}},
		"effective_date": {"type": "string", "format": "date"}
	}
}`

// answerTo returns an answer in both shapes of request that satisfies a schema,
// as text.
func answerTo(t *testing.T, s *mantlesim.Server, path, schema string) string {
	t.Helper()
	body := grok(contract, `,"text":{"format":{"type":"json_schema","name":"x","strict":true,"schema":`+schema+`}}`)
	if path == chat {
		body = grokChat(contract, `,"response_format":{"type":"json_schema","json_schema":{"name":"x","strict":true,"schema":`+schema+`}}`)
	}
	a := post(s, path, body)
	if a.Code != 200 {
		t.Fatalf("%s: %d %s", schema, a.Code, a.Text)
	}
	return a.output(t)
}

// checker returns what validates documents.
func checker(t *testing.T, schema string) func(doc string) error {
	t.Helper()
	raw, err := jsonschema.UnmarshalJSON(strings.NewReader(schema))
	if err != nil {
		t.Fatalf("%s: %v", schema, err)
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource("schema.json", raw); err != nil {
		t.Fatalf("%s: %v", schema, err)
	}
	compiled, err := c.Compile("schema.json")
	if err != nil {
		t.Fatalf("%s: %v", schema, err)
	}
	return func(doc string) error {
		v, err := jsonschema.UnmarshalJSON(strings.NewReader(doc))
		if err != nil {
			return err
		}
		return compiled.Validate(v)
	}
}

func TestAnswersSatisfyTheirSchema(t *testing.T) {
	s := mantlesim.New(mantlesim.Config{})
	for _, schema := range []string{
		clauses,
		`{}`,
		`{"type":"object"}`,
		`{"type":"null"}`,
		`{"type":"boolean"}`,
		`{"type":"string","maxLength":5}`,
		`{"type":"string","minLength":700}`,
		`{"type":"string","minLength":3,"maxLength":3}`,
		`{"type":"string","maxLength":0}`,
		`{"type":["integer","null"]}`,
		`{"type":["object","array","string"],"properties":{"a":{"type":"string"}}}`,
		`{"type":"string","nullable":true}`,
		`{"enum":["a",1,null,{"x":[1.5]}]}`,
		`{"const":{"b":1,"a":[true]}}`,
		`{"type":"string","enum":["MIT","Apache-2.0"]}`,
		`{"type":"integer","minimum":3,"maximum":3}`,
		`{"type":"integer","exclusiveMinimum":3,"exclusiveMaximum":5}`,
		`{"type":"integer","minimum":-20,"maximum":-10}`,
		`{"type":"integer","multipleOf":7,"minimum":50}`,
		`{"type":"integer","multipleOf":2.5}`,
		`{"type":"integer","multipleOf":1000}`,
		`{"type":"integer","maximum":-5}`,
		`{"type":"integer","maximum":5}`,
		`{"type":"integer","minimum":0.5,"maximum":1.5}`,
		`{"type":"integer","minimum":9007199254740993,"maximum":9007199254740993}`,
		`{"type":"number","minimum":0,"maximum":1}`,
		`{"type":"number","exclusiveMinimum":0,"exclusiveMaximum":0.001}`,
		`{"type":"number","multipleOf":0.01,"minimum":10}`,
		`{"type":"number","multipleOf":0.1}`,
		`{"type":"number","minimum":1e3,"maximum":1e3}`,
		`{"type":"number","exclusiveMinimum":0.07,"maximum":0.08,"multipleOf":0.01}`,
		`{"minimum":5,"maximum":6}`,
		`{"type":"array"}`,
		`{"type":"array","items":{"type":"integer"},"minItems":4,"maxItems":4}`,
		`{"type":"array","items":{"type":"boolean"},"maxItems":0}`,
		`{"type":"array","items":{"enum":["a","b","c","d"]},"uniqueItems":true,"minItems":4}`,
		`{"type":"array","items":{"type":"boolean"},"uniqueItems":true,"minItems":2,"maxItems":2}`,
		`{"type":"array","prefixItems":[{"type":"string"},{"type":"integer"}],"items":false}`,
		`{"type":"array","prefixItems":[{"type":"string"}],"items":{"type":"null"},"minItems":3}`,
		`{"type":"array","contains":{"const":7},"minContains":2,"items":{"type":"integer"}}`,
		`{"$schema":"http://json-schema.org/draft-07/schema#","type":"array","items":[{"type":"integer"},{"type":"string"}],"additionalItems":false}`,
		`{"items":{"type":"string"}}`,
		`{"type":"object","required":["x"]}`,
		`{"type":"object","required":["x"],"additionalProperties":{"type":"integer"}}`,
		`{"type":"object","additionalProperties":{"type":"number"},"minProperties":3,"maxProperties":4}`,
		`{"type":"object","propertyNames":{"pattern":"^[a-z]{3,8}$"},"minProperties":3}`,
		`{"type":"object","properties":{"a":{},"b":{},"c":{}},"maxProperties":2,"required":["b"]}`,
		`{"type":"object","properties":{"a":{"type":"string"},"b":{"type":"string"}},"minProperties":2,"additionalProperties":false}`,
		`{"properties":{"a":true},"required":["a"]}`,
		`{"anyOf":[{"type":"string"},{"type":"integer"}]}`,
		`{"anyOf":[{"$ref":"#/$defs/a"},{"type":"null"}],"$defs":{"a":{"type":"object","required":["k"],"properties":{"k":{"const":1}}}}}`,
		`{"type":"object","properties":{"x":{"type":"integer"}},"anyOf":[{"required":["x"]},{"required":["y"]}]}`,
		`{"type":"object","properties":{"a":{"type":"string"},"b":{"type":"string"}},"oneOf":[{"required":["a"]},{"required":["b"]}]}`,
		`{"oneOf":[{"type":"object","properties":{"kind":{"const":"a"},"x":{"type":"integer"}},"required":["kind","x"]},{"type":"object","properties":{"kind":{"const":"b"}},"required":["kind"]}]}`,
		`{"type":"string","anyOf":[{"type":"integer"},{"minLength":3}]}`,
		`{"enum":["a","b","c"],"anyOf":[{"const":"z"},{"enum":["c","d"]}]}`,
		`{"allOf":[{"type":"object","properties":{"a":{"type":"integer","minimum":5}},"required":["a"]},{"properties":{"a":{"maximum":5},"b":{"type":"null"}},"required":["b"]}]}`,
		`{"allOf":[{"type":["string","integer"]},{"type":["integer","null"]}],"minimum":8}`,
		`{"allOf":[{"type":"number"},{"type":"integer"}]}`,
		`{"allOf":[{"enum":[1,2,3]},{"enum":[3,4]}]}`,
		`{"allOf":[{"type":"integer","minimum":5,"maximum":9},{"minimum":7,"maximum":20}]}`,
		`{"minLength":8,"maxLength":20,"allOf":[{"type":"string","minLength":3,"maxLength":9}]}`,
		`{"type":"integer","anyOf":[{"enum":["a",null,[],true]},{"enum":[1.5,"b"]},{"enum":[2,{}]}]}`,
		`{"type":"object","allOf":[{"additionalProperties":false,"properties":{"a":{"type":"integer"}}},{"properties":{"a":{"minimum":3}},"required":["a"]}]}`,
		`{"allOf":[{"type":"array","minItems":2,"items":{"type":"integer"}},{"maxItems":2,"items":{"minimum":9}}]}`,
		`{"$ref":"#/$defs/node","$defs":{"node":{"type":"object","required":["v"],"properties":{"v":{"type":"integer"},"next":{"$ref":"#/$defs/node"}},"additionalProperties":false}}}`,
		`{"$defs":{"e":{"anyOf":[{"type":"number"},{"type":"object","required":["l","r","op"],"properties":{"op":{"enum":["+","-"]},"l":{"$ref":"#/$defs/e"},"r":{"$ref":"#/$defs/e"}},"additionalProperties":false}]}},"$ref":"#/$defs/e"}`,
		`{"type":"object","properties":{"kids":{"type":"array","items":{"$ref":"#"}}},"required":["kids"]}`,
		`{"$defs":{"a/b":{"type":"integer"}},"properties":{"x":{"$ref":"#/$defs/a~1b"}},"required":["x"]}`,
		`{"$defs":{"l":{"anyOf":[{"$ref":"#/$defs/l"},{"type":"null"}]}},"$ref":"#/$defs/l"}`,
		`{"definitions":{"p":{"type":"string","pattern":"^P-[0-9]{4}$"}},"type":"array","minItems":1,"items":{"$ref":"#/definitions/p","description":"a number"}}`,
		`{"type":"string","format":"date"}`, `{"type":"string","format":"date-time"}`, `{"type":"string","format":"email"}`,
		`{"type":"string","format":"uri"}`, `{"type":"string","format":"uuid"}`, `{"type":"string","format":"ipv4"}`,
		`{"type":"string","format":"ipv6"}`, `{"type":"string","format":"time"}`, `{"type":"string","format":"hostname"}`,
		`{"type":"string","format":"duration"}`, `{"type":"string","format":"regex-of-ours"}`,
		`{"type":"string","pattern":"^\\d{3}-[A-Z]+(foo|bar)?$"}`,
		`{"type":"string","pattern":"^[^a-z]{2,5}$","maxLength":3}`,
		`{"type":"string","pattern":"^.+@.+$","minLength":30,"maxLength":90}`,
		`{"type":"string","pattern":"^(?i)yes|no$"}`,
		`{"type":"string","pattern":"^[äöü]+$"}`,
		`{"type":"object","properties":{"type":{"type":"string"},"properties":{"type":"array","items":{"type":"string"}}},"required":["type","properties"]}`,
	} {
		seen, check := map[string]bool{}, checker(t, schema)
		for i := range 60 {
			doc := answerTo(t, s, []string{responses, chat}[i%2], schema)
			if err := check(doc); err != nil {
				t.Errorf("%s\nanswer: %s\n%v", schema, doc, err)
				break
			}
			seen[doc] = true
		}
		if schema == clauses && len(seen) < 10 {
			t.Errorf("60 answers to one request, only %d different", len(seen))
		}
	}
}

// randomSchema draws a schema out of all that generation claims to satisfy.
func randomSchema(r *rand.Rand, depth int) map[string]any {
	kinds := 9
	if depth <= 0 {
		kinds = 5
	}
	n := func() int { return r.IntN(5) }
	switch r.IntN(kinds) {
	case 0:
		lo := r.IntN(40) - 20
		return map[string]any{"type": "integer", "minimum": lo, "maximum": lo + 10 + r.IntN(20), "multipleOf": 1 + r.IntN(4)}
	case 1:
		lo := float64(r.IntN(100)) / 10
		return map[string]any{"type": "number", "exclusiveMinimum": lo, "maximum": lo + 0.3}
	case 2:
		lo := r.IntN(60)
		return map[string]any{"type": "string", "minLength": lo, "maxLength": lo + r.IntN(60)}
	case 3:
		return map[string]any{"enum": []any{"low", 3, nil, true, "high"}}
	case 4:
		return map[string]any{"type": []any{"boolean", "null"}}
	case 5:
		lo := n()
		return map[string]any{"type": "array", "items": randomSchema(r, depth-1), "minItems": lo, "maxItems": lo + n()}
	case 6:
		return map[string]any{"anyOf": []any{randomSchema(r, depth-1), randomSchema(r, depth-1)}}
	case 7:
		return map[string]any{"allOf": []any{randomSchema(r, depth-1), map[string]any{"description": "merged"}}}
	default:
		props, required := map[string]any{}, []any{}
		for i := range n() {
			name := fmt.Sprintf("%s_%d", []string{"law", "notice", "fee", "party"}[r.IntN(4)], i)
			props[name] = randomSchema(r, depth-1)
			if r.IntN(2) == 0 {
				required = append(required, name)
			}
		}
		return map[string]any{"type": "object", "properties": props, "required": required, "additionalProperties": r.IntN(2) == 0}
	}
}

func TestRandomSchemas(t *testing.T) {
	s := mantlesim.New(mantlesim.Config{})
	r := rand.New(rand.NewPCG(1, 2))
	for range 700 {
		raw, _ := json.Marshal(randomSchema(r, 3))
		schema := string(raw)
		doc := answerTo(t, s, responses, schema)
		if err := checker(t, schema)(doc); err != nil {
			t.Fatalf("%s\nanswer: %s\n%v", schema, doc, err)
		}
	}
}

// No schema, however odd, may break the simulator or make it run away.
func FuzzSchema(f *testing.F) {
	f.Add(clauses)
	f.Add(`{"minItems":1000000000,"type":"array"}`)
	f.Add(`{"type":"string","pattern":"((a{100}){10}|b*)*$","minLength":99999999}`)
	f.Add(`{"type":"string","pattern":"((((a{0})*)*)*)*","minLength":500}`)
	f.Add(`{"$ref":"#","allOf":[{"$ref":"#"}],"anyOf":[{"$ref":"#/anyOf/0"}]}`)
	f.Add(`{"type":"number","minimum":1e999,"multipleOf":1e-999,"maximum":-5}`)
	f.Add(`{"required":["a","a"],"properties":[],"minProperties":3,"maxProperties":1,"enum":[]}`)
	f.Add(`{"type":"integer","minimum":5,"maximum":2,"multipleOf":-3}`)
	f.Add(`{"type":[],"oneOf":[false,true,3]}`)
	f.Add(`{"type":"object","propertyNames":{"const":"a"},"minProperties":9}`)
	f.Add(`{"properties":{"a":{"$ref":"#"},"b":{"$ref":"#"},"c":{"$ref":"#"}},"required":["a","b","c"]}`)
	s := mantlesim.New(mantlesim.Config{})
	f.Fuzz(func(t *testing.T, schema string) {
		if !json.Valid([]byte(schema)) || !strings.HasPrefix(schema, "{") {
			return
		}
		begin := time.Now()
		if a := post(s, responses, grok(contract, `,"text":{"format":{"type":"json_schema","name":"x","schema":`+schema+`}}`)); a.Code != 200 {
			t.Errorf("%s: %d %s", schema, a.Code, a.Text)
		}
		if took := time.Since(begin); took > 2*time.Minute { // a busy machine takes a second, and may stand still for a while
			t.Errorf("%s took %v", schema, took)
		}
	})
}

// A review of a contract reads sensibly: values come from the passages that are
// asked about.
func TestAnswersQuoteTheInput(t *testing.T) {
	s := mantlesim.New(mantlesim.Config{})
	hits := map[string]int{}
	const n = 100
	for range n {
		var doc struct {
			Law     string `json:"governing_law"`
			Notice  int    `json:"notice_days"`
			Date    string `json:"effective_date"`
			Renewal bool   `json:"auto_renewal"`
		}
		if err := json.Unmarshal([]byte(answerTo(t, s, responses, clauses)), &doc); err != nil {
			t.Fatal(err)
		}
		for name, ok := range map[string]bool{
			"law": strings.Contains(doc.Law, "Denmark"), "notice": doc.Notice == 90, "date": doc.Date == "2024-03-15", "renewal": doc.Renewal,
		} {
			if ok {
				hits[name]++
			}
		}
	}
	if hits["law"] < 90 || hits["notice"] < 60 || hits["date"] < 90 || hits["renewal"] > 5 && hits["renewal"] < 95 {
		t.Errorf("of %d answers: %v", n, hits)
	}
	a := post(s, responses, grok(contract))
	if text := a.output(t); !strings.Contains(contract, text[strings.Index(text, ": ")+2:][:20]) {
		t.Errorf("prose is not from the input: %s", text)
	}
}
