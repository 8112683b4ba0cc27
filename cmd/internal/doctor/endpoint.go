package doctor

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"upwell/jobs"
	"upwell/throttle"
	"upwell/worker"
	"upwell/worker/mantle"
)

// outputLimit is the fewest output tokens that the Responses API takes a limit of.
const outputLimit = 16

// The base paths that models have at mantle.
var paths = []string{"/v1", "/openai/v1"}

// endpoint examines the way to the model: who calls, whether the hosts can be
// reached, the base path, and the model itself in each lane.
func (x *exam) endpoint(ctx context.Context, signed bool) {
	missing := x.missingKey(signed)
	client, wit, err := x.client(ctx, x.cfg.Mantle)
	x.key(missing)
	regions := x.callRegions()
	if client != nil {
		regions = client.Regions()
	}
	reached := x.reach(ctx, regions)
	switch {
	case x.cfg.NoCall:
		x.skip("--no-call", checkPath, checkModel)
	case missing != nil:
		x.skip("no credentials for the endpoint", checkPath, checkModel)
	case err != nil:
		x.note(checkModel, Failure, "the settings do not work: "+strings.TrimPrefix(said(err), "mantle: "), "correct the flags of the endpoint: upwell doctor --help")
		x.skip("the settings do not work", checkPath)
	case len(reached) == 0:
		x.skip("the endpoint cannot be reached", checkPath, checkModel)
	default:
		x.models(ctx, client, wit, reached)
	}
}

// missingKey says what to call the endpoint with is not there, if so.
func (x *exam) missingKey(signed bool) error {
	m := x.cfg.Mantle
	switch way := x.way(); {
	case way == mantle.APIKey && m.APIKey == "" && m.BearerToken == "":
		return errors.New("no key is set")
	case (way == mantle.SigV4 || way == mantle.ShortTerm) && !signed:
		return errors.New("no AWS credentials to call with, and no key")
	case way == mantle.Anonymous && (m.BaseURL == "" || atAWS(m.BaseURL)):
		return errors.New("no key and no AWS credentials")
	default:
		return nil
	}
}

// callRegions returns the Regions that calls would go to.
func (x *exam) callRegions() []string {
	if len(x.cfg.Mantle.Regions) > 0 {
		return x.cfg.Mantle.Regions
	}
	return []string{regionOf(x.cfg.Mantle.BaseURL)}
}

// client returns a client of the endpoint, and what watches it.
func (x *exam) client(ctx context.Context, cfg mantle.Config) (*mantle.Client, *witness, error) {
	if x.cfg.MantleErr != nil {
		return nil, nil, x.cfg.MantleErr
	}
	wit := &witness{inner: x.transport(), watch: x.watch}
	cfg.HTTPClient = &http.Client{Transport: wit}
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	client, err := mantle.New(ctx, cfg)
	return client, wit, err
}

func (x *exam) transport() http.RoundTripper {
	if x.cfg.Transport != nil {
		return x.cfg.Transport
	}
	return http.DefaultTransport
}

// named adds to a check's name what tells it from its like.
func named(check string, parts ...string) string {
	return strings.Join(slices.DeleteFunc(append([]string{check}, parts...), func(s string) bool { return s == "" }), " ")
}

// reach sends a request without credentials to each Region's host, and returns the
// Regions of those that answer, whatever they say.
func (x *exam) reach(ctx context.Context, regions []string) (reached []string) {
	answers := make([]bool, len(regions))
	var asking sync.WaitGroup
	for i, r := range regions {
		name := checkEndpoint
		if len(regions) > 1 {
			name = named(checkEndpoint, r)
		}
		asking.Go(func() { answers[i] = x.ask(ctx, name, r) })
	}
	asking.Wait()
	for i, r := range regions {
		if answers[i] {
			reached = append(reached, r)
		}
	}
	return reached
}

func (x *exam) ask(ctx context.Context, name, region string) bool {
	base := cmp.Or(x.cfg.Mantle.BaseURL, "https://bedrock-mantle."+cmp.Or(region, "us-west-2")+".api.aws/v1")
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimRight(base, "/")+"/models", nil)
	if err != nil {
		x.note(name, Failure, "the base URL is none", "check OPENAI_BASE_URL and --base-url")
		return false
	}
	through := ""
	if proxy, err := http.ProxyFromEnvironment(req); err == nil && proxy != nil {
		through = ", through the proxy " + proxy.Host
	}
	start := time.Now()
	res, err := (&witness{inner: x.transport(), watch: x.watch}).RoundTrip(req)
	if err != nil {
		found, fix := unreachable(err)
		x.note(name, Failure, req.URL.Host+through+": "+found, fix)
		return false
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, 1<<20)) // so that the connection can be used again
	x.ok(name, "%s answers, in %s%s", req.URL.Host, short(time.Since(start)), through)
	return true
}

