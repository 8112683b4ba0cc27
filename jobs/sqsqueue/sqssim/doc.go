// Package sqssim serves the JSON protocol of Amazon SQS from queues in memory.
//
// A [Server] is what the production adapter and the AWS SDK talk to when there
// is no AWS: an [http.Handler] for a listener and, so that a test can run the
// SDK in a synctest bubble where a socket would stop the clock, an
// [http.RoundTripper] that calls itself.
//
// # Model
//
// A queue holds messages, each visible, delayed or in flight. A message waits
// in a line: on a standard queue each message has a line of its own, on a FIFO
// queue the messages of a group share one. A line whose first message is
// visible is ready, and a receive takes messages from the front of ready lines
// until it meets one that is not visible. That one rule gives both the
// unordered delivery of standard queues and the blocking of groups.
//
// Every live message also stands in a heap, by the time of its next event: the
// end of its delay, of its visibility timeout, or of its retention. Events are
// not delivered by anything that runs in the background. Whoever looks at a
// queue first settles what is due, and a waiting receiver sleeps no longer than
// the top of the heap. Sends, deletes and receives cost O(log n).
//
// Where AWS documents two outcomes (what a receipt may still do after its
// visibility timeout) the less convenient one is the default; see
// [Config.LenientReceipts]. Texts and codes of errors are those of AWS where
// they are known.
//
// # Faults
//
// [Config.Fault] decides the fate of each request. Every fault exists in two
// forms: the operation did not happen, and it happened but the client was told
// otherwise. The second is the one that finds bugs.
//
// # Ownership
//
// The server starts no goroutine. Each request runs in its caller's. A queue is
// guarded by its own mutex, which is never held while another queue's is taken:
// a message that moves between queues is for a moment in neither. Locks are
// taken in the order move tasks, queue, table of queues.
//
// # Limits
//
// Signatures, permissions and encryption are accepted and not checked; there is
// one account, 000000000000, and one Region. Nothing is kept on disk.
package sqssim
