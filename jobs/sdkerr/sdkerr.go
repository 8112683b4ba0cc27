// Package sdkerr tells the errors of aws-sdk-go-v2 in few words. The SDK says first what
// it was doing, how often and with which ids, and last what happened, which is all that
// people can act on. The errors that this package returns unwrap to the SDK's.
package sdkerr

import (
	"errors"
	"fmt"
	"net"
	"strings"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// What is wrong with where a request would have gone, and what to do about it.
const (
	NoRegion  = "no Region: set AWS_REGION, or region in the profile"
	BadRegion = "%q is no name of a Region: correct AWS_REGION, or region in the profile"
	NoHost    = "the host is not known to DNS: check the Region's name, and the network's DNS"
)

// A told error is told in other words than its own.
type told struct {
	text string
	err  error
}

func (e *told) Error() string { return e.text }
func (e *told) Unwrap() error { return e.err }

// Told returns err in those words.
func Told(text string, err error) error { return &told{text, err} }

// Brief returns err in few words: why there is no answer, or the code and message of the
// one that there is.
func Brief(err error) error {
	text := err.Error()
	if op, ok := errors.AsType[*smithy.OperationError](err); ok {
		text = op.Err.Error()
	}
	api, refused := errors.AsType[smithy.APIError](err)
	answer, answered := errors.AsType[*awshttp.ResponseError](err)
	send, unsent := errors.AsType[*smithyhttp.RequestSendError](err)
	switch why, host := Unsigned(err), UnknownHost(err); {
	case why != "":
		text = why
	case refused && strings.ReplaceAll(api.ErrorMessage(), " ", "") == api.ErrorCode(): // as it is made of the status of a HEAD
		text = api.ErrorCode()
	case refused:
		text = strings.TrimSuffix(api.ErrorCode()+": "+api.ErrorMessage(), ": ")
	case unsent && host != nil:
		text = host.Error()
	case unsent:
		text = send.Err.Error()
	case answered && answer.HTTPStatusCode() != 0:
		text = fmt.Sprintf("status %d: %v", answer.HTTPStatusCode(), answer.Err)
	case answered:
		text = answer.Err.Error()
	}
	for _, lead := range []string{"endpoint rule error, ", refreshing} {
		if _, rest, ok := strings.Cut(text, lead); ok {
			text = rest
		}
	}
	return Told(strings.TrimPrefix(text, "canceled, "), err)
}

// Unsigned returns why there were no credentials to sign a request with, or nothing.
func Unsigned(err error) string {
	_, why, _ := strings.Cut(err.Error(), "get credentials: ")
	return strings.TrimPrefix(why, refreshing)
}

// refreshing is what the SDK says that it was doing when it had no credentials.
const refreshing = "failed to refresh cached credentials, "

// Unsent reports whether a request had no connection, or lost it before an answer.
func Unsent(err error) bool {
	_, ok := errors.AsType[*smithyhttp.RequestSendError](err)
	return ok
}

// UnknownHost returns the error of looking for a host that DNS does not know, or nil.
func UnknownHost(err error) *net.DNSError {
	if e, ok := errors.AsType[*net.DNSError](err); ok && e.IsNotFound {
		return e
	}
	return nil
}

// Code returns the code of the answer, or nothing.
func Code(err error) string {
	if e, ok := errors.AsType[smithy.APIError](err); ok {
		return e.ErrorCode()
	}
	return ""
}

// BareCode returns the code of the answer as [Bare] does, or nothing.
func BareCode(err error) string { return Bare(Code(err)) }

// Bare returns a code without the prefixes and suffixes that those of SQS and of the
// credentials' services come with now and then. Of S3's they are a part: KMS.DisabledException.
func Bare(code string) string {
	return strings.TrimSuffix(code[strings.LastIndexByte(code, '.')+1:], "Exception")
}
