package input

import (
	"bufio"
	"cmp"
	"container/heap"
	"encoding/binary"
	"errors"
	"hash/maphash"
	"io"
	"os"
	"slices"
)

// inMemory is how many ids are kept in memory, at 16 bytes each, before they are
// written out.
const inMemory = 1 << 20

// A seen is an id, by its hash, and the line it stands on.
type seen struct {
	hash uint64
	line int64
}

func compare(a, b seen) int { return cmp.Or(cmp.Compare(a.hash, b.hash), cmp.Compare(a.line, b.line)) }

// duplicates finds ids that occur twice among any number of them, in constant
// memory: an external merge sort by hash. Most files fit in memory and never
// reach the disk.
type duplicates struct {
	seed  maphash.Seed
	chunk []seen
	file  *os.File
	runs  []int64 // how many ids each sorted run in file has
}

func newDuplicates() *duplicates { return &duplicates{seed: maphash.MakeSeed()} }

// close removes what was written.
func (d *duplicates) close() {
	if d.file != nil {
		_ = dropTemp(d.file)
	}
}

func (d *duplicates) add(id string, line int) error {
	d.chunk = append(d.chunk, seen{maphash.String(d.seed, id), int64(line)})
	if len(d.chunk) < inMemory {
		return nil
	}
	return d.spill()
}

// spill writes the chunk as one more sorted run.
func (d *duplicates) spill() (err error) {
	if d.file == nil {
		if d.file, err = tempFile(); err != nil {
			return err
		}
	}
	slices.SortFunc(d.chunk, compare)
	w := bufio.NewWriterSize(d.file, 1<<16)
	for _, s := range d.chunk {
		var rec [16]byte
		binary.BigEndian.PutUint64(rec[:], s.hash)
		binary.BigEndian.PutUint64(rec[8:], uint64(s.line))
		_, _ = w.Write(rec[:]) // Flush reports it
	}
	d.runs = append(d.runs, int64(len(d.chunk)))
	d.chunk = d.chunk[:0]
	return w.Flush()
}

// A pair is two lines with equal hashes.
type pair struct{ first, second int }

// pairs returns the first pairs of lines that may have equal ids, by line, up to most
// of them, and how many there are in all.
func (d *duplicates) pairs(most int) (found []pair, total int, err error) {
	slices.SortFunc(d.chunk, compare)
	first := func() {
		slices.SortFunc(found, func(a, b pair) int { return cmp.Compare(a.second, b.second) })
		found = found[:min(len(found), most)]
	}
	var last seen
	have := false
	err = d.merge(func(s seen) {
		if !have || s.hash != last.hash {
			last, have = s, true
			return
		}
		total++
		if found = append(found, pair{int(last.line), int(s.line)}); len(found) >= 2*most+64 {
			first()
		}
	})
	first()
	return found, total, err
}

// merge calls f for every id in the order of hashes.
func (d *duplicates) merge(f func(seen)) error {
	var h runHeap
	var offset int64
	for _, n := range d.runs {
		section := io.NewSectionReader(d.file, offset*16, n*16)
		h = append(h, &run{r: bufio.NewReaderSize(section, 1<<14)})
		offset += n
	}
	h = append(h, &run{rest: d.chunk})
	for i, r := range slices.Backward(h) {
		if ok, err := r.next(); err != nil {
			return err
		} else if !ok {
			h = slices.Delete(h, i, i+1)
		}
	}
	heap.Init(&h)
	for len(h) > 0 {
		f(h[0].head)
		ok, err := h[0].next()
		switch {
		case err != nil:
			return err
		case ok:
			heap.Fix(&h, 0)
		default:
			heap.Pop(&h)
		}
	}
	return nil
}

// A run is a sorted sequence of ids, read from r or, without one, from rest.
type run struct {
	head seen
	r    io.Reader
	rest []seen
}

// next moves to the next id, and reports whether there is one.
func (r *run) next() (bool, error) {
	if r.r == nil {
		if len(r.rest) == 0 {
			return false, nil
		}
		r.head, r.rest = r.rest[0], r.rest[1:]
		return true, nil
	}
	var rec [16]byte
	if _, err := io.ReadFull(r.r, rec[:]); err != nil {
		if errors.Is(err, io.EOF) {
			return false, nil
		}
		return false, err
	}
	r.head = seen{binary.BigEndian.Uint64(rec[:]), int64(binary.BigEndian.Uint64(rec[8:]))}
	return true, nil
}

type runHeap []*run

func (h runHeap) Len() int           { return len(h) }
func (h runHeap) Less(i, j int) bool { return compare(h[i].head, h[j].head) < 0 }
func (h runHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *runHeap) Push(x any)        { *h = append(*h, x.(*run)) }
func (h *runHeap) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}
