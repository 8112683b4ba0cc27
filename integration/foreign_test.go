package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"upwell/integration/fixture"
	"upwell/jobs"
	"upwell/jobs/sqsqueue"
	"upwell/sink"
	"upwell/sink/s3sink"
)

// inbox is the bucket that documents and payloads arrive in.
const inbox = "inbox"

// documentTemplate makes jobs of documents, with a schema.
const documentTemplate = "---\nmodel: " + fixture.Model + "\nschema: review.json\n---\nReview {{.name}}:\n{{.text}}"

const documentSchema = `{"type":"object","properties":{"risk":{"type":"string"}},"required":["risk"],"additionalProperties":false}`

// An outsider is a message of somebody else and what is to become of it.
type outsider struct {
	body  string
	attrs map[string]string
	ids   []string // of its jobs' results
	why   string   // of its dead letter
}

// snsOf wraps a message as SNS does.
func snsOf(message string) string {
	text, err := json.Marshal(map[string]string{
		"Type": "Notification", "MessageId": "dc1e94d9-56c5-5e96-808d-cc7f68faa162", "TopicArn": "arn:aws:sns:us-west-2:111122223333:uploads",
		"Message": message, "Timestamp": "2026-02-16T21:41:19.978Z", "SignatureVersion": "1", "Signature": "FMG5tlZh", "UnsubscribeURL": "https://sns.us-west-2.amazonaws.com/",
	})
	if err != nil {
		panic(err) // texts have a JSON form
	}
	return string(text)
}

// s3Event is the notification of S3 about objects, by their keys and ETags.
func s3Event(etags map[string]string) string {
	var records []string
	for _, key := range slices.Sorted(maps.Keys(etags)) {
		records = append(records, fmt.Sprintf(`{"eventVersion":"2.1","eventSource":"aws:s3","awsRegion":%q,"eventName":"ObjectCreated:Put",`+
			`"s3":{"bucket":{"name":%q,"arn":"arn:aws:s3:::inbox"},"object":{"key":%q,"eTag":%q,"sequencer":"0C0F6F405D6ED209E1"}}}`,
			fixture.Region, inbox, strings.NewReplacer(" ", "+", "ü", "%C3%BC").Replace(key), etags[key]))
	}
	return `{"Records":[` + strings.Join(records, ",") + `]}`
}

// uploads puts documents into the inbox and returns their ETags.
func uploads(t *testing.T, objects *s3.Client, keys ...string) map[string]string {
	t.Helper()
	etags := make(map[string]string)
	for _, key := range keys {
		out, err := objects.PutObject(t.Context(), &s3.PutObjectInput{Bucket: new(inbox), Key: &key, Body: strings.NewReader("The term of " + key + " is one year.")})
		if err != nil {
			t.Fatal(err)
		}
		etags[key] = strings.Trim(*out.ETag, `"`)
	}
	return etags
}

// one returns the entry of one of them.
func one(etags map[string]string, key string) map[string]string {
	return map[string]string{key: etags[key]}
}

// docID is the custom_id of a document's job.
func docID(etags map[string]string, key string) string {
	return "s3://" + inbox + "/" + key + "?etag=" + etags[key]
}

