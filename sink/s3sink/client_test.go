package s3sink_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"
	"github.com/google/go-cmp/cmp"

	"upwell/jobs"
	"upwell/sink/s3sink"
)

func TestClientOptions(t *testing.T) {
	t.Setenv("AWS_REGION", "us-west-2")
	t.Setenv("AWS_CONFIG_FILE", "/dev/null")
	plain := aws.Config{Region: "us-west-2"}
	custom := aws.Config{Region: "us-west-2", BaseEndpoint: new("http://127.0.0.1:9000")}
	t.Setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9000")
	env, err := config.LoadDefaultConfig(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		cfg  aws.Config
		opt  func(*s3.Options)
		path bool
	}{
		{"plain", plain, func(*s3.Options) {}, false},
		{"endpoint", custom, func(*s3.Options) {}, true},
		{"environment", env, func(*s3.Options) {}, true},
		{"option", plain, func(o *s3.Options) { o.BaseEndpoint = new("http://127.0.0.1:9000") }, true},
	} {
		o := s3sink.NewClient(tt.cfg, tt.opt).Options()
		if o.UsePathStyle != tt.path {
			t.Errorf("%s: UsePathStyle = %v, want %v", tt.name, o.UsePathStyle, tt.path)
		}
		if o.Retryer.MaxAttempts() != 8 || o.RequestChecksumCalculation != aws.RequestChecksumCalculationWhenSupported {
			t.Errorf("%s: %d attempts, checksums %v", tt.name, o.Retryer.MaxAttempts(), o.RequestChecksumCalculation)
		}
	}
}

func TestChecksumsMayBeTurnedOff(t *testing.T) {
	cfg := aws.Config{RequestChecksumCalculation: aws.RequestChecksumCalculationWhenRequired}
	if got := s3sink.NewClient(cfg).Options().RequestChecksumCalculation; got != cfg.RequestChecksumCalculation {
		t.Errorf("RequestChecksumCalculation = %v, want %v", got, cfg.RequestChecksumCalculation)
	}
}

// TestNoRetryQuota has 300 writers meet SlowDown for as long as 4 tries take:
// the SDK's quota would be used up by 100 retries.
func TestNoRetryQuota(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		f.fault = func(n int, _ *http.Request) fault {
			if n < 1200 {
				return fault{status: 503, code: "SlowDown"}
			}
			return fault{}
		}
		client := s3sink.NewClient(f.config())
		var wg sync.WaitGroup
		for range 300 {
			wg.Go(func() {
				if _, err := client.HeadBucket(t.Context(), &s3.HeadBucketInput{Bucket: new(bucket)}); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	})
}

// A tape keeps requests and answers none of them but the last.
type tape struct{ requests []*http.Request }

func (tp *tape) RoundTrip(r *http.Request) (*http.Response, error) {
	tp.requests = append(tp.requests, r)
	if len(tp.requests) == 1 {
		return nil, errors.New("connection refused")
	}
	return answer(r, 200, "", ""), nil
}

// sdkOnly are the headers that the SDK adds for its own ends, or that depend on
// the moment or on another header.
var sdkOnly = []string{
	"Amz-Sdk-Invocation-Id", "Amz-Sdk-Request", "User-Agent", "Accept-Encoding", "X-Amz-Date", "Authorization",
	"X-Amz-Content-Sha256", "Content-Length",
}

// TestDirectTriesAreTheSDKs compares the first try of a put, which is made
// directly, with the second one, which is the SDK's.
func TestDirectTriesAreTheSDKs(t *testing.T) {
	for _, tt := range []struct {
		bucket, prefix string
		opt            func(*s3.Options)
		host           string
	}{
		{"bkt", "team", func(*s3.Options) {}, "bkt.s3.us-west-2.amazonaws.com"},
		{"dotted.name", "a b/c+d=e&f@g:h;i,j!k'l(m)*", func(*s3.Options) {}, "s3.us-west-2.amazonaws.com"},
		{"bkt", "é%41", func(o *s3.Options) { o.UsePathStyle = true }, "s3.us-west-2.amazonaws.com"},
		{"bkt", "", func(o *s3.Options) { o.BaseEndpoint = new("https://store.test:9000/base/") }, "store.test:9000"},
		{"bkt", "", func(o *s3.Options) { o.EndpointOptions.UseDualStackEndpoint = aws.DualStackEndpointStateEnabled }, "bkt.s3.dualstack.us-west-2.amazonaws.com"},
		{"bkt", "", func(o *s3.Options) { o.EndpointOptions.UseFIPSEndpoint = aws.FIPSEndpointStateEnabled }, "bkt.s3-fips.us-west-2.amazonaws.com"},
		{"bkt", "", func(o *s3.Options) { o.UseAccelerate = true }, "bkt.s3-accelerate.amazonaws.com"},
		{"bkt", "", func(o *s3.Options) { o.Region = "cn-north-1" }, "bkt.s3.cn-north-1.amazonaws.com.cn"},
		{"arn:aws:s3:us-west-2:123456789012:accesspoint/myap", "", func(*s3.Options) {}, "myap-123456789012.s3-accesspoint.us-west-2.amazonaws.com"},
	} {
		t.Run(tt.bucket+" "+tt.host, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tp := &tape{}
				cfg := newFake(t).config()
				cfg.BaseEndpoint, cfg.HTTPClient = nil, &http.Client{Transport: tp}
				s := s3sink.New(s3sink.NewClient(cfg, tt.opt), tt.bucket, tt.prefix)
				put(t, s, result("one"), true)
				if len(tp.requests) != 2 {
					t.Fatalf("%d requests, want 2", len(tp.requests))
				}
				compare(t, tp.requests[0], tp.requests[1], tt.host)
			})
		})
	}
}

