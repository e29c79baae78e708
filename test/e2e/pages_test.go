package e2e

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/kubectl-sandbox/kubectl-sandbox/test/apps"
	"github.com/kubectl-sandbox/kubectl-sandbox/test/browser"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/share"
)

// An ownPage is an answer of a way in itself, as a person sees it.
type ownPage struct {
	name   string
	url    string
	status int
	says   []string // sandbox, reason, what to do next
}

// judged opens the page and checks that people can read it: on a phone, in the light and in the dark, with what reads it to them.
func (p ownPage) judged(t *testing.T, tab *browser.Tab) {
	t.Helper()
	tab.Emulate(360, "light")
	before := len(tab.Exchanges())
	tab.Open(p.url)
	all := tab.Exchanges()[before:]
	if len(all) > 1 && all[0].Status == 303 { // a link that signed in
		all = all[1:]
	}
	if len(all) == 0 || all[0].Kind != "Document" || all[0].Status != p.status {
		t.Errorf("%s: want status %d: %v", p.name, p.status, all)
	}
	text := browser.Eval[string](tab, `document.body.innerText`)
	for _, s := range p.says {
		if !strings.Contains(strings.ToLower(text), strings.ToLower(s)) {
			t.Errorf("%s does not say %q:\n%s", p.name, s, text)
		}
	}
	for _, scheme := range []string{"light", "dark"} {
		tab.Emulate(360, scheme)
		if by := tab.Sideways(); by > 0 {
			t.Errorf("%s, %s: %d pixels wider than a phone", p.name, scheme, by)
		}
		for _, found := range tab.Inaccessible() {
			t.Errorf("%s, %s: %s", p.name, scheme, found)
		}
		tab.Shot(fmt.Sprintf("%s-%s-360", p.name, scheme))
		if light := browser.Eval[bool](tab, `getComputedStyle(document.body).backgroundColor === "rgb(255, 255, 255)"`); light != (scheme == "light") {
			t.Errorf("%s: not %s", p.name, scheme)
		}
	}
	tab.Emulate(1280, "light")
	tab.Shot(p.name + "-light-1280")
}

// badForks makes an API with one fork that crashes and one that does not get ready.
func (s *space) badForks() {
	s.t.Helper()
	s.create(podinfo("api", 1), podinfoService("api"))
	s.available("api")
	s.sandbox("route", "deploy/api")
	s.sandbox("fork", "deploy/api", "--name=crashed", "--env=PODINFO_RANDOM_DELAY_UNIT=years", "--wait=false")
	s.sandbox("fork", "deploy/api", "--name=slow", "--image="+apps.Podinfo(1), "--env=PODINFO_UNREADY=true", "--wait=false")
	for fork, want := range map[string]string{"crashed": "CrashLoopBackOff", "slow": "Running"} {
		eventually(s.t, 2*time.Minute, "the fork of "+fork+" is "+want, func(context.Context) error {
			out := s.kubectl("get", "pods", "-l", "kubectl-sandbox.dev/sandbox="+fork, "--no-headers")
			if !strings.Contains(out, want) {
				return fmt.Errorf("%s", out)
			}
			return nil
		})
	}
}

// badPages are the pages of badForks, at the addresses of the two sandboxes.
func (s *space) badPages(name, crashed, slow string) []ownPage {
	return []ownPage{
		{name + "-crashed", crashed, 503, []string{"The fork does not run", "crashed", s.name, "ContainerCrashed", "container app crashes: exit code", "kubectl logs deploy/api-crashed --container=app -n " + s.name}},
		{name + "-starting", slow, 503, []string{"The sandbox is starting", "slow", s.name, "ContainerNotReady", "fork api-slow: container app runs, and its readiness probe", "kubectl logs deploy/api-slow"}},
	}
}

// mended checks that the page of a fork that was starting gives way to the app, with no hand laid on it, once the fork serves.
func (s *space) mended(tab *browser.Tab, page ownPage) {
	s.t.Helper()
	tab.Open(page.url)
	tab.Until(`document.title === "The sandbox is starting"`)
	s.kubectl("set", "env", "deploy/api-slow", "PODINFO_UNREADY=false")
	tab.Until(`document.title !== "The sandbox is starting" && document.readyState === "complete"`)
	var last browser.Exchange
	for _, e := range tab.Exchanges() {
		if e.Kind == "Document" {
			last = e
		}
	}
	if by := last.Fields[sandbox.HeaderServedBy]; !strings.HasPrefix(by, "api-slow-") {
		s.t.Errorf("want an answer of the fork: %s", &last)
	}
}

