package foreign_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"upwell/jobs"
	"upwell/jobs/foreign"
)

// Changes of one line that these tests have been seen to catch:
//
//   - the class of a pointer compared; an array of three taken for one
//   - a body that comes after another key not taken for a job
//   - a key of an event not decoded, or one of EventBridge decoded
//   - events of removals, or of folders, taken for documents
//   - SNS unwrapped once only, or without end
//   - an error inside of SNS that does not say so

// read reads a file of testdata.
func read(t *testing.T, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// names returns the files of a folder of testdata, without their extension.
func names(t *testing.T, folder string) (list []string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", folder, "*.json"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%d files, %v, want some", len(files), err)
	}
	for _, f := range files {
		list = append(list, strings.TrimSuffix(filepath.Base(f), ".json"))
	}
	return list
}

// TestRead reads a message of each shape, as its sender writes it.
func TestRead(t *testing.T) {
	const payload = "cc0b52f9-2a3e-4d6a-9f6a-2a0d0f3b8a11"
	pointer := foreign.Content{Kind: foreign.Pointer, Object: foreign.Object{Bucket: "extended-client-bucket", Key: payload, Size: -1}}
	shaded := pointer
	shaded.Object.Key = "team/" + payload
	reference := foreign.Content{
		Kind: foreign.Reference, Key: jobs.Key{Run: "q3", CustomID: "msa-0042"},
		Object: foreign.Object{Bucket: "results", Key: "team/runs/q3/bodies/5e/msa-0042.json", Size: -1},
	}
	event := func(o ...foreign.Object) foreign.Content { return foreign.Content{Kind: foreign.Event, Objects: o} }
	const etag = "b21b84d653bb07b05b1e6b33684dc11b"
	put := event(foreign.Object{
		Bucket: "amzn-s3-demo-bucket", Key: "HappyFace.jpg", Version: "096fKKXTRTtl3on89fVO.nfljtsv6qko",
		ETag: "d41d8cd98f00b204e9800998ecf8427e", Size: 1024,
	})
	created := event(foreign.Object{
		Bucket: "amzn-s3-demo-bucket1", Key: "in/Müller & Söhne+2026.pdf", Version: "IYV3p45BT0ac8hjHg1houSdS1a.Mro8e",
		ETag: "b1946ac92492d2347c6235b4d2611184", Size: 5,
	})
	in := func(key string) foreign.Object {
		return foreign.Object{Bucket: "amzn-s3-demo-bucket", Key: key, ETag: etag, Size: 1305107}
	}
	empty := in("in/c.pdf")
	empty.Size, empty.ETag = 0, "d41d8cd98f00b204e9800998ecf8427e"
	job := foreign.Content{}
	want := map[string]foreign.Content{
		"pointer-java2": pointer, "pointer-java1": pointer, "pointer-python": pointer, "pointer-object": pointer, "pointer-shaded": shaded,
		"reference":        reference,
		"reference-bare":   {Kind: foreign.Reference, Object: foreign.Object{Bucket: "results", Key: "a b/jobs+1.json", Size: -1}},
		"reference-letter": {Kind: foreign.Reference, Key: jobs.Key{CustomID: "large"}, Object: foreign.Object{Bucket: "upwell", Key: "runs/q3/letters/41/large.json", Size: -1}},
		"s3-put":           put,
		"s3-encoded-key":   event(in("in/Verträge/Müller & Söhne+2026.pdf")),
		"s3-several":       event(in("in/a.pdf"), in("in/b.pdf"), empty),
		"s3-removed":       event(), "s3-folder": event(), "s3-test": event(),
		"eventbridge-created": created, "eventbridge-deleted": event(),
		"sns-s3": put, "sns-twice": put, "sns-eventbridge": created, "sns-pointer": pointer, "sns-reference": reference, "sns-s3-test": event(),
		"job": job, "sns-job": job, "job-with-more": job, "job-broken": job, "cut-short": job, "other": job, "array-of-three": job,
	}
	for _, name := range names(t, "good") {
		body := read(t, "good/"+name+".json")
		got, err := foreign.Read(body)
		if err != nil {
			t.Errorf("%s: Read = %v, want nil", name, err)
			continue
		}
		w, ok := want[name]
		if !ok {
			t.Errorf("%s is in the folder, and nothing is wanted of it", name)
		}
		if got.Wrapped != strings.HasPrefix(name, "sns-") {
			t.Errorf("%s: wrapped %v, want whether SNS did", name, got.Wrapped)
		}
		if !got.Wrapped && !bytes.Equal(got.Text, body) {
			t.Errorf("%s: text %q, want the message as it is", name, got.Text)
		}
		if multiple := len(w.Objects) > 1; len(got.Parts) != len(w.Objects) && multiple || len(got.Parts) != 0 && !multiple {
			t.Errorf("%s: %d parts, want one for each of several objects and else none", name, len(got.Parts))
		}
		got.Wrapped, got.Text, got.Parts = false, nil, nil
		if diff := cmp.Diff(w, got); diff != "" {
			t.Errorf("%s: -want +got:\n%s", name, diff)
		}
		delete(want, name)
	}
	for name := range want {
		t.Errorf("%s is not in the folder", name)
	}
}

