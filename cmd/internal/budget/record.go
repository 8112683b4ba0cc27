package budget

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"regexp"
	"strconv"
	"strings"
	"time"

	"upwell/jobs"
)

// A Board is a small object that several workers read and replace.
type Board interface {
	// Read returns the object and its version. An object that does not exist has
	// no data and no version, and is no error.
	Read(ctx context.Context) (data []byte, version string, err error)

	// Write replaces the object if its version is still the one given, and reports
	// false and no error if it is not. One that fails may have been done.
	Write(ctx context.Context, data []byte, version string) (ok bool, err error)
}

// BoardName is the name of the board with the budget of a run.
func BoardName(run string) string { return "budget/" + run }

// money is an amount in billionths of a US dollar, so that sums are exact.
type money int64

// largest is the largest amount: more than anybody has, and far from an overflow.
const largest = money(1e9 * 1e9)

// up returns an amount, rounded up.
func up(d jobs.USD) money {
	if !d.Known() {
		return 0
	}
	return money(math.Ceil(math.Min(math.Max(float64(d), 0)*1e9, float64(largest))))
}

func (m money) usd() jobs.USD { return jobs.USD(m) / 1e9 }

// String words the amount for people: with two digits after the point, and with four
// where it is small.
func (m money) String() string {
	if m != 0 && max(m, -m) < 1e8 {
		return fmt.Sprintf("$%.4f", float64(m)/1e9)
	}
	return fmt.Sprintf("$%.2f", float64(m)/1e9)
}

// MarshalJSON writes US dollars.
func (m money) MarshalJSON() ([]byte, error) {
	return strconv.AppendFloat(nil, float64(m)/1e9, 'f', -1, 64), nil
}

// UnmarshalJSON reads US dollars.
func (m *money) UnmarshalJSON(text []byte) error {
	v, err := strconv.ParseFloat(string(text), 64)
	if err != nil || !(math.Abs(v) <= float64(largest)/1e9) {
		return fmt.Errorf("%.40s is no amount in US dollars", text)
	}
	*m = money(math.Round(v * 1e9))
	return nil
}

var amount = regexp.MustCompile(`^(?i:usd|\$)?\s*([0-9]+(?:\.[0-9]+)?)\s*(?i:usd|\$)?$`)

// ParseUSD reads an amount such as 200usd, 200 USD, $200 or 200.
func ParseUSD(s string) (jobs.USD, error) {
	if found := amount.FindStringSubmatch(strings.TrimSpace(s)); found != nil {
		if v, err := strconv.ParseFloat(found[1], 64); err == nil && v <= float64(largest)/1e9 {
			return jobs.USD(v), nil
		}
	}
	return 0, fmt.Errorf("%q is no amount: want US dollars, such as 200usd", s)
}

// A record is what is on the board. It is a storage type: fields may be added, and
// none may change its meaning.
type record struct {
	Limit    money            `json:"limit_usd"`
	Spent    money            `json:"spent_usd"`
	Presumed money            `json:"presumed_usd,omitzero"` // the part of it that nobody saw a bill of
	Rev      int64            `json:"rev"`
	Grants   map[string]grant `json:"grants,omitempty"`
	Parked   *parking         `json:"parked,omitempty"`
}

// A grant is a worker's: what it may spend, and has not reported as spent.
type grant struct {
	USD money     `json:"usd"`
	Seq int64     `json:"seq"` // of the worker's write that made it so
	At  time.Time `json:"at"`  // and when
}

type parking struct {
	Since time.Time `json:"since"`
	Why   string    `json:"why"`
}

// granted is the sum of the grants.
func (r *record) granted() (sum money) {
	for _, g := range r.Grants {
		sum += g.USD
	}
	return sum
}

// silent returns what is granted to workers, other than the one of that name, that
// have said nothing for long, and since when the first of them has not.
func (r *record) silent(but string, now time.Time) (sum money, since time.Time) {
	for id, g := range r.Grants {
		if id == but || g.USD == 0 || now.Sub(g.At) < silent {
			continue
		}
		sum += g.USD
		if since.IsZero() || g.At.Before(since) {
			since = g.At
		}
	}
	return sum, since
}

// forgotten is after how long a worker that has nothing granted is taken off the
// record.
const forgotten = 24 * time.Hour

// decode reads the record that is on b; one that does not exist is nil. Its error names
// b, if b has a name.
func decode(b Board, data []byte) (*record, error) {
	if len(data) == 0 {
		return nil, nil //nolint:nilnil // no budget is no error
	}
	var r record
	if err := json.Unmarshal(data, &r); err != nil {
		name := "the record of the budget"
		if b, ok := b.(fmt.Stringer); ok {
			name += ", " + b.String() + ","
		}
		return nil, fmt.Errorf("%s is no good: stop the workers, delete it, and set the budget again: %w", name, err)
	}
	if r.Grants == nil {
		r.Grants = make(map[string]grant)
	}
	return &r, nil
}

// encode counts the revision up and writes the record.
func (r *record) encode(now time.Time) ([]byte, error) {
	r.Rev++
	for id, g := range r.Grants {
		if g.USD == 0 && now.Sub(g.At) > forgotten {
			delete(r.Grants, id)
		}
	}
	return json.Marshal(r)
}

