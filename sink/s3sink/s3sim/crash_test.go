package s3sim_test

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/google/go-cmp/cmp"

	"upwell/sink/s3sink/s3sim"
)

// victimDir names the environment variable that makes the test binary a
// process that writes objects until it is killed.
const victimDir = "S3SIM_TEST_VICTIM_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(victimDir); dir != "" {
		victim(dir)
	}
	os.Exit(m.Run())
}

// victim overwrites a few objects from several goroutines, forever, and
// prints each version that was acknowledged.
func victim(dir string) {
	sim, err := s3sim.New(s3sim.Config{Dir: dir})
	if err != nil {
		panic(err)
	}
	c := client("http://s3.test", &http.Client{Transport: inProcess{sim}})
	ctx := context.Background()
	if _, err := c.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: new(bucket)}); err != nil && code(err) != "BucketAlreadyExists" {
		panic(err)
	}
	base, err := strconv.Atoi(os.Getenv("S3SIM_TEST_BASE"))
	if err != nil {
		panic(err)
	}
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for n := base; ; n++ {
				key := crashKeys[i*2+n%2]
				body := version(key, n)
				if _, err := c.PutObject(ctx, &s3.PutObjectInput{
					Bucket: new(bucket), Key: &key, Body: strings.NewReader(body),
					Metadata: map[string]string{"sum": sum(body)},
				}); err != nil {
					panic(err)
				}
				fmt.Println(i*2+n%2, n)
			}
		})
	}
	wg.Wait()
}

// crashKeys are what victims write, two for each of four goroutines.
var crashKeys = []string{"a", "x/0", "a/b", "x/1", "odd//c", "x/y/2", "deep/er/d", "x/y/z/3"}

// version is the body of the nth version of key. Its length varies, and
// versions of equal length differ.
func version(key string, n int) string {
	return fmt.Sprintf("%s %d\n%s", key, n, strings.Repeat(strconv.Itoa(n%10), n%3*4000))
}

func sum(s string) string {
	h := sha256.Sum256([]byte(s))
	return hex.EncodeToString(h[:])
}

// TestKill breaks if the body is renamed before its metadata, if either is
// written in place, or if the metadata of the old body is not carried along.
func TestKill(t *testing.T) {
	dir := t.TempDir()
	rounds := 8
	if testing.Short() {
		rounds = 3
	}
	acked := make([]int, len(crashKeys))
	for round := range rounds {
		runVictim(t, dir, round*100_000, rand.IntN(300), acked)

		w := newWorld(t, s3sim.Config{Dir: dir})
		if got := names(t, filepath.Join(w.dir, ".s3sim/tmp")); len(got) > 0 {
			t.Errorf("temporary files survive: %q", got)
		}
		for _, key := range w.keys(&s3.ListObjectsV2Input{}) {
			out, body, err := w.get(key)
			if err != nil {
				t.Fatal(err)
			}
			if out.Metadata["sum"] != sum(body) || *out.ETag != etag(body) {
				t.Errorf("round %d: %q is torn: %d bytes, %+v", round, key, len(body), out.Metadata)
			}
		}
		for i, key := range crashKeys {
			n := 0
			_, body, err := w.get(key)
			if err == nil {
				line, _, _ := strings.Cut(strings.TrimPrefix(body, key+" "), "\n")
				n, err = strconv.Atoi(line)
			}
			if acked[i] > 0 && (err != nil || n < acked[i] || body != version(key, n)) {
				t.Errorf("round %d: %q has version %d, %v; %d was acknowledged", round, key, n, err, acked[i])
			}
		}
	}
}

// runVictim runs a victim until it has written about count objects, kills it,
// and notes in acked which versions it said were stored.
func runVictim(t *testing.T, dir string, base, count int, acked []int) {
	t.Helper()
	ctx, kill := context.WithCancel(t.Context()) // CommandContext kills with SIGKILL
	defer kill()
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Env = append(os.Environ(), victimDir+"="+dir, "S3SIM_TEST_BASE="+strconv.Itoa(base))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for n := 0; lines.Scan(); n++ {
		var i, v int
		if _, err := fmt.Sscan(lines.Text(), &i, &v); err != nil {
			break // the last line may be cut short
		}
		acked[i] = max(acked[i], v)
		if n == count {
			kill()
		}
	}
	_ = cmd.Wait()
	if cmd.ProcessState.ExitCode() >= 0 {
		t.Fatalf("victim exited by itself: %v", cmd.ProcessState)
	}
}

