package prompt_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"upwell/cmd/internal/prompt"
	"upwell/jobs"
)

// beside are the files beside the templates of these tests.
var beside = fstest.MapFS{
	"review.json":       {Data: []byte(`{"type":"object","properties":{"risk":{"type":"string"}},"required":["risk"],"additionalProperties":false}`)},
	"wrong.json":        {Data: []byte(`{"type":"thing"}`)},
	"list.json":         {Data: []byte(`[]`)},
	"empty.md":          {Data: []byte("\n")},
	"latin.md":          {Data: []byte("ok\ncaf\xe9")},
	"varies.md":         {Data: []byte("Rule 1.\nGreet {{.name}}.\n")},
	"playbook.md":       {Data: []byte("\ufeffRule 1: quote.\r\nRule 2: be brief.\r\n")},
	"sub/playbook.md":   {Data: []byte("Rule 3.\n")},
	"sub/v1.2.json":     {Data: []byte(`{"type":"object"}`)},
	".json":             {Data: []byte(`{"type":"object"}`)},
	"sub/dir/x.json":    {Data: []byte(`{}`)},
	"outside-link.json": {Data: []byte(`{}`)},
}

func parse(t *testing.T, text string) *prompt.Template {
	t.Helper()
	tmpl, err := prompt.Parse("review.md", []byte(text), beside)
	if err != nil {
		t.Fatalf("Parse(%q): %v", text, err)
	}
	return tmpl
}

func record(values map[string]any) prompt.Record {
	return prompt.Record{ID: "a", Place: "rows.csv:12", Values: values}
}

const all = `---
model: xai.grok-4.3
api: responses
effort: low
tiers: [flex, default]
max_output_tokens: 2000
temperature: 0
schema: review.json
playbook: playbook.md
system: |
  You review contracts.

  Be exact.
images: high
key: [region, id]
---

Contract {{.name}}:
{{.text}}
`

// TestLines pins the bytes of jobs: a change here makes other jobs of old input, which
// a run that is gone on with would notice as another run.
func TestLines(t *testing.T) {
	system := `"You review contracts.\n\nBe exact.\n\nRule 1: quote.\nRule 2: be brief."`
	for _, tc := range []struct {
		name, template string
		image          *prompt.Image
		want           string // HASH stands for the template's hash
	}{
		{
			name: "everything", template: all,
			want: `{"custom_id":"a","method":"POST","url":"/v1/responses","body":{"model":"xai.grok-4.3","instructions":` + system +
				`,"input":"Contract n:\n<t> & more","reasoning":{"effort":"low"},"max_output_tokens":2000,"temperature":0},"upwell":{"tiers":["flex","default"],"schema":"review","template_sha256":"HASH"}}`,
		},
		{
			name: "everything in a chat", template: strings.Replace(all, "api: responses", "api: chat", 1),
			want: `{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":{"model":"xai.grok-4.3","messages":[{"role":"system","content":` + system +
				`},{"role":"user","content":"Contract n:\n<t> & more"}],"reasoning_effort":"low","max_completion_tokens":2000,"temperature":0},"upwell":{"tiers":["flex","default"],"schema":"review","template_sha256":"HASH"}}`,
		},
		{
			name: "the least", template: "---\nmodel: m\n---\n{{.text}}",
			want: `{"custom_id":"a","method":"POST","url":"/v1/responses","body":{"model":"m","input":"<t> & more"},"upwell":{"template_sha256":"HASH"}}`,
		},
		{
			name: "the least of a chat", template: "---\nmodel: m\napi: chat\ntemperature: 0.25\n---\n{{.text}}",
			want: `{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":{"model":"m","messages":[{"role":"user","content":"<t> & more"}],"temperature":0.25},"upwell":{"template_sha256":"HASH"}}`,
		},
		{
			name: "an image", template: "---\nmodel: m\nimages: high\n---\nWhat is it?", image: &prompt.Image{Type: "image/png", Data: []byte("pixels")},
			want: `{"custom_id":"a","method":"POST","url":"/v1/responses","body":{"model":"m","input":[{"role":"user","content":[{"type":"input_text","text":"What is it?"},` +
				`{"type":"input_image","image_url":"data:image/png;base64,cGl4ZWxz","detail":"high"}]}]},"upwell":{"template_sha256":"HASH"}}`,
		},
		{
			name: "an image in a chat", template: "---\nmodel: m\napi: chat\n---\nWhat is it?", image: &prompt.Image{Type: "image/jpeg", Data: []byte("pixels")},
			want: `{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"What is it?"},` +
				`{"type":"image_url","image_url":{"url":"data:image/jpeg;base64,cGl4ZWxz","detail":"auto"}}]}]},"upwell":{"template_sha256":"HASH"}}`,
		},
		{
			name: "an image alone", template: "---\nmodel: m\nsystem: Describe it.\n---\n", image: &prompt.Image{Type: "image/png", Data: []byte("pixels")},
			want: `{"custom_id":"a","method":"POST","url":"/v1/responses","body":{"model":"m","instructions":"Describe it.","input":[{"role":"user","content":[` +
				`{"type":"input_image","image_url":"data:image/png;base64,cGl4ZWxz","detail":"auto"}]}]},"upwell":{"template_sha256":"HASH"}}`,
		},
	} {
		tmpl := parse(t, tc.template)
		r := record(map[string]any{"name": "n", "text": "<t> & more"})
		r.Image = tc.image
		line, err := tmpl.Job(r)
		if err != nil {
			t.Errorf("%s: %v", tc.name, err)
			continue
		}
		if diff := cmp.Diff(strings.Replace(tc.want, "HASH", tmpl.SHA256(), 1), string(line)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tc.name, diff)
		}
		job, err := jobs.Parse(line, "run")
		if err != nil || job.TemplateSHA256 != tmpl.SHA256() || job.Model != tmpl.Settings().Model {
			t.Errorf("%s: jobs.Parse = %+v, %v", tc.name, job, err)
		}
	}
}

