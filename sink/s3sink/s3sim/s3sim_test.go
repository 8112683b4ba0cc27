package s3sim_test

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/google/go-cmp/cmp"

	"upwell/sink/s3sink/s3sim"
)

const bucket = "test-bucket"

// A world is a server, a client of it, and a bucket.
type world struct {
	*testing.T
	*s3.Client
	dir string
	sim *s3sim.Server
}

func newWorld(t *testing.T, cfg s3sim.Config) *world {
	t.Helper()
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	sim, err := s3sim.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sim.Close() })
	srv := httptest.NewServer(sim)
	t.Cleanup(srv.Close)
	w := &world{T: t, Client: client(srv.URL, srv.Client()), dir: filepath.Join(cfg.Dir, bucket), sim: sim}
	if _, err := w.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: new(bucket)}); err != nil && code(err) != "BucketAlreadyExists" {
		t.Fatal(err)
	}
	return w
}

// client returns an S3 client that does not retry.
func client(url string, c *http.Client, opts ...func(*s3.Options)) *s3.Client {
	if tr, ok := c.Transport.(*http.Transport); ok {
		tr.MaxIdleConnsPerHost = 64
	}
	return s3.New(s3.Options{
		BaseEndpoint:               &url,
		Region:                     "us-east-1",
		UsePathStyle:               true,
		HTTPClient:                 c,
		RetryMaxAttempts:           1,
		Credentials:                credentials.NewStaticCredentialsProvider("AKLOCAL", "secret", ""),
		RequestChecksumCalculation: aws.RequestChecksumCalculationWhenSupported,
		ResponseChecksumValidation: aws.ResponseChecksumValidationWhenSupported,
	}, opts...)
}

func (w *world) put(key, body string, opts ...func(*s3.PutObjectInput)) error {
	in := &s3.PutObjectInput{Bucket: new(bucket), Key: &key, Body: strings.NewReader(body)}
	for _, o := range opts {
		o(in)
	}
	_, err := w.PutObject(w.Context(), in)
	return err
}

func (w *world) mustPut(key, body string, opts ...func(*s3.PutObjectInput)) {
	w.Helper()
	if err := w.put(key, body, opts...); err != nil {
		w.Fatalf("PutObject(%.60q) = %v, want nil", key, err)
	}
}

func (w *world) get(key string, opts ...func(*s3.GetObjectInput)) (*s3.GetObjectOutput, string, error) {
	in := &s3.GetObjectInput{Bucket: new(bucket), Key: &key}
	for _, o := range opts {
		o(in)
	}
	out, err := w.GetObject(w.Context(), in)
	if err != nil {
		return nil, "", err
	}
	defer out.Body.Close()
	body, err := io.ReadAll(out.Body)
	return out, string(body), err
}

func (w *world) remove(key string) {
	w.Helper()
	if _, err := w.DeleteObject(w.Context(), &s3.DeleteObjectInput{Bucket: new(bucket), Key: &key}); err != nil {
		w.Errorf("DeleteObject(%.60q) = %v, want nil", key, err)
	}
}

func (w *world) wantBody(key, want string) {
	w.Helper()
	if _, got, err := w.get(key); err != nil || got != want {
		w.Errorf("GetObject(%.60q) = %.40q, %v, want %.40q", key, got, err, want)
	}
}

func (w *world) wantCode(err error, status int, want string) {
	w.Helper()
	if got := code(err); got != want || httpStatus(err) != status {
		w.Errorf("got %d %s (%v), want %d %s", httpStatus(err), got, err, status, want)
	}
}

func code(err error) string {
	type coded interface {
		error
		ErrorCode() string
	}
	if e, ok := errors.AsType[coded](err); ok {
		return e.ErrorCode()
	}
	return ""
}

func httpStatus(err error) int {
	type response interface {
		error
		HTTPStatusCode() int
	}
	if e, ok := errors.AsType[response](err); ok {
		return e.HTTPStatusCode()
	}
	return 0
}

// ifAbsent has a put fail where there is an object.
func ifAbsent(in *s3.PutObjectInput) { in.IfNoneMatch = new("*") }

