package sink

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
)

// IDsPerPart is how many ids a part of a run's index holds, all but the last:
// some MiB as text, a tenth of that as stored, and a hundred parts for ten
// million jobs.
const IDsPerPart = 100_000

// What may be wrong with the index of a run.
var (
	// ErrNoIndex is the error of asking for the ids of a run that has no index:
	// its jobs came from elsewhere, or an older upwell submitted them.
	ErrNoIndex = errors.New("there is no index of the submitted ids")

	// ErrBadIndex is the error of an index that does not have the ids that its
	// manifest counts.
	ErrBadIndex = errors.New("the index of the submitted ids is damaged: submit the same input again, which writes it anew")
)

// IDsKey returns where a part of a run's index is stored, counting from 0. It
// tells inputs apart, so that two of them under one name do not mix.
func IDsKey(prefix, run, inputSHA256 string, part int) string {
	return fmt.Sprintf("%sids/%s/%05d.jsonl.gz", folder(prefix, run), inputSHA256[:min(16, len(inputSHA256))], part)
}

// IDsIn returns how many ids a part of m's index holds.
func (m Manifest) IDsIn(part int) int {
	return max(0, min(IDsPerPart, m.Count-part*IDsPerPart))
}

// IDParts returns how many parts the index of so many jobs has.
func IDParts(count int) int { return (count + IDsPerPart - 1) / IDsPerPart }

// An idLine is a line of the index.
type idLine struct {
	CustomID string `json:"custom_id"`
}

// EncodeIDs returns a part of an index as it is stored: gzip of a line for each
// id, in the order given. The same ids make the same bytes.
func EncodeIDs(ids []string) ([]byte, error) {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	e := json.NewEncoder(z)
	e.SetEscapeHTML(false)
	for _, id := range ids {
		if err := e.Encode(idLine{id}); err != nil {
			return nil, fmt.Errorf("encode ids: %w", err)
		}
	}
	if err := z.Close(); err != nil {
		return nil, fmt.Errorf("encode ids: %w", err)
	}
	return b.Bytes(), nil
}

// DecodeIDs is the inverse of [EncodeIDs]. It holds one line at a time. An error
// ends it; it is the last pair.
func DecodeIDs(part []byte) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		z, err := gzip.NewReader(bytes.NewReader(part))
		if err != nil {
			yield("", fmt.Errorf("decode ids: %w", err))
			return
		}
		s := bufio.NewScanner(z)
		for n := 1; s.Scan(); n++ {
			var line idLine
			if err := json.Unmarshal(s.Bytes(), &line); err != nil {
				yield("", fmt.Errorf("decode ids: line %d: %w", n, err))
				return
			}
			if !yield(line.CustomID, nil) {
				return
			}
		}
		if err := s.Err(); err != nil {
			yield("", fmt.Errorf("decode ids: %w", err))
		}
	}
}
