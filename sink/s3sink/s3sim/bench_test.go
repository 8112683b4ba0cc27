package s3sim_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/s3"

	"upwell/sink/s3sink/s3sim"
)

// BenchmarkPut stores 4 KiB objects as the sink does: each one new, created
// on condition, by 32 writers over loopback.
func BenchmarkPut(b *testing.B) {
	sim, err := s3sim.New(s3sim.Config{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	defer sim.Close()
	srv := httptest.NewServer(sim)
	defer srv.Close()
	c := client(srv.URL, srv.Client())
	if _, err := c.CreateBucket(b.Context(), &s3.CreateBucketInput{Bucket: new(bucket)}); err != nil {
		b.Fatal(err)
	}
	body := strings.Repeat("x", 4<<10)
	var n atomic.Int64
	b.SetParallelism(16)
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			i := n.Add(1)
			key := fmt.Sprintf("runs/x/results/%02x/%d.json", i%256, i)
			if _, err := c.PutObject(b.Context(), &s3.PutObjectInput{
				Bucket: new(bucket), Key: &key, Body: strings.NewReader(body), IfNoneMatch: new("*"),
			}); err != nil {
				b.Error(err)
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "puts/s")
}

// BenchmarkList lists 1,000 keys from the middle of 100,000, in folders of
// 400 and in a single one.
func BenchmarkList(b *testing.B) {
	for name, format := range map[string]string{"folders": "%02x/%06d.json", "flat": "flat/%06[2]d.json"} {
		b.Run(name, func(b *testing.B) {
			dir := b.TempDir()
			sim, err := s3sim.New(s3sim.Config{Dir: dir})
			if err != nil {
				b.Fatal(err)
			}
			defer sim.Close()
			for i := range 100_000 {
				p := filepath.Join(dir, bucket, fmt.Sprintf(format, i%256, i))
				_ = os.MkdirAll(filepath.Dir(p), 0o755)
				if err := os.WriteFile(p, nil, 0o600); err != nil {
					b.Fatal(err)
				}
			}
			c := client("http://s3.test", &http.Client{Transport: inProcess{sim}})
			for b.Loop() {
				out, err := c.ListObjectsV2(b.Context(), &s3.ListObjectsV2Input{
					Bucket: new(bucket), StartAfter: new(fmt.Sprintf(format, 128, 50_000)),
				})
				if err != nil || len(out.Contents) != 1000 {
					b.Fatal(len(out.Contents), err)
				}
			}
		})
	}
}
