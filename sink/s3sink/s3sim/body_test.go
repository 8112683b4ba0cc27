package s3sim_test

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"upwell/sink/s3sink/s3sim"
)

var algorithms = []types.ChecksumAlgorithm{
	types.ChecksumAlgorithmCrc32, types.ChecksumAlgorithmCrc32c, types.ChecksumAlgorithmCrc64nvme,
	types.ChecksumAlgorithmSha1, types.ChecksumAlgorithmSha256,
}

// checksum returns the one checksum in out.
func checksum(out *s3.GetObjectOutput) string {
	for _, p := range []*string{out.ChecksumCRC32, out.ChecksumCRC32C, out.ChecksumCRC64NVME, out.ChecksumSHA1, out.ChecksumSHA256} {
		if p != nil {
			return *p
		}
	}
	return ""
}

// TestChecksums stores objects with each checksum in a header, as the SDK
// does over http, and in a trailer, as it does over https.
func TestChecksums(t *testing.T) {
	w := newWorld(t, s3sim.Config{})
	srv := httptest.NewTLSServer(w.sim)
	defer srv.Close()
	tls := &world{T: t, Client: client(srv.URL, srv.Client())}
	for _, alg := range algorithms {
		for size, w := range map[int]*world{0: tls, 10: w, 11: tls, 70_000: w, 70_001: tls} {
			key, body := fmt.Sprint(alg, size), strings.Repeat("b", size)
			w.mustPut(key, body, func(in *s3.PutObjectInput) {
				in.ChecksumAlgorithm = alg
				in.Body = io.NewSectionReader(strings.NewReader(body), 0, int64(size))
			})
			out, got, err := w.get(key, func(in *s3.GetObjectInput) { in.ChecksumMode = types.ChecksumModeEnabled })
			if err != nil || got != body || checksum(out) == "" || out.ContentEncoding != nil {
				t.Errorf("%s: %d bytes, %+v, %v", key, len(got), out, err)
			}
		}
	}
	wrong := w.put("wrong", "body", func(in *s3.PutObjectInput) { in.ChecksumCRC32 = new("AAAAAA==") })
	w.wantCode(wrong, 400, "BadDigest")
	wrong = w.put("wrong", "body", func(in *s3.PutObjectInput) {
		in.ChecksumSHA256 = new(base64.StdEncoding.EncodeToString(make([]byte, 32)))
	})
	w.wantCode(wrong, 400, "BadDigest")
	wrong = w.put("wrong", "body", func(in *s3.PutObjectInput) { in.ContentMD5 = new("AAAAAAAAAAAAAAAAAAAAAA==") })
	w.wantCode(wrong, 400, "BadDigest")
	_, _, err := w.get("wrong")
	w.wantCode(err, 404, "NoSuchKey")
}

// TestChunked sends aws-chunked bodies as the SDK never would.
func TestChunked(t *testing.T) {
	w := newWorld(t, s3sim.Config{})
	crc := func(s string) string {
		return base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, crc32.ChecksumIEEE([]byte(s))))
	}
	for name, tt := range map[string]struct {
		raw     string
		length  int
		trailer string
		signed  bool
		want    string // the body, if status is 200
		status  int
	}{
		"two chunks":     {"3\r\nabc\r\n2\r\nde\r\n0\r\nx-amz-checksum-crc32:" + crc("abcde") + "\r\n\r\n", 5, "x-amz-checksum-crc32", false, "abcde", 200},
		"hex":            {"A\r\n0123456789\r\n0\r\n\r\n", 10, "", false, "0123456789", 200},
		"empty":          {"0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n", 0, "x-amz-checksum-crc32", false, "", 200},
		"signed":         {"3;chunk-signature=00ff\r\nabc\r\n0;chunk-signature=00ff\r\n\r\n", 3, "", true, "abc", 200},
		"looks framed":   {"7\r\n0\r\nabc\r\r\n0\r\n\r\n", 7, "", false, "0\r\nabc\r", 200},
		"wrong":          {"3\r\nabc\r\n0\r\nx-amz-checksum-crc32:" + crc("abd") + "\r\n\r\n", 3, "x-amz-checksum-crc32", false, "", 400},
		"empty, wrong":   {"0\r\nx-amz-checksum-crc32:" + crc("a") + "\r\n\r\n", 0, "x-amz-checksum-crc32", false, "", 400},
		"no trailer":     {"3\r\nabc\r\n0\r\n\r\n", 3, "x-amz-checksum-crc32", false, "", 400},
		"unknown":        {"3\r\nabc\r\n0\r\nx-amz-checksum-crc8:AA==\r\n\r\n", 3, "x-amz-checksum-crc8", false, "", 400},
		"cut in body":    {"3\r\nab", 3, "", false, "", 400},
		"cut after body": {"3\r\nabc\r\n", 3, "", false, "", 400},
		"too short":      {"2\r\nab\r\n0\r\n\r\n", 3, "", false, "", 400},
		"too long":       {"4\r\nabcd\r\n0\r\n\r\n", 3, "", false, "", 400},
		"no size":        {"hello", 5, "", false, "", 400},
		"negative":       {"-3\r\nabc\r\n0\r\n\r\n", 3, "", false, "", 400},
	} {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequestWithContext(t.Context(), http.MethodPut, "/"+bucket+"/chunked", strings.NewReader(tt.raw))
			r.Header.Set("X-Amz-Content-Sha256", "STREAMING-UNSIGNED-PAYLOAD-TRAILER")
			if tt.signed {
				r.Header.Set("X-Amz-Content-Sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER")
			}
			r.Header.Set("X-Amz-Decoded-Content-Length", fmt.Sprint(tt.length))
			r.Header.Set("Content-Encoding", "aws-chunked")
			if tt.trailer != "" {
				r.Header.Set("X-Amz-Trailer", tt.trailer)
			}
			rec := httptest.NewRecorder()
			w.sim.ServeHTTP(rec, r)
			if rec.Code != tt.status {
				t.Fatalf("PutObject = %d %s, want %d", rec.Code, rec.Body, tt.status)
			}
			if tt.status == 200 {
				w.wantBody("chunked", tt.want)
			}
			w.remove("chunked")
		})
	}
	if got := names(t, w.dir); len(got) != 1 {
		t.Errorf("left behind: %q", got)
	}
	if got := names(t, w.dir+"/.s3sim/tmp"); len(got) != 0 {
		t.Errorf("temporary files left behind: %q", got)
	}
}

func TestShortBody(t *testing.T) {
	w := newWorld(t, s3sim.Config{})
	for _, size := range []string{"4", "2"} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPut, "/"+bucket+"/a", strings.NewReader("abc"))
		r.Header.Set("Content-Length", size)
		r.Header.Set("X-Amz-Checksum-Crc32", "NSRBwg==")
		rec := httptest.NewRecorder()
		w.sim.ServeHTTP(rec, r)
		if rec.Code != http.StatusBadRequest {
			t.Errorf("3 bytes sent as %s = %d %s, want 400", size, rec.Code, rec.Body)
		}
	}
}
