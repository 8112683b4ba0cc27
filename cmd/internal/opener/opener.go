// Package opener finds the jobs that messages refer to: in payloads that other
// clients of SQS keep in S3, in bodies too large for a message, and, by way of a
// template, in documents whose arrival S3 tells of.
//
// An [Opener] is a worker.Opener. It recognises messages with package foreign, and
// leaves ordinary ones as they are.
//
// # What it reads
//
// Anybody who may send a message could name any object that the worker can read, and
// have a model repeat it. So references lead to the worker's own runs, or to a [Place]
// that the operator has named, and nowhere else; and no object is read that is larger
// than [Config.MaxObject].
//
// # What becomes of a document
//
// The job of a document is named after the object and its version, or its ETag where
// the bucket keeps no versions, so that telling of it twice makes one job and
// replacing it makes another. An object without versions that has been replaced
// before it was read is not read: another message tells of what came in its place.
// Objects of upwell's own are none: a result would otherwise become a job, and the
// result of that another.
package opener

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync"

	"github.com/aws/aws-sdk-go-v2/service/s3"

	"upwell/cmd/internal/document"
	"upwell/cmd/internal/input"
	"upwell/cmd/internal/prompt"
	"upwell/jobs"
	"upwell/jobs/foreign"
	"upwell/sink"
	"upwell/worker"
)

// DefaultMaxObject is the largest object that is read unless somebody says otherwise,
// in bytes. It is no less than a job may have that was submitted.
const DefaultMaxObject = 32 << 20

// perByte is about how many bytes of memory a document takes for each of its own while
// it becomes a job: itself, its text or its base64, and the job twice.
const perByte = 4

// A Config says what an Opener may read, and what it makes of it.
type Config struct {
	// Client reads the objects. Required.
	Client *s3.Client

	// Bucket and Prefix are where the worker's results are. What is in its runs may
	// always be read. Bucket is required.
	Bucket, Prefix string

	// ReadFrom are the other places that may be read.
	ReadFrom []Place

	// MaxObject is the largest object that is read, in bytes. Default
	// [DefaultMaxObject].
	MaxObject int64

	// Run is the run of documents' jobs. Default "default", as the worker's.
	Run string

	// Template makes jobs of documents. Nil: an event of S3 is no job.
	Template *prompt.Template

	// DeletePayloads has the payload of an SQS Extended Client removed when its job
	// has a result. Documents and bodies of upwell's own stay.
	DeletePayloads bool

	// Log is told of what is odd about documents. Default: discard.
	Log *slog.Logger
}

// An Opener opens messages. Its methods may be called concurrently.
type Opener struct {
	cfg       Config
	documents document.Reader
	reading   chan struct{} // a token for each document that is being read: they take a processor
	runs      Place
	state     Place
	loop      sync.Once
}

// New returns an Opener. It makes no request.
func New(cfg Config) *Opener {
	cfg.MaxObject = cmp.Or(cfg.MaxObject, DefaultMaxObject)
	cfg.Run = cmp.Or(cfg.Run, "default")
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	runs := strings.Trim(sink.Root(cfg.Prefix), "/")
	return &Opener{
		cfg: cfg, reading: make(chan struct{}, runtime.GOMAXPROCS(0)+1),
		runs:  Place{cfg.Bucket, runs},
		state: Place{cfg.Bucket, strings.TrimSuffix(runs, "runs") + "state"},
	}
}

// Open implements worker.Opener.
func (o *Opener) Open(m jobs.Message) (worker.Parcel, error) {
	c, err := foreign.Read(m.Body)
	p := worker.Parcel{Key: c.Key}
	if err != nil {
		return p, err
	}
	switch c.Kind {
	case foreign.Pointer:
		return p, o.refer(&p, c.Object, "s3Key", o.cfg.DeletePayloads)
	case foreign.Reference:
		return p, o.refer(&p, c.Object, "body_ref", false)
	case foreign.Event:
		return o.event(c)
	default:
		p.Text = c.Text
		return p, nil
	}
}

