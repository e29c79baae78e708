package e2e

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubectl-sandbox/kubectl-sandbox/test/apps"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/share"
)

// A gatewayWithin is the gateway as the chart installs it: two pods behind a Service, which is asked as a proxy in front would ask.
type gatewayWithin struct {
	*space
	http, h2c, https string            // addresses
	cert             *x509.Certificate // of https
	client           *http.Client
	tokens           []string // all that were given out
}

// gatewayWithin has the release serve previews until the test ends. Not for parallel tests: with a gateway, `fork` and `status` say
// more than others expect of them.
func (s *space) gatewayWithin(more ...string) *gatewayWithin {
	s.t.Helper()
	values, name := s.values(), s.helmRelease()
	s.t.Cleanup(func() { s.helm("upgrade", name, s.chart(), "--values="+values, "--wait", "--timeout=120s") })
	set := strings.Join(append([]string{"gateway.enabled=true", "gateway.domain=" + previewDomain}, more...), ",")
	s.helm("upgrade", name, s.chart(), "--values="+values, "--set="+set, "--wait", "--timeout=120s")
	service, err := s.client.CoreV1().Services(s.release).Get(s.t.Context(), "sandbox-gateway", metav1.GetOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	at := func(port string) string { return net.JoinHostPort(service.Spec.ClusterIP, port) }
	g := &gatewayWithin{
		space: s, http: at("80"), h2c: at("81"), https: at("443"),
		client: &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
	}
	// Helm waits for the pods. That the Service leads to them is known to the node some time after.
	eventually(s.t, time.Minute, "the gateway's Service takes connections", func(ctx context.Context) error {
		c, err := (&net.Dialer{}).DialContext(ctx, "tcp", at(strconv.Itoa(int(service.Spec.Ports[0].Port))))
		if err != nil {
			return err
		}
		return c.Close()
	})
	return g
}

// within returns the gateway for a part of the test that brought it up, in a namespace of the part's own.
func (g *gatewayWithin) within(t *testing.T) *gatewayWithin {
	t.Helper()
	part := *g
	part.space = newSpace(t)
	return &part
}

// token shares a sandbox, and returns the header line that lets in.
func (g *gatewayWithin) token(s *space, args ...string) string {
	s.t.Helper()
	token := strings.TrimSpace(s.sandbox(append([]string{"share", "--token"}, args...)...).stdout)
	g.tokens = append(g.tokens, token)
	return "Authorization: Bearer " + token
}

// request returns one for a host, with header lines; empty ones are left out.
func (g *gatewayWithin) request(ctx context.Context, method, host, target string, body io.Reader, header ...string) *http.Request {
	q, err := http.NewRequestWithContext(ctx, method, "http://"+g.http+target, body)
	if err != nil {
		g.t.Fatal(err)
	}
	q.Host = host
	for _, line := range header {
		if name, value, ok := strings.Cut(line, ": "); ok {
			q.Header.Set(name, value)
		}
	}
	return q
}

func (g *gatewayWithin) try(ctx context.Context, host, target string, header ...string) (*http.Response, string, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	answer, err := g.client.Do(g.request(ctx, http.MethodGet, host, target, nil, header...))
	if err != nil {
		return nil, "", err
	}
	body, err := io.ReadAll(answer.Body)
	return answer, string(body), errors.Join(err, answer.Body.Close())
}

func (g *gatewayWithin) get(host, target string, header ...string) (*http.Response, string) {
	g.t.Helper()
	answer, body, err := g.try(g.t.Context(), host, target, header...)
	if err != nil {
		g.t.Fatal(err)
	}
	return answer, body
}

// answers waits until the gateway answers with a status in each of its pods, so far as requests by the Service tell.
func (g *gatewayWithin) answers(host, header string, status int) {
	g.t.Helper()
	eventually(g.t, 30*time.Second, fmt.Sprintf("%s answers %d", host, status), func(ctx context.Context) error {
		for range 8 {
			g.client.CloseIdleConnections()
			answer, body, err := g.try(ctx, host, "/", header)
			if err != nil {
				return err
			}
			if answer.StatusCode != status {
				return fmt.Errorf("%s: %s", answer.Status, body)
			}
		}
		return nil
	})
}

// gatewayPods returns those that are not on their way out.
func (g *gatewayWithin) gatewayPods() []corev1.Pod {
	g.t.Helper()
	list, err := g.space.client.CoreV1().Pods(g.release).List(g.t.Context(), metav1.ListOptions{LabelSelector: "app.kubernetes.io/component=gateway"})
	if err != nil {
		g.t.Fatal(err)
	}
	var live []corev1.Pod
	for _, p := range list.Items {
		if p.DeletionTimestamp == nil {
			live = append(live, p)
		}
	}
	return live
}

// dialed returns how many requests the gateway's pods have sent on, whatever came of them.
func (g *gatewayWithin) dialed() string {
	g.t.Helper()
	var out []string
	for _, p := range g.gatewayPods() {
		resp, err := http.Get("http://" + net.JoinHostPort(p.Status.PodIP, "8081") + "/metrics")
		if err != nil {
			g.t.Fatal(err)
		}
		for line := range strings.Lines(readAll(resp.Body)) {
			for _, outcome := range []string{"answered", "unreachable", "unfinished"} {
				if strings.HasPrefix(line, `sandbox_gateway_requests_total{outcome="`+outcome+`"}`) {
					out = append(out, p.Name+" "+strings.TrimSpace(line))
				}
			}
		}
		resp.Body.Close()
	}
	return strings.Join(out, "\n")
}

// keepsSecrets checks that no token is in a log of the gateway, or in a ConfigMap.
func (g *gatewayWithin) keepsSecrets(in ...*space) {
	g.t.Helper()
	r := run(g.command(g.t.Context(), "kubectl", "-n", g.release, "logs", "-l", "app.kubernetes.io/component=gateway", "--tail=-1", "--prefix"))
	if r.err != nil {
		g.t.Fatal(r)
	}
	if !strings.Contains(r.stdout, "serving previews") {
		g.t.Errorf("no log of the gateway: %s", tail(r.stdout, 2000))
	}
	all := r.stdout
	for _, s := range in {
		all += s.kubectl("get", "configmaps", "-o", "yaml")
	}
	for i, token := range g.tokens {
		if strings.Contains(all, token) {
			g.t.Errorf("token %d of %d is kept, or logged", i+1, len(g.tokens))
		}
	}
}

// The gateway behind a proxy: brought up once for all of it, which takes as long as a part of it.
func TestGateway(t *testing.T) {
	g := newSpace(t).gatewayWithin()
	t.Run("lets in whom a sandbox is shared with", func(t *testing.T) { letsInWhomASandboxIsSharedWith(t, g.within(t)) })
	t.Run("enters a sandbox by a Service of another namespace that allows it", func(t *testing.T) { entersByAnotherNamespace(t, g.within(t)) })
	t.Run("passes WebSockets, events, calls and large bodies", func(t *testing.T) { passesStreams(t, g.within(t)) })
}

func letsInWhomASandboxIsSharedWith(t *testing.T, g *gatewayWithin) {
	s := g.space
	s.create(podinfo("web", 1), podinfoService("web"))
	s.available("web")
	s.serving(s.address("web", "http"))
	s.sandbox("route", "deploy/web")
	forked := s.sandbox("fork", "deploy/web", "--name=pr-1", "--image="+apps.Podinfo(1))
	host := "web--pr-1--" + s.name + "." + previewDomain
	if !strings.Contains(forked.stdout, "https://"+host+"/") {
		t.Errorf("fork does not tell the preview:\n%s", forked)
	}
	if status := s.sandbox("status", "pr-1"); !strings.Contains(status.stdout, "preview: https://"+host+"/") {
		t.Errorf("status does not tell the preview:\n%s", status)
	}
	if n := len(g.gatewayPods()); n != 2 {
		t.Errorf("%d pods of the gateway", n)
	}
	fork := s.hosts(sandbox.LabelSandbox + "=pr-1")[0]
	g.answers(host, "", 401) // both replicas know of it
	answer, body := g.get(host, "/")
	var said struct{ Sandbox, Command, Reason string }
	if err := json.Unmarshal([]byte(body), &said); err != nil || answer.StatusCode != 401 || said.Sandbox != "pr-1" {
		t.Fatalf("not signed in: %s %v: %s", answer.Status, err, body)
	}
	// What the page says to do is a command that works.
	link, err := url.Parse(strings.TrimSpace(s.shell(said.Command).stdout))
	if err != nil || link.Host != host {
		t.Fatalf("%s: %v, %v", said.Command, link, err)
	}
	g.tokens = append(g.tokens, link.Query().Get(share.Parameter))
	eventually(t, 60*time.Second, "the link is known", func(ctx context.Context) error {
		answer, body, err = g.try(ctx, host, link.RequestURI())
		if err == nil && answer.StatusCode != 303 {
			err = fmt.Errorf("%s: %s", answer.Status, body)
		}
		return err
	})
	cookies := answer.Cookies()
	if answer.Header.Get("Location") != "/" || len(cookies) != 1 || !cookies[0].Secure || !cookies[0].HttpOnly || cookies[0].Domain != "" {
		t.Fatalf("link: %s, %v", answer.Status, answer.Header)
	}
	signedIn := "Cookie: " + cookies[0].Name + "=" + cookies[0].Value
	g.answers(host, signedIn, 200)
	for _, key := range []string{"", "x-sandbox-key: nobodys", "baggage: sandbox-key=nobodys,a=1"} {
		answer, body = g.get(host, "/", signedIn, key)
		if answer.StatusCode != 200 || answer.Header.Get(sandbox.HeaderServedBy) != fork || !strings.Contains(body, apps.Release(1)) {
			t.Errorf("with %q: %s by %s: %s", key, answer.Status, answer.Header.Get(sandbox.HeaderServedBy), body)
		}
	}
	if answer.Header.Get("X-Robots-Tag") != "noindex, nofollow" {
		t.Errorf("indexed: %v", answer.Header)
	}
	// What the app was sent has the sandbox's key, and nothing of the gateway's own.
	if _, body = g.get(host, "/headers", signedIn); strings.Contains(body, cookies[0].Value) || !strings.Contains(body, host) {
		t.Errorf("app got %s", body)
	}
	token := g.token(s, "pr-1", "svc/web", "--expires=1h")
	g.answers(host, token, 200)
	g.refuses(host, token, cookies[0].Value)

	// A fork that does not start is told, with the command that tells more.
	s.trySandbox("fork", "deploy/web", "--name=pr-2", "--image=nowhere.test/none:1", "--wait=false")
	broken := g.token(s, "pr-2", "svc/web")
	eventually(t, time.Minute, "the broken fork is told", func(ctx context.Context) error {
		answer, body, err := g.try(ctx, "web--pr-2--"+s.name+"."+previewDomain, "/", broken)
		if err == nil && (answer.StatusCode != 503 || !strings.Contains(body, "pull") || !strings.Contains(body, "kubectl ")) {
			err = fmt.Errorf("%s: %s", answer.Status, body)
		}
		return err
	})
	g.restarts(host, token, fork)

	if r := s.sandbox("share", "pr-1", "--revoke"); r.stdout != "sandbox pr-1: 3 links and tokens revoked\n" {
		t.Errorf("%v", r)
	}
	g.answers(host, token, 401)
	g.answers(host, signedIn, 401)
	token = g.token(s, "pr-1")
	g.answers(host, token, 200)
	g.keepsSecrets(s)
	s.sandbox("delete", "--all")
	g.answers(host, token, 410)
}

// refuses sends what must not get in, and checks that none of it is sent on to a Service.
func (g *gatewayWithin) refuses(host, token, cookie string) {
	g.t.Helper()
	before := g.dialed()
	for name, test := range map[string]struct {
		status int
		host   string
		header []string
	}{
		"no token":              {401, host, nil},
		"tampered token":        {401, host, []string{token[:len(token)-1] + map[bool]string{true: "b", false: "a"}[strings.HasSuffix(token, "a")]}},
		"tampered cookie":       {401, host, []string{"Cookie: " + share.Cookie + "=" + cookie[1:]}},
		"another Service's":     {401, "other--pr-1--" + g.name + "." + previewDomain, []string{token}},
		"no such sandbox":       {404, "web--nobody--" + g.name + "." + previewDomain, []string{token}},
		"no such namespace":     {404, "web--pr-1--kube-system." + previewDomain, []string{token}},
		"another domain":        {404, "web--pr-1--" + g.name + ".preview.example", []string{token}},
		"a name within":         {404, "a." + host, []string{token}},
		"drops the key":         {400, host, []string{token, "Connection: x-sandbox-key"}},
		"another forwarded for": {404, "kubernetes.default.svc", []string{token, "X-Forwarded-Host: " + host}},
	} {
		answer, body := g.get(test.host, "/", test.header...)
		if answer.StatusCode != test.status {
			g.t.Errorf("%s: %s, want %d: %s", name, answer.Status, test.status, body)
		}
	}
	for name, text := range map[string]string{
		"absolute form":       "GET http://kubernetes.default/ HTTP/1.1\r\nHost: " + host + "\r\n" + token + "\r\n\r\n",
		"CONNECT":             "CONNECT kubernetes.default:443 HTTP/1.1\r\nHost: " + host + "\r\n" + token + "\r\n\r\n",
		"two hosts":           "GET / HTTP/1.1\r\nHost: " + host + "\r\nHost: a\r\n" + token + "\r\n\r\n",
		"two lengths":         "POST / HTTP/1.1\r\nHost: " + host + "\r\n" + token + "\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
		"length and chunks":   "POST / HTTP/1.1\r\nHost: " + host + "\r\n" + token + "\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"a folded field":      "GET / HTTP/1.1\r\nHost: " + host + "\r\n" + token + "\r\nA: b\r\n c\r\n\r\n",
		"space before colon":  "GET / HTTP/1.1\r\nHost: " + host + "\r\n" + token + "\r\nTransfer-Encoding : chunked\r\n\r\n",
		"chunked, not at end": "POST / HTTP/1.1\r\nHost: " + host + "\r\n" + token + "\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
	} {
		conn := must[net.Conn](g.t)(net.DialTimeout("tcp", g.http, 10*time.Second))
		_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
		if _, err := conn.Write([]byte(text)); err != nil {
			g.t.Errorf("%s: %v", name, err)
		}
		first := make([]byte, 12)
		_, err := io.ReadFull(conn, first)
		_ = conn.Close()
		if err != nil || !strings.HasPrefix(string(first), "HTTP/1.1 4") {
			g.t.Errorf("%s: answered with %q: %v", name, first, err)
		}
	}
	// A share that has expired lets nobody in, even where it is still there.
	expired := share.NewToken()
	g.share("pr-1", "web", expired, time.Now().Add(-time.Minute))
	g.answers(host, "Authorization: Bearer "+expired, 401)
	if after := g.dialed(); after != before {
		g.t.Errorf("requests were sent on:\n%s\nbefore:\n%s", after, before)
	}
}

// restarts replaces the gateway's pods under load.
func (g *gatewayWithin) restarts(host, token, fork string) {
	g.t.Helper()
	name, value, _ := strings.Cut(token, ": ")
	header := http.Header{"Host": {host}, name: {value}}
	traffic := startHTTP(g.t, "previews", g.http, "/", 100, header, func(a answer) error {
		if a.ServedBy != fork {
			return fmt.Errorf("served by %q", a.ServedBy)
		}
		return nil
	})
	rollout := func(args ...string) {
		if r := run(g.command(g.t.Context(), "kubectl", append([]string{"-n", g.release, "rollout"}, args...)...)); r.err != nil {
			g.t.Fatal(r)
		}
	}
	g.keepsSecrets() // of pods that go
	old := g.gatewayPods()
	rollout("restart", "deploy/sandbox-gateway")
	rollout("status", "deploy/sandbox-gateway", "--timeout=120s")
	eventually(g.t, 90*time.Second, "the old pods are gone", func(ctx context.Context) error {
		for _, p := range old {
			if _, err := g.space.client.CoreV1().Pods(g.release).Get(ctx, p.Name, metav1.GetOptions{}); err == nil {
				return fmt.Errorf("%s is there", p.Name)
			}
		}
		return nil
	})
	traffic.unscathed(500)
}

func entersByAnotherNamespace(t *testing.T, g *gatewayWithin) {
	s, edge := g.space, newSpace(t)
	s.hotrodBehind(edge)
	s.sandbox("route", "deploy/customer")
	s.sandbox("fork", "deploy/customer", "--name=fast", "--key=fast-key", "--image="+apps.HotrodFast)

	entry := "svc/frontend." + edge.name
	if r := s.trySandbox("share", "fast", entry); r.err == nil || !strings.Contains(r.stderr, sandbox.LabelEntry+"="+sandbox.EntryAllowed) {
		t.Errorf("shared by a Service whose namespace does not allow it: %v", r)
	}
	label := func(value string) {
		if r := run(s.command(t.Context(), "kubectl", "label", "namespace", edge.name, sandbox.LabelEntry+value)); r.err != nil {
			t.Fatal(r)
		}
	}
	label("=" + sandbox.EntryAllowed)
	link := must[*url.URL](t)(url.Parse(strings.TrimSpace(s.sandbox("share", "fast", entry).stdout)))
	g.tokens = append(g.tokens, link.Query().Get(share.Parameter))
	there, own := g.token(s, "fast", entry), g.token(s, "fast", "svc/frontend")
	g.answers(link.Host, there, 200)
	near := "frontend--fast--" + s.name + "." + previewDomain
	g.answers(near, own, 200)

	ask := func(where, host string, header ...string) func(id string) (*http.Response, string) {
		return func(id string) (*http.Response, string) {
			t.Helper()
			q := g.request(t.Context(), http.MethodGet, host, "/dispatch?customer=123", nil,
				append(header, "traceparent: 00-"+id+"-00f067aa0ba902b7-01", "baggage: session=7,sandbox-key=other")...)
			q.URL.Host = where
			resp, err := http.DefaultClient.Do(q)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			return resp, readAll(resp.Body)
		}
	}
	s.rides("the entry's namespace", ask(g.http, link.Host, there), "fast")
	s.rides("the sandbox's namespace", ask(g.http, near, own), "fast")
	s.rides("the baseline", ask(edge.address("frontend", "http"), "frontend"), "")

	label("-")
	g.answers(link.Host, there, 404)
	before := g.dialed()
	g.get(link.Host, "/", there)
	if after := g.dialed(); after != before {
		t.Errorf("sent on to a namespace that does not allow it any more:\n%s\nbefore:\n%s", after, before)
	}
	g.keepsSecrets(s, edge)
}
