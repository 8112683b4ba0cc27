package mantlesim

import (
	"cmp"
	"math"
	"slices"
	"strings"
	"time"

	"upwell/worker/mantle/mantlesim/capacity"
)

// A Config describes a simulated endpoint. The zero value is one with every
// model of [DefaultModels], any key accepted, no limit, no latency and no fault.
type Config struct {
	// Seed starts the source of all draws. Any value is a seed, zero too.
	Seed uint64

	// Models that the endpoint serves. Default: DefaultModels().
	Models []Model

	// Region, if set, is the only one that a SigV4 scope or a short-term key may
	// name.
	Region string

	// Keys are the bearer keys and access key ids that are accepted; a
	// short-term key is accepted by itself or by the access key id it was signed
	// with. Nil accepts any; empty accepts none. See Server.SetKeys.
	Keys []string

	// CheckShortTerm decodes keys of the form bedrock-api-key-… and refuses those
	// that are malformed or have expired.
	CheckShortTerm bool

	// DeniedStatus answers a missing or unknown key. Default: 401.
	DeniedStatus int

	// MisrouteStatus answers a Grok model called below /v1. Default: 401; field
	// reports of this error name both 401 and 403.
	MisrouteStatus int

	// MaxBody is the largest request body in bytes; a larger one gets 413. The
	// real cap is not published. Default: 32 MiB, room for one 20 MiB image in
	// base64.
	MaxBody int64

	// RejectKeywords are JSON Schema keywords that are answered with 400, for
	// example XAIUnsupported. Default: none, every keyword is taken.
	RejectKeywords []string

	// Capacity is the hidden capacity. Its clock starts with the first call after
	// New or Reset. Default: no limit.
	Capacity capacity.Script

	// Tiers overrides entries of DefaultTiers; a zero field keeps its default.
	Tiers map[string]Tier

	// Refusal shapes the answers to calls over capacity.
	Refusal Refusal

	// Latency of answers. Default: none.
	Latency Latency

	// Output is the length of prose answers in tokens. Default: median 80,
	// sigma 0.5, at least 16, at most 4000.
	Output Size

	// Reasoning gives the median of reasoning tokens by effort; the draw follows
	// Output's sigma. Default: minimal 16, low 64, medium 256, high 1024,
	// xhigh 4096: doublings without a source.
	Reasoning map[string]int

	// CacheTokens is the length of the prompt prefix that implicit caching counts
	// in; cached tokens are whole multiples of it. What applies to Grok is not
	// published. Default: 1024, as OpenAI's; negative disables.
	CacheTokens int

	// Faults are scripted from the start; see Server.SetFaults. Their clock
	// starts as Capacity's does.
	Faults []Fault

	// FreeAbandoned leaves a call unbilled when its client hangs up before
	// generation is over. Default: billed, as users of the real one report.
	FreeAbandoned bool

	// LedgerEntries bounds the calls that the ledger keeps; the oldest go first.
	// Default: 100,000.
	LedgerEntries int
}

// XAIUnsupported are the schema keywords that xAI documents as not supported by
// its own API. Whether Bedrock refuses them is not known.
var XAIUnsupported = []string{"minLength", "maxLength", "minItems", "maxItems", "minContains", "maxContains", "allOf"}

// A Latency is a lognormal distribution of the time from admission to answer.
type Latency struct {
	Median time.Duration // zero for no latency at all
	Sigma  float64       // of the logarithm; 0.8 spreads 90 % over a factor of 14
	Min    time.Duration // no draw is shorter
	Max    time.Duration // no draw is longer; zero for no bound

	// Correlation with the length of the output, in [0, 1].
	Correlation float64
}

// draw turns two standard normal draws, of which length also sizes the output,
// into a time.
func (l Latency) draw(length, own float64) time.Duration {
	mix := l.Correlation*length + math.Sqrt(1-l.Correlation*l.Correlation)*own
	d := max(time.Duration(float64(l.Median)*math.Exp(l.Sigma*mix)), l.Min)
	if l.Max > 0 {
		d = min(d, l.Max)
	}
	return d
}

