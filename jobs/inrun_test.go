package jobs_test

import (
	"testing"

	"upwell/jobs"
)

func TestInRun(t *testing.T) {
	const body = `"custom_id":"a","url":"/v1/responses","body":{"model":"m","upwell":{"run":"not here"},"n":12345678901234567890}`
	for _, test := range []struct{ name, text, want string }{
		{"no options", `{` + body + `}`, `{"upwell":{"run":"r"},` + body + `}`},
		{"white space", " \t{ " + body + `}`, `{"upwell":{"run":"r"}, ` + body + `}`},
		{"null", `{"upwell":null,` + body + `}`, `{"upwell":{"run":"r"},` + body + `}`},
		{"empty options", `{"upwell": { } ,` + body + `}`, `{"upwell": {"run":"r" } ,` + body + `}`},
		{"options", `{` + body + `,"upwell":{"tiers":["flex"]}}`, `{` + body + `,"upwell":{"run":"r","tiers":["flex"]}}`},
		{"a run", `{` + body + `,"upwell":{"run":"other"}}`, `{` + body + `,"upwell":{"run":"other"}}`},
		{"options twice", `{"upwell":{"run":"x"},` + body + `,"upwell":{}}`, `{"upwell":{"run":"x"},` + body + `,"upwell":{"run":"r"}}`},
	} {
		got, err := jobs.InRun([]byte(test.text), "r")
		if err != nil || string(got) != test.want {
			t.Errorf("%s: InRun = %s, %v, want %s", test.name, got, err, test.want)
			continue
		}
		j, err := jobs.Parse(got, "default")
		if err != nil || j.Run != "r" && test.name != "a run" {
			t.Errorf("%s: Parse of it is in run %q, %v, want r", test.name, j.Run, err)
		}
	}
	for _, text := range []string{``, `[]`, `{"upwell":1}`, `{"a":`} {
		if got, err := jobs.InRun([]byte(text), "r"); err == nil {
			t.Errorf("InRun(%s) = %s, want an error", text, got)
		}
	}
}
