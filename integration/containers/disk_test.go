package containers

import (
	"fmt"
	"path/filepath"
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
	const places = 32
	env["UPWELL_START_RATE"], env["UPWELL_MAX_RATE"], env["UPWELL_SLOTS"] = "40", "40", fmt.Sprint(places)
	b := launch(t, testcontainers.ContainerRequest{Env: env, Cmd: []string{"run", "/in/" + runName + ".jsonl", "-o", "/out"}},
		func(h *container.HostConfig) { h.Binds = []string{input + ":/in:ro", dir + ":/out"} })
	b.says(t, "no space left")
	// The calls that it has room for the answers of may still be made. Whatever else it
	// would make keeps it from ever being quiet, or is too many.
	var calls, billed int64
	quiet := time.Now()
	eventually(t, "no call to be made for ten seconds", func() bool {
		n := w.Mantle.Counts()
		if n.Calls != calls || n.InFlight > 0 {
			calls, quiet = n.Calls, time.Now()
		}
		billed = n.Billed
		return time.Since(quiet) > 10*time.Second
	})
	w.dir = filepath.Join(dir, "s3", "upwell")
	if n := w.settled(); billed > int64(n+room(places)) || billed >= int64(len(w.names)) {
		t.Errorf("%d calls of %d jobs, and %d results on a full disk, want none to be made whose answer cannot be stored, beyond the %d that there is room for", billed, len(w.names), n, room(places))
	}
	if err := syscall.Mount("", dir, "tmpfs", syscall.MS_REMOUNT, "size=64m"); err != nil {
		t.Fatal(err)
	}
	if code := b.exits(t); code != 0 {
		t.Errorf("with room it ends with %d, want 0: %s", code, tail(b.log.String()))
	}
	w.balance(t, fmt.Sprintf("full at 1 MiB, after %d calls", billed), 0)
}
