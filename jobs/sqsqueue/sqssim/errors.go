package sqssim

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"strings"
)

// An Error is an error answer of SQS.
type Error struct {
	// Code is the name of the error's type in the JSON protocol, such as
	// QueueDoesNotExist, RequestThrottled or InternalFailure.
	Code string

	// Message is the text for people.
	Message string

	// Status is the HTTP status, by default 400. From 500 on the service, not
	// the sender, is at fault.
	Status int
}

// Error returns the code and the message.
func (e *Error) Error() string { return e.Code + ": " + e.Message }

func errorf(code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

func invalid(format string, args ...any) *Error {
	return errorf("InvalidParameterValueException", format, args...)
}

// outOfRange says that parameter's value breaks a rule.
func outOfRange(parameter string, value any, reason string) *Error {
	return invalid("Value %v for parameter %s is invalid. Reason: %s", value, parameter, reason)
}

func missing(parameter string) *Error {
	return errorf("MissingRequiredParameterException", "The request must contain the parameter %s.", parameter)
}

func noQueue() *Error {
	return errorf("QueueDoesNotExist", "The specified queue does not exist.")
}

func noResource(parameter string) *Error {
	return errorf("ResourceNotFoundException",
		"The resource that you specified for the %s parameter doesn't exist.", parameter)
}

func asError(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	return &Error{Code: "InternalFailure", Message: err.Error(), Status: http.StatusInternalServerError}
}

// queryCodes are the error codes that SQS's older query protocol spells
// differently. The SDK reports these as the code of an error.
var queryCodes = map[string]string{
	"BatchEntryIdsNotDistinct":          "AWS.SimpleQueueService.BatchEntryIdsNotDistinct",
	"BatchRequestTooLong":               "AWS.SimpleQueueService.BatchRequestTooLong",
	"EmptyBatchRequest":                 "AWS.SimpleQueueService.EmptyBatchRequest",
	"InvalidBatchEntryId":               "AWS.SimpleQueueService.InvalidBatchEntryId",
	"InvalidParameterValueException":    "InvalidParameterValue",
	"MessageNotInflight":                "AWS.SimpleQueueService.MessageNotInflight",
	"MissingRequiredParameterException": "MissingParameter",
	"PurgeQueueInProgress":              "AWS.SimpleQueueService.PurgeQueueInProgress",
	"QueueDeletedRecently":              "AWS.SimpleQueueService.QueueDeletedRecently",
	"QueueDoesNotExist":                 "AWS.SimpleQueueService.NonExistentQueue",
	"QueueNameExists":                   "QueueAlreadyExists",
	"TooManyEntriesInBatchRequest":      "AWS.SimpleQueueService.TooManyEntriesInBatchRequest",
	"UnsupportedOperation":              "AWS.SimpleQueueService.UnsupportedOperation",
}

func (e *Error) status() int       { return cmp.Or(e.Status, http.StatusBadRequest) }
func (e *Error) senderFault() bool { return e.status() < http.StatusInternalServerError }
func (e *Error) queryCode() string { return cmp.Or(queryCodes[e.Code], e.Code) }

// query is the header that maps the error to the query protocol.
func (e *Error) query() string {
	if e.senderFault() {
		return e.queryCode() + ";Sender"
	}
	return e.queryCode() + ";Receiver"
}

func (e *Error) body() any {
	shape := "com.amazonaws.sqs#" + e.Code
	if strings.HasSuffix(e.Code, "Exception") && e.Code != "ResourceNotFoundException" {
		shape = "com.amazon.coral.service#" + e.Code // common to all services, not in SQS's model
	}
	return map[string]string{"__type": shape, "message": e.Message}
}

// A failure is the fate of one entry of a batch.
type failure struct {
	Id, Code, Message string
	SenderFault       bool
}

// failure reports e for the entry id. Batches name a code without the prefix
// that a whole request's error carries.
func (e *Error) failure(id string) failure {
	code := strings.TrimPrefix(e.queryCode(), "AWS.SimpleQueueService.")
	return failure{Id: id, Code: code, Message: e.Message, SenderFault: e.senderFault()}
}
