package protect_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"upwell/cmd/internal/protect"
	"upwell/integration/fixture"
)

// An agent answers as the container agent does: it is as strict about requests as the
// agent's decoder, and what ECS answers to it is scripted.
type agent struct {
	t     *testing.T
	start time.Time

	mu      sync.Mutex
	asked   []string               // "12s on 10m", "72s off"
	until   time.Time              // end of the protection that is in force
	replies []func() (int, string) // to the next requests, in turn; then as asked
}

func (a *agent) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPut || r.URL.Path != "/api/0123-abc/task-protection/v1/state" || r.Header.Get("Content-Type") != "application/json" {
		a.t.Errorf("request %s %s, Content-Type %q", r.Method, r.URL.Path, r.Header.Get("Content-Type"))
		http.NotFound(w, r)
		return
	}
	var in struct {
		ProtectionEnabled *bool
		ExpiresInMinutes  *int64
	}
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(&in); err != nil || in.ProtectionEnabled == nil {
		a.t.Errorf("request that the agent refuses: %v", err)
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	what := fmt.Sprintf("%v off", time.Since(a.start))
	if *in.ProtectionEnabled {
		if in.ExpiresInMinutes == nil || *in.ExpiresInMinutes < 1 || *in.ExpiresInMinutes > 2880 {
			a.t.Errorf("ExpiresInMinutes out of range")
			return
		}
		what = fmt.Sprintf("%v on %dm", time.Since(a.start), *in.ExpiresInMinutes)
	}
	status, text := a.next(what)()
	if text == "" {
		text = a.obey(*in.ProtectionEnabled, in.ExpiresInMinutes)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text)
}

// next notes a request and returns what is said to it.
func (a *agent) next(what string) func() (int, string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.asked = append(a.asked, what)
	if len(a.replies) == 0 {
		return said(http.StatusOK, "")
	}
	reply := a.replies[0]
	a.replies = a.replies[1:]
	return reply
}

// obey does what was asked for, and says so.
func (a *agent) obey(protect bool, minutes *int64) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !protect {
		a.until = time.Time{}
		return `{"protection":{"ExpirationDate":null,"ProtectionEnabled":false,"TaskArn":"arn:aws:ecs:us-west-2:111111111111:task/c/1"}}`
	}
	a.until = time.Now().Add(time.Duration(*minutes) * time.Minute)
	return fmt.Sprintf(`{"protection":{"ExpirationDate":%q,"ProtectionEnabled":true,"TaskArn":"arn:aws:ecs:us-west-2:111111111111:task/c/1"}}`, a.until.Format(time.RFC3339))
}

func (a *agent) protected() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return time.Now().Before(a.until)
}

func (a *agent) requests() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.asked)
}

// Replies of the agent and of ECS behind it.
func failure(reason string) func() (int, string) {
	return func() (int, string) {
		return http.StatusOK, `{"failure":{"Arn":"arn:aws:ecs:us-west-2:111111111111:task/c/1","Detail":null,"Reason":"` + reason + `"}}`
	}
}

func fault(status int, code string) func() (int, string) {
	return func() (int, string) {
		return status, `{"requestID":"r-1","error":{"Arn":"arn:aws:ecs:us-west-2:111111111111:task/c/1","Code":"` + code + `","Message":"no"}}`
	}
}

func said(status int, text string) func() (int, string) {
	return func() (int, string) { return status, text }
}

// A scene is a task with its agent, in a bubble.
type scene struct {
	agent *agent
	held  atomic.Int64
	log   bytes.Buffer // read it when Keep has returned, or is durably blocked
	ended chan struct{}
	stop  func()
}