func TestSettings(t *testing.T) {
	tmpl := parse(t, all)
	zero := 0.0
	want := prompt.Settings{
		Model: "xai.grok-4.3", URL: jobs.Responses, Effort: "low", Images: "high", Schema: "review",
		Tiers: []string{"flex", "default"}, Key: []string{"region", "id"}, MaxOutputTokens: 2000, Temperature: &zero,
	}
	if diff := cmp.Diff(want, tmpl.Settings()); diff != "" {
		t.Errorf("Settings (-want +got):\n%s", diff)
	}
	want = prompt.Settings{Model: "m", URL: jobs.Responses, Images: "auto"}
	if diff := cmp.Diff(want, parse(t, "---\nmodel: m\n---\n{{.x}}").Settings()); diff != "" {
		t.Errorf("Settings left open (-want +got):\n%s", diff)
	}
	name, schema := tmpl.Schema()
	if name != "review" || string(schema) != string(beside["review.json"].Data) {
		t.Errorf("Schema = %q, %s", name, schema)
	}
	if name, _ := parse(t, "---\nmodel: m\nschema: sub/v1.2.json\n---\n{{.x}}").Schema(); name != "v1.2" {
		t.Errorf("the schema of sub/v1.2.json is %q, want v1.2", name)
	}
	if name, _ := parse(t, "---\nmodel: m\nschema: .json\n---\n{{.x}}").Schema(); name == "" {
		t.Error("the schema of .json has no name")
	}
	if got := parse(t, "---\nmodel: m\nkey: 2024\ntiers: flex\nplaybook: ./sub/playbook.md\n---\n{{.x}}"); got.Key()[0] != "2024" || got.System() != "Rule 3." {
		t.Errorf("key %q, system %q, want 2024 and Rule 3.", got.Key(), got.System())
	}
}

