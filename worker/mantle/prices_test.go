package mantle_test

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"upwell/jobs"
	"upwell/throttle"
	"upwell/worker"
	"upwell/worker/mantle"
)

func TestPriceOf(t *testing.T) {
	c := newClient(t, mantle.Config{})
	million := jobs.Usage{InputTokens: 1e6, CachedTokens: 0, OutputTokens: 1e6}
	for _, tc := range []struct {
		u    jobs.Usage
		tier string
		want float64
	}{
		{million, "default", 3.75},
		{million, "", 3.75},
		{million, "flex", 0.625 + 1.25},
		{million, "priority", 2.1875 + 4.375},
		{jobs.Usage{InputTokens: 1e6, CachedTokens: 1e6}, "default", 0.20},
		{jobs.Usage{InputTokens: 1e6, CachedTokens: 9e6}, "default", 0.20}, // a count that cannot be
		{jobs.Usage{}, "flex", 0},
	} {
		if got := c.Price(grok, tc.tier).Of(tc.u); math.Abs(float64(got)-tc.want) > 1e-12 {
			t.Errorf("%+v at %q costs %v, want %v", tc.u, tc.tier, got, tc.want)
		}
	}
}

func TestPrice(t *testing.T) {
	own, err := mantle.ParsePrices([]byte(`{"date":"2026-01-02","source":"me","models":{"m":{"default":{"input":1,"cached":0,"output":2}}}}`))
	if err != nil {
		t.Fatal(err)
	}
	c := newClient(t, mantle.Config{Prices: own})
	for model, want := range map[string]jobs.Price{
		grok: {Input: 1.25, Cached: 0.20, Output: 2.50, AsOf: mantle.DefaultPrices().Date},
		"m":  {Input: 1, Output: 2, AsOf: "2026-01-02"},
	} {
		if got := c.Price(model, ""); got == nil || *got != want {
			t.Errorf("Price(%s) = %v, want %v", model, got, want)
		}
	}
	for _, of := range [][2]string{{"nobody's", "default"}, {grok, "reserved"}, {"m", "flex"}} {
		if got := c.Price(of[0], of[1]); got != nil {
			t.Errorf("Price%v = %v, want nothing", of, got)
		}
	}
}

