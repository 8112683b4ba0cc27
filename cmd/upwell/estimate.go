package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"upwell/cmd/internal/estimate"
	"upwell/cmd/internal/progress"
	"upwell/sink/s3sink"
	"upwell/throttle/fleet"
	"upwell/worker/mantle"
)

// estimateFlags ask what a run would take.
type estimateFlags struct {
	Estimate bool    `group:"Estimate:" help:"Say what the run would take, tokens, price on each service tier and time, and do nothing. Earlier answers of the same template say how long answers become."`
	AtRate   float64 `group:"Estimate:" name:"at-rate" default:"0" placeholder:"N" help:"Calls per second to reckon the time with. 0: what an earlier worker found."`
	JSON     bool    `group:"Estimate:" name:"json" help:"Print JSON: the estimate or the summary, and progress as JSON lines."`
}

// experienceBoard is where workers write down what answers have taken.
const experienceBoard = "experience"

// An outlook is an estimate and how long the run would take.
type outlook struct {
	Run string `json:"run"`
	estimate.Report
	Unpriced  []string `json:"models_without_price,omitempty"`
	PerSecond float64  `json:"per_second,omitzero"` // or zero when nobody knows
	Found     bool     `json:"rate_found,omitzero"` // by an earlier worker
	Seconds   float64  `json:"seconds,omitzero"`
}

// expect returns what the jobs of a tally would take. results is where earlier
// workers left what they found, or nil; limit is the output limit of jobs that have
// none, or zero.
func (f *estimateFlags) expect(ctx context.Context, e env, results *s3sink.Sink, run string, t *estimate.Tally, prices mantle.PriceList, limit int) outlook {
	o := outlook{Run: run, PerSecond: f.AtRate}
	var learned map[estimate.Kind]estimate.Lesson
	if results != nil {
		var err error
		if learned, err = estimate.Recall(ctx, results.Board(experienceBoard)); err != nil {
			e.log.WarnContext(ctx, "earlier answers not known", "err", err)
		}
		if o.PerSecond == 0 {
			o.PerSecond = found(ctx, e, results, t)
			o.Found = o.PerSecond > 0
		}
	}
	o.Report = estimate.Of(t, learned, prices.Models, limit)
	o.Unpriced = estimate.Unpriced(t, prices.Models)
	if o.PerSecond > 0 {
		o.Seconds = float64(o.Jobs) / o.PerSecond
	}
	return o
}

// found returns how many calls a second an earlier worker found for the models, all
// Regions together and on the tier that took most; zero if nobody did.
func found(ctx context.Context, e env, results *s3sink.Sink, t *estimate.Tally) float64 {
	levels, err := fleet.Recall(ctx, results.Board(levelsBoard))
	if err != nil {
		e.log.WarnContext(ctx, "levels not recalled", "err", err)
	}
	wanted := make(map[string]bool)
	for kind := range t.Loads {
		wanted[kind.Model] = true
	}
	byTier := make(map[string]float64)
	most := 0.0
	for lane, level := range levels {
		if wanted[lane.Model] && lane.Tier != "" { // without one, it is the quota that tiers share
			byTier[lane.Tier] += level.Rate
			most = max(most, byTier[lane.Tier])
		}
	}
	return most
}

// tierLine is the form of a line of the table of tiers.
const tierLine = "  %-8s  %10s  %15s\n"

// print writes the outlook for a person, or as JSON.
func (o outlook) print(w io.Writer, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(w).Encode(o)
	}
	fmt.Fprintf(w, "run %s: %d jobs, estimated; nothing was sent\n", o.Run, o.Jobs)
	progress.Table(w, o.rows())
	if len(o.Tiers) > 0 {
		fmt.Fprintln(w)
		fmt.Fprintf(w, tierLine, "tier", "expected", "longest answers")
		for _, tier := range o.Tiers {
			expected := "?"
			if tier.Expected != nil {
				expected = progress.Dollars(*tier.Expected)
			}
			fmt.Fprintf(w, tierLine, tier.Name, expected, progress.Dollars(tier.Longest))
		}
	}
	_, err := io.WriteString(w, o.hints())
	return err
}

func (o outlook) rows() []progress.Row {
	prompts := fmt.Sprintf("%s tokens", progress.Tokens(o.InputTokens))
	if o.CachedTokens > 0 {
		prompts += fmt.Sprintf(", %d %% of them from the prompt cache", 100*o.CachedTokens/max(o.InputTokens, 1))
	}
	answers := fmt.Sprintf("%s tokens if each is as long as it may be", progress.Tokens(o.OutputLongest))
	if o.OutputTokens != nil {
		answers = fmt.Sprintf("%s tokens expected, %s if each is as long as it may be", progress.Tokens(*o.OutputTokens), progress.Tokens(o.OutputLongest))
	}
	rows := []progress.Row{{Name: "prompts", Value: prompts}, {Name: "answers", Value: answers}}
	if o.Images > 0 {
		rows = append(rows, progress.Row{Name: "images", Value: fmt.Sprintf("%d, whose tokens nobody publishes: they are not in these figures", o.Images)})
	}
	basis := "a rule of thumb"
	if o.LearnedFrom > 0 {
		basis = fmt.Sprintf("%d earlier answers", o.LearnedFrom)
		if o.Learned < o.Jobs {
			basis += fmt.Sprintf(" for %d of the jobs, a rule of thumb for the others", o.Learned)
		}
	}
	rows = append(rows, progress.Row{Name: "by", Value: basis})
	return append(rows, progress.Row{Name: "time", Value: o.time()})
}

func (o outlook) time() string {
	if o.PerSecond == 0 {
		return "give --at-rate: no worker has found the rate yet"
	}
	source := ""
	if o.Found {
		source = ", which an earlier worker found"
	}
	return fmt.Sprintf("%s at %.4g calls a second%s", progress.Duration(time.Duration(o.Seconds*float64(time.Second))), o.PerSecond, source)
}

// hints say what would make the estimate better.
func (o outlook) hints() string {
	var b strings.Builder
	if len(o.Unpriced) > 0 {
		fmt.Fprintf(&b, "\nno price is known for %s: give --prices FILE\n", strings.Join(o.Unpriced, ", "))
	}
	if o.OutputTokens == nil {
		fmt.Fprintf(&b, "\nrun some of the jobs first, a hundred or so, and the estimate goes by their answers;\nrepairs, and answers that are asked for again with more room, come on top of these figures\n")
	}
	if o.Unlimited > 0 {
		fmt.Fprintf(&b, "%d jobs have no limit to their answers: max_output_tokens would bound the cost\n", o.Unlimited)
	}
	return b.String()
}

// usd is what the run is expected to cost on the tier, or at most if nothing is
// expected, or zero if that is not known.
func (o outlook) usd(tier string) float64 {
	for _, t := range o.Tiers {
		if t.Name == cmp.Or(tier, "default") {
			if t.Expected != nil {
				return *t.Expected
			}
			return t.Longest
		}
	}
	return 0
}

// pricesFor returns the price list with the file's prices before the built-in ones.
func pricesFor(path string) (mantle.PriceList, error) {
	if path == "" {
		return mantle.DefaultPrices(), nil
	}
	own, err := readPrices(path)
	return own.Known(), err
}
