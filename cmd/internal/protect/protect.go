// Package protect keeps an Amazon ECS task from being stopped by scale-in or by a
// deployment while its worker holds messages.
//
// ECS stops tasks without asking what they do. A worker that is told to stop saves
// what it can within the grace period, two minutes at most on Fargate; calls that take
// longer are cut off, and were paid for. So while it holds messages the task asks the
// container agent for protection, renews it before it expires, and gives it back when
// nothing has been held for a while. Protection is a matter of money, not of safety:
// whatever the agent answers, the worker goes on.
//
// # Deployments
//
// ECS does not stop a protected task for a deployment either, and a queue that is
// never empty would hold off a deployment for ever. A task that has been protected
// for Longest therefore does without for Rest, in which ECS may stop it.
//
// # The agent
//
// The agent answers at $ECS_AGENT_URI/task-protection/v1/state, with "protection" when
// it was done, with "failure" and status 200 when ECS refused, and with "error" and
// another status when ECS could not be asked. It needs ecs:UpdateTaskProtection in the
// task's role.
package protect

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"time"
)

const (
	// look is how often the worker is asked what it holds. A task is unprotected for
	// as long after it took its first message.
	look = time.Second

	// timeout bounds a request. The agent itself gives ECS four seconds.
	timeout = 6 * time.Second

	// firstRetry and lastRetry bound the wait after a failure, which doubles from one
	// to the other. Requests of all tasks of an account share ECS's rate limit.
	firstRetry = 5 * time.Second
	lastRetry  = time.Minute

	// largest is more than any reply of the agent has, in bytes.
	largest = 64 << 10
)

// Config says what to protect, and how. Agent and Held are required.
type Config struct {
	// Agent is the container agent's address, ECS_AGENT_URI in the environment of each
	// task. Empty means that there is none, and nothing is done.
	Agent string

	// Held returns how many messages the worker holds. It must not block.
	Held func() int

	// Client makes the requests. Default: one of its own.
	Client *http.Client

	// Log is told of each change. Default: nothing.
	Log *slog.Logger

	// Idle is how long nothing must have been held before protection is lifted, so
	// that a queue of which little is left does not cost a request a second. Default
	// one minute.
	Idle time.Duration

	// Expiry is for how long protection is asked: how long the task of a worker that
	// hangs is kept. It is renewed when half of it has passed. Whole minutes, 1 to
	// 2,880. Default ten minutes.
	Expiry time.Duration

	// Longest is how long the task may be protected without a pause, and Rest how long
	// the pause is. CloudFormation waits three hours for a deployment. Default one
	// hour, and two minutes.
	Longest, Rest time.Duration
}

// Keep protects the task while messages are held, until ctx ends. Protection ends with
// the task, so that it is not lifted then. It returns at once where there is no agent,
// and when ECS says that the task is no part of a service, which nothing scales in.
func Keep(ctx context.Context, cfg Config) {
	if cfg.Agent == "" {
		return
	}
	k := &keeper{
		cfg: cfg, client: cfg.Client, log: cmp.Or(cfg.Log, slog.New(slog.DiscardHandler)),
		idle: cmp.Or(cfg.Idle, time.Minute), expiry: cmp.Or(cfg.Expiry, 10*time.Minute),
		longest: cmp.Or(cfg.Longest, time.Hour), rest: cmp.Or(cfg.Rest, 2*time.Minute),
	}
	if k.client == nil {
		k.client = &http.Client{Transport: &http.Transport{}} // the agent is never behind a proxy
	}
	tick := time.NewTicker(look)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if err := k.step(ctx, time.Now()); errors.Is(err, errNoService) {
				k.log.InfoContext(ctx, "task not protected", "why", err.Error())
				return
			}
		}
	}
}

// A keeper is the state of one Keep.
type keeper struct {
	cfg                         Config
	client                      *http.Client
	log                         *slog.Logger
	idle, expiry, longest, rest time.Duration

	held      time.Time // when messages were last held
	protected bool
	since     time.Time // when protection began
	renewed   time.Time // when it was last granted
	resting   time.Time // end of the pause

	failures int // in a row
	retry    time.Time
}

