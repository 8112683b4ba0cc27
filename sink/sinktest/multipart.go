package sinktest

import (
	"bytes"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

var multipartChecks = []check{
	{"multipart", multipart},
	{"multipart/If-None-Match", multipartOnce},
	{"multipart/wrong CRC32", multipartWrong},
	{"multipart/aborted", multipartAborted},
}

// pieces are two parts: all but the last must have 5 MiB.
var pieces = []string{strings.Repeat("0123456789abcdef", 5<<20/16), "tail"}

// An upload is a multipart upload that is under way.
type upload struct {
	*folder
	key, id *string
	parts   []types.CompletedPart
}

func (f *folder) begin(name string) *upload {
	out, err := f.client.CreateMultipartUpload(f.Context(), &s3.CreateMultipartUploadInput{
		Bucket: &f.bucket, Key: f.key(name), ContentType: new("text/plain"), ChecksumAlgorithm: types.ChecksumAlgorithmCrc32,
	})
	f.must(err)
	return &upload{folder: f, key: f.key(name), id: out.UploadId}
}

func (u *upload) try(number int32, body string, crc *string) (*s3.UploadPartOutput, error) {
	return u.client.UploadPart(u.Context(), &s3.UploadPartInput{
		Bucket: &u.bucket, Key: u.key, UploadId: u.id, PartNumber: &number,
		Body: bytes.NewReader([]byte(body)), ChecksumCRC32: crc,
	})
}

func (u *upload) send() {
	for i, body := range pieces {
		n := int32(i) + 1
		out, err := u.try(n, body, new(crcOf(body)))
		u.must(err)
		u.parts = append(u.parts, types.CompletedPart{PartNumber: &n, ETag: out.ETag, ChecksumCRC32: new(crcOf(body))})
	}
}

func (u *upload) complete(change func(*s3.CompleteMultipartUploadInput)) error {
	in := &s3.CompleteMultipartUploadInput{
		Bucket: &u.bucket, Key: u.key, UploadId: u.id, MultipartUpload: &types.CompletedMultipartUpload{Parts: u.parts},
	}
	if change != nil {
		change(in)
	}
	_, err := u.client.CompleteMultipartUpload(u.Context(), in)
	return err
}

func multipart(f *folder) {
	u := f.begin("a")
	u.send()
	f.lacks("a") // until it is complete
	names, _ := f.all(nil)
	f.sames("the keys meanwhile", names)
	f.must(u.complete(nil))
	out, body := f.get("a")
	if body != strings.Join(pieces, "") {
		f.Errorf("got %d bytes, want the parts", len(body))
	}
	f.equal("Content-Type", text(out.ContentType), "text/plain")
}

func multipartOnce(f *folder) {
	once := func(in *s3.CompleteMultipartUploadInput) { in.IfNoneMatch = new("*") }
	u := f.begin("a")
	u.send()
	f.put("a", "first")
	f.answers(u.complete(once), 412, "PreconditionFailed", "completing where there is an object")
	f.holds("a", "first")
	u = f.begin("b")
	u.send()
	f.must(u.complete(once))
}

func multipartWrong(f *folder) {
	_, err := f.begin("a").try(1, "hello", new(crcOf("other")))
	f.answers(err, 400, "BadDigest", "a part with the CRC32 of something else")
}

func multipartAborted(f *folder) {
	u := f.begin("a")
	u.send()
	_, err := f.client.AbortMultipartUpload(f.Context(), &s3.AbortMultipartUploadInput{Bucket: &f.bucket, Key: u.key, UploadId: u.id})
	f.must(err)
	_, err = u.try(3, "more", nil)
	f.answers(err, 404, "NoSuchUpload", "a part of an aborted upload")
	f.answers(u.complete(nil), 404, "NoSuchUpload", "completing an aborted upload")
	f.lacks("a")
}
