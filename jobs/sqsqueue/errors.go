package sqsqueue

import (
	"fmt"
	"strings"

	"upwell/jobs/sdkerr"
	"upwell/worker"
)

const (
	noQueue     = "there is no such queue: correct its name, or AWS_REGION, or create it"
	unreachable = "SQS cannot be reached: check the network, AWS_REGION and AWS_ENDPOINT_URL_SQS"
)

// wrap says what an error of the SDK means for a worker.
func wrap(op string, err error) error {
	if err == nil {
		return nil
	}
	return meaning(sdkerr.BareCode(err), fmt.Errorf("sqs %s: %w", op, brief(err)))
}

// meaning gives an error with that bare code of SQS the form that the worker acts on.
func meaning(code string, err error) error {
	switch code {
	case "QueueDoesNotExist", "NonExistentQueue", "QueueDeletedRecently", "InvalidAddress":
		return &worker.Error{Kind: worker.Permanent, Err: err}
	case "AccessDenied", "InvalidClientTokenId", "InvalidSecurity", "SignatureDoesNotMatch",
		"ExpiredToken", "UnrecognizedClient", "MissingAuthenticationToken", "OptInRequired":
		return &worker.Error{Kind: worker.Unauthorized, Err: err}
	default:
		return err
	}
}

// absent reports whether a code of SQS, as [sdkerr.BareCode] returns it, says that there is no
// such queue.
func absent(code string) bool {
	return code == "QueueDoesNotExist" || code == "NonExistentQueue" || code == "InvalidAddress"
}

// brief tells what is wrong with a request, what to do, and why.
func brief(err error) error {
	_, region, misplaced := strings.Cut(err.Error(), "invalid input region ")
	switch short := sdkerr.Brief(err); {
	case sdkerr.Unsigned(err) != "":
		return short
	case absent(sdkerr.BareCode(err)):
		return sdkerr.Told(noQueue, err)
	case sdkerr.Unsent(err) && sdkerr.UnknownHost(err) != nil:
		return fmt.Errorf("%s: %w", sdkerr.NoHost, short)
	case sdkerr.Unsent(err):
		return fmt.Errorf("%s: %w", unreachable, short)
	case misplaced:
		return sdkerr.Told(fmt.Sprintf(sdkerr.BadRegion, region), err)
	case strings.HasSuffix(err.Error(), "Missing Region"):
		return sdkerr.Told(sdkerr.NoRegion, err)
	default:
		return short
	}
}
