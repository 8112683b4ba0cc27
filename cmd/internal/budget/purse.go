package budget

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"time"

	"upwell/jobs"
	"upwell/worker"
)

const (
	// moment is how long a call waits for money at most. It covers an exchange with
	// the board, and most calls in flight.
	moment = 10 * time.Second

	// tell is how often the board hears what is spent, and look how often a run
	// without a budget is looked up for one.
	tell = 15 * time.Second
	look = time.Minute

	// beat is how often it is checked what is due.
	beat = 5 * time.Second

	// forget is after how long a run that has no calls is forgotten.
	forget = 10 * time.Minute

	// gap and refusedGap are the least time between two exchanges of a run's record:
	// a conditional write takes some 50 ms, and other workers want to write too.
	gap        = 250 * time.Millisecond
	refusedGap = 2 * time.Second

	// requestTimeout bounds a request to the board. S3 answers in well under a
	// second; jobs wait for this one.
	requestTimeout = 8 * time.Second

	// farewell bounds the time to give back what is left when the worker ends. After
	// a drain of 85s and half a minute of storing, it fits in the 120s that Amazon ECS
	// on Fargate gives a task to stop.
	farewell = 4 * time.Second

	// denials is how often it is repeated that the board may not be used: nothing is
	// done until a person acts.
	denials = time.Minute
)

// A Purse is a worker's part of the budgets of all runs. It implements
// [worker.Purse], and serves nobody unless [Purse.Run] runs.
type Purse struct {
	id    string
	board func(run string) Board
	log   *slog.Logger
	kick  chan struct{} // somebody wants an exchange; holds one

	mu       sync.Mutex
	accounts map[string]*account
}

var _ worker.Purse = (*Purse)(nil)

// New returns a Purse with a name that no other has. board returns the board with the
// budget of a run: see [BoardName]. A nil log discards.
func New(id string, board func(run string) Board, log *slog.Logger) *Purse {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Purse{id: id, board: board, log: log, kick: make(chan struct{}, 1), accounts: make(map[string]*account)}
}

// Try implements [worker.Purse].
func (p *Purse) Try(n worker.Need) (settle func(jobs.USD), ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	a, w := p.account(n.Run), waiterOf(n)
	if !a.take(w, time.Now()) {
		return nil, false
	}
	if a.low() {
		p.want(a)
	}
	return p.settling(a, w.most), true
}

// Bounded implements [worker.Purse].
func (p *Purse) Bounded(run string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	a := p.accounts[run]
	return a != nil && a.known && a.limited
}

// Reserve implements [worker.Purse]. It waits for a moment at most.
func (p *Purse) Reserve(ctx context.Context, n worker.Need) (settle func(jobs.USD), err error) {
	p.mu.Lock()
	a, w := p.account(n.Run), waiterOf(n)
	now := time.Now()
	if a.take(w, now) {
		p.mu.Unlock()
		return p.settling(a, w.most), nil
	}
	if err := a.hopeless(w, now); err != nil {
		if a.unpriced {
			p.want(a)
		}
		p.mu.Unlock()
		return nil, err
	}
	a.wait(w)
	p.want(a)
	p.mu.Unlock()

	timer := time.NewTimer(moment)
	defer timer.Stop()
	select {
	case err = <-w.done:
	case <-ctx.Done():
		err = p.giveUp(a, w, context.Cause(ctx))
	case <-timer.C:
		err = p.giveUp(a, w, errShort)
	}
	if err != nil {
		return nil, err
	}
	return p.settling(a, w.most), nil
}

// giveUp ends a wait, and returns why unless it has ended already.
func (p *Purse) giveUp(a *account, w *waiter, why error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if a.leave(w) {
		return why
	}
	return <-w.done
}

func waiterOf(n worker.Need) *waiter {
	w := &waiter{most: up(n.MostUSD), owing: n.Owing, unpriced: !n.MostUSD.Known(), done: make(chan error, 1)}
	if !w.owing {
		w.spare = up(n.SpareUSD)
	}
	return w
}

// settling returns what settles a reservation.
func (p *Purse) settling(a *account, most money) func(jobs.USD) {
	return func(spent jobs.USD) {
		p.mu.Lock()
		defer p.mu.Unlock()
		a.reserved -= most
		a.calls--
		a.used = time.Now()
		if spent.Known() {
			a.unreported += up(spent)
		} else {
			a.unreported += most
			a.presumed += most
		}
		a.serve(a.used)
		if len(a.waiters) > 0 {
			p.want(a)
		}
	}
}

// account returns the account of the run. p.mu must be held.
func (p *Purse) account(run string) *account {
	a, ok := p.accounts[run]
	if !ok {
		a = &account{run: run, board: p.board(run), states: []state{{}}, used: time.Now()}
		p.accounts[run] = a
	}
	return a
}

// want asks for an exchange of the account's record. p.mu must be held.
func (p *Purse) want(a *account) {
	a.wanted = true
	select {
	case p.kick <- struct{}{}:
	default:
	}
}

// Run exchanges records until ctx is done, and gives back what is left then. It
// returns when that is done. The worker must have ended when ctx is.
func (p *Purse) Run(ctx context.Context) {
	var exchanging sync.WaitGroup
	t := time.NewTicker(beat)
	defer t.Stop()
	for ctx.Err() == nil {
		select {
		case <-p.kick:
		case <-t.C:
			p.review(time.Now())
		case <-ctx.Done():
		}
		for _, a := range p.begin() {
			exchanging.Go(func() { p.serve(ctx, a) })
		}
	}
	exchanging.Wait()
	p.leave(ctx)
}

