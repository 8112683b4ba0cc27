// Package capacity models what an endpoint can take but does not tell: quotas of
// calls and tokens, slots and a queue, by model and by service tier, moved over
// time by a script.
//
// A [Capacity] is pure in time. It has no clock, goroutine, channel or mutex:
// every method is told the time, as the duration since its first script began,
// and what depends on time is worked out when it is asked for. A server in real
// time, a test in a synctest bubble and a discrete-event simulation so run the
// same code. Times passed to one Capacity must not decrease; one that does counts
// as the latest seen.
//
// # Life of a claim
//
//	refused := c.Admit(now, claim, rng.Float64)
//	if refused == "" && claim.Waiting() { … until Granted, at most claim.Patience() }
//	claim.Generate(now, output, took) // with its slot
//	claim.Release(now, used)          // always, once admitted
//
// Every model has its own pool. In it the on-demand tiers (default, flex,
// priority) share one set of limits, and each may have another of its own beside
// it; reserved has only its own. A claim is admitted if all the limits it counts
// against have room, or takes nothing.
//
// # Ownership
//
// The caller lets one goroutine at a time use a Capacity and its claims.
//
// # Cost
//
// Admit, Generate and Release allocate nothing. They take time that grows with
// the queue, with the logarithm of the calls that generate at once, and, in an
// endpoint that grows, with the seconds since the last call, at most two hours
// of them.
package capacity
