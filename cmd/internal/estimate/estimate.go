package estimate

import (
	"cmp"
	"maps"
	"slices"

	"upwell/jobs"
)

// modelMost is how long an answer may become that nothing limits: Grok 4.3's own
// limit, by its model card. It stands for models that nothing is known of.
const modelMost = 131_072

// A Report is what a run is expected to take.
type Report struct {
	Jobs   int `json:"jobs"`
	Images int `json:"images,omitzero"` // that no tokens are known of, and none are counted for

	InputTokens  int64 `json:"input_tokens"`
	CachedTokens int64 `json:"cached_tokens"` // the part of them that the prompt cache is expected to serve

	// OutputTokens are expected, by earlier answers, and null when there are none to
	// go by. OutputMost are the answers' limits.
	OutputTokens *int64 `json:"output_tokens"`
	OutputMost   int64  `json:"output_tokens_at_most"`
	Unlimited    int    `json:"jobs_without_limit,omitzero"` // whose limit is the model's

	LearnedFrom int64 `json:"learned_from"` // answers that the figures go by, or zero
	Learned     int   `json:"jobs_learned"` // jobs of kinds that there were answers of

	Tiers []Tier `json:"tiers"`
}

// A Tier is what the run costs when all of it is served there.
type Tier struct {
	Name     string   `json:"tier"`
	Expected *float64 `json:"usd"`         // or null
	Most     float64  `json:"usd_at_most"` // when every answer is as long as it may be
}

// Of returns what the jobs of a tally will take, by what was learned from earlier
// answers. prices has, by model and service tier, what a million tokens cost; a tier
// that one of the models has no price for is left out. limit is the output limit of
// jobs that have none, or zero.
func Of(t *Tally, learned map[Kind]Lesson, prices map[string]map[string]jobs.Price, limit int) Report {
	var r Report
	expected := true
	tiers := make(map[string]*Tier)
	for name := range tiersOf(t, prices) {
		tiers[name] = &Tier{Name: name, Expected: new(float64)}
	}
	var output int64
	for kind, load := range t.Loads {
		f := forecastOf(kind, *load, learned, limit)
		r.Jobs += load.Jobs
		r.Images += load.images()
		r.InputTokens += f.likely.InputTokens
		r.CachedTokens += f.likely.CachedTokens
		r.OutputMost += f.most.OutputTokens
		output += f.likely.OutputTokens
		if limit == 0 {
			r.Unlimited += load.unlimited
		}
		if f.answers > 0 {
			r.Learned += load.Jobs
			r.LearnedFrom += f.answers
		} else {
			expected = false
		}
		for name, tier := range tiers {
			price := prices[kind.Model][name]
			*tier.Expected += float64(price.Of(f.likely))
			tier.Most += float64(price.Of(f.most))
		}
	}
	if expected {
		r.OutputTokens = &output
	}
	for _, tier := range tiers {
		if !expected {
			tier.Expected = nil
		}
		r.Tiers = append(r.Tiers, *tier)
	}
	slices.SortFunc(r.Tiers, func(a, b Tier) int { return cmp.Or(cmp.Compare(a.Most, b.Most), cmp.Compare(a.Name, b.Name)) })
	return r
}

// tiersOf returns the tiers that all models of the tally have a price for.
func tiersOf(t *Tally, prices map[string]map[string]jobs.Price) map[string]bool {
	var all map[string]bool
	for kind := range t.Loads {
		here := make(map[string]bool)
		for tier := range prices[kind.Model] {
			if all == nil || all[tier] {
				here[tier] = true
			}
		}
		all = here
	}
	return all
}

// Unpriced returns the models of the tally that have no price at all.
func Unpriced(t *Tally, prices map[string]map[string]jobs.Price) []string {
	none := make(map[string]bool)
	for kind := range t.Loads {
		if len(prices[kind.Model]) == 0 {
			none[kind.Model] = true
		}
	}
	return slices.Sorted(maps.Keys(none))
}

// images is how many images the jobs have, by those that were read.
func (l Load) images() int {
	if l.sampledBytes == 0 {
		return 0
	}
	return int(float64(l.Images) * float64(l.Bytes) / float64(l.sampledBytes))
}

// A forecast is what the jobs of one kind will take.
type forecast struct {
	likely, most jobs.Usage
	answers      int64 // that it goes by
}

// forecastOf goes by answers of the kind, or else by those of the model as far as
// tokens per byte are concerned: how long an answer becomes depends on what is asked.
func forecastOf(kind Kind, l Load, learned map[Kind]Lesson, limit int) (f forecast) {
	if limit == 0 {
		limit = modelMost
	}
	f.most.OutputTokens = l.limits + int64(l.unlimited)*int64(limit)
	f.likely.InputTokens = l.Tokens()
	if lesson := learned[Kind{Model: kind.Model}]; lesson.Ripe() && l.Images == 0 {
		f.likely.InputTokens = lesson.input(l)
	}
	if lesson := learned[kind]; lesson.Ripe() {
		f.answers = int64(lesson.Answers)
		f.likely.InputTokens = lesson.input(l)
		f.likely.CachedTokens = int64(float64(f.likely.InputTokens) * lesson.CachedTokens / lesson.InputTokens)
		f.likely.OutputTokens = min(int64(float64(l.Jobs)*lesson.OutputTokens/lesson.Answers), f.most.OutputTokens)
	}
	f.most.InputTokens = f.likely.InputTokens
	return f
}

// input is how many tokens the prompts of a load have, by what was learned.
func (l Lesson) input(load Load) int64 { return int64(float64(load.Bytes) * l.InputTokens / l.Bytes) }
