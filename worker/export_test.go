package worker

import "fmt"

// Full reports what a worker that has stopped still holds: it should be nothing.
func (w *Worker) Full(bytes int64) error {
	w.room.mu.Lock()
	defer w.room.mu.Unlock()
	w.known.mu.Lock()
	defer w.known.mu.Unlock()
	if w.room.free != w.room.total || w.room.bytes != bytes || len(w.room.growing) != 0 || w.held.len() != 0 || len(w.slots) != 0 || len(w.known.active) != 0 {
		return fmt.Errorf("room for %d messages of %d and %d bytes of %d, %d held, %d slots taken, %d jobs under way",
			w.room.free, w.room.total, w.room.bytes, bytes, w.held.len(), len(w.slots), len(w.known.active))
	}
	w.lanes.mu.Lock()
	defer w.lanes.mu.Unlock()
	for id, ln := range w.lanes.used {
		if len(ln.line) != 0 || ln.size != 0 {
			return fmt.Errorf("%d places of %d bytes in the line of %s", len(ln.line), ln.size, id)
		}
	}
	return nil
}
