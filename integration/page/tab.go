// Package page looks at a web page as people do: in a real browser, which tests drive.
//
// A [Tab] hears whatever the page complains of and asks for, so that a test can say
// that there was nothing.
package page

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/heapprofiler"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/memory"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// patience is how long a page has to become what a test waits for, on a machine that
// has much else to do. It is reached only when the test fails.
const patience = 2 * time.Minute

// A Tab is a page in a real browser, with all that it said and asked for. A method that
// does not succeed within two minutes fails the test.
type Tab struct {
	t   *testing.T
	ctx context.Context //nolint:containedctx // it is how chromedp names a tab

	mu        sync.Mutex
	complaint []string // errors of the console, exceptions, dialogs
	requests  []string // URLs
}

// Open starts a browser of its own with one empty tab. It skips the test where
// there is no Chromium, or fails it if one is required.
func Open(t *testing.T, required bool) *Tab {
	t.Helper()
	opts := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]),
		chromedp.ExecPath(chromium(t, required)), chromedp.UserDataDir(t.TempDir()), chromedp.Env("TMPDIR="+t.TempDir()), // it leaves folders behind
		chromedp.Flag("headless", "new"), chromedp.Flag("no-sandbox", true), // tests may be root
		chromedp.Flag("disable-component-update", true),
	)
	ctx, cancel := chromedp.NewExecAllocator(t.Context(), opts...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	b := &Tab{t: t, ctx: ctx}
	if err := chromedp.Listen(ctx, b.hear); err != nil {
		t.Fatalf("start of the browser: %v", err)
	}
	dialogs := chromedp.Events(ctx, page.JavascriptDialogOpening)
	var closing sync.WaitGroup
	closing.Go(func() {
		for _, err := range dialogs {
			if err != nil {
				return
			}
			// A dialog that stays open would stop the page; it was heard of already.
			_, _ = chromedp.Call(ctx, page.HandleJavaScriptDialog, page.HandleJavaScriptDialogParams{})
		}
	})
	t.Cleanup(func() { cancel(); closing.Wait() })
	return b
}

// chromium returns the path of a browser.
func chromium(t *testing.T, required bool) string {
	t.Helper()
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	const missing = "no chromium, chromium-browser or google-chrome on PATH: the page is not looked at"
	if required {
		t.Fatal(missing)
	}
	t.Skip(missing)
	return ""
}

// hear notes what the page says. It is called in the loop that reads from the browser.
func (b *Tab) hear(ev any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch ev := ev.(type) {
	case *runtime.EventConsoleAPICalled:
		if ev.Type == runtime.ConsoleAPICalledTypeError || ev.Type == runtime.ConsoleAPICalledTypeWarning {
			var words []string
			for _, a := range ev.Args {
				words = append(words, string(a.Value))
			}
			b.complaint = append(b.complaint, fmt.Sprintf("console.%s: %s", ev.Type, strings.Join(words, " ")))
		}
	case *runtime.EventExceptionThrown:
		d := ev.ExceptionDetails
		text := d.Text
		if d.Exception != nil {
			text += " " + d.Exception.Description
		}
		b.complaint = append(b.complaint, "exception: "+text)
	case *log.EventEntryAdded:
		if ev.Entry.Level == log.EntryLevelError || ev.Entry.Level == log.EntryLevelWarning {
			b.complaint = append(b.complaint, fmt.Sprintf("log: %s %s", ev.Entry.Text, ev.Entry.URL))
		}
	case *page.EventJavascriptDialogOpening:
		b.complaint = append(b.complaint, "dialog: "+ev.Message)
	case *network.EventRequestWillBeSent:
		b.requests = append(b.requests, ev.Request.URL)
	}
}

// Do runs steps, and fails the test if one does not succeed in time.
func (b *Tab) Do(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		b.t.Fatalf("browser: %v", err)
	}
}

