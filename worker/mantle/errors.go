package mantle

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unicode"
	"unicode/utf8"

	"upwell/jobs"
	"upwell/throttle"
	"upwell/worker"
)

const (
	// maxQuote bounds what is quoted of an endpoint's text, in bytes. Its
	// messages are a sentence or two; more is a page or our own prompt.
	maxQuote = 400

	// maxRetryAfter bounds Retry-After: a wrong clock at the other end must not
	// stop a lane for a day.
	maxRetryAfter = time.Hour

	// maxSearched bounds how much of an endpoint's text is looked at, in bytes:
	// more than any message, and little enough to scrub for each error.
	maxSearched = 64 << 10
)

// A response is an HTTP answer, read.
type response struct {
	status int
	header http.Header
	body   []byte
	said   apiError // in a body with status 400 or above
}

// idOf returns the endpoint's name for the call.
func (c *Client) idOf(r *response) string {
	for _, h := range []string{"X-Request-Id", "X-Amzn-Requestid"} {
		if id := r.header.Get(h); id != "" {
			return c.quote(id, 128)
		}
	}
	return ""
}

// judged makes an error of a verdict on r.
func (c *Client) judged(r *response, v verdict) *worker.Error {
	text := c.quote(v.why, maxQuote)
	switch {
	case c.cfg.Redact:
		text = shorten(cmp.Or(v.bare, "status "+strconv.Itoa(r.status)), maxFindings)
	case v.class == jobs.SchemaFailed:
		text = c.quote(v.why, maxFindings)
	}
	if v.fix != "" {
		text += ": " + c.scrub(v.fix) // it names the host of a redirect
	}
	return &worker.Error{
		Kind: v.kind, Class: v.class, Status: r.status, RequestID: c.idOf(r),
		RetryAfter: retryAfter(r.header, time.Now()),
		Err:        errors.New("mantle: " + text),
	}
}

// An apiError is an error body in one of the shapes that are met: OpenAI's
// object, the same with a bare string or with an object for a message, xAI's
// string beside a code, AWS's message beside a __type, FastAPI's detail.
type apiError struct{ Code, Type, Message string }

func (e apiError) String() string {
	code := cmp.Or(e.Code, e.Type)
	if code == "" || e.Message == "" {
		return code + e.Message
	}
	return code + ": " + e.Message
}

// readError reads an error from a body or from its "error" member.
func readError(text []byte) apiError {
	var s string
	if json.Unmarshal(text, &s) == nil {
		return apiError{Message: head(s)}
	}
	var b struct {
		Error   json.RawMessage `json:"error"`
		Code    json.RawMessage `json:"code"`
		Type    json.RawMessage `json:"type"`
		AWSType json.RawMessage `json:"__type"`
		Message json.RawMessage `json:"message"`
		Detail  json.RawMessage `json:"detail"`
	}
	if json.Unmarshal(text, &b) != nil {
		return apiError{Message: page(text)}
	}
	if loose(b.Error) != "" {
		e := readError(b.Error)
		e.Code = cmp.Or(e.Code, loose(b.Code))
		return e
	}
	return apiError{
		Code:    loose(b.Code),
		Type:    cmp.Or(loose(b.AWSType), loose(b.Type)),
		Message: cmp.Or(loose(b.Message), loose(b.Detail)),
	}
}

// page words a body that is not JSON.
func page(text []byte) string {
	if bytes.HasPrefix(bytes.TrimSpace(text), []byte("<")) {
		return "an HTML page"
	}
	return head(string(text))
}

func head(s string) string { return s[:min(len(s), maxSearched)] }

// loose returns a string's text, null's nothing, and any other value as JSON.
func loose(v json.RawMessage) string {
	var s string
	if len(v) == 0 || json.Unmarshal(v, &s) == nil {
		return head(s)
	}
	return head(string(v))
}

// What machine-readable codes and types contain, in the form that [bare] gives
// them, and what it means. OpenAI, AWS, xAI and vLLM each have their own.
var (
	throttleCodes = []string{"ratelimit", "toomanyrequests", "throttl"}
	capacityCodes = []string{"overloaded", "capacity", "unavailable", "slowdown", "notready"}
	contextCodes  = []string{"contextlength", "contextwindow"}
	deniedCodes   = []string{"accessdenied", "permissiondenied", "invalidapikey", "unrecognizedclient", "expiredtoken"}
	filterCodes   = []string{"contentfilter", "contentpolicy"}
)

// bare makes rate_limit_exceeded and RateLimitExceeded one.
func bare(code string) string {
	return strings.ToLower(strings.NewReplacer("_", "", "-", "", " ", "").Replace(code))
}

func (e apiError) codeHas(parts ...string) bool {
	return containsAny(bare(e.Code), parts...) || containsAny(bare(e.Type), parts...)
}

// says reports whether the message contains one of the phrases. It is for those
// traps only that no status and no code tells apart.
func (e apiError) says(phrases ...string) bool {
	return containsAny(strings.ToLower(e.Message), phrases...)
}

