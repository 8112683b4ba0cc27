package prompt

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
)

// The types of values in a body. They print as a prompt wants them: what nests as
// JSON, and what is missing as nothing.
type (
	object map[string]any
	array  []any
	float  float64
	null   string // always empty: false to if, equal to "", and null in JSON
)

// methods are the names of the methods of these types, which text/template prefers to
// a map's keys.
var methods = []string{"String", "MarshalJSON"}

func (o object) String() string { return printed(o) }
func (a array) String() string  { return printed(a) }

// String writes a number without an exponent, as tables do.
func (f float) String() string {
	if v := math.Abs(float64(f)); v != 0 && (v < 1e-9 || v >= 1e21) {
		return strconv.FormatFloat(float64(f), 'g', -1, 64)
	}
	return strconv.FormatFloat(float64(f), 'f', -1, 64)
}

func (null) String() string { return "" }

// MarshalJSON implements [json.Marshaler].
func (null) MarshalJSON() ([]byte, error) { return []byte("null"), nil }

// printed returns v as JSON. What has no JSON form comes from no file.
func printed(v any) string {
	text, err := encode(v)
	if err != nil {
		return "!(" + err.Error() + ")"
	}
	return text
}

// encode returns v as JSON, keys in order.
func encode(v any) (string, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return "", fmt.Errorf("no JSON: %w", err)
	}
	return strings.TrimSuffix(b.String(), "\n"), nil
}

// objectOf returns values as a body sees them.
func objectOf(values map[string]any) object {
	o := make(object, len(values))
	for name, v := range values {
		o[name] = seen(v)
	}
	return o
}

// seen returns a value as a body sees it.
func seen(v any) any {
	switch v := v.(type) {
	case nil:
		return null("")
	case map[string]any:
		return objectOf(v)
	case []any:
		a := make(array, len(v))
		for i, item := range v {
			a[i] = seen(item)
		}
		return a
	case float64:
		return float(v)
	case float32: // as short as it was
		f, err := strconv.ParseFloat(strconv.FormatFloat(float64(v), 'g', -1, 32), 64)
		if err != nil {
			return float(v)
		}
		return float(f)
	case []byte:
		return string(v)
	case json.RawMessage:
		return decoded(v)
	}
	return v
}

// decoded returns JSON as a body sees it.
func decoded(text json.RawMessage) any {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var v any
	if d.Decode(&v) != nil {
		return string(text)
	}
	return seen(v)
}

func (o object) names() []string { return slices.Sorted(maps.Keys(o)) }

// A missingError says that a record, or an object in it, has no such key.
type missingError struct {
	key    string
	column bool // of the record, as far as is known
}

func (e *missingError) Error() string { return fmt.Sprintf("there is no %q", e.key) }

// member returns a column.
func (o object) member(name string) (any, error) {
	v, ok := o[name]
	if !ok {
		return nil, &missingError{name, true}
	}
	return v, nil
}

// index returns what is found in v by following keys of objects and numbers of lists,
// from 0. What is not there is an error.
func index(v any, keys ...any) (any, error) {
	for _, key := range keys {
		switch in := v.(type) {
		case object:
			name, ok := key.(string)
			if !ok {
				return nil, fmt.Errorf("%v is no name, want the name of a column or a key", key)
			}
			if v, ok = in[name]; !ok {
				return nil, &missingError{name, false}
			}
		case array:
			n, ok := key.(int)
			if !ok || n < 0 || n >= len(in) {
				return nil, fmt.Errorf("there is no item %v in a list of %d", key, len(in))
			}
			v = in[n]
		default:
			return nil, fmt.Errorf("nothing to index: %.40q is neither a list nor nested", fmt.Sprint(v))
		}
	}
	return v, nil
}
