package doctor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"upwell/sink/s3sink"
)

// probeText is what the probe object holds, always.
const probeText = `{"upwell":"doctor"}` + "\n"

// A store is the bucket, as the checks of it see it.
type store struct {
	client         *s3.Client
	bucket, prefix string
}

func (s store) key(name string) *string {
	return aws.String(strings.TrimPrefix(s.prefix+"/"+name, "/"))
}

// probe is the name of the one object that is stored. It is beside those that workers
// keep there.
const probe = "state/doctor.json"

// arn returns the name that policies have for what is beneath part.
func (s store) arn(region, part string) string {
	return "arn:" + partition(region) + ":s3:::" + s.bucket + part
}

// bucket examines the bucket.
func (x *exam) bucket(ctx context.Context, signed bool) {
	why := ""
	switch {
	case x.cfg.Bucket == "":
		why = "no --bucket"
	case !signed:
		why = "no AWS credentials"
	case x.cfg.AWS.Region == "":
		why = "no Region"
	}
	if why != "" {
		x.skip(why, checkBucket)
		return
	}
	client := s3sink.NewClient(x.cfg.AWS, func(o *s3.Options) { o.Retryer = brief() })
	s := store{client, x.cfg.Bucket, x.cfg.Prefix}
	if x.head(ctx, s) {
		x.store(ctx, s)
	}
}

// head looks whether the bucket is there, and where. A bucket that may not be listed
// is still tried.
func (x *exam) head(ctx context.Context, s store) bool {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	out, err := s.client.HeadBucket(ctx, &s3.HeadBucketInput{Bucket: &s.bucket})
	home := ""
	if err == nil {
		home = aws.ToString(out.BucketRegion)
	} else if e, ok := errors.AsType[*awshttp.ResponseError](err); ok && e.HTTPResponse() != nil {
		home = e.HTTPResponse().Header.Get("X-Amz-Bucket-Region")
	}
	x.mu.Lock()
	x.bucketHome = home
	x.mu.Unlock()
	switch {
	case home != "" && home != x.cfg.AWS.Region:
		x.note(checkBucket, Failure, fmt.Sprintf("%s is in %s, not in %s", s.bucket, home, x.cfg.AWS.Region), "AWS_REGION="+home)
		return false
	case err == nil, status(err) == http.StatusForbidden:
		return true
	case status(err) == http.StatusNotFound:
		x.note(checkBucket, Failure, "there is no bucket "+s.bucket, "correct --bucket, or make one: aws s3 mb s3://"+s.bucket)
	default:
		found, fix := trouble(err)
		x.note(checkBucket, Failure, s.bucket+": "+found, fix)
	}
	return false
}

// store stores, reads and lists the probe object.
func (x *exam) store(ctx context.Context, s store) {
	var v verdict
	refuses, stored := x.write(ctx, s, &v)
	if stored {
		x.read(ctx, s, &v)
	}
	x.list(ctx, s, &v)
	if stored && refuses {
		x.writeRuns(ctx, s, &v)
	}
	well := "s3://" + strings.TrimSuffix(s.bucket+"/"+s.prefix, "/") + ": one writer wins, and what is written is read and listed"
	v.note(x, checkBucket, well+x.versions(ctx, s))
}

// put stores the probe, where nothing is or where the object has that tag.
func (s store) put(ctx context.Context, name string, match *string) error {
	in := &s3.PutObjectInput{
		Bucket: &s.bucket, Key: s.key(name), Body: strings.NewReader(probeText), ContentType: aws.String("application/json"), IfMatch: match,
	}
	if match == nil {
		in.IfNoneMatch = aws.String("*")
	}
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	_, err := s.client.PutObject(ctx, in)
	return err
}

