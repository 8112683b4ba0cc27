package mantle

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// Schemas come from anybody who may send a message, and the validator trusts them. A
// few lines can ask for 2^60 comparisons, for a regular expression of a gigabyte, or
// for a number that it cannot represent. So a schema is looked through before it is
// compiled, and how much there is to compare is reckoned before an answer is.
const (
	// MaxSchema is the largest schema that is taken, in bytes. Schemas of a
	// thousand fields are a fifth of that.
	MaxSchema = 256 << 10

	// maxParts and maxDepth bound the values in a schema, and how deep they nest.
	// Compiling takes the square of the first and the cube of the second.
	maxParts = 10_000
	maxDepth = 100

	// maxAnswerDepth bounds how deep an answer nests.
	maxAnswerDepth = 200

	// maxPattern and maxProgram bound a regular expression, in bytes, and all of a
	// schema's together, in instructions of some 200 bytes.
	maxPattern = 1000
	maxProgram = 10_000

	// maxDigits and maxExponent bound numbers, which are compared as fractions.
	maxDigits   = 1000
	maxExponent = 400

	// maxWork bounds the comparisons of an answer with a schema: half a second or
	// so. A list of 20,000 objects takes some 100,000.
	maxWork = 1 << 20
)

var errWork = errors.New("the schema takes too many steps to check this answer: its anyOf, oneOf, contains and $ref multiply each other")

// A bound is what a JSON value is held to before anybody computes with it.
type bound struct {
	parts, depth int // at most; zero parts for no bound
	seen         int
}

// check reports what is out of bounds in v.
func (b *bound) check(v any, depth int) error {
	if b.seen++; b.parts > 0 && b.seen > b.parts {
		return fmt.Errorf("more than %d values", b.parts)
	}
	if depth > b.depth {
		return fmt.Errorf("nested deeper than %d levels", b.depth)
	}
	switch v := v.(type) {
	case map[string]any:
		for _, m := range v {
			if err := b.check(m, depth+1); err != nil {
				return err
			}
		}
	case []any:
		for _, item := range v {
			if err := b.check(item, depth+1); err != nil {
				return err
			}
		}
	case json.Number:
		return checkNumber(string(v))
	}
	return nil
}

func checkNumber(n string) error {
	_, exponent, _ := strings.Cut(strings.ToLower(n), "e")
	exponent = strings.TrimLeft(exponent, "+-0")
	if len(n) > maxDigits || len(exponent) > 3 || len(exponent) == 3 && exponent > fmt.Sprint(maxExponent) {
		return fmt.Errorf("the number %.20s is out of bounds: want at most %d digits and an exponent of %d", n, maxDigits, maxExponent)
	}
	return nil
}

// A pattern is a compiled regular expression, and what it takes.
type pattern struct {
	*regexp.Regexp

	program int // instructions
}

// cost is what matching a string takes, in comparisons.
func (p *pattern) cost(s string) int { return 1 + len(s)*p.program/1000 }

// patterns compiles the regular expressions of one schema.
type patterns struct {
	byText  map[string]*pattern
	program int   // instructions of all of them
	err     error // the first
}

// compile implements [jsonschema.RegexpEngine].
func (c *patterns) compile(text string) (jsonschema.Regexp, error) {
	if p := c.byText[text]; p != nil {
		return p, nil
	}
	p, err := c.fresh(text)
	if err != nil {
		err = fmt.Errorf("the pattern %.80q: %w", text, err)
		c.err = cmp.Or(c.err, err)
		return nil, err
	}
	c.byText[text] = p
	return p, nil
}

func (c *patterns) fresh(text string) (*pattern, error) {
	if len(text) > maxPattern {
		return nil, fmt.Errorf("%d bytes long, want at most %d", len(text), maxPattern)
	}
	tree, err := syntax.Parse(text, syntax.Perl)
	if err != nil {
		return nil, err
	}
	prog, err := syntax.Compile(tree.Simplify())
	if err != nil {
		return nil, err
	}
	if c.program += len(prog.Inst); c.program > maxProgram {
		return nil, errors.New("too large: its repetitions multiply each other")
	}
	re, err := regexp.Compile(text)
	return &pattern{re, len(prog.Inst)}, err
}

// A spot is a value of an answer, as an estimate knows it.
type spot struct {
	text    string
	members map[string]*spot
	items   []*spot
	size    int // of the value, in values
}

