package mantle

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
)

const (
	// gone stands where a secret was.
	gone = "[redacted]"

	// minSecret is the length that a secret has at least, in bytes. A key of a few
	// letters, as for a simulator, may be in any text by chance.
	minSecret = 16

	// maxSecrets bounds how many secrets are remembered, as each answer is looked
	// through for all of them: those that were used last, which are a key and a token
	// for each Region, and those that they have replaced.
	maxSecrets = 32
)

// A vault knows what must not be told to anybody who reads results or logs: the keys
// and tokens that requests prove with who calls. Whoever is at the other end knows
// them, and may say them back, by mistake or by design.
type vault struct {
	mu    sync.RWMutex
	known []known // the newest last
}

// A known is a secret in the forms that it is looked for in.
type known struct {
	secret string
	forms  []string
}

// keep remembers secrets, if they are long enough to be told from a word.
func (v *vault) keep(secrets ...string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, s := range secrets {
		if len(s) < minSecret {
			continue
		}
		i := slices.IndexFunc(v.known, func(k known) bool { return k.secret == s })
		if i < 0 {
			v.known = append(v.known, known{s, formsOf(s)})
			continue
		}
		k := v.known[i]
		v.known = append(slices.Delete(v.known, i, i+1), k)
	}
	if n := len(v.known) - maxSecrets; n > 0 {
		v.known = slices.Delete(v.known, 0, n)
	}
}

// strip takes the secrets out of a text, which it returns as it is if there are none.
func (v *vault) strip(text []byte) []byte {
	v.mu.RLock()
	defer v.mu.RUnlock()
	for _, k := range v.known {
		for _, form := range k.forms {
			if bytes.Contains(text, []byte(form)) {
				text = bytes.ReplaceAll(text, []byte(form), []byte(gone))
			}
		}
	}
	return text
}

// formsOf returns a secret as it is, and as it is written in a URL, in JSON, in
// hexadecimal and in base64, alone or within something longer.
func formsOf(s string) (forms []string) {
	quoted := string(quote(s)) // it has the HTML signs escaped
	for _, f := range []string{
		s, url.QueryEscape(s), url.PathEscape(s), quoted[1 : len(quoted)-1], strings.ReplaceAll(s, "/", `\/`),
		hex.EncodeToString([]byte(s)), strings.ToUpper(hex.EncodeToString([]byte(s))),
	} {
		if !slices.Contains(forms, f) {
			forms = append(forms, f)
		}
	}
	for _, e := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		for before := range 3 {
			if f := within(e, s, before); !slices.Contains(forms, f) {
				forms = append(forms, f)
			}
		}
	}
	return forms
}

// within returns what a secret is in base64 behind so many bytes: the characters that
// depend on nothing else.
func within(e *base64.Encoding, s string, before int) string {
	text := e.EncodeToString([]byte(strings.Repeat("\x00", before) + s))
	first := (8*before + 5) / 6 // those with bits of what is before
	last := len(text)
	if (before+len(s))%3 != 0 {
		last-- // it has bits of what follows
	}
	return text[first:last]
}

// secrets are the forms of what proves who calls: headers and query parameters
// by their names, and keys by how they begin.
var secrets = regexp.MustCompile(`(?i)` + strings.Join([]string{
	`\bbearer\s+[\w.~+/=%-]{8,}`,
	`\b(?:authorization|x-amz-security-token|x-api-key|api-key)["']?\s*[:=]\s*\[?["']?[^\s"',;&\]]+`,
	`\b(?:x-amz-)?(?:signature|credential|security-token)=[^\s"',;&]+`,
	`\bbedrock-api-key-[\w+/=%-]+`,
	`\b(?:AKIA|ASIA|ABIA|ACCA|AROA|AIDA)[A-Z0-9]{12,}`,
	`\b(?:sk|xai)-[\w*-]{8,}`,
}, "|"))

// userinfo is the name and password in a URL, such as a proxy's.
var userinfo = regexp.MustCompile(`://[^/\s@]+@`)

// scrub takes secrets out of a text that is to be quoted: those that are known,
// whatever they look like, and all that look like one.
func (c *Client) scrub(s string) string {
	if c.cfg.APIKey != "" {
		s = strings.ReplaceAll(s, c.cfg.APIKey, gone)
	}
	s = string(c.vault.strip([]byte(s)))
	return userinfo.ReplaceAllString(secrets.ReplaceAllString(s, gone), "://"+gone+"@")
}
