package table

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"upwell/jobs/skim"
)

// A path says where in a JSON value another one is.
type path []step

// A step goes to a member of an object, or to an item of an array.
type step struct {
	name  string
	index int // of an item; -1 for a member
}

func member(name string) step { return step{name, -1} }

// maxIndex is far beyond any array in an answer, and keeps an index within an int
// of any size.
const maxIndex = 1 << 20

// parsePath reads a path such as parties[0].name from the beginning of s, and returns
// what follows it. A name that has one of .[]:="' or a space in it is written as
// ["a.b"], in JSON's quotes.
func parsePath(s string) (p path, rest string, err error) {
	for first := true; ; first = false {
		var st step
		switch {
		case strings.HasPrefix(s, "["):
			st, s, err = subscript(s)
		case first:
			st, s, err = name(s)
		case strings.HasPrefix(s, "."):
			st, s, err = name(s[1:])
		default:
			return p, s, nil
		}
		if err != nil {
			return nil, "", err
		}
		p = append(p, st)
	}
}

func name(s string) (step, string, error) {
	n := strings.IndexAny(s, ".[]:=\"' ")
	if n < 0 {
		n = len(s)
	}
	if n == 0 {
		return step{}, "", fmt.Errorf("want a name at %q, as in output.parties[0].name", s)
	}
	return member(s[:n]), s[n:], nil
}

// subscript reads [0] or ["name"].
func subscript(s string) (step, string, error) {
	if quoted, ok := strings.CutPrefix(s, `["`); ok {
		end := closing(quoted)
		var name string
		if end < 0 || json.Unmarshal([]byte(s[1:end+3]), &name) != nil || !strings.HasPrefix(quoted[end+1:], "]") {
			return step{}, "", fmt.Errorf(`want a name in quotes at %q, as in ["a.b"]`, s)
		}
		return member(name), quoted[end+2:], nil
	}
	digits, rest, ok := strings.Cut(s[1:], "]")
	n, err := strconv.ParseUint(digits, 10, 32)
	if !ok || err != nil || n > maxIndex {
		return step{}, "", fmt.Errorf("want the number of an item at %q, as in [0]", s)
	}
	return step{index: int(n)}, rest, nil
}

// closing returns where the quote is that ends a string whose first one is gone, or
// -1.
func closing(s string) int {
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '"':
			return i
		}
	}
	return -1
}

// String returns p as parsePath reads it.
func (p path) String() string {
	var b strings.Builder
	for i, st := range p {
		switch {
		case st.index >= 0:
			fmt.Fprintf(&b, "[%d]", st.index)
		case st.name == "" || strings.ContainsAny(st.name, ".[]:=\"' "):
			fmt.Fprintf(&b, "[%s]", skim.Quote(st.name))
		case i > 0:
			b.WriteString("." + st.name)
		default:
			b.WriteString(st.name)
		}
	}
	return b.String()
}

// flat returns p as the name of a column.
func (p path) flat() string {
	words := make([]string, len(p))
	for i, st := range p {
		if words[i] = st.name; st.index >= 0 {
			words[i] = strconv.Itoa(st.index)
		}
	}
	return strings.Join(words, "_")
}

// A plan is which columns are to be found where in a value.
type plan struct {
	columns []int // that are the value itself
	members map[string]*plan
	items   map[int]*plan
}

// add enters a column at a path.
func (p *plan) add(at path, column int) {
	for _, st := range at {
		p = p.next(st)
	}
	p.columns = append(p.columns, column)
}

func (p *plan) next(st step) *plan {
	if p.members == nil {
		p.members, p.items = make(map[string]*plan), make(map[int]*plan)
	}
	n := p.members[st.name]
	if st.index >= 0 {
		n = p.items[st.index]
	}
	if n != nil {
		return n
	}
	n = new(plan)
	if st.index >= 0 {
		p.items[st.index] = n
	} else {
		p.members[st.name] = n
	}
	return n
}

// walk puts what it finds of the plan in v, which must be valid JSON, into found, and
// leaves alone what is not there.
func (p *plan) walk(v []byte, found [][]byte) error {
	for _, c := range p.columns {
		found[c] = v
	}
	switch {
	case len(p.members) == 0 && len(p.items) == 0, kindOf(v) == "null":
		return nil
	case len(p.members) > 0 && kindOf(v) == "object":
		return p.inObject(v, found)
	case len(p.items) > 0 && kindOf(v) == "array":
		return p.inArray(v, found)
	default:
		return &unreachable{p.first(), v}
	}
}

func (p *plan) inObject(v []byte, found [][]byte) (err error) {
	for m := range skim.Members(v, 0) {
		if n := p.members[string(m.Key)]; n != nil {
			n.forget(found) // of two members of one name, the last counts, as everywhere
			err = errors.Join(err, n.walk(m.Of(v), found))
		}
	}
	return err
}

// forget takes back what was found.
func (p *plan) forget(found [][]byte) {
	for _, c := range p.columns {
		found[c] = nil
	}
	for _, n := range p.members {
		n.forget(found)
	}
	for _, n := range p.items {
		n.forget(found)
	}
}

func (p *plan) inArray(v []byte, found [][]byte) (err error) {
	i := 0
	for item := range skim.Items(v, 0) {
		if n := p.items[i]; n != nil {
			err = errors.Join(err, n.walk(item.Of(v), found))
		}
		i++
	}
	return err
}

// first returns the first column that is further down.
func (p *plan) first() int {
	first := math.MaxInt
	for _, n := range p.members {
		first = min(first, n.top())
	}
	for _, n := range p.items {
		first = min(first, n.top())
	}
	return first
}

func (p *plan) top() int {
	if len(p.columns) > 0 {
		return min(p.columns[0], p.first())
	}
	return p.first()
}

// unreachable is the error of a path that goes on where a value has no parts.
type unreachable struct {
	column int
	value  []byte
}

func (e *unreachable) Error() string { return "the path goes on beneath " + described(e.value) }
