package sinktest

import (
	"errors"
	"strconv"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

var getChecks = []check{
	{"GetObject/missing", getMissing},
	{"GetObject/If-Match", getIfMatch},
	{"GetObject/If-None-Match", getIfNoneMatch},
	{"HeadObject/missing", headMissing},
	{"HeadObject/If-Match", headIfMatch},
	{"range", ranges},
	{"range/suffix", suffixRanges},
	{"range/beyond the end", rangeBeyond},
	{"range/of an empty object", rangeOfEmpty},
	{"range/If-Match", rangeIfMatch},
	{"range/with checksums", rangeWithChecksums},
}

func ifMatch(etag string) getting     { return func(in *s3.GetObjectInput) { in.IfMatch = &etag } }
func ifNoneMatch(etag string) getting { return func(in *s3.GetObjectInput) { in.IfNoneMatch = &etag } }
func part(spec string) getting        { return func(in *s3.GetObjectInput) { in.Range = &spec } }

func getMissing(f *folder) {
	_, _, err := f.tryGet("none")
	f.answers(err, 404, "NoSuchKey", "getting what is not there")
	if _, ok := errors.AsType[*types.NoSuchKey](err); !ok {
		f.Errorf("getting what is not there: got %T, want *types.NoSuchKey in it", err)
	}
}

func getIfMatch(f *folder) {
	f.put("a", "hello")
	if _, body := f.get("a", ifMatch(etagOf("hello"))); body != "hello" {
		f.Errorf("got %q, want hello", body)
	}
	_, _, err := f.tryGet("a", ifMatch(etagOf("other")))
	f.answers(err, 412, "PreconditionFailed", "getting another version")
}

func getIfNoneMatch(f *folder) {
	f.put("a", "hello")
	_, _, err := f.tryGet("a", ifNoneMatch(etagOf("hello")))
	f.answers(err, 304, "", "getting what is known")
	if _, body := f.get("a", ifNoneMatch(etagOf("other"))); body != "hello" {
		f.Errorf("got %q, want hello", body)
	}
}

func headMissing(f *folder) {
	_, err := f.tryHead("none")
	f.answers(err, 404, "", "asking for what is not there")
	if _, ok := errors.AsType[*types.NotFound](err); !ok {
		f.Errorf("asking for what is not there: got %T, want *types.NotFound in it", err)
	}
}

func headIfMatch(f *folder) {
	f.put("a", "hello")
	_, err := f.client.HeadObject(f.Context(), &s3.HeadObjectInput{Bucket: &f.bucket, Key: f.key("a"), IfMatch: new(etagOf("other"))})
	f.answers(err, 412, "", "asking for another version")
}

// ranged complains unless a range of 0123456789 is what it ought to be.
func (f *folder) ranged(spec, body, contentRange string) {
	out, got, err := f.tryGet("digits", part(spec))
	if err != nil {
		f.Errorf("range %s: %v", spec, err)
		return
	}
	f.equal(spec, got, body)
	f.equal("Content-Range of "+spec, text(out.ContentRange), contentRange)
	if n := aws.ToInt64(out.ContentLength); n != int64(len(body)) {
		f.Errorf("Content-Length of %s is %d, want %d", spec, n, len(body))
	}
}

func ranges(f *folder) {
	f.put("digits", "0123456789")
	f.ranged("bytes=0-0", "0", "bytes 0-0/10")
	f.ranged("bytes=2-5", "2345", "bytes 2-5/10")
	f.ranged("bytes=7-", "789", "bytes 7-9/10")
	f.ranged("bytes=7-99", "789", "bytes 7-9/10")
	f.ranged("bytes=0-", "0123456789", "bytes 0-9/10")
}

func suffixRanges(f *folder) {
	f.put("digits", "0123456789")
	f.ranged("bytes=-3", "789", "bytes 7-9/10")
	f.ranged("bytes=-99", "0123456789", "bytes 0-9/10")
}

func rangeBeyond(f *folder) {
	f.put("a", "0123456789")
	for _, spec := range []string{"bytes=10-", "bytes=10-20"} {
		_, _, err := f.tryGet("a", part(spec))
		f.answers(err, 416, "InvalidRange", spec+" of ten bytes")
	}
}

func rangeOfEmpty(f *folder) {
	f.put("a", "")
	_, _, err := f.tryGet("a", part("bytes=0-"))
	f.answers(err, 416, "InvalidRange", "the first byte of none")
}

// rangeIfMatch goes on where a connection broke, as long as it is the same.
func rangeIfMatch(f *folder) {
	f.put("a", "0123456789")
	if _, body := f.get("a", part("bytes=5-"), ifMatch(etagOf("0123456789"))); body != "56789" {
		f.Errorf("got %q, want 56789", body)
	}
	_, _, err := f.tryGet("a", part("bytes=5-"), ifMatch(etagOf("other")))
	f.answers(err, 412, "PreconditionFailed", "the rest of another version")
}

// rangeWithChecksums has a client that checks what it gets, and must not be
// given the checksum of the whole.
func rangeWithChecksums(f *folder) {
	f.put("a", "0123456789")
	for from := range 10 {
		want := "0123456789"[from:]
		_, body, err := f.tryGet("a", part("bytes="+strconv.Itoa(from)+"-"), func(in *s3.GetObjectInput) { in.ChecksumMode = types.ChecksumModeEnabled })
		if err != nil || body != want {
			f.Errorf("from byte %d: got %q, %v, want %q", from, body, err, want)
		}
	}
}
