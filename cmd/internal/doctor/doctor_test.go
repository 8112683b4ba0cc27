package doctor_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"upwell/cmd/internal/doctor"
	"upwell/integration/fixture"
	"upwell/jobs/sqsqueue"
	"upwell/jobs/sqsqueue/sqssim"
	"upwell/sink/s3sink/s3sim"
	"upwell/worker/mantle"
	"upwell/worker/mantle/mantlesim"
)

const (
	region  = "us-west-2"
	account = "000000000000"
	keyID   = "AKIAIOSFODNN7EXAMPLE"
	secret  = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
)

// A rig is all that a doctor looks at: simulators of SQS, S3 and the endpoint, a
// stand-in for STS, and faults in front of them. All is well unless a test changes
// it before it examines.
type rig struct {
	t   *testing.T
	dir string
	cfg doctor.Config

	sqsFault func(op string, c sqssim.Call) sqssim.Fault
	s3Fault  func(op, bucket, key string) s3sim.Fault
	sts      func() (status int, code string) // of STS's error; nil for none

	ahead   time.Duration             // of the services' clocks
	strip   string                    // header that S3 does not get to see
	header  http.Header               // that S3 adds to its answers
	edit    func(body []byte) []byte  // of the endpoint's answers
	sim     *mantlesim.Config         // of the endpoint
	lost    func(*http.Request) error // why a request does not reach the endpoint
	lenient bool                      // of SQS: it takes what is invalid
	sent    chan string               // requests to send messages, where there is one
	client  *sqs.Client
	mantle  func() *mantlesim.Server // as sim says when it is first called
}

// newRig returns a rig with two queues, a bucket, and a model that answers.
func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t, dir: t.TempDir(), sim: &mantlesim.Config{}, header: make(http.Header)}
	r.mantle = sync.OnceValue(func() *mantlesim.Server { return mantlesim.New(*r.sim) })
	queues := sqssim.New(sqssim.Config{Region: region, Fault: func(op string, c sqssim.Call) sqssim.Fault {
		if r.sqsFault == nil {
			return sqssim.Fault{}
		}
		return r.sqsFault(op, c)
	}})
	objects, err := s3sim.New(s3sim.Config{Dir: r.dir, Fault: func(op, bucket, key string) s3sim.Fault {
		if r.s3Fault == nil {
			return s3sim.Fault{}
		}
		return r.s3Fault(op, bucket, key)
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = objects.Close() })
	if err := os.Mkdir(filepath.Join(r.dir, "bucket"), 0o755); err != nil { // a folder is a bucket
		t.Fatal(err)
	}
	base, client := onPipes(t, http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		w.Header().Set("Date", time.Now().Add(r.ahead).UTC().Format(http.TimeFormat))
		switch target := q.Header.Get("X-Amz-Target"); {
		case r.lenient && target == "AmazonSQS.SendMessageBatch":
			fmt.Fprint(w, `{"Successful":[{"Id":"doctor","MessageId":"m","MD5OfMessageBody":"x"}],"Failed":[]}`)
		case target == "AmazonSQS.SendMessageBatch" && r.sent != nil:
			text, _ := io.ReadAll(q.Body) // what is cut off is found by SQS
			r.sent <- string(text)
			q.Body = io.NopCloser(bytes.NewReader(text))
			queues.ServeHTTP(w, q)
		case target != "":
			queues.ServeHTTP(w, q)
		case q.URL.Path == "/" && q.Method == http.MethodPost:
			r.identify(w)
		default:
			for k := range r.header {
				w.Header().Set(k, r.header.Get(k))
			}
			q.Header.Del(r.strip)
			objects.ServeHTTP(w, q)
		}
	}))
	creds := aws.NewCredentialsCache(credentials.NewStaticCredentialsProvider(keyID, secret, ""))
	r.cfg = doctor.Config{
		AWS:    aws.Config{Region: region, HTTPClient: client, Credentials: creds, BaseEndpoint: &base},
		Mantle: mantle.Config{AWS: creds, Regions: []string{region}},
		Model:  "xai.grok-4.3", Queue: "jobs", Bucket: "bucket", Prefix: "team",
		CallTimeout: 30 * time.Second, Transport: network{r},
	}
	r.client = sqsqueue.NewClient(r.cfg.AWS)
	r.create("jobs-dead", map[string]string{"MessageRetentionPeriod": "1209600"})
	r.create("jobs", map[string]string{"VisibilityTimeout": "120"})
	r.redrive(100)
	return r
}

// onPipes serves h over connections that a bubble may have: on a machine that stands
// still for a while real time is over before anybody looks.
func onPipes(t *testing.T, h http.Handler) (url string, client *http.Client) {
	t.Helper()
	tr := &http.Transport{DialContext: fixture.Serve(t, &http.Server{Handler: h}).DialContext}
	t.Cleanup(tr.CloseIdleConnections)
	return "http://amazon.test", &http.Client{Transport: tr}
}

func (r *rig) create(name string, attrs map[string]string) {
	r.t.Helper()
	if _, err := r.client.CreateQueue(r.t.Context(), &sqs.CreateQueueInput{QueueName: &name, Attributes: attrs}); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) url(name string) *string {
	return aws.String(*r.cfg.AWS.BaseEndpoint + "/" + account + "/" + name)
}

