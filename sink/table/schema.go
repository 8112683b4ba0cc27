package table

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"upwell/jobs/skim"
)

const (
	// maxColumns bounds the columns of a schema. A short one may describe very
	// many, by way of $ref, and nobody wants a table that wide.
	maxColumns = 1000

	// maxNesting bounds how deep objects are flattened.
	maxNesting = 16
)

// A node is a schema within a schema. The zero node is one that says nothing.
type node struct {
	root   json.RawMessage // the whole schema, for references
	words  words
	parts  []property // of an object, in order
	closed bool       // an object that has no other parts
	refs   []string   // the references that led here
	loops  bool       // a reference led back to itself
}

type property struct {
	name   string
	schema json.RawMessage
}

// words are the keywords that a column's type depends on.
type words struct {
	Ref        string            `json:"$ref"`
	Type       json.RawMessage   `json:"type"`
	Format     string            `json:"format"`
	Enum       []json.RawMessage `json:"enum"`
	Const      json.RawMessage   `json:"const"`
	AnyOf      []json.RawMessage `json:"anyOf"`
	OneOf      []json.RawMessage `json:"oneOf"`
	AllOf      []json.RawMessage `json:"allOf"`
	Items      json.RawMessage   `json:"items"`
	Prefix     json.RawMessage   `json:"prefixItems"`
	Properties json.RawMessage   `json:"properties"`
	Additional json.RawMessage   `json:"additionalProperties"`
}

// schemaOf reads a schema.
func schemaOf(text json.RawMessage) node {
	return node{root: text}.read(text)
}

// read reads a schema that is found in n. One that cannot be read says nothing: the
// jobs that named it have failed, and all it could do here is to choose a type.
func (n node) read(text json.RawMessage) node {
	n = node{root: n.root, refs: n.refs, loops: n.loops}
	if json.Unmarshal(text, &n.words) != nil {
		n.words = words{}
		return n
	}
	if next, ok := n.follow(); ok {
		return next
	}
	for m := range skim.Members(n.words.Properties, 0) {
		n.parts = append(n.parts, property{string(m.Key), m.Of(n.words.Properties)})
	}
	n.closed = len(n.parts) > 0 && (n.words.Additional == nil || kindOf(n.words.Additional) == "boolean" && n.words.Additional[0] == 'f')
	return n
}

// follow goes on to the schema that this one stands for, unless it has a type of its
// own and that one has not the same: then it only narrows the values down.
func (n node) follow() (node, bool) {
	next, ok := n.next()
	if own := n.kind(); own != "" && next.kind() != own {
		return n, false
	}
	return next, ok
}

// next returns what a schema refers to, or the only choice that it leaves beside null.
func (n node) next() (node, bool) {
	if ref := n.words.Ref; ref != "" {
		target := n.target(ref)
		if n.loops = slices.Contains(n.refs, ref); n.loops || target == nil {
			return node{root: n.root, loops: n.loops}, true
		}
		n.refs = append(slices.Clone(n.refs), ref)
		return n.read(target), true
	}
	for _, choice := range [][]json.RawMessage{n.words.AnyOf, n.words.OneOf, n.words.AllOf} {
		if rest := slices.DeleteFunc(slices.Clone(choice), isNull); n.words.Properties == nil && len(rest) == 1 {
			return n.read(rest[0]), true
		}
	}
	return n, false
}

// isNull reports whether a schema allows null and nothing else.
func isNull(schema json.RawMessage) bool {
	var w words
	return json.Unmarshal(schema, &w) == nil && (string(bytes.TrimSpace(w.Type)) == `"null"` || string(bytes.TrimSpace(w.Const)) == "null")
}

// target returns what a reference into the schema leads to, or nil.
func (n node) target(ref string) json.RawMessage {
	pointer, ok := strings.CutPrefix(ref, "#")
	if !ok || pointer != "" && pointer[0] != '/' {
		return nil // elsewhere, or an anchor
	}
	at := n.root
	for token := range strings.SplitSeq(strings.TrimPrefix(pointer, "/"), "/") {
		if pointer == "" {
			break
		}
		if at = memberOf(at, unescape(token)); at == nil {
			return nil
		}
	}
	return at
}

// unescape undoes what JSON Pointer, in the fragment of a URI, does to a name.
func unescape(token string) string {
	return strings.NewReplacer("%25", "%", "%22", `"`, "%20", " ", "~1", "/", "~0", "~").Replace(token)
}

