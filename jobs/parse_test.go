package jobs_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/google/go-cmp/cmp"

	"upwell/jobs"
)

// Changes of one line that these tests have been seen to catch:
//
//   - Parse: the Key is filled in after the other checks; the default run is
//     ignored; a line break before the job
//   - check: no UTF-8 check
//   - members: v:e:e becomes v:e (Body could grow into the next key)
//   - endString: backslashes are not counted, or not in pairs; next: no tab;
//     end: a number takes the white space after it
//   - setID: >= MaxCustomID; no NUL check; no surrogate check, or U+FFFD is one
//   - setOptions: the last error, or none after the first; an unknown key is
//     ignored; max_attempts of 101 or 0; a null schema is kept; a run's error is
//     dropped
//   - setRegions: an empty list is none; any text is a name
//   - setBody: "auto" is a tier; stream or background is not looked at; both of
//     tiers and service_tier are taken; Body is copied
//   - CheckRun: a leading dot, or dirt at the end; >= MaxRun
//   - a reason that quotes a megabyte

const body = `{"model":"xai.grok-4.3","input":"hello"}`

// with returns a job line with one more member, or one more in its "upwell" or
// "body" object.
func with(member string) string {
	return `{"custom_id":"a","url":"/v1/responses","body":` + body + `,` + member + `}`
}

func withOption(member string) string { return with(`"upwell":{"run":"r",` + member + `}`) }

func withBody(member string) string {
	return `{"custom_id":"a","url":"/v1/responses","body":{"model":"m",` + member + `}}`
}

func withID(id string) string {
	return `{"custom_id":` + id + `,"url":"/v1/responses","body":` + body + `}`
}

// sum is how a hash is written.
const sum = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

func TestParse(t *testing.T) {
	const text = "\r\n\t " + `{"custom_id":"msa-0042", "method":"POST","url":"/v1/chat/completions","note":[1,"]"],
		"body": {"model":"xai.grok-4.3","messages":[]} ,"upwell":{"run":"nightly","deadline":"2026-01-02T15:04:05+01:00",
		"tiers":["flex","default"],"regions":["us-west-2","eu-central-1"],"schema":{"type" : "object"},"max_attempts":3,
		"output_ceiling":9000,"template_sha256":"` + sum + `"}}` + "\r\n"
	got, err := jobs.Parse([]byte(text), "default")
	if err != nil {
		t.Fatalf("Parse(%s) = %v, want nil", text, err)
	}
	want := jobs.Job{
		Key:         jobs.Key{Run: "nightly", CustomID: "msa-0042"},
		URL:         jobs.ChatCompletions,
		Model:       "xai.grok-4.3",
		Body:        json.RawMessage(`{"model":"xai.grok-4.3","messages":[]}`),
		Tiers:       []string{"flex", "default"},
		Regions:     []string{"us-west-2", "eu-central-1"},
		Deadline:    time.Date(2026, 1, 2, 14, 4, 5, 0, time.UTC),
		Schema:      json.RawMessage(`{"type" : "object"}`),
		MaxAttempts: 3, OutputCeiling: 9000, TemplateSHA256: sum,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Parse(%s) (-want +got):\n%s", text, diff)
	}
}

