package estimate_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"upwell/cmd/internal/estimate"
	"upwell/jobs"
	"upwell/worker"
)

func job(t *testing.T, model, template, body string) jobs.Job {
	t.Helper()
	more := ""
	if template != "" {
		more = fmt.Sprintf(`,"upwell":{"template_sha256":%q}`, template)
	}
	j, err := jobs.Parse(fmt.Appendf(nil, `{"custom_id":"a","url":"/v1/responses","body":{"model":%q%s}%s}`, model, body, more), "r")
	if err != nil {
		t.Fatal(err)
	}
	return j
}

var (
	templated = strings.Repeat("ab", 32)
	prices    = map[string]map[string]jobs.Price{
		"m": {"flex": {Input: 1, Cached: 0.5, Output: 10}, "default": {Input: 2, Cached: 1, Output: 20}},
		"n": {"default": {Input: 4, Cached: 4, Output: 4}},
	}
)

// Without experience the prompt is counted, the answer's limit is all that is known of
// it, and no cost is expected.
func TestWithoutExperience(t *testing.T) {
	tally := estimate.NewTally()
	text := strings.Repeat("The parties agree to arbitrate all disputes in Geneva. ", 400)
	for range 10 {
		tally.Add(job(t, "m", templated, fmt.Sprintf(`,"input":%q,"max_output_tokens":100`, text)), nil)
	}
	r := estimate.Of(tally, nil, prices, 0)
	if perToken := float64(len(text)) * 10 / float64(r.InputTokens); perToken < 3.8 || perToken > 6 {
		t.Errorf("%d tokens for 10 times %d bytes of English, want about one for 4.9 bytes", r.InputTokens, len(text))
	}
	if r.Jobs != 10 || r.OutputTokens != nil || r.OutputLongest != 1000 || r.LearnedFrom != 0 || len(r.Tiers) != 2 {
		t.Fatalf("%+v, want 10 jobs of at most 1,000 tokens, and two tiers", r)
	}
	flex := r.Tiers[0]
	if want := (float64(r.InputTokens) + 10*1000) / 1e6; flex.Name != "flex" || flex.Expected != nil || !near(flex.Longest, want) {
		t.Errorf("cheapest tier %+v, want flex at %g at most, and nothing expected", flex, want)
	}
}

// With answers of the same template everything is known, and the cached part of the
// prompt is cheaper.
func TestExperience(t *testing.T) {
	tally := estimate.NewTally()
	j := job(t, "m", templated, `,"input":"x","max_output_tokens":1000`)
	for range 100 {
		tally.Add(j, nil)
	}
	lesson := estimate.Lesson{Answers: 20, Bytes: 2000, InputTokens: 500, CachedTokens: 250, OutputTokens: 4000}
	r := estimate.Of(tally, map[estimate.Kind]estimate.Lesson{{Model: "m", Template: templated}: lesson}, prices, 0)
	input := int64(100 * len(j.Body) / 4)
	if r.InputTokens != input || r.CachedTokens != input/2 || r.OutputTokens == nil || *r.OutputTokens != 20_000 || r.LearnedFrom != 20 || r.Learned != 100 {
		t.Errorf("%+v, want %d tokens in, half of them cached, and 20,000 out", r, input)
	}
	lesson.MoreInput, lesson.MoreOutput = 100, 2000 // 5 and 100 for each job
	more := estimate.Of(tally, map[estimate.Kind]estimate.Lesson{{Model: "m", Template: templated}: lesson}, prices, 0)
	if more.InputTokens != input+500 || *more.OutputTokens != 30_000 || more.OutputLongest != 100_000 {
		t.Errorf("with repairs: %+v, want 500 tokens more in and 10,000 out", more)
	}
	want := (float64(input)*(0.5*1+0.5*0.5) + 20_000*10) / 1e6
	if got := r.Tiers[0].Expected; got == nil || !near(*got, want) {
		t.Errorf("expected on flex: %v, want %g", got, want)
	}
}

