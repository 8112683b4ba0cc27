package jobs_test

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"upwell/jobs"
)

// Changes of one line that these tests have been seen to catch:
//
//   - Result: response or error gets omitempty; Response: body becomes a string
//   - Record: cost_usd, usage, attempts or repairs gets omitzero; output loses it
//   - RequestID: the run is left out; the NUL between run and id is left out;
//     another hash or length
//   - Usage.Add: cached and output tokens change places

var finished = time.Date(2026, 1, 2, 15, 4, 5, 6_000_000, time.UTC)

// The shapes are those of OpenAI's output and error files, where "response" and
// "error" are always there, and one of them is null.
func TestResultOnTheWire(t *testing.T) {
	key := jobs.Key{Run: "nightly", CustomID: "msa-0042"}
	for _, tt := range []struct {
		name   string
		result jobs.Result
		want   string
	}{
		{
			"answer",
			jobs.Result{
				ID: key.RequestID(), CustomID: key.CustomID,
				Response: &jobs.Response{StatusCode: 200, RequestID: "req_1", Body: json.RawMessage(`{"n":9007199254740993}`)},
				Upwell: jobs.Record{
					Run: key.Run, Output: json.RawMessage(`{"clause":"x"}`), OutputText: `{"clause":"x"}`,
					Model: "xai.grok-4.3", Tier: "flex", Region: "us-west-2",
					Usage:   jobs.Usage{InputTokens: 10, CachedTokens: 4, OutputTokens: 3, ReasoningTokens: 1},
					CostUSD: 0.25,
					Attempts: []jobs.Attempt{
						{N: 1, Started: finished, TookMS: 12, Status: 429, Region: "us-west-2", Tier: "flex", RequestID: "req_0", Error: "slow down"},
						{N: 2, Started: finished, TookMS: 3400},
					},
					Billed: 2, Repairs: 1, InputSHA256: "ab12", Finished: finished,
				},
			},
			`{
				"id": "batch_req_48aaa013aaac4a2e1a34fb51",
				"custom_id": "msa-0042",
				"response": {"status_code": 200, "request_id": "req_1", "body": {"n": 9007199254740993}},
				"error": null,
				"upwell": {
					"run": "nightly",
					"output": {"clause": "x"},
					"output_text": "{\"clause\":\"x\"}",
					"model": "xai.grok-4.3",
					"tier": "flex",
					"region": "us-west-2",
					"usage": {"input_tokens": 10, "cached_tokens": 4, "output_tokens": 3, "reasoning_tokens": 1},
					"cost_usd": 0.25,
					"attempts": [
						{"n": 1, "started": "2026-01-02T15:04:05.006Z", "took_ms": 12, "status": 429,
						 "region": "us-west-2", "tier": "flex", "request_id": "req_0", "error": "slow down"},
						{"n": 2, "started": "2026-01-02T15:04:05.006Z", "took_ms": 3400}
					],
					"billed_calls": 2,
					"repairs": 1,
					"input_sha256": "ab12",
					"finished": "2026-01-02T15:04:05.006Z"
				}
			}`,
		},
		{
			"error",
			jobs.Result{
				ID: key.RequestID(), CustomID: key.CustomID,
				Error:  &jobs.Error{Code: jobs.SchemaFailed, Message: "clause: missing"},
				Upwell: jobs.Record{Run: key.Run, Model: "m", Attempts: []jobs.Attempt{}, Finished: finished},
			},
			`{
				"id": "batch_req_48aaa013aaac4a2e1a34fb51",
				"custom_id": "msa-0042",
				"response": null,
				"error": {"code": "schema", "message": "clause: missing"},
				"upwell": {
					"run": "nightly",
					"model": "m",
					"usage": {"input_tokens": 0, "cached_tokens": 0, "output_tokens": 0, "reasoning_tokens": 0},
					"cost_usd": 0,
					"attempts": [],
					"billed_calls": 0,
					"repairs": 0,
					"input_sha256": "",
					"finished": "2026-01-02T15:04:05.006Z"
				}
			}`,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := json.Marshal(tt.result)
			if err != nil {
				t.Fatalf("Marshal = %v, want nil", err)
			}
			var want bytes.Buffer
			if err := json.Compact(&want, []byte(tt.want)); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want.String(), string(got)); diff != "" {
				t.Errorf("Marshal (-want +got):\n%s", diff)
			}
			var again jobs.Result
			if err := json.Unmarshal(got, &again); err != nil {
				t.Fatalf("Unmarshal(%s) = %v, want nil", got, err)
			}
			if diff := cmp.Diff(tt.result, again); diff != "" {
				t.Errorf("Unmarshal (-want +got):\n%s", diff)
			}
		})
	}
}

