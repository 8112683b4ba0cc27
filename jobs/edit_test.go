package jobs_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"upwell/jobs"
)

func TestSet(t *testing.T) {
	for _, tt := range []struct{ name, text, path, value, want string }{
		{"first key", `{}`, "a", `1`, `{"a":1}`},
		{"first key in white space", " { } \n", "a", `1`, `{"a":1 }`},
		{"another key", `{"a": 1 }`, "b", ` "x" `, `{"a": 1,"b":"x" }`},
		{"replaced", `{"a": 1e400 , "b" :[1, {"b":2}],"c":"\u00e9\/"}`, "b", `true`, `{"a": 1e400 , "b" :true,"c":"\u00e9\/"}`},
		{"escaped key", `{"\u0061":1}`, "a", `2`, `{"\u0061":2}`},
		{"odd key", `{}`, "<\"\n>", `2`, `{"<\"\n>":2}`},
		{"deeper", `{"a":{"b":{"c":1,"d":2}},"b":3}`, "a.b.c", `9`, `{"a":{"b":{"c":9,"d":2}},"b":3}`},
		{"made on the way", `{"a":{"x":1}}`, "a.b.c", `9`, `{"a":{"x":1,"b":{"c":9}}}`},
		{"null on the way", `{"a":null,"z":1}`, "a.b.c", `9`, `{"a":{"b":{"c":9}},"z":1}`},
		{"twice", `{"a":1,"b":0,"a":2}`, "a", `9`, `{"b":0,"a":9}`},
		{"twice, the first key and more", `{ "a":1 , "a":2,"b":0, "a":3 , "c":4}`, "a", `{"x":"long"}`, `{ "b":0, "a":{"x":"long"} , "c":4}`},
		{"twice on the way", `{"a":{"b":1},"a":{"b":2}}`, "a.b", `9`, `{"a":{"b":1},"a":{"b":9}}`},
	} {
		got, err := jobs.Set([]byte(tt.text), strings.Split(tt.path, "."), []byte(tt.value))
		if string(got) != tt.want || err != nil {
			t.Errorf("%s: Set(%s, %s) = %s, %v, want %s", tt.name, tt.text, tt.path, got, err, tt.want)
		}
	}
}

func TestUnset(t *testing.T) {
	for _, tt := range []struct{ name, text, path, want string }{
		{"only key", `{ "a" : 1 }`, "a", `{  }`},
		{"first key", `{ "a":1 , "b":2}`, "a", `{ "b":2}`},
		{"last key", `{"a":1 , "b":2 }`, "b", `{"a":1 }`},
		{"middle key", `{"a":1, "b":{"x":[]} , "c":2}`, "b", `{"a":1 , "c":2}`},
		{"every one", `{"a":1,"a":2,"b":3,"a":4,"a":5}`, "a", `{"b":3}`},
		{"every key", `{"a":1,"a":2}`, "a", `{}`},
		{"deeper", `{"a":{"b":1,"c":2}}`, "a.b", `{"a":{"c":2}}`},
		{"missing", `{"a":{"b":1}}`, "a.c", `{"a":{"b":1}}`},
		{"nothing on the way", `{"a":1}`, "b.c", `{"a":1}`},
		{"null on the way", `{"a":null}`, "a.c", `{"a":null}`},
	} {
		got, err := jobs.Unset([]byte(tt.text), strings.Split(tt.path, "."))
		if string(got) != tt.want || err != nil {
			t.Errorf("%s: Unset(%s, %s) = %s, %v, want %s", tt.name, tt.text, tt.path, got, err, tt.want)
		}
	}
}

