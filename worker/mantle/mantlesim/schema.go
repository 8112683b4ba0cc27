package mantlesim

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"maps"
	"math/rand/v2"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// Bounds on a generated document. Beyond the first two, generation takes the
// smallest way out. A schema that demands more than the others, which one that
// refers to itself can, is not satisfied.
const (
	deepNodes = 400
	deepLevel = 8
	maxNodes  = 50_000
	maxLevel  = 200
	maxItems  = 10_000
	maxLength = 1 << 20
	maxSteps  = 50_000 // through a pattern
)

type schema = map[string]any

// A generator makes a document that satisfies a schema. Schemas are decoded with
// json.Number.
type generator struct {
	root  any
	src   *source
	rng   *rand.Rand
	steps int // through the current pattern
	nodes int // values made and schemas resolved so far
}

// A spot is a place in the document.
type spot struct {
	hint  string // what is asked for there: names and descriptions
	level int
}

func (p spot) in(hint string) spot { return spot{hint, p.level + 1} }

// deep reports whether the document has to come to an end.
func (g *generator) deep(p spot) bool { return p.level > deepLevel || g.nodes > deepNodes }

// value makes a value for a schema of any form.
func (g *generator) value(s any, p spot) any {
	m, ok := s.(schema)
	if g.nodes++; g.nodes > maxNodes || p.level > maxLevel {
		return nil
	}
	if !ok { // true, or no schema: anything will do
		return g.src.phrase(p.hint, g.rng)
	}
	m = g.resolve(m, 0, g.deep(p))
	if about, ok := m["description"].(string); ok {
		p.hint += " " + about
	}
	if v, ok := m["const"]; ok {
		return v
	}
	if e := fitting(list(m, "enum"), types(m)); len(e) > 0 {
		return g.choose(e, p)
	}
	switch g.kind(m, p) {
	case "object":
		return g.object(m, p)
	case "array":
		return g.array(m, p)
	case "integer":
		return g.number(m, p, true)
	case "number":
		return g.number(m, p, false)
	case "boolean":
		return g.lean(p.hint, 2) == 1
	case "null":
		return nil
	default:
		return g.text(m, p)
	}
}

// lean returns a number below n that depends on the text and the hint, and one
// time in ten on nothing.
func (g *generator) lean(hint string, n int) int {
	if g.rng.IntN(10) == 0 {
		return g.rng.IntN(n)
	}
	h := fnv.New64a()
	h.Write([]byte(hint))
	return rand.New(rand.NewPCG(g.src.seed, h.Sum64())).IntN(n)
}

// choose picks from an enum: by preference a word that the text uses.
func (g *generator) choose(enum []any, p spot) any {
	text := strings.ToLower(g.src.best(p.hint, g.rng))
	for _, v := range enum {
		if s, ok := v.(string); ok && len(s) > 2 && strings.Contains(text, strings.ToLower(strings.ReplaceAll(s, "_", " "))) && g.rng.IntN(4) > 0 {
			return v
		}
	}
	return enum[g.lean(p.hint, len(enum))]
}

// kind picks one of the types that m allows, and guesses if it names none.
func (g *generator) kind(m schema, p spot) string {
	types := slices.Clone(types(m))
	if i := slices.Index(types, "null"); i >= 0 && len(types) > 1 {
		if g.deep(p) || g.lean(p.hint+"?", 8) == 0 {
			return "null"
		}
		types = slices.Delete(types, i, i+1)
	}
	if len(types) > 0 {
		return types[g.rng.IntN(len(types))]
	}
	for _, guess := range []struct{ kind, words string }{
		{"object", "properties required additionalProperties minProperties patternProperties"},
		{"array", "items prefixItems minItems maxItems contains uniqueItems"},
		{"number", "minimum maximum exclusiveMinimum exclusiveMaximum multipleOf"},
	} {
		for w := range strings.FieldsSeq(guess.words) {
			if _, ok := m[w]; ok {
				return guess.kind
			}
		}
	}
	return "string"
}

func (g *generator) object(m schema, p spot) any {
	out, props, required := map[string]any{}, object(m, "properties"), stringsOf(m, "required")
	most, extra := integer(m, "maxProperties", 1<<30), m["additionalProperties"]
	missing := len(required)
	for _, name := range slices.Sorted(maps.Keys(props)) {
		must := slices.Contains(required, name)
		if must {
			missing--
		} else if g.deep(p) || len(out)+missing >= most || slices.Contains(stringsOf(m, omit), name) || g.rng.IntN(6) == 0 {
			continue
		}
		out[name] = g.value(props[name], p.in(name))
	}
	for _, name := range required {
		if _, ok := out[name]; !ok {
			out[name] = g.value(extra, p.in(name))
		}
	}
	least := integer(m, "minProperties", 0)
	if _, ok := extra.(schema); ok && len(props) == 0 && !g.deep(p) {
		least = max(least, 1+g.rng.IntN(2))
	}
	for i := 0; len(out) < min(least, most, maxItems); i++ {
		g.extra(m, out, i, p, i < 100+2*least)
	}
	return out
}

