package sqsqueue

import (
	"context"
	"encoding/json"
	"io"
	"net/http"

	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// A protocol is the SDK's, but for messages that are large. The SDK reads an answer into
// a buffer that begins empty and doubles, and keeps none of more than 64 KiB (smithy-go
// v1.28.8, internal/sync.BufferPool): of ten messages of 250 KB, a third of the processor
// time of a job went into making and clearing those buffers.
type protocol struct{ smithyhttp.ClientProtocol }

// What an answer may have, in bytes, to be read at once.
const (
	pooled  = 64 << 10
	largest = 16 << 20 // more than ten messages of 1 MiB, escaped
)

// DeserializeResponse implements smithyhttp.ClientProtocol.
func (p protocol) DeserializeResponse(ctx context.Context, schema *smithy.OperationSchema, types *smithy.TypeRegistry, resp *smithyhttp.Response, out smithy.Deserializable) error {
	messages, ok := out.(*sqs.ReceiveMessageOutput)
	if !ok || resp.StatusCode != http.StatusOK || resp.ContentLength <= pooled || resp.ContentLength > largest {
		return p.ClientProtocol.DeserializeResponse(ctx, schema, types, resp, out)
	}
	text := make([]byte, resp.ContentLength)
	if _, err := io.ReadFull(resp.Body, text); err != nil {
		return &smithy.DeserializationError{Err: err}
	}
	if err := json.Unmarshal(text, messages); err != nil {
		return &smithy.DeserializationError{Err: err}
	}
	return nil
}
