package input

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"sync/atomic"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"upwell/cmd/internal/document"
)

// What a file may be. The first three are what --format names.
const (
	formatCSV      = "csv"
	formatJSONL    = "jsonl"
	formatParquet  = "parquet"
	formatDocument = "document"
)

// a is a format with its article.
func a(format string) string {
	switch format {
	case formatCSV:
		return "a CSV"
	case formatJSONL:
		return "JSON lines, but of rows, not of jobs"
	case formatParquet:
		return "a Parquet file"
	case formatDocument:
		return "a document"
	default:
		return format
	}
}

// plainName is a file's name without the ending that says how it is compressed.
func plainName(name string) string {
	for _, ext := range []string{".gz", ".zst"} {
		if n := len(name) - len(ext); n > 0 && strings.EqualFold(name[n:], ext) {
			return name[:n]
		}
	}
	return name
}

// kindOf says what the file of that name is, or nothing.
func kindOf(name string) string {
	if _, ok := document.Type(name); ok {
		return formatDocument
	}
	switch strings.ToLower(path.Ext(plainName(name))) {
	case ".csv", ".tsv":
		return formatCSV
	case ".jsonl", ".ndjson":
		return formatJSONL
	case ".parquet", ".pq":
		return formatParquet
	default:
		return ""
	}
}

// sniffed is how much of a file [sniff] wants to see.
const sniffed = 64 << 10

const (
	utf8BOM      = "\ufeff"
	parquetMagic = "PAR1"
)

// sniff says what the text that begins so is, or nothing. A CSV cannot be told from
// other text.
func sniff(head []byte) string {
	for _, known := range [...]struct{ magic, kind string }{
		{parquetMagic, formatParquet},
		{"PARE", formatParquet}, // encrypted, which reading it says
		{"%PDF-", formatDocument},
		{"\x89PNG", formatDocument},
		{"\xff\xd8\xff", formatDocument}, // JPEG
		{"PK\x03\x04", "a ZIP or Office file"},
		{"\xd0\xcf\x11\xe0", "an old Office file"},
	} {
		if bytes.HasPrefix(head, []byte(known.magic)) {
			return known.kind
		}
	}
	text := bytes.TrimLeft(bytes.TrimPrefix(head, []byte(utf8BOM)), " \t\r\n")
	if bytes.HasPrefix(text, []byte("{")) {
		return formatJSONL
	}
	return ""
}

// rowsNotJobs reports whether the first line is a JSON object that looks like no job
// at all.
func rowsNotJobs(head []byte) bool {
	var first map[string]json.RawMessage
	head = bytes.TrimPrefix(head, []byte(utf8BOM))
	if json.NewDecoder(bytes.NewReader(head)).Decode(&first) != nil {
		return false
	}
	for _, field := range []string{"custom_id", "method", "url", "body", "upwell"} {
		if _, ok := first[field]; ok {
			return false
		}
	}
	return true
}

// maxWindow is the largest window of a zstd file, and so about what reading one
// takes: what the zstd program itself reads without being asked.
const maxWindow = 128 << 20

// expand returns the text of r, which may be compressed by gzip or zstd: the first
// bytes say so. Closing it does not close r.
func expand(r io.Reader) (*text, error) {
	in := bufio.NewReaderSize(r, sniffed)
	head, err := in.Peek(4)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	switch {
	case bytes.HasPrefix(head, []byte("\x1f\x8b")):
		z, err := gzip.NewReader(in)
		if err != nil {
			return nil, fmt.Errorf("gzip: %w", err)
		}
		return &text{bufio.NewReaderSize(z, sniffed), z.Close}, nil
	case bytes.HasPrefix(head, []byte("\x28\xb5\x2f\xfd")):
		z, err := zstd.NewReader(in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, fmt.Errorf("zstd: %w", err)
		}
		return &text{bufio.NewReaderSize(z, sniffed), func() error { z.Close(); return nil }}, nil
	default:
		return &text{in, func() error { return nil }}, nil
	}
}

// text is what a file holds, with a view of what comes.
type text struct {
	*bufio.Reader
	close func() error
}

// Close implements io.Closer.
func (t *text) Close() error { return t.close() }

// counted counts what is read.
type counted struct {
	r io.Reader
	n *atomic.Int64
}

// Read implements io.Reader.
func (c counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n.Add(int64(n))
	return n, err
}

// countedAt counts what is read of a file out of order.
type countedAt struct {
	r io.ReaderAt
	n *atomic.Int64
}

// ReadAt implements io.ReaderAt.
func (c countedAt) ReadAt(p []byte, at int64) (int, error) {
	n, err := c.r.ReadAt(p, at)
	c.n.Add(int64(n))
	return n, err
}