// extra adds a property, unless out has the one it comes upon. Named tells it to
// heed propertyNames.
func (g *generator) extra(m schema, out map[string]any, i int, p spot, named bool) {
	name := "item_" + strconv.Itoa(i+1)
	if names, ok := m["propertyNames"].(schema); ok && named {
		name = fmt.Sprint(g.value(merge(schema{"type": "string"}, names), p.in(name)))
	}
	for _, known := range slices.Sorted(maps.Keys(object(m, "properties"))) {
		if _, ok := out[known]; !ok && m["additionalProperties"] == false {
			name = known
		}
	}
	s, ok := object(m, "properties")[name]
	if !ok {
		s = m["additionalProperties"]
	}
	if _, ok := out[name]; !ok {
		out[name] = g.value(s, p.in(name))
	}
}

func (g *generator) array(m schema, p spot) any {
	prefix, items := list(m, "prefixItems"), m["items"]
	if old, ok := items.([]any); ok { // drafts before 2020-12
		prefix, items = old, m["additionalItems"]
	}
	contains, _ := m["contains"].(schema)
	wanted := 0
	if contains != nil {
		wanted = integer(m, "minContains", 1)
	}
	lo := max(integer(m, "minItems", 0), wanted)
	hi := min(integer(m, "maxItems", max(lo, len(prefix), 3)), max(lo, len(prefix))+3)
	n := lo
	if hi > lo && !g.deep(p) {
		n = max(lo, min(1, hi)) + g.rng.IntN(hi-max(lo, min(1, hi))+1)
		n = max(n, min(len(prefix), hi))
	}
	if items == false {
		n = min(n, len(prefix))
	}
	out, seen := make([]any, 0, min(n, maxItems)), map[string]bool{}
	for i := range min(n, maxItems) {
		s := items
		switch {
		case i < len(prefix):
			s = prefix[i]
		case i < len(prefix)+wanted && contains != nil:
			s = both(items, contains)
		}
		out = append(out, g.item(s, i, m["uniqueItems"] == true, seen, p))
	}
	return out
}

// item makes one element, tried again while it is not unique but has to be.
func (g *generator) item(s any, i int, unique bool, seen map[string]bool, p spot) (v any) {
	for try := range 100 {
		v = g.value(s, p.in(p.hint+" "+strconv.Itoa(i+100*try)))
		if !unique {
			return v
		}
		if text, _ := json.Marshal(v); !seen[string(text)] {
			seen[string(text)] = true
			return v
		}
	}
	return v
}

// omit is a keyword of our own: properties that would make another branch of a
// oneOf match as well.
const omit = "\x00omit"

// resolve returns m without references and combinations: it follows $ref,
// merges allOf, and settles on one branch of anyOf and oneOf. Deep in a document
// it settles on the smallest.
func (g *generator) resolve(m schema, hops int, deep bool) schema {
	ref, refers := m["$ref"].(string)
	all, one, some := list(m, "allOf"), list(m, "oneOf"), list(m, "anyOf")
	if !refers && all == nil && one == nil && some == nil || hops > 32 || g.nodes > maxNodes {
		return m
	}
	g.nodes += hops
	out := maps.Clone(m)
	for _, k := range []string{"$ref", "allOf", "oneOf", "anyOf"} {
		delete(out, k)
	}
	if refers {
		all = append([]any{g.lookup(ref)}, all...)
	}
	for _, sub := range all {
		if sub, ok := sub.(schema); ok {
			out = merge(g.resolve(sub, hops+1, deep), out)
		}
	}
	out = g.branch(out, some, hops, deep)
	if one != nil {
		out = merge(out, schema{omit: onlyRequired(one)})
		out = g.branch(out, one, hops, deep)
	}
	return out
}

// branch merges into m the first of the options, in random order or by size,
// that does not contradict it.
func (g *generator) branch(m schema, options []any, hops int, deep bool) schema {
	options = slices.Clone(options)
	g.rng.Shuffle(len(options), func(i, j int) { options[i], options[j] = options[j], options[i] })
	if deep {
		slices.SortStableFunc(options, func(a, b any) int { return weight(a) - weight(b) })
	}
	for _, o := range options {
		sub, ok := o.(schema)
		if !ok {
			return m
		}
		if out := merge(m, g.resolve(sub, hops+1, deep)); possible(out) {
			return out
		}
	}
	return m
}

// weight orders schemas by how much has to be generated for them.
func weight(s any) int {
	m, _ := s.(schema)
	switch t := types(m); {
	case slices.Contains(t, "null"):
		return 0
	case m["$ref"] != nil || m["allOf"] != nil || m["anyOf"] != nil || m["oneOf"] != nil:
		return 4
	case slices.Contains(t, "object") || m["properties"] != nil:
		return 2 + min(len(stringsOf(m, "required")), 1)
	case slices.Contains(t, "array"):
		return 2
	default:
		return 1
	}
}

