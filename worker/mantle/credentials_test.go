package mantle_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/google/go-cmp/cmp"
	"github.com/openai/openai-go/v3/bedrock"
	"github.com/openai/openai-go/v3/option"

	"upwell/jobs"
	"upwell/worker"
	"upwell/worker/mantle"
)

type provider = aws.CredentialsProviderFunc

func static(id string) aws.CredentialsProvider {
	return provider(func(context.Context) (aws.Credentials, error) {
		return aws.Credentials{AccessKeyID: id, SecretAccessKey: "hush", SessionToken: "to/ken=="}, nil
	})
}

func broken(why string) aws.CredentialsProvider {
	return provider(func(context.Context) (aws.Credentials, error) { return aws.Credentials{}, errors.New(why) })
}

// recorder answers every request, and keeps their Authorization headers.
type recorder struct {
	mu     sync.Mutex
	auth   []string
	status int // 200 by default
}

func (r *recorder) RoundTrip(req *http.Request) (*http.Response, error) {
	drain(req)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.auth = append(r.auth, req.Header.Get("Authorization"))
	return answer(max(r.status, 200), said), nil
}

func (r *recorder) last() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.auth[len(r.auth)-1]
}

func TestChoiceOfCredentials(t *testing.T) {
	const own = "https://vpce-1.bedrock-mantle.us-east-1.vpce.amazonaws.com/v1"
	for name, tc := range map[string]struct {
		cfg  mantle.Config
		want string // prefix of the Authorization header
	}{
		"key":               {mantle.Config{APIKey: " k \n", BearerToken: "b", AWS: static("AKIA")}, "Bearer k"},
		"bearer token":      {mantle.Config{BearerToken: "b", AWS: static("AKIA")}, "Bearer b"},
		"AWS":               {mantle.Config{AWS: static("AKIA")}, "AWS4-HMAC-SHA256 Credential=AKIA/"},
		"AWS, minted":       {mantle.Config{AWS: static("AKIA"), Mint: true}, "Bearer bedrock-api-key-"},
		"AWS over key":      {mantle.Config{APIKey: "k", AWS: static("AKIA"), Credentials: mantle.SigV4}, "AWS4-HMAC-SHA256 "},
		"minted over key":   {mantle.Config{APIKey: "k", AWS: static("AKIA"), Credentials: mantle.ShortTerm}, "Bearer bedrock-api-key-"},
		"elsewhere":         {mantle.Config{BaseURL: "http://gateway.test/v1", AWS: static("AKIA")}, ""},
		"elsewhere, on ask": {mantle.Config{BaseURL: "http://gateway.test/v1", AWS: static("AKIA"), Credentials: mantle.SigV4, Regions: []string{"us-east-1"}}, "AWS4-HMAC-SHA256 "},
		"elsewhere, key":    {mantle.Config{BaseURL: "http://gateway.test/v1", APIKey: "k"}, "Bearer k"},
		"private link":      {mantle.Config{BaseURL: own, AWS: static("AKIA"), Regions: []string{"us-east-1"}}, "AWS4-HMAC-SHA256 "},
		"none":              {mantle.Config{BaseURL: "http://gateway.test/v1", APIKey: "k", Credentials: mantle.Anonymous}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := &recorder{}
			tc.cfg.HTTPClient = &http.Client{Transport: r}
			c := newClient(t, tc.cfg)
			cl := call(t, jobs.Responses, prompt(grok))
			cl.Lane.Region = c.Regions()[0]
			if _, err := c.Complete(t.Context(), cl); err != nil {
				t.Fatalf("Complete = %v, want nil", err)
			}
			if got := r.last(); !strings.HasPrefix(got, tc.want) || tc.want == "" && got != "" {
				t.Errorf("Authorization = %q, want %q…", got, tc.want)
			}
		})
	}
}

// A signed request is the one that OpenAI's own package signs.
func TestSigV4(t *testing.T) {
	for _, region := range []string{"us-west-2", "us-east-1"} {
		synctest.Test(t, func(t *testing.T) {
			var got, want *http.Request
			c := newClient(t, mantle.Config{
				AWS: static("AKIAMINE"), Regions: []string{"us-east-1", "us-west-2"},
				HTTPClient: &http.Client{Transport: trip(func(req *http.Request) (*http.Response, error) {
					got = req
					return answer(200, said), nil
				})},
			})
			cl := call(t, jobs.Responses, prompt(grok))
			cl.Lane.Region, cl.Lane.Tier = region, "flex"
			if _, err := c.Complete(t.Context(), cl); err != nil {
				t.Fatalf("Complete = %v, want nil", err)
			}
			ref, err := bedrock.NewClient(t.Context(), bedrock.Config{AWSRegion: region, AWSCredentialsProvider: static("AKIAMINE")},
				option.WithMaxRetries(0), option.WithHTTPClient(&http.Client{Transport: trip(func(req *http.Request) (*http.Response, error) {
					want = req
					return answer(200, said), nil
				})}))
			if err != nil {
				t.Fatal(err)
			}
			body, _ := got.GetBody()
			text := drain(&http.Request{Body: body})
			if err := ref.Post(t.Context(), "responses", text, nil); err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(want.Header, got.Header); d != "" {
				t.Errorf("headers (-theirs +ours):\n%s", d)
			}
			scope := "/20000101/" + region + "/bedrock-mantle/aws4_request"
			if auth := got.Header.Get("Authorization"); !strings.Contains(auth, scope) {
				t.Errorf("Authorization = %q, want the scope %s", auth, scope)
			}
			if got.ContentLength != int64(len(text)) {
				t.Errorf("ContentLength = %d, want %d", got.ContentLength, len(text))
			}
		})
	}
}

