package jobs_test

import (
	"encoding/json"
	"strings"
	"testing"

	"upwell/jobs"
)

// prompt returns a job with a prompt of about n bytes of prose.
func prompt(n int) []byte {
	const sentence = "The \"Supplier\" shall deliver the Goods.\n"
	body, err := json.Marshal(map[string]any{
		"custom_id": "msa-0042", "method": "POST", "url": jobs.Responses,
		"body": map[string]any{
			"model": "xai.grok-4.3", "max_output_tokens": 4000,
			"input": strings.Repeat(sentence, 1+n/len(sentence)),
		},
		"upwell": map[string]any{"run": "nightly", "tiers": []string{"flex", "default"}},
	})
	if err != nil {
		panic(err)
	}
	return body
}

func BenchmarkParse(b *testing.B) {
	for _, size := range []struct {
		name  string
		bytes int
	}{{"2KB", 2_000}, {"250KB", 250_000}} {
		b.Run(size.name, func(b *testing.B) {
			text := prompt(size.bytes)
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := jobs.Parse(text, "default"); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