// A Size is a lognormal distribution of a length in tokens.
type Size struct {
	Median   int
	Sigma    float64
	Min, Max int // Max zero for no bound
}

// draw turns a standard normal draw into a length.
func (z Size) draw(norm float64) int {
	n := max(int(float64(z.Median)*math.Exp(z.Sigma*norm)), z.Min)
	if z.Max > 0 {
		n = min(n, z.Max)
	}
	return n
}

// A Refusal says what a caller over capacity is told.
type Refusal struct {
	Delay time.Duration // before any refusal; default none

	Quota    int // status over a bucket; default 429
	Capacity int // status without a slot or a place in the queue; default 503

	// Unavailable and Overloaded are the shares of all refusals that are told
	// 503 and 529 instead. Default: none.
	Unavailable, Overloaded float64

	// RetryAfter, if positive, is sent in the header of that name, rounded up to
	// whole seconds; as an HTTP date if RetryDate. Default: no header, because
	// none was ever reported.
	RetryAfter time.Duration
	RetryDate  bool
}

// A Tier is how a service tier differs from the others.
type Tier struct {
	Latency float64 // multiplier
	Price   float64 // multiplier
	Rank    int     // place in the queue for slots; lower goes first
	Status  int     // for refusals by the script's "refuse"
}

// DefaultTiers returns the service tiers. Prices are the ratios found in the
// price list (mantle tier SKUs, 2026-08); priority is "up to 25 %" faster by
// AWS's page; that flex takes twice as long is a guess, no bound is published.
func DefaultTiers() map[string]Tier {
	return map[string]Tier{
		"priority": {Latency: 0.8, Price: 1.75, Rank: 0, Status: 503},
		"default":  {Latency: 1, Price: 1, Rank: 1, Status: 503},
		"reserved": {Latency: 1, Price: 1, Rank: 1, Status: 503},
		"flex":     {Latency: 2, Price: 0.5, Rank: 2, Status: 503},
	}
}

// A Model is one entry of the endpoint's table.
type Model struct {
	ID        string
	Base      string   // "/openai/v1" or "/v1"
	APIs      []string // below Base: "responses", "chat/completions"
	Context   int      // tokens of input and output together
	MaxOutput int      // tokens, when the request sets no limit
	Efforts   []string // of reasoning; nil for a model that does not reason
	Effort    string   // when the request names none
	Reserved  bool     // offers the reserved tier
	Input     float64  // USD per million tokens on the default tier; zero if unknown
	Cached    float64  // as Input, for cached input; Input if unknown
	Output    float64  // as Input, for output with its reasoning
}

const (
	frontier = "/openai/v1" // Grok, GPT-5 and Gemma 4
	standard = "/v1"        // the other families
)

