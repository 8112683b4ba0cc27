package s3sim_test

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	gocmp "github.com/google/go-cmp/cmp"

	"upwell/sink/s3sink/s3sim"
)

// keys lists with in, all pages of it, and returns keys and common prefixes
// in the order they came, page by page.
func (w *world) keys(in *s3.ListObjectsV2Input) (keys []string) {
	w.Helper()
	in.Bucket, in.EncodingType = new(bucket), types.EncodingTypeUrl
	for {
		out, err := w.ListObjectsV2(w.Context(), in)
		if err != nil {
			w.Fatalf("ListObjectsV2(%+v) = %v", in, err)
		}
		n := len(out.Contents) + len(out.CommonPrefixes)
		if in.MaxKeys != nil && n > int(*in.MaxKeys) || n != int(*cmp.Or(out.KeyCount, new(int32))) {
			w.Errorf("page of %d entries, KeyCount %v", n, out.KeyCount)
		}
		var page []string
		for _, o := range out.Contents {
			page = append(page, unescape(w, *o.Key))
		}
		for _, p := range out.CommonPrefixes {
			page = append(page, unescape(w, *p.Prefix))
		}
		slices.Sort(page) // the two kinds come apart
		keys = append(keys, page...)
		if !*cmp.Or(out.IsTruncated, new(bool)) {
			return keys
		}
		if out.NextContinuationToken == nil {
			w.Fatal("truncated without a token")
		}
		in.ContinuationToken = out.NextContinuationToken
	}
}

func unescape(w *world, s string) string {
	s, err := url.QueryUnescape(s)
	if err != nil {
		w.Fatal(err)
	}
	return s
}

// model is what ListObjectsV2 should return for a set of keys.
func model(keys []string, prefix, delim, after string) (want []string) {
	for _, k := range keys {
		if !strings.HasPrefix(k, prefix) || k <= after {
			continue
		}
		if i := strings.Index(k[len(prefix):], delim); delim != "" && i >= 0 {
			k = k[:len(prefix)+i+len(delim)]
			if k == after {
				continue // where the page before ended
			}
		}
		want = append(want, k)
	}
	slices.Sort(want)
	return slices.Compact(want)
}

// weird are keys that are hard to store as files, alone or beside each other.
var weird = []string{
	"a", "a/b", "a/b/c", "a/b/c/d/e", "a//b", "a///", "a/", "/", "/lead", "//", "dir/", "dir/x", "dir/sub/",
	".", "..", "../../x", "a/../b", "./x", "x/.", "...", ".hidden", "b/.hidden/c",
	".s3sim", ".s3sim/meta/00/11", ".s3sim/tmp/1", ".s3sim2", "sub/.s3sim/x",
	"a b", "a+b", "a%2Fb", "a%b", "a?b", "a#b", "a&b=c", `a\b`, `back\..\slash`, "a:b", "a*b", "a\"b'", "<xml>&amp;",
	"🦑/🌊 x.json", "é", "e\u0301", "日本/語", "a\tb", "a\nb", "nul\x00byte", "CON", "trail.", "trail ",
	strings.Repeat("s", 255), strings.Repeat("s", 256), strings.Repeat("s", 300) + "/t", "t/" + strings.Repeat("s", 300),
	strings.Repeat("k", 1000), strings.Repeat("k/", 500), strings.Repeat("d/", 60) + "e",
	"a.", "a-", "a0", "a.json", "a/b.json", "A", "Z/z",
}

