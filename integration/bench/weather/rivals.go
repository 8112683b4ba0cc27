package weather

import (
	"math"
	"math/rand/v2"
	"time"

	"upwell/throttle"
)

// Rivals are the usual ways to meet a quota. They are told what they need: those
// with a fixed rate the capacity at the beginning, those that pace whether calls or
// tokens bind, and those that run a pool how large it has to be.
func Rivals() []Kind {
	return []Kind{
		{Name: "fixed ½", New: fixed(0.5), Backoff: time.Minute},
		{Name: "fixed 2x", New: fixed(2), Backoff: time.Minute},
		{Name: "AIMD", New: newAIMD},
		{Name: "AWS adaptive", New: newAdaptive, Backoff: sdkBackoff, Pool: pool},
		{Name: "Vegas", New: newVegas, Backoff: sdkBackoff, Pool: pool},
		{Name: "Gradient2", New: newGradient2, Backoff: sdkBackoff, Pool: pool},
	}
}

const (
	// sdkBackoff is DefaultMaxBackoff of aws-sdk-go-v2 v1.47.7, aws/retry/standard.go.
	// Its three attempts and its retry quota are left out: here a job is retried
	// until it is done, as a queue would do it.
	sdkBackoff = 20 * time.Second

	// pool is generous: a pool that is too small is a limiter of its own.
	pool = 2.5
)

// A spout is a token bucket whose rate may change at any time. It holds one job of
// average size; a larger one goes when it is full, and leaves a debt.
type spout struct {
	size  func(*Call) float64
	mean  float64 // size
	rate  float64 // per second, in that unit
	level float64
	last  time.Time
}

// newSpout returns one in the unit that binds in s, for so many calls per second.
func newSpout(s *Scenario, rate float64) spout {
	p := spout{size: func(*Call) float64 { return 1 }, mean: 1, level: 1}
	if s.Unit == "tpm" {
		p.size, p.mean, p.level = (*Call).tokens, MeanSize, MeanSize
	}
	p.rate = rate * p.mean
	return p
}

func (p *spout) fill(now time.Time) {
	if !p.last.IsZero() {
		p.level = min(p.mean, p.level+p.rate*now.Sub(p.last).Seconds())
	}
	p.last = now
}

func (p *spout) Admit(now time.Time, c *Call) (ok bool, again time.Time) {
	p.fill(now)
	size := p.size(c)
	if lacks := min(size, p.mean) - p.level; lacks > 1e-9*p.mean {
		return false, now.Add(seconds(lacks / p.rate))
	}
	p.level -= size
	return true, now
}

func (p *spout) Rate() float64 { return p.rate / p.mean }

// A steady rate does not learn.
type steady struct{ spout }

func fixed(part float64) func(*Scenario, *rand.Rand) Limiter {
	return func(s *Scenario, _ *rand.Rand) Limiter {
		return &steady{newSpout(s, part*s.Nominal/float64(max(1, s.Workers)))}
	}
}

func (*steady) Done(time.Time, *Call, throttle.Outcome, time.Duration) {}

// An aimd grows by 0.05 calls/s every second and keeps 0.7 of its rate at a refusal
// of a call sent since the last cut, once a second at most: Chiu and Jain, 1989,
// with the factor of CUBIC (RFC 9438). What it adds is right for 10 calls/s, where
// it wins back a cut in a minute.
type aimd struct {
	spout
	grown, cut time.Time
}

func newAIMD(s *Scenario, _ *rand.Rand) Limiter { return &aimd{spout: newSpout(s, 1)} }

func (l *aimd) grow(now time.Time) {
	l.fill(now)
	if !l.grown.IsZero() {
		l.rate += 0.05 * l.mean * min(now.Sub(l.grown).Seconds(), 2) // not for idle times
	}
	l.grown = now
}

func (l *aimd) Admit(now time.Time, c *Call) (bool, time.Time) {
	l.grow(now)
	return l.spout.Admit(now, c)
}

func (l *aimd) Done(now time.Time, c *Call, o throttle.Outcome, _ time.Duration) {
	l.grow(now)
	if o != throttle.Accepted && c.Sent.After(l.cut) && now.Sub(l.cut) > time.Second {
		l.rate, l.cut = max(0.7*l.rate, 0.05*l.mean), now
	}
}

// An adaptive is the adaptive retry mode of the AWS SDKs, after aws-sdk-go-v2
// v1.47.7, aws/retry/adaptive_ratelimit.go: no limit until the first 429, then a
// token bucket whose rate follows CUBIC. Names and constants are those of the
// original. A 503 is a transient error there and does not change the rate.
type adaptive struct {
	enabled       bool
	fillRate      float64 // what the bucket gets per second
	level, size   float64 // of the bucket
	refilled      time.Time
	count, bucket float64 // calls that ended since, and the half second that counts them
	measured      float64 // calls that end per second
	lastMax       float64 // rate at the last 429
	lastThrottle  time.Time
}

const (
	awsSmooth  = 0.8
	awsBeta    = 0.7
	awsScale   = 0.4
	awsMinRate = 0.5
)

func newAdaptive(*Scenario, *rand.Rand) Limiter {
	return &adaptive{lastThrottle: epoch, refilled: epoch}
}