// step looks once, and asks the agent for what has to change.
func (k *keeper) step(ctx context.Context, now time.Time) error {
	holding := k.cfg.Held() > 0
	if holding {
		k.held = now
	}
	want := holding && !now.Before(k.resting)
	tired := false
	if k.protected {
		tired = now.Sub(k.since) >= k.longest
		want = now.Sub(k.held) < k.idle && !tired
	}
	due := want != k.protected || k.protected && now.Sub(k.renewed) >= k.expiry/2
	if !due || now.Before(k.retry) {
		return nil
	}
	if err := k.put(ctx, want); err != nil {
		return k.failed(ctx, want, err)
	}
	k.granted(ctx, now, want, tired)
	return nil
}

// granted notes that the agent did what it was asked for.
func (k *keeper) granted(ctx context.Context, now time.Time, protected, tired bool) {
	first, mended := protected != k.protected, k.failures > 0
	k.protected, k.failures, k.retry = protected, 0, time.Time{}
	if !protected {
		if tired {
			k.resting = now.Add(k.rest)
		}
		k.log.InfoContext(ctx, "task protection lifted", "pause", tired)
		return
	}
	k.renewed = now // the time before the request: it cannot expire earlier
	if first {
		k.since = now
	}
	if first || mended {
		k.log.InfoContext(ctx, "task protected", "expires", now.Add(k.expiry).UTC().Format(time.RFC3339))
	}
}

// failed notes that it did not, and says so the first time.
func (k *keeper) failed(ctx context.Context, want bool, err error) error {
	if errors.Is(err, errNoService) || ctx.Err() != nil {
		return err
	}
	wait := lastRetry
	if k.failures < 4 {
		wait = firstRetry << k.failures
	}
	k.failures++
	k.retry = time.Now().Add(wait)
	if k.failures == 1 {
		k.log.WarnContext(ctx, "task protection not changed", "wanted", want, "err", err)
	}
	return err
}

// errNoService is the refusal to protect a task that was run on its own.
var errNoService = errors.New("the task is no part of a service: TASK_NOT_VALID")

// state is what the agent is asked for.
type state struct {
	ProtectionEnabled bool
	ExpiresInMinutes  int `json:",omitempty"`
}

// A reply is what it answers. One of the three is there.
type reply struct {
	Protection *struct{ ProtectionEnabled bool } `json:"protection"`
	Failure    *struct{ Reason, Detail string }  `json:"failure"`
	Error      *struct{ Code, Message string }   `json:"error"`
}

// put asks for protection, or for none.
func (k *keeper) put(ctx context.Context, protected bool) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	s := state{ProtectionEnabled: protected}
	if protected {
		s.ExpiresInMinutes = max(int(k.expiry/time.Minute), 1)
	}
	body, err := json.Marshal(s)
	if err != nil {
		return err
	}
	url := strings.TrimSuffix(k.cfg.Agent, "/") + "/task-protection/v1/state"
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := k.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, largest))
	if err != nil {
		return fmt.Errorf("reply: %w", err)
	}
	return judge(resp.Status, text, protected)
}

// judge says whether the reply grants what was asked for.
func judge(status string, text []byte, protected bool) error {
	var r reply
	if err := json.Unmarshal(text, &r); err != nil {
		return fmt.Errorf("%s, and no JSON", status)
	}
	switch {
	case r.Failure != nil && r.Failure.Reason == "TASK_NOT_VALID":
		return errNoService
	case r.Failure != nil:
		return fmt.Errorf("refused: %s", strings.TrimSpace(r.Failure.Reason+" "+r.Failure.Detail))
	case r.Error != nil:
		return fmt.Errorf("%s: %s: %s", status, r.Error.Code, r.Error.Message)
	case r.Protection == nil || r.Protection.ProtectionEnabled != protected:
		return fmt.Errorf("%s, and protection is not what was asked for", status)
	}
	return nil
}
