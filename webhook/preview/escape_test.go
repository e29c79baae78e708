package preview

import (
	"net/url"
	"strings"
	"testing"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine"
)

func moved(location string) (Redirect, bool) {
	return ReadRedirect(&engine.Reply{Status: 302, Fields: []engine.Field{field("Location", location)}})
}

func TestReadRedirect_OnlyOfAnswersThatSendSomewhere(t *testing.T) {
	for status, want := range map[int]bool{200: false, 201: true, 302: true, 404: false} {
		if _, ok := ReadRedirect(&engine.Reply{Status: status, Fields: []engine.Field{field("LOCATION", "//a/")}}); ok != want {
			t.Errorf("%d: %v", status, ok)
		}
	}
}

// What net/url reads as an absolute address is read as the same.
func FuzzReadRedirect(f *testing.F) {
	for _, s := range []string{"http://a.b:80/x?y#z", "//a", "https://u:p@[::1]:443", "/x//y", "http:x", "a:80/", "HTTPS://A./?//b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, location string) {
		to, ok := moved(location)
		if ok && (to.Scheme != "" && to.Scheme != "http" && to.Scheme != "https" || strings.ContainsAny(to.Authority, `/\?#`)) {
			t.Errorf("%q: %+v", location, to)
		}
		u, err := url.Parse(location)
		if err != nil || u.Host == "" || u.Scheme != "" && u.Scheme != "http" && u.Scheme != "https" || strings.ContainsAny(location, "\\ \t") {
			return
		}
		if want, known := ParseHost(u.Host); !ok || to.Scheme != u.Scheme || known && to.Host != want {
			t.Errorf("%q: %+v, want %+v", location, to, u)
		}
	})
}

func FuzzReadReport(f *testing.F) {
	f.Add(`{"csp-report":{"blocked-uri":"https://a.example:8443/x?y"}}`)
	f.Add(`{"csp-report":{"blocked-uri":"inline"}}`)
	f.Fuzz(func(t *testing.T, body string) {
		origin, err := ReadReport(strings.NewReader(body))
		if err != nil && origin != "" || strings.ContainsFunc(origin, func(c rune) bool { return c <= ' ' || c > '~' }) {
			t.Errorf("%q: %q, %v", body, origin, err)
		}
	})
}

func TestClusterName(t *testing.T) {
	for name, want := range map[string]string{"api": "api.shop", "api.a": "api.a", "api.a.svc": "api.a", "api.a.svc.cluster.local": "api.a", "api.a.b": "", "x.api.a.svc": ""} {
		service, namespace, ok := ClusterName(name, "shop")
		if ok != (want != "") || ok && service+"."+namespace != want {
			t.Errorf("%s: %s, %s, %v", name, service, namespace, ok)
		}
	}
}
