package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"sync"

	"golang.org/x/sync/errgroup"

	"upwell/cmd/internal/budget"
	"upwell/cmd/internal/progress"
	"upwell/jobs"
	"upwell/sink"
	"upwell/sink/s3sink"
)

// budgetFlags say what a run may cost.
type budgetFlags struct {
	Budget string `group:"Money:" placeholder:"AMOUNT" env:"UPWELL_BUDGET" help:"What the run may cost in all, such as 200usd. It is kept with the run and binds all its workers; another amount changes it. When it is used up the run parks: no job fails for it, and a larger budget lets it go on. What calls may cost is set aside first: limit the output tokens as well."`
}

// checkBudget reports an amount that is none.
func (f *budgetFlags) checkBudget() error {
	if f.Budget == "" {
		return nil
	}
	if _, err := budget.ParseUSD(f.Budget); err != nil {
		return fmt.Errorf("--budget: %w", err)
	}
	return nil
}

// setBudget makes the budget, if there is one, that of the run. What the run has cost
// before is counted.
func (f *budgetFlags) setBudget(ctx context.Context, e env, results *s3sink.Sink, run string) error {
	if f.Budget == "" {
		return nil
	}
	limit, err := budget.ParseUSD(f.Budget)
	if err != nil {
		return fail(exitUsage, fmt.Errorf("--budget: %w", err))
	}
	s, err := budget.Set(ctx, results.Board(budget.BoardName(run)), limit, func(ctx context.Context) (jobs.USD, error) {
		cost, err := costOf(ctx, results, run)
		if cost.Unknown > 0 {
			fmt.Fprintf(e.stderr, "upwell: %d calls of run %s are not counted in its budget, as their price is not known\n", cost.Unknown, run)
		}
		return jobs.USD(cost.USD), err
	})
	if ctx.Err() != nil {
		return fail(exitInterrupted, err)
	}
	if err != nil {
		return fail(exitConfig, err)
	}
	fmt.Fprintf(e.stderr, "budget of run %s: %v\n", run, s)
	return nil
}

// settleDead counts what earlier workers of a folder's run have set aside, and not told
// the end of, as spent. Whoever calls it holds the folder's lock, so they are dead.
func settleDead(ctx context.Context, e env, results *s3sink.Sink, run string) error {
	lost, err := budget.Settle(ctx, results.Board(budget.BoardName(run)))
	if ctx.Err() != nil {
		return fail(exitInterrupted, err)
	}
	if err != nil {
		return fail(exitConfig, err)
	}
	if lost > 0 {
		fmt.Fprintf(e.stderr, "upwell: $%.2f that were set aside by a worker that was killed count as spent in the budget of run %s: what its calls have cost nobody knows\n", lost, run)
	}
	return nil
}

// costOf adds up what a run has cost, in vain or not. It reads all of its lines.
func costOf(ctx context.Context, results *s3sink.Sink, run string) (sum progress.Spend, err error) {
	var mu sync.Mutex
	g, reading := errgroup.WithContext(ctx)
	g.SetLimit(readers)
	for _, kind := range []sink.Kind{sink.Results, sink.Errors} {
		for o, err := range results.List(ctx, run, kind) {
			if err != nil {
				_ = g.Wait()
				return sum, err
			}
			g.Go(func() error {
				r, err := results.ReadObject(reading, o)
				if err != nil {
					return err
				}
				mu.Lock()
				defer mu.Unlock()
				sum = sum.Add(r.Upwell.CostUSD)
				return nil
			})
		}
	}
	return sum, g.Wait()
}

// purse returns a worker's part of the budgets of all runs. It is to be run until the
// worker has ended: what is left is given back then.
func purse(results *s3sink.Sink, log *slog.Logger) *budget.Purse {
	return budget.New(rand.Text(), func(run string) budget.Board { return results.Board(budget.BoardName(run)) }, log)
}
