package integration

import (
	"crypto/md5"
	"encoding/csv"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/google/go-cmp/cmp"

	"upwell/integration/fixture"
	"upwell/jobs"
	"upwell/sink"
	"upwell/sink/s3sink"
	"upwell/sink/s3sink/s3sim"
)

var (
	exportRows = flag.Int("export.rows", 300, "how many rows TestExportLarge exports")
	exportSize = flag.Int("export.size", 3000, "bytes of answer in each of them")
)

// reviewSchema has a field of each type that a column can have.
const reviewSchema = `{"type":"object","additionalProperties":false,"properties":{
	"risk":{"enum":["low","high",null]},"amount":{"type":["integer","null"]},"score":{"type":"number"},"ok":{"type":"boolean"},
	"due":{"type":"string","format":"date"},"signed":{"anyOf":[{"type":"string","format":"date-time"},{"type":"null"}]},
	"tags":{"type":"array","items":{"type":"string"}},"counts":{"type":["array","null"],"items":{"type":["integer","null"]}},
	"party":{"$ref":"#/$defs/party"},"others":{"type":"array","items":{"$ref":"#/$defs/party"}},"note":{"type":"string"},"model":{"type":"string"}},
	"$defs":{"party":{"type":"object","properties":{"name":{"type":"string"},"address":{"type":"object","properties":{"city":{"type":"string"}}}}}}}`

// A review is row i of a run. Its fields are what a reader ought to find.
type review struct {
	i      int
	failed bool // every tenth
	output map[string]any
}

func reviewOf(i int) review {
	out := map[string]any{
		"risk": []any{"low", "high", nil}[i%3], "amount": any(int64(i) * 10_000_000_019), "score": float64(i)/8 - 3, "ok": i%2 == 0,
		"due": time.Unix(0, 0).UTC().AddDate(0, 0, i-500).Format(time.DateOnly), "signed": any(signed(i).In(time.FixedZone("", 3600)).Format(time.RFC3339Nano)),
		"tags": []string{"a", "b", "c"}[:i%4], "counts": any([]any{i, nil, -i}), "party": map[string]any{"name": "N", "address": map[string]any{"city": "Zürich"}},
		"others": []any{map[string]any{"name": "O"}}, "note": "a \"note\",\nof two lines; ☃ <&>", "model": "T",
	}
	if i%7 == 0 {
		out["amount"], out["signed"], out["counts"] = nil, nil, nil
		out["party"] = map[string]any{"name": "only"}
	}
	return review{i: i, failed: i%10 == 3, output: out}
}

func signed(i int) time.Time { return time.UnixMicro(int64(i-100) * 86_400_000_123).UTC() }

func (r review) id() string { return fmt.Sprintf("msa-%06d", r.i) }

// finished spreads the rows over two days.
func (r review) finished() time.Time {
	return time.Date(2026, 11, 24+r.i%2, 1, 2, 3, 4000, time.UTC)
}

// lines returns what is stored of the job.
func (r review) lines(size int) map[sink.Kind]jobs.Result {
	k := jobs.Key{Run: "nightly", CustomID: r.id()}
	line := jobs.Result{ID: k.RequestID(), CustomID: r.id(), Upwell: jobs.Record{
		Run: k.Run, Model: "xai.grok-4.3", Tier: "flex", Region: "us-west-2", Usage: jobs.Usage{InputTokens: int64(r.i), OutputTokens: 7},
		CostUSD: 0.25, Attempts: make([]jobs.Attempt, 1+r.i%3), InputSHA256: "00ff", Finished: r.finished(),
	}}
	failed := line
	failed.Error = &jobs.Error{Code: jobs.Truncated, Message: "the answer ended at its token limit"}
	if r.failed {
		return map[sink.Kind]jobs.Result{sink.Errors: failed}
	}
	line.Upwell.Output, _ = json.Marshal(r.output)
	line.Response = &jobs.Response{StatusCode: 200, RequestID: "req", Body: json.RawMessage(`{"text":"` + strings.Repeat("x", size) + `"}`)}
	all := map[sink.Kind]jobs.Result{sink.Results: line}
	if r.i%10 == 4 {
		all[sink.Errors] = failed // of an earlier attempt: history
	}
	return all
}

// A library is a bucket with a run in it.
type library struct {
	dir   string // of the bucket
	env   []string
	reads *sluice // of results
}

