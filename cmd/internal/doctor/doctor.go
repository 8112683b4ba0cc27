// Package doctor examines what a worker needs before there is one: credentials,
// the endpoint, the queue, the bucket, and what may be done with them. What it
// finds wrong comes with what to do about it.
//
// # Checks
//
// The checks run side by side, in four strands: who calls; the endpoint, its
// base path and its model; the queue and its dead letters; the bucket. What
// needs the others' observations comes last: the clock, the Regions, and the
// permissions. A check that cannot be made because another failed says so, and
// is neither a failure nor a success.
//
// They speak to the services through the adapters that a worker uses, or through
// the same clients, so that credentials, signatures, proxies and paths are those
// of a worker.
//
// # What they change
//
// One object is stored, once, as <prefix>/state/doctor.json. Nothing is received
// from a queue and nothing is queued: permissions are probed with requests that
// are invalid, in two ways each, so that a lenient server refuses them too. SQS
// answers a batch whose entries are bad with 200 and a list of failures, and
// refuses it as a whole when the action is not allowed. A receive has no such
// form: if SQS looked at its parameters before the permission, a missing
// sqs:ReceiveMessage would not be seen. One call to the model is paid for, of 16
// tokens, for each lane; [Config.NoCall] leaves it out.
//
// # Guarantees
//
// An examination ends: every request has a timeout. No secret is in its
// findings, whatever the services say: keys are told by their last four
// characters.
package doctor

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"upwell/worker/mantle"
)

// A Status says how a check ended.
type Status string

// How a check may end.
const (
	OK      Status = "ok"
	Warning Status = "warning" // it works, and there is something to know
	Failure Status = "failure" // a worker would not work
	Skipped Status = "skipped" // not examined, and why
)

// A Finding is the outcome of one check.
type Finding struct {
	Check  string `json:"check"`
	Status Status `json:"status"`
	Found  string `json:"found"`
	Fix    string `json:"fix,omitzero"` // what to do: lines of text, or a policy to paste
}

// Names of the checks, in the order of their findings. Those of the endpoint and
// the model are followed by a Region and a tier when there are several.
const (
	checkCredentials = "credentials"
	checkIdentity    = "identity"
	checkKey         = "endpoint key"
	checkClock       = "clock"
	checkEndpoint    = "endpoint"
	checkPath        = "base path"
	checkModel       = "model"
	checkPrices      = "prices"
	checkRegion      = "region"
	checkQueue       = "queue"
	checkSettings    = "queue settings"
	checkDead        = "dead letters"
	checkBucket      = "bucket"
	checkPermissions = "permissions"
)

var order = []string{
	checkCredentials, checkIdentity, checkKey, checkClock, checkEndpoint, checkPath, checkModel,
	checkPrices, checkRegion, checkQueue, checkSettings, checkDead, checkBucket, checkPermissions,
}

const (
	// stepTimeout bounds one request to a service. They answer within a second,
	// and a network that drops packets never does.
	stepTimeout = 10 * time.Second

	// callTimeout is the default of [Config.CallTimeout].
	callTimeout = time.Minute
)

// Config says what to examine.
type Config struct {
	// AWS is the configuration that a worker would have, and AWSErr why there is
	// none.
	AWS    aws.Config
	AWSErr error

	// Profile is the AWS profile that was asked for, if one was: AWS_PROFILE
	// otherwise.
	Profile string

	// Mantle is how a worker would call the endpoint, and MantleErr why it could
	// not. HTTPClient is not used: see Transport.
	Mantle    mantle.Config
	MantleErr error

	// Model is the model that is to answer. Required.
	Model string

	// Tiers are the service tiers that are to answer. Default: "default".
	Tiers []string

	// Queue and Dead are names or URLs. Dead is by default the target of the
	// queue's redrive policy. Without Queue neither is examined.
	Queue, Dead string

	// Bucket is where results go, beneath Prefix. Without it none is examined.
	Bucket, Prefix string

	// NoCall leaves out all that costs money: the calls to the model.
	NoCall bool

	// CallTimeout bounds a call to the model. Default a minute.
	CallTimeout time.Duration

	// Getenv reads a variable, to tell where a credential is from. Default: all
	// are empty.
	Getenv func(string) string

	// Transport makes the requests to the endpoint. Default: one of
	// [http.DefaultTransport]'s kind.
	Transport http.RoundTripper
}

