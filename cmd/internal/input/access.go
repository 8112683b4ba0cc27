package input

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"

	"upwell/cmd/internal/awsconf"
)

// An AccessError says that what lies in S3 cannot be got at: the credentials, the
// bucket or the network are at fault, and not the input.
type AccessError struct {
	Place string // the URL that was asked for
	Err   error
}

func (e *AccessError) Error() string {
	if lack, ok := errors.AsType[*awsconf.CredentialsError](e.Err); ok {
		return fmt.Sprintf("%s: %v", e.Place, lack)
	}
	if advice := adviceFor(e.Err); advice != "" {
		return fmt.Sprintf("%s: %s: %s", e.Place, advice, cause(e.Err))
	}
	return fmt.Sprintf("%s: %v", e.Place, e.Err)
}

func (e *AccessError) Unwrap() error { return e.Err }

// adviceFor says what to do about an error that is no answer of S3, whose errors say
// it themselves.
func adviceFor(err error) string {
	if e, ok := errors.AsType[*awshttp.ResponseError](err); ok && e.HTTPStatusCode() != 0 {
		return ""
	}
	switch text := err.Error(); {
	case strings.Contains(text, "Missing Region"):
		return "no Region: set AWS_REGION"
	case strings.Contains(text, "aws configuration"):
		return "correct AWS_PROFILE and the files in ~/.aws"
	case strings.Contains(text, "request send failed"):
		return "S3 cannot be reached: check the network, AWS_REGION and AWS_ENDPOINT_URL_S3"
	default:
		return ""
	}
}

// cause returns the end of what the SDK says: it begins with what it was doing.
func cause(err error) string {
	text := err.Error()
	if _, rest, ok := strings.Cut(text, "request send failed, "); ok {
		return rest
	}
	return text
}

// accessed marks an error of S3. That there is no such object is one of the input,
// and the end of the context is nobody's.
func accessed(ctx context.Context, place string, err error) error {
	if err == nil || ctx.Err() != nil || errors.Is(err, io.EOF) || errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return &AccessError{Place: printable(place), Err: err}
}

// accessing is the content of an object. What fails is marked.
type accessing struct {
	io.ReadCloser
	mark func(error) error
}

// Read implements io.Reader.
func (a accessing) Read(p []byte) (int, error) {
	n, err := a.ReadCloser.Read(p)
	return n, a.mark(err)
}