// newLibrary stores n reviews as run nightly, as files, with size bytes of answer each. Their index
// is in the order of their numbers.
func newLibrary(t *testing.T, n, size int) *library {
	t.Helper()
	dir := t.TempDir()
	sim, err := s3sim.New(s3sim.Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	l := &library{dir: filepath.Join(dir, "reviews"), reads: newSluice()}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.Contains(r.URL.Path, "/results/") || l.reads.pass(r.Context()) {
			sim.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(func() { srv.Close(); sim.Close() })
	l.env = []string{"AWS_ENDPOINT_URL_S3=" + srv.URL, "AWS_REGION=us-west-2", "AWS_ACCESS_KEY_ID=local", "AWS_SECRET_ACCESS_KEY=local", "UPWELL_BUCKET=reviews"}
	client := s3sink.NewClient(aws.Config{Region: "us-west-2", BaseEndpoint: &srv.URL, Credentials: credentials.NewStaticCredentialsProvider("local", "local", "")})
	if _, err := client.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: aws.String("reviews")}); err != nil {
		t.Fatal(err)
	}
	m := sink.Manifest{Run: "nightly", Count: n, InputSHA256: "00ff00ff00ff00ff", IDParts: sink.IDParts(n), Schemas: map[string]json.RawMessage{"review": json.RawMessage(reviewSchema)}}
	store := s3sink.New(client, "reviews", "")
	var list []string
	for i := range n {
		r := reviewOf(i)
		for kind, line := range r.lines(size) {
			l.put(t, kind, jobs.Key{Run: m.Run, CustomID: r.id()}, line)
		}
		if list = append(list, r.id()); len(list) == sink.IDsPerPart || i == n-1 {
			if err := store.PutIDs(t.Context(), m.Run, m.InputSHA256, i/sink.IDsPerPart, list); err != nil {
				t.Fatal(err)
			}
			list = nil
		}
	}
	if _, err := store.PutManifest(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	return l
}

// put stores a line without a request, as there may be very many.
func (l *library) put(t *testing.T, kind sink.Kind, k jobs.Key, r jobs.Result) {
	t.Helper()
	text, err := sink.Encode(r)
	if err != nil {
		t.Fatal(err)
	}
	file := l.path(kind, k)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, text, 0o644); err != nil {
		t.Fatal(err)
	}
}

func (l *library) path(kind sink.Kind, k jobs.Key) string {
	return filepath.Join(l.dir, filepath.FromSlash(kind.Key("", k)))
}

// export runs the verb and wants an exit code of it.
func (l *library) export(t *testing.T, code int, args ...string) *process {
	t.Helper()
	p := launch(t, l.env, append([]string{"export"}, args...)...)
	p.exits(t, code)
	return p
}

// TestExportLines looks for each job once, byte for byte, and in order.
func TestExportLines(t *testing.T) {
	t.Parallel()
	const n = 200
	l, out := newLibrary(t, n, 100), filepath.Join(t.TempDir(), "out.jsonl")
	p := l.export(t, 0, "nightly", "-o", out)
	if want := "200 rows (180 answered, 20 failed)"; !strings.Contains(p.stdout.String(), want) {
		t.Errorf("export says %q, want %q in it", p.stdout.String(), want)
	}
	got := readLines(t, out)
	var want []string
	for i := range n {
		want = append(want, l.line(t, i))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the lines differ (-want +got):\n%s", diff)
	}
	l.export(t, 0, "nightly", "-o", out, "--unordered")
	got = readLines(t, out)
	slices.Sort(got)
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the unordered lines differ (-want +got):\n%s", diff)
	}
	l.export(t, 0, "nightly", "-o", out, "--answered-only")
	if got := readLines(t, out); len(got) != 180 {
		t.Errorf("%d lines with --answered-only, want 180", len(got))
	}
}

// line returns the line that job i ended with.
func (l *library) line(t *testing.T, i int) string {
	t.Helper()
	r := reviewOf(i)
	kind := sink.Results
	if r.failed {
		kind = sink.Errors
	}
	text, err := os.ReadFile(l.path(kind, jobs.Key{Run: "nightly", CustomID: r.id()}))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSuffix(string(text), "\n")
}

func readLines(t *testing.T, file string) []string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
}