func newScene(t *testing.T, replies ...func() (int, string)) *scene {
	t.Helper()
	s := &scene{agent: &agent{t: t, start: time.Now(), replies: replies}, ended: make(chan struct{})}
	tr := &http.Transport{DialContext: fixture.Serve(t, &http.Server{Handler: s.agent}).DialContext}
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		protect.Keep(ctx, protect.Config{
			Agent: "http://169.254.170.2/api/0123-abc", Client: &http.Client{Transport: tr},
			Held: func() int { return int(s.held.Load()) },
			Log:  slog.New(slog.NewTextHandler(&s.log, nil)),
		})
		close(s.ended)
	}()
	s.stop = sync.OnceFunc(func() { cancel(); <-s.ended })
	t.Cleanup(func() {
		s.stop()
		tr.CloseIdleConnections()
	})
	return s
}

// pass lets time pass, in steps that show gaps in the protection.
func (s *scene) pass(d time.Duration) (unprotected time.Duration) {
	for range int(d / (500 * time.Millisecond)) {
		time.Sleep(500 * time.Millisecond)
		synctest.Wait()
		if !s.agent.protected() {
			unprotected += 500 * time.Millisecond
		}
	}
	return unprotected
}

// messages are those of the log, without times and attributes.
func (s *scene) messages() (list []string) {
	for line := range strings.Lines(s.log.String()) {
		_, rest, _ := strings.Cut(line, `level=`)
		level, rest, _ := strings.Cut(rest, ` msg="`)
		msg, _, _ := strings.Cut(rest, `"`)
		list = append(list, level+" "+msg)
	}
	return list
}

// TestProtectsWhileHeld follows a task through work and out of it.
func TestProtectsWhileHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		s.pass(10 * time.Second)
		s.held.Store(3)
		s.pass(time.Second)
		if gap := s.pass(25 * time.Minute); gap != 0 {
			t.Errorf("unprotected for %v while messages were held, want 0", gap)
		}
		s.held.Store(0)
		if gap := s.pass(59 * time.Second); gap != 0 {
			t.Errorf("unprotected %v within a minute after the last message", gap)
		}
		s.pass(time.Hour)
		s.stop()
		want := []string{"11s on 10m", "5m11s on 10m", "10m11s on 10m", "15m11s on 10m", "20m11s on 10m", "25m11s on 10m", "26m11s off"}
		if diff := cmp.Diff(want, s.agent.requests()); diff != "" {
			t.Errorf("requests differ (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]string{"INFO task protected", "INFO task protection lifted"}, s.messages()); diff != "" {
			t.Errorf("log differs (-want +got):\n%s", diff)
		}
	})
}

// TestFlicker has a queue of which a message comes now and then.
func TestFlicker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		for range 120 {
			s.held.Store(1)
			s.pass(2 * time.Second)
			s.held.Store(0)
			s.pass(28 * time.Second)
		}
		if n := len(s.agent.requests()); n > 14 { // an hour: the first, and one each five minutes
			t.Errorf("%d requests in an hour, want 14 at most: %v", n, s.agent.requests())
		}
	})
}

// TestPauses gives a deployment its chance while a queue is never empty.
func TestPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		s.held.Store(3)
		s.pass(time.Second)
		if gap := s.pass(59 * time.Minute); gap != 0 {
			t.Errorf("unprotected for %v in the first hour, want 0", gap)
		}
		if gap := s.pass(2 * time.Hour); gap < 4*time.Minute || gap > 4*time.Minute+5*time.Second {
			t.Errorf("unprotected for %v in two hours, want two pauses of 2m", gap)
		}
	})
}

