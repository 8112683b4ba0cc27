package sink

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// A Checkpoint says how far the submitting of a run is. Jobs are numbered from 0 in
// the order of the input. It is written ahead of the sending, so that it holds
// whenever the submitter is killed:
//
//	0            Queued           Begun            Count
//	|  queued    |  may be queued |  never sent    |
//
// and so that whoever goes on there sends those in the middle a second time, and no
// others. Those that earlier kills left are in Doubts, and are sent last.
//
// It is a storage type, as [Manifest] is.
type Checkpoint struct {
	Version     int    `json:"version"` // of the layout; [Checkpoint.Encode] sets it
	Run         string `json:"run"`
	InputSHA256 string `json:"input_sha256"` // the manifest's
	Count       int    `json:"count"`        // jobs in all

	// By names the process that wrote it, which nobody else does. Updated is when.
	By      string    `json:"by"`
	Updated time.Time `json:"updated"`

	Queued int     `json:"queued"`           // jobs before this one are in the queue, but for those in Doubts
	Begun  int     `json:"begun"`            // jobs from this one on have never been sent
	Doubts []Doubt `json:"doubts,omitempty"` // all before Queued, in the order to deal with them

	// Complete is when the last job was queued. Zero: there are some to do.
	Complete time.Time `json:"complete,omitzero"`
}

// A Doubt is some jobs that may be in the queue.
type Doubt struct {
	From int `json:"from"`
	To   int `json:"to"` // the first that is not among them
}

// Resumed returns c for whoever goes on from it: what may be queued is one doubt more,
// and all that is left has never been sent.
func (c Checkpoint) Resumed() Checkpoint {
	if c.Queued < c.Begun {
		c.Doubts = slices.Concat(c.Doubts, []Doubt{{c.Queued, c.Begun}})
		c.Queued = c.Begun
	}
	return c
}

// Doubtful returns how many jobs are in Doubts.
func (c Checkpoint) Doubtful() int {
	n := 0
	for _, d := range c.Doubts {
		n += d.To - d.From
	}
	return n
}

// Dealt returns c with the first jobs in Doubts dealt with, and those after them up to
// another number being sent: these may be queued once more, and come last.
func (c Checkpoint) Dealt(queued, begun int) Checkpoint {
	first, rest := split(c.Doubts, begun)
	_, again := split(first, queued)
	c.Doubts = slices.Concat(rest, again)
	return c
}

// split returns the first n jobs of the doubts, and the others.
func split(doubts []Doubt, n int) (first, rest []Doubt) {
	for i, d := range doubts {
		if size := d.To - d.From; n < size {
			if n > 0 {
				first = append(first, Doubt{d.From, d.From + n})
			}
			return first, append([]Doubt{{d.From + n, d.To}}, doubts[i+1:]...)
		}
		first = append(first, d)
		n -= d.To - d.From
	}
	return first, nil
}

// Encode returns c as it is stored.
func (c Checkpoint) Encode() ([]byte, error) {
	c.Version = Version
	b, err := marshal(c)
	if err != nil {
		return nil, fmt.Errorf("encode checkpoint: %w", err)
	}
	return b, nil
}

// DecodeCheckpoint is the inverse of [Checkpoint.Encode]. It refuses what only a newer
// upwell understands, and what cannot be: going on from there would lose jobs.
func DecodeCheckpoint(b []byte) (Checkpoint, error) {
	var c Checkpoint
	if err := json.Unmarshal(b, &c); err != nil {
		return c, fmt.Errorf("decode checkpoint: %w", err)
	}
	if c.Version < 1 || c.Version > Version {
		return c, fmt.Errorf("decode checkpoint: version %d, want at most %d: use a newer upwell", c.Version, Version)
	}
	for _, d := range c.Doubts {
		if d.From < 0 || d.To <= d.From || c.Queued < d.To {
			return c, fmt.Errorf("decode checkpoint: doubts from %d to %d of %d queued: it is damaged", d.From, d.To, c.Queued)
		}
	}
	if c.Queued < 0 || c.Begun < c.Queued || c.Count < c.Begun {
		return c, fmt.Errorf("decode checkpoint: %d queued, %d begun of %d: it is damaged", c.Queued, c.Begun, c.Count)
	}
	return c, nil
}

// CheckpointKey returns where the checkpoint of a run is stored.
func CheckpointKey(prefix, run string) string { return folder(prefix, run) + "checkpoint.json" }
