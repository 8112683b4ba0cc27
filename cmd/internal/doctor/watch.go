package doctor

import (
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
)

const (
	// maxSkew is how far a clock may be off before AWS refuses signatures, and
	// sureSkew how far before it is worth a word.
	maxSkew  = 5 * time.Minute
	sureSkew = 30 * time.Second
)

// A watch compares the clocks of services with ours, by the Date of their answers.
type watch struct {
	mu    sync.Mutex
	ahead map[string]time.Duration // of ours, by host, from the latest answer
}

func newWatch() *watch { return &watch{ahead: make(map[string]time.Duration)} }

// see notes an answer to a request that was sent at that time.
func (w *watch) see(res *http.Response, sent time.Time) {
	theirs, err := http.ParseTime(res.Header.Get("Date"))
	if err != nil || res.Request == nil {
		return
	}
	// The date was written between then and now, and has no fraction of a second.
	middle := sent.Add(time.Since(sent) / 2)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ahead[res.Request.URL.Host] = middle.Sub(theirs.Add(time.Second / 2))
}

// skew returns how far our clock is ahead of most others', and how many there are.
func (w *watch) skew() (d time.Duration, hosts int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := make([]time.Duration, 0, len(w.ahead))
	for _, d := range w.ahead {
		all = append(all, d)
	}
	if len(all) == 0 {
		return 0, 0
	}
	slices.Sort(all)
	return all[len(all)/2], len(all)
}

// A watchedClient is an HTTP client of the AWS SDK under watch.
type watchedClient struct {
	inner aws.HTTPClient
	watch *watch
}

// Do implements aws.HTTPClient.
func (c watchedClient) Do(r *http.Request) (*http.Response, error) {
	sent := time.Now()
	res, err := c.inner.Do(r)
	if err == nil {
		if res.Request == nil {
			res.Request = r
		}
		c.watch.see(res, sent)
	}
	return res, err
}

// A witness is a transport under watch that remembers where its requests went.
type witness struct {
	inner http.RoundTripper
	watch *watch

	mu    sync.Mutex
	paths []string
}

// RoundTrip implements http.RoundTripper.
func (w *witness) RoundTrip(r *http.Request) (*http.Response, error) {
	w.mu.Lock()
	w.paths = append(w.paths, r.URL.Path)
	w.mu.Unlock()
	sent := time.Now()
	res, err := w.inner.RoundTrip(r)
	if err == nil {
		w.watch.see(res, sent)
	}
	return res, err
}

// went returns the paths of all requests so far.
func (w *witness) went() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.paths)
}

// clock says what the watch has seen.
func (x *exam) clock() {
	d, hosts := x.watch.skew()
	off := d.Abs().Round(time.Second)
	direction := "ahead of"
	if d < 0 {
		direction = "behind"
	}
	found := fmt.Sprintf("%s %s what the services say", duration(off), direction)
	switch {
	case hosts == 0:
		x.skip("no service answered", checkClock)
	case off > maxSkew:
		x.note(checkClock, Failure, found+": AWS refuses signatures that are 5m off",
			"set this machine's clock, and keep it set: timedatectl set-ntp true")
	case off > sureSkew:
		x.note(checkClock, Warning, found, "set this machine's clock before it is 5m off: timedatectl set-ntp true")
	case off < 2*time.Second:
		x.ok(checkClock, "agrees with the services")
	default:
		x.ok(checkClock, "%s", found)
	}
}