func containsAny(s string, parts ...string) bool {
	for _, p := range parts {
		if strings.Contains(s, p) {
			return true
		}
	}
	return false
}

// offRoute reports whether the answer is the one of a model on the wrong base
// path: "The model `x` isn't supported on this route", whatever the status.
func (r *response) offRoute() bool {
	return r.said.says("supported on this route")
}

// What a person can do about an Unauthorized error.
const (
	fixAccess = "check the credentials and their Region, the IAM actions bedrock-mantle:CreateInference and, with a key, " +
		"bedrock-mantle:CallWithBearerToken, and the account's access to the model; a wrong base path is answered like this too"
	fixKey  = "check the API key, that it is this endpoint's, and its access to the model"
	fixBase = "check OPENAI_BASE_URL: it ends with the API's version"
	fixPath = "check the model's base path"
)

// refused makes an error of an answer whose status is not 2xx.
func (c *Client) refused(call worker.Call, res *response) *worker.Error {
	v := c.verdictOn(call, res, res.said)
	v.why = strings.TrimSpace(strconv.Itoa(res.status) + " " + http.StatusText(res.status))
	v.bare = v.why
	if code := cmp.Or(res.said.Code, res.said.Type); word.MatchString(code) {
		v.bare += ": " + code
	}
	if said := res.said.String(); said != "" {
		v.why += ": " + said
	}
	return c.judged(res, v)
}

// word is what a code looks like, and a sentence with somebody's text in it not.
var word = regexp.MustCompile(`^[\w.-]{1,40}$`)

// verdictOn judges by the status first, and by codes where a status has more
// than one meaning. It says nothing but what to fix.
func (c *Client) verdictOn(call worker.Call, res *response, e apiError) verdict {
	s := res.status
	switch {
	case s < 400:
		return verdict{kind: worker.Unauthorized, fix: redirected(res) + c.fix(fixBase, fixPath)}
	case res.offRoute():
		return verdict{kind: worker.Unauthorized, fix: c.fix(fixBase, fixPath)}
	case e.codeHas(filterCodes...), e.says("usage guidelines"):
		// xAI answers 403 to a prompt that it finds against its guidelines.
		// That is this job's matter, and no reason to stop the others.
		return verdict{kind: worker.Permanent, class: jobs.Refused}
	case s == http.StatusServiceUnavailable, s == 529:
		return verdict{kind: worker.Unavailable}
	case s == http.StatusTooManyRequests:
		return tooMany(e)
	case s == http.StatusUnauthorized, s == http.StatusForbidden, isDenied(e):
		return verdict{kind: worker.Unauthorized, fix: c.fix(fixKey, fixAccess)}
	case s == http.StatusPaymentRequired, s == http.StatusProxyAuthRequired:
		return verdict{kind: worker.Unauthorized}
	case s == http.StatusNotFound, s == http.StatusMethodNotAllowed:
		return c.notFound(call, e)
	case e.codeHas(throttleCodes...), e.says("too many tokens, please wait", "too many requests"):
		return verdict{kind: worker.Throttled}
	case e.codeHas(capacityCodes...):
		return verdict{kind: worker.Unavailable}
	case s >= 500, s == http.StatusRequestTimeout, s == http.StatusConflict,
		s == http.StatusFailedDependency, s == http.StatusTooEarly:
		// 424 is Bedrock's ModelErrorException: the model failed, not the request.
		return verdict{kind: worker.Transient}
	default:
		return badRequest(e)
	}
}

// tooMany tells apart who asks too much from who asks a tier that is full, for
// which some endpoints have the same status.
func tooMany(e apiError) verdict {
	if e.codeHas(capacityCodes...) && !e.codeHas("slowdown") {
		return verdict{kind: worker.Unavailable}
	}
	return verdict{kind: worker.Throttled}
}

// isDenied reports whether a status other than 401 and 403 hides a refusal of
// the caller. The second phrase is that of mantle for Grok on the wrong path,
// and the third that of xAI, with status 400.
func isDenied(e apiError) bool {
	return e.codeHas(deniedCodes...) || e.says("is not enabled for this account", "incorrect api key")
}

func (c *Client) notFound(call worker.Call, e apiError) verdict {
	if e.codeHas("modelnotfound") || e.says("model") && e.says("does not exist", "not found") {
		return verdict{kind: worker.Permanent, class: jobs.BadRequest, fix: fmt.Sprintf("check the model, %q", call.Job.Model)}
	}
	return verdict{kind: worker.Unauthorized, fix: "wrong endpoint path: " + c.fix(fixBase, fixPath)}
}

func badRequest(e apiError) verdict {
	if e.codeHas(contextCodes...) || e.says("maximum context length", "maximum prompt length", "context window", "too long") {
		return verdict{kind: worker.Permanent, class: jobs.ContextLength}
	}
	return verdict{kind: worker.Permanent, class: jobs.BadRequest}
}

