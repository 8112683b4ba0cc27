package jobs

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"unicode/utf8"

	"upwell/jobs/skim"
)

// space is what JSON lets stand between tokens.
const space = " \t\r\n"

// Set returns text, which is one JSON object, with value at path, a chain of
// keys of objects. What is not there on the way is made. Everything else stays as
// it is, byte for byte, but for one thing: of a key that comes twice the last
// counts, so that one is followed or replaced, and the others that the path ends
// at are removed. The error is a [*FormatError].
func Set(text []byte, path []string, value []byte) ([]byte, error) {
	text, value = bytes.Trim(text, space), bytes.Trim(value, space)
	if err := check(text); err != nil {
		return nil, err
	}
	if !json.Valid(value) || !utf8.Valid(value) {
		return nil, bad(dotted(path), "%.80q is not JSON: put text in quotes", value)
	}
	e, left, err := follow(text, path)
	if err != nil {
		return nil, err
	}
	value = wrap(left, value)
	switch {
	case e.last >= 0:
		m := e.members[e.last]
		text = splice(text, append(e.others(), cut{m.At, m.End, value}))
	case len(e.members) > 0:
		text = insert(text, e.members[len(e.members)-1].End, ","+skim.Quote(e.key)+":"+string(value))
	default:
		text = insert(text, e.at+1, skim.Quote(e.key)+":"+string(value))
	}
	return text, check(text) // it may be nested too deep now
}

// Unset returns text, which is one JSON object, without the key that path ends
// at, however often it comes there. Everything else stays as it is, byte for byte.
// The error is a [*FormatError]; that there is nothing to remove is none.
func Unset(text []byte, path []string) ([]byte, error) {
	text = bytes.Trim(text, space)
	if err := check(text); err != nil {
		return nil, err
	}
	e, left, err := follow(text, path)
	if err != nil || len(left) > 0 || e.last < 0 {
		return text, err
	}
	e.last = -1
	return splice(text, e.others()), nil
}

// A place is where in an object an edit happens.
type place struct {
	at      int // of the object's opening brace
	members []skim.Member
	key     string
	last    int // of members, the last with that key, or -1
}

// follow goes along path as far as there are objects. What is left of the path
// is for the value that the place has, or is to have.
func follow(text []byte, path []string) (e place, left []string, err error) {
	if i := slices.IndexFunc(path, func(key string) bool { return !utf8.ValidString(key) }); i >= 0 {
		return e, nil, bad("", "%q is no key: it is not UTF-8 text", path[i])
	}
	for i, key := range path {
		e.key, left = key, path[i+1:]
		e.members, e.last = layout(text, e.at, key)
		if e.last < 0 || len(left) == 0 {
			return e, left, nil
		}
		switch v := text[e.members[e.last].At:]; v[0] {
		case '{':
			e.at = e.members[e.last].At
		case 'n':
			return e, left, nil
		default:
			return e, nil, bad(dotted(path[:i+1]), "a JSON %s, want an object to look for %q in", kind(v), left[0])
		}
	}
	return e, nil, bad("", "an empty path: name a key")
}

// layout returns the members of the object that begins at, and which of them is
// the last with that key, or -1.
func layout(text []byte, at int, key string) (ms []skim.Member, last int) {
	last = -1
	for m := range skim.Members(text, at) {
		if string(m.Key) == key {
			last = len(ms)
		}
		ms = append(ms, m)
	}
	return ms, last
}

// A cut is a stretch of text and what comes in its place.
type cut struct {
	from, to int
	value    []byte
}

// others are the cuts that remove the members with e's key, but for the last if
// there is one. Each goes with the comma before it, and those that the object
// begins with go with the commas after them.
func (e place) others() (cuts []cut) {
	goes := func(i int) bool { return string(e.members[i].Key) == e.key && i != e.last }
	first := 0 // that stays
	for first < len(e.members) && goes(first) {
		first++
	}
	switch {
	case first == len(e.members):
		return []cut{{from: e.members[0].Start, to: e.members[first-1].End}}
	case first > 0:
		cuts = append(cuts, cut{from: e.members[0].Start, to: e.members[first].Start})
	}
	for i := first + 1; i < len(e.members); i++ {
		if goes(i) {
			cuts = append(cuts, cut{from: e.members[i-1].End, to: e.members[i].End})
		}
	}
	return cuts
}

// splice makes the cuts, which do not overlap.
func splice(text []byte, cuts []cut) []byte {
	slices.SortFunc(cuts, func(a, b cut) int { return a.from - b.from })
	out, done := make([]byte, 0, len(text)), 0
	for _, c := range cuts {
		out = append(append(out, text[done:c.from]...), c.value...)
		done = c.to
	}
	return append(out, text[done:]...)
}

// wrap returns the value as the one member of the one member … of an object.
func wrap(path []string, value []byte) []byte {
	for _, key := range slices.Backward(path) {
		value = slices.Concat([]byte("{"+skim.Quote(key)+":"), value, []byte("}"))
	}
	return value
}

func dotted(path []string) string { return strings.Join(path, ".") }
