package prompt

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/template"
	"text/template/parse"
	"unicode/utf8"
)

// bodyName is what text/template calls the body.
const bodyName = "body"

// parseBody reads the body, which begins on the file's given line.
func (t *Template) parseBody(text string, line int) error {
	for strings.HasPrefix(text, "\n") {
		text = text[1:]
		line++
	}
	// The comment makes text/template count lines as the user does.
	text = "{{/*" + strings.Repeat("\n", line-1) + "*/}}" + strings.TrimRight(text, "\n")
	body, err := template.New(bodyName).Option("missingkey=error").Funcs(functions(new(object))).Parse(text)
	if err != nil {
		return t.worded(err, nil)
	}
	t.body = body
	s := survey{body: body, seen: map[string]bool{}}
	s.list(body.Root, true)
	if s.reserved != "" {
		return fmt.Errorf(`%s: {{.%s}} means something to the template engine: for a column of that name write {{col %q}}`, t.file, s.reserved, s.reserved)
	}
	t.columns, t.whole = s.columns, s.whole
	return nil
}

// functions are what a body may call beside text/template's own. record is what col
// looks into.
func functions(record *object) template.FuncMap {
	return template.FuncMap{
		"col": func(name string) (any, error) { return record.member(name) },
		// text/template's own index answers a missing key with nothing.
		"index": index,
		"json":  func(v any) (string, error) { return encode(v) },
	}
}

// A filler fills the body in, for one record at a time.
type filler struct {
	body   *template.Template
	record object // col looks here
	out    bytes.Buffer
}

// filler returns one that nobody uses.
func (t *Template) filler() (*filler, error) {
	if f, ok := t.fillers.Get().(*filler); ok {
		return f, nil
	}
	body, err := t.body.Clone()
	if err != nil {
		return nil, err
	}
	f := &filler{body: body}
	body.Funcs(functions(&f.record))
	return f, nil
}

// keptBuffer is the largest buffer that is kept for the next record, in bytes.
const keptBuffer = 1 << 20

// fill returns the body filled in with r.
func (t *Template) fill(r Record) (string, error) {
	if len(t.columns) == 0 && !t.whole && r.Image == nil {
		return "", fmt.Errorf("%s: no placeholder in the body, so that every job would be the same: name a column of the input, such as {{.text}}; there are %s",
			t.file, columnsOf(r.Values))
	}
	f, err := t.filler()
	if err != nil {
		return "", err
	}
	f.out.Reset()
	f.record = objectOf(r.Values)
	if err := f.body.Execute(&f.out, f.record); err != nil {
		return "", t.worded(err, f.record)
	}
	if !utf8.Valid(f.out.Bytes()) {
		return "", invalidText(f.record)
	}
	text := f.out.String()
	f.record = nil
	if f.out.Cap() <= keptBuffer {
		t.fillers.Put(f)
	}
	return text, nil
}

// invalidText says which column is not text.
func invalidText(record object) error {
	for _, name := range record.names() {
		if s, ok := record[name].(string); ok && !utf8.ValidString(s) {
			return fmt.Errorf("column %s is not valid UTF-8 text: save the input as UTF-8", shown(name))
		}
	}
	return errors.New("a value is not valid UTF-8 text: save the input as UTF-8")
}

var (
	engineError = regexp.MustCompile(`(?s)^template: ` + bodyName + `:(\d+)(?::\d+)?: (?:executing ".*?" )?(?:at <(.*?)>: )?(.*)$`)
	noEntry     = regexp.MustCompile(`^map has no entry for key (".*")$`)
)

// worded returns an error of text/template's with the template's file and line, and
// with the columns of the record if one is missing.
func (t *Template) worded(err error, record object) error {
	m := engineError.FindStringSubmatch(err.Error())
	if m == nil {
		return fmt.Errorf("%s: %w", t.file, err)
	}
	place, at, reason := t.file+":"+m[1], m[2], m[3]
	missing, isMissing := errors.AsType[*missingError](err)
	if e := noEntry.FindStringSubmatch(reason); e != nil {
		if key, err := strconv.Unquote(e[1]); err == nil {
			missing, isMissing = &missingError{key, at == "."+key || at == "$."+key}, true
		}
	}
	if at != "" {
		place += ": {{" + at + "}}"
	}
	if !isMissing {
		return fmt.Errorf("%s: %s", place, advised(reason))
	}
	_, there := record[missing.key]
	if there || !missing.column && !strings.HasPrefix(at, "index . ") && !strings.HasPrefix(at, "index $ ") {
		return fmt.Errorf("%s: there is no %s in it", place, shown(missing.key))
	}
	return fmt.Errorf("%s: there is no column %s, want one of %s", place, shown(missing.key), columnsOf(record))
}

var unknownFunction = regexp.MustCompile(`^function "(.*)" not defined$`)