// An outcome is what came of a call to the model.
type outcome struct {
	client *mantle.Client
	answer *worker.Answer // nil if there was none
	err    *worker.Error  // nil if the answer is a good one
	took   time.Duration
	path   string // that the last request went to
	tried  int    // paths, one after the other, by the client itself
	api    string
}

// works reports whether the endpoint knows the caller and the model: it answers, or
// has no room now.
func (o outcome) works() bool {
	return o.answer != nil || o.err != nil && (o.err.Kind == worker.Throttled || o.err.Kind == worker.Unavailable)
}

// misled reports whether a wrong base path may be the reason.
func (o outcome) misled() bool {
	return !o.works() && o.err != nil && (o.err.Kind == worker.Unauthorized || o.err.Status == http.StatusNotFound)
}

// models calls the model in one lane, on the other base path too if that is what
// may be wrong, and then in the other lanes on the path that works.
func (x *exam) models(ctx context.Context, client *mantle.Client, wit *witness, regions []string) {
	o := x.call(ctx, client, wit, regions[0], x.cfg.Tiers[0])
	o = x.path(ctx, o, regions[0])
	var calling sync.WaitGroup
	for i, r := range regions {
		for j, tier := range x.cfg.Tiers {
			name := checkModel
			if len(regions)*len(x.cfg.Tiers) > 1 {
				name = named(checkModel, r, tier)
			}
			if i == 0 && j == 0 {
				x.judge(name, r, tier, o)
				continue
			}
			calling.Go(func() { x.judge(name, r, tier, x.call(ctx, o.client, nil, r, tier)) })
		}
	}
	calling.Wait()
}

// call makes one call in the lane: a response, or a chat completion if the model
// makes no responses. wit, if not nil, has seen no other.
func (x *exam) call(ctx context.Context, client *mantle.Client, wit *witness, region, tier string) outcome {
	o := x.try(ctx, client, wit, region, tier, jobs.Responses)
	if o.err != nil && o.err.Kind == worker.Permanent && o.err.Status == http.StatusBadRequest && o.answer == nil {
		if chat := x.try(ctx, client, wit, region, tier, jobs.ChatCompletions); chat.works() {
			return chat
		}
	}
	return o
}

func (x *exam) try(ctx context.Context, client *mantle.Client, wit *witness, region, tier, api string) outcome {
	ctx, cancel := context.WithTimeout(ctx, x.cfg.CallTimeout)
	defer cancel()
	lane := throttle.Lane{Region: region, Model: x.cfg.Model, Tier: tier}
	o := outcome{client: client, api: api}
	start := time.Now()
	ans, err := client.Complete(ctx, worker.Call{Job: x.job(api), Lane: lane})
	o.took = time.Since(start)
	if err == nil {
		o.answer = &ans
	} else if e, ok := errors.AsType[*worker.Error](err); ok {
		o.err, o.answer = e, e.Answer // an answer that was cut short is one
	} else {
		o.err = &worker.Error{Err: err}
	}
	if wit != nil {
		for _, p := range wit.went() {
			if base, ok := strings.CutSuffix(p, strings.TrimPrefix(api, "/v1")); ok {
				o.path, o.tried = base, o.tried+1
			}
		}
	}
	return o
}

// job returns the cheapest request that the API takes.
func (x *exam) job(api string) *jobs.Job {
	const prompt = "Reply with OK."
	body := map[string]any{"model": x.cfg.Model, "store": false, "input": prompt, "max_output_tokens": outputLimit}
	if api == jobs.ChatCompletions {
		message := map[string]string{"role": "user", "content": prompt}
		body = map[string]any{"model": x.cfg.Model, "messages": []any{message}, "max_tokens": 1}
	}
	text, err := json.Marshal(body)
	if err != nil {
		panic(err) // strings and numbers
	}
	return &jobs.Job{Key: jobs.Key{Run: "doctor", CustomID: "doctor"}, URL: api, Model: x.cfg.Model, Body: text}
}