func TestParsePricesRefuses(t *testing.T) {
	for text, want := range map[string]string{
		`[]`: "prices: the file: a JSON array",
		`{"date":"2026-01-02","models":{"m":{"flex":{"input":"1"}}}}`:                                 "models.input: a JSON string",
		`{"date":"2026-01-02","models":{"m":{"flex":{"input":1,"cached":1e300,"output":1}}}}`:         "models.m.flex.cached: want a price",
		`{"date":"2026-01-02","models":{"m":{"flex":{"input":1,"cached":1,"output":1}}}} x`:           "more text after the list",
		`{"date":"2026-01-02","models":{"m":{"default":{"input":1,"cached":0,"output":2}}},"note":1}`: `unknown field "note"`,
		`{"date":"soon","models":{"m":{"default":{"input":1,"cached":0,"output":2}}}}`:                `date: "soon", want the day`,
		`{"date":"2026-01-02","models":{"m":{"flex":{"input":1,"output":2}}}}`:                        "models.m.flex.cached: want a price",
		`{"date":"2026-01-02","models":{"m":{"flex":{"input":-1,"cached":0,"output":2}}}}`:            "models.m.flex.input: want a price",
		`{"date":"2026-01-02","models":{"m":{"flex":{"input":1,"cached":0,"output":2,"usd":0}}}}`:     `unknown field "usd"`,
		`{"date":"2026-01-02"}`: "models: none",
	} {
		if l, err := mantle.ParsePrices([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ParsePrices(%s) = %v, %v, want %q", text, l, err, want)
		}
	}
}

// What is booked is the tier that served, not the one that was asked for.
func TestCostFollowsTheTierThatServed(t *testing.T) {
	for served, want := range map[string]float64{`"default"`: 2.5, `"flex"`: 1.25, `null`: 4.375} {
		body := fmt.Sprintf(`{"service_tier":%s,"choices":[{"finish_reason":"stop","message":{"content":"x"}}],"usage":{"completion_tokens":1000000}}`, served)
		cl := call(t, jobs.ChatCompletions, prompt(grok))
		cl.Lane.Tier = "priority"
		ans, err := newClient(t, mantle.Config{HTTPClient: always(200, body)}).Complete(t.Context(), cl)
		if err != nil || math.Abs(float64(ans.CostUSD)-want) > 1e-12 {
			t.Errorf("served %s: %v, %v, want %v", served, ans.CostUSD, err, want)
		}
	}
}

// An answer that does not count its tokens costs what nobody knows.
func TestUncountedCost(t *testing.T) {
	body := `{"choices":[{"finish_reason":"stop","message":{"content":"x"}}]}`
	ans, err := newClient(t, mantle.Config{HTTPClient: always(200, body)}).Complete(t.Context(), call(t, jobs.ChatCompletions, prompt(grok)))
	if err != nil || ans.CostUSD.Known() {
		t.Errorf("%v, %v, want an unknown cost", ans.CostUSD, err)
	}
}

func TestCostOfASecondCall(t *testing.T) {
	cl := call(t, jobs.Responses, `{"model":"m","input":"x","max_output_tokens":700}`)
	cl.MaxOutput, cl.Flaw = 2800, &worker.Flaw{Text: strings.Repeat("x", 1000), Findings: strings.Repeat("y", 500)}
	want := throttle.Cost{Input: (len(cl.Job.Body) + 1500) * 2 / 5, Output: 2800}
	if got := newClient(t, mantle.Config{}).Cost(cl); got != want {
		t.Errorf("Cost = %v, want %v", got, want)
	}
}

func TestCost(t *testing.T) {
	input := `"input":"` + fmt.Sprintf("%0950d", 0) + `"`
	for _, tc := range []struct {
		url, body string
		max, want int
	}{
		{jobs.Responses, `"max_output_tokens":700`, 50, 700},
		{jobs.Responses, `"max_output_tokens":null`, 50, 50},
		{jobs.Responses, `"max_tokens":700`, 50, 50}, // the other API's
		{jobs.Responses, `"x":1`, 0, 131072},
		{jobs.ChatCompletions, `"max_tokens":700`, 50, 700},
		{jobs.ChatCompletions, `"max_completion_tokens": 700 ,"max_tokens":9`, 50, 700},
		{jobs.ChatCompletions, `"max_tokens":"many"`, 50, 50},
		{jobs.ChatCompletions, `"max_tokens":-1`, 0, 131072},
	} {
		cl := call(t, tc.url, `{"model":"m",`+tc.body+`,`+input+`}`)
		want := throttle.Cost{Input: len(cl.Job.Body) * 2 / 5, Output: tc.want}
		if d := cmp.Diff(want, newClient(t, mantle.Config{MaxOutputTokens: tc.max}).Cost(cl)); d != "" {
			t.Errorf("Cost of %s (-want +got):\n%s", tc.body, d)
		}
	}
}

func TestCostLearns(t *testing.T) {
	cl := call(t, jobs.Responses, `{"model":"xai.grok-4.3","input":"`+fmt.Sprintf("%0970d", 0)+`"}`)
	body := fmt.Sprintf(`{"status":"completed","output":[],"usage":{"input_tokens":%d}}`, len(cl.Job.Body)) // a token a byte
	c := newClient(t, mantle.Config{HTTPClient: always(200, body)})
	before := c.Cost(cl).Input
	for range 60 {
		_, _ = c.Complete(t.Context(), cl)
	}
	got := c.Cost(cl).Input
	if want := len(cl.Job.Body); got <= before || got > want || want-got > want/100 {
		t.Errorf("Cost = %d tokens, then %d, want near %d", before, got, want)
	}
	other := call(t, jobs.Responses, `{"model":"m","input":"`+fmt.Sprintf("%0970d", 0)+`"}`)
	if got := c.Cost(other).Input; got != len(other.Job.Body)*2/5 {
		t.Errorf("Cost of another model = %d, want what it was", got)
	}
}
