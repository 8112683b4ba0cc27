package sinktest

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

var bucketChecks = []check{
	{"HeadBucket", headBucket},
	{"CreateBucket/again", createAgain},
	{"DeleteBucket/not empty", deleteBucket},
	{"GetBucketVersioning", versioning},
	{"missing bucket", missingBucket},
	{"signature/wrong secret", wrongSecret},
	{"signature/unknown key", unknownKey},
	{"signature/none", anonymous},
	{"signature/of another body", otherBody},
}

func headBucket(f *folder) {
	_, err := f.client.HeadBucket(f.Context(), &s3.HeadBucketInput{Bucket: &f.bucket})
	f.must(err)
}

// createAgain leaves open which of two codes says that there is one: it depends
// on who asks.
func createAgain(f *folder) {
	_, err := f.client.CreateBucket(f.Context(), &s3.CreateBucketInput{Bucket: &f.bucket})
	f.answers(err, 409, "", "making the bucket again")
	headBucket(f)
}

func deleteBucket(f *folder) {
	f.put("a", "x")
	_, err := f.client.DeleteBucket(f.Context(), &s3.DeleteBucketInput{Bucket: &f.bucket})
	f.answers(err, 409, "BucketNotEmpty", "deleting a bucket that holds something")
	f.holds("a", "x")
}

func versioning(f *folder) {
	out, err := f.client.GetBucketVersioning(f.Context(), &s3.GetBucketVersioningInput{Bucket: &f.bucket})
	f.must(err)
	f.equal("the bucket's versioning", string(out.Status), "")
}

func missingBucket(f *folder) {
	ctx, key := f.Context(), new("a")
	none := new("none-" + strings.ToLower(rand.Text()))
	_, err := f.client.HeadBucket(ctx, &s3.HeadBucketInput{Bucket: none})
	f.answers(err, 404, "", "HeadBucket")
	_, err = f.client.PutObject(ctx, &s3.PutObjectInput{Bucket: none, Key: key, Body: bytes.NewReader([]byte("x"))})
	f.answers(err, 404, "NoSuchBucket", "PutObject")
	_, err = f.client.PutObject(ctx, &s3.PutObjectInput{Bucket: none, Key: key, Body: bytes.NewReader([]byte("x")), IfNoneMatch: new("*")})
	f.answers(err, 404, "NoSuchBucket", "PutObject with If-None-Match")
	_, err = f.client.GetObject(ctx, &s3.GetObjectInput{Bucket: none, Key: key})
	f.answers(err, 404, "NoSuchBucket", "GetObject")
	_, err = f.client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: none, Key: key})
	f.answers(err, 404, "", "HeadObject")
	_, err = f.client.ListObjectsV2(ctx, &s3.ListObjectsV2Input{Bucket: none})
	f.answers(err, 404, "NoSuchBucket", "ListObjectsV2")
	_, err = f.client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: none, Key: key})
	f.answers(err, 404, "NoSuchBucket", "DeleteObject")
}

// as returns f for a client with other credentials.
func (f *folder) as(c aws.CredentialsProvider) *folder {
	g := *f
	g.client = f.server.Client(func(o *s3.Options) { o.Credentials = c })
	return &g
}

// barred complains unless whoever has these credentials may neither write nor
// read, and is told that code.
func (f *folder) barred(c aws.CredentialsProvider, code string) {
	f.put("a", "x")
	g := f.as(c)
	_, err := g.tryPut("a", "forged")
	f.answers(err, 403, code, "PutObject")
	_, _, err = g.tryGet("a")
	f.answers(err, 403, code, "GetObject")
	_, err = g.tryHead("a")
	f.answers(err, 403, "", "HeadObject")
	f.holds("a", "x")
}

func wrongSecret(f *folder) {
	have, err := f.client.Options().Credentials.Retrieve(f.Context())
	f.must(err)
	f.barred(credentials.NewStaticCredentialsProvider(have.AccessKeyID, "not the secret", ""), "SignatureDoesNotMatch")
}

func unknownKey(f *folder) {
	f.barred(credentials.NewStaticCredentialsProvider("AKIANOBODYKNOWSTHIS0", "secret", ""), "InvalidAccessKeyId")
}

func anonymous(f *folder) { f.barred(aws.AnonymousCredentials{}, "AccessDenied") }

// otherBody sends a body that is not the one that was signed, and has no checksum
// beside the signature.
func otherBody(f *folder) {
	o := f.client.Options()
	have, err := o.Credentials.Retrieve(f.Context())
	f.must(err)
	send := func(body string) int {
		signed := sha256.Sum256([]byte("signed"))
		sum := hex.EncodeToString(signed[:])
		url := strings.TrimSuffix(text(o.BaseEndpoint), "/") + "/" + f.bucket + "/" + *f.key("a")
		req, err := http.NewRequestWithContext(f.Context(), http.MethodPut, url, strings.NewReader(body))
		f.must(err)
		req.Header.Set("X-Amz-Content-Sha256", sum)
		f.must(o.HTTPSignerV4.SignHTTP(f.Context(), have, req, sum, "s3", o.Region, time.Now()))
		res, err := o.HTTPClient.Do(req)
		f.must(err)
		defer res.Body.Close()
		_, _ = io.Copy(io.Discard, res.Body)
		return res.StatusCode
	}
	if got := send("forged"); got != 400 {
		f.Errorf("another body than the one signed: got %d, want 400", got)
	}
	f.lacks("a")
	if got := send("signed"); got != 200 {
		f.Errorf("the body that was signed: got %d, want 200", got)
	}
	f.holds("a", "signed")
}
