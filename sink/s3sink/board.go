package s3sink

import (
	"context"
	"errors"
	"io/fs"
	"net/http"
	"strings"

	"upwell/jobs/sdkerr"
)

// A Board is one small object that several workers read and replace, such as
// what they know together. Nobody's write is lost unread: whoever replaces what
// he has not seen is told so.
//
// Its methods may be called concurrently. They give up after a minute and a half
// of trouble, and mostly sooner.
type Board struct {
	sink *Sink
	key  string
}

// Board returns the board of that name, which belongs to no run. It makes no
// request.
func (s *Sink) Board(name string) *Board {
	return &Board{sink: s, key: strings.TrimPrefix(s.prefix+"/state/"+name+".json", "/")}
}

// String returns the board's URI, for people.
func (b *Board) String() string { return b.sink.uri(b.key) }

// Read returns what is on the board, and its version for [Board.Write]. Of a
// board that nobody has written to, both are empty.
func (b *Board) Read(ctx context.Context) (data []byte, version string, err error) {
	ctx, cancel := context.WithTimeout(ctx, roundTimeout)
	defer cancel()
	data, version, err = b.sink.get(ctx, b.key)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, "", nil
	}
	return data, version, b.sink.wrap("get", b.key, err)
}

// Write replaces the version that was read, or nothing where the version is
// empty, and reports whether data is on the board now. It is not, and there is
// no error, when somebody else has written, or removed the object, since: read
// again.
//
// A write whose answer was lost is recognised, unless somebody has already
// replaced it. Then it is reported as not done, but its reader has seen it.
func (b *Board) Write(ctx context.Context, data []byte, version string) (ok bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, roundTimeout)
	defer cancel()
	o := newObject(b.key, data)
	in := b.sink.input(o)
	if version == "" {
		in.IfNoneMatch = new("*")
	} else {
		in.IfMatch = &version
	}
	_, err = b.sink.client.PutObject(ctx, in)
	switch {
	case sdkerr.Code(err) == "NoSuchKey":
		return false, nil
	case status(err) == http.StatusPreconditionFailed, status(err) == http.StatusConflict:
		if ok, err = b.sink.holds(ctx, o); errors.Is(err, errDeleted) {
			err = nil
		}
	default:
		ok, err = err == nil, b.sink.explain("s3:PutObject", err)
	}
	return ok, b.sink.wrap("put", b.key, err)
}