// TestMistakes holds messages to naming file, line and field, and what is wanted.
func TestMistakes(t *testing.T) {
	front := func(lines string) string { return "---\nmodel: m\n" + lines + "\n---\n{{.text}}" }
	for _, tc := range []struct{ name, template, want string }{
		{"no front matter", "Hello {{.name}}", `review.md:1: "Hello {{.name}}", want a line "---"`},
		{"no end", "---\nmodel: m\n", `review.md:1: no second line "---"`},
		{"empty", "", `review.md:1: "", want a line`},
		{"no settings", "---\n---\n{{.x}}", `review.md:1: want settings`},
		{"a comment alone", "---\n# later\n---\n{{.x}}", `review.md:1: want settings`},
		{"a list", "---\n- model\n---\n{{.x}}", `review.md:1: want settings`},
		{"no model", "---\napi: chat\n---\n{{.x}}", `review.md:1: model: missing`},
		{"model is nothing", "---\nmodel:\n---\n{{.x}}", `review.md:2: model: nothing there: want the name of a model`},
		{"model is a number", "---\nmodel: 4.3\n---\n{{.x}}", `review.md:2: model: the number 4.3, want the name of a model`},
		{"unknown", front("modell: x"), `review.md:3: modell: unknown setting, want model, api, effort, tiers, max_output_tokens, temperature, schema, playbook, system, images or key`},
		{"unknown and strange", front("\"a\\e[1m\": x"), `review.md:3: "a\x1b[1m": unknown setting`},
		{"twice", front("api: chat\nmodel: x"), `review.md:4: model: it is on line 2 already`},
		{"api", front("\napi: Chat"), `review.md:4: api: "Chat", want responses or chat`},
		{"effort", front("effort: xhigh"), `review.md:3: effort: "xhigh", want none, low, medium or high`},
		{"effort in capitals", front("effort: [low]"), `review.md:3: effort: a list, want none`},
		{"tier", front("tiers: [flex, turbo]"), `review.md:3: tiers: "turbo", want a list of flex, default, priority or reserved`},
		{"tier twice", front("tiers: [flex, flex]"), `review.md:3: tiers: flex is there twice`},
		{"no tiers", front("tiers: []"), `review.md:3: tiers: an empty list`},
		{"tiers nested", front("tiers: [[flex]]"), `review.md:3: tiers: a list, want a list of flex`},
		{"limit 0", front("max_output_tokens: 0"), `review.md:3: max_output_tokens: the number 0, want a whole number from 1`},
		{"limit broken", front("max_output_tokens: 1.5"), `review.md:3: max_output_tokens: the number 1.5, want a whole number`},
		{"limit text", front("max_output_tokens: \"10\""), `review.md:3: max_output_tokens: "10", want a whole number`},
		{"limit huge", front("max_output_tokens: 99999999999999999999"), `review.md:3: max_output_tokens: the number 99999999999999999999, want`},
		{"temperature", front("temperature: 2.1"), `review.md:3: temperature: the number 2.1, want a number from 0 to 2`},
		{"temperature below", front("temperature: -0.1"), `review.md:3: temperature: the number -0.1, want`},
		{"temperature no number", front("temperature: .nan"), `review.md:3: temperature: the number .nan, want`},
		{"temperature word", front("temperature: hot"), `review.md:3: temperature: "hot", want`},
		{"images", front("images: full"), `review.md:3: images: "full", want auto, low or high`},
		{"key", front("key: {a: b}"), `review.md:3: key: settings of its own, want the name of a column`},
		{"key with nothing", front("key: [a, ]\neffort: ~"), `review.md:4: effort: nothing there: want none, low, medium or high, or no such line`},
		{"reference", front("api: &x chat\neffort: *x"), `review.md:4: effort: a reference, want`},
		{"merge", front("<<: {api: chat}"), `review.md:3: "<<": unknown setting`},
		{"date", front("model2: 2024-01-01"), `review.md:3: model2: unknown`},
		{"tab", front("system:\n\tx"), `review.md:4: the settings are not YAML: found character that cannot start any token`},
		{"open quote", front("system: \"x"), `the settings are not YAML: found unexpected`},
		{"two documents", front("...\nmodel: y"), `review.md:1: the settings end before the second line`},
		{"no schema file", front("schema: none.json"), `review.md:3: schema: none.json: there is no such file beside the template`},
		{"a name over two lines", front("schema: a\n\n b"), `review.md:3: schema: "a\nb": there is no such file`},
		{"a number over two lines", front("temperature: !!int \"x\\ny\""), `review.md:3: temperature: the number "x\ny", want`},
		{"a type over two lines", front("api: !<a%0Ab> x"), `review.md:3: api: a value of type "a`},
		{"bad schema", front("effort: low\nschema: wrong.json"), `review.md:4: schema: wrong.json: no JSON Schema: at "/type"`},
		{"schema no object", front("schema: list.json"), `review.md:3: schema: list.json: not a JSON object`},
		{"schema is a folder", front("schema: sub"), `review.md:3: schema: sub: `},
		{"absolute", front("schema: /etc/passwd"), `review.md:3: schema: "/etc/passwd" leads elsewhere`},
		{"up", front("schema: ../review.json"), `review.md:3: schema: "../review.json" leads out of the template's folder`},
		{"up in the middle", front("playbook: sub/../../x.md"), `review.md:3: playbook: "sub/../../x.md" leads out`},
		{"up for Windows", front(`playbook: sub\..\..\x.md`), `review.md:3: playbook: "sub\\..\\..\\x.md" leads out`},
		{"empty playbook", front("playbook: empty.md"), `review.md:3: playbook: empty.md: empty`},
		{"playbook no text", front("playbook: latin.md"), `review.md:3: playbook: latin.md: not valid UTF-8 text on line 2`},
		{"playbook varies", front("playbook: varies.md"), `review.md:3: playbook: varies.md: a placeholder in its line 2: this text is the same in every request, so that the endpoint's prompt cache can serve it`},
		{"system varies", front("system: |\n  You greet.\n  Greet {{.name}}."), `review.md:3: system: a placeholder in its line 2: this text is the same in every request`},
		{"system a number", front("system: 5"), `review.md:3: system: the number 5, want text`},
		{"no text", "---\nmodel: m\n---\nx\ncaf\xe9", `review.md:5: not valid UTF-8 text`},
		{"open placeholder", "---\nmodel: m\n---\n\n\nx {{.name", `review.md:6: unclosed action`},
		{"unknown function", "---\nmodel: m\n---\n{{text}}", `review.md:4: there is no function text: a column is written {{.text}}`},
		{"a name with a blank", "---\nmodel: m\n---\nA\n{{.Contract ID}}", `review.md:5: there is no function ID: a column is written {{.ID}}, or {{col "Its Name"}}`},
		{"a name with a dash", "---\nmodel: m\n---\n{{.contract-id}}", `review.md:4: bad character U+002D '-': a column whose name is not letters and digits is written {{col "its-name"}}`},
		{"a method's name", "---\nmodel: m\n---\n{{.String}}", `review.md: {{.String}} means something to the template engine: for a column of that name write {{col "String"}}`},
		{"a method's name within", "---\nmodel: m\n---\n{{range .x}}{{(index . 0).MarshalJSON}}{{end}}", `{{.MarshalJSON}} means something`},
	} {
		_, err := prompt.Parse("review.md", []byte(tc.template), beside)
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: error %v, want %s", tc.name, err, tc.want)
		}
	}
}

