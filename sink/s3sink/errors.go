package s3sink

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go"
)

// Check reports why the bucket cannot be used, and what to do about it. It
// makes one request, and cannot see whether writing is allowed.
func (s *Sink) Check(ctx context.Context) error {
	_, err := s.client.HeadBucket(ctx, &s3.HeadBucketInput{Bucket: &s.bucket})
	if status(err) == http.StatusNotFound {
		err = fmt.Errorf("%s: %w", noBucket, err) // the answer to a HEAD says no more than 404
	}
	if err = s.explain("s3:ListBucket", err); err != nil {
		return fmt.Errorf("s3 check s3://%s: %w", s.bucket, err)
	}
	return nil
}

const noBucket = "there is no such bucket: create it, or correct its name"

// status returns the status of S3's answer, or 0 when there was none.
func status(err error) int {
	if e, ok := errors.AsType[*awshttp.ResponseError](err); ok {
		return e.HTTPStatusCode()
	}
	return 0
}

// codeOf returns the code of S3's answer, or nothing.
func codeOf(err error) string {
	if e, ok := errors.AsType[smithy.APIError](err); ok {
		return e.ErrorCode()
	}
	return ""
}

// explain adds what to do about err, which befell a request that takes the
// permission named action.
func (s *Sink) explain(action string, err error) error {
	if err == nil {
		return nil
	}
	if advice := s.advice(action, err); advice != "" {
		return fmt.Errorf("%s: %w", advice, err)
	}
	return err
}

func (s *Sink) advice(action string, err error) string {
	code := codeOf(err)
	switch here, home := s.client.Options().Region, region(err); {
	case home != "" && home != here:
		return fmt.Sprintf("the bucket is in %s, not in %s: set the Region of the bucket", home, here)
	case code == "NoSuchBucket":
		return noBucket
	case code == "InvalidAccessKeyId", code == "SignatureDoesNotMatch", code == "InvalidToken":
		return "the AWS credentials are wrong"
	case code == "ExpiredToken", code == "TokenRefreshRequired":
		return "the AWS credentials have expired"
	case code == "RequestTimeTooSkewed":
		return "the clock of this machine is wrong"
	case strings.HasPrefix(code, "KMS."):
		return "the key that the bucket is encrypted with cannot be used"
	case status(err) == http.StatusForbidden:
		return s.permission(action)
	default:
		return ""
	}
}

// permission says how to allow an action.
func (s *Sink) permission(action string) string {
	root := s.bucket + "/" + strings.TrimPrefix(s.prefix+"/", "/")
	objects := root + "runs/* and " + root + "state/*"
	switch action {
	case "s3:ListBucket":
		return fmt.Sprintf("allow %s on %s, and see that the credentials and the bucket belong together", action, s.bucket)
	case "s3:PutObject":
		return fmt.Sprintf("allow %s on %s, and kms:GenerateDataKey if a key of yours encrypts it", action, objects)
	default:
		return fmt.Sprintf("allow %s on %s and s3:ListBucket on %s: without s3:ListBucket, "+
			"S3 answers 403 instead of 404 where nothing is", action, objects, s.bucket)
	}
}

// region returns the bucket's Region, where S3 says it.
func region(err error) string {
	e, ok := errors.AsType[*awshttp.ResponseError](err)
	if !ok || e.HTTPResponse() == nil {
		return ""
	}
	return e.HTTPResponse().Header.Get("X-Amz-Bucket-Region")
}
