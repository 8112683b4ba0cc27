package prompt

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"upwell/jobs"
	"upwell/worker/mantle"
)

// maxFile bounds a template, and each file that it names, in bytes: four times what
// fills a context of a million tokens would be no template.
const maxFile = 16 << 20

// The APIs, as the front matter names them.
const (
	apiResponses = "responses"
	apiChat      = "chat"
)

// settings are what the front matter says.
type settings struct {
	model, api, effort, images string

	tiers, key      []string
	maxOutputTokens int      // 0 for none
	temperature     *float64 // nil for none

	schemaName       string // the file's, without its extension
	systemText       string
	schemaFile, book string // paths, by the front matter's word
}

func (s *settings) url() string {
	if s.api == apiChat {
		return jobs.ChatCompletions
	}
	return jobs.Responses
}

// Open reads the template at path. The files that it names must lie beside or beneath
// it; a symbolic link does not lead elsewhere. An error names file, line and field.
func Open(path string) (*Template, error) {
	text, err := readFile(os.DirFS(filepath.Dir(path)), filepath.Base(path))
	if pathErr, ok := errors.AsType[*fs.PathError](err); ok {
		err = pathErr.Err
	}
	if err != nil {
		return nil, fmt.Errorf("template %s: %w", path, err)
	}
	root, err := os.OpenRoot(filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("template %s: %w", path, err)
	}
	defer root.Close()
	return Parse(path, text, root.FS())
}

// Files returns the paths of the template and of the files that it names.
func (t *Template) Files() []string {
	paths := []string{t.file}
	for _, name := range []string{t.schemaFile, t.book} {
		if name != "" {
			paths = append(paths, filepath.Join(filepath.Dir(t.file), filepath.FromSlash(name)))
		}
	}
	return paths
}

// Parse reads a template's text. name is what messages call it, and files holds the
// files that it may name. An error names file, line and field, and there may be
// several in it.
func Parse(name string, text []byte, files fs.FS) (*Template, error) {
	t := &Template{file: name}
	if !utf8.Valid(text) {
		return nil, fmt.Errorf("%s:%d: not valid UTF-8 text: save the template as UTF-8", name, lineOfInvalid(text))
	}
	whole := plain(text)
	front, body, err := split(whole)
	if err != nil {
		return nil, fmt.Errorf("%s:%w", name, err)
	}
	p := parser{file: name, files: files, into: &t.settings}
	p.read(front)
	schema, book := p.include(t)
	if len(p.wrong) > 0 {
		return nil, errors.Join(p.wrong...)
	}
	if err := t.parseBody(body, strings.Count(front, "\n")+3); err != nil {
		return nil, err
	}
	t.text = whole + section(t.schemaFile, schema) + section(t.book, book)
	sum := sha256.Sum256([]byte(t.text))
	t.sha256 = hex.EncodeToString(sum[:])
	t.layout = layoutOf(t)
	t.frame()
	return t, nil
}

// section is a file's part in a template's whole text.
func section(name, text string) string {
	if name == "" {
		return ""
	}
	return fmt.Sprintf("\n--- %s (%d bytes)\n%s", name, len(text), text)
}

// plain returns text without a byte order mark, and with line ends as they are
// everywhere but on Windows.
func plain(text []byte) string {
	s := strings.TrimPrefix(string(text), "\ufeff")
	return strings.ReplaceAll(s, "\r\n", "\n")
}

// lineOfInvalid returns the line of the first byte that is not UTF-8.
func lineOfInvalid(text []byte) int {
	line := 1
	for len(text) > 0 {
		r, n := utf8.DecodeRune(text)
		if r == utf8.RuneError && n == 1 {
			break
		}
		if r == '\n' {
			line++
		}
		text = text[n:]
	}
	return line
}

// fence is the line before and after the front matter.
const fence = "---"

