package s3sink

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"upwell/jobs/sdkerr"
)

// Check reports why the bucket cannot be used, and what to do about it. It
// makes one request, and cannot see whether writing is allowed.
func (s *Sink) Check(ctx context.Context) error {
	_, err := s.client.HeadBucket(ctx, &s3.HeadBucketInput{Bucket: &s.bucket})
	switch {
	case err == nil:
		return nil
	case status(err) == http.StatusNotFound: // the answer to a HEAD says no more than 404
		err = sdkerr.Told(noBucket+": "+sdkerr.Code(err), err)
	default:
		err = s.explain("s3:ListBucket", err)
	}
	return fmt.Errorf("s3 check s3://%s: %w", s.bucket, err)
}

const (
	noBucket    = "there is no such bucket: create it, or correct its name"
	unreachable = "S3 cannot be reached: check the network, AWS_REGION and AWS_ENDPOINT_URL_S3"
)

// status returns the status of S3's answer, or 0 when there was none.
func status(err error) int {
	if e, ok := errors.AsType[*awshttp.ResponseError](err); ok {
		return e.HTTPStatusCode()
	}
	return 0
}

// explain says what is wrong and what to do about err, which befell a request that
// takes the permission named action, and then what the SDK says, in brief.
func (s *Sink) explain(action string, err error) error {
	if err == nil {
		return nil
	}
	if text := s.misplaced(err); text != "" {
		return sdkerr.Told(text, err)
	}
	if advice := s.advice(action, err); advice != "" {
		return fmt.Errorf("%s: %w", advice, brief(err))
	}
	return brief(err)
}

func (s *Sink) advice(action string, err error) string {
	code := sdkerr.Code(err)
	switch here, home := s.client.Options().Region, region(err); {
	case sdkerr.Unsigned(err) != "":
		return "" // the codes are not S3's
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
	case sdkerr.Unsent(err) && sdkerr.UnknownHost(err) != nil:
		return sdkerr.NoHost
	case sdkerr.Unsent(err):
		return unreachable
	default:
		return ""
	}
}

// misplaced says what is wrong with the Region, where no request could be made of it.
func (s *Sink) misplaced(err error) string {
	text := strings.ToLower(err.Error())
	switch here := s.client.Options().Region; {
	case status(err) != 0, sdkerr.Unsigned(err) != "":
		return ""
	case here == "" && strings.Contains(text, "endpoint rule error") && strings.Contains(text, "region"):
		return sdkerr.NoRegion
	case strings.Contains(text, "invalid region"), strings.Contains(text, "invalid input region"):
		return fmt.Sprintf(sdkerr.BadRegion, here)
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

// brief tells what happened to a request. Last is the id of S3's answer, which AWS's
// support asks for.
func brief(err error) error {
	short := sdkerr.Brief(err)
	if e, ok := errors.AsType[*awshttp.ResponseError](err); ok && e.RequestID != "" && sdkerr.Unsigned(err) == "" {
		return fmt.Errorf("%w (request %s)", short, e.RequestID)
	}
	return short
}
