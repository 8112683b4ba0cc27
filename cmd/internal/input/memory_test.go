package input_test

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"upwell/cmd/internal/input"
)

// generate writes a CSV of n rows of some 200 bytes, and returns its path.
func generate(tb testing.TB, n int) string {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "rows.csv")
	f, err := os.Create(path)
	if err != nil {
		tb.Fatal(err)
	}
	w := bufio.NewWriterSize(f, 1<<20)
	fmt.Fprintln(w, "id,party,amount,clause")
	for i := range n {
		fmt.Fprintf(w, "c-%08d,\"Party %d, Ltd\",%d.%02d,\"The supplier shall indemnify the customer against claim %d.\nIt shall do so within %d days of \"\"notice\"\", and bears the costs of it.\"\n", i, i%1000, i, i%100, i, i%90)
	}
	if err := w.Flush(); err != nil {
		tb.Fatal(err)
	}
	if err := f.Close(); err != nil {
		tb.Fatal(err)
	}
	return path
}

// peak returns the most memory that the heap takes while f runs, beyond what it takes
// before, in MiB.
func peak(f func()) int {
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapInuse
	}
	runtime.GC()
	before, most := heap(), uint64(0)
	done := make(chan struct{})
	var sampling sync.WaitGroup
	sampling.Go(func() {
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for {
			most = max(most, heap())
			select {
			case <-done:
				return
			case <-tick.C:
			}
		}
	})
	f()
	close(done)
	sampling.Wait()
	return int(max(most, before)-before) >> 20
}

// TestMemoryIsFlat has a table ten times as long take no more memory, but for the
// hashes of its ids, 16 bytes each until they are written out.
func TestMemoryIsFlat(t *testing.T) {
	if testing.Short() {
		t.Skip("it reads 1,100,000 rows")
	}
	tmpl := template(t, "id")
	for _, n := range []int{100_000, 1_000_000} {
		path := generate(t, n)
		var sum input.Summary
		start := time.Now()
		mib := peak(func() { _, sum = checked(t, path, input.Options{Template: tmpl}) })
		took := time.Since(start)
		t.Logf("%d rows: %.0f rows/s, %d MiB of heap at most", n, float64(n)/took.Seconds(), mib)
		// 18 to 60 MiB were seen; a tenth of the rows alone would be more than twice
		// the bound.
		if sum.Count != n || mib > 120 {
			t.Errorf("%d jobs took %d MiB, want %d, and at most 120", sum.Count, mib, n)
		}
	}
}

func BenchmarkCSV(b *testing.B) {
	const n = 50_000
	path := generate(b, n)
	tmpl := template(b, "id")
	for b.Loop() {
		f, err := input.Open(b.Context(), path, input.Options{Template: tmpl})
		if err != nil {
			b.Fatal(err)
		}
		if _, err := input.Check(b.Context(), f, "r", anything); err != nil {
			b.Fatal(err)
		}
		f.Close()
	}
	b.ReportMetric(n*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
}
