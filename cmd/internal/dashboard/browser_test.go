package dashboard_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"upwell/cmd/internal/dashboard"
	"upwell/cmd/internal/progress"
	"upwell/integration/fixture"
	"upwell/integration/page"
	"upwell/jobs"
	"upwell/throttle"
	"upwell/worker"
)

// browser opens a tab. UPWELL_CHROMIUM=required has the test fail where there is no
// browser; otherwise it is skipped.
func browser(t *testing.T) *page.Tab {
	t.Helper()
	return page.Open(t, os.Getenv("UPWELL_CHROMIUM") == "required")
}

// follow waits for a page that is sent many events until that is so, and for as long as
// it gets on with them.
func follow(b *page.Tab, until string) {
	b.Until("upwell.state")
	for !page.Value[bool](b, until) {
		at := page.Value[string](b, "upwell.state.at")
		b.Until(fmt.Sprintf("%s || upwell.state.at !== %q", until, at))
	}
}

// TestPage has a run from start to end looked at, in a browser.
func TestPage(t *testing.T) {
	b := browser(t)
	rec := record(t, plot{jobs: 11_000, span: 11 * time.Minute, fail: mixed})
	halfway := rec.returning(t)
	url, more := rec.replay(t, halfway)
	b.Show(1280, 900, "light")
	b.Do(chromedp.Navigate(url))
	follow(b, "upwell.state.at === "+rec.at(t, halfway))
	if got := b.Text("state"); got != "Running" {
		t.Errorf("the page says %q, want Running", got)
	}
	if got := b.Text("sentence"); !strings.HasPrefix(got, "On the way up to the capacity: ") {
		t.Errorf("the page says %q, want that the rate is on its way up, after the recovery", got)
	}

	// The picture shows the plateau, the cut to a third of it, and the recovery.
	height := func(from, to int) float64 {
		return page.Value[float64](b, fmt.Sprintf(`(() => {
			const u = document.querySelector(".uplot") && upwell.shape(upwell.series.get(""), upwell.state.width, upwell.elapsed(upwell.state), 200);
			const near = u.answered.filter((_, i) => u.x[i] > %d && u.x[i] <= %d);
			return near.reduce((a, b) => a + b, 0) / near.length;
		})()`, from, to))
	}
	if before, cut := height(120, 290), height(360, 470); before < 20 || before > 26 || cut < 6 || cut > 9 {
		t.Errorf("the picture has %.1f/s before the cut and %.1f/s in it, want about 24 and 8", before, cut)
	}

	for _, scheme := range []string{"light", "dark"} {
		for _, width := range []int64{1920, 1280, 768, 360} {
			b.Show(width, 900, scheme)
			b.Fits()
			b.Shoot(fmt.Sprintf("run-%s-%d", scheme, width))
			for _, low := range page.Value[[]string](b, contrasts) {
				t.Errorf("%s, %d px: too little contrast: %s", scheme, width, low)
			}
		}
	}
	b.Show(1280, 900, "light")

	// Of all that changes every second nothing is read aloud but the state, when it is
	// another one.
	b.Do(chromedp.Evaluate[chromedp.Void](`
		window.spoken = [];
		new MutationObserver(() => window.spoken.push(document.getElementById("state").innerText)).observe(document.getElementById("state"), { subtree: true, childList: true, characterData: true })`))
	if got := page.Value[[]string](b, `[...document.querySelectorAll("[aria-live], [role=status], [role=alert], [role=log], [role=timer], output")].map(e => e.id)`); len(got) != 1 || got[0] != "state" {
		t.Errorf("%q are read aloud when they change, want the state alone", got)
	}

	// At the end the numbers are those of the ledger.
	more()
	follow(b, `document.getElementById("state").innerText === "Done"`)
	b.Shoot("done")
	if got := page.Value[[]string](b, `window.spoken`); len(got) != 1 || got[0] != "Done" {
		t.Errorf("%q was read aloud, want Done", got)
	}
	want := fmt.Sprintf("%d of 11000 jobs done; %d failed, %d refused, %d answered", rec.stored+rec.failed, rec.failed, rec.ledger.Refused, rec.ledger.Billed)
	got := page.Value[string](b, `(() => {
		const n = id => document.getElementById(id).innerText.replace(/,/g, "");
		const stat = name => [...document.querySelectorAll("#stats div")].find(e => e.firstChild.innerText === name).lastChild.firstChild.data.replace(/,/g, "");
		const answered = [...document.querySelectorAll("#lanes tr")].reduce((sum, e) => sum + Number(e.children[5].innerText.replace(/,/g, "")), 0);
		return n("done") + " " + n("done-of") + "; " + stat("Failed jobs") + " failed, " + stat("Refused calls") + " refused, " + (answered + upwell.state.errors - 0) + " answered";
	})()`)
	// Answers that are no good are billed, and are none of the answered ones; a prompt
	// that is too long is neither.
	long := 0
	for _, r := range rec.results {
		if r.Error != nil && r.Error.Code == jobs.ContextLength {
			long++
		}
	}
	want = strings.Replace(want, fmt.Sprintf("%d answered", rec.ledger.Billed), fmt.Sprintf("%d answered", rec.ledger.Billed+long), 1)
	if got != want {
		t.Errorf("the page says\n%s, and the ledger\n%s", got, want)
	}

	// The report says the same from a file, and asks nobody for anything.
	file := filepath.Join(t.ArtifactDir(), "report.html")
	if err := os.WriteFile(file, rec.report, 0o644); err != nil {
		t.Fatal(err)
	}
	b.Quiet(url)
	shown := b.Text("main")
	r := browser(t)
	for _, scheme := range []string{"light", "dark"} {
		r.Show(1280, 900, scheme)
		r.Do(chromedp.Navigate("file://" + file))
		r.Fits()
		r.Shoot("report-" + scheme)
	}
	if got := r.Text("stats"); !strings.Contains(shown, got) {
		t.Errorf("the report says %q, want what the page says: %q", got, shown)
	}
	if n := page.Value[int](r, `document.querySelectorAll("#failures button, form, dialog").length`); n != 0 {
		t.Errorf("the report has %d things that a file cannot do", n)
	}
	r.Show(360, 800, "light")
	r.Fits()
	r.Shoot("report-phone")
	r.Quiet("file://"+file, "data:image/svg+xml")
}