func (l *adaptive) refill(now time.Time) {
	l.level = min(l.size, l.level+now.Sub(l.refilled).Seconds()*l.fillRate)
	l.refilled = now
}

func (l *adaptive) Admit(now time.Time, _ *Call) (bool, time.Time) {
	if !l.enabled {
		return true, now
	}
	l.refill(now)
	if l.level < 1 {
		return false, now.Add(seconds((1 - l.level) / l.fillRate))
	}
	l.level--
	return true, now
}

func (l *adaptive) Done(now time.Time, _ *Call, o throttle.Outcome, _ time.Duration) {
	l.count++
	if t := math.Floor(now.Sub(epoch).Seconds()*2) / 2; t > l.bucket {
		l.measured = awsSmooth*l.count/(t-l.bucket) + (1-awsSmooth)*l.measured
		l.count, l.bucket = 0, t
	}
	var rate float64
	if o == throttle.Throttled {
		rate = l.measured
		if l.enabled {
			rate = min(rate, l.fillRate)
		}
		l.lastMax, l.lastThrottle, l.enabled = rate, now, true
		rate *= awsBeta
	} else {
		window := math.Cbrt(l.lastMax * (1 - awsBeta) / awsScale)
		rate = awsScale*math.Pow(now.Sub(l.lastThrottle).Seconds()-window, 3) + l.lastMax
	}
	rate = min(rate, 2*l.measured)
	l.refill(now)
	l.fillRate = max(rate, awsMinRate)
	l.size = max(rate, 1)
	l.level = min(l.level, l.size)
}

func (l *adaptive) Rate() float64 {
	if !l.enabled {
		return 0
	}
	return l.fillRate
}

// A concurrency is a limit of calls in flight that follows their latency, as in
// Netflix's concurrency-limits. A refusal takes no service time and is no sample of
// it, which is kinder than the originals.
type concurrency struct {
	inflight int
	limit    float64
	sample   func(rtt float64, inflight int, dropped bool)
}

func (l *concurrency) Admit(now time.Time, c *Call) (bool, time.Time) {
	if l.inflight >= int(l.limit) {
		return false, now.Add(patience)
	}
	l.inflight++
	c.abreast = l.inflight
	return true, now
}

func (l *concurrency) Done(now time.Time, c *Call, o throttle.Outcome, _ time.Duration) {
	l.inflight--
	l.sample(now.Sub(c.Sent).Seconds(), c.abreast, o != throttle.Accepted)
}

// Rate is what the limit is worth.
func (l *concurrency) Rate() float64 { return l.limit / MeanTook }

const (
	netflixInitial = 20

	// netflixMost is five times the largest need of the scenarios with a target; the
	// defaults, 1000 of Vegas and 200 of Gradient2, would bind by themselves.
	netflixMost = 5 * 100 * MeanTook
)

// newVegas returns a limiter after
// github.com/Netflix/concurrency-limits@141214d, limit/VegasLimit.java: the part of
// the latency above the lowest seen is taken for queueing. The lowest is measured
// anew after about 30 calls per call in flight.
func newVegas(_ *Scenario, rng *rand.Rand) Limiter {
	l := &concurrency{limit: netflixInitial}
	jitter := func() float64 { return 0.5 + rng.Float64()/2 }
	log := func() float64 { return math.Floor(max(1, math.Log10(l.limit))) } // Log10RootFunction
	lowest, probes, due := 0., 0., jitter()
	l.sample = func(rtt float64, inflight int, dropped bool) {
		if !dropped {
			if probes++; probes >= due*30*l.limit {
				lowest, probes, due = rtt, 0, jitter()
				return
			}
			if lowest == 0 || rtt < lowest {
				lowest = rtt
				return
			}
		}
		queue := math.Ceil(l.limit * (1 - lowest/rtt))
		switch by := log(); {
		case dropped:
			l.limit -= by
		case 2*float64(inflight) < l.limit:
		case queue <= by:
			l.limit += 6 * by
		case queue < 3*by:
			l.limit += by
		case queue > 6*by:
			l.limit -= by
		}
		l.limit = clip(l.limit, 1, netflixMost)
	}
	return l
}

// newGradient2 returns a limiter after
// github.com/Netflix/concurrency-limits@14ddfa2, limit/Gradient2Limit.java: the
// limit shrinks while the latest latency is above its long-term mean, and grows by
// 4 otherwise. It does not look at refusals. The tolerance of 1.5 is that of later
// versions, which are more patient.
func newGradient2(*Scenario, *rand.Rand) Limiter {
	const (
		tolerance = 1.5
		smoothing = 0.2
		queue     = 4
		over      = 600 // samples
		first     = 10  // of which the mean is plain
	)
	l := &concurrency{limit: netflixInitial}
	mean, n := 0., 0.
	l.sample = func(rtt float64, inflight int, dropped bool) {
		if dropped {
			return
		}
		n++
		if n <= first {
			mean += (rtt - mean) / n
		} else {
			mean += (rtt - mean) * 2 / (over + 1)
		}
		if mean > 2*rtt {
			mean *= 0.95
		}
		if float64(inflight) < l.limit/2 {
			return
		}
		gradient := clip(tolerance*mean/rtt, 0.5, 1)
		l.limit += smoothing * (l.limit*gradient + queue - l.limit)
		l.limit = clip(l.limit, netflixInitial, netflixMost)
	}
	return l
}
