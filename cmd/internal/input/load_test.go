package input

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"iter"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"upwell/cmd/internal/document"
)

// A slow store has documents that take a second to load.
type slow struct {
	folder
	size int64

	mu        sync.Mutex
	now, most int64 // bytes of the documents that are being loaded
}

func (s *slow) list(context.Context) iter.Seq2[entry, error] {
	return one(entry{path: "a.txt", size: s.size})
}

func (s *slow) open(context.Context, entry) (io.ReadCloser, error) {
	s.add(s.size)
	time.Sleep(time.Second)
	return closing{strings.NewReader("text"), func() error { s.add(-s.size); return nil }}, nil
}

func (s *slow) add(n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now += n
	s.most = max(s.most, s.now)
}

type fixed struct{ Template }

func (fixed) Key() []string { return nil }

// TestDocumentsInMemory has no more documents in memory than there is room for,
// however many are under way, and one in any case.
func TestDocumentsInMemory(t *testing.T) {
	for _, tt := range []struct{ size, most int64 }{
		{aheadBytes/4 + 1, 3}, {aheadBytes/2 + 1, 1}, {2 * aheadBytes, 1},
	} {
		synctest.Test(t, func(t *testing.T) {
			st := &slow{size: tt.size}
			src, err := newSource(t.Context(), st, Options{Template: fixed{}, Documents: new(document.Reader), Progress: new(Progress)})
			if err != nil {
				t.Fatal(err)
			}
			var loading sync.WaitGroup
			var read atomic.Int64
			for range 6 {
				loading.Go(func() {
					if rec, _, err := src.record(t.Context(), entry{path: "a.txt", size: tt.size}); err != nil || rec.Values["text"] != "text" {
						t.Errorf("record = %+v, %v", rec, err)
					}
					read.Add(1)
				})
			}
			loading.Wait()
			if got := st.most; got != tt.most*tt.size || read.Load() != 6 {
				t.Errorf("%d documents of %d bytes were in memory at a time, want %d; %d were read", got/tt.size, tt.size, tt.most, read.Load())
			}
		})
	}
}

// A lost store has a table that cannot be read any more.
type lost struct{ folder }

func (*lost) list(context.Context) iter.Seq2[entry, error] { return one(entry{path: "a.csv", size: 9}) }

func (*lost) open(context.Context, entry) (io.ReadCloser, error) {
	return io.NopCloser(iotest.ErrReader(&AccessError{"s3://bkt/a.csv", io.ErrUnexpectedEOF})), nil
}

// TestTableIsLost has no network that fails be a fault of a row.
func TestTableIsLost(t *testing.T) {
	src, err := newSource(t.Context(), new(lost), Options{Template: fixed{}, Progress: new(Progress)})
	if err != nil {
		t.Fatal(err)
	}
	for m, err := range src.rows(t.Context(), entry{path: "a.csv"}) {
		if _, ok := errors.AsType[*AccessError](err); !ok {
			t.Errorf("rows = %+v, %v, want an error of the access", m, err)
		}
	}
}

// TestFullDisk names the folder of the temporary file.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	f := new(File)
	defer f.Close()
	err := f.spooling(func(s *spool) error {
		s.file.Close() // as bad as a full disk
		line := bytes.Repeat([]byte(rand.Text()), 1<<15)
		for range 64 {
			if err := s.add(line, rand.Text()); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil || !strings.Contains(err.Error(), "temporary file in "+dir) {
		t.Errorf("spooling = %v, want the folder named", err)
	}
}

// TestIDsAreNotLeft has a kill leave no file of ids.
func TestIDsAreNotLeft(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	d := newDuplicates()
	defer d.close()
	d.chunk = append(d.chunk, seen{1, 1}, seen{1, 2})
	if err := d.spill(); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("a kill would leave %v, %v", left, err)
	}
	if pairs, total, err := d.pairs(1); err != nil || total != 1 || pairs[0] != (pair{1, 2}) {
		t.Errorf("pairs = %v of %d, %v, want lines 1 and 2", pairs, total, err)
	}
}
