package jobs

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"upwell/jobs/skim"
)

const (
	// MaxCustomID is the longest custom_id, in bytes. It leaves room in an
	// SQS message attribute and in a log line; OpenAI documents no limit.
	MaxCustomID = 512

	// MaxRun is the longest name of a run. It is a part of every key of the
	// run, and S3 keys end at 1,024 bytes.
	MaxRun = 128
)

// ServiceTiers are the tiers a job may name, as Amazon Bedrock names them.
var ServiceTiers = []string{"flex", "default", "priority", "reserved"}

// A FormatError reports text that is not a job. Retrying cannot help.
type FormatError struct {
	Field  string // path of the field at fault, such as upwell.tiers; empty when it is the text as a whole
	Reason string // what is wrong with it, and what would be right
}

func (e *FormatError) Error() string {
	if e.Field == "" {
		return "not a job: " + e.Reason
	}
	return fmt.Sprintf("not a job: %s: %s", e.Field, e.Reason)
}

func bad(field, format string, args ...any) error {
	return &FormatError{field, fmt.Sprintf(format, args...)}
}

// Parse decodes a job: one line of an OpenAI batch file. A job that names no
// run is given the default one. The error is a [*FormatError]; the job's Key is
// filled in as far as it could be read even then, so that the failure can be
// filed under it.
//
// Keys beside those of a batch line are ignored, as OpenAI's tools add some;
// keys inside "upwell" are upwell's own, and an unknown one is an error.
func Parse(text []byte, defaultRun string) (Job, error) {
	j := Job{Key: Key{Run: defaultRun}}
	text = bytes.TrimLeft(text, " \t\r\n")
	if err := check(text); err != nil {
		return j, err
	}
	var id, method, url, body, upwell []byte
	for m := range skim.Members(text, 0) {
		value := m.Of(text)
		switch string(m.Key) {
		case "custom_id":
			id = value
		case "method":
			method = value
		case "url":
			url = value
		case "body":
			body = value
		case "upwell":
			upwell = value
		}
	}
	// The Key first, whatever is wrong with the rest.
	errID, errOptions := j.setID(id), j.setOptions(upwell)
	for _, err := range []error{errID, checkMethod(method), j.setURL(url), errOptions} {
		if err != nil {
			return j, err
		}
	}
	return j, j.setBody(body)
}

// check reports what keeps text from being one JSON object.
func check(text []byte) error {
	switch {
	case !utf8.Valid(text):
		return bad("", "not valid UTF-8 text")
	case json.Valid(text):
		if text[0] != '{' {
			return bad("", "a JSON %s, want an object", kind(text))
		}
		return nil
	}
	var first json.RawMessage
	switch err := json.NewDecoder(bytes.NewReader(text)).Decode(&first); {
	case err == nil:
		return bad("", "more text after the JSON value: put one job on a line")
	case errors.Is(err, io.EOF):
		return bad("", "empty")
	case errors.Is(err, io.ErrUnexpectedEOF):
		return bad("", "not JSON: it ends in the middle")
	default:
		return bad("", "not JSON: %v", err)
	}
}

func (j *Job) setID(value []byte) error {
	if absent(value) {
		return bad("custom_id", "missing: every job needs a name that is unique in its run")
	}
	id, err := str("custom_id", value)
	switch {
	case err != nil:
		return err
	case id == "":
		return bad("custom_id", "empty, want a name that is unique in its run")
	case len(id) > MaxCustomID:
		return bad("custom_id", "%d bytes long, want at most %d", len(id), MaxCustomID)
	case strings.ContainsRune(id, 0):
		return bad("custom_id", "contains a NUL character, want text without")
	case broken(id, value):
		return bad("custom_id", "contains half of a surrogate pair, want whole characters")
	}
	j.CustomID = id
	return nil
}

