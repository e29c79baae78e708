package gateway

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/preview"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/share"
)

// long is a Service's name that fits into no label with others.
const long = "a-service-with-a-name-that-leaves-no-room-for-any-other-in-it"

// around returns a gateway whose sandbox can be entered by a token, with Services all around.
func around(t *testing.T, token string, change func(*Options)) *rig {
	return newRig(t, change, ready(
		aShare(aSandbox(shop, "pr-1", "key-1"), token, "web", time.Hour), aService(shop, "api"), aService(shop, long),
		aNamespace("lobby", sandbox.LabelEntry, sandbox.EntryAllowed), aService("lobby", "door"), aNamespace("vault"), aService("vault", "db"),
		aService(shop, "outside", func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeExternalName }),
		aService(shop, "headless", func(s *corev1.Service) {
			s.Spec.ClusterIP, s.Spec.Ports[0].TargetPort.IntVal = corev1.ClusterIPNone, 8080
		}))...)
}

func TestRedirectsStayInThePreviewsOrAreNamed(t *testing.T) {
	token := share.NewToken()
	r := around(t, token, nil)
	proxied := around(t, token, func(o *Options) { o.BehindProxy = true })
	to := func(w http.ResponseWriter, q *http.Request) {
		w.Header().Set("Location", q.URL.RawQuery)
		w.Header().Set(sandbox.HeaderEscaped, "the app's own")
		w.WriteHeader(http.StatusTemporaryRedirect)
	}
	r.serve(to)
	proxied.serve(to)
	api := "api--pr-1--shop." + domain
	for _, test := range []struct{ location, want, escaped string }{
		{"/relative", "", ""}, {"relative", "", ""}, {"?a", "", ""}, {"mailto:a@b", "", ""}, {"https://" + host + "/x", "", ""}, {"https://" + api + "/x", "", ""},
		{"http://web/x?y", "http://" + host + "/x?y", ""},
		{"http://api/x?y=%zz&z", "http://" + api + "/x?y=%zz&z", ""},
		{"http://api.shop", "http://" + api, ""}, {"http://api.shop.svc:80/", "http://" + api + "/", ""}, {"//API.shop.svc.cluster.local./", "http://" + api + "/", ""},
		{`\\api\x`, "http://" + api + `\x`, ""}, {"http:/ann@api/", "http://" + api + "/", ""},
		{"http://" + long + "/", "http://" + preview.Label(long, "pr-1", shop) + "." + domain + "/", ""},
		{"http://door.lobby/", "http://" + preview.Label("door.lobby", "pr-1", shop) + "." + domain + "/", ""},
		{"http://headless:8080/", "http://headless--pr-1--shop." + domain + "/", ""},
		{"http://headless/", "", "http://headless"},
		{"http://api:9090/", "", "http://api:9090"}, {"https://api.shop/", "", "https://api.shop"}, {"http://db.vault.svc/", "", "http://db.vault.svc"},
		{"http://outside/", "", "http://outside"}, {"http://api.vault/", "", "http://api.vault"}, {"https://idp.example/login?secret", "", "https://idp.example"},
		{"//idp.example", "", "idp.example"}, {"http://[::1]:80/", "", "http://[::1]:80"}, {"http://ex%20ample/", "", "a malformed host"},
		{"https://" + domain + ".evil.example/", "", "https://" + domain + ".evil.example"},
	} {
		want := test.want
		if want == "" {
			want = test.location
		}
		answer, _ := r.get(host, "/?"+test.location, bearer(token))
		if got := answer.Header.Get("Location"); got != want || answer.Header.Get(sandbox.HeaderEscaped) != test.escaped || answer.Header.Get("X-Robots-Tag") == "" {
			t.Errorf("%s: to %s, escaped %q, want %s, %q", test.location, got, answer.Header.Get(sandbox.HeaderEscaped), want, test.escaped)
		}
		// As the client made the request: by TLS, at another port, of which the proxy in front tells.
		answer, _ = proxied.get(host, "/?"+test.location, bearer(token), "X-Forwarded-Proto: https", "X-Forwarded-Host: "+host+":8443")
		if test.want != "" {
			_, path, _ := strings.Cut(strings.TrimPrefix(want, "http://"), domain)
			want = strings.TrimSuffix(strings.Replace(want, "http:", "https:", 1), path) + ":8443" + path
		}
		if got := answer.Header.Get("Location"); got != want {
			t.Errorf("behind a proxy: %s: to %s, want %s", test.location, got, want)
		}
	}
	logged := r.logged()
	if strings.Count(logged, `"to":"https://idp.example"`) != 1 || strings.Contains(logged, "secret") || strings.Contains(logged, token) {
		t.Errorf("logged %s", logged)
	}
	for name, want := range map[string]float64{"rewritten": 10, "escaped": 11} {
		if got := counted(t, r, `sandbox_gateway_redirects_total{outcome="`+name+`"}`); got != want {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
}

// What pages use elsewhere is reported by browsers that are signed in, and named in the log; no Service hears of it.
func TestWhereAPageGoesElsewhereIsNamed(t *testing.T) {
	token := share.NewToken()
	r := around(t, token, nil)
	r.serve(func(w http.ResponseWriter, q *http.Request) {
		w.Header().Set("Content-Type", strings.TrimPrefix(q.URL.Path, "/"))
		_, _ = io.WriteString(w, "<p>")
	})
	if answer, _ := r.get(host, "/text/html;%20charset=utf-8", bearer(token)); !strings.HasSuffix(answer.Header.Get("Content-Security-Policy-Report-Only"), "report-uri "+preview.ReportPath) {
		t.Errorf("page: %v", answer.Header)
	}
	if answer, _ := r.get(host, "/text/plain", bearer(token)); answer.Header.Get("Content-Security-Policy-Report-Only") != "" {
		t.Errorf("no page: %v", answer.Header)
	}
	dials := r.counted()
	for _, test := range []struct {
		credentials, body string
		status            int
	}{
		{"A: b", `{}`, 401}, {bearer(token), `{"csp-report":{"blocked-uri":"http://api.example:81/x?secret"}}`, 204}, {bearer(token), `{`, 400},
		{cookie(token), `{"csp-report":{"blocked-uri":"wss://b.example"}}`, 204}, {bearer(token), `{"csp-report":{"blocked-uri":"http://a b/"}}`, 204},
		{bearer(token), `{"csp-report":{"blocked-uri":"inline"}}`, 204},
	} {
		answer, body := r.raw("POST " + preview.ReportPath + " HTTP/1.1\r\nHost: " + host + "\r\nContent-Length: " + strconv.Itoa(len(test.body)) + "\r\n" + test.credentials + "\r\n\r\n" + test.body)
		if answer.StatusCode != test.status {
			t.Errorf("%s: %s %s", test.body, answer.Status, body)
		}
	}
	logged := r.logged()
	if !strings.Contains(logged, `"to":"http://api.example:81"`) || !strings.Contains(logged, `"to":"wss://b.example"`) || strings.Contains(logged, "secret") ||
		r.counted() != dials || counted(t, r, "sandbox_gateway_page_escapes_total") != 2 {
		t.Errorf("logged %s, %d dials", logged, r.counted()-dials)
	}
}

// However many hosts an app names, few of them are logged in a minute.
func TestTold(t *testing.T) {
	var all logLimit
	now, n := time.Now(), 0
	for range 2 {
		for i := range 1000 {
			if all.first(now, strconv.Itoa(i)) {
				n++
			}
		}
	}
	if n != 100 || !all.first(now.Add(time.Minute), "1") || all.first(now.Add(time.Minute), "1") {
		t.Errorf("%d of the first minute", n)
	}
}

// Wherever an app sends browsers, the answer's head stays one, and what is rewritten leads to a preview.
func FuzzAnswered(f *testing.F) {
	for _, s := range []string{"http://api/x", "//web.shop.svc", `\\evil.example\a`, "https://ann@api:80@evil.example", "http://door.lobby:80", "HTTP://[::1", "http:///api"} {
		f.Add(s, "text/html")
	}
	var r *rig
	f.Fuzz(func(t *testing.T, location, kind string) {
		if r == nil {
			r = around(t, share.NewToken(), nil)
		}
		v := visit{Entry: Entry{"web", shop, "pr-1", shop}, scheme: "https", host: preview.Host{Name: host}, authority: host}
		edits := r.handler.answered(&engine.Reply{Status: 302, Fields: []engine.Field{field("Location", location), field("content-type", kind)}}, v)
		for _, set := range edits.Set {
			value := string(set.Value)
			switch string(set.Name) {
			case "location":
				authority, _, _ := strings.Cut(strings.NewReplacer(`\`, "/", "?", "/", "#", "/").Replace(strings.TrimPrefix(value, "https://")), "/")
				if !strings.HasPrefix(value, "https://") || !strings.HasSuffix(authority, "."+domain) || strings.Contains(authority, "@") {
					t.Errorf("%q leads to %q", location, value)
				}
				if strings.ContainsAny(value, "\r\n") && !strings.ContainsAny(location, "\r\n") {
					t.Errorf("%q breaks the line: %q", location, value)
				}
			case sandbox.HeaderEscaped:
				if strings.ContainsFunc(value, func(c rune) bool { return c < ' ' || c > '~' }) || len(value) > 300 {
					t.Errorf("%q is named %q", location, value)
				}
			}
		}
	})
}

// counted returns a figure of the gateway's metrics.
func counted(t *testing.T, r *rig, name string) float64 {
	t.Helper()
	w := httptest.NewRecorder()
	r.adminHandler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	for line := range strings.Lines(w.Body.String()) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			n, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("there is no %s", name)
	return 0
}
