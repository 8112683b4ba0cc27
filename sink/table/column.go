package table

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// A Column says what a table has of each line.
type Column struct {
	Name string
	Type Type

	at     path   // in the stored line
	from   string // the same in [Catalog.Choose]'s words, if that is not the name
	way    way
	answer bool // is of an answer, so null in the row of a job that has none
	few    bool // has few different values
}

// required reports whether the column is never null.
func (c Column) required() bool { return c.way == status || c.at.String() == "custom_id" }

// source returns where the column's values are, in [Catalog.Choose]'s words.
func (c Column) source() string {
	if c.from == "" {
		return c.Name
	}
	return c.from
}

// A way is how a column's value is got from what is at its path.
type way int

const (
	plain  way = iota
	blank      // what is empty, or the zero time, is not known: null
	count      // the number of an array's items
	status     // whether there is an answer; the path does not matter
)

// of returns a column of package jobs' Record.
func of(name string, kind Kind, w way) Column {
	return Column{Name: name, Type: Type{Kind: kind}, at: path{member("upwell"), member(name)}, way: w}
}

func at(c Column, names ...string) Column {
	c.at = nil
	for _, n := range names {
		c.at = append(c.at, member(n))
	}
	return c
}

// rarely marks a column as having few different values.
func rarely(c Column) Column {
	c.few = true
	return c
}

// first are the columns before those of the answer, and last are those after it.
var (
	first = []Column{
		at(of("custom_id", String, plain), "custom_id"),
		rarely(of("status", String, status)),
	}
	last = []Column{
		rarely(of("model", String, blank)),
		rarely(of("tier", String, blank)),
		rarely(of("region", String, blank)),
		at(of("input_tokens", Int64, plain), "upwell", "usage", "input_tokens"),
		at(of("cached_tokens", Int64, plain), "upwell", "usage", "cached_tokens"),
		at(of("output_tokens", Int64, plain), "upwell", "usage", "output_tokens"),
		at(of("reasoning_tokens", Int64, plain), "upwell", "usage", "reasoning_tokens"),
		of("cost_usd", Double, plain),
		of("repairs", Int64, plain),
		of("attempts", Int64, count),
		at(of("request_id", String, blank), "response", "request_id"),
		of("input_sha256", String, blank),
		of("finished", Timestamp, blank),
		rarely(of("run", String, blank)),
		rarely(at(of("error_code", String, plain), "error", "code")),
		at(of("error_message", String, plain), "error", "message"),
	}
)

// answers are the columns of an answer as a whole.
var answers = []Column{
	{Name: "output_text", Type: Type{Kind: String}, at: path{member("upwell"), member("output_text")}, answer: true},
	{Name: "output", Type: Type{Kind: JSON}, at: path{member("upwell"), member("output")}, answer: true},
}

// more are columns that a table has only when asked to.
var more = []Column{
	at(of("id", String, plain), "id"),
	at(of("response", JSON, plain), "response"),
	at(of("calls", JSON, plain), "upwell", "attempts"),
	of("extra_usage", JSON, plain),
	of("extra_cost_usd", Double, plain),
	of("extensions", Int64, plain),
	of("price", JSON, plain),
	rarely(of("schema_sha256", String, blank)),
	rarely(of("template_sha256", String, blank)),
	rarely(of("version", String, blank)),
	of("first_failed", Timestamp, blank),
}

// roots are the columns that a path may go on from.
var roots = []string{"output", "response", "calls", "extra_usage", "price"}

// A Catalog knows the columns that there are.
type Catalog struct {
	schema  *node    // of the answers, if there is one for all
	columns []Column // the default ones
	others  []Column // the rest
}

// NewCatalog returns the catalog of a run whose jobs name these schemas. Its names
// differ from each other and from those taken, whatever their case.
//
// If there is one schema, the default columns of the answer are its fields. If
// there is none, or there are several, they are output_text and output. Of a schema
// with too many fields for a table, the error says so, and the catalog can be used
// for [Catalog.Choose] all the same.
func NewCatalog(schemas map[string]json.RawMessage, taken ...string) (c *Catalog, err error) {
	c = &Catalog{others: more}
	middle := answers
	if len(schemas) == 1 {
		for _, text := range schemas {
			c.schema = new(schemaOf(text))
		}
		middle, err = c.fields(taken)
		c.others = slices.Concat(answers, more)
	}
	c.columns = slices.Concat(first, middle, last)
	return c, err
}

// fields returns the columns of the schema's fields.
func (c *Catalog) fields(taken []string) ([]Column, error) {
	fields, err := c.schema.fields(nil)
	if err != nil {
		return nil, err
	}
	used := make(map[string]bool)
	for _, name := range slices.Concat(taken, names(slices.Concat(first, last, answers, more))) {
		used[strings.ToLower(name)] = true
	}
	columns := make([]Column, len(fields))
	for i, f := range fields {
		columns[i] = ofAnswer(f)
		columns[i].Name = unused(columns[i].Name, used)
	}
	return columns, nil
}

