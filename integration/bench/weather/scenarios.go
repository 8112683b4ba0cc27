package weather

import (
	"fmt"
	"math"
	"time"

	"upwell/worker/mantle/mantlesim/capacity"
)

// targets returns what at least has to be used and at most refused, in percent.
func target(used, refused float64) Target { return Target{Used: used / 100, Refused: refused / 100} }

func (t Target) back(within time.Duration) Target { t.Back = within; return t }

func (t Target) jain(atLeast float64) Target { t.Jain = atLeast; return t }

// script is capacity.MustScript of a formatted text.
func script(format string, args ...any) capacity.Script {
	return capacity.MustScript(fmt.Sprintf(format, args...))
}

// tpm is a limit of tokens per minute that is worth so many calls per second.
func tpm(calls float64) float64 { return calls * 60 * MeanUsed }

// slots is what a limit of that many calls in flight is worth in calls per second.
func slots(n float64) float64 { return n / MeanTook }

const half = 30 * time.Minute // of a run

// Scenarios are those with a target. An hour each, of fleets two.
func Scenarios() []Scenario {
	list := []Scenario{
		{Name: "calls-1", About: "constant 1 calls/s", Script: script("calls=1 burst=5"), Nominal: 1, Target: target(97, 0.7)},
		{Name: "calls-10", About: "constant 10 calls/s", Script: script("calls=10 burst=5"), Nominal: 10, Target: target(99, 0.7)},
		{Name: "calls-100", About: "constant 100 calls/s", Script: script("calls=100 burst=5"), Nominal: 100, Target: target(98.5, 0.7)},
		{Name: "burst-1", About: "10 calls/s, bucket of 1 s", Script: script("calls=10 burst=1"), Nominal: 10, Target: target(97, 0.6)},
		{Name: "burst-60", About: "10 calls/s, bucket of 60 s", Script: script("calls=10 burst=60"), Nominal: 10, Target: target(99, 0.7)},
		{Name: "windows", About: "10 calls/s in windows of 60 s", Script: script("calls=10 window=60"), Nominal: 10, Target: target(97, 0.8)},
		{
			Name: "up", About: "4x up, 5 to 20 calls/s", Script: script("calls=5 burst=5; 30m calls=20"), Nominal: 5, Peak: 20,
			Change: half, Target: target(98, 0.6).back(60 * time.Second),
		},
		{
			Name: "down", About: "4x down, 20 to 5 calls/s", Script: script("calls=20 burst=5; 30m calls=5"), Nominal: 20,
			Change: half, Target: target(98.5, 0.6).back(15 * time.Second),
		},
		{
			Name: "dip", About: "3 of 10 calls/s for 3 min, then 10 again", Script: script("calls=10 burst=5; 30m calls=3; 33m calls=10"), Nominal: 10,
			Change: 33 * time.Minute, Target: target(95, 0.6).back(160 * time.Second),
		},
		{Name: "sine", About: "sine of 15 min, 10±5 calls/s", Script: script("calls=10~5/15m burst=5"), Nominal: 10, Peak: 15, Target: target(98.5, 0.6)},
		{Name: "grow-50", About: "grows 50 % a minute, 2 to 40 calls/s", Script: script("grow=0.5 floor=2 calls=40 burst=5"), Nominal: 40, Target: target(97, 0.3)},
		{Name: "grow-10", About: "grows 10 % a minute, 4 to 40 calls/s", Script: script("grow=0.1 floor=4 calls=40 burst=5"), Nominal: 40, Target: target(97, 0.3)},
		{
			Name: "outage", About: "60 s of 503", Script: script("calls=10 burst=5; 30m refuse=1; 31m refuse=0"), Nominal: 10,
			Change: half + time.Minute, Target: target(98, 0.6).back(15 * time.Second),
		},
		{
			Name: "idle", About: "20 min idle, capacity halved meanwhile", Script: script("calls=10 burst=5; 30m calls=5"), Nominal: 10,
			Load:   []Load{{0, math.Inf(1)}, {20 * time.Minute, 0}, {40 * time.Minute, math.Inf(1)}},
			Change: 40 * time.Minute, Target: target(98.5, 0.6),
		},
		{Name: "tokens", About: "tokens bind, jobs spread 100x", Script: script("tpm=%g tpmburst=5", tpm(10)), Unit: "tpm", Nominal: 10, Target: target(99, 0.6)},
		{
			Name: "tokens-up", About: "tokens bind, 4x up", Script: script("tpm=%g tpmburst=5; 30m tpm=%g", tpm(5), tpm(20)), Unit: "tpm",
			Nominal: 5, Peak: 20, Change: half, Target: target(96, 0.6),
		},
		{Name: "slots", About: "100 slots, no queue", Script: script("conc=100"), Unit: "conc", Nominal: slots(100), Target: target(97.5, 0.6)},
		{Name: "slots-25", About: "100 slots, queue of 25", Script: script("conc=100 queue=25 wait=10"), Unit: "conc", Nominal: slots(100), Target: target(97.5, 0.6)},
		{Name: "slots-100", About: "100 slots, queue of 100", Script: script("conc=100 queue=100 wait=20"), Unit: "conc", Nominal: slots(100), Target: target(97.5, 0.6)},
		{Name: "noise", About: "0.3 % refused at random", Script: script("calls=10 burst=5 noise=0.003"), Nominal: 10, Target: target(99, 0.8)},
		{Name: "late", About: "refusals 2 s late", Script: script("calls=10 burst=5"), Nominal: 10, Late: 2 * time.Second, Target: target(99, 0.8)},
	}
	for _, f := range []struct {
		workers int
		apart   time.Duration
		alone   Target // without exchange
	}{
		{4, 150 * time.Second, target(99, 0.5).jain(0.95)},
		{16, time.Minute, target(99, 1.2).jain(0.9)},
		{64, 20 * time.Second, target(99, 2.6).jain(0.85)},
	} {
		s := Scenario{
			Name: fmt.Sprintf("shared-%d", f.workers), About: fmt.Sprintf("%d workers, uncoordinated", f.workers),
			Script: script("calls=20 burst=5"), Nominal: 20,
			Workers: f.workers, Apart: f.apart, Length: 2 * time.Hour, Warm: 30 * time.Minute, Target: f.alone,
		}
		list = append(list, s)
		s.Name, s.About = fmt.Sprintf("fleet-%d", f.workers), fmt.Sprintf("%d workers, as a fleet", f.workers)
		s.Fleet, s.Target = true, target(99, 0.6).jain(0.99)
		list = append(list, s)
	}
	return list
}

