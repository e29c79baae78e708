package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/preview"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/share"
)

const html = "Accept: text/html,application/xhtml+xml;q=0.9,*/*;q=0.8"

func unready(reason, message string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Status.Conditions[1] = corev1.PodCondition{Type: sandbox.ConditionRouted, Status: corev1.ConditionFalse, Reason: reason, Message: message}
	}
}

func crashed(p *corev1.Pod) {
	p.Status.Conditions = nil
	p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "api",
		State:                corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}},
		LastTerminationState: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 3}}}}
}

// Each page says, for a person and for a program, of which sandbox it is, why, and what to do next; none is by a dial.
func TestPages(t *testing.T) {
	token := share.NewToken()
	cm := aSandbox(shop, "pr-1", "key-1")
	expired := aSandbox(shop, "pr-1", "key-1")
	expired.Data[sandbox.DataExpires] = "2026-01-02T03:04:05Z"
	let := aShare(cm, token, "web", time.Hour)
	fork := aFork()
	for name, test := range map[string]struct {
		objects []client.Object
		status  int
		says    []string
		retry   bool
	}{
		"sign in": {ready(), 401, []string{"pr-1", "shop", "closed", "kubectl sandbox share pr-1 svc/web -n shop"}, false},
		"none":    {nil, 404, []string{"No such sandbox", "pr-1", "kubectl sandbox list -n shop"}, false},
		"expired": {[]client.Object{expired}, 410, []string{"expired at 2026-01-02 03:04 UTC", "kubectl sandbox list -n shop"}, false},
		"no forks yet": {[]client.Object{cm, let, aService(shop, "web")}, 503,
			[]string{"waits for its first fork", "kubectl sandbox status pr-1 -n shop"}, true},
		"starting": {[]client.Object{cm, let, aService(shop, "web"), fork, aPod(fork, "x", unready("RouterNotAcknowledged", "the router of pod api-7d has not acknowledged the route yet"))}, 503,
			[]string{"api-pr-1", "RouterNotAcknowledged", "router of pod api-7d has not acknowledged", "kubectl sandbox status pr-1 -n shop"}, true},
		"crashed": {[]client.Object{cm, let, aService(shop, "web"), fork, aPod(fork, "x", crashed)}, 503,
			[]string{"does not run", "ContainerCrashed", "container api crashes: exit code 3", "kubectl logs deploy/api-pr-1 --container=api -n shop --previous"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil, test.objects...)
			lines := []string{bearer(token)}
			if test.status == 401 {
				lines = nil
			}
			answer, body := r.get(host, "/", append(lines, "Accept: */*")...)
			var said struct {
				Status                                                          int
				Error, Sandbox, Namespace, Service, Code, Reason, Next, Command string
				Retry                                                           bool
			}
			if err := json.Unmarshal([]byte(body), &said); err != nil || answer.Header.Get("Content-Type") != "application/json" {
				t.Fatalf("%v: %s", err, body)
			}
			if answer.StatusCode != test.status || said.Status != test.status || said.Sandbox != "pr-1" || said.Namespace != shop || said.Retry != test.retry {
				t.Errorf("got %s, %+v", answer.Status, said)
			}
			page, text := r.get(host, "/", append(lines, html)...)
			text = strings.NewReplacer("<span>", "", "</span>", "").Replace(text) // each word of a command is one
			if page.StatusCode != test.status || !strings.HasPrefix(page.Header.Get("Content-Type"), "text/html") {
				t.Errorf("got %s, %s", page.Status, page.Header.Get("Content-Type"))
			}
			for _, s := range test.says {
				if !strings.Contains(said.Error+said.Code+said.Reason+said.Next+said.Command+said.Sandbox+said.Namespace, s) || !strings.Contains(text, s) {
					t.Errorf("%q is not in %+v or\n%s", s, said, text)
				}
			}
			if strings.Contains(text, "<script>") != test.retry || r.counted() != 0 {
				t.Errorf("script: %v, dials %v", !test.retry, r.dials)
			}
			for header, value := range map[string]string{"Cache-Control": "no-store", "X-Robots-Tag": "noindex, nofollow", "Vary": "Accept"} {
				if page.Header.Get(header) != value {
					t.Errorf("%s: %q", header, page.Header.Get(header))
				}
			}
		})
	}
}

