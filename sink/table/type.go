package table

import (
	"fmt"
	"slices"
	"strings"
)

// A Kind is what kind of value a cell holds. The zero Kind is [String].
type Kind int

// Kinds of values.
const (
	String    Kind = iota // text; what is not a string is kept as its JSON text
	Int64                 // a whole number
	Double                // any other number
	Bool                  // true or false
	Date                  // a day, written as 2026-01-02
	Timestamp             // a moment in RFC 3339, kept in microseconds, UTC
	JSON                  // anything, as its JSON text
)

// kinds are the names of the kinds.
var kinds = []string{"string", "int64", "double", "bool", "date", "timestamp", "json"}

// String returns the kind's name.
func (k Kind) String() string { return kinds[k] }

// A Type is the type of a column: a kind, or a list of values of that kind.
type Type struct {
	Kind Kind
	List bool
}

// String returns t as [ParseType] reads it.
func (t Type) String() string {
	if t.List {
		return t.Kind.String() + "[]"
	}
	return t.Kind.String()
}

// ParseType reads the name of a kind, followed by [] for a list.
func ParseType(s string) (Type, error) {
	name, list := strings.CutSuffix(s, "[]")
	k := slices.Index(kinds, name)
	if k < 0 {
		return Type{}, fmt.Errorf("unknown type %q: want one of %s, or one with [] for a list", s, strings.Join(kinds, ", "))
	}
	return Type{Kind(k), list}, nil
}
