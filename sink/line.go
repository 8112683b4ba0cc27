package sink

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"upwell/jobs"
)

// Encode returns r as it is stored: one line of JSON and a newline. The
// response's body and the output keep every digit and every byte of text as
// they came; only white space between their tokens may go. What is not JSON in
// them is an error.
func Encode(r jobs.Result) ([]byte, error) {
	// encoding/json would scan what is already JSON twice and copy it twice
	// more, and that is nearly all of a line. So it encodes the line with a
	// hole in the place of each, and the text is put in afterwards.
	var body, output json.RawMessage
	if r.Response != nil {
		resp := *r.Response
		body, resp.Body = hole(resp.Body)
		r.Response = &resp
	}
	output, r.Upwell.Output = hole(r.Upwell.Output)
	rest, err := marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encode result: %w", err)
	}
	line := make([]byte, 0, len(rest)+len(body)+len(output))
	if line, rest, err = fill(line, rest, `"body":0`, body); err != nil {
		return nil, fmt.Errorf("encode result: response body: %w", err)
	}
	if line, rest, err = fill(line, rest, `"output":0`, output); err != nil {
		return nil, fmt.Errorf("encode result: output: %w", err)
	}
	return append(line, rest...), nil
}

// hole returns what is to be left out of the encoding, and what to encode
// instead. There is nothing to leave out of an absent value.
func hole(raw json.RawMessage) (out, in json.RawMessage) {
	if len(raw) == 0 {
		return nil, nil
	}
	return raw, json.RawMessage("0")
}

// fill appends to line the part of rest up to its first hole and then raw, and
// returns what follows. A hole cannot be mistaken: inside of strings, its
// quotes would be escaped.
func fill(line, rest []byte, hole string, raw json.RawMessage) (filled, after []byte, err error) {
	if raw == nil {
		return line, rest, nil
	}
	i := bytes.Index(rest, []byte(hole))
	if i < 0 {
		return nil, nil, errors.New("no place for it")
	}
	i += len(hole) - 1
	line, err = appendJSON(append(line, rest[:i]...), raw)
	return line, rest[i+1:], err
}

func appendJSON(dst []byte, raw json.RawMessage) ([]byte, error) {
	if oneLine(raw) {
		return append(dst, raw...), nil
	}
	b := bytes.NewBuffer(dst)
	err := json.Compact(b, raw)
	return b.Bytes(), err
}

// marshal is json.Marshal with a newline at the end and <, > and & as they are.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return b.Bytes(), err
}

// Decode is the inverse of [Encode]. Keys that it does not know are ignored: a
// newer upwell may have written them.
func Decode(line []byte) (jobs.Result, error) {
	var r jobs.Result
	if err := json.Unmarshal(line, &r); err != nil {
		return r, fmt.Errorf("%w: %w", ErrLine, err)
	}
	return r, nil
}

// ErrLine is the error of decoding what is no line.
var ErrLine = errors.New("not a line")
