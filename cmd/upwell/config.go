package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kong"
)

// useConfigFile makes the settings of the file that args or UPWELL_CONFIG name
// the last resort of parser: after flags, after variables, before defaults. The error
// names all of them that no flag has, or that have no value for theirs.
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
	settings, err := readConfig(path)
	if err != nil {
		return err
	}
	flags := make(map[string][]*kong.Flag) // several verbs may have the same one
	for _, flag := range allFlags(parser.Model.Node) {
		flags[key(flag)] = append(flags[key(flag)], flag)
	}
	values := make(map[string]any)
	var bad []error
	for _, s := range settings {
		err := s.check(flags)
		if _, twice := values[s.key]; twice {
			err = errors.New("set for the second time")
		}
		if err != nil {
			bad = append(bad, fmt.Errorf("%s:%d: %s: %w", path, s.line, s.key, err))
		}
		values[s.key] = s.value
	}
	if len(bad) > 0 {
		return errors.Join(bad...)
	}
	return kong.Resolvers(kong.ResolverFunc(func(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
		for _, name := range flag.Envs {
			if _, set := os.LookupEnv(name); set {
				return nil, nil //nolint:nilnil // kong's word for "not from me"
			}
		}
		return values[key(flag)], nil
	})).Apply(parser)
}

// A setting is a member of a file's object.
type setting struct {
	key   string
	text  json.RawMessage
	value any // as kong takes it; nil for null, which sets nothing
	line  int
}

// check reports what is wrong with the setting.
func (s setting) check(flags map[string][]*kong.Flag) error {
	if len(flags[s.key]) == 0 {
		plain := strings.NewReplacer("-", "", "_", "", " ", "")
		for name := range flags {
			if strings.EqualFold(plain.Replace(name), plain.Replace(s.key)) {
				return fmt.Errorf("unknown setting, want %s", name)
			}
		}
		return errors.New("unknown setting: settings are named as flags are, with underscores")
	}
	if s.value == nil || slices.ContainsFunc(flags[s.key], s.fits) {
		return nil
	}
	return fmt.Errorf("want %s, not %.100s", wanted(flags[s.key][0]), s.text)
}

// fits reports whether the flag takes the setting's value.
func (s setting) fits(flag *kong.Flag) bool {
	target := reflect.New(flag.Target.Type()).Elem()
	if flag.Parse(kong.Scan().PushTyped(s.value, kong.FlagValueToken), target) != nil {
		return false
	}
	if flag.Enum == "" {
		return true
	}
	for _, v := range each(target) {
		if !slices.Contains(flag.EnumSlice(), fmt.Sprint(v)) {
			return false
		}
	}
	return true
}

// each returns the elements of a list, or the value itself.
func each(v reflect.Value) []reflect.Value {
	if v.Kind() != reflect.Slice {
		return []reflect.Value{v}
	}
	var all []reflect.Value
	for _, e := range v.Seq2() {
		all = append(all, e)
	}
	return all
}

// wanted says what a flag takes.
func wanted(flag *kong.Flag) string {
	if flag.Enum != "" {
		return "one of " + strings.Join(flag.EnumSlice(), ", ")
	}
	switch flag.Target.Interface().(type) {
	case time.Duration:
		return `a duration such as "30s", "5m" or "1h30m"`
	case bool:
		return "true or false"
	case int, int64:
		return "a whole number"
	case float64:
		return "a number"
	case []string:
		return "a list of texts"
	default:
		return "a text"
	}
}

// readConfig returns the settings of a file in their order.
func readConfig(path string) (list []setting, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	d := json.NewDecoder(bytes.NewReader(text))
	line := func(offset int64) int { return 1 + bytes.Count(text[:min(int(offset), len(text))], []byte{'\n'}) }
	broken := func(err error) error {
		at := d.InputOffset()
		if e, ok := errors.AsType[*json.SyntaxError](err); ok {
			at = e.Offset
		}
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return fmt.Errorf("%s:%d: %w", path, line(at), err)
	}
	switch open, err := d.Token(); {
	case err != nil:
		return nil, broken(err)
	case open != json.Delim('{'):
		return nil, fmt.Errorf("%s: want a JSON object", path)
	}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return nil, broken(err)
		}
		s := setting{key: fmt.Sprint(name), line: line(d.InputOffset())}
		if err := d.Decode(&s.text); err != nil {
			return nil, broken(err)
		}
		if err := json.Unmarshal(s.text, &s.value); err != nil {
			return nil, broken(err)
		}
		if _, ok := s.value.(float64); ok {
			s.value = string(s.text) // kong reads numbers from text, as from a command line
		}
		list = append(list, s)
	}
	if _, err := d.Token(); err != nil {
		return nil, broken(err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s:%d: want nothing after the object", path, line(d.InputOffset()))
	}
	return list, nil
}

// decodeDuration reads what time.Duration's String writes, for flags: none has a meaning
// for less than nothing.
func decodeDuration(ctx *kong.DecodeContext, target reflect.Value) error {
	var text string
	if err := ctx.Scan.PopValueInto("duration", &text); err != nil {
		return err
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return fmt.Errorf("want a duration such as 30s, 5m or 1h30m, not %q", text)
	}
	target.Set(reflect.ValueOf(d))
	return nil
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
