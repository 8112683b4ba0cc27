package health_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"upwell/cmd/internal/health"
)

func TestHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var pulse time.Time
		var closed error
		h := health.Handler(health.Worker{Pulse: func() time.Time { return pulse }, Ready: func() error { return closed }})
		check := func(when, path string, code int, said string) {
			t.Helper()
			rec := httptest.NewRecorder()
			h.ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
			if rec.Code != code || !strings.Contains(rec.Body.String(), said) {
				t.Errorf("%s: %s = %d %q, want %d %q", when, path, rec.Code, rec.Body, code, said)
			}
		}
		check("before it starts", "/healthz", 200, "ok")
		check("before it starts", "/readyz", 503, "not at work")
		pulse = time.Now()
		check("at work", "/healthz", 200, "ok")
		check("at work", "/readyz", 200, "ok")
		closed = errors.New("intake paused: check the API key")
		check("paused", "/healthz", 200, "ok")
		check("paused", "/readyz", 503, "check the API key")
		time.Sleep(time.Minute)
		check("a minute later", "/healthz", 200, "ok")
		time.Sleep(time.Second)
		check("after more than a minute", "/healthz", 503, "hangs")
		check("elsewhere", "/", 404, "")
	})
}

func TestAsk(t *testing.T) {
	var failing error
	srv := httptest.NewServer(health.Handler(health.Worker{Pulse: time.Now, Ready: func() error { return failing }}))
	defer srv.Close()
	addr := srv.Listener.Addr().String()
	if said, err := health.Ask(t.Context(), addr, "/healthz"); said != "ok" || err != nil {
		t.Errorf("Ask = %q, %v, want ok", said, err)
	}
	failing = errors.New("draining")
	for name, tt := range map[string]struct{ addr, want string }{
		"not ready":       {addr, "503 Service Unavailable: draining"},
		"all addresses":   {strings.Replace(addr, "127.0.0.1", "0.0.0.0", 1), "draining"},
		"no host":         {strings.TrimPrefix(addr, "127.0.0.1"), "draining"},
		"no port":         {"127.0.0.1", "want host:port"},
		"nobody there":    {"127.0.0.1:1", "refused"},
		"unusable as URL": {"a b:1", "invalid"},
	} {
		if _, err := health.Ask(t.Context(), tt.addr, "/readyz"); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: Ask(%q) = %v, want an error with %q", name, tt.addr, err, tt.want)
		}
	}
}
