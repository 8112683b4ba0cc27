package input_test

import (
	"bytes"
	"context"
	"errors"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/google/go-cmp/cmp"

	"upwell/cmd/internal/awsconf"
	"upwell/cmd/internal/input"
	"upwell/sink/s3sink"
	"upwell/sink/s3sink/s3sim"
)

// bucketOf returns an S3 with one bucket, bkt, of these objects.
func bucketOf(t *testing.T, objects map[string]string) func(context.Context) (*s3.Client, error) {
	t.Helper()
	sim, err := s3sim.New(s3sim.Config{Dir: t.TempDir(), Keys: map[string]string{"AKID": "secret"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sim.Close() })
	srv := httptest.NewServer(sim)
	t.Cleanup(srv.Close)
	client := s3sink.NewClient(aws.Config{
		Region: "us-west-2", BaseEndpoint: &srv.URL, HTTPClient: srv.Client(),
		Credentials: credentials.NewStaticCredentialsProvider("AKID", "secret", ""),
	})
	if _, err := client.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: new("bkt")}); err != nil {
		t.Fatal(err)
	}
	for key, text := range objects {
		if _, err := client.PutObject(t.Context(), &s3.PutObjectInput{Bucket: new("bkt"), Key: &key, Body: strings.NewReader(text)}); err != nil {
			t.Fatalf("%s: %v", key, err)
		}
	}
	return func(context.Context) (*s3.Client, error) { return client, nil }
}

// TestObjects reads from S3 what it reads from a folder, under the same ids.
func TestObjects(t *testing.T) {
	parquet, err := os.ReadFile("testdata/hyparquet.parquet")
	if err != nil {
		t.Fatal(err)
	}
	store := bucketOf(t, map[string]string{
		"in/a.txt": "first", "in/a/z.md": "nested", "in/.hidden.txt": "x", "in/x.bin": "x", "inside/b.txt": "not in in/",
		"tables/1.csv": "id,x\nr1,2\nr2,3\n", "tables/2.parquet": string(parquet), "tables/_SUCCESS": "",
		"batch.jsonl": job("a", "") + "\n" + job("b", "") + "\n", "exact": "id;x\nr1;2\n",
	})
	for _, tt := range []struct {
		url, key, format, ids, run string
	}{
		{"s3://bkt/in/", "", "", "a.txt a/z.md", "in"},
		{"s3://bkt/in", "", "", "a.txt a/z.md", "in"},
		{"s3://bkt/in/**/*.md", "", "", "a/z.md", "in"},
		{"s3://bkt/in/a.txt", "", "", "a.txt", "a"},
		{"s3://bkt/in*/*.txt", "", "", "in/a.txt inside/b.txt", "bkt"},
		{"s3://bkt/tables/", "", "", "1.csv#row-1 1.csv#row-2 2.parquet#row-1 2.parquet#row-2 2.parquet#row-3", "tables"},
		{"s3://bkt/tables/", "id", "", "r1 r2 a b c", "tables"},
		{"s3://bkt/tables/2.parquet", "", "", "row-1 row-2 row-3", "2"},
		{"s3://bkt/exact", "id", "csv", "r1", "exact"},
	} {
		opts := input.Options{Template: template(t), S3: store, Format: tt.format}
		if tt.key != "" {
			opts.Key = []string{tt.key}
		}
		f, _ := checked(t, tt.url, opts)
		ids, _ := prompts(t, f)
		if diff := cmp.Diff(strings.Fields(tt.ids), ids); diff != "" || f.Run() != tt.run {
			t.Errorf("%s in run %s, want %s, ids (-want +got):\n%s", tt.url, f.Run(), tt.run, diff)
		}
		for line, err := range f.Lines() {
			if err != nil || !strings.HasPrefix(line.Place, "s3://bkt/") {
				t.Errorf("%s: a job is said to be of %s", tt.url, line.Place)
			}
		}
	}
	f, sum := checked(t, "s3://bkt/batch.jsonl", input.Options{S3: store})
	if n := len(jobsOf(t, f)); n != 2 || sum.Count != 2 {
		t.Errorf("batch file: %d jobs, %d on second reading, want 2", sum.Count, n)
	}
}

