package dashboard

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"html/template"
	"io"
	"strings"
)

// inlined is all that a report holds beside the page's text. All of it is part of
// the program or JSON, so that none is escaped.
type inlined struct {
	Policy  string // content security policy: these scripts and styles, and no request
	Scripts []template.JS
	Styles  []template.CSS
	Icon    template.URL
	State   template.JS // JSON without <, > and &
}

// Report writes what is shown now as one HTML file, which needs nothing else and asks
// nobody for anything: it can be kept, and opened from a disk or a mail. Jobs cannot
// be looked up in it; the newest failures are there with their reasons.
func (d *Dashboard) Report(w io.Writer) error {
	d.mu.Lock()
	if d.outcome == "" || d.last == nil {
		d.next()
	}
	f := d.last
	d.mu.Unlock()
	if f.err != nil {
		return f.err
	}
	in := &inlined{
		State: template.JS(f.full), // package json has escaped <, > and &, and what JavaScript takes for the end of a line
		Icon:  template.URL("data:image/svg+xml;base64," + base64.StdEncoding.EncodeToString(read("favicon.svg"))),
	}
	in.Policy = "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; script-src"
	for _, name := range scripts {
		text := strings.TrimSpace(string(read(name)))
		in.Scripts = append(in.Scripts, template.JS(text))
		in.Policy += digest(text)
	}
	in.Policy += "; style-src"
	for _, name := range styles {
		text := strings.TrimSpace(string(read(name)))
		in.Styles = append(in.Styles, template.CSS(text))
		in.Policy += digest(text)
	}
	var b bytes.Buffer
	if err := pages().ExecuteTemplate(&b, "page.html", layout{Title: "Report: " + d.title(), Report: in}); err != nil {
		return err
	}
	_, err := w.Write(b.Bytes())
	return err
}

// digest returns how a policy names a script or style.
func digest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return " 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}
