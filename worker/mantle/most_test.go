package mantle_test

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"fmt"
	"image"
	"image/png"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"upwell/jobs"
	"upwell/throttle"
	"upwell/worker"
	"upwell/worker/mantle"
	"upwell/worker/mantle/mantlesim"
)

// What a call may cost at most, of a model whose tokens cost as many dollars as there
// are a million of: the sum of both is in tokens then.
func mostOf(t *testing.T, cfg mantle.Config, cl worker.Call) int {
	t.Helper()
	cfg.Prices = mantle.PriceList{Models: map[string]map[string]jobs.Price{"m": {"default": {Input: 1, Output: 1000}}}}
	d := newClient(t, cfg).MostUSD(cl)
	if !d.Known() {
		t.Fatal("MostUSD is unknown, want an amount")
	}
	return int(math.Round(float64(d) * 1e6))
}

func TestMostUSD(t *testing.T) {
	const preamble, picture, context = 2048, 8192, 1_000_000
	for _, tc := range []struct {
		name, url, body string
		max             int // of the operator
		call            worker.Call
		extra, output   int
	}{
		{name: "no limit", body: `"input":"x"`, output: 131072},
		{name: "the operator's limit", body: `"input":"x"`, max: 50, output: 50},
		{name: "its own limit", body: `"input":"x","max_output_tokens":700`, max: 50, output: 700},
		{name: "more room", body: `"input":"x","max_output_tokens":700`, call: worker.Call{MaxOutput: 2800}, output: 2800},
		{name: "no number", body: `"input":"x","max_output_tokens":1e3`, max: 50, output: 131072},
		{name: "the other API's limit", body: `"input":"x","max_tokens":7`, output: 131072},
		{name: "chat", url: jobs.ChatCompletions, body: `"messages":[],"max_tokens":70`, output: 70},
		{name: "two limits", url: jobs.ChatCompletions, body: `"messages":[],"max_tokens":70,"max_completion_tokens":50`, output: 70},
		{name: "more room beside two limits", url: jobs.ChatCompletions, body: `"messages":[],"max_tokens":900,"max_completion_tokens":50`, call: worker.Call{MaxOutput: 200}, output: 900},
		{name: "three answers", url: jobs.ChatCompletions, body: `"messages":[],"max_tokens":70,"n":3`, output: 210},
		{name: "a repair", body: `"input":"x","max_output_tokens":7`, call: worker.Call{Flaw: &worker.Flaw{Text: "12345", Findings: "678"}}, extra: 8, output: 7},
		{name: "an image", body: `"input":[{"type":"input_image","image_url":"data:image/png;base64,xx"}],"max_output_tokens":7`, extra: 2 * picture, output: 7},
		{name: "a word for an image", body: `"input":"\"image_url\"","max_output_tokens":7`, output: 7},
		{name: "a file", body: `"input":[{"type":"input_file","file_id":"f"}],"max_output_tokens":7`, extra: context, output: 7},
		{name: "a conversation", body: `"input":"x","previous_response_id":"r","max_output_tokens":7`, extra: context, output: 7},
		{name: "no conversation", body: `"input":"x","previous_response_id":null,"max_output_tokens":7`, output: 7},
		{name: "a tool of ours", body: `"input":"x","tools":[{"type":"function","name":"f"}],"max_output_tokens":7`, output: 7},
		{name: "a tool of theirs", body: `"input":"x","tools":[{"type":"function"},{"type":"web_search"}],"max_output_tokens":7`, extra: context, output: 7},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cl := call(t, cmp.Or(tc.url, jobs.Responses), `{"model":"m",`+tc.body+`}`)
			cl.MaxOutput, cl.Flaw = tc.call.MaxOutput, tc.call.Flaw
			want := len(cl.Job.Body) + preamble + tc.extra
			if tc.extra == context {
				want = context
			}
			if got := mostOf(t, mantle.Config{MaxOutputTokens: tc.max}, cl); got != want+1000*tc.output {
				t.Errorf("MostUSD = %d tokens and %d, want %d and %d", got%1000, got/1000, want, tc.output)
			}
		})
	}
}