func compare(t *testing.T, direct, sdk *http.Request, host string) {
	t.Helper()
	if isSDK(direct) || !isSDK(sdk) {
		t.Fatal("the first try is not direct, or the second one not the SDK's")
	}
	if direct.URL.Host != host {
		t.Errorf("host %s, want %s", direct.URL.Host, host)
	}
	query := "?x-id=PutObject" // a name for logs
	if got, want := direct.URL.String()+query, sdk.URL.String(); got != want {
		t.Errorf("URL\n%s, want\n%s", got, want)
	}
	scope := func(r *http.Request) string {
		s, _, _ := strings.Cut(r.Header.Get("Authorization"), ",")
		return s
	}
	if got, want := scope(direct), scope(sdk); got != want {
		t.Errorf("signed for %s, want %s", got, want)
	}
	for _, h := range sdkOnly {
		direct.Header.Del(h)
		sdk.Header.Del(h)
	}
	if diff := cmp.Diff(sdk.Header, direct.Header); diff != "" {
		t.Errorf("headers (-SDK +direct):\n%s", diff)
	}
}

func isSDK(r *http.Request) bool { return r.Header.Get("Amz-Sdk-Invocation-Id") != "" }

func TestOptionsThatCannotWork(t *testing.T) {
	for name, tt := range map[string]struct {
		bucket string
		opt    func(*s3.Options)
		want   string
	}{
		"bucket":  {"", func(*s3.Options) {}, "no bucket"},
		"Region":  {bucket, func(o *s3.Options) { o.Region = "" }, "region"},
		"options": {bucket, func(o *s3.Options) { o.UsePathStyle, o.UseAccelerate = true, true }, "Accelerate"},
	} {
		f := newFake(t)
		cfg := f.config()
		cfg.BaseEndpoint = nil
		s := s3sink.New(s3sink.NewClient(cfg, tt.opt), tt.bucket, "team")
		stored, err := s.Put(t.Context(), job, result("one"))
		if stored || err == nil || !strings.Contains(err.Error(), tt.want) || f.log() != "" {
			t.Errorf("%s: Put = %v, %v, after requests %q, want an error and none", name, stored, err, f.log())
		}
	}
}

type intercept struct{}

func (intercept) BeforeAttempt(context.Context, *smithyhttp.InterceptorContext) error { return nil }

func TestCustomisedClientsAreTheSDKs(t *testing.T) {
	for name, opt := range map[string]func(*s3.Options){
		"middleware": func(o *s3.Options) {
			o.APIOptions = append(o.APIOptions, func(*middleware.Stack) error { return nil })
		},
		"interceptor": func(o *s3.Options) {
			o.Interceptors.BeforeAttempt = append(o.Interceptors.BeforeAttempt, intercept{})
		},
		"anonymous": func(o *s3.Options) { o.Credentials = aws.AnonymousCredentials{} },
		"no TLS":    func(o *s3.Options) { o.EndpointOptions.DisableHTTPS = true },
		"log":       func(o *s3.Options) { o.ClientLogMode = aws.LogDeprecatedUsage },
	} {
		f := newFake(t)
		f.fault = func(int, *http.Request) fault { return fault{status: 200} }
		s := f.sink(opt)
		put(t, s, result("one"), true)
		if len(f.requests) != 1 || !isSDK(f.requests[0]) {
			t.Errorf("%s: the first try is not the SDK's", name)
		}
	}
}

func TestExpressBucketsAreTheSDKs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		cfg := f.config()
		cfg.BaseEndpoint = nil
		f.fault = func(int, *http.Request) fault { return fault{status: 403, code: "AccessDenied"} }
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		s := s3sink.New(s3sink.NewClient(cfg), "bkt--usw2-az1--x-s3", "")
		if _, err := s.Put(ctx, job, result("one")); err == nil || !f.requests[0].URL.Query().Has("session") {
			t.Errorf("Put = %v after %s, want a session first", err, f.log())
		}
	})
}

func BenchmarkPut(b *testing.B) {
	for name, opt := range map[string]func(*s3.Options){
		"direct": func(*s3.Options) {},
		"SDK": func(o *s3.Options) {
			o.APIOptions = append(o.APIOptions, func(*middleware.Stack) error { return nil })
		},
	} {
		b.Run(name, func(b *testing.B) {
			cfg := aws.Config{
				Region: "us-west-2", BaseEndpoint: new("http://s3.test"), HTTPClient: &http.Client{Transport: yes{}},
				Credentials: newFake(nil).config().Credentials,
			}
			s := s3sink.New(s3sink.NewClient(cfg, opt), bucket, "team")
			r := result(strings.Repeat("The supplier shall indemnify. ", 40))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.Put(b.Context(), jobs.Key{Run: "q3", CustomID: "msa-0042"}, r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// yes answers without a network.
type yes struct{}

func (yes) RoundTrip(r *http.Request) (*http.Response, error) {
	r.Body.Close()
	return answer(r, 200, "", ""), nil
}
