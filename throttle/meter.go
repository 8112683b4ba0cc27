package throttle

const (
	// settled is the least weight of a call in the means of sizes. Where sizes
	// differ a hundredfold, a mean of fewer than a thousand calls would move by
	// itself by more than a margin, and the rate in tokens with it.
	settled = 0.001

	// lately is the weight of a call in the lean: the last few calls are what an
	// endpoint's budget is short of when it refuses.
	lately = 0.3

	// learn is how far a refusal moves the weight of tokens, per lean. The lean
	// is about 0.3 one way or the other, so that ten refusals decide.
	learn = 0.2

	// heaviest bounds what one call can say about the lean, and largest what it
	// can cost, both in mean calls: a wrong estimate must not stop a lane.
	heaviest, largest = 3, 200
)

// A meter weighs calls, in calls of mean cost. An endpoint counts calls, or tokens,
// or both, and does not say which. So the weight of tokens is learned: when calls
// are refused after more tokens than usual, it is tokens that are counted, and if
// after fewer, then it is calls.
type meter struct {
	weight float64 // of tokens: 0 when only calls are counted, 1 when only tokens
	tokens float64 // mean of what calls take: what they reserve, less what they have back
	calls  float64 // sent so far
	usual  float64 // mean of relative sizes, none larger than heaviest
	lean   float64 // how much larger the last few calls were
	credit float64 // what calls have reserved and not used, in mean calls
}

func newMeter(l Level) meter {
	m := meter{weight: 0.5, usual: 1}
	if l.Tokens > 0 {
		m.weight, m.tokens, m.calls = l.Weight, l.Tokens, 1/settled
	}
	return m
}

// weigh returns the cost of a call that reserves so many tokens.
func (m *meter) weigh(tokens float64) float64 {
	if tokens <= 0 {
		return 1
	}
	if m.tokens == 0 {
		m.tokens = tokens
	}
	return max(1-m.weight+m.weight*min(tokens/m.tokens, largest)-m.credit, 0)
}

// send notes that the call is sent, and returns the lean it should come back with.
func (m *meter) send(tokens float64) (lean float64) {
	m.credit = 0
	if tokens <= 0 {
		return 0
	}
	size := min(tokens/m.tokens, heaviest)
	m.calls++
	w := max(1/m.calls, settled)
	m.usual += (size - m.usual) * w
	m.lean += (size - m.usual - m.lean) * lately
	m.tokens += (min(tokens, largest*m.tokens) - m.tokens) * w
	return m.lean
}

// back notes that a call has used fewer tokens than it reserved, or more. What it
// has back is taken off the next call's cost, and what is more than one call's is
// lost: let loose at once it would be refused.
func (m *meter) back(tokens float64) {
	if m.tokens > 0 {
		m.credit = min(max(m.credit+m.weight*tokens/m.tokens, -largest), 1)
		m.tokens = max(m.tokens-tokens*max(1/m.calls, settled), 1)
	}
}

// refused notes that the endpoint had too little left for a call with that lean.
func (m *meter) refused(lean float64) {
	m.weight = min(max(m.weight+learn*lean, 0), 1)
}

// A usage is what is known of a model's tokens: what estimates of prompts are off by,
// and how long answers get.
type usage struct {
	answers   float64 // learned from
	input     float64 // tokens of prompts, for each token estimated
	output    float64 // mean tokens of answers
	deviation float64 // mean deviation from it
}

const (
	// often is the least weight of an answer in the means of a model's usage.
	often = 0.02

	// few is how many answers it takes to know what is usual. Nothing is weighed
	// before: what a call may take is often a hundred times what it does.
	few = 10
)

// reserve returns the tokens to reserve for a call: what its prompt is likely to
// have, and as many for the answer as nearly all have taken, which is the mean and
// twice the mean deviation, but no more than it may take. It returns zero while
// that is not known.
func (u *usage) reserve(c Cost) float64 {
	if u.answers < few {
		return 0
	}
	in, out := float64(c.Input), float64(c.Output)
	if u.input > 0 {
		in *= u.input
	}
	if u.output > 0 {
		out = min(out, u.output+2*u.deviation)
	}
	return in + out
}

// learn notes what a call has really taken. Zero means that nobody said.
func (u *usage) learn(estimate, used Cost) {
	u.answers++
	w := max(1/u.answers, often)
	if estimate.Input > 0 && used.Input > 0 {
		mean(&u.input, min(float64(used.Input)/float64(estimate.Input), 100), w)
	}
	if used.Output > 0 {
		out := float64(used.Output)
		mean(&u.output, out, w)
		u.deviation += (max(out-u.output, u.output-out) - u.deviation) * w
	}
}
