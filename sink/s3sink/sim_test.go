package s3sink_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"upwell/jobs"
	"upwell/sink"
	"upwell/sink/s3sink"
	"upwell/sink/s3sink/s3sim"
)

// TestOverTheWire stores a run through signed requests over TCP, plain and
// with TLS, at one request for each result.
func TestOverTheWire(t *testing.T) {
	for name, serve := range map[string]func(http.Handler) *httptest.Server{
		"http": httptest.NewServer, "https": httptest.NewTLSServer,
	} {
		t.Run(name, func(t *testing.T) {
			sim := newSim(t, nil)
			srv := serve(sim)
			defer srv.Close()
			s := newBucket(t, srv.URL, srv.Client())
			store(t, s, 100)
			account(t, s, 100)
			if puts := sim.Stats()["PutObject"]; puts != 100 {
				t.Errorf("%d requests for 100 results: the first try is refused", puts)
			}
		})
	}
}

// TestARoughRide stores a run in a bucket that loses every fifth answer and
// refuses each tenth request in two ways.
func TestARoughRide(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n atomic.Int64
		sim := newSim(t, func(op, _, _ string) s3sim.Fault {
			if op != "PutObject" {
				return s3sim.Fault{}
			}
			switch n.Add(1) % 10 {
			case 1, 6:
				return s3sim.Fault{Apply: true, Drop: true}
			case 3:
				return s3sim.Fault{Apply: true, Status: 500, Code: "InternalError"}
			case 8:
				return s3sim.Fault{Status: 409, Code: "ConditionalRequestConflict"}
			}
			return s3sim.Fault{}
		})
		s := newBucket(t, "http://s3.test", &http.Client{Transport: inProcess{sim}})
		store(t, s, 100)
		account(t, s, 100)
	})
}

// inProcess takes requests to a handler without a network, so that it can be
// used in a bubble.
type inProcess struct{ http.Handler }

func (p inProcess) RoundTrip(r *http.Request) (res *http.Response, err error) {
	defer func() {
		if v := recover(); v == http.ErrAbortHandler {
			err = io.ErrUnexpectedEOF
		} else if v != nil {
			panic(v)
		}
	}()
	in := r.Clone(r.Context())
	in.Host, in.RequestURI, in.RemoteAddr = r.URL.Host, r.URL.RequestURI(), "test"
	if in.Body == nil {
		in.Body = http.NoBody
	}
	w := httptest.NewRecorder()
	p.ServeHTTP(w, in)
	return w.Result(), nil
}

func newSim(t *testing.T, fault func(op, bucket, key string) s3sim.Fault) *s3sim.Server {
	t.Helper()
	sim, err := s3sim.New(s3sim.Config{Dir: t.TempDir(), Keys: map[string]string{"AKID": "secret"}, Fault: fault})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sim.Close() })
	return sim
}

// newBucket returns a sink in a new bucket of a server.
func newBucket(t *testing.T, url string, hc *http.Client) *s3sink.Sink {
	t.Helper()
	client := s3sink.NewClient(aws.Config{
		Region: "us-west-2", BaseEndpoint: &url, HTTPClient: hc,
		Credentials: credentials.NewStaticCredentialsProvider("AKID", "secret", ""),
	})
	s := s3sink.New(client, bucket, "team a+b")
	if err := s.Check(t.Context()); err == nil {
		t.Error("Check = nil before there is a bucket, want an error")
	}
	if _, err := client.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: new(bucket)}); err != nil {
		t.Fatal(err)
	}
	if err := s.Check(t.Context()); err != nil {
		t.Errorf("Check = %v, want nil", err)
	}
	return s
}

func id(i int) string { return fmt.Sprintf("contracts/%d é+&.pdf", i) }

// store puts n results, eight at a time.
func store(t *testing.T, s *s3sink.Sink, n int) {
	t.Helper()
	var next atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := next.Add(1); i <= int64(n); i = next.Add(1) {
				k := jobs.Key{Run: "q3", CustomID: id(int(i))}
				r := result(k.CustomID)
				r.CustomID = k.CustomID
				if stored, err := s.Put(t.Context(), k, r); !stored || err != nil {
					t.Errorf("Put %v = %v, %v, want true, nil", k, stored, err)
				}
			}
		})
	}
	wg.Wait()
}

// account checks that the run has n results, one for each job.
func account(t *testing.T, s *s3sink.Sink, n int) {
	t.Helper()
	missing := map[string]bool{}
	for i := range n {
		missing[id(i+1)] = true
	}
	for o, err := range s.List(t.Context(), "q3", sink.Results) {
		if err != nil {
			t.Fatal(err)
		}
		r, err := s.ReadObject(t.Context(), o)
		if err != nil || r.CustomID != o.Key.CustomID || !missing[r.CustomID] {
			t.Errorf("%v is %v, %v", o, r, err)
		}
		delete(missing, r.CustomID)
		if has, err := s.Has(t.Context(), o.Key); !has || err != nil {
			t.Errorf("Has(%v) = %v, %v, want true, nil", o.Key, has, err)
		}
	}
	if len(missing) > 0 {
		t.Errorf("%d of %d results are missing", len(missing), n)
	}
}
