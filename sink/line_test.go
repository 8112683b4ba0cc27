package sink_test

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"upwell/jobs"
	"upwell/sink"
)

// result is an answer to one job with every field set.
func result(body string) jobs.Result {
	at := time.Date(2026, 11, 23, 15, 4, 5, 678, time.UTC)
	k := jobs.Key{Run: "q3", CustomID: `"body":0 & <b>`}
	return jobs.Result{
		ID: k.RequestID(), CustomID: k.CustomID,
		Response: &jobs.Response{StatusCode: 200, RequestID: `"body":0`, Body: json.RawMessage(body)},
		Error:    &jobs.Error{Code: jobs.Refused, Message: `"output":0`},
		Upwell: jobs.Record{
			Run: `"output":0`, Output: json.RawMessage(`{"output":0,"body":0}`), OutputText: "<ok>\n",
			Model: "xai.grok-4.3", Tier: "flex", Region: "us-west-2",
			Usage:   jobs.Usage{InputTokens: 1, CachedTokens: 2, OutputTokens: 3, ReasoningTokens: 4},
			CostUSD: 0.00125, Repairs: 1, Billed: 4, InputSHA256: "00ff", Finished: at,
			Extra:      &jobs.Extra{Usage: jobs.Usage{InputTokens: 5, CachedTokens: 6, OutputTokens: 7, ReasoningTokens: 8}, CostUSD: 0.25},
			Extensions: 2, Price: &jobs.Price{Input: 1.25, Cached: 0.2, Output: 2.5, AsOf: "2026-01-02"},
			SchemaSHA256: "11ff", TemplateSHA256: "22ff", Version: "v1.2.3",
			MessageID: "m", CountedAttempts: 3, FirstFailed: at,
			Attempts: []jobs.Attempt{{
				N: 1, Started: at, TookMS: 12, Status: 429, Region: "us-west-2", Tier: "flex",
				RequestID: "r", Error: "slow down", Turn: jobs.Repair,
			}},
		},
	}
}

func TestLine(t *testing.T) {
	body := `{"n":1.10,"big":12345678901234567890,"e":1E+2,"s":"<&>\u00e9\/ \u2028é"}`
	r := result(body)
	line, err := sink.Encode(r)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(line, []byte(`"body":`+body+`}`)) {
		t.Errorf("the body is not in %s", line)
	}
	if n := bytes.IndexByte(line, '\n'); n != len(line)-1 {
		t.Errorf("first newline at %d of %d", n, len(line))
	}
	var want bytes.Buffer
	e := json.NewEncoder(&want)
	e.SetEscapeHTML(false)
	if err := e.Encode(r); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want.String(), string(line)); diff != "" {
		t.Errorf("not what encoding/json makes of it (-want +got):\n%s", diff)
	}
	got, err := sink.Decode(line)
	if diff := cmp.Diff(r, got); err != nil || diff != "" {
		t.Errorf("Decode: %v; (-want +got):\n%s", err, diff)
	}
}

// TestEveryFieldIsSet keeps result, and so TestLine, up with package jobs.
func TestEveryFieldIsSet(t *testing.T) {
	var check func(path string, v reflect.Value)
	check = func(path string, v reflect.Value) {
		if v.IsZero() {
			t.Errorf("%s is not set", path)
		}
		switch v = reflect.Indirect(v); {
		case v.Kind() == reflect.Struct && v.Type() != reflect.TypeFor[time.Time]():
			for i := range v.NumField() {
				check(path+"."+v.Type().Field(i).Name, v.Field(i))
			}
		case v.Kind() == reflect.Slice && v.Type().Elem().Kind() == reflect.Struct:
			check(path+"[0]", v.Index(0))
		}
	}
	check("Result", reflect.ValueOf(result(`{}`)))
}