func ifMatch(v string) func(*s3.PutObjectInput) {
	return func(in *s3.PutObjectInput) { in.IfMatch = &v }
}

func etag(body string) string {
	sum := md5.Sum([]byte(body))
	return `"` + hex.EncodeToString(sum[:]) + `"`
}

func TestRoundTrip(t *testing.T) {
	w := newWorld(t, s3sim.Config{Sync: true})
	before := time.Now().Truncate(time.Second)
	w.mustPut("runs/x/out.json", `{"a":1}`, func(in *s3.PutObjectInput) {
		in.ContentType = new("application/json")
		in.CacheControl = new("no-store")
		in.ContentDisposition = new("inline")
		in.Metadata = map[string]string{"job-id": "7", "sha": "abc"}
	})
	out, body, err := w.get("runs/x/out.json")
	if err != nil {
		t.Fatal(err)
	}
	if body != `{"a":1}` || *out.ContentType != "application/json" || *out.CacheControl != "no-store" ||
		*out.ContentDisposition != "inline" || *out.ETag != etag(body) || *out.ContentLength != 7 {
		t.Errorf("got %q, %+v", body, out)
	}
	if d := cmp.Diff(map[string]string{"job-id": "7", "sha": "abc"}, out.Metadata); d != "" {
		t.Errorf("metadata (-want +got):\n%s", d)
	}
	head, err := w.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: new(bucket), Key: new("runs/x/out.json")})
	if err != nil {
		t.Fatal(err)
	}
	if *head.ContentLength != 7 || *head.ETag != *out.ETag || head.Metadata["job-id"] != "7" {
		t.Errorf("HeadObject = %+v", head)
	}
	if m := *head.LastModified; m.Before(before) || m.After(time.Now()) {
		t.Errorf("LastModified = %v, want between %v and now", m, before)
	}
	w.mustPut("plain", "")
	if out, body, err := w.get("plain"); err != nil || body != "" || out.Metadata != nil {
		t.Errorf("empty object = %q, %+v, %v", body, out, err)
	}
}

func TestErrors(t *testing.T) {
	w := newWorld(t, s3sim.Config{})
	ctx := t.Context()
	w.mustPut("a", "0123456789")

	_, _, err := w.get("nope")
	w.wantCode(err, 404, "NoSuchKey")
	if _, ok := errors.AsType[*types.NoSuchKey](err); !ok {
		t.Errorf("GetObject(nope) = %T, want *types.NoSuchKey", err)
	}
	_, err = w.HeadObject(ctx, &s3.HeadObjectInput{Bucket: new(bucket), Key: new("nope")})
	w.wantCode(err, 404, "NotFound")
	for _, name := range []string{"no-such-bucket", "..", ".", "NOT_A_NAME"} {
		_, err = w.GetObject(ctx, &s3.GetObjectInput{Bucket: &name, Key: new("a")})
		w.wantCode(err, 404, "NoSuchBucket")
		_, err = w.PutObject(ctx, &s3.PutObjectInput{Bucket: &name, Key: new("a"), Body: strings.NewReader("x")})
		w.wantCode(err, 404, "NoSuchBucket")
		_, err = w.HeadBucket(ctx, &s3.HeadBucketInput{Bucket: &name})
		w.wantCode(err, 404, "NotFound")
	}
	_, err = w.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: new(bucket)})
	w.wantCode(err, 409, "BucketAlreadyExists")
	_, err = w.DeleteBucket(ctx, &s3.DeleteBucketInput{Bucket: new(bucket)})
	w.wantCode(err, 409, "BucketNotEmpty")
	_, _, err = w.get("a", func(in *s3.GetObjectInput) { in.Range = new("bytes=10-") })
	w.wantCode(err, 416, "InvalidRange")
	err = w.put(strings.Repeat("k", 1025), "x")
	w.wantCode(err, 400, "KeyTooLongError")

	w.remove("a")
	w.remove("a") // once more is no error
	if _, err := w.HeadBucket(ctx, &s3.HeadBucketInput{Bucket: new(bucket)}); err != nil {
		t.Error(err)
	}
	if _, err := w.DeleteBucket(ctx, &s3.DeleteBucketInput{Bucket: new(bucket)}); err != nil {
		t.Error(err)
	}
	w.wantCode(w.put("a", "x"), 404, "NoSuchBucket")
}

