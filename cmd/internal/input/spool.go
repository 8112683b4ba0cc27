package input

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode"

	"github.com/klauspost/compress/zstd"
)

// maxPlace bounds the place that a line of a spool ends with.
const maxPlace = 4 << 10

// A spool is a temporary file of jobs, compressed as fast as can be. It has no name
// where the system allows that.
type spool struct {
	file *os.File
	size int64
	enc  *zstd.Encoder // until it is complete
}

// spooling sets the file's spool to what write writes.
func (f *File) spooling(write func(*spool) error) error {
	tmp, err := tempFile()
	if err != nil {
		return err
	}
	s := &spool{file: tmp}
	f.closers = append(f.closers, s)
	// One goroutine and a small window: there is one spool, and what is alike stands
	// close together.
	s.enc, err = zstd.NewWriter(tmp, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(1<<20))
	if err != nil {
		return err
	}
	if err := write(s); err != nil {
		return err
	}
	if err := s.finish(); err != nil {
		return ofTemp(err)
	}
	f.spool = s
	return nil
}

// tempFile returns a new file that is gone when it is closed, with [dropTemp], and
// where the system allows it also when the process is killed.
func tempFile() (*os.File, error) {
	f, err := os.CreateTemp("", "upwell-input-*")
	if err == nil {
		_ = os.Remove(f.Name())
	}
	return f, err
}

func dropTemp(f *os.File) error {
	err := f.Close()
	_ = os.Remove(f.Name())
	return err
}

// Write implements io.Writer.
func (s *spool) Write(p []byte) (int, error) {
	n, err := s.enc.Write(p)
	return n, ofTemp(err)
}

// ofTemp says of an error where the temporary file is: the disk may be full.
func ofTemp(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("temporary file in %s: %w", os.TempDir(), err)
}

// add writes the job of the record at a place. A line of JSON has no tab in its
// strings, and a place none at all.
func (s *spool) add(text []byte, place string) error {
	for _, p := range [][]byte{text, {'\t'}, []byte(place), {'\n'}} {
		if _, err := s.Write(p); err != nil {
			return err
		}
	}
	return nil
}

// splitPlace is the inverse of [spool.add].
func splitPlace(line []byte) (text []byte, place string) {
	i := bytes.LastIndexByte(line, '\t')
	return line[:max(i, 0)], string(line[i+1:])
}

// printable makes a place of a path: on one line, not too long, and without what a
// terminal may obey, in one byte or in two, or what has text appear in another order.
func printable(place string) string {
	place = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) {
			return '\ufffd'
		}
		return r
	}, place)
	return place[:min(len(place), maxPlace)]
}

func (s *spool) finish() (err error) {
	if err = s.enc.Close(); err != nil {
		return err
	}
	s.size, err = s.file.Seek(0, io.SeekEnd)
	return err
}

// open returns what was written. It may be called again while that is read.
func (s *spool) open() (io.ReadCloser, error) {
	r, err := expand(io.NewSectionReader(s.file, 0, s.size))
	if err != nil {
		return nil, ofTemp(err)
	}
	return r, nil
}

// Close removes the spool.
func (s *spool) Close() error {
	var err error
	if s.enc != nil {
		err = s.enc.Close()
	}
	return errors.Join(err, dropTemp(s.file))
}