func (r *rig) set(queue string, attrs map[string]string) {
	r.t.Helper()
	if _, err := r.client.SetQueueAttributes(r.t.Context(), &sqs.SetQueueAttributesInput{QueueUrl: r.url(queue), Attributes: attrs}); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) redrive(count int) {
	r.t.Helper()
	r.set("jobs", map[string]string{"RedrivePolicy": fmt.Sprintf(`{"deadLetterTargetArn":"arn:aws:sqs:us-west-2:000000000000:jobs-dead","maxReceiveCount":%d}`, count)})
}

// identify answers in the place of STS.
func (r *rig) identify(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "text/xml")
	if r.sts != nil {
		status, code := r.sts()
		w.WriteHeader(status)
		fmt.Fprintf(w, `<ErrorResponse><Error><Type>Sender</Type><Code>%s</Code><Message>no</Message></Error></ErrorResponse>`, code)
		return
	}
	fmt.Fprint(w, `<GetCallerIdentityResponse><GetCallerIdentityResult><Arn>arn:aws:iam::000000000000:user/ann</Arn><Account>000000000000</Account></GetCallerIdentityResult></GetCallerIdentityResponse>`)
}

// A network leads all hosts to the simulated endpoint.
type network struct{ *rig }

func (n network) RoundTrip(q *http.Request) (res *http.Response, err error) {
	if n.lost != nil {
		if err := n.lost(q); err != nil {
			return nil, err
		}
	}
	if q.Body == nil {
		q.Body = http.NoBody
	}
	defer q.Body.Close()
	defer func() {
		if p := recover(); p == http.ErrAbortHandler {
			err = cmp.Or(q.Context().Err(), io.ErrUnexpectedEOF)
		} else if p != nil {
			panic(p)
		}
	}()
	w := httptest.NewRecorder()
	w.Header().Set("Date", time.Now().Add(n.ahead).UTC().Format(http.TimeFormat))
	n.mantle().ServeHTTP(w, q)
	text := w.Body.Bytes()
	if n.edit != nil {
		text = n.edit(text)
	}
	res = w.Result()
	res.Request, res.Body, res.ContentLength = q, io.NopCloser(bytes.NewReader(text)), int64(len(text))
	res.Header.Del("Content-Length")
	return res, nil
}

// deny makes SQS refuse an operation on a queue as IAM does.
func deny(queue string, ops ...string) func(*rig) {
	return func(r *rig) {
		r.sqsFault = func(op string, c sqssim.Call) sqssim.Fault {
			if c.Queue != queue || !slices.Contains(ops, op) {
				return sqssim.Fault{}
			}
			return sqssim.Fault{Err: &sqssim.Error{Code: "AccessDeniedException", Message: "User: arn:aws:iam::000000000000:user/ann is not authorized to perform: sqs:" + strings.ToLower(op)}}
		}
	}
}

// s3Says makes S3 answer operations on keys that contain a text with an error.
func s3Says(status int, code, part string, ops ...string) func(*rig) {
	return func(r *rig) {
		r.s3Fault = func(op, _, key string) s3sim.Fault {
			if !slices.Contains(ops, op) || !strings.Contains(key, part) {
				return s3sim.Fault{}
			}
			return s3sim.Fault{Status: status, Code: code}
		}
	}
}

// mantleSays scripts a fault of the endpoint.
func mantleSays(kind string) func(*rig) {
	return func(r *rig) { r.sim.Faults = []mantlesim.Fault{{Kind: kind}} }
}

// An examination is what is wrong, and what has to be said of it: by check, the status, then
// regular expressions for what was found and, behind an arrow, for what to do. All
// other checks must find that all is well.
type examination struct {
	name  string
	spoil func(*rig)
	want  map[string]string
}

// unseen is what is not examined when something is not there.
func unseen(want map[string]string, why string, checks ...string) map[string]string {
	for _, c := range checks {
		want[c] = "skipped " + why
	}
	return want
}

// shortTermKey makes a key of that age. The simulator does not check signatures.
func shortTermKey(t *testing.T, region string, age, life time.Duration) string {
	t.Helper()
	key, err := mantle.ShortTermKey(t.Context(), aws.Credentials{AccessKeyID: keyID, SecretAccessKey: secret}, region, life)
	if err != nil {
		t.Fatal(err)
	}
	const layout = "20060102T150405Z"
	text, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(key, "bedrock-api-key-"))
	if err != nil {
		t.Fatal(err)
	}
	text = regexp.MustCompile(`X-Amz-Date=[0-9TZ]+`).ReplaceAll(text, []byte("X-Amz-Date="+time.Now().Add(-age).UTC().Format(layout)))
	return "bedrock-api-key-" + base64.StdEncoding.EncodeToString(text)
}

