package e2e

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kubectl-sandbox/kubectl-sandbox/test/browser"
	"github.com/kubectl-sandbox/kubectl-sandbox/test/hotrod"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// shop runs HotROD, of which the services named are forked as sandbox "web".
func (s *space) shop(forked ...string) {
	s.t.Helper()
	deployments, services := hotrod.Objects()
	for _, d := range deployments {
		s.create(d)
	}
	s.create(services)
	for _, name := range hotrod.Services() {
		s.available(name)
	}
	route, fork := []string{"route"}, []string{"fork", "--name=web", "--env=X=1"}
	for _, name := range forked {
		route, fork = append(route, "deploy/"+name), append(fork, "deploy/"+name)
	}
	s.sandbox(route...)
	s.sandbox(fork...)
}

// A person opens HotROD's page in three tabs at once, in a sandbox by both ways in and at the baseline, and books a ride in each.
func aPageBooksARideWithTheFork(t *testing.T, g *gatewayWithin) {
	s := g.space
	forked := []string{hotrod.Frontend, hotrod.Customer}
	s.shop(forked...)
	o := s.open("web", "svc/frontend")
	chromium := g.browser()
	link := strings.TrimSpace(s.sandbox("share", "web", "svc/frontend").stdout)
	s.booksRides(chromium, []visit{
		{address: o.URL, forked: forked},
		{address: s.previewed("web", hotrod.Frontend), begin: g.known(link, http.StatusSeeOther), forked: forked},
		{address: o.BaselineURL},
	})
	g.ribboned(chromium.Tab(t), s.previewed("web", hotrod.Frontend)+"/", "Sandbox web in "+s.name)
}

// ribboned checks that a page that the browser is signed in to has a ribbon, which stays away once it is hidden.
func (g *gatewayWithin) ribboned(tab *browser.Tab, address, says string) {
	g.t.Helper()
	const ribbon = `document.querySelector("dialog[open]")`
	tab.Open(address)
	if got := browser.Eval[string](tab, ribbon+`?.innerText ?? ""`); !strings.Contains(got, says) {
		g.t.Errorf("%s: the ribbon says %q", address, got)
	}
	tab.Shot("ribbon")
	tab.Click("dialog[open] button")
	tab.Until("!" + ribbon)
	tab.Open(address)
	if browser.Eval[bool](tab, "!!"+ribbon) {
		g.t.Errorf("%s: the ribbon is there again", address)
	}
}

// A visit is a page that is opened, and which services' forks its requests reach; those of all others reach the baseline.
type visit struct {
	address string   // of HotROD's page
	begin   string   // what is opened instead, and leads there: a link that signs in
	forked  []string // the frontend among them; none: the baseline
}

// booksRides opens HotROD's page at each address in a tab of its own, all at once, and books a ride in each by a click. What each
// request of a page reached is told by the pods' own logs, and by the routers.
func (s *space) booksRides(chromium *browser.Browser, visits []visit) {
	s.t.Helper()
	const button, arrives = `[data-customer="392"]`, `document.querySelector("#hotrod-log").innerText.includes("arriving in")`
	tabs, traces := make([]*browser.Tab, len(visits)), make([]string, len(visits))
	for i, v := range visits {
		traces[i] = newTrace()
		tabs[i] = chromium.Tab(s.t, "traceparent", "00-"+traces[i]+"-00f067aa0ba902b7-01")
		if v.begin != "" {
			tabs[i].Open(v.begin)
		} else {
			tabs[i].Open(v.address + "/")
		}
		browser.Eval[string](tabs[i], fmt.Sprintf(`document.cookie = "visit=%d"`, i))
	}
	for _, tab := range tabs {
		tab.Click(button)
	}
	for i, tab := range tabs {
		tab.Until(arrives)
		if got := browser.Eval[string](tab, `document.cookie`); got != fmt.Sprintf("visit=%d", i) {
			s.t.Errorf("%s: cookies are not its own: %s", visits[i].address, got)
		}
		tab.Shot("ride-" + fmt.Sprint(i))
	}
	for i, v := range visits {
		s.visited(v, tabs[i].Settle(), traces[i])
	}
}

