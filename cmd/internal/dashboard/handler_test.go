package dashboard_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"upwell/cmd/internal/dashboard"
	"upwell/cmd/internal/progress"
	"upwell/jobs"
	"upwell/throttle"
	"upwell/worker"
)

// paths are one of each kind that there is.
var paths = []string{"/", "/app.js", "/style.css", "/favicon.ico", "/uplot/uPlot.iife.min.js", "/api/snapshot", "/api/events", "/api/job?id=x", "/api/why", "/nothing", "/api/nothing"}

func newDashboard(cfg dashboard.Config) *dashboard.Dashboard {
	if cfg.Meter == nil {
		cfg.Meter = progress.NewMeter()
	}
	return dashboard.New(cfg)
}

// get asks h, and returns at once also from a stream.
func get(t *testing.T, h http.Handler, path string, change ...func(*http.Request)) *httptest.ResponseRecorder {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	if path == "/api/events" {
		cancel()
	}
	defer cancel()
	r := httptest.NewRequestWithContext(ctx, http.MethodGet, "http://localhost"+path, nil)
	for _, c := range change {
		c(r)
	}
	rw := httptest.NewRecorder()
	h.ServeHTTP(rw, r)
	return rw
}

func header(name, value string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set(name, value) }
}

// TestHosts has names that lead to this machine refused when they are a stranger's.
func TestHosts(t *testing.T) {
	h := newDashboard(dashboard.Config{Loopback: true}).Handler()
	for host, want := range map[string]int{
		"localhost": 200, "localhost:8080": 200, "LOCALHOST:1": 200, "127.0.0.1": 200, "127.0.0.1:9464": 200, "[::1]": 200, "[::1]:9464": 200,
		"evil.example": 403, "evil.example:9464": 403, "localhost.evil.example": 403, "127.0.0.1.nip.io:80": 403, "": 403, "10.0.0.1": 403, "127.0.0.2": 403, "0.0.0.0:80": 403, "localhost:80:80": 403,
	} {
		for _, path := range []string{"/", "/api/snapshot", "/app.js"} {
			rw := get(t, h, path, func(r *http.Request) { r.Host = host })
			if rw.Code != want {
				t.Errorf("Host %q: GET %s is %d, want %d", host, path, rw.Code, want)
			}
			if want == 403 && !strings.Contains(rw.Body.String(), "http://localhost") {
				t.Errorf("Host %q: GET %s says %q, want how to open it", host, path, rw.Body)
			}
		}
	}
}

// TestNoTokenNoPage serves nothing to others when nobody has said who they may be.
func TestNoTokenNoPage(t *testing.T) {
	h := newDashboard(dashboard.Config{}).Handler()
	for _, path := range paths {
		if rw := get(t, h, path); rw.Code != 403 || !strings.Contains(rw.Body.String(), "UPWELL_HTTP_TOKEN") {
			t.Errorf("GET %s is %d: %.80s, want 403 and UPWELL_HTTP_TOKEN", path, rw.Code, rw.Body)
		}
	}
	if rw := post(t, h, "x"); rw.Code != 403 {
		t.Errorf("POST /login is %d, want 403", rw.Code)
	}
}

// TestHeaders looks at what a browser is told of each answer, and that the page keeps
// to it.
func TestHeaders(t *testing.T) {
	h := newDashboard(dashboard.Config{Loopback: true}).Handler()
	for _, path := range paths {
		rw := get(t, h, path)
		for name, want := range map[string]string{
			"Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
			"X-Content-Type-Options":  "nosniff", "Referrer-Policy": "no-referrer", "Cross-Origin-Resource-Policy": "same-origin",
		} {
			if got := rw.Header().Get(name); got != want {
				t.Errorf("GET %s: %s: %q, want %q", path, name, got, want)
			}
		}
		want := "no-store"
		if rw.Header().Get("Etag") != "" {
			want = "no-cache" // the program's own files, which are asked for again each time
		}
		if got := rw.Header().Get("Cache-Control"); got != want {
			t.Errorf("GET %s: Cache-Control: %q, want %q", path, got, want)
		}
	}
	for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete} {
		for _, path := range paths {
			if rw := get(t, h, path, func(r *http.Request) { r.Method = method }); rw.Code != 405 && rw.Code != 404 {
				t.Errorf("%s %s is %d, want 405", method, path, rw.Code)
			}
		}
	}
	tag := get(t, h, "/app.js").Header().Get("Etag")
	if rw := get(t, h, "/app.js", header("If-None-Match", tag)); rw.Code != 304 {
		t.Errorf("GET /app.js with its own tag is %d, want 304", rw.Code)
	}
}