// split cuts a template into its front matter, with the line before it, and its body.
// The error begins with a line's number.
func split(text string) (front, body string, err error) {
	first, _, _ := strings.Cut(text, "\n")
	if strings.TrimRight(first, " \t") != fence {
		return "", "", fmt.Errorf("1: %.40q, want a line %q: a template's settings stand between two of them, and its body behind", first, fence)
	}
	at := len(first) + 1
	for at < len(text) {
		line, _, found := strings.Cut(text[at:], "\n")
		if strings.TrimRight(line, " \t") == fence {
			if found {
				body = text[at+len(line)+1:]
			}
			return strings.TrimSuffix(text[:at], "\n"), body, nil
		}
		at += len(line) + 1
	}
	return "", "", fmt.Errorf("1: no second line %q: it ends the settings", fence)
}

// A parser reads front matter. It goes on after an error, so that all are told.
type parser struct {
	file  string
	files fs.FS
	into  *settings
	lines map[string]int // of the fields
	wrong []error
}

// A field is a setting of the front matter.
type field struct {
	name string
	read func(*parser, *yaml.Node) error
}

// fields are the settings there are.
func fields() []field {
	return []field{
		{"model", func(p *parser, n *yaml.Node) error {
			return readText(n, &p.into.model, "the name of a model, such as xai.grok-4.3")
		}},
		{"api", func(p *parser, n *yaml.Node) error { return readWord(n, &p.into.api, apiResponses, apiChat) }},
		{"effort", func(p *parser, n *yaml.Node) error {
			return readWord(n, &p.into.effort, "none", "low", "medium", "high")
		}},
		{"tiers", func(p *parser, n *yaml.Node) error { return readTiers(n, &p.into.tiers) }},
		{"max_output_tokens", func(p *parser, n *yaml.Node) error { return readCount(n, &p.into.maxOutputTokens) }},
		{"temperature", func(p *parser, n *yaml.Node) error { return readTemperature(n, &p.into.temperature) }},
		{"schema", func(p *parser, n *yaml.Node) error { return readPath(n, &p.into.schemaFile) }},
		{"playbook", func(p *parser, n *yaml.Node) error { return readPath(n, &p.into.book) }},
		{"system", func(p *parser, n *yaml.Node) error { return readSystem(n, &p.into.systemText) }},
		{"images", func(p *parser, n *yaml.Node) error { return readWord(n, &p.into.images, "auto", "low", "high") }},
		{"key", func(p *parser, n *yaml.Node) error {
			return readList(n, &p.into.key, "the name of a column, or a list of them")
		}},
	}
}

// bad adds an error.
func (p *parser) bad(line int, field string, err error) {
	if field != "" {
		err = fmt.Errorf("%s: %w", field, err)
	}
	p.wrong = append(p.wrong, fmt.Errorf("%s:%d: %w", p.file, line, err))
}

// read reads the front matter. It begins with the template's first line, which to
// YAML is the beginning of a document, so that YAML counts lines as the user does.
func (p *parser) read(front string) {
	p.into.api, p.into.images = apiResponses, "auto"
	p.lines = map[string]int{}
	d := yaml.NewDecoder(strings.NewReader(front))
	var doc yaml.Node
	if err := d.Decode(&doc); err != nil {
		p.syntax(err)
		return
	}
	if err := d.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		p.bad(1, "", errors.New(`the settings end before the second line "---": leave out the line "..."`))
	}
	if len(doc.Content) != 1 || doc.Content[0].Kind != yaml.MappingNode {
		p.bad(1, "", errors.New("want settings, one on a line, such as model: xai.grok-4.3"))
		return
	}
	p.members(doc.Content[0].Content)
	if _, there := p.lines["model"]; !there {
		p.bad(1, "model", errors.New("missing: name the model, such as xai.grok-4.3"))
	}
}

// members reads keys and values, which alternate.
func (p *parser) members(nodes []*yaml.Node) {
	known := fields()
	for i := 0; i+1 < len(nodes); i += 2 {
		key, value := nodes[i], nodes[i+1]
		at := slices.IndexFunc(known, func(f field) bool { return f.name == key.Value })
		first, twice := p.lines[key.Value]
		switch {
		case at < 0:
			p.bad(key.Line, shown(key.Value), fmt.Errorf("unknown setting, want %s", either(names(known)...)))
			continue
		case twice:
			p.bad(key.Line, key.Value, fmt.Errorf("it is on line %d already", first))
			continue
		}
		p.lines[key.Value] = key.Line
		if err := known[at].read(p, value); err != nil {
			p.bad(value.Line, key.Value, err)
		}
	}
}

