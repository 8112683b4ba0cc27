// Package s3sink stores results in an S3 bucket, in the layout of package
// sink.
//
// What a caller may rely on:
//
//   - The first answer stays. [Sink.Put] writes only where nothing is
//     (If-None-Match: *), so two workers that answer one job leave one result.
//   - A write is durable when its method returns nil.
//   - A write whose answer was lost is recognised. Each object carries the
//     SHA-256 of its bytes in its metadata, so that a second try, which finds
//     the place taken, can tell whether the first one took it.
//   - A write is tried until its context ends, however long S3 is in trouble:
//     what it stores has been paid for. What trying again cannot mend, such as
//     a missing permission, is returned at once, with what would.
//   - Listings and reads hold no more than a page or a line in memory.
//
// Beside the runs, a [Board] is a small object for what workers share,
//
//	<prefix>/state/<name>.json
//
// which is replaced only by those who have read what they replace (If-Match).
//
// # Requests
//
// A result costs one PUT, and a HEAD more when its place is taken. Has costs a
// HEAD, Read a GET, and a listing one request for each 1,000 lines.
//
// The first try of each write is signed and sent by this package; all others,
// and all other requests, are the SDK's. See direct for the reason. A client
// that was given middleware, interceptors or logging gets the SDK's throughout.
package s3sink