func TestParseTakes(t *testing.T) {
	job := func(edit func(*jobs.Job)) jobs.Job {
		j := jobs.Job{
			Key: jobs.Key{Run: "default", CustomID: "a"}, URL: jobs.Responses,
			Model: "xai.grok-4.3", Body: json.RawMessage(body),
		}
		edit(&j)
		return j
	}
	id := func(id string) func(*jobs.Job) { return func(j *jobs.Job) { j.CustomID = id } }
	same := func(*jobs.Job) {}
	run := func(edit func(*jobs.Job)) func(*jobs.Job) {
		return func(j *jobs.Job) {
			j.Run = "r"
			edit(j)
		}
	}
	inBody := func(tier, member string) func(*jobs.Job) {
		return func(j *jobs.Job) {
			j.Model, j.Tier, j.Body = "m", tier, json.RawMessage(`{"model":"m",`+member+`}`)
		}
	}
	long := strings.Repeat("x", 300)
	longest := strings.Repeat("é", jobs.MaxCustomID/2)
	for _, tt := range []struct {
		name, text string
		edit       func(*jobs.Job)
	}{
		{"id of 300 characters", withID(`"` + long + `"`), id(long)},
		{"id of 512 bytes", withID(`"` + longest + `"`), id(longest)},
		{"emoji", withID(`"📄 1"`), id("📄 1")},
		{"escaped emoji", withID(`"\ud83d\udcc4 1"`), id("📄 1")},
		{"id that climbs", withID(`"../../x"`), id("../../x")},
		{"id with a slash", withID(`"a/b"`), id("a/b")},
		{"id of a space", withID(`" "`), id(" ")},
		{"id with a quote", withID(`"a\"b\\"`), id(`a"b\`)},
		{"id with U+FFFD", withID(`"�"`), id("�")},
		{"id with U+FFFD, escaped", withID(`"\uFFFD"`), id("�")},
		{"escaped key", strings.Replace(withID(`"a"`), "custom_id", `custom\u005fid`, 1), same},
		{"unknown keys of the line", with(`"CUSTOM_ID":"b","Body":{},"a":null`), same},
		{"last of two", withID(`"b"`)[:len(withID(`"b"`))-1] + `,"custom_id":"a"}`, same},
		{"method", with(`"method":"POST"`), same},
		{"null method", with(`"method":null`), same},
		{"null options", with(`"upwell":null`), same},
		{"no options", with(`"upwell":{}`), same},
		{"null run", with(`"upwell":{"run":null}`), same},
		{"empty run", with(`"upwell":{"run":""}`), same},
		{"null deadline", withOption(`"deadline":null`), run(same)},
		{"null tiers", withOption(`"tiers":null`), run(same)},
		{"null regions", withOption(`"regions":null`), run(same)},
		{"last of two lists of regions", withOption(`"regions":["b"],"regions":["a"]`), run(func(j *jobs.Job) { j.Regions = []string{"a"} })},
		{"null schema", withOption(`"schema":null`), run(same)},
		{"null max_attempts", withOption(`"max_attempts":null`), run(same)},
		{"named schema", withOption(`"schema":"clauses"`), run(func(j *jobs.Job) { j.Schema = json.RawMessage(`"clauses"`) })},
		{"one attempt", withOption(`"max_attempts":1`), run(func(j *jobs.Job) { j.MaxAttempts = 1 })},
		{"100 attempts", withOption(`"max_attempts":100`), run(func(j *jobs.Job) { j.MaxAttempts = 100 })},
		{"null service_tier", withBody(`"service_tier":null`), inBody("", `"service_tier":null`)},
		{"service_tier auto", withBody(`"service_tier":"auto"`), inBody("", `"service_tier":"auto"`)},
		{"service_tier flex", withBody(`"service_tier":"flex"`), inBody("flex", `"service_tier":"flex"`)},
		{"null stream", withBody(`"stream":null`), inBody("", `"stream":null`)},
		{"no stream", withBody(`"stream":false,"background":false`), inBody("", `"stream":false,"background":false`)},
		{"no stream in the end", withBody(`"stream":true,"stream":null`), inBody("", `"stream":true,"stream":null`)},
		{"stream of another's", withBody(`"text":{"stream":true}`), inBody("", `"text":{"stream":true}`)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := jobs.Parse([]byte(tt.text), "default")
			if err != nil {
				t.Fatalf("Parse(%s) = %v, want nil", tt.text, err)
			}
			if diff := cmp.Diff(job(tt.edit), got); diff != "" {
				t.Errorf("Parse(%s) (-want +got):\n%s", tt.text, diff)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	var (
		none = jobs.Key{Run: "default"}
		a    = jobs.Key{Run: "default", CustomID: "a"}
		ra   = jobs.Key{Run: "r", CustomID: "a"}
	)
	const tiers = "flex, default, priority, reserved"
	for _, tt := range []struct {
		name, text string
		key        jobs.Key
		field      string
		reason     string // all of it, or the part before …
	}{
		{"nothing", "", none, "", "empty"},
		{"white space", " \r\n", none, "", "empty"},
		{"prose", "hello", none, "", "not JSON: invalid character 'h' …"},
		{"truncated", with(`"method":"PO`)[:90], none, "", "not JSON: it ends in the middle"},
		{"two jobs", withID(`"a"`) + "\n" + withID(`"b"`), none, "", "more text after the JSON value: put one job on a line"},
		{"a job and dirt", withID(`"a"`) + "}", none, "", "more text after the JSON value: put one job on a line"},
		{"broken text", withID("\"a\xff\""), none, "", "not valid UTF-8 text"},
		{"byte order mark", "\ufeff" + withID(`"a"`), none, "", "not JSON: invalid character 'ï' …"},
		{"null", "null", none, "", "a JSON null, want an object"},
		{"list", "[" + withID(`"a"`) + "]", none, "", "a JSON array, want an object"},
		{"string", `"a"`, none, "", "a JSON string, want an object"},

		{"no id", `{"url":"/v1/responses","body":` + body + `,"upwell":{"run":"r"}}`, jobs.Key{Run: "r"}, "custom_id", "missing: every job needs a name that is unique in its run"},
		{"null id", withID("null"), none, "custom_id", "missing: every job needs a name that is unique in its run"},
		{"empty id", withID(`""`), none, "custom_id", "empty, want a name that is unique in its run"},
		{"number as id", withID("7"), none, "custom_id", "a JSON number, want a string"},
		{"object as id", withID("{}"), none, "custom_id", "a JSON object, want a string"},
		{"513 bytes", withID(`"` + strings.Repeat("x", 513) + `"`), none, "custom_id", "513 bytes long, want at most 512"},
		{"257 characters of two bytes", withID(`"` + strings.Repeat("é", 257) + `"`), none, "custom_id", "514 bytes long, want at most 512"},
		{"NUL in id", withID(`"a\u0000b"`), none, "custom_id", "contains a NUL character, want text without"},
		{"half a character in id", withID(`"a\ud83d"`), none, "custom_id", "contains half of a surrogate pair, want whole characters"},

		{"GET", with(`"method":"GET"`), a, "method", `"GET", want POST`},
		{"post", with(`"method":"post"`), a, "method", `"post", want POST`},
		{"number as method", with(`"method":1`), a, "method", "a JSON number, want a string"},
		{"list as method", with(`"method":["POST"],"upwell":{"run":"r"}`), ra, "method", "a JSON array, want a string"},
		{"unknown url", with(`"url":"/v1/embeddings"`), a, "url", `"/v1/embeddings", want /v1/responses or /v1/chat/completions`},
		{"whole url", with(`"url":"https://api.openai.com/v1/responses"`), a, "url", `"https://api.openai.com/v1/responses", want /v1/responses or …`},
		{"no url", `{"custom_id":"a","body":` + body + `}`, a, "url", `"", want /v1/responses or /v1/chat/completions`},
		{"url null", with(`"url":null`), a, "url", `"", want /v1/responses or …`},
		{"url false", with(`"url":false`), a, "url", "a JSON bool, want a string"},
		{"endless url", with(`"url":"` + strings.Repeat("x", 1000) + `"`), a, "url", `"` + strings.Repeat("x", 80) + `", want /v1/responses or …`},

		{"no body", `{"custom_id":"a","url":"/v1/responses"}`, a, "body", "missing: want an object with the request to send"},
		{"null body", with(`"body":null`), a, "body", "a JSON null, want an object with the request to send"},
		{"list as body", with(`"body":[` + body + `]`), a, "body", "a JSON array, want an object with the request to send"},
		{"string as body", with(`"body":"{}"`), a, "body", "a JSON string, want an object with the request to send"},
		{"empty body", with(`"body":{}`), a, "body.model", "missing: name the model, such as xai.grok-4.3"},
		{"no model", with(`"body":{"input":"hi"}`), a, "body.model", "missing: name the model, such as xai.grok-4.3"},
		{"null model", with(`"body":{"model":null}`), a, "body.model", "missing: name the model, such as xai.grok-4.3"},
		{"empty model", with(`"body":{"model":""}`), a, "body.model", "missing: name the model, such as xai.grok-4.3"},
		{"Model", with(`"body":{"Model":"m"}`), a, "body.model", "missing: name the model, such as xai.grok-4.3"},
		{"number as model", with(`"body":{"model":4.3}`), a, "body.model", "a JSON number, want a string"},
		{"stream", withBody(`"stream":true`), a, "body.stream", "true, but answers are stored whole: leave it out"},
		{"stream, then Stream", withBody(`"stream":true,"Stream":false`), a, "body.stream", "true, but answers are stored whole: leave it out"},
		{"stream, escaped", withBody(`"str\u0065am":true`), a, "body.stream", "true, but answers are stored whole: leave it out"},
		{"string as stream", withBody(`"stream":"no"`), a, "body.stream", "a JSON string, want true or false"},
		{"background", withBody(`"background":true`), a, "body.background", "true, but the queue already waits in the background: leave it out"},
		{"number as background", withBody(`"background":0`), a, "body.background", "a JSON number, want true or false"},
		{"unknown service_tier", withBody(`"service_tier":"turbo"`), a, "body.service_tier", `"turbo", want one of ` + tiers},
		{"empty service_tier", withBody(`"service_tier":""`), a, "body.service_tier", `"", want one of ` + tiers},
		{"number as service_tier", withBody(`"service_tier":1`), a, "body.service_tier", `1, want one of ` + tiers},
		{"number, then white space", withBody("\"service_tier\":1 \t\r\n"), a, "body.service_tier", `1, want one of ` + tiers},
		{"endless service_tier", withBody(`"service_tier":[` + strings.Repeat("1,", 500) + `1]`), a, "body.service_tier", `[` + strings.Repeat("1,", 39) + `1, want one of ` + tiers},

		{"list as options", with(`"upwell":[]`), a, "upwell", "a JSON array, want an object"},
		{"string as options", with(`"upwell":"flex"`), a, "upwell", "a JSON string, want an object"},
		{"unknown option", withOption(`"priority":1`), ra, "upwell.priority", "unknown key, want run, deadline, tiers, regions, schema, max_attempts, output_ceiling or template_sha256"},
		{"unknown option before run", with(`"upwell":{"x":1,"run":"r"}`), ra, "upwell.x", "unknown key, want run, deadline, tiers, regions, schema, max_attempts, output_ceiling or template_sha256"},
		{"two unknown options", withOption(`"x":1,"y":2`), ra, "upwell.x", "unknown key, want run, deadline, tiers, regions, schema, max_attempts, output_ceiling or template_sha256"},
		{"option in capitals", withOption(`"Tiers":["flex"]`), ra, "upwell.Tiers", "unknown key, want run, deadline, tiers, regions, schema, max_attempts, output_ceiling or template_sha256"},
		{"run that climbs", with(`"upwell":{"run":"../x"}`), a, "upwell.run", `"../x", want letters, digits, dot, dash or underscore, not starting with a dot or dash`},
		{"long run", with(`"upwell":{"run":"` + strings.Repeat("x", 129) + `"}`), a, "upwell.run", "129 bytes long, want at most 128"},
		{"number as run", with(`"upwell":{"run":1}`), a, "upwell.run", "a JSON number, want a string"},
		{"unknown tier", withOption(`"tiers":["flex","turbo"]`), ra, "upwell.tiers", `"turbo", want some of ` + tiers},
		{"auto as tier", withOption(`"tiers":["auto"]`), ra, "upwell.tiers", `"auto", want some of ` + tiers},
		{"string as tiers", withOption(`"tiers":"flex"`), ra, "upwell.tiers", "a JSON string, want a list"},
		{"number among tiers", withOption(`"tiers":["flex",1]`), ra, "upwell.tiers", "a JSON number, want a string"},
		{"tiers twice", with(`"body":{"model":"m","service_tier":"flex"},"upwell":{"tiers":["default"]}`), a, "upwell.tiers", `the body already asks for service_tier "flex": keep one of the two`},
		{"no region", withOption(`"regions":[]`), ra, "upwell.regions", "empty, want at least one Region, or leave it out"},
		{"empty region", withOption(`"regions":["us-west-2",""]`), ra, "upwell.regions", `"", want the names of Regions, such as us-west-2`},
		{"null region", withOption(`"regions":[null]`), ra, "upwell.regions", `"", want the names of Regions, such as us-west-2`},
		{"region in capitals", withOption(`"regions":["EU"]`), ra, "upwell.regions", `"EU", want the names of Regions, such as us-west-2`},
		{"several in one", withOption(`"regions":["us-west-2,us-east-1"]`), ra, "upwell.regions", `"us-west-2,us-east-1", want the …`},
		{"string as regions", withOption(`"regions":"us-west-2"`), ra, "upwell.regions", "a JSON string, want a list"},
		{"day as deadline", withOption(`"deadline":"2026-01-02"`), ra, "upwell.deadline", `"2026-01-02", want a time such as "2026-01-02T15:04:05Z"`},
		{"seconds as deadline", withOption(`"deadline":1767366245`), ra, "upwell.deadline", `1767366245, want a time such as "2026-01-02T15:04:05Z"`},
		{"word as deadline", withOption(`"deadline":"tomorrow"`), ra, "upwell.deadline", `"tomorrow", want a time such as "2026-01-02T15:04:05Z"`},
		{"no attempts", withOption(`"max_attempts":0`), ra, "upwell.max_attempts", "0, want 1 to 100"},
		{"101 attempts", withOption(`"max_attempts":101`), ra, "upwell.max_attempts", "101, want 1 to 100"},
		{"no ceiling", withOption(`"output_ceiling":0`), ra, "upwell.output_ceiling", "0, want 1 to 16777216"},
		{"half a hash", withOption(`"template_sha256":"00ff"`), ra, "upwell.template_sha256", `"00ff", want a SHA-256 in hexadecimal`},
		{"half an attempt", withOption(`"max_attempts":1.5`), ra, "upwell.max_attempts", "a JSON number 1.5, want a whole number"},
		{"string as attempts", withOption(`"max_attempts":"3"`), ra, "upwell.max_attempts", "a JSON string, want a whole number"},
		{"number as schema", withOption(`"schema":1`), ra, "upwell.schema", "a JSON number, want a JSON Schema object, or the name of one of the run's"},
		{"true as schema", withOption(`"schema":true`), ra, "upwell.schema", "a JSON bool, want a JSON Schema object, or …"},
		{"list as schema", withOption(`"schema":[]`), ra, "upwell.schema", "a JSON array, want a JSON Schema object, or …"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			j, err := jobs.Parse([]byte(tt.text), "default")
			e, ok := errors.AsType[*jobs.FormatError](err)
			if !ok {
				t.Fatalf("Parse(%.200s) = %v, want a *FormatError", tt.text, err)
			}
			if e.Field != tt.field {
				t.Errorf("Parse(%.200s) = %v, want field %q", tt.text, err, tt.field)
			}
			if start, open := strings.CutSuffix(tt.reason, "…"); e.Reason != tt.reason && !(open && strings.HasPrefix(e.Reason, start)) {
				t.Errorf("Parse(%.200s) = %q, want %q", tt.text, e.Reason, tt.reason)
			}
			if j.Key != tt.key {
				t.Errorf("Parse(%.200s).Key = %q, want %q", tt.text, j.Key, tt.key)
			}
			if j.Body != nil {
				t.Errorf("Parse(%.200s).Body = %s, want none", tt.text, j.Body)
			}
		})
	}
}

