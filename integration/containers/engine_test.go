// Package containers tests the program as it is deployed, as an image, and against
// servers of others: it kills workers, pauses them, cuts their networks and takes
// their memory away, and balances the account afterwards.
//
// The tests need a Docker engine, and are skipped where none answers. With
// UPWELL_CONTAINERS=required they fail instead. No image is pulled: what they run is
// built from scratch and from this machine's own files. Where a registry can be
// reached, UPWELL_GO_IMAGE, UPWELL_VERSITYGW_IMAGE and UPWELL_FAUXQS_IMAGE name
// public images to take instead.
package containers

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"github.com/testcontainers/testcontainers-go"
	"github.com/testcontainers/testcontainers-go/network"
)

// answers asks once whether there is an engine.
var answers = sync.OnceValues(func() (*testcontainers.DockerClient, error) {
	wait := 20 * time.Second
	if required() {
		wait = patience // all tests fail by this one answer
	}
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	c, err := testcontainers.NewDockerClientWithOpts(ctx)
	if err != nil {
		return nil, err
	}
	_, err = c.Ping(ctx, client.PingOptions{})
	return c, err
})

// required reports whether there has to be an engine.
func required() bool { return os.Getenv("UPWELL_CONTAINERS") == "required" }

// engine returns a client of the Docker engine. Where there is none the test ends.
func engine(t *testing.T) *testcontainers.DockerClient {
	t.Helper()
	if testing.Short() {
		t.Skip("containers take minutes")
	}
	c, err := answers()
	switch {
	case err == nil:
		return c
	case required():
		t.Fatalf("no Docker engine answers, and UPWELL_CONTAINERS=required: %v", err)
	default:
		t.Skipf("no Docker engine answers: start one, or set DOCKER_HOST: %v", err)
	}
	return nil
}

// A box is a running container.
type box struct {
	testcontainers.Container
	log   output
	heard chan struct{} // closed when it has ended and log has all that it said
}

// output is what a container has written so far.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// Write implements io.Writer.
func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

// reset forgets what was written.
func (o *output) reset() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.text.Reset()
}

func (o *output) String() string { return o.since(0) }

// since returns what comes after so many bytes.
func (o *output) since(n int) string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return string(o.text.Bytes()[min(n, o.text.Len()):])
}

// start runs a container until the test ends.
func start(t *testing.T, req testcontainers.ContainerRequest) *box {
	t.Helper()
	b := &box{heard: make(chan struct{})}
	c, err := testcontainers.GenericContainer(t.Context(), testcontainers.GenericContainerRequest{ContainerRequest: req, Started: true, Logger: mute{}})
	if c != nil {
		b.Container = c
		t.Cleanup(func() {
			if t.Failed() {
				t.Logf("%s %v:\n%s", req.Image, req.Cmd, tail(b.log.String()))
			}
			b.remove(t)
		})
		go b.listen()
	}
	if err != nil {
		t.Fatalf("%s %v: %v", req.Image, req.Cmd, err)
	}
	return b
}

// remove ends the container and removes it. The engine gives up on what takes long on
// a slow machine, so that it is asked until it has done so.
func (b *box) remove(t *testing.T) {
	t.Helper()
	var err error
	defer func() {
		if err != nil {
			t.Logf("the engine says: %v", err)
		}
	}()
	eventually(t, "the container to be removed", func() bool {
		err = testcontainers.TerminateContainer(b, testcontainers.StopTimeout(0))
		return err == nil
	})
}

// listen takes down what the container says, until it has ended. Consumers of
// testcontainers ask anew every few seconds, for what is said from then on, and miss
// what comes late.
func (b *box) listen() {
	defer close(b.heard)
	ctx := context.Background() // it ends with the container, which a cleanup removes
	for {
		b.log.reset()
		c, err := answers()
		if err != nil {
			return
		}
		said, err := c.ContainerLogs(ctx, b.GetContainerID(), client.ContainerLogsOptions{ShowStdout: true, ShowStderr: true, Follow: true})
		if err == nil {
			_, err = stdcopy.StdCopy(&b.log, &b.log, said)
			_ = said.Close()
		}
		if err == nil {
			return
		}
		if _, gone := c.ContainerInspect(ctx, b.GetContainerID(), client.ContainerInspectOptions{}); gone != nil {
			return
		}
		time.Sleep(100 * time.Millisecond) // the engine hung up
	}
}

// hasEnded reports whether it has, and log has all that it said.
func (b *box) hasEnded() bool {
	select {
	case <-b.heard:
		return true
	default:
		return false
	}
}