func TestObjectErrors(t *testing.T) {
	store := bucketOf(t, map[string]string{"in/a.csv": "a,b\n1\n", "in/bad.jsonl": "no job\n"})
	for url, want := range map[string]string{
		"s3://":                  "want s3://BUCKET/KEY",
		"s3://bkt/none/":         "s3://bkt/none/ holds no files",
		"s3://bkt/in":            "s3://bkt/in is a folder or several files: give --template",
		"s3://bkt/in/bad.jsonl":  "s3://bkt/in/bad.jsonl:1: not JSON",
		"s3://nobucket/in":       "no such bucket",
		"s3://nobucket/in/":      "no such bucket",
		"s3://bkt/in/a.csv":      "a.csv is a CSV: give --template",
		"s3://bkt/in/a.csv with": "s3://bkt/in/a.csv:2: 1 fields",
		"s3://bkt/none/ with":    "s3://bkt/none/ holds no files",
	} {
		opts := input.Options{S3: store}
		bare, with := strings.CutSuffix(url, " with")
		if with || strings.Contains(url, "none") {
			opts.Template = template(t)
		}
		if got := problems(t, bare, opts); !strings.Contains(got, want) {
			t.Errorf("%s: %s\nwant %q in it", url, got, want)
		}
	}
}

// TestFolderAndPrefixAgree has a run go on when its folder has moved to S3.
func TestFolderAndPrefixAgree(t *testing.T) {
	files := map[string]string{"a.txt": "1", "a/b.txt": "2", "a-/c.txt": "3", "B.txt": "4", "ü/d.txt": "5", "with space+plus.txt": "6"}
	objects := make(map[string]string)
	for name, text := range files {
		objects["deep/in/"+name] = text
	}
	_, local := checked(t, write(t, files), input.Options{Template: template(t)})
	f, remote := checked(t, "s3://bkt/deep/in", input.Options{Template: template(t), S3: bucketOf(t, objects)})
	if local.SHA256 != remote.SHA256 {
		ids, _ := prompts(t, f)
		t.Errorf("the jobs differ; those of S3 are %q", ids)
	}
}

// FuzzTables has whatever is in a file be rows or an error.
func FuzzTables(f *testing.F) {
	for _, name := range []string{"calc-utf16.csv", "excel.csv", "calc.csv.gz", "calc.csv.zst", "hyparquet.parquet", "duckdb.parquet"} {
		text, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			f.Fatal(err)
		}
		for _, format := range []string{"", "csv", "jsonl", "parquet"} {
			f.Add(text, format)
		}
	}
	f.Add([]byte("{\"a\":[1,{\"b\":null}]}\n{}"), "jsonl")
	f.Add([]byte("sep=;\na;b\n\"1\n\";2"), "")
	f.Fuzz(func(t *testing.T, text []byte, format string) {
		if !slices.Contains([]string{"", "csv", "jsonl", "parquet"}, format) {
			return
		}
		seen := make(map[string]bool)
		opts := input.Options{Template: template(t), Stdin: bytes.NewReader(text), Format: format}
		for rec, err := range input.Records(t.Context(), "-", opts) {
			if err != nil {
				break
			}
			if seen[rec.ID] || rec.ID == "" || rec.Place == "" || rec.Values == nil {
				t.Fatalf("record %+v, want an id of its own, a place and values", rec)
			}
			seen[rec.ID] = true
		}
	})
}

// TestKeysLikeGlobs finds an object whose key has in it what makes a glob.
func TestKeysLikeGlobs(t *testing.T) {
	store := bucketOf(t, map[string]string{"in/a[1].txt": "first", "in/a1.txt": "second", "in/[.txt": "third"})
	for url, want := range map[string]struct{ ids, run string }{
		"s3://bkt/in/a[1].txt": {"a[1].txt", "a-1"},
		"s3://bkt/in/[.txt":    {"[.txt", "default"},
		"s3://bkt/in/a[1].tx?": {"a1.txt", "in"},
	} {
		f, _ := checked(t, url, input.Options{Template: template(t), S3: store})
		if ids, _ := prompts(t, f); !slices.Equal(ids, strings.Fields(want.ids)) || f.Run() != want.run {
			t.Errorf("%s: %q in run %s, want %+v", url, ids, f.Run(), want)
		}
	}
}

