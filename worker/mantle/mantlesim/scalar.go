package mantlesim

import (
	"encoding/json"
	"math/big"
	"regexp"
	"regexp/syntax"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// rational reads a JSON number of a reasonable size.
func rational(v any) (*big.Rat, bool) {
	n, ok := v.(json.Number)
	if f, err := n.Float64(); !ok || err != nil || f > 1e30 || f < -1e30 || len(n) > 64 {
		return nil, false
	}
	if i := strings.IndexAny(string(n), "eE"); i >= 0 { // a tiny exponent is as costly as a huge one
		if e, _ := strconv.Atoi(string(n[i+1:])); e < -64 {
			return nil, false
		}
	}
	return new(big.Rat).SetString(string(n))
}

var (
	one     = big.NewRat(1, 1)
	hundred = big.NewRat(100, 1)
	cent    = big.NewRat(1, 100)
	numeral = regexp.MustCompile(`\d[\d,]*(?:\.\d+)?`)
	isoDate = regexp.MustCompile(`\b\d{4}-\d{2}-\d{2}\b`)
	share   = regexp.MustCompile(`(?i)confidence|probability|score|ratio|share`)
)

// number makes a multiple of m's step within its bounds: by preference one that
// the text has near the hint's words.
func (g *generator) number(m schema, p spot, whole bool) json.Number {
	step, stepped := rational(m["multipleOf"])
	switch {
	case !stepped || step.Sign() <= 0:
		if stepped, step = false, cent; whole {
			step = one
		}
	case whole: // what is whole and a multiple of a/b in lowest terms is a multiple of a
		step = new(big.Rat).SetInt(step.Num())
	}
	lo, hi := bounds(m, !whole && share.MatchString(p.hint))
	if room := new(big.Rat).Sub(hi, lo); !stepped && !whole && room.Cmp(hundredOf(step)) < 0 && room.Sign() > 0 {
		step = new(big.Rat).Quo(room, hundred)
	}
	first, last := multiple(lo, step, true, m["exclusiveMinimum"]), multiple(hi, step, false, m["exclusiveMaximum"])
	if n, ok := g.quoted(p, step, first, last); ok {
		return n
	}
	k := new(big.Int).Set(first)
	if span := new(big.Int).Sub(last, first); span.Sign() > 0 {
		if !span.IsInt64() {
			span.SetInt64(1 << 62)
		}
		k.Add(k, big.NewInt(g.rng.Int64N(span.Int64()+1)))
	}
	return decimal(k, step)
}

func hundredOf(r *big.Rat) *big.Rat { return new(big.Rat).Mul(r, hundred) }

// bounds returns the range of m; what m leaves open is closed at a hundred away,
// or one for a share.
func bounds(m schema, share bool) (lo, hi *big.Rat) {
	width := hundred
	if share {
		width = one
	}
	tightest := func(a, b string, sign int) *big.Rat {
		r, _ := rational(m[a])
		if x, ok := rational(m[b]); ok && (r == nil || x.Cmp(r)*sign > 0) {
			r = x
		}
		return r
	}
	lo, hi = tightest("minimum", "exclusiveMinimum", 1), tightest("maximum", "exclusiveMaximum", -1)
	if lo == nil && hi == nil {
		lo = new(big.Rat)
	}
	if step, ok := rational(m["multipleOf"]); ok && step.Cmp(width) > 0 {
		width = hundredOf(step)
	}
	switch {
	case lo == nil:
		lo = new(big.Rat).Sub(hi, width)
		if hi.Sign() > 0 && lo.Sign() < 0 {
			lo = new(big.Rat) // below a positive bound, stay positive
		}
	case hi == nil:
		hi = new(big.Rat).Add(lo, width)
	}
	return lo, hi
}

// multiple returns the k for which k·step is nearest to bound from inside the
// range, and not the bound itself if that is excluded.
func multiple(bound, step *big.Rat, up bool, excluded any) *big.Int {
	q := new(big.Rat).Quo(bound, step)
	k := new(big.Int).Div(q.Num(), q.Denom()) // floor, the denominator is positive
	if up && !q.IsInt() {
		k.Add(k, big.NewInt(1))
	}
	if x, ok := rational(excluded); ok && x.Cmp(new(big.Rat).Mul(step, new(big.Rat).SetInt(k))) == 0 {
		if up {
			return k.Add(k, big.NewInt(1))
		}
		return k.Sub(k, big.NewInt(1))
	}
	return k
}

// quoted returns a number of the best sentence that is first..last steps.
func (g *generator) quoted(p spot, step *big.Rat, first, last *big.Int) (json.Number, bool) {
	for _, text := range numeral.FindAllString(clip(g.src.best(p.hint, g.rng), 1000), 8) {
		r, ok := rational(json.Number(strings.ReplaceAll(text, ",", "")))
		if !ok || g.rng.IntN(4) == 0 {
			continue
		}
		k := r.Quo(r, step)
		if k.IsInt() && k.Num().Cmp(first) >= 0 && k.Num().Cmp(last) <= 0 {
			return decimal(k.Num(), step), true
		}
	}
	return "", false
}

// decimal writes k·step exactly: as a float it might not be a multiple.
func decimal(k *big.Int, step *big.Rat) json.Number {
	r := new(big.Rat).Mul(step, new(big.Rat).SetInt(k))
	digits, _ := r.FloatPrec()
	return json.Number(r.FloatString(digits))
}

// text makes a string: by format, by pattern, or a phrase of fitting length.
func (g *generator) text(m schema, p spot) string {
	lo, hi := min(integer(m, "minLength", 0), maxLength), integer(m, "maxLength", 1<<30)
	if f, ok := m["format"].(string); ok {
		if s := g.formatted(f, p); s != "" {
			return s
		}
	}
	if pattern, ok := m["pattern"].(string); ok {
		if s, ok := g.patterned(pattern, lo, hi); ok {
			return s
		}
	}
	s := g.src.phrase(p.hint, g.rng)
	if n := utf8.RuneCountInString(s); n < lo {
		s += strings.Repeat(" "+s, (lo-n)/(n+1)+1)
	}
	if r := []rune(s); len(r) > hi {
		s = string(r[:hi])
		if i := strings.LastIndexByte(s, ' '); i >= max(lo, 1) && i >= len(s)/2 && utf8.RuneCountInString(s[:i]) >= lo {
			s = s[:i]
		}
	}
	return s
}

// formatted makes a string of a format; "" if the format is not known.
func (g *generator) formatted(format string, p spot) string {
	day := time.Date(2020, 1, 1+g.rng.IntN(3650), 0, 0, g.rng.IntN(86400), 0, time.UTC)
	if d, err := time.Parse(time.DateOnly, isoDate.FindString(g.src.best(p.hint, g.rng))); err == nil {
		day = d
	}
	n := strconv.Itoa(g.rng.IntN(1000))
	switch format {
	case "date":
		return day.Format(time.DateOnly)
	case "date-time":
		return day.Format(time.RFC3339)
	case "time":
		return day.Format("15:04:05Z07:00")
	case "duration":
		return "P" + strconv.Itoa(1+g.rng.IntN(90)) + "D"
	case "email":
		return "contact" + n + "@example.com"
	case "hostname":
		return "host" + n + ".example.com"
	case "uri", "url", "uri-reference", "iri":
		return "https://example.com/doc/" + n
	case "uuid":
		h := hexID(g.rng, 16)
		return h[:8] + "-" + h[8:12] + "-4" + h[13:16] + "-a" + h[17:20] + "-" + h[20:]
	case "ipv4":
		return "192.0.2." + strconv.Itoa(g.rng.IntN(256))
	case "ipv6":
		return "2001:db8::" + strconv.FormatInt(int64(1+g.rng.IntN(9999)), 16)
	}
	return ""
}

// patterned makes a string that matches a pattern and has lo to hi runes.
func (g *generator) patterned(pattern string, lo, hi int) (string, bool) {
	tree, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return "", false
	}
	match := regexp.MustCompile(pattern)
	for range 50 {
		var b strings.Builder
		g.steps = 0
		g.emit(&b, tree, min(lo, 200))
		s := b.String()
		if n := utf8.RuneCountInString(s); n >= lo && n <= hi && match.MatchString(s) {
			return s, true
		}
	}
	return "", false
}

