package mantle

import (
	"bytes"
	"cmp"
	"strconv"
	"unicode/utf8"

	"upwell/jobs"
	"upwell/jobs/skim"
	"upwell/worker"
)

const (
	// preamble is more than an endpoint puts before a prompt of its own accord, in
	// tokens: a system prompt, and how it asks for JSON.
	preamble = 2048

	// imageMost is more tokens than an image takes, however large. Nobody publishes
	// a formula for Grok's; other models' stay below this at the highest detail.
	imageMost = 8192

	// maxContext is the longest prompt of all: the context of Grok 4.3.
	maxContext = 1_000_000
)

// MostUSD implements [worker.Endpoint]. A prompt has no more tokens than bytes, as a
// token stands for one byte at least, and an answer no more than its limit. A call
// for flex may be served, and charged, as default.
//
// A request that has more read than it holds, as it names a file, a stored
// conversation or a tool that the endpoint runs itself, may have the longest prompt
// of all. What such a tool makes the model read again, round by round, has no bound.
func (c *Client) MostUSD(call worker.Call) jobs.USD {
	tier := call.Lane.Tier
	p := c.Price(call.Job.Model, tier)
	if p == nil {
		return jobs.UnknownUSD()
	}
	in, out := max(p.Input, p.Cached), p.Output
	switch d := c.Price(call.Job.Model, ""); {
	case d != nil:
		in, out = max(in, d.Input, d.Cached), max(out, d.Output)
	case tier == "flex":
		return jobs.UnknownUSD()
	}
	e := extrasOf(call.Job)
	return jobs.USD(float64(e.prompt(call))*in+float64(c.answer(call))*float64(e.answers)*out) / 1e6
}

// extras are what makes a call dearer than its length tells.
type extras struct {
	answers int  // that are asked for
	reads   bool // more than the request holds
}

func extrasOf(j *jobs.Job) extras {
	e := extras{answers: 1}
	for m := range skim.Members(j.Body, 0) {
		if m.Unset(j.Body) {
			continue
		}
		switch string(m.Key) {
		case "n":
			if n, err := strconv.Atoi(string(m.Of(j.Body))); err == nil {
				e.answers = max(e.answers, n)
			}
		case "previous_response_id", "conversation", "prompt", "web_search_options", "search_parameters":
			e.reads = true
		case "tools":
			if j.Body[m.At] != '[' {
				continue
			}
			for tool := range skim.Items(j.Body, m.At) {
				kind := skim.Find(j.Body, tool.At, "type").Of(j.Body)
				e.reads = e.reads || string(kind) != `"function"` && string(kind) != `"custom"`
			}
		}
	}
	for _, name := range []string{`"file_id"`, `"file_url"`} {
		e.reads = e.reads || bytes.Contains(j.Body, []byte(name)) // within a text, its quotes are escaped
	}
	return e
}

// prompt is the most tokens that the model reads.
func (e extras) prompt(call worker.Call) int {
	body := call.Job.Body
	n := sent(call) + len(call.Job.Schema)
	if !utf8.Valid(body) {
		n *= len("\uFFFD") // that may stand in the place of each byte
	}
	n += preamble + imageMost*(bytes.Count(body, []byte(`"image_url"`))+bytes.Count(body, []byte(`"input_image"`)))
	if e.reads {
		n = max(n, maxContext)
	}
	return n
}

// answer is the most tokens that an answer may have. What is no number is left to the
// endpoint, which may make one of it.
func (c *Client) answer(call worker.Call) int {
	o := outlineOf(call.Job)
	limits := []skim.Span{o.maxOutput}
	if call.Job.URL == jobs.ChatCompletions {
		limits = []skim.Span{o.maxCompletion, o.maxTokens}
	}
	most := call.MaxOutput
	for _, v := range limits {
		if v.Unset(call.Job.Body) || call.MaxOutput > 0 && v == limits[0] {
			continue // it is set, or replaced
		}
		n, err := strconv.Atoi(string(v.Of(call.Job.Body)))
		if err != nil {
			n = MaxOutput
		}
		most = max(most, n)
	}
	if most <= 0 {
		return cmp.Or(c.cfg.MaxOutputTokens, MaxOutput)
	}
	return most
}
