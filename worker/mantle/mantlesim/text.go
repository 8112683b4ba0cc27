package mantlesim

import (
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Bytes of text that answers draw on, so that a call's cost does not grow with
// its prompt.
const (
	proseSample  = 2 << 10
	schemaSample = 32 << 10
)

// phraseMax bounds one quotation in bytes.
const phraseMax = 200

// A source is where an answer takes its words from: the request's own text.
type source struct {
	sentences []string
	stems     [][]uint32 // of sentences; made when first needed
	question  string     // the last paragraph
	asked     []uint32   // stems of question; made with stems
	seed      uint64     // a hash of the text: what answers lean on
}

// newSource reads up to limit bytes of a prompt. Its last paragraph is the
// question and is quoted only if there is nothing else.
func newSource(parts []string, limit int) *source {
	last := max(len(parts)-1, 0)
	text := strings.TrimSpace(strings.Join(parts[last:], ""))
	body, question := strings.Join(parts[:last], "\n"), text
	if i := strings.LastIndex(text, "\n\n"); i >= 0 {
		// The document asked about; what stands before it is instructions.
		body, question = text[:i], text[i+2:]
	}
	body, question = clip(body, limit), clip(question, limit)
	src := &source{sentences: sentences(body), question: question}
	if len(src.sentences) == 0 {
		src.sentences = sentences(question)
	}
	if len(src.sentences) == 0 {
		src.sentences = []string{"The request holds no text to work with."}
	}
	h := fnv.New64a()
	h.Write([]byte(clip(body, 2048) + clip(question, 2048))) // enough to tell documents apart
	src.seed = h.Sum64()
	return src
}

// clip returns at most n bytes of s, in whole runes.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// sentences splits text at empty lines and after stops, and leaves out fragments.
// A line end alone is where a text was wrapped.
func sentences(text string) []string {
	var out []string
	for line := range strings.SplitSeq(text, "\n\n") {
		line = strings.Join(strings.Fields(line), " ")
		for line != "" {
			end := len(line)
			for i := range len(line) - 1 {
				if c := line[i]; line[i+1] == ' ' && (c == '.' || c == '!' || c == '?' || c == ';') {
					end = i + 1
					break
				}
			}
			if s := strings.TrimSpace(line[:end]); len(s) >= 12 {
				out = append(out, s)
			}
			line = line[end:]
		}
	}
	return out
}

// stems returns a hash for each word of four letters or more, of its first six:
// "terminate" and "termination" are one. It splits camelCase and snake_case.
func stems(s string) []uint32 {
	var out []uint32
	h, n, lower := uint32(2166136261), 0, false // FNV-1a
	flush := func() {
		if n >= 4 {
			out = append(out, h)
		}
		h, n = 2166136261, 0
	}
	for _, r := range s {
		if !unicode.IsLetter(r) && !unicode.IsDigit(r) || lower && unicode.IsUpper(r) {
			flush()
		}
		if lower = unicode.IsLower(r); unicode.IsLetter(r) || unicode.IsDigit(r) {
			if n++; n <= 6 {
				h = (h ^ uint32(unicode.ToLower(r))) * 16777619
			}
		}
	}
	flush()
	return out
}

// best returns the sentence that shares most words with hint, and then with the
// question. Ties fall by lot.
func (src *source) best(hint string, rng *rand.Rand) string {
	if src.stems == nil {
		src.asked = stems(src.question)
		for _, s := range src.sentences {
			src.stems = append(src.stems, stems(s))
		}
	}
	words, top, at := stems(hint), -1.0, 0
	for i, st := range src.stems {
		score := rng.Float64()
		for _, w := range st {
			if slices.Contains(words, w) {
				score += 2
			}
			if slices.Contains(src.asked, w) {
				score++
			}
		}
		if score > top {
			top, at = score, i
		}
	}
	return src.sentences[at]
}

// phrase is best, no longer than phraseMax.
func (src *source) phrase(hint string, rng *rand.Rand) string {
	s := src.best(hint, rng)
	if len(s) > phraseMax {
		s = clip(s, phraseMax)
		s = s[:max(strings.LastIndexByte(s, ' '), 1)]
	}
	return s
}

// prose returns a paragraph of about n tokens. The note at its end makes any two
// differ.
func (src *source) prose(n int, rng *rand.Rand) string {
	openings := []string{"In short: ", "From the text: ", "The passage says: ", "As far as the text goes: "}
	size := int(float64(n) * proseBytes)
	b := strings.Builder{}
	b.WriteString(openings[rng.IntN(len(openings))])
	for i := rng.IntN(len(src.sentences)); b.Len() < size-16; i++ {
		b.WriteString(src.sentences[i%len(src.sentences)])
		b.WriteByte(' ')
	}
	return strings.TrimSpace(clip(b.String(), max(size-16, 0))) + " [note " + hexID(rng, 4) + "]"
}

const hexDigits = "0123456789abcdef"

// hexID returns n random bytes in hex.
func hexID(rng *rand.Rand, n int) string {
	b := make([]byte, 2*n)
	for i := range b {
		if i%16 == 0 {
			for v, j := rng.Uint64(), i; j < min(i+16, len(b)); j++ {
				b[j] = hexDigits[v&15]
				v >>= 4
			}
		}
	}
	return string(b)
}
