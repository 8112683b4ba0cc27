package sqsqueue_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"upwell/jobs/sqsqueue"
)

// received is an answer with all that a message may have, whose body has so many bytes
// and what JSON spells in several ways.
func received(t *testing.T, size int) []byte {
	t.Helper()
	text, err := json.Marshal(map[string]any{"Messages": []any{
		map[string]any{
			"MessageId": "19dd0b57", "ReceiptHandle": "AQEB", "MD5OfBody": "fafb", "MD5OfMessageAttributes": "0f0f",
			"Body":       `"quoted" <b>\ &  ` + "\t\n\u2028 é 漢 😀" + strings.Repeat("x", size),
			"Attributes": map[string]any{"ApproximateReceiveCount": "3", "AWSTraceHeader": "Root=1-5"},
			"MessageAttributes": map[string]any{
				"text":   map[string]any{"DataType": "String", "StringValue": "v"},
				"binary": map[string]any{"DataType": "Binary", "BinaryValue": []byte{0, 1, 0xff}},
			},
		},
		map[string]any{"MessageId": "2", "Body": "", "MessageAttributes": map[string]any{}},
		map[string]any{"MessageId": "3", "Unknown": []any{1, nil, map[string]any{"Body": "not this"}}},
	}, "Unknown": true})
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Replace(text, []byte("😀"), []byte(`\ud83d\ude00`), 1)
}

// clientOf returns a client whose requests are answered so, and which counts the answers
// that the SDK reads.
func clientOf(status int, text []byte, length int64, bySDK *int) *sqs.Client {
	cfg := aws.Config{
		Region: "us-west-2", Credentials: credentials.NewStaticCredentialsProvider("k", "s", ""), RetryMaxAttempts: 1,
		HTTPClient: roundTrip(func(r *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: status, Header: http.Header{}, ContentLength: length, Body: io.NopCloser(bytes.NewReader(text)), Request: r}, nil
		}),
	}
	return sqsqueue.NewClient(cfg, func(o *sqs.Options) {
		o.Retryer = aws.NopRetryer{}
		o.Protocol = sqsqueue.Protocol{ClientProtocol: counting{o.Protocol.(sqsqueue.Protocol).ClientProtocol, bySDK}}
	})
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) Do(r *http.Request) (*http.Response, error) { return f(r) }

// counting counts the answers that it reads.
type counting struct {
	smithyhttp.ClientProtocol
	n *int
}

func (c counting) DeserializeResponse(ctx context.Context, schema *smithy.OperationSchema, types *smithy.TypeRegistry, resp *smithyhttp.Response, out smithy.Deserializable) error {
	*c.n++
	return c.ClientProtocol.DeserializeResponse(ctx, schema, types, resp, out)
}

// TestLargeMessages has an answer that is read at once be what the SDK makes of it.
func TestLargeMessages(t *testing.T) {
	text := received(t, 100<<10)
	in := &sqs.ReceiveMessageInput{QueueUrl: aws.String("https://sqs.us-west-2.amazonaws.com/1/q")}
	n := 0
	want, err := clientOf(http.StatusOK, text, -1, &n).ReceiveMessage(t.Context(), in)
	if err != nil || n != 1 {
		t.Fatalf("of an answer of unknown length %d are read by the SDK, %v, want one", n, err)
	}
	got, err := clientOf(http.StatusOK, text, int64(len(text)), &n).ReceiveMessage(t.Context(), in)
	if err != nil || n != 1 {
		t.Fatalf("of a large answer %d are read by the SDK, %v, want none", n-1, err)
	}
	opts := []cmp.Option{cmpopts.IgnoreFields(sqs.ReceiveMessageOutput{}, "ResultMetadata"), cmpopts.IgnoreUnexported(sqs.ReceiveMessageOutput{}, want.Messages[0], want.Messages[0].MessageAttributes["text"])}
	if diff := cmp.Diff(want, got, opts...); diff != "" {
		t.Errorf("messages differ (-the SDK's +ours):\n%s", diff)
	}
	if len(got.Messages) != 3 || !strings.HasPrefix(*got.Messages[0].Body, `"quoted" <b>`) {
		t.Errorf("%d messages, want the three that were sent", len(got.Messages))
	}

	small := received(t, 10)
	if _, err := clientOf(http.StatusOK, small, int64(len(small)), &n).ReceiveMessage(t.Context(), in); err != nil || n != 2 {
		t.Errorf("of a small answer %d are read by the SDK, %v, want one", n-1, err)
	}
	refusal := []byte(`{"__type":"com.amazonaws.sqs#QueueDoesNotExist","message":"` + strings.Repeat("no ", 30<<10) + `"}`)
	_, err = clientOf(http.StatusBadRequest, refusal, int64(len(refusal)), &n).ReceiveMessage(t.Context(), in)
	if api, ok := errors.AsType[smithy.APIError](err); !ok || api.ErrorCode() != "QueueDoesNotExist" {
		t.Errorf("a large refusal is %v, want QueueDoesNotExist", err)
	}
	for name, broken := range map[string][]byte{"cut off": text[:len(text)-100], "no JSON": bytes.Repeat([]byte("x"), len(text))} {
		_, err := clientOf(http.StatusOK, broken, int64(len(text)), &n).ReceiveMessage(t.Context(), in)
		if _, ok := errors.AsType[*smithy.DeserializationError](err); !ok {
			t.Errorf("an answer that is %s: %v, want an error of reading it", name, err)
		}
	}
}
