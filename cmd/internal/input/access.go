package input

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"upwell/cmd/internal/awsconf"
)

// An AccessError says that what lies in S3 cannot be got at: the credentials, the
// bucket or the network are at fault, and not the input.
type AccessError struct {
	Place string // the URL that was asked for
	Err   error
}

func (e *AccessError) Error() string {
	lack, unsigned := errors.AsType[*awsconf.CredentialsError](e.Err)
	switch {
	case unsigned:
		return fmt.Sprintf("%s: %v", e.Place, lack)
	case strings.Contains(e.Err.Error(), "aws configuration"):
		return fmt.Sprintf("%s: correct AWS_PROFILE and the files in ~/.aws: %v", e.Place, e.Err)
	default:
		return fmt.Sprintf("%s: %v", e.Place, e.Err)
	}
}

func (e *AccessError) Unwrap() error { return e.Err }

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
