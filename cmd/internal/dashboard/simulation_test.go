package dashboard_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"upwell/cmd/internal/budget"
	"upwell/cmd/internal/dashboard"
	"upwell/cmd/internal/progress"
	"upwell/jobs"
	"upwell/jobs/sqsqueue"
	"upwell/throttle"
	"upwell/worker"
	"upwell/worker/workertest"
)

// A recording is what a viewer was sent while a simulated run was watched, and the
// report at the end of it.
type recording struct {
	events  []string // server-sent events, as they were written: one a second, and an end
	ledger  workertest.Account
	stored  int
	failed  int
	report  []byte
	results map[jobs.Key]jobs.Result
}

// A plot is what happens in a simulated run.
type plot struct {
	jobs  int
	span  time.Duration // watched for so long, and ended as done then; the report is written at the end
	scale float64       // of the capacity; default 1
	model string
	name  func(i int) string
	fail  func(k jobs.Key) *worker.Error // what is wrong with a job, or nil
}

// capacity is the calls a second that an endpoint lets in, at a time since the
// beginning: it drops to a third in the fifth minute, and comes back in the eighth.
func capacity(region string, since time.Duration) float64 {
	c := map[string]float64{"us-west-2": 18, "us-east-1": 7}[region]
	if since > 5*time.Minute && since < 8*time.Minute {
		c /= 3
	}
	return c
}

// record has a real worker work in virtual time against doubles whose capacity it does
// not know, and a real dashboard watch it.
func record(t *testing.T, p plot) *recording {
	t.Helper()
	rec := &recording{}
	synctest.Test(t, func(t *testing.T) {
		tr := workertest.New(t)
		tr.Queue.Durable = nil
		var mu sync.Mutex
		room := make(map[string]float64)
		last := make(map[string]time.Time)
		began := time.Now()
		tr.Endpoint.Func = func(ctx context.Context, c worker.Call) (worker.Answer, error) {
			mu.Lock()
			now := time.Now()
			rate := capacity(c.Lane.Region, now.Sub(began)) * cmp.Or(p.scale, 1)
			at, ok := last[c.Lane.Region]
			if !ok {
				at, room[c.Lane.Region] = now, rate
			}
			left := min(room[c.Lane.Region]+now.Sub(at).Seconds()*rate, max(rate, 1))
			last[c.Lane.Region] = now
			if left < 1 {
				room[c.Lane.Region] = left
				mu.Unlock()
				return worker.Answer{}, workertest.Fail(worker.Throttled, 429, 0)
			}
			room[c.Lane.Region] = left - 1
			mu.Unlock()
			h := fnv.New32()
			fmt.Fprint(h, c.Job.Key, now.UnixNano())
			ans, err := workertest.After(time.Duration(800+h.Sum32()%1400)*time.Millisecond)(ctx, c)
			if err != nil {
				return ans, err
			}
			ans.Usage = jobs.Usage{InputTokens: 2400, CachedTokens: 1900, OutputTokens: 210, ReasoningTokens: 120}
			ans.CostUSD = 0.00071
			if p.fail != nil {
				if e := p.fail(c.Job.Key); e != nil {
					if e.Answer != nil {
						e.Answer = &ans
					}
					return worker.Answer{}, e
				}
			}
			return ans, nil
		}
		name, model := p.name, cmp.Or(p.model, "xai.grok-4.3")
		if name == nil {
			name = func(i int) string { return fmt.Sprintf("msa-%05d", i) }
		}
		for i := range p.jobs {
			tr.Queue.Send(jobs.Message{Body: line(t, name(i), model)})
		}
		m := progress.NewMeter()
		w, err := worker.New(tr.Queue, tr.Endpoint, tr.Sink, throttle.NewSet(nil), worker.Config{
			Regions: []string{"us-west-2", "us-east-1"}, Tiers: []string{"flex"}, Run: "contracts-q3", Slots: 64, Observe: m.Observe,
			Log: slog.New(slog.DiscardHandler), Drain: time.Minute,
		})
		if err != nil {
			t.Fatal(err)
		}
		d := dashboard.New(dashboard.Config{
			Meter: m, Verb: "run", Run: "contracts-q3", Version: "1.0.0", Loopback: true,
			Totals: func() *progress.Totals { return &progress.Totals{Jobs: int64(p.jobs)} },
			Queue: func() *sqsqueue.Counts {
				return &sqsqueue.Counts{Visible: tr.Queue.Visible(), Hidden: tr.Queue.Held()}
			},
			Budget: func() *budget.Status {
				c := m.Counts()
				return &budget.Status{LimitUSD: 12, SpentUSD: jobs.USD(c.Cost.USD), ReservedUSD: 0.25}
			},
		})
		ctx, stop := context.WithCancel(t.Context())
		var working, watching sync.WaitGroup
		working.Go(func() {
			if err := w.Run(ctx); err != nil {
				t.Errorf("Run = %v", err)
			}
		})
		out := &sheet{head: make(http.Header)}
		watching.Go(func() {
			r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "http://localhost/api/events", nil)
			d.Handler().ServeHTTP(out, r)
		})
		time.Sleep(p.span)
		stop()
		working.Wait()
		d.End("done")
		watching.Wait()
		var report bytes.Buffer
		if err := d.Report(&report); err != nil {
			t.Errorf("Report = %v", err)
		}
		rec.report = report.Bytes()
		rec.events = strings.SplitAfter(out.text.String(), "\n\n")
		rec.ledger, rec.stored, rec.failed = tr.Endpoint.Total(), len(tr.Sink.Results()), len(tr.Sink.Errors())
		rec.results = tr.Sink.Results()
		maps.Copy(rec.results, tr.Sink.Errors())
	})
	return rec
}

