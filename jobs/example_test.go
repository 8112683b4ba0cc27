package jobs_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"upwell/jobs"
)

func ExampleParse() {
	job, err := jobs.Parse([]byte(`{
		"custom_id": "msa-0042", "method": "POST", "url": "/v1/responses",
		"body": {"model": "xai.grok-4.3", "input": "Who may terminate?", "seed": 9007199254740993},
		"upwell": {"run": "nightly", "tiers": ["flex", "default"]}
	}`), "default")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(job.Key)
	fmt.Println(job.Model, job.Tiers)
	fmt.Println(string(job.Body))
	// Output:
	// nightly/msa-0042
	// xai.grok-4.3 [flex default]
	// {"model": "xai.grok-4.3", "input": "Who may terminate?", "seed": 9007199254740993}
}

// A failure names the field, and the job as far as it has a name.
func ExampleParse_failure() {
	job, err := jobs.Parse([]byte(`{"custom_id":"a","url":"/v1/embeddings","body":{"model":"m"}}`), "default")
	fmt.Println(err)
	if e, ok := errors.AsType[*jobs.FormatError](err); ok {
		fmt.Println(e.Field)
	}
	fmt.Println(job.Key)
	// Output:
	// not a job: url: "/v1/embeddings", want /v1/responses or /v1/chat/completions
	// url
	// default/a
}

func ExampleCheckRun() {
	fmt.Println(jobs.CheckRun("2026-01-02_nightly"))
	fmt.Println(jobs.CheckRun("../nightly"))
	// Output:
	// <nil>
	// "../nightly", want letters, digits, dot, dash or underscore, not starting with a dot or dash
}

func ExampleKey_RequestID() {
	fmt.Println(jobs.Key{Run: "nightly", CustomID: "msa-0042"}.RequestID())
	// Output: batch_req_48aaa013aaac4a2e1a34fb51
}

func ExampleUsage_Add() {
	first := jobs.Usage{InputTokens: 100, OutputTokens: 10}
	repair := jobs.Usage{InputTokens: 120, CachedTokens: 100, OutputTokens: 20}
	fmt.Printf("%+v\n", first.Add(repair))
	// Output: {InputTokens:220 CachedTokens:100 OutputTokens:30 ReasoningTokens:0}
}

func ExampleResult() {
	key := jobs.Key{Run: "nightly", CustomID: "msa-0042"}
	text, err := json.MarshalIndent(jobs.Result{
		ID:       key.RequestID(),
		CustomID: key.CustomID,
		Error:    &jobs.Error{Code: jobs.Expired, Message: "the deadline passed at noon"},
		Upwell: jobs.Record{
			Run: key.Run, Model: "xai.grok-4.3", Attempts: []jobs.Attempt{},
			Finished: time.Date(2026, 1, 2, 12, 0, 1, 0, time.UTC),
		},
	}, "", "  ")
	fmt.Println(string(text), err)
	// Output:
	// {
	//   "id": "batch_req_48aaa013aaac4a2e1a34fb51",
	//   "custom_id": "msa-0042",
	//   "response": null,
	//   "error": {
	//     "code": "expired",
	//     "message": "the deadline passed at noon"
	//   },
	//   "upwell": {
	//     "run": "nightly",
	//     "model": "xai.grok-4.3",
	//     "usage": {
	//       "input_tokens": 0,
	//       "cached_tokens": 0,
	//       "output_tokens": 0,
	//       "reasoning_tokens": 0
	//     },
	//     "cost_usd": 0,
	//     "attempts": [],
	//     "billed_calls": 0,
	//     "repairs": 0,
	//     "input_sha256": "",
	//     "finished": "2026-01-02T12:00:01Z"
	//   }
	// } <nil>
}
