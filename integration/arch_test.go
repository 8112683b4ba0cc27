package integration

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

// module is the module's path and a slash.
const module = "upwell/"

// anything lets a package import whatever it likes.
const anything = "*"

// imports says which of the module's packages, and which packages outside of it,
// each package may import beside the standard library. A name that ends in a
// slash stands for all that begins so. Tests are not bound by it.
//
// The arrows point inward: what a job is and when it may start know nothing of
// AWS or HTTP, the worker knows nothing of SQS, S3 or OpenAI, and a simulator
// shares no code with the adapter that is tested against it.
var imports = map[string][]string{
	"jobs":              {"jobs/skim"},
	"jobs/skim":         nil,
	"jobs/foreign":      {"jobs", "jobs/skim"},
	"jobs/sdkerr":       {"github.com/aws/"},
	"jobs/sqsqueue":     {"jobs", "jobs/sdkerr", "worker", "github.com/aws/"}, // worker for what its errors mean
	"throttle":          {"golang.org/x/time/rate"},
	"throttle/fleet":    {"throttle"},
	"sink":              {"jobs"},
	"sink/s3sink":       {"jobs", "jobs/sdkerr", "sink", "github.com/aws/"},
	"sink/table":        {"jobs/skim", "github.com/parquet-go/parquet-go", "github.com/parquet-go/parquet-go/compress/zstd"},
	"sink/account":      {"jobs", "sink", "golang.org/x/sync/errgroup", "golang.org/x/sync/semaphore"},
	"worker":            {"jobs", "throttle"},
	"jobs/queuetest":    {"integration/conformance", "github.com/aws/"},
	"sink/sinktest":     {"integration/conformance", "github.com/aws/"},
	"worker/workertest": {"jobs", "throttle", "worker"},
	"worker/mantle": {
		"jobs", "jobs/skim", "throttle", "worker", "github.com/openai/openai-go/",
		"github.com/aws/aws-sdk-go-v2/aws", "github.com/aws/aws-sdk-go-v2/aws/signer/v4", // to sign, not to call
		"github.com/santhosh-tekuri/jsonschema/", "golang.org/x/sync/singleflight",
	},

	"jobs/sqsqueue/sqssim":             nil,
	"sink/s3sink/s3sim":                {"github.com/rclone/gofakes3", "github.com/rclone/gofakes3/signature"},
	"worker/mantle/mantlesim":          {"worker/mantle/mantlesim/capacity"},
	"worker/mantle/mantlesim/capacity": nil,
	"infra/local":                      {"jobs/sqsqueue/sqssim", "sink/s3sink/s3sim", "worker/mantle/mantlesim"},

	"cmd/":               {anything}, // wires everything together
	"integration/bench/": {anything},

	"integration/conformance":  nil,
	"integration/fixture":      {"jobs"},
	"integration/page":         {"github.com/chromedp/"},
	"infra/internal/infratest": nil, // for the tests of what lies beside it
}

// top is what the top level of the repository holds, beside files whose name
// begins with a dot and what git is told to ignore.
var top = []string{
	"Dockerfile", "LICENSE", "README.md", "cmd", "go.mod", "go.sum", "infra", "integration", "jobs", "sink", "throttle", "worker",
}

func TestImports(t *testing.T) {
	for _, complaint := range complaints(t, os.DirFS("..")) {
		t.Error(complaint)
	}
}

// TestImportsNotices shows that TestImports has eyes.
func TestImportsNotices(t *testing.T) {
	tree := make(fstest.MapFS)
	for pkg := range imports { // none of them is missing
		tree[path.Join(pkg, "x.go")] = &fstest.MapFile{Data: []byte("package x\n")}
	}
	add := func(name, text string) {
		tree[name] = &fstest.MapFile{Data: []byte("package x\n" + text)}
	}
	add("jobs/sdk.go", `import _ "github.com/aws/aws-sdk-go-v2/service/sqs"`)
	add("jobs/fine_test.go", `import _ "upwell/worker/workertest"`)
	add("jobs/tool/go.mod", "")
	add("jobs/tool/other.go", `import _ "example.org/another/module"`)
	add("throttle/near.go", `import _ "golang.org/x/time/rate/other"`)
	add("worker/fine.go", `import (_ "net/http"; _ "upwell/jobs")`)
	add("worker/sdk.go", `import _ "github.com/openai/openai-go/v3"`)
	add("worker/up.go", `import _ "upwell/cmd/internal/awsconf"`)
	add("cmd/verb/fine.go", `import ("flag"; "os"; _ "upwell/sink"); var x = os.Getenv(flag.Arg(0))`)
	add("sink/env.go", `import "os"; var x, y = os.Getenv("HOME"), os.Args`)
	add("sink/renamed.go", `import sys "os"; var _, z = sys.LookupEnv("HOME")`)
	add("sink/flags.go", `import _ "flag"`)
	add("sink/fine.go", `import "os"; var w, _ = os.Open("x")`)
	add("util/util.go", "")
	want := []string{
		"jobs/sdk.go imports github.com/aws/aws-sdk-go-v2/service/sqs",
		"package util is not in the table: say what it may import",
		"sink/env.go uses os.Args: only cmd reads flags and the environment",
		"sink/env.go uses os.Getenv: only cmd reads flags and the environment",
		"sink/flags.go imports flag: only cmd reads flags and the environment",
		"sink/renamed.go uses os.LookupEnv: only cmd reads flags and the environment",
		"throttle/near.go imports golang.org/x/time/rate/other",
		"worker/sdk.go imports github.com/openai/openai-go/v3",
		"worker/up.go imports upwell/cmd/internal/awsconf",
	}
	got := complaints(t, tree)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("complaints differ (-want +got):\n%s", diff)
	}
}

