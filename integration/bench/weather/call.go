package weather

import (
	"math"
	"math/rand/v2"
	"time"

	"upwell/throttle"
	"upwell/worker/mantle/mantlesim/capacity"
)

// A Call is a job in hand: it is sent until it is accepted.
type Call struct {
	Cost     throttle.Cost // as the client estimates it
	Used     throttle.Cost // really, which the answer tells
	Sent     time.Time     // the latest attempt
	Attempts int

	start   throttle.Start // what the limiter under test remembers of it
	abreast int            // calls in flight when it was sent, itself included; of rivals that count them

	worker  *worker
	claim   capacity.Claim
	took    time.Duration    // that the answer takes once it has begun
	outcome throttle.Outcome // of the attempt in flight
	until   time.Duration    // when it gives up its place in the endpoint's queue

	// Bound once per Call, so that an attempt allocates nothing.
	begin  func(time.Duration)
	ended  func()
	giveUp func()
}

// The workload. The means follow from the rest (TestMeans draws them): a limit of
// tokens or slots that is worth n calls per second is n times those.
const (
	MeanTook   = 13.5  // seconds
	MeanSize   = 3190. // tokens charged at admission: the prompt and the output limit
	MeanUsed   = 2220. // tokens that stay charged
	MeanOutput = 622.  // tokens generated

	medianTook, sigmaTook, minTook, maxTook     = 10., 0.8, 2., 60.
	medianSize, sigmaSize, minSize, maxSize     = 2000., 1., 200., 20_000.
	alike                                       = 0.6 // correlation of both logarithms
	meanPart, sigmaPart, leastPart, largestPart = 0.2, 0.6, 0.01, 0.5
)

// draw makes c another job. The client's estimate of its size has a lognormal
// error of that σ, right on average.
func (c *Call) draw(rng *rand.Rand, wrong float64) {
	z := rng.NormFloat64()
	size := clip(medianSize*math.Exp(sigmaSize*z), minSize, maxSize)
	z = alike*z + math.Sqrt(1-alike*alike)*rng.NormFloat64()
	took := clip(medianTook*math.Exp(sigmaTook*z), minTook, maxTook)
	part := clip(meanPart*math.Exp(sigmaPart*rng.NormFloat64()-sigmaPart*sigmaPart/2), leastPart, largestPart)
	guess := 1.
	if wrong > 0 {
		guess = math.Exp(wrong*rng.NormFloat64() - wrong*wrong/2)
	}
	half := int(size / 2)
	c.took = seconds(took)
	c.Used = throttle.Cost{Input: half, Output: int(size * part)}
	c.Cost = throttle.Cost{Input: int(guess * size / 2), Output: int(guess * size / 2)}
	c.claim.Tokens = 2 * half
	c.Attempts = 0
}

// tokens is the size the client goes by.
func (c *Call) tokens() float64 { return float64(c.Cost.Input + c.Cost.Output) }

func clip(x, lo, hi float64) float64 { return min(max(x, lo), hi) }

func seconds(x float64) time.Duration { return time.Duration(x * float64(time.Second)) }
