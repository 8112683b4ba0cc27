package sinktest

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"hash/crc32"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

var putChecks = []check{
	{"PutObject", putObject},
	{"PutObject/replaces", putReplaces},
	{"PutObject/empty", putEmpty},
	{"PutObject/8 MiB", putLarge},
	{"PutObject/ETag is the MD5", putETag},
	{"PutObject/headers and metadata kept", putHeaders},
	{"checksum/CRC32 kept", crcKept},
	{"checksum/SHA256 kept", shaKept},
	{"checksum/CRC32 wrong", crcWrong},
	{"checksum/SHA256 wrong", shaWrong},
	{"checksum/Content-MD5 right", md5Right},
	{"checksum/Content-MD5 wrong", md5Wrong},
}

func putObject(f *folder) {
	before := time.Now()
	f.put("a", "hello")
	out, body := f.get("a")
	f.equal("the body", body, "hello")
	// Clocks of two machines differ, but not by hours.
	if at := aws.ToTime(out.LastModified); before.Sub(at).Abs() > time.Hour {
		f.Errorf("LastModified is %v, want about now", at)
	}
	head := f.head("a")
	if n := aws.ToInt64(head.ContentLength); n != 5 {
		f.Errorf("ContentLength is %d, want 5", n)
	}
	if !aws.ToTime(head.LastModified).Equal(aws.ToTime(out.LastModified)) {
		f.Errorf("LastModified is %v by HEAD, %v by GET", head.LastModified, out.LastModified)
	}
}

func putReplaces(f *folder) {
	f.put("a", "a longer text", func(in *s3.PutObjectInput) { in.Metadata = map[string]string{"k": "v"} })
	f.put("a", "short")
	out, body := f.get("a")
	f.equal("the body", body, "short")
	if len(out.Metadata) > 0 {
		f.Errorf("metadata is %v, want none: it went with the object", out.Metadata)
	}
}

func putEmpty(f *folder) {
	out := f.put("empty", "")
	f.equal("ETag", text(out.ETag), etagOf(""))
	f.holds("empty", "")
	if n := aws.ToInt64(f.head("empty").ContentLength); n != 0 {
		f.Errorf("ContentLength is %d, want 0", n)
	}
}

func putLarge(f *folder) {
	body := strings.Repeat("0123456789abcdef", 8<<20/16)
	f.put("large", body)
	if _, got := f.get("large"); got != body {
		f.Errorf("got %d bytes, want the %d that were stored", len(got), len(body))
	}
}

func putETag(f *folder) {
	want := etagOf("hello")
	f.equal("ETag of PutObject", text(f.put("a", "hello").ETag), want)
	out, _ := f.get("a")
	f.equal("ETag of GetObject", text(out.ETag), want)
	f.equal("ETag of HeadObject", text(f.head("a").ETag), want)
	f.equal("ETag of ListObjectsV2", text(f.page(nil).Contents[0].ETag), want)
}

func putHeaders(f *folder) {
	f.put("a", "{}", func(in *s3.PutObjectInput) {
		in.ContentType = new("application/json")
		in.ContentEncoding = new("gzip")
		in.CacheControl = new("no-store")
		in.ContentDisposition = new(`attachment; filename="a.json"`)
		in.Metadata = map[string]string{"upwell-sha256": "0a1b", "other": "with spaces, and commas"}
	})
	get, _ := f.get("a")
	head := f.head("a")
	for verb, got := range map[string][]string{
		"GET":  {text(get.ContentType), text(get.ContentEncoding), text(get.CacheControl), text(get.ContentDisposition), get.Metadata["upwell-sha256"], get.Metadata["other"]},
		"HEAD": {text(head.ContentType), text(head.ContentEncoding), text(head.CacheControl), text(head.ContentDisposition), head.Metadata["upwell-sha256"], head.Metadata["other"]},
	} {
		f.equal(verb+": Content-Type", got[0], "application/json")
		f.equal(verb+": Content-Encoding", got[1], "gzip")
		f.equal(verb+": Cache-Control", got[2], "no-store")
		f.equal(verb+": Content-Disposition", got[3], `attachment; filename="a.json"`)
		f.equal(verb+": metadata upwell-sha256", got[4], "0a1b")
		f.equal(verb+": metadata other", got[5], "with spaces, and commas")
	}
}

func crcOf(body string) string {
	return base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, crc32.ChecksumIEEE([]byte(body))))
}

func shaOf(body string) string {
	sum := sha256.Sum256([]byte(body))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// crcKept has the SDK send the checksum that it sends when it is told nothing.
func crcKept(f *folder) {
	want := crcOf("hello")
	put := f.put("a", "hello", func(in *s3.PutObjectInput) { in.ChecksumAlgorithm = types.ChecksumAlgorithmCrc32 })
	f.equal("ChecksumCRC32 of PutObject", text(put.ChecksumCRC32), want)
	out, _ := f.get("a", func(in *s3.GetObjectInput) { in.ChecksumMode = types.ChecksumModeEnabled })
	f.equal("ChecksumCRC32 of GetObject", text(out.ChecksumCRC32), want)
	head, err := f.client.HeadObject(f.Context(), &s3.HeadObjectInput{
		Bucket: &f.bucket, Key: f.key("a"), ChecksumMode: types.ChecksumModeEnabled,
	})
	f.must(err)
	f.equal("ChecksumCRC32 of HeadObject", text(head.ChecksumCRC32), want)
}

func shaKept(f *folder) {
	want := shaOf("hello")
	put := f.put("a", "hello", func(in *s3.PutObjectInput) { in.ChecksumSHA256 = &want })
	f.equal("ChecksumSHA256 of PutObject", text(put.ChecksumSHA256), want)
	out, _ := f.get("a", func(in *s3.GetObjectInput) { in.ChecksumMode = types.ChecksumModeEnabled })
	f.equal("ChecksumSHA256 of GetObject", text(out.ChecksumSHA256), want)
}

func crcWrong(f *folder) {
	_, err := f.tryPut("a", "hello", func(in *s3.PutObjectInput) { in.ChecksumCRC32 = new(crcOf("other")) })
	f.answers(err, 400, "BadDigest", "a CRC32 of something else")
	f.lacks("a")
}

func shaWrong(f *folder) {
	_, err := f.tryPut("a", "hello", func(in *s3.PutObjectInput) { in.ChecksumSHA256 = new(shaOf("other")) })
	f.answers(err, 400, "BadDigest", "a SHA256 of something else")
	f.lacks("a")
}

// contentMD5 returns the option to send the MD5 of a body, in place of the
// checksum that the SDK would send.
func contentMD5(body string) putting {
	sum := md5Of(body)
	return func(in *s3.PutObjectInput) { in.ContentMD5 = &sum }
}

func md5Right(f *folder) {
	f.put("a", "hello", contentMD5("hello"))
	f.holds("a", "hello")
}

func md5Wrong(f *folder) {
	_, err := f.tryPut("a", "hello", contentMD5("other"))
	f.answers(err, 400, "BadDigest", "a Content-MD5 of something else")
	f.lacks("a")
}