func TestSigningName(t *testing.T) {
	for want, cfg := range map[string]mantle.Config{
		"/us-west-2/bedrock-mantle/aws4_request": {},
		"/us-west-2/own/aws4_request":            {SigningName: "own"},
		"/us-east-1/bedrock/aws4_request":        {BaseURL: "https://bedrock-runtime.us-east-1.amazonaws.com/openai/v1"},
	} {
		r := &recorder{}
		cfg.AWS, cfg.HTTPClient = static("AKIA"), &http.Client{Transport: r}
		_, _ = newClient(t, cfg).Complete(t.Context(), call(t, jobs.Responses, prompt(grok)))
		if !strings.Contains(r.last(), want) {
			t.Errorf("Authorization = %q, want the scope %s", r.last(), want)
		}
	}
}

// presign computes a key from AWS's description of Signature Version 4 and of
// the key, with nothing of the SDK.
func presign(creds aws.Credentials, region string, ttl time.Duration, now time.Time) string {
	stamp, day := now.UTC().Format("20060102T150405Z"), now.UTC().Format("20060102")
	scope := day + "/" + region + "/bedrock/aws4_request"
	q := url.Values{
		"Action": {"CallWithBearerToken"}, "X-Amz-Algorithm": {"AWS4-HMAC-SHA256"}, "X-Amz-Credential": {creds.AccessKeyID + "/" + scope},
		"X-Amz-Date": {stamp}, "X-Amz-Expires": {fmt.Sprint(int(ttl.Seconds()))}, "X-Amz-SignedHeaders": {"host"},
	}
	if creds.SessionToken != "" {
		q.Set("X-Amz-Security-Token", creds.SessionToken)
	}
	query := strings.ReplaceAll(q.Encode(), "+", "%20")
	nothing := sha256.Sum256(nil)
	request := strings.Join([]string{"POST", "/", query, "host:bedrock.amazonaws.com\n", "host", hex.EncodeToString(nothing[:])}, "\n")
	hashed := sha256.Sum256([]byte(request))
	key := []byte("AWS4" + creds.SecretAccessKey)
	for _, part := range []string{day, region, "bedrock", "aws4_request", strings.Join([]string{"AWS4-HMAC-SHA256", stamp, scope, hex.EncodeToString(hashed[:])}, "\n")} {
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(part))
		key = mac.Sum(nil)
	}
	signed := "bedrock.amazonaws.com/?" + query + "&X-Amz-Signature=" + hex.EncodeToString(key) + "&Version=1"
	return "bedrock-api-key-" + base64.StdEncoding.EncodeToString([]byte(signed))
}

func TestShortTermKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, creds := range []aws.Credentials{
			{AccessKeyID: "AKIAEXAMPLE", SecretAccessKey: "wJalr/XUtn+FEMI"},
			{AccessKeyID: "ASIAEXAMPLE", SecretAccessKey: "wJalr/XUtn+FEMI", SessionToken: "IQoJb3/JpZ2+lu X2Vj=="},
		} {
			got, err := mantle.ShortTermKey(t.Context(), creds, "us-west-2", 12*time.Hour)
			if want := presign(creds, "us-west-2", 12*time.Hour, time.Now()); err != nil || got != want {
				t.Errorf("ShortTermKey = %q, %v, want %q", got, err, want)
			}
		}
	})
	for _, ttl := range []time.Duration{0, -time.Hour, 12*time.Hour + 1} {
		if _, err := mantle.ShortTermKey(t.Context(), aws.Credentials{AccessKeyID: "a", SecretAccessKey: "b"}, "us-west-2", ttl); err == nil {
			t.Errorf("ShortTermKey for %v = nil, want an error", ttl)
		}
	}
}

// keys returns a function that makes a call and returns the key it went with.
func keys(t *testing.T, cfg mantle.Config, status int) (next func() string) {
	t.Helper()
	r := &recorder{status: status}
	cfg.Mint, cfg.HTTPClient = true, &http.Client{Transport: r}
	c := newClient(t, cfg)
	cl := call(t, jobs.Responses, prompt(grok))
	return func() string {
		_, _ = c.Complete(t.Context(), cl)
		return r.last()
	}
}