// visited checks what the requests of a page reached.
func (s *space) visited(v visit, exchanges []browser.Exchange, trace string) {
	s.t.Helper()
	served := ""
	if slices.Contains(v.forked, hotrod.Frontend) {
		served = s.hosts(sandbox.LabelSandbox + "=web," + sandbox.LabelWorkload + "=" + sandbox.WorkloadLabel("Deployment", hotrod.Frontend))[0]
	}
	kinds := map[string]string{}
	for _, e := range exchanges {
		u, err := url.Parse(e.URL)
		if err != nil {
			s.t.Fatal(err)
		}
		if origin := u.Scheme + "://" + u.Host; origin != v.address {
			if !slices.Contains([]string{"cdn.jsdelivr.net", "maxcdn.bootstrapcdn.com"}, u.Host) || e.Status != 200 || e.Failure != "" {
				s.t.Errorf("a request left the preview: %s", &e)
			}
			continue
		}
		kinds[u.Path] = e.Kind
		switch by := e.Fields[sandbox.HeaderServedBy]; {
		case e.Status == 303 && e.URL == v.begin: // the gateway's own
		case e.Status != 200:
			s.t.Errorf("failed: %s", &e)
		case by != served:
			s.t.Errorf("served by %q, want %q: %s", by, served, &e)
		}
	}
	if kinds["/"] != "Document" || kinds["/config"] != "XHR" || kinds["/dispatch"] != "XHR" {
		s.t.Errorf("%s: requests were %v", v.address, exchanges)
	}
	ctx, cancel := context.WithTimeout(s.t.Context(), 30*time.Second)
	defer cancel()
	all, err := hotrod.Hops(ctx, s.client, s.name, trace)
	if err != nil {
		s.t.Errorf("%s: %v", v.address, err)
		return
	}
	for _, h := range all[trace] {
		want := ""
		if slices.Contains(v.forked, h.Service) {
			want = "web"
		}
		if h.Sandbox != want {
			s.t.Errorf("%s: %s was answered by %s of sandbox %q, want %q", v.address, h.Service, h.Pod, h.Sandbox, want)
		}
	}
	if len(all[trace]) != len(hotrod.Services()) {
		s.t.Errorf("%s: pods that took part: %v", v.address, all[trace])
	}
}

// pageAndAPI runs a Service web that serves any page, and an API of which sandbox pr-1 has a fork. It returns the fork's pod.
func (s *space) pageAndAPI() string {
	s.t.Helper()
	web, api := httpbin("web", 1), httpbin("api", 1)
	web.Spec.Template.Spec.Containers[0].Args = append(web.Spec.Template.Spec.Containers[0].Args, "-unsafe-allow-dangerous-responses")
	s.create(web, service("web", app("web"), port("http", 80, 8080)), api, service("api", app("api"), port("http", 80, 8080)))
	s.available("web")
	s.available("api")
	s.sandbox("route", "deploy/api")
	s.sandbox("fork", "deploy/api", "--name=pr-1", "--key=key-1", "--env=X=1")
	return s.hosts(sandbox.LabelSandbox + "=pr-1")[0]
}

// A page whose script calls an API by its other addresses: through a redirect to its name in the cluster, at its own preview, and
// by its name in the cluster, which no browser outside knows.
func TestAPageThatCallsItsAPIElsewhereReachesTheForkOrIsNamed(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	fork := s.pageAndAPI()
	o := s.open("pr-1", "svc/web")
	inCluster := "http://api." + s.name + ".svc.cluster.local"
	preview := strings.Replace(o.URL, "http://", "http://api."+s.name+".", 1)
	page := `<!doctype html><title>a page</title><script>
const ask = (url) => fetch(url).then((r) => r.json()).then((j) => j.headers["X-Sandbox-Key"].join(), String);
window.answers = Promise.all([ask("/redirect-to?status_code=307&url=` + inCluster + `/headers"), ask("` + preview + `/headers"), ask("` + inCluster + `/headers")]);
</script>`

	tab := browser.Start(t, browser.Options{}).Tab(t)
	tab.Open(o.URL + "/base64/decode/" + base64.URLEncoding.EncodeToString([]byte(page)) + "?content-type=text/html")
	answers := browser.Eval[[]string](tab, "answers")
	if len(answers) != 3 || answers[0] != "key-1" || answers[1] != "key-1" || !strings.Contains(answers[2], "Failed to fetch") {
		t.Errorf("the API answered %q", answers)
	}
	reached := 0
	for _, e := range tab.Settle() {
		switch {
		case strings.HasPrefix(e.URL, preview) && e.Status == 200 && e.Fields[sandbox.HeaderServedBy] == fork:
			reached++
		case strings.HasPrefix(e.URL, inCluster) && e.Status == 0, strings.HasPrefix(e.URL, o.URL+"/"): // web has no fork
		default:
			t.Errorf("want it to reach %s: %s", fork, &e)
		}
	}
	if reached != 2 {
		t.Errorf("%d requests reached the fork, want 2: %v", reached, tab.Exchanges())
	}
	eventually(t, 60*time.Second, "the host that escaped is named", func(context.Context) error {
		if said := o.said.String(); !strings.Contains(said, "uses "+inCluster+", which is no preview") {
			return fmt.Errorf("said %q", said)
		}
		return nil
	})
}