// TestUnwrapped wants the text of a job as it was published.
func TestUnwrapped(t *testing.T) {
	got, err := foreign.Read(read(t, "good/sns-job.json"))
	if want := strings.TrimSpace(string(read(t, "good/job.json"))); err != nil || string(got.Text) != want {
		t.Errorf("Read = %q, %v, want %q", got.Text, err, want)
	}
}

// TestParts wants each part of an event to be an event of its own, with the record
// as S3 sent it.
func TestParts(t *testing.T) {
	whole, err := foreign.Read(read(t, "good/s3-several.json"))
	if err != nil {
		t.Fatal(err)
	}
	for i, part := range whole.Parts {
		got, err := foreign.Read(part)
		if err != nil || len(got.Objects) != 1 || got.Objects[0] != whole.Objects[i] || len(got.Parts) != 0 {
			t.Errorf("part %d is %+v, %v, want the event of %+v alone", i, got, err, whole.Objects[i])
		}
		var e struct{ Records []struct{ EventTime string } }
		if err := json.Unmarshal(part, &e); err != nil || e.Records[0].EventTime == "" {
			t.Errorf("part %d is %s, want all that S3 said", i, part)
		}
	}
}

// TestWrong has a wrong message of each shape. The error names the field, and says
// what was expected there.
func TestWrong(t *testing.T) {
	want := map[string]string{
		"pointer-other-keys":       `[1].s3BucketName: missing: want s3BucketName and s3Key, as the SQS Extended Client writes them`,
		"pointer-no-key":           `[1].s3Key: missing: want s3BucketName and s3Key`,
		"pointer-number":           `[1].s3Key: 42 is no string: want s3BucketName and s3Key`,
		"pointer-object-no-bucket": `s3BucketName: missing: want s3BucketName and s3Key`,
		"pointer-empty-bucket":     `s3BucketName: "", want the name of a bucket`,
		"pointer-dots":             `s3Key: "in/../secret/k", want a key without . or ..`,
		"reference-https":          `body_ref: "https://b.s3.amazonaws.com/k", want an s3 URL such as s3://bucket/key`,
		"reference-no-key":         `body_ref: "", want the key of an object`,
		"reference-number":         `body_ref: 7, want a string`,
		"reference-id":             `custom_id: "", want 1 to 512 bytes`,
		"reference-run":            `upwell.run: "../x", want letters`,
		"reference-options":        `upwell.tiers: beside body_ref, want run alone`,
		"reference-upwell":         `upwell: "r", want an object`,
		"s3-no-records":            `Records: empty, want at least one event of S3`,
		"s3-records-object":        `Records: a JSON object, want what events of S3 have there`,
		"s3-other-source":          `Records[0].eventSource: "aws:ses", want aws:s3`,
		"s3-no-name":               `Records[0].eventName: "", want the name of an event of S3`,
		"s3-no-key":                `Records[1].s3.object.key: "", want the key of an object`,
		"s3-bad-escape":            `Records[0].s3.object.key: "in/100%.pdf", want a key as S3 encodes it`,
		"s3-bad-text":              `Records[0].s3.object.key: "in/\xff.pdf", want the key of an object: 1 to 1024 bytes of text`,
		"s3-no-bucket":             `Records[0].s3.bucket.name: "", want the name of a bucket`,
		"s3-size":                  `Records[0].s3.object.size: a JSON string, want what events of S3 have there`,
		"s3-key-number":            `Records[0].s3.object.key: a JSON number, want what events of S3 have there`,
		"s3-other-event":           `Event: "s3:OtherEvent", want s3:TestEvent`,
		"eventbridge-other-source": `source: "aws.ec2", want aws.s3`,
		"eventbridge-no-key":       `detail.object.key: "", want the key of an object`,
		"eventbridge-no-type":      `detail-type: missing, want the kind of the event`,
		"sns-confirmation":         `Type: SNS asks for leave to send here, want a Notification: confirm the subscription at the SubscribeURL`,
		"sns-unsubscribe":          `Type: "UnsubscribeConfirmation" of SNS, want a Notification`,
		"sns-no-message":           `Message: missing, want a string`,
		"sns-message-object":       `Message: {"Records":[]}, want a string`,
		"sns-bad-s3":               `Message.Records[0].eventSource: "aws:ses", want aws:s3`,
		"sns-deep":                 `Message.Message.Message.Message.Message: wrapped by SNS more than 4 times`,
	}
	for _, name := range names(t, "wrong") {
		_, err := foreign.Read(read(t, "wrong/"+name+".json"))
		_, ok := errors.AsType[*jobs.FormatError](err)
		if text := want[name]; text == "" || !ok || !strings.HasPrefix(err.Error(), "not a job: "+text) {
			t.Errorf("%s: Read = %v, want a FormatError %q", name, err, text)
		}
		delete(want, name)
	}
	for name := range want {
		t.Errorf("%s is not in the folder", name)
	}
}

