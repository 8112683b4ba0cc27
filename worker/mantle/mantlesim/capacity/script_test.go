package capacity_test

import (
	"testing"

	"upwell/worker/mantle/mantlesim/capacity"
)

func TestScriptText(t *testing.T) {
	for text, want := range map[string]string{
		"calls=20": "0s calls=20",
		"0s calls=20; 15s calls=40; 30s calls=10 conc=100 tpm=2e6":     "0s calls=20; 15s calls=40; 30s calls=10 conc=100 tpm=2e+06",
		"calls=1..5/2m\n1m flex.refuse=0.5~0.1/60s;":                   "0s calls=1..5/2m0s; 1m0s flex.refuse=0.5~0.1/1m0s",
		"calls=5 window=60 grow=0.5 floor=2 otpm=1e5 flex.noise=0.003": "0s calls=5 flex.noise=0.003 floor=2 grow=0.5 otpm=100000 window=60",
		"": "",
	} {
		script, err := capacity.ParseScript(text)
		if err != nil || script.String() != want {
			t.Errorf("ParseScript(%q) = %q, %v; want %q", text, script, err, want)
		}
		again, err := capacity.ParseScript(script.String())
		if err != nil || again.String() != want {
			t.Errorf("not the same again: %q, %v", again, err)
		}
	}
	for _, text := range []string{
		"calls", "calls=", "calls=x", "calls=-1", "calls=NaN", "speed=1", "gold.calls=1", "calls=1..5", "calls=1/5s", "calls=5~6/10s",
		"calls=1..5/0s", "5s calls=1; 5s calls=2", "-1s calls=1", "5 calls=1", "calls=1..-5/1s", "calls=1..5/-1s", "calls=1 5s",
		"calls=1..inf/1s", "calls=inf~1/1s", "calls=inf..inf/1s",
	} {
		if script, err := capacity.ParseScript(text); err == nil {
			t.Errorf("ParseScript(%q) = %v, want an error", text, script)
		}
	}
}

func FuzzParseScript(f *testing.F) {
	f.Add("0s calls=20~10/60s; 15s conc=1..5/2m")
	f.Fuzz(func(t *testing.T, text string) {
		script, err := capacity.ParseScript(text)
		if err != nil {
			return
		}
		if again, err := capacity.ParseScript(script.String()); err != nil || again.String() != script.String() {
			t.Errorf("%q became %q, %v", script, again, err)
		}
	})
}