// broken reports whether decoding value put a U+FFFD into s for what is not a
// character. Names that differ only there would become one.
func broken(s string, value []byte) bool {
	return strings.ContainsRune(s, utf8.RuneError) &&
		!bytes.ContainsRune(value, utf8.RuneError) && !bytes.Contains(bytes.ToLower(value), []byte(`\ufffd`))
}

func checkMethod(value []byte) error {
	m, err := str("method", value)
	if err == nil && m != "" && m != "POST" {
		err = bad("method", "%.80q, want POST", m)
	}
	return err
}

func (j *Job) setURL(value []byte) (err error) {
	j.URL, err = str("url", value)
	if err == nil && j.URL != Responses && j.URL != ChatCompletions {
		err = bad("url", "%.80q, want %s or %s", j.URL, Responses, ChatCompletions)
	}
	return err
}

// setOptions reads a line's "upwell" object, all of it, and returns the first
// error.
func (j *Job) setOptions(value []byte) (first error) {
	if absent(value) {
		return nil
	}
	if value[0] != '{' {
		return bad("upwell", "a JSON %s, want an object", kind(value))
	}
	for m := range skim.Members(value, 0) {
		if err := j.setOption(string(m.Key), m.Of(value)); first == nil {
			first = err
		}
	}
	return first
}

func (j *Job) setOption(key string, value []byte) error {
	field := "upwell." + key
	switch key {
	case "run":
		run, err := str(field, value)
		if err != nil || run == "" {
			return err
		}
		if err := CheckRun(run); err != nil {
			return bad(field, "%v", err)
		}
		j.Run = run
	case "deadline":
		j.Deadline = time.Time{}
		if json.Unmarshal(value, &j.Deadline) != nil {
			return bad(field, "%.80s, want a time such as \"2026-01-02T15:04:05Z\"", value)
		}
	case "tiers":
		j.Tiers = nil
		if err := read(field, value, &j.Tiers); err != nil {
			return err
		}
		for _, t := range j.Tiers {
			if !slices.Contains(ServiceTiers, t) {
				return bad(field, "%.80q, want some of %s", t, strings.Join(ServiceTiers, ", "))
			}
		}
	case "regions":
		return j.setRegions(field, value)
	case "schema":
		j.Schema = nil
		switch value[0] {
		case '{', '"':
			j.Schema = value
		case 'n':
		default:
			return bad(field, "a JSON %s, want a JSON Schema object, or the name of one of the run's", kind(value))
		}
	case "max_attempts":
		return whole(field, value, 100, &j.MaxAttempts)
	case "output_ceiling":
		return whole(field, value, 1<<24, &j.OutputCeiling)
	case "template_sha256":
		sum, err := str(field, value)
		if err == nil && sum != "" && !sha256Hex.MatchString(sum) {
			err = bad(field, "%.80q, want a SHA-256 in hexadecimal", sum)
		}
		j.TemplateSHA256 = sum
		return err
	default:
		return bad(fmt.Sprintf("upwell.%.80s", key), "unknown key, want run, deadline, tiers, regions, schema, max_attempts, output_ceiling or template_sha256")
	}
	return nil
}

// whole reads a whole number from 1 to most, or null, into n.
func whole(field string, value []byte, most int, n *int) error {
	var v *int
	if err := read(field, value, &v); err != nil {
		return err
	}
	*n = 0
	if v != nil {
		*n = *v
		if *v < 1 || *v > most {
			return bad(field, "%d, want 1 to %d", *v, most)
		}
	}
	return nil
}

// setRegions takes no list that allows nothing: whoever wrote it meant something
// else, and where data may go is not to be guessed.
func (j *Job) setRegions(field string, value []byte) error {
	if err := read(field, value, &j.Regions); err != nil {
		return err
	}
	if j.Regions != nil && len(j.Regions) == 0 {
		return bad(field, "empty, want at least one Region, or leave it out")
	}
	for _, r := range j.Regions {
		if !regionName.MatchString(r) {
			return bad(field, "%.80q, want the names of Regions, such as us-west-2", r)
		}
	}
	return nil
}

