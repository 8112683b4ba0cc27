// Package dead chooses dead letters, changes the jobs in them, and sends those
// back to be done.
package dead

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"upwell/jobs"
	"upwell/jobs/sqsqueue"
)

// Classes are all that a letter may have, in the order in which they are shown.
var Classes = []jobs.Class{
	jobs.Truncated, jobs.SchemaFailed, jobs.Refused, jobs.ContextLength, jobs.BadRequest, jobs.BadJob,
	jobs.Exhausted, jobs.Expired, jobs.Poison, sqsqueue.Unknown,
}

// A Filter chooses letters. The zero Filter chooses all.
type Filter struct {
	wanted map[string][]string // values by key; a letter must have one of each key's
	older  time.Duration
}

// matchers say whether a letter has a value, for each key but older.
var matchers = map[string]func(l *sqsqueue.Letter, value string) bool{
	"class":  func(l *sqsqueue.Letter, value string) bool { return string(l.Class) == value },
	"run":    func(l *sqsqueue.Letter, value string) bool { return l.Run == value },
	"model":  func(l *sqsqueue.Letter, value string) bool { return l.Model == value },
	"id":     Named,
	"status": hasStatus,
}

// Named reports whether a name is that of the letter: its job's custom_id, with or
// without the run before it, or its message's id.
func Named(l *sqsqueue.Letter, name string) bool {
	return name == l.CustomID || name == l.Key.String() || name == l.ID
}

// Name returns what a letter is called on a terminal: its job's run and custom_id as
// far as they are known, or its message's id.
func Name(l *sqsqueue.Letter) string {
	if name := strings.Trim(l.Key.String(), "/"); name != "" {
		return Clean(name)
	}
	return Clean(l.ID)
}

func hasStatus(l *sqsqueue.Letter, value string) bool {
	if hundred, ok := strings.CutSuffix(value, "xx"); ok {
		return strconv.Itoa(l.Status/100) == hundred
	}
	return strconv.Itoa(l.Status) == value
}

// keys are what a term may begin with, beside older.
var keys = slices.Sorted(maps.Keys(matchers))

// nextTerm is a comma with a term behind it. The others belong to an id.
var nextTerm = regexp.MustCompile(`,(` + strings.Join(keys, "|") + `|older)=`)

// terms returns the terms of all arguments, where commas separate several.
func terms(args []string) (all []string) {
	for _, arg := range args {
		for at := nextTerm.FindStringIndex(arg); at != nil; at = nextTerm.FindStringIndex(arg) {
			all, arg = append(all, arg[:at[0]]), arg[at[0]+len(","):]
		}
		all = append(all, arg)
	}
	return all
}

// ParseFilter reads terms such as class=truncated, or several with commas in between.
// Of terms with the same key, any will do.
func ParseFilter(args []string) (f Filter, err error) {
	f.wanted = make(map[string][]string)
	for _, term := range terms(args) {
		key, value, ok := strings.Cut(term, "=")
		switch {
		case !ok || value == "":
			return f, fmt.Errorf("%q, want KEY=VALUE, such as class=truncated", term)
		case key == "older":
			f.older, err = age(value)
		default:
			f.wanted[key] = append(f.wanted[key], value)
			err = check(key, value)
		}
		if err != nil {
			return f, err
		}
	}
	return f, nil
}

// check reports what is wrong with a term.
func check(key, value string) error {
	switch {
	case matchers[key] == nil:
		return fmt.Errorf("unknown key %q, want %s or older", key, list(keys))
	case key != "id" && strings.Contains(value, ","):
		return fmt.Errorf("%s=%s: want KEY=VALUE after a comma, with one of %s or older", key, value, list(keys))
	case key == "class" && !slices.Contains(Classes, jobs.Class(value)):
		return fmt.Errorf("class=%s: unknown class, want %s", value, list(Classes))
	case key == "status" && !statusTerm.MatchString(value):
		return fmt.Errorf("status=%s: want a status, such as 500 or 5xx, or 0 where there was no answer", value)
	}
	return nil
}

// statusTerm is a status, all of a hundred, or 0 where there was no answer.
var statusTerm = regexp.MustCompile(`^(0|[1-5]([0-9][0-9]|xx))$`)

// age reads a duration, which may be one of days.
func age(value string) (time.Duration, error) {
	d, err := time.ParseDuration(value)
	if days, ok := strings.CutSuffix(value, "d"); ok {
		var n int
		n, err = strconv.Atoi(days)
		d = time.Duration(n) * 24 * time.Hour
	}
	if err != nil || d < 0 {
		return 0, fmt.Errorf("older=%s: want a duration, such as 90m, 24h or 7d", value)
	}
	return d, nil
}

func list[T ~string](all []T) string {
	words := make([]string, len(all))
	for i, w := range all {
		words[i] = string(w)
	}
	return strings.Join(words, ", ")
}

// Match reports whether the filter chooses the letter.
func (f Filter) Match(l *sqsqueue.Letter) bool {
	if f.older > 0 && time.Since(l.Since()) < f.older {
		return false
	}
	for key, values := range f.wanted {
		if !slices.ContainsFunc(values, func(v string) bool { return matchers[key](l, v) }) {
			return false
		}
	}
	return true
}

// asksModel reports whether the filter asks for what only a letter's body says.
func (f Filter) asksModel() bool { return len(f.wanted["model"]) > 0 }