func TestEditErrors(t *testing.T) {
	deep := strings.Repeat(`{"a":`, 9999) + `{}` + strings.Repeat(`}`, 9999)
	for _, tt := range []struct {
		name, text string
		path       []string
		value, err string
	}{
		{"no object", `[1]`, []string{"a"}, `1`, "a JSON array, want an object"},
		{"no text", ``, []string{"a"}, `1`, "empty"},
		{"no path", `{}`, nil, `1`, "an empty path: name a key"},
		{"text without quotes", `{}`, []string{"body", "x"}, `flex`, `body.x: "flex" is not JSON: put text in quotes`},
		{"two values", `{}`, []string{"a"}, `1 2`, `a: "1 2" is not JSON`},
		{"not UTF-8", `{}`, []string{"a"}, "\"\xff\"", `is not JSON`},
		{"a key that is not UTF-8", `{}`, []string{"a", "\xbf"}, `1`, "it is not UTF-8 text"},
		{"no object on the way", `{"a":{"b":[1]}}`, []string{"a", "b", "c"}, `1`, `a.b: a JSON array, want an object to look for "c" in`},
		{"too deep", `{}`, strings.Split(strings.Repeat("a.", 10000)+"a", "."), `1`, "exceeded max depth"},
		{"deeper than can be", deep, strings.Split(strings.Repeat("a.", 9999)+"a", "."), `{}`, "exceeded max depth"},
	} {
		_, err := jobs.Set([]byte(tt.text), tt.path, []byte(tt.value))
		if e, ok := errors.AsType[*jobs.FormatError](err); !ok || !strings.Contains(e.Error(), tt.err) {
			t.Errorf("%s: Set = %v, want a *FormatError with %q", tt.name, err, tt.err)
		}
		if tt.value != `1` || tt.name == "too deep" {
			continue
		}
		if _, err := jobs.Unset([]byte(tt.text), tt.path); err == nil || !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%s: Unset = %v, want an error with %q", tt.name, err, tt.err)
		}
	}
}

// FuzzSet holds edits against package json, which decodes, changes and compares.
func FuzzSet(f *testing.F) {
	f.Add([]byte(`{"a":{"b":1},"c":"x"}`), "a", "b", []byte(`2`))
	f.Add([]byte(`{"a":1,"b":2,"a":{"b":3,"b":4}}`), "a", "b", []byte(`[]`))
	f.Add([]byte(` { "a" : null , "a":null } `), "a", "\"", []byte(` {"x":"}"} `))
	f.Add([]byte(`{"\ud800":"\\\"","a":-1.50e7}`), "\ufffd", "a", []byte(`"\\"`))
	f.Fuzz(func(t *testing.T, text []byte, k1, k2 string, value []byte) {
		was := bytes.Clone(text)
		for _, path := range [][]string{{k1}, {k1, k2}} {
			set, err := jobs.Set(text, path, value)
			if err != nil {
				continue
			}
			want := change(t, text, path, value)
			if diff := cmp.Diff(want, decode(t, set)); diff != "" {
				t.Errorf("Set(%q, %q, %q) = %q (-want +got):\n%s", text, path, value, set, diff)
			}
			unset, err := jobs.Unset(set, path)
			if err != nil {
				t.Fatalf("Unset(%q, %q) = %v, want nil", set, path, err)
			}
			if diff := cmp.Diff(change(t, set, path, nil), decode(t, unset)); diff != "" {
				t.Errorf("Unset(%q, %q) = %q (-want +got):\n%s", set, path, unset, diff)
			}
			if got, err := jobs.Set(set, path, value); !bytes.Equal(got, set) || err != nil {
				t.Errorf("Set of %q again = %q, %v, want no change", set, got, err)
			}
		}
		if !bytes.Equal(was, text) {
			t.Errorf("the text has become %q, was %q", text, was)
		}
	})
}

// change does with a decoded object what Set does, or Unset when value is nil.
func change(t *testing.T, text []byte, path []string, value []byte) map[string]any {
	t.Helper()
	m := decode(t, text)
	at := m
	for _, key := range path[:len(path)-1] {
		inner, ok := at[key].(map[string]any)
		if !ok {
			inner = make(map[string]any)
			at[key] = inner
		}
		at = inner
	}
	key := path[len(path)-1]
	if value == nil {
		delete(at, key)
		return m
	}
	at[key] = decode(t, []byte(`{"v":`+string(value)+`}`))["v"]
	return m
}

func decode(t *testing.T, text []byte) (m map[string]any) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&m); err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	return m
}