// Names and messages from the cluster are text, whatever they hold.
func TestPages_EscapeWhatTheyAreTold(t *testing.T) {
	token := share.NewToken()
	cm, fork := aSandbox(shop, "pr-1", "key-1"), aFork()
	r := newRig(t, nil, cm, aShare(cm, token, "web", time.Hour), aService(shop, "web"), fork, aPod(fork, "x", unready("x", "<script>alert(1)</script>\r\nX-Injected: 1")))
	answer, body := r.get(host, "/", bearer(token), html)
	if strings.Contains(body, "<script>alert") || answer.Header.Get("X-Injected") != "" || !strings.Contains(body, "&lt;script&gt;") {
		t.Errorf("%v\n%s", answer.Header, body)
	}
}

func TestGone(t *testing.T) {
	r := newRig(t, nil)
	cm := aSandbox(shop, "pr-1", "key-1")
	r.handler.directory.deleted(cm)
	if answer, body := r.get(host, "/"); answer.StatusCode != 410 || !strings.Contains(body, "it was deleted") {
		t.Errorf("%s: %s", answer.Status, body)
	}
	r.handler.directory.made(cm)
	if answer, _ := r.get(host, "/"); answer.StatusCode != 404 {
		t.Errorf("made anew: %s", answer.Status)
	}
}

// A sandbox is entered by a Service of another namespace where that lets it, by a host that is an alias.
func TestEntryOfAnotherNamespace(t *testing.T) {
	token := share.NewToken()
	cm := aSandbox(shop, "pr-1", "key-1")
	lobby := aNamespace("lobby", sandbox.LabelEntry, sandbox.EntryAllowed)
	r := newRig(t, nil, ready(lobby, aService("lobby", "door"), aShare(cm, token, "door.lobby", time.Hour))...)
	alias := preview.Label("door.lobby", "pr-1", shop)
	if answer, body := r.get(alias+"."+domain, "/", bearer(token)); answer.StatusCode != 200 || r.last().Header.Get("X-Sandbox-Key") != "key-1" {
		t.Fatalf("%s: %s", answer.Status, body)
	}
	delete(lobby.Labels, sandbox.LabelEntry)
	if err := r.client.Update(t.Context(), lobby); err != nil {
		t.Fatal(err)
	}
	// At once, though the alias is still known.
	if answer, _ := r.get(alias+"."+domain, "/", bearer(token)); answer.StatusCode != 404 || r.counted() != 1 {
		t.Errorf("after the label is gone: %s, %d dials", answer.Status, r.counted())
	}
}

