package integration

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var updateLicences = flag.Bool("update-licences", false, "write infra/licences anew, in the place of comparing with it")

// licenceFile is what a file of terms is called.
var licenceFile = regexp.MustCompile(`(?i)^(licen[cs]e|copying|copyright|notice|patents)([._-].*)?$`)

// terms are phrases that only one licence has, in small letters with single spaces, and
// its SPDX name. The first that fits of those with one name counts.
var terms = []struct{ spdx, phrase, and, not string }{
	{"Apache-2.0", "apache license version 2.0, january 2004", "", ""},
	{"Apache-2.0", "licensed under the apache license, version 2.0", "", ""},
	{"MIT", "permission is hereby granted, free of charge, to any person obtaining a copy of this software", `the software is provided "as is", without warranty`, ""},
	{"BSD-3-Clause", "redistribution and use in source and binary forms", "may be used to endorse or promote products", ""},
	{"BSD-2-Clause", "redistribution and use in source and binary forms", "", "may be used to endorse or promote products"},
	{"ISC", "permission to use, copy, modify, and/or distribute this software for any purpose with or without fee", "", ""},
	{"ISC", "permission to use, copy, modify, and distribute this software for any purpose with or without fee", "", ""},
}

// unwanted are licences whose terms reach further than their own code, or forbid
// something.
var unwanted = regexp.MustCompile(`general public license|mozilla public license|eclipse public license|common development and distribution|` +
	`creative commons|server side public license|business source license|commons clause|elastic license|non-?commercial`)

var blanks = regexp.MustCompile(`\s+`)

// classify returns the SPDX names of the licences in a text, or an error if it has one
// that is not known or not wanted.
func classify(text string) (names []string, err error) {
	text = strings.NewReplacer("“", `"`, "”", `"`, "``", `"`, "''", `"`).Replace(blanks.ReplaceAllString(strings.ToLower(text), " "))
	if bad := unwanted.FindString(text); bad != "" {
		return nil, fmt.Errorf("it speaks of a %q", bad)
	}
	for _, l := range terms {
		if strings.Contains(text, l.phrase) && strings.Contains(text, l.and) && (l.not == "" || !strings.Contains(text, l.not)) && !slices.Contains(names, l.spdx) {
			names = append(names, l.spdx)
		}
	}
	if len(names) == 0 {
		return nil, errors.New("no licence that is known")
	}
	return names, nil
}

// A component is a module whose code is in the binary, and its terms.
type component struct {
	path, version string
	spdx          []string
	texts         []string
}

// linked returns the modules in the binary, and Go's own library.
func linked(t *testing.T) []*component {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", "-json=ImportPath,Dir,Standard,Module", "upwell/cmd/upwell")
	cmd.Env = append(os.Environ(), "GOOS=linux", "CGO_ENABLED=0")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	root, err := exec.CommandContext(t.Context(), "go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]*component{"": {path: "Go", version: "library and runtime"}}
	dirs := map[string]map[string]bool{"": {strings.TrimSpace(string(root)): true}}
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p struct {
			ImportPath, Dir string
			Standard        bool
			Module          *struct {
				Path, Version, Dir string
				Main               bool
				Replace            *struct{}
			}
		}
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if p.Standard || p.Module.Main {
			continue
		}
		m := p.Module
		if m.Replace != nil {
			t.Errorf("%s is replaced, want what it says it is", m.Path)
		}
		if all[m.Path] == nil {
			all[m.Path], dirs[m.Path] = &component{path: m.Path, version: m.Version}, make(map[string]bool)
		}
		// Code that a module has from elsewhere has its own terms beside it.
		for dir := p.Dir; len(dir) >= len(m.Dir); dir = filepath.Dir(dir) {
			dirs[m.Path][dir] = true
		}
	}
	// What is embedded is no module: the charts of the dashboard.
	all["uPlot"] = &component{path: "uPlot (npm)", version: "1.6.32"}
	dirs["uPlot"] = map[string]bool{filepath.Join("..", "cmd", "internal", "dashboard", "page", "uplot"): true}
	for path, m := range all {
		for _, dir := range slices.Sorted(maps.Keys(dirs[path])) {
			m.read(t, dir)
		}
		if len(m.spdx) == 0 {
			t.Errorf("%s: no licence, want one", m.path)
		}
	}
	return slices.SortedFunc(maps.Values(all), func(a, b *component) int { return cmp.Compare(a.path, b.path) })
}

// read adds the terms in a folder.
func (m *component) read(t *testing.T, dir string) {
	t.Helper()
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if f.IsDir() || !licenceFile.MatchString(f.Name()) || strings.HasSuffix(f.Name(), ".go") {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		m.texts = append(m.texts, strings.TrimSpace(strings.ReplaceAll(string(text), "\r\n", "\n")))
		names, err := classify(string(text))
		kind := strings.ToLower(f.Name())
		if err != nil && !strings.HasPrefix(kind, "notice") && !strings.HasPrefix(kind, "patents") { // which grant more, or name somebody
			t.Errorf("%s: %s: %v, want a permissive licence", m.path, f.Name(), err)
		}
		for _, n := range names {
			if !slices.Contains(m.spdx, n) {
				m.spdx = append(m.spdx, n)
			}
		}
	}
}