func TestBuckets(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "by-hand"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"Not A Bucket", ".git"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	w := newWorld(t, s3sim.Config{Dir: dir})
	out, err := w.ListBuckets(t.Context(), &s3.ListBucketsInput{})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, b := range out.Buckets {
		got = append(got, *b.Name)
		if age := time.Since(*b.CreationDate); age < 0 || age > time.Minute {
			t.Errorf("CreationDate of %s = %v", *b.Name, b.CreationDate)
		}
	}
	if d := cmp.Diff([]string{"by-hand", bucket}, got); d != "" {
		t.Errorf("ListBuckets (-want +got):\n%s", d)
	}

	// A folder that is removed and made again by hand is an empty bucket.
	w.mustPut("a//b", "odd")
	if err := os.RemoveAll(w.dir); err != nil {
		t.Fatal(err)
	}
	_, _, err = w.get("a//b")
	w.wantCode(err, 404, "NoSuchBucket")
	if err := os.Mkdir(w.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	_, _, err = w.get("a//b")
	w.wantCode(err, 404, "NoSuchKey")
	w.mustPut("a//b", "again")
	w.wantBody("a//b", "again")
}

func TestRanges(t *testing.T) {
	w := newWorld(t, s3sim.Config{})
	w.mustPut("a", "0123456789")
	for _, tt := range []struct{ rnge, body, header string }{
		{"bytes=0-0", "0", "bytes 0-0/10"},
		{"bytes=2-5", "2345", "bytes 2-5/10"},
		{"bytes=7-", "789", "bytes 7-9/10"},
		{"bytes=7-99", "789", "bytes 7-9/10"},
		{"bytes=-3", "789", "bytes 7-9/10"},
		{"bytes=-99", "0123456789", "bytes 0-9/10"},
	} {
		out, body, err := w.get("a", func(in *s3.GetObjectInput) { in.Range = &tt.rnge })
		if err != nil || body != tt.body || *out.ContentRange != tt.header {
			t.Errorf("range %s = %q, %v, %v, want %q, %s", tt.rnge, body, out, err, tt.body, tt.header)
		}
	}
}

func TestConditions(t *testing.T) {
	w := newWorld(t, s3sim.Config{})
	w.wantCode(w.put("a", "0", ifMatch(etag("0"))), 404, "NoSuchKey")
	w.mustPut("a", "1", ifAbsent)
	w.wantCode(w.put("a", "2", ifAbsent), 412, "PreconditionFailed")
	w.wantCode(w.put("a", "2", ifMatch(etag("2"))), 412, "PreconditionFailed")
	w.wantBody("a", "1")
	w.mustPut("a", "2", ifMatch(etag("1")))
	w.wantBody("a", "2")

	_, _, err := w.get("a", func(in *s3.GetObjectInput) { in.IfMatch = new(etag("1")) })
	w.wantCode(err, 412, "PreconditionFailed")
	_, _, err = w.get("a", func(in *s3.GetObjectInput) { in.IfNoneMatch = new(etag("2")) })
	if httpStatus(err) != 304 {
		t.Errorf("GetObject(If-None-Match) = %v, want 304", err)
	}

	_, err = w.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: new(bucket), Key: new("a"), IfMatch: new(etag("1"))})
	w.wantCode(err, 412, "PreconditionFailed")
	w.remove("a")
	w.mustPut("a", "3", ifAbsent)
}

