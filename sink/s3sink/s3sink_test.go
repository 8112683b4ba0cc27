package s3sink_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/google/go-cmp/cmp"

	"upwell/jobs"
	"upwell/sink"
	"upwell/sink/s3sink"
	"upwell/worker"
)

var _ worker.Sink = (*s3sink.Sink)(nil)

var job = jobs.Key{Run: "q3", CustomID: "contracts/msa 42+é.pdf"}

func result(text string) jobs.Result {
	return jobs.Result{
		ID: job.RequestID(), CustomID: job.CustomID,
		Response: &jobs.Response{StatusCode: 200, RequestID: "r", Body: json.RawMessage(`{"output_text":"` + text + `"}`)},
		Upwell:   jobs.Record{Run: job.Run, OutputText: text, Model: "xai.grok-4.3"},
	}
}

func put(t *testing.T, s *s3sink.Sink, r jobs.Result, want bool) {
	t.Helper()
	if stored, err := s.Put(t.Context(), job, r); stored != want || err != nil {
		t.Errorf("Put = %v, %v, want %v, nil", stored, err, want)
	}
}

func holds(t *testing.T, s *s3sink.Sink, kind sink.Kind, want jobs.Result) {
	t.Helper()
	got, err := s.Read(t.Context(), kind, job)
	if err != nil {
		t.Error(err)
	} else if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("stored (-want +got):\n%s", diff)
	}
}

func TestTheFirstResultStays(t *testing.T) {
	f := newFake(t)
	s := f.sink()
	put(t, s, result("one"), true)
	put(t, s, result("two"), false)
	put(t, s, result("one"), true) // it is the same one
	if got, want := f.log(), "PUT PUT HEAD PUT HEAD"; got != want {
		t.Errorf("requests: %s, want %s", got, want)
	}
	holds(t, s, sink.Results, result("one"))
	if key := sink.Results.Key("team", job); f.objects[key] == nil {
		t.Errorf("nothing at %s", key)
	}
}

func TestOneOfManyWritersWins(t *testing.T) {
	f := newFake(t)
	s := f.sink()
	var won atomic.Int32
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			stored, err := s.Put(t.Context(), job, result(fmt.Sprint(i)))
			if err != nil {
				t.Error(err)
			}
			if stored {
				won.Add(1)
			}
		})
	}
	wg.Wait()
	if won.Load() != 1 {
		t.Errorf("%d writers stored the result, want 1", won.Load())
	}
}

func TestErrorLinesAreReplaced(t *testing.T) {
	f := newFake(t)
	s := f.sink()
	for _, text := range []string{"one", "two"} {
		if err := s.PutError(t.Context(), job, result(text)); err != nil {
			t.Error(err)
		}
	}
	holds(t, s, sink.Errors, result("two"))
	if has, err := s.Has(t.Context(), job); has || err != nil {
		t.Errorf("Has = %v, %v, want false: it is an error line", has, err)
	}
	put(t, s, result("three"), true)
	if has, err := s.Has(t.Context(), job); !has || err != nil {
		t.Errorf("Has = %v, %v, want true", has, err)
	}
}

// TestTroubleThatPasses lets each kind of trouble befall the first so many
// requests, in its two forms: refused, and done with the answer lost.
func TestTroubleThatPasses(t *testing.T) {
	for name, ft := range map[string]fault{
		"500":      {status: 500, code: "InternalError"},
		"SlowDown": {status: 503, code: "SlowDown"},
		"conflict": {status: 409, code: "ConditionalRequestConflict"},
		"proxy":    {status: 502},
		"429":      {status: 429, code: "TooManyRequests"},
		"timeout":  {status: 400, code: "RequestTimeout"},
		"drop":     {drop: true},
		"hang":     {hang: true},
	} {
		for _, times := range []int{1, 2, 3, 20} {
			for _, applied := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/%d/%v", name, times, applied), func(t *testing.T) {
					ft.applied = applied
					synctest.Test(t, func(t *testing.T) { testTrouble(t, ft, times) })
				})
			}
		}
	}
}

func testTrouble(t *testing.T, ft fault, times int) { //nolint:thelper // a test itself: its lines say what failed
	f := newFake(t)
	f.fault = func(n int, _ *http.Request) fault {
		if n < times {
			return ft
		}
		return fault{}
	}
	s := f.sink()
	put(t, s, result("one"), true)
	put(t, s, result("two"), false)
	holds(t, s, sink.Results, result("one"))

	f.requests = nil
	if err := s.PutError(t.Context(), job, result("three")); err != nil {
		t.Error(err)
	}
	holds(t, s, sink.Errors, result("three"))
}

