// Package mantlesim simulates the bedrock-mantle endpoint: OpenAI-compatible
// Responses and Chat Completions over a capacity that callers cannot see.
//
// A [Server] is an http.Handler. A call passes, in this order: reading and
// hashing the body; authorization; decoding and validation (base path, model,
// fields, images, context window); the scripted faults, of which the first that fires
// wins; the hidden capacity, per model, that a [capacity.Script] moves over time;
// a slot, perhaps after a queue; a drawn latency; and an answer made for this
// call alone. Whatever happens is written to the ledger.
//
// # Capacity
//
// Every model has budgets of calls and tokens, slots and a queue, which package
// capacity keeps. The on-demand tiers (default, flex, priority) share them, and
// each may have limits of its own beside them; reserved has only its own. Over a
// budget the answer is 429, without a slot it is 503, and settings change either:
// no source shows what the real endpoint sends.
//
// # Answers
//
// Text is made from the request's own input and differs from call to call. With
// a JSON Schema it is a document that satisfies the schema. Generation follows
// $ref within the schema, allOf, anyOf, oneOf, and the keywords of types,
// objects, arrays, strings and numbers; it ignores not, if, dependent* and
// unevaluated*.
//
// # Billing
//
// A call is billed when generation ran, whether or not its answer arrived: a
// client that hangs up while the model works has paid (see Config.FreeAbandoned).
// Refusals, invalid calls and faults that strike before generation are free.
//
// # Control
//
// The same handler answers, without authorization, under /_sim/:
//
//	GET  /_sim/ledger    the calls kept, oldest first, one JSON object a line
//	GET  /_sim/counts    Counts as JSON
//	POST /_sim/capacity  a script as text, see capacity.ParseScript; takes effect at once
//	POST /_sim/faults    a JSON list of Fault; replaces all
//	POST /_sim/keys      a JSON list of accepted keys; null accepts any
//	POST /_sim/reset     forget everything and return to the Config
//
// # Ownership
//
// One mutex guards all state; no goroutine is started and none outlives its
// call, so a Server works in a testing/synctest bubble and needs no Close.
// Latency, queues and refusals wait in the caller's own goroutine and stop when
// the caller hangs up. Draws come from a source seeded by Config.Seed: calls in
// the same order get the same luck.
package mantlesim
