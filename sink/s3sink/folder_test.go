package s3sink_test

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/google/go-cmp/cmp"

	"upwell/sink/s3sink"
	"upwell/sink/s3sink/s3sim"
	"upwell/sink/table"
)

var _ table.Target = s3sink.Folder{}

func inProcessClient(t *testing.T) *http.Client {
	t.Helper()
	return &http.Client{Transport: inProcess{newSim(t, nil)}}
}

// newFolder returns a folder of a bucket that there is.
func newFolder(t *testing.T, hc *http.Client, prefix string) s3sink.Folder {
	t.Helper()
	client := s3sink.NewClient(aws.Config{
		Region: "us-west-2", BaseEndpoint: new("http://s3.test"), HTTPClient: hc,
		Credentials: credentials.NewStaticCredentialsProvider("AKID", "secret", ""),
	})
	_, err := client.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: new(bucket)})
	if exists := err != nil && strings.Contains(err.Error(), "BucketAlready"); err != nil && !exists {
		t.Fatal(err)
	}
	return s3sink.NewFolder(client, bucket, prefix)
}

func putFile(t *testing.T, f s3sink.Folder, name, text string) error {
	t.Helper()
	tmp, err := f.Temp()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tmp.WriteString(text); err != nil {
		t.Fatal(err)
	}
	return f.Put(t.Context(), name, tmp)
}

func namesIn(t *testing.T, f s3sink.Folder) (names []string) {
	t.Helper()
	for name, err := range f.Names(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func TestFolder(t *testing.T) {
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	hc := inProcessClient(t)
	beside := newFolder(t, hc, "lake/table-2")
	if err := putFile(t, beside, "part-00000.csv", "other"); err != nil {
		t.Fatal(err)
	}
	for _, prefix := range []string{"lake/table", "/lake/table/", ""} {
		f := newFolder(t, hc, prefix)
		if err := f.Check(t.Context()); err != nil {
			t.Fatal(err)
		}
		before := namesIn(t, f)
		for _, text := range []string{"one", strings.Repeat("two", 100_000)} {
			if err := putFile(t, f, "date=2026-11-24/part-00000.csv", text); err != nil {
				t.Fatal(err)
			}
			if got, err := f.Read(t.Context(), "date=2026-11-24/part-00000.csv"); err != nil || string(got) != text {
				t.Errorf("Read = %.20s, %v, want %.20s", got, err, text)
			}
		}
		if err := putFile(t, f, "_SUCCESS", "{}"); err != nil {
			t.Fatal(err)
		}
		want := append([]string{"_SUCCESS", "date=2026-11-24/part-00000.csv"}, before...)
		slices.Sort(want)
		if diff := cmp.Diff(want, namesIn(t, f)); diff != "" {
			t.Errorf("the names in %q differ (-want +got):\n%s", prefix, diff)
		}
		for _, name := range []string{"_SUCCESS", "date=2026-11-24/part-00000.csv", "none"} {
			if err := f.Remove(t.Context(), name); err != nil {
				t.Errorf("Remove(%s) = %v, want nil", name, err)
			}
		}
		if diff := cmp.Diff(before, namesIn(t, f)); diff != "" {
			t.Errorf("after Remove the names in %q differ (-want +got):\n%s", prefix, diff)
		}
		if _, err := f.Read(t.Context(), "_SUCCESS"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Read = %v, want one that says that it does not exist", err)
		}
	}
	if diff := cmp.Diff([]string{"part-00000.csv"}, namesIn(t, beside)); diff != "" {
		t.Errorf("the folder beside differs (-want +got):\n%s", diff)
	}
	if left, err := filepath.Glob(filepath.Join(tmp, "*")); err != nil || len(left) > 0 {
		t.Errorf("temporary files are left: %v", left)
	}
}

// TestFolderOfManyPages lists more than one answer holds.
func TestFolderOfManyPages(t *testing.T) {
	if testing.Short() {
		t.Skip("it puts 1,100 objects")
	}
	f := newFolder(t, inProcessClient(t), "many")
	for i := range 1100 {
		if err := putFile(t, f, fmt.Sprintf("part-%05d.csv", i), ""); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(namesIn(t, f)); n != 1100 {
		t.Errorf("%d names, want 1100", n)
	}
}

func TestFolderSaysWhatToAllow(t *testing.T) {
	var denied string
	sim := newSim(t, func(op, _, _ string) s3sim.Fault {
		if op == denied {
			return s3sim.Fault{Status: 403, Code: "AccessDenied"}
		}
		return s3sim.Fault{}
	})
	f := newFolder(t, &http.Client{Transport: inProcess{sim}}, "lake")
	for op, tt := range map[string]struct {
		do   func() error
		says string
	}{
		"PutObject":    {func() error { return putFile(t, f, "_SUCCESS", "") }, "allow s3:PutObject on " + bucket + "/lake/*"},
		"DeleteObject": {func() error { return f.Remove(t.Context(), "_SUCCESS") }, "allow s3:DeleteObject on " + bucket + "/lake/*"},
	} {
		denied = op
		if err := tt.do(); err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s = %v, want %q in it", op, err, tt.says)
		}
	}
}

// TestFolderTempIsPrivate has a temporary file that nobody else can read.
func TestFolderTempIsPrivate(t *testing.T) {
	f := newFolder(t, inProcessClient(t), "")
	tmp, err := f.Temp()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Drop(tmp)
	info, err := tmp.Stat()
	if err != nil || info.Mode().Perm()&0o077 != 0 {
		t.Errorf("the file's mode is %v, %v, want it for its owner only", info.Mode(), err)
	}
	if _, err := os.Stat(tmp.Name()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Stat(%s) = %v, want it without a name", tmp.Name(), err)
	}
}
