package standin

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// TestBucketCounts writes what a program may write.
func TestBucketCounts(t *testing.T) {
	t.Parallel()
	b := &bucket{stored: make(map[string]time.Time), boards: make(map[string][]byte)}
	const right, wrong = `{"id":"resp_1","object":"response"}`, `{"model":"xai.grok-4.3","input":"a prompt"}`
	for _, put := range []struct {
		key, body, ifNone string
		want              int
	}{
		{"a", right, "*", http.StatusOK},
		{"a", right, "*", http.StatusPreconditionFailed}, // no second result
		{"b", right, "", http.StatusOK},
		{"b", right, "", http.StatusOK}, // doubled
		{"c", wrong, "", http.StatusOK},
		{"state/x", wrong, "", http.StatusOK}, // a board is no result
	} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPut, "/results/"+put.key, strings.NewReader(put.body))
		if put.ifNone != "" {
			r.Header.Set("If-None-Match", put.ifNone)
		}
		w := httptest.NewRecorder()
		b.ServeHTTP(w, r)
		if w.Code != put.want {
			t.Errorf("PUT %s: status %d, want %d", put.key, w.Code, put.want)
		}
	}
	srv := httptest.NewServer(b)
	defer srv.Close()
	s := &Servers{S3: srv.URL}
	if got, err := s.Stored(t.Context()); err != nil || got != (Stored{Keys: 3, Doubled: 1, Wrong: 1}) {
		t.Errorf("Stored = %+v, %v, want 3 keys, 1 doubled, 1 wrong", got, err)
	}
	if err := s.Forget(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Stored(t.Context()); err != nil || got != (Stored{}) {
		t.Errorf("Stored after Forget = %+v, %v, want nothing", got, err)
	}
}
