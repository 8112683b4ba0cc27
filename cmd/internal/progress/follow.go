package progress

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"upwell/jobs"
	"upwell/worker"
)

const (
	// examplesKept is how many of the newest failures of each class are kept.
	examplesKept = 5

	// newsKept is how many of the newest decisions and troubles are kept.
	newsKept = 200

	// attemptsKept bounds the attempts kept of a job under way: the first, and the
	// newest.
	attemptsKept = 32

	// reasonKept bounds a reason, in characters.
	reasonKept = 500
)

// A Failure is a job that was dead-lettered.
type Failure struct {
	Run      string     `json:"run"`
	CustomID string     `json:"custom_id"`
	Class    jobs.Class `json:"class"`
	Reason   string     `json:"reason"`
	Status   int        `json:"status,omitzero"`
	At       time.Time  `json:"at"`
}

// failures are the newest of each class.
type failures map[jobs.Class]*ring[Failure]

func (f failures) add(e worker.Event) {
	l := e.Letter
	r, ok := f[l.Class]
	if !ok {
		r = &ring[Failure]{most: examplesKept}
		f[l.Class] = r
	}
	r.add(Failure{e.Key.Run, e.Key.CustomID, l.Class, first(l.Reason, reasonKept), l.Status, e.At})
}

// An Underway is a job that has been started and has not come to its end.
type Underway struct {
	Since    time.Time      `json:"since"`
	Calling  bool           `json:"calling"` // a call is in flight
	Attempts []jobs.Attempt `json:"attempts"`
}

// An underway is an Underway of the message that it is for.
type underway struct {
	Underway

	key jobs.Key
}

// follow keeps what is known of the jobs under way. m.mu must be held.
func (m *Meter) follow(e worker.Event) {
	switch e.Kind {
	case worker.Permitted:
		u := m.jobs[e.Message]
		if u == nil {
			u = &underway{Underway{Since: e.At}, e.Key}
			m.jobs[e.Message] = u
		}
		u.Calling = true
	case worker.Attempted:
		if u := m.jobs[e.Message]; u != nil {
			if u.Calling = false; len(u.Attempts) == attemptsKept {
				u.Attempts = slices.Delete(u.Attempts, attemptsKept/2, attemptsKept/2+1)
			}
			u.Attempts = append(u.Attempts, e.Attempt)
		}
	case worker.Stored, worker.Duplicate, worker.Buried, worker.Released, worker.Lost:
		delete(m.jobs, e.Message)
	default:
	}
}

// Underway returns what is known of a job, if it is under way here.
func (m *Meter) Underway(k jobs.Key) (u Underway, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range m.jobs {
		if p.key == k {
			u = p.Underway
			u.Attempts = slices.Clone(p.Attempts)
			return u, true
		}
	}
	return u, false
}

// A News is something that a person who watches would want to be told.
type News struct {
	At   time.Time `json:"at"`
	Kind string    `json:"kind"` // rate, closed, opened, paused, resumed, parked, unparked, late
	Text string    `json:"text"`
}

// String words the news for a line of a text.
func (n News) String() string {
	return n.At.UTC().Format("15:04:05.000") + " " + n.Kind + ": " + n.Text
}

// newsOf words an event, if it is news.
func newsOf(e worker.Event) (News, bool) {
	var text string
	switch e.Kind {
	case worker.RateChanged:
		text = fmt.Sprintf("%s: %.2f/s, %s", e.Lane, e.Rate.Rate, e.Rate.Reason)
	case worker.Closed:
		text = fmt.Sprintf("%s: until %s, %s", e.Lane, e.Rate.ClosedUntil.UTC().Format(time.TimeOnly), e.Rate.Reason)
	case worker.Opened, worker.Resumed:
		text = e.Lane.String()
	case worker.Paused:
		text = fmt.Sprintf("%s: %v", e.Lane, e.Err)
	case worker.Parked:
		text = fmt.Sprintf("run %s: %v", e.Key.Run, e.Err)
	case worker.Unparked:
		text = "run " + e.Key.Run
	case worker.Late:
		text = fmt.Sprintf("message %s: a heartbeat, by %s", e.Message, Duration(e.Took))
	default:
		return News{}, false
	}
	kind := e.Kind.String()
	if e.Kind == worker.RateChanged {
		kind = "rate"
	}
	return News{e.At, kind, first(text, reasonKept)}, true
}

// News returns what has been news lately, the newest first.
func (m *Meter) News() []News {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.news.newest()
}

// first returns the first n characters of s, or all of it.
func first(s string, n int) string {
	if utf8.RuneCountInString(s) <= n {
		return s
	}
	return strings.ToValidUTF8(string([]rune(s)[:n-1]), "") + "…"
}