// contrasts lists the texts that are not told apart from what they are on as well as
// WCAG 2 asks for at level AA.
const contrasts = `(() => {
	const parse = c => (c.match(/[\d.]+/g) || [0, 0, 0, 0]).map(Number);
	const light = c => c.slice(0, 3).map(v => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
		.reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
	const ground = e => {
		for (; e; e = e.parentElement) {
			const c = parse(getComputedStyle(e).backgroundColor);
			if (c.length < 4 || c[3] > 0.99) return c;
		}
		return [255, 255, 255];
	};
	const low = [];
	const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
	while (walk.nextNode()) {
		const e = walk.currentNode.parentElement, text = walk.currentNode.data.trim();
		if (!text || !e.checkVisibility() || e.closest(".sr, .skip, script, noscript")) continue;
		const style = getComputedStyle(e), [a, b] = [light(parse(style.color)), light(ground(e))].sort((x, y) => y - x);
		const big = parseFloat(style.fontSize) >= 24 || parseFloat(style.fontSize) >= 18.66 && style.fontWeight >= 700;
		const ratio = (a + 0.05) / (b + 0.05);
		if (ratio < (big ? 3 : 4.5)) low.push(ratio.toFixed(2) + " " + text.slice(0, 40));
	}
	return low;
})()`