// TestNoObject says what is not there.
func TestNoObject(t *testing.T) {
	store := bucketOf(t, map[string]string{"in/a.csv": "a\n1\n"})
	for url, want := range map[string]string{
		"s3://bkt/typo.jsonl": "there is no object s3://bkt/typo.jsonl and nothing beneath it: ",
		"s3://bkt/2026/":      "s3://bkt/2026/ holds no files: ",
		"s3://bkt/in/*.xyz":   "no object matches s3://bkt/in/*.xyz: ",
	} {
		for _, opts := range []input.Options{{S3: store}, {S3: store, Template: template(t)}} {
			if got := problems(t, url, opts); !strings.HasPrefix(got, want) {
				t.Errorf("%s: %s\nwant %q", url, got, want)
			}
		}
	}
}

// failing is what gives no credentials.
type failing struct{}

// Retrieve implements [aws.CredentialsProvider].
func (failing) Retrieve(context.Context) (aws.Credentials, error) {
	return aws.Credentials{}, &awsconf.CredentialsError{Err: errors.New("no EC2 IMDS role found"), Help: "set AWS_PROFILE"}
}

// TestAccess tells what is wrong with the way to S3 from what is wrong with the input,
// and says what to do.
func TestAccess(t *testing.T) {
	store := bucketOf(t, map[string]string{"in/a.txt": "x", "x.jsonl": "no job"})
	good, err := store(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	with := func(change func(*s3.Options)) func(context.Context) (*s3.Client, error) {
		return func(context.Context) (*s3.Client, error) {
			return s3.New(good.Options(), change, func(o *s3.Options) { o.Retryer = aws.NopRetryer{} }), nil
		}
	}
	for name, tt := range map[string]struct {
		url    string
		client func(context.Context) (*s3.Client, error)
		access bool
		want   string
	}{
		"credentials": {"s3://bkt/in/", with(func(o *s3.Options) { o.Credentials = aws.NewCredentialsCache(failing{}) }), true, "s3://bkt/in/: no AWS credentials: no EC2 IMDS role found: set AWS_PROFILE"},
		"other keys":  {"s3://bkt/in/", with(func(o *s3.Options) { o.Credentials = credentials.NewStaticCredentialsProvider("OTHER", "wrong", "") }), true, "credentials"},
		"network":     {"s3://bkt/in/*.txt", with(func(o *s3.Options) { o.BaseEndpoint = new("http://127.0.0.1:1") }), true, "S3 cannot be reached: check the network"},
		"bucket":      {"s3://nobucket/in/", store, true, "no such bucket: create it"},
		"a profile": {"s3://bkt/in/", func(context.Context) (*s3.Client, error) {
			return nil, errors.New("aws configuration: no profile x")
		}, true, "correct AWS_PROFILE"},
		"no object": {"s3://bkt/none", store, false, "there is no object"},
		"the input": {"s3://bkt/x.jsonl", store, false, "not JSON"},
	} {
		opts := input.Options{S3: tt.client}
		f, err := input.Open(t.Context(), tt.url, opts)
		if err == nil {
			_, err = input.Check(t.Context(), f, "r", anything)
			f.Close()
		}
		_, access := errors.AsType[*input.AccessError](err)
		if err == nil || access != tt.access || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, of the access: %v, want %q, %v", name, err, access, tt.want, tt.access)
		}
	}
}

// TestAccessIsLost marks what fails once the reading has begun.
func TestAccessIsLost(t *testing.T) {
	store := bucketOf(t, map[string]string{"in/a.txt": "x"})
	client, err := store(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	f, err := input.Open(t.Context(), "s3://bkt/in/", input.Options{Template: template(t), S3: func(context.Context) (*s3.Client, error) { return client, nil }})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, remove := range []func() error{
		func() error {
			_, err := client.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: new("bkt"), Key: new("in/a.txt")})
			return err
		},
		func() error {
			_, err := client.DeleteBucket(t.Context(), &s3.DeleteBucketInput{Bucket: new("bkt")})
			return err
		},
	} {
		if err := remove(); err != nil {
			t.Skip(err)
		}
	}
	_, err = input.Check(t.Context(), f, "r", anything)
	if _, ok := errors.AsType[*input.AccessError](err); !ok {
		t.Errorf("Check = %v, want an error of the access", err)
	}
}
