// Package budget bounds what a run may cost, over all of its workers.
//
// The budget of a run lies on a [Board], an object in the bucket that workers
// replace under a condition, so that no two of them take the same money. Runs that
// have no such object have no limit.
//
// # The record
//
//	<prefix>/state/budget/<run>.json
//
//	{"limit_usd":200,"spent_usd":12.4,"presumed_usd":0.16,"rev":71,
//	 "grants":{"<worker>":{"usd":1.2,"seq":9,"at":"…"}},
//	 "parked":{"since":"…","why":"…"}}
//
// A worker spends nothing but its grant. What the grants and what is spent add up to
// is never above the limit when a grant is given, so neither is what was billed: see
// Guarantee. A [Purse] serves the calls of its worker from the grant without any
// request; takes more, under the record's version, before it runs out; tells what it
// has spent then, and every quarter of a minute; and gives back what it has no use
// for, when it has been idle, cannot get enough for a single call, or ends.
//
// A grant is what the calls in flight have set aside, and about as much beyond as the
// worker needs in ten seconds, but for a twentieth of the budget and a quarter of
// what is left: near the end they become small, down to the one call that is waiting.
//
// A write whose answer is lost may have happened, or may happen yet. So each has a
// number: whoever reads the record next sees which of his writes were done, and until
// the record has changed reckons with the less convenient case. The revision makes
// each text of the record unique, as S3 tells versions apart by their hash.
//
// # Guarantee
//
// What a run is billed is at most its limit, with any number of workers and whatever
// becomes of them, so long as no call costs more than what was set aside for it: the
// overrun is what calls cost beyond that, and nothing otherwise. It is set aside for
// the prompt a token for each byte and for the answer its limit; see
// mantle.Client.MostUSD for what has no such bound.
//
// The other side of it is that the run may stop below its limit: by less than what a
// call and mending its answer may cost at most, for each worker that has calls then,
// and by what nobody can account for. What mending may cost is kept for it, so that a
// run that is parked does not have answers that were paid for and are no good. A call
// whose answer was lost counts as the most it may have cost (the record has the sum
// of these as presumed_usd), and so does the whole grant of a worker that was killed,
// which stays reserved: up to what all calls that it may have in flight set aside.
// [Status] and the error of a parked run tell how much is held by workers that have
// said nothing for long. Who knows that they are dead may [Settle] it.
//
// A run is not parked while workers that are there hold what would do, as their calls
// may cost less. A worker with calls in flight writes its grant anew at least each
// minute, so that the others know that it is there.
//
// Two things are beyond it. A budget that is set for a run that is being worked on
// binds each worker within a minute; what they spend until then is counted when they
// notice, and may be above. And a limit that is lowered binds a worker within a
// quarter of a minute: it takes back what is not set aside, and cannot take back a
// call that was made.
//
// # Ownership
//
// [Purse.Run] starts every goroutine of this package, one for each run whose record
// is being exchanged, and returns when all have ended. All else is guarded by one
// mutex, which is not held during a request.
package budget
