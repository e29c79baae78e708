package gateway

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"strconv"
	"strings"
	"time"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/share"
)

// proxyCookie is the prefix of oauth2-proxy's cookies. Its sessions are valid for every preview, so apps must not see
// them.
const proxyCookie = "_oauth2_proxy"

// maxTokens bounds how many tokens of one request are checked.
const maxTokens = 8

// credentials are what a request is admitted by, which must not reach the app.
type credentials struct {
	link    string   // a token in the URL
	linked  bool     // the URL has a token, valid or not
	rest    []byte   // the URL without it
	tokens  []string // of cookies, and of Authorization
	bearer  bool     // Authorization has one of our tokens
	cookies [][]byte // others' cookies
	own     bool     // the request has one of our cookies
	basic   string   // Authorization: Basic, decoded
}

// readCredentials reads the credentials of a request. Only values in our format count as the gateway's.
func readCredentials(h *engine.Head) credentials {
	var c credentials
	c.readTarget(h.Target)
	for i := range h.Fields {
		f := &h.Fields[i]
		switch strings.ToLower(string(f.Name)) {
		case "cookie":
			c.readCookie(f.Value)
		case "authorization":
			c.readAuthorization(string(f.Value))
		}
	}
	return c
}

// readTarget removes the token from a request target.
func (c *credentials) readTarget(target []byte) {
	path, query, ok := bytes.Cut(target, []byte{'?'})
	if !ok {
		return
	}
	var kept [][]byte
	for part := range bytes.SplitSeq(query, []byte{'&'}) {
		if value, ok := bytes.CutPrefix(part, []byte(share.Parameter+"=")); ok {
			c.link, c.linked = string(value), true
			continue
		}
		kept = append(kept, part)
	}
	if !c.linked {
		return
	}
	c.rest = bytes.Clone(path)
	if len(kept) > 0 {
		c.rest = append(append(c.rest, '?'), bytes.Join(kept, []byte{'&'})...)
	}
}

// readCookie separates our cookies from a Cookie header (RFC 6265, section 4.2.1).
func (c *credentials) readCookie(value []byte) {
	for pair := range bytes.SplitSeq(value, []byte{';'}) {
		pair = bytes.Trim(pair, " \t")
		name, token, _ := bytes.Cut(pair, []byte{'='})
		switch {
		case len(pair) == 0:
		case bytes.HasPrefix(name, []byte(proxyCookie)):
			c.own = true
		case string(bytes.Trim(name, " \t")) != share.Cookie:
			c.cookies = append(c.cookies, pair)
		default:
			c.own = true
			c.add(string(bytes.Trim(token, " \t")))
		}
	}
}

func (c *credentials) readAuthorization(value string) {
	scheme, rest, _ := strings.Cut(value, " ")
	rest = strings.TrimLeft(rest, " ")
	switch {
	case strings.EqualFold(scheme, share.Scheme) && share.IsToken(rest):
		c.bearer = true
		c.add(rest)
	case strings.EqualFold(scheme, "Basic"):
		if decoded, err := base64.StdEncoding.DecodeString(rest); err == nil {
			c.basic = string(decoded)
		}
	}
}

func (c *credentials) add(token string) {
	if len(c.tokens) < maxTokens {
		c.tokens = append(c.tokens, token)
	}
}

// strip adds edits to e that keep the gateway's credentials from the app: a fork runs code that nobody has reviewed
// yet.
func (c *credentials) strip(e *engine.Edits, proxy bool) {
	switch {
	case !c.own:
	case len(c.cookies) == 0:
		e.Remove = append(e.Remove, "cookie")
	default:
		e.Set = append(e.Set, engine.Field{Name: []byte("cookie"), Value: bytes.Join(c.cookies, []byte("; "))})
	}
	if c.bearer || proxy {
		e.Remove = append(e.Remove, "authorization")
	}
	if !proxy { // apps trust what a proxy in front says about the caller
		e.Remove = append(e.Remove, "x-forwarded-user", "x-forwarded-email", "x-forwarded-groups", "x-forwarded-preferred-username",
			"x-forwarded-access-token", "x-forwarded-client-cert", "x-auth-request-user", "x-auth-request-email",
			"x-auth-request-groups", "x-auth-request-preferred-username", "x-auth-request-access-token")
	}
}

// fromProxy reports whether the request came through the proxy that signs people in: only the proxy knows the password.
func (c *credentials) fromProxy(password string) bool {
	_, got, ok := strings.Cut(c.basic, ":")
	a, b := sha256.Sum256([]byte(got)), sha256.Sum256([]byte(password))
	return ok && password != "" && subtle.ConstantTimeCompare(a[:], b[:]) == 1
}

// find returns the share of one of the request's tokens. The error is that of the first token.
func (c *credentials) find(shares []share.Share, service string, now time.Time) (share.Share, error) {
	var first error
	for _, token := range c.tokens {
		s, err := share.Find(shares, token, service, now)
		if err == nil {
			return s, nil
		}
		if first == nil {
			first = err
		}
	}
	return share.Share{}, first
}

// welcome turns a link into a cookie: it redirects the browser to the same URL without the token. The cookie is for
// this host only, is sent over TLS only, and scripts cannot read it.
func (c *credentials) welcome(s share.Share, now time.Time) *engine.Refusal {
	left := strconv.FormatInt(max(1, int64(s.Expires.Sub(now)/time.Second)), 10)
	// A Location that begins with // names another host (RFC 3986, section 4.2), and browsers read \ as /.
	location := "/" + strings.TrimLeft(string(c.rest), `/\`)
	return &engine.Refusal{Status: 303, Body: []byte{}, Type: "text/plain; charset=utf-8", Fields: []engine.Field{
		field("Location", location),
		field("Set-Cookie", share.Cookie+"="+c.link+"; Path=/; Max-Age="+left+"; Secure; HttpOnly; SameSite=Lax"),
		field("Cache-Control", "no-store"), field("Referrer-Policy", "no-referrer"), field("X-Robots-Tag", "noindex, nofollow"),
	}}
}
