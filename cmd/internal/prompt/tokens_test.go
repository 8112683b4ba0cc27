package prompt_test

import (
	"math"
	"os"
	"strings"
	"testing"
	"time"

	"upwell/cmd/internal/prompt"
)

// TestTokens holds the estimate to a fifth of what o200k counts, text by text, and to a
// fifth of the bytes that a token of such text has on average. A fixed four bytes to a
// token is off by as much as 129 percent.
func TestTokens(t *testing.T) {
	for _, tc := range []struct {
		name  string
		count int     // of the sample
		bytes float64 // per token, of much such text
	}{
		{"english", 140, 4.90},
		{"german", 164, 5.03},
		{"russian", 135, 9.14},
		{"chinese", 186, 3.83},
		{"go", 341, 3.72},
		{"json", 317, 2.77},
		{"csv", 625, 1.92},
	} {
		text, err := os.ReadFile("testdata/tokens/" + tc.name + ".txt")
		if err != nil {
			t.Fatal(err)
		}
		n := float64(prompt.Tokens(string(text)))
		if off := n/float64(tc.count) - 1; math.Abs(off) > 0.2 {
			t.Errorf("%s: %.0f tokens, off by %.0f %% from %d", tc.name, n, 100*off, tc.count)
		}
		if off := float64(len(text))/n/tc.bytes - 1; math.Abs(off) > 0.2 {
			t.Errorf("%s: %.2f bytes to a token, off by %.0f %% from %.2f", tc.name, float64(len(text))/n, 100*off, tc.bytes)
		}
	}
}

func TestTokensOfLittle(t *testing.T) {
	for text, want := range map[string]int{
		"": 0, " ": 1, "a": 1, "the law": 2, "1234": 2, "x.y": 3, "\n": 1, "你好": 1, "€": 1, "\xff\xfe": 2, "e\u0301": 2,
	} {
		if got := prompt.Tokens(text); got != want {
			t.Errorf("Tokens(%q) = %d, want %d", text, got, want)
		}
	}
}

// TestTokensOfMuch: the time is linear in the text, whatever it is.
func TestTokensOfMuch(t *testing.T) {
	const size = 4 << 20
	for _, unit := range []string{"a", "A", " ", "\n", "\n ", "9", "-", "é", "你", "\xff", "aA", "\u0301"} {
		start := time.Now()
		n := prompt.Tokens(strings.Repeat(unit, size/len(unit)))
		if n < 1 || n > size {
			t.Errorf("%q repeated is %d tokens in %d bytes", unit, n, size)
		}
		if took := time.Since(start); took > 3*time.Minute { // it takes a tenth of a second, and hours if it is not so
			t.Errorf("%q repeated took %v", unit, took)
		}
	}
}

func BenchmarkTokens(b *testing.B) {
	text, err := os.ReadFile("testdata/tokens/english.txt")
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		prompt.Tokens(string(text))
	}
}

func BenchmarkJob(b *testing.B) {
	tmpl, err := prompt.Parse("review.md", []byte(all), beside)
	if err != nil {
		b.Fatal(err)
	}
	r := prompt.Record{ID: "a", Place: "rows.csv:2", Values: map[string]any{"name": "n", "text": strings.Repeat("The quick brown fox. ", 100), "region": "eu", "id": "7"}}
	for b.Loop() {
		if _, err := tmpl.Job(r); err != nil {
			b.Fatal(err)
		}
	}
}