func TestPrettyBodiesBecomeOneLine(t *testing.T) {
	line, err := sink.Encode(result("{\n  \"a\" : [1.0,\r\n2]\n}\n"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(line, []byte(`"body":{"a":[1.0,2]}}`)) || bytes.Count(line, []byte("\n")) != 1 {
		t.Errorf("got %s", line)
	}
}

func TestAbsentParts(t *testing.T) {
	for _, r := range []jobs.Result{
		{},
		{Error: &jobs.Error{Code: jobs.Expired, Message: "late"}},
		{Response: &jobs.Response{StatusCode: 500}},
		{Response: &jobs.Response{Body: json.RawMessage{}}, Upwell: jobs.Record{Output: json.RawMessage{}}},
	} {
		line, err := sink.Encode(r)
		if err != nil || !json.Valid(line) || bytes.Contains(line, []byte(`"output":`)) {
			t.Errorf("Encode(%v) = %s, %v", r, line, err)
		}
	}
}

func TestBrokenPartsAreRefused(t *testing.T) {
	for _, part := range []string{`{"a":`, `<html>`, `{} {}`, "\n", `{"a":"` + "\x01" + `"}`} {
		if line, err := sink.Encode(result(part)); err == nil || !strings.Contains(err.Error(), "response body") {
			t.Errorf("Encode of the body %q = %s, %v, want an error", part, line, err)
		}
		r := result("{}")
		r.Upwell.Output = json.RawMessage(part)
		if line, err := sink.Encode(r); err == nil || !strings.Contains(err.Error(), "output") {
			t.Errorf("Encode of the output %q = %s, %v, want an error", part, line, err)
		}
	}
}

func TestEncodeLeavesItsArgumentAlone(t *testing.T) {
	r, want := result(`{"a":1}`), result(`{"a":1}`)
	if _, err := sink.Encode(r); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, r); diff != "" {
		t.Errorf("Encode changed it (-want +got):\n%s", diff)
	}
}

func FuzzEncode(f *testing.F) {
	f.Add("id", `{"a":1.10}`, `[1]`, "text")
	f.Add(`"body":0`, "{\n}", `"body":0`, `"output":0`)
	f.Fuzz(func(t *testing.T, id, body, output, text string) {
		r := jobs.Result{
			CustomID: id,
			Response: &jobs.Response{RequestID: text, Body: raw(body)},
			Upwell:   jobs.Record{Run: text, Output: raw(output), OutputText: text},
		}
		line, err := sink.Encode(r)
		want, wantErr := json.Marshal(r)
		if (err == nil) != (wantErr == nil) {
			t.Fatalf("Encode: %v, Marshal: %v", err, wantErr)
		}
		if err != nil {
			return
		}
		if i := bytes.IndexByte(line, '\n'); i != len(line)-1 {
			t.Errorf("newline at %d of %q", i, line)
		}
		got, err := sink.Decode(line)
		if err != nil {
			t.Fatal(err)
		}
		var again jobs.Result
		if err := json.Unmarshal(want, &again); err != nil {
			t.Fatal(err)
		}
		if got.CustomID != again.CustomID || got.Response.RequestID != again.Response.RequestID || got.Upwell.OutputText != again.Upwell.OutputText {
			t.Errorf("got %v, want %v", got, again)
		}
		if !sameTokens(body, got.Response.Body) || !sameTokens(output, got.Upwell.Output) {
			t.Errorf("body %q became %q, output %q became %q", body, got.Response.Body, output, got.Upwell.Output)
		}
	})
}

// raw returns nil for the empty text, which json.Marshal refuses.
func raw(s string) json.RawMessage {
	if s == "" {
		return nil
	}
	return json.RawMessage(s)
}

// sameTokens reports whether got is want, white space between tokens aside.
// An absent value comes back as null, or stays absent.
func sameTokens(want string, got []byte) bool {
	if want == "" {
		return len(got) == 0 || string(got) == "null"
	}
	var a, b bytes.Buffer
	return json.Compact(&a, []byte(want)) == nil && json.Compact(&b, got) == nil && a.String() == b.String()
}

func FuzzOneLine(f *testing.F) {
	for _, s := range []string{
		`{"a":[1,-0.5e+3,true,false,null,"\u00ff\n\"\\"],"b":{}}`, ` [ ] `, `"`, `-`, `01`, `1.`, `1e`, `{"a"}`, `{,}`,
		`[1,]`, `[1 2]`, "\"\x1f\"", "\x00", `nul`, `"\u00g0"`, `"\x"`, "[1,\n2]", strings.Repeat("[", 200), `{"a" :1 }`, "1\x00",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		got, valid := sink.OneLine(b), json.Valid(b)
		if got && (!valid || bytes.ContainsAny(b, "\n\r")) {
			t.Errorf("OneLine(%q) = true", b)
		}
		if deep := bytes.Count(b, []byte("[")) + bytes.Count(b, []byte("{")); !got && valid && deep < 50 && !bytes.ContainsAny(b, "\n\r") {
			t.Errorf("OneLine(%q) = false", b)
		}
	})
}

func BenchmarkEncode(b *testing.B) {
	const clause = "The supplier shall indemnify the customer against \\\"all\\\" losses. "
	for _, tt := range []struct {
		name  string
		bytes int
	}{{"2K", 2 << 10}, {"36K", 36 << 10}} {
		r := result(`{"output":[{"content":[{"text":"` + strings.Repeat(clause, tt.bytes/len(clause)) + `"}]}]}`)
		b.Run(tt.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := sink.Encode(r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
