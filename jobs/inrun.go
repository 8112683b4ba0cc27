package jobs

import (
	"bytes"
	"slices"

	"upwell/jobs/skim"
)

// InRun returns the text of a job that [Parse] takes with its run written into it, so that it
// belongs to that run wherever it goes. Everything else stays as it is, byte for
// byte. A job that names a run already is returned unchanged. The error is a
// [*FormatError].
func InRun(text []byte, run string) ([]byte, error) {
	text = bytes.TrimSpace(text)
	if err := check(text); err != nil {
		return nil, err
	}
	at := skim.Find(text, 0, "upwell")
	switch {
	case at.End == 0:
		return insert(text, 1, `"upwell":{"run":"`+run+`"},`), nil
	case at.Unset(text):
		return slices.Concat(text[:at.At], []byte(`{"run":"`+run+`"}`), text[at.End:]), nil
	}
	var j Job
	options := at.Of(text)
	if err := j.setOptions(options); err != nil || j.Run != "" {
		return text, err
	}
	set := `"run":"` + run + `"`
	if len(bytes.TrimSpace(options[1:])) > 1 { // more than the closing brace
		set += ","
	}
	return insert(text, at.At+1, set), nil
}

func insert(text []byte, at int, s string) []byte {
	return slices.Concat(text[:at], []byte(s), text[at:])
}