// says waits until the container's log has a text.
func (b *box) says(t *testing.T, text string) {
	t.Helper()
	eventually(t, "the container to say "+text, func() bool {
		ended := b.hasEnded()
		said := strings.Contains(b.log.String(), text)
		if ended && !said {
			t.Fatalf("the container has ended and not said %q: %s", text, tail(b.log.String()))
		}
		return said
	})
}

// mute keeps testcontainers from telling what it does: a failure says so itself.
type mute struct{}

// Printf implements log.Logger.
func (mute) Printf(string, ...any) {}

// exits waits until the container has ended and all that it said has come, and returns
// its exit code.
func (b *box) exits(t *testing.T) int {
	t.Helper()
	var state *container.State
	eventually(t, "the container to end", func() bool {
		var err error
		if state, err = b.State(t.Context()); err != nil {
			t.Fatal(err)
		}
		return !state.Running
	})
	eventually(t, "the end of the container's log", b.hasEnded)
	return state.ExitCode
}

// signal sends a signal to the container's process, which has to run.
func (b *box) signal(t *testing.T, name string) {
	t.Helper()
	state, err := b.State(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !state.Running {
		t.Fatalf("the container has ended with %d before it was sent %s: %s", state.ExitCode, name, tail(b.log.String()))
	}
	_, err = engine(t).ContainerKill(t.Context(), b.GetContainerID(), client.ContainerKillOptions{Signal: name})
	if err != nil && name == "KILL" {
		// The engine waits for the end as well, and complains when a slow machine takes
		// longer than it likes.
		b.exits(t)
		return
	}
	if err != nil {
		t.Fatal(err)
	}
}

// freeze stops the container's process in its tracks, and thaw lets it go on. Where
// processors are scarce the kernel may not get hold of all threads in the time that
// the engine gives it, so that it is asked again.
func (b *box) freeze(t *testing.T) {
	t.Helper()
	c := engine(t)
	b.until(t, "frozen", true, func() error {
		_, err := c.ContainerPause(t.Context(), b.GetContainerID(), client.ContainerPauseOptions{})
		return err
	})
}

func (b *box) thaw(t *testing.T) {
	t.Helper()
	c := engine(t)
	b.until(t, "thawed", false, func() error {
		_, err := c.ContainerUnpause(t.Context(), b.GetContainerID(), client.ContainerUnpauseOptions{})
		return err
	})
}

// until asks the engine until the container is paused, or is not.
func (b *box) until(t *testing.T, what string, paused bool, ask func() error) {
	t.Helper()
	var refusal error
	eventually(t, "the container to be "+what, func() bool {
		if err := ask(); err != nil {
			refusal = err
		}
		state, err := b.State(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if !state.Running {
			t.Fatalf("the container has ended with %d before it was %s: %s", state.ExitCode, what, tail(b.log.String()))
		}
		return state.Paused == paused
	})
	if refusal != nil {
		t.Logf("%s after the engine had said: %v", what, refusal)
	}
}

// newNetwork makes a network and returns its name.
func newNetwork(t *testing.T) string {
	t.Helper()
	n, err := network.New(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	testcontainers.CleanupNetwork(t, n)
	return n.Name
}

// patience bounds every wait: what takes longer is stuck.
const patience = 10 * time.Minute

// eventually waits until ok reports true.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("waited %v in vain: want %s", patience, what)
		}
	}
}

// tail returns the last lines of a text.
func tail(s string) string {
	lines := strings.SplitAfter(s, "\n")
	return strings.Join(lines[max(0, len(lines)-20):], "")
}

// cli finds a docker command that can build with BuildKit: one from before version
// 23 has it within, later ones have it as a plugin.
var cli = sync.OnceValues(func() (string, error) {
	for _, dir := range slices.Concat(filepath.SplitList(os.Getenv("PATH")), []string{"/usr/bin"}) {
		path := filepath.Join(dir, "docker")
		out, err := exec.Command(path, "version", "--format", "{{.Client.Version}}").Output()
		if err != nil {
			continue
		}
		if strings.HasPrefix(string(out), "20.") || exec.Command(path, "buildx", "version").Run() == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("no docker command in PATH can build with BuildKit: install docker.io, or docker-buildx")
})

// docker runs the docker command, as a user would.
func docker(t *testing.T, args ...string) {
	t.Helper()
	path, err := cli()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Env = append(os.Environ(), "DOCKER_BUILDKIT=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("docker %s: %v\n%s", strings.Join(args, " "), err, tail(string(out)))
	}
}