// Also are scenarios without a target.
func Also() []Scenario {
	return []Scenario{
		{Name: "calls-0.3", About: "constant 0.3 calls/s", Script: script("calls=0.3 burst=5"), Nominal: 0.3},
		{Name: "up-1.5", About: "1.5x up, 10 to 15 calls/s", Script: script("calls=10 burst=5; 30m calls=15"), Nominal: 10, Peak: 15, Change: half},
		{Name: "up-10", About: "10x up, 2 to 20 calls/s", Script: script("calls=2 burst=5; 30m calls=20"), Nominal: 2, Peak: 20, Change: half},
		{Name: "down-10", About: "10x down, 50 to 5 calls/s", Script: script("calls=50 burst=5; 30m calls=5"), Nominal: 50, Change: half},
		{
			Name: "demand", About: "3 jobs/s of 10, then backlog", Script: script("calls=10 burst=5"), Nominal: 10,
			Load: []Load{{0, 3}, {half, math.Inf(1)}}, Change: half,
		},
		{Name: "output", About: "output tokens, charged as generated", Script: script("otpm=%g tpmburst=60", 10*60*MeanOutput), Unit: "otpm", Nominal: 10},
		{Name: "guess", About: "tokens bind, estimates 50 % wrong", Script: script("tpm=%g tpmburst=5", tpm(10)), Unit: "tpm", Nominal: 10, Wrong: 0.5},
		{
			Name: "fleet-lost", About: "16 as a fleet, board lost 20 min, capacity halved",
			Script: script("calls=20 burst=5; 70m calls=10"), Nominal: 20, Workers: 16, Apart: 10 * time.Second, Fleet: true,
			Length: 2 * time.Hour, Warm: 30 * time.Minute, Lost: Span{60 * time.Minute, 80 * time.Minute},
		},
	}
}

// Portrait is a scenario to draw: a cold start, a capacity that rises, falls and
// rises at once, and an outage.
func Portrait() Scenario {
	return Scenario{
		Name: "portrait", About: "ramp, step down, step up, outage",
		Script:  script("calls=10 burst=5; 4m calls=10..20/4m; 12m calls=5; 18m calls=20; 26m refuse=1; 27m refuse=0"),
		Nominal: 10, Peak: 20, Length: 32 * time.Minute, Warm: 2 * time.Minute,
	}
}
