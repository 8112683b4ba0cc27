// Package queuetest checks whether a server behaves as Amazon SQS does, as far
// as a queue of jobs depends on it.
//
// The checks speak through the SDK and know nothing of the server or of the
// adapter in jobs/sqsqueue. Each makes queues of its own, with names that are
// not used again, and deletes them. Where SQS leaves something open (the order
// of a standard queue, what a receipt may do after its timeout) so do they;
// counts and moves, which SQS carries out at leisure, are waited for.
//
// [Run] has them in real time against timeouts of one or two seconds, all together in
// about ten. [Virtual] has them in virtual time, for a server of this process: nothing
// then depends on how busy the machine is.
package queuetest

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"

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

// A reporter is what a check reports to: see [conformance.T].
type reporter interface {
	Context() context.Context
	Cleanup(f func())
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
	Failed() bool
}

// each calls f with every check, which is given what it reports to and a client.
func each(f func(name string, run func(reporter, *sqs.Client))) {
	add := func(checks []check, suffix string, attributes attrs) {
		for _, c := range checks {
			f(c.name, func(r reporter, client *sqs.Client) {
				c.run((&queue{reporter: r, client: client}).create(newName()+suffix, attributes))
			})
		}
	}
	add(slices.Concat(queueChecks, messageChecks, batchChecks, visibilityChecks, receiveChecks, deadChecks), "", nil)
	add(fifoChecks, ".fifo", attrs{"FifoQueue": "true"})
}

// Run tests a server.
func Run(t *testing.T, s Server) {
	t.Helper()
	client := s.Client()
	var all []conformance.Check
	each(func(name string, run func(reporter, *sqs.Client)) {
		all = append(all, conformance.Check{Name: name, Run: func(x *conformance.T) { run(x, client) }})
	})
	conformance.Run(t, all, s.Deviations)
}

// Virtual tests a server that has no deviations, each check in a bubble of
// [testing/synctest] of its own. In it serve starts the server, has it end with the
// test, and returns a client.
func Virtual(t *testing.T, serve func(t *testing.T) *sqs.Client) {
	t.Helper()
	each(func(name string, run func(reporter, *sqs.Client)) {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { run(t, serve(t)) })
		})
	})
}