// Value returns what a JavaScript expression is, or becomes if it is a promise. It is run by the debugger, which the
// page's policy does not bind.
func Value[T any](b *Tab, expression string) T {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	if err != nil {
		b.t.Fatalf("%s: %v", expression, err)
	}
	return v
}

// Until waits for a JavaScript expression to be true.
func (b *Tab) Until(expression string) {
	b.t.Helper()
	for end := time.Now().Add(patience); !Value[bool](b, "!!("+expression+")"); {
		if time.Now().After(end) {
			b.Shoot("timeout")
			b.t.Fatalf("after %v it is not so that %s; complaints: %q", patience, expression, b.Complaints())
		}
		b.Do(chromedp.Sleep(20 * time.Millisecond))
	}
}

// Text returns the text of the element of that id, as it is seen.
func (b *Tab) Text(id string) string {
	b.t.Helper()
	return Value[string](b, fmt.Sprintf("document.getElementById(%q).innerText", id))
}

// Show has the tab as wide and high as that, in light or dark.
func (b *Tab) Show(width, height int64, scheme string) {
	b.t.Helper()
	b.Do(chromedp.EmulateViewport(width, height))
	b.Call(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
		})
		return err
	})
	// The page has drawn itself anew, and a chart that it drew before is on the screen.
	Value[bool](b, "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))")
}

// Call runs commands of the browser that no step is made of.
func (b *Tab) Call(f func(ctx context.Context, t *chromedp.Target) error) {
	b.t.Helper()
	b.Do(chromedp.Func(f))
}

// Shoot keeps a picture of the whole page among the test's artifacts.
func (b *Tab) Shoot(name string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	png, err := chromedp.Run(ctx, chromedp.FullScreenshot(100))
	if err != nil {
		b.t.Fatalf("screenshot: %v", err)
	}
	if err := os.WriteFile(filepath.Join(b.t.ArtifactDir(), name+".png"), png, 0o644); err != nil {
		b.t.Fatal(err)
	}
}

// Fits fails the test if the page is wider than its window.
func (b *Tab) Fits() {
	b.t.Helper()
	if wide := Value[string](b, `document.scrollingElement.scrollWidth <= innerWidth ? "" :
		document.scrollingElement.scrollWidth + " of " + innerWidth + ": " + [...document.querySelectorAll("body *")].filter(e =>
			e.getBoundingClientRect().right > innerWidth && !e.closest(".scroll")).map(e => e.tagName + "#" + e.id + "." + e.className).join(", ")`); wide != "" {
		b.t.Errorf("the page is too wide: %s", wide)
	}
}

// Usage returns the bytes of JavaScript's heap and the number of nodes, once the
// garbage is collected.
func (b *Tab) Usage() (heap float64, nodes int64) {
	b.t.Helper()
	b.Call(func(ctx context.Context, t *chromedp.Target) error {
		for range 3 { // what one collection sets free may hold what the next one does
			if _, err := cdp.Call(ctx, t, heapprofiler.CollectGarbage, cdp.Empty{}); err != nil {
				return err
			}
		}
		h, err := cdp.Call(ctx, t, runtime.GetHeapUsage, cdp.Empty{})
		if err != nil {
			return err
		}
		c, err := cdp.Call(ctx, t, memory.GetDOMCounters, cdp.Empty{})
		heap, nodes = h.UsedSize, c.Nodes
		return err
	})
	return heap, nodes
}

// Complaints returns what the page has complained of so far.
func (b *Tab) Complaints() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.complaint)
}

// Quiet fails the test if there was an error, a dialog, or a request to anything that
// does not begin with one of these.
func (b *Tab) Quiet(allowed ...string) {
	b.t.Helper()
	for _, c := range b.Complaints() {
		b.t.Errorf("the page complained: %s", c)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, url := range b.requests {
		if !slices.ContainsFunc(allowed, func(a string) bool { return strings.HasPrefix(url, a) }) {
			b.t.Errorf("the page asked for %s", url)
		}
	}
}