// TestOtherSites has data kept from pages of others, and the page itself linked to.
func TestOtherSites(t *testing.T) {
	h := newDashboard(dashboard.Config{Loopback: true}).Handler()
	for site, want := range map[string]int{"cross-site": 403, "same-site": 403, "same-origin": 200, "none": 200, "": 200} {
		for _, path := range []string{"/api/snapshot", "/api/why", "/api/events"} {
			if rw := get(t, h, path, header("Sec-Fetch-Site", site)); rw.Code != want {
				t.Errorf("Sec-Fetch-Site %q: GET %s is %d, want %d", site, path, rw.Code, want)
			}
		}
		if rw := get(t, h, "/", header("Sec-Fetch-Site", site)); rw.Code != 200 {
			t.Errorf("Sec-Fetch-Site %q: GET / is %d, want 200", site, rw.Code)
		}
	}
}

const token = "correct horse battery staple"

// post sends the form with a token.
func post(t *testing.T, h http.Handler, word string, change ...func(*http.Request)) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "http://worker.example:9464/login", strings.NewReader(url.Values{"token": {word}}.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	for _, c := range change {
		c(r)
	}
	rw := httptest.NewRecorder()
	h.ServeHTTP(rw, r)
	return rw
}

func TestToken(t *testing.T) {
	h := newDashboard(dashboard.Config{Token: token}).Handler()
	if rw := get(t, h, "/"); rw.Code != 401 || !strings.Contains(rw.Body.String(), `type="password"`) || strings.Contains(rw.Body.String(), "app.js") {
		t.Errorf("GET / is %d: %.200s, want 401 and a form", rw.Code, rw.Body)
	}
	for _, path := range []string{"/api/snapshot", "/api/events", "/api/job?id=x", "/api/why"} {
		if rw := get(t, h, path); rw.Code != 401 {
			t.Errorf("GET %s is %d, want 401", path, rw.Code)
		}
		if rw := get(t, h, path+"?token="+url.QueryEscape(token)); rw.Code != 401 {
			t.Errorf("GET %s with the token in the URL is %d, want 401", path, rw.Code)
		}
		if rw := get(t, h, path, header("Authorization", "Bearer "+token)); rw.Code == 401 {
			t.Errorf("GET %s with the token is 401", path)
		}
	}
	for _, cross := range []func(*http.Request){header("Sec-Fetch-Site", "cross-site"), header("Origin", "https://evil.example")} {
		if rw := post(t, h, token, cross); rw.Code != 403 || rw.Header().Get("Set-Cookie") != "" {
			t.Errorf("POST /login from another site is %d with cookie %q, want 403", rw.Code, rw.Header().Get("Set-Cookie"))
		}
	}
	if rw := post(t, h, token+"x"); rw.Code != 401 || rw.Header().Get("Set-Cookie") != "" || !strings.Contains(rw.Body.String(), "That is not the token.") {
		t.Errorf("POST /login with another token is %d: %.200s, want 401", rw.Code, rw.Body)
	}
	rw := post(t, h, token)
	cookies := rw.Result().Cookies()
	if rw.Code != 303 || rw.Header().Get("Location") != "/" || len(cookies) != 1 {
		t.Fatalf("POST /login is %d to %q with cookies %v, want 303 to / with one", rw.Code, rw.Header().Get("Location"), cookies)
	}
	c := cookies[0]
	if !c.HttpOnly || c.SameSite != http.SameSiteStrictMode || c.Path != "/" || !c.Expires.IsZero() || len(c.Value) < 26 || strings.Contains(c.Value, token) {
		t.Errorf("cookie %v, want one of the session that no script and no other site can use", c)
	}
	signed := func(r *http.Request) { r.AddCookie(c) }
	if rw := get(t, h, "/", signed); rw.Code != 200 || !strings.Contains(rw.Body.String(), "app.js") || strings.Contains(rw.Body.String(), token) {
		t.Errorf("GET / with the cookie is %d, want the page", rw.Code)
	}
	if rw := get(t, h, "/api/snapshot", signed); rw.Code != 200 {
		t.Errorf("GET /api/snapshot with the cookie is %d, want 200", rw.Code)
	}
	forged := *c
	forged.Value = strings.Repeat("A", len(c.Value))
	if rw := get(t, h, "/api/snapshot", func(r *http.Request) { r.AddCookie(&forged) }); rw.Code != 401 {
		t.Errorf("GET /api/snapshot with a forged cookie is %d, want 401", rw.Code)
	}
	other := newDashboard(dashboard.Config{Token: token}).Handler()
	if rw := get(t, other, "/api/snapshot", signed); rw.Code != 401 {
		t.Errorf("another worker takes the cookie: %d, want 401", rw.Code)
	}
}