func TestAnotherWriterWinsTheConflict(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		other := newFake(t)
		put(t, other.sink(), result("other"), true)
		f.fault = func(n int, _ *http.Request) fault {
			if n > 0 {
				return fault{}
			}
			f.objects = other.objects
			return fault{status: 409, code: "ConditionalRequestConflict"}
		}
		put(t, f.sink(), result("one"), false)
	})
}

func TestAResultDeletedMeanwhileIsStoredAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		f.fault = func(n int, _ *http.Request) fault {
			if n == 0 {
				return fault{status: 412, code: "PreconditionFailed"}
			}
			return fault{}
		}
		put(t, f.sink(), result("one"), true)
		if got, want := f.log(), "PUT HEAD PUT"; got != want {
			t.Errorf("requests: %s, want %s", got, want)
		}
	})
}

func TestAnOutageOfTenMinutes(t *testing.T) {
	for name, ft := range map[string]fault{
		"SlowDown": {status: 503, code: "SlowDown"},
		"conflict": {status: 409, code: "ConditionalRequestConflict"},
		"drop":     {drop: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake(t)
				end := time.Now().Add(10 * time.Minute)
				f.fault = func(int, *http.Request) fault {
					if time.Now().Before(end) {
						return ft
					}
					return fault{}
				}
				put(t, f.sink(), result("one"), true)
				if late := time.Since(end); late > 10*time.Second {
					t.Errorf("stored %v after the outage, want at most 10s", late)
				}
				// At up to 10 s each the pauses come to about 4 s on average.
				if n := len(f.requests); n < 60 || n > 300 {
					t.Errorf("%d requests in ten minutes, want about 150", n)
				}
			})
		})
	}
}

// TestDeadConnections lets requests go without an answer: the first one, which
// is direct, and then one of the SDK's.
func TestDeadConnections(t *testing.T) {
	for dead, want := range []time.Duration{0, 15 * time.Second, 105 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			f := newFake(t)
			f.fault = func(n int, _ *http.Request) fault { return fault{hang: n < dead} }
			start := time.Now()
			put(t, f.sink(), result("one"), true)
			if took := time.Since(start).Truncate(time.Second); took != want {
				t.Errorf("with %d dead connections it took %v, want %v", dead, took, want)
			}
		})
	}
}

func TestWritingEndsWithItsContext(t *testing.T) {
	reason := errors.New("the drain is over")
	for name, ft := range map[string]fault{
		"SlowDown": {status: 503, code: "SlowDown"},
		"conflict": {status: 409, code: "ConditionalRequestConflict"},
		"drop":     {drop: true},
		"hang":     {hang: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake(t)
				f.fault = func(int, *http.Request) fault { return ft }
				start := time.Now()
				ctx, cancel := context.WithTimeoutCause(t.Context(), 25*time.Minute, reason)
				defer cancel()
				stored, err := f.sink().Put(ctx, job, result("one"))
				if stored || !errors.Is(err, reason) {
					t.Errorf("Put = %v, %v, want %v", stored, err, reason)
				}
				if took := time.Since(start); took != 25*time.Minute {
					t.Errorf("took %v, want exactly 25m", took)
				}
				if ft.code != "" && !strings.Contains(err.Error(), ft.code) {
					t.Errorf("%q does not say what the trouble was: %s", err, ft.code)
				}
			})
		})
	}
}

func TestAContextThatHasEnded(t *testing.T) {
	f := newFake(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if stored, err := f.sink().Put(ctx, job, result("one")); stored || !errors.Is(err, context.Canceled) {
		t.Errorf("Put = %v, %v, want %v", stored, err, context.Canceled)
	}
}

func TestTroubleThatStays(t *testing.T) {
	for _, tt := range []struct {
		fault fault
		want  string
	}{
		{fault{status: 403, code: "AccessDenied"}, "allow s3:PutObject on bkt/team/runs/*"},
		{fault{status: 404, code: "NoSuchBucket"}, "there is no such bucket"},
		{fault{status: 400, code: "InvalidRequest"}, "words about it"},
		{fault{status: 403, code: "InvalidAccessKeyId"}, "credentials are wrong"},
		{fault{status: 400, code: "ExpiredToken"}, "have expired"},
		{fault{status: 400, code: "KMS.DisabledException"}, "key that the bucket is encrypted with"},
		{fault{status: 501, code: "NotImplemented"}, "NotImplemented"},
		{fault{status: 301, code: "PermanentRedirect", home: "eu-west-1"}, "the bucket is in eu-west-1, not in us-west-2"},
	} {
		t.Run(tt.fault.code, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake(t)
				f.fault = func(int, *http.Request) fault { return tt.fault }
				start := time.Now()
				stored, err := f.sink().Put(t.Context(), job, result("one"))
				if stored || err == nil {
					t.Fatalf("Put = %v, %v, want an error", stored, err)
				}
				for _, want := range []string{"s3 put s3://bkt/team/runs/q3/results/", tt.want, tt.fault.code, "REQ1"} {
					if !strings.Contains(err.Error(), want) {
						t.Errorf("%q does not say %q", err, want)
					}
				}
				if took := time.Since(start); took > time.Second || len(f.requests) > 2 {
					t.Errorf("took %v and %d requests", took, len(f.requests))
				}
			})
		})
	}
}