// TestExportCSV reads a table back.
func TestExportCSV(t *testing.T) {
	t.Parallel()
	l, out := newLibrary(t, 20, 100), filepath.Join(t.TempDir(), "out.csv")
	l.export(t, 0, "nightly", "-o", out, "--columns", "custom_id,status,amount,signed,tags,city=party_address_city,first=output.others[0].name,note,why=error_code")
	f, err := os.Open(out)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got, err := csv.NewReader(f).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	want := [][]string{{"custom_id", "status", "amount", "signed", "tags", "city", "first", "note", "why"}}
	for i := range 20 {
		row := []string{reviewOf(i).id(), "failed", "", "", "", "", "", "", "truncated"}
		if r := reviewOf(i); !r.failed {
			tags, _ := json.Marshal(r.output["tags"])
			row = []string{r.id(), "answered", fmt.Sprint(int64(i) * 10_000_000_019), signed(i).Format("2006-01-02T15:04:05.000000Z"), string(tags), "Zürich", "O", r.output["note"].(string), ""}
			if i%7 == 0 {
				row[2], row[3], row[5] = "", "", ""
			}
		}
		want = append(want, row)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the rows differ (-want +got):\n%s", diff)
	}
}

// TestExportUnbalanced takes a result away.
func TestExportUnbalanced(t *testing.T) {
	t.Parallel()
	l, dir := newLibrary(t, 50, 10), t.TempDir()
	out := filepath.Join(dir, "table") + "/"
	if err := os.Remove(l.path(sink.Results, jobs.Key{Run: "nightly", CustomID: "msa-000010"})); err != nil {
		t.Fatal(err)
	}
	p := l.export(t, 1, "nightly", "-o", out, "-f", "csv")
	p.says(t, "standard error", p.stderr.String(), []string{`missing +1`, `msa-000010`, `--allow-partial`, `nothing was written`})
	if made := filesIn(t, dir); len(made) > 0 {
		t.Errorf("a refused export left %v, want nothing", made)
	}
	p = l.export(t, 0, "nightly", "-o", out, "-f", "csv", "--allow-partial")
	p.says(t, "standard output", p.stdout.String(), []string{`49 rows`, `not all of the run: 50 jobs were submitted`})
	var s struct {
		Partial               bool
		Rows, Failed, Missing int
	}
	text, err := os.ReadFile(out + "_SUCCESS")
	if err != nil || json.Unmarshal(text, &s) != nil || !s.Partial || s.Rows != 49 || s.Failed != 5 || s.Missing != 1 {
		t.Errorf("_SUCCESS is %s, %v, want it to say 49 rows, 5 of them failed, and 1 missing", text, err)
	}

	// Of a run without manifest nobody can say what is missing.
	if err := os.Remove(filepath.Join(l.dir, "runs/nightly/manifest.json")); err != nil {
		t.Fatal(err)
	}
	l.export(t, 3, "nightly", "-o", out, "-f", "csv", "--allow-partial")
	p = l.export(t, 0, "nightly", "-o", out, "-f", "csv", "--allow-partial", "--unordered")
	p.says(t, "standard output", p.stdout.String(), []string{`49 rows`, `nothing here says how many jobs were submitted`})
	l.export(t, 2, "mightly", "-o", filepath.Join(dir, "other.csv"), "--allow-partial", "--unordered")
}

// TestExportOfNoAnswer has a line in the place of a result that is none.
func TestExportOfNoAnswer(t *testing.T) {
	t.Parallel()
	l, out := newLibrary(t, 20, 10), filepath.Join(t.TempDir(), "out.csv")
	if err := os.WriteFile(l.path(sink.Results, jobs.Key{Run: "nightly", CustomID: "msa-000001"}), []byte(`{"custom_id":"msa-000001"}`), 0o644); err != nil {
		t.Fatal(err)
	}
	p := l.export(t, 1, "nightly", "-o", out)
	p.says(t, "standard error", p.stderr.String(), []string{`the line has no response: see upwell verify nightly --read`})
	if _, err := os.Stat(out); err == nil {
		t.Error("there is a file, want none")
	}
}

// TestExportPartial is of runs of which less is known, or more is stored, than ought to be.
func TestExportPartial(t *testing.T) {
	t.Parallel()
	l, out := newLibrary(t, 20, 10), filepath.Join(t.TempDir(), "out.csv")
	l.put(t, sink.Results, jobs.Key{Run: "nightly", CustomID: "stray"}, reviewOf(1).lines(10)[sink.Results])
	p := l.export(t, 0, "nightly", "-o", out, "--allow-partial")
	p.says(t, "standard output", p.stdout.String(), []string{`20 rows`, `no job is missing, but the account does not balance: see upwell verify nightly`})
	if err := os.RemoveAll(filepath.Join(l.dir, "runs/nightly/ids")); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(l.path(sink.Results, jobs.Key{Run: "nightly", CustomID: "stray"})); err != nil {
		t.Fatal(err)
	}
	p = l.export(t, 0, "nightly", "-o", out, "--allow-partial", "--unordered")
	p.says(t, "standard output", p.stdout.String(), []string{`20 rows`, `20 jobs were submitted, and nothing here says which`})
}

