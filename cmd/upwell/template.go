package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"upwell/cmd/internal/dead"
	"upwell/cmd/internal/progress"
	"upwell/cmd/internal/prompt"
	"upwell/jobs"
	"upwell/throttle"
	"upwell/worker"
	"upwell/worker/mantle"
)

// templateCmd groups the verbs about templates.
type templateCmd struct {
	Check templateCheckCmd `cmd:"" help:"Say what a template makes of the first records of an input: the requests, their tokens, and what they have in common."`
}

// templateCheckCmd shows what a template makes.
type templateCheckCmd struct {
	File  string `arg:"" name:"template" placeholder:"TEMPLATE" help:"Template to check."`
	Input string `arg:"" optional:"" placeholder:"INPUT" help:"Documents or rows to fill it in with, as for submit. Without it the template alone is checked."`
	recordFlags

	First int  `short:"n" name:"first" default:"3" placeholder:"N" help:"How many records to fill the template in with."`
	Full  bool `help:"Print long texts in full."`
	JSON  bool `name:"json" help:"Print the template, the requests and the hints as one JSON object, in full."`
}

// A checkup is what is said of a template.
type checkup struct {
	Template string `json:"template"`
	SHA256   string `json:"sha256"`
	prompt.Settings

	Columns []string    `json:"columns"`           // that the body names
	Whole   bool        `json:"whole_record"`      // the body uses the record as such
	Tokens  constants   `json:"constant_tokens"`   // about
	Jobs    []candidate `json:"jobs,omitempty"`    // that were made
	Refused []string    `json:"refused,omitempty"` // why no jobs were made of records
	Mean    int         `json:"mean_input_tokens"` // of the jobs, about
	Shared  int         `json:"shared_prefix"`     // about how many tokens come first, the same in all prompts
	Hints   []string    `json:"hints,omitempty"`
	given   []string    // columns of the input, sorted
	records bool        // they come from a table
}

// constants are a template's constant parts, in tokens.
type constants struct {
	System int `json:"system"`
	Schema int `json:"schema"`
	Head   int `json:"before_first_placeholder"`
	Tail   int `json:"after_first_placeholder"`
}

// A candidate is a job that was made for looking at.
type candidate struct {
	CustomID string          `json:"custom_id"`
	Place    string          `json:"place"`
	Tokens   int             `json:"input_tokens"` // about; an image counts for nothing
	Image    bool            `json:"image,omitzero"`
	Request  json.RawMessage `json:"request"` // as it is sent
}

// Run checks the template.
func (c *templateCheckCmd) Run(ctx context.Context, e env) error {
	if c.First < 1 {
		return fail(exitUsage, fmt.Errorf("-n %d: want at least 1", c.First))
	}
	t, err := prompt.Open(c.File)
	if err != nil {
		return fail(exitUsage, err)
	}
	f := checkup{Template: c.File, SHA256: t.SHA256(), Settings: t.Settings(), Tokens: constants(t.Layout()), Shared: t.Layout().Shared()}
	f.Columns, f.Whole = t.Columns()
	if c.Input != "" {
		if err := c.fill(ctx, e, t, &f); err != nil {
			return err
		}
	}
	f.advise(t)
	if c.JSON {
		err = printJSON(e.stdout, f)
	} else {
		err = c.print(e.stdout, &f)
	}
	if err == nil && len(f.Refused) > 0 {
		err = fail(exitUsage, fmt.Errorf("no job can be made of %d of the first %d records:\n  %s", len(f.Refused), len(f.Refused)+len(f.Jobs), strings.Join(f.Refused, "\n  ")))
	}
	return err
}

// printJSON prints v on indented lines.
func printJSON(w io.Writer, v any) error {
	out := json.NewEncoder(w)
	out.SetEscapeHTML(false)
	out.SetIndent("", "  ")
	return out.Encode(v)
}

// fill makes jobs of the first records.
func (c *templateCheckCmd) fill(ctx context.Context, e env, t *prompt.Template, f *checkup) error {
	mirror, err := newMirror(ctx)
	if err != nil {
		return err
	}
	given := make(map[string]any)
	n := 0
	for r, err := range c.records(ctx, e, c.Input, t) {
		switch {
		case ctx.Err() != nil:
			return fail(exitInterrupted, errors.New("interrupted"))
		case err != nil:
			return failInput(err)
		}
		maps.Copy(given, r.Values)
		f.records = f.records || !isDocument(r)
		made, err := mirror.candidate(ctx, t, r)
		if err != nil {
			f.Refused = append(f.Refused, err.Error())
		} else {
			f.Jobs = append(f.Jobs, made)
		}
		if n++; n == c.First {
			break
		}
	}
	if n == 0 {
		return fail(exitUsage, fmt.Errorf("%s: no records in it", c.Input))
	}
	f.given = slices.Sorted(maps.Keys(given))
	total := 0
	for _, j := range f.Jobs {
		total += j.Tokens
	}
	f.Mean = total / max(1, len(f.Jobs))
	return nil
}

// isDocument reports whether r is a document, and no row.
func isDocument(r prompt.Record) bool {
	for _, name := range []string{"text", "name", "path", "type"} {
		if _, there := r.Values[name]; !there {
			return false
		}
	}
	return true
}

