package mantlesim

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"time"
)

// Kinds of [Fault].
const (
	Throttle    = "throttle"     // 429
	Unavailable = "unavailable"  // 503
	Overloaded  = "overloaded"   // 529
	Internal    = "internal"     // 500
	Denied      = "denied"       // 401, as for an account without access to the model
	HTML        = "html"         // 502 with a page, as from a proxy
	StringError = "string_error" // 503 whose "error" is a bare string
	NestedError = "nested_error" // 503 whose message is an object
	AWSError    = "aws_error"    // 429 as AWS's own services word it
	Garbage     = "garbage"      // 200 whose body is not JSON
	Reset       = "reset"        // the connection is reset before the answer
	Hang        = "hang"         // no answer until the client hangs up

	Cut      = "cut"      // 200 whose body breaks off in the middle
	Slow     = "slow"     // latency times Factor
	Truncate = "truncate" // the output limit is reached early
	Decline  = "refuse"   // the model declines to answer
	Filter   = "filter"   // a content filter stops the answer
	Violate  = "violate"  // the answer does not satisfy its schema
	Fence    = "fence"    // JSON that was asked for comes in a Markdown fence
	Chatter  = "chatter"  // and with a sentence before and after it
	Empty    = "empty"    // completed with no output at all
	Failed   = "failed"   // 200 that says the generation failed
)

// statusOverloaded is the status some model APIs have for a model that is
// temporarily unable (AWS, "Scaling and throughput best practices").
const statusOverloaded = 529

// before are the kinds that strike before admission unless Applied, with the
// status they answer.
var before = map[string]int{
	Throttle: 429, Unavailable: 503, Overloaded: statusOverloaded, Internal: 500, Denied: 401,
	HTML: 502, StringError: 503, NestedError: 503, AWSError: 429, Garbage: 200, Reset: 0, Hang: 0,
}

var after = []string{Cut, Slow, Truncate, Decline, Filter, Violate, Fence, Chatter, Empty, Failed}

// A Fault scripts something that goes wrong. It strikes a valid call when all of
// its conditions hold; a condition left zero always holds. In JSON, durations
// are strings such as "1m30s".
type Fault struct {
	Kind string `json:"kind"`

	P     float64       `json:"p,omitempty"`     // probability
	First int           `json:"first,omitempty"` // number of the first call, from 1, since the faults were set
	Last  int           `json:"last,omitempty"`  // number of the last call
	After time.Duration `json:"-"`               // since the faults were set; "after"
	Until time.Duration `json:"-"`               // since the faults were set; "until"
	Match string        `json:"match,omitempty"` // regular expression that the request body matches
	Model string        `json:"model,omitempty"` // of the call
	Tier  string        `json:"tier,omitempty"`  // that the call runs on
	Times int           `json:"times,omitempty"` // how often at most

	// Applied lets generation run, and be billed, before a fault that would have
	// come instead of it: the call took effect and its answer was lost. Cut,
	// Slow and the kinds about content come after generation in any case; Failed
	// is billed only if Applied.
	Applied bool `json:"applied,omitempty"`

	Status     int           `json:"status,omitempty"` // instead of the kind's own
	RetryAfter time.Duration `json:"-"`                // instead of Refusal's; "retry_after"
	Factor     float64       `json:"factor,omitempty"` // of Slow; default 10
}

// CheckFaults reports what is wrong with faults that a Server is to have.
func CheckFaults(faults []Fault) error {
	_, err := arm(faults)
	return err
}

// plainFault is Fault without its methods.
type plainFault Fault

// faultJSON adds to a Fault what JSON writes in another way.
type faultJSON struct {
	*plainFault
	After      string `json:"after,omitempty"`
	Until      string `json:"until,omitempty"`
	RetryAfter string `json:"retry_after,omitempty"`
}

// MarshalJSON writes durations as strings.
func (f Fault) MarshalJSON() ([]byte, error) {
	text := func(d time.Duration) string {
		if d == 0 {
			return ""
		}
		return d.String()
	}
	return json.Marshal(faultJSON{(*plainFault)(&f), text(f.After), text(f.Until), text(f.RetryAfter)})
}

// UnmarshalJSON reads what MarshalJSON writes. Unknown keys are errors.
func (f *Fault) UnmarshalJSON(data []byte) error {
	j := faultJSON{plainFault: (*plainFault)(f)}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&j); err != nil {
		return err
	}
	for text, d := range map[*string]*time.Duration{&j.After: &f.After, &j.Until: &f.Until, &j.RetryAfter: &f.RetryAfter} {
		if *text == "" {
			continue
		}
		var err error
		if *d, err = time.ParseDuration(*text); err != nil {
			return err
		}
	}
	return nil
}