// TestLoopbackWithToken asks for both.
func TestLoopbackWithToken(t *testing.T) {
	h := newDashboard(dashboard.Config{Token: token, Loopback: true}).Handler()
	if rw := get(t, h, "/api/snapshot"); rw.Code != 401 {
		t.Errorf("without a token: %d, want 401", rw.Code)
	}
	bearer := header("Authorization", "Bearer "+token)
	if rw := get(t, h, "/api/snapshot", bearer); rw.Code != 200 {
		t.Errorf("with the token: %d, want 200", rw.Code)
	}
	if rw := get(t, h, "/api/snapshot", bearer, func(r *http.Request) { r.Host = "evil.example" }); rw.Code != 403 {
		t.Errorf("with the token, under another name: %d, want 403", rw.Code)
	}
}

// TestGuesses bounds how fast tokens are tried.
func TestGuesses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newDashboard(dashboard.Config{Token: token}).Handler()
		for range 100 { // right ones cost nothing
			if rw := post(t, h, token); rw.Code != 303 {
				t.Fatalf("a right token is %d, want 303", rw.Code)
			}
		}
		time.Sleep(time.Second)
		session := post(t, h, token).Result().Cookies()[0] // the newest
		for i := range 5 {
			if rw := post(t, h, "wrong"); rw.Code != 401 {
				t.Errorf("guess %d is %d, want 401", i, rw.Code)
			}
		}
		refused := func(what string, rw *httptest.ResponseRecorder) {
			t.Helper()
			if rw.Code != 429 || rw.Header().Get("Retry-After") == "" {
				t.Errorf("%s is %d, want 429 and when to try again", what, rw.Code)
			}
		}
		refused("the sixth guess", post(t, h, "wrong"))
		refused("a right one then", post(t, h, token))
		refused("one in a header", get(t, h, "/api/snapshot", header("Authorization", "Bearer "+token)))
		refused("one from the same network", post(t, h, "wrong", func(r *http.Request) { r.RemoteAddr = "192.0.2.1:9" }))
		if rw := get(t, h, "/api/snapshot", func(r *http.Request) { r.AddCookie(session) }); rw.Code != 200 {
			t.Errorf("who is signed in gets %d, want 200", rw.Code)
		}
		if rw := post(t, h, token, func(r *http.Request) { r.RemoteAddr = "198.51.100.7:1234" }); rw.Code != 303 {
			t.Errorf("somebody else gets %d, want 303", rw.Code)
		}
		time.Sleep(2 * time.Second)
		if rw := post(t, h, token); rw.Code != 303 {
			t.Errorf("two seconds later it is %d, want 303", rw.Code)
		}
		time.Sleep(24 * time.Hour)
		if rw := get(t, h, "/api/snapshot", func(r *http.Request) { r.AddCookie(session) }); rw.Code != 401 {
			t.Errorf("after a day the session gets %d, want 401", rw.Code)
		}
	})
}

// TestGuessesOfMany has a thousand places and more guess, of which one has many
// addresses.
func TestGuessesOfMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newDashboard(dashboard.Config{Token: token}).Handler()
		from := func(addr string) func(*http.Request) {
			return func(r *http.Request) { r.RemoteAddr = addr }
		}
		allowed := 0
		for i := range 20 {
			if post(t, h, "wrong", from("[2001:db8::"+string(rune('a'+i%6))+"]:1")).Code == 401 {
				allowed++
			}
		}
		if allowed != 5 {
			t.Errorf("%d guesses from one network, want 5", allowed)
		}
		allowed = 0
		for i := range 3000 {
			addr := "10." + string(rune('0'+i%10)) + "." + string(rune('0'+i/10%10)) + "." + string(rune('0'+i/100%10)) + string(rune('0'+i/1000)) + ":1"
			if post(t, h, "wrong", from(addr)).Code == 401 {
				allowed++
			}
		}
		if allowed < 1000 || allowed > 1023+5 {
			t.Errorf("%d guesses from 3000 places, want those of 1023 that are known and 5 of all others", allowed)
		}
		time.Sleep(time.Minute) // those are forgotten
		if rw := post(t, h, token, from("203.0.113.9:1")); rw.Code != 303 {
			t.Errorf("a newcomer gets %d a minute later, want 303", rw.Code)
		}
	})
}

// TestSessionsAreBounded signs in more people than there may be.
func TestSessionsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newDashboard(dashboard.Config{Token: token}).Handler()
		var all []*http.Cookie
		for range 66 {
			all = append(all, post(t, h, token).Result().Cookies()[0])
			time.Sleep(time.Second)
		}
		for i, c := range all {
			want := 200
			if i < 2 {
				want = 401
			}
			if rw := get(t, h, "/api/snapshot", func(r *http.Request) { r.AddCookie(c) }); rw.Code != want {
				t.Errorf("session %d of 66 gets %d, want %d", i, rw.Code, want)
			}
		}
	})
}

