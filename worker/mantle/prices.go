package mantle

import (
	"cmp"
	"sync"

	"upwell/jobs"
	"upwell/throttle"
	"upwell/worker"
)

// A Price is what a model costs at the default tier, in USD for a million
// tokens.
type Price struct {
	Input  float64 // of the prompt, but for what is cached
	Cached float64 // of the prompt, served from the cache
	Output float64 // of the answer, its reasoning included
}

// DefaultPrices returns the prices that are known, by the model's name.
//
// Source: the Amazon Bedrock pricing page for Grok 4.3 in us-west-2, as cited
// by models.dev in 2026. Bedrock has no higher price for long prompts, which
// xAI itself has from 200,000 tokens on.
func DefaultPrices() map[string]Price {
	return map[string]Price{
		"xai.grok-4.3": {Input: 1.25, Cached: 0.20, Output: 2.50},
	}
}

// tierFactors are what the tiers cost, compared with the default one. In the
// AWS price list of August 2026 they hold for all 41 models that have tiers. A
// tier that is not here is booked as default.
var tierFactors = map[string]float64{"flex": 0.5, "priority": 1.75}

// USD returns what usage costs at a service tier.
func (p Price) USD(u jobs.Usage, tier string) float64 {
	factor, ok := tierFactors[tier]
	if !ok {
		factor = 1
	}
	cached := min(u.CachedTokens, u.InputTokens)
	sum := float64(u.InputTokens-cached)*p.Input + float64(cached)*p.Cached + float64(u.OutputTokens)*p.Output
	return sum * factor / 1e6
}

// Price returns what the model costs, and whether that is known. The cost of a
// model that is not known is booked as zero.
func (c *Client) Price(model string) (p Price, known bool) {
	p, known = c.cfg.Prices[model]
	return p, known
}

// book adds what an answer cost, by the tier that served it, and learns from
// its count of tokens.
func (c *Client) book(call worker.Call, ans *worker.Answer) {
	price, _ := c.Price(call.Job.Model)
	ans.CostUSD = price.USD(ans.Usage, cmp.Or(ans.Tier, call.Lane.Tier))
	c.density.learn(call.Job.Model, len(call.Job.Body), ans.Usage.InputTokens)
}

// maxOutput is how long an answer may become that nothing limits: the default
// of max_completion_tokens for Grok 4.3, by its model card. Where there are
// quotas, that much is reserved. It stands for other models as well, because
// too high an estimate makes a lane slower and too low a one gets it refused.
const maxOutput = 131072

// Cost implements [worker.Endpoint]. The prompt is estimated from the body's
// size and what earlier answers for the model have reported; the answer counts
// with its limit.
func (c *Client) Cost(call worker.Call) throttle.Cost {
	o := outlineOf(call.Job)
	out := o.limit(call.Job)
	if out == 0 {
		out = c.cfg.MaxOutputTokens
	}
	if out == 0 {
		out = maxOutput
	}
	return throttle.Cost{Input: c.density.tokens(call.Job.Model, len(call.Job.Body)), Output: out}
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
