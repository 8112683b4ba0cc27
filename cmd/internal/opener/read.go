package opener

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go"

	"upwell/jobs"
	"upwell/jobs/foreign"
	"upwell/worker"
)

// readTries is how often an object is read that breaks off in the middle, as the SDK
// only retries up to an answer's beginning.
const readTries = 3

// A reading is an object that a message refers to, in a field of that name.
type reading struct {
	*Opener

	obj   foreign.Object
	field string // empty when it is the message as a whole
}

// bad is the error of an object that will never be a job.
func (r reading) bad(format string, args ...any) error {
	return &jobs.FormatError{Field: r.field, Reason: fmt.Sprintf("%.300s: %s", r.obj.URL(), fmt.Sprintf(format, args...))}
}

// fits reports whether an object of so many bytes may be read.
func (r reading) fits(n int64) error {
	if n > r.cfg.MaxObject {
		return r.bad("%.1f MiB, want at most %d: raise --max-object-mib", float64(n)/(1<<20), r.cfg.MaxObject>>20)
	}
	return nil
}

func (r reading) version() *string {
	if r.obj.Version == "" {
		return nil
	}
	return &r.obj.Version
}

// size asks how large the object is.
func (r reading) size(ctx context.Context) (int64, error) {
	head, err := r.cfg.Client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &r.obj.Bucket, Key: &r.obj.Key, VersionId: r.version()})
	if err != nil {
		return 0, r.meaning("head", err)
	}
	n := aws.ToInt64(head.ContentLength)
	return n, r.fits(n)
}

// read returns the object.
func (r reading) read(ctx context.Context) (b []byte, err error) {
	for range readTries {
		var again bool
		if b, again, err = r.once(ctx); err == nil || !again || ctx.Err() != nil {
			return b, err
		}
	}
	return b, err
}

// once reads the object, and says whether an error may pass that came in the middle.
func (r reading) once(ctx context.Context) (b []byte, again bool, err error) {
	out, err := r.cfg.Client.GetObject(ctx, &s3.GetObjectInput{Bucket: &r.obj.Bucket, Key: &r.obj.Key, VersionId: r.version()})
	if err != nil {
		return nil, false, r.meaning("get", err)
	}
	defer out.Body.Close()
	if etag := strings.Trim(aws.ToString(out.ETag), `"`); r.obj.Version == "" && r.obj.ETag != "" && etag != "" && etag != r.obj.ETag {
		return nil, false, r.bad("replaced since, its ETag is %s now: another event tells of that", etag)
	}
	n := aws.ToInt64(out.ContentLength)
	if err := r.fits(n); err != nil {
		return nil, false, err
	}
	b = make([]byte, 0, max(n, 0)+1) // and the room that finding the end takes
	in := io.LimitReader(out.Body, r.cfg.MaxObject+1)
	for {
		m, err := in.Read(b[len(b):cap(b)])
		b = b[:len(b)+m]
		switch {
		case errors.Is(err, io.EOF):
			return b, false, r.fits(int64(len(b)))
		case err != nil:
			return nil, true, fmt.Errorf("s3 get %s: %w", r.obj.URL(), err)
		case len(b) == cap(b):
			b = append(b, 0)[:len(b)]
		}
	}
}

// remove deletes the object.
func (r reading) remove(ctx context.Context) error {
	_, err := r.cfg.Client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &r.obj.Bucket, Key: &r.obj.Key})
	if err != nil {
		return r.meaning("delete", err)
	}
	return nil
}

// actions are the permissions that requests take.
var actions = map[string]string{"head": "s3:GetObject", "get": "s3:GetObject", "delete": "s3:DeleteObject"}

// meaning says what an error of S3 means for the message: that there is nothing to
// wait for, that a person has to act, or, by default, that it may pass.
func (r reading) meaning(op string, err error) error {
	status, code := 0, ""
	if e, ok := errors.AsType[*awshttp.ResponseError](err); ok {
		status = e.HTTPStatusCode()
	}
	if e, ok := errors.AsType[smithy.APIError](err); ok {
		code = e.ErrorCode()
	}
	switch {
	case code == "InvalidObjectState":
		return r.bad("archived: restore it, and redrive this letter")
	case status == http.StatusNotFound, status == http.StatusMethodNotAllowed: // the latter of what marks a deletion
		return r.bad("there is no such object, or none any more")
	}
	wrapped := fmt.Errorf("s3 %s %s: %w", op, r.obj.URL(), err)
	if status < 300 || status >= 500 || status == http.StatusRequestTimeout || status == http.StatusTooManyRequests {
		return wrapped
	}
	action := actions[op]
	if r.obj.Version != "" {
		action += "Version"
	}
	return &worker.Error{Kind: worker.Unauthorized, Status: status, Err: fmt.Errorf(
		"allow %s on %s/*, and s3:ListBucket on %s, without which a missing object looks the same; the bucket has to be in the Region of the worker's S3 client: %w",
		action, placeOf(r.obj), r.obj.Bucket, wrapped)}
}