// onlyRequired returns the names that some options require and others do not.
func onlyRequired(options []any) (names []any) {
	count := map[string]int{}
	for _, o := range options {
		m, _ := o.(schema)
		for _, name := range stringsOf(m, "required") {
			count[name]++
		}
	}
	for _, name := range slices.Sorted(maps.Keys(count)) {
		if count[name] < len(options) {
			names = append(names, name)
		}
	}
	return names
}

// lookup follows a reference within the document: "#", "#/$defs/x".
func (g *generator) lookup(ref string) any {
	path, local := strings.CutPrefix(ref, "#")
	if path, _ = url.PathUnescape(path); !local || path == "" {
		return g.root
	}
	at := g.root
	for step := range strings.SplitSeq(strings.TrimPrefix(path, "/"), "/") {
		step = strings.NewReplacer("~1", "/", "~0", "~").Replace(step)
		switch v := at.(type) {
		case schema:
			at = v[step]
		case []any:
			i, err := strconv.Atoi(step)
			if err != nil || i < 0 || i >= len(v) {
				return nil
			}
			at = v[i]
		}
	}
	return at
}

// merge returns a schema that demands what a and b demand. Where they cannot be
// combined, b wins.
func merge(a, b schema) schema {
	out := maps.Clone(a)
	for k, v := range b {
		old, ok := out[k]
		if !ok {
			out[k] = v
			continue
		}
		switch k {
		case "properties", "patternProperties", "$defs", "definitions":
			out[k] = union(object(a, k), object(b, k))
		case "required", omit:
			out[k] = slices.Concat(list(a, k), list(b, k))
		case "type":
			out[k] = shared(a, b)
		case "enum":
			out[k] = slices.DeleteFunc(slices.Clone(list(a, k)), func(v any) bool { return !slices.ContainsFunc(list(b, k), equal(v)) })
		case "items", "additionalProperties":
			out[k] = both(old, v)
		case "description":
			out[k] = fmt.Sprint(old, " ", v)
		case "minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties", "minContains":
			out[k] = pick(old, v, 1)
		case "maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties", "maxContains":
			out[k] = pick(old, v, -1)
		default:
			out[k] = v
		}
	}
	return out
}

func union(a, b schema) schema {
	out := maps.Clone(a)
	for name, s := range b {
		if old, ok := out[name]; ok {
			s = both(old, s)
		}
		out[name] = s
	}
	return out
}

// both merges schemas of any form. Those with combinations of their own are put
// side by side.
func both(a, b any) any {
	x, ok := a.(schema)
	y, ok2 := b.(schema)
	switch {
	case a == false || b == false:
		return false
	case !ok:
		return b
	case !ok2:
		return a
	}
	return schema{"allOf": []any{x, y}}
}

// shared returns the types that both allow; an integer is a number too.
func shared(a, b schema) []any {
	out := []any{}
	for _, t := range types(a) {
		for _, u := range types(b) {
			switch {
			case t == u, t == "integer" && u == "number":
				out = append(out, t)
			case t == "number" && u == "integer":
				out = append(out, u)
			}
		}
	}
	return out
}

// possible reports whether something can satisfy the types, the enum and the
// const of m.
func possible(m schema) bool {
	t, e := types(m), list(m, "enum")
	if c, ok := m["const"]; ok {
		if e != nil && !slices.ContainsFunc(e, equal(c)) {
			return false
		}
		e = []any{c}
	}
	return (m["type"] == nil || len(t) > 0) && (e == nil || len(fitting(e, t)) > 0)
}

// fitting returns the values of the given types; all if there are none.
func fitting(values []any, types []string) []any {
	if len(types) == 0 {
		return values
	}
	return slices.DeleteFunc(slices.Clone(values), func(v any) bool {
		t := typeOf(v)
		return !slices.Contains(types, t) && !(t == "integer" && slices.Contains(types, "number"))
	})
}

func typeOf(v any) string {
	switch v := v.(type) {
	case nil:
		return "null"
	case bool:
		return "boolean"
	case string:
		return "string"
	case []any:
		return "array"
	case json.Number:
		if r, ok := rational(v); ok && r.IsInt() {
			return "integer"
		}
		return "number"
	}
	return "object"
}

func equal(a any) func(any) bool {
	x, _ := json.Marshal(a)
	return func(b any) bool {
		y, _ := json.Marshal(b)
		return string(x) == string(y)
	}
}

func pick(a, b any, sign int) any {
	x, ok := rational(a)
	y, ok2 := rational(b)
	if ok && ok2 && x.Cmp(y)*sign > 0 {
		return a
	}
	return b
}

func list(m schema, key string) []any { v, _ := m[key].([]any); return v }

func object(m schema, key string) schema { v, _ := m[key].(schema); return v }

func stringsOf(m schema, key string) (out []string) {
	for _, v := range list(m, key) {
		if s, ok := v.(string); ok {
			out = append(out, s)
		}
	}
	return out
}

func types(m schema) []string {
	if t, ok := m["type"].(string); ok {
		return []string{t}
	}
	return stringsOf(m, "type")
}

func integer(m schema, key string, def int) int {
	if r, ok := rational(m[key]); ok && r.IsInt() && r.Num().IsInt64() {
		return int(r.Num().Int64())
	}
	return def
}
