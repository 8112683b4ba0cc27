// Package prompt makes jobs of templates: a template is a text with a little front
// matter, and a job is what becomes of it when its placeholders are filled in.
//
//	---
//	model: xai.grok-4.3        # the only setting that there must be
//	api: responses             # or chat
//	effort: low                # none, low, medium or high
//	tiers: [flex, default]     # service tiers to try, in order
//	max_output_tokens: 2000
//	temperature: 0             # 0 to 2
//	schema: review.json        # JSON Schema of the answer; a file beside the template
//	playbook: playbook.md      # a file beside the template, added to the system text
//	system: |
//	  You review contracts.
//	images: auto               # detail at which images are looked at: auto, low or high
//	key: contract_id           # column that names the job; or several: [region, id]
//	---
//	Contract {{.name}}:
//	{{.text}}
//
// # Placeholders
//
// The body is a text/template over a [Record]: {{.name}} is the column of that name.
// Beside text/template's own functions there are col, for names that are no
// identifiers, as in {{col "Contract ID"}}, and json, which writes a value as JSON:
// {{json .}} is the whole record. A column that the record does not have is an
// error, also in index; a null is an empty text. Values are texts, but for what
// Parquet and JSON nest, which prints as JSON.
//
// # What comes first
//
// A prompt cache serves what requests have in common from their beginning on. So the
// system text and the playbook are constant, and come first, and the body follows
// from its first word. What is constant in the body ought to stand before its first
// placeholder; [Template.Layout] counts what does not.
//
// # Identity
//
// A template's jobs carry its hash, over its own text and those of its files, and
// the same record makes the same bytes. Line ends of Windows count as others do.
package prompt

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"text/template"
	"unicode/utf8"

	"upwell/jobs"
	"upwell/jobs/skim"
)

// MaxImage is the size of the largest image that is taken, in bytes, as xAI documents
// it.
const MaxImage = 20 << 20

// A Template is what the jobs of a run have in common. It never changes, and may be
// used by many goroutines.
type Template struct {
	settings

	file   string // for messages
	system string // with the playbook
	text   string // of the template and its files
	sha256 string
	schema json.RawMessage

	body    *template.Template
	columns []string // that the body names, in their order
	whole   bool     // the body uses the record as such
	layout  Layout
	fillers sync.Pool // of *filler

	before, after []byte // what stands around the input in a job's line, see frame
}

// A Record is what a template is filled in with: a row of a table, or a document.
type Record struct {
	ID     string         // the custom_id of the job that is made of it
	Place  string         // where it stands, for messages: contracts.csv:12, or in/msa.pdf
	Values map[string]any // by the names that the template uses
	Image  *Image         // to be sent along, or nil
}

// An Image is a picture that the model is to look at.
type Image struct {
	Type string // image/png or image/jpeg
	Data []byte
}

// A RecordError says that no job can be made of a record.
type RecordError struct {
	Place string // the record's
	Err   error  // what is wrong, and where in the template
}

func (e *RecordError) Error() string { return e.Place + ": " + e.Err.Error() }

// Unwrap returns what is wrong without the place.
func (e *RecordError) Unwrap() error { return e.Err }

// Job returns the job that is made of r: a line of an OpenAI batch file, without its
// end. The same record makes the same bytes. The error is a [*RecordError].
func (t *Template) Job(r Record) ([]byte, error) {
	line, err := t.job(r)
	if err != nil {
		return nil, &RecordError{r.Place, err}
	}
	return line, nil
}

func (t *Template) job(r Record) ([]byte, error) {
	if err := checkID(r.ID); err != nil {
		return nil, err
	}
	text, err := t.fill(r)
	if err != nil {
		return nil, err
	}
	if r.Image != nil {
		err = r.Image.check()
	} else if strings.TrimSpace(text) == "" {
		err = errors.New("the prompt is empty")
	}
	if err != nil {
		return nil, err
	}
	id := skim.Quote(r.ID)
	line := make([]byte, 0, len(id)+len(t.before)+len(text)+len(text)/8+base64.StdEncoding.EncodedLen(r.Image.size())+len(t.after)+256)
	line = append(append(line, `{"custom_id":`...), id...)
	line = append(line, t.before...)
	line = t.appendInput(line, text, r.Image)
	return append(line, t.after...), nil
}

// Prompt returns the body filled in with r: what the model is told beside the system
// text. The error is a [*RecordError].
func (t *Template) Prompt(r Record) (string, error) {
	text, err := t.fill(r)
	if err != nil {
		return "", &RecordError{r.Place, err}
	}
	return text, nil
}

// checkID reports what keeps id from being a custom_id. An id that is not text would
// become another one in JSON.
func checkID(id string) error {
	switch {
	case id == "":
		return errors.New("no id: every job needs a name that is unique in its run")
	case !utf8.ValidString(id):
		return fmt.Errorf("id %q is not valid UTF-8 text", id)
	case strings.ContainsRune(id, 0):
		return fmt.Errorf("id %q contains a NUL character", id)
	case len(id) > jobs.MaxCustomID:
		return fmt.Errorf("id %.40q… is %d bytes long, want at most %d", id, len(id), jobs.MaxCustomID)
	}
	return nil
}

func (i *Image) check() error {
	switch {
	case i.Type != "image/png" && i.Type != "image/jpeg":
		return fmt.Errorf("an image of type %q, want image/png or image/jpeg", i.Type)
	case len(i.Data) == 0:
		return errors.New("the image is empty")
	case len(i.Data) > MaxImage:
		return fmt.Errorf("the image has %d bytes, want at most %d MiB", len(i.Data), MaxImage>>20)
	}
	return nil
}

