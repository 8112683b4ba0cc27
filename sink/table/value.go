package table

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"iter"
	"strconv"
	"strings"
	"time"

	"upwell/jobs/skim"
)

// A Value is a cell, or an item of the list in one. Which of its fields counts is
// up to its type. The zero Value is null.
//
// A list has its items in its JSON alone: as Values, short ones would take forty times
// the memory.
type Value struct {
	raw  []byte // what it was made from, as JSON; nil for null
	text string // of a String or JSON
	n    int64  // an Int64; 1 for true; days or microseconds since 1970; a list's length
	f    float64
}

// Null reports whether the value is null.
func (v Value) Null() bool { return v.raw == nil }

// errMisfit is the error of a value that is not of its type. The caller knows what
// to say.
var errMisfit = errors.New("does not fit")

// value makes a value of that type of valid JSON.
func (t Type) value(raw []byte) (Value, error) {
	switch {
	case kindOf(raw) == "null":
		return Value{}, nil
	case t.List:
		return t.listOf(raw)
	default:
		return t.Kind.value(raw)
	}
}

func (t Type) listOf(raw []byte) (Value, error) {
	if kindOf(raw) != "array" {
		return Value{}, errMisfit
	}
	v := Value{raw: raw}
	for item := range skim.Items(raw, 0) {
		if _, err := (Type{Kind: t.Kind}).value(item.Of(raw)); err != nil {
			return Value{}, err
		}
		v.n++
	}
	return v, nil
}

// items yields the items of a list that listOf has made.
func (t Type) items(list Value) iter.Seq[Value] {
	return func(yield func(Value) bool) {
		for item := range skim.Items(list.raw, 0) {
			v, _ := Type{Kind: t.Kind}.value(item.Of(list.raw)) // listOf has seen the error, if any
			if !yield(v) {
				return
			}
		}
	}
}

func (k Kind) value(raw []byte) (v Value, err error) {
	v.raw = raw
	is := kindOf(raw)
	switch {
	case k == String && is == "string":
		v.text = skim.Unquote(raw)
	case k == String, k == JSON:
		v.text = string(raw)
	case k == Int64 && is == "number":
		v.n, err = whole(string(raw))
	case k == Double && is == "number":
		v.f, err = strconv.ParseFloat(string(raw), 64)
	case k == Bool && is == "boolean":
		if raw[0] == 't' {
			v.n = 1
		}
	case k == Date && is == "string":
		v.n, err = days(skim.Unquote(raw))
	case k == Timestamp && is == "string":
		v.n, err = micros(skim.Unquote(raw))
	default:
		err = errMisfit
	}
	if err != nil {
		return Value{}, errMisfit
	}
	return v, nil
}

// maxZeros is how many zeros can follow the other digits of an int64.
const maxZeros = 18

// whole reads a JSON number without a fraction, in whatever way it is written. It
// moves the point among the digits, as a float64 has not enough of them.
func whole(s string) (int64, error) {
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		return n, nil
	}
	mantissa, exponent, _ := strings.Cut(strings.ToLower(s), "e")
	before, after, _ := strings.Cut(mantissa, ".")
	digits := strings.TrimRight(before+after, "0")
	if digits == "" || digits == "-" {
		return 0, nil
	}
	shift, err := strconv.Atoi(cmp.Or(exponent, "0"))
	zeros := len(before) + shift - len(digits)
	if err != nil || zeros < 0 || zeros > maxZeros {
		return 0, errMisfit
	}
	return strconv.ParseInt(digits+strings.Repeat("0", zeros), 10, 64)
}

const secondsOfDay = 24 * 60 * 60

// days returns the days from 1970 to a date.
func days(s string) (int64, error) {
	t, err := time.Parse(time.DateOnly, s)
	return t.Unix() / secondsOfDay, err // there is no remainder that could round the wrong way
}

// micros returns the microseconds from 1970 to a moment. RFC 3339 allows its letters
// to be small, which package time does not.
func micros(s string) (int64, error) {
	t, err := time.Parse(time.RFC3339, strings.ToUpper(s))
	return t.UnixMicro(), err
}

// microLayout writes moments so that their text sorts as they do.
const microLayout = "2006-01-02T15:04:05.000000Z"

// format returns the text of v in a CSV file. That of a list is its JSON.
func (t Type) format(v Value) string {
	switch {
	case v.Null():
		return ""
	case t.List:
		return string(v.raw)
	}
	switch t.Kind {
	case String, JSON:
		return v.text
	case Int64:
		return strconv.FormatInt(v.n, 10)
	case Date:
		return time.Unix(v.n*secondsOfDay, 0).UTC().Format(time.DateOnly)
	case Timestamp:
		return time.UnixMicro(v.n).UTC().Format(microLayout)
	default:
		return string(v.raw) // with the digits that it came with
	}
}

// append appends v as JSON.
func (t Type) append(dst []byte, v Value) []byte {
	switch {
	case v.Null():
		return append(dst, "null"...)
	case t.List:
		return t.appendList(dst, v)
	case t.Kind == String && kindOf(v.raw) != "string":
		return append(dst, skim.Quote(v.text)...)
	case t.Kind == Date, t.Kind == Timestamp:
		return append(dst, `"`+t.format(v)+`"`...)
	case t.Kind == Int64:
		return strconv.AppendInt(dst, v.n, 10)
	default:
		return append(dst, v.raw...)
	}
}

func (t Type) appendList(dst []byte, v Value) []byte {
	sep := byte('[')
	for item := range t.items(v) {
		dst = Type{Kind: t.Kind}.append(append(dst, sep), item)
		sep = ','
	}
	if v.n == 0 {
		dst = append(dst, '[')
	}
	return append(dst, ']')
}

// oneLine returns JSON without the line breaks that it may have between its tokens.
func oneLine(raw []byte) ([]byte, error) {
	raw = bytes.TrimSpace(raw)
	if json.Valid(raw) && bytes.IndexByte(raw, '\n') < 0 && bytes.IndexByte(raw, '\r') < 0 {
		return raw, nil
	}
	var b bytes.Buffer
	err := json.Compact(&b, raw)
	return b.Bytes(), err
}
