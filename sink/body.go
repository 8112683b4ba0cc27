package sink

import (
	"strings"

	"upwell/jobs"
)

// letters is the folder of a run that holds bodies.
const letters = "letters"

// BodyKey returns where the body of a message is stored that does not fit into
// a dead letter beside what is known about its end:
//
//	<prefix>/runs/<run>/letters/<hh>/<id>.json
//
// <id> is that of the job's lines, or made of the message's id in the same way
// when the message has no custom_id.
func BodyKey(prefix string, job jobs.Key, messageID string) string {
	if job.CustomID == "" {
		job.CustomID = messageID
	}
	return Kind(letters).Key(prefix, job)
}

// Root returns what the keys of all runs begin with. It ends in a slash.
func Root(prefix string) string {
	return strings.TrimSuffix(folder(prefix, ""), "/")
}
