package opener_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/png"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"upwell/cmd/internal/opener"
	"upwell/cmd/internal/prompt"
	"upwell/jobs"
	"upwell/sink/s3sink"
	"upwell/sink/s3sink/s3sim"
	"upwell/worker"
)

// Changes of one line that these tests have been seen to catch:
//
//   - Holds compares beginnings of texts; a bucket is not compared
//   - nothing is asked of an event's object; or of a reference's
//   - own objects become documents, or are dead-lettered
//   - an id without the version or the ETag
//   - a replaced object read, or another version than the event's
//   - the name of the schema left in the job
//   - a limit that is not checked before, or while, an object is read
//   - 403 taken for final, 404 for passing
//   - payloads always deleted, or bodies

// A world is S3 with a few buckets, and an Opener's settings.
type world struct {
	t   *testing.T
	dir string
	sim http.Handler
	cfg opener.Config
	log bytes.Buffer

	mu       sync.Mutex
	requests []string                                    // methods and paths, with their queries
	instead  func(r *http.Request) (status, code string) // answered in the place of S3
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir()}
	for _, bucket := range []string{"results", "inbox", "other"} {
		if err := os.Mkdir(filepath.Join(w.dir, bucket), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	sim, err := s3sim.New(s3sim.Config{Dir: w.dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sim.Close() })
	w.sim = sim
	w.cfg = opener.Config{
		Client: s3sink.NewClient(aws.Config{
			Region: "us-west-2", BaseEndpoint: new("http://s3.test"), HTTPClient: &http.Client{Transport: w},
			Credentials: credentials.NewStaticCredentialsProvider("id", "secret", ""),
		}),
		Bucket: "results", Prefix: "team", Run: "nightly",
		Log: slog.New(slog.NewTextHandler(&w.log, nil)),
	}
	return w
}

// RoundTrip implements http.RoundTripper.
func (w *world) RoundTrip(r *http.Request) (*http.Response, error) {
	w.mu.Lock()
	w.requests = append(w.requests, r.Method+" "+r.URL.RequestURI())
	w.mu.Unlock()
	rec := httptest.NewRecorder()
	if w.instead != nil {
		if status, code := w.instead(r); status != "" {
			var n int
			_, _ = fmt.Sscan(status, &n)
			rec.Header().Set("Content-Type", "application/xml")
			rec.WriteHeader(n)
			fmt.Fprintf(rec, "<Error><Code>%s</Code><Message>words</Message></Error>", code)
			return rec.Result(), nil
		}
	}
	w.sim.ServeHTTP(rec, r)
	return rec.Result(), nil
}

func (w *world) put(bucket, key string, text []byte) {
	w.t.Helper()
	file := filepath.Join(w.dir, bucket, filepath.FromSlash(key))
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(file, text, 0o644); err != nil {
		w.t.Fatal(err)
	}
}

// template sets a template, with a schema.
func (w *world) template() {
	w.t.Helper()
	t, err := prompt.Parse("t.md", []byte("---\nmodel: m\nschema: s.json\n---\n{{.name}} {{.path}} {{.type}} {{.size}}: {{.text}}"),
		fstest.MapFS{"s.json": &fstest.MapFile{Data: []byte(`{"type":"object"}`)}})
	if err != nil {
		w.t.Fatal(err)
	}
	w.cfg.Template = t
}

func (w *world) readFrom(places ...string) {
	w.t.Helper()
	for _, text := range places {
		p, err := opener.ParsePlace(text)
		if err != nil {
			w.t.Fatal(err)
		}
		w.cfg.ReadFrom = append(w.cfg.ReadFrom, p)
	}
}

// open opens a message and fetches what it refers to.
func (w *world) open(body string) (p worker.Parcel, text string, err error) {
	w.t.Helper()
	p, err = opener.New(w.cfg).Open(jobs.Message{Body: []byte(body)})
	if err != nil || p.Fetch == nil {
		return p, string(p.Text), err
	}
	if _, err := p.Size(w.t.Context()); err != nil {
		return p, "", err
	}
	got, err := p.Fetch(w.t.Context())
	return p, string(got), err
}

// event is what S3 tells of one object.
func event(bucket, key string, more string) string {
	return fmt.Sprintf(`{"Records":[{"eventSource":"aws:s3","eventName":"ObjectCreated:Put","s3":{"bucket":{"name":%q},"object":{"key":%q%s}}}]}`, bucket, key, more)
}

func pointer(bucket, key string) string {
	return fmt.Sprintf(`["software.amazon.payloadoffloading.PayloadS3Pointer",{"s3BucketName":%q,"s3Key":%q}]`, bucket, key)
}

func reference(url string) string {
	return fmt.Sprintf(`{"custom_id":"a","body_ref":%q,"upwell":{"run":"q3"}}`, url)
}

const job = `{"custom_id":"a","url":"/v1/responses","body":{"model":"m","input":"hi"}}`

// TestReferences reads the jobs that messages refer to, and nothing for one that is a
// job itself.
func TestReferences(t *testing.T) {
	w := newWorld(t)
	w.readFrom("s3://inbox/payloads")
	w.put("inbox", "payloads/1", []byte(job))
	w.put("results", "team/runs/q3/bodies/aa/a.json", []byte(job))
	for body, key := range map[string]jobs.Key{
		pointer("inbox", "payloads/1"):                              {},
		`{"s3BucketName":"inbox","s3Key":"payloads/1"}`:             {},
		reference("s3://inbox/payloads/1"):                          {Run: "q3", CustomID: "a"},
		reference("s3://results/team/runs/q3/bodies/aa/a.json"):     {Run: "q3", CustomID: "a"},
		`{"body_ref":"s3://results/team/runs/q3/bodies/aa/a.json"}`: {},
	} {
		p, text, err := w.open(body)
		if err != nil || text != job || p.Key != key || p.Forget != nil {
			t.Errorf("%s: %q, %v for %v, removed %v, want the job for %v, and nothing removed", body, text, err, p.Key, p.Forget != nil, key)
		}
	}
	w.requests = nil
	if _, text, err := w.open(job); err != nil || text != job || len(w.requests) != 0 {
		t.Errorf("a job: %q, %v after the requests %q, want it as it is and none", text, err, w.requests)
	}
}

// TestSizeIsKnownBefore wants the room told that a fetch takes, without the fetch.
func TestSizeIsKnownBefore(t *testing.T) {
	w := newWorld(t)
	w.template()
	w.readFrom("s3://inbox")
	w.put("inbox", "a.txt", make([]byte, 1000))
	for body, want := range map[string]int64{
		pointer("inbox", "a.txt"):               1000,
		event("inbox", "a.txt", `,"size":1000`): 4000,
		event("inbox", "a.txt", ``):             4000,
	} {
		p, err := opener.New(w.cfg).Open(jobs.Message{Body: []byte(body)})
		if err != nil {
			t.Fatal(err)
		}
		w.requests = nil
		if n, err := p.Size(t.Context()); err != nil || n != want || strings.Contains(strings.Join(w.requests, " "), "GET") {
			t.Errorf("%s: Size = %d, %v by %q, want %d without reading it", body, n, err, w.requests, want)
		}
	}
}

// TestPlaces wants nothing read but what the operator allows, and no request made to
// find that out.
func TestPlaces(t *testing.T) {
	w := newWorld(t)
	w.template()
	w.readFrom("s3://inbox/docs/", "s3://other")
	for body, want := range map[string]string{
		pointer("inbox", "docs/1"):                       "",
		pointer("inbox", "docs"):                         "",
		pointer("inbox", "docs/a/b"):                     "",
		pointer("other", "x"):                            "",
		reference("s3://results/team/runs/x/y"):          "",
		pointer("inbox", "docs2/1"):                      "s3Key: s3://inbox/docs2/1 is not among what this worker may read: allow it with --read-from s3://inbox/docs2",
		pointer("inbox", "1"):                            "s3Key: s3://inbox/1 is not among what this worker may read: allow it with --read-from s3://inbox",
		pointer("inbox", "docs/../secret"):               "want a key without . or ..",
		pointer("inbox2", "docs/1"):                      "--read-from s3://inbox2/docs",
		reference("s3://results/team/runs2/x"):           "body_ref: s3://results/team/runs2/x is not among what this worker may read",
		reference("s3://results/runs/x"):                 "--read-from s3://results/runs",
		reference("s3://results/team/state/x.json"):      "--read-from s3://results/team/state",
		event("inbox", "docs/a.txt", ""):                 "",
		event("inbox", "secret/a.txt", ""):               "s3://inbox/secret/a.txt is not among what this worker may read: allow it with --read-from s3://inbox/secret",
		event("inbox", "docs/a.txt", `,"size":99999999`): "s3://inbox/docs/a.txt: 95.4 MiB, want at most 32: raise --max-object-mib",
		event("results", "team/uploads/a.txt", ""):       "--read-from s3://results/team/uploads",
	} {
		_, err := opener.New(w.cfg).Open(jobs.Message{Body: []byte(body)})
		if _, ok := errors.AsType[*jobs.FormatError](err); ok != (want != "") || want == "" && err != nil || want != "" && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: Open = %v, want %q", body, err, want)
		}
	}
	if len(w.requests) != 0 {
		t.Errorf("Open made the requests %q, want none", w.requests)
	}
}