// The same at the gateway: a redirect to a name in the cluster leads to its preview, in a tab and in a script, and what leaves the
// previews is named in the answer's head and in the log. The page's ribbon is no hindrance to anybody.
func aPageThatCallsItsAPIElsewhereReachesTheForkOrIsNamed(t *testing.T, g *gatewayWithin) {
	s := g.space
	fork := s.pageAndAPI()
	front, back := s.previewed("pr-1", "web"), s.previewed("pr-1", "api")
	inCluster := "api." + s.name + ".svc.cluster.local"
	to := func(status int, where string) string {
		return fmt.Sprintf("/redirect-to?status_code=%d&url=%s", status, where)
	}
	page := `<!doctype html><html lang=en><title>a page</title><body><main><h1>A page</h1></main><script>
const ask = (url) => fetch(url, {credentials: "include"}).then((r) => r.json()).then((j) => j.headers["X-Sandbox-Key"].join(), String);
const look = (url) => fetch(url, {credentials: "include", mode: "no-cors"}).then((r) => r.type, String);
window.answers = Promise.all([look("` + to(307, "http://"+inCluster+"/image/png") + `"), ask("` + back + `/headers"), ask("https://` + inCluster + `/headers"),
ask("` + to(302, "https://elsewhere.example/a") + `")]);
</script>`

	chromium := g.browser()
	for _, name := range []string{"web", "api"} { // in tabs that stay open, so that what they still load does
		chromium.Tab(t).Open(g.link("pr-1", name))
	}
	tab := chromium.Tab(t)
	address := front + "/base64/decode/" + base64.URLEncoding.EncodeToString([]byte(page)) + "?content-type=text/html"
	tab.Open(address)
	answers := browser.Eval[[]string](tab, "answers")
	tab.Settle()
	if len(answers) != 4 || answers[0] != "opaque" || answers[1] != "key-1" || !strings.Contains(answers[2], "Failed to fetch") || !strings.Contains(answers[3], "Failed to fetch") {
		t.Errorf("the API answered %q", answers)
	}
	tab.Open(front + to(302, "http://api."+s.name+"/headers"))
	reached, escaped := 0, ""
	for _, e := range tab.Settle() {
		switch {
		case strings.HasSuffix(e.URL, "/favicon.ico"):
		case strings.HasPrefix(e.URL, back) && e.Status == 200 && e.Fields[sandbox.HeaderServedBy] == fork:
			reached++
		case strings.HasPrefix(e.URL, front+"/"):
			escaped += e.Fields[sandbox.HeaderEscaped]
		case strings.HasPrefix(e.URL, "https://"+inCluster) && e.Status == 0, strings.HasPrefix(e.URL, "https://elsewhere.example/") && e.Status == 0:
		default:
			t.Errorf("want it to reach %s: %s", fork, &e)
		}
	}
	if reached != 3 || escaped != "https://elsewhere.example" {
		t.Errorf("%d requests reached the fork, want 3; %q escaped: %v", reached, escaped, tab.Exchanges())
	}
	eventually(t, 60*time.Second, "the hosts that escaped are named", func(ctx context.Context) error {
		r := run(g.command(ctx, "kubectl", "-n", g.release, "logs", "-l", "app.kubernetes.io/component=gateway", "--tail=-1"))
		for _, host := range []string{"https://elsewhere.example", "https://" + inCluster} {
			if !strings.Contains(r.stdout, host+`"`) {
				return fmt.Errorf("%s is not named: %s", host, tail(r.stdout, 2000))
			}
		}
		return r.err
	})

	for _, scheme := range []string{"light", "dark"} {
		tab.Emulate(360, scheme)
		tab.Open(address)
		if found := tab.Inaccessible(); len(found) > 0 || tab.Sideways() > 0 {
			t.Errorf("%s: %v, %d pixels wider than a phone", scheme, found, tab.Sideways())
		}
		tab.Shot("ribbon-" + scheme + "-360")
	}
	g.ribboned(tab, address, "Sandbox pr-1 in "+s.name)
	g.keepsSecrets(s)
}