// path judges the base path by the outcome of a call on it, and returns the outcome
// on another path if that works and this one does not.
func (x *exam) path(ctx context.Context, o outcome, region string) outcome {
	switch {
	case o.works() && o.tried > 1 && o.path != "" && x.cfg.Mantle.BaseURL == "":
		x.note(checkPath, Warning, fmt.Sprintf("%s is at %s, which the endpoint had to say", x.cfg.Model, o.path), x.usePath(o.path))
	case o.works():
		x.ok(checkPath, "%s is at %s", x.cfg.Model, cmp.Or(o.path, "the base URL"))
	case o.misled():
		for _, other := range x.otherPaths(o.path) {
			client, wit, err := x.client(ctx, other.cfg)
			if err != nil {
				continue
			}
			if better := x.call(ctx, client, wit, region, x.cfg.Tiers[0]); better.works() {
				x.note(checkPath, Failure, fmt.Sprintf("%s is refused at %s as if the credentials were wrong (%d), and answers at %s",
					x.cfg.Model, o.path, o.err.Status, other.path), other.fix)
				return better
			}
		}
		x.skip(fmt.Sprintf("%s answers at no path", x.cfg.Model), checkPath)
	default:
		x.skip("the model did not answer", checkPath)
	}
	return o
}

// usePath is the flag that sets the model's base path.
func (x *exam) usePath(path string) string {
	return fmt.Sprintf("--base-path %s=%s", x.cfg.Model, path)
}

// A detour is a configuration with another base path.
type detour struct {
	cfg       mantle.Config
	path, fix string
}

// otherPaths returns configurations with the base paths that were not tried.
func (x *exam) otherPaths(tried string) (list []detour) {
	for _, p := range paths {
		if p == tried {
			continue
		}
		d := detour{cfg: x.cfg.Mantle, path: p, fix: x.usePath(p)}
		if base := d.cfg.BaseURL; base != "" {
			rest, ok := strings.CutSuffix(strings.TrimRight(base, "/"), tried)
			if !ok {
				continue
			}
			d.cfg.BaseURL = rest + p
			d.fix = "OPENAI_BASE_URL=" + d.cfg.BaseURL
		} else {
			d.cfg.Paths = maps.Clone(d.cfg.Paths)
			if d.cfg.Paths == nil {
				d.cfg.Paths = make(map[string]string)
			}
			d.cfg.Paths[x.cfg.Model] = p
		}
		list = append(list, d)
	}
	return list
}

// judge notes what a call says of its lane.
func (x *exam) judge(name, region, tier string, o outcome) {
	if o.answer != nil {
		x.answered(name, tier, o)
		return
	}
	e := o.err
	said, _, _ := strings.Cut(strings.TrimPrefix(e.Error(), "mantle: "), ": check ")
	said = strings.TrimSuffix(said, ": wrong endpoint path")
	switch {
	case e.Kind == worker.Throttled:
		x.note(name, Warning, said, "nothing: it knows the caller, and a worker finds the rate that there is room for")
	case e.Kind == worker.Unavailable:
		x.note(name, Warning, said, "nothing, unless it stays so: then another tier (--tier flex,default) or Region")
	case o.timedOut() && tier == "flex":
		x.note(name, Warning, fmt.Sprintf("no answer within %s, which flex may take", short(x.cfg.CallTimeout)), "ask longer: --call-timeout 15m")
	case o.timedOut():
		x.note(name, Failure, fmt.Sprintf("no answer within %s", short(x.cfg.CallTimeout)), "try again, longer: --call-timeout 5m; or another Region")
	case e.Status == http.StatusNotFound:
		x.note(name, Failure, said, "check the spelling of "+x.cfg.Model+", and that the Region has it: xai.grok-4.3 is in us-west-2, us-east-1 and us-east-2")
	case e.Kind == worker.Unauthorized && x.mayNot(said, region):
		x.note(name, Failure, said, "see permissions")
	case e.Kind == worker.Unauthorized:
		x.note(name, Failure, said, x.fixAccess())
	case e.Status >= 500:
		x.note(name, Failure, said, "try again; if it stays so, look at the AWS Health Dashboard, or call another Region")
	case e.Status == 0:
		x.note(name, Failure, said, "try again; if it stays so, check the network and what is in between")
	default:
		x.note(name, Failure, said, "check the model, and that it takes text and this tier")
	}
}