// TestParsePlace reads places as people write them.
func TestParsePlace(t *testing.T) {
	for text, want := range map[string]opener.Place{
		"s3://b": {Bucket: "b"}, "s3://b/": {Bucket: "b"}, "s3://b/in/": {Bucket: "b", Prefix: "in"}, "s3://b/in/2026": {Bucket: "b", Prefix: "in/2026"},
		"b/in": {}, "s3://": {}, "s3:///in": {}, "https://b": {}, "s3://b*/in": {},
	} {
		got, err := opener.ParsePlace(text)
		if got != want || (err == nil) != (want != opener.Place{}) {
			t.Errorf("ParsePlace(%q) = %v, %v, want %v", text, got, err, want)
		}
	}
}

// TestDocuments makes jobs of documents that S3 tells of.
func TestDocuments(t *testing.T) {
	w := newWorld(t)
	w.template()
	w.readFrom("s3://inbox")
	w.put("inbox", "2026/Müller & Söhne.txt", []byte("Term: one year."))
	_, _, err := w.open(event("inbox", "2026/nobody.txt", ``))
	if err == nil {
		t.Error("a document that is not there was read")
	}
	head := "s3://inbox/2026/Müller & Söhne.txt"
	now, err := w.cfg.Client.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: new("inbox"), Key: new("2026/Müller & Söhne.txt")})
	if err != nil {
		t.Fatal(err)
	}
	etag := strings.Trim(*now.ETag, `"`)
	for _, tt := range []struct{ more, id string }{
		{`,"eTag":"` + etag + `"`, head + "?etag=" + etag},
		{`,"versionId":"null","eTag":"` + etag + `"`, head + "?etag=" + etag},
		{``, head},
	} {
		p, text, err := w.open(event("inbox", "2026/M%C3%BCller+%26+S%C3%B6hne.txt", tt.more))
		if err != nil {
			t.Errorf("%s: %v, want a job", tt.more, err)
			continue
		}
		j, err := jobs.Parse([]byte(text), "nightly")
		if want := (jobs.Key{Run: "nightly", CustomID: tt.id}); err != nil || j.Key != want || p.Key != want {
			t.Errorf("the job of %s is %v, %v, and its message says %v, want %v", tt.more, j.Key, err, p.Key, want)
		}
		if string(j.Schema) != `{"type":"object"}` || j.TemplateSHA256 != w.cfg.Template.SHA256() {
			t.Errorf("the job has the schema %s and is of the template %s, want the template's own", j.Schema, j.TemplateSHA256)
		}
		var body struct{ Input string }
		if err := json.Unmarshal(j.Body, &body); err != nil || body.Input != "Müller & Söhne.txt 2026/Müller & Söhne.txt txt 15: Term: one year." {
			t.Errorf("the job asks %q, %v, want the template filled in", body.Input, err)
		}
	}
}

