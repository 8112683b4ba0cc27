// Package queuetest checks whether a server behaves as Amazon SQS does, as far
// as a queue of jobs depends on it.
//
// The checks speak through the SDK and know nothing of the server or of the
// adapter in jobs/sqsqueue. Each makes queues of its own, with names that are
// not used again, and deletes them. Where SQS leaves something open (the order
// of a standard queue, what a receipt may do after its timeout) so do they;
// counts and moves, which SQS carries out at leisure, are waited for.
//
// They run in real time against timeouts of one or two seconds, all together in
// about ten.
package queuetest

import (
	"slices"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"upwell/integration/conformance"
)

// A Server is what to test.
type Server struct {
	// Client returns a client of the server. It is called once.
	Client func(...func(*sqs.Options)) *sqs.Client

	// Deviations are the checks that the server is known to fail, by name, each
	// with the reason. One that passes after all is reported.
	Deviations map[string]string
}

// A check is a function that is given a queue to work with: a standard one, or
// a FIFO queue for those in fifoChecks.
type check struct {
	name string
	run  func(*queue)
}

// Run tests a server.
func Run(t *testing.T, s Server) {
	t.Helper()
	client := s.Client()
	var all []conformance.Check
	add := func(checks []check, suffix string, attributes attrs) {
		for _, c := range checks {
			all = append(all, conformance.Check{Name: c.name, Run: func(x *conformance.T) {
				c.run((&queue{T: x, client: client}).create(newName()+suffix, attributes))
			}})
		}
	}
	add(slices.Concat(queueChecks, messageChecks, batchChecks, visibilityChecks, receiveChecks, deadChecks), "", nil)
	add(fifoChecks, ".fifo", attrs{"FifoQueue": "true"})
	conformance.Run(t, all, s.Deviations)
}
