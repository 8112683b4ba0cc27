package estimate

import (
	"cmp"
	"maps"
	"slices"

	"upwell/jobs"
	"upwell/worker/mantle"
)

// A Report is what a run is expected to take.
type Report struct {
	Jobs   int `json:"jobs"`
	Images int `json:"images,omitzero"` // that no tokens are known of, and none are counted for

	InputTokens  int64 `json:"input_tokens"`
	CachedTokens int64 `json:"cached_tokens"` // the part of them that the prompt cache is expected to serve

	// OutputTokens are expected, by earlier answers, and null when there are none to
	// go by. OutputLongest are the answers' limits. What is expected includes repairs
	// and extensions, as far as there were any earlier, and InputTokens do as well; the
	// limits are of one call for each job.
	OutputTokens  *int64 `json:"output_tokens"`
	OutputLongest int64  `json:"output_tokens_longest"`
	Unlimited     int    `json:"jobs_without_limit,omitzero"` // whose limit is the model's

	LearnedFrom int64 `json:"learned_from"` // answers that the figures go by, or zero
	Learned     int   `json:"jobs_learned"` // jobs of kinds that there were answers of

	Tiers []Tier `json:"tiers"`
}

// A Tier is what the run costs when all of it is served there.
type Tier struct {
	Name     string   `json:"tier"`
	Expected *float64 `json:"usd"`         // or null
	Longest  float64  `json:"usd_longest"` // when every answer is as long as it may be, and no job is called for twice
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
		r.OutputLongest += f.longest.OutputTokens
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
			tier.Longest += float64(price.Of(f.longest))
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
	slices.SortFunc(r.Tiers, func(a, b Tier) int { return cmp.Or(cmp.Compare(a.Longest, b.Longest), cmp.Compare(a.Name, b.Name)) })
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
	likely, longest jobs.Usage
	answers         int64 // that it goes by
}

// forecastOf goes by answers of the kind, if there are enough.
func forecastOf(kind Kind, l Load, learned map[Kind]Lesson, limit int) (f forecast) {
	if limit == 0 {
		limit = mantle.MaxOutput
	}
	f.likely.InputTokens = l.Tokens()
	f.longest.OutputTokens = l.limits + int64(l.unlimited)*int64(limit)
	f.longest.InputTokens = f.likely.InputTokens
	lesson := learned[kind]
	if !lesson.Ripe() {
		return f
	}
	perJob := func(tokens float64) int64 { return int64(float64(l.Jobs) * tokens / lesson.Answers) }
	input := int64(float64(l.Bytes) * lesson.InputTokens / lesson.Bytes)
	f.answers = int64(lesson.Answers)
	f.longest.InputTokens = input
	f.likely.InputTokens = input + perJob(lesson.MoreInput)
	f.likely.CachedTokens = int64(float64(input) * lesson.CachedTokens / lesson.InputTokens)
	f.likely.OutputTokens = min(perJob(lesson.OutputTokens), f.longest.OutputTokens) + perJob(lesson.MoreOutput)
	return f
}