// A Status is the state of a run's budget.
type Status struct {
	LimitUSD    jobs.USD   `json:"limit_usd"`
	SpentUSD    jobs.USD   `json:"spent_usd"`
	PresumedUSD jobs.USD   `json:"presumed_usd,omitzero"`  // part of spent: calls whose bill nobody saw
	ReservedUSD jobs.USD   `json:"reserved_usd"`           // granted to workers, the dead ones included
	SilentUSD   jobs.USD   `json:"silent_usd,omitzero"`    // part of reserved: for workers that may have been killed
	SilentSince *time.Time `json:"silent_since,omitempty"` // when the first of them was heard of
	ParkedSince *time.Time `json:"parked_since,omitempty"`
	ParkedWhy   string     `json:"parked_why,omitempty"`
}

func (r *record) status(now time.Time) Status {
	s := Status{LimitUSD: r.Limit.usd(), SpentUSD: r.Spent.usd(), PresumedUSD: r.Presumed.usd(), ReservedUSD: r.granted().usd()}
	if lost, since := r.silent("", now); lost > 0 {
		s.SilentUSD, s.SilentSince = lost.usd(), &since
	}
	if r.Parked != nil {
		s.ParkedSince, s.ParkedWhy = &r.Parked.Since, r.Parked.Why
	}
	return s
}

// String words the status in a line.
func (s Status) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%v of %v (reserved %v", up(s.SpentUSD), up(s.LimitUSD), up(s.ReservedUSD))
	if s.SilentUSD > 0 {
		fmt.Fprintf(&b, ", of which %v for workers last heard of at %s: they may have been killed", up(s.SilentUSD), s.SilentSince.Local().Format(time.DateTime))
	}
	if s.PresumedUSD > 0 {
		fmt.Fprintf(&b, "; %v of the spent is for calls whose bill nobody saw", up(s.PresumedUSD))
	}
	b.WriteString(")")
	if s.ParkedSince != nil {
		fmt.Fprintf(&b, ", parked since %s: %s", s.ParkedSince.Local().Format(time.DateTime), s.ParkedWhy)
	}
	return b.String()
}

// Look returns the state of the budget on a board, or nil if there is none.
func Look(ctx context.Context, b Board) (*Status, error) {
	data, _, err := b.Read(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the budget: %w", err)
	}
	r, err := decode(b, data)
	if r == nil {
		return nil, err
	}
	return new(r.status(time.Now())), nil
}

// tries is how often a write is tried again at once when somebody else wrote in
// between.
const tries = 8

// Set makes limit the budget on a board, whatever it was before. Where there is none
// yet, what the run has cost is asked for first. It returns what is on the board then.
func Set(ctx context.Context, b Board, limit jobs.USD, spent func(context.Context) (jobs.USD, error)) (Status, error) {
	for n := range tries {
		data, version, err := b.Read(ctx)
		if err != nil {
			return Status{}, fmt.Errorf("set the budget: %w", err)
		}
		r, err := decode(b, data)
		if err != nil {
			return Status{}, fmt.Errorf("set the budget: %w", err)
		}
		if r == nil {
			cost, err := spent(ctx)
			if err != nil {
				return Status{}, fmt.Errorf("add up what the run has cost: %w", err)
			}
			r = &record{Spent: up(cost)}
		} else if r.Limit == up(limit) {
			return r.status(time.Now()), nil
		}
		if r.Limit < up(limit) {
			r.Parked = nil
		}
		r.Limit = up(limit)
		if data, err = r.encode(time.Now()); err != nil {
			return Status{}, fmt.Errorf("set the budget: %w", err)
		}
		ok, err := b.Write(ctx, data, version)
		if err != nil {
			return Status{}, fmt.Errorf("set the budget: %w", err)
		}
		if ok {
			return r.status(time.Now()), nil
		}
		pause(ctx, rand.N(50*time.Millisecond<<n)) //nolint:gosec // n is small
	}
	return Status{}, errors.New("set the budget: others write it all the time: try again")
}

// Settle makes what is granted to workers part of what is spent, and returns how much
// that is. It is for who knows that all of them are dead: what their calls have been
// billed nobody can say, but it is no more than that.
func Settle(ctx context.Context, b Board) (jobs.USD, error) {
	for n := range tries {
		data, version, err := b.Read(ctx)
		if err != nil {
			return 0, fmt.Errorf("settle the budget: %w", err)
		}
		r, err := decode(b, data)
		if err != nil {
			return 0, fmt.Errorf("settle the budget: %w", err)
		}
		if r == nil || r.granted() == 0 {
			return 0, nil
		}
		lost := r.granted()
		r.Spent, r.Presumed, r.Grants = r.Spent+lost, r.Presumed+lost, nil
		if data, err = r.encode(time.Now()); err != nil {
			return 0, fmt.Errorf("settle the budget: %w", err)
		}
		ok, err := b.Write(ctx, data, version)
		if err != nil {
			return 0, fmt.Errorf("settle the budget: %w", err)
		}
		if ok {
			return lost.usd(), nil
		}
		pause(ctx, rand.N(50*time.Millisecond<<n)) //nolint:gosec // n is small
	}
	return 0, errors.New("settle the budget: others write it all the time: try again")
}

// pause waits for d or for the end of ctx.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