// TestTableIsCurrent keeps packages that are gone out of the table.
func TestTableIsCurrent(t *testing.T) {
	seen := make(map[string]bool)
	for file := range sources(t, os.DirFS("..")) {
		seen[rule(path.Dir(file))] = true
	}
	seen["integration/bench/"] = true // it may have tests only
	for _, pkg := range slices.Sorted(maps.Keys(imports)) {
		if !seen[pkg] {
			t.Errorf("package %s is in the table, and nowhere else", pkg)
		}
	}
}

func TestTopLevel(t *testing.T) {
	ignored, err := os.ReadFile("../.gitignore")
	if err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir("..")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		name := e.Name()
		if strings.HasPrefix(name, ".") || slices.Contains(top, name) {
			continue
		}
		if !slices.ContainsFunc(strings.Fields(string(ignored)), func(pattern string) bool {
			ok, _ := path.Match(strings.Trim(pattern, "/"), name)
			return ok
		}) {
			t.Errorf("%s is at the top level, want nothing there but %s", name, strings.Join(top, ", "))
		}
	}
}

// complaints lists what in the tree breaks the rules.
func complaints(t *testing.T, tree fs.FS) (list []string) {
	t.Helper()
	for file, f := range sources(t, tree) {
		pkg := path.Dir(file)
		in := rule(pkg)
		may, known := imports[in]
		if !known {
			list = append(list, fmt.Sprintf("package %s is not in the table: say what it may import", pkg))
			continue
		}
		list = append(list, foreign(file, f, may)...)
		if in != "cmd/" && in != "integration/bench/" {
			list = append(list, worldly(file, f)...)
		}
	}
	return list
}

// rule returns the entry of the table that pkg falls under.
func rule(pkg string) string {
	for entry := range imports {
		if strings.HasSuffix(entry, "/") && strings.HasPrefix(pkg+"/", entry) {
			return entry
		}
	}
	return pkg
}

// foreign lists the imports of a file that are not among those it may have.
func foreign(file string, f *ast.File, may []string) (list []string) {
	for _, spec := range f.Imports {
		name, _ := strconv.Unquote(spec.Path.Value)
		local := strings.TrimPrefix(name, module)
		first, _, _ := strings.Cut(name, "/")
		if std := local == name && !strings.Contains(first, "."); std || slices.Contains(may, anything) {
			continue
		}
		if !slices.ContainsFunc(may, func(m string) bool {
			return local == m || strings.HasSuffix(m, "/") && strings.HasPrefix(local, m)
		}) {
			list = append(list, file+" imports "+name)
		}
	}
	return list
}

// worldly lists where a file reads the command line or the environment.
func worldly(file string, f *ast.File) (list []string) {
	const why = ": only cmd reads flags and the environment"
	readers := []string{"Args", "Environ", "ExpandEnv", "Getenv", "LookupEnv"}
	name := "" // that the file has for package os
	for _, spec := range f.Imports {
		switch spec.Path.Value {
		case `"flag"`:
			list = append(list, file+" imports flag"+why)
		case `"os"`:
			if name = "os"; spec.Name != nil {
				name = spec.Name.Name
			}
		}
	}
	ast.Inspect(f, func(n ast.Node) bool {
		if sel, ok := n.(*ast.SelectorExpr); ok {
			if x, ok := sel.X.(*ast.Ident); ok && x.Name == name && slices.Contains(readers, sel.Sel.Name) {
				list = append(list, file+" uses os."+sel.Sel.Name+why)
			}
		}
		return true
	})
	return list
}

// sources returns the tree's Go files by path, but for tests and other modules.
func sources(t *testing.T, tree fs.FS) map[string]*ast.File {
	t.Helper()
	files := make(map[string]*ast.File)
	err := fs.WalkDir(tree, ".", func(file string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() {
			if _, err := fs.Stat(tree, path.Join(file, "go.mod")); err == nil && file != "." || strings.HasPrefix(e.Name(), ".") && file != "." {
				return fs.SkipDir
			}
			return nil
		}
		if path.Ext(file) != ".go" || strings.HasSuffix(file, "_test.go") {
			return nil
		}
		text, err := fs.ReadFile(tree, file)
		if err != nil {
			return err
		}
		files[file], err = parser.ParseFile(token.NewFileSet(), file, text, parser.SkipObjectResolution)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}
