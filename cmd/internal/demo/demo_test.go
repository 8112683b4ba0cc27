package demo_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"upwell/cmd/internal/demo"
)

// request is what the tests read back of a line.
type request struct {
	CustomID string `json:"custom_id"`
	Method   string `json:"method"`
	URL      string `json:"url"`
	Body     struct {
		Model           string `json:"model"`
		Instructions    string `json:"instructions"`
		Input           string `json:"input"`
		MaxOutputTokens int    `json:"max_output_tokens"`
		Text            struct {
			Format struct {
				Type   string          `json:"type"`
				Name   string          `json:"name"`
				Strict bool            `json:"strict"`
				Schema json.RawMessage `json:"schema"`
			} `json:"format"`
		} `json:"text"`
	} `json:"body"`
	Upwell *struct {
		Tiers []string `json:"tiers"`
	} `json:"upwell"`
}

// parse decodes line and rejects keys that request does not know, so that a
// service_tier, for one, cannot slip in.
func parse(t *testing.T, line []byte) request {
	t.Helper()
	var r request
	dec := json.NewDecoder(bytes.NewReader(line))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&r); err != nil {
		t.Fatalf("line %.60q: %v", line, err)
	}
	return r
}

func TestContracts(t *testing.T) {
	contracts := demo.Contracts()
	if got := len(contracts); got != 12 {
		t.Errorf("%d contracts, want 12", got)
	}
	if !slices.IsSortedFunc(contracts, func(a, b demo.Contract) int { return strings.Compare(a.Name, b.Name) }) {
		t.Error("contracts are not sorted by name")
	}
	for _, c := range contracts {
		if n := len(strings.Fields(c.Text)); n < 300 || n > 1500 {
			t.Errorf("%s has %d words, want 300 to 1,500", c.Name, n)
		}
		for i, line := range strings.Split(c.Text, "\n") {
			if n := utf8.RuneCountInString(line); n > 90 || strings.TrimRight(line, " ") != line {
				t.Errorf("%s:%d is %d columns wide or ends in spaces: %q", c.Name, i+1, n, line)
			}
		}
	}
}

var (
	numbered  = regexp.MustCompile(`(?m)^(\d+(?:\.\d+)?)\.? +\S`)
	reference = regexp.MustCompile(`(?i)\bclauses?\s+(\d+(?:\.\d+)?(?:(?:,|\s+and|\s+or)\s+\d+(?:\.\d+)?)*)`)
	number    = regexp.MustCompile(`\d+(?:\.\d+)?`)
)

// clauses returns the numbers of the clauses of c, in order.
func clauses(c demo.Contract) []string {
	var all []string
	for _, m := range numbered.FindAllStringSubmatch(c.Text, -1) {
		all = append(all, m[1])
	}
	return all
}

// An answer that names a clause can be checked only if the number is unique,
// and a contract whose cross-references dangle would distract from what is
// planted.
func TestClauses(t *testing.T) {
	for _, c := range demo.Contracts() {
		var want []string
		for i, sub := 1, 1; len(want) < len(clauses(c)); {
			if sub == 1 {
				want = append(want, fmt.Sprint(i))
			}
			if next := fmt.Sprintf("%d.%d", i, sub); slices.Contains(clauses(c), next) {
				want = append(want, next)
				sub++
			} else {
				i, sub = i+1, 1
			}
		}
		if diff := cmp.Diff(want, clauses(c)); diff != "" {
			t.Errorf("%s is not numbered in sequence (-want +got):\n%s", c.Name, diff)
		}
		for _, m := range reference.FindAllStringSubmatch(c.Text, -1) {
			for _, n := range number.FindAllString(m[1], -1) {
				if !slices.Contains(clauses(c), n) {
					t.Errorf("%s refers to clause %s, which it does not have", c.Name, n)
				}
			}
		}
	}
}