// TestMostUSDOfATier takes the dearer of what is asked for and what may serve it.
func TestMostUSDOfATier(t *testing.T) {
	c := newClient(t, mantle.Config{})
	of := func(model, tier string) jobs.USD {
		cl := call(t, jobs.Responses, `{"model":"`+model+`","input":"x","max_output_tokens":1000}`)
		cl.Lane = throttle.Lane{Model: model, Tier: tier}
		return c.MostUSD(cl)
	}
	normal := of("xai.grok-4.3", "default")
	if got := of("xai.grok-4.3", "flex"); got != normal {
		t.Errorf("MostUSD on flex = %v, want %v: it may be served as default", got, normal)
	}
	if got := of("xai.grok-4.3", "priority"); math.Abs(float64(got/normal)-1.75) > 1e-9 {
		t.Errorf("MostUSD on priority = %v, want 1.75 times %v", got, normal)
	}
	if got := of("xai.grok-4.3", ""); got != normal {
		t.Errorf("MostUSD without a tier = %v, want %v", got, normal)
	}
	for model, tier := range map[string]string{"xai.grok-4.3": "reserved", "unheard-of": "default"} {
		if got := of(model, tier); got.Known() {
			t.Errorf("MostUSD of %s on %s = %v, want that nobody knows", model, tier, got)
		}
	}
}

// TestMostUSDOfFlexAlone knows no bound for a call that may be served at a price that
// nobody knows.
func TestMostUSDOfFlexAlone(t *testing.T) {
	c := newClient(t, mantle.Config{Prices: mantle.PriceList{Models: map[string]map[string]jobs.Price{
		"m": {"flex": {Input: 1, Output: 1}, "priority": {Input: 2, Output: 2}},
	}}})
	for tier, known := range map[string]bool{"flex": false, "priority": true} {
		cl := call(t, jobs.Responses, `{"model":"m","input":"x","max_output_tokens":1000}`)
		cl.Lane = throttle.Lane{Model: "m", Tier: tier}
		if got := c.MostUSD(cl); got.Known() != known {
			t.Errorf("MostUSD on %s = %v, want it to be known: %v", tier, got, known)
		}
	}
}

// TestMostUSDIsNeverExceeded compares with what the simulated endpoint bills for all
// kinds of bodies.
func TestMostUSDIsNeverExceeded(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	sim := mantlesim.New(mantlesim.Config{Seed: 1, Output: mantlesim.Size{Median: 400, Sigma: 1.5, Max: 20000}})
	c := newClient(t, mantle.Config{MaxOutputTokens: 3000, APIKey: "key", BaseURL: "http://mantle.test/openai/v1", HTTPClient: &http.Client{Transport: handled{sim}}})
	texts := []func(int) string{
		func(n int) string { return strings.Repeat("word ", n) },
		func(n int) string { return strings.Repeat(`{\"k\":1.25},`, n) },
		func(n int) string { return strings.Repeat("字", n) },
		func(n int) string { return strings.Repeat(`\u00e9`, n) },
	}
	var picture bytes.Buffer
	if err := png.Encode(&picture, image.NewGray(image.Rect(0, 0, 1, 1))); err != nil { // the smallest, in bytes for a token
		t.Fatal(err)
	}
	for i := range 300 {
		text := texts[r.IntN(len(texts))](r.IntN(3000))
		tier := []string{"flex", "default", "priority"}[r.IntN(3)]
		url, body := jobs.Responses, fmt.Sprintf(`{"model":"xai.grok-4.3","input":[{"role":"user","content":[{"type":"input_text","text":"%s"},{"type":"input_image","image_url":"data:image/png;base64,%s"}]}]}`, text, base64.StdEncoding.EncodeToString(picture.Bytes()))
		if i%2 == 0 {
			url, body = jobs.ChatCompletions, fmt.Sprintf(`{"model":"xai.grok-4.3","messages":[{"role":"user","content":"%s"}],"max_tokens":%d,"reasoning_effort":"high"}`, text, 1+r.IntN(2000))
		}
		cl := call(t, url, body)
		cl.Lane = throttle.Lane{Model: "xai.grok-4.3", Tier: tier}
		before := sim.Counts().Cost
		_, _ = c.Complete(t.Context(), cl) // many of them are cut off
		cost, most := sim.Counts().Cost-before, float64(c.MostUSD(cl))
		if cost <= 0 || cost > most {
			t.Errorf("call %d costs %v, want something, and at most %v: %.100s", i, cost, most, body)
		}
	}
}

// handled is a transport to a handler in this process.
type handled struct{ http.Handler }

func (h handled) RoundTrip(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result(), nil
}
