package jobs

import (
	"encoding/json"
	"math"
)

// USD is an amount of money, in US dollars. One that is not known is NaN, and so
// is every sum that it is part of; in JSON it is null.
type USD float64

// UnknownUSD returns the amount that is not known.
func UnknownUSD() USD { return USD(math.NaN()) }

// Known reports whether the amount is known.
func (d USD) Known() bool { return !math.IsNaN(float64(d)) }

// MarshalJSON implements [json.Marshaler].
func (d USD) MarshalJSON() ([]byte, error) {
	if !d.Known() || math.IsInf(float64(d), 0) {
		return []byte("null"), nil
	}
	return json.Marshal(float64(d))
}

// UnmarshalJSON implements [json.Unmarshaler].
func (d *USD) UnmarshalJSON(text []byte) error {
	if string(text) == "null" {
		*d = UnknownUSD()
		return nil
	}
	return json.Unmarshal(text, (*float64)(d))
}

// A Price is what a model costs at one service tier, in USD for a million tokens.
type Price struct {
	Input  float64 `json:"input"`          // of the prompt, but for what is cached
	Cached float64 `json:"cached"`         // of the prompt, served from the cache
	Output float64 `json:"output"`         // of the answer, its reasoning included
	AsOf   string  `json:"as_of,omitzero"` // the date of the price list, as 2026-01-02
}

// Of returns what usage costs.
func (p Price) Of(u Usage) USD {
	cached := min(u.CachedTokens, u.InputTokens)
	return USD(float64(u.InputTokens-cached)*p.Input+float64(cached)*p.Cached+float64(u.OutputTokens)*p.Output) / 1e6
}