// TestImage wants an image sent as one.
func TestImage(t *testing.T) {
	w := newWorld(t)
	w.template()
	w.readFrom("s3://inbox")
	var picture bytes.Buffer
	if err := png.Encode(&picture, image.NewGray(image.Rect(0, 0, 3, 3))); err != nil {
		t.Fatal(err)
	}
	w.put("inbox", "a.png", picture.Bytes())
	if _, text, err := w.open(event("inbox", "a.png", "")); err != nil || !strings.Contains(text, "data:image/png;base64,") {
		t.Errorf("%.200s, %v, want an image in it", text, err)
	}
}

// TestNoDocuments has events that no job can be made of, and says why.
func TestNoDocuments(t *testing.T) {
	w := newWorld(t)
	w.template()
	w.cfg.MaxObject = 1 << 20
	w.readFrom("s3://inbox")
	w.put("inbox", "empty.txt", nil)
	w.put("inbox", "noise.pdf", []byte("no PDF"))
	w.put("inbox", "large.txt", bytes.Repeat([]byte("word "), 300_000))
	w.put("inbox", "now.txt", []byte("the new one"))
	for body, want := range map[string]string{
		event("inbox", "a.exe", ""):                     "s3://inbox/a.exe: of no type that can be read, want .txt, .md",
		event("inbox", "none.txt", ""):                  "s3://inbox/none.txt: there is no such object, or none any more",
		event("inbox", "empty.txt", ""):                 "s3://inbox/empty.txt: the file is empty",
		event("inbox", "noise.pdf", ""):                 "s3://inbox/noise.pdf: ",
		event("inbox", "large.txt", `,"size":1500000`):  "s3://inbox/large.txt: 1.4 MiB, want at most 1: raise --max-object-mib",
		event("inbox", "large.txt", ``):                 "s3://inbox/large.txt: 1.4 MiB, want at most 1",
		event("inbox", "large.txt", `,"size":10`):       "s3://inbox/large.txt: 1.4 MiB, want at most 1", // it was smaller then
		event("inbox", "now.txt", `,"eTag":"00112233"`): "s3://inbox/now.txt: replaced since",
		pointer("inbox", "large.txt"):                   "s3Key: s3://inbox/large.txt: 1.4 MiB, want at most 1",
	} {
		_, _, err := w.open(body)
		if _, ok := errors.AsType[*jobs.FormatError](err); !ok || !strings.HasPrefix(err.Error(), "not a job: "+want) {
			t.Errorf("%s: %v, want a FormatError %q", body, err, want)
		}
	}
}