// TestKeyboard uses the page without a mouse.
func TestKeyboard(t *testing.T) {
	b := browser(t)
	rec := record(t, plot{jobs: 2000, span: time.Minute, fail: mixed})
	url, _ := rec.replay(t, len(rec.events)-1)
	b.Show(1280, 900, "light")
	b.Do(chromedp.Navigate(url))
	follow(b, `document.getElementById("state").innerText === "Done"`) // nothing changes any more
	b.Until(`upwell.state.failures.length`)
	focus := func() string {
		return page.Value[string](b, "document.activeElement.innerText || document.activeElement.id")
	}
	tab := func(to string) {
		t.Helper()
		for range 40 {
			b.Do(chromedp.KeyEvent(kb.Tab))
			if page.Value[bool](b, "document.activeElement.matches("+to+")") {
				return
			}
		}
		t.Fatalf("40 tabs do not lead to %s, but to %q", to, focus())
	}
	b.Do(chromedp.KeyEvent(kb.Tab))
	if got := focus(); got != "Skip to the numbers" {
		t.Errorf("the first tab leads to %q, want the link that skips", got)
	}
	tab(`"#lanes-pick button[aria-pressed=false]"`)
	if got := page.Value[string](b, "getComputedStyle(document.activeElement).outlineStyle"); got != "solid" {
		t.Errorf("what has the focus is outlined %q, want solid", got)
	}
	b.Do(chromedp.KeyEvent(kb.Enter))
	if got := page.Value[string](b, `document.activeElement.getAttribute("aria-pressed") + " " + document.getElementById("chart").getAttribute("aria-label")`); !strings.HasPrefix(got, "true Calls per second over time, us-") {
		t.Errorf("after Enter on a lane: %q, want it pressed and the chart to be of it", got)
	}
	tab(`"#failures button"`)
	id := focus()
	b.Do(chromedp.KeyEvent(kb.Enter))
	b.Until(`document.querySelector("#job tbody")`)
	if got := page.Value[string](b, `document.activeElement.id + " " + document.activeElement.firstChild.data`); got != "job-title "+id {
		t.Errorf("the focus is on %q, want the title of the page of %s", got, id)
	}
	for scheme, width := range map[string]int64{"light": 1280, "dark": 360} {
		b.Show(width, 800, scheme)
		b.Fits()
		b.Do(chromedp.Evaluate[chromedp.Void](`document.querySelectorAll("#job details").forEach(d => { d.open = true })`))
		b.Shoot(fmt.Sprintf("job-%s-%d", scheme, width))
	}
	b.Do(chromedp.KeyEvent(kb.Escape))
	b.Until(`!document.getElementById("job").open && location.hash === ""`)
	if got := focus(); got != id {
		t.Errorf("after Escape the focus is on %q, want %s again", got, id)
	}

	// The address of a job leads to it, and going back leads away from it.
	b.Do(chromedp.KeyEvent(kb.Enter))
	b.Until(`document.getElementById("job").open`)
	b.Do(chromedp.Evaluate[chromedp.Void]("history.back()"))
	b.Until(`!document.getElementById("job").open && location.hash === ""`)
	tab(`"#find-id"`)
	b.Do(chromedp.KeyEvent("nobody/knows ä#?"), chromedp.KeyEvent(kb.Enter))
	b.Until(`document.getElementById("job-body").innerText.startsWith("nothing is stored")`)
	if got := page.Value[string](b, `document.getElementById("job-title").firstChild.data`); got != "nobody/knows ä#?" {
		t.Errorf("looked for %q, want what was typed", got)
	}
	// That is 404, which the browser's own log mentions.
	for _, c := range b.Complaints() {
		if !strings.Contains(c, "404") {
			t.Errorf("the page complained: %s", c)
		}
	}
}

const (
	image  = `<img src=x onerror=alert(1)>`
	script = `"><script>alert(2)</script>`
	bidi   = "safe\u202egpj.exe\u2066\u0007"
)

// hostile feeds a meter what strangers may send, and returns a Dashboard for it.
func hostile(t *testing.T) *dashboard.Dashboard {
	t.Helper()
	m := progress.NewMeter()
	now := time.Now()
	lane := throttle.Lane{Region: "us-west-2", Model: image + bidi, Tier: script}
	other := throttle.Lane{Region: "us-east-1", Model: script, Tier: "flex"}
	key := jobs.Key{Run: "r" + script, CustomID: image + bidi}
	for _, l := range []throttle.Lane{lane, other} {
		s := throttle.State{Rate: 5, Reason: "cut: " + image, Binds: script, ClosedUntil: now.Add(time.Hour)}
		m.Observe(worker.Event{Kind: worker.RateChanged, At: now, Lane: l, Rate: &s})
		m.Observe(worker.Event{Kind: worker.Permitted, At: now, Key: key, Lane: l})
		m.Observe(worker.Event{Kind: worker.Attempted, At: now, Key: key, Lane: l, Outcome: throttle.Accepted, Attempt: jobs.Attempt{N: 1, Error: script}})
	}
	m.Observe(worker.Event{Kind: worker.Buried, At: now, Key: key, Letter: &jobs.DeadLetter{Key: key, Class: jobs.BadRequest, Reason: script + image + bidi, Status: 400}})
	m.Observe(worker.Event{Kind: worker.Paused, At: now, Lane: lane, Err: errors.New(image + bidi)})
	m.Observe(worker.Event{Kind: worker.Sampled, At: now, Sample: &worker.Sample{Slots: 4, Bound: worker.Bound(image)}})
	return dashboard.New(dashboard.Config{
		Meter: m, Verb: "worker", Run: "r" + script, Version: image, Loopback: true,
		Result: func(_ context.Context, k jobs.Key) (r jobs.Result, ok bool, err error) {
			r.CustomID, r.Error = k.CustomID, &jobs.Error{Code: jobs.Class(script), Message: image + bidi}
			r.Upwell = jobs.Record{
				Run: k.Run, Model: image, Tier: script, Region: script, OutputText: script + image + bidi,
				Attempts: []jobs.Attempt{{N: 1, Started: now, Error: image + bidi, Tier: script, Region: image, Turn: jobs.Turn(script)}},
			}
			return r, k == key, nil
		},
	})
}

