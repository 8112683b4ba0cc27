// Package workertest provides the doubles a worker is tested against: a
// [Queue], a [Sink] and an [Endpoint] in memory, and a [Trial] that puts them
// together and knows what must hold among them.
//
// The doubles keep the semantics of the real things where a worker could trip
// over them: deliveries that end, receipts that go stale, answers that are lost
// on the way back. They also police their contracts: an operation that a correct
// worker would never ask for fails the test at the moment it happens.
//
// Time comes from package time, so a trial belongs in a [testing/synctest]
// bubble and runs through hours in milliseconds.
//
// # Faults
//
// A [Fault] decides the fate of one operation. Every fault exists in two forms:
// the operation did not happen, and it happened but its caller was told
// otherwise. The second finds the bugs.
//
// # Ownership
//
// Exported fields are set before the first operation and not changed while one
// runs. Everything else is guarded by the double's own mutex, which is not held
// while a Fault, a Latency or an Endpoint's Func runs.
package workertest

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// An Op is an operation of one of the doubles.
type Op string

// The operations of [Queue], [Sink] and [Endpoint].
const (
	Receive  Op = "receive"
	Hide     Op = "hide"
	Release  Op = "release"
	Ack      Op = "ack"
	Bury     Op = "bury"
	Split    Op = "split"
	Empty    Op = "empty"
	Put      Op = "put"
	PutError Op = "put error"
	PutBody  Op = "put body"
	Has      Op = "has"
	Failure  Op = "failure"
	Schema   Op = "schema"
	Complete Op = "complete"
)

// ErrInjected is the error of an injected fault.
var ErrInjected = errors.New("injected fault")

// A Fault decides the fate of one operation: whether it takes effect, and the
// error that its caller is told. (true, nil) is no fault. (true, err) is an
// answer lost on the way back. what is the id of the message, the key of the
// job, or nothing for an operation that concerns neither.
type Fault func(op Op, what string) (apply bool, err error)

// Every returns the fault that befalls each n-th call of op.
func Every(n int, op Op, apply bool) Fault {
	var calls atomic.Int64
	return func(o Op, _ string) (bool, error) {
		if o != op || calls.Add(1)%int64(n) != 0 {
			return true, nil
		}
		return apply, ErrInjected
	}
}

// Burst returns the fault that befalls all calls of op from its first one on,
// for as long as it lasts.
func Burst(lasting time.Duration, op Op, apply bool) Fault {
	var once sync.Once
	var from time.Time
	return func(o Op, _ string) (bool, error) {
		if o != op {
			return true, nil
		}
		once.Do(func() { from = time.Now() })
		if time.Since(from) >= lasting {
			return true, nil
		}
		return apply, ErrInjected
	}
}

func (f Fault) decide(op Op, what string) (apply bool, err error) {
	if f == nil {
		return true, nil
	}
	return f(op, what)
}

// A Latency says how long an operation takes. It takes effect half-way: until
// then its context can prevent it, afterwards only the answer is lost.
type Latency func(op Op) time.Duration

// half waits for half the latency of op, or for the end of ctx.
func (l Latency) half(ctx context.Context, op Op) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if l == nil {
		return nil
	}
	d := l(op) / 2
	if d <= 0 {
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
