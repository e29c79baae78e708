package e2e

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// A cutter stands between a command and the API server, and kills the command at one of its writes.
type cutter struct {
	at     int64  // the write, from 1 on; 0: none
	before bool   // before the API server sees it, or after it has done it
	kill   func() // kills the command at once, as kill -9 does
	writes atomic.Int64
	cut    atomic.Bool
}

// proxied returns the path of a kubeconfig whose server is a proxy that c watches.
func (s *space) proxied(c *cutter) string {
	s.t.Helper()
	transport, err := rest.TransportFor(s.config)
	if err != nil {
		s.t.Fatal(err)
	}
	host, err := url.Parse(s.config.Host)
	if err != nil {
		s.t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(host); r.Out.Host = host.Host },
		Transport:     transport,
		FlushInterval: -1, // watches
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			http.Error(w, err.Error(), http.StatusBadGateway)
		},
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c.cut.Load() {
			panic(http.ErrAbortHandler)
		}
		if !writes(r) || c.writes.Add(1) != c.at {
			proxy.ServeHTTP(w, r)
			return
		}
		c.cut.Store(true)
		if !c.before {
			done := httptest.NewRecorder()
			proxy.ServeHTTP(done, r)
			_, _ = io.Copy(io.Discard, done.Result().Body)
		}
		c.kill()
		panic(http.ErrAbortHandler)
	}))
	s.t.Cleanup(server.Close)
	path := filepath.Join(s.t.TempDir(), "kubeconfig")
	config := clientcmdapi.NewConfig()
	config.Clusters["c"] = &clientcmdapi.Cluster{Server: server.URL}
	config.AuthInfos["u"] = &clientcmdapi.AuthInfo{}
	config.Contexts["x"] = &clientcmdapi.Context{Cluster: "c", AuthInfo: "u", Namespace: s.name}
	config.CurrentContext = "x"
	if err := clientcmd.WriteToFile(*config, path); err != nil {
		s.t.Fatal(err)
	}
	return path
}

// writes reports whether a request changes an object.
func writes(r *http.Request) bool {
	return r.Method != http.MethodGet && r.Method != http.MethodHead && !r.URL.Query().Has("dryRun") &&
		!strings.Contains(r.URL.Path, "/selfsubject") && !strings.Contains(r.URL.Path, "/authorization.k8s.io/")
}

// cutAt runs `kubectl sandbox ARGS` and kills it at a write. It reports whether the command got that far.
func (s *space) cutAt(write int64, before bool, args ...string) bool {
	s.t.Helper()
	c := &cutter{at: write, before: before}
	cmd := s.command(s.t.Context(), "kubectl-sandbox", args...)
	cmd.Env = append(cmd.Env, "KUBECONFIG="+s.proxied(c))
	c.kill = func() { _ = cmd.Process.Kill() }
	r := run(cmd)
	if !c.cut.Load() {
		if r.err != nil {
			s.t.Fatalf("not killed, and failed: %v", r)
		}
		return false
	}
	if r.err == nil {
		s.t.Errorf("killed at write %d, yet it ended well: %v", write, r)
	}
	return true
}

func TestRouteInterruptedAtAnyWriteCanBeRunAgainOrUndone(t *testing.T) {
	t.Parallel()
	again := func(int64) string { return "route" }
	undone := func(int64) string { return "unroute" }
	eachInTurn := func(write int64) string { return []string{"route", "unroute"}[write%2] }
	type variant struct {
		command, next string
		before        bool
		then          func(write int64) string
	}
	variants := []variant{
		{"route", "run again", true, again}, {"route", "run again", false, again},
		{"route", "undone", true, undone}, {"route", "undone", false, undone},
		{"unroute", "run again", true, undone}, {"unroute", "run again", false, undone},
		{"unroute", "undone", true, again}, {"unroute", "undone", false, again},
	}
	if testing.Short() {
		variants = []variant{{"route", "run again or undone", false, eachInTurn}, {"unroute", "undone or run again", true, eachInTurn}}
	}
	for _, v := range variants {
		when := map[bool]string{true: "before", false: "after"}[v.before]
		t.Run(fmt.Sprintf("%s killed %s each write, then %s", v.command, when, v.next), func(t *testing.T) {
			t.Parallel()
			interrupted(t, v.command, v.before, v.then)
		})
	}
}

// interrupted kills the command at its first write, then, from the start again, at its second, and so on to its last; after
// each time, what then names has to lead to a good end.
func interrupted(t *testing.T, command string, before bool, then func(write int64) string) {
	s := newSpace(t)
	// A port without a name, two Services, and a policy: every kind of write that route knows.
	s.create(podinfo("api", 1), podinfoService("api"), service("api-too", app("api"), port("http", 80, httpPort)))
	s.applyYAML(admitPolicy)
	s.available("api")
	s.serving(s.address("api", "http"))
	before0 := s.snapshot()
	load := startHTTP(t, "unkeyed", s.address("api", "http"), "/api/info", 20, nil, says(baselineMessage, false))

	for write := int64(1); ; write++ {
		if write > 20 {
			t.Fatal("it makes more than 20 writes")
		}
		if command == "unroute" {
			s.sandbox("route", "deploy/api")
		}
		if !s.cutAt(write, before, command, "deploy/api") {
			t.Logf("%s makes %d writes", command, write-1)
			if write == 1 {
				t.Error("it made no write at all")
			}
			break
		}
		_, failedBefore := load.mark()
		next := then(write)
		if next == "route" {
			s.sandbox("route", "deploy/api")
			s.keyedWorks()
		}
		s.sandbox("unroute", "deploy/api")
		if after := s.snapshot(); after != before0 {
			t.Errorf("killed at write %d, then %s: objects differ:\n%s", write, next, difference(before0, after))
		}
		if n, failed := load.mark(); failed > failedBefore {
			t.Errorf("killed at write %d, then %s: %d requests failed of %d so far", write, next, failed-failedBefore, n)
		}
	}
	load.unscathed(100)
}

// keyedWorks forks the baseline, sends it a request, and deletes the fork.
func (s *space) keyedWorks() {
	s.t.Helper()
	s.sandbox("fork", "deploy/api", "--name=probe", "--key=probe", "--env=PODINFO_UI_MESSAGE=probe")
	c := newH1(s.address("api", "http"))
	defer c.close()
	if a, err := c.call(s.t.Context(), carriers("probe")[0]); err != nil || a.Message != "probe" {
		s.t.Errorf("keyed request: %+v, %v", a, err)
	}
	s.sandbox("delete", "probe")
}

// admitPolicy admits everybody of the namespace to the app's ports, and nobody else.
const admitPolicy = `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: api}
spec:
  podSelector: {matchLabels: {app: api}}
  policyTypes: [Ingress]
  ingress:
  - from: [{podSelector: {}}]
    ports: [{port: 9898}, {port: 9999}]
`

// applyYAML applies a manifest in the namespace.
func (s *space) applyYAML(manifest string) {
	s.t.Helper()
	cmd := s.command(s.t.Context(), "kubectl", "-n", s.name, "apply", "-f", "-")
	cmd.Stdin = strings.NewReader(manifest)
	if r := run(cmd); r.err != nil {
		s.t.Fatal(r)
	}
}
