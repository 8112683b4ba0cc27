package s3sim

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"hash"
	"hash/crc32"
	"hash/crc64"
	"io"
	"net/http"
	"net/textproto"
	"strconv"
	"strings"

	"github.com/rclone/gofakes3"
)

// checksumPrefix begins the names of headers and trailers that carry a
// checksum.
const checksumPrefix = "X-Amz-Checksum-"

// sums makes the hash behind each checksum S3 knows, by the header's name.
var sums = map[string]func() hash.Hash{
	checksumPrefix + "Crc32":     func() hash.Hash { return crc32.NewIEEE() },
	checksumPrefix + "Crc32c":    func() hash.Hash { return crc32.New(crc32.MakeTable(crc32.Castagnoli)) },
	checksumPrefix + "Crc64nvme": func() hash.Hash { return crc64.New(nvme) },
	checksumPrefix + "Sha1":      sha1.New,
	checksumPrefix + "Sha256":    sha256.New,
}

var nvme = crc64.MakeTable(0x9a6c9329ac4bc9b5)

// decode replaces an aws-chunked body of r with what it encodes, and has what the
// library does not look at verified: a checksum in a trailer or of a part of a
// multipart upload, and the hash that the signature covers the body by.
//
// The trailer arrives after the library has made up its mind about the
// headers. The verified checksum therefore travels in the request's context,
// from which the backend takes it, and is set on w.
func decode(w http.ResponseWriter, r *http.Request) (*http.Request, error) {
	c := &checked{src: r.Body, out: w.Header()}
	length := r.Header.Get("Content-Length")
	payload := r.Header.Get("X-Amz-Content-Sha256")
	part := r.URL.Query().Has("uploadId") && r.Method == http.MethodPut
	if b, err := hex.DecodeString(payload); err == nil && len(b) == sha256.Size {
		c.payload, c.signed = sha256.New(), b
	}
	switch {
	case strings.HasPrefix(payload, "STREAMING-"):
		length = r.Header.Get("X-Amz-Decoded-Content-Length")
		r.Header.Set("Content-Length", length)
		r.Header.Set("X-Amz-Content-Sha256", "UNSIGNED-PAYLOAD")
		c.chunks = &chunks{r: bufio.NewReader(r.Body)}
		c.src = c.chunks
		c.name = textproto.CanonicalMIMEHeaderKey(r.Header.Get("X-Amz-Trailer"))
	case part:
		c.name, c.want = headerSum(r.Header)
	case c.payload == nil || r.ContentLength <= 0:
		return r, nil
	}
	var err error
	if c.left, err = strconv.ParseInt(length, 10, 64); err != nil || c.left < 0 {
		return r, errors.New("no length")
	}
	if c.name != "" {
		if sums[c.name] == nil {
			return r, errors.New("unknown checksum " + c.name)
		}
		c.sum = sums[c.name]()
	}
	r = r.WithContext(context.WithValue(r.Context(), checkedKey{}, c))
	r.Body = struct {
		io.Reader
		io.Closer
	}{c, r.Body}
	return r, nil
}

// headerSum returns the checksum in h, if there is one.
func headerSum(h http.Header) (name, value string) {
	for name := range sums {
		if v := h.Get(name); v != "" {
			return name, v
		}
	}
	return "", ""
}

// A checked reader passes a body on and verifies it as the last byte goes
// by, so that even a reader that stops at the known length hears of a bad
// checksum.
type checked struct {
	src    io.Reader
	chunks *chunks // src, if the checksum is in its trailer
	left   int64   // bytes of the body to come

	name string // header of the checksum, or empty
	want string
	sum  hash.Hash
	out  http.Header // receives the verified checksum

	payload hash.Hash // nil if the body is not signed
	signed  []byte    // what it has to be

	done bool
	err  error
}

type checkedKey struct{}

func (c *checked) Read(p []byte) (int, error) {
	if c.left == 0 {
		return 0, cmp.Or(c.finish(), io.EOF)
	}
	n, err := c.src.Read(p[:min(int64(len(p)), c.left)])
	c.left -= int64(n)
	if c.sum != nil {
		c.sum.Write(p[:n])
	}
	if c.payload != nil {
		c.payload.Write(p[:n])
	}
	if c.left == 0 {
		return n, c.finish()
	}
	if errors.Is(err, io.EOF) {
		err = gofakes3.ErrIncompleteBody
	}
	return n, err
}

// finish reads what follows the body and verifies the checksum. Only the
// first call does any work.
func (c *checked) finish() error {
	if c.done {
		return c.err
	}
	c.done = true
	if c.chunks != nil {
		c.err = c.chunks.end()
		c.want = c.chunks.trailer.Get(c.name)
	}
	if c.err == nil && c.payload != nil && !bytes.Equal(c.payload.Sum(nil), c.signed) {
		c.err = gofakes3.ErrorMessage(gofakes3.ErrBadDigest, "The body is not the one that x-amz-content-sha256 is of.")
	}
	if c.err != nil || c.sum == nil {
		return c.err
	}
	want, err := base64.StdEncoding.DecodeString(c.want)
	if err != nil || !bytes.Equal(want, c.sum.Sum(nil)) {
		c.err = gofakes3.ErrorMessagef(gofakes3.ErrBadDigest, "The %s you specified did not match the calculated checksum.", c.name)
		return c.err
	}
	c.out.Set(c.name, c.want)
	return nil
}

// trailerSum returns the header and value of the checksum that followed the
// body of the request with ctx, or nothing if none did.
func trailerSum(ctx context.Context) (name, value string, err error) {
	c, ok := ctx.Value(checkedKey{}).(*checked)
	if !ok {
		return "", "", nil
	}
	err = c.finish()
	return c.name, c.want, err
}

// chunks decodes the aws-chunked encoding, in which the body comes in chunks
// with a size line each and ends with an empty one and a trailer:
//
//	4;chunk-signature=… CRLF body CRLF
//	0;chunk-signature=… CRLF
//	x-amz-checksum-crc32:AAAAAA== CRLF CRLF
type chunks struct {
	r       *bufio.Reader
	left    int64 // of the current chunk
	begun   bool
	trailer textproto.MIMEHeader
}

func (c *chunks) Read(p []byte) (int, error) {
	if c.left == 0 {
		if err := c.next(); err != nil {
			return 0, err
		}
	}
	n, err := c.r.Read(p[:min(int64(len(p)), c.left)])
	c.left -= int64(n)
	return n, err
}

// next begins the next chunk, or reads the trailer and returns io.EOF.
func (c *chunks) next() error {
	tp := textproto.NewReader(c.r)
	if c.begun {
		if line, err := tp.ReadLine(); err != nil || line != "" {
			return gofakes3.ErrIncompleteBody
		}
	}
	c.begun = true
	line, err := tp.ReadLine()
	if err != nil {
		return gofakes3.ErrIncompleteBody
	}
	size, _, _ := strings.Cut(line, ";")
	if c.left, err = strconv.ParseInt(size, 16, 64); err != nil || c.left < 0 {
		return gofakes3.ErrIncompleteBody
	}
	if c.left > 0 {
		return nil
	}
	c.trailer, err = tp.ReadMIMEHeader()
	return cmp.Or(err, io.EOF)
}

// end reads past the last chunk, which must be what comes next.
func (c *chunks) end() error {
	if err := c.next(); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if c.left > 0 {
		return gofakes3.ErrIncompleteBody
	}
	return nil
}
