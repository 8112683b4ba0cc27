package integration

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/chromedp/chromedp"

	"upwell/integration/fixture"
	"upwell/integration/page"
)

// Names that want to be more than text.
const (
	hostileID    = `<img src=x onerror=alert(1)>"><script>alert(2)</script>` + "\u202e"
	hostileModel = `<script>alert(3)</script>`
)

// hostileJobs are jobs whose names and errors are hostile: one is answered, and one is
// for a model that there is not.
func hostileJobs(t *testing.T) []byte {
	t.Helper()
	var lines bytes.Buffer
	for id, model := range map[string]string{hostileID: "xai.grok-4.3", hostileID + " 2": hostileModel} {
		line, err := json.Marshal(map[string]any{
			"custom_id": id, "method": "POST", "url": "/v1/responses", "body": map[string]any{"model": model, "input": "hello"},
		})
		if err != nil {
			t.Fatal(err)
		}
		lines.Write(append(line, '\n'))
	}
	return lines.Bytes()
}

// freePort returns an address of this machine that nobody serves at, nor will.
func freePort(t *testing.T) string {
	t.Helper()
	l := fixture.Listen(t)
	defer l.Close()
	return l.Addr().String()
}

// TestDashboard has a browser look at a worker from its start to its end, while the
// hidden capacity is all but gone for a while, and compares what it shows with the
// endpoint's ledger.
func TestDashboard(t *testing.T) {
	b := page.Open(t, os.Getenv("UPWELL_CHROMIUM") == "required")
	s := newStack(t, "--latency", "300ms", "--capacity", "calls=20 burst=1")
	file := filepath.Join(t.TempDir(), "watched.jsonl")
	const jobs = 2000 // so that it is not done before all has been seen
	writeJobs(t, file, fixture.IDs("job", jobs))
	f, err := os.OpenFile(file, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(hostileJobs(t)); err != nil || f.Close() != nil {
		t.Fatal(err)
	}
	s.launch(t, "submit", file).exits(t, 0)
	addr, report := freePort(t), filepath.Join(t.TempDir(), "report.html")
	w := s.launch(t, "worker", "--http", addr, "--report", report, "--run", "watched", "--slots", "64", "--exit-when-empty=2s")
	eventually(t, "the worker to say where it can be watched", func() bool { return strings.Contains(w.stderr.String(), "http://"+addr) })

	b.Show(1280, 900, "light")
	b.Do(chromedp.Navigate("http://" + addr + "/"))
	b.Until(`upwell.state && upwell.state.stored > 0`)
	if got := b.Text("state"); got != "Running" {
		t.Errorf("the page says %q, want Running", got)
	}
	// What is seen of the rate: the plateau, the cut, and the recovery.
	lately := func(n int) string {
		return fmt.Sprintf(`(() => { const w = upwell.state.width, a = upwell.series.get("").answered; const k = Math.ceil(%d / w); return a.slice(-k - 1, -1).reduce((x, y) => x + y, 0) / (k * w); })()`, n)
	}
	b.Until(lately(5) + " > 8")
	s.capacity(t, "calls=0.2 burst=1")
	b.Until(lately(5) + " < 4")
	b.Until(`upwell.state.worker.bound === "quota"`)
	b.Shoot("cut")
	s.capacity(t, "calls=20 burst=1")
	b.Until(lately(5) + " > 8")
	s.capacity(t, "calls=inf")
	code, why := s.why(t, addr)
	if code != 0 || !strings.Contains(why, "quota") {
		t.Errorf("upwell why = %d, %s, want the quota among what holds it back", code, why)
	}

	b.Until(`!!upwell.state.outcome`)
	w.exits(t, 1) // one job failed
	b.Shoot("end")
	if got := b.Text("state"); got != "Done" {
		t.Errorf("at the end the page says %q, want Done", got)
	}
	c := s.counts(t)
	if c.Refused429 == 0 {
		t.Error("nothing was refused, so that nothing was seen of it")
	}
	type numbers struct {
		Stored, Failed, Answered, Refused int64
		Usage                             struct {
			Input  int64 `json:"input_tokens"`
			Output int64 `json:"output_tokens"`
		}
		Cost struct{ USD float64 }
	}
	got := page.Value[numbers](b, `upwell.state`)
	if got.Stored != jobs+1 || got.Failed != 1 || got.Answered != c.Billed || got.Refused != c.Refused429 ||
		got.Usage.Input != int64(c.Usage.Input) || got.Usage.Output != int64(c.Usage.Output) || math.Abs(got.Cost.USD-c.Cost) > 1e-9 {
		t.Errorf("the page has %+v, and the ledger %+v: want the same, %d stored and one failed", got, c, jobs+1)
	}
	if digits := regexp.MustCompile(`[^0-9]`).ReplaceAllString(b.Text("done"), ""); digits != fmt.Sprint(jobs+2) {
		t.Errorf("the page says that %q jobs are done, want %d", b.Text("done"), jobs+2)
	}
	// The names are there, as text.
	if seen := page.Value[string](b, `document.body.innerText`); !strings.Contains(seen, "<img src=x onerror=alert(1)>") {
		t.Errorf("the failed job is not on the page by its name:\n%s", seen)
	}
	if n := page.Value[int](b, `document.querySelectorAll("img, script:not([src])").length`); n != 0 {
		t.Errorf("%d elements on the page that are not the page's, want none", n)
	}
	b.Quiet("http://" + addr + "/")

	// The report is the same page, and asks for nothing.
	r := page.Open(t, os.Getenv("UPWELL_CHROMIUM") == "required")
	r.Show(1280, 900, "light")
	r.Do(chromedp.Navigate("file://" + report))
	r.Until(`!!upwell.state`)
	r.Shoot("report")
	if got := page.Value[numbers](r, `upwell.state`); got.Stored != jobs+1 || got.Refused != c.Refused429 || r.Text("state") != "Done" {
		t.Errorf("the report has %+v and says %q, want what the page had", got, r.Text("state"))
	}
	r.Quiet("file://" + report)
}

// why runs upwell why against a worker.
func (s *stack) why(t *testing.T, addr string, args ...string) (code int, said string) {
	t.Helper()
	return s.asked(t, append([]string{"why", "--http", addr}, args...)...)
}

// asked runs a verb that asks a worker, and returns what it says. It waits for five
// seconds, which a busy machine may take: then it asks again.
func (s *stack) asked(t *testing.T, args ...string) (code int, said string) {
	t.Helper()
	eventually(t, "an answer in time", func() bool {
		p := s.launch(t, args...)
		code = p.wait(t)
		said = p.stdout.String() + p.stderr.String()
		return !strings.Contains(said, "deadline exceeded")
	})
	return code, said
}

// TestWatchedWhileItWorks asks a worker for all that it serves, on an address that
// others could reach: the dashboard wants the token, and nothing else does.
func TestWatchedWhileItWorks(t *testing.T) {
	t.Parallel()
	const token = "a token of more than 16 characters"
	s := newStack(t, "--latency", "200ms")
	s.submit(t, "open", fixture.IDs("job", 40))
	port := strings.TrimPrefix(freePort(t), "127.0.0.1:")
	addr := "127.0.0.1:" + port
	get := func(path, bearer string) (int, string) {
		status, _, text := ask(t, http.MethodGet, "http://"+addr+path, bearer, nil)
		return status, string(text)
	}
	for _, tt := range []struct {
		token     string
		page, api int // status of the page and of what is beneath it, with the token
	}{{"", 403, 403}, {token, 401, 200}} {
		w := launch(t, append(append([]string(nil), s.env...), "UPWELL_HTTP_TOKEN="+tt.token), "worker", "--http", "0.0.0.0:"+port, "--slots", "4")
		eventually(t, "it to serve", func() bool { return strings.Contains(w.stderr.String(), "worker started") })
		eventually(t, "it to be ready", func() bool { code, _ := get("/readyz", ""); return code == 200 })
		if code, said := get("/", ""); code != tt.page {
			t.Errorf("with the token %q, the page = %d, %s, want %d", tt.token, code, said, tt.page)
		}
		if code, said := get("/api/why", tt.token); code != tt.api {
			t.Errorf("with the token %q, /api/why = %d, %s, want %d", tt.token, code, said, tt.api)
		}
		if code, said := get("/metrics", ""); code != 200 || !strings.Contains(said, "upwell_build_info{") {
			t.Errorf("with the token %q, /metrics = %d, %.200s, want metrics", tt.token, code, said)
		}
		w.signal(t, syscall.SIGTERM)
		w.exits(t, 0)
		if strings.Contains(w.stderr.String(), token) {
			t.Error("the log has the token in it")
		}
	}
	short := launch(t, append(append([]string(nil), s.env...), "UPWELL_HTTP_TOKEN=short"), "worker", "--http", addr)
	short.exits(t, 2)
	if !strings.Contains(short.stderr.String(), "16 characters") {
		t.Errorf("with a short token it says %s, want why not", short.stderr.String())
	}
}

// TestWhere has two workers of one machine served at the default address or, where that
// is taken, another; and one that is served nowhere.
func TestWhere(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	at := regexp.MustCompile(`"dashboard":"([^"]+)"`)
	where := func(args ...string) string {
		w := s.launch(t, append([]string{"worker"}, args...)...)
		eventually(t, "it to start", func() bool { return at.MatchString(w.stderr.String()) })
		return at.FindStringSubmatch(w.stderr.String())[1]
	}
	first, second, none := where(), where(), where("--http", "off")
	if first == second || none != "off" || !strings.HasPrefix(first, "http://127.0.0.1:") || !strings.HasPrefix(second, "http://127.0.0.1:") {
		t.Errorf("served at %s, %s and %s, want two addresses of this machine and none", first, second, none)
	}
	for _, addr := range []string{first, second} {
		if code, said := s.why(t, strings.TrimSuffix(strings.TrimPrefix(addr, "http://"), "/")); code != 0 {
			t.Errorf("upwell why at %s = %d, %s, want an answer", addr, code, said)
		}
	}
	if code, said := s.why(t, freePort(t)); code != 1 || !strings.Contains(said, "is there a worker") {
		t.Errorf("upwell why where nobody is = %d, %s, want 1 and what to do", code, said)
	}
}

// TestFlightRecorder has a worker told to write down what it does, and go on.
func TestFlightRecorder(t *testing.T) {
	t.Parallel()
	s := newStack(t, "--latency", "50ms", "--capacity", standstill)
	names := fixture.IDs("job", 60)
	s.submit(t, "flight", names)
	dir := t.TempDir()
	w := s.launch(t, "worker", "--http", "off", "--flight-dir", dir, "--slots", "8", "--start-rate", "8", "--exit-when-empty=2s")
	eventually(t, "calls in flight", func() bool { return s.counts(t).InFlight > 0 })
	w.signal(t, syscall.SIGQUIT)
	eventually(t, "the files to be named in the log", func() bool { return strings.Contains(w.stderr.String(), "flight recording written") })
	s.capacity(t, "conc=inf")
	w.exits(t, 0)
	s.balance(t, "flight", names, 0)
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(files) != 2 {
		t.Fatalf("files %v, %v, want two", files, err)
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil || len(text) == 0 || !strings.Contains(w.stderr.String(), name) {
			t.Errorf("%s: %d bytes, %v, want something, and its name in the log", name, len(text), err)
		}
		if filepath.Ext(name) == ".txt" && !strings.Contains(string(text), "worker.(*task)") {
			t.Errorf("%s does not say where the worker's goroutines are", name)
		}
	}
	none := s.launch(t, "worker", "--http", "off", "--flight-dir", filepath.Join(dir, "none"))
	none.exits(t, 3)
}

// TestHold keeps the demo's page open after its end, with jobs that can be looked up.
func TestHold(t *testing.T) {
	t.Parallel()
	p := launch(t, nil, "demo", "--hold", "--http", "127.0.0.1:0", "-o", filepath.Join(t.TempDir(), "demo"))
	at := regexp.MustCompile(`stays open until Ctrl-C:\s+(\S+)`)
	eventually(t, "the demo to be done", func() bool { return at.MatchString(p.stdout.String()) })
	url := at.FindStringSubmatch(p.stdout.String())[1]
	_, _, text := ask(t, http.MethodGet, url+"api/snapshot", "", nil)
	var got struct {
		State struct {
			Stored  int
			Outcome string
		}
	}
	if err := json.Unmarshal(text, &got); err != nil || got.State.Stored != 312 || got.State.Outcome != "done" {
		t.Errorf("after the end the page has %+v, %v, want 312 jobs done", got, err)
	}
	p.signal(t, os.Interrupt)
	p.exits(t, 0)
}
