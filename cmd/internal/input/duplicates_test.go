package input

import (
	"fmt"
	"testing"
)

// Ids are found again whether the first was written to disk, is in memory, or
// both are on disk in different runs.
func TestDuplicatesAcrossTheDisk(t *testing.T) {
	d := newDuplicates()
	defer d.close()
	add := func(id string, line int) {
		if err := d.add(id, line); err != nil {
			t.Fatal(err)
		}
	}
	const n = 3 * inMemory / 2
	add("early", 1)
	for i := range n {
		add(fmt.Sprint("id", i), 2+i)
	}
	add("early", n+2)
	for i := range n {
		add(fmt.Sprint("more", i), n+3+i)
	}
	add("late", 2*n+3)
	add("id7", 2*n+4)
	add("late", 2*n+5)
	if len(d.runs) < 2 || d.file == nil {
		t.Fatalf("%d runs were written, want at least two", len(d.runs))
	}
	pairs, total, err := d.pairs(10)
	want := []pair{{1, n + 2}, {9, 2*n + 4}, {2*n + 3, 2*n + 5}}
	if err != nil || fmt.Sprint(pairs) != fmt.Sprint(want) || total != 3 {
		t.Errorf("pairs = %v of %d, %v, want %v", pairs, total, err, want)
	}
}
