package progress

import (
	"fmt"
	"strings"
	"sync"
	"time"
)

// A Step is how far a Task is.
type Step struct {
	What        string // what it does at the moment, such as "reading ids": when that changes, its rate is another
	Unit        string // what is counted, such as "jobs"
	Done, Total int64  // Total is 0 when nobody knows
	More        string // what else there is to be said, or nothing
}

// A Task shows how far some work is that this process does by itself: with a bar, a rate
// and an ETA. Its methods may be called concurrently.
type Task struct {
	now func() Step

	mu    sync.Mutex
	start time.Time
	what  string
	pace  *Pace
}

// NewTask returns the Task that now tells about. now may be called at any time.
func NewTask(now func() Step) *Task {
	s := now()
	return &Task{now: now, start: time.Now(), what: s.What, pace: NewPace(time.Now(), s.Done)}
}

// Show shows the task until the function that it returns is called, after which nothing
// of it is to be seen on a terminal.
func (t *Task) Show(c *Console) (stop func()) {
	if c.Mode == Quiet {
		return func() {}
	}
	done := make(chan struct{})
	var showing sync.WaitGroup
	showing.Go(func() { c.show(done, t, 0) })
	if c.Mode != Block { // which looks as often by itself
		showing.Go(func() { t.watch(done) })
	}
	return func() { close(done); showing.Wait() }
}

// watch looks at the task until done is closed, so that its pace is known.
func (t *Task) watch(done <-chan struct{}) {
	tick := time.NewTicker(drawEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			t.Facts()
		case <-done:
			return
		}
	}
}

// TaskFacts are what a Task shows, in JSON.
type TaskFacts struct {
	At      time.Time `json:"at"`
	Seconds float64   `json:"seconds"` // since it began
	What    string    `json:"what"`
	Unit    string    `json:"unit"`
	Done    int64     `json:"done"`
	Total   int64     `json:"total,omitzero"`
	More    string    `json:"more,omitzero"`
	Rate    float64   `json:"rate"` // units a second of late
	ETA     *ETA      `json:"eta,omitempty"`
}

// Facts returns how far it is.
func (t *Task) Facts() TaskFacts {
	t.mu.Lock()
	defer t.mu.Unlock()
	s, at := t.now(), time.Now()
	if s.What != t.what {
		t.what, t.pace = s.What, NewPace(at, s.Done)
	}
	t.pace.Look(at, s.Done)
	return TaskFacts{
		At: at.UTC(), Seconds: at.Sub(t.start).Seconds(), What: s.What, Unit: s.Unit, Done: s.Done, Total: s.Total, More: s.More,
		Rate: t.pace.PerSecond(), ETA: t.pace.ETA(s.Total - s.Done),
	}
}

func (t *Task) last(int) []row       { return nil }
func (t *Task) begin() time.Duration { return time.Since(t.start) }
func (t *Task) facts() any           { return t.Facts() }

func (t *Task) rows(width int) []row {
	f := t.Facts()
	return f.block(width)
}

func (t *Task) line() string {
	f := t.Facts()
	parts := []string{f.What + ": " + f.count()}
	if f.Total > 0 {
		parts[0] += fmt.Sprintf(" (%d%%)", 100*f.Done/f.Total)
	}
	parts = append(parts, f.rest()...)
	if f.Total > f.Done {
		parts = append(parts, f.ETA.String())
	}
	return tidy(strings.Join(parts, " · "))
}

// count words how much is done.
func (f *TaskFacts) count() string {
	if f.Total > 0 {
		return fmt.Sprintf("%d/%d %s", f.Done, f.Total, f.Unit)
	}
	return fmt.Sprintf("%d %s", f.Done, f.Unit)
}

// rest words its pace, and what else there is to be said.
func (f *TaskFacts) rest() []string {
	parts := []string{strings.TrimSuffix(rate(f.Rate), "/s") + " " + f.Unit + "/s"}
	if f.More != "" {
		parts = append(parts, f.More)
	}
	return parts
}

// block words the facts for a terminal.
func (f *TaskFacts) block(width int) []row {
	second := row{text(tidy(f.What))}
	for _, s := range f.rest() {
		second = second.add(styled(faint, " · "), text(tidy(s)))
	}
	if f.Total == 0 {
		return []row{{styled(bold, fmt.Sprintf("%d %s", f.Done, f.Unit))}, second}
	}
	end := ""
	if f.Total > f.Done {
		end = f.ETA.String()
	}
	return []row{head(width, f.Done, f.Total, f.count(), end), second}
}
