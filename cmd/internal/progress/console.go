package progress

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"time"

	"golang.org/x/term"
)

// A Mode is how a Console shows progress.
type Mode int

// Modes.
const (
	Plain Mode = iota // a line now and then
	Block             // some lines that are drawn again in place, for terminals
	JSON              // a line now and then that is a JSON object
	Quiet             // not at all
)

const (
	// drawEvery is how often a block is drawn: what a person can follow.
	drawEvery = 500 * time.Millisecond

	// lineEvery is how often a line is written.
	lineEvery = 10 * time.Second

	// partialMost is how much of a line is held until the rest of it is written, in
	// bytes.
	partialMost = 64 << 10
)

// A Console is a file, mostly standard error, that log lines and progress share. What
// is written to it while a block is shown comes to stand above that.
//
// The cursor is always at the beginning of the line beneath the block. So whatever ends
// the program leaves a clean screen and the last state on it, and what the terminal
// itself writes, as it does on Ctrl-C, is in nobody's way. Its methods may be called
// concurrently.
type Console struct {
	Out    io.Writer
	Mode   Mode
	Size   func() (width, height int) // of the terminal, in characters; nil: 80 by 24
	Colour bool

	mu      sync.Mutex
	block   []string // as drawn
	lengths []int    // of its lines, in characters
	partial []byte   // the end of what was written, whose line is not over
}

// NewConsole returns the Console that w is, or else one over it. terminal says that w
// is one: of a terminal that does not move its cursor, with the TERM dumb, only lines are
// asked, and with NO_COLOR no colours.
func NewConsole(w io.Writer, terminal bool, getenv func(string) string) *Console {
	if c, ok := w.(*Console); ok {
		return c
	}
	c := &Console{Out: w}
	if kind := getenv("TERM"); !terminal || kind == "dumb" {
		return c
	}
	c.Mode, c.Colour = Block, getenv("NO_COLOR") == ""
	if f, ok := w.(interface{ Fd() uintptr }); ok {
		c.Size = func() (int, int) {
			width, height, err := term.GetSize(int(f.Fd()))
			if err != nil || width <= 0 || height <= 0 {
				return 80, 24
			}
			return width, height
		}
	}
	return c
}

// Shows returns a Console over the same file that shows progress otherwise. It must not
// be used while a block is shown.
func (c *Console) Shows(m Mode) *Console {
	return &Console{Out: c, Mode: m, Size: c.Size, Colour: c.Colour}
}

// Write writes above the block, if one is shown, and line by line then.
func (c *Console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.block) == 0 {
		return c.Out.Write(p)
	}
	end := bytes.LastIndexByte(p, '\n') + 1
	if end == 0 && len(c.partial)+len(p) < partialMost {
		c.partial = append(c.partial, p...)
		return len(p), nil
	}
	if end == 0 {
		end = len(p)
	}
	var b bytes.Buffer
	c.clear(&b)
	b.Write(c.partial)
	b.Write(p[:end])
	if b.Bytes()[b.Len()-1] != '\n' {
		b.WriteByte('\n')
	}
	c.partial = append(c.partial[:0], p[end:]...)
	c.write(&b)
	if _, err := c.Out.Write(b.Bytes()); err != nil {
		return 0, err
	}
	return len(p), nil
}

// clear writes what removes the block. c.mu must be held.
func (c *Console) clear(b *bytes.Buffer) {
	c.home(b)
	b.WriteString("\x1b[J")
}

// home writes what brings the cursor to the beginning of the block. A terminal that has
// become narrower has broken its lines. c.mu must be held.
func (c *Console) home(b *bytes.Buffer) {
	width, _ := c.size()
	up := 0
	for _, n := range c.lengths {
		up += max(1, (n+width-1)/width)
	}
	if b.WriteByte('\r'); up > 0 {
		fmt.Fprintf(b, "\x1b[%dA", up)
	}
}

// write writes the block at the cursor. c.mu must be held.
func (c *Console) write(b *bytes.Buffer) {
	for _, line := range c.block {
		b.WriteString(line)
		b.WriteString("\x1b[K\r\n")
	}
	b.WriteString("\x1b[J")
}

