package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kong"
)

// useConfigFile makes the settings of the file that args or UPWELL_CONFIG name
// the last resort of parser: after flags, after variables, before defaults. A key
// that no flag has is an error.
func useConfigFile(parser *kong.Kong, args []string, getenv func(string) string) error {
	path := getenv("UPWELL_CONFIG")
	for i, a := range args {
		if v, ok := strings.CutPrefix(a, "--config="); ok {
			path = v
		} else if a == "--config" && i+1 < len(args) {
			path = args[i+1]
		}
	}
	if path == "" {
		return nil
	}
	values, err := readConfig(path)
	if err != nil {
		return err
	}
	known := make(map[string]bool)
	for _, flag := range allFlags(parser.Model.Node) {
		known[key(flag)] = true
	}
	for k := range values {
		if !known[k] {
			return fmt.Errorf("%s: unknown setting %q: want one of %s", path, k,
				strings.Join(slices.Sorted(maps.Keys(known)), ", "))
		}
	}
	return kong.Resolvers(kong.ResolverFunc(func(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
		for _, name := range flag.Envs {
			if _, set := os.LookupEnv(name); set {
				return nil, nil //nolint:nilnil // kong's word for "not from me"
			}
		}
		if n, ok := values[key(flag)].(json.Number); ok {
			return n.String(), nil // kong reads numbers from text, as from a command line
		}
		return values[key(flag)], nil
	})).Apply(parser)
}

func readConfig(path string) (map[string]any, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	values := make(map[string]any)
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&values); err != nil {
		if e, ok := errors.AsType[*json.SyntaxError](err); ok {
			line := 1 + bytes.Count(text[:min(int(e.Offset), len(text))], []byte{'\n'})
			return nil, fmt.Errorf("%s:%d: %w", path, line, err)
		}
		return nil, fmt.Errorf("%s: want a JSON object: %w", path, err)
	}
	return values, nil
}

// inForce returns the settings of the command that k is about, as a file says them. A
// setting that has no value is left out.
func inForce(k *kong.Context) map[string]any {
	values := make(map[string]any)
	for _, flag := range settable(k.Flags()) {
		switch v := flag.Target.Interface().(type) {
		case string, []string:
			if flag.Target.Len() > 0 {
				values[key(flag)] = v
			}
		case time.Duration:
			values[key(flag)] = v.String()
		default:
			values[key(flag)] = v
		}
	}
	return values
}

// key is a flag's name in a file.
func key(f *kong.Flag) string { return strings.ReplaceAll(f.Name, "-", "_") }

// allFlags returns the flags of a command and of those beneath it.
func allFlags(n *kong.Node) []*kong.Flag {
	flags := slices.Clone(n.Flags)
	for _, child := range n.Children {
		flags = append(flags, allFlags(child)...)
	}
	return settable(flags)
}

// settable drops the flags that are no settings.
func settable(flags []*kong.Flag) []*kong.Flag {
	return slices.DeleteFunc(flags, func(f *kong.Flag) bool {
		return slices.Contains([]string{"help", "config", "version", "print-config"}, f.Name)
	})
}