// mantleAction finds an action of the endpoint's in a text.
var mantleAction = regexp.MustCompile(`\bbedrock-mantle:[A-Z]\w+`)

// mayNot notes the action that a refusal names, if it names one.
func (x *exam) mayNot(said, region string) bool {
	action := mantleAction.FindString(said)
	if action == "" {
		return false
	}
	resource := "*" // as a bearer token is no resource
	if action != "bedrock-mantle:CallWithBearerToken" {
		resource = fmt.Sprintf("arn:%s:bedrock-mantle:%s:*:project/default", partition(region), region)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if p := (permission{action, resource}); !slices.Contains(x.refused, p) {
		x.refused = append(x.refused, p)
	}
	return true
}

func (o outcome) timedOut() bool {
	return o.err != nil && errors.Is(o.err, context.DeadlineExceeded)
}

// fixAccess says what allows a call.
func (x *exam) fixAccess() string {
	if base := x.cfg.Mantle.BaseURL; base != "" && !atAWS(base) {
		return "check that the key is this endpoint's, and that the base URL ends with the API's version"
	}
	actions := "bedrock-mantle:CreateInference"
	if w := x.way(); w == mantle.APIKey || w == mantle.ShortTerm {
		actions += " and bedrock-mantle:CallWithBearerToken"
	}
	return "allow " + actions + " (the managed policy AmazonBedrockMantleInferenceAccess has it), and see that the account has access to " +
		x.cfg.Model + " in this Region; a key must be of this Region and not have ended"
}

func (x *exam) answered(name, tier string, o outcome) {
	a := o.answer
	cost := "at a price unknown"
	if a.CostUSD.Known() {
		cost = fmt.Sprintf("$%.6f", float64(a.CostUSD))
	}
	found := fmt.Sprintf("%s answered in %s on %s: %d tokens in, %d out, %s", x.cfg.Model, short(o.took), cmp.Or(a.Tier, tier),
		a.Usage.InputTokens, a.Usage.OutputTokens, cost)
	switch {
	case a.Tier != "" && a.Tier != tier:
		x.note(name, Warning, found+", and not on "+tier, "see that nothing in between drops service_tier")
	case o.api == jobs.ChatCompletions:
		x.note(name, Warning, found+"; it makes chat completions only", "jobs for it need the url "+jobs.ChatCompletions)
	default:
		x.ok(name, "%s", found)
	}
}

// short words how long something took.
func short(d time.Duration) string {
	switch {
	case d < time.Second:
		return max(d.Round(time.Millisecond), time.Millisecond).String()
	case d < time.Minute:
		return d.Round(100 * time.Millisecond).String()
	default:
		return duration(d)
	}
}

// prices looks the model up in the price lists.
func (x *exam) prices() {
	list := x.cfg.Mantle.Prices.Known()
	var known, unknown []string
	asOf := ""
	for _, tier := range x.cfg.Tiers {
		p, ok := list.Models[x.cfg.Model][tier]
		if !ok {
			unknown = append(unknown, tier)
			continue
		}
		known = append(known, fmt.Sprintf("%s %s in, %s out", tier, dollars(p.Input), dollars(p.Output)))
		asOf = p.AsOf
	}
	if len(unknown) > 0 {
		x.note(checkPrices, Warning, "none for "+x.cfg.Model+" on "+strings.Join(unknown, ", ")+": costs will be unknown, and no budget can be kept to",
			"give them with --prices FILE, in the form of worker/mantle/prices.json")
		return
	}
	x.ok(checkPrices, "for a million tokens: %s, as of %s", strings.Join(known, "; "), asOf)
}

// dollars writes a price with two digits behind the point, or more if it has them.
func dollars(usd float64) string {
	if text := fmt.Sprintf("$%.2f", usd); text >= fmt.Sprintf("$%g", usd) {
		return text
	}
	return fmt.Sprintf("$%g", usd)
}

// regionOf returns the Region in the host of a URL of AWS's, or nothing.
func regionOf(raw string) string {
	u, err := url.Parse(raw)
	if err != nil || !atAWS(raw) {
		return ""
	}
	for part := range strings.SplitSeq(u.Hostname(), ".") {
		if regionName.MatchString(part) {
			return part
		}
	}
	return ""
}
