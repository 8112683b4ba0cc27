package monitoring_test

import (
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// A dashboard is what of one is looked at here.
type dashboard struct {
	Title         string
	UID           string
	SchemaVersion int
	Panels        []panel
	Templating    struct {
		List []struct {
			Name, Type, Definition string
			Datasource             source
		}
	}
	Annotations struct {
		List []struct {
			Expr       string
			Datasource source
		}
	}
}

type source struct{ Type, UID string }

type panel struct {
	ID                       int
	Type, Title, Description string
	Datasource               source
	GridPos                  struct{ X, Y, W, H int }
	Targets                  []target
	FieldConfig              struct{ Defaults struct{ Unit string } }
}

type target struct {
	RefID, Expr, LegendFormat string
	Datasource                source
}

func readDashboard(t *testing.T) dashboard {
	t.Helper()
	text, err := os.ReadFile("grafana.json")
	if err != nil {
		t.Fatal(err)
	}
	var d dashboard
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	if d.Title == "" || d.UID == "" || len(d.Panels) == 0 {
		t.Fatal("no dashboard")
	}
	return d
}

// prometheus is the data source that its user chooses.
var prometheus = source{"prometheus", "${datasource}"}

// columns is how wide Grafana's grid is.
const columns = 24

func (p *panel) overlaps(q *panel) bool {
	a, b := p.GridPos, q.GridPos
	return a.X < b.X+b.W && b.X < a.X+a.W && a.Y < b.Y+b.H && b.Y < a.Y+a.H
}

// TestLayout holds panels to a grid on which each has its place, and to saying what
// they show.
func TestLayout(t *testing.T) {
	d := readDashboard(t)
	ids := make(map[int]string)
	titles := make(map[string]bool)
	for i := range d.Panels {
		p := &d.Panels[i]
		if other, ok := ids[p.ID]; ok || p.ID <= 0 {
			t.Errorf("%q has the id %d, as %q has", p.Title, p.ID, other)
		}
		ids[p.ID] = p.Title
		if p.Title == "" || p.Description == "" || titles[p.Title] {
			t.Errorf("panel %d: title %q, description %q: want both, and no other of that title", p.ID, p.Title, p.Description)
		}
		titles[p.Title] = true
		if g := p.GridPos; g.X < 0 || g.Y < 0 || g.W <= 0 || g.H <= 0 || g.X+g.W > columns {
			t.Errorf("%q is off the grid: %+v", p.Title, g)
		}
		for j := range i {
			if q := &d.Panels[j]; p.overlaps(q) {
				t.Errorf("%q is over %q", p.Title, q.Title)
			}
		}
		if p.Type == "row" {
			continue
		}
		if len(p.Targets) == 0 || p.FieldConfig.Defaults.Unit == "" || p.Datasource != prometheus {
			t.Errorf("%q: %d queries, unit %q, data source %v", p.Title, len(p.Targets), p.FieldConfig.Defaults.Unit, p.Datasource)
		}
	}
}

var (
	variable = regexp.MustCompile(`\$\{?(\w+)`)
	legend   = regexp.MustCompile(`\{\{(\w+)\}\}`)
)

// TestQueries holds queries to what is exposed, to the variables there are, and to
// having the labels that their legend names.
func TestQueries(t *testing.T) {
	d, x := readDashboard(t), readExposed(t)
	variables := []string{"__rate_interval", "__range"}
	for _, v := range d.Templating.List {
		variables = append(variables, v.Name)
		if v.Type == "query" && v.Datasource != prometheus {
			t.Errorf("variable %s: data source %v", v.Name, v.Datasource)
		}
		query := strings.TrimPrefix(v.Definition, "label_values(")
		for _, c := range x.complaints(query) {
			t.Errorf("variable %s: %s", v.Name, c)
		}
	}
	for _, want := range []string{"datasource", "job", "instance", "region", "model", "tier"} {
		if !slices.Contains(variables, want) {
			t.Errorf("no variable %s", want)
		}
	}
	for _, p := range d.Panels {
		refs := make(map[string]bool)
		for _, q := range p.Targets {
			if refs[q.RefID] || q.RefID == "" || q.Datasource != prometheus {
				t.Errorf("%q: query %q of %v", p.Title, q.RefID, q.Datasource)
			}
			refs[q.RefID] = true
			for _, c := range x.complaints(q.Expr) {
				t.Errorf("%q: %s: %s", p.Title, c, q.Expr)
			}
			for _, found := range variable.FindAllStringSubmatch(q.Expr, -1) {
				if !slices.Contains(variables, found[1]) {
					t.Errorf("%q: no variable %s", p.Title, found[1])
				}
			}
			if !strings.Contains(q.Expr, `job=~"$job",instance=~"$instance"`) {
				t.Errorf("%q does not follow the choice of job and worker: %s", p.Title, q.Expr)
			}
			for _, found := range legend.FindAllStringSubmatch(q.LegendFormat, -1) {
				g := grouping.FindStringSubmatch(q.Expr)
				if g == nil || !slices.Contains(regexp.MustCompile(`\w+`).FindAllString(g[1], -1), found[1]) {
					t.Errorf("%q: the legend names %s, which %s does not keep", p.Title, found[1], q.Expr)
				}
			}
		}
	}
}