var examinations = []examination{
	{"nothing", func(*rig) {}, nil},

	{"no credentials at all", func(r *rig) {
		r.cfg.AWS.Credentials = aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{}, errors.New("failed to refresh cached credentials, no EC2 IMDS role found, operation error ec2imds: GetMetadata")
		})
		r.cfg.Mantle.AWS = nil
	}, unseen(map[string]string{
		"credentials":  `failure no AWS credentials: no EC2 IMDS role found$ => AWS_PROFILE.*AWS_ACCESS_KEY_ID`,
		"endpoint key": `failure no key and no AWS credentials => AWS_BEARER_TOKEN_BEDROCK`,
	}, "no (AWS )?credentials|neither queue", "identity", "base path", "model", "queue", "queue settings", "dead letters", "bucket", "permissions")},
	{"a key, and no credentials that nothing needs", func(r *rig) {
		r.cfg.AWS.Credentials, r.cfg.Mantle.AWS, r.cfg.Queue, r.cfg.Bucket = nil, nil, "", ""
		r.cfg.Mantle.BearerToken = "ABSKQmVkcm9ja0FQSUtleQ=="
	}, unseen(map[string]string{}, ".", "credentials", "identity", "queue", "queue settings", "dead letters", "bucket", "permissions")},
	{"a session that has ended", func(r *rig) {
		r.cfg.AWS.Credentials = aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{}, errors.New("refresh cached SSO token failed")
		})
		r.cfg.Mantle.AWS, r.cfg.Mantle.BearerToken = nil, "ABSKQmVkcm9ja0FQSUtleQ=="
		r.cfg.Getenv = func(name string) string { return map[string]string{"AWS_PROFILE": "law"}[name] }
	}, unseen(map[string]string{
		"credentials": `failure SSO token => ^aws sso login --profile law$`,
	}, ".", "identity", "queue", "queue settings", "dead letters", "bucket", "permissions")},
	{"a profile that there is not", func(r *rig) {
		r.cfg.AWSErr = errors.New("aws configuration: failed to get shared config profile, lwa")
		r.cfg.AWS.Credentials, r.cfg.Mantle.AWS, r.cfg.Mantle.BearerToken = nil, nil, "ABSKQmVkcm9ja0FQSUtleQ=="
	}, unseen(map[string]string{
		"credentials": `failure profile, lwa => list-profiles`,
	}, ".", "identity", "queue", "queue settings", "dead letters", "bucket", "permissions")},

	{"a profile", func(r *rig) {
		r.cfg.Profile = "law"
		r.cfg.AWS.Credentials = aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: keyID, SecretAccessKey: secret, Source: "SharedConfigCredentials: /home/ann/.aws/credentials"}, nil
		})
	}, map[string]string{"credentials": `ok ^profile law, key …MPLE$`}},

	{"STS is out of reach for the caller", func(r *rig) {
		r.sts = func() (int, string) { return 403, "AccessDenied" }
	}, map[string]string{"identity": `warning AccessDenied => does not need STS`}},
	{"nobody knows the caller", func(r *rig) {
		r.sts = func() (int, string) { return 403, "InvalidClientTokenId" }
	}, map[string]string{"identity": `failure does not accept the credentials => aws sts get-caller-identity`}},
	{"SQS does not know the caller", func(r *rig) {
		r.sqsFault = func(string, sqssim.Call) sqssim.Fault {
			return sqssim.Fault{Err: &sqssim.Error{Code: "ExpiredToken", Message: "The security token included in the request is expired", Status: 403}}
		}
	}, unseen(map[string]string{
		"queue": `failure jobs: the AWS credentials have expired => renew`,
	}, "the queue was not found", "queue settings", "dead letters")},

	{"a service that tells what it was told", func(r *rig) {
		r.cfg.Getenv = func(name string) string { return map[string]string{"AWS_SECRET_ACCESS_KEY": secret}[name] }
		r.sqsFault = func(string, sqssim.Call) sqssim.Fault {
			return sqssim.Fault{Err: &sqssim.Error{Code: "Odd", Message: "no " + keyID + " with " + secret + " here"}}
		}
	}, unseen(map[string]string{"queue": `failure Odd: no …MPLE with \[redacted\] here => .`}, "not found", "queue settings", "dead letters")},

	{"a short-term key that has ended", func(r *rig) {
		r.cfg.Mantle.BearerToken = shortTermKey(r.t, region, 2*time.Hour, time.Hour)
		r.sim.CheckShortTerm = true
	}, map[string]string{
		"endpoint key": `failure AWS_BEARER_TOKEN_BEDROCK, short-term, of …MPLE, for us-west-2: it ended => --auth short-term`,
		"base path":    `skipped answers at no path`,
		"model":        `failure 401 .*expired => CreateInference and bedrock-mantle:CallWithBearerToken`,
	}},
	{"a short-term key that ends soon", func(r *rig) {
		r.cfg.Mantle.BearerToken = shortTermKey(r.t, region, 0, 20*time.Minute)
	}, map[string]string{"endpoint key": `warning ends in (20m|19m59s)$ => --auth short-term`}},
	{"a short-term key of another Region", func(r *rig) {
		r.cfg.Mantle.BearerToken = shortTermKey(r.t, "eu-west-1", 0, 12*time.Hour)
		r.sim.CheckShortTerm, r.sim.Region = true, region
	}, map[string]string{
		"base path": `skipped .`, "model": `failure 401 => a key must be of this Region`,
		"region": `failure short-term key is good in eu-west-1 only, and calls go to us-west-2 => --region|key in us-west-2`,
	}},
	{"half a key", func(r *rig) {
		r.cfg.Mantle.APIKey = "bedrock-api-key-YmVkcm9jay5hbWF6"
	}, map[string]string{"endpoint key": `warning cannot be decoded => all of it`}},

	{"a clock that is six minutes slow", func(r *rig) { r.ahead = 6 * time.Minute }, map[string]string{"clock": `failure ^(6m|5m59s|6m1s) behind => timedatectl`}},
	{"a clock that is six minutes fast", func(r *rig) { r.ahead = -6 * time.Minute }, map[string]string{"clock": `failure ^(6m|5m59s|6m1s) ahead of => timedatectl`}},
	{"a clock that is a minute slow", func(r *rig) { r.ahead = time.Minute }, map[string]string{"clock": `warning ^(1m|59s|1m1s) behind => timedatectl`}},
	{"a clock that is ten seconds slow", func(r *rig) { r.ahead = 10 * time.Second }, nil},

	{"no name", func(r *rig) {
		r.lost = func(q *http.Request) error {
			return &net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host", Name: q.URL.Hostname(), IsNotFound: true}}
		}
	}, unseen(map[string]string{"endpoint": `failure ^bedrock-mantle\.us-west-2\.api\.aws: the name is not known => interface endpoint`}, "cannot be reached", "base path", "model")},
	{"a network that drops packets", func(r *rig) {
		r.lost = func(*http.Request) error { return context.DeadlineExceeded }
	}, unseen(map[string]string{"endpoint": `failure no answer in time => 443.*HTTPS_PROXY`}, "cannot be reached", "base path", "model")},
	{"one Region of two", func(r *rig) {
		r.cfg.Mantle.Regions = []string{"us-east-1", region}
		r.lost = func(q *http.Request) error {
			if strings.Contains(q.URL.Host, "us-east-1") {
				return &net.DNSError{Err: "no such host", IsNotFound: true}
			}
			return nil
		}
	}, map[string]string{"endpoint us-east-1": `failure us-east-1`}},

	{"the wrong base path", func(r *rig) {
		r.cfg.Mantle.Paths = map[string]string{"xai.": "/v1", "xai.grok-": "/v1"}
	}, map[string]string{"base path": `failure refused at /v1 as if the credentials were wrong \(401\), and answers at /openai/v1 => ^--base-path xai\.grok-4\.3=/openai/v1$`}},
	{"the wrong base URL", func(r *rig) {
		r.cfg.Mantle.BaseURL = "https://bedrock-mantle.us-west-2.api.aws/v1/"
	}, map[string]string{"base path": `failure at /v1 .* at /openai/v1 => ^OPENAI_BASE_URL=https://bedrock-mantle\.us-west-2\.api\.aws/openai/v1$`}},
	{"a base path that the endpoint corrects", func(r *rig) {
		r.cfg.Model, r.cfg.Mantle.Paths = "google.gemma-4-31b", map[string]string{"google.gemma-4": "/v1"}
	}, map[string]string{"base path": `warning at /openai/v1, which the endpoint had to say => --base-path`, "prices": `warning`, "model": `ok price unknown`}},

	{"no such model", func(r *rig) { r.cfg.Model = "xai.grok-9" }, map[string]string{
		"model": `failure 404 .*xai\.grok-9.* does not exist => spelling of xai\.grok-9`, "base path": `skipped at no path`,
		"prices": `warning none for xai\.grok-9 on default => --prices`,
	}},
	{"a key that is not accepted", func(r *rig) { r.sim.Keys = []string{"other"} }, map[string]string{
		"model": `failure 401 .*security token => allow bedrock-mantle:CreateInference \(`, "base path": `skipped at no path`,
	}},
	{"a gateway's key that is not accepted", func(r *rig) {
		r.sim.Keys, r.cfg.Mantle.BaseURL, r.cfg.Mantle.APIKey = []string{"other"}, "http://gateway.test/openai/v1", "sk-0123456789abcdef"
	}, map[string]string{"model": `failure 401 => this endpoint's`, "base path": `skipped`}},
	{"no permission to call", func(r *rig) { r.sim.Keys, r.sim.DeniedStatus = []string{}, 403 }, map[string]string{
		"model": `failure 403 => AmazonBedrockMantleInferenceAccess`, "base path": `skipped`,
	}},
	{"no permission to call, and AWS says which", func(r *rig) {
		r.sim.Keys, r.sim.DeniedStatus = []string{}, 403
		r.edit = func(b []byte) []byte {
			return bytes.ReplaceAll(b, []byte("The security token included in the request is invalid."), []byte("not authorized to perform: bedrock-mantle:CreateInference"))
		}
	}, missing("bedrock-mantle:CreateInference", "project/default", "arn:aws:bedrock-mantle:us-west-2:000000000000:project/default", map[string]string{
		"model": `failure 403 .*CreateInference => see permissions`, "base path": `skipped`,
	})},
	{"a full quota", mantleSays(mantlesim.Throttle), map[string]string{"model": `warning 429 => ^nothing`}},
	{"no capacity", mantleSays(mantlesim.Unavailable), map[string]string{"model": `warning 503 => another tier`}},
	{"an endpoint in trouble", mantleSays(mantlesim.Internal), map[string]string{"model": `failure 500 => .`, "base path": `skipped did not answer`}},
	{"a model that does not answer", func(r *rig) {
		r.sim.Latency, r.cfg.CallTimeout = mantlesim.Latency{Median: time.Hour}, 100*time.Millisecond
	}, map[string]string{"model": `failure no answer within 100ms => --call-timeout`, "base path": `skipped did not answer`}},
	{"flex, which takes its time", func(r *rig) {
		r.sim.Latency, r.cfg.CallTimeout, r.cfg.Tiers = mantlesim.Latency{Median: time.Hour}, 100*time.Millisecond, []string{"flex"}
	}, map[string]string{"model": `warning which flex may take => --call-timeout`, "base path": `skipped did not answer`}},
	{"a tier that is dropped on the way", func(r *rig) {
		r.cfg.Tiers = []string{"flex"}
		r.edit = func(b []byte) []byte {
			return bytes.ReplaceAll(b, []byte(`"service_tier":"flex"`), []byte(`"service_tier":"default"`))
		}
	}, map[string]string{"model": `warning on default.* not on flex => service_tier`}},
	{"a model of chat completions", func(r *rig) { r.cfg.Model = "moonshotai.kimi-k2.5" }, map[string]string{
		"model": `warning chat completions only => /v1/chat/completions`, "prices": `warning`,
	}},
	{"settings that exclude each other", func(r *rig) {
		r.cfg.Mantle.BaseURL, r.cfg.Mantle.Regions = "https://bedrock-mantle.us-east-1.api.aws/openai/v1", []string{region}
	}, map[string]string{
		"model": `failure the settings do not work: .*us-east-1 => --help`, "base path": `skipped`,
		"region": `failure calls are for us-west-2, and the base URL is in us-east-1 => --region us-east-1`,
	}},
	{"no wish to pay", func(r *rig) { r.cfg.NoCall = true }, unseen(map[string]string{}, "--no-call", "base path", "model")},

	{"a bucket elsewhere", func(r *rig) {
		r.header.Set("X-Amz-Bucket-Region", "eu-central-1")
	}, map[string]string{
		"bucket": `failure is in eu-central-1, not in us-west-2 => ^AWS_REGION=eu-central-1$`,
		"region": `failure the bucket is in eu-central-1, and AWS_REGION is us-west-2 => AWS_REGION=eu-central-1`,
	}},
	{"a queue elsewhere", func(r *rig) {
		r.cfg.Queue = "https://sqs.eu-west-1.amazonaws.com/000000000000/jobs"
	}, map[string]string{"region": `failure the queue is in eu-west-1, and AWS_REGION is us-west-2 => AWS_REGION=eu-west-1`}},
	{"no Region", func(r *rig) { r.cfg.AWS.Region = "" }, unseen(map[string]string{
		"region": `failure no Region => AWS_REGION`,
	}, "no Region|neither", "identity", "queue", "queue settings", "dead letters", "bucket", "permissions")},

	{"no such queue", func(r *rig) { r.cfg.Queue = "jbos" }, unseen(map[string]string{
		"queue": `failure there is no queue jbos in us-west-2 => aws sqs create-queue --queue-name jbos`,
	}, "not found", "queue settings", "dead letters")},
	{"a URL of no queue", func(r *rig) { r.cfg.Queue = *r.url("jbos") }, unseen(map[string]string{
		"queue": `failure there is no queue http => create-queue --queue-name jbos `,
	}, "not found", "queue settings", "dead letters")},
	{
		"nothing to examine but the endpoint", func(r *rig) { r.cfg.Queue, r.cfg.Bucket = "", "" },
		unseen(map[string]string{}, "no --queue|no --bucket|neither", "queue", "queue settings", "dead letters", "bucket", "permissions"),
	},

	{
		"a short visibility timeout", func(r *rig) { r.set("jobs", map[string]string{"VisibilityTimeout": "29"}) },
		map[string]string{"queue settings": `warning visibility timeout 29s => set-queue-attributes --queue-url http\S+/jobs --attributes VisibilityTimeout=120$`},
	},
	{
		"a short retention", func(r *rig) { r.set("jobs", map[string]string{"MessageRetentionPeriod": "3600"}) },
		map[string]string{"queue settings": `failure retention 1h: SQS deletes => MessageRetentionPeriod=345600$`},
	},
	{
		"a retention below the default", func(r *rig) { r.set("jobs", map[string]string{"MessageRetentionPeriod": "172800"}) },
		map[string]string{"queue settings": `warning retention 2 days => MessageRetentionPeriod=345600$`},
	},
	{"small messages, soon back", func(r *rig) {
		r.set("jobs", map[string]string{"MaximumMessageSize": "262144", "VisibilityTimeout": "5"})
	}, map[string]string{"queue settings": `warning 5s: .*; messages of 256 KiB => VisibilityTimeout=120,MaximumMessageSize=1048576$`}},
	{
		"encryption", func(r *rig) { r.set("jobs", map[string]string{"KmsMasterKeyId": "alias/law"}) },
		map[string]string{"queue settings": `ok alias/law: allow kms:Decrypt and kms:GenerateDataKey`},
	},
	{"order", func(r *rig) {
		r.create("dead.fifo", map[string]string{"FifoQueue": "true", "MessageRetentionPeriod": "1209600"})
		r.create("jobs.fifo", map[string]string{"FifoQueue": "true", "RedrivePolicy": `{"deadLetterTargetArn":"arn:aws:sqs:us-west-2:000000000000:dead.fifo","maxReceiveCount":"10"}`})
		r.cfg.Queue = "jobs.fifo"
	}, map[string]string{"queue": `ok FIFO`, "dead letters": `ok ^dead\.fifo, after 10 deliveries`}},

	{"no redrive policy", func(r *rig) { r.set("jobs", map[string]string{"RedrivePolicy": ""}) }, map[string]string{
		"dead letters": `failure no redrive policy => '\{"RedrivePolicy":"\{\\"deadLetterTargetArn\\":\\"arn:aws:sqs:us-west-2:000000000000:jobs-dead\\",\\"maxReceiveCount\\":\\"100\\"\}"\}'$`,
	}},
	{"no redrive policy, and a queue for the dead", func(r *rig) {
		r.set("jobs", map[string]string{"RedrivePolicy": ""})
		r.cfg.Dead = "jobs-dead"
	}, map[string]string{"dead letters": `warning no redrive policy => RedrivePolicy`}},
	{"two queues for the dead", func(r *rig) {
		r.create("graves", map[string]string{"MessageRetentionPeriod": "1209600"})
		r.cfg.Dead = "graves"
	}, map[string]string{"dead letters": `warning workers bury jobs in graves, and SQS moves them to jobs-dead => --dead-queue jobs-dead`}},
	{
		"a redrive policy without patience", func(r *rig) { r.redrive(2) },
		map[string]string{"dead letters": `failure maxReceiveCount 2: => \\"maxReceiveCount\\":\\"100\\"`},
	},
	{
		"a redrive policy with little patience", func(r *rig) { r.redrive(9) },
		map[string]string{"dead letters": `warning maxReceiveCount 9: => \\"maxReceiveCount\\":\\"100\\"`},
	},
	{"enough patience", func(r *rig) { r.redrive(10) }, map[string]string{"dead letters": `ok after 10 deliveries`}},
	{
		"letters that do not last", func(r *rig) { r.set("jobs-dead", map[string]string{"MessageRetentionPeriod": "345600"}) },
		map[string]string{"dead letters": `warning letters is 4 days and the queue's is 4 days => /jobs-dead --attributes MessageRetentionPeriod=1209600`},
	},
	{"a dead-letter queue that is gone", func(r *rig) {
		if _, err := r.client.DeleteQueue(r.t.Context(), &sqs.DeleteQueueInput{QueueUrl: r.url("jobs-dead")}); err != nil {
			r.t.Fatal(err)
		}
	}, map[string]string{"dead letters": `failure no queue jobs-dead => create-queue --queue-name jobs-dead`}},

	{"no bucket", func(r *rig) { r.cfg.Bucket = "bukcet" }, map[string]string{"bucket": `failure there is no bucket bukcet => aws s3 mb s3://bukcet`}},
	{"a store that ignores If-None-Match", func(r *rig) { r.strip = "If-None-Match" }, map[string]string{"bucket": `failure ignores If-None-Match: a job could get two results => .`}},
	{"a store that refuses If-None-Match", s3Says(501, "NotImplemented", "", "PutObject"), map[string]string{"bucket": `failure knows no conditional writes => .`}},
	{"somebody else's object", func(r *rig) {
		dir := filepath.Join(r.dir, "bucket/team/state")
		if err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, "doctor.json"), []byte("x"), 0o644)); err != nil {
			r.t.Fatal(err)
		}
	}, map[string]string{"bucket": `failure holds something else => team/state/doctor\.json`}},
	{"S3 in trouble", s3Says(503, "SlowDown", "", "PutObject"), map[string]string{"bucket": `failure cannot be written: SlowDown => try again`}},

	{"no sqs:ReceiveMessage", deny("jobs", "ReceiveMessage"), missing("sqs:ReceiveMessage", "jobs", "arn:aws:sqs:us-west-2:000000000000:jobs", nil)},
	{"no sqs:SendMessage", deny("jobs", "SendMessageBatch"), missing("sqs:SendMessage", "jobs", "arn:aws:sqs:us-west-2:000000000000:jobs", nil)},
	{"no sqs:DeleteMessage", deny("jobs", "DeleteMessageBatch"), missing("sqs:DeleteMessage", "jobs", "arn:aws:sqs:us-west-2:000000000000:jobs", nil)},
	{"no sqs:ChangeMessageVisibility", deny("jobs", "ChangeMessageVisibilityBatch"), missing("sqs:ChangeMessageVisibility", "jobs", "arn:aws:sqs:us-west-2:000000000000:jobs", nil)},
	{"no sqs:GetQueueUrl", deny("jobs", "GetQueueUrl"), missing("sqs:GetQueueUrl", "jobs", "arn:aws:sqs:us-west-2:000000000000:jobs", map[string]string{
		"queue": `failure jobs may not be looked up => permissions.*URL`, "queue settings": "skipped", "dead letters": "skipped",
	})},
	{"no sqs:GetQueueAttributes", deny("jobs", "GetQueueAttributes"), missing("sqs:GetQueueAttributes", "jobs", "arn:aws:sqs:us-west-2:000000000000:jobs", map[string]string{
		"queue": `warning may not be read => permissions`, "queue settings": "skipped", "dead letters": "skipped --dead-queue",
	})},
	{"no letters", deny("jobs-dead", "SendMessageBatch"), missing("sqs:SendMessage", "jobs-dead", "arn:aws:sqs:us-west-2:000000000000:jobs-dead", map[string]string{
		"dead letters": `failure nothing may be sent to jobs-dead => permissions`,
	})},
	{"no s3:ListBucket", s3Says(403, "AccessDenied", "", "HeadBucket", "ListObjectsV2"), missing("s3:ListBucket", "bucket", "arn:aws:s3:::bucket", map[string]string{
		"bucket": `failure may not be listed => permissions`,
	})},
	{"no s3:PutObject", s3Says(403, "AccessDenied", "state/", "PutObject"), missing("s3:PutObject", `bucket/team/state/\*`, `arn:aws:s3:::bucket/team/state/\*`, map[string]string{
		"bucket": `failure doctor\.json may not be written => permissions`,
	})},
	{"no s3:PutObject of results", s3Says(403, "AccessDenied", "runs/", "PutObject"), missing("s3:PutObject", `bucket/team/runs/\*`, `arn:aws:s3:::bucket/team/runs/\*`, map[string]string{
		"bucket": `failure results may not be written => permissions`,
	})},
	{"no s3:GetObject", s3Says(403, "AccessDenied", "state/", "GetObject"), missing("s3:GetObject", `bucket/team/state/\*`, `arn:aws:s3:::bucket/team/state/\*`, map[string]string{
		"bucket": `failure may not be read => permissions`,
	})},
	{"no s3:GetObject of results", s3Says(403, "AccessDenied", "runs/", "HeadObject"), missing("s3:GetObject", `bucket/team/runs/\*`, `arn:aws:s3:::bucket/team/runs/\*`, map[string]string{
		"bucket": `failure results may not be read => permissions`,
	})},
	{"no key behind the queue", func(r *rig) {
		r.sqsFault = func(op string, _ sqssim.Call) sqssim.Fault {
			if op != "ReceiveMessage" {
				return sqssim.Fault{}
			}
			return sqssim.Fault{Err: &sqssim.Error{Code: "KMS.AccessDeniedException", Message: "not authorized to perform: kms:Decrypt on resource: arn:aws:kms:us-west-2:000000000000:key/k-1 because no policy allows it"}}
		}
	}, missing("kms:Decrypt", "key/k-1", "arn:aws:kms:us-west-2:000000000000:key/k-1", nil)},
	{"a queue that takes anything", func(r *rig) { r.lenient = true }, map[string]string{
		"permissions": `warning sqs:SendMessage: an invalid request was carried out => dead list`,
	}},
}