// TestMistakeOnce has a path that is refused not be looked for as well.
func TestMistakeOnce(t *testing.T) {
	for _, field := range []string{"schema", "playbook"} {
		for _, path := range []string{"../x.json", "/x.json"} {
			_, err := prompt.Parse("t.md", []byte("---\nmodel: m\n"+field+": "+path+"\n---\n{{.x}}"), beside)
			if err == nil || strings.Contains(err.Error(), "\n") || !strings.HasPrefix(err.Error(), "t.md:3: "+field+": ") {
				t.Errorf("%s: %s: %v, want one error", field, path, err)
			}
		}
	}
}

// TestFiles has a template know the files that it is made of.
func TestFiles(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "t.md")
	for name, text := range map[string]string{"t.md": "---\nmodel: m\nplaybook: ./p.md\nschema: s.json\n---\n{{.x}}", "p.md": "Rules.", "s.json": `{"type":"object"}`} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	tmpl, err := prompt.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := tmpl.Files(), []string{path, filepath.Join(dir, "s.json"), filepath.Join(dir, "p.md")}; !slices.Equal(got, want) {
		t.Errorf("Files = %q, want %q", got, want)
	}
}

// TestAllMistakes: one look at a template tells all that is wrong with its settings.
func TestAllMistakes(t *testing.T) {
	_, err := prompt.Parse("t.md", []byte("---\nmodel: m\neffort: x\ntypo: 1\nschema: none.json\n---\n{{.x}}"), beside)
	if lines := strings.Split(err.Error(), "\n"); len(lines) != 3 || !strings.HasPrefix(lines[0], "t.md:3: effort") || !strings.HasPrefix(lines[1], "t.md:4: typo") || !strings.HasPrefix(lines[2], "t.md:5: schema") {
		t.Errorf("errors:\n%v", err)
	}
}

