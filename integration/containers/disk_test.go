package containers

import (
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/testcontainers/testcontainers-go"

	"upwell/infra/local"
)

// TestChaosDiskFull lets upwell run fill its disk, and makes room after a while.
func TestChaosDiskFull(t *testing.T) {
	chaotic(t)
	w := newWorld(t, local.Config{})
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=1m,mode=1777"); err != nil {
		t.Fatalf("a disk that is small enough cannot be mounted: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	input, env := w.write(t, 600), w.env()
	env["UPWELL_START_RATE"], env["UPWELL_MAX_RATE"], env["UPWELL_SLOTS"] = "40", "40", "32"
	b := launch(t, testcontainers.ContainerRequest{Env: env, Cmd: []string{"run", "/in/" + runName + ".jsonl", "-o", "/out"}},
		func(h *container.HostConfig) { h.Binds = []string{input + ":/in:ro", dir + ":/out"} })
	eventually(t, "it to say that the disk is full", func() bool { return strings.Contains(b.log.String(), "no space left") })
	<-time.After(20 * time.Second)
	billed := w.Mantle.Counts().Billed
	<-time.After(10 * time.Second)
	if n := w.Mantle.Counts().Billed; n != billed || n >= int64(len(w.names)) {
		t.Errorf("%d calls, and then %d, of %d jobs on a full disk, want none to be made whose answer cannot be stored", billed, n, len(w.names))
	}
	if err := syscall.Mount("", dir, "tmpfs", syscall.MS_REMOUNT, "size=64m"); err != nil {
		t.Fatal(err)
	}
	if code := b.exits(t); code != 0 {
		t.Errorf("with room it ends with %d, want 0: %s", code, tail(b.log.String()))
	}
	w.dir = filepath.Join(dir, "s3", "upwell")
	w.balance(t, fmt.Sprintf("full at 1 MiB, after %d calls, for half a minute", billed), 0)
}
