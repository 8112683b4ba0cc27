package sink_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"upwell/sink"
)

func manifest() sink.Manifest {
	return sink.Manifest{
		Version: sink.Version, Run: "q3", Created: time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC),
		Count: 20000, Input: "contracts/", InputSHA256: "00ff",
		Models: []string{"xai.grok-4.3"}, Tiers: []string{"flex", "default"},
		Template: "Review <contract>", Schemas: map[string]json.RawMessage{"review": json.RawMessage(`{"type":"object"}`)},
		EstimateUSD: 12.5,
	}
}

func TestManifest(t *testing.T) {
	want := manifest()
	in := want
	in.Version = 0 // Encode knows better
	b, err := in.Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := sink.DecodeManifest(b)
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("DecodeManifest: %v; (-want +got):\n%s", err, diff)
	}
}

func TestPlainManifest(t *testing.T) {
	b, err := sink.Manifest{Run: "q3", Schemas: map[string]json.RawMessage{}}.Encode()
	if s := string(b); err != nil || strings.Contains(s, "template") || strings.Contains(s, "schemas") {
		t.Errorf("Encode = %s, %v, want no template and no schemas", s, err)
	}
}

func TestManifestOfAnotherVersion(t *testing.T) {
	for _, s := range []string{`{"version":2}`, `{"run":"q3"}`, `{`, ``} {
		if m, err := sink.DecodeManifest([]byte(s)); err == nil {
			t.Errorf("DecodeManifest(%s) = %v, want an error", s, m)
		}
	}
}

func TestSame(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*sink.Manifest)
		want   bool
	}{
		"created":  {func(m *sink.Manifest) { m.Created = m.Created.Add(time.Hour) }, true},
		"tiers":    {func(m *sink.Manifest) { m.Tiers = nil }, true},
		"spacing":  {func(m *sink.Manifest) { m.Schemas["review"] = json.RawMessage("{ \"type\": \"object\" }") }, true},
		"input":    {func(m *sink.Manifest) { m.InputSHA256 = "00fe" }, false},
		"count":    {func(m *sink.Manifest) { m.Count-- }, false},
		"template": {func(m *sink.Manifest) { m.Template = "" }, false},
		"schema":   {func(m *sink.Manifest) { m.Schemas["review"] = json.RawMessage(`{"type":"array"}`) }, false},
		"schemas":  {func(m *sink.Manifest) { m.Schemas["other"] = nil }, false},
	} {
		m := manifest()
		tt.change(&m)
		if got := m.Same(manifest()); got != tt.want {
			t.Errorf("%s: Same = %v, want %v", name, got, tt.want)
		}
	}
}