// An exam is one examination under way.
type exam struct {
	cfg   Config
	watch *watch // sees the answers of all services

	mu       sync.Mutex
	findings []Finding
	refused  []permission // actions that are not allowed
	probed   int          // actions that were tried
	doubts   []string     // actions of which nothing can be said, and why

	account     string // number of the AWS account, once it is known
	queueRegion string // likewise
	bucketHome  string // Region of the bucket
}

// Examine makes all checks, and returns a finding for each, in a fixed order. The
// end of ctx makes what is left fail.
func Examine(ctx context.Context, cfg Config) []Finding {
	if len(cfg.Tiers) == 0 {
		cfg.Tiers = []string{"default"}
	}
	cfg.CallTimeout = cmp.Or(cfg.CallTimeout, callTimeout)
	if cfg.Getenv == nil {
		cfg.Getenv = func(string) string { return "" }
	}
	cfg.Prefix = strings.Trim(cfg.Prefix, "/")
	x := &exam{cfg: cfg, watch: newWatch()}
	if cfg.AWS.HTTPClient != nil {
		x.cfg.AWS.HTTPClient = watchedClient{cfg.AWS.HTTPClient, x.watch}
	}
	signed := x.credentials(ctx)
	var strands sync.WaitGroup
	strands.Go(func() { x.identity(ctx, signed) })
	strands.Go(func() { x.endpoint(ctx, signed) })
	strands.Go(func() { x.queues(ctx, signed) })
	strands.Go(func() { x.bucket(ctx, signed) })
	strands.Wait()
	x.clock()
	x.prices()
	x.regions()
	x.permissions()
	return x.sorted()
}

// Count counts the findings of that status.
func Count(list []Finding, s Status) (n int) {
	for _, f := range list {
		if f.Status == s {
			n++
		}
	}
	return n
}

func (x *exam) note(check string, s Status, found, fix string) {
	f := Finding{Check: check, Status: s, Found: x.clean(found), Fix: x.clean(fix)}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.findings = append(x.findings, f)
}

func (x *exam) ok(check, format string, args ...any) {
	x.note(check, OK, fmt.Sprintf(format, args...), "")
}

// skip notes why checks were not made.
func (x *exam) skip(why string, checks ...string) {
	for _, c := range checks {
		x.note(c, Skipped, why, "")
	}
}

func (x *exam) sorted() []Finding {
	place := func(f Finding) int {
		best, longest := len(order), -1
		for i, name := range order {
			if (f.Check == name || strings.HasPrefix(f.Check, name+" ")) && len(name) > longest {
				best, longest = i, len(name)
			}
		}
		return best
	}
	slices.SortStableFunc(x.findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(place(a), place(b)), strings.Compare(a.Check, b.Check))
	})
	return x.findings
}

// keyID is what the ids of AWS's keys look like, and userinfo what a proxy's URL may
// have before its host.
var (
	keyID    = regexp.MustCompile(`\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{8,}`)
	userinfo = regexp.MustCompile(`://[^/\s@]+@`)
)

// clean takes secrets out of a text. What is shorter than eight bytes is no
// secret: it is that of a simulator.
func (x *exam) clean(s string) string {
	for _, secret := range []string{x.cfg.Mantle.APIKey, x.cfg.Mantle.BearerToken, x.cfg.Getenv("AWS_SECRET_ACCESS_KEY"), x.cfg.Getenv("AWS_SESSION_TOKEN")} {
		if len(secret) >= 8 {
			s = strings.ReplaceAll(s, secret, "[redacted]")
		}
	}
	s = keyID.ReplaceAllStringFunc(s, last4)
	return userinfo.ReplaceAllString(s, "://")
}

// last4 is how a key is told: by its end.
func last4(key string) string {
	if len(key) < 12 {
		return "…"
	}
	return "…" + key[len(key)-4:]
}