// missing is what is said of a permission that is not there, and of what else shows.
func missing(action, short, arn string, more map[string]string) map[string]string {
	want := map[string]string{
		"permissions": `failure ^refused: ` + action + ` on ` + short + `$ => (?s)\{"Effect":"Allow","Action":\["` + action + `"\],"Resource":"` + arn + `"\}`,
	}
	maps.Copy(want, more)
	return want
}

// TestExamine spoils one thing at a time, and wants that and nothing else to be found.
func TestExamine(t *testing.T) {
	t.Parallel()
	seen := make(map[string]map[doctor.Status]bool)
	var mu sync.Mutex
	t.Cleanup(func() {
		if t.Failed() {
			return
		}
		for _, check := range checks {
			if !seen[check][doctor.OK] || !seen[check][doctor.Failure] && check != "prices" {
				t.Errorf("%s was seen %v, want it both well and failing", check, seen[check])
			}
		}
	})
	for _, tt := range examinations {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var got []doctor.Finding
			synctest.Test(t, func(t *testing.T) { // steps have seconds, and clocks are compared
				r := newRig(t)
				tt.spoil(r)
				got = doctor.Examine(t.Context(), r.cfg)
				verify(t, got, tt.want)
			})
			mu.Lock()
			defer mu.Unlock()
			for _, f := range got {
				for _, check := range checks {
					if strings.HasPrefix(f.Check, check) {
						if seen[check] == nil {
							seen[check] = make(map[doctor.Status]bool)
						}
						seen[check][f.Status] = true
					}
				}
			}
		})
	}
}