// Too few answers are no experience, an answer is never expected to be longer than its
// limit, and a tier that one model has no price for is no choice.
func TestLimits(t *testing.T) {
	tally := estimate.NewTally()
	tally.Add(job(t, "m", "", `,"input":"x","max_output_tokens":10`), nil)
	tally.Add(job(t, "n", "", `,"input":"x"`), nil)
	few := estimate.Lesson{Answers: 9, Bytes: 900, InputTokens: 900, OutputTokens: 900}
	many := estimate.Lesson{Answers: 10, Bytes: 900, InputTokens: 900, OutputTokens: 900}
	for _, tt := range []struct {
		m, n     estimate.Lesson
		expected int64
	}{{few, many, -1}, {many, few, -1}, {many, many, 10 + 90}} {
		r := estimate.Of(tally, map[estimate.Kind]estimate.Lesson{{Model: "m"}: tt.m, {Model: "n"}: tt.n}, prices, 0)
		if got := r.OutputTokens; (got == nil) != (tt.expected < 0) || got != nil && *got != tt.expected {
			t.Errorf("expected %v tokens, want %d (-1: nothing)", got, tt.expected)
		}
		if len(r.Tiers) != 1 || r.Tiers[0].Name != "default" || r.Unlimited != 1 || r.OutputLongest != 10+131_072 {
			t.Errorf("%+v, want the default tier alone, and one job without a limit", r)
		}
	}
	if r := estimate.Of(tally, nil, prices, 500); r.OutputLongest != 510 || r.Unlimited != 0 {
		t.Errorf("with --max-output-tokens 500: %+v, want 510 tokens at most", r)
	}
	if none := estimate.Unpriced(tally, map[string]map[string]jobs.Price{"m": {"flex": {}}}); len(none) != 1 || none[0] != "n" {
		t.Errorf("Unpriced = %v, want n", none)
	}
}

// Images are counted and have no tokens, and keys are no text.
func TestImages(t *testing.T) {
	tally := estimate.NewTally()
	image := `{"type":"input_image","image_url":"data:image/png;base64,` + strings.Repeat("A", 100_000) + `"}`
	tally.Add(job(t, "m", "", `,"input":[{"role":"user","content":[{"type":"input_text","text":"What is this?"},`+image+`,`+image+`]}]`), nil)
	r := estimate.Of(tally, nil, prices, 0)
	if r.Images != 2 || r.InputTokens < 4 || r.InputTokens > 30 {
		t.Errorf("%d images and %d tokens, want 2 and what the question has", r.Images, r.InputTokens)
	}
}

// A schema goes along with each job, is counted once, and is in the figures of those who
// have answers to go by already.
func TestSchema(t *testing.T) {
	schema := []byte(`{"type":"object","properties":{` + strings.Repeat(`"governing_law":{"type":"string"},`, 100) + `"x":{}}}`)
	with, without := estimate.NewTally(), estimate.NewTally()
	j := job(t, "m", templated, `,"input":"x"`)
	for range 10 {
		with.Add(j, schema)
		without.Add(j, nil)
	}
	more := estimate.Of(with, nil, prices, 0).InputTokens - estimate.Of(without, nil, prices, 0).InputTokens
	if perJob := more / 10; perJob < int64(len(schema))/6 || perJob > int64(len(schema)) {
		t.Errorf("a schema of %d bytes makes %d tokens for each job, want about a token for three bytes", len(schema), perJob)
	}
	learned := map[estimate.Kind]estimate.Lesson{{Model: "m", Template: templated}: {Answers: 10, Bytes: 10, InputTokens: 10}}
	if a, b := estimate.Of(with, learned, prices, 0), estimate.Of(without, learned, prices, 0); a.InputTokens != b.InputTokens {
		t.Errorf("%d tokens with the schema and %d without, by answers that had it", a.InputTokens, b.InputTokens)
	}
}

// No job is forgotten for want of kinds.
func TestManyKinds(t *testing.T) {
	tally := estimate.NewTally()
	for i := range 1500 {
		tally.Add(job(t, "m", fmt.Sprintf("%064x", i), `,"input":"x"`), nil)
	}
	if r := estimate.Of(tally, nil, prices, 0); r.Jobs != 1500 {
		t.Errorf("%d jobs, want 1,500", r.Jobs)
	}
}

// A large run is counted in samples, and its total is still right.
func TestSampled(t *testing.T) {
	small, large := estimate.NewTally(), estimate.NewTally()
	j := job(t, "m", "", `,"input":"Which law governs the contract, and which courts have jurisdiction?","max_output_tokens":50`)
	small.Add(j, nil)
	for range 20_000 {
		large.Add(j, nil)
	}
	one, all := estimate.Of(small, nil, prices, 0), estimate.Of(large, nil, prices, 0)
	if all.InputTokens != 20_000*one.InputTokens || all.OutputLongest != 20_000*50 {
		t.Errorf("%d tokens of 20,000 jobs that have %d each", all.InputTokens, one.InputTokens)
	}
}

