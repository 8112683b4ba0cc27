package dashboard

import (
	"encoding/json"
	"maps"
	"math"
	"slices"
	"time"

	"upwell/cmd/internal/budget"
	"upwell/cmd/internal/progress"
)

const (
	// every is how often what is shown is taken anew while somebody looks.
	every = time.Second

	// newsShown is how many of the newest decisions are shown: a handful, and the rest
	// when a person asks.
	newsShown = 60
)

// A state is all that the page shows. Its names in JSON are those of
// [progress.Snapshot], and a few more.
type state struct {
	Verb    string `json:"verb"`
	Run     string `json:"run"`
	Version string `json:"version"`
	Outcome string `json:"outcome"` // empty while it goes on

	progress.Snapshot
	Lanes  []lane           `json:"lanes"`
	Series *progress.Series `json:"series,omitempty"` // nil: see frame.columns
	Budget *budget.Status   `json:"budget"`
}

// A lane is one without its history.
type lane struct {
	progress.Lane
	Series *progress.Series `json:"series,omitempty"`
}

// columns are the histories by lane. That of all lanes together has no name.
type columns map[string]progress.Series

// A frame is what is shown at a moment, and how it differs from the one before.
type frame struct {
	n       int64
	at      time.Time
	last    bool                       // the run has ended
	parts   map[string]json.RawMessage // of the state, by name
	columns columns
	full    []byte // JSON: the parts, and all columns as a tail from 0
	change  []byte // likewise, of what is new since the frame before
	err     error
}

// A tail is the end of a history.
type tail struct {
	From int `json:"from"` // index of the first point; what was known from there on is replaced
	progress.Series
}

// frame returns what is shown now: what was taken less than a second ago, or anew.
// Once the run has ended, it is always the last one.
func (d *Dashboard) frame() *frame {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.last == nil || d.outcome == "" && time.Since(d.last.at) >= every {
		d.next()
	}
	return d.last
}

// next takes a new frame. d.mu must be held.
func (d *Dashboard) next() {
	s := d.take()
	f := &frame{n: 1, at: s.At, last: d.outcome != ""}
	if d.last != nil {
		f.n = d.last.n + 1
	}
	f.columns = split(&s)
	text, err := json.Marshal(s)
	if err == nil {
		err = json.Unmarshal(text, &f.parts)
	}
	if err != nil {
		f.err = err
		d.cfg.Log.Error("dashboard state is no JSON", "err", err)
		d.last = f
		return
	}
	f.full = f.write(nil)
	if d.last != nil && d.last.err == nil {
		f.change = f.write(d.last)
	}
	d.last = f
}

// take asks for all that is shown.
func (d *Dashboard) take() state {
	s := state{Verb: d.cfg.Verb, Run: d.cfg.Run, Version: d.cfg.Version, Outcome: d.outcome}
	var totals *progress.Totals
	if d.cfg.Totals != nil {
		totals = d.cfg.Totals()
	}
	s.Snapshot = d.cfg.Meter.Snapshot(totals)
	if d.cfg.Queue != nil {
		s.Queue = d.cfg.Queue()
	}
	if s.ETA == nil && totals == nil && s.Queue != nil {
		s.ETA = d.cfg.Meter.ETA(int64(s.Queue.Total())) // if nobody helps, and nothing comes
	}
	if d.cfg.Budget != nil {
		s.Budget = d.cfg.Budget()
	}
	s.News = s.News[:min(len(s.News), newsShown)]
	return s
}

// split takes the histories out of s.
func split(s *state) columns {
	c := columns{"": short(s.Snapshot.Series)}
	s.Lanes = make([]lane, len(s.Snapshot.Lanes))
	for i, l := range s.Snapshot.Lanes {
		c[l.Name] = short(l.Series)
		s.Lanes[i] = lane{Lane: l}
	}
	return c
}

// short returns s with rates of no more digits than can be seen.
func short(s progress.Series) progress.Series {
	for i, r := range s.Rate {
		s.Rate[i] = math.Round(r*1000) / 1000
	}
	return s
}

// write returns, as JSON, what of f is not as it was in old, or all of it.
func (f *frame) write(old *frame) []byte {
	parts := maps.Clone(f.parts)
	tails := make(map[string]tail, len(f.columns))
	for name, s := range f.columns {
		from, same := 0, false
		if old != nil {
			from, same = differ(old.columns[name], s)
		}
		if !same {
			tails[name] = tail{from, progress.Series{Rate: s.Rate[from:], Answered: s.Answered[from:], Refused: s.Refused[from:]}}
		}
	}
	if old != nil {
		maps.DeleteFunc(parts, func(name string, v json.RawMessage) bool {
			return slices.Equal(v, old.parts[name])
		})
		for name := range old.parts { // what was omitted is not there any more
			if _, ok := f.parts[name]; !ok {
				parts[name] = json.RawMessage("null")
			}
		}
	}
	text, err := json.Marshal(struct {
		State map[string]json.RawMessage `json:"state"`
		Tails map[string]tail            `json:"tails"`
	}{parts, tails})
	if err != nil { // cannot be: all of it was JSON before, or is numbers
		f.err = err
	}
	return text
}

// differ returns the index of the first point that is not the same, or reports that all
// are. Points that have become wider are other ones, and fewer.
func differ(a, b progress.Series) (from int, same bool) {
	n := min(len(a.Rate), len(b.Rate))
	for i := range n {
		if a.Rate[i] != b.Rate[i] || a.Answered[i] != b.Answered[i] || a.Refused[i] != b.Refused[i] {
			return i, false
		}
	}
	return n, len(a.Rate) == len(b.Rate)
}