// outsiders puts what they refer to into S3, and returns messages of all shapes.
func outsiders(t *testing.T, objects *s3.Client, results string) (all []outsider) {
	t.Helper()
	docs := uploads(t, objects, "docs/a.txt", "docs/Müller & b.md", "docs/c.txt", "docs/d.txt", "docs/e.txt", "docs/f.txt", "docs/g.txt", "docs/h.exe")
	put := func(bucket, key, text string) string {
		if _, err := objects.PutObject(t.Context(), &s3.PutObjectInput{Bucket: &bucket, Key: &key, Body: strings.NewReader(text)}); err != nil {
			t.Fatal(err)
		}
		return "s3://" + bucket + "/" + key
	}
	pointer := func(class, name string) string {
		put(inbox, "payloads/"+name, string(fixture.Job(name, "")))
		object := fmt.Sprintf(`{"s3BucketName":%q,"s3Key":%q}`, inbox, "payloads/"+name)
		if class == "" {
			return object
		}
		return fmt.Sprintf(`[%q,%s]`, class, object)
	}
	const java, legacy = "software.amazon.payloadoffloading.PayloadS3Pointer", "com.amazon.sqs.javamessaging.MessageS3Pointer"
	size := map[string]string{"ExtendedPayloadSize": "300000", "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
	own := put(results, "runs/dropped/bodies/aa/ref.json", string(fixture.Job("ref", "")))
	put(inbox, "secret/x", string(fixture.Job("secret", "")))
	put(inbox, "payloads/nonsense", "nonsense")
	eventBridge := func(kind, key string) string {
		return fmt.Sprintf(`{"version":"0","id":"17793124-05d4-b198-2fde-7ededc63b103","detail-type":%q,"source":"aws.s3","region":%q,"resources":["arn:aws:s3:::inbox"],`+
			`"detail":{"version":"0","bucket":{"name":%q},"object":{"key":%q,"size":5,"etag":%q},"reason":"PutObject"}}`, kind, fixture.Region, inbox, key, docs[key])
	}
	several := s3Event(map[string]string{"docs/c.txt": docs["docs/c.txt"], "docs/d.txt": docs["docs/d.txt"], "docs/e.txt": docs["docs/e.txt"]})
	return []outsider{
		{body: string(fixture.Job("plain", "")), ids: []string{"plain"}},
		{body: pointer(java, "java"), attrs: size, ids: []string{"java"}},
		{body: pointer(legacy, "legacy"), attrs: map[string]string{"SQSLargePayloadSize": "300000"}, ids: []string{"legacy"}},
		{body: pointer("awsv2.repackaged."+java, "shaded"), ids: []string{"shaded"}},
		{body: pointer("", "object"), ids: []string{"object"}},
		{body: snsOf(pointer(java, "wrapped")), ids: []string{"wrapped"}},
		{body: `{"custom_id":"ref","body_ref":"` + own + `","upwell":{"run":"dropped"}}`, ids: []string{"ref"}},
		{body: snsOf(string(fixture.Job("published", ""))), ids: []string{"published"}},
		{body: s3Event(one(docs, "docs/a.txt")), ids: []string{docID(docs, "docs/a.txt")}},
		{body: snsOf(s3Event(one(docs, "docs/Müller & b.md"))), ids: []string{docID(docs, "docs/Müller & b.md")}},
		{body: several, attrs: size, ids: []string{docID(docs, "docs/c.txt"), docID(docs, "docs/d.txt"), docID(docs, "docs/e.txt")}},
		{body: eventBridge("Object Created", "docs/f.txt"), ids: []string{docID(docs, "docs/f.txt")}},
		{body: snsOf(eventBridge("Object Created", "docs/g.txt")), ids: []string{docID(docs, "docs/g.txt")}},

		// Nothing to do.
		{body: `{"Service":"Amazon S3","Event":"s3:TestEvent","Time":"2014-10-13T15:57:02.089Z","Bucket":"inbox"}`},
		{body: snsOf(`{"Service":"Amazon S3","Event":"s3:TestEvent","Bucket":"inbox"}`)},
		{body: eventBridge("Object Deleted", "docs/f.txt")},
		{body: strings.Replace(s3Event(one(docs, "docs/a.txt")), "ObjectCreated:Put", "ObjectRemoved:Delete", 1)},
		{body: s3Event(map[string]string{"docs/": "d41d8cd98f00b204e9800998ecf8427e"})},

		// Wrong ones.
		{body: `["` + java + `",{"bucket":"inbox","key":"k"}]`, why: "[1].s3BucketName: missing: want s3BucketName and s3Key"},
		{body: pointer(java, "x")[:20], why: "not JSON"},
		{body: `{"s3BucketName":"inbox","s3Key":"payloads/missing"}`, why: "s3Key: s3://inbox/payloads/missing: there is no such object"},
		{body: `{"s3BucketName":"inbox","s3Key":"payloads/nonsense"}`, why: "not JSON"},
		{body: `{"s3BucketName":"inbox","s3Key":"secret/x"}`, why: "allow it with --read-from s3://inbox/secret"},
		{body: `{"custom_id":"elsewhere","body_ref":"s3://other/x"}`, why: "body_ref: s3://other/x is not among what this worker may read"},
		{body: `{"custom_id":"another","body_ref":"` + own + `","upwell":{"run":"dropped"}}`, why: `custom_id: "ref", and "another" in the message`},
		{body: `{"custom_id":"web","body_ref":"https://x/y"}`, why: "body_ref: \"https://x/y\", want an s3 URL"},
		{body: s3Event(one(docs, "docs/h.exe")), why: "s3://inbox/docs/h.exe: of no type that can be read"},
		{body: s3Event(map[string]string{"docs/a.txt": "0123456789abcdef"}), why: "s3://inbox/docs/a.txt: replaced since"},
		{body: strings.Replace(s3Event(one(docs, "docs/a.txt")), "aws:s3", "aws:ses", 1), why: "Records[0].eventSource: \"aws:ses\", want aws:s3"},
		{body: strings.Replace(eventBridge("Object Created", "docs/f.txt"), "aws.s3", "aws.ec2", 1), why: "source: \"aws.ec2\", want aws.s3"},
		{body: `{"Type":"SubscriptionConfirmation","TopicArn":"t","Message":"You have chosen","SubscribeURL":"https://sns/"}`, why: "confirm the subscription"},
		{body: snsOf(`{"s3BucketName":"inbox"}`), why: "Message.s3Key: missing"},
	}
}

// post queues messages as their senders do.
func (s *stack) post(t *testing.T, all []outsider) {
	t.Helper()
	client := sqsqueue.NewClient(s.aws("AWS_ENDPOINT_URL_SQS"), func(o *sqs.Options) {
		o.HTTPClient = &http.Client{Transport: fixture.Plain{RoundTripper: http.DefaultTransport}}
	})
	for _, o := range all {
		in := &sqs.SendMessageInput{QueueUrl: new(s.queue.URL()), MessageBody: &o.body, MessageAttributes: make(map[string]types.MessageAttributeValue)}
		for name, value := range o.attrs {
			kind := "String"
			if strings.HasSuffix(name, "Size") {
				kind = "Number"
			}
			in.MessageAttributes[name] = types.MessageAttributeValue{DataType: &kind, StringValue: &value}
		}
		if _, err := client.SendMessage(t.Context(), in); err != nil {
			t.Fatal(err)
		}
	}
}

// documentFiles writes the template and its schema, and returns the template's path.
func documentFiles(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"review.md": documentTemplate, "review.json": documentSchema} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "review.md")
}