// TestRace breaks if replace checks conditions before it takes the lock.
func TestRace(t *testing.T) {
	w := newWorld(t, s3sim.Config{})
	const writers = 16
	race := func(key string, opt func(*s3.PutObjectInput)) {
		t.Helper()
		var wg sync.WaitGroup
		errs := make([]error, writers)
		for i := range writers {
			wg.Go(func() { errs[i] = w.put(key, strings.Repeat("x", i+1), opt) })
		}
		wg.Wait()
		winner := -1
		for i, err := range errs {
			switch {
			case err == nil && winner < 0:
				winner = i
			case err == nil:
				t.Fatalf("%s: writers %d and %d both won", key, winner, i)
			case code(err) != "PreconditionFailed":
				t.Fatalf("%s: %v, want PreconditionFailed", key, err)
			}
		}
		if winner < 0 {
			t.Fatalf("%s: nobody won", key)
		}
		w.wantBody(key, strings.Repeat("x", winner+1))
	}
	rounds := 30
	if testing.Short() {
		rounds = 5
	}
	for i := range rounds {
		key := "race/" + strings.Repeat("k", i+1)
		race(key, ifAbsent)
		w.mustPut(key, "base")
		race(key, ifMatch(etag("base")))
	}
	race("race//odd", ifAbsent)
}

func TestPlainFiles(t *testing.T) {
	w := newWorld(t, s3sim.Config{})
	w.mustPut("runs/x/results/ab/id.json", `{"ok":true}`)
	got, err := os.ReadFile(filepath.Join(w.dir, "runs/x/results/ab/id.json"))
	if err != nil || string(got) != `{"ok":true}` {
		t.Errorf("file = %q, %v", got, err)
	}

	// A file placed by hand is an object.
	hand := filepath.Join(w.dir, "runs/x/hand.txt")
	when := time.Date(2024, 5, 6, 7, 8, 9, 0, time.UTC)
	write := func(body string) {
		t.Helper()
		if err := errors.Join(os.WriteFile(hand, []byte(body), 0o600), os.Chtimes(hand, when, when)); err != nil {
			t.Fatal(err)
		}
	}
	write("by hand")
	out, body, err := w.get("runs/x/hand.txt")
	if err != nil || body != "by hand" || *out.ETag != etag(body) || !out.LastModified.Equal(when) || *out.ContentType != "binary/octet-stream" {
		t.Errorf("GetObject = %q, %+v, %v", body, out, err)
	}
	w.wantCode(w.put("runs/x/hand.txt", "", ifAbsent), 412, "PreconditionFailed")
	if d := cmp.Diff([]string{"runs/x/hand.txt", "runs/x/results/ab/id.json"}, w.keys(&s3.ListObjectsV2Input{})); d != "" {
		t.Errorf("keys (-want +got):\n%s", d)
	}

	// Replaced by an upload it has metadata, which an edit by hand loses.
	w.mustPut("runs/x/hand.txt", "put", func(in *s3.PutObjectInput) { in.Metadata = map[string]string{"k": "v"} })
	if out, _, err := w.get("runs/x/hand.txt"); err != nil || out.Metadata["k"] != "v" || out.LastModified.Equal(when) {
		t.Errorf("after PutObject: %+v, %v", out, err)
	}
	write("tup")
	if out, body, err := w.get("runs/x/hand.txt"); err != nil || len(out.Metadata) > 0 || *out.ETag != etag("tup") || body != "tup" {
		t.Errorf("after an edit: %q, %+v, %v", body, out, err)
	}

	// Touching it changes its time only.
	w.mustPut("touched", "same", func(in *s3.PutObjectInput) { in.Metadata = map[string]string{"k": "v"} })
	if err := os.Chtimes(filepath.Join(w.dir, "touched"), when, when); err != nil {
		t.Fatal(err)
	}
	if out, _, err := w.get("touched"); err != nil || out.Metadata["k"] != "v" || !out.LastModified.Equal(when) {
		t.Errorf("after touch: %+v, %v", out, err)
	}
	if err := os.Remove(hand); err != nil {
		t.Fatal(err)
	}
	_, _, err = w.get("runs/x/hand.txt")
	w.wantCode(err, 404, "NoSuchKey")

	// Whatever links out of the bucket is not an object.
	if err := os.Symlink("/etc/hosts", filepath.Join(w.dir, "link")); err != nil {
		t.Fatal(err)
	}
	if _, body, err := w.get("link"); err == nil {
		t.Errorf("GetObject(link) = %q, want an error", body)
	}
}