// redirected names the host that an answer points to; the rest of the URL may
// be somebody's secret.
func redirected(res *response) string {
	to, err := url.Parse(res.header.Get("Location"))
	if err != nil || to.Host == "" {
		return ""
	}
	return "redirected to " + to.Host + ": "
}

// fix returns the advice for where the calls go.
func (c *Client) fix(elsewhere, atMantle string) string {
	if c.cfg.BaseURL != "" {
		return elsewhere
	}
	return atMantle
}

// failed makes an error of a call that got no answer.
func (c *Client) failed(ctx context.Context, err error) *worker.Error {
	_, unsent := errors.AsType[*unsentError](err)
	kind := worker.Transient
	if unsent {
		kind = worker.Unavailable // no job is to blame for that
	}
	if ctx.Err() != nil {
		return &worker.Error{Kind: kind, Unsent: unsent, Err: fmt.Errorf("mantle: given up: %w", context.Cause(ctx))}
	}
	if e, ok := errors.AsType[*credentialsError](err); ok {
		return &worker.Error{Kind: worker.Unauthorized, Err: fmt.Errorf("mantle: %s", c.quote(e.Error(), maxQuote))}
	}
	return &worker.Error{Kind: kind, Unsent: unsent, Err: fmt.Errorf("mantle: %s", c.quote(lost(err), maxQuote))}
}

// A connecting knows whether a request has had a connection. The transport makes
// one of its own, with a name to look up and a handshake, before it writes anything.
type connecting struct{ asked, had atomic.Bool }

// watched returns a context whose request is watched.
func (l *connecting) watched(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn: func(string) { l.asked.Store(true) },
		GotConn: func(httptrace.GotConnInfo) { l.had.Store(true) },
	})
}

// judge marks the error of a request that never had a connection. A transport that
// does not tell may have had one.
func (l *connecting) judge(err error) error {
	if err == nil || !l.asked.Load() || l.had.Load() {
		return err
	}
	return &unsentError{err}
}

// An unsentError is that of a request of which nothing has left.
type unsentError struct{ err error }

func (e *unsentError) Error() string { return e.err.Error() }
func (e *unsentError) Unwrap() error { return e.err }

// lost says in few words how a connection ended.
func lost(err error) string {
	if _, long := errors.AsType[*http.MaxBytesError](err); long {
		return fmt.Sprintf("the answer is longer than %d MiB", maxAnswer>>20)
	}
	if e, ok := errors.AsType[*url.Error](err); ok {
		err = e.Err // without the URL, which the lane tells
	}
	var timeout net.Error
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return "the answer broke off"
	case errors.Is(err, io.EOF):
		return "the connection was closed without an answer"
	case errors.As(err, &timeout) && timeout.Timeout():
		return "timed out: " + err.Error()
	default:
		return "no answer: " + err.Error()
	}
}

// retryAfter returns how long the endpoint wants to be left alone: the longest
// of what its headers say, in either form, and an hour at most. What makes no
// sense says nothing.
func retryAfter(h http.Header, now time.Time) time.Duration {
	return max(wait(h.Get("Retry-After-Ms"), time.Millisecond), wait(h.Get("Retry-After"), time.Second), until(h, now))
}

func wait(s string, unit time.Duration) time.Duration {
	n, err := strconv.ParseFloat(strings.TrimSpace(s), 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) || !(n > 0) { // NaN is not above 0 either
		return 0
	}
	return time.Duration(min(n, float64(maxRetryAfter/unit)) * float64(unit))
}

// until reads the form with a date, by the clock of whoever wrote it.
func until(h http.Header, now time.Time) time.Duration {
	t, err := http.ParseTime(h.Get("Retry-After"))
	if err != nil {
		return 0
	}
	if theirs, err := http.ParseTime(h.Get("Date")); err == nil {
		now = theirs
	}
	return min(max(t.Sub(now), 0), maxRetryAfter)
}

// noRegion is what a lane learns of a Region that nobody set up.
func (c *Client) noRegion(l throttle.Lane) *worker.Error {
	return &worker.Error{Kind: worker.Unauthorized, Err: fmt.Errorf(
		"mantle: Region %q is not one of those configured: %s", l.Region, strings.Join(c.cfg.Regions, ", "))}
}

// quote returns what may be quoted of a text: scrubbed first, so that no secret
// is cut in two, and then no longer than n bytes.
func (c *Client) quote(s string, n int) string {
	return shorten(c.scrub(head(s)), n)
}

// shorten makes s one line of at most n bytes.
func shorten(s string, n int) string {
	s = strings.Join(strings.FieldsFunc(strings.ToValidUTF8(s, ""), func(r rune) bool {
		return unicode.IsSpace(r) || unicode.IsControl(r)
	}), " ")
	if len(s) <= n {
		return s
	}
	cut := n - len("…")
	for !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "…"
}