// inbox makes the bucket that documents and payloads arrive in.
func (s *stack) inbox(t *testing.T) *s3.Client {
	t.Helper()
	objects := s3sink.NewClient(s.aws("AWS_ENDPOINT_URL_S3"))
	if _, err := objects.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: new(inbox)}); err != nil {
		t.Fatal(err)
	}
	return objects
}

// TestForeignMessages has a message of each shape that the queue takes, and wrong ones.
func TestForeignMessages(t *testing.T) {
	t.Parallel()
	s := newStack(t, "--latency", "5ms")
	all := outsiders(t, s.inbox(t), "upwell")
	s.post(t, all)
	s.launch(t, "worker", "--exit-when-empty", "1s", "--run", "dropped", "--template", documentFiles(t),
		"--read-from", "s3://inbox/docs", "--read-from", "s3://inbox/payloads").exits(t, 1)
	results, letters := s.results(t, "dropped"), s.letters(t)
	var ids []string
	wrong := 0
	for _, o := range all {
		for _, id := range o.ids {
			ids = append(ids, id)
			r := results[id]
			if r.Response == nil || r.Upwell.OutputText == "" {
				t.Errorf("%.150s: job %s has no answer", o.body, id)
			}
			if strings.HasPrefix(id, "s3://") && (r.Upwell.SchemaSHA256 == "" || r.Upwell.TemplateSHA256 == "" || r.Upwell.Output == nil) {
				t.Errorf("the result of %s was held to the schema %q of the template %q, want both", id, r.Upwell.SchemaSHA256, r.Upwell.TemplateSHA256)
			}
		}
		l, buried := letters[o.body]
		switch {
		case buried != (o.why != ""):
			t.Errorf("%.150s: buried %v (%s), want %q", o.body, buried, l.Reason, o.why)
		case buried:
			wrong++
			if l.Class != jobs.BadJob || !strings.Contains(l.Reason, o.why) {
				t.Errorf("%.150s: the letter is %s, %q, want %s, %q", o.body, l.Class, l.Reason, jobs.BadJob, o.why)
			}
		}
	}
	if len(results) != len(ids) || len(letters) != wrong {
		t.Errorf("%d results and %d letters, want %d and %d", len(results), len(letters), len(ids), wrong)
	}
	if c := s.counts(t); int(c.Billed) != len(ids) || int(c.Calls) != len(ids) {
		t.Errorf("%d calls, %d of them billed, want one for each of %d jobs", c.Calls, c.Billed, len(ids))
	}
	if c := left(t, s.queue); c.Total() != 0 {
		t.Errorf("queue: %+v, want nothing left", c)
	}
}