func TestDeletePrunesFolders(t *testing.T) {
	w := newWorld(t, s3sim.Config{})
	w.mustPut("a/b/c/d", "1")
	w.mustPut("a/e", "2")
	w.remove("a/b/c/d")
	w.remove("a/e")
	if got := names(t, w.dir); !cmp.Equal(got, []string{".s3sim"}) {
		t.Errorf("folder holds %q, want .s3sim", got)
	}

	// A file that is in the way of a key is not a folder to be removed.
	w.mustPut("x", "1")
	w.mustPut("x/y", "2")
	w.remove("x/y")
	w.wantBody("x", "1")
	w.remove("x")
	// Nor is a key odd for longer than it has to be.
	w.mustPut("x/y", "3")
	if got, err := os.ReadFile(filepath.Join(w.dir, "x", "y")); err != nil || string(got) != "3" {
		t.Errorf("x/y = %q, %v, want a plain file", got, err)
	}
	w.remove("x/y")

	// Writers and removers of neighbours do not disturb each other.
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			key := "deep/er/and/deeper/" + string(rune('a'+i))
			for range 30 {
				if err := w.put(key, "x"); err != nil {
					t.Errorf("PutObject = %v, want nil", err)
				}
				w.remove(key)
			}
		})
	}
	wg.Wait()
	if got := names(t, w.dir); !cmp.Equal(got, []string{".s3sim"}) {
		t.Errorf("folder holds %q, want .s3sim", got)
	}
}

func names(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// TestReaders breaks if readers do not lock: metadata of one write then meets
// the body of another.
func TestReaders(t *testing.T) {
	w := newWorld(t, s3sim.Config{})
	do := func(r *http.Request) *httptest.ResponseRecorder {
		rec := httptest.NewRecorder()
		w.sim.ServeHTTP(rec, r)
		return rec
	}
	write := func(i int) {
		body := strings.Repeat(string(rune('a'+i)), 100)
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPut, "/"+bucket+"/a", strings.NewReader(body))
		r.Header.Set("Cache-Control", etag(body))
		if got := do(r); got.Code != http.StatusOK {
			t.Errorf("PutObject = %d %s", got.Code, got.Body)
		}
	}
	write(0)
	rounds := 200
	if testing.Short() {
		rounds = 50
	}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range rounds {
				write(i)
			}
		})
		wg.Go(func() {
			for range rounds {
				got := do(httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/"+bucket+"/a", nil))
				want := etag(got.Body.String())
				if h := got.Header(); h.Get("ETag") != want || h.Get("Cache-Control") != want {
					t.Errorf("GetObject = %.10q, %v", got.Body, h)
				}
			}
		})
	}
	wg.Wait()
}

func TestCopyAndDeleteObjects(t *testing.T) {
	w := newWorld(t, s3sim.Config{})
	w.mustPut("src//odd", "body", func(in *s3.PutObjectInput) {
		in.Metadata = map[string]string{"k": "v"}
		in.ChecksumAlgorithm = types.ChecksumAlgorithmSha256
	})
	out, err := w.CopyObject(t.Context(), &s3.CopyObjectInput{
		Bucket: new(bucket), Key: new("dst"), CopySource: new(bucket + "/src//odd"),
	})
	if err != nil || *out.CopyObjectResult.ETag != etag("body") {
		t.Fatalf("CopyObject = %+v, %v", out, err)
	}
	got, body, err := w.get("dst", func(in *s3.GetObjectInput) { in.ChecksumMode = types.ChecksumModeEnabled })
	if err != nil || body != "body" || got.Metadata["k"] != "v" || got.ChecksumSHA256 == nil {
		t.Errorf("copy = %q, %+v, %v", body, got, err)
	}
	_, err = w.CopyObject(t.Context(), &s3.CopyObjectInput{
		Bucket: new(bucket), Key: new("dst"), CopySource: new(bucket + "/src//odd"), IfNoneMatch: new("*"),
	})
	w.wantCode(err, 501, "NotImplemented")

	del, err := w.DeleteObjects(t.Context(), &s3.DeleteObjectsInput{Bucket: new(bucket), Delete: &types.Delete{
		Objects: []types.ObjectIdentifier{{Key: new("dst")}, {Key: new("src//odd")}, {Key: new("never")}},
	}})
	if err != nil || len(del.Deleted) != 3 || len(del.Errors) != 0 {
		t.Errorf("DeleteObjects = %+v, %v", del, err)
	}
	if got := w.keys(&s3.ListObjectsV2Input{}); len(got) > 0 {
		t.Errorf("left over: %q", got)
	}
}

