package mantle

import (
	"bytes"
	"cmp"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"sync"
	"time"

	"upwell/jobs"
	"upwell/throttle"
	"upwell/worker"
)

// A PriceList is what models cost.
type PriceList struct {
	Date   string // of the list, as 2026-01-02
	Source string // where the figures are from

	// Models has prices by the model's name and the service tier.
	Models map[string]map[string]jobs.Price
}

//go:embed prices.json
var builtIn []byte

// DefaultPrices returns the prices that are known. A model or a tier that is not
// among them costs what nobody knows, and is booked so. See prices.json for the
// figures and their source. Bedrock has no higher price for long prompts, which
// xAI itself has from 200,000 tokens on.
func DefaultPrices() PriceList {
	l, err := ParsePrices(builtIn)
	if err != nil {
		panic(err) // the file is a part of the program
	}
	return l
}

// Known returns the list with [DefaultPrices] behind it: a model that it names has its
// prices and no others.
func (l PriceList) Known() PriceList {
	all := DefaultPrices()
	maps.Copy(all.Models, l.Models)
	return all
}

// ParsePrices reads a price list. It is a JSON object with the members date,
// source and models; the latter has, by model and by service tier, the prices
// input, cached and output, in USD for a million tokens. All three must be
// there. The error names the member at fault.
func ParsePrices(text []byte) (PriceList, error) {
	var file struct {
		Date   string                            `json:"date"`
		Source string                            `json:"source"`
		Models map[string]map[string]listedPrice `json:"models"`
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&file); err != nil {
		if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
			err = fmt.Errorf("%s: a JSON %s, want the form that upwell's own list has", cmp.Or(e.Field, "the file"), e.Value)
		}
		return PriceList{}, fmt.Errorf("prices: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return PriceList{}, errors.New("prices: more text after the list")
	}
	if _, err := time.Parse(time.DateOnly, file.Date); err != nil {
		return PriceList{}, fmt.Errorf("prices: date: %q, want the day of the list, such as 2026-01-02", file.Date)
	}
	l := PriceList{Date: file.Date, Source: file.Source, Models: make(map[string]map[string]jobs.Price)}
	for model, tiers := range file.Models {
		l.Models[model] = make(map[string]jobs.Price)
		for tier, p := range tiers {
			for i, v := range []*float64{p.Input, p.Cached, p.Output} {
				if v == nil || *v < 0 || *v > maxPrice {
					name := []string{"input", "cached", "output"}[i]
					return PriceList{}, fmt.Errorf("prices: models.%s.%s.%s: want a price in USD for a million tokens, such as 1.25", model, tier, name)
				}
			}
			l.Models[model][tier] = jobs.Price{Input: *p.Input, Cached: *p.Cached, Output: *p.Output, AsOf: file.Date}
		}
	}
	if len(l.Models) == 0 {
		return PriceList{}, errors.New("prices: models: none, want at least one")
	}
	return l, nil
}

// maxPrice is more than anybody asks for a million tokens, in USD.
const maxPrice = 1e6

// A listedPrice is a price whose members may be missing.
type listedPrice struct {
	Input  *float64 `json:"input"`
	Cached *float64 `json:"cached"`
	Output *float64 `json:"output"`
}

// Price returns what the model costs at a service tier, or nil if that is not
// known. The empty tier is the default one.
func (c *Client) Price(model, tier string) *jobs.Price {
	p, ok := c.cfg.Prices.Models[model][cmp.Or(tier, "default")]
	if !ok {
		return nil
	}
	return &p
}

// book adds what an answer cost, by the tier that served it, if it counts its tokens,
// and learns from them.
func (c *Client) book(call worker.Call, counted bool, ans *worker.Answer) {
	ans.CostUSD = jobs.UnknownUSD()
	if ans.Price = c.Price(call.Job.Model, cmp.Or(ans.Tier, call.Lane.Tier)); ans.Price != nil && counted {
		ans.CostUSD = ans.Price.Of(ans.Usage)
	}
	c.density.learn(call.Job.Model, sent(call), ans.Usage.InputTokens)
}

// MaxOutput is how long an answer may become that nothing limits: the default
// of max_completion_tokens for Grok 4.3, by its model card. Where there are
// quotas, that much is reserved. It stands for other models as well, because
// too high an estimate makes a lane slower and too low a one gets it refused.
const MaxOutput = 131072

// Cost implements [worker.Endpoint]. The prompt is estimated from the body's
// size and what earlier answers for the model have reported; the answer counts
// with its limit.
func (c *Client) Cost(call worker.Call) throttle.Cost {
	out := cmp.Or(c.limit(call, outlineOf(call.Job)), MaxOutput)
	return throttle.Cost{Input: c.density.tokens(call.Job.Model, sent(call)), Output: out}
}

// limit returns how many output tokens the call may have, or zero for as many as
// the model can.
func (c *Client) limit(call worker.Call, o outline) int {
	return cmp.Or(call.MaxOutput, o.limit(call.Job), c.cfg.MaxOutputTokens)
}

// sent is about how many bytes of a call the model reads.
func sent(call worker.Call) int {
	n := len(call.Job.Body)
	if call.Flaw != nil {
		n += len(call.Flaw.Text) + len(call.Flaw.Findings)
	}
	return n
}

const (
	// firstDensity is in tokens per byte: one for 2.5 bytes. English prose has
	// 4.9 bytes to a token in o200k, JSON 2.8 and tables of numbers 1.9, so
	// this errs towards too many.
	firstDensity = 1 / 2.5

	// learning is the weight of a new observation. Twenty jobs of one kind leave
	// a tenth of what was believed before, and one odd job changes little.
	learning = 0.1
)

// A density knows how many tokens a model makes of a byte, as a moving average.
type density struct {
	mu      sync.RWMutex
	byModel map[string]float64
}

func (d *density) of(model string) float64 {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if v, ok := d.byModel[model]; ok {
		return v
	}
	return firstDensity
}

func (d *density) tokens(model string, bytes int) int {
	return max(1, int(float64(bytes)*d.of(model)))
}

func (d *density) learn(model string, bytes int, tokens int64) {
	if bytes == 0 || tokens <= 0 {
		return
	}
	was := d.of(model)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.byModel[model] = was + learning*(float64(tokens)/float64(bytes)-was)
}
