package doctor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"syscall"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/ratelimit"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"

	"upwell/jobs/sdkerr"
)

// brief returns a retryer for somebody who waits: two tries.
func brief() aws.Retryer {
	return retry.NewStandard(func(o *retry.StandardOptions) {
		o.MaxAttempts = 2
		o.MaxBackoff = time.Second
		o.RateLimiter = ratelimit.None
	})
}

// status returns the HTTP status of AWS's answer, or 0.
func status(err error) int {
	if e, ok := errors.AsType[*awshttp.ResponseError](err); ok {
		return e.HTTPStatusCode()
	}
	return 0
}

// denied reports whether AWS says that the caller may not do this.
func denied(err error) bool {
	switch code := sdkerr.BareCode(err); {
	case strings.HasPrefix(code, "AccessDenied"), code == "UnauthorizedOperation", code == "AuthorizationError":
		return true
	default:
		return status(err) == 403 && (code == "" || code == "Forbidden" || code == "403")
	}
}

// badCredentials reports whether AWS does not know the caller.
func badCredentials(err error) bool {
	switch sdkerr.BareCode(err) {
	case "InvalidClientTokenId", "UnrecognizedClient", "InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidSignature",
		"InvalidSecurity", "MissingAuthenticationToken", "IncompleteSignature", "InvalidToken", "ExpiredToken", "RequestExpired",
		"TokenRefreshRequired", "RequestTimeTooSkewed":
		return true
	default:
		return false
	}
}

// absent reports whether AWS says that there is no such queue.
func absent(err error) bool {
	switch sdkerr.BareCode(err) {
	case "QueueDoesNotExist", "NonExistentQueue", "InvalidAddress":
		return true
	default:
		return false
	}
}

// trouble says what went wrong with a request to AWS, whatever the request was,
// and what to do.
func trouble(err error) (found, fix string) {
	switch code := sdkerr.BareCode(err); {
	case code == "ExpiredToken", code == "TokenRefreshRequired", code == "RequestExpired":
		return "the AWS credentials have expired (" + code + ")", "renew them: aws sso login, or a new session token"
	case code == "RequestTimeTooSkewed":
		return "the request was signed at the wrong time (" + code + ")", "set this machine's clock"
	case badCredentials(err):
		return "AWS does not accept the credentials (" + code + ")", "check the keys, and that AWS_SESSION_TOKEN belongs to them: aws sts get-caller-identity"
	case code != "":
		return said(err), "try again in a minute; if it stays so, look at the AWS Health Dashboard"
	default:
		return unreachable(err)
	}
}

// unreachable says why there was no answer, and what to look at.
func unreachable(err error) (found, fix string) {
	_, isDNS := errors.AsType[*net.DNSError](err)
	_, unknown := errors.AsType[x509.UnknownAuthorityError](err)
	_, other := errors.AsType[x509.HostnameError](err)
	_, invalid := errors.AsType[x509.CertificateInvalidError](err)
	_, plain := errors.AsType[tls.RecordHeaderError](err)
	timeout, isNet := errors.AsType[net.Error](err)
	switch {
	case isDNS:
		return "the name is not known to DNS", "check the Region's name, and the network's DNS; in a VPC without internet, add an interface endpoint with private DNS"
	case unknown, other, invalid:
		return "its certificate is not trusted: something is in between", "name the proxy's certificates with SSL_CERT_FILE, and with AWS_CA_BUNDLE for SQS and S3"
	case plain:
		return "it does not speak TLS", "check the URL's scheme, and HTTPS_PROXY"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "the connection is refused", "check the URL, and that the service runs"
	case errors.Is(err, context.DeadlineExceeded), isNet && timeout.Timeout():
		return "no answer in time", "open port 443 in the security group, or set HTTPS_PROXY, or add an interface endpoint to the VPC"
	default:
		return said(err), "check the network between here and there"
	}
}

// said returns the words of an error that matter to a person, in one line.
func said(err error) string {
	if e, ok := errors.AsType[*url.Error](err); ok {
		err = e.Err
	}
	return oneLine(sdkerr.Brief(err).Error())
}

// maxSaid bounds what is quoted of a service, in bytes.
const maxSaid = 240

func oneLine(s string) string {
	s = strings.Join(strings.FieldsFunc(strings.ToValidUTF8(s, ""), func(r rune) bool {
		return unicode.IsSpace(r) || unicode.IsControl(r)
	}), " ")
	if len(s) <= maxSaid {
		return s
	}
	cut := maxSaid
	for !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "…"
}

// atAWS reports whether a URL is at one of AWS's hosts.
func atAWS(raw string) bool {
	h, _, _ := strings.Cut(host(raw), ":")
	return strings.HasSuffix(h, ".amazonaws.com") || strings.HasSuffix(h, ".amazonaws.com.cn") || strings.HasSuffix(h, ".api.aws")
}

// host returns the host of a URL, or the text itself.
func host(raw string) string {
	if u, err := url.Parse(raw); err == nil && u.Host != "" {
		return u.Host
	}
	return raw
}

// duration words a duration without the units that are nought.
func duration(d time.Duration) string {
	switch d = d.Round(time.Second); {
	case d >= 48*time.Hour && d%(24*time.Hour) == 0:
		return fmt.Sprintf("%d days", d/(24*time.Hour))
	case d == 24*time.Hour:
		return "a day"
	}
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