func TestWeirdKeys(t *testing.T) {
	outer := t.TempDir()
	dir := filepath.Join(outer, "one", "two", "three")
	w := newWorld(t, s3sim.Config{Dir: dir})
	// Either of a and a/b may come first.
	backward := slices.Clone(weird)
	slices.Reverse(backward)
	for i, order := range [][]string{weird, backward} {
		for _, key := range order {
			body := fmt.Sprint(i, key)
			w.mustPut(key, body, ifAbsent, func(in *s3.PutObjectInput) { in.Metadata = map[string]string{"n": fmt.Sprint(len(key))} })
			w.wantCode(w.put(key, "again", ifAbsent), 412, "PreconditionFailed")
		}
		for range 2 { // the second time around, after a restart
			want := slices.Sorted(slices.Values(weird))
			if d := gocmp.Diff(want, w.keys(&s3.ListObjectsV2Input{})); d != "" {
				t.Errorf("keys (-want +got):\n%s", d)
			}
			if d := gocmp.Diff(want, w.keys(&s3.ListObjectsV2Input{MaxKeys: new(int32(3))})); d != "" {
				t.Errorf("keys by threes (-want +got):\n%s", d)
			}
			for _, key := range weird {
				out, body, err := w.get(key)
				if err != nil || body != fmt.Sprint(i, key) || out.Metadata["n"] != fmt.Sprint(len(key)) {
					t.Errorf("GetObject(%.60q) = %.60q, %+v, %v", key, body, out, err)
				}
			}
			w = newWorld(t, s3sim.Config{Dir: dir})
		}
		for _, key := range weird {
			w.remove(key)
		}
		if got := names(t, w.dir); !slices.Equal(got, []string{".s3sim"}) {
			t.Errorf("bucket folder holds %q after deleting everything", got)
		}
	}
	for d, want := range map[string]string{outer: "one", filepath.Join(outer, "one"): "two", filepath.Join(outer, "one/two"): "three"} {
		if got := names(t, d); !slices.Equal(got, []string{want}) {
			t.Errorf("%s holds %q: a key escaped", d, got)
		}
	}
}

func TestListing(t *testing.T) {
	w := newWorld(t, s3sim.Config{})
	r := rand.New(rand.NewPCG(1, 2))
	random := func(n int) string {
		b := make([]byte, 1+r.IntN(n))
		for i := range b {
			b[i] = "aab//.-0"[r.IntN(8)]
		}
		return string(b)
	}
	set := map[string]bool{}
	for range 250 {
		set[random(7)] = true
	}
	var keys []string
	for key := range set {
		keys = append(keys, key)
		w.mustPut(key, key)
	}
	slices.Sort(keys)
	// Folders without objects are not listed.
	if err := os.MkdirAll(filepath.Join(w.dir, "b-empty", "er"), 0o755); err != nil {
		t.Fatal(err)
	}
	cases := 150
	if testing.Short() {
		cases = 60
	}
	for range cases {
		in := &s3.ListObjectsV2Input{}
		prefix, delim, after := "", "", ""
		if r.IntN(2) == 0 {
			prefix = random(4)
		}
		if r.IntN(2) == 0 {
			delim = []string{"/", "/", "a", "-", "ab"}[r.IntN(5)]
		}
		if r.IntN(2) == 0 {
			after = random(5)
		}
		if r.IntN(3) > 0 {
			in.MaxKeys = new(int32(1 + r.IntN(20)))
		}
		in.Prefix, in.Delimiter, in.StartAfter = &prefix, &delim, &after
		if d := gocmp.Diff(model(keys, prefix, delim, after), w.keys(in)); d != "" {
			t.Fatalf("prefix %q, delimiter %q, after %q, max %v (-want +got):\n%s", prefix, delim, after, in.MaxKeys, d)
		}
	}
}

func TestListedAttributes(t *testing.T) {
	w := newWorld(t, s3sim.Config{})
	w.mustPut("a", "body")
	w.mustPut("a/b", "other")
	out, err := w.ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{Bucket: new(bucket)})
	if err != nil || len(out.Contents) != 2 {
		t.Fatalf("ListObjectsV2 = %+v, %v", out, err)
	}
	for i, body := range []string{"body", "other"} {
		o := out.Contents[i]
		head, err := w.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: new(bucket), Key: o.Key})
		if err != nil {
			t.Fatal(err)
		}
		if *o.Size != int64(len(body)) || *o.ETag != etag(body) || !o.LastModified.Equal(*head.LastModified) {
			t.Errorf("listed %s, %d, %s, %v; head %+v", *o.Key, *o.Size, *o.ETag, o.LastModified, head)
		}
	}
}
