// Package infratest is what the tests of the templates and manifests share: a way
// through what they hold, the program that is told by them, and a checker that knows
// the definitions of others.
package infratest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// Dig returns what is at a path of keys and indices, or nil.
func Dig(v any, path ...any) any {
	for _, p := range path {
		switch p := p.(type) {
		case string:
			m, _ := v.(map[string]any)
			v = m[p]
		case int:
			list, _ := v.([]any)
			if p >= len(list) {
				return nil
			}
			v = list[p]
		}
	}
	return v
}

// built is the folder of the program once it is built.
var built string

var program = sync.OnceValues(func() (string, error) {
	var err error
	if built, err = os.MkdirTemp("", "upwell-infra-*"); err != nil {
		return "", err
	}
	path := filepath.Join(built, "upwell")
	out, err := exec.Command("go", "build", "-o", path, "upwell/cmd/upwell").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return path, nil
})

// Main is the TestMain of a package that uses Program or Run.
func Main(m *testing.M) {
	code := m.Run()
	if built != "" {
		_ = os.RemoveAll(built)
	}
	os.Exit(code)
}

// Program returns the path of the program, which is built once for all tests.
func Program(t *testing.T) string {
	t.Helper()
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// Run runs the program in an environment that has nothing but env, and returns what it
// says.
func Run(t *testing.T, env []string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute) // spent only when the test fails
	defer cancel()
	cmd := exec.CommandContext(ctx, Program(t), args...)
	cmd.Env, cmd.Dir = append([]string{"HOME=" + t.TempDir()}, env...), t.TempDir()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("upwell %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// Settings has the program say what is in force in an environment that has nothing but
// env, stores it in v, and returns what else the program says.
func Settings(t *testing.T, v any, env map[string]string, args ...string) string {
	t.Helper()
	said := Run(t, Pairs(env), append(args, "--print-config")...)
	in := json.NewDecoder(strings.NewReader(said))
	if err := in.Decode(v); err != nil {
		t.Fatal(err)
	}
	return said[in.InputOffset():]
}

// Pairs returns variables as Run takes them.
func Pairs(env map[string]string) (list []string) {
	for _, k := range slices.Sorted(maps.Keys(env)) {
		list = append(list, k+"="+env[k])
	}
	return list
}

// Installed is the variable that names the folder in which the packages of
// infra/tools/iac are installed:
//
//	cp infra/tools/iac/package*.json DIR && npm ci --ignore-scripts --prefix DIR
const Installed = "UPWELL_IAC_SPECIFICATION"

// Specification returns a function that says what is wrong with an input of
// infra/tools/iac/check.mjs, by the definitions of AWS and of KEDA that are installed
// in dir. Without it the test is skipped. It is called from a package beside tools.
func Specification(t *testing.T, dir string) (complaints func(input any) string) {
	t.Helper()
	if dir == "" {
		t.Skipf("%s is not set: install the packages of infra/tools/iac with npm, and say where", Installed)
	}
	script, err := filepath.Abs("../tools/iac/check.mjs")
	if err != nil {
		t.Fatal(err)
	}
	return func(input any) string {
		t.Helper()
		in, err := json.Marshal(input)
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), "node", script)
		cmd.Dir, cmd.Stdin, cmd.Stderr = dir, bytes.NewReader(in), t.Output()
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("node: %v", err)
		}
		return string(out)
	}
}