const licencesHead = `# Licences

What is in the binary beside upwell's own code, and under which terms. All of them are permissive: they ask for their
text to go along, which is in [texts.txt](texts.txt), and this folder goes along in the image, as ` + "`/licences`" + `.

Both files are made from what ` + "`go list -deps`" + ` says is linked, and a test compares them:

    go test ./integration -run '^TestLicences$' -update-licences

| module | version | licence |
|---|---|---|
`

// TestLicences wants a list of what is in the binary that is current, and nothing in it
// under terms that reach further than its own code.
func TestLicences(t *testing.T) {
	t.Parallel()
	var table, texts bytes.Buffer
	table.WriteString(licencesHead)
	shared := make(map[[sha256.Size]byte][]string) // modules by text
	var order []string
	for _, m := range linked(t) {
		slices.Sort(m.spdx)
		fmt.Fprintf(&table, "| %s | %s | %s |\n", m.path, m.version, strings.Join(m.spdx, " AND "))
		for _, text := range m.texts {
			sum := sha256.Sum256([]byte(text))
			if shared[sum] == nil {
				order = append(order, text)
			}
			if !slices.Contains(shared[sum], m.path) {
				shared[sum] = append(shared[sum], m.path)
			}
		}
	}
	for _, text := range order {
		fmt.Fprintf(&texts, "%s\n%s\n\n%s\n\n", strings.Repeat("=", 80), strings.Join(shared[sha256.Sum256([]byte(text))], "\n"), text)
	}
	for name, want := range map[string][]byte{"README.md": table.Bytes(), "texts.txt": texts.Bytes()} {
		path := filepath.Join("..", "infra", "licences", name)
		if *updateLicences {
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, want, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is not what is linked (%v): run this test with -update-licences, and look at the difference", path, err)
		}
	}
}

// TestClassify has terms that are wanted, and others.
func TestClassify(t *testing.T) {
	const mit = "Permission is hereby granted, free of charge, to any person obtaining a copy of this software\n and so on. THE SOFTWARE IS PROVIDED \"AS IS\", WITHOUT WARRANTY"
	for text, want := range map[string]string{
		mit: "MIT",
		"Apache License\n   Version 2.0, January 2004":                      "Apache-2.0",
		"Licensed under the Apache License, Version 2.0\n" + mit:            "Apache-2.0 MIT",
		"Redistribution and use in source and binary forms":                 "BSD-2-Clause",
		"GNU AFFERO GENERAL PUBLIC LICENSE":                                 "",
		mit + " It may not be used for non-commercial":                      "",
		"Mozilla Public License Version 2.0":                                "",
		"All rights reserved.":                                              "",
		"permission is hereby granted to everybody, but for the following:": "",
	} {
		names, err := classify(text)
		if got := strings.Join(names, " "); got != want || (err == nil) != (want != "") {
			t.Errorf("classify(%.60q) = %q, %v, want %q", text, got, err, want)
		}
	}
}

// TestDependenciesArePinned wants every dependency to be the one that was looked at, and
// none to run anything while it is installed.
func TestDependenciesArePinned(t *testing.T) {
	t.Parallel()
	for _, dir := range []string{"..", "../infra/tools", "../infra/tools/kube", "../infra/tools/versitygw", "bench/peer/connect"} {
		mod, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(mod, []byte("replace ")) || bytes.Contains(mod, []byte("replace(")) {
			t.Errorf("%s/go.mod replaces a module, want each from where it says", dir)
		}
		sums, err := os.ReadFile(filepath.Join(dir, "go.sum"))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`(?m)^\t?(?:require )?(\S+\.\S+/\S+) (v\S+)`).FindAllSubmatch(mod, -1) {
			if !bytes.Contains(sums, fmt.Appendf(nil, "%s %s/go.mod h1:", m[1], m[2])) {
				t.Errorf("%s/go.sum has no hash of %s %s", dir, m[1], m[2])
			}
		}
	}
	run, err := os.ReadFile("../.ci/run")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(run)) {
		npm := strings.Contains(line, "npm ci") || strings.Contains(line, "npm install") || strings.Contains(line, "npm i ")
		if npm && !strings.Contains(line, "--ignore-scripts") {
			t.Errorf(".ci/run has %q, want no script of a package run", strings.TrimSpace(line))
		}
		for _, loose := range []string{"@latest", "npm install", "GONOSUMDB", "GONOSUMCHECK", "GOFLAGS=-insecure", "GOINSECURE", "GONOSUMDB", "GOSUMDB=off", "curl "} {
			if strings.Contains(line, loose) {
				t.Errorf(".ci/run has %q, want what is pinned and verified", strings.TrimSpace(line))
			}
		}
	}
	locks, err := filepath.Glob("../infra/tools/*/package-lock.json")
	if err != nil || len(locks) == 0 {
		t.Fatalf("no lock files: %v", err)
	}
	for _, lock := range locks {
		var l struct {
			Packages map[string]struct{ Resolved, Integrity string }
		}
		text, err := os.ReadFile(lock)
		if err == nil {
			err = json.Unmarshal(text, &l)
		}
		if err != nil {
			t.Fatal(err)
		}
		for name, p := range l.Packages {
			if name != "" && !strings.HasPrefix(p.Integrity, "sha512-") {
				t.Errorf("%s: %s has no hash", lock, name)
			}
		}
	}
}