// review finds out what is due, and forgets what nobody needs.
func (p *Purse) review(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for run, a := range p.accounts {
		switch {
		case a.idle(now):
			delete(p.accounts, run)
		case a.due(now):
			a.wanted = true
		}
	}
}

// begin returns the accounts whose record is to be exchanged, and marks them.
func (p *Purse) begin() (all []*account) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, a := range p.accounts {
		if a.wanted && !a.busy {
			a.busy = true
			all = append(all, a)
		}
	}
	return all
}

// serve exchanges the record of an account for as long as that is wanted.
func (p *Purse) serve(ctx context.Context, a *account) {
	for {
		p.mu.Lock()
		if !a.wanted || ctx.Err() != nil {
			a.busy = false
			p.mu.Unlock()
			return
		}
		early := time.Until(a.notBefore)
		p.mu.Unlock()
		if early > 0 {
			pause(ctx, early)
			continue
		}
		p.conclude(ctx, a, p.exchange(ctx, a, false))
	}
}

// conclude does what follows from an exchange.
func (p *Purse) conclude(ctx context.Context, a *account, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	a.exchanged, a.wanted = now, false
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		switch {
		case denied(err) && now.Sub(a.complained) >= denials:
			p.log.ErrorContext(ctx, "budget not accessible: no calls are made", "run", a.run, "err", err)
			a.complained = now
		case a.failures == 0 && !denied(err):
			p.log.WarnContext(ctx, "budget out of reach", "run", a.run, "err", err)
		}
		a.failures++
		a.notBefore = now.Add(time.Second<<min(a.failures, 5)/2 + rand.N(time.Second))
		err = fmt.Errorf("the budget of run %s is out of reach: %w", a.run, err)
		for _, w := range a.waiters {
			w.done <- err
		}
		a.waiters = nil
		return
	}
	if a.failures > 0 {
		p.log.InfoContext(ctx, "budget in reach again", "run", a.run)
	}
	a.failures, a.notBefore, a.complained = 0, now.Add(gap), time.Time{}
	a.serve(now)
	if a.refusal != nil {
		a.notBefore = now.Add(refusedGap)
		a.dismiss()
	}
	a.wanted = len(a.waiters) > 0 && (a.refusal == nil || a.calls == 0) // else a call that ends says so
}

// denied reports whether err is an answer with status 401 or 403. The board's words
// for it name the object and the permission.
func denied(err error) bool {
	e, ok := errors.AsType[interface {
		error
		HTTPStatusCode() int
	}](err)
	return ok && (e.HTTPStatusCode() == http.StatusUnauthorized || e.HTTPStatusCode() == http.StatusForbidden)
}

// exchange reads the record and writes what this worker has to say.
func (p *Purse) exchange(ctx context.Context, a *account, leaving bool) error {
	for n := range tries {
		r, version, err := p.read(ctx, a)
		if err != nil {
			return err
		}
		data, err := p.plan(ctx, a, r, version, leaving)
		if data == nil || err != nil {
			return err
		}
		ok, err := p.write(ctx, a, data, version)
		if ok || err != nil {
			return err
		}
		pause(ctx, rand.N(50*time.Millisecond<<min(n, 4)))
	}
	return errors.New("others write it all the time")
}

func (p *Purse) read(ctx context.Context, a *account) (*record, string, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	data, version, err := a.board.Read(ctx)
	if err != nil {
		return nil, "", err
	}
	r, err := decode(a.board, data)
	return r, version, err
}

// plan takes over what was read, and returns what is to be written, or nil.
func (p *Purse) plan(ctx context.Context, a *account, r *record, version string, leaving bool) ([]byte, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	was := a.limited
	a.learn(p.id, r, version)
	if r == nil {
		if was {
			p.log.WarnContext(ctx, "budget was removed: the run has no limit", "run", a.run)
		}
		return nil, nil
	}
	if !a.plan(p.id, r, version, leaving, now) {
		return nil, nil
	}
	return r.encode(now)
}

// write replaces the record. When it does not say so, the write may have happened.
func (p *Purse) write(ctx context.Context, a *account, data []byte, version string) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	ok, err := a.board.Write(ctx, data, version)
	if ok && err == nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		a.confirm(a.states[len(a.states)-1])
	}
	return ok && err == nil, err
}

// leave tells the boards what is spent, and gives back the rest.
func (p *Purse) leave(ctx context.Context) {
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), farewell, errors.New("the board is slow"))
	defer cancel()
	p.mu.Lock()
	all := slices.Collect(maps.Values(p.accounts))
	p.mu.Unlock()
	var leaving sync.WaitGroup
	for _, a := range all {
		leaving.Go(func() { p.close(ctx, a) })
	}
	leaving.Wait()
}

// close says farewell to one board: first what is spent, then that it is all. It
// tries again, as money that is not given back stays reserved.
func (p *Purse) close(ctx context.Context, a *account) {
	var err error
	for {
		p.mu.Lock()
		open := a.known && (a.limited || a.unreported > 0) && (a.unreported > 0 || len(a.states) > 1 || a.states[0].seq != 0)
		granted := a.states[0].granted
		p.mu.Unlock()
		switch {
		case !open:
			return
		case ctx.Err() != nil:
			p.log.WarnContext(ctx, "budget not given back", "run", a.run, "usd", float64(granted.usd()), "err", err)
			return
		}
		if err = p.exchange(ctx, a, true); err != nil {
			pause(ctx, time.Second/2)
		}
	}
}
