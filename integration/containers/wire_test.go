package containers

import (
	"context"
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// hostName is what containers call the machine that the engine runs on.
const hostName = "upwell.test"

// A wire is a network between workers and one service, which can be cut.
type wire struct {
	t       *testing.T
	to      string // address of the service
	at      string // own address
	l       net.Listener
	serving sync.WaitGroup

	mu    sync.Mutex
	mode  mode
	conns map[*link]struct{}
	hit   int // connections that were reset, or fell silent
}

// mode is how a wire is.
type mode int

const (
	whole  mode = iota
	cut         // connections are reset, and new ones refused
	silent      // nothing passes, and nobody is told
)

// A link is one connection through a wire: its two ends.
type link struct {
	near, far net.Conn
	dead      chan struct{} // closed when nothing passes any more, though both ends stay open
}

// newWire returns a wire to an address of this machine.
func newWire(t *testing.T, to string) *wire {
	t.Helper()
	w := &wire{t: t, to: to, at: "0.0.0.0:0", conns: make(map[*link]struct{})}
	w.listen()
	t.Cleanup(func() {
		w.set(cut)
		w.serving.Wait()
	})
	return w
}

// listen takes connections, from now on.
func (w *wire) listen() {
	l, err := net.Listen("tcp4", w.at) //nolint:noctx // at an address of this machine
	for deadline := time.Now().Add(patience); err != nil && time.Now().Before(deadline); {
		time.Sleep(100 * time.Millisecond) // somebody's connection goes out from that port for now
		l, err = net.Listen("tcp4", w.at)  //nolint:noctx // likewise
	}
	if err != nil {
		w.t.Errorf("a wire cannot be mended: %v", err)
		return
	}
	w.l, w.at = l, l.Addr().String()
	w.serving.Go(func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			w.serving.Go(func() { w.carry(near) })
		}
	})
}

// address is where containers find it.
func (w *wire) address() string {
	_, port, _ := net.SplitHostPort(w.at) // it is one
	return net.JoinHostPort(hostName, port)
}

// set changes how the wire is. What was silent stays so for connections that were
// open then: whoever kept track of them has forgotten them.
func (w *wire) set(m mode) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case m == cut:
		_ = w.l.Close()
	case w.mode == cut:
		w.listen()
	}
	w.mode = m
	for c := range w.conns {
		switch {
		case m == cut:
			w.hit++
			c.reset()
		case m == silent && !c.silenced():
			w.hit++
			close(c.dead)
		}
	}
}

// cutFor makes the wire so for a while.
func (w *wire) cutFor(ctx context.Context, m mode, d time.Duration) {
	w.set(m)
	defer w.set(whole)
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// hits counts the connections that were reset, or fell silent.
func (w *wire) hits() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.hit
}

// carry passes what a connection says, until either end hangs up.
func (w *wire) carry(near net.Conn) {
	defer near.Close()
	c := &link{near: near, dead: make(chan struct{})}
	far, err := net.Dial("tcp", w.to) //nolint:noctx // to this machine
	if err != nil {
		return
	}
	defer far.Close()
	c.far = far
	w.mu.Lock()
	switch w.mode {
	case cut:
		c.reset()
	case silent:
		close(c.dead)
	case whole:
	}
	w.conns[c] = struct{}{}
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		delete(w.conns, c)
		w.mu.Unlock()
	}()
	var both sync.WaitGroup
	both.Go(func() { c.pass(far, near) })
	both.Go(func() { c.pass(near, far) })
	both.Wait()
}

// pass copies from one end to the other, and swallows what comes when the link is dead.
func (c *link) pass(to, from net.Conn) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if c.silenced() {
			_, _ = io.Copy(io.Discard, from) // until it gives up
			return
		}
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				_ = from.Close()
				return
			}
		}
		if err != nil {
			_ = to.Close()
			return
		}
	}
}

func (c *link) silenced() bool {
	select {
	case <-c.dead:
		return true
	default:
		return false
	}
}

// reset ends both ends at once, without a goodbye.
func (c *link) reset() {
	for _, end := range []net.Conn{c.near, c.far} {
		if t, ok := end.(*net.TCPConn); ok {
			_ = t.SetLinger(0)
		}
		_ = end.Close()
	}
}
