package doctor

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"upwell/cmd/internal/awsconf"
	"upwell/jobs/sqsqueue"
	"upwell/worker/mantle"
)

// providers says in words where the SDK's credentials are from, by the beginning
// of what it calls that.
var providers = []struct{ name, words string }{
	{"EnvConfigCredentials", "environment"},
	{"SharedConfigCredentials", "profile"},
	{"SSOProvider", "SSO"},
	{"LoginProvider", "aws login"},
	{"ProcessProvider", "credential process"},
	{"WebIdentityCredentials", "web identity, such as a Kubernetes service account"},
	{"AssumeRoleProvider", "assumed role"},
	{"EC2RoleProvider", "instance role"},
	{"CredentialsEndpointProvider", "container role"},
}

// credentials looks for AWS credentials, and reports whether there are any.
func (x *exam) credentials(ctx context.Context) bool {
	needed := x.cfg.AWSErr != nil || x.cfg.Queue != "" || x.cfg.Bucket != "" || x.way() == mantle.SigV4 || x.way() == mantle.ShortTerm
	creds, err := x.retrieve(ctx)
	switch {
	case err == nil:
		x.ok(checkCredentials, "%s", x.source(creds))
		return true
	case needed:
		if e, ok := errors.AsType[*awsconf.CredentialsError](err); ok {
			err = e.Err
		}
		why, _, _ := strings.Cut(said(err), ", operation error ") // what the last resort says at length
		x.note(checkCredentials, Failure, "no AWS credentials: "+why, awsconf.Advice(err, x.profile()))
	default:
		x.skip("no AWS credentials; queue and bucket would need some", checkCredentials)
	}
	return false
}

// profile is the one in use, empty for the default one.
func (x *exam) profile() string { return cmp.Or(x.cfg.Profile, x.cfg.Getenv("AWS_PROFILE")) }

func (x *exam) retrieve(ctx context.Context) (aws.Credentials, error) {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	switch {
	case x.cfg.AWSErr != nil:
		return aws.Credentials{}, x.cfg.AWSErr
	case x.cfg.AWS.Credentials == nil:
		return aws.Credentials{}, fmt.Errorf("none are configured")
	}
	return x.cfg.AWS.Credentials.Retrieve(ctx)
}

// source says whose the credentials are and where they were found.
func (x *exam) source(c aws.Credentials) string {
	from := cmp.Or(c.Source, "given")
	for _, p := range providers {
		if strings.HasPrefix(c.Source, p.name) {
			from = p.words
		}
	}
	if from == "profile" {
		from += " " + cmp.Or(x.profile(), "default")
	}
	found := from + ", key " + last4(c.AccessKeyID)
	if c.CanExpire {
		found += ", until " + c.Expires.Local().Format(time.TimeOnly) + ", then renewed"
	}
	return found
}

// identity asks STS who calls. Without an answer everything else may work all the
// same, unless the answer is that nobody knows the caller.
func (x *exam) identity(ctx context.Context, signed bool) {
	client := sts.NewFromConfig(x.cfg.AWS)
	queues := sqsqueue.NewClient(x.cfg.AWS).Options().BaseEndpoint
	switch {
	case !signed:
		x.skip("no AWS credentials", checkIdentity)
		return
	case x.cfg.AWS.Region == "":
		x.skip("no Region", checkIdentity)
		return
	case client.Options().BaseEndpoint == nil && queues != nil && !atAWS(*queues):
		x.skip("SQS is not AWS's: "+host(*queues), checkIdentity)
		return
	}
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	who, err := client.GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{}, func(o *sts.Options) { o.Retryer = brief() })
	switch {
	case err == nil:
		x.mu.Lock()
		x.account = aws.ToString(who.Account)
		x.mu.Unlock()
		x.ok(checkIdentity, "%s", aws.ToString(who.Arn))
	case badCredentials(err):
		found, fix := trouble(err)
		x.note(checkIdentity, Failure, found, fix)
	default:
		found, _ := trouble(err)
		x.note(checkIdentity, Warning, "STS does not say who calls: "+found, "nothing, if the rest is well: a worker does not need STS")
	}
}

