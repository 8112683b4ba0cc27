package foreign

import (
	"slices"
	"strings"
	"unicode/utf8"

	"upwell/jobs"
	"upwell/jobs/skim"
)

// maxKey is the longest key that S3 has, in bytes.
const maxKey = 1024

// An Object is an object in S3, as a message names it.
type Object struct {
	Bucket, Key string

	Version string // of the object, or empty if its bucket keeps none
	ETag    string // without quotes; of an Event only, and may be empty there
	Size    int64  // bytes; of an Event only, else -1
}

// URL returns the object's s3 URL, without its version.
func (o Object) URL() string { return "s3://" + o.Bucket + "/" + o.Key }

// check reports what is wrong with the names, which fields of that name gave. A key
// with dots for elements is refused: something on the way may take it for a path,
// and it would lead out of a prefix that is allowed.
func (o Object) check(bucket, key string) error {
	switch {
	case o.Bucket == "" || strings.ContainsAny(o.Bucket, "/\x00") || !utf8.ValidString(o.Bucket):
		return bad(bucket, "%.80q, want the name of a bucket", o.Bucket)
	case o.Key == "" || len(o.Key) > maxKey || strings.ContainsRune(o.Key, 0) || !utf8.ValidString(o.Key):
		return bad(key, "%.80q, want the key of an object: 1 to %d bytes of text", o.Key, maxKey)
	case slices.ContainsFunc(strings.Split(o.Key, "/"), func(s string) bool { return s == "." || s == ".." }):
		return bad(key, "%.80q, want a key without . or .. for an element", o.Key)
	case len(o.Version)+len(o.ETag) > maxKey || strings.ContainsRune(o.Version+o.ETag, 0):
		return bad(key, "%.80q has a version or an ETag that S3 does not make", o.Key)
	}
	return nil
}

// readPair reads the pointer of an Extended Client: a class and an object.
func readPair(c *Content, text []byte, _ int) error {
	_, object := pair(text)
	return c.readPointer(text, object.At, "[1].")
}

// readPointer reads one without a class.
func readPointer(c *Content, text []byte, _ int) error { return c.readPointer(text, 0, "") }

func (c *Content) readPointer(text []byte, at int, path string) error {
	const expected = ": want s3BucketName and s3Key, as the SQS Extended Client writes them"
	o := Object{Size: -1}
	for _, f := range []struct {
		key  string
		into *string
	}{{"s3BucketName", &o.Bucket}, {"s3Key", &o.Key}} {
		v := skim.Find(text, at, f.key)
		switch {
		case v.Unset(text):
			return bad(path+f.key, "missing%s", expected)
		case text[v.At] != '"':
			return bad(path+f.key, "%.80s is no string%s", v.Of(text), expected)
		}
		*f.into = skim.Unquote(v.Of(text))
	}
	c.Kind, c.Object = Pointer, o
	return o.check(path+"s3BucketName", path+"s3Key")
}

// readReference reads a job whose body is elsewhere.
func readReference(c *Content, text []byte, _ int) error {
	c.Kind, c.Object.Size = Reference, -1
	if err := c.readKey(text); err != nil {
		return err
	}
	ref, err := str(text, 0, "body_ref", "body_ref")
	if err != nil {
		return err
	}
	rest, ok := strings.CutPrefix(ref, "s3://")
	if !ok {
		return bad("body_ref", "%.80q, want an s3 URL such as s3://bucket/key", ref)
	}
	c.Object.Bucket, c.Object.Key, _ = strings.Cut(rest, "/")
	return c.Object.check("body_ref", "body_ref")
}

// readKey reads what a reference says of its job, the custom_id first: whatever is
// wrong with the rest, a failure is filed under it.
func (c *Content) readKey(text []byte) (err error) {
	if v := skim.Find(text, 0, "custom_id"); !v.Unset(text) {
		if c.Key.CustomID, err = str(text, 0, "custom_id", "custom_id"); err != nil {
			return err
		}
		if id := c.Key.CustomID; id == "" || len(id) > jobs.MaxCustomID || strings.ContainsRune(id, 0) {
			c.Key.CustomID = ""
			return bad("custom_id", "%.80q, want 1 to %d bytes of text", id, jobs.MaxCustomID)
		}
	}
	options := skim.Find(text, 0, "upwell")
	if options.Unset(text) {
		return nil
	}
	if text[options.At] != '{' {
		return bad("upwell", "%.80s, want an object", options.Of(text))
	}
	for m := range skim.Members(text, options.At) {
		if string(m.Key) != "run" {
			return bad("upwell."+string(m.Key), "beside body_ref, want run alone: the job that it refers to has the other settings")
		}
	}
	if v := skim.Find(text, options.At, "run"); v.Unset(text) {
		return nil
	}
	run, err := str(text, options.At, "run", "upwell.run")
	if err != nil || run == "" {
		return err
	}
	if err := jobs.CheckRun(run); err != nil {
		return bad("upwell.run", "%v", err)
	}
	c.Key.Run = run
	return nil
}
