package account

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"

	"upwell/jobs"
	"upwell/sink"
)

// An entry is a submitted job. It has 24 bytes, as there are as many as jobs in a
// few shards.
type entry struct {
	// sum is half of the custom_id's SHA-256, without the byte that the shard
	// is named for. A file name that was cut short has just that half.
	sum [15]byte
	has uint8 // a bit for each of kinds that has a line of the job
	at  int64 // where the id is in the spill
}

const entrySize = 24

// Bits of entry.has, in the order of kinds.
const (
	result   = 1 << 0
	errorRow = 1 << 1
)

func half(sum []byte) [15]byte { return [15]byte(sum[1:16]) }

// compareShard compares one shard. It gives each line that is in its place to read,
// with the number of its kind and the id of its job.
func (c *check) compareShard(ctx context.Context, shard byte, read func(kind int, o sink.Object, id string)) error {
	part := new(Report)
	entries, err := c.load(shard, part)
	if err != nil {
		return err
	}
	for i, kind := range kinds {
		if !c.present[i][shard] {
			continue
		}
		for o, err := range c.store.ListShard(ctx, c.run, kind, shard) {
			if err != nil {
				return err
			}
			e, id, err := c.find(entries, shard, i, o)
			switch {
			case err != nil:
				return err
			case e != nil:
				e.has |= 1 << i
				read(i, o, id)
			case o.Key.CustomID == "" && !o.Whole || !o.Whole && id != "":
				c.stray(o)
			default:
				part.Unknown.add(unknown(o))
			}
		}
	}
	if err := c.count(entries, shard, part); err != nil {
		return err
	}
	c.add(part)
	return nil
}

// load returns a shard's jobs, sorted by their hash. An id that comes again is
// double.
func (c *check) load(shard byte, part *Report) ([]entry, error) {
	entries := make([]entry, 0, c.ids.count[shard])
	for s, err := range c.ids.ids(shard) {
		if err != nil {
			return nil, err
		}
		sum := sha256.Sum256(s.id)
		entries = append(entries, entry{sum: half(sum[:]), at: s.at})
	}
	slices.SortFunc(entries, func(a, b entry) int { return bytes.Compare(a.sum[:], b.sum[:]) })
	var err error
	entries = slices.CompactFunc(entries, func(a, b entry) bool {
		if a.sum != b.sum {
			return false
		}
		id, failed := c.ids.at(shard, b.at)
		if failed != nil {
			err = failed
		}
		part.Double.add(Example{CustomID: id, Path: c.store.Path(kinds[0], c.key(id)), Note: "submitted twice"})
		return true
	})
	return entries, err
}

func (c *check) key(id string) jobs.Key { return jobs.Key{Run: c.run, CustomID: id} }

// find returns the job that o is the line of, with its id. If there is none, but
// the name of o has been cut short and has the hash of a job, it returns the id of
// that alone.
func (c *check) find(entries []entry, shard byte, kind int, o sink.Object) (*entry, string, error) {
	sum, ok := hashOf(o)
	if !ok {
		return nil, "", nil
	}
	i, ok := slices.BinarySearchFunc(entries, sum, func(e entry, sum [15]byte) int { return bytes.Compare(e.sum[:], sum[:]) })
	if !ok {
		return nil, "", nil
	}
	e := &entries[i]
	if o.Whole {
		return e, o.Key.CustomID, nil
	}
	id, err := c.ids.at(shard, e.at)
	if err != nil || c.store.Path(kinds[kind], c.key(id)) != o.Path {
		return nil, id, err
	}
	return e, id, nil
}

// hashOf returns the hash of the job that o is named for, and false for what is
// no line.
func hashOf(o sink.Object) (sum [15]byte, ok bool) {
	switch {
	case o.Whole:
		full := sha256.Sum256([]byte(o.Key.CustomID))
		return half(full[:]), true
	case o.Key.CustomID == "":
		return sum, false
	}
	tail := o.Path[strings.LastIndexByte(o.Path, '~')+1:]
	b, err := hex.DecodeString(tail[:min(len(tail), 2*16)])
	if err != nil || len(b) != 16 {
		return sum, false
	}
	return half(b), true
}

// count counts what has become of a shard's jobs.
func (c *check) count(entries []entry, shard byte, part *Report) error {
	for _, e := range entries {
		switch e.has {
		case result:
			part.Answered++
		case errorRow:
			part.Failed++
		case result | errorRow:
			part.Answered++
			if err := c.example(&part.Superseded, 1, shard, e); err != nil {
				return err
			}
		default:
			if err := c.example(&part.Missing, 0, shard, e); err != nil {
				return err
			}
		}
	}
	return nil
}

// example counts a job among a finding, with its line of that kind. The text of
// an id is fetched only if it may be shown.
func (c *check) example(f *Finding, kind int, shard byte, e entry) error {
	if f.Count >= maxExamples {
		f.Count++
		return nil
	}
	id, err := c.ids.at(shard, e.at)
	f.add(Example{CustomID: id, Path: c.store.Path(kinds[kind], c.key(id))})
	return err
}

// unknown describes a line of a job that nobody submitted.
func unknown(o sink.Object) Example {
	e := Example{CustomID: o.Key.CustomID, Path: o.Path, Note: "never submitted"}
	if !o.Whole {
		e.CustomID += "…"
	}
	return e
}