func TestOwnPagesAreForPeople(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.badForks()
	s.create(service("ghost", app("nobody"), port("http", 80, 80)))
	o := s.open("slow", "svc/api")
	at := func(host string) string { return fmt.Sprintf("http://%s:%d/", host, o.Port) }
	const long = "sixty-three-letters-of-a-name-in-which-a-line-may-be-broken-where"
	attack := `data:text/html,<form method=post action="` + o.URL + `/"></form><script>document.forms[0].submit()</script>`

	tab := browser.Start(t, browser.Options{Resolve: map[string]string{"elsewhere.test": "127.0.0.1"}}).Tab(t)
	bad := s.badPages("open", at("crashed.localhost"), o.URL+"/")
	for _, page := range append(bad,
		ownPage{"open-no-sandbox", at(long[:63] + ".localhost"), 404, []string{"No such sandbox", long[:63], s.name, "kubectl sandbox list -n " + s.name}},
		ownPage{"open-no-service", at("nothing.slow.localhost"), 404, []string{"No such Service", "slow", `"nothing"`, "kubectl get services -n " + s.name}},
		ownPage{"open-elsewhere", at("elsewhere.test"), 421, []string{"No preview here", "elsewhere.test", "kubectl sandbox list -n " + s.name}},
		ownPage{"open-no-pods", at("ghost.baseline.localhost"), 503, []string{"The Service does not answer", "ghost." + s.name, "none (baseline)", "kubectl get endpointslices -n " + s.name}},
	) {
		page.judged(t, tab)
	}
	// A page of another site posts to it.
	tab.Open(attack)
	tab.Until(`document.title === "Not for pages of other sites"`)
	if found := tab.Inaccessible(); len(found) > 0 || tab.Sideways() > 0 {
		t.Errorf("%v, %d pixels too wide", found, tab.Sideways())
	}
	tab.Shot("open-other-site")
	s.mended(tab, bad[1])
}

// The same of the gateway that runs in the cluster.
func ownPagesOfTheGatewayAreForPeople(t *testing.T, g *gatewayWithin) {
	s := g.space
	s.badForks()
	s.create(service("ghost", app("nobody"), port("http", 80, 80)))
	s.sandbox("fork", "deploy/api", "--name=gone", "--env=X=1", "--wait=false")
	g.known(s.previewed("gone", "nothing"), http.StatusUnauthorized)
	s.sandbox("delete", "gone")
	tab := g.browser().Tab(t)
	bad := s.badPages("gateway", g.link("crashed", "api"), g.link("slow", "api"))
	for _, page := range append(bad,
		ownPage{"gateway-gone", s.previewed("gone", "nothing") + "/", 410, []string{"This sandbox is gone", "gone", s.name, "it was deleted", "kubectl sandbox list -n " + s.name}},
		ownPage{"gateway-not-signed-in", s.previewed("crashed", "ghost") + "/", 401, []string{"Sign in to see this preview", "crashed", s.name, "closed", "kubectl sandbox share crashed svc/ghost -n " + s.name}},
		ownPage{"gateway-wrong-link", s.previewed("slow", "ghost") + "/?sandbox-token=sandbox_wrong", 401, []string{"Sign in to see this preview", "slow", "not valid", "kubectl sandbox share slow svc/ghost -n " + s.name}},
		ownPage{"gateway-no-sandbox", s.previewed("nobody", "api") + "/", 404, []string{"No such sandbox", "nobody", s.name, "kubectl sandbox list -n " + s.name}},
		ownPage{"gateway-no-service", g.link("slow", "nothing"), 404, []string{"No such Service", "slow", s.name, "kubectl get services -n " + s.name}},
	) {
		if !strings.Contains(page.url, share.Parameter+"=") {
			g.known(page.url, page.status)
		}
		page.judged(t, tab)
	}
	s.mended(tab, bad[1])
	g.keepsSecrets(s)
}
