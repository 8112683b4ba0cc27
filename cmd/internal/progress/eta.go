package progress

import (
	"encoding/json"
	"math"
	"time"
)

// An ETA is how long what is left will take. It is a range, as the rate moves: the
// real time is within it about nine times of ten while the capacity stays what it is.
// Nobody can know whether it will.
type ETA struct {
	Soonest, Latest time.Duration // Latest is zero when there is no telling
}

// etaWindows is how many stretches the rate is looked at in, and etaLeast and etaMost
// how long all of them together are: long enough for some dozens of answers that take
// a while, and short enough to forget what the endpoint was like before.
const (
	etaWindows = 8
	etaLeast   = 16 * time.Second
	etaMost    = 16 * time.Minute
)

// eta returns how long what is left will take, or nil before anybody can know, or when
// nothing is. m.mu must be held.
//
// It takes the rates of the last stretches, of which the later count for more, and
// goes as far from their mean as they do themselves, twice over: for their spread is
// also how wrong a mean of so few may be.
func (m *Meter) eta(now time.Time, left int64) *ETA {
	elapsed := now.Sub(m.start)
	if left <= 0 || elapsed < etaLeast {
		return nil
	}
	span := min(max(elapsed/2, etaLeast), etaMost)
	stretch := max(span/etaWindows, m.width)
	per := int(stretch / m.width)
	last := int(elapsed / m.width) // the point that is not over yet
	var sum, squares, weights float64
	for i := range etaWindows {
		var n int64
		end := last - i*per
		for j := end - per; j < end; j++ {
			if j >= 0 && j < len(m.all.points) {
				n += m.all.points[j].Settled
			}
		}
		r := float64(n) / (float64(per) * m.width.Seconds())
		w := float64(etaWindows-i) / etaWindows
		sum, squares, weights = sum+w*r, squares+w*r*r, weights+w
	}
	mean := sum / weights
	if mean <= 0 {
		return &ETA{}
	}
	dev := math.Sqrt(max(squares/weights-mean*mean, 0))
	// Counts have a spread of their own, which a few stretches may not show.
	dev = max(dev, math.Sqrt(mean/stretch.Seconds()))
	spread := 2 * dev / math.Sqrt(etaWindows/2) // 2 sigma of a mean of what are some four stretches' worth
	e := &ETA{Soonest: seconds(float64(left) / (mean + spread))}
	if slow := mean - spread; slow > mean/8 {
		e.Latest = seconds(float64(left) / slow)
	}
	return e
}

// seconds returns so many, at most what a time.Duration holds.
func seconds(s float64) time.Duration {
	return time.Duration(min(s, float64(math.MaxInt64/time.Second)) * float64(time.Second))
}

// String words the range.
func (e *ETA) String() string {
	switch {
	case e == nil:
		return "ETA unknown yet"
	case e.Soonest == 0:
		return "ETA unknown: nothing has come to its end of late"
	case e.Latest == 0:
		return "ETA " + round(e.Soonest) + " or much more"
	}
	a, b := round(e.Soonest), round(e.Latest)
	if a == b {
		return "ETA " + a
	}
	return "ETA " + a + "–" + b
}

// round words a duration to two digits or so: more would claim to know better.
func round(d time.Duration) string {
	unit := time.Second
	for _, u := range []time.Duration{5 * time.Second, 30 * time.Second, time.Minute, 5 * time.Minute, 30 * time.Minute, time.Hour} {
		if d >= 20*u/2 {
			unit = u
		}
	}
	return Short(max(d.Round(unit), time.Second))
}

// MarshalJSON writes seconds.
func (e *ETA) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		Soonest float64 `json:"soonest_seconds"`
		Latest  float64 `json:"latest_seconds,omitzero"`
		Text    string  `json:"text"`
	}{e.Soonest.Seconds(), e.Latest.Seconds(), e.String()})
}

// ETA returns how long so many more jobs will take.
func (m *Meter) ETA(left int64) *ETA {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.eta(time.Now(), left)
}