// DefaultModels returns a table of the families that mantle serves. Grok's row
// is from its model card; the others are from gateways' price maps, and a zero
// price was not found.
func DefaultModels() []Model {
	both, grok := []string{"responses", "chat/completions"}, []string{"none", "low", "medium", "high"}
	gpt := []string{"none", "minimal", "low", "medium", "high", "xhigh"}
	return []Model{
		{ID: "xai.grok-4.3", Base: frontier, APIs: both, Context: 1e6, MaxOutput: 131072, Efforts: grok, Effort: "low", Input: 1.25, Cached: 0.20, Output: 2.50},
		{ID: "xai.grok-4.6", Base: frontier, APIs: both, Context: 1e6, MaxOutput: 131072, Efforts: grok, Effort: "low", Input: 2.20, Output: 6.60},
		{ID: "openai.gpt-5.4", Base: frontier, APIs: both[:1], Context: 272000, MaxOutput: 128000, Efforts: gpt, Effort: "medium", Reserved: true, Input: 2.75, Output: 16.50},
		{ID: "openai.gpt-5.5", Base: frontier, APIs: both[:1], Context: 272000, MaxOutput: 128000, Efforts: gpt, Effort: "medium", Reserved: true, Input: 5.50, Output: 33},
		{ID: "google.gemma-4-31b", Base: frontier, APIs: both, Context: 256000, MaxOutput: 32768, Reserved: true, Input: 0.14, Output: 0.40},
		{ID: "openai.gpt-oss-120b", Base: standard, APIs: both, Context: 131072, MaxOutput: 32768, Efforts: gpt[2:5], Effort: "medium", Reserved: true, Input: 0.15, Output: 0.60},
		{ID: "openai.gpt-oss-20b", Base: standard, APIs: both, Context: 131072, MaxOutput: 32768, Efforts: gpt[2:5], Effort: "medium", Reserved: true, Input: 0.075, Output: 0.30},
		{ID: "moonshotai.kimi-k2.5", Base: standard, APIs: both[1:], Context: 256000, MaxOutput: 32768, Reserved: true},
		{ID: "deepseek.v3.2", Base: standard, APIs: both[1:], Context: 131072, MaxOutput: 32768, Reserved: true},
		{ID: "qwen.qwen3-32b", Base: standard, APIs: both[1:], Context: 131072, MaxOutput: 32768, Reserved: true},
	}
}

// check reports why m does not answer base+"/"+api, if it does not. The errors
// are those that users report; most look like an authentication failure.
func (m *Model) check(base, api string, misroute int) error {
	switch {
	case m.Base == base && slices.Contains(m.APIs, api):
		return nil
	case m.Base == base:
		return invalid("unsupported_api", "model", "The model '"+m.ID+"' does not support the '"+base+"/"+api+"' API")
	case strings.HasPrefix(m.ID, "xai."):
		return &apiError{status: misroute, code: "access_denied", kind: "permission_denied_error", message: "Berm is not enabled for this account"}
	case strings.HasPrefix(m.ID, "openai.gpt-oss"):
		return errBadToken
	default:
		return invalid("validation_error", "model", "model `"+m.ID+"` isn't supported on this route")
	}
}

// cost returns the price of u in USD on a tier.
func (m *Model) cost(u Usage, t Tier) float64 {
	sum := float64(u.Input-u.Cached)*m.Input + float64(u.Cached)*cmp.Or(m.Cached, m.Input) + float64(u.Output)*m.Output
	return sum * t.Price / 1e6
}

// withDefaults returns c with every default filled in.
func (c Config) withDefaults() Config {
	if c.Models == nil {
		c.Models = DefaultModels()
	}
	tiers := DefaultTiers()
	for name, t := range c.Tiers {
		def := tiers[name]
		tiers[name] = Tier{cmp.Or(t.Latency, def.Latency), cmp.Or(t.Price, def.Price), cmp.Or(t.Rank, def.Rank), cmp.Or(t.Status, def.Status)}
	}
	c.Tiers = tiers
	if c.Reasoning == nil {
		c.Reasoning = map[string]int{"minimal": 16, "low": 64, "medium": 256, "high": 1024, "xhigh": 4096}
	}
	c.DeniedStatus, c.MisrouteStatus = cmp.Or(c.DeniedStatus, 401), cmp.Or(c.MisrouteStatus, 401)
	c.Refusal.Quota, c.Refusal.Capacity = cmp.Or(c.Refusal.Quota, 429), cmp.Or(c.Refusal.Capacity, 503)
	c.MaxBody, c.LedgerEntries = cmp.Or(c.MaxBody, 32<<20), cmp.Or(c.LedgerEntries, 100_000)
	c.CacheTokens = cmp.Or(c.CacheTokens, 1024)
	c.Output = cmp.Or(c.Output, Size{Median: 80, Sigma: 0.5, Min: 16, Max: 4000})
	return c
}