// flaky has no credentials until the third time it is asked.
type flaky struct {
	aws.CredentialsProvider
	asked atomic.Int32
}

func (c *flaky) Retrieve(ctx context.Context) (aws.Credentials, error) {
	if c.asked.Add(1) < 3 {
		return aws.Credentials{}, errors.New("the metadata service is restarting")
	}
	return c.CredentialsProvider.Retrieve(ctx)
}

func TestCredentialsThatComeLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		cfg := f.config()
		cfg.Credentials = &flaky{CredentialsProvider: cfg.Credentials}
		put(t, s3sink.New(s3sink.NewClient(cfg), bucket, "team"), result("one"), true)
	})
}

func TestBrokenResultsAreNotStored(t *testing.T) {
	f := newFake(t)
	r := result("one")
	r.Response.Body = json.RawMessage(`{"output_text":"trunca`)
	if stored, err := f.sink().Put(t.Context(), job, r); stored || err == nil {
		t.Errorf("Put = %v, %v, want an error", stored, err)
	}
	if err := f.sink().PutError(t.Context(), job, r); err == nil {
		t.Error("PutError = nil, want an error")
	}
	if f.log() != "" {
		t.Errorf("requests: %s, want none", f.log())
	}
}

func TestA200WithATextIsNoSuccess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		f.fault = func(n int, _ *http.Request) fault {
			if n == 0 {
				return fault{status: 200, code: "InternalError"}
			}
			return fault{}
		}
		put(t, f.sink(), result("one"), true)
		holds(t, f.sink(), sink.Results, result("one"))
	})
}

func TestManifest(t *testing.T) {
	f := newFake(t)
	s := f.sink()
	if m, err := s.Manifest(t.Context(), "q3"); !errors.Is(err, errNotExist) {
		t.Errorf("Manifest = %v, %v, want %v", m, err, errNotExist)
	}
	m := sink.Manifest{Version: sink.Version, Run: "q3", Created: stored, Count: 3, InputSHA256: "00ff"}
	if got, err := s.PutManifest(t.Context(), m); err != nil || !cmp.Equal(got, m) {
		t.Errorf("PutManifest = %v, %v, want %v", got, err, m)
	}

	again := m
	again.Created = stored.Add(time.Hour)
	if got, err := s.PutManifest(t.Context(), again); err != nil || !cmp.Equal(got, m) {
		t.Errorf("PutManifest of the same run = %v, %v, want %v", got, err, m)
	}
	other := m
	other.InputSHA256 = "00fe"
	if got, err := s.PutManifest(t.Context(), other); !errors.Is(err, s3sink.ErrOtherRun) || !cmp.Equal(got, m) {
		t.Errorf("PutManifest of another run = %v, %v, want %v and %v", got, err, m, s3sink.ErrOtherRun)
	}
	if got, err := s.Manifest(t.Context(), "q3"); err != nil || !cmp.Equal(got, m) {
		t.Errorf("Manifest = %v, %v, want %v", got, err, m)
	}
}

// torn ends a body early.
type torn struct {
	*fake
	times int
}

func (f *torn) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := f.fake.RoundTrip(r)
	if err == nil && r.Method == http.MethodGet && f.times > 0 {
		f.times--
		res.Body = io.NopCloser(io.MultiReader(io.LimitReader(res.Body, 10), broken{}))
	}
	return res, err
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func TestReadsThatBreakOff(t *testing.T) {
	f := &torn{newFake(t), 2}
	cfg := f.config()
	cfg.HTTPClient = &http.Client{Transport: f}
	s := s3sink.New(s3sink.NewClient(cfg), bucket, "team")
	put(t, s, result("one"), true)
	holds(t, s, sink.Results, result("one"))

	f.times = 3
	if _, err := s.Read(t.Context(), sink.Results, job); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("Read = %v, want %v", err, io.ErrUnexpectedEOF)
	}
}
