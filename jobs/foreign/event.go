package foreign

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"upwell/jobs"
)

// A record is one event of an S3 notification, as far as it matters here.
type record struct {
	Source string `json:"eventSource"`
	Name   string `json:"eventName"`
	S3     struct {
		Bucket struct {
			Name string `json:"name"`
		} `json:"bucket"`
		Object struct {
			Key     string `json:"key"` // URL-encoded, with + for a space
			Size    *int64 `json:"size"`
			ETag    string `json:"eTag"`
			Version string `json:"versionId"`
		} `json:"object"`
	} `json:"s3"`
}

// readRecords reads the notification of S3 itself.
func readRecords(c *Content, text []byte, _ int) error {
	var note struct{ Records []json.RawMessage }
	if err := decode("", text, &note); err != nil {
		return err
	}
	if len(note.Records) == 0 {
		return bad("Records", "empty, want at least one event of S3")
	}
	c.Kind = Event
	for i, raw := range note.Records {
		o, err := readRecord(fmt.Sprintf("Records[%d].", i), raw)
		if err != nil {
			return err
		}
		if o.Key == "" {
			continue
		}
		c.Objects = append(c.Objects, o)
		c.Parts = append(c.Parts, slices.Concat([]byte(`{"Records":[`), raw, []byte(`]}`)))
	}
	if len(c.Parts) == 1 {
		c.Parts = nil
	}
	return nil
}

// readRecord returns the object that was created, or none if nothing was that
// could be a document.
func readRecord(path string, raw []byte) (Object, error) {
	var r record
	if err := decode(path, raw, &r); err != nil {
		return Object{}, err
	}
	name, created := strings.CutPrefix(strings.TrimPrefix(r.Name, "s3:"), "ObjectCreated:")
	switch {
	case r.Source != "aws:s3":
		return Object{}, bad(path+"eventSource", "%.80q, want aws:s3: no other events become jobs", r.Source)
	case r.Name == "" || created && name == "":
		return Object{}, bad(path+"eventName", "%.80q, want the name of an event of S3, such as ObjectCreated:Put", r.Name)
	case !created:
		return Object{}, nil
	}
	key, err := url.QueryUnescape(r.S3.Object.Key)
	if err != nil {
		return Object{}, bad(path+"s3.object.key", "%.80q, want a key as S3 encodes it in events: %v", r.S3.Object.Key, err)
	}
	o := object(r.S3.Bucket.Name, key, r.S3.Object.Version, r.S3.Object.ETag, r.S3.Object.Size)
	return document(o, path+"s3.bucket.name", path+"s3.object.key")
}

// readEventBridge reads the event that EventBridge makes of it.
func readEventBridge(c *Content, text []byte, _ int) error {
	var e struct {
		Source string `json:"source"`
		Type   string `json:"detail-type"`
		Detail struct {
			Bucket struct {
				Name string `json:"name"`
			} `json:"bucket"`
			Object struct {
				Key     string `json:"key"` // as it is
				Size    *int64 `json:"size"`
				ETag    string `json:"etag"`
				Version string `json:"version-id"`
			} `json:"object"`
		} `json:"detail"`
	}
	if err := decode("", text, &e); err != nil {
		return err
	}
	switch {
	case e.Source != "aws.s3":
		return bad("source", "%.80q, want aws.s3: no other events become jobs", e.Source)
	case e.Type == "":
		return bad("detail-type", "missing, want the kind of the event, such as Object Created")
	}
	c.Kind = Event
	if e.Type != "Object Created" {
		return nil
	}
	d := e.Detail
	o, err := document(object(d.Bucket.Name, d.Object.Key, d.Object.Version, d.Object.ETag, d.Object.Size), "detail.bucket.name", "detail.object.key")
	if err == nil && o.Key != "" {
		c.Objects = []Object{o}
	}
	return err
}

// readTest reads what S3 sends when a notification is set up.
func readTest(c *Content, text []byte, _ int) error {
	name, err := str(text, 0, "Event", "Event")
	if err == nil && name != "s3:TestEvent" {
		err = bad("Event", "%.80q, want s3:TestEvent, or the Records of an event", name)
	}
	c.Kind = Event
	return err
}

func object(bucket, key, version, etag string, size *int64) Object {
	o := Object{Bucket: bucket, Key: key, Version: version, ETag: strings.Trim(etag, `"`), Size: -1}
	if version == "null" { // of an object from before its bucket kept versions: the next one has it as well
		o.Version = ""
	}
	if size != nil {
		o.Size = max(*size, -1)
	}
	return o
}

// document returns o if it may be a document, and none if it is what stands for a
// folder.
func document(o Object, bucket, key string) (Object, error) {
	if err := o.check(bucket, key); err != nil {
		return Object{}, err
	}
	if strings.HasSuffix(o.Key, "/") {
		return Object{}, nil
	}
	return o, nil
}

// decode reads text into v, and says what is wrong with which field.
func decode(path string, text []byte, v any) error {
	err := json.Unmarshal(text, v)
	if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return bad(strings.TrimSuffix(path+e.Field, "."), "a JSON %.80s, want what events of S3 have there", e.Value)
	}
	if err != nil {
		return &jobs.FormatError{Field: strings.TrimSuffix(path, "."), Reason: err.Error()}
	}
	return nil
}
