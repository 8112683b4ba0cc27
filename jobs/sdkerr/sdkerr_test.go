package sdkerr_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"syscall"
	"testing"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"upwell/jobs/sdkerr"
)

// operation wraps an error as the SDK does.
func operation(err error) error {
	return &smithy.OperationError{ServiceID: "SQS", OperationName: "SendMessage", Err: err}
}

// answered wraps it as that of an answer with a status.
func answered(status int, err error) error {
	return &awshttp.ResponseError{RequestID: "4bf9", ResponseError: &smithyhttp.ResponseError{Response: &smithyhttp.Response{Response: &http.Response{StatusCode: status}}, Err: err}}
}

var errNoHost = &net.DNSError{Err: "no such host", Name: "sqs.us-wset-2.amazonaws.com", IsNotFound: true}

var cases = map[string]struct {
	err          error
	text         string
	unsigned     string
	code         string
	unsent, host bool
}{
	"an answer": {
		err:  operation(answered(403, &smithy.GenericAPIError{Code: "AccessDenied", Message: "not allowed"})),
		text: "AccessDenied: not allowed", code: "AccessDenied",
	},
	"an answer without a message": {err: operation(answered(400, &smithy.GenericAPIError{Code: "Odd"})), text: "Odd", code: "Odd"},
	"an answer of SQS": {
		err:  operation(answered(400, &smithy.GenericAPIError{Code: "AWS.SimpleQueueService.UnrecognizedClientException", Message: "who?"})),
		text: "AWS.SimpleQueueService.UnrecognizedClientException: who?", code: "UnrecognizedClient",
	},
	"the answer to a HEAD":       {err: operation(answered(404, &smithy.GenericAPIError{Code: "NotFound", Message: "Not Found"})), text: "NotFound", code: "NotFound"},
	"an answer in no known form": {err: operation(answered(502, errors.New("deserialization failed"))), text: "status 502: deserialization failed"},
	"no connection":              {err: operation(answered(0, &smithyhttp.RequestSendError{Err: syscall.ECONNREFUSED})), text: "connection refused", unsent: true},
	"no such host":               {err: operation(&smithyhttp.RequestSendError{Err: &net.OpError{Op: "dial", Err: errNoHost}}), text: errNoHost.Error(), unsent: true, host: true},
	"given up":                   {err: operation(&smithy.CanceledError{Err: context.DeadlineExceeded}), text: "context deadline exceeded"},
	"no credentials": {
		err:  operation(errors.New("get identity: get credentials: failed to refresh cached credentials, no EC2 IMDS role found")),
		text: "no EC2 IMDS role found", unsigned: "no EC2 IMDS role found",
	},
	"credentials alone": {err: errors.New("failed to refresh cached credentials, no EC2 IMDS role found"), text: "no EC2 IMDS role found"},
	"no endpoint":       {err: operation(errors.New("resolve endpoint: endpoint rule error, A region must be set")), text: "A region must be set"},
	"another error":     {err: errors.New("disk full"), text: "disk full"},
}

func Test(t *testing.T) {
	for name, tt := range cases {
		t.Run(name, func(t *testing.T) {
			brief := sdkerr.Brief(tt.err)
			if brief.Error() != tt.text {
				t.Errorf("Brief = %q, want %q", brief, tt.text)
			}
			for _, err := range []error{tt.err, brief} {
				if code, unsent, host := sdkerr.BareCode(err), sdkerr.Unsent(err), sdkerr.UnknownHost(err) != nil; code != tt.code || unsent != tt.unsent || host != tt.host {
					t.Errorf("of %q, BareCode = %q, Unsent = %v, UnknownHost = %v, want %q, %v, %v", err, code, unsent, host, tt.code, tt.unsent, tt.host)
				}
			}
			if got := sdkerr.Unsigned(tt.err); got != tt.unsigned {
				t.Errorf("Unsigned = %q, want %q", got, tt.unsigned)
			}
		})
	}
}
