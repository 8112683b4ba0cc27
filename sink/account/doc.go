// Package account draws up the account of a run: of each job that was submitted,
// whether it was answered, given up, or neither.
//
// A run balances when
//
//	submitted = answered + failed + still queued
//
// and nothing is stored twice or for a job that nobody submitted. A job with a
// result is answered, whatever error line an earlier attempt at it left: that one
// is superseded.
//
// # Method
//
// Results and error lines lie in 256 shards, by the first byte of the SHA-256 of
// the custom_id (see package sink). [Check] reads the index of submitted ids once
// and spreads them over as many temporary files. Then it goes through the shards,
// several at a time: it sorts a shard's ids by their hash, and looks up each object
// that a listing of the shard finds. Nothing is read but names. A name that was
// cut short has the hash in it.
//
// So memory is that of a few shards, at 24 bytes an id, and not of the run: fewer
// shards are taken at a time when they are large. Disk is that of the ids' text.
//
// # Ownership
//
// Check waits for all that it starts, and removes its temporary files.
package account
