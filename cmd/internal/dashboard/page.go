package dashboard

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"html/template"
	"net/http"
	"path"
	"slices"
	"time"
)

//go:embed page
var files embed.FS

// The page's own scripts and styles, in the order in which they are read.
var (
	scripts = []string{"uplot/uPlot.iife.min.js", "format.js", "dom.js", "chart.js", "panels.js", "job.js", "app.js"}
	styles  = []string{"uplot/uPlot.min.css", "style.css"}
)

// read returns a file of the page.
func read(name string) []byte {
	text, err := files.ReadFile("page/" + name)
	if err != nil {
		panic(err) // the folder is part of the program
	}
	return text
}

// assets returns what is served beside the page, by path.
func assets() map[string]http.Handler {
	m := make(map[string]http.Handler)
	for _, name := range slices.Concat([]string{"favicon.svg", "login.css", "uplot/LICENSE"}, scripts, styles) {
		m[name] = asset(name)
	}
	return m
}

// asset serves a file, which a browser may keep if it asks each time whether it is
// still the same.
func asset(name string) http.Handler {
	text := read(name)
	sum := sha256.Sum256(text)
	tag := `"` + hex.EncodeToString(sum[:8]) + `"`
	kind := map[string]string{ // whatever the machine's tables say
		".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml", "": "text/plain; charset=utf-8",
	}[path.Ext(name)]
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Cache-Control", "no-cache")
		rw.Header().Set("ETag", tag)
		rw.Header().Set("Content-Type", kind)
		http.ServeContent(rw, r, "", time.Time{}, bytes.NewReader(text))
	})
}

// A layout is what page.html is filled with.
type layout struct {
	Title   string
	Scripts []string // paths
	Styles  []string
	Report  *inlined // nil on the page that is served
}

// page serves the page, which is the same for everybody: what it shows follows.
func (d *Dashboard) page(rw http.ResponseWriter, _ *http.Request) {
	var b bytes.Buffer
	if err := pages().ExecuteTemplate(&b, "page.html", layout{Title: d.title(), Scripts: scripts, Styles: styles}); err != nil {
		http.Error(rw, "upwell: the page could not be made", http.StatusInternalServerError)
		return
	}
	rw.Header().Set("Content-Type", "text/html; charset=utf-8")
	rw.Write(b.Bytes()) //nolint:errcheck // nobody is there any more
}

func (d *Dashboard) title() string {
	if d.cfg.Run == "" {
		return "upwell " + d.cfg.Verb
	}
	return d.cfg.Run + " · upwell " + d.cfg.Verb
}

// welcome asks for the token.
func welcome(rw http.ResponseWriter, status int, trouble string) {
	var b bytes.Buffer
	if err := pages().ExecuteTemplate(&b, "login.html", trouble); err != nil {
		http.Error(rw, "upwell: the page could not be made", http.StatusInternalServerError)
		return
	}
	rw.Header().Set("Content-Type", "text/html; charset=utf-8")
	rw.WriteHeader(status)
	rw.Write(b.Bytes()) //nolint:errcheck // nobody is there any more
}

func pages() *template.Template {
	return template.Must(template.ParseFS(files, "page/page.html", "page/login.html"))
}