// checks are the names of all checks, in order.
var checks = []string{
	"credentials", "identity", "endpoint key", "clock", "endpoint", "base path", "model",
	"prices", "region", "queue", "queue settings", "dead letters", "bucket", "permissions",
}

func verify(t *testing.T, got []doctor.Finding, want map[string]string) {
	t.Helper()
	met := make(map[string]bool)
	for _, f := range got {
		met[f.Check] = true
		w, ok := want[f.Check]
		if !ok {
			w = "ok ."
		}
		status, text, _ := strings.Cut(w, " ")
		found, fix, _ := strings.Cut(text, " => ")
		if string(f.Status) != status || !regexp.MustCompile(found).MatchString(f.Found) || !regexp.MustCompile(fix).MatchString(f.Fix) {
			t.Errorf("%s: %s %q, fix %q, want %s", f.Check, f.Status, f.Found, f.Fix, w)
		}
		if bad := f.Status == doctor.Failure || f.Status == doctor.Warning; bad && f.Fix == "" || f.Found == "" || !bad && f.Fix != "" {
			t.Errorf("%s: %s %q, fix %q, want what was found, and what to do if it is wrong", f.Check, f.Status, f.Found, f.Fix)
		}
		if all := f.Found + f.Fix; strings.Contains(all, secret) || strings.Contains(all, keyID) || strings.Contains(all, "bedrock-api-key-") {
			t.Errorf("%s tells a secret: %q, fix %q", f.Check, f.Found, f.Fix)
		}
	}
	for check := range want {
		if !met[check] {
			t.Errorf("nothing was found of %s, want %s", check, want[check])
		}
	}
	var names []string
	for _, f := range got {
		name, _, _ := strings.Cut(f.Check, " us-")
		names = append(names, name)
	}
	if names = slices.Compact(names); !slices.Equal(names, checks) {
		t.Errorf("checks %q, want %q", names, checks)
	}
}