func TestFormatErrorSaysWhere(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"", "not a job: empty"},
		{withID(`""`), "not a job: custom_id: empty, want a name that is unique in its run"},
	} {
		if _, err := jobs.Parse([]byte(tt.text), "default"); err == nil || err.Error() != tt.want {
			t.Errorf("Parse(%s) = %v, want %v", tt.text, err, tt.want)
		}
	}
}

// What the endpoint gets is what the caller wrote, to the byte: a number past
// 2^53 would lose its last digits on the way through a float, and a schema's key
// order decides the order of the answer's.
func TestBodyPassesUntouched(t *testing.T) {
	for _, body := range []string{
		`{"model":"m","seed":9007199254740993,"big":123456789012345678901234567890}`,
		`{"z":1,"model":"m","a":2.50,"e":1E+2,"n":-0.0}`,
		"{ \"model\"\t:\r\n\"m\" , \"input\" : [ 1 , 2 ] }",
		`{"model":"first","model":"m","input":"x","input":"y"}`,
		`{"model":"m","input":"<b>&\u2028\/ \u00e9 \" \\"}`,
		`{"model":"m","input":"\\\\","x":"\\\"}"}`,
		`{"model":"m","nested":{"a":[{"b":"]}"},[[]],{}],"stream":true},"last":null}`,
		`{"model":"m","input":"` + strings.Repeat(`é\n`, 10_000) + `"}`,
	} {
		for _, text := range []string{
			`{"custom_id":"a","url":"/v1/responses","body":` + body + `}`,
			`{"body":` + body + ` ,"custom_id":"a","url":"/v1/responses"}`,
		} {
			j, err := jobs.Parse([]byte(text), "default")
			if err != nil {
				t.Errorf("Parse(%.200s) = %v, want nil", text, err)
				continue
			}
			if string(j.Body) != body {
				t.Errorf("Parse(%.200s).Body = %.200s, want %.200s", text, j.Body, body)
			}
			if j.Model != "m" {
				t.Errorf("Parse(%.200s).Model = %q, want m", text, j.Model)
			}
		}
	}
}

