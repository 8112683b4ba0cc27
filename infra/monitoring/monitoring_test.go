// Package monitoring_test checks the alerts and the dashboard: that what they ask for is
// what a worker exposes, and that people can make use of them.
package monitoring_test

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// listed is what the program's own tests hold its metrics to: see TestNames there.
const listed = "../../cmd/internal/metrics/testdata/metrics.txt"

// exposed maps the names of series to their labels, and those to their values where
// these are a closed set.
type exposed map[string]map[string][]string

func readExposed(t *testing.T) exposed {
	t.Helper()
	text, err := os.ReadFile(listed)
	if err != nil {
		t.Fatal(err)
	}
	all := make(exposed)
	for line := range strings.Lines(string(text)) {
		words := strings.Fields(line)
		labels := map[string][]string{"job": nil, "instance": nil} // Prometheus adds these
		for _, w := range words[2:] {
			label, values, closed := strings.Cut(w, "=")
			labels[label] = nil
			if closed {
				labels[label] = strings.Split(values, "|")
			}
		}
		if words[1] != "histogram" {
			all[words[0]] = labels
			continue
		}
		all[words[0]+"_sum"], all[words[0]+"_count"] = labels, labels
		labels = maps.Clone(labels)
		labels["le"] = nil
		all[words[0]+"_bucket"] = labels
	}
	return all
}

var (
	quoted   = regexp.MustCompile(`"[^"]*"|'[^']*'`)
	selector = regexp.MustCompile(`([a-z_]\w*)\{([^}]*)\}`)
	name     = regexp.MustCompile(`\b(?:upwell|process|go|gen_ai_client)_\w+`)
	matcher  = regexp.MustCompile(`(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"`)
	grouping = regexp.MustCompile(`\b(?:by|on|group_left|ignoring|without)\s*\(([^)]*)\)`)
)

// complaints says what a query asks for that is not exposed.
func (x exposed) complaints(query string) (list []string) {
	known := make(map[string]bool) // labels of the series that it names
	for _, n := range name.FindAllString(quoted.ReplaceAllString(query, `""`), -1) {
		if x[n] == nil {
			list = append(list, "no series "+n)
		}
		for label := range x[n] {
			known[label] = true
		}
	}
	for _, s := range selector.FindAllStringSubmatch(query, -1) {
		for _, m := range matcher.FindAllStringSubmatch(s[2], -1) {
			values, ok := x[s[1]][m[1]]
			if !ok {
				list = append(list, fmt.Sprintf("%s has no label %s", s[1], m[1]))
			}
			for v := range strings.SplitSeq(m[3], "|") {
				if values != nil && !slices.Contains(values, v) && !strings.HasPrefix(v, "$") {
					list = append(list, fmt.Sprintf("%s of %s is never %q", m[1], s[1], v))
				}
			}
		}
	}
	for _, g := range grouping.FindAllStringSubmatch(query, -1) {
		for label := range strings.SplitSeq(g[1], ",") {
			if label = strings.TrimSpace(label); !known[label] {
				list = append(list, "no label "+label)
			}
		}
	}
	return list
}

// TestComplaints shows that the check of queries has eyes.
func TestComplaints(t *testing.T) {
	x := readExposed(t)
	for query, want := range map[string]string{
		`sum by (job, le) (rate(upwell_permit_wait_seconds_bucket{region=~"$region"}[5m]))`: "",
		`sum(rate(upwell_attempts_total{outcome="answered"}[5m]))`:                          "",
		`rate(upwell_permit_wait_seconds[5m])`:                                              "no series upwell_permit_wait_seconds",
		`upwell_rate{job="a"} > 0`:                                                          "no series upwell_rate; upwell_rate has no label job",
		`upwell_slots{region="a"}`:                                                          "upwell_slots has no label region",
		`sum by (region) (upwell_slots)`:                                                    "no label region",
		`upwell_deliveries_total{end=~"stored|settled"}`:                                    `end of upwell_deliveries_total is never "settled"`,
	} {
		if got := strings.Join(x.complaints(query), "; "); got != want {
			t.Errorf("%s: %q, want %q", query, got, want)
		}
	}
}

// A rule is an alert.
type rule struct {
	Alert, Expr, For    string
	Labels, Annotations map[string]string
}

func readRules(t *testing.T) []rule {
	t.Helper()
	var f struct{ Groups []struct{ Rules []rule } }
	readYAML(t, "alerts.yaml", &f)
	var all []rule
	for _, g := range f.Groups {
		all = append(all, g.Rules...)
	}
	if len(all) == 0 {
		t.Fatal("no alerts")
	}
	return all
}

func readYAML(t *testing.T, file string, to any) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(text, to); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
}

var (
	verb    = regexp.MustCompile(`(?m)^//\tupwell (\w+) `)
	command = regexp.MustCompile(`\bRun: upwell (\w+)( .+)?$`)
	value   = regexp.MustCompile(`\{\{ \$labels\.(\w+) \}\}`)
)