// way returns how the endpoint is told who calls, as [mantle.New] settles it.
func (x *exam) way() mantle.Credentials {
	m := x.cfg.Mantle
	switch {
	case m.Credentials != "" && m.Credentials != mantle.Auto:
		return m.Credentials
	case m.APIKey != "" || m.BearerToken != "":
		return mantle.APIKey
	case m.AWS == nil:
		return mantle.Anonymous
	case m.Mint:
		return mantle.ShortTerm
	default:
		return mantle.SigV4
	}
}

// key says what the endpoint is called with. It comes after a client was made with
// it, or was not: err.
func (x *exam) key(err error) {
	ignored := ""
	if x.cfg.Getenv("OPENAI_API_KEY") != "" && x.cfg.Mantle.APIKey == "" {
		ignored = "; OPENAI_API_KEY is not used: it is no Bedrock key, and OPENAI_BASE_URL is not set"
	}
	switch way := x.way(); {
	case err != nil:
		x.note(checkKey, Failure, strings.TrimPrefix(said(err), "mantle: ")+ignored,
			"set AWS_BEARER_TOKEN_BEDROCK to a Bedrock key, or OPENAI_API_KEY and OPENAI_BASE_URL, or provide AWS credentials")
	case way == mantle.SigV4:
		x.ok(checkKey, "signs with the AWS credentials%s", ignored)
	case way == mantle.ShortTerm:
		x.ok(checkKey, "makes short-term keys of the AWS credentials, and renews them")
	case way == mantle.Anonymous:
		x.ok(checkKey, "none, and none is sent")
	default:
		x.bearer(ignored)
	}
}

// bearer describes the key that is sent as it is.
func (x *exam) bearer(ignored string) {
	key, name := x.cfg.Mantle.APIKey, "OPENAI_API_KEY"
	if key == "" {
		key, name = x.cfg.Mantle.BearerToken, "AWS_BEARER_TOKEN_BEDROCK"
	}
	key = strings.TrimSpace(key)
	t, short := readShortTerm(key)
	left := time.Until(t.ends)
	until := t.ends.Local().Format(time.DateTime)
	found := fmt.Sprintf("%s, short-term, of %s, for %s", name, last4(t.keyID), t.region)
	const renew = "--auth short-term makes keys of AWS credentials and renews them in time"
	switch {
	case short && left <= 0:
		x.note(checkKey, Failure, found+": it ended at "+until, "make a new one; "+renew)
	case short && left < 2*time.Hour:
		x.note(checkKey, Warning, found+": it ends in "+duration(left), "a worker stops then; "+renew)
	case short:
		x.ok(checkKey, "%s, until %s at most%s", found, until, ignored)
	case strings.HasPrefix(key, "bedrock-api-key-"):
		x.note(checkKey, Warning, name+" looks like a short-term key and cannot be decoded", "see that all of it was copied")
	case strings.HasPrefix(key, "ABSK"):
		x.ok(checkKey, "%s, a long-term Bedrock key, %s%s", name, last4(key), ignored)
	default:
		x.ok(checkKey, "%s, %s%s", name, last4(key), ignored)
	}
}

// A shortTerm is what a short-term key says of itself.
type shortTerm struct {
	keyID, region string
	ends          time.Time // with the credentials behind it, if that is sooner
}

// readShortTerm decodes a key: a presigned request in base64, see
// [mantle.ShortTermKey].
func readShortTerm(key string) (shortTerm, bool) {
	coded, ok := strings.CutPrefix(key, "bedrock-api-key-")
	if !ok {
		return shortTerm{}, false
	}
	text, err := base64.StdEncoding.DecodeString(coded)
	if err != nil {
		return shortTerm{}, false
	}
	_, query, _ := strings.Cut(string(text), "?")
	q, err := url.ParseQuery(query)
	if err != nil {
		return shortTerm{}, false
	}
	scope := strings.Split(q.Get("X-Amz-Credential"), "/") // key id, date, Region, service, aws4_request
	made, err := time.Parse("20060102T150405Z", q.Get("X-Amz-Date"))
	life, err2 := time.ParseDuration(q.Get("X-Amz-Expires") + "s")
	if err != nil || err2 != nil || len(scope) != 5 {
		return shortTerm{}, false
	}
	return shortTerm{keyID: scope[0], region: scope[2], ends: made.Add(life)}, true
}

// queueClient returns a client that gives up sooner than a worker's.
func (x *exam) queueClient() *sqs.Client {
	return sqsqueue.NewClient(x.cfg.AWS, func(o *sqs.Options) { o.Retryer = brief() })
}