func TestQuestions(t *testing.T) {
	seen := make(map[string]bool)
	for _, q := range demo.Questions() {
		if seen[q.ID] || !regexp.MustCompile(`^[a-z]+(-[a-z]+)*$`).MatchString(q.ID) {
			t.Errorf("question id %q is repeated or malformed", q.ID)
		}
		if !strings.HasSuffix(q.Text, "?") {
			t.Errorf("%s is not a question: %q", q.ID, q.Text)
		}
		seen[q.ID] = true
	}
	if len(seen) != 26 {
		t.Errorf("%d questions, want 26", len(seen))
	}
}

// planted returns contract, clause and question of each row of PLANTED.md.
func planted(t *testing.T) [][3]string {
	t.Helper()
	key, err := os.ReadFile("contracts/PLANTED.md")
	if err != nil {
		t.Fatal(err)
	}
	row := regexp.MustCompile("(?m)^\\| `([^`]+)` \\| ([^ ]+) \\| [^|]+ \\| `([^`]+)` \\|$")
	rows := row.FindAllStringSubmatch(string(key), -1)
	if want := strings.Count(string(key), "\n| ") - 1; len(rows) != want || want == 0 {
		t.Fatalf("PLANTED.md has %d well-formed rows of %d", len(rows), want)
	}
	all := make([][3]string, len(rows))
	for i, m := range rows {
		all[i] = [3]string(m[1:])
	}
	return all
}

func TestPlanted(t *testing.T) {
	contracts := make(map[string]demo.Contract)
	for _, c := range demo.Contracts() {
		contracts[c.Name] = c
	}
	// mention holds, for what is planted by leaving it out, the words that
	// would show that it is there after all.
	mention := map[string]*regexp.Regexp{
		"governing-law": regexp.MustCompile(`(?i)govern|laws?\s+of`),
		"insurance":     regexp.MustCompile(`(?i)insur`),
		"liability-cap": regexp.MustCompile(`(?i)liab|limited\s+to`),
	}
	found := make(map[string]bool) // contracts and questions
	for _, row := range planted(t) {
		name, clause, question := row[0], row[1], row[2]
		found[name], found[question] = true, true
		c, ok := contracts[name]
		if !ok {
			t.Errorf("no contract %s", name)
			continue
		}
		if clause != "absent" {
			if !slices.Contains(clauses(c), clause) || !strings.Contains(clause, ".") {
				t.Errorf("%s has no clause %s", name, clause)
			}
			continue
		}
		if words := mention[question]; words == nil {
			t.Errorf("%s: nothing to show that %s is absent", name, question)
		} else if m := words.FindString(c.Text); m != "" {
			t.Errorf("%s mentions %q, so %s is not absent", name, m, question)
		}
	}
	for name := range contracts {
		if !found[name] {
			t.Errorf("nothing is planted in %s", name)
		}
		delete(found, name)
	}
	for _, q := range demo.Questions() {
		if !found[q.ID] {
			t.Errorf("%s finds nothing", q.ID)
		}
		delete(found, q.ID)
	}
	for name := range found {
		t.Errorf("PLANTED.md names %s, which is neither a contract nor a question", name)
	}
}

func TestSchema(t *testing.T) {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(demo.Schema()))
	if err != nil {
		t.Fatal(err)
	}
	compiler := jsonschema.NewCompiler()
	if err := compiler.AddResource("finding.json", doc); err != nil {
		t.Fatal(err)
	}
	schema, err := compiler.Compile("finding.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		answer string
		valid  bool
	}{
		{`{"found":true,"clause":"11.3","quote":"is unlimited","risk":"high","comment":"No cap."}`, true},
		{`{"found":false,"clause":"","quote":"","risk":"medium","comment":"Silent."}`, true},
		{`{"found":true,"clause":"11.3","quote":"is unlimited","risk":"severe","comment":""}`, false},
		{`{"found":true,"clause":11.3,"quote":"is unlimited","risk":"high","comment":""}`, false},
		{`{"found":true,"clause":"11.3","quote":"is unlimited","risk":"high"}`, false},
		{`{"found":false,"clause":"","quote":"","risk":"none","comment":"","page":3}`, false},
	} {
		answer, err := jsonschema.UnmarshalJSON(strings.NewReader(test.answer))
		if err != nil {
			t.Fatal(err)
		}
		if err := schema.Validate(answer); (err == nil) != test.valid {
			t.Errorf("Validate(%s) = %v, want valid %v", test.answer, err, test.valid)
		}
	}
}

