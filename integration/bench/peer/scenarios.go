package main

import (
	"context"
	"fmt"
	"syscall"
	"time"

	"upwell/integration/bench/internal/standin"
)

// A scenario is one piece of work, and how it is disturbed.
type scenario struct {
	name    string
	jobs    standin.Jobs
	set     standin.Settings
	slots   int
	connect []string // variables of its configuration, for this alone

	// robust tells that what others do on the machine hardly matters to what is
	// measured: counts of calls, and a time that the endpoint's limit sets.
	robust bool

	play func(ctx context.Context, p program, s *scenario, at *standin.Servers) (numbers, error)
}

// numbers are what one run measured, by name.
type numbers map[string]float64

const (
	ms = time.Millisecond
	kb = 1 << 10
)

var (
	cpu = scenario{
		name: "cpu", jobs: standin.Jobs{N: 10_000, Prompt: 2 * kb, Receives: 5}, slots: 128,
		set: standin.Settings{Call: 20 * ms, SQS: ms, S3: ms}, play: work,
	}
	rate = scenario{
		name: "rate", jobs: standin.Jobs{N: 12_800, Prompt: kb, Receives: 5}, slots: 256,
		set: standin.Settings{Call: 200 * ms, SQS: 20 * ms, S3: 20 * ms}, play: work,
	}
	hidden = scenario{
		name: "hidden", jobs: standin.Jobs{N: 5000, Prompt: 2 * kb, Receives: 5}, slots: 256,
		set: standin.Settings{Call: 200 * ms, SQS: ms, S3: ms, Capacity: "calls=200 burst=1"}, play: work, robust: true,
	}
	known  = hidden.but("known", rehearsed, "RATE_LIMIT=told", "RATE=200")
	memory = scenario{
		name: "memory", jobs: standin.Jobs{N: 3000, Prompt: 250 * kb, Receives: 5}, slots: 256,
		set: standin.Settings{Call: 2 * time.Second, SQS: ms, S3: ms}, play: work,
	}
	term = scenario{
		name: "term", jobs: standin.Jobs{N: 100, Prompt: 2 * kb, Receives: 5}, slots: 100,
		set: standin.Settings{Call: 20 * time.Second, SQS: ms, S3: ms}, play: deploy, robust: true,
	}
	termShort = term.but("term20", deploy, "SHUTDOWN=20s")
	crash     = scenario{
		name: "kill", jobs: standin.Jobs{N: 5000, Prompt: 2 * kb, Receives: 5}, slots: 256,
		set: standin.Settings{Call: time.Second, SQS: ms, S3: ms}, play: killOne, robust: true,
	}
)

// but is the same scenario, with another name and way.
func (s *scenario) but(name string, play func(context.Context, program, *scenario, *standin.Servers) (numbers, error), connect ...string) scenario {
	other := *s
	other.name, other.play, other.connect = name, play, connect
	return other
}

// run plays the scenario once, with stand-ins of its own.
func (s *scenario) run(ctx context.Context, p program) (numbers, error) {
	at, err := standin.Start(ctx, s.set)
	if err != nil {
		return nil, err
	}
	defer at.Stop()
	if err := at.Fill(ctx, s.jobs); err != nil {
		return nil, fmt.Errorf("fill the queue: %w", err)
	}
	return s.play(ctx, p, s, at)
}

// work has a program do the jobs, and reads what it used when the last of them is
// done: the program itself would wait for more.
func work(ctx context.Context, p program, s *scenario, at *standin.Servers) (numbers, error) {
	before, err := at.Counts(ctx)
	if err != nil {
		return nil, err
	}
	proc, err := start(p.command(ctx, at, s))
	if err != nil {
		return nil, err
	}
	defer proc.kill()
	took, err := s.finish(ctx, at, proc)
	if err != nil {
		return nil, err
	}
	spent, err := proc.spent()
	if err != nil {
		return nil, err
	}
	n, err := s.read(ctx, at)
	if err != nil {
		return nil, err
	}
	times, err := at.Times(ctx)
	if err != nil {
		return nil, err
	}
	after, err := at.Counts(ctx)
	if err != nil {
		return nil, err
	}
	n["cpu"] = spent.cpu.Seconds() * 1e3 / float64(s.jobs.N)
	n["peak"] = float64(spent.peak) / 1e6
	n["seconds"] = times[len(times)-1]
	n["took"] = took.Seconds()
	n["rate"] = standin.Steady(times)
	n["refused"] = float64(standin.Refused(after) - standin.Refused(before))
	n["fresh"] = 100 * float64(after.NewConnections-before.NewConnections) / float64(after.Calls-before.Calls)
	proc.stop()
	return n, nil
}