// letters returns the dead letters by their bodies.
func (s *stack) letters(t *testing.T) map[string]jobs.DeadLetter {
	t.Helper()
	var mu sync.Mutex
	all := make(map[string]jobs.DeadLetter)
	_, err := s.dead.Letters(t.Context(), func(_ context.Context, letters []*sqsqueue.Letter) error {
		mu.Lock()
		defer mu.Unlock()
		for _, l := range letters {
			all[string(l.Body)] = l.DeadLetter
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestForeignProgram has the program do all of that by its flags, and delete payloads
// only when told to.
func TestForeignProgram(t *testing.T) {
	t.Parallel()
	s := newStack(t, "--latency", "5ms")
	file, objects := documentFiles(t), s.inbox(t)
	docs := uploads(t, objects, "docs/a.txt", "docs/b.txt")
	payload := func(name string) string {
		if _, err := objects.PutObject(t.Context(), &s3.PutObjectInput{Bucket: new(inbox), Key: &name, Body: bytes.NewReader(fixture.Job(name, ""))}); err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf(`["software.amazon.payloadoffloading.PayloadS3Pointer",{"s3BucketName":%q,"s3Key":%q}]`, inbox, name)
	}
	send := func(bodies ...string) {
		t.Helper()
		var out []sqsqueue.Outgoing
		for _, b := range bodies {
			out = append(out, sqsqueue.Outgoing{Body: []byte(b)})
		}
		if err := s.queue.Send(t.Context(), out); err != nil {
			t.Fatal(err)
		}
	}
	there := func(name string) bool {
		_, err := os.Stat(filepath.Join(filepath.Dir(s.dir), inbox, name))
		return err == nil
	}
	args := []string{"worker", "--exit-when-empty", "1s", "--template", file, "--read-from", "s3://inbox", "--run", "dropped"}

	// Without the flags, S3 is nobody's business, and the reasons say which are missing.
	send(s3Event(one(docs, "docs/a.txt")), payload("first"))
	s.launch(t, "worker", "--exit-when-empty", "1s").exits(t, 1)
	list := s.launch(t, "dead", "list")
	list.exits(t, 0)
	list.says(t, "standard output", list.stdout.String(), []string{`^  bad_job +2$`, `give the worker --template`, `allow it with --read-from s3://inbox`})

	// The letters go back as they came, and cannot be changed.
	changed := s.launch(t, "dead", "redrive", "--set", "max_output_tokens=8000")
	changed.exits(t, 1)
	changed.says(t, "standard output", changed.stdout.String(), []string{`^redriven: 0$`, `^left where they are: 2$`, `it is no job itself, but refers to one, which --set cannot change`})
	s.launch(t, "dead", "redrive").exits(t, 0)
	send(s3Event(one(docs, "docs/b.txt")), payload("second"), `{"Service":"Amazon S3","Event":"s3:TestEvent","Bucket":"inbox"}`)
	s.launch(t, args...).exits(t, 0)
	want := []string{"first", docID(docs, "docs/a.txt"), docID(docs, "docs/b.txt"), "second"}
	if got := slices.Sorted(maps.Keys(s.results(t, "dropped"))); !slices.Equal(got, want) {
		t.Errorf("results for %q, want %q", got, want)
	}
	if !there("first") || !there("second") {
		t.Error("payloads are gone, want them kept unless told otherwise")
	}

	// With the flag, the payload goes when its job has a result, and not when it failed.
	send(payload("third"), strings.Replace(payload("fourth"), "fourth", "missing", 1))
	s.launch(t, append(args, "--delete-payloads")...).exits(t, 1)
	if there("third") || !there("fourth") || !there("docs/a.txt") {
		t.Errorf("third is there: %v, fourth: %v, the document: %v; want the first gone alone", there("third"), there("fourth"), there("docs/a.txt"))
	}
	if c := s.counts(t); c.Billed != 5 || c.Calls != 5 {
		t.Errorf("%d calls, %d of them billed, want one for each of 5 jobs", c.Calls, c.Billed)
	}
	if c := left(t, s.queue); c.Total() != 0 {
		t.Errorf("queue: %+v, want nothing left", c)
	}

	for flags, why := range map[string]string{
		"--read-from inbox":  `--read-from "inbox", want a place in S3 such as s3://bucket/prefix`,
		"--max-object-mib 0": `--max-object-mib 0, want at least 1`,
		"--template " + file: `--template is for documents that S3 tells of: say with --read-from where they may lie`,
	} {
		p := s.launch(t, append([]string{"worker"}, strings.Fields(flags)...)...)
		p.exits(t, 2)
		if !strings.Contains(p.stderr.String(), why) {
			t.Errorf("worker %s says %q, want %q", flags, tail(p.stderr.String()), why)
		}
	}
}

// results returns a run's results by custom_id, as they lie in the bucket.
func (s *stack) results(t *testing.T, run string) map[string]jobs.Result {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(s.dir, "runs", run, "results", "*", "*.json"))
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]jobs.Result)
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		r, err := sink.Decode(text)
		if err != nil {
			t.Fatal(err)
		}
		all[r.CustomID] = r
	}
	return all
}
