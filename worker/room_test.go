package worker_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"upwell/jobs"
	"upwell/worker"
	"upwell/worker/workertest"
)

// sized returns a job of about that many bytes.
func sized(id string, bytes int) jobs.Message {
	return jobs.Message{Body: fmt.Appendf(nil,
		`{"custom_id":%q,"url":"/v1/responses","body":{"model":"m","input":%q}}`, id, strings.Repeat("x", bytes-70))}
}

// TestBytesAreBounded sends bodies of one size, and small ones with large ones
// among them, through more receivers than there is room for.
func TestBytesAreBounded(t *testing.T) {
	const bound = 512 << 10
	tests := []struct {
		name string
		size func(i int) int
		most int64 // ever held
	}{
		// Nothing is known of the first batch but the guess, 256 KiB each.
		{"of a size", func(int) int { return 30 << 10 }, bound + 4*10*30<<10},
		{"mostly small", func(i int) int { return 1<<10 + i%25/24*100<<10 }, bound + 4*10*101<<10},
		{"ever larger", func(i int) int { return 1<<10 + i<<8 }, bound + 4*10*40<<10},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tr := workertest.New(t)
				for i, id := range ids("j", 150) {
					tr.Queue.Send(sized(id, tt.size(i)))
				}
				tr.Endpoint.Func = workertest.After(10 * time.Second)
				run(t, tr, worker.Config{Bytes: bound, Receivers: 4, ExitWhenEmpty: true}, 5*time.Hour)
				tr.Done(t)
				_, got := tr.Queue.Peak()
				if got > tt.most {
					t.Errorf("%d KiB were held at once, want at most %d", got>>10, tt.most>>10)
				}
				if got < bound/2 {
					t.Errorf("%d KiB were held at most, want the bound of %d used", got>>10, bound>>10)
				}
			})
		})
	}
}

// TestSmallMessagesComeInBatches wants the size of messages learned: room for the
// size first guessed would have them come by twos.
func TestSmallMessagesComeInBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := workertest.New(t)
		for _, id := range ids("j", 300) {
			tr.Queue.Send(sized(id, 1<<10))
		}
		run(t, tr, worker.Config{Bytes: 512 << 10, Receivers: 1, ExitWhenEmpty: true}, time.Hour)
		tr.Done(t)
		if got := tr.Queue.Calls(workertest.Receive); got > 70 {
			t.Errorf("%d receives for 300 small messages, want at most 70", got)
		}
	})
}

// TestLargeMessagesAreHeldByFew is the other way about: only the first batch may
// be larger than the bound.
func TestLargeMessagesAreHeldByFew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := workertest.New(t)
		for _, id := range ids("j", 16) {
			tr.Queue.Send(sized(id, 1<<20))
		}
		tr.Endpoint.Func = workertest.After(10 * time.Second)
		_, stop := start(t, tr, steady(1000), worker.Config{Bytes: 2<<20 + 512<<10})
		time.Sleep(5 * time.Second)
		for tr.Queue.Len() > 0 {
			time.Sleep(10 * time.Second)
			if got := tr.Queue.Held(); got > 2 {
				t.Errorf("%d MiB held, want at most 2", got)
			}
		}
		stop()
		tr.Done(t)
	})
}

// TestAMessageLargerThanTheBound wants it served all the same, and those after
// it.
func TestAMessageLargerThanTheBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := workertest.New(t)
		for i, id := range ids("j", 30) {
			tr.Queue.Send(sized(id, 1<<10+i%10/9*200<<10))
		}
		tr.Endpoint.Func = workertest.After(time.Second)
		run(t, tr, worker.Config{Bytes: 64 << 10, Receivers: 4, ExitWhenEmpty: true}, 5*time.Hour)
		tr.Done(t)
		if _, got := tr.Queue.Peak(); got > 64<<10+4*201<<10 {
			t.Errorf("%d KiB were held at once, want one large message alone for each receiver at most", got>>10)
		}
	})
}

// TestRoomIsReturned has every way in which a message, or a request for some,
// comes to nothing; run checks that all room is back. The queue is slow and the
// worker stops in the middle.
func TestRoomIsReturned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := workertest.New(t)
		for i, id := range ids("j", 120) {
			tr.Queue.Send(sized(id, 1<<10+i<<8))
		}
		tr.Queue.Latency = func(workertest.Op) time.Duration { return 90 * time.Millisecond }
		tr.Queue.Fault = workertest.Every(4, workertest.Receive, false)
		tr.Endpoint.Func = eventful()
		for range 12 {
			run(t, tr, worker.Config{Slots: 9, Bytes: 1 << 20, Receivers: 16, MaxReceives: 1000}, 171*time.Second)
		}
		tr.Queue.Fault = nil
		run(t, tr, worker.Config{Receivers: 16, ExitWhenEmpty: true}, 5*time.Hour)
		tr.Done(t)
	})
}