// TestExportChecksFirst has mistakes that show before the account is drawn up, which
// would not balance.
func TestExportChecksFirst(t *testing.T) {
	t.Parallel()
	l, dir := newLibrary(t, 10, 10), t.TempDir()
	if err := os.Remove(l.path(sink.Results, jobs.Key{Run: "nightly", CustomID: "msa-000000"})); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "mine.txt"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		code       int
		says       string
		out, extra string
	}{
		{2, `there is no "nope" in output`, filepath.Join(dir, "new") + "/", "--columns=output.nope"},
		{2, `mine\.txt`, dir, "-q"},
		{3, `nowhere`, "s3://nowhere/x", "-q"},
		{2, `mine\.txt is a file`, filepath.Join(dir, "mine.txt") + "/", "-q"},
		{1, `does not balance`, filepath.Join(dir, "new") + "/", "-q"},
	} {
		p := l.export(t, tt.code, "nightly", "-f", "csv", "-o", tt.out, tt.extra)
		p.says(t, "standard error", p.stderr.String(), []string{tt.says})
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("refused exports left %v, %v, want what was there", entries, err)
	}
}

// TestExportTo writes to what is no file that could be replaced.
func TestExportTo(t *testing.T) {
	t.Parallel()
	l, dir := newLibrary(t, 20, 10), t.TempDir()
	for _, out := range []string{"-", "/dev/stdout"} {
		p := l.export(t, 0, "nightly", "-o", out, "-f", "csv", "--columns", "custom_id")
		if got := strings.Count(p.stdout.String(), "\n"); got != 21 || !strings.HasPrefix(p.stdout.String(), "custom_id\nmsa-000000\n") {
			t.Errorf("-o %s writes %d lines, want a header and 20: %s", out, got, p.stdout.String())
		}
		p.says(t, "standard error", p.stderr.String(), []string{`20 rows`})
	}
	l.export(t, 0, "nightly", "-o", os.DevNull, "-f", "csv")
	if info, err := os.Stat(os.DevNull); err != nil || info.Mode().IsRegular() {
		t.Fatalf("%s is %v, %v", os.DevNull, info.Mode(), err)
	}

	pipe := filepath.Join(dir, "pipe.csv")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	read := make(chan int) // the reader sends
	go func() {
		text, _ := os.ReadFile(pipe)
		read <- strings.Count(string(text), "\nmsa-")
	}()
	l.export(t, 0, "nightly", "-o", pipe, "--columns", "custom_id")
	if got := <-read; got != 20 {
		t.Errorf("%d rows came through the pipe, want 20", got)
	}

	file, link := filepath.Join(dir, "deep", "file.csv"), filepath.Join(dir, "link.csv")
	if err := errors.Join(os.Mkdir(filepath.Dir(file), 0o755), os.WriteFile(file, nil, 0o644), os.Symlink("deep/file.csv", link)); err != nil {
		t.Fatal(err)
	}
	l.export(t, 0, "nightly", "-o", link, "--columns", "custom_id")
	if to, err := os.Readlink(link); err != nil || to != "deep/file.csv" || len(readLines(t, file)) != 21 {
		t.Errorf("the link leads to %q, %v, and the file has %d lines, want it as it was, and 21", to, err, len(readLines(t, file)))
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	p := l.export(t, 2, "nightly", "-o", link)
	p.says(t, "standard error", p.stderr.String(), []string{`link\.csv is a link to deep/file\.csv, which is not there`})
}

// TestExportMisfit has a column whose type is wrong.
func TestExportMisfit(t *testing.T) {
	t.Parallel()
	l, dir := newLibrary(t, 10, 10), t.TempDir()
	p := l.export(t, 1, "nightly", "-o", dir, "-f", "csv", "--columns", "custom_id,output.note:int64")
	p.says(t, "standard error", p.stderr.String(), []string{`job "msa-000000": a string.* does not fit into column note of type int64`, `note=output\.note:string`})
	if diff := cmp.Diff([]string{"_INCOMPLETE"}, filesIn(t, dir)); diff != "" {
		t.Errorf("the folder has other files (-want +got):\n%s", diff)
	}
	p = l.export(t, 0, "nightly", "-o", dir, "-f", "csv", "--columns", "custom_id,n=response.none")
	p.says(t, "standard error", p.stderr.String(), []string{`column n is null in every row`})
}

// TestExportInterrupted presses Ctrl-C in the middle.
func TestExportInterrupted(t *testing.T) {
	t.Parallel()
	l, dir := newLibrary(t, 300, 10), t.TempDir()
	l.reads.shutAfter(20) // it is not done before it is interrupted
	p := launch(t, l.env, "export", "nightly", "-o", dir, "-f", "parquet")
	eventually(t, "the export to be under way", func() bool { return slices.Contains(filesIn(t, dir), "_INCOMPLETE") })
	p.signal(t, os.Interrupt)
	p.exits(t, 130)
	p.says(t, "standard error", p.stderr.String(), []string{`interrupted: without _SUCCESS`})
	if diff := cmp.Diff([]string{"_INCOMPLETE"}, filesIn(t, dir)); diff != "" {
		t.Errorf("after an interrupt the folder has other files (-want +got):\n%s", diff)
	}
	l.reads.open()
	l.export(t, 0, "nightly", "-o", dir, "-f", "parquet")
	if diff := cmp.Diff([]string{"_SUCCESS", "part-00000.parquet"}, filesIn(t, dir)); diff != "" {
		t.Errorf("after another export the folder has other files (-want +got):\n%s", diff)
	}
}

// TestExportWhileItChanges takes a result away that the account has seen.
func TestExportWhileItChanges(t *testing.T) {
	t.Parallel()
	l, dir := newLibrary(t, 300, 10), t.TempDir()
	l.reads.shutAfter(20) // it is not done before the result is gone
	p := launch(t, l.env, "export", "nightly", "-o", dir, "-f", "jsonl")
	eventually(t, "the export to be under way", func() bool { return slices.Contains(filesIn(t, dir), "_INCOMPLETE") })
	if err := os.Remove(l.path(sink.Results, jobs.Key{Run: "nightly", CustomID: "msa-000299"})); err != nil {
		t.Fatal(err)
	}
	l.reads.open()
	p.exits(t, 1)
	p.says(t, "standard error", p.stderr.String(), []string{`299 rows were read, but the account has 300 jobs`})
	if diff := cmp.Diff([]string{"_INCOMPLETE"}, filesIn(t, dir)); diff != "" {
		t.Errorf("the folder has other files (-want +got):\n%s", diff)
	}
}

// TestExportQueued has jobs that nobody has worked on.
func TestExportQueued(t *testing.T) {
	t.Parallel()
	s, dir := newStack(t), t.TempDir()
	s.submit(t, "nightly", fixture.IDs("job", 5))
	p := s.launch(t, "export", "nightly", "-o", filepath.Join(dir, "out.csv"))
	p.exits(t, 1)
	p.says(t, "standard error", p.stderr.String(), []string{`still queued +5`, `5 jobs of run nightly are still queued: wait for them`})
	if made := filesIn(t, dir); len(made) > 0 {
		t.Errorf("a refused export left %v, want nothing", made)
	}
}

// TestExportMisplaced has a line in the place of another one.
func TestExportMisplaced(t *testing.T) {
	t.Parallel()
	l, out := newLibrary(t, 10, 10), filepath.Join(t.TempDir(), "out.jsonl")
	l.put(t, sink.Results, jobs.Key{Run: "nightly", CustomID: "msa-000001"}, reviewOf(2).lines(10)[sink.Results])
	if err := os.WriteFile(out, []byte("old"), 0o644); err != nil {
		t.Fatal(err)
	}
	p := l.export(t, 1, "nightly", "-o", out)
	p.says(t, "standard error", p.stderr.String(), []string{`job "msa-000001": the line in its place is of "msa-000002": see upwell verify nightly --read`})
	if got, err := os.ReadFile(out); err != nil || string(got) != "old" {
		t.Errorf("the file has %q, %v, want what was there", got, err)
	}
	p = l.export(t, 1, "nightly", "-o", out, "--unordered")
	p.says(t, "standard error", p.stderr.String(), []string{`msa-000001\.json: not a line of this place: it is of job "msa-000002": see upwell verify nightly --read`})

	if err := os.WriteFile(l.path(sink.Results, jobs.Key{Run: "nightly", CustomID: "msa-000001"}), []byte(`{"custom_id":"msa-000001"`), 0o644); err != nil {
		t.Fatal(err)
	}
	p = l.export(t, 1, "nightly", "-o", out)
	p.says(t, "standard error", p.stderr.String(), []string{`job "msa-000001": the stored line is not a JSON object.*: see upwell verify nightly --read`})
	p = l.export(t, 1, "nightly", "-o", out, "--unordered")
	p.says(t, "standard error", p.stderr.String(), []string{`msa-000001\.json: not a line.*: see upwell verify nightly --read`})
}

// TestExportAgain exports over what is there.
func TestExportAgain(t *testing.T) {
	t.Parallel()
	l, dir := newLibrary(t, 300, 16_000), t.TempDir()
	l.export(t, 0, "nightly", "-o", dir, "-f", "jsonl", "--max-file-mib", "1")
	if got := filesIn(t, dir); len(got) < 6 {
		t.Errorf("4 MiB in files of 1 MiB are %v, want more of them", got)
	}
	l.export(t, 0, "nightly", "-o", dir, "-f", "parquet")
	if diff := cmp.Diff([]string{"_SUCCESS", "part-00000.parquet"}, filesIn(t, dir)); diff != "" {
		t.Errorf("after another export there are other files (-want +got):\n%s", diff)
	}
	if err := os.WriteFile(filepath.Join(dir, "mine.txt"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	p := l.export(t, 2, "nightly", "-o", dir, "-f", "parquet")
	p.says(t, "standard error", p.stderr.String(), []string{`mine\.txt`})
	if got := filesIn(t, dir); len(got) != 3 {
		t.Errorf("a refused export left %v, want what was there", got)
	}
	l.export(t, 0, "nightly", "-o", "s3://reviews/tables/", "-f", "csv", "--partition-by", "run,date", "--max-file-mib", "1")
	want := []string{"_SUCCESS", "date=2026-11-24/part-00000.csv", "date=2026-11-25/part-00001.csv"}
	if diff := cmp.Diff(want, filesIn(t, filepath.Join(l.dir, "tables/run=nightly"))); diff != "" {
		t.Errorf("the bucket has other files (-want +got):\n%s", diff)
	}
	l.export(t, 0, "nightly", "-o", "s3://reviews/tables", "-f", "jsonl", "--partition-by", "run")
	if diff := cmp.Diff([]string{"_SUCCESS", "part-00000.jsonl"}, filesIn(t, filepath.Join(l.dir, "tables/run=nightly"))); diff != "" {
		t.Errorf("after another export the bucket has other files (-want +got):\n%s", diff)
	}
}

// filesIn lists what is in a folder, by paths from there.
func filesIn(t *testing.T, dir string) (names []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			path, err = filepath.Rel(dir, path)
			names = append(names, filepath.ToSlash(path))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// TestExportLarge measures an export of many rows. With the flag's default it says
// little; the figures of the README are those of
//
//	go test ./integration -run TestExportLarge -v -timeout 30m -export.rows 200000
func TestExportLarge(t *testing.T) {
	t.Parallel()
	l := newLibrary(t, *exportRows, *exportSize)
	for _, format := range []string{"jsonl", "csv", "parquet"} {
		p := launch(t, l.env, "export", "nightly", "-o", filepath.Join(t.TempDir(), "out."+format))
		peak := p.peak()
		p.exits(t, 0)
		state := p.cmd.ProcessState
		t.Logf("%s: %d MiB peak, %.2f ms CPU a row: %s", format, peak>>20, 1e3*(state.UserTime()+state.SystemTime()).Seconds()/float64(*exportRows), strings.TrimSpace(p.stdout.String()))
		if peak > 300<<20 {
			t.Errorf("%s: the peak was %d MiB, want 300 at most, however many rows there are", format, peak>>20)
		}
	}
}

// peak waits for the process to end and returns the most memory that it had resident,
// in bytes, as far as the system tells. What a parent is told of its child's peak is no
// less than its own was.
func (p *process) peak() (peak int64) {
	t := time.NewTicker(20 * time.Millisecond)
	defer t.Stop()
	for {
		status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid)) // gone, or not this system's
		if _, after, ok := strings.Cut(string(status), "VmHWM:"); ok {
			kib, _ := strconv.ParseInt(strings.Fields(after)[0], 10, 64)
			peak = max(peak, kib<<10)
		}
		select {
		case <-p.ended:
			return peak
		case <-t.C:
		}
	}
}

// readers is the folder that the packages of infra/tools/parquet are installed in:
//
//	cp infra/tools/parquet/package*.json DIR && npm ci --ignore-scripts --prefix DIR
const readers = "UPWELL_PARQUET_READERS"

// TestParquetReaders has other libraries than the writer's read what was exported.
func TestParquetReaders(t *testing.T) {
	t.Parallel()
	if os.Getenv(readers) == "" {
		t.Skipf("%s is not set: install the readers of infra/tools/parquet with npm, and say where", readers)
	}
	const n = 1200
	l, dir := newLibrary(t, n, 100), t.TempDir()
	file := filepath.Join(dir, "out.parquet")
	l.export(t, 0, "nightly", "-o", file)
	l.export(t, 0, "nightly", "-o", dir+"/hive/", "-f", "parquet", "--partition-by", "run,date")

	hive := `read_parquet('` + dir + `/hive/**/*.parquet', hive_partitioning = true)`
	sum := `select md5(string_agg(` + digestSQL + `, chr(10) order by custom_id)) as sum, count(*)::int as rows from `
	meta := `from parquet_metadata('` + file + `')`
	ask := []question{
		{SQL: `select column_name || ' ' || column_type as c from (describe '` + file + `')`},
		{SQL: sum + `'` + file + `'`},
		{SQL: sum + hive},
		{SQL: `select custom_id from '` + file + `' limit 3`},
		{SQL: `select run, date::varchar as day, count(*)::int as rows, max(finished)::varchar as finished from ` + hive + ` group by all order by all`},
		{SQL: `select distinct compression as c ` + meta},
		{SQL: `select stats_min_value as low, stats_max_value as high, stats_null_count::int as nulls ` + meta + ` where path_in_schema in ('amount', 'custom_id') order by low`},
		{SQL: `select decode(key) as k, decode(value) as v from parquet_kv_metadata('` + file + `') where decode(key) <> 'upwell.version' order by k`},
		{SQL: `select count(*)::int as rows from '` + file + `' where due < date '1970-01-01' and signed < timestamptz '1970-01-01 00:00:00Z' and list_contains(tags, 'a')`},
	}
	want := [][]map[string]any{
		columnTypes(),
		{{"sum": digest(n), "rows": float64(n)}},
		{{"sum": digest(n), "rows": float64(n)}},
		{{"custom_id": "msa-000000"}, {"custom_id": "msa-000001"}, {"custom_id": "msa-000002"}},
		{
			{"run": "nightly", "day": "2026-11-24", "rows": float64(n / 2), "finished": "2026-11-24 01:02:03.000004+00"},
			{"run": "nightly", "day": "2026-11-25", "rows": float64(n / 2), "finished": "2026-11-25 01:02:03.000004+00"},
		},
		{{"c": "ZSTD"}},
		{
			{"low": "10000000019", "high": "11990000022781", "nulls": float64(n - known(n))},
			{"low": "msa-000000", "high": "msa-001199", "nulls": float64(0)},
		},
		{{"k": "upwell.partial", "v": "false"}, {"k": "upwell.run", "v": "nightly"}},
		{{"rows": float64(old(n))}},
	}
	answers := query(t, append(ask, question{File: file}))
	for i, w := range want {
		if diff := cmp.Diff(w, answers[i]); diff != "" {
			t.Errorf("DuckDB answers otherwise to %s (-want +got):\n%s", ask[i].SQL, diff)
		}
	}
	checkObjects(t, answers[len(ask)], n)
}

// A question is for query.mjs.
type question struct {
	SQL  string `json:"sql,omitempty"`
	File string `json:"file,omitempty"`
}

// query returns the rows that answer each question.
func query(t *testing.T, ask []question) (answers [][]map[string]any) {
	t.Helper()
	text, err := json.Marshal(ask)
	if err != nil {
		t.Fatal(err)
	}
	script, err := filepath.Abs("../infra/tools/parquet/query.mjs")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "node", script, string(text))
	cmd.Dir = os.Getenv(readers)
	out, err := cmd.Output()
	if err != nil {
		var said []byte
		if e, ok := errors.AsType[*exec.ExitError](err); ok {
			said = e.Stderr
		}
		t.Fatalf("node: %v\n%s", err, said)
	}
	if err := json.Unmarshal(out, &answers); err != nil {
		t.Fatal(err)
	}
	return answers
}

// columnTypes are the columns of the table as DuckDB sees them.
func columnTypes() (rows []map[string]any) {
	for _, c := range []string{
		"custom_id VARCHAR", "status VARCHAR", "risk VARCHAR", "amount BIGINT", "score DOUBLE", "ok BOOLEAN", "due DATE", "signed TIMESTAMP WITH TIME ZONE",
		"tags VARCHAR[]", "counts BIGINT[]", "party_name VARCHAR", "party_address_city VARCHAR", "others VARCHAR", "note VARCHAR", "output_model VARCHAR",
		"model VARCHAR", "tier VARCHAR", "region VARCHAR", "input_tokens BIGINT", "cached_tokens BIGINT", "output_tokens BIGINT", "reasoning_tokens BIGINT",
		"cost_usd DOUBLE", "repairs BIGINT", "attempts BIGINT", "request_id VARCHAR", "input_sha256 VARCHAR", "finished TIMESTAMP WITH TIME ZONE",
		"run VARCHAR", "error_code VARCHAR", "error_message VARCHAR",
	} {
		rows = append(rows, map[string]any{"c": c})
	}
	return rows
}

// digestSQL makes a text of all that a row has, and row.text is the same in Go.
const digestSQL = `concat_ws('|', custom_id, status, coalesce(risk, '-'), coalesce(amount::varchar, '-'), coalesce(format('{:.3f}', score), '-'),
	coalesce(ok::varchar, '-'), coalesce(due::varchar, '-'), coalesce(epoch_us(signed)::varchar, '-'), coalesce(tags::varchar, '-'), coalesce(counts::varchar, '-'),
	coalesce(party_name, '-'), coalesce(party_address_city, '-'), coalesce(others, '-'), coalesce(note, '-'), coalesce(output_model, '-'), model, tier,
	input_tokens::varchar, cost_usd::varchar, attempts::varchar, coalesce(request_id, '-'), epoch_us(finished)::varchar, coalesce(error_code, '-'))`

func digest(n int) string {
	lines := make([]string, n)
	for i := range lines {
		lines[i] = reviewOf(i).text()
	}
	sum := md5.Sum([]byte(strings.Join(lines, "\n")))
	return hex.EncodeToString(sum[:])
}

func (r review) text() string {
	answer, request, code := strings.Repeat("-|", 12)+"-", "-", "truncated"
	if !r.failed {
		answer, request, code = r.answer(), "req", "-"
	}
	status := map[bool]string{true: "failed", false: "answered"}[r.failed]
	return fmt.Sprintf("%s|%s|%s|xai.grok-4.3|flex|%d|0.25|%d|%s|%d|%s", r.id(), status, answer, r.i, 1+r.i%3, request, r.finished().UnixMicro(), code)
}

func (r review) answer() string {
	or := func(v any) string {
		if v == nil {
			return "-"
		}
		return fmt.Sprint(v)
	}
	when, counts, city, name := "-", "-", "-", "only"
	if r.i%7 != 0 {
		when, counts, city, name = strconv.FormatInt(signed(r.i).UnixMicro(), 10), fmt.Sprintf("[%d, NULL, %d]", r.i, -r.i), "Zürich", "N"
	}
	return strings.Join([]string{
		or(r.output["risk"]), or(r.output["amount"]), fmt.Sprintf("%.3f", r.output["score"]), fmt.Sprint(r.output["ok"]), or(r.output["due"]), when,
		"[" + strings.Join(r.output["tags"].([]string), ", ") + "]", counts, name, city, `[{"name":"O"}]`, or(r.output["note"]), "T",
	}, "|")
}

// known counts the rows that have an amount, and old those that the last question
// asks for.
func known(n int) int { return count(n, func(r review) bool { return r.i%7 != 0 }) }

func old(n int) int {
	return count(n, func(r review) bool { return r.i%7 != 0 && r.i < 100 && r.i%4 > 0 })
}

func count(n int, ok func(review) bool) (c int) {
	for i := range n {
		if r := reviewOf(i); !r.failed && ok(r) {
			c++
		}
	}
	return c
}

// checkObjects compares what hyparquet has read.
func checkObjects(t *testing.T, got []map[string]any, n int) {
	t.Helper()
	if len(got) != n {
		t.Fatalf("hyparquet reads %d rows, want %d", len(got), n)
	}
	for i, row := range got {
		r := reviewOf(i)
		want := map[string]any{"custom_id": r.id(), "status": "failed", "amount": nil, "score": nil, "due": nil, "signed": nil, "tags": nil, "counts": nil, "note": nil}
		if !r.failed {
			tags := make([]any, 0)
			for _, tag := range r.output["tags"].([]string) {
				tags = append(tags, tag)
			}
			want = map[string]any{"custom_id": r.id(), "status": "answered", "amount": nil, "score": r.output["score"], "due": r.output["due"].(string) + "T00:00:00.000Z", "signed": nil, "tags": tags, "counts": nil, "note": r.output["note"]}
			if i%7 != 0 {
				want["amount"], want["signed"] = fmt.Sprint(r.output["amount"]), time.UnixMilli(signed(i).UnixMicro()/1000).UTC().Format("2006-01-02T15:04:05.000Z")
				want["counts"] = []any{strconv.Itoa(i), nil, strconv.Itoa(-i)}
			}
		}
		for name := range want {
			if diff := cmp.Diff(want[name], row[name]); diff != "" {
				t.Fatalf("hyparquet reads %s of row %d otherwise (-want +got):\n%s", name, i, diff)
			}
		}
	}
}