// TestEvents has what S3 says that is no single document.
func TestEvents(t *testing.T) {
	w := newWorld(t)
	both := `{"Records":[` + record(event("inbox", "a.txt", "")) + `,` + record(event("inbox", "b.txt", "")) + `]}`
	test := `{"Service":"Amazon S3","Event":"s3:TestEvent","Bucket":"inbox"}`
	for _, body := range []string{event("inbox", "a.txt", ""), both} {
		if _, _, err := w.open(body); err == nil || !strings.Contains(err.Error(), "give the worker --template") {
			t.Errorf("%s without a template: %v, want it to say what is missing", body, err)
		}
	}
	if p, _, err := w.open(test); err != nil || p.Text != nil || p.Fetch != nil || p.Parts != nil {
		t.Errorf("a test: %+v, %v, want nothing to do", p, err)
	}
	w.template()
	w.readFrom("s3://inbox")
	p, _, err := w.open(both)
	if err != nil || len(p.Parts) != 2 || p.Fetch != nil {
		t.Fatalf("two documents: %+v, %v, want two parts", p, err)
	}
	for i, part := range p.Parts {
		one, err := opener.New(w.cfg).Open(jobs.Message{Body: part})
		if want := []string{"s3://inbox/a.txt", "s3://inbox/b.txt"}[i]; err != nil || one.Key.CustomID != want {
			t.Errorf("part %d is of %q, %v, want %s", i, one.Key.CustomID, err, want)
		}
	}
}