// TestNothingIsDisturbed examines a queue with a job in it, twice: the job is as it was
// afterwards, nothing was queued, and of the bucket's objects one is new.
func TestNothingIsDisturbed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		if _, err := r.client.SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: r.url("jobs"), MessageBody: aws.String("a job")}); err != nil {
			t.Fatal(err)
		}
		r.sent = make(chan string, 4)
		for range 2 {
			verify(t, doctor.Examine(t.Context(), r.cfg), map[string]string{"queue": "ok ^jobs, 1 waiting, 0 in flight"})
		}
		close(r.sent)
		for text := range r.sent {
			if !strings.Contains(text, `"DelaySeconds":901`) || !strings.Contains(text, `\u0001"`) {
				t.Errorf("SendMessageBatch of %s, want it to be invalid in two ways, so that a lenient SQS refuses it too", text)
			}
		}
		out, err := r.client.ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{
			QueueUrl: r.url("jobs"), MaxNumberOfMessages: 10, MessageSystemAttributeNames: []types.MessageSystemAttributeName{"All"},
		})
		if err != nil || len(out.Messages) != 1 || *out.Messages[0].Body != "a job" || out.Messages[0].Attributes["ApproximateReceiveCount"] != "1" {
			t.Errorf("ReceiveMessage = %+v, %v, want the job, received for the first time", out, err)
		}
		dead, err := r.client.GetQueueAttributes(t.Context(), &sqs.GetQueueAttributesInput{QueueUrl: r.url("jobs-dead"), AttributeNames: []types.QueueAttributeName{"All"}})
		if err != nil || dead.Attributes["ApproximateNumberOfMessages"] != "0" {
			t.Errorf("dead-letter queue: %v, %v, want nothing in it", dead, err)
		}
		var files []string
		err = filepath.WalkDir(filepath.Join(r.dir, "bucket"), func(path string, e os.DirEntry, err error) error {
			if err == nil && !e.IsDir() && !strings.Contains(path, ".s3sim") {
				files = append(files, strings.TrimPrefix(path, r.dir))
			}
			return err
		})
		if want := []string{"/bucket/team/state/doctor.json"}; err != nil || !slices.Equal(files, want) {
			t.Errorf("objects %q, %v, want %q", files, err, want)
		}
		if n := r.mantle().Counts(); n.Billed != 2 || n.Usage.Output > 32 {
			t.Errorf("%d calls billed with %d tokens of output, want one for each examination with 16 at most", n.Billed, n.Usage.Output)
		}
	})
}

