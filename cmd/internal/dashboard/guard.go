package dashboard

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"net"
	"net/http"
	"strings"
)

// policy is the content security policy of all that is served: scripts and styles
// come from here as files, and nothing comes from anywhere else.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; " +
	"base-uri 'none'; form-action 'self'; frame-ancestors 'none'"

// A guard decides who is let in.
type guard struct {
	token    [sha256.Size]byte // SHA-256 of it
	asks     bool              // for a token
	loopback bool
	cookie   string // its name: cookies do not know ports, and others may serve on this host
	sessions sessions
	guesses  guesses
	origins  http.CrossOriginProtection
}

func newGuard(token string, loopback bool) *guard {
	return &guard{
		token: sha256.Sum256([]byte(token)), asks: token != "", loopback: loopback,
		cookie: "upwell-" + rand.Text()[:8],
	}
}

// protect lets through to h who may see it.
func (g *guard) protect(h http.Handler) http.Handler {
	inner := g.origins.Handler(h)
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		head := rw.Header()
		head.Set("Content-Security-Policy", policy)
		head.Set("X-Content-Type-Options", "nosniff")
		head.Set("Referrer-Policy", "no-referrer")
		head.Set("Cross-Origin-Resource-Policy", "same-origin")
		head.Set("Cross-Origin-Opener-Policy", "same-origin")
		head.Set("Cache-Control", "no-store")
		switch {
		case !g.loopback && !g.asks:
			refuse(rw, r, http.StatusForbidden, "the page is served on an address that others can reach, and has no token: set UPWELL_HTTP_TOKEN, or serve it on 127.0.0.1")
		case g.loopback && !local(r.Host):
			refuse(rw, r, http.StatusForbidden, "this page is for this machine alone: open it as http://localhost or http://127.0.0.1 with its port, and no other name")
		case foreign(r):
			refuse(rw, r, http.StatusForbidden, "a page of another site has asked")
		case g.asks && !free(r):
			g.known(rw, r, inner)
		default:
			inner.ServeHTTP(rw, r)
		}
	})
}

// local reports whether a Host header names this machine.
func local(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	switch strings.ToLower(strings.Trim(host, "[]")) {
	case "localhost", "127.0.0.1", "::1":
		return true
	}
	return false
}

// foreign reports whether the browser says that the request is another site's doing.
// A link to the page itself is none.
func foreign(r *http.Request) bool {
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "none", "same-origin":
		return false
	}
	return strings.HasPrefix(r.URL.Path, "/api/")
}

// free reports whether the request is for what anybody may have: the program's own
// files, and the way in.
func free(r *http.Request) bool {
	return r.URL.Path != "/" && !strings.HasPrefix(r.URL.Path, "/api/")
}

// known serves those who have shown the token, and asks the others for it.
func (g *guard) known(rw http.ResponseWriter, r *http.Request, h http.Handler) {
	if c, err := r.Cookie(g.cookie); err == nil && g.sessions.has(c.Value) {
		h.ServeHTTP(rw, r)
		return
	}
	if word, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
		switch right, wait := g.try(r, word); {
		case right:
			h.ServeHTTP(rw, r)
		case wait:
			tooMany(rw, r)
		default:
			refuse(rw, r, http.StatusUnauthorized, "this is not the token")
		}
		return
	}
	if r.URL.Path == "/" {
		welcome(rw, http.StatusUnauthorized, "")
		return
	}
	rw.Header().Set("WWW-Authenticate", `Bearer realm="upwell"`)
	refuse(rw, r, http.StatusUnauthorized, "sign in at /, or send the token: Authorization: Bearer TOKEN")
}

// login takes the token from the form and gives a session for it.
func (g *guard) login(rw http.ResponseWriter, r *http.Request) {
	if !g.asks {
		http.Redirect(rw, r, "/", http.StatusSeeOther)
		return
	}
	r.Body = http.MaxBytesReader(rw, r.Body, 8<<10)
	switch right, wait := g.try(r, r.PostFormValue("token")); {
	case wait:
		tooMany(rw, r)
	case !right:
		welcome(rw, http.StatusUnauthorized, "That is not the token.")
	default:
		http.SetCookie(rw, &http.Cookie{
			Name: g.cookie, Value: g.sessions.open(), Path: "/",
			HttpOnly: true, SameSite: http.SameSiteStrictMode, Secure: r.TLS != nil,
		})
		http.Redirect(rw, r, "/", http.StatusSeeOther)
	}
}

// try reports whether word is the token, or whether one has to wait before that is
// said: see guesses.
func (g *guard) try(r *http.Request, word string) (right, wait bool) {
	from := origin(r)
	if !g.guesses.take(from) {
		return false, true
	}
	sum := sha256.Sum256([]byte(word))
	if right = subtle.ConstantTimeCompare(sum[:], g.token[:]) == 1; right {
		g.guesses.giveBack(from)
	}
	return right, false
}

// tooMany says that one has to wait.
func tooMany(rw http.ResponseWriter, r *http.Request) {
	rw.Header().Set("Retry-After", "5")
	const text = "Too many wrong tokens: wait a few seconds."
	if strings.HasPrefix(r.URL.Path, "/api/") {
		refuse(rw, r, http.StatusTooManyRequests, text)
		return
	}
	welcome(rw, http.StatusTooManyRequests, text)
}

// refuse says why not, to a program as JSON and to a person as text.
func refuse(rw http.ResponseWriter, r *http.Request, status int, why string) {
	if strings.HasPrefix(r.URL.Path, "/api/") {
		answer(rw, status, map[string]string{"error": why})
		return
	}
	http.Error(rw, "upwell: "+why, status)
}

// origin returns where a request comes from: an address, or the network of it that
// one subscriber has.
func origin(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	if ip := net.ParseIP(host); ip != nil && ip.To4() == nil {
		return ip.Mask(net.CIDRMask(64, 128)).String()
	}
	return host
}
