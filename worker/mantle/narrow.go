package mantle

import (
	"slices"

	"upwell/jobs/skim"
)

// xaiRefuses are the keywords that xAI's structured outputs do not take.
// Source: docs.x.ai, Structured Outputs; no source says what Bedrock makes of
// them. Answers are held to them all the same.
var xaiRefuses = []string{"minLength", "maxLength", "minItems", "maxItems", "minContains", "maxContains", "allOf"}

// literals are the keywords whose values are not schemas and hold none.
var literals = []string{"enum", "const", "default", "examples", "example", "required", "dependentRequired"}

// schemaMaps are the keywords whose values are schemas by a name of the author's, who
// may well call a property minLength.
var schemaMaps = []string{"properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies"}

// narrow appends schema to dst, without the keywords that xAI does not take.
// Order stays as it is: models write properties in the order of the schema.
func narrow(dst, schema []byte) []byte {
	return object(dst, schema, func(dst, key, value []byte) ([]byte, bool) {
		switch k := string(key); {
		case slices.Contains(xaiRefuses, k):
			return dst, false
		case slices.Contains(literals, k):
			return append(dst, value...), true
		case slices.Contains(schemaMaps, k):
			return object(dst, value, func(dst, _, value []byte) ([]byte, bool) { return narrow(dst, value), true }), true
		case value[0] == '[':
			return narrowAll(dst, value), true
		default:
			return narrow(dst, value), true
		}
	})
}

func narrowAll(dst, array []byte) []byte {
	dst = append(dst, '[')
	for v := range skim.Items(array, 0) {
		if dst[len(dst)-1] != '[' {
			dst = append(dst, ',')
		}
		dst = narrow(dst, v.Of(array))
	}
	return append(dst, ']')
}

// object appends the members of a JSON object that each appends and reports
// true for, or text as it is if it is no object.
func object(dst, text []byte, each func(dst, key, value []byte) ([]byte, bool)) []byte {
	if text[0] != '{' {
		return append(dst, text...)
	}
	dst = append(dst, '{')
	comma := false
	for m := range skim.Members(text, 0) {
		before := len(dst)
		if comma {
			dst = append(dst, ',')
		}
		dst = append(append(dst, quote(string(m.Key))...), ':')
		var kept bool
		if dst, kept = each(dst, m.Key, m.Of(text)); !kept {
			dst = dst[:before]
			continue
		}
		comma = true
	}
	return append(dst, '}')
}