// setBody looks at what upwell needs to know of the request. Everything else
// passes unread.
func (j *Job) setBody(body []byte) (err error) {
	if len(body) == 0 {
		return bad("body", "missing: want an object with the request to send")
	}
	if body[0] != '{' {
		return bad("body", "a JSON %s, want an object with the request to send", kind(body))
	}
	var model, tier []byte
	var stream, background bool
	for m := range skim.Members(body, 0) {
		value := m.Of(body)
		err = nil
		switch string(m.Key) {
		case "model":
			model = value
		case "service_tier":
			tier = value
		case "stream":
			stream = false
			err = read("body.stream", value, &stream)
		case "background":
			background = false
			err = read("body.background", value, &background)
		}
		if err != nil {
			return err
		}
	}
	if j.Model, err = str("body.model", model); err != nil {
		return err
	}
	switch {
	case j.Model == "":
		return bad("body.model", "missing: name the model, such as xai.grok-4.3")
	case stream:
		return bad("body.stream", "true, but answers are stored whole: leave it out")
	case background:
		return bad("body.background", "true, but the queue already waits in the background: leave it out")
	}
	if !absent(tier) && string(tier) != `"auto"` {
		if j.Tier, err = str("body.service_tier", tier); err != nil || !slices.Contains(ServiceTiers, j.Tier) {
			return bad("body.service_tier", "%.80s, want one of %s", tier, strings.Join(ServiceTiers, ", "))
		}
		if len(j.Tiers) > 0 {
			return bad("upwell.tiers", "the body already asks for service_tier %q: keep one of the two", j.Tier)
		}
	}
	j.Body = body
	return nil
}

// runName has no separator, no leading dot and nothing that a shell, a URL or a
// file system reads as anything but a letter.
var runName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]*$`)

// regionName is how AWS and the others spell theirs.
var regionName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)

// sha256Hex is how a hash is written.
var sha256Hex = regexp.MustCompile(`^[0-9a-f]{64}$`)

// CheckRun reports what is wrong with the name of a run: it is a folder of
// results, so it is held to letters, digits, dot, dash and underscore.
func CheckRun(name string) error {
	switch {
	case len(name) > MaxRun:
		return fmt.Errorf("%d bytes long, want at most %d", len(name), MaxRun)
	case !runName.MatchString(name):
		return fmt.Errorf("%q, want letters, digits, dot, dash or underscore, not starting with a dot or dash", name)
	}
	return nil
}

// absent reports whether a value is not there, or null.
func absent(value []byte) bool { return len(value) == 0 || value[0] == 'n' }

// str returns what a string says, or "" if it is absent.
func str(field string, value []byte) (string, error) {
	switch {
	case absent(value):
		return "", nil
	case value[0] != '"':
		return "", bad(field, "a JSON %s, want a string", kind(value))
	}
	return skim.Unquote(value), nil
}

// read decodes value into v and words the error for whoever wrote the job.
func read(field string, value []byte, v any) error {
	err := json.Unmarshal(value, v)
	if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return bad(field, "a JSON %.80s, want %s", e.Value, wanted(e))
	}
	if err != nil {
		return bad(field, "%v", err)
	}
	return nil
}

func wanted(e *json.UnmarshalTypeError) string {
	switch e.Type.Kind() {
	case reflect.Slice:
		return "a list"
	case reflect.Int:
		return "a whole number"
	case reflect.Bool:
		return "true or false"
	default:
		return "a string"
	}
}

// kind names the kind of a value as package json does in its errors.
func kind(value []byte) string {
	switch value[0] {
	case '{':
		return "object"
	case '[':
		return "array"
	case '"':
		return "string"
	case 't', 'f':
		return "bool"
	case 'n':
		return "null"
	default:
		return "number"
	}
}
