package account_test

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"strings"
	"sync"
	"testing"
	"time"

	"upwell/jobs"
	"upwell/sink"
	"upwell/sink/account"
)

// BenchmarkCheck draws up accounts of up to ten million jobs, of which every tenth
// has an error line and every twentieth a superseded one, over a store that makes
// its listings as they are read. It reports the most memory that the process had
// from the system meanwhile, without what it had before.
//
//	go test ./sink/account -run '^$' -bench Check -benchtime 1x -v
func BenchmarkCheck(b *testing.B) {
	for _, n := range []int{100_000, 1_000_000, 10_000_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			s := newBigStore(b, n)
			for b.Loop() {
				debug.FreeOSMemory()
				stop := watchMemory()
				r, err := account.Check(b.Context(), s, run, account.Options{Dir: b.TempDir()})
				peak := stop()
				if err != nil || !r.Balanced() || r.Answered+r.Failed != n || r.Superseded.Count != n/20 {
					b.Fatalf("Check = %+v, %v, want a balance of %d jobs", r, err, n)
				}
				b.ReportMetric(float64(peak)/(1<<20), "peak-MiB")
			}
			b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "jobs/s")
		})
	}
}

// watchMemory watches how much memory the process has from the system, beyond
// what it has now, until stop, which returns the most.
func watchMemory() (stop func() (peak uint64)) {
	base, done := memory(), make(chan struct{})
	var peak uint64
	var watching sync.WaitGroup
	watching.Go(func() {
		t := time.NewTicker(5 * time.Millisecond)
		defer t.Stop()
		for {
			select {
			case <-done:
				return
			case <-t.C:
				if m := memory(); m > base {
					peak = max(peak, m-base)
				}
			}
		}
	})
	return func() uint64 { close(done); watching.Wait(); return peak }
}

// memory is what the process has from the system, in bytes.
func memory() uint64 {
	s := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64() - s[1].Value.Uint64()
}

// A bigStore is a run of n jobs that nobody holds: which of them are in a shard is
// in a file of their numbers.
type bigStore struct {
	n     int
	files [256]*os.File
}

func bigID(i uint32) string { return fmt.Sprintf("contracts/2026/msa-%08d.pdf", i) }

func newBigStore(b *testing.B, n int) *bigStore {
	b.Helper()
	s, dir := &bigStore{n: n}, b.TempDir()
	var w [256]*bufio.Writer
	for i := range w {
		f, err := os.CreateTemp(dir, "*")
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { f.Close() })
		s.files[i], w[i] = f, bufio.NewWriter(f)
	}
	for i := range uint32(n) {
		var number [4]byte
		binary.BigEndian.PutUint32(number[:], i)
		_, _ = w[sha256.Sum256([]byte(bigID(i)))[0]].Write(number[:])
	}
	for _, w := range w {
		if err := w.Flush(); err != nil {
			b.Fatal(err)
		}
	}
	return s
}

// Manifest implements [account.Store].
func (s *bigStore) Manifest(context.Context, string) (sink.Manifest, error) {
	return sink.Manifest{Run: run, Count: s.n}, nil
}

// IDs implements [account.Store].
func (s *bigStore) IDs(context.Context, sink.Manifest) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for i := range uint32(s.n) {
			if !yield(bigID(i), nil) {
				return
			}
		}
	}
}

// Shards implements [account.Store].
func (s *bigStore) Shards(context.Context, string, sink.Kind) (all []byte, err error) {
	for i := range 256 {
		all = append(all, byte(i))
	}
	return all, nil
}

// ListShard implements [account.Store].
func (s *bigStore) ListShard(_ context.Context, _ string, kind sink.Kind, shard byte) iter.Seq2[sink.Object, error] {
	return func(yield func(sink.Object, error) bool) {
		r := bufio.NewReader(io.NewSectionReader(s.files[shard], 0, 1<<40))
		for {
			var number [4]byte
			if _, err := io.ReadFull(r, number[:]); err != nil {
				if !errors.Is(err, io.EOF) {
					yield(sink.Object{}, err)
				}
				return
			}
			i := binary.BigEndian.Uint32(number[:])
			if failed := i%10 == 0; kind == sink.Results && failed || kind == sink.Errors && !failed && i%20 != 5 {
				continue
			}
			key := kind.Key("", jobs.Key{Run: run, CustomID: bigID(i)})
			id, whole := sink.ID(key)
			if !yield(sink.Object{Key: jobs.Key{Run: run, CustomID: id}, Whole: whole, Path: key, Size: 4000}, nil) {
				return
			}
		}
	}
}

// Strays implements [account.Store].
func (s *bigStore) Strays(context.Context, string, sink.Kind) iter.Seq2[sink.Object, error] {
	return func(func(sink.Object, error) bool) {}
}

// ReadObject implements [account.Store].
func (s *bigStore) ReadObject(context.Context, sink.Object) (jobs.Result, error) {
	return jobs.Result{}, errors.New("nothing is to be read")
}

// Path implements [account.Store].
func (s *bigStore) Path(kind sink.Kind, k jobs.Key) string { return kind.Key("", k) }

// TestMemory holds a small run to a bound that does not depend on its length.
func TestMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a second")
	}
	s := newStore()
	s.ids = s.ids[:0]
	s.objects = nil
	const n = 300_000
	ids := func(yield func(string, error) bool) {
		for i := range n {
			if !yield(strings.Repeat("long ", 80)+fmt.Sprint(i), nil) {
				return
			}
		}
	}
	debug.FreeOSMemory()
	stop := watchMemory()
	r, err := check(t, s, account.Options{IDs: ids})
	// The text of the ids alone has 120 MB.
	if peak := stop(); err != nil || r.Missing.Count != n || peak > 64<<20 {
		t.Errorf("%d jobs missing (%v) in %d MiB, want %d in 64 at most", r.Missing.Count, err, peak>>20, n)
	}
	for _, e := range r.Missing.Examples {
		if !strings.HasPrefix(e.CustomID, "long ") || e.Path != path(sink.Results, e.CustomID) {
			t.Errorf("example %+v, want one of the ids at its place", e)
		}
	}
}
