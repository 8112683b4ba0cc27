package mantle

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"golang.org/x/sync/singleflight"
)

// Credentials names a way to prove who calls.
type Credentials string

// Ways to prove who calls.
const (
	// Auto takes the first that is given of Config.APIKey, Config.BearerToken
	// and Config.AWS. AWS credentials are used at AWS's hosts only; a host that
	// is somebody else's, such as a gateway's, gets none.
	Auto Credentials = "auto"

	// APIKey sends Config.APIKey, or else Config.BearerToken, as it is.
	APIKey Credentials = "key"

	// ShortTerm makes Bedrock keys of the AWS credentials, one for each Region,
	// and renews them before they end. See [ShortTermKey].
	ShortTerm Credentials = "short-term"

	// SigV4 signs every request with the AWS credentials. There is no key, and
	// the IAM action bedrock-mantle:CallWithBearerToken is not needed.
	SigV4 Credentials = "sigv4"

	// Anonymous sends nothing, for an endpoint that asks for nothing.
	Anonymous Credentials = "none"
)

// maxKeyTTL is AWS's bound on the life of a short-term key.
const maxKeyTTL = 12 * time.Hour

// fixCredentials replaces Auto, and checks that what the way needs is there.
func (c *Config) fixCredentials() error {
	c.APIKey = strings.TrimSpace(c.APIKey)
	if c.APIKey == "" {
		c.APIKey = strings.TrimSpace(c.BearerToken)
	}
	if c.Credentials == "" || c.Credentials == Auto {
		c.Credentials = c.auto()
	}
	switch c.Credentials {
	case APIKey:
		return checkKey(c.APIKey)
	case ShortTerm, SigV4:
		return c.checkAWS()
	case Anonymous:
		if c.BaseURL == "" || c.atAWS() {
			return errors.New("credentials: none given: set an API key, AWS_BEARER_TOKEN_BEDROCK or AWS credentials")
		}
		return nil
	default:
		return fmt.Errorf("credentials: %q, want %s, %s, %s, %s or %s", c.Credentials, Auto, APIKey, ShortTerm, SigV4, Anonymous)
	}
}

func (c *Config) auto() Credentials {
	switch {
	case c.APIKey != "":
		return APIKey
	case c.AWS == nil || !c.atAWS():
		return Anonymous
	case c.Mint:
		return ShortTerm
	default:
		return SigV4
	}
}

// atAWS reports whether calls go to a host of AWS's, private ones included.
func (c *Config) atAWS() bool {
	u, err := url.Parse(c.BaseURL)
	if c.BaseURL == "" || err != nil {
		return true
	}
	host := strings.ToLower(u.Hostname())
	return strings.HasSuffix(host, ".api.aws") || strings.HasSuffix(host, ".amazonaws.com")
}

func (c *Config) checkAWS() error {
	if c.AWS == nil {
		return fmt.Errorf("credentials: %s needs AWS credentials", c.Credentials)
	}
	if c.Regions[0] == "" {
		return fmt.Errorf("credentials: %s needs a Region, and the base URL names none: set regions", c.Credentials)
	}
	if _, ok := c.AWS.(*aws.CredentialsCache); !ok {
		c.AWS = aws.NewCredentialsCache(c.AWS)
	}
	return nil
}

// checkKey catches a key pasted with more than itself, without quoting it.
func checkKey(key string) error {
	if key == "" {
		return errors.New("credentials: no API key given")
	}
	for _, r := range key {
		if r <= ' ' || r > '~' {
			return errors.New("credentials: the API key contains white space or other characters that no key has")
		}
	}
	return nil
}

func checkTTL(ttl time.Duration) error {
	if ttl < time.Second || ttl > maxKeyTTL {
		return fmt.Errorf("key TTL %v: want 1s to %v", ttl, maxKeyTTL)
	}
	return nil
}

// A credentialsError says that there is nothing to prove who calls with.
type credentialsError struct{ err error }

func (e *credentialsError) Error() string { return "credentials: " + e.err.Error() }
func (e *credentialsError) Unwrap() error { return e.err }

// emptyHash is the SHA-256 of no bytes, the body of the request in a key.
const emptyHash = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

