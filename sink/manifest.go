package sink

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"time"
)

// Version is the version of the layout that this package reads and writes.
const Version = 1

// A Manifest says what a run was asked to do. It is written once, after the
// index of the run's ids, if it has one, and before its first job is queued.
//
// It is a storage type: fields may be added, and none may change its meaning.
// A change that an older upwell would misread raises [Version].
type Manifest struct {
	Version     int       `json:"version"` // of the layout; [Manifest.Encode] sets it
	Run         string    `json:"run"`
	Created     time.Time `json:"created"`
	Count       int       `json:"count"`             // jobs submitted
	Input       string    `json:"input"`             // what the jobs were made of, as the operator named it
	InputSHA256 string    `json:"input_sha256"`      // of the jobs' input, in hexadecimal
	IDParts     int       `json:"id_parts,omitzero"` // of the index of ids, see [IDsKey]; 0 when there is none
	Models      []string  `json:"models"`
	Tiers       []string  `json:"tiers"`

	// Template is the text of the template that made the jobs, or empty when
	// they were submitted as they are.
	Template string `json:"template,omitzero"`

	// Schemas are the JSON Schemas that jobs of the run name.
	Schemas map[string]json.RawMessage `json:"schemas,omitempty"`

	// Checkpoint says that a [Checkpoint] is stored before any job is queued: where
	// there is none, no job is.
	Checkpoint bool `json:"checkpoint,omitzero"`

	EstimateUSD float64 `json:"estimate_usd,omitzero"` // what the run was expected to cost
}

// Encode returns m as it is stored.
func (m Manifest) Encode() ([]byte, error) {
	m.Version = Version
	b, err := marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode manifest: %w", err)
	}
	return b, nil
}

// DecodeManifest is the inverse of [Manifest.Encode]. It refuses a manifest
// that only a newer upwell understands.
func DecodeManifest(b []byte) (Manifest, error) {
	var m Manifest
	if err := json.Unmarshal(b, &m); err != nil {
		return m, fmt.Errorf("decode manifest: %w", err)
	}
	if m.Version < 1 || m.Version > Version {
		return m, fmt.Errorf("decode manifest: version %d, want at most %d: use a newer upwell", m.Version, Version)
	}
	return m, nil
}

// Same reports whether m and o ask for the same answers: the same input
// through the same template and schemas. When they were submitted, and on
// which tiers, may differ.
func (m Manifest) Same(o Manifest) bool {
	return m.InputSHA256 == o.InputSHA256 && m.Count == o.Count && m.Template == o.Template &&
		maps.EqualFunc(m.Schemas, o.Schemas, sameJSON)
}

// sameJSON compares a and b as they are encoded, without white space.
func sameJSON(a, b json.RawMessage) bool {
	var x, y bytes.Buffer
	if json.Compact(&x, a) != nil || json.Compact(&y, b) != nil {
		return bytes.Equal(a, b)
	}
	return bytes.Equal(x.Bytes(), y.Bytes())
}
