package mantlesim

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// stamp is the layout of X-Amz-Date.
const stamp = "20060102T150405Z"

// errBadToken is what a credential that means nothing gets, and what gpt-oss gets
// on the wrong base path.
var errBadToken = &apiError{status: 401, code: "access_denied", kind: "authentication_error", message: "The security token included in the request is invalid."}

// A credential is what an Authorization header holds.
type credential struct {
	secret string // the bearer key, or the SigV4 access key id
	id     string // access key id that signed it, if any
	scope  string // date/region/service/aws4_request, if signed
	until  time.Time
}

// SetKeys replaces the accepted bearer keys and access key ids; nil accepts any
// and an empty list none. Calls in progress go on.
func (s *Server) SetKeys(keys []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys = slices.Clone(keys)
}

// authorize checks a request's credential and returns a short hash of it.
// Signatures are not verified: their shape, scope and access key id are.
func (s *Server) authorize(h http.Header) (hash string, err error) {
	cred, err := parseAuth(h, s.cfg.CheckShortTerm)
	if err != nil {
		return "", s.denied(err)
	}
	sum := sha256.Sum256([]byte(cred.secret))
	hash = hex.EncodeToString(sum[:4])
	if err := cred.check(s.cfg.Region); err != nil {
		return hash, s.denied(err)
	}
	s.mu.Lock()
	keys := s.keys
	s.mu.Unlock()
	if keys != nil && !slices.Contains(keys, cred.secret) && !slices.Contains(keys, cred.id) {
		return hash, s.denied(errBadToken)
	}
	return hash, nil
}

func (s *Server) denied(err error) error {
	e := *asAPIError(err)
	e.status = s.cfg.DeniedStatus
	return &e
}

func unauthorized(message string) error {
	return &apiError{status: 401, code: "access_denied", kind: "authentication_error", message: message}
}

func parseAuth(h http.Header, decode bool) (credential, error) {
	scheme, rest, _ := strings.Cut(h.Get("Authorization"), " ")
	rest = strings.TrimSpace(rest)
	switch {
	case rest == "":
		return credential{}, unauthorized("Missing Authentication Token")
	case scheme == "AWS4-HMAC-SHA256":
		return parseSigV4(rest, h)
	case !strings.EqualFold(scheme, "Bearer"):
		return credential{}, errBadToken
	}
	token, short := strings.CutPrefix(rest, "bedrock-api-key-")
	if !short || !decode {
		return credential{secret: rest}, nil
	}
	cred, err := parseShortTerm(token)
	cred.secret = rest
	return cred, err
}

// parseSigV4 reads "Credential=id/scope, SignedHeaders=…, Signature=…".
func parseSigV4(fields string, h http.Header) (credential, error) {
	f := map[string]string{}
	for part := range strings.SplitSeq(fields, ",") {
		k, v, _ := strings.Cut(strings.TrimSpace(part), "=")
		f[k] = v
	}
	id, scope, _ := strings.Cut(f["Credential"], "/")
	_, err := time.Parse(stamp, h.Get("X-Amz-Date"))
	if err != nil || id == "" || scope == "" || f["SignedHeaders"] == "" || len(f["Signature"]) != 64 {
		return credential{}, unauthorized("Authorization header is not a complete AWS4-HMAC-SHA256 signature.")
	}
	return credential{secret: id, id: id, scope: scope}, nil
}

// parseShortTerm decodes what follows "bedrock-api-key-": a presigned URL
// without its scheme, in base64.
func parseShortTerm(token string) (credential, error) {
	bad := unauthorized("Bedrock API key is malformed.")
	raw, err := base64.StdEncoding.DecodeString(token)
	if err != nil {
		return credential{}, bad
	}
	u, err := url.Parse("https://" + string(raw))
	if err != nil {
		return credential{}, bad
	}
	q := u.Query()
	id, scope, _ := strings.Cut(q.Get("X-Amz-Credential"), "/")
	at, err := time.Parse(stamp, q.Get("X-Amz-Date"))
	ttl, err2 := time.ParseDuration(q.Get("X-Amz-Expires") + "s")
	if err != nil || err2 != nil || ttl > 12*time.Hour || id == "" || q.Get("Action") != "CallWithBearerToken" || q.Get("X-Amz-Signature") == "" {
		return credential{}, bad
	}
	return credential{id: id, scope: scope, until: at.Add(ttl)}, nil
}

// check refuses a credential that has expired or is scoped elsewhere. Both
// service names pass: reports disagree about which one is right.
func (c credential) check(region string) error {
	if !c.until.IsZero() && !time.Now().Before(c.until) {
		return unauthorized("Bedrock API key has expired.")
	}
	if c.scope == "" {
		return nil
	}
	part := strings.Split(c.scope, "/")
	switch {
	case len(part) != 4 || part[2] != "bedrock" && part[2] != "bedrock-mantle":
		return unauthorized("Credential should be scoped to correct service: 'bedrock-mantle'.")
	case region != "" && part[1] != region:
		return unauthorized("Credential should be scoped to a valid region.")
	}
	return nil
}