// TestAlerts holds alerts to what they are for: they ask for what there is, and say
// what is wrong and what to run next.
func TestAlerts(t *testing.T) {
	x := readExposed(t)
	main, err := os.ReadFile("../../cmd/upwell/main.go")
	if err != nil {
		t.Fatal(err)
	}
	verbs := make(map[string]bool)
	for _, found := range verb.FindAllStringSubmatch(string(main), -1) {
		verbs[found[1]] = true
	}
	names := make(map[string]bool)
	for _, r := range readRules(t) {
		if names[r.Alert] {
			t.Errorf("%s: two of that name", r.Alert)
		}
		names[r.Alert] = true
		for _, c := range x.complaints(r.Expr) {
			t.Errorf("%s: %s", r.Alert, c)
		}
		if s := r.Labels["severity"]; s != "critical" && s != "warning" && s != "info" {
			t.Errorf("%s: severity %q", r.Alert, s)
		}
		summary, description := r.Annotations["summary"], r.Annotations["description"]
		if summary == "" {
			t.Errorf("%s: no summary", r.Alert)
		}
		switch found := command.FindStringSubmatch(description); {
		case found == nil:
			t.Errorf("%s: the description does not end with the command to run: %s", r.Alert, description)
		case !verbs[found[1]]:
			t.Errorf("%s: there is no command upwell %s", r.Alert, found[1])
		}
		for _, found := range value.FindAllStringSubmatch(summary+description, -1) {
			if !strings.Contains(r.Expr, found[1]) {
				t.Errorf("%s: nothing gives it the label %s", r.Alert, found[1])
			}
		}
	}
}

// TestAlertsAreTested holds alerts_test.yaml to its word: for each alert, a job that
// fires it, and another one that does not.
func TestAlertsAreTested(t *testing.T) {
	var f struct {
		Tests []struct {
			Name   string
			Series []struct{ Series string } `yaml:"input_series"`
			Checks []struct {
				Expr    string
				Samples []struct{ Labels string } `yaml:"exp_samples"`
			} `yaml:"promql_expr_test"`
		}
	}
	readYAML(t, "alerts_test.yaml", &f)
	x := readExposed(t)
	fired := make(map[string]bool)
	silent := false
	for _, test := range f.Tests {
		jobs := make(map[string]bool)
		for _, s := range test.Series {
			for _, c := range x.complaints(s.Series) {
				if !strings.Contains(c, "upwell_build_info") {
					t.Errorf("%s: %s", test.Name, c)
				}
			}
			for _, m := range matcher.FindAllStringSubmatch(s.Series, -1) {
				if m[1] == "job" {
					jobs[m[3]] = true
				}
			}
		}
		for _, c := range test.Checks {
			switch {
			case c.Expr == `ALERTS{alertstate="firing"}`:
				silent = silent || len(c.Samples) == 0
			case c.Expr == fmt.Sprintf(`ALERTS{alertname="%s",alertstate="firing"}`, test.Name):
				fired[test.Name] = len(c.Samples) == 1 && strings.Contains(c.Samples[0].Labels, `job="bad"`) && jobs["good"]
			default:
				t.Errorf("%s: asks for %s", test.Name, c.Expr)
			}
		}
	}
	if !silent {
		t.Error("no test shows that all are silent when nothing is wrong")
	}
	for _, r := range readRules(t) {
		if !fired[r.Alert] {
			t.Errorf("%s: no test shows that it fires, and of another job does not", r.Alert)
		}
	}
}

// promtool runs it, if it is installed.
func promtool(t *testing.T, args ...string) {
	t.Helper()
	path, err := exec.LookPath("promtool")
	switch {
	case err == nil:
	case os.Getenv("UPWELL_PROMTOOL") == "required":
		t.Fatalf("UPWELL_PROMTOOL=required: %v", err)
	case errors.Is(err, exec.ErrNotFound):
		t.Skip("promtool is not there: it is in Debian's package prometheus")
	default:
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), path, args...).CombinedOutput(); err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func TestPromtoolChecksRules(t *testing.T) { promtool(t, "check", "rules", "alerts.yaml") }
func TestPromtoolTestsRules(t *testing.T)  { promtool(t, "test", "rules", "alerts_test.yaml") }

// TestPromtoolReadsQueries lets promtool parse the dashboard's queries, as rules.
func TestPromtoolReadsQueries(t *testing.T) {
	type record struct {
		Record string `yaml:"record"`
		Expr   string `yaml:"expr"`
	}
	var rules []record
	for _, p := range readDashboard(t).Panels {
		for _, target := range p.Targets {
			query := strings.NewReplacer("$__rate_interval", "5m", "$__range", "3h").Replace(target.Expr)
			rules = append(rules, record{fmt.Sprintf("panel:%d:%s", p.ID, target.RefID), query})
		}
	}
	text, err := yaml.Marshal(map[string]any{"groups": []any{map[string]any{"name": "panels", "rules": rules}}})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "panels.yaml")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	promtool(t, "check", "rules", file)
}