// ShortTermKey makes a Bedrock API key of AWS credentials, without a network
// call. The key has the permissions of the credentials, works in region only,
// and ends after ttl, a second to 12 hours, or with the credentials if that is
// sooner.
//
// The key is a presigned request: the algorithm is that of
// aws/aws-bedrock-token-generator-js.
func ShortTermKey(ctx context.Context, creds aws.Credentials, region string, ttl time.Duration) (string, error) {
	if err := checkTTL(ttl); err != nil {
		return "", fmt.Errorf("mantle: short-term key: %w", err)
	}
	q := url.Values{"Action": {"CallWithBearerToken"}, "X-Amz-Expires": {strconv.Itoa(int(ttl.Seconds()))}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://bedrock.amazonaws.com/?"+q.Encode(), nil)
	if err != nil {
		return "", fmt.Errorf("mantle: short-term key: %w", err)
	}
	signed, _, err := v4.NewSigner().PresignHTTP(ctx, creds, req, emptyHash, "bedrock", region, time.Now().UTC())
	if err != nil {
		return "", fmt.Errorf("mantle: short-term key: %w", err)
	}
	text := strings.TrimPrefix(signed, "https://") + "&Version=1"
	return "bedrock-api-key-" + base64.StdEncoding.EncodeToString([]byte(text)), nil
}

// mintTimeout bounds how long AWS credentials may take to come: instance
// metadata and STS answer within seconds, or not at all.
const mintTimeout = 30 * time.Second

// A keyring makes short-term keys and keeps one for each Region.
type keyring struct {
	creds  aws.CredentialsProvider
	ttl    time.Duration
	vault  *vault
	flight singleflight.Group // by Region

	mu   sync.Mutex
	keys map[string]mintedKey // by Region
}

type mintedKey struct {
	text  string
	renew time.Time
}

// key returns the Region's key. Callers that come while one is being made wait
// for that one, and share its error.
func (k *keyring) key(ctx context.Context, region string) (string, error) {
	if text := k.cached(region); text != "" {
		return text, nil
	}
	made := k.flight.DoChan(region, func() (any, error) {
		// The key is for everybody who waits, not only for the first.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), mintTimeout)
		defer cancel()
		return k.mint(ctx, region)
	})
	select {
	case r := <-made:
		if r.Err != nil {
			return "", &credentialsError{r.Err}
		}
		return r.Val.(string), nil
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}

func (k *keyring) cached(region string) string {
	k.mu.Lock()
	defer k.mu.Unlock()
	if key := k.keys[region]; time.Now().Before(key.renew) {
		return key.text
	}
	return ""
}

func (k *keyring) mint(ctx context.Context, region string) (string, error) {
	if text := k.cached(region); text != "" {
		return text, nil // made between our look and our turn
	}
	creds, err := k.creds.Retrieve(ctx)
	if err != nil {
		return "", err
	}
	text, err := ShortTermKey(ctx, creds, region, k.ttl)
	if err != nil {
		return "", err
	}
	k.vault.keep(text, creds.SessionToken)
	life := k.ttl
	if creds.CanExpire {
		life = min(life, time.Until(creds.Expires))
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	// The last fifth is left for calls on their way and for clocks that differ.
	k.keys[region] = mintedKey{text, time.Now().Add(life * 4 / 5)}
	return text, nil
}

// drop forgets the Region's key, which the endpoint did not accept.
func (k *keyring) drop(region string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.keys, region)
}

// A signer signs requests as OpenAI's bedrock package does, with two
// differences: the service is the operator's to name, and the body is hashed
// where it is rather than copied.
type signer struct {
	creds   aws.CredentialsProvider
	vault   *vault
	service string
	v4      *v4.Signer
}

func (s *signer) sign(req *http.Request, region string, body segments) error {
	creds, err := s.creds.Retrieve(req.Context())
	if err != nil {
		return &credentialsError{err}
	}
	s.vault.keep(creds.SessionToken)
	hash := hex.EncodeToString(body.sha256())
	req.Header.Set("X-Amz-Content-Sha256", hash)
	// The length is not one of the signed headers.
	defer func(n int64) { req.ContentLength = n }(req.ContentLength)
	req.ContentLength = -1
	return s.v4.SignHTTP(req.Context(), creds, req, hash, s.service, region, time.Now().UTC())
}