// advised returns why a body is none, and what to write if it may be a column's name
// that was meant.
func advised(reason string) string {
	if m := unknownFunction.FindStringSubmatch(reason); m != nil {
		return fmt.Sprintf(`there is no function %s: a column is written {{.%s}}, or {{col "Its Name"}} if its name has blanks or such in it`, m[1], m[1])
	}
	if strings.HasPrefix(reason, "bad character ") {
		reason += `: a column whose name is not letters and digits is written {{col "its-name"}}`
	}
	return strings.ReplaceAll(reason, bodyName+":", "line ")
}

// mostNamed is how many columns a message names.
const mostNamed = 30

// columnsOf lists the columns of a record.
func columnsOf[M ~map[string]any](record M) string {
	all := object(record).names()
	rest := len(all) - mostNamed
	var shorn []string
	for _, n := range all[:min(len(all), mostNamed)] {
		shorn = append(shorn, shown(n))
	}
	switch {
	case len(all) == 0:
		return "none at all"
	case rest > 0:
		return fmt.Sprintf("%s and %d more", strings.Join(shorn, ", "), rest)
	}
	return strings.Join(shorn, ", ")
}

// A survey finds out what a body names.
type survey struct {
	body     *template.Template
	seen     map[string]bool // templates that were looked into
	columns  []string
	whole    bool
	reserved string // a name that would call a method
}

// list surveys nodes in order. root says whether dot is the record there.
func (s *survey) list(l *parse.ListNode, root bool) {
	if l == nil {
		return
	}
	for _, n := range l.Nodes {
		s.node(n, root)
	}
}

func (s *survey) node(n parse.Node, root bool) {
	switch n := n.(type) {
	case *parse.ListNode:
		s.list(n, root)
	case *parse.ActionNode:
		s.pipe(n.Pipe, root)
	case *parse.IfNode:
		s.branch(&n.BranchNode, root, root)
	case *parse.WithNode:
		s.branch(&n.BranchNode, root, false)
	case *parse.RangeNode:
		s.branch(&n.BranchNode, root, false)
	case *parse.TemplateNode:
		s.template(n, root)
	}
}

func (s *survey) branch(b *parse.BranchNode, root, within bool) {
	s.pipe(b.Pipe, root)
	s.list(b.List, within)
	s.list(b.ElseList, root)
}

// template surveys a template that is called by name. It is taken to be called with
// the record if it is anywhere.
func (s *survey) template(n *parse.TemplateNode, root bool) {
	passed := false
	if n.Pipe != nil && len(n.Pipe.Cmds) == 1 && len(n.Pipe.Cmds[0].Args) == 1 {
		passed = isRecord(n.Pipe.Cmds[0].Args[0], root)
	}
	if !passed {
		s.pipe(n.Pipe, root)
	}
	called := s.body.Lookup(n.Name)
	if called == nil || s.seen[n.Name] && !passed {
		return
	}
	if key := n.Name + "\x00record"; passed && s.seen[key] {
		return
	} else if passed {
		s.seen[key] = true
	}
	s.seen[n.Name] = true
	s.list(called.Root, passed)
}

func (s *survey) pipe(p *parse.PipeNode, root bool) {
	if p == nil {
		return
	}
	for _, c := range p.Cmds {
		s.command(c.Args, root)
	}
}

// command surveys a function and its arguments, or a value alone.
func (s *survey) command(args []parse.Node, root bool) {
	f, ok := args[0].(*parse.IdentifierNode)
	if ok && f.Ident == "col" && len(args) == 2 {
		s.name(args[1])
		return
	}
	if ok && f.Ident == "index" && len(args) > 2 && isRecord(args[1], root) {
		s.name(args[2])
		args = args[3:]
	}
	for _, a := range args {
		s.argument(a, root)
	}
}

// name notes the column that an argument names. If it does so in a way that is only
// known later, it may be any.
func (s *survey) name(n parse.Node) {
	if text, ok := n.(*parse.StringNode); ok {
		s.add(text.Text)
		return
	}
	s.whole = true
}

func (s *survey) argument(n parse.Node, root bool) {
	switch n := n.(type) {
	case *parse.DotNode:
		s.whole = s.whole || root
	case *parse.VariableNode:
		if n.Ident[0] == "$" {
			s.whole = s.whole || len(n.Ident) == 1
			s.fields(n.Ident[1:], true)
			return
		}
		s.fields(n.Ident[1:], false)
	case *parse.FieldNode:
		s.fields(n.Ident, root)
	case *parse.ChainNode:
		s.argument(n.Node, root)
		s.fields(n.Field, false)
	case *parse.PipeNode:
		s.pipe(n, root)
	}
}

// fields notes the first of idents if they are the record's.
func (s *survey) fields(idents []string, root bool) {
	for _, name := range idents {
		if slices.Contains(methods, name) {
			s.reserved = name
		}
	}
	if root && len(idents) > 0 {
		s.add(idents[0])
	}
}

func (s *survey) add(column string) {
	if !slices.Contains(s.columns, column) {
		s.columns = append(s.columns, column)
	}
}

// isRecord reports whether n is the record as such.
func isRecord(n parse.Node, root bool) bool {
	switch n := n.(type) {
	case *parse.DotNode:
		return root
	case *parse.VariableNode:
		return len(n.Ident) == 1 && n.Ident[0] == "$"
	}
	return false
}