func names(all []field) []string {
	list := make([]string, len(all))
	for i, f := range all {
		list[i] = f.name
	}
	return list
}

var yamlError = regexp.MustCompile(`^yaml: (?:line (\d+): )?`)

// syntax adds an error of YAML's.
func (p *parser) syntax(err error) {
	line := 1
	if m := yamlError.FindStringSubmatch(err.Error()); m != nil && m[1] != "" {
		line, _ = strconv.Atoi(m[1]) // digits, and few
	}
	p.bad(line, "", fmt.Errorf("the settings are not YAML: %s", yamlError.ReplaceAllString(err.Error(), "")))
}

// either returns words as the end of "want".
func either(words ...string) string {
	last := len(words) - 1
	if last == 0 {
		return words[0]
	}
	return strings.Join(words[:last], ", ") + " or " + words[last]
}

// shown returns a name as messages have it.
func shown(name string) string {
	if identifier.MatchString(name) && len(name) <= 60 {
		return name
	}
	return fmt.Sprintf("%.60q", name)
}

var identifier = regexp.MustCompile(`^[\pL_][\pL\pN_./-]*$`)

var numeral = regexp.MustCompile(`^[\w.+-]+$`)

// kind says what a value is.
func kind(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "settings of its own"
	case yaml.SequenceNode:
		return "a list"
	case yaml.AliasNode:
		return "a reference"
	default:
	}
	switch n.Tag {
	case "!!null":
		return "nothing"
	case "!!bool":
		return "a truth value"
	case "!!int", "!!float":
		if numeral.MatchString(n.Value) {
			return fmt.Sprintf("the number %.40s", n.Value)
		}
		return fmt.Sprintf("the number %.40q", n.Value)
	case "!!str":
		return fmt.Sprintf("%.40q", n.Value)
	default:
		return fmt.Sprintf("a value of type %.40q", n.Tag)
	}
}

func unwanted(n *yaml.Node, want string) error {
	if n.Tag == "!!null" && n.Kind == yaml.ScalarNode {
		return fmt.Errorf("nothing there: want %s, or no such line", want)
	}
	return fmt.Errorf("%s, want %s", kind(n), want)
}

// readText reads a text that is not empty.
func readText(n *yaml.Node, into *string, want string) error {
	if n.Kind != yaml.ScalarNode || n.Tag != "!!str" || strings.TrimSpace(n.Value) == "" {
		return unwanted(n, want)
	}
	*into = n.Value
	return nil
}

func readWord(n *yaml.Node, into *string, words ...string) error {
	if n.Kind != yaml.ScalarNode || !slices.Contains(words, n.Value) {
		return unwanted(n, either(words...))
	}
	*into = n.Value
	return nil
}

// readList reads texts, or one.
func readList(n *yaml.Node, into *[]string, want string) error {
	items := []*yaml.Node{n}
	if n.Kind == yaml.SequenceNode {
		items = n.Content
	}
	if len(items) == 0 {
		return fmt.Errorf("an empty list, want %s", want)
	}
	for _, item := range items {
		var s string
		if item.Kind == yaml.ScalarNode && (item.Tag == "!!int" || item.Tag == "!!float") {
			s = item.Value // the name of a column may be a year
		} else if err := readText(item, &s, want); err != nil {
			return err
		}
		if slices.Contains(*into, s) {
			return fmt.Errorf("%s is there twice", shown(s))
		}
		*into = append(*into, s)
	}
	return nil
}

func readTiers(n *yaml.Node, into *[]string) error {
	want := "a list of " + either(jobs.ServiceTiers...)
	if err := readList(n, into, want); err != nil {
		return err
	}
	for _, t := range *into {
		if !slices.Contains(jobs.ServiceTiers, t) {
			return fmt.Errorf("%.40q, want %s", t, want)
		}
	}
	return nil
}

// mostTokens is what a job's output_ceiling ends at as well.
const mostTokens = 1 << 24