// TestLeftovers opens folders as a crash at each step of a write leaves them.
func TestLeftovers(t *testing.T) {
	dir := t.TempDir()
	w := newWorld(t, s3sim.Config{Dir: dir})
	meta := func(v string) func(*s3.PutObjectInput) {
		return func(in *s3.PutObjectInput) { in.Metadata = map[string]string{"v": v} }
	}
	w.mustPut("a", "old", meta("old"))
	before := snapshot(t, w.dir)
	w.mustPut("a", "new", meta("new"))
	after := snapshot(t, w.dir)
	w.mustPut("b/c", "x", meta("x"))
	w.mustPut("odd//", "x", meta("x"))

	check := func(name, body, v string) {
		t.Helper()
		w = newWorld(t, s3sim.Config{Dir: dir})
		out, got, err := w.get("a")
		if err != nil || got != body || out.Metadata["v"] != v || *out.ETag != etag(body) {
			t.Errorf("%s: %q, %+v, %v, want %q with metadata %q", name, got, out, err, body, v)
		}
		if d := cmp.Diff([]string{"a", "b/c", "odd//"}, w.keys(&s3.ListObjectsV2Input{})); d != "" {
			t.Errorf("%s: keys (-want +got):\n%s", name, d)
		}
		w.wantBody("b/c", "x")
		w.wantBody("odd//", "x")
	}
	check("whole", "new", "new")

	var metaFile string
	for name := range before {
		if strings.HasPrefix(name, ".s3sim/meta/") {
			metaFile = name
		}
	}
	// Metadata renamed, body not yet.
	before.restore(t, w.dir, "a")
	check("old body, new metadata", "old", "old")
	// A stray temporary file.
	if err := os.WriteFile(filepath.Join(w.dir, ".s3sim/tmp/7"), []byte("torn"), 0o600); err != nil {
		t.Fatal(err)
	}
	check("temporary file", "old", "old")
	// Metadata that describes neither.
	after.restore(t, w.dir, "a")
	before.restore(t, w.dir, metaFile)
	check("new body, old metadata", "new", "")
	for _, torn := range []string{"", "{", `{"key":"a","objects":[{"size":3}]}`} {
		if err := os.WriteFile(filepath.Join(w.dir, metaFile), []byte(torn), 0o600); err != nil {
			t.Fatal(err)
		}
		check("metadata "+torn, "new", "")
	}
	w.mustPut("a", "healed", meta("healed"))
	check("healed", "healed", "healed")
}

// TestSameInstant crashes between the two renames of a write that came at the
// same time as the one before, to the microsecond.
func TestSameInstant(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		sim, err := s3sim.New(s3sim.Config{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		defer sim.Close()
		w := &world{T: t, Client: client("http://s3.test", &http.Client{Transport: inProcess{sim}}), dir: filepath.Join(dir, bucket)}
		if _, err := w.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: new(bucket)}); err != nil {
			t.Fatal(err)
		}
		for _, body := range []string{"one", "two", "six"} {
			before := snapshot(t, w.dir)
			w.mustPut("a", body, func(in *s3.PutObjectInput) { in.Metadata = map[string]string{"body": body} })
			if body == "one" {
				continue
			}
			after := snapshot(t, w.dir)
			before.restore(t, w.dir, "a")
			if out, got, err := w.get("a"); err != nil || out.Metadata["body"] != got || *out.ETag != etag(got) || got == body {
				t.Errorf("before %q: %q, %+v, %v", body, got, out, err)
			}
			after.restore(t, w.dir, "a")
			if out, got, err := w.get("a"); err != nil || out.Metadata["body"] != got || got != body {
				t.Errorf("after %q: %q, %+v, %v", body, got, out, err)
			}
		}
	})
}

// files are the contents of a folder.
type files map[string]file

type file struct {
	data []byte
	time time.Time
}

// snapshot reads all files in dir.
func snapshot(t *testing.T, dir string) files {
	t.Helper()
	all := files{}
	err := fs.WalkDir(os.DirFS(dir), ".", func(p string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		data, err := os.ReadFile(filepath.Join(dir, p))
		all[p] = file{data, info.ModTime()}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// restore puts one file back, with its time.
func (f files) restore(t *testing.T, dir, name string) {
	t.Helper()
	p := filepath.Join(dir, name)
	if err := os.WriteFile(p, f[name].data, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(p, f[name].time, f[name].time); err != nil {
		t.Fatal(err)
	}
}