// TestKeyOfAWrongReference wants the job named whatever is wrong with the rest, so
// that its failure can be filed.
func TestKeyOfAWrongReference(t *testing.T) {
	for name, want := range map[string]jobs.Key{
		"reference-https": {CustomID: "a"}, "reference-number": {CustomID: "a"}, "reference-run": {CustomID: "a"}, "reference-id": {},
	} {
		got, err := foreign.Read(read(t, "wrong/"+name+".json"))
		if err == nil || got.Key != want {
			t.Errorf("%s: Read names %+v, %v, want %+v and an error", name, got.Key, err, want)
		}
	}
}

// FuzzRead wants no text to break it, errors of one type, and parts and objects that
// belong together. What is taken for a job must be as it was.
func FuzzRead(f *testing.F) {
	for _, pattern := range []string{"testdata/good/*.json", "testdata/wrong/*.json"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			f.Fatal(err)
		}
		for _, name := range files {
			text, err := os.ReadFile(name)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(text)
		}
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		before := bytes.Clone(body)
		c, err := foreign.Read(body)
		if !bytes.Equal(before, body) {
			t.Fatal("the message was changed")
		}
		if err != nil {
			if e, ok := errors.AsType[*jobs.FormatError](err); !ok || e.Reason == "" {
				t.Fatalf("error %v, want a FormatError with a reason", err)
			}
			return
		}
		switch c.Kind {
		case foreign.Job:
			if !c.Wrapped && !bytes.Equal(c.Text, body) {
				t.Fatalf("text %q, want the message", c.Text)
			}
		case foreign.Event:
			if n := len(c.Parts); n != 0 && n != len(c.Objects) || n == 1 {
				t.Fatalf("%d parts of %d objects", n, len(c.Objects))
			}
		case foreign.Pointer, foreign.Reference:
			c.Objects = append(c.Objects, c.Object)
		}
		for _, o := range c.Objects {
			if o.Bucket == "" || o.Key == "" || o.Size < -1 || strings.Contains("/"+o.Key+"/", "/../") {
				t.Fatalf("object %+v, want a bucket and a key", o)
			}
		}
		for i, part := range c.Parts {
			if p, err := foreign.Read(part); err != nil || len(p.Objects) != 1 || p.Objects[0] != c.Objects[i] {
				t.Fatalf("part %d is %+v, %v, want %+v", i, p, err, c.Objects[i])
			}
		}
	})
}

// BenchmarkRead is what an ordinary job costs on its way to being parsed.
func BenchmarkRead(b *testing.B) {
	body := []byte(`{"custom_id":"a","method":"POST","url":"/v1/responses","body":{"model":"m","input":"` + strings.Repeat("a clause ", 220) + `"}}`)
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		if c, err := foreign.Read(body); err != nil || c.Kind != foreign.Job {
			b.Fatal(c, err)
		}
	}
}