// advise adds the hints.
func (f *checkup) advise(t *prompt.Template) {
	if unused := t.Unused(f.given); f.records && len(unused) > 0 {
		for i, name := range unused {
			unused[i] = dead.Clean(name)
		}
		f.Hints = append(f.Hints, "no placeholder for "+strings.Join(unused, ", "))
	} else if !f.records && slices.Contains(unused, "text") && !allImages(f.Jobs) {
		f.Hints = append(f.Hints, "no placeholder for text: the prompts do not have the documents' text")
	}
	if l := t.Layout(); l.Late() {
		f.Hints = append(f.Hints, fmt.Sprintf("most constant text, %d of %d tokens, comes after the first placeholder, where no prompt cache finds it: move it to the body's beginning, or into system",
			l.Tail, l.Tail+l.Shared()))
	}
}

func allImages(jobs []candidate) bool {
	return !slices.ContainsFunc(jobs, func(j candidate) bool { return !j.Image })
}

// A mirror shows requests as they would go to the endpoint: it is the worker's own
// client, and the way out is barred.
type mirror struct {
	client *mantle.Client
	sent   *[]byte // the body of the last request
}

var errBarred = errors.New("nothing is sent")

// barred is an HTTP transport that keeps a request's body, and goes nowhere.
type barred func(body []byte)

// RoundTrip implements [http.RoundTripper].
func (b barred) RoundTrip(req *http.Request) (*http.Response, error) {
	defer req.Body.Close()
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return nil, err
	}
	b(body)
	return nil, errBarred
}

func newMirror(ctx context.Context) (*mirror, error) {
	m := &mirror{sent: new([]byte)}
	client, err := mantle.New(ctx, mantle.Config{
		BaseURL: "http://nowhere.invalid/v1", Credentials: mantle.Anonymous,
		HTTPClient: &http.Client{Transport: barred(func(body []byte) { *m.sent = body })},
	})
	m.client = client
	return m, fail(exitConfig, err)
}

// candidate makes a job of r.
func (m *mirror) candidate(ctx context.Context, t *prompt.Template, r prompt.Record) (candidate, error) {
	line, err := t.Job(r)
	if err != nil {
		return candidate{}, err
	}
	text, err := t.Prompt(r)
	if err != nil {
		return candidate{}, err
	}
	job, err := jobs.Parse(line, "check")
	if err != nil {
		return candidate{}, &prompt.RecordError{Place: r.Place, Err: err}
	}
	if _, schema := t.Schema(); len(schema) > 0 {
		job.Schema = schema // the worker finds it by its name
	}
	lane := throttle.Lane{Model: job.Model}
	if len(job.Tiers) > 0 {
		lane.Tier = job.Tiers[0]
	}
	*m.sent = nil
	_, err = m.client.Complete(ctx, worker.Call{Job: &job, Lane: lane})
	if *m.sent == nil {
		return candidate{}, &prompt.RecordError{Place: r.Place, Err: err}
	}
	l := t.Layout()
	return candidate{r.ID, r.Place, l.System + l.Schema + prompt.Tokens(text), r.Image != nil, *m.sent}, nil
}

// shownText is how many characters of a text are printed.
const shownText = 900

// print prints the checkup.
func (c *templateCheckCmd) print(out io.Writer, f *checkup) error {
	w := new(strings.Builder)
	fmt.Fprintf(w, "template %s\n", dead.Clean(f.Template))
	progress.Table(w, f.rows())
	style := dead.Style{Longest: shownText, Ends: true}
	if c.Full {
		style.Longest = 0
	}
	for _, j := range f.Jobs {
		picture := ""
		if j.Image {
			picture = " and an image"
		}
		fmt.Fprintf(w, "\njob %s of %s, about %s tokens%s:\n%s\n", dead.Clean(strconv.Quote(j.CustomID)), dead.Clean(j.Place), thousands(j.Tokens), picture, style.Print(j.Request))
	}
	if len(f.Jobs) > 0 {
		fmt.Fprintf(w, "\nshared prefix: about %s of %s tokens are the same in every prompt and come first\n", thousands(f.Shared), thousands(f.Mean))
	}
	for _, h := range f.Hints {
		fmt.Fprintln(w, "hint:", h)
	}
	_, err := io.WriteString(out, w.String())
	return err
}

// rows are the settings, as far as there are any.
func (f *checkup) rows() (rows []progress.Row) {
	add := func(name, value string) {
		if value != "" {
			rows = append(rows, progress.Row{Name: name, Value: dead.Clean(value)})
		}
	}
	add("hash", f.SHA256)
	add("model", f.Model+" by "+f.URL)
	add("effort", f.Effort)
	add("tiers", strings.Join(f.Tiers, ", then "))
	if f.MaxOutputTokens > 0 {
		add("answer", "at most "+thousands(f.MaxOutputTokens)+" tokens")
	}
	if f.Temperature != nil {
		add("temperature", strconv.FormatFloat(*f.Temperature, 'f', -1, 64))
	}
	add("key", strings.Join(f.Key, ", "))
	columns := strings.Join(f.Columns, ", ")
	if f.Whole {
		columns = strings.TrimPrefix(columns+", and the whole record", ", and ")
	}
	add("placeholders", cmp.Or(columns, "none: it is good for images alone"))
	if f.Tokens.System > 0 {
		add("system text", "about "+thousands(f.Tokens.System)+" tokens")
	}
	if f.Schema != "" {
		add("schema", fmt.Sprintf("%s, about %s tokens", f.Schema, thousands(f.Tokens.Schema)))
	}
	add("body", fmt.Sprintf("about %s constant tokens before its first placeholder, %s after it", thousands(f.Tokens.Head), thousands(f.Tokens.Tail)))
	return rows
}

// thousands writes a number with a comma before every three digits.
func thousands(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
