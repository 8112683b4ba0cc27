package throttle

import (
	"math"
	"time"
)

const (
	// believed is how many episodes in a row must have begun at the same number
	// of attempts in flight to take that number for what is limited. At a limited
	// rate attempts in flight vary with how long answers take, and more than
	// that number get in sooner or later.
	believed = 4

	// near is how much lower than the wall a refusal may be and still count as
	// one of the wall's: calls that have ended may not have been noticed yet.
	near = 0.02

	// overlooked is how many attempts may have been let in beyond the wall: a
	// refusal that is under way has not been told yet.
	overlooked = 3

	// knock is how many cycles without a refusal it takes until one attempt more
	// than the wall allows may start. Where the wall is known a knock is refused
	// for certain, unlike a rate that has crept up, so that it is rarer.
	knock = 1.25
)

// A wall is a limit on attempts in flight, which shows itself by refusing every
// attempt beyond it and none before. The zero value knows of none.
type wall struct {
	limit    float64   // attempts in flight, others than the one to start
	hits     int       // episodes in a row that began there
	over     int       // attempts that started at or beyond it and were not refused
	waitedAt time.Time // when somebody last waited for it
}

// known returns the limit, or zero if there is none.
func (w *wall) known() int {
	if w.hits < believed {
		return 0
	}
	return int(w.limit)
}

// room reports whether an attempt may start with so many others in flight. After
// knock cycles one more may than before, and ever more after that.
func (w *wall) room(now time.Time, inFlight int, cycles float64) bool {
	if w.hits < believed {
		return true
	}
	limit := w.limit
	if late := cycles - knock; late >= 0 {
		limit += 1 + w.limit*quicken*late*late
	}
	if float64(inFlight) < math.Floor(limit) {
		return true
	}
	w.waitedAt = now
	return false
}

// start notes that an attempt starts with so many others in flight.
func (w *wall) start(inFlight int) {
	if w.hits == 0 || float64(inFlight) < w.limit {
		return
	}
	if w.over++; w.over > overlooked {
		*w = wall{waitedAt: w.waitedAt}
	}
}

// refused notes that one of those was refused.
func (w *wall) refused(inFlight int) {
	if w.hits > 0 && float64(inFlight) >= w.limit {
		w.over = max(w.over-1, 0)
	}
}

// hit notes that an episode began with a refusal, and reports whether the wall is
// the reason for it.
func (w *wall) hit(inFlight int) bool {
	f := max(float64(inFlight), 1)
	switch low := f < w.limit*(1-near); {
	case low && w.hits > believed: // once in a while there are other reasons
		w.hits--
		return false
	case low || w.hits == 0:
		*w = wall{limit: f, hits: 1, waitedAt: w.waitedAt}
		return false
	default:
		w.limit, w.hits = min(w.limit, f), min(w.hits+1, 2*believed)
		return w.hits >= believed
	}
}

// reason returns what a person is told: that the wall binds, or what else it is.
func (w *wall) reason(otherwise string) string {
	if w.hits < believed {
		return otherwise
	}
	return "in flight"
}
