package gateway

import (
	"net/http"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/preview"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/share"
)

// Each of these requests is refused, and no Service is dialed for it; and no token is in any log line.
func TestSecurity_RefusedWithoutADial(t *testing.T) {
	good, short, revoked, others, foreign, orphan := share.NewToken(), share.NewToken(), share.NewToken(), share.NewToken(), share.NewToken(), share.NewToken()
	mine, pr2, entrance := aSandbox(shop, "pr-1", "key-1"), aSandbox(shop, "pr-2", "key-2"), aSandbox("vault", "pr-1", "key-3")
	old := aShare(mine, orphan, "web", time.Hour)
	old.OwnerReferences[0].UID = "an earlier one of that name"
	r := newRig(t, nil, ready(pr2, entrance,
		aShare(mine, good, "web", time.Hour), aShare(mine, short, "web", -time.Second), aShare(pr2, others, "web", time.Hour), old,
		aShare(mine, foreign, "db.vault", time.Hour), aService("vault", "db"), aNamespace("vault"),
		aService(shop, "api"), aNamespace("lobby", sandbox.LabelEntry, "no"), aService("lobby", "door"),
	)...)
	flipped := good[:len(good)-1] + map[bool]string{true: "b", false: "a"}[strings.HasSuffix(good, "a")]
	get := func(host, target string, lines ...string) string {
		return "GET " + target + " HTTP/1.1\r\nHost: " + host + "\r\n" + strings.Join(append(lines, "", ""), "\r\n")
	}
	signed := bearer(good)
	for name, request := range map[string]string{
		"no token":                           get(host, "/"),
		"empty token":                        get(host, "/", "Authorization: Bearer ", "Cookie: "+share.Cookie+"="),
		"expired":                            get(host, "/", bearer(short)),
		"expired, by cookie":                 get(host, "/", cookie(short)),
		"expired, by link":                   get(host, "/?"+share.Parameter+"="+short),
		"revoked":                            get(host, "/", bearer(revoked)),
		"tampered":                           get(host, "/", bearer(flipped)),
		"tampered, by cookie":                get(host, "/", cookie(flipped)),
		"tampered, by link":                  get(host, "/?"+share.Parameter+"="+flipped),
		"the hash in place of the token":     get(host, "/", bearer(share.Hash(good))),
		"other host's: another sandbox":      get(host, "/", bearer(others)),
		"other host's: another Service":      get("api--pr-1--shop."+domain, "/", signed),
		"other host's: another namespace":    get("db--pr-1--vault."+domain, "/", signed),
		"a share of an earlier sandbox":      get(host, "/", bearer(orphan)),
		"basic for bearer":                   get(host, "/", "Authorization: Basic "+good),
		"link by POST":                       "POST /?" + share.Parameter + "=" + good + " HTTP/1.1\r\nHost: " + host + "\r\nContent-Length: 0\r\n\r\n",
		"Service outside, by three names":    get("db--pr-1--vault."+domain, "/", bearer(foreign)),
		"Service outside, by its alias":      get(preview.Alias("db.vault", "pr-1", shop)+"."+domain, "/", bearer(foreign)),
		"Service of a namespace with no":     get(preview.Alias("door.lobby", "pr-1", shop)+"."+domain, "/", signed),
		"Service with a namespace, by a dot": get("db.vault--pr-1--shop."+domain, "/", bearer(foreign)),

		"two Hosts":                 get(host, "/", "Host: "+host, signed),
		"no Host":                   "GET / HTTP/1.1\r\n" + signed + "\r\n\r\n",
		"empty Host":                get("", "/", signed),
		"another domain":            get("web--pr-1--shop.evil.test", "/", signed),
		"the domain as a prefix":    get(host+".evil.test", "/", signed),
		"the domain itself":         get(domain, "/", signed),
		"a label more":              get("x."+host, "/", signed),
		"user information in Host":  get("evil@"+host, "/", signed),
		"a path in Host":            get(host+"/x", "/", signed),
		"an address":                get("10.96.0.9", "/", signed),
		"a Service's own name":      get("web.shop.svc", "/", signed),
		"a fork's own name":         get("api-pr-1.shop", "/", signed),
		"Host with a null":          get(host+"\x00", "/", signed),
		"X-Forwarded-Host":          get("nothing."+domain, "/", "X-Forwarded-Host: "+host, signed),
		"absolute form":             get(host, "http://"+host+"/", signed),
		"absolute form, another":    get(host, "http://10.96.0.1/", signed),
		"CONNECT":                   "CONNECT 10.96.0.1:443 HTTP/1.1\r\nHost: 10.96.0.1:443\r\n" + signed + "\r\n\r\n",
		"CONNECT to the preview":    "CONNECT " + host + ":80 HTTP/1.1\r\nHost: " + host + "\r\n" + signed + "\r\n\r\n",
		"key dropped by Connection": get(host, "/", "Connection: close, X-Sandbox-Key", signed),

		"both lengths":              "POST / HTTP/1.1\r\nHost: " + host + "\r\n" + signed + "\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"two lengths":               "POST / HTTP/1.1\r\nHost: " + host + "\r\n" + signed + "\r\nContent-Length: 0\r\nContent-Length: 5\r\n\r\n",
		"folded header":             get(host, "/", "X-A: b", " "+signed),
		"bare line feeds":           "GET / HTTP/1.1\nHost: " + host + "\n" + signed + "\n\n",
		"obscured chunking":         "POST / HTTP/1.1\r\nHost: " + host + "\r\n" + signed + "\r\nTransfer-Encoding: xchunked\r\n\r\n",
		"blank before a colon":      get(host, "/", "Content-Length : 5", signed),
		"chunk longer than it says": "POST / HTTP/1.1\r\nHost: " + host + "\r\n" + signed + "\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			answer, _ := r.raw(request)
			if answer.StatusCode/100 != 4 {
				t.Errorf("got %s", answer.Status)
			}
			if n := r.counted(); n != 0 {
				t.Fatalf("dialed %v", r.dials)
			}
		})
	}
	// The rig can let in, and then it dials.
	if answer, body := r.get(host, "/", signed); answer.StatusCode != 200 || r.counted() != 1 {
		t.Fatalf("%s after %d dials: %s", answer.Status, r.counted(), body)
	}
	// What was let in a moment ago is not any more once its share is gone.
	for _, s := range []*corev1.ConfigMap{aShare(mine, good, "web", time.Hour)} {
		if err := r.client.Delete(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	if answer, _ := r.get(host, "/", signed); answer.StatusCode != 401 || r.counted() != 1 {
		t.Errorf("after it was revoked: %s, %d dials", answer.Status, r.counted())
	}
	for _, token := range []string{good, short, revoked, others, foreign, orphan, flipped} {
		if strings.Contains(r.logged(), strings.TrimPrefix(token, "sandbox_")) {
			t.Errorf("a token is in the log:\n%s", r.logged())
		}
	}
}

// Services that stand for something else than pods of their namespace are not dialed, whoever asks.
func TestSecurity_ServicesThatAreNotDialed(t *testing.T) {
	for name, change := range map[string]func(*corev1.Service){
		"another host": func(s *corev1.Service) {
			s.Spec.Type, s.Spec.ExternalName = corev1.ServiceTypeExternalName, "metadata.test"
		},
		"nobody's pods":   func(s *corev1.Service) { s.Spec.Selector = nil },
		"no TCP port":     func(s *corev1.Service) { s.Spec.Ports[0].Protocol = corev1.ProtocolUDP },
		"no port":         func(s *corev1.Service) { s.Spec.Ports = nil },
		"it is not there": func(s *corev1.Service) { s.Name = "elsewhere" },
	} {
		t.Run(name, func(t *testing.T) {
			mine, token := aSandbox(shop, "pr-1", "key-1"), share.NewToken()
			fork := aFork()
			r := newRig(t, nil, mine, aShare(mine, token, "web", time.Hour), aService(shop, "web", change), fork, aPod(fork, "x"))
			if answer, _ := r.get(host, "/", bearer(token)); answer.StatusCode/100 != 4 || r.counted() != 0 {
				t.Errorf("%s, %d dials", answer.Status, r.counted())
			}
		})
	}
}

// A key from outside is ignored; the app gets the sandbox's, other baggage, and none of the gateway's own credentials.
func TestKeyFromOutsideIsIgnored(t *testing.T) {
	token := share.NewToken()
	r := newRig(t, nil, ready(aShare(aSandbox(shop, "pr-1", ""), token, "web", time.Hour))...)
	for name, lines := range map[string][]string{
		"bearer": {bearer(token), "Cookie: theme=dark"},
		"cookie": {"Cookie: theme=dark; " + share.Cookie + "=" + token, "Authorization: Bearer theirs"},
	} {
		t.Run(name, func(t *testing.T) {
			answer, body := r.get(host, "/a?b=c", append(lines, "X-Sandbox-Key: other", "x-sandbox-key: other2", "Baggage: a=1,sandbox-key=other;p=1",
				"baggage: b=2", "tracestate: sandbox-key=other,v=1", "X-Forwarded-For: 1.2.3.4", "X-Forwarded-User: root", "X-Forwarded-Proto: gopher")...)
			if answer.StatusCode != 200 || body != "hello from the app" {
				t.Fatalf("%s: %s", answer.Status, body)
			}
			if answer.Header.Get("X-Robots-Tag") != "noindex, nofollow" {
				t.Errorf("X-Robots-Tag: %q", answer.Header.Get("X-Robots-Tag"))
			}
			got := r.last()
			want := map[string]string{"X-Sandbox-Key": "key-1", "Baggage": "sandbox-key=key-1,a=1,b=2", "Tracestate": "v=1", "Cookie": "theme=dark",
				"X-Forwarded-For": "127.0.0.1", "X-Forwarded-Host": host, "X-Forwarded-Proto": "http", "X-Forwarded-User": ""}
			for name, value := range want {
				if v := strings.Join(got.Header.Values(name), "|"); v != value {
					t.Errorf("%s: %q, want %q", name, v, value)
				}
			}
			if got.Host != host || got.RequestURI != "/a?b=c" {
				t.Errorf("app was asked for %s %s", got.Host, got.RequestURI)
			}
			for _, values := range got.Header {
				if strings.Contains(strings.Join(values, ""), token) {
					t.Error("the app got the token")
				}
			}
			if theirs := got.Header.Get("Authorization"); name == "cookie" && theirs != "Bearer theirs" || name == "bearer" && theirs != "" {
				t.Errorf("Authorization: %q", theirs)
			}
		})
	}
	if r.dials[0] != "10.96.0.9:80" {
		t.Errorf("dialed %v", r.dials)
	}
}

// A link becomes a cookie of that host alone, by a redirect to the same URL without the token.
func TestLinkBecomesACookie(t *testing.T) {
	token := share.NewToken()
	r := newRig(t, nil, ready(aShare(aSandbox(shop, "pr-1", ""), token, "web", time.Hour))...)
	for target, location := range map[string]string{
		"/?" + share.Parameter + "=" + token:                 "/",
		"/a/b?x=1&" + share.Parameter + "=" + token + "&y=2": "/a/b?x=1&y=2",
		"//evil.test/?" + share.Parameter + "=" + token:      "/evil.test/",
		`/\evil.test/?` + share.Parameter + "=" + token:      "/evil.test/",
		`/\//evil.test?` + share.Parameter + "=" + token:     "/evil.test",
	} {
		answer, _ := r.get(host, target)
		if answer.StatusCode != 303 || answer.Header.Get("Location") != location {
			t.Errorf("%s: %s to %q, want %q", target, answer.Status, answer.Header.Get("Location"), location)
		}
		cookies := answer.Cookies()
		if len(cookies) != 1 {
			t.Fatalf("cookies: %v", cookies)
		}
		c := cookies[0]
		if c.Name != "__Host-sandbox" || c.Value != token || !c.Secure || !c.HttpOnly || c.SameSite != http.SameSiteLaxMode || c.Path != "/" ||
			c.Domain != "" || c.MaxAge < 3500 || c.MaxAge > 3600 {
			t.Errorf("cookie %+v", c)
		}
		if answer.Header.Get("Referrer-Policy") != "no-referrer" || answer.Header.Get("Cache-Control") != "no-store" || answer.Header.Get("X-Sandbox-Error") != "" {
			t.Errorf("headers %v", answer.Header)
		}
	}
	if r.counted() != 0 {
		t.Errorf("dialed %v", r.dials)
	}
	if answer, _ := r.get(host, "/", cookie(token)); answer.StatusCode != 200 {
		t.Errorf("by the cookie: %s", answer.Status)
	}
	if strings.Contains(r.logged(), token) || !strings.Contains(r.logged(), "signed in") {
		t.Errorf("log:\n%s", r.logged())
	}
	r.later(time.Hour)
	if answer, _ := r.get(host, "/", cookie(token)); answer.StatusCode != 401 {
		t.Errorf("by the cookie, after its time: %s", answer.Status)
	}
}