// size returns the number of bytes of an image, or none.
func (i *Image) size() int {
	if i == nil {
		return 0
	}
	return len(i.Data)
}

// frame makes what stands before and after the input in every line.
func (t *Template) frame() {
	b := append([]byte(`,"method":"POST","url":`), skim.Quote(t.url())...)
	b = append(append(b, `,"body":{"model":`...), skim.Quote(t.model)...)
	if t.api == apiChat {
		b = append(b, `,"messages":[`...)
		if t.system != "" {
			b = append(append(append(b, `{"role":"system","content":`...), skim.Quote(t.system)...), `},`...)
		}
		b = append(b, `{"role":"user","content":`...)
	} else {
		if t.system != "" {
			b = append(append(b, `,"instructions":`...), skim.Quote(t.system)...)
		}
		b = append(b, `,"input":`...)
	}
	t.before = b
	t.after = append(t.parameters(), '}', '}')
}

// parameters makes what follows the input: the rest of the request, and upwell's own
// object up to its end.
func (t *Template) parameters() []byte {
	effort, limit := `,"reasoning":{"effort":%s}`, `,"max_output_tokens":%d`
	var b []byte
	if t.api == apiChat {
		effort, limit = `,"reasoning_effort":%s`, `,"max_completion_tokens":%d`
		b = append(b, `}]`...)
	}
	if t.effort != "" {
		b = fmt.Appendf(b, effort, skim.Quote(t.effort))
	}
	if t.maxOutputTokens > 0 {
		b = fmt.Appendf(b, limit, t.maxOutputTokens)
	}
	if t.temperature != nil {
		b = strconv.AppendFloat(append(b, `,"temperature":`...), *t.temperature, 'f', -1, 64)
	}
	b = append(b, `},"upwell":{`...)
	if len(t.tiers) > 0 {
		list, _ := json.Marshal(t.tiers) // texts always have a JSON form
		b = append(append(append(b, `"tiers":`...), list...), ',')
	}
	if t.schemaName != "" {
		b = append(append(append(b, `"schema":`...), skim.Quote(t.schemaName)...), ',')
	}
	return fmt.Appendf(b, `"template_sha256":%s`, skim.Quote(t.sha256))
}

// appendInput appends what the user says: a text, or a text and an image, in the
// form of the API. The text comes first, as its beginning is what prompts share.
func (t *Template) appendInput(b []byte, text string, image *Image) []byte {
	if image == nil {
		return append(b, skim.Quote(text)...)
	}
	chat := t.api == apiChat
	open, kind, end := `[{"role":"user","content":[`, `{"type":"input_text","text":`, `}]}]`
	picture, detail := `{"type":"input_image","image_url":"data:`, `","detail":%s`
	if chat {
		open, kind, end = `[`, `{"type":"text","text":`, `}}]`
		picture = `{"type":"image_url","image_url":{"url":"data:`
	}
	b = append(b, open...)
	if strings.TrimSpace(text) != "" {
		b = append(append(append(b, kind...), skim.Quote(text)...), `},`...)
	}
	b = append(append(append(b, picture...), image.Type...), `;base64,`...)
	b = base64.StdEncoding.AppendEncode(b, image.Data)
	return append(fmt.Appendf(b, detail, skim.Quote(t.images)), end...)
}

// Text returns the template's whole text: its own, and behind it those of the files
// that it names, each under a line with its name and size. It is kept as a record of
// what a run was asked; it is not a template itself.
func (t *Template) Text() string { return t.text }

// SHA256 returns the SHA-256 of [Template.Text], in hexadecimal.
func (t *Template) SHA256() string { return t.sha256 }

// Schema returns the name and the text of the JSON Schema that answers must satisfy.
// Both are empty if there is none. The jobs have the name only.
func (t *Template) Schema() (name string, text json.RawMessage) { return t.schemaName, t.schema }

// Key returns the columns whose values name a row's job, or nil for the row's number.
func (t *Template) Key() []string { return slices.Clone(t.key) }

// Settings are what a template's front matter says, with the defaults for what it does
// not.
type Settings struct {
	Model  string `json:"model"`
	URL    string `json:"url"`             // of the API, as a batch line names it
	Effort string `json:"effort,omitzero"` // or empty for the model's own
	Images string `json:"images"`
	Schema string `json:"schema,omitzero"` // its name, or empty

	Tiers           []string `json:"tiers,omitempty"` // nil for the operator's
	Key             []string `json:"key,omitempty"`
	MaxOutputTokens int      `json:"max_output_tokens,omitzero"` // 0 for the operator's
	Temperature     *float64 `json:"temperature,omitempty"`      // nil for the model's own
}

// Settings returns the template's settings.
func (t *Template) Settings() Settings {
	return Settings{
		Model: t.model, URL: t.url(), Effort: t.effort, Images: t.images, Schema: t.schemaName,
		Tiers: slices.Clone(t.tiers), Key: t.Key(), MaxOutputTokens: t.maxOutputTokens, Temperature: t.temperature,
	}
}

// System returns the constant text that every request begins with: the system text,
// then the playbook.
func (t *Template) System() string { return t.system }

// Columns returns the columns that the body names, in the order in which it does.
// whole says that it also uses the record as such, and so every column.
func (t *Template) Columns() (names []string, whole bool) { return slices.Clone(t.columns), t.whole }

// Unused returns those of names that the body does not use, in their order.
func (t *Template) Unused(names []string) []string {
	var unused []string
	for _, n := range names {
		if !t.whole && !slices.Contains(t.columns, n) && !slices.Contains(t.key, n) {
			unused = append(unused, n)
		}
	}
	return unused
}
