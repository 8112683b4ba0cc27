package sinktest

import (
	"bytes"
	"crypto/md5"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"io"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"upwell/integration/conformance"
)

// A folder is a prefix of keys and what a check does beneath it. Keys are given
// without the prefix.
type folder struct {
	*conformance.T
	server         Server
	client         *s3.Client
	bucket, prefix string
}

func (f *folder) must(err error) {
	if err != nil {
		f.Fatalf("%v", err)
	}
}

func (f *folder) key(name string) *string { return new(f.prefix + name) }

// Options of a request.
type (
	putting func(*s3.PutObjectInput)
	getting func(*s3.GetObjectInput)
)

func absent(in *s3.PutObjectInput) { in.IfNoneMatch = new("*") }

func matching(etag string) putting { return func(in *s3.PutObjectInput) { in.IfMatch = &etag } }

func (f *folder) tryPut(name, body string, with ...putting) (*s3.PutObjectOutput, error) {
	in := &s3.PutObjectInput{Bucket: &f.bucket, Key: f.key(name), Body: bytes.NewReader([]byte(body))}
	for _, w := range with {
		w(in)
	}
	return f.client.PutObject(f.Context(), in)
}

func (f *folder) put(name, body string, with ...putting) *s3.PutObjectOutput {
	out, err := f.tryPut(name, body, with...)
	f.must(err)
	return out
}

func (f *folder) tryGet(name string, with ...getting) (*s3.GetObjectOutput, string, error) {
	in := &s3.GetObjectInput{Bucket: &f.bucket, Key: f.key(name)}
	for _, w := range with {
		w(in)
	}
	out, err := f.client.GetObject(f.Context(), in)
	if err != nil {
		return nil, "", err
	}
	defer out.Body.Close()
	body, err := io.ReadAll(out.Body)
	return out, string(body), err
}

func (f *folder) get(name string, with ...getting) (*s3.GetObjectOutput, string) {
	out, body, err := f.tryGet(name, with...)
	f.must(err)
	return out, body
}

func (f *folder) tryHead(name string) (*s3.HeadObjectOutput, error) {
	return f.client.HeadObject(f.Context(), &s3.HeadObjectInput{Bucket: &f.bucket, Key: f.key(name)})
}

func (f *folder) head(name string) *s3.HeadObjectOutput {
	out, err := f.tryHead(name)
	f.must(err)
	return out
}

func (f *folder) delete(name string) {
	_, err := f.client.DeleteObject(f.Context(), &s3.DeleteObjectInput{Bucket: &f.bucket, Key: f.key(name)})
	f.must(err)
}

// holds complains unless the object has that body.
func (f *folder) holds(name, want string) {
	_, got, err := f.tryGet(name)
	if err != nil || got != want {
		f.Errorf("%.80q holds %.80q, %v, want %.80q", name, got, err, want)
	}
}

// lacks complains if there is such an object.
func (f *folder) lacks(name string) {
	if _, err := f.tryHead(name); statusOf(err) != 404 {
		f.Errorf("HeadObject(%.80q) = %v, want 404", name, err)
	}
}

// answers complains unless err is an answer with that status, and that code
// unless it is empty: the answer to a HEAD has no room for one.
func (f *folder) answers(err error, status int, code, doing string) {
	if statusOf(err) != status || code != "" && codeOf(err) != code {
		f.Errorf("%s: got %v, want %d %s", doing, err, status, code)
	}
}

func (f *folder) equal(what, got, want string) {
	if got != want {
		f.Errorf("%s is %.200q, want %.200q", what, got, want)
	}
}

func statusOf(err error) int {
	if e, ok := errors.AsType[*smithyhttp.ResponseError](err); ok {
		return e.HTTPStatusCode()
	}
	return 0
}

func codeOf(err error) string {
	if e, ok := errors.AsType[smithy.APIError](err); ok {
		return e.ErrorCode()
	}
	return ""
}

func etagOf(body string) string {
	sum := md5.Sum([]byte(body))
	return `"` + hex.EncodeToString(sum[:]) + `"`
}

// md5Of is the MD5 of a body as the header Content-MD5 spells it.
func md5Of(body string) string {
	sum := md5.Sum([]byte(body))
	return base64.StdEncoding.EncodeToString(sum[:])
}

func text(s *string) string { return aws.ToString(s) }