// ofAnswer returns the column of a field of the answer.
func ofAnswer(f field) Column {
	name := f.at.flat()
	if len(f.at) == 0 {
		name = "value" // the answer is a list, or a single value
	}
	full := append(path{member("output")}, f.at...)
	return Column{Name: name, Type: f.typ, at: append(path{member("upwell")}, full...), from: full.String(), answer: true, few: f.few}
}

// unused returns the name, or one made of it if it is used, and enters what it
// returns.
func unused(name string, used map[string]bool) string {
	name = strings.ReplaceAll(name, ",", "_") // which the list of --columns could not name
	if name == "" {
		name = "_"
	}
	try := name
	if used[strings.ToLower(try)] {
		name = "output_" + name
		try = name
	}
	for n := 2; used[strings.ToLower(try)]; n++ {
		try = name + "_" + strconv.Itoa(n)
	}
	used[strings.ToLower(try)] = true
	return try
}

func names(columns []Column) []string {
	list := make([]string, len(columns))
	for i, c := range columns {
		list[i] = c.Name
	}
	return list
}

// Names lists the columns that there are: the default ones, and those that a table
// has only when asked to.
func (c *Catalog) Names() (columns, others []string) {
	return names(c.columns), names(c.others)
}

// Default returns the default columns, without some.
func (c *Catalog) Default(without ...string) []Column {
	return slices.DeleteFunc(slices.Clone(c.columns), func(col Column) bool { return slices.Contains(without, col.Name) })
}

// Choose returns the columns that the specs ask for, each of the form
//
//	NAME=PATH:TYPE
//
// PATH is the name of a column, or a path such as output.parties[0].name. NAME is
// what the column is called in the table; by default it is made of the path. TYPE is
// by default what the schema says, or string where it says nothing.
func (c *Catalog) Choose(specs []string) ([]Column, error) {
	var chosen []Column
	used := make(map[string]bool)
	for _, spec := range specs {
		col, err := c.choose(strings.TrimSpace(spec))
		if err != nil {
			return nil, fmt.Errorf("column %q: %w", spec, err)
		}
		if used[strings.ToLower(col.Name)] {
			return nil, fmt.Errorf("column %q: there are two of the name %s: call one of them otherwise, as in other=%s", spec, col.Name, col.source())
		}
		used[strings.ToLower(col.Name)] = true
		chosen = append(chosen, col)
	}
	return chosen, nil
}

func (c *Catalog) choose(spec string) (Column, error) {
	name, rest := "", spec
	if i := strings.IndexAny(spec, `=["`); i >= 0 && spec[i] == '=' {
		if name, rest = spec[:i], spec[i+1:]; name == "" {
			return Column{}, fmt.Errorf("want a name before the =")
		}
	}
	col, rest, err := c.find(rest)
	if err != nil {
		return Column{}, err
	}
	if name != "" {
		col.Name = name
	}
	if rest == "" {
		return col, nil
	}
	text, ok := strings.CutPrefix(rest, ":")
	if !ok {
		return Column{}, fmt.Errorf("want nothing or :TYPE at %q", rest)
	}
	typ, err := ParseType(text)
	if err == nil && col.way != plain && col.way != blank && typ != col.Type && typ != (Type{Kind: String}) {
		err = fmt.Errorf("%s is a %s, and can only be a string otherwise", col.from, col.Type)
	}
	col.Type = typ
	return col, err
}

// find returns the column that s begins with, and what follows it.
func (c *Catalog) find(s string) (Column, string, error) {
	for _, col := range slices.Concat(c.columns, c.others) {
		if rest, ok := strings.CutPrefix(s, col.Name); ok && (rest == "" || rest[0] == ':') {
			col.from = col.source()
			return col, rest, nil
		}
	}
	p, rest, err := parsePath(s)
	if err != nil {
		return Column{}, "", err
	}
	if len(p) < 2 || p[0].index >= 0 || !slices.Contains(roots, p[0].name) {
		return Column{}, "", c.unknown(p)
	}
	col, err := c.beneath(p)
	return col, rest, err
}

// beneath returns the column of what is at a path beneath a root.
func (c *Catalog) beneath(p path) (Column, error) {
	if p[0].name != "output" {
		all := slices.Concat(c.columns, c.others)
		root := all[slices.IndexFunc(all, func(col Column) bool { return col.Name == p[0].name })]
		return Column{Name: p.flat(), at: slices.Concat(root.at, p[1:]), from: p.String()}, nil
	}
	f := field{at: p[1:]}
	if c.schema != nil {
		var err error
		if f, err = c.schema.find(p[:1], p[1:]); err != nil {
			return Column{}, err
		}
		f.at = f.at[1:]
	}
	return ofAnswer(f), nil
}

func (c *Catalog) unknown(p path) error {
	columns, others := c.Names()
	return fmt.Errorf("there is no %s: there is %s; when asked for, %s; and paths beneath %s, such as output.parties[0].name",
		p, strings.Join(columns, ", "), strings.Join(others, ", "), strings.Join(roots, ", "))
}
