// Package s3sim serves S3 from a folder of plain files.
//
// A [Server] is an [http.Handler] that any S3 client can talk to. It is what
// a laptop runs in place of S3 and what tests run in place of a mock: objects
// are files that can be read with cat and jq, and every request can be
// delayed, refused, or carried out and its answer lost ([Fault]).
//
// The S3 protocol comes from gofakes3. This package adds the storage and what
// the library leaves out: atomic conditional writes, checksums in trailers,
// faults, and counters.
//
// # Layout
//
// A bucket is a folder, and an object is a file at the path its key spells:
//
//	DIR/BUCKET/runs/x/results/ab/id.json  the object runs/x/results/ab/id.json
//	DIR/BUCKET/.s3sim/meta/3f/9c…         its headers, MD5, size and time
//	DIR/BUCKET/.s3sim/odd/3f/9c…          an object whose key is no usable path
//	DIR/BUCKET/.s3sim/tmp/…               bodies on their way in
//
// The names 3f/9c… are the SHA-256 of the key; the metadata spells the key
// out. Keys are odd when they cannot be a path (a//b, ../x, dir/, a segment
// that is too long, anything beneath .s3sim) or when the path is taken by the
// other kind of thing: the key a beside the object a/b, or a/b beside the
// object a. Odd objects behave as all others do; they are merely harder to
// find by hand.
//
// A file put into a bucket by hand is an object, and a folder put into DIR is
// a bucket if its name may be one. Such an object has the file's time, its
// MD5 as ETag, and no other metadata. Symbolic links are not listed.
//
// # Guarantees
//
// A write replaces an object as a whole. Whoever reads it, and whoever opens
// the folder after kill -9, finds the old object or the new one, each with
// its own metadata. The order of two renames makes it so: first a metadata
// file that describes the new body and the one it replaces, then the body.
// Readers take the description that fits the body they opened, by size and
// by time or MD5, and ignore any other.
//
// If-None-Match and If-Match are decided at the moment of replacement: of
// any number of writers racing to create a key exactly one succeeds.
//
// Without [Config.Sync] an acknowledged write survives the death of the
// process but not of the machine.
//
// # Ownership
//
// A folder belongs to one Server at a time. The Server keeps little in memory,
// the odd keys and the parts of unfinished multipart uploads, and starts no
// goroutines. All methods may be called concurrently. Each object is guarded
// by one of its bucket's 256 locks, so writes of different keys do not wait
// for each other. No lock is held while waiting for a client or a timer: a
// Server works inside a [testing/synctest] bubble, given a transport that
// calls it in process.
//
// # Differences from S3
//
//   - The ETag of a multipart upload is the MD5 of the whole, parts have no
//     minimum size, and unfinished uploads are lost on restart.
//   - Encryption with KMS keys is accepted and ignored.
//   - Signatures of single aws-chunked chunks are not checked. A body that is not
//     the one signed is BadDigest, where S3 says XAmzContentSHA256Mismatch.
//   - CopyObject with a condition on its destination is refused with 501, and
//     the condition of a delete is not atomic with it.
//   - Creating a bucket twice is BucketAlreadyExists, whoever owns it.
//   - Versions, ACLs, policies, lifecycle rules and changing tags do not exist.
//   - Where the file system folds case, keys that differ only in case are one.
package s3sim