// refer makes p one whose job is the text of an object, which field named.
func (o *Opener) refer(p *worker.Parcel, obj foreign.Object, field string, remove bool) error {
	if !o.runs.Holds(obj) {
		if err := o.allowed(obj, field); err != nil {
			return err
		}
	}
	r := reading{o, obj, field}
	p.Size, p.Fetch = r.size, r.read
	if remove && !o.runs.Holds(obj) { // bodies of our own stay, whoever points at them
		p.Forget = r.remove
	}
	return nil
}

// event opens what S3 tells of: one document, several, or none.
func (o *Opener) event(c foreign.Content) (worker.Parcel, error) {
	switch {
	case len(c.Objects) == 0:
		return worker.Parcel{}, nil
	case o.cfg.Template == nil:
		return worker.Parcel{}, &jobs.FormatError{Reason: "an event of S3, want a job: give the worker --template to make jobs of the documents that it tells of"}
	case len(c.Objects) > 1:
		return worker.Parcel{Parts: c.Parts}, nil
	}
	obj := c.Objects[0]
	if o.runs.Holds(obj) || o.state.Holds(obj) {
		o.loop.Do(func() {
			o.cfg.Log.Warn("events of upwell's own objects are ignored: have the bucket's notification leave them out", "object", obj.URL())
		})
		return worker.Parcel{}, nil
	}
	r := reading{o, obj, ""}
	p := worker.Parcel{Key: jobs.Key{Run: o.cfg.Run, CustomID: idOf(obj)}}
	if err := o.allowed(obj, ""); err != nil {
		return p, err
	}
	if _, ok := document.Type(obj.Key); !ok {
		return p, r.bad("of no type that can be read, want .txt, .md, .html, .docx, .pdf, .png or .jpg")
	}
	if err := r.fits(obj.Size); err != nil {
		return p, err
	}
	p.Size, p.Fetch = r.documentSize, r.document
	return p, nil
}

// idOf names a document: the object, and which it was of those that have had its key.
func idOf(obj foreign.Object) string {
	id := obj.URL()
	switch {
	case obj.Version != "":
		id += "?versionId=" + obj.Version
	case obj.ETag != "":
		id += "?etag=" + obj.ETag
	}
	return input.FitID(id)
}

// allowed reports what keeps the object from being read.
func (o *Opener) allowed(obj foreign.Object, field string) error {
	for _, place := range o.cfg.ReadFrom {
		if place.Holds(obj) {
			return nil
		}
	}
	return &jobs.FormatError{Field: field, Reason: fmt.Sprintf(
		"%.300s is not among what this worker may read: allow it with --read-from %s", obj.URL(), placeOf(obj))}
}

// documentSize returns about how much memory the document takes while it becomes a
// job.
func (r reading) documentSize(ctx context.Context) (n int64, err error) {
	if n = r.obj.Size; n < 0 {
		n, err = r.size(ctx)
	}
	return perByte * n, err
}

// document makes a job of the document.
func (r reading) document(ctx context.Context) ([]byte, error) {
	data, err := r.read(ctx)
	if err != nil {
		return nil, err
	}
	select {
	case r.reading <- struct{}{}:
		defer func() { <-r.reading }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	name := r.obj.URL()
	doc, err := r.documents.Read(ctx, name, data)
	if e, ok := errors.AsType[*document.UnreadableError](err); ok {
		return nil, &jobs.FormatError{Reason: e.Error()}
	}
	if err != nil {
		return nil, err
	}
	if len(doc.Warnings) > 0 {
		r.cfg.Log.WarnContext(ctx, "document may not have been read whole", "object", name, "warnings", strings.Join(doc.Warnings, "; "))
	}
	line, err := r.cfg.Template.Job(input.DocumentRecord(idOf(r.obj), name, r.obj.Key, int64(len(data)), doc))
	if err != nil {
		return nil, &jobs.FormatError{Reason: err.Error()}
	}
	// There is no manifest that a name could be looked up in.
	if _, schema := r.cfg.Template.Schema(); len(schema) > 0 {
		return jobs.Set(line, []string{"upwell", "schema"}, schema)
	}
	return line, nil
}