// within reports whether part shares its memory with text, and cannot grow into
// what comes after it.
func within(part, text []byte) bool {
	if len(part) == 0 {
		return true
	}
	i := uintptr(unsafe.Pointer(&part[0])) - uintptr(unsafe.Pointer(&text[0]))
	return i < uintptr(len(text)) && int(i)+len(part) <= len(text) && cap(part) == len(part)
}

// A worker holds hundreds of prompts of up to a megabyte, so a second copy of
// each is most of its memory.
func TestParseCopiesNoBody(t *testing.T) {
	text := prompt(1 << 20)
	j, err := jobs.Parse(text, "default")
	if err != nil {
		t.Fatalf("Parse = %v, want nil", err)
	}
	if !within(j.Body, text) {
		t.Errorf("Body is a copy, want a part of the text")
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range 10 {
		if _, err := jobs.Parse(text, "default"); err != nil {
			t.Fatal(err)
		}
	}
	runtime.ReadMemStats(&after)
	if got := (after.TotalAlloc - before.TotalAlloc) / 10; got > 100_000 {
		t.Errorf("Parse of %d bytes allocates %d bytes, want at most 100000", len(text), got)
	}

	text = []byte(withOption(`"schema":{"type":"object"}`))
	if j, err := jobs.Parse(text, "default"); err != nil || !within(j.Schema, text) {
		t.Errorf("Parse(%s) = %v, want nil and a Schema that is a part of the text", text, err)
	}
}

func TestCheckRun(t *testing.T) {
	for _, tt := range []struct{ name, want string }{
		{"r", "<nil>"},
		{"2026-01-02_nightly.v2", "<nil>"},
		{"_x", "<nil>"},
		{"0", "<nil>"},
		{"a..b", "<nil>"},
		{strings.Repeat("x", 128), "<nil>"},
		{strings.Repeat("x", 129), "129 bytes long, want at most 128"},
		{"", `"", want letters`},
		{".", `".", want letters`},
		{"..", `"..", want letters`},
		{".hidden", `".hidden", want letters`},
		{"-rf", `"-rf", want letters`},
		{"a/b", `"a/b", want letters`},
		{`a\b`, `"a\\b", want letters`},
		{"a b", `"a b", want letters`},
		{"a\n", `"a\n", want letters`},
		{"a\x00", `"a\x00", want letters`},
		{"a%2f", `"a%2f", want letters`},
		{"é", `"é", want letters`},
		{"\xff", `"\xff", want letters`},
	} {
		if got := fmt.Sprint(jobs.CheckRun(tt.name)); !strings.HasPrefix(got, tt.want) {
			t.Errorf("CheckRun(%q) = %s, want %s", tt.name, got, tt.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, text := range []string{
		``, `{`, `{}`, `null`, `[1]`, withID(`"a"`), withID(`"\ud800"`), with(`"method":"POST"`),
		withOption(`"deadline":"2026-01-02T15:04:05Z","tiers":["flex"],"regions":["a"],"schema":{"a":"\\"},"max_attempts":3`),
		withOption(`"schema":"name"`), withBody(`"service_tier":"flex","stream":false`),
		withBody(`"x":[1,-2.5e+3,true,null,{"a":"]\\\""}, ""]`), " \t" + withID(`"a"`) + "\n",
		strings.ReplaceAll(withID(`"a"`), ",", " ,\r\n"),
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		j, err := jobs.Parse(text, "default")
		if err != nil {
			e, ok := errors.AsType[*jobs.FormatError](err)
			if !ok || e.Reason == "" || len(e.Error()) > 1000 {
				t.Fatalf("Parse(%q) = %v, want a short *FormatError with a reason", text, err)
			}
			return
		}
		if !within(j.Body, text) || !within(j.Schema, text) {
			t.Errorf("Parse(%q): Body or Schema is not a part of the text", text)
		}
		checkBody(t, j, text)
		checkAgain(t, j)
	})
}

// checkBody holds what Parse found in text against what package json finds.
func checkBody(t *testing.T, j jobs.Job, text []byte) {
	t.Helper()
	var line, body map[string]json.RawMessage
	var id, model string
	if err := json.Unmarshal(text, &line); err != nil {
		t.Fatalf("Parse(%q) = nil, but it is not an object: %v", text, err)
	}
	if got := line["body"]; string(got) != string(j.Body) {
		t.Errorf("Parse(%q).Body = %s, want %s", text, j.Body, got)
	}
	if json.Unmarshal(line["custom_id"], &id) != nil || id != j.CustomID || id == "" {
		t.Errorf("Parse(%q).CustomID = %q, want %q", text, j.CustomID, id)
	}
	if json.Unmarshal(j.Body, &body) != nil || json.Unmarshal(body["model"], &model) != nil || model != j.Model || model == "" {
		t.Errorf("Parse(%q).Model = %q, want %q", text, j.Model, model)
	}
}

// checkAgain writes the job down and reads it again.
func checkAgain(t *testing.T, j jobs.Job) {
	t.Helper()
	opt := map[string]any{"run": j.Run}
	if j.Tiers != nil {
		opt["tiers"] = j.Tiers
	}
	if j.Regions != nil {
		opt["regions"] = j.Regions
	}
	if !j.Deadline.IsZero() {
		opt["deadline"] = j.Deadline
	}
	if j.Schema != nil {
		opt["schema"] = "…" // filled in below, as Marshal would compact it
	}
	if j.MaxAttempts != 0 {
		opt["max_attempts"] = j.MaxAttempts
	}
	if j.OutputCeiling != 0 {
		opt["output_ceiling"] = j.OutputCeiling
	}
	if j.TemplateSHA256 != "" {
		opt["template_sha256"] = j.TemplateSHA256
	}
	head, err := json.Marshal(map[string]any{"custom_id": j.CustomID, "url": j.URL, "upwell": opt})
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(string(head), `"schema":"…"`, `"schema":`+string(j.Schema), 1)
	text = text[:len(text)-1] + `,"body":` + string(j.Body) + `}`
	again, err := jobs.Parse([]byte(text), "other")
	if err != nil {
		t.Fatalf("Parse(%s) = %v, want nil, as for the job it was made of", text, err)
	}
	if diff := cmp.Diff(j, again); diff != "" {
		t.Errorf("Parse(%s) (-first +again):\n%s", text, diff)
	}
}
