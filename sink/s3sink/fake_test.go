package s3sink_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"upwell/sink/s3sink"
)

const bucket = "bkt"

// A fault is what befalls a request instead of a proper answer.
type fault struct {
	applied bool // it took effect all the same
	status  int  // the answer, or else
	code    string
	home    string // the bucket's Region, as the answer says
	drop    bool   // the connection ends, or
	hang    bool   // nothing comes, ever
}

// A fake is a bucket in this process, spoken to over a client's RoundTrip. It
// fits in a bubble of package synctest, and reports requests that S3 would not
// take.
type fake struct {
	t *testing.T

	// fault, if set, says what befalls request n, counting from 0.
	fault func(n int, r *http.Request) fault

	mu       sync.Mutex
	objects  map[string]http.Header // of each key; the body is its "Body"
	requests []*http.Request
}

func newFake(t *testing.T) *fake {
	t.Helper()
	return &fake{t: t, objects: map[string]http.Header{}}
}

func (f *fake) config() aws.Config {
	return aws.Config{
		Region:       "us-west-2",
		BaseEndpoint: new("http://s3.test"),
		Credentials:  credentials.NewStaticCredentialsProvider("AKID", "secret", ""),
		HTTPClient:   &http.Client{Transport: f},
	}
}

func (f *fake) sink(opts ...func(*s3.Options)) *s3sink.Sink {
	return s3sink.New(s3sink.NewClient(f.config(), opts...), bucket, "/team/")
}

// log returns the methods of all requests so far.
func (f *fake) log() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var methods []string
	for _, r := range f.requests {
		methods = append(methods, r.Method)
	}
	return strings.Join(methods, " ")
}

func (f *fake) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	f.mu.Lock()
	n := len(f.requests)
	f.requests = append(f.requests, r)
	f.mu.Unlock()

	var ft fault
	if f.fault != nil {
		ft = f.fault(n, r)
	}
	res := answer(r, ft.status, ft.code, ft.home)
	if ft.applied || ft.status == 0 && !ft.drop && !ft.hang {
		if did := f.serve(r); ft == (fault{}) {
			res = did
		}
	}
	switch {
	case ft.hang:
		<-r.Context().Done()
		return nil, r.Context().Err()
	case ft.drop:
		return nil, errors.New("connection reset by peer")
	}
	return res, nil
}

func answer(r *http.Request, status int, code, home string) *http.Response {
	text := ""
	if code != "" && r.Method != http.MethodHead {
		text = fmt.Sprintf("<Error><Code>%s</Code><Message>words about it</Message></Error>", code)
	}
	h := http.Header{"X-Amz-Request-Id": {"REQ1"}, "Content-Type": {"application/xml"}}
	if home != "" {
		h.Set("X-Amz-Bucket-Region", home)
	}
	return &http.Response{
		Status: fmt.Sprint(status, " ", http.StatusText(status)), StatusCode: status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: h, Body: io.NopCloser(strings.NewReader(text)), ContentLength: int64(len(text)), Request: r,
	}
}

func (f *fake) serve(r *http.Request) *http.Response {
	f.mu.Lock()
	defer f.mu.Unlock()
	key, ok := strings.CutPrefix(r.URL.Path, "/"+bucket+"/")
	switch {
	case r.Method == http.MethodHead && r.URL.Path == "/"+bucket:
		return answer(r, 200, "", "us-west-2")
	case r.URL.Query().Get("list-type") == "2":
		return f.list(r)
	case !ok:
		f.t.Errorf("%s %s", r.Method, r.URL)
		return answer(r, 400, "InvalidRequest", "")
	case r.Method == http.MethodPut:
		return f.put(r, key)
	}
	o := f.objects[key]
	if o == nil {
		return answer(r, 404, "NoSuchKey", "")
	}
	res := answer(r, 200, "", "")
	maps.Copy(res.Header, o.Clone())
	if r.Method == http.MethodGet {
		res.Body, res.ContentLength = io.NopCloser(strings.NewReader(o["Body"][0])), int64(len(o["Body"][0]))
	}
	delete(res.Header, "Body")
	return res
}

func (f *fake) put(r *http.Request, key string) *http.Response {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		f.t.Errorf("PUT %s: %v", key, err)
	}
	sum := sha256.Sum256(body)
	for name, want := range map[string]string{
		"Content-Type":             "application/json",
		"X-Amz-Content-Sha256":     hex.EncodeToString(sum[:]),
		"X-Amz-Checksum-Sha256":    base64.StdEncoding.EncodeToString(sum[:]),
		"X-Amz-Meta-Upwell-Sha256": hex.EncodeToString(sum[:]),
	} {
		if got := r.Header.Get(name); got != want {
			f.t.Errorf("PUT %s with %s %q, want %q", key, name, got, want)
		}
	}
	if r.ContentLength != int64(len(body)) {
		f.t.Errorf("PUT %s of %d bytes says it has %d", key, len(body), r.ContentLength)
	}
	once := r.Header.Get("If-None-Match") == "*"
	if immutable := !strings.Contains(key, "/errors/") && !strings.Contains(key, "/letters/"); immutable != once {
		f.t.Errorf("PUT %s with If-None-Match %q", key, r.Header.Get("If-None-Match"))
	}
	if once && f.objects[key] != nil {
		return answer(r, 412, "PreconditionFailed", "")
	}
	f.objects[key] = http.Header{
		"Body":                     {string(body)},
		"X-Amz-Meta-Upwell-Sha256": r.Header["X-Amz-Meta-Upwell-Sha256"],
		"X-Amz-Checksum-Sha256":    r.Header["X-Amz-Checksum-Sha256"],
	}
	return answer(r, 200, "", "")
}

// list answers with two keys at a time.
func (f *fake) list(r *http.Request) *http.Response {
	type content struct {
		Key, LastModified string
		Size              int
	}
	var page struct {
		XMLName               xml.Name `xml:"ListBucketResult"`
		IsTruncated           bool
		NextContinuationToken string `xml:",omitempty"`
		Contents              []content
	}
	q := r.URL.Query()
	for _, key := range slices.Sorted(maps.Keys(f.objects)) {
		if !strings.HasPrefix(key, q.Get("prefix")) || key <= q.Get("continuation-token") {
			continue
		}
		if len(page.Contents) == 2 {
			page.IsTruncated, page.NextContinuationToken = true, page.Contents[1].Key
			break
		}
		page.Contents = append(page.Contents, content{key, stored.Format(time.RFC3339), len(f.objects[key]["Body"][0])})
	}
	text, err := xml.Marshal(page)
	if err != nil {
		f.t.Error(err)
	}
	res := answer(r, 200, "", "")
	res.Body, res.ContentLength = io.NopCloser(bytes.NewReader(text)), int64(len(text))
	return res
}

// stored is when every object was.
var stored = time.Date(2026, 11, 23, 15, 4, 5, 0, time.UTC)