func memberOf(v json.RawMessage, name string) json.RawMessage {
	if kindOf(v) != "object" {
		return nil
	}
	for m := range skim.Members(v, 0) {
		if string(m.Key) == name {
			return m.Of(v)
		}
	}
	return nil
}

// typ returns the type of a column that holds the value as a whole.
func (n node) typ() Type {
	switch n.kind() {
	case "string":
		return Type{Kind: textKind(n.words.Format)}
	case "integer":
		return Type{Kind: Int64}
	case "number":
		return Type{Kind: Double}
	case "boolean":
		return Type{Kind: Bool}
	case "array":
		if n.words.Items == nil || n.words.Prefix != nil {
			break
		}
		if t := n.read(n.words.Items).typ(); !t.List && t.Kind != JSON {
			return Type{t.Kind, true}
		}
	}
	return Type{Kind: JSON}
}

func textKind(format string) Kind {
	switch format {
	case "date":
		return Date
	case "date-time":
		return Timestamp
	default:
		return String
	}
}

// kind returns the only type, in JSON Schema's words, that the schema allows beside
// null, or nothing.
func (n node) kind() string {
	var types []string
	if kindOf(n.words.Type) == "string" {
		types = []string{skim.Unquote(n.words.Type)}
	} else if n.words.Type != nil {
		_ = json.Unmarshal(n.words.Type, &types)
	} else {
		types = n.examples()
	}
	types = slices.DeleteFunc(types, func(t string) bool { return t == "null" })
	if slices.Contains(types, "number") {
		types = slices.DeleteFunc(types, func(t string) bool { return t == "integer" })
	}
	if slices.Sort(types); len(slices.Compact(types)) != 1 {
		return ""
	}
	return types[0]
}

// examples returns the types of the values that are allowed one by one, or what the
// keywords for objects and arrays imply.
func (n node) examples() (types []string) {
	values := n.words.Enum
	if n.words.Const != nil {
		values = append(slices.Clone(values), n.words.Const)
	}
	for _, v := range values {
		kind := kindOf(v)
		if _, err := whole(string(v)); kind == "number" && err == nil {
			kind = "integer"
		}
		types = append(types, kind)
	}
	switch {
	case len(types) > 0:
	case n.parts != nil:
		types = []string{"object"}
	case n.words.Items != nil:
		types = []string{"array"}
	}
	return types
}

// A field is a place in an answer that gets a column.
type field struct {
	at  path
	typ Type
	few bool // the values are few, as those of an enum
}

// fields returns what an answer of this schema is flattened into, where at is the
// path to it.
func (n node) fields(at path) ([]field, error) {
	if n.kind() != "object" || len(n.parts) == 0 || len(at) > maxNesting {
		return []field{{at: at, typ: n.typ(), few: n.words.Enum != nil}}, nil
	}
	var all []field
	for _, p := range n.parts {
		below := append(slices.Clone(at), member(p.name))
		part := n.read(p.schema)
		more, err := part.fields(below)
		if part.loops {
			more, err = []field{{at: below, typ: Type{Kind: JSON}}}, nil
		}
		if all = append(all, more...); err != nil || len(all) > maxColumns {
			return nil, fmt.Errorf("the run's schema has more than %d fields: choose columns with --columns", maxColumns)
		}
	}
	return all, nil
}

// find returns the field at a path beneath the schema.
func (n node) find(at path, below path) (field, error) {
	for i, st := range below {
		n.refs, n.loops = nil, false // a path ends, so it may go round
		switch {
		case st.index >= 0:
			n = n.read(n.words.Items)
		default:
			schema := memberOf(n.words.Properties, st.name)
			if schema == nil && n.closed {
				return field{}, fmt.Errorf("there is no %q in %s: there is %s", st.name, append(slices.Clone(at), below[:i]...), n.names())
			}
			n = n.read(schema)
		}
	}
	f := field{at: append(slices.Clone(at), below...), typ: n.typ(), few: n.words.Enum != nil}
	if n.silent() {
		f.typ = Type{Kind: String}
	}
	return f, nil
}

// silent reports whether the schema says nothing about the type of a value.
func (n node) silent() bool { return n.words.Type == nil && len(n.examples()) == 0 }

// names lists an object's parts.
func (n node) names() string {
	list := make([]string, len(n.parts))
	for i, p := range n.parts {
		list[i] = p.name
	}
	return strings.Join(list, ", ")
}