// record returns the record of an event with one.
func record(event string) string {
	return strings.TrimSuffix(strings.TrimPrefix(event, `{"Records":[`), `]}`)
}

// TestOwnObjects wants results to make no jobs, whose results would make others.
func TestOwnObjects(t *testing.T) {
	w := newWorld(t)
	w.template()
	w.readFrom("s3://results")
	o := opener.New(w.cfg)
	for _, key := range []string{"team/runs/nightly/results/aa/a.json", "team/runs/x/tables/readme.txt", "team/state/levels.json"} {
		p, err := o.Open(jobs.Message{Body: []byte(event("results", key, ""))})
		if err != nil || p.Fetch != nil || p.Text != nil || p.Key != (jobs.Key{}) {
			t.Errorf("%s: %+v, %v, want nothing to do", key, p, err)
		}
	}
	if n := strings.Count(w.log.String(), "upwell's own objects are ignored"); n != 1 {
		t.Errorf("said %d times, want once: %s", n, w.log.String())
	}
	if p, err := o.Open(jobs.Message{Body: []byte(event("results", "team/in/a.txt", ""))}); err != nil || p.Fetch == nil {
		t.Errorf("a document beside them: %+v, %v, want it read", p, err)
	}
}

// TestLongNames wants two documents told apart whose names are longer than an id.
func TestLongNames(t *testing.T) {
	w := newWorld(t)
	w.template()
	w.readFrom("s3://inbox")
	seen := make(map[string]bool)
	for _, end := range []string{"a", "b"} {
		p, err := opener.New(w.cfg).Open(jobs.Message{Body: []byte(event("inbox", strings.Repeat("long/", 150)+end+".txt", `,"versionId":"v"`))})
		if err != nil || len(p.Key.CustomID) > jobs.MaxCustomID {
			t.Errorf("an id of %d bytes, %v, want at most %d", len(p.Key.CustomID), err, jobs.MaxCustomID)
		}
		seen[p.Key.CustomID] = true
	}
	if len(seen) != 2 {
		t.Error("two documents have one id")
	}
}

// TestVersion wants the version read that the event is about.
func TestVersion(t *testing.T) {
	w := newWorld(t)
	w.template()
	w.readFrom("s3://inbox")
	p, err := opener.New(w.cfg).Open(jobs.Message{Body: []byte(event("inbox", "a.txt", `,"versionId":"v 1/2","eTag":"e"`))})
	if err != nil || p.Key.CustomID != "s3://inbox/a.txt?versionId=v 1/2" {
		t.Errorf("the id is %q, %v, want the version in it", p.Key.CustomID, err)
	}
	w.instead = func(*http.Request) (string, string) { return "404", "NoSuchVersion" }
	if _, err := p.Fetch(t.Context()); err == nil || !strings.Contains(err.Error(), "none any more") {
		t.Errorf("Fetch = %v, want it gone", err)
	}
	if _, err := p.Size(t.Context()); err == nil {
		t.Error("Size of what is gone = nil")
	}
	for _, r := range w.requests {
		if !strings.Contains(r, "versionId=v%201%2F2") {
			t.Errorf("request %s, want it to ask for the version", r)
		}
	}
}

