package prompt_test

import (
	"bytes"
	"image"
	"image/jpeg"
	"image/png"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"upwell/cmd/internal/prompt"
	"upwell/jobs"
	"upwell/throttle"
	"upwell/worker"
	"upwell/worker/mantle"
	"upwell/worker/mantle/mantlesim"
)

// A handled is an HTTP transport that ends in this process.
type handled struct{ http.Handler }

func (h handled) RoundTrip(req *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, req)
	return w.Result(), nil
}

// TestEndpointTakesThem sends jobs of every shape by the worker's client to an endpoint
// that refuses what it does not know.
func TestEndpointTakesThem(t *testing.T) {
	sim := mantlesim.New(mantlesim.Config{RejectKeywords: mantlesim.XAIUnsupported})
	client, err := mantle.New(t.Context(), mantle.Config{
		BaseURL: "http://sim.invalid/openai/v1", Credentials: mantle.APIKey, APIKey: "k",
		HTTPClient: &http.Client{Transport: handled{sim}},
	})
	if err != nil {
		t.Fatal(err)
	}
	var pngData, jpegData bytes.Buffer
	picture := image.NewGray(image.Rect(0, 0, 8, 8))
	if err := png.Encode(&pngData, picture); err != nil {
		t.Fatal(err)
	}
	if err := jpeg.Encode(&jpegData, picture, nil); err != nil {
		t.Fatal(err)
	}
	images := map[string]*prompt.Image{"none": nil, "png": {Type: "image/png", Data: pngData.Bytes()}, "jpeg": {Type: "image/jpeg", Data: jpegData.Bytes()}}
	for _, template := range []string{
		strings.ReplaceAll(all, "key: [region, id]\n", ""),
		strings.Replace(all, "api: responses", "api: chat", 1),
		"---\nmodel: xai.grok-4.3\n---\n{{.text}}",
		"---\nmodel: xai.grok-4.3\napi: chat\nimages: low\n---\n{{.text}}",
	} {
		tmpl := parse(t, template)
		for name, img := range images {
			r := record(map[string]any{"name": "n", "text": "Which law governs?"})
			r.Image = img
			line, err := tmpl.Job(r)
			if err != nil {
				t.Fatal(err)
			}
			job, err := jobs.Parse(line, "run")
			if err != nil {
				t.Fatal(err)
			}
			_, job.Schema = tmpl.Schema()
			answer, err := client.Complete(t.Context(), worker.Call{Job: &job, Lane: throttle.Lane{Model: job.Model, Tier: "flex"}})
			if err != nil {
				t.Errorf("%.30q, image %s: %v", template, name, err)
				continue
			}
			if seen := answer.Usage.InputTokens >= 1000; seen != (img != nil) { // the simulator counts 1000 for an image
				t.Errorf("%.30q, image %s: %d tokens of input", template, name, answer.Usage.InputTokens)
			}
		}
	}
	if n := sim.Counts(); n.Billed != 12 {
		t.Errorf("%d calls billed, want 12", n.Billed)
	}
}