// returning is how many events bring the run to where the rate has begun to grow fast,
// some time after the capacity has come back: when, is the limiter's to say, which has
// to wait for a refusal that does not come.
func (rec *recording) returning(t *testing.T) (events int) {
	t.Helper()
	const back = 8 * 60
	i := slices.IndexFunc(rec.events[back:], func(e string) bool { return strings.Contains(e, `"bound":"ramp"}`) })
	if i < 0 {
		t.Fatal("the rate did not come up after the capacity was back")
	}
	return back + i + 1
}

// at is when the last of so many events was taken, as JavaScript has it in upwell.state.at.
// A page that says so has been through all of them.
func (rec *recording) at(t *testing.T, events int) string {
	t.Helper()
	_, data, _ := strings.Cut(rec.events[events-1], "\ndata: ")
	var m struct{ State struct{ At json.RawMessage } }
	if err := json.Unmarshal([]byte(data), &m); err != nil || m.State.At == nil {
		t.Fatalf("event %d is %.200q, %v, want one that says when it was taken", events, rec.events[events-1], err)
	}
	return string(m.State.At)
}

// line returns the body of a message.
func line(t *testing.T, id, model string) []byte {
	t.Helper()
	text, err := json.Marshal(map[string]any{
		"custom_id": id, "method": "POST", "url": jobs.Responses, "body": map[string]any{"model": model, "input": "…"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// A sheet is a response that is kept.
type sheet struct {
	head http.Header
	text bytes.Buffer
}

func (s *sheet) Header() http.Header         { return s.head }
func (s *sheet) WriteHeader(int)             {}
func (s *sheet) Write(p []byte) (int, error) { return s.text.Write(p) }
func (s *sheet) Flush()                      {}

// replay serves the page of a dashboard whose viewer is sent the recording at once: as
// many events as that, the rest when more is called, and beside them nothing new. Jobs are looked
// up among the recorded results.
func (rec *recording) replay(t *testing.T, first int) (url string, more func()) {
	t.Helper()
	d := dashboard.New(dashboard.Config{
		Meter: progress.NewMeter(), Loopback: true,
		Result: func(_ context.Context, k jobs.Key) (jobs.Result, bool, error) {
			r, ok := rec.results[k]
			return r, ok, nil
		},
	})
	rest := make(chan struct{})
	mux := http.NewServeMux()
	mux.Handle("/", d.Handler())
	mux.HandleFunc("GET /api/events", func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprint(rw, strings.Join(rec.events[:first], ""))
		http.NewResponseController(rw).Flush()
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		wait := rest
		for {
			select {
			case <-wait:
				fmt.Fprint(rw, strings.Join(rec.events[first:], ""))
				wait = nil
			case <-tick.C: // a page takes silence for a lost connection
				fmt.Fprint(rw, "event: change\ndata: {\"state\":{},\"tails\":{}}\n\n")
			case <-r.Context().Done():
				return
			}
			http.NewResponseController(rw).Flush()
		}
	})
	return serve(t, mux), sync.OnceFunc(func() { close(rest) })
}

// serve serves h on a loopback port, to a page that is patient and without hurry: on a
// machine that stands still for a while no connection is given up, by neither end.
func serve(t *testing.T, h http.Handler) (url string) {
	t.Helper()
	s := httptest.NewServer(patient(t, h))
	t.Cleanup(s.Close)
	t.Cleanup(s.CloseClientConnections) // streams outlast whoever reads them otherwise
	return s.URL
}

// patient has the page take ten minutes of silence for a lost connection, in the place
// of fifteen seconds, and has writes to it take as long as they do.
func patient(t *testing.T, h http.Handler) http.Handler {
	t.Helper()
	const silence = "upwell.silence = 15000;"
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/app.js" {
			h.ServeHTTP(timeless{rw}, r)
			return
		}
		r.Header.Del("If-None-Match")
		file := httptest.NewRecorder()
		h.ServeHTTP(file, r)
		text := file.Body.String()
		if file.Code == http.StatusOK && strings.Count(text, silence) != 1 {
			t.Errorf("app.js does not say %q once", silence)
		}
		maps.Copy(rw.Header(), file.Header())
		rw.Header().Del("Content-Length")
		rw.WriteHeader(file.Code)
		fmt.Fprint(rw, strings.Replace(text, silence, "upwell.silence = 600000;", 1))
	})
}

// A timeless is a response whose writes have no deadline.
type timeless struct{ http.ResponseWriter }

func (w timeless) Flush() { w.ResponseWriter.(http.Flusher).Flush() }

// mixed fails some jobs as a real run does.
func mixed(k jobs.Key) *worker.Error {
	h := fnv.New32()
	fmt.Fprint(h, k)
	some := new(worker.Answer)
	switch n := h.Sum32() % 1000; {
	case n < 3:
		return &worker.Error{Kind: worker.Permanent, Class: jobs.Refused, Status: 200, Answer: some, Err: errors.New("the model declined: it may not give legal advice on this clause")}
	case n < 5:
		return &worker.Error{Kind: worker.Permanent, Class: jobs.ContextLength, Status: 400, Err: errors.New("the prompt has 281,004 tokens, and the model takes 262,144")}
	case n < 6:
		return &worker.Error{Kind: worker.Permanent, Class: jobs.SchemaFailed, Status: 200, Answer: some, Err: errors.New("against the schema: /risk: value must be one of none, low, medium, high")}
	}
	return nil
}
