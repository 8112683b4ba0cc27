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

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"github.com/testcontainers/testcontainers-go"
	"github.com/testcontainers/testcontainers-go/network"
)

// answers asks once whether there is an engine.
var answers = sync.OnceValues(func() (*testcontainers.DockerClient, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	c, err := testcontainers.NewDockerClientWithOpts(ctx)
	if err != nil {
		return nil, err
	}
	_, err = c.Ping(ctx, client.PingOptions{})
	return c, err
})

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
	case os.Getenv("UPWELL_CONTAINERS") == "required":
		t.Fatalf("no Docker engine answers, and UPWELL_CONTAINERS=required: %v", err)
	default:
		t.Skipf("no Docker engine answers: start one, or set DOCKER_HOST: %v", err)
	}
	return nil
}

// A box is a running container.
type box struct {
	testcontainers.Container
	log output
}

// output is what a container has written so far.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// Accept implements testcontainers.LogConsumer.
func (o *output) Accept(l testcontainers.Log) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.text.Write(l.Content)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// start runs a container until the test ends.
func start(t *testing.T, req testcontainers.ContainerRequest) *box {
	t.Helper()
	b := &box{}
	req.LogConsumerCfg = &testcontainers.LogConsumerConfig{Consumers: []testcontainers.LogConsumer{&b.log}}
	c, err := testcontainers.GenericContainer(t.Context(), testcontainers.GenericContainerRequest{ContainerRequest: req, Started: true, Logger: mute{}})
	testcontainers.CleanupContainer(t, c, testcontainers.StopTimeout(0))
	if err != nil {
		t.Fatalf("%s %v: %v", req.Image, req.Cmd, err)
	}
	b.Container = c
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%s %v:\n%s", req.Image, req.Cmd, tail(b.log.String()))
		}
	})
	return b
}

// mute keeps testcontainers from telling what it does: a failure says so itself.
type mute struct{}

// Printf implements log.Logger.
func (mute) Printf(string, ...any) {}

// exits waits until the container has ended, and returns its exit code.
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
	return state.ExitCode
}

// signal sends a signal to the container's process.
func (b *box) signal(t *testing.T, name string) {
	t.Helper()
	if _, err := engine(t).ContainerKill(t.Context(), b.GetContainerID(), client.ContainerKillOptions{Signal: name}); err != nil {
		t.Fatal(err)
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
