package sink

import (
	"strings"

	"upwell/jobs"
)

// Folders of a run that hold bodies of messages: of dead letters, and of jobs.
const (
	letters = "letters"
	bodies  = "bodies"
)

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

// JobKey returns where a job is stored, as [jobs.Parse] reads it, that a message has
// no room for. The message refers to it:
//
//	<prefix>/runs/<run>/bodies/<hh>/<id>.json
func JobKey(prefix string, job jobs.Key) string { return Kind(bodies).Key(prefix, job) }

// Root returns what the keys of all runs begin with. It ends in a slash.
func Root(prefix string) string {
	return strings.TrimSuffix(folder(prefix, ""), "/")
}