// With a proxy that signs people in, only what came through it is let in.
func TestProxyThatSignsIn(t *testing.T) {
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte("correct-horse-battery\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	token := share.NewToken()
	cm := aSandbox(shop, "pr-1", "key-1")
	r := newRig(t, func(o *Options) { o.PasswordFile, o.BehindProxy = file, true }, ready(aShare(cm, token, "web", time.Hour))...)
	// ann:correct-horse-battery, ann:wrong
	for credentials, want := range map[string]int{"YW5uOmNvcnJlY3QtaG9yc2UtYmF0dGVyeQ==": 200, "YW5uOndyb25n": 401, "%": 401} {
		answer, body := r.get(host, "/", "Authorization: Basic "+credentials, "X-Forwarded-User: ann", "X-Forwarded-For: 1.2.3.4",
			"Cookie: _oauth2_proxy_0=session; theme=dark")
		if answer.StatusCode != want {
			t.Errorf("%s: %s: %s", credentials, answer.Status, body)
		}
	}
	if got := r.last(); got.Header.Get("X-Forwarded-User") != "ann" || got.Header.Get("Authorization") != "" || got.Header.Get("X-Forwarded-For") != "1.2.3.4, 127.0.0.1" ||
		got.Header.Get("Cookie") != "theme=dark" {
		t.Errorf("app got %v", got.Header)
	}
	if answer, _ := r.get(host, "/", bearer(token)); answer.StatusCode != 401 || r.counted() != 1 {
		t.Errorf("past the proxy: %s", answer.Status)
	}
}

func TestTarget(t *testing.T) {
	h2c := "kubernetes.io/h2c"
	both := func(s *corev1.Service) {
		s.Spec.Ports = []corev1.ServicePort{{Name: "metrics", Port: 9}, {Name: "rpc", Port: 50, AppProtocol: &h2c}, {Name: "http", Port: 8080}}
	}
	for _, test := range []struct {
		change func(*corev1.Service)
		http2  bool
		want   string
	}{
		{func(*corev1.Service) {}, false, "10.96.0.9:80"}, {func(*corev1.Service) {}, true, "10.96.0.9:80"},
		{both, false, "10.96.0.9:8080"}, {both, true, "10.96.0.9:50"},
		{func(s *corev1.Service) { s.Spec.ClusterIP = corev1.ClusterIPNone }, false, "web.shop.svc:80"},
		{func(s *corev1.Service) {
			s.Spec.ClusterIP, s.Spec.Ports[0].TargetPort.IntVal = corev1.ClusterIPNone, 8080
		}, false, "web.shop.svc:8080"},
	} {
		if got, why := target(aService(shop, "web", test.change), test.http2); got != test.want || why != "" {
			t.Errorf("got %s, %s, want %s", got, why, test.want)
		}
	}
}

// Whatever comes in, nothing of the gateway's own credentials goes on, and no line is broken.
func FuzzCredentials(f *testing.F) {
	token := share.NewToken()
	f.Add([]byte("/?sandbox-token=x&a=b"), []byte("a=b; __Host-sandbox="+token), []byte("Bearer "+token))
	f.Add([]byte("/"), []byte(";;=; __Host-sandbox"), []byte("Basic YTpi"))
	f.Fuzz(func(t *testing.T, target, cookies, authorization []byte) {
		h := &engine.Head{Target: target, Fields: []engine.Field{{Name: []byte("Cookie"), Value: cookies}, {Name: []byte("authorization"), Value: authorization}}}
		c := readCredentials(h)
		var e engine.Edits
		c.strip(&e, false)
		for _, set := range e.Set {
			for pair := range bytes.SplitSeq(set.Value, []byte(";")) {
				name, _, _ := bytes.Cut(pair, []byte("="))
				if string(bytes.TrimSpace(name)) == share.Cookie {
					t.Errorf("%q goes on as %q", cookies, set.Value)
				}
			}
		}
		if len(c.tokens) > maxTokens {
			t.Errorf("%d tokens", len(c.tokens))
		}
		if c.linked {
			if bytes.Contains(c.rest, []byte("?"+share.Parameter+"=")) || bytes.Contains(c.rest, []byte("&"+share.Parameter+"=")) && bytes.Contains(target, []byte("?")) {
				t.Errorf("%q leaves %q", target, c.rest)
			}
			location := ""
			for _, f := range c.welcome(share.Share{Expires: time.Now()}, time.Now()).Fields {
				if string(f.Name) == "Location" {
					location = string(f.Value)
				}
			}
			if !strings.HasPrefix(location, "/") || strings.HasPrefix(location, "//") || strings.HasPrefix(location, `/\`) {
				t.Errorf("%q leads to %q", target, location)
			}
		}
	})
}

// No request, whatever it says, panics the handler or is let in without a token.
func FuzzDecide(f *testing.F) {
	f.Add("GET", "/", host, "accept", "text/html")
	f.Add("OPTIONS", "*", "WEB--pr-1--shop."+domain+":80", "cookie", share.Cookie+"=x")
	r := &rig{}
	f.Fuzz(func(t *testing.T, method, target, authority, name, value string) {
		if r.Gateway == nil {
			r = newRig(t, nil, ready()...)
		}
		c := &connection{handler: r.handler}
		h := &engine.Head{Method: []byte(method), Target: []byte(target), Authority: []byte(authority), Fields: []engine.Field{{Name: []byte(name), Value: []byte(value)}}}
		d, g := c.decide(context.Background(), h)
		if g == nil && d.Refusal == nil {
			t.Errorf("let in: %+v", d)
		}
	})
}
