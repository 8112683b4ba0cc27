package dashboard

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"
)

const (
	// mostViewers bounds the pages that are open at a time. Each costs a connection,
	// a goroutine and some kilobytes a second.
	mostViewers = 16

	// writeTime is how long a write to a viewer may take. One who is gone without a
	// word is noticed when the connection takes no more.
	writeTime = 10 * time.Second

	// retry is what a browser is told to wait before it connects again.
	retry = 2 * time.Second
)

// events streams what is shown: an event "full" first, then a "change" a second, and
// an "end" when the run is over. A viewer who has missed a change gets a "full".
func (d *Dashboard) events(rw http.ResponseWriter, r *http.Request) {
	if !d.enter() {
		refuse(rw, r, http.StatusServiceUnavailable, fmt.Sprintf("%d pages are open already, which is the most there may be", mostViewers))
		return
	}
	defer d.leave()
	h := rw.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("X-Accel-Buffering", "no") // a proxy is not to wait for more
	out := stream{rw, http.NewResponseController(rw)}
	if r.Method == http.MethodHead {
		return
	}
	if err := out.write(fmt.Sprintf("retry: %d\n\n", retry.Milliseconds())); err != nil {
		return
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for seen := int64(-1); ; {
		f := d.frame()
		if err := out.show(f, seen); err != nil {
			d.cfg.Log.DebugContext(r.Context(), "dashboard viewer gone", "err", err)
			return
		}
		if seen = f.n; f.last {
			return
		}
		// All viewers wake up together, so that the first one takes for all of them.
		timer.Reset(time.Until(f.at.Add(every)))
		select {
		case <-timer.C:
		case <-d.ended:
		case <-d.closed:
			return
		case <-r.Context().Done():
			return
		}
	}
}

// enter lets a viewer in, if there is room.
func (d *Dashboard) enter() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.viewers == mostViewers {
		return false
	}
	d.viewers++
	return true
}

func (d *Dashboard) leave() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.viewers--
}

// A stream is what one viewer is sent.
type stream struct {
	rw http.ResponseWriter
	rc *http.ResponseController
}

// show sends a frame to whoever has seen the one of that number.
func (s stream) show(f *frame, seen int64) error {
	name, data := "full", f.full
	switch {
	case f.err != nil:
		return f.err
	case seen == f.n:
		return nil
	case seen == f.n-1 && f.change != nil:
		name, data = "change", f.change
	}
	err := s.event(name, data)
	if err == nil && f.last {
		err = s.event("end", []byte("{}"))
	}
	return err
}

// event sends one; data is JSON, and so a single line.
func (s stream) event(name string, data []byte) error {
	return s.write(fmt.Sprintf("event: %s\ndata: %s\n\n", name, data))
}

func (s stream) write(text string) error {
	if err := s.rc.SetWriteDeadline(time.Now().Add(writeTime)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	if _, err := s.rw.Write([]byte(text)); err != nil {
		return err
	}
	return s.rc.Flush()
}

// snapshot serves all that is shown, at most a second old.
func (d *Dashboard) snapshot(rw http.ResponseWriter, r *http.Request) {
	f := d.frame()
	if f.err != nil {
		refuse(rw, r, http.StatusInternalServerError, f.err.Error())
		return
	}
	rw.Header().Set("Content-Type", "application/json")
	rw.Write(f.full) //nolint:errcheck // nobody is there any more
}

// why serves what has kept the worker from doing more.
func (d *Dashboard) why(rw http.ResponseWriter, _ *http.Request) {
	lately, whole := d.cfg.Meter.Why()
	answer(rw, http.StatusOK, map[string]any{"verb": d.cfg.Verb, "run": d.cfg.Run, "started": d.cfg.Meter.Started(), "why": lately, "why_whole": whole, "bound": d.cfg.Meter.Bound()})
}

// answer writes JSON.
func answer(rw http.ResponseWriter, status int, v any) {
	text, err := json.Marshal(v)
	if err != nil {
		status, text = http.StatusInternalServerError, []byte(`{"error":"the answer is no JSON"}`)
	}
	rw.Header().Set("Content-Type", "application/json")
	rw.WriteHeader(status)
	rw.Write(text) //nolint:errcheck // nobody is there any more
}
