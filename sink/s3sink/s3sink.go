package s3sink

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/ratelimit"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"upwell/jobs"
	"upwell/sink"
)

const (
	contentType = "application/json"

	// sumKey names the metadata that holds the SHA-256 of an object's bytes.
	sumKey = "upwell-sha256"
)

// NewClient returns a client that is fit for a [Sink]. It differs from the
// SDK's own in this:
//
//   - It retries without the SDK's retry quota, which one second of SlowDown
//     during 300 concurrent writes uses up, so that most of them fail.
//   - It sends and checks checksums even when cfg was made by hand.
//   - It addresses a bucket by path when there is a custom endpoint (from cfg,
//     AWS_ENDPOINT_URL_S3 or an option): stand-ins for S3 seldom have a host
//     name for each bucket.
//
// cfg.HTTPClient is left to the caller. It should keep as many idle connections
// to one host as there are writers; the SDK's own keeps ten.
func NewClient(cfg aws.Config, opts ...func(*s3.Options)) *s3.Client {
	all := append([]func(*s3.Options){robust}, opts...)
	return s3.NewFromConfig(cfg, append(all, pathStyle)...)
}

func robust(o *s3.Options) {
	o.Retryer = retry.NewStandard(func(r *retry.StandardOptions) {
		r.MaxAttempts = sdkTries
		r.MaxBackoff = maxPause
		r.RateLimiter = ratelimit.None
	})
	if o.RequestChecksumCalculation == aws.RequestChecksumCalculationUnset {
		o.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenSupported
	}
	if o.ResponseChecksumValidation == aws.ResponseChecksumValidationUnset {
		o.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenSupported
	}
	// It would log each read from a store that keeps no checksums.
	o.DisableLogOutputChecksumValidationSkipped = true
}

func pathStyle(o *s3.Options) {
	if o.BaseEndpoint != nil {
		o.UsePathStyle = true
	}
}

// A Sink stores the results of runs in a bucket, under a prefix. It satisfies
// worker.Sink. Its methods may be called concurrently.
type Sink struct {
	client         *s3.Client
	bucket, prefix string

	// The first write of all makes these, in init. direct makes first tries,
	// and is nil when the SDK is to make them too; useless is why no try can
	// ever succeed.
	init    sync.Once
	direct  *direct
	useless error
}

// New returns a Sink. The prefix may be empty. It makes no request: see
// [Sink.Check].
func New(client *s3.Client, bucket, prefix string) *Sink {
	return &Sink{client: client, bucket: bucket, prefix: strings.Trim(prefix, "/")}
}

// Put stores the result of a job durably. When the job has one already, that
// one stays, and Put reports false; but when that one is r itself, stored by a
// try whose answer was lost, it reports true. Put returns when the matter is
// settled, when ctx ends, or for an error that trying again cannot mend.
func (s *Sink) Put(ctx context.Context, k jobs.Key, r jobs.Result) (stored bool, err error) {
	body, err := sink.Encode(r)
	if err != nil {
		return false, fmt.Errorf("s3 put: %w", err)
	}
	return s.create(ctx, newObject(sink.Results.Key(s.prefix, k), body))
}

// PutError stores the error line of a job in the place of any earlier one. It
// tries for as long as [Sink.Put] does.
func (s *Sink) PutError(ctx context.Context, k jobs.Key, r jobs.Result) error {
	body, err := sink.Encode(r)
	if err != nil {
		return fmt.Errorf("s3 put: %w", err)
	}
	return s.replace(ctx, newObject(sink.Errors.Key(s.prefix, k), body))
}

// ErrOtherRun is the error of submitting something else under the name of a
// run that exists.
var ErrOtherRun = errors.New("the run exists, with other input, template or schemas")

// PutManifest stores the manifest of a run that has none, and returns the one
// that is stored then. A run keeps the manifest it has. If that asks for
// something else than m (see [sink.Manifest.Same]), it is returned all the
// same, and the error wraps [ErrOtherRun].
func (s *Sink) PutManifest(ctx context.Context, m sink.Manifest) (sink.Manifest, error) {
	body, err := m.Encode()
	if err != nil {
		return sink.Manifest{}, fmt.Errorf("s3 put: %w", err)
	}
	o := newObject(sink.ManifestKey(s.prefix, m.Run), body)
	if _, err := s.create(ctx, o); err != nil {
		return sink.Manifest{}, err
	}
	old, err := s.Manifest(ctx, m.Run)
	if err == nil && !old.Same(m) {
		err = s.wrap("put", o.key, ErrOtherRun)
	}
	return old, err
}

// An object is what is to be stored.
type object struct {
	key  string
	body []byte
	sum  [sha256.Size]byte // of body
	once bool              // only where nothing is
}

func newObject(key string, body []byte) object {
	return object{key: key, body: body, sum: sha256.Sum256(body)}
}

func (o object) hex() string    { return hex.EncodeToString(o.sum[:]) }
func (o object) base64() string { return base64.StdEncoding.EncodeToString(o.sum[:]) }

// errTaken is the error of storing an object once where there is one.
var errTaken = errors.New("there is an object already")

// create stores o where nothing is, and reports whether what is there then is o.
func (s *Sink) create(ctx context.Context, o object) (stored bool, err error) {
	o.once = true
	err = persist(ctx, func(ctx context.Context, n int) error {
		err := s.write(ctx, n, o)
		stored = err == nil
		if errors.Is(err, errTaken) {
			stored, err = s.holds(ctx, o)
		}
		return err
	})
	return stored, s.wrap("put", o.key, err)
}

// replace stores o in the place of what is there.
func (s *Sink) replace(ctx context.Context, o object) error {
	err := persist(ctx, func(ctx context.Context, n int) error { return s.write(ctx, n, o) })
	return s.wrap("put", o.key, err)
}

// write makes round n of the tries to store o.
func (s *Sink) write(ctx context.Context, n int, o object) error {
	s.init.Do(func() {
		s.direct, s.useless = newDirect(context.WithoutCancel(ctx), s.client.Options(), s.bucket)
	})
	switch {
	case s.useless != nil:
		return hopeless{s.explain("s3:PutObject", s.useless)}
	case n == 0 && s.direct != nil:
		return s.direct.put(ctx, o)
	}
	in := s.input(o)
	if o.once {
		in.IfNoneMatch = new("*")
	}
	_, err := s.client.PutObject(ctx, in)
	if status(err) == http.StatusPreconditionFailed {
		return errTaken
	}
	return s.explain("s3:PutObject", err)
}

// input returns the request that stores o.
func (s *Sink) input(o object) *s3.PutObjectInput {
	return &s3.PutObjectInput{
		Bucket: &s.bucket, Key: &o.key, Body: bytes.NewReader(o.body),
		ContentType:    new(contentType),
		ChecksumSHA256: new(o.base64()),
		Metadata:       map[string]string{sumKey: o.hex()},
	}
}

// errDeleted is the error of looking for what was there a moment ago.
var errDeleted = errors.New("what was there has been deleted")

// holds reports whether what is stored in o's place is o.
func (s *Sink) holds(ctx context.Context, o object) (bool, error) {
	head, err := s.client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &s.bucket, Key: &o.key})
	if status(err) == http.StatusNotFound {
		return false, errDeleted // the next round may store it
	}
	if err != nil {
		return false, s.explain("s3:GetObject", err)
	}
	return head.Metadata[sumKey] == o.hex(), nil
}

func (s *Sink) uri(key string) string { return "s3://" + s.bucket + "/" + key }

// wrap says what was done to what.
func (s *Sink) wrap(op, key string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("s3 %s %s: %w", op, s.uri(key), err)
}
