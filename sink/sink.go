// Package sink says how the results of runs are laid out in storage. It
// touches no storage itself: see package s3sink for that.
//
// Under a bucket and a prefix of the operator's choice, a run is
//
//	<prefix>/runs/<run>/manifest.json              what was submitted, see [Manifest]
//	<prefix>/runs/<run>/checkpoint.json            how far the submitting is, see [Checkpoint]
//	<prefix>/runs/<run>/ids/<input>/<n>.jsonl.gz   the ids of its jobs, see [IDsKey]
//	<prefix>/runs/<run>/bodies/<hh>/<id>.json      jobs that a message has no room for, see [JobKey]
//	<prefix>/runs/<run>/results/<hh>/<id>.json     one line for each answered job
//	<prefix>/runs/<run>/errors/<hh>/<id>.json      one line for each job given up
//	<prefix>/runs/<run>/letters/<hh>/<id>.json     bodies that dead letters have no room for
//
// <hh> is the first byte of the custom_id's SHA-256 in hexadecimal. It spreads
// a run over 256 prefixes, which S3 scales one by one, whatever the names of
// its jobs begin with.
//
// <id> is the custom_id with each byte that is not a letter, a digit, '_', '-'
// or '.' written as %XX, and a leading '.' as well. When that is longer than
// 200 bytes, or empty, it is cut there, and '~' and half of the custom_id's
// SHA-256 follow in hexadecimal. So a file name
//
//   - names one job only: '~' never stands for itself, and no two names of
//     this form are known to share half a SHA-256,
//   - is a name anywhere: never a path, never hidden, never longer than 238 bytes,
//   - is made of the job's [jobs.Key] and nothing else, so that storing a job
//     twice aims at the same place.
//
// A stored line is [Encode]'s: a line of an OpenAI batch output file.
package sink

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"time"

	"upwell/jobs"
)

// A Kind names one of the two folders of a run that hold a line for each job.
type Kind string

// The kinds of lines.
const (
	Results Kind = "results" // answers
	Errors  Kind = "errors"  // jobs that will never have an answer
)

const (
	// maxName is the longest escaped custom_id that is left whole. With '~',
	// the hash and the extension, a cut one has 238 bytes, which leaves file
	// systems that end at 255 room for a temporary file's suffix.
	maxName = 200

	// hashLen is the length of the hash of a cut name: 128 bits.
	hashLen = 32

	ext = ".json"
)

// Prefix returns what the keys of all of a run's lines of kind k begin with.
// It ends in a slash.
func (k Kind) Prefix(prefix, run string) string {
	return folder(prefix, run) + string(k) + "/"
}

// Key returns where the line of a job is stored.
func (k Kind) Key(prefix string, job jobs.Key) string {
	sum := digest(job.CustomID)
	return k.Prefix(prefix, job.Run) + sum[:2] + "/" + name(job.CustomID, sum) + ext
}

// An Object is a stored line, as a listing knows it.
type Object struct {
	Key      jobs.Key  // its CustomID is cut short when Whole is false
	Whole    bool      // else see [ID]: the line has all of the CustomID
	Path     string    // where in the bucket it is
	Size     int64     // bytes
	Modified time.Time // when it was stored
}

// ManifestKey returns where the manifest of a run is stored.
func ManifestKey(prefix, run string) string { return folder(prefix, run) + "manifest.json" }

func folder(prefix, run string) string {
	if prefix = strings.Trim(prefix, "/"); prefix != "" {
		prefix += "/"
	}
	return prefix + "runs/" + run + "/"
}

// ID is the inverse of [Kind.Key]: it returns the custom_id of the job whose
// line is stored under key. When that was too long for a name, it returns the
// part that was left of it and false; the line itself has the rest. A key that
// is not a line's is "" and false.
func ID(key string) (customID string, whole bool) {
	dir, file := cut(key)
	base, ok := strings.CutSuffix(file, ext)
	if !ok {
		return "", false
	}
	start, hash, short := strings.Cut(base, "~")
	id := unescape(start)
	sum := digest(id)
	switch {
	case !short || id == "":
		// One custom_id has one name, so anything else is somebody else's.
		if base != name(id, sum) || dir != sum[:2] {
			return "", false
		}
		return id, true
	case len(hash) != hashLen || !strings.HasPrefix(hash, dir) || escape(id) != start:
		return "", false
	}
	return id, false
}

// cut returns the last two elements of a key.
func cut(key string) (dir, file string) {
	i := strings.LastIndexByte(key, '/')
	if i < 0 {
		return "", ""
	}
	dir, file = key[:i], key[i+1:]
	return dir[strings.LastIndexByte(dir, '/')+1:], file
}

func digest(id string) string {
	sum := sha256.Sum256([]byte(id))
	return hex.EncodeToString(sum[:])
}

// name returns the file name of a custom_id, without its extension.
func name(id, sum string) string {
	s := escape(id)
	if s != "" && len(s) <= maxName {
		return s
	}
	return shorten(s) + "~" + sum[:hashLen]
}

// shorten cuts s to maxName bytes, or a little less to keep an escape whole.
func shorten(s string) string {
	if len(s) <= maxName {
		return s
	}
	s = s[:maxName]
	if i := strings.LastIndexByte(s, '%'); i > len(s)-len("%XX") {
		s = s[:i]
	}
	return s
}

const upper = "0123456789ABCDEF"

func escape(id string) string {
	plain := true
	for i := range len(id) {
		plain = plain && stays(id, i)
	}
	if plain {
		return id
	}
	b := make([]byte, 0, 3*len(id))
	for i := range len(id) {
		if c := id[i]; stays(id, i) {
			b = append(b, c)
		} else {
			b = append(b, '%', upper[c>>4], upper[c&15])
		}
	}
	return string(b)
}

// stays reports whether the byte at i stands for itself in a name.
func stays(id string, i int) bool {
	c := id[i]
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' ||
		c == '_' || c == '-' || c == '.' && i > 0
}

// unescape leaves alone what is no escape: its callers compare the name of
// what it returns with what they gave it.
func unescape(s string) string {
	if !strings.Contains(s, "%") {
		return s
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			if c, err := hex.DecodeString(s[i+1 : i+3]); err == nil {
				b = append(b, c[0])
				i += 2
				continue
			}
		}
		b = append(b, s[i])
	}
	return string(b)
}
