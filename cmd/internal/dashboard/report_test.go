package dashboard_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/html"

	"upwell/cmd/internal/dashboard"
	"upwell/cmd/internal/progress"
	"upwell/jobs"
	"upwell/worker"
)

// TestReport has a report be one file that holds all, runs nothing but the page's
// scripts, and gives strangers' text no way out of its data.
func TestReport(t *testing.T) {
	const vile = "</script><script>alert(1)</script><!--<script> & \u2028\u2029"
	m := progress.NewMeter()
	k := jobs.Key{Run: vile, CustomID: vile}
	m.Observe(worker.Event{Kind: worker.Buried, At: time.Now(), Key: k, Letter: &jobs.DeadLetter{Key: k, Class: jobs.Refused, Reason: vile}})
	m.Observe(worker.Event{Kind: worker.Paused, At: time.Now(), Err: errors.New(vile)})
	d := newDashboard(dashboard.Config{Meter: m, Run: vile, Verb: vile, Version: vile})
	var out bytes.Buffer
	if err := d.Report(&out); err != nil {
		t.Fatal(err)
	}
	doc, err := html.Parse(bytes.NewReader(out.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	var policy, data string
	var inline []string
	for n := range doc.Descendants() {
		if n.Type != html.ElementNode {
			continue
		}
		attrs := make(map[string]string)
		for _, a := range n.Attr {
			attrs[a.Key] = a.Val
			if strings.HasPrefix(a.Key, "on") || a.Key == "style" {
				t.Errorf("<%s %s=%q>: in line", n.Data, a.Key, a.Val)
			}
			if (a.Key == "src" || a.Key == "href" || a.Key == "action") && !strings.HasPrefix(a.Val, "data:image/svg+xml;base64,") && !strings.HasPrefix(a.Val, "#") {
				t.Errorf("<%s %s=%q>: want nothing outside of the file", n.Data, a.Key, a.Val)
			}
		}
		switch {
		case attrs["http-equiv"] == "Content-Security-Policy":
			policy = attrs["content"]
		case n.Data == "script" && attrs["id"] == "data":
			data = n.FirstChild.Data
		case n.Data == "script", n.Data == "style":
			inline = append(inline, n.FirstChild.Data)
		}
	}
	if len(inline) != 9 {
		t.Errorf("%d scripts and styles, want the page's nine", len(inline))
	}
	for _, text := range inline {
		sum := sha256.Sum256([]byte(text))
		if !strings.Contains(policy, "'sha256-"+base64.StdEncoding.EncodeToString(sum[:])+"'") {
			t.Errorf("the policy does not know %.60q", text)
		}
	}
	if !strings.HasPrefix(policy, "default-src 'none'; ") || strings.Contains(policy, "unsafe") || strings.Contains(policy, "self") || strings.Contains(policy, "http") {
		t.Errorf("policy %q, want nothing but what is in the file", policy)
	}
	if strings.ContainsAny(data, "<>&\u2028\u2029") {
		t.Errorf("the data has what HTML or JavaScript minds: %.200s", data)
	}
	var state struct {
		State struct {
			Run      string
			Verb     string
			Paused   string
			Failures []progress.Class
		}
	}
	if err := json.Unmarshal([]byte(data), &state); err != nil {
		t.Fatal(err)
	}
	if s := state.State; s.Run != vile || s.Verb != vile || s.Paused != vile || len(s.Failures) != 1 || s.Failures[0].Examples[0].Reason != vile {
		t.Errorf("the data is %+v, want what happened", s)
	}
	if n := out.Len(); n > 256<<10 {
		t.Errorf("the report has %d bytes, want what a mail can carry", n)
	}

	// Another one is as things are then; after the end, as they were.
	m.Observe(worker.Event{Kind: worker.Stored, At: time.Now()})
	d.End("done")
	m.Observe(worker.Event{Kind: worker.Stored, At: time.Now()})
	out.Reset()
	if err := d.Report(&out); err != nil || !strings.Contains(out.String(), `"settled":2`) || !strings.Contains(out.String(), `"outcome":"done"`) {
		t.Errorf("after the end the report has other numbers, %v", err)
	}
}