// TestHostileText has strangers' names, models and errors shown as they are.
func TestHostileText(t *testing.T) {
	d := hostile(t)
	url := serve(t, d.Handler())
	b := browser(t)
	b.Show(1280, 900, "light")
	b.Do(chromedp.Navigate(url))
	b.Until(`upwell.state && upwell.state.failures.length`)
	elements := `document.querySelectorAll("img, iframe, object, embed, [onerror], main script").length + document.querySelectorAll("script:not([src])").length`
	harmless := func(where string, b *page.Tab, most int, want ...string) {
		t.Helper()
		if n := page.Value[int](b, elements); n > most {
			t.Errorf("%s: %d elements that are none of the page's", where, n-most)
		}
		text := page.Value[string](b, `document.body.innerText + document.title + [...document.querySelectorAll("[title], [aria-label]")].map(e => e.title + e.ariaLabel).join()`)
		for _, w := range append(want, `<img src=x onerror=alert(1)>`, `"><script>alert(2)</script>`, "safe⟨U+202E⟩gpj.exe⟨U+2066⟩⟨U+0007⟩") {
			if !strings.Contains(text, w) {
				t.Errorf("%s: %q is not to be read", where, w)
			}
		}
		if i := strings.IndexAny(text, "\u202e\u2066\u0007"); i >= 0 {
			t.Errorf("%s: there is a hidden character in %q", where, text[max(0, i-20):])
		}
	}
	harmless("page", b, 0, "Paused: <img", "bad_request")
	b.Shoot("hostile")
	b.Do(chromedp.Evaluate[chromedp.Void](`document.querySelector("#failures button").click()`))
	b.Until(`document.querySelector("#job tbody")`)
	b.Do(chromedp.Evaluate[chromedp.Void](`document.querySelector("#job details").open = true`))
	harmless("job", b, 0, "What the model said")
	b.Shoot("hostile-job")
	b.Fits()
	b.Quiet(url)

	file := filepath.Join(t.ArtifactDir(), "hostile.html")
	out, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(d.Report(out), out.Close()); err != nil {
		t.Fatal(err)
	}
	r := browser(t)
	r.Do(chromedp.Navigate("file://" + file))
	own := page.Value[int](r, `document.querySelectorAll("body > script").length`)
	harmless("report", r, own, "Paused: <img")
	if own != 8 {
		t.Errorf("the report has %d scripts, want its data, uPlot and the page's six", own)
	}
	r.Quiet("file://"+file, "data:image/svg+xml")
}

// TestLogin signs in with a token.
func TestLogin(t *testing.T) {
	d := dashboard.New(dashboard.Config{Meter: progress.NewMeter(), Verb: "worker", Token: "the right one"})
	url := serve(t, d.Handler())
	b := browser(t)
	b.Show(360, 700, "light")
	b.Do(chromedp.Navigate(url))
	b.Fits()
	b.Shoot("login")
	sign := func(token string) {
		b.Do(chromedp.Focus(chromedp.CSS("#token")), chromedp.KeyEvent(token))
		b.Do(chromedp.Evaluate[chromedp.Void](`window.old = true`), chromedp.KeyEvent(kb.Enter))
		b.Until(`!window.old && document.readyState === "complete"`)
	}
	sign("a wrong one")
	if got := b.Text("trouble"); got != "That is not the token." {
		t.Errorf("after a wrong token the page says %q", got)
	}
	b.Show(1280, 700, "dark")
	b.Shoot("login-wrong")
	sign("the right one")
	b.Until(`document.getElementById("state").innerText === "Running"`)
	if got := page.Value[string](b, `location.href + document.cookie + JSON.stringify(localStorage) + JSON.stringify(sessionStorage) + document.documentElement.outerHTML`); strings.Contains(got, "right one") || strings.Contains(got, "upwell-") {
		t.Errorf("the token or the session is to be found in the page: %.300s", got)
	}
	for _, c := range b.Complaints() { // the first page and the wrong token are 401, which the browser logs
		if !strings.Contains(c, "401") {
			t.Errorf("the page complained: %s", c)
		}
	}
}

