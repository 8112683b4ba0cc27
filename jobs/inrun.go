package jobs

import (
	"bytes"
	"slices"
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
	at := find(text, "upwell")
	switch {
	case at < 0:
		return insert(text, next(text, 0)+1, `"upwell":{"run":"`+run+`"},`), nil
	case absent(text[at:]):
		return slices.Concat(text[:at], []byte(`{"run":"`+run+`"}`), text[at+len("null"):]), nil
	}
	var j Job
	options := text[at:end(text, at)]
	if err := j.setOptions(options); err != nil || j.Run != "" {
		return text, err
	}
	set := `"run":"` + run + `"`
	if len(bytes.TrimSpace(options[1:])) > 1 { // more than the closing brace
		set += ","
	}
	return insert(text, at+1, set), nil
}

func insert(text []byte, at int, s string) []byte {
	return slices.Concat(text[:at], []byte(s), text[at:])
}

// find returns where the value of the object's key begins, or -1. Of a key that
// comes twice it is the last.
func find(object []byte, key string) int {
	at := -1
	for i := next(object, 1); object[i] != '}'; {
		k := end(object, i)
		v := next(object, k)
		if unquote(object[i:k]) == key {
			at = v
		}
		i = next(object, end(object, v))
	}
	return at
}
