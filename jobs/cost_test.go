package jobs_test

import (
	"encoding/json"
	"testing"

	"upwell/jobs"
)

func TestUSD(t *testing.T) {
	for text, known := range map[string]bool{"0": true, "1.25": true, "1e-7": true, "null": false} {
		var d jobs.USD
		if err := json.Unmarshal([]byte(text), &d); err != nil || d.Known() != known {
			t.Errorf("%s is %v, %v, known %t, want %t", text, d, err, d.Known(), known)
		}
		if got, err := json.Marshal(d); err != nil || string(got) != text {
			t.Errorf("%s comes back as %s, %v", text, got, err)
		}
	}
	if sum := jobs.USD(1) + jobs.UnknownUSD(); sum.Known() {
		t.Errorf("1 and an unknown amount are %v, want unknown", sum)
	}
	if err := json.Unmarshal([]byte(`"1"`), new(jobs.USD)); err == nil {
		t.Error("a string is an amount")
	}
}
