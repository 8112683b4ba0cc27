package account

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"iter"
	"os"
)

// shards is how many a run has: one for each first byte of a hash.
const shards = 256

// A spill keeps ids on disk, in a file for each shard. Once it is full, its ids
// may be read concurrently.
type spill struct {
	dir   string
	files [shards]*os.File // nil for a shard without ids
	w     [shards]*bufio.Writer
	count [shards]int
}

// newSpill returns an empty spill in a folder of its own, beneath dir.
func newSpill(dir string) (*spill, error) {
	own, err := os.MkdirTemp(dir, "upwell-account-*")
	return &spill{dir: own}, err
}

// close removes what was written.
func (s *spill) close() {
	for _, f := range s.files {
		if f != nil {
			_ = f.Close()
		}
	}
	_ = os.RemoveAll(s.dir)
}

// add appends an id to its shard, as its length and its text.
func (s *spill) add(id string) (err error) {
	shard := sha256.Sum256([]byte(id))[0]
	w := s.w[shard]
	if w == nil {
		if s.files[shard], err = os.CreateTemp(s.dir, "*"); err != nil {
			return err
		}
		w = bufio.NewWriterSize(s.files[shard], 8<<10)
		s.w[shard] = w
	}
	s.count[shard]++
	_, _ = w.Write(binary.AppendUvarint(w.AvailableBuffer(), uint64(len(id))))
	_, err = w.WriteString(id)
	return err
}

// fill adds all ids, and returns how many there are.
func (s *spill) fill(ctx context.Context, ids iter.Seq2[string, error], p *Progress) (n int, err error) {
	for id, err := range ids {
		if err == nil {
			err = ctx.Err()
		}
		if err == nil {
			err = s.add(id)
		}
		if err != nil {
			return n, err
		}
		n++
		p.IDs.Add(1)
	}
	var errs []error
	for i, w := range s.w {
		if w != nil {
			errs = append(errs, w.Flush())
			s.w[i] = nil // and the memory with it
		}
	}
	return n, errors.Join(errs...)
}

// A spilled is an id and where it is in its shard's file.
type spilled struct {
	id []byte // valid until the next one
	at int64
}

// ids yields the ids of a shard in the order in which they came.
func (s *spill) ids(shard byte) iter.Seq2[spilled, error] {
	return func(yield func(spilled, error) bool) {
		if s.files[shard] == nil {
			return
		}
		r := bufio.NewReader(io.NewSectionReader(s.files[shard], 0, 1<<62))
		var next spilled
		for {
			n, err := binary.ReadUvarint(r)
			if errors.Is(err, io.EOF) {
				return
			}
			if err == nil {
				next.id = append(next.id[:0], make([]byte, n)...)
				_, err = io.ReadFull(r, next.id)
			}
			if !yield(next, err) || err != nil {
				return
			}
			next.at += int64(uvarintLen(n)) + int64(n)
		}
	}
}

// uvarintLen is how many bytes the length n takes.
func uvarintLen(n uint64) int {
	var b [binary.MaxVarintLen64]byte
	return binary.PutUvarint(b[:], n)
}

// at returns the id at that place of a shard's file.
func (s *spill) at(shard byte, at int64) (string, error) {
	var head [binary.MaxVarintLen64]byte
	if _, err := s.files[shard].ReadAt(head[:], at); err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	n, size := binary.Uvarint(head[:])
	id := make([]byte, n)
	_, err := s.files[shard].ReadAt(id, at+int64(size))
	return string(id), err
}

// has reports whether the id was added.
func (s *spill) has(id string) (bool, error) {
	for other, err := range s.ids(sha256.Sum256([]byte(id))[0]) {
		if err != nil || string(other.id) == id {
			return err == nil, err
		}
	}
	return false, nil
}

// largest is how many ids the largest shard has.
func (s *spill) largest() int {
	n := 0
	for _, c := range s.count {
		n = max(n, c)
	}
	return n
}