func TestLines(t *testing.T) {
	contracts, questions := demo.Contracts(), demo.Questions()
	tiers := []string{"flex", "default"}
	var want bytes.Buffer
	if err := json.Compact(&want, demo.Schema()); err != nil {
		t.Fatal(err)
	}
	n := 0
	for line := range demo.Lines("xai.grok-4.3", tiers) {
		if len(line) >= 64<<10 || bytes.ContainsRune(line, '\n') {
			t.Errorf("line %d has %d bytes or a newline, want one line below 64 KiB", n, len(line))
		}
		if bytes.Contains(line, []byte(`\u00`)) {
			t.Errorf("line %d is escaped for HTML", n)
		}
		c, q := contracts[n/len(questions)], questions[n%len(questions)]
		r := parse(t, line)
		if got, want := r.CustomID, c.Name+"."+q.ID; got != want {
			t.Errorf("line %d is %s, want %s", n, got, want)
		}
		if r.Method != http.MethodPost || r.URL != "/v1/responses" || r.Body.Model != "xai.grok-4.3" || r.Body.MaxOutputTokens != 600 {
			t.Errorf("%s: %s %s, model %s, %d tokens", r.CustomID, r.Method, r.URL, r.Body.Model, r.Body.MaxOutputTokens)
		}
		if f := r.Body.Text.Format; f.Type != "json_schema" || f.Name == "" || !f.Strict || !bytes.Equal(f.Schema, want.Bytes()) {
			t.Errorf("%s: text.format = %+v, want the strict schema", r.CustomID, f)
		}
		if r.Upwell == nil || !slices.Equal(r.Upwell.Tiers, tiers) {
			t.Errorf("%s: upwell = %+v, want the tiers %q", r.CustomID, r.Upwell, tiers)
		}
		text, question := strings.Index(r.Body.Input, c.Text), strings.Index(r.Body.Input, q.Text)
		if text < 0 || question < text+len(c.Text) {
			t.Errorf("%s: contract at %d, question at %d, want the whole contract first", r.CustomID, text, question)
		}
		n++
	}
	if n != 312 {
		t.Errorf("%d lines, want 312", n)
	}
}

// A cache serves a prefix only while nothing in it changes: within a contract
// the lines may differ in their ids, and from the question on.
func TestLinesSharePrefix(t *testing.T) {
	var last request
	for line := range demo.Lines("m", nil) {
		r := parse(t, line)
		if r.Upwell != nil {
			t.Fatalf("%s: upwell = %+v, want none", r.CustomID, r.Upwell)
		}
		before, _, _ := strings.Cut(r.Body.Input, "<question")
		name, _, _ := strings.Cut(r.CustomID, ".")
		if strings.HasPrefix(last.CustomID, name+".") && !strings.HasPrefix(last.Body.Input, before) {
			t.Errorf("%s and %s differ before the question", last.CustomID, r.CustomID)
		}
		if last.CustomID != "" && r.Body.Instructions != last.Body.Instructions {
			t.Errorf("%s and %s differ in their instructions", last.CustomID, r.CustomID)
		}
		last = r
	}
}

func ExampleLines() {
	for line := range demo.Lines("xai.grok-4.3", []string{"flex"}) {
		var job struct {
			CustomID string          `json:"custom_id"`
			Upwell   json.RawMessage `json:"upwell"`
		}
		if err := json.Unmarshal(line, &job); err != nil {
			fmt.Println(err)
		}
		fmt.Println(job.CustomID, string(job.Upwell))
		break
	}
	// Output: consulting-sow.governing-law {"tiers":["flex"]}
}
