package mantle_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"

	"upwell/jobs"
	"upwell/throttle"
	"upwell/worker"
	"upwell/worker/mantle"
)

func Example() {
	endpoint := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		sent, _ := io.ReadAll(req.Body)
		fmt.Println("sent", string(sent))
		_, _ = io.WriteString(w, `{"status":"completed","service_tier":"flex",
			"output":[{"type":"message","content":[{"type":"output_text","text":"New York"}]}],
			"usage":{"input_tokens":1000,"output_tokens":100}}`)
	}))
	defer endpoint.Close()

	ctx := context.Background()
	client, err := mantle.New(ctx, mantle.Config{BaseURL: endpoint.URL + "/v1", APIKey: "key", MaxOutputTokens: 500})
	if err != nil {
		fmt.Println(err)
		return
	}
	job, _ := jobs.Parse([]byte(`{"custom_id":"msa-0042","url":"/v1/responses",
		"body":{"model":"xai.grok-4.3","input":"Which law governs?"}}`), "contracts")
	call := worker.Call{Job: &job, Lane: throttle.Lane{Model: job.Model, Tier: "flex"}}

	answer, err := client.Complete(ctx, call)
	if e, ok := errors.AsType[*worker.Error](err); ok {
		fmt.Println(e.Kind, e)
		return
	}
	fmt.Printf("%s, for $%.6f\n", answer.Text, answer.CostUSD)
	// Output:
	// sent {"service_tier":"flex","store":false,"max_output_tokens":500,"model":"xai.grok-4.3","input":"Which law governs?"}
	// New York, for $0.000750
}