// An armed fault is one that has been set.
type armed struct {
	Fault
	match *regexp.Regexp // nil matches all
	fired int
}

// A script of faults. Server.mu guards all but the armed faults' conditions,
// which never change.
type faults struct {
	armed []*armed
	start time.Time // zero until the first call
	calls int       // since start
}

func arm(list []Fault) (faults, error) {
	var fs faults
	for i, f := range list {
		if _, ok := before[f.Kind]; !ok && !slices.Contains(after, f.Kind) {
			return fs, fmt.Errorf("fault %d: no kind %q", i, f.Kind)
		}
		if f.Status != 0 && (f.Status < 200 || f.Status > 599) {
			return fs, fmt.Errorf("fault %d: no status %d", i, f.Status)
		}
		a := &armed{Fault: f}
		if f.Match != "" {
			re, err := regexp.Compile(f.Match)
			if err != nil {
				return fs, fmt.Errorf("fault %d: %w", i, err)
			}
			a.match = re
		}
		fs.armed = append(fs.armed, a)
	}
	return fs, nil
}

// SetFaults replaces the scripted faults. Of those that would strike a call, the
// first in the list does.
func (s *Server) SetFaults(list []Fault) error {
	fs, err := arm(list)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	fs.start = time.Now()
	s.faults = fs
	return nil
}

// matching returns the faults whose expression matches body. It is apart from
// strike because it is slow: the mutex is not held while it matches.
func (s *Server) matching(body []byte) []*armed {
	s.mu.Lock()
	all := s.faults.armed
	s.mu.Unlock()
	var found []*armed
	for _, a := range all {
		if a.match == nil || a.match.Match(body) {
			found = append(found, a)
		}
	}
	return found
}

// strike numbers the call and returns the first of found that strikes it; the
// zero Fault if none does.
func (fs *faults) strike(found []*armed, c *call, now time.Time) Fault {
	fs.calls++
	since := now.Sub(fs.start)
	for _, a := range found {
		ok := (a.Times == 0 || a.fired < a.Times) &&
			fs.calls >= a.First && (a.Last == 0 || fs.calls <= a.Last) &&
			since >= a.After && (a.Until == 0 || since < a.Until) &&
			(a.Model == "" || a.Model == c.Model) && (a.Tier == "" || a.Tier == c.Served) &&
			(a.P == 0 || c.rng.Float64() < a.P)
		if ok {
			a.fired++
			return a.Fault
		}
	}
	return Fault{}
}

// early reports whether f comes instead of generation.
func (f Fault) early() bool {
	_, ok := before[f.Kind]
	return ok && !f.Applied
}

// reply is what f answers in place of anything else, if it does.
func (f Fault) reply() (rep reply, ok bool) {
	status, ok := before[f.Kind]
	if f.Status != 0 {
		status = f.Status
	}
	switch f.Kind {
	case Throttle, Unavailable, Overloaded, Internal, Denied:
		rep = statusError(status).reply()
	case HTML:
		rep = reply{status: status, kind: "text/html", body: []byte("<html><head><title>502 Bad Gateway</title></head><body><center><h1>502 Bad Gateway</h1></center></body></html>\n")}
	case StringError:
		rep = jsonReply(status, map[string]any{"error": "overloaded"})
	case NestedError:
		rep = jsonReply(status, map[string]any{"error": map[string]any{"message": map[string]any{"detail": "overloaded"}}})
	case AWSError:
		rep = jsonReply(status, map[string]any{"message": "Too many requests, please wait before trying again.", "__type": "ThrottlingException"})
	case Garbage:
		rep = reply{status: status, kind: "application/json", body: []byte("upstream connect error or disconnect/reset before headers")}
	case Reset, Hang:
		rep = reply{drop: true}
	}
	rep.retry = f.RetryAfter
	return rep, ok
}

// statusError words a status. Mantle's own wording is not known.
func statusError(status int) *apiError {
	switch status {
	case http.StatusTooManyRequests:
		return &apiError{status, "rate_limit_exceeded", "rate_limit_error", "Too many requests. Reduce your request rate.", ""}
	case http.StatusServiceUnavailable:
		return &apiError{status, "service_unavailable", "service_unavailable_error", "The service is temporarily unable to handle the request.", ""}
	case statusOverloaded:
		return &apiError{status, "overloaded", "overloaded_error", "The model is temporarily overloaded.", ""}
	case http.StatusUnauthorized, http.StatusForbidden:
		return &apiError{status, "access_denied", "permission_denied_error", "The model is not available for this account.", ""}
	default:
		return &apiError{status, "internal_server_error", "server_error", "The server had an error while processing your request.", ""}
	}
}
