package input

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"iter"
	"unicode/utf8"
)

// jsonRows yields the objects of JSON lines. Numbers keep their text, and null is "".
func jsonRows(in io.Reader) iter.Seq2[row, error] {
	return func(yield func(row, error) bool) {
		s := bufio.NewScanner(in)
		s.Buffer(make([]byte, 64<<10), maxLine)
		r := row{}
		for s.Scan() {
			r.line++
			text := s.Bytes()
			if r.line == 1 {
				text = bytes.TrimPrefix(text, []byte(utf8BOM))
			}
			if text = bytes.TrimSpace(text); len(text) == 0 {
				continue
			}
			r.n++
			values, err := object(text)
			if !yield(row{r.n, r.line, values, len(text)}, err) {
				return
			}
		}
		switch err := s.Err(); {
		case errors.Is(err, bufio.ErrTooLong):
			yield(row{line: r.line + 1}, badRow("longer than %d MiB: put one object on a line", maxLine>>20))
		case err != nil:
			yield(row{}, err)
		}
	}
}

// object decodes a row.
func object(text []byte) (map[string]any, error) {
	if !utf8.Valid(text) {
		return nil, badRow("%s", notText(string(text)))
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var values map[string]any
	err := d.Decode(&values)
	mistyped, isType := errors.AsType[*json.UnmarshalTypeError](err)
	switch {
	case isType:
		return nil, badRow("a JSON %s, want an object: one row on a line, {\"column\": value, …}", mistyped.Value)
	case errors.Is(err, io.ErrUnexpectedEOF):
		return nil, badRow("not JSON: it ends in the middle: put one object on a line")
	case err != nil:
		return nil, badRow("not JSON: %v", err)
	case values == nil:
		return nil, badRow("a JSON null, want an object")
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, badRow("more text after the JSON object: put one on a line")
	}
	for name, v := range values {
		if v == nil {
			values[name] = ""
		}
	}
	return values, nil
}