func TestMultipart(t *testing.T) {
	w := newWorld(t, s3sim.Config{})
	upload := func(key string, opt func(*s3.CompleteMultipartUploadInput)) error {
		t.Helper()
		up, err := w.CreateMultipartUpload(t.Context(), &s3.CreateMultipartUploadInput{
			Bucket: new(bucket), Key: &key, ContentType: new("text/plain"), ChecksumAlgorithm: types.ChecksumAlgorithmCrc32,
		})
		if err != nil {
			t.Fatal(err)
		}
		var parts []types.CompletedPart
		for i, body := range []string{strings.Repeat("1", 5<<20), "tail"} {
			in := &s3.UploadPartInput{
				Bucket: new(bucket), Key: &key, UploadId: up.UploadId, PartNumber: new(int32(i + 1)),
				Body: strings.NewReader(body), ChecksumCRC32: new("AAAAAA=="),
			}
			_, err := w.UploadPart(t.Context(), in)
			w.wantCode(err, 400, "BadDigest")
			in.Body, in.ChecksumCRC32 = strings.NewReader(body), nil
			part, err := w.UploadPart(t.Context(), in)
			if err != nil {
				t.Fatal(err)
			}
			if part.ChecksumCRC32 == nil {
				t.Error("UploadPart returned no checksum")
			}
			parts = append(parts, types.CompletedPart{ETag: part.ETag, PartNumber: in.PartNumber, ChecksumCRC32: part.ChecksumCRC32})
		}
		in := &s3.CompleteMultipartUploadInput{
			Bucket: new(bucket), Key: &key, UploadId: up.UploadId,
			MultipartUpload: &types.CompletedMultipartUpload{Parts: parts},
		}
		opt(in)
		_, err = w.CompleteMultipartUpload(t.Context(), in)
		return err
	}
	once := func(in *s3.CompleteMultipartUploadInput) { in.IfNoneMatch = new("*") }
	if err := upload("big", once); err != nil {
		t.Fatal(err)
	}
	out, body, err := w.get("big")
	if err != nil || body != strings.Repeat("1", 5<<20)+"tail" || *out.ContentType != "text/plain" {
		t.Errorf("GetObject = %d bytes, %+v, %v", len(body), out, err)
	}
	w.wantCode(upload("big", once), 412, "PreconditionFailed")
}