// TestFailures has the agent refuse in all of its ways. Each time the worker is
// protected as soon as it does not.
func TestFailures(t *testing.T) {
	type bad struct {
		reply func() (int, string)
		says  string // in the log
	}
	for name, bad := range map[string]bad{
		"refused":     {failure("DEPLOYMENT_BLOCKED"), "refused: DEPLOYMENT_BLOCKED"},
		"throttled":   {fault(http.StatusBadRequest, "ThrottlingException"), "400 Bad Request: ThrottlingException: no"},
		"not allowed": {fault(http.StatusBadRequest, "AccessDeniedException"), "AccessDeniedException"},
		"timed out":   {fault(http.StatusGatewayTimeout, "RequestCanceled"), "504 Gateway Timeout: RequestCanceled"},
		"no such API": {said(http.StatusNotFound, "404 page not found\n"), "404 Not Found, and no JSON"},
		"empty":       {said(http.StatusOK, "{}"), "not what was asked for"},
		"other state": {said(http.StatusOK, `{"protection":{"ProtectionEnabled":false}}`), "not what was asked for"},
		"endless":     {said(http.StatusOK, `{"failure":{"Reason":"`+strings.Repeat("x", 1<<20)+`"}}`), "200 OK, and no JSON"},
		"null":        {said(http.StatusOK, "null"), "not what was asked for"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newScene(t, bad.reply, bad.reply, bad.reply)
				s.held.Store(1)
				s.pass(time.Minute)
				s.stop()
				want := []string{"1s on 10m", "6s on 10m", "16s on 10m", "36s on 10m"}
				if diff := cmp.Diff(want, s.agent.requests()); diff != "" {
					t.Errorf("requests differ (-want +got):\n%s", diff)
				}
				if diff := cmp.Diff([]string{"WARN task protection not changed", "INFO task protected"}, s.messages()); diff != "" {
					t.Errorf("log differs (-want +got):\n%s", diff)
				}
				if log := s.log.String(); len(log) > 2000 || !strings.Contains(log, bad.says) {
					t.Errorf("the log has %d bytes, want %q in them:\n%.1000s", len(log), bad.says, log)
				}
			})
		})
	}
}

// TestRenewalFails has ECS out of reach for a while, less than protection lasts and
// more than that.
func TestRenewalFails(t *testing.T) {
	for _, tt := range []struct {
		failures int
		gap      bool
		log      []string
	}{
		{4, false, []string{"INFO task protected", "WARN task protection not changed", "INFO task protected"}},
		{20, true, []string{"INFO task protected", "WARN task protection not changed", "INFO task protected"}},
	} {
		t.Run(fmt.Sprint(tt.failures), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				replies := []func() (int, string){said(http.StatusOK, "")}
				for range tt.failures {
					replies = append(replies, fault(http.StatusInternalServerError, "ServerException"))
				}
				s := newScene(t, replies...)
				s.held.Store(1)
				s.pass(time.Second)
				if gap := s.pass(40 * time.Minute); gap > 0 != tt.gap {
					t.Errorf("unprotected for %v, want any: %t", gap, tt.gap)
				}
				s.stop()
				if diff := cmp.Diff(tt.log, s.messages()); diff != "" {
					t.Errorf("log differs (-want +got):\n%s", diff)
				}
				if n := len(s.agent.requests()); n > 1+tt.failures+8 {
					t.Errorf("%d requests: %v", n, s.agent.requests())
				}
			})
		})
	}
}

// TestNoService has a task that was run on its own, as scheduled ones are.
func TestNoService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, failure("TASK_NOT_VALID"))
		s.held.Store(1)
		s.pass(time.Hour)
		select {
		case <-s.ended:
		default:
			t.Error("Keep goes on, want it to return")
		}
		if n := len(s.agent.requests()); n != 1 {
			t.Errorf("%d requests, want 1", n)
		}
	})
}

// TestNoAgent has a worker that runs somewhere else.
func TestNoAgent(t *testing.T) {
	protect.Keep(t.Context(), protect.Config{Held: func() int { t.Error("asked"); return 1 }})
}

// TestSilentAgent has an agent that never answers: each request is given up in time.
func TestSilentAgent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hang := make(chan struct{})
		s := newScene(t, func() (int, string) { <-hang; return http.StatusOK, "" })
		s.held.Store(1)
		time.Sleep(8 * time.Second)
		close(hang)
		time.Sleep(time.Minute)
		synctest.Wait()
		if !s.agent.protected() {
			t.Errorf("not protected a minute after the agent came back: %v", s.agent.requests())
		}
		s.stop()
		if got := s.messages(); len(got) == 0 || got[0] != "WARN task protection not changed" {
			t.Errorf("log %v, want a warning first", got)
		}
	})
}
