package open

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/health"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/preview"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/route"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// view is a cluster of two namespaces whose Services all lead to one server.
type view struct {
	server string
	wait   atomic.Pointer[health.Block] // of sandbox pr-2
	dials  atomic.Int32
	down   bool
}

func (*view) Key(name string) (string, bool) {
	key, ok := map[string]string{"pr-1": "key-1", "pr-2": "key-2"}[name]
	return key, ok
}

func (*view) Service(namespace, name string) (*corev1.Service, bool) {
	ports, ok := map[string][]int32{"shop/web": {80}, "shop/api": {8080}, "edge/gate": {80}, "shop/many": {80, 8080}}[namespace+"/"+name]
	s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	for _, p := range ports {
		s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{Port: p})
	}
	return s, ok
}

func (v *view) Dial(ctx context.Context, namespace, service, _ string) (net.Conn, error) {
	v.dials.Add(1)
	if v.down {
		return nil, errors.New("no pod is ready")
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", v.server)
	if err == nil {
		_, err = fmt.Fprintf(conn, "GET /dialed/%s/%s HTTP/1.1\r\nHost: x\r\n\r\n", namespace, service)
	}
	if err != nil {
		return nil, err
	}
	r := bufio.NewReader(conn)
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		return nil, err
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	return conn, nil
}

func (v *view) Waiting(name string) *health.Block {
	if name == "pr-2" {
		return v.wait.Load()
	}
	return nil
}

type fixture struct {
	*Proxy
	view   *view
	client *http.Client

	mu   sync.Mutex
	said []string
}

func (f *fixture) notices() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return strings.Join(f.said, "\n")
}

// serve runs a proxy in front of a server that says what it was asked; /to?URL redirects, /page is HTML.
func serve(t *testing.T) *fixture {
	t.Helper()
	var mu sync.Mutex
	dialed := map[string]string{} // by connection
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if at, ok := strings.CutPrefix(r.URL.Path, "/dialed/"); ok {
			dialed[r.RemoteAddr] = at
			return
		}
		switch r.URL.Path {
		case "/to":
			w.Header().Set("Location", r.URL.RawQuery)
			w.WriteHeader(http.StatusFound)
		case "/page":
			w.Header().Set("Content-Type", "text/html; charset=utf-8")
		}
		fmt.Fprintf(w, "%s %s %s|%s", dialed[r.RemoteAddr], r.Host, r.Header.Get(sandbox.DefaultHeader), strings.Join(r.Header.Values("Baggage"), ";"))
	}))
	t.Cleanup(server.Close)
	v := &view{server: server.Listener.Addr().String()}
	f := &fixture{view: v, Proxy: &Proxy{
		View: v, Sandbox: "pr-1", Namespace: "shop", Entry: plan.ServiceRef{Namespace: "shop", Name: "web", Port: "80"},
		Hosts:    map[string]plan.ServiceRef{"shop.example": {Namespace: "shop", Name: "web"}, "api.shop.example": {Namespace: "shop", Name: "api"}},
		Carriers: route.Carriers{Header: sandbox.DefaultHeader, Member: sandbox.DefaultMember}, Origins: []string{"https://idp.example"},
	}}
	f.Notice = func(s string) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.said = append(f.said, s)
	}
	listeners, port, err := Listen(t.Context(), []netip.Addr{netip.MustParseAddr("127.0.0.1")}, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.Port = port
	ctx, cancel := context.WithCancel(context.Background())
	over := make(chan struct{})
	go func() {
		defer close(over)
		f.Serve(ctx, listeners)
	}()
	f.client = &http.Client{
		Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", listeners[0].Addr().String())
		}},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	t.Cleanup(func() {
		f.client.CloseIdleConnections()
		cancel()
		<-over
	})
	return f
}

