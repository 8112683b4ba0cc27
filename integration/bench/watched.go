package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"

	"upwell/integration/bench/internal/standin"
)

// pairs is how often the two sides of a comparison are measured, each in turn.
const pairs = 7

// comparisons are of the cpu scenario. The first is between a worker that nobody can
// watch, or another program, and one that is watched: by a viewer of its dashboard, and
// by somebody who asks for its metrics every five seconds, which is more often than
// anybody does. The second is between one without and one with the flight recorder.
func comparisons(against string) []scenario {
	watched := comparison("watched", "watched against unwatched", []string{"--flight-dir=off"}, []string{"--http=off"})
	watched.viewed = true
	if against != "" {
		watched.about, watched.unwatched, watched.against = "the cpu scenario, watched against "+against, nil, against
	}
	recorded := comparison("recorded", "with the flight recorder against without", nil, []string{"--flight-dir=off"})
	recorded.judge = ratio(1.10) // of a worker that does nothing but calls of 20 ms; it is worth that when something hangs
	return []scenario{watched, recorded}
}

// comparison is between workers with flags, and with others as well.
func comparison(name, about string, flags, others []string) scenario {
	return scenario{
		name: name, about: "the cpu scenario, " + about, jobs: 15_000, prompt: 2 << 10,
		set:       standin.Settings{Call: 20 * time.Millisecond, SQS: time.Millisecond, S3: time.Millisecond},
		flags:     append([]string{"--slots=128", "--start-rate=10000"}, flags...),
		unwatched: others, pairs: pairs,
		judge: ratio(1.05),
	}
}

// ratio judges a comparison by the median of its pairs.
func ratio(most float64) func(outcome) []verdict {
	return func(o outcome) []verdict {
		slices.Sort(o.ratios)
		median := o.ratios[len(o.ratios)/2]
		return []verdict{{
			"CPU per job, in pairs", fmt.Sprintf("%.3f (%.3f to %.3f)", median, o.ratios[0], o.ratios[len(o.ratios)-1]), fmt.Sprintf("≤ %.2f", most), median <= most,
		}}
	}
}

// compare measures both sides, one after the other, and again the other way round.
func (s scenario) compare(ctx context.Context, program string) (o outcome, err error) {
	plain, watched, other := s, s, program
	plain.flags, plain.viewed = append(slices.Clone(s.flags), s.unwatched...), false
	if s.against != "" {
		other, plain.flags = s.against, s.flags[:2] // it may know no others
	}
	for i := range s.pairs {
		sides := []func() (outcome, error){
			func() (outcome, error) { return plain.measure(ctx, other) },
			func() (outcome, error) { return watched.measure(ctx, program) },
		}
		var got [2]outcome
		for k := range sides {
			side := (k + i) % 2
			if got[side], err = sides[side](); err != nil {
				return o, err
			}
		}
		o.ratios = append(o.ratios, got[1].cpu.Seconds()/got[0].cpu.Seconds())
		fmt.Fprintf(os.Stderr, "  %.3f ms per job without, %.3f with\n", got[0].perJob(), got[1].perJob())
	}
	return o, nil
}

// perJob is the processor time of a job, in milliseconds.
func (o outcome) perJob() float64 { return o.cpu.Seconds() * 1e3 / float64(o.jobs) }

// view looks at the dashboard and the metrics at addr until ctx is done.
func view(ctx context.Context, addr string) {
	var looks sync.WaitGroup
	looks.Go(func() {
		for ctx.Err() == nil {
			look(ctx, "http://"+addr+"/api/events")
			pause(ctx, 50*time.Millisecond) // it is only about to start
		}
	})
	looks.Go(func() {
		for ctx.Err() == nil {
			look(ctx, "http://"+addr+"/metrics")
			pause(ctx, 5*time.Second)
		}
	})
	looks.Wait()
}

// look reads what there is to its end.
func look(ctx context.Context, url string) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return // there is nobody yet, or any more
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, res.Body) // it ends with the worker
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// freeAddr returns an address of this machine that nobody serves at.
func freeAddr(ctx context.Context) (string, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}