func TestBodies(t *testing.T) {
	values := map[string]any{
		"name": "Größe", "Contract ID": "C-7", "nothing": nil, "n": json.Number("12345678901234567890.10"), "yes": true, "count": int64(7),
		"f": 1e6, "small": float32(0.1), "tiny": 1e-12, "nest": map[string]any{"city": "Köln", "void": nil, "n": json.Number("1.50"), "b": 2, "a": "<&>"},
		"list": []any{"x", nil, map[string]any{"k": "v"}}, "raw": json.RawMessage(`{"z":1.0,"a":[]}`), "bytes": []byte("hi"), "empty": "",
	}
	for _, tc := range []struct{ body, want string }{
		{"{{.name}}|{{.nothing}}|{{.n}}|{{.yes}}|{{.count}}", "Größe||12345678901234567890.10|true|7"},
		{"{{.f}} {{.small}} {{.tiny}}", "1000000 0.1 1e-12"},
		{`{{col "Contract ID"}} {{index . "Contract ID"}} {{index $ "name"}}`, "C-7 C-7 Größe"},
		{"{{.nest}} {{.nest.city}} {{.nest.void}}|{{.list}} {{.raw}} {{.bytes}}", `{"a":"<&>","b":2,"city":"Köln","n":1.50,"void":null} Köln |["x",null,{"k":"v"}] {"a":[],"z":1.0} hi`},
		{`{{index .list 2 "k"}} {{(index .list 2).k}} {{len .list}}`, "v v 3"},
		{`{{json .name}} {{json .nothing}} {{json .n}} {{json .nest.a}}`, `"Größe" null 12345678901234567890.10 "<&>"`},
		{`{{if .nothing}}a{{else}}b{{end}}{{if eq .nothing ""}}c{{end}}{{if .empty}}d{{end}}{{if .yes}}e{{end}}{{if gt .f 5.0}}f{{end}}`, "bcef"},
		{`{{range .list}}[{{.}}]{{end}}{{range $k, $v := .nest}} {{$k}}={{$v}}{{end}}`, `[x][][{"k":"v"}] a=<&> b=2 city=Köln n=1.50 void=`},
		{`{{with .nest}}{{.city}} {{$.name}} {{col "name"}}{{end}}`, "Köln Größe Größe"},
		{`{{define "p"}}<{{.city}} {{col "name"}}>{{end}}{{template "p" .nest}}`, "<Köln Größe>"},
		{"\n\n  {{- .yes -}}  \n", "true"},
		{"  indented {{.yes}}\n\n", "  indented true"},
	} {
		got, err := parse(t, "---\nmodel: m\n---\n"+tc.body).Prompt(record(values))
		if err != nil || got != tc.want {
			t.Errorf("%s = %q, %v, want %q", tc.body, got, err, tc.want)
		}
	}
	got, err := parse(t, "---\nmodel: m\n---\n{{.}}\n{{json .}}").Prompt(record(map[string]any{"b": json.Number("1.0"), "a": nil, "Z": "\u2028"}))
	if want := `{"Z":"\u2028","a":null,"b":1.0}`; err != nil || got != want+"\n"+want {
		t.Errorf("the whole record = %q, %v", got, err)
	}
}

// TestUnfit is what no job can be made of. Nothing may be left out in silence, and each
// message says which line of the template and which record.
func TestUnfit(t *testing.T) {
	const body = "---\nmodel: m\n---\n\nName {{.name}}\n"
	png := &prompt.Image{Type: "image/png", Data: []byte("x")}
	long := map[string]any{}
	for i := range 40 {
		long["c"+string(rune('A'+i))] = 1
	}
	for _, tc := range []struct {
		name, template string
		record         prompt.Record
		want           string // HERE stands for the record's place
	}{
		{"a missing column", body + "{{.nam}}", record(map[string]any{"name": "x", "a b": 1}), `HERE: review.md:6: {{.nam}}: there is no column nam, want one of "a b", name`},
		{"a missing column for col", body + `{{col "nam e"}}`, record(map[string]any{"name": "x"}), `HERE: review.md:6: {{col "nam e"}}: there is no column "nam e", want one of name`},
		{"a missing column for index", body + `{{index . "nam"}}`, record(map[string]any{"name": "x"}), `HERE: review.md:6: {{index . "nam"}}: there is no column nam, want one of name`},
		{"in an if", body + `{{if .opt}}x{{end}}`, record(map[string]any{"name": "x"}), `there is no column opt`},
		{"within", body + `{{.o.name}}{{.o.zip}}`, record(map[string]any{"name": "x", "o": map[string]any{"name": 1}}), `HERE: review.md:6: {{.o.zip}}: there is no zip in it`},
		{"within for index", body + `{{index .o "zip"}}`, record(map[string]any{"name": "x", "o": map[string]any{}}), `there is no zip in it`},
		{"behind the end", body + `{{index .l 1}}`, record(map[string]any{"name": "x", "l": []any{1}}), `there is no item 1 in a list of 1`},
		{"into a text", body + `{{index .name 1}}`, record(map[string]any{"name": "x"}), `HERE: review.md:6: {{index .name 1}}: error calling index: nothing to index: "x"`},
		{"no columns", body, record(nil), `want one of none at all`},
		{"many columns", body, record(long), `cA, cB, cC, cD, cE`},
		{"many columns", body, record(long), ` and 10 more`},
		{"nothing varies", "---\nmodel: m\n---\nHello", record(map[string]any{"text": "x"}), `HERE: review.md: no placeholder in the body, so that every job would be the same: name a column of the input, such as {{.text}}; there are text`},
		{"an empty prompt", "---\nmodel: m\n---\n{{.name}}\n", record(map[string]any{"name": " \n"}), `HERE: the prompt is empty`},
		{"no text", body, record(map[string]any{"name": "caf\xe9"}), `HERE: column name is not valid UTF-8 text`},
		{"no text within", body + "{{.l}}{{range .l}}{{.}}{{end}}", record(map[string]any{"name": "x", "l": []any{"\xff"}}), `HERE: a value is not valid UTF-8 text`},
		{"no number", body + "{{json .n}}", record(map[string]any{"name": "x", "n": json.Number("1e")}), `no JSON`},
		{"no id", body, prompt.Record{Place: "rows.csv:12", Values: map[string]any{"name": "x"}}, `HERE: no id`},
		{"an id that is no text", body, prompt.Record{ID: "\xff", Place: "rows.csv:12", Values: map[string]any{"name": "x"}}, `HERE: id "\xff" is not valid UTF-8 text`},
		{"an id with NUL", body, prompt.Record{ID: "a\x00", Place: "rows.csv:12", Values: map[string]any{"name": "x"}}, `HERE: id "a\x00" contains a NUL character`},
		{"a long id", body, prompt.Record{ID: strings.Repeat("a", 513), Place: "rows.csv:12", Values: map[string]any{"name": "x"}}, `is 513 bytes long, want at most 512`},
		{"an image of another type", body, prompt.Record{ID: "a", Place: "rows.csv:12", Values: map[string]any{"name": "x"}, Image: &prompt.Image{Type: "image/gif", Data: png.Data}}, `HERE: an image of type "image/gif", want image/png or image/jpeg`},
		{"an empty image", body, prompt.Record{ID: "a", Place: "rows.csv:12", Values: map[string]any{"name": "x"}, Image: &prompt.Image{Type: "image/png"}}, `HERE: the image is empty`},
		{"a large image", body, prompt.Record{ID: "a", Place: "rows.csv:12", Values: map[string]any{"name": "x"}, Image: &prompt.Image{Type: "image/png", Data: make([]byte, prompt.MaxImage+1)}}, `HERE: the image has 20971521 bytes, want at most 20 MiB`},
	} {
		line, err := parse(t, tc.template).Job(tc.record)
		want := strings.Replace(tc.want, "HERE", "rows.csv:12", 1)
		if err == nil || line != nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %s, %v, want %s", tc.name, line, err, want)
			continue
		}
		if e, ok := errors.AsType[*prompt.RecordError](err); !ok || e.Place != "rows.csv:12" || strings.Contains(e.Err.Error(), e.Place) {
			t.Errorf("%s: %#v, want a RecordError that has the place once", tc.name, err)
		}
	}
}

