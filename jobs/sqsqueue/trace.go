package sqsqueue

import (
	"cmp"
	"encoding/hex"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"upwell/jobs"
)

// Message attributes that carry a trace.
const (
	attrTraceparent = "traceparent"
	attrTracestate  = "tracestate"
)

const (
	// maxAttributes is how many message attributes SQS takes.
	maxAttributes = 10

	// maxTrace bounds a tracestate and an X-Ray header, in bytes: what W3C wants
	// carried, and more than X-Ray's own ever have.
	maxTrace = 512
)

// A traced is how a message is tied to a trace. The zero traced is not.
type traced struct {
	trace  jobs.Trace
	header string // X-Ray's form
}

// traceOf returns the trace that m belongs to, and its X-Ray header. Either is empty
// if m has none that is well-formed.
func traceOf(m types.Message) (t jobs.Trace, header string) {
	text := func(name string) string {
		if a := m.MessageAttributes[name]; aws.ToString(a.DataType) == "String" {
			return aws.ToString(a.StringValue)
		}
		return ""
	}
	header = m.Attributes[string(types.MessageSystemAttributeNameAWSTraceHeader)]
	parent, ok := fromXRay(header)
	if !ok {
		header = ""
	}
	t = valid(jobs.Trace{Parent: text(attrTraceparent), State: text(attrTracestate)})
	if t.Parent == "" {
		t.Parent = parent
	}
	return t, header
}

// tracedOf returns how a message that was received is tied to a trace.
func tracedOf(m jobs.Message) traced { return newTraced(m.Trace, originOf(m).header) }

func (o Outgoing) traced() traced { return newTraced(o.Trace, o.header) }

// newTraced makes the header of the trace if there is none.
func newTraced(t jobs.Trace, header string) traced {
	t = valid(t)
	return traced{t, cmp.Or(header, toXRay(t.Parent))}
}

// attributes returns the message attributes that carry the trace, the one that can do
// without the others first.
func (t traced) attributes() (list []struct{ name, value string }) {
	for _, a := range []struct{ name, value string }{{attrTraceparent, t.trace.Parent}, {attrTracestate, t.trace.State}} {
		if a.value != "" {
			list = append(list, a)
		}
	}
	return list
}

// weight is what they weigh.
func (t traced) weight() int {
	n := 0
	for _, a := range t.attributes() {
		n += len(a.name) + len("String") + len(a.value)
	}
	return n
}

// enter has attrs carry this trace and no other, as far as there is room for it: they
// may become that many, and weigh that much. It changes attrs unless it is nil.
func (t traced) enter(attrs map[string]types.MessageAttributeValue, most, weight int) map[string]types.MessageAttributeValue {
	delete(attrs, attrTraceparent)
	delete(attrs, attrTracestate)
	weight -= weigh(attrs)
	for _, a := range t.attributes() {
		if weight -= len(a.name) + len("String") + len(a.value); weight < 0 || len(attrs) >= most {
			break
		}
		if attrs == nil {
			attrs = make(map[string]types.MessageAttributeValue, 3)
		}
		attrs[a.name] = types.MessageAttributeValue{DataType: aws.String("String"), StringValue: &a.value}
	}
	return attrs
}

// system returns the system attributes that carry the trace.
func (t traced) system() map[string]types.MessageSystemAttributeValue {
	if t.header == "" {
		return nil
	}
	return map[string]types.MessageSystemAttributeValue{
		string(types.MessageSystemAttributeNameAWSTraceHeader): {DataType: aws.String("String"), StringValue: &t.header},
	}
}

// valid returns what is well-formed of t, in the version of W3C Trace Context that is
// known here. A tracestate that is not is dropped alone, as W3C wants it.
func valid(t jobs.Trace) jobs.Trace {
	if t.Parent = validParent(t.Parent); t.Parent == "" || !validState(t.State) {
		t.State = ""
	}
	return t
}

