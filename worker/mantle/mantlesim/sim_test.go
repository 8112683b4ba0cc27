package mantlesim_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"upwell/worker/mantle/mantlesim"
)

const (
	responses = "/openai/v1/responses"
	chat      = "/openai/v1/chat/completions"
)

// An answer is what a caller saw.
type answer struct {
	Code   int
	Header http.Header
	Text   string // the body
	Broken bool   // the connection was aborted
}

// post makes a call with a good key, in this goroutine.
func post(s *mantlesim.Server, path, body string, header ...string) answer {
	return postContext(context.Background(), s, path, body, header...)
}

func postContext(ctx context.Context, s *mantlesim.Server, path, body string, header ...string) (a answer) {
	return send(ctx, s, http.MethodPost, path, body, append([]string{"Authorization", "Bearer good-key"}, header...)...)
}

func send(ctx context.Context, s *mantlesim.Server, method, path, body string, header ...string) (a answer) {
	r := httptest.NewRequestWithContext(ctx, method, path, strings.NewReader(body))
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	defer func() {
		if v := recover(); v != nil {
			if v != http.ErrAbortHandler {
				panic(v)
			}
			a.Broken = true
		}
		a.Code, a.Header, a.Text = w.Code, w.Header(), w.Body.String()
	}()
	s.ServeHTTP(w, r)
	return a
}

// decode returns the body as JSON.
func (a answer) decode(t *testing.T) (v map[string]any) {
	t.Helper()
	if err := json.Unmarshal([]byte(a.Text), &v); err != nil {
		t.Fatalf("body %q: %v", a.Text, err)
	}
	return v
}

// at digs into JSON: at(v, "output", 0, "type").
func at(v any, path ...any) any {
	for _, step := range path {
		switch step := step.(type) {
		case string:
			m, _ := v.(map[string]any)
			v = m[step]
		case int:
			l, _ := v.([]any)
			if step < 0 {
				step += len(l)
			}
			if step < 0 || step >= len(l) {
				return nil
			}
			v = l[step]
		}
	}
	return v
}

// output returns the text of an answer of either API.
func (a answer) output(t *testing.T) string {
	t.Helper()
	v := a.decode(t)
	s, ok := at(v, "output", -1, "content", 0, "text").(string)
	if !ok {
		s, _ = at(v, "choices", 0, "message", "content").(string)
	}
	return s
}

// grok is a body for Grok's Responses API, with more fields.
func grok(input string, more ...string) string {
	return fmt.Sprintf(`{"model":"xai.grok-4.3","input":%q%s}`, input, strings.Join(more, ""))
}

// grokChat is a body for Grok's Chat Completions.
func grokChat(input string, more ...string) string {
	return fmt.Sprintf(`{"model":"xai.grok-4.3","messages":[{"role":"user","content":%q}]%s}`, input, strings.Join(more, ""))
}

// code is the code of an error answer.
func (a answer) code(t *testing.T) string {
	t.Helper()
	s, _ := at(a.decode(t), "error", "code").(string)
	return s
}

// within fails unless got is want give or take a margin.
func within(t *testing.T, what string, got, want, margin float64) {
	t.Helper()
	if got < want-margin || got > want+margin {
		t.Errorf("%s = %v, want %v±%v", what, got, want, margin)
	}
}

// steady is a latency without spread.
func steady(d time.Duration) mantlesim.Latency { return mantlesim.Latency{Median: d} }