func TestFaults(t *testing.T) {
	var mu sync.Mutex
	var next s3sim.Fault
	var seen []string
	w := newWorld(t, s3sim.Config{Fault: func(op, bucket, key string) s3sim.Fault {
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, op+" "+bucket+" "+key)
		f := next
		next = s3sim.Fault{}
		return f
	}})
	fail := func(f s3sim.Fault) {
		mu.Lock()
		defer mu.Unlock()
		next = f
	}
	for _, tt := range []struct {
		fault   s3sim.Fault
		status  int
		code    string
		applied bool
	}{
		{s3sim.Fault{Status: 503, Code: "SlowDown"}, 503, "SlowDown", false},
		{s3sim.Fault{Status: 503}, 503, "SlowDown", false},
		{s3sim.Fault{Code: "SlowDown"}, 503, "SlowDown", false},
		{s3sim.Fault{Status: 409, Code: "ConditionalRequestConflict"}, 409, "ConditionalRequestConflict", false},
		{s3sim.Fault{Drop: true}, 0, "", false},
		{s3sim.Fault{Apply: true, Status: 500}, 500, "InternalError", true},
		{s3sim.Fault{Apply: true, Drop: true}, 0, "", true},
	} {
		fail(tt.fault)
		err := w.put("a", "x")
		if err == nil {
			t.Errorf("%+v: PutObject = nil, want an error", tt.fault)
		}
		w.wantCode(err, tt.status, tt.code)
		_, _, err = w.get("a")
		if got := err == nil; got != tt.applied {
			t.Errorf("%+v: applied = %v, want %v", tt.fault, got, tt.applied)
		}
		fail(tt.fault)
		_, err = w.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: new(bucket), Key: new("a")})
		if err == nil {
			t.Errorf("%+v: DeleteObject = nil, want an error", tt.fault)
		}
		if tt.applied {
			_, _, err = w.get("a")
			w.wantCode(err, 404, "NoSuchKey")
		}
	}
	fail(s3sim.Fault{Status: 500})
	_, err := w.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: new(bucket), Key: new("a")})
	if httpStatus(err) != 500 {
		t.Errorf("HeadObject = %v, want 500", err)
	}
	if want := "PutObject " + bucket + " a"; seen[1] != want {
		t.Errorf("Fault saw %q, want %q", seen[1], want)
	}
}

func TestStats(t *testing.T) {
	w := newWorld(t, s3sim.Config{Fault: func(op, _, _ string) s3sim.Fault {
		if op == "ListObjectsV2" {
			return s3sim.Fault{Status: 503}
		}
		return s3sim.Fault{}
	}})
	w.mustPut("a", "x")
	w.mustPut("b", "x")
	w.wantBody("a", "x")
	_, _ = w.ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{Bucket: new(bucket)})
	_, _ = w.ListObjects(t.Context(), &s3.ListObjectsInput{Bucket: new(bucket)})
	_, _ = w.ListBuckets(t.Context(), &s3.ListBucketsInput{})
	_, _ = w.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: new(bucket), Key: new("a")})
	_, _ = w.HeadBucket(t.Context(), &s3.HeadBucketInput{Bucket: new(bucket)})
	_, _ = w.CopyObject(t.Context(), &s3.CopyObjectInput{Bucket: new(bucket), Key: new("c"), CopySource: new(bucket + "/a")})
	_, _ = w.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: new(bucket), Key: new("a")})
	_, _ = w.DeleteObjects(t.Context(), &s3.DeleteObjectsInput{
		Bucket: new(bucket), Delete: &types.Delete{Objects: []types.ObjectIdentifier{{Key: new("a")}}},
	})
	_, _ = w.GetBucketPolicy(t.Context(), &s3.GetBucketPolicyInput{Bucket: new(bucket)})
	want := map[string]int64{
		"CreateBucket": 1, "PutObject": 2, "GetObject": 1, "ListObjectsV2": 1, "ListObjects": 1, "ListBuckets": 1,
		"HeadObject": 1, "HeadBucket": 1, "CopyObject": 1, "DeleteObject": 1, "DeleteObjects": 1, "Other": 1,
	}
	if d := cmp.Diff(want, w.sim.Stats()); d != "" {
		t.Errorf("Stats (-want +got):\n%s", d)
	}
}

