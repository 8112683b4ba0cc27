package metrics_test

import (
	"errors"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"upwell/cmd/internal/budget"
	"upwell/cmd/internal/metrics"
	"upwell/jobs/sqsqueue"
	"upwell/throttle"
	"upwell/worker"
)

// everything is the exposition with at least one series of each metric.
func everything(t *testing.T) string {
	t.Helper()
	m := metrics.New("1.2.3")
	attempt(m, lane)
	m.Observe(failed(throttle.Unavailable, &worker.Error{Kind: worker.Unavailable, Status: 503}))
	sampled(m, lane)
	m.Queue(sqsqueue.Counts{}, nil)
	m.Budget(&budget.Status{})
	return scrape(t, m)
}

// names is the file that says what metrics there are, for whoever makes use of them
// outside of this program: name, type and labels; of a label that is a closed set, its
// values as well.
const names = "testdata/metrics.txt"

var update = flag.Bool("update", false, "write "+names+" anew")

// A family is what the list says of a metric.
type family struct {
	kind   string
	labels map[string]map[string]bool // and their values
}

// String is a line of the list, without the name.
func (f family) String() string {
	words := []string{f.kind}
	for _, label := range slices.Sorted(maps.Keys(f.labels)) {
		switch label {
		case "bound", "class", "end", "gen_ai_token_type", "kind", "op", "outcome", "state":
			label += "=" + strings.Join(slices.Sorted(maps.Keys(f.labels[label])), "|")
		}
		words = append(words, label)
	}
	return strings.Join(words, " ")
}

var pair = regexp.MustCompile(`(\w+)="([^"]*)"`)

// families reads an exposition.
func families(text string) map[string]family {
	all := make(map[string]family)
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, "# TYPE "); ok {
			name, kind, _ := strings.Cut(strings.TrimSpace(rest), " ")
			all[name] = family{kind, make(map[string]map[string]bool)}
		}
		if strings.HasPrefix(line, "#") {
			continue
		}
		name := line[:strings.IndexAny(line, "{ ")]
		for _, suffix := range []string{"_bucket", "_sum", "_count"} {
			if base, ok := strings.CutSuffix(name, suffix); ok && all[base].kind == "histogram" {
				name = base
			}
		}
		for _, found := range pair.FindAllStringSubmatch(line, -1) {
			switch labels := all[name].labels; {
			case found[1] == "le":
			case labels[found[1]] == nil:
				labels[found[1]] = map[string]bool{found[2]: true}
			default:
				labels[found[1]][found[2]] = true
			}
		}
	}
	return all
}

// TestNames holds the metrics to the list of them, so that none changes its name
// unseen: alerts and dashboards would go silent.
func TestNames(t *testing.T) {
	var lines []string
	for name, f := range families(everything(t)) {
		switch {
		case name == "process_cpu_seconds_total", name == "process_resident_memory_bytes": // the dashboard has them
		case strings.HasPrefix(name, "go_"), strings.HasPrefix(name, "process_"):
			continue // the library's, and may change with it
		}
		lines = append(lines, name+" "+f.String())
	}
	slices.Sort(lines)
	got := strings.Join(lines, "\n") + "\n"
	if *update {
		if err := os.WriteFile(names, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(names)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s is not what is exposed; -update writes it anew, and infra/monitoring must follow. Exposed:\n%s", names, got)
	}
}

// TestLint lets client_golang's linter look at all metrics.
func TestLint(t *testing.T) {
	problems, err := promlint.New(strings.NewReader(everything(t))).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// TestPromtool lets promtool look at them, if it is installed.
func TestPromtool(t *testing.T) {
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
	check := exec.CommandContext(t.Context(), path, "check", "metrics")
	check.Stdin = strings.NewReader(everything(t))
	if out, err := check.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
}

// constants returns the values of the constants of a type in a file. A constant
// without a type of its own has that of the one before it.
func constants(t *testing.T, file, typ string) (values []string) {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range f.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok || g.Tok != token.CONST {
			continue
		}
		for _, s := range g.Specs {
			v := s.(*ast.ValueSpec)
			if id, ok := v.Type.(*ast.Ident); !ok || id.Name != typ {
				continue
			}
			text, err := strconv.Unquote(v.Values[0].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			values = append(values, text)
		}
	}
	if len(values) == 0 {
		t.Fatalf("%s has no constants of type %s", file, typ)
	}
	return values
}

// TestClosedSets shows that every class, bound and op there is has a series of its own
// before anything happens.
func TestClosedSets(t *testing.T) {
	got := series(t, metrics.New(""))
	has := func(name, label, value string) bool {
		_, ok := got[fmt.Sprintf(`%s{%s="%s"}`, name, label, value)]
		return ok
	}
	for _, c := range constants(t, "../../../jobs/result.go", "Class") {
		if !has("upwell_dead_letters_total", "class", c) {
			t.Errorf("class %s has no series", c)
		}
	}
	for _, b := range constants(t, "../../../worker/sample.go", "Bound") {
		if !has("upwell_bound_seconds_total", "bound", b) {
			t.Errorf("bound %s has no series", b)
		}
	}
	for _, op := range constants(t, "../../../worker/events.go", "Op") {
		queue, store := has("upwell_queue_request_failures_total", "op", op), has("upwell_store_request_failures_total", "op", op)
		if queue == store {
			t.Errorf("op %s: of the queue %v, of the store %v: want one of them", op, queue, store)
		}
	}
	for _, end := range []string{"stored", "duplicate", "dead_lettered", "passed", "released", "lost"} {
		if !has("upwell_deliveries_total", "end", end) {
			t.Errorf("end %s has no series", end)
		}
	}
}