// validParent returns a traceparent in version 00, with the flags that it knows, or
// nothing if it is none:
//
//	version-trace-parent-flags
//	00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01
func validParent(s string) string {
	const size = len("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	if len(s) < size || len(s) > maxTrace || s[2] != '-' || s[35] != '-' || s[52] != '-' {
		return ""
	}
	version, trace, parent, flags := s[:2], s[3:35], s[36:52], s[53:55]
	// Later versions may have more to say, after another dash.
	if version == "00" && len(s) > size || len(s) > size && s[size] != '-' {
		return ""
	}
	if !lowerHex(version) || version == "ff" || !id(trace) || !id(parent) || !lowerHex(flags) {
		return ""
	}
	b, _ := hex.DecodeString(flags) // it was looked at
	return "00-" + trace + "-" + parent + "-" + hex.EncodeToString([]byte{b[0] & (sampled | random)})
}

// Flags of version 00: the trace is recorded, and the right half of its id was drawn
// by lot.
const (
	sampled = 1
	random  = 2
)

// validState reports whether s is a tracestate that SQS takes: a list of names and
// values, of which those who are named there know the meaning.
func validState(s string) bool {
	if len(s) > maxTrace || strings.ContainsFunc(s, notPrintable) {
		return false
	}
	members := 0
	for m := range strings.SplitSeq(s, ",") {
		if m = strings.TrimSpace(m); m == "" {
			continue
		}
		name, value, ok := strings.Cut(m, "=")
		if members++; !ok || name == "" || value == "" || members > 32 || strings.Contains(value, "=") || strings.ContainsFunc(name, notName) {
			return false
		}
	}
	return members > 0
}

func notName(r rune) bool {
	return (r < 'a' || r > 'z') && (r < '0' || r > '9') && !strings.ContainsRune("_-*/@", r)
}

func notPrintable(r rune) bool { return r < ' ' || r > '~' }

// fromXRay reports whether s is an X-Ray header, and returns the traceparent that
// means the same, if it names a parent:
//
//	Root=1-0af76519-16cd43dd8448eb211c80319c;Parent=b7ad6b7169203331;Sampled=1
//
// Where whoever sent it has left open whether the trace is recorded, it is: for that
// has been asked here.
func fromXRay(s string) (parent string, ok bool) {
	if len(s) > maxTrace || strings.ContainsFunc(s, notPrintable) {
		return "", false
	}
	fields := make(map[string]string, 3)
	for f := range strings.SplitSeq(s, ";") {
		name, value, _ := strings.Cut(strings.TrimSpace(f), "=")
		if name == "" {
			continue // a semicolon at the end
		}
		if _, double := fields[name]; double {
			return "", false
		}
		fields[name] = value
	}
	trace, isRoot := rootID(fields["Root"])
	span, named := fields["Parent"]
	if !isRoot || named && !isSpan(span) {
		return "", false
	}
	if !named {
		return "", true
	}
	flags := "01"
	if fields["Sampled"] == "0" {
		flags = "00"
	}
	return "00-" + trace + "-" + span + "-" + flags, true
}

// rootID returns the id of a trace that X-Ray writes 1-xxxxxxxx-xxxxxxxxxxxxxxxxxxxxxxxx.
func rootID(s string) (string, bool) {
	if len(s) != len("1-0af76519-16cd43dd8448eb211c80319c") || s[:2] != "1-" || s[10] != '-' {
		return "", false
	}
	trace := s[2:10] + s[11:]
	return trace, id(trace)
}

func isSpan(s string) bool { return len(s) == 16 && id(s) }

// toXRay returns the X-Ray header that means the same as a traceparent that is
// well-formed, or nothing for none.
func toXRay(parent string) string {
	if parent == "" {
		return ""
	}
	b, _ := hex.DecodeString(parent[53:])
	flag := string('0' + rune(b[0]&sampled))
	return "Root=1-" + parent[3:11] + "-" + parent[11:35] + ";Parent=" + parent[36:52] + ";Sampled=" + flag
}

// id reports whether s is a hexadecimal number other than zero, as traces and spans
// are named.
func id(s string) bool { return lowerHex(s) && strings.Trim(s, "0") != "" }

func lowerHex(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return (r < '0' || r > '9') && (r < 'a' || r > 'f') })
}
