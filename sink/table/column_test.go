package table_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"upwell/sink/table"
)

// schema returns a run's schemas: one whose properties are given.
func schema(properties string) map[string]json.RawMessage {
	return map[string]json.RawMessage{"s": json.RawMessage(`{"type":"object","properties":{` + properties + `},
		"$defs":{"money":{"type":"number"},"node":{"type":"object","properties":{"name":{"type":"string"},"next":{"$ref":"#/$defs/node"}}},"a/b":{"type":"boolean"}}}`)}
}

func catalog(t *testing.T, schemas map[string]json.RawMessage, taken ...string) *table.Catalog {
	t.Helper()
	c, err := table.NewCatalog(schemas, taken...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// described lists the columns as NAME:TYPE.
func described(columns []table.Column) (list []string) {
	for _, c := range columns {
		list = append(list, c.Name+":"+c.Type.String())
	}
	return list
}

// ofAnswer are the default columns between status and model.
func ofAnswer(t *testing.T, c *table.Catalog) []string {
	t.Helper()
	list := described(c.Default())
	end := slices.Index(list, "model:string")
	if end < 2 {
		t.Fatalf("the columns are %v, want custom_id and status first and model later", list)
	}
	return list[2:end]
}

func TestDefaultColumns(t *testing.T) {
	want := []string{
		"custom_id:string", "status:string", "output_text:string", "output:json", "model:string", "tier:string", "region:string",
		"input_tokens:int64", "cached_tokens:int64", "output_tokens:int64", "reasoning_tokens:int64", "cost_usd:double", "repairs:int64",
		"attempts:int64", "request_id:string", "input_sha256:string", "finished:timestamp", "run:string", "error_code:string", "error_message:string",
	}
	two := map[string]json.RawMessage{"a": []byte(`{}`), "b": []byte(`{}`)}
	for _, schemas := range []map[string]json.RawMessage{nil, two} {
		if diff := cmp.Diff(want, described(catalog(t, schemas).Default())); diff != "" {
			t.Errorf("the columns of %d schemas differ (-want +got):\n%s", len(schemas), diff)
		}
	}
	if got := described(catalog(t, nil).Default("run")); slices.Contains(got, "run:string") || len(got) != len(want)-1 {
		t.Errorf("the columns without run are %v", got)
	}
}

func TestTypesOfASchema(t *testing.T) {
	for _, tt := range []struct {
		properties string
		want       []string
	}{
		{`"z":{"type":"string"},"a":{"type":"integer"}`, []string{"z:string", "a:int64"}}, // in the schema's order
		{`"a":{"type":"number"},"b":{"type":"boolean"}`, []string{"a:double", "b:bool"}},
		{`"a":{"type":"string","format":"date"},"b":{"type":"string","format":"date-time"},"c":{"type":"string","format":"email"}`, []string{"a:date", "b:timestamp", "c:string"}},
		{`"a":{"type":["string","null"]},"b":{"type":["null","integer"]},"c":{"type":["integer","number"]}`, []string{"a:string", "b:int64", "c:double"}},
		{`"a":{"anyOf":[{"type":"null"},{"type":"string","format":"date"}]},"b":{"oneOf":[{"type":"integer"},{"const":null}]}`, []string{"a:date", "b:int64"}},
		{`"a":{"anyOf":[{"type":"integer"},{"type":"string"}]},"b":{"type":["integer","string"]},"c":{},"d":true`, []string{"a:json", "b:json", "c:json", "d:json"}},
		{`"a":{"enum":["x","y",null]},"b":{"enum":[1,2]},"c":{"enum":[1,2.5]},"d":{"enum":[true]},"e":{"enum":["x",1]},"f":{"const":"x"}`, []string{"a:string", "b:int64", "c:double", "d:bool", "e:json", "f:string"}},
		{`"a":{"type":"array","items":{"type":"string"}},"b":{"type":["array","null"],"items":{"type":["string","null"],"format":"date-time"}}`, []string{"a:string[]", "b:timestamp[]"}},
		{`"a":{"type":"array"},"b":{"type":"array","items":{"type":"object"}},"c":{"type":"array","items":{"type":"array","items":{"type":"string"}}}`, []string{"a:json", "b:json", "c:json"}},
		{`"a":{"type":"array","prefixItems":[{"type":"string"}],"items":{"type":"string"}}`, []string{"a:json"}},
		{`"a":{"type":"object","properties":{"b":{"type":"object","properties":{"c":{"type":"string"}}},"d":{"type":"integer"}}}`, []string{"a_b_c:string", "a_d:int64"}},
		{`"a":{"anyOf":[{"type":"null"},{"properties":{"b":{"type":"string"}}}]}`, []string{"a_b:string"}},
		{`"a":{"type":"object"},"b":{"type":"object","additionalProperties":{"type":"string"}}`, []string{"a:json", "b:json"}},
		{`"a":{"$ref":"#/$defs/money"},"b":{"$ref":"#/$defs/a~1b"},"c":{"type":"array","items":{"$ref":"#/$defs/money"}}`, []string{"a:double", "b:bool", "c:double[]"}},
		{`"a":{"type":"string","allOf":[{"pattern":"^a"}]},"b":{"type":["integer","null"],"anyOf":[{"minimum":0}]},"c":{"$ref":"#/$defs/money","type":"integer"}`, []string{"a:string", "b:int64", "c:int64"}},
		{`"a":{"$ref":"#/$defs/none","type":"integer"},"b":{"type":"object","allOf":[{"$ref":"#/$defs/node"}]},"c":{"type":"string","anyOf":[{"type":"string","format":"date"},{"type":"null"}]}`, []string{"a:int64", "b_name:string", "b_next:json", "c:date"}},
		{`"a":{"$ref":"#/$defs/node"},"b":{"$ref":"#/$defs/node"}`, []string{"a_name:string", "a_next:json", "b_name:string", "b_next:json"}},
		{`"a":{"$ref":"#"},"b":{"$ref":"#/$defs/none"},"c":{"$ref":"http://x.test/s"},"d":{"allOf":[{"$ref":"#/$defs/money"}]}`, []string{"a_a:json", "a_b:json", "a_c:json", "a_d:double", "b:json", "c:json", "d:double"}},
	} {
		if diff := cmp.Diff(tt.want, ofAnswer(t, catalog(t, schema(tt.properties)))); diff != "" {
			t.Errorf("columns of %s differ (-want +got):\n%s", tt.properties, diff)
		}
	}
}

func TestAnswersThatAreNoObjects(t *testing.T) {
	for text, want := range map[string]string{
		`{"type":"array","items":{"type":"integer"}}`: "value:int64[]", `{"type":"string"}`: "value:string", `true`: "value:json", `{"type":`: "value:json",
	} {
		got := ofAnswer(t, catalog(t, map[string]json.RawMessage{"s": json.RawMessage(text)}))
		if diff := cmp.Diff([]string{want}, got); diff != "" {
			t.Errorf("columns of %s differ (-want +got):\n%s", text, diff)
		}
	}
}

// TestNamesCollide has fields of the answer whose names are taken.
func TestNamesCollide(t *testing.T) {
	c := catalog(t, schema(`"Model":{"type":"string"},"output_model":{"type":"string"},"a":{"properties":{"b":{"type":"string"}}},"a_b":{"type":"string"},"A_B":{"type":"string"},
		"date":{"type":"string"},"output":{"type":"string"},"":{"type":"string"},"x,y":{"type":"string"}`), "date")
	want := []string{"output_Model:string", "output_model_2:string", "a_b:string", "output_a_b:string", "output_A_B_2:string", "output_date:string", "output_output:string", "_:string", "x_y:string"}
	got := ofAnswer(t, c)
	want[1] = "output_output_model:string" // output_model is used, and gets the prefix as well
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the names differ (-want +got):\n%s", diff)
	}
	seen := make(map[string]bool)
	for _, col := range c.Default() {
		if name := strings.ToLower(col.Name); seen[name] {
			t.Errorf("two columns are called %s", name)
		} else {
			seen[name] = true
		}
	}
}

// TestTooManyColumns has a short schema of a million fields.
func TestTooManyColumns(t *testing.T) {
	var defs []string
	for i := range 14 {
		defs = append(defs, fmt.Sprintf(`"d%d":{"properties":{"a":{"$ref":"#/$defs/d%d"},"b":{"$ref":"#/$defs/d%d"},"c":{"$ref":"#/$defs/d%d"}}}`, i, i+1, i+1, i+1))
	}
	text := `{"properties":{"x":{"$ref":"#/$defs/d0"}},"$defs":{` + strings.Join(defs, ",") + `,"d14":{"type":"string"}}}`
	c, err := table.NewCatalog(map[string]json.RawMessage{"s": json.RawMessage(text)})
	if err == nil || !strings.Contains(err.Error(), "--columns") {
		t.Fatalf("NewCatalog = %v, want an error that says what to do", err)
	}
	if cols, err := c.Choose([]string{"custom_id", "output.x.a.b.c"}); err != nil || len(cols) != 2 {
		t.Errorf("Choose = %v, %v, want two columns", cols, err)
	}
}

func TestChoose(t *testing.T) {
	one := schema(`"party":{"type":"object","properties":{"name":{"type":"string"}}},"parties":{"type":"array","items":{"properties":{"name":{"type":"string"},"n":{"type":"integer"}}}},
		"tags":{"type":"array","items":{"type":"string"}},"node":{"$ref":"#/$defs/node"},"free":{},"a.b":{"type":"integer"},"model":{"type":"integer"}`)
	for _, tt := range []struct {
		spec, want string
		schemas    map[string]json.RawMessage
	}{
		{"custom_id", "custom_id:string", nil},
		{" status ", "status:string", nil},
		{"id=custom_id", "id:string", nil},
		{"cost_usd:string", "cost_usd:string", nil},
		{"why=error_code:json", "why:json", nil},
		{"response", "response:json", nil},
		{"output.a.b[0].c", "a_b_0_c:string", nil},
		{"output.a.b:int64[]", "a_b:int64[]", nil},
		{`x=output["a.b"]:date`, "x:date", nil},
		{`x=output["a=\"]:"][1]:date`, "x:date", nil},
		{"response.body.id", "response_body_id:string", nil},
		{"party_name", "party_name:string", one},
		{"output.party.name", "party_name:string", one},
		{"first=output.parties[0].name", "first:string", one},
		{"output.parties[1].n", "parties_1_n:int64", one},
		{"output.tags[0]", "tags_0:string", one},
		{"output.tags", "tags:string[]", one},
		{"output.party", "party:json", one},
		{"output.node.next.next.name", "node_next_next_name:string", one},
		{"output.free.x", "free_x:string", one},
		{`output["a.b"]`, "a.b:int64", one},
		{"output_model", "output_model:int64", one},
		{"model", "model:string", one},
	} {
		got, err := catalog(t, tt.schemas).Choose([]string{tt.spec})
		if err != nil {
			t.Errorf("Choose(%s): %v", tt.spec, err)
			continue
		}
		if diff := cmp.Diff([]string{tt.want}, described(got)); diff != "" {
			t.Errorf("Choose(%s) differs (-want +got):\n%s", tt.spec, diff)
		}
	}
}

func TestBadChoices(t *testing.T) {
	one := schema(`"party":{"type":"object","properties":{"name":{"type":"string"}}},"node":{"$ref":"#/$defs/node"}`)
	for _, tt := range []struct{ specs, says string }{
		{"", "want a name"},
		{"nope", "there is custom_id, status, party_name, node_name, node_next, model"},
		{"nope.x", "paths beneath output, response"},
		{"model.x", "there is no model.x"},
		{"[0]", "there is no"},
		{"output.nope", "there is party, node"},
		{"output.node.next.next.nope", "there is name, next"},
		{"output.party.nope", `there is no "nope" in output.party: there is name`},
		{"custom_id:varchar", "want one of string, int64, double, bool, date, timestamp, json"},
		{"custom_id:", "unknown type"},
		{"=custom_id", "want a name before the ="},
		{"output.", "want a name"},
		{"output[x]", "number of an item"},
		{"output[-1]", "number of an item"},
		{"output[99999999999999999999]", "number of an item"},
		{"output[0", "number of an item"},
		{`output["a`, "name in quotes"},
		{`output["a"`, "name in quotes"},
		{"output.party b", "want nothing or :TYPE"},
		{"status:int64", "can only be a string"},
		{"attempts:date", "can only be a string"},
		{"status:string[]", "can only be a string"},
		{"model,Model=tier", "two of the name"},
	} {
		got, err := catalog(t, one).Choose(strings.Split(tt.specs, ","))
		if err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("Choose(%s) = %v, %v, want an error with %q", tt.specs, described(got), err, tt.says)
		}
	}
}

func TestParseType(t *testing.T) {
	for _, s := range []string{"string", "int64", "double", "bool", "date", "timestamp", "json", "string[]", "date[]"} {
		if got, err := table.ParseType(s); err != nil || got.String() != s {
			t.Errorf("ParseType(%s) = %v, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "String", "int", "[]", "int64[][]", " int64"} {
		if got, err := table.ParseType(s); err == nil {
			t.Errorf("ParseType(%q) = %v, want an error", s, got)
		}
	}
}
