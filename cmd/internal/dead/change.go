package dead

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"upwell/jobs"
)

// A Change is what is to be different in jobs that are redriven. The zero Change
// leaves them as they are.
type Change struct {
	edits []edit
}

// An edit changes the text of a job. url is the API that it asks for.
type edit func(text []byte, url string) ([]byte, error)

// settings are the keys that have a meaning of their own, whatever the API.
var settings = map[string]func(value string) (edit, error){
	"max_output_tokens": maxOutputTokens,
	"tier":              tier,
	"model":             func(v string) (edit, error) { return put("body.model", text(v)), nil },
	"effort":            effort,
	"max_attempts":      number("upwell.max_attempts"),
	"output_ceiling":    number("upwell.output_ceiling"),
	"deadline":          deadline,
}

// ParseChange reads settings such as max_output_tokens=8000, tier=flex,
// body.temperature=0 or upwell.regions=["us-west-2"].
func ParseChange(sets []string) (Change, error) {
	var c Change
	for _, set := range sets {
		key, value, ok := strings.Cut(set, "=")
		if !ok || value == "" {
			return c, fmt.Errorf("%q, want KEY=VALUE, such as max_output_tokens=8000", set)
		}
		e, err := parseEdit(key, value)
		if err != nil {
			return c, fmt.Errorf("%s: %w", set, err)
		}
		c.edits = append(c.edits, e)
	}
	return c, nil
}

func parseEdit(key, value string) (edit, error) {
	if parse := settings[key]; parse != nil {
		return parse(value)
	}
	part, rest, _ := strings.Cut(key, ".")
	if part != "body" && part != "upwell" || slices.Contains(strings.Split(rest, "."), "") {
		return nil, fmt.Errorf("unknown key %q, want max_output_tokens, tier, model, effort, max_attempts, output_ceiling, deadline, "+
			"or a path such as body.temperature or upwell.tiers", key)
	}
	if !json.Valid([]byte(value)) {
		return nil, fmt.Errorf("want JSON for a path: text goes in double quotes")
	}
	return put(key, value), nil
}

// Apply returns the text of a job with the change made, and everything else as it
// is, byte for byte.
func (c Change) Apply(text []byte) ([]byte, error) {
	if len(c.edits) == 0 {
		return text, nil
	}
	j, _ := jobs.Parse(text, "") // what is wrong with it may be what the change mends
	var err error
	for _, e := range c.edits {
		if text, err = e(text, j.URL); err != nil {
			return nil, err
		}
	}
	return text, nil
}

// put is the edit that sets the value at a path.
func put(path, value string) edit {
	return func(text []byte, _ string) ([]byte, error) {
		return jobs.Set(text, strings.Split(path, "."), []byte(value))
	}
}

// remove is the edit that removes what is at a path.
func remove(path string) edit {
	return func(text []byte, _ string) ([]byte, error) { return jobs.Unset(text, strings.Split(path, ".")) }
}

// both makes one edit after the other.
func both(a, b edit) edit {
	return func(text []byte, url string) ([]byte, error) {
		text, err := a(text, url)
		if err != nil {
			return nil, err
		}
		return b(text, url)
	}
}

// text returns a value as a JSON string.
func text(value string) string {
	b, err := json.Marshal(value)
	if err != nil {
		panic(err) // strings can be encoded
	}
	return string(b)
}

// number returns what reads a whole number for a path.
func number(path string) func(string) (edit, error) {
	return func(value string) (edit, error) {
		if n, err := strconv.Atoi(value); err != nil || n < 1 {
			return nil, fmt.Errorf("want a whole number from 1")
		}
		return put(path, value), nil
	}
}

// maxOutputTokens sets the limit under the name that the API has for it. Chat has
// had two, and models that know the older one only are asked with that.
func maxOutputTokens(value string) (edit, error) {
	if _, err := number("")(value); err != nil {
		return nil, err
	}
	return func(text []byte, url string) ([]byte, error) {
		path := "body.max_output_tokens"
		if url == jobs.ChatCompletions {
			path = "body.max_completion_tokens"
			if has(text, "max_tokens") && !has(text, "max_completion_tokens") {
				path = "body.max_tokens"
			}
		}
		return put(path, value)(text, url)
	}, nil
}

// effort sets how much the model reasons, where the API looks for it.
func effort(value string) (edit, error) {
	return func(job []byte, url string) ([]byte, error) {
		path := "body.reasoning.effort"
		if url == jobs.ChatCompletions {
			path = "body.reasoning_effort"
		}
		return put(path, text(value))(job, url)
	}, nil
}

// tier sets the service tiers to try. One goes where the job has its tier, if it
// has one, and more go where there is room for them; the other place is emptied.
func tier(value string) (edit, error) {
	tiers := strings.Split(value, ",")
	for _, t := range tiers {
		if !slices.Contains(jobs.ServiceTiers, t) {
			return nil, fmt.Errorf("unknown tier %q, want some of %s", t, list(jobs.ServiceTiers))
		}
	}
	all, err := json.Marshal(tiers)
	if err != nil {
		return nil, err
	}
	inBody := both(put("body.service_tier", text(tiers[0])), remove("upwell.tiers"))
	beside := both(remove("body.service_tier"), put("upwell.tiers", string(all)))
	return func(job []byte, url string) ([]byte, error) {
		if len(tiers) == 1 && has(job, "service_tier") {
			return inBody(job, url)
		}
		return beside(job, url)
	}, nil
}

// deadline takes a time, a duration from now, or none.
func deadline(value string) (edit, error) {
	if value == "none" {
		return remove("upwell.deadline"), nil
	}
	at, err := time.Parse(time.RFC3339, value)
	if d, derr := time.ParseDuration(value); derr == nil {
		at, err = time.Now().Add(d).UTC(), nil
	}
	switch {
	case err != nil:
		return nil, fmt.Errorf("want a time such as 2026-01-02T15:04:05Z, a duration from now such as 24h, or none")
	case time.Until(at) <= 0:
		return nil, fmt.Errorf("it has passed")
	}
	return put("upwell.deadline", text(at.Format(time.RFC3339))), nil
}

// has reports whether the body of a job has a key. What cannot be read has none.
func has(job []byte, key string) bool {
	var top, body map[string]json.RawMessage // maps, as keys are matched exactly there
	_ = json.Unmarshal(job, &top)
	_ = json.Unmarshal(top["body"], &body)
	_, ok := body[key]
	return ok
}