func readCount(n *yaml.Node, into *int) error {
	var v int64
	if n.Kind != yaml.ScalarNode || n.Tag != "!!int" || n.Decode(&v) != nil || v < 1 || v > mostTokens {
		return unwanted(n, fmt.Sprintf("a whole number from 1 to %d", mostTokens))
	}
	*into = int(v)
	return nil
}

func readTemperature(n *yaml.Node, into **float64) error {
	var v float64
	number := n.Kind == yaml.ScalarNode && (n.Tag == "!!int" || n.Tag == "!!float")
	if !number || n.Decode(&v) != nil || !(v >= 0 && v <= 2) {
		return unwanted(n, "a number from 0 to 2")
	}
	*into = new(max(v, 0)) // minus zero is zero
	return nil
}

// readPath reads the path of a file beside or beneath the template.
func readPath(n *yaml.Node, into *string) error {
	const want = "the name of a file beside the template"
	var name string // into stays empty if it is refused: nobody is to look for it
	if err := readText(n, &name, want); err != nil {
		return err
	}
	switch {
	case path.IsAbs(name), filepath.IsAbs(name), filepath.VolumeName(name) != "":
		return fmt.Errorf("%q leads elsewhere: want %s, or a path beneath its folder", name, want)
	case slices.Contains(strings.Split(strings.ReplaceAll(name, `\`, "/"), "/"), ".."):
		return fmt.Errorf("%q leads out of the template's folder: want %s, or a path beneath its folder", name, want)
	}
	*into = path.Clean(name)
	return nil
}

func readSystem(n *yaml.Node, into *string) error {
	if err := readText(n, into, "text, as system: | and indented lines"); err != nil {
		return err
	}
	*into = strings.TrimRight(*into, "\n")
	return constant(*into)
}

// constant reports a placeholder in text that is the same in every request.
func constant(text string) error {
	before, _, found := strings.Cut(text, "{{")
	if !found {
		return nil
	}
	return fmt.Errorf("a placeholder in its line %d: this text is the same in every request, so that the endpoint's prompt cache can serve it: put what varies into the body",
		1+strings.Count(before, "\n"))
}

// include reads the files that the front matter names.
func (p *parser) include(t *Template) (schema, book string) {
	if schema = p.load("schema", t.schemaFile); schema != "" {
		t.schema = []byte(schema)
		base := path.Base(t.schemaFile)
		t.schemaName = cmp.Or(strings.TrimSuffix(base, path.Ext(base)), base)
		if err := mantle.CheckSchema(t.schema); err != nil {
			p.bad(p.lines["schema"], "schema", fmt.Errorf("%s: %w", shown(t.schemaFile), err))
		}
	}
	if book = p.load("playbook", t.book); book != "" {
		if err := constant(book); err != nil {
			p.bad(p.lines["playbook"], "playbook", fmt.Errorf("%s: %w", shown(t.book), err))
		}
	}
	t.system = strings.TrimLeft(t.systemText+"\n\n"+strings.TrimSpace(book), "\n")
	t.system = strings.TrimRight(t.system, "\n")
	return schema, book
}

// load returns the text of the file that the field names, or "" if it names none or
// there is something wrong with it.
func (p *parser) load(field, name string) string {
	if name == "" {
		return ""
	}
	data, err := readFile(p.files, name)
	if pathErr, ok := errors.AsType[*fs.PathError](err); ok {
		err = pathErr.Err // the path in it is the root's
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = fmt.Errorf("%s: there is no such file beside the template", shown(name))
	case err != nil:
		err = fmt.Errorf("%s: %w", shown(name), err)
	case !utf8.Valid(data):
		err = fmt.Errorf("%s: not valid UTF-8 text on line %d", shown(name), lineOfInvalid(data))
	case len(bytes.TrimSpace(data)) == 0:
		err = fmt.Errorf("%s: empty", shown(name))
	}
	if err != nil {
		p.bad(p.lines[field], field, err)
		return ""
	}
	return plain(data)
}

func readFile(files fs.FS, name string) ([]byte, error) {
	f, err := files.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("larger than %d MiB", maxFile>>20)
	}
	return data, err
}