// TestTrouble wants S3's errors told apart: what is final, what passes, and what
// waits for a person.
func TestTrouble(t *testing.T) {
	for _, tt := range []struct {
		status, code string
		final, wait  bool
	}{
		{"404", "NoSuchKey", true, false},
		{"404", "NoSuchBucket", true, false},
		{"405", "MethodNotAllowed", true, false},
		{"403", "InvalidObjectState", true, false},
		{"403", "AccessDenied", false, true},
		{"400", "ExpiredToken", false, true},
		{"301", "PermanentRedirect", false, true},
		{"501", "NotImplemented", false, false},
	} {
		w := newWorld(t)
		w.readFrom("s3://inbox")
		w.instead = func(*http.Request) (string, string) { return tt.status, tt.code }
		p, err := opener.New(w.cfg).Open(jobs.Message{Body: []byte(pointer("inbox", "p/1"))})
		if err != nil {
			t.Fatal(err)
		}
		_, err = p.Fetch(t.Context())
		_, final := errors.AsType[*jobs.FormatError](err)
		e, wait := errors.AsType[*worker.Error](err)
		if err == nil || final != tt.final || wait != tt.wait || wait && e.Kind != worker.Unauthorized {
			t.Errorf("%s %s: %v, final %v, waits for a person %v, want %v and %v", tt.status, tt.code, err, final, wait, tt.final, tt.wait)
		}
		if wait && !strings.Contains(err.Error(), "allow s3:GetObject on s3://inbox/p/*") {
			t.Errorf("%s: %v, want it to say what to allow", tt.code, err)
		}
	}
}

// TestCancelled wants the end of the context not taken for the object's.
func TestCancelled(t *testing.T) {
	w := newWorld(t)
	w.readFrom("s3://inbox")
	w.put("inbox", "1", []byte(job))
	p, err := opener.New(w.cfg).Open(jobs.Message{Body: []byte(pointer("inbox", "1"))})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = p.Fetch(ctx)
	if _, final := errors.AsType[*jobs.FormatError](err); err == nil || final {
		t.Errorf("Fetch = %v, want an error that passes", err)
	}
}

// TestDeletePayloads removes payloads when asked, and nothing else.
func TestDeletePayloads(t *testing.T) {
	w := newWorld(t)
	w.template()
	w.readFrom("s3://inbox")
	w.cfg.DeletePayloads = true
	w.put("inbox", "p/1", []byte(job))
	w.put("inbox", "p/2", []byte(job))
	w.put("results", "team/runs/q3/bodies/aa/1.json", []byte(job))
	for body, want := range map[string]bool{
		pointer("results", "team/runs/q3/bodies/aa/1.json"): false,
		pointer("inbox", "p/1"):                             true, reference("s3://inbox/p/2"): false, event("inbox", "p/1.txt", ""): false,
	} {
		p, err := opener.New(w.cfg).Open(jobs.Message{Body: []byte(body)})
		if err != nil || (p.Forget != nil) != want {
			t.Errorf("%s: removed %v, %v, want %v", body, p.Forget != nil, err, want)
		}
		if p.Forget != nil {
			if err := p.Forget(t.Context()); err != nil {
				t.Error(err)
			}
		}
	}
	files, err := filepath.Glob(filepath.Join(w.dir, "inbox/p/*"))
	if err != nil || len(files) != 1 || filepath.Base(files[0]) != "2" {
		t.Errorf("left are %q, want the other one", files)
	}
	if slices.ContainsFunc(w.requests, func(r string) bool { return strings.HasPrefix(r, "DELETE") && !strings.Contains(r, "/inbox/p/1") }) {
		t.Errorf("requests %q, want p/1 deleted alone", w.requests)
	}
}

// TestKeyOfAWrongReference wants the failure filed under its job.
func TestKeyOfAWrongReference(t *testing.T) {
	w := newWorld(t)
	for _, body := range []string{reference("s3://elsewhere/x"), `{"custom_id":"a","body_ref":7,"upwell":{"run":"q3"}}`} {
		if p, _, err := w.open(body); err == nil || p.Key != (jobs.Key{Run: "q3", CustomID: "a"}) {
			t.Errorf("%s: %v, %v, want an error for q3/a", body, p.Key, err)
		}
	}
}