// emit writes a string that re matches. Open repetitions run up to more beyond
// what they need.
func (g *generator) emit(b *strings.Builder, re *syntax.Regexp, more int) {
	times := func(lo, hi int) {
		if top := lo + 2 + more; hi < 0 || hi > top {
			hi = top
		}
		for range lo + g.rng.IntN(hi-lo+1) {
			if g.steps > maxSteps { // nested repetitions multiply
				return
			}
			g.emit(b, re.Sub[0], more)
		}
	}
	if g.steps++; g.steps > maxSteps {
		return
	}
	switch re.Op {
	case syntax.OpLiteral:
		b.WriteString(string(re.Rune))
	case syntax.OpCharClass:
		b.WriteRune(g.runeOf(re.Rune))
	case syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		b.WriteByte(byte('a' + g.rng.IntN(26)))
	case syntax.OpCapture:
		g.emit(b, re.Sub[0], more)
	case syntax.OpConcat:
		for _, sub := range re.Sub {
			g.emit(b, sub, more)
		}
	case syntax.OpAlternate:
		g.emit(b, re.Sub[g.rng.IntN(len(re.Sub))], more)
	case syntax.OpStar:
		times(0, -1)
	case syntax.OpPlus:
		times(1, -1)
	case syntax.OpQuest:
		times(0, 1)
	case syntax.OpRepeat:
		times(re.Min, re.Max)
	default: // anchors, word boundaries and the empty match write nothing
	}
}

// runeOf picks from the ranges of a class: printable ASCII if there is any.
func (g *generator) runeOf(ranges []rune) rune {
	var plain []rune
	for i := 0; i < len(ranges); i += 2 {
		for r := max(ranges[i], '!'); r <= min(ranges[i+1], '~'); r++ {
			plain = append(plain, r)
		}
	}
	switch {
	case len(plain) > 0:
		return plain[g.rng.IntN(len(plain))]
	case len(ranges) > 0:
		return ranges[0]
	}
	return utf8.RuneError
}