func spotOf(v any) *spot {
	p := &spot{size: 1}
	switch v := v.(type) {
	case map[string]any:
		p.members = make(map[string]*spot, len(v))
		for name, m := range v {
			p.members[name] = spotOf(m)
			p.size += p.members[name].size
		}
	case []any:
		for _, item := range v {
			p.items = append(p.items, spotOf(item))
			p.size += p.items[len(p.items)-1].size
		}
	case string:
		p.text = v
	}
	return p
}

// An estimate reckons how many comparisons a check takes at most, without making
// them: a part of the schema and a spot are looked at once, however often they meet.
type estimate struct {
	known map[meeting]int
	depth int
}

type meeting struct {
	s *jsonschema.Schema
	p *spot
}

// of returns the comparisons of s with p, or more than maxWork if they are more.
func (e *estimate) of(s *jsonschema.Schema, p *spot) (sum int) {
	if s == nil {
		return 0
	}
	m := meeting{s, p}
	if n, ok := e.known[m]; ok {
		return n
	}
	e.known[m] = 1 // of a circle, which the validator refuses
	if e.depth++; e.depth > maxAnswerDepth*maxDepth || len(e.known) > maxWork {
		return maxWork + 1
	}
	sum = 1 + len(s.Required) + constants(s)
	add := func(n int) { sum = min(sum+n, maxWork+1) }
	add(e.inPlace(s, p))
	add(e.inObject(s, p))
	add(e.inArray(s, p))
	if re, ok := s.Pattern.(*pattern); ok {
		add(re.cost(p.text))
	}
	e.depth--
	e.known[m] = sum
	return sum
}

// constants is the number of values that s compares with as a whole.
func constants(s *jsonschema.Schema) (n int) {
	if s.Enum != nil {
		for _, v := range s.Enum.Values {
			n += spotOf(v).size
		}
	}
	if s.Const != nil {
		n += spotOf(*s.Const).size
	}
	return n
}

// inPlace is what the parts of s take that are for the same value.
func (e *estimate) inPlace(s *jsonschema.Schema, p *spot) (sum int) {
	same := []*jsonschema.Schema{s.Ref, s.RecursiveRef, s.Not, s.If, s.Then, s.Else}
	if s.DynamicRef != nil {
		same = append(same, s.DynamicRef.Ref)
	}
	for _, list := range [][]*jsonschema.Schema{same, s.AllOf, s.AnyOf, s.OneOf} {
		for _, part := range list {
			sum = min(sum+e.of(part, p), maxWork+1)
		}
	}
	for name, part := range s.DependentSchemas {
		if p.members[name] != nil {
			sum = min(sum+e.of(part, p), maxWork+1)
		}
	}
	for name, part := range s.Dependencies {
		if part, ok := part.(*jsonschema.Schema); ok && p.members[name] != nil {
			sum = min(sum+e.of(part, p), maxWork+1)
		}
	}
	return sum
}

// inObject is what the parts of s take that are for the members of an object.
func (e *estimate) inObject(s *jsonschema.Schema, p *spot) (sum int) {
	rest, _ := s.AdditionalProperties.(*jsonschema.Schema)
	add := func(n int) { sum = min(sum+n, maxWork+1) }
	for name, member := range p.members {
		named := s.Properties[name]
		add(1 + e.of(named, member) + e.of(s.PropertyNames, &spot{text: name, size: 1}))
		matched := named != nil
		for re, part := range s.PatternProperties {
			if re, ok := re.(*pattern); ok {
				add(re.cost(name))
			}
			if re.MatchString(name) {
				matched = true
				add(e.of(part, member))
			}
		}
		if !matched {
			add(e.of(rest, member) + e.of(s.UnevaluatedProperties, member))
		}
	}
	return sum
}

// inArray is what the parts of s take that are for the items of an array.
func (e *estimate) inArray(s *jsonschema.Schema, p *spot) (sum int) {
	first, rest := s.PrefixItems, s.Items2020
	switch items := s.Items.(type) {
	case *jsonschema.Schema:
		rest = items
	case []*jsonschema.Schema:
		first = items
		rest, _ = s.AdditionalItems.(*jsonschema.Schema)
	}
	add := func(n int) { sum = min(sum+n, maxWork+1) }
	if s.UniqueItems {
		add(p.size)
	}
	for i, item := range p.items {
		if i < len(first) {
			add(1 + e.of(first[i], item))
		} else {
			add(1 + e.of(rest, item) + e.of(s.UnevaluatedItems, item))
		}
		add(e.of(s.Contains, item))
	}
	return sum
}