func TestJob(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	m := progress.NewMeter()
	busy := jobs.Key{Run: "r", CustomID: "busy"}
	m.Observe(worker.Event{Kind: worker.Permitted, At: now, Key: busy})
	m.Observe(worker.Event{Kind: worker.Attempted, At: now, Key: busy, Outcome: throttle.Throttled, Attempt: jobs.Attempt{N: 1, Status: 429}})
	m.Observe(worker.Event{Kind: worker.Permitted, At: now, Key: busy})
	odd := "a/b?&#ä \u202e"
	stored := map[jobs.Key]jobs.Result{
		{Run: "r", CustomID: "good"}: {Upwell: jobs.Record{
			Run: "r", Model: "m", OutputText: "said", Finished: now, Billed: 1, CostUSD: jobs.UnknownUSD(), Attempts: []jobs.Attempt{{N: 1, Status: 200}},
		}},
		{Run: "r", CustomID: odd}:   {Error: &jobs.Error{Code: jobs.Refused, Message: "no"}},
		{Run: "", CustomID: "long"}: {Upwell: jobs.Record{OutputText: strings.Repeat("ä", 1<<20), Attempts: make([]jobs.Attempt, 1000)}},
	}
	h := newDashboard(dashboard.Config{
		Meter: m, Loopback: true,
		Result: func(ctx context.Context, k jobs.Key) (jobs.Result, bool, error) {
			if d, ok := ctx.Deadline(); !ok || time.Until(d) > time.Minute {
				t.Errorf("Result has until %v, want a bound", d)
			}
			if k.CustomID == "broken" {
				return jobs.Result{}, false, errors.New("access denied")
			}
			r, ok := stored[k]
			return r, ok, nil
		},
	}).Handler()
	look := func(run, id string) (status int, text string, v map[string]any) {
		rw := get(t, h, "/api/job?"+url.Values{"run": {run}, "id": {id}}.Encode())
		if err := json.Unmarshal(rw.Body.Bytes(), &v); err != nil {
			t.Errorf("job %s/%s: %v", run, id, err)
		}
		return rw.Code, rw.Body.String(), v
	}
	if code, text, v := look("r", "busy"); code != 200 || v["state"] != "under_way" || v["calling"] != true || !strings.Contains(text, `"status":429`) {
		t.Errorf("a job under way: %d %s", code, text)
	}
	if code, text, v := look("r", "good"); code != 200 || v["state"] != "stored" || v["output"] != "said" || v["cost_usd"] != nil || v["billed_calls"] != 1.0 {
		t.Errorf("a stored job: %d %s", code, text)
	}
	if code, text, v := look("r", odd); code != 200 || v["state"] != "failed" || v["class"] != "refused" || v["reason"] != "no" || v["custom_id"] != odd {
		t.Errorf("a failed job: %d %s", code, text)
	}
	if code, text, v := look("", "long"); code != 200 || v["output_cut"] != true || len(v["output"].(string)) > 256<<10+3 || len(v["attempts"].([]any)) != 100 || v["attempts_left_out"] != 900.0 || len(text) > 300<<10 {
		t.Errorf("a long job: %d, %d bytes, want no more than is shown", code, len(text))
	}
	for id, want := range map[string]int{"nobody": 404, "": 400, strings.Repeat("x", 70<<10): 400, "broken": 502} {
		if code, text, v := look("r", id); code != want || v["error"] == nil {
			t.Errorf("job %.10q: %d %.100s, want %d and why", id, code, text, want)
		}
	}
}

// TestWhy serves what upwell why prints.
func TestWhy(t *testing.T) {
	m := progress.NewMeter()
	m.Observe(worker.Event{Kind: worker.Sampled, At: time.Now(), Sample: &worker.Sample{Bound: worker.BoundSlots}})
	rw := get(t, newDashboard(dashboard.Config{Meter: m, Loopback: true}).Handler(), "/api/why")
	var v struct {
		Why, WhyWhole []progress.Share `json:"-"`
		Lately        []progress.Share `json:"why"`
		Whole         []progress.Share `json:"why_whole"`
		Bound         worker.Bound     `json:"bound"`
	}
	if err := json.NewDecoder(io.TeeReader(rw.Body, io.Discard)).Decode(&v); err != nil || len(v.Lately) != 1 || len(v.Whole) != 1 || v.Lately[0].Share != 1 || v.Bound != worker.BoundSlots || v.Lately[0].Help == "" {
		t.Errorf("why is %+v, %v; want slots alone, and what would help", v, err)
	}
}
