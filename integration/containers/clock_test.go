package containers

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
)

// A clock is the wall clock of a container's process. Containers have none of their
// own, so the process is deceived: Linux tells the time by a function that it maps into
// each process, the vDSO, and there the first instruction is made to jump to one that
// adds an offset. The monotonic clock stays as it is, as it does when somebody sets a
// clock.
type clock struct {
	pid    int
	offset int64 // address of the offset, in the process's memory
}

// shift is the function's replacement: clock_gettime by the system call, and the
// offset added if it is the wall clock (0) that was asked for.
var shift = []byte{
	0xb8, 0xe4, 0x00, 0x00, 0x00, // mov  eax, 228
	0x0f, 0x05, //                   syscall
	0x85, 0xff, //                   test edi, edi
	0x75, 0x0d, //                   jne  ret
	0x48, 0xb9, 0, 0, 0, 0, 0, 0, 0, 0, // mov rcx, seconds
	0x48, 0x01, 0x0e, //             add  [rsi], rcx
	0xc3, //                         ret
}

const secondsAt = 13 // in shift

// newClock takes over the clock of a container. It needs root and amd64.
func newClock(t *testing.T, b *box) *clock {
	t.Helper()
	if runtime.GOOS != "linux" || runtime.GOARCH != "amd64" {
		t.Skip("clocks are moved by code for Linux on amd64")
	}
	state, err := b.State(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c := &clock{pid: state.Pid}
	start, image := c.vdso(t)
	f, err := elf.NewFile(bytes.NewReader(image))
	if err != nil {
		t.Fatal(err)
	}
	symbols, err := f.DynamicSymbols()
	if err != nil {
		t.Fatal(err)
	}
	var entry uint64
	for _, s := range symbols {
		if s.Name == "__vdso_clock_gettime" {
			entry = s.Value
		}
	}
	free := len(image) - 64
	if entry == 0 || len(bytes.Trim(image[free:], "\x00")) != 0 {
		t.Fatalf("the vDSO has clock_gettime at %#x and %d bytes, want the function, and room at the end", entry, len(image))
	}
	c.offset = start + int64(free) + secondsAt
	c.write(t, start+int64(free), shift)
	// A thread that is past the first instruction goes on in the old code. None is likely
	// to be within it while all are frozen.
	b.freeze(t)
	jump := binary.LittleEndian.AppendUint32([]byte{0xe9}, uint32(int32(free-int(entry)-5)))
	c.write(t, start+int64(entry), jump)
	b.thaw(t)
	return c
}

// set moves the clock to that far from the true one.
func (c *clock) set(t *testing.T, d time.Duration) {
	t.Helper()
	c.write(t, c.offset, binary.LittleEndian.AppendUint64(nil, uint64(int64(d/time.Second))))
}

// vdso returns where the vDSO is, and what is in it.
func (c *clock) vdso(t *testing.T) (start int64, image []byte) {
	t.Helper()
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", c.pid))
	if err != nil {
		t.Fatal(err)
	}
	for l := range strings.Lines(string(maps)) {
		var end int64
		if !strings.Contains(l, "[vdso]") {
			continue
		}
		if _, err := fmt.Sscanf(l, "%x-%x", &start, &end); err != nil {
			t.Fatal(err)
		}
		image = make([]byte, end-start)
		f, err := os.Open(fmt.Sprintf("/proc/%d/mem", c.pid))
		if err == nil {
			defer f.Close()
			_, err = f.ReadAt(image, start)
		}
		if err != nil {
			t.Fatal(err)
		}
		return start, image
	}
	t.Fatalf("process %d has no vDSO", c.pid)
	return 0, nil
}

func (c *clock) write(t *testing.T, at int64, data []byte) {
	t.Helper()
	f, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", c.pid), os.O_WRONLY, 0)
	if err == nil {
		defer f.Close()
		_, err = f.WriteAt(data, at)
	}
	if err != nil {
		t.Fatalf("the clock cannot be moved: %v", err)
	}
}