func near(a, b float64) bool { return a > b*0.999 && a < b*1.001 }

// A board in memory, whose writers must have read what they replace.
type board struct {
	mu      sync.Mutex
	data    []byte
	version int
	err     error
	meddle  func(*board) // called once, between a read and a write
}

func (b *board) Read(context.Context) ([]byte, string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.version == 0 {
		return nil, "", b.err
	}
	return b.data, fmt.Sprint(b.version), b.err
}

func (b *board) Write(_ context.Context, data []byte, version string) (bool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if f := b.meddle; f != nil {
		b.meddle = nil
		f(b)
	}
	if b.err != nil || version != "" && version != fmt.Sprint(b.version) || version == "" && b.version > 0 {
		return false, b.err
	}
	b.data, b.version = data, b.version+1
	return true, nil
}

func answered(j jobs.Job, in, out int64) worker.Event {
	return worker.Event{Kind: worker.Attempted, At: time.Now(), Job: &j, Usage: jobs.Usage{InputTokens: in, OutputTokens: out}}
}

// What two workers learn adds up, however their writes fall together, and what one
// could not write is not lost.
func TestKeep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := new(board)
		log := slog.New(slog.DiscardHandler)
		ctx, stop := context.WithCancel(t.Context())
		one, two := estimate.NewExperience(), estimate.NewExperience()
		j := job(t, "m", templated, `,"input":"x"`)
		for range 6 {
			one.Observe(answered(j, 40, 7))
			two.Observe(answered(j, 40, 9))
		}
		repair := answered(j, 4000, 900)
		repair.Attempt.Turn = jobs.Repair
		one.Observe(repair)
		image := job(t, "m", templated, `,"input":[{"type":"input_image","image_url":"data:image/png;base64,AAAA"}]`)
		one.Observe(answered(image, 5000, 1))             // of another kind
		one.Observe(worker.Event{Kind: worker.Attempted}) // a refusal, which teaches nothing
		b.err = errors.New("out of reach")
		var keeping sync.WaitGroup
		keeping.Go(func() { one.Keep(ctx, b, log) })
		keeping.Go(func() { two.Keep(ctx, b, log) })
		time.Sleep(90 * time.Second)
		b.mu.Lock()
		b.err = nil
		b.mu.Unlock()
		time.Sleep(time.Minute)
		stop()
		keeping.Wait()
		learned, err := estimate.Recall(t.Context(), b)
		got := learned[estimate.Kind{Model: "m", Template: templated}]
		if err != nil || got.Answers != 12 || got.InputTokens != 480 || got.OutputTokens != 96 || got.Bytes != float64(12*len(j.Body)) {
			t.Errorf("Recall = %+v, %v, want 12 answers of 40 and 8 tokens", got, err)
		}
		if got.MoreInput != 4000 || got.MoreOutput != 900 {
			t.Errorf("repairs took %g and %g tokens, want 4,000 and 900", got.MoreInput, got.MoreOutput)
		}
		if images := learned[estimate.Kind{Model: "m", Template: templated, Images: true}]; images.Answers != 1 || len(learned) != 2 {
			t.Errorf("Recall = %+v, want the image apart, and nothing else", learned)
		}
	})
}

// What is on the board lasts, what is old counts less, and what is damaged says so.
func TestBoard(t *testing.T) {
	b := &board{data: []byte(`[{"model":"m","answers":20000,"bytes":2000000,"input_tokens":400000,"output_tokens":20000}]`), version: 1}
	ctx, stop := context.WithCancel(t.Context())
	x := estimate.NewExperience()
	x.Observe(answered(job(t, "m", "", `,"input":"x"`), 20, 1))
	b.meddle = func(b *board) { b.version++ } // somebody else was faster
	stop()
	x.Keep(ctx, b, slog.New(slog.DiscardHandler))
	learned, err := estimate.Recall(t.Context(), b)
	got := learned[estimate.Kind{Model: "m"}]
	if err != nil || got.Answers < 10_000 || got.Answers > 10_001 || !near(got.OutputTokens/got.Answers, 1) {
		t.Errorf("Recall = %+v, %v, want half of what there was", got, err)
	}
	b.data = []byte(`{"answers":1}`)
	if _, err := estimate.Recall(t.Context(), b); err == nil || !strings.Contains(err.Error(), "experience") {
		t.Errorf("Recall of a damaged board = %v, want an error", err)
	}
}