// TestLanes wants each Region and tier to be called.
func TestLanes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.cfg.Mantle.Regions, r.cfg.Tiers = []string{"us-east-1", region}, []string{"flex", "default"}
		verify(t, doctor.Examine(t.Context(), r.cfg), map[string]string{
			"endpoint us-east-1": "ok us-east-1", "endpoint us-west-2": "ok us-west-2",
			"model us-east-1 flex": "ok on flex", "model us-east-1 default": "ok on default",
			"model us-west-2 flex": "ok on flex", "model us-west-2 default": "ok on default",
			"region": "ok calls go to us-east-1, us-west-2", "prices": `ok flex \$0.625 in, \$1.25 out; default \$1.25 in, \$2.50 out`,
		})
	})
}

// TestUntrusted meets a certificate that nobody knows, and a server without TLS, on
// real connections. They are in a bubble all the same: while one waits for the other
// end, time stands still in it, and no step takes too long.
func TestUntrusted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		handler := mantlesim.New(mantlesim.Config{})
		secure, open := httptest.NewTLSServer(handler), httptest.NewServer(handler)
		secure.Config.ErrorLog = nil
		t.Cleanup(secure.Close)
		t.Cleanup(open.Close)
		address, err := url.Parse(open.URL)
		if err != nil {
			t.Fatal(err)
		}
		for base, want := range map[string]string{
			secure.URL + "/v1":                   `failure its certificate is not trusted => SSL_CERT_FILE`,
			"https://" + address.Host + "/v1":    `failure does not speak TLS|HTTP response to HTTPS => .`,
			"http://127.0.0.1:1/openai/v1":       `failure the connection is refused => URL`,
			"http://user:pw@127.0.0.1:1/open/v1": `failure . => .`,
		} {
			r := newRig(t)
			r.cfg.Transport, r.cfg.Mantle.BaseURL, r.cfg.Mantle.APIKey = nil, base, "sk-0123456789abcdef"
			r.cfg.Mantle.Regions = nil
			got := doctor.Examine(t.Context(), r.cfg)
			for _, f := range got {
				if strings.Contains(f.Found+f.Fix, "user:pw") || strings.Contains(f.Found+f.Fix, "sk-0123456789abcdef") {
					t.Errorf("%s tells a secret: %q, fix %q", f.Check, f.Found, f.Fix)
				}
			}
			i := slices.IndexFunc(got, func(f doctor.Finding) bool { return f.Check == "endpoint" })
			status, text, _ := strings.Cut(want, " ")
			found, fix, _ := strings.Cut(text, " => ")
			if f := got[i]; string(f.Status) != status || !regexp.MustCompile(found).MatchString(f.Found) || !regexp.MustCompile(fix).MatchString(f.Fix) {
				t.Errorf("%s: %s %q, fix %q, want %s", base, f.Status, f.Found, f.Fix, want)
			}
		}
	})
}

func TestPrint(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	err := doctor.Print(&b, []doctor.Finding{
		{Check: "clock", Status: doctor.OK, Found: "agrees with the services", Fix: ""},
		{Check: "queue", Status: doctor.Warning, Found: "jobs: its attributes may not be read", Fix: "see permissions"},
		{Check: "bucket", Status: doctor.Skipped, Found: "no --bucket", Fix: ""},
		{Check: "permissions", Status: doctor.Failure, Found: "refused: a on b", Fix: "allow it:\n{1\n2}"},
	})
	want := `✓ clock        agrees with the services
! queue        jobs: its attributes may not be read
               → see permissions
- bucket       skipped: no --bucket
✗ permissions  refused: a on b
               → allow it:
                 {1
                 2}

1 failure, 1 warning, 1 not examined
`
	if err != nil || b.String() != want {
		t.Errorf("Print = %v, and wrote\n%s\nwant\n%s", err, b.String(), want)
	}
}