func TestKeysAreRenewed(t *testing.T) {
	const never = 1000 * time.Hour
	for name, tc := range map[string]struct{ ttl, expires, renew time.Duration }{
		"default":             {0, never, 48 * time.Minute},
		"TTL":                 {10 * time.Minute, never, 8 * time.Minute},
		"ends with its maker": {time.Hour, 10 * time.Minute, 8 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				next := keys(t, mantle.Config{KeyTTL: tc.ttl, AWS: provider(func(context.Context) (aws.Credentials, error) {
					return aws.Credentials{AccessKeyID: "AKIA", SecretAccessKey: "s", CanExpire: tc.expires != never, Expires: time.Now().Add(tc.expires)}, nil
				})}, 200)
				first := next()
				time.Sleep(tc.renew - time.Nanosecond)
				if got := next(); got != first {
					t.Errorf("the key was renewed before %v", tc.renew)
				}
				time.Sleep(time.Nanosecond)
				if got := next(); got == first {
					t.Errorf("the key was not renewed at %v", tc.renew)
				}
			})
		})
	}
}

func TestRefusedKeyIsDropped(t *testing.T) {
	for status, dropped := range map[int]bool{401: true, 403: true, 429: false, 500: false} {
		synctest.Test(t, func(t *testing.T) {
			next := keys(t, mantle.Config{AWS: static("AKIA")}, status)
			first := next()
			time.Sleep(time.Second)
			if got := next() != first; got != dropped {
				t.Errorf("after %d: a new key: %t, want %t", status, got, dropped)
			}
		})
	}
}

func TestKeysAreMadeOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var made atomic.Int32
		r := &recorder{}
		c := newClient(t, mantle.Config{
			Mint: true, HTTPClient: &http.Client{Transport: r}, Regions: []string{"us-west-2", "us-east-1"},
			AWS: slow{func() { made.Add(1); time.Sleep(time.Second) }},
		})
		var wg sync.WaitGroup
		for i := range 64 {
			cl := call(t, jobs.Responses, prompt(grok))
			cl.Lane.Region = c.Regions()[i%2]
			wg.Go(func() { _, _ = c.Complete(t.Context(), cl) })
		}
		wg.Wait()
		distinct := map[string]bool{}
		for _, a := range r.auth {
			distinct[a] = true
		}
		if len(distinct) != 2 || made.Load() != 1 {
			t.Errorf("%d keys of credentials got %d times, want one for each of two Regions, got once", len(distinct), made.Load())
		}
	})
}

// slow provides credentials for an hour after doing something.
type slow struct{ do func() }

func (s slow) Retrieve(context.Context) (aws.Credentials, error) {
	s.do()
	return aws.Credentials{AccessKeyID: "AKIA", SecretAccessKey: "s", CanExpire: true, Expires: time.Now().Add(time.Hour)}, nil
}

// Who waits for a key that somebody else is making can give up alone.
func TestGivingUpOnAKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		block := make(chan struct{})
		first := true
		c := newClient(t, mantle.Config{Mint: true, HTTPClient: &http.Client{Transport: &recorder{}}, AWS: provider(func(context.Context) (aws.Credentials, error) {
			if !first {
				<-block
			}
			defer func() { first = false }()
			// Ended already, so that the next call gets them again.
			return aws.Credentials{AccessKeyID: "AKIA", SecretAccessKey: "s", CanExpire: true, Expires: time.Now()}, nil
		})})
		gone := errors.New("gone")
		ctx, cancel := context.WithCancelCause(t.Context())
		impatient, patient := call(t, jobs.Responses, prompt(grok)), call(t, jobs.Responses, prompt(grok))
		var wg sync.WaitGroup
		left := false
		wg.Go(func() {
			defer func() { left = true }()
			if e := failure(ctx, t, c, impatient); !errors.Is(e, gone) {
				t.Errorf("Complete = %v, want the cause", e)
			}
		})
		synctest.Wait()
		wg.Go(func() {
			if _, err := c.Complete(t.Context(), patient); err != nil {
				t.Errorf("Complete = %v, want nil", err)
			}
		})
		synctest.Wait()
		cancel(gone)
		synctest.Wait()
		if !left {
			t.Error("Complete waits on for the key, want it to end with its context")
		}
		close(block)
		wg.Wait()
	})
}

func TestCredentialsThatEnd(t *testing.T) {
	for _, kind := range []mantle.Credentials{mantle.SigV4, mantle.ShortTerm} {
		synctest.Test(t, func(t *testing.T) {
			ended := false
			c := newClient(t, mantle.Config{Credentials: kind, HTTPClient: &http.Client{Transport: &recorder{}}, AWS: provider(func(context.Context) (aws.Credentials, error) {
				if ended {
					return aws.Credentials{}, errors.New("ExpiredToken: the session of AKIAIOSFODNN7EXAMPLE ended")
				}
				return aws.Credentials{AccessKeyID: "AKIA", SecretAccessKey: "s", CanExpire: true, Expires: time.Now().Add(time.Minute)}, nil
			})})
			ended = true
			time.Sleep(2 * time.Minute)
			e := failure(t.Context(), t, c, call(t, jobs.Responses, prompt(grok)))
			if e.Kind != worker.Unauthorized || !strings.Contains(e.Error(), "ExpiredToken") || strings.Contains(e.Error(), "IOSFO") {
				t.Errorf("%s: %v %q, want unauthorized, why, and no key", kind, e.Kind, e)
			}
		})
	}
}