// TestHostileValues: whatever a document says, it stays the text of the prompt, to the
// last character, and the line stays one line.
func TestHostileValues(t *testing.T) {
	values := []string{
		`"},"upwell":{"run":"other"}}`, "</script><!-- & -->", "a\u2028\u2029\u0085", "{{.name}} {{col \"x\"}}", "\x00\x01\x1b[2J\x7f", "a\r\nb\rc", `\u0000 \ud800 \`,
		"\ufeff\ufffd\U0001F600", strings.Repeat("9", 5000), "%s %!d", "---\nmodel: other\n---", "<no value>",
	}
	for _, template := range []string{"---\nmodel: m\n---\n{{.text}}", "---\nmodel: m\napi: chat\nsystem: s\n---\n{{.text}}"} {
		tmpl := parse(t, template)
		for _, v := range values {
			r := prompt.Record{ID: v[:min(len(v), 9)], Place: "p", Values: map[string]any{"text": v}}
			if strings.ContainsRune(r.ID, 0) || !utf8.ValidString(r.ID) {
				r.ID = "a"
			}
			line, err := tmpl.Job(r)
			if err != nil || bytes.ContainsAny(line, "\r\n") {
				t.Errorf("%q: %s, %v", v, line, err)
				continue
			}
			job, err := jobs.Parse(line, "run")
			if err != nil || job.CustomID != r.ID || job.Run != "run" {
				t.Errorf("%q: %+v, %v", v, job.Key, err)
			}
			var body struct {
				Input    string
				Messages []struct{ Content string }
			}
			if err := json.Unmarshal(job.Body, &body); err != nil {
				t.Errorf("%q: %v", v, err)
			}
			if n := len(body.Messages); n > 0 {
				body.Input = body.Messages[n-1].Content
			}
			if body.Input != v {
				t.Errorf("sent %q, want %q", body.Input, v)
			}
		}
	}
}

// TestSameBytes: goroutines share a template, and the same record makes the same line.
func TestSameBytes(t *testing.T) {
	tmpl := parse(t, "---\nmodel: m\n---\n{{col \"id\"}} {{.m}} {{range $k, $v := .m}}{{$k}}{{$v}}{{end}} {{json .}}")
	made := func(id string) string {
		m := map[string]any{}
		for c := range strings.SplitSeq("q w e r t z u i o p", " ") {
			m[c] = id
		}
		line, err := tmpl.Job(prompt.Record{ID: id, Place: id, Values: map[string]any{"id": id, "m": m}})
		if err != nil {
			t.Error(err)
		}
		return string(line)
	}
	want := map[string]string{"a": made("a"), "b": made("b"), "c": made("c")}
	var wg sync.WaitGroup
	for id, line := range want {
		for range 4 {
			wg.Go(func() {
				for range 200 {
					if got := made(id); got != line {
						t.Errorf("%s made %s, want %s", id, got, line)
						return
					}
				}
			})
		}
	}
	wg.Wait()
}

// TestIdentity: what changes the jobs changes the hash, and nothing else does.
func TestIdentity(t *testing.T) {
	base := parse(t, all)
	if sum := base.SHA256(); !regexp.MustCompile(`^[0-9a-f]{64}$`).MatchString(sum) {
		t.Errorf("SHA256 = %q", sum)
	}
	for _, part := range []string{all, "Rule 1: quote.\nRule 2: be brief.\n", `"required":["risk"]`} {
		if !strings.Contains(base.Text(), part) {
			t.Errorf("Text lacks %q", part)
		}
	}
	same := map[string]string{
		"CRLF": strings.ReplaceAll(all, "\n", "\r\n"),
		"BOM":  "\ufeff" + all,
	}
	for name, text := range same {
		tmpl := parse(t, text)
		if tmpl.SHA256() != base.SHA256() || tmpl.Text() != base.Text() {
			t.Errorf("%s makes another template", name)
		}
		if got, err := tmpl.Prompt(record(map[string]any{"name": "n", "text": "t"})); err != nil || got != "Contract n:\nt" {
			t.Errorf("%s: prompt %q, %v", name, got, err)
		}
	}
	for name, file := range map[string]string{"playbook.md": "Rule 1: quote.\n", "review.json": `{"type":"object"}`} {
		files := fstest.MapFS{}
		maps.Copy(files, beside)
		files[name] = &fstest.MapFile{Data: []byte(file)}
		tmpl, err := prompt.Parse("review.md", []byte(all), files)
		if err != nil || tmpl.SHA256() == base.SHA256() {
			t.Errorf("another %s makes the same template (%v)", name, err)
		}
	}
	if parse(t, all+"!").SHA256() == base.SHA256() {
		t.Error("another body makes the same template")
	}
}

// TestOpen reads real files, and does not follow a link out of the folder.
func TestOpen(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "in"), 0o700); err != nil {
		t.Fatal(err)
	}
	write("secret.md", "secret")
	write("in/playbook.md", "Rules.")
	write("in/good.md", "---\nmodel: m\nplaybook: playbook.md\n---\n{{.x}}")
	write("in/leak.md", "---\nmodel: m\nplaybook: link.md\n---\n{{.x}}")
	if err := os.Symlink("../secret.md", filepath.Join(dir, "in", "link.md")); err != nil {
		t.Skip(err)
	}
	tmpl, err := prompt.Open(filepath.Join(dir, "in", "good.md"))
	if err != nil || tmpl.System() != "Rules." {
		t.Errorf("Open = %v", err)
	}
	if _, err := prompt.Open(filepath.Join(dir, "in", "leak.md")); err == nil || !strings.Contains(err.Error(), "leak.md:3: playbook: link.md: ") {
		t.Errorf("a link out of the folder: %v, want an error", err)
	}
	_, err = prompt.Open(filepath.Join(dir, "none.md"))
	if !errors.Is(err, fs.ErrNotExist) || strings.Count(err.Error(), "none.md") != 1 {
		t.Errorf("no file: %v", err)
	}
}

func TestColumns(t *testing.T) {
	for _, tc := range []struct {
		body  string
		want  []string
		whole bool
	}{
		{"{{.b}} {{.a.x}} {{.b}}", []string{"b", "a"}, false},
		{`{{col "A B"}} {{index . "c"}} {{index $ "d" 0}} {{index .e "f"}} {{json .g}} {{printf "%s" (json $.h)}}`, []string{"A B", "c", "d", "e", "g", "h"}, false},
		{"{{range .rows}}{{.inner}}{{$.outer}}{{end}}{{with .w}}{{.inner}}{{else}}{{.z}}{{end}}{{if .i}}{{.j}}{{end}}", []string{"rows", "outer", "w", "z", "i", "j"}, false},
		{`{{$x := .v}}{{$x.inner}} {{(index .l 0).inner}}`, []string{"v", "l"}, false},
		{"{{.}}", nil, true},
		{"{{json $}}", nil, true},
		{"{{.a}}{{range $k, $v := .}}{{end}}", []string{"a"}, true},
		{`{{define "p"}}{{.q}}{{template "p" .}}{{end}}{{template "p" .}}`, []string{"q"}, false},
		{`{{define "p"}}{{.q}}{{end}}{{template "p" .r}}`, []string{"r"}, false},
		{`{{col .which}}`, nil, true},
		{"constant", nil, false},
	} {
		names, whole := parse(t, "---\nmodel: m\nkey: k\n---\n"+tc.body).Columns()
		if diff := cmp.Diff(tc.want, names); diff != "" || whole != tc.whole {
			t.Errorf("%s: whole %v, columns (-want +got):\n%s", tc.body, whole, diff)
		}
	}
	tmpl := parse(t, "---\nmodel: m\nkey: k\n---\n{{.b}}")
	if diff := cmp.Diff([]string{"a"}, tmpl.Unused([]string{"a", "b", "k"})); diff != "" {
		t.Errorf("Unused (-want +got):\n%s", diff)
	}
}

func TestLayout(t *testing.T) {
	rules := strings.Repeat("Quote the decisive words. ", 40)
	for _, tc := range []struct {
		name, template string
		head, tail     string
		late           bool
	}{
		{"rules first", "---\nmodel: m\n---\n" + rules + "\n{{.text}}\nThe end.", rules + "\n", "\nThe end.", false},
		{"rules last", "---\nmodel: m\n---\n{{.text}}\n" + rules, "", "\n" + rules, true},
		{"rules in the system text", "---\nmodel: m\nsystem: " + rules + rules + "\n---\n{{.text}}\n" + rules, "", "\n" + rules, false},
		{"rules that not all have", "---\nmodel: m\n---\nA {{if .x}}" + rules + "{{end}}", "A ", "", false},
	} {
		l := parse(t, tc.template).Layout()
		if head, tail := prompt.Tokens(tc.head), prompt.Tokens(strings.TrimRight(tc.tail, "\n")); l.Head != head || l.Tail != tail || l.Late() != tc.late {
			t.Errorf("%s: %+v, late %v, want head %d, tail %d, late %v", tc.name, l, l.Late(), head, tail, tc.late)
		}
	}
	l := parse(t, all).Layout()
	if l.System == 0 || l.Schema == 0 || l.Shared() != l.System+l.Schema+l.Head {
		t.Errorf("layout %+v, shared %d", l, l.Shared())
	}
}

// FuzzParse: no template crashes the reader, a good one makes jobs that are jobs, and
// a message is of one line for each mistake and names the file.
func FuzzParse(f *testing.F) {
	for _, text := range []string{
		all, strings.ReplaceAll(all, "\n", "\r\n"), "---\nmodel: m\n---\n{{.text}}", "---\nmodel: &a [*a]\n---\n", "---\n? x\n: y\n---\n{{col \"text\"}}{{range .name}}{{end}}",
		"---\nmodel: !!binary aGk=\nkey: [1, 2.5, a]\n---\n{{json .}}", "---\n\"\\u0000\": 1\n---\n", "--- \nmodel: m\n---\t\n{{define \"x\"}}{{template \"x\"}}{{end}}",
		"---\nsystem: |2\n   x\nmodel: 'm'\nplaybook: playbook.md\ntemperature: 0x1\nmax_output_tokens: 1_0\n---\n{{/* c */}}{{- .text -}}",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		tmpl, err := prompt.Parse("t.md", text, beside)
		if err != nil {
			for line := range strings.SplitSeq(err.Error(), "\n") {
				if !strings.HasPrefix(line, "t.md") {
					t.Errorf("%q: error %q, want it to name the file", text, line)
				}
			}
			return
		}
		if again, err := prompt.Parse("t.md", []byte(strings.ReplaceAll(string(text), "\r\n", "\n")), beside); err != nil || again.SHA256() != tmpl.SHA256() {
			t.Errorf("%q: without CR %v", text, err)
		}
		if bytes.Contains(text, []byte("template")) || bytes.Contains(text, []byte("block")) || bytes.Contains(text, []byte("range")) {
			return // it may go on for long, which is its author's affair
		}
		line, err := tmpl.Job(record(map[string]any{"text": "a \"quoted\"\ntext", "name": "n"}))
		if err != nil {
			return
		}
		if job, err := jobs.Parse(line, "run"); err != nil || job.Model != tmpl.Settings().Model {
			t.Errorf("%q made %s: %v", text, line, err)
		}
	})
}
