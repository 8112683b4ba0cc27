package mantle_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"upwell/jobs"
	"upwell/worker"
	"upwell/worker/mantle"
)

// sized makes a job whose body is about n bytes of prose with line breaks.
func sized(tb testing.TB, n int) worker.Call {
	tb.Helper()
	const words = `The party of the first part shall \"indemnify\" the other.\n`
	cl := call(tb, jobs.Responses, `{"model":"xai.grok-4.3","input":"`+strings.Repeat(words, n/len(words)+1)+`"}`)
	cl.Lane.Tier = "flex"
	return cl
}

func heap() uint64 {
	runtime.GC()
	runtime.GC() // what the first one put into pools' victim lists
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// Nothing of the body's size is held while its answer is waited for, although
// defaults have been put into it.
func TestNoCopyOfTheBodyIsHeld(t *testing.T) {
	const calls, size = 24, 2 << 20
	for name, cfg := range map[string]mantle.Config{
		"bearer": {APIKey: "k"},
		"minted": {AWS: static("AKIA"), Credentials: mantle.ShortTerm, Regions: []string{"us-west-2"}},
		"signed": {AWS: static("AKIA"), Credentials: mantle.SigV4, Regions: []string{"us-west-2"}},
	} {
		t.Run(name, func(t *testing.T) {
			var inside sync.WaitGroup
			inside.Add(calls)
			leave := make(chan struct{})
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
				n, _ := io.Copy(io.Discard, req.Body)
				if n < size {
					t.Errorf("received %d bytes, want all", n)
				}
				inside.Done()
				<-leave
				_, _ = io.WriteString(w, said)
			}))
			defer srv.Close()
			cfg.BaseURL = srv.URL + "/v1"
			c := newClient(t, cfg)
			cl := sized(t, size)
			before := heap()
			var wg sync.WaitGroup
			for range calls {
				wg.Go(func() {
					if _, err := c.Complete(t.Context(), cl); err != nil {
						t.Errorf("Complete = %v, want nil", err)
					}
				})
			}
			inside.Wait()
			held := int64(heap()) - int64(before)
			close(leave)
			wg.Wait()
			// A connection has buffers of some 50 KB on its two ends together.
			if each := held / calls; each > 100<<10 {
				t.Errorf("a call in flight holds %d bytes beside its body of %d, want at most 100 KiB", each, size)
			}
			t.Logf("a call in flight holds %d bytes beside its body of %d", held/calls, size)
		})
	}
}

func TestServe(t *testing.T) {
	if os.Getenv("MANTLE_TEST_SERVE") == "" {
		t.Skip("the other end of BenchmarkCPU")
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		_, _ = io.Copy(io.Discard, req.Body)
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, said)
	}))
	defer srv.Close()
	fmt.Println(srv.URL)
	_, _ = io.Copy(io.Discard, os.Stdin) // until the benchmark is over
}

// serve starts a server in another process, so that its time is not ours.
func serve(b *testing.B) (url string) {
	b.Helper()
	cmd := exec.CommandContext(b.Context(), os.Args[0], "-test.run=^TestServe$")
	cmd.Env = append(os.Environ(), "MANTLE_TEST_SERVE=1")
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = in.Close(); _ = cmd.Wait() })
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}
	return strings.TrimSpace(line) + "/v1"
}

func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkCPU reports the client's CPU time of a call, beside that of a plain
// POST which reads its answer and does nothing with it.
func BenchmarkCPU(b *testing.B) {
	url := serve(b)
	for _, size := range []int{2 << 10, 250 << 10} {
		cl := sized(b, size)
		for name, cfg := range map[string]mantle.Config{
			"bearer": {APIKey: "k"},
			"sigv4":  {AWS: static("AKIA"), Credentials: mantle.SigV4, Regions: []string{"us-west-2"}},
		} {
			cfg.BaseURL = url
			c := newClient(b, cfg)
			b.Run(fmt.Sprintf("%s/%dKB", name, size>>10), func(b *testing.B) {
				inParallel(b, func() error {
					_ = c.Cost(cl)
					_, err := c.Complete(b.Context(), cl)
					return err
				})
			})
		}
		tr := http.DefaultTransport.(*http.Transport).Clone()
		tr.MaxIdleConns, tr.MaxIdleConnsPerHost = 0, 256
		b.Run(fmt.Sprintf("plain/%dKB", size>>10), func(b *testing.B) {
			inParallel(b, func() error {
				req, err := http.NewRequestWithContext(b.Context(), http.MethodPost, url+"/responses", bytes.NewReader(cl.Job.Body))
				if err != nil {
					return err
				}
				req.Header.Set("Authorization", "Bearer k")
				res, err := tr.RoundTrip(req)
				if err != nil {
					return err
				}
				defer res.Body.Close()
				_, err = io.ReadAll(res.Body)
				return err
			})
		})
	}
}

func inParallel(b *testing.B, do func() error) {
	b.Helper()
	b.ReportAllocs()
	b.SetParallelism(32)
	start := cpu()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := do(); err != nil {
				b.Error(err)
			}
		}
	})
	b.ReportMetric(float64((cpu()-start).Microseconds())/float64(b.N), "cpu-µs/op")
}

func BenchmarkCost(b *testing.B) {
	for _, size := range []int{2 << 10, 250 << 10} {
		b.Run(fmt.Sprintf("%dKB", size>>10), func(b *testing.B) {
			c, cl := newClient(b, mantle.Config{}), sized(b, size)
			b.ReportAllocs()
			for b.Loop() {
				_ = c.Cost(cl)
			}
		})
	}
}

// BenchmarkComplete is a call without a network.
func BenchmarkComplete(b *testing.B) {
	for name, upwell := range map[string]string{"text": `{}`, "schema": `{"schema":` + shape + `}`} {
		b.Run(name, func(b *testing.B) {
			c := newClient(b, mantle.Config{HTTPClient: always(200, message(`{"n":1}`))})
			cl := call(b, jobs.Responses, `{"model":"xai.grok-4.3","input":"`+strings.Repeat("word ", 400)+`"}`, upwell)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.Complete(b.Context(), cl); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