func TestSignatures(t *testing.T) {
	w := newWorld(t, s3sim.Config{Dir: t.TempDir()})
	keyed, err := s3sim.New(s3sim.Config{Dir: filepath.Dir(w.dir), Keys: map[string]string{"AKLOCAL": "secret"}})
	if err != nil {
		t.Fatal(err)
	}
	defer keyed.Close()
	srv := httptest.NewTLSServer(keyed)
	defer srv.Close()

	good := &world{T: t, Client: client(srv.URL, srv.Client())}
	for _, key := range weird {
		good.mustPut(key, "signed "+key)
		good.wantBody(key, "signed "+key)
	}
	if got := good.keys(&s3.ListObjectsV2Input{Prefix: new("a b"), Delimiter: new("/")}); len(got) == 0 {
		t.Error("signed listing is empty")
	}
	bad := &world{T: t, Client: client(srv.URL, srv.Client(), func(o *s3.Options) {
		o.Credentials = credentials.NewStaticCredentialsProvider("AKLOCAL", "wrong", "")
	})}
	_, _, err = bad.get("a")
	bad.wantCode(err, 403, "SignatureDoesNotMatch")
	stranger := &world{T: t, Client: client(srv.URL, srv.Client(), func(o *s3.Options) {
		o.Credentials = credentials.NewStaticCredentialsProvider("WHO", "secret", "")
	})}
	err = stranger.put("new", "x")
	stranger.wantCode(err, 403, "InvalidAccessKeyId")
	_, _, err = good.get("new")
	good.wantCode(err, 404, "NoSuchKey")
}

func TestEncryptionIsAccepted(t *testing.T) {
	w := newWorld(t, s3sim.Config{Keys: map[string]string{"AKLOCAL": "secret"}})
	for _, sse := range []types.ServerSideEncryption{types.ServerSideEncryptionAes256, types.ServerSideEncryptionAwsKms} {
		w.mustPut("a", string(sse), func(in *s3.PutObjectInput) {
			in.ServerSideEncryption = sse
			if sse == types.ServerSideEncryptionAwsKms {
				in.SSEKMSKeyId = new("alias/key")
			}
		})
		w.wantBody("a", string(sse))
	}
}

// inProcess carries requests to a handler without a network, so that a
// bubble's clock moves while they wait.
type inProcess struct{ h http.Handler }

func (p inProcess) RoundTrip(r *http.Request) (*http.Response, error) {
	rec := httptest.NewRecorder()
	done := make(chan error, 1)
	go func() {
		defer func() {
			if v := recover(); v != nil {
				done <- io.ErrUnexpectedEOF
			}
		}()
		p.h.ServeHTTP(rec, r)
		done <- nil
	}()
	select {
	case err := <-done:
		if err != nil {
			return nil, err
		}
		return rec.Result(), nil
	case <-r.Context().Done():
		return nil, context.Cause(r.Context())
	}
}

func TestBubble(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		drop := false
		sim, err := s3sim.New(s3sim.Config{
			Dir: dir, Latency: 5 * time.Minute, Keys: map[string]string{"AKLOCAL": "secret"},
			Fault: func(op, _, _ string) s3sim.Fault { return s3sim.Fault{Drop: drop && op == "PutObject", Apply: true} },
		})
		if err != nil {
			t.Fatal(err)
		}
		defer sim.Close()
		start := time.Now()
		w := &world{T: t, Client: client("http://s3.test", &http.Client{Transport: inProcess{sim}})}
		if _, err := w.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: new(bucket)}); err != nil {
			t.Fatal(err)
		}
		w.mustPut("a", "one")
		w.mustPut("a", "two", ifMatch(etag("one")))
		if got := time.Since(start); got != 15*time.Minute {
			t.Errorf("three requests took %v, want 15m", got)
		}
		out, body, err := w.get("a")
		if err != nil || body != "two" || !out.LastModified.Equal(start.Add(15*time.Minute)) {
			t.Errorf("GetObject = %q, %+v, %v", body, out, err)
		}
		drop = true
		if err := w.put("b", "dropped"); err == nil {
			t.Error("dropped PutObject = nil, want an error")
		}
		w.wantBody("b", "dropped")

		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err = w.PutObject(ctx, &s3.PutObjectInput{Bucket: new(bucket), Key: new("late"), Body: bytes.NewReader(nil)})
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("PutObject = %v, want deadline exceeded", err)
		}
		synctest.Wait()
		_, _, err = w.get("late")
		w.wantCode(err, 404, "NoSuchKey")
	})
}

func TestNew(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, cfg := range []s3sim.Config{{}, {Dir: file}, {Dir: t.TempDir(), Latency: -1}} {
		if s, err := s3sim.New(cfg); err == nil {
			t.Errorf("New(%+v) = %v, want an error", cfg, s)
		}
	}
}
