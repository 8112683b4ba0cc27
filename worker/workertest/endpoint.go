package workertest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"upwell/jobs"
	"upwell/throttle"
	"upwell/worker"
)

// An Endpoint is a [worker.Endpoint] made of a function, with a ledger of what it
// was asked and what it billed.
type Endpoint struct {
	// Func makes the attempt. Default: [Answer], at once.
	Func func(ctx context.Context, c worker.Call) (worker.Answer, error)

	// Most is what a call may cost at most. Default: the cost of [Answer].
	Most func(c worker.Call) jobs.USD

	// Fault decides, before Func runs, whether the call arrives, and whether
	// its answer does. A call that arrives is billed as Func says.
	Fault Fault

	mu       sync.Mutex
	accounts map[jobs.Key]Account
	total    Account
	inflight int
	peak     int
	costs    int
}

// An Account is what the endpoint knows of one job, or of all.
type Account struct {
	Calls   int // all, whatever became of them
	Billed  int // answered, the bad answers and the lost ones included
	Mending int // the billed ones that were to mend a bad answer
	Counted int // failed in a way that spends an attempt
	Refused int // 429, 503, 529: for lack of room
}

// Answer is an answer to c: complete, and made of what was asked.
func Answer(c worker.Call) worker.Answer {
	return worker.Answer{
		Response: jobs.Response{StatusCode: 200, RequestID: "req_" + c.Job.CustomID, Body: c.Job.Body},
		Text:     "answer to " + c.Job.CustomID,
		Model:    c.Job.Model, Tier: c.Lane.Tier,
		Usage:   jobs.Usage{InputTokens: 100, OutputTokens: 10},
		CostUSD: 0.001,
	}
}

// After returns a Func that answers after d, and gives up when it is told to.
func After(d time.Duration) func(context.Context, worker.Call) (worker.Answer, error) {
	return func(ctx context.Context, c worker.Call) (worker.Answer, error) {
		t := time.NewTimer(d)
		defer t.Stop()
		select {
		case <-t.C:
			return Answer(c), nil
		case <-ctx.Done():
			return worker.Answer{}, context.Cause(ctx)
		}
	}
}

// Fail returns the error of an attempt.
func Fail(kind worker.Kind, status int, retryAfter time.Duration) *worker.Error {
	return &worker.Error{
		Kind: kind, Status: status, RetryAfter: retryAfter, RequestID: fmt.Sprintf("req_%d", status),
		Err: fmt.Errorf("status %d", status),
	}
}

// Cost implements [worker.Endpoint].
func (e *Endpoint) Cost(c worker.Call) throttle.Cost {
	e.mu.Lock()
	e.costs++
	e.mu.Unlock()
	return throttle.Cost{Input: len(c.Job.Body), Output: 100}
}

// MostUSD implements [worker.Endpoint].
func (e *Endpoint) MostUSD(c worker.Call) jobs.USD {
	if e.Most == nil {
		return Answer(c).CostUSD
	}
	return e.Most(c)
}

// Complete implements [worker.Endpoint].
func (e *Endpoint) Complete(ctx context.Context, c worker.Call) (worker.Answer, error) {
	e.mu.Lock()
	e.inflight++
	e.peak = max(e.peak, e.inflight)
	e.mu.Unlock()

	apply, lost := e.Fault.decide(Complete, c.Job.Key.String())
	ans, err := worker.Answer{}, lost
	if apply {
		f := e.Func
		if f == nil {
			f = func(_ context.Context, c worker.Call) (worker.Answer, error) { return Answer(c), nil }
		}
		ans, err = f(ctx, c)
	}
	// A call that was cut off says nothing, but one that took too long does.
	cut := errors.Is(ctx.Err(), context.Canceled) && errors.Is(err, context.Cause(ctx))
	e.book(c, err, lost != nil, cut)
	if lost != nil {
		return worker.Answer{}, lost
	}
	return ans, err
}

// book enters a call into the ledger.
func (e *Endpoint) book(c worker.Call, err error, lost, cut bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.inflight--
	a := Account{Calls: 1}
	fail, typed := errors.AsType[*worker.Error](err)
	if err == nil || typed && fail.Answer != nil {
		a.Billed = 1
	}
	if c.Flaw != nil || c.MaxOutput > 0 {
		a.Mending = a.Billed
	}
	switch {
	case lost:
		a.Counted = 1
	case err == nil, cut:
	case typed && (fail.Kind == worker.Throttled || fail.Kind == worker.Unavailable):
		a.Refused = 1
	case typed && fail.Kind == worker.Unauthorized:
	default:
		a.Counted = 1
	}
	if e.accounts == nil {
		e.accounts = make(map[jobs.Key]Account)
	}
	e.accounts[c.Job.Key] = e.accounts[c.Job.Key].add(a)
	e.total = e.total.add(a)
}

func (a Account) add(b Account) Account {
	return Account{a.Calls + b.Calls, a.Billed + b.Billed, a.Mending + b.Mending, a.Counted + b.Counted, a.Refused + b.Refused}
}

// Accounts returns what is known of each job.
func (e *Endpoint) Accounts() map[jobs.Key]Account {
	e.mu.Lock()
	defer e.mu.Unlock()
	return maps.Clone(e.accounts)
}

// Total returns the sum of the accounts.
func (e *Endpoint) Total() Account {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.total
}

// InFlight reports how many calls are under way.
func (e *Endpoint) InFlight() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.inflight
}

// Costs reports how often the cost of a call was asked for: once whenever a job
// stands in a line.
func (e *Endpoint) Costs() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.costs
}

// Peak reports the most calls that were ever under way at once.
func (e *Endpoint) Peak() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.peak
}