// rehearsed does the work twice and counts the second time.
func rehearsed(ctx context.Context, p program, s *scenario, at *standin.Servers) (numbers, error) {
	if p.name == "upwell" { // connect is told instead
		if _, err := work(ctx, p, s, at); err != nil {
			return nil, fmt.Errorf("rehearsal: %w", err)
		}
		if err := at.Forget(ctx); err != nil {
			return nil, err
		}
		if err := at.Fill(ctx, s.jobs); err != nil {
			return nil, err
		}
	}
	return work(ctx, p, s, at)
}

// deploy asks the program to end when all its calls are in flight, and starts it
// again.
func deploy(ctx context.Context, p program, s *scenario, at *standin.Servers) (numbers, error) {
	first, err := start(p.command(ctx, at, s))
	if err != nil {
		return nil, err
	}
	defer first.kill()
	if err := until(ctx, time.Minute, first, func() (bool, error) {
		c, err := at.Counts(ctx)
		return c.InFlight == s.jobs.N, err
	}); err != nil {
		return nil, fmt.Errorf("all calls in flight: %w", err)
	}
	exit := first.stop()
	kept, err := at.Stored(ctx)
	if err != nil {
		return nil, err
	}
	second, err := start(p.command(ctx, at, s))
	if err != nil {
		return nil, err
	}
	defer second.kill()
	took, err := s.finish(ctx, at, second)
	if err != nil {
		return nil, err
	}
	n, err := s.read(ctx, at)
	if err != nil {
		return nil, err
	}
	n["exit"], n["kept"], n["took"] = exit.Seconds(), float64(kept.Keys), took.Seconds()
	second.stop()
	return n, nil
}

// killOne kills one of two processes when two in five jobs are done.
func killOne(ctx context.Context, p program, s *scenario, at *standin.Servers) (numbers, error) {
	victim, err := start(p.command(ctx, at, s))
	if err != nil {
		return nil, err
	}
	defer victim.kill()
	survivor, err := start(p.command(ctx, at, s))
	if err != nil {
		return nil, err
	}
	defer survivor.kill()
	if err := until(ctx, time.Minute, victim, func() (bool, error) {
		c, err := at.Counts(ctx)
		return c.Billed >= int64(s.jobs.N*2/5), err
	}); err != nil {
		return nil, fmt.Errorf("the middle of the work: %w", err)
	}
	_ = victim.cmd.Process.Signal(syscall.SIGKILL)
	<-victim.done
	took, err := s.finish(ctx, at, survivor)
	if err != nil {
		return nil, err
	}
	n, err := s.read(ctx, at)
	if err != nil {
		return nil, err
	}
	n["took"] = took.Seconds() // from the kill
	survivor.stop()
	return n, nil
}

// finish waits until no message is left in the queue.
func (s *scenario) finish(ctx context.Context, at *standin.Servers, proc *process) (time.Duration, error) {
	begun := time.Now()
	left := 0
	err := until(ctx, 5*time.Minute, proc, func() (bool, error) {
		queues, err := at.Queues(ctx)
		q := queues["jobs"]
		left = q.Visible + q.Delayed + q.InFlight
		return left == 0, err
	})
	if err != nil {
		return 0, fmt.Errorf("%d messages left: %w", left, err)
	}
	return time.Since(begun), nil
}

// read asks the stand-ins how the jobs ended.
func (s *scenario) read(ctx context.Context, at *standin.Servers) (numbers, error) {
	st, err := at.Stored(ctx)
	if err != nil {
		return nil, err
	}
	queues, err := at.Queues(ctx)
	if err != nil {
		return nil, err
	}
	c, err := at.Counts(ctx)
	if err != nil {
		return nil, err
	}
	dead := queues["dead"].Visible + queues["dead"].InFlight
	return numbers{
		"lost": float64(s.jobs.N - st.Keys - dead), "dead": float64(dead), "doubled": float64(st.Doubled), "wrong": float64(st.Wrong),
		"calls": float64(c.Billed), "repeated": float64(c.Billed) - float64(st.Keys),
	}, nil
}

// until asks ten times a second.
func until(ctx context.Context, patience time.Duration, proc *process, done func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(100 * ms)
	defer tick.Stop()
	for {
		ok, err := done()
		if ok || err != nil {
			return err
		}
		if err := proc.alive(); err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
