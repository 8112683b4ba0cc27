package mantlesim

import (
	"maps"
	"net"
	"net/http"
	"time"
)

// Usage counts tokens. Input includes Cached and Output includes Reasoning.
type Usage struct {
	Input     int `json:"input_tokens"`
	Cached    int `json:"cached_tokens"`
	Output    int `json:"output_tokens"`
	Reasoning int `json:"reasoning_tokens"`
}

// An Entry is one call in the ledger.
type Entry struct {
	Seq      int64     `json:"seq"` // from 1, in order of arrival
	Received time.Time `json:"received"`
	Answered time.Time `json:"answered"`
	Path     string    `json:"path"`
	Model    string    `json:"model,omitempty"`
	Tier     string    `json:"tier,omitempty"`   // asked for, "" if none
	Served   string    `json:"served,omitempty"` // the tier that the call ran on
	Status   int       `json:"status"`           // 0 if no status was sent
	Fault    string    `json:"fault,omitempty"`  // kind of the scripted fault that struck

	// Reason says why a call without a fault has no answer: a resource of the
	// script (a capacity.Reason), the code of an error in the request, or "gone"
	// when the client hung up.
	Reason string `json:"reason,omitempty"`

	// Billed tells whether generation ran. Usage and Cost are zero otherwise.
	Billed bool    `json:"billed"`
	Usage  Usage   `json:"usage"`
	Cost   float64 `json:"cost_usd"`

	BodySHA string `json:"body_sha256"`   // of the request, in hex
	Job     string `json:"job,omitempty"` // header X-Upwell-Job, else metadata.custom_id
	Key     string `json:"key,omitempty"` // first 8 hex digits of the credential's SHA-256
}

// Counts are totals since New or the last Reset, whatever the ledger still
// keeps. InFlight and NewConnections survive a Reset.
type Counts struct {
	Calls    int64 `json:"calls"`
	Answered int64 `json:"answered"` // status 200 sent in full; its content may still be a fault
	Billed   int64 `json:"billed"`

	// Repeated counts billed calls whose job, or body for want of a job name, the
	// ledger already held a billed call for.
	Repeated int64 `json:"repeated"`

	Refused429 int64            `json:"refused_429"`
	Refused503 int64            `json:"refused_503"`
	Refused529 int64            `json:"refused_529"`
	Gone       int64            `json:"gone"`    // the client hung up first
	Dropped    int64            `json:"dropped"` // no answer, or half of one, by a fault
	Status     map[int]int64    `json:"status"`  // by HTTP status; 0 for none
	Faults     map[string]int64 `json:"faults"`  // by kind
	Reasons    map[string]int64 `json:"reasons"` // as Entry.Reason

	InFlight       int   `json:"in_flight"`
	PeakInFlight   int   `json:"peak_in_flight"`
	NewConnections int64 `json:"new_connections"` // seen by ConnState

	Usage Usage   `json:"usage"` // billed
	Cost  float64 `json:"cost_usd"`
}

// A ledger keeps the last calls and the totals of all. Server.mu guards it.
type ledger struct {
	limit  int
	ring   []Entry
	oldest int            // index into ring once it is full
	billed map[string]int // billed calls in ring by job and by body
	counts Counts
}

func newLedger(limit int) ledger {
	return ledger{limit: limit, billed: map[string]int{}, counts: Counts{
		Status: map[int]int64{}, Faults: map[string]int64{}, Reasons: map[string]int64{},
	}}
}

// add books a call that has ended. Dropped tells that its answer was not sent in
// full.
func (l *ledger) add(e Entry, dropped bool) {
	l.total(e, dropped)
	if len(l.ring) < l.limit {
		l.ring = append(l.ring, e)
	} else {
		l.index(l.ring[l.oldest], -1)
		l.ring[l.oldest] = e
		l.oldest = (l.oldest + 1) % l.limit
	}
	l.index(e, 1)
}

func (l *ledger) total(e Entry, dropped bool) {
	c := &l.counts
	c.Status[e.Status]++
	if e.Fault != "" {
		c.Faults[e.Fault]++
	}
	if e.Reason != "" {
		c.Reasons[e.Reason]++
	}
	switch {
	case e.Reason == hungUp:
		c.Gone++
	case dropped:
		c.Dropped++
	case e.Status == http.StatusOK:
		c.Answered++
	}
	switch e.Status {
	case http.StatusTooManyRequests:
		c.Refused429++
	case http.StatusServiceUnavailable:
		c.Refused503++
	case statusOverloaded:
		c.Refused529++
	}
	if e.Billed {
		l.bill(e)
	}
}

func (l *ledger) bill(e Entry) {
	c, name := &l.counts, e.Job
	if name == "" {
		name = e.BodySHA
	}
	if l.billed[name] > 0 {
		c.Repeated++
	}
	c.Billed++
	c.Cost += e.Cost
	c.Usage.Input += e.Usage.Input
	c.Usage.Cached += e.Usage.Cached
	c.Usage.Output += e.Usage.Output
	c.Usage.Reasoning += e.Usage.Reasoning
}

// index adds n to the billed calls under e's names.
func (l *ledger) index(e Entry, n int) {
	if !e.Billed {
		return
	}
	for _, name := range []string{e.Job, e.BodySHA} {
		if l.billed[name] += n; l.billed[name] == 0 || name == "" {
			delete(l.billed, name)
		}
	}
}

// Ledger returns a copy of the calls kept, in the order in which they ended.
func (s *Server) Ledger() []Entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := &s.ledger
	return append(append(make([]Entry, 0, len(l.ring)), l.ring[l.oldest:]...), l.ring[:l.oldest]...)
}

// Counts returns the totals as they are now.
func (s *Server) Counts() Counts {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.ledger.counts
	c.Status, c.Faults, c.Reasons = maps.Clone(c.Status), maps.Clone(c.Faults), maps.Clone(c.Reasons)
	return c
}

// Billed returns how many of the calls kept were billed under a name: a job, or
// the SHA-256 of a request body in hex.
func (s *Server) Billed(name string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ledger.billed[name]
}

// ConnState is a hook for http.Server.ConnState that counts new connections.
func (s *Server) ConnState(_ net.Conn, state http.ConnState) {
	if state == http.StateNew {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.ledger.counts.NewConnections++
	}
}
