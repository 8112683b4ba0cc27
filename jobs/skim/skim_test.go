package skim_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"upwell/jobs/skim"
)

func Example() {
	text := []byte(`{"model": "m", "input": [1, {"a": 2.50}], "model": "n"}`)
	for m := range skim.Members(text, 0) {
		fmt.Printf("%s at %d: %s\n", m.Key, m.At, m.Of(text))
	}
	input := skim.Find(text, 0, "input")
	for v := range skim.Items(text, input.At) {
		fmt.Printf("%s\n", v.Of(text))
	}
	fmt.Printf("%s\n", skim.Find(text, 0, "model").Of(text))
	// Output:
	// model at 10: "m"
	// input at 24: [1, {"a": 2.50}]
	// model at 51: "n"
	// 1
	// {"a": 2.50}
	// "n"
}

func TestUnset(t *testing.T) {
	text := []byte(`{"a":null,"b":0,"c":"null"}`)
	for key, want := range map[string]bool{"a": true, "b": false, "c": false, "d": true} {
		if got := skim.Find(text, 0, key).Unset(text); got != want {
			t.Errorf("%s is unset: %t, want %t", key, got, want)
		}
	}
}

// TestNoRoom appends to a value, which must not change what follows it.
func TestNoRoom(t *testing.T) {
	text := []byte(`{"a":1,"b":2}`)
	_ = append(skim.Find(text, 0, "a").Of(text), '9')
	if want := `{"a":1,"b":2}`; string(text) != want {
		t.Errorf("the text is %s now, want %s", text, want)
	}
}

func members(text []byte) map[string]string {
	all := make(map[string]string)
	for m := range skim.Members(text, 0) {
		all[string(m.Key)] = string(m.Of(text))
	}
	return all
}

func items(text []byte) (all []string) {
	for v := range skim.Items(text, 0) {
		all = append(all, string(v.Of(text)))
	}
	return all
}

func FuzzMembers(f *testing.F) {
	for _, s := range []string{
		`{}`, `{"a":1}`, `{"a" : "x\\\"}" ,"b":[{},"]"],"c":-1e9 ,"\u0061":null}`, `{"a"`, `{"a":`, `{"a\"`, `{"":""}`, `{"a\\":"b\\"}`, `[1, [2],"]",{}]`, `{"a":1,}`, `{"`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		_ = items(append([]byte("["), text...)) // no panic is all that is wanted of it here
		got := members(text)
		var want map[string]json.RawMessage
		if len(text) == 0 || text[0] != '{' || json.Unmarshal(text, &want) != nil {
			return
		}
		if len(got) != len(want) {
			t.Fatalf("members of %q: %d, want %d", text, len(got), len(want))
		}
		for k, v := range want {
			// Broken UTF-8 in a key comes out of the decoder as U+FFFD.
			if g, ok := got[k]; ok && g != string(v) || !ok && !strings.Contains(k, "\ufffd") {
				t.Errorf("member %q of %q = %q, want %q", k, text, g, v)
			}
		}
		for m := range skim.Members(text, 0) {
			if text[m.Start] != '"' || m.Start >= m.At {
				t.Errorf("%q: member %q begins at %d and its value at %d", text, m.Key, m.Start, m.At)
			}
		}
	})
}

func FuzzItems(f *testing.F) {
	f.Add([]byte(`[1 , "a]\"" ,[[2],{}],null ]`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var want []json.RawMessage
		if len(text) == 0 || text[0] != '[' || json.Unmarshal(text, &want) != nil {
			return
		}
		var as []string
		for _, v := range want {
			as = append(as, string(v))
		}
		if d := cmp.Diff(as, items(text)); d != "" {
			t.Errorf("items of %q (-want +got):\n%s", text, d)
		}
	})
}