// TestConnectionLost stops the server under the page, and starts it again.
func TestConnectionLost(t *testing.T) {
	d := dashboard.New(dashboard.Config{Meter: progress.NewMeter(), Verb: "worker", Loopback: true})
	h := patient(t, d.Handler())
	first := &httptest.Server{Listener: fixture.Listen(t), Config: &http.Server{Handler: h}}
	first.Start()
	b := browser(t)
	b.Show(1280, 700, "light")
	b.Do(chromedp.Navigate(first.URL))
	b.Until(`document.getElementById("state").innerText === "Running"`)
	first.Listener.Close() // first, or the page comes back in between, and Close waits for it
	first.CloseClientConnections()
	first.Close()
	b.Until(`document.getElementById("state").innerText === "Connection lost" && document.getElementById("notice").innerText.includes("tries again by itself")`)
	b.Shoot("lost")
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", strings.TrimPrefix(first.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	again := &httptest.Server{Listener: l, Config: &http.Server{Handler: h}}
	again.Start()
	defer again.Close()
	defer again.CloseClientConnections()
	b.Until(`document.getElementById("state").innerText === "Running" && document.getElementById("notice").hidden`)
}

// TestSilence has a server say nothing more, and keep the connection.
func TestSilence(t *testing.T) {
	d := dashboard.New(dashboard.Config{Meter: progress.NewMeter(), Verb: "worker", Loopback: true})
	h := d.Handler()
	snapshot := get(t, h, "/api/snapshot").Body.String()
	var streams atomic.Int64
	url := serve(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/api/events" || streams.Add(1) != 1 {
			h.ServeHTTP(rw, r)
			return
		}
		// The first stream begins as it should, and is then stuck.
		rw.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprintf(rw, "event: full\ndata: %s\n\n", snapshot)
		http.NewResponseController(rw).Flush()
		<-r.Context().Done()
	}))
	b := browser(t)
	b.Do(chromedp.Navigate(url))
	b.Until(`document.getElementById("state").innerText === "Running"`)
	b.Do(chromedp.Evaluate[chromedp.Void](`
		window.said = []; // the connection is not lost for long
		new MutationObserver(() => {
			window.said.push(document.getElementById("state").innerText);
			upwell.silence = 600000; // the next one may be slow
		}).observe(document.getElementById("state"), { subtree: true, childList: true, characterData: true });
		upwell.silence = 3000`))
	b.Until(`window.said.join() === "Connection lost,Running"`)
	if n := streams.Load(); n != 2 {
		t.Errorf("%d streams, want another one in the place of the silent one", n)
	}
}

// TestCrowded opens one page too many.
func TestCrowded(t *testing.T) {
	d := dashboard.New(dashboard.Config{Meter: progress.NewMeter(), Verb: "worker", Loopback: true})
	url := serve(t, d.Handler())
	for range 16 {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"/api/events", nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
	}
	b := browser(t)
	b.Do(chromedp.Navigate(url))
	b.Until(`document.getElementById("state").innerText === "Waiting for a place" && document.getElementById("notice").innerText.startsWith("As many pages are open")`)
	if got := b.Text("done"); got != "0" {
		t.Errorf("the page says %q jobs are done, want what a snapshot says", got)
	}
}

// TestMemory leaves the page open for an hour.
func TestMemory(t *testing.T) {
	b := browser(t)
	rec := record(t, plot{jobs: 12_000, span: time.Hour, scale: 0.1, fail: mixed})
	const first = 600
	url, more := rec.replay(t, first)
	b.Show(1280, 900, "light")
	b.Do(chromedp.Navigate(url))
	follow(b, "upwell.state.at === "+rec.at(t, first))
	heap, nodes := b.Usage()
	more()
	follow(b, `document.getElementById("state").innerText === "Done"`)
	after, nodesAfter := b.Usage()
	t.Logf("after 10 minutes: %.2f MB, %d nodes; after an hour and %d messages: %.2f MB, %d nodes", heap/1e6, nodes, len(rec.events), after/1e6, nodesAfter)
	// Another class of failures or more digits take some; a kilobyte a minute would not
	// be found in this, and be 1.4 MB a day.
	if after-heap > 1e6 || nodesAfter-nodes > 150 {
		t.Errorf("grown by %.2f MB and %d nodes, want at most 1 MB and 150", (after-heap)/1e6, nodesAfter-nodes)
	}
}
