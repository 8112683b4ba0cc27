// Package weather runs limiters against an endpoint whose capacity is hidden and
// moves, in virtual time.
//
// A [Scenario] says what the endpoint can take and how the load is made up, and a
// [Kind] how workers pace their calls. [Run] plays an hour of it in about a
// second and returns a [Result]: how much of the capacity was used, how much was
// refused, how long a change took, how evenly workers shared. The same scenario,
// kind and seed give the same result on every machine of one architecture.
//
// # Model
//
// The endpoint is package capacity, the code that the simulated endpoint of
// mantlesim runs, too. An answer takes a lognormal time of median 10 s (σ 0.8, 2
// to 60 s), a refusal some 50 ms. A job is 200 to 20,000 tokens (lognormal, median
// 2,000, σ 1), half of them its output limit, of which less than half is
// generated on average; large jobs take longer (correlation 0.6).
//
// A worker is a [Limiter], a backlog without end unless the scenario says
// otherwise, and the calls in flight. It asks its limiter about the job at the
// head, again after every call that ended and at the time the limiter named, at
// most a second later. A job that was refused goes to the front. Workers of a fleet
// join one after the other; nothing passes between them but what a [Member]
// writes on the fleet's [Board].
//
// What is left out: the network, the time the worker needs for its own work, jobs
// that fail for other reasons, and an endpoint that names a time to come back at.
//
// # Measures
//
// Used is what was admitted as part of the integral of the capacity, in the unit
// that binds: calls, tokens that stay charged, output tokens as they are
// generated, or slot-seconds. A bucket that is full at first, or filled while
// nobody called, lets it exceed one by a little. Refused is counted in calls, of
// all attempts from the first second on.
//
// # Ownership
//
// A run is one goroutine. Runs share nothing, so any number may go on at once.
package weather
