package traces

import (
	"context"
	"encoding/json"
	"errors"
	"strings"

	"go.opentelemetry.io/otel/attribute"

	"upwell/jobs"
	"upwell/throttle"
	"upwell/worker"
)

// Names of attributes: the conventions' own, and upwell's where they have none. Those
// for generative AI are no part of the packages for Go any more.
const (
	keySystem      = "messaging.system"
	keyMessageOp   = "messaging.operation.name"
	keyMessageType = "messaging.operation.type"
	keyDestination = "messaging.destination.name"
	keyMessageID   = "messaging.message.id"
	keyBodySize    = "messaging.message.body.size"

	keyOperation     = "gen_ai.operation.name"
	keyProvider      = "gen_ai.provider.name"
	keyRequestModel  = "gen_ai.request.model"
	keyResponseModel = "gen_ai.response.model"
	keyInput         = "gen_ai.usage.input_tokens"
	keyCached        = "gen_ai.usage.cache_read.input_tokens"
	keyOutput        = "gen_ai.usage.output_tokens"
	keyReasoning     = "gen_ai.usage.reasoning.output_tokens"
	keyInputMessages = "gen_ai.input.messages"
	keyOutMessages   = "gen_ai.output.messages"
	keyRequestTier   = "openai.request.service_tier"
	keyResponseTier  = "openai.response.service_tier"

	keyRegion    = "cloud.region"
	keyStatus    = "http.response.status_code"
	keyRequestID = "aws.request_id"
	keyErrorType = "error.type"

	keyRun      = "upwell.run"
	keyCustomID = "upwell.custom_id"
	keyReceives = "upwell.receives"
	keyQueued   = "upwell.queued_seconds" // from the send to this delivery
	keyEnd      = "upwell.end"            // what became of the delivery: stored, buried, released …
	keyAttempts = "upwell.attempts"
	keyAttempt  = "upwell.attempt"
	keyTurn     = "upwell.turn"
	keyCost     = "upwell.cost_usd"
	keyOp       = "upwell.request"
	keyDelay    = "upwell.delay_seconds"
	keyWhy      = "upwell.why"
)

const (
	// maxName bounds what messages name, such as a model or a custom_id, in bytes.
	maxName = 256

	// maxContent bounds a prompt, an answer or the text of an error, in bytes.
	maxContent = 8 << 10
)

// named returns the name of a span: what is done, and to what, if that is known.
func named(what, to string) string {
	if to == "" {
		return what
	}
	return what + " " + to
}

func messaging(operation, queue string) []attribute.KeyValue {
	attrs := append(make([]attribute.KeyValue, 0, 8),
		attribute.String(keySystem, "aws_sqs"), attribute.String(keyMessageOp, operation), attribute.String(keyMessageType, operation))
	if queue != "" {
		attrs = append(attrs, attribute.String(keyDestination, queue))
	}
	return attrs
}

func job(k jobs.Key) []attribute.KeyValue {
	return []attribute.KeyValue{attribute.String(keyRun, cut(k.Run, maxName)), attribute.String(keyCustomID, cut(k.CustomID, maxName))}
}

// lane returns what says where an attempt is made, as far as that is known.
func lane(l throttle.Lane) []attribute.KeyValue {
	attrs := append(make([]attribute.KeyValue, 0, 20), attribute.String(keyRequestModel, cut(l.Model, maxName))) // room for what an attempt adds
	if l.Tier != "" {
		attrs = append(attrs, attribute.String(keyRequestTier, cut(l.Tier, maxName)))
	}
	if l.Region != "" {
		attrs = append(attrs, attribute.String(keyRegion, l.Region))
	}
	return attrs
}

// answered adds what an answer says of itself, but for its text.
func answered(attrs []attribute.KeyValue, e worker.Event) []attribute.KeyValue {
	attrs = append(attrs,
		attribute.Int64(keyInput, e.Usage.InputTokens), attribute.Int64(keyCached, e.Usage.CachedTokens),
		attribute.Int64(keyOutput, e.Usage.OutputTokens), attribute.Int64(keyReasoning, e.Usage.ReasoningTokens))
	if e.Answer.Model != "" {
		attrs = append(attrs, attribute.String(keyResponseModel, cut(e.Answer.Model, maxName)))
	}
	if e.Answer.Tier != "" {
		attrs = append(attrs, attribute.String(keyResponseTier, cut(e.Answer.Tier, maxName)))
	}
	if e.CostUSD.Known() {
		attrs = append(attrs, attribute.Float64(keyCost, float64(e.CostUSD)))
	}
	return attrs
}

// content returns what was asked and what was answered, as the conventions spell it.
func content(e worker.Event) (attrs []attribute.KeyValue) {
	if e.Job != nil {
		attrs = append(attrs, attribute.String(keyInputMessages, said("user", asked(e.Job.Body))))
	}
	if e.Answer != nil && e.Answer.Text != "" {
		attrs = append(attrs, attribute.String(keyOutMessages, said("assistant", e.Answer.Text)))
	}
	return attrs
}

// asked returns what a request asks: its input or messages, as text if it is that and
// as JSON if it is not.
func asked(body json.RawMessage) string {
	var b struct{ Input, Messages json.RawMessage }
	if json.Unmarshal(body, &b) != nil {
		return ""
	}
	var text string
	if json.Unmarshal(b.Input, &text) == nil {
		return text
	}
	return string(b.Input) + string(b.Messages) // it has one of them
}

// said returns one message of a conversation.
func said(role, text string) string {
	type part struct {
		Type    string `json:"type"`
		Content string `json:"content"`
	}
	b, _ := json.Marshal([]struct { // strings can be encoded
		Role  string `json:"role"`
		Parts []part `json:"parts"`
	}{{role, []part{{"text", cut(text, maxContent)}}}})
	return string(b)
}

// cut returns at most that many bytes of s, in whole characters.
func cut(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most-len("…")], "") + "…"
}

// kindOf says in a word what an error is, and nothing that it quotes.
func kindOf(err error) string {
	if e, ok := errors.AsType[*worker.Error](err); ok {
		if e.Kind == worker.Permanent && e.Class != "" {
			return string(e.Class)
		}
		return e.Kind.String()
	}
	if _, ok := errors.AsType[*throttle.ClosedError](err); ok {
		return "lane_closed"
	}
	for _, known := range []struct {
		err  error
		kind string
	}{
		{worker.ErrGone, "delivery_over"},
		{worker.ErrDraining, "draining"},
		{worker.ErrParked, "parked"},
		{context.DeadlineExceeded, "timeout"},
		{context.Canceled, "canceled"},
	} {
		if errors.Is(err, known.err) {
			return known.kind
		}
	}
	return "_OTHER" // which is the conventions' word
}