// Results that were stored under an id are looked up under it by every later
// version.
func TestRequestIDIsForEver(t *testing.T) {
	for _, tt := range []struct {
		key  jobs.Key
		want string
	}{
		{jobs.Key{Run: "nightly", CustomID: "msa-0042"}, "batch_req_48aaa013aaac4a2e1a34fb51"},
		{jobs.Key{Run: "nightly", CustomID: "📄 1"}, "batch_req_bb10da22b2b0f48251861b27"},
		{jobs.Key{}, "batch_req_6e340b9cffb37a989ca544e6"},
	} {
		if got := tt.key.RequestID(); got != tt.want {
			t.Errorf("RequestID(%q) = %s, want %s", tt.key, got, tt.want)
		}
	}
}

func TestRequestIDTellsKeysApart(t *testing.T) {
	seen := make(map[string]jobs.Key)
	for _, k := range []jobs.Key{
		{Run: "a", CustomID: "b"},
		{Run: "b", CustomID: "a"},
		{Run: "ab"},
		{CustomID: "ab"},
		{Run: "a", CustomID: "b/c"},
		{Run: "a/b", CustomID: "c"},
		{Run: "A", CustomID: "b"},
	} {
		id := k.RequestID()
		if other, ok := seen[id]; ok {
			t.Errorf("RequestID(%q) = RequestID(%q) = %s", k, other, id)
		}
		seen[id] = k
	}
}

func TestKeyString(t *testing.T) {
	if got := (jobs.Key{Run: "r", CustomID: "a/b"}).String(); got != "r/a/b" {
		t.Errorf("String = %q, want r/a/b", got)
	}
}

// Each field has a prime of its own, so that no two can change places unseen.
func TestUsageAdd(t *testing.T) {
	u := jobs.Usage{InputTokens: 2, CachedTokens: 3, OutputTokens: 5, ReasoningTokens: 7}
	v := jobs.Usage{InputTokens: 11, CachedTokens: 13, OutputTokens: 17, ReasoningTokens: 19}
	want := jobs.Usage{InputTokens: 13, CachedTokens: 16, OutputTokens: 22, ReasoningTokens: 26}
	if got := u.Add(v); got != want {
		t.Errorf("Add = %+v, want %+v", got, want)
	}
	for i := range reflect.TypeFor[jobs.Usage]().NumField() {
		var one, two jobs.Usage
		reflect.ValueOf(&one).Elem().Field(i).SetInt(1)
		reflect.ValueOf(&two).Elem().Field(i).SetInt(2)
		if got := one.Add(one); got != two {
			t.Errorf("%+v.Add of itself = %+v, want %+v", one, got, two)
		}
	}
}

// Dead letters carry their class as an attribute that programs act on.
func TestClassesAreForEver(t *testing.T) {
	want := "bad_request bad_job context_length refused schema truncated expired poison exhausted"
	var got []string
	for _, c := range []jobs.Class{
		jobs.BadRequest, jobs.BadJob, jobs.ContextLength, jobs.Refused, jobs.SchemaFailed,
		jobs.Truncated, jobs.Expired, jobs.Poison, jobs.Exhausted,
	} {
		got = append(got, string(c))
	}
	if got := strings.Join(got, " "); got != want {
		t.Errorf("classes = %s, want %s", got, want)
	}
}