func (f *fixture) get(t *testing.T, url string, headers ...string) (*http.Response, string) {
	t.Helper()
	method := http.MethodGet
	if strings.HasPrefix(url, "POST ") {
		method, url = http.MethodPost, url[5:]
	}
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	resp, err := f.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

func TestHostsLeadToSandboxesAndServices(t *testing.T) {
	f := serve(t)
	port := fmt.Sprintf(":%d", f.Port)
	for host, want := range map[string]string{
		"pr-1.localhost":           "shop/web %s key-1|sandbox-key=key-1,a=b",
		"PR-1.localhost.":          "shop/web %s key-1|sandbox-key=key-1,a=b",
		"pr-2.localhost":           "shop/web %s key-2|sandbox-key=key-2,a=b",
		"baseline.localhost":       "shop/web %s |a=b",
		"api.pr-2.localhost":       "shop/api %s key-2|sandbox-key=key-2,a=b",
		"gate.edge.pr-2.localhost": "edge/gate %s key-2|sandbox-key=key-2,a=b",
		"api.baseline.localhost":   "shop/api %s |a=b",
		"127.0.0.1":                "shop/web %s key-1|sandbox-key=key-1,a=b",
		"[::1]":                    "shop/web %s key-1|sandbox-key=key-1,a=b",
		"localhost":                "shop/web %s key-1|sandbox-key=key-1,a=b",
	} {
		_, body := f.get(t, "http://"+host+port+"/", sandbox.DefaultHeader, "other", "baggage", "a=b,sandbox-key=other")
		if want = fmt.Sprintf(want, host+port); body != want {
			t.Errorf("%s: got %q, want %q", host, body, want)
		}
	}
}

func TestWhatIsNoPreviewIsRefusedAndDialsNobody(t *testing.T) {
	f := serve(t)
	at := fmt.Sprintf("http://pr-1.localhost:%d/", f.Port)
	for _, test := range []struct {
		status  int
		url     string
		headers []string
	}{
		{421, "http://attacker.example/", nil},
		{421, "http://pr-1.localhost.attacker.example/", nil},
		{421, "http://pr-1-localhost/", nil},
		{404, "http://pr-3.localhost/", nil},
		{404, "http://nothing.pr-1.localhost/", nil},
		{404, "http://web.other.pr-1.localhost/", nil},
		{404, "http://a.web.shop.pr-1.localhost/", nil},
		{404, "http://many.pr-1.localhost/", nil},
		{403, at, []string{"Origin", "https://attacker.example"}},
		{403, at, []string{"Origin", "http://localhost.attacker.example"}},
		{403, at, []string{"Origin", "http://localhost@attacker.example"}},
		{403, at, []string{"Origin", "null"}},
		{403, at, []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "cors"}},
		{403, "POST " + at, []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate"}},
		{400, at, []string{"Connection", "baggage"}},
	} {
		if resp, body := f.get(t, test.url, test.headers...); resp.StatusCode != test.status {
			t.Errorf("%s %v: %s %s", test.url, test.headers, resp.Status, body)
		}
	}
	if n := f.view.dials.Load(); n != 0 {
		t.Errorf("%d connections were made", n)
	}
	for _, headers := range [][]string{
		{"Origin", "https://idp.example"}, {"Origin", "http://localhost:3000"}, {"Origin", "http://baseline.localhost:1"}, {"Origin", "http://127.0.0.1:5173"},
		{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate"}, {"Sec-Fetch-Site", "same-origin", "Sec-Fetch-Mode", "cors"},
	} {
		if resp, body := f.get(t, at, headers...); resp.StatusCode != http.StatusOK {
			t.Errorf("%v: %s %s", headers, resp.Status, body)
		}
	}
}

func TestRedirectsStayInThePreviewOrAreNamed(t *testing.T) {
	f := serve(t)
	own, baseline := f.URL("pr-1"), f.URL(Baseline)
	for _, test := range []struct{ from, to, want, said string }{
		{own, "/relative", "/relative", ""},
		{own, own + "/x", own + "/x", ""},
		{own, "http://web/x?y#z", own + "/x?y#z", ""},
		{own, "http://web.shop.svc.cluster.local:80/", own + "/", ""},
		{baseline, "//web.shop.svc/x", baseline + "/x", ""},
		{own, "https://shop.example/login", own + "/login", ""},
		{own, "http://API.shop.example/", f.origin("api.shop.pr-1.localhost") + "/", ""},
		{baseline, "http://api.shop:8080/", f.origin("api.shop.baseline.localhost") + "/", ""},
		{f.origin("127.0.0.1"), "http://web.shop/", f.origin("127.0.0.1") + "/", ""},
		{own, "http://api.shop:9999/", "http://api.shop:9999/", "http://api.shop:9999, which is no preview"},
		{own, "https://idp.example/?a", "https://idp.example/?a", "https://idp.example, which is no preview"},
		{own, strings.Replace(own, "http:", "https:", 1), strings.Replace(own, "http:", "https:", 1), "requires TLS"},
	} {
		resp, _ := f.get(t, test.from+"/to?"+strings.ReplaceAll(test.to, "#", "%23"))
		if got := strings.ReplaceAll(resp.Header.Get("Location"), "%23", "#"); got != test.want {
			t.Errorf("%s to %s: got %s, want %s", test.from, test.to, got, test.want)
		}
		if said := f.notices(); test.said != "" && !strings.Contains(said, test.said) {
			t.Errorf("%s: said %q", test.to, said)
		}
	}
	if n := len(f.said); n != 3 {
		t.Errorf("%d notices: %q", n, f.said)
	}
}

func TestWhereAPageGoesElsewhereIsNamed(t *testing.T) {
	f := serve(t)
	if resp, _ := f.get(t, f.URL("pr-1")+"/"); resp.Header.Get("Content-Security-Policy-Report-Only") != "" {
		t.Error("what is no page has a policy")
	}
	resp, _ := f.get(t, f.URL("pr-1")+"/page")
	if policy := resp.Header.Get("Content-Security-Policy-Report-Only"); !strings.Contains(policy, "report-uri "+preview.ReportPath) {
		t.Errorf("policy %q", policy)
	}
	dials := f.view.dials.Load()
	for body, status := range map[string]int{
		`{"csp-report":{"blocked-uri":"http://api.example:81/x?secret"}}`: 204, `{"csp-report":{"blocked-uri":"inline"}}`: 204, `{`: 400,
	} {
		resp, err := f.client.Post(f.URL("pr-1")+preview.ReportPath, "application/csp-report", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != status {
			t.Errorf("%s: %s", body, resp.Status)
		}
	}
	if said := f.notices(); !strings.Contains(said, "uses http://api.example:81, which") || strings.Contains(said, "secret") || f.view.dials.Load() != dials {
		t.Errorf("said %q", said)
	}
}

func TestAServiceThatCantBeReachedIsNamed(t *testing.T) {
	f := serve(t)
	f.view.down = true
	resp, body := f.get(t, f.URL("pr-1")+"/")
	if resp.StatusCode != 503 || !strings.Contains(body, "service web.shop did not answer: no pod is ready") {
		t.Errorf("%s %s", resp.Status, body)
	}
}

// No host that a client thinks up leads anywhere but to Services of opened namespaces, with the key of the sandbox it names.
func FuzzFind(f *testing.F) {
	for _, s := range []string{"pr-1.localhost", "api.pr-2.localhost:80", "gate.edge.baseline.localhost", "[::1]:80", "127.0.0.1", "a.b.c.pr-1.localhost"} {
		f.Add(s)
	}
	p := &Proxy{View: &view{}, Sandbox: "pr-1", Namespace: "shop", Entry: plan.ServiceRef{Namespace: "shop", Name: "web"}}
	f.Fuzz(func(t *testing.T, authority string) {
		d := p.Decide(&engine.Head{Method: []byte("GET"), Target: []byte("/"), Authority: []byte(authority)})
		if d.Refusal != nil {
			if d.Refusal.Status/100 != 4 || len(d.Backends) > 0 {
				t.Errorf("%q: %+v", authority, d)
			}
			return
		}
		host, _ := preview.ParseHost(authority)
		to, _ := p.find(host.Name)
		if key, ok := p.Key(to.sandbox); to.key != key || ok != (to.sandbox != "") {
			t.Errorf("%q: %+v", authority, to)
		}
		if strings.Contains(authority, "baseline.localhost") && to.key != "" {
			t.Errorf("%q: key %q", authority, to.key)
		}
	})
}

func TestListen(t *testing.T) {
	both, err := ParseAddresses("localhost")
	if err != nil {
		t.Fatal(err)
	}
	first, port, err := Listen(t.Context(), both, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		for _, l := range first {
			_ = l.Close()
		}
	}()
	if _, _, err := Listen(t.Context(), both[:1], port); err == nil {
		t.Error("a port was taken twice")
	}
	if _, err := ParseAddresses("example.test"); err == nil {
		t.Error("a name is no address")
	}
}

// Its own answers are pages for people and JSON for programs, and reach no pod.
func TestPages(t *testing.T) {
	f := serve(t)
	f.view.wait.Store(&health.Block{Fork: "api-pr-2", Cause: health.Cause{Code: health.ContainerCrashed, Outlook: health.OutlookFinal,
		Message: "container api crashes: exit code 3", Log: &health.LogRef{Pod: "x", Container: "api", Previous: true}}})
	local := fmt.Sprintf("localhost:%d", f.Port)
	for name, test := range map[string]struct {
		url     string
		status  int
		says    []string
		headers []string
	}{
		"no such sandbox": {"http://nobody." + local, 404, []string{"nobody", "shop", "kubectl sandbox list -n shop"}, nil},
		"no such service": {"http://none.pr-1." + local, 404, []string{"pr-1", "shop", "kubectl get services -n shop"}, nil},
		"no such port":    {"http://many.pr-1." + local, 404, []string{"pr-1", "shop", "kubectl get service many -n shop"}, nil},
		"another host":    {"http://shop.example", 421, []string{"shop.example", "kubectl sandbox list -n shop"}, nil},
		"another site":    {"http://pr-1." + local, 403, []string{"https://attacker.example", "pr-1", "kubectl sandbox open pr-1 -n shop --allow-origin="}, []string{"Origin", "https://attacker.example"}},
		"crashed": {"http://pr-2." + local, 503, []string{"pr-2", "api-pr-2", "ContainerCrashed", "container api crashes: exit code 3",
			"kubectl logs deploy/api-pr-2 --container=api -n shop --previous"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			page, html := f.get(t, test.url, append([]string{"Accept", "text/html,*/*;q=0.8"}, test.headers...)...)
			html = strings.NewReplacer("<span>", "", "</span>", "").Replace(html) // each word of a command is one
			said, text := f.get(t, test.url, append([]string{"Accept", "*/*"}, test.headers...)...)
			if page.StatusCode != test.status || said.StatusCode != test.status || f.view.dials.Load() != 0 || page.Header.Get(sandbox.HeaderError) == "" ||
				!strings.HasPrefix(page.Header.Get("Content-Type"), "text/html") || said.Header.Get("Content-Type") != "application/json" {
				t.Errorf("%s %v, %s %v, %d dials", page.Status, page.Header, said.Status, said.Header, f.view.dials.Load())
			}
			var program struct{ Error, Sandbox, Namespace, Code, Reason, Command string }
			if err := json.Unmarshal([]byte(text), &program); err != nil {
				t.Fatalf("%v: %s", err, text)
			}
			for _, s := range test.says {
				if !strings.Contains(html, s) || !strings.Contains(fmt.Sprint(program), s) {
					t.Errorf("%q is not in %+v or\n%s", s, program, html)
				}
			}
		})
	}
	// Nothing that names say is anything but text.
	if _, html := f.get(t, "http://pr-1."+local, "Accept", "text/html", "Origin", "<script>alert(1)</script>"); strings.Contains(html, "<script>alert") {
		t.Error(html)
	}
	f.view.wait.Store(nil)
	if resp, _ := f.get(t, "http://pr-2."+local); resp.StatusCode != 200 {
		t.Errorf("once the fork serves: %s", resp.Status)
	}
	f.view.down = true
	if resp, html := f.get(t, "http://pr-1."+local, "Accept", "text/html"); resp.StatusCode != 503 || !strings.Contains(html, "no pod is ready") || resp.Header.Get("Retry-After") == "" {
		t.Errorf("%s %s", resp.Status, html)
	}
}