// write stores the probe twice where nothing is: the second try must be refused, and
// the first as well if there is one from before. It reports whether the store keeps
// the condition, and whether the probe is there.
func (x *exam) write(ctx context.Context, s store, v *verdict) (refuses, stored bool) {
	lost := func(err error) bool {
		return status(err) == http.StatusPreconditionFailed || status(err) == http.StatusConflict
	}
	for range 2 {
		err := s.put(ctx, probe, nil)
		switch refuses = lost(err); {
		case err == nil, refuses:
			x.weigh("s3:PutObject", s.arn(x.cfg.AWS.Region, "/"+*s.key("state/*")), nil)
		case denied(err):
			x.weigh("s3:PutObject", s.arn(x.cfg.AWS.Region, "/"+*s.key("state/*")), err)
			v.add(Failure, "see permissions", "s3://%s/%s may not be written", s.bucket, *s.key(probe))
			return false, false
		case status(err) == http.StatusNotImplemented:
			v.add(Failure, "use S3, or a store that knows conditional writes", "the store knows no conditional writes: a job could get two results")
			return false, false
		default:
			found, fix := trouble(err)
			v.add(Failure, fix, "s3://%s/%s cannot be written: %s", s.bucket, *s.key(probe), found)
			return false, false
		}
	}
	if !refuses {
		v.add(Failure, "use S3, or a store that keeps If-None-Match", "the store ignores If-None-Match: a job could get two results")
	}
	return refuses, true
}

func (x *exam) read(ctx context.Context, s store, v *verdict) {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	out, err := s.client.GetObject(ctx, &s3.GetObjectInput{Bucket: &s.bucket, Key: s.key(probe)})
	var text []byte
	if err == nil {
		defer out.Body.Close()
		text, err = io.ReadAll(io.LimitReader(out.Body, 1<<10))
	}
	allowed := x.weigh("s3:GetObject", s.arn(x.cfg.AWS.Region, "/"+*s.key("state/*")), err)
	switch {
	case !allowed:
		v.add(Failure, "see permissions", "what was written may not be read")
	case err != nil:
		found, fix := trouble(err)
		v.add(Failure, fix, "what was written cannot be read: %s", found)
	case !bytes.Equal(text, []byte(probeText)):
		v.add(Failure, "delete "+*s.key(probe)+", and see who else writes there", "%s holds something else than was written", *s.key(probe))
	}
}

func (x *exam) list(ctx context.Context, s store, v *verdict) {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	_, err := s.client.ListObjectsV2(ctx, &s3.ListObjectsV2Input{Bucket: &s.bucket, Prefix: s.key("state/"), MaxKeys: aws.Int32(1)})
	allowed := x.weigh("s3:ListBucket", s.arn(x.cfg.AWS.Region, ""), err)
	switch {
	case !allowed:
		v.add(Failure, "see permissions", "the bucket may not be listed")
	case err != nil:
		found, fix := trouble(err)
		v.add(Failure, fix, "the bucket cannot be listed: %s", found)
	}
}

// writeRuns asks whether results may be written and read, which a policy may see in
// another light than state: it replaces and reads an object that is not there. It comes
// after write has shown that conditions are kept.
func (x *exam) writeRuns(ctx context.Context, s store, v *verdict) {
	const name = "runs/.upwell-doctor"
	arn := s.arn(x.cfg.AWS.Region, "/"+*s.key("runs/*"))
	err := s.put(ctx, name, aws.String(`"00000000000000000000000000000000"`))
	if status(err) == http.StatusNotFound || status(err) == http.StatusPreconditionFailed {
		err = nil
	}
	if !x.weigh("s3:PutObject", arn, err) {
		v.add(Failure, "see permissions", "results may not be written")
	}
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	_, err = s.client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &s.bucket, Key: s.key(name)})
	if status(err) == http.StatusNotFound {
		err = nil
	}
	if !x.weigh("s3:GetObject", arn, err) {
		v.add(Failure, "see permissions", "results may not be read")
	}
}

// versions says whether the bucket keeps old versions, if that may be known.
func (x *exam) versions(ctx context.Context, s store) string {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	out, err := s.client.GetBucketVersioning(ctx, &s3.GetBucketVersioningInput{Bucket: &s.bucket})
	if err != nil || out.Status != types.BucketVersioningStatusEnabled {
		return ""
	}
	return "; it is versioned, and workers replace objects beneath " + *s.key("state/") + " all the time: let old versions expire"
}