func (c *Console) size() (width, height int) {
	if c.Size == nil {
		return 80, 24
	}
	return c.Size()
}

// draw shows the rows that of returns for a width, in place of those before.
func (c *Console) draw(of func(width int) []row) {
	c.mu.Lock()
	defer c.mu.Unlock()
	width, height := c.size()
	rows := of(width - 1) // a line that is full puts some terminals' cursors into doubt
	if most := max(height-1, 1); len(rows) > most {
		rows = rows[:most] // beyond, the cursor does not go up
	}
	var b bytes.Buffer
	c.home(&b)
	c.block, c.lengths = c.block[:0], c.lengths[:0]
	for _, r := range rows {
		r = r.clip(width - 1)
		c.block, c.lengths = append(c.block, r.render(c.Colour)), append(c.lengths, r.width())
	}
	c.write(&b)
	_, _ = c.Out.Write(b.Bytes()) // nobody can be told
}

// end ends the block, which stays as it is.
func (c *Console) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.block) == 0 && len(c.partial) == 0 {
		return
	}
	// What the terminal itself has written at the cursor, such as ^C, is no news.
	_, _ = c.Out.Write(append([]byte("\r\x1b[J"), c.partial...)) // nobody can be told
	c.block, c.lengths, c.partial = nil, nil, nil
}

// A Sheet is a bar and a table.
type Sheet struct {
	Title       string
	Done, Total int64  // of the bar; there is none if Total is 0
	Next        string // what comes after the bar, such as an ETA
	Rows        []Row
}

// Draw shows the sheet in place of the one before. It is for terminals.
func (c *Console) Draw(s Sheet) {
	c.draw(func(width int) []row {
		rows := []row{{styled(bold, tidy(s.Title))}}
		if s.Total > 0 {
			rows = append(rows, head(width, s.Done, s.Total, fmt.Sprintf("%d/%d", s.Done, s.Total), s.Next))
		}
		longest := 0
		for _, r := range s.Rows {
			longest = max(longest, text(r.Name).width())
		}
		for _, r := range s.Rows {
			rows = append(rows, row{styled(faint, fmt.Sprintf("  %-*s  ", longest, tidy(r.Name))), text(tidy(r.Value))})
		}
		return rows
	})
}

// Say shows a line on a terminal, and nothing elsewhere, until the function that it
// returns is called.
func (c *Console) Say(what func() string) (stop func()) {
	if c.Mode != Block {
		return func() {}
	}
	return c.showing(saying(what))
}

// showing shows the view until the function that it returns is called.
func (c *Console) showing(v view) (stop func()) {
	done := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() { c.show(done, v, 0) })
	return func() { close(done); running.Wait() }
}

// A saying is a line.
type saying func() string

func (s saying) rows(int) []row       { return []row{{text(tidy(s()))}} }
func (s saying) last(int) []row       { return nil }
func (s saying) line() string         { return s() }
func (s saying) facts() any           { return s() }
func (s saying) begin() time.Duration { return 0 }

// End leaves the last block on the screen, as it is.
func (c *Console) End() { c.end() }

// A view is what a Console shows.
type view interface {
	rows(width int) []row
	line() string
	facts() any                 // as JSON
	last(width int) []row       // what stays in the end, or nothing
	begin() (ago time.Duration) // since it began
}

// show shows the view until done is closed. every is the time between lines, if not 0.
func (c *Console) show(done <-chan struct{}, v view, every time.Duration) {
	switch {
	case c.Mode == Block:
		every = drawEvery
	case every == 0:
		every = lineEvery
	}
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		switch {
		case c.Mode == Block:
			c.draw(v.rows)
		case v.begin() < every: // nothing to be seen yet
		case c.Mode == Plain:
			fmt.Fprintln(c.Out, v.line())
		case c.Mode == JSON:
			_ = json.NewEncoder(c.Out).Encode(v.facts())
		}
		select {
		case <-t.C:
		case <-done:
			if c.Mode == Block {
				c.draw(v.last)
				c.end()
			}
			return
		}
	}
}
